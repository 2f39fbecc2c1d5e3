"""A simulated EVM chain: what any block holds is computed, never stored.

Always true: the head is a function of `now` alone, and a block of its number, so any number of
providers that share one chain agree, and one that answers as of an earlier instant lags exactly as
a real node does.  A hash carries its number in scrambled form, which is how things are found by
hash without an index.  The only state is the pool of sent transactions, bounded, with a record of
who received what: the witness against a transaction sent twice.
Does not belong here: JSON-RPC parameters and tags (node), I/O, the clock.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from gateway.dialect.transactions import keccak256

JsonObject = dict[str, Any]

MAX_SENT = 100_000  # sent transactions remembered; the oldest are forgotten
FINAL_DEPTH = 64  # blocks from the head to the finalized one
SAFE_DEPTH = 32
GAS_LIMIT = 30_000_000
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
_ZERO_WORD = "0x" + "00" * 32
_ZERO_BLOOM = "0x" + "00" * 256
_EMPTY_UNCLES = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"
_SCRAMBLE = 0x9E3779B97F4A7C15  # odd, so multiplying by it can be undone modulo 2**64
_UNSCRAMBLE = pow(_SCRAMBLE, -1, 2**64)
_IDENTITIES_PER_BLOCK = 1024  # 0 is the block itself, 1 and up its transactions


class Refused(Exception):
    """The node's own "no": becomes a JSON-RPC error object with this code, message and data."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


@dataclass(frozen=True, slots=True)
class SentTransaction:
    """A transaction that some provider accepted, and the block it is mined in."""

    hash: str
    raw: bytes
    block_number: int
    index: int


@dataclass(slots=True)
class _Pool:
    by_hash: OrderedDict[str, SentTransaction] = field(default_factory=OrderedDict)
    by_block: dict[int, list[SentTransaction]] = field(default_factory=dict)


REMEMBERED_BLOOMS = 4096


def transaction_hash(raw: bytes) -> str:
    """The keccak-256 of a raw signed transaction, as every wallet computes it."""
    return "0x" + keccak256(raw).hex()


class SimulatedChain:
    """One network.  Give the same object to every provider that is to be on it.

    `block_time` is in seconds.  `genesis_at` is the instant (same clock as every `now`) of block 0;
    by default it lies so far back that there is a history.  `genesis_timestamp` is that instant in
    seconds since 1970, as blocks tell it.  Two chains with different seeds share no hash.
    """

    def __init__(
        self,
        chain_id: int = 1,
        block_time: float = 12.0,
        genesis_at: float = -12_000_000.0,
        seed: int = 0,
        *,
        genesis_timestamp: int = 1_600_000_000,
    ) -> None:
        if block_time <= 0:
            raise ValueError(f"block_time must be positive, got {block_time}")
        self.chain_id = chain_id
        self.block_time = block_time
        self.genesis_at = genesis_at
        self.genesis_timestamp = genesis_timestamp
        self.seed = seed
        self._key = hashlib.sha256(f"{chain_id}:{seed}".encode()).digest()
        self._pool = _Pool()
        self._siblings: dict[int, SimulatedChain] = {}
        self._branches: dict[int, Branch] = {}
        self._blooms: dict[int, str] = {}
        self._halts: list[list[float]] = []  # [from, to), the last one open while the chain is halted
        self.received: dict[str, dict[str, int]] = {}
        """Transaction hash -> provider name -> how many times it was handed this transaction."""

    def sibling(self, chain_id: int) -> SimulatedChain:
        """The network with another id that keeps the same time; it shares no block and no pool with this one."""
        if chain_id not in self._siblings:
            self._siblings[chain_id] = SimulatedChain(
                chain_id, self.block_time, self.genesis_at, self.seed, genesis_timestamp=self.genesis_timestamp
            )
        return self._siblings[chain_id]

    def branch(self, root: int) -> Branch:
        """The same network as a node sees it that has followed another branch from above block `root` on."""
        if root not in self._branches:
            self._branches[root] = Branch(self, root)
        return self._branches[root]

    def halt(self, now: float) -> None:
        """No further block from `now` on, at anybody's."""
        if not self._halts or self._halts[-1][1] != float("inf"):
            self._halts.append([now, float("inf")])

    def resume(self, now: float) -> None:
        """Blocks come again."""
        if self._halts and self._halts[-1][1] == float("inf"):
            self._halts[-1][1] = now

    # --- numbers and hashes -----------------------------------------------------------------------

    def head(self, now: float) -> int:
        """The newest block's number at `now`; 0 before and at genesis."""
        stood = sum(min(now, ended) - began for began, ended in self._halts if now > began)
        return max(0, int((now - stood - self.genesis_at) // self.block_time))

    def timestamp(self, number: int) -> int:
        """Seconds since 1970."""
        return self.genesis_timestamp + int(number * self.block_time)

    def block_hash(self, number: int) -> str:
        return self._hash_of(number * _IDENTITIES_PER_BLOCK)

    def number_of(self, block_hash: str) -> int | None:
        """The number behind a block hash of this chain; None for any other string."""
        identity = self._identity_of(block_hash)
        return None if identity is None or identity % _IDENTITIES_PER_BLOCK else identity // _IDENTITIES_PER_BLOCK

    def transaction_hashes(self, number: int) -> list[str]:
        """All transactions of a block: the chain's own, then the sent ones."""
        own = [self._hash_of(number * _IDENTITIES_PER_BLOCK + 1 + i) for i in range(self._own_count(number))]
        return own + [sent.hash for sent in self._pool.by_block.get(number, ())]

    def base_fee(self, number: int) -> int:
        """Wei; moves with the number, so that an old answer can be told from a new one."""
        return 10_000_000_000 + (number % 1000) * 1_000_000

    # --- blocks, transactions, receipts, logs -----------------------------------------------------

    def block(self, number: int, full: bool = False) -> JsonObject:
        """The block in its JSON form; `full`: with transaction objects in place of hashes."""
        hashes = self.transaction_hashes(number)
        return {
            "number": hex(number),
            "hash": self.block_hash(number),
            "parentHash": self.block_hash(number - 1) if number else _ZERO_WORD,
            "nonce": "0x0000000000000000",
            "sha3Uncles": _EMPTY_UNCLES,
            "logsBloom": self.bloom(number),
            "transactionsRoot": self._word("transactions", number),
            "stateRoot": self._word("state", number),
            "receiptsRoot": self._word("receipts", number),
            "miner": self._address("miner", number % 7),
            "difficulty": "0x0",
            "extraData": "0x",
            "size": "0x400",
            "gasLimit": hex(GAS_LIMIT),
            "gasUsed": hex(21_000 * len(hashes)),
            "timestamp": hex(self.timestamp(number)),
            "baseFeePerGas": hex(self.base_fee(number)),
            "mixHash": self._word("mix", number),
            "withdrawals": [],
            "withdrawalsRoot": self._word("withdrawals", number),
            "uncles": [],
            "transactions": [self._transaction(h, number, i) for i, h in enumerate(hashes)] if full else hashes,
        }

    def transaction(self, tx_hash: str, now: float) -> JsonObject | None:
        """A transaction as known at `now`: mined, pending (without a block), or None."""
        sent = self._pool.by_hash.get(tx_hash)
        if sent is not None and sent.block_number > self.head(now):
            pending = self._transaction(tx_hash, sent.block_number, sent.index)
            return pending | {"blockHash": None, "blockNumber": None, "transactionIndex": None}
        place = self._place_of(tx_hash, now)
        return None if place is None else self._transaction(tx_hash, *place)

    def receipt(self, tx_hash: str, now: float) -> JsonObject | None:
        """The receipt of a transaction that is mined at `now`, or None."""
        place = self._place_of(tx_hash, now)
        if place is None:
            return None
        number, index = place
        transaction = self._transaction(tx_hash, number, index)
        return {
            "transactionHash": tx_hash,
            "transactionIndex": hex(index),
            "blockHash": transaction["blockHash"],
            "blockNumber": transaction["blockNumber"],
            "from": transaction["from"],
            "to": transaction["to"],
            "cumulativeGasUsed": hex(21_000 * (index + 1)),
            "gasUsed": hex(21_000),
            "contractAddress": None,
            "logs": [self._log(tx_hash, number, index)] if index < self._own_count(number) else [],
            "logsBloom": _ZERO_BLOOM,
            "type": "0x2",
            "status": "0x1",
            "effectiveGasPrice": hex(self.base_fee(number) + 1_000_000_000),
        }

    def logs(self, first: int, last: int, addresses: frozenset[str] = frozenset()) -> list[JsonObject]:
        """Logs of the blocks `first` to `last`, both included; without addresses, of every contract."""
        return [
            self._log(self._hash_of(number * _IDENTITIES_PER_BLOCK + 1 + index), number, index)
            for number in range(first, last + 1)
            for index in range(self._own_count(number))
            if not addresses or self.token(number, index) in addresses
        ]

    def bloom(self, number: int) -> str:
        """The filter of a block's logs: three of 2048 bits for each address and topic (Yellow Paper, 4.3.1)."""
        known = self._blooms.get(number)
        if known is None:
            bits = 0
            for log in self.logs(number, number):
                for value in (log["address"], *log["topics"]):
                    digest = keccak256(bytes.fromhex(value[2:]))
                    for at in (0, 2, 4):
                        bits |= 1 << (int.from_bytes(digest[at : at + 2]) & 0x7FF)
            if len(self._blooms) >= REMEMBERED_BLOOMS:
                del self._blooms[next(iter(self._blooms))]
            known = self._blooms[number] = f"0x{bits:0512x}"
        return known

    def token(self, number: int, index: int) -> str:
        """The contract that the transaction at this place calls: one of four."""
        return self._address("token", (number + index) % 4)

    # --- state ------------------------------------------------------------------------------------

    def balance(self, address: str, number: int) -> int:
        """Wei at a block; never zero, and one more with every block, so that old and new differ."""
        return 10**18 + int.from_bytes(self._digest(f"balance:{address.lower()}", 7)) + number

    def nonce(self, address: str) -> int:
        return self._digest(f"nonce:{address.lower()}", 1)[0]

    def code(self, address: str) -> str:
        """Bytecode for the four tokens, nothing for any other address."""
        return "0x6080604052" if address.lower() in {self._address("token", i) for i in range(4)} else "0x"

    def word(self, number: int, *inputs: str) -> str:
        """A 32-byte value that depends on the block and on every input: storage slots, results of calls."""
        return "0x" + self._digest(f"word:{number}:{':'.join(inputs)}".lower(), 32).hex()

    # --- sending ----------------------------------------------------------------------------------

    def send_raw(self, raw: bytes, now: float, provider: str = "") -> str:
        """Add a signed transaction to the pool all providers share; it is mined in the next block.

        Returns its hash.  Every arrival is recorded in `received`, the refused ones too.
        Raises Refused: "already known" while it waits, "nonce too low" once it is mined.
        """
        if len(raw) < 2:
            raise Refused(-32000, "typed transaction too short")
        tx_hash = transaction_hash(raw)
        by_provider = self.received.setdefault(tx_hash, {})
        by_provider[provider] = by_provider.get(provider, 0) + 1
        known = self._pool.by_hash.get(tx_hash)
        head = self.head(now)
        if known is not None:
            if known.block_number <= head:
                raise Refused(-32000, "nonce too low: next nonce 1, tx nonce 0")
            raise Refused(-32000, "already known")
        block = self._pool.by_block.setdefault(head + 1, [])
        sent = SentTransaction(tx_hash, raw, head + 1, self._own_count(head + 1) + len(block))
        block.append(sent)
        self._pool.by_hash[tx_hash] = sent
        if len(self._pool.by_hash) > MAX_SENT:
            self._forget_oldest()
        return tx_hash

    def times_received(self, tx_hash: str) -> int:
        """How often any provider was handed this transaction."""
        return sum(self.received.get(tx_hash, {}).values())

    # --- inside -----------------------------------------------------------------------------------

    def _forget_oldest(self) -> None:
        tx_hash, sent = self._pool.by_hash.popitem(last=False)
        self.received.pop(tx_hash, None)
        # The whole block goes: the place of a transaction in it must not shift for those that stay.
        for other in self._pool.by_block.pop(sent.block_number, ()):
            if self._pool.by_hash.pop(other.hash, None):
                self.received.pop(other.hash, None)

    def _place_of(self, tx_hash: str, now: float) -> tuple[int, int] | None:
        sent = self._pool.by_hash.get(tx_hash)
        if sent is not None:
            number, index = sent.block_number, sent.index
        else:
            identity = self._identity_of(tx_hash)
            if identity is None or identity % _IDENTITIES_PER_BLOCK == 0:
                return None
            number, index = identity // _IDENTITIES_PER_BLOCK, identity % _IDENTITIES_PER_BLOCK - 1
            if index >= self._own_count(number):
                return None
        return (number, index) if number <= self.head(now) else None

    def _transaction(self, tx_hash: str, number: int, index: int) -> JsonObject:
        price = hex(self.base_fee(number) + 1_000_000_000)
        return {
            "hash": tx_hash,
            "blockHash": self.block_hash(number),
            "blockNumber": hex(number),
            "transactionIndex": hex(index),
            "from": self._address("from", int(tx_hash[2:10], 16)),
            "to": self.token(number, index),
            "value": hex(int(tx_hash[2:14], 16)),
            "gas": hex(21_000),
            "gasPrice": price,
            "maxFeePerGas": price,
            "maxPriorityFeePerGas": hex(1_000_000_000),
            "nonce": hex(index),
            "input": "0x",
            "type": "0x2",
            "chainId": hex(self.chain_id),
            "accessList": [],
            "v": "0x0",
            "yParity": "0x0",
            "r": self._word("r", number),
            "s": self._word("s", number),
        }

    def _log(self, tx_hash: str, number: int, index: int) -> JsonObject:
        sender = self._address("from", int(tx_hash[2:10], 16))
        return {
            "address": self.token(number, index),
            "topics": [TRANSFER_TOPIC, "0x" + sender[2:].rjust(64, "0"), "0x" + "00" * 31 + "01"],
            "data": "0x" + tx_hash[-8:].rjust(64, "0"),
            "blockNumber": hex(number),
            "blockHash": self.block_hash(number),
            "blockTimestamp": hex(self.timestamp(number)),
            "transactionHash": tx_hash,
            "transactionIndex": hex(index),
            "logIndex": hex(index),
            "removed": False,
        }

    def _own_count(self, number: int) -> int:
        return 1 + (number * 7 + self.seed) % 4 if number else 0

    def _digest(self, text: str, size: int) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=size, key=self._key).digest()

    def _word(self, what: str, number: int) -> str:
        return "0x" + self._digest(f"{what}:{number}", 32).hex()

    def _address(self, what: str, number: int) -> str:
        return "0x" + self._digest(f"{what}:{number}", 20).hex()

    def _hash_of(self, identity: int) -> str:
        head = (identity * _SCRAMBLE % 2**64).to_bytes(8)
        return "0x" + (head + hashlib.blake2b(head, digest_size=24, key=self._key).digest()).hex()

    def _identity_of(self, any_hash: str) -> int | None:
        try:
            identity = int(any_hash[2:18], 16) * _UNSCRAMBLE % 2**64
        except ValueError:
            return None
        return identity if self._hash_of(identity) == any_hash.lower() else None


class Branch(SimulatedChain):
    """A minority's view of a network: from above `root` on, other blocks under the same numbers.

    Parent links are sound inside the branch, and its pace is the network's, so that only hashes (and
    what the blocks hold) tell the two apart.
    """

    def __init__(self, trunk: SimulatedChain, root: int) -> None:
        super().__init__(
            trunk.chain_id, trunk.block_time, trunk.genesis_at, trunk.seed, genesis_timestamp=trunk.genesis_timestamp
        )
        self._trunk = trunk
        self._root = root
        self._own_key = hashlib.sha256(f"{trunk.chain_id}:{trunk.seed}:branch:{root}".encode()).digest()

    def head(self, now: float) -> int:
        return self._trunk.head(now)

    def balance(self, address: str, number: int) -> int:
        return super().balance(address, number) + (10**15 if number > self._root else 0)

    def _hash_of(self, identity: int) -> str:
        if identity // _IDENTITIES_PER_BLOCK <= self._root:
            return super()._hash_of(identity)
        head = (identity * _SCRAMBLE % 2**64).to_bytes(8)
        return "0x" + (head + hashlib.blake2b(head, digest_size=24, key=self._own_key).digest()).hex()


class Liar(SimulatedChain):
    """The same blocks, and wrong values in them: what a compromised or broken provider tells."""

    def __init__(self, trunk: SimulatedChain) -> None:
        super().__init__(
            trunk.chain_id, trunk.block_time, trunk.genesis_at, trunk.seed, genesis_timestamp=trunk.genesis_timestamp
        )
        self._trunk = trunk

    def head(self, now: float) -> int:
        return self._trunk.head(now)

    def balance(self, address: str, number: int) -> int:
        return super().balance(address, number) * 10

    def word(self, number: int, *inputs: str) -> str:
        return super().word(number, *inputs, "a lie")

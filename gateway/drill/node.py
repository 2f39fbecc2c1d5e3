"""A simulated node: one table of JSON-RPC methods over a simulated chain.

Always true: an answer is a function of the view (chain and instant), the method and the params;
what cannot be found is null or a refusal, as real nodes do it, and never a made-up value.
Does not belong here: the envelope and HTTP (wire), faults, sockets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gateway.drill.chain import FINAL_DEPTH, SAFE_DEPTH, Refused, SimulatedChain
from gateway.model import Family

MAX_LOG_RANGE_BLOCKS = 1000
MAX_LOG_RESULTS = 10_000
HUGE_LOGS = "0x" + "b16b00b5" * 5
"""eth_getLogs with this address asks for an answer of `huge_bytes` bytes, which is streamed."""
REVERTING = "0x" + "dead0001" * 5
"""eth_call to this address reverts: an application's "no", with code 3 and data."""

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,16}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_HASH = re.compile(r"0x[0-9a-fA-F]{64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_REVERT_DATA = "0x08c379a0" + "20".rjust(64, "0") + "05".rjust(64, "0") + b"wreck".hex().ljust(64, "0")
_PIECE_BYTES = 65_536


class View(NamedTuple):
    """What a node answers from: its chain, as of `now` (monotonic seconds), and its identity."""

    chain: SimulatedChain
    now: float
    sent_at: float  # the true instant: a lagging node still hands transactions to the network at once
    provider: str
    client_version: str
    huge_bytes: int
    lowest: int = 0  # blocks below are gone
    forgetful: bool = False  # its indexes of logs and receipts are empty
    max_log_range: int = MAX_LOG_RANGE_BLOCKS
    max_log_results: int = MAX_LOG_RESULTS
    misnumbered: bool = False  # its logs bear wrong indexes


class HugeLogs:
    """The result of a `HUGE_LOGS` query: about `size` bytes of JSON, made piece by piece."""

    def __init__(self, one: bytes, size: int) -> None:
        self._one = one
        self._size = size

    def pieces(self) -> Iterator[bytes]:
        """A valid JSON array of equal logs."""
        count = max(1, (self._size - 2) // (len(self._one) + 1))
        per_piece = max(1, _PIECE_BYTES // (len(self._one) + 1))
        block = (self._one + b",") * per_piece
        yield b"["
        for _ in range((count - 1) // per_piece):
            yield block
        yield (self._one + b",") * ((count - 1) % per_piece) + self._one + b"]"


Handler = Callable[[View, list[Any]], Any]


# --- params ---------------------------------------------------------------------------------------


def _matching(params: list[Any], index: int, pattern: re.Pattern[str], what: str) -> str:
    if len(params) <= index or params[index] is None:
        raise Refused(-32602, f"missing value for required argument {index}")
    value = params[index]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise Refused(-32602, f"invalid argument {index}: not a valid {what}")
    return value.lower()


def _number_of_tag(view: View, tag: Any, index: int) -> int:
    """A block tag, number or EIP-1898 object as a number, which may lie beyond the head."""
    head = view.chain.head(view.now)
    if tag is None or tag in ("latest", "pending"):
        return head
    if isinstance(tag, dict):
        if "blockHash" in tag:
            return _number_of_hash(view, tag["blockHash"])
        tag = tag.get("blockNumber")
    if tag == "earliest":
        return 0
    if tag == "safe":
        return max(0, head - SAFE_DEPTH)
    if tag == "finalized":
        return max(0, head - FINAL_DEPTH)
    if isinstance(tag, str) and _QUANTITY.fullmatch(tag):
        return int(tag, 16)
    raise Refused(-32602, f"invalid argument {index}: not a block number or tag")


def _number_of_hash(view: View, block_hash: Any) -> int:
    number = view.chain.number_of(block_hash) if isinstance(block_hash, str) else None
    if number is None or number > view.chain.head(view.now):
        raise Refused(-32000, "header for hash not found")
    return number


def _state_block(view: View, params: list[Any], index: int) -> int:
    """The block whose state is asked for.  Raises Refused when this node does not have it."""
    number = _number_of_tag(view, params[index] if len(params) > index else None, index)
    if number > view.chain.head(view.now):
        raise Refused(-32000, "header not found")
    if number < view.lowest:
        raise Refused(-32000, f"missing trie node {view.chain.block_hash(number)[2:]} (path ) state is not available")
    return number


def _block_by(view: View, params: list[Any]) -> int | None:
    """The block named by a number, tag or hash as the first param; None when this node does not have it."""
    if not params:
        raise Refused(-32602, "missing value for required argument 0")
    if isinstance(params[0], str) and _HASH.fullmatch(params[0]):
        number = view.chain.number_of(params[0])
    else:
        number = _number_of_tag(view, params[0], 0)
    if number is not None and 0 < number < view.lowest:
        raise Refused(4444, "pruned history unavailable")
    return None if number is None or number > view.chain.head(view.now) else number


# --- methods --------------------------------------------------------------------------------------


def _fee_history(view: View, params: list[Any]) -> Any:
    if not params:
        raise Refused(-32602, "missing value for required argument 0")
    asked = params[0]
    if isinstance(asked, str) and _QUANTITY.fullmatch(asked):
        asked = int(asked, 16)
    if not isinstance(asked, int) or asked < 0:
        raise Refused(-32602, "invalid argument 0: not a block count")
    newest = _state_block(view, params, 1)
    percentiles = params[2] if len(params) > 2 and isinstance(params[2], list) else []
    count = min(asked, 1024, newest + 1)
    oldest = newest - count + 1
    history = {
        "oldestBlock": hex(oldest),
        "baseFeePerGas": [hex(view.chain.base_fee(number)) for number in range(oldest, newest + 2)],
        "gasUsedRatio": [0.5] * count,
    }
    if percentiles:
        history["reward"] = [[hex(1_000_000_000)] * len(percentiles)] * count
    return history


def _call(view: View, params: list[Any]) -> Any:
    if not params or not isinstance(params[0], dict):
        raise Refused(-32602, "missing value for required argument 0")
    number = _state_block(view, params, 1)
    transaction = params[0]
    if str(transaction.get("to", "")).lower() == REVERTING:
        raise Refused(3, "execution reverted: wreck", _REVERT_DATA)
    data = transaction.get("input", transaction.get("data", "0x"))
    return view.chain.word(number, str(transaction.get("to")), str(data))


def _estimate_gas(view: View, params: list[Any]) -> Any:
    _call(view, params)
    return hex(21_000)


def _storage(view: View, params: list[Any]) -> Any:
    address = _matching(params, 0, _ADDRESS, "address")
    slot = _matching(params, 1, re.compile(r"0x[0-9a-fA-F]{1,64}"), "storage slot")
    return view.chain.word(_state_block(view, params, 2), address, hex(int(slot, 16)))


def _balance(view: View, params: list[Any]) -> Any:
    address = _matching(params, 0, _ADDRESS, "address")
    return hex(view.chain.balance(address, _state_block(view, params, 1)))


def _code(view: View, params: list[Any]) -> Any:
    address = _matching(params, 0, _ADDRESS, "address")
    _state_block(view, params, 1)
    return view.chain.code(address)


def _nonce(view: View, params: list[Any]) -> Any:
    address = _matching(params, 0, _ADDRESS, "address")
    _state_block(view, params, 1)
    return hex(view.chain.nonce(address))


def _block(view: View, params: list[Any]) -> Any:
    number = _block_by(view, params)
    return None if number is None else view.chain.block(number, full=len(params) > 1 and params[1] is True)


def _receipts(view: View, params: list[Any]) -> Any:
    number = _block_by(view, params)
    if number is None:
        return None
    return [view.chain.receipt(tx_hash, view.now) for tx_hash in view.chain.transaction_hashes(number)]


def _transaction_count(view: View, params: list[Any]) -> Any:
    number = _block_by(view, params)
    return None if number is None else hex(len(view.chain.transaction_hashes(number)))


def _transaction(view: View, params: list[Any]) -> Any:
    return view.chain.transaction(_matching(params, 0, _HASH, "hash"), view.now)


def _receipt(view: View, params: list[Any]) -> Any:
    if view.forgetful:
        return None
    return view.chain.receipt(_matching(params, 0, _HASH, "hash"), view.now)


def _logs(view: View, params: list[Any]) -> Any:
    wanted = params[0] if params else None
    if not isinstance(wanted, dict):
        raise Refused(-32602, "missing value for required argument 0")
    named = wanted.get("address") or []
    if not isinstance(named, (str, list)):
        raise Refused(-32602, "invalid argument 0: not an address or a list of them")
    addresses = frozenset(str(a).lower() for a in ([named] if isinstance(named, str) else named))
    head = view.chain.head(view.now)
    if "blockHash" in wanted:
        first = last = _number_of_hash(view, wanted["blockHash"])
    else:
        first = _number_of_tag(view, wanted.get("fromBlock"), 0)
        last = _number_of_tag(view, wanted.get("toBlock"), 0)
    if first > last:
        raise Refused(-32602, "invalid block range params")
    if last - first >= view.max_log_range:
        asked = last - first + 1
        text = f"block range too large ({asked}), maximum allowed is {view.max_log_range} blocks"
        raise Refused(-32000, text)
    if first < view.lowest:
        raise Refused(4444, "pruned history unavailable")
    if view.forgetful:
        return []
    if HUGE_LOGS in addresses:
        return HugeLogs(_one_log(view, head), view.huge_bytes)
    found = view.chain.logs(first, min(last, head), addresses)  # nothing beyond the head: the lie a lagging node tells
    if len(found) > view.max_log_results:
        raise Refused(-32005, f"query returned more than {view.max_log_results} results")
    return [log | {"logIndex": "0x0"} for log in found] if view.misnumbered else found


def _one_log(view: View, head: int) -> bytes:
    number = max(1, head)
    text = f'{{"address":"{HUGE_LOGS}","topics":[],"data":"0x{"5e" * 96}","blockNumber":"{number:#x}",'
    text += (
        f'"blockHash":"{view.chain.block_hash(number)}","transactionHash":"{view.chain.transaction_hashes(number)[0]}",'
    )
    return (text + '"transactionIndex":"0x0","logIndex":"0x0","removed":false}').encode()


def _send_raw(view: View, params: list[Any]) -> Any:
    raw = bytes.fromhex(_matching(params, 0, _DATA, "hex string")[2:])
    return view.chain.send_raw(raw, view.sent_at, view.provider)


def _send(view: View, params: list[Any]) -> Any:
    """A node that holds keys signs and sends; here the order itself stands for the signed bytes."""
    raw = json.dumps(params, sort_keys=True).encode()
    return view.chain.send_raw(b"\x02" + raw.ljust(64, b" "), view.sent_at, view.provider)


def _echo(view: View, params: list[Any]) -> Any:
    """Not in any table of methods: what an unknown method looks like to a gateway."""
    return params


METHODS: dict[str, tuple[Family, Handler]] = {
    "web3_clientVersion": (Family.HEAD, lambda view, _: view.client_version),
    "net_version": (Family.HEAD, lambda view, _: str(view.chain.chain_id)),
    "net_listening": (Family.HEAD, lambda _, __: True),
    "eth_chainId": (Family.HEAD, lambda view, _: hex(view.chain.chain_id)),
    "eth_blockNumber": (Family.HEAD, lambda view, _: hex(view.chain.head(view.now))),
    "eth_syncing": (Family.HEAD, lambda _, __: False),
    "eth_gasPrice": (Family.FEE, lambda view, _: hex(view.chain.base_fee(view.chain.head(view.now)) + 10**9)),
    "eth_maxPriorityFeePerGas": (Family.FEE, lambda _, __: hex(10**9)),
    "eth_feeHistory": (Family.FEE, _fee_history),
    "eth_getTransactionCount": (Family.FEE, _nonce),
    "eth_getBalance": (Family.STATE, _balance),
    "eth_getCode": (Family.STATE, _code),
    "eth_getStorageAt": (Family.STATE, _storage),
    "eth_call": (Family.STATE, _call),
    "eth_estimateGas": (Family.STATE, _estimate_gas),
    "eth_getBlockByNumber": (Family.BLOCK, _block),
    "eth_getBlockByHash": (Family.BLOCK, _block),
    "eth_getBlockReceipts": (Family.BLOCK, _receipts),
    "eth_getBlockTransactionCountByNumber": (Family.BLOCK, _transaction_count),
    "eth_getBlockTransactionCountByHash": (Family.BLOCK, _transaction_count),
    "eth_getTransactionByHash": (Family.BLOCK, _transaction),
    "eth_getTransactionReceipt": (Family.BLOCK, _receipt),
    "eth_getLogs": (Family.LOGS, _logs),
    "eth_sendRawTransaction": (Family.SEND, _send_raw),
    "eth_sendTransaction": (Family.SEND, _send),
    "drill_echo": (Family.OTHER, _echo),
}


def family_of(method: str) -> Family:
    """The family a method lives and dies with at this provider; `OTHER` for one it does not serve."""
    known = METHODS.get(method)
    return Family.OTHER if known is None else known[0]


def perform(view: View, method: str, params: Any) -> Any:
    """One call's result, ready for `json`, or a `HugeLogs`.  Raises Refused with the node's "no"."""
    known = METHODS.get(method)
    if known is None:
        raise Refused(-32601, f"the method {method} does not exist/is not available")
    if not isinstance(params, list):
        raise Refused(-32602, "non-array args")
    return known[1](view, params)

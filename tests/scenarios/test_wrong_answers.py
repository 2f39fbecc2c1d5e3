"""An endpoint that answers, fast and with HTTP 200, what is not true: no caller is told it.

Truth is the simulated chain itself.  What is counted as wrong: a newest block that goes back, lies in
the future or is more than the tolerance behind; state older than a block that was told before; a block,
receipt, balance or list of logs that is not the chain's.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.clock import monotonic
from gateway.drill.faults import Fault
from gateway.model import Family
from tests.scenarios.caller import Caller
from tests.scenarios.house import House, house, run

CALLS = int(os.environ.get("SEAWALL_CALLS", "10000"))  # make integrity: 100,000
LANES = 8
SEED = 20_261_123
BLOCK_TIME = 1.0
KNOWN_AFTER = 2.5  # seconds: a poll each second, and its answer
BEHIND_AT_MOST = 4  # blocks: the tolerance of two, one on its way, and one while the call is
ACCOUNT = "0x" + "ab" * 20


@dataclass
class Ledger:
    """What callers were told, against what is true."""

    home: House
    chance: random.Random
    wrong: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    newest: int = -1
    settled: int = 0  # ask only for blocks so far below the newest
    tips: bool = True  # whether the newest block's hash can be judged
    struck_at: float = float("inf")

    async def lane(self, turns: int) -> None:
        caller = Caller(self.home.port, "/local")
        asks = (self.head, self.latest, self.block, self.logs, self.receipt, self.balance, self.balance_now)
        for _ in range(turns):
            ask = self.chance.choice(asks)
            self.calls += 1
            await ask(caller)
        await caller.close()

    def head_now(self) -> int:
        return self.home.chain.head(monotonic())

    def count(self, what: str, right: bool, body: dict[str, object]) -> None:
        if "error" in body:
            self.lost[what] += 1
        elif not right:
            self.wrong[what] += 1

    async def head(self, caller: Caller) -> None:
        seen, before = self.newest, self.head_now()
        body = (await caller.call("eth_blockNumber")).body
        number = int(body.get("result", "0x0"), 16)
        right = before - BEHIND_AT_MOST <= number <= self.head_now() and number >= seen
        self.count("eth_blockNumber", right, body)
        if right:
            self.newest = max(self.newest, number)

    async def latest(self, caller: Caller) -> None:
        seen, before = self.newest, self.head_now()
        body = (await caller.call("eth_getBlockByNumber", "latest", False)).body
        block = body.get("result") or {}
        number = int(block.get("number", "0x0"), 16)
        right = before - BEHIND_AT_MOST <= number <= self.head_now() and number >= seen
        if self.tips:
            right = right and block["hash"] == self.home.chain.block_hash(number)
        self.count("latest block", right, body)
        if right:
            self.newest = max(self.newest, number)

    def known(self) -> int:
        """A block that a caller may know to be there: at most the newest it was told."""
        newest = self.newest if self.newest > 0 else self.head_now() - 5
        return max(1, newest - self.settled - self.chance.randrange(12))

    async def block(self, caller: Caller) -> None:
        number = self.known()
        body = (await caller.call("eth_getBlockByNumber", hex(number), False)).body
        block = body.get("result") or {}
        self.count("block", block.get("hash") == self.home.chain.block_hash(number), body)

    async def logs(self, caller: Caller) -> None:
        last = self.known()
        first = max(1, last - self.chance.randrange(5))
        body = (await caller.call("eth_getLogs", {"fromBlock": hex(first), "toBlock": hex(last)})).body
        true = self.home.chain.logs(first, last, frozenset())
        self.count("logs", body.get("result") == true, body)

    async def receipt(self, caller: Caller) -> None:
        number = self.known()
        tx_hash = self.home.chain.transaction_hashes(number)[0]
        body = (await caller.call("eth_getTransactionReceipt", tx_hash)).body
        receipt = body.get("result") or {}
        self.count("receipt", receipt.get("transactionHash") == tx_hash, body)

    async def balance(self, caller: Caller) -> None:
        number = self.known()
        body = (await caller.call("eth_getBalance", ACCOUNT, hex(number))).body
        self.count("balance", body.get("result") == hex(self.home.chain.balance(ACCOUNT, number)), body)

    async def balance_now(self, caller: Caller) -> None:
        """Who was told of a block expects that block's state, or a newer one's.

        A balance does not say of which block it is: what a fault does before the next word about a head,
        nobody can know.
        """
        if not self.tips or 0.0 <= monotonic() - self.struck_at < KNOWN_AFTER:
            return
        seen, before = self.newest, self.head_now()
        body = (await caller.call("eth_getBalance", ACCOUNT, "latest")).body
        low, high = max(seen, before - BEHIND_AT_MOST), self.head_now()
        true = {hex(self.home.chain.balance(ACCOUNT, number)) for number in range(low, high + 1)}
        self.count("balance at the newest block", body.get("result") in true, body)


FAULTS = [
    (Fault.STALE_HEAD, 10.0),
    (Fault.STALE_HEAD, 0.0),
    (Fault.LAGGING, 5.0),
    (Fault.RPC_INTERNAL, 0.0),
    (Fault.WRONG_CHAIN_ID, 666.0),
    (Fault.FORKED, 0.0),
    (Fault.EMPTY_LOGS, 0.0),
    (Fault.PRUNED, 4.0),
    (Fault.STATUS_429, 0.0),
    (Fault.HEAD_JUMP, 1_000_000.0),
    (Fault.HEAD_STEPS_BACK, 3.0),
]


@pytest.mark.parametrize(("fault", "amount"), FAULTS, ids=lambda value: getattr(value, "value", ""))
def test_nobody_is_told_what_is_not_true(fault: Fault, amount: float, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, block_time=BLOCK_TIME) as home:
            ledger = Ledger(home, random.Random(SEED))
            await asyncio.gather(*(ledger.lane(CALLS // 100) for _ in range(LANES)))
            assert not ledger.wrong, "wrong without any fault"
            if fault is Fault.WRONG_CHAIN_ID:  # a name gets re-wired with its connections, not under them
                await home.providers[0].refuse(lasting=0.05)
            if fault is Fault.FORKED:  # what lies within a reorganisation's reach is nobody's truth yet
                ledger.settled, ledger.tips = 5, False
            families = [Family.STATE] if fault is Fault.RPC_INTERNAL else []  # one family fails, the others live
            home.providers[0].script.set(fault, amount=amount, families=families)
            ledger.struck_at = monotonic()
            await asyncio.gather(*(ledger.lane(CALLS // LANES) for _ in range(LANES)))
            fired = home.providers[0].script.fired[fault]
            print(f"{fault.value}: {ledger.calls} calls, {fired} struck, wrong {dict(ledger.wrong)}, seed {SEED}")
            assert fired > 0
            assert not ledger.wrong
            assert not ledger.lost

    run(scenario())

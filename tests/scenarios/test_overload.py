"""More calls than the endpoints can serve: what is served is served in time, and it is over when it is over."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from gateway.clock import monotonic
from gateway.drill.faults import Fault
from tests.pace import at_least, at_most
from tests.scenarios.caller import Caller, Told, many
from tests.scenarios.house import House, house, run
from tests.scenarios.test_failover import BALANCE, asked_of

SLOTS, SERVICE = 2, 0.1  # so few and slow that what is measured is not the speed of this machine
CAPACITY = 3 * SLOTS / SERVICE  # calls a second
MEASURED_FOR = 5.0
OVERLOAD_FOR = 30.0 if os.environ.get("CI") else 8.0
SEED = 3


@dataclass
class Load:
    """Callers that come at a rate, whatever becomes of those before them."""

    home: House
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))
    idle: list[Caller] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    taken: list[float] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def one(self, method: str, comes_back: bool) -> None:
        caller = self.idle.pop() if self.idle else Caller(self.home.port, "/local")
        try:
            told = await caller.call(method, *self.params(method))
        except asyncio.CancelledError:
            await caller.close()
            raise
        self.idle.append(caller)
        end = _end(told)
        self.ends[end] += 1
        if end == "answer":
            self.taken.append(told.took)
        elif comes_back:
            await asyncio.sleep(float(told.headers.get("retry-after", "1")))
            await self.one(method, comes_back=False)

    def params(self, method: str) -> list[str]:
        if method == "eth_getBalance":
            return BALANCE
        return ["0x02" + self.chance.randbytes(60).hex()]  # another transaction each time

    async def come(self, rate: float, seconds: float, method: str = "eth_getBalance") -> None:
        began, count = monotonic(), 0
        while (now := monotonic()) - began < seconds:
            while count < (now - began) * rate:
                count += 1
                task = asyncio.ensure_future(self.one(method, comes_back=self.chance.random() < 0.3))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(0.005)

    async def end(self) -> None:
        """Wait for those who have been let in; whoever was sent away and has yet to come back stays away."""
        left = list(self.tasks)
        if left:
            await asyncio.wait(left, timeout=5.0)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for caller in self.idle:
            await caller.close()


def _end(told: Told) -> str:
    return "answer" if "result" in told.body else str(told.body["error"].get("data", {}).get("reason"))


async def measured_capacity(home: House) -> float:
    """Calls a second that callers who wait for their turn get out of it here and now."""
    began = monotonic()
    await many(home.port, "/local", 150, 3 * SLOTS, "eth_getBalance", *BALANCE)
    return 150 / (monotonic() - began)


def test_three_times_the_capacity_for_a_while_leaves_goodput_and_no_storm(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, endpoint_extra=f", max_concurrency: {SLOTS}", deadline="2s") as home:
            for provider in home.providers:
                provider.latency = SERVICE
            capacity = await measured_capacity(home)
            load = Load(home)
            await load.come(3 * CAPACITY, OVERLOAD_FOR)
            during, shed = len(load.taken), load.ends.total() - len(load.taken)
            goodput = during / OVERLOAD_FOR
            slowest = max(load.taken)
            offered = 0.5 * CAPACITY
            await load.come(offered, 10.0)
            before = load.ends.copy()
            await load.come(offered, MEASURED_FOR)
            await load.end()
            after = load.ends - before
            capacity = min(capacity, await measured_capacity(home))  # others use this machine, too, now and then
            print(
                f"capacity {capacity:.0f}/s, offered three times that for {OVERLOAD_FOR:.0f} s: "
                f"goodput {goodput:.0f}/s ({goodput / capacity:.0%}), {shed} shed, slowest answer {slowest:.2f} s; "
                f"from 10 s after on, at half of it: {after['answer'] / after.total():.1%} answered; seed {SEED}"
            )
            at_least(goodput, 0.9 * capacity, "goodput, calls a second")
            at_most(slowest, 2.1, "seconds of the slowest answer")
            at_least(after["answer"], 0.99 * MEASURED_FOR * offered, "answers after the overload")
            # whoever waits longer than the deadline, or whose endpoint does, did so because all of this stood still
            other = {end: count for end, count in load.ends.items() if end not in ("answer", "overloaded")}
            at_most(sum(other.values()), 0, f"calls that ended otherwise, {other}")

    run(scenario())


def test_transactions_are_served_before_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, endpoint_extra=f", max_concurrency: {SLOTS}", deadline="2s") as home:
            for provider in home.providers:
                provider.latency = SERVICE
            reads, sends = Load(home), Load(home)
            await asyncio.gather(
                reads.come(3 * CAPACITY, 3.0), sends.come(0.1 * CAPACITY, 3.0, "eth_sendRawTransaction")
            )
            await reads.end()
            await sends.end()
            print(f"reads {dict(reads.ends)}, sends {dict(sends.ends)}, slowest send {max(sends.taken):.2f} s")
            at_most(sends.ends.total() - sends.ends["answer"], 0, f"sends that ended otherwise, {dict(sends.ends)}")
            at_most(max(sends.taken), 1.0, "seconds of the slowest send")

    run(scenario())


def test_a_caller_that_floods_takes_nothing_from_one_at_another_address(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, endpoint_extra=f", max_concurrency: {SLOTS}", deadline="2s") as home:
            for provider in home.providers:
                provider.latency = SERVICE
            flood = Load(home)
            flooding = asyncio.ensure_future(flood.come(3 * CAPACITY, 4.0))
            await asyncio.sleep(0.5)
            quiet: Counter[str] = Counter()
            async with Caller(home.port, "/local", source="127.0.0.2") as caller:
                while not flooding.done():
                    quiet[_end(await caller.call("eth_getBalance", *BALANCE))] += 1
            await flood.end()
            share = quiet["answer"] / quiet.total()
            print(
                f"of the flood one call in {flood.ends.total() / flood.ends['answer']:.1f} is answered, "
                f"of the quiet caller's {share:.0%}"
            )
            assert quiet.total() > 10
            assert share >= 0.95

    run(scenario())


def test_retries_stay_within_their_share_while_everything_is_down(tmp_path: Path) -> None:
    """No call makes more work for an upstream that is down than a fifth of a call more."""

    async def scenario() -> None:
        calls = 2000
        async with house(tmp_path, deadline="2s") as home:
            for provider in home.providers:
                provider.script.set(Fault.STATUS_503)
            await many(home.port, "/local", calls, 8, "eth_getBalance", *BALANCE)
            reached = sum(asked_of(provider) for provider in home.providers)
            print(f"{calls} calls with everything down: {reached} attempts, {reached / calls:.3f} a call")
            assert reached <= 1.2 * calls

    run(scenario())

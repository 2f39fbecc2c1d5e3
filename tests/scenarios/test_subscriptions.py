"""Subscriptions through kills: nothing lost, nothing doubled, nothing out of order.

Providers are simulated, on real sockets.  Run with ``-s`` for the figures.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from pathlib import Path

import pytest

from gateway.clock import monotonic
from gateway.drill.provider import SimulatedProvider
from gateway.drill.socket import SocketFault
from tests.pace import at_most
from tests.scenarios.house import House, house, run
from tests.scenarios.subscriber import Subscriber
from tests.scenarios.told import expected_logs, held, walk

KILLS = int(os.environ.get("SEAWALL_KILLS", "100"))
CALLERS = 1000
BLOCK_TIME = 0.4
WS = ", ws: true"


async def kill(provider: SimulatedProvider, how: str, chance: random.Random) -> None:
    if how == "restart":
        await provider.stop()
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        await provider.start()
    elif how == "lag":
        provider.strike_sockets(SocketFault.LAG, 3)
    else:
        provider.strike_sockets(SocketFault[how.upper()])


def log_sources(h: House) -> set[str]:
    """The providers that feed the logs."""
    feeds = h.gateway.status()["routes"][0]["feeds"]
    return {name for feed in feeds if feed["feed"] == "logs" for name in feed["sources"]}


@pytest.mark.parametrize("sources", [2, 1])
def test_a_hundred_kills_lose_no_event(tmp_path: Path, sources: int) -> None:
    async def scenario() -> None:
        extra = f"    feeds: {{sources: {sources}}}"
        async with house(tmp_path, endpoint_extra=WS, route_extra=extra, block_time=BLOCK_TIME) as h:
            await through_kills(h, sources)

    run(scenario())


async def through_kills(h: House, sources: int) -> None:
    chance = random.Random(7)
    callers = [await Subscriber.open(h.port) for _ in range(CALLERS)]
    heads = await asyncio.gather(*(caller.subscribe("newHeads") for caller in callers))
    watchers = callers[:50]
    logs = await asyncio.gather(*(caller.subscribe("logs", {}) for caller in watchers))
    first = h.chain.head(monotonic())
    strikes, kinds = [], ("close", "reset", "hang", "silent", "lag", "restart")
    for number in range(KILLS):
        strikes.append(time.monotonic())
        sources_now = h.gateway.feed_sources("local")
        struck = set(sources_now if number % 5 == 4 else sources_now[:1])
        if number % 7 in (2, 5):
            struck |= log_sources(h)
        for name in sorted(struck):
            provider = next(p for p in h.providers if p.name == name)
            await kill(provider, kinds[number % len(kinds)], chance)
        await asyncio.sleep(BLOCK_TIME * 2 + chance.uniform(0, 0.1))
        for provider in h.providers:
            provider.heal_sockets()
    last = h.chain.head(monotonic())
    await h.until(lambda: all(int(c.results(s)[-1]["number"], 16) >= last for c, s in zip(callers, heads, strict=True)))
    await asyncio.sleep(1.0)
    for caller, subscription in zip(callers, heads, strict=True):
        numbers = walk(caller.results(subscription))
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert numbers[0] <= first + 1
        assert not caller.notices
    for caller, subscription in zip(watchers, logs, strict=True):
        holds = [log for log in held(caller.results(subscription)) if first + 1 < log[0] <= last]
        assert holds == expected_logs(h.chain, first + 2, last)
    stats = h.gateway.routes[0].stats
    told = [at for at, _ in callers[-1].events]
    delays = [next(at for at in told if at > struck_at) - struck_at for struck_at in strikes]
    median = statistics.median(delays)
    print(
        f"\n{sources} sources, {KILLS} kills, {CALLERS} callers, {last - first} blocks: "
        f"0 lost, 0 doubled, 0 out of order; first event after a kill: median {median:.2f} s, "
        f"longest {max(delays):.2f} s; {stats.feed_failovers} failovers, {stats.blocks_filled} blocks filled, seed 7"
    )
    for caller in callers:
        caller.close()
    at_most(median, BLOCK_TIME + 0.5, "seconds from a kill to the first event, median")

"""Probes and polls together: what was wrong is found out, and found out again when it is put right."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, cast

from gateway.dialect.evm import EvmDialect
from gateway.limits import TransportSettings
from gateway.model import Endpoint, Family, Method, Reason, RequestClass
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.permits import PoolSettings
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.health.polling import Poller
from gateway.upstream.health.probes import VERIFY_EVERY, WRONG_CHAIN_EVERY, Prober
from gateway.upstream.wire.engine import Engine
from gateway.upstream.wire.transport import Response
from tests.virtual import run

EVM = EvmDialect()
STATE = Method("eth_getBalance", RequestClass.HEAD_READ, Family.STATE)
BLOCK_TIME = 12.0


class Node:
    """A node behind an endpoint: it answers what it is told to."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self.chain_id = 1
        self.first_block = "0x" + "01" * 32
        self.asked: Counter[str] = Counter()

    async def send(self, body: bytes, deadline_at: float, extra_head: bytes = b"", **_: object) -> Response:
        await asyncio.sleep(0.01)
        request = json.loads(body)
        method = request["method"]
        self.asked[method] += 1
        head = 1000 + int((self._clock() - self._began) / BLOCK_TIME)
        result: Any = None
        if method == "eth_chainId":
            result = hex(self.chain_id)
        elif method == "eth_getBlockByNumber":
            tag = request["params"][0]
            number = {"latest": head, "finalized": head - 64, "safe": head - 32}.get(tag, 0)
            digest = self.first_block if number == 0 else "0x" + number.to_bytes(32).hex()
            result = {"number": hex(number), "hash": digest, "parentHash": "0x" + max(0, number - 1).to_bytes(32).hex()}
        elif method == "web3_clientVersion":
            result = "Geth/v1.13.14"
        answer = {"jsonrpc": "2.0", "id": request["id"], "result": result}
        return Response(200, [], json.dumps(answer).encode(), None)

    def reap(self) -> None: ...


class Scene:
    """Three endpoints, their probes and their polls."""

    def __init__(self, chain_id: int | None = 1) -> None:
        self.clock = asyncio.get_running_loop().time
        self.nodes = [Node(self.clock) for _ in range(3)]
        endpoints = [Endpoint(f"e{i}", "r", f"p{i}") for i in range(3)]
        self.pool = Pool("r", endpoints, PoolSettings(), self.clock, Random(1), block_time=BLOCK_TIME)
        engines = cast("list[Engine]", self.nodes)
        self.route = Route("r", self.pool, engines, EVM, TransportSettings(), RouteStats(), chain_id=chain_id)
        self._prober = Prober(lambda: [self.route], self.clock)
        self._poller = Poller(lambda: [self.route], self.clock)

    def refused(self) -> dict[int, Reason]:
        return {i: reason for i, reason, _ in self.pool.ranking(Family.STATE, self.clock(), True).refused}

    async def goes_on(self, seconds: float) -> None:
        self.route.last_call_at = self.clock() + seconds
        await asyncio.sleep(seconds)

    async def play(self, story: Callable[[Scene], Awaitable[None]]) -> None:
        await self._prober.verify_all(5.0)
        await self._poller.ask_all(5.0)
        work = [asyncio.ensure_future(self._prober.run()), asyncio.ensure_future(self._poller.run())]
        try:
            await story(self)
        finally:
            for task in work:
                task.cancel()
            for task in work:
                with contextlib.suppress(asyncio.CancelledError):
                    await task


def scene(story: Callable[[Scene], Awaitable[None]], **how: Any) -> None:
    async def play() -> None:
        await Scene(**how).play(story)

    run(play(), at_most=10 * VERIFY_EVERY)


def test_a_network_with_the_right_id_and_another_first_block_is_refused_until_it_is_put_right() -> None:
    async def story(s: Scene) -> None:
        await s.goes_on(5.0)
        assert s.refused() == {}
        s.nodes[0].first_block = "0x" + "02" * 32
        s.pool.lost_touch(s.pool.states[0])  # its name leads to another network from now on
        await s.goes_on(5.0)
        assert s.refused() == {0: Reason.WRONG_CHAIN}
        s.nodes[0].first_block = s.nodes[1].first_block
        await s.goes_on(WRONG_CHAIN_EVERY + 5.0)
        assert s.refused() == {}, "put right, and never asked again"

    scene(story)


def test_the_first_block_is_asked_for_again_hourly_and_not_with_every_block() -> None:
    async def story(s: Scene) -> None:
        await s.goes_on(5.0)
        s.nodes[2].first_block = "0x" + "03" * 32
        await s.goes_on(VERIFY_EVERY + 60.0)
        assert s.refused() == {2: Reason.WRONG_CHAIN}
        assert s.nodes[0].asked["eth_chainId"] <= 4

    scene(story)


def test_a_chain_id_that_changes_on_a_route_that_names_none_is_held_against_the_others() -> None:
    async def story(s: Scene) -> None:
        await s.goes_on(5.0)
        assert [s.pool.chain_id_but(position) for position in range(3)] == [1, 1, 1]
        s.nodes[0].chain_id = 137
        s.pool.lost_touch(s.pool.states[0])
        await s.goes_on(5.0)
        assert s.refused() == {0: Reason.WRONG_CHAIN}
        s.nodes[0].chain_id = 1
        await s.goes_on(WRONG_CHAIN_EVERY + 5.0)
        assert s.refused() == {}

    scene(story, chain_id=None)

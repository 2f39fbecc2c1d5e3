"""What a call stands on, in virtual time: endpoints that do as they are told, and the dispatcher over them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from gateway.dialect.evm import EvmDialect
from gateway.dialect.protocol import Dialect
from gateway.errors import AttemptError
from gateway.limits import TransportSettings
from gateway.model import Call, Endpoint
from gateway.policy.agreement import ConsensusSettings
from gateway.policy.quota import ProviderBudget, QuotaSettings
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.calls.answers import Answer
from gateway.upstream.calls.audit import Auditor
from gateway.upstream.calls.dispatch import Dispatcher
from gateway.upstream.calls.route import Route
from gateway.upstream.calls.waiting import Waiting
from gateway.upstream.fleet.permits import PoolSettings
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.wire.engine import Notice
from gateway.upstream.wire.streaming import Response
from tests.virtual import here

WALL = 1_800_000_000.0
"""Seconds since 1970 at which the stories begin, in the morning of a 15th in UTC."""


@dataclass
class Says:
    """What an endpoint answers: a result or an error object, after `takes` seconds; or it fails with `raises`."""

    result: Any = "0x1"
    takes: float = 0.01
    error: dict[str, Any] | None = None
    status: int = 200
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    raises: AttemptError | None = None


Behaviour = Callable[[str, list[Any]], Says]


class StageEngine:
    """One endpoint.  `asked` holds the methods that reached it."""

    def __init__(self) -> None:
        self.behaves: Behaviour = lambda method, params: Says()
        self.asked: list[str] = []

    async def send(
        self,
        body: bytes,
        deadline_at: float,
        extra_head: bytes = b"",
        *,
        careful: bool = False,
        notice_at: float = 0.0,
        notice: Notice | None = None,
    ) -> Any:
        request = json.loads(body)
        says = self.behaves(request["method"], request["params"])
        if says.raises is None or says.raises.sent.value != "not_sent":
            self.asked.append(request["method"])
        loop = asyncio.get_running_loop()
        over: asyncio.Future[Any] = loop.create_future()

        def end(how: Any) -> None:
            if not over.done():
                over.set_result(how)

        timers = [loop.call_later(says.takes, end, None)]
        if notice is not None:
            timers.append(loop.call_at(notice_at, notice, end))
        try:
            superseded = await over
        finally:
            for timer in timers:
                timer.cancel()
        if superseded is not None:
            return superseded
        if says.raises is not None:
            raise says.raises
        told = {"error": says.error} if says.error is not None else {"result": says.result}
        return Response(says.status, says.headers, json.dumps({"id": request["id"], **told}).encode(), None)


class Stage:
    """A route of endpoints e0, e1, ... of providers of their own, and all that handles calls to it."""

    def __init__(
        self,
        *endpoints: Endpoint,
        settings: PoolSettings | None = None,
        quota: QuotaSettings | None = None,
        consensus: Mapping[str, ConsensusSettings] | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        clock = here().time
        chance = Random(1)
        self.budgets = {e.id: ProviderBudget(quota or QuotaSettings(), clock(), WALL) for e in endpoints}
        self.pool = Pool(
            "r",
            endpoints,
            settings or PoolSettings(),
            clock,
            chance,
            budgets=lambda endpoint: self.budgets[endpoint.id],
        )
        for position in range(len(endpoints)):
            self.pool.note_chain(position, 1, True)
        self.engines = [StageEngine() for _ in endpoints]
        self.route = Route(
            "r",
            self.pool,
            self.engines,  # type: ignore[arg-type]
            dialect or EvmDialect(),
            TransportSettings(),
            RouteStats(),
            consensus=dict(consensus or {}),
        )
        self.route.waiting = Waiting(self.pool, clock, chance, self.route.stats)
        self.auditor = Auditor(clock, chance)
        self.dispatcher = Dispatcher(clock, auditor=self.auditor)

    def all_say(self, behaves: Behaviour) -> None:
        for engine in self.engines:
            engine.behaves = behaves

    def call_of(self, method: str, *params: Any) -> Call:
        return self.route.dialect.call(method, json.dumps(params).encode(), b"1")

    async def call(
        self, method: str, *params: Any, within: float = 10.0, caller: str = "", gone: bool = False
    ) -> Answer:
        """One call to its end.  `gone`: nobody waits for it any more."""
        call = self.call_of(method, *params)
        return await self.dispatcher.handle(
            self.route, call, here().time() + within, caller_gone=lambda: gone, caller=caller
        )

    async def know_latencies(self, method: str, *params: Any) -> None:
        """Let every endpoint be measured, so that it is known how long such calls take."""
        for _ in range(80 * len(self.engines)):
            await self.call(method, *params)
            await asyncio.sleep(0.05)


def endpoint(number: int, **facts: Any) -> Endpoint:
    return Endpoint(**{"id": f"e{number}", "route": "r", "provider": f"p{number}", **facts})

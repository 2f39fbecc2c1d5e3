"""What a feed stands on, in virtual time: lines that do as they are told, and a route with a dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from gateway.dialect.protocol import Dialect
from gateway.errors import ConnectionLost
from gateway.events import Subscription
from gateway.model import AttemptRecord, Endpoint, Sent
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.calls.route import Route
from gateway.upstream.feeds.feed import Event, Missed, Told
from gateway.upstream.feeds.line import Refused, Taker
from tests.virtual import here


class Ear:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[Told | str] = []

    def told(self, event: Event) -> None:
        self.heard.append(event)

    def missed(self, missed: Missed) -> None:
        self.heard.append(missed)

    def over(self) -> None:
        self.heard.append("over")

    def closed(self) -> None:
        self.heard.append("closed")

    @property
    def events(self) -> list[bytes]:
        return [item.result for item in self.heard if isinstance(item, Event)]

    @property
    def reasons(self) -> list[str]:
        return [item.reason for item in self.heard if isinstance(item, Missed)]


class StageLine:
    """An endpoint's line.  `refuses`: the error it answers a subscription with."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.up = True
        self.leaving = False
        self.refuses = b""
        self.subscribed = 0
        self.ended: list[bytes] = []
        self.takers: dict[bytes, Taker] = {}

    async def ready(self, within: float) -> bool:
        if not self.up:
            await asyncio.sleep(within)
        return self.up

    async def subscribe(self, subscription: Subscription, taker: Taker) -> None:
        await asyncio.sleep(0.01)
        if self.refuses:
            raise Refused(self.refuses)
        if not self.up:
            raise ConnectionLost("gone", sent=Sent.SENT)
        self.subscribed += 1
        upstream_id = b"%d" % self.subscribed
        self.takers[upstream_id] = taker
        taker.accepted(upstream_id)

    def unsubscribe(self, subscription: Subscription, upstream_id: bytes) -> None:
        if self.takers.pop(upstream_id, None) is not None:
            self.ended.append(upstream_id)

    def push(self, method: str, result: bytes) -> None:
        for taker in list(self.takers.values()):
            taker.notified(method, result)

    def die(self, why: str = "connection_lost") -> None:
        takers, self.takers = self.takers, {}
        for taker in takers.values():
            taker.ended(why)


class Stage:
    """The endpoints of a route, and what is asked of it.  `answers` holds the raw result for each method."""

    def __init__(self, count: int = 2) -> None:
        self.endpoints = [Endpoint(f"e{i}", "r", f"p{i}") for i in range(count)]
        self.lines = {endpoint.id: StageLine(endpoint) for endpoint in self.endpoints}
        self.unfit: set[str] = set()
        self.lies: set[str] = set()
        self.asked: list[tuple[str, bytes]] = []
        self.answers: dict[str, bytes | Callable[[bytes], bytes | None] | None] = {}
        self.answer_takes = 0.02
        self.replaced: list[tuple[AttemptRecord, ...]] = []
        self.stats = RouteStats()
        self.reference = -1
        self.block_time = 0.4

    exist = True

    def candidates(self, now: float) -> list[Endpoint]:
        return [endpoint for endpoint in self.endpoints if endpoint.id not in self.unfit]

    def line(self, endpoint: Endpoint) -> Any:
        return self.lines[endpoint.id]

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        return next((e for e in self.endpoints if e.id == endpoint_id and e.id not in self.unfit), None)

    def believed(self, endpoint_id: str) -> bool:
        return endpoint_id not in self.lies

    async def ask(self, question: tuple[str, bytes]) -> bytes | None:
        self.asked.append(question)
        await asyncio.sleep(self.answer_takes)
        answer = self.answers.get(question[0])
        return answer(question[1]) if callable(answer) else answer

    def route(self, dialect: Dialect) -> Callable[[], Route]:
        """A route of which a feed of this stage sees the dialect and the counters."""

        class Shown:
            name = "r"
            stats = self.stats

            class pool:
                class blocks:
                    book = self

        shown = Shown()
        shown.dialect = dialect  # type: ignore[attr-defined]
        return lambda: cast(Route, shown)

    @property
    def now(self) -> float:
        return here().time()

"""A feed: one stream of events of a route, told to any number of listeners.

Always true: every listener is told every event that comes after it joined, in the same order, once;
telling ten thousand listeners does not keep the others of the gateway waiting; an event's text is
made once, whoever gets it.
Does not belong here: where events come from (feed_heads, feed_logs, feed_plain), sockets of callers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.clock import Clock
from gateway.events import Subscription
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.feed_sources import Sources

SLICE = 256  # listeners that are told in one go; then the rest of the gateway has its turn


class Event:
    """One event.  `frames` is for whoever sends it: what was made of it once need not be made again."""

    __slots__ = ("frames", "late", "method", "result")

    def __init__(self, method: str, result: bytes, late: bool = False) -> None:
        self.method = method
        self.result = result
        self.late = late  # fetched afterwards: it was not pushed when it happened
        self.frames: dict[bytes, bytes] = {}


@dataclass(frozen=True, slots=True)
class Missed:
    """Events that cannot be told any more.  `low` and `high` are blocks, None where there are none to name."""

    reason: str
    low: int | None = None
    high: int | None = None


class Listener(Protocol):
    """Who is told.  Compared by identity."""

    def told(self, event: Event) -> None:
        """An event."""

    def missed(self, missed: Missed) -> None:
        """Events are lost for good."""

    def over(self) -> None:
        """The feed has told all that it ever will."""

    def closed(self) -> None:
        """The feed is gone with its route."""


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more will come."""


Told = Event | Missed | Over

Ask = Callable[[tuple[str, bytes]], Awaitable[bytes | None]]
"""Asks the route a plain call (method, params) like any caller's; its raw result, or None."""


class Feed:
    """See the module.  `sources` are the upstream subscriptions that feed it; each kind sets its own.

    `id` is what callers are told, if they can be: equal for all, so that one text serves all.
    """

    sources: Sources

    def __init__(self, subscription: Subscription, feed_id: bytes, stats: RouteStats, clock: Clock) -> None:
        self.subscription = subscription
        self.id = feed_id
        self.stats = stats
        self.clock = clock
        self.listeners: dict[Listener, None] = {}
        self.idle_since = clock()
        self.finished = False  # it has told all that it ever will
        self._waiting: deque[tuple[Sequence[Listener], Told]] = deque()
        self._teller: asyncio.Task[None] | None = None

    async def ready(self, ask: Ask) -> None:
        """Wait until events come, or are known to.  Raises Refused or a GatewayError when none ever will."""

    def tick(self, now: float) -> None:
        """Look at what time does.  Called about twenty times a second."""

    def join(self, listener: Listener) -> None:
        self.listeners[listener] = None
        self.stats.subscriptions += 1

    def leave(self, listener: Listener) -> None:
        if listener in self.listeners:
            del self.listeners[listener]
            self.stats.subscriptions -= 1
            self.idle_since = self.clock()

    @property
    def needed(self) -> bool:
        """Somebody listens."""
        return bool(self.listeners)

    def tell(self, item: Told) -> None:
        """Tell all who listen now."""
        if isinstance(item, Missed):
            self.stats.events_missed += 1
        elif isinstance(item, Event):
            self.stats.events += 1
            self.stats.events_late += item.late
            self.stats.events_sent += len(self.listeners)
        listeners = tuple(self.listeners)
        if self._teller is None and len(listeners) <= SLICE:
            for listener in listeners:
                self._tell_one(listener, item)
            return
        self._waiting.append((listeners, item))
        if self._teller is None:
            self._teller = asyncio.ensure_future(self._tell_waiting())

    async def _tell_waiting(self) -> None:
        try:
            while self._waiting:
                listeners, item = self._waiting.popleft()
                for start in range(0, len(listeners), SLICE):
                    for listener in listeners[start : start + SLICE]:
                        if listener in self.listeners:
                            self._tell_one(listener, item)
                    await asyncio.sleep(0)
        finally:
            self._teller = None

    def _tell_one(self, listener: Listener, item: Told) -> None:
        if isinstance(item, Event):
            listener.told(item)
        elif isinstance(item, Missed):
            listener.missed(item)
        else:
            self.leave(listener)
            listener.over()

    def close(self) -> None:
        """Tell everybody that it is gone."""
        if self._teller is not None:
            self._teller.cancel()
        for listener in tuple(self.listeners):
            self.leave(listener)
            listener.closed()

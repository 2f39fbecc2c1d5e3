"""A feed: one stream of events of a route, told to any number of listeners.

Always true: every listener is told every event that comes after it joined, in the same order, once;
telling ten thousand listeners does not keep the others of the gateway waiting; an event's text is
made once, whoever gets it.
Does not belong here: where events come from (feeds/heads, feeds/logs, feeds/plain), sockets of callers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.errors import UnknownRoute
from gateway.events import Subscription
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.feeds.sources import Sources

SLICE = 256  # listeners that are told in one go; then the rest of the gateway has its turn
BURST = 256_000  # bytes told to each at once: a filled gap must not look as if listeners were slow
PACE = 4_000_000  # bytes a second told beyond that, while less than MOST_WAITING waits
SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.01  # seconds
MOST_WAITING = 32_000_000  # bytes


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
        self._all: tuple[Listener, ...] | None = ()  # the listeners; None: they have changed
        self._waiting: deque[tuple[Sequence[Listener], Told]] = deque()
        self._waiting_bytes = 0
        self._ahead = 0.0  # bytes told lately, falling by PACE
        self._ahead_at = clock()
        self._teller: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()

    async def ready(self, ask: Ask) -> None:
        """Wait until events come, or are known to.  Raises Refused or a GatewayError when none ever will."""

    def tick(self, now: float) -> None:
        """Look at what time does.  Called about twenty times a second."""

    def join(self, listener: Listener) -> None:
        self.listeners[listener] = None
        self._all = None
        self.stats.subscriptions += 1

    def leave(self, listener: Listener) -> None:
        if listener in self.listeners:
            del self.listeners[listener]
            self._all = None
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
            if item.late and self.sources.expected:
                self.stats.events_late += 1
            self.stats.events_sent += len(self.listeners)
        if self._all is None:
            self._all = tuple(self.listeners)
        listeners = self._all
        if self._teller is None and len(listeners) <= SLICE and self._too_far_ahead() <= 0.0:
            self._ahead += _size(item)
            for listener in listeners:
                self._tell_one(listener, item)
            return
        self._waiting.append((listeners, item))  # all that wait share one list of listeners while it stays the same
        self._waiting_bytes += _size(item)
        if self._teller is None:
            self._teller = asyncio.ensure_future(self._tell_waiting())

    def _too_far_ahead(self) -> float:
        """Seconds to wait before more is told."""
        now = self.clock()
        self._ahead = max(0.0, self._ahead - (now - self._ahead_at) * PACE)
        self._ahead_at = now
        return (self._ahead - BURST) / PACE

    async def _tell_waiting(self) -> None:
        try:
            while self._waiting:
                pause = self._too_far_ahead()
                if pause > 0.0 and self._waiting_bytes < MOST_WAITING:
                    await asyncio.sleep(min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE))  # meanwhile too much may come
                    continue
                listeners, item = self._waiting.popleft()
                self._waiting_bytes -= _size(item)
                self._ahead += _size(item)
                for start in range(0, len(listeners), SLICE):
                    for listener in listeners[start : start + SLICE]:
                        if listener in self.listeners:
                            self._tell_one(listener, item)
                    await asyncio.sleep(0)
        finally:
            self._teller = None

    def _tell_one(self, listener: Listener, item: Told) -> None:
        """Tell one; a failure of its own costs nobody else an event."""
        try:
            if isinstance(item, Event):
                listener.told(item)
            elif isinstance(item, Missed):
                listener.missed(item)
            else:
                self.leave(listener)
                listener.over()
        except Exception as bug:
            self._report(bug)
            self._let_go(listener)

    def _let_go(self, listener: Listener) -> None:
        self.leave(listener)
        try:
            listener.closed()
        except Exception as bug:
            self._report(bug)

    def send(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have something done that takes time; it ends with the feed, and a failure of it is reported."""
        task = asyncio.ensure_future(errand)
        self._errands.add(task)
        task.add_done_callback(self._back)
        return task

    def _back(self, task: asyncio.Task[None]) -> None:
        self._errands.discard(task)
        problem = None if task.cancelled() else task.exception()
        if isinstance(problem, Exception) and not isinstance(problem, UnknownRoute):
            self._report(problem)

    def _report(self, bug: Exception) -> None:
        context = {"message": f"the feed of {self.subscription.label}", "exception": bug}
        asyncio.get_running_loop().call_exception_handler(context)

    def close(self) -> None:
        """Tell everybody that it is gone."""
        self._waiting.clear()
        if self._teller is not None:
            self._teller.cancel()
        for task in self._errands:
            task.cancel()
        for listener in tuple(self.listeners):
            self._let_go(listener)


def _size(item: Told) -> int:
    return len(item.result) if isinstance(item, Event) else 0

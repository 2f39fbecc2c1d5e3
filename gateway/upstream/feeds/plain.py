"""A feed of anything else: events are passed through from one endpoint, and a change of endpoint is told.

Always true: an event is told once, as `policy/feeds/plain` decides; after a change of endpoint in which
events may be lost the state is asked for anew where the protocol can, and otherwise callers are told so;
an endpoint that should speak with every block and does not is replaced, and so is one that spoke at a steady
pace and does not any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.clock import Clock
from gateway.errors import NoEndpoint
from gateway.events import FeedKind, Subscription
from gateway.model import AttemptRecord
from gateway.policy.feeds.pace import Pace
from gateway.policy.feeds.plain import REFRESH, PlainFeed
from gateway.upstream.calls.route import Route
from gateway.upstream.feeds.feed import Ask, Event, Feed, Missed, Over
from gateway.upstream.feeds.line import Refused
from gateway.upstream.feeds.sources import Lines, Source, Sources

SUBSCRIBED_WITHIN = 8.0  # seconds, endpoint after endpoint
LOOKS = 3  # times that a state is asked for anew: who answers first may be behind what was told
LOOK_AGAIN_AFTER = 0.5  # seconds


class PassedFeed(Feed):
    """See the module."""

    def __init__(
        self,
        subscription: Subscription,
        feed_id: bytes,
        route: Callable[[], Route],
        lines: Lines,
        ask: Ask,
        clock: Clock,
        replaced: Callable[[tuple[AttemptRecord, ...]], None],
    ) -> None:
        super().__init__(subscription, feed_id, route().stats, clock)
        self._route = route
        self._ask = ask
        self._machine = PlainFeed(subscription.kind)
        self._pace = Pace()
        self._refreshing: asyncio.Task[None] | None = None
        self._told = 0
        self.sources = Sources(
            lines,
            subscription,
            1,
            clock,
            joined=self._joined,
            left=lambda number, why: self._machine.left(number, clock()),
            told=self._pushed,
            replaced=replaced,
        )

    async def ready(self, ask: Ask) -> None:
        """It must have been accepted somewhere: what only passes through cannot be promised."""
        if await self.sources.settled(SUBSCRIBED_WITHIN):
            return
        if self.sources.refusals:
            raise Refused(next(reversed(self.sources.refusals.values())))
        raise NoEndpoint(f"no endpoint of {self._route().name} takes this subscription now; it needs one with `ws`")

    def tick(self, now: float) -> None:
        self.sources.tend(now)
        if self._machine.abandoned(now):
            self.tell(Missed("no_endpoint"))
        if self._is_silent(now):
            for source in tuple(self.sources.active):
                self.sources.replace(source.number, "silent")

    def _is_silent(self, now: float) -> bool:
        if self.subscription.steady:
            return self._machine.stands_still(self._head, self._block_time, now)
        return self._pace.is_silent(self._head, now)

    @property
    def _head(self) -> int:
        return self._route().pool.blocks.book.reference

    @property
    def _block_time(self) -> float:
        return self._route().pool.blocks.book.block_time

    def close(self) -> None:
        self.sources.close()
        super().close()

    # --- the machine ------------------------------------------------------------------------------

    def _joined(self, number: int) -> None:
        now = self.clock()
        self._machine.joined(number, now)
        self._machine.heard(self._head, now)
        self._pace.began(self._head, now)
        must = self._machine.switched(now)
        if must == "refresh":
            if self._refreshing is not None:
                self._refreshing.cancel()  # what it finds may be older than the new source
            self._refreshing = self.send(self._refresh())
        elif must == "notice":
            self.tell(Missed("endpoint_changed"))

    def _pushed(self, source: Source, method: str, result: bytes) -> None:
        identity, place = self._route().dialect.place(self.subscription, result)
        if self.subscription.steady:
            self._machine.heard(self._head, self.clock())
        elif source.gives_way_since is None:
            self._pace.spoke(self._head, self.clock())
        if self._machine.event(source.number, result, identity, place):
            self._tell(method, result)

    async def _refresh(self) -> None:
        """What is the state now?  It may have changed while nobody listened; if nobody can say, callers are told."""
        told = self._told
        try:
            for look in range(LOOKS):
                if look:
                    await asyncio.sleep(LOOK_AGAIN_AFTER)
                if self._told != told or await self._look():
                    return
        except Exception:
            self.tell(Missed("endpoint_changed"))
            raise
        self.tell(Missed("endpoint_changed"))

    async def _look(self) -> bool:
        """Ask for the state, and tell it if it is news.  False when nobody knows, or knows only an older one."""
        dialect = self._route().dialect
        question = dialect.refresh(self.subscription)
        result = await self._ask(question) if question is not None else None
        if result is None:
            return False
        news = dialect.refreshed(self.subscription, result)
        if news is None:
            return self.subscription.kind is FeedKind.ONCE  # it has not come to pass yet
        identity, place = dialect.place(self.subscription, news)
        if not self._machine.event(REFRESH, news, identity, place):
            return False
        self._tell(self.subscription.notification, news)
        return True

    def _tell(self, method: str, result: bytes) -> None:
        if self.finished:
            return
        self._told += 1
        self.tell(Event(self.subscription.notification or method, result))
        if self.subscription.kind is FeedKind.ONCE:
            self.finished = True
            self.tell(Over())
            self.sources.close()

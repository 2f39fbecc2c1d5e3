"""The feed of new heads: one per route, made of pushed headers, of polled heads and of fetched blocks.

Always true: what is told is what `policy/feeds/heads` decides; blocks are fetched like any caller's
call, so a fetch fails over too; with no WebSocket upstream at all the feed lives on polled heads.
Feeds of logs hang on it: they are told every block before callers are, in the same order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from gateway.clock import Clock
from gateway.events import Header, Subscription
from gateway.model import AttemptRecord, HeadReport
from gateway.policy.feeds.heads import Command, FetchHash, FetchNumbers, Gap, HeadFeed, HeadFeedSettings, Silent, Told
from gateway.upstream.calls.route import Route
from gateway.upstream.feeds.feed import Ask, Event, Feed, Missed
from gateway.upstream.feeds.sources import Lines, Source, Sources

QUIET_AT_LEAST = 2.0  # seconds without a word from anybody after which the route is asked
FIRST_WITHIN = 3.0  # seconds in which a source or a polled head should show that there are blocks


class Follower(Protocol):
    """Who is told every block."""

    def added(self, header: Header, now: float) -> None: ...

    def dropped(self, header: Header, now: float) -> None: ...

    def lost(self, low: int, high: int, now: float) -> None: ...


class HeadsFeed(Feed):
    """See the module.  `route` is asked anew each time, since a reload replaces it."""

    def __init__(
        self,
        subscription: Subscription,
        feed_id: bytes,
        route: Callable[[], Route],
        lines: Lines,
        ask: Ask,
        settings: HeadFeedSettings,
        sources: int,
        clock: Clock,
        replaced: Callable[[tuple[AttemptRecord, ...]], None],
    ) -> None:
        super().__init__(subscription, feed_id, route().stats, clock)
        self.followers: dict[Follower, None] = {}
        self._route = route
        self._ask = ask
        self._settings = settings
        self._machine = HeadFeed(settings, route().pool.blocks.book.block_time, clock())
        self._fetching: asyncio.Task[None] | None = None
        self._in_gap = False  # blocks were missed, and have been asked for since
        self._beginning: asyncio.Task[None] | None = None
        self._noting = False  # what is told of in passing now is a push, not a poll
        self._heard_at = clock()
        self.sources = Sources(
            lines,
            subscription,
            sources,
            clock,
            joined=lambda number: self._machine.joined(number, clock()),
            left=lambda number, why: self._do(self._machine.left(number, clock())),
            told=self._pushed,
            replaced=replaced,
        )

    @property
    def needed(self) -> bool:
        return bool(self.listeners or self.followers)

    @property
    def tip(self) -> Header | None:
        """The newest block that was told."""
        return self._machine.tip

    async def ready(self, ask: Ask) -> None:
        """Begin with the newest block, or else with a source; without either there will be some.

        From a block that is known on nothing can be missed: what comes between it and the first word of
        a source or a poll is fetched.
        """
        self.sources.tend(self.clock())
        if self._machine.tip is None:
            if self._beginning is None or self._beginning.done():
                self._beginning = self.send(self._begin(ask))
            await asyncio.wait([self._beginning], timeout=FIRST_WITHIN)
            if self._machine.tip is None:
                await self.sources.settled(FIRST_WITHIN)

    async def _begin(self, ask: Ask) -> None:
        dialect = self._route().dialect
        result = await ask(dialect.poll_call)
        header = dialect.read_header(result) if result is not None else None
        if header is not None and self._machine.tip is None:
            commands = self._machine.fetched([header], self.clock())
            self._do(command for command in commands if not isinstance(command, Told))  # it was there before

    def tick(self, now: float) -> None:
        self._machine.block_time = self._route().pool.blocks.book.block_time
        self.sources.tend(now)
        self._do(self._machine.tick(now))
        if now - self._heard_at > max(QUIET_AT_LEAST, 2 * self._machine.block_time):
            self._heard_at = now
            self.send(self._look())

    async def _look(self) -> None:
        """Nobody says anything, no poll either: ask like a caller, which fails over and may wake a standby."""
        dialect = self._route().dialect
        result = await self._ask(dialect.poll_call)
        header = dialect.read_header(result) if result is not None else None
        if header is not None:
            self._do(self._machine.hint(header.number, header.hash, self.clock()))

    def polled(self, report: HeadReport) -> None:
        """The newest block as a poll saw it.  A push, which is noted as one, too, vouches for nothing here."""
        self._heard_at = self.clock()
        if self._noting:
            return
        self._do(self._machine.hint(report.number, report.hash, self.clock()))

    def close(self) -> None:
        self.sources.close()
        super().close()

    def follow(self, follower: Follower) -> None:
        self.followers[follower] = None

    def unfollow(self, follower: Follower) -> None:
        if self.followers.pop(follower, self) is None:
            self.idle_since = self.clock()

    # --- the machine ------------------------------------------------------------------------------

    def _pushed(self, source: Source, method: str, result: bytes) -> None:
        route = self._route()
        header = route.dialect.read_header(result)
        if header is None:
            self.sources.drop(source.number, "unreadable")
            return
        now = self.clock()
        position = route.pool.position_of(source.endpoint.id)
        if position is None:  # it is gone from the configuration, and gives way
            self._do(self._machine.header(source.number, header, now))
            return
        report = HeadReport(header.number, header.hash, header.parent, header.timestamp)
        self._noting = True
        try:
            route.pool.note_head(position, report, now)
        finally:
            self._noting = False
        if route.pool.blocks.refusal(position, False) is not None:
            self.sources.drop(source.number, "implausible")  # a head that cannot be, or another branch at depth
        else:
            self._do(self._machine.header(source.number, header, now))

    def _do(self, commands: Iterable[Command]) -> None:
        now = self.clock()
        for command in commands:
            match command:
                case Told(header, late, dropped):
                    self._route().pool.blocks.told(header.number)
                    for follower in tuple(self.followers):
                        for gone in dropped:
                            follower.dropped(gone, now)
                        follower.added(header, now)
                    if late and self.sources.expected:
                        self.stats.blocks_filled += 1
                    self.tell(Event(self.subscription.notification, header.raw, late))
                case FetchNumbers(low, high):
                    self._fetch([self._route().dialect.header_by_number(n) for n in range(low, high + 1)])
                case FetchHash(block_hash):
                    self._fetch([self._route().dialect.header_by_hash(block_hash)])
                case Gap(low, high, why):
                    for follower in tuple(self.followers):
                        follower.lost(low, high, now)
                    self.tell(Missed(why, low, high))
                case Silent(number, doubted):
                    if doubted:
                        self.sources.drop(number, "doubted")
                    else:
                        self.sources.replace(number, "silent")
        self._in_gap = self._in_gap and self._machine.waiting

    def _fetch(self, questions: list[tuple[str, bytes]]) -> None:
        if self.sources.expected and not self._in_gap and self._machine.tip is not None:
            self.stats.gaps_found += 1
        self._in_gap = True
        if self._fetching is not None:
            self._fetching.cancel()  # nobody waits for its answer any more
        self._fetching = self.send(self._carry_out(questions))

    async def _carry_out(self, questions: list[tuple[str, bytes]]) -> None:
        """Ask for headers, all at the same time; whoever is missing is the machine's business."""
        results = await asyncio.gather(*(self._ask(question) for question in questions))
        dialect = self._route().dialect
        headers = [header for result in results if result is not None and (header := dialect.read_header(result))]
        now = self.clock()
        self._do(self._machine.fetched(headers, now) if headers else self._machine.fetch_failed(now))

"""A feed of logs: one per route and filter, driven by the blocks of the feed of heads.

Always true: what is told is what `policy/feeds/logs` decides; logs that are fetched count only when
they are of the very block that was asked for; nothing found in a new block is asked a second time, by its
number then, which brings in a second endpoint: a node that does not have a block yet may answer just as
one that has it without logs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from gateway.clock import Clock
from gateway.events import Header, Log, LogFilter, Subscription
from gateway.model import AttemptRecord
from gateway.policy.feeds.logs import Command, FetchLogs, LogFeed, LogFeedSettings, LogGap, Tell
from gateway.policy.feeds.logs import Missed as PushesMissed
from gateway.upstream.calls.route import Route
from gateway.upstream.feeds.feed import Ask, Event, Feed, Missed
from gateway.upstream.feeds.heads import HeadsFeed
from gateway.upstream.feeds.sources import Lines, Source, Sources

NEW = 4  # blocks at the tip are asked for one by one, by their hash: others may be on another branch there
LOOK_AGAIN_AFTER = 0.1  # seconds
LOOKS = 2  # times that a new block must show no logs to be believed


class LogsFeed(Feed):
    """See the module."""

    def __init__(
        self,
        subscription: Subscription,
        feed_id: bytes,
        route: Callable[[], Route],
        heads: HeadsFeed,
        lines: Lines,
        ask: Ask,
        settings: LogFeedSettings,
        clock: Clock,
        replaced: Callable[[tuple[AttemptRecord, ...]], None],
    ) -> None:
        super().__init__(subscription, feed_id, route().stats, clock)
        assert subscription.filter is not None
        self._filter: LogFilter = subscription.filter
        self._route = route
        self._heads = heads
        self._ask = ask
        self._machine = LogFeed(settings, self._may_match, clock())
        self._fetching: asyncio.Task[None] | None = None
        self.sources = Sources(
            lines,
            subscription,
            1,
            clock,
            joined=lambda number: self._machine.joined(number, clock()),
            left=lambda number, why: self._do(self._machine.left(number, clock())),
            told=self._pushed,
            replaced=replaced,
        )

    async def ready(self, ask: Ask) -> None:
        """Blocks are enough: what is not pushed is fetched."""
        self._heads.follow(self)  # at once: a feed of heads that nobody needs may end
        self.sources.tend(self.clock())
        await self._heads.ready(ask)

    def tick(self, now: float) -> None:
        self.sources.tend(now)
        self._do(self._machine.tick(now))

    def close(self) -> None:
        self._heads.unfollow(self)
        self.sources.close()
        super().close()

    # --- upstream.feeds.heads.Follower -------------------------------------------------------------

    def added(self, header: Header, now: float) -> None:
        if not self._route().blooms:
            header = replace(header, bloom=b"")  # it may leave logs out: better to know nothing
        self._do(self._machine.added(header, now))

    def dropped(self, header: Header, now: float) -> None:
        self._do(self._machine.dropped(header, now))

    def lost(self, low: int, high: int, now: float) -> None:
        self._do(self._machine.gap(low, high, now))

    # --- the machine ------------------------------------------------------------------------------

    def _may_match(self, bloom: bytes) -> bool:
        return self._route().dialect.may_match(self._filter, bloom)

    def _pushed(self, source: Source, method: str, result: bytes) -> None:
        log = self._route().dialect.read_log(result)
        if log is None:
            self.sources.drop(source.number, "unreadable")
            return
        self._do(self._machine.pushed(source.number, log, self.clock()))

    def _do(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Tell(log, late):
                    told = self._route().dialect.removed(log) if log.removed else log
                    self.tell(Event(self.subscription.notification, told.raw, late))
                case FetchLogs(blocks):
                    if self._fetching is not None:
                        self._fetching.cancel()  # nobody waits for its answer any more
                    self._fetching = self.send(self._fetch(blocks))
                case LogGap(low, high, why):
                    self.tell(Missed(why, low, high))
                case PushesMissed(number):
                    self.sources.replace(number, "silent")

    async def _fetch(self, blocks: Sequence[Header]) -> None:
        tip = self._heads.tip
        settled = (tip.number if tip is not None else blocks[-1].number) - NEW
        old = [block for block in blocks if block.number <= settled]
        found: dict[str, Sequence[Log]] = {}
        if len(old) > 1:
            found |= await self._between(old)
            new = [block for block in blocks if block.number > settled]
        else:
            new = list(blocks)
        each = await asyncio.gather(*(self._of(block) for block in new))
        found |= {block.hash: logs for block, logs in zip(new, each, strict=True) if logs is not None}
        now = self.clock()
        self._do(self._machine.fetched(blocks, found, now) if found else self._machine.fetch_failed(now))

    async def _between(self, blocks: Sequence[Header]) -> dict[str, Sequence[Log]]:
        """The logs of settled blocks in one question; a block of which another branch answers is left out."""
        dialect = self._route().dialect
        result = await self._ask(dialect.logs_between(self._filter, blocks[0].number, blocks[-1].number))
        logs = dialect.read_logs(result) if result is not None else None
        if logs is None:
            return {}
        by_number: dict[int, list[Log]] = {}
        for log in logs:
            by_number.setdefault(log.number, []).append(log)
        found: dict[str, Sequence[Log]] = {}
        for block in blocks:
            own = by_number.get(block.number, [])
            if all(log.block == block.hash for log in own):
                found[block.hash] = own
        return found

    async def _of(self, block: Header) -> Sequence[Log] | None:
        """The logs of one block, by its hash; None when nobody knows."""
        dialect = self._route().dialect
        for look in range(LOOKS):
            if look:
                await asyncio.sleep(LOOK_AGAIN_AFTER)
            question = dialect.logs_between(self._filter, block.number, block.number)  # somebody else's opinion, too
            result = await self._ask(question if look else dialect.logs_of(self._filter, block.hash))
            logs = dialect.read_logs(result) if result is not None else None
            if logs is None or any(log.block != block.hash for log in logs):
                return None
            if logs:
                return logs
        return ()

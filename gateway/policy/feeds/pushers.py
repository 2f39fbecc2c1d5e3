"""The sources of pushed logs: what each has said, which blocks it can be relied on for, and what it owes.

Always true: a source is relied on only for blocks from its first log on, and only while it pushes in the order of
the chain; who twice in a row did not push what was there is named.
Does not belong here: what follows for a block (logs).
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.events import Log
from gateway.policy.feeds.blocks import Block

TRUSTED_FOR = 300.0  # seconds after its last log in which a source's silence is believed
SHUFFLES_FOR = 300.0  # seconds after a log out of order in which the order of a source's logs says nothing
MISSES = 2  # blocks in a row of which a source pushed nothing although there was something
BEFORE_ALL = (-1, -1)


class Pusher:
    """One source of pushed logs.  `first` is the block of its first log, -1 before it.

    `margin` and `margin_at`: its node will hardly have been at this number when it joined, nor was it
    at a block that was added at this time.  `newest`: the block and index of the last log in its order.
    """

    __slots__ = ("first", "margin", "margin_at", "misses", "newest", "pushed_at", "shuffles_until")

    def __init__(self, margin: int, margin_at: float) -> None:
        self.misses = 0
        self.pushed_at: float | None = None
        self.shuffles_until = float("-inf")
        self.begin(margin, margin_at)

    def begin(self, margin: int, margin_at: float) -> None:
        """What it said until now says nothing of what it will push."""
        self.margin = margin
        self.margin_at = margin_at
        self.first = -1
        self.newest = BEFORE_ALL

    def said(self, log: Log, now: float) -> None:
        """It pushed this log."""
        self.pushed_at = now
        if self.first < 0:
            self.first = log.number
        place = (log.number, log.index)
        if place < self.newest:
            self.shuffles_until = now + SHUFFLES_FOR
        self.newest = max(self.newest, place)

    def took_back(self, log: Log) -> None:
        """It said that this log is of an abandoned block: what it pushes now may lie before what it pushed."""
        self.newest = min(self.newest, (log.number, -1))

    def shuffles(self, now: float) -> bool:
        """Does it push logs of later blocks before those of earlier ones?"""
        return now < self.shuffles_until

    def covers(self, block: Block, now: float) -> bool:
        """Has it pushed, or will it push, all logs of this block?  Never known of one added in a reorganisation."""
        if not block.fresh or self.first < 0 or self.shuffles(now):
            return False
        number = block.header.number
        return number > self.first or (number == self.first and self._beyond_margin(block))

    def may_push(self, block: Block, now: float) -> bool:
        """Is it worth waiting for it?"""
        return self.covers(block, now) or (self.first < 0 and block.fresh and self._beyond_margin(block))

    def believed_silent(self, block: Block, now: float) -> bool:
        """Is it believed that there is no log in this block, because it pushed none?"""
        spoke = self.pushed_at is not None and now - self.pushed_at <= TRUSTED_FOR
        return spoke and self.covers(block, now)

    def _beyond_margin(self, block: Block) -> bool:
        return block.header.number >= self.margin and block.since >= self.margin_at


class Pushers(dict[int, Pusher]):
    """All of them, by their number."""

    __slots__ = ("_owing",)

    def __init__(self) -> None:
        super().__init__()
        self._owing: dict[str, tuple[float, set[int]]] = {}  # who should push what was fetched, and until when

    def owe(self, block: Block, now: float, within: float) -> None:
        """There is something in this block that nobody has pushed."""
        owing = {source for source, pusher in self.items() if pusher.may_push(block, now)}
        if owing:
            self._owing[block.header.hash] = (now + within, owing)

    def pushed(self, source: int, block: Block) -> None:
        """A source pushed a log of a block on the chain."""
        if source in self:
            self[source].misses = 0
        if block.header.hash in self._owing:
            self._owing[block.header.hash][1].discard(source)

    def forgive(self, block: Block) -> None:
        """This block is not on the chain any more."""
        self._owing.pop(block.header.hash, None)

    def missed(self, now: float) -> Iterator[int]:
        """Sources that did not push, again, what was there."""
        for block in [block for block, (until, _) in self._owing.items() if until <= now]:
            for source in self._owing.pop(block)[1] & self.keys():
                pusher = self[source]
                pusher.misses += 1
                if pusher.misses >= MISSES:
                    pusher.misses = 0
                    yield source

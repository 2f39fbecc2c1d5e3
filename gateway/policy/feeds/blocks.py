"""What a feed of logs knows of one block, and of one source of pushed logs.

Always true: a block is open (its logs are not known), unsure (some source's word, which a later one
confirms) or settled; what waits in it is told in the order of its index.
Does not belong here: when a block changes from one to the other (logs).
"""

from __future__ import annotations

import enum

from gateway.events import Header, Log


class State(enum.Enum):
    OPEN = "open"
    UNSURE = "unsure"
    SETTLED = "settled"


class Block:
    """One block of the chain.

    `fresh`: the first block at its height.  `known`: its bloom filter says something; `denied`: it
    said that there is no log.  `since`: when it was added or opened again.  `source`: whose word makes
    it unsure.  `told`: its logs that callers have; `waits`: those that they have not yet, with whether they were
    fetched.  `done`: settled and all told, as is everything before it.
    `lost`: callers were told that its logs cannot be told.
    """

    __slots__ = (
        "denied", "done", "doubts", "fresh", "header", "known", "lost", "since", "source", "state",
        "told", "waits",
    )  # fmt: skip

    def __init__(self, header: Header, fresh: bool, known: bool, denied: bool, now: float) -> None:
        self.header = header
        self.fresh = fresh
        self.known = known
        self.denied = denied
        self.state = State.SETTLED if denied else State.OPEN
        self.since = now
        self.source = 0
        self.told: dict[int, Log] = {}
        self.waits: dict[int, tuple[Log, bool]] = {}
        self.doubts = 0
        self.done = False
        self.lost = False

    def knows(self, index: int) -> bool:
        return index in self.told or index in self.waits

    def open(self, now: float) -> None:
        """Nothing is sure of it any more."""
        self.state = State.OPEN
        self.since = now


class Pusher:
    """One source of pushed logs.  `first` is the block of its first log, -1 before it.

    `margin` and `margin_at`: its node will hardly have been at this number when it joined, nor was it
    at a block that was added at this time.
    """

    __slots__ = ("first", "margin", "margin_at", "misses", "pushed_at")

    def __init__(self, margin: int, margin_at: float) -> None:
        self.misses = 0
        self.pushed_at: float | None = None
        self.begin(margin, margin_at)

    def begin(self, margin: int, margin_at: float) -> None:
        """What it said until now says nothing of what it will push."""
        self.margin = margin
        self.margin_at = margin_at
        self.first = -1

    def said(self, number: int, now: float) -> None:
        """It pushed a log of this block."""
        self.pushed_at = now
        if self.first < 0:
            self.first = number

    def covers(self, block: Block) -> bool:
        """Has it pushed, or will it push, all logs of this block?  Never known of one added in a reorganisation."""
        if not block.fresh or self.first < 0:
            return False
        number = block.header.number
        return number > self.first or (number == self.first and self._beyond_margin(block))

    def may_push(self, block: Block) -> bool:
        """Is it worth waiting for it?"""
        return self.covers(block) or (self.first < 0 and block.fresh and self._beyond_margin(block))

    def _beyond_margin(self, block: Block) -> bool:
        return block.header.number >= self.margin and block.since >= self.margin_at

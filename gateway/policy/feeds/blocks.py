"""What a feed of logs knows of one block.

Always true: a block is open (its logs are not known), unsure (some source's word, which a later one
confirms) or settled; what waits in it is told in the order of its index, and what was told is in that order.
Does not belong here: when a block changes from one to the other (logs), who is believed (pushers).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from itertools import takewhile

from gateway.events import Header, Log


class State(enum.Enum):
    """How far the logs of one block are known."""

    OPEN = "open"  # some may still come
    UNSURE = "unsure"  # all that will come have come, and nobody has confirmed that they are all
    SETTLED = "settled"  # these are its logs


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

    def is_past(self, index: int) -> bool:
        """Was something told of it that belongs behind this index?"""
        return next(reversed(self.told), -1) > index

    def after(self, index: int) -> list[Log]:
        """What was told of it and belongs behind this index, in order."""
        behind = list(takewhile(lambda log: log.index > index, reversed(self.told.values())))
        behind.reverse()
        return behind

    def tell(self, logs: Sequence[Log]) -> None:
        """These are told now; they are in order."""
        in_between = self.is_past(logs[0].index)
        for log in logs:
            self.told[log.index] = log
        if in_between:
            self.told = dict(sorted(self.told.items()))

    def open(self, now: float) -> None:
        """Nothing is sure of it any more."""
        self.state = State.OPEN
        self.since = now

"""Sequences: whether a message of a stream follows on what was told before.

Always true: a number is told at most once and in order; what is missing before a message is said, never passed over;
a message without a number is never taken for one that fits.
Exchanges number their order books so that a lost message cannot go unnoticed; a gateway that shares one stream among
many, and replaces it under them, must not be the place where that gets lost.
Does not belong here: where the numbers stand in a message (dialect/venue_messages).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Rule(enum.Enum):
    """How messages of a topic are numbered."""

    NONE = "none"  # not at all
    RANGE = "range"  # from-to, and the next starts right behind (Binance spot: U and u)
    PREVIOUS = "previous"  # each names the one before (OKX: prevSeqId and seqId; Binance futures: pu and u)
    NEXT = "next"  # each is one more (Bybit: u)
    SPAN = "span"  # from-to, which may overlap (KuCoin: sequenceStart and sequenceEnd)
    LINE = "line"  # not at all, and in order on the line that tells them: each subscription begins with a snapshot
    RISING = "rising"  # each is larger, by whatever: repeats can be told, a gap cannot (trades)


class Fit(enum.Enum):
    """How a message stands to what was told before."""

    UNNUMBERED = "unnumbered"
    NEXT = "next"
    OLD = "old"  # told already
    SNAPSHOT = "snapshot"  # the state as a whole: what was before does not matter
    GAP = "gap"  # something between is missing


@dataclass(frozen=True, slots=True)
class Place:
    """What a message says of its place.  `first` and `last` are equal where it has one number."""

    first: int
    last: int
    previous: int | None = None
    snapshot: bool = False


class Sequence:
    """One topic's place.  `last` is the newest number told; None: nothing yet."""

    __slots__ = ("last", "rule")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.last: int | None = None

    def judge(self, place: Place | None) -> Fit:
        """How a message fits; changes nothing."""
        if place is None or self.rule is Rule.NONE:
            return Fit.UNNUMBERED
        last = self.last
        if place.snapshot:
            return Fit.OLD if last is not None and place.last < last else Fit.SNAPSHOT
        if last is None:
            return Fit.NEXT
        if self.rule is Rule.PREVIOUS:
            if place.previous == last:
                return Fit.NEXT
            return Fit.OLD if place.last <= last else Fit.GAP
        if place.last <= last:
            return Fit.OLD
        if self.rule is Rule.RISING:
            return Fit.NEXT
        if self.rule in (Rule.NEXT, Rule.LINE):
            return Fit.NEXT if place.last == last + 1 else Fit.GAP
        return Fit.NEXT if place.first <= last + 1 else Fit.GAP

    def took(self, place: Place | None) -> None:
        """A message was told."""
        if place is not None and self.rule is not Rule.NONE:
            self.last = place.last

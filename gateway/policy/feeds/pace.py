"""The pace of a feed that nothing else shows to be silent: for how long it may say nothing before that is odd.

Always true: only a feed that has been steady is judged, by its own past: at least `ENOUGH` events of one source
over at least `STEADY_FOR` seconds; what has been quiet for as long before is not odd; while the chain stands still
nothing is.  A source that has not said anything yet is judged by the pace of those before it, after `STEADY_FOR`
seconds, and each one in a row is given twice the time of the one before: perhaps there is nothing to say.
Hence sources are called silent at most once in `STEADY_FOR` seconds.
Does not belong here: feeds that speak at every block (plain), what follows from a silence (upstream).
"""

from __future__ import annotations

ENOUGH = 50  # events; of fewer the pace is not known
STEADY_FOR = 300.0  # seconds from the first event to the last
SHORTEST = 60.0  # seconds of silence that are never odd
USUAL_TIMES = 20.0  # average intervals; of events that come by chance, one pause in 10^8 is longer (e^-20)
LONGEST_TIMES = 3.0  # times the longest pause that was no silence: events of some feeds come in bursts
BLOCKS = 2  # that went by meanwhile
MOST_DOUBLINGS = 8


class Pace:
    """See the module.  `now` is monotonic seconds; `head` the newest block that is known of, -1 for none."""

    __slots__ = ("_count", "_first", "_head", "_last", "_longest", "_mute", "_quiet_since", "_usual")

    def __init__(self) -> None:
        self._count = 0  # events of this source
        self._first = self._last = 0.0  # the first of them, and the last, or when it began
        self._head = -1  # the newest block then
        self._usual = 0.0  # seconds between two events, 0 while the pace is not known
        self._longest = 0.0  # the longest pause of the feed
        self._quiet_since = 0.0
        self._mute = 0  # sources in a row that said nothing

    def began(self, head: int, now: float) -> None:
        """A source's subscription was acknowledged."""
        if self._usual and not self._count:
            self._mute = min(self._mute + 1, MOST_DOUBLINGS)
        else:
            self._mute = 0
            self._quiet_since = now  # until now it may have been its source that was quiet
        self._count = 0
        self._first = self._last = now
        self._head = head

    def spoke(self, head: int, now: float) -> None:
        """An event came."""
        if self._count == 0:
            self._first = now
        self._longest = max(self._longest, now - self._quiet_since)
        self._quiet_since = self._last = now
        self._count += 1
        self._head = head
        if self._count >= ENOUGH and now - self._first >= STEADY_FOR:
            self._usual = (now - self._first) / (self._count - 1)

    def is_silent(self, head: int, now: float) -> bool:
        """Should there have been an event?"""
        steady = self._count >= ENOUGH and self._last - self._first >= STEADY_FOR
        if not self._usual or (self._count and not steady):
            return False
        if self._head < 0:
            self._head = head
        patience = max(SHORTEST, USUAL_TIMES * self._usual, LONGEST_TIMES * self._longest)
        if not self._count:
            patience = max(patience, STEADY_FOR * 2**self._mute)
        return now - self._last > patience and head - self._head >= BLOCKS

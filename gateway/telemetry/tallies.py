"""Tallies: the integers that calls and attempts leave behind, read by `metrics` at scrape.

Always true: counting a success is one integer and one histogram cell, with no third-party object;
all tallies together never claim more series than their `SeriesBudget` grants, whatever is counted:
what does not fit is counted under `other` (and in `SeriesBudget.refused`), never dropped.  A series
is one line of a scrape.  Counters only grow.  Used from one thread, the event loop's.

Does not belong here: names, help texts and formats of metrics (metrics).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

OTHER: Final = "other"

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of latency buckets, seconds, inclusive."""

HISTOGRAM_SERIES: Final = len(BUCKETS) + 3
"""Lines of one histogram: its buckets, +Inf, count and sum."""


class SeriesBudget:
    """How many series may exist.  `taken` never passes `limit`; `refused` counts what found no room.

    What is taken here is taken from `whole` too, of which this is a part.
    """

    __slots__ = ("_whole", "limit", "refused", "taken")

    def __init__(self, limit: int, whole: SeriesBudget | None = None) -> None:
        self.limit = limit
        self.taken = 0
        self.refused = 0
        self._whole = whole

    def take(self, series: int) -> bool:
        """Claim `series` lines; False (and nothing claimed) when they do not fit."""
        if self.taken + series > self.limit or not (self._whole is None or self._whole.take(series)):
            self.refused += 1
            return False
        self.taken += series
        return True

    def give_back(self, series: int) -> None:
        self.taken -= series
        if self._whole is not None:
            self._whole.give_back(series)


class LatencyHistogram:
    """Counts durations, in seconds, in fixed buckets.  `counts[i]` is not cumulative; the last is +Inf's."""

    __slots__ = ("counts", "total")

    bounds: Final = BUCKETS

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Add one duration, >= 0."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[int]:
        """Per bound of `BUCKETS`, then +Inf: how many durations were at most that."""
        return list(accumulate(self.counts))


class Tally:
    """How often something ended well, how often otherwise and why, and how long it took.

    `spill` is the tally that counts endings which find no room in the series budget here; the last
    of such a chain has none and its series were set aside for every ending in `endings`.
    Hold on to the object: looking it up again costs more than counting.
    """

    __slots__ = ("_budget", "_endings", "_spill", "duration", "good", "otherwise")

    def __init__(
        self, duration: LatencyHistogram, endings: frozenset[str], budget: SeriesBudget, spill: Tally | None
    ) -> None:
        self.good = 0
        self.otherwise: dict[str, int] = {}
        self.duration = duration
        self._endings = endings
        self._budget = budget
        self._spill = spill

    def done(self, seconds: float) -> None:
        """It ended well, after `seconds`.  The hot path."""
        self.good += 1
        duration = self.duration  # `observe` written out: a call costs as much as the work
        duration.counts[bisect_left(BUCKETS, seconds)] += 1
        duration.total += seconds

    def ended(self, ending: str, seconds: float) -> None:
        """It ended as `ending`, a member of the closed set; anything else is counted as `other`."""
        self.duration.observe(seconds)
        self._count(ending if ending in self._endings else OTHER)

    def _count(self, ending: str) -> None:
        known = self.otherwise.get(ending)
        if known is not None:
            self.otherwise[ending] = known + 1
        elif self._spill is None or self._budget.take(1):
            self.otherwise[ending] = 1
        else:
            self._spill._count(ending)

    def retire(self) -> int:
        """Leave the scrape; gives the lines its counter had.  Whoever holds it may go on counting, for nobody."""
        self._budget = SeriesBudget(len(self._endings) + 1)  # of its own: claims must not come back
        return 1 + len(self.otherwise)


class CallStats(Tally):
    """Calls of one route x method; `duration` is shared by the methods of one route x family.

    Good is an upstream's answer delivered; otherwise is a `Shown` value or an error's reason.
    """

    __slots__ = ()


class AttemptStats(Tally):
    """Attempts at one endpoint x family; `duration` is shared by the families of one endpoint.

    Good is `ReplyKind.ANSWER`; otherwise is another `ReplyKind` value or an attempt error's reason.
    """

    __slots__ = ()


class RouteStats:
    """The single numbers of one route: plain attributes, added to in place."""

    __slots__ = (
        "audits", "audits_contradicted", "blocks_filled", "consensus_failed", "events", "events_late", "events_missed",
        "events_sent", "failovers", "feed_failovers", "gaps_found", "hedges", "hedges_refused", "hedges_won",
        "inflight", "lookups_found", "lookups_missing", "request_faults", "retry_budget_refusals", "shed", "splits",
        "subscriptions",
    )  # fmt: skip

    SERIES: Final = 22 + 8  # with the gauges of a route: head, waiting and six verdicts

    def __init__(self) -> None:
        self.failovers = 0  # calls that needed a second endpoint
        self.inflight = 0  # goes up and down
        self.lookups_found = 0  # transactions of unknown fate, looked up by hash
        self.lookups_missing = 0
        self.retry_budget_refusals = 0
        self.hedges = 0  # second legs launched
        self.hedges_won = 0  # of these, answered first
        self.hedges_refused = 0  # by their budget
        self.shed = 0  # calls that gave way while all endpoints were busy
        self.splits = 0  # log queries cut into parts
        self.audits = 0  # reads that a second endpoint was asked, too
        self.audits_contradicted = 0
        self.consensus_failed = 0  # calls without enough endpoints that agree
        self.request_faults = 0  # calls that all endpoints refused alike
        self.subscriptions = 0  # of callers, now
        self.events = 0  # of all feeds
        self.events_sent = 0  # the same, times the callers that each went to
        self.events_late = 0  # fetched, because they were not pushed
        self.events_missed = 0  # times that callers were told of a loss
        self.gaps_found = (
            0  # runs of missing blocks that nobody pushed; each counts once, however often it is asked for
        )
        self.blocks_filled = 0  # blocks told that were fetched
        self.feed_failovers = 0  # sources of feeds replaced


class ReasonCounter:
    """Counts by one label.  The set of values is closed: it is given, or closes at `limit` values.

    Values beyond the set, and values that are no lower-case words, are counted as `other`.
    """

    __slots__ = ("_limit", "counts")

    def __init__(self, reasons: Iterable[str] = (), *, limit: int = 0) -> None:
        """`limit`: how many more values may come up than the given `reasons`."""
        self.counts = dict.fromkeys((*reasons, OTHER), 0)
        self._limit = len(self.counts) + limit

    def count(self, reason: str) -> None:
        if reason in self.counts:
            self.counts[reason] += 1
        elif len(self.counts) < self._limit and is_word(reason):
            self.counts[reason] = 1
        else:
            self.counts[OTHER] += 1

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self.counts.items())


def is_word(text: str) -> bool:
    """A reason as this project writes them: at most 40 lower-case ASCII letters, digits and underscores."""
    return text.isascii() and text.isidentifier() and text == text.lower() and len(text) <= 40

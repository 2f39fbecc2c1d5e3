"""Hedging: when a second leg of a read is worth its price, and how long a first leg usually takes.

Always true: only pinned and head reads are hedged, because their answer does not depend on who gives it
first; over any long run no more than `budget_share` of the calls get a second leg; nothing is hedged
where nobody in another failure domain is left, or a quota is nearly used up.
At the 95th percentile one call in twenty is slow by definition, so the budget is 5 % (Dean and Barroso,
The Tail at Scale, 2013; Finagle's backup requests).  The minimum is 0: a quiet route hedges no more.
Does not belong here: running two legs (upstream/calls/hedge).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf

from gateway.bounds import require_bounds, setting

SAMPLES_AT_LEAST = 20  # before an estimate is believed
FIRST_STEP, LAST_STEP = 0.5, 0.02  # of the logarithm, per observation: coarse at first, then fine
COOLING = 0.98


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeSettings:
    """When a read that takes long gets a second leg."""

    enabled: bool = setting(True, "launch a second leg for reads that take longer than usual")
    at_least: float = setting(0.05, "no second leg sooner than this", unit="s", low=0.001, high=60)
    budget_share: float = setting(
        0.05, "second legs as a share of the reads that may have one", unit="share", low=0, high=1
    )

    def __post_init__(self) -> None:
        require_bounds(self)


class Quantile:
    """A running estimate of the 95th percentile of latencies, in seconds; infinite until enough were seen.

    Steps in the logarithm: up by 0.95 of a step for a latency above the estimate, down by 0.05 of one for
    a latency below, so that it rests where one in twenty is above.  The step shrinks while things are
    steady and never vanishes, so the estimate follows a provider that changes.
    """

    __slots__ = ("_down", "_estimate", "_seen", "_step", "_up", "value")

    def __init__(self) -> None:
        self._estimate = 0.0
        self._seen = 0
        self._step = FIRST_STEP
        self._up = self._down = 1.0
        self.value = inf

    def observe(self, latency: float) -> None:
        """Take in one latency, in seconds."""
        estimate = self._estimate
        if self._step > LAST_STEP or self._seen < SAMPLES_AT_LEAST:
            self._begin(latency)
            return
        estimate *= self._up if latency > estimate else self._down
        self._estimate = self.value = estimate

    def _begin(self, latency: float) -> None:
        """The first observations: larger steps."""
        self._seen += 1
        if self._seen == 1:
            self._estimate = max(latency, 1e-6)
        self._step = max(LAST_STEP, self._step * COOLING)
        self._up, self._down = exp(0.95 * self._step), exp(-0.05 * self._step)
        self._estimate *= self._up if latency > self._estimate else self._down
        if self._seen >= SAMPLES_AT_LEAST:
            self.value = self._estimate

"""The breaker of one endpoint x family: closed lets calls through, open refuses, half-open probes.

Always true: an idle breaker always admits someone if one waits long enough; in half-open at most
one probe is out; a result that belongs to an older generation changes nothing; a probe that ends in
neither success nor failure (cancelled, caller gone) gives its permission back; a forced call, made
because nothing better was left, never gives back the permission of a probe.

Two detectors trip it, both on every reply, because each misses what the other sees: *consecutive*
failures find a dead endpoint at once, a Bernoulli *CUSUM* finds a grey one.  The CUSUM adds the
log-likelihood ratio of "failing at `failing_rate`" against "failing at `base_rate`" per result,
never falls below zero, and trips at `threshold`.  With the defaults (2 %, 30 %, 8) that is 3
failures in a row, about 14 calls at 30 % failing, and one false trip in 32,000 calls at 2 %;
five-in-a-row, the usual rule, needs 586 calls to notice a 30 % failure (exact computation in
tests/policy/test_breaker.py).

Throttling never reaches this module: it moves the rate budget (policy/holds).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from math import log

from gateway.bounds import require_bounds, setting
from gateway.model import Outcome

SOFT_SHARE = 0.6  # a soft failure's share of a failure's evidence: with the defaults, five in a row open


class BreakerState(enum.Enum):
    """Closed lets calls through, open refuses them, half-open lets one probe through at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When an endpoint counts as broken, for how long, and how it comes back.  Raises ValueError out of bounds."""

    base_rate: float = setting(
        0.02, "share of failures that is normal for an endpoint", unit="share", low=0.0001, high=0.5
    )
    failing_rate: float = setting(
        0.30, "share of failures that counts as broken; the detector is tuned for it", unit="share", low=0.01, high=0.99
    )
    threshold: float = setting(
        8.0, "evidence (log-likelihood) at which the breaker opens; higher is slower and calmer", low=1, high=50
    )
    consecutive: int = setting(3, "failures in a row, within `consecutive_within`, that open it", low=1, high=100)
    consecutive_within: float = setting(10.0, "window for the failures in a row", unit="s", low=0.1, high=600)
    open_for: float = setting(2.0, "first time out; doubles each time it trips again", unit="s", low=0.1, high=600)
    open_at_most: float = setting(120.0, "longest time out", unit="s", low=0.1, high=3600)
    jitter: float = setting(
        0.2, "random share added to or taken from each time out, so that probes spread", unit="share", low=0, high=0.9
    )
    probes_to_close: int = setting(3, "good probes in a row that close it again", low=1, high=100)
    slow_start_for: float = setting(
        10.0, "time over which a returned endpoint regains its share", unit="s", low=0, high=600
    )
    slow_start_from: float = setting(0.1, "share of its traffic right after its return", unit="share", low=0.01, high=1)

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.failing_rate <= self.base_rate:
            raise ValueError("failing_rate must be above base_rate")
        if self.open_at_most < self.open_for:
            raise ValueError("open_at_most must not be below open_for")

    @property
    def good_step(self) -> float:
        """What one success takes from the evidence."""
        return -log((1 - self.failing_rate) / (1 - self.base_rate))

    @property
    def bad_step(self) -> float:
        """What one failure adds to the evidence."""
        return log(self.failing_rate / self.base_rate)


class Breaker:
    """Closed / open / half-open, with the generation that makes late results harmless.

    Not thread-safe and owns no clock: `now` is monotonic seconds.  `chance` in [0, 1) spreads the
    time out.  The hot path reads `state` and `evidence` directly.
    """

    __slots__ = (
        "_bad_step", "_failed_at", "_good_step", "_settings", "changed_at", "closed_at", "evidence",
        "failures_in_a_row", "generation", "good_probes", "open_until", "probe_out", "state", "trips",
    )  # fmt: skip

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        self._settings = settings
        self._good_step = settings.good_step
        self._bad_step = settings.bad_step
        self.state = BreakerState.CLOSED
        self.generation = 0
        self.changed_at = now
        self.closed_at = now - settings.slow_start_for  # no slow start at process start
        self.evidence = 0.0
        self.failures_in_a_row = 0
        self._failed_at: list[float] = []  # the newest of them, at most `consecutive`
        self.open_until = now
        self.trips = 0  # times opened since it last stayed closed for `open_at_most`
        self.good_probes = 0
        self.probe_out = False

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value} g{self.generation} evidence={self.evidence:.2f} trips={self.trips}>"

    def admit(self, now: float) -> int | None:
        """The right to one attempt, as the generation to settle with; None when refused.

        Moves open to half-open once the time out has passed; there, hands out one probe at a time.
        A probe's generation is negative, so that its end is told from that of a forced call.
        """
        if self.state is BreakerState.CLOSED:
            return self.generation
        if self.state is BreakerState.OPEN:
            if now < self.open_until:
                return None
            self._move(BreakerState.HALF_OPEN, now)
            self.good_probes = 0
            self.probe_out = False
        if self.probe_out:
            return None
        self.probe_out = True
        return -self.generation

    def would_admit(self, now: float) -> bool:
        """What `admit` would say, changing nothing."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            return now >= self.open_until
        return not self.probe_out

    def settle(self, generation: int, outcome: Outcome, now: float, chance: float) -> bool:
        """Count one finished attempt.  True when the state changed.

        `generation` is what `admit` gave, or for a forced call the breaker's own at its start.
        THROTTLED counts as IGNORED while closed and is a bad probe in half-open (strict probing):
        an endpoint that throttles its only request is not ready for traffic.
        """
        if abs(generation) != self.generation:
            return False
        if self.state is BreakerState.CLOSED:
            return self._settle_closed(outcome, now, chance)
        if self.state is BreakerState.OPEN:  # a forced call, made because nothing better was left
            if outcome is not Outcome.SUCCESS:
                return False
            self._move(BreakerState.HALF_OPEN, now)  # it is back before its time: probe it at once
            self.good_probes = 1
            return True
        if generation < 0:
            self.probe_out = False
        if outcome is Outcome.SUCCESS:
            self.good_probes += 1
            if self.good_probes >= self._settings.probes_to_close:
                self._close(now)
                return True
            return False
        if outcome is Outcome.IGNORED:
            return False
        self._open(now, chance)
        return True

    def slow_start_share(self, now: float) -> float:
        """The share of its normal traffic that it should get, 0 to 1; grows linearly after a return."""
        span = self._settings.slow_start_for
        since = now - self.closed_at
        if since >= span or span == 0:
            return 1.0
        low = self._settings.slow_start_from
        return low + (1.0 - low) * since / span

    def _settle_closed(self, outcome: Outcome, now: float, chance: float) -> bool:
        if outcome is Outcome.SUCCESS:
            if self.failures_in_a_row:
                self._forget_failures()
            if self.evidence:
                self.evidence = max(0.0, self.evidence - self._good_step)
            return False
        settings = self._settings
        in_a_row = False
        if outcome is Outcome.FAILURE:
            self.failures_in_a_row += 1
            self._failed_at = [*self._failed_at, now][-settings.consecutive :]
            in_a_row = self.failures_in_a_row >= settings.consecutive and (
                now - self._failed_at[0] <= settings.consecutive_within
            )
            self.evidence += self._bad_step
        elif outcome is Outcome.SOFT_FAILURE:
            self.evidence += self._bad_step * SOFT_SHARE
        else:
            return False
        if self.evidence < settings.threshold and not in_a_row:
            return False
        if now - self.changed_at > settings.open_at_most:
            self.trips = 0  # it behaved for long enough to start from the first time out again
        self._open(now, chance)
        return True

    def _forget_failures(self) -> None:
        self.failures_in_a_row = 0
        self._failed_at = []

    def _open(self, now: float, chance: float) -> None:
        settings = self._settings
        out_for = min(settings.open_at_most, settings.open_for * 2.0 ** min(self.trips, 30))
        self.open_until = now + out_for * (1.0 + settings.jitter * (2.0 * chance - 1.0))
        self.trips += 1
        self._move(BreakerState.OPEN, now)

    def _close(self, now: float) -> None:
        self._move(BreakerState.CLOSED, now)
        self.closed_at = now
        self.evidence = 0.0
        self._forget_failures()

    def _move(self, state: BreakerState, now: float) -> None:
        self.state = state
        self.changed_at = now
        self.generation += 1
        self.probe_out = False

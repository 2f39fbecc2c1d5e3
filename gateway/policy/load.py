"""Load: how busy and how fast one endpoint x family is, in one number that choices compare.

Peak-EWMA (as in Finagle and linkerd2-proxy): a latency above the estimate replaces it at once, a
latency below pulls it down slowly, so one slow answer is noticed at once and forgiven slowly.
Always true: the cost is positive, grows with the calls in flight, and unknown is neither best nor
worst but the stated prior.
"""

from __future__ import annotations

from math import exp

LONGEST_FADE = 50.0  # decay times: an estimate fades to next to nothing, never to nothing


class PeakEwma:
    """Latency estimate in seconds.  `in_flight` is kept by the owner of the permits."""

    __slots__ = ("_at", "_decay", "estimate", "in_flight", "seen")

    def __init__(self, prior: float, decay: float, now: float) -> None:
        self.estimate = prior
        self.in_flight = 0
        self.seen = 0
        self._decay = decay
        self._at = now

    def observe(self, latency: float, now: float) -> None:
        """Take in one attempt's latency (seconds); a refusal counts with its penalty latency."""
        if (latency > self.estimate and self.seen) or self.seen == 0:
            self.estimate = latency
        else:
            keep = exp((self._at - now) / self._decay)
            self.estimate = self.estimate * keep + latency * (1.0 - keep)
        self.seen += 1
        self._at = now

    def cost(self, now: float) -> float:
        """Estimated seconds of work queued there: what power-of-two choices compares.

        An estimate that nobody has refreshed fades, so an endpoint that was slow once is looked at
        again instead of starving for ever.
        """
        age = now - self._at
        if age > 1.0:
            return self.estimate * exp(-min(age / self._decay, LONGEST_FADE)) * (self.in_flight + 1)
        return self.estimate * (self.in_flight + 1)

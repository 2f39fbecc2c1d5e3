"""Budgets as token buckets: always somebody's (a caller's, a route's retries, a provider's rate).

Always true: over any span of time a bucket grants at most `burst + rate x span` tokens (plus what
was earned, for a retry budget).  The bucket refills when asked; it owns no clock and no task.
"""

from __future__ import annotations


class TokenBucket:
    """`rate` tokens a second, at most `burst` saved up.  `now` is monotonic seconds.

    `earned` are tokens beside the steady rate (a retry budget earns a share of each call) that were not looked at
    yet: the hot path adds to it and does nothing else.
    """

    __slots__ = ("_at", "burst", "earned", "rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate < 0 or burst <= 0:
            raise ValueError(f"a bucket needs rate >= 0 and burst > 0, got {rate} and {burst}")
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.earned = 0.0
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` tokens, or nothing when there are not enough."""
        self._refill(now)
        if self.tokens + 1e-9 < amount:
            return False
        self.tokens -= amount
        return True

    def earn(self, amount: float) -> None:
        """Add tokens beside the steady rate."""
        self.earned += amount

    def available_after(self, amount: float, now: float) -> float:
        """Seconds until `amount` tokens are there; infinity when they never will be."""
        self._refill(now)
        missing = amount - self.tokens
        if missing <= 1e-9:
            return 0.0
        if self.rate == 0 or amount > self.burst:
            return float("inf")
        return missing / self.rate

    def _refill(self, now: float) -> None:
        if self.earned:
            self.tokens = min(self.burst, self.tokens + self.earned)
            self.earned = 0.0
        if now > self._at:
            self.tokens = min(self.burst, self.tokens + (now - self._at) * self.rate)
            self._at = now

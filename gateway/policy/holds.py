"""Holds: how long an endpoint is left alone when it said "not now", "not you" or "not this method".

Always true: every hold ends by itself.  Throttling is not failure: it never moves the breaker; it
holds the endpoint until the time it named, or for a hold-off that doubles while it keeps refusing.
An exclusion (key refused, quota used up, gone) is longer and can be ended early by a probe; the
memory of an unsupported method ends so that a provider's upgrade is noticed.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.bounds import require_bounds, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldSettings:
    """How long who throttles, or refuses the key, is left alone.  Raises ValueError out of bounds."""

    hold_for: float = setting(
        1.0, "first hold-off after a 429 without Retry-After; doubles while it goes on", unit="s", low=0.05, high=60
    )
    hold_at_most: float = setting(60.0, "longest hold-off without Retry-After", unit="s", low=0.1, high=3600)
    retry_after_at_most: float = setting(
        300.0, "a longer Retry-After is cut to this, then tried again", unit="s", low=1, high=86400
    )
    exclude_for: float = setting(
        60.0, "first time out after a refused key, a used-up quota or a 404; doubles", unit="s", low=1, high=3600
    )
    exclude_at_most: float = setting(3600.0, "longest such time out", unit="s", low=1, high=86400)
    unsupported_for: float = setting(
        600.0, "how long a method that an endpoint does not offer is not asked of it", unit="s", low=1, high=86400
    )

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.hold_at_most < self.hold_for or self.exclude_at_most < self.exclude_for:
            raise ValueError("a longest time must not be below its first time")


class GrowingHold:
    """A hold that doubles while its cause repeats and forgets when it has stayed away.

    `until` is an instant; `now` at or past it means: not held.
    """

    __slots__ = ("_at_most", "_first", "times", "until")

    def __init__(self, first: float, at_most: float) -> None:
        self._first = first
        self._at_most = at_most
        self.times = 0
        self.until = 0.0

    def extend(self, now: float, chance: float, named: float | None = None, named_at_most: float = 0.0) -> float:
        """Hold from `now`; returns the instant it ends.  Never shortens a hold that is in force.

        `named` is what the upstream itself asked for (Retry-After, seconds); 0 names no time.  Otherwise the
        hold-off grows, with up to 20 % of chance added so that many holds do not end together.
        Results that were already out when the hold began do not make it grow.
        """
        held = now < self.until
        if named is not None and named > 0:
            self.until = max(self.until, now + min(named, named_at_most))
        elif not held:
            length = min(self._at_most, self._first * 2.0 ** min(self.times, 30))
            self.until = now + length * (1.0 + 0.2 * chance)
        if not held:
            self.times += 1
        return self.until

    def worked(self, now: float) -> None:
        """A good answer after the hold: the next hold starts small again."""
        if self.times and now >= self.until:
            self.times = 0

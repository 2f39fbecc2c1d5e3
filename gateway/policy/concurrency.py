"""Concurrency: how many calls one endpoint x family can take at once, learned from what it refuses.

Always true: the limit lies between `at_least` (or the configured most, if that is smaller) and the
configured most; it starts at the most, so nothing is restricted before something was refused; it grows
only while at least half of it is in use, because a limit that nobody reaches says nothing; a refusal while
no more than `at_least` calls were under way moves nothing, because their number was not the cause.
Additive increase, multiplicative decrease (as TCP does, and Netflix's concurrency-limits with its 0.9):
a refusal or a timeout takes a tenth, as many good answers as the limit is large give one back, from a
second after the last decrease on.
Does not belong here: slots (the fleet counts them), or rates (quota).
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.bounds import require_bounds, setting

# Seconds after a decrease in which nothing grows.  Calls that were out by then may still time out; without
# the pause a limit of 5 hovered around 12, and 13 % of the calls were lost (4.5 % with it).
QUIET_FOR = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencySettings:
    """How the limit of calls at once moves."""

    at_least: int = setting(2, "calls at once that are allowed whatever was refused", low=1, high=10_000)
    backoff: float = setting(
        0.9, "what is left of the limit after a refusal or a timeout", unit="share", low=0.1, high=0.99
    )
    settle_for: float = setting(
        0.5, "time after a decrease in which further refusals do not decrease it again", unit="s", low=0, high=60
    )

    def __post_init__(self) -> None:
        require_bounds(self)


class ConcurrencyLimit:
    """The live limit.  The hot path reads `limit`, and calls `worked` only while it is below `most`."""

    __slots__ = ("_dropped_at", "_least", "_settings", "_worked", "limit", "most")

    def __init__(self, settings: ConcurrencySettings, most: int) -> None:
        self._settings = settings
        self._least = min(settings.at_least, most)
        self._worked = 0
        self._dropped_at = float("-inf")
        self.most = most
        self.limit = most

    def dropped(self, in_flight: int, now: float) -> None:
        """A call was refused for lack of capacity, or timed out, while `in_flight` were under way, it included."""
        settings = self._settings
        if in_flight <= self._least or now - self._dropped_at < settings.settle_for:
            return  # calls that were out together are refused together: one piece of news
        self._dropped_at = now
        self._worked = 0
        self.limit = max(self._least, int(min(self.limit, in_flight) * settings.backoff))

    def worked(self, in_flight: int, now: float) -> None:
        """A call was answered while `in_flight` others were still under way."""
        if self.limit >= self.most or 2 * (in_flight + 1) < self.limit or now - self._dropped_at < QUIET_FOR:
            return
        self._worked += 1
        if self._worked >= self.limit:
            self._worked = 0
            self.limit += 1

"""Quotas: what a provider's account may be asked, in its own units, told by it or learned from it.

Always true: over any span of time no more is granted than rate x span + burst, and no more in a window
(minute, hour, day, month) than its allowance; who was throttled is asked again after a time, whatever
it said; without a configured or learned limit a call costs one comparison and one addition.
A 429 teaches the rate that was really accepted (not a guess).  The learned rate then recovers by 5 % a
second while it is used, twice as fast for each five seconds without a further refusal, and is
forgotten when nothing was refused for long.  Throttling is not failure: it moves this budget and
never a breaker.
Windows are the calendar's in UTC, as vendors bill; the wall clock is read once per window, the rest is
monotonic.
Does not belong here: a caller's own budget (budget), or what a header means (dialect/ratelimits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.bounds import require_bounds, setting

RECOVERY = 0.05  # share of the learned rate that comes back each second in which it is used
DOUBLES_EVERY = 5.0  # seconds without a refusal after which it comes back twice as fast
RECOVERY_AT_MOST = 1.0
FORGET_AFTER = 300.0  # seconds without a refusal after which a learned rate is forgotten
LEAST_RATE = 1.0  # calls a second; a learned rate does not fall below
MEASURED_OVER = 5.0  # seconds over which the rate that is sent is measured
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_MONTH_DAYS = 2_629_746.0  # seconds of a mean month; see `_next_month` for the calendar's


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaSettings:
    """What an account may be asked.  0: no limit is known."""

    compute: bool = setting(False, "count compute units (a method's cost) instead of requests")
    rate: float = setting(
        0.0, "requests or units a second; 0: learned from refusals", unit="per_second", low=0, high=1e6
    )
    burst: float = setting(0.0, "what can be saved up of the rate; 0: one second's worth", low=0, high=1e7)
    per_minute: float = setting(0.0, "allowance of each minute", low=0, high=1e9)
    per_hour: float = setting(0.0, "allowance of each hour", low=0, high=1e10)
    per_day: float = setting(0.0, "allowance of each day (UTC)", low=0, high=1e12)
    per_month: float = setting(0.0, "allowance of each calendar month (UTC)", low=0, high=1e13)
    reserve: float = setting(
        0.2, "share kept back from hedges and audits, which are the first to go", unit="share", low=0, high=1
    )

    def __post_init__(self) -> None:
        require_bounds(self)


class _Window:
    """An allowance per calendar period."""

    __slots__ = ("allowance", "ends_at", "length", "name", "used")

    def __init__(self, name: str, length: float, allowance: float, now: float, wall: float) -> None:
        self.name = name
        self.length = length
        self.allowance = allowance
        self.used = 0.0
        self.ends_at = now + _until_next(name, wall)

    def roll(self, now: float) -> None:
        while now >= self.ends_at:
            self.ends_at += self.length
            self.used = 0.0


class ProviderBudget:
    """The live budget of one account.  `now` is monotonic seconds, `wall` seconds since 1970."""

    __slots__ = (
        "_at", "_burst", "_learned_at", "_limited", "_rate", "_rate_before", "_refused", "_refused_at", "_sent",
        "_sent_at", "_settings", "_tokens", "_until", "_windows", "learned", "reserve",
    )  # fmt: skip

    def __init__(self, settings: QuotaSettings, now: float, wall: float) -> None:
        self._settings = settings
        self.reserve = settings.reserve
        self.learned: float | None = None
        self._refused_at = self._learned_at = now
        self._rate = settings.rate
        self._burst = settings.burst or max(settings.rate, 1.0)
        self._tokens = self._burst
        self._at = now
        self._until = 0.0
        self._sent = 0.0
        self._sent_at = now
        self._refused = 0.0
        self._rate_before = 0.0
        wanted = (
            ("minute", _MINUTE, settings.per_minute),
            ("hour", _HOUR, settings.per_hour),
            ("day", _DAY, settings.per_day),
            ("month", _MONTH_DAYS, settings.per_month),
        )
        self._windows = [_Window(name, length, most, now, wall) for name, length, most in wanted if most]
        self._limited = settings.rate > 0 or bool(self._windows)

    def take(self, cost: float, now: float) -> bool:
        """Take what a call costs (1, or its units), or nothing when there is not enough."""
        if not self._settings.compute:
            cost = 1.0
        if now - self._sent_at > MEASURED_OVER:
            self._begin_measuring(now)
        self._sent += cost
        if not self._limited:
            return True
        if self.available_after(cost, now) > 0:
            self._sent -= cost
            return False
        if self._rate:
            self._tokens -= cost
        for window in self._windows:
            window.used += cost
        return True

    def available_after(self, cost: float, now: float) -> float:
        """Seconds until a call of this cost may be made; 0: now."""
        if not self._limited:
            return 0.0
        if not self._settings.compute:
            cost = 1.0
        self._refill(now)
        wait = max(0.0, self._until - now)
        if self._rate and self._tokens < min(cost, self._burst):
            wait = max(wait, (min(cost, self._burst) - self._tokens) / self._rate)
        for window in self._windows:
            if window.used + min(cost, window.allowance) > window.allowance:
                wait = max(wait, window.ends_at - now)
        return wait

    def throttled(self, now: float, retry_after: float | None = None) -> None:
        """It refused a call as too many: half of what was sent is what it can take, for now."""
        self._refused += 1
        already = self.learned is not None and now - self._learned_at < 1.0
        self._refused_at = now
        if retry_after is not None and retry_after > 0:
            self._until = max(self._until, now + retry_after)
            self._limited = True
        if already:
            return  # refusals of calls that were out together are one piece of news
        self._learned_at = now
        rate = max(LEAST_RATE, self._accepted(now))
        self._learn(min(rate, self._settings.rate or rate), now)

    def told(self, limit: float | None, remaining: float | None, reset_after: float | None, now: float) -> None:
        """Headers said what is left: nothing until the reset, when nothing is."""
        if remaining is not None and remaining <= 0 and reset_after is not None and 0 < reset_after <= _DAY:
            self._until = max(self._until, now + reset_after)
            self._limited = True

    def spent(self, now: float, seconds: float) -> None:
        """A daily or monthly quota is used up: nothing until its reset."""
        self._until = max(self._until, now + seconds)
        self._limited = True

    def left(self, now: float) -> float:
        """The share of the tightest allowance that is left, 0 to 1."""
        if not self._limited:
            return 1.0
        self._refill(now)
        if now < self._until:
            return 0.0
        shares = [max(0.0, 1.0 - window.used / window.allowance) for window in self._windows]
        if self._rate:
            shares.append(max(0.0, min(1.0, self._tokens / self._burst)))
        return min(shares, default=1.0)

    def snapshot(self, now: float) -> dict[str, Any]:
        """For pages: what is left, and of what."""
        shown: dict[str, Any] = {"left": round(self.left(now), 3)}
        if self._rate and self._limited:
            shown["rate"] = round(self._rate, 3)
            shown["learned"] = self.learned is not None
        for window in self._windows:
            shown[f"used_this_{window.name}"] = round(window.used, 3)
        if now < self._until:
            shown["free_in"] = round(self._until - now, 3)
        return shown

    # --- learning ---------------------------------------------------------------------------------

    def _refill(self, now: float) -> None:
        span, self._at = now - self._at, max(now, self._at)
        if span > 0 and self._rate:
            if self.learned is not None:
                self._recover(span, now)
            self._tokens = min(self._burst, self._tokens + span * self._rate)
        for window in self._windows:
            window.roll(now)
        if self._until and now >= self._until:
            self._until = 0.0
            self._limited = bool(self._rate or self._windows)

    def _recover(self, span: float, now: float) -> None:
        """A learned rate grows while it is used, and is forgotten when nothing was refused for long."""
        assert self.learned is not None
        configured = self._settings.rate
        if now - self._refused_at > FORGET_AFTER or (configured and self.learned >= configured):
            self.learned = None
            self._rate = configured
            self._burst = self._settings.burst or max(configured, 1.0)
            self._limited = bool(configured or self._windows or self._until)
            return
        if self._tokens < 0.5 * self._burst:  # it is being used up: see whether it can be more
            speed = min(RECOVERY_AT_MOST, RECOVERY * 2.0 ** min((now - self._refused_at) / DOUBLES_EVERY, 10.0))
            grown = self.learned * (1.0 + speed * min(span, 1.0))
            self._learn(min(grown, configured) if configured else grown, now)

    def _learn(self, rate: float, now: float) -> None:
        self.learned = self._rate = rate
        self._burst = max(1.0, min(self._settings.burst or rate, rate))
        self._tokens = min(self._tokens, self._burst)
        self._at = max(self._at, now)
        self._limited = True

    def _begin_measuring(self, now: float) -> None:
        span = now - self._sent_at
        self._rate_before = (self._sent - self._refused) / span if span < 2 * MEASURED_OVER else 0.0
        self._sent, self._refused, self._sent_at = 0.0, 0.0, now

    def _accepted(self, now: float) -> float:
        """What was accepted a second, in the last few seconds."""
        span = now - self._sent_at
        rate = max(0.0, self._sent - self._refused) / max(span, 1.0)  # in less, what was saved up would count as rate
        return max(rate, self._rate_before) if span < 1.0 else rate


def _until_next(name: str, wall: float) -> float:
    """Seconds until the next minute, hour, day or month begins, in UTC."""
    if name == "month":
        return _next_month(wall)
    length = {"minute": _MINUTE, "hour": _HOUR, "day": _DAY}[name]
    return length - wall % length


def _next_month(wall: float) -> float:
    """Seconds until the first of the next month (proleptic Gregorian, UTC; H. Hinnant's civil calendar)."""
    days = int(wall // _DAY)
    shifted = days + 719_468
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * of_year + 2) // 153
    next_start = (153 * (month_from_march + 1) + 2) // 5
    if month_from_march == 11:  # February ends with the shifted year
        leap = (year_of_era + 1) % 4 == 0 and ((year_of_era + 1) % 100 != 0 or (year_of_era + 1) % 400 == 0)
        next_start = 366 if leap else 365
    return (next_start - of_year) * _DAY - wall % _DAY

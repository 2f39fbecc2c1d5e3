"""Quotas: what a provider's account may be asked, in its own units, told by it or learned from it.

Always true: over any span of time no more is granted than rate x span + burst, and no more in a window
(minute, hour, day, month) than its allowance, except by one call that alone costs more than can be saved
up: it is granted when burst and allowance are whole.  Who was throttled is asked again after a time,
whatever it said.  Without a configured or learned limit a call costs a few comparisons and additions.
A 429 teaches the rate that was really accepted (not a guess), of which 95 % are asked for.  The learned
rate then recovers by 5 % a second while it is used up, twice as fast for each five seconds of that without
a further refusal (idle time proves nothing), and is forgotten when nothing was refused for long.
Throttling is not failure: it moves this budget and never a breaker.
Windows are the calendar's in UTC, as vendors bill.  The wall clock is read once, at the start: windows
are then kept by the monotonic clock, and a clock that is set later moves none.  What an account spent
before the start, or elsewhere, is not known here; its refusals and headers tell.
Does not belong here: a caller's own budget (budget), or what a header or a message means
(dialect/ratelimits).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.bounds import require_bounds, setting

RECOVERY = 0.05  # share of the learned rate that comes back each second in which it is used
DOUBLES_EVERY = 5.0  # seconds in use without a refusal after which it comes back twice as fast
RECOVERY_AT_MOST = 1.0
FORGET_AFTER = 300.0  # seconds without a refusal after which a learned rate is forgotten
LEAST_RATE = 1.0  # calls a second; a learned rate does not fall below
MEASURED_OVER = 5.0  # seconds over which the rate that is sent is measured
ONE_PIECE_OF_NEWS = 1.0  # seconds in which refusals belong together: their calls were out together
# Asking for all that was accepted, with a whole second saved up, is refused about twice as often and gets
# 1 to 3 % more of the rate (servers of four kinds, as in tests/policy/test_quota.py).
ASKED_FOR = 0.95  # share of the accepted rate
SAVED_UP = 0.5  # seconds of a learned rate that can be saved up
RETRY_AFTER_AT_MOST = 300.0  # seconds; a longer Retry-After is cut to this, then tried again
TOLD_AT_MOST = 86400.0  # seconds that a header alone can silence an account
UNKNOWN_FOR = 60.0  # seconds that a quota is taken for used up when nobody says how long
_SECOND, _MINUTE, _HOUR, _DAY = 1.0, 60.0, 3600.0, 86400.0
_LENGTHS = {"second": _SECOND, "minute": _MINUTE, "hour": _HOUR, "day": _DAY}
_LONGEST = 32 * _DAY  # beyond any month
_ROUNDING = 1e-9


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

    __slots__ = ("allowance", "ends_at", "name", "used")

    def __init__(self, name: str, allowance: float, ends_at: float) -> None:
        self.name = name
        self.allowance = allowance
        self.used = 0.0
        self.ends_at = ends_at


class ProviderBudget:
    """The live budget of one account.  `now` is monotonic seconds, `wall` seconds since 1970.

    Costs, rates and allowances are in requests, or in the vendor's units where the settings say so.
    """

    __slots__ = (
        "_at", "_burst", "_calls", "_compute", "_emptied_at", "_emptied_until", "_headers_hold", "_in_use",
        "_learned_at", "_limited", "_offset", "_rate", "_rate_before", "_refused", "_refused_at", "_sent", "_sent_at",
        "_settings", "_tokens", "_told_share", "_told_until", "_until", "_windows", "learned", "reserve",
    )  # fmt: skip

    def __init__(self, settings: QuotaSettings, now: float, wall: float) -> None:
        self._settings = settings
        self._compute = settings.compute
        self._offset = wall - now
        self.reserve = settings.reserve
        self.learned: float | None = None
        self._refused_at = self._learned_at = now
        self._rate = settings.rate
        self._burst = settings.burst or max(settings.rate, 1.0)
        self._tokens = self._burst
        self._at = now
        self._until = 0.0
        self._told_share, self._told_until = 1.0, 0.0
        self._headers_hold = True
        self._emptied_at = self._emptied_until = 0.0  # since when, and until when, headers say that nothing is left
        self._sent = 0.0
        self._calls = 0
        self._sent_at = now
        self._refused = 0
        self._rate_before = 0.0
        self._in_use = 0.0  # seconds since the last refusal in which a learned rate was used up
        wanted = (
            ("minute", settings.per_minute),
            ("hour", settings.per_hour),
            ("day", settings.per_day),
            ("month", settings.per_month),
        )
        self._windows = [_Window(name, most, now + self._until_next(name, now)) for name, most in wanted if most]
        self._limited = settings.rate > 0 or bool(self._windows)

    def take(self, cost: float, now: float) -> bool:
        """Take what a call costs (its units; a request counts 1), or nothing when there is not enough."""
        if not self._compute:
            cost = 1.0
        if now - self._sent_at > MEASURED_OVER:
            self._begin_measuring(now)
        if self._limited and not self._granted(cost, now):
            return False
        self._sent += cost
        self._calls += 1
        return True

    def charge(self, cost: float, now: float) -> None:
        """Count a call that is made in any case: a question of our own costs the account as much as a caller's."""
        if not self._compute:
            cost = 1.0
        self._sent += cost
        self._calls += 1
        if self._limited:
            self._refill(now)
            self._spend(cost)

    def returned(self, cost: float) -> None:
        """Nothing of a call that was paid for has left: it costs nothing."""
        if not self._compute:
            cost = 1.0
        self._sent = max(0.0, self._sent - cost)
        self._calls = max(0, self._calls - 1)
        if self._rate:
            self._tokens = min(self._burst, self._tokens + cost)
        for window in self._windows:
            window.used = max(0.0, window.used - cost)

    def used_up(self, now: float) -> bool:
        """An allowance is used up: nothing more is asked until its window ends, by ourselves neither."""
        if not self._windows:
            return False
        self._refill(now)
        return any(window.used >= window.allowance - _ROUNDING for window in self._windows)

    def available_after(self, cost: float, now: float) -> float:
        """Seconds until a call of this cost may be made, as far as is known; 0: now."""
        if not self._limited:
            return 0.0
        if not self._compute:
            cost = 1.0
        self._refill(now)
        wait = max(0.0, self._until - now)
        if self._rate and self._tokens + _ROUNDING < min(cost, self._burst):
            wait = max(wait, (min(cost, self._burst) - self._tokens) / self._rate)
        for window in self._windows:
            if window.used and window.used + cost > window.allowance + _ROUNDING:
                wait = max(wait, window.ends_at - now)
        return wait

    def throttled(self, now: float, retry_after: float | None = None) -> None:
        """It refused a call as too many: what it accepted lately is what it can take, for now.

        `retry_after` is what it asked for, in seconds; nothing is granted until then.
        """
        self._refused += 1
        self._in_use = 0.0
        already = self.learned is not None and now - self._learned_at < ONE_PIECE_OF_NEWS
        self._refused_at = now
        if retry_after is not None and retry_after > 0:
            self._silence(now + min(retry_after, RETRY_AFTER_AT_MOST))
        if already:
            return
        self._learned_at = now
        rate = max(LEAST_RATE, ASKED_FOR * self._accepted(now))
        self._learn(min(rate, self._settings.rate or rate), now)

    def told(
        self, limit: float | None, remaining: float | None, reset_after: float | None, now: float,
        period: str | None = None, *, answered_from: float | None = None,
    ) -> None:  # fmt: skip
        """Headers said what is left of a limit until its reset; where nothing is left, nothing is granted.

        `reset_after` is in seconds; without it the period's end counts (second, minute, hour, day, month).
        A header that says neither, or a time further away than a month, is passed over.
        `answered_from` is when the call was sent that they came with, if it was answered and not refused.
        Who answers a call that was sent after its limit was used up does not keep to it: its headers are
        passed over from then on.
        """
        if not self._headers_hold:
            return
        if answered_from is not None and self._emptied_at < answered_from and now < self._emptied_until:
            self._headers_hold = False
            if self._until == self._emptied_until:
                self._until = now
            self._told_until = now
            return
        if reset_after is None and period is not None:
            reset_after = self._until_next(period, now)
        if remaining is None or reset_after is None or not 0 < reset_after <= _LONGEST:
            return
        if remaining <= 0:
            self._emptied_at, self._emptied_until = now, now + min(reset_after, TOLD_AT_MOST)
            self._silence(self._emptied_until)
        elif limit:
            self._told_share, self._told_until = min(1.0, remaining / limit), now + reset_after

    def spent(self, now: float, seconds: float | None = None, period: str | None = None) -> None:
        """A quota is used up: nothing until its reset.

        `seconds` is what the vendor said; without it the period's end counts (day: the next midnight in
        UTC; month: the first of the next); without both, a minute.  `renewed` ends it early.
        """
        if seconds is None:
            seconds = self._until_next(period, now) if period is not None else UNKNOWN_FOR
        self._silence(now + min(max(seconds, 0.0), _LONGEST))

    def renewed(self, now: float) -> None:
        """A probe was answered: what the account said of the time until it may be asked again is over."""
        self._until = min(self._until, now)
        self._told_until = min(self._told_until, now)

    def inherit(self, before: ProviderBudget) -> None:
        """Take over what the same account has spent, and what it said: its settings have changed, not its bill."""
        if before._compute is not self._compute:
            return  # counted in other units
        spent = {window.name: window for window in before._windows}
        for window in self._windows:
            if window.name in spent:
                window.used, window.ends_at = spent[window.name].used, spent[window.name].ends_at
        if before._until > self._at:
            self._silence(before._until)

    def left(self, now: float) -> float:
        """The share of the tightest allowance that is left, 0 to 1."""
        share = self._told_share if now < self._told_until else 1.0
        if not self._limited:
            return share
        self._refill(now)
        if now < self._until:
            return 0.0
        for window in self._windows:
            share = min(share, 1.0 - window.used / window.allowance)
        if self._rate:
            share = min(share, self._tokens / self._burst)
        return max(0.0, share)

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

    # --- keeping ----------------------------------------------------------------------------------

    def _granted(self, cost: float, now: float) -> bool:
        """Taken, if `available_after` would be 0.  It says the same in fewer steps, for the hot path."""
        self._refill(now)
        if now < self._until:
            return False
        tokens, windows = self._tokens + _ROUNDING, self._windows
        if self._rate and tokens < cost and tokens < self._burst:
            return False
        for window in windows:
            if window.used and window.used + cost > window.allowance + _ROUNDING:
                return False
        self._spend(cost)
        return True

    def _spend(self, cost: float) -> None:
        if self._rate:
            self._tokens -= cost
        for window in self._windows:
            window.used += cost

    def _silence(self, until: float) -> None:
        """Grant nothing until then.  A word already in force is not shortened."""
        self._until = max(self._until, until)
        self._limited = True

    def _until_next(self, period: str, now: float) -> float:
        """Seconds until the next second, minute, hour, day or month begins, in UTC; a minute for other words."""
        wall = now + self._offset
        if period == "month":
            return _next_month(wall)
        length = _LENGTHS.get(period, UNKNOWN_FOR)
        return length - wall % length

    # --- learning ---------------------------------------------------------------------------------

    def _refill(self, now: float) -> None:
        rate = self._rate
        if rate and now > self._at:
            span = now - self._at
            if self.learned is not None:
                self._recover(span, now)
                rate = self._rate
            self._tokens = min(self._burst, self._tokens + span * rate)
            self._at = now
        windows = self._windows
        for window in windows:
            if now >= window.ends_at:
                window.ends_at = now + self._until_next(window.name, now)
                window.used = 0.0
        if not (windows or rate) and now >= self._until:
            self._limited = False

    def _recover(self, span: float, now: float) -> None:
        """A learned rate grows while it is used, and is forgotten when nothing was refused for long."""
        assert self.learned is not None
        configured = self._settings.rate
        if now - self._refused_at > FORGET_AFTER or (configured and self.learned >= configured):
            self.learned = None
            self._rate = configured
            self._burst = self._settings.burst or max(configured, 1.0)
            return
        missing = 0.5 * self._burst - self._tokens
        if missing > 0:  # it was being used up until so much had come back: see whether it can be more
            in_use = min(span, missing / self.learned, 1.0)
            self._in_use += in_use
            speed = min(RECOVERY_AT_MOST, RECOVERY * 2.0 ** min(self._in_use / DOUBLES_EVERY, 10.0))
            grown = self.learned * (1.0 + speed * in_use)
            self._learn(min(grown, configured) if configured else grown, now)

    def _learn(self, rate: float, now: float) -> None:
        self.learned = self._rate = rate
        saved_up = rate * SAVED_UP
        self._burst = max(1.0, min(self._settings.burst or saved_up, saved_up))
        self._tokens = min(self._tokens, self._burst)
        self._at = max(self._at, now)
        self._limited = True

    def _begin_measuring(self, now: float) -> None:
        span = now - self._sent_at
        self._rate_before = self._answered() / span if span < 2 * MEASURED_OVER else 0.0
        self._sent, self._calls, self._refused, self._sent_at = 0.0, 0, 0, now

    def _answered(self) -> float:
        """What was sent and not refused since the measurement began."""
        if not self._calls:
            return 0.0
        return self._sent * max(0.0, 1.0 - self._refused / self._calls)  # a refused call cost as much as the others

    def _accepted(self, now: float) -> float:
        """What was accepted a second, in the last few seconds."""
        span = now - self._sent_at
        rate = self._answered() / max(span, 1.0)  # in less, what was saved up would count as rate
        return max(rate, self._rate_before) if span < 1.0 else rate


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

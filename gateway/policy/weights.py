"""Weights: the rate limits of a venue, shared by everybody who asks it from one address.

Always true: in any interval as long as a limit's window, what was taken from it is at most its amount times
`share`, or one request that is more by itself and was alone; orders find their reserve whatever market data
take; what the venue
says it has counted is believed when it is more than ours, and never when it is less; nothing is taken before
a hold has ended.  Windows slide, although venues count in calendar minutes: their clock is not ours, and what
is sent at the end of one minute may arrive in the next.
Bans are for everybody behind an address (Binance: 418 for two minutes to three days), and a bot cannot know
what its neighbours ask for.
Does not belong here: whose turn it is when there is not enough (turns).
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.bounds import require_bounds, setting

BINS = 100  # a window is counted in so many pieces, each rounded to the safe side
PACED_FROM = 10.0  # seconds; market data are spread over windows at least as long
NEVER = float("inf")

Charges = Sequence[tuple[str, str, float]]
"""(limit, whose share of it, amount): everything that one request counts against."""


class Priority(enum.IntEnum):
    """Who goes first when there is not enough."""

    ORDER = 0
    ACCOUNT = 1
    MARKET = 2  # public data that several ask for
    LONE = 3  # public data that one asks for


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSettings:
    """How the callers of an exchange share its limits.  Raises ValueError out of bounds, or if market data get none."""

    share: float = setting(0.95, "how much of a venue's limit is used at most", unit="share", low=0.01, high=1)
    order_reserve: float = setting(0.1, "share of that which only orders may use", unit="share", low=0, high=0.9)
    account_reserve: float = setting(
        0.05, "share of that which market data leave to orders and account reads", unit="share", low=0, high=0.9
    )
    burst: float = setting(
        0.25, "share of their part that market data may use at once; the rest is spread", unit="share", low=0.01, high=1
    )
    slack: float = setting(
        1.0,
        "added to each window, at most a quarter of it: clocks differ, and requests travel",
        unit="s",
        low=0,
        high=60,
    )
    accounts: int = setting(10_000, "accounts and paths remembered for each limit", low=1, high=1_000_000)

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.order_reserve + self.account_reserve >= 1:
            raise ValueError("order_reserve and account_reserve leave nothing for market data")


@dataclass(frozen=True, slots=True)
class WeightLimit:
    """`amount` within `window` seconds.  `each`: one for all (empty), or one for each path or account."""

    name: str
    amount: float
    window: float
    each: str = ""


class _Window:
    """One limit's count for one key."""

    __slots__ = ("bins", "tokens", "tokens_at", "total")

    def __init__(self, tokens: float, now: float) -> None:
        self.bins: deque[list[float]] = deque()  # [end of the bin, amount]
        self.total = 0.0
        self.tokens = tokens
        self.tokens_at = now


class _Rule:
    """One limit, with what follows from the settings."""

    __slots__ = ("burst", "caps", "each", "limit", "paced", "rate", "step", "window", "windows")

    def __init__(self, limit: WeightLimit, settings: WeightSettings) -> None:
        most = limit.amount * settings.share
        self.limit = limit
        self.window = limit.window + min(settings.slack, limit.window / 4)
        self.step = self.window / BINS
        market = most * (1 - settings.order_reserve - settings.account_reserve)
        self.caps = (most, most * (1 - settings.order_reserve), market, market)
        self.paced = limit.window >= PACED_FROM
        self.rate = market / self.window
        self.burst = market * settings.burst
        self.windows: OrderedDict[str, _Window] = OrderedDict()


class WeightLimits:
    """The live counts of one venue for one source address; all of its hosts share them."""

    def __init__(self, limits: Sequence[WeightLimit], settings: WeightSettings) -> None:
        self.settings = settings
        self.held_until = 0.0
        self._rules = {limit.name: _Rule(limit, settings) for limit in limits}

    def take(self, charges: Charges, priority: Priority, now: float) -> bool:
        """Take all of it, or nothing."""
        if now < self.held_until:
            return False
        found = []
        for name, key, amount in charges:
            rule = self._rules.get(name)
            if rule is None:
                continue
            window = self._window(rule, key, now)
            if not self._room(rule, window, amount, priority, now):
                return False
            found.append((rule, window, amount))
        for rule, window, amount in found:
            self._add(rule, window, amount, now)
            if priority >= Priority.MARKET:
                window.tokens -= amount
        return True

    def free_at(self, charges: Charges, priority: Priority, now: float) -> float:
        """The instant from which `take` may succeed; inf: never, it is more than the limit allows."""
        at = max(now, self.held_until)
        for name, key, amount in charges:
            rule = self._rules.get(name)
            if rule is None:
                continue
            cap = rule.caps[priority]
            if amount > max(cap, rule.limit.amount):
                return NEVER
            window = self._window(rule, key, now)
            over = window.total + min(amount, cap) - cap
            for end, used in window.bins:
                if over <= 0:
                    break
                over -= used
                at = max(at, end + rule.window)
            if priority >= Priority.MARKET and rule.paced:
                missing = min(amount, rule.burst) - self._tokens(rule, window, now)
                if missing > 0:
                    at = max(at, now + missing / rule.rate)
        return at

    def spacing(self, charges: Charges) -> float:
        """Seconds between two such requests that by themselves would use up a limit; 0: none counts them."""
        rules = ((self._rules.get(name), amount) for name, _, amount in charges)
        return max(
            (rule.window * amount / rule.limit.amount for rule, amount in rules if rule is not None), default=0.0
        )

    def waits_alone(self, charges: Charges, priority: Priority, now: float) -> bool:
        """Only limits of its own path or account keep it: whoever asks for something else may go before it."""
        if now < self.held_until:
            return False
        return all(
            self._room(rule, self._window(rule, key, now), amount, priority, now)
            for name, key, amount in charges
            if (rule := self._rules.get(name)) is not None and not rule.limit.each
        )

    def told(self, name: str, key: str, used: float, now: float) -> None:
        """The venue says how much it has counted: others may ask from the same address."""
        rule = self._rules.get(name)
        if rule is None or not 0 <= used < 1e12:
            return
        window = self._window(rule, key, now)
        if used > window.total:
            self._add(rule, window, used - window.total, now)

    def returned(self, charges: Charges, now: float) -> None:
        """Nothing of it was sent after all."""
        for name, key, amount in charges:
            rule = self._rules.get(name)
            if rule is None:
                continue
            window = self._window(rule, key, now)
            for item in reversed(window.bins):
                if item[1] >= amount:
                    item[1] -= amount
                    window.total -= amount
                    break

    def take_over(self, before: WeightLimits) -> None:
        """Go on counting where other settings have left off: the venue goes on, too."""
        self.hold(before.held_until)
        for name, rule in self._rules.items():
            old = before._rules.get(name)
            if old is not None and old.limit.each == rule.limit.each:
                rule.windows = old.windows  # of both, while calls that the old one let through come back

    def hold(self, until: float) -> None:
        """Nobody before that instant; the longest one counts."""
        self.held_until = max(self.held_until, until)

    def snapshot(self, now: float) -> dict[str, object]:
        """For the status page: how much of each limit that is one for all is used."""
        return {
            "held_for": round(max(0.0, self.held_until - now), 3),
            "limits": {
                name: {
                    "used": round(self._window(rule, "", now).total, 3),
                    "amount": rule.limit.amount,
                    "window": rule.limit.window,
                }
                for name, rule in self._rules.items()
                if not rule.limit.each
            },
        }

    def _window(self, rule: _Rule, key: str, now: float) -> _Window:
        window = rule.windows.get(key)
        if window is None:
            if len(rule.windows) >= self.settings.accounts:
                rule.windows.popitem(last=False)
            window = rule.windows[key] = _Window(rule.burst, now)
            return window
        bins = window.bins
        gone = now - rule.window
        while bins and bins[0][0] <= gone:
            window.total -= bins.popleft()[1]
        if not bins:
            window.total = 0.0  # rounding does not add up over years
        if len(rule.windows) > 1:
            rule.windows.move_to_end(key)
        return window

    def _room(self, rule: _Rule, window: _Window, amount: float, priority: Priority, now: float) -> bool:
        if window.total + amount > rule.caps[priority] and (window.total > 1e-9 or amount > rule.limit.amount):
            return False
        return priority < Priority.MARKET or not rule.paced or amount <= self._tokens(rule, window, now)

    @staticmethod
    def _add(rule: _Rule, window: _Window, amount: float, now: float) -> None:
        bins = window.bins
        if bins and now <= bins[-1][0]:
            bins[-1][1] += amount
        else:
            bins.append([now + rule.step, amount])
        window.total += amount

    @staticmethod
    def _tokens(rule: _Rule, window: _Window, now: float) -> float:
        window.tokens = min(rule.burst, window.tokens + (now - window.tokens_at) * rule.rate)
        window.tokens_at = now
        return window.tokens + 1e-9 if window.tokens < rule.burst else NEVER

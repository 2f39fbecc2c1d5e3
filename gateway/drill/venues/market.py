"""A simulated market: books that move by a seed and the clock, the same for everybody who looks.

Always true: the book at an update number is one, whoever asks and whenever; numbers rise by one with every change;
it is never crossed.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

STEP = 0.1  # seconds between two rounds of changes
LEVELS = 40
KEPT = 50_000  # changes that can be looked back at
TICK_SIZE = 0.5


@dataclass(frozen=True, slots=True)
class Change:
    """One change: from now on there is `quantity` at `price`.  0: nothing."""

    number: int
    side: str  # bids or asks
    price: float
    quantity: float
    at: float


@dataclass
class Book:
    """The state after change `number`."""

    number: int
    bids: dict[float, float] = field(default_factory=dict)
    asks: dict[float, float] = field(default_factory=dict)

    def apply(self, change: Change) -> None:
        side = self.bids if change.side == "bids" else self.asks
        if change.quantity:
            side[change.price] = change.quantity
        else:
            side.pop(change.price, None)
        self.number = change.number

    def top(self, depth: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Best bids and asks."""
        return sorted(self.bids.items(), reverse=True)[:depth], sorted(self.asks.items())[:depth]


class Market:
    """One symbol's book."""

    def __init__(self, symbol: str, price: float, seed: int, now: float) -> None:
        self.symbol = symbol
        self.changes: deque[Change] = deque(maxlen=KEPT)
        self.trades: deque[tuple[int, float, float, str, float]] = deque(maxlen=1000)  # id, price, amount, side, at
        self._chance = random.Random(f"{symbol}{seed}")  # noqa: S311 - a pretended market
        self._at = now
        self.frozen = False
        self.book = Book(1000)
        for i in range(1, LEVELS + 1):
            self.book.bids[price - i * TICK_SIZE] = round(self._chance.uniform(0.1, 5), 4)
            self.book.asks[price + i * TICK_SIZE] = round(self._chance.uniform(0.1, 5), 4)
        self._trade(now)

    def advance(self, now: float) -> list[Change]:
        """Let the market move up to `now`; what changed."""
        made: list[Change] = []
        if now - self._at > 3600:
            self._at = now - 1.0
        while self._at + STEP <= now and not self.frozen:
            self._at += STEP
            made.extend(self._change() for _ in range(self._chance.randint(1, 3)))
            if self._chance.random() < 0.3:
                self._trade(self._at)
        return made

    def last(self) -> float:
        """The price of the last trade."""
        return self.trades[-1][1]

    def _change(self) -> Change:
        side = self._chance.choice(("bids", "asks"))
        levels = self.book.bids if side == "bids" else self.book.asks
        price = self._chance.choice(sorted(levels))
        quantity = 0.0 if self._chance.random() < 0.1 and len(levels) > 10 else round(self._chance.uniform(0.1, 5), 4)
        if len(levels) < LEVELS and self._chance.random() < 0.5:
            best = min(levels) if side == "bids" else max(levels)
            price, quantity = best + (-TICK_SIZE if side == "bids" else TICK_SIZE), 1.0
        change = Change(self.book.number + 1, side, price, quantity, self._at)
        self.book.apply(change)
        self.changes.append(change)
        return change

    def _trade(self, at: float) -> None:
        side = self._chance.choice(("buy", "sell"))
        price = min(self.book.asks) if side == "buy" else max(self.book.bids)
        number = self.trades[-1][0] + 1 if self.trades else 1
        self.trades.append((number, price, round(self._chance.uniform(0.01, 1), 4), side, at))


class Markets:
    """All symbols of a venue."""

    def __init__(self, symbols: dict[str, float], now: float, seed: int = 7) -> None:
        self.all = {symbol: Market(symbol, price, seed, now) for symbol, price in symbols.items()}

    def advance(self, now: float) -> None:
        for market in self.all.values():
            market.advance(now)

    def get(self, symbol: str) -> Market | None:
        return self.all.get(symbol)

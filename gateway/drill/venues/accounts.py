"""The record of a simulated exchange: every order it executed, counted by itself.

Always true: `executed` counts each time that an order took effect, whatever rule the venue has against duplicates,
and whatever was answered; a cancelled order stays on record.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

CANCELED = "canceled"
OPEN = "open"


@dataclass(slots=True)
class Order:
    """One order."""

    id: int
    client_id: str
    symbol: str
    side: str
    kind: str
    price: str
    amount: str
    at: float
    state: str = OPEN


class Accounts:
    """Orders by account and client order id."""

    def __init__(self) -> None:
        self.executed: Counter[tuple[str, str]] = Counter()
        self.orders: dict[tuple[str, str], Order] = {}
        self.by_number: dict[tuple[str, int], Order] = {}
        self._number = 5000

    def place(
        self, account: str, client_id: str, symbol: str, side: str, kind: str, price: str, amount: str, now: float
    ) -> Order | None:
        """Execute it; None: an order of that client id is open, and nothing was executed."""
        known = self.orders.get((account, client_id)) if client_id else None
        if known is not None and known.state == OPEN:
            return None
        self._number += 1
        client_id = client_id or f"own-{self._number}"
        order = Order(self._number, client_id, symbol, side, kind, price, amount, now)
        self.executed[account, client_id] += 1
        self.orders[account, client_id] = order
        self.by_number[account, order.id] = order
        return order

    def find(self, account: str, client_id: str = "", number: str = "") -> Order | None:
        if client_id:
            return self.orders.get((account, client_id))
        return self.by_number.get((account, int(number))) if number.isdigit() else None

    def cancel(self, account: str, client_id: str = "", number: str = "") -> Order | None:
        """Cancel an open order; None: there is none."""
        order = self.find(account, client_id, number)
        if order is None or order.state != OPEN:
            return None
        order.state = CANCELED
        return order

    def open_orders(self, account: str, symbol: str = "") -> list[Order]:
        return [
            order
            for (owner, _), order in self.orders.items()
            if owner == account and order.state == OPEN and symbol in ("", order.symbol)
        ]

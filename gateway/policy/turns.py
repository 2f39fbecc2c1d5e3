"""Turns: who is next among those who wait for a venue's limits.

Always true: the more important goes first; among equals, callers take turns whatever each of them asks for, and
one caller's requests keep their order; the number of those who wait is bounded, for all and for each caller,
and who is pushed out is the newest of the busiest caller of the least important; everybody who joined leaves
exactly once.
Does not belong here: what there is to wait for (weights), and telling those who wait (upstream/venues/gate).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Collection
from typing import Generic, TypeVar

T = TypeVar("T")


class _Waiting(Generic[T]):
    """One who waits."""

    __slots__ = ("caller", "give_up_at", "gone", "priority", "ticket")

    def __init__(self, ticket: T, caller: str, priority: int, give_up_at: float) -> None:
        self.ticket = ticket
        self.caller = caller
        self.priority = priority
        self.give_up_at = give_up_at
        self.gone = False


class Turns(Generic[T]):
    """The queue.  Tickets are told apart by identity."""

    def __init__(self, most: int, most_per_caller: int) -> None:
        self._most = most
        self._most_per_caller = most_per_caller
        self._rows: dict[int, OrderedDict[str, deque[_Waiting[T]]]] = {}  # priority -> callers, who is next first
        self._known: dict[int, _Waiting[T]] = {}
        self._of_caller: dict[str, int] = {}
        self._ends: list[tuple[float, int, _Waiting[T]]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._known)

    def join(self, ticket: T, caller: str, priority: int, give_up_at: float) -> T | None:
        """Wait until `give_up_at`.  Returns whom it pushed out, which may be itself; None: nobody."""
        item = _Waiting(ticket, caller, priority, give_up_at)
        if self._of_caller.get(caller, 0) >= self._most_per_caller:
            return ticket
        self._known[id(ticket)] = item
        self._of_caller[caller] = self._of_caller.get(caller, 0) + 1
        self._rows.setdefault(priority, OrderedDict()).setdefault(caller, deque()).append(item)
        self._number += 1
        heapq.heappush(self._ends, (give_up_at, self._number, item))
        if len(self._known) <= self._most:
            return None
        rows = self._rows[max(priority for priority, callers in self._rows.items() if callers)]
        victim = max(rows.values(), key=len)[-1]
        self.leave(victim.ticket)
        return victim.ticket

    def leave(self, ticket: T) -> None:
        """It does not wait any more; who has left already may leave again."""
        item = self._known.pop(id(ticket), None)
        if item is None:
            return
        item.gone = True
        callers = self._rows[item.priority]
        row = callers[item.caller]
        row.remove(item)
        if not row:
            del callers[item.caller]
        self._of_caller[item.caller] -= 1
        if not self._of_caller[item.caller]:
            del self._of_caller[item.caller]

    def expired(self, now: float) -> list[T]:
        """Those whose time is over; they have left."""
        found = []
        while self._ends and (self._ends[0][2].gone or self._ends[0][0] <= now):
            item = heapq.heappop(self._ends)[2]
            if not item.gone:
                self.leave(item.ticket)
                found.append(item.ticket)
        return found

    def first(self, passed: Collection[T] = ()) -> T | None:
        """Who is next; None: nobody waits.  `passed` let other callers go before them."""
        for priority in sorted(self._rows):
            for row in self._rows[priority].values():
                if not passed or row[0].ticket not in passed:
                    return row[0].ticket
        return None

    def serve(self, ticket: T) -> None:
        """It has its turn and leaves, and its caller goes behind the others.  Raises KeyError: it does not wait."""
        item = self._known[id(ticket)]
        callers = self._rows[item.priority]
        self.leave(ticket)
        if item.caller in callers:
            callers.move_to_end(item.caller)

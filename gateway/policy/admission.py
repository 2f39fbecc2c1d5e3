"""Admission: who waits while every healthy endpoint is busy, who is served next, and who has to give way.

Always true: a ticket ends exactly once (served, shed, expired, or it left); nobody is served after its
time; a transaction that was let in is never shed; the queue never holds more than `queue` tickets; when
it is full, the least important give way, and among them the caller with the most waiting.
Order of importance: heavy reads go first, then reads of anonymous callers, of known callers, nonces and
prices, other calls; transactions never.  Audits and hedges do not queue at all.
Inside a class callers take turns (those without a key by their address), so one that floods waits behind
the others; of one caller's reads the newest is served first, because under overload the oldest are those
whose callers have given up or are about to (adaptive LIFO, Facebook 2015); transactions go in the order in
which they came.
Does not belong here: slots (fleet), and how waiting is done (upstream/calls/waiting).
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.bounds import require_bounds, setting
from gateway.model import Family, RequestClass

HEAVY, ANONYMOUS, KNOWN, HIGHEST, OTHER, NEVER_SHED = range(6)
ADDRESS = "@"  # no key's name begins so
RETRY_AT_LEAST, RETRY_AT_MOST = 1.0, 30.0  # seconds
MEASURED_OVER = 2.0  # seconds over which the rate of service is measured

_RANKS = {
    RequestClass.HEAVY_READ: HEAVY,
    RequestClass.PINNED_READ: KNOWN,
    RequestClass.HEAD_READ: KNOWN,
    RequestClass.HIGHEST_READ: HIGHEST,
    RequestClass.BROADCAST: NEVER_SHED,
    RequestClass.PRIVATE_BROADCAST: NEVER_SHED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionSettings:
    """How many calls wait for a free endpoint, and for how long."""

    queue: int = setting(1000, "calls of a route that may wait while all its endpoints are busy", low=0, high=100_000)
    wait_at_most: float = setting(
        1.0,
        "longest time that a call waits; what is served later is seldom wanted; transactions wait until their deadline",
        unit="s",
        low=0.01,
        high=60,
    )

    def __post_init__(self) -> None:
        require_bounds(self)

    def until(self, request_class: RequestClass, now: float, deadline_at: float) -> float:
        """The instant until which a call waits.  One that is never sent away has all the time that it was given."""
        if _RANKS.get(request_class, OTHER) == NEVER_SHED:
            return deadline_at
        return min(deadline_at, now + self.wait_at_most)


def rank_of(request_class: RequestClass, caller: str) -> int:
    """How important a call is, HEAVY to NEVER_SHED.

    `caller` is the name of a key; of anonymous ones, `ADDRESS` and where they come from, or nothing.
    """
    rank = _RANKS.get(request_class, OTHER)
    return ANONYMOUS if rank == KNOWN and caller[:1] in ("", ADDRESS) else rank


@dataclass(slots=True, eq=False)
class Ticket:
    """One waiting call.  `until` is an instant; `token` is the owner's."""

    caller: str
    request_class: RequestClass
    family: Family
    until: float
    token: Any
    rank: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        self.rank = rank_of(self.request_class, self.caller)


@dataclass(frozen=True, slots=True)
class Joined:
    """The call waits.  `victim` had to give way to it."""

    victim: Ticket | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """There is no room, and nobody less important."""


@dataclass(slots=True)
class _Line:
    """The tickets of one caller in one class, oldest first; those that have ended are taken out in passing."""

    tickets: deque[Ticket] = field(default_factory=deque)
    waiting: int = 0

    def trim(self) -> None:
        tickets = self.tickets
        while tickets and tickets[0].ended:
            tickets.popleft()
        while tickets and tickets[-1].ended:
            tickets.pop()
        if len(tickets) > 2 * self.waiting + 16:
            self.tickets = deque(ticket for ticket in tickets if not ticket.ended)


class WaitingRoom:
    """The queue of one route.  `now` is monotonic seconds."""

    __slots__ = ("_count", "_deadlines", "_lines", "_numbers", "_rate", "_served", "_served_since", "_settings")

    def __init__(self, settings: AdmissionSettings, now: float) -> None:
        self._settings = settings
        self._lines: list[dict[str, _Line]] = [{} for _ in range(NEVER_SHED + 1)]
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._numbers = itertools.count()
        self._count = 0
        self._rate = 0.0
        self._served = 0
        self._served_since = now

    def __len__(self) -> int:
        return self._count

    def join(self, ticket: Ticket) -> Joined | Refused:
        """Let a call wait, if need be in somebody's place."""
        victim = None
        if self._count >= self._settings.queue:
            victim = self._victim_for(ticket)
            if victim is None:
                return Refused()
            self._end(victim)
        line = self._lines[ticket.rank].setdefault(ticket.caller, _Line())
        line.tickets.append(ticket)
        line.waiting += 1
        self._count += 1
        heapq.heappush(self._deadlines, (ticket.until, next(self._numbers), ticket))
        return Joined(victim)

    def next(self, now: float, fits: Callable[[Ticket], bool]) -> Ticket | None:
        """Who gets what has become free: the first in order for whom `fits`; its ticket has ended."""
        for rank in range(NEVER_SHED, -1, -1):
            lines = self._lines[rank]
            for caller in list(lines):
                line = lines[caller]
                ticket = self._candidate(line, rank, now)
                if ticket is None or not fits(ticket):
                    continue
                self._end(ticket)
                if caller in lines:
                    lines[caller] = lines.pop(caller)  # to the end of the round
                self._note_service(now)
                return ticket
        return None

    def leave(self, ticket: Ticket) -> None:
        """The caller has gone, or was served otherwise."""
        if not ticket.ended:
            self._end(ticket)

    def expired(self, now: float) -> list[Ticket]:
        """Those whose time is over; they have ended."""
        over = []
        while self._deadlines and (self._deadlines[0][0] <= now or self._deadlines[0][2].ended):
            _, _, ticket = heapq.heappop(self._deadlines)
            if not ticket.ended:
                self._end(ticket)
                over.append(ticket)
        return over

    def retry_after(self, now: float, chance: float) -> float:
        """Seconds after which somebody who was sent away should come back: when those who wait are served.

        Spread by `chance` in [0, 1), so that they do not all come back at once.
        """
        self._measure(now)
        wait = self._count / self._rate if self._rate > 0 else RETRY_AT_LEAST
        return min(RETRY_AT_MOST, max(RETRY_AT_LEAST, wait)) * (1.0 + 2.0 * chance)

    # --- inside -----------------------------------------------------------------------------------

    def _candidate(self, line: _Line, rank: int, now: float) -> Ticket | None:
        """The next of one caller: the newest read, the oldest transaction."""
        line.trim()
        tickets = line.tickets
        order = iter(tickets) if rank == NEVER_SHED else reversed(tickets)
        for ticket in order:
            if not ticket.ended and now < ticket.until:
                return ticket
        return None

    def _victim_for(self, newcomer: Ticket) -> Ticket | None:
        """The oldest ticket of the caller with the most waiting, in the least important class that has any."""
        for rank in range(min(newcomer.rank, NEVER_SHED - 1) + 1):
            lines = self._lines[rank]
            if not lines:
                continue
            caller = max(lines, key=lambda name: lines[name].waiting)
            own = lines.get(newcomer.caller)
            same = rank == newcomer.rank
            if same and own is not None and lines[caller].waiting <= own.waiting and caller != newcomer.caller:
                caller = newcomer.caller
            line = lines[caller]
            line.trim()
            return next((ticket for ticket in line.tickets if not ticket.ended), None)
        return None

    def _end(self, ticket: Ticket) -> None:
        ticket.ended = True
        self._count -= 1
        lines = self._lines[ticket.rank]
        line = lines[ticket.caller]
        line.waiting -= 1
        if line.waiting == 0:
            del lines[ticket.caller]
        else:
            line.trim()
        if len(self._deadlines) > 2 * self._count + 64:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].ended]
            heapq.heapify(self._deadlines)

    def _note_service(self, now: float) -> None:
        self._served += 1
        self._measure(now)

    def _measure(self, now: float) -> None:
        span = now - self._served_since
        if span >= MEASURED_OVER:
            self._rate = self._served / span
            self._served, self._served_since = 0, now

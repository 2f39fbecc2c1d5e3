"""Waiting: calls for which every healthy endpoint is busy, until one has a slot or their time is over.

Always true: who waits is served as soon as a slot is free, the most important first and fair between
callers; a call ends here in a permit or in `Shed`, and in both cases leaves nothing behind; a
transaction that was let in is never sent away again.
Does not belong here: who goes first and who gives way (policy/admission).
"""

from __future__ import annotations

import asyncio
from random import Random

from gateway.clock import Clock
from gateway.model import Call, Family
from gateway.policy.admission import Refused, Ticket, WaitingRoom
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.fleet.permits import Permit
from gateway.upstream.fleet.pool import Pool


class Shed(Exception):
    """The call had to give way.  `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the call had to give way")
        self.retry_after = retry_after


class _Place:
    """One call's place: what its ticket carries."""

    __slots__ = ("call", "future")

    def __init__(self, call: Call, future: asyncio.Future[Permit]) -> None:
        self.call = call
        self.future = future


class Waiting:
    """The queue of one route."""

    def __init__(self, pool: Pool, clock: Clock, chance: Random, stats: RouteStats) -> None:
        self._pool = pool
        self._clock = clock
        self._chance = chance
        self._stats = stats
        self._room = WaitingRoom(pool.settings.admission, clock())
        self._serving = False
        pool.on_free = self.serve

    def __len__(self) -> int:
        return len(self._room)

    async def permit(self, call: Call, caller: str, deadline_at: float) -> Permit:
        """Wait for a permit.  Raises Shed."""
        now = self._clock()
        future: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        until = self._pool.settings.admission.until(call.request_class, now, deadline_at)
        ticket = Ticket(caller, call.request_class, call.method.family, until, _Place(call, future))
        joined = self._room.join(ticket)
        if isinstance(joined, Refused):
            raise self._shed(now)
        if joined.victim is not None:
            self._send_away(joined.victim)
        self._count()
        self.serve()  # who waits for a budget keeps nobody from what is free
        timer = asyncio.get_running_loop().call_later(max(0.0, until - now), self._expire)
        try:
            return await future
        except asyncio.CancelledError:
            self._room.leave(ticket)
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().unused()
            raise
        finally:
            timer.cancel()
            self._count()

    def serve(self) -> None:
        """A slot is free (or a budget has tokens again): give it to who is next, as often as it goes."""
        if self._serving:
            return
        self._serving = True
        try:
            while len(self._room) and self._pool.any_slot():
                now = self._clock()
                granted: list[Permit] = []
                full: set[Family] = set()  # asked once: what one call finds no room for, the next does not either

                def fits(
                    ticket: Ticket, now: float = now, granted: list[Permit] = granted, full: set[Family] = full
                ) -> bool:
                    if ticket.family in full:
                        return False
                    permit = self._pool.next(ticket.token.call, (), False, now)
                    if permit is None:
                        full.add(ticket.family)
                        return False
                    granted.append(permit)
                    return True

                ticket = self._room.next(now, fits)
                if ticket is None:
                    break
                place = ticket.token
                assert isinstance(place, _Place)
                if place.future.done():
                    granted[0].unused()
                else:
                    place.future.set_result(granted[0])
        finally:
            self._serving = False
            self._count()

    def _expire(self) -> None:
        for ticket in self._room.expired(self._clock()):
            self._send_away(ticket)
        self._count()

    def _send_away(self, ticket: Ticket) -> None:
        place = ticket.token
        assert isinstance(place, _Place)
        if not place.future.done():
            place.future.set_exception(self._shed(self._clock()))

    def _shed(self, now: float) -> Shed:
        self._stats.shed += 1
        return Shed(self._room.retry_after(now, self._chance.random()))

    def _count(self) -> None:
        self._pool.waiting = len(self._room)

"""The gate of a venue: calls wait here until the venue's rate limits allow them, and in their order.

Always true: what goes through has been charged to every limit it counts against; while the venue has told
us to wait, nobody goes through; who could not get its turn before its time is over is told at once, and
nothing of it was sent; orders go before account reads, and these before market data; nobody waits who
could go.
A venue bans the address of all bots when one of them ignores its limits.
Does not belong here: how limits are counted and who is next (policy/weights, policy/turns).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gateway.clock import Clock
from gateway.policy.turns import Turns
from gateway.policy.weights import Priority, WeightLimits

Charges = Sequence[tuple[str, str, float]]
NEVER = float("inf")
LEAST_LEFT = 0.05  # seconds; a turn that comes later before the end could only time out
MAX_IN_ROW = 1000  # calls of one key that wait for those before them
MAX_HELD = 10_000  # accounts and paths that are remembered to have been told to wait


class Limited(Exception):
    """No turn in time.  `retry_after` is in seconds; nothing was sent."""

    def __init__(self, retry_after: float, banned: bool = False) -> None:
        super().__init__("no turn in time")
        self.retry_after = retry_after
        self.banned = banned


class _Place:
    """One call that waits."""

    __slots__ = ("charges", "future", "priority", "scopes")

    def __init__(
        self, charges: Charges, scopes: Sequence[str], priority: Priority, future: asyncio.Future[None]
    ) -> None:
        self.charges = charges
        self.scopes = scopes
        self.priority = priority
        self.future = future


class Gate:
    """The rate limits of one venue and who waits for them.  One per route."""

    def __init__(self, limits: WeightLimits, turns: Turns[_Place], clock: Clock) -> None:
        self.limits = limits
        self.banned_until = 0.0
        self.waited = 0
        self.refused = 0
        self.throttled = 0  # times that the venue said "too many"
        self._turns = turns
        self._clock = clock
        self._held: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._turns)

    def open(self, charges: Charges, scopes: Sequence[str], priority: Priority) -> bool:
        """Go through at once, if nobody is before it and the limits allow."""
        now = self._clock()
        if self._turns:
            first = self._turns.first()
            if first is not None and first.priority <= priority:
                return False
        if self._held and self._held_until(scopes) > now:
            return False
        return self.limits.take(charges, priority, now)

    async def enter(
        self, charges: Charges, scopes: Sequence[str], priority: Priority, caller: str, give_up_at: float
    ) -> None:
        """Wait for one's turn, until `give_up_at` (an instant).  Raises Limited."""
        now = self._clock()
        give_up_at -= LEAST_LEFT
        earliest = max(self.limits.free_at(charges, priority, now), self._held_until(scopes))
        if earliest > give_up_at:
            raise self._limited(earliest - now)
        place = _Place(charges, scopes, priority, asyncio.get_running_loop().create_future())
        pushed = self._turns.join(place, caller, priority, give_up_at)
        if pushed is not None and not pushed.future.done():
            pushed.future.set_exception(self._limited(max(1.0, earliest - now)))
        self.waited += 1
        self._serve()
        try:
            await place.future
        except asyncio.CancelledError:
            self._turns.leave(place)
            if place.future.done() and not place.future.cancelled() and place.future.exception() is None:
                self.returned(charges)
            raise

    def returned(self, charges: Charges) -> None:
        """Nothing was sent after all."""
        self.limits.returned(charges, self._clock())
        if self._turns:
            self._serve()

    def hold(self, seconds: float, scope: str = "", banned: bool = False) -> None:
        """The venue told us to wait: everybody, or one account or path."""
        now = self._clock()
        until = now + seconds
        self.throttled += 1
        if banned:
            self.banned_until = max(self.banned_until, until)
        if not scope:
            self.limits.hold(until)
        else:
            if len(self._held) >= MAX_HELD:
                self._held = {name: at for name, at in self._held.items() if at > now}
                while len(self._held) >= MAX_HELD:
                    self._held.pop(next(iter(self._held)))
            self._held[scope] = max(until, self._held.get(scope, 0.0))
        if self._turns:
            self._serve()

    def told(self, charges: Charges, used: Sequence[tuple[str, float]]) -> None:
        """Headers told how much of its limits is used."""
        for limit, amount in used:
            for name, key, _ in charges:
                if name == limit:
                    self.limits.told(limit, key, amount, self._clock())

    def take_over(self, before: Gate) -> None:
        """Keep what the venue told and what has been counted, under new settings: a ban outlives a reload."""
        self.limits.take_over(before.limits)
        self.banned_until = max(self.banned_until, before.banned_until)
        self._held = {**before._held, **self._held}

    def close(self) -> None:
        """Who waits yet is told so: nobody else would call them."""
        if self._timer is not None:
            self._timer.cancel()
        while (place := self._turns.first()) is not None:
            self._turns.leave(place)
            if not place.future.done():
                place.future.set_exception(self._limited(1.0))

    def _held_until(self, scopes: Sequence[str]) -> float:
        return max((self._held.get(scope, 0.0) for scope in scopes), default=0.0)

    def _serve(self) -> None:
        """Let through whose turn it is, and look again when the next one's comes."""
        now = self._clock()
        turns, limits = self._turns, self.limits
        for place in turns.expired(now):
            if not place.future.done():
                place.future.set_exception(self._limited(limits.free_at(place.charges, place.priority, now) - now))
        wake_at = NEVER
        passed: set[_Place] = set()  # they wait for limits of their own, which nobody behind them needs
        wanted: set[tuple[str, str]] = set()  # what they wait for; who needs the same waits behind them
        while (following := turns.first(passed)) is not None:
            place = following
            held_until = self._held_until(place.scopes)
            behind = not wanted.isdisjoint((name, key) for name, key, _ in place.charges if key)
            if held_until <= now and not behind and limits.take(place.charges, place.priority, now):
                turns.serve(place)
                if place.future.done():
                    limits.returned(place.charges, now)
                else:
                    place.future.set_result(None)
                continue
            if not behind:
                wake_at = min(wake_at, max(held_until, limits.free_at(place.charges, place.priority, now)))
            if held_until <= now and not limits.waits_alone(place.charges, place.priority, now):
                break
            passed.add(place)
            wanted.update((name, key) for name, key, _ in place.charges if key)
        self._wake(min(wake_at, now + 0.25) if turns else NEVER, now)

    def _wake(self, at: float, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at != NEVER:
            self._timer = asyncio.get_running_loop().call_later(max(0.001, at - now), self._serve)

    def _limited(self, wait: float) -> Limited:
        self.refused += 1
        return Limited(min(max(wait, 0.1), 86_400.0), self.banned_until > self._clock())


class Rows:
    """Calls whose order must be kept: one at a time for each key, first come first served."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, key: str, deadline_at: float) -> AsyncIterator[None]:
        """Wait until those before it have ended.  Raises Limited when that is not in time."""
        row = self._rows.setdefault(key, deque())
        if len(row) >= MAX_IN_ROW:
            raise Limited(1.0)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        row.append(mine)
        try:
            if row[0] is not mine:
                await asyncio.wait({mine}, timeout=max(0.0, deadline_at - self._clock()))
                if not mine.done():
                    raise Limited(1.0)
            yield
        finally:
            first = row[0] is mine
            row.remove(mine)
            if not row:
                self._rows.pop(key, None)
            elif first and not row[0].done():
                row[0].set_result(None)

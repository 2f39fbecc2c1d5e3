"""Hedging: a second leg for a read that takes longer than such reads usually take.

Always true: at most one second leg per call, at an endpoint that shares no failure domain with the
first; the leg that answers usably first is delivered, and an empty answer is not usable while the
other leg is under way; the leg that is not needed is given up and counts for nobody.
A call that is answered in time costs one closure here.
Does not belong here: when to hedge and what may be (policy/hedging).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.errors import Cancelled
from gateway.model import AttemptKind, AttemptRecord, Call, Elsewhere, Sent
from gateway.upstream.calls.answers import Attempt
from gateway.upstream.calls.attempts import Attempts, Heads
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.permits import Permit


class Hedge:
    """The second leg of one call, if it comes to that.  Its `start` is the first leg's notice."""

    __slots__ = ("_attempts", "_call", "_deadline_at", "_first", "_heads", "_route", "_task")

    def __init__(
        self, attempts: Attempts, route: Route, call: Call, first: Permit, deadline_at: float, heads: Heads | None
    ) -> None:
        self._attempts = attempts
        self._route = route
        self._call = call
        self._first = first
        self._deadline_at = deadline_at
        self._heads = heads
        self._task: asyncio.Task[Attempt] | None = None

    @property
    def started(self) -> bool:
        return self._task is not None

    def start(self, supersede: Callable[[Any], None]) -> None:
        """The first leg is late: launch the second, unless the budget or the endpoints do not allow it.

        `supersede` ends the wait for the first with the second's `Attempt`.
        """
        route, now = self._route, self._attempts.clock()
        pool = route.pool
        if not pool.hedge_budget.take(1.0, now):
            route.stats.hedges_refused += 1
            return
        permit = pool.next(self._call, (self._first.state.position,), False, now, apart=True)
        if permit is None:
            pool.hedge_budget.earn(1.0)
            return
        route.stats.hedges += 1
        self._task = asyncio.ensure_future(
            self._attempts.send(
                route, self._call, permit, self._deadline_at, self._heads, AttemptKind.HEDGE, again=False
            )
        )

        def ended(task: asyncio.Task[Attempt]) -> None:
            if not task.cancelled() and task.exception() is None and _usable(task.result()):
                supersede(task.result())

        self._task.add_done_callback(ended)

    def lost(self) -> AttemptRecord:
        """The second leg answered first.  The first counts for nobody, but is known to have been slow."""
        now = self._attempts.clock()
        first = self._first
        self._route.stats.hedges_won += 1
        first.cell.load.observe(max(now - first.started_at, first.cell.load.estimate), now)
        first.cell.suspect = True
        first.release()
        return AttemptRecord(
            first.state.endpoint.id,
            AttemptKind.PRIMARY,
            Cancelled.reason,
            Sent.SENT,
            first.started_at,
            now,
            "slow",
        )

    async def result(self) -> Attempt | None:
        """The second leg's end, waited for; None when there was none."""
        return await self._task if self._task is not None else None

    def drop(self) -> None:
        """It is not needed any more."""
        task = self._task
        if task is None:
            return
        if not task.done():
            task.cancel()
        elif not task.cancelled() and task.exception() is None:
            task.result().permit.release()
            task.result().close()


def _usable(attempt: Attempt) -> bool:
    """It would be delivered as it is, at once."""
    return attempt.ended.kind is not None and attempt.ended.kind.elsewhere is Elsewhere.NO

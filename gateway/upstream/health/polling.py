"""Polling: every endpoint is asked for its newest block, at the pace of the chain.

Always true: at most one poll per endpoint is out, and at most one per block comes after a poll that was
answered; a drained, wrong, excluded or held endpoint is not polled; a route that nobody uses is polled
more slowly, and a standby that nobody needs not at all; a failed poll counts like any call.
Blocks come with their hash, so that an endpoint on another branch is seen; where a node does not give
blocks, its bare number is taken.  What else is asked now and then: the newest finalized block, the
first block's hash, the node's software.
Does not belong here: what a head means (policy/heads), probes of breakers (probes).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from gateway.clock import Clock
from gateway.dialect.software import software
from gateway.errands import end
from gateway.model import AttemptKind, Call, Family, HeadReport
from gateway.policy.breaker import BreakerState
from gateway.upstream.calls.attempts import Attempts
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.endpoints import EndpointState

LOOK_EVERY = 0.05  # seconds between two looks at who is due
IDLE_AFTER = 60.0  # seconds without a call after which a route counts as idle
IDLE_EVERY = 15.0  # the slowest pace of polls that an idle route falls back to
SUSPECTED_EVERY = 1.0  # while nobody who was asked answers (policy/connectivity)
FINAL_EVERY = 60.0  # the newest finalized block moves once in minutes on most chains
PATIENCE = 2.0  # seconds, or the attempt timeout if that is shorter
BARE_FOR = 600.0  # seconds for which a node that does not give blocks is asked for the number alone


class _Pace:
    """When one endpoint is due for what."""

    __slots__ = ("asked_at", "bare_until", "final_at", "introduced", "out")

    def __init__(self) -> None:
        self.asked_at = 0.0
        self.final_at = 0.0
        self.bare_until = 0.0
        self.introduced = False  # its software and first block were asked for
        self.out = False


class Poller:
    """Polls the heads of all routes in one task.  `routes` is asked anew each round (reloads)."""

    def __init__(self, routes: Callable[[], Iterable[Route]], clock: Clock) -> None:
        self._routes = routes
        self._clock = clock
        self._attempts = Attempts(clock)
        self._paces: dict[int, _Pace] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Poll for ever; ends by cancellation, leaving no task behind."""
        try:
            while True:
                self._round(self._clock())
                await asyncio.sleep(LOOK_EVERY)
        finally:
            await end(self._tasks)

    async def ask_all(self, time_limit: float) -> None:
        """Ask every endpoint once, all at the same time; returns within `time_limit` seconds."""
        now = self._clock()
        for route in self._routes():
            for state in route.pool.states:
                if _may_be_asked(state, now):
                    self._start(self._pace(state), self._poll(route, state))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=time_limit)

    def _round(self, now: float) -> None:
        live = set()
        for route in self._routes():
            pool = route.pool
            pool.expire(now)
            for state in pool.states:
                live.add(id(state))
                pace = self._pace(state)
                if not pace.out and self._is_due(route, state, pace, now) and _may_be_asked(state, now):
                    self._start(pace, self._poll(route, state))
        for key in [key for key in self._paces if key not in live]:
            del self._paces[key]

    def _pace(self, state: EndpointState) -> _Pace:
        return self._paces.setdefault(id(state), _Pace())

    @staticmethod
    def _is_due(route: Route, state: EndpointState, pace: _Pace, now: float) -> bool:
        if route.pool.connectivity.suspected and now - pace.asked_at >= SUSPECTED_EVERY:
            return True
        if now - route.last_call_at > IDLE_AFTER and now - pace.asked_at < IDLE_EVERY:
            return False
        return route.pool.blocks.book.next_poll_after(state.position, now) <= 0

    def _start(self, pace: _Pace, work: Awaitable[None]) -> None:
        pace.out = True
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            pace.out = False
            self._tasks.discard(done)

        task.add_done_callback(ended)

    # --- the questions ----------------------------------------------------------------------------

    async def _poll(self, route: Route, state: EndpointState) -> None:
        pace, now = self._pace(state), self._clock()
        pace.asked_at = now
        route.pool.blocks.book.asked(state.position, now)
        report = None
        if now >= pace.bare_until:
            report = await self._report(route, state, route.dialect.poll_call)
            if report is None and route.dialect.poll_call != route.dialect.head_call:
                pace.bare_until = self._clock() + BARE_FOR
        if report is None:
            result = await self._ask(route, state, route.dialect.head_call)
            number = route.dialect.parse_head(result) if result is not None else None
            report = HeadReport(number) if number is not None else None
        if report is None:
            return
        route.pool.note_head(state.position, report, self._clock())
        if not pace.introduced:
            pace.introduced = True
            await self._introduce(route, state)
        if now >= pace.final_at:
            pace.final_at = now + FINAL_EVERY
            await self._ask_for_the_final(route, state)

    async def _ask_for_the_final(self, route: Route, state: EndpointState) -> None:
        final, safe = route.dialect.final_call, route.dialect.safe_call
        told = await self._report(route, state, final) if final is not None else None
        if told is not None:
            route.pool.note_final(state.position, told, self._clock())
        told = await self._report(route, state, safe) if safe is not None else None
        if told is not None:
            route.pool.note_safe(state.position, told, self._clock())

    async def _introduce(self, route: Route, state: EndpointState) -> None:
        """Who are you, and where does your chain begin?"""
        genesis = route.dialect.genesis_call
        first = await self._report(route, state, genesis) if genesis is not None else None
        if first is not None and first.hash:
            route.pool.note_genesis(state.position, first.hash)
        version = route.dialect.version_call
        result = await self._ask(route, state, version) if version is not None else None
        named = software(route.dialect.parse_version(result)) if result is not None else None
        if named is not None:
            state.software = "/".join(named)
            if route.place is not None:
                route.place(state.position)

    async def _report(self, route: Route, state: EndpointState, ask: tuple[str, bytes]) -> HeadReport | None:
        result = await self._ask(route, state, ask)
        return route.dialect.parse_poll(result) if result is not None else None

    async def _ask(self, route: Route, state: EndpointState, ask: tuple[str, bytes]) -> bytes | None:
        """One question, counted like any attempt; its raw result, or None."""
        method, params = ask
        call: Call = route.dialect.call(method, params, b"0")
        permit = route.pool.ask(state.position, call.method.family, self._clock(), call.method.cost)
        until = self._clock() + min(PATIENCE, route.transport.attempt_timeout)
        attempt = await self._attempts.send(route, call, permit, until, None, AttemptKind.PROBE, again=True)
        self._attempts.settle(route, call, [attempt])
        attempt.close()
        reading = attempt.reading
        return bytes(reading.result) if reading is not None and reading.result is not None else None


def _may_be_asked(state: EndpointState, now: float) -> bool:
    """Nothing speaks against a question now, and the answer could matter."""
    head = state.cells[Family.HEAD.slot]
    return (
        state.drained_at is None
        and state.verified
        and state.chain_ok
        and not state.exclusion_reason
        and now >= state.hold.until
        and state.awake
        and not state.budget.used_up(now)
        and (head is None or head.breaker.state is BreakerState.CLOSED)
    )

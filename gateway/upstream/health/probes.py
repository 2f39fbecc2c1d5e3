"""Probes: the calls nobody asked for, that end every exclusion.

Always true: a failed probe is information, never an error; at most one probe per endpoint is out; a
breaker is probed with a cheap call of its own family, because a passing eth_chainId says nothing of
eth_getLogs; an endpoint whose chain is not the route's is never used, and is asked again in case it
is put right, hourly, and whenever its connections were lost (names get re-wired); the pace does not
rise when everything is broken; a standby is asked nothing while others serve.
Heads are polled elsewhere (polling).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterable

from gateway.clock import Clock
from gateway.dialect.jsonrpc import encode_request
from gateway.errands import end, within
from gateway.errors import AttemptError
from gateway.model import Call, Family, HeadReport, Outcome, Reading, ReplyKind
from gateway.policy.breaker import BreakerState
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.endpoints import EndpointState
from gateway.upstream.fleet.permits import Permit
from gateway.upstream.wire.reading import read_response

LOOK_EVERY = 0.1  # seconds between two looks at who is due
UNVERIFIED_EVERY = 1.0  # an endpoint not reached since the start
NEED_EVERY = 0.5  # breakers are probed at this pace while a route has nothing healthy, whatever their time out
WRONG_CHAIN_EVERY = 60.0
VERIFY_EVERY = 3600.0  # the chain is asked again hourly: endpoints get re-wired behind one name
SUSPECT_EVERY = 0.5  # after a failure that no further call has confirmed or cleared
SLEEP_AFTER = 30.0  # seconds for which others must serve before a standby is left alone again
PROBE_TIMEOUT = 2.0  # or the attempt timeout of calls, if that is shorter: a probe must not be more patient
DISAGREEMENT_NEEDS = 2  # endpoints that must agree before a detected chain outvotes another


class Prober:
    """Runs the probes of all routes in one task.  `routes` is asked anew each round (reloads)."""

    def __init__(self, routes: Callable[[], Iterable[Route]], clock: Clock) -> None:
        self._routes = routes
        self._clock = clock
        self._wire_ids = itertools.count(1 << 40)
        self._due: dict[int, float] = {}  # id of an endpoint's state -> when it may be probed again
        self._out: dict[int, asyncio.Task[None]] = {}
        self._reaped_at = 0.0

    async def verify_all(self, time_limit: float) -> None:
        """Ask every endpoint for its chain once, all at the same time; returns within `time_limit` seconds."""
        unverified = ((route, state) for route in self._routes() for state in route.pool.states if not state.verified)
        await within(time_limit, [self._verify(route, state) for route, state in unverified])

    async def run(self) -> None:
        """Probe for ever; ends by cancellation, leaving no task behind."""
        try:
            while True:
                self._round(self._clock())
                await asyncio.sleep(LOOK_EVERY)
        finally:
            await end(self._out.values())

    def _round(self, now: float) -> None:
        live: set[int] = set()
        for route in self._routes():
            self._rouse(route, now)
            if route.waiting is not None and route.pool.waiting:
                route.waiting.serve()  # a budget may have tokens again
            for state in route.pool.states:
                key = id(state)
                live.add(key)
                if key in self._out or now < self._due.get(key, 0.0):
                    continue
                self._start_due(route, state, now)
            if now - self._reaped_at >= 1.0:
                for engine in route.engines:
                    engine.reap()
        if now - self._reaped_at >= 1.0:
            self._reaped_at = now
        for key in [key for key in self._due if key not in live]:
            del self._due[key]

    @staticmethod
    def _rouse(route: Route, now: float) -> None:
        """Wake a route's standby endpoints when nobody else is left, and let them sleep when others serve."""
        pool = route.pool
        if all(state.endpoint.standby is False for state in pool.states):
            return
        front = pool.ranking(Family.HEAD, now, True).front
        needed = all(pool.endpoints[position].standby for position in front)
        for state in pool.states:
            if state.endpoint.standby and needed:
                state.awake, state.needed_at = True, now
            elif state.endpoint.standby and now - state.needed_at > SLEEP_AFTER:
                state.awake = False

    def _start_due(self, route: Route, state: EndpointState, now: float) -> None:
        """Start what this endpoint needs most, if it is due."""
        if not state.verified:
            self._start(state, now + UNVERIFIED_EVERY, self._verify(route, state))
        elif not state.chain_ok:
            self._start(state, now + WRONG_CHAIN_EVERY, self._verify(route, state))
        elif state.exclusion_reason:
            if now >= state.exclusion.until:
                self._start(state, now + UNVERIFIED_EVERY, self._readmit(route, state))
        elif now >= state.hold.until:
            family = self._broken_family(route, state, now)
            suspect = self._suspect_family(state)
            if family is not None:
                self._start(state, now + NEED_EVERY, self._probe(route, state, family))
            elif state.lost_at >= 0 and state.awake:
                self._start(state, now + SUSPECT_EVERY, self._verify(route, state))
            elif suspect is not None:
                self._start(state, now + SUSPECT_EVERY, self._ask_once(route, state, suspect))
            elif state.awake and now - state.verified_at > VERIFY_EVERY:
                self._start(state, now + UNVERIFIED_EVERY, self._verify(route, state))

    @staticmethod
    def _broken_family(route: Route, state: EndpointState, now: float) -> Family | None:
        """The family whose breaker may be probed now."""
        for cell in state.cells:
            if cell is None or cell.breaker.state is BreakerState.CLOSED:
                continue
            if cell.breaker.would_admit(now) or route.pool.ranking(cell.family, now).panic:
                return cell.family
        return None

    @staticmethod
    def _suspect_family(state: EndpointState) -> Family | None:
        """The family whose last call failed: was that chance, or is it dead?"""
        for cell in state.cells:
            if cell is None or cell.breaker.state is not BreakerState.CLOSED:
                continue
            if cell.breaker.failures_in_a_row or cell.suspect:
                return cell.family
        return None

    def _start(self, state: EndpointState, due_at: float, work: object) -> None:
        key = id(state)
        self._due[key] = due_at
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._out[key] = task
        task.add_done_callback(lambda _: self._out.pop(key, None))

    # --- the probes -------------------------------------------------------------------------------

    async def _probe(self, route: Route, state: EndpointState, family: Family) -> None:
        """A half-open breaker's probe; the good ones in a row follow each other at once."""
        breaker = state.cell(family).breaker
        while True:
            now = self._clock()
            if breaker.state is BreakerState.OPEN and now < breaker.open_until:
                breaker.open_until = now  # the route has nothing better: do not wait for the time out
            permit = route.pool.probe(state.position, family, now)
            if permit is None:
                return
            method, params = route.dialect.probe_call(family)
            kind, _ = await self._ask(route, state, permit, route.dialect.call(method, params, b"0"))
            if kind is not ReplyKind.ANSWER or breaker.state is not BreakerState.HALF_OPEN:
                break
        if breaker.state is BreakerState.CLOSED:
            await self._verify(route, state)  # it was away: whatever came back must be the same chain

    async def _ask_once(self, route: Route, state: EndpointState, family: Family) -> None:
        permit = route.pool.ask(state.position, family, self._clock())
        permit.cell.suspect = False
        method, params = route.dialect.probe_call(family)
        await self._ask(route, state, permit, route.dialect.call(method, params, b"0"))

    async def _readmit(self, route: Route, state: EndpointState) -> None:
        """Has a refused key, a used-up quota or a 404 been put right?"""
        kind = await self._chain_id(route, state)
        if kind is ReplyKind.ANSWER:
            route.pool.back(state.position, self._clock())
        else:
            route.pool.still_out(state.position, self._clock())

    async def _verify(self, route: Route, state: EndpointState) -> None:
        kind = await self._chain_id(route, state)
        if kind is not None and kind is not ReplyKind.ANSWER and kind.counts is Outcome.IGNORED:
            self._judge(route, state, None)  # it cannot or will not say: taken at its word
        elif kind is ReplyKind.UNCLASSIFIED:
            self._judge(route, state, None)

    async def _ask_for_the_first_block(self, route: Route, state: EndpointState) -> None:
        """A name that was re-wired may lead to another network with the same id, and be put right again."""
        assert route.dialect.genesis_call is not None
        method, params = route.dialect.genesis_call
        call = route.dialect.call(method, params, b"0")
        permit = route.pool.ask(state.position, call.method.family, self._clock())
        kind, result = await self._ask(route, state, permit, call)
        first = route.dialect.parse_poll(result) if kind is ReplyKind.ANSWER and result is not None else None
        if first is not None and first.hash:
            route.pool.note_genesis(state.position, first.hash)

    async def _chain_id(self, route: Route, state: EndpointState) -> ReplyKind | None:
        """Ask for the chain id (or the head, where chains have none) and judge the answer."""
        ask = route.dialect.chain_id_call
        method, params = ask if ask is not None else route.dialect.head_call
        call = route.dialect.call(method, params, b"0")
        permit = route.pool.ask(state.position, Family.HEAD, self._clock())
        kind, result = await self._ask(route, state, permit, call)
        if kind is ReplyKind.ANSWER and result is not None:
            if state.verified and route.dialect.genesis_call is not None:
                await self._ask_for_the_first_block(route, state)
            self._judge(route, state, route.dialect.parse_chain_id(result) if ask is not None else None)
        return kind

    def _judge(self, route: Route, state: EndpointState, chain_id: int | None) -> None:
        now = self._clock()
        state.verified_at = now
        expected = route.chain_id
        if expected is None and chain_id is not None:
            expected = _majority(route, state.position, chain_id)
        same = chain_id is None or expected is None or chain_id == expected
        route.pool.note_chain(state.position, chain_id, same and route.pool.same_genesis(state.position))
        if route.chain_id is None and chain_id is not None:
            _judge_the_others(route, expected)

    def _note_head(self, route: Route, state: EndpointState, call: Call, reading: Reading) -> None:
        """One that was away is where it says now, not where it was: known before its breaker lets calls through."""
        if reading.kind is not ReplyKind.ANSWER or reading.result is None or not (state.verified and state.chain_ok):
            return
        asked, dialect = (call.method.name, call.params), route.dialect
        report = dialect.parse_poll(bytes(reading.result)) if asked == dialect.poll_call else None
        if asked == dialect.head_call and report is None:
            number = dialect.parse_head(bytes(reading.result))
            report = HeadReport(number) if number is not None else None
        if report is not None:
            route.pool.note_head(state.position, report, self._clock())

    async def _ask(
        self, route: Route, state: EndpointState, permit: Permit, call: Call
    ) -> tuple[ReplyKind | None, bytes | None]:
        """One probe call, counted like any attempt.  None: no readable answer came."""
        wire_id = next(self._wire_ids)
        with permit:
            try:
                response = await route.engines[state.position].send(
                    encode_request(call.method.wire, call.params, wire_id),
                    self._clock() + min(PROBE_TIMEOUT, route.transport.attempt_timeout),
                )
                if response.stream is not None:
                    response.stream.close()
                    return None, None
            except AttemptError as error:
                permit.failed(error, self._clock())
                return None, None
            reading = read_response(route.dialect, call.method, response, response.body, wire_id)
            self._note_head(route, state, call, reading)
            permit.settle(reading.kind.counts, reading.kind.value, self._clock(), reading)
            return reading.kind, bytes(reading.result) if reading.result is not None else None


def _majority(route: Route, position: int, newest: int) -> int:
    """The chain most endpoints of an undeclared route say they are on; the first listed wins a tie."""
    said = [newest if state.position == position else state.chain_id for state in route.pool.states]
    known = [chain_id for chain_id in said if chain_id is not None]
    best, count = Counter(known).most_common(1)[0]
    return best if count >= DISAGREEMENT_NEEDS else known[0]


def _judge_the_others(route: Route, expected: int | None) -> None:
    """A new vote may turn the majority: measure everyone by it."""
    for state in route.pool.states:
        if state.verified and state.chain_id is not None:
            same = state.chain_id == expected and route.pool.same_genesis(state.position)
            route.pool.note_chain(state.position, state.chain_id, same)

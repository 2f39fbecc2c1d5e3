"""Probes of venues: pings, clocks, and whether public data move.

Always true: a probe is paid for from the venue's limits like any request, and none is sent while the venue asked
for peace; at most one is under way for each host; a broken host is asked again until it answers; a host
whose public data stand still while another's, or those of other exchanges, move gets market reads only as a last
resort, and is named.
Data that stand still answer 200 in good time: what plain health checks never see, and what bots trade on.
Does not belong here: what follows from a verdict (fleet), and the venue's places and numbers (its file).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable

from gateway.clock import Clock, wall_seconds
from gateway.dialect.venue import Pulse, Word
from gateway.dialect.venue_answers import server_time, text_at
from gateway.errands import end, within
from gateway.errors import AttemptError
from gateway.model import Family, Outcome, Reading, ReplyKind
from gateway.policy.breaker import BreakerState
from gateway.policy.weights import Priority
from gateway.upstream.fleet.endpoints import EndpointState
from gateway.upstream.fleet.permits import ANSWERED, Permit
from gateway.upstream.venues.route import VenueRoute
from gateway.upstream.wire.engine import Reply
from gateway.upstream.wire.transport import ConnectionPool

LOOK_EVERY = 0.1  # seconds between two looks at who is due
NEED_EVERY = 0.5  # a broken host is asked at this pace
MOST_TAKEN = 0.25  # share of a limit that asking a broken host takes: its callers come back all at once
PROBE_TIMEOUT = 3.0
IDLE_AFTER = 600.0  # seconds without a call after which a venue is asked less often
IDLE_FACTOR = 6.0
VENUES_MOVE = 2  # other exchanges that move while one stands still as a whole
HEAD = b"Accept: application/json\r\nUser-Agent: seawall\r\n"


def _ping_target(route: VenueRoute) -> str | None:
    health = route.venue.health
    return health.clock.target if health.clock is not None else health.ping


class VenueProber:
    """Runs the probes of all venues in one task.  `routes` is asked anew each round (reloads)."""

    def __init__(self, routes: Callable[[], Iterable[VenueRoute]], clock: Clock) -> None:
        self._routes = routes
        self._clock = clock
        self._due: dict[tuple[int, str], float] = {}
        self._out: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._swept_at = 0.0

    async def ask_all(self, time_limit: float) -> None:
        """Ask every host once, all at the same time; returns within `time_limit` seconds."""
        unverified = ((route, state) for route in self._routes() for state in route.pool.states if not state.verified)
        await within(time_limit, [self._ping(route, state) for route, state in unverified])

    async def run(self) -> None:
        """Probe for ever; ends by cancellation, leaving no task behind."""
        try:
            while True:
                self._round(self._clock())
                await asyncio.sleep(LOOK_EVERY)
        finally:
            await end(self._out.values())

    def _round(self, now: float) -> None:
        sweep = now - self._swept_at >= 1.0
        live: set[int] = set()
        for route in self._routes():
            live.add(id(route))
            health = route.venue.health
            lazy = IDLE_FACTOR if now - route.last_call_at > IDLE_AFTER else 1.0
            for state in route.pool.states:
                live.add(id(state))
                needed = (
                    state.down
                    or state.exclusion_reason
                    or not state.verified
                    or route.pool.connectivity.suspected  # those whom nobody asks may know better (policy/connectivity)
                )
                every = self._pace(route) if needed else route.settings.probe_every * lazy
                self._start((id(state), "ping"), now, every, functools.partial(self._ping, route, state))
                if health.pulse is not None and not state.down:
                    every = route.settings.pulse_every * lazy
                    self._start((id(state), "pulse"), now, every, functools.partial(self._feel, route, state))
            if health.status is not None:
                every = health.status.every * lazy
                self._start((id(route), "status"), now, every, functools.partial(self._status, route))
            if sweep:
                route.shelf.expire()
                for engine in route.engines:
                    engine.reap()
        if sweep:
            self._swept_at = now
            for key in [key for key in self._due if key[0] not in live]:
                del self._due[key]

    @staticmethod
    def _pace(route: VenueRoute) -> float:
        """How often a broken host is asked, in seconds."""
        target = _ping_target(route)
        if target is None:
            return NEED_EVERY
        call = route.requests.call(b"GET", target.encode(), (), b"")
        return max(NEED_EVERY, route.gate.limits.spacing(route.requests.charges(call)) / MOST_TAKEN)

    def _start(self, key: tuple[int, str], now: float, every: float, work: Callable[[], object]) -> None:
        due = self._due.get(key)
        if key in self._out or (due is not None and now < due and now + every >= due):
            return
        self._due[key] = now + every
        task = asyncio.ensure_future(work())  # type: ignore[call-overload]
        self._out[key] = task
        task.add_done_callback(lambda _: self._out.pop(key, None))

    # --- the probes -------------------------------------------------------------------------------

    async def _ping(self, route: VenueRoute, state: EndpointState) -> None:
        """Is it there, and what does its clock say?  A broken family's breaker is probed with it, too."""
        now = self._clock()
        if now < state.exclusion.until:
            return
        health = route.venue.health
        target = _ping_target(route)
        broken = next((c for c in state.cells if c is not None and c.breaker.state is not BreakerState.CLOSED), None)
        if broken is not None:
            breaker = broken.breaker
            if breaker.state is BreakerState.OPEN and now < breaker.open_until:
                if not route.pool.ranking(broken.family, now).panic:
                    return
                breaker.open_until = now  # nobody else is there: do not wait for the time out
            permit = route.pool.probe(state.position, broken.family, now)
            if permit is None:
                return
        else:
            permit = route.pool.ask(state.position, Family.MARKET, now)
        if target is None:
            await self._knock(route, state, permit)
            return
        reply = await self._ask(route, state, permit, target)
        if reply is None or reply.status != 200:
            if state.exclusion_reason:
                route.pool.still_out(state.position, self._clock())
            return
        route.pool.back(state.position, self._clock())
        if health.clock is not None:
            told = server_time(reply.body, health.clock.at, health.clock.unit)
            if told is not None:
                travelled = 0.5 * (self._clock() - now)
                route.facts[state.position].skew = told - (wall_seconds() - travelled)

    async def _knock(self, route: VenueRoute, state: EndpointState, permit: Permit) -> None:
        """Does it take connections?  All that can be asked where every call needs a key."""
        engine = route.engines[state.position]
        with permit:
            try:
                if isinstance(engine, ConnectionPool):
                    engine.give_back(await engine.connect(self._clock() + PROBE_TIMEOUT))
            except AttemptError as error:
                permit.settle(error.counts, error.reason, self._clock())
                return
            permit.settle(Outcome.SUCCESS, ANSWERED, self._clock())
        route.pool.note_reached(state.position)
        route.pool.back(state.position, self._clock())

    async def _feel(self, route: VenueRoute, state: EndpointState) -> None:
        """Do its public data move?"""
        pulse = route.venue.health.pulse
        assert pulse is not None
        serves = state.endpoint.serves
        if serves is not None and Family.MARKET not in serves:
            return
        permit = route.pool.ask(state.position, Family.MARKET, self._clock())
        reply = await self._ask(route, state, permit, pulse.target)
        if reply is None or reply.status != 200:
            return
        value = server_time(reply.body, pulse.at, pulse.unit)
        if value is not None:
            self._judge(route, state.position, value, pulse)

    def _judge(self, route: VenueRoute, position: int, value: float, pulse: Pulse) -> None:
        """Compare with what it told before, and with what others tell."""
        now = self._clock()
        facts = route.facts[position]
        still, whose = False, ""
        if facts.pulse is None or value != facts.pulse:  # less, too: exchanges begin their numbers anew
            facts.pulse, facts.moved_at = value, now
        elif now - facts.moved_at > pulse.still_after:
            others = [other for other in route.facts if other is not facts and other.pulse is not None]
            if any(other.moved_at > facts.moved_at and (other.pulse or 0.0) > value for other in others):
                still, whose = True, "those of others"
            else:
                moving = self._moving_since(facts.moved_at, route)
                still, whose = len(moving) >= VENUES_MOVE, f"those of {', '.join(sorted(moving)[:4])}"
        if still != facts.still:
            facts.still = still
            words = f"its public data have not moved for {now - facts.moved_at:.0f} s, {whose} have"
            route.pool.note_still(position, still, words if still else "they move again")

    def _moving_since(self, instant: float, but: VenueRoute) -> set[str]:
        """The other exchanges whose public data have moved since an instant."""
        return {
            route.title
            for route in self._routes()
            if route.venue.name != but.venue.name and any(facts.moved_at > instant for facts in route.facts)
        }

    async def _status(self, route: VenueRoute) -> None:
        """What the venue says of itself."""
        status = route.venue.health.status
        assert status is not None
        permit = route.pool.first(route.requests.call(b"GET", status.target.encode(), (), b""), self._clock())
        if permit is None:
            return
        reply = await self._ask(route, permit.state, permit, status.target)
        if reply is None or reply.status != 200:
            return
        said = text_at(reply.body, status.at)
        route.maintenance = "" if not said or said in status.well else said[:80]

    async def _ask(self, route: VenueRoute, state: EndpointState, permit: Permit, target: str) -> Reply | None:
        """One request, paid for and counted like any."""
        call = route.requests.call(b"GET", target.encode(), (), b"")
        charges = route.requests.charges(call)
        with permit:
            if not route.gate.open(charges, (call.method.name, ""), Priority.ORDER):
                return None
            body = route.venue.health.body.encode()
            head = HEAD + (b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) if body else b"")
            until = self._clock() + min(PROBE_TIMEOUT, route.transport.attempt_timeout)
            verb = b"POST" if body else b"GET"
            try:
                reply = await route.engines[state.position].forward(verb, target.encode(), head, body, until)
            except AttemptError as error:
                permit.settle(error.counts, error.reason, self._clock())
                return None
            if reply.stream is not None:
                reply.stream.close()
            route.pool.note_reached(state.position)
            reading = route.answers.read(reply.status, reply.headers, reply.body, False, wall_seconds())
            if reading.used:
                route.gate.told(charges, reading.used)
            if reading.hold_for and not reading.hold_each:
                route.gate.hold(reading.hold_for, "", reading.banned)
            if reading.word is Word.ANSWER:
                permit.settle(Outcome.SUCCESS, ANSWERED, self._clock())
            else:
                effect = Reading(reading.kind) if reading.kind is ReplyKind.GONE else None
                permit.settle(reading.kind.counts, reading.kind.value, self._clock(), effect)
            return reply

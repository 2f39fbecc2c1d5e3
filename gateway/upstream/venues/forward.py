"""Forwarding: one request to an exchange, to its one answer.

Always true: a write is handed to one host once, from its first byte on; the venue's own answer goes back as
it came; whoever asks is told whether a write was done, was not sent, or may have been done, and then how
to find out; nothing is sent while the venue asked for peace, and nothing signed after its time; calls of a key
whose numbers must rise leave in the order in which they came.
The happy path is short on purpose, as in dispatch: charge, choose, send, read, settle, answer.
Does not belong here: whether another host follows (policy/plan), what an answer means (dialect).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.clock import Clock, wall_seconds
from gateway.dialect.venue import Use, Word
from gateway.dialect.venue_answers import GOOD, VenueReading
from gateway.dialect.venue_requests import VenueCall
from gateway.errors import (
    AttemptError,
    AttemptsFailed,
    DeadlinePassed,
    GatewayError,
    NoEndpoint,
    OutcomeUnknown,
    VenueLimited,
)
from gateway.model import Outcome, Reading, ReplyKind, RequestClass, Sent
from gateway.policy.plan import CallerGone, Command, Deliver, Ended, Fail, Launch, NothingLeft, Plan
from gateway.policy.weights import Priority
from gateway.upstream.fleet.permits import Permit
from gateway.upstream.venues.forwarded import Forwarded, collected, size_of
from gateway.upstream.venues.gate import Limited
from gateway.upstream.venues.route import VenueRoute
from gateway.upstream.venues.tries import Try, answer_of, close_all, left, refusals, refused
from gateway.upstream.wire.decoding import BodyDecoder, DecodingError
from gateway.upstream.wire.engine import Reply

MOST_INSPECTED = 1_000_000  # bytes of a compressed answer that are unpacked to be read
MORE = 0.05  # seconds of time that are worth asking again for
SIGNATURE_MARGIN = 0.5  # seconds before a signature's end in which nothing is sent any more: it has to travel
_PRIORITIES = {
    Use.ORDER: Priority.ORDER,
    Use.CANCEL: Priority.ORDER,
    Use.WALLET: Priority.ACCOUNT,
    Use.SESSION: Priority.ACCOUNT,
    Use.ACCOUNT: Priority.ACCOUNT,
    Use.MARKET: Priority.LONE,
    Use.INFO: Priority.LONE,
}
Gone = Callable[[], bool]


class Forwarder:
    """Forwards requests of any venue.  One per gateway."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def handle(
        self, route: VenueRoute, call: VenueCall, head: bytes, deadline_at: float, caller: str, gone: Gone
    ) -> Forwarded:
        """One request, to its end.  Never raises but for cancellation.

        `head` are the caller's header lines as they go out, `caller` who asks (for fairness), `deadline_at` an
        instant of the clock.
        """
        pool = route.pool
        pool.retry_budget.earned += pool.settings.retry.budget_share
        route.last_call_at = self._clock()
        key = route.requests.share_key(call) if route.settings.share else None
        if key is not None:
            return await self._shared(route, call, head, deadline_at, caller, key)
        account = route.requests.ordered_by(call)
        if account:
            try:
                until = min(deadline_at, self._expires(route, call, self._clock()))
                async with route.rows.turn(account, until):
                    if gone():
                        return left(call)
                    return await self._once(route, call, head, deadline_at, caller, gone)
            except Limited as limited:
                return refused(call, "the calls of this key that came before are not answered yet", limited.retry_after)
        return await self._once(route, call, head, deadline_at, caller, gone)

    async def _shared(
        self,
        route: VenueRoute,
        call: VenueCall,
        head: bytes,
        deadline_at: float,
        caller: str,
        key: tuple[object, ...],
    ) -> Forwarded:
        """A public read: what is fresh, or under way, serves all who ask, and goes on when who began it leaves."""

        async def fetch() -> Forwarded:
            answer = await self._once(route, call, head, deadline_at, caller, _stays)
            answer.until = deadline_at
            return await collected(answer)

        assert call.listed is not None
        while True:
            try:
                answer, how = await route.shelf.get(key, call.listed.rest.fresh_for, deadline_at, fetch, size_of)
            except TimeoutError:
                error = DeadlinePassed("the deadline passed; the same was being asked already")
                return Forwarded(attempts=0, error=error)
            impatient = isinstance(answer.error, (DeadlinePassed, VenueLimited)) and answer.until < deadline_at - MORE
            if how != "joined" or not impatient:
                break  # who has more time than the one that asked asks again
        if how == "miss":
            answer.shared = how
            return answer
        headers = [item for item in answer.headers if item[0].lower() != b"set-cookie"]
        return Forwarded(
            answer.status,
            headers,
            answer.body,
            None,
            answer.endpoint,
            0,
            answer.error,
            shared=how,
            word=answer.word,
        )

    async def _once(
        self, route: VenueRoute, call: VenueCall, head: bytes, deadline_at: float, caller: str, gone: Gone
    ) -> Forwarded:
        charges = route.requests.charges(call)
        limited = await self._admitted(route, call, charges, deadline_at, caller, gone)
        if limited is not None:
            return limited
        permit = route.pool.first(call, self._clock())
        if permit is None:
            route.gate.returned(charges)
            return await self._by_plan(route, call, head, deadline_at, caller, gone, None)
        first = await self._try(route, call, head, permit, deadline_at, charges, "primary")
        if first.reading.word is Word.ANSWER and first.reply is not None:
            return answer_of(route, call, [first], first)
        return await self._by_plan(route, call, head, deadline_at, caller, gone, first)

    async def _admitted(
        self,
        route: VenueRoute,
        call: VenueCall,
        charges: list[tuple[str, str, float]],
        deadline_at: float,
        caller: str,
        gone: Gone,
    ) -> Forwarded | None:
        """Wait for the venue's limits; a refusal if there is no turn in time, or nobody is there any more."""
        gate = route.gate
        use = call.use
        priority = _PRIORITIES[use] if use is not None else Priority.ACCOUNT
        if priority is Priority.LONE and route.shelf.popular(route.requests.share_key(call)):
            priority = Priority.MARKET
        scopes = call.scopes
        if gate.open(charges, scopes, priority):
            return None
        now = self._clock()
        expires = self._expires(route, call, now)
        try:
            await gate.enter(charges, scopes, priority, caller, min(deadline_at, expires))
        except Limited as limited:
            what = "has told this address to stop" if limited.banned else "allows no more requests for now"
            return refused(call, f"{route.title} {what}", limited.retry_after)
        if gone():
            gate.returned(charges)
            return left(call)
        return None

    def _expires(self, route: VenueRoute, call: VenueCall, now: float) -> float:
        """The instant after which a signed call is not sent any more, by the clock of the venue that judges it."""
        until = route.requests.expires_at(call)
        if until is None:
            return float("inf")
        return now + until - (wall_seconds() + route.skew) - SIGNATURE_MARGIN

    # --- one attempt ------------------------------------------------------------------------------

    async def _try(
        self,
        route: VenueRoute,
        call: VenueCall,
        head: bytes,
        permit: Permit,
        deadline_at: float,
        charges: list[tuple[str, str, float]],
        kind: str,
    ) -> Try:
        """Send it once and understand the answer.  Never raises but for cancellation."""
        write = call.write
        try:
            now = self._clock()
            reply = await route.engines[permit.state.position].forward(
                call.verb,
                call.target,
                head,
                call.body,
                min(deadline_at, now + route.attempt_timeout(call.request_class)),
                careful=write,
            )
        except AttemptError as error:
            return self._failed(route, call, permit, error, charges, kind)
        except BaseException:
            permit.release()
            raise
        now = self._clock()
        reading = self._read(route, call, reply, write)
        if reading.used:
            route.gate.told(charges, reading.used)
        if reading.hold_for:
            scope = call.scope(reading.hold_each)
            if scope is not None:
                route.gate.hold(reading.hold_for, scope, reading.banned)
        if reading.word is Word.ANSWER:
            permit.settle(Outcome.SUCCESS, "answer", now)
        else:
            shut = reading.kind is ReplyKind.GONE and not call.signed  # a no to one account is no fact of the host
            effect = Reading(reading.kind) if shut else None
            permit.settle(reading.kind.counts, reading.kind.value, now, effect)
        return Try(permit, kind, now, reply, reading)

    def _failed(
        self,
        route: VenueRoute,
        call: VenueCall,
        permit: Permit,
        error: AttemptError,
        charges: list[tuple[str, str, float]],
        kind: str,
    ) -> Try:
        now = self._clock()
        permit.settle(error.counts, error.reason, now)
        if error.sent is Sent.NOT_SENT:
            route.gate.returned(charges)
        return Try(permit, kind, now, failure=error)

    @staticmethod
    def _read(route: VenueRoute, call: VenueCall, reply: Reply, write: bool) -> VenueReading:
        """What the answer means; a compressed one is unpacked for that, within bounds."""
        body = reply.body
        if reply.stream is not None or call.verb == b"HEAD":
            if reply.status < 300 and not write:
                return GOOD
            body = b""
        encoding = reply.header(b"content-encoding")
        if body and encoding is not None and encoding.lower() != b"identity":
            try:
                decoder = BodyDecoder(encoding, MOST_INSPECTED)
                body = decoder.feed(body)
            except DecodingError:
                if reply.status < 300 and not write:
                    return GOOD  # too large to be looked into, or packed in a way that only callers know
                body = b""
        if call.listed is None and reply.status < 300 and not write and body[:1] not in (b"{", b"["):
            return GOOD  # what no file knows may be something else than JSON
        return route.answers.read(reply.status, reply.headers, body, write, wall_seconds())

    # --- the long way -----------------------------------------------------------------------------

    async def _by_plan(
        self,
        route: VenueRoute,
        call: VenueCall,
        head: bytes,
        deadline_at: float,
        caller: str,
        gone: Gone,
        first: Try | None,
    ) -> Forwarded:
        """Every call that its first host did not answer well."""
        now = self._clock()
        deadline_at = min(deadline_at, self._expires(route, call, now))
        request_class = _planned_as(route, call)
        plan = Plan(request_class, route.pool.settings.retry, deadline_at)
        tries: list[Try] = []
        command: Command
        if first is None:
            command = Launch((), request_class.last_resort)
        else:
            tries.append(first)
            command = self._tell(plan, route, first.ended)
        limited: Forwarded | None = None
        while True:
            if isinstance(command, Launch):
                if tries and gone():
                    command = self._tell(plan, route, CallerGone())
                    continue
                found = await self._launch(route, call, head, deadline_at, caller, gone, command)
                if isinstance(found, Try):
                    close_all(tries)
                    tries.append(found)
                    command = self._tell(plan, route, found.ended)
                else:
                    limited = found
                    free_after = route.pool.free_after(call, self._clock())
                    command = self._tell(plan, route, NothingLeft(free_after))
            elif isinstance(command, Deliver):
                return answer_of(route, call, tries, tries[command.attempt])
            else:
                assert isinstance(command, Fail)
                return self._fail(route, call, tries, command, limited)

    def _tell(self, plan: Plan, route: VenueRoute, event: Ended | NothingLeft | CallerGone) -> Command:
        now = self._clock()
        budget = route.pool.retry_budget
        command = plan.on(event, now, budget.available_after(1.0, now) == 0.0)
        if isinstance(command, Launch) and command.paid:
            budget.take(1.0, now)
        return command

    async def _launch(
        self,
        route: VenueRoute,
        call: VenueCall,
        head: bytes,
        deadline_at: float,
        caller: str,
        gone: Gone,
        command: Launch,
    ) -> Try | Forwarded | None:
        """One more attempt; a refusal when the limits leave no turn; None when no host is left."""
        pool = route.pool
        charges = route.requests.charges(call)
        limited = await self._admitted(route, call, charges, deadline_at, caller, gone)
        if limited is not None:
            return limited
        now = self._clock()
        permit = pool.next(call, command.used, False, now)
        if permit is None and command.last_resort:
            permit = pool.next(call, command.used, True, now)
        if permit is None:
            route.gate.returned(charges)
            return None
        kind = "retry" if command.used else "primary"
        return await self._try(route, call, head, permit, deadline_at, charges, kind)

    def _fail(
        self, route: VenueRoute, call: VenueCall, tries: list[Try], command: Fail, limited: Forwarded | None
    ) -> Forwarded:
        """Nobody answered well: the venue's own last word if there is one, else ours."""
        for attempt in reversed(tries):
            if attempt.reply is not None:
                return answer_of(route, call, tries, attempt)
        if limited is not None and not tries:
            return limited
        records = tuple(attempt.record for attempt in tries)
        write = call.write
        sent = any(attempt.sent is not Sent.NOT_SENT for attempt in tries)
        words = ", ".join(f"{record.endpoint}: {record.ended}" for record in records)
        error: GatewayError
        if write and sent:
            error = OutcomeUnknown(
                f"{call.method.label} was sent ({words}), and whether it took effect is not known; "
                "do not repeat it, look it up",
                attempts=records,
            )
        elif not tries:
            why = refusals(route, call, self._clock())
            error = NoEndpoint(
                f"no host of {route.title} may have this call now ({why}); nothing was sent",
                attempts=records,
                retry_after=command.retry_after,
            )
        elif command.reason == "deadline_passed":
            error = DeadlinePassed(f"the deadline passed ({words})", attempts=records)
        else:
            error = AttemptsFailed(f"no host of {route.title} gave an answer ({words})", attempts=records)
        execution = ("unknown" if sent else "not_sent") if write else ""
        found_by = route.requests.found_by(call) if execution == "unknown" else ""
        return Forwarded(attempts=len(tries), error=error, records=records, execution=execution, found_by=found_by)


def _stays() -> bool:
    return False


def _planned_as(route: VenueRoute, call: VenueCall) -> RequestClass:
    """A signed read whose number must rise is used up by its first attempt."""
    if call.request_class is RequestClass.VENUE_SIGNED_READ and route.requests.ordered_by(call):
        return RequestClass.STATEFUL
    return call.request_class

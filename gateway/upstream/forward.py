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
from gateway.model import AttemptRecord, Outcome, Reading, ReplyKind, RequestClass, Sent
from gateway.policy.plan import CallerGone, Command, Deliver, Ended, Fail, Launch, NothingLeft, Plan
from gateway.policy.weights import Priority
from gateway.upstream.decoding import BodyDecoder, DecodingError
from gateway.upstream.engine import Reply
from gateway.upstream.forwarded import Forwarded, collected, size_of
from gateway.upstream.gate import Limited
from gateway.upstream.permits import Permit
from gateway.upstream.venue_route import VenueRoute

MOST_INSPECTED = 1_000_000  # bytes of a compressed answer that are unpacked to be read
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


class _Try:
    """One attempt's end.  What is told of it is put together when somebody asks: mostly nobody does."""

    __slots__ = ("ended_at", "failure", "kind", "permit", "reading", "reply")

    def __init__(
        self,
        permit: Permit,
        kind: str,
        ended_at: float,
        reply: Reply | None = None,
        reading: VenueReading = GOOD,
        failure: AttemptError | None = None,
    ) -> None:
        self.permit = permit
        self.kind = kind
        self.ended_at = ended_at
        self.reply = reply
        self.reading = reading
        self.failure = failure

    @property
    def sent(self) -> Sent:
        return self.failure.sent if self.failure is not None else Sent.ANSWERED

    @property
    def record(self) -> AttemptRecord:
        failure, permit = self.failure, self.permit
        ended = failure.reason if failure is not None else self.reading.kind.value
        detail = failure.message if failure is not None else self.reading.detail
        return AttemptRecord(
            permit.state.endpoint.id, self.kind, ended, self.sent, permit.started_at, self.ended_at, detail
        )

    @property
    def ended(self) -> Ended:
        position = self.permit.state.position
        if self.failure is not None:
            return Ended(position, self.failure.sent, None, self.failure.reason)
        return Ended(position, Sent.ANSWERED, self.reading.kind, has_error_object=self.reading.settled)


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
        pool.retry_budget.earn(pool.settings.retry.budget_share)
        route.last_call_at = self._clock()
        key = route.requests.share_key(call) if route.settings.share else None
        if key is not None:
            return await self._shared(route, call, head, deadline_at, caller, gone, key)
        account = route.requests.ordered_by(call)
        if account:
            try:
                async with route.rows.turn(account, deadline_at):
                    return await self._once(route, call, head, deadline_at, caller, gone)
            except Limited as limited:
                return _refused(
                    call, "the calls of this key that came before are not answered yet", limited.retry_after
                )
        return await self._once(route, call, head, deadline_at, caller, gone)

    async def _shared(
        self,
        route: VenueRoute,
        call: VenueCall,
        head: bytes,
        deadline_at: float,
        caller: str,
        gone: Gone,
        key: tuple[object, ...],
    ) -> Forwarded:
        """A public read: what is fresh, or under way, serves all who ask."""

        async def fetch() -> Forwarded:
            answer = await self._once(route, call, head, deadline_at, caller, gone)
            return await collected(answer)

        assert call.listed is not None
        try:
            answer, how = await route.shelf.get(key, call.listed.rest.fresh_for, deadline_at, fetch, size_of)
        except TimeoutError:
            return Forwarded(attempts=0, error=DeadlinePassed("the deadline passed; the same was being asked already"))
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
        limited = await self._admitted(route, call, charges, deadline_at, caller)
        if limited is not None:
            return limited
        permit = route.pool.first(call, self._clock())
        if permit is None:
            route.gate.returned(charges)
            return await self._by_plan(route, call, head, deadline_at, caller, gone, None)
        first = await self._try(route, call, head, permit, deadline_at, charges, "primary")
        if first.reading.word is Word.ANSWER and first.reply is not None:
            return _answer(route, call, [first], first)
        return await self._by_plan(route, call, head, deadline_at, caller, gone, first)

    async def _admitted(
        self, route: VenueRoute, call: VenueCall, charges: list[tuple[str, str, float]], deadline_at: float, caller: str
    ) -> Forwarded | None:
        """Wait for the venue's limits; a refusal if there is no turn in time."""
        gate = route.gate
        use = call.use
        priority = _PRIORITIES[use] if use is not None else Priority.ACCOUNT
        if priority is Priority.LONE and route.shelf.popular(route.requests.share_key(call)):
            priority = Priority.MARKET
        scopes = (call.method.name, call.account)
        if gate.open(charges, scopes, priority):
            return None
        now = self._clock()
        expires = self._expires(route, call, now)
        try:
            await gate.enter(charges, scopes, priority, caller, min(deadline_at, expires))
        except Limited as limited:
            what = "has told this address to stop" if limited.banned else "allows no more requests for now"
            return _refused(call, f"{route.title} {what}", limited.retry_after)
        return None

    def _expires(self, route: VenueRoute, call: VenueCall, now: float) -> float:
        """The instant after which a signed call is not sent any more."""
        until = route.requests.expires_at(call)
        if until is None:
            return float("inf")
        return now + until - wall_seconds() - SIGNATURE_MARGIN

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
    ) -> _Try:
        """Send it once and understand the answer.  Never raises but for cancellation."""
        write = call.request_class.write
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
        for limit, used in reading.used:
            route.gate.told(limit, _key_of(charges, limit), used)
        if reading.hold_for:
            scope = {"": "", "path": call.method.name, "account": call.account}[reading.hold_each]
            route.gate.hold(reading.hold_for, scope, reading.banned)
        if reading.word is Word.ANSWER:
            permit.settle(Outcome.SUCCESS, "answer", now)
        else:
            effect = Reading(reading.kind) if reading.kind is ReplyKind.GONE else None
            permit.settle(reading.kind.counts, reading.kind.value, now, effect)
        return _Try(permit, kind, now, reply, reading)

    def _failed(
        self,
        route: VenueRoute,
        call: VenueCall,
        permit: Permit,
        error: AttemptError,
        charges: list[tuple[str, str, float]],
        kind: str,
    ) -> _Try:
        now = self._clock()
        permit.settle(error.counts, error.reason, now)
        if error.sent is Sent.NOT_SENT:
            route.gate.returned(charges)
        return _Try(permit, kind, now, failure=error)

    @staticmethod
    def _read(route: VenueRoute, call: VenueCall, reply: Reply, write: bool) -> VenueReading:
        """What the answer means; a compressed one is unpacked for that, within bounds."""
        body = reply.body
        if reply.stream is not None or call.verb == b"HEAD":
            if reply.status < 300 and not write:
                return GOOD
            body = b""
        elif call.listed is None and reply.status < 300 and not write:
            return GOOD  # what no file knows may be something else than JSON
        encoding = reply.header(b"content-encoding")
        if body and encoding is not None and encoding.lower() != b"identity":
            try:
                decoder = BodyDecoder(encoding, MOST_INSPECTED)
                body = decoder.feed(body)
            except DecodingError:
                if reply.status < 300 and not write:
                    return GOOD  # too large to be looked into, or packed in a way that only callers know
                body = b""
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
        first: _Try | None,
    ) -> Forwarded:
        """Every call that its first host did not answer well."""
        now = self._clock()
        deadline_at = min(deadline_at, self._expires(route, call, now))
        request_class = _planned_as(route, call)
        plan = Plan(request_class, route.pool.settings.retry, deadline_at)
        tries: list[_Try] = []
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
                found = await self._launch(route, call, head, deadline_at, caller, command)
                if isinstance(found, _Try):
                    _close(tries)
                    tries.append(found)
                    command = self._tell(plan, route, found.ended)
                else:
                    limited = found
                    free_after = route.pool.free_after(call, self._clock())
                    command = self._tell(plan, route, NothingLeft(free_after))
            elif isinstance(command, Deliver):
                return _answer(route, call, tries, tries[command.attempt])
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
        self, route: VenueRoute, call: VenueCall, head: bytes, deadline_at: float, caller: str, command: Launch
    ) -> _Try | Forwarded | None:
        """One more attempt; a refusal when the limits leave no turn; None when no host is left."""
        pool = route.pool
        charges = route.requests.charges(call)
        limited = await self._admitted(route, call, charges, deadline_at, caller)
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
        self, route: VenueRoute, call: VenueCall, tries: list[_Try], command: Fail, limited: Forwarded | None
    ) -> Forwarded:
        """Nobody answered well: the venue's own last word if there is one, else ours."""
        for attempt in reversed(tries):
            if attempt.reply is not None:
                return _answer(route, call, tries, attempt)
        if limited is not None and not tries:
            return limited
        records = tuple(attempt.record for attempt in tries)
        write = call.request_class.write
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
            refusals = _refusals(route, call, self._clock())
            error = NoEndpoint(
                f"no host of {route.title} may have this call now ({refusals}); nothing was sent",
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


def _refused(call: VenueCall, why: str, retry_after: float) -> Forwarded:
    """It got no turn in time."""
    error = VenueLimited(f"{why}; nothing was sent", retry_after=retry_after)
    return Forwarded(attempts=0, error=error, execution="not_sent" if call.request_class.write else "")


def _planned_as(route: VenueRoute, call: VenueCall) -> RequestClass:
    """A signed read whose number must rise is used up by its first attempt."""
    if call.request_class is RequestClass.VENUE_SIGNED_READ and route.requests.ordered_by(call):
        return RequestClass.STATEFUL
    return call.request_class


def _answer(route: VenueRoute, call: VenueCall, tries: list[_Try], attempt: _Try) -> Forwarded:
    """The venue's own answer, with what we know of its outcome."""
    reply, reading = attempt.reply, attempt.reading
    assert reply is not None
    answer = Forwarded(
        reply.status,
        reply.headers,
        reply.body,
        reply.stream,
        attempt.permit.state.endpoint.id,
        len(tries),
        word=reading.word,
    )
    if len(tries) > 1 or reading.word is not Word.ANSWER:
        answer.records = tuple(item.record for item in tries)
    if attempt.permit.last_resort:
        answer.degraded = "last_resort"
    if call.request_class.write:
        answer.execution = "done" if reading.settled else "unknown"
        if answer.execution == "unknown":
            answer.found_by = route.requests.found_by(call)
    return answer


def _close(tries: list[_Try]) -> None:
    """What came before is not wanted any more: streams hold their connections."""
    for attempt in tries:
        if attempt.reply is not None and attempt.reply.stream is not None:
            attempt.reply.stream.close()
            attempt.reply = None


def _key_of(charges: list[tuple[str, str, float]], limit: str) -> str:
    return next((key for name, key, _ in charges if name == limit), "")


def _refusals(route: VenueRoute, call: VenueCall, now: float) -> str:
    refused = {i: reason.value for i, reason, _ in route.pool.ranking_for(call, now).refused}
    return ", ".join(f"{e.id}: {refused.get(i, 'no_slot')}" for i, e in enumerate(route.pool.endpoints))

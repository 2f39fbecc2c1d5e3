"""Dispatch: carries out one call's plan against the fleet.

Always true: every call ends in exactly one `Answer`; every permit taken is settled; a gateway
failure is an answer too, never an exception to the edge.
The happy path is short on purpose: choose, send, read, settle, answer.  Everything that matters only
when something goes wrong (the plan, attempt records, readings) is built when it does.
Does not belong here: deciding (policy/plan), counting (fleet), the meaning of a reply (dialect).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.dialect import jsonrpc
from gateway.dialect.jsonrpc import BadReply, StreamedId, encode_request, read_reply
from gateway.errors import (
    AttemptError,
    AttemptsFailed,
    DeadlinePassed,
    Exhausted,
    GatewayError,
    MethodUnsupported,
    NoEndpoint,
    OutcomeUnknown,
)
from gateway.model import (
    AttemptRecord,
    Call,
    Effect,
    Outcome,
    Reading,
    ReplyKind,
    RequestClass,
    Sent,
    Shown,
)
from gateway.policy.plan import CallerGone, Command, Deliver, Ended, Fail, Launch, LookedUp, LookUp, NothingLeft, Plan
from gateway.upstream.engine import Reply, Stream
from gateway.upstream.fleet import Permit
from gateway.upstream.lookup import look_up
from gateway.upstream.reading import read_response
from gateway.upstream.relay import Relay, head_of, whole
from gateway.upstream.route import Route

MAX_BUFFERED_ERROR = 8_000_000  # bytes of a large answer that is not a result, read whole to be understood


@dataclass(slots=True, eq=False)
class Answer:
    """What one call ends in: a result (whole or streamed), an upstream's error, or one of ours.

    `attempts` counts endpoints tried; `records` are filled only when something went wrong.
    `execution` is ``done``, ``not_sent`` or ``unknown`` for calls that change something, else empty.
    """

    endpoint: str = ""
    attempts: int = 1
    result: bytes | None = None
    rpc_error: bytes | None = None
    stream: Relay | None = None
    error: GatewayError | None = None
    records: tuple[AttemptRecord, ...] = ()
    execution: str = ""

    def encode(self, caller_id: bytes) -> bytes:
        """The JSON-RPC answer under the caller's id.  Not for streams."""
        if self.result is not None:
            return jsonrpc.encode_result(caller_id, self.result)
        if self.rpc_error is not None:
            return jsonrpc.encode_raw_error(caller_id, self.rpc_error)
        return jsonrpc.encode_error(caller_id, self.error or AttemptsFailed("no answer"))


@dataclass(slots=True, eq=False)
class _Attempt:
    """One attempt's end, with what it brought."""

    permit: Permit
    record: AttemptRecord
    ended: Ended
    reading: Reading | None
    stream: Relay | None = None


class Dispatcher:
    """Drives calls of any route.  One per gateway."""

    def __init__(self, clock: Clock, scrub: Callable[[bytes], bytes] = lambda text: text) -> None:
        self._clock = clock
        self._wire_ids = itertools.count(1)
        self._scrub = scrub

    async def handle(
        self,
        route: Route,
        call: Call,
        deadline_at: float,
        heads: Callable[[], bytes] | None = None,
        caller_gone: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """One call, to its end.  `deadline_at` is an instant of the clock; never raises but for cancellation.

        `heads` gives each attempt its trace header line.

        `caller_gone` is asked before a further attempt is launched: what is on its way finishes, so
        that its connection stays usable, but nothing new starts for nobody.
        """
        now = self._clock()
        pool = route.pool
        pool.retry_budget.earn(pool.settings.retry.budget_share)
        request_class = call.request_class
        permit = pool.first(call.method, now)
        if permit is None:
            return await self._by_plan(route, call, deadline_at, heads, None, caller_gone)
        wire_id = next(self._wire_ids)
        try:
            response = await route.engines[permit.state.position].send(
                encode_request(call.method.wire, call.params, wire_id),
                min(deadline_at, now + route.attempt_timeout(request_class)),
                heads() if heads is not None else b"",
                careful=request_class.write,
            )
            if response.status == 200 and response.stream is None:
                result, _ = read_reply(response.body, wire_id)
                if result is not None:
                    permit.settle(Outcome.SUCCESS, "answer", self._clock())
                    return Answer(
                        permit.state.endpoint.id, result=result, execution="done" if request_class.write else ""
                    )
            first = await self._understand(route, call, permit, response, wire_id, "primary")
        except BadReply as problem:
            first = self._bad_reply(permit, str(problem), "primary")
        except AttemptError as error:
            first = self._failed(permit, error, "primary")
        except BaseException:
            permit.release()
            raise
        return await self._by_plan(route, call, deadline_at, heads, first, caller_gone)

    # --- the long way -----------------------------------------------------------------------------

    async def _by_plan(
        self,
        route: Route,
        call: Call,
        deadline_at: float,
        heads: Callable[[], bytes] | None,
        first: _Attempt | None,
        caller_gone: Callable[[], bool],
    ) -> Answer:
        pool = route.pool
        plan = Plan(call.request_class, pool.settings.retry, deadline_at)
        attempts: list[_Attempt] = []
        if first is None:
            command: Command = Launch((), call.request_class.last_resort)
        else:
            attempts.append(first)
            command = self._tell(plan, route, first.ended)
        while True:
            if isinstance(command, Launch):
                if attempts and caller_gone():
                    command = self._tell(plan, route, CallerGone())
                    continue
                attempt = await self._launch(route, call, deadline_at, heads, command)
                if attempt is None:
                    free_after = pool.free_after(call.method, self._clock())
                    command = self._tell(plan, route, NothingLeft(free_after))
                else:
                    attempts.append(attempt)
                    command = self._tell(plan, route, attempt.ended)
            elif isinstance(command, LookUp):
                found = await look_up(route, call, self._clock, self._wire_ids)
                command = self._tell(plan, route, LookedUp(found))
            elif isinstance(command, Deliver):
                return self._deliver(route, call, attempts, command)
            else:
                return self._fail(route, call, attempts, command)

    def _tell(self, plan: Plan, route: Route, event: Ended | NothingLeft | LookedUp | CallerGone) -> Command:
        """Feed the plan one event; a granted retry is paid for here."""
        now = self._clock()
        budget = route.pool.retry_budget
        command = plan.on(event, now, budget.available_after(1.0, now) == 0.0)
        if isinstance(command, Launch):
            budget.take(1.0, now)
        elif isinstance(command, Fail) and command.because.value == "budget":
            route.stats.retry_budget_refusals += 1
        return command

    async def _launch(
        self, route: Route, call: Call, deadline_at: float, heads: Callable[[], bytes] | None, command: Launch
    ) -> _Attempt | None:
        now = self._clock()
        permit = route.pool.next(call.method, command.used, command.last_resort, now)
        if permit is None:
            return None
        kind = "retry" if command.used else "primary"
        wire_id = next(self._wire_ids)
        try:
            response = await route.engines[permit.state.position].send(
                encode_request(call.method.wire, call.params, wire_id),
                min(deadline_at, now + route.attempt_timeout(call.request_class)),
                heads() if heads is not None else b"",
                careful=call.request_class.write,
            )
            return await self._understand(route, call, permit, response, wire_id, kind)
        except AttemptError as error:
            return self._failed(permit, error, kind)
        except BaseException:
            permit.release()
            raise

    # --- reading what came ------------------------------------------------------------------------

    async def _understand(
        self, route: Route, call: Call, permit: Permit, response: Reply, wire_id: int, kind: str
    ) -> _Attempt:
        """Classify an answer and settle its permit (a streamed one settles when the stream ends)."""
        stream = response.stream
        body = response.body
        if stream is not None:
            head, rest = await head_of(stream)
            if response.status == 200 and StreamedId.is_result(head):
                return self._streaming(call, permit, stream, head, rest, wire_id, kind)
            body = await whole(stream, head, rest, MAX_BUFFERED_ERROR)
        reading = read_response(route.dialect, call.method, response, body, wire_id)
        now = self._clock()
        permit.settle(reading.kind.counts, reading.kind.value, now, reading)
        if reading.kind.effect is Effect.UNSUPPORTED:
            route.pool.unsupported(permit.state.position, call.method, now)
        record = self._record(permit, kind, reading.kind.value, Sent.ANSWERED, now, reading.detail)
        ended = Ended(permit.state.position, Sent.ANSWERED, reading.kind, reading.kind.value, reading.error is not None)
        return _Attempt(permit, record, ended, reading)

    def _streaming(
        self,
        call: Call,
        permit: Permit,
        stream: Stream,
        head: bytes,
        rest: AsyncIterator[bytes],
        wire_id: int,
        kind: str,
    ) -> _Attempt:
        """A result that is passed on while it comes; its permit settles at its end."""
        try:
            relay = Relay(permit, stream, head, rest, StreamedId(wire_id, call.id or b"null"), self._clock)
        except BadReply as problem:
            stream.close()
            return self._bad_reply(permit, str(problem), kind)
        record = self._record(permit, kind, ReplyKind.ANSWER.value, Sent.ANSWERED, self._clock(), "streamed")
        ended = Ended(permit.state.position, Sent.ANSWERED, ReplyKind.ANSWER, ReplyKind.ANSWER.value)
        return _Attempt(permit, record, ended, Reading(ReplyKind.ANSWER), relay)

    def _bad_reply(self, permit: Permit, detail: str, kind: str) -> _Attempt:
        now = self._clock()
        reading = Reading(ReplyKind.BAD_REPLY, detail=detail)
        permit.settle(Outcome.FAILURE, ReplyKind.BAD_REPLY.value, now, reading)
        record = self._record(permit, kind, ReplyKind.BAD_REPLY.value, Sent.ANSWERED, now, detail)
        return _Attempt(permit, record, Ended(permit.state.position, Sent.ANSWERED, ReplyKind.BAD_REPLY), reading)

    def _failed(self, permit: Permit, error: AttemptError, kind: str) -> _Attempt:
        now = self._clock()
        permit.settle(error.counts, error.reason, now)
        record = self._record(permit, kind, error.reason, error.sent, now, error.message)
        return _Attempt(permit, record, Ended(permit.state.position, error.sent, None, error.reason), None)

    def _record(self, permit: Permit, kind: str, ended: str, sent: Sent, now: float, detail: str) -> AttemptRecord:
        return AttemptRecord(permit.state.endpoint.id, kind, ended, sent, permit.started_at, now, detail)

    # --- endings ----------------------------------------------------------------------------------

    def _deliver(self, route: Route, call: Call, attempts: list[_Attempt], command: Deliver) -> Answer:
        attempt = attempts[command.attempt]
        records = tuple(a.record for a in attempts)
        answer = Answer(attempt.permit.state.endpoint.id, len(attempts), records=records if len(records) > 1 else ())
        if call.request_class.write:
            answer.execution = "done"
        reading = attempt.reading
        known = self._own_hash(route, call) if command.shown is Shown.TRANSACTION_HASH else None
        if known is not None:
            answer.result = b'"%b"' % known.encode()
            answer.records = records
        elif command.shown is not Shown.ANSWER and reading is not None and reading.error is not None:
            answer.rpc_error = self._scrub(reading.error)
            answer.records = records
            if call.request_class.write and reading.kind.counts in (Outcome.FAILURE, Outcome.SOFT_FAILURE):
                answer.execution = "unknown"  # words that do not say whether it took effect
        elif command.shown is Shown.TRANSACTION_HASH:  # it is known, but this method answers with more than a hash
            answer.error = OutcomeUnknown(_unknown(route, call), attempts=records)
            answer.execution = "unknown"
        elif attempt.stream is not None:
            answer.stream = attempt.stream
        elif reading is not None and reading.result is not None:
            answer.result = bytes(reading.result)
        else:
            answer.error = AttemptsFailed(_words(records, "no endpoint gave an answer"), attempts=records)
        return answer

    @staticmethod
    def _own_hash(route: Route, call: Call) -> str | None:
        """The hash that may stand for an upstream's answer; None where the method answers with something else."""
        return route.dialect.transaction_hash(call.params) if call.method.answers_hash else None

    def _fail(self, route: Route, call: Call, attempts: list[_Attempt], command: Fail) -> Answer:
        records = tuple(a.record for a in attempts)
        sent = any(a.record.sent is not Sent.NOT_SENT for a in attempts)
        error: Exhausted
        if command.reason == "no_endpoint" and route.pool.all_lack(call.method, self._clock()):
            error = MethodUnsupported(f"no endpoint of {route.name} offers {call.method.label}", attempts=records)
        elif command.reason == "no_endpoint":
            error = NoEndpoint(
                f"no endpoint of {route.name} may have this call now ({_refusals(route, call, self._clock())}); "
                "nothing was sent",
                attempts=records,
                retry_after=command.retry_after,
            )
        elif command.reason == "deadline_passed":
            error = DeadlinePassed(_words(records, "the deadline passed"), attempts=records)
        elif command.reason == "outcome_unknown":
            error = OutcomeUnknown(_unknown(route, call), attempts=records)
        else:
            error = AttemptsFailed(
                _words(records, "no endpoint gave an answer"), attempts=records, retry_after=command.retry_after
            )
        answer = Answer(attempts=len(attempts), error=error, records=records)
        if call.request_class.write:
            answer.execution = "unknown" if sent else "not_sent"
        return answer


def _words(records: tuple[AttemptRecord, ...], opening: str) -> str:
    """One sentence a person can act on: who failed how."""
    if not records:
        return opening
    tries = ", ".join(f"{r.endpoint}: {r.ended}" for r in records)
    return f"{opening} ({tries})"


def _refusals(route: Route, call: Call, now: float) -> str:
    """Why each endpoint may not have it; healthy ones were busy or have had it."""
    refused = {i: reason.value for i, reason, _ in route.pool.ranking_for(call.method, now).refused}
    return ", ".join(f"{e.id}: {refused.get(i, 'no_slot')}" for i, e in enumerate(route.pool.endpoints))


def _unknown(route: Route, call: Call) -> str:
    if call.request_class is RequestClass.BROADCAST:
        known = route.dialect.transaction_hash(call.params)
        if known:
            return (
                f"the transaction {known} was sent, and whether it was taken up could not be found out; "
                "sending the same bytes again is safe"
            )
    return f"{call.method.label} was sent, and whether it took effect could not be found out; do not repeat it blindly"

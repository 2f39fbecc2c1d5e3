"""Answers: what one call ends in, made from its attempts and the plan's last word.

Always true: every call ends in exactly one `Answer`; what an endpoint's URL or key could be read from is
never in it; a write says whether it was done, not sent, or cannot be known.
Does not belong here: which last word it is (policy/plan), or HTTP (edge).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.dialect import jsonrpc
from gateway.errors import (
    AttemptsFailed,
    CallerLeft,
    DeadlinePassed,
    GatewayError,
    MethodUnsupported,
    NoEndpoint,
    OutcomeUnknown,
    Overloaded,
)
from gateway.model import AttemptRecord, Call, Outcome, Reading, ReplyKind, RequestClass, Sent, Shown
from gateway.policy.plan import NO_ENDPOINT, NOBODY, TOO_LATE, UNKNOWN_OUTCOME, Deliver, Ended, Fail
from gateway.upstream.calls.relay import Relay
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.permits import Permit

Scrub = Callable[[bytes], bytes]
_NOT_NOW = frozenset({ReplyKind.THROTTLED.value, ReplyKind.QUOTA.value})


class Execution(enum.StrEnum):
    """What became of a call that changes something."""

    DONE = "done"
    NOT_SENT = "not_sent"  # provably
    UNKNOWN = "unknown"  # it was sent, and whether it took effect is not known


@dataclass(slots=True, eq=False)
class Answer:
    """What one call ends in: a result (whole or streamed), an upstream's error, or one of ours.

    `attempts` counts endpoints tried; `records` are filled only when something went wrong.
    `execution` is None for calls that change nothing.
    `degraded` says, in one word, why it may be less than it should be: nobody healthy was left.
    """

    endpoint: str = ""
    attempts: int = 1
    result: bytes | None = None
    rpc_error: bytes | None = None
    stream: Relay | None = None
    error: GatewayError | None = None
    records: tuple[AttemptRecord, ...] = ()
    execution: Execution | None = None
    degraded: str = ""

    def encode(self, caller_id: bytes) -> bytes:
        """The JSON-RPC answer under the caller's id.  Not for streams."""
        if self.result is not None:
            return jsonrpc.encode_result(caller_id, self.result)
        if self.rpc_error is not None:
            return jsonrpc.encode_raw_error(caller_id, self.rpc_error)
        return jsonrpc.encode_error(caller_id, self.error or AttemptsFailed("no answer"))


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt's end, with what it brought."""

    permit: Permit
    record: AttemptRecord
    ended: Ended
    reading: Reading | None
    stream: Relay | None = None

    def close(self) -> None:
        """Nobody wants what it brought."""
        if self.stream is not None:
            self.stream.close()


def deliver(route: Route, call: Call, attempts: Sequence[Attempt], command: Deliver, scrub: Scrub) -> Answer:
    """What the plan chose to show of one attempt."""
    attempt = attempts[command.attempt]
    records = tuple(a.record for a in attempts)
    answer = Answer(attempt.permit.state.endpoint.id, len(attempts), records=records if len(records) > 1 else ())
    if call.request_class.write:
        answer.execution = Execution.DONE
    if attempt.permit.last_resort:
        answer.degraded = "last_resort"
    reading = attempt.reading
    known = _own_hash(route, call) if command.shown is Shown.TRANSACTION_HASH else None
    if known is not None:
        answer.result = b'"%b"' % known.encode()
        answer.records = records
    elif command.shown is not Shown.ANSWER and reading is not None and reading.error is not None:
        answer.rpc_error = scrub(reading.error)
        answer.records = records
        if call.request_class.write and reading.kind.counts in (Outcome.FAILURE, Outcome.SOFT_FAILURE):
            answer.execution = Execution.UNKNOWN  # words that do not say whether it took effect
    elif command.shown is Shown.TRANSACTION_HASH:  # it is known, but this method answers with more than a hash
        answer.error = OutcomeUnknown(_unknown(route, call), attempts=records)
        answer.execution = Execution.UNKNOWN
    elif attempt.stream is not None:
        answer.stream = attempt.stream
    elif reading is not None and reading.result is not None:
        answer.result = bytes(reading.result)
    else:
        answer.error = AttemptsFailed(_words(records, "no endpoint gave an answer"), attempts=records)
    return answer


def fail(route: Route, call: Call, attempts: Sequence[Attempt], command: Fail, now: float, shed: bool) -> Answer:
    """A gateway error for a call that nobody answered.  `shed`: it waited for a free endpoint in vain."""
    records = tuple(a.record for a in attempts)
    sent = any(a.record.sent is not Sent.NOT_SENT for a in attempts)
    error: GatewayError
    if command.reason == NO_ENDPOINT and route.pool.all_lack(call.method, now):
        error = MethodUnsupported(f"no endpoint of {route.name} offers {call.method.label}", attempts=records)
    elif command.reason == NO_ENDPOINT and shed:
        error = Overloaded(
            f"the endpoints of {route.name} are busy, and this call had to give way; nothing was sent",
            attempts=records,
            retry_after=command.retry_after,
        )
    elif command.reason == NO_ENDPOINT:
        error = NoEndpoint(
            f"no endpoint of {route.name} may have this call now ({_refusals(route, call, now)}); nothing was sent",
            attempts=records,
            retry_after=command.retry_after,
        )
    elif command.reason == TOO_LATE:
        error = DeadlinePassed(_words(records, "the deadline passed"), attempts=records)
    elif command.reason == UNKNOWN_OUTCOME:
        error = OutcomeUnknown(_unknown(route, call), attempts=records)
    elif command.reason == NOBODY:
        error = CallerLeft(_words(records, "the caller closed its connection"))
    else:
        wait = command.retry_after
        if wait is None and all(record.ended in _NOT_NOW for record in records):
            wait = route.pool.free_after(call, now)  # they have said when to come back
        error = AttemptsFailed(_words(records, "no endpoint gave an answer"), attempts=records, retry_after=wait)
    answer = Answer(attempts=len(attempts), error=error, records=records)
    if call.request_class.write:
        answer.execution = Execution.UNKNOWN if sent else Execution.NOT_SENT
    return answer


def _own_hash(route: Route, call: Call) -> str | None:
    """The hash that may stand for an upstream's answer; None where the method answers with something else."""
    return route.dialect.transaction_hash(call.params) if call.method.answers_hash else None


def _words(records: tuple[AttemptRecord, ...], opening: str) -> str:
    """One sentence a person can act on: who failed how."""
    if not records:
        return opening
    tries = ", ".join(f"{r.endpoint}: {r.ended}" for r in records)
    return f"{opening} ({tries})"


def _refusals(route: Route, call: Call, now: float) -> str:
    """Why each endpoint may not have it; healthy ones were busy or have had it."""
    refused = {i: reason.value for i, reason, _ in route.pool.ranking_for(call, now).refused}
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

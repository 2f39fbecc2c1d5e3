"""Tries: how one attempt at a venue's host ended, and what callers are told of one or several.

Always true: the venue's own answer is told as it came, with our word on the outcome beside it; a write is called done
only by an answer that says what became of it; who was never sent is told so.
Does not belong here: making attempts (forward), what an answer means (dialect).
"""

from __future__ import annotations

from gateway.dialect.venue import Word
from gateway.dialect.venue_answers import GOOD, VenueReading
from gateway.dialect.venue_requests import VenueCall
from gateway.errors import AttemptError, CallerLeft, GatewayError, VenueLimited
from gateway.model import AttemptKind, AttemptRecord, Sent
from gateway.policy.plan import Ended
from gateway.upstream.calls.answers import Execution
from gateway.upstream.fleet.permits import Permit
from gateway.upstream.venues.forwarded import Forwarded
from gateway.upstream.venues.route import VenueRoute
from gateway.upstream.wire.engine import Reply


class Try:
    """One attempt's end.  What is told of it is put together when somebody asks: mostly nobody does."""

    __slots__ = ("ended_at", "failure", "kind", "permit", "reading", "reply")

    def __init__(
        self,
        permit: Permit,
        kind: AttemptKind,
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


def refused(call: VenueCall, why: str, retry_after: float) -> Forwarded:
    """It got no turn in time."""
    error = VenueLimited(f"{why}; nothing was sent", retry_after=retry_after)
    return _unsent(call, error)


def left(call: VenueCall) -> Forwarded:
    """Its caller went while it waited, and could not be told what becomes of it."""
    error = CallerLeft("the caller closed its connection while it waited; nothing was sent")
    return _unsent(call, error)


def _unsent(call: VenueCall, error: GatewayError) -> Forwarded:
    return Forwarded(attempts=0, error=error, execution=Execution.NOT_SENT if call.write else None)


def answer_of(route: VenueRoute, call: VenueCall, tries: list[Try], attempt: Try) -> Forwarded:
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
    if call.write:
        answer.execution = Execution.DONE if reading.settled else Execution.UNKNOWN
        if answer.execution is Execution.UNKNOWN:
            answer.found_by = route.requests.found_by(call)
    return answer


def close_all(tries: list[Try]) -> None:
    """What came before is not wanted any more: streams hold their connections."""
    for attempt in tries:
        if attempt.reply is not None and attempt.reply.stream is not None:
            attempt.reply.stream.close()
            attempt.reply = None


def refusals(route: VenueRoute, call: VenueCall, now: float) -> str:
    """Why each host may not have it; healthy ones were busy or have had it."""
    refused = {i: reason.value for i, reason, _ in route.pool.ranking_for(call, now).refused}
    return ", ".join(f"{e.id}: {refused.get(i, 'no_slot')}" for i, e in enumerate(route.pool.endpoints))

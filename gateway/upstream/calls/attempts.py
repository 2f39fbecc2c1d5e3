"""Attempts: one call sent to one endpoint, and what came back understood.

Always true: an attempt ends in exactly one `Attempt`, whatever the endpoint does; its permit is settled
once, at the latest when the call has ended: words that may be the call's own fault are counted only
when it is known whether other endpoints said the same.
Does not belong here: whether another attempt follows (policy/plan), and who gets it (fleet).
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence

from gateway.clock import Clock, wall_seconds
from gateway.dialect.jsonrpc import BadReply, StreamedId, encode_request
from gateway.dialect.ratelimits import limits_said
from gateway.errors import AttemptError
from gateway.model import AttemptKind, AttemptRecord, BlockRef, Call, Effect, Family, Outcome, Reading, ReplyKind, Sent
from gateway.policy.plan import Ended
from gateway.upstream.calls.answers import Attempt
from gateway.upstream.calls.examination import examine
from gateway.upstream.calls.relay import Relay, head_of, whole
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.permits import Permit
from gateway.upstream.wire.engine import Notice, Reply, Stream
from gateway.upstream.wire.reading import read_response

MAX_BUFFERED_ERROR = 8_000_000  # bytes of a large answer that is not a result, read whole to be understood
_NO_LOGS = b"[]"
_NOTHING = (b"null", _NO_LOGS)
Heads = Callable[[], bytes]
"""Gives each attempt its trace header line."""


class Attempts:
    """Sends attempts of any route.  One per gateway: it numbers all that leaves."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.wire_ids = itertools.count(1)

    async def send(
        self,
        route: Route,
        call: Call,
        permit: Permit,
        deadline_at: float,
        heads: Heads | None,
        kind: AttemptKind,
        *,
        again: bool,
        params: bytes | None = None,
        notice_at: float = 0.0,
        notice: Notice | None = None,
    ) -> Attempt:
        """One attempt, to its end.  Never raises but for cancellation, which gives the permit back.

        `kind` is for the record; `again` says that another endpoint has
        answered before; `params` are sent instead of the call's own.
        """
        now = self.clock()
        wire_id = next(self.wire_ids)
        try:
            response = await route.engines[permit.state.position].send(
                encode_request(call.method.wire, call.params if params is None else params, wire_id),
                min(deadline_at, now + route.attempt_timeout(call.request_class)),
                heads() if heads is not None else b"",
                careful=call.request_class.write,
                notice_at=notice_at,
                notice=notice,
            )
            return await self.understand(route, call, permit, response, wire_id, kind, again=again)
        except AttemptError as error:
            return self.failed(permit, error, kind)
        except BaseException:
            permit.release()
            raise

    async def understand(
        self, route: Route, call: Call, permit: Permit, response: Reply, wire_id: int, kind: AttemptKind, *, again: bool
    ) -> Attempt:
        """Classify an answer and settle its permit (a streamed one settles when the stream ends)."""
        stream = response.stream
        body = response.body
        if stream is not None:
            head, rest = await head_of(stream)
            if response.status == 200 and StreamedId.is_result(head):
                return self._streaming(call, permit, stream, head, rest, wire_id, kind)
            body = await whole(stream, head, rest, MAX_BUFFERED_ERROR)
        reading = read_response(route.dialect, call.method, response, body, wire_id)
        now = self.clock()
        if reading.kind is ReplyKind.ANSWER and call.method.examined and reading.result is not None:
            reading = _examined(route, call, permit.state.position, reading, now, again)
        _learn(route, call, permit.state.position, reading, now)
        _learn_limits(permit, response, reading, now)
        record = self._record(permit, kind, reading.kind.value, Sent.ANSWERED, now, reading.detail)
        ended = Ended(permit.state.position, Sent.ANSWERED, reading.kind, reading.kind.value, reading.error is not None)
        attempt = Attempt(permit, record, ended, reading)
        if not (_may_be_the_request(reading) or _may_be_right(reading)):
            permit.settle(reading.kind.counts, reading.kind.value, now, reading)
        return attempt

    def bad_reply(self, permit: Permit, detail: str, kind: AttemptKind) -> Attempt:
        """An answer that is not one."""
        return self.found(permit, Reading(ReplyKind.BAD_REPLY, detail=detail), kind)

    def found(self, permit: Permit, reading: Reading, kind: AttemptKind) -> Attempt:
        """An answer whose reading is known already."""
        now = self.clock()
        if not _may_be_right(reading):
            permit.settle(reading.kind.counts, reading.kind.value, now, reading)
        record = self._record(permit, kind, reading.kind.value, Sent.ANSWERED, now, reading.detail)
        ended = Ended(permit.state.position, Sent.ANSWERED, reading.kind, reading.kind.value)
        return Attempt(permit, record, ended, reading)

    def failed(self, permit: Permit, error: AttemptError, kind: AttemptKind) -> Attempt:
        """No answer came."""
        now = self.clock()
        permit.failed(error, now)
        record = self._record(permit, kind, error.reason, error.sent, now, error.message)
        return Attempt(permit, record, Ended(permit.state.position, error.sent, None, error.reason), None)

    def settle(self, route: Route, call: Call, attempts: Sequence[Attempt]) -> None:
        """The call is over: count what was left open.

        Endpoints of two providers or more that answered with the same error, and nobody with anything
        else: the request is at fault (or the chain), and it counts against nobody.
        """
        left = [attempt for attempt in attempts if not attempt.permit.settled]
        if not left:
            return
        now = self.clock()
        same = {(a.reading.kind, a.reading.code) for a in attempts if a.reading is not None}
        providers = {a.permit.state.endpoint.provider for a in left}
        request = len(left) == len(attempts) and len(same) == 1 and len(providers) > 1
        if request:
            route.stats.request_faults += 1
            ids = tuple(a.permit.state.endpoint.id for a in left)
            route.request_faults.append((now, call.method.label, left[0].record.ended, ids))
        answered = any(a.ended.kind is ReplyKind.ANSWER for a in attempts)
        for attempt in left:
            assert attempt.reading is not None
            counts = Outcome.IGNORED if request else attempt.reading.kind.counts
            if answered and _is_refusal(attempt.reading, call):
                counts = Outcome.SOFT_FAILURE  # others understood the call
            if _may_be_right(attempt.reading):
                if _contradicted(route, call, attempt, attempts):
                    counts = Outcome.SOFT_FAILURE
                    if attempt.ended.kind is ReplyKind.EMPTY:
                        route.pool.blocks.left_out(attempt.ended.endpoint, now)
                attempt.permit.settle(counts, attempt.record.ended, attempt.record.ended_at, attempt.reading)
                continue
            attempt.permit.settle(counts, attempt.record.ended, now, attempt.reading)

    def _streaming(
        self,
        call: Call,
        permit: Permit,
        stream: Stream,
        head: bytes,
        rest: AsyncIterator[bytes],
        wire_id: int,
        kind: AttemptKind,
    ) -> Attempt:
        """A result that is passed on while it comes; its permit settles at its end."""
        try:
            relay = Relay(permit, stream, head, rest, StreamedId(wire_id, call.id or b"null"), self.clock)
        except BadReply as problem:
            stream.close()
            return self.bad_reply(permit, str(problem), kind)
        record = self._record(permit, kind, ReplyKind.ANSWER.value, Sent.ANSWERED, self.clock(), "streamed")
        ended = Ended(permit.state.position, Sent.ANSWERED, ReplyKind.ANSWER, ReplyKind.ANSWER.value)
        return Attempt(permit, record, ended, Reading(ReplyKind.ANSWER), relay)

    def _record(
        self, permit: Permit, kind: AttemptKind, ended: str, sent: Sent, now: float, detail: str
    ) -> AttemptRecord:
        return AttemptRecord(permit.state.endpoint.id, kind, ended, sent, permit.started_at, now, detail)


def _may_be_the_request(reading: Reading) -> bool:
    """An error object in a readable answer, or a 4xx: the endpoint lives, and the call may be what is wrong."""
    if reading.kind in (ReplyKind.BAD_REQUEST, ReplyKind.RANGE_TOO_LARGE):
        return True
    return reading.error is not None and reading.kind.counts in (Outcome.FAILURE, Outcome.SOFT_FAILURE)


def _may_be_right(reading: Reading) -> bool:
    """A doubtful answer: what it says of its endpoint is known when somebody else has answered."""
    return reading.kind in (ReplyKind.EMPTY, ReplyKind.ODD)


def _contradicted(route: Route, call: Call, attempt: Attempt, attempts: Sequence[Attempt]) -> bool:
    """Another endpoint gave a whole answer where this one had logs left out, or numbered wrongly.

    That a receipt is missing is held against nobody: it may have come between the two questions.
    """
    assert attempt.reading is not None
    nothing = bytes(attempt.reading.result or b"") == _NO_LOGS
    if attempt.ended.kind is ReplyKind.EMPTY and (
        call.method.family is not Family.LOGS or call.high < 0 or not nothing
    ):
        return False
    for other in attempts:
        if other.ended.kind is ReplyKind.ANSWER and other.reading is not None and other.reading.result is not None:
            told = route.dialect.examine(call, bytes(other.reading.result))
            return told is not None and not told.missing and not told.odd and not told.wrong
    return False


def _is_refusal(reading: Reading, call: Call) -> bool:
    """It did not want a call that others answer, and not for the blocks that it names."""
    kind = reading.kind
    return kind is ReplyKind.BAD_REQUEST or (kind is ReplyKind.RANGE_TOO_LARGE and call.low < 0)


def _examined(route: Route, call: Call, position: int, reading: Reading, now: float, again: bool) -> Reading:
    assert reading.result is not None
    finding = examine(route, call, position, bytes(reading.result), now, again)
    if finding is None:
        return reading
    return Reading(finding.kind, result=finding.result or reading.result, detail=finding.detail)


def _learn_limits(permit: Permit, response: Reply, reading: Reading, now: float) -> None:
    """What headers tell of the account's limit.  Read here, where polls come by, and not for each call of a caller."""
    said = limits_said(response.headers, wall_seconds())
    if said is not None:
        refused = reading.kind.counts is Outcome.THROTTLED
        permit.state.budget.told(
            said.limit,
            said.remaining,
            said.reset_after,
            now,
            said.period,
            answered_from=None if refused else permit.started_at,
        )


def _learn(route: Route, call: Call, position: int, reading: Reading, now: float) -> None:
    """What an answer teaches beyond this call: a method, an old block or a range that is not served there."""
    kind, pool = reading.kind, route.pool
    if kind is ReplyKind.ANSWER:
        something = reading.result is not None and bytes(reading.result[:4]) not in _NOTHING
        if call.low >= 0 and something and pool.blocks.gave(position, call.method.family, call.low):
            pool.changed()
    elif kind.effect is Effect.UNSUPPORTED:
        pool.unsupported(position, call.method, now)
    elif kind is ReplyKind.MISSING_DATA and pool.blocks.lacks(position, call.method.family, call.low, now):
        pool.changed()
    elif kind is ReplyKind.RANGE_TOO_LARGE and not reading.of_the_query:
        limit = range_after(route, call, reading)
        if limit is not None:
            pool.range_learned(position, call.method.family, limit, now)


def span_of(route: Route, call: Call) -> tuple[int, int]:
    """The lowest and highest block of a query; one without an upper end goes on to the newest.  -1: it has none."""
    open_ended = call.low >= 0 and call.high < 0 and call.block is BlockRef.LATEST
    return call.low, route.pool.blocks.book.reference if open_ended else call.high


def range_after(route: Route, call: Call, reading: Reading) -> int | None:
    """How many blocks may be asked for, after so many were refused: what was said, else half.  None: nobody knows."""
    low, high = span_of(route, call)
    return reading.max_range or (None if low < 0 or high < low else (high - low) // 2 + 1)

"""What becomes known of calls: counters, traces and log lines, all after the fact.

Always true: a call that went well costs two integers and a comparison here; a call that failed over,
failed or was slow is traced; no text from an upstream or a caller is logged beyond closed words and
scrubbed details.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random

from gateway.clock import Clock
from gateway.dialect.venue_requests import VenueCall
from gateway.errors import Fault, GatewayError
from gateway.model import AttemptKind, AttemptRecord, Call, Sent
from gateway.telemetry.logs import RateLimited
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traces import (
    CallTrace,
    TraceContext,
    Tracer,
    child_traceparent,
    new_context,
    parse_traceparent,
)
from gateway.upstream.calls.answers import Answer, Execution
from gateway.upstream.calls.route import AnyRoute, Route
from gateway.upstream.fleet.permits import ANSWERED, Moved
from gateway.upstream.health.diagnosis import Verdict, in_words
from gateway.upstream.venues.forwarded import Forwarded
from gateway.upstream.venues.route import VenueRoute

logger = logging.getLogger("seawall")
_GOOD_ENDS = ("closed", "in", "right", "current", "trusted")


class Trail:
    """The trace context of one call on its way out: one fresh span id per attempt."""

    __slots__ = ("context", "spans")

    def __init__(self, context: TraceContext) -> None:
        self.context = context
        self.spans: list[int] = []

    def head(self) -> bytes:
        """The header line for the next attempt."""
        value, span = child_traceparent(self.context)
        self.spans.append(span)
        return b"traceparent: %b\r\n" % value


class Observer:
    """Tells metrics, traces and logs of what ended.  One per gateway."""

    def __init__(
        self,
        metrics: Metrics,
        tracer: Tracer,
        clock: Clock,
        chance: Random,
        *,
        trust_callers: bool = False,
        propagate: bool = False,
    ) -> None:
        self._metrics = metrics
        self._tracer = tracer
        self._clock = clock
        self._chance = chance
        self._trust = trust_callers
        self._propagate = propagate
        self._quiet = RateLimited()

    def refused(self, reason: str) -> None:
        """A caller was refused before dispatch."""
        self._metrics.callers_refused.count(reason)

    def rejected(self, reason: str) -> None:
        """A connection or a request was rejected before it was a call."""
        self._metrics.edge_rejections.count(reason)

    def trail(self, traceparent: bytes | None) -> Trail | None:
        """The trace that a call belongs to; None when nothing is traced by or for anyone."""
        if traceparent is None and not self._propagate:
            return None
        context = parse_traceparent(traceparent, trusted=self._trust) if traceparent is not None else None
        return Trail(context or new_context())

    def head_source(self, trail: Trail | None) -> Callable[[], bytes] | None:
        """Where attempts get their trace header from; None when upstreams are sent none."""
        return trail.head if trail is not None and self._propagate else None

    def ended(
        self, route: AnyRoute, call: Call, answer: Answer | Forwarded, started_at: float, trail: Trail | None
    ) -> None:
        """A call came to its end (a streamed answer: to its first bytes)."""
        ended_at = self._clock()
        took = ended_at - started_at
        method = call.method
        stats = self._metrics.stats_for(route.name, method.label, method.family)
        error = answer.error
        if error is None and answer.rpc_error is None:
            stats.done(took)
        else:
            stats.ended(error.reason if error is not None else "upstream_error", took)
        if answer.attempts > 1:
            route.stats.failovers += 1
        tracer = self._tracer
        if tracer.enabled and tracer.wanted(
            answer.attempts,
            error is not None or answer.execution is Execution.UNKNOWN,
            took,
            trail.context if trail is not None else None,
            self._chance.random(),
        ):
            tracer.write(_trace(route, call, answer, started_at, ended_at, trail))
        if error is not None and _is_news(answer, error):
            self._log_failure(route, call, answer, error, ended_at)

    def forwarded(
        self, route: VenueRoute, call: VenueCall, answer: Forwarded, started_at: float, trail: Trail | None
    ) -> None:
        """A request to a venue came to its end."""
        self.ended(route, call, answer, started_at, trail)
        if answer.execution is Execution.UNKNOWN:
            self._quiet.log(
                logger,
                logging.WARNING,
                f"a write to {route.name} may have been executed, or not",
                self._clock(),
                route=route.name,
                method=call.method.label,
                reconcile=answer.found_by,
                attempts=[f"{record.endpoint}: {record.ended}" for record in answer.records],
            )

    def moved(self, moved: Moved) -> None:
        """An endpoint's state changed."""
        if moved.what == "breaker":
            self._metrics.breaker_moved(moved.route, moved.endpoint, moved.became)
        level = logging.INFO if moved.became in _GOOD_ENDS else logging.WARNING
        if moved.was == "unverified" and moved.became == "right":
            level = logging.INFO
        self._quiet.log(
            logger,
            level,
            f"{moved.what} of {moved.route}/{moved.endpoint}: {moved.was} -> {moved.became}",
            self._clock(),
            route=moved.route,
            endpoint=moved.endpoint,
            family=moved.family,
            detail=moved.detail,
        )

    def replaced(self, route: Route, label: str, records: tuple[AttemptRecord, ...]) -> None:
        """A feed lost sources, and the last of these records is who came for them."""
        now = self._clock()
        lost, came = records[:-1], records[-1]
        self._quiet.log(
            logger,
            logging.INFO,
            f"{label} of {route.name}: {lost[-1].endpoint} {lost[-1].ended}, {came.endpoint} took over",
            now,
            route=route.name,
            method=label,
            attempts=[f"{record.endpoint}: {record.ended}" for record in records],
        )
        took = came.ended_at - lost[0].ended_at
        if self._tracer.enabled and self._tracer.wanted(len(records), False, took, None, self._chance.random()):
            kinds, evidence = in_words(route, now)
            self._tracer.write(
                CallTrace(
                    route=route.name,
                    method=label,
                    started_at=lost[0].ended_at,
                    ended_at=came.ended_at,
                    result="answer",
                    error=None,
                    attempts=records,
                    parent=None,
                    attempt_spans=(),
                    verdicts=kinds,
                    evidence=evidence,
                )
            )

    def settle(self, now: float) -> None:
        """Tell how often something happened that was not logged each time, once it has ended.  About once a second."""
        for message, swallowed in self._quiet.settle(now):
            logger.info("%s: %d times more, not logged one by one", message, swallowed)

    def verdict(self, route: str, verdict: Verdict, came: bool) -> None:
        """Something is wrong with a route, or is not any more."""
        self._quiet.log(
            logger,
            logging.WARNING if came else logging.INFO,
            f"{route}: {verdict.kind.value} {'since now' if came else 'is over'}",
            self._clock(),
            route=route,
            kind=verdict.kind.value,
            subject=verdict.subject,
            evidence=verdict.evidence,
        )

    def _log_failure(
        self, route: AnyRoute, call: Call, answer: Answer | Forwarded, error: GatewayError, now: float
    ) -> None:
        self._quiet.log(
            logger,
            logging.WARNING,
            f"a call to {route.name} failed: {error.reason}",
            now,
            route=route.name,
            method=call.method.label,
            reason=error.reason,
            attempts=[f"{record.endpoint}: {record.ended}" for record in answer.records],
        )


def _is_news(answer: Answer | Forwarded, error: GatewayError) -> bool:
    """Whether a failure gets a line.  Nobody failed a caller who left, but what may have been done is told of."""
    if answer.execution is Execution.UNKNOWN:
        return isinstance(answer, Answer)  # a venue's has a line of its own
    return error.fault is not Fault.CALLER


def _trace(
    route: AnyRoute, call: Call, answer: Answer | Forwarded, started_at: float, ended_at: float, trail: Trail | None
) -> CallTrace:
    records = answer.records
    if not records and answer.endpoint:  # the happy path keeps none: the call is its attempt
        records = (AttemptRecord(answer.endpoint, AttemptKind.PRIMARY, ANSWERED, Sent.ANSWERED, started_at, ended_at),)
    kinds, evidence = in_words(route, ended_at) if len(records) > 1 or answer.error is not None else ((), "")
    return CallTrace(
        route=route.name,
        method=call.method.label,
        started_at=started_at,
        ended_at=ended_at,
        result="error" if answer.error is not None else "upstream_error" if answer.rpc_error is not None else "answer",
        error=answer.error.reason if answer.error is not None else None,
        attempts=records,
        parent=trail.context if trail is not None else None,
        attempt_spans=tuple(trail.spans) if trail is not None else (),
        verdicts=kinds,
        evidence=evidence,
        system="jsonrpc" if isinstance(answer, Answer) else "rest",
        execution=answer.execution or "",
        reconcile=answer.found_by if isinstance(answer, Forwarded) else "",
    )

"""Traces: which calls become spans, what their spans say, and W3C trace context in and out.

Always true: spans are written after the fact, from records with explicit start and end, and only
for calls that were sampled, failed over, slow or failed; so every failover is traced and the happy
path pays one comparison.  A caller's wish to be sampled counts only when it is trusted, and spans
are limited per second, so that neither a caller nor an outage turns tracing into the load.  Without
a configured collector nothing of OpenTelemetry is imported and nothing is done.

Does not belong here: anything of OpenTelemetry (otlp), or choosing the chance (the caller does).
"""

from __future__ import annotations

import logging
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway import clock
from gateway.bounds import require_bounds, setting
from gateway.model import AttemptRecord, Elsewhere, ReplyKind
from gateway.telemetry.redaction import Redactor

if TYPE_CHECKING:
    from gateway.telemetry.otlp import SpanExport

_logger = logging.getLogger(__name__)

_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a header's name, RFC 9110 section 5.6.2
# Attempts that ended like this needed no other endpoint: their spans are no errors.
_SETTLED: Final = frozenset(kind.value for kind in ReplyKind if kind.elsewhere is Elsewhere.NO)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TraceSettings:
    """Where traces go and how many.  Its text form shows neither the headers nor the collector's path."""

    endpoint: str | None = setting(None, "OTLP/HTTP collector, as http(s)://host:4318; none: no tracing")
    headers: tuple[tuple[str, str], ...] = setting((), "headers sent to the collector, such as its key")
    sample: float = setting(0.01, "share of ordinary calls that are traced", unit="share", low=0, high=1)
    slow: float = setting(1.0, "calls that take longer are always traced", unit="s", low=0.001, high=3600)
    per_second: int = setting(50, "at most so many calls are traced per second", low=1, high=10_000)
    trust_callers: bool = setting(False, "whether a caller's traceparent may ask for its call to be traced")
    propagate: bool = setting(False, "whether upstreams are sent a traceparent")
    export_every: float = setting(5.0, "time between two exports", unit="s", low=0.05, high=60)
    export_timeout: float = setting(5.0, "time the collector has to take one export", unit="s", low=0.1, high=60)

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.endpoint is not None:
            url = urlsplit(self.endpoint)
            if url.scheme not in ("http", "https") or not url.hostname:
                raise ValueError("endpoint must be a URL such as http://localhost:4318")
        for name, value in self.headers:
            if not _TOKEN.fullmatch(name) or not (value.isascii() and value.isprintable()):
                raise ValueError(f"headers: {name!r} or its value cannot be sent in HTTP")

    def __repr__(self) -> str:
        host = urlsplit(self.endpoint).hostname if self.endpoint else None
        return f"TraceSettings(collector={host!r}, sample={self.sample}, slow={self.slow})"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace a call belongs to.  `span_id` is the caller's span, or 0 when the trace begins here.

    `sampled` is what a trusted caller asked for; False for all others.
    """

    trace_id: int
    span_id: int
    sampled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTrace:
    """What is told of one finished call.  Instants are monotonic seconds.

    `method` is `Method.label`.  `error` is an error's reason, None when the caller got an answer.
    `attempt_spans` are the span ids that the attempts were sent with (`child_traceparent`), in
    their order; 0 or a missing one is chosen here.  `verdicts` are the kinds of what was wrong with the
    route at the time, `evidence` is what shows it, in words.  `execution` says what became of a write,
    `reconcile` how to find out.
    """

    route: str
    method: str
    started_at: float
    ended_at: float
    result: str
    error: str | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    parent: TraceContext | None = None
    attempt_spans: tuple[int, ...] = ()
    verdicts: tuple[str, ...] = ()
    evidence: str = ""
    system: str = "jsonrpc"
    execution: str = ""
    reconcile: str = ""


def parse_traceparent(value: bytes, *, trusted: bool) -> TraceContext | None:
    """A W3C `traceparent`, version 00, or None for anything else; then the call begins a trace of its own.

    Exactly 55 bytes, lower-case hexadecimal, no id all zero (W3C Trace Context, 3.2.2).  Unless
    `trusted`, the sampled flag is not believed.
    """
    found = _TRACEPARENT.fullmatch(value)
    if found is None:
        return None
    trace_id, span_id = int(found[1], 16), int(found[2], 16)
    if trace_id == 0 or span_id == 0:
        return None
    return TraceContext(trace_id, span_id, trusted and bool(int(found[3], 16) & 1))


def child_traceparent(context: TraceContext) -> tuple[bytes, int]:
    """The `traceparent` of one attempt, and its span id, which belongs into `CallTrace.attempt_spans`."""
    span_id = _new_id(64)
    return b"00-%032x-%016x-%02x" % (context.trace_id, span_id, context.sampled), span_id


def new_context() -> TraceContext:
    """A trace that begins here, for a call whose attempts carry a `traceparent` although its caller sent none."""
    return TraceContext(_new_id(128), 0)


def _new_id(bits: int) -> int:
    return secrets.randbits(bits) or 1  # zero means "no id"


class Tracer:
    """Writes the spans of calls that are worth it.  Used from the event loop's thread."""

    __slots__ = ("_allowance", "_clock", "_export", "_refilled_at", "_scrub", "_settings", "dropped", "written")

    def __init__(
        self, settings: TraceSettings, redactor: Redactor, version: str, now: clock.Clock = clock.monotonic
    ) -> None:
        """Starts the exporting thread when `settings` name a collector; so not before a fork."""
        self.written = 0  # calls
        self.dropped = 0  # calls over `per_second`
        self._settings = settings
        self._scrub = redactor.scrub
        self._clock = now
        self._allowance = float(settings.per_second)
        self._refilled_at = now()
        self._export: SpanExport | None = None
        if settings.endpoint is not None:
            from gateway.telemetry import otlp  # here: it costs memory that only tracing should cost

            self._export = otlp.SpanExport(
                settings.endpoint,
                settings.headers,
                version,
                export_every=settings.export_every,
                export_timeout=settings.export_timeout,
            )

    @property
    def enabled(self) -> bool:
        return self._export is not None

    def wanted(self, attempts: int, failed: bool, duration: float, parent: TraceContext | None, chance: float) -> bool:
        """Whether a finished call is worth a `CallTrace`: asked before one is built.

        `chance` is a random number in [0, 1); `duration` in seconds.
        """
        if self._export is None:
            return False
        settings = self._settings
        return (
            failed
            or attempts > 1
            or duration >= settings.slow
            or chance < settings.sample
            or (parent is not None and parent.sampled)
        )

    def write(self, trace: CallTrace) -> None:
        """Queue one server span and a client span per attempt.  Never raises, never blocks; about 40 us a span."""
        export = self._export
        if export is None:
            return
        if not self._allowed():
            self.dropped += 1
            return
        try:
            self._write(export, trace)
        except Exception:
            self.dropped += 1
            _logger.exception("a trace could not be written")
        else:
            self.written += 1

    def _write(self, export: SpanExport, trace: CallTrace) -> None:
        parent = trace.parent
        trace_id = parent.trace_id if parent is not None else _new_id(128)
        server = _new_id(64)
        wall = int(clock.wall_at(trace.started_at, self._clock()) * 1e9)

        def nanoseconds(instant: float) -> int:
            # One conversion per trace: attempts keep their exact distances even when the wall clock steps.
            return wall + round((instant - trace.started_at) * 1e9)

        export.write(
            self._scrub(trace.method),
            (trace_id, parent.span_id if parent is not None else 0, server),
            (wall, nanoseconds(trace.ended_at)),
            {**self._scrubbed(_about_call(trace)), "seawall.attempts": len(trace.attempts)},
            error=self._scrub(trace.error) if trace.error else None,
        )
        for index, attempt in enumerate(trace.attempts):
            preset = trace.attempt_spans[index] if index < len(trace.attempt_spans) else 0
            export.write(
                self._scrub(f"{trace.method} {attempt.endpoint}"),
                (trace_id, server, preset or _new_id(64)),
                (nanoseconds(attempt.started_at), nanoseconds(attempt.ended_at)),
                self._scrubbed(_about_attempt(trace, attempt)),
                error=self._scrub(attempt.detail or attempt.ended) if attempt.ended not in _SETTLED else None,
                client=True,
            )

    def _scrubbed(self, facts: dict[str, str]) -> dict[str, str | int]:
        return {name: self._scrub(value) for name, value in facts.items()}

    def shutdown(self, timeout: float = 5.0) -> bool:
        """Send what is queued; False when `timeout` seconds were not enough.  Blocks: not for the loop's thread."""
        export, self._export = self._export, None
        return export is None or export.shutdown(timeout)

    def _allowed(self) -> bool:
        """A bucket of `per_second` tokens, so that an outage's thousands of failures are sampled too."""
        now, most = self._clock(), float(self._settings.per_second)
        self._allowance = min(most, self._allowance + (now - self._refilled_at) * most)
        self._refilled_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


def _about_call(trace: CallTrace) -> dict[str, str]:
    facts = {
        "seawall.route": trace.route,
        "rpc.system": trace.system,
        "rpc.method": trace.method,
        "seawall.result": trace.result,
    }
    if trace.error is not None:
        facts["error.type"] = trace.error
    if trace.verdicts:
        facts["seawall.verdicts"] = ",".join(trace.verdicts)
        facts["seawall.evidence"] = trace.evidence
    if trace.execution:
        facts["seawall.execution"] = trace.execution
    if trace.reconcile:
        facts["seawall.reconcile"] = trace.reconcile
    return facts


def _about_attempt(trace: CallTrace, attempt: AttemptRecord) -> dict[str, str]:
    facts = {
        "seawall.route": trace.route,
        "rpc.system": "jsonrpc",
        "rpc.method": trace.method,
        "seawall.endpoint": attempt.endpoint,
        "seawall.kind": attempt.kind,
        "seawall.ended": attempt.ended,
        "seawall.sent": attempt.sent.value,
    }
    if attempt.ended not in _SETTLED:
        facts["error.type"] = attempt.ended
    return facts

"""OTLP: the owner of opentelemetry; sends finished spans to a collector, from a thread of its own.

Always true: a collector that is down, slow or hostile costs spans and never a call; nothing is
logged about it but a count (the library's own words hold the collector's URL); ids and times of
a span are those it is given, so a span is the one that its `traceparent` announced.
Imported only when tracing is configured: the SDK and its HTTP client cost about 12 MB.

Does not belong here: which calls are traced and what their spans say (traces).
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

_logger = logging.getLogger(__name__)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_QUEUE: Final = 4096  # spans; about 2 kB each
_BATCH: Final = 512
_TOLD_EVERY: Final = 20  # failed exports per log line

# They repeat the collector's URL or its answer, some once per span; our own words stand instead.
_SILENCED: Final = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.sdk._shared_internal",
    "urllib3.connectionpool",
    "urllib3.util.retry",
)


class _GivenIds(IdGenerator):
    """Hands out the ids that were put into it: they were chosen before the request was sent."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _QuietExporter(SpanExporter):
    """The OTLP exporter, with failures turned into a rare log line without a URL."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._inner.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._failed = 0
            return result
        if self._failed % _TOLD_EVERY == 0:
            _logger.warning("the trace collector did not take spans", extra={"spans": len(spans)})
        self._failed += 1
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()


class SpanExport:
    """A queue of finished spans and the thread that sends them."""

    def __init__(
        self,
        endpoint: str,
        headers: Sequence[tuple[str, str]],
        version: str,
        *,
        export_every: float,
        export_timeout: float,
    ) -> None:
        """`endpoint` without a path means `/v1/traces`, as in OTLP's own settings; durations in seconds."""
        for name in _SILENCED:
            logging.getLogger(name).disabled = True
        self._exporter = OTLPSpanExporter(
            endpoint=_with_path(endpoint),
            headers=dict(headers),
            timeout=export_timeout,
            compression=Compression.Gzip,
        )
        self._ids = _GivenIds()
        # Sampling was decided before; not the environment's sampler, which would decide again.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(
                {
                    "service.name": "seawall",
                    "service.version": version,
                    "service.instance.id": secrets.token_hex(8),
                }
            ),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(
                _QuietExporter(self._exporter),
                max_queue_size=_QUEUE,
                max_export_batch_size=_BATCH,
                schedule_delay_millis=export_every * 1000,
            )
        )
        self._tracer = self._provider.get_tracer("seawall", version)

    def write(
        self,
        name: str,
        ids: tuple[int, int, int],
        times: tuple[int, int],
        attributes: Mapping[str, str | int],
        *,
        error: str | None,
        client: bool = False,
    ) -> None:
        """Queue one span.  `ids`: trace, parent (0: none), own.  `times`: start and end, ns since 1970."""
        self._ids.trace_id, parent_id, self._ids.span_id = ids
        parent = SpanContext(ids[0], parent_id, is_remote=not client, trace_flags=_SAMPLED)
        span = self._tracer.start_span(
            name,
            # Always a context of our own: the current one could hold a span of a program that embeds us.
            context=set_span_in_context(NonRecordingSpan(parent)),
            kind=SpanKind.CLIENT if client else SpanKind.SERVER,
            attributes=attributes,
            start_time=times[0],
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_time=times[1])

    def shutdown(self, timeout: float) -> bool:
        """Flush for at most `timeout` seconds, then give up; False when it had to."""
        # The library's shutdown waits up to 30 s and takes no argument: it waits in a thread instead.
        flush = threading.Thread(target=self._provider.shutdown, name="seawall-trace-flush", daemon=True)
        flush.start()
        flush.join(timeout)
        if flush.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # ends its waiting between two tries
            return False
        return True


def _with_path(endpoint: str) -> str:
    url = urlsplit(endpoint)
    return urlunsplit(url._replace(path="/v1/traces")) if url.path in ("", "/") else endpoint

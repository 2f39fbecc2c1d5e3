from __future__ import annotations

import io
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import AttemptRecord, Sent
from gateway.telemetry.redaction import Redactor
from gateway.telemetry.traces import (
    CallTrace,
    TraceContext,
    Tracer,
    TraceSettings,
    child_traceparent,
    new_context,
    parse_traceparent,
)
from tests.telemetry.collector import Collector, attributes

SERVER, CLIENT = 2, 3  # opentelemetry.proto.trace.v1.Span.SpanKind
ERROR = 2
NOW = 1000.0


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.close()


def tracer_to(url: str | None, redactor: Redactor | None = None, **more: Any) -> Tracer:
    settings = TraceSettings(endpoint=url, **{"export_timeout": 5.0, **more})
    return Tracer(settings, redactor or Redactor(), "1.2.3", lambda: NOW)


def attempt(endpoint: str, ended: str, start: float, end: float, sent: Sent = Sent.ANSWERED) -> AttemptRecord:
    return AttemptRecord(endpoint, "primary", ended, sent, start, end, detail=f"{endpoint} said so")


FAILED_OVER = CallTrace(
    route="ethereum",
    method="eth_call",
    started_at=NOW - 3.0,
    ended_at=NOW - 1.0,
    result="answer",
    attempts=(
        attempt("a", "connection_lost", NOW - 2.75, NOW - 2.0, Sent.SENT),
        attempt("b", "answer", NOW - 2.0, NOW - 1.25),
    ),
)


# --- what arrives ---------------------------------------------------------------------------------


def test_a_call_is_a_server_span_and_each_attempt_a_client_span_below_it(collector: Collector) -> None:
    tracer = tracer_to(collector.url)
    tracer.write(FAILED_OVER)
    assert tracer.shutdown(10)
    server, first, second = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    assert [span.kind for span in (server, first, second)] == [SERVER, CLIENT, CLIENT]
    assert [span.name for span in (server, first, second)] == ["eth_call", "eth_call a", "eth_call b"]
    assert server.parent_span_id == b""
    assert first.parent_span_id == second.parent_span_id == server.span_id
    assert server.trace_id == first.trace_id == second.trace_id
    assert len({server.span_id, first.span_id, second.span_id}) == 3
    assert [span.status.code for span in (server, first, second)] == [0, ERROR, 0]
    assert attributes(server) == {
        "seawall.route": "ethereum",
        "rpc.system": "jsonrpc",
        "rpc.method": "eth_call",
        "seawall.result": "answer",
        "seawall.attempts": 2,
    }
    assert attributes(first) == {
        "seawall.route": "ethereum",
        "rpc.system": "jsonrpc",
        "rpc.method": "eth_call",
        "seawall.endpoint": "a",
        "seawall.kind": "primary",
        "seawall.ended": "connection_lost",
        "seawall.sent": "sent",
        "error.type": "connection_lost",
    }
    assert "error.type" not in attributes(second)


def test_spans_keep_the_times_of_the_attempts(collector: Collector) -> None:
    tracer = tracer_to(collector.url)
    tracer.write(FAILED_OVER)
    assert tracer.shutdown(10)
    server, first, second = sorted(collector.spans, key=lambda span: span.start_time_unix_nano)
    start = server.start_time_unix_nano
    assert server.end_time_unix_nano - start == 2_000_000_000
    assert first.start_time_unix_nano - start == 250_000_000
    assert first.end_time_unix_nano == second.start_time_unix_nano == start + 1_000_000_000
    assert second.end_time_unix_nano - start == 1_750_000_000


def test_a_caller_s_trace_goes_on_and_the_announced_span_ids_are_the_written_ones(collector: Collector) -> None:
    parent = parse_traceparent(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", trusted=False)
    assert parent is not None
    header, span_id = child_traceparent(parent)
    tracer = tracer_to(collector.url)
    tracer.write(
        CallTrace(
            route="r",
            method="m",
            started_at=NOW - 1,
            ended_at=NOW,
            result="attempts_failed",
            error="attempts_failed",
            attempts=FAILED_OVER.attempts,
            parent=parent,
            attempt_spans=(span_id,),
        )
    )
    assert tracer.shutdown(10)
    server = next(span for span in collector.spans if span.kind == SERVER)
    first = next(span for span in collector.spans if span.name == "m a")
    assert server.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert server.parent_span_id.hex() == "00f067aa0ba902b7"
    assert (server.status.code, attributes(server)["error.type"]) == (ERROR, "attempts_failed")
    assert first.span_id.hex() == header.split(b"-")[2].decode()
    assert first.trace_id.hex() == header.split(b"-")[1].decode()


def test_a_trace_that_begins_here_keeps_the_id_its_attempts_were_sent_with(collector: Collector) -> None:
    context = new_context()
    tracer = tracer_to(collector.url)
    tracer.write(CallTrace(route="r", method="m", started_at=0, ended_at=1, result="answer", parent=context))
    assert tracer.shutdown(10)
    (server,) = collector.spans
    assert int.from_bytes(server.trace_id, "big") == context.trace_id
    assert server.parent_span_id == b""


def test_the_collector_gets_the_headers_path_and_service_name(collector: Collector) -> None:
    tracer = tracer_to(collector.url, headers=(("x-collector-key", "secret-header"),))
    tracer.write(FAILED_OVER)
    assert tracer.shutdown(10)
    headers, _, request = collector.received[0]
    assert headers["path"] == "/v1/traces"
    assert headers["x-collector-key"] == "secret-header"
    assert headers["content-encoding"] == "gzip"
    resource = attributes(request.resource_spans[0].resource)
    assert (resource["service.name"], resource["service.version"]) == ("seawall", "1.2.3")


def test_an_outage_does_not_turn_tracing_into_the_load(collector: Collector) -> None:
    tracer = tracer_to(collector.url, per_second=10)
    for _ in range(1000):
        tracer.write(FAILED_OVER)
    assert tracer.shutdown(10)
    assert (tracer.written, tracer.dropped) == (10, 990)
    assert len(collector.spans) == 30


def test_a_trace_that_cannot_be_written_never_fails_the_call(
    collector: Collector, logging_to: Callable[..., io.StringIO]
) -> None:
    stream = logging_to("json")
    tracer = tracer_to(collector.url)
    tracer.write(CallTrace(route=None, method=7, started_at=0, ended_at=0, result="x"))  # type: ignore[arg-type]
    assert tracer.shutdown(10)
    assert tracer.dropped == 1
    assert "a trace could not be written" in stream.getvalue()


# --- secrets --------------------------------------------------------------------------------------


def test_no_span_holds_a_canary(
    encode: Callable[[str], str],
    collector: Collector,
    redactor: Redactor,
    canaries: tuple[str, ...],
    assert_silent: Callable[[str], None],
) -> None:
    tracer = tracer_to(collector.url, redactor)
    for canary in canaries:
        text = encode(canary)
        record = AttemptRecord(text, text, text, Sent.SENT, 0.0, 1.0, detail=text)
        tracer.write(
            CallTrace(route=text, method=text, started_at=0, ended_at=1, result=text, error=text, attempts=(record,))
        )
    assert tracer.shutdown(10)
    assert len(collector.spans) == 2 * len(canaries)
    assert_silent("".join(body.decode("utf-8", "replace") + str(request) for _, body, request in collector.received))


def test_a_collector_that_is_down_neither_raises_nor_leaks(
    collector: Collector, logging_to: Callable[..., io.StringIO], canaries: tuple[str, ...]
) -> None:
    stream = logging_to("json", using=Redactor())  # nothing known: the words themselves must be clean
    collector.close()
    canary = canaries[0]
    tracer = tracer_to(
        f"{collector.url}/{canary}?key={canary}", headers=(("authorization", canary),), export_timeout=0.1
    )
    tracer.write(FAILED_OVER)
    tracer.shutdown(10)
    tracer.write(FAILED_OVER)  # after the end: nothing
    text = stream.getvalue()
    assert "the trace collector did not take spans" in text
    assert canary not in text


def test_a_hostile_collector_cannot_write_our_log(
    collector: Collector, logging_to: Callable[..., io.StringIO], canaries: tuple[str, ...]
) -> None:
    stream = logging_to("json", using=Redactor())
    collector.answer[:] = [400, f"you sent {canaries[0]}"]
    tracer = tracer_to(f"{collector.url}/{canaries[0]}")
    tracer.write(FAILED_OVER)
    tracer.shutdown(10)
    text = stream.getvalue()
    assert "the trace collector did not take spans" in text
    assert canaries[0] not in text


def test_settings_never_show_the_collector_s_credentials(canaries: tuple[str, ...]) -> None:
    canary = canaries[0]
    settings = TraceSettings(endpoint=f"https://u:{canary}@h/{canary}?k={canary}", headers=(("k", canary),))
    assert canary not in repr(settings) + str(settings)
    for wrong in ({"endpoint": f"ftp://{canary}"}, {"headers": (("k", f"{canary}\n"),)}):
        with pytest.raises(ValueError, match=r"endpoint|headers") as caught:
            TraceSettings(**wrong)
        assert canary not in str(caught.value)


# --- which calls ----------------------------------------------------------------------------------


@given(
    attempts=st.integers(0, 4),
    failed=st.booleans(),
    duration=st.floats(0, 3),
    asked=st.sampled_from([None, True, False]),
    chance=st.floats(0, 1, exclude_max=True),
    sample=st.floats(0, 1),
)
def test_a_call_is_traced_when_sampled_failed_over_slow_failed_or_asked_for(
    attempts: int, failed: bool, duration: float, asked: bool | None, chance: float, sample: float
) -> None:
    tracer = tracer_to(None, sample=sample, slow=1.0)
    parent = None if asked is None else TraceContext(1, 1, asked)
    assert tracer.wanted(attempts, failed, duration, parent, chance) is False  # no collector, no spans
    tracer._export = object()  # type: ignore[assignment]
    wanted = attempts > 1 or failed or duration >= 1.0 or asked is True or chance < sample
    assert tracer.wanted(attempts, failed, duration, parent, chance) is wanted


def test_without_a_collector_nothing_of_opentelemetry_is_loaded() -> None:
    program = (
        "import sys; from gateway.telemetry.redaction import Redactor\n"
        "from gateway.telemetry.traces import Tracer, TraceSettings, CallTrace\n"
        "tracer = Tracer(TraceSettings(), Redactor(), '1')\n"
        "tracer.write(CallTrace(route='r', method='m', started_at=0, ended_at=1, result='x'))\n"
        "assert tracer.shutdown() and not tracer.enabled and not tracer.wanted(9, True, 9.0, None, 0.0)\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'requests'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize(
    "wrong", [{"sample": 1.1}, {"sample": -0.1}, {"slow": 0}, {"per_second": 0}, {"endpoint": "localhost:4318"}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TraceSettings(**wrong)


# --- traceparent ----------------------------------------------------------------------------------

ids = st.integers(1, 2**128 - 1)
span_ids = st.integers(1, 2**64 - 1)


@given(trace_id=ids, span_id=span_ids, flags=st.integers(0, 255), trusted=st.booleans())
def test_a_traceparent_is_read_and_its_flag_believed_only_when_trusted(
    trace_id: int, span_id: int, flags: int, trusted: bool
) -> None:
    value = f"00-{trace_id:032x}-{span_id:016x}-{flags:02x}".encode()
    expected = TraceContext(trace_id, span_id, trusted and flags % 2 == 1)
    assert parse_traceparent(value, trusted=trusted) == expected


@given(trace_id=ids, span_id=st.integers(0, 2**64 - 1), sampled=st.booleans())
def test_a_child_stays_in_its_trace_under_an_id_of_its_own(trace_id: int, span_id: int, sampled: bool) -> None:
    header, child = child_traceparent(TraceContext(trace_id, span_id, sampled))
    assert len(header) == 55
    assert parse_traceparent(header, trusted=True) == TraceContext(trace_id, child, sampled)
    assert child not in (0, span_id)


VALID = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        VALID.upper(),
        VALID + b"-",
        VALID + b"\n",
        b" " + VALID,
        VALID[:-1],
        b"01" + VALID[2:],
        b"ff" + VALID[2:],
        VALID.replace(b"-", b"_"),
        b"00-" + b"0" * 32 + VALID[35:],
        VALID[:36] + b"0" * 16 + VALID[52:],
        VALID.replace(b"4bf9", b"4bg9"),
        VALID.replace(b"4bf9", b"+bf9"),
        VALID + b"," + VALID,
        VALID.decode().replace("4", "\u0664").encode(),
    ],
)
def test_anything_else_is_no_traceparent(value: bytes) -> None:
    assert parse_traceparent(value, trusted=True) is None


@given(position=st.integers(0, 54), byte=st.integers(0, 255))
def test_one_wrong_byte_is_refused(position: int, byte: int) -> None:
    changed = VALID[:position] + bytes([byte]) + VALID[position + 1 :]
    allowed = changed[:3] == b"00-" and changed[35:36] == changed[52:53] == b"-"
    allowed &= all(chr(each) in string.hexdigits.lower()[:16] for each in changed.replace(b"-", b"", 3))
    allowed &= changed.count(b"-") == 3
    assert (parse_traceparent(changed, trusted=True) is not None) == allowed


@given(value=st.binary(max_size=80))
def test_no_bytes_make_the_parser_raise(value: bytes) -> None:
    parse_traceparent(value, trusted=True)

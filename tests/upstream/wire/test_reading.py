"""Reading a reply: anything may come in, and exactly one kind comes out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.clock import wall_seconds
from gateway.dialect.evm import EvmDialect
from gateway.model import Reading, ReplyKind
from gateway.upstream.wire.reading import MAX_DETAIL, read_response, retry_after_seconds
from gateway.upstream.wire.streaming import Response

EVM = EvmDialect()
METHOD = next(method for method in EVM.methods if method.name == "eth_chainId")
LOGS = next(method for method in EVM.methods if method.name == "eth_getLogs")
Headers = list[tuple[bytes, bytes]]


def read(status: int, body: bytes, headers: Headers | None = None, wire_id: int = 7) -> Reading:
    return read_response(EVM, METHOD, Response(status, headers or [], body, None), body, wire_id)


def error(code: object, message: object, data: object = None) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "error": {"code": code, "message": message, "data": data}}).encode()


RESULT = b'{"jsonrpc":"2.0","id":7,"result":"0x1"}'


def test_a_result_in_200_is_an_answer_and_its_bytes_are_the_upstreams() -> None:
    reading = read(200, b'{"jsonrpc":"2.0","id":7,"result": {"n": 1.0,  "m":1e400} }')
    assert (reading.kind, reading.result) == (ReplyKind.ANSWER, b'{"n": 1.0,  "m":1e400}')


@pytest.mark.parametrize("status", [201, 204, 301, 400, 401, 403, 404, 429, 500, 502, 503, 529])
def test_a_result_under_any_other_status_is_never_an_answer(status: int) -> None:
    reading = read(status, RESULT)
    assert reading.kind is not ReplyKind.ANSWER
    assert reading.result is None


def test_an_error_inside_200_is_never_success() -> None:
    for code, message in ((-32000, "weird"), (-32603, "internal"), (0, ""), (200, "ok"), (None, None), ("x", "y")):
        reading = read(200, error(code, message))
        assert reading.kind is not ReplyKind.ANSWER
        assert reading.error is not None
        assert reading.result is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_outranks_what_the_body_says(status: int) -> None:
    for body in (RESULT, error(-32000, "execution reverted"), b"", b"<html>", b"[]"):
        assert read(status, body).kind is ReplyKind.KEY_REFUSED


@pytest.mark.parametrize(
    "body",
    [
        RESULT.replace(b"7", b"8"),
        RESULT.replace(b"7", b'"7"'),
        RESULT.replace(b'"id":7,', b""),
        b"[%b]" % RESULT,
        b'{"jsonrpc":"2.0","id":7}',
        b"<html>busy</html>",
        b"",
        b"7",
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_answer_to_another_request_or_to_none_is_a_bad_reply(body: bytes) -> None:
    reading = read(200, body)
    assert reading.kind is ReplyKind.BAD_REPLY
    assert reading.detail


def test_an_error_keeps_its_bytes_its_code_and_a_short_detail() -> None:
    raw = b'{"code":-32000,"message":"%b","data":{"x":1.0}}' % (b"execution reverted " * 100)
    reading = read(200, b'{"id":7,"error":%b}' % raw)
    assert (reading.error, reading.code) == (raw, -32000)
    assert len(reading.detail) <= MAX_DETAIL


@pytest.mark.parametrize(
    ("code", "read_as"),
    [("-32000", -32000), ("-32000.0", -32000), ('"-32000"', None), ("null", None), ("1e300", int(1e300)), ("{}", None)],
)
def test_a_code_of_any_shape_is_read_or_let_be(code: str, read_as: int | None) -> None:
    body = b'{"id":7,"error":{"code":%b,"message":"boom"}}' % code.encode()
    reading = read(200, body)
    assert reading.code == read_as
    assert reading.kind is not ReplyKind.ANSWER


@pytest.mark.parametrize(
    ("words", "of_the_query"),
    [
        ("query returned more than 10000 results", True),
        ("query returned more than 10000 results. Try with this block range [0x1, 0x9].", True),
        ("Log response size exceeded. this block range should work: [0x1, 0x9]", True),
        ("logs matched by query exceeds limit of 10000", True),
        (
            "You can make eth_getLogs requests with up to a 10 block range. this block range should work: [0x1, 0xa]",
            False,
        ),
        ("query exceeds max block range 1000", False),
        ("block range too large", False),
    ],
)
def test_what_one_query_finds_is_no_limit_of_the_endpoint(words: str, of_the_query: bool) -> None:
    body = error(-32005, words)
    reading = read_response(EVM, LOGS, Response(200, [], body, None), body, 7)
    assert (reading.kind, reading.of_the_query) == (ReplyKind.RANGE_TOO_LARGE, of_the_query)


def test_a_range_that_was_too_large_teaches_the_range_and_nothing_else_does() -> None:
    body = error(-32005, "query exceeds max block range 1000")
    reading = read_response(EVM, LOGS, Response(200, [], body, None), body, 7)
    assert (reading.kind, reading.max_range) == (ReplyKind.RANGE_TOO_LARGE, 1000)
    assert read(200, error(-32000, "header not found, 1000 blocks behind")).max_range is None


def test_the_wait_that_the_upstream_asks_for_is_read_with_every_failure() -> None:
    for status, body in ((429, b""), (503, b"<html>"), (429, error(-32005, "limit exceeded")), (429, RESULT)):
        assert read(status, body, [(b"Retry-After", b"17")]).retry_after == 17.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([(b"retry-after-ms", b"1500")], 1.5),
        ([(b"retry-after", b"2"), (b"retry-after-ms", b"1500")], 2.0),
        ([(b"retry-after", b"soon"), (b"retry-after-ms", b"1500")], 1.5),
        ([(b"retry-after", b"0.25")], 0.25),
        ([(b"retry-after-ms", b"soon")], 10.0),
        ([(b"x-ratelimit-limit", b"9"), (b"x-ratelimit-remaining", b"0"), (b"x-ratelimit-reset", b"99")], 10.0),
        ([], 10.0),
    ],
)
def test_a_wait_is_read_from_headers_first_and_then_from_what_the_body_says(headers: Headers, seconds: float) -> None:
    body = error(-32005, "call rate limit exhausted, retry in 10s")
    for status in (200, 429):
        assert read(status, body, headers).retry_after == seconds


def test_a_wait_in_words_is_read_of_refusals_only() -> None:
    assert read(200, error(3, "execution reverted: retry in 10s")).retry_after is None


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = st.dictionaries(
    st.sampled_from(["jsonrpc", "id", "result", "error", "code", "message", "data", "x"]),
    st.sampled_from([7, "7", None, "2.0"]) | ANY_JSON,
    max_size=6,
)
ERRORS = st.fixed_dictionaries(
    {"id": st.sampled_from([7, None]), "error": st.dictionaries(st.sampled_from(["code", "message", "data"]), ANY_JSON)}
)
BODIES = st.binary(max_size=200) | (MEMBERS | ERRORS | ANY_JSON).map(lambda value: json.dumps(value).encode())


@given(st.integers(100, 999), BODIES, st.binary(max_size=40))
@example(200, b'{"id":7,"error":{"code":1e400,"message":"x"}}', b"")
@example(200, b'{"id":7,"error":{"code":%b}}' % (b"9" * 5000), b"")
@example(200, b'{"id":%b,"result":1}' % (b"9" * 5000), b"")
@example(200, b'{"id":7,"error":{"code":-1,"message":{"deep":[]}}}', b"")
@example(429, b"", b"9" * 5000)
@example(429, b"", "٣".encode())
@example(429, b"", b"Fri, 31 Dec 9999 23:59:59 -2359")
@example(429, b"", b"Mon, 01 Jan 0001 00:00:00 +2359")
@examples(max_examples=600)
def test_whatever_comes_one_kind_comes_out(status: int, body: bytes, retry_after: bytes) -> None:
    reading = read(status, body, [(b"Retry-After", retry_after)])
    assert isinstance(reading.kind, ReplyKind)
    assert len(reading.detail) <= MAX_DETAIL
    assert (reading.kind is ReplyKind.ANSWER) == (reading.result is not None)
    assert reading.retry_after is None or 0 <= reading.retry_after <= 1e12


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"17", 17.0),
        (b" 5 ", 5.0),
        (b"0000000000000000000000012", 12.0),
        (b"99999999999999999999", 1e7),
        (b"9" * 5000, 1e7),
        (b"-1", None),
        (b"1.5", 1.5),
        (b"1.", None),
        (b"soon", None),
        (b"", None),
        (b"5, 6", None),
        (b"Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        (b"Wed, 99 Oct 2015 07:28:00 GMT", None),
        (b"Wed, 21 Oct 99999 07:28:00 GMT", None),
        ("٣".encode(), None),
        ("²".encode("latin-1"), None),
    ],
)
def test_retry_after_is_a_number_a_date_or_nothing(value: bytes, seconds: float | None) -> None:
    assert retry_after_seconds(value) == seconds


def test_retry_after_as_a_date_is_the_time_until_then_whatever_its_zone() -> None:
    when = datetime.fromtimestamp(wall_seconds(), UTC) + timedelta(seconds=90)
    for text in (format_datetime(when, usegmt=True), format_datetime(when.replace(tzinfo=None))):
        assert retry_after_seconds(text.encode()) == pytest.approx(90, abs=2)
    assert retry_after_seconds(None) is None


@given(st.text(max_size=60))
@examples(max_examples=300)
def test_no_retry_after_does_more_than_be_ignored(text: str) -> None:
    seconds = retry_after_seconds(text.encode("utf-8", "replace"))
    assert seconds is None or seconds >= 0

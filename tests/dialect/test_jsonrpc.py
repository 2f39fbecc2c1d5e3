"""The envelope: bytes stay what they were, and nothing that comes in can do more than be refused."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.dialect.jsonrpc import (
    BadReply,
    Request,
    StreamedId,
    decode,
    encode_error,
    encode_request,
    encode_result,
    exceeds_depth,
    read_error,
    read_reply,
)
from gateway.errors import CallTooLarge, GatewayError, MalformedCall, MalformedJson, NoEndpoint

IDS = [
    b"0",
    b"-0",
    b"1.0",
    b"1e400",
    b"1.50",
    b"123456789012345678901234567890",
    b'"a"',
    b'"\\u00e9\\n"',
    b'""',
    b"null",
]


def one(body: bytes) -> Request:
    request = decode(body, 100, 64)
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize("raw", IDS)
def test_an_id_is_kept_byte_for_byte(raw: bytes) -> None:
    request = one(b'{"jsonrpc":"2.0","method":"m","id":%b}' % raw)
    assert request.id == raw
    assert encode_result(raw, b"1") == b'{"jsonrpc":"2.0","id":%b,"result":1}' % raw


@pytest.mark.parametrize("raw", [b"[1]", b'{"a":1}', b"true", b"false"])
def test_what_may_not_be_an_id_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedCall):
        one(b'{"method":"m","id":%b}' % raw)


@pytest.mark.parametrize("number", [b"1e400", b"123456789012345678901234567890123", b"1.10", b"0.1000", b"-0"])
def test_numbers_in_params_and_results_are_untouched(number: bytes) -> None:
    request = one(b'{"method":"m","params":[%b, %b ],"id":1}' % (number, number))
    assert request.params == b"[%b, %b ]" % (number, number)
    assert read_reply(b'{"id":5,"result":%b}' % number, 5) == (number, None)


def test_a_request_without_an_id_is_a_notification_and_one_without_params_has_none() -> None:
    assert one(b'{"method":"m"}') == Request("m", b"", None)
    assert one(b'{"method":"m","params":null,"id":1}') == Request("m", b"", b"1")


def test_escapes_in_a_methods_name_change_nothing() -> None:
    assert one(b'{"method":"eth\\u005fsendTransaction","id":1}').method == "eth_sendTransaction"


def test_of_a_doubled_member_the_one_that_was_judged_is_the_one_that_is_sent() -> None:
    request = one(b'{"method":"eth_chainId","method":"eth_sendTransaction","id":1}')
    sent = json.loads(encode_request(json.dumps(request.method).encode(), request.params, 9))
    assert sent["method"] == request.method


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", MalformedJson),
        (b"{", MalformedJson),
        (b'{"method":"m"} x', MalformedJson),
        (b'{"method":"m","id":"\xff"}', MalformedJson),
        (b'{"method":"m","params":[01]}', MalformedJson),
        (b"[]", MalformedCall),
        (b"7", MalformedCall),
        (b'"x"', MalformedCall),
        (b"{}", MalformedCall),
        (b'{"method":7}', MalformedCall),
        (b'{"method":""}', MalformedCall),
        (b'{"method":"m","params":"x"}', MalformedCall),
        (b"[" + b"1," * 100 + b"1]", CallTooLarge),
        (b"[" * 65 + b"]" * 65, MalformedJson),
    ],
)
def test_a_body_that_is_no_request_is_refused_with_its_reason(body: bytes, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        decode(body, 100, 64)


def test_a_bad_item_of_a_batch_is_an_error_in_its_place() -> None:
    batch = decode(b'[{"method":"a","id":1}, 7, {"method":"b"}, []]', 100, 64)
    assert isinstance(batch, list)
    assert [type(item) for item in batch] == [Request, MalformedCall, Request, MalformedCall]


@given(st.binary(max_size=300))
@example(b'{"method":"\\ud800","id":1}')
@example(b"[[[[" * 400)
@settings(max_examples=500, deadline=None)
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    with contextlib.suppress(MalformedJson, MalformedCall, CallTooLarge):
        decode(body, 10, 16)
    with contextlib.suppress(BadReply):
        read_reply(body, 1)
    read_error(body)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(alphabet='ab"\\[]{}\n', max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text('x"\\[{', max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max((depth_of(item) for item in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((depth_of(item) for item in value), default=0)
    return 0


@given(JSON, st.integers(1, 6), st.booleans())
@settings(max_examples=500, deadline=None)
def test_depth_is_what_a_parser_would_find_whatever_strings_hold(value: object, limit: int, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert exceeds_depth(text, limit) == (depth_of(value) > limit)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":6,"result":1}',
        b'{"jsonrpc":"2.0","id":"5","result":1}',
        b'{"jsonrpc":"2.0","result":1}',
        b'{"jsonrpc":"2.0","id":null,"result":1}',
        b'{"jsonrpc":"2.0","id":5}',
        b'{"jsonrpc":"2.0","id":6,"error":{"code":1}}',
        b'[{"jsonrpc":"2.0","id":5,"result":1}]',
        b"<html>",
        b"",
        b"5",
    ],
)
def test_an_answer_to_another_request_or_to_none_is_no_answer(body: bytes) -> None:
    with pytest.raises(BadReply):
        read_reply(body, 5)


@pytest.mark.parametrize(
    "shape", [b'{"id":5,"error":%b}', b'{"id":null,"error":%b}', b'{"error":%b,"id":5,"result":null}']
)
def test_an_error_object_is_told_from_a_result(shape: bytes) -> None:
    assert read_reply(shape % b'{"code":-32000,"message":"no"}', 5) == (None, b'{"code":-32000,"message":"no"}')


def test_a_null_error_beside_a_result_is_a_result() -> None:
    assert read_reply(b'{"id":5,"error":null,"result":null}', 5) == (b"null", None)


def test_our_errors_carry_code_reason_and_attempts() -> None:
    body = json.loads(encode_error(b'"x"', NoEndpoint("nothing there", retry_after=2.5)))
    assert body["id"] == "x"
    assert body["error"] == {
        "code": -32090,
        "message": "nothing there",
        "data": {"reason": "no_endpoint", "retry_after": 2.5, "attempts": []},
    }


RESULT = b'["' + b'ab\\",' * 400 + b'",{"id":5}]'
SHAPES = [
    b'{"jsonrpc":"2.0","id":5,"result":%b}',
    b'{"id":5,"jsonrpc":"2.0","result":%b}',
    b'{"jsonrpc":"2.0","result":%b,"id":5}',
    b'{"result":%b,"id": 5 , "jsonrpc":"2.0"}\n',
    b' { "jsonrpc" : "2.0" , "id" : 5 , "result" : %b }',
]


@given(st.sampled_from(SHAPES), st.lists(st.integers(1, 900), max_size=8), st.sampled_from(IDS))
@settings(max_examples=300, deadline=None)
def test_a_streamed_answer_gets_the_callers_id_however_it_is_cut(
    shape: bytes, cuts: list[int], caller_id: bytes
) -> None:
    body = shape % RESULT
    names = StreamedId(5, caller_id)
    out, rest = names.open(body[:600]), body[600:]
    for cut in cuts:
        out, rest = out + names.piece(rest[:cut]), rest[cut:]
    out += names.piece(rest) + names.end()
    assert StreamedId.is_result(body[:4096])
    assert out.count(RESULT) == 1
    envelope = re.sub(rb"\s", b"", out.replace(RESULT, b"0"))
    assert envelope == re.sub(rb"\s", b"", shape.replace(b"%b", b"0")).replace(b'"id":5', b'"id":%b' % caller_id)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_streamed_answer_to_another_request_is_refused(shape: bytes) -> None:
    body = shape.replace(b"5", b"6") % RESULT
    names = StreamedId(5, b"1")
    with pytest.raises(BadReply):
        names.piece(names.open(body) and b"")
        names.end()


@pytest.mark.parametrize(
    "head", [b'{"jsonrpc":"2.0","id":5,"error":{', b"<html>", b'[{"result":1', b'{"x":1,"result":']
)
def test_what_does_not_begin_as_a_result_is_not_streamed(head: bytes) -> None:
    assert not StreamedId.is_result(head)

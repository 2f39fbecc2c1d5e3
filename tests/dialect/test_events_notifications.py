"""The laws of notifications: what an upstream says is read or left, never raised about, and goes out as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.notifications import (
    Notification,
    Reply,
    encode_notice,
    encode_notification,
    read_message,
    read_messages,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
MEMBERS = st.sampled_from(
    ["jsonrpc", "method", "params", "id", "result", "error", "subscription", "subscription_id", "x"]
)
MESSAGES = st.dictionaries(MEMBERS, JSON | st.dictionaries(MEMBERS, JSON, max_size=4), max_size=6)


@given(st.text(), st.one_of(st.integers(0, 2**53), st.text()), JSON)
def test_what_is_written_is_read_again_as_the_same_event(method: str, subscription: int | str, event: Any) -> None:
    named, result = json.dumps(subscription).encode(), json.dumps(event).encode()
    text = encode_notification(method, named, result)
    assert read_message(text) == Notification(method, named, result)
    whole = json.loads(text)
    assert whole["jsonrpc"] == "2.0" and whole["method"] == method and whole["params"]["result"] == event


def test_an_event_keeps_its_bytes() -> None:
    event = b'{ "a" : 1.00, "b":"\\u00e9", "n":123456789012345678901234567890 , "a":2 }'
    text = b'{"jsonrpc":"2.0","params":{"result":%b,"subscription": "0x9"},"method":"eth_subscription"}' % event
    assert read_message(text) == Notification("eth_subscription", b'"0x9"', event)


def test_an_answer_is_told_from_an_event() -> None:
    assert read_message(b'{"jsonrpc":"2.0","id":7,"result":"0x1"}') == Reply(7, b'"0x1"', None)
    assert read_message(b'{"id":7,"result":23784,"error":null}') == Reply(7, b"23784", None)
    assert read_message(b'{"id":7,"result":null,"error":{"code":1}}') == Reply(7, None, b'{"code":1}')
    assert read_message(b'{"id":null,"error":{"code":-32700}}') == Reply(None, None, b'{"code":-32700}')


@pytest.mark.parametrize("number", [b'"7"', b"7.0", b"null"])
def test_an_answer_without_a_number_of_ours_answers_nobody(number: bytes) -> None:
    told = read_message(b'{"id":%b,"result":true}' % number)
    assert isinstance(told, Reply) and told.id is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b'{"id":7}',
        b'{"method":"x"}',
        b'{"method":"x","params":[1]}',
        b'{"method":"x","params":{"subscription":"0x1"}}',
        b'{"method":"x","params":{"result":1}}',
        b'{"method":7,"params":{"subscription":"0x1","result":1}}',
        b'{"method":"x","params":{"subscription":"0x1","result":1}',
        b'{"method":"x","params":{"subscription":"0x1","result":"\xff"}}',
        b'{"id":true,"result":1}',
        b'{"id":7,"result":"\\ud800"}',
        b"[" * 100_000,
        b'{"result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_neither_is_nothing(data: bytes) -> None:
    assert read_message(data) is None


@given(st.binary() | st.builds(lambda value: json.dumps(value).encode(), MESSAGES))
def test_nothing_an_upstream_sends_raises(data: bytes) -> None:
    told = read_message(data)
    for part in (told.result, told.error) if isinstance(told, Reply) else (told.result,) if told else ():
        if part is not None:
            json.loads(part.decode())


@given(st.lists(MESSAGES | JSON, max_size=5), st.sampled_from(["", " ", "\n\t"]))
def test_messages_in_an_array_are_read_like_messages_that_come_alone(messages: list[Any], before: str) -> None:
    texts = [json.dumps(message) for message in messages]
    alone = [told for text in texts if (told := read_message(text.encode())) is not None]
    assert list(read_messages((before + "[" + " ,".join(texts) + "]").encode())) == alone


def test_one_broken_message_in_an_array_costs_the_others_nothing_and_a_broken_array_says_nothing() -> None:
    event = b'{"method":"x","params":{"subscription":"0x1","result":%b}}'
    good = [Notification("x", b'"0x1"', b"1"), Notification("x", b'"0x1"', b"2")]
    for broken in (b"7", b"[]", b"null", b'{"id":7,"result":"\xff"}', b"[" * 50 + b"]" * 50):
        assert list(read_messages(b"[%b,%b,%b]" % (event % b"1", broken, event % b"2"))) == good
    for whole in (b"[", b"[" * 100_000, b"[%b" % (event % b"1"), b"[%b] x" % (event % b"1"), b"[]"):
        assert list(read_messages(whole)) == []


@given(st.binary())
def test_nothing_that_an_upstream_puts_into_an_array_raises(data: bytes) -> None:
    for told in (*read_messages(data), *read_messages(b"[" + data + b"]")):
        json.loads((told.result or b"0").decode())


def test_starknet_calls_the_id_by_its_own_name() -> None:
    text = b'{"jsonrpc":"2.0","method":"starknet_subscriptionNewHeads","params":{"subscription_id":"7","result":{}}}'
    told = read_message(text)
    assert told == Notification("starknet_subscriptionNewHeads", b'"7"', b"{}")
    assert json.loads(encode_notification(told.method, b'"9"', told.result))["params"]["subscription_id"] == "9"


def test_a_notice_says_what_is_missing_and_nothing_that_is_not_known() -> None:
    assert json.loads(encode_notice(b'"0x1"', "gap", 10, 12)) == {
        "jsonrpc": "2.0",
        "method": "seawall_notice",
        "params": {"subscription": "0x1", "reason": "gap", "from": 10, "to": 12},
    }
    assert json.loads(encode_notice(b"5", "gap", 0, 0))["params"] == {
        "subscription": 5,
        "reason": "gap",
        "from": 0,
        "to": 0,
    }
    assert json.loads(encode_notice(b"5", 'endpoint "a"', None, None))["params"] == {
        "subscription": 5,
        "reason": 'endpoint "a"',
    }

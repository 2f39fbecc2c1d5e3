"""The laws of Solana subscriptions: events stand at slots, and a refresh says what a notification would have said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.solana import SolanaDialect
from gateway.dialect.tables import method_table
from gateway.events import FeedKind, LogFilter, Subscription

SOLANA = SolanaDialect()
KEY = "CM78CPUeXjn8o3yroDHxUtKsZZgoy4GPkPPXfouKNH12"
SIGNATURE = "2EanSSkn5cjv9DVKik5gtBkN1wwbV1TAXQQ5yu2RTPGwgrhEywVAQR2veu895uCDzvYwWZe6vD1Bcn8s7r22W17w"
STREAMS = ("account", "block", "logs", "program", "root", "signature", "slot", "slotsUpdates", "transaction", "vote")


def asked(method: str, *params: Any) -> Subscription:
    found = SOLANA.subscription(method, json.dumps(params).encode())
    assert found is not None
    return found


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def in_context(slot: int, value: Any) -> bytes:
    return raw({"context": {"slot": slot}, "value": value})


# --- what is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", STREAMS)
def test_each_stream_has_its_own_methods(stream: str) -> None:
    found = asked(f"{stream}Subscribe", KEY)
    assert (found.unsubscribe, found.notification) == (f"{stream}Unsubscribe", f"{stream}Notification")
    assert found.numeric and found.label == found.method == f"{stream}Subscribe"
    assert SOLANA.ends_subscription(found.unsubscribe) and not SOLANA.ends_subscription(found.method)
    assert SOLANA.subscription(found.unsubscribe, b"[1]") is None


def test_every_stateful_method_of_the_table_subscribes_or_ends_a_subscription() -> None:
    stateful = [method.name for method in method_table("solana") if method.family.value == "filter"]
    assert len(stateful) == 2 * len(STREAMS)
    for name in stateful:
        assert (SOLANA.subscription(name, b"[]") is not None) != SOLANA.ends_subscription(name)


def test_other_methods_do_not_subscribe() -> None:
    for method in ("getSlot", "Subscribe", "Unsubscribe", "eth_subscribe", "slot", "xSubscribe", "slotsubscribe", ""):
        assert SOLANA.subscription(method, b"[]") is None and not SOLANA.ends_subscription(method)


def test_kinds_say_how_a_loss_is_made_good() -> None:
    newest = {stream for stream in STREAMS if asked(f"{stream}Subscribe", KEY).kind is FeedKind.NEWEST}
    once = {stream for stream in STREAMS if asked(f"{stream}Subscribe", KEY).kind is FeedKind.ONCE}
    assert newest == {"account", "root", "slot"} and once == {"signature"}


def test_a_signature_that_is_told_twice_is_not_over_after_the_first() -> None:
    both = asked("signatureSubscribe", SIGNATURE, {"enableReceivedNotification": True})
    assert both.kind is FeedKind.PLAIN
    assert asked("signatureSubscribe", SIGNATURE, {"enableReceivedNotification": False}).kind is FeedKind.ONCE


def test_requests_share_a_feed_whatever_the_order_of_their_members() -> None:
    one = asked("accountSubscribe", KEY, {"encoding": "base64", "commitment": "confirmed"})
    other = SOLANA.subscription(
        "accountSubscribe", b'[ "%b",\n{"commitment" :"confirmed","encoding":"base64"}]' % KEY.encode()
    )
    assert one == other


def test_what_differs_in_case_is_another_request() -> None:
    """Base58 and base64 tell upper from lower case, also where a text looks like hex."""
    assert asked("accountSubscribe", KEY).key != asked("accountSubscribe", KEY.lower()).key
    one = asked(
        "programSubscribe", KEY, {"filters": [{"memcmp": {"offset": 0, "bytes": "0xAB", "encoding": "base64"}}]}
    )
    other = asked(
        "programSubscribe", KEY, {"filters": [{"memcmp": {"offset": 0, "bytes": "0xab", "encoding": "base64"}}]}
    )
    assert one.key != other.key


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from([None, 1]),
)
def test_parameters_go_upstream_with_the_same_meaning(value: Any, indent: int | None) -> None:
    written = json.dumps([KEY, value], indent=indent).encode()
    found = SOLANA.subscription("programSubscribe", written)
    assert found is not None and json.loads(found.params) == [KEY, value]
    assert found == SOLANA.subscription("programSubscribe", found.params)


# --- where an event stands ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "event", "stands"),
    [
        ("slotSubscribe", raw({"parent": 75, "root": 44, "slot": 76}), (b"76", 76)),
        ("rootSubscribe", b"42", (b"42", 42)),
        ("accountSubscribe", in_context(5199307, {"lamports": 33594}), (b"", 5199307)),
        ("programSubscribe", in_context(5208469, {"pubkey": KEY, "account": {}}), (b"", 5208469)),
        ("signatureSubscribe", in_context(5207624, {"err": None}), (b"", 5207624)),
        ("signatureSubscribe", in_context(5207624, "receivedSignature"), (b"", 5207624)),
        (
            "logsSubscribe",
            in_context(5208469, {"signature": SIGNATURE, "err": None, "logs": ["x"]}),
            (SIGNATURE.encode(), 5208469),
        ),
        ("logsSubscribe", in_context(7, {"signature": SIGNATURE, "err": {"x": 1}}), (SIGNATURE.encode(), 7)),
        ("blockSubscribe", in_context(7, {"slot": 7, "block": {"blockhash": "x"}, "err": None}), (b"7", 7)),
        ("blockSubscribe", in_context(7, {"slot": 7, "block": None, "err": "BlockStoreError"}), (b"", 7)),
        ("voteSubscribe", raw({"hash": "8Rsh", "slots": [1, 2], "signature": SIGNATURE}), (SIGNATURE.encode(), -1)),
        ("transactionSubscribe", raw({"signature": SIGNATURE, "slot": 9, "transaction": {}}), (SIGNATURE.encode(), 9)),
        ("slotsUpdatesSubscribe", raw({"parent": 75, "slot": 76, "timestamp": 1, "type": "frozen"}), (b"", -1)),
    ],
)  # fmt: skip
def test_an_event_stands_at_its_slot(method: str, event: bytes, stands: tuple[bytes, int]) -> None:
    assert SOLANA.place(asked(method, KEY), event) == stands


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    "event",
    [
        b"",
        b"null",
        b"{",
        b"-1",
        b'{"slot":-5}',
        b'{"slot":' + b"9" * 5000 + b"}",
        b'{"slot":18446744073709551616}',
        b'{"slot":1e999}',
        b'{"slot":"\xff"}',
        b'{"context":{"slot":-1},"value":null}',
        b'{"context":null,"value":{}}',
        b"[" * 50_000,
        b'{"context":{"slot":1},"value":' + b"[" * 50_000,
    ],
)
def test_an_odd_event_stands_nowhere(stream: str, event: bytes) -> None:
    assert SOLANA.place(asked(f"{stream}Subscribe", KEY), event) == (b"", -1)


# --- asking anew --------------------------------------------------------------------------------------


def test_an_account_is_asked_for_as_it_was_subscribed_to() -> None:
    account = asked("accountSubscribe", KEY, {"encoding": "base64"})
    question = SOLANA.refresh(account)
    assert question == ("getAccountInfo", account.params)
    answer = b'{"context":{"apiVersion":"2.1.5","slot":9},"value":{"lamports":1, "data":["","base64"]}}'
    assert SOLANA.refreshed(account, answer) == answer
    assert SOLANA.place(account, answer) == (b"", 9)


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (None, ""),
        ("base58", ["", "base58"]),
        ("base64", ["", "base64"]),
        ("base64+zstd", ["KLUv/QBYAQAA", "base64+zstd"]),
        ("jsonParsed", ["", "base64"]),
    ],
)
def test_an_account_that_was_closed_meanwhile_is_told_as_nodes_tell_it(encoding: str | None, data: Any) -> None:
    account = asked("accountSubscribe", KEY, *([{"encoding": encoding}] if encoding else []))
    told = SOLANA.refreshed(account, b'{"context":{"slot":9},"value":null}')
    assert told is not None
    assert json.loads(told) == {
        "context": {"slot": 9},
        "value": {
            "lamports": 0,
            "data": data,
            "owner": "1" * 32,
            "executable": False,
            "rentEpoch": 0,
            "space": 0,
        },
    }


def status(slot: int = 5, reached: str | None = "finalized", err: Any = None, confirmations: int | None = None) -> Any:
    return {"slot": slot, "confirmations": confirmations, "err": err, "confirmationStatus": reached, "status": {}}


@pytest.mark.parametrize("wanted", ["processed", "confirmed", "finalized", None])
@pytest.mark.parametrize("reached", ["processed", "confirmed", "finalized"])
def test_a_transaction_is_told_once_it_is_as_far_as_the_caller_wants(wanted: str | None, reached: str) -> None:
    one = asked("signatureSubscribe", SIGNATURE, *([{"commitment": wanted}] if wanted else []))
    question = SOLANA.refresh(one)
    assert question is not None and question[0] == "getSignatureStatuses"
    assert json.loads(question[1]) == [[SIGNATURE], {"searchTransactionHistory": False}]
    order = ["processed", "confirmed", "finalized"]
    told = SOLANA.refreshed(one, in_context(9, [status(reached=reached)]))
    if order.index(reached) >= order.index(wanted or "finalized"):
        assert told == b'{"context":{"slot":9},"value":{"err":null}}'
    else:
        assert told is None


def test_a_failed_transaction_is_told_with_its_error() -> None:
    err = {"InstructionError": [0, {"Custom": 6001}]}
    told = SOLANA.refreshed(asked("signatureSubscribe", SIGNATURE), in_context(9, [status(err=err)]))
    assert told is not None and json.loads(told)["value"] == {"err": err}


def test_old_names_of_commitments_and_old_answers_are_understood() -> None:
    single = asked("signatureSubscribe", SIGNATURE, {"commitment": "single"})
    assert SOLANA.refreshed(single, in_context(9, [status(reached="confirmed")])) is not None
    assert SOLANA.refreshed(single, in_context(9, [status(reached="processed")])) is None
    default = asked("signatureSubscribe", SIGNATURE)
    assert SOLANA.refreshed(default, in_context(9, [status(reached=None, confirmations=None)])) is not None
    assert SOLANA.refreshed(default, in_context(9, [status(reached=None, confirmations=3)])) is None


@pytest.mark.parametrize("value", [[None], [], None, [{}], [{"slot": 1, "confirmationStatus": "odd"}], {}, "x"])
def test_a_transaction_that_nobody_has_seen_is_not_told(value: Any) -> None:
    assert SOLANA.refreshed(asked("signatureSubscribe", SIGNATURE), in_context(9, value)) is None


@pytest.mark.parametrize("stream", [stream for stream in STREAMS if stream not in ("account", "signature")])
def test_other_streams_are_not_asked_for_anew(stream: str) -> None:
    assert SOLANA.refresh(asked(f"{stream}Subscribe", KEY)) is None


@given(st.binary(max_size=100) | st.text().map(raw))
def test_no_answer_and_no_parameters_raise(data: bytes) -> None:
    for stream in STREAMS:
        found = SOLANA.subscription(f"{stream}Subscribe", data)
        assert found is not None
        SOLANA.refresh(found)
        assert SOLANA.place(found, data)[1] >= -1
        told = SOLANA.refreshed(found, data)
        assert told is None or json.loads(told) is not None


def test_a_refresh_that_is_no_text_is_not_told() -> None:
    account = asked("accountSubscribe", KEY)
    assert SOLANA.refreshed(account, b'{"context":{"slot":9},"value":{"data":"\xff"}}') is None


def test_solana_has_no_headers_and_no_logs_of_blocks() -> None:
    assert SOLANA.read_header(b"{}") is SOLANA.read_log(b"{}") is SOLANA.read_logs(b"[]") is None
    assert SOLANA.may_match(LogFilter(), bytes(256))
    with pytest.raises(ValueError, match="no headers"):
        SOLANA.header_by_number(1)
    with pytest.raises(ValueError, match="no logs"):
        SOLANA.logs_of(LogFilter(), "")

"""The dialect of any other chain: listed methods by table, everything else with the most care."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.generic import FALLBACK_HEAD, GenericDialect
from gateway.dialect.registry import NAMES, dialect_named
from gateway.model import BlockRef, Family, ReplyKind, RequestClass, Shown

GENERIC = GenericDialect()
STATUS = "sync_info.latest_block_height"


def chains() -> list[dict[str, Any]]:
    text = files("gateway.catalogue").joinpath("chains.json").read_text("utf-8")
    listed: list[dict[str, Any]] = json.loads(text)
    return [chain for chain in listed if chain["dialect"] == "generic"]


# --- the head ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "result", "number"),
    [
        ("", b"250000000", 250000000),
        ("", b"0", 0),
        ("", b'"812345"', 812345),
        ("", b'"0x10d4f"', 68943),
        ("", b'"0X10D4F"', 68943),
        ("", b" 7 ", 7),
        ("number", b'{"number":"0x1a"}', 26),
        ("header.height", b'{"header":{"height":120000000,"hash":"x"}}', 120000000),
        (STATUS, b'{"node_info":{},"sync_info":{"latest_block_height":"21000000"}}', 21000000),
        ("a.b.c", b'{"a":{"b":{"c":5}}}', 5),
        (".a..b.", b'{"a":{"b":5}}', 5),
    ],
)
def test_the_head_is_found_where_the_catalogue_says(path: str, result: bytes, number: int) -> None:
    assert GenericDialect("status", b"[]", path).parse_head(result) == number


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("", b""),
        ("", b"null"),
        ("", b"true"),
        ("", b"false"),
        ("", b"1.5"),
        ("", b"-1"),
        ("", b"[]"),
        ("", b"{}"),
        ("", b'""'),
        ("", b'"ok"'),
        ("", b'"0x"'),
        ("", b'"0xg"'),
        ("", b'"10d4f"'),
        ("", b'"-5"'),
        ("", b'"+5"'),
        ("", b'" 5"'),
        ("", b'"1_000"'),
        ("", b'"0x1_0"'),
        ("", b'"1.0"'),
        ("", b'"\\u0661"'),
        ("", b'"' + b"9" * 10_000 + b'"'),
        ("", b'"\xff"'),
        ("", b"not json"),
        ("", b"[" * 100_000),
        ("height", b"5"),
        ("height", b"{}"),
        ("height", b'{"height":null}'),
        ("height", b'{"height":{}}'),
        ("height", b'{"height":[5]}'),
        ("a.b", b'{"a":5}'),
        ("a.b", b'{"a":{"c":5}}'),
        ("a.b", b'{"a":[{"b":5}]}'),
        ("a.b", b'{"a.b":5}'),
    ],
)
def test_a_head_that_is_not_there_is_none(path: str, result: bytes) -> None:
    assert GenericDialect("status", b"[]", path).parse_head(result) is None


@given(st.binary(max_size=100), st.sampled_from(["", "a", "a.b", STATUS]))
def test_any_bytes_as_a_result_give_a_head_or_none(result: bytes, path: str) -> None:
    number = GenericDialect("status", b"[]", path).parse_head(result)
    assert number is None or number >= 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner),
)


@given(JSON, st.sampled_from(["", "a", "a.b", "a.b.c"]))
def test_any_json_as_a_result_gives_a_head_or_none(value: object, path: str) -> None:
    number = GenericDialect("status", b"[]", path).parse_head(json.dumps(value).encode())
    assert number is None or (isinstance(number, int) and number >= 0)


@given(st.integers(0, 2**63), st.sampled_from([str, hex, int]))
def test_every_spelling_of_a_height_is_read_back(height: int, spelled: Any) -> None:
    result = json.dumps({"a": {"b": spelled(height)}}).encode()
    assert GenericDialect("status", b"[]", "a.b").parse_head(result) == height


@pytest.mark.parametrize("chain", chains(), ids=lambda chain: chain["name"])
def test_every_chain_of_the_catalogue_is_asked_for_its_head_with_a_listed_read(chain: dict[str, Any]) -> None:
    dialect = dialect_named(
        "generic",
        chain=chain["name"],
        head_method=chain["head_method"],
        head_params=chain["head_params"],
        head_path=chain["head_path"],
    )
    name, params = dialect.head_call
    call = dialect.call(name, params, b"1")
    assert call.method.known and not call.method.denied
    assert call.request_class.repeatable and not call.request_class.write
    assert json.loads(params) is not None
    nested: Any = 42
    for part in reversed(chain["head_path"].split(".") if chain["head_path"] else []):
        nested = {part: nested}
    assert dialect.parse_head(json.dumps(nested).encode()) == 42


def test_a_chain_outside_the_catalogue_is_asked_whether_it_is_well() -> None:
    assert GENERIC.head_call == FALLBACK_HEAD
    assert GENERIC.call(*FALLBACK_HEAD, b"1").method.known
    assert GENERIC.parse_head(b'"ok"') is None


# --- methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    ["sendTransaction", "sendrawtransaction", "broadcast_tx_sync", "send_tx", "author_submitExtrinsic"],
)
def test_sending_a_signed_transaction_is_a_broadcast(method: str) -> None:
    call = GENERIC.call(method, b'["AQ=="]', b"1")
    assert (call.request_class, call.method.family) == (RequestClass.BROADCAST, Family.SEND)


@pytest.mark.parametrize("method", ["requestAirdrop", "submit", "no_suchMethod", "eth_call", "SENDTRANSACTION", ""])
def test_what_may_act_twice_and_what_is_unknown_is_not_repeated(method: str) -> None:
    call = GENERIC.call(method, b"[]", b"1")
    assert call.request_class is RequestClass.UNKNOWN and not call.request_class.repeatable
    assert call.request_class.max_endpoints == 1


@pytest.mark.parametrize("method", ["accountSubscribe", "logsSubscribe", "subscribe", "chain_subscribeNewHeads"])
def test_a_subscription_stays_with_one_endpoint(method: str) -> None:
    assert GENERIC.call(method, b"[]", b"1").request_class is RequestClass.STATEFUL


def test_no_call_names_a_block_that_this_dialect_understands() -> None:
    for method in GENERIC.methods:
        call = GENERIC.call(method.name, b'["0x10","latest"]', None)
        assert (call.block, call.request_class) == (BlockRef.NONE, method.request_class)


@given(st.text(max_size=40), st.binary(max_size=40))
def test_any_call_at_all_is_read(method: str, params: bytes) -> None:
    call = GENERIC.call(method, params, None)
    assert (call.method.name, call.params, call.id) == (method, params, None)


@pytest.mark.parametrize("family", Family)
def test_a_probe_is_the_read_of_the_head(family: Family) -> None:
    dialect = GenericDialect("getSlot", b"[]", "", "solana")
    assert dialect.probe_call(family) == dialect.head_call == dialect.lookup_call("x") == ("getSlot", b"[]")
    assert dialect.call(*dialect.head_call, b"1").request_class.repeatable


# --- what this dialect does not know -------------------------------------------------------------------


def test_there_is_no_chain_id_no_hash_and_no_limit_to_learn() -> None:
    assert GENERIC.chain_id_call is None
    assert GENERIC.parse_chain_id(b'"0x1"') is None
    assert GENERIC.transaction_hash(b'["0x01"]') is None
    assert GENERIC.learned_range("limited to a 1000 range") is None


@pytest.mark.parametrize(
    ("chain", "method", "code", "message"),
    [
        ("solana", "sendTransaction", -32002, "This transaction has already been processed"),
        ("bitcoin", "sendrawtransaction", -27, "Transaction outputs already in utxo set"),
        ("cosmoshub", "broadcast_tx_sync", -32603, "tx already exists in cache"),
    ],
)
def test_a_transaction_that_is_known_is_shown_in_the_nodes_words_because_no_hash_can_be_given(
    chain: str, method: str, code: int, message: str
) -> None:
    dialect = dialect_named("generic", chain=chain)
    call = dialect.call(method, b"[]", b"1")
    kind, _ = dialect.classify_error(200, code, message, b"", call.method)
    assert kind is ReplyKind.REFUSAL and kind.shown is Shown.UPSTREAM_ERROR


def test_an_answer_that_is_no_json_rpc_is_read_by_its_status() -> None:
    assert GENERIC.classify_http(429, b"") is ReplyKind.THROTTLED
    assert GENERIC.classify_http(502, b"<html>") is ReplyKind.SERVER_FAULT


@pytest.mark.parametrize("name", NAMES)
def test_every_dialect_answers_every_question_of_the_protocol(name: str) -> None:
    dialect = dialect_named(name)
    call = dialect.call("no_suchMethod", b"[]", b"1")
    assert dialect.classify_error(200, -1, "?", b"", call.method)[0] is ReplyKind.UNCLASSIFIED
    assert dialect.classify_http(200, b"") is ReplyKind.SERVER_FAULT
    assert dialect.learned_range("?") is None and dialect.transaction_hash(b"[]") is None
    assert dialect.parse_head(b"null") is None and dialect.parse_chain_id(b"null") is None
    for family in Family:
        assert dialect.call(*dialect.probe_call(family), b"1").request_class.repeatable


@pytest.mark.parametrize("name", ["getLatestBlockhash", "starknet_getNonce", "system_accountNextIndex", "gas_price"])
def test_a_nonce_a_price_and_what_a_transaction_expires_by_are_highest_reads(name: str) -> None:
    method = GENERIC.methods.get(name)
    assert (method.request_class, method.family) == (RequestClass.HIGHEST_READ, Family.FEE)

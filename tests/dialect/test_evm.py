"""The EVM dialect: which block a call is about, and what may therefore be done with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.evm import EvmDialect, quantity
from gateway.dialect.registry import dialect_named
from gateway.edge.methods import MethodPolicy
from gateway.model import BlockRef, Call, Family, RequestClass

EVM = EvmDialect()
HASH = "0x" + "ab" * 32
TRANSACTION = {"to": "0x" + "35" * 20, "data": "0x70a08231"}
WITH_BLOCK = [method for method in EVM.methods if method.block_param >= 0]
HEAD_READS = [method for method in WITH_BLOCK if method.request_class is RequestClass.HEAD_READ]
KEEPERS = [method for method in WITH_BLOCK if method.request_class is not RequestClass.HEAD_READ]

HEAD, PINNED = RequestClass.HEAD_READ, RequestClass.PINNED_READ
REFERENCES: list[tuple[Any, RequestClass, BlockRef]] = [
    ("latest", HEAD, BlockRef.LATEST),
    ("pending", HEAD, BlockRef.LATEST),
    ("safe", HEAD, BlockRef.SAFE),
    ("finalized", HEAD, BlockRef.FINALIZED),
    ("earliest", HEAD, BlockRef.EARLIEST),  # the oldest block that this node still has: another has another
    (None, HEAD, BlockRef.LATEST),
    ("0x0", PINNED, BlockRef.NUMBER),
    ("0x10d4f", PINNED, BlockRef.NUMBER),
    ("0x" + "f" * 16, PINNED, BlockRef.NUMBER),
    (HASH, PINNED, BlockRef.HASH),
    ({"blockHash": HASH}, PINNED, BlockRef.HASH),
    ({"blockHash": HASH, "requireCanonical": True}, PINNED, BlockRef.HASH),
    ({"requireCanonical": False, "blockHash": HASH}, PINNED, BlockRef.HASH),
    ({"blockNumber": "0x10"}, PINNED, BlockRef.NUMBER),
    ({"blockNumber": "latest"}, HEAD, BlockRef.LATEST),
    ({"blockNumber": "latest", "transactionIndex": -1}, HEAD, BlockRef.LATEST),
    # What cannot be understood is treated as the newest block: the careful guess.
    ({}, HEAD, BlockRef.LATEST),
    ({"blockNumber": 16}, HEAD, BlockRef.LATEST),
    (16, HEAD, BlockRef.LATEST),
    (True, HEAD, BlockRef.LATEST),
    ("16", HEAD, BlockRef.LATEST),
    ("", HEAD, BlockRef.LATEST),
    ("LATEST", HEAD, BlockRef.LATEST),
    ("no such tag", HEAD, BlockRef.LATEST),
    (["0x10"], HEAD, BlockRef.LATEST),
    ("0x", HEAD, BlockRef.LATEST),
    ("0xzz", HEAD, BlockRef.LATEST),
    ("0x1_0", HEAD, BlockRef.LATEST),
    ("0x" + "f" * 17, HEAD, BlockRef.LATEST),
    (HASH + "0", HEAD, BlockRef.LATEST),
    ({"blockHash": "0x10"}, HEAD, BlockRef.LATEST),
    ({"blockHash": None}, HEAD, BlockRef.LATEST),
    ({"blockNumber": "latest", "note": "0x10"}, HEAD, BlockRef.LATEST),
    ({"note": "blockHash"}, HEAD, BlockRef.LATEST),
    ({"blockNumber": "finalized"}, HEAD, BlockRef.FINALIZED),
    ({"blockNumber": {"blockNumber": "0x10"}}, HEAD, BlockRef.LATEST),
]


def params_for(block_param: int, *block: Any) -> bytes:
    return json.dumps([TRANSACTION] * block_param + list(block)).encode()


def called(method: str, params: bytes) -> tuple[RequestClass, BlockRef]:
    call = EVM.call(method, params, b"1")
    return call.request_class, call.block


# --- block references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("reference", "request_class", "block"), REFERENCES)
def test_a_block_reference_says_whether_a_read_is_pinned(
    reference: Any, request_class: RequestClass, block: BlockRef
) -> None:
    for method in HEAD_READS:
        assert called(method.name, params_for(method.block_param, reference)) == (request_class, block), method.name


@pytest.mark.parametrize(("reference", "_", "block"), REFERENCES)
def test_heavy_and_highest_reads_keep_their_class_whatever_the_block(
    reference: Any, _: RequestClass, block: BlockRef
) -> None:
    assert {method.request_class for method in KEEPERS} == {RequestClass.HEAVY_READ, RequestClass.HIGHEST_READ}
    for method in KEEPERS:
        assert called(method.name, params_for(method.block_param, reference)) == (method.request_class, block)


@pytest.mark.parametrize(
    ("wanted", "block"),
    [
        ({}, BlockRef.LATEST),
        ({"address": "0x" + "35" * 20}, BlockRef.LATEST),
        ({"blockHash": HASH}, BlockRef.HASH),
        ({"blockHash": HASH, "toBlock": "latest"}, BlockRef.HASH),
        ({"fromBlock": "0x1", "toBlock": "0x2"}, BlockRef.NUMBER),
        ({"fromBlock": "earliest", "toBlock": "0x2"}, BlockRef.NUMBER),
        ({"fromBlock": "0x1"}, BlockRef.LATEST),
        ({"fromBlock": "0x1", "toBlock": None}, BlockRef.LATEST),
        ({"fromBlock": "0x1", "toBlock": "latest"}, BlockRef.LATEST),
        ({"fromBlock": "0x1", "toBlock": "safe"}, BlockRef.SAFE),
        ({"fromBlock": "0x1", "toBlock": "finalized"}, BlockRef.FINALIZED),
        ({"toBlock": "0x2"}, BlockRef.LATEST),  # it begins at the newest block: the answer moves with the head
        ({"fromBlock": "latest", "toBlock": "0x2"}, BlockRef.LATEST),
        ({"fromBlock": 1, "toBlock": 2}, BlockRef.LATEST),
    ],
)
def test_a_log_filter_is_about_its_upper_end_or_its_block(wanted: Any, block: BlockRef) -> None:
    for method in ("eth_getLogs", "erigon_getLogs", "trace_filter", "arbtrace_filter"):
        assert called(method, json.dumps([wanted]).encode()) == (RequestClass.HEAVY_READ, block)


def test_the_last_of_two_equal_members_counts_as_it_does_for_nodes() -> None:
    assert called("eth_getBalance", b'["0x1",{"blockNumber":"0x1","blockNumber":"latest"}]') == (HEAD, BlockRef.LATEST)


@pytest.mark.parametrize("method", WITH_BLOCK, ids=lambda method: method.name)
def test_a_missing_block_is_the_newest(method: Any) -> None:
    for count in range(method.block_param + 1):
        assert called(method.name, json.dumps([TRANSACTION] * count).encode()) == (
            method.request_class,
            BlockRef.LATEST,
        )


@pytest.mark.parametrize(
    "params",
    [b"", b"{}", b'{"block":"0x1"}', b"null", b"1", b'"0x1"', b"[", b"[1,", b"\xff", b"[\xff]", b"[" * 100_000],
)
def test_parameters_that_cannot_be_understood_make_a_call_no_safer_than_its_method(params: bytes) -> None:
    for method in WITH_BLOCK:
        assert called(method.name, params) == (method.request_class, BlockRef.LATEST)


def test_blanks_between_the_parameters_change_nothing() -> None:
    assert called("eth_getBalance", b' [ "0x1" ,\n "latest"\t] ') == (HEAD, BlockRef.LATEST)
    assert called("eth_getBalance", b' [ "0x1" ,\n "0x10"\t] ') == (PINNED, BlockRef.NUMBER)


def test_a_block_name_that_is_escaped_is_taken_for_the_newest() -> None:
    assert called("eth_getBalance", b'["0x1","l\\u0061test"]') == (HEAD, BlockRef.LATEST)
    assert called("eth_getBalance", b'["0x1","\\u0030x10"]') == (HEAD, BlockRef.LATEST)


def test_only_the_parameter_that_names_the_block_is_looked_at() -> None:
    assert called("eth_call", b'[{"to":"latest","data":"0x10"},"0x10",{"0x1":"latest"}]') == (PINNED, BlockRef.NUMBER)
    assert called("eth_getStorageAt", b'["0x1","0x10","latest"]') == (HEAD, BlockRef.LATEST)
    assert called("eth_getStorageAt", b'["0x1","latest","0x10"]') == (PINNED, BlockRef.NUMBER)
    assert called("eth_getBlockByNumber", b'["0x10",false]') == (PINNED, BlockRef.NUMBER)


def test_a_method_that_names_no_block_has_no_block_and_its_own_class() -> None:
    for method in EVM.methods:
        if method.block_param < 0:
            assert called(method.name, b'["0x10","latest"]') == (method.request_class, BlockRef.NONE)


def test_a_call_holds_what_the_caller_sent() -> None:
    params = params_for(1, "latest")
    call = EVM.call("eth_call", params, b'"a"')
    assert (call.params, call.id, call.method.name) == (params, b'"a"', "eth_call")
    assert EVM.call("eth_call", params, None).id is None


@given(st.binary(max_size=200), st.sampled_from([method.name for method in EVM.methods]))
def test_any_bytes_as_parameters_give_a_call(params: bytes, method: str) -> None:
    call = EVM.call(method, params, b"1")
    own = call.method.request_class
    assert isinstance(call, Call) and (call.request_class is own or (own, call.request_class) == (HEAD, PINNED))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.sampled_from(WITH_BLOCK))
def test_any_json_as_parameters_gives_a_call_that_is_no_safer_than_it_should_be(value: object, method: Any) -> None:
    call = EVM.call(method.name, json.dumps(value).encode(), b"1")
    if call.request_class is not method.request_class:
        assert call.block in (BlockRef.NUMBER, BlockRef.HASH)


@given(st.text(max_size=40), st.binary(max_size=40))
def test_any_method_name_gives_a_call(method: str, params: bytes) -> None:
    assert EVM.call(method, params, None).method.name == method


# --- probes and look-ups -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", Family)
def test_a_probe_is_a_listed_repeatable_read_that_callers_may_use_too(family: Family) -> None:
    name, params = EVM.probe_call(family)
    call = EVM.call(name, params, b"1")
    assert call.method.known and not call.method.denied
    MethodPolicy().require(call.method)
    assert call.request_class.repeatable and not call.request_class.write
    assert not call.request_class.looked_up and call.method.family is not Family.SEND
    assert isinstance(json.loads(params), list)


def test_a_probe_is_of_the_family_it_stands_for_where_a_cheap_one_exists() -> None:
    for family in (Family.HEAD, Family.BLOCK, Family.STATE, Family.LOGS, Family.FEE):
        assert EVM.call(*EVM.probe_call(family), b"1").method.family is family
    for family in (Family.TRACE, Family.FILTER, Family.ADMIN, Family.OTHER):
        assert EVM.probe_call(family) == EVM.head_call
    assert EVM.call(*EVM.probe_call(Family.SEND), b"1").method.family is Family.FEE


def test_a_probe_asks_for_the_newest_block_and_for_no_more_than_one() -> None:
    assert called(*EVM.probe_call(Family.STATE)) == (HEAD, BlockRef.LATEST)
    assert called(*EVM.probe_call(Family.BLOCK)) == (HEAD, BlockRef.LATEST)
    (wanted,) = json.loads(EVM.probe_call(Family.LOGS)[1])
    assert wanted["fromBlock"] == wanted["toBlock"] == "latest" and len(wanted["address"]) == 42


def test_a_look_up_is_a_pinned_read_of_one_transaction() -> None:
    name, params = EVM.lookup_call(HASH)
    call = EVM.call(name, params, b"1")
    assert json.loads(params) == [HASH]
    assert (call.method.known, call.request_class) == (True, PINNED)


def test_the_chain_and_the_head_are_asked_for_with_head_reads() -> None:
    assert EVM.chain_id_call is not None
    for name, params in (EVM.chain_id_call, EVM.head_call):
        call = EVM.call(name, params, b"1")
        assert (call.request_class, call.method.family) == (HEAD, Family.HEAD)


def test_the_dialect_of_evm_chains_is_found_by_name() -> None:
    assert dialect_named("evm", chain="ethereum").name == "evm"
    with pytest.raises(ValueError, match="no dialect 'cobol'"):
        dialect_named("cobol")


# --- quantities ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "number"),
    [
        (b'"0x0"', 0),
        (b'"0x1"', 1),
        (b'"0x10d4f"', 68943),
        (b'"0xABCDEF"', 0xABCDEF),
        (b'"0x01"', 1),
        (b' "0x1" ', 1),
        (b'"0x' + b"f" * 64 + b'"', 2**256 - 1),
    ],
)
def test_a_quantity_is_read(result: bytes, number: int) -> None:
    assert quantity(result) == EVM.parse_chain_id(result) == EVM.parse_head(result) == number


@pytest.mark.parametrize(
    "result",
    [
        b"",
        b"null",
        b"1",
        b"1.5",
        b"true",
        b"[]",
        b'["0x1"]',
        b'{"number":"0x1"}',
        b'""',
        b'"0x"',
        b'"1"',
        b'"10d4f"',
        b'"0xg"',
        b'"-0x1"',
        b'"0x-1"',
        b'"0x+1"',
        b'"0x_1"',
        b'"0x1_0"',
        b'"0x1 "',
        b'" 0x1"',
        b'"0x 1"',
        b'"0x1\\n"',
        b'"0x1.0"',
        b'"0X1"',
        b'"0x\\u0661"',
        b'"0x' + b"f" * 65 + b'"',
        b'"0x' + b"0" * 1_000_000 + b'"',
        b'"0x1',
        b"0x1",
        b'"\xff\xfe"',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_quantity_is_none(result: bytes) -> None:
    assert EVM.parse_chain_id(result) is None
    assert EVM.parse_head(result) is None


@given(st.integers(0, 2**256 - 1))
def test_every_number_up_to_256_bits_is_read_back(number: int) -> None:
    assert quantity(b'"%b"' % hex(number).encode()) == number


@given(st.binary(max_size=100) | st.text(max_size=70).map(lambda text: json.dumps(text).encode()))
def test_any_result_gives_a_number_or_none(result: bytes) -> None:
    number = EVM.parse_head(result)
    assert number is None or 0 <= number < 2**256

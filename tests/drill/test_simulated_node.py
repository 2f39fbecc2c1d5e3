"""What the node says, and what the envelope around it keeps."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drill import wire
from gateway.drill.chain import Refused, SimulatedChain
from gateway.drill.node import HUGE_LOGS, METHODS, REVERTING, HugeLogs, View, family_of, perform
from gateway.model import Family

CHAIN = SimulatedChain(block_time=10, genesis_at=0)
VIEW = View(CHAIN, 10_000.0, 10_000.0, "a", "Test/v1", 10_000)
HEAD = 1000
ADDRESS = "0x" + "ab" * 20

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=10)
hexes = st.sampled_from(["0x", "0x0", "0x3e8", "0xffffffffffffffff", ADDRESS, HUGE_LOGS, CHAIN.block_hash(9), "latest"])
names = st.sampled_from(["fromBlock", "toBlock", "blockHash", "blockNumber", "address", "to", "data", "topics"])
params = st.recursive(
    scalars | hexes, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=8
)


def ask(method: str, *given_params: object) -> object:
    return perform(VIEW, method, list(given_params))


def test_identity_and_head():
    assert ask("web3_clientVersion") == "Test/v1"
    assert (ask("net_version"), ask("eth_chainId")) == ("1", "0x1")
    assert ask("eth_blockNumber") == hex(HEAD)
    assert (ask("net_listening"), ask("eth_syncing")) == (True, False)


@pytest.mark.parametrize(
    ("tag", "number"),
    [("latest", HEAD), ("pending", HEAD), ("safe", HEAD - 32), ("finalized", HEAD - 64), ("earliest", 0), ("0x9", 9)],
)
def test_every_tag_names_a_block(tag, number):
    block = ask("eth_getBlockByNumber", tag, False)
    assert isinstance(block, dict)
    assert block["number"] == hex(number)
    assert ask("eth_getBlockByHash", block["hash"], False) == block
    assert ask("eth_getBlockTransactionCountByNumber", tag) == hex(len(block["transactions"]))
    receipts = ask("eth_getBlockReceipts", tag)
    assert isinstance(receipts, list)
    assert [receipt["transactionHash"] for receipt in receipts] == block["transactions"]


def test_what_lies_beyond_the_head_is_null_for_blocks_and_refused_for_state():
    beyond = hex(HEAD + 1)
    assert ask("eth_getBlockByNumber", beyond, False) is None
    assert ask("eth_getBlockReceipts", beyond) is None
    for method, leading in [("eth_getBalance", [ADDRESS]), ("eth_call", [{"to": ADDRESS}]), ("eth_getCode", [ADDRESS])]:
        with pytest.raises(Refused, match="header not found"):
            ask(method, *leading, beyond)


def test_state_at_a_block_can_be_asked_by_number_hash_or_object():
    number, block_hash = "0x9", CHAIN.block_hash(9)
    by_number = ask("eth_getBalance", ADDRESS, number)
    assert by_number == ask("eth_getBalance", ADDRESS, {"blockNumber": number})
    assert by_number == ask("eth_getBalance", ADDRESS, {"blockHash": block_hash})
    assert by_number != ask("eth_getBalance", ADDRESS, "latest")
    with pytest.raises(Refused, match="hash not found"):
        ask("eth_getBalance", ADDRESS, {"blockHash": CHAIN.block_hash(HEAD + 1)})


def test_fees_storage_code_and_estimates_have_their_usual_form():
    history = ask("eth_feeHistory", "0x3", "latest", [10, 50])
    assert isinstance(history, dict)
    assert history["oldestBlock"] == hex(HEAD - 2)
    assert [len(history[name]) for name in ("baseFeePerGas", "gasUsedRatio", "reward")] == [4, 3, 3]
    assert len(str(ask("eth_getStorageAt", ADDRESS, "0x0", "latest"))) == 66
    assert ask("eth_getCode", ADDRESS, "latest") == "0x"
    assert ask("eth_getCode", CHAIN.token(1, 0), "latest") != "0x"
    assert ask("eth_estimateGas", {"to": ADDRESS}) == hex(21_000)
    assert int(str(ask("eth_gasPrice")), 16) > int(str(ask("eth_maxPriorityFeePerGas")), 16)


def test_a_revert_is_refused_with_code_3_and_its_data():
    with pytest.raises(Refused) as refused:
        ask("eth_call", {"to": REVERTING}, "latest")
    assert refused.value.code == 3
    assert str(refused.value.data).startswith("0x08c379a0")


def test_logs_are_limited_in_range_and_stop_at_the_head():
    with pytest.raises(Refused, match="maximum allowed is 1000 blocks"):
        ask("eth_getLogs", {"fromBlock": "0x0", "toBlock": hex(1000)})
    with pytest.raises(Refused, match="invalid block range"):
        ask("eth_getLogs", {"fromBlock": "0x2", "toBlock": "0x1"})
    assert ask("eth_getLogs", {"fromBlock": hex(HEAD + 1), "toBlock": hex(HEAD + 9)}) == []
    one = ask("eth_getLogs", {"blockHash": CHAIN.block_hash(9)})
    assert one == ask("eth_getLogs", {"fromBlock": "0x9", "toBlock": "0x9", "address": []})


@given(st.integers(1, 500_000))
def test_a_huge_answer_has_the_asked_size_and_is_valid_json(size):
    huge = perform(VIEW._replace(huge_bytes=size), "eth_getLogs", [{"address": HUGE_LOGS}])
    assert isinstance(huge, HugeLogs)
    text = b"".join(huge.pieces())
    one = len(text) if size < 1000 else 1000
    assert abs(len(text) - size) <= max(one, size)
    logs = json.loads(text)
    assert {log["address"] for log in logs} == {HUGE_LOGS}
    if size > 10_000:
        assert abs(len(text) - size) < 1000


def test_an_unknown_method_is_refused_and_belongs_to_no_family():
    with pytest.raises(Refused, match="does not exist") as refused:
        ask("eth_teleport")
    assert refused.value.code == -32601
    assert family_of("eth_teleport") is Family.OTHER
    assert [method for method in METHODS if family_of(method) is Family.OTHER] == ["drill_echo"]


@given(st.sampled_from(sorted(METHODS)), params)
def test_no_params_make_the_node_fail_other_than_by_refusing(method, given_params):
    try:
        result = perform(VIEW, method, given_params)
    except Refused as refused:
        wire.error_body(b"1", refused.code, refused.message, refused.data)
    else:
        assert isinstance(result, HugeLogs) or wire.result_body(b"1", result)


# --- the envelope ---------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(max_size=8), params, scalars), min_size=1, max_size=4), st.booleans())
def test_method_params_and_id_are_read_as_json_reads_them_and_ids_stay_as_bytes(calls, spaced):
    items = [{"jsonrpc": "2.0", "method": m, "params": p, "id": i} for m, p, i in calls if not isinstance(i, bool)]
    separators = (" , ", "\t:\n ") if spaced else (",", ":")
    for body in (
        json.dumps(items, separators=separators),
        *(json.dumps(item, separators=separators) for item in items),
    ):
        if body == "[]":
            continue
        raw = body.encode()
        read, batch = wire.parse_body(raw)
        assert batch == body.startswith("[")
        plain = json.loads(raw) if batch else [json.loads(raw)]
        assert [call.method for call in read] == [item["method"] for item in plain]
        assert [json.loads(call.id or b"") for call in read] == [item["id"] for item in plain]
        assert [json.loads(call.raw_params) for call in read] == [item["params"] for item in plain]
        assert all(call.id is not None and call.id in raw for call in read)


@given(st.binary(max_size=40) | st.text(alphabet='[]{}:,"id12 \\', max_size=30).map(str.encode))
def test_any_other_body_is_refused_and_never_breaks_the_reader(body):
    try:
        calls, _ = wire.parse_body(body)
    except Refused as refused:
        assert refused.code in (-32700, -32600)
    else:
        json.loads(body)
        assert calls


@pytest.mark.parametrize("raw_id", [b"1", b"1e3", b"-0.50", b'"\\u0041 x"', b"null", b"12345678901234567890123"])
def test_an_id_goes_back_as_the_very_bytes_it_came_in(raw_id):
    calls, _ = wire.parse_body(b'{ "method":"eth_chainId" , "id" : %s , "params":[] }' % raw_id)
    assert calls[0].id == raw_id
    assert wire.result_body(raw_id, "0x1") == b'{"jsonrpc":"2.0","id":%s,"result":"0x1"}' % raw_id


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1",
        b"POST / HTTP/1.1\r\nHost: a\r\nHost: b",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1",
        b"POST / HTTP/1.1\r\nHost: a\r\n folded: 1",
        b"POST / HTTP/1.1\r\nHost: a\r\nX: a\nY: b",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999",
        b"POST / HTTP/1.1",
        b"POST  / HTTP/1.1\r\nHost: a",
        b"POST / HTTP/2.0\r\nHost: a",
        b"hello",
    ],
)
def test_a_head_in_doubt_is_refused(head):
    with pytest.raises(wire.BadRequest):
        wire.parse_head(head)


def test_keep_alive_follows_version_and_wish():
    wishes = [(b"1.1", b"", True), (b"1.1", b"close", False), (b"1.0", b"", False), (b"1.0", b"Keep-Alive", True)]
    for version, wish, kept in wishes:
        line = b"\r\nConnection: " + wish if wish else b""
        assert wire.parse_head(b"POST / HTTP/%s\r\nHost: a%s" % (version, line)).keep_alive is kept

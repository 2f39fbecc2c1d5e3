"""The laws of EVM subscriptions: equal requests share a feed, values keep their bytes, a bloom's no is certain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.dialect import evm_events
from gateway.dialect.evm import EvmDialect
from gateway.dialect.evm_events import BLOOM, MANY, mask_of
from gateway.dialect.subscriptions import LONGEST_KEY
from gateway.events import FeedKind, Header, Log, LogFilter, Subscription

EVM = EvmDialect()
HASH, PARENT, TOPIC = "0x" + "ab" * 32, "0x" + "0c" * 32, "0x" + "dd" * 32
ADDRESS = "0x" + "5a" * 20

# Sepolia, block 0xb51ab6, transaction 0xa1a545df..: the one log of a receipt, and the receipt's bloom filter.
SEEN_ADDRESS = "0xb8e9add2a9a4968f7bd5c1a8bfb43a55761e6a02"
SEEN_TOPICS = (
    "0xf93f9a76c1bf3444d22400a00cb9fe990e6abe9dbb333fda48859cfee864543d",
    "0x0000000000000000000000005a5b0ab8613ba0f16e257228e4109a8f611ec4fd",
)
SEEN_BITS = (24, 55, 85, 138, 962, 980, 1248, 1780, 1828)

# go-ethereum's header on `newHeads` after Prague; a chain of its own adds a member.
HEADER: dict[str, Any] = {
    "parentHash": PARENT,
    "sha3Uncles": HASH,
    "miner": ADDRESS,
    "stateRoot": HASH,
    "transactionsRoot": HASH,
    "receiptsRoot": HASH,
    "logsBloom": "0x" + "00" * 255 + "01",
    "difficulty": "0x0",
    "number": "0x1b4",
    "gasLimit": "0x1c9c380",
    "gasUsed": "0x5208",
    "timestamp": "0x66aa",
    "extraData": "0x",
    "mixHash": HASH,
    "nonce": "0x0000000000000000",
    "baseFeePerGas": "0x7",
    "withdrawalsRoot": HASH,
    "blobGasUsed": "0x0",
    "excessBlobGas": "0x0",
    "parentBeaconBlockRoot": HASH,
    "requestsHash": HASH,
    "l1BlockNumber": "0x99",
    "hash": HASH,
}
BODY: dict[str, Any] = {
    "size": "0x220",
    "totalDifficulty": "0x0",
    "uncles": [],
    "transactions": [HASH, {"hash": HASH, "size": "0x1"}],
    "withdrawals": [{"index": "0x1"}],
}
LOG: dict[str, Any] = {
    "address": ADDRESS,
    "topics": [TOPIC],
    "data": "0x",
    "blockNumber": "0x1b4",
    "transactionHash": HASH,
    "transactionIndex": "0x0",
    "blockHash": HASH,
    "logIndex": "0x2",
    "removed": False,
}


def asked(*params: Any) -> Subscription:
    """The subscription of an `eth_subscribe` with these parameters."""
    found = EVM.subscription("eth_subscribe", json.dumps(params).encode())
    assert found is not None
    return found


def raw(value: Any, **changes: Any) -> bytes:
    return json.dumps(value | changes).encode()


# --- what is asked for --------------------------------------------------------------------------------


def test_a_method_that_does_not_subscribe_is_none() -> None:
    for method in ("eth_call", "eth_unsubscribe", "eth_subscription", "subscribe", "_subscribe", 'a"b_subscribe', ""):
        assert EVM.subscription(method, b"[]") is None
    assert EVM.ends_subscription("eth_unsubscribe") and EVM.ends_subscription("parity_unsubscribe")
    assert not EVM.ends_subscription("eth_subscribe") and not EVM.ends_subscription("_unsubscribe")


def test_heads_are_one_feed_however_they_are_asked_for() -> None:
    heads = asked("newHeads")
    assert (
        heads == asked("newHeads", None) == asked("newHeads", {}) == asked("newHeads", {"includeTransactions": False})
    )
    assert (heads.kind, heads.params, heads.label) == (FeedKind.HEADS, b'["newHeads"]', "newHeads")
    assert (heads.unsubscribe, heads.notification) == ("eth_unsubscribe", "eth_subscription")


def test_heads_with_their_transactions_are_something_else() -> None:
    whole = asked("newHeads", {"includeTransactions": True})
    assert whole.kind is FeedKind.PLAIN and whole.key != asked("newHeads").key


def test_pending_transactions_are_asked_for_without_a_false_that_some_nodes_refuse() -> None:
    hashes = asked("newPendingTransactions")
    assert hashes == asked("newPendingTransactions", False) == asked("newPendingTransactions", None)
    assert hashes.params == b'["newPendingTransactions"]'
    whole = asked("newPendingTransactions", True)
    assert whole.params == b'["newPendingTransactions",true]' and whole.key != hashes.key
    assert whole.label == hashes.label == "newPendingTransactions"


@pytest.mark.parametrize(
    "option",
    [
        {"address": "0x12"},
        {"address": ADDRESS[2:]},
        {"address": 7},
        {"address": {"a": 1}},
        {"address": [ADDRESS, None]},
        {"topics": TOPIC},
        {"topics": ["0x12"]},
        {"topics": [[TOPIC, None]]},  # anything, to go-ethereum; others leave the null out
        {"topics": [[[TOPIC]]]},
        {"topics": [None] * 5},
        {"fromBlock": "0x10"},
        {"fromBlock": "earliest"},
        {"toBlock": "0x10"},
        {"toBlock": "finalized"},
        {"blockHash": HASH},
        {"limit": 3},
        [],
        "0x1",
        7,
        False,
    ],
)
def test_an_odd_filter_is_passed_on_for_the_upstream_to_judge(option: Any) -> None:
    odd = asked("logs", option)
    assert odd.kind is FeedKind.PLAIN and odd.filter is None and odd.label == "logs"
    assert json.loads(odd.params) == ["logs", option]


def test_more_than_is_known_is_passed_on() -> None:
    assert asked("logs", {}, 1).kind is asked("newHeads", {}, 1).kind is FeedKind.PLAIN
    assert asked("newHeads", 7).kind is asked().kind is asked(7).kind is FeedKind.PLAIN
    assert asked("nobody_knows_this").label == "other"


def test_other_namespaces_have_subscriptions_of_their_own() -> None:
    found = EVM.subscription("parity_subscribe", b'["eth_getBalance", ["0x1"]]')
    assert found is not None
    assert (found.unsubscribe, found.notification) == ("parity_unsubscribe", "parity_subscription")
    assert found.params == b'["eth_getBalance",["0x1"]]' and found.kind is FeedKind.PLAIN


def test_a_filter_that_only_says_from_now_on_is_the_plain_one() -> None:
    assert asked("logs", {"fromBlock": "latest", "toBlock": "latest", "address": None, "topics": None}) == asked("logs")
    assert asked("logs", {"fromBlock": "0x0", "address": [], "topics": []}) == asked("logs", {}) == asked("logs", None)


def test_trailing_nulls_of_topics_are_kept() -> None:
    """A log must have as many topics as the filter has positions: so an ERC-721 transfer is told from an ERC-20 one."""
    erc721, erc20 = asked("logs", {"topics": [TOPIC, None, None, None]}), asked("logs", {"topics": [TOPIC]})
    assert erc721.key != erc20.key and erc721.filter is not None
    assert erc721.filter.raw_topics == b'["%b",null,null,null]' % TOPIC.encode()


def test_a_filter_is_sent_as_it_was_understood() -> None:
    found = asked("logs", {"topics": [[TOPIC.upper().replace("0X", "0x")], []], "address": [ADDRESS, ADDRESS]})
    assert found.params == b'["logs",{"address":"%b","topics":["%b",null]}]' % (ADDRESS.encode(), TOPIC.encode())
    assert found.filter == LogFilter(
        b'"%b"' % ADDRESS.encode(), b'["%b",null]' % TOPIC.encode(), (ADDRESS,), ((TOPIC,), ())
    )
    between = b'[{"fromBlock":"0x1","toBlock":"0xff","address":"%b","topics":["%b",null]}]'
    assert EVM.logs_between(found.filter, 1, 255) == ("eth_getLogs", between % (ADDRESS.encode(), TOPIC.encode()))
    assert EVM.logs_of(LogFilter(), HASH) == ("eth_getLogs", b'[{"blockHash":"%b"}]' % HASH.encode())


addresses = st.integers(0, 5).map(lambda n: f"0x{n:040x}".replace("0000", "aBcD", 1))
hashes = st.integers(0, 5).map(lambda n: f"0x{n:064x}".replace("0000", "AbCd", 1))


@st.composite
def filters(draw: st.DrawFn) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """A filter, and what it means."""
    some = draw(st.lists(addresses, max_size=3))
    positions = draw(st.lists(st.lists(hashes, max_size=3), max_size=4))
    written: dict[str, Any] = {}
    if some or draw(st.booleans()):
        written["address"] = some[0] if len(some) == 1 and draw(st.booleans()) else some
    if positions or draw(st.booleans()):
        written["topics"] = [
            (p[0] if len(p) == 1 and draw(st.booleans()) else p) if p or draw(st.booleans()) else None
            for p in positions
        ]
    lower = tuple(tuple(sorted({v.lower() for v in values})) for values in (some, *positions))
    return written, lower


def _otherwise_written(value: Any, draw: Any) -> Any:
    """The same JSON with other case, order of members and order of alternatives."""
    if isinstance(value, dict):
        return {name: _otherwise_written(value[name], draw) for name in draw(st.permutations(sorted(value)))}
    if isinstance(value, list):
        return [_otherwise_written(item, draw) for item in value]
    if isinstance(value, str) and draw(st.booleans()):
        return "0x" + value[2:].upper()
    return value


@given(filters(), filters())
def test_filters_share_a_feed_exactly_when_they_mean_the_same(one: Any, other: Any) -> None:
    first, second = asked("logs", one[0]), asked("logs", other[0])
    assert first.kind is second.kind is FeedKind.LOGS
    assert (first.key == second.key) == (one[1] == other[1])
    assert (first.params == second.params) == (one[1] == other[1])
    assert first.filter is not None and (first.filter.addresses, *first.filter.topics) == one[1]


@given(filters(), st.data())
def test_how_a_filter_is_written_makes_no_difference(one: Any, data: st.DataObject) -> None:
    written = _otherwise_written(one[0], data.draw)
    spaced = json.dumps(["logs", written], indent=data.draw(st.sampled_from([None, 1, 2]))).encode()
    assert EVM.subscription("eth_subscribe", spaced) == asked("logs", one[0])


def test_a_key_is_short_however_long_the_request() -> None:
    many = asked("logs", {"address": [f"0x{n:040x}" for n in range(5000)]})
    more = asked("logs", {"address": [f"0x{n:040x}" for n in range(5001)]})
    assert len(many.key) <= LONGEST_KEY and many.key != more.key
    assert many.kind is FeedKind.LOGS


def test_of_two_members_with_one_name_the_same_one_counts_upstream() -> None:
    twice = b'["logs",{"address":"%b","address":"%b"}]' % (ADDRESS.encode(), ("0x" + "11" * 20).encode())
    found = EVM.subscription("eth_subscribe", twice)
    assert found == asked("logs", {"address": "0x" + "11" * 20})


HOSTILE = [
    b"",
    b"null",
    b"{}",
    b"7",
    b"[",
    b"[]x",
    b'["logs"',
    b'["\xff"]',
    b'["logs",{"address":"\xff"}]',
    b'["\\ud800"]',
    b'["logs",{"\\ud800":1}]',
    b'["logs",' + b"[" * 50_000 + b"]" * 50_000 + b"]",
    b'["logs",{"topics":' + b"[" * 500 + b"]" * 500 + b"}]",
    b'["logs",{"fromBlock":' + b"9" * 5000 + b"}]",
    b'["logs",{"fromBlock":1e999999}]',
    b'["logs",{"fromBlock":"0x0","fromBlock":{}}]',
    b'[["logs"]]',
    b'{"a":["logs"]}',
]


@pytest.mark.parametrize("params", HOSTILE)
def test_hostile_parameters_give_a_subscription_that_is_whole_json(params: bytes) -> None:
    found = EVM.subscription("eth_subscribe", params)
    assert found is not None and found.kind is FeedKind.PLAIN
    if b"9999" not in params:  # Python's reader refuses very long numbers
        assert found.params == b"" or json.loads(found.params.decode()) is not None
    EVM.subscription_id(params)


@given(st.binary(max_size=200) | st.text().map(lambda text: json.dumps([text, {text: text}]).encode()))
def test_no_parameters_raise(params: bytes) -> None:
    found = EVM.subscription("eth_subscribe", params)
    assert found is not None
    EVM.subscription_id(params)
    for read in (EVM.read_header, EVM.read_log, EVM.read_logs):
        assert read(params) in (None, [])
    assert EVM.place(found, params) == (b"", -1)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        (b'["0x9"]', b'"0x9"'),
        (b'[ "0x9" , 1]', b'"0x9"'),
        (b'["\\u0030x9"]', b'"0x9"'),
        (b"[23784]", b"23784"),
        (b'{"subscription_id":"7"}', b'"7"'),
        (b'{"subscription":"0x9"}', b'"0x9"'),
        (b"[]", None),
        (b"", None),
        (b"{}", None),
        (b"[null]", None),
        (b"[1.5]", None),
        (b"[[1]]", None),
        (b"[" + b"1" * 5000 + b"]", None),
    ],
)
def test_an_unsubscribe_call_names_an_id_as_we_write_it(params: bytes, named: bytes | None) -> None:
    assert EVM.subscription_id(params) == named


# --- headers ------------------------------------------------------------------------------------------


def test_a_pushed_header_is_told_as_it_came() -> None:
    text = raw(HEADER)
    assert EVM.read_header(text) == Header(0x1B4, HASH, PARENT, text, bytes(255) + b"\x01", 0x66AA)


@given(st.permutations(sorted((HEADER | BODY).items())), st.sets(st.sampled_from(sorted(BODY))))
def test_a_fetched_block_tells_what_a_pushed_header_would(members: list[tuple[str, Any]], left_out: set[str]) -> None:
    block = {name: value for name, value in members if name not in left_out}
    header = EVM.read_header(raw(block))
    assert header is not None and json.loads(header.raw) == HEADER
    assert (header.number, header.hash, header.parent) == (0x1B4, HASH, PARENT)


def test_the_values_of_a_header_keep_their_bytes() -> None:
    """An odd number, an escape, a number too large: whatever it is, it is the upstream's word."""
    odd = b'{"transactions":[],"number":"0x1","hash":"%b","parentHash":"%b","x": 1.00,"y":[1, 2],"z":"\\u00e9"}'
    header = EVM.read_header(odd % (HASH.encode(), PARENT.encode()))
    assert header is not None
    assert header.raw == b'{"number":"0x1","hash":"%b","parentHash":"%b","x":1.00,"y":[1, 2],"z":"\\u00e9"}' % (
        HASH.encode(),
        PARENT.encode(),
    )


def test_hashes_are_compared_in_lower_case_and_told_as_they_came() -> None:
    header = EVM.read_header(raw(HEADER, hash="0x" + "AB" * 32))
    assert header is not None and header.hash == HASH and b"ABAB" in header.raw


@pytest.mark.parametrize("bloom", [None, "0x", "", "0x" + "0" * 511, "00" * 257, "0x" + "0g" * 256, "0x" + " 0" * 256])
def test_a_bloom_filter_that_is_none_is_unknown(bloom: str | None) -> None:
    header = EVM.read_header(raw(HEADER, logsBloom=bloom))
    assert header is not None and header.bloom == b""


@pytest.mark.parametrize(
    "text",
    [
        b"null",
        b"[]",
        b"{}",
        b'"0x1"',
        raw(HEADER, number=None),
        raw(HEADER, number=436),
        raw(HEADER, number="436"),
        raw(HEADER, number="0x" + "f" * 17),
        raw(HEADER, number="0x\u0661"),
        raw(HEADER, hash=None),
        raw(HEADER, hash="0x12"),
        raw(HEADER, parentHash=HASH + "00"),
        raw(HEADER, parentHash=HASH[:-1] + "g"),
        raw(HEADER, logsBloom=7),
        raw(HEADER)[:-1],
        raw(HEADER).replace(b"0x5208", b"\xff\xff"),
        raw(HEADER)[:-1] + b',"deep":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
)
def test_what_is_no_header_of_a_block_is_none(text: bytes) -> None:
    assert EVM.read_header(text) is None


def test_a_header_is_asked_for_by_number_or_hash() -> None:
    assert EVM.header_by_number(436) == ("eth_getBlockByNumber", b'["0x1b4",false]')
    assert EVM.header_by_hash(HASH) == ("eth_getBlockByHash", b'["%b",false]' % HASH.encode())


# --- logs ---------------------------------------------------------------------------------------------


def test_a_log_is_told_as_it_came() -> None:
    text = raw(LOG)
    assert EVM.read_log(text) == Log(0x1B4, HASH, 2, text, False)
    assert EVM.read_logs(b"[%b, %b]" % (text, text)) == [EVM.read_log(text)] * 2
    assert EVM.read_logs(b"[]") == []


def test_a_removed_log_says_so() -> None:
    gone = EVM.read_log(raw(LOG, removed=True))
    assert gone is not None and gone.removed
    unsaid = EVM.read_log(raw(LOG, removed=None))
    assert unsaid is not None and not unsaid.removed


@given(st.permutations(sorted(LOG.items())), st.sampled_from([True, False, None, "absent"]))
def test_a_log_of_an_abandoned_block_differs_in_one_member(members: list[tuple[str, Any]], said: Any) -> None:
    log = {
        name: said if name == "removed" else value for name, value in members if (name, said) != ("removed", "absent")
    }
    before = EVM.read_log(raw(log))
    assert before is not None
    after = EVM.removed(before)
    assert after.removed and json.loads(after.raw) == LOG | {"removed": True}
    assert (after.number, after.block, after.index) == (before.number, before.block, before.index)
    assert EVM.read_log(after.raw) == after == EVM.removed(after)


def test_the_values_of_a_removed_log_keep_their_bytes() -> None:
    text = raw(LOG)[:-1] + b',"x": 1.00,"y":{"removed":false},"z":"\\"removed\\":false"}'
    log = EVM.read_log(text)
    assert log is not None
    assert EVM.removed(log).raw.endswith(b'"removed":true,"x":1.00,"y":{"removed":false},"z":"\\"removed\\":false"}')


@pytest.mark.parametrize(
    "text",
    [
        b"null",
        b"{}",
        raw(LOG, blockHash=None),  # of no block yet
        raw(LOG, blockNumber=None),
        raw(LOG, logIndex=None),
        raw(LOG, logIndex="0x"),
        raw(LOG, removed="false"),
        raw(LOG)[:-2],
        raw(LOG).replace(b'"0x0"', b'"\xff"'),
    ],
)
def test_what_is_no_log_of_a_block_is_none_and_spoils_its_list(text: bytes) -> None:
    assert EVM.read_log(text) is None
    assert EVM.read_logs(b"[%b,%b]" % (raw(LOG), text)) is None


def test_an_answer_that_is_no_list_is_none() -> None:
    assert EVM.read_logs(b"null") is EVM.read_logs(b"{}") is EVM.read_logs(b"[") is None


# --- the bloom filter ---------------------------------------------------------------------------------


def wanted(address: list[str] | None = None, topics: list[list[str]] | None = None) -> LogFilter:
    found = asked("logs", {"address": address or [], "topics": topics or []}).filter
    assert found is not None
    return found


def bloom_of(*values: str) -> bytes:
    mask = 0
    for value in values:
        mask |= mask_of(bytes.fromhex(value[2:]))
    return mask.to_bytes(BLOOM, "big")


def test_a_bloom_filter_of_a_real_receipt_is_made_of_its_log() -> None:
    assert int.from_bytes(bloom_of(SEEN_ADDRESS, *SEEN_TOPICS), "big") == sum(1 << bit for bit in SEEN_BITS)


def test_a_real_receipt_matches_what_it_holds() -> None:
    bloom = sum(1 << bit for bit in SEEN_BITS).to_bytes(BLOOM, "big")
    assert EVM.may_match(wanted(), bloom)
    assert EVM.may_match(wanted([SEEN_ADDRESS, ADDRESS], [[SEEN_TOPICS[0]], [SEEN_TOPICS[1], TOPIC]]), bloom)
    assert EVM.may_match(wanted(None, [[], [SEEN_TOPICS[1]]]), bloom)
    assert not EVM.may_match(wanted([ADDRESS]), bloom)
    assert not EVM.may_match(wanted([SEEN_ADDRESS], [[TOPIC]]), bloom)


def test_without_logs_nothing_matches_and_without_a_filter_anything_may() -> None:
    for each in (wanted(), wanted([ADDRESS]), wanted([f"0x{n:040x}" for n in range(2 * MANY)])):
        assert not EVM.may_match(each, bytes(BLOOM))
        assert EVM.may_match(each, b"") and EVM.may_match(each, bytes(BLOOM - 1))
        assert EVM.may_match(each, b"\xff" * BLOOM)


log_values = st.tuples(addresses, st.lists(hashes, max_size=4))


@given(filters(), st.lists(log_values, max_size=4))
@examples(max_examples=300)
def test_a_block_that_holds_a_wanted_log_is_never_ruled_out(one: Any, logs: list[tuple[str, list[str]]]) -> None:
    found = asked("logs", one[0]).filter
    assert found is not None
    bloom = bloom_of(*(value.lower() for address, topics in logs for value in (address, *topics)))
    held = any(_matches(one[1], address.lower(), [topic.lower() for topic in topics]) for address, topics in logs)
    if held:
        assert EVM.may_match(found, bloom)


def _matches(meaning: tuple[tuple[str, ...], ...], address: str, topics: list[str]) -> bool:
    """What go-ethereum does."""
    some, *positions = meaning
    if (some and address not in some) or len(positions) > len(topics):
        return False
    return all(not values or topic in values for values, topic in zip(positions, topics, strict=False))


def test_a_bloom_filter_rules_out_most_blocks_of_others() -> None:
    """Figure: with 30 other logs in a block, one address and topic are ruled out nearly always."""
    each = wanted([ADDRESS], [[TOPIC]])
    ruled_out = sum(
        not EVM.may_match(each, bloom_of(*(f"0x{1000 * block + n:064x}" for n in range(60)))) for block in range(1, 201)
    )
    print(f"\n{ruled_out} of n=200 blocks with 60 other values are ruled out (numbered, no seed)")
    assert ruled_out >= 195


# --- passed through -----------------------------------------------------------------------------------


def test_a_pending_transaction_is_known_by_its_hash() -> None:
    text = b'"%b"' % HASH.upper().replace("0X", "0x").encode()
    assert EVM.place(asked("newPendingTransactions"), text) == (HASH.encode(), -1)
    whole = asked("newPendingTransactions", True)
    assert EVM.place(whole, raw({"hash": HASH, "nonce": "0x1"})) == (HASH.encode(), -1)
    assert EVM.place(asked("alchemy_pendingTransactions", {}), raw({"hash": HASH})) == (HASH.encode(), -1)


@pytest.mark.parametrize("text", [b"null", b"{}", b'"0x1"', b"7", b'{"hash":7}', b'{"hash":"\xff"}', b'"'])
def test_an_event_without_a_hash_is_known_by_nothing(text: bytes) -> None:
    assert EVM.place(asked("newPendingTransactions"), text) == (b"", -1)


def test_other_events_are_known_by_nothing_and_asked_for_by_no_call() -> None:
    assert EVM.place(asked("syncing"), b'"%b"' % HASH.encode()) == (b"", -1)
    assert EVM.refresh(asked("syncing")) is None and EVM.refreshed(asked("syncing"), b"true") is None


def test_labels_are_a_closed_set() -> None:
    for name in evm_events.LABELLED:
        assert asked(name).label == name
    assert asked("x" * 1000).label == "other"

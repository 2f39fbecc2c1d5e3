"""The dialect of Bitcoin: heights, transaction ids, a wallet that stays shut, and answers as nodes give them."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.bitcoin import MAX_HEIGHT, BitcoinDialect
from gateway.dialect.bitcoin_transactions import MAX_RAW, transaction_id
from gateway.dialect.jsonrpc import BadReply, StreamedId, read_reply
from gateway.model import BlockRef, Elsewhere, Family, HeadReport, Outcome, ReplyKind, RequestClass
from tests.dialect.recorded import expected, read, replies

BITCOIN = BitcoinDialect()
FINDINGS = ("head", "final", "missing", "fits", "wrong")
SEED = 840000
GENESIS = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
# Published in BIP 143 (P2WPKH), with and without the witness of its second input; both have one id.
WITNESS = (
    "01000000000102fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f00000000494830450221008b9d1dc26ba6"
    "a9cb62127b02742fa9d754cd3bebf337f7a55d114c8e5cdd30be022040529b194ba3f9281a99f2b1c0a19c0489bc22ede944ccf4ecbab4cc"
    "618ef3ed01eeffffffef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb20600"
    "0000001976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0"
    "167faa815988ac000247304402203609e17b84f6a7d30c80bfa610b5b4542f32a8a0d5447a12fb1366d7f01cc44a0220573a954c45183315"
    "61406f90300e8f3358f51928d43c212a8caed02de67eebee0121025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07ae"
    "ee635711000000"
)
WITNESS_ID = "e8151a2af31c368a35053ddd4bdb285a8595c769a3ad83e0fa02314a602d4609"
COINBASE = (
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d010445546865205469"
    "6d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f"
    "722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649"
    "f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
)
COINBASE_ID = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"


def words(text: str) -> list[str]:
    return text.split()


def params(*items: object) -> bytes:
    return json.dumps(items).encode()


def size(number: int) -> bytes:
    if number < 0xFD:
        return bytes([number])
    return b"\xfd" + number.to_bytes(2, "little") if number < 1 << 16 else b"\xfe" + number.to_bytes(4, "little")


def invented(chance: random.Random) -> tuple[bytes, bytes]:
    """A transaction with witness and the same without: what is sent, and what is hashed."""
    inputs = chance.choice([1, 1, 2, 3, 300])
    start, end = chance.choice([b"\1\0\0\0", b"\2\0\0\0"]), chance.randbytes(4)
    body = size(inputs)
    for _ in range(inputs):
        script = chance.randbytes(chance.choice([0, 0, 23, 107, 260]))
        body += chance.randbytes(36) + size(len(script)) + script + chance.randbytes(4)
    outputs = chance.randint(1, 4)
    body += size(outputs)
    for _ in range(outputs):
        script = chance.randbytes(chance.choice([0, 22, 25, 34]))
        body += chance.randbytes(8) + size(len(script)) + script
    witness = b""
    for _ in range(inputs):
        items = [chance.randbytes(chance.choice([0, 33, 72, 600])) for _ in range(chance.randint(0, 3))]
        witness += size(len(items)) + b"".join(size(len(item)) + item for item in items)
    return start + b"\0\1" + body + witness + end, start + body + end


def sha256d(data: bytes) -> str:
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()[::-1].hex()


# --- recorded answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [*replies("bitcoin"), *replies("bcoin")], ids=lambda row: str(row["about"]))
def test_a_recorded_answer_is_read_as_what_it_is(row: dict[str, Any]) -> None:
    reading, told = read(BITCOIN, row)
    assert reading.kind.value == row["kind"], reading.detail
    assert expected(row, told) == {name: row[name] for name in FINDINGS if name in row}


def test_the_id_computed_here_is_the_one_that_a_real_node_gives_back() -> None:
    sends = [row for row in replies("bcoin") if row["method"] == "sendrawtransaction" and row["kind"] == "answer"]
    ids = [json.loads(row["body"])["result"] for row in sends]
    assert [BITCOIN.transaction_hash(params(*row["params"])) for row in sends] == ids
    assert len(set(ids)) == 3
    looked_up = next(
        row for row in replies("bcoin") if row["method"] == "getrawtransaction" and len(row["params"]) == 2
    )
    assert BITCOIN.found(ids[0], json.dumps(json.loads(looked_up["body"])["result"]).encode()) is True


def test_an_answer_without_a_version_and_with_both_members_is_one() -> None:
    assert read_reply(b'{"result":5,"error":null,"id":7}\n', 7) == (b"5", None)
    assert read_reply(b'{"result":null,"error":null,"id":7}\n', 7) == (b"null", None)
    assert read_reply(b'{"result":null,"error":{"code":-5,"message":"x"},"id":7}', 7) == (
        None,
        b'{"code":-5,"message":"x"}',
    )
    for body in (b'{"result":5,"error":null,"id":8}', b'{"error":null,"id":7}', b'{"result":5,"error":null,"id":null}'):
        with pytest.raises(BadReply):
            read_reply(body, 7)


def test_a_large_answer_of_this_shape_is_passed_on_while_it_comes() -> None:
    body = b'{"result":"%b","error":null,"id":7}\n' % (b"ab" * 3000)
    assert StreamedId.is_result(body[:512])
    relay = StreamedId(7, b'"mine"')
    given_on = relay.open(body[:4096]) + relay.piece(body[4096:]) + relay.end()
    assert json.loads(given_on) == {"result": "ab" * 3000, "error": None, "id": "mine"}


def test_a_node_that_is_not_ready_is_never_an_answer() -> None:
    for method in ("getblockcount", "sendrawtransaction", "getblock", "getrawtransaction", "nosuchmethod"):
        for status in (200, 500):
            known = BITCOIN.methods.get(method)
            kind, _ = BITCOIN.classify_error(status, -28, "Loading block index…", b"", known)
            assert kind.elsewhere is Elsewhere.YES and kind.counts is not Outcome.SUCCESS


def test_what_pruning_took_is_asked_of_others_and_what_never_was_is_an_answer_of_the_last_one_asked() -> None:
    method = BITCOIN.methods.get("getblock")
    for code, words in ((-1, "Block not available (pruned data)"), (-5, "Block not found")):
        kind, _ = BITCOIN.classify_error(500, code, words, b"", method)
        assert (kind, kind.counts) == (ReplyKind.MISSING_DATA, Outcome.IGNORED)


def test_a_caller_can_not_make_an_endpoint_look_broken_with_wrong_parameters() -> None:
    for row in replies("bitcoin"):
        if row["kind"] in ("invalid_request", "refusal", "missing_data"):
            assert ReplyKind.named(row["kind"]).counts is Outcome.IGNORED


# --- calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "raw", "block", "height"),
    [
        ("getblockhash", b"[840000]", BlockRef.NUMBER, 840000),
        ("getblockhash", b'{"height":840000}', BlockRef.NUMBER, 840000),
        ("getblockhash", b"[-1]", BlockRef.HASH, -1),
        ("getblockhash", b'["840000"]', BlockRef.HASH, -1),
        ("getblockhash", b"", BlockRef.HASH, -1),
        ("getblockstats", b'[0,["txs"]]', BlockRef.NUMBER, 0),
        ("getblockstats", b'["%b"]' % GENESIS.encode(), BlockRef.HASH, -1),
        ("getblock", b'["%b",2]' % GENESIS.encode(), BlockRef.HASH, -1),
        ("getrawtransaction", b'["%b",1]' % WITNESS_ID.encode(), BlockRef.HASH, -1),
        ("getblockcount", b"[]", BlockRef.NONE, -1),
        ("gettxout", b"[5]", BlockRef.NONE, -1),
        ("sendrawtransaction", b"[5]", BlockRef.NONE, -1),
    ],
)
def test_a_call_says_which_block_it_is_about(method: str, raw: bytes, block: BlockRef, height: int) -> None:
    call = BITCOIN.call(method, raw, b"1")
    assert (call.block, call.low, call.high) == (block, height, height)
    assert call.about_the_head == (call.request_class is not RequestClass.PINNED_READ)


@pytest.mark.parametrize(
    ("method", "request_class", "family"),
    [
        ("getblockcount", RequestClass.HEAD_READ, Family.HEAD),
        ("getbestblockhash", RequestClass.HEAD_READ, Family.HEAD),
        ("getblockchaininfo", RequestClass.HEAD_READ, Family.HEAD),
        ("getblockhash", RequestClass.PINNED_READ, Family.BLOCK),
        ("getblock", RequestClass.PINNED_READ, Family.BLOCK),
        ("gettxout", RequestClass.HEAD_READ, Family.STATE),
        ("estimatesmartfee", RequestClass.HIGHEST_READ, Family.FEE),
        ("scantxoutset", RequestClass.HEAVY_READ, Family.LOGS),
        ("sendrawtransaction", RequestClass.BROADCAST, Family.SEND),
        ("submitpackage", RequestClass.UNKNOWN, Family.SEND),
        ("waitfornewblock", RequestClass.STATEFUL, Family.FILTER),
        ("nosuchmethod", RequestClass.UNKNOWN, Family.OTHER),
    ],
)
def test_what_may_be_done_with_a_call(method: str, request_class: RequestClass, family: Family) -> None:
    call = BITCOIN.call(method, b"[]", b"1")
    assert (call.request_class, call.method.family) == (request_class, family)


WALLET = words("""
sendtoaddress sendmany send sendall walletpassphrase dumpprivkey importprivkey signrawtransactionwithkey signmessage
signrawtransactionwithwallet fundrawtransaction bumpfee encryptwallet backupwallet createwallet loadwallet getbalance
listunspent listtransactions getnewaddress gettransaction z_sendmany z_exportkey z_importviewingkey
""")
OPERATOR = words("""
stop addnode disconnectnode setban setnetworkactive invalidateblock reconsiderblock pruneblockchain generate
generatetoaddress generateblock generatetodescriptor submitblock prioritisetransaction savemempool getpeerinfo logging
""")


@pytest.mark.parametrize("name", [*WALLET, *OPERATOR])
def test_the_nodes_wallet_and_its_controls_are_denied(name: str) -> None:
    for spelled in (name, name.upper(), f" {name}", name.replace("e", "\u00e9")):
        method = BITCOIN.methods.get(spelled)
        assert method.denied and not method.request_class.repeatable, spelled


def test_no_denial_reaches_what_callers_need() -> None:
    for name in ("sendrawtransaction", "getblock", "getrawtransaction", "gettxout", "estimatesmartfee", "decodescript"):
        assert not BITCOIN.methods.get(name).denied


# --- the head ------------------------------------------------------------------------------------------


def test_the_newest_block_comes_with_its_hash_and_time() -> None:
    info = {"chain": "main", "blocks": 5, "headers": 6, "bestblockhash": GENESIS.upper(), "time": 1740000123}
    assert BITCOIN.parse_poll(json.dumps(info).encode()) == HeadReport(5, GENESIS, "", 1740000123)
    older = {"blocks": 5, "bestblockhash": GENESIS, "mediantime": 1740000000}
    assert BITCOIN.parse_poll(json.dumps(older).encode()) == HeadReport(5, GENESIS)
    assert BITCOIN.parse_poll(json.dumps(GENESIS).encode()) == HeadReport(0, GENESIS)
    for result in (b"null", b'"abc"', b'{"blocks":-1}', b'{"blocks":"5"}', b"[]", b'{"blocks":%d}' % (MAX_HEIGHT + 1)):
        assert BITCOIN.parse_poll(result) is None
    assert BITCOIN.parse_poll(b'{"blocks":5,"bestblockhash":"x"}') == HeadReport(5)


def test_a_head_that_is_said_is_the_head_that_is_read() -> None:
    for number in (0, 884600, MAX_HEIGHT):
        raw = BITCOIN.encode_head(number)
        assert raw is not None and BITCOIN.parse_head(raw) == number
    for result in (b"-1", b"null", b'"5"', b"", b"true", b"%d" % (MAX_HEIGHT + 1)):
        assert BITCOIN.parse_head(result) is None


@pytest.mark.parametrize(
    ("subversion", "version"),
    [
        ("/Satoshi:25.0.0/", "bitcoin-core/25.0.0"),
        ("/Satoshi:0.21.1/", "bitcoin-core/0.21.1"),
        ("/Satoshi:27.1.0(someone)/", "bitcoin-core/27.1.0"),
        ("/Satoshi:28.1.0/Knots:20250305/", "bitcoin-knots/20250305"),
        ("/Shibetoshi:1.14.9/", "dogecoin-core/1.14.9"),
        ("/LitecoinCore:0.21.4/", "litecoin-core/0.21.4"),
        ("/MagicBean:6.10.0/", "zcashd/6.10.0"),
        ("/Bitcoin Cash Node:28.0.0(EB32.0)/", "bitcoin-cash-node/28.0.0"),
        ("/bcoin:v1.0.2/", "bcoin/1.0.2"),
        ("Satoshi", ""),
        ("", ""),
    ],
)
def test_a_node_says_its_software(subversion: str, version: str) -> None:
    result = json.dumps({"version": 250000, "subversion": subversion}).encode()
    assert BITCOIN.parse_version(result) == version


def test_every_call_the_dialect_makes_itself_is_one_it_knows() -> None:
    asked = [BITCOIN.poll_call, BITCOIN.head_call, BITCOIN.version_call, BITCOIN.genesis_call, BITCOIN.lookup_call("x")]
    for ask in (*asked, *(BITCOIN.probe_call(family) for family in Family)):
        assert ask is not None
        call = BITCOIN.call(*ask, b"1")
        assert call.method.known and call.request_class.repeatable and call.method.cost <= 4
        json.loads(call.params)


# --- transactions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "txid"), [(WITNESS, WITNESS_ID), (COINBASE, COINBASE_ID)])
def test_published_transactions_have_their_published_ids(raw: str, txid: str) -> None:
    assert BITCOIN.transaction_hash(params(raw)) == txid
    assert BITCOIN.transaction_hash(params(raw.upper(), 0.1)) == txid
    assert BITCOIN.transaction_hash(json.dumps({"hexstring": raw, "maxfeerate": 0}).encode()) == txid


def test_a_witness_does_not_change_the_id_in_a_seeded_run() -> None:
    chance = random.Random(SEED)
    n = 400
    for _ in range(n):
        sent, hashed = invented(chance)
        assert transaction_id(sent) == transaction_id(hashed) == sha256d(hashed)
    print(f"{n} transactions with and without witness, seed {SEED}")


def test_a_transaction_with_something_missing_or_left_over_has_no_id() -> None:
    for text in (WITNESS, COINBASE):
        raw = bytes.fromhex(text)
        for end in range(len(raw)):
            assert transaction_id(raw[:end]) is None
        assert transaction_id(raw + b"\0") is None


def test_formats_that_are_hashed_otherwise_have_no_id() -> None:
    raw = bytes.fromhex(WITNESS)
    assert transaction_id(b"\x05\0\0\x80" + raw[4:]) is None  # Zcash, version 5
    assert transaction_id(raw[:5] + b"\x08" + raw[6:]) is None  # Litecoin's extension blocks
    assert transaction_id(raw[:4] + b"\0\0" + raw[6:]) is None
    assert transaction_id(bytes.fromhex(COINBASE)[:4] + b"\0" + bytes(9)) is None  # no inputs


def test_a_length_that_promises_more_than_there_is_costs_nothing() -> None:
    for lie in (b"\xff" * 9, b"\xfe" + b"\xff" * 4, b"\xfd\xff\xff"):
        for raw in (b"\1\0\0\0" + lie + bytes(200), b"\1\0\0\0\0\1" + lie + bytes(200)):
            assert transaction_id(raw) is None
        assert transaction_id(b"\1\0\0\0\1" + bytes(36) + lie + bytes(100)) is None


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b"null", b"[5]", b'[""]', b'["0x00"]', b'["zz"]', b'["0"]', b'["\\ud800"]', b'["caf\xc3\xa9"]'],
)
def test_parameters_without_a_transaction_have_no_id(raw: bytes) -> None:
    assert BITCOIN.transaction_hash(raw) is None
    assert BITCOIN.transaction_hash(params("00" * (MAX_RAW + 1))) is None


def test_a_transaction_is_found_by_its_id_and_not_by_the_hash_of_its_witness() -> None:
    method, asked = BITCOIN.lookup_call(WITNESS_ID)
    assert (method, json.loads(asked)) == ("getrawtransaction", [WITNESS_ID, 1])
    assert BITCOIN.found(WITNESS_ID, json.dumps({"txid": WITNESS_ID, "hash": GENESIS}).encode()) is True
    for result in (b"null", b"{}", b'"00"', b"?", json.dumps({"hash": WITNESS_ID, "txid": GENESIS}).encode()):
        assert BITCOIN.found(WITNESS_ID, result) is None


def test_only_a_send_of_one_transaction_is_answered_with_an_id_of_ours() -> None:
    assert [m.name for m in BITCOIN.methods if m.answers_hash] == ["sendrawtransaction"]
    assert [m.name for m in BITCOIN.methods if m.request_class.looked_up] == ["sendrawtransaction"]


# --- anything may come ---------------------------------------------------------------------------------

METHODS = st.sampled_from([method.name for method in BITCOIN.methods]) | st.text(max_size=20)
MEMBERS = st.sampled_from(["hash", "txid", "blocks", "bestblockhash", "time", "subversion", "hexstring", "height"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from([GENESIS, WITNESS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner),
    max_leaves=8,
)
RAW = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())


@given(METHODS, RAW, RAW)
def test_nothing_raises_on_what_callers_and_nodes_send(method: str, asked: bytes, result: bytes) -> None:
    call = BITCOIN.call(method, asked, b"1")
    assert -1 <= call.low == call.high <= MAX_HEIGHT
    BITCOIN.examine(call, result)
    BITCOIN.transaction_hash(asked)
    BITCOIN.found("x", result)
    BITCOIN.parse_head(result)
    BITCOIN.parse_poll(result)
    BITCOIN.parse_version(result)
    BITCOIN.fingerprint(call.method, result)


@given(st.integers(100, 599), st.none() | st.integers(-40, 0), st.text(max_size=60), st.binary(max_size=60), METHODS)
def test_every_error_has_exactly_one_meaning(status: int, code: int | None, words: str, data: bytes, name: str) -> None:
    method = BITCOIN.methods.get(name)
    kind, why = BITCOIN.classify_error(status, code, words, data, method)
    assert isinstance(kind, ReplyKind) and why
    assert kind is not ReplyKind.ANSWER
    assert kind is not ReplyKind.TX_KNOWN or method.answers_hash
    assert BITCOIN.classify_http(status, data) is not ReplyKind.ANSWER


@given(st.binary(max_size=300))
def test_any_bytes_are_a_transaction_or_none(raw: bytes) -> None:
    for data in (raw, b"\1\0\0\0" + raw, b"\1\0\0\0\0\1" + raw, bytes.fromhex(COINBASE) + raw):
        found = transaction_id(data)
        assert found is None or len(found) == 64


def test_a_block_seen_from_two_heads_is_the_same_block() -> None:
    method = BITCOIN.methods.get("getblock")
    one = BITCOIN.fingerprint(method, json.dumps({"hash": GENESIS, "confirmations": 5, "tx": []}).encode())
    two = BITCOIN.fingerprint(
        method, json.dumps({"tx": [], "nextblockhash": "x", "hash": GENESIS, "confirmations": 6}).encode()
    )
    assert one == two != BITCOIN.fingerprint(method, json.dumps({"hash": GENESIS, "tx": [1]}).encode())
    assert BITCOIN.split(BITCOIN.call("getblock", b"[]", b"1"), 10, 10) is None
    with pytest.raises(ValueError):
        BITCOIN.merge([b"1"])

"""The dialect of Solana: slots, commitments, signatures, and answers as real nodes give them."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dialect.registry import dialect_named
from gateway.dialect.solana import MAX_SLOT, SolanaDialect, slots_behind
from gateway.dialect.solana_transactions import MAX_RAW, decode_base58, encode_base58, first_signature
from gateway.model import BlockRef, Elsewhere, Examined, Family, HeadReport, Outcome, ReplyKind, RequestClass, Shown
from tests.dialect.recorded import expected, read, replies

SOLANA = SolanaDialect()
ACCOUNT = "83astBRguLMdt2h5U1Tpdq5tjFoJ6noeGwaY3mDLVcri"
MAINNET = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
SEED = 20260214
FINDINGS = ("head", "final", "missing", "fits", "wrong")


def params(*items: object) -> bytes:
    return json.dumps(items).encode()


def transaction(signatures: list[bytes], *, version: int | None = 0, required: int | None = None) -> bytes:
    """A serialized transaction around a message with nothing in it but what a reader must pass."""
    count = len(signatures)
    prefix = bytes([count]) if count < 128 else bytes([count & 0x7F | 0x80, count >> 7])
    header = bytes([count if required is None else required, 0, 1])
    message = (b"" if version is None else bytes([0x80 | version])) + header + b"\x01" + bytes(32) + bytes(32) + b"\0\0"
    return prefix + b"".join(signatures) + message


def signature(seed: int) -> bytes:
    return random.Random(seed).randbytes(64)


# --- recorded answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("row", replies("solana"), ids=lambda row: str(row["about"]))
def test_a_recorded_answer_is_read_as_what_it_is(row: dict[str, Any]) -> None:
    reading, told = read(SOLANA, row)
    assert reading.kind.value == row["kind"], reading.detail
    assert expected(row, told) == {name: row[name] for name in FINDINGS if name in row}


def test_a_node_that_is_late_is_late_and_never_throttled_or_broken() -> None:
    method = SOLANA.methods.get("getHealth")
    for data in (b'{"numSlotsBehind":142}', b'{ "numSlotsBehind" : 0 }'):
        kind, _ = SOLANA.classify_error(200, -32005, "Node is behind by 142 slots", data, method)
        assert kind.elsewhere is Elsewhere.YES
        assert kind.counts is Outcome.IGNORED
        assert kind.shown is Shown.UPSTREAM_ERROR  # who watches a node's health wants its own words
    assert slots_behind(b'{"numSlotsBehind":142}') == 142


def test_the_same_code_means_something_else_on_evm() -> None:
    evm = dialect_named("evm")
    for code, on_solana in ((-32005, ReplyKind.SERVER_FAULT), (-32007, ReplyKind.MISSING_DATA)):
        here, _ = SOLANA.classify_error(200, code, "", b"", SOLANA.methods.get("getSlot"))
        there, _ = evm.classify_error(200, code, "", b"", evm.call("eth_blockNumber", b"[]", b"1").method)
        assert (here, there) == (on_solana, ReplyKind.THROTTLED)


def test_a_preflight_that_does_not_know_the_blockhash_is_worth_another_node() -> None:
    method = SOLANA.methods.get("sendTransaction")
    late, _ = SOLANA.classify_error(200, -32002, "Transaction simulation failed: Blockhash not found", b"", method)
    no, _ = SOLANA.classify_error(200, -32002, "Transaction simulation failed: custom program error: 0x1", b"", method)
    assert (late.elsewhere, no.elsewhere) == (Elsewhere.YES, Elsewhere.NO)
    assert late.counts is no.counts is Outcome.IGNORED


# --- calls ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "items", "block", "high"),
    [
        ("getBalance", [ACCOUNT], BlockRef.FINALIZED, -1),
        ("getBalance", [ACCOUNT, None], BlockRef.FINALIZED, -1),
        ("getBalance", [ACCOUNT, {}], BlockRef.FINALIZED, -1),
        ("getBalance", [ACCOUNT, {"commitment": "finalized"}], BlockRef.FINALIZED, -1),
        ("getBalance", [ACCOUNT, {"commitment": "confirmed"}], BlockRef.LATEST, -1),
        ("getBalance", [ACCOUNT, {"commitment": "processed"}], BlockRef.LATEST, -1),
        ("getBalance", [ACCOUNT, {"commitment": "no such word"}], BlockRef.LATEST, -1),
        ("getBalance", [ACCOUNT, {"commitment": 5}], BlockRef.LATEST, -1),
        ("getBalance", [ACCOUNT, "confirmed"], BlockRef.LATEST, -1),
        ("getBalance", [ACCOUNT, {"commitment": "confirmed", "minContextSlot": 77}], BlockRef.LATEST, 77),
        ("getBalance", [ACCOUNT, {"minContextSlot": 77}], BlockRef.FINALIZED, 77),
        ("getBalance", [ACCOUNT, {"minContextSlot": -1}], BlockRef.FINALIZED, -1),
        ("getBalance", [ACCOUNT, {"minContextSlot": 1 << 200}], BlockRef.FINALIZED, -1),
        ("getSlot", [], BlockRef.FINALIZED, -1),
        ("getSlot", [{"commitment": "confirmed"}], BlockRef.LATEST, -1),
        ("getTokenAccountsByOwner", [ACCOUNT, {"mint": ACCOUNT}], BlockRef.FINALIZED, -1),
        ("getTokenAccountsByOwner", [ACCOUNT, {"mint": ACCOUNT}, {"commitment": "confirmed"}], BlockRef.LATEST, -1),
        ("getSignatureStatuses", [["x"]], BlockRef.NONE, -1),
        ("getTransaction", ["x", "json"], BlockRef.HASH, -1),
        ("getBlock", [5], BlockRef.NUMBER, 5),
        ("getBlock", [5, {"commitment": "confirmed"}], BlockRef.NUMBER, 5),
        ("getBlock", ["5"], BlockRef.LATEST, -1),
        ("getBlock", [], BlockRef.LATEST, -1),
        ("getBlock", [-5], BlockRef.LATEST, -1),
        ("getBlockTime", [6], BlockRef.NUMBER, 6),
        ("getBlocks", [5, 9], BlockRef.NUMBER, 9),
        ("getBlocks", [5], BlockRef.LATEST, 5),
        ("getBlocks", [5, {"commitment": "confirmed"}], BlockRef.LATEST, 5),
        ("getBlocksWithLimit", [5, 10], BlockRef.NUMBER, 15),
        ("getBlocksWithLimit", [MAX_SLOT, 10], BlockRef.NUMBER, MAX_SLOT),
    ],
)
def test_a_call_says_which_slot_it_is_about(method: str, items: list[object], block: BlockRef, high: int) -> None:
    call = SOLANA.call(method, params(*items), b"1")
    assert (call.block, call.high) == (block, high)


def test_no_call_has_a_lowest_slot_because_a_skipped_one_would_pass_for_a_pruned_one() -> None:
    for method in SOLANA.methods:
        assert SOLANA.call(method.name, b"[5,9]", b"1").low == -1


@pytest.mark.parametrize(
    ("method", "request_class", "family"),
    [
        ("getBalance", RequestClass.HEAD_READ, Family.STATE),
        ("simulateTransaction", RequestClass.HEAD_READ, Family.STATE),
        ("getSignatureStatuses", RequestClass.HEAD_READ, Family.BLOCK),
        ("getLatestBlockhash", RequestClass.HIGHEST_READ, Family.FEE),
        ("getBlock", RequestClass.PINNED_READ, Family.BLOCK),
        ("getTransaction", RequestClass.PINNED_READ, Family.BLOCK),
        ("getSignaturesForAddress", RequestClass.HEAVY_READ, Family.LOGS),
        ("getProgramAccounts", RequestClass.HEAVY_READ, Family.LOGS),
        ("sendTransaction", RequestClass.BROADCAST, Family.SEND),
        ("requestAirdrop", RequestClass.UNKNOWN, Family.SEND),
        ("sendBundle", RequestClass.UNKNOWN, Family.SEND),
        ("slotSubscribe", RequestClass.STATEFUL, Family.FILTER),
        ("getNoSuchThing", RequestClass.UNKNOWN, Family.OTHER),
        ("GETBALANCE", RequestClass.UNKNOWN, Family.OTHER),
    ],
)
def test_what_may_be_done_with_a_call(method: str, request_class: RequestClass, family: Family) -> None:
    call = SOLANA.call(method, b"[]", b"1")
    assert (call.request_class, call.method.family) == (request_class, family)


@pytest.mark.parametrize(
    "name", ["exit", "setIdentity", "addAuthorizedVoter", "setLogFilter", "EXIT", "surfnet_setAccount"]
)
def test_what_is_the_validators_operators_is_denied(name: str) -> None:
    assert SOLANA.methods.get(name).denied


def test_only_one_method_sends_and_its_answer_is_known_before() -> None:
    assert [m.name for m in SOLANA.methods if m.request_class.looked_up] == ["sendTransaction"]
    assert [m.name for m in SOLANA.methods if m.answers_hash] == ["sendTransaction"]


# --- the head ------------------------------------------------------------------------------------------


def test_the_newest_block_comes_with_its_hash_as_hex() -> None:
    body = {"context": {"apiVersion": "2.1.13", "slot": 9}, "value": {"blockhash": MAINNET, "lastValidBlockHeight": 3}}
    report = SOLANA.parse_poll(json.dumps(body).encode())
    assert report == HeadReport(9, "45296998a6f8e2a784db5d9f95e18fc23f70441a1039446801089879b08c7ef0")
    genesis = SOLANA.parse_poll(json.dumps(MAINNET).encode())
    assert genesis == HeadReport(0, report.hash)


@pytest.mark.parametrize(
    "result",
    [
        b"null",
        b"[]",
        b"5",
        b'"0OIl"',
        b'"5eykt4"',
        b'{"context":{"slot":-1},"value":{"blockhash":"%b"}}' % MAINNET.encode(),
        b'{"context":{"slot":1},"value":null}',
        b'{"context":{"slot":1},"value":{"blockhash":"abc"}}',
        b'{"context":{},"value":{"blockhash":"%b"}}' % MAINNET.encode(),
    ],
)
def test_what_is_no_newest_block_is_none(result: bytes) -> None:
    assert SOLANA.parse_poll(result) is None


def test_a_head_that_is_said_is_the_head_that_is_read() -> None:
    for number in (0, 5, 325102873, MAX_SLOT):
        raw = SOLANA.encode_head(number)
        assert raw is not None and SOLANA.parse_head(raw) == number
    for raw in (b"-1", b"null", b'"5"', b"", b"true", b"%d" % (MAX_SLOT + 1)):
        assert SOLANA.parse_head(raw) is None


def test_a_finalized_slot_is_never_taken_for_the_newest_nor_the_other_way_round() -> None:
    result = b'{"context":{"slot":100},"value":1}'
    final = SOLANA.examine(SOLANA.call("getBalance", params(ACCOUNT), b"1"), result)
    newest = SOLANA.examine(SOLANA.call("getBalance", params(ACCOUNT, {"commitment": "confirmed"}), b"1"), result)
    assert final == Examined(final=100)
    assert newest == Examined(head=HeadReport(100))
    assert SOLANA.examine(SOLANA.call("getSlot", b"[]", b"1"), b"100") is None


def test_a_slot_in_a_callers_own_data_is_not_the_context() -> None:
    call = SOLANA.call("getBalance", params(ACCOUNT, {"commitment": "confirmed"}), b"1")
    for result in (
        b'{"value":{"context":{"slot":9}}}',
        b'{"context":{"nested":{"slot":9}},"value":1}',
        b'["context",{"slot":9}]',
        b'{"context":{"slot":99999999999999999999},"value":1}',
    ):
        assert SOLANA.examine(call, result) is None


@pytest.mark.parametrize(
    ("core", "version"),
    [("1.18.26", "agave/1.18.26"), ("2.1.13", "agave/2.1.13"), ("0.505.20216", "firedancer/0.505.20216")],
)
def test_a_node_says_its_software(core: str, version: str) -> None:
    assert SOLANA.parse_version(json.dumps({"solana-core": core, "feature-set": 1}).encode()) == version


@pytest.mark.parametrize("family", Family)
def test_every_probe_is_a_cheap_read_of_its_family_or_of_the_head(family: Family) -> None:
    call = SOLANA.call(*SOLANA.probe_call(family), b"1")
    assert call.method.known and call.request_class.repeatable and not call.request_class.write
    assert call.method.cost <= 8
    assert call.method.family is family or call.method.family in (Family.HEAD, Family.FEE)


def test_every_call_the_dialect_makes_itself_is_one_it_knows() -> None:
    asked = (SOLANA.poll_call, SOLANA.head_call, SOLANA.final_call, SOLANA.version_call, SOLANA.genesis_call)
    for ask in (*asked, SOLANA.lookup_call("x")):
        assert ask is not None
        call = SOLANA.call(*ask, b"1")
        assert call.method.known and call.request_class.repeatable
        json.loads(call.params)


# --- transactions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [None, 0, 1])
@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("encoding", ["base64", "base58", None])
def test_the_id_is_the_first_signature_however_it_is_written(
    count: int, version: int | None, encoding: str | None
) -> None:
    signatures = [signature(number) for number in range(count)]
    raw = transaction(signatures, version=version)
    text = base64.b64encode(raw).decode() if encoding == "base64" else encode_base58(raw)
    config = [{"encoding": encoding, "skipPreflight": True}] if encoding else []
    assert SOLANA.transaction_hash(params(text, *config)) == encode_base58(signatures[0])


def test_a_published_transaction_has_the_id_that_explorers_show() -> None:
    # The first example in Solana's own documentation of sendTransaction.
    raw = (
        "4hXTCkRzt9WyecNzV1XPgCDfGAZzQKNxLXgynz5QDuWWPSAZBZSHptvWRL3BjCvzUXRdKvHL2b7yGrRQcWyaqsaBCncVG7BFggS8w9snUts6"
        "7BSh3EqKpXLUm5UMHfD7ZBe9GhARjbNQMLJ1QD3Spr6oMTBU6EhdB4RD8CP2xUxr2u3d6fos36PD98XS6oX8TQjLpsMwncs5DAMiD4nNnR8N"
        "FfyghGCWvCVifVwvA8B8TJxE1aiyiv2L429BCWfyzAme5sZW8rDb14NeCQHhZbtNqfXhcp2tAnaAT"
    )
    known = "2id3YC2jK9G5Wo2phDx4gJVAew8DcY5NAojnVuao8rkxwPYPe8cSwE5GzhEgJA2y8fVjDEo6iR6ykBvDxrTQrtpb"
    assert SOLANA.transaction_hash(params(raw)) == known


def spoiled() -> list[bytes]:
    good = transaction([signature(1), signature(2)])
    return [
        b"",
        b"\0",
        b"\1",
        good[:64],
        good[:129],
        transaction([]),
        transaction([bytes(64)]),  # not signed yet
        transaction([signature(1)], required=2),
        b"\x81\x00" + transaction([signature(1)])[1:],  # a count that is longer than needed
        b"\xff\xff\xff" + good,
        b"\x80\x80\x80\x80" + good,
        good + bytes(MAX_RAW),
        b"\x02\xf8\x6f" + signature(3) * 3,  # an Ethereum transaction
    ]


@pytest.mark.parametrize("raw", spoiled(), ids=range(len(spoiled())))
def test_what_is_no_signed_transaction_has_no_id(raw: bytes) -> None:
    assert first_signature(raw) is None
    text = base64.b64encode(raw).decode()
    assert SOLANA.transaction_hash(params(text, {"encoding": "base64"})) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"[5]",
        b'["0OIl"]',
        b'["\\ud800"]',
        b'["AQ==",{"encoding":"base64+zstd"}]',
        b'["A-_=",{"encoding":"base64"}]',
        b'["AQ",{"encoding":"base64"}]',
        b'["AQ==",{"encoding":5}]',
        b'["%b"]' % (b"2" * 6000),
        b'["%b",{"encoding":"base64"}]' % (b"A" * 8000),
    ],
)
def test_parameters_without_a_transaction_have_no_id(raw: bytes) -> None:
    assert SOLANA.transaction_hash(raw) is None


def test_a_transaction_is_found_by_its_status_and_an_absent_status_proves_nothing() -> None:
    method, asked = SOLANA.lookup_call("abc")
    assert (method, json.loads(asked)) == ("getSignatureStatuses", [["abc"], {"searchTransactionHistory": True}])
    context = b'{"context":{"slot":9},"value":%b}'
    assert SOLANA.found("abc", context % b'[{"slot":8,"err":null,"confirmationStatus":"processed"}]') is True
    assert (
        SOLANA.found("abc", context % b'[{"slot":8,"err":{"InstructionError":[0,"x"]}}]') is True
    )  # it failed on chain
    for value in (b"[null]", b"[]", b"null", b"[5]", b'[{},{"slot":1}]', b"?"):
        assert SOLANA.found("abc", context % value) is None


@given(st.binary(max_size=200))
@example(b"")
@example(bytes(40))
def test_base58_goes_there_and_back(data: bytes) -> None:
    text = encode_base58(data)
    assert decode_base58(text) == (data or None)
    assert decode_base58(text, len(data)) == (data or None)
    assert decode_base58(text, len(data) + 1) is None


def test_base58_agrees_with_the_published_examples() -> None:
    assert decode_base58("11111111111111111111111111111111") == bytes(32)  # the system program's address
    assert encode_base58(b"Hello World!") == "2NEpo7TZRRrLZSi2U"  # from the Internet draft on base58
    assert encode_base58(bytes.fromhex("0000287fb4cd")) == "11233QC4"


# --- anything may come ---------------------------------------------------------------------------------

METHODS = st.sampled_from([method.name for method in SOLANA.methods]) | st.text(max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["confirmed", "finalized", "base64", "base58", MAINNET]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "context",
                    "slot",
                    "value",
                    "commitment",
                    "minContextSlot",
                    "encoding",
                    "transaction",
                    "signatures",
                    "blockhash",
                    "absoluteSlot",
                    "solana-core",
                    "numSlotsBehind",
                ]
            ),
            inner,
        )
    ),
    max_leaves=8,
)
RAW = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())


@given(METHODS, RAW, RAW)
def test_nothing_raises_on_what_callers_and_nodes_send(method: str, asked: bytes, result: bytes) -> None:
    call = SOLANA.call(method, asked, b"1")
    assert call.low == -1 and -1 <= call.high <= MAX_SLOT
    told = SOLANA.examine(call, result)
    assert told is None or told.head is None or told.head.number <= MAX_SLOT
    SOLANA.transaction_hash(asked)
    SOLANA.found("x", result)
    SOLANA.parse_head(result)
    SOLANA.parse_poll(result)
    SOLANA.parse_version(result)
    slots_behind(result)
    assert SOLANA.fingerprint(call.method, result) == SOLANA.fingerprint(call.method, result)


@given(st.integers(0, 10_000), st.binary(max_size=400))
def test_any_bytes_are_a_transaction_or_none_and_an_id_is_always_64_bytes(seed: int, raw: bytes) -> None:
    for data in (raw, transaction([signature(seed)]) + raw, bytes([seed % 4]) + signature(seed) + raw):
        found = first_signature(data)
        assert found is None or (len(found) == 64 and found in data)


def test_answers_from_two_nodes_mean_the_same_at_different_slots() -> None:
    method = SOLANA.methods.get("getAccountInfo")
    one = SOLANA.fingerprint(method, b'{"context":{"apiVersion":"2.1","slot":5},"value":{"lamports":1,"owner":"x"}}')
    two = SOLANA.fingerprint(method, b'{ "context":{"slot":7}, "value":{"owner":"x", "lamports":1} }')
    other = SOLANA.fingerprint(method, b'{"context":{"slot":7},"value":{"owner":"x","lamports":2}}')
    assert one == two != other


def test_nothing_is_cut_into_parts() -> None:
    assert SOLANA.split(SOLANA.call("getBlocks", b"[1,500000]", b"1"), 10, 10) is None
    with pytest.raises(ValueError):
        SOLANA.merge([b"1"])


def test_every_transaction_of_a_seeded_run_is_recognised() -> None:
    chance = random.Random(SEED)
    n = 2000
    for _ in range(n):
        signatures = [chance.randbytes(64) for _ in range(chance.randint(1, 12))]
        raw = transaction(signatures, version=chance.choice([None, 0]))
        encoding = chance.choice(["base64", "base58"])
        text = base64.b64encode(raw).decode() if encoding == "base64" else encode_base58(raw)
        assert SOLANA.transaction_hash(params(text, {"encoding": encoding})) == encode_base58(signatures[0])
    print(f"{n} transactions recognised by their first signature, seed {SEED}")

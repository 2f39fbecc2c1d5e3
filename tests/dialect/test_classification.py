"""What upstreams answer, and what it means: laws over the corpus of answers seen in the wild."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.classification import MAX_TEXT, Rules, _own_words, _text_of, rules_for
from gateway.dialect.evm import EvmDialect
from gateway.dialect.registry import dialect_named
from gateway.dialect.tables import MethodTable, method_table
from gateway.model import Effect, Elsewhere, Family, Method, Outcome, ReplyKind, RequestClass, Shown
from tests.dialect.corpus import CALL, CORPUS, EVM, HTTP, LEARNED, SEND, STATUSES, UNKNOWN, Row

EVERY_ROW = [
    pytest.param(table, row, id=f"{table}-{number}-{row.kind.value}")
    for table, rows in CORPUS.items()
    for number, row in enumerate(rows)
]
OUTRANKING = {
    401: ReplyKind.KEY_REFUSED,
    402: ReplyKind.QUOTA,
    403: ReplyKind.KEY_REFUSED,
    429: ReplyKind.THROTTLED,
}
REVERT_DATA = b'"0x08c379a0"'
SLOT = method_table("generic").get("getSlot")


def methods_of(table: str) -> MethodTable:
    return method_table("evm" if table == "evm" else "generic")


def classified(table: str, row: Row) -> tuple[ReplyKind, str]:
    method = methods_of(table).get(row.method)
    return rules_for(table).classify_error(row.status, row.code, row.message, row.data, method)


def kind_of(code: int | None, message: str, *, method: str = CALL, status: int = 200, table: str = "evm") -> ReplyKind:
    return classified(table, Row(status, code, message, b"", method, ReplyKind.UNCLASSIFIED))[0]


# --- the unknown case ------------------------------------------------------------------------------


@pytest.mark.parametrize("table", sorted(CORPUS))
def test_an_error_that_no_rule_knows_is_unclassified(table: str) -> None:
    for method in ("no_suchMethod", CALL, "getSlot"):
        assert kind_of(-31999, "words nobody has written yet", method=method, table=table) is ReplyKind.UNCLASSIFIED
        assert kind_of(None, "", method=method, table=table) is ReplyKind.UNCLASSIFIED


def test_the_unknown_case_asks_once_elsewhere_counts_half_and_shows_the_upstreams_words() -> None:
    unknown = ReplyKind.UNCLASSIFIED
    assert (unknown.elsewhere, unknown.counts) == (Elsewhere.ONCE, Outcome.SOFT_FAILURE)
    assert (unknown.effect, unknown.shown) == (Effect.NONE, Shown.UPSTREAM_ERROR)


def test_words_that_only_look_like_a_vendors_are_left_unclassified() -> None:
    assert {row.kind for row in UNKNOWN} == {ReplyKind.UNCLASSIFIED}


# --- the corpus ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "row"), EVERY_ROW)
def test_every_answer_seen_in_the_wild_has_its_kind(table: str, row: Row) -> None:
    kind, why = classified(table, row)
    assert (kind, why != "") == (row.kind, True), why


def test_the_corpus_is_large_and_names_nothing_twice() -> None:
    assert len(EVM) >= 150
    for table, rows in CORPUS.items():
        twice = [row for row, times in Counter(rows).items() if times > 1]
        assert not twice, f"{table}: {twice}"


def rule_that_decides(table: str, row: Row) -> int | None:
    """The position of the first rule that fits, by walking them as the classifier does."""
    kind, why = classified(table, row)
    family = methods_of(table).get(row.method).family
    text = f"{row.message}\n{row.data.decode()}".casefold()
    for position, rule in enumerate(rules_for(table).rules):
        meant = not rule.methods or row.method in rule.methods
        if meant and rule.kind is kind and rule.fits(row.code, text, family) == why:
            return position
    return None


@pytest.mark.parametrize("table", sorted(CORPUS))
def test_every_rule_decides_at_least_one_answer(table: str) -> None:
    decided = {rule_that_decides(table, row) for row in CORPUS[table]}
    idle = [position for position in range(len(rules_for(table).rules)) if position not in decided]
    assert not idle, f"rules of {table}.json that no row of the corpus reaches: {idle}"


@pytest.mark.parametrize("table", sorted(CORPUS))
def test_every_code_in_a_rule_decides_when_it_comes_without_words(table: str) -> None:
    for rule in rules_for(table).rules:
        if rule.pieces or not rule.codes:
            continue
        for code in rule.codes:
            families = rule.families or frozenset(Family) - rule.unless_families
            for family in families:
                method = Method(next(iter(rule.methods), "any"), RequestClass.HEAD_READ, family)
                kind, _ = rules_for(table).classify_error(200, code, "", b"", method)
                assert kind is rule.kind, (code, family)


@pytest.mark.parametrize("table", sorted(CORPUS))
def test_every_piece_of_text_in_a_rule_is_lower_case_and_can_be_reached(table: str) -> None:
    rules = rules_for(table).rules
    for rule in rules:
        families = rule.families or frozenset(Family) - rule.unless_families
        for pieces in rule.pieces:
            text = " ".join(pieces)
            assert text == text.casefold() and all(pieces)
            code = next(iter(rule.codes), None)
            name = next(iter(rule.methods), "any")
            kinds = {
                rules_for(table).classify_error(200, code, text, b"", Method(name, RequestClass.HEAD_READ, family))[0]
                for family in families
            }
            assert rule.kind in kinds, f"{text!r} never means {rule.kind.value}"


# --- what outranks what ------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "kind"), sorted(OUTRANKING.items()))
def test_a_proxys_status_outranks_what_the_body_says(status: int, kind: ReplyKind) -> None:
    said = ["execution reverted", "nonce too low", "already known", "invalid params", "internal error", "timed out"]
    for message in said:
        for method in (CALL, SEND, "no_suchMethod"):
            assert kind_of(-32602, message, status=status, method=method) is kind, (message, method)
    method = method_table("evm").get(CALL)
    assert rules_for("evm").classify_error(status, 3, "execution reverted", REVERT_DATA, method)[0] is kind


def test_a_status_that_outranks_stays_one_that_does_not_cost_a_call_its_repeat() -> None:
    assert all(kind.elsewhere is Elsewhere.YES for kind in OUTRANKING.values())


def test_any_other_status_leaves_the_word_to_the_body() -> None:
    for status in (200, 400, 404, 500, 502, 503):
        assert kind_of(3, "execution reverted", status=status) is ReplyKind.REFUSAL
        assert kind_of(-32000, "already known", status=status, method=SEND) is ReplyKind.TX_KNOWN


def test_a_body_without_meaning_is_read_by_its_status() -> None:
    for status, kind in ((400, ReplyKind.BAD_REQUEST), (404, ReplyKind.GONE), (500, ReplyKind.SERVER_FAULT)):
        assert kind_of(-32000, "odd", status=status) is kind


@pytest.mark.parametrize(("status", "body", "kind"), HTTP)
def test_an_answer_that_is_no_json_rpc_is_read_by_status_and_text(status: int, body: bytes, kind: ReplyKind) -> None:
    for table in CORPUS:
        assert rules_for(table).classify_http(status, body) is kind


def test_every_status_of_the_table_is_in_the_corpus() -> None:
    listed = set(rules_for("evm")._statuses)
    assert listed <= {status for status, _, _ in HTTP}
    assert {400, 401, 402, 403, 404, 405, 408, 410, 413, 415, 418, 422, 429, 451, 499, 500, 502, 503, 504, 520} <= {
        row.status for row in STATUSES
    }


def test_codes_that_collide_mean_what_their_chain_means() -> None:
    for code, on_evm, on_solana in (
        (-32005, ReplyKind.THROTTLED, ReplyKind.SERVER_FAULT),
        (-32007, ReplyKind.THROTTLED, ReplyKind.MISSING_DATA),
        (-32009, ReplyKind.THROTTLED, ReplyKind.MISSING_DATA),
        (-32012, ReplyKind.THROTTLED, ReplyKind.SERVER_FAULT),
        (-32015, ReplyKind.NODE_TIMEOUT, ReplyKind.REFUSAL),
        (-32016, ReplyKind.UNCLASSIFIED, ReplyKind.MISSING_DATA),
        (-32603, ReplyKind.UNCLASSIFIED, ReplyKind.SERVER_FAULT),
    ):
        assert kind_of(code, "") is on_evm
        assert kind_of(code, "", method="getSlot", table="solana") is on_solana


def test_a_chain_is_read_by_its_own_table() -> None:
    read = {
        chain: dialect_named("generic", chain=chain).classify_error(200, -5, "not found", b"", SLOT)[0]
        for chain in ("bitcoin", "bitcoin-cash", "litecoin", "dogecoin", "near", "")
    }
    assert read == {
        "bitcoin": ReplyKind.MISSING_DATA,
        "bitcoin-cash": ReplyKind.MISSING_DATA,
        "litecoin": ReplyKind.MISSING_DATA,
        "dogecoin": ReplyKind.MISSING_DATA,
        "near": ReplyKind.UNCLASSIFIED,
        "": ReplyKind.UNCLASSIFIED,
    }
    for chain in ("solana", "solana-devnet"):
        kind, _ = dialect_named("generic", chain=chain).classify_error(200, -32005, "", b"", SLOT)
        assert kind is ReplyKind.SERVER_FAULT


# --- whose words they are ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        "unauthorized",
        "invalid api key",
        "monthly capacity limit exceeded",
        "apikey is on another chain",
        "too many requests",
        "already known",
        "header not found",
        "service unavailable",
    ],
)
def test_words_that_a_caller_or_a_contract_chose_cost_an_endpoint_nothing(chosen: str) -> None:
    for method in (CALL, SEND, "eth_estimateGas", "debug_traceCall"):
        assert kind_of(3, f"execution reverted: {chosen}", method=method) is ReplyKind.REFUSAL
        assert kind_of(-32000, f"execution reverted: {chosen}", method=method) is ReplyKind.REFUSAL
        assert kind_of(-32602, f"invalid argument 0: {chosen}", method=method) is ReplyKind.INVALID_REQUEST
        effect = kind_of(-32601, f"the method {chosen} does not exist/is not available", method=chosen).effect
        assert effect is Effect.UNSUPPORTED


@pytest.mark.parametrize(
    "chosen",
    [
        "invalid api key",
        "monthly capacity limit exceeded",
        "apikey is on another chain",
        "too many requests",
        "service unavailable",
        "method not supported",
    ],
)
@pytest.mark.parametrize(
    ("code", "around"),
    [
        (-32602, "invalid value: string {}, expected 20 bytes of hex"),  # no vendor says such things with this code
        (-32700, "could not read {}"),
        (-32000, 'cannot find "{}" in the abi'),
        (-32000, "cannot find '{}' in the abi"),
        (-32000, "unknown field `{}`"),
        (-32000, 'the quotation is cut: "{}'),
        (-32000, 'x "y" \'z\' "{}" says the caller\'s text'),
    ],
)
@pytest.mark.parametrize("table", sorted(CORPUS))
def test_what_a_node_repeats_of_a_callers_words_costs_an_endpoint_nothing(
    table: str, code: int, around: str, chosen: str
) -> None:
    said = around.format(chosen)
    for message, data in ((said, b""), ("odd", json.dumps(said).encode())):
        kind, why = classified(table, Row(200, code, message, data, CALL, ReplyKind.UNCLASSIFIED))
        assert kind.effect in (Effect.NONE, Effect.UNSUPPORTED), why
        assert kind.counts in (Outcome.IGNORED, Outcome.SOFT_FAILURE, Outcome.SUCCESS), why
        if table == "evm":
            assert kind.effect is Effect.NONE, why


@pytest.mark.parametrize("chosen", ["invalid api key", "apikey is on another chain", "out of credits", "throttled"])
@pytest.mark.parametrize("around", ["method {} is unknown here", "no idea what {} means", "{}"])
def test_a_name_that_a_caller_made_up_costs_an_endpoint_nothing(chosen: str, around: str) -> None:
    for spelled in (chosen, chosen.upper()):
        kind = kind_of(-32000, around.format(chosen), method=spelled)
        assert kind.effect in (Effect.NONE, Effect.UNSUPPORTED)
        assert kind.counts in (Outcome.IGNORED, Outcome.SOFT_FAILURE)


def test_a_short_made_up_name_does_not_hide_what_the_upstream_says() -> None:
    for name in ("e", "o", "", "rat"):
        assert kind_of(-32000, "too many requests: rate limit", method=name) is ReplyKind.THROTTLED


def test_an_upstreams_own_words_beside_a_quotation_count() -> None:
    assert kind_of(-32000, 'rate limit reached for "0x1" and it\'s over') is ReplyKind.THROTTLED
    assert kind_of(-32000, "you've used your plan's monthly capacity, don't ask again") is ReplyKind.QUOTA
    assert kind_of(-32000, "it's over the monthly capacity of your plans'") is ReplyKind.QUOTA
    assert kind_of(-32600, "'0x1' needs a key: invalid api key") is ReplyKind.KEY_REFUSED


def test_an_outranking_status_is_believed_whatever_code_comes_with_it() -> None:
    assert kind_of(-32602, "monthly capacity limit exceeded", status=429) is ReplyKind.QUOTA
    assert kind_of(-32602, "too many requests", status=403) is ReplyKind.THROTTLED
    assert kind_of(-32602, "apikey is on another chain", status=403) is ReplyKind.WRONG_CHAIN


def test_a_status_alone_does_not_make_a_callers_words_the_upstreams() -> None:
    assert kind_of(-32000, 'odd value "too many requests"', status=400) is ReplyKind.BAD_REQUEST


@pytest.mark.parametrize("mark", ['"', "'", "`", "'\"", "\"`'"])
def test_a_megabyte_of_quotation_marks_is_read_to_its_bound_only(mark: str) -> None:
    text = mark * 1_000_000
    data = b'"' + mark.encode() * 1_000_000
    assert kind_of(-32000, text) is ReplyKind.UNCLASSIFIED
    assert classified("evm", Row(200, None, text, data, CALL, ReplyKind.UNCLASSIFIED))[0] is ReplyKind.UNCLASSIFIED
    assert len(_own_words(_text_of(text, data), method_table("evm").get(CALL))) <= 2 * MAX_TEXT


def test_a_known_transaction_is_told_by_its_hash_only_where_the_answer_is_a_hash() -> None:
    evm = EvmDialect()
    for method in evm.methods:
        if method.family is Family.SEND:
            kind, _ = evm.classify_error(200, -32000, "already known", b"", method)
            gives_a_hash = method.name in {
                "eth_sendRawTransaction",
                "eth_sendRawTransactionConditional",
                "eth_sendPrivateTransaction",
                "eth_sendPrivateRawTransaction",
                "linea_sendRawTransaction",
            }
            assert kind is (ReplyKind.TX_KNOWN if gives_a_hash else ReplyKind.REFUSAL), method.name


def test_a_receipt_that_is_not_there_yet_is_an_answer_and_on_a_read_its_code_means_nothing() -> None:
    assert kind_of(4, "", method="eth_sendRawTransactionSync") is ReplyKind.REFUSAL
    assert kind_of(4, "", method=SEND) is kind_of(5, "", method=CALL) is ReplyKind.UNCLASSIFIED


def test_revert_data_is_an_answer_whatever_code_and_words_come_with_it() -> None:
    method = method_table("evm").get(CALL)
    for data in (REVERT_DATA, b'"0x4e487b710000"', b'"Reverted 0x08c379a0"'):
        for message in ("too many requests", "internal error", ""):
            assert rules_for("evm").classify_error(200, -32603, message, data, method)[0] is ReplyKind.REFUSAL


def test_an_unknown_type_of_transaction_is_not_a_known_transaction() -> None:
    assert kind_of(-32000, "unknown transaction type", method=SEND) is ReplyKind.REFUSAL


def test_words_about_sends_mean_nothing_on_a_read() -> None:
    for message in ("already known", "nonce too low", "txpool is full", "underpriced"):
        assert kind_of(-32000, message, method="eth_getBalance") is ReplyKind.UNCLASSIFIED


def test_a_reason_in_the_data_is_read_and_hex_data_is_not() -> None:
    method = method_table("generic").get("block")
    classify = rules_for("generic").classify_error
    assert classify(200, -32603, "Internal error", b'"too many requests"', method)[0] is ReplyKind.THROTTLED
    assert classify(200, -32603, "Internal error", b'{"a":"too many requests"}', method)[0] is ReplyKind.UNCLASSIFIED
    assert classify(200, -32603, "Internal error", b'"0xrate limit"', method)[0] is ReplyKind.UNCLASSIFIED


def test_the_note_on_why_never_repeats_the_upstreams_text() -> None:
    secret = "https://node.example/v2/0123456789abcdef"
    for row in EVM:
        method = method_table("evm").get(row.method)
        _, why = rules_for("evm").classify_error(row.status, row.code, f"{row.message} {secret}", row.data, method)
        assert "0123456789abcdef" not in why


# --- ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("message", "limit"), LEARNED)
def test_a_limit_is_learned_where_the_text_names_one(message: str, limit: int | None) -> None:
    assert rules_for("evm").learned_range(message) == limit


def test_every_pattern_of_a_limit_is_learned_from_at_least_one_text() -> None:
    rules = rules_for("evm")
    texts = [message.casefold() for message, limit in LEARNED if limit is not None]
    idle = []
    for row in rules._ranges:
        alone = Rules({"rules": [], "ranges": [row]}, {"statuses": {}, "texts": []})
        if not any(alone.learned_range(text) is not None for text in texts):
            idle.append(row)
    assert not idle


@given(st.text())
def test_a_learned_limit_is_a_positive_number_or_none(text: str) -> None:
    for message in (text, f"limited to a {text}", f"this block range should work: [{text}]"):
        limit = EvmDialect().learned_range(message)
        assert limit is None or limit > 0


# --- bounds ------------------------------------------------------------------------------------------


class Counted(str):
    """A text that counts the characters which are asked of it."""

    asked = 0

    def __getitem__(self, key: Any) -> str:
        part = super().__getitem__(key)
        Counted.asked += len(part)
        return part

    def _refuse(self, *_: Any) -> Any:
        raise AssertionError("the whole text was examined")

    casefold = lower = upper = encode = find = __contains__ = split = _refuse  # type: ignore[assignment]


@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_megabyte_of_message_is_read_to_its_bound_only(status: int) -> None:
    message = Counted("x" * 1_000_000 + " too many requests")
    method = method_table("evm").get(CALL)
    Counted.asked = 0
    kind, _ = rules_for("evm").classify_error(status, None, message, b"", method)
    assert kind is not ReplyKind.ANSWER
    assert 0 < Counted.asked <= 2 * MAX_TEXT  # once for the rules, once for the status
    Counted.asked = 0
    assert rules_for("evm").learned_range(message) is None
    assert Counted.asked <= MAX_TEXT


def test_words_behind_the_bound_mean_nothing_and_words_before_it_do() -> None:
    words = "too many requests"
    assert kind_of(None, "x" * MAX_TEXT + words) is ReplyKind.UNCLASSIFIED
    assert kind_of(None, "x" * (MAX_TEXT - len(words)) + words) is ReplyKind.THROTTLED
    method = method_table("evm").get(CALL)
    data = b'"' + b"x" * 1_000_000 + words.encode() + b'"'
    assert rules_for("evm").classify_error(200, None, "", data, method)[0] is ReplyKind.UNCLASSIFIED
    assert rules_for("evm").classify_http(400, b"x" * MAX_TEXT + words.encode()) is ReplyKind.BAD_REQUEST


# --- anything at all -----------------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(), max_size=200) | st.sampled_from([row.message for row in EVM])
ANY_CODE = st.none() | st.integers() | st.sampled_from([row.code for row in EVM])
ANY_STATUS = st.integers(-1, 1000) | st.sampled_from([200, 400, 401, 402, 403, 404, 429, 500, 503])
ANY_METHOD = st.text(max_size=40) | st.sampled_from([row.method for row in EVM])


@given(ANY_STATUS, ANY_CODE, ANY_TEXT, st.binary(max_size=80), ANY_METHOD, st.sampled_from(sorted(CORPUS)))
def test_anything_at_all_has_exactly_one_kind(
    status: int, code: int | None, message: str, data: bytes, method: str, table: str
) -> None:
    kind, why = rules_for(table).classify_error(status, code, message, data, methods_of(table).get(method))
    assert isinstance(kind, ReplyKind) and isinstance(why, str)
    assert kind is not ReplyKind.ANSWER
    if status in OUTRANKING:
        assert kind.elsewhere is not Elsewhere.NO


@given(st.integers(-1, 1000), st.binary(max_size=3000))
def test_any_answer_that_is_no_json_rpc_has_a_kind_that_is_no_answer(status: int, body: bytes) -> None:
    kind = rules_for("evm").classify_http(status, body)
    assert isinstance(kind, ReplyKind) and kind is not ReplyKind.ANSWER


@pytest.mark.parametrize("table", sorted(CORPUS))
def test_the_case_of_a_text_does_not_matter(table: str) -> None:
    for row in CORPUS[table]:
        shouted = row._replace(message=row.message.upper(), data=row.data.upper().replace(b"0X", b"0x"))
        assert classified(table, shouted)[0] is row.kind, shouted

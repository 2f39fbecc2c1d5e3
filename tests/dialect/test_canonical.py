"""The laws of canonical forms: honest nodes that write differently agree, and whoever says something else does not."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.dialect.canonical import WHOLE_BELOW, canonical, fingerprint
from gateway.dialect.tables import method_table

HASH, OTHER_HASH = "0x" + "ab" * 32, "0x" + "cd" * 32
ADDRESS = "0x" + "5a" * 20

LOG: dict[str, Any] = {
    "address": ADDRESS, "topics": [HASH, OTHER_HASH], "data": "0x" + "00" * 31 + "07", "blockNumber": "0x10",
    "blockHash": HASH, "transactionHash": OTHER_HASH, "transactionIndex": "0x0", "logIndex": "0x2", "removed": False,
}  # fmt: skip
LEGACY: dict[str, Any] = {
    "hash": OTHER_HASH, "nonce": "0x7", "from": ADDRESS, "to": ADDRESS, "gas": "0x5208", "gasPrice": "0x3b9aca00",
    "input": "0x", "value": "0xde0b6b3a7640000", "blockHash": HASH, "blockNumber": "0x10", "transactionIndex": "0x0",
    "v": "0x25", "r": "0x3a0c", "s": "0x77b1", "type": "0x0", "chainId": "0x1",
}  # fmt: skip
TYPED: dict[str, Any] = LEGACY | {
    "type": "0x2", "accessList": [], "yParity": "0x1", "v": "0x1", "maxFeePerGas": "0x77",
    "maxPriorityFeePerGas": "0x1",
}  # fmt: skip
RECEIPT: dict[str, Any] = {
    "transactionHash": OTHER_HASH, "transactionIndex": "0x0", "blockHash": HASH, "blockNumber": "0x10", "from": ADDRESS,
    "to": ADDRESS, "cumulativeGasUsed": "0x5208", "gasUsed": "0x5208", "effectiveGasPrice": "0x1", "status": "0x1",
    "type": "0x0", "contractAddress": None, "logs": [LOG], "logsBloom": "0x" + "00" * 256,
}  # fmt: skip
BLOCK: dict[str, Any] = {
    "number": "0x10", "hash": HASH, "parentHash": OTHER_HASH, "nonce": "0x0000000000000000", "miner": ADDRESS,
    "stateRoot": HASH, "gasLimit": "0x1c9c380", "gasUsed": "0x5208", "timestamp": "0x66", "extraData": "0x",
    "size": "0x220", "totalDifficulty": "0x0", "transactions": [TYPED], "uncles": [], "withdrawals": [],
}  # fmt: skip
FRAME: dict[str, Any] = {
    "type": "CALL", "from": ADDRESS, "to": ADDRESS, "gas": "0x10", "gasUsed": "0x8", "input": "0x", "output": "0x",
    "error": "execution reverted",
}  # fmt: skip


def same(one: object, other: object, method: str = "eth_getBlockByHash") -> bool:
    """Whether two results mean the same; raw bytes are taken as they are."""
    first, second = (value if isinstance(value, bytes) else json.dumps(value).encode() for value in (one, other))
    return fingerprint(method, first) == fingerprint(method, second)


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: member for name, member in value.items() if name not in names}


# --- any writing of the same result ---------------------------------------------------------------------

HEX = st.text("0123456789abcdefABCDEF", max_size=10).map(lambda digits: "0x" + digits)
STRANGE = st.text("abc", max_size=2)  # in no table
KNOWN = st.sampled_from(["value", "gas", "topics", "data", "hash", "nonce", "parentHash", "yParity", "accessList"])


def results(names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | st.text(max_size=8) | HEX,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
        max_leaves=15,
    )


def written_as_hex(text: str) -> bool:
    return text.startswith("0x") and set(text[2:]) <= set("0123456789abcdefABCDEF")


def rewritten(value: Any, data: st.DataObject) -> Any:
    """The same, as another node may write it: members in another order, hex in another case, nulls added."""
    if isinstance(value, dict):
        order = data.draw(st.permutations(list(value)))
        more = {"anotherMember": None} if data.draw(st.booleans()) else {}
        return {name: rewritten(value[name], data) for name in order} | more
    if isinstance(value, list):
        return [rewritten(member, data) for member in value]
    if isinstance(value, str) and written_as_hex(value) and data.draw(st.booleans()):
        return "0x" + value[2:].upper()
    return value


@given(
    results(st.text(max_size=4) | KNOWN),
    st.data(),
    st.sampled_from([None, 1, 4]),
    st.sampled_from(["eth_call", "eth_getBalance", "debug_traceCall"]),
)
@examples(max_examples=200)
def test_order_of_members_blanks_case_of_hex_and_nulls_make_no_difference(
    value: Any, data: st.DataObject, indent: int | None, method: str
) -> None:
    other = json.dumps(rewritten(value, data), indent=indent, ensure_ascii=data.draw(st.booleans())).encode()
    assert same(value, b" " + other + b"\n", method)


@given(results(STRANGE), results(STRANGE), st.booleans(), st.data())
@examples(max_examples=300)
def test_values_that_differ_beyond_writing_are_told_apart(
    one: Any, other: Any, alike: bool, data: st.DataObject
) -> None:
    other = rewritten(one, data) if alike else other

    def meaning(value: Any) -> Any:
        """A slow reading of its own of what counts where no name is known."""
        if isinstance(value, dict):
            return ("{", tuple(sorted((name, meaning(v)) for name, v in value.items() if v is not None)))
        if isinstance(value, list):
            return ("[", tuple(meaning(member) for member in value))
        if isinstance(value, str) and written_as_hex(value):
            return ("'", value.lower())
        return (type(value).__name__, repr(value))

    assert same(one, other) == (meaning(one) == meaning(other))
    if alike:
        assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, []), ([], {}), ("0x", None), ("0x", ""), (0, False), (0, None), ("0x0", 0), ([None], []),
        ([1, 2], [2, 1]), ("0x00", "0x"), ("0x0001", "0x01"), ("0xSplits", "0xsplits"), ("ab", "AB"),
        (2**64, 2**64 + 1), (10**40, 10**40 + 1),
    ],
)  # fmt: skip
def test_what_looks_alike_is_not_the_same(one: object, other: object) -> None:
    assert not same(one, other, "eth_call")


def test_the_same_words_of_two_methods_are_different_answers() -> None:
    assert fingerprint("eth_getBalance", b'"0x0"') != fingerprint("eth_getTransactionCount", b'"0x0"')


# --- numbers and data -----------------------------------------------------------------------------------

NUMBER_METHODS = [
    "eth_blockNumber", "eth_chainId", "eth_gasPrice", "eth_getBalance", "eth_getTransactionCount", "eth_estimateGas",
    "eth_getStorageAt", "eth_maxPriorityFeePerGas", "eth_getBlockTransactionCountByNumber",
]  # fmt: skip
DATA_METHODS = ["eth_call", "eth_getCode", "eth_getRawTransactionByHash", "eth_sendRawTransaction", "web3_sha3"]


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1), st.integers(0, 10), st.sampled_from(NUMBER_METHODS))
@examples(max_examples=100)
def test_a_number_is_the_same_however_it_is_padded_and_another_is_another(
    number: int, other: int, zeros: int, method: str
) -> None:
    padded = "0X" + "0" * zeros + f"{number:X}"
    assert same(hex(number), padded, method)
    assert same(hex(other), padded, method) == (number == other)
    assert same({"r": hex(number)}, {"r": padded})
    assert same({"baseFeePerGas": [hex(number), "0x0"]}, {"baseFeePerGas": [padded, "0x000"]}, "eth_feeHistory")


@pytest.mark.parametrize("method", DATA_METHODS)
def test_data_of_another_length_is_other_data(method: str) -> None:
    assert not same("0x00", "0x0000", method)
    assert not same("0x", "0x00", method)
    assert same("0xAB", "0xab", method)


@pytest.mark.parametrize("name", ["data", "input", "output", "topics", "code", "extraData", "hash", "from"])
def test_a_member_of_data_keeps_its_length(name: str) -> None:
    assert not same({name: "0x01"}, {name: "0x1"})
    assert not same({name: ["0x01"]}, {name: ["0x1"]})


def test_the_nonce_of_a_block_is_data_and_that_of_a_transaction_a_number() -> None:
    assert not same(BLOCK, BLOCK | {"nonce": "0x0"})
    assert same(TYPED, TYPED | {"nonce": "0x007"})


def test_a_number_without_digits_is_none() -> None:
    assert not same("0x", "0x0", "eth_getBalance")


# --- what honest nodes write differently ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(LOG, without(LOG, "removed"), id="a log without removed"),
        pytest.param(LOG, LOG | {"blockTimestamp": "0x66"}, id="a log with its block's time"),
        pytest.param(LOG, LOG | {"transactionLogIndex": "0x0", "type": "mined"}, id="a log of OpenEthereum"),
        pytest.param(LOG, LOG | {"l1BatchNumber": "0x9", "logType": None}, id="a log of zkSync"),
        pytest.param(LEGACY, without(LEGACY, "type", "chainId"), id="an old client's legacy transaction"),
        pytest.param(LEGACY, LEGACY | {"accessList": []}, id="a legacy transaction with an access list"),
        pytest.param(
            LEGACY,
            LEGACY | {"creates": None, "publicKey": "0x1", "raw": "0x2", "standardV": "0x0"},
            id="of OpenEthereum",
        ),
        pytest.param(TYPED, without(TYPED, "yParity"), id="a typed transaction without yParity"),
        pytest.param(TYPED, without(TYPED, "v"), id="a typed transaction without v"),
        pytest.param(TYPED, TYPED | {"blockTimestamp": "0x66"}, id="a transaction with its block's time"),
        pytest.param(TYPED, TYPED | {"isSystemTx": False}, id="a transaction that is no system's"),
        pytest.param(RECEIPT, without(RECEIPT, "contractAddress", "type"), id="an old client's receipt"),
        pytest.param(
            RECEIPT,
            RECEIPT | {"l1Fee": "0x1", "l1GasUsed": "0x2", "l1GasPrice": "0x3", "l1FeeScalar": "0.6"},
            id="OP Stack",
        ),
        pytest.param(
            RECEIPT, RECEIPT | {"gasUsedForL1": "0x1", "l1BlockNumber": "0x2", "timeboosted": False}, id="Arbitrum"
        ),
        pytest.param(RECEIPT, RECEIPT | {"revertReason": "0x08c379a0"}, id="Besu"),
        pytest.param(BLOCK, without(BLOCK, "size", "totalDifficulty"), id="a block since the merge"),
        pytest.param(BLOCK, BLOCK | {"author": OTHER_HASH, "sealFields": []}, id="a block of OpenEthereum"),
        pytest.param(
            BLOCK, BLOCK | {"sendCount": "0x1", "sendRoot": HASH, "l1BlockNumber": "0x1"}, id="a block of Arbitrum"
        ),
    ],
)
def test_honest_nodes_of_different_software_agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert same(one, other)
    assert same({"result": [one]}, {"result": [other]}), "wherever it lies"


SHAPES = {"log": LOG, "legacy": LEGACY, "typed": TYPED, "receipt": RECEIPT, "block": BLOCK}
SAYS_NOTHING = {"legacy": {"chainId"}, "block": {"size", "totalDifficulty"}}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_lie_in_any_member_that_means_something_is_seen(shape: str) -> None:
    """Every member of a block, a transaction, a receipt or a log, one at a time."""
    truth = SHAPES[shape]
    lies: list[str] = []
    for name, member in truth.items():
        lie = {bool: not member, list: [HASH], type(None): HASH}.get(type(member), "0x1234")
        if not same(truth, truth | {name: lie}):
            lies.append(name)
    unseen = set(truth) - set(lies)
    expected = set(SAYS_NOTHING.get(shape, set()))
    if shape == "typed":
        expected = {"yParity"}  # v says it
    assert unseen == expected


def test_a_lie_in_a_list_of_logs_is_seen_wherever_it_lies() -> None:
    logs = [LOG | {"logIndex": hex(i)} for i in range(5)]
    assert not same(logs, logs[:-1]), "one is missing"
    assert not same(logs, [*logs, logs[-1]]), "one comes twice"
    assert not same(logs, logs[::-1]), "another order"
    assert not same(logs, []), "nothing at all"
    assert not same([LOG], [LOG | {"removed": True}])
    assert not same([LOG], [LOG | {"topics": [OTHER_HASH, HASH]}])


def test_the_same_name_counts_where_it_is_the_answer() -> None:
    listed = {"accessList": [{"address": ADDRESS, "storageKeys": []}], "gasUsed": "0x1"}
    assert not same(listed, listed | {"accessList": []}, "eth_createAccessList")
    assert not same({"size": "0x1"}, {"size": "0x2"})
    assert not same({"error": "x"}, {"error": "y"}, "eth_createAccessList")
    delegated = {"chainId": "0x1", "address": ADDRESS, "nonce": "0x1", "yParity": "0x0", "r": "0x1", "s": "0x1"}
    for lie in ({"chainId": "0x2"}, {"yParity": "0x1"}):
        assert not same(TYPED | {"authorizationList": [delegated]}, TYPED | {"authorizationList": [delegated | lie]})


def test_the_chain_of_a_typed_transaction_counts() -> None:
    assert not same(TYPED, TYPED | {"chainId": "0x2"})


@pytest.mark.parametrize("method", ["debug_traceTransaction", "trace_block", "arbtrace_call", "ots_traceTransaction"])
def test_in_a_trace_it_counts_that_a_call_failed_and_not_in_whose_words(method: str) -> None:
    other = FRAME | {"error": "Reverted", "revertReason": "no"}
    assert same({"calls": [FRAME]}, {"calls": [other]}, method)
    assert not same({"calls": [FRAME]}, {"calls": [without(FRAME, "error")]}, method)
    assert not same({"calls": [FRAME]}, {"calls": [other | {"output": "0x01"}]}, method)


# --- bounds ---------------------------------------------------------------------------------------------


@given(st.binary(max_size=40), st.text(max_size=80))
@examples(max_examples=200)
def test_nothing_raises_and_a_fingerprint_has_sixteen_bytes(result: bytes, method: str) -> None:
    assert len(fingerprint(method, result)) == 16
    assert isinstance(canonical(result), bytes)


@pytest.mark.parametrize(
    "odd",
    [
        b"", b"[" * 200_000, b'{"a":' * 900 + b"1" + b"}" * 900, b"[" * 700 + b"]" * 700, b'"\xff"', b'"\\ud800"',
        b"1e999", b"9" * 5000, b"nul", b"{} {}",
    ],
    ids=lambda odd: repr(odd[:8]),
)  # fmt: skip
def test_what_is_no_json_or_too_deep_is_its_own_form(odd: bytes) -> None:
    assert fingerprint("eth_call", odd) == fingerprint("eth_call", odd)
    assert fingerprint("eth_call", odd) != fingerprint("eth_call", odd + b" x")
    assert fingerprint("trace_call", odd) != fingerprint("eth_call", odd)


def test_a_method_that_cannot_be_written_down_does_not_raise() -> None:
    assert len(fingerprint("\ud800" * 100, b"1")) == 16


def test_a_result_above_the_bound_is_compared_as_it_is() -> None:
    for over, alike in ((0, True), (1, False)):
        filler = b"x" * (WHOLE_BELOW - len(b'{"b":1,"a":""}') + over)
        one, other = b'{"b":1,"a":"%b"}' % filler, b'{"a":"%b","b":1}' % filler
        assert len(one) == WHOLE_BELOW + over
        assert same(one, other) is alike
        assert same(one, bytes(one))


# --- the table ------------------------------------------------------------------------------------------

TABLE = json.loads(files("gateway.dialect").joinpath("canonical.json").read_text("utf-8"))
EXAMPLES = {"log": LOG, "receipt": RECEIPT, "block": BLOCK, "transaction": TYPED}
NOISE = [(shape, name) for shape, row in TABLE["shapes"].items() for name in row["noise"]]


@pytest.mark.parametrize(("shape", "name"), NOISE)
def test_what_says_nothing_in_one_object_counts_in_another(shape: str, name: str) -> None:
    told = EXAMPLES[shape]
    assert same(told | {name: "0x1"}, told | {name: "0x2"})
    assert same(told | {name: "0x1"}, without(told, name))
    assert not same({name: "0x1"}, {name: "0x2"})
    for member in TABLE["shapes"][shape]["members"][: len(TABLE["shapes"][shape]["members"]) > 1]:
        assert not same({member: HASH, name: "0x1"}, {member: HASH, name: "0x2"}), "one member makes no such object"


@pytest.mark.parametrize("shape", TABLE["shapes"])
def test_no_object_is_known_by_what_is_left_out_of_it(shape: str) -> None:
    row = TABLE["shapes"][shape]
    assert not set(row["members"]) & set(row["noise"])
    assert not set(row.get("same_as_absent", ())) & set(row["noise"])
    assert set(row["members"]) <= set(EXAMPLES[shape])


def test_every_method_that_gives_a_number_is_a_method_that_there_is() -> None:
    known = {method.name for method in method_table("evm")}
    assert set(TABLE["number_methods"]) - known == set()
    assert {*DATA_METHODS, "eth_createAccessList"} <= known


# --- other chains ---------------------------------------------------------------------------------------


def test_members_are_left_out_by_name_for_chains_that_say_which() -> None:
    one, other = b'{"hash":"ab","confirmations":3,"tx":[{"confirmations":3}]}', b'{"tx":[{}],"hash":"ab"}'
    assert canonical(one, frozenset({"confirmations"})) == canonical(other, frozenset({"confirmations"}))
    assert canonical(one) != canonical(other)


def test_null_or_absent_makes_no_difference_on_any_chain() -> None:
    assert canonical(b'{"a":{"b":null}}') == canonical(b'{"a":{}}')
    assert canonical(b"[null]") != canonical(b"[]")


def test_names_of_another_chain_do_not_leave_anything_out() -> None:
    assert canonical(b'{"hash":"ab","size":1}') != canonical(b'{"hash":"ab","size":2}')
    assert canonical(b'{"value":"0x01"}') != canonical(b'{"value":"0x1"}')

"""The hash of a raw transaction, computed here: the one under which nodes know it, or none at all."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.evm import EvmDialect
from gateway.dialect.transactions import MAX_RAW, keccak256, raw_transaction_of, transaction_hash

LEGACY = (
    "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a028ef61"
    "340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a067cbe9d8997f761aecb703304b3800ccf555"
    "c9f3dc64214b297fb1966a3b6d83"
)
ACCESS_LIST = (
    "01f89e0101843b9aca008275309435353535353535353535353535353535353535358001f838f7943535353535353535"
    "353535353535353535353535e1a0000000000000000000000000000000000000000000000000000000000000000780a0"
    "31aef30972c16c32f655b070dbdc58176c146c71a7ee99d4319e57fdc3b58b88a04e96a7ab142b876c8d2c03b615397c"
    "a04d3244e00a7b81340595e62bbf7e231b"
)
DYNAMIC_FEE = (
    "02f866010201843b9aca008252089435353535353535353535353535353535353535350580c080a0e6758d939cd16659"
    "2ea9c57af9bb9add69182cde19f225bb8f9f0963bde54a8da03e049e082219295e74140bb4e4c0e4483933b78c4b60cc"
    "0a2a590806d5800f7e"
)
SET_CODE = (
    "04f8c5010201843b9aca00830186a09435353535353535353535353535353535353535358080c0f85cf85a0194353535"
    "35353535353535353535353535353535350380a0f15614000fa7b3ec673d4ea166e43217be280e34fb9f8458970ab8a4"
    "1ab41765a0572f93ad7f143655d0dc928f93c09ed65d5ff3c96ded2ea6b1e5df1ce9a2469401a0e722994e5c9d936c10"
    "f73c9695ced5d34ac760e24482e4d19b7347ca1c6af156a0383df7b5171af71fe8dc146a2a9930afe2ce973ac453ade1"
    "0bacd14164c6dac3"
)
BLOB = (
    "03f889010501843b9aca008252089435353535353535353535353535353535353535358080c00ae1a001abababababab"
    "ababababababababababababababababababababababababab80a0ed412b00bd9e2813a1a5a4d2406a3afbe6715f5550"
    "5b85956e0d0b9cea8b7f61a0357c846b63a7aadca8d1f1a555a6431403203ca0f97e66848b2c1d06dca071cd"
)
BLOB_BODY = BLOB[2:]
SIDECAR = (  # the lists of blobs, commitments and proofs, with blobs of 64 bytes
    "f842b840" + "5a" * 64 + "f1b0" + "c0" * 48 + "f1b0" + "d0" * 48
)
CELL_SIDECAR = (  # version 1 and three cell proofs
    "01" + "f842b840" + "5a" * 64 + "f1b0" + "c0" * 48 + "f893" + ("b0" + "d0" * 48) * 3
)
WRAPPED = "03f90133" + BLOB_BODY + SIDECAR
WRAPPED_WITH_CELLS = "03f90197" + BLOB_BODY + CELL_SIDECAR

VECTORS = [
    pytest.param(LEGACY, "33469b22e9f636356c4160a87eb19df52b7412e8eac32a4a55ffe88ea8350788", id="legacy"),
    pytest.param(
        ACCESS_LIST, "87619ef5965143c78ed2b218eadbec67b5ab6af87b203c52d21b4f83890666c3", id="with an access list"
    ),
    pytest.param(
        DYNAMIC_FEE, "8b151e27657388953efa56734aee03bde8916aa200fa407377b2f4a49a1ef67a", id="with a dynamic fee"
    ),
    pytest.param(SET_CODE, "210198f90517e6176af83934b479e106c85e0c51b7f2139c70c26a5fa5a07c35", id="that sets code"),
    pytest.param(
        BLOB, "d1b1b133977cec4858b9ad613142674ca6b82285b05987fafabaee9c4a5cfd17", id="with blobs that are not there"
    ),
    pytest.param(WRAPPED, "d1b1b133977cec4858b9ad613142674ca6b82285b05987fafabaee9c4a5cfd17", id="with blobs"),
    pytest.param(
        WRAPPED_WITH_CELLS,
        "d1b1b133977cec4858b9ad613142674ca6b82285b05987fafabaee9c4a5cfd17",
        id="with blobs and cell proofs",
    ),
]


def params_of(raw: str) -> bytes:
    return json.dumps([raw]).encode()


def hash_of(raw: str) -> str | None:
    return transaction_hash(params_of(raw))


# --- transactions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "expected"), VECTORS)
def test_a_transaction_has_the_hash_under_which_nodes_know_it(raw: str, expected: str) -> None:
    assert hash_of("0x" + raw) == "0x" + expected
    assert EvmDialect().transaction_hash(params_of("0x" + raw)) == "0x" + expected


def test_the_hash_is_keccak_and_not_sha3() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


def test_blobs_commitments_and_proofs_do_not_change_the_hash() -> None:
    assert hash_of("0x" + BLOB) == hash_of("0x" + WRAPPED) == hash_of("0x" + WRAPPED_WITH_CELLS)


@pytest.mark.parametrize(("raw", "expected"), VECTORS)
def test_how_the_hex_is_spelled_does_not_change_the_hash(raw: str, expected: str) -> None:
    assert hash_of("0x" + raw.upper()) == hash_of("0X" + raw) == "0x" + expected


@pytest.mark.parametrize(("raw", "expected"), VECTORS)
def test_what_follows_the_first_parameter_does_not_change_the_hash(raw: str, expected: str) -> None:
    for rest in ({}, 5000, None, [1], {"tx": "0x01"}):
        assert transaction_hash(json.dumps(["0x" + raw, rest]).encode()) == "0x" + expected
    assert transaction_hash(b' [\n "0x%b" ] ' % raw.encode()) == "0x" + expected


@pytest.mark.parametrize(("raw", "expected"), VECTORS)
def test_a_private_send_holds_its_transaction_in_an_object(raw: str, expected: str) -> None:
    private = {"tx": "0x" + raw, "maxBlockNumber": "0x10", "preferences": {"fast": True}}
    assert transaction_hash(json.dumps([private]).encode()) == "0x" + expected


def test_a_type_that_nobody_knows_yet_is_hashed_as_it_is() -> None:
    raw = bytes([0x7B]) + bytes.fromhex(DYNAMIC_FEE)[1:]
    assert hash_of("0x" + raw.hex()) == "0x" + keccak256(raw).hex()


# --- what is no transaction ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "0x",
        "0",
        "x0",
        LEGACY,  # no 0x
        "0x0",
        "0x" + LEGACY[:-1],
        "0xzz",
        "0x" + LEGACY[:-2] + "g0",
        "0x " + LEGACY,
        "0x" + LEGACY[:2] + " " + LEGACY[2:],
        "0x" + LEGACY + "\n",
        "0x\u0661\u0662",
        "0x\uff11\uff12",
        "0x80",
        "0xb842" + "00" * 66,
        "hello",
    ],
)
def test_a_text_that_is_no_hex_of_a_transaction_has_no_hash(raw: str) -> None:
    assert hash_of(raw) is None


@pytest.mark.parametrize(
    "params",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"not json",
        b"[null]",
        b"[1]",
        b"[true]",
        b'[["0x01"]]',
        b"[{}]",
        b'[{"tx":1}]',
        b'[{"tx":null}]',
        b'[{"txs":["0x01"]}]',
        b'["0x01"',
        b'{"0":"0x01"}',
        b'["\xff"]',
        b'["0x01"] x',
        b"[" * 100_000,
        b"[" + b'{"tx":' * 100_000,
    ],
)
def test_parameters_without_a_transaction_have_no_hash(params: bytes) -> None:
    assert transaction_hash(params) is None
    assert raw_transaction_of(params) is None


@pytest.mark.parametrize("whole", [LEGACY, BLOB, WRAPPED, WRAPPED_WITH_CELLS])
def test_a_legacy_or_blob_transaction_that_is_cut_short_has_no_hash(whole: str) -> None:
    for length in range(0, len(whole), 2):
        assert hash_of("0x" + whole[:length]) is None, length


@pytest.mark.parametrize("whole", [LEGACY, BLOB, WRAPPED, WRAPPED_WITH_CELLS])
def test_a_legacy_or_blob_transaction_with_something_behind_it_has_no_hash(whole: str) -> None:
    assert hash_of("0x" + whole + "00") is None


def test_a_blob_body_longer_than_its_wrapper_has_no_hash() -> None:
    assert hash_of("0x03" + "c2" + "f8ff") is None
    assert hash_of("0x03" + "c1" + "c5") is None
    assert hash_of("0x03" + "f8") is None
    assert hash_of("0x03" + "ff" * 9) is None
    assert hash_of("0x03" + "05") is None


def test_a_type_whose_hash_is_not_that_of_its_bytes_has_none_rather_than_a_wrong_one() -> None:
    assert hash_of("0x71" + DYNAMIC_FEE[2:]) is None


def test_a_transaction_larger_than_any_node_takes_is_not_hashed() -> None:
    assert hash_of("0x02" + "00" * (MAX_RAW - 1)) is not None
    assert hash_of("0x02" + "00" * MAX_RAW) is None


# --- anything at all -----------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_as_parameters_give_a_hash_or_none(params: bytes) -> None:
    found = transaction_hash(params)
    assert found is None or (len(found) == 66 and found.startswith("0x") and int(found, 16) >= 0)


@given(st.binary(max_size=300), st.sampled_from(["", "03", "03f8", "03f9", "f8", "02"]))
def test_any_bytes_as_a_transaction_give_a_hash_or_none(raw: bytes, start: str) -> None:
    found = hash_of("0x" + start + raw.hex())
    assert found is None or len(found) == 66
    assert found == hash_of("0x" + start + raw.hex())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_any_json_as_parameters_gives_a_hash_or_none(value: object) -> None:
    found = transaction_hash(json.dumps(value).encode())
    assert found is None or len(found) == 66


@given(st.sampled_from([b"\x01", b"\x02", b"\x04"]), st.binary(max_size=200))
def test_a_hash_is_keccak_of_the_bytes_that_were_sent(start: bytes, rest: bytes) -> None:
    raw = start + rest
    assert hash_of("0x" + raw.hex()) == "0x" + keccak256(raw).hex()

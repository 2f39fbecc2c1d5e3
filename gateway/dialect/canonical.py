"""Canonical forms: whether two results are the same, whoever gave them.

Always true: order of members, blanks, the case of hex digits, and `null` or absent make no difference;
what honest nodes of one chain give differently (fees of a layer below, sizes, computed fields) makes none
*in the object that it belongs to*: a block, a transaction, a receipt, a log.  Elsewhere the same name
counts: the access list is noise in a legacy transaction and the whole answer of `eth_createAccessList`.
Leading zeros make no difference in a number, known as one by its name; hex data of another length is
another value.  Lists keep their order.  Never raises: what is no JSON is its own form.

Why by name and by object: a field that is wrongly compared convicts an honest node of lying, one that is
wrongly left out lets a liar through, and both are silent.  The members come from the execution API, and
from what OP Stack, Arbitrum, zkSync, Besu, Nethermind and OpenEthereum put beside it.
Does not belong here: who is right (policy/agreement).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

WHOLE_BELOW = 1_000_000  # bytes, about 40 ms; larger results are compared as they are: decoding costs too much
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode
_PROBLEMS = (msgspec.MsgspecError, UnicodeError, RecursionError)
_is_hex = re.compile(r"0[xX][0-9a-fA-F]*").fullmatch

NUMBERS = frozenset(
    """
    amount balance baseFeePerBlobGas baseFeePerGas blobGasPrice blobGasUsed blockNumber chainId
    cumulativeGasUsed difficulty effectiveGasPrice excessBlobGas gas gasLimit gasPrice gasUsed index key
    logIndex maxFeePerBlobGas maxFeePerGas maxPriorityFeePerGas nonce number oldestBlock r reward s status
    timestamp totalDifficulty transactionIndex type v validatorIndex value yParity
    """.split()
)
"""Members whose hex is a number; some clients pad them (the halves of a signature above all)."""

NUMBER_METHODS = frozenset(
    """
    eth_baseFee eth_blobBaseFee eth_blockNumber eth_chainId eth_estimateGas eth_gasPrice eth_getBalance
    eth_getBlockTransactionCountByHash eth_getBlockTransactionCountByNumber eth_getStorageAt
    eth_getTransactionCount eth_getUncleCountByBlockHash eth_getUncleCountByBlockNumber
    eth_maxPriorityFeePerGas
    """.split()
)
"""Methods whose whole result is a number; a storage word, which some clients trim, is one, too."""

TRACES = ("debug_trace", "trace_", "arbtrace_", "ots_trace")
"""Methods whose `error` is in the client's own words: that there is one counts, not what it says."""

_BATCHED = frozenset({"l1BatchNumber", "l1BatchTxIndex", "l1BatchTimestamp"})  # filled in later (zkSync)


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of object.  `members` it is known by, `noise` left out, `same_as_absent` by member."""

    members: frozenset[str]
    noise: frozenset[str]
    same_as_absent: dict[str, Any]
    numbers: frozenset[str] = NUMBERS


LOG = Shape(
    frozenset({"topics", "data"}),
    frozenset({"blockTimestamp", "logType", "transactionLogIndex", "type"}) | _BATCHED,
    {"removed": False},
)
RECEIPT = Shape(
    frozenset({"cumulativeGasUsed"}),
    frozenset(
        """
        blockTimestamp daFootprintGasScalar depositNonce depositReceiptVersion error gasUsedForL1
        l1BaseFeeScalar l1BlobBaseFee l1BlobBaseFeeScalar l1BlockNumber l1Fee l1FeeScalar l1GasPrice l1GasUsed
        l2ToL1Logs operatorFeeConstant operatorFeeScalar revertReason timeboosted
        """.split()
    )
    | _BATCHED,
    {"type": "0x0"},
)
BLOCK = Shape(
    frozenset({"parentHash"}),
    frozenset({"author", "l1BlockNumber", "sealFields", "sendCount", "sendRoot", "size", "totalDifficulty"}) | _BATCHED,
    {},
    NUMBERS - {"nonce"},  # eight bytes of data
)
TRANSACTION = Shape(
    frozenset({"hash", "nonce", "gas"}),
    frozenset({"blockTimestamp", "condition", "creates", "publicKey", "raw", "standardV", "depositReceiptVersion"})
    | _BATCHED,
    {"accessList": [], "isSystemTx": False, "type": "0x0"},
)
_SHAPES = (LOG, RECEIPT, BLOCK, TRANSACTION)
_OTHER = Shape(frozenset(), frozenset(), {})
_TRACE = Shape(frozenset(), frozenset({"revertReason"}), {})


def fingerprint(method: str, result: bytes) -> bytes:
    """Sixteen bytes: equal for results that mean the same.  `method` keeps answers to different questions apart."""
    form = _form(method, result) if len(result) <= WHOLE_BELOW else result
    return hashlib.blake2b(form, digest_size=16, key=method.encode("utf-8", "replace")[:64]).digest()


def canonical(result: bytes, without: frozenset[str] = frozenset()) -> bytes:
    """The form of a raw result of any chain; `without` names members that say nothing of its meaning."""
    try:
        return _encode(_plain(_decode(result), without))
    except _PROBLEMS:
        return bytes(result)


def _plain(value: Any, without: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {
            name: _plain(member, without)
            for name, member in value.items()
            if name not in without and member is not None
        }
    if isinstance(value, list):
        return [_plain(member, without) for member in value]
    return _text(value, False)


def _form(method: str, result: bytes) -> bytes:
    try:
        return _encode(_shaped(_decode(result), method in NUMBER_METHODS, method.startswith(TRACES)))
    except _PROBLEMS:
        return bytes(result)


def _shaped(value: Any, number: bool, trace: bool) -> Any:
    """The form of a value; `number`: the member that it belongs to is one."""
    if isinstance(value, dict):
        shape = _shape_of(value, trace)
        noise, absent, numbers = shape.noise, shape.same_as_absent, shape.numbers
        form = {
            name: _shaped(member, name in numbers, trace)
            for name, member in value.items()
            if member is not None and name not in noise
        }
        for name, meaning in absent.items():
            if name in form and form[name] == meaning:
                del form[name]
        if shape is TRANSACTION:
            _settle_signature(form)
        elif trace and isinstance(form.get("error"), str):
            form["error"] = True
        return form
    if isinstance(value, list):
        return [_shaped(member, number, trace) for member in value]
    return _text(value, number)


def _shape_of(value: dict[str, Any], trace: bool) -> Shape:
    for shape in _SHAPES:
        if shape.members <= value.keys():
            return shape
    return _TRACE if trace else _OTHER


def _settle_signature(form: dict[str, Any]) -> None:
    """A signature's parity once, under `v`; and no chain beside a legacy transaction, whose `v` holds it."""
    parity = form.pop("yParity", None)
    if parity is not None:
        form.setdefault("v", parity)
    if "type" not in form:
        form.pop("chainId", None)


def _text(value: Any, number: bool) -> Any:
    if not isinstance(value, str) or value[:2] not in ("0x", "0X") or not _is_hex(value):
        return value
    if number and len(value) > 2:
        return "0x" + (value[2:].lstrip("0").lower() or "0")
    return value.lower()

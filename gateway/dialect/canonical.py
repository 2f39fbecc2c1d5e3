"""Canonical forms: whether two results are the same, whoever gave them.

Always true: order of members, blanks, and the case of hex digits make no difference; members that
differ between honest nodes (fees of a layer below, sizes, computed fields) are left out by name; lists
keep their order; hex data of another length is another value.  Never raises: what is no JSON is its
own form.
Does not belong here: who is right (policy/agreement).
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

WHOLE_BELOW = 1_000_000  # bytes; larger results are compared as they are: decoding them costs too much
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode

# Members that honest nodes give differently or not at all, in transactions, receipts, blocks and logs.
VOLATILE = frozenset(
    {
        "blockTimestamp",  # in logs and transactions: newer clients only
        "totalDifficulty",  # dropped by most since the merge
        "size",
        "yParity",  # beside v, in newer clients
        "accessList",  # [] or absent
        "l1BlobBaseFee",
        "l1BlobBaseFeeScalar",
        "l1BaseFeeScalar",
        "l1Fee",
        "l1FeeScalar",
        "l1GasPrice",
        "l1GasUsed",
        "gasUsedForL1",
        "l1BlockNumber",
        "timeboosted",
        "depositNonce",
        "depositReceiptVersion",
        "chainId",  # absent in legacy transactions of some clients
        "author",  # beside miner
        "sealFields",
        "revertReason",
        "error",
    }
)


def fingerprint(method: str, result: bytes, *, without: frozenset[str] = VOLATILE) -> bytes:
    """Sixteen bytes: equal for results that mean the same.  `method` keeps answers to different questions apart."""
    form = canonical(result, without) if len(result) <= WHOLE_BELOW else result
    return hashlib.blake2b(form, digest_size=16, key=method.encode()[:64]).digest()


def canonical(result: bytes, without: frozenset[str] = frozenset()) -> bytes:
    """The form of a raw result; `without` names members that say nothing of its meaning."""
    try:
        return _encode(_plain(_decode(result), without))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
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
    if isinstance(value, str) and value[:2] in ("0x", "0X"):
        return value.lower()
    return value

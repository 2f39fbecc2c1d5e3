"""Bitcoin transactions: their id, computed here, so that a send can be recognised whatever a node says.

Always true: the id is that of the very bytes, without their witness; bytes that are not one whole
Bitcoin transaction have none, so chains of the family that hash otherwise (Zcash's newer formats,
Litecoin's extension blocks) get no id rather than a wrong one; nothing here raises on what a caller
sends, and the work grows with the size alone.
Does not belong here: scripts, signatures, or whether a transaction is valid.
"""

from __future__ import annotations

import binascii
import hashlib

import msgspec

MAX_RAW = 1_000_000  # bytes; nodes pass on what weighs 400 000 units, which is less
_OVERWINTER = 0x80  # the top bit of a version: Zcash's mark for formats of its own
_PROBLEMS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Named(msgspec.Struct, gc=False):
    """Parameters by name, which Core takes too."""

    hexstring: str | None = None


_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_string = msgspec.json.Decoder(str).decode


def raw_transaction_of(params: bytes) -> bytes | None:
    """The signed bytes in a sendrawtransaction's parameters: the first one, or ``hexstring`` by name."""
    try:
        if params[:1] == b"{":
            text = _decode_named(params).hexstring or ""
        else:
            text = _decode_string(_decode_params(params)[0])
        return unhex(text.encode("ascii")) or None
    except (*_PROBLEMS, UnicodeEncodeError, IndexError):
        return None


def unhex(text: bytes) -> bytes | None:
    """The bytes of a hex text; None when it is none, or is longer than any transaction."""
    if len(text) > 2 * MAX_RAW:
        return None
    try:
        return binascii.unhexlify(text)
    except ValueError:
        return None


def double_sha256(data: bytes) -> bytes:
    """Bitcoin's hash of headers and transactions."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def transaction_id(raw: bytes) -> str | None:
    """The id of a serialized transaction, with or without witness (BIP 141, BIP 144); None when it is none.

    Every byte must belong to it: a text with something missing or left over has no id.
    """
    if len(raw) < 10 or raw[3] & _OVERWINTER:
        return None
    witness = raw[4] == 0  # no inputs: the marker that a flag and witnesses follow
    if witness and raw[5] != 1:
        return None  # another flag than BIP 144's: Litecoin's, whose id is made otherwise
    start = 6 if witness else 4
    try:
        end, inputs = _past_inputs_and_outputs(raw, start)
        last = _past_witnesses(raw, end, inputs) if witness else end
    except _NotATransaction:
        return None
    if last + 4 != len(raw):
        return None
    return double_sha256(raw[:4] + raw[start:end] + raw[-4:])[::-1].hex()


class _NotATransaction(Exception):
    """The bytes end before the transaction does, or it has no inputs."""


def _past_inputs_and_outputs(raw: bytes, at: int) -> tuple[int, int]:
    """Where the outputs end, and how many inputs there are."""
    inputs, at = _compact_size(raw, at)
    if not inputs:
        raise _NotATransaction
    for _ in range(inputs):
        at = _past_text(raw, at + 36) + 4
    outputs, at = _compact_size(raw, at)
    for _ in range(outputs):
        at = _past_text(raw, at + 8)
    return at, inputs


def _past_witnesses(raw: bytes, at: int, inputs: int) -> int:
    for _ in range(inputs):
        items, at = _compact_size(raw, at)
        for _ in range(items):
            at = _past_text(raw, at)
    return at


def _past_text(raw: bytes, at: int) -> int:
    size, at = _compact_size(raw, at)
    if at + size > len(raw):
        raise _NotATransaction
    return at + size


def _compact_size(raw: bytes, at: int) -> tuple[int, int]:
    """Bitcoin's length prefix: one byte up to 252, else 2, 4 or 8 behind a mark.  Value, and where it ends."""
    if at >= len(raw):
        raise _NotATransaction
    first = raw[at]
    if first < 0xFD:
        return first, at + 1
    width = 1 << (first - 0xFC)
    if at + 1 + width > len(raw):
        raise _NotATransaction
    return int.from_bytes(raw[at + 1 : at + 1 + width], "little"), at + 1 + width

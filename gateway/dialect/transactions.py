"""Raw transactions: their hash, computed here, so that a send can be recognised whatever a node says.

Always true: the same bytes give the same hash, and the hash is the one under which nodes know the
transaction; input that is no transaction, or whose hash is not that of its bytes, gives None, never
an error.  Owner of keccak (pycryptodome).
A blob transaction (EIP-4844) travels with its blobs but is hashed without them; the wrapper is
``rlp([body, blobs, commitments, proofs])``, or with a version after the body (EIP-7594).
"""

from __future__ import annotations

import binascii

import msgspec
from Crypto.Hash import keccak

MAX_RAW = 2_000_000  # bytes; six blobs are 786 kB
_BLOB_TYPE = 3
_HASHED_OTHERWISE = frozenset({0x71})  # ZKsync's own type: the hash is made of the signed digest and the signature
_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_first = msgspec.json.Decoder(str | dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode


def raw_transaction_of(params: bytes) -> bytes | None:
    """The raw transaction in the first parameter: a hex string, or an object's ``tx`` (private sends)."""
    try:
        first = _decode_first(_decode_params(params)[0])
        text = first if isinstance(first, str) else _decode_string(first["tx"])
    except (msgspec.DecodeError, IndexError, KeyError, RecursionError, UnicodeDecodeError):
        return None
    if text[:2].lower() != "0x" or len(text) > 2 * MAX_RAW + 2:
        return None
    try:
        return binascii.unhexlify(text[2:])  # unlike bytes.fromhex it takes no blanks
    except ValueError:
        return None


def transaction_hash(params: bytes) -> str | None:
    """``0x`` and 64 hex digits, or None when the parameters hold no transaction."""
    raw = raw_transaction_of(params)
    if not raw or raw[0] in _HASHED_OTHERWISE or 0x80 <= raw[0] < 0xC0:
        return None
    if raw[0] >= 0xC0 and not _is_list(raw, 0):
        return None
    if raw[0] == _BLOB_TYPE:
        body = _blob_body(raw)
        if body is None:
            return None
        raw = bytes([_BLOB_TYPE]) + body
    return "0x" + keccak256(raw).hex()


def keccak256(data: bytes) -> bytes:
    """Ethereum's hash: Keccak before it became SHA-3."""
    digest: bytes = keccak.new(digest_bits=256, data=data).digest()
    return digest


def _blob_body(raw: bytes) -> bytes | None:
    """The part of a blob transaction that is hashed: the inner list if it is wrapped, else all of it."""
    outer = _list_header(raw, 1)
    if outer is None or not _is_list(raw, 1):
        return None
    start = outer[0]
    if start < len(raw) and raw[start] >= 0xC0:  # the first item is a list: the wrapper around body and blobs
        inner = _list_header(raw, start)
        if inner is None or inner[0] + inner[1] > len(raw):
            return None
        return raw[start : inner[0] + inner[1]]
    return raw[1:]


def _is_list(data: bytes, at: int) -> bool:
    """Whether one RLP list reaches from `at` to the end: neither cut short nor with something behind it."""
    header = _list_header(data, at)
    return header is not None and header[0] + header[1] == len(data)


def _list_header(data: bytes, at: int) -> tuple[int, int] | None:
    """Where an RLP list's content begins and how long it is; None when there is no list at `at`."""
    if at >= len(data) or data[at] < 0xC0:
        return None
    if data[at] <= 0xF7:
        return at + 1, data[at] - 0xC0
    width = data[at] - 0xF7
    size = data[at + 1 : at + 1 + width]
    if len(size) != width:
        return None
    return at + 1 + width, int.from_bytes(size, "big")

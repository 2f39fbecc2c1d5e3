"""Solana transactions and base58: the id of what is sent, read out of the bytes that are sent.

Always true: the id is the first signature, as wallets and explorers show it; bytes that are no signed
transaction have none; base58 goes there and back without loss; nothing here raises on what a caller
sends, and the work is bounded by `MAX_TEXT`.
Does not belong here: making or checking signatures.
"""

from __future__ import annotations

import binascii

import msgspec

MAX_RAW = 4096  # bytes; a packet carries 1232, the larger transactions that are planned 4096
MAX_TEXT = 5600  # characters of a raw transaction in base58, the longer of the two encodings
SIGNATURE = 64  # bytes

_NULL = b"null"
_ALPHABET = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS = {letter: number for number, letter in enumerate(_ALPHABET)}
_CHUNK = 10  # characters; 58**10 is the largest such power below 2**63
_PROBLEMS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _SendConfig(msgspec.Struct, gc=False):
    encoding: str | None = None


_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_send_config = msgspec.json.Decoder(_SendConfig).decode
_decode_string = msgspec.json.Decoder(str).decode


def raw_transaction_of(params: bytes) -> bytes | None:
    """The signed bytes in a sendTransaction's parameters; base58 unless the config object says base64."""
    try:
        items = _decode_params(params)
        text = _decode_string(items[0])
        config = bytes(items[1]) if len(items) > 1 else _NULL
        encoding = _decode_send_config(config).encoding if config != _NULL else None
    except (*_PROBLEMS, IndexError):
        return None
    if len(text) > MAX_TEXT:
        return None
    if encoding in (None, "base58"):
        return decode_base58(text)
    if encoding != "base64":
        return None
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # also what is not ASCII
        return None


def first_signature(raw: bytes) -> bytes | None:
    """The first signature of a serialized transaction; None when there is none, or the bytes are no transaction.

    A compact-u16 count, as many signatures of 64 bytes, then the message, whose header must ask for as
    many.  An empty place (zeros) is no signature: the transaction is not signed yet.
    """
    if len(raw) > MAX_RAW:
        return None
    counted = _compact_u16(raw)
    if counted is None:
        return None
    count, start = counted
    message = start + count * SIGNATURE
    if count == 0 or message + 3 > len(raw):
        return None
    header = message + 1 if raw[message] & 0x80 else message  # a versioned message says its version first
    if raw[header] != count:
        return None
    signature = raw[start : start + SIGNATURE]
    return signature if any(signature) else None


def _compact_u16(raw: bytes) -> tuple[int, int] | None:
    """Solana's ``compact-u16``: 7 bits per byte, low ones first, no longer than needed.  Value and length."""
    value = 0
    for index in range(3):
        if index >= len(raw):
            return None
        byte = raw[index]
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return (value, index + 1) if value <= 0xFFFF and (byte or not index) else None
    return None


def encode_base58(data: bytes) -> str:
    """Bytes in Bitcoin's base58 (no checksum), as Solana writes keys, hashes and signatures."""
    number = int.from_bytes(data, "big")
    letters = bytearray()
    while number:
        number, digit = divmod(number, 58)
        letters.append(_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return (b"1" * zeros + bytes(reversed(letters))).decode()


def decode_base58(text: str, size: int | None = None) -> bytes | None:
    """The bytes of a base58 text; None when it is none, is too long, or does not have `size` bytes."""
    if not text or len(text) > MAX_TEXT:
        return None
    number = 0
    try:
        letters = text.encode("ascii")
        for at in range(0, len(letters), _CHUNK):
            part = 0
            chunk = letters[at : at + _CHUNK]
            for letter in chunk:
                part = part * 58 + _DIGITS[letter]
            number = number * 58 ** len(chunk) + part
    except (KeyError, UnicodeEncodeError):
        return None
    zeros = len(letters) - len(letters.lstrip(b"1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    return data if size is None or len(data) == size else None

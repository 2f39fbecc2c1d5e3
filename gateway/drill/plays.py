"""The plays: what each fault looks like on the wire, as steps a connection carries out.

Always true: a play is pure, a sequence of bytes to write, seconds to wait, and one end; it knows no
socket.  Every fault that shows on the wire stands in exactly one table: `ACCEPT_PLAYS` (a new
connection), `PLAYS` (one HTTP exchange) or `REPLIES` (one JSON-RPC reply, so that it can strike
single items of a batch).
Does not belong here: when a fault strikes (faults).
"""

from __future__ import annotations

import enum
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache

from gateway.drill.faults import Fault
from gateway.drill.wire import JSON_TYPE, error_body, response


class End(enum.Enum):
    """How an exchange ends for its connection."""

    KEEP = "keep"  # kept alive, unless the caller asked otherwise
    CLOSE = "close"  # FIN, after everything written has left
    RESET = "reset"  # RST, after everything written has left
    HANG = "hang"  # open and silent until the caller leaves


Step = bytes | float | End
Play = Callable[[bytes, float], Iterator[Step]]
"""From the sound body (empty when the fault does not perform the call) and the fault's amount."""
Reply = Callable[[bytes, bytes], bytes]
"""From the call's raw id and its sound reply (empty when the fault does not perform the call)."""

HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain"
_GARBAGE = b"\x00\xff\x13garbage"
_PAGE = b"<!DOCTYPE html><html><head><title>%s</title></head><body><h1>%s</h1></body></html>"
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
_START = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_BOMB_UNIT_BYTES = 1_048_576


# --- JSON-RPC replies -----------------------------------------------------------------------------


def _fails(code: int, message: str) -> Reply:
    return lambda raw_id, _: error_body(raw_id, code, message)


def _with_id(raw_id: bytes, reply: bytes, other: bytes) -> bytes:
    return reply.replace(b'"id":' + raw_id, b'"id":' + other, 1)


def _wrong_id(raw_id: bytes, reply: bytes) -> bytes:
    other = b"%d" % (int(raw_id) + 1) if raw_id.isdigit() and len(raw_id) < 100 else b"424242"
    return _with_id(raw_id, reply, other)


def _string_id(raw_id: bytes, reply: bytes) -> bytes:
    return _with_id(raw_id, reply, json.dumps(raw_id.decode()).encode())


def _missing_id(raw_id: bytes, reply: bytes) -> bytes:
    return reply.replace(b'"id":' + raw_id + b",", b"", 1)


def _both(_: bytes, reply: bytes) -> bytes:
    if b',"result":' in reply:
        return reply[:-1] + b',"error":{"code":-32000,"message":"and yet it failed"}}'
    return reply[:-1] + b',"result":"0x0"}'


REPLIES: dict[Fault, Reply] = {
    Fault.NULL_RESULT_AND_ERROR_MISSING: lambda raw_id, _: b'{"jsonrpc":"2.0","id":%s}' % raw_id,
    Fault.BOTH_RESULT_AND_ERROR: _both,
    Fault.RPC_INTERNAL: _fails(-32603, "internal error"),
    Fault.RPC_RATE_LIMIT: _fails(-32005, "rate limit exceeded"),
    Fault.RPC_UNKNOWN_ERROR: _fails(-32000, "weird failure"),
    Fault.RPC_METHOD_NOT_FOUND: _fails(-32601, "the method does not exist/is not available"),
    Fault.STATUS_429_RPC: _fails(-32005, "too many requests"),
    Fault.RPC_ERROR_NULL_ID: lambda _, __: error_body(b"null", -32603, "internal error"),
    Fault.WRONG_ID: _wrong_id,
    Fault.STRING_ID: _string_id,
    Fault.MISSING_ID: _missing_id,
}
REPLY_STATUS = {Fault.STATUS_429_RPC: 429}
"""The HTTP status around a spoilt reply, where it is not 200."""


# --- HTTP exchanges -------------------------------------------------------------------------------


def _ends(end: End) -> Play:
    def play(_: bytes, __: float) -> Iterator[Step]:
        yield end

    return play


def _half_body(end: End) -> Play:
    def play(body: bytes, _: float) -> Iterator[Step]:
        yield response(200, body)[: -max(1, len(body) // 2)]
        yield end

    return play


def _says(made: Callable[[bytes, float], bytes], end: End = End.KEEP) -> Play:
    def play(body: bytes, amount: float) -> Iterator[Step]:
        yield made(body, amount)
        yield end

    return play


def _status(status: int, body: bytes, content_type: bytes = JSON_TYPE, *extra: bytes) -> Play:
    return _says(lambda _, __: response(status, body, content_type, *extra))


def _ok(body: bytes, content_type: bytes = JSON_TYPE) -> Play:
    return _status(200, body, content_type)


def _page(title: bytes) -> bytes:
    return _PAGE % (title, title)


def _message(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


def _reset_mid_head(body: bytes, _: float) -> Iterator[Step]:
    yield response(200, body)[:30]
    yield End.RESET


def _slow_head(body: bytes, amount: float) -> Iterator[Step]:
    whole = response(200, body)
    yield whole[:20]
    yield amount
    yield whole[20:]
    yield End.KEEP


def _slow_drip(body: bytes, amount: float) -> Iterator[Step]:
    whole = response(200, body)
    for at in range(len(whole)):
        yield whole[at : at + 1]
        yield amount
    yield End.KEEP


def _chunks(body: bytes) -> bytes:
    half = max(1, len(body) // 2)
    return b"%x\r\n%s\r\n%x\r\n%s\r\n" % (half, body[:half], len(body) - half, body[half:])


def _chunked(body: bytes, _: float) -> bytes:
    return _START + b"Transfer-Encoding: chunked\r\n\r\n" + _chunks(body) + b"0\r\n\r\n"


def _truncated_chunked(body: bytes, _: float) -> bytes:
    return _START + b"Transfer-Encoding: chunked\r\n\r\n" + _chunks(body)


def _bad_chunk_size(body: bytes, _: float) -> bytes:
    return _START + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body + b"\r\n0\r\n\r\n"


def _cl_and_te(body: bytes, _: float) -> bytes:
    lengths = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(body)
    return _START + lengths + _chunks(body) + b"0\r\n\r\n"


def _two_lengths(body: bytes, _: float) -> bytes:
    return _START + b"Content-Length: %d\r\nContent-Length: %d\r\n\r\n" % (len(body), len(body) + 7) + body


def _negative_length(body: bytes, _: float) -> bytes:
    return _START + b"Content-Length: -1\r\n\r\n" + body


def _huge_header(body: bytes, amount: float) -> bytes:
    return response(200, body, JSON_TYPE, b"X-Padding: " + b"x" * int(amount))


def _many_headers(body: bytes, amount: float) -> bytes:
    return response(200, body, JSON_TYPE, *(b"X-Padding-%d: x" % i for i in range(int(amount))))


def _gzip(body: bytes, _: float) -> bytes:
    return response(200, gzip.compress(body, 1), JSON_TYPE, b"Content-Encoding: gzip")


def _bad_gzip(_: bytes, __: float) -> bytes:
    return response(200, b"\x1f\x8b\x08\x00" + _GARBAGE * 8, JSON_TYPE, b"Content-Encoding: gzip")


@lru_cache(maxsize=4)
def _bomb(size: int) -> bytes:
    """A gzip stream of a JSON string of about `size` zeros, built without ever holding it decompressed."""
    units = max(1, size // _BOMB_UNIT_BYTES)
    unit = b"0" * _BOMB_UNIT_BYTES
    start, stop = b'{"jsonrpc":"2.0","id":1,"result":"0x', b'"}'
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    opening = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
    middle = deflate.compress(unit) + deflate.flush(zlib.Z_FULL_FLUSH)  # starts afresh, so it may be repeated
    closing = deflate.compress(stop) + deflate.flush()
    checksum = zlib.crc32(start)
    for _ in range(units):
        checksum = zlib.crc32(unit, checksum)
    checksum = zlib.crc32(stop, checksum)
    length = len(start) + units * len(unit) + len(stop)
    trailer = checksum.to_bytes(4, "little") + (length % 2**32).to_bytes(4, "little")
    return b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff" + opening + middle * units + closing + trailer


def _gzip_bomb(_: bytes, amount: float) -> bytes:
    return response(200, _bomb(int(amount)), JSON_TYPE, b"Content-Encoding: gzip")


def _throttled(_: bytes, amount: float) -> bytes:
    return response(429, b"Too Many Requests", TEXT, b"Retry-After: %d" % math.ceil(amount))


ACCEPT_PLAYS: dict[Fault, Play] = {
    Fault.CLOSE_ON_ACCEPT: _ends(End.CLOSE),
    Fault.RESET_ON_ACCEPT: _ends(End.RESET),
    Fault.HANG_ON_ACCEPT: _ends(End.HANG),
    Fault.GARBAGE_ON_ACCEPT: _says(lambda _, __: _GARBAGE, End.HANG),
}
PLAYS: dict[Fault, Play] = {
    Fault.EARLY_RESPONSE_THEN_CLOSE: _says(lambda _, __: response(503, b"busy", TEXT, b"Connection: close"), End.CLOSE),
    Fault.HANG_BEFORE_HEAD: _ends(End.HANG),
    Fault.RESET_AFTER_READING: _ends(End.RESET),
    Fault.CLOSE_AFTER_READING: _ends(End.CLOSE),
    Fault.ACCEPT_SEND_THEN_DIE: _ends(End.RESET),
    Fault.RESET_MID_HEAD: _reset_mid_head,
    Fault.RESET_MID_BODY: _half_body(End.RESET),
    Fault.CLOSE_MID_BODY: _half_body(End.CLOSE),
    Fault.HANG_MID_BODY: _half_body(End.HANG),
    Fault.TRUNCATED_JSON: _says(lambda body, _: response(200, body[: len(body) // 2])),
    Fault.TRUNCATED_CHUNKED: _says(_truncated_chunked, End.CLOSE),
    Fault.SLOW_HEAD: _slow_head,
    Fault.SLOW_DRIP: _slow_drip,
    Fault.STATUS_301: _status(301, b"", TEXT, b"Location: http://127.0.0.1:9/elsewhere"),
    Fault.STATUS_400: _status(400, _message("bad request")),
    Fault.STATUS_401: _status(401, _message("missing API key")),
    Fault.STATUS_402: _status(402, _message("monthly quota used up")),
    Fault.STATUS_403: _status(403, _message("API key refused")),
    Fault.STATUS_404: _status(404, b"404 page not found", TEXT),
    Fault.STATUS_408: _status(408, b"", TEXT),
    Fault.STATUS_413: _status(413, _page(b"413 Request Entity Too Large"), HTML),
    Fault.STATUS_429: _says(_throttled),
    Fault.STATUS_500: _status(500, _message("internal server error")),
    Fault.STATUS_502: _status(502, _page(b"502 Bad Gateway"), HTML),
    Fault.STATUS_503: _status(503, b"upstream connect error", TEXT),
    Fault.STATUS_503_HTML: _status(503, _page(b"Down for maintenance"), HTML),
    Fault.STATUS_504: _status(504, b"upstream request timeout", TEXT),
    Fault.STATUS_520: _status(520, _page(b"520: Web server is returning an unknown error"), HTML),
    Fault.HTML_200: _ok(_page(b"Welcome"), HTML),
    Fault.EMPTY_200: _ok(b""),
    Fault.EMPTY_BODY_NO_LENGTH: _says(lambda _, __: _START + b"\r\n", End.CLOSE),
    Fault.NOT_JSON: _ok(b"no healthy upstream", TEXT),
    Fault.JSON_SCALAR: _ok(b"42"),
    Fault.JSON_ARRAY_FOR_OBJECT: _says(lambda body, _: response(200, b"[" + body + b"]")),
    Fault.EXTRA_BYTES: _says(lambda body, _: response(200, body) + _GARBAGE),
    Fault.EXTRA_RESPONSE: _says(lambda body, _: response(200, body) * 2),
    Fault.TWO_CONTENT_LENGTHS: _says(_two_lengths),
    Fault.CL_AND_TE: _says(_cl_and_te),
    Fault.NEGATIVE_LENGTH: _says(_negative_length),
    Fault.BAD_CHUNK_SIZE: _says(_bad_chunk_size),
    Fault.HUGE_HEADER: _says(_huge_header),
    Fault.MANY_HEADERS: _says(_many_headers),
    Fault.MANY_1XX: _says(lambda body, amount: _INTERIM * int(amount) + response(200, body)),
    Fault.HTTP_09_GARBAGE: _says(lambda body, _: body, End.CLOSE),
    Fault.WRONG_VERSION: _says(lambda body, _: response(200, body).replace(b"HTTP/1.1", b"HTTP/3.7", 1)),
    Fault.GZIP_UNASKED: _says(_gzip),
    Fault.GZIP_BOMB: _says(_gzip_bomb),
    Fault.BAD_GZIP: _says(_bad_gzip),
    Fault.CHUNKED: _says(_chunked),
    Fault.CLOSE_DELIMITED: _says(lambda body, _: _START + b"Connection: close\r\n\r\n" + body, End.CLOSE),
    Fault.CONNECTION_CLOSE: _says(lambda body, _: response(200, body, JSON_TYPE, b"Connection: close"), End.CLOSE),
    Fault.NO_KEEPALIVE_HTTP10: _says(
        lambda body, _: response(200, body).replace(b"HTTP/1.1", b"HTTP/1.0", 1), End.CLOSE
    ),
    Fault.STALE_KEEPALIVE: _says(lambda body, _: response(200, body), End.CLOSE),
}

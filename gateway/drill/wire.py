"""The wire: HTTP/1.1 requests and JSON-RPC envelopes, read strictly and written plainly.

Always true: an id goes back as the very bytes it came in; a request whose framing is in doubt is
refused, never guessed at.  Written by hand on purpose: the gateway's own parsers are what these
providers exist to test.
Does not belong here: sockets, faults, what a method means.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.drill.chain import Refused

MAX_HEAD_BYTES = 65_536
MAX_BODY_BYTES = 16_777_216
MAX_BATCH = 1000
JSON_TYPE = b"application/json"

_REASONS = {
    200: b"OK",
    301: b"Moved Permanently",
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    411: b"Length Required",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    520: b"",
}
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


class BadRequest(Exception):
    """The request's framing cannot be trusted; answered with `status`, then the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    """A request's head.  `length` counts the body's bytes; header names are lower case."""

    verb: str
    path: str
    length: int
    keep_alive: bool
    expects_continue: bool
    fields: dict[bytes, bytes]


class WireCall(NamedTuple):
    """One JSON-RPC request.  `id` (None: a notification) and `raw_params` are the bytes that came in."""

    method: str
    id: bytes | None
    raw_params: bytes
    params: Any
    refused: Refused | None = None  # the item is no request; this is what it is told


@lru_cache(maxsize=512)  # keep-alive clients send the same head over and over
def parse_head(raw: bytes) -> Head:
    """Read a head (without its final empty line).  Raises BadRequest."""
    lines = raw.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        raise BadRequest(400, "malformed request line")
    fields: dict[bytes, bytes] = {}
    for text in lines[1:]:
        found = _FIELD.fullmatch(text)
        if found is None:
            raise BadRequest(400, "malformed header")
        name = found[1].lower()
        if name in fields and name in (b"content-length", b"host", b"transfer-encoding"):
            raise BadRequest(400, "repeated header")
        fields[name] = found[2]
    if b"transfer-encoding" in fields:
        raise BadRequest(411, "a length is required")
    length = fields.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 15:
        raise BadRequest(400, "malformed content-length")
    if int(length) > MAX_BODY_BYTES:
        raise BadRequest(413, "request too large")
    if line[3] == b"1" and b"host" not in fields:
        raise BadRequest(400, "missing host")
    wish = fields.get(b"connection", b"").lower()
    keep_alive = b"close" not in wish if line[3] == b"1" else b"keep-alive" in wish
    expects = fields.get(b"expect", b"").lower() == b"100-continue"
    return Head(line[1].decode(), line[2].decode(), int(length), keep_alive, expects, fields)


def response(status: int, body: bytes, content_type: bytes = JSON_TYPE, *extra: bytes) -> bytes:
    """A whole HTTP/1.1 response with the right length; `extra` are further header lines."""
    more = b"".join(line + b"\r\n" for line in extra)
    head = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n"
    return head % (status, _REASONS[status], content_type, len(body), more) + body


def _members(text: str, at: int) -> tuple[dict[str, tuple[Any, int, int]], int]:
    """The members of the object at `at`: each value with where its text begins and ends; and the object's end."""
    members: dict[str, tuple[Any, int, int]] = {}
    at = _after_space(text, at + 1)
    while text[at] != "}" or members:
        name, at = _DECODER.raw_decode(text, at)
        if not isinstance(name, str):
            raise ValueError("a member's name must be a string")
        at = _after_space(text, at)
        if text[at] != ":":
            raise ValueError("a colon must follow a member's name")
        start = _after_space(text, at + 1)
        value, end = _DECODER.raw_decode(text, start)
        members[name] = (value, start, end)
        at = _after_space(text, end)
        if text[at] == "}":
            break
        if text[at] != ",":
            raise ValueError("a comma must follow a member")
        at = _after_space(text, at + 1)
    return members, at + 1


def _after_space(text: str, at: int) -> int:
    if text[at] > " ":  # the usual case; saves the pattern
        return at
    found = _SPACE.match(text, at)
    assert found is not None  # it matches the empty string too
    return found.end()


def _call_at(text: str, at: int) -> tuple[WireCall, int]:
    if text[at] != "{":
        _, end = _DECODER.raw_decode(text, at)
        return WireCall("", b"null", b"", None, Refused(-32600, "invalid request")), end
    members, end = _members(text, at)
    raw_id = None
    if "id" in members:
        value, start, stop = members["id"]
        raw_id = text[start:stop].encode()
        if isinstance(value, (dict, list, bool)):
            return WireCall("", b"null", b"", None, Refused(-32600, "invalid request")), end
    method = members.get("method", (None, 0, 0))[0]
    if not isinstance(method, str):
        return WireCall("", raw_id or b"null", b"", None, Refused(-32600, "invalid request")), end
    params, start, stop = members.get("params", ([], 0, 0))
    return WireCall(method, raw_id, text[start:stop].encode(), [] if params is None else params), end


def parse_body(body: bytes) -> tuple[list[WireCall], bool]:
    """The calls of a body, and whether they came as a batch.  Raises Refused for what is no JSON-RPC."""
    try:
        text = body.decode() + " "  # a last space spares every look at the next character a bounds check
        at = _after_space(text, 0)
        if text[at] != "[":
            call, end = _call_at(text, at)
            calls = [call]
        else:
            calls, end = _batch_at(text, at)
        if _SPACE.fullmatch(text, end) is None:
            raise ValueError("something follows the request")
    except (ValueError, IndexError, RecursionError) as problem:
        raise Refused(-32700, "parse error") from problem
    return calls, text[at] == "["


def _batch_at(text: str, at: int) -> tuple[list[WireCall], int]:
    calls: list[WireCall] = []
    at = _after_space(text, at + 1)
    if text[at] == "]":
        raise Refused(-32600, "empty batch")
    while True:
        call, end = _call_at(text, at)
        calls.append(call)
        if len(calls) > MAX_BATCH:
            raise Refused(-32600, "batch too large")
        at = _after_space(text, end)
        if text[at] == "]":
            return calls, at + 1
        if text[at] != ",":
            raise ValueError("a comma must follow a call")
        at = _after_space(text, at + 1)


def result_body(raw_id: bytes, result: Any) -> bytes:
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (raw_id, _encode(result).encode())


def error_body(raw_id: bytes, code: int, message: str, data: str | None = None) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (raw_id, _encode(error).encode())

"""The JSON-RPC 2.0 envelope: callers' bytes to requests, upstreams' bytes to replies, and back.

Always true: `params`, `result`, `error` and the caller's `id` are carried as the bytes that came in
(no number is parsed, none is rounded); the request that goes upstream is built anew from the parsed
method and the raw params, so two parsers that disagree about a duplicate member cannot be played off
against each other; each attempt has a wire id of its own, so an answer that belongs to another
request is recognised even though most callers number everything 1.
Nothing here knows a chain or a method.  Owner of msgspec.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from gateway.errors import CallTooLarge, GatewayError, MalformedCall, MalformedJson, error_data

EMPTY = msgspec.Raw(b"")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_ID_AHEAD = re.compile(rb'\s*\{(?:\s*"(?:jsonrpc|id)"\s*:\s*(?:"[^"\\]*"|\d+)\s*,)*?\s*"id"\s*:\s*(\d+)\s*,')
_RESULT_AHEAD = re.compile(rb'\s*\{(?:\s*"(?:jsonrpc|id)"\s*:\s*(?:"[^"\\]*"|\d+|null)\s*,)*\s*"result"\s*:')
_ID_BEHIND = re.compile(rb',\s*"id"\s*:\s*(\d+)\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


class Request(NamedTuple):
    """One request as the caller sent it.  `params` and `id` are raw JSON.

    Empty `params`: none were sent.  `id` None: a notification, which gets no answer.
    """

    method: str
    params: bytes
    id: bytes | None


class _Envelope(msgspec.Struct, gc=False):
    method: str
    params: msgspec.Raw = EMPTY
    id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Reply(msgspec.Struct, gc=False):
    id: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # raw, so null comes as b"null"


class RpcError(msgspec.Struct, gc=False):
    """An upstream's error object.  Vendors put anything anywhere, hence the wide types."""

    code: int | float | str | None = None
    message: str | None = None
    data: msgspec.Raw = EMPTY


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_error = msgspec.json.Decoder(RpcError).decode


def decode(body: bytes, max_items: int, max_depth: int) -> Request | list[Request | GatewayError]:
    """A caller's body as one request, or a batch whose bad items are errors in their places.

    Raises MalformedJson, MalformedCall or CallTooLarge when the body as a whole is unusable.
    """
    if not body.isascii() and not _is_utf8(body):
        raise MalformedJson("the body is not valid UTF-8")
    if exceeds_depth(body, max_depth):
        raise MalformedJson(f"JSON is nested deeper than {max_depth} levels")
    if body[:1] == b"{" or body.lstrip()[:1] != b"[":
        return _decode_one(body)
    try:
        items = _decode_items(body)
    except (msgspec.DecodeError, RecursionError):
        raise MalformedJson("the body is not valid JSON") from None
    if not items:
        raise MalformedCall("an empty batch asks for nothing")
    if len(items) > max_items:
        raise CallTooLarge(f"a batch may have {max_items} items at most, this one has {len(items)}")
    batch: list[Request | GatewayError] = []
    for item in items:
        try:
            batch.append(_decode_one(bytes(item)))
        except (MalformedJson, MalformedCall) as error:
            batch.append(error)
    return batch


def _decode_one(body: bytes) -> Request:
    try:
        envelope = _decode_envelope(body)
    except msgspec.ValidationError:
        raise MalformedCall(_explain(body)) from None
    except (msgspec.DecodeError, RecursionError):
        raise MalformedJson("the body is not valid JSON") from None
    params = bytes(envelope.params)
    if params and params[0] not in b"[{":
        if params != b"null":
            raise MalformedCall("`params` must be an array or an object")
        params = b""
    if not envelope.method:
        raise MalformedCall("`method` is empty")
    raw_id = envelope.id
    if isinstance(raw_id, msgspec.UnsetType):
        return Request(envelope.method, params, None)
    caller_id = bytes(raw_id)
    if not caller_id.isdigit():
        _check_id(caller_id)
    return Request(envelope.method, params, caller_id)


def _check_id(caller_id: bytes) -> None:
    """Any string, number or null may be an id; it must be whole JSON, since it goes back as it came."""
    if caller_id[:1] in (b"[", b"{", b"t", b"f"):
        raise MalformedCall("`id` must be a string, a number or null")
    try:
        if caller_id[:1] == b'"':
            _decode_string(caller_id)
    except msgspec.DecodeError:
        raise MalformedJson("`id` is not valid JSON") from None


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _explain(body: bytes) -> str:
    """Why a well-formed JSON value is no request."""
    first = body.lstrip()[:1]
    if first != b"{":
        return "a request must be a JSON object with a `method`"
    return "a request needs a `method` that is a string"


def exceeds_depth(body: bytes, max_depth: int) -> bool:
    """Whether brackets nest deeper than `max_depth`, without parsing and in linear time.

    A body with few brackets cannot; most calls end there.  Otherwise strings are cut out and
    matching pairs removed from the inside, one level per round.
    """
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    shape = b"".join(body.split(b'"')[::2]).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(max_depth):
        shape = shape.replace(b"[]", b"")
        if not shape:
            return False
    return True


def encode_request(wire_method: bytes, params: bytes, wire_id: int) -> bytes:
    """The bytes that go upstream.  `wire_method` is the method's name as a JSON string."""
    if params:
        return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}' % (wire_id, wire_method, params)
    return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":[]}' % (wire_id, wire_method)


class BadReply(Exception):
    """Bytes that are not the JSON-RPC answer to the request; the text says why."""


def read_reply(body: bytes, wire_id: int) -> tuple[bytes | None, bytes | None]:
    """The raw result, or the raw error object, of an upstream's answer: exactly one of them.

    An error may come with id null (the upstream could not read the request).  Raises BadReply.
    """
    try:
        reply = _decode_reply(body)
    except msgspec.ValidationError:
        raise BadReply("the answer is not a JSON-RPC object, or its id is of the wrong type") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadReply("the answer is not valid JSON") from None
    error = reply.error
    if not isinstance(error, msgspec.UnsetType) and bytes(error) != b"null":
        if reply.id != wire_id and reply.id is not None:
            raise BadReply("the answer carries another request's id")
        return None, bytes(error)
    if reply.id != wire_id:
        raise BadReply("the answer carries another request's id")
    if isinstance(reply.result, msgspec.UnsetType):
        raise BadReply("the answer has neither result nor error")
    return bytes(reply.result), None


def read_error(raw: bytes) -> RpcError:
    """An error object's members; a shape that is none gives an empty one with the text as message."""
    try:
        return _decode_error(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return RpcError(message=raw[:512].decode("utf-8", "replace"))


def encode_result(caller_id: bytes, result: bytes) -> bytes:
    """The answer to the caller: the id and the result are the bytes that came in."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (caller_id, result)


def encode_raw_error(caller_id: bytes, error: bytes) -> bytes:
    """An upstream's own error object under the caller's id."""
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (caller_id, error)


def encode_error(caller_id: bytes | None, error: GatewayError) -> bytes:
    """One of our errors as a JSON-RPC answer (id null when the request's id is not known)."""
    body = msgspec.json.encode({"code": error.rpc_code, "message": error.message, "data": error_data(error)})
    return encode_raw_error(caller_id or b"null", body)


def encode_batch(answers: list[bytes]) -> bytes:
    """The answers of a batch, in order; notifications have none."""
    return b"[%b]" % b",".join(answers)


class StreamedId:
    """Puts the caller's id into a streamed answer without holding the answer.

    The id of an object stands before the result or behind it.  `open` looks at the first piece;
    `piece` passes the middle through, keeping back the last bytes; `end` settles the tail.
    """

    HOLD_BACK = 256

    def __init__(self, wire_id: int, caller_id: bytes) -> None:
        self._wire_id = wire_id
        self._caller_id = caller_id
        self._placed = False
        self._tail = b""

    @staticmethod
    def is_result(head: bytes) -> bool:
        """Whether the first piece of an answer shows a result (not an error) beginning."""
        return _RESULT_AHEAD.match(head, 0, 4096) is not None

    def open(self, head: bytes) -> bytes:
        """The first piece (at least a few hundred bytes), with the id replaced if it stands there."""
        match = _ID_AHEAD.match(head, 0, 4096)
        if match is not None:
            if int(match[1]) != self._wire_id:
                raise BadReply("the answer carries another request's id")
            self._placed = True
            head = head[: match.start(1)] + self._caller_id + head[match.end(1) :]
        return self.piece(head)

    def piece(self, piece: bytes) -> bytes:
        if self._placed:
            return piece
        joined = self._tail + piece
        self._tail = joined[-self.HOLD_BACK :]
        return joined[: -self.HOLD_BACK]

    def end(self) -> bytes:
        """The rest.  Raises BadReply when the answer never named our request."""
        if self._placed:
            return b""
        match = _ID_BEHIND.search(self._tail)
        if match is None or int(match[1]) != self._wire_id:
            raise BadReply("the answer carries no id of ours")
        return self._tail[: match.start(1)] + self._caller_id + self._tail[match.end(1) :]

"""Notifications over a WebSocket: an upstream's read, and ours written.

Always true: nothing here raises, whatever an upstream sends; what is read is whole UTF-8, because one
bad byte in a text frame obliges a caller's client to close its socket; an event's `result` is the very
bytes that came, and a notification is written anew around them.
Our own notice has a method that no node has, and clients ignore a method that they do not know.
Does not belong here: what an event says (evm_events, solana_events), or to whom it goes (upstream/feeds/line).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

NOTICE = "seawall_notice"
"""The method under which callers are told what could not be made good."""

_EMPTY = msgspec.Raw(b"")
_PROBLEMS = (msgspec.MsgspecError, UnicodeError, RecursionError)
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Notification:
    """An event of an upstream subscription.  `subscription` is its raw JSON id, `result` the raw event."""

    method: str
    subscription: bytes
    result: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a question of ours: a raw `result` or a raw `error` object, at most one of them.

    `id` is None where the upstream gave none, or one that is no number and so none of ours.
    """

    id: int | None
    result: bytes | None
    error: bytes | None


class _Params(msgspec.Struct, gc=False):
    """What a notification is about.  Starknet says `subscription_id`, everybody else `subscription`."""

    subscription: msgspec.Raw = _EMPTY
    subscription_id: msgspec.Raw = _EMPTY
    result: msgspec.Raw = _EMPTY


class _Message(msgspec.Struct, gc=False):
    method: str | None = None
    params: _Params | None = None
    id: int | float | str | None = None
    result: msgspec.Raw = _EMPTY
    error: msgspec.Raw = _EMPTY


_decode = msgspec.json.Decoder(_Message).decode
_decode_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_messages(data: bytes) -> Sequence[Notification | Reply]:
    """All that an upstream said in one frame, in its order: some put several messages into an array.  Never raises."""
    if data.lstrip()[:1] != b"[":
        told = read_message(data)
        return (told,) if told is not None else ()
    try:
        each = _decode_batch(data)
    except _PROBLEMS:
        return ()
    return [told for raw in each if (told := read_message(bytes(raw))) is not None]


def read_message(data: bytes) -> Notification | Reply | None:
    """What one message says; None when it is neither an event nor an answer.  Never raises."""
    try:
        if not data.isascii():
            data.decode()
        message = _decode(data)
    except _PROBLEMS:
        return None
    params = message.params
    if message.method is not None and params is not None:
        named = bytes(params.subscription) or bytes(params.subscription_id)
        event = bytes(params.result)
        if named and event:
            return Notification(message.method, named, event)
    number = message.id if isinstance(message.id, int) else None
    error = bytes(message.error)
    if error and error != b"null":
        return Reply(number, None, error)
    result = bytes(message.result)
    return Reply(number, result, None) if result else None


def encode_notification(method: str, subscription: bytes, result: bytes) -> bytes:
    """An event for a caller, under the caller's raw JSON id."""
    name = b"subscription_id" if method.startswith("starknet_") else b"subscription"
    return b'{"jsonrpc":"2.0","method":%b,"params":{"%b":%b,"result":%b}}' % (
        _encode(method),
        name,
        subscription,
        result,
    )


def encode_notice(subscription: bytes, reason: str, low: int | None, high: int | None) -> bytes:
    """What a caller is told about events that it may have missed; `low` and `high` are blocks, where known."""
    words = b'"subscription":%b,"reason":%b' % (subscription, _encode(reason))
    if low is not None:
        words += b',"from":%d' % low
    if high is not None:
        words += b',"to":%d' % high
    return b'{"jsonrpc":"2.0","method":"%b","params":{%b}}' % (NOTICE.encode(), words)

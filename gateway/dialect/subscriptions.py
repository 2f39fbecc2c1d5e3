"""What all dialects share about subscriptions: parameters in one form, keys, ids, and having none at all.

Always true: two requests have the same key only if every value in them is the same, byte for byte;
order of members and blanks make no difference; what is sent upstream is written anew from what the key
is made of, so two parsers that disagree about a duplicate member cannot be played off against each
other; a key is short, however long the parameters; nothing here raises on what a caller sends.
Why scalars stay as they were written: a number that is parsed can be rounded, and then two different
requests would share one feed.
Does not belong here: which methods subscribe (the dialects).
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from gateway.events import FeedKind, Header, Log, LogFilter, Subscription

DEEPEST = 16
"""Levels of nesting that are put in order; parameters that go deeper are taken as they are."""
LONGEST_KEY = 200
"""Bytes; a longer one is replaced by its digest, because callers choose how long it gets."""

PROBLEMS = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding raises on odd input."""

_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_encode = msgspec.json.encode
_is_plain = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,127}").fullmatch
_is_number = re.compile(rb"-?[0-9]{1,20}").fullmatch
_BLANKS = b" \t\r\n"
_ID_NAMES = ("subscription", "subscription_id", "subscriptionId", "id")


def plain_name(method: str) -> bool:
    """Whether a method's name is one that a node could have, and safe to be put into JSON as it is."""
    return _is_plain(method) is not None


def canonical_params(params: bytes) -> bytes:
    """The parameters without blanks and with members in order; empty when there are none.

    What is no array and no object becomes none: it would spoil a message on a socket that many callers share.
    """
    try:
        if not params.isascii():
            params.decode()
        params = params.strip(_BLANKS)
        return _ordered(params, DEEPEST) if params[:1] in (b"[", b"{") else b""
    except PROBLEMS:
        return b""


def _ordered(raw: bytes, levels: int) -> bytes:
    first = raw[:1]
    if not levels or first not in (b"[", b"{"):
        return raw
    if first == b"[":
        return b"[%b]" % b",".join([_ordered(bytes(item), levels - 1) for item in _decode_items(raw)])
    members = _decode_members(raw)
    return b"{%b}" % b",".join(
        [b"%b:%b" % (_encode(n), _ordered(bytes(members[n]), levels - 1)) for n in sorted(members)]
    )


def key_of(method: str, params: bytes) -> bytes:
    """What equal requests have in common."""
    key = b"%b %b" % (method.encode("utf-8", "replace"), params)
    return key if len(key) <= LONGEST_KEY else hashlib.blake2b(key, digest_size=32).digest()


def passed_through(
    method: str,
    params: bytes,
    unsubscribe: str,
    notification: str,
    *,
    kind: FeedKind = FeedKind.PLAIN,
    label: str = "other",
    numeric: bool = False,
    shared: bool = True,
) -> Subscription:
    """A subscription whose events are not looked into; the parameters go upstream in their one form."""
    params = canonical_params(params)
    return Subscription(
        kind, key_of(method, params), method, params, unsubscribe, notification, label, None, numeric, shared
    )


def named_in(params: bytes) -> bytes | None:
    """The raw JSON id that an unsubscribe call names: its first parameter, or the member of that name."""
    try:
        if params[:1] == b"{":
            members = _decode_members(params)
            raw = next((bytes(members[name]) for name in _ID_NAMES if name in members), b"")
        else:
            items = _decode_items(params) if params else []
            raw = bytes(items[0]) if items else b""
        if raw[:1] == b'"':
            return _encode(_decode_string(raw))
    except PROBLEMS:
        return None
    return raw if _is_number(raw) else None


class Eventless:
    """The answers of a dialect that has no subscriptions; others take over what they do not have.

    See `dialect.protocol.Dialect`.
    """

    def subscription(self, method: str, params: bytes) -> Subscription | None:
        return None

    def ends_subscription(self, method: str) -> bool:
        return False

    def subscription_id(self, params: bytes) -> bytes | None:
        return named_in(params)

    def read_header(self, raw: bytes) -> Header | None:
        return None

    def read_log(self, raw: bytes) -> Log | None:
        return None

    def read_logs(self, raw: bytes) -> list[Log] | None:
        return None

    def removed(self, log: Log) -> Log:
        return log

    def header_by_number(self, number: int) -> tuple[str, bytes]:
        raise ValueError("there are no headers here")

    def header_by_hash(self, block_hash: str) -> tuple[str, bytes]:
        raise ValueError("there are no headers here")

    def logs_between(self, wanted: LogFilter, low: int, high: int) -> tuple[str, bytes]:
        raise ValueError("there are no logs of blocks here")

    def logs_of(self, wanted: LogFilter, block_hash: str) -> tuple[str, bytes]:
        raise ValueError("there are no logs of blocks here")

    def may_match(self, wanted: LogFilter, bloom: bytes) -> bool:
        return True

    def place(self, subscription: Subscription, raw: bytes) -> tuple[bytes, int]:
        return b"", -1

    def refresh(self, subscription: Subscription) -> tuple[str, bytes] | None:
        return None

    def refreshed(self, subscription: Subscription, result: bytes) -> bytes | None:
        return None

"""Subscriptions of Solana nodes: which there are, where an event stands, and how a state is asked for anew.

Always true: ids are numbers; an event is told apart by its slot or signature where it has one; a refresh
says what a notification would have said, in the same shape; nothing here raises on what anybody sends.
Why an account is a state and a program is not: one call shows what became of an account, while a
program's accounts are too many to be asked for at each change of endpoint.
Sources: solana.com/docs/rpc/websocket, and Agave's `rpc_subscriptions.rs` for what is told when.
Does not belong here: the order of events and what to do about a lost one (policy/feeds).
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from gateway.dialect.subscriptions import PROBLEMS, passed_through
from gateway.events import FeedKind, Subscription

MAX_SLOT = (1 << 63) - 1

_KINDS = {
    "account": FeedKind.NEWEST,
    "block": FeedKind.PLAIN,
    "logs": FeedKind.PLAIN,
    "program": FeedKind.PLAIN,
    "root": FeedKind.NEWEST,
    "signature": FeedKind.ONCE,
    "slot": FeedKind.NEWEST,
    "slotsUpdates": FeedKind.PLAIN,
    "transaction": FeedKind.PLAIN,  # of indexers, not of nodes
    "vote": FeedKind.PLAIN,
}
_STEADY = ("root", "slot", "slotsUpdates")
_UNKNOWN = (b"", -1)
_LEVELS = {"processed": 0, "confirmed": 1, "finalized": 2}
_OLD_NAMES = {
    "recent": "processed", "single": "confirmed", "singleGossip": "confirmed", "root": "finalized", "max": "finalized",
}  # fmt: skip
_EMPTY_DATA = {
    None: b'""',
    "binary": b'""',
    "base58": b'["","base58"]',
    "base64": b'["","base64"]',
    "base64+zstd": b'["KLUv/QBYAQAA","base64+zstd"]',  # a frame of nothing
    "jsonParsed": b'["","base64"]',
}
_CLOSED = (
    b'{"context":{"slot":%d},"value":{"data":%b,"executable":false,"lamports":0,'
    b'"owner":"11111111111111111111111111111111","rentEpoch":0,"space":0}}'
)
"""What a node tells of an account that was closed."""

_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_int = msgspec.json.Decoder(int).decode


# --- what is asked for --------------------------------------------------------------------------------


def subscription(method: str, params: bytes) -> Subscription | None:
    """See `dialect.protocol.Dialect`."""
    stream = method.removesuffix("Subscribe")
    kind = _KINDS.get(stream)
    if kind is None or stream == method:
        return None
    wanted = passed_through(
        method, params, f"{stream}Unsubscribe", f"{stream}Notification", kind=kind, label=method, numeric=True
    )
    if stream in _STEADY:
        return replace(wanted, steady=True)
    if kind is FeedKind.ONCE and _config_of(wanted.params).enableReceivedNotification:
        return replace(wanted, kind=FeedKind.PLAIN)  # two events come: that it was received, and that it is done
    return wanted


def ends_subscription(method: str) -> bool:
    """``slotUnsubscribe`` and the like."""
    stream = method.removesuffix("Unsubscribe")
    return stream != method and stream in _KINDS


class _Config(msgspec.Struct, gc=False):
    commitment: str | None = None
    encoding: str | None = None
    enableReceivedNotification: bool | None = None


_decode_config = msgspec.json.Decoder(_Config).decode


def _config_of(params: bytes) -> _Config:
    """The config object behind the first parameter; what is none says nothing."""
    try:
        items = _decode_items(params)
        return _decode_config(items[1]) if len(items) > 1 and bytes(items[1]) != b"null" else _Config()
    except PROBLEMS:
        return _Config()


# --- where an event stands ----------------------------------------------------------------------------


class _Context(msgspec.Struct, gc=False):
    slot: int


class _Value(msgspec.Struct, gc=False):
    signature: str = ""
    slot: int = -1
    block: msgspec.Raw = msgspec.Raw(b"null")
    err: msgspec.Raw = msgspec.Raw(b"null")


class _InContext(msgspec.Struct, gc=False):
    context: _Context


class _Told(msgspec.Struct, gc=False):
    context: _Context
    value: _Value


class _Bare(msgspec.Struct, gc=False):
    """An event without context: a slot, a vote, an indexer's transaction."""

    slot: int = -1
    signature: str = ""


_decode_context = msgspec.json.Decoder(_InContext).decode
_decode_told = msgspec.json.Decoder(_Told).decode
_decode_bare = msgspec.json.Decoder(_Bare).decode


def place(subscription: Subscription, raw: bytes) -> tuple[bytes, int]:
    """What an event is known by (empty: nothing), and its slot (-1: none)."""
    stream = subscription.method.removesuffix("Subscribe")
    try:
        if stream == "root":
            slot = _slot(_decode_int(raw))
            return (b"%d" % slot, slot) if slot >= 0 else _UNKNOWN
        if stream == "slot":
            slot = _slot(_decode_bare(raw).slot)
            return (b"%d" % slot, slot) if slot >= 0 else _UNKNOWN
        if stream in ("vote", "transaction"):
            bare = _decode_bare(raw)
            return bare.signature.encode(), _slot(bare.slot)
        if stream == "logs":
            told = _decode_told(raw)
            return told.value.signature.encode(), _slot(told.context.slot)
        if stream == "block":
            return _place_of_block(_decode_told(raw))
        if stream in ("account", "program", "signature"):
            return b"", _slot(_decode_context(raw).context.slot)
    except PROBLEMS:
        return _UNKNOWN
    return _UNKNOWN


def _place_of_block(told: _Told) -> tuple[bytes, int]:
    """A block that could not be read has no identity: another node may have it."""
    slot = _slot(told.value.slot)
    whole = slot >= 0 and bytes(told.value.block) != b"null" and bytes(told.value.err) == b"null"
    return b"%d" % slot if whole else b"", _slot(told.context.slot)


def _slot(number: int) -> int:
    return number if 0 <= number <= MAX_SLOT else -1


# --- asking anew --------------------------------------------------------------------------------------


class _Status(msgspec.Struct, gc=False):
    slot: int
    confirmations: int | None = None
    err: msgspec.Raw = msgspec.Raw(b"null")
    confirmationStatus: str | None = None


class _Statuses(msgspec.Struct, gc=False):
    context: _Context
    value: list[_Status | None]


class _Account(msgspec.Struct, gc=False):
    context: _Context
    value: msgspec.Raw


_decode_statuses = msgspec.json.Decoder(_Statuses).decode
_decode_account = msgspec.json.Decoder(_Account).decode


def refresh(subscription: Subscription) -> tuple[str, bytes] | None:
    """The call that tells the state of an account, or whether a transaction is done; None for other streams."""
    if subscription.kind is FeedKind.NEWEST and subscription.method == "accountSubscribe":
        return "getAccountInfo", subscription.params
    if subscription.kind is FeedKind.ONCE:
        try:
            items = _decode_items(subscription.params)
        except PROBLEMS:
            return None
        if items and bytes(items[0])[:1] == b'"':
            return "getSignatureStatuses", b'[[%b],{"searchTransactionHistory":false}]' % bytes(items[0])
    return None


def refreshed(subscription: Subscription, result: bytes) -> bytes | None:
    """The answer to `refresh` as a notification's result; None when there is nothing to tell yet."""
    try:
        result.decode()
        if subscription.method == "accountSubscribe":
            return _account(subscription, result)
        return _signature(subscription, result)
    except PROBLEMS:
        return None


def _account(subscription: Subscription, result: bytes) -> bytes | None:
    """The account as it is; one that is not there (any more) is told as nodes tell a closed one."""
    found = _decode_account(result)
    if bytes(found.value) != b"null":
        return result
    data = _EMPTY_DATA.get(_config_of(subscription.params).encoding)
    slot = _slot(found.context.slot)
    return _CLOSED % (slot, data) if data is not None and slot >= 0 else None


def _signature(subscription: Subscription, result: bytes) -> bytes | None:
    """The end of a transaction, once it has come as far as the caller wants to know it (finalized unless said)."""
    found = _decode_statuses(result)
    status = found.value[0] if found.value else None
    if status is None:
        return None
    reached = status.confirmationStatus
    if reached is None:
        reached = "finalized" if status.confirmations is None else "processed"
    wanted = _config_of(subscription.params).commitment or "finalized"
    level = _LEVELS.get(_OLD_NAMES.get(wanted, wanted), 2)
    slot = _slot(found.context.slot)
    if slot < 0 or _LEVELS.get(reached, -1) < level:
        return None
    return b'{"context":{"slot":%d},"value":{"err":%b}}' % (slot, bytes(status.err))

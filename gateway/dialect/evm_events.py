"""Subscriptions of EVM nodes: what is asked for, headers and logs, and whether a block may hold a log.

Always true: equal filters get equal keys, whatever the case of an address and whether one value stands
in a list; a filter that is understood here means the same to every node, and what is odd is passed
through for the upstream to judge; the values of a header or a log are the upstream's own bytes; a block
whose bloom filter says no surely has no such log; nothing here raises on what anybody sends.
Sources: the execution API (github.com/ethereum/execution-apis), go-ethereum's `eth/filters` for what a
subscription's filter means, and the Yellow Paper, section 4.3.1, for the bloom filter.
Does not belong here: the order of events and what to do about a lost one (policy/feeds).
"""

from __future__ import annotations

import binascii
import functools
import re
from dataclasses import replace
from typing import Any

import msgspec

from gateway.dialect.evm_answers import number_in
from gateway.dialect.subscriptions import PROBLEMS, canonical_params, key_of, passed_through, plain_name
from gateway.dialect.transactions import keccak256
from gateway.events import FeedKind, Header, Log, LogFilter, Subscription

SUBSCRIBE = "eth_subscribe"
UNSUBSCRIBE = "eth_unsubscribe"
NOTIFICATION = "eth_subscription"
MOST_TOPICS = 4  # positions; the EVM has no more, and nodes refuse more
MANY = 128
"""Alternatives of one position: with more of them a bloom filter of a busy chain excludes nothing."""
BLOOM = 256  # bytes

_is_address = re.compile(r"0x[0-9a-fA-F]{40}").fullmatch
_is_hash = re.compile(r"0x[0-9a-fA-F]{64}").fullmatch
_ABSENT = msgspec.Raw(b"")
_encode = msgspec.json.encode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder().decode

LABELLED = frozenset(
    {
        "syncing",
        "newPendingTransactions",
        "alchemy_minedTransactions",
        "alchemy_pendingTransactions",
        "newFlashblocks",
        "newFlashblockTransactions",
        "pendingLogs",
        "transactionReceipts",
        "monadNewHeads",
        "monadLogs",
    }
)
"""Kinds of events that have a label of their own in metrics."""
_ANY_LOWER = (None, "latest", "0x0")  # a subscription tells new blocks only, and those are above these
_ANY_UPPER = (None, "latest")
_FILTER_MEMBERS = frozenset({"address", "topics", "fromBlock", "toBlock"})
_HEADERS_ONLY = (b"{}", b'{"includeTransactions":false}')  # Besu's option, and how some clients send none
_BODY = frozenset({"transactions", "uncles", "withdrawals", "totalDifficulty", "size"})
"""What a block says beside its header: go-ethereum's `newHeads` tells none of it."""


class OddFilter(ValueError):
    """A filter that is not understood, and left to the upstream."""


# --- what is asked for --------------------------------------------------------------------------------


def subscription(method: str, params: bytes) -> Subscription | None:
    """See `dialect.protocol.Dialect`.  Nodes of the go-ethereum family have one `subscribe` per namespace."""
    if not method.endswith("_subscribe") or not plain_name(method):
        return None
    if method != SUBSCRIBE:
        space = method.removesuffix("_subscribe")
        return passed_through(method, params, f"{space}_unsubscribe", f"{space}_subscription", shared=False)
    what = ""
    try:
        items = _decode_items(params) if params else []
        what = _decode_string(items[0]) if items else ""
        understood = _understood(what, bytes(items[1]) if len(items) == 2 else b"null") if len(items) <= 2 else None
    except (*PROBLEMS, OddFilter):
        understood = None
    if understood is not None:
        return understood
    label = what if what in LABELLED or what in ("newHeads", "logs") else "other"
    return passed_through(method, params, UNSUBSCRIBE, NOTIFICATION, label=label, shared=what in LABELLED)


def ends_subscription(method: str) -> bool:
    """``eth_unsubscribe``, and that of any other namespace."""
    return method.endswith("_unsubscribe") and plain_name(method)


def _understood(what: str, option: bytes) -> Subscription | None:
    """A request in the form that all nodes take; None for one that is not known well enough."""
    if what == "newHeads" and (option == b"null" or canonical_params(option) in _HEADERS_ONLY):
        return _made(FeedKind.HEADS, b'["newHeads"]', what)
    if what == "logs":
        wanted = read_filter(option)
        return _made(FeedKind.LOGS, b'["logs",%b]' % _filter_object(wanted), what, wanted)
    if what == "newPendingTransactions" and option in (b"null", b"false"):
        return _made(FeedKind.PLAIN, b'["newPendingTransactions"]', what)  # some nodes refuse the false
    if what == "syncing" and option == b"null":
        return _made(FeedKind.PLAIN, b'["syncing"]', what)
    return None


def _made(kind: FeedKind, params: bytes, label: str, wanted: LogFilter | None = None) -> Subscription:
    return Subscription(kind, key_of(SUBSCRIBE, params), SUBSCRIBE, params, UNSUBSCRIBE, NOTIFICATION, label, wanted)


def read_filter(raw: bytes) -> LogFilter:
    """The filter of a subscription to logs.

    Bounds that say "from now on" are left out; any other makes the filter odd, because whether it
    matters depends on the head.  Topics keep their trailing nulls: nodes ask a log to have as many topics
    as the filter has positions, which tells an ERC-721 transfer from an ERC-20 one.
    Raises OddFilter, or one of PROBLEMS.
    """
    if raw == b"null":
        return LogFilter()
    members = _decode_members(raw)
    if not members.keys() <= _FILTER_MEMBERS:
        raise OddFilter
    if _value(members, "fromBlock") not in _ANY_LOWER or _value(members, "toBlock") not in _ANY_UPPER:
        raise OddFilter
    addresses = _any_of(_value(members, "address"), _is_address)
    positions = _value(members, "topics")
    if positions is None:
        positions = []
    if not isinstance(positions, list) or len(positions) > MOST_TOPICS:
        raise OddFilter
    told, topics = [], []
    for position in positions:
        values = _any_of(position, _is_hash)
        topics.append(values)
        told.append(None if not values else values[0] if len(values) == 1 else values)
    raw_address = b"" if not addresses else _encode(addresses[0] if len(addresses) == 1 else addresses)
    return LogFilter(raw_address, _encode(told) if told else b"", addresses, tuple(topics))


def _value(members: dict[str, msgspec.Raw], name: str) -> Any:
    return _decode_any(members[name]) if name in members else None


def _any_of(value: Any, fits: Any) -> tuple[str, ...]:
    """The alternatives in lower case and in order; none at all: anything.  Raises OddFilter."""
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) and fits(item) for item in values):
        raise OddFilter
    return tuple(sorted({item.lower() for item in values}))


def _filter_object(wanted: LogFilter, *bounds: bytes) -> bytes:
    members = list(bounds)
    if wanted.raw_address:
        members.append(b'"address":%b' % wanted.raw_address)
    if wanted.raw_topics:
        members.append(b'"topics":%b' % wanted.raw_topics)
    return b"{%b}" % b",".join(members)


# --- headers ------------------------------------------------------------------------------------------


class _Header(msgspec.Struct, gc=False):
    number: str
    hash: str
    parentHash: str
    logsBloom: str | None = None
    timestamp: str | None = None
    transactions: msgspec.Raw = _ABSENT
    uncles: msgspec.Raw = _ABSENT
    withdrawals: msgspec.Raw = _ABSENT
    totalDifficulty: msgspec.Raw = _ABSENT
    size: msgspec.Raw = _ABSENT

    @property
    def has_body(self) -> bool:
        """It says more than a header; the members of `_BODY`."""
        return bool(self.transactions or self.uncles or self.withdrawals or self.totalDifficulty or self.size)


_decode_header = msgspec.json.Decoder(_Header).decode


def read_header(raw: bytes) -> Header | None:
    """A header as ``newHeads`` tells it, or a whole block, of which the header is kept; None for neither.

    Some nodes push whole blocks or sizes; callers are told the same members whoever told us first.
    """
    try:
        _require_text(raw)
        found = _decode_header(raw)
        told = _without_body(raw) if found.has_body else bytes(raw)
    except PROBLEMS:
        return None
    number = _number(found.number)
    if number is None or not _is_hash(found.hash) or not _is_hash(found.parentHash):
        return None
    return Header(
        number, found.hash.lower(), found.parentHash.lower(), told, _bloom(found.logsBloom), _number(found.timestamp)
    )


def _without_body(raw: bytes) -> bytes:
    return _encode({name: value for name, value in _decode_members(raw).items() if name not in _BODY})


def _bloom(text: str | None) -> bytes:
    """The filter's bytes; none when it is not said, or not one."""
    if text is None or len(text) != 2 * BLOOM + 2 or text[:2] != "0x":
        return b""
    try:
        return binascii.unhexlify(text[2:])
    except ValueError:
        return b""


def header_by_number(number: int) -> tuple[str, bytes]:
    """The call that asks for a header by its number."""
    return "eth_getBlockByNumber", b'["0x%x",false]' % number


def header_by_hash(block_hash: str) -> tuple[str, bytes]:
    """The call that asks for a header by its hash."""
    return "eth_getBlockByHash", b'["%b",false]' % block_hash.encode()


# --- logs ---------------------------------------------------------------------------------------------


class _Log(msgspec.Struct, gc=False):
    blockNumber: str
    blockHash: str
    logIndex: str
    removed: bool | None = None


_decode_log = msgspec.json.Decoder(_Log).decode
_TRUE = msgspec.Raw(b"true")


def read_log(raw: bytes) -> Log | None:
    """A log of a block; None for anything else, such as a log that no block holds yet."""
    try:
        _require_text(raw)
        return _log(raw)
    except PROBLEMS:
        return None


def read_logs(raw: bytes) -> list[Log] | None:
    """The logs in an answer to ``eth_getLogs``; None when one of them is none."""
    try:
        _require_text(raw)
        logs = [_log(bytes(item)) for item in _decode_items(raw)]
    except PROBLEMS:
        return None
    found = [log for log in logs if log is not None]
    return found if len(found) == len(logs) else None


def _log(raw: bytes) -> Log | None:
    found = _decode_log(raw)
    number, index = _number(found.blockNumber), _number(found.logIndex)
    if number is None or index is None or not _is_hash(found.blockHash):
        return None
    return Log(number, found.blockHash.lower(), index, raw, bool(found.removed))


def removed(log: Log) -> Log:
    """The same log as it is told when its block was abandoned."""
    try:
        members = _decode_members(log.raw)
    except PROBLEMS:
        return replace(log, removed=True)  # nothing that was read comes here
    members["removed"] = _TRUE
    return replace(log, raw=_encode(members), removed=True)


def logs_between(wanted: LogFilter, low: int, high: int) -> tuple[str, bytes]:
    """The call that asks for the logs of blocks by number, both ends included."""
    bounds = b'"fromBlock":"0x%x"' % low, b'"toBlock":"0x%x"' % high
    return "eth_getLogs", b"[%b]" % _filter_object(wanted, *bounds)


def logs_of(wanted: LogFilter, block_hash: str) -> tuple[str, bytes]:
    """The call that asks for the logs of one block, whichever branch it is on (EIP-234)."""
    return "eth_getLogs", b"[%b]" % _filter_object(wanted, b'"blockHash":"%b"' % block_hash.encode())


def _require_text(raw: bytes) -> None:
    """Raises UnicodeDecodeError for what cannot be sent in a text frame."""
    if not raw.isascii():
        bytes(raw).decode()


def _number(text: str | None) -> int | None:
    return number_in(text) if text is not None and text.isascii() else None


# --- the bloom filter ---------------------------------------------------------------------------------


def may_match(wanted: LogFilter, bloom: bytes) -> bool:
    """Whether a block with this bloom filter may hold a log that is wanted; False is certain."""
    if len(bloom) != BLOOM:
        return True
    bits = int.from_bytes(bloom, "big")
    if not bits:
        return False
    for alternatives in (wanted.addresses, *wanted.topics):
        if 0 < len(alternatives) <= MANY and not any(bits & mask == mask for mask in _masks(alternatives)):
            return False
    return True


@functools.lru_cache(maxsize=256)
def _masks(alternatives: tuple[str, ...]) -> tuple[int, ...]:
    """The bits that each of these addresses or topics sets."""
    return tuple(mask_of(binascii.unhexlify(value[2:])) for value in alternatives)


def mask_of(value: bytes) -> int:
    """The three of 2048 bits that an address or a topic sets: the low 11 bits of the hash's first three pairs."""
    digest = keccak256(value)
    mask = 0
    for at in (0, 2, 4):
        mask |= 1 << (int.from_bytes(digest[at : at + 2], "big") & 0x7FF)
    return mask


# --- events that are passed through -------------------------------------------------------------------


class _Transaction(msgspec.Struct, gc=False):
    hash: str


_decode_transaction = msgspec.json.Decoder(_Transaction).decode


def place(subscription: Subscription, raw: bytes) -> tuple[bytes, int]:
    """A pending transaction is known by its hash, whole or not; other events have no identity here."""
    if subscription.label not in ("newPendingTransactions", "alchemy_pendingTransactions"):
        return b"", -1
    try:
        text = _decode_string(raw) if raw[:1] == b'"' else _decode_transaction(raw).hash
    except PROBLEMS:
        return b"", -1
    return (text.lower().encode(), -1) if _is_hash(text) else (b"", -1)

"""The dialect of Solana nodes: slots as heads, commitments, transaction signatures, and what errors mean.

Always true: a call for a slot or a signature is pinned, everything else reads the head at its own
commitment (``finalized`` where none is said, as nodes do); a transaction's id is its first signature,
read out of the very bytes that are sent, never made anew; nothing here raises on what a caller or an
upstream sends.
Why the newest block is a *confirmed* one: processed slots can be on a branch that is dropped, so two
honest endpoints would seem forked; finalized ones are told apart as the finalized head.
Does not belong here: error rules and method lists (data files beside this one).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from gateway.dialect import solana_events
from gateway.dialect.canonical import canonical
from gateway.dialect.classification import Rules, rules_for
from gateway.dialect.solana_transactions import decode_base58, encode_base58, first_signature, raw_transaction_of
from gateway.dialect.subscriptions import Eventless
from gateway.dialect.tables import method_table
from gateway.events import Subscription
from gateway.model import BlockRef, Call, Examined, Family, HeadReport, Method, ReplyKind, RequestClass

MAX_SLOT = (1 << 63) - 1
LOOKED_INTO = 65_536  # bytes of an answer; where the slot or the signature stands near its beginning
MAX_VERSION = 64  # characters
HASH = 32  # bytes

_SYSTEM = b'"11111111111111111111111111111111"'  # the system program: an account that every network has
_CONFIRMED = b'[{"commitment":"confirmed"}]'
_FINALIZED = b'[{"commitment":"finalized"}]'
_NULL = b"null"
_CONTEXT = re.compile(rb'\s*\{\s*"context"\s*:\s*\{[^{}]{0,128}?"slot"\s*:\s*(\d{1,18})\s*[,}]')
_ONLY_NULLS = re.compile(rb'.{0,256}"value"\s*:\s*\[\s*null(?:\s*,\s*null)*\s*\]\s*\}\s*', re.DOTALL)
_BY_SLOT = frozenset({"getBlock", "getConfirmedBlock", "getBlockTime"})
_SLOT_RANGE = frozenset({"getBlocks", "getConfirmedBlocks"})
_FROM_SLOT = frozenset({"getBlocksWithLimit", "getConfirmedBlocksWithLimit"})
_PROBLEMS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# At which slot, and by which software: not what was asked.  Costs are told by newer versions only.
_CIRCUMSTANCES = frozenset({"context", "computeUnitsConsumed", "costUnits"})
_PROBES = {
    Family.STATE: ("getBalance", b"[%b]" % _SYSTEM),
    Family.BLOCK: ("getFirstAvailableBlock", b"[]"),
    Family.LOGS: ("getSignaturesForAddress", b'[%b,{"limit":1}]' % _SYSTEM),
    Family.FEE: ("getLatestBlockhash", _CONFIRMED),
    Family.SEND: ("getLatestBlockhash", _CONFIRMED),  # a send cannot be tried out; this is what it needs first
}


class _Config(msgspec.Struct, gc=False):
    """What a config object says that matters here."""

    commitment: str | None = None
    minContextSlot: int | None = None


class _Context(msgspec.Struct, gc=False):
    slot: int


class _Blockhash(msgspec.Struct, gc=False):
    blockhash: str


class _Latest(msgspec.Struct, gc=False):
    context: _Context
    value: _Blockhash


class _EpochInfo(msgspec.Struct, gc=False):
    absoluteSlot: int


class _Signed(msgspec.Struct, gc=False):
    signatures: list[str] = []


class _Confirmed(msgspec.Struct, gc=False):
    """A transaction as ``json`` or ``jsonParsed``; other encodings give a list here and are left alone."""

    transaction: _Signed


class _Placed(msgspec.Struct, gc=False):
    """A transaction, with the slot that it is in."""

    slot: int | None = None


class _Statuses(msgspec.Struct, gc=False):
    value: list[msgspec.Raw]


class _Version(msgspec.Struct, gc=False, rename={"core": "solana-core"}):
    core: str


_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_config = msgspec.json.Decoder(_Config).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_int = msgspec.json.Decoder(int).decode
_decode_latest = msgspec.json.Decoder(_Latest).decode
_decode_epoch = msgspec.json.Decoder(_EpochInfo).decode
_decode_confirmed = msgspec.json.Decoder(_Confirmed).decode
_decode_statuses = msgspec.json.Decoder(_Statuses).decode
_decode_placed = msgspec.json.Decoder(_Placed).decode
_decode_version = msgspec.json.Decoder(_Version).decode


class SolanaDialect(Eventless):
    """See `dialect.protocol.Dialect`.  Block numbers are slots; hashes of blocks are given as hex."""

    name = "solana"
    chain_id_call: tuple[str, bytes] | None = None  # networks are told apart by their genesis hash
    head_call = ("getSlot", _CONFIRMED)
    poll_call = ("getLatestBlockhash", _CONFIRMED)
    final_call: tuple[str, bytes] | None = ("getLatestBlockhash", _FINALIZED)
    safe_call: tuple[str, bytes] | None = None
    version_call: tuple[str, bytes] | None = ("getVersion", b"[]")
    genesis_call: tuple[str, bytes] | None = ("getGenesisHash", b"[]")

    def __init__(self) -> None:
        self.methods = method_table("solana")
        self._get = self.methods.get
        self._rules: Rules = rules_for("solana")

    def call(self, method: str, params: bytes, caller_id: bytes | None) -> Call:
        known = self._get(method)
        own = known.request_class
        if known.block_param < 0:
            block = BlockRef.HASH if own is RequestClass.PINNED_READ else BlockRef.NONE
            return Call(known, params, caller_id, own, block)
        block, high = _where(known, params)
        # The lower end stays unsaid: a skipped slot would pass for a pruned one, and all below it with it.
        return Call(known, params, caller_id, own, block, -1, high)

    def classify_error(
        self, http_status: int, code: int | None, message: str, data: bytes, method: Method
    ) -> tuple[ReplyKind, str]:
        kind, why = self._rules.classify_error(http_status, code, message, data, method)
        if kind is ReplyKind.TX_KNOWN and not method.answers_hash:
            return ReplyKind.REFUSAL, why  # a simulation, or a bundle: a signature would be no answer
        if kind is ReplyKind.SERVER_FAULT and code == -32005 and slots_behind(data) is not None:
            return ReplyKind.MISSING_DATA, "behind"  # it works, it is late; its head says by how much
        return kind, why

    def classify_http(self, http_status: int, body: bytes) -> ReplyKind:
        return self._rules.classify_http(http_status, body)

    def learned_range(self, message: str) -> int | None:
        return None  # slot ranges are limited by the protocol (500 000), not by each vendor

    def is_of_the_query(self, message: str) -> bool:
        return False

    def transaction_hash(self, params: bytes) -> str | None:
        """The first signature of the transaction in base58: the id that nodes, explorers and wallets use."""
        raw = raw_transaction_of(params)
        signature = first_signature(raw) if raw is not None else None
        return encode_base58(signature) if signature is not None else None

    def lookup_call(self, transaction_hash: str) -> tuple[str, bytes]:
        return "getSignatureStatuses", b'[["%b"],{"searchTransactionHistory":true}]' % transaction_hash.encode()

    def found(self, transaction_hash: str, result: bytes) -> bool | None:
        """Whether an answer to `lookup_call` shows the transaction.

        None, never False, when it does not: a node has no pool to look into, and a transaction that no
        block holds yet may still be taken up until its blockhash expires (150 blocks, about a minute).
        """
        try:
            value = _decode_statuses(result).value
        except _PROBLEMS:
            return None
        return True if len(value) == 1 and bytes(value[0])[:1] == b"{" else None

    def probe_call(self, family: Family) -> tuple[str, bytes]:
        return _PROBES.get(family, self.head_call)

    def parse_chain_id(self, result: bytes) -> int | None:
        return None

    def parse_head(self, result: bytes) -> int | None:
        try:
            return _slot(_decode_int(result))
        except _PROBLEMS:
            return None

    def parse_poll(self, result: bytes) -> HeadReport | None:
        """The slot and its blockhash; of the answer to `genesis_call`, which is a hash alone, slot 0."""
        try:
            if result[:1] == b'"':
                number: int | None = 0
                text = _decode_string(result)
            else:
                latest = _decode_latest(result)
                number, text = _slot(latest.context.slot), latest.value.blockhash
        except _PROBLEMS:
            return None
        digest = decode_base58(text, HASH)
        if number is None or digest is None:
            return None
        return HeadReport(number, digest.hex())

    def parse_version(self, result: bytes) -> str:
        """``agave/2.1.5``; a major version of 0 is Firedancer's, which numbers itself so under the same name."""
        try:
            core = _decode_version(result).core
        except _PROBLEMS:
            return ""
        client = "firedancer" if core.startswith("0.") else "agave"
        return f"{client}/{core[:MAX_VERSION]}"

    def examine(self, call: Call, result: bytes) -> Examined | None:
        """The slot that an answer was given at, and whether a transaction is the one that was asked for."""
        name = call.method.name
        if name == "getSignatureStatuses":
            return Examined(missing=True) if _ONLY_NULLS.fullmatch(result, 0, LOOKED_INTO) else None
        if call.block is BlockRef.HASH:
            return _examine_transaction(call, result)
        slot = self._slot_in(name, result)
        if slot is None:
            return None
        if call.block is BlockRef.FINALIZED:
            # A getSlot that is behind is answered with the head that callers have seen, which is a confirmed one.
            return Examined(final=slot) if name != self.head_call[0] else None
        return Examined(head=HeadReport(slot)) if _commitment_of(call) == "confirmed" else None

    def _slot_in(self, name: str, result: bytes) -> int | None:
        if name == "getSlot":
            return self.parse_head(result)
        if name == "getEpochInfo":
            try:
                return _slot(_decode_epoch(result).absoluteSlot)
            except _PROBLEMS:
                return None
        match = _CONTEXT.match(result, 0, 512)
        return int(match[1]) if match is not None else None

    def encode_head(self, number: int) -> bytes | None:
        return b"%d" % number

    def pin(self, call: Call, number: int) -> bytes | None:
        return None  # no node serves the state at an older slot

    def split(self, call: Call, limit: int, at_most: int, newest: int = -1) -> list[tuple[bytes, int]] | None:
        return None

    def merge(self, results: Sequence[bytes]) -> bytes:
        raise ValueError("no call of this dialect is split")

    def fingerprint(self, method: Method, result: bytes) -> bytes:
        return canonical(result, without=_CIRCUMSTANCES)

    def block_of(self, result: bytes, reference: int) -> int | None:
        try:
            return _decode_placed(result).slot
        except _PROBLEMS:
            return None

    def subscription(self, method: str, params: bytes) -> Subscription | None:
        return solana_events.subscription(method, params)

    def ends_subscription(self, method: str) -> bool:
        return solana_events.ends_subscription(method)

    def place(self, subscription: Subscription, raw: bytes) -> tuple[bytes, int]:
        return solana_events.place(subscription, raw)

    def refresh(self, subscription: Subscription) -> tuple[str, bytes] | None:
        return solana_events.refresh(subscription)

    def refreshed(self, subscription: Subscription, result: bytes) -> bytes | None:
        return solana_events.refreshed(subscription, result)


# --- calls ----------------------------------------------------------------------------------------------


def _where(method: Method, params: bytes) -> tuple[BlockRef, int]:
    """The kind of block that a call is about, and the highest slot that its endpoint must have; -1: any."""
    try:
        items = _decode_params(params) if params else []
    except _PROBLEMS:
        return BlockRef.LATEST, -1
    name = method.name
    if method.request_class is RequestClass.PINNED_READ:
        slots = [_slot_of(item) for item in items[:2]]
        if not slots or slots[0] is None:
            return BlockRef.LATEST, -1
        if name in _BY_SLOT:
            return BlockRef.NUMBER, slots[0]
        if name in _SLOT_RANGE and len(slots) > 1 and slots[1] is not None:
            return BlockRef.NUMBER, max(slots[0], slots[1])
        if name in _FROM_SLOT and len(slots) > 1 and slots[1] is not None:
            return BlockRef.NUMBER, min(slots[0] + slots[1], MAX_SLOT)
        return BlockRef.LATEST, slots[0]  # a range up to the head
    if len(items) <= method.block_param:
        return BlockRef.FINALIZED, -1
    config = _config(bytes(items[method.block_param]))
    if config is None:
        return BlockRef.LATEST, -1
    block = BlockRef.FINALIZED if config.commitment in (None, "finalized") else BlockRef.LATEST
    least = config.minContextSlot
    return block, least if least is not None and 0 <= least <= MAX_SLOT else -1


def _config(raw: bytes) -> _Config | None:
    """A config object; ``null`` is an empty one; None for what is none, which the node will refuse or ignore."""
    if raw == _NULL:
        return _Config()
    try:
        return _decode_config(raw)
    except _PROBLEMS:
        return None


def _commitment_of(call: Call) -> str | None:
    try:
        items = _decode_params(call.params)
    except _PROBLEMS:
        return None
    index = call.method.block_param
    config = _config(bytes(items[index])) if 0 <= index < len(items) else None
    return config.commitment if config is not None else None


def _slot_of(raw: msgspec.Raw) -> int | None:
    try:
        return _slot(_decode_int(raw))
    except _PROBLEMS:
        return None


def _slot(number: int) -> int | None:
    return number if 0 <= number <= MAX_SLOT else None


# --- answers --------------------------------------------------------------------------------------------


class _Behind(msgspec.Struct, gc=False):
    numSlotsBehind: int


_decode_behind = msgspec.json.Decoder(_Behind).decode


def slots_behind(data: bytes) -> int | None:
    """How far behind an unhealthy node says it is, in slots; None when it does not say."""
    try:
        return _slot(_decode_behind(data).numSlotsBehind)
    except _PROBLEMS:
        return None


def _examine_transaction(call: Call, result: bytes) -> Examined | None:
    if result == _NULL:
        return Examined(missing=True)
    if len(result) > LOOKED_INTO:
        return None
    try:
        signatures = _decode_confirmed(result).transaction.signatures
        wanted = _decode_string(_decode_params(call.params)[0])
    except (*_PROBLEMS, IndexError):
        return None
    if not signatures or signatures[0] == wanted:
        return Examined()
    return Examined(wrong="another transaction than was asked for")

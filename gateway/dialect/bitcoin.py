"""The dialect of Bitcoin Core and its family: heights, transaction ids, and what errors mean.

Always true: a call for a block or transaction by hash is pinned, as is one for the block at a height;
an answer with another block or transaction than was asked for is wrong whatever else it says; nothing
here raises on what a caller or an upstream sends.
Does not belong here: error rules and method lists (data files beside this one), and the envelope
without ``jsonrpc`` and with ``"error":null``, which the reader of replies takes as it comes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from gateway.dialect import bitcoin_transactions
from gateway.dialect.canonical import canonical
from gateway.dialect.classification import Rules, rules_for
from gateway.dialect.subscriptions import Eventless
from gateway.dialect.tables import method_table
from gateway.model import BlockRef, Call, Examined, Family, HeadReport, Method, ReplyKind, RequestClass

LOOKED_INTO = 262_144  # bytes of an answer
MAX_HEIGHT = (1 << 32) - 1
MAX_VERSION = 64  # characters
HEADER_HEX = 160  # characters of a block header (80 bytes)

_PROBLEMS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NULL = b"null"
_BUSY = b"work queue depth exceeded"
_is_hash = re.compile(r"[0-9a-fA-F]{64}").fullmatch
_AGENT = re.compile(r"/([A-Za-z][A-Za-z .]{0,31}):v?([0-9][0-9A-Za-z.\-]{0,31})")
_CLIENTS = {
    "satoshi": "bitcoin-core",
    "shibetoshi": "dogecoin-core",
    "litecoincore": "litecoin-core",
    "magicbean": "zcashd",
    "knots": "bitcoin-knots",
}
_GROWS = frozenset({"confirmations", "nextblockhash", "in_active_chain"})  # the same block, seen from a later head
_PROBES = {
    Family.STATE: ("getmempoolinfo", b"[]"),
    Family.BLOCK: ("getblockhash", b"[0]"),
    Family.FEE: ("getmempoolinfo", b"[]"),
    Family.SEND: ("getmempoolinfo", b"[]"),  # a send cannot be tried out; the pool that takes it comes nearest
}


class _Info(msgspec.Struct, gc=False):
    """getblockchaininfo.  `time` is there since Core 23; `mediantime` is about an hour old and no substitute."""

    blocks: int
    bestblockhash: str = ""
    time: int | None = None


class _Network(msgspec.Struct, gc=False):
    subversion: str


class _Identified(msgspec.Struct, gc=False):
    """A block or header (`hash`), or a transaction (`txid`; its `hash` covers the witness)."""

    hash: str | None = None
    txid: str | None = None
    confirmations: int | None = None


class _Named(msgspec.Struct, gc=False):
    """Parameters by name, which Core takes too."""

    height: int | None = None


_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_string = msgspec.json.Decoder(str).decode
_decode_int = msgspec.json.Decoder(int).decode
_decode_info = msgspec.json.Decoder(_Info).decode
_decode_network = msgspec.json.Decoder(_Network).decode
_decode_identified = msgspec.json.Decoder(_Identified).decode


class BitcoinDialect(Eventless):
    """See `dialect.protocol.Dialect`.  Block numbers are heights."""

    name = "bitcoin"
    chain_id_call: tuple[str, bytes] | None = None  # networks are told apart by their genesis hash
    head_call = ("getblockcount", b"[]")
    poll_call = ("getblockchaininfo", b"[]")
    final_call: tuple[str, bytes] | None = None  # proof of work is never final
    safe_call: tuple[str, bytes] | None = None
    version_call: tuple[str, bytes] | None = ("getnetworkinfo", b"[]")
    genesis_call: tuple[str, bytes] | None = ("getblockhash", b"[0]")

    def __init__(self) -> None:
        self.methods = method_table("bitcoin")
        self._get = self.methods.get
        self._rules: Rules = rules_for("bitcoin")

    def call(self, method: str, params: bytes, caller_id: bytes | None) -> Call:
        known = self._get(method)
        own = known.request_class
        if own is not RequestClass.PINNED_READ:
            return Call(known, params, caller_id, own)
        height = _height_in(params) if known.block_param >= 0 else -1
        if height < 0:
            return Call(known, params, caller_id, own, BlockRef.HASH)
        return Call(known, params, caller_id, own, BlockRef.NUMBER, height, height)

    def classify_error(
        self, http_status: int, code: int | None, message: str, data: bytes, method: Method
    ) -> tuple[ReplyKind, str]:
        kind, why = self._rules.classify_error(http_status, code, message, data, method)
        if kind is ReplyKind.TX_KNOWN and not method.answers_hash:
            return ReplyKind.REFUSAL, why  # a package's answer is more than an id
        return kind, why

    def classify_http(self, http_status: int, body: bytes) -> ReplyKind:
        if http_status == 503 and _BUSY in body[:512].lower():
            return ReplyKind.THROTTLED  # Core says so in plain text when its work queue is full
        return self._rules.classify_http(http_status, body)

    def learned_range(self, message: str) -> int | None:
        return None  # no method takes a range of blocks

    def is_of_the_query(self, message: str) -> bool:
        return False

    def transaction_hash(self, params: bytes) -> str | None:
        """The transaction's id: 64 hex digits in the order in which nodes and explorers write them."""
        raw = bitcoin_transactions.raw_transaction_of(params)
        return bitcoin_transactions.transaction_id(raw) if raw is not None else None

    def lookup_call(self, transaction_hash: str) -> tuple[str, bytes]:
        return "getrawtransaction", b'["%b",1]' % transaction_hash.encode()

    def found(self, transaction_hash: str, result: bytes) -> bool | None:
        """Whether an answer to `lookup_call` shows the transaction; one that is not there is answered with an error."""
        identified = _identified(result)
        return True if identified is not None and identified.txid == transaction_hash else None

    def probe_call(self, family: Family) -> tuple[str, bytes]:
        return _PROBES.get(family, self.head_call)

    def parse_chain_id(self, result: bytes) -> int | None:
        return None

    def parse_head(self, result: bytes) -> int | None:
        try:
            return _height(_decode_int(result))
        except _PROBLEMS:
            return None

    def parse_poll(self, result: bytes) -> HeadReport | None:
        """The newest block; of the answer to `genesis_call`, which is a hash alone, block 0."""
        try:
            if result[:1] == b'"':
                text = _decode_string(result)
                return HeadReport(0, text.lower()) if _is_hash(text) else None
            info = _decode_info(result)
        except _PROBLEMS:
            return None
        if _height(info.blocks) is None:
            return None
        digest = info.bestblockhash.lower() if _is_hash(info.bestblockhash) else ""
        return HeadReport(info.blocks, digest, "", info.time)

    def parse_version(self, result: bytes) -> str:
        """``bitcoin-core/25.0.0`` of ``/Satoshi:25.0.0/``; the last agent in the list names a derived client."""
        try:
            agents = _AGENT.findall(_decode_network(result).subversion[:256])
        except _PROBLEMS:
            return ""
        if not agents:
            return ""
        client, version = agents[-1]
        known = client.lower().replace(" ", "-")
        return f"{_CLIENTS.get(known, known)}/{version}"[:MAX_VERSION]

    def examine(self, call: Call, result: bytes) -> Examined | None:
        """The head that an answer tells, and whether a block or transaction is the one that was asked for."""
        name = call.method.name
        if name == "getblockcount":
            height = self.parse_head(result)
            return Examined(head=HeadReport(height)) if height is not None else None
        if name == "getblockchaininfo":
            report = self.parse_poll(result)
            return Examined(head=report) if report is not None else None
        return _examine_hashed(call, result) if call.block is BlockRef.HASH else None

    def encode_head(self, number: int) -> bytes | None:
        return b"%d" % number

    def pin(self, call: Call, number: int) -> bytes | None:
        return None  # no call names a block by its height besides those that always do

    def split(self, call: Call, limit: int, at_most: int, newest: int = -1) -> list[tuple[bytes, int]] | None:
        return None

    def merge(self, results: Sequence[bytes]) -> bytes:
        raise ValueError("no call of this dialect is split")

    def block_of(self, result: bytes, reference: int) -> int | None:
        identified = _identified(result)
        if identified is None:
            return None
        confirmations = identified.confirmations or 0
        return reference - confirmations + 1 if confirmations > 0 and reference >= confirmations else -1

    def fingerprint(self, method: Method, result: bytes) -> bytes:
        return canonical(result, without=_GROWS)


# --- calls ----------------------------------------------------------------------------------------------


def _height_in(params: bytes) -> int:
    """The height that is the first parameter, or the one named so; -1 when it is a hash or nothing."""
    try:
        found: int | None
        if params[:1] == b"{":
            found = _decode_named(params).height
        else:
            found = _decode_int(_decode_params(params)[0])
    except (*_PROBLEMS, IndexError):
        return -1
    height = _height(found) if found is not None else None
    return height if height is not None else -1


def _height(number: int) -> int | None:
    return number if 0 <= number <= MAX_HEIGHT else None


# --- answers --------------------------------------------------------------------------------------------


def _identified(result: bytes) -> _Identified | None:
    try:
        return _decode_identified(result) if result[:1] == b"{" else None
    except _PROBLEMS:
        return None


def _examine_hashed(call: Call, result: bytes) -> Examined | None:
    """A header in hex and a transaction in hex are hashed; objects name their hash."""
    if len(result) > LOOKED_INTO:
        return None
    try:
        wanted = _decode_string(_decode_params(call.params)[0]).lower()
    except (*_PROBLEMS, IndexError):
        return None
    got = _hash_of_text(call.method.name, result) if result[:1] == b'"' else _hash_of_object(call.method.name, result)
    if got is None or not _is_hash(wanted):
        return None
    return Examined() if got == wanted else Examined(wrong="another hash than was asked for")


def _hash_of_object(name: str, result: bytes) -> str | None:
    identified = _identified(result)
    if identified is None:
        return None
    got = identified.txid if name == "getrawtransaction" else identified.hash
    return got.lower() if got is not None and _is_hash(got) else None


def _hash_of_text(name: str, result: bytes) -> str | None:
    raw = bitcoin_transactions.unhex(result[1:-1])
    if raw is None:
        return None
    if name == "getrawtransaction":
        return bitcoin_transactions.transaction_id(raw)
    # Only a plain header: what Zcash and merge-mined chains put behind theirs may belong to the hash.
    return (
        bitcoin_transactions.double_sha256(raw)[::-1].hex()
        if name == "getblockheader" and len(raw) * 2 == HEADER_HEX
        else None
    )

"""The dialect of EVM nodes: methods, block references, chain id and head, and what errors mean.

Always true: a call with a block number or hash is pinned, one with a tag or none reads the head;
parameters that cannot be understood make a call no safer than its method says; "already known" is a
success only where the answer is a hash; nothing here raises on what a caller or an upstream sends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from gateway.dialect import canonical, evm_answers, evm_events, ranges, transactions
from gateway.dialect.classification import Rules, rules_for
from gateway.dialect.subscriptions import Eventless
from gateway.dialect.tables import method_table
from gateway.events import Header, Log, LogFilter, Subscription
from gateway.model import BlockRef, Call, Examined, Family, HeadReport, Method, ReplyKind, RequestClass

MAX_VERSION = 200  # characters of a client's own name that are kept

_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode


class _Where(msgspec.Struct, gc=False):
    """What names a block inside an object: EIP-1898, a log filter (EIP-234), a simulation's context."""

    blockHash: msgspec.Raw = msgspec.Raw(b"")
    blockNumber: msgspec.Raw = msgspec.Raw(b"")
    fromBlock: msgspec.Raw = msgspec.Raw(b"")
    toBlock: msgspec.Raw = msgspec.Raw(b"")


_decode_where = msgspec.json.Decoder(_Where).decode
_is_number = re.compile(rb'"0[xX][0-9a-fA-F]{1,16}"').fullmatch
_is_hash = re.compile(rb'"0[xX][0-9a-fA-F]{64}"').fullmatch

# `earliest` is no fixed block: the execution API lets it mean the oldest block that a node still has.
_TAGS = {
    b'"latest"': BlockRef.LATEST,
    b'"pending"': BlockRef.LATEST,
    b"null": BlockRef.LATEST,
    b'"safe"': BlockRef.SAFE,
    b'"finalized"': BlockRef.FINALIZED,
    b'"earliest"': BlockRef.EARLIEST,
}
_NEWEST = (b'"latest"', b"null")
_HEAD, _PINNED = RequestClass.HEAD_READ, RequestClass.PINNED_READ  # an enum's member is slow to look up, and
_LATEST, _NUMBER, _HASH = BlockRef.LATEST, BlockRef.NUMBER, BlockRef.HASH  # these are needed for every call
_GIVES_A_HASH = frozenset(
    {
        "eth_sendRawTransaction",
        "eth_sendRawTransactionConditional",
        "eth_sendPrivateTransaction",
        "eth_sendPrivateRawTransaction",
        "linea_sendRawTransaction",
    }
)
_ZERO = b'"0x0000000000000000000000000000000000000000"'
_PROBES = {
    Family.STATE: ("eth_getBalance", b'[%b,"latest"]' % _ZERO),
    Family.BLOCK: ("eth_getBlockByNumber", b'["latest",false]'),
    Family.LOGS: ("eth_getLogs", b'[{"fromBlock":"latest","toBlock":"latest","address":%b}]' % _ZERO),
    Family.FEE: ("eth_gasPrice", b"[]"),
    Family.SEND: ("eth_gasPrice", b"[]"),  # a send cannot be tried out; the pool's price comes nearest
}


class EvmDialect(Eventless):
    """See `dialect.protocol.Dialect`."""

    name = "evm"
    chain_id_call: tuple[str, bytes] | None = ("eth_chainId", b"[]")
    head_call = ("eth_blockNumber", b"[]")
    poll_call = ("eth_getBlockByNumber", b'["latest",false]')
    final_call: tuple[str, bytes] | None = ("eth_getBlockByNumber", b'["finalized",false]')
    safe_call: tuple[str, bytes] | None = ("eth_getBlockByNumber", b'["safe",false]')
    version_call: tuple[str, bytes] | None = ("web3_clientVersion", b"[]")
    genesis_call: tuple[str, bytes] | None = ("eth_getBlockByNumber", b'["0x0",false]')

    def __init__(self) -> None:
        self.methods = method_table("evm")
        self._get = self.methods.get
        self._rules: Rules = rules_for("evm")

    def call(self, method: str, params: bytes, caller_id: bytes | None) -> Call:
        known = self._get(method)
        if known.block_param < 0:
            return Call(known, params, caller_id, known.request_class)
        request_class, block, low, high = classify_block(known, params)
        return Call(known, params, caller_id, request_class, block, low, high)

    def classify_error(
        self, http_status: int, code: int | None, message: str, data: bytes, method: Method
    ) -> tuple[ReplyKind, str]:
        kind, why = self._rules.classify_error(http_status, code, message, data, method)
        if kind is ReplyKind.TX_KNOWN and method.name not in _GIVES_A_HASH:
            return ReplyKind.REFUSAL, why  # a bundle, or a receipt (EIP-7966): a hash would be no answer
        return kind, why

    def classify_http(self, http_status: int, body: bytes) -> ReplyKind:
        return self._rules.classify_http(http_status, body)

    def learned_range(self, message: str) -> int | None:
        return self._rules.learned_range(message)

    def is_of_the_query(self, message: str) -> bool:
        return self._rules.is_of_the_query(message)

    def transaction_hash(self, params: bytes) -> str | None:
        return transactions.transaction_hash(params)

    def lookup_call(self, transaction_hash: str) -> tuple[str, bytes]:
        return "eth_getTransactionByHash", f'["{transaction_hash}"]'.encode()

    def found(self, transaction_hash: str, result: bytes) -> bool | None:
        return result != b"null" and transaction_hash.encode() in bytes(result).lower()

    def probe_call(self, family: Family) -> tuple[str, bytes]:
        return _PROBES.get(family, self.head_call)

    def parse_chain_id(self, result: bytes) -> int | None:
        return quantity(result)

    def parse_head(self, result: bytes) -> int | None:
        return quantity(result)

    def parse_poll(self, result: bytes) -> HeadReport | None:
        return evm_answers.report_of(result)

    def parse_version(self, result: bytes) -> str:
        try:
            return _decode_string(result)[:MAX_VERSION]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return ""

    def examine(self, call: Call, result: bytes) -> Examined | None:
        return evm_answers.examine(call, result)

    def encode_head(self, number: int) -> bytes:
        return b'"0x%x"' % number

    def pin(self, call: Call, number: int) -> bytes | None:
        index = call.method.block_param
        if index < 0 or call.block is not _LATEST:
            return None
        try:
            items = [bytes(item) for item in _decode_params(call.params)] if call.params else []
        except (msgspec.DecodeError, RecursionError):
            return None
        if len(items) < index or (len(items) > index and items[index] not in _NEWEST):
            return None  # the parameters before it are missing, or an object names it in its own way
        items[index : index + 1] = [b'"0x%x"' % number]
        return b"[%b]" % b",".join(items)

    def split(self, call: Call, limit: int, at_most: int, newest: int = -1) -> list[tuple[bytes, int]] | None:
        return ranges.plan_split(call.params, limit, at_most, newest)

    def merge(self, results: Sequence[bytes]) -> bytes:
        return ranges.merge_logs(results)

    def fingerprint(self, method: Method, result: bytes) -> bytes:
        return canonical.fingerprint(method.name, result)

    def block_of(self, result: bytes, reference: int) -> int | None:
        return evm_answers.block_of(result)

    def subscription(self, method: str, params: bytes) -> Subscription | None:
        return evm_events.subscription(method, params)

    def ends_subscription(self, method: str) -> bool:
        return evm_events.ends_subscription(method)

    def read_header(self, raw: bytes) -> Header | None:
        return evm_events.read_header(raw)

    def read_log(self, raw: bytes) -> Log | None:
        return evm_events.read_log(raw)

    def read_logs(self, raw: bytes) -> list[Log] | None:
        return evm_events.read_logs(raw)

    def removed(self, log: Log) -> Log:
        return evm_events.removed(log)

    def header_by_number(self, number: int) -> tuple[str, bytes]:
        return evm_events.header_by_number(number)

    def header_by_hash(self, block_hash: str) -> tuple[str, bytes]:
        return evm_events.header_by_hash(block_hash)

    def logs_between(self, wanted: LogFilter, low: int, high: int) -> tuple[str, bytes]:
        return evm_events.logs_between(wanted, low, high)

    def logs_of(self, wanted: LogFilter, block_hash: str) -> tuple[str, bytes]:
        return evm_events.logs_of(wanted, block_hash)

    def may_match(self, wanted: LogFilter, bloom: bytes) -> bool:
        return evm_events.may_match(wanted, bloom)

    def place(self, subscription: Subscription, raw: bytes) -> tuple[bytes, int]:
        return evm_events.place(subscription, raw)


def quantity(result: bytes) -> int | None:
    """A JSON-RPC quantity (``"0x1b4"``), or None.  At most 256 bits."""
    try:
        text = _decode_string(result)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if text[:2] != "0x" or not 3 <= len(text) <= 66 or not text.isascii() or not text.isalnum():
        return None  # int() would take blanks and underscores
    try:
        return int(text, 16)
    except ValueError:
        return None


Where = tuple[RequestClass, BlockRef, int, int]


def classify_block(method: Method, params: bytes) -> Where:
    """Class, block reference, lowest and highest block (-1: none) of a call whose method names a block.

    Heavy and highest reads keep their class whatever the block.  What is odd (no array, bad JSON, a
    number that is no hex quantity) counts as the newest block.  Never raises.
    """
    own = method.request_class
    index = method.block_param
    try:
        items = _decode_params(params) if params else ()
    except (msgspec.DecodeError, RecursionError):
        return own, _LATEST, -1, -1
    if len(items) <= index:
        return own, _LATEST, -1, -1
    raw = bytes(items[index])
    block = _TAGS.get(raw)
    low = high = -1
    if block is None:
        if raw[:1] == b"{":
            block, low, high = _inside(raw)
        else:
            block = _plain(raw)
            if block is _NUMBER:
                low = high = int(raw[3:-1], 16)
        if own is _HEAD and (block is _NUMBER or block is _HASH):
            own = _PINNED
    return own, block, low, high


def _plain(raw: bytes) -> BlockRef:
    """A number, a hash or a tag; anything else is taken for the newest block, the careful guess."""
    if _is_number(raw):
        return _NUMBER
    if _is_hash(raw):
        return _HASH
    return _TAGS.get(raw, _LATEST)


def _inside(raw: bytes) -> tuple[BlockRef, int, int]:
    """The blocks that an object names.  A hash outranks; a log filter is about its upper end.

    A filter whose lower end moves with the head is about the head, whatever its upper end.
    """
    try:
        where = _decode_where(raw)
    except (msgspec.DecodeError, RecursionError):
        return _LATEST, -1, -1
    if _is_hash(bytes(where.blockHash)):
        return _HASH, -1, -1
    if where.blockNumber:
        return _pinned_to(bytes(where.blockNumber))
    upper, _, high = _pinned_to(bytes(where.toBlock))
    lower, low, _ = _pinned_to(bytes(where.fromBlock))
    if upper is _NUMBER and lower not in (_NUMBER, BlockRef.EARLIEST):
        return _LATEST, -1, -1
    return upper, low, high


def _pinned_to(raw: bytes) -> tuple[BlockRef, int, int]:
    block = _plain(raw)
    if block is not _NUMBER:
        return block, -1, -1
    number = int(raw[3:-1], 16)
    return block, number, number

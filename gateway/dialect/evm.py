"""The dialect of EVM nodes: methods, block references, chain id and head, and what errors mean.

Always true: a call with a block number or hash is pinned, one with a tag or none reads the head;
parameters that cannot be understood make a call no safer than its method says; nothing here raises
on what a caller or an upstream sends.
"""

from __future__ import annotations

import msgspec

from gateway.dialect import transactions
from gateway.dialect.classification import Rules, rules_for
from gateway.dialect.tables import method_table
from gateway.model import BlockRef, Call, Family, Method, ReplyKind, RequestClass

_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_string = msgspec.json.Decoder(str).decode

_TAGS = {
    b'"latest"': (RequestClass.HEAD_READ, BlockRef.LATEST),
    b'"pending"': (RequestClass.HEAD_READ, BlockRef.LATEST),
    b"null": (RequestClass.HEAD_READ, BlockRef.LATEST),
    b'"safe"': (RequestClass.HEAD_READ, BlockRef.SAFE),
    b'"finalized"': (RequestClass.HEAD_READ, BlockRef.FINALIZED),
    b'"earliest"': (RequestClass.PINNED_READ, BlockRef.EARLIEST),
}
_HEAD, _PINNED = RequestClass.HEAD_READ, RequestClass.PINNED_READ  # an enum's member is slow to look up, and
_LATEST, _NUMBER, _HASH = BlockRef.LATEST, BlockRef.NUMBER, BlockRef.HASH  # these are needed for every call
_ZERO = b'"0x0000000000000000000000000000000000000000"'
_PROBES = {
    Family.STATE: ("eth_getBalance", b'[%b,"latest"]' % _ZERO),
    Family.BLOCK: ("eth_getBlockByNumber", b'["latest",false]'),
    Family.LOGS: ("eth_getLogs", b'[{"fromBlock":"latest","toBlock":"latest","address":%b}]' % _ZERO),
    Family.FEE: ("eth_gasPrice", b"[]"),
    Family.SEND: ("eth_gasPrice", b"[]"),  # a send cannot be tried out; the pool's price comes nearest
}


class EvmDialect:
    """See `dialect.protocol.Dialect`."""

    name = "evm"
    chain_id_call: tuple[str, bytes] | None = ("eth_chainId", b"[]")
    head_call = ("eth_blockNumber", b"[]")

    def __init__(self) -> None:
        self.methods = method_table("evm")
        self._get = self.methods.get
        self._rules: Rules = rules_for("evm")

    def call(self, method: str, params: bytes, caller_id: bytes | None) -> Call:
        known = self._get(method)
        if known.block_param < 0:
            return Call(known, params, caller_id, known.request_class)
        request_class, block = classify_block(known, params)
        return Call(known, params, caller_id, request_class, block)

    def classify_error(
        self, http_status: int, code: int | None, message: str, data: bytes, method: Method
    ) -> tuple[ReplyKind, str]:
        return self._rules.classify_error(http_status, code, message, data, method)

    def classify_http(self, http_status: int, body: bytes) -> ReplyKind:
        return self._rules.classify_http(http_status, body)

    def learned_range(self, message: str) -> int | None:
        return self._rules.learned_range(message)

    def transaction_hash(self, params: bytes) -> str | None:
        return transactions.transaction_hash(params)

    def lookup_call(self, transaction_hash: str) -> tuple[str, bytes]:
        return "eth_getTransactionByHash", f'["{transaction_hash}"]'.encode()

    def probe_call(self, family: Family) -> tuple[str, bytes]:
        return _PROBES.get(family, self.head_call)

    def parse_chain_id(self, result: bytes) -> int | None:
        return quantity(result)

    def parse_head(self, result: bytes) -> int | None:
        return quantity(result)


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


def classify_block(method: Method, params: bytes) -> tuple[RequestClass, BlockRef]:
    """Class and block reference of a call whose method names a block."""
    index = method.block_param
    own = method.request_class
    try:
        items = _decode_params(params) if params else ()
    except (msgspec.DecodeError, RecursionError):
        return own, _LATEST
    raw = bytes(items[index]) if len(items) > index else b"null"
    known = _TAGS.get(raw)
    if known is None:
        block = _fixed(raw)
        known = (_HEAD if block is _LATEST else _PINNED), block
    return known if own is _HEAD else (own, known[1])  # heavy and highest reads keep their class


def _fixed(raw: bytes) -> BlockRef:
    """NUMBER or HASH for a fixed block (EIP-1898 objects included), else LATEST: the careful guess."""
    if raw[:3] == b'"0x':
        return _HASH if len(raw) == 68 else _NUMBER
    if raw[:1] == b"{":
        if b'"blockHash"' in raw:
            return _HASH
        if b'"blockNumber"' in raw and b'"0x' in raw:
            return _NUMBER
    return _LATEST

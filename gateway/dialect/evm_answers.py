"""What answers of EVM nodes tell besides being answers: the head, a nonce, the chain, and whether they fit.

Always true: nothing here raises, whatever a node sends; an answer that cannot be understood tells
nothing and is not called wrong; a block, transaction or receipt with another number or hash than was
asked for is wrong whatever else it says.  Large answers are not looked into: finding one field in a
megabyte costs more than all the rest of a call.
Does not belong here: what follows from it (upstream/calls/examination), or error texts (classification).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from gateway.model import BlockRef, Call, Examined, HeadReport

LOOKED_INTO = 262_144  # bytes; a block with all its transactions has about this many

_NULL = b"null"
_PENDING = b'"pending"'
_EMPTY_LIST = b"[]"
FITS = Examined()
MISSING = Examined(missing=True)


class _Block(msgspec.Struct, gc=False):
    """A block, as far as it says which one it is.  The chain's own additions are left alone."""

    number: str | None = None
    hash: str | None = None
    parentHash: str | None = None
    timestamp: str | None = None


class _Log(msgspec.Struct, gc=False):
    """A log, as far as it says where it is."""

    blockNumber: str | None = None
    blockHash: str | None = None
    logIndex: str | None = None


class _Entry(msgspec.Struct, gc=False):
    """A transaction (`hash`) or a receipt (`transactionHash`, `logs`)."""

    hash: str | None = None
    transactionHash: str | None = None
    logs: list[_Log] = []


class _Placed(msgspec.Struct, gc=False):
    """A transaction or a receipt, as far as it says where it is; null: it waits in a pool."""

    blockNumber: str | msgspec.UnsetType | None = msgspec.UNSET
    status: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_BLOCK_NUMBERS = re.compile(rb'"blockNumber"\s*:\s*"0x([0-9a-fA-F]{1,16})"')
_decode_logs = msgspec.json.Decoder(list[_Log]).decode
_decode_entries = msgspec.json.Decoder(list[_Entry]).decode
_decode_block = msgspec.json.Decoder(_Block).decode
_decode_entry = msgspec.json.Decoder(_Entry).decode
_decode_placed = msgspec.json.Decoder(_Placed).decode
_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_PROBLEMS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def number_in(text: str | None) -> int | None:
    """A hex quantity as a number of at most 64 bits; None for anything else."""
    if text is None or text[:2] not in ("0x", "0X") or not 3 <= len(text) <= 18 or not text.isalnum():
        return None
    try:
        return int(text, 16)
    except ValueError:
        return None


def quantity_in(result: bytes) -> int | None:
    """The same of a raw JSON string."""
    if not 5 <= len(result) <= 20 or result[:1] != b'"' or result[-1:] != b'"':
        return None
    return number_in(bytes(result[1:-1]).decode("ascii", "replace"))


def report_of(result: bytes) -> HeadReport | None:
    """The block in a raw result, as a report of a head; None when it holds none."""
    try:
        block = _decode_block(result)
    except _PROBLEMS:
        return None
    number = number_in(block.number)
    if number is None:
        return None
    return HeadReport(number, (block.hash or "").lower(), (block.parentHash or "").lower(), number_in(block.timestamp))


def block_of(result: bytes) -> int | None:
    """The block that a transaction or receipt is in; -1: in none yet; None: it is neither."""
    try:
        placed = _decode_placed(result)
    except _PROBLEMS:
        return None
    number = placed.blockNumber
    if number is msgspec.UNSET:
        return None if placed.status is msgspec.UNSET else -1  # a status of its own goes on to change (zkSync)
    place = number_in(number) if isinstance(number, str) else None
    return place if place is not None else -1


def examine(call: Call, result: bytes) -> Examined | None:
    """What the answer to an examined method tells; None: nothing."""
    look = _LOOKS.get(call.method.name)
    if look is None or len(result) > LOOKED_INTO:
        return None
    return look(call, result)


def _block_number(_: Call, result: bytes) -> Examined | None:
    number = quantity_in(result)
    return Examined(head=HeadReport(number)) if number is not None else None


def _chain_id(_: Call, result: bytes) -> Examined | None:
    number = quantity_in(result)
    return Examined(chain_id=number) if number is not None else None


def _nonce(_: Call, result: bytes) -> Examined | None:
    number = quantity_in(result)
    return Examined(nonce=number) if number is not None else None


def _block_by_number(call: Call, result: bytes) -> Examined | None:
    if result == _NULL:
        return MISSING
    report = report_of(result)
    if report is None:
        return None
    if call.block is BlockRef.NUMBER and report.number != call.high:
        return Examined(wrong="another block than was asked for")
    if call.block is BlockRef.LATEST:
        if _PENDING in call.params:
            return FITS  # the block that is being made: one above the newest, and perhaps never to be
        return Examined(head=report)
    if call.block is BlockRef.FINALIZED:
        return Examined(final=report.number)
    return FITS


def _by_hash(field: Callable[[bytes], str | None]) -> Callable[[Call, bytes], Examined | None]:
    def look(call: Call, result: bytes) -> Examined | None:
        if result == _NULL:
            return MISSING
        try:
            got = field(result)
            wanted = bytes(_decode_params(call.params)[0])[1:-1].decode("ascii", "replace")
        except (*_PROBLEMS, IndexError):
            return None
        if got is None or len(wanted) != 66:
            return None
        return FITS if got.lower() == wanted.lower() else Examined(wrong="another hash than was asked for")

    return look


def _logs(_: Call, result: bytes) -> Examined | None:
    if result == _EMPTY_LIST:
        return MISSING
    try:
        logs = _decode_logs(result)
    except _PROBLEMS:
        return None
    last = number_in(logs[-1].blockNumber) if logs else None
    odd = _disorder(logs, 1)
    return Examined(last=last, odd=odd) if last is not None or odd else None


def _block_receipts(_: Call, result: bytes) -> Examined | None:
    if result in (_NULL, _EMPTY_LIST):
        return MISSING
    try:
        return _in_order([log for receipt in _decode_entries(result) for log in receipt.logs])
    except _PROBLEMS:
        return None


def _receipt(call: Call, result: bytes) -> Examined | None:
    told = _receipts_hash(call, result)
    if told is not FITS:
        return told
    try:
        return _in_order(_decode_entry(result).logs)
    except _PROBLEMS:
        return FITS


def _in_order(logs: Sequence[_Log]) -> Examined:
    """The logs of one transaction or of a whole block are numbered without a gap."""
    odd = _disorder(logs, 0)
    return Examined(odd=odd) if odd else FITS


def _disorder(logs: Sequence[_Log], gaps: int) -> str:
    """Why these logs cannot be numbered so, in a few words; empty: they can.  `gaps`: 1 where some are left out.

    Erigon 3.5 gave logs the indexes of another block, cached while it committed one (2026-07).
    """
    for one, other in pairwise(logs):
        height, index = number_in(one.blockNumber), number_in(one.logIndex)
        above, following = number_in(other.blockNumber), number_in(other.logIndex)
        if height is None or index is None or above is None or following is None:
            continue
        if above < height:
            return "logs whose blocks go back"
        if above == height and one.blockHash != other.blockHash:
            return "logs of two blocks of one height"
        if above == height and (following <= index or not (gaps or following == index + 1)):
            return f"logs numbered {index} and then {following}"
    return ""


_receipts_hash = _by_hash(lambda result: _decode_entry(result).transactionHash)
_LOOKS: dict[str, Callable[[Call, bytes], Examined | None]] = {
    "eth_blockNumber": _block_number,
    "eth_chainId": _chain_id,
    "eth_getTransactionCount": _nonce,
    "eth_getBlockByNumber": _block_by_number,
    "eth_getBlockReceipts": _block_receipts,
    "eth_getLogs": _logs,
    "eth_getBlockByHash": _by_hash(lambda result: _decode_block(result).hash),
    "eth_getTransactionByHash": _by_hash(lambda result: _decode_entry(result).hash),
    "eth_getTransactionReceipt": _receipt,
}

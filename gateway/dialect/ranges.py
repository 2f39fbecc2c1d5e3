"""Ranges of blocks: a log query that spans too many is cut into parts, and their answers are put together.

Always true: the parts lie end to end, cover exactly what was asked, and keep everything else of the
filter byte for byte; merged, the elements keep their bytes and their order.  A filter is cut only when
every member of it is understood: one that pages (`after`, `count`, `limit`), or that a node may read as
another spelling of the range, would give each part more or less than its share.
What vendors mean by "1000 blocks" differs: some count the blocks (to - from + 1), some the difference.
A part has at most `limit` blocks, counted, which keeps to both: its difference is one less.
Does not belong here: when to cut (upstream/calls/splitting), and what an error says of a limit (classification).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_filter = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_PROBLEMS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_is_number = re.compile(rb'"0[xX][0-9a-fA-F]{1,16}"').fullmatch

# What eth_getLogs and trace_filter select by, block by block.  Everything else may count across blocks.
_CUTTABLE = frozenset({"fromBlock", "toBlock", "address", "topics", "fromAddress", "toAddress", "mode"})


_NEWEST = (b'"latest"', b"null")


def log_range(params: bytes) -> tuple[int, int] | None:
    """The numbers between which a filter lies; None when one of them is not a number.  Never raises."""
    read = _read(params, -1)
    return read[0] if read is not None else None


def plan_split(params: bytes, limit: int, at_most: int, newest: int = -1) -> list[tuple[bytes, int]] | None:
    """The parameters of each part, with its highest block.  A filter that goes on to the newest block ends at `newest`.

    None when the filter does not lie between two numbers, is no longer than `limit` blocks, would need
    more than `at_most` parts, or has a member that is not known to be cut safely.  Never raises.
    """
    read = _read(params, newest)
    if read is None or limit < 1 or not _CUTTABLE.issuperset(read[1]):
        return None
    (low, high), wanted, rest = read
    if low > high or not 1 < -(-(high - low + 1) // limit) <= at_most:
        return None
    parts = []
    for first in range(low, high + 1, limit):
        last = min(high, first + limit - 1)
        wanted["fromBlock"], wanted["toBlock"] = b'"0x%x"' % first, b'"0x%x"' % last
        members = b",".join(msgspec.json.encode(name) + b":" + value for name, value in wanted.items())
        parts.append((b"[%b]" % b",".join([b"{%b}" % members, *rest]), last))
    return parts


def merge_logs(results: Sequence[bytes]) -> bytes:
    """The lists of the parts as one.  Raises ValueError when one of them is no list."""
    pieces: list[bytes] = []
    for result in results:
        try:
            pieces += [bytes(item) for item in _decode_list(result)]
        except _PROBLEMS:
            raise ValueError("a part is no list") from None
    return b"[%b]" % b",".join(pieces)


def _read(params: bytes, newest: int) -> tuple[tuple[int, int], dict[str, bytes], list[bytes]] | None:
    """The range, the filter's members, and the parameters after it; None when it has no range of numbers."""
    try:
        first, *rest = _decode_params(params)
        wanted = {name: bytes(value) for name, value in _decode_filter(first).items()}
        low, high = wanted["fromBlock"], wanted.get("toBlock", b"null")
        if newest >= 0 and high in _NEWEST:
            high = b'"0x%x"' % newest
    except (*_PROBLEMS, ValueError, KeyError):
        return None
    if not (_is_number(low) and _is_number(high)):
        return None
    return (int(low[3:-1], 16), int(high[3:-1], 16)), wanted, [bytes(item) for item in rest]

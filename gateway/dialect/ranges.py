"""Ranges of blocks: a log query that spans too many is cut into parts, and their answers are put together.

Always true: the parts lie end to end, cover exactly what was asked, and keep everything else of the
filter byte for byte; merged, the elements keep their bytes and their order.
What vendors mean by "1000 blocks" differs: some count the blocks (to - from + 1), some the difference.
A part here never has more than the limit by either reading.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

_decode_params = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_filter = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_PROBLEMS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


def log_range(params: bytes) -> tuple[int, int] | None:
    """The numbers between which a filter lies; None when one of them is not a number."""
    try:
        wanted = _decode_filter(_decode_params(params)[0])
        return _number(wanted["fromBlock"]), _number(wanted["toBlock"])
    except (*_PROBLEMS, IndexError, KeyError):
        return None


def plan_split(params: bytes, limit: int, at_most: int) -> list[tuple[bytes, int]] | None:
    """The parameters of each part, with its highest block.

    None when the filter does not lie between two numbers, is no longer than `limit`, or would need more
    than `at_most` parts.
    """
    span = log_range(params)
    if span is None or limit < 1 or span[0] > span[1]:
        return None
    low, high = span
    count = -(-(high - low + 1) // limit)
    if not 1 < count <= at_most:
        return None
    try:
        items = [bytes(item) for item in _decode_params(params)]
        wanted = {name: bytes(value) for name, value in _decode_filter(items[0]).items()}
    except _PROBLEMS:
        return None
    parts = []
    for first in range(low, high + 1, limit):
        last = min(high, first + limit - 1)
        wanted["fromBlock"], wanted["toBlock"] = b'"0x%x"' % first, b'"0x%x"' % last
        members = b",".join(msgspec.json.encode(name) + b":" + value for name, value in wanted.items())
        parts.append((b"[%b]" % b",".join([b"{%b}" % members, *items[1:]]), last))
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


def _number(raw: msgspec.Raw) -> int:
    text = bytes(raw)
    if text[:3].lower() != b'"0x' or not 4 < len(text) <= 20 or text[-1:] != b'"':
        raise ValueError("no block number")
    return int(text[3:-1], 16)

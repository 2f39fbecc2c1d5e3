"""Bounded decoding of compressed answers.

Always true: decoded output never exceeds the limit, whatever the ratio; a stream that is cut short
is known to be.  Seawall asks upstreams for identity, so this runs only when one compresses unasked.
"""

from __future__ import annotations

import zlib

MAX_RATIO = 100  # decoded : encoded beyond which an answer is a bomb; JSON logs compress about 20 : 1
RATIO_FLOOR = 1_000_000  # below this size the ratio is not looked at


class DecodingError(Exception):
    """The answer cannot be decoded, or not within its limit."""


class BodyDecoder:
    """Decodes gzip and deflate piece by piece."""

    __slots__ = ("_in", "_limit", "_out", "_zlib")

    def __init__(self, encoding: bytes, limit: int) -> None:
        if encoding.strip().lower() not in (b"gzip", b"x-gzip", b"deflate"):
            raise DecodingError("answer has an encoding that was not asked for")
        self._zlib = zlib.decompressobj(47)  # gzip or zlib, found from the header
        self._limit = limit
        self._in = 0
        self._out = 0

    def feed(self, piece: bytes) -> bytes:
        self._in += len(piece)
        allowed = min(self._limit, max(RATIO_FLOOR, self._in * MAX_RATIO)) - self._out
        try:
            decoded = self._zlib.decompress(piece, max(1, allowed))
        except zlib.error:
            raise DecodingError("compressed answer is damaged") from None
        self._out += len(decoded)
        if self._zlib.unconsumed_tail:
            raise DecodingError("compressed answer decodes to more than it may")
        if self._zlib.unused_data:
            raise DecodingError("compressed answer has something behind its end")
        return decoded

    @property
    def finished(self) -> bool:
        """True when the compressed stream came to its own end; an empty answer is empty whatever it is called."""
        return self._zlib.eof or not self._in


class BodyLimits:
    """Counts decoded bytes against a limit."""

    __slots__ = ("_left",)

    def __init__(self, limit: int) -> None:
        self._left = limit

    def count(self, size: int) -> None:
        """Raises DecodingError once more than the limit has come."""
        self._left -= size
        if self._left < 0:
            raise DecodingError("answer is larger than answer_limit")

"""Whole frames of a WebSocket server, as bytes: one may go to ten thousand sockets.

Always true: a frame here is final and unmasked, its length written in the fewest octets (RFC 6455 section 5.2).
Does not belong here: frames in pieces, control frames, and reading (socket).
"""

from __future__ import annotations


def frame_of(text: bytes) -> bytes:
    """A whole text frame from a server: final, unmasked (RFC 6455 section 5.2)."""
    size = len(text)
    if size < 126:
        return b"\x81" + bytes((size,)) + text
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + text
    return b"\x81\x7f" + size.to_bytes(8, "big") + text


def binary_frame_of(data: bytes) -> bytes:
    """The same of binary data."""
    return b"\x82" + frame_of(data)[1:]

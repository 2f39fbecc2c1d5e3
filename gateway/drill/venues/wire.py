"""Requests to simulated exchanges and their replies, as bytes.

Always true: a request is kept exactly as it came, names as written and in order.
Does not belong here: connections, and what goes wrong on them (exchange).
"""

from __future__ import annotations

from dataclasses import dataclass

_REASONS = {200: b"OK", 400: b"Bad Request", 418: b"I'm a teapot", 429: b"Too Many Requests"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request exactly as it came.  `headers` with names as written, in order."""

    host: int
    verb: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    at: float

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    @property
    def query(self) -> bytes:
        return self.target.partition(b"?")[2]


@dataclass(frozen=True, slots=True)
class Reply:
    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[bytes, bytes], ...] = ()


def encode(reply: Reply, verb: str = "GET") -> bytes:
    """A reply as it is written."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (reply.status, _REASONS.get(reply.status, b"Said"))]
    if all(name.lower() != b"content-type" for name, _ in reply.headers):
        lines.append(b"Content-Type: application/json\r\n")
    lines += [b"%b: %b\r\n" % header for header in reply.headers]
    lines.append(b"Content-Length: %d\r\n\r\n" % len(reply.body))
    return b"".join(lines) + (reply.body if verb != "HEAD" else b"")


def dechunked(data: bytearray, at: int) -> tuple[bytes, int] | None:
    """A chunked body and where it ends; None: not all of it is there."""
    body = b""
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(bytes(data[at:end]).partition(b";")[0], 16)
        start = end + 2
        if len(data) < start + size + 2:
            return None
        body += bytes(data[start : start + size])
        at = start + size + 2
        if size == 0:
            return body, at

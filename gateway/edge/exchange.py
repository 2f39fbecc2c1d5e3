"""One request and its answer, as an ASGI application sees them.

Always true: the application gets a request only when it is complete; an answer whose length is not
what was announced, or that breaks off, is cut off and never looks whole; a header value cannot split
the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from gateway.errors import GatewayBug

App = Callable[..., Awaitable[None]]

UNTIL_CLOSE = 1 << 62  # the length of an answer to HTTP/1.0 whose end is the connection's

STATUS_LINE = {
    code: f"HTTP/1.1 {code} {phrase}\r\n".encode()
    for code, phrase in {
        200: "OK", 202: "Accepted", 204: "No Content", 301: "Moved Permanently", 302: "Found", 304: "Not Modified",
        307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
        405: "Method Not Allowed", 408: "Request Timeout", 411: "Length Required", 413: "Content Too Large",
        414: "URI Too Long", 415: "Unsupported Media Type", 421: "Misdirected Request", 429: "Too Many Requests",
        431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway",
        503: "Service Unavailable", 504: "Gateway Timeout",
    }.items()
}  # fmt: skip


class Flow(Protocol):
    """Backpressure of the caller's connection."""

    write_paused: bool

    async def drain(self) -> None:
        """Wait until the caller reads again."""


class Carrier(Protocol):
    """What an exchange asks of the connection that carries it."""

    lost: bool
    transport: asyncio.Transport
    default_head: bytes

    @property
    def flow(self) -> Flow:
        """Backpressure."""

    def report(self, error: BaseException) -> None:
        """The application failed."""

    def refuse(self, error: GatewayBug, status: int) -> None:
        """Answer with an error and close."""

    def abort(self) -> None:
        """Cut the caller off."""

    def exchange_done(self, exchange: Exchange) -> None:
        """The application has returned."""


class CallerDisconnected(OSError):
    """Writing an answer to a caller that has gone (ASGI 2.4 asks for an OSError)."""


class Exchange:
    """One request and its answer: what the ASGI application talks to."""

    __slots__ = (
        "_answered",
        "_chunked",
        "_head",
        "_left",
        "_taken",
        "_woken",
        "body",
        "complete",
        "keep_alive",
        "protocol",
        "scope",
    )

    def __init__(self, protocol: Carrier, scope: dict[str, Any], keep_alive: bool) -> None:
        self.protocol = protocol
        self.scope = scope
        self.body = bytearray()
        self.keep_alive = keep_alive
        self.complete = False
        self._head: bytes | None = None
        self._answered = False
        self._chunked = False
        self._left = 0
        self._taken = False
        self._woken: asyncio.Future[None] | None = None

    @property
    def disconnected(self) -> bool:
        """The caller's connection is gone."""
        return self.protocol.lost

    async def run(self, app: App) -> None:
        try:
            await app(self.scope, self.receive, self.send)
            if not self.complete and not self.disconnected:
                raise RuntimeError("the application did not complete its answer")
        except CallerDisconnected:
            pass
        except asyncio.CancelledError:
            self.protocol.abort()
            raise
        except Exception as error:
            self.protocol.report(error)
            if self._answered:
                self.protocol.abort()  # a short body must look broken, never complete
            elif not self.disconnected:
                self.protocol.refuse(GatewayBug("internal error"), 500)
        finally:
            self.protocol.exchange_done(self)

    async def receive(self) -> dict[str, Any]:
        """The whole body at once, then the disconnect when it comes."""
        if not self._taken:
            self._taken = True
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        if not (self.disconnected or self.complete):
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken
        return {"type": "http.disconnect"}

    def wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def send(self, message: dict[str, Any]) -> None:
        protocol = self.protocol
        if protocol.flow.write_paused and not protocol.lost:
            await protocol.flow.drain()
        if protocol.lost:
            raise CallerDisconnected("the caller has gone")
        if message["type"] == "http.response.start":
            self._begin(message)
            return
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            body = b""
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more and self._left < UNTIL_CLOSE // 2):
                raise RuntimeError("the answer's length is not what was announced")
        if self._head is not None:
            body, self._head = self._head + body, None
        protocol.transport.write(body)
        self._answered = True
        if not more:
            self.complete = True
            self.wake()

    def _begin(self, message: dict[str, Any]) -> None:
        status = message["status"]
        lines = [STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status]
        if "bare" not in message:  # a venue's own answer says itself who made it
            lines.append(self.protocol.default_head)
        framed = False
        for name, value in message["headers"]:
            if name == b"content-length":
                framed = True
                self._left = int(value)
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
                continue
            if b"\n" in value or b"\r" in value:
                raise RuntimeError("a header value would split the answer")
            lines.append(b"%b: %b\r\n" % (name, value))
        if not framed and status not in (204, 304):
            if self.scope["http_version"] == "1.0":
                self.keep_alive = False  # delimited by the close
                self._left = UNTIL_CLOSE
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

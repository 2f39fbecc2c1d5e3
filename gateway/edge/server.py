"""A caller's connection: uvicorn's httptools protocol, hardened.

Always true: a connection without a complete request is closed at its deadline, however it trickles;
a request is handed to the application only when its head and body are complete, within their limits
and free of doubt (exactly one valid Host, one way of framing); a refused request gets its 4xx, the
connection is closed, and nothing of it reaches an upstream.
uvicorn by itself keeps a silent, half-sent or trickling connection for ever, and accepts a request
without Host, with two, or with a megabyte of headers; an ASGI application cannot mend that, because
it is called only after the head has been parsed.
Owner of uvicorn, with the listener.  Does not belong here: routes, JSON, anything about a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.dialect.jsonrpc import encode_error
from gateway.edge.exchange import STATUS_LINE, Exchange
from gateway.edge.socket import CallerSocket, Handler
from gateway.errors import (
    BadHttp,
    CallerError,
    CallTooLarge,
    GatewayBug,
    HeadTooLarge,
    TargetTooLong,
    TooManyConnections,
    TooSlow,
)
from gateway.limits import body_deadline_for

if TYPE_CHECKING:
    from gateway.edge.listener import Listener

NEVER = float("inf")
LINGER_FOR = 1.0  # seconds in which a refused caller may still read its 4xx before the connection goes
MAX_PIPELINED = 16

_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.%]{2,60}\])(?::\d{1,5})?\Z")


class EdgeProtocol(HttpToolsProtocol):
    """One caller's connection."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.config, listener.state, {}, listener.loop)
        self.listener = listener
        self.default_head = listener.default_head
        self.report = listener.report
        self.limits = listener.limits
        self.lost = False
        self.refused = False
        self.deadline_at = NEVER
        self.exchange: Exchange | None = None  # the one being answered
        self._waiting: deque[Exchange] = deque()  # pipelined, not begun
        self._incoming: Exchange | None = None  # the one being received
        self._head_seen = 0
        self._body_seen = 0
        self._in_head = False
        self._body_timed = False
        self._another_ended = False  # since the last look, so a segment may hold bytes of two requests
        self._no_more = False  # the caller has closed its side
        self._handler: Handler | None = None  # of the WebSocket that this connection becomes
        self._last_word = b""  # a refusal that waits until the answers before it are out
        self.names: list[bytes] = []  # of the header fields, as they are written

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.deadline_at = self.loop.time() + self.limits.head_timeout
        if len(self.connections) > self.listener.max_connections:
            self.refuse(TooManyConnections("too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.deadline_at = NEVER
        if self.exchange is not None:
            self.exchange.wake()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return  # what a refused caller still sends is not looked at
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self.refuse(cause if isinstance(cause, CallerError) else BadHttp("the request is not valid HTTP"))
            return
        except httptools.HttpParserError:
            self.refuse(BadHttp("the request is not valid HTTP"))
            return
        except httptools.HttpParserUpgrade as upgrade:
            if not self.refused:
                self._switch(data[upgrade.args[0] :])
            return
        if self._incoming is not None or self._in_head:
            self._watch_unfinished(len(data))

    def _watch_unfinished(self, size: int) -> None:
        """A request has begun and is not complete: it has its deadline and its size."""
        limits = self.limits
        if self._in_head:
            first = not self._head_seen
            self._head_seen += 1 if self._another_ended else size
            self._another_ended = False
            if self._head_seen > limits.head_bytes + limits.target_bytes:
                self.refuse(HeadTooLarge("the request head is too large"))
            elif first:
                self._wait_for_more()
            return
        self._body_seen += size
        if not self._body_timed:
            self._body_timed = True  # once: a trickle does not move it
            self._wait_for_more()
        elif self._body_seen > 2 * limits.body + limits.head_bytes:
            self.refuse(CallTooLarge("the body's chunks are more wrapping than body"))
        elif len(self.headers) > limits.head_fields:
            self.refuse(HeadTooLarge("the request has too many trailer fields"))

    def _wait_for_more(self) -> None:
        """Fix when what the connection now waits for must have come."""
        limits = self.limits
        if self.flow.write_paused:
            left = limits.write_timeout
        elif self._in_head:
            left = limits.head_timeout
        elif self._incoming is not None:
            left = body_deadline_for(limits, self._expected_size(self._incoming))
        else:
            left = limits.keep_alive if self.exchange is None else NEVER
        self.deadline_at = self.loop.time() + left

    def _expected_size(self, incoming: Exchange) -> int:
        for name, value in incoming.scope["headers"]:
            if name == b"content-length":
                return int(value)
        return self.limits.body

    @property
    def left(self) -> bool:
        """The caller has closed its side: it may read an answer yet, but mostly it has given up."""
        return self.lost or self._no_more

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_more()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._wait_for_more()

    # --- httptools callbacks ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if len(self._waiting) >= MAX_PIPELINED:
            raise BadHttp("too many pipelined requests")
        self._in_head = True
        self._body_timed = False
        self._head_seen = self._body_seen = 0
        self.url = b""
        self.headers = []
        self.names = []

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.limits.target_bytes:
            raise TargetTooLong(f"the request target is longer than {self.limits.target_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))
        self.names.append(name)

    def on_headers_complete(self) -> None:
        self._in_head = False
        limits = self.limits
        headers = self.headers
        if len(headers) > limits.head_fields:
            raise HeadTooLarge(f"the request has more than {limits.head_fields} header fields")
        hosts = size = 0
        expects = False
        for name, value in headers:
            size += len(name) + len(value)
            if name == b"host":
                hosts += 1
                if not _HOST.match(value):
                    raise BadHttp("the Host header is not valid")
            elif name == b"content-length":
                if int(value) > limits.body:
                    raise CallTooLarge(f"the body is larger than {limits.body} bytes")
            elif name == b"expect":
                expects = value.lower() == b"100-continue"
        if size > limits.head_bytes:
            raise HeadTooLarge(f"the request head is larger than {limits.head_bytes} bytes")
        version = self.parser.get_http_version()
        if version != "1.1" and version != "1.0":
            raise BadHttp("the HTTP version is not one that this listener speaks")
        if hosts != 1 and (hosts or version != "1.0"):
            raise BadHttp("a request needs exactly one Host header")
        if self.parser.should_upgrade():
            self._handler = self._taker(version)
            return
        self._incoming = Exchange(self, self._scope(version), version != "1.0" and self.parser.should_keep_alive())
        self.headers = []  # trailers go here, and no further
        self.names = []
        if expects and version == "1.1" and self.exchange is None:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _scope(self, version: str) -> dict[str, Any]:
        target = self.url
        if target[:1] != b"/":
            raise BadHttp("the request target must be a path")
        raw_path, _, query = target.partition(b"?")
        try:
            path = raw_path.decode("ascii")
        except UnicodeDecodeError:
            raise BadHttp("the request target must be ASCII") from None
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": version,
            "method": self.parser.get_method().decode("ascii"),
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": {},
            "extensions": {"seawall.target": target, "seawall.names": self.names},
        }

    def _taker(self, version: str) -> Handler:
        """The WebSocket handler for the request at hand, if everything speaks for switching."""
        framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        if self.listener.upgrade is None or self.parser.get_method() != b"GET" or version != "1.1" or framed:
            raise BadHttp("this listener does not switch protocols so")  # the parser would leave a body out
        if self.exchange is not None or self._waiting:
            raise BadHttp("a WebSocket cannot begin while requests are being answered")
        return self.listener.upgrade(self._scope(version))

    def _switch(self, following: bytes) -> None:
        """Hand the connection over; `following` is what came behind the request."""
        assert self._handler is not None
        lines = [b"GET %b HTTP/1.1\r\n" % self.url, *(b"%b: %b\r\n" % header for header in self.headers), b"\r\n"]
        connections: set[Any] = self.listener.state.connections
        connections.discard(self)
        socket = CallerSocket(
            self.listener, self.transport, self.listener.socket_limits, self._handler, connections.discard
        )
        connections.add(socket)
        self.lost = True  # for this protocol: the connection is somebody else's now
        self.parser = None  # type: ignore[assignment]  # it holds this protocol, which holds it
        self.transport.set_protocol(socket)
        socket.start(b"".join(lines), following)

    def on_body(self, body: bytes) -> None:
        incoming = self._incoming
        if incoming is None:
            return
        incoming.body += body
        if len(incoming.body) > self.limits.body:
            raise CallTooLarge(f"the body is larger than {self.limits.body} bytes")

    def on_message_complete(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is None or self.refused:
            return
        self._another_ended = True
        if self.exchange is None:
            self.deadline_at = NEVER
            self._start(incoming)
        else:
            self._wait_for_more()
            self._waiting.append(incoming)
            self.flow.pause_reading()

    # --- exchanges --------------------------------------------------------------------------------

    def _start(self, exchange: Exchange) -> None:
        self.exchange = exchange
        exchange.scope["extensions"]["seawall.connection"] = self  # not the exchange: that would be a cycle a request
        task = self.loop.create_task(exchange.run(self.listener.app))
        tasks = self.listener.state.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def exchange_done(self, exchange: Exchange) -> None:
        self.exchange = None
        if self.lost:
            return
        if not exchange.keep_alive:
            self._close()
        elif self._waiting:
            self._start(self._waiting.popleft())
        elif self.refused:
            self._say_last_word()
        elif self._no_more or self.listener.draining:
            self._close()
        else:
            self._wait_for_more()
            self.flow.resume_reading()

    # --- endings ----------------------------------------------------------------------------------

    def gone(self) -> bool:
        """Nobody is there any more to be answered."""
        return self.lost

    def refuse(self, error: CallerError | GatewayBug, status: int | None = None) -> None:
        """Answer with the error, then close; the rest of what the caller sends is not looked at.

        Sound requests that came before are answered first.  `status` 500: it was one of those that failed.
        """
        if self.lost or (self.refused and status is None):
            return
        self.refused = True
        self._incoming = None
        self._in_head = False
        self.listener.count_refusal(error.reason)
        body = encode_error(None, error)
        self._last_word = b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
            STATUS_LINE[status or error.http_status],
            len(body),
            body,
        )
        if status is not None:
            self._waiting.clear()
        if self.exchange is None or status is not None:
            self._say_last_word()
        else:
            self._wait_for_more()

    def _say_last_word(self) -> None:
        """Send the refusal, and give the caller a moment to read it."""
        last_word, self._last_word = self._last_word, b""
        if last_word:
            self.transport.write(last_word)
            if self.transport.can_write_eof():
                with contextlib.suppress(OSError, RuntimeError):
                    self.transport.write_eof()
            self.flow.resume_reading()  # unread bytes would turn the close into a reset, and the answer would be lost
            self.deadline_at = self.loop.time() + LINGER_FOR

    def _close(self) -> None:
        """Close once everything is out, or at the end of the caller's time to read it."""
        self.transport.close()
        self.deadline_at = self.loop.time() + self.limits.write_timeout

    def abort(self) -> None:
        self.lost = True
        self.transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Callers may close their side after sending: keep ours open until the answer is out."""
        self._no_more = True
        return self.exchange is not None

    def expire(self, now: float) -> None:
        """The deadline has passed: say so if a request was begun, and close."""
        if self.flow.write_paused or self.transport.is_closing() or (self.refused and self.exchange is None):
            self.abort()
        elif self._in_head or self._incoming is not None:
            self.refuse(TooSlow("the request did not arrive in time"))
        elif self.exchange is None:
            self._close()
        else:
            self.deadline_at = NEVER

    def wind_down(self) -> None:
        """Close if idle; else let what has come be answered, and say with the last answer that it is the last."""
        if self.exchange is not None:
            last = self._waiting[-1] if self._waiting else self.exchange
            last.keep_alive = last.keep_alive and self.refused  # a refusal is the last word
        elif self._incoming is None and not self.refused and not self.transport.is_closing():
            self._close()

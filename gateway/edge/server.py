"""The listener: uvicorn's httptools protocol, hardened.

Always true: a connection without a complete request is closed at its deadline, however it trickles;
a request is handed to the application only when its head and body are complete, within their limits
and free of doubt (exactly one valid Host, one way of framing); a refused request gets its 4xx, the
connection is closed, and nothing of it reaches an upstream.
uvicorn by itself keeps a silent, half-sent or trickling connection for ever, and accepts a request
without Host, with two, or with a megabyte of headers; an ASGI application cannot mend that, because
it is called only after the head has been parsed.
Owner of uvicorn.  Does not belong here: routes, JSON, anything about a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.clock import Clock
from gateway.dialect.jsonrpc import encode_error
from gateway.errors import CallerError, CallTooLarge, GatewayBug
from gateway.limits import EdgeLimits, body_deadline_for

App = Callable[..., Awaitable[None]]

NEVER = float("inf")
SWEEP_EVERY = 0.25  # seconds between two looks at all deadlines: one task instead of a timer per request
LINGER_FOR = 1.0  # seconds in which a refused caller may still read its 4xx before the connection goes
MAX_PIPELINED = 16

_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.%]{2,60}\])(?::\d{1,5})?\Z")
_STATUS_LINE = {
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


class HeadTooLarge(CallerError):
    http_status = 431
    reason = "head_too_large"


class TargetTooLong(CallerError):
    http_status = 414
    reason = "target_too_long"


class BadHttp(CallerError):
    reason = "bad_http"


class TooSlow(CallerError):
    http_status = 408
    reason = "too_slow"


class TooManyConnections(CallerError):
    http_status = 503
    reason = "too_many_connections"


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

    def __init__(self, protocol: EdgeProtocol, scope: dict[str, Any], keep_alive: bool) -> None:
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
            self.protocol.listener.report(error)
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
            if self._left < 0 or (self._left and not more):
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
        lines = [_STATUS_LINE.get(status) or b"HTTP/1.1 %d \r\n" % status, self.protocol.listener.default_head]
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
                self._left = 1 << 62
            else:
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)


class EdgeProtocol(HttpToolsProtocol):
    """One caller's connection."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener.config, listener.state, {}, listener.loop)
        self.listener = listener
        self.limits = listener.limits
        self.lost = False
        self.refused = False
        self.deadline_at = NEVER
        self.exchange: Exchange | None = None  # the one being answered
        self._waiting: deque[Exchange] = deque()  # pipelined, not begun
        self._incoming: Exchange | None = None  # the one being received
        self._head_seen = 0
        self._in_head = False
        self._body_timed = False
        self._no_more = False  # the caller has closed its side

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
        except httptools.HttpParserUpgrade:
            self.refuse(BadHttp("this listener does not switch protocols"))
            return
        if self._incoming is not None or self._in_head:
            self._watch_unfinished(len(data))

    def _watch_unfinished(self, size: int) -> None:
        """A request has begun and is not complete: it has its deadline and its size."""
        if self._in_head:
            self._head_seen += size
            if self._head_seen > self.limits.head_bytes + self.limits.target_bytes:
                self.refuse(HeadTooLarge("the request head is too large"))
            elif self._head_seen == size:
                self.deadline_at = self.loop.time() + self.limits.head_timeout
        elif not self._body_timed:
            self._body_timed = True  # once: a trickle does not move it
            self.deadline_at = self.loop.time() + body_deadline_for(self.limits, self._expected_size())

    def _expected_size(self) -> int:
        for name, value in self.headers:
            if name == b"content-length":
                return int(value)
        return self.limits.body

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadline_at = self.loop.time() + self.limits.write_timeout

    def resume_writing(self) -> None:
        super().resume_writing()
        self.deadline_at = NEVER

    # --- httptools callbacks ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if len(self._waiting) >= MAX_PIPELINED:
            raise BadHttp("too many pipelined requests")
        self._in_head = True
        self._body_timed = False
        self._head_seen = 0
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self.limits.target_bytes:
            raise TargetTooLong(f"the request target is longer than {self.limits.target_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

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
        if hosts != 1 and (hosts or version != "1.0"):
            raise BadHttp("a request needs exactly one Host header")
        self._incoming = Exchange(self, self._scope(version), version != "1.0" and self.parser.should_keep_alive())
        if expects:
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
            "extensions": {},
        }

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
        self.deadline_at = NEVER
        if self.exchange is None:
            self._start(incoming)
        else:
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
        if self.lost or self.refused:
            return
        if not exchange.keep_alive or (self.listener.draining and not self._waiting):
            self.transport.close()
        elif self._waiting:
            self._start(self._waiting.popleft())
        elif self._no_more:
            self.transport.close()
        else:
            self.deadline_at = self.loop.time() + self.limits.keep_alive
            self.flow.resume_reading()

    # --- endings ----------------------------------------------------------------------------------

    def refuse(self, error: CallerError | GatewayBug, status: int | None = None) -> None:
        """Answer with the error, then close; the rest of what the caller sends is not looked at."""
        if self.refused or self.lost:
            return
        self.refused = True
        self._incoming = None
        self._waiting.clear()
        self.listener.count_refusal(error.reason)
        body = encode_error(None, error)
        status = status or error.http_status
        if self.exchange is None or status == 500:
            self.transport.write(
                b"%bcontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (_STATUS_LINE[status], len(body), body)
            )
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()
        self.deadline_at = self.loop.time() + LINGER_FOR

    def abort(self) -> None:
        self.lost = True
        self.transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Callers may close their side after sending: keep ours open until the answer is out."""
        self._no_more = True
        return self.exchange is not None and not self.refused

    def expire(self, now: float) -> None:
        """The deadline has passed: say so if a request was begun, and close."""
        if self.refused or self.exchange is not None:
            self.abort()
        elif self._in_head or self._incoming is not None:
            self.refuse(TooSlow("the request did not arrive in time"))
        else:
            self.transport.close()

    def close_if_idle(self) -> None:
        if self.exchange is None and self._incoming is None and not self.refused:
            self.transport.close()


class Listener:
    """One listening address and its connections."""

    def __init__(
        self,
        app: App,
        limits: EdgeLimits,
        *,
        report: Callable[[BaseException], None],
        count_refusal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.app = app
        self.limits = limits
        self.report = report
        self.count_refusal = count_refusal
        self.config = uvicorn.Config(app=app, log_config=None, access_log=False, ws="none", lifespan="off")
        self.config.load()
        self.state = ServerState()
        self.loop = asyncio.get_running_loop()
        self.draining = False
        self.default_head = b"server: seawall\r\n"
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_connections = min(limits.connections, soft // 2)
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        """Bind and listen.  Raises OSError when the address is taken or not ours."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = await self.loop.create_server(
            lambda: EdgeProtocol(self), host, port, family=family, backlog=2048
        )
        self._sweeper = self.loop.create_task(self._sweep())

    @property
    def port(self) -> int:
        """The bound port (useful when 0 was asked for)."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> set[EdgeProtocol]:
        return cast("set[EdgeProtocol]", self.state.connections)

    async def stop(self, drain_for: float, clock: Clock) -> int:
        """Stop accepting, let calls in flight finish for `drain_for` seconds; returns how many were cut off."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        until = clock() + drain_for
        while True:
            for connection in list(self.connections):
                connection.close_if_idle()
            if not self.state.tasks or clock() >= until:
                break
            await asyncio.wait(list(self.state.tasks), timeout=min(0.1, max(0.0, until - clock())))
        cut_off = len(self.state.tasks)
        for task in list(self.state.tasks):
            task.cancel()
        await asyncio.gather(*self.state.tasks, return_exceptions=True)
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        return cut_off

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            now = self.loop.time()
            for connection in [c for c in self.connections if c.deadline_at <= now]:
                connection.expire(now)

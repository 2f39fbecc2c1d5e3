"""The data path's HTTP/1.1 client: keep-alive pools over asyncio transports and httptools.

Always true: each attempt ends in exactly one of *answered* (a `Response`), *provably not sent*
(`NotSent`), or *sent, or partly sent, without a trustworthy answer* (`NoReply`, `BrokenReply`).
The request target, headers and body leave as given; nothing is ever sent a second time, no redirect
is followed, no environment variable is read, and a connection on which anything was odd (extra
bytes, bad framing, a late answer) is closed and never used again.

General HTTP clients hide whether bytes left and repeat requests by themselves on a dropped
keep-alive connection; for an order or a transaction that is the difference between a retry and a
double spend.  Owning this file also decides the gateway's speed.
Does not belong here: choosing endpoints, retries, or the meaning of an answer.
"""

from __future__ import annotations

import asyncio
import os
import select
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import httptools

from gateway.clock import Clock
from gateway.errors import (
    AttemptError,
    AttemptTimeout,
    BrokenReply,
    Cancelled,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    TlsFailed,
)
from gateway.limits import TransportSettings
from gateway.model import Sent
from gateway.upstream.decoding import BodyDecoder, DecodingError
from gateway.upstream.resolver import Resolver

MAX_HEAD_BYTES = 64 * 1024  # an answer's header section; nginx's default is 4-8 KiB, Envoy's 60 KiB
MAX_HEAD_FIELDS = 200
MAX_INTERIM = 8  # 1xx answers before the real one; a flood of them is an attack
STREAM_HIGH_WATER = 512 * 1024  # reading from the upstream pauses above this
PEEK_AFTER_IDLE = 1.0  # a connection idle for longer is checked for a close we have not been told of yet


@dataclass(frozen=True, slots=True)
class Target:
    """Where one endpoint's requests go.  `head` is everything of the request up to Content-Length.

    `addresses` is empty when `host` is a name to be resolved.  `tls` is None for plain HTTP.
    """

    host: str
    port: int
    head: bytes
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


class Response:
    """An upstream's answer.  Either `body` is complete, or `stream` delivers it piece by piece.

    A stream must be read to its end or closed; until then it holds its connection.
    """

    __slots__ = ("body", "headers", "status", "stream")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, stream: BodyStream | None) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.stream = stream

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


class BodyStream:
    """The body of a large answer, with backpressure: the upstream is not read faster than the caller.

    Iterate for the pieces.  Raises ConnectionLost, AttemptTimeout or BrokenReply in the middle when
    the upstream breaks off; the caller must then be cut off too, never given a short body.
    """

    __slots__ = ("_connection", "_done", "_error", "_idle_timeout", "_pieces", "_size", "_waiter")

    def __init__(self, connection: Connection, pieces: list[bytes], idle_timeout: float) -> None:
        self._connection: Connection | None = connection
        self._pieces = deque(pieces)
        self._size = sum(map(len, pieces))
        self._done = False
        self._error: AttemptError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._idle_timeout = idle_timeout

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > STREAM_HIGH_WATER and self._connection is not None:
            self._connection.pause()
        self._wake()

    def finish(self, error: AttemptError | None) -> None:
        if not self._done:
            self._done = True
            self._error = error
            self._connection = None
            self._wake()

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._done:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            connection = self._connection
            if connection is not None:
                connection.resume(self._idle_timeout)
            self._waiter = connection.loop.create_future() if connection is not None else None
            if self._waiter is not None:
                await self._waiter
        piece = self._pieces.popleft()
        self._size -= len(piece)
        return piece

    def close(self) -> None:
        """Give up the rest; the connection is closed, because its bytes are still coming."""
        connection, self._connection = self._connection, None
        if connection is not None and not self._done:
            connection.give_up()
        self._done = True
        self._pieces.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """One connection to one endpoint, carrying one exchange at a time."""

    __slots__ = (
        "_decoder", "_future", "_head_bytes", "_headers", "_interim", "_keep_alive", "_messages", "_parser", "_pieces",
        "_pool", "_size", "_stream", "_timer", "_timer_at", "_until_close", "closed", "deadline_at", "idle_since",
        "keep_idle_for", "loop", "status", "transport",
    )  # fmt: skip

    def __init__(self, pool: ConnectionPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self.loop = loop
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._future: asyncio.Future[Response] | None = None
        self._stream: BodyStream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.deadline_at = 0.0
        self.idle_since = 0.0
        self.keep_idle_for = pool.settings.keep_idle_for
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        """Reset everything that belongs to one exchange."""
        self.status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._pieces: list[bytes] = []
        self._size = 0
        self._interim = 0
        self._messages = 0  # complete final answers seen in this exchange; more than one is an anomaly
        self._keep_alive = False
        self._until_close = False
        self._decoder: BodyDecoder | None = None

    # --- the exchange -----------------------------------------------------------------------------

    def exchange(self, request: bytes, deadline_at: float) -> asyncio.Future[Response]:
        """Send `request` and return the future answer.  `deadline_at` is an instant of the pool's clock.

        One timer per connection is moved along lazily, so a busy connection arms it once per
        timeout, not once per request.
        """
        self._begin()
        self.deadline_at = deadline_at
        if self._timer is None or deadline_at < self._timer_at:
            self._arm(deadline_at)
        future = self._future = self.loop.create_future()
        self.transport.write(request)
        return future

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_later(max(0.0, at - self._pool.clock()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._future is None and self._stream is None:
            return  # idle: the next exchange arms it
        now = self._pool.clock()
        if now + 0.001 < self.deadline_at:
            self._arm(self.deadline_at)
            return
        self._fail(AttemptTimeout("no complete answer in time", sent=self.sent_so_far()))

    def sent_so_far(self) -> Sent:
        """How much of the request has left, judged by what is still in our own write buffer."""
        if self.closed:
            return Sent.SENT  # the buffer is gone with the transport: assume the worst
        waiting = self.transport.get_write_buffer_size()
        if waiting == 0:
            return Sent.SENT
        return Sent.PARTLY

    def pause(self) -> None:
        if not self.closed:
            self.transport.pause_reading()

    def resume(self, idle_timeout: float) -> None:
        """The reader of a stream waits for more: allow `idle_timeout` seconds of silence."""
        self.deadline_at = self._pool.clock() + idle_timeout
        if self._timer is None or self.deadline_at < self._timer_at:
            self._arm(self.deadline_at)
        if not self.closed:
            self.transport.resume_reading()

    def give_up(self) -> None:
        """End the exchange without an answer (caller gone, deadline, hedged away) and close."""
        self._fail(Cancelled("given up", sent=self.sent_so_far()))

    def close(self) -> None:
        self._cancel_timer()
        if not self.closed:
            self.closed = True
            self.transport.abort()

    def is_silent(self) -> bool:
        """False when the peer has closed, or sent bytes nobody asked for, and the loop has not said so yet."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._pool.open_connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pool.open_connections -= 1
        self._cancel_timer()
        self._parser = None  # it refers back to us
        if self._future is None and self._stream is None:
            self._pool.forget(self)
            return
        if self._until_close and exc is None and self._messages == 0 and self._interim == 0:
            self._messages = 1  # no length was announced: the close is the end of the body
            self._complete()
            return
        where = "inside the answer" if self.status else "before answering"
        self._fail(ConnectionLost(f"connection closed {where}", sent=Sent.SENT))

    def data_received(self, data: bytes) -> None:
        if self._future is None and self._stream is None:
            self._pool.forget(self)  # bytes nobody asked for: never reuse
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:  # one of our own limits
            self._fail(BrokenReply(_shorten(error.__context__ or error)))
            return
        except httptools.HttpParserError as error:
            self._fail(BrokenReply(f"answer breaks HTTP framing: {_shorten(error)}"))
            return
        except httptools.HttpParserUpgrade:
            self._fail(BrokenReply("unexpected protocol switch"))
            return
        if self._messages:
            if self._messages > 1:
                self._fail(BrokenReply("more than one answer to one request"))
            else:
                self._complete()
        elif self._size > self._pool.settings.answer_buffer and self._future is not None:
            self._begin_stream()

    # --- httptools callbacks ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._messages:
            self._messages += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        self._headers.append((name, value))
        if self._head_bytes > MAX_HEAD_BYTES or len(self._headers) > MAX_HEAD_FIELDS:
            raise DecodingError("answer's header section is too large")

    def on_headers_complete(self) -> None:
        self.status = status = self._parser.get_status_code()
        if status < 200:
            return
        framed = False
        for name, value in self._headers:
            size = len(name)
            if size == 16 and name.lower() == b"content-encoding" and value.lower() != b"identity":
                self._decoder = BodyDecoder(value, self._pool.settings.answer_limit)
            elif (size == 14 and name.lower() == b"content-length") or (
                size == 17 and name.lower() == b"transfer-encoding"
            ):
                framed = True
            elif size == 10 and name.lower() == b"keep-alive":
                self.keep_idle_for = min(self.keep_idle_for, _keep_alive_seconds(value))
        self._until_close = not framed and status not in (204, 304)

    def on_body(self, piece: bytes) -> None:
        if self._decoder is not None:
            piece = self._decoder.feed(piece)
        self._size += len(piece)
        if self._size > self._pool.settings.answer_limit:
            raise DecodingError("answer is larger than answer_limit")
        if self._stream is not None:
            self._stream.feed(piece)
        else:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.status < 200:
            self._interim += 1
            if self._interim > MAX_INTERIM or self.status == 101:
                raise DecodingError("too many interim answers")
            self._headers = []
            self.status = 0
            return
        self._keep_alive = self._parser.should_keep_alive()
        if self._messages == 0:
            self._messages = 1

    # --- endings ----------------------------------------------------------------------------------

    def _begin_stream(self) -> None:
        future, self._future = self._future, None
        stream = self._stream = BodyStream(self, self._pieces, self._pool.settings.stream_idle_timeout)
        self._pieces = []
        if future is not None and not future.done():
            self.transport.pause_reading()
            future.set_result(Response(self.status, self._headers, b"", stream))

    def _complete(self) -> None:
        future, stream = self._future, self._stream
        self._future = self._stream = None
        if self._decoder is not None and not self._decoder.finished:
            error = BrokenReply("compressed answer is cut short")
            self._end(future, stream, error)
            self.close()
            return
        if self._keep_alive and not self.closed:
            self._pool.give_back(self)
        else:
            self.close()
        if stream is not None:
            stream.finish(None)
        elif future is not None and not future.done():
            pieces = self._pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            future.set_result(Response(self.status, self._headers, body, None))

    def _fail(self, error: AttemptError) -> None:
        future, stream = self._future, self._stream
        self._future = self._stream = None
        self.close()
        self._end(future, stream, error)

    @staticmethod
    def _end(future: asyncio.Future[Response] | None, stream: BodyStream | None, error: AttemptError) -> None:
        if stream is not None:
            stream.finish(error)
        if future is not None and not future.done():
            future.set_exception(error)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ConnectionPool:
    """The keep-alive connections of one endpoint: last in, first out, bounded, reaped when idle."""

    def __init__(self, target: Target, settings: TransportSettings, resolver: Resolver, clock: Clock) -> None:
        self.target = target
        self.settings = settings
        self.clock = clock
        self.open_connections = 0
        self._resolver = resolver
        self._idle: list[Connection] = []
        self._closing = False

    async def send(
        self, body: bytes, deadline_at: float, extra_head: bytes = b"", *, careful: bool = False
    ) -> Response:
        """POST `body`; return the answer.  `deadline_at` bounds the attempt as a whole.

        `extra_head` is complete header lines (trace context).  `careful` calls (those that may not
        be repeated) check a reused connection for a close before writing.  Raises AttemptError.
        """
        connection = self._take_idle(careful)
        if connection is None:
            connection = await self.connect(deadline_at)
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (self.target.head, extra_head, len(body), body)
        try:
            return await connection.exchange(request, deadline_at)
        except asyncio.CancelledError:
            connection.give_up()
            raise

    async def connect(self, deadline_at: float) -> Connection:
        """Open a connection: resolve, connect, TLS.  Raises a NotSent error: nothing was written."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        target = self.target
        left = max(0.0, deadline_at - self.clock())
        addresses = await self._resolver.addresses(target.host, target.port)
        reason = "no address"
        try:
            async with asyncio.timeout(
                min(left, settings.connect_timeout + (settings.tls_timeout if target.tls else 0.0))
            ):
                for address in addresses:
                    try:
                        _, connection = await loop.create_connection(
                            lambda: Connection(self, loop),
                            address,
                            target.port,
                            ssl=target.tls,
                            server_hostname=target.server_name if target.tls else None,
                            ssl_handshake_timeout=settings.tls_timeout if target.tls else None,
                        )
                        return connection
                    except (ssl.SSLError, ssl.CertificateError) as problem:
                        raise TlsFailed(f"TLS handshake failed: {_tls_reason(problem)}") from None
                    except ConnectionAbortedError as problem:  # uvloop's handshake timeout
                        raise TlsFailed(f"TLS handshake failed: {_shorten(problem)}") from None
                    except OSError as problem:
                        reason = _os_reason(problem)  # its text: an error kept in a frame it refers to is a cycle
        except TimeoutError:
            raise ConnectTimeout("no connection in time") from None
        raise ConnectFailed(f"connection failed: {reason}") from None

    def give_back(self, connection: Connection) -> None:
        connection.idle_since = self.clock()
        if self._closing or len(self._idle) >= self.settings.idle_connections:
            connection.close()
        else:
            self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """An idle connection was closed by its peer."""
        if connection in self._idle:
            self._idle.remove(connection)

    def reap(self) -> None:
        """Close what has been idle for too long.  Called about once a second."""
        now = self.clock()
        while self._idle and now - self._idle[0].idle_since > self._idle[0].keep_idle_for:
            self._idle.pop(0).close()

    async def warm(self) -> None:
        """Open connections ahead of the first call; a failure here is not an error."""
        while not self._closing and len(self._idle) < self.settings.warm_connections:
            try:
                connection = await self.connect(
                    self.clock() + self.settings.connect_timeout + self.settings.tls_timeout
                )
            except AttemptError:
                return
            self.give_back(connection)

    async def close(self) -> None:
        self._closing = True
        while self._idle:
            self._idle.pop().close()

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    def _take_idle(self, careful: bool) -> Connection | None:
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.closed:
                continue
            idle_for = self.clock() - connection.idle_since
            if idle_for > connection.keep_idle_for:
                connection.close()
                continue
            if (careful or idle_for > PEEK_AFTER_IDLE) and not connection.is_silent():
                connection.close()
                continue
            return connection
        return None


def _keep_alive_seconds(value: bytes) -> float:
    """`Keep-Alive: timeout=5` minus a second, so that we close before the server does."""
    for part in value.split(b","):
        name, _, seconds = part.strip().partition(b"=")
        if name.lower() == b"timeout" and seconds.isdigit():
            return max(0.5, int(seconds) - 1.0)
    return float("inf")


def _shorten(error: Any) -> str:
    return str(error)[:120]


def _tls_reason(error: Exception) -> str:
    """OpenSSL's reason without addresses or file names."""
    verify = getattr(error, "verify_message", None)
    return str(verify or getattr(error, "reason", None) or type(error).__name__)[:120]


def _os_reason(error: OSError) -> str:
    """What the system said, without the address (it may not be the caller's business)."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return type(error).__name__

"""The data path's HTTP/1.1 client: keep-alive pools over asyncio transports and `upstream/wire/connection`.

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
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.errors import AttemptError, Cancelled, ConnectFailed, ConnectTimeout, TlsFailed
from gateway.limits import TransportSettings
from gateway.model import Sent
from gateway.upstream.wire.connection import Connection, shorten
from gateway.upstream.wire.engine import Notice
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.streaming import Response

PEEK_AFTER_IDLE = 1.0  # a connection idle for longer is checked for a close we have not been told of yet


@dataclass(frozen=True, slots=True)
class Target:
    """Where one endpoint's requests go.  `head` is everything of a call up to Content-Length.

    `tls` is None for plain HTTP.  Requests that are forwarded as they came get `prefix` before their target,
    `authority` as their Host and the lines of `extra`.
    """

    host: str
    port: int
    head: bytes
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    authority: bytes = b""
    prefix: bytes = b""
    extra: bytes = b""


class ConnectionPool:
    """The keep-alive connections of one endpoint: last in, first out, bounded, reaped when idle."""

    def __init__(self, target: Target, settings: TransportSettings, resolver: Resolver, clock: Clock) -> None:
        self.target = target
        self.settings = settings
        self.clock = clock
        self.open_connections = 0
        self.on_last_closed: Callable[[], None] = lambda: None
        self._resolver = resolver
        self._idle: list[Connection] = []
        self._closing = False
        self._turn = 0  # which of the host's addresses is tried first
        self._addresses: frozenset[str] = frozenset()  # where the name led when it was last followed

    async def send(
        self,
        body: bytes,
        deadline_at: float,
        extra_head: bytes = b"",
        *,
        careful: bool = False,
        notice_at: float = 0.0,
        notice: Notice | None = None,
    ) -> Response:
        """POST `body`; return the answer.  `deadline_at` bounds the attempt as a whole.

        `extra_head` is complete header lines (trace context).  `careful` calls (those that may not
        be repeated) check a reused connection for a close before writing.  Raises AttemptError.
        """
        connection = self._take_idle(careful, deadline_at) or await self.connect(deadline_at)
        request = b"%b%bContent-Length: %d\r\n\r\n%b" % (self.target.head, extra_head, len(body), body)
        future = connection.exchange(request, deadline_at, notice_at, notice)
        try:
            return await future
        except asyncio.CancelledError:
            connection.abandon(future)
            raise

    async def forward(
        self, verb: bytes, target: bytes, head: bytes, body: bytes, deadline_at: float, *, careful: bool = False
    ) -> Response:
        """Send a request as it came and return its answer as it comes, compressed or not.

        `head` is complete header lines, Content-Length included where there is a body.  Raises AttemptError.
        """
        connection = self._take_idle(careful, deadline_at) or await self.connect(deadline_at)
        to = self.target
        request = b"%b %b%b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n%b" % (
            verb, to.prefix, target, to.authority, to.extra, head, body
        )  # fmt: skip
        future = connection.exchange(request, deadline_at, raw=True, bodyless=verb == b"HEAD")
        try:
            return await future
        except asyncio.CancelledError:
            connection.abandon(future)
            raise

    async def connect(self, deadline_at: float) -> Connection:
        """Open a connection: resolve, connect, TLS.  Raises a NotSent error: nothing was written."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        target = self.target
        patience = settings.connect_timeout + (settings.tls_timeout if target.tls else 0.0)
        reason = "no address"
        try:
            async with asyncio.timeout(max(0.0, deadline_at - self.clock())):
                addresses = await self._resolver.addresses(target.host, target.port)
            self._follow(frozenset(addresses))
            turn = self._turn % len(addresses)
            async with asyncio.timeout(max(0.0, min(deadline_at - self.clock(), patience))):
                for address in addresses[turn:] + addresses[:turn]:
                    try:
                        _, connection = await loop.create_connection(
                            lambda: Connection(self, loop),
                            address,
                            target.port,
                            ssl=target.tls,
                            server_hostname=target.server_name if target.tls else None,
                            ssl_handshake_timeout=settings.tls_timeout if target.tls else None,
                        )
                        if not connection.closed and not connection.transport.is_closing():
                            return connection
                        reason = "closed as soon as it was open"
                    except (ssl.SSLError, ssl.CertificateError) as problem:
                        raise TlsFailed(f"TLS handshake failed: {_tls_reason(problem)}") from None
                    except ConnectionAbortedError as problem:  # uvloop's handshake timeout
                        raise TlsFailed(f"TLS handshake failed: {shorten(problem)}") from None
                    except OSError as problem:
                        reason = _os_reason(problem)  # its text: an error kept in a frame it refers to is a cycle
        except TimeoutError:
            self._turn += 1  # one address that swallows everything must not keep us from the others
            raise ConnectTimeout("no connection in time") from None
        raise ConnectFailed(f"connection failed: {reason}") from None

    def _follow(self, addresses: frozenset[str]) -> None:
        """A name that leads somewhere else altogether may have been re-wired: who is there is asked before it is used.

        Idle connections lead to where it was, and would answer for it.
        """
        moved = bool(self._addresses) and self._addresses.isdisjoint(addresses)
        self._addresses = addresses
        if moved:
            for connection in [*self._idle]:
                connection.close()
            self._idle.clear()
            self.on_last_closed()

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

    def closed_one(self) -> None:
        """A connection is closed.  With the last one goes the certainty of who is at the other end."""
        self.open_connections -= 1
        if self.open_connections == 0 and not self._closing:
            self.on_last_closed()

    def reap(self) -> None:
        """Close what has been idle for too long.  Called about once a second."""
        now = self.clock()
        while self._idle and now - self._idle[0].idle_since > self._idle[0].keep_idle_for:
            self._idle.pop(0).close()

    async def warm(self) -> None:
        """Open connections ahead of the first call; a failure here is not an error."""
        for _ in range(self.settings.warm_connections - len(self._idle)):
            if self._closing:
                return
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

    def _take_idle(self, careful: bool, deadline_at: float) -> Connection | None:
        """An idle connection that is sound.  Raises Cancelled when the deadline has passed."""
        now = self.clock()
        if now >= deadline_at:
            raise Cancelled("no time was left", sent=Sent.NOT_SENT)
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.closed or connection.transport.is_closing():
                continue
            idle_for = now - connection.idle_since
            if idle_for > connection.keep_idle_for:
                connection.close()
                continue
            if (careful or idle_for > PEEK_AFTER_IDLE) and not connection.is_silent():
                connection.close()
                continue
            return connection
        return None


def _tls_reason(error: Exception) -> str:
    """OpenSSL's reason without addresses or file names."""
    verify = getattr(error, "verify_message", None)
    return str(verify or getattr(error, "reason", None) or type(error).__name__)[:120]


def _os_reason(error: OSError) -> str:
    """What the system said, without the address (it may not be the caller's business)."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return type(error).__name__

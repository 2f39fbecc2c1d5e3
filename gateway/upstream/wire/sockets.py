"""Upstream WebSockets: one per endpoint, kept alive until nobody needs it.

Always true: only what the configuration names is dialled, at addresses of the resolver: no redirect is
followed and no environment proxy used; certificates are verified; a lost socket is opened again after a
pause that doubles, is jittered, and is paid from one budget of all sockets, so that an outage of many
does not end in a storm; what is said of a failure is a closed word, never a URL, a key or a peer's text.
Owner of tenacity, and with socket_client of websockets.  Does not belong here: JSON, subscriptions (line).

The words.  No connection came about: ``resolve_failed``, ``connect_failed``, ``connect_timeout``,
``tls_failed``, ``proxy_failed``, ``http_403`` (any status but 101), ``handshake_failed``.  A connection
was lost: ``closed_1012`` (any code of the peer's), ``connection_lost``, ``ping_timeout``, ``too_large``,
``protocol_error``, ``send_stuck``, ``gateway_bug``, or what its owner gave to `drop` or `close`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, wait_exponential
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, ProxyError, WebSocketException

from gateway.clock import Clock
from gateway.errors import AttemptError, ConnectionLost, ResolveFailed
from gateway.limits import FeedSettings
from gateway.model import Sent
from gateway.policy.budget import TokenBucket
from gateway.upstream.wire.outbound import Outbound
from gateway.upstream.wire.reading import retry_after_seconds
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.socket_client import PARTING, Connection, dial

CONNECTS_PER_SECOND = 10.0  # of all sockets of the gateway together
CONNECTS_SAVED_UP = 20.0
STEADY_AFTER = 30.0  # seconds of life after which a socket's earlier failures are forgotten
REFUSED_PAUSE = 60.0  # seconds, after 401, 403, 404 or 410: it will not change its mind soon
BUSY_PAUSE = 5.0  # seconds, after a code of `BUSY`, after 429 or 503 without a time
LONGEST_RETRY_AFTER = 600.0  # seconds an endpoint may ask us to stay away
SEND_WITHIN = 5.0  # seconds for a message to leave; what is sent upstream is small
BUSY = frozenset({1008, 1013})  # codes for: we broke a rule of the server's, as its limits; try again later
OUR_CODES = {1002: "protocol_error", 1007: "protocol_error", 1009: "too_large", 1011: "ping_timeout"}
"""What the library closes a connection for."""


@dataclass(frozen=True, slots=True, repr=False)
class SocketTarget:
    """Where a socket goes, secrets included; therefore without a repr.  Equal targets: the same socket.

    `certificates` are the files that `tls` was made of.
    """

    url: str
    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = ()
    user_agent: str = ""
    proxy: str | None = None
    server_name: str | None = None
    certificates: tuple[str | None, ...] = ()
    tls: ssl.SSLContext | None = field(default=None, compare=False)

    def below(self, target: str, headers: Sequence[tuple[str, str]]) -> SocketTarget:
        """The same host at `target` (path and query as they are sent), with a caller's headers."""
        agents = [value for name, value in headers if name.lower() == "user-agent"]
        others = tuple((name, value) for name, value in headers if name.lower() not in _OF_THE_HANDSHAKE)
        return dataclasses.replace(
            self,
            url=self.url.rstrip("/") + target,
            headers=(*self.headers, *others),
            user_agent=agents[-1] if agents else self.user_agent,
        )


_OF_THE_HANDSHAKE = frozenset(
    {"accept", "accept-encoding", "connection", "content-type", "host", "upgrade", "user-agent"}
    | {f"sec-websocket-{name}" for name in ("accept", "extensions", "key", "protocol", "version")}
)
"""Headers of a call that have no place in a handshake, or are the library's to set."""


def socket_target(outbound: Outbound) -> SocketTarget | None:
    """The WebSocket of an endpoint; None when it has none.  Raises ValueError or OSError as its engine does."""
    url = outbound.ws
    if url is None:
        return None
    parts = urlsplit(url)
    host = parts.hostname or ""
    authority = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        authority += f":{parts.port}"
    headers = outbound.request_headers(url)
    agents = [value for name, value in headers.items() if name.lower() == "user-agent"]
    return SocketTarget(
        url=f"{parts.scheme}://{authority}{outbound.target(url)}",
        host=host,
        port=parts.port or (443 if parts.scheme == "wss" else 80),
        headers=tuple((n, v) for n, v in headers.items() if n.lower() not in _OF_THE_HANDSHAKE),
        user_agent=agents[-1] if agents else "",
        proxy=outbound.proxy,
        server_name=outbound.server_name or host,
        certificates=(outbound.ca, outbound.certificate, outbound.private_key),
        tls=outbound.tls_context(url),
    )


class ConnectBudget:
    """How often sockets may be opened, all of a gateway together.  Who asked first gets the next turn."""

    __slots__ = ("_bucket", "_clock", "_first")

    def __init__(self, clock: Clock, rate: float = CONNECTS_PER_SECOND, saved_up: float = CONNECTS_SAVED_UP) -> None:
        self._clock = clock
        self._bucket = TokenBucket(rate, saved_up, clock())
        self._first = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a turn."""
        async with self._first:  # of a thousand that wait, one sleeps for the next turn
            while not self._bucket.take(1.0, self._clock()):  # noqa: ASYNC110 - only time refills a bucket
                await asyncio.sleep(max(0.001, self._bucket.available_after(1.0, self._clock())))


class SocketEvents(Protocol):
    """Who owns a socket.  Called on the event loop; none of these may wait."""

    def opened(self, socket: UpstreamSocket) -> None:
        """It is connected; called each time."""

    def message(self, socket: UpstreamSocket, data: bytes) -> None:
        """One whole message, text or binary.  Text is valid UTF-8."""

    def closed(self, socket: UpstreamSocket, why: str) -> None:
        """It was lost, or closed as it was asked to; called once for each `opened`.

        Unless it was asked for, opening it again goes on by itself.
        """


@dataclass(frozen=True, slots=True)
class _Ended:
    """How one connection, or one try to have one, ended.

    `at_least`: seconds to stay away, whatever the pauses say.
    """

    why: str
    lived: float = 0.0
    at_least: float = 0.0


class UpstreamSocket:
    """Keeps one WebSocket to one endpoint alive until `close`.

    `opened_at`: when it was last connected, in the clock's seconds; `failures`: tries in a row that
    brought no connection of `STEADY_AFTER` seconds; `why`: the word for how the last one ended.
    """

    __slots__ = (
        "_budget", "_chance", "_clock", "_closing", "_connection", "_doubling", "_dropped", "_events", "_last",
        "_resolver", "_settings", "_target", "_task", "_turn", "endpoint_id", "failures", "opened_at", "why",
    )  # fmt: skip

    def __init__(
        self,
        endpoint_id: str,
        target: SocketTarget,
        settings: FeedSettings,
        resolver: Resolver,
        budget: ConnectBudget,
        events: SocketEvents,
        clock: Clock,
        chance: Random,
    ) -> None:
        self.endpoint_id = endpoint_id
        self.opened_at = 0.0
        self.failures = 0
        self.why = ""
        self._target = target
        self._settings = settings
        self._resolver = resolver
        self._budget = budget
        self._events = events
        self._clock = clock
        self._chance = chance
        self._doubling = wait_exponential(multiplier=settings.first_pause, max=settings.longest_pause)
        self._connection: Connection | None = None
        self._task: asyncio.Task[_Ended] | None = None
        self._dropped = ""  # why we cut it ourselves
        self._closing = False
        self._last = False  # this connection is the last one
        self._turn = 0  # which of the host's addresses is tried first

    @property
    def connected(self) -> bool:
        return self._connection is not None

    def start(self) -> None:
        """Begin to connect, and go on until `close`.  Once only."""
        assert self._task is None and not self._closing, "a socket is started once"
        live_again = AsyncRetrying(
            retry=retry_if_result(lambda _: not (self._closing or self._last)), wait=self._pause, sleep=asyncio.sleep
        )
        self._task = asyncio.ensure_future(live_again(self._live))

    def open_no_more(self) -> None:
        """Its connection, if it has one, is the last."""
        self._last = True

    async def close(self, why: str = "") -> None:
        """End it for good, politely where the peer goes along; `why` is what `closed` is told."""
        self._closing = True
        self._dropped = why or "closed"
        task, self._task = self._task, None
        if task is None:
            return
        connection = self._connection
        try:
            if connection is not None:
                async with asyncio.timeout(PARTING):
                    await connection.close(1001)
        except TimeoutError:
            pass  # it does not listen; it is cut below
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if connection is not None:
                await connection.wait_closed()

    async def send(self, data: bytes) -> None:
        """Send one text message.  Raises ConnectionLost; with `Sent.NOT_SENT` when there was no connection."""
        connection = self._connection
        if connection is None:
            raise ConnectionLost("the socket is not connected", sent=Sent.NOT_SENT)
        try:
            async with asyncio.timeout(SEND_WITHIN):
                await connection.send(data, text=True)
        except TimeoutError:
            if connection is self._connection:
                self.drop("send_stuck")
            raise ConnectionLost("the socket took nothing", sent=Sent.PARTLY) from None
        except ConnectionClosed:
            raise ConnectionLost("the socket was closed", sent=Sent.PARTLY) from None

    def drop(self, why: str) -> None:
        """Cut the connection: it is up and useless.  It is opened again after the usual pause."""
        if self._connection is not None:
            self._dropped = self._dropped or why
            self._connection.transport.abort()

    # --- life -------------------------------------------------------------------------------------

    async def _live(self) -> _Ended:
        """One connection, from dialling to its end."""
        await self._budget.take()
        try:
            async with asyncio.timeout(self._settings.open_within):
                connection = await self._dial()
        except Exception as problem:
            self._turn += 1  # one address that swallows everything must not keep us from the others
            ended = _refusal(problem)
            if ended is None:
                self._report(problem)
                ended = _Ended("gateway_bug")
        else:
            ended = await self._listen(connection)
        self.why = ended.why
        return ended

    async def _listen(self, connection: Connection) -> _Ended:
        """Hand over what comes until there is no more."""
        self._connection = connection
        self.opened_at = self._clock()
        if not self._closing:
            self._dropped = ""
        events = self._events
        code = 1006
        why = "connection_lost"
        try:
            self._tell(events.opened, self)
            while True:
                message = await connection.whole()
                if not self._closing:
                    self._tell(events.message, self, message)
        except ConnectionClosed as closed:
            code, why = _loss(closed)
        except Exception as bug:
            self._report(bug)
            why = "gateway_bug"
        finally:
            self._connection = None
            connection.transport.abort()
            why = self._dropped or why
            self._tell(events.closed, self, why)
        return _Ended(why, self._clock() - self.opened_at, BUSY_PAUSE if code in BUSY else 0.0)

    def _tell(self, event: Callable[..., None], *told: Any) -> None:
        """A bug of the owner's costs the connection, not the socket."""
        try:
            event(*told)
        except Exception as bug:
            self._report(bug)
            self.drop("gateway_bug")

    def _report(self, bug: Exception) -> None:
        context = {"message": f"the WebSocket of {self.endpoint_id}", "exception": bug}
        asyncio.get_running_loop().call_exception_handler(context)

    def _pause(self, state: RetryCallState) -> float:
        """Doubling, and between half of it and the whole, so that many do not come back in step."""
        assert state.outcome is not None
        ended: _Ended = state.outcome.result()
        if ended.lived >= STEADY_AFTER:
            state.attempt_number = 1
        self.failures = state.attempt_number
        chance = self._chance.random()
        return max(self._doubling(state) * (0.5 + 0.5 * chance), ended.at_least * (1.0 + 0.5 * chance))

    async def _dial(self) -> Connection:
        return await dial_target(self._target, self._resolver, self._settings, self._turn)


async def dial_target(target: SocketTarget, resolver: Resolver, settings: FeedSettings, turn: int = 0) -> Connection:
    """Connect to one of the host's addresses, or to the proxy's.  Raises what `word_for` knows."""
    how: dict[str, Any] = {}
    if target.tls is not None:
        how = {"ssl": target.tls, "server_hostname": target.server_name}
    through = urlsplit(target.proxy) if target.proxy is not None else None
    host, port = target.host, target.port
    if through is not None:
        host = through.hostname or ""
        port = through.port or (443 if through.scheme == "https" else 80)
        if through.scheme == "https":
            how["proxy_server_hostname"] = host
    addresses = await resolver.addresses(host, port)
    turn = turn % len(addresses)
    *others, last = addresses[turn:] + addresses[:turn]
    for address in (*others, last):
        proxy = None
        if through is None:
            how.update(host=address, port=port)
        else:
            user = through.netloc.rpartition("@")[0]
            shown = f"[{address}]" if ":" in address else address
            proxy = f"{through.scheme}://{user + '@' if user else ''}{shown}:{port}"
        try:
            return await dial(target.url, target.headers, target.user_agent, settings, proxy, how)
        except (ssl.SSLError, ssl.CertificateError, TimeoutError):
            raise
        except OSError:
            if address == last:
                raise
    raise AssertionError("the last address returns or raises")


def word_for(problem: Exception) -> str:
    """The word for a connection that did not come about."""
    ended = _refusal(problem)
    return ended.why if ended is not None else "gateway_bug"


def _refusal(problem: Exception) -> _Ended | None:
    """The word for a connection that did not come about, and how long to stay away; None: a bug of ours."""
    if isinstance(problem, InvalidStatus):
        status = problem.response.status_code
        at_least = REFUSED_PAUSE if status in (401, 403, 404, 410) else 0.0
        if status in (429, 503):
            asked = retry_after_seconds(problem.response.headers.get("Retry-After", "").encode())
            at_least = BUSY_PAUSE if asked is None else min(asked, LONGEST_RETRY_AFTER)
        return _Ended(f"http_{status}", at_least=at_least)
    if isinstance(problem, AttemptError):
        return _Ended(ResolveFailed.reason)
    if isinstance(problem, TimeoutError):
        return _Ended("connect_timeout")
    if isinstance(problem, (ssl.SSLError, ssl.CertificateError, ConnectionAbortedError)):
        return _Ended("tls_failed")  # the last is what uvloop says of a TLS handshake that takes too long
    if isinstance(problem, OSError):
        return _Ended("connect_failed")
    if isinstance(problem, (ProxyError, InvalidProxy)):
        return _Ended("proxy_failed")
    if isinstance(problem, (WebSocketException, EOFError)):
        return _Ended("handshake_failed")
    return None


def _loss(closed: ConnectionClosed) -> tuple[int, str]:
    """The peer's close code (1006: it gave none), and the word for the loss."""
    if closed.rcvd is not None:
        return closed.rcvd.code, f"closed_{closed.rcvd.code}"
    ours = closed.sent.code if closed.sent is not None else 1006
    return 1006, OUR_CODES.get(ours, "connection_lost")

"""Callers' WebSockets to exchanges.

Always true: host, key and origin are checked as for any request; messages pass unchanged and in order, text as text
and binary as binary; a caller that does not read holds back its own stream and nobody else's; when the exchange's
side is lost the caller's is closed with 1012, so that its library connects again and starts anew; a reload ends the
sockets of a key or a route that it takes away.
Does not belong here: frames (socket), hosts of streams (upstream/venues/streams).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.dialect.venue_requests import plain_path
from gateway.edge.observer import Observer
from gateway.edge.rest import HOP_BY_HOP, OURS, Wish, admit, from_browser, key_of
from gateway.edge.rpc import Table
from gateway.edge.socket import GOING_AWAY, INTERNAL, POLICY, CallerSocket
from gateway.edge.venue_shared import SharedSession
from gateway.edge.venues import Located
from gateway.errors import BadHttp, CallerError, TooManyConnections, UnknownRoute
from gateway.limits import SocketLimits
from gateway.upstream.venues.streams import PassThrough, VenueStreams

TOPICS_OF_A_SOCKET = 1024  # at least; as many as Binance allows


@dataclass(frozen=True, slots=True)
class Admission:
    """What a session was let in for: the key it showed, the route, and that route's streams as they were."""

    key: bytes | None
    route: str
    streams: VenueStreams


class VenueSockets:
    """Opens a session for each caller that asks an exchange for a WebSocket.  One per gateway."""

    def __init__(
        self,
        table: Callable[[], Table],
        observer: Observer,
        clock: Clock,
        limits: SocketLimits,
        report: Callable[[BaseException], None],
    ) -> None:
        self.table = table
        self.observer = observer
        self.clock = clock
        self.limits = limits
        self.report = report
        self.sessions: dict[VenueSession | SharedSession, Admission] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def locate(self, scope: dict[str, Any]) -> Located | None:
        """The venue that a request to switch is for; None: none."""
        table = self.table()
        if not table.venues:
            return None
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        return table.venues.locate(scope["extensions"]["seawall.target"], host)

    def upgrade(self, located: Located, scope: dict[str, Any]) -> VenueSession | SharedSession:
        """The session for a request to switch.  Raises CallerError for one that may not."""
        table = self.table()
        wish = Wish(scope["headers"])
        caller = admit(table, located, wish)
        route = located.venue.route
        caller.require(route.name, 1, self.clock())
        target = located.target.decode("latin-1")
        path = target.partition("?")[0]
        located.venue.methods.require_stream(path, plain_path(located.target).decode("latin-1"))
        if route.streams is None or not route.streams.candidates(path):
            raise UnknownRoute("this exchange has no streams at that path")
        if len(self.sessions) >= self.limits.sockets:
            raise TooManyConnections("too many WebSockets are open")
        if b"#" in located.target:
            raise BadHttp("the URL of a WebSocket has no fragment (RFC 6455 section 3)")
        headers = passed_on(scope, wish.connection)
        admission = Admission(key_of(located, wish), route.name, route.streams)
        name = authority_of(located)
        shared = route.shares(target, name)
        session: VenueSession | SharedSession
        if shared is None:
            session = VenueSession(self, located, headers)
            self.sessions[session] = admission
            return session
        session = SharedSession(
            shared,
            route.streams,
            target,
            name,
            headers,
            max(self.limits.subscriptions, TOPICS_OF_A_SOCKET),
            self.start,
            self.left,
            lambda: self.observer.rejected("slow_consumer"),
        )
        self.sessions[session] = admission
        return session

    def left(self, session: VenueSession | SharedSession) -> None:
        """Its socket is gone."""
        self.sessions.pop(session, None)

    def reloaded(self) -> None:
        """The table was replaced: sockets whose key or route is gone, or is another one now, are closed."""
        table, now = self.table(), self.clock()
        for session, admission in tuple(self.sessions.items()):
            if session.socket is None:
                continue
            target = table.venues.named(admission.route)
            if target is None or target.route.streams is not admission.streams:
                session.socket.close(GOING_AWAY, "the route has changed; connect again")
                continue
            try:
                table.callers.identify(admission.key).require(admission.route, 0, now)
            except CallerError as error:
                self.observer.refused(error.reason)
                session.socket.close(POLICY, error.reason)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Give up what is still open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class VenueSession:
    """One caller's socket to an exchange (see `edge.socket.Handler`)."""

    def __init__(self, sockets: VenueSockets, located: Located, headers: Sequence[tuple[str, str]]) -> None:
        self._sockets = sockets
        self._located = located
        self._headers = headers
        self._task: asyncio.Task[None] | None = None
        self._through: PassThrough | None = None
        self.socket: CallerSocket | None = None

    def opened(self, socket: CallerSocket) -> None:
        self.socket = socket
        streams = self._located.venue.route.streams
        assert streams is not None
        self._through = PassThrough(streams)
        self._task = self._sockets.start(self._pass(self._through, socket))

    def message(self, text: bytes) -> None:
        socket, through = self.socket, self._through
        if socket is None or through is None:
            return
        socket.under_way += through.put(text.decode() if socket.text else text)

    def dropped(self) -> None:
        self._sockets.observer.rejected("slow_consumer")

    def closed(self) -> None:
        self.socket = None
        self._sockets.left(self)
        if self._task is not None:
            self._task.cancel()

    async def _pass(self, through: PassThrough, socket: CallerSocket) -> None:
        located = self._located
        target, name = located.target.decode("latin-1"), authority_of(located)
        try:
            code, reason = await through.run(target, self._headers, name, socket.relay, socket.relayed)
        except asyncio.CancelledError:
            socket.close(GOING_AWAY, "the gateway is stopping")
            raise
        except Exception as error:
            self._sockets.report(error)
            code, reason = INTERNAL, "internal error"
        socket.under_way = 0
        socket.close(code, reason)


def passed_on(scope: dict[str, Any], gone: frozenset[bytes]) -> list[tuple[str, str]]:
    """The caller's header fields that go into the handshake with the exchange."""
    headers = scope["headers"]
    names = scope["extensions"].get("seawall.names") or [name for name, _ in headers]
    return [
        (written.decode("latin-1"), value.decode("latin-1"))
        for written, (name, value) in zip(names, headers, strict=True)
        if name not in HOP_BY_HOP
        and name not in gone
        and not name.startswith((OURS, b"sec-websocket-"))
        and (name != b"origin" or from_browser(value))
    ]


def authority_of(located: Located) -> str:
    """The host that a caller behind ``/via/`` names; empty: none."""
    return located.authority.rpartition(b"//")[2].decode("latin-1").lower()

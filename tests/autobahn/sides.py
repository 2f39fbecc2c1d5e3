"""Our two sides as echoes, which is what the Autobahn suite plays its cases against.

Always true: the frames go through the sockets that callers and endpoints get, with nothing replaced;
only what a message means (an echo) is made here.  Binary messages come back as binary, as the suite
wants; the gateway itself answers everything as text.
Does not belong here: the suite (suite), what was found (test_autobahn).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from random import Random

from gateway.clock import monotonic
from gateway.edge.frames import frame_of
from gateway.edge.listener import Listener
from gateway.edge.socket import CallerSocket
from gateway.errors import ConnectionLost
from gateway.limits import EdgeLimits, FeedSettings, SocketLimits
from gateway.upstream.wire.outbound import Outbound
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.sockets import ConnectBudget, UpstreamSocket, socket_target
from tests.pace import PATIENCE

LARGEST = 16 * 1024 * 1024  # bytes; the largest message of the suite's cases (9.1.6)


class Echo:
    """A caller's handler that gives back what it is told."""

    def opened(self, socket: CallerSocket) -> None:
        self.socket = socket

    def message(self, text: bytes) -> None:
        socket = self.socket
        if not socket.plain:
            protocol = socket._protocol
            (protocol.send_text if socket.text else protocol.send_binary)(text)
            socket._flush()
        elif socket.text:
            socket.send(text)
        else:
            socket.push(b"\x82" + frame_of(text)[1:])

    def dropped(self) -> None:
        return

    def closed(self) -> None:
        return


@contextlib.asynccontextmanager
async def caller_side(*, compression: bool) -> AsyncIterator[str]:
    """A listener whose WebSockets echo; its URL."""
    reports: list[BaseException] = []
    listener = Listener(
        _no_pages,
        EdgeLimits(),
        report=reports.append,
        upgrade=lambda scope: Echo(),
        socket_limits=SocketLimits(message=LARGEST, queue=4 * LARGEST, compression=compression),
    )
    await listener.start("127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{listener.port}/"
    finally:
        await listener.stop(0.0, monotonic)
    assert not reports, reports


async def _no_pages(scope: object, receive: object, send: object) -> None:
    raise AssertionError("only WebSockets are asked for here")


class OneConnection(ConnectBudget):
    """Lets a socket connect once: the second time would begin the case again."""

    def __init__(self) -> None:
        super().__init__(monotonic)
        self._taken = False

    async def take(self) -> None:
        if self._taken:
            await asyncio.get_running_loop().create_future()
        self._taken = True


class Echoing:
    """The owner of an upstream socket: gives back what it is told, in order, until the socket is lost."""

    def __init__(self, *, binary: bool) -> None:
        self.why = ""
        self._binary = binary
        self._told: asyncio.Queue[bytes | None] = asyncio.Queue()

    def opened(self, socket: UpstreamSocket) -> None:
        return

    def message(self, socket: UpstreamSocket, data: bytes) -> None:
        self._told.put_nowait(data)

    def closed(self, socket: UpstreamSocket, why: str) -> None:
        self.why = why
        self._told.put_nowait(None)

    async def echo(self, socket: UpstreamSocket) -> None:
        """Returns when the socket is lost."""
        while (data := await self._told.get()) is not None:
            with contextlib.suppress(ConnectionLost):
                if self._binary:
                    assert socket._connection is not None
                    await socket._connection.send(data)
                else:
                    await socket.send(data)


async def upstream_side(url: str, *, binary: bool = False, within: float = PATIENCE) -> str:
    """One case on an upstream socket; how the socket ended.  Raises TimeoutError."""
    events = Echoing(binary=binary)
    target = socket_target(Outbound(url="http://127.0.0.1", ws=url))
    assert target is not None
    settings = FeedSettings(message=LARGEST)
    socket = UpstreamSocket(
        "autobahn", target, settings, Resolver(monotonic), OneConnection(), events, monotonic, Random(0)
    )
    socket.start()
    try:
        async with asyncio.timeout(within):
            await events.echo(socket)
    finally:
        await socket.close()
    return events.why

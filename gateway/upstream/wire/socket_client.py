"""The websockets library's client, as the gateway uses it: what it dials, what it reads, what it keeps to itself.

Always true: no redirect is followed; no proxy is used but the one that is given; a message is as large as
the settings allow, in however many pieces it comes; the library logs nothing, because its lines hold URLs.
Owner of websockets (with sockets and edge/socket).  Does not belong here: when to connect again (sockets).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from gateway.limits import FeedSettings

__all__ = ["PARTING", "Connection", "ConnectionClosed", "dial"]

PARTING = 1.0  # seconds for a closing handshake

_silent = logging.getLogger("seawall.silent.upstream")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)


class _Frames(ClientProtocol):
    """The library's frames, but a close that comes between the fragments of a message is a close.

    It may come there as any control frame may (RFC 6455 section 5.4); the library takes it for an error (1002).
    """

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Connection(ClientConnection):
    """The library's connection, on our frames."""

    def __init__(self, protocol: ClientProtocol, **options: Any) -> None:
        frames = _Frames(protocol.uri, max_size=protocol.max_message_size, logger=_silent)
        super().__init__(frames, **options)

    async def whole(self) -> bytes:
        """The next message, text checked to be UTF-8.  Raises ConnectionClosed.

        Added up here because the library refuses a message of more than 4096 pieces, and because a list of
        very small ones would take many times the bytes that `message` allows.
        """
        message: bytes | bytearray = b""
        async for piece in self.recv_streaming():
            data = piece if isinstance(piece, bytes) else piece.encode()
            if not message:
                message = data
            else:
                if isinstance(message, bytes):
                    message = bytearray(message)
                message += data
        return bytes(message)


class _Connect(connect):
    """The library's connect, without its willingness to go where a server sends it."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def dial(
    url: str,
    headers: Sequence[tuple[str, str]],
    user_agent: str,
    settings: FeedSettings,
    proxy: str | None,
    how: dict[str, Any],
) -> Connection:
    """Open a WebSocket, through `proxy` if there is one; `how` is for the loop's `create_connection`.

    Sets no limit in time.  Raises OSError, or the library's WebSocketException.
    """
    connection = await _Connect(
        url,
        additional_headers=list(headers),
        user_agent_header=user_agent,
        compression=None,  # it would cost memory and time for each socket
        proxy=proxy,
        open_timeout=None,
        ping_interval=settings.ping_every,
        ping_timeout=settings.pong_within,
        close_timeout=PARTING,
        max_size=settings.message,
        logger=_silent,
        create_connection=Connection,
        **how,
    )
    assert isinstance(connection, Connection)
    return connection

"""What an exchange brings: a whole answer, or the body of a large one while it comes.

Always true: a large body is read no faster than its reader takes it; one that breaks off ends in an
error, never in a short body.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from gateway.errors import AttemptError, Cancelled
from gateway.model import Sent
from gateway.upstream.wire.engine import Stream

if TYPE_CHECKING:
    from gateway.upstream.wire.connection import Connection

STREAM_HIGH_WATER = 512 * 1024  # reading from the upstream pauses above this


class Response:
    """An upstream's answer.  Either `body` is complete, or `stream` delivers it piece by piece.

    A stream must be read to its end or closed; until then it holds its connection.
    """

    __slots__ = ("body", "headers", "status", "stream")

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, stream: Stream | None) -> None:
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
            assert connection is not None
            connection.resume(self._idle_timeout)
            self._waiter = connection.loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                self.close()
                raise
        piece = self._pieces.popleft()
        self._size -= len(piece)
        return piece

    def close(self) -> None:
        """Give up the rest; the connection is closed, because its bytes are still coming."""
        connection, self._connection = self._connection, None
        if connection is not None and not self._done:
            connection.give_up()
        if self._pieces and self._error is None:  # who reads on must not take the rest for nothing
            self._error = Cancelled("given up", sent=Sent.ANSWERED)
        self._done = True
        self._pieces.clear()

    @property
    def waiting(self) -> bool:
        """Somebody waits for the next piece."""
        return self._waiter is not None and not self._waiter.done()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

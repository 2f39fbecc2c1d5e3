"""An upstream that reads one request and then plays a script: bytes, pauses, a close or a reset.

It keeps every byte it hears, so a test can say what left and how often.  Nothing here knows HTTP
beyond where a request with a Content-Length ends.  Pauses are the loop's seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class End(enum.Enum):
    """How a script may end a connection."""

    CLOSE = "close"  # FIN
    RESET = "reset"  # RST


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


HANG = Pause(10_000_000.0)  # longer than any story
Step = bytes | Pause | End | Callable[["Conversation"], Awaitable[None]]
Script = Sequence[Step]


def answer(body: bytes = b"{}", *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """A sound answer with a length."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """The same in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


class Conversation(asyncio.Protocol):
    """One accepted connection."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._unread = bytearray()
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.heard = bytearray()
        self.written = 0
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._upstream.met(self)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self._unread += data
        self._news.set()

    def eof_received(self) -> None:
        self.gone = True
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._news.set()
        self._writable.set()
        self._upstream.open.discard(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def request(self, head_only: bool) -> bytes | None:
        """The next request; None when the caller has gone."""
        while True:
            end = self._unread.find(b"\r\n\r\n")
            if end >= 0:
                announced = _LENGTH.search(self._unread, 0, end + 4)
                size = end + 4 + (int(announced[1]) if announced and not head_only else 0)
                if len(self._unread) >= size:
                    whole = bytes(self._unread[:size])
                    del self._unread[:size]
                    return whole
            if self.gone:
                return None
            self._news.clear()
            await self._news.wait()

    async def say(self, data: bytes) -> None:
        """Write, and wait while the caller does not read."""
        await self._writable.wait()
        if not self.gone:
            self.transport.write(data)
            self.written += len(data)

    def end(self, how: End) -> None:
        if how is End.RESET:
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    async def play(self, script: Script) -> None:
        for step in script:
            if isinstance(step, bytes):
                await self.say(step)
            elif isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            elif isinstance(step, End):
                self.end(step)
            else:
                await step(self)


class ScriptedUpstream:
    """Request n, over all connections, is answered by script n; the last script answers all that follow.

    `greeting` is played before anything is read.  `reads` False: nothing ever is.  `early`: scripts
    are played once a request's head is there, whatever becomes of its body.
    """

    def __init__(
        self,
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        greeting: Script = (),
        reads: bool = True,
        early: bool = False,
    ) -> None:
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self.conversations: list[Conversation] = []
        self.open: set[Conversation] = set()
        self._tls = tls
        self._greeting = greeting
        self._reads = reads
        self._early = early
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def accepted(self) -> int:
        """Connections so far."""
        return len(self.conversations)

    async def gone(self) -> None:
        """Wait until no connection is open; even a deaf upstream notices."""
        for conversation in self.open:
            conversation.transport.resume_reading()
        while self.open:
            await asyncio.sleep(0.001)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Conversation(self), "127.0.0.1", 0, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        while self.open:
            for conversation in list(self.open):
                conversation.transport.abort()
            await asyncio.sleep(0)

    def refuse(self) -> None:
        """Accept no connection from now on."""
        with contextlib.suppress(RuntimeError):
            self._server.close()

    def met(self, conversation: Conversation) -> None:
        self.conversations.append(conversation)
        self.open.add(conversation)
        if not self._reads:
            conversation.transport.pause_reading()
        task = asyncio.ensure_future(self._converse(conversation))
        self._tasks.add(task)

    async def _converse(self, conversation: Conversation) -> None:
        await conversation.play(self._greeting)
        while (request := await conversation.request(self._early)) is not None:
            self.requests.append(request)
            await conversation.play(self.scripts[min(len(self.requests), len(self.scripts)) - 1])

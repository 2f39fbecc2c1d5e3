"""One connection of a simulated provider: reads requests, plays answers, one at a time, in order.

Always true: every connection that was opened tells its host when it is gone, however it went; a
reset is a real RST; a play's bytes have left before its end is carried out.
Does not belong here: what is answered, and which fault strikes (the host says so).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Protocol, cast

from gateway.drill import wire
from gateway.drill.encryption import EncryptedTransport
from gateway.drill.faults import Rule
from gateway.drill.plays import ACCEPT_PLAYS, PLAYS, End, Step
from gateway.drill.socket import DrillSocket

_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds
_FLUSH_POLL = 0.002  # seconds between looks at whether written bytes have left


class Host(Protocol):
    """What a connection needs of its provider."""

    tls: ssl.SSLContext | None

    def joined(self, connection: Connection) -> Rule | None: ...

    def left(self, connection: Connection) -> None: ...

    def saw_head(self, raw: bytes, head: wire.Head) -> Rule | None: ...

    def answer(self, head: wire.Head, body: bytes, peer: Callable[[], str]) -> tuple[Iterator[Step], float] | bytes:
        """What to do about one request: a play and the seconds to wait before it, or bytes to write at once."""

    def upgraded(self, connection: Connection) -> DrillSocket:
        """The connection becomes a WebSocket."""


class Connection(asyncio.Protocol):
    """See the module.  Faults on accept come before a TLS handshake."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._transport: asyncio.Transport | EncryptedTransport
        self._encrypted: EncryptedTransport | None = None
        self._pending = bytearray()  # bytes read and not yet used
        self._head: wire.Head | None = None  # of the request being read
        self._body_at = 0  # where in _pending its body starts
        self._play: Iterator[Step] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._full = False  # the caller reads slower than we write
        self._keep_alive = True
        self._ended = False  # whatever else arrives is ignored
        self._socket: DrillSocket | None = None  # what the connection has become

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = raw = cast(asyncio.Transport, transport)
        rule = self._host.joined(self)
        if self._ended:
            return
        if rule is not None:
            self._ended = True
            self._start(ACCEPT_PLAYS[rule.fault](b"", rule.amount), 0.0)
        elif self._host.tls is not None:
            self._encrypted = EncryptedTransport(raw, self._host.tls)
            self._transport = self._encrypted

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._play = None
        if self._timer is not None:
            self._timer.cancel()
        self._host.left(self)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._play is not None and self._timer is None:
            self._continue()
        self._read_requests()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        if self._encrypted is not None:
            try:
                data = self._encrypted.decrypt(data)
            except ssl.SSLError:
                self._end(End.CLOSE)
                return
        if self._socket is not None:
            self._socket.feed(data)
            return
        self._pending += data
        if len(self._pending) > 2 * wire.MAX_BODY_BYTES:
            self.reset()
        else:
            self._read_requests()

    def reset(self) -> None:
        """End the connection with RST."""
        self._ended = True
        self._play = None
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):  # the caller may be gone already
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self._transport.abort()

    def write(self, data: bytes) -> None:
        """Bytes of the WebSocket that it has become."""
        self._transport.write(data)

    def finish(self) -> None:
        """Close once everything is out."""
        self._ended = True
        self._transport.close()

    # --- reading ----------------------------------------------------------------------------------

    def _read_requests(self) -> None:
        try:
            while self._pending and self._play is None and not self._ended and not self._full:
                if self._head is None and not self._read_head():
                    return
                if not self._read_body():
                    return
        except wire.BadRequest as bad:
            text = str(bad).encode()
            self._transport.write(wire.response(bad.status, text, b"text/plain", b"Connection: close"))
            self._end(End.CLOSE)

    def _read_head(self) -> bool:
        """Read a head if it is all there.  False: nothing more to do now."""
        end = self._pending.find(b"\r\n\r\n")
        if end < 0:
            if len(self._pending) > wire.MAX_HEAD_BYTES:
                raise wire.BadRequest(431, "head too large")
            return False
        raw = bytes(self._pending[:end])
        head = wire.parse_head(raw)
        self._body_at = end + 4
        self._head = head
        rule = self._host.saw_head(raw, head)
        if rule is not None:
            self._start(PLAYS[rule.fault](b"", rule.amount), 0.0)
            return False
        if head.fields.get(b"upgrade", b"").lower() == b"websocket":
            following = bytes(self._pending[self._body_at :])
            self._pending.clear()
            self._head = None
            self._socket = self._host.upgraded(self)
            self._socket.begin(raw + b"\r\n\r\n")
            if following:
                self._socket.feed(following)
            return False
        if head.expects_continue and len(self._pending) < self._body_at + head.length:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_body(self) -> bool:
        head = self._head
        assert head is not None
        end = self._body_at + head.length
        if len(self._pending) < end:
            return False
        body = bytes(self._pending[self._body_at : end])
        del self._pending[:end]
        self._head = None
        self._keep_alive = head.keep_alive
        answer = self._host.answer(head, body, self._peer)
        if isinstance(answer, bytes):
            self._transport.write(answer)
            self._end(End.KEEP)
        else:
            self._start(*answer)
        return True

    def _peer(self) -> str:
        """The caller's address; empty when unknown."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    # --- answering --------------------------------------------------------------------------------

    def _start(self, play: Iterator[Step], delay: float) -> None:
        self._play = play
        if delay > 0:
            self._after(delay)
        else:
            self._continue()

    def _after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._continue()
        self._read_requests()

    def _continue(self) -> None:
        """Carry out steps until the play waits, or ends."""
        while self._play is not None and self._timer is None and not self._full:
            step = next(self._play, End.KEEP)
            if isinstance(step, bytes):
                self._transport.write(step)
            elif isinstance(step, End):
                self._end(step)
            else:
                self._after(step)

    def _end(self, end: End) -> None:
        if end is End.RESET and self._transport.get_write_buffer_size():
            self._play = iter((End.RESET,))  # an RST would overtake what is still to be written
            self._after(_FLUSH_POLL)
        elif end is End.RESET:
            self.reset()
        elif end is End.HANG:
            self._ended = True
            self._play = None
        elif end is End.CLOSE or not self._keep_alive:
            self._ended = True
            self._play = None
            self._transport.close()
        else:
            self._play = None

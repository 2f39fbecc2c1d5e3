"""A caller's WebSocket: frames in and out on the connection that asked to be switched.

Always true: a message reaches the handler whole, within its limit, and as valid UTF-8 if it came as
text; a caller that reads too slowly is told 1013 and dropped before more than its queue waits for it,
beside one answer that it asked for, and harms nobody else; a silent caller is pinged and then given up,
and so is one that takes nothing; no message is handed over while too much of the caller's own is under way.
The frames themselves are the library's (RFC 6455, sans-I/O), those apart that are ours (frames).
Does not belong here: JSON, routes, what a message means (stream).
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.edge.frames import binary_frame_of, frame_of
from gateway.limits import SocketLimits

CLOSE_WITHIN = 2.0  # seconds a caller has to answer a close
FLUSH_WITHIN = 5.0  # seconds a slow caller has to read what waits for it, the reason for its end included
READ_STEP = 4  # a caller is read again once its calls under way have fallen by this much
KERNEL_BUFFER = 131_072  # bytes asked of the kernel for what is sent; it takes twice that
NEVER = float("inf")

STOPPING = "the gateway is stopping"
GOING_AWAY, BAD_TEXT, POLICY, INTERNAL, RESTART, TRY_LATER = 1001, 1007, 1008, 1011, 1012, 1013

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

_silent = logging.getLogger("seawall.silent")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)  # the library's own lines would show what callers send


class Handler(Protocol):
    """What a socket hands its messages to."""

    def opened(self, socket: CallerSocket) -> None:
        """The socket is open."""

    def message(self, text: bytes) -> None:
        """One whole message."""

    def dropped(self) -> None:
        """The caller read too slowly, and is being dropped for it."""

    def closed(self) -> None:
        """The socket is gone, however it went; nothing can be sent any more."""


class Keeper(Protocol):
    """The listener, as a socket sees it: it looks at `deadline_at` now and then, and calls `expire`."""

    loop: asyncio.AbstractEventLoop


class _Frames(ServerProtocol):
    """The library's frames, but a close that comes between the fragments of a message is a close.

    It may come there as any control frame may (RFC 6455 section 5.4); the library takes it for an error (1002).
    """

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class CallerSocket(asyncio.Protocol):
    """One WebSocket.  `under_way` counts the caller's own calls; its handler moves it.

    `text`: the message at hand came as text.
    """

    __slots__ = (
        "_answer", "_decoder", "_drained", "_forget", "_handler", "_keeper", "_leaving", "_limits", "_message",
        "_paused", "_pinged", "_protocol", "_reading", "_taken", "_text", "_under_way", "_waiting", "_written",
        "closing", "deadline_at", "lost", "text", "transport",
    )  # fmt: skip

    refused = False  # what the listener asks of every connection
    exchange = None

    def __init__(
        self,
        keeper: Keeper,
        transport: asyncio.Transport,
        limits: SocketLimits,
        handler: Handler,
        forget: Callable[[CallerSocket], None],
    ) -> None:
        self._keeper = keeper
        self._limits = limits
        self._handler = handler
        self._forget = forget
        self._protocol = _Frames(
            extensions=[ServerPerMessageDeflateFactory()] if limits.compression else None,
            max_size=limits.message,
            logger=_silent,
        )
        self._message = bytearray()
        self._waiting: deque[tuple[bool, bytes]] = deque()  # messages that came while too much was under way
        self._text = False
        self.text = False
        self._decoder: codecs.IncrementalDecoder | None = None
        self._paused = False
        self._answer = 0  # bytes of the answer among what waits to be read: no fault of the caller's
        self._written = 0
        self._taken = -1  # bytes that had left us at the last look, if more waited
        self._reading = True
        self._leaving = False
        self._pinged = False
        self._drained: asyncio.Future[None] | None = None
        self._under_way = 0
        self.closing = False
        self.lost = False
        self.transport = transport
        self.deadline_at = NEVER

    def start(self, request: bytes, following: bytes) -> None:
        """Shake hands over the request head that asked for it; `following` came right behind it."""
        self._protocol.receive_data(request)
        for event in self._protocol.events_received():
            response = self._protocol.accept(event)  # type: ignore[arg-type]
            self._protocol.send_response(response)
        self._flush()
        if self._protocol.state.name != "OPEN":  # not a sound handshake; the reason has been sent
            self._part(CLOSE_WITHIN)
            return
        raw: socket.socket | None = self.transport.get_extra_info("socket")
        if raw is not None:  # else the kernel would keep megabytes for a caller that does not read
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(self._limits.queue, KERNEL_BUFFER))
        self._listen_on()
        self._handler.opened(self)
        if following:
            self.data_received(following)

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._pinged = False
        protocol = self._protocol
        if self.lost or protocol.reader.eof:
            return
        protocol.receive_data(data)
        if protocol.state is State.OPEN:
            self._flush()  # a pong does not wait for what a message behind its ping brings about
        elif self.closing:
            protocol.data_to_send()  # pongs that nobody needs any more
        for frame in protocol.events_received():
            opcode = frame.opcode  # type: ignore[union-attr]
            if opcode in _DATA and not self._frame(opcode, frame.data, frame.fin):  # type: ignore[union-attr]
                break
        self._flush()
        if self.closing:
            return
        if protocol.close_expected():
            self._part(CLOSE_WITHIN)
        elif self._paused:
            self._keeps_up()  # with the pongs to its pings, too

    def eof_received(self) -> bool:
        if not self.lost and not self._protocol.reader.eof:
            self._protocol.receive_eof()
            self._flush()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.deadline_at = NEVER
        self._waiting.clear()
        self._wake()
        self._forget(self)
        self._handler.closed()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    # --- reading ----------------------------------------------------------------------------------

    def _frame(self, opcode: Opcode, data: Any, fin: bool) -> bool:
        """One data frame.  False when the rest is not to be looked at."""
        if opcode is not Opcode.CONT:
            self._text = opcode is Opcode.TEXT
            self._decoder = codecs.getincrementaldecoder("utf-8")() if self._text and not fin else None
        if self._text:
            try:
                if self._decoder is not None:
                    self._decoder.decode(bytes(data), fin)
                else:
                    str(data, "utf-8")
            except UnicodeDecodeError:
                self._protocol.fail(BAD_TEXT, "not UTF-8")
                return False
        if opcode is not Opcode.CONT and fin:
            message = bytes(data)
        else:
            self._message += data
            if not fin:
                return True
            message = bytes(self._message)
            self._message.clear()
        if not self._reading:
            self._waiting.append((self._text, message))  # read together with what is under way: bounded by that
        elif not self.closing:
            self.text = self._text
            self._handler.message(message)
        return True

    def _catch_up(self) -> None:
        """Hand over what waits, as much as may be under way."""
        while self._waiting and self._under_way < self._limits.in_flight and not (self.closing or self._leaving):
            self.text, message = self._waiting.popleft()
            self._handler.message(message)

    @property
    def under_way(self) -> int:
        """The caller's own calls that have no answer yet; while there are too many, no more are taken."""
        return self._under_way

    @under_way.setter
    def under_way(self, count: int) -> None:
        falls, self._under_way = count < self._under_way, count
        if self.lost or self.transport.is_closing():
            return
        if self._reading and count >= self._limits.in_flight:
            self._reading = False
            self.transport.pause_reading()
        elif falls and not self._reading and count <= self._limits.in_flight - READ_STEP and not self._leaving:
            self._catch_up()
            if not self._waiting and self._under_way < self._limits.in_flight:
                self._reading = True
                self.transport.resume_reading()
                self._listen_on()

    # --- writing ----------------------------------------------------------------------------------

    @property
    def plain(self) -> bool:
        """Frames go out as `frame_of` makes them; else each must go through `send`."""
        return not self._protocol.extensions

    def send(self, text: bytes) -> None:
        """Send what the caller asked for; a socket that is closing takes nothing.

        Behind `drain` its size is not held against the caller, and it is the only one that waits to be read.
        """
        self._allow(text)
        self._send_text(text)

    def _allow(self, answer: bytes) -> None:
        if not self._paused:
            self._answer = len(answer)

    def _send_text(self, text: bytes) -> None:
        if self.closing or self.lost:
            return
        if self._protocol.extensions:
            self._protocol.send_text(text)
            self._flush()
        else:
            self._write(frame_of(text))

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self.transport.write(data)

    def relay(self, message: str | bytes) -> Coroutine[Any, Any, None] | None:
        """Send what came from elsewhere; returns what to wait for before the next, if the caller reads slowly."""
        if isinstance(message, str):
            self.send(message.encode())
        else:
            self.send_binary(message)
        return self.drain() if self._paused else None

    def relayed(self, places: int) -> None:
        """One of the caller's messages has gone on, which counted as so many."""
        self.under_way = max(0, self._under_way - places)

    def send_binary(self, data: bytes) -> None:
        """Send one binary message, as `send` does."""
        if self.closing or self.lost:
            return
        self._allow(data)
        if self._protocol.extensions:
            self._protocol.send_binary(data)
            self._flush()
        else:
            self._write(binary_frame_of(data))

    def push(self, frame: bytes) -> bool:
        """Send a frame that may be shared.  False when the caller was too slow, and is dropped for it."""
        if self.closing or self.lost:
            return False
        self._write(frame)
        return not self._paused or self._keeps_up()

    def push_text(self, text: bytes) -> bool:
        """The same for one socket's own message."""
        self._send_text(text)
        return not self._paused or self._keeps_up()

    def _keeps_up(self) -> bool:
        if self.transport.get_write_buffer_size() <= self._limits.queue + self._answer:
            return True
        self._handler.dropped()
        self.close(TRY_LATER, "too slow: events were waiting for this socket to be read")
        return False

    async def drain(self) -> None:
        """Wait until the caller has read most of what was sent."""
        while self._paused and not self.lost:
            if self._drained is None:
                self._drained = self._keeper.loop.create_future()
            await asyncio.shield(self._drained)

    def _wake(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self.lost:
                self._write(data)

    # --- endings ----------------------------------------------------------------------------------

    def close(self, code: int, reason: str) -> None:
        """Say goodbye and wait a moment for the caller's; what was sent before is still delivered."""
        if self.closing or self.lost:
            return
        if self._protocol.state.name == "OPEN":
            self._protocol.send_close(code, reason)
            self._flush()
        self._part(FLUSH_WITHIN if self._paused else CLOSE_WITHIN)

    def _part(self, within: float) -> None:
        self.closing = True
        self.deadline_at = self._keeper.loop.time() + within
        if self._protocol.eof_sent:
            self.transport.close()  # both sides have said all, or the caller cannot be talked to
        elif not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()  # its goodbye must be seen

    def _listen_on(self) -> None:
        self._pinged = False
        self.deadline_at = self._keeper.loop.time() + self._limits.ping_every

    def expire(self, now: float) -> None:
        """The deadline has passed: ping a silent caller; give up one that stayed silent or takes nothing."""
        taken = self._written - self.transport.get_write_buffer_size() if self._paused else -1
        stuck = self._paused and taken == self._taken
        self._taken = taken
        if self.closing or self._pinged or stuck:
            self.abort()
        elif not self._reading:
            self.deadline_at = now + self._limits.ping_every  # it may have spoken; we are the ones who do not listen
        else:
            self._pinged = True
            self._protocol.send_ping(b"")
            self._flush()
            self.deadline_at = now + self._limits.pong_within

    def wind_down(self) -> None:
        """The gateway stops: what is under way is answered, and no more; callers reconnect elsewhere (1001)."""
        self._leaving = True
        if not self._under_way:
            self.close(GOING_AWAY, STOPPING)
        elif self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def abort(self) -> None:
        """Cut it off."""
        self.transport.abort()

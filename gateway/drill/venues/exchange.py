"""The server of a simulated exchange: several hosts in front of one venue, and the ways in which they fail.

Always true: a request is handed to the venue exactly as it came, once, and only when it came whole; a strike is
carried out at the byte that it names; every host speaks for the same venue, so what one executed all know.
Does not belong here: what a venue answers (binance, okx, ...), orders (accounts), books (market), bytes (wire).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from websockets.frames import Opcode
from websockets.server import ServerProtocol

from gateway.clock import wall_seconds
from gateway.drill.venues.accounts import Accounts
from gateway.drill.venues.wire import Recorded, Reply, dechunked, encode

KEPT = 200_000  # requests that are remembered
TICK = 0.05  # seconds between two looks at what streams have to say
MAX_HEAD = 65_536
_RST_ON_CLOSE = struct.pack("ii", 1, 0)

_silent = logging.getLogger("seawall.silent.venues")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Strike:
    """What goes wrong with one request.

    `read`: the connection is reset once so many of its bytes were read, and it is not executed.  Else it is
    executed if `execute`; then `reply` is given instead of the venue's own; `wait` seconds pass; and the connection
    is reset once `send` bytes of the answer were written (None: all are, and it lives on).  `hang`: nothing comes.
    """

    name: str
    read: int | None = None
    execute: bool = True
    reply: Reply | None = None
    wait: float = 0.0
    send: int | None = None
    hang: bool = False


Script = Callable[[int, bytes], Strike | None]
"""Asked when the first bytes of a request have come: host number, these bytes."""

CONTROL = b"/_drill"
Control = Callable[[Recorded], Reply]
"""Answers a request under ``/_drill``, which no strike touches and no record keeps."""


class Venue(Protocol):
    """One exchange: what it answers, and what its streams say."""

    name: str
    accounts: Accounts

    def answer(self, request: Recorded, now: float) -> Reply:
        """`now` is the venue's clock in unix seconds."""

    def opened(self, session: Session) -> None:
        """A WebSocket has been opened at `session.target`."""

    def said(self, session: Session, data: str, now: float) -> None:
        """A client's message."""

    def tick(self, sessions: list[Session], now: float) -> None:
        """Time has passed: say what there is to say."""


class SimulatedExchange:
    """`hosts` loopback ports, or those of `ports`, in front of one venue.  Use it as an async context manager.

    Entering raises OSError when a port is taken.
    """

    def __init__(
        self,
        venue: Venue,
        *,
        hosts: int = 1,
        ports: Sequence[int] = (),
        clock: Callable[[], float] = wall_seconds,
    ) -> None:
        self.venue = venue
        self.clock = clock
        self.script: Script | None = None
        self.control: Control | None = None
        self.requests: deque[Recorded] = deque(maxlen=KEPT)
        self.struck: Counter[str] = Counter()
        self.sessions: list[Session] = []
        self.ports = list(ports) or [0] * hosts
        self.down = [False] * len(self.ports)
        self._listening: list[socket.socket | None] = [None] * len(self.ports)
        self._connecting: set[asyncio.Future[Any]] = set()
        self._links: set[_Link] = set()
        self._ticker: asyncio.Task[None] | None = None

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    @property
    def ws_urls(self) -> list[str]:
        return [f"ws://127.0.0.1:{port}" for port in self.ports]

    async def __aenter__(self) -> SimulatedExchange:
        try:
            for host in range(len(self.ports)):
                self.open(host)
        except OSError:
            for host in range(len(self.ports)):
                self.kill(host)
            raise
        self._ticker = asyncio.ensure_future(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        for host in range(len(self.ports)):
            self.kill(host)
        await asyncio.gather(*self._connecting, return_exceptions=True)
        while self._links:
            for link in list(self._links):
                link.transport.abort()
            await asyncio.sleep(0.001)

    def open(self, host: int) -> None:
        """Listen, on the port it had before; harmless while it does.  Raises OSError when the port is taken."""
        if self._listening[host] is not None:
            return
        try:
            listening = socket.create_server(("127.0.0.1", self.ports[host]), backlog=1024, reuse_port=False)
        except OSError as problem:
            where = f"simulated exchange {self.venue.name} cannot listen on 127.0.0.1:{self.ports[host]}"
            raise OSError(problem.errno, f"{where}: {os.strerror(problem.errno or 0)}") from None
        listening.setblocking(False)
        self.ports[host] = listening.getsockname()[1]
        self.down[host] = False
        self._listening[host] = listening
        asyncio.get_running_loop().add_reader(listening, self._accept, host, listening)

    def _accept(self, host: int, listening: socket.socket) -> None:
        """asyncio's own servers lose what they have accepted while they are being closed."""
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = listening.accept()
                accepted.setblocking(False)
                connected = asyncio.get_running_loop().connect_accepted_socket(lambda: _Link(self, host), accepted)
                task = asyncio.ensure_future(connected)
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)

    def kill(self, host: int) -> None:
        """Refuse connections and cut those that are open."""
        listening = self._listening[host]
        if listening is not None:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._listening[host] = None
        self.down[host] = True
        for link in [link for link in self._links if link.host == host]:
            link.reset()

    def cut_streams(self, host: int | None = None) -> int:
        """Reset every WebSocket; returns how many."""
        cut = [session for session in self.sessions if host is None or session.host == host]
        for session in cut:
            session.reset()
        return len(cut)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.venue.tick([session for session in self.sessions if not session.silent], self.clock())


class Session:
    """One open WebSocket.  `topics` and `state` belong to the venue."""

    def __init__(self, link: _Link, request: Recorded) -> None:
        self.host = link.host
        self.target = request.target.decode("latin-1")
        self.request = request
        self.topics: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self.silent = False
        self._link = link
        self._protocol = ServerProtocol(max_size=None, logger=_silent)

    def begin(self, head: bytes) -> None:
        self._protocol.receive_data(head)
        for event in self._protocol.events_received():
            self._protocol.send_response(self._protocol.accept(event))  # type: ignore[arg-type]
        self._flush()

    def feed(self, data: bytes) -> list[str]:
        """Messages that came."""
        self._protocol.receive_data(data)
        came = [
            bytes(frame.data).decode("utf-8", "replace")  # type: ignore[union-attr]
            for frame in self._protocol.events_received()
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY)  # type: ignore[union-attr]
        ]
        self._flush()
        if self._protocol.close_expected():
            self._link.transport.close()
        return came

    def send(self, text: str) -> None:
        if not self._link.gone:
            self._protocol.send_text(text.encode())
            self._flush()

    def close(self, code: int, reason: str = "") -> None:
        if not self._link.gone:
            self._protocol.send_close(code, reason)
            self._flush()

    def reset(self) -> None:
        self._link.reset()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and not self._link.gone:
                self._link.transport.write(data)


class _Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, exchange: SimulatedExchange, host: int) -> None:
        self.exchange = exchange
        self.host = host
        self.gone = False
        self.transport: asyncio.Transport
        self._pending = bytearray()
        self._strike: Strike | None = None
        self._asked = False
        self._busy = False
        self._session: Session | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.exchange._links.add(self)
        if self.exchange.down[self.host]:
            self.reset()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.exchange._links.discard(self)
        if self._session in self.exchange.sessions:
            self.exchange.sessions.remove(self._session)

    def data_received(self, data: bytes) -> None:
        if self._session is not None:
            for message in self._session.feed(data):
                self.exchange.venue.said(self._session, message, self.exchange.clock())
            return
        self._pending += data
        self._read()

    def reset(self) -> None:
        """End with a real RST."""
        if self.gone:
            return
        self.gone = True
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self.transport.abort()

    def _read(self) -> None:
        while self._pending and not self._busy and not self.gone:
            if not self._asked:
                self._asked = True
                self._strike = self._struck(bytes(self._pending[:512]))
            strike = self._strike
            if strike is not None and strike.read is not None and len(self._pending) >= strike.read:
                self.reset()
                return
            end = self._pending.find(b"\r\n\r\n")
            if end < 0:
                if len(self._pending) > MAX_HEAD:
                    self.reset()
                return
            request = self._request(end)
            if request is None:
                return
            self._asked = False
            control = self.exchange.control
            if control is not None and request.target.startswith(CONTROL):
                self._write(encode(control(request), request.verb))
                continue
            self.exchange.requests.append(request)
            if request.header(b"upgrade") is not None:
                self._upgrade(request)
                return
            self._answer(request, strike)

    def _struck(self, begins: bytes) -> Strike | None:
        """What goes wrong with the request that begins so."""
        exchange = self.exchange
        if exchange.script is None:
            return None
        if exchange.control is not None and begins.partition(b" ")[2].startswith(CONTROL):
            return None
        strike = exchange.script(self.host, begins)
        if strike is not None:
            exchange.struck[strike.name] += 1
        return strike

    def _request(self, end: int) -> Recorded | None:
        """The request, once its body is there."""
        lines = bytes(self._pending[:end]).split(b"\r\n")
        fields = []
        size, chunked = 0, False
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            value = value.strip()
            fields.append((name, value))
            key = name.lower()
            if key == b"content-length":
                size = int(value)
            elif key == b"transfer-encoding":
                chunked = value.lower() == b"chunked"
        at = end + 4
        if chunked:
            found = dechunked(self._pending, at)
            if found is None:
                return None
            body, done = found
        else:
            if len(self._pending) < at + size:
                return None
            body, done = bytes(self._pending[at : at + size]), at + size
        del self._pending[:done]
        verb, _, rest = lines[0].partition(b" ")
        return Recorded(
            self.host, verb.decode("latin-1"), rest.rpartition(b" ")[0], tuple(fields), body, self.exchange.clock()
        )

    def _answer(self, request: Recorded, strike: Strike | None) -> None:
        exchange = self.exchange
        if strike is None:
            self._write(encode(exchange.venue.answer(request, exchange.clock()), request.verb))
            return
        reply = exchange.venue.answer(request, exchange.clock()) if strike.execute else Reply(500, b"")
        if strike.hang:
            self._busy = True
            return
        data = encode(strike.reply if strike.reply is not None else reply, request.verb)
        if strike.wait:
            self._busy = True
            asyncio.get_running_loop().call_later(strike.wait, self._late, data, strike)
        else:
            self._finish(data, strike)

    def _late(self, data: bytes, strike: Strike) -> None:
        self._busy = False
        if not self.gone:
            self._finish(data, strike)
            self._read()

    def _finish(self, data: bytes, strike: Strike) -> None:
        if strike.send is None:
            self._write(data)
            return
        self._busy = True
        if strike.send:
            self.transport.write(data[: strike.send])
        self._reset_when_out()

    def _reset_when_out(self) -> None:
        if self.gone:
            return
        if self.transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(0.001, self._reset_when_out)
        else:
            self.reset()

    def _write(self, data: bytes) -> None:
        if not self.gone:
            self.transport.write(data)

    def _upgrade(self, request: Recorded) -> None:
        following = bytes(self._pending)
        self._pending.clear()
        session = self._session = Session(self, request)
        lines = [b"%b %b HTTP/1.1\r\n" % (request.verb.encode(), request.target)]
        lines += [b"%b: %b\r\n" % field for field in request.headers]
        session.begin(b"".join(lines) + b"\r\n")
        self.exchange.sessions.append(session)
        self.exchange.venue.opened(session)
        if following:
            self.data_received(following)

"""A simulated provider: one node of a simulated chain behind a real HTTP/1.1 listener.

Always true: what a test asserts about is recorded when a request has been read in full, before any
fault touches the answer; a connection answers its requests one at a time, in order; after `stop`
there is no listener, connection, task or timer left.
Does not belong here: what an answer says (node), when a fault strikes (faults) and how it looks (plays).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl as ssl_module
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gateway.clock import Clock, monotonic
from gateway.drill import wire
from gateway.drill.chain import Liar, Refused, SimulatedChain
from gateway.drill.connection import Connection
from gateway.drill.faults import Fault, Rule, Script, Stage
from gateway.drill.node import MAX_LOG_RANGE_BLOCKS, MAX_LOG_RESULTS, METHODS, HugeLogs, View, family_of, perform
from gateway.drill.plays import PLAYS, REPLIES, REPLY_STATUS, End, Step
from gateway.drill.socket import DrillSocket, SocketFault
from gateway.model import Family

MAX_RECORDED = 10_000
BACKLOG = 1024
PUSH_EVERY = 0.01  # seconds between two looks at whether there is a new block
_HUGE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Received(NamedTuple):
    """One JSON-RPC request as it came: `id` (None: a notification) and `params` are raw bytes."""

    method: str
    id: bytes | None
    params: bytes


Control = Callable[["SimulatedProvider", wire.Head, bytes, str], bytes]
"""Answers a request under ``/_drill``, from its body and the caller's address, with a whole HTTP response."""


class SimulatedProvider:
    """A provider that behaves like a real node until its script says otherwise.

    `requests` holds the last 10,000 requests; `calls` counts them per method (``other``: not served);
    `connections_total` and `connections_open` count connections.  `latency` (seconds) is added to
    every answer.  `huge_bytes` is the size of the answer to a `HUGE_LOGS` query.  `clock` is what
    the chain and the script's windows follow; pauses inside an answer follow the event loop.
    """

    def __init__(
        self,
        name: str,
        chain: SimulatedChain,
        *,
        script: Script | None = None,
        client_version: str = "Simulated/v1.0.0",
        clock: Clock = monotonic,
        ssl: ssl_module.SSLContext | None = None,
        latency: float = 0.0,
        huge_bytes: int = 8_000_000,
        control: Control | None = None,
    ) -> None:
        self.name = name
        self.chain = chain
        self.script = Script() if script is None else script
        self.client_version = client_version
        self.latency = latency
        self.huge_bytes = huge_bytes
        self.control = control
        self._liar = Liar(chain)
        self.max_log_range, self.max_log_results = MAX_LOG_RANGE_BLOCKS, MAX_LOG_RESULTS
        self.rate_limit = 0.0  # calls a second that it takes; 0: as many as come
        self._tokens = 0.0
        self._tokens_at = 0.0
        self.requests: deque[Received] = deque(maxlen=MAX_RECORDED)
        self.calls: Counter[str] = Counter()
        self.http_requests = 0
        self.refused_as_too_many = 0
        self.last_head = b""  # the newest request's head, byte for byte
        self.connections_total = 0
        self._clock = clock
        self.tls = ssl
        self._host = "127.0.0.1"
        self._port = 0
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._shut: socket.socket | None = None  # keeps the port ours while nothing listens on it
        self._refusing = False
        self._doorkeeper: asyncio.Task[None] | None = None
        self._sockets: dict[Connection, DrillSocket] = {}
        self._pusher: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)

    @property
    def sockets(self) -> list[DrillSocket]:
        """The WebSockets that are open."""
        return [socket for socket in self._sockets.values() if socket.open]

    @property
    def connections_open(self) -> int:
        return len(self._connections)

    @property
    def port(self) -> int:
        """The listening port: fixed from the first `start` on, so that a restart is at the same address."""
        return self._port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self._port}"

    @property
    def running(self) -> bool:
        return self._doorkeeper is not None

    def now(self) -> float:
        """The present instant on this provider's clock, in seconds."""
        return self._clock()

    # --- life -------------------------------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen.  Port 0 takes a free one the first time, and the same one again after a stop.

        Raises OSError when the address is taken, RuntimeError when already running.
        """
        if self.running:
            raise RuntimeError(f"provider {self.name} is already running")
        self._host, self._port = host, port or self._port
        self._shut = self._bind()
        self._port = self._shut.getsockname()[1]
        self._door_bell = asyncio.Event()
        self._door_lock = asyncio.Lock()
        self._all_left = asyncio.Event()
        self.script.begin(self._clock)
        self.script.watch(self._ring)
        self._doorkeeper = asyncio.get_running_loop().create_task(self._keep_door(), name=f"door of {self.name}")
        try:
            await self._mind_door()
        except BaseException:  # cancelled: nobody else would stop what has begun
            await self.stop()
            raise

    async def stop(self) -> None:
        """Refuse connections and reset the open ones, as when the machine dies.  Harmless when stopped."""
        if self._doorkeeper is None:
            return
        doorkeeper, self._doorkeeper = self._doorkeeper, None
        pusher, self._pusher = self._pusher, None
        ended = [task for task in (doorkeeper, pusher) if task is not None]
        for task in ended:
            task.cancel()
        await asyncio.wait(ended)
        self.script.unwatch(self._ring)
        async with self._door_lock:
            self._close_door()
            if self._shut is not None:
                self._shut.close()
                self._shut = None
        if self._connections:
            self._all_left.clear()
            await self._all_left.wait()

    async def __aenter__(self) -> SimulatedProvider:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def refuse(self, lasting: float | None = None) -> None:
        """Close the listener (for `lasting` seconds) and reset open connections; returns once that is done."""
        self.script.set(Fault.REFUSE, lasting=lasting)
        if self.running:
            await self._mind_door()

    async def accept(self) -> None:
        """End REFUSE; returns once the listener is open again, at the same port."""
        self.script.clear(Fault.REFUSE)
        if self.running:
            await self._mind_door()

    def _ring(self) -> None:
        self._door_bell.set()

    async def _keep_door(self) -> None:
        while True:
            self._door_bell.clear()
            minded_at = await self._mind_door()
            # Counted from then, not from now: a window that ended in between would never be noticed.
            wait_for = self.script.door_changes_after(minded_at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_for):  # wait_for() of Python 3.11 can swallow the cancellation by stop
                    await self._door_bell.wait()

    async def _mind_door(self) -> float:
        """Open or close the listener as the script says; returns the instant for which that is right."""
        async with self._door_lock:
            now = self._clock()
            if self.script.refusing(now):
                self._close_door()
                if self._shut is None:
                    self._shut = self._bind()  # bound, not listening: callers are refused, the port stays ours
                if not self._refusing:
                    self.script.door_closed()
                self._refusing = True
            elif self._server is None:
                self._refusing = False
                bound, self._shut = self._shut or self._bind(), None
                loop = asyncio.get_running_loop()
                # Two steps: a cancellation inside create_server would lose a server that already listens.
                self._server = await loop.create_server(
                    lambda: Connection(self), sock=bound, backlog=BACKLOG, start_serving=False
                )
                await self._server.start_serving()
            return now

    def _close_door(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.reset()

    def _bind(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET6 if ":" in self._host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setblocking(False)
            bound.bind((self._host, self._port))
        except OSError:
            bound.close()
            raise
        return bound

    # --- connections ------------------------------------------------------------------------------

    def joined(self, connection: Connection) -> Rule | None:
        """A connection was opened; the fault that strikes it, if any."""
        self._connections.add(connection)
        self.connections_total += 1
        if self._server is None:  # accepted in the moment in which the listener closed
            connection.reset()
            return None
        return self.script.strike(Stage.ACCEPT, self._clock()) if self.script.armed else None

    def left(self, connection: Connection) -> None:
        self._sockets.pop(connection, None)
        self._connections.discard(connection)
        if not self._connections:
            self._all_left.set()

    def saw_head(self, raw: bytes, head: wire.Head) -> Rule | None:
        """A request's head is read; the fault that strikes before its body is, if any."""
        self.last_head = raw
        if not self.script.armed or (self.control is not None and _is_control(head)):
            return None
        return self.script.strike(Stage.HEAD, self._clock())

    # --- sockets ----------------------------------------------------------------------------------

    def upgraded(self, connection: Connection) -> DrillSocket:
        """A connection asked to become a WebSocket."""
        made = self._sockets[connection] = DrillSocket(self, connection, lambda: f"0x{self.name}{next(self._ids):x}")
        if self._pusher is None:
            self._pusher = asyncio.get_running_loop().create_task(self._push(), name=f"pushes of {self.name}")
        return made

    def strike_sockets(self, fault: SocketFault, amount: float = 1.0) -> None:
        """Let this go wrong with all sockets that are open."""
        for each in self.sockets:
            each.strike(fault, amount)

    def heal_sockets(self) -> None:
        """All is well again with all sockets."""
        for each in self.sockets:
            each.heal()

    def seen(self, now: float) -> tuple[SimulatedChain, float]:
        """The chain as this provider sees it, and as of when."""
        rule = self.script.strike(Stage.VIEW, now, [("eth_subscribe", Family.HEAD)]) if self.script.armed else None
        view = self._view(now, rule)
        return view.chain, view.now

    def answer_calls(self, calls: list[wire.WireCall], batch: bool) -> bytes:
        """The answer to what came over a WebSocket."""
        for call in calls:
            self.calls[call.method if call.method in METHODS else "other"] += 1
        reply = self._reply(calls, batch, self._view(self._clock(), None), None)
        return reply if isinstance(reply, bytes) else wire.error_body(reply[0], -32003, "response too large")

    async def _push(self) -> None:
        while True:
            await asyncio.sleep(PUSH_EVERY)
            now = self._clock()
            for each in self.sockets:
                each.look(now)

    # --- requests ---------------------------------------------------------------------------------

    def answer(self, head: wire.Head, body: bytes, peer: Callable[[], str]) -> tuple[Iterator[Step], float] | bytes:
        """What to do about one request: a play and the seconds to wait before it, or bytes to write at once."""
        if self.control is not None and _is_control(head):
            return self.control(self, head, body, peer())
        self.http_requests += 1
        if head.verb != "POST":
            return wire.response(405, b"", b"text/plain", b"Allow: POST")
        try:
            calls, batch = wire.parse_body(body)
        except Refused as refused:
            return wire.response(200, wire.error_body(b"null", refused.code, refused.message))
        for call in calls:
            if call.refused is None:
                self.requests.append(Received(call.method, call.id, call.raw_params))
                self.calls[call.method if call.method in METHODS else "other"] += 1
        if self.rate_limit and not self._within_rate(len(calls)):
            self.refused_as_too_many += 1
            return wire.response(429, b"", b"text/plain")
        if self.script.armed:
            return self._answer_by_script(calls, batch)
        now = self._clock()
        reply = self._reply(calls, batch, self._view(now, None), None)
        if isinstance(reply, bytes) and not self.latency:
            return wire.response(200, reply)
        return _soundly(reply), self.latency

    def _within_rate(self, count: int) -> bool:
        """A token bucket of one second's worth, as vendors have it."""
        now = self._clock()
        self._tokens = min(self.rate_limit, self._tokens + (now - self._tokens_at) * self.rate_limit)
        self._tokens_at = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def _answer_by_script(self, calls: list[wire.WireCall], batch: bool) -> tuple[Iterator[Step], float]:
        now = self._clock()
        meant = [(call.method, family_of(call.method)) for call in calls]
        delaying = self.script.strike(Stage.DELAY, now, meant)
        delay = self.latency + (delaying.amount if delaying else 0.0)
        viewing = self.script.strike(Stage.VIEW, now, meant)
        view = self._view(now, viewing)
        spoiling = self.script.strike(Stage.ANSWER, now, meant)
        if spoiling is None:
            return _soundly(self._reply(calls, batch, view, None)), delay
        if spoiling.fault in REPLIES:
            status = REPLY_STATUS.get(spoiling.fault, 200)
            return _soundly(self._reply(calls, batch, view, spoiling), status), delay
        body = b""
        if spoiling.fault.performs:
            reply = self._reply(calls, batch, view, None)
            body = reply if isinstance(reply, bytes) else b"".join(_huge_body(*reply))
        return PLAYS[spoiling.fault](body, spoiling.amount), delay

    def _view(self, now: float, rule: Rule | None) -> View:
        chain, as_of, lowest = self.chain, now, 0
        fault = rule.fault if rule is not None else None
        amount = rule.amount if rule is not None else 0.0
        opened = min(now, rule.window()[0]) if rule is not None else now
        if fault is Fault.WRONG_CHAIN_ID:
            chain = chain.sibling(int(amount))
        elif fault is Fault.LAGGING or (fault is Fault.HEAD_STEPS_BACK and rule is not None and rule.matched % 2):
            as_of = now - amount * chain.block_time
        elif fault is Fault.HEAD_JUMP:
            as_of = now + amount * chain.block_time
        elif fault is Fault.FORKED:
            chain = chain.branch(chain.head(opened) - int(amount))
        elif fault is Fault.PRUNED:
            lowest = max(0, chain.head(now) - int(amount))
        elif fault is Fault.LYING:
            chain = self._liar
        elif fault is Fault.STALE_HEAD:  # frozen as of when its window opened
            as_of = opened - amount * chain.block_time
        return View(
            chain,
            as_of,
            now,
            self.name,
            self.client_version,
            self.huge_bytes,
            lowest,
            fault is Fault.EMPTY_LOGS,
            self.max_log_range,
            self.max_log_results,
            fault is Fault.MISNUMBERED_LOGS,
        )

    def _reply(
        self, calls: list[wire.WireCall], batch: bool, view: View, spoiling: Rule | None
    ) -> bytes | tuple[bytes, HugeLogs]:
        """The JSON body for all calls; or, for one that is answered with a stream, its id and the stream."""
        bodies = []
        for call in calls:
            spoilt = spoiling is not None and spoiling.covers(call.method, family_of(call.method))
            sound: bytes | tuple[bytes, HugeLogs] = b""
            if not spoilt or (spoiling is not None and spoiling.fault.performs):
                sound = self._perform(call, view)
            if isinstance(sound, tuple):
                if not batch and not spoilt:
                    return sound
                sound = wire.error_body(sound[0], -32003, "response too large")
            if call.id is not None:
                spoilt_body = REPLIES[spoiling.fault](call.id, sound) if spoiling is not None and spoilt else sound
                bodies.append(spoilt_body)
        if not batch or not bodies:
            return bodies[0] if bodies else b""
        return b"[" + b",".join(bodies) + b"]"

    def _perform(self, call: wire.WireCall, view: View) -> bytes | tuple[bytes, HugeLogs]:
        raw_id = b"null" if call.id is None else call.id
        try:
            if call.refused is not None:
                raise call.refused
            result = perform(view, call.method, call.params)
        except Refused as refused:
            return wire.error_body(raw_id, refused.code, refused.message, refused.data)
        if isinstance(result, HugeLogs):
            return raw_id, result
        return wire.result_body(raw_id, result)


def _is_control(head: wire.Head) -> bool:
    return head.path == "/_drill" or head.path.startswith("/_drill/")


def _soundly(reply: bytes | tuple[bytes, HugeLogs], status: int = 200) -> Iterator[Step]:
    """The play without a fault."""
    if isinstance(reply, bytes):
        yield wire.response(status, reply)
    else:
        yield _HUGE_HEAD
        for piece in _huge_body(*reply):
            yield b"%x\r\n%s\r\n" % (len(piece), piece)
        yield b"0\r\n\r\n"
    yield End.KEEP


def _huge_body(raw_id: bytes, huge: HugeLogs) -> Iterator[bytes]:
    yield b'{"jsonrpc":"2.0","id":%s,"result":' % raw_id
    yield from huge.pieces()
    yield b"}"

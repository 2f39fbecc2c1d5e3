"""Streams of an exchange: which host a WebSocket goes to, and the sockets that belong to one caller alone.

Always true: only hosts of the route are dialled; a host that just failed is left alone for a while that grows, and
another one serves meanwhile; what passes is not changed and is kept in order; neither side is read faster than the
other takes it; a stream that was lost is never made again for a caller behind its back, because what it was logged
in as, and what it missed, only the caller knows.
Does not belong here: frames of callers (edge/venue_socket), subscriptions that callers share (venue_topics).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from gateway.clock import Clock
from gateway.limits import FeedSettings
from gateway.policy.holds import GrowingHold
from gateway.upstream.resolver import Resolver
from gateway.upstream.socket_client import Connection, ConnectionClosed
from gateway.upstream.sockets import ConnectBudget, SocketTarget, dial_target, word_for

FIRST_HOLD, LONGEST_HOLD = 1.0, 60.0  # seconds in which a host that failed is left alone
RESTART, GOING_AWAY, TRY_LATER = 1012, 1001, 1013
NOT_PASSED_ON = frozenset({1005, 1006, 1015})  # codes that no side may send
PIECE = 65_536  # bytes of a caller's message that count like one message more, while it waits
REFUSED_TO_A_CALLER = frozenset(f"http_{status}" for status in (400, 401, 404, 405, 414, 431))
"""What a host says to a caller's own handshake about that caller, and to any other as well."""


@dataclass(slots=True)
class StreamHost:
    """One host of WebSockets.  `names` are those by which callers behind ``/via/`` may mean it."""

    id: str
    target: SocketTarget
    paths: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    domains: tuple[tuple[str, str], ...] = ()
    hold: GrowingHold = field(default_factory=lambda: GrowingHold(FIRST_HOLD, LONGEST_HOLD))
    open: int = 0
    failed_at: float = 0.0
    last_failure: str = ""

    def serves(self, path: str) -> bool:
        """It has something at that path."""
        return not self.paths or any(_below(path, prefix) for prefix in self.paths)

    def keeps(self, path: str) -> bool:
        """What is at that path belongs to one caller."""
        return any(_below(path, prefix) for prefix in self.private)


class NoStream(Exception):
    """No host gave a stream.  `why` is a closed word."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class VenueStreams:
    """The stream hosts of one venue."""

    def __init__(
        self,
        hosts: Sequence[StreamHost],
        resolver: Resolver,
        connects: ConnectBudget,
        clock: Clock,
        chance: Random,
        settings: FeedSettings,
    ) -> None:
        self.hosts = list(hosts)
        self.settings = settings
        self.connects = 0
        self.failures = 0
        self.lost = 0
        self.passing = 0  # callers' own streams that are open
        self._resolver = resolver
        self._budget = connects
        self._budget_of_callers = ConnectBudget(clock)  # who opens and closes streams makes no feed wait
        self._clock = clock
        self._chance = chance
        self._closing: set[asyncio.Future[None]] = set()

    def candidates(self, path: str, name: str = "", apart: StreamHost | None = None) -> list[StreamHost]:
        """Who may serve a path, the best first: named, not held, elsewhere than `apart`, least used, longest well."""
        now = self._clock()
        fit = [host for host in self.hosts if host.serves(path)]
        if name and any(name in host.names for host in fit):
            means = next(host for host in fit if name in host.names)
            fit = [host for host in fit if host.private == means.private and host.paths == means.paths]

        def cost(host: StreamHost) -> tuple[bool, bool, int, float]:
            same = apart is not None and (host is apart or any(pair in apart.domains for pair in host.domains))
            return now < host.hold.until, same, host.open, host.failed_at

        return sorted(fit, key=cost)

    async def connect(
        self,
        target: str,
        headers: Sequence[tuple[str, str]],
        name: str = "",
        apart: StreamHost | None = None,
        *,
        for_caller: bool = False,
    ) -> tuple[StreamHost, Connection]:
        """A stream at `target` (path and query), from the first host that gives one.  Raises NoStream.

        `for_caller`: target and headers are a caller's, and so is the blame when a host does not like them.
        """
        path = target.partition("?")[0]
        why = "no_host"
        until = self._clock() + self.settings.open_within
        for host in self.candidates(path, name, apart):
            left = until - self._clock()
            if left <= 0:
                break
            await (self._budget_of_callers if for_caller else self._budget).take()
            try:
                async with asyncio.timeout(left):
                    connection = await dial_target(host.target.below(target, headers), self._resolver, self.settings)
            except Exception as error:
                why = word_for(error)
                if for_caller and why in REFUSED_TO_A_CALLER:
                    break
                self._failed(host, why)
                continue
            self.connects += 1
            host.open += 1
            host.hold.worked(self._clock())
            return host, connection
        raise NoStream(why)

    def parted(self, host: StreamHost, why: str) -> None:
        """A stream of that host is over; `why` empty: as it was meant to."""
        host.open -= 1
        if why:
            self.lost += 1
            self._failed(host, why)

    def shut(self, connection: Connection) -> None:
        """Say goodbye, without waiting for the answer."""
        closing = asyncio.ensure_future(connection.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _failed(self, host: StreamHost, why: str) -> None:
        self.failures += 1
        host.last_failure, host.failed_at = why, self._clock()
        host.hold.extend(self._clock(), self._chance.random())

    def snapshot(self) -> dict[str, object]:
        """For the status page."""
        now = self._clock()
        return {
            "open": sum(host.open for host in self.hosts),
            "connects": self.connects,
            "failures": self.failures,
            "lost": self.lost,
            "hosts": {
                host.id: {
                    "open": host.open,
                    "held_for": round(max(0.0, host.hold.until - now), 3),
                    "last_failure": host.last_failure or None,
                }
                for host in self.hosts
            },
        }


class PassThrough:
    """One caller's own stream: what comes goes out on the other side."""

    def __init__(self, streams: VenueStreams) -> None:
        self._streams = streams
        self._waiting: asyncio.Queue[tuple[str | bytes, int]] = asyncio.Queue()

    def put(self, message: str | bytes) -> int:
        """A message of the caller's; returns how many it counts as until it has left: large ones are several."""
        places = 1 + len(message) // PIECE
        self._waiting.put_nowait((message, places))
        return places

    async def run(
        self,
        target: str,
        headers: Sequence[tuple[str, str]],
        name: str,
        deliver: Callable[[str | bytes], Awaitable[None] | None],
        taken: Callable[[int], None],
    ) -> tuple[int, str]:
        """Carry both ways until one side ends; returns the close code and reason for the caller.

        `deliver` gives the caller a message and may return what to wait for before the next one; `taken` is told
        of each message of the caller's that has left, by what `put` said of it.
        """
        streams = self._streams
        try:
            host, connection = await streams.connect(target, headers, name, for_caller=True)
        except NoStream as none:
            return TRY_LATER, f"no host of the exchange gave a stream ({none.why}); try again"
        streams.passing += 1
        sending = asyncio.ensure_future(self._send(connection, taken))
        why = "cancelled"
        try:
            while True:
                message = await connection.recv()
                wait = deliver(message)
                if wait is not None:
                    await wait
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd is not None else 1006
            reason = closed.rcvd.reason if closed.rcvd is not None else ""
            why = "" if code in (1000, 1001, 1012) or code >= 4000 else f"closed_{code}"
            if code in NOT_PASSED_ON or closed.rcvd is None:
                return RESTART, "the exchange's stream was lost: connect again and take a new snapshot"
            return code, reason
        except asyncio.CancelledError:
            why = ""
            raise
        finally:
            sending.cancel()
            streams.passing -= 1
            streams.parted(host, why)
            streams.shut(connection)

    async def _send(self, connection: Connection, taken: Callable[[int], None]) -> None:
        try:
            while True:
                message, places = await self._waiting.get()
                await connection.send(message)
                taken(places)
        except ConnectionClosed:
            return  # the reading side tells


def _below(path: str, prefix: str) -> bool:
    """A path at or below a prefix: ``/ws`` covers ``/ws`` and ``/ws/btcusdt@trade``, not ``/ws-api``."""
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else prefix + "/")

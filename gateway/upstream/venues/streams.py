"""Streams of an exchange: which host a WebSocket goes to, and the sockets that belong to one caller alone.

Always true: only hosts of the route are dialled; a host that just failed is left alone for a while that grows, and
another one serves meanwhile; what passes is not changed and is kept in order; neither side is read faster than the
other takes it; a stream that was lost is never made again for a caller behind its back, because what it was logged
in as, and what it missed, only the caller knows.
Does not belong here: frames of callers (edge/venue_socket), subscriptions that callers share (venues/topics).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from gateway.clock import Clock
from gateway.dialect.venue_facts import Rate
from gateway.limits import FeedSettings
from gateway.policy.budget import TokenBucket
from gateway.policy.holds import GrowingHold
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.socket_client import Connection, ConnectionClosed
from gateway.upstream.wire.sockets import ConnectBudget, SocketTarget, dial_target, word_for

FIRST_HOLD, LONGEST_HOLD = 1.0, 60.0  # seconds in which a host that failed is left alone
RESTART, GOING_AWAY, TRY_LATER = 1012, 1001, 1013
NOT_PASSED_ON = frozenset({1005, 1006, 1015})  # codes that no side may send
KEPT_FOR_LINES = 0.2  # share of the turns to connect that callers' own streams leave to lines that many share
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
    speaks: str = ""
    domains: tuple[tuple[str, str], ...] = ()
    hold: GrowingHold = field(default_factory=lambda: GrowingHold(FIRST_HOLD, LONGEST_HOLD))
    open: int = 0
    failed_at: float = 0.0
    last_failure: str = ""

    @property
    def kind(self) -> tuple[object, ...]:
        """Hosts of one kind stand in for each other."""
        return (self.paths or ("/",), self.private, self.speaks)

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


def bucket_for(rate: Rate, now: float) -> TokenBucket:
    """Turns of which no window has more than `rate` allows: half saved up, half coming in."""
    return TokenBucket(0.5 * rate.amount / rate.window, max(1.0, 0.5 * rate.amount), now)


class VenueStreams:
    """The stream hosts of one venue.

    `connect_rate` is how often the venue lets one address connect, `most_open` how many it may have open.
    """

    def __init__(
        self,
        hosts: Sequence[StreamHost],
        resolver: Resolver,
        connects: ConnectBudget,
        clock: Clock,
        chance: Random,
        settings: FeedSettings,
        connect_rate: Rate | None = None,
        most_open: int | None = None,
    ) -> None:
        self.hosts = list(hosts)
        self.settings = settings
        self.connects = 0
        self.failures = 0
        self.lost = 0
        self._resolver = resolver
        self._budget = connects
        self._budget_of_callers = ConnectBudget(clock)  # who opens and closes streams makes no feed wait
        self._clock = clock
        self._chance = chance
        self._turns = bucket_for(connect_rate, clock()) if connect_rate is not None else None
        self._most_open = most_open
        self._connecting = 0
        self._closing: set[asyncio.Future[None]] = set()

    def candidates(self, path: str, name: str = "", apart: StreamHost | None = None) -> list[StreamHost]:
        """Who may serve a path, the best first: not held, elsewhere than `apart`, least used, longest well."""
        now = self._clock()

        def cost(host: StreamHost) -> tuple[bool, bool, int, float]:
            same = apart is not None and (host is apart or any(pair in apart.domains for pair in host.domains))
            return now < host.hold.until, same, host.open, host.failed_at

        return sorted(self.meant(path, name), key=cost)

    def meant(self, target: str, name: str = "") -> list[StreamHost]:
        """The hosts that stand in for each other at a path (or target).

        Where hosts of several kinds have it, the one that is named decides which kind is meant, or the first.
        """
        path = target.partition("?")[0]
        fit = [host for host in self.hosts if host.serves(path)]
        if not fit:
            return []
        kind = next((host for host in fit if name in host.names), fit[0]).kind
        return [host for host in fit if host.kind == kind]

    def spoken(self, target: str, name: str = "") -> str | None:
        """What is spoken at a target that belongs to nobody; None: it is one caller's own, or nobody's at all."""
        hosts = self.meant(target, name)
        if not hosts or any(host.keeps(target.partition("?")[0]) for host in hosts):
            return None
        return hosts[0].speaks

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
        if self._most_open is not None and self.open + self._connecting >= self._most_open:
            raise NoStream("too_many_open")
        self._connecting += 1
        try:
            return await self._connect(
                target, headers, self.candidates(target.partition("?")[0], name, apart), for_caller
            )
        finally:
            self._connecting -= 1

    async def _connect(
        self, target: str, headers: Sequence[tuple[str, str]], candidates: list[StreamHost], for_caller: bool
    ) -> tuple[StreamHost, Connection]:
        why = "no_host"
        until = self._clock() + self.settings.open_within
        for number, host in enumerate(candidates):
            left = until - self._clock()
            if not await self._turn(left, for_caller):
                raise NoStream("connects_too_often")
            try:
                async with asyncio.timeout(left / (len(candidates) - number)):  # who hangs leaves time for the others
                    await (self._budget_of_callers if for_caller else self._budget).take()
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

    async def _turn(self, within: float, for_caller: bool) -> bool:
        """Wait for a turn to connect; False: there is none in time.  Callers leave some to the shared lines."""
        turns, until = self._turns, self._clock() + within
        if turns is None:
            return within > 0
        needed = min(turns.burst, 1.0 + (KEPT_FOR_LINES * turns.burst if for_caller else 0.0))
        while (wait := turns.available_after(needed, self._clock())) > 0:
            if self._clock() + wait > until:
                return False
            await asyncio.sleep(wait)
        return turns.take(1.0, self._clock())

    @property
    def open(self) -> int:
        """Streams that are open, shared ones and callers' own."""
        return sum(host.open for host in self.hosts)

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
            "open": self.open,
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

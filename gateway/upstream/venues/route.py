"""A venue at run time: its hosts, what is known of its rules, its shared budget and its shared answers.

Always true: all hosts of a route, and all routes of a venue that leave by one address, are one venue with one budget,
because the venue counts by source address and account, not by host or by what we call it; callers of a venue
share what it tells to everybody, and nothing else.
Does not belong here: carrying a request (forward), waiting for one's turn (gate), sharing (shelf).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.dialect.venue import Venue
from gateway.dialect.venue_answers import Answers
from gateway.dialect.venue_requests import Requests
from gateway.limits import TransportSettings, VenueSettings
from gateway.model import RequestClass
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.calls.route import RequestFault
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.venues.gate import Gate, Rows
from gateway.upstream.venues.shelf import Shelf
from gateway.upstream.venues.streams import VenueStreams
from gateway.upstream.venues.topics import SharedStreams
from gateway.upstream.wire.engine import Engine


@dataclass(slots=True)
class HostFacts:
    """What probes found out about one host.  `skew` is its clock minus ours in seconds; None: not asked yet."""

    skew: float | None = None
    pulse: float | None = None
    moved_at: float = 0.0
    still: bool = False


@dataclass(slots=True, eq=False)
class VenueRoute:
    """What a caller addresses.  `engines[i]` serves `pool.endpoints[i]`.

    `hosts` are the names by which callers may address it; `maintenance` is what the venue says of itself.  Routes of
    equal `budget` share their gate and their rows; `gate_stays`: others go on with it when this one is closed.
    """

    name: str
    pool: Pool
    engines: Sequence[Engine]
    venue: Venue
    requests: Requests
    answers: Answers
    gate: Gate
    rows: Rows
    shelf: Shelf
    transport: TransportSettings
    stats: RouteStats
    settings: VenueSettings
    facts: list[HostFacts]
    streams: VenueStreams | None = None
    shared: tuple[SharedStreams, ...] = ()
    aliases: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    maintenance: str = ""
    last_call_at: float = 0.0
    chain_id: int | None = None
    fingerprint: str = ""
    budget: str = ""
    gate_stays: bool = False
    request_faults: deque[RequestFault] = field(default_factory=lambda: deque(maxlen=8))

    async def close(self) -> None:
        """End what it does by itself."""
        if not self.gate_stays:
            self.gate.close()
        for shared in self.shared:
            await shared.close()
        if self.streams is not None:
            await self.streams.close()

    def shares(self, target: str, name: str) -> SharedStreams | None:
        """The shared streams that a WebSocket to `target` takes part in; None: it is the caller's own.

        `name` is the host that the caller means, if it names one.
        """
        speaks = self.streams.spoken(target, name) if self.streams is not None else None
        fit = (shared for shared in self.shared if shared.messages.sharing.speaks == speaks)
        return next((shared for shared in fit if shared.messages.in_path(target) is not None), None)

    @property
    def skew(self) -> float:
        """The venue's clock minus ours, in seconds, as most of its hosts tell it; 0 while none has."""
        told = sorted(facts.skew for facts in self.facts if facts.skew is not None)
        return told[len(told) // 2] if told else 0.0

    @property
    def title(self) -> str:
        return self.venue.title

    @property
    def queued(self) -> int:
        """Requests that wait for the venue's limits."""
        return self.gate.waiting

    @property
    def speaks(self) -> str:
        """What is spoken on it."""
        return self.venue.name

    def attempt_timeout(self, request_class: RequestClass) -> float:
        """Seconds one attempt may take.  What is sent once is waited for as long as its caller waits.

        Binance answers an order that it cannot place after ten seconds of its own (-1007).
        """
        if request_class.repeatable:
            return self.transport.attempt_timeout
        return self.pool.settings.retry.heavy_deadline

    def deadline(self, request_class: RequestClass) -> float:
        """Seconds a call may take when its caller names no time."""
        retry = self.pool.settings.retry
        return retry.deadline if request_class.repeatable else max(retry.deadline, retry.heavy_deadline)

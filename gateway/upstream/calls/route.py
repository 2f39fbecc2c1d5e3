"""A route at run time: the pool, its engines, its dialect and its timeouts, side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.dialect.protocol import Dialect
from gateway.limits import TransportSettings
from gateway.model import Method, RequestClass
from gateway.policy.agreement import ConsensusSettings
from gateway.policy.retry import RetrySettings
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.calls.waiting import Waiting
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.wire.engine import Engine

RequestFault = tuple[float, str, str, tuple[str, ...]]
"""When, which method, what they said, and who: a call that all endpoints refused alike."""


class AnyRoute(Protocol):
    """What pages, metrics and verdicts need of a route, whatever is spoken on it."""

    name: str
    pool: Pool
    stats: RouteStats
    chain_id: int | None
    request_faults: deque[RequestFault]

    @property
    def title(self) -> str: ...

    @property
    def speaks(self) -> str: ...

    @property
    def queued(self) -> int: ...


_HEAVY = RequestClass.HEAVY_READ  # looked up once, for the hot path


@dataclass(slots=True, eq=False)
class Route:
    """What a caller addresses.  `engines[i]` serves `pool.endpoints[i]`.

    `chain_id` is what the endpoints must say of themselves; None: nothing is known or asked.
    `consensus` names the methods that several endpoints must agree on.  `request_faults` are the newest
    calls that all endpoints refused alike.  `blooms`: blocks' bloom filters can be relied on.  `place` has
    an endpoint's failure domains looked at anew.
    """

    name: str
    pool: Pool
    engines: Sequence[Engine]
    dialect: Dialect
    transport: TransportSettings
    stats: RouteStats
    chain_id: int | None = None
    aliases: tuple[str, ...] = ()
    title: str = ""
    blooms: bool = True
    consensus: Mapping[str, ConsensusSettings] = field(default_factory=dict)
    waiting: Waiting | None = None
    last_call_at: float = 0.0
    head_method: Method = field(init=False)
    place: Callable[[int], None] | None = None
    request_faults: deque[RequestFault] = field(default_factory=lambda: deque(maxlen=8))

    def __post_init__(self) -> None:
        self.head_method = self.dialect.call(self.dialect.head_call[0], b"", None).method

    @property
    def speaks(self) -> str:
        """What is spoken on it."""
        return self.dialect.name

    @property
    def queued(self) -> int:
        """Calls that wait for their turn."""
        return self.pool.waiting

    @property
    def retry(self) -> RetrySettings:
        return self.pool.settings.retry

    def attempt_timeout(self, request_class: RequestClass) -> float:
        """Seconds one attempt may take."""
        if request_class is _HEAVY:
            return self.transport.heavy_attempt_timeout
        return self.transport.attempt_timeout

    def deadline(self, request_class: RequestClass) -> float:
        """Seconds a call may take when its caller names no time."""
        if request_class is _HEAVY:
            return self.retry.heavy_deadline
        return self.retry.deadline

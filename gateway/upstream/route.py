"""A route at run time: the pool, its engines, its dialect and its timeouts, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.dialect.protocol import Dialect
from gateway.limits import TransportSettings
from gateway.model import RequestClass
from gateway.policy.retry import RetrySettings
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.engine import Engine
from gateway.upstream.fleet import Pool


@dataclass(slots=True, eq=False)
class Route:
    """What a caller addresses.  `engines[i]` serves `pool.endpoints[i]`.

    `chain_id` is what the endpoints must say of themselves; None: nothing is known or asked.
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

    @property
    def retry(self) -> RetrySettings:
        return self.pool.settings.retry

    def attempt_timeout(self, request_class: RequestClass) -> float:
        """Seconds one attempt may take."""
        if request_class is RequestClass.HEAVY_READ:
            return self.transport.heavy_attempt_timeout
        return self.transport.attempt_timeout

    def deadline(self, request_class: RequestClass) -> float:
        """Seconds a call may take when its caller names no time."""
        if request_class is RequestClass.HEAVY_READ:
            return self.retry.heavy_deadline
        return self.retry.deadline

"""The gateway as its users run it, in front of simulated providers that can be broken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.assembly import Gateway
from gateway.clock import monotonic
from gateway.config.load import load, secrets_of
from gateway.drill.chain import SimulatedChain
from gateway.drill.provider import SimulatedProvider
from gateway.telemetry.redaction import Redactor
from tests.pace import PATIENCE

CHAIN_ID = 31337
LONGEST = 400.0  # seconds; four times what the longest takes

CONFIG = """
listen: 127.0.0.1:0
operations:
  listen: 127.0.0.1:0
  token: ${OPERATIONS_TOKEN:-a-token-for-tests-only}
%(extra)s
routes:
  local:
    chain_id: 31337
    dialect: evm
    transport: {attempt_timeout: %(attempt_timeout)s, idle_connections: %(idle)d}
    retry: {deadline: %(deadline)s}
%(route_extra)s
    endpoints:
%(endpoints)s
%(more_routes)s
"""


@dataclass
class House:
    """A running gateway and its providers."""

    gateway: Gateway
    providers: list[SimulatedProvider]
    chain: SimulatedChain
    config: Path

    @property
    def port(self) -> int:
        return self.gateway.public_port

    def fired(self) -> int:
        """How often faults really struck, at all providers."""
        return sum(sum(provider.script.fired.values()) for provider in self.providers)

    def state(self, endpoint: str) -> dict[str, Any]:
        """One endpoint's row of /status.json."""
        rows = self.gateway.status()["routes"][0]["endpoints"]
        return next(row for row in rows if row["id"] == endpoint)

    async def until(self, holds: Any, seconds: float = PATIENCE) -> float:
        """Wait until `holds()`; returns how long it took.  Fails after `seconds`, which are no bound (tests/pace)."""
        began = monotonic()
        while not holds():
            if monotonic() - began > seconds:
                raise AssertionError(f"did not come true within {seconds} s")
            await asyncio.sleep(0.01)
        return monotonic() - began


@contextlib.asynccontextmanager
async def house(
    folder: Path,
    *,
    count: int = 3,
    attempt_timeout: str = "500ms",
    deadline: str = "5s",
    extra: str = "",
    route_extra: str = "",
    endpoint_extra: str = "",
    path: str = "",
    block_time: float = 2.0,
    huge_bytes: int = 8_000_000,
    idle: int = 64,
    more_routes: str = "",
    clouds: int = 100,
    edges: list[str] | None = None,
    versions: list[str] | None = None,
    standby: tuple[int, ...] = (),
) -> AsyncIterator[House]:
    """Start providers p0, p1, ... in clouds of their own (or `clouds` of them), and the gateway over them."""
    chain = SimulatedChain(chain_id=CHAIN_ID, block_time=block_time, genesis_at=monotonic() - 1000 * block_time, seed=1)
    names = versions or ["Simulated/v1.0.0"] * count
    providers = [
        SimulatedProvider(f"p{i}", chain, huge_bytes=huge_bytes, clock=monotonic, client_version=names[i])
        for i in range(count)
    ]
    shared = [f", edge: {edge}" if edge else "" for edge in edges or [""] * count]
    shared = [row + (", standby: true" if i in standby else "") for i, row in enumerate(shared)]
    async with contextlib.AsyncExitStack() as stack:
        for provider in providers:
            await stack.enter_async_context(provider)
        rows = [
            f"      - {{id: {p.name}, url: '{p.url}{path}', cloud: cloud-{i % clouds}{shared[i]}{endpoint_extra}}}"
            for i, p in enumerate(providers)
        ]
        config = folder / "seawall.yaml"
        config.write_text(
            CONFIG
            % {
                "extra": extra,
                "attempt_timeout": attempt_timeout,
                "deadline": deadline,
                "idle": idle,
                "more_routes": more_routes,
                "route_extra": route_extra,
                "endpoints": "\n".join(rows),
            }
        )
        settings = load(config)
        gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        stack.push_async_callback(gateway.stop, 1.0)
        yield House(gateway, providers, chain, config)


def run(work: Coroutine[Any, Any, None]) -> None:
    """One scenario, in real time.  One that never ends fails, and says where it stood."""
    asyncio.run(asyncio.wait_for(work, LONGEST))

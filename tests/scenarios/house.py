"""The gateway as its users run it, in front of simulated providers that can be broken."""

from __future__ import annotations

import asyncio
import contextlib
import socket
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
    names: bool = False,
) -> AsyncIterator[House]:
    """Start providers p0, p1, ... in clouds of their own (or `clouds` of them), and the gateway over them.

    `names`: they are reached by the names that `NamedLoop` knows, p0.test and so on.
    """
    chain = SimulatedChain(chain_id=CHAIN_ID, block_time=block_time, genesis_at=monotonic() - 1000 * block_time, seed=1)
    clients = versions or ["Simulated/v1.0.0"] * count
    providers = [
        SimulatedProvider(f"p{i}", chain, huge_bytes=huge_bytes, clock=monotonic, client_version=clients[i])
        for i in range(count)
    ]
    shared = [f", edge: {edge}" if edge else "" for edge in edges or [""] * count]
    shared = [row + (", standby: true" if i in standby else "") for i, row in enumerate(shared)]
    async with contextlib.AsyncExitStack() as stack:
        for provider in providers:
            await stack.enter_async_context(provider)
        where = [f"http://{p.name}.test:{p.port}" if names else p.url for p in providers]
        rows = [
            f"      - {{id: {p.name}, url: '{where[i]}{path}', cloud: cloud-{i % clouds}{shared[i]}{endpoint_extra}}}"
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


class NamedLoop(asyncio.SelectorEventLoop):
    """A loop whose names, p0.test and so on, all lead to this machine, until `dark`: then there is no record."""

    dark = False

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> list[Any]:  # type: ignore[override]
        if not str(host).endswith(".test"):
            return await super().getaddrinfo(host, port, **hints)
        if self.dark:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, str(host), ("127.0.0.1", int(port)))]


def run(work: Coroutine[Any, Any, None], loop: type[asyncio.SelectorEventLoop] | None = None) -> None:
    """One scenario, in real time."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work)

"""What the section `simulated` of the configuration asks for: pretended providers and exchanges.

Always true: everything listens where the file says, or nothing does; when the block ends, all are gone.
Does not belong here: how a provider (serve) or an exchange (venues/serve) is started and broken.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.config.scalars import host_and_port
from gateway.config.settings import SimulatedSettings
from gateway.drill.provider import SimulatedProvider
from gateway.drill.serve import ProviderSpec, run_providers
from gateway.drill.venues.exchange import SimulatedExchange
from gateway.drill.venues.serve import HostSpec, run_exchanges


@dataclass(frozen=True, slots=True)
class Simulated:
    """What runs: providers by their names, exchanges by the names of their venues."""

    providers: Mapping[str, SimulatedProvider]
    exchanges: Mapping[str, SimulatedExchange]


def not_yet_running(wanted: Mapping[str, SimulatedSettings]) -> dict[str, SimulatedSettings]:
    """Those whose address is free.  Of the others somebody takes care: the same file is being served, most likely."""
    return {name: settings for name, settings in wanted.items() if _is_free(settings.listen)}


def _is_free(listen: str) -> bool:
    host, port = host_and_port(listen)
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return True
    except OSError:
        return False


@contextlib.asynccontextmanager
async def run_simulated(wanted: Mapping[str, SimulatedSettings], clock: Clock) -> AsyncIterator[Simulated]:
    """Start what is wanted.  Raises OSError when an address is taken."""
    nodes, hosts = [], []
    for name, settings in wanted.items():
        host, port = host_and_port(settings.listen)
        if settings.venue is not None:
            hosts.append(HostSpec(name, settings.venue, port))
            continue
        nodes.append(
            ProviderSpec(
                name=name,
                host=host,
                port=port,
                chain_id=settings.chain_id,
                block_time=settings.block_time,
                client_version=settings.client_version,
                latency=settings.latency,
            )
        )
    async with run_providers(nodes, clock=clock) as providers, run_exchanges(hosts) as exchanges:
        yield Simulated(providers, exchanges)

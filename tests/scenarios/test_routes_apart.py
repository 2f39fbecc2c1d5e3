"""What breaks one route is not told of another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.assembly import Gateway
from gateway.clock import monotonic
from gateway.config.load import load, secrets_of
from gateway.drill.serve import ProviderSpec, run_providers
from gateway.drill.venues.exchange import Strike
from gateway.drill.venues.serve import HostSpec, run_exchanges
from gateway.telemetry.redaction import Redactor
from tests.scenarios.house import run
from tests.scenarios.venue_house import RawCaller

CUT = Strike("cut", send=0)


@contextlib.asynccontextmanager
async def a_chain_and_an_exchange(folder: Path) -> AsyncIterator[tuple[Gateway, str]]:
    """Three providers of a chain with slow blocks, and an exchange whose two hosts cut whatever they are sent."""
    chain = [ProviderSpec(name, chain_id=31337, block_time=12.0) for name in ("alder", "birch", "cedar")]
    hosts = [HostSpec(name, "binance") for name in ("harbour", "pier")]
    async with run_providers(chain) as providers, run_exchanges(hosts) as exchanges:
        exchange = exchanges["binance"]
        config = folder / "seawall.yaml"
        config.write_text(
            "listen: 127.0.0.1:0\noperations: {listen: 127.0.0.1:0}\nroutes:\n"
            "  chain:\n    chain_id: 31337\n    endpoints:\n"
            + "".join(f"      - {{id: {name}, url: '{provider.url}'}}\n" for name, provider in providers.items())
            + "  exchange:\n    venue: binance\n    streams: []\n    endpoints:\n"
            + "".join(
                f"      - {{id: {spec.name}, url: '{url}'}}\n" for spec, url in zip(hosts, exchange.urls, strict=True)
            )
        )
        settings = load(config)
        gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        try:
            exchange.script = lambda host, data: CUT
            yield gateway, "/exchange/api/v3/depth?symbol=BTCUSDT"
        finally:
            await gateway.stop(1.0)


def test_an_exchange_that_cuts_every_connection_is_no_fault_of_our_own_network(tmp_path: Path) -> None:
    """Two hosts fail in a row while nobody asks the chain's providers: silence so far, and no evidence."""

    async def story() -> None:
        async with a_chain_and_an_exchange(tmp_path) as (gateway, target):
            caller = await RawCaller.open(gateway.public_port)
            told: set[tuple[str, str]] = set()
            until = monotonic() + 4.0
            while monotonic() < until:
                status, _, _ = await caller.call("GET", target)
                assert status == 502
                told |= {
                    (row["name"], verdict["kind"]) for row in gateway.status()["routes"] for verdict in row["verdicts"]
                }
                await asyncio.sleep(0.02)
            caller.close()
            assert told
            assert {name for name, _ in told} == {"exchange"}
            assert "local_fault" not in {kind for _, kind in told}

    run(story())

"""ccxt (Python and Node) and python-binance through the gateway: by path, by host name, and by `proxyUrl`.

Each client loads markets, reads, places an order, finds it, cancels it and follows three streams; the simulated
exchanges verify each signature over the very bytes that reach them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.assembly import Gateway
from gateway.clock import wall_seconds
from gateway.config.load import load, secrets_of
from gateway.drill.venues.binance import Binance
from gateway.drill.venues.bybit import Bybit
from gateway.drill.venues.coinbase_exchange import CoinbaseExchange
from gateway.drill.venues.exchange import SimulatedExchange
from gateway.drill.venues.kraken import Kraken
from gateway.drill.venues.kucoin import Kucoin
from gateway.drill.venues.okx import Okx
from gateway.telemetry.redaction import Redactor
from tests.real.processes import HERE

VENUES: dict[str, Any] = {
    "binance": Binance,
    "okx": Okx,
    "bybit": Bybit,
    "kucoin": Kucoin,
    "kraken": Kraken,
    "coinbase_exchange": CoinbaseExchange,
}
CLIENT_NAMES = {"coinbase_exchange": "coinbaseexchange"}
MODES = ("path", "host", "proxy")
WITHIN = 300.0  # seconds for one client's walk; it takes about five

PYTHON = HERE.parents[1] / ".venv-clients" / "bin" / "python"  # ccxt pins what the gateway needs newer
has_clients = PYTHON.exists()
has_node_ccxt = (HERE / "node_modules" / "ccxt").exists() and shutil.which("node") is not None

pytestmark = pytest.mark.real


@contextlib.asynccontextmanager
async def market_place(folder: Path) -> AsyncIterator[tuple[Gateway, dict[str, SimulatedExchange]]]:
    """The gateway in front of one simulated exchange of each kind; Binance and Bybit have two hosts."""
    async with contextlib.AsyncExitStack() as stack:
        exchanges, rows = {}, []
        for name, kind in VENUES.items():
            hosts = 2 if name in ("binance", "bybit") else 1
            exchange = await stack.enter_async_context(SimulatedExchange(kind(wall_seconds()), hosts=hosts))
            exchanges[name] = exchange
            rows.append(
                f"  {name}:\n    venue: {name}\n    hosts: [{name.replace('_', '-')}.localhost]\n"
                f"    endpoints: [{', '.join(exchange.urls)}]\n    streams: [{', '.join(exchange.ws_urls)}]\n"
            )
        config = folder / "seawall.yaml"
        config.write_text("listen: 127.0.0.1:0\noperations: {listen: 127.0.0.1:0}\nroutes:\n" + "".join(rows))
        settings = load(config)
        gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        stack.push_async_callback(gateway.stop, 1.0)
        yield gateway, exchanges


def ways(gateway: Gateway, venue: str, mode: str) -> list[str]:
    """Where a client is pointed: for HTTP and for WebSockets."""
    port = gateway.public_port
    if mode == "host":
        name = f"{venue.replace('_', '-')}.localhost:{port}"
        return [f"http://{name}", f"ws://{name}"]
    by_path = f"ws://127.0.0.1:{port}/{venue}"
    return [f"http://127.0.0.1:{port}/{venue}" if mode == "path" else f"http://127.0.0.1:{port}/via/", by_path]


async def walk(command: list[str]) -> dict[str, Any]:
    """Run one client to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), WITHIN)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 0, f"{' '.join(command[1:])}\n{err.decode()[-3000:]}"
    seen: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return seen


def walk_all(folder: Path, commands: dict[str, list[str]]) -> None:
    """Each venue by each way in, three clients at a time; then what the exchanges say of it."""

    async def scenario() -> None:
        async with market_place(folder) as (gateway, exchanges):
            turns = asyncio.Semaphore(3)

            async def one(label: str, venue: str, mode: str, command: list[str]) -> None:
                async with turns:
                    began = wall_seconds()
                    seen = await walk([*command, mode, *ways(gateway, venue, mode)])
                    print(f"{label} {mode}: {wall_seconds() - began:.1f} s, {seen}")

            ends = await asyncio.gather(
                *(
                    one(label, label.partition(" ")[0], mode, command)
                    for label, command in commands.items()
                    for mode in MODES
                ),
                return_exceptions=True,
            )
            failed = [end for end in ends if end is not None]
            assert not failed, "\n".join(str(end) for end in failed)
            for exchange in exchanges.values():
                assert exchange.venue.bad_signatures == 0  # type: ignore[attr-defined]
                executed = exchange.venue.accounts.executed  # type: ignore[attr-defined]
                assert set(executed.values()) <= {1}
            kraken = exchanges["kraken"].venue
            assert kraken.out_of_order == 0  # type: ignore[attr-defined]

    asyncio.run(scenario())


@pytest.mark.skipif(not has_clients, reason="the exchange clients are not installed: make real-parts")
def test_ccxt_for_python_trades_and_watches_on_every_venue_by_every_way_in(tmp_path: Path) -> None:
    script = [str(PYTHON), str(HERE / "venue_clients.py")]
    walk_all(tmp_path, {venue: [*script, CLIENT_NAMES.get(venue, venue)] for venue in VENUES})


@pytest.mark.skipif(not has_node_ccxt, reason="ccxt for Node is not installed: make real-parts")
def test_ccxt_for_node_trades_and_watches_on_every_venue_by_every_way_in(tmp_path: Path) -> None:
    script = ["node", str(HERE / "venue_clients.mjs")]
    walk_all(tmp_path, {venue: [*script, CLIENT_NAMES.get(venue, venue)] for venue in VENUES})


@pytest.mark.skipif(not has_clients, reason="the exchange clients are not installed: make real-parts")
def test_python_binance_trades_by_path_and_by_host(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with market_place(tmp_path) as (gateway, exchanges):
            for mode in ("path", "host"):
                script = [str(PYTHON), str(HERE / "venue_clients.py"), "python_binance", mode]
                print(await walk([*script, ways(gateway, "binance", mode)[0]]))
            assert exchanges["binance"].venue.bad_signatures == 0  # type: ignore[attr-defined]

    asyncio.run(scenario())

"""One bad endpoint beside two good ones, in every way that the drill knows: no read is lost.

Pinned reads (a block and a receipt by hash, state at a fixed block) and head reads, one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from gateway.assembly import Gateway
from gateway.clock import monotonic
from gateway.config.load import load, secrets_of
from gateway.drill.chain import SimulatedChain
from gateway.drill.faults import Fault, Stage
from gateway.drill.provider import SimulatedProvider
from gateway.telemetry.redaction import Redactor
from tests.pace import PATIENCE
from tests.scenarios.caller import Caller, Tally
from tests.scenarios.house import CHAIN_ID, house, run

READS, LANES, SEED = 240, 4, 31
HARMLESS = {Fault.CHUNKED, Fault.CLOSE_DELIMITED, Fault.CONNECTION_CLOSE, Fault.NO_KEEPALIVE_HTTP10, Fault.SLOW}
FAULTS = [fault for fault in Fault if fault not in HARMLESS]
CONFIG = """
listen: 127.0.0.1:0
operations: {listen: '127.0.0.1:0'}
routes:
  local:
    chain_id: 31337
    transport: {attempt_timeout: 500ms, connect_timeout: 300ms, tls_timeout: 300ms}
    retry: {deadline: 5s}
    endpoints:
"""


async def read(port: int, chain: SimulatedChain) -> Tally:
    """A mix of reads over a few connections."""
    chance = random.Random(SEED)
    number = chain.head(monotonic()) - 20
    asks = [
        ("eth_blockNumber", []),
        ("eth_getBlockByNumber", ["latest", False]),
        ("eth_getBalance", ["0x" + "ab" * 20, "latest"]),
        ("eth_getBlockByHash", [chain.block_hash(number), False]),
        ("eth_getTransactionReceipt", [chain.transaction_hashes(number)[0]]),
        ("eth_getBalance", ["0x" + "ab" * 20, hex(number)]),
    ]
    tally, left = Tally(), iter(range(READS))

    async def lane() -> None:
        async with Caller(port, "/local") as caller:
            for _ in left:
                method, params = chance.choice(asks)
                tally.told.append(await caller.call(method, *params))

    await asyncio.gather(*(lane() for _ in range(LANES)))
    return tally


def verdict(name: str, tally: Tally, fired: int, provider: SimulatedProvider) -> None:
    told, slowest = len(tally.told), tally.quantile(1.0) * 1e3
    print(f"{name}: {len(tally.lost)} of {told} lost, struck {fired} times, slowest {slowest:.0f} ms, seed {SEED}")
    assert tally.lost == []
    assert fired > 0, "the fault never struck"


def test_the_list_is_long_enough() -> None:
    assert len(FAULTS) + len(TLS_FAULTS) >= 60


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_no_read_is_lost(fault: Fault, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            bad = home.providers[0]
            if fault.stage is Stage.ACCEPT:  # strikes new connections only
                await bad.refuse()
                await bad.accept()
            bad.script.set(fault)
            until = monotonic() + PATIENCE
            tally = await read(home.port, home.chain)
            while not bad.script.fired[fault] and monotonic() < until:  # it may just have been out of touch
                await asyncio.sleep(0.1)
                tally.told += (await read(home.port, home.chain)).told
            verdict(fault.value, tally, bad.script.fired[fault], bad)

    run(scenario())


# --- TLS ----------------------------------------------------------------------------------------------

AUTHORITY, STRANGER = trustme.CA(), trustme.CA()
TLS_FAULTS = ["wrong_name", "expired", "unknown_authority", "plain_text", "handshake_cut", "handshake_hangs"]


def context(leaf: trustme.LeafCert) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(made)
    return made


def bad_context(fault: str) -> ssl.SSLContext | None:
    """What the bad endpoint has instead of a sound certificate; None: no TLS at all."""
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    if fault == "wrong_name":
        return context(AUTHORITY.issue_cert("elsewhere.example.org"))
    if fault == "expired":
        return context(AUTHORITY.issue_cert("127.0.0.1", not_before=past, not_after=past))
    if fault == "unknown_authority":
        return context(STRANGER.issue_cert("127.0.0.1"))
    return None


@contextlib.asynccontextmanager
async def cutting_door(hangs: bool) -> AsyncIterator[tuple[int, list[int]]]:
    """A port behind which handshakes are cut, or never answered."""
    struck: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(50)
        struck.append(1)
        if hangs:
            with contextlib.suppress(OSError):
                await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], struck
    finally:
        server.close()


@pytest.mark.parametrize("fault", TLS_FAULTS)
def test_no_read_is_lost_to_bad_tls(fault: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        chain = SimulatedChain(chain_id=CHAIN_ID, block_time=2.0, genesis_at=monotonic() - 2000, seed=1)
        sound = context(AUTHORITY.issue_cert("127.0.0.1"))
        AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        bad = SimulatedProvider("bad", chain, clock=monotonic, ssl=bad_context(fault))
        good = [SimulatedProvider(f"good{i}", chain, clock=monotonic, ssl=sound) for i in range(2)]
        async with contextlib.AsyncExitStack() as stack:
            for provider in (bad, *good):
                await stack.enter_async_context(provider)
            port, struck = bad.port, []
            if fault.startswith("handshake"):
                port, struck = await stack.enter_async_context(cutting_door(fault == "handshake_hangs"))
            ports = [port, *(provider.port for provider in good)]
            rows = [
                f"      - {{id: p{i}, url: 'https://127.0.0.1:{p}', cloud: c{i}, tls: {{ca: {tmp_path}/ca.pem}}}}\n"
                for i, p in enumerate(ports)
            ]
            config = tmp_path / "seawall.yaml"
            config.write_text(CONFIG + "".join(rows))
            settings = load(config)
            gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
            await gateway.start()
            stack.push_async_callback(gateway.stop, 0.0)
            tally = await read(gateway.public_port, chain)
            fired = len(struck) or bad.connections_total
            verdict(f"tls {fault}", tally, fired, bad)
            assert bad.calls.total() == 0, "something was said to somebody who could not prove who it is"

    run(scenario())

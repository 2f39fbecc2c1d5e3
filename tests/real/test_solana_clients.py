"""solana-py over two nodes around LiteSVM: a node killed in the middle costs no call, and no transaction twice."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pace import PATIENCE
from tests.real.processes import free_port, rpc, running

MISSING = [name for name in ("solders", "solana") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed: make test installs them"),
]
ONE, SOL = 1_000_000, 1_000_000_000
READS, SENDS = 300, 20


@contextlib.contextmanager
def nodes(*options: list[str]) -> Iterator[list[tuple[Any, str]]]:
    """As many nodes as there are lists of options, each the others' peer: (process, URL)."""
    ports = [free_port() for _ in options]
    genesis = f"{time.time() - 400:.3f}"  # a thousand slots ago
    with contextlib.ExitStack() as stack:
        started = []
        for port, extra in zip(ports, options, strict=True):
            peers = [word for other in ports if other != port for word in ("--peer", str(other))]
            command = [sys.executable, "-m", "tests.real.solana_node", str(port), "--genesis", genesis, *peers, *extra]
            url = f"http://127.0.0.1:{port}"
            started.append((stack.enter_context(_answering(command, url)), url))
        yield started


@contextlib.contextmanager
def _answering(command: list[str], url: str) -> Iterator[Any]:
    """A node that has answered its first call; ended by the id it was started with."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, RuntimeError):
                rpc(url, "getSlot")
                break
            assert process.poll() is None and time.monotonic() < until, "the node did not start"
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait(10)


@contextlib.contextmanager
def gateway(directory: Path, urls: list[str], *, tiered: bool = False) -> Iterator[str]:
    port, operations = free_port(), free_port()
    lines = [f"listen: 127.0.0.1:{port}", "operations:", f"  listen: 127.0.0.1:{operations}", "routes:"]
    lines += ["  solana:", "    chain: solana", "    endpoints:"]
    lines += [f"      - {{id: n{i}, url: {url!r}, tier: {i if tiered else 0}}}" for i, url in enumerate(urls)]
    config = directory / "seawall.yaml"
    config.write_text("\n".join(lines) + "\n")
    with running([sys.executable, "-m", "gateway", "serve", str(config)], f"http://127.0.0.1:{port}", "/livez"):
        yield f"http://127.0.0.1:{port}/solana"


@contextlib.asynccontextmanager
async def client(url: str) -> AsyncIterator[Any]:
    """solana-py without its own retries, so that what the gateway loses is lost."""
    from solana.rpc.async_api import AsyncClient
    from solana.rpc.commitment import Confirmed

    session = AsyncClient(url, commitment=Confirmed, timeout=PATIENCE)
    session._provider._max_transport_retries = 0
    try:
        yield session
    finally:
        await session.close()


async def funded(session: Any, lamports: int) -> Any:
    from solders.keypair import Keypair

    payer = Keypair()
    given = (await session.request_airdrop(payer.pubkey(), lamports)).value
    await session.confirm_transaction(given, sleep_seconds=0.1)
    assert (await session.get_balance(payer.pubkey())).value == lamports
    return payer


async def transfer(session: Any, payer: Any, receiver: Any, lamports: int) -> Any:
    from solders.message import MessageV0
    from solders.system_program import TransferParams
    from solders.system_program import transfer as instruction
    from solders.transaction import VersionedTransaction

    blockhash = (await session.get_latest_blockhash()).value.blockhash
    move = instruction(TransferParams(from_pubkey=payer.pubkey(), to_pubkey=receiver, lamports=lamports))
    message = MessageV0.try_compile(payer.pubkey(), [move], [], blockhash)
    signed = VersionedTransaction(message, [payer])
    sent = (await session.send_raw_transaction(bytes(signed))).value
    assert sent == signed.signatures[0]
    return sent


def test_a_transfer_is_sent_confirmed_and_seen(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        from solders.keypair import Keypair

        async with client(url) as session:
            assert await session.is_connected()
            payer, receiver = await funded(session, 2 * SOL), Keypair().pubkey()
            sent = await transfer(session, payer, receiver, SOL)
            status = (await session.confirm_transaction(sent, sleep_seconds=0.1)).value[0]
            assert status is not None and status.err is None
            assert (await session.get_balance(receiver)).value == SOL
            assert (await session.get_version()).value.solana_core == "2.1.13"

    with nodes([], []) as ((_, one), (_, other)), gateway(tmp_path, [one, other]) as url:
        asyncio.run(scenario(url))


def test_a_node_killed_in_the_middle_loses_no_read_and_no_transfer(tmp_path: Path) -> None:
    async def scenario(url: str, victim: Any) -> None:
        from solders.keypair import Keypair

        async with client(url) as session:
            payer, receiver = await funded(session, 2 * SOL), Keypair().pubkey()

            async def read() -> int:
                for number in range(READS):
                    if number == READS // 3:
                        victim.kill()
                    assert (await session.get_balance(payer.pubkey())).value > 0
                    assert (await session.get_slot()).value > 0
                return READS * 2

            async def send() -> list[Any]:
                return [await transfer(session, payer, receiver, ONE + number) for number in range(SENDS)]

            calls, sent = await asyncio.gather(read(), send())
            for signature in sent:
                await session.confirm_transaction(signature, sleep_seconds=0.05)
            expected = sum(ONE + number for number in range(SENDS))
            assert (await session.get_balance(receiver)).value == expected
            print(f"{calls} reads and {len(sent)} transfers with a node killed in the middle: none lost, none twice")

    with nodes([], []) as ((victim, one), (_, other)), gateway(tmp_path, [one, other]) as url:
        asyncio.run(scenario(url, victim))
        assert victim.poll() is not None


def test_a_send_whose_answer_is_lost_is_settled_by_its_signature(tmp_path: Path) -> None:
    async def scenario(url: str, dying: str) -> None:
        from solders.keypair import Keypair

        async with client(url) as session:
            payer, receiver = await funded(session, SOL), Keypair().pubkey()
            for number in range(5):
                await transfer(session, payer, receiver, ONE + number)
            assert (await session.get_balance(receiver)).value == sum(ONE + number for number in range(5))

    with (
        nodes(["--dies-on-send"], []) as ((_, dying), (_, other)),
        gateway(tmp_path, [dying, other], tiered=True) as url,
    ):
        asyncio.run(scenario(url, dying))


def test_a_send_whose_answer_is_lost_and_that_nobody_else_can_take_is_looked_up(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        from solders.keypair import Keypair

        async with client(url) as session:
            payer, receiver = await funded(session, SOL), Keypair().pubkey()
            await transfer(session, payer, receiver, ONE)  # checks that the signature came back
            assert (await session.get_balance(receiver)).value == ONE

    with nodes(["--dies-on-send"]) as ((_, dying),), gateway(tmp_path, [dying]) as url:
        asyncio.run(scenario(url))


def test_a_node_that_does_not_know_the_blockhash_yet_costs_no_transfer(tmp_path: Path) -> None:
    async def scenario(url: str, ahead: str) -> None:
        from solders.keypair import Keypair

        async with client(ahead) as direct, client(url) as session:
            payer, receiver = await funded(direct, SOL), Keypair().pubkey()
            session.get_latest_blockhash = direct.get_latest_blockhash  # a wallet that asked somebody else
            for number in range(3):
                await transfer(session, payer, receiver, ONE + number)
            assert (await session.get_balance(receiver)).value == sum(ONE + number for number in range(3))

    with nodes(["--behind", "30"], []) as ((_, late), (_, ahead)), gateway(tmp_path, [late, ahead], tiered=True) as url:
        asyncio.run(scenario(url, ahead))


def test_what_a_program_refuses_comes_back_in_the_nodes_own_words(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        from solana.rpc.core import RPCException
        from solders.keypair import Keypair

        async with client(url) as session:
            payer = await funded(session, SOL)
            with pytest.raises(RPCException, match="custom program error: 0x1"):
                await transfer(session, payer, Keypair().pubkey(), 5 * SOL)

    with nodes([], []) as ((_, one), (_, other)), gateway(tmp_path, [one, other]) as url:
        asyncio.run(scenario(url))

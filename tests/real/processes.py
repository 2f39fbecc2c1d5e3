"""Real programs as fixtures: anvil, ganache and the gateway itself, each ended by the id it was started with."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.pace import PATIENCE

HERE = Path(__file__).parent
ANVIL = HERE / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
GANACHE = HERE / "node_modules" / "ganache" / "dist" / "node" / "cli.js"
CHAIN_ID = 31337
MNEMONIC = "test test test test test test test test test test test junk"  # anvil's own, published


def missing() -> str:
    """Why the real parts cannot run here; empty when they can."""
    if not ANVIL.exists() or not GANACHE.exists():
        return "the Node packages are not installed: make real-parts"
    if shutil.which("node") is None:
        return "node is not installed"
    return ""


def free_port() -> int:
    """A port on which nobody listens, not one of those (from 32768 on) that the system gives to whoever calls out."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port


def rpc(url: str, method: str, *params: object) -> object:
    """One call by the plainest client there is."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
        answer = json.load(response)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["result"]


@contextlib.contextmanager
def running(command: list[str], ready_url: str, ready: str = "rpc") -> Iterator[subprocess.Popen[bytes]]:
    """Start a program, wait until it answers, end it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        _wait(process, ready_url, ready)
        yield process
    finally:
        process.kill()
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], url: str, ready: str) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with contextlib.suppress(OSError, RuntimeError):
            if ready == "rpc":
                rpc(url, "eth_chainId")
            else:
                urllib.request.urlopen(url + ready, timeout=2).close()  # noqa: S310
            return
        if time.monotonic() > until:
            raise RuntimeError(f"{process.args!r} did not answer")
        time.sleep(0.05)


def anvil(port: int, *options: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    command = [
        str(ANVIL),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--chain-id",
        str(CHAIN_ID),
        "--silent",
        *options,
    ]
    return running(command, f"http://127.0.0.1:{port}")


def ganache(port: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    command = [
        "node", str(GANACHE), "--server.host", "127.0.0.1", "--server.port", str(port),
        "--chain.chainId", str(CHAIN_ID), "--miner.blockTime", "1",
        "--wallet.mnemonic", MNEMONIC, "--wallet.defaultBalance", "10000", "--logging.quiet",
    ]  # fmt: skip
    return running(command, f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def seawall(directory: Path, endpoints: dict[str, str], *, tiered: bool = False) -> Iterator[str]:
    """The gateway as a user starts it; yields the route's URL.  `tiered`: earlier endpoints are preferred."""
    route = "devnet"
    port, operations = free_port(), free_port()
    lines = [f"listen: 127.0.0.1:{port}", "operations:", f"  listen: 127.0.0.1:{operations}", "routes:"]
    lines += [f"  {route}:", f"    chain_id: {CHAIN_ID}", "    dialect: evm", "    endpoints:"]
    for tier, (name, url) in enumerate(endpoints.items()):
        lines.append(f"      - {{id: {name}, url: {url!r}, tier: {tier if tiered else 0}}}")
    config = directory / "seawall.yaml"
    config.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "gateway", "serve", str(config)]
    with running(command, f"http://127.0.0.1:{port}", "/livez"):
        yield f"http://127.0.0.1:{port}/{route}"

"""A gateway whose own network is cut: runs in network namespaces of its own and prints a report.

    unshare -Urn python -m tests.scenarios.cut_network SECONDS

The process that is started holds the gateway and its callers; a child in a second namespace holds three
providers; a pair of virtual interfaces connects the two, and is what is cut.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from gateway.assembly import Gateway
from gateway.clock import monotonic
from gateway.config.load import load, secrets_of
from gateway.drill.chain import SimulatedChain
from gateway.drill.provider import SimulatedProvider
from gateway.telemetry.redaction import Redactor
from tests.pace import PATIENCE, standstill
from tests.scenarios.caller import Caller

HOSTS = ("10.99.0.2", "10.99.0.3", "10.99.0.4")
PORT = 8545
PACE = 0.02  # seconds between calls
CONFIG = """
listen: 127.0.0.1:0
operations: {listen: '127.0.0.1:0'}
routes:
  local:
    chain_id: 31337
    transport: {attempt_timeout: 500ms, connect_timeout: 500ms}
    retry: {deadline: 2s}
    endpoints:
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


async def providers() -> None:
    """In the second namespace: three providers, until standard input ends."""
    print("here", flush=True)
    sys.stdin.readline()  # the interface has been put in
    ip("link", "set", "lo", "up")
    for host in HOSTS:
        ip("addr", "add", f"{host}/24", "dev", "there")
    ip("link", "set", "there", "up")
    chain = SimulatedChain(chain_id=31337, block_time=2.0, genesis_at=monotonic() - 2000, seed=1)
    running = [SimulatedProvider(f"p{i}", chain, clock=monotonic) for i in range(len(HOSTS))]
    for provider, host in zip(running, HOSTS, strict=True):
        await provider.start(host, PORT)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for provider in running:
        await provider.stop()


class Watch:
    """Calls at a steady pace, and what became of them."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.tasks: set[asyncio.Task[None]] = set()
        self.ends: list[tuple[float, bool]] = []
        self.opened: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.first_verdict_at: float | None = None

    async def one(self) -> None:
        began = monotonic()
        caller = Caller(self.gateway.public_port, "/local")
        told = await caller.call("eth_getBalance", "0x" + "ab" * 20, "latest")
        await caller.close()
        self.ends.append((began, "result" in told.body))

    async def run(self, seconds: float) -> None:
        until = monotonic() + seconds
        while monotonic() < until:
            task = asyncio.ensure_future(self.one())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            await asyncio.sleep(PACE)
            self.look()

    def look(self) -> None:
        route = self.gateway.status()["routes"][0]
        for verdict in route["verdicts"]:
            self.verdicts[verdict["kind"]] += 1
            if self.first_verdict_at is None:
                self.first_verdict_at = monotonic()
        for endpoint in route["endpoints"]:
            for reason in endpoint["reasons"]:
                self.opened[f"{endpoint['id']}: {reason['reason']}"] += 1


async def cut(seconds: float) -> dict[str, Any]:
    child = subprocess.Popen(
        ["unshare", "-n", sys.executable, "-m", "tests.scenarios.cut_network", "providers"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdout.readline()
        ip("link", "set", "lo", "up")
        ip("link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(child.pid))
        ip("addr", "add", "10.99.0.1/24", "dev", "here")
        ip("link", "set", "here", "up")
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
        return await _watch(seconds)
    finally:
        child.stdin.close()
        child.wait(PATIENCE)


async def _watch(seconds: float) -> dict[str, Any]:
    async with standstill() as stood_still_for:
        return {**await _cut(seconds), "stood_still_for": round(stood_still_for(), 2)}


async def _cut(seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "seawall.yaml"
        rows = [f"      - {{id: p{i}, url: 'http://{host}:{PORT}', cloud: c{i}}}" for i, host in enumerate(HOSTS)]
        config.write_text(CONFIG + "\n".join(rows) + "\n")
        settings = load(config)
        gateway = Gateway(settings, None, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        watch = Watch(gateway)
        await watch.run(2.0)
        before, watch.ends = watch.ends, []
        cut_at = monotonic()
        ip("link", "set", "here", "down")
        await watch.run(seconds)
        verdicts, verdict_at = dict(watch.verdicts), watch.first_verdict_at
        ip("link", "set", "here", "up")
        back_at = monotonic()
        watch.ends = []
        await watch.run(5.0)
        await asyncio.gather(*watch.tasks)
        late = [began - back_at for began, well in watch.ends if not well]
        state = gateway.status()["routes"][0]
        await gateway.stop(0.0)
        return {
            "lost_before": sum(not well for _, well in before),
            "verdicts": verdicts,
            "verdict_after": None if verdict_at is None else round(verdict_at - cut_at, 2),
            "opened": dict(watch.opened),
            "service_back_after": round(max(late, default=0.0), 2),
            "at_the_end": state["verdict"],
        }


if __name__ == "__main__":
    if sys.argv[1] == "providers":
        asyncio.run(providers())
    else:
        print(json.dumps(asyncio.run(cut(float(sys.argv[1])))))

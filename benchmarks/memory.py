"""Does memory stay flat? A million calls through the gateway while its upstreams fail in one way after another.

    python -m benchmarks.memory [--calls 1000000] [--connections 32] [--limit-mb 5]

The upstreams are the project's simulated providers, in a process of their own. After every two-hundredth part of the
calls the next fault begins at the next provider, so that each kind has been seen when the warm-up (a tenth) ends.
Exit status 1 when resident memory grew by more than the limit after the warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from benchmarks.processes import LOOPBACK, Child, Cores, free_ports, open_files, pick_cores, rss_mb, threads
from benchmarks.proxies import Seawall, write_gateway_config
from benchmarks.report import RESULTS, grid
from benchmarks.rounds import say
from benchmarks.traffic import Traffic, running

FAULTS = (
    *("status_503_html", "refuse", "html_200", "reset_after_reading", "status_429", "slow", "truncated_json"),
    *("rpc_internal", "close_on_accept", "wrong_id", "stale_head", "reset_mid_body", "rpc_rate_limit", "empty_200"),
    *("status_500", "reset_on_accept", "extra_bytes", "truncated_chunked", "huge_header", "hang_before_head"),
)
FAULT_SECONDS = 0.5
STEPS = 200  # a fault begins after each of these parts
MARKS = (10, 25, 50, 100)  # per cent of the calls
WARM_UP = 10
PROVIDERS = 3


@dataclass(frozen=True)
class Sample:
    percent: int
    seconds: float
    rss_mb: float
    open_files: int
    threads: int


def begin_fault(control: int, provider: int, fault: str) -> None:
    """Make a simulated provider fail for a while."""
    order = {"provider": provider, "fault": fault, "for": FAULT_SECONDS}
    with socket.create_connection((LOOPBACK, control), timeout=10) as connection:
        connection.sendall(json.dumps(order).encode() + b"\n")
        answer = connection.recv(4096)
    if not answer.startswith(b"done"):
        raise ValueError(f"fault {fault} {answer.decode().strip()}")


def sample(child: Child, percent: int, started: float) -> Sample:
    return Sample(
        percent=percent,
        seconds=time.monotonic() - started,
        rss_mb=rss_mb(child.pid),
        open_files=open_files(child.pid),
        threads=threads(child.pid),
    )


async def drive(child: Child, traffic: Traffic, connections: int, control: int) -> list[Sample]:
    started = time.monotonic()
    samples = [sample(child, 0, started)]
    async with running(traffic, connections):
        for step, fault in zip(range(1, STEPS + 1), itertools.cycle(FAULTS), strict=False):
            await traffic.reach(traffic.total * step // STEPS)
            percent = step * 100 / STEPS
            if percent in MARKS:
                samples.append(sample(child, int(percent), started))
                say(f"  {percent:.0f} %: {samples[-1].rss_mb:.1f} MB")
            if step < STEPS:
                await asyncio.to_thread(begin_fault, control, step % PROVIDERS, fault)
    return samples


def report(samples: Sequence[Sample], traffic: Traffic, limit: float) -> int:
    rows = [
        (f"{one.percent} %", f"{one.seconds:.0f}", f"{one.rss_mb:.1f}", str(one.open_files), str(one.threads))
        for one in samples
    ]
    print(grid(("calls", "after s", "RSS MB", "open files", "threads"), rows))
    print("\noutcomes: " + ", ".join(f"{name} {count:,}" for name, count in traffic.outcomes.most_common()))
    growth = samples[-1].rss_mb - next(one for one in samples if one.percent == WARM_UP).rss_mb
    flat = growth <= limit
    print(f"{'flat' if flat else 'NOT FLAT'}: {growth:+.1f} MB after the warm-up (limit {limit:g} MB)")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("memory-%Y%m%d-%H%M%S.json", time.gmtime())
    found = {"calls": traffic.total, "outcomes": traffic.outcomes, "growth_mb": growth}
    path.write_text(json.dumps({**found, "samples": [asdict(one) for one in samples]}, indent=1) + "\n")
    print(f"written: benchmarks/results/{path.name}")
    return 0 if flat else 1


def start(folder: Path, children: contextlib.ExitStack, cores: Cores) -> tuple[int, int, Child]:
    """The providers and the gateway in front of them: the gateway's port, the control port, the gateway."""
    port, operations, control, *ports = free_ports(3 + PROVIDERS)
    argv = [sys.executable, "-m", "benchmarks.providers", "--control", str(control)]
    argv += [word for one in ports for word in ("--port", str(one))]
    providers = children.enter_context(Child("providers", argv, core=cores.load, folder=folder))
    providers.wait_listening(control)
    urls = [f"http://127.0.0.1:{one}" for one in ports]
    config = write_gateway_config(folder / "gateway.yaml", port, operations, urls)
    argv = [sys.executable, "-m", "gateway", "serve", str(config)]
    child = children.enter_context(Child("gateway", argv, core=cores.proxy, folder=folder))
    child.wait_listening(port)
    return port, control, child


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--limit-mb", type=float, default=5.0)
    chosen = parser.parse_args()
    if reason := Seawall().missing():
        print(f"nothing measured: {reason}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cores = pick_cores()
    os.sched_setaffinity(0, {cores.load})
    with tempfile.TemporaryDirectory(prefix="seawall-memory-") as name, contextlib.ExitStack() as children:
        port, control, child = start(Path(name), children, cores)
        traffic = Traffic(port, chosen.calls)
        try:
            samples = uvloop.run(drive(child, traffic, chosen.connections, control))
        except TimeoutError:
            waiting = traffic.started - traffic.finished
            say(f"stalled: {waiting} calls have no answer, {traffic.finished} have\n{child.log_tail()}")
            return 1
    return report(samples, traffic, chosen.limit_mb)


if __name__ == "__main__":
    sys.exit(main())

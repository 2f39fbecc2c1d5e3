"""Where the time of one request goes inside the gateway: the top functions by their own time, per request.

    python -m benchmarks.profile [--top 40] [--seconds 5] [--connections 32] [--tls] [--by own|cumulative]

A profiler that records every call makes each call dearer (Python functions more than C ones), so the figures rank
functions; they do not add up to the real cost. The unprofiled cost is measured in the same run and printed above.
"""

from __future__ import annotations

import argparse
import os
import pstats
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import certificates, load
from benchmarks.processes import Child, pick_cores
from benchmarks.proxies import Endpoints, Launch, Seawall
from benchmarks.report import grid
from benchmarks.rounds import Bench, Settings, Target

DUMPED = "requests.prof"
PLACE = re.compile(r".*(?:site-packages|lib/python[\d.]+)/")


@dataclass(frozen=True)
class Line:
    """One function's share of one request."""

    function: str
    own_us: float
    cumulative_us: float
    calls: float


class Profiled(Seawall):
    """The gateway, started through the module that holds the profiler."""

    def launch(self, folder: Path, port: int, spare: int, endpoints: Endpoints) -> Launch:
        usual = super().launch(folder, port, spare, endpoints)
        self.dump = folder / DUMPED
        serve = usual.argv[usual.argv.index("serve") :]
        return Launch([sys.executable, "-m", "benchmarks.profiled", str(self.dump), *serve], usual.env)


def name_of(function: tuple[str, int, str]) -> str:
    """`gateway/edge/rpc.py:12 answer`, without the folders of this machine."""
    path, line, name = function
    if path == "~":
        return name
    short = path.removeprefix(str(Path.cwd()) + os.sep)
    return f"{PLACE.sub('', short)}:{line} {name}"


def read_lines(dump: Path, requests: int) -> list[Line]:
    """The recorded functions, divided by the number of requests during the recording."""
    per = 1e6 / max(requests, 1)
    recorded = pstats.Stats(str(dump)).stats  # type: ignore[attr-defined]  # missing from the type stubs
    return [
        Line(name_of(function), own * per, cumulative * per, calls / max(requests, 1))
        for function, (_, calls, own, cumulative, _) in recorded.items()
    ]


def wait_for(path: Path, child: Child, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline or not child.alive():
            raise TimeoutError(f"the gateway wrote no profile:\n{child.log_tail()}")
        time.sleep(0.1)


def record(bench: Bench, target: Target, child: Child, dump: Path, connections: int) -> tuple[float, int, list[Line]]:
    """(unprofiled CPU us per request, requests recorded, lines)."""
    bench.measure(target, connections)
    plain_us = target.cells[connections][-1].cpu_us
    child.signal(signal.SIGUSR1)
    sent = target.sent
    bench.measure(target, connections)
    child.signal(signal.SIGUSR2)
    requests = target.sent - sent
    wait_for(dump, child)
    return plain_us, requests, read_lines(dump, requests)


def render(lines: Sequence[Line], top: int, by: str) -> str:
    ordered = sorted(lines, key=lambda line: line.own_us if by == "own" else line.cumulative_us, reverse=True)
    rows = [
        (f"{line.own_us:.2f}", f"{line.cumulative_us:.2f}", f"{line.calls:.2f}", line.function)
        for line in ordered[:top]
    ]
    return grid(("own us", "cumulative us", "calls", "function"), rows, words=3)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__.partition("\n")[0])
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, choices=(1, 32, 256), default=32)
    parser.add_argument("--tls", action="store_true", help="TLS to the upstream")
    parser.add_argument("--by", choices=("own", "cumulative"), default="own")
    parser.add_argument("--call", choices=sorted(load.CALLS), default="block-number")
    chosen = parser.parse_args()
    proxy = Profiled()
    if reason := load.missing() or proxy.missing() or (certificates.missing() if chosen.tls else None):
        print(f"nothing profiled: {reason}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cores = pick_cores()
    os.sched_setaffinity(0, {cores.load})
    with Bench(chosen.tls, cores, Settings(seconds=chosen.seconds, call=chosen.call)) as bench:
        bench.add(proxy)
        target = bench.targets[-1]
        if target.child is None:
            print(f"nothing profiled: {bench.absent[proxy.name]}")
            return 1
        plain_us, requests, lines = record(bench, target, target.child, proxy.dump, chosen.connections)
    total = sum(line.own_us for line in lines)
    print(f"{plain_us:.1f} us CPU per request without the profiler; {total:.1f} us recorded over {requests} requests\n")
    print(render(lines, chosen.top, chosen.by))
    return 0


if __name__ == "__main__":
    sys.exit(main())

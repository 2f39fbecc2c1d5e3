"""One mode (plaintext or TLS to the upstream): starts everything, then measures in interleaved rounds."""

from __future__ import annotations

import contextlib
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import load
from benchmarks.certificates import Certificates, make
from benchmarks.processes import Child, Cores, StartFailedError, core_seconds, cpu_seconds, free_ports, rss_mb
from benchmarks.proxies import Endpoints, Proxy

CONNECTIONS = (1, 32, 256)
BLOCK = 100  # one-connection calls per target before it is the next one's turn


@dataclass(frozen=True)
class Settings:
    rounds: int = 3
    seconds: int = 3
    singles: int = 3000  # one-connection calls per target, in all
    call: str = "block-number"


@dataclass(frozen=True)
class Cell:
    """One run of wrk against one target."""

    cpu_us: float  # of the proxy, per request; 0 for direct
    busy: float  # share of one core that the proxy used
    per_second: float
    p50: float
    p99: float
    errors: int
    strangers: float  # share of the proxy's core that went to anything else


@dataclass
class Target:
    """What is measured: the upstream itself (no child) or a proxy in front of it."""

    name: str
    port: int
    child: Child | None = None
    cells: dict[int, list[Cell]] = field(default_factory=lambda: {count: [] for count in CONNECTIONS})
    singles: list[float] = field(default_factory=list)  # milliseconds
    single_errors: int = 0
    sent: int = 0
    forwarded: int = 0
    rss_start: float = 0.0
    rss_end: float = 0.0

    def median(self, connections: int) -> Cell:
        """Each figure's median over the rounds; errors are added up."""
        cells = self.cells[connections]
        return Cell(
            cpu_us=statistics.median(cell.cpu_us for cell in cells),
            busy=statistics.median(cell.busy for cell in cells),
            per_second=statistics.median(cell.per_second for cell in cells),
            p50=statistics.median(cell.p50 for cell in cells),
            p99=statistics.median(cell.p99 for cell in cells),
            errors=sum(cell.errors for cell in cells),
            strangers=statistics.median(cell.strangers for cell in cells),
        )

    def single(self, percent: int) -> float:
        return statistics.quantiles(self.singles, n=100)[percent - 1] if len(self.singles) > 1 else float("nan")

    def errors(self) -> int:
        return self.single_errors + sum(cell.errors for cells in self.cells.values() for cell in cells)

    def forwarded_share(self) -> float:
        """Calls the upstream answered per call sent: below 1 the proxy answered by itself, above 1 it asked twice."""
        return self.forwarded / self.sent if self.sent else 1.0

    def as_json(self) -> dict[str, object]:
        runs = {str(count): [asdict(cell) for cell in cells] for count, cells in self.cells.items()}
        medians = {str(count): asdict(self.median(count)) for count in self.cells}
        one: dict[str, float] = {"calls": len(self.singles), "errors": self.single_errors}
        if len(self.singles) > 1:
            one |= {"p50_ms": self.single(50), "p99_ms": self.single(99)}
        return {
            "medians": medians,
            "runs": runs,
            "one_connection": one,
            "rss_mb": {"start": self.rss_start, "end": self.rss_end},
            "forwarded_share": self.forwarded_share(),
        }


@dataclass
class Mode:
    """All that one mode produced."""

    name: str
    targets: list[Target]
    absent: dict[str, str]  # proxy -> why it was not measured

    def target(self, name: str) -> Target | None:
        return next((one for one in self.targets if one.name == name), None)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """Everything that runs during one mode; use as a context manager, it ends what it started."""

    def __init__(self, tls: bool, cores: Cores, settings: Settings) -> None:
        self.tls = tls
        self._cores = cores
        self._settings = settings
        self._exits = contextlib.ExitStack()
        self.targets: list[Target] = []
        self.absent: dict[str, str] = {}

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as exits:
            self._folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="seawall-bench-")))
            self._script = load.write_script(self._folder, self._settings.call)
            self._start_upstream(exits)
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    def _start_upstream(self, exits: contextlib.ExitStack) -> None:
        ports = free_ports(4)
        self._count_port = ports[0]  # plaintext in both modes, never put under load
        serving = ports[1:]
        argv = [sys.executable, "-m", "benchmarks.upstream", "--port", str(self._count_port)]
        certificates: Certificates | None = None
        if self.tls:
            certificates = make(self._folder)
            argv += [word for port in serving for word in ("--tls-port", str(port))]
            argv += ["--certificate", str(certificates.certificate), "--key", str(certificates.key)]
        else:
            argv += [word for port in serving for word in ("--port", str(port))]
        upstream = exits.enter_context(Child("upstream", argv, core=self._cores.load, folder=self._folder))
        for port in ports:
            upstream.wait_listening(port)
        authority = certificates.authority if certificates else None
        self.endpoints = Endpoints(serving, authority)
        self._context = ssl.create_default_context(cafile=str(authority)) if authority else None
        self.targets.append(Target("direct", serving[0]))

    def add(self, proxy: Proxy) -> None:
        """Start a proxy and see it answer; one that cannot is remembered with the reason."""
        reason = proxy.missing()
        if not reason:
            try:
                self._start(proxy)
            except (StartFailedError, OSError) as failure:
                reason = f"did not start: {failure}"
        if reason:
            self.absent[proxy.name] = reason
            say(f"  {proxy.name}: {reason}")

    def _start(self, proxy: Proxy) -> None:
        folder = self._folder / proxy.name
        folder.mkdir()
        port, spare = free_ports(2)
        launch = proxy.launch(folder, port, spare, self.endpoints)
        child = Child(proxy.name, launch.argv, core=self._cores.proxy, folder=self._folder, env=launch.env)
        self._exits.enter_context(child)
        child.wait_listening(port)
        target = Target(proxy.name, port, child)
        self._wait_answering(target, child)
        load.run_wrk(f"http://127.0.0.1:{port}{load.PATH}", self._script, max(CONNECTIONS), 1)  # fills its pools
        target.rss_start = rss_mb(child.pid)
        self.targets.append(target)

    def _wait_answering(self, target: Target, child: Child, seconds: float = 20.0) -> None:
        """Wait until a call comes back with its own id: a proxy that is still looking around may say no at first."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with contextlib.closing(self._connect(target)) as connection:
                    for _ in range(20):
                        connection.checked_call()
                return
            except (OSError, ValueError) as failure:
                if time.monotonic() > deadline or not child.alive():
                    raise StartFailedError(f"{failure}\n{child.log_tail()}") from failure
                time.sleep(0.2)

    def _connect(self, target: Target) -> load.OneConnection:
        direct = target.child is None
        return load.OneConnection(target.port, self._settings.call, self._context if direct else None)

    def upstream_calls(self) -> int:
        with contextlib.closing(load.OneConnection(self._count_port, self._settings.call)) as connection:
            return int(connection.exchange("GET", "/count")[1])

    def measure(self, target: Target, connections: int) -> None:
        """One run of wrk, with the proxy's CPU time and the upstream's count read around it."""
        scheme = self.endpoints.scheme if target.child is None else "http"
        url = f"{scheme}://127.0.0.1:{target.port}{load.PATH}"
        pid = target.child.pid if target.child else None
        calls = self.upstream_calls()
        core = core_seconds(self._cores.proxy)
        cpu = cpu_seconds(pid) if pid else 0.0
        try:
            seen = load.run_wrk(url, self._script, connections, self._settings.seconds)
        except subprocess.SubprocessError:  # wrk ends so when nobody listens
            say(f"  {target.name}: wrk could not be run against it")
            seen = load.Load(requests=0, seconds=self._settings.seconds, p50=0.0, p99=0.0, errors=1)
        used = max(cpu_seconds(pid) - cpu, 0.0) if pid else 0.0
        strange = max(core_seconds(self._cores.proxy) - core - used, 0.0)
        target.sent += seen.requests
        target.forwarded += self.upstream_calls() - calls
        target.cells[connections].append(
            Cell(
                cpu_us=used / max(seen.requests, 1) * 1e6,
                busy=used / seen.seconds,
                per_second=seen.requests / seen.seconds,
                p50=seen.p50,
                p99=seen.p99,
                errors=seen.errors,
                strangers=0.0 if self._cores.shared else strange / seen.seconds,
            )
        )

    def measure_singles(self) -> None:
        """The latency of one connection: short blocks against each target in turn, so that all see the same machine."""
        kept: dict[str, load.OneConnection] = {}
        for _ in range(max(self._settings.singles // BLOCK, 1)):
            for target in self.targets:
                try:
                    connection = kept.get(target.name) or kept.setdefault(target.name, self._connect(target))
                    target.singles.extend(connection.call()[0] * 1e3 for _ in range(BLOCK))
                except OSError as failure:
                    say(f"  {target.name}: {failure}")
                    target.single_errors += 1
                    if broken := kept.pop(target.name, None):
                        broken.close()
        for connection in kept.values():
            connection.close()

    def finish(self) -> Mode:
        for target in self.targets:
            if target.child:
                target.rss_end = rss_mb(target.child.pid)
        return Mode("tls" if self.tls else "plaintext", self.targets, self.absent)


def turns(targets: Sequence[Target], rounds: int) -> Iterator[tuple[int, int, Target]]:
    """(round, connections, target): round-robin over the targets, another one first in each round."""
    for number in range(rounds):
        first = number % len(targets)
        order = [*targets[first:], *targets[:first]]
        for connections in CONNECTIONS:
            for target in order:
                yield number, connections, target


def run_mode(
    tls: bool, proxies: Sequence[Proxy], cores: Cores, settings: Settings, progress: Callable[[str], None] = say
) -> Mode:
    with Bench(tls, cores, settings) as bench:
        progress(f"{'TLS' if tls else 'plaintext'} to the upstream: starting")
        for proxy in proxies:
            bench.add(proxy)
        for number, connections, target in turns(bench.targets, settings.rounds):
            bench.measure(target, connections)
            cell = target.cells[connections][-1]
            progress(
                f"  round {number + 1}/{settings.rounds} {connections:>3} connections {target.name:<8}"
                f" {cell.cpu_us:7.1f} us/request {cell.per_second:9.0f} requests/s"
            )
        progress("  one connection, interleaved")
        bench.measure_singles()
        return bench.finish()

"""Child processes: start pinned to one core, watch what they use, end by the id that was started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Cores:
    """Where things run: the proxy under test alone on one core, everything else on the other."""

    load: int
    proxy: int

    @property
    def shared(self) -> bool:
        return self.load == self.proxy


def pick_cores() -> Cores:
    """The first and the last core this process may use (the same one on a one-core machine)."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(load=allowed[0], proxy=allowed[-1])


@contextlib.contextmanager
def pinned(core: int) -> Iterator[None]:
    """Pin this process for the duration of the block; what it starts inside inherits the pin."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class StartFailedError(RuntimeError):
    """A child ended, or did not answer, before it could be measured."""


class Child:
    """One started process with its log; leaving the `with` block ends it."""

    def __init__(
        self, name: str, argv: Sequence[str], *, core: int, folder: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with pinned(core), self._log.open("wb") as log:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def alive(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        return self._process.wait(seconds)

    def stop(self, patience: float = 10.0) -> None:
        """SIGTERM, then SIGKILL to the session that was made for this child (so that no worker is left over)."""
        if self.alive():
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(patience)

    def log_tail(self, lines: int = 12) -> str:
        text = self._log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def wait_listening(self, port: int, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.alive():
                break
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1.0):
                return
            time.sleep(0.05)
        raise StartFailedError(f"{self.name} does not listen on port {port}:\n{self.log_tail()}")


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command name; None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def family(pid: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of the process, its living descendants and its reaped children."""
    ticks = 0
    for one in family(pid):
        if stat := _stat(one):
            ticks += sum(int(field) for field in stat[11:15])
    return ticks / TICKS


def core_seconds(core: int) -> float:
    """Time in which the core ran any program, or was taken away by the host; interrupts are not in it."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, steal = (int(fields[at]) for at in (0, 1, 2, 7))
            return (user + nice + system + steal) / TICKS
    return 0.0


def _status_kib(pid: int, key: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key + ":")), 0)


def rss_mb(pid: int) -> float:
    """Resident memory of the process and its descendants, in MB (pages they share count once for each)."""
    return sum(_status_kib(one, "VmRSS") for one in family(pid)) * 1024 / 1e6


def open_files(pid: int) -> int:
    return sum(len(os.listdir(f"/proc/{one}/fd")) for one in family(pid))


def threads(pid: int) -> int:
    return sum(_status_kib(one, "Threads") for one in family(pid))

"""One upstream event to ten thousand sockets: how long, how much CPU, how much memory a socket?

    python -m benchmarks.fanout [--sockets 10000] [--events 10] [--slow 100] [--rounds 1]

Seawall over one simulated provider, beside the floor: a plain `websockets` server that answers the same
subscription and broadcasts a header of the same size.  Both are measured in the same run, in turn, by the same
client: bare sockets under epoll that count frames.  The server has one core, the client (and the provider) the
other.  With `--slow`, so many callers subscribe and never read; the others are measured.
Each socket takes a descriptor on both sides, so the count is lowered to what the limit allows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import select
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.processes import LOOPBACK, Child, Cores, cpu_seconds, free_ports, pick_cores, rss_mb
from benchmarks.report import RESULTS, grid
from benchmarks.rounds import say

BLOCK_TIME = 2.0  # seconds between two events
SPARE_DESCRIPTORS = 300
SUBSCRIBE = b'{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}'
MASKED = bytes((0x81, 0x80 | len(SUBSCRIBE))) + bytes(4) + SUBSCRIBE
HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
AT_ONCE = 200  # handshakes under way
SERVERS = ("websockets", "seawall")


@dataclass(frozen=True)
class Measured:
    """One server in one round.  Times in milliseconds from the first socket that has an event."""

    server: str
    sockets: int
    slow: int
    events: int
    event_bytes: int
    median_ms: float
    last_ms: float
    cpu_us: float  # of the server, for each event delivered
    kb_a_socket: float
    lost: int


class Crowd:
    """Many sockets that are subscribed, in one epoll."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.sockets: dict[int, socket.socket] = {}
        self.buffers: dict[int, bytearray] = {}
        self.slow: list[socket.socket] = []
        self.event_bytes = 0

    def join(self, port: int, path: bytes, count: int, slow: int) -> None:
        """Open `count` sockets, and `slow` more that never read after they are subscribed."""
        left = count + slow
        while left:
            batch = [self._connect(port, path) for _ in range(min(AT_ONCE, left))]
            left -= len(batch)
            for one in batch:
                _read_until(one, b"\r\n\r\n")
                one.sendall(MASKED)
            for one in batch:
                rest = _read_until(one, b'"id":1')
                self._keep(one, rest, slow=len(self.slow) < slow)

    def _connect(self, port: int, path: bytes) -> socket.socket:
        one = socket.create_connection((LOOPBACK, port), timeout=30)
        one.sendall(HANDSHAKE % path)
        return one

    def _keep(self, one: socket.socket, rest: bytes, slow: bool) -> None:
        if slow:
            self.slow.append(one)
            return
        one.setblocking(False)
        self.sockets[one.fileno()] = one
        self.buffers[one.fileno()] = bytearray(_after_answer(rest))
        self.poll.register(one.fileno(), select.EPOLLIN)

    def hear(self, seconds: float) -> list[tuple[int, float]]:
        """Listen for so long; (how many events this socket has had, when) for each frame."""
        heard: list[tuple[int, float]] = []
        counts = dict.fromkeys(self.sockets, 0)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for fd, _ in self.poll.poll(left):
                data = self.sockets[fd].recv(65536)
                if not data:
                    self.poll.unregister(fd)
                    continue
                buffer = self.buffers[fd]
                buffer += data
                at = time.monotonic()
                while (size := _frame_size(buffer)) and len(buffer) >= size:
                    self.event_bytes = max(self.event_bytes, size)
                    del buffer[:size]
                    counts[fd] += 1
                    heard.append((counts[fd], at))
        return heard

    def close(self) -> None:
        for one in (*self.sockets.values(), *self.slow):
            one.close()
        self.poll.close()


def _read_until(one: socket.socket, mark: bytes) -> bytes:
    text = b""
    while mark not in text:
        data = one.recv(65536)
        if not data:
            raise ConnectionError(f"closed after {text[:100]!r}")
        text += data
    return text


def _after_answer(text: bytes) -> bytes:
    """What follows the frame that answers the subscription."""
    while (size := _frame_size(text)) and len(text) >= size:
        frame, text = text[:size], text[size:]
        if b'"id":1' in frame:
            break
    return text


def _frame_size(buffer: bytes | bytearray) -> int:
    """Bytes of the frame at the beginning, header included; 0 while it cannot be told."""
    if len(buffer) < 2:
        return 0
    size = buffer[1] & 0x7F
    if size < 126:
        return 2 + size
    wide = 2 if size == 126 else 8
    return 2 + wide + int.from_bytes(buffer[2 : 2 + wide], "big") if len(buffer) >= 2 + wide else 0


# --- the two servers --------------------------------------------------------------------------------


async def serve_plain(port: int) -> None:
    """The floor: subscribe, and be told a header every two seconds."""
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    callers: set[ServerConnection] = set()
    header = json.dumps(
        {
            "jsonrpc": "2.0",
            "method": "eth_subscription",
            "params": {"subscription": "0x" + "ab" * 16, "result": {"number": "0x1", "logsBloom": "0x" + "00" * 689}},
        }
    )

    async def talk(caller: ServerConnection) -> None:
        async for _ in caller:
            await caller.send('{"jsonrpc":"2.0","id":1,"result":"0x' + "ab" * 16 + '"}')
            callers.add(caller)
        callers.discard(caller)

    async with serve(talk, LOOPBACK, port, compression=None, ping_interval=None, backlog=2048):
        while True:
            await asyncio.sleep(BLOCK_TIME)
            broadcast(callers, header)


def write_config(folder: Path, port: int, operations: int, provider: int, sockets: int) -> Path:
    path = folder / "fanout.yaml"
    path.write_text(
        f"""listen: {LOOPBACK}:{port}
operations: {{ listen: "{LOOPBACK}:{operations}" }}
limits: {{ connections: {2 * sockets + 2000} }}
websockets: {{ sockets: {2 * sockets}, ping_every: 600s }}
routes:
  local: {{ chain_id: 31337, endpoints: [ {{ url: "http://{LOOPBACK}:{provider}", ws: true }} ] }}
telemetry: {{ log: {{ level: error }} }}
"""
    )
    return path


async def serve_provider(port: int) -> None:
    from gateway.clock import monotonic
    from gateway.drill.chain import SimulatedChain
    from gateway.drill.provider import SimulatedProvider

    chain = SimulatedChain(31337, BLOCK_TIME, monotonic() - 1000 * BLOCK_TIME)
    provider = SimulatedProvider("p0", chain, clock=monotonic)
    await provider.start(LOOPBACK, port)
    await asyncio.Event().wait()


@contextlib.contextmanager
def running(server: str, cores: Cores, folder: Path, sockets: int) -> Iterator[tuple[Child, int, bytes]]:
    """The server on its own core; gives the child, the port and the path."""
    port, operations, provider = free_ports(3)
    me = [sys.executable, "-m", "benchmarks.fanout"]
    if server == "websockets":
        with Child("plain", [*me, "--serve-plain", str(port)], core=cores.proxy, folder=folder) as child:
            child.wait_listening(port)
            yield child, port, b"/"
        return
    with Child("provider", [*me, "--serve-provider", str(provider)], core=cores.load, folder=folder) as upstream:
        upstream.wait_listening(provider)
        config = write_config(folder, port, operations, provider, sockets)
        argv = [sys.executable, "-m", "gateway", "serve", str(config)]
        with Child("seawall", argv, core=cores.proxy, folder=folder) as child:
            child.wait_listening(port)
            time.sleep(2.0)
            yield child, port, b"/local"


def measure(server: str, cores: Cores, folder: Path, sockets: int, slow: int, events: int) -> Measured:
    with running(server, cores, folder, sockets + slow) as (child, port, path):
        warm = Crowd()
        warm.join(port, path, 10, 0)
        warm.hear(2 * BLOCK_TIME)
        before = rss_mb(child.pid)
        crowd = Crowd()
        crowd.join(port, path, sockets, slow)
        crowd.hear(2 * BLOCK_TIME)  # everybody is there, and buffers have their size
        after = rss_mb(child.pid)
        used = cpu_seconds(child.pid)
        heard = crowd.hear(events * BLOCK_TIME)
        used = cpu_seconds(child.pid) - used
        times: dict[int, list[float]] = {}
        for number, at in heard:
            times.setdefault(number, []).append(at)
        whole = {number: sorted(each) for number, each in times.items() if len(each) >= 0.99 * sockets}
        firsts = {number: each[0] for number, each in whole.items()}
        made = Measured(
            server=server,
            sockets=sockets,
            slow=slow,
            events=len(whole),
            event_bytes=crowd.event_bytes,
            median_ms=1e3 * statistics.median(statistics.median(e) - firsts[n] for n, e in whole.items()),
            last_ms=1e3 * statistics.median(e[-1] - firsts[n] for n, e in whole.items()),
            cpu_us=1e6 * used / len(heard),
            kb_a_socket=1000 * (after - before) / (sockets + slow),
            lost=sum(sockets - len(each) for each in whole.values()),
        )
        crowd.close()
        warm.close()
        return made


def main() -> int:
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=about)
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--slow", type=int, default=100, help="callers that never read, in a round of their own")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--serve-plain", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve-provider", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if chosen.serve_plain or chosen.serve_provider:
        import uvloop

        work = serve_plain(chosen.serve_plain) if chosen.serve_plain else serve_provider(chosen.serve_provider)
        uvloop.run(work)
        return 0
    # The listener takes at most half of its descriptors.
    sockets = min(chosen.sockets, soft // 2 - chosen.slow - SPARE_DESCRIPTORS)
    if sockets < chosen.sockets:
        say(f"{sockets} sockets instead of {chosen.sockets}: descriptors are limited to {soft}")
    cores = pick_cores()
    os.sched_setaffinity(0, {cores.load})
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(chosen.rounds):
            for slow in (0, chosen.slow) if chosen.slow else (0,):
                for server in SERVERS:
                    made = measure(server, cores, Path(folder), sockets, slow, chosen.events)
                    rows.append(made)
                    say(
                        f"round {number + 1}/{chosen.rounds} {server:10} {slow:4} slow: "
                        f"last {made.last_ms:7.1f} ms, "
                        f"{made.cpu_us:5.1f} us an event, {made.kb_a_socket:5.1f} KB a socket"
                    )
    print(f"\n{render(rows)}", flush=True)
    path = RESULTS / time.strftime("fanout-%Y%m%d-%H%M%S.json", time.gmtime())
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(f"\nwritten: benchmarks/results/{path.name}")
    return 0


def render(rows: list[Measured]) -> str:
    """Medians over the rounds, with the floor as 1."""
    header = [
        "server",
        "slow",
        "p50 ms",
        "last ms",
        "x floor",
        "CPU us/event",
        "x floor",
        "KB/socket",
        "x floor",
        "lost",
    ]
    table = []
    for slow in sorted({row.slow for row in rows}):
        floor: Measured | None = None
        for server in SERVERS:
            own = [row for row in rows if row.server == server and row.slow == slow]
            if not own:
                continue
            middle = Measured(
                **{
                    **asdict(own[0]),
                    **{
                        name: statistics.median(getattr(row, name) for row in own)
                        for name in ("median_ms", "last_ms", "cpu_us", "kb_a_socket")
                    },
                    "lost": sum(row.lost for row in own),
                }
            )
            floor = floor or middle
            table.append(
                [
                    server,
                    str(slow),
                    f"{middle.median_ms:.1f}",
                    f"{middle.last_ms:.1f}",
                    f"{middle.last_ms / floor.last_ms:.2f}x",
                    f"{middle.cpu_us:.1f}",
                    f"{middle.cpu_us / floor.cpu_us:.2f}x",
                    f"{middle.kb_a_socket:.1f}",
                    f"{middle.kb_a_socket / floor.kb_a_socket:.2f}x",
                    str(middle.lost),
                ]
            )
    sizes = {row.server: row.event_bytes for row in rows}
    told = ", ".join(f"{size} bytes ({server})" for server, size in sizes.items())
    return f"{rows[0].sockets} sockets, events of {told}\n{grid(header, table)}"


if __name__ == "__main__":
    sys.exit(main())

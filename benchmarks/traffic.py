"""A closed loop of JSON-RPC calls over a fixed number of connections that survives whatever the answers are.

wrk cannot be used where every answer must be looked at: here each one must carry its call's id, and each refusal is
counted by its reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from benchmarks.load import PATH

HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
REASON = re.compile(rb'"reason"\s*:\s*"([a-z_]+)"')
RECONNECT_SECONDS = 0.05
STALL_SECONDS = 60.0


@dataclass
class Traffic:
    """What has been sent and how it ended; shared by all connections."""

    port: int
    total: int
    started: int = 0
    finished: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    _awaited: int = 0
    _reached: asyncio.Event = field(default_factory=asyncio.Event)

    def next_number(self) -> int | None:
        if self.started >= self.total:
            return None
        self.started += 1
        return self.started

    def end(self, outcome: str) -> None:
        self.finished += 1
        self.outcomes[outcome] += 1
        if self.finished >= self._awaited:
            self._reached.set()

    async def reach(self, calls: int) -> None:
        """Wait until so many calls have ended; TimeoutError when that takes a minute."""
        self._awaited = calls
        self._reached.clear()
        if self.finished < calls:
            await asyncio.wait_for(self._reached.wait(), STALL_SECONDS)


def request(port: int, number: int) -> bytes:
    """A different account for each call, so that no answer can come from a cache."""
    body = f'{{"jsonrpc":"2.0","id":{number},"method":"eth_getBalance","params":["0x{number:040x}","latest"]}}'
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def outcome_of(head: bytes, body: bytes, number: int) -> str:
    if (b'"id":%d,' % number) not in body.replace(b" ", b"") and (b'"id":%d}' % number) not in body.replace(b" ", b""):
        return f"http {head[9:12].decode()} without this call's id"
    if b'"result"' in body and b'"error"' not in body:
        return "result"
    reason = REASON.search(body)
    return f"error {reason[1].decode() if reason else 'without a reason'}"


class Caller(asyncio.Protocol):
    """One keep-alive connection; the next call leaves when the answer to the last one is complete."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._number: int | None = None
        self._data = b""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._number is not None:
            self._traffic.end("connection lost")
        if not self.closed.done():
            self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, mark, body = self._data.partition(HEAD_END)
        if not mark:
            return
        length = LENGTH.search(head)
        if length is None:
            self._transport.close()  # this client sends nothing that should be answered in chunks
            return
        size = int(length[1])
        if len(body) < size or self._number is None:
            return
        self._traffic.end(outcome_of(head, body[:size], self._number))
        self._data = body[size:]
        self._send()

    def _send(self) -> None:
        self._number = self._traffic.next_number()
        if self._number is None:
            self._transport.close()
            return
        self._transport.write(request(self._traffic.port, self._number))  # type: ignore[attr-defined]


async def keep_calling(traffic: Traffic) -> None:
    """One connection after the other until all calls have been started."""
    loop = asyncio.get_running_loop()
    while traffic.started < traffic.total:
        try:
            _, caller = await loop.create_connection(lambda: Caller(traffic), "127.0.0.1", traffic.port)
        except OSError:
            traffic.outcomes["connection refused"] += 1
        else:
            await caller.closed
        await asyncio.sleep(RECONNECT_SECONDS)


async def stop(callers: Sequence[asyncio.Task[None]]) -> None:
    for caller in callers:
        caller.cancel()
    for ended in await asyncio.gather(*callers, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


@contextlib.asynccontextmanager
async def running(traffic: Traffic, connections: int) -> AsyncIterator[None]:
    """The traffic, in the background of the block; leaving the block ends it."""
    callers = [asyncio.create_task(keep_calling(traffic)) for _ in range(connections)]
    try:
        yield
    finally:
        await stop(callers)

"""A plain caller: keep-alive HTTP/1.1 by hand, fast enough not to be what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Told:
    """One answer: HTTP status, headers (lower case), parsed body, and how long it took (seconds)."""

    status: int
    headers: dict[str, str]
    body: Any
    took: float


class Caller:
    """One connection to the gateway, from `source` if given; opened again when the gateway closes it."""

    def __init__(self, port: int, path: str, headers: dict[str, str] | None = None, source: str = "") -> None:
        self._port = port
        self._from = (source, 0) if source else None
        self._head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in (headers or {}).items()
        )
        self._ids = itertools.count(1)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, method: str, *params: Any) -> Told:
        return await self.send({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)})

    async def send(self, body: Any) -> Told:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        began = time.perf_counter()
        if self._writer is None or self._writer.is_closing() or (self._reader is not None and self._reader.at_eof()):
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1", self._port, limit=1 << 24, local_addr=self._from
            )
        assert self._reader is not None
        self._writer.write(f"{self._head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
        if headers.get("transfer-encoding") == "chunked":
            data = await self._chunked()
        else:
            data = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            await self.close()
        return Told(int(lines[0].split()[1]), headers, json.loads(data) if data else None, time.perf_counter() - began)

    async def _chunked(self) -> bytes:
        assert self._reader is not None
        pieces = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            pieces.append(await self._reader.readexactly(size))
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
        return b"".join(pieces)

    async def close(self) -> None:
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def __aenter__(self) -> Caller:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@dataclass
class Tally:
    """What many calls came to."""

    told: list[Told] = field(default_factory=list)

    @property
    def lost(self) -> list[Told]:
        """Calls without a result."""
        return [t for t in self.told if not isinstance(t.body, dict) or "result" not in t.body]

    def quantile(self, share: float) -> float:
        """Seconds; `share` such as 0.99."""
        ordered = sorted(t.took for t in self.told)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def many(port: int, path: str, count: int, lanes: int, method: str = "eth_blockNumber", *params: Any) -> Tally:
    """`count` calls over `lanes` connections, each lane one after the other."""
    tally = Tally()
    left = iter(range(count))

    async def lane() -> None:
        caller = Caller(port, path)
        for _ in left:
            tally.told.append(await caller.call(method, *params))
        await caller.close()

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return tally


async def ask(port: int, path: str, how: Any, *arguments: Any) -> Told:
    """One call over a connection of its own: `how` is `Caller.call` or `Caller.send`."""
    async with Caller(port, path) as caller:
        told: Told = await how(caller, *arguments)
        return told

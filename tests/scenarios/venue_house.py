"""The gateway in front of exchanges whose servers record every byte and answer what the test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.assembly import Gateway
from gateway.config.load import load, secrets_of
from gateway.telemetry.redaction import Redactor

PLAIN_VENUE: dict[str, Any] = {
    "name": "plain",
    "title": "Plain",
    "hosts": [{"host": "api.plain.test"}],
    "signing": {"key": ["x-key"], "marks": ["?signature"], "timestamp": "?timestamp", "window": 5},
    "calls": [
        {"do": ["GET /ticker"], "use": "market", "fresh_for": 0.2},
        {"do": ["GET /still"], "use": "market"},
        {"do": ["GET /account"], "use": "account"},
        {
            "do": ["POST /order"],
            "use": "order",
            "client_id": "?id",
            "symbol": "?symbol",
            "found_by": "GET /order?symbol={symbol}&id={client_id}",
        },
    ],
    "errors": {"code": ["code"], "rules": [{"status": ["5xx"], "word": "unknown"}], "wait": {"retry-after": "s"}},
}
"""An exchange without limits, for what is not about limits."""


@dataclass(slots=True)
class Came:
    """One request, as it came."""

    line: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    host: int

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


Answer = bytes | None
"""A whole HTTP answer; None: cut the connection."""


def answer(body: bytes = b"{}", status: int = 200, *headers: tuple[bytes, bytes]) -> bytes:
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d Said\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)


@dataclass
class Recorder:
    """One server.  `say` answers a request; by default with an empty object."""

    number: int
    say: Callable[[Came], Answer] = lambda came: answer()
    came: list[Came] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
                headers = [(name, value) for name, _, value in (line.partition(b": ") for line in head[1:])]
                size = next((int(value) for name, value in headers if name.lower() == b"content-length"), 0)
                body = await reader.readexactly(size) if size else b""
                came = Came(head[0], headers, body, self.number)
                self.came.append(came)
                said = self.say(came)
                if said is None:
                    break
                writer.write(said)
        writer.close()


@dataclass
class VenueHouse:
    """A running gateway with one venue."""

    gateway: Gateway
    servers: list[Recorder]

    @property
    def port(self) -> int:
        return self.gateway.public_port

    @property
    def came(self) -> list[Came]:
        return [came for server in self.servers for came in server.came]

    def status(self) -> dict[str, Any]:
        return dict(self.gateway.status()["routes"][0])


@contextlib.asynccontextmanager
async def venue_house(
    folder: Path,
    *,
    venue: dict[str, Any] | None = None,
    name: str = "",
    count: int = 2,
    extra: str = "",
    route_extra: str = "",
    streams: list[str] | None = None,
) -> AsyncIterator[VenueHouse]:
    """`count` servers behind a route called `plain`: of `venue`, or of the bundled venue `name`."""
    servers = [Recorder(number) for number in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        for recorder in servers:
            server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0, limit=1 << 20)
            stack.callback(server.close)
            recorder.port = server.sockets[0].getsockname()[1]
        said = f"venue: {name}"
        if not name:
            file = folder / "venue.json"
            file.write_text(json.dumps(venue or PLAIN_VENUE))
            said = f"venue_file: {file}"
        rows = "\n".join(f"      - {{id: h{r.number}, url: 'http://127.0.0.1:{r.port}'}}" for r in servers)
        config = folder / "seawall.yaml"
        config.write_text(
            f"listen: 127.0.0.1:0\noperations: {{listen: 127.0.0.1:0}}\n{extra}\nroutes:\n  plain:\n    {said}\n"
            f"    hosts: [plain.localhost]\n    streams: [{', '.join(streams or [])}]\n"
            f"{route_extra}\n    endpoints:\n{rows}\n"
        )
        settings = load(config)
        gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        stack.push_async_callback(gateway.stop, 1.0)
        for recorder in servers:
            recorder.came.clear()
        yield VenueHouse(gateway, servers)


class RawCaller:
    """Sends bytes as they are and reads one answer after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> RawCaller:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 22))

    async def ask(self, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers (names in lower case) and body of the answer."""
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        while head[0].split(b" ")[1] == b"100":
            head = (await self._reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in head[1:])}
        status = int(head[0].split(b" ")[1])
        if headers.get(b"transfer-encoding") == b"chunked":
            body = b""
            while size := int(await self._reader.readline(), 16):
                body += await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            await self._reader.readline()
            return status, headers, body
        return status, headers, await self._reader.readexactly(int(headers.get(b"content-length", 0)))

    async def call(
        self, verb: str, target: str, body: bytes = b"", *headers: tuple[str, str]
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        """A plain request."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (("Host", "localhost"), *headers))
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        return await self.ask(f"{verb} {target} HTTP/1.1\r\n{lines}{length}\r\n".encode() + body)

    def close(self) -> None:
        self._writer.close()

"""A caller of raw bytes, and a runner that tolerates no leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from gateway.drill.provider import SimulatedProvider
from tests.pace import PATIENCE

QUIET = 0.02  # seconds of silence that count as "nothing comes"


class Caller(asyncio.Protocol):
    """One connection that says exactly the bytes it is told and keeps everything it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = ""  # "closed" or "reset" once it is
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = "closed" if exc is None else "reset"
        self._news.set()

    def say(self, raw: bytes) -> None:
        self.transport.write(raw)

    def post(self, body: bytes, *fields: bytes) -> None:
        lines = [b"POST / HTTP/1.1", b"Host: node", b"Content-Length: %d" % len(body), *fields]
        self.say(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    async def hears(self, pattern: bytes) -> bytes:
        """Listen until everything heard so far matches; forget it and return it."""
        wanted = re.compile(pattern, re.DOTALL)
        while not wanted.fullmatch(self.heard):
            await self._more()
        heard, self.heard = self.heard, b""
        return heard

    async def reply(self) -> bytes:
        """The body of the next response with a length."""
        while b"\r\n\r\n" not in self.heard:
            await self._more()
        head, _, rest = self.heard.partition(b"\r\n\r\n")
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        assert length, head
        while len(rest) < int(length[1]):
            await self._more()
            rest = self.heard.partition(b"\r\n\r\n")[2]
        self.heard = rest[int(length[1]) :]
        return rest[: int(length[1])]

    async def ask(self, body: bytes) -> bytes:
        self.post(body)
        return await self.reply()

    async def end(self) -> str:
        """Listen to the end: "closed" or "reset"."""
        while not self.ended:
            await self._more()
        return self.ended

    async def hears_nothing(self) -> bool:
        """True when the connection stays open and silent for a moment."""
        heard = self.heard
        await asyncio.sleep(QUIET)
        return self.heard == heard and not self.ended

    async def leave(self) -> None:
        self.transport.close()
        await self.end()

    async def _more(self) -> None:
        assert not self.ended, f"{self.ended} after {self.heard[:200]!r}"
        self._news.clear()
        async with asyncio.timeout(PATIENCE):
            await self._news.wait()


Calls = Callable[..., contextlib.AbstractAsyncContextManager[Caller]]


@pytest.fixture
def calling() -> Calls:
    """`async with calling(provider) as caller`: one connection, plain or with the caller's TLS context."""

    @contextlib.asynccontextmanager
    async def connect(provider: SimulatedProvider, tls: ssl.SSLContext | None = None) -> AsyncIterator[Caller]:
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(Caller, "127.0.0.1", provider.port, ssl=tls)
        try:
            yield caller
        finally:
            await caller.leave()

    return connect


async def _alone(story: Awaitable[None]) -> None:
    problems: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(str(context)))
    await story
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left
    assert not problems, problems


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a story to its end, on both loops; a task or a loop error it leaves behind fails the test."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(story: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(_alone(story))

    return runner


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The contexts of a server on 127.0.0.1 and of a caller that trusts it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder: Path = tmp_path_factory.mktemp("certificate")
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subprocess.run([openssl, "req", "-x509", *kind, *names, *files], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "certificate.pem"))

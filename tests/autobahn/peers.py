"""The other end of each of our sides, on a raw connection: it sends whatever frames a case wants.

Always true: nothing of our own and no library makes or reads a frame here, so that an error of theirs
cannot cancel itself out.
Does not belong here: which frames (cases).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib

from tests.autobahn.cases import CLOSE, Case, Frame, close
from tests.autobahn.sides import caller_side, upstream_side
from tests.pace import PATIENCE

WITHIN = PATIENCE  # for one case
KEY = base64.b64encode(b"sixteen octets !").decode()


class Peer:
    """One raw connection, after its handshake.  `masking` is what a client does (RFC 6455 section 5.3)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, masking: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._masking = masking

    def _octets(self, frame: Frame) -> bytes:
        size = len(frame.payload)
        short, rest = size, b""
        if size > 125:
            short, rest = (126, size.to_bytes(2, "big")) if size < 65536 else (127, size.to_bytes(8, "big"))
        mask, payload = b"", frame.payload
        if self._masking:
            mask = b"\x37\xfa\x21\x3d"
            key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            payload = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
        head = bytes((frame.fin << 7 | frame.reserved << 4 | frame.opcode, self._masking << 7 | short))
        return head + rest + mask + payload

    async def _send(self, frames: tuple[Frame, ...], chop: int) -> None:
        octets = b"".join(map(self._octets, frames))
        for at in range(0, len(octets), chop or len(octets)):
            self._writer.write(octets[at : at + (chop or len(octets))])
            await (self._writer.drain() if at % 65536 else asyncio.sleep(0))

    async def _receive(self) -> Frame:
        first, second = await self._reader.readexactly(2)
        assert bool(second & 0x80) is not self._masking, "a client masks, a server does not"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
        mask = b"" if self._masking else await self._reader.readexactly(4)
        payload = await self._reader.readexactly(size)
        if mask:
            key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
            payload = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
        return Frame(first & 0x0F, payload, bool(first & 0x80), first >> 4 & 7)

    async def play(self, case: Case) -> None:
        """Raises AssertionError when something else comes back than the case wants."""
        sending = asyncio.ensure_future(self._send(case.sent, case.chop))
        try:
            for expected in case.back:
                came = await self._receive()
                assert came == expected, f"{case.name}: {came.opcode} {came.payload[:80]!r} came back"
            await sending
        finally:
            sending.cancel()
        if case.code is None:
            await self._send((close(1000),), 0)
        last = await self._receive()
        if last in case.perhaps:
            last = await self._receive()
        code = int.from_bytes(last.payload[:2], "big")
        assert (last.opcode, code) == (CLOSE, 1000 if case.code is None else case.code), f"{case.name}: {last}"
        if case.code is not None and not any(frame.opcode == CLOSE for frame in case.sent):
            with contextlib.suppress(ConnectionError):
                await self._send((Frame(CLOSE, last.payload),), 0)


async def play_on_caller_side(cases: list[Case]) -> None:
    async with caller_side(compression=False) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        for case in cases:
            async with asyncio.timeout(WITHIN):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                lines = "GET / HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade"
                key = f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13", "", ""
                writer.write("\r\n".join(lines + key).encode())
                try:
                    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
                    await Peer(reader, writer, masking=True).play(case)
                    assert await reader.read() == b"", f"{case.name}: the server ends it, and says no more"
                finally:
                    writer.close()


async def play_on_upstream_side(cases: list[Case]) -> None:
    for case in cases:
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def accepted(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            case: Case = case,
            outcome: asyncio.Future[None] = outcome,
        ) -> None:
            try:
                asked = (await reader.readuntil(b"\r\n\r\n")).decode()
                key = next(line.split(": ")[1] for line in asked.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
                digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324
                lines = "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"
                accept = f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}", "", ""
                writer.write("\r\n".join(lines + accept).encode())
                await Peer(reader, writer, masking=False).play(case)
                outcome.set_result(None)
            except (AssertionError, OSError, EOFError) as problem:
                outcome.set_exception(problem)
            finally:
                writer.close()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server:
            await upstream_side(url, binary=case.binary, within=WITHIN)
            await outcome

"""A plain subscriber: a WebSocket by hand, cheap enough that a thousand of them do not slow what is measured."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import time
from functools import lru_cache
from typing import Any, Self

from tests.pace import PATIENCE


@lru_cache(maxsize=4096)  # one frame goes to all callers, so its text is read once
def parsed(text: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    return value


class Subscriber(asyncio.Protocol):
    """One socket.  `events` are (monotonic seconds, message) of notifications; answers go to whoever asked."""

    def __init__(self) -> None:
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.notices: list[dict[str, Any]] = []
        self.closed_with: int | None = None
        self.lost = asyncio.Event()
        self._pending = bytearray()
        self._handshake = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self.refused = b""

    @classmethod
    async def open(cls, port: int, path: str = "/local", headers: str = "") -> Self:
        """Connect and shake hands.  Raises ConnectionRefusedError with the status line when not switched."""
        _, self = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n".encode()
        )
        await asyncio.wait_for(self._handshake, PATIENCE)
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        pending = self._pending
        pending += data
        if not self._handshake.done():
            end = pending.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(pending[:end])
            if b" 101 " not in head.split(b"\r\n")[0]:
                self.refused = bytes(pending)
                self._handshake.set_exception(ConnectionRefusedError(head.split(b"\r\n")[0].decode()))
                return
            del pending[: end + 4]
            self._handshake.set_result(None)
        while len(pending) >= 2:
            size, start = pending[1] & 0x7F, 2
            if size == 126:
                size, start = (struct.unpack_from(">H", pending, 2)[0] if len(pending) >= 4 else 1 << 40), 4
            elif size == 127:
                size, start = (struct.unpack_from(">Q", pending, 2)[0] if len(pending) >= 10 else 1 << 40), 10
            if len(pending) < start + size:
                return
            opcode, text = pending[0] & 0x0F, bytes(pending[start : start + size])
            del pending[: start + size]
            self._frame(opcode, text)

    def _frame(self, opcode: int, text: bytes) -> None:
        if opcode == 9:
            self.send_frame(10, text)
        elif opcode == 8:
            self.closed_with = int.from_bytes(text[:2], "big") if text else 1005
            self.transport.close()
        elif opcode == 1:
            message = parsed(text) if b'"method"' in text[:40] else json.loads(text)
            if isinstance(message, list):
                self._answers.pop(-1).set_result(message)
            elif message.get("method") == "seawall_notice":
                self.notices.append(message["params"])
            elif "method" in message:
                self.events.append((time.monotonic(), message))
            elif message.get("id") in self._answers:
                self._answers.pop(message["id"]).set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        if not self._handshake.done():
            self._handshake.set_exception(ConnectionRefusedError("closed"))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError())

    def send_frame(self, opcode: int, text: bytes, fin: bool = True) -> None:
        """A masked frame (with a mask of zeros, which the RFC allows)."""
        size = len(text)
        if size < 126:
            length = bytes((0x80 | size,))
        elif size < 65536:
            length = b"\xfe" + struct.pack(">H", size)
        else:
            length = b"\xff" + struct.pack(">Q", size)
        self.transport.write(bytes((0x80 * fin | opcode,)) + length + b"\0\0\0\0" + text)

    async def call(self, method: str, *params: Any) -> dict[str, Any]:
        self._number += 1
        answer = self._answers[self._number] = asyncio.get_running_loop().create_future()
        body = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": list(params)}
        self.send_frame(1, json.dumps(body).encode())
        told: dict[str, Any] = await asyncio.wait_for(answer, PATIENCE)
        return told

    async def batch(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        answer = self._answers[-1] = asyncio.get_running_loop().create_future()
        self.send_frame(2, json.dumps(items).encode())
        told: list[dict[str, Any]] = await asyncio.wait_for(answer, PATIENCE)
        return told

    async def subscribe(self, *params: Any) -> str:
        told = await self.call("eth_subscribe", *params)
        assert "result" in told, told
        return str(told["result"])

    def results(self, subscription: str) -> list[dict[str, Any]]:
        """What was told under one subscription, in order."""
        return [m["params"]["result"] for _, m in self.events if m["params"]["subscription"] == subscription]

    def close(self) -> None:
        self.transport.abort()

"""The upstream that all proxies share: answers any JSON-RPC call at once and echoes its id.

    python -m benchmarks.upstream --port P [--port P ...] [--tls-port P ... --certificate FILE --key FILE]

It reads only what it must (content-length and the id), so that it costs about as little as a C server that looks
at the body: the connection, not this code, is what it spends its time on. `GET /count` tells how many calls it
has answered, which shows whether a proxy in front really asked.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
from typing import cast

import uvloop

HEAD_END = b"\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
BODY = b'{"jsonrpc":"2.0","id":%s,"result":"0x1"}'


class Tally:
    """How many calls were answered over all connections."""

    def __init__(self) -> None:
        self.calls = 0


def content_length(head: bytes) -> int:
    at = head.lower().find(b"content-length:")
    return int(head[at + 15 : head.find(b"\r\n", at)]) if at >= 0 else 0


def call_id(body: bytes) -> bytes:
    """The raw text of the first `id` member: up to the next comma or brace (a quoted id up to its quote)."""
    at = body.find(b'"id":')
    if at < 0:
        return b"null"
    rest = body[at + 5 : at + 200].lstrip()
    if rest[:1] == b'"':
        return rest[: rest.find(b'"', 1) + 1]
    ends = [end for end in (rest.find(b","), rest.find(b"}")) if end >= 0]
    return rest[: min(ends)].rstrip() if ends else b"null"


class Answering(asyncio.Protocol):
    """One keep-alive connection; pipelined calls are answered in order."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data, self._rest = self._rest + data, b""
        while data:
            head_end = data.find(HEAD_END)
            if head_end < 0:
                self._rest = data
                return
            head = data[: head_end + 2]
            end = head_end + 4 + content_length(head)
            if len(data) < end:
                self._rest = data
                return
            self._answer(head, data[head_end + 4 : end])
            data = data[end:]

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /count"):
            reply = b"%d" % self._tally.calls
        else:
            self._tally.calls += 1
            reply = BODY % call_id(body)
        self._transport.write(ANSWER % (len(reply), reply))


async def serve(plain: list[int], encrypted: list[int], context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    tally = Tally()
    for port in plain:
        await loop.create_server(lambda: Answering(tally), "127.0.0.1", port, backlog=1024)
    for port in encrypted:
        await loop.create_server(lambda: Answering(tally), "127.0.0.1", port, backlog=1024, ssl=context)
    await loop.create_future()


def main() -> None:
    parser = argparse.ArgumentParser(description="fast JSON-RPC upstream for the benchmarks")
    parser.add_argument("--port", type=int, action="append", default=[])
    parser.add_argument("--tls-port", type=int, action="append", default=[])
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    chosen = parser.parse_args()
    context = None
    if chosen.tls_port:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chosen.certificate, chosen.key)
    uvloop.run(serve(chosen.port, chosen.tls_port, context))


if __name__ == "__main__":
    main()

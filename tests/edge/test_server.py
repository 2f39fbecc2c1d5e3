"""The listener against raw bytes: what is sound is answered in order, what is not gets its 4xx and reaches nobody."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, cast

import pytest

from gateway.edge.listener import SWEEP_EVERY, Listener
from gateway.edge.server import LINGER_FOR, MAX_PIPELINED
from gateway.limits import BODY_RATE, EdgeLimits, body_deadline_for
from tests.virtual import here, run

LIMITS = EdgeLimits()
SWEEP = SWEEP_EVERY + 0.05  # how late a deadline may strike
HEAD = b"POST /r HTTP/1.1\r\nHost: localhost\r\n"
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def post(body: bytes, *fields: bytes, path: bytes = b"/r") -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, b"Host: localhost", b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


CHUNKED = HEAD + b"Transfer-Encoding: Chunked\r\n\r\n"


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


class Caller(asyncio.Protocol):
    """One connection that says exactly what it is told and keeps everything it hears."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = ""
        self.ended_at = 0.0
        self._news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self._news.set()

    def eof_received(self) -> bool:
        self.ended = self.ended or "closed"
        self.ended_at = here().time()
        self._news.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = self.ended or ("closed" if exc is None else "reset")
        self.ended_at = self.ended_at or here().time()
        self._news.set()

    def say(self, raw: bytes) -> None:
        self.transport.write(raw)

    async def hears(self, pattern: bytes) -> bytes:
        """Listen until what was heard begins with a match of `pattern`; takes that off and returns it."""
        wanted = re.compile(pattern, re.DOTALL)
        while not (found := wanted.match(self.heard)):
            assert not self.ended, f"{self.ended} after {self.heard[:300]!r}"
            await self._more()
        self.heard = self.heard[found.end() :]
        return found[0]

    async def end(self) -> bytes:
        """Listen until the connection is over; returns what was heard and not taken."""
        while not self.ended:
            await self._more()
        return self.heard

    async def _more(self) -> None:
        self._news.clear()
        await self._news.wait()


class Edge:
    """A listener on a free port with an application that notes what it is asked.

    The path says what it does: /r answers at once, /after/N in N seconds, /size/N with N bytes,
    /pieces/N in N pieces without a length, /fails raises, /half announces more than it sends.
    """

    def __init__(self, limits: EdgeLimits = LIMITS) -> None:
        self.limits = limits
        self.calls: list[tuple[dict[str, Any], bytes]] = []
        self.finished = 0
        self.reported: list[BaseException] = []
        self.refusals: list[str] = []
        self.callers: list[Caller] = []

    async def __aenter__(self) -> Self:
        self.listener = Listener(self.app, self.limits, report=self.reported.append, count_refusal=self.refusals.append)
        await self.listener.start("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.stop(0.0, here().time)
        for caller in self.callers:
            if not caller.transport.is_closing():
                caller.transport.abort()

    async def caller(self, raw: bytes = b"") -> Caller:
        _, caller = await here().create_connection(Caller, "127.0.0.1", self.listener.port)
        self.callers.append(caller)
        if raw:
            caller.say(raw)
        return caller

    @property
    def paths(self) -> list[str]:
        return [scope["path"] for scope, _ in self.calls]

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body in self.calls]

    async def app(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        message = await receive()
        assert (message["type"], message["more_body"]) == ("http.request", False)
        self.calls.append((scope, message["body"]))
        _, what, *rest = scope["path"].split("/")
        number = float(rest[0]) if what in ("after", "size", "pieces") else 0.0
        body = b"%d" % len(self.calls)
        if what == "after":
            await asyncio.sleep(number)
        elif what == "size":
            body = bytes(int(number))
        elif what == "fails":
            raise ZeroDivisionError("mine")
        headers = [(b"content-length", b"%d" % (len(body) + (9 if what == "half" else 0)))]
        if what == "split":
            headers.append((b"x", b"a\r\nb: c"))
        await send({"type": "http.response.start", "status": 200, "headers": [] if what == "pieces" else headers})
        for _ in range(int(number) if what == "pieces" else 0):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": body})
        self.finished += 1


Work = Callable[[Edge], Coroutine[Any, Any, None]]


def with_edge(work: Work, limits: EdgeLimits = LIMITS, at_most: float = 1000) -> None:
    async def story() -> None:
        async with Edge(limits) as edge:
            await work(edge)

    run(story(), at_most=at_most)


OK = rb"HTTP/1\.1 200 OK\r\n(?:[^\r]+\r\n)*content-length: \d+\r\n(?:[^\r]+\r\n)*\r\n"


# --- what is sound ------------------------------------------------------------------------------------


def test_requests_on_one_connection_are_answered_one_after_the_other() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller()
        for i in range(1, 6):
            caller.say(post(b"x" * i))
            await caller.hears(OK + b"%d" % i)
        assert edge.bodies == [b"x" * i for i in range(1, 6)]
        assert not caller.ended

    with_edge(work)


SOUND: dict[str, tuple[bytes, bytes]] = {
    "a length": (post(b"hello"), b"hello"),
    "no body": (HEAD + b"\r\n", b""),
    "a length of zero": (post(b""), b""),
    "chunks": (chunked(b"hel", b"lo"), b"hello"),
    "a chunk's extension": (CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0\r\n\r\n', b"hello"),
    "upper-case hexadecimal": (CHUNKED + b"00A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    "white space around values": (HEAD + b"Content-Length: \t 5 \t\r\nX:y\r\n\r\nhello", b"hello"),
    "an empty line first": (b"\r\n" + post(b"hello"), b"hello"),
    "bytes of any kind": (post(bytes(range(256))), bytes(range(256))),
    "a body of just the limit": (post(bytes(LIMITS.body)), bytes(LIMITS.body)),
    "as many fields as may be": (post(b"hello", *[b"X: y"] * (LIMITS.head_fields - 2)), b"hello"),
    "a long target": (post(b"hello", path=b"/r?" + b"a" * (LIMITS.target_bytes - 3)), b"hello"),
    "an IPv6 host": (post(b"hello").replace(b"localhost", b"[::1]:4000"), b"hello"),
}  # fmt: skip


@pytest.mark.parametrize("pieces", [1, 2, 7], ids=["at once", "in two", "in seven"])
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_request_arrives_whole_however_it_is_cut(name: str, pieces: int) -> None:
    raw, body = SOUND[name]

    async def work(edge: Edge) -> None:
        caller = await edge.caller()
        size = len(raw) // pieces + 1
        for i in range(0, len(raw), size):
            caller.say(raw[i : i + size])
            await asyncio.sleep(0.01)
        await caller.hears(OK + b"1")
        assert edge.bodies == [body]
        assert edge.refusals == []

    with_edge(work)


def test_the_application_sees_the_target_as_it_was_sent() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/a%2Fb/%C3%A9//../c?x=%20&y=%zz"))
        await caller.hears(OK)
        scope, _ = edge.calls[0]
        assert scope["raw_path"] == b"/a%2Fb/%C3%A9//../c"
        assert scope["path"] == "/a/b/é//../c"
        assert scope["query_string"] == b"x=%20&y=%zz"
        assert (scope["method"], scope["http_version"], scope["scheme"]) == ("POST", "1.1", "http")
        assert scope["headers"] == [(b"host", b"localhost"), (b"content-length", b"0")]

    with_edge(work)


@pytest.mark.parametrize("apart", [False, True])
def test_pipelined_requests_are_answered_in_order_and_one_at_a_time(apart: bool) -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller()
        for i in range(5):
            caller.say(post(b"%d" % i, path=b"/after/%d" % (5 - i)))
            if apart:
                await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        assert len(edge.calls) == 1
        for i in range(1, 6):
            await caller.hears(OK + b"%d" % i)
        assert edge.bodies == [b"0", b"1", b"2", b"3", b"4"]

    with_edge(work)


def test_a_request_inside_a_body_is_never_interpreted() -> None:
    inner = post(b"evil", path=b"/evil")

    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(inner) + chunked(inner, inner) + post(b"last"))
        for i in range(1, 4):
            await caller.hears(OK + b"%d" % i)
        assert edge.paths == ["/r", "/r", "/r"]
        assert edge.bodies == [inner, inner + inner, b"last"]
        assert not caller.heard

    with_edge(work)


def test_what_follows_a_request_that_closes_is_never_interpreted() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", b"Connection: close") + post(b"", path=b"/evil"))
        caller.say(post(b"", path=b"/evil"))
        answer = await caller.end()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answer
        assert edge.paths == ["/r"]
        assert edge.reported == []

    with_edge(work)


def test_http_1_0_is_answered_and_closed_and_needs_no_host() -> None:
    async def work(edge: Edge) -> None:
        for raw in (b"GET /r HTTP/1.0\r\n\r\n", b"GET /r HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"):
            caller = await edge.caller(raw)
            answer = await caller.end()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nconnection: close\r\n" in answer
        caller = await edge.caller(b"GET /pieces/2 HTTP/1.0\r\n\r\n")
        answer = await caller.end()
        assert b"transfer-encoding" not in answer
        assert answer.endswith(b"x" * 131072 + b"3")

    with_edge(work)


def test_head_is_answered_without_a_body() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller()
        for path in (b"/size/1000", b"/pieces/2"):
            caller.say(b"HEAD %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
            await caller.hears(rb"HTTP/1.1 200 OK\r\n(?:[^\r]+\r\n)*\r\n")
        caller.say(post(b""))
        await caller.hears(OK + b"3")
        assert caller.heard == b""

    with_edge(work)


def test_a_caller_that_asks_first_is_told_to_go_on_and_one_that_may_not_is_told_so() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        await caller.hears(rb"HTTP/1.1 100 Continue\r\n\r\n")
        assert edge.calls == []
        caller.say(b"hello")
        await caller.hears(OK + b"1")
        caller = await edge.caller(HEAD + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n")
        assert (await caller.end()).startswith(b"HTTP/1.1 413 ")
        caller = await edge.caller(b"POST /r HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
        assert (await caller.end()).startswith(b"HTTP/1.1 200 ")

    with_edge(work)


def test_being_told_to_go_on_never_lands_inside_another_answer() -> None:
    async def work(edge: Edge) -> None:
        asking = HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        caller = await edge.caller(post(b"", path=b"/after/2") + asking)
        await asyncio.sleep(1)
        assert caller.heard == b""
        caller.say(b"hi")
        await caller.hears(OK + b"1")
        await caller.hears(rb"(?:HTTP/1.1 100 Continue\r\n\r\n)?" + OK + b"2")
        assert edge.bodies == [b"", b"hi"]

    with_edge(work)


def test_an_answer_in_pieces_is_chunked_and_whole() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/pieces/3"))
        head = await caller.hears(rb"HTTP/1.1 200 OK\r\n(?:[^\r]+\r\n)*\r\n")
        assert b"transfer-encoding: chunked\r\n" in head
        await caller.hears(rb"(?:10000\r\nx{65536}\r\n){3}1\r\n1\r\n0\r\n\r\n$")

    with_edge(work)


def test_a_caller_may_close_its_side_after_asking() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/after/3") + post(b""))
        caller.transport.write_eof()
        answer = await caller.end()
        assert len(re.findall(OK, answer)) == 2
        assert answer.endswith(b"2")

    with_edge(work)


# --- what is not --------------------------------------------------------------------------------------

GET = b"GET /r HTTP/1.1\r\nHost: localhost\r\n"


def hosted(host: bytes) -> bytes:
    return b"POST /r HTTP/1.1\r\nHost:%b\r\nContent-Length: 5\r\n\r\nhello" % host


def aimed(target: bytes, method: bytes = b"POST") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" % (method, target)


def field(raw: bytes) -> bytes:
    return HEAD + raw + b"\r\nContent-Length: 5\r\n\r\nhello"


def framed(raw: bytes, body: bytes = b"5\r\nhello\r\n0\r\n\r\n") -> bytes:
    return HEAD + raw + b"\r\n\r\n" + body


HOSTILE: dict[str, tuple[bytes, int]] = {
    # the host
    "no host": (b"POST /r HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
    "two hosts": (field(b"Host: localhost"), 400),
    "two hosts that differ": (field(b"Host: evil.example"), 400),
    "two hosts in 1.0": (b"GET /r HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    **{
        f"host {host!r}": (hosted(host), 400)
        for host in (b"", b" ", b"a b", b"a/b", b"a@b", b"a,b", b"a:b", b"a:123456", b"[::1", b"::1", b"a\\b",
                     b"a?b", b"a#b", b"a%00", b"http://a", b"\xff.example", b"a:", b"a" * 300)
    },
    # the framing
    "length and chunks": (framed(b"Content-Length: 5\r\nTransfer-Encoding: chunked"), 400),
    "chunks and length": (framed(b"Transfer-Encoding: chunked\r\nContent-Length: 5"), 400),
    "length zero and chunks": (framed(b"Content-Length: 0\r\nTransfer-Encoding: chunked"), 400),
    "two lengths": (framed(b"Content-Length: 5\r\nContent-Length: 6"), 400),
    "two equal lengths": (framed(b"Content-Length: 5\r\nContent-Length: 5"), 400),
    **{
        f"length {length!r}": (framed(b"Content-Length: " + length), 400)
        for length in (b"5, 5", b"5,6", b"+5", b"-5", b"0x5", b"5 5", b"", b"five", b"5.0", b"5;", b"1" * 30, b"\xb2")
    },
    **{
        f"coding {coding!r}": (framed(b"Transfer-Encoding: " + coding), 400)
        for coding in (b"xchunked", b"identity", b"gzip", b"chunked, identity", b"chunked, gzip", b"chunked;x",
                       b"", b'"chunked"', b"chunked chunked", b"chunk", b"\x0bchunked")
    },
    "coding before the colon": (framed(b"Transfer-Encoding : chunked"), 400),
    "coding, folded": (framed(b"Transfer-Encoding:\r\n chunked"), 400),
    "length before the colon": (framed(b"Content-Length : 5"), 400),
    **{
        f"chunk size {size!r}": (framed(b"Transfer-Encoding: chunked", size + b"\r\nhello\r\n0\r\n\r\n"), 400)
        for size in (b"zz", b"-5", b"+5", b"0x5", b" 5", b"", b"5 5", b"f" * 17, b"5\x00", b"\xb2")
    },
    "a chunk longer than it says": (framed(b"Transfer-Encoding: chunked", b"4\r\nhello\r\n0\r\n\r\n"), 400),
    "a chunk ended by LF": (framed(b"Transfer-Encoding: chunked", b"5\r\nhello\n0\r\n\r\n"), 400),
    "a chunk size ended by LF": (framed(b"Transfer-Encoding: chunked", b"5\nhello\r\n0\r\n\r\n"), 400),
    "LF in a chunk's extension": (framed(b"Transfer-Encoding: chunked", b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400),
    "CR alone after a chunk's size": (framed(b"Transfer-Encoding: chunked", b"5\rhello\r\n0\r\n\r\n"), 400),
    # the head
    "bare LF": (b"POST /r HTTP/1.1\nHost: localhost\nContent-Length: 5\n\nhello", 400),
    "bare LF after one header": (field(b"X: y\nZ: w"), 400),
    "bare LF at the end of the head": (HEAD + b"Content-Length: 5\r\n\nhello", 400),
    "bare CR": (field(b"X: y\rContent-Length: 0"), 400),
    "a folded header": (field(b"X: a\r\n b"), 400),
    "white space before the first header": (b"GET /r HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    **{
        f"byte {byte:#04x} in a value": (field(b"X: a%cb" % byte), 400)
        for byte in (0, 1, 7, 8, 11, 12, 27, 31, 127)
    },
    **{
        f"byte {byte:#04x} in a name": (field(b"X%cY: a" % byte), 400)
        for byte in b"\0 \t()/;<>?@[]{}\\,\"\x7f\x80\xff"
    },
    "no name": (field(b": a"), 400),
    "no colon": (field(b"Transfer-Encoding"), 400),
    # the request line
    "absolute form": (aimed(b"http://localhost/r"), 400),
    "absolute form of another host": (aimed(b"http://evil.example/r"), 400),
    "authority form": (aimed(b"localhost:80"), 400),
    "asterisk form": (aimed(b"*", b"OPTIONS"), 400),
    "a relative target": (aimed(b"r"), 400),
    "no target": (b"POST HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a target with a space": (aimed(b"/a b"), 400),
    "a target with a tab": (aimed(b"/a\tb"), 400),
    "a target with NUL": (aimed(b"/a\0b"), 400),
    "a target that is not ASCII": (aimed(b"/\xc3\xa9"), 400),
    "a query that is not ASCII": (aimed(b"/r?\xff"), 400),
    "CONNECT": (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a method that is none": (aimed(b"/r", b"P@ST"), 400),
    "a method in lower case": (aimed(b"/r", b"post"), 400),
    **{
        f"version {version!r}": (b"GET /r %b\r\nHost: localhost\r\n\r\n" % version, 400)
        for version in (b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"HTTP/3.7", b"http/1.1", b"HTTP/1", b"HTTP/1.1.1",
                        b"XTTP/1.1")
    },
    "an upgrade to WebSocket": (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
    "an upgrade to HTTP/2": (post(b"hello", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"), 400),
    "an upgrade in chunks": (framed(b"Connection: Upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked"), 400),
    "no version": (b"GET /r\r\nHost: localhost\r\n\r\n", 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
    "garbage": (b"hello\r\n\r\n", 400),
    # the sizes
    "a header of 1 MB": (field(b"X: " + b"a" * 1_000_000), 431),
    "a header of 300 KB": (field(b"X: " + b"a" * 300_000), 431),
    "a head past its limit": (field(b"X: " + b"a" * LIMITS.head_bytes), 431),
    "a header's name of 1 MB": (field(b"a" * 1_000_000 + b": x"), 431),
    "2,000 headers": (field(b"\r\n".join([b"X: y"] * 2000)), 431),
    "one header too many": (field(b"\r\n".join([b"X: y"] * (LIMITS.head_fields - 1))), 431),
    "a target past its limit": (aimed(b"/" + b"a" * LIMITS.target_bytes), 414),
    "a target of 1 MB": (aimed(b"/" + b"a" * 1_000_000), 414),
    "a length of 1 GB": (framed(b"Content-Length: 1000000000"), 413),
    "a length one past the limit": (framed(b"Content-Length: %d" % (LIMITS.body + 1)), 413),
    "a length past every number": (framed(b"Content-Length: 18446744073709551615"), 413),
    "chunks past the limit": (chunked(*[bytes(60_000)] * 40), 413),
    "one chunk past the limit": (chunked(bytes(LIMITS.body + 1)), 413),
    "chunks that are mostly wrapping": (chunked(*[b"x"] * LIMITS.body), 413),
    "a chunk's extension of 10 MB": (framed(b"Transfer-Encoding: chunked", b"5;" + b"a" * 10_000_000), 413),
    "a trailer of 10 MB": (chunked(b"hello", end=b"0\r\nX: " + b"a" * 10_000_000), 413),
    "trailers of 10 MB": (chunked(b"hello", end=b"0\r\n" + b"X: yyyy\r\n" * 1_100_000), 431),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_request_in_doubt_gets_its_4xx_and_a_closed_connection_and_reaches_nobody(name: str) -> None:
    raw, status = HOSTILE[name]

    async def work(edge: Edge) -> None:
        caller = await edge.caller(raw)
        began = here().time()
        answer = await caller.end()
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
        assert answer.count(b"HTTP/1.1 ") == 1
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\nconnection: close" in head
        assert b"\r\ncontent-length: %d" % len(body) in head
        assert here().time() - began <= LINGER_FOR + SWEEP
        assert edge.calls == []
        assert len(edge.refusals) == 1
        assert edge.reported == []
        await asyncio.sleep(LINGER_FOR + SWEEP)
        assert not edge.listener.connections

    with_edge(work)


@pytest.mark.parametrize("name", ["two hosts", "bare CR", "length and chunks", "chunk size b'zz'", "a length of 1 GB"])
def test_what_comes_behind_a_refused_request_is_not_looked_at(name: str) -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(HOSTILE[name][0] + post(b"evil"))
        await asyncio.sleep(0.1)
        caller.say(post(b"evil") * 3)
        answer = await caller.end()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert edge.calls == []

    with_edge(work)


def test_trailers_are_not_headers() -> None:
    async def work(edge: Edge) -> None:
        trailers = b"0\r\nHost: evil.example\r\nX-API-Key: stolen\r\nOrigin: null\r\n\r\n"
        caller = await edge.caller(chunked(b"hello", end=trailers))
        await caller.hears(OK + b"1")
        scope, body = edge.calls[0]
        assert scope["headers"] == [(b"host", b"localhost"), (b"transfer-encoding", b"Chunked")]
        assert body == b"hello"
        caller.say(post(b"next"))
        await caller.hears(OK + b"2")

    with_edge(work)


def test_an_underscore_twin_is_not_the_header_it_looks_like() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", b"X_API_Key: a", b"content_length: 7", b"x-api-key : b"[:0] + b"X-A: c"))
        await caller.hears(OK)
        names = [name for name, _ in edge.calls[0][0]["headers"]]
        assert names == [b"host", b"content-length", b"x_api_key", b"content_length", b"x-a"]

    with_edge(work)


def test_a_sound_request_before_a_refused_one_is_answered_first() -> None:
    async def work(edge: Edge) -> None:
        for path in (b"/r", b"/after/2"):
            caller = await edge.caller(post(b"", path=path) + HOSTILE["two hosts"][0] + post(b"evil"))
            answer = await caller.end()
            statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
            assert statuses == [b"200", b"400"], answer
        assert edge.bodies == [b"", b""]
        assert edge.reported == []

    with_edge(work)


def test_more_pipelined_requests_than_allowed_are_refused_and_the_first_is_answered() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/after/1") * (MAX_PIPELINED + 2))
        answer = await caller.end()
        statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
        assert statuses[0] == b"200"
        assert statuses[-1] == b"400"
        assert len(statuses) <= MAX_PIPELINED + 2
        assert len(edge.calls) <= MAX_PIPELINED + 1
        assert edge.reported == []

    with_edge(work)


def test_a_large_body_and_the_next_head_in_one_breath_are_not_taken_for_a_large_head() -> None:
    async def work(edge: Edge) -> None:
        following = post(b"next")
        caller = await edge.caller(post(bytes(45_000)) + following[:20])
        await caller.hears(OK + b"1")
        caller.say(following[20:])
        await caller.hears(OK + b"2")
        assert edge.bodies == [bytes(45_000), b"next"]

    with_edge(work)


# --- time ---------------------------------------------------------------------------------------------


def test_a_silent_connection_is_closed_without_a_word() -> None:
    async def work(edge: Edge) -> None:
        began = here().time()
        caller = await edge.caller()
        assert await caller.end() == b""
        assert LIMITS.head_timeout <= here().time() - began <= LIMITS.head_timeout + SWEEP

    with_edge(work)


SLOW: dict[str, tuple[bytes, bytes]] = {
    "half a request line": (b"POST /", b""),
    "half a head": (HEAD + b"Content-Le", b""),
    "a trickled head": (HEAD, b"X: y\r\n"),
    "a trickled header": (HEAD + b"X: ", b"a"),
    "empty lines for ever": (b"\r\n", b"\r\n"),
}


@pytest.mark.parametrize("later", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("name", SLOW)
def test_a_head_that_does_not_come_is_given_up_at_its_time_however_it_trickles(name: str, later: bool) -> None:
    opening, drop = SLOW[name]

    async def work(edge: Edge) -> None:
        caller = await edge.caller()
        if later:
            caller.say(post(b""))
            await caller.hears(OK + b"1")
        began = here().time()
        caller.say(opening)
        while not caller.ended:
            await asyncio.sleep(0.2)
            if drop and not caller.transport.is_closing():
                caller.say(drop)
            assert here().time() - began < 90
        limit = LIMITS.keep_alive if later and name == "empty lines for ever" else LIMITS.head_timeout
        assert limit - 0.1 <= caller.ended_at - began <= limit + LINGER_FOR + SWEEP + 0.2
        assert caller.heard.startswith(b"HTTP/1.1 408 ") or name == "empty lines for ever"
        assert len(edge.calls) == int(later)

    with_edge(work)


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (HEAD + b"Content-Length: 100\r\n\r\nhalf", 100),
        (HEAD + b"Content-Length: 640000\r\n\r\n", 640_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe", LIMITS.body),
        (chunked(b"hello", end=b"0\r\nX: y\r\n"), LIMITS.body),
    ],
    ids=["half a body", "no body", "half a chunk", "half a trailer"],
)
@pytest.mark.parametrize("drop", [b"", b"a"], ids=["silent", "trickling"])
def test_a_body_that_does_not_come_is_given_up_at_its_time_however_it_trickles(
    raw: bytes, size: int, drop: bytes
) -> None:
    async def work(edge: Edge) -> None:
        began = here().time()
        caller = await edge.caller(raw)
        while not caller.ended:
            await asyncio.sleep(0.5)
            if drop and not caller.transport.is_closing():
                caller.say(drop)
        limit = body_deadline_for(LIMITS, size)
        assert limit == LIMITS.body_timeout + size / BODY_RATE
        if not caller.heard.startswith(b"HTTP/1.1 400 "):  # a trickled chunk or trailer may break before its time
            assert limit <= caller.ended_at - began <= limit + LINGER_FOR + SWEEP + 0.5
            assert caller.heard.startswith(b"HTTP/1.1 408 ")
        assert edge.calls == []

    with_edge(work)


def test_a_body_that_comes_at_the_slowest_allowed_pace_arrives() -> None:
    async def work(edge: Edge) -> None:
        size = 640_000
        caller = await edge.caller(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(20):
            await asyncio.sleep(0.9)
            caller.say(bytes(size // 20))
        await caller.hears(OK + b"1")
        assert len(edge.bodies[0]) == size

    with_edge(work)


def test_an_idle_connection_is_closed_at_its_time_and_each_answer_moves_that() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b""))
        await caller.hears(OK + b"1")
        await asyncio.sleep(LIMITS.keep_alive - 5)
        caller.say(post(b""))
        await caller.hears(OK + b"2")
        began = here().time()
        assert await caller.end() == b""
        assert LIMITS.keep_alive <= here().time() - began <= LIMITS.keep_alive + SWEEP

    with_edge(work)


def test_a_call_that_takes_long_is_not_the_callers_fault() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/after/100"))
        await caller.hears(OK + b"1")

    with_edge(work)


def test_a_next_request_that_trickles_does_not_cost_the_one_under_way_its_answer() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/after/20") + HEAD)
        await caller.hears(OK + b"1")
        await caller.hears(rb"HTTP/1\.1 408 ")
        await caller.end()
        assert len(edge.calls) == 1

    with_edge(work)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (b"/size/20000000", b""),
        (b"/size/20000000", b"Connection: close"),
        (b"/pieces/500", b""),
        (b"/pieces/500", b"Connection: close"),
    ],
)
def test_a_caller_that_does_not_read_its_answer_is_cut_off(path: bytes, said: bytes) -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller()
        caller.transport.pause_reading()
        caller.say(post(b"", *([said] if said else []), path=path))
        await asyncio.sleep(LIMITS.write_timeout - 1)
        assert edge.listener.connections
        await asyncio.sleep(1 + SWEEP + 1)
        assert not edge.listener.connections
        assert not edge.listener.state.tasks
        assert edge.reported == []

    with_edge(work)


def test_a_caller_that_reads_slowly_gets_everything() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/pieces/400"))
        for _ in range(40):
            caller.transport.pause_reading()
            await asyncio.sleep(1)
            caller.transport.resume_reading()
            await asyncio.sleep(0.001)
        await caller.hears(rb".*\r\n0\r\n\r\n$")
        assert edge.finished == 1

    with_edge(work, EdgeLimits(write_timeout=3.0))


def test_an_idle_caller_that_never_read_its_small_answers_is_gone_after_the_idle_time() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller()
        caller.transport.pause_reading()
        for _ in range(400):
            caller.say(post(b"", path=b"/size/60000"))
            await asyncio.sleep(0.001)
        await asyncio.sleep(10 + 5 + 1)
        assert not edge.listener.connections

    with_edge(work, EdgeLimits(keep_alive=10.0, write_timeout=5.0))


# --- endings ------------------------------------------------------------------------------------------


def test_a_failure_of_the_application_is_a_500_and_is_reported_once() -> None:
    async def work(edge: Edge) -> None:
        for path in (b"/fails", b"/split"):
            caller = await edge.caller(post(b"", path=path))
            answer = await caller.end()
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert b"connection: close" in answer
            assert b"mine" not in answer
        assert [type(error) for error in edge.reported] == [ZeroDivisionError, RuntimeError]

    with_edge(work)


def test_an_answer_that_is_not_what_was_announced_never_looks_whole() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/half"))
        answer = await caller.end()
        announced = re.search(rb"content-length: (\d+)", answer)
        assert caller.ended == "reset" or announced is None or b"500" in answer.split(b"\r\n")[0]
        assert len(edge.reported) == 1

    with_edge(work)


def test_past_the_cap_a_connection_gets_503_and_below_it_service() -> None:
    async def work(edge: Edge) -> None:
        kept = [await edge.caller(post(b"")) for _ in range(5)]
        for caller in kept:
            await caller.hears(OK)
        refused = await edge.caller(post(b"evil"))
        answer = await refused.end()
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"too_many_connections" in answer
        assert len(edge.calls) == 5
        kept.pop().transport.abort()
        await asyncio.sleep(LINGER_FOR + SWEEP)
        caller = await edge.caller(post(b""))
        await caller.hears(OK + b"6")

    with_edge(work, EdgeLimits(connections=5))


def test_the_cap_stays_below_half_of_the_descriptors() -> None:
    async def work(edge: Edge) -> None:
        assert edge.listener.max_connections <= os.sysconf("SC_OPEN_MAX") // 2

    with_edge(work, EdgeLimits(connections=1_000_000))


def test_a_graceful_stop_lets_what_is_under_way_finish_and_closes_what_is_idle() -> None:
    async def work(edge: Edge) -> None:
        idle = await edge.caller(post(b""))
        await idle.hears(OK)
        silent = await edge.caller()
        busy = [await edge.caller(post(b"", path=b"/after/%d" % n) + post(b"")) for n in (1, 2, 3)]
        arriving = await edge.caller(post(b"hello")[:-2])
        await asyncio.sleep(0.5)
        port = edge.listener.port
        stopping = asyncio.ensure_future(edge.listener.stop(10.0, here().time))
        began = here().time()
        await asyncio.sleep(0.3)
        assert (idle.ended, silent.ended) == ("closed", "closed")
        arriving.say(b"lo")
        with pytest.raises(ConnectionError):
            await here().create_connection(Caller, "127.0.0.1", port)
        for caller in busy:
            assert len(re.findall(OK, await caller.end())) == 2, "the pipelined one as well"
        assert len(re.findall(OK, await arriving.end())) == 1
        assert await stopping == 0
        assert here().time() - began <= 2.6
        assert edge.finished == len(edge.calls) == 8

    with_edge(work)


def test_an_answer_during_a_stop_says_that_the_connection_closes() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller(post(b"", path=b"/after/1"))
        await asyncio.sleep(0.5)
        stopping = asyncio.ensure_future(edge.listener.stop(10.0, here().time))
        assert b"\r\nconnection: close\r\n" in await caller.end()
        assert await stopping == 0

    with_edge(work)


def test_a_stop_does_not_cut_off_an_answer_that_is_still_being_read() -> None:
    async def work(edge: Edge) -> None:
        caller = await edge.caller()
        caller.transport.pause_reading()
        caller.say(post(b"", path=b"/size/20000000"))
        await asyncio.sleep(0.1)
        assert not edge.listener.state.tasks, "the application is done, the bytes are not"
        stopping = asyncio.ensure_future(edge.listener.stop(10.0, here().time))
        await asyncio.sleep(2)
        caller.transport.resume_reading()
        answer = await caller.end()
        assert len(answer.partition(b"\r\n\r\n")[2]) == 20_000_000
        assert await stopping == 0

    with_edge(work)


def test_what_is_late_is_cut_off_when_the_drain_is_over() -> None:
    async def work(edge: Edge) -> None:
        late = [await edge.caller(post(b"", path=b"/after/500")) for _ in range(3)]
        await asyncio.sleep(0.1)
        began = here().time()
        assert await edge.listener.stop(2.0, here().time) == 3
        assert here().time() - began <= 2.2
        for caller in late:
            assert await caller.end() == b""
        assert edge.finished == 0
        assert not edge.listener.state.tasks
        assert not edge.listener.connections

    with_edge(work)


def test_stopping_an_idle_listener_takes_no_time() -> None:
    async def work(edge: Edge) -> None:
        began = here().time()
        assert await edge.listener.stop(30.0, here().time) == 0
        assert here().time() - began < 0.2

    with_edge(work)


def test_an_application_learns_that_its_caller_has_gone() -> None:
    seen: list[str] = []

    async def story() -> None:
        async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
            await receive()
            seen.append((await receive())["type"])
            with pytest.raises(OSError, match="gone"):
                await send({"type": "http.response.start", "status": 200, "headers": []})
            seen.append("told")

        listener = Listener(app, LIMITS, report=lambda error: seen.append(repr(error)))
        await listener.start("127.0.0.1", 0)
        _, caller = await here().create_connection(Caller, "127.0.0.1", listener.port)
        caller.say(post(b""))
        await asyncio.sleep(1)
        assert seen == []
        raw = caller.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.transport.abort()  # a reset: a mere close might be a caller that still listens
        await asyncio.sleep(0.1)
        assert seen == ["http.disconnect", "told"]
        await listener.stop(0.0, here().time)

    run(story())


def test_ten_thousand_callers_that_leave_at_any_moment_leave_nothing_behind() -> None:
    requests = [post(b"hello"), post(b"", path=b"/size/200000"), chunked(b"hel", b"lo"), post(b"", path=b"/after/1")]
    descriptors = len(os.listdir("/proc/self/fd"))

    async def leave(edge: Edge, number: int) -> None:
        raw = requests[number % 4]
        caller = await edge.caller(raw[: number * 7919 % (len(raw) * 2)])  # half of them in the middle, half after
        if number % 3:
            await asyncio.sleep(0)
        caller.transport.abort()

    async def work(edge: Edge) -> None:
        for wave in range(100):
            await asyncio.gather(*(leave(edge, wave * 100 + n) for n in range(100)))
            edge.callers.clear()
        await asyncio.sleep(3)
        assert not edge.listener.connections
        assert not edge.listener.state.tasks
        assert edge.reported == []
        assert len(edge.calls) > 1000
        caller = await edge.caller(post(b"still there"))
        await caller.hears(OK)

    with_edge(work)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors

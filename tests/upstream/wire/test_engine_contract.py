"""One contract, two engines: every way an upstream can fail ends in the right class with the truth about bytes sent."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ssl
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

import pytest
import trustme

from gateway.errors import (
    AttemptError,
    AttemptTimeout,
    BrokenReply,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    NotSent,
    TlsFailed,
)
from gateway.limits import TransportSettings
from gateway.model import Outcome, Sent
from gateway.upstream.wire.engine import Engine
from gateway.upstream.wire.httpx2_engine import Httpx2Engine
from gateway.upstream.wire.outbound import Outbound, build_engine
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.transport import ConnectionPool
from tests.upstream.scripted import HANG, Conversation, End, Pause, Script, ScriptedUpstream, answer, chunked
from tests.virtual import here, refused_port, run

CALL = b'{"jsonrpc":"2.0","id":7,"method":"eth_chainId","params":[]}'
SETTINGS = TransportSettings(connect_timeout=0.5, tls_timeout=0.5)
SMALL = TransportSettings(answer_buffer=4096, answer_limit=200_000)
TIMEOUT = 3.0
MB = 1_000_000


def own(url: str, settings: TransportSettings = SETTINGS, **more: Any) -> Engine:
    engine = build_engine(Outbound(url=url, **more), settings, Resolver(here().time), here().time)
    assert isinstance(engine, ConnectionPool)
    return engine


def second(url: str, settings: TransportSettings = SETTINGS, proxy: str | None = None, **more: Any) -> Engine:
    """The second engine, as it is when the other side does not speak HTTP/2."""
    outbound = Outbound(url=url, **more)
    tls = outbound.tls_context()
    return Httpx2Engine(url, outbound.request_headers(), settings, here().time, http2=False, proxy=proxy, tls=tls)


Make = Callable[..., Engine]
Work = Callable[[Engine, ScriptedUpstream], Coroutine[Any, Any, None]]
ENGINES = pytest.mark.parametrize("make", [own, second], ids=["own", "httpx2"])


def over(make: Make, upstream: ScriptedUpstream, work: Work, *, path: str = "", **more: Any) -> None:
    """Run `work` with an engine that leads to `upstream`; afterwards no connection may be left on either side."""

    async def story() -> None:
        async with upstream:
            engine = make(upstream.url + path, **more)
            try:
                await work(engine, upstream)
            finally:
                await engine.close()
            async with asyncio.timeout(30):
                await upstream.gone()
            if isinstance(engine, ConnectionPool):
                assert (engine.open_connections, engine.idle_connections) == (0, 0)

    run(story(), at_most=20_000_000)


async def send(engine: Engine, body: bytes = CALL, timeout: float = TIMEOUT, **more: Any) -> Any:
    return await engine.send(body, here().time() + timeout, **more)


# --- answers --------------------------------------------------------------------------------------


@ENGINES
def test_an_answer_comes_back_whole_and_its_connection_is_used_again(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for _ in range(3):
            reply = await send(engine)
            assert (reply.status, reply.body, reply.stream) == (200, b'{"id":7}', None)
            assert reply.header(b"x-seen") == b"Yes"
            assert reply.header(b"x-absent") is None
        assert (upstream.accepted, len(upstream.requests)) == (1, 3)

    over(make, ScriptedUpstream([answer(b'{"id":7}', b"X-Seen: Yes", b"x-seen: twice")]), work)


GZIPPED = gzip.compress(b'{"result":"0x1"}')
SOUND: dict[str, tuple[Script, bytes]] = {
    "chunked": ([chunked(b'{"a"', b":1}")], b'{"a":1}'),
    "chunks with extensions and a trailer": (
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n"],
        b"{}",
    ),
    "one byte at a time": ([step for byte in chunked(b"{", b"}") for step in (bytes([byte]), Pause(0.001))], b"{}"),
    "no length, ended by the close": ([b"HTTP/1.1 200 OK\r\n\r\n{", Pause(0.1), b"}", End.CLOSE], b"{}"),
    "hints, then ended by the close": (
        [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}", End.CLOSE],
        b"{}",
    ),
    "HTTP/1.0": ([b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", End.CLOSE], b"{}"),
    "HTTP/1.0, ended by the close": ([b"HTTP/1.0 200 OK\r\n\r\n{}", End.CLOSE], b"{}"),
    "Connection: close": ([answer(b"{}", b"Connection: close"), End.CLOSE], b"{}"),
    "no reason phrase": ([b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}"], b"{}"),
    "interim answers first": (
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", Pause(0.1), answer(b"{}")],
        b"{}",
    ),
    "two hundred header fields": ([answer(b"{}", *[b"X: y"] * 199)], b"{}"),
    "unasked gzip": ([answer(GZIPPED, b"Content-Encoding: gzip")], b'{"result":"0x1"}'),
    "unasked deflate": ([answer(zlib.compress(b"{}"), b"Content-Encoding: deflate")], b"{}"),
    "identity": ([answer(b"{}", b"Content-Encoding: identity")], b"{}"),
    "unasked gzip, byte by byte": (
        [
            answer(b"", b"Content-Encoding: gzip").replace(b": 0", b": %d" % len(GZIPPED)),
            *[bytes([b]) for b in GZIPPED],
        ],
        b'{"result":"0x1"}',
    ),
    "nothing, said to be gzip": ([answer(b"", b"Content-Encoding: gzip")], b""),
}


@ENGINES
@pytest.mark.parametrize("name", SOUND)
def test_an_odd_but_sound_answer_is_an_answer(make: Make, name: str) -> None:
    script, body = SOUND[name]

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for _ in range(2):
            assert (await send(engine)).body == body

    over(make, ScriptedUpstream(script), work)


@ENGINES
def test_an_answer_without_a_body_has_none(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for _ in range(2):
            reply = await send(engine)
            assert (reply.status, reply.body, reply.stream) == (204, b"", None)
        assert upstream.accepted == 1

    over(make, ScriptedUpstream([b"HTTP/1.1 204 No Content\r\n\r\n"]), work)


@ENGINES
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(make: Make, status: int) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        script = [answer(b"", b"Location: %b/elsewhere" % upstream.url.encode(), status=b"%d Moved" % status)]
        upstream.scripts = [script]
        assert (await send(engine)).status == status
        assert len(upstream.requests) == 1

    over(make, ScriptedUpstream(), work)


@ENGINES
def test_proxies_of_the_environment_are_ignored(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        assert (await send(engine)).status == 200

    over(make, ScriptedUpstream([answer()]), work)


# --- the request ----------------------------------------------------------------------------------

HEADERS = (
    b"Content-Type: application/json\r\nAccept: application/json\r\nAccept-Encoding: identity\r\nUser-Agent: seawall/"
)
PATHS = ["/", "/v3/a%2Fb/~x?q=%5B1%5D&k=a'b", "/a//b/../c/./d", "/v3/%2f%2e%2E/;p=1,2/(x)!$&*+=:@?a=b?c&&d"]


@ENGINES
@pytest.mark.parametrize("path", PATHS)
def test_the_request_leaves_byte_for_byte_and_carries_nothing_that_was_not_asked_for(make: Make, path: str) -> None:
    body = b'  {"id": 1.0,\t"x":"\\u00e9\xc3\xa9", "n":1e400}\r\n\x00'

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        await send(engine, body, extra_head=b"traceparent: 00-ab\r\n")
        await send(engine, b"")
        sent, empty = upstream.requests
        assert b"\r\nContent-Length: 0\r\n" in empty
        assert empty.endswith(b"\r\n\r\n")
        lines = sent.split(b"\r\n")
        version = lines.pop(6 if make is second else 5)
        assert version.startswith(b"User-Agent: seawall/")
        assert lines == [
            b"POST %b HTTP/1.1" % path.encode(),
            b"Host: 127.0.0.1:%d" % upstream.port,
            *([b"Connection: keep-alive"] if make is second else []),  # httpx2 says so; it is the default
            b"Content-Type: application/json",
            b"Accept: application/json",
            b"Accept-Encoding: identity",
            b"Authorization: Basic dXNlcjpwYXNz",
            b"X-mine: Yes",
            b"traceparent: 00-ab",
            b"Content-Length: %d" % len(body),
            b"",
            *body.split(b"\r\n"),
        ]
        assert sent.endswith(b"\r\n\r\n" + body)
        assert bytes(upstream.conversations[0].heard) == sent + empty

    over(
        make,
        ScriptedUpstream([answer()]),
        work,
        path=path,
        headers={"X-mine": "Yes"},
        basic=("user", "pass"),
    )


@ENGINES
def test_a_large_request_arrives_whole(make: Make) -> None:
    body = bytes(range(256)) * 8000

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        assert (await send(engine, body)).status == 200
        assert upstream.requests[0].endswith(b"\r\n\r\n" + body)

    over(make, ScriptedUpstream([answer()]), work)


# --- failures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """How an exchange ends: the script, the error, and what is known about the bytes."""

    script: Script
    error: type[AttemptError]
    sent: Sent


def lost(*script: Any) -> Ending:
    return Ending(script, ConnectionLost, Sent.SENT)


def late(*script: Any) -> Ending:
    return Ending(script, AttemptTimeout, Sent.SENT)


def broken(*script: Any) -> Ending:
    return Ending(script, BrokenReply, Sent.ANSWERED)


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ENDS: dict[str, Ending] = {
    "no answer": late(HANG),
    "half a head, then silence": late(b"HTTP/1.1 200 OK\r\nConte", HANG),
    "half a body, then silence": late(HEAD + b"Content-Length: 9\r\n\r\n{}", HANG),
    "a trickle": late(HEAD + b"Content-Length: 999\r\n\r\n", *[b"x", Pause(0.1)] * 999),
    "reset after reading": lost(End.RESET),
    "closed after reading": lost(End.CLOSE),
    "reset inside the head": lost(HEAD + b"Cont", Pause(0.01), End.RESET),
    "closed inside the head": lost(HEAD + b"Cont", End.CLOSE),
    "reset inside the body": lost(HEAD + b"Content-Length: 9\r\n\r\n{}", Pause(0.01), End.RESET),
    "shorter than its length": lost(HEAD + b"Content-Length: 9\r\n\r\n{}", End.CLOSE),
    "without its last chunk": lost(chunked(b"{}", end=b""), End.CLOSE),
    "inside a chunk": lost(CHUNKED + b"9\r\n{}", End.CLOSE),
    "ended by a reset, not a close": lost(HEAD + b"\r\n{}", Pause(0.01), End.RESET),
    "two lengths": broken(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
    "length and chunks": broken(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "chunks and length": broken(HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    "two codings": broken(HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "a negative length": broken(HEAD + b"Content-Length: -2\r\n\r\n{}"),
    "a length that is no number": broken(HEAD + b"Content-Length: two\r\n\r\n{}"),
    "a chunk size that is no number": broken(chunked(b"{}", end=b"zz\r\n")),
    "a chunk longer than its size": broken(CHUNKED + b"2\r\n{}xx\r\n0\r\n\r\n"),
    "a giant header": broken(answer(b"{}", b"X: " + b"a" * 262_144)),
    "a header section past its limit": broken(answer(b"{}", *[b"X%d: " % i + b"a" * 1000 for i in range(70)])),
    "too many header fields": broken(answer(b"{}", *[b"X: y"] * 200)),
    "a header name with a space": broken(HEAD + b"Content-Length : 2\r\n\r\n{}"),
    "a control byte in a header": broken(answer(b"{}", b"X: a\0b")),
    "another protocol": broken(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "an unknown version": broken(b"HTTP/3.7 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "a status below 100": broken(b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\n{}"),
    "a status of zero": broken(b"HTTP/1.1 000 Odd\r\nContent-Length: 2\r\n\r\n{}"),
    "an unknown coding": broken(answer(b"{}", b"Content-Encoding: br")),
    "two codings of the content": broken(answer(GZIPPED, b"Content-Encoding: gzip, gzip")),
    "damaged gzip": broken(answer(b"not gzip", b"Content-Encoding: gzip")),
    "gzip cut short": broken(answer(GZIPPED[:-4], b"Content-Encoding: gzip")),
    "gzip with something behind it": broken(answer(GZIPPED + b"more", b"Content-Encoding: gzip")),
    "a gzip bomb": broken(answer(gzip.compress(bytes(64 * MB), 9), b"Content-Encoding: gzip")),
}


@ENGINES
@pytest.mark.parametrize("name", ENDS)
def test_every_broken_exchange_says_how_far_it_got_and_is_not_repeated(make: Make, name: str) -> None:
    end = ENDS[name]

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        began = here().time()
        with pytest.raises(AttemptError) as raised:
            await send(engine)
        assert (type(raised.value), raised.value.sent) == (end.error, end.sent)
        assert here().time() - began <= TIMEOUT + 0.01
        if end.error is AttemptTimeout:
            assert here().time() - began >= TIMEOUT - 0.01
        else:
            assert here().time() - began < 0.5
        assert len(upstream.requests) == 1
        assert "127.0.0.1" not in str(raised.value)
        assert str(upstream.port) not in str(raised.value)
        upstream.scripts = [[answer(b"fresh")]]
        assert (await send(engine)).body == b"fresh"
        reused = upstream.accepted == 1
        assert not reused or (make is second and "gzip" in name), "only what was soundly framed may go on"

    over(make, ScriptedUpstream(end.script), work)


@ENGINES
def test_garbage_for_an_answer_is_no_answer(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with pytest.raises((BrokenReply, ConnectionLost)):
            await send(engine)
        assert len(upstream.requests) == 1

    over(make, ScriptedUpstream([b'{"jsonrpc":"2.0"}\n', End.CLOSE]), work)


@ENGINES
def test_a_refused_connection_was_provably_not_sent(make: Make) -> None:
    async def story() -> None:
        engine = make(f"http://127.0.0.1:{refused_port()}")
        with pytest.raises(ConnectFailed) as raised:
            await send(engine)
        assert raised.value.sent is Sent.NOT_SENT
        await engine.close()

    run(story())


@ENGINES
def test_a_connection_closed_before_it_is_used_is_never_reported_as_answered(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for how in End:
            upstream.scripts = [[answer()]]
            upstream._greeting = [how]
            with pytest.raises((ConnectionLost, ConnectFailed)):
                await send(engine)
        assert not upstream.requests

    over(make, ScriptedUpstream(), work)


@ENGINES
def test_a_request_that_could_not_all_be_written_is_partly_sent(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with pytest.raises(AttemptTimeout) as raised:
            await send(engine, bytes(40 * MB))
        assert raised.value.sent is Sent.PARTLY

    over(make, ScriptedUpstream(reads=False), work)


@ENGINES
def test_a_deadline_that_has_passed_sends_nothing(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with pytest.raises(AttemptError) as raised:
            await send(engine, timeout=0.0)
        assert raised.value.sent is Sent.NOT_SENT
        assert raised.value.counts is Outcome.IGNORED, "it is not the endpoint's fault"
        assert not upstream.accepted

    over(make, ScriptedUpstream([answer()]), work)


@ENGINES
def test_a_cancelled_call_closes_its_connection(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        call = asyncio.ensure_future(send(engine))
        await asyncio.sleep(0.5)
        assert len(upstream.requests) == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(0.01)
        assert not upstream.open

    over(make, ScriptedUpstream([HANG]), work)


@ENGINES
def test_closing_an_engine_closes_every_connection(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        await asyncio.gather(*(send(engine) for _ in range(20)))
        assert len(upstream.open) == 20
        await engine.close()
        await asyncio.sleep(0.01)
        assert not upstream.open

    over(make, ScriptedUpstream([Pause(0.1), answer()]), work)


# --- large answers --------------------------------------------------------------------------------


async def whole(reply: Any) -> bytes:
    """The answer's body, streamed or not."""
    return reply.body if reply.stream is None else b"".join([piece async for piece in reply.stream])


def flood(total: int) -> Script:
    """An answer of `total` bytes, as fast as they are taken."""

    async def body(conversation: Conversation) -> None:
        piece = b"0123456789abcdef" * 4096
        for _ in range(total // len(piece)):
            await conversation.say(piece)
        await conversation.say(piece[: total % len(piece)])

    return [HEAD + b"Content-Length: %d\r\n\r\n" % total, body]


class Memory:
    """The most memory that was held at once since the start, in bytes."""

    def __enter__(self) -> Self:
        tracemalloc.start(1)
        self._began = tracemalloc.get_traced_memory()[0]
        return self

    @property
    def peak(self) -> int:
        return tracemalloc.get_traced_memory()[1] - self._began

    def __exit__(self, *_: Any) -> None:
        tracemalloc.stop()


@ENGINES
def test_a_hundred_megabytes_pass_a_slow_reader_with_memory_bounded(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with Memory() as memory:
            reply = await send(engine)
            assert (reply.body, reply.status) == (b"", 200)
            await asyncio.sleep(1)
            size = count = 0
            async for piece in reply.stream:
                size += len(piece)
                count += 1
                if count % 20 == 0:
                    await asyncio.sleep(0.05)
            assert size == 100 * MB
            assert memory.peak < 4 * MB
        assert (await send(engine)).body == b"{}"
        assert upstream.accepted == 1, "the connection goes on"

    over(make, ScriptedUpstream(flood(100 * MB), [answer()]), work)


@ENGINES
def test_a_streamed_answer_loses_and_adds_nothing(make: Make) -> None:
    body = b"".join(b"%08d" % i for i in range(400_000))

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for _ in range(2):
            reply = await send(engine)
            assert reply.stream is not None
            assert await whole(reply) == body
        assert upstream.accepted == 1

    over(
        make,
        ScriptedUpstream([answer(body)], [chunked(*(body[i : i + 9999] for i in range(0, len(body), 9999)))]),
        work,
    )


@ENGINES
def test_a_reader_that_takes_its_time_is_not_held_against_the_upstream(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        reply = await send(engine)
        size = 0
        async for piece in reply.stream:
            if size < 3 * MB:
                await asyncio.sleep(9 * TIMEOUT)
            size += len(piece)
        assert size == 20 * MB

    over(make, ScriptedUpstream(flood(20 * MB)), work)


@ENGINES
def test_a_stream_may_outlast_the_attempt_but_not_fall_silent(make: Make) -> None:
    idle = SETTINGS.stream_idle_timeout

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        reply = await send(engine)
        came, began = 0, here().time()
        with pytest.raises(AttemptTimeout):
            async for _ in reply.stream:
                came += 1
        assert came >= 5
        assert here().time() - began == pytest.approx(5 * (idle - 1) + idle, abs=0.1)
        await asyncio.sleep(0.01)
        assert not upstream.open

    slowly = [step for _ in range(5) for step in (Pause(idle - 1), b"x" * 100_000)]
    over(make, ScriptedUpstream([LONG, b"x" * 2 * MB, *slowly, HANG]), work)


LONG = HEAD + b"Content-Length: 9000000\r\n\r\n"
BREAKS: dict[str, tuple[Script, type[AttemptError]]] = {
    "reset": ([LONG, bytes(2 * MB), Pause(0.1), End.RESET], ConnectionLost),
    "closed": ([LONG, bytes(2 * MB), End.CLOSE], ConnectionLost),
    "closed between chunks": ([CHUNKED + b"1e8480\r\n", bytes(2 * MB) + b"\r\n", End.CLOSE], ConnectionLost),
    "bad chunk": ([CHUNKED + b"1e8480\r\n", bytes(2 * MB) + b"\r\n", Pause(0.1), b"zz\r\n"], BrokenReply),
}


@ENGINES
@pytest.mark.parametrize("name", BREAKS)
def test_a_stream_that_breaks_off_raises_and_is_never_a_short_answer(make: Make, name: str) -> None:
    script, error = BREAKS[name]

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        reply = await send(engine)
        with pytest.raises(error):
            async for _ in reply.stream:
                pass
        await asyncio.sleep(0.01)
        assert not upstream.open

    over(make, ScriptedUpstream(script), work)


@ENGINES
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_a_stream_closed_early_closes_its_connection(make: Make, taken: int) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        reply = await send(engine)
        pieces = aiter(reply.stream)
        for _ in range(taken):
            await anext(pieces)
        reply.stream.close()
        reply.stream.close()
        await asyncio.sleep(0.01)
        assert not upstream.open

    over(make, ScriptedUpstream(flood(20 * MB)), work)


@ENGINES
def test_a_reader_cancelled_inside_a_stream_can_let_go_of_it(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        async def read() -> None:
            reply = await send(engine)
            try:
                async for _ in reply.stream:
                    pass
            finally:
                reply.stream.close()

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.sleep(0.01)
        assert not upstream.open

    over(make, ScriptedUpstream([LONG, bytes(2 * MB), HANG]), work)


LARGE = zlib.compressobj(1, zlib.DEFLATED, 31)
NOISE = b"".join(b"%x" % (i * 2654435761 % 2**32) for i in range(20_000))
LARGE_GZIP = LARGE.compress(NOISE) + LARGE.flush()
STREAM_BREAKS: dict[str, Script] = {
    "past its limit": [CHUNKED + b"ffffff\r\n", *[bytes(50_000), Pause(0.01)] * 10, HANG],
    "gzip past its limit": [answer(gzip.compress(NOISE * 2, 1), b"Content-Encoding: gzip")],
    "gzip cut short": [answer(LARGE_GZIP[:-40], b"Content-Encoding: gzip")],
    "gzip damaged": [answer(LARGE_GZIP[:60_000] + bytes(5000), b"Content-Encoding: gzip")],
}


@ENGINES
@pytest.mark.parametrize("name", STREAM_BREAKS)
def test_a_stream_that_cannot_be_trusted_ends_in_a_broken_reply(make: Make, name: str) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with pytest.raises(BrokenReply):
            reply = await send(engine)
            await whole(reply)
        await asyncio.sleep(0.01)
        assert not upstream.open or (make is second and "gzip" in name), "only what was soundly framed may go on"

    over(make, ScriptedUpstream(STREAM_BREAKS[name]), work, settings=SMALL)


@ENGINES
def test_a_large_compressed_answer_streams_decoded(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        assert await whole(await send(engine)) == NOISE

    over(make, ScriptedUpstream([answer(LARGE_GZIP, b"Content-Encoding: gzip")]), work, settings=SMALL)


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(leaf: trustme.LeafCert, callers: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    if callers is not None:
        callers.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@ENGINES
def test_tls_is_verified_against_the_configured_authority(make: Make, authority: trustme.CA) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for _ in range(2):
            assert (await send(engine)).body == b"{}"
        assert upstream.accepted == 1

    with authority.cert_pem.tempfile() as ca:
        over(make, ScriptedUpstream([answer()], tls=server_side(authority.issue_cert("127.0.0.1"))), work, ca=ca)


@ENGINES
@pytest.mark.parametrize("wrong", ["authority", "name", "date", "not yet"])
def test_a_certificate_that_does_not_fit_stops_before_anything_is_sent(
    make: Make, wrong: str, authority: trustme.CA
) -> None:
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    leaf = {
        "authority": lambda: trustme.CA().issue_cert("127.0.0.1"),
        "name": lambda: authority.issue_cert("elsewhere.example"),
        "date": lambda: authority.issue_cert("127.0.0.1", not_before=now - 9 * day, not_after=now - day),
        "not yet": lambda: authority.issue_cert("127.0.0.1", not_before=now + day, not_after=now + 9 * day),
    }[wrong]()

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with pytest.raises(TlsFailed) as raised:
            await send(engine)
        assert isinstance(raised.value, NotSent)
        assert not upstream.requests
        assert all(not conversation.heard for conversation in upstream.conversations)

    with authority.cert_pem.tempfile() as ca:
        over(make, ScriptedUpstream([answer()], tls=server_side(leaf)), work, ca=ca)


@ENGINES
def test_without_a_configured_authority_a_private_one_is_not_trusted(make: Make, authority: trustme.CA) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with pytest.raises(TlsFailed):
            await send(engine)
        assert not upstream.requests

    over(make, ScriptedUpstream([answer()], tls=server_side(authority.issue_cert("127.0.0.1"))), work)


@ENGINES
def test_old_versions_of_tls_are_refused(make: Make, authority: trustme.CA) -> None:
    tls = server_side(authority.issue_cert("127.0.0.1"))
    tls.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        tls.minimum_version = ssl.TLSVersion.TLSv1
        tls.maximum_version = ssl.TLSVersion.TLSv1_1

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with pytest.raises(NotSent):
            await send(engine)
        assert not upstream.requests

    with authority.cert_pem.tempfile() as ca:
        over(make, ScriptedUpstream([answer()], tls=tls), work, ca=ca)


@ENGINES
def test_a_client_certificate_is_presented(make: Make, authority: trustme.CA) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        assert (await send(engine)).status == 200

    client = authority.issue_cert("client.example")
    with (
        authority.cert_pem.tempfile() as ca,
        client.cert_chain_pems[0].tempfile() as certificate,
        client.private_key_pem.tempfile() as key,
    ):
        upstream = ScriptedUpstream([answer()], tls=server_side(authority.issue_cert("127.0.0.1"), authority))
        over(make, upstream, work, ca=ca, certificate=certificate, private_key=key)


@ENGINES
def test_a_host_that_does_not_answer_the_handshake_is_not_sent_anything(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        engine = make(f"https://127.0.0.1:{upstream.port}")
        began = here().time()
        with pytest.raises((ConnectTimeout, TlsFailed)) as raised:
            await send(engine, timeout=60)
        assert raised.value.sent is Sent.NOT_SENT
        assert here().time() - began <= SETTINGS.connect_timeout + SETTINGS.tls_timeout + 0.01
        await engine.close()
        assert not upstream.requests

    over(make, ScriptedUpstream(), work)


# --- the second engine alone: proxies --------------------------------------------------------------

PROXIES: dict[str, tuple[Script, type[AttemptError]]] = {
    "silent": ([HANG], ConnectTimeout),
    "refusing": ([answer(b"", status=b"502 Bad Gateway")], ConnectFailed),
    "closing": ([End.CLOSE], AttemptError),
}


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_that_opens_no_tunnel_was_sent_nothing_of_the_request(name: str) -> None:
    script, error = PROXIES[name]

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        engine = second("https://node.example/secret", proxy=upstream.url)
        with pytest.raises(error) as raised:
            await send(engine)
        assert raised.value.sent is Sent.NOT_SENT
        assert upstream.requests[0].startswith(b"CONNECT node.example:443 HTTP/1.1\r\n")
        assert b"secret" not in upstream.conversations[0].heard
        await engine.close()

    over(second, ScriptedUpstream(script, early=True), work)

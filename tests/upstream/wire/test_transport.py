"""The first engine's connections: kept, shared out, distrusted and let go; and nothing is ever sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trustme

from gateway.errors import (
    AttemptError,
    AttemptTimeout,
    BrokenReply,
    Cancelled,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    NotSent,
    ResolveFailed,
)
from gateway.limits import TransportSettings
from gateway.model import Outcome, Sent
from gateway.upstream.wire.connection import MAX_INTERIM, READER_PATIENCE
from gateway.upstream.wire.resolver import REFRESH_AFTER, Resolver
from gateway.upstream.wire.transport import ConnectionPool, Target
from tests.upstream.scripted import HANG, Conversation, End, Pause, Script, ScriptedUpstream, answer
from tests.virtual import STARTS_AT, here, run

TIMEOUT = 3.0
SETTINGS = TransportSettings()
HEAD = b"POST / HTTP/1.1\r\nHost: node\r\n"
REQUEST = HEAD + b"Content-Length: 2\r\n\r\n[]"
Work = Callable[[ConnectionPool, ScriptedUpstream], Coroutine[Any, Any, None]]


def pool_to(host: str, port: int, tls: ssl.SSLContext | None = None, **settings: Any) -> ConnectionPool:
    clock = here().time
    target = Target(host, port, HEAD, tls, "127.0.0.1")
    return ConnectionPool(target, TransportSettings(**settings), Resolver(clock), clock)


def over(
    upstream: ScriptedUpstream, work: Work, *, host: str = "127.0.0.1", at_most: float = 1000, **more: Any
) -> None:
    """Run `work` with a pool that leads to `upstream`; no connection, timer or task may survive the pool."""

    async def story() -> None:
        here().names["node.example"] = ["127.0.0.1"]
        async with upstream:
            pool = pool_to(host, upstream.port, **more)
            try:
                await work(pool, upstream)
            finally:
                await pool.close()
            async with asyncio.timeout(30):
                await upstream.gone()
            assert (pool.open_connections, pool.idle_connections) == (0, 0)

    run(story(), at_most=at_most)


async def send(pool: ConnectionPool, timeout: float = TIMEOUT, **more: Any) -> Any:
    return await pool.send(b"[]", here().time() + timeout, **more)


async def warmed(pool: ConnectionPool) -> None:
    """Open ahead, and fail when that has no end; no time passes while it goes on."""
    warming = asyncio.ensure_future(pool.warm())
    for _ in range(1000):
        await asyncio.sleep(0)
    ended = warming.done()
    warming.cancel()
    await asyncio.wait((warming,))
    assert ended


async def a_moment() -> None:
    """Let what is under way arrive."""
    await asyncio.sleep(0.01)


# --- keeping ----------------------------------------------------------------------------------------


def test_calls_one_after_the_other_share_one_connection() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        for _ in range(50):
            assert (await send(pool)).body == b"{}"
        assert (upstream.accepted, len(upstream.requests)) == (1, 50)
        assert bytes(upstream.conversations[0].heard) == REQUEST * 50

    over(ScriptedUpstream([answer()]), work)


def test_calls_at_the_same_time_never_share_one() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await asyncio.gather(*(send(pool) for _ in range(30)))
        assert (upstream.accepted, pool.open_connections, pool.idle_connections) == (30, 30, 30)

    over(ScriptedUpstream([Pause(1), answer()]), work)


def test_the_connection_used_last_is_used_next() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await asyncio.gather(*(send(pool) for _ in range(5)))
        before = [len(conversation.heard) for conversation in upstream.conversations]
        for _ in range(10):
            await send(pool)
        grown = [
            conversation
            for conversation, size in zip(upstream.conversations, before, strict=True)
            if len(conversation.heard) > size
        ]
        assert len(grown) == 1

    over(ScriptedUpstream([Pause(0.1), answer()]), work)


def test_no_more_idle_connections_are_kept_than_allowed() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await asyncio.gather(*(send(pool) for _ in range(10)))
        await a_moment()
        assert (pool.idle_connections, pool.open_connections, len(upstream.open)) == (3, 3, 3)

    over(ScriptedUpstream([Pause(0.1), answer()]), work, idle_connections=3)


def test_idle_connections_are_reaped_when_their_time_is_over_and_not_before() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await asyncio.gather(send(pool), send(pool))
        await asyncio.sleep(SETTINGS.keep_idle_for - 1)
        await send(pool)  # one of the two is fresh again
        await asyncio.sleep(0.9)
        pool.reap()
        assert pool.idle_connections == 2
        await asyncio.sleep(0.2)
        pool.reap()
        await a_moment()
        assert (pool.idle_connections, len(upstream.open)) == (1, 1)

    over(ScriptedUpstream([Pause(0.1), answer()], [Pause(0.1), answer()], [answer()]), work)


def test_a_connection_past_its_time_is_not_used_even_when_nobody_reaped_it() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await send(pool)
        await asyncio.sleep(SETTINGS.keep_idle_for + 0.1)
        await send(pool)
        assert upstream.accepted == 2

    over(ScriptedUpstream([answer()]), work)


@pytest.mark.parametrize(
    ("field", "kept_for"),
    [
        (b"Keep-Alive: timeout=5, max=100", 4.0),
        (b"keep-alive: max=9, Timeout=7", 6.0),
        (b"Keep-Alive: timeout=1", 0.5),
        (b"Keep-Alive: timeout=0", 0.5),
        (b"Keep-Alive: timeout=600", SETTINGS.keep_idle_for),
        (b"Keep-Alive: timeout=soon", SETTINGS.keep_idle_for),
        (b"Keep-Alive: timeout=-1", SETTINGS.keep_idle_for),
        (b"Keep-Alive: timeout", SETTINGS.keep_idle_for),
    ],
)
def test_a_servers_own_limit_is_kept_with_a_second_to_spare(field: bytes, kept_for: float) -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await send(pool)
        await asyncio.sleep(kept_for - 0.1)
        await send(pool)
        assert upstream.accepted == 1
        await asyncio.sleep(kept_for + 0.1)
        await send(pool)
        assert upstream.accepted == 2

    over(ScriptedUpstream([answer(b"{}", field)]), work)


def test_connections_can_be_opened_ahead() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await pool.warm()
        await a_moment()
        assert (pool.idle_connections, upstream.accepted, upstream.requests) == (4, 4, [])
        await send(pool)
        assert upstream.accepted == 4

    over(ScriptedUpstream([answer()]), work, warm_connections=4)


@pytest.mark.parametrize("how", End)
def test_opening_ahead_gives_up_on_a_server_that_closes_what_it_accepts(how: End) -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await warmed(pool)
        assert upstream.accepted <= 4

    over(ScriptedUpstream(greeting=[how]), work, warm_connections=4)


def test_opening_ahead_stops_at_the_number_asked_for_even_when_fewer_may_be_kept() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await warmed(pool)
        await a_moment()
        assert (pool.idle_connections, upstream.accepted) == (1, 4)

    over(ScriptedUpstream([answer()]), work, warm_connections=4, idle_connections=1)


def test_opening_ahead_where_nobody_listens_is_no_error() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        upstream.refuse()
        await pool.warm()
        assert pool.open_connections == 0

    over(ScriptedUpstream(), work)


def test_an_answer_under_way_survives_the_pools_close_and_its_connection_does_not() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        call = asyncio.ensure_future(send(pool))
        await asyncio.sleep(0.5)
        await pool.close()
        assert (await call).body == b"{}"
        await a_moment()
        assert not upstream.open

    over(ScriptedUpstream([Pause(1), answer()]), work)


# --- distrust ---------------------------------------------------------------------------------------


def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        assert (await send(pool)).body == b"{}"
        await asyncio.sleep(0.2)
        assert (pool.idle_connections, len(upstream.open)) == (0, 0)
        upstream.scripts = [[answer(b"mine")]]
        assert (await send(pool)).body == b"mine"

    over(ScriptedUpstream([answer(), Pause(0.1), answer(b"not asked for")]), work)


FLOOD = b"HTTP/1.1 100 Continue\r\n\r\n"
TOO_MUCH: dict[str, bytes] = {
    "garbage": answer() + b"garbage",
    "a second answer": answer() + answer(b"another's"),
    "the beginning of a second": answer() + b"HTTP/1.1 2",
    "a byte past a chunked end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nx",
    "a body where none may be": b"HTTP/1.1 204 No Content\r\n\r\n{}",
    "too many interim answers": FLOOD * (MAX_INTERIM + 1) + answer(),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_more_than_one_answer_is_none_and_ends_the_connection(name: str) -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        with pytest.raises(BrokenReply):
            await send(pool)
        await a_moment()
        assert not upstream.open
        upstream.scripts = [[answer(b"mine")]]
        assert (await send(pool)).body == b"mine"
        assert len(upstream.requests) == 2

    over(ScriptedUpstream([TOO_MUCH[name]]), work)


def test_as_many_interim_answers_as_are_allowed_are_passed_over() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        assert (await send(pool)).body == b"{}"

    over(ScriptedUpstream([FLOOD * MAX_INTERIM + answer()]), work)


def endless(piece: bytes) -> Callable[[Conversation], Coroutine[Any, Any, None]]:
    """More of the same than any limit allows."""

    async def go_on(conversation: Conversation) -> None:
        while not conversation.gone and conversation.written < 20_000_000:
            await conversation.say(piece)

    return go_on


LINES = b"X: y\r\n" * 500
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS: dict[str, Script] = {
    "a reason phrase": [b"HTTP/1.1 200 ", endless(b"a" * 4096)],
    "one header": [b"HTTP/1.1 200 OK\r\nX: ", endless(b"a" * 4096)],
    "one header's name": [b"HTTP/1.1 200 OK\r\n", endless(b"a" * 4096)],
    "headers": [b"HTTP/1.1 200 OK\r\n", endless(LINES)],
    "interim answers": [endless(FLOOD * 100)],
    "a chunk extension": [CHUNKED + b"2;", endless(b"a" * 4096)],
    "a trailer": [CHUNKED + b"2\r\n{}\r\n0\r\nX: ", endless(b"a" * 4096)],
    "trailers": [CHUNKED + b"2\r\n{}\r\n0\r\n", endless(LINES)],
}


@pytest.mark.parametrize("name", ENDLESS)
def test_what_does_not_end_is_cut_off_by_its_size_long_before_the_deadline(name: str) -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        with pytest.raises(BrokenReply):
            await send(pool, timeout=900)
        assert here().time() - STARTS_AT < 1
        assert upstream.conversations[0].written < 12_000_000  # what the system's buffers take
        await a_moment()
        assert not upstream.open

    over(ScriptedUpstream(ENDLESS[name]), work)


def test_an_answer_before_the_whole_request_was_taken_ends_the_connection() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        async def large() -> Any:
            return await pool.send(bytes(30_000_000), here().time() + TIMEOUT)

        upstream._early = True
        reply = await large()
        assert reply.status == 413
        assert pool.idle_connections == 0

    async def deafen(conversation: Conversation) -> None:
        conversation.transport.pause_reading()

    over(ScriptedUpstream([deafen, answer(b"", status=b"413 Content Too Large")]), work)


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("how", End)
def test_a_connection_whose_end_the_loop_has_not_told_yet_is_not_written_to(careful: bool, how: End) -> None:
    """The close lies in the socket when the call is made: `careful` calls look; others are told by the loop."""

    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        loop = here()
        await send(pool)
        upstream.conversations[0].end(how)
        calls: list[asyncio.Task[Any]] = []
        if careful:
            await asyncio.sleep(0)  # the socket is closed, and our side of it has not been read
            calls.append(asyncio.ensure_future(send(pool, careful=True)))
        else:
            loop.call_soon(lambda: loop.call_soon(lambda: calls.append(loop.create_task(send(pool)))))
            await a_moment()
        assert (await calls[0]).body == b"{}"
        assert upstream.accepted == 2
        assert upstream.requests == [REQUEST, REQUEST]

    over(ScriptedUpstream([answer()]), work)


def test_after_a_second_of_idleness_every_call_looks_before_it_writes() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        loop = here()
        await send(pool)
        await asyncio.sleep(1.5)
        pool._idle[0].transport.pause_reading()  # the loop will not tell
        upstream.conversations[0].end(End.CLOSE)
        await a_moment()
        assert (await send(pool)).body == b"{}"
        assert upstream.accepted == 2
        assert loop.time() < STARTS_AT + 2

    over(ScriptedUpstream([answer()]), work)


FAULTS: dict[str, Script] = {
    "reset": [End.RESET],
    "close": [End.CLOSE],
    "hang": [HANG],
    "half a head": [b"HTTP/1.1 200", End.RESET],
    "half a body": [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", End.CLOSE],
    "garbage": [b"\x16\x03\x01\x02"],
    "two answers": [answer() + answer()],
    "408": [answer(b"", b"Connection: close", status=b"408 Request Timeout"), End.CLOSE],
    "redirect": [answer(b"", b"Location: /", status=b"307 Temporary Redirect")],
    "unavailable": [answer(b"", b"Retry-After: 0", status=b"503 Service Unavailable")],
    "continue": [b"HTTP/1.1 100 Continue\r\n\r\n", HANG],
}


@pytest.mark.parametrize("careful", [False, True])
@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "kept"])
@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_ever_sent_twice(name: str, fresh: bool, careful: bool) -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        if not fresh:
            await send(pool)
        with contextlib.suppress(AttemptError):
            await send(pool, careful=careful)
        await asyncio.sleep(60)
        heard = b"".join(bytes(conversation.heard) for conversation in upstream.conversations)
        assert heard == REQUEST * (1 if fresh else 2)

    scripts = [FAULTS[name]] if fresh else [[answer()], FAULTS[name]]
    over(ScriptedUpstream(*scripts), work, at_most=20_000_000)


def test_over_tls_a_server_that_speaks_first_was_provably_sent_nothing() -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.maximum_version = ssl.TLSVersion.TLSv1_2  # here the server has the last word of the handshake
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        with pytest.raises(NotSent):
            await send(pool)
        assert here().time() - STARTS_AT < 1
        assert not any(conversation.heard for conversation in upstream.conversations)

    over(ScriptedUpstream([answer()], greeting=[answer(b"unasked")], tls=server), work, tls=client)


# --- one caller's end is not another's ----------------------------------------------------------------


def test_a_caller_that_leaves_as_its_answer_comes_does_not_take_the_next_ones_connection_down() -> None:
    """The connection is given back, taken again and written to before the one that left notices anything."""

    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        loop = here()
        leaver = asyncio.ensure_future(send(pool))
        await asyncio.sleep(0.5)
        calls: list[asyncio.Task[Any]] = []
        upstream.conversations[0].transport.write(answer(b"first"))
        loop.call_soon(lambda: calls.append(loop.create_task(send(pool))))
        loop.call_later(0, leaver.cancel)
        with pytest.raises(asyncio.CancelledError):
            await leaver
        assert (await calls[0]).body == b"second"
        assert upstream.accepted == 1

    over(ScriptedUpstream([Pause(1)], [answer(b"second")]), work)


def test_a_caller_that_leaves_as_its_stream_begins_closes_it() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        loop = here()
        for turn in range(3):
            leaver = asyncio.ensure_future(send(pool))
            await asyncio.sleep(0.5)
            upstream.conversations[turn].transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n" + b"x" * 200_000
            )
            if turn == 0:
                loop.call_later(0, leaver.cancel)
            elif turn == 1:
                leaver.cancel()
            else:
                loop.call_soon(loop.call_soon, leaver.cancel)
            with pytest.raises(asyncio.CancelledError):
                await leaver
            await a_moment()
            assert not upstream.open
        assert pool.idle_connections == 0

    over(ScriptedUpstream([HANG]), work, answer_buffer=4096, at_most=20_000_000)


def test_a_stream_that_nobody_reads_any_more_is_closed_in_the_end_and_nobody_is_blamed() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        reply = await send(pool)
        await anext(reply.stream)
        await asyncio.sleep(READER_PATIENCE)
        assert upstream.open
        await asyncio.sleep(2 * TIMEOUT)
        assert not upstream.open
        with pytest.raises(Cancelled) as raised:
            async for _ in reply.stream:
                pass
        assert raised.value.counts is Outcome.IGNORED

    body = b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n"
    over(ScriptedUpstream([body, endless(b"a" * 4096)]), work, at_most=2000)


@pytest.mark.parametrize("come_whole", [False, True])
def test_a_closed_stream_never_looks_like_one_that_came_to_its_end(come_whole: bool) -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        reply = await send(pool)
        while come_whole and await anext(reply.stream) != b"last but one":
            pass
        reply.stream.close()
        with pytest.raises(Cancelled):
            await anext(reply.stream)

    rest = b"c\r\nlast but one\r\n4\r\nlast\r\n0\r\n\r\n"
    over(
        ScriptedUpstream([CHUNKED + b"13880\r\n", bytes(80000) + b"\r\n", Pause(0.005), rest]), work, answer_buffer=4096
    )


# --- time -------------------------------------------------------------------------------------------


def test_a_shorter_deadline_after_a_longer_one_is_kept_to_the_moment() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await send(pool, timeout=600)
        for timeout in (30.0, 0.5, 2.0):
            began = here().time()
            with pytest.raises(AttemptTimeout) as raised:
                await send(pool, timeout=timeout)
            assert here().time() - began == pytest.approx(timeout, abs=0.002)
            assert raised.value.sent is Sent.SENT

    over(ScriptedUpstream([answer()], [HANG]), work, at_most=20_000_000)


def test_a_longer_deadline_after_a_shorter_one_is_not_cut_short() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await send(pool, timeout=1)
        assert (await send(pool, timeout=10)).body == b"late"
        assert upstream.accepted == 1

    over(ScriptedUpstream([answer()], [Pause(9), answer(b"late")]), work)


def test_a_deadline_of_one_exchange_never_strikes_in_the_next_or_in_idleness() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        for _ in range(20):
            await send(pool, timeout=1)
            await asyncio.sleep(0.7)
        assert upstream.accepted == 1

    over(ScriptedUpstream([Pause(0.6), answer()]), work)


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A port that takes no connection and refuses none: its queue is full, and further packets are dropped."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


def test_a_host_that_does_not_answer_is_given_up_after_the_connect_timeout_and_was_sent_nothing() -> None:
    async def story() -> None:
        with black_hole() as port:
            pool = pool_to("127.0.0.1", port, connect_timeout=0.7)
            began = here().time()
            with pytest.raises(ConnectTimeout) as raised:
                await send(pool)
            assert here().time() - began == pytest.approx(0.7, abs=0.01)
            assert raised.value.sent is Sent.NOT_SENT
            began = here().time()
            with pytest.raises(ConnectTimeout):
                await send(pool, timeout=0.2)
            assert here().time() - began == pytest.approx(0.2, abs=0.01)
            assert pool.open_connections == 0

    run(story())


def test_of_a_hosts_addresses_a_dead_one_is_passed_over_and_one_that_swallows_all_costs_one_call() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        here().names["node.example"] = ["127.0.0.3", "127.0.0.1"]  # nobody listens at the first
        assert (await send(pool)).body == b"{}"
        with black_hole("127.0.0.2", upstream.port):
            here().names["other.example"] = ["127.0.0.2", "127.0.0.1"]
            other = pool_to("other.example", upstream.port)
            with pytest.raises(ConnectTimeout):
                await send(other)
            for _ in range(3):
                assert (await send(other)).body == b"{}"
            await other.close()

    over(ScriptedUpstream([answer()]), work, host="node.example")


def test_a_name_servers_silence_counts_against_the_deadline() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        here().lookup_takes = 1.5
        began = here().time()
        with pytest.raises(NotSent):
            await send(pool, timeout=0.4)
        assert here().time() - began == pytest.approx(0.4, abs=0.01)
        await asyncio.sleep(2)
        assert (await send(pool, timeout=0.4)).body == b"{}", "the look-up went on, and its answer was kept"

    over(ScriptedUpstream([answer()]), work, host="node.example")


# --- addresses ----------------------------------------------------------------------------------------


def test_the_loss_of_dns_does_not_lose_the_servers() -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        await send(pool)
        for lost in (OSError("no name server"), []):
            here().names["node.example"] = lost
            await asyncio.sleep(60)
            assert (await send(pool)).body == b"{}"
        assert upstream.accepted == 3

    over(ScriptedUpstream([answer()]), work, host="node.example")


@pytest.mark.parametrize("host", ["169.254.169.254", "fe80::1", "rebound.example", "absent.example"])
def test_an_address_that_no_provider_has_is_never_dialled(host: str) -> None:
    async def story() -> None:
        here().names["rebound.example"] = ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "224.0.0.1"]
        pool = pool_to(host, 80)
        with pytest.raises(ResolveFailed) as raised:
            await send(pool)
        assert raised.value.sent is Sent.NOT_SENT
        assert host not in str(raised.value)

    run(story())


@pytest.mark.parametrize("how", End)
def test_a_connection_closed_as_soon_as_it_is_open_is_told_at_once(how: End) -> None:
    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        with pytest.raises((ConnectFailed, ConnectionLost)):
            await send(pool, timeout=600)
        assert here().time() - STARTS_AT < 1
        assert not upstream.requests

    over(ScriptedUpstream(greeting=[how]), work)


def test_a_name_that_leads_elsewhere_is_told_of_and_one_that_is_gone_or_turns_is_not() -> None:
    records: list[tuple[list[str] | OSError, int]] = [
        (["127.0.0.1"], 0),
        (["127.0.0.2", "127.0.0.1"], 0),  # balancers turn their records
        (OSError("no such name"), 0),
        (["127.0.0.3"], 1),
        (["127.0.0.3"], 1),
    ]

    async def work(pool: ConnectionPool, upstream: ScriptedUpstream) -> None:
        told: list[float] = []
        kept = await pool.connect(here().time() + TIMEOUT)  # the last connection is never closed
        pool.on_last_closed = lambda: told.append(here().time())
        for record, expected in records:
            here().names["node.example"] = record
            await asyncio.sleep(REFRESH_AFTER + 1.0)
            idle = pool.idle_connections
            with contextlib.suppress(ConnectFailed):
                pool.give_back(await pool.connect(here().time() + TIMEOUT))
            assert len(told) == expected, f"{record}"
            assert pool.idle_connections == (0 if expected else idle + 1), "they lead to where it was"
        kept.close()

    over(ScriptedUpstream([HANG]), work, host="node.example")

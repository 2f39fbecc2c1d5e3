"""The virtual loop keeps its promises: time jumps, sockets are real, and nothing hangs or is left behind."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.pace import at_most
from tests.virtual import STARTS_AT, Leftovers, Stuck, TooLong, VirtualLoop, here, refused_port, run


def test_a_long_wait_passes_at_once_and_the_clock_shows_exactly_its_length() -> None:
    async def story() -> float:
        assert here().time() == STARTS_AT
        await asyncio.sleep(900)
        return here().time()

    began = time.monotonic()
    assert run(story()) == pytest.approx(STARTS_AT + 900)
    at_most(time.monotonic() - began, 0.5, "real seconds")


def test_timers_go_off_in_their_order_and_each_at_its_instant() -> None:
    seen: list[tuple[str, float]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, here().time() - STARTS_AT))

    async def story() -> None:
        await asyncio.gather(wait("late", 30), wait("early", 0.001), wait("middle", 7.5))

    run(story())
    assert [name for name, _ in seen] == ["early", "middle", "late"]
    assert [at for _, at in seen] == pytest.approx([0.001, 7.5, 30])


def test_a_time_limit_strikes_when_nothing_else_happens_first() -> None:
    async def story() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        assert here().time() == pytest.approx(STARTS_AT + 60)

    run(story())


def test_bytes_on_a_socket_come_before_the_next_timer() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        async with asyncio.timeout(0.001):
            for _ in range(50):
                writer.write(b"x" * 50_000)
                assert len(await reader.readexactly(50_000)) == 50_000
        assert here().time() == STARTS_AT, "not an instant has passed"
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(story())


def test_work_in_a_thread_is_waited_for_in_real_time() -> None:
    async def story() -> int:
        return await asyncio.to_thread(lambda: (time.sleep(0.02), 7)[1])

    assert run(story()) == 7


async def _waits_for_nothing() -> None:
    await asyncio.Event().wait()


async def _only_lets_time_pass() -> None:
    while True:
        await asyncio.sleep(1)


async def _listens_for_nobody() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        await server.serve_forever()


@pytest.mark.parametrize(
    ("endless", "error"),
    [(_waits_for_nothing, Stuck), (_listens_for_nobody, Stuck), (_only_lets_time_pass, TooLong)],
    ids=["no timer", "only a listener", "only timers"],
)
def test_a_story_that_can_never_end_fails_and_says_who_waits(
    endless: Callable[[], Coroutine[Any, Any, None]], error: type[AssertionError]
) -> None:
    with pytest.raises(error, match=endless.__name__):
        run(endless(), at_most=50, patience=0.02)


def _leave_a_task(kept: list[object], one: socket.socket) -> None:
    kept.append(asyncio.ensure_future(asyncio.sleep(30)))


def _leave_a_socket(kept: list[object], one: socket.socket) -> None:
    here().add_reader(one, kept.clear)


def _leave_an_error(kept: list[object], one: socket.socket) -> None:
    here().call_soon(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("leave", "said"), [(_leave_a_task, "task"), (_leave_a_socket, "1 open sockets"), (_leave_an_error, "ZeroDivision")]
)
def test_what_a_story_leaves_behind_fails_it(leave: Callable[[list[object], socket.socket], None], said: str) -> None:
    kept: list[object] = []

    async def story() -> None:
        leave(kept, one)
        await asyncio.sleep(0)

    one, other = socket.socketpair()
    with one, other, pytest.raises(Leftovers, match=said):
        run(story())


def test_an_error_of_the_story_is_raised_as_it_is() -> None:
    async def story() -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(story())


def test_names_are_answered_from_the_loops_table_and_no_other_exists() -> None:
    async def story() -> None:
        loop = here()
        loop.names["node.example"] = ["192.0.2.1", "2001:db8::1"]
        loop.names["broken.example"] = OSError("no name server")
        loop.lookup_takes = 3.0
        rows = await loop.getaddrinfo("node.example", 443)
        assert [row[4][0] for row in rows] == ["192.0.2.1", "2001:db8::1"]
        assert loop.time() == pytest.approx(STARTS_AT + 3)
        with pytest.raises(OSError, match="no name server"):
            await loop.getaddrinfo("broken.example", 443)
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("example.org", 443)
        assert loop.looked_up == ["node.example", "broken.example", "example.org"]

    run(story())


def test_a_refused_port_refuses() -> None:
    async def story() -> None:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", refused_port())

    run(story())


def test_two_stories_share_nothing() -> None:
    async def story() -> VirtualLoop:
        await asyncio.sleep(5)
        return here()

    first, second = run(story()), run(story())
    assert first is not second
    assert first.time() == second.time() == pytest.approx(STARTS_AT + 5)

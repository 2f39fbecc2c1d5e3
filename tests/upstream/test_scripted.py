"""The scripted upstream hears every byte and says exactly what its script says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.upstream.scripted import HANG, Conversation, End, Pause, ScriptedUpstream, answer, chunked
from tests.virtual import STARTS_AT, here, run

REQUEST = b"POST / HTTP/1.1\r\nHost: node\r\nContent-Length: 5\r\n\r\nhello"
Talk = Callable[[ScriptedUpstream, asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def talk_to(upstream: ScriptedUpstream, talk: Talk) -> None:
    async def story() -> None:
        async with upstream:
            reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
            await talk(upstream, reader, writer)
            writer.transport.abort()

    run(story(), at_most=20_000_000)


def test_a_script_is_played_to_the_byte_once_the_whole_request_is_there() -> None:
    async def talk(upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for i in range(len(REQUEST)):
            assert not upstream.requests
            writer.write(REQUEST[i : i + 1])
            await asyncio.sleep(0.01)
        assert await reader.readexactly(6) == b"abcdef"
        assert upstream.requests == [REQUEST]
        assert here().time() == pytest.approx(STARTS_AT + 2 + len(REQUEST) * 0.01, abs=0.02)

    talk_to(ScriptedUpstream([b"abc", Pause(2), b"def"]), talk)


def test_each_request_has_its_script_and_the_last_one_stays() -> None:
    async def talk(upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST * 3)
        assert await reader.readexactly(3) == b"122"
        assert upstream.requests == [REQUEST] * 3
        assert bytes(upstream.conversations[0].heard) == REQUEST * 3
        assert upstream.accepted == 1

    talk_to(ScriptedUpstream([b"1"], [b"2"]), talk)


@pytest.mark.parametrize("how", End)
def test_a_script_can_end_the_connection_either_way(how: End) -> None:
    async def talk(upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        if how is End.RESET:
            with pytest.raises(ConnectionResetError):
                await reader.read()
        else:
            assert await reader.read() == b"half"
        await upstream.gone()

    talk_to(ScriptedUpstream([b"half", how]), talk)


def test_a_greeting_comes_before_anything_is_asked() -> None:
    async def talk(upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"hello"
        assert not upstream.requests

    talk_to(ScriptedUpstream([b"x"], greeting=[b"hello", End.CLOSE]), talk)


def test_a_hanging_script_says_nothing_and_keeps_the_connection() -> None:
    async def talk(upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await reader.read()
        assert len(upstream.open) == 1

    talk_to(ScriptedUpstream([HANG]), talk)


def test_an_early_script_does_not_wait_for_the_body_and_a_deaf_upstream_reads_nothing() -> None:
    async def early(upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST[:-5])
        assert await reader.readexactly(2) == b"no"

    async def deaf(upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        await asyncio.sleep(10)
        assert upstream.conversations[0].heard == b""

    talk_to(ScriptedUpstream([b"no"], early=True), early)
    talk_to(ScriptedUpstream([b"no"], reads=False), deaf)


def test_a_step_may_be_any_coroutine_and_waits_while_nobody_reads() -> None:
    async def flood(conversation: Conversation) -> None:
        while True:
            await conversation.say(b"x" * 65536)

    async def talk(upstream: ScriptedUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(REQUEST)
        await reader.readexactly(1)
        writer.transport.pause_reading()
        await asyncio.sleep(1)
        before = upstream.conversations[0].written
        await asyncio.sleep(1)
        assert upstream.conversations[0].written == before > 0

    talk_to(ScriptedUpstream([flood]), talk)


def test_the_answers_it_offers_are_sound() -> None:
    assert answer(b"hi", b"X: y") == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\nhi"
    assert chunked(b"hi", b"there").endswith(b"\r\n\r\n2\r\nhi\r\n5\r\nthere\r\n0\r\n\r\n")

"""Bodies, batches, ids, streams, callers that leave, and hostile requests, through the whole gateway."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from pathlib import Path

import pytest

from gateway.drill.faults import Fault
from gateway.drill.node import HUGE_LOGS
from tests.pace import PATIENCE, at_most
from tests.scenarios.caller import Caller, ask
from tests.scenarios.house import House, house, run


def test_a_batch_is_answered_in_order_and_one_bad_item_spoils_no_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            home.providers[0].script.set(Fault.STATUS_503)
            batch: list[object] = [
                {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []},
                {"jsonrpc": "2.0", "id": "two", "method": "eth_blockNumber", "params": []},
                7,
                {"jsonrpc": "2.0", "method": "eth_gasPrice", "params": []},
                {"jsonrpc": "2.0", "id": None, "method": "admin_peers", "params": []},
                {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": ["0x" + "0" * 40, "latest"]},
            ]
            told = await ask(home.port, "/local", Caller.send, batch)
            assert [a.get("id") for a in told.body] == [1, "two", None, None, 1]
            assert told.body[0]["result"] == hex(31337)
            assert "result" in told.body[1]
            assert told.body[2]["error"]["data"]["reason"] == "malformed_call"
            assert told.body[3]["error"]["data"]["reason"] == "method_refused"
            assert "result" in told.body[4]

    run(scenario())


@pytest.mark.parametrize(
    "raw", ['"a\\u00e9\\n"', "1.0", "1e400", "-0", "123456789012345678901234567890", "null", '""', "0"]
)
def test_every_id_comes_back_byte_for_byte(raw: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
            body = b'{"jsonrpc":"2.0","id":%b,"method":"eth_chainId"}' % raw.encode()
            writer.write(b"POST /local HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await reader.readuntil(b"\r\n\r\n")
            assert (await reader.read(4096)).startswith(b'{"jsonrpc":"2.0","id":%b,"result":' % raw.encode())
            writer.close()

    run(scenario())


def test_a_notification_is_carried_out_and_gets_no_body(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            told = await ask(
                home.port, "/local", Caller.send, {"jsonrpc": "2.0", "method": "eth_gasPrice", "params": []}
            )
            assert (told.status, told.body) == (204, None)
            assert sum(p.calls["eth_gasPrice"] for p in home.providers) == 1

    run(scenario())


def resident() -> int:
    """Bytes of memory that this process has now; a peak would be that of whatever ran before."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_hundred_megabyte_answer_passes_with_memory_bounded(tmp_path: Path) -> None:
    size = 100_000_000

    async def scenario() -> None:
        async with house(tmp_path, huge_bytes=size) as home:
            reader, writer = await asyncio.open_connection("127.0.0.1", home.port, limit=1 << 20)
            query = {"jsonrpc": "2.0", "id": "big", "method": "eth_getLogs", "params": [{"address": HUGE_LOGS}]}
            body = json.dumps(query).encode()
            writer.write(b"POST /local HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            before = most = resident()
            got, first = 0, b""
            while length := int(await reader.readuntil(b"\r\n"), 16):
                piece = await reader.readexactly(length)
                first = first or piece[:200]
                got += len(piece)
                most = max(most, resident())
                await reader.readexactly(2)
            print(f"{got} bytes streamed, memory grew by {most - before} bytes at most")
            assert got >= 0.99 * size
            assert b'"id":"big"' in first or b"big" in piece
            assert most - before < 32_000_000  # caller and provider in the same process included
            writer.close()

    run(scenario())


@pytest.mark.parametrize("batch", [False, True], ids=["single", "batch"])
def test_a_large_answer_that_nobody_reads_gives_its_slot_and_its_connection_back(batch: bool, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, huge_bytes=20_000_000, count=1) as home:
            query = {"jsonrpc": "2.0", "method": "eth_getLogs", "params": [{"address": HUGE_LOGS}]}
            told = await ask(home.port, "/local", Caller.send, [query] if batch else query)
            assert (told.status, told.body) == (204, None)
            reader, writer = await asyncio.open_connection("127.0.0.1", home.port)
            body = json.dumps({**query, "id": 1}).encode()
            writer.write(b"POST /local HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await reader.readexactly(100_000)
            writer.transport.abort()  # a caller that leaves in the middle
            await _settled(home)
            await home.until(lambda: home.providers[0].connections_open <= 1)

    run(scenario())


def test_a_stream_that_breaks_off_cuts_the_caller_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, huge_bytes=20_000_000, count=1) as home:
            reader, writer = await asyncio.open_connection("127.0.0.1", home.port, limit=1 << 20)
            query = {"jsonrpc": "2.0", "id": 1, "method": "eth_getLogs", "params": [{"address": HUGE_LOGS}]}
            body = json.dumps(query).encode()
            writer.write(b"POST /local HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await reader.readexactly(2_000_000)
            await home.providers[0].stop()
            rest = b""
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                while True:
                    piece = await reader.read(1 << 20)
                    if not piece:
                        raise ConnectionError("closed")
                    rest = piece
            assert not rest.endswith(b"0\r\n\r\n")
            writer.close()

    run(scenario())


def test_ten_thousand_callers_that_leave_leave_nothing_behind(tmp_path: Path) -> None:
    """What the first thousand leave is what a gateway at work has; the other nine thousand add nothing to it.

    Connections to providers are kept, `idle` each, and both ends of them are descriptors of this process.
    """
    idle = 4
    out = 3 * 2  # descriptors: a probe of each provider may be out at any one instant

    async def scenario() -> None:
        async with house(tmp_path, attempt_timeout="200ms", deadline="400ms", idle=idle) as home:
            home.providers[0].script.set(Fault.SLOW, amount=0.02)
            body = b'{"jsonrpc":"2.0","id":1,"method":"eth_blockNumber"}'
            request = b"POST /local HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

            def kept() -> int:
                return sum(provider.connections_open for provider in home.providers)

            def descriptors() -> int:
                return len(os.listdir("/proc/self/fd")) - 2 * kept()

            async def thousand() -> None:
                for start in range(0, 1000, 100):
                    await asyncio.gather(
                        *(_leave(home.port, request, n % len(request)) for n in range(start, start + 100))
                    )
                await home.until(lambda: not home.gateway._listeners[0].connections)
                await _settled(home)
                await home.until(lambda: kept() <= idle * len(home.providers))

            await thousand()
            tasks, before = len(asyncio.all_tasks()), descriptors()
            for _ in range(9):
                await thousand()
            await home.until(lambda: len(asyncio.all_tasks()) <= tasks)
            await home.until(lambda: descriptors() <= before + out)
            print(f"after 1,000 callers {tasks} tasks, {before} descriptors; ", end="")
            print(f"after 10,000 {len(asyncio.all_tasks())} tasks, {descriptors()} descriptors")
            told = await ask(home.port, "/local", Caller.call, "eth_blockNumber")
            assert "result" in told.body

    run(scenario())


async def _leave(port: int, request: bytes, cut: int) -> None:
    """Connect, send a part or all of a request, and go."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request[:cut] if cut % 2 else request)
    await asyncio.sleep(0)
    writer.transport.abort()


async def _settled(home: House) -> None:
    await home.until(lambda: all(state.in_flight == 0 for state in home.gateway.routes[0].pool.states))


HOSTILE = {
    "two hosts": (
        b"POST /local HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b",
        b"400",
    ),
    "no host": (b"POST /local HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b", b"400"),
    "foreign host": (b"POST /local HTTP/1.1\r\nHost: evil.example\r\nContent-Length: %d\r\n\r\n%b", b"421"),
    "foreign origin": (
        b"POST /local HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nContent-Length: %d\r\n\r\n%b",
        b"403",
    ),
    "CL and TE": (
        b"POST /local HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n%b",
        b"400",
    ),
    "bare LF": (b"POST /local HTTP/1.1\nHost: localhost\nContent-Length: %d\n\n%b", b"400"),
    "bad chunking": (
        b"POST /local HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n%.0d%b\r\n0\r\n\r\n",
        b"400",
    ),
    "1 MB header": (
        b"POST /local HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 1_000_000 + b"\r\nContent-Length: %d\r\n\r\n%b",
        b"431",
    ),
    "2,000 headers": (
        b"POST /local HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 2000 + b"Content-Length: %d\r\n\r\n%b",
        b"431",
    ),
    "1 GB body": (b"POST /local HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1%09d\r\n\r\n%b", b"413"),
}  # fmt: skip
CALL = b'{"jsonrpc":"2.0","id":1,"method":"eth_gasPrice","params":[]}'


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_gets_its_4xx_and_a_closed_connection_and_reaches_nobody(name: str, tmp_path: Path) -> None:
    template, status = HOSTILE[name]

    async def scenario() -> None:
        async with house(tmp_path) as home:
            answer = await _raw(home.port, template % (len(CALL), CALL))
            assert answer.split(b" ")[1] == status, answer[:200]
            assert b"connection: close" in answer
            assert sum(p.calls["eth_gasPrice"] for p in home.providers) == 0

    run(scenario())


BODIES = {
    "deep JSON": (
        b'{"jsonrpc":"2.0","id":1,"method":"eth_gasPrice","params":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"400",
    ),
    "a batch of 10,000": (b"[" + b",".join([CALL] * 10_000) + b"]", b"413"),
    "no JSON": (b"hello", b"400"),
    "a body over the limit": (b"[" + b" " * 2_100_000 + b"]", b"413"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_gets_its_4xx_and_a_closed_connection_and_reaches_nobody(name: str, tmp_path: Path) -> None:
    body, status = BODIES[name]

    async def scenario() -> None:
        async with house(tmp_path) as home:
            head = b"POST /local HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            answer = await _raw(home.port, head + body)
            assert answer.split(b" ")[1] == status, answer[:200]
            assert b"connection: close" in answer
            assert sum(p.calls["eth_gasPrice"] for p in home.providers) == 0

    run(scenario())


def test_a_slow_head_and_half_a_body_are_cut_off_within_their_limits(tmp_path: Path) -> None:
    async def scenario() -> None:
        limits = "limits: {head_timeout: 300ms, body_timeout: 300ms}"
        async with house(tmp_path, extra=limits) as home:
            half_head = _raw(home.port, b"POST /local HTTP/1.1\r\nHost: loc")
            half_body = _raw(home.port, b"POST /local HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\n{")
            silent = _raw(home.port, b"")
            loop = asyncio.get_running_loop()
            began = loop.time()
            answers = await asyncio.gather(half_head, half_body, silent)
            took = loop.time() - began
            assert [a[9:12] for a in answers] == [b"408", b"408", b""]
            assert took >= 0.3
            at_most(took, 3.0, "seconds until all were cut off")

    run(scenario())


async def _raw(port: int, request: bytes) -> bytes:
    """Send bytes; return all that comes until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        return await asyncio.wait_for(reader.read(-1), PATIENCE)
    except ConnectionError:
        return await asyncio.wait_for(reader.read(-1), PATIENCE)
    finally:
        writer.close()

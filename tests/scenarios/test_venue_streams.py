"""Streams of exchanges through real sockets: passed through, shared, and made again without a silent gap."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.clock import monotonic
from gateway.drill.venues.binance import Binance
from tests.pace import PATIENCE, at_most
from tests.scenarios.house import run
from tests.scenarios.test_order_safety import binance_house
from tests.scenarios.test_venue_failover import until
from tests.scenarios.venue_house import PLAIN_VENUE, venue_house


def opened(url: str, **options: Any) -> connect:
    return connect(url, proxy=None, max_size=None, **options)


async def received(socket: ClientConnection) -> Any:
    return await asyncio.wait_for(socket.recv(), PATIENCE)


async def close_of(socket: ClientConnection) -> tuple[int, str]:
    """The code and the reason with which a socket is closed; nothing else may come on it."""
    with pytest.raises(ConnectionClosed) as closed:
        await received(socket)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


class Scripted:
    """A WebSocket server of an exchange that answers what the test says."""

    def __init__(self, before: Any = None) -> None:
        self.paths: list[str] = []
        self._before = before
        self.headers: list[Any] = []
        self.sockets: list[ServerConnection] = []
        self.came: list[str | bytes] = []
        self._server: Any = None

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        self.headers.append(socket.request.headers)
        self.sockets.append(socket)
        try:
            async for message in socket:
                self.came.append(message)
                await socket.send(message)
        except ConnectionClosed:
            return

    async def __aenter__(self) -> Scripted:
        self._server = await serve(self._serve, "127.0.0.1", 0, max_size=None, process_request=self._before)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"


def test_messages_pass_unchanged_both_ways_with_target_and_headers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Scripted() as server, venue_house(tmp_path, streams=[server.url]) as house:
            url = f"ws://127.0.0.1:{house.port}/plain/private/v1?token=a%2Fb&x=&x=1"
            async with opened(url, additional_headers={"X-Key": "k"}) as socket:
                for message in ("text", b"\x00\xff", "é" * 3000, "", b"x" * 300_000):
                    await socket.send(message)
                    assert await received(socket) == message
            assert server.paths == ["/private/v1?token=a%2Fb&x=&x=1"]
            assert server.headers[0]["X-Key"] == "k"
            via = f"ws://127.0.0.1:{house.port}/via/{server.url}/x?y=1"
            async with opened(via) as socket:
                await socket.send("a")
                assert await received(socket) == "a"
            assert server.paths[1] == "/x?y=1"

    run(scenario())


def test_a_stream_that_is_lost_ends_the_callers_with_1012_and_the_next_goes_to_another_host(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Scripted() as one, Scripted() as two, venue_house(tmp_path, streams=[one.url, two.url]) as house:
            url = f"ws://127.0.0.1:{house.port}/plain/private"
            async with opened(url) as socket:
                await socket.send("a")
                assert await received(socket) == "a"
                first = one if one.sockets else two
                first.sockets[0].transport.abort()
                assert (await close_of(socket))[0] == 1012
            async with opened(url) as socket:
                await socket.send("b")
                assert await received(socket) == "b"
            other = two if first is one else one
            assert len(other.sockets) == 1
            async with opened(url) as socket:  # a sound goodbye of the exchange's is passed on
                await socket.send("c")
                await received(socket)
                await other.sockets[-1].close(4001, "token expired")
                assert await close_of(socket) == (4001, "token expired")

    run(scenario())


def test_a_caller_is_told_to_try_again_when_no_host_gives_a_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, streams=["ws://127.0.0.1:9"]) as house:
            async with opened(f"ws://127.0.0.1:{house.port}/plain/x") as socket:
                assert (await close_of(socket))[0] == 1013
            with pytest.raises(InvalidStatus) as refused:
                await opened(f"ws://127.0.0.1:{house.port}/via/wss://evil.test/x")  # a host that nobody configured
            assert refused.value.response.status_code == 404

    run(scenario())


def test_a_caller_that_does_not_read_holds_back_its_own_stream_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Scripted() as server, venue_house(tmp_path, streams=[server.url]) as house:
            url = f"ws://127.0.0.1:{house.port}/plain/x"
            async with opened(url, max_queue=1) as slow, opened(url) as quick:
                await slow.send("hello")
                await quick.send("hello")
                await until(lambda: len(server.came) == 2)
                sending = asyncio.ensure_future(flood(server.sockets[0]))
                await asyncio.sleep(1.0)
                assert not sending.done()  # 200 MB do not fit anywhere in between
                began = monotonic()
                for _ in range(50):
                    await quick.send("x")
                    await received(quick)
                took = monotonic() - began
                sending.cancel()
                at_most(took, 2.0, "seconds of fifty messages there and back")

    run(scenario())


async def flood(socket: ServerConnection) -> None:
    for _ in range(200):
        await socket.send(b"x" * 1_000_000)


class Book:
    """A caller's order book, kept as Binance documents it."""

    def __init__(self, venue: Binance, url: str) -> None:
        self.venue = venue
        self.url = url
        self.number: int | None = None
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}
        self.events = self.fresh_starts = self.checked = 0
        self.wrong: list[int] = []

    async def follow(self) -> None:
        while True:
            try:
                async with opened(self.url) as socket:
                    await socket.send(json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@depth@100ms"], "id": 1}))
                    assert json.loads(await received(socket)) == {"result": None, "id": 1}
                    self.number = None
                    self.fresh_starts += 1
                    async for message in socket:
                        self.take(json.loads(message))
            except (ConnectionClosed, OSError, TimeoutError):
                await asyncio.sleep(0.05)

    def take(self, event: dict[str, Any]) -> None:
        market = self.venue.markets.all["BTCUSDT"]
        self.events += 1
        if self.number is None:  # the REST snapshot
            self.number = market.book.number
            self.bids, self.asks = dict(market.book.bids), dict(market.book.asks)
        if event["u"] <= self.number:
            return
        if event["U"] > self.number + 1:
            self.wrong.append(event["u"])  # a gap that nobody told of
        for side, rows in ((self.bids, event["b"]), (self.asks, event["a"])):
            for price, amount in rows:
                if float(amount):
                    side[float(price)] = float(amount)
                else:
                    side.pop(float(price), None)
        self.number = event["u"]
        if self.number == market.book.number:
            self.checked += 1
            if (self.bids, self.asks) != (market.book.bids, market.book.asks):
                self.wrong.append(self.number)


def test_fifty_callers_share_one_subscription_and_none_keeps_a_wrong_book_through_reconnects(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path) as (gateway, exchange, venue):
            books = [Book(venue, f"ws://127.0.0.1:{gateway.public_port}/binance/ws") for _ in range(50)]
            tasks = [asyncio.ensure_future(book.follow()) for book in books]
            await until(lambda: all(book.checked > 3 for book in books))
            depth = [session for session in exchange.sessions if "btcusdt@depth@100ms" in session.topics]
            assert len(depth) == 1
            for round_number in range(6):
                if round_number % 3 == 0:
                    exchange.cut_streams()
                elif round_number % 3 == 1:
                    for session in exchange.sessions:
                        session.send(json.dumps({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}}))
                else:
                    for session in exchange.sessions:
                        session.silent = True
                        session.reset()
                seen = [book.events for book in books]
                await until(lambda seen=seen: all(b.events > s + 3 for b, s in zip(books, seen, strict=True)))
            subscriptions = gateway.status()["routes"][0]["venue"]["subscriptions"]
            print(
                f"50 callers, 6 forced reconnects: {sum(book.events for book in books)} events told, books compared: "
                f"{sum(book.checked for book in books)}, wrong: {sum(len(book.wrong) for book in books)}, "
                f"{sum(book.fresh_starts for book in books) - 50} told to start anew; {subscriptions}"
            )
            assert [book.wrong for book in books if book.wrong] == []
            assert subscriptions["handovers"] >= 2  # announced shutdowns cost nobody anything
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario())


def test_an_announced_shutdown_is_not_noticed_by_callers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path) as (gateway, exchange, venue):
            book = Book(venue, f"ws://127.0.0.1:{gateway.public_port}/binance/ws")
            task = asyncio.ensure_future(book.follow())
            await until(lambda: book.checked > 3)
            old = [session for session in exchange.sessions if session.topics]
            old[0].send(json.dumps({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}}))
            await until(lambda: any("btcusdt@depth@100ms" in s.topics for s in exchange.sessions if s not in old))
            seen = book.events
            await until(lambda: book.events > seen + 10)
            old[0].reset()
            seen = book.events
            await until(lambda: book.events > seen + 10)
            assert (book.fresh_starts, book.wrong) == (1, [])
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(scenario())


def test_streams_named_in_the_url_and_combined_ones_are_shared_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path) as (gateway, exchange, _):
            base = f"ws://127.0.0.1:{gateway.public_port}/binance"
            async with (
                opened(f"{base}/ws/btcusdt@depth") as bare,
                opened(f"{base}/stream?streams=btcusdt@depth/btcusdt@miniTicker") as combined,
                opened(f"{base}/ws") as asking,
            ):
                event = json.loads(await received(bare))
                assert event["e"] == "depthUpdate"
                wrapped = json.loads(await received(combined))
                assert set(wrapped) == {"stream", "data"}
                await asking.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 3}))
                assert json.loads(await received(asking))["id"] == 3  # the exchange answers what is not ours
            topics = sorted(topic for session in exchange.sessions for topic in session.topics)
            assert topics.count("btcusdt@depth") == 1

    run(scenario())


def test_a_venue_without_what_can_be_shared_gives_each_caller_a_stream_of_its_own(tmp_path: Path) -> None:
    assert "streams" not in PLAIN_VENUE

    async def scenario() -> None:
        async with Scripted() as server, venue_house(tmp_path, streams=[server.url]) as house:
            url = f"ws://127.0.0.1:{house.port}/plain/ws"
            async with opened(url) as one, opened(url) as two:
                for socket in (one, two):
                    await socket.send("a")
                    assert await received(socket) == "a"
            assert len(server.sockets) == 2

    run(scenario())


VENUE_KEYS = """
keys:
  bot: {key: "a-key-of-the-bot-0123456789"}
  other: {key: "a-key-of-somebody-else-01234"}
"""


async def close_code(socket: ClientConnection) -> int | None:
    try:
        while True:
            await received(socket)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd is not None else None


def test_a_key_that_is_taken_away_ends_its_streams_at_the_reload(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Scripted() as server, venue_house(tmp_path, streams=[server.url], extra=VENUE_KEYS) as house:
            url = f"ws://127.0.0.1:{house.port}/plain/private"
            bot = await opened(url, additional_headers={"X-Seawall-Key": "a-key-of-the-bot-0123456789"})
            in_path = await opened(url.replace("/plain", "/key/a-key-of-the-bot-0123456789/plain"))
            other = await opened(url, additional_headers={"X-Seawall-Key": "a-key-of-somebody-else-01234"})
            for socket in (bot, in_path, other):
                await socket.send("a")
                assert await received(socket) == "a"
            config = tmp_path / "seawall.yaml"
            config.write_text(config.read_text().replace('  bot: {key: "a-key-of-the-bot-0123456789"}\n', ""))
            assert await house.gateway.reload()
            assert [await close_code(bot), await close_code(in_path)] == [1008, 1008]
            await other.send("b")
            assert await received(other) == "b"
            await other.close()

    run(scenario())


@pytest.mark.parametrize("shared", [False, True], ids=["own stream", "shared stream"])
def test_a_route_of_an_exchange_that_is_removed_or_changed_ends_its_streams(tmp_path: Path, shared: bool) -> None:
    async def scenario() -> None:
        name = {"name": "binance"} if shared else {}
        async with Scripted() as server, venue_house(tmp_path, streams=[server.url], **name) as house:
            config = tmp_path / "seawall.yaml"
            text = config.read_text()
            more = "  spare:\n    venue: kraken\n    streams: []\n    endpoints: ['http://127.0.0.1:9']\n"
            path = "plain/ws" if shared else "plain/private"
            for change in ("weights", "removed"):
                socket = await opened(f"ws://127.0.0.1:{house.port}/{path}")
                await socket.send("hello" if not shared else '{"method":"SUBSCRIBE","params":["a@trade"],"id":1}')
                await received(socket)
                if change == "weights":
                    config.write_text(text.replace("    hosts:", "    weights: {share: 50%}\n    hosts:"))
                else:
                    config.write_text(text[: text.index("routes:")] + "routes:\n" + more)
                assert await house.gateway.reload()
                assert await close_code(socket) == 1001, change

    run(scenario())


def test_a_caller_is_read_no_further_than_its_exchange_takes(tmp_path: Path) -> None:
    """Large messages to a host that does not answer the handshake: a few are kept, and the rest waits outside."""

    async def scenario() -> None:
        held: list[asyncio.StreamWriter] = []
        silent = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        feeds = "    feeds: {open_within: 30s}\n"
        async with (
            venue_house(tmp_path, streams=[url], route_extra=feeds) as house,
            opened(f"ws://127.0.0.1:{house.port}/plain/private", close_timeout=0.1) as socket,
        ):
            sent = 0
            try:
                async with asyncio.timeout(2):
                    while sent < 100:
                        await socket.send(b"x" * 1_000_000)
                        sent += 1
            except TimeoutError:
                pass
            assert sent < 30, f"{sent} MB are kept for a host that takes nothing"
            socket.transport.abort()
        for writer in held:
            writer.close()
        silent.close()

    run(scenario())


def test_a_handshake_that_a_host_refuses_to_a_caller_is_held_against_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        def refuse(connection: ServerConnection, request: Any) -> Any:
            return connection.respond(404, "no such stream") if "bad" in request.path else None

        async with (
            Scripted(refuse) as one,
            Scripted() as two,
            venue_house(tmp_path, streams=[one.url, two.url]) as house,
        ):
            streams = house.gateway.venues[0].streams
            assert streams is not None
            base = f"ws://127.0.0.1:{house.port}/via/{one.url}"
            for _ in range(3):
                async with opened(f"{base}/bad") as socket:
                    assert await close_code(socket) == 1013
            assert [host["held_for"] for host in streams.snapshot()["hosts"].values()] == [0, 0]  # type: ignore[attr-defined]
            async with opened(f"{base}/good") as socket:
                await socket.send("a")
                assert await received(socket) == "a"
            assert one.paths == ["/good"]
            line, writer = await switched(house.port, "/plain/x#y")
            assert b" 400 " in line
            writer.close()

    run(scenario())


def test_callers_that_open_streams_without_end_do_not_keep_the_gateways_own_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, streams=["ws://127.0.0.1:9"]) as house:
            sockets = [await switched(house.port, "/plain/private") for _ in range(60)]  # six seconds of turns
            assert all(b" 101 " in line for line, _ in sockets)
            await asyncio.sleep(0.3)
            async with asyncio.timeout(0.5):
                await house.gateway._connects.take()
            for _, writer in sockets:
                writer.close()

    run(scenario())


async def switched(port: int, target: str) -> tuple[bytes, asyncio.StreamWriter]:
    """The status line of a request to switch, sent as it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    return await reader.readline(), writer

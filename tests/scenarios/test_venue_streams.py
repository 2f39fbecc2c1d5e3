"""Streams of exchanges through real sockets: passed through, shared, and made again without a silent gap."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.assembly import Gateway
from gateway.clock import monotonic, wall_seconds
from gateway.config.load import load, secrets_of
from gateway.drill.venues.binance import Binance
from gateway.drill.venues.bybit import Bybit
from gateway.drill.venues.exchange import SimulatedExchange
from gateway.telemetry.redaction import Redactor
from tests.scenarios.house import run
from tests.scenarios.test_order_safety import binance_house
from tests.scenarios.test_venue_failover import until
from tests.scenarios.venue_house import PLAIN_VENUE, venue_house


def opened(url: str, **options: Any) -> connect:
    return connect(url, proxy=None, max_size=None, **options)


async def received(socket: ClientConnection, within: float = 5.0) -> Any:
    return await asyncio.wait_for(socket.recv(), within)


class Scripted:
    """A WebSocket server of an exchange that answers what the test says."""

    def __init__(self) -> None:
        self.paths: list[str] = []
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
        self._server = await serve(self._serve, "127.0.0.1", 0, max_size=None)
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
                try:
                    await received(socket)
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None
                    assert closed.rcvd.code == 1012
            async with opened(url) as socket:
                await socket.send("b")
                assert await received(socket) == "b"
            other = two if first is one else one
            assert len(other.sockets) == 1
            async with opened(url) as socket:  # a sound goodbye of the exchange's is passed on
                await socket.send("c")
                await received(socket)
                await other.sockets[-1].close(4001, "token expired")
                try:
                    await received(socket)
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None
                    assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "token expired")

    run(scenario())


def test_a_caller_is_told_to_try_again_when_no_host_gives_a_stream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, streams=["ws://127.0.0.1:9"]) as house:
            async with opened(f"ws://127.0.0.1:{house.port}/plain/x") as socket:
                try:
                    await received(socket)
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None
                    assert closed.rcvd.code == 1013
            try:
                async with opened(f"ws://127.0.0.1:{house.port}/via/wss://evil.test/x"):
                    raise AssertionError("a host that nobody configured")
            except InvalidStatus as refused:
                assert refused.response.status_code == 404

    run(scenario())


def test_a_caller_that_does_not_read_holds_back_its_own_stream_only(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Scripted() as server, venue_house(tmp_path, streams=[server.url]) as house:
            url = f"ws://127.0.0.1:{house.port}/plain/x"
            async with opened(url, max_queue=1) as slow, opened(url) as quick:
                await slow.send("hello")
                await quick.send("hello")
                await until(lambda: len(server.came) == 2, 5)
                sending = asyncio.ensure_future(flood(server.sockets[0]))
                await asyncio.sleep(1.0)
                assert not sending.done()  # 200 MB do not fit anywhere in between
                began = monotonic()
                for _ in range(50):
                    await quick.send("x")
                    await received(quick)
                assert monotonic() - began < 2.0
                sending.cancel()

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
            await until(lambda: all(book.checked > 3 for book in books), 15)
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
                await until(lambda seen=seen: all(b.events > s + 3 for b, s in zip(books, seen, strict=True)), 15)
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
            await until(lambda: book.checked > 3, 15)
            old = [session for session in exchange.sessions if session.topics]
            old[0].send(json.dumps({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}}))
            await until(lambda: any("btcusdt@depth@100ms" in s.topics for s in exchange.sessions if s not in old), 10)
            seen = book.events
            await until(lambda: book.events > seen + 10, 10)
            old[0].reset()
            seen = book.events
            await until(lambda: book.events > seen + 10, 10)
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


@contextlib.asynccontextmanager
async def bybit_house(folder: Path) -> AsyncIterator[tuple[str, SimulatedExchange]]:
    """The gateway in front of a simulated Bybit: the URL of its public stream, and the exchange."""
    async with SimulatedExchange(Bybit(wall_seconds())) as exchange:
        config = folder / "seawall.yaml"
        config.write_text(
            "listen: 127.0.0.1:0\noperations: {listen: 127.0.0.1:0}\nroutes:\n  bybit: {venue: bybit, "
            f"endpoints: ['{exchange.urls[0]}'], streams: ['{exchange.ws_urls[0]}']}}\n"
        )
        settings = load(config)
        gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        try:
            yield f"ws://127.0.0.1:{gateway.public_port}/bybit/v5/public/spot", exchange
        finally:
            await gateway.stop(1.0)


def test_pings_of_callers_are_answered_here_and_cost_no_stream_of_their_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bybit_house(tmp_path) as (url, exchange), opened(url) as one, opened(url) as two:
            for number, socket in enumerate((one, two)):
                await socket.send(json.dumps({"req_id": f"r{number}", "op": "ping"}))
                pong = json.loads(await received(socket))
                assert (pong["op"], pong["ret_msg"], pong["req_id"]) == ("ping", "pong", f"r{number}")
                await socket.send(json.dumps({"op": "subscribe", "args": ["orderbook.50.BTCUSDT"]}))
                assert json.loads(await received(socket))["op"] == "subscribe"
                assert json.loads(await received(socket))["type"] == "snapshot"
            assert len(exchange.sessions) == 1

    run(scenario())


def test_what_is_not_shared_goes_over_a_stream_of_the_callers_own_and_nothing_comes_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bybit_house(tmp_path) as (url, exchange), opened(url) as socket:
            shared, own = "orderbook.50.BTCUSDT", "lt.BTC3LUSDT"
            await socket.send(json.dumps({"op": "subscribe", "args": [shared], "req_id": "1"}))
            assert json.loads(await received(socket))["req_id"] == "1"
            await until(lambda: len(exchange.sessions) == 1, 5)
            await socket.send(json.dumps({"op": "subscribe", "args": [shared, own], "req_id": "2"}))
            await until(lambda: len(exchange.sessions) == 2, 5)
            numbers: list[int] = []
            while len(numbers) < 30:
                message = json.loads(await received(socket))
                if message.get("topic") == shared:
                    if message["type"] == "snapshot":
                        numbers.clear()
                    numbers.append(message["data"]["u"])
            assert numbers == list(range(numbers[0], numbers[0] + 30))
            mine = next(session for session in exchange.sessions if own in session.topics)
            await socket.send(json.dumps({"op": "unsubscribe", "args": [shared], "req_id": "3"}))
            while json.loads(await received(socket)).get("req_id") != "3":
                pass
            assert shared not in mine.topics

    run(scenario())


def test_a_stream_that_a_url_names_and_that_is_not_known_to_be_public_belongs_to_one_caller(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path) as (gateway, exchange, _):
            base = f"ws://127.0.0.1:{gateway.public_port}/binance"
            targets = (
                "/ws/pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1",
                "/stream?streams=btcusdt@depth&timeUnit=MICROSECOND",
                "/ws/btcusdt%40depth",
            )
            for target in targets:
                async with opened(base + target):
                    await until(lambda target=target: target in [session.target for session in exchange.sessions], 5)

    run(scenario())


def test_a_caller_is_told_its_own_subscriptions(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path) as (gateway, exchange, _):
            url = f"ws://127.0.0.1:{gateway.public_port}/binance"
            async with opened(f"{url}/ws/ethusdt@ticker"), opened(f"{url}/ws/btcusdt@ticker") as socket:
                await socket.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": "a"}))
                while "result" not in (answer := json.loads(await received(socket))):
                    pass
                assert answer == {"result": ["btcusdt@ticker"], "id": "a"}
            assert len(exchange.sessions) <= 1

    run(scenario())

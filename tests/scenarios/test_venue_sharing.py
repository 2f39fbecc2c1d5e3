"""Shared streams of exchanges through real sockets: what costs no stream of one's own, and what needs one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway.assembly import Gateway
from gateway.clock import wall_seconds
from gateway.config.load import load, secrets_of
from gateway.drill.venues.bybit import Bybit
from gateway.drill.venues.coinbase_exchange import CoinbaseExchange
from gateway.drill.venues.exchange import SimulatedExchange, Venue
from gateway.telemetry.redaction import Redactor
from gateway.upstream.venues.topic import REPLAYED
from tests.scenarios.house import run
from tests.scenarios.test_order_safety import binance_house
from tests.scenarios.test_venue_failover import until
from tests.scenarios.test_venue_streams import opened, received


@contextlib.asynccontextmanager
async def house_of(venue: Venue, folder: Path) -> AsyncIterator[tuple[str, SimulatedExchange]]:
    """The gateway in front of a simulated exchange: the URL of its streams, and the exchange."""
    async with SimulatedExchange(venue) as exchange:
        config = folder / "seawall.yaml"
        config.write_text(
            f"listen: 127.0.0.1:0\noperations: {{listen: 127.0.0.1:0}}\nroutes:\n  market: {{venue: {venue.name}, "
            f"endpoints: ['{exchange.urls[0]}'], streams: ['{exchange.ws_urls[0]}']}}\n"
        )
        settings = load(config)
        gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        try:
            yield f"ws://127.0.0.1:{gateway.public_port}/market", exchange
        finally:
            await gateway.stop(1.0)


@contextlib.asynccontextmanager
async def bybit_house(folder: Path) -> AsyncIterator[tuple[str, SimulatedExchange]]:
    """The gateway in front of a simulated Bybit: the URL of its public stream, and the exchange."""
    async with house_of(Bybit(wall_seconds()), folder) as (url, exchange):
        yield f"{url}/v5/public/spot", exchange


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
            await until(lambda: len(exchange.sessions) == 1)
            await socket.send(json.dumps({"op": "subscribe", "args": [shared, own], "req_id": "2"}))
            await until(lambda: len(exchange.sessions) == 2)
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
                    await until(lambda target=target: target in [session.target for session in exchange.sessions])

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


def coinbase_wish(channel: str, *products: str) -> str:
    return json.dumps({"type": "subscribe", "product_ids": list(products), "channels": [channel]})


def book_of(books: dict[str, dict[str, str]], message: dict[str, Any]) -> None:
    """As Coinbase says that a book is kept: a snapshot begins it, updates change it."""
    if message["type"] == "snapshot":
        books["bids"], books["asks"] = dict(message["bids"]), dict(message["asks"])
    elif message["type"] == "l2update":
        for side, price, size in message["changes"]:
            levels = books["bids" if side == "buy" else "asks"]
            levels[price] = size
            if not float(size):
                del levels[price]


def test_books_of_coinbase_cost_one_stream_and_begin_anew_with_a_snapshot_when_it_is_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        venue = CoinbaseExchange(wall_seconds())
        async with house_of(venue, tmp_path) as (url, exchange), opened(url + "/") as one, opened(url + "/") as two:
            seen: list[list[str]] = []
            all_books: list[dict[str, dict[str, str]]] = [{}, {}]
            for socket in (one, two):
                await socket.send(coinbase_wish("level2_batch", "BTC-USD"))
                listed = json.loads(await received(socket))
                assert listed["channels"] == [{"name": "level2_batch", "product_ids": ["BTC-USD"]}]
            for socket, books in zip((one, two), all_books, strict=True):
                types: list[str] = []
                seen.append(types)
                for n in range(20):
                    message = json.loads(await received(socket))
                    types.append(message["type"])
                    book_of(books, message)
                    if n == 10 and socket is one:
                        assert len(exchange.sessions) == 1
                        exchange.cut_streams()
            assert [types[0] for types in seen] == ["snapshot"] * 2
            assert [types.count("snapshot") for types in seen] == [2, 2]
            venue.markets.all["BTC-USD"].frozen = True
            market = venue.markets.all["BTC-USD"].book
            right = {
                "bids": {str(price): str(size) for price, size in market.bids.items()},
                "asks": {str(price): str(size) for price, size in market.asks.items()},
            }
            for socket, books in zip((one, two), all_books, strict=True):
                while books != right:
                    book_of(books, json.loads(await received(socket)))
            assert len(exchange.sessions) == 1

    run(scenario())


def test_who_comes_when_the_snapshot_is_no_longer_kept_gets_a_stream_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        venue = CoinbaseExchange(wall_seconds())
        venue.markets.all["BTC-USD"].frozen = True
        async with house_of(venue, tmp_path) as (url, exchange), opened(url + "/") as one, opened(url + "/") as two:
            await one.send(coinbase_wish("level2_batch", "BTC-USD"))
            while json.loads(await received(one))["type"] != "snapshot":
                pass
            change = {"type": "l2update", "product_id": "BTC-USD", "changes": [["buy", "1", "1"]]}
            for _ in range(REPLAYED):
                exchange.sessions[0].send(json.dumps(change))
            for _ in range(REPLAYED):
                assert json.loads(await received(one)) == change
            await two.send(coinbase_wish("level2_batch", "BTC-USD"))
            types = [json.loads(await received(two))["type"] for _ in range(2)]
            assert types == ["subscriptions", "snapshot"]
            assert len(exchange.sessions) == 2
            exchange.sessions[0].send(json.dumps(change))
            assert json.loads(await received(one)) == change  # it was not told to begin anew

    run(scenario())


def test_a_signed_subscription_goes_over_a_stream_of_the_callers_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house_of(CoinbaseExchange(wall_seconds()), tmp_path) as (url, exchange), opened(url + "/") as socket:
            await socket.send(coinbase_wish("ticker", "BTC-USD"))
            assert json.loads(await received(socket))["type"] == "subscriptions"
            signed = {**json.loads(coinbase_wish("level2", "BTC-USD")), "signature": "s", "key": "k"}
            await socket.send(json.dumps(signed))
            await until(lambda: len(exchange.sessions) == 2)
            while json.loads(await received(socket))["type"] != "snapshot":
                pass
            mine = next(session for session in exchange.sessions if "level2 BTC-USD" in session.topics)
            assert "ticker BTC-USD" not in mine.topics

    run(scenario())

"""Shared streams of exchanges through real sockets: what costs no stream of one's own, and what needs one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.assembly import Gateway
from gateway.clock import wall_seconds
from gateway.config.load import load, secrets_of
from gateway.drill.venues.bybit import Bybit
from gateway.drill.venues.exchange import SimulatedExchange
from gateway.telemetry.redaction import Redactor
from tests.scenarios.house import run
from tests.scenarios.test_order_safety import binance_house
from tests.scenarios.test_venue_failover import until
from tests.scenarios.test_venue_streams import opened, received


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

"""A simulated exchange can be tried and broken by hand, one host at a time, and counts what it executed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from gateway.clock import wall_seconds
from gateway.drill.venues.exchange import SimulatedExchange
from gateway.drill.venues.serve import SIMULATED, HostFault, HostSpec, run_exchanges
from tests.scenarios.venue_house import RawCaller

Story = Callable[[SimulatedExchange], Awaitable[None]]


def play(story: Story, *names: str) -> None:
    async def whole() -> None:
        specs = [HostSpec(name, "binance") for name in names or ("harbour", "pier")]
        async with run_exchanges(specs) as exchanges:
            await story(exchanges["binance"])

    asyncio.run(whole())


async def ask(
    exchange: SimulatedExchange, host: int, verb: str, target: str, body: Any = None, *headers: tuple[str, str]
) -> tuple[int, Any]:
    """One request on a connection of its own.  Raises IncompleteReadError or OSError when it is cut."""
    caller = await RawCaller.open(exchange.ports[host])
    try:
        sent = json.dumps(body).encode() if body is not None else b""
        status, _, answer = await caller.call(verb, target, sent, *headers)
        return status, json.loads(answer)
    finally:
        caller.close()


def order(client_id: str) -> str:
    query = urlencode(
        {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "price": "1", "quantity": "1"}
        | {"newClientOrderId": client_id, "timestamp": round(wall_seconds() * 1e3)}
    )
    signature = hmac.new(b"test-secret-1", query.encode(), hashlib.sha256).hexdigest()
    return f"/api/v3/order?{query}&signature={signature}"


KEY = ("X-MBX-APIKEY", "test-key-1")


@pytest.mark.parametrize("venue", SIMULATED)
def test_every_exchange_that_is_offered_starts_and_says_who_it_is(venue: str) -> None:
    async def whole() -> None:
        async with run_exchanges([HostSpec("one", venue)]) as exchanges:
            status, said = await ask(exchanges[venue], 0, "GET", "/_drill")
            assert (status, said["name"], said["venue"]) == (200, "one", venue)

    asyncio.run(whole())


def test_hosts_share_orders_and_break_alone() -> None:
    async def story(exchange: SimulatedExchange) -> None:
        assert (await ask(exchange, 0, "POST", "/_drill/fault", {"fault": "status_503", "for": 60}))[0] == 200
        assert (await ask(exchange, 0, "POST", order("first"), None, KEY))[0] == 503
        assert (await ask(exchange, 1, "POST", order("second"), None, KEY))[0] == 200
        for host in (0, 1):
            assert (await ask(exchange, host, "GET", "/_drill"))[1]["orders"] == {"second": 1}

    play(story)


def test_a_host_that_cuts_has_executed_and_says_so_on_its_switchboard() -> None:
    async def story(exchange: SimulatedExchange) -> None:
        await ask(exchange, 0, "POST", "/_drill/fault", {"fault": "cut"})
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await ask(exchange, 0, "POST", order("mine"), None, KEY)
        _, said = await ask(exchange, 0, "GET", "/_drill")
        assert (said["active"], said["orders"]) == ("cut", {"mine": 1})
        assert (await ask(exchange, 0, "POST", "/_drill/clear"))[1] == {"cleared": True}
        assert (await ask(exchange, 0, "GET", "/api/v3/ping"))[0] == 200

    play(story)


def test_a_fault_ends_when_its_time_is_over() -> None:
    async def story(exchange: SimulatedExchange) -> None:
        now = wall_seconds()
        exchange.clock = lambda: now
        await ask(exchange, 0, "POST", "/_drill/fault", {"fault": "status_503", "for": 30})
        assert (await ask(exchange, 0, "GET", "/api/v3/ping"))[0] == 503
        now += 30.5
        assert (await ask(exchange, 0, "GET", "/api/v3/ping"))[0] == 200

    play(story)


def test_a_host_that_refuses_comes_back_by_itself_on_its_port() -> None:
    async def story(exchange: SimulatedExchange) -> None:
        await ask(exchange, 0, "POST", "/_drill/fault", {"fault": "refuse", "for": 0.3})
        refused = 0
        async with asyncio.timeout(10):
            while True:
                try:
                    await ask(exchange, 0, "GET", "/api/v3/ping")
                except (OSError, asyncio.IncompleteReadError):
                    refused += 1
                    await asyncio.sleep(0.01)
                else:
                    if refused:
                        break
        assert (await ask(exchange, 1, "GET", "/api/v3/ping"))[0] == 200

    play(story)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([], "expected an object"),
        ({"fault": "fire"}, "fault must be one of refuse, status_503, cut, hang, slow"),
        ({"fault": "cut", "lasting": 3}, "unknown lasting; known are fault, for"),
        ({"fault": "cut", "for": -1}, "for must be a number of seconds"),
        ({"fault": "refuse"}, 'would lock out "clear" too'),
        ({"fault": "refuse", "for": 1e9}, "at most 3600"),
    ],
)
def test_what_cannot_be_switched_on_is_told(wanted: Any, words: str) -> None:
    async def story(exchange: SimulatedExchange) -> None:
        status, said = await ask(exchange, 0, "POST", "/_drill/fault", wanted)
        assert status == 400
        assert words in said["error"]
        assert (await ask(exchange, 0, "GET", "/api/v3/ping"))[0] == 200

    play(story)


def test_the_switchboard_is_not_for_web_pages_and_is_no_part_of_the_exchange() -> None:
    async def story(exchange: SimulatedExchange) -> None:
        assert (await ask(exchange, 0, "GET", "/_drill", None, ("Origin", "https://a.test")))[0] == 403
        assert (await ask(exchange, 0, "GET", "/_drill/nothing"))[0] == 404
        assert set((await ask(exchange, 0, "GET", "/_drill/faults"))[1]) == {fault.word for fault in HostFault}
        assert not exchange.requests

    play(story)


def test_an_address_that_is_taken_is_an_error_and_nothing_stays_open() -> None:
    async def whole() -> None:
        async with run_exchanges([HostSpec("one", "binance")]) as exchanges:
            taken = exchanges["binance"].ports[0]
            specs = [HostSpec("two", "okx"), HostSpec("three", "okx", taken)]
            with pytest.raises(OSError, match="in use"):
                async with run_exchanges(specs):
                    pass

    asyncio.run(whole())

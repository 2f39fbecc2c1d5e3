"""Rate limits of exchanges, shared by all bots behind one address: nobody is banned for a neighbour."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

from gateway.clock import monotonic, wall_seconds
from gateway.drill.venues.exchange import Reply, Strike
from tests.scenarios.house import run
from tests.scenarios.test_order_safety import KEY, binance_house, order, signed
from tests.scenarios.venue_house import PLAIN_VENUE, Came, RawCaller, answer, venue_house

LIMIT, WINDOW = 1200, 10.0  # weight within seconds
WATCHERS, HUNGRY, TRADERS = 130, 60, 10
AT_ONCE = 10  # requests of a hungry bot at the same time
SECONDS = 24.0
FRESH_FOR = 1.0  # what the venue's file says of a ticker
SEED = 3
OFFSET = 3.7  # seconds by which the venue's minutes are not ours


def test_two_hundred_bots_at_ten_times_the_limit_are_never_banned(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    ages: list[float] = []
    waits: list[float] = []
    served: dict[int, int] = {}
    asked, stale = [0], [0]
    labels: list[str] = []

    async def watcher(port: int, until: float) -> None:
        caller = await RawCaller.open(port)
        while monotonic() < until:
            status, _, body = await caller.call("GET", "/binance/api/v3/ticker/24hr?symbol=BTCUSDT")
            stale[0] += status != 200
            if status == 200:
                ages.append(wall_seconds() + OFFSET - json.loads(body)["closeTime"] / 1e3)
            await asyncio.sleep(0.2)
        caller.close()

    async def hungry(port: int, number: int, until: float) -> None:
        caller = await RawCaller.open(port)
        key = ("X-Seawall-Key", f"key-of-bot-{number:04d}-0123456789")
        while monotonic() < until:
            start = chance.randrange(10**9)
            asked[0] += 2
            status, headers, _ = await caller.call(
                "GET",
                f"/binance/api/v3/klines?symbol=BTCUSDT&limit=1&startTime={start}",
                b"",
                key,
                ("X-Seawall-Timeout", "1s"),
            )
            if status == 200:
                served[number] = served.get(number, 0) + 1
            else:
                assert status in (503, 504)  # no turn in time, or one that came too late to be answered in time
                assert status == 504 or int(headers[b"retry-after"]) >= 1
                await asyncio.sleep(0.1)
        caller.close()

    async def trader(port: int, number: int, until: float) -> None:
        caller = await RawCaller.open(port)
        turn = 0
        while monotonic() < until:
            turn += 1
            began = monotonic()
            _, headers, _ = await order(caller, f"o{number * 1000 + turn}")
            waits.append(monotonic() - began)
            labels.append(headers[b"x-seawall-execution"].decode())
            await asyncio.sleep(0.5)
        caller.close()

    async def scenario() -> None:
        keys = ", ".join(f"b{n}: {{key: key-of-bot-{n:04d}-0123456789}}" for n in range(HUNGRY))
        async with binance_house(
            tmp_path,
            without=("orders",),
            limits={"weight": (LIMIT, WINDOW)},
            extra=f"keys: {{{keys}}}\nallow_anonymous: true",
            route="    weights: {slack: 500ms}\n    retry: {deadline: 4s}\n",
            weight_limit=LIMIT,
            minute=WINDOW,
            clock_offset=OFFSET,
        ) as (gateway, _exchange, venue):
            until, port = monotonic() + SECONDS, gateway.public_port
            await asyncio.gather(
                *(watcher(port, until) for _ in range(WATCHERS)),
                *(hungry(port, n, until) for n in range(HUNGRY) for _ in range(AT_ONCE)),
                *(trader(port, n, until) for n in range(TRADERS)),
            )
            allowed = LIMIT * SECONDS / WINDOW
            print(
                f"{WATCHERS + HUNGRY + TRADERS} bots for {SECONDS:.0f} s, {asked[0] / allowed:.1f} times the limit: "
                f"weight at most {venue.weight_peak} of {LIMIT} in a window, {venue.refused_429} refusals, "
                f"{venue.banned_418} bans; {len(waits)} orders, longest wait {max(waits) * 1e3:.0f} ms; "
                f"{len(ages)} tickers, oldest {max(ages):.2f} s; "
                f"requests served to a hungry bot {min(served.values())} to {max(served.values())}; seed {SEED}"
            )
            assert (venue.refused_429, venue.banned_418) == (0, 0)
            assert venue.weight_peak <= LIMIT
            assert set(labels) == {"done"}
            assert max(waits) < 1.0
            assert max(ages) < FRESH_FOR + 1.0
            assert stale[0] == 0
            assert asked[0] > 8 * allowed
            assert len(served) == HUNGRY
            assert max(served.values()) <= 6 * min(served.values())  # a turn comes round in more than their second

    run(scenario())


def test_a_thousand_bots_that_ask_for_one_ticker_cost_one_call(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            callers = await asyncio.gather(*(RawCaller.open(house.port) for _ in range(200)))
            answers = []
            for _ in range(5):
                answers += await asyncio.gather(*(caller.call("GET", "/plain/ticker?symbol=A") for caller in callers))
            assert {status for status, _, _ in answers} == {200}
            how = [headers[b"x-seawall-cache"] for _, headers, _ in answers]
            asked = sum(came.target == b"/ticker?symbol=A" for came in house.came)
            assert how.count(b"miss") == asked <= 2
            for caller in callers:
                caller.close()

    run(scenario())


def test_what_carries_credentials_is_never_shared(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            caller = await RawCaller.open(house.port)
            private: list[tuple[str, str, tuple[tuple[str, str], ...]]] = [
                ("GET", "/plain/ticker", (("X-Key", "k"),)),
                ("GET", "/plain/ticker", (("Cookie", "a=b"),)),
                ("GET", "/plain/ticker", (("Authorization", "x"),)),
                ("GET", "/plain/ticker?signature=1", ()),
                ("GET", "/plain/ticker", (("Cache-Control", "no-cache"),)),
                ("GET", "/plain/still", ()),
                ("GET", "/plain/other", ()),
            ]
            for verb, target, headers in private:
                before = len(house.came)
                for _ in range(3):
                    _, said, _ = await caller.call(verb, target, b"", *headers)
                    assert b"x-seawall-cache" not in said
                assert len(house.came) == before + 3, target
            caller.close()

    run(scenario())


def test_an_error_serves_those_who_wait_and_nobody_after_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            for server in house.servers:
                server.say = lambda came: answer(b'{"code":-1}', 404)
            callers = await asyncio.gather(*(RawCaller.open(house.port) for _ in range(5)))
            for turn in (1, 2):
                answers = await asyncio.gather(*(caller.call("GET", "/plain/ticker") for caller in callers))
                assert {status for status, _, _ in answers} == {404}
                assert sum(came.target == b"/ticker" for came in house.came) == turn
            for caller in callers:
                caller.close()

    run(scenario())


def with_words(*rules: dict[str, Any]) -> dict[str, Any]:
    return {**PLAIN_VENUE, "errors": {**PLAIN_VENUE["errors"], "rules": list(rules)}}


def test_too_many_requests_stop_everybody_until_the_time_that_is_named(tmp_path: Path) -> None:
    """429 for one is 429 for all, on every host: the next request leaves when the time is over."""
    refused: list[float] = []
    after: list[float] = []

    def say(came: Came) -> bytes:
        if not refused and came.target == b"/still":
            refused.append(monotonic())
            return answer(b"{}", 429, (b"Retry-After", b"1"))
        if refused:
            after.append(monotonic() - refused[0])
        return answer()

    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            for server in house.servers:
                server.say = say
            caller, other = await RawCaller.open(house.port), await RawCaller.open(house.port)
            (status, headers, _), (also, _, _) = await asyncio.gather(
                caller.call("GET", "/plain/still"), later(0.2, other.call("GET", "/plain/account", b"", ("X-Key", "k")))
            )
            assert (status, also) == (200, 200)
            assert headers[b"x-seawall-attempts"] == b"2"
            assert min(after) >= 0.99
            status, headers, _ = await caller.call("GET", "/plain/still")
            assert status == 200
            for one in (caller, other):
                one.close()

    run(scenario())


async def later(seconds: float, work: Any) -> Any:
    await asyncio.sleep(seconds)
    return await work


def test_a_ban_stops_the_whole_venue_and_is_never_evaded_by_another_host(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path, without=("orders",)) as (gateway, exchange, _venue):
            caller = await RawCaller.open(gateway.public_port)
            words = {
                "code": -1003,
                "msg": f"Way too many requests; IP banned until {round(wall_seconds() * 1e3) + 60000}.",
            }
            exchange.script = lambda host, first: (
                Strike("ban", execute=False, reply=Reply(418, json.dumps(words).encode(), ((b"Retry-After", b"60"),)))
                if b"/depth" in first
                else None
            )
            exchange.requests.clear()
            status, _, body = await caller.call("GET", "/binance/api/v3/depth?symbol=BTCUSDT&limit=7")
            assert (status, json.loads(body)) == (418, words)  # the venue's own answer
            seen = len(exchange.requests)
            for target in ("/api/v3/time", f"/api/v3/account?{signed('a=1')}"):
                status, headers, body = await caller.call("GET", f"/binance{target}", b"", ("X-MBX-APIKEY", KEY))
                assert status == 503, body
                assert b"venue_limited" in body
                assert 50 <= int(headers[b"retry-after"]) <= 60
            status, headers, _ = await order(caller, "o1")
            assert (status, headers[b"x-seawall-execution"]) == (503, b"not_sent")
            await asyncio.sleep(0.3)
            assert len(exchange.requests) == seen  # no other host, no probe
            assert gateway.status()["routes"][0]["venue"]["banned_for"] > 50
            caller.close()

    run(scenario())


def test_an_account_that_is_told_to_wait_holds_up_nobody_else(tmp_path: Path) -> None:
    venue = with_words({"codes": ["-9"], "word": "throttled", "hold": 300, "each": "account"})

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue) as house:
            for server in house.servers:
                server.say = lambda came: answer(b'{"code":-9}', 400) if came.header(b"x-key") == b"busy" else answer()
            caller = await RawCaller.open(house.port)
            status, _, _ = await caller.call(
                "GET", "/plain/account", b"", ("X-Key", "busy"), ("X-Seawall-Timeout", "1s")
            )
            assert status == 400
            status, headers, body = await caller.call("POST", "/plain/order", b"id=1", ("X-Key", "busy"))
            assert (status, headers[b"x-seawall-execution"]) == (503, b"not_sent"), body
            status, _, _ = await caller.call("GET", "/plain/account", b"", ("X-Key", "calm"))
            assert status == 200
            caller.close()

    run(scenario())


def test_a_signed_request_is_not_held_past_its_window(tmp_path: Path) -> None:
    """While the venue wants peace, an order whose signature ends before that is refused at once, unsent."""

    async def scenario() -> None:
        async with binance_house(tmp_path, without=("orders",)) as (gateway, exchange, venue):
            caller = await RawCaller.open(gateway.public_port)
            exchange.script = lambda host, first: (
                Strike("wait", execute=False, reply=Reply(429, b"{}", ((b"Retry-After", b"3"),)))
                if b"/depth" in first
                else None
            )
            await caller.call("GET", "/binance/api/v3/depth?symbol=BTCUSDT", b"", ("X-Seawall-Timeout", "100ms"))
            short = signed("symbol=BTCUSDT&side=BUY&type=LIMIT&newClientOrderId=s1&quantity=1&price=1")
            short = short.replace("recvWindow=60000", "recvWindow=1000")
            began = monotonic()
            status, headers, _ = await caller.call("POST", f"/binance/api/v3/order?{short}", b"", ("X-MBX-APIKEY", KEY))
            assert (status, headers[b"x-seawall-execution"]) == (503, b"not_sent")
            assert monotonic() - began < 0.5
            status, headers, _ = await order(caller, "o2")  # its window is long enough to wait for
            assert (status, headers[b"x-seawall-execution"]) == (200, b"done")
            assert monotonic() - began > 2.0
            assert venue.accounts.executed[KEY, "s1"] == 0
            caller.close()

    run(scenario())

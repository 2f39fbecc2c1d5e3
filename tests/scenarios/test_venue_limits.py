"""Rate limits of exchanges, shared by all bots behind one address: nobody is banned for a neighbour."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import monotonic, wall_seconds
from gateway.drill.venues.exchange import Strike
from gateway.drill.venues.wire import Reply
from tests.pace import PATIENCE, at_least, at_most, standstill
from tests.scenarios.house import run
from tests.scenarios.test_order_safety import KEY, binance_house, order, signed
from tests.scenarios.venue_house import PLAIN_VENUE, Came, RawCaller, VenueHouse, answer, venue_house

LIMIT, WINDOW = 1200, 10.0  # weight within seconds
WATCHERS, HUNGRY, TRADERS = 130, 60, 10
AT_ONCE = 10  # requests of a hungry bot at the same time
SECONDS = 24.0
FRESH_FOR = 1.0  # what the venue's file says of a ticker
SEED = 3
SLACK = 0.5  # seconds at the edges of the venue's windows in which nothing is sent
OFFSET = 3.7  # seconds by which the venue's minutes are not ours


def test_two_hundred_bots_at_ten_times_the_limit_are_never_banned(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    ages: list[float] = []
    waits: list[float] = []
    served: dict[int, int] = {}
    asked, stale = [0], [0]
    other: Counter[str] = Counter()
    labels: list[str] = []

    async def watcher(port: int, until: float) -> None:
        await asyncio.sleep(chance.random())
        caller = await RawCaller.open(port)
        while monotonic() < until:
            status, _, body = await caller.call("GET", "/binance/api/v3/ticker/24hr?symbol=BTCUSDT")
            stale[0] += status != 200
            if status == 200:
                ages.append(wall_seconds() + OFFSET - json.loads(body)["closeTime"] / 1e3)
            await asyncio.sleep(0.5)
        caller.close()

    async def hungry(port: int, number: int, until: float) -> None:
        await asyncio.sleep(chance.random())
        caller = await RawCaller.open(port)
        key = ("X-Seawall-Key", f"key-of-bot-{number:04d}-0123456789")
        while monotonic() < until:
            start = chance.randrange(10**9)
            asked[0] += 2
            status, headers, body = await caller.call(
                "GET",
                f"/binance/api/v3/klines?symbol=BTCUSDT&limit=1&startTime={start}",
                b"",
                key,
                ("X-Seawall-Timeout", "1s"),
            )
            if status == 200:
                served[number] = served.get(number, 0) + 1
            else:  # no turn in time, or one that came too late to be answered in time
                if status != 504 and (status != 503 or int(headers.get(b"retry-after", b"0")) < 1):
                    other[json.loads(body)["error"]["reason"]] += 1
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
        async with (
            standstill() as stood_still_for,
            binance_house(
                tmp_path,
                without=("orders",),
                limits={"weight": (LIMIT, WINDOW)},
                extra=f"keys: {{{keys}}}\nallow_anonymous: true",
                route=f"    weights: {{slack: {SLACK}s}}\n    retry: {{deadline: 4s}}\n",
                weight_limit=LIMIT,
                minute=WINDOW,
                clock_offset=OFFSET,
            ) as (gateway, _exchange, venue),
        ):
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
                f"{len(ages)} tickers, oldest {max(ages):.2f} s, {stale[0]} not to be had; "
                f"refused otherwise {dict(other)}; "
                f"requests served to a hungry bot {min(served.values())} to {max(served.values())}; "
                f"stood still for {stood_still_for():.2f} s; seed {SEED}"
            )
            if stood_still_for() > 2 * SLACK:  # what was on its way then is counted in a window of which nobody knew
                at_most(venue.weight_peak, LIMIT, "weight in a window, after a standstill")
                at_most(venue.refused_429 + venue.banned_418, 0, "refusals, after a standstill")
            assert (venue.refused_429, venue.banned_418) == (0, 0)
            assert venue.weight_peak <= LIMIT
            at_most(labels.count("not_sent"), 0, "orders that had no turn within their four seconds")
            assert set(labels) == {"done"}
            at_most(max(waits), 1.0, "seconds of the slowest order")
            at_most(max(ages), FRESH_FOR + 1.0, "age of the oldest ticker, seconds")
            at_most(stale[0], 0, "tickers that were not to be had in time")
            at_most(other.total(), 0, f"calls refused otherwise than for the limit, {dict(other)}")
            at_least(asked[0], 10 * allowed, "weight asked for")
            assert len(served) == HUNGRY
            # a turn comes round in more than their second
            at_most(max(served.values()), 6 * min(served.values()), "requests served to the bot with the most")

    run(scenario())


def test_a_thousand_bots_that_ask_for_one_ticker_cost_one_call(tmp_path: Path) -> None:
    calls = [{**call, "fresh_for": 60} if "fresh_for" in call else call for call in PLAIN_VENUE["calls"]]

    async def scenario() -> None:
        async with venue_house(tmp_path, venue={**PLAIN_VENUE, "calls": calls}) as house:
            callers = await asyncio.gather(*(RawCaller.open(house.port) for _ in range(200)))
            answers = []
            for _ in range(5):
                answers += await asyncio.gather(*(caller.call("GET", "/plain/ticker?symbol=A") for caller in callers))
            assert {status for status, _, _ in answers} == {200}
            how = [headers[b"x-seawall-cache"] for _, headers, _ in answers]
            asked = sum(came.target == b"/ticker?symbol=A" for came in house.came)
            assert how.count(b"miss") == asked == 1
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


def test_a_ban_outlives_a_reload_that_changes_the_route(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path, without=("orders",)) as (gateway, exchange, _venue):
            caller = await RawCaller.open(gateway.public_port)
            banned = Strike("ban", execute=False, reply=Reply(418, b"{}", ((b"Retry-After", b"60"),)))
            exchange.script = lambda host, first: banned if b"/depth" in first else None
            await caller.call("GET", "/binance/api/v3/account?" + signed("a=1"), b"", ("X-MBX-APIKEY", KEY))
            used = gateway.status()["routes"][0]["venue"]["limits"]["weight"]["used"]
            await caller.call("GET", "/binance/api/v3/depth?symbol=BTCUSDT")
            config = tmp_path / "seawall.yaml"
            config.write_text(config.read_text().replace("  binance:\n", "  binance:\n    weights: {share: 50%}\n"))
            assert await gateway.reload()
            told = gateway.status()["routes"][0]["venue"]
            assert told["banned_for"] > 50
            assert told["limits"]["weight"]["used"] >= used > 0
            exchange.requests.clear()
            status, headers, _ = await order(caller, "o1")
            assert (status, headers[b"x-seawall-execution"]) == (503, b"not_sent")
            assert not exchange.requests
            caller.close()

    run(scenario())


def test_two_routes_of_an_exchange_are_one_budget_and_one_ban(tmp_path: Path) -> None:
    """The exchange counts by address, whatever names we give to the ways there; another host is another exchange."""
    limit = {"name": "weight", "amount": 100, "window": 60}
    venue = with_words({"status": ["418"], "word": "banned", "hold": 60})

    async def scenario() -> None:
        async with venue_house(tmp_path, venue={**venue, "limits": [limit]}) as house:
            config, file = tmp_path / "seawall.yaml", tmp_path / "venue.json"
            urls = [f"http://127.0.0.1:{server.port}" for server in house.servers]
            for name, where in (("again", urls), ("elsewhere", urls[:1])):
                ends = ", ".join(f"'{url}'" for url in where)
                config.write_text(
                    f"{config.read_text()}  {name}: {{venue_file: {file}, streams: [], endpoints: [{ends}]}}\n"
                )
            assert await house.gateway.reload()
            await until(lambda: all(row["verdicts"] == [] for row in house.gateway.status()["routes"]))
            caller = await RawCaller.open(house.port)
            for name in ("plain", "again"):
                assert (await caller.call("POST", f"/{name}/order", b"id=1"))[0] == 200
            rows = {row["name"]: row["venue"] for row in house.gateway.status()["routes"]}
            used = {name: row["limits"]["weight"]["used"] for name, row in rows.items()}
            assert used["plain"] == used["again"] != used["elsewhere"]
            for server in house.servers:
                server.say = lambda came: answer(b"{}", 418) if came.target == b"/still" else answer()
            await caller.call("GET", "/plain/still")
            for name, expected in (("plain", 503), ("again", 503), ("elsewhere", 200)):
                assert (await caller.call("POST", f"/{name}/order", b"id=1"))[0] == expected
            text = config.read_text()
            config.write_text("\n".join(line for line in text.splitlines() if not line.startswith("  again")))
            assert await house.gateway.reload()
            assert (await caller.call("POST", "/plain/order", b"id=1"))[0] == 503
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
            told_to_wait: list[float] = []

            def script(host: int, first: bytes) -> Strike | None:
                if b"/depth" not in first:
                    return None
                told_to_wait.append(monotonic())
                return Strike("wait", execute=False, reply=Reply(429, b"{}", ((b"Retry-After", b"3"),)))

            exchange.script = script
            await caller.call("GET", "/binance/api/v3/depth?symbol=BTCUSDT", b"", ("X-Seawall-Timeout", "100ms"))
            short = signed("symbol=BTCUSDT&side=BUY&type=LIMIT&newClientOrderId=s1&quantity=1&price=1")
            short = short.replace("recvWindow=60000", "recvWindow=1000")
            began = monotonic()
            status, headers, _ = await caller.call("POST", f"/binance/api/v3/order?{short}", b"", ("X-MBX-APIKEY", KEY))
            took = monotonic() - began
            assert (status, headers[b"x-seawall-execution"]) == (503, b"not_sent")
            status, headers, _ = await order(caller, "o2")  # its window is long enough to wait for
            assert (status, headers[b"x-seawall-execution"]) == (200, b"done")
            assert monotonic() - told_to_wait[0] > 2.99
            assert venue.accounts.executed[KEY, "s1"] == 0
            caller.close()
            at_most(took, 0.5, "seconds until the order was refused")

    run(scenario())


@pytest.mark.parametrize("ahead", [-30.0, 0.0, 30.0])
def test_how_long_a_signature_lives_is_told_by_the_exchanges_clock(tmp_path: Path, ahead: float) -> None:
    """Bots keep to the exchange's time; ours may be wrong, and would refuse good orders or hold dead ones."""
    health = {"clock": {"target": "/time", "at": "t"}}
    venue = {**PLAIN_VENUE, "health": health}

    def say(came: Came) -> bytes:
        if came.target == b"/time":
            return answer(b'{"t":%d}' % ((wall_seconds() + ahead) * 1e3))
        return answer(b"{}", 429, (b"Retry-After", b"1")) if came.target == b"/still" else answer()

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue, route_extra="    venues: {probe_every: 500ms}\n") as house:
            for server in house.servers:
                server.say = say
            await until(lambda: all(abs(h["clock_ahead_ms"] - ahead * 1e3) < 1000 for h in hosts(house)))
            caller = await RawCaller.open(house.port)
            await caller.call("GET", "/plain/still", b"", ("X-Seawall-Timeout", "100ms"))
            for age, status, told in ((4.0, 503, b"not_sent"), (0.0, 200, b"done")):
                stamp = round((wall_seconds() + ahead - age) * 1e3)
                body = b"id=1&timestamp=%d&signature=f" % stamp
                got, headers, _ = await caller.call("POST", "/plain/order", body, ("X-Key", "k"))
                assert (got, headers[b"x-seawall-execution"]) == (status, told)
            caller.close()

    def hosts(house: VenueHouse) -> list[dict[str, Any]]:
        told = house.status()["venue"]["hosts"].values()
        return [host if host["clock_ahead_ms"] is not None else {"clock_ahead_ms": 1e9} for host in told]

    run(scenario())


def test_an_account_that_asks_for_more_than_its_own_limit_holds_up_nobody_else(tmp_path: Path) -> None:
    """Three orders in ten seconds for each key: who wants ten waits by itself, whatever it is allowed to wait."""
    limit = {"name": "orders", "amount": 4, "window": 10, "counts": "calls", "on": "orders", "each": "account"}
    venue = {**PLAIN_VENUE, "limits": [limit]}

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue) as house:
            greedy = [await RawCaller.open(house.port) for _ in range(10)]
            waiting = [
                asyncio.ensure_future(
                    caller.call("POST", "/plain/order", b"id=1", ("X-Key", "greedy"), ("X-Seawall-Timeout", "25s"))
                )
                for caller in greedy
            ]
            await until(lambda: house.status()["waiting"] >= 2)
            other = await RawCaller.open(house.port)
            began = monotonic()
            for verb, target, key in (
                ("POST", "/plain/order", "calm"),
                ("GET", "/plain/account", "greedy"),
                ("GET", "/plain/still", "calm"),
            ):
                status, _, _ = await other.call(verb, target, b"" if verb == "GET" else b"id=2", ("X-Key", key))
                assert status == 200
            took = monotonic() - began
            assert (
                sum(came.line.startswith(b"POST") for came in house.came) == 4
            )  # three of the greedy, one of the calm
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            for caller in (*greedy, other):
                caller.close()
            at_most(took, 1.0, "seconds in which others are served")

    run(scenario())


def test_an_order_whose_caller_left_while_it_waited_is_not_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody could be told what became of it; it is counted as what it is, and worries nobody."""

    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            for server in house.servers:
                server.say = lambda came: (
                    answer(b"{}", 429, (b"Retry-After", b"1")) if came.target == b"/still" else answer()
                )
            caller, leaves, stays = [await RawCaller.open(house.port) for _ in range(3)]
            await caller.call("GET", "/plain/still", b"", ("X-Seawall-Timeout", "100ms"))
            caplog.clear()
            lost = asyncio.ensure_future(leaves.call("POST", "/plain/order", b"id=1", ("X-Key", "k")))
            kept = asyncio.ensure_future(stays.call("POST", "/plain/order", b"id=2", ("X-Key", "k")))
            await until(lambda: house.status()["waiting"] == 2)
            leaves.close()
            status, headers, _ = await kept
            assert (status, headers[b"x-seawall-execution"]) == (200, b"done")
            await asyncio.gather(lost, return_exceptions=True)
            await asyncio.sleep(0.1)
            assert [came.body for came in house.came if came.target == b"/order"] == [b"id=2"]
            operations = await RawCaller.open(house.gateway.operations_port)
            _, _, metrics = await operations.call("GET", "/metrics")
            assert b'seawall_calls_total{method="POST /order",result="caller_left",route="plain"} 1.0' in metrics
            for one in (caller, stays, operations):
                one.close()

    run(scenario())
    assert [record.getMessage() for record in caplog.records if "failed" in record.getMessage()] == []


def test_who_shares_a_request_gets_its_answer_when_who_began_it_leaves(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, route_extra="    transport: {attempt_timeout: 500ms}\n") as house:
            first: list[Came] = []

            def say(came: Came) -> bytes | None:
                if came.target != b"/ticker":
                    return answer()
                first.append(came)
                return b"" if len(first) == 1 else answer(b'{"a":1}')  # the first host falls silent

            for server in house.servers:
                server.say = say
            leads, joins = await RawCaller.open(house.port), await RawCaller.open(house.port)
            lost = asyncio.ensure_future(leads.call("GET", "/plain/ticker"))
            await until(lambda: len(first) == 1)
            kept = asyncio.ensure_future(joins.call("GET", "/plain/ticker"))
            await asyncio.sleep(0.1)
            leads.close()
            status, headers, body = await kept
            assert (status, body, headers[b"x-seawall-cache"]) == (200, b'{"a":1}', b"joined")
            await asyncio.gather(lost, return_exceptions=True)
            joins.close()

    run(scenario())


def test_an_account_that_is_not_served_where_it_lives_shuts_no_host_for_others(tmp_path: Path) -> None:
    """Bybit says 10024 of a person, and of an address: probes tell which."""
    venue = with_words({"codes": ["-7"], "word": "region"})

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue, count=1) as house:
            house.servers[0].say = lambda came: (
                answer(b'{"code":-7}', 403) if came.header(b"x-key") == b"abroad" else answer()
            )
            caller = await RawCaller.open(house.port)
            for _ in range(20):
                for key, expected in (("abroad", 403), ("home", 200)):
                    status, _, body = await caller.call("POST", "/plain/order", b"id=1", ("X-Key", key))
                    assert status == expected, body
            caller.close()

    run(scenario())


def test_who_has_more_time_than_the_one_that_began_gets_an_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            asked: list[Came] = []

            def say(came: Came) -> bytes:
                if came.target == b"/ticker":
                    asked.append(came)
                return b"" if came.target == b"/ticker" and len(asked) == 1 else answer(b'{"a":1}')

            house.servers[0].say = say
            hasty = await RawCaller.open(house.port)
            patient = [await RawCaller.open(house.port) for _ in range(5)]
            first = asyncio.ensure_future(hasty.call("GET", "/plain/ticker", b"", ("X-Seawall-Timeout", "300ms")))
            await until(lambda: len(asked) == 1)
            answers = await asyncio.gather(*(caller.call("GET", "/plain/ticker") for caller in patient))
            assert [(status, body) for status, _, body in answers] == [(200, b'{"a":1}')] * 5
            assert (await first)[0] in (502, 504)
            assert len(asked) == 2
            for caller in (hasty, *patient):
                caller.close()

    run(scenario())


def test_a_path_that_one_account_asks_too_often_is_open_to_others(tmp_path: Path) -> None:
    """OKX counts what a user asks of a path: 50011 is one bot's affair."""
    venue = with_words({"codes": ["-9"], "word": "throttled", "hold": 300, "each": "path"})

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue) as house:
            for server in house.servers:
                server.say = lambda came: answer(b'{"code":-9}', 400) if came.header(b"x-key") == b"busy" else answer()
            caller = await RawCaller.open(house.port)
            status, headers, _ = await caller.call("POST", "/plain/order", b"id=1", ("X-Key", "busy"))
            assert (status, headers[b"x-seawall-execution"]) == (400, b"done")
            for key, target, expected in (("busy", "/plain/order", 503), ("calm", "/plain/order", 200)):
                status, _, _ = await caller.call("POST", target, b"id=1", ("X-Key", key))
                assert status == expected
            caller.close()

    run(scenario())


async def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = monotonic() + seconds
    while not holds():
        assert monotonic() < end, "did not come true in time"
        await asyncio.sleep(0.02)

"""One host of an exchange is dead, slow, wrong or stands still: reads go on; a region that is down is named."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.assembly import Gateway
from gateway.clock import monotonic, wall_seconds
from gateway.config.load import load, secrets_of
from gateway.drill.venues.binance import Binance
from gateway.drill.venues.exchange import SimulatedExchange, Strike
from gateway.drill.venues.kraken import Kraken
from gateway.drill.venues.kucoin import Kucoin
from gateway.drill.venues.okx import Okx
from gateway.drill.venues.wire import Reply
from gateway.telemetry.redaction import Redactor
from tests.pace import PATIENCE, at_most
from tests.scenarios.house import run
from tests.scenarios.test_order_safety import KEY, binance_house, order, signed
from tests.scenarios.venue_house import PLAIN_VENUE, Came, RawCaller, answer, venue_house
from tests.telemetry.collector import Collector, attributes

READS = 150


def at_host_0(strike: Strike) -> Callable[[int, bytes], Strike | None]:
    return lambda host, first: strike if host == 0 else None


WAYS: dict[str, Callable[[SimulatedExchange], None]] = {
    "dead": lambda exchange: exchange.kill(0),
    "slow": lambda exchange: setattr(exchange, "script", at_host_0(Strike("slow", wait=5.0, execute=False))),
    "hanging": lambda exchange: setattr(exchange, "script", at_host_0(Strike("hang", hang=True, execute=False))),
    "failing": lambda exchange: setattr(
        exchange, "script", at_host_0(Strike("500", execute=False, reply=Reply(503, b"<html>")))
    ),
    "garbage": lambda exchange: setattr(
        exchange, "script", at_host_0(Strike("html", execute=False, reply=Reply(200, b"<html>busy</html>")))
    ),
    "cut": lambda exchange: setattr(exchange, "script", at_host_0(Strike("cut", execute=False, send=30))),
    "elsewhere": lambda exchange: setattr(
        exchange, "script", at_host_0(Strike("451", execute=False, reply=Reply(451, b'{"code":0,"msg":"restricted"}')))
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_public_and_signed_reads_go_on_while_one_host_is_out(tmp_path: Path, way: str) -> None:
    async def scenario() -> None:
        route = "    transport: {attempt_timeout: 300ms}\n"
        async with binance_house(tmp_path, hosts=3, route=route) as (gateway, exchange, venue):
            callers = [await RawCaller.open(gateway.public_port) for _ in range(6)]
            WAYS[way](exchange)
            lost: list[bytes] = []

            async def read(caller: RawCaller, number: int) -> None:
                for turn in range(READS // 6):
                    if turn % 2:
                        target = f"/api/v3/openOrders?{signed(f'symbol=BTCUSDT&n={number}.{turn}')}"
                    else:
                        target = f"/api/v3/depth?symbol=BTCUSDT&limit=5&n={number}.{turn}"
                    status, _, body = await caller.call("GET", f"/binance{target}", b"", ("X-MBX-APIKEY", KEY))
                    if status != 200:
                        lost.append(body)

            await asyncio.gather(*(read(caller, number) for number, caller in enumerate(callers)))
            hosts = [request.host for request in exchange.requests]
            print(f"{way}: {READS} reads, {len(lost)} lost; hosts asked {[hosts.count(n) for n in range(3)]}")
            assert lost == []
            assert venue.bad_signatures == 0
            for caller in callers:
                caller.close()

    run(scenario())


@pytest.mark.parametrize("reads_on", [False, True], ids=["gone", "reads on"])
def test_a_read_whose_caller_left_goes_to_no_other_host(tmp_path: Path, reads_on: bool) -> None:
    """Who has only closed its own side is told, but never by a 4xx: that would be the venue's word."""

    async def scenario() -> None:
        async with venue_house(tmp_path, route_extra="    transport: {attempt_timeout: 500ms}\n") as house:
            for server in house.servers:
                server.say = lambda came: b""  # silence
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(b"GET /plain/account HTTP/1.1\r\nHost: localhost\r\nX-Key: k\r\n\r\n")
            await until(lambda: bool(house.came))
            if reads_on:
                writer.write_eof()
                said = await asyncio.wait_for(reader.read(), PATIENCE)
                assert said.startswith(b"HTTP/1.1 503 ") and b'"reason": "caller_left"' in said
            writer.close()
            operations = await RawCaller.open(house.gateway.operations_port)
            left = b'seawall_calls_total{method="GET /account",result="caller_left",route="plain"} 1.0'
            async with asyncio.timeout(PATIENCE):
                while left not in (await operations.call("GET", "/metrics"))[2]:
                    await asyncio.sleep(0.05)
            assert len(house.came) == 1
            operations.close()

    run(scenario())


def test_a_retry_that_the_budget_refused_is_counted(tmp_path: Path) -> None:
    async def scenario() -> None:
        retry = "    retry: {attempts: 2, budget_share: 0%, budget_rate: 0, budget_burst: 1}\n"
        async with venue_house(tmp_path, route_extra=retry) as house:
            for server in house.servers:
                server.say = lambda came: None  # cut
            caller, operations = (
                await RawCaller.open(house.port),
                await RawCaller.open(house.gateway.operations_port),
            )
            counted = b'seawall_retry_budget_refusals_total{route="plain"} %d.0'
            for refusals in (0, 1, 2):  # the first may be repeated, the others not
                status, _, _ = await caller.call("GET", "/plain/account", b"", ("X-Key", "k"))
                assert status == 502
                assert counted % refusals in (await operations.call("GET", "/metrics"))[2]
            assert len(house.came) == 4
            for one in (caller, operations):
                one.close()

    run(scenario())


def test_an_order_is_not_given_to_another_host_when_the_first_falls_silent(tmp_path: Path) -> None:
    async def scenario() -> None:
        route = "    retry: {deadline: 500ms, heavy_deadline: 500ms}\n"
        async with binance_house(tmp_path, route=route, without=("orders",)) as (gateway, exchange, venue):
            exchange.script = lambda host, first: Strike("hang", hang=True) if first.startswith(b"POST") else None
            caller = await RawCaller.open(gateway.public_port)
            status, headers, body = await order(caller, "o7")
            assert (status, headers[b"x-seawall-execution"]) == (504, b"unknown")
            assert json.loads(body)["error"]["reason"] == "outcome_unknown"
            assert headers[b"x-seawall-reconcile"] == b"GET /api/v3/order?symbol=BTCUSDT&origClientOrderId=o7"
            assert sum(request.verb == "POST" for request in exchange.requests) == 1
            exchange.script = None
            target = headers[b"x-seawall-reconcile"].decode().split(" ")[1].partition("?")
            found, _, body = await caller.call(
                "GET", f"/binance{target[0]}?{signed(target[2])}", b"", ("X-MBX-APIKEY", KEY)
            )
            assert (found, json.loads(body)["clientOrderId"]) == (200, "o7")  # what the header says finds it
            assert venue.accounts.executed[KEY, "o7"] == 1
            caller.close()

    run(scenario())


def test_a_write_of_unknown_outcome_is_traced_with_how_to_find_out(tmp_path: Path) -> None:
    collector = Collector()
    extra = f"telemetry: {{traces: {{endpoint: '{collector.url}', sample: 0, export_every: 50ms}}}}"

    async def scenario() -> None:
        async with binance_house(tmp_path, without=("orders",), extra=extra) as (gateway, exchange, _):
            words = json.dumps({"code": -1007, "msg": "Timeout waiting for response from backend server."}).encode()
            exchange.script = lambda host, first: (
                Strike("-1007", reply=Reply(400, words)) if first.startswith(b"POST") else None
            )
            caller = await RawCaller.open(gateway.public_port)
            status, headers, body = await order(caller, "o5")
            assert (status, body, headers[b"x-seawall-execution"]) == (400, words, b"unknown")
            await until(lambda: bool(collector.spans))
            caller.close()

    try:
        run(scenario())
    finally:
        collector.close()
    told = [attributes(span) for span in collector.spans if not span.parent_span_id]
    assert told[0]["seawall.execution"] == "unknown"
    assert told[0]["seawall.reconcile"] == "GET /api/v3/order?symbol=BTCUSDT&origClientOrderId=o5"
    assert told[0]["rpc.method"] == "POST /api/v3/order"


def test_calls_whose_numbers_must_rise_arrive_in_their_order_and_once(tmp_path: Path) -> None:
    venue = {
        **PLAIN_VENUE,
        "signing": {"key": ["x-key"], "marks": ["x-key"], "nonce": True},
        "calls": [{"do": ["POST /read"], "use": "account"}, {"do": ["POST /order"], "use": "order"}],
    }

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue) as house:
            seen: list[int] = []

            def say(came: Came) -> bytes | None:
                number = int(came.body or b"-1")
                if number < 0:
                    return answer()
                seen.append(number)
                return None if number % 7 == 3 else answer()

            for server in house.servers:
                server.say = say
            callers = [await RawCaller.open(house.port) for _ in range(30)]
            started = [
                asyncio.ensure_future(
                    caller.call("POST", "/plain/read" if n % 2 else "/plain/order", b"%d" % n, ("X-Key", "k"))
                )
                for n, caller in enumerate(callers)
            ]
            for n, task in enumerate(started):
                status, headers, _ = await task
                if n % 7 == 3 and n % 2 == 0:
                    assert headers[b"x-seawall-execution"] == b"unknown"
                elif n % 7 == 3:
                    assert status in (502, 504)
            assert sorted(seen) == list(dict.fromkeys(sorted(seen)))  # nothing twice
            assert seen == sorted(seen)
            for caller in callers:
                caller.close()

    run(scenario())


def test_a_call_behind_one_that_hangs_is_told_in_time_and_not_sent(tmp_path: Path) -> None:
    venue = {
        **PLAIN_VENUE,
        "signing": {"key": ["x-key"], "marks": ["x-key"], "nonce": True},
        "calls": [{"do": ["POST /order"], "use": "order"}],
    }

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue) as house:
            for server in house.servers:
                server.say = lambda came: b""  # never answered
            first, second = await RawCaller.open(house.port), await RawCaller.open(house.port)
            key = ("X-Key", "k")
            held = asyncio.ensure_future(first.call("POST", "/plain/order", b"1", key, ("X-Seawall-Timeout", "2s")))
            await until(lambda: any(came.body == b"1" for came in house.came))
            began = monotonic()
            status, headers, body = await second.call("POST", "/plain/order", b"2", key, ("X-Seawall-Timeout", "500ms"))
            took = monotonic() - began
            assert took > 0.4
            assert (status, headers[b"x-seawall-execution"]) == (503, b"not_sent"), body
            assert (await held)[1][b"x-seawall-execution"] == b"unknown"
            assert [came.body for came in house.came if came.body] == [b"1"]
            for caller in (first, second):
                caller.close()
            at_most(took, 1.5, "seconds until the second caller was told")

    run(scenario())


def test_asking_a_broken_host_leaves_most_of_a_small_limit_to_those_who_come_back(tmp_path: Path) -> None:
    """Gemini allows two calls a second; a minute of asking twice a second would leave none for the recovery."""
    limit = {"name": "public", "amount": 20, "window": 10, "counts": "calls", "on": "public"}
    health = {"ping": "/ping"}
    venue = {**PLAIN_VENUE, "limits": [limit], "health": health}
    venue["calls"] = [*venue["calls"], {"do": ["GET /ping"], "use": "info"}]

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue, count=1) as house:
            broken = [True]
            house.servers[0].say = lambda came: None if broken[0] else answer()
            caller = await RawCaller.open(house.port)
            for _ in range(6):
                await caller.call("POST", "/plain/order", b"id=1")
            await until(lambda: house.status()["verdicts"] != [])
            house.servers[0].came.clear()
            await asyncio.sleep(3.0)
            assert 1 <= len(house.came) <= 3
            broken[0] = False
            await until(lambda: house.status()["verdicts"] == [])
            for _ in range(3):
                status, _, _ = await caller.call("GET", "/plain/still", b"", ("X-Seawall-Timeout", "500ms"))
                assert status == 200
            caller.close()

    run(scenario())


def test_a_host_whose_market_stands_still_gets_no_market_reads_until_it_moves(tmp_path: Path) -> None:
    venue = {**PLAIN_VENUE, "health": {"pulse": {"target": "/still", "at": "n", "still_after": 1.5}, "ping": "/ping"}}

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue, route_extra="    venues: {pulse_every: 1s}\n") as house:
            began, frozen = monotonic(), [True]
            for server in house.servers:
                server.say = lambda came: answer(
                    b'{"n":%d}' % (5 if came.host == 0 and frozen[0] else 5 + int((monotonic() - began) * 10))
                )

            def reasons() -> list[str]:
                return [reason["reason"] for reason in house.status()["endpoints"][0]["reasons"]]

            await until(lambda: "still" in reasons())
            caller = await RawCaller.open(house.port)
            for _ in range(20):
                _, headers, _ = await caller.call("GET", "/plain/still")
                assert headers[b"x-seawall-endpoint"] == b"h1"
            assert house.status()["verdict"].startswith("h0 is out: still")
            assert house.status()["venue"]["hosts"]["h0"]["still"]
            frozen[0] = False
            await until(lambda: reasons() == [])
            caller.close()

    run(scenario())


def test_hosts_whose_numbers_begin_anew_do_not_stand_still(tmp_path: Path) -> None:
    venue = {**PLAIN_VENUE, "health": {"pulse": {"target": "/still", "at": "n", "still_after": 1}, "ping": "/ping"}}

    async def scenario() -> None:
        async with venue_house(tmp_path, venue=venue, route_extra="    venues: {pulse_every: 1s}\n") as house:
            began = monotonic()

            def say(came: Came) -> bytes:
                passed = monotonic() - began
                return answer(b'{"n":%d}' % (1_000_000 + passed * 10 if passed < 3 else passed * 10))

            for server in house.servers:
                server.say = say
            while monotonic() - began < 8:
                assert [endpoint["reasons"] for endpoint in house.status()["endpoints"]] == [[], []]
                await asyncio.sleep(0.2)

    run(scenario())


def test_an_exchange_that_stands_still_as_a_whole_while_others_move_is_named(tmp_path: Path) -> None:
    """Data that stand still are answered with 200 in good time; where there is one host, only other markets show it."""

    async def scenario() -> None:
        async with tokyo_and_kraken(tmp_path) as (gateway, exchanges):

            def venue(name: str) -> dict[str, Any]:
                return next(row for row in gateway.status()["routes"] if row["name"] == name)

            await asyncio.sleep(2)
            for market in exchanges["kucoin"].venue.markets.all.values():  # type: ignore[attr-defined]
                market.frozen = True
            await until(lambda: any(fact["still"] for fact in venue("kucoin")["venue"]["hosts"].values()))
            assert not any(fact["still"] for fact in venue("binance")["venue"]["hosts"].values())
            caller = await RawCaller.open(gateway.public_port)
            target = "/kucoin/api/v1/market/orderbook/level1?symbol=BTC-USDT"
            status, headers, _ = await caller.call("GET", target)
            assert (status, headers[b"x-seawall-degraded"]) == (200, b"last_resort")  # old data are said to be that
            for market in exchanges["kucoin"].venue.markets.all.values():  # type: ignore[attr-defined]
                market.frozen = False
            await until(lambda: not any(fact["still"] for fact in venue("kucoin")["venue"]["hosts"].values()))
            caller.close()

    run(scenario())


async def until(holds: Callable[[], bool]) -> None:
    end = monotonic() + PATIENCE
    while not holds():
        assert monotonic() < end, "did not come true"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def tokyo_and_kraken(folder: Path) -> AsyncIterator[tuple[Gateway, dict[str, SimulatedExchange]]]:
    kinds: dict[str, tuple[Any, str, int]] = {
        "binance": (Binance, "ap-northeast-1", 2),
        "kucoin": (Kucoin, "ap-northeast-1", 1),
        "kraken": (Kraken, "us-east-1", 1),
        "okx": (Okx, "", 1),
    }
    async with contextlib.AsyncExitStack() as stack:
        exchanges, rows = {}, []
        for name, (kind, region, hosts) in kinds.items():
            exchange = await stack.enter_async_context(SimulatedExchange(kind(wall_seconds()), hosts=hosts))
            exchanges[name] = exchange
            label = f", region: {region}" if region else ""
            urls = ", ".join(f"{{url: '{url}'{label}}}" for url in exchange.urls)
            pace = "{probe_every: 500ms, pulse_every: 1s}"
            rows.append(f"  {name}: {{venue: {name}, streams: [], venues: {pace}, endpoints: [{urls}]}}\n")
        config = folder / "seawall.yaml"
        config.write_text("listen: 127.0.0.1:0\noperations: {listen: 127.0.0.1:0}\nroutes:\n" + "".join(rows))
        settings = load(config)
        gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        stack.push_async_callback(gateway.stop, 1.0)
        yield gateway, exchanges


def test_an_outage_of_the_whole_tokyo_region_is_named_as_such(tmp_path: Path) -> None:
    """2025-04-15: Binance, KuCoin, MEXC and Gate at once; one exchange alone is its own affair."""

    async def scenario() -> None:
        async with tokyo_and_kraken(tmp_path) as (gateway, exchanges):

            def verdicts(name: str) -> dict[str, str]:
                row = next(row for row in gateway.status()["routes"] if row["name"] == name)
                return {verdict["kind"]: f"{verdict['subject']}: {verdict['evidence']}" for verdict in row["verdicts"]}

            assert verdicts("binance") == {}
            exchanges["kucoin"].kill(0)
            await until(lambda: "provider" in verdicts("kucoin"))
            assert "domain" not in verdicts("kucoin")  # one exchange is no region
            for host in range(2):
                exchanges["binance"].kill(host)
            await until(lambda: "domain" in verdicts("binance") and "domain" in verdicts("kucoin"))
            print(f"binance: {verdicts('binance')['domain']}")
            assert verdicts("binance")["domain"].startswith("ap-northeast-1: ")
            assert "KuCoin" in verdicts("binance")["domain"]
            await until(lambda: verdicts("kraken") == {})  # a probe that this machine held up may be against it
            caller = await RawCaller.open(gateway.public_port)
            status, _, _ = await caller.call("GET", "/kraken/0/public/Time")
            assert status == 200
            for name, hosts in (("binance", 2), ("kucoin", 1)):
                for host in range(hosts):
                    exchanges[name].open(host)
            await until(lambda: verdicts("binance") == {} and verdicts("kucoin") == {})
            caller.close()

    run(scenario())

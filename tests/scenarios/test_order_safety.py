"""Orders: sent at most once whatever happens, and labelled as the exchange's own record says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from gateway.assembly import Gateway
from gateway.clock import monotonic, wall_seconds
from gateway.config.load import load, secrets_of
from gateway.drill.venues.binance import Binance
from gateway.drill.venues.exchange import SimulatedExchange, Strike
from gateway.drill.venues.wire import Reply
from gateway.telemetry.redaction import Redactor
from tests.pace import at_most
from tests.scenarios.house import run
from tests.scenarios.venue_house import RawCaller

ORDERS = int(os.environ.get("SEAWALL_CALLS", "6000"))
BOTS = 24
SEED = 11
KEY, SECRET = "test-key-1", "test-secret-1"

DEADLINE = 0.3  # seconds; what is not answered by then is of unknown outcome

CALM = "{consecutive: 100, threshold: 50, base_rate: 50%, failing_rate: 99%, open_for: 100ms}"
"""A breaker that lets faults through: these tests are about what becomes of each."""


def error(status: int, code: int, message: str = "x", *headers: tuple[bytes, bytes]) -> Reply:
    return Reply(status, json.dumps({"code": code, "msg": message}).encode(), headers)


# what is answered, and whether it says what became of the order
SETTLED = {
    "duplicate": error(400, -2010, "Duplicate order sent."),
    "insufficient": error(400, -2010, "Account has insufficient balance for requested action."),
    "filter": error(400, -1013, "Filter failure: LOT_SIZE"),
    "clock": error(400, -1021),
    "signature": error(400, -1022),
    "too_many": error(429, -1003, "Too many requests.", (b"Retry-After", b"0")),
    "busy": error(503, -1008, "Server is currently overloaded", (b"Retry-After", b"0")),
}
DOUBTFUL = {
    "timeout_1007": error(400, -1007, "Timeout waiting for response from backend server."),
    "unexpected_1006": error(400, -1006, "An unexpected response was received from the message bus."),
    "status_500": error(500, -1000),
    "status_502": Reply(502, b"<html>Bad Gateway</html>", ((b"Content-Type", b"text/html"),)),
    "status_503": Reply(503, b""),
    "status_504": Reply(504, b"<html>"),
    "status_520": Reply(520, b""),
    "empty_200": Reply(200, b""),
    "half_200": Reply(200, b'{"symbol":"BTC'),
    "html_200": Reply(200, b"<html>maintenance</html>", ((b"Content-Type", b"text/html"),)),
    "redirect": Reply(302, b"", ((b"Location", b"https://elsewhere.test/"),)),
}


class Faults:
    """Decides what happens to each order, so that every byte offset of request and answer has its turn."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.read_at = 0
        self.cut_at = 0
        self.ends: dict[bytes, tuple[str, bool]] = {}  # client id -> what must be told, and whether it may be executed

    def script(self, host: int, first: bytes) -> Strike | None:
        if not first.startswith(b"POST"):
            return None
        name = first.partition(b"newClientOrderId=")[2].partition(b"&")[0]
        strike, told = self.choose()
        self.ends[name] = (told, strike is None or strike.execute)
        return strike

    def choose(self) -> tuple[Strike | None, str]:
        kind = self.chance.random()
        if kind < 0.3:
            return None, "done"
        if kind < 0.45:
            self.read_at = self.read_at % 600 + 1
            return Strike("reset_while_reading", read=self.read_at, execute=False), "unknown"
        if kind < 0.6:
            self.cut_at = self.cut_at % 700
            self.cut_at += 1
            return Strike("cut_while_answering", send=self.cut_at - 1), "cut"  # at the last offsets, all of it came
        if kind < 0.65:
            return Strike("reset_before_executing", execute=False, send=0), "unknown"
        if kind < 0.68:
            executed = self.chance.random() < 0.5
            return Strike(f"hang_{executed}", hang=True, execute=executed), "unknown"
        if kind < 0.71:
            return Strike("slow", wait=self.chance.uniform(0.01, 0.05)), "done"
        if kind < 0.8:
            name = self.chance.choice(list(SETTLED))
            return Strike(name, execute=False, reply=SETTLED[name]), "done"
        name = self.chance.choice(list(DOUBTFUL))
        executed = self.chance.random() < 0.5
        return Strike(f"{name}_{executed}", execute=executed, reply=DOUBTFUL[name]), "unknown"


@contextlib.asynccontextmanager
async def binance_house(
    folder: Path,
    *,
    hosts: int = 2,
    without: tuple[str, ...] = (),
    limits: dict[str, tuple[float, float]] | None = None,
    route: str = "",
    extra: str = "",
    **rules: Any,
) -> AsyncIterator[tuple[Gateway, SimulatedExchange, Binance]]:
    """The gateway in front of a simulated Binance; its file without some of the limits."""
    facts = json.loads(files("gateway.dialect").joinpath("venues", "binance.json").read_text())
    facts["limits"] = [limit for limit in facts["limits"] if limit["name"] not in without]
    for limit in facts["limits"]:
        if limits is not None and limit["name"] in limits:
            limit["amount"], limit["window"] = limits[limit["name"]]
    file = folder / "venue.json"
    file.write_text(json.dumps(facts))
    venue = Binance(wall_seconds(), **rules)
    async with SimulatedExchange(venue, hosts=hosts) as exchange:
        rows = "\n".join(f"      - {{id: h{n}, url: '{url}'}}" for n, url in enumerate(exchange.urls))
        config = folder / "seawall.yaml"
        config.write_text(
            f"listen: 127.0.0.1:0\noperations: {{listen: 127.0.0.1:0}}\n{extra}\n"
            f"routes:\n  binance:\n    venue_file: {file}\n"
            f"    streams: [{', '.join(exchange.ws_urls)}]\n{route}\n    endpoints:\n{rows}\n"
        )
        settings = load(config)
        gateway = Gateway(settings, config, Redactor(secrets_of(settings)), seed=7)
        await gateway.start()
        try:
            yield gateway, exchange, venue
        finally:
            await gateway.stop(1.0)


def signed(text: str) -> str:
    text += f"&timestamp={round(wall_seconds() * 1e3)}&recvWindow=60000"
    return f"{text}&signature={hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()}"


async def order(caller: RawCaller, client_id: str) -> tuple[int, dict[bytes, bytes], bytes]:
    body = signed(f"symbol=BTCUSDT&side=BUY&type=LIMIT&price=50000&quantity=0.01&newClientOrderId={client_id}")
    if int(client_id[1:]) % 2:
        return await caller.call("POST", f"/binance/api/v3/order?{body}", b"", ("X-MBX-APIKEY", KEY))
    return await caller.call("POST", "/binance/api/v3/order", body.encode(), ("X-MBX-APIKEY", KEY))


def test_no_order_is_sent_twice_and_each_is_labelled_as_the_exchange_knows_it(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    faults = Faults(chance)
    labels: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    killed_at = [0.0]
    late: list[str] = []  # orders that no fault struck and that were not answered in time: the machine was busy

    async def one_bot(port: int, numbers: range, venue: Binance) -> None:
        caller = await RawCaller.open(port)
        for number in numbers:
            client_id, began = f"o{number}", monotonic()
            for _ in range(100):
                asked_at = monotonic()
                status, headers, body = await order(caller, client_id)
                told = headers[b"x-seawall-execution"].decode()
                labels[told, f"executed {venue.accounts.executed[KEY, client_id]} times"] += 1
                if told != "not_sent" or wrong:
                    break
                await asyncio.sleep(0.02)  # nothing was sent, so the same order may be sent again
            executed = venue.accounts.executed[KEY, client_id]
            expected, may_be = faults.ends.pop(client_id.encode(), ("not_sent", False))
            holds = {
                "done": executed == (1 if status == 200 else 0),
                "not_sent": executed == 0 and status in (502, 503),
                "unknown": executed <= 1,
            }[told]
            if told == "unknown":
                found_by = headers.get(b"x-seawall-reconcile", b"")
                holds = (
                    holds and found_by == b"GET /api/v3/order?symbol=BTCUSDT&origClientOrderId=" + client_id.encode()
                )
            if told == "unknown" and killed_at[0] > began:
                expected = "unknown"  # its host was killed under it
            if told == "unknown" and expected in ("done", "cut") and monotonic() - asked_at >= DEADLINE:
                expected = "unknown"
                late.append(client_id)
            if expected == "cut":
                expected = "done" if status == 200 and body.endswith(b"}") else "unknown"
            if not holds or told != expected or executed > 1 or (executed and not may_be):
                wrong.append(
                    f"{client_id}: told {told}, expected {expected}, executed {executed}, {status} {body[:80]!r}"
                )
        caller.close()

    async def kill_hosts(exchange: SimulatedExchange) -> None:
        while True:
            await asyncio.sleep(0.5)
            host = chance.randrange(2)
            killed_at[0] = monotonic()
            exchange.kill(host)
            await asyncio.sleep(0.2)
            exchange.open(host)

    async def scenario() -> None:
        route = f"    breaker: {CALM}\n"
        route += f"    retry: {{deadline: {DEADLINE}s, heavy_deadline: {DEADLINE}s,"
        route += " budget_rate: 1000/s, budget_burst: 10000}\n"
        async with binance_house(tmp_path, without=("weight", "raw", "orders"), route=route, weight_limit=10**9) as (
            gateway,
            exchange,
            venue,
        ):
            exchange.script = faults.script
            share = ORDERS // BOTS
            killing = asyncio.ensure_future(kill_hosts(exchange))
            await asyncio.gather(
                *(one_bot(gateway.public_port, range(i * share, (i + 1) * share), venue) for i in range(BOTS))
            )
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
            twice = [key for key, times in venue.accounts.executed.items() if times > 1]
            struck = sum(exchange.struck.values())
            print(
                f"{share * BOTS} orders, {struck} faults of {len(exchange.struck)} kinds, seed {SEED}: {dict(labels)}; "
                f"{len(late)} too late for no fault"
            )
            assert twice == []
            assert wrong == []
            assert venue.bad_signatures == 0
            assert len(exchange.struck) >= 30
            at_most(len(late), 0, "orders not answered in time for no fault")

    run(scenario())


def test_orders_go_to_the_other_host_only_when_nothing_was_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path, without=("orders",)) as (gateway, exchange, venue):
            caller = await RawCaller.open(gateway.public_port)
            exchange.kill(0)
            for number in range(40):
                status, headers, _ = await order(caller, f"o{number}")
                assert (status, headers[b"x-seawall-execution"]) == (200, b"done")
            assert set(venue.accounts.executed.values()) == {1}
            exchange.kill(1)
            status, headers, body = await order(caller, "o99")
            assert (status, headers[b"x-seawall-execution"]) == (503, b"not_sent") or status == 502
            assert headers[b"x-seawall-execution"] == b"not_sent"
            assert b"nothing was sent" in body or b"connect" in body
            caller.close()

    run(scenario())


def test_an_order_of_unknown_outcome_is_one_line_of_the_log_and_says_how_to_find_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with binance_house(tmp_path, without=("orders",)) as (gateway, exchange, _):
            caller = await RawCaller.open(gateway.public_port)
            exchange.script = lambda host, data: Strike("cut", send=0) if b"/order" in data else None
            _, headers, _ = await order(caller, "o7")
            assert headers[b"x-seawall-execution"] == b"unknown"
            caller.close()

    run(scenario())
    told = [
        record
        for record in caplog.records
        if record.name == "seawall" and "may have been executed" in record.getMessage()
    ]
    told += [record for record in caplog.records if "outcome_unknown" in record.getMessage()]
    assert len(told) == 1
    assert "origClientOrderId=o7" in str(vars(told[0]))

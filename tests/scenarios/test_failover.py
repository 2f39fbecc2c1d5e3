"""One provider fails, in every way the issue of failover is made of: no read is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.drill.faults import Fault
from gateway.drill.provider import SimulatedProvider
from tests.pace import PATIENCE, at_most
from tests.scenarios.caller import Caller, Told, ask, many
from tests.scenarios.house import house, run

READS = 2000
ACCOUNT = "0x" + "ab" * 20
LANES = 4
ATTEMPT_TIMEOUT = 0.5
BAD_ANSWERS_AT_MOST = 5
ON_THEIR_WAY = LANES - 1  # calls that had been handed to it when the last of those came

FAULTS = [
    Fault.REFUSE,
    Fault.HANG_BEFORE_HEAD,
    Fault.RESET_AFTER_READING,
    Fault.STATUS_503,
    Fault.STATUS_429,
    Fault.HTML_200,
    Fault.CLOSE_MID_BODY,
    Fault.TRUNCATED_JSON,
    Fault.RPC_INTERNAL,
    Fault.WRONG_ID,
    Fault.EXTRA_BYTES,
    Fault.SLOW_DRIP,
]


BALANCE = ["0x" + "ab" * 20, "latest"]


def asked_of(provider: SimulatedProvider) -> int:
    """The reads of callers that reached a provider; probes, which come as time passes, ask for other accounts."""
    account = BALANCE[0].encode()
    return sum(request.method == "eth_getBalance" and account in request.params for request in provider.requests)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
def test_no_read_is_lost_while_one_provider_fails(fault: Fault, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            healthy = await many(home.port, "/local", 500, LANES, "eth_getBalance", *BALANCE)
            assert not healthy.lost
            home.providers[0].script.set(fault)
            before = asked_of(home.providers[0])
            told = await many(home.port, "/local", READS, LANES, "eth_getBalance", *BALANCE)
            fired = home.providers[0].script.fired[fault]
            reached = asked_of(home.providers[0]) - before
            # the first few pay one attempt timeout each; nobody pays twice
            assert told.lost == []
            assert fired > 0, "the fault never struck"
            assert reached <= BAD_ANSWERS_AT_MOST + ON_THEIR_WAY
            confirmed = await home.until(lambda: home.state("p0")["reasons"])  # by the prober: calls began to show it
            print(
                f"{fault.value}: 0 of {READS} lost, {reached} bad answers, struck {fired} times, "
                f"p99 {told.quantile(0.99) * 1e3:.1f} ms (healthy {healthy.quantile(0.99) * 1e3:.1f} ms), "
                f"slowest {told.quantile(1.0) * 1e3:.0f} ms, confirmed after {confirmed:.2f} s"
            )
            at_most(told.quantile(0.99), 2 * healthy.quantile(0.99) + ATTEMPT_TIMEOUT, "seconds of the 99th percentile")
            at_most(told.quantile(1.0), 2 * ATTEMPT_TIMEOUT + 0.5, "seconds of the slowest answer")
            at_most(confirmed, 3.0, "seconds until the prober confirms it")

    run(scenario())


def test_with_all_three_down_the_caller_gets_a_clear_error_within_the_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, deadline="2s") as home:
            for provider in home.providers:
                provider.script.set(Fault.REFUSE)
            caller, slowest = Caller(home.port, "/local"), 0.0
            for _ in range(20):
                told = await caller.call("eth_blockNumber")
                slowest = max(slowest, told.took)
                assert told.status == 200
                error = told.body["error"]
                assert error["data"]["reason"] in ("attempts_failed", "no_endpoint")
                assert "127.0.0.1" not in str(told.body)
            await caller.close()
            at_most(slowest, 2.0, "seconds of the slowest error")

    run(scenario())


def test_with_all_three_hanging_the_caller_gets_its_error_at_the_deadline(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, deadline="1s", attempt_timeout="400ms") as home:
            for provider in home.providers:
                provider.script.set(Fault.HANG_BEFORE_HEAD)
            caller = Caller(home.port, "/local")
            told = await caller.call("eth_blockNumber")
            assert told.body["error"]["data"]["reason"] in ("deadline_passed", "attempts_failed")
            await caller.close()
            at_most(told.took, 1.3, "seconds until the error")

    run(scenario())


@pytest.mark.parametrize("method", ["eth_blockNumber", "eth_sendRawTransaction"])
def test_with_one_back_service_returns_within_two_seconds(method: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, deadline="2s") as home:
            caller = Caller(home.port, "/local")
            params = ["0x02" + "ab" * 60] if method == "eth_sendRawTransaction" else []
            for provider in home.providers:
                provider.script.set(Fault.REFUSE)
            for _ in range(30):  # every breaker opens, several times over
                assert "error" in (await caller.call(method, *params)).body
            await asyncio.sleep(0)
            home.providers[1].script.clear()
            loop = asyncio.get_running_loop()
            began = loop.time()
            while "error" in (told := await caller.call(method, *params)).body:
                assert loop.time() - began < PATIENCE, told.body
                await asyncio.sleep(0.02)
            took = loop.time() - began
            print(f"{method}: service back after {took:.2f} s")
            await caller.close()
            at_most(took, 2.0, "seconds until service is back")

    run(scenario())


def test_a_domain_that_fails_member_by_member_costs_the_still_green_one_call(tmp_path: Path) -> None:
    """Six providers in three clouds; the figures over many runs are in tests/policy/test_domains.py."""

    async def scenario() -> None:
        async with house(tmp_path, count=6, clouds=3) as home:
            first, second = home.providers[0], home.providers[3]  # of one cloud
            told: list[Told] = []
            over = False

            async def traffic() -> None:
                while not over:
                    told.extend((await many(home.port, "/local", 40, LANES, "eth_getCode", ACCOUNT, "latest")).told)
                    await asyncio.sleep(0.02)

            calls = asyncio.ensure_future(traffic())
            try:
                await asyncio.sleep(0.5)
                first.script.set(Fault.STATUS_503)
                await home.until(lambda: home.state("p0")["reasons"])
                await asyncio.sleep(2.5)
                before = second.calls["eth_getCode"]
                second.script.set(Fault.STATUS_503)
                took = await home.until(
                    lambda: any(v["kind"] == "domain" for v in home.gateway.status()["routes"][0]["verdicts"])
                )
            finally:
                over = True
                await calls
            met = second.calls["eth_getCode"] - before
            lost = [t for t in told if "result" not in t.body]
            print(f"{len(told)} calls, {len(lost)} lost; {met} met the second one dead; decided after {took:.1f} s")
            assert not lost
            assert met <= 1 + ON_THEIR_WAY
            assert took <= 5.0

    run(scenario())


def test_one_that_comes_back_behind_the_others_gets_no_head_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, block_time=1.0) as home:
            back = home.providers[0]
            await many(home.port, "/local", 100, LANES)
            back.script.set(Fault.STATUS_503)
            await home.until(lambda: home.state("p0")["reasons"])
            await many(home.port, "/local", 100, LANES, "eth_getBalance", ACCOUNT, "latest")
            back.script.clear()
            back.script.set(Fault.LAGGING, amount=30)
            was = back.calls["eth_getBalance"]
            told = []
            for _ in range(60):
                told += (await many(home.port, "/local", 20, LANES, "eth_getBalance", ACCOUNT, "latest")).told
                await asyncio.sleep(0.05)
            breakers = {name: row["breaker"] for name, row in home.state("p0")["families"].items()}
            assert "closed" in breakers.values(), "it never came back"
            assert "p0" not in {t.headers["x-seawall-endpoint"] for t in told}
            print(
                f"{len(told)} head reads, none by the one that is behind; {back.calls['eth_getBalance'] - was} probes"
            )

    run(scenario())


def test_an_endpoint_that_throttles_is_left_alone_until_its_retry_after(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            home.providers[0].script.set(Fault.STATUS_429, amount=60)
            await many(home.port, "/local", 100, LANES)
            seen = home.providers[0].calls.total()
            assert home.state("p0")["reasons"][0]["reason"] == "held"
            await many(home.port, "/local", 300, LANES)
            assert home.providers[0].calls.total() == seen

    run(scenario())


def test_a_call_goes_to_another_failure_domain_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, count=4) as home:
            told = await ask(home.port, "/local", Caller.call, "eth_blockNumber")
            assert told.headers["x-seawall-attempts"] == "1"
            home.providers[0].script.set(Fault.STATUS_503)
            answers = await many(home.port, "/local", 50, 1)
            assert answers.lost == []
            assert {t.headers["x-seawall-attempts"] for t in answers.told} <= {"1", "2"}

    run(scenario())

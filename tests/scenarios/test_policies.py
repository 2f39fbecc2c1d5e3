"""Policies that a configuration asks for: hedging, consensus, budgets, standby, splitting, as callers meet them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from gateway.clock import monotonic
from gateway.drill.faults import Fault
from tests.pace import at_least, at_most
from tests.scenarios.caller import Caller, many
from tests.scenarios.house import house, run

ACCOUNT = "0x" + "ab" * 20


# --- hedging ------------------------------------------------------------------------------------------


def test_a_read_that_takes_long_gets_a_second_leg_and_callers_do_not_wait(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, attempt_timeout="2s") as home:
            await many(home.port, "/local", 600, 4)
            stats = home.gateway.routes[0].stats
            before = stats.hedges
            for provider in home.providers:
                provider.script.set(Fault.SLOW, amount=1.0, chance=0.02)
            calls = 1500
            tally = await many(home.port, "/local", calls, 8)
            slow = sum(provider.script.fired[Fault.SLOW] for provider in home.providers)
            hedges = stats.hedges - before
            print(
                f"{calls} reads, {slow} met a second of delay: {hedges} second legs, {stats.hedges_won} of them first, "
                f"p99 {tally.quantile(0.99) * 1e3:.0f} ms, slowest {tally.quantile(1.0) * 1e3:.0f} ms"
            )
            assert not tally.lost
            assert slow > 0
            assert hedges <= 0.05 * (calls + 600) + 10
            at_most(tally.quantile(0.99), 0.5, "seconds of the 99th percentile; both legs may be slow once in a while")

    run(scenario())


def test_a_nonce_is_never_hedged_because_a_lagging_node_would_win(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, attempt_timeout="2s") as home:
            await many(home.port, "/local", 300, 4, "eth_getTransactionCount", ACCOUNT, "latest")
            home.providers[0].script.set(Fault.SLOW, amount=0.3, chance=0.2)
            tally = await many(home.port, "/local", 200, 4, "eth_getTransactionCount", ACCOUNT, "latest")
            assert not tally.lost
            assert home.gateway.routes[0].stats.hedges == 0

    run(scenario())


def test_a_fast_nothing_does_not_beat_a_slow_receipt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, attempt_timeout="2s") as home:
            tx_hash = home.chain.transaction_hashes(home.chain.head(monotonic()) - 3)[0]
            await many(home.port, "/local", 300, 4, "eth_getTransactionReceipt", tx_hash)
            home.providers[0].script.set(Fault.EMPTY_LOGS)
            home.providers[1].script.set(Fault.SLOW, amount=0.3)
            home.providers[2].script.set(Fault.SLOW, amount=0.3)
            caller = Caller(home.port, "/local")
            for _ in range(20):
                told = await caller.call("eth_getTransactionReceipt", tx_hash)
                assert told.body["result"]["transactionHash"] == tx_hash
            await caller.close()

    run(scenario())


# --- consensus ----------------------------------------------------------------------------------------

CONSENSUS = "    consensus: {eth_getBalance: {n: 3, agree: 2, distinct: [cloud]}}\n"


def test_a_method_under_consensus_is_answered_by_the_majority(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, route_extra=CONSENSUS) as home:
            home.providers[0].script.set(Fault.LYING)
            number = home.chain.head(monotonic()) - 50
            tally = await many(home.port, "/local", 200, 4, "eth_getBalance", ACCOUNT, hex(number))
            assert {t.body.get("result") for t in tally.told} == {hex(home.chain.balance(ACCOUNT, number))}
            latest = await many(home.port, "/local", 50, 4, "eth_getBalance", ACCOUNT, "latest")
            assert not latest.lost, "the newest block is pinned, or honest endpoints would differ"

    run(scenario())


def test_without_a_majority_the_answer_is_an_error_with_the_evidence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, count=2, route_extra=CONSENSUS.replace("n: 3", "n: 2")) as home:
            home.providers[0].script.set(Fault.LYING)
            number = hex(home.chain.head(monotonic()) - 50)
            tally = await many(home.port, "/local", 20, 2, "eth_getBalance", ACCOUNT, number)
            errors = [t.body["error"] for t in tally.told]
            assert {error["data"]["reason"] for error in errors} == {"disagreement"}
            assert all("p0 said" in error["message"] and "p1 said" in error["message"] for error in errors)
            print(errors[0]["message"])

    run(scenario())


# --- budgets ------------------------------------------------------------------------------------------


def test_a_provider_is_not_asked_beyond_its_rate(tmp_path: Path) -> None:
    async def scenario() -> None:
        extra = ", budget: {rate: 50/s, burst: 20}"
        async with house(tmp_path, count=1, endpoint_extra=extra) as home:
            began = monotonic()
            tally = await many(home.port, "/local", 200, 8)
            span = monotonic() - began
            rate = home.providers[0].calls["eth_blockNumber"] / span
            print(f"{rate:.0f} calls a second of 50 allowed, {len(tally.lost)} of 200 sent away")
            assert home.providers[0].calls["eth_blockNumber"] <= 50 * span + 20 + 2
            at_least(rate, 40, "calls a second")

    run(scenario())


def test_a_daily_allowance_ends_and_the_next_provider_takes_over(tmp_path: Path) -> None:
    async def scenario() -> None:
        # nothing is asked twice, however slow this machine is: each question costs a hundredth of the day
        calm = {"attempt_timeout": "30s", "deadline": "60s", "route_extra": "    hedging: {enabled: false}\n"}
        async with house(tmp_path, count=2, endpoint_extra=", budget: {per_day: 100}", **calm) as home:
            calls = 200 - sum(p.calls.total() for p in home.providers)  # our own questions cost as much
            tally = await many(home.port, "/local", calls - 20, 4)  # and a few more come meanwhile
            assert not tally.lost
            await many(home.port, "/local", 40, 4)
            assert all(98 <= p.calls.total() <= 102 for p in home.providers), [p.calls for p in home.providers]
            told = await many(home.port, "/local", 1, 1)
            error = told.told[0].body["error"]
            assert error["data"]["reason"] == "no_endpoint"
            assert "no_budget" in error["message"]
            assert float(told.told[0].headers["retry-after"]) > 1

    run(scenario())


# --- standby ------------------------------------------------------------------------------------------


def test_a_standby_costs_one_question_until_it_is_needed_and_serves_then(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, count=3, standby=(2,), block_time=0.5, attempt_timeout="5s") as home:
            await many(home.port, "/local", 500, 4)
            await asyncio.sleep(2.5)
            cold = home.providers[2]
            assert cold.calls.total() == cold.calls["eth_chainId"] == 1
            for number in (0, 1):
                home.providers[number].script.set(Fault.REFUSE)
            tally = await many(home.port, "/local", 500, 4)
            assert not tally.lost
            assert {t.headers["x-seawall-endpoint"] for t in tally.told[-100:]} == {"p2"}
            await home.until(lambda: home.state("p2")["head"] is not None)
            for number in (0, 1):
                home.providers[number].script.clear()
            await home.until(lambda: not home.state("p0")["reasons"] and not home.state("p1")["reasons"])
            tally = await many(home.port, "/local", 200, 4)
            assert "p2" not in {t.headers["x-seawall-endpoint"] for t in tally.told}

    run(scenario())


# --- old blocks ---------------------------------------------------------------------------------------


def test_an_archive_that_once_missed_old_state_is_known_to_have_it_again_with_its_first_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, count=1) as home:
            node = home.providers[0]
            old = hex(home.chain.head(monotonic()) - 900)
            async with Caller(home.port, "/local") as caller:
                node.script.set(Fault.PRUNED, amount=128)
                assert "error" in (await caller.call("eth_getBalance", ACCOUNT, old)).body
                assert home.state("p0")["families"]["state"]["lowest_block"] > int(old, 16)
                node.script.clear()
                first = await caller.call("eth_getBalance", ACCOUNT, old)
                second = await caller.call("eth_getBalance", ACCOUNT, old)
            assert "result" in first.body
            assert first.headers["x-seawall-degraded"] == "last_resort"
            assert "x-seawall-degraded" not in second.headers, "it is asked as if it had no old state, for an hour"
            assert home.state("p0")["families"]["state"]["lowest_block"] <= int(old, 16)

    run(scenario())


# --- splitting ----------------------------------------------------------------------------------------


def test_a_log_query_that_is_too_large_for_everybody_is_asked_in_parts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, attempt_timeout="5s") as home:
            for provider in home.providers:
                provider.max_log_range = 100
            last = home.chain.head(monotonic()) - 20
            query = {"fromBlock": hex(last - 549), "toBlock": hex(last)}
            caller = Caller(home.port, "/local")
            for turn in range(3):
                before = sum(p.calls["eth_getLogs"] for p in home.providers)
                told = await caller.call("eth_getLogs", query)
                asked = sum(p.calls["eth_getLogs"] for p in home.providers) - before
                assert told.body["result"] == home.chain.logs(last - 549, last)
                print(f"turn {turn}: {asked} queries for 550 blocks, 100 at most")
            assert asked == 6, "the limit was not remembered"
            assert home.state("p0")["max_range"] == 100
            await caller.close()

    run(scenario())


def test_a_log_query_that_goes_on_to_the_newest_block_is_asked_in_parts_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, block_time=60.0) as home:
            for provider in home.providers:
                provider.max_log_range = 100
            head = home.chain.head(monotonic())
            async with Caller(home.port, "/local") as caller:
                for end in ({"toBlock": "latest"}, {}):
                    told = await caller.call("eth_getLogs", {"fromBlock": hex(head - 250), **end})
                    assert told.body.get("result") == home.chain.logs(head - 250, head)

    run(scenario())


def test_a_query_that_finds_too_much_is_cut_and_says_nothing_of_those_that_find_little(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            last = home.chain.head(monotonic()) - 20
            dense = home.chain.logs(last - 199, last)
            for provider in home.providers:
                provider.max_log_results = len(dense) // 3
            async with Caller(home.port, "/local") as caller:
                told = await caller.call("eth_getLogs", {"fromBlock": hex(last - 199), "toBlock": hex(last)})
                assert told.body.get("result") == dense
                before = sum(p.calls["eth_getLogs"] for p in home.providers)
                sparse = {"fromBlock": hex(last - 799), "toBlock": hex(last), "address": ACCOUNT}
                told = await caller.call("eth_getLogs", sparse)
                assert told.body.get("result") == []
                assert "x-seawall-degraded" not in told.headers
                assert sum(p.calls["eth_getLogs"] for p in home.providers) == before + 1
            assert home.state("p0")["max_range"] is None

    run(scenario())


def test_one_part_that_fails_fails_the_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, deadline="1s", attempt_timeout="300ms") as home:
            for provider in home.providers:
                provider.max_log_range = 100
                provider.script.set(Fault.STATUS_503, methods=["eth_getLogs"], first=8)
            last = home.chain.head(monotonic()) - 20
            ends: Counter[str] = Counter()
            caller = Caller(home.port, "/local")
            for _ in range(6):
                told = await caller.call("eth_getLogs", {"fromBlock": hex(last - 549), "toBlock": hex(last)})
                right = told.body.get("result") == home.chain.logs(last - 549, last)
                ends["right" if right else "error" if "error" in told.body else "wrong"] += 1
            await caller.close()
            assert ends["wrong"] == 0
            assert ends["error"] > 0

    run(scenario())

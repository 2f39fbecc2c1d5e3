"""What becomes of calls, and what they cost: hedges, votes, audits, queues and budgets around one dispatcher."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.errors import CallerLeft, ConnectFailed, ConnectionLost
from gateway.model import Family, Sent
from gateway.policy.admission import AdmissionSettings
from gateway.policy.agreement import AuditSettings, ConsensusSettings
from gateway.policy.concurrency import ConcurrencySettings
from gateway.policy.hedging import HedgeSettings
from gateway.policy.quota import QuotaSettings
from gateway.policy.retry import RetrySettings
from gateway.upstream.fleet.permits import PoolSettings
from gateway.upstream.health.polling import Poller
from tests.upstream.calls.stage import Says, Stage, endpoint
from tests.virtual import here, run

QUIET = PoolSettings(audit=AuditSettings(share=0.0))
UNHEDGED = PoolSettings(audit=AuditSettings(share=0.0), hedging=HedgeSettings(enabled=False))
HASH = "0x" + "ab" * 32
ACCOUNT = "0x" + "cd" * 20
RAW = "0x02" + "ef" * 80
BALANCE = ("eth_getBalance", ACCOUNT, "0x10")
RECEIPT = ("eth_getTransactionReceipt", HASH)


# --- hedging ------------------------------------------------------------------------------------------


def slow_at(stage: Stage, position: int, takes: float = 2.0, **facts: Any) -> None:
    stage.engines[position].behaves = lambda method, params: Says(takes=takes, **facts)


async def hedged_once(stage: Stage) -> tuple[int, int]:
    """Calls that all go to endpoint 0 first, and are slow there; second legs and answers of theirs."""
    await stage.know_latencies(*BALANCE)
    slow_at(stage, 0)
    before = stage.route.stats.hedges, stage.route.stats.hedges_won
    for _ in range(8):
        await stage.call(*BALANCE)
        await asyncio.sleep(1.0)
    return stage.route.stats.hedges - before[0], stage.route.stats.hedges_won - before[1]


def test_a_second_leg_is_not_launched_and_costs_nothing_where_a_budget_is_down_to_what_callers_need() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), endpoint(1, tier=1), settings=QUIET, quota=QuotaSettings(per_day=400, reserve=0.5))
        stage.budgets["e1"].charge(0, here().time())
        for _ in range(250):
            assert stage.budgets["e1"].take(1, here().time())
        left = stage.budgets["e1"].left(here().time())
        assert await hedged_once(stage) == (0, 0)
        assert stage.engines[1].asked == []
        assert stage.budgets["e1"].left(here().time()) == left

    run(story())


def test_a_second_leg_goes_to_whoever_stands_elsewhere_even_if_the_next_in_line_does_not() -> None:
    async def story() -> None:
        same, other = (("cloud", "aws"), ("client", "geth/1.14")), (("cloud", "gcp"), ("client", "geth/1.14"))
        stage = Stage(
            endpoint(0, domains=same),
            endpoint(1, tier=1, domains=same),
            endpoint(2, tier=2, domains=other),
            settings=QUIET,
        )
        launched, won = await hedged_once(stage)
        assert launched == won > 0
        assert stage.engines[1].asked == []

    run(story())


def test_a_second_leg_under_way_serves_a_call_that_the_retry_budget_cannot_help() -> None:
    async def story() -> None:
        retry = RetrySettings(budget_share=0.0, budget_rate=0.0, budget_burst=1.0)
        stage = Stage(
            endpoint(0), endpoint(1, tier=1), settings=PoolSettings(retry=retry, audit=AuditSettings(share=0.0))
        )
        await stage.know_latencies(*BALANCE)
        assert stage.pool.retry_budget.take(1.0, here().time())
        stage.engines[1].behaves = lambda method, params: Says("0x2", takes=1.0)
        slow_at(stage, 0, 0.5, raises=ConnectionLost("gone", sent=Sent.SENT))
        answer = await stage.call(*BALANCE)
        assert answer.result == b'"0x2"', answer.error

    run(story())


def test_a_second_leg_that_takes_the_place_of_a_retry_is_paid_for_once() -> None:
    async def story() -> None:
        retry = RetrySettings(budget_share=0.0, budget_rate=0.0, budget_burst=5.0)
        stage = Stage(
            endpoint(0), endpoint(1, tier=1), settings=PoolSettings(retry=retry, audit=AuditSettings(share=0.0))
        )
        await stage.know_latencies(*BALANCE)
        stage.engines[1].behaves = lambda method, params: Says("0x2", takes=1.0)
        slow_at(stage, 0, 0.5, raises=ConnectionLost("gone", sent=Sent.SENT))
        assert (await stage.call(*BALANCE)).result == b'"0x2"'
        assert stage.pool.retry_budget.tokens == 5.0

    run(story())


# --- the queue ----------------------------------------------------------------------------------------


def test_a_transaction_that_waits_is_not_sent_away_while_its_deadline_lasts_and_a_read_is() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0, max_concurrency=1), settings=UNHEDGED)
        stage.all_say(lambda method, params: Says("0x" + "11" * 32, takes=3.0))
        first = asyncio.ensure_future(stage.call(*BALANCE))
        await asyncio.sleep(0.1)
        send, read = await asyncio.gather(stage.call("eth_sendRawTransaction", RAW), stage.call(*BALANCE))
        assert send.error is None and send.execution == "done"
        assert read.error is not None and read.error.reason == "overloaded"
        await first

    run(story())


def test_a_transaction_whose_deadline_passes_in_the_queue_was_not_sent_and_says_so() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0, max_concurrency=1), settings=UNHEDGED)
        stage.all_say(lambda method, params: Says(takes=5.0))
        first = asyncio.ensure_future(stage.call(*BALANCE))
        await asyncio.sleep(0.1)
        send = await stage.call("eth_sendRawTransaction", RAW, within=2.0)
        assert (send.execution, stage.engines[0].asked) == ("not_sent", ["eth_getBalance"])
        await first

    run(story())


def test_who_leaves_the_queue_at_the_moment_of_its_turn_costs_the_provider_nothing() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0, max_concurrency=1), settings=UNHEDGED, quota=QuotaSettings(per_day=10))
        stage.all_say(lambda method, params: Says(takes=0.5))
        answered_at = here().time() + 0.5
        first = asyncio.ensure_future(stage.call(*BALANCE))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(stage.call(*BALANCE))
        # After the turn of the loop in which the first gives its slot back, before the one in which the second has it.
        here().call_at(answered_at + 1e-10, lambda: here().call_soon(second.cancel))
        await asyncio.wait([first, second])
        assert second.cancelled()
        assert stage.engines[0].asked == ["eth_getBalance"]
        assert stage.budgets["e0"].snapshot(here().time())["used_this_day"] == 1
        assert stage.pool.states[0].in_flight == 0

    run(story())


def test_a_doubtful_transaction_is_few_questions_to_endpoints_that_are_all_down() -> None:
    async def story() -> None:
        stage = Stage(*(endpoint(i) for i in range(3)), settings=UNHEDGED)
        stage.all_say(lambda method, params: Says(raises=ConnectionLost("gone", sent=Sent.SENT)))
        answer = await stage.call("eth_sendRawTransaction", RAW)
        assert answer.execution == "unknown"
        looked_up = sum(engine.asked.count("eth_getTransactionByHash") for engine in stage.engines)
        assert 3 <= looked_up <= 12

    run(story())


def test_a_doubtful_transaction_is_asked_for_often_while_nodes_answer_that_they_do_not_have_it_yet() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), endpoint(1), settings=UNHEDGED)
        began = here().time()

        def behaves(method: str, params: list[Any]) -> Says:
            if method == "eth_sendRawTransaction":
                return Says(raises=ConnectionLost("gone", sent=Sent.SENT))
            return Says({"hash": params[0]} if here().time() - began > 1.0 else None)

        stage.all_say(behaves)
        answer = await stage.call("eth_sendRawTransaction", RAW)
        assert answer.execution == "done", answer.error
        assert here().time() - began < 1.5

    run(story())


# --- callers who leave --------------------------------------------------------------------------------


def test_nothing_new_starts_for_a_caller_who_has_left_and_the_fault_is_nobodys() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), endpoint(1), settings=UNHEDGED)
        stage.all_say(lambda method, params: Says(raises=ConnectionLost("gone", sent=Sent.SENT)))
        answer = await stage.call(*BALANCE, gone=True)
        assert isinstance(answer.error, CallerLeft)
        assert [record.ended for record in answer.records] == ["connection_lost"]
        assert sum(len(engine.asked) for engine in stage.engines) == 1

    run(story())


def test_a_transaction_whose_caller_has_left_is_as_doubtful_as_it_is() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), endpoint(1), settings=UNHEDGED)
        for failure, execution in (
            (ConnectionLost("gone", sent=Sent.SENT), "unknown"),
            (ConnectFailed("refused"), "not_sent"),
        ):
            stage.all_say(lambda method, params, failure=failure: Says(raises=failure))  # type: ignore[misc]
            answer = await stage.call("eth_sendRawTransaction", RAW, gone=True)
            assert isinstance(answer.error, CallerLeft)
            assert answer.execution == execution

    run(story())


# --- budgets ------------------------------------------------------------------------------------------


def test_a_connection_that_was_never_made_costs_nothing_of_an_allowance() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), settings=UNHEDGED, quota=QuotaSettings(per_day=10, rate=5))
        stage.all_say(lambda method, params: Says(raises=ConnectFailed("refused")))
        assert (await stage.call(*BALANCE)).error is not None
        shown = stage.budgets["e0"].snapshot(here().time())
        assert (shown["used_this_day"], shown["left"]) == (0, 1.0)

    run(story())


def test_an_answer_that_never_came_was_asked_for_all_the_same() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), settings=UNHEDGED, quota=QuotaSettings(per_day=10))
        stage.all_say(lambda method, params: Says(raises=ConnectionLost("gone", sent=Sent.SENT)))
        await stage.call(*BALANCE)
        used = stage.budgets["e0"].snapshot(here().time())["used_this_day"]
        assert used == len(stage.engines[0].asked) > 0

    run(story())


def test_one_dear_call_that_a_budget_cannot_pay_for_keeps_no_cheap_ones_waiting() -> None:
    async def story() -> None:
        quota = QuotaSettings(compute=True, rate=10, burst=100)
        stage = Stage(endpoint(0), settings=UNHEDGED, quota=quota)
        assert stage.budgets["e0"].take(75, here().time())
        dear = asyncio.ensure_future(stage.call("debug_traceTransaction", HASH))  # four times what is left
        await asyncio.sleep(0.01)
        began = here().time()
        for _ in range(20):
            assert (await stage.call(*BALANCE)).error is None
        assert here().time() - began < 0.5
        answer = await dear
        assert answer.error is None or answer.error.reason == "overloaded"

    run(story())


def test_a_transaction_is_not_starved_by_cheap_reads_that_take_each_unit_as_it_comes() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), settings=UNHEDGED, quota=QuotaSettings(compute=True, rate=20, burst=20))
        stop = asyncio.Event()

        async def reader() -> None:
            while not stop.is_set():
                await stage.call(*BALANCE)
                await asyncio.sleep(0.001)

        readers = [asyncio.ensure_future(reader()) for _ in range(10)]
        serving = asyncio.ensure_future(served_now_and_then(stage))
        await asyncio.sleep(3.0)
        send = await stage.call("eth_sendRawTransaction", RAW)
        assert send.execution == "done", send.error
        stop.set()
        await asyncio.gather(*readers)
        serving.cancel()

    run(story())


async def served_now_and_then(stage: Stage) -> None:
    """What the prober does: who waits for a budget is looked at ten times a second."""
    assert stage.route.waiting is not None
    while True:
        stage.route.waiting.serve()
        await asyncio.sleep(0.1)


async def polled(stage: Stage, seconds: float) -> None:
    poller = Poller(lambda: [stage.route], here().time)
    task = asyncio.ensure_future(poller.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


HEAD_BLOCK = {"number": "0x10", "hash": HASH, "parentHash": "0x" + "aa" * 32, "timestamp": "0x1"}


def test_our_own_questions_are_paid_for_and_end_with_the_allowance() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), settings=UNHEDGED, quota=QuotaSettings(per_day=20))
        stage.all_say(lambda method, params: Says(HEAD_BLOCK if "Block" in method else "0x1"))
        await polled(stage, 10.0)
        asked = len(stage.engines[0].asked)
        assert stage.budgets["e0"].snapshot(here().time())["used_this_day"] == asked
        await polled(stage, 600.0)
        assert 20 <= len(stage.engines[0].asked) <= 23

    run(story(), at_most=2000)


def test_a_poll_hears_from_headers_that_nothing_is_left_and_nobody_is_sent_there_until_the_reset() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), endpoint(1, tier=1), settings=UNHEDGED)
        empty = [(b"x-ratelimit-limit", b"100"), (b"x-ratelimit-remaining", b"0"), (b"x-ratelimit-reset", b"30")]
        stage.engines[0].behaves = lambda method, params: Says("0x10", headers=empty)
        await polled(stage, 0.04)
        assert stage.budgets["e0"].snapshot(here().time())["free_in"] == pytest.approx(30, abs=0.1)
        await stage.call(*BALANCE)
        assert "eth_getBalance" not in stage.engines[0].asked
        await asyncio.sleep(31)
        await stage.call(*BALANCE)
        assert "eth_getBalance" in stage.engines[0].asked

    run(story())


def test_headers_that_are_not_kept_to_silence_nobody() -> None:
    """It answers what was asked after its limit was said to be used up: so that limit is not one."""

    async def story() -> None:
        stage = Stage(endpoint(0), settings=UNHEDGED)
        empty = [(b"x-ratelimit-limit", b"100"), (b"x-ratelimit-remaining", b"0"), (b"x-ratelimit-reset", b"3600")]
        stage.engines[0].behaves = lambda method, params: Says("0x10", headers=empty)
        await polled(stage, 30.0)
        assert (await stage.call(*BALANCE)).error is None

    run(story())


def test_a_refusal_as_too_many_lowers_how_many_are_asked_at_once_there() -> None:
    async def story() -> None:
        settings = PoolSettings(
            audit=AuditSettings(share=0.0),
            hedging=HedgeSettings(enabled=False),
            concurrency=ConcurrencySettings(at_least=2),
            admission=AdmissionSettings(queue=0),
        )
        stage = Stage(endpoint(0, max_concurrency=100), settings=settings)
        refused = {"code": -32005, "message": "too many requests"}
        stage.all_say(lambda method, params: Says(error=refused, takes=0.5))
        await asyncio.gather(*(stage.call(*BALANCE) for _ in range(20)))
        assert stage.pool.states[0].cell(Family.STATE).limit.limit <= 18

    run(story())


def test_a_call_that_everybody_refused_as_too_many_is_told_when_the_first_of_them_may_be_asked_again() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), endpoint(1), settings=UNHEDGED)
        for engine, seconds in zip(stage.engines, (b"30", b"7"), strict=True):
            said = Says(error={"code": 429, "message": "no"}, status=429, headers=[(b"retry-after", seconds)])
            engine.behaves = lambda method, params, said=said: said
        for _ in range(2):  # refused by them, and then not even sent
            answer = await stage.call(*BALANCE)
            assert answer.error is not None and answer.error.retry_after == pytest.approx(7.0, abs=0.1)
        assert [len(engine.asked) for engine in stage.engines] == [1, 1]

    run(story())


# --- consensus ----------------------------------------------------------------------------------------


def test_a_vote_is_paid_for_and_nobody_votes_beyond_its_budget() -> None:
    async def story() -> None:
        stage = Stage(
            *(endpoint(i) for i in range(3)),
            settings=UNHEDGED,
            quota=QuotaSettings(per_day=5),
            consensus={"eth_getBalance": ConsensusSettings(n=3, agree=2)},
        )
        answers = [await stage.call(*BALANCE) for _ in range(8)]
        assert [answer.error is None for answer in answers] == [True] * 5 + [False] * 3
        assert [len(engine.asked) for engine in stage.engines] == [5, 5, 5]
        late = answers[-1].error
        assert late is not None and late.retry_after is not None and late.retry_after > 60, "the day's end"

    run(story())


def test_a_ballot_that_cannot_be_held_costs_nobody_anything() -> None:
    async def story() -> None:
        stage = Stage(
            *(endpoint(i) for i in range(3)),
            settings=UNHEDGED,
            quota=QuotaSettings(per_day=5),
            consensus={"eth_getBalance": ConsensusSettings(n=3, agree=3)},
        )
        for _ in range(5):
            assert stage.budgets["e2"].take(1, here().time())
        assert (await stage.call(*BALANCE)).error is not None
        shown = [stage.budgets[f"e{i}"].snapshot(here().time())["used_this_day"] for i in (0, 1)]
        assert (shown, [engine.asked for engine in stage.engines]) == ([0, 0], [[], [], []])

    run(story())


@pytest.mark.parametrize(("awake", "asked"), [(2, 0), (1, 1)])
def test_a_standby_votes_only_where_too_few_others_are_left(awake: int, asked: int) -> None:
    async def story() -> None:
        endpoints = [endpoint(i) for i in range(awake)] + [endpoint(9, standby=True)]
        stage = Stage(*endpoints, settings=UNHEDGED, consensus={"eth_getBalance": ConsensusSettings(n=3, agree=2)})
        assert (await stage.call(*BALANCE)).error is None
        assert len(stage.engines[-1].asked) == asked

    run(story())


# --- standby ------------------------------------------------------------------------------------------


def test_polling_for_a_receipt_that_is_not_there_yet_wakes_no_standby() -> None:
    async def story() -> None:
        stage = Stage(endpoint(0), endpoint(1, standby=True), settings=UNHEDGED)
        stage.all_say(lambda method, params: Says(None))
        for _ in range(10):
            assert (await stage.call(*RECEIPT)).result == b"null"
        assert stage.engines[1].asked == []
        stage.engines[0].behaves = lambda method, params: Says(raises=ConnectFailed("refused"))
        await stage.call(*RECEIPT)
        assert stage.engines[1].asked, "it is there when it is needed"

    run(story())


# --- audits -------------------------------------------------------------------------------------------

EVERY_READ = PoolSettings(audit=AuditSettings(share=1.0, strikes=1), hedging=HedgeSettings(enabled=False))


def receipt(number: int | None, status: str = "0x1") -> dict[str, Any]:
    block = None if number is None else hex(number)
    return {"transactionHash": HASH, "blockNumber": block, "cumulativeGasUsed": "0x5", "status": status}


async def audited(first: Any, others: Any, method: tuple[Any, ...] = RECEIPT) -> list[str]:
    """Endpoint 0 answers and is audited; who is distrusted in the end."""
    stage = Stage(endpoint(0), endpoint(1, tier=1), endpoint(2, tier=1), settings=EVERY_READ)
    stage.all_say(lambda method, params: Says({**HEAD_BLOCK, "number": "0x1000"} if "Number" in method else "0x1000"))
    await polled(stage, 1.0)
    stage.engines[0].behaves = lambda method, params: Says(first)
    for engine in stage.engines[1:]:
        engine.behaves = lambda method, params: Says(others)
    for _ in range(3):
        await stage.call(*method)
        await asyncio.sleep(0.5)
    await stage.auditor.close()
    return [s.endpoint.id for s in stage.pool.states if here().time() < s.distrusted_until]


@pytest.mark.parametrize(
    ("first", "others", "distrusted"),
    [
        (receipt(0x100, "0x1"), receipt(0x100, "0x0"), ["e0"]),
        (receipt(0x100), receipt(0x100), []),
        (None, receipt(0xFFF), []),  # it was mined a moment ago
        (receipt(0xFFF), None, []),  # the others have yet to hear of it
        (receipt(0xFFF), receipt(0x1000), []),  # the newest blocks are replaced now and then
        (receipt(None), receipt(0xFFF), []),  # it waited in the pool, and does no longer
    ],
)
def test_an_audit_convicts_who_lies_and_not_who_hears_of_things_earlier_or_later(
    first: Any, others: Any, distrusted: list[str]
) -> None:
    assert run(audited(first, others)) == distrusted

"""What may not be repeated reaches one provider at most; what may be is the same bytes, and its fate becomes known."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

import pytest

from gateway.clock import monotonic
from gateway.drill.chain import transaction_hash
from gateway.drill.faults import Fault, Stage
from tests.pace import at_least
from tests.scenarios.caller import Caller, ask
from tests.scenarios.house import House, house, run

SENDS = 10_000
# every fault of connections and answers; those of the chain's view change what a node knows, not what is sent
FAULTS = [fault for fault in Fault if fault.stage in (Stage.ACCEPT, Stage.HEAD, Stage.ANSWER)]
# Last: afterwards nobody is asked for a while, or less often.
LAST = (Fault.STATUS_429, Fault.STATUS_429_RPC, Fault.RPC_RATE_LIMIT, Fault.RPC_METHOD_NOT_FOUND)
FAULTS.sort(key=lambda fault: LAST.index(fault) if fault in LAST else -1)
SLOW = {Fault.HANG_BEFORE_HEAD, Fault.HANG_MID_BODY, Fault.SLOW_DRIP}


@pytest.mark.parametrize("method", ["drill_echo", "eth_sendTransaction"], ids=["unknown class", "signing class"])
def test_no_send_reaches_two_providers_under_any_fault(method: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        extra = "methods: {allow: ['*', eth_sendTransaction]}"
        # breakers as calm as they can be: what is shown is the plan, not that nothing is sent any more
        calm = (
            "    breaker: {consecutive: 100, threshold: 50}\n"
            "    holds: {hold_for: 50ms, hold_at_most: 1s, retry_after_at_most: 1s,"
            " exclude_for: 1s, exclude_at_most: 1s}"
        )
        async with house(
            tmp_path, extra=extra, attempt_timeout="80ms", deadline="400ms", route_extra=calm, idle=1
        ) as home:
            received: Counter[str] = Counter()
            tokens = itertools.count()
            struck: Counter[Fault] = Counter()
            share = SENDS // len(FAULTS) + 1
            for fault in FAULTS:
                before = [p.script.fired[fault] for p in home.providers]
                for provider in home.providers:
                    if fault.stage is Stage.ACCEPT:  # strikes new connections only
                        await provider.refuse()
                        await provider.accept()
                    provider.script.set(fault, chance=_chance(fault))
                await _send_many(home, method, tokens, share)
                _collect(home, received, method)
                for provider in home.providers:
                    provider.script.clear()
                await home.until(lambda: all(not home.state(p.name)["reasons"] for p in home.providers))
                struck[fault] = sum(p.script.fired[fault] - b for p, b in zip(home.providers, before, strict=True))
            twice = [token for token, times in received.items() if times > 1]
            assert twice == []
            assert sum(count > 0 for count in struck.values()) == len(FAULTS), _silent(struck)
            print(f"{method}: {received.total()} of {next(tokens)} sends reached a provider, 0 sent twice")
            print(f"{len(FAULTS)} faults struck {struck.total()} times")
            at_least(received.total(), 0.8 * SENDS, "sends that reached a provider within 80 ms")

    run(scenario())


def _chance(fault: Fault) -> float:
    if fault.stage is Stage.ACCEPT:
        return 0.5
    return 0.05 if fault in SLOW else 0.1


def _silent(struck: Counter[Fault]) -> str:
    return "these faults never struck: " + ", ".join(fault.value for fault in FAULTS if not struck[fault])


def _collect(home: House, received: Counter[str], method: str) -> None:
    """Count each send's token at every provider, whatever became of the answer."""
    for provider in home.providers:
        for request in provider.requests:
            if request.method == method:
                received[bytes(request.params).decode()] += 1
        provider.requests.clear()


async def _send_many(home: House, method: str, tokens: itertools.count[int], count: int) -> None:
    left = iter(range(count))

    async def lane() -> None:
        caller = Caller(home.port, "/local")
        for _ in left:
            told = await caller.call(method, f"token-{next(tokens)}")
            assert told.body is not None
        await caller.close()

    await asyncio.gather(*(lane() for _ in range(16)))


def test_signing_methods_are_denied_by_default(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            caller = Caller(home.port, "/local")
            for method in (
                "eth_sendTransaction",
                "personal_sign",
                "admin_peers",
                "Eth_SendTransaction",
                "debug_setHead",
            ):
                told = await caller.call(method)
                assert told.body["error"]["data"]["reason"] == "method_refused"
            assert all(p.calls["eth_sendTransaction"] == p.calls["other"] == 0 for p in home.providers)
            await caller.close()

    run(scenario())


FATES = [
    Fault.ACCEPT_SEND_THEN_DIE,
    Fault.RESET_AFTER_READING,
    Fault.STATUS_503,
    Fault.TRUNCATED_JSON,
    Fault.CLOSE_MID_BODY,
    Fault.HANG_BEFORE_HEAD,
    Fault.RPC_INTERNAL,
    Fault.WRONG_ID,
]


@pytest.mark.parametrize("fault", FATES, ids=lambda fault: fault.value)
def test_a_transaction_comes_back_with_its_hash_and_is_mined_once_whatever_one_provider_does(
    fault: Fault, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with house(tmp_path, attempt_timeout="200ms", block_time=0.2) as home:
            home.providers[0].script.set(fault, methods=["eth_sendRawTransaction"], chance=0.7)
            caller = Caller(home.port, "/local")
            sent = []
            for number in range(60):
                raw = bytes([2]) + number.to_bytes(4, "big") * 20
                told = await caller.call("eth_sendRawTransaction", "0x" + raw.hex())
                assert told.body.get("result") == transaction_hash(raw), told.body
                assert told.headers["x-seawall-execution"] == "done"
                sent.append(raw)
            await asyncio.sleep(0.09)
            for raw in sent:
                assert home.chain.transaction(transaction_hash(raw), monotonic()) is not None
            assert home.providers[0].script.fired[fault] > 0
            await caller.close()

    run(scenario())


def test_sending_the_same_transaction_twice_gives_the_same_hash_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            caller = Caller(home.port, "/local")
            raw = "0x02" + "cd" * 80
            first = await caller.call("eth_sendRawTransaction", raw)
            for _ in range(5):
                assert (await caller.call("eth_sendRawTransaction", raw)).body["result"] == first.body["result"]
            await caller.close()

    run(scenario())


def test_a_transaction_that_everybody_swallows_is_reported_as_unknown_with_its_hash(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, attempt_timeout="100ms", deadline="1s") as home:
            for provider in home.providers:
                provider.script.set(Fault.RESET_AFTER_READING, methods=["eth_sendRawTransaction"])
            raw = bytes([2]) + b"\x11" * 80
            told = await ask(home.port, "/local", Caller.call, "eth_sendRawTransaction", "0x" + raw.hex())
            error = told.body["error"]
            assert error["data"]["reason"] == "outcome_unknown"
            assert transaction_hash(raw) in error["message"]
            assert told.headers["x-seawall-execution"] == "unknown"

    run(scenario())


def test_an_applications_no_is_delivered_and_counts_for_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            caller = Caller(home.port, "/local")
            for _ in range(20):
                told = await caller.call("eth_sendRawTransaction", "0x")
                assert "error" in told.body
                assert told.headers["x-seawall-attempts"] == "1"
            assert all(home.state(p.name)["reasons"] == [] for p in home.providers)
            await caller.close()

    run(scenario())

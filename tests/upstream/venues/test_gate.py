"""The gate of a venue: whoever waits is called in its turn, or told that it will not be."""

from __future__ import annotations

import asyncio

import pytest

from gateway.policy.turns import Turns
from gateway.policy.weights import Priority, WeightLimit, WeightLimits, WeightSettings
from gateway.upstream.venues.gate import Gate, Limited, Rows
from tests.virtual import here, run

LIMITS = (WeightLimit("weight", 600, 60), WeightLimit("orders", 8, 8, "account"))
NOBODY = ("", "", "")


def a_gate() -> Gate:
    now = here().time
    return Gate(WeightLimits(LIMITS, WeightSettings()), Turns(1000, 100), now)


def orders(account: str, amount: float = 1.0) -> tuple[tuple[str, str, float], ...]:
    return ("weight", "", 1.0), ("orders", account, amount)


async def enter(gate: Gate, account: str, caller: str, patience: float = 30.0) -> float:
    """The instant of its turn."""
    await gate.enter(orders(account), NOBODY, Priority.ORDER, caller, here().time() + patience)
    return here().time()


def test_who_waits_when_the_gate_closes_is_told_and_has_not_gone_through() -> None:
    async def story() -> None:
        gate = a_gate()
        gate.hold(20.0)
        waiting = [asyncio.ensure_future(enter(gate, "a", f"bot {n}")) for n in range(3)]
        await asyncio.sleep(1.0)
        gate.close()
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [Limited] * 3
        assert gate.waiting == 0

    run(story())


def test_a_hold_of_one_account_or_path_lets_others_through_and_ends_by_itself() -> None:
    async def story() -> None:
        gate = a_gate()
        gate.hold(5.0, "held")
        began = here().time()
        waiting = asyncio.ensure_future(
            gate.enter(orders("held"), ("path", "held", "path held"), Priority.ORDER, "one", began + 30.0)
        )
        await asyncio.sleep(0.1)
        assert await enter(gate, "free", "two") - began < 0.2
        assert not gate.open(orders("held"), ("path", "held", "path held"), Priority.ORDER)
        await waiting
        assert here().time() - began == pytest.approx(5.0, abs=0.3)
        gate.close()

    run(story())


def test_those_who_need_the_same_limit_go_in_their_order_and_others_pass_them() -> None:
    """Seven orders of one account in eight seconds; a second caller with the same account does not overtake."""

    async def story() -> None:
        gate = a_gate()
        began = here().time()
        for _ in range(7):
            assert gate.open(orders("a"), NOBODY, Priority.ORDER)
        first = asyncio.ensure_future(enter(gate, "a", "bot 1"))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(enter(gate, "a", "bot 2"))
        await asyncio.sleep(0)
        assert await enter(gate, "b", "bot 3") == began
        assert await first >= began + 8.0
        assert await second >= await first
        assert gate.waiting == 0
        gate.close()

    run(story())


def test_a_limit_of_all_is_not_taken_past_those_who_wait_for_it() -> None:
    """A large request is not starved by small ones that would always fit."""

    async def story() -> None:
        gate = a_gate()
        began = here().time()
        assert gate.open((("weight", "", 500.0),), NOBODY, Priority.ORDER)
        large = asyncio.ensure_future(
            gate.enter((("weight", "", 300.0),), NOBODY, Priority.ORDER, "large", began + 100.0)
        )
        await asyncio.sleep(0)
        assert not gate.open((("weight", "", 1.0),), NOBODY, Priority.ORDER)
        small = asyncio.ensure_future(
            gate.enter((("weight", "", 1.0),), NOBODY, Priority.ORDER, "small", began + 100.0)
        )
        await asyncio.sleep(30.0)
        assert not large.done()
        assert not small.done()
        await asyncio.gather(large, small)
        gate.close()

    run(story())


def test_a_gate_with_new_settings_goes_on_where_the_old_one_was() -> None:
    async def story() -> None:
        old, new = a_gate(), a_gate()
        for _ in range(7):
            assert old.open(orders("a"), NOBODY, Priority.ORDER)
        old.hold(50.0, "held")
        old.hold(3.0, banned=True)
        new.take_over(old)
        assert not new.open(orders("b"), NOBODY, Priority.ORDER)
        assert new.banned_until == old.banned_until
        await asyncio.sleep(4.0)
        assert new.open(orders("b"), NOBODY, Priority.ORDER)
        assert not new.open(orders("a"), NOBODY, Priority.ORDER)
        assert not new.open(orders("b"), ("held", "", ""), Priority.ORDER)
        assert old.open(orders("c", 7.0), NOBODY, Priority.ORDER)  # of a call that was under way
        assert not new.open(orders("c"), NOBODY, Priority.ORDER)

    run(story())


def test_a_row_is_served_in_its_order_whoever_leaves_it() -> None:
    async def story() -> None:
        rows = Rows(here().time)
        served: list[int] = []

        async def one(number: int) -> None:
            async with rows.turn("key", here().time() + 100.0):
                served.append(number)
                await asyncio.sleep(1.0)

        tasks = [asyncio.ensure_future(one(number)) for number in range(5)]
        await asyncio.sleep(0.5)
        tasks[2].cancel()
        tasks[0].cancel()  # it is being served
        await asyncio.gather(*tasks, return_exceptions=True)
        assert served == [0, 1, 3, 4]
        with pytest.raises(Limited):
            async with rows.turn("key", here().time() + 100.0), rows.turn("key", here().time() + 1.0):
                raise AssertionError("two at a time")

    run(story())

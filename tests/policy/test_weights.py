"""Weights: no window is ever exceeded, orders find their reserve, and a venue's own count is believed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.weights import NEVER, Priority, WeightLimit, WeightLimits, WeightSettings

SEED = 13
MINUTE = WeightLimit("weight", 600, 60)
SETTINGS = WeightSettings()
ONE = (("weight", "", 1.0),)


def limits(settings: WeightSettings = SETTINGS, *more: WeightLimit) -> WeightLimits:
    return WeightLimits([MINUTE, *more], settings)


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.floats(0.5, 80), st.sampled_from(Priority), st.booleans()),
        min_size=1,
        max_size=300,
    )
)
def test_no_interval_of_a_window_ever_holds_more_than_the_limits_share(
    steps: list[tuple[float, float, Priority, bool]],
) -> None:
    live, now, taken = limits(), 0.0, []
    for pause, amount, priority, back in steps:
        now += pause
        charges = (("weight", "", amount),)
        if live.take(charges, priority, now):
            if back:
                live.returned(charges, now)
            else:
                taken.append((now, amount))
        for begin, _ in taken:
            inside = sum(amount for at, amount in taken if begin <= at < begin + MINUTE.window)
            assert inside <= MINUTE.amount * SETTINGS.share + 1e-6


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.5, 300), st.sampled_from(Priority)), max_size=60))
def test_what_is_said_to_be_free_at_an_instant_is_free_then(steps: list[tuple[float, float, Priority]]) -> None:
    live, now = limits(), 0.0
    for pause, amount, priority in steps:
        now += pause
        charges = (("weight", "", amount),)
        at = live.free_at(charges, priority, now)
        if at == NEVER:
            assert not live.take(charges, priority, now + 1000)
        elif at > now:
            now = at + 0.61  # the counts are in bins of a hundredth of a window
            assert live.take(charges, priority, now)
        else:
            assert live.take(charges, priority, now)


def test_orders_find_their_reserve_whatever_market_data_take() -> None:
    live = limits(WeightSettings(burst=1.0))
    market = account = order = 0
    while live.take(ONE, Priority.LONE, 1.0):
        market += 1
    while live.take(ONE, Priority.ACCOUNT, 1.0):
        account += 1
    while live.take(ONE, Priority.ORDER, 1.0):
        order += 1
    assert (market, market + account, market + account + order) == (484, 513, 570)


def test_market_data_are_spread_over_a_long_window_once_their_burst_is_used() -> None:
    live = limits()
    at_once = sum(live.take(ONE, Priority.MARKET, 0.0) for _ in range(1000))
    later = sum(live.take(ONE, Priority.MARKET, 0.1 * step) for step in range(1, 301))
    assert at_once == round(600 * 0.95 * 0.85 * 0.25)
    assert 200 < later < 250  # half a minute's part, step by step


def test_what_the_venue_has_counted_is_believed_when_it_is_more_and_never_when_it_is_less() -> None:
    live = limits()
    assert live.take((("weight", "", 10.0),), Priority.ORDER, 0.0)
    live.told("weight", "", 3.0, 0.1)
    assert not live.take((("weight", "", 561.0),), Priority.ORDER, 0.2)
    live.told("weight", "", 550.0, 0.3)  # others ask from the same address
    assert not live.take((("weight", "", 21.0),), Priority.ORDER, 0.4)
    assert live.take((("weight", "", 20.0),), Priority.ORDER, 0.5)
    assert live.take((("weight", "", 500.0),), Priority.ORDER, 62.0)


def test_a_hold_stops_everybody_until_it_ends_and_is_never_shortened() -> None:
    live = limits()
    live.hold(10.0)
    live.hold(5.0)
    for priority in Priority:
        assert not live.take(ONE, priority, 9.9)
        assert live.free_at(ONE, priority, 9.0) == 10.0
    assert live.take(ONE, Priority.LONE, 10.0)


def test_all_of_a_request_is_charged_or_nothing() -> None:
    live = limits(SETTINGS, WeightLimit("orders", 10, 10, "account"))
    both = (("weight", "", 1.0), ("orders", "a", 9.0))
    assert live.take(both, Priority.ORDER, 0.0)
    assert not live.take(both, Priority.ORDER, 0.1)
    assert live.take((("weight", "", 569.0),), Priority.ORDER, 0.2)  # the refused one took nothing
    assert live.take((("orders", "b", 9.0),), Priority.ORDER, 0.3)  # another account has its own


def test_a_request_that_is_more_than_a_share_goes_alone() -> None:
    """A limit of one call, or a share set low: never served would be the other choice."""
    live = WeightLimits([WeightLimit("few", 1, 4), WeightLimit("path", 20, 2)], SETTINGS)
    few, heavy, light = (("few", "", 1.0),), (("path", "", 20.0),), (("path", "", 0.5),)
    for charges in (few, heavy):
        assert live.free_at(charges, Priority.LONE, 0.0) == 0.0
        assert live.take(charges, Priority.LONE, 0.0)
        assert not live.take(charges, Priority.ORDER, 0.1)
        again = live.free_at(charges, Priority.LONE, 0.1) + 0.1  # counts are in bins
        assert 2.0 < again < 6.0
        assert live.take(charges, Priority.LONE, again)
    assert not live.take(light, Priority.LONE, again)
    assert live.free_at((("path", "", 20.1),), Priority.ORDER, 0.0) == NEVER


def test_what_waits_for_a_limit_of_its_own_is_told_from_what_waits_for_all() -> None:
    live = limits(SETTINGS, WeightLimit("orders", 10, 10, "account"))
    mine = (("weight", "", 1.0), ("orders", "a", 9.5))
    assert live.take(mine, Priority.ORDER, 0.0)
    assert not live.take(mine, Priority.ORDER, 0.1)
    assert live.waits_alone(mine, Priority.ORDER, 0.1)
    assert live.take((("weight", "", 568.5),), Priority.ORDER, 0.2)
    assert not live.waits_alone(mine, Priority.ORDER, 0.3)
    live.hold(200.0)
    assert not live.waits_alone(mine, Priority.ORDER, 199.0)


def test_how_far_apart_requests_are_that_use_up_a_limit() -> None:
    live = limits(SETTINGS, WeightLimit("calls", 20, 4))
    assert live.spacing((("weight", "", 6.0),)) == pytest.approx(0.61)
    assert live.spacing((("weight", "", 6.0), ("calls", "", 1.0))) == pytest.approx(0.61)
    assert live.spacing((("weight", "", 1.0), ("calls", "", 4.0))) == pytest.approx(1.0)
    assert live.spacing((("unknown", "", 4.0),)) == 0.0


def test_the_slack_of_a_short_window_is_short() -> None:
    live = WeightLimits([WeightLimit("orders", 10, 1)], SETTINGS)
    orders = (("orders", "", 9.5),)
    assert live.take(orders, Priority.ORDER, 0.0)
    assert 1.0 < live.free_at(orders, Priority.ORDER, 0.5) < 1.3


def test_accounts_are_remembered_within_bounds() -> None:
    live = limits(WeightSettings(accounts=100), WeightLimit("orders", 10, 10, "account"))
    for n in range(10_000):
        assert live.take((("orders", f"a{n}", 1.0),), Priority.ORDER, n * 1e-3)
    assert len(live._rules["orders"].windows) <= 100


@pytest.mark.parametrize("offset", [0.0, 13.7, 59.9])
def test_a_venue_with_minutes_of_its_own_never_counts_more_than_its_limit(offset: float) -> None:
    """Fixed windows by another clock, and requests that travel: what the slack is for."""
    chance = random.Random(SEED)
    live, now, arrivals = limits(), 0.0, []
    for _ in range(60_000):
        now += chance.expovariate(100.0)
        amount = chance.choice([1.0, 2.0, 5.0, 20.0])
        if live.take((("weight", "", amount),), chance.choice(list(Priority)), now):
            arrivals.append((now + chance.uniform(0.005, 0.3), amount))
    used: dict[int, float] = {}
    for at, amount in arrivals:
        minute = int((at + offset) // 60)
        used[minute] = used.get(minute, 0.0) + amount
    print(f"{len(arrivals)} of 60000 in {now:.0f} s, at most {max(used.values()):.0f} of 600 a minute; seed {SEED}")
    assert max(used.values()) <= 600

"""A bucket grants what it has and what it earns, never more, and what it says of the future is true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.policy.budget import TokenBucket

RATES = st.just(0.0) | st.floats(0.001, 100)
BURSTS = st.floats(1, 50)
STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20), st.integers(0, 20)), max_size=40)


@given(RATES, BURSTS, st.floats(0, 1), STEPS)
@examples(max_examples=150)
def test_withdrawals_never_exceed_deposits_times_ratio_plus_rate_times_time_plus_burst(
    rate: float, burst: float, ratio: float, steps: list[tuple[float, int, int]]
) -> None:
    """Calls deposit, retries withdraw, at any pace and in any order."""
    bucket = TokenBucket(rate, burst, 0.0)
    now = 0.0
    deposits = withdrawals = 0
    for passed, calls, retries in steps:
        now += passed
        for _ in range(calls):
            bucket.earn(ratio)
        deposits += calls
        withdrawals += sum(bucket.take(1.0, now) for _ in range(retries))
        assert withdrawals <= deposits * ratio + rate * now + burst + 1e-6


@given(RATES, BURSTS, st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=10))
@examples(max_examples=60)
def test_no_more_than_the_burst_is_ever_saved_up(rate: float, burst: float, steps: list[tuple[float, float]]) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now = 0.0
    for passed, gain in steps:
        now += passed
        bucket.earn(gain)
        assert not bucket.take(burst + 0.01, now)
        assert bucket.tokens <= burst


@given(RATES, BURSTS, st.floats(0, 60), st.floats(0.5, 60), st.floats(0, 10))
@examples(max_examples=150)
def test_the_wait_it_names_is_enough_and_nothing_less_is(
    rate: float, burst: float, spent: float, amount: float, now: float
) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    bucket.take(min(spent, burst), 0.0)
    wait = bucket.available_after(amount, now)
    if wait == float("inf"):
        assert rate == 0 or amount > burst
        assert not bucket.take(amount, now + 1e6)
    elif wait > 1e-3:
        assert not bucket.take(amount, now + wait * 0.99)
        assert bucket.take(amount, now + wait)
    else:
        assert bucket.take(amount, now + wait)


def test_a_refused_withdrawal_takes_nothing() -> None:
    bucket = TokenBucket(0.0, 5.0, 0.0)
    assert not bucket.take(6.0, 0.0)
    assert bucket.take(5.0, 0.0)
    assert not bucket.take(1.0, 0.0)


def test_asking_when_takes_nothing() -> None:
    bucket = TokenBucket(0.0, 1.0, 0.0)
    assert [bucket.available_after(1.0, 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_an_instant_that_lies_before_the_last_one_gives_nothing_and_takes_nothing() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    assert bucket.take(5.0, 100.0)
    assert bucket.take(5.0, 50.0)
    assert not bucket.take(1.0, 50.0)
    assert not bucket.take(1.0, 100.0)
    assert bucket.take(1.0, 101.0)


def test_a_budget_of_a_fifth_lets_one_call_in_five_be_repeated_once_its_savings_are_spent() -> None:
    bucket = TokenBucket(0.0, 50.0, 0.0)
    repeated = 0
    for _ in range(10_000):
        bucket.earn(0.2)
        repeated += bucket.take(1.0, 0.0)
    assert 2000 <= repeated <= 2050


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (1, 0), (1, -1)])
def test_a_bucket_without_room_or_with_a_leak_cannot_be_built(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="a bucket needs"):
        TokenBucket(rate, burst, 0.0)

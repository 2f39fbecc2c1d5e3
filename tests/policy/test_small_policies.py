"""Budgets, holds, load and the retry question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Elsewhere, RequestClass, Sent
from gateway.policy.budget import TokenBucket
from gateway.policy.holds import GrowingHold, HoldSettings
from gateway.policy.load import PeakEwma
from gateway.policy.retry import LastAttempt, RetrySettings, Verdict, may_go_elsewhere


@given(
    st.floats(0, 100),
    st.floats(1, 50),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 10), st.floats(0, 1)), max_size=60),
)
def test_a_bucket_never_grants_more_than_its_burst_its_rate_and_what_was_earned(
    rate: float, burst: float, steps: list[tuple[float, float, float]]
) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now = granted = earned = 0.0
    for passed, amount, gain in steps:
        now += passed
        bucket.earn(gain)
        earned += gain
        if bucket.take(amount, now):
            granted += amount
        assert granted <= burst + rate * now + earned + 1e-6


@given(st.floats(0.1, 100), st.floats(1, 50), st.floats(0.5, 50))
def test_the_time_a_bucket_names_is_the_time_it_takes(rate: float, burst: float, amount: float) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    bucket.take(burst, 0.0)
    wait = bucket.available_after(amount, 0.0)
    if amount > burst:
        assert wait == float("inf")
    else:
        assert bucket.take(amount, wait + 1e-6)


def test_a_bucket_without_room_cannot_be_built() -> None:
    for rate, burst in ((-1, 1), (1, 0)):
        with pytest.raises(ValueError):
            TokenBucket(rate, burst, 0.0)


def test_a_hold_doubles_while_its_cause_goes_on_and_forgets_when_it_stays_away() -> None:
    hold = GrowingHold(1.0, 8.0)
    now, lengths = 0.0, []
    for _ in range(5):
        until = hold.extend(now, 0.0)
        lengths.append(until - now)
        now = until
    assert lengths == [1, 2, 4, 8, 8]
    hold.worked(now)
    assert hold.extend(now, 0.0) - now == 1.0


def test_answers_that_were_on_their_way_do_not_make_a_hold_grow() -> None:
    hold = GrowingHold(1.0, 8.0)
    ends = {hold.extend(0.5, 0.0) for _ in range(32)}
    assert ends == {1.5}


def test_a_named_time_is_kept_up_to_its_bound_and_never_shortens_a_hold() -> None:
    hold = GrowingHold(1.0, 8.0)
    assert hold.extend(0.0, 0.5, named=30.0, named_at_most=300.0) == 30.0
    assert hold.extend(1.0, 0.5, named=2.0, named_at_most=300.0) == 30.0
    assert hold.extend(1.0, 0.5, named=1e9, named_at_most=300.0) == 301.0


def test_hold_settings_whose_bound_lies_below_their_start_cannot_be_built() -> None:
    with pytest.raises(ValueError):
        HoldSettings(hold_for=10, hold_at_most=1)


def test_a_slow_answer_is_noticed_at_once_and_forgiven_slowly() -> None:
    load = PeakEwma(0.03, 10.0, 0.0)
    load.observe(0.002, 0.0)
    assert load.estimate == 0.002
    load.observe(0.5, 0.1)
    assert load.estimate == 0.5
    load.observe(0.002, 0.2)
    assert 0.45 < load.estimate < 0.5


def test_calls_in_flight_cost_and_an_estimate_nobody_refreshes_fades() -> None:
    load = PeakEwma(0.03, 10.0, 0.0)
    load.observe(1.0, 0.0)
    idle = load.cost(0.5)
    load.in_flight = 3
    assert load.cost(0.5) == 4 * idle
    assert load.cost(60.0) < 0.02


@pytest.mark.parametrize("request_class", RequestClass)
@pytest.mark.parametrize("sent", Sent)
@pytest.mark.parametrize("elsewhere", Elsewhere)
def test_the_retry_question_has_one_answer_for_every_case(
    request_class: RequestClass, sent: Sent, elsewhere: Elsewhere
) -> None:
    used = 0 if sent is Sent.NOT_SENT else 1
    verdict = may_go_elsewhere(
        request_class, LastAttempt(elsewhere, sent), endpoints_used=used, once_used=False, settings=RetrySettings()
    )
    if elsewhere is Elsewhere.NO:
        assert verdict is Verdict.ANSWERED
    elif sent is Sent.NOT_SENT or request_class.repeatable:
        assert verdict is Verdict.AGAIN
    else:
        assert verdict is Verdict.BYTES_LEFT

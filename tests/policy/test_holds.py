"""A hold always ends, grows while its cause goes on, and is never cut short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.policy.holds import GrowingHold, HoldSettings

CHANCES = st.floats(0, 1, exclude_max=True)
NAMED_AT_MOST = 300.0


def hold() -> GrowingHold:
    return GrowingHold(1.0, 8.0)


def test_it_doubles_while_its_cause_goes_on_up_to_its_bound() -> None:
    held, now, lengths = hold(), 0.0, []
    for _ in range(6):
        until = held.extend(now, 0.0)
        lengths.append(until - now)
        now = until
    assert lengths == [1, 2, 4, 8, 8, 8]


def test_a_good_answer_after_it_makes_the_next_one_small_again() -> None:
    held = hold()
    now = held.extend(held.extend(0.0, 0.0), 0.0)
    held.worked(now)
    assert held.extend(now, 0.0) - now == 1.0


def test_a_good_answer_that_was_on_its_way_forgives_nothing() -> None:
    held = hold()
    until = held.extend(0.0, 0.0)
    held.worked(until - 0.5)
    assert held.extend(until, 0.0) - until == 2.0


@pytest.mark.parametrize("named", [None, 1.0])
def test_refusals_that_were_on_their_way_do_not_make_it_grow(named: float | None) -> None:
    held = hold()
    ends = {held.extend(0.5, 0.0, named, NAMED_AT_MOST) for _ in range(32)}
    assert {1.5} == ends
    assert held.extend(1.5, 0.0) - 1.5 == 2.0


def test_a_named_time_is_kept_up_to_its_bound() -> None:
    held = hold()
    assert held.extend(0.0, 0.5, named=30.0, named_at_most=NAMED_AT_MOST) == 30.0
    assert held.extend(1.0, 0.5, named=2.0, named_at_most=NAMED_AT_MOST) == 30.0
    assert held.extend(1.0, 0.5, named=1e9, named_at_most=NAMED_AT_MOST) == 301.0


def test_a_named_time_of_nothing_is_no_time_or_refusals_would_come_as_fast_as_calls() -> None:
    assert hold().extend(5.0, 0.0, named=0.0, named_at_most=NAMED_AT_MOST) == 6.0


@given(
    st.lists(st.tuples(st.floats(0, 20), CHANCES, st.none() | st.floats(-10, 1e6), st.booleans()), max_size=25),
)
@examples(max_examples=150)
def test_no_hold_is_shortened_and_every_hold_ends_within_its_bound(
    steps: list[tuple[float, float, float | None, bool]],
) -> None:
    held, now = hold(), 0.0
    for passed, chance, named, good in steps:
        now += passed
        before = held.until
        if good:
            held.worked(now)
            assert before == held.until
        else:
            until = held.extend(now, chance, named, NAMED_AT_MOST)
            assert until == held.until
            assert until >= before
            assert until <= max(before, now + max(8.0 * 1.2, NAMED_AT_MOST))


@given(CHANCES)
@examples(max_examples=30)
def test_chance_adds_at_most_a_fifth_and_takes_nothing(chance: float) -> None:
    assert 1.0 <= hold().extend(0.0, chance) <= 1.2


def test_refusing_for_years_overflows_nothing() -> None:
    held, now = hold(), 0.0
    for _ in range(2000):
        now = held.extend(now, 0.0)
    assert now <= 2000 * 8.0


@pytest.mark.parametrize("wrong", [{"hold_for": 10, "hold_at_most": 1}, {"exclude_for": 100, "exclude_at_most": 10}])
def test_settings_whose_bound_lies_below_their_start_cannot_be_built(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="longest time"):
        HoldSettings(**wrong)

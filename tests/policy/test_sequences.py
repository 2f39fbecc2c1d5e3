"""Sequences: what follows is told, what was told is not told again, and what is missing is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.sequences import Fit, Place, Rule, Sequence

NUMBERED = [rule for rule in Rule if rule is not Rule.NONE]


def messages(rule: Rule, steps: list[int]) -> list[Place]:
    """What an exchange tells when its number rises by these steps."""
    made, last = [], 100
    for step in steps:
        rise = 1 if rule in (Rule.NEXT, Rule.LINE) else step
        first = last + 1 if rule in (Rule.RANGE, Rule.SPAN) else last + rise
        made.append(Place(first, last + rise, last if rule is Rule.PREVIOUS else None))
        last += rise
    return made


def started(rule: Rule) -> Sequence:
    sequence = Sequence(rule)
    sequence.took(Place(100, 100))
    return sequence


@pytest.mark.parametrize("rule", NUMBERED)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_what_comes_whole_is_told_whole_and_once(rule: Rule, steps: list[int]) -> None:
    sequence = started(rule)
    for place in messages(rule, steps):
        assert sequence.judge(place) is Fit.NEXT
        sequence.took(place)
        assert sequence.judge(place) is Fit.OLD


@pytest.mark.parametrize("rule", [rule for rule in NUMBERED if rule is not Rule.RISING])
@given(st.lists(st.integers(1, 9), min_size=2, max_size=30), st.data())
def test_what_is_missing_is_never_passed_over(rule: Rule, steps: list[int], data: st.DataObject) -> None:
    places = messages(rule, steps)
    lost = data.draw(st.integers(0, len(places) - 2))
    sequence = started(rule)
    for place in places[:lost]:
        sequence.took(place)
    for place in places[lost + 1 :]:
        assert sequence.judge(place) is Fit.GAP


def test_okx_may_count_back_and_say_that_nothing_changed() -> None:
    sequence = started(Rule.PREVIOUS)
    for place in (Place(100, 100, 100), Place(3, 3, 100), Place(9, 9, 3)):
        assert sequence.judge(place) is Fit.NEXT
        sequence.took(place)


def test_spans_of_kucoin_may_overlap() -> None:
    assert started(Rule.SPAN).judge(Place(95, 105)) is Fit.NEXT


def test_a_message_without_a_number_never_counts_as_one_that_fits() -> None:
    for rule in NUMBERED:
        assert started(rule).judge(None) is Fit.UNNUMBERED

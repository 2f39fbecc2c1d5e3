"""The laws of rises: what was newest when, against a list that forgets nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.policy.rises import KEPT, Rises

STEPS = st.lists(st.tuples(st.integers(1, 5), st.floats(0.1, 10)), min_size=1, max_size=KEPT)


def played(steps: list[tuple[int, float]]) -> tuple[Rises, list[tuple[int, float]]]:
    rises, all_of_them = Rises(), []
    number, now = 100, 0.0
    for blocks, seconds in steps:
        number, now = number + blocks, now + seconds
        rises.note(number, now)
        all_of_them.append((number, now))
    return rises, all_of_them


@given(STEPS, st.floats(-5, 700))
@examples(max_examples=100)
def test_the_newest_block_of_an_instant_is_the_last_that_had_come(steps: list[tuple[int, float]], at: float) -> None:
    rises, every = played(steps)
    assert rises.newest_at(at) == max([number for number, came in every if came <= at], default=every[0][0])


@given(STEPS, st.integers(90, 450))
@examples(max_examples=100)
def test_a_block_is_passed_when_the_first_higher_one_came(steps: list[tuple[int, float]], number: int) -> None:
    rises, every = played(steps)
    higher = [came for newest, came in every if newest > number]
    exact = every[0][0] <= number  # else it may have been passed before the first that is remembered
    assert rises.passed_at(number) == ((min(higher), exact) if higher else None)


def test_nothing_is_known_before_the_first() -> None:
    assert (Rises().newest_at(5.0), Rises().passed_at(5)) == (-1, None)


def test_only_the_last_are_kept_and_a_reset_forgets_them() -> None:
    rises, _ = played([(1, 1.0)] * 1000)
    assert len(rises) == KEPT
    rises.restart(3, 2000.0)
    assert (len(rises), rises.newest_at(1.0), rises.newest_at(2000.0)) == (1, 3, 3)

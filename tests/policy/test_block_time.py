"""The laws of the block time: it is learned from any start, and no single rise bends it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.policy.block_time import BOUNDS, PRIOR_BLOCKS, STRANGE_GAP, UNKNOWN, BlockTime


def test_untold_it_is_a_guess_until_eight_blocks_came() -> None:
    time = BlockTime(None)
    assert (time.seconds, time.shortest, time.known) == (UNKNOWN, BOUNDS[0], False)
    for _ in range(int(PRIOR_BLOCKS)):
        assert not time.known
        time.learn(1, 12.0)
    assert time.known
    assert time.shortest == time.seconds


def test_told_it_is_known() -> None:
    time = BlockTime(12.0)
    assert (time.seconds, time.shortest, time.known) == (12.0, 12.0, True)


@given(st.floats(0.05, 3600), st.one_of(st.none(), st.floats(0.05, 3600)))
@examples(max_examples=100)
def test_it_is_learned_from_any_start(real: float, told: float | None) -> None:
    time = BlockTime(told)
    for _ in range(1500):
        time.learn(1, real)
    assert time.seconds == pytest.approx(real, rel=0.05)


@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 1e9)), max_size=50))
@examples(max_examples=100)
def test_it_stays_within_its_bounds_whatever_comes(rises: list[tuple[int, float]]) -> None:
    time = BlockTime(2.0)
    for blocks, after in rises:
        time.learn(blocks, after)
        assert BOUNDS[0] <= time.seconds <= BOUNDS[1]


@given(st.integers(1, 10**9), st.floats(0, 1e9))
@examples(max_examples=100)
def test_one_rise_however_strange_moves_a_settled_one_by_a_bounded_part(blocks: int, after: float) -> None:
    time = BlockTime(2.0)
    for _ in range(200):
        time.learn(1, 2.0)
    time.learn(blocks, after)
    share = PRIOR_BLOCKS / 50.0
    assert 2.0 * (1.0 - share) <= time.seconds <= 2.0 * (1.0 + STRANGE_GAP * share)


@pytest.mark.parametrize("polled_every", [0.1, 1.0, 1.9, 5.0])
def test_it_is_right_however_seldom_the_newest_block_is_looked_at(polled_every: float) -> None:
    """Blocks every two seconds; what is seen of them are rises by several at uneven instants."""
    chance = random.Random(5)
    time = BlockTime(2.0)
    now = seen_at = 0.0
    seen = 0
    for _ in range(3000):
        now += polled_every * chance.uniform(0.7, 1.3)
        if int(now / 2.0) > seen:
            time.learn(int(now / 2.0) - seen, now - seen_at)
            seen, seen_at = int(now / 2.0), now
    assert time.seconds == pytest.approx(2.0, rel=0.1)

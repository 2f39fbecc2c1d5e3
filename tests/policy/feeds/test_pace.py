"""The pace of a feed: a silence is odd only where the feed's own past says so."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.policy.feeds.pace import BLOCKS, ENOUGH, LONGEST_TIMES, SHORTEST, STEADY_FOR, USUAL_TIMES, Pace

BLOCK_TIME = 12.0
LOOK_EVERY = 5.0

GAPS = st.lists(st.floats(0.001, 400.0), min_size=1, max_size=200)


class Feed:
    """A feed whose source is replaced as soon as it is called silent; the chain goes on."""

    def __init__(self, block_time: float = BLOCK_TIME) -> None:
        self.pace = Pace()
        self.now = 0.0
        self.block_time = block_time
        self.silences: list[float] = []
        self.pace.began(self.head, 0.0)

    @property
    def head(self) -> int:
        return 1000 + int(self.now / self.block_time) if self.block_time else 1000

    def look(self) -> None:
        if self.pace.is_silent(self.head, self.now):
            self.silences.append(self.now)
            self.pace.began(self.head, self.now)

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now + LOOK_EVERY < until:
            self.now += LOOK_EVERY
            self.look()
        self.now = until
        self.look()

    def speaks(self, gaps: Iterable[float]) -> None:
        for gap in gaps:
            self.wait(gap)
            self.pace.spoke(self.head, self.now)


# --- nobody is called silent who is not -------------------------------------------------------------


@given(GAPS, st.floats(1.0, 100_000.0))
@examples(max_examples=150, deadline=None)
def test_a_feed_of_which_little_was_seen_is_never_called_silent(gaps: list[float], quiet: float) -> None:
    few, short = Feed(), Feed()
    few.speaks(gaps[: ENOUGH - 1])
    few.wait(min(quiet, 20_000.0))
    scale = (STEADY_FOR - 1.0) / max(sum(gaps[1:]), STEADY_FOR)
    short.speaks([gap * scale for gap in gaps])
    short.wait(min(quiet, 20_000.0))
    assert few.silences == short.silences == []


@given(GAPS)
@examples(max_examples=150, deadline=None)
def test_a_feed_that_was_quiet_for_as_long_before_is_never_called_silent(gaps: list[float]) -> None:
    feed = Feed()
    known: list[float] = []
    for gap in gaps:  # none is much longer than all before it
        known.append(min(gap, max(SHORTEST, LONGEST_TIMES * max(known, default=0.0))))
    feed.speaks(known)
    assert feed.silences == []


@given(GAPS, st.lists(st.floats(1.0, 5_000.0), max_size=10))
@examples(max_examples=100, deadline=None)
def test_whatever_comes_nobody_is_called_silent_more_often_than_every_few_minutes(
    gaps: list[float], quiets: list[float]
) -> None:
    feed = Feed()
    for quiet in quiets:
        feed.speaks(gap / 10 for gap in gaps)
        feed.wait(quiet)
    times = [0.0, *feed.silences]
    assert all(later - earlier >= STEADY_FOR for earlier, later in pairwise(times))


@given(st.integers(0, 1000))
@examples(max_examples=30, deadline=None)
def test_while_the_chain_stands_still_nobody_is_called_silent(seed: int) -> None:
    chance = Random(seed)
    feed = Feed(block_time=0.0)
    feed.speaks(chance.expovariate(1.0) for _ in range(600))
    feed.wait(3600.0)
    assert feed.silences == []


@pytest.mark.parametrize("mean", [0.05, 1.0, 10.0, 60.0])
def test_events_that_come_by_chance_are_never_called_silent(mean: float) -> None:
    hours, events = 0.0, 0
    for seed in range(20):
        chance = Random(seed)
        feed = Feed()
        gaps = [chance.expovariate(1.0 / mean) for _ in range(2000)]
        feed.speaks(gaps)
        assert feed.silences == []
        hours, events = hours + sum(gaps) / 3600, events + len(gaps)
    print(f"one event in {mean} s: 0 of {events:,} pauses in {hours:,.0f} h called a silence (n=20, seeds 0-19)")


@pytest.mark.parametrize(("busy", "quiet"), [(30.0, 120.0), (120.0, 900.0), (1200.0, 3600.0)])
def test_a_feed_that_is_quiet_again_and_again_is_called_silent_the_first_time_only(busy: float, quiet: float) -> None:
    """The sources that take over are as quiet, by which it is known to be the feed's own way."""
    feed = Feed()
    for _ in range(50):
        feed.speaks([0.5] * int(busy / 0.5))
        feed.wait(quiet)
    assert len(feed.silences) <= 5
    assert all(silence < busy + quiet for silence in feed.silences)


def test_a_feed_that_grows_slower_and_slower_is_not_called_silent() -> None:
    feed = Feed()
    feed.speaks(0.1 * 1.01**n for n in range(1200))
    assert feed.silences == []


# --- and who is, is found ---------------------------------------------------------------------------


@given(st.lists(st.floats(0.05, 20.0), min_size=400, max_size=500))
@examples(max_examples=60, deadline=None)
def test_a_steady_feed_that_stops_is_called_silent_in_its_time(gaps: list[float]) -> None:
    feed = Feed()
    gaps = [max(gap, 1.0) for gap in gaps]
    feed.speaks(gaps)
    stopped = feed.now
    feed.wait(3600.0)
    times = list(accumulate(gaps))
    usual = (times[-1] - times[0]) / (len(times) - 1)
    patience = max(SHORTEST, USUAL_TIMES * usual, LONGEST_TIMES * max(gaps), BLOCKS * BLOCK_TIME)
    assert patience < feed.silences[0] - stopped <= patience + LOOK_EVERY + 1e-6


def test_sources_that_are_acknowledged_and_say_nothing_are_replaced_ever_more_rarely() -> None:
    """Whether they hide something or there is nothing to say is not known."""
    feed = Feed()
    feed.speaks([1.0] * 400)
    feed.wait(20_000.0)
    pauses = [later - earlier for earlier, later in zip(feed.silences, feed.silences[1:], strict=False)]
    assert pauses == pytest.approx([STEADY_FOR * 2**n for n in range(len(pauses))], abs=LOOK_EVERY)
    assert len(pauses) >= 4
    feed.pace.spoke(feed.head, feed.now)  # there was nothing to say: now that is known
    feed.speaks([1.0] * 400)
    found = len(feed.silences)
    feed.wait(20_000.0)
    assert len(feed.silences) == found


def test_a_source_that_says_nothing_from_the_first_is_found_by_the_pace_of_the_one_that_died() -> None:
    feed = Feed()
    feed.speaks([1.0] * 400)
    feed.pace.began(feed.head, feed.now)
    began = feed.now
    feed.wait(STEADY_FOR + 3 * LOOK_EVERY)
    assert len(feed.silences) == 1
    assert feed.silences[0] - began > STEADY_FOR


def test_it_is_found_again_and_again_when_its_successors_speak() -> None:
    """A silence of a source is no pause of the feed, and makes nobody more patient."""
    feed = Feed()
    for round_ in range(10):
        feed.speaks([1.0] * 400)
        feed.wait(SHORTEST + 2 * LOOK_EVERY)
        assert len(feed.silences) == round_ + 1

"""The limit of calls at once: it falls with refusals, returns with good answers, and stays in its bounds."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.policy.concurrency import QUIET_FOR, ConcurrencyLimit, ConcurrencySettings

SETTINGS = ConcurrencySettings()


def lowered(to: int, most: int = 1024) -> ConcurrencyLimit:
    """A limit that refusals at instants before 0 have brought down."""
    limit = ConcurrencyLimit(SETTINGS, most)
    now = -1000.0
    while limit.limit > to:
        limit.dropped(limit.limit, now)
        now += 1.0
    return limit


def test_nothing_is_restricted_before_something_was_refused() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    for n in range(1000):
        limit.worked(n, float(n))
    assert limit.limit == 1024


def test_a_refusal_takes_a_tenth_of_what_was_under_way() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    limit.dropped(100, 1.0)
    assert limit.limit == 90


def test_more_calls_under_way_than_allowed_are_no_reason_for_a_higher_limit() -> None:
    limit = lowered(50)
    before = limit.limit
    limit.dropped(1000, 1.0)
    assert limit.limit == int(before * SETTINGS.backoff)


@pytest.mark.parametrize("in_flight", [0, 1, 2])
def test_a_lone_call_that_times_out_restricts_nobody(in_flight: int) -> None:
    """What two at once cannot get is not lacking because there are two."""
    limit = ConcurrencyLimit(SETTINGS, 1024)
    limit.dropped(in_flight, 1.0)
    assert limit.limit == 1024
    limit.dropped(100, 1.1)  # and the refusal that was passed over does not hide the next
    assert limit.limit == 90


def test_refusals_that_come_together_are_one_piece_of_news() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    for n in range(50):
        limit.dropped(100, 1.0 + n / 101)
    assert limit.limit == 90
    limit.dropped(90, 1.0 + SETTINGS.settle_for)
    assert limit.limit == 81


def test_as_many_good_answers_as_the_limit_is_large_give_one_back() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    limit.dropped(10, 1.0)
    for _ in range(8):
        limit.worked(8, 2.0)
    assert limit.limit == 9
    limit.worked(8, 2.0)
    assert limit.limit == 10


def test_a_refusal_begins_the_count_of_good_answers_anew() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    for now, lower in ((0.0, 9), (4.0, 8), (8.0, 7)):
        limit.dropped(limit.limit if now else 10, now)
        for _ in range(lower - 1):
            limit.worked(limit.limit - 1, now + 2.0)
        assert limit.limit == lower


def test_nothing_grows_right_after_a_refusal_because_more_may_be_on_their_way() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    limit.dropped(10, 5.0)
    for _ in range(100):
        limit.worked(limit.limit - 1, 5.0 + QUIET_FOR - 0.01)
    assert limit.limit == 9
    for _ in range(9):
        limit.worked(limit.limit - 1, 5.0 + QUIET_FOR)
    assert limit.limit == 10


@pytest.mark.parametrize(("others", "grows"), [(10, False), (43, False), (44, True), (89, True)])
def test_a_limit_grows_only_while_half_of_it_is_in_use(others: int, grows: bool) -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    limit.dropped(100, 1.0)
    for _ in range(90):
        limit.worked(others, 2.0)
    assert limit.limit == 90 + grows


@given(st.integers(1, 60), st.integers(2, 60))
@examples(max_examples=60)
def test_a_full_limit_returns_to_the_most_with_so_many_good_answers_as_there_are_calls_to_regain(
    most: int, from_limit: int
) -> None:
    limit = lowered(from_limit, most)
    lowest = limit.limit
    answers = 0
    while limit.limit < most:
        limit.worked(limit.limit - 1, 1.0)
        answers += 1
    assert answers == sum(range(lowest, most))
    limit.worked(most - 1, 1.0)
    assert limit.limit == most


@pytest.mark.parametrize("capacity", [5, 20, 40, 200])
def test_it_finds_what_a_server_can_take(capacity: int) -> None:
    """400 callers that ask again at once; the server answers `capacity` calls at once and lets the rest time out."""
    seed, lasts = 17, 120.0
    chance = random.Random(seed)
    limit = ConcurrencyLimit(SETTINGS, 1024)
    under_way: list[tuple[float, bool]] = []  # when it ends, and whether with an answer
    serving, now, good, bad = 0, 0.0, 0, 0
    limits = []
    while now < lasts:
        while len(under_way) < min(400, limit.limit):
            taken = serving < capacity
            serving += taken
            heapq.heappush(under_way, (now + (chance.uniform(0.05, 0.15) if taken else 1.0), taken))
        now, taken = heapq.heappop(under_way)
        if taken:
            serving -= 1
            limit.worked(len(under_way), now)
        else:
            limit.dropped(len(under_way) + 1, now)
        if now > 60.0:
            good, bad = good + taken, bad + (not taken)
            limits.append(limit.limit)
    rate = good / 60.0
    print(
        f"capacity {capacity}, seed {seed}, 60 s after 60 s: limit {min(limits)} to {max(limits)}, "
        f"{rate / (capacity / 0.1):.0%} of what it could answer, {bad / (good + bad):.2%} timed out, n={good + bad}"
    )
    assert 0.8 * capacity <= min(limits) <= capacity
    assert max(limits) <= 1.25 * capacity + 6
    assert rate >= 0.9 * capacity / 0.1
    assert bad / (good + bad) <= 0.06


class Limiting(RuleBasedStateMachine):
    """Refusals and answers in any order, with any number of calls under way."""

    @initialize(
        most=st.integers(1, 50),
        at_least=st.integers(1, 60),
        backoff=st.sampled_from([0.1, 0.9, 0.99]),
        settle_for=st.sampled_from([0.0, 0.5]),
    )
    def begin(self, most: int, at_least: int, backoff: float, settle_for: float) -> None:
        self.settings = ConcurrencySettings(at_least=at_least, backoff=backoff, settle_for=settle_for)
        self.most, self.least = most, min(at_least, most)
        self.limit = ConcurrencyLimit(self.settings, most)
        self.now = self.fell_at = 0.0
        self.fell = False

    @rule(pause=st.floats(0, 2))
    def time_passes(self, pause: float) -> None:
        self.now += pause

    @rule(in_flight=st.integers(0, 100))
    def refused(self, in_flight: int) -> None:
        before = self.limit.limit
        self.limit.dropped(in_flight, self.now)
        assert self.limit.limit <= before, "a refusal never gives"
        if self.limit.limit < before:
            assert not self.fell or self.now - self.fell_at >= self.settings.settle_for
            self.fell, self.fell_at = True, self.now

    @rule(in_flight=st.integers(0, 100), times=st.integers(1, 60))
    def answered(self, in_flight: int, times: int) -> None:
        before = self.limit.limit
        for _ in range(times):
            self.limit.worked(in_flight, self.now)
        assert before <= self.limit.limit <= before + -(-times // before) + 1
        if 2 * (in_flight + 1) < before:
            assert self.limit.limit == before, "nothing grows that nobody needs"

    @precondition(lambda self: hasattr(self, "limit"))
    @invariant()
    def it_is_in_its_bounds(self) -> None:
        assert self.least <= self.limit.limit <= self.most

    def teardown(self) -> None:
        """Good answers alone bring everything back."""
        if hasattr(self, "limit"):
            for _ in range(self.most * self.most):
                self.limit.worked(self.most, self.now + 2 * QUIET_FOR)
            assert self.limit.limit == self.most


TestLimiting = Limiting.TestCase
TestLimiting.settings = examples(max_examples=100, stateful_step_count=30, deadline=None)

"""The laws of the breaker, and the figures it was chosen by."""

from __future__ import annotations

import random
from math import isclose

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model import Outcome
from gateway.policy.breaker import SOFT_SHARE, Breaker, BreakerSettings, BreakerState

DEFAULTS = BreakerSettings()


def opened(now: float = 0.0, chance: float = 0.5) -> Breaker:
    breaker = Breaker(DEFAULTS, now)
    for _ in range(DEFAULTS.consecutive):
        breaker.settle(breaker.generation, Outcome.FAILURE, now, chance)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_three_failures_in_a_row_open_it() -> None:
    breaker = Breaker(DEFAULTS, 0.0)
    moved = [breaker.settle(0, Outcome.FAILURE, float(i), 0.5) for i in range(3)]
    assert moved == [False, False, True]


def test_five_soft_failures_in_a_row_open_it() -> None:
    breaker = Breaker(DEFAULTS, 0.0)
    moved = [breaker.settle(0, Outcome.SOFT_FAILURE, float(i), 0.5) for i in range(5)]
    assert moved == [False, False, False, False, True]
    assert isclose(SOFT_SHARE, 0.6)


def test_failures_far_apart_are_not_in_a_row() -> None:
    breaker = Breaker(BreakerSettings(threshold=50), 0.0)
    for i in range(18):  # the evidence of one more would open it, however slowly it came
        assert not breaker.settle(0, Outcome.FAILURE, 11.0 * i, 0.5)


@pytest.mark.parametrize("outcome", [Outcome.IGNORED, Outcome.THROTTLED])
def test_throttling_and_silence_never_open_it(outcome: Outcome) -> None:
    breaker = Breaker(DEFAULTS, 0.0)
    for _ in range(1000):
        assert not breaker.settle(0, outcome, 1.0, 0.5)


def test_a_result_of_an_older_generation_changes_nothing() -> None:
    breaker = opened()
    before = repr(breaker)
    for outcome in Outcome:
        assert not breaker.settle(breaker.generation - 1, outcome, 1.0, 0.5)
    assert repr(breaker) == before


def test_an_ignored_probe_gives_its_permit_back() -> None:
    breaker = opened()
    now = breaker.open_until
    generation = breaker.admit(now)
    assert generation is not None
    assert breaker.admit(now) is None, "a second probe was let out"
    breaker.settle(generation, Outcome.IGNORED, now, 0.5)
    assert breaker.admit(now) is not None


def test_a_throttled_probe_opens_it_again() -> None:
    breaker = opened()
    generation = breaker.admit(breaker.open_until)
    assert generation is not None
    assert breaker.settle(generation, Outcome.THROTTLED, breaker.open_until, 0.5)
    assert breaker.state is BreakerState.OPEN


def test_three_good_probes_close_it_and_it_regains_its_share_slowly() -> None:
    breaker = opened()
    now = breaker.open_until
    for _ in range(DEFAULTS.probes_to_close):
        generation = breaker.admit(now)
        assert generation is not None
        breaker.settle(generation, Outcome.SUCCESS, now, 0.5)
    assert breaker.state is BreakerState.CLOSED
    shares = [breaker.slow_start_share(now + t) for t in (0, 5, 10, 100)]
    assert [round(share, 2) for share in shares] == [0.1, 0.55, 1.0, 1.0]


def test_a_success_while_open_ends_the_time_out_early() -> None:
    breaker = opened()
    assert breaker.settle(breaker.generation, Outcome.SUCCESS, 0.1, 0.5)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.admit(0.1) is not None


def test_the_time_out_doubles_up_to_its_bound_and_jitter_stays_within_its_share() -> None:
    breaker = opened(chance=0.5)
    lengths = [breaker.open_until]
    for _ in range(9):
        now = breaker.open_until
        generation = breaker.admit(now)
        assert generation is not None
        breaker.settle(generation, Outcome.FAILURE, now, 0.5)
        lengths.append(breaker.open_until - now)
    assert [round(length, 6) for length in lengths] == [2, 4, 8, 16, 32, 64, 120, 120, 120, 120]
    assert round(opened(chance=0.0).open_until, 6) == 1.6
    assert round(opened(chance=0.999999).open_until, 3) == 2.4


def test_there_is_no_slow_start_when_the_process_starts() -> None:
    assert Breaker(DEFAULTS, 0.0).slow_start_share(0.0) == 1.0


@pytest.mark.parametrize(
    "wrong", [{"failing_rate": 0.01}, {"open_at_most": 1.0}, {"threshold": 0}, {"consecutive": 0}, {"jitter": 2}]
)
def test_illegal_settings_cannot_be_built(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        BreakerSettings(**wrong)  # type: ignore[arg-type]


# --- the figures ------------------------------------------------------------------------------------

GRID = 4000  # steps of evidence from 0 to the threshold


def mean_calls_to_trip(rate: float, settings_: BreakerSettings = DEFAULTS) -> float:
    """Exact up to the grid: the mean first-passage time of the evidence, solved by value iteration.

    States are levels of evidence and runs of failures (consecutive failures trip too).
    """
    good, bad = settings_.good_step, settings_.bad_step
    unit = settings_.threshold / GRID
    down, up = round(good / unit), round(bad / unit)
    expected = [[0.0] * (GRID + 1) for _ in range(settings_.consecutive)]
    for _ in range(20_000):
        change = 0.0
        for run in reversed(range(settings_.consecutive)):
            row = expected[run]
            for level in range(0, GRID, GRID // 200):
                lower = max(0, level - down) // (GRID // 200) * (GRID // 200)
                higher = level + up
                tripped = higher >= GRID or run + 1 >= settings_.consecutive
                after_bad = 0.0 if tripped else expected[run + 1][higher // (GRID // 200) * (GRID // 200)]
                value = 1.0 + (1 - rate) * expected[0][lower] + rate * after_bad
                change = max(change, abs(value - row[level]) / max(1.0, value))
                row[level] = value
        if change < 1e-7:
            break
    return expected[0][0]


def simulated(rate: float, seed: int, trials: int) -> float:
    chance = random.Random(seed)
    total = 0
    for _ in range(trials):
        breaker = Breaker(DEFAULTS, 0.0)
        calls = 0
        moved = False
        while not moved:
            calls += 1
            outcome = Outcome.FAILURE if chance.random() < rate else Outcome.SUCCESS
            moved = breaker.settle(0, outcome, calls * 0.01, 0.5)
        total += calls
    return total / trials


@pytest.mark.parametrize(("rate", "low", "high"), [(1.0, 3, 3), (0.5, 5, 9), (0.3, 9, 16)])
def test_a_failing_endpoint_is_found_within_a_few_calls(rate: float, low: float, high: float) -> None:
    exact, drawn = mean_calls_to_trip(rate), simulated(rate, seed=1, trials=4000)
    print(f"{rate:.0%} failing: {exact:.1f} calls to trip (exact), {drawn:.1f} (n=4000, seed=1)")
    assert low <= drawn <= high
    assert isclose(exact, drawn, rel_tol=0.15)


def test_normal_noise_trips_it_less_than_fifty_times_in_a_million_calls() -> None:
    chance = random.Random(5)
    breaker = Breaker(DEFAULTS, 0.0)
    trips = 0
    for call in range(1_000_000):
        outcome = Outcome.FAILURE if chance.random() < 0.02 else Outcome.SUCCESS
        if breaker.settle(breaker.generation, outcome, call * 0.01, 0.5):
            trips += 1
            breaker = Breaker(DEFAULTS, call * 0.01)
    print(f"2 % noise: {trips} false trips in 1,000,000 calls (seed 5)")
    assert trips <= 50


# --- any order of events ----------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Attempts begin, end and are forgotten in any order, with any time between."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(DEFAULTS, 0.0)
        self.out: list[tuple[int, bool]] = []

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def asks(self) -> None:
        would = self.breaker.would_admit(self.now)
        generation = self.breaker.admit(self.now)
        assert would == (generation is not None)
        if generation is not None:
            self.out.append((generation, self.breaker.state is BreakerState.HALF_OPEN))

    @rule()
    def is_forced(self) -> None:
        """A call made because nothing better was left takes part in the generation, and is no probe."""
        self.out.append((self.breaker.generation, False))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), chance=st.floats(0, 0.999))
    def ends(self, data: st.DataObject, outcome: Outcome, chance: float) -> None:
        generation, _ = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.breaker.settle(generation, outcome, self.now, chance)

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        current = [1 for generation, probe in self.out if probe and abs(generation) == self.breaker.generation]
        assert len(current) <= 1

    @invariant()
    def idle_it_admits_someone_if_one_waits(self) -> None:
        if not any(probe and abs(g) == self.breaker.generation for g, probe in self.out):
            assert self.breaker.would_admit(self.now + 200.0)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

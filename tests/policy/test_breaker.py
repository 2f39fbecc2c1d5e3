"""The laws of the breaker, in any order of events, and the figures it was chosen by."""

from __future__ import annotations

import copy
import random
from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model import Outcome
from gateway.policy.breaker import SOFT_SHARE, Breaker, BreakerSettings, BreakerState

DEFAULTS = BreakerSettings()
CHANCES = st.floats(0, 1, exclude_max=True)
BAD_PROBES = (Outcome.FAILURE, Outcome.SOFT_FAILURE, Outcome.THROTTLED)


def opened(settings: BreakerSettings = DEFAULTS, now: float = 0.0, chance: float = 0.5) -> Breaker:
    """A breaker that has just tripped for the first time."""
    breaker = Breaker(settings, now)
    while breaker.state is BreakerState.CLOSED:
        breaker.settle(breaker.generation, Outcome.FAILURE, now, chance)
    return breaker


def probed(breaker: Breaker, outcome: Outcome, chance: float = 0.5) -> float:
    """Wait for the time out, send one probe that ends as `outcome`; gives the instant."""
    now = breaker.open_until
    probe = breaker.admit(now)
    assert probe is not None
    breaker.settle(probe, outcome, now, chance)
    return now


def closed_again(breaker: Breaker) -> float:
    """Probe until it closes; gives the instant."""
    now = breaker.open_until
    while breaker.state is not BreakerState.CLOSED:
        probe = breaker.admit(now)
        assert probe is not None
        breaker.settle(probe, Outcome.SUCCESS, now, 0.5)
    return now


def facts(breaker: Breaker) -> dict[str, object]:
    """Everything a breaker knows, to be compared."""
    return {name: copy.copy(getattr(breaker, name)) for name in Breaker.__slots__}


# --- closed -----------------------------------------------------------------------------------------


def test_three_failures_in_a_row_open_it() -> None:
    breaker = Breaker(DEFAULTS, 0.0)
    moved = [breaker.settle(0, Outcome.FAILURE, float(i), 0.5) for i in range(3)]
    assert moved == [False, False, True]


def test_five_soft_failures_in_a_row_open_it() -> None:
    breaker = Breaker(DEFAULTS, 0.0)
    moved = [breaker.settle(0, Outcome.SOFT_FAILURE, float(i), 0.5) for i in range(5)]
    assert moved == [False, False, False, False, True]
    assert SOFT_SHARE == 0.6


PATIENT = BreakerSettings(threshold=50)  # evidence alone would need nineteen failures


def test_failures_far_apart_are_not_in_a_row() -> None:
    breaker = Breaker(PATIENT, 0.0)
    moved = [breaker.settle(0, Outcome.FAILURE, 11.0 * i, 0.5) for i in range(18)]
    assert moved == [False] * 18


@given(st.lists(st.floats(0, 12), max_size=15), st.integers(1, 6))
@examples(max_examples=100)
def test_it_opens_exactly_when_so_many_failures_lie_within_the_window_wherever_the_window_begins(
    pauses: list[float], consecutive: int
) -> None:
    breaker = Breaker(BreakerSettings(threshold=50, consecutive=consecutive), 0.0)
    instants: list[float] = []
    now = 0.0
    for pause in pauses:
        now += pause
        instants.append(now)
        newest = instants[-consecutive:]
        expected = len(newest) == consecutive and newest[-1] - newest[0] <= 10.0
        assert expected == breaker.settle(0, Outcome.FAILURE, now, 0.5)
        if expected:
            return


def test_a_success_between_failures_breaks_the_row() -> None:
    breaker = Breaker(PATIENT, 0.0)
    for _ in range(5):
        assert not breaker.settle(0, Outcome.FAILURE, 1.0, 0.5)
        assert not breaker.settle(0, Outcome.FAILURE, 1.0, 0.5)
        breaker.settle(0, Outcome.SUCCESS, 1.0, 0.5)
    assert breaker.failures_in_a_row == 0


@pytest.mark.parametrize("outcome", [Outcome.IGNORED, Outcome.THROTTLED, Outcome.SUCCESS])
def test_throttling_silence_and_success_never_open_it(outcome: Outcome) -> None:
    breaker = Breaker(DEFAULTS, 0.0)
    assert not any(breaker.settle(0, outcome, 1.0, 0.5) for _ in range(1000))


def test_evidence_is_forgiven_but_never_saved_up() -> None:
    """A thousand successes are worth no more than enough: a failure afterwards weighs the same."""
    breaker = Breaker(DEFAULTS, 0.0)
    breaker.settle(0, Outcome.FAILURE, 1.0, 0.5)
    for _ in range(1000):
        breaker.settle(0, Outcome.SUCCESS, 1.0, 0.5)
    assert breaker.evidence == 0.0
    breaker.settle(0, Outcome.FAILURE, 1.0, 0.5)
    assert DEFAULTS.bad_step == breaker.evidence


# --- open -------------------------------------------------------------------------------------------


def test_open_refuses_until_its_time_is_over_and_then_lets_one_probe_out() -> None:
    breaker = opened()
    just_before = breaker.open_until - 1e-6
    assert not breaker.would_admit(just_before)
    assert breaker.admit(just_before) is None
    assert breaker.admit(breaker.open_until) is not None
    assert BreakerState.HALF_OPEN is breaker.state
    assert breaker.admit(breaker.open_until) is None


@given(st.integers(1, 12), st.lists(CHANCES, min_size=12, max_size=12), st.sampled_from(BAD_PROBES))
@examples(max_examples=60)
def test_each_trip_doubles_the_time_out_up_to_its_bound_and_jitter_stays_within_its_share(
    trips: int, chances: list[float], bad: Outcome
) -> None:
    breaker = opened(chance=chances[0])
    began = 0.0
    for trip in range(trips):
        out_for = breaker.open_until - began
        plain = min(DEFAULTS.open_at_most, DEFAULTS.open_for * 2**trip)
        assert plain * (1 - DEFAULTS.jitter) - 1e-6 <= out_for <= plain * (1 + DEFAULTS.jitter) + 1e-6
        assert isclose(plain * (1 + DEFAULTS.jitter * (2 * chances[trip] - 1)), out_for, abs_tol=1e-6)
        if trip + 1 < trips:
            began = probed(breaker, bad, chances[trip + 1])


def test_the_times_out_are_2_4_8_and_so_on_up_to_120_seconds() -> None:
    breaker = opened()
    lengths = [breaker.open_until]
    for _ in range(8):
        now = probed(breaker, Outcome.FAILURE)
        lengths.append(round(breaker.open_until - now, 6))
    assert lengths == [2, 4, 8, 16, 32, 64, 120, 120, 120]


def test_tripping_for_years_overflows_nothing() -> None:
    breaker = opened()
    for _ in range(5000):
        probed(breaker, Outcome.FAILURE)
    assert breaker.open_until <= 5001 * DEFAULTS.open_at_most


def test_trips_are_forgotten_after_it_stayed_closed_for_the_longest_time_out() -> None:
    """The trip itself looks: a sound endpoint's successes are never counted here."""
    for pause, expected in ((DEFAULTS.open_at_most + 1, 2.0), (DEFAULTS.open_at_most - 1, 4.0)):
        breaker = opened()
        now = closed_again(breaker) + pause
        for _ in range(3):
            breaker.settle(breaker.generation, Outcome.FAILURE, now, 0.5)
        assert BreakerState.OPEN is breaker.state
        assert isclose(expected, breaker.open_until - now)


def test_a_forced_success_while_open_makes_it_half_open_and_counts_as_a_good_probe() -> None:
    breaker = opened()
    assert breaker.settle(breaker.generation, Outcome.SUCCESS, 0.1, 0.5)
    assert BreakerState.HALF_OPEN is breaker.state
    assert breaker.good_probes == 1
    assert breaker.admit(0.1) is not None


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SUCCESS])
def test_a_forced_call_that_fails_while_open_changes_nothing(outcome: Outcome) -> None:
    """The last resort must not push the time out of an endpoint further away."""
    breaker = opened()
    before = facts(breaker)
    assert not breaker.settle(breaker.generation, outcome, 1.0, 0.5)
    assert before == facts(breaker)


# --- half-open --------------------------------------------------------------------------------------


def test_an_ignored_probe_gives_its_permit_back() -> None:
    breaker = opened()
    now = breaker.open_until
    for _ in range(100):
        probe = breaker.admit(now)
        assert probe is not None, "an ignored probe jammed the breaker"
        assert breaker.admit(now) is None, "a second probe was let out"
        breaker.settle(probe, Outcome.IGNORED, now, 0.5)
    assert BreakerState.HALF_OPEN is breaker.state
    assert breaker.good_probes == 0


@pytest.mark.parametrize("outcome", Outcome)
def test_a_forced_calls_end_never_gives_back_the_permit_of_a_probe(outcome: Outcome) -> None:
    breaker = opened(BreakerSettings(probes_to_close=100))
    now = breaker.open_until
    assert breaker.admit(now) is not None
    breaker.settle(breaker.generation, outcome, now, 0.5)
    if breaker.state is BreakerState.HALF_OPEN:
        assert breaker.admit(now) is None


@pytest.mark.parametrize("outcome", BAD_PROBES)
def test_anything_but_success_and_silence_opens_it_again_throttling_too(outcome: Outcome) -> None:
    breaker = opened()
    probed(breaker, outcome)
    assert BreakerState.OPEN is breaker.state
    assert breaker.trips == 2


@given(st.integers(1, 8))
@examples(max_examples=8)
def test_so_many_good_probes_in_a_row_close_it_and_not_one_fewer(needed: int) -> None:
    breaker = opened(BreakerSettings(probes_to_close=needed))
    states = []
    for _ in range(needed):
        probed(breaker, Outcome.SUCCESS)
        states.append(breaker.state)
    assert [BreakerState.HALF_OPEN] * (needed - 1) + [BreakerState.CLOSED] == states
    assert breaker.evidence == 0.0
    assert breaker.failures_in_a_row == 0


def test_good_probes_before_a_bad_one_do_not_count_later() -> None:
    breaker = opened()
    for outcome in (Outcome.SUCCESS, Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS, Outcome.SUCCESS):
        probed(breaker, outcome)
    assert BreakerState.HALF_OPEN is breaker.state


def test_after_its_return_it_regains_its_share_linearly() -> None:
    breaker = opened()
    now = closed_again(breaker)
    assert [round(breaker.slow_start_share(now + t), 2) for t in (0, 5, 10, 100)] == [0.1, 0.55, 1.0, 1.0]


@given(st.floats(0, 600), st.floats(0.01, 1), st.lists(st.floats(0, 700), min_size=2, max_size=10))
@examples(max_examples=50)
def test_the_share_never_falls_and_stays_between_its_start_and_one(span: float, low: float, since: list[float]) -> None:
    breaker = opened(BreakerSettings(slow_start_for=span, slow_start_from=low))
    now = closed_again(breaker)
    shares = [breaker.slow_start_share(now + t) for t in sorted(since)]
    assert sorted(shares) == shares
    assert all(low - 1e-9 <= share <= 1.0 for share in shares)


def test_there_is_no_slow_start_when_the_process_starts() -> None:
    assert Breaker(DEFAULTS, 0.0).slow_start_share(0.0) == 1.0


@pytest.mark.parametrize(
    "wrong", [{"failing_rate": 0.02}, {"open_at_most": 1.0}, {"threshold": 0}, {"consecutive": 0}, {"jitter": 2}]
)
def test_illegal_settings_cannot_be_built(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BreakerSettings(**wrong)  # type: ignore[arg-type]


# --- any order of events ----------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Attempts begin, end, are forced and come too late in any order, with any time between."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(DEFAULTS, 0.0)
        self.out: list[tuple[int, int]] = []  # what was granted, and the generation it was granted in

    def _end(self, number: int, outcome: Outcome, chance: float) -> None:
        granted, generation = self.out.pop(number)
        before = facts(self.breaker)
        moved = self.breaker.settle(granted, outcome, self.now, chance)
        assert moved == (before["state"] is not self.breaker.state)
        if generation != before["generation"]:
            assert before == facts(self.breaker), "a result of an older generation changed something"

    @rule(seconds=st.one_of(st.floats(0, 3), st.floats(0, 200)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def somebody_asks(self) -> None:
        before = facts(self.breaker)
        would = self.breaker.would_admit(self.now)
        assert before == facts(self.breaker), "looking changed something"
        granted = self.breaker.admit(self.now)
        assert would == (granted is not None)
        if granted is not None:
            self.out.append((granted, self.breaker.generation))

    @rule()
    def somebody_is_forced(self) -> None:
        self.out.append((self.breaker.generation, self.breaker.generation))

    @precondition(lambda self: self.out)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), chance=CHANCES)
    def one_ends(self, data: st.DataObject, outcome: Outcome, chance: float) -> None:
        self._end(data.draw(st.integers(0, len(self.out) - 1)), outcome, chance)

    @precondition(lambda self: self.out)
    @rule(chance=CHANCES)
    def the_oldest_fails(self, chance: float) -> None:
        self._end(0, Outcome.FAILURE, chance)

    @rule(count=st.integers(1, 5), chance=CHANCES)
    def several_fail(self, count: int, chance: float) -> None:
        for _ in range(count):
            self.breaker.settle(self.breaker.generation, Outcome.FAILURE, self.now, chance)

    @invariant()
    def at_most_one_probe_is_out(self) -> None:
        if self.breaker.state is BreakerState.HALF_OPEN:
            probes = [1 for granted, generation in self.out if granted < 0 and generation == self.breaker.generation]
            assert len(probes) <= 1
            assert bool(probes) == self.breaker.probe_out

    @invariant()
    def idle_it_admits_someone_if_one_waits(self) -> None:
        """Everything that is out ends without a verdict; then a bounded wait is enough."""
        breaker = copy.copy(self.breaker)
        for granted, _ in self.out:
            breaker.settle(granted, Outcome.IGNORED, self.now, 0.5)
        longest = DEFAULTS.open_at_most * (1 + DEFAULTS.jitter)
        assert breaker.admit(self.now + longest) is not None

    @invariant()
    def evidence_stays_between_nothing_and_the_threshold(self) -> None:
        if self.breaker.state is BreakerState.CLOSED:
            assert 0.0 <= self.breaker.evidence < DEFAULTS.threshold


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = examples(max_examples=60, stateful_step_count=40, deadline=None)


# --- the figures ------------------------------------------------------------------------------------


def calls_to_trip(rate: float, settings: BreakerSettings = DEFAULTS) -> float:
    """The mean number of calls until the evidence trips, from none, with `rate` failing.  Exact.

    From no evidence, a call that fails begins an excursion that ends in a trip or back at none.
    After n calls of it with k failures the evidence is k bad steps less n - k good ones, so the few
    k for which it lies between zero and the threshold are the whole state, and their probabilities
    follow one from another.  By Wald's identity the mean run is the mean length of a cycle (one good
    call, or an excursion) over the chance that a cycle trips.
    """
    good, bad = settings.good_step, settings.bad_step
    tripped, length = 0.0, 1.0 - rate  # of a cycle: a good call at no evidence is one by itself
    living = {1: rate}  # failures so far -> probability
    calls = 1
    while sum(living.values()) > 1e-18:
        following: dict[int, float] = {}
        for failures, weight in living.items():
            evidence = failures * bad - (calls - failures) * good
            if evidence >= settings.threshold:
                tripped += weight
                length += calls * weight
            elif evidence <= 0.0:
                length += calls * weight
            else:
                following[failures + 1] = following.get(failures + 1, 0.0) + weight * rate
                following[failures] = following.get(failures, 0.0) + weight * (1.0 - rate)
        living = following
        calls += 1
    return length / tripped


def in_a_row_to_trip(rate: float, needed: int) -> float:
    """The mean number of calls until `needed` of them in a row have failed: the usual rule."""
    return (rate**-needed - 1.0) / (1.0 - rate) if rate < 1.0 else float(needed)


FIGURES = [
    # normal, broken, threshold; calls between false trips; mean delay at 30, 50, 100 % failing
    (0.02, 0.30, 6.0, (4_500, 5_200), (10, 12), (5, 7), 3),
    (0.02, 0.30, 8.0, (31_000, 34_000), (13, 15), (7, 9), 3),
    (0.02, 0.30, 9.2, (105_000, 120_000), (16, 18), (8, 10), 4),
    (0.01, 0.50, 8.0, (47_000, 53_000), (11, 13), (5.5, 6.5), 3),
]


@pytest.mark.parametrize(("base", "failing", "threshold", "false", "at_30", "at_50", "at_100"), FIGURES)
def test_the_figures_of_the_detector_are_what_they_are_said_to_be(
    base: float,
    failing: float,
    threshold: float,
    false: tuple[float, float],
    at_30: tuple[float, float],
    at_50: tuple[float, float],
    at_100: int,
) -> None:
    settings = BreakerSettings(base_rate=base, failing_rate=failing, threshold=threshold)
    between = calls_to_trip(base, settings)
    delays = [calls_to_trip(rate, settings) for rate in (0.3, 0.5, 1.0)]
    print(
        f"{base:.0%} -> {failing:.0%}, {threshold}: {between:,.0f} calls between false trips; "
        f"{delays[0]:.1f} / {delays[1]:.1f} / {delays[2]:.0f} calls at 30 / 50 / 100 % failing (exact)"
    )
    assert false[0] <= between <= false[1]
    assert at_30[0] <= delays[0] <= at_30[1]
    assert at_50[0] <= delays[1] <= at_50[1]
    assert at_100 == delays[2]


def test_five_in_a_row_the_usual_rule_is_forty_times_slower_on_a_grey_failure() -> None:
    usual, ours = in_a_row_to_trip(0.3, 5), calls_to_trip(0.3)
    print(f"30 % failing: {usual:.0f} calls with five in a row, {ours:.1f} with ours (exact)")
    assert round(usual) == 586
    assert usual > 40 * ours


def simulated(rate: float, seed: int, trials: int) -> tuple[float, float]:
    """Mean and standard error of the calls that real breakers take to trip, one run per trial."""
    chance = random.Random(seed)
    lengths = []
    for _ in range(trials):
        breaker, calls, moved = Breaker(DEFAULTS, 0.0), 0, False
        while not moved:
            calls += 1
            outcome = Outcome.FAILURE if chance.random() < rate else Outcome.SUCCESS
            moved = breaker.settle(0, outcome, calls * 0.01, 0.5)
        lengths.append(calls)
    mean = sum(lengths) / trials
    spread = sqrt(sum((length - mean) ** 2 for length in lengths) / trials)
    return mean, spread / sqrt(trials)


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.9])
def test_real_breakers_take_as_long_as_computed(rate: float) -> None:
    exact, (drawn, error) = calls_to_trip(rate), simulated(rate, seed=1, trials=4000)
    print(f"{rate:.0%} failing: {exact:.2f} calls exact, {drawn:.2f} +- {error:.2f} simulated (n=4000, seed=1)")
    assert abs(exact - drawn) < 4 * error


def test_real_breakers_trip_on_normal_noise_as_rarely_as_computed() -> None:
    seed, calls, trips = 5, 600_000, 0
    chance = random.Random(seed)
    breaker = Breaker(DEFAULTS, 0.0)
    for call in range(calls):
        outcome = Outcome.FAILURE if chance.random() < DEFAULTS.base_rate else Outcome.SUCCESS
        if breaker.settle(breaker.generation, outcome, call * 0.01, 0.5):
            trips += 1
            breaker = Breaker(DEFAULTS, call * 0.01)
    expected = calls / calls_to_trip(DEFAULTS.base_rate)
    print(f"2 % noise: {trips} false trips in {calls:,} calls, {expected:.1f} expected (n={calls:,}, seed={seed})")
    assert abs(expected - trips) < 4 * sqrt(expected)

"""A provider's rate budget: kept, learned, given back, and told by the calendar."""

from __future__ import annotations

import calendar
import heapq
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.policy.quota import RETRY_AFTER_AT_MOST, ProviderBudget, QuotaSettings

NOON = float(calendar.timegm((2026, 2, 28, 12, 0, 0)))


def budget(wall: float = NOON, **settings: float) -> ProviderBudget:
    return ProviderBudget(QuotaSettings(**settings), 0.0, wall)  # type: ignore[arg-type]


def test_without_a_limit_everything_is_granted() -> None:
    free = budget()
    assert all(free.take(100.0, n / 1000) for n in range(10_000))
    assert free.left(10.0) == 1.0
    assert free.snapshot(10.0) == {"left": 1.0}


@given(st.lists(st.floats(0.0, 2.0), max_size=200), st.floats(1.0, 100.0), st.floats(1.0, 50.0))
def test_over_any_span_no_more_is_granted_than_rate_and_burst(pauses: list[float], rate: float, burst: float) -> None:
    limited = budget(rate=rate, burst=burst)
    now, granted = 0.0, []
    for pause in pauses:
        now += pause
        if limited.take(1.0, now):
            granted.append(now)
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            assert last - first + 1 <= rate * (granted[last] - granted[first]) + burst + 1e-6


@pytest.mark.parametrize(
    ("name", "opens"),
    [
        ("per_minute", 60.0),
        ("per_hour", 3600.0),
        ("per_day", 12 * 3600.0),
        ("per_month", 12 * 3600.0),  # the 28th of February 2026 is its last day
    ],
)
def test_an_allowance_is_renewed_by_the_calendar(name: str, opens: float) -> None:
    limited = budget(**{name: 10.0})
    assert sum(limited.take(1.0, 1.0) for _ in range(20)) == 10
    assert limited.available_after(1.0, 1.0) == pytest.approx(opens - 1.0)
    assert not limited.take(1.0, opens - 0.1)
    assert limited.take(1.0, opens + 0.1)


def test_every_month_ends_when_it_ends_for_thirty_years() -> None:
    """An idle budget finds the present month again, however many have passed; 2100 is no leap year."""
    for year in (*range(2020, 2050), 2100):
        limited = budget(float(calendar.timegm((year, 1, 1, 0, 0, 0))), per_month=1.0)
        now = 1.0
        for month in range(1, 13):
            length = calendar.monthrange(year, month)[1] * 86400.0
            now += 86400.0 * 9.27
            assert limited.take(1.0, now)
            ends = calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))
            ends -= calendar.timegm((year, 1, 1, 0, 0, 0))
            assert limited.available_after(1.0, now) == pytest.approx(ends - now, abs=0.01), (year, month, length)
            now = ends + 0.01


@pytest.mark.parametrize("period", ["minute", "hour", "day", "month"])
def test_no_window_opens_twice_at_its_boundary(period: str) -> None:
    """Instants of both clocks are rounded; 300 starts at random, seed 13, and every tenth of a microsecond."""
    chance = random.Random(13)
    for _ in range(300):
        started, wall = chance.uniform(0, 1e7), chance.uniform(1.7e9, 1.9e9)
        limited = ProviderBudget(QuotaSettings(**{f"per_{period}": 1.0}), started, wall)
        assert limited.take(1.0, started)
        boundary = started + limited.available_after(1.0, started)
        around = sorted([boundary, *(boundary + n * 1e-7 for n in range(-5, 20))])
        assert sum(limited.take(1.0, now) for now in around) == 1
        assert limited.available_after(1.0, boundary + 0.01) > 50


def test_a_call_that_costs_more_than_all_that_can_be_saved_up_waits_until_it_is_whole_and_is_paid_for() -> None:
    units = budget(compute=True, rate=10.0, burst=20.0)
    assert units.take(50.0, 0.0)
    assert units.available_after(1.0, 0.0) == pytest.approx(3.1)
    assert units.available_after(50.0, 0.0) == pytest.approx(5.0)
    windowed = budget(compute=True, per_minute=100.0)
    assert windowed.take(250.0, 1.0)
    assert windowed.available_after(1.0, 1.0) == pytest.approx(59.0, abs=0.01)
    assert windowed.take(1.0, 60.1)
    assert not windowed.take(250.0, 60.2)


def test_compute_units_are_counted_where_the_vendor_counts_them() -> None:
    units, requests = budget(compute=True, per_minute=100.0), budget(per_minute=100.0)
    assert sum(units.take(10.0, 1.0) for _ in range(50)) == 10
    assert sum(requests.take(10.0, 1.0) for _ in range(50)) == 50


# --- told -------------------------------------------------------------------------------------------


def test_retry_after_is_honoured_and_ends() -> None:
    limited = budget()
    limited.throttled(1.0, 5.0)
    assert not limited.take(1.0, 5.9)
    assert limited.available_after(1.0, 2.0) == pytest.approx(4.0)
    assert limited.take(1.0, 6.1)


def test_a_shorter_retry_after_does_not_shorten_one_in_force_and_an_endless_one_is_cut() -> None:
    limited = budget()
    limited.throttled(1.0, 100.0)
    limited.throttled(2.0, 1.0)
    assert limited.available_after(1.0, 2.0) == pytest.approx(99.0)
    limited.throttled(3.0, 1e7)
    assert limited.available_after(1.0, 3.0) == RETRY_AFTER_AT_MOST


@pytest.mark.parametrize(
    ("period", "reset"),
    [
        ("second", 1.0),
        ("minute", 60.0),
        ("hour", 3600.0),
        ("day", 12 * 3600.0),
        ("month", 12 * 3600.0),  # noon of a month's last day
        ("fortnight", 60.0),
        (None, 60.0),
    ],
)
def test_a_quota_that_is_used_up_is_left_alone_until_its_reset(period: str | None, reset: float) -> None:
    limited = budget()
    limited.spent(0.0, None, period)
    assert limited.left(reset / 2) == 0.0
    assert not limited.take(1.0, reset - 0.01)
    assert limited.available_after(1.0, reset / 2) == pytest.approx(reset / 2, abs=0.01)
    assert limited.take(1.0, reset + 0.01)
    assert limited.left(reset + 0.01) == 1.0


def test_a_reset_that_the_vendor_names_outranks_the_calendar() -> None:
    limited = budget()
    limited.spent(1.0, 3600.0, "month")
    assert not limited.take(1.0, 3600.0)
    assert limited.take(1.0, 3602.0)


def test_a_probe_that_is_answered_ends_what_the_account_was_told() -> None:
    limited = budget()
    limited.spent(1.0, None, "month")
    limited.told(100.0, 1.0, 5000.0, 1.0)
    limited.renewed(10.0)
    assert limited.left(10.0) == 1.0
    assert limited.take(1.0, 10.0)


def test_headers_that_say_nothing_is_left_are_believed_and_odd_ones_are_not() -> None:
    limited = budget()
    limited.told(100.0, 0.0, 10.0, 1.0)
    assert not limited.take(1.0, 10.9)
    assert limited.take(1.0, 11.1)
    limited.told(100.0, 0.0, 1e9, 12.0)
    limited.told(100.0, None, 10.0, 12.0)
    limited.told(100.0, 0.0, None, 12.0)
    assert limited.take(1.0, 12.0)


def test_a_header_alone_silences_an_account_for_a_day_at_most() -> None:
    limited = budget()
    limited.told(100.0, 0.0, 20 * 86400.0, 0.0)
    assert limited.available_after(1.0, 0.0) == 86400.0


def test_a_header_that_names_its_period_needs_no_reset() -> None:
    limited = budget()
    limited.told(5.0, 0.0, None, 30.0, "minute")
    assert limited.available_after(1.0, 30.0) == pytest.approx(30.0, abs=0.01)


def test_what_headers_say_is_left_stops_hedges_and_audits_but_no_calls() -> None:
    told = budget()
    told.told(1000.0, 100.0, 600.0, 1.0)
    assert told.left(2.0) == pytest.approx(0.1)
    assert told.left(2.0) < told.reserve
    assert told.take(1.0, 2.0)
    assert told.left(602.0) == 1.0


# --- learning ---------------------------------------------------------------------------------------


def token_bucket(rate: float, burst: float) -> Callable[[float], bool]:
    """A server that saves up what is not asked of it, up to `burst`."""
    tokens, at = burst, 0.0

    def accepts(now: float) -> bool:
        nonlocal tokens, at
        tokens, at = min(burst, tokens + (now - at) * rate), now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return accepts


def fixed_window(rate: float, counts_refused: bool) -> Callable[[float], bool]:
    """A server that counts from each full second on; the strict kind counts what it refuses, too."""
    second, used = -1, 0

    def accepts(now: float) -> bool:
        nonlocal second, used
        if int(now) != second:
            second, used = int(now), 0
        fits = used < rate
        used += fits or counts_refused
        return fits

    return accepts


SERVERS: dict[str, Callable[[float], Callable[[float], bool]]] = {
    "a second saved up": lambda rate: token_bucket(rate, rate),
    "little saved up": lambda rate: token_bucket(rate, max(2.0, rate / 10)),
    "seconds": lambda rate: fixed_window(rate, False),
    "strict seconds": lambda rate: fixed_window(rate, True),
}


def asked(
    learning: ProviderBudget,
    accepts: Callable[[float], bool],
    wanted: float,
    seed: int,
    lasts: float = 160.0,
    cost: float = 1.0,
) -> tuple[float, float]:
    """Ask `wanted` times a second at random; gives what was accepted a second and the share refused, from 60 s on.

    A refusal is known 25 to 75 ms after its call left.
    """
    chance = random.Random(seed)
    refusals: list[float] = []
    ends = Counter[bool]()
    now = 0.0
    while now < lasts:
        now += chance.expovariate(wanted)
        while refusals and refusals[0] <= now:
            learning.throttled(heapq.heappop(refusals))
        if not learning.take(cost, now):
            continue
        taken = accepts(now)
        if not taken:
            heapq.heappush(refusals, now + 0.025 + 0.05 * chance.random())
        if now > 60.0:
            ends[taken] += 1
    return ends[True] / (lasts - 60.0), ends[False] / max(1, ends.total())


@pytest.mark.parametrize("rate", [50.0, 200.0])
@pytest.mark.parametrize("server", SERVERS)
def test_a_learned_rate_comes_within_a_tenth_of_the_servers_own_and_is_rarely_refused(server: str, rate: float) -> None:
    seed = 7
    learning = budget()
    taken, refused = asked(learning, SERVERS[server](rate), 2 * rate, seed)
    print(
        f"{server}, {rate:.0f}/s, asked twice that for 100 s, seed {seed}: {taken / rate:.1%} used, {refused:.1%} 429"
    )
    assert 0.9 * rate <= taken <= 1.01 * rate
    assert refused <= 0.05
    assert learning.learned is not None
    assert 0.8 * rate <= learning.learned <= 1.35 * rate  # on its way between two refusals


@pytest.mark.parametrize("server", SERVERS)
def test_a_small_limit_is_learned_too_if_more_coarsely(server: str) -> None:
    seed, rate = 3, 5.0
    taken, refused = asked(budget(), SERVERS[server](rate), 4 * rate, seed, 460.0)
    print(
        f"{server}, {rate:.0f}/s, asked four times that for 400 s, seed {seed}: {taken / rate:.1%}, {refused:.1%} 429"
    )
    assert 0.8 * rate <= taken <= 1.01 * rate
    assert refused <= 0.12


def test_what_was_learned_is_forgotten_when_nothing_is_refused() -> None:
    learning = budget()
    for n in range(100):
        learning.take(1.0, n / 100)
    learning.throttled(1.0)
    assert learning.learned is not None
    learning.take(1.0, 400.0)
    assert learning.learned is None
    assert all(learning.take(1.0, 400.0) for _ in range(1000))


def test_a_limit_that_is_raised_is_found_within_a_minute() -> None:
    """From 20 to 200 a second; callers want 100."""
    seed, learning, chance, now, refused, taken = 5, budget(), random.Random(5), 0.0, 0, 0
    before, after = token_bucket(20.0, 20.0), token_bucket(200.0, 200.0)
    while now < 130.0:
        now += chance.expovariate(100.0)
        if not learning.take(1.0, now):
            continue
        accepted = (before if now < 60.0 else after)(now)
        if not accepted:
            learning.throttled(now)
        if now > 120.0:
            taken += accepted
            refused += not accepted
    print(f"seed {seed}: {taken / 10:.0f} of 100 a second, one minute after; {refused} refused")
    assert taken / 10 >= 90
    assert refused == 0


def learned(rate: float, cost: float = 1.0) -> ProviderBudget:
    """A budget that was asked `rate` times a second for four seconds and then refused once, at 4.0."""
    learning = budget(compute=cost != 1.0)
    for n in range(int(4 * rate)):
        learning.take(cost, n / rate)
    learning.throttled(4.0)
    return learning


def test_what_was_accepted_is_learned_less_a_twentieth() -> None:
    assert learned(100.0).learned == pytest.approx(0.95 * 100.0, rel=0.01)


def test_refusals_that_come_together_are_one_piece_of_news() -> None:
    one, many = learned(100.0), learned(100.0)
    for n in range(150):
        many.throttled(4.0 + n / 200)
    assert many.learned == one.learned


def test_refused_calls_count_with_what_they_cost() -> None:
    learning = learned(100.0, 20.0)
    for _ in range(199):  # with the one before, half of the calls
        learning.throttled(4.0)
    learning.throttled(5.0)
    assert learning.learned == pytest.approx(0.95 * 0.5 * 400 * 20.0 / 5.0, rel=0.01)


def test_no_more_than_half_a_second_of_a_learned_rate_is_saved_up() -> None:
    learning = learned(100.0)
    assert sum(learning.take(1.0, 60.0) for _ in range(200)) == 47


def test_a_learned_rate_that_nobody_needs_does_not_grow() -> None:
    learning = learned(100.0)
    assert learning.take(1.0, 5.0)
    before = learning.learned
    assert all(learning.take(1.0, 6.0 + second) for second in range(200))
    assert learning.learned == before


def test_a_learned_rate_is_never_above_the_configured_one() -> None:
    learning = budget(rate=10.0, burst=10.0)
    for n in range(3000):
        if learning.take(1.0, n / 100):
            learning.throttled(n / 100) if n % 100 == 0 else None
        assert learning.learned is None or learning.learned <= 10.0


def test_a_rate_in_compute_units_is_learned_in_compute_units() -> None:
    """Refused calls count with what they cost: of 2000 units a second, 1000 are accepted."""
    seed, learning = 11, budget(compute=True)
    taken, refused = asked(learning, token_bucket(50.0, 50.0), 100.0, seed, cost=20.0)
    print(f"calls of 20 units, 50 of 100 a second accepted, seed {seed}: {taken:.1f} taken, {refused:.1%} 429")
    assert 45.0 <= taken <= 50.5
    assert refused <= 0.05
    assert learning.learned is not None
    assert 800.0 <= learning.learned <= 1350.0


# --- whatever happens -------------------------------------------------------------------------------


class Budgeting(RuleBasedStateMachine):
    """Calls, refusals, headers and time in any order, against a record of everything that was granted."""

    @initialize(
        compute=st.booleans(),
        rate=st.sampled_from([0.0, 0.5, 3.0, 40.0]),
        burst=st.sampled_from([0.0, 1.0, 10.0]),
        per_minute=st.sampled_from([0.0, 5.0, 100.0]),
        per_day=st.sampled_from([0.0, 20.0, 1000.0]),
        wall=st.integers(0, 4 * 10**9),
    )
    def begin(self, compute: bool, rate: float, burst: float, per_minute: float, per_day: float, wall: int) -> None:
        settings = QuotaSettings(compute=compute, rate=rate, burst=burst, per_minute=per_minute, per_day=per_day)
        self.settings, self.wall = settings, wall
        self.now = 0.0
        self.silent_until = 0.0
        self.granted: list[tuple[float, float, float]] = []  # when, cost, and the burst there was
        self.budget = ProviderBudget(settings, 0.0, wall)

    def take(self, cost: float) -> None:
        wait = self.budget.available_after(cost, self.now)
        saved_up = self.budget._burst
        took = self.budget.take(cost, self.now)
        assert took == (wait == 0), "what is said of the wait is what happens"
        if took:
            assert self.now >= self.silent_until - 1e-6, "Retry-After is honoured"
            self.granted.append((self.now, cost if self.settings.compute else 1.0, saved_up))

    @rule(cost=st.sampled_from([1.0, 2.0, 20.0]), times=st.integers(1, 8))
    def call(self, cost: float, times: int) -> None:
        for _ in range(times):
            self.take(cost)

    @rule(cost=st.sampled_from([1.0, 20.0]))
    def call_as_soon_as_may_be(self, cost: float) -> None:
        for _ in range(4):  # the minute's end, the day's, the bucket's
            self.now += self.budget.available_after(cost, self.now) + 1e-4
        assert self.budget.available_after(cost, self.now) == 0
        self.take(cost)

    @rule(span=st.sampled_from([0.0017, 0.31, 1.0, 7.0, 59.0, 400.0, 86400.0]))
    def time_passes(self, span: float) -> None:
        self.now += span

    @rule(retry_after=st.sampled_from([None, 0.0, 2.0, 1e9]))
    def refused(self, retry_after: float | None) -> None:
        self.budget.throttled(self.now, retry_after)
        self.silent_until = max(self.silent_until, self.now + min(retry_after or 0.0, RETRY_AFTER_AT_MOST))

    @rule(
        limit=st.sampled_from([None, 0.0, 10.0]),
        remaining=st.sampled_from([None, 0.0, 3.0, 11.0]),
        reset=st.sampled_from([None, -1.0, 0.0, 5.0, 1e6, 1e12]),
        period=st.sampled_from([None, "second", "month", "?"]),
    )
    def headers(self, limit: float | None, remaining: float | None, reset: float | None, period: str | None) -> None:
        self.budget.told(limit, remaining, reset, self.now, period)

    @rule(seconds=st.sampled_from([None, 0.0, 100.0, 1e12]), period=st.sampled_from([None, "day", "month"]))
    def used_up(self, seconds: float | None, period: str | None) -> None:
        self.budget.spent(self.now, seconds, period)

    @rule()
    def answered_probe(self) -> None:
        self.budget.renewed(self.now)
        self.silent_until = self.now

    @invariant()
    def nothing_is_out_of_its_bounds(self) -> None:
        assert 0.0 <= self.budget.left(self.now) <= 1.0
        assert 0.0 <= self.budget.available_after(1.0, self.now) <= 32 * 86400.0 + 1.0
        learned = self.budget.learned
        assert learned is None or learned > 0
        assert learned is None or not self.settings.rate or learned <= self.settings.rate
        assert len(self.budget._windows) <= 4
        assert self.budget.snapshot(self.now)["left"] <= 1.0

    def teardown(self) -> None:
        """Over any span, no more than rate x span + burst; in any window, no more than its allowance."""
        settings = self.settings
        if settings.rate:
            burst = settings.burst or max(settings.rate, 1.0)
            for first, (began, _, _) in enumerate(self.granted):
                total = 0.0
                for ended, cost, saved_up in self.granted[first:]:
                    total += cost
                    beyond = max(0.0, cost - saved_up)  # of one call that costs more than can be saved up
                    assert total <= settings.rate * (ended - began) + burst + beyond + 1e-6
        for length, allowance in ((60.0, settings.per_minute), (86400.0, settings.per_day)):
            if allowance:
                used = Counter[int]()
                for at, cost, _ in self.granted:
                    window = int((self.wall + at) // length)
                    assert not used[window] or used[window] + cost <= allowance + 1e-6
                    used[window] += cost  # type: ignore[assignment]


TestBudgeting = Budgeting.TestCase
TestBudgeting.settings = examples(max_examples=120, stateful_step_count=40, deadline=None)


# --- what is not a caller's, and what was never sent --------------------------------------------------


def test_a_question_of_our_own_is_counted_and_never_refused_and_callers_wait_for_it() -> None:
    limited = budget(rate=1.0, burst=2.0, per_day=100.0)
    for _ in range(4):
        limited.charge(1.0, 0.0)
    assert limited.snapshot(0.0)["used_this_day"] == 4
    assert limited.available_after(1.0, 0.0) == pytest.approx(3.0)
    assert not limited.take(1.0, 2.9)
    assert limited.take(1.0, 3.1)


def test_what_was_never_sent_is_given_back_and_never_more_than_that() -> None:
    limited = budget(rate=1.0, burst=5.0, per_day=100.0)
    assert limited.take(1.0, 0.0)
    limited.returned(1.0)
    assert (limited.snapshot(0.0)["used_this_day"], limited.left(0.0)) == (0, 1.0)
    limited.returned(1.0)
    assert sum(limited.take(1.0, 0.0) for _ in range(10)) == 5


def test_an_allowance_is_used_up_at_its_last_unit_and_not_before_and_anew_with_its_window() -> None:
    limited = budget(per_day=3.0)
    assert [limited.used_up(0.0) for _ in range(4) if limited.take(1.0, 0.0)] == [False, False, True]
    assert not limited.used_up(12 * 3600.0 + 1)
    assert not budget(rate=1.0).used_up(0.0), "a rate comes back by itself"


def test_new_settings_of_an_account_do_not_forget_what_it_has_spent() -> None:
    before = budget(per_day=100.0, per_minute=50.0)
    assert all(before.take(1.0, 0.0) for _ in range(40))
    before.spent(0.0, 30.0)
    after = ProviderBudget(QuotaSettings(per_day=60.0, per_hour=1000.0), 1.0, NOON + 1.0)
    after.inherit(before)
    assert after.snapshot(1.0)["used_this_day"] == 40
    assert after.available_after(1.0, 1.0) == pytest.approx(29.0)
    other_units = ProviderBudget(QuotaSettings(per_day=60.0, compute=True), 1.0, NOON + 1.0)
    other_units.inherit(before)
    assert other_units.snapshot(1.0)["used_this_day"] == 0


def test_a_header_is_believed_until_a_call_that_was_sent_after_it_is_answered_all_the_same() -> None:
    told = budget()
    told.told(100.0, 0.0, 3600.0, 10.0, answered_from=9.0)
    told.told(100.0, 0.0, 3590.0, 20.0, answered_from=9.5)  # was under way already
    assert not told.take(1.0, 21.0)
    told.told(100.0, 0.0, 3580.0, 30.0, answered_from=29.0)
    assert told.take(1.0, 30.0)
    told.told(100.0, 0.0, 3500.0, 110.0, answered_from=109.0)
    assert told.take(1.0, 110.0), "such headers are passed over from then on"


def test_a_refusal_is_no_proof_that_a_limit_is_not_kept() -> None:
    told = budget()
    told.told(100.0, 0.0, 3600.0, 10.0, answered_from=9.0)
    told.told(100.0, 0.0, 3590.0, 20.0, answered_from=None)
    assert not told.take(1.0, 21.0)

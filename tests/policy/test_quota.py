"""A provider's rate budget: kept, learned, given back, and told by the calendar."""

from __future__ import annotations

import calendar
import heapq
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.quota import ProviderBudget, QuotaSettings

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


@pytest.mark.parametrize("month", range(1, 13))
@pytest.mark.parametrize("year", [2023, 2024, 2100])
def test_every_month_ends_when_it_ends(year: int, month: int) -> None:
    wall = float(calendar.timegm((year, month, 10, 6, 30, 0)))
    after = calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))
    limited = budget(wall, per_month=1.0)
    limited.take(1.0, 0.0)
    assert limited.available_after(1.0, 0.0) == pytest.approx(after - wall)


def test_compute_units_are_counted_where_the_vendor_counts_them() -> None:
    units, requests = budget(compute=True, per_minute=100.0), budget(per_minute=100.0)
    assert sum(units.take(10.0, 1.0) for _ in range(50)) == 10
    assert sum(requests.take(10.0, 1.0) for _ in range(50)) == 50


def test_retry_after_is_honoured_and_ends() -> None:
    limited = budget()
    limited.throttled(1.0, 5.0)
    assert not limited.take(1.0, 5.9)
    assert limited.available_after(1.0, 2.0) == pytest.approx(4.0)
    assert limited.take(1.0, 6.1)


def test_a_quota_that_is_used_up_is_left_alone_until_its_reset() -> None:
    limited = budget()
    limited.spent(1.0, 3600.0)
    assert limited.left(100.0) == 0.0
    assert not limited.take(1.0, 3600.0)
    assert limited.take(1.0, 3602.0)


def test_headers_that_say_nothing_is_left_are_believed_and_odd_ones_are_not() -> None:
    limited = budget()
    limited.told(100.0, 0.0, 10.0, 1.0)
    assert not limited.take(1.0, 10.9)
    assert limited.take(1.0, 11.1)
    limited.told(100.0, 0.0, 1e9, 12.0)
    limited.told(100.0, None, 10.0, 12.0)
    assert limited.take(1.0, 12.0)


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
    learning: ProviderBudget, accepts: Callable[[float], bool], wanted: float, seed: int, lasts: float = 160.0
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
        if not learning.take(1.0, now):
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


@given(st.lists(st.tuples(st.sampled_from(["take", "429", "told"]), st.floats(0, 5)), max_size=100))
def test_whatever_happened_it_is_asked_again_after_a_time(events: list[tuple[str, float]]) -> None:
    limited = budget(rate=10.0)
    now = 0.0
    for what, pause in events:
        now += pause
        if what == "take":
            limited.take(1.0, now)
        elif what == "429":
            limited.throttled(now, pause)
        else:
            limited.told(10.0, 0.0, pause, now)
    wait = limited.available_after(1.0, now)
    assert wait <= 10.0
    assert limited.take(1.0, now + wait + 1e-6)

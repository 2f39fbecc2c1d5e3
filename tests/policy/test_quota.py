"""A provider's rate budget: kept, learned, given back, and told by the calendar."""

from __future__ import annotations

import calendar
import random
from collections import Counter

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


def test_a_learned_rate_finds_the_servers_own() -> None:
    """A server that takes 50 a second, callers that want 200: most of the 50, few refusals."""
    seed, allowed, wanted = 2, 50.0, 200.0
    chance = random.Random(seed)
    learning = budget()
    tokens, ends, last = allowed, Counter[str](), 0.0
    now = 0.0
    while now < 120.0:
        now += chance.expovariate(wanted)
        if not learning.take(1.0, now):
            continue
        tokens = min(allowed, tokens + (now - last) * allowed)
        last = now
        late = now > 20.0
        if tokens >= 1.0:
            tokens -= 1.0
            ends["taken"] += late
        else:
            learning.throttled(now)
            ends["refused"] += late
    taken, refused = ends["taken"] / 100.0, ends["refused"] / (ends["taken"] + ends["refused"])
    print(f"seed {seed}: {taken:.1f} of {allowed:.0f} a second taken, {refused:.1%} refused")
    assert 0.8 * allowed <= taken <= allowed * 1.01
    assert refused < 0.12


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

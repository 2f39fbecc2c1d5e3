"""The limit of calls at once: it falls with refusals, returns with good answers, and stays in its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.concurrency import ConcurrencyLimit, ConcurrencySettings

SETTINGS = ConcurrencySettings()


def test_nothing_is_restricted_before_something_was_refused() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    for n in range(1000):
        limit.worked(n, float(n))
    assert limit.limit == 1024


def test_a_refusal_takes_a_tenth_of_what_was_under_way() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    limit.dropped(100, 1.0)
    assert limit.limit == 90


def test_refusals_that_come_together_are_one_piece_of_news() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    for _ in range(50):
        limit.dropped(100, 1.0)
    assert limit.limit == 90


def test_as_many_good_answers_as_the_limit_is_large_give_one_back() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    limit.dropped(10, 1.0)
    for _ in range(9):
        limit.worked(8, 2.0)
    assert limit.limit == 10


def test_a_limit_that_nobody_reaches_does_not_grow() -> None:
    limit = ConcurrencyLimit(SETTINGS, 1024)
    limit.dropped(100, 1.0)
    for _ in range(10_000):
        limit.worked(10, 2.0)
    assert limit.limit == 90


def test_it_finds_what_a_server_can_take() -> None:
    """A server that refuses beyond 40 at once: the limit hovers around 40."""
    limit = ConcurrencyLimit(SETTINGS, 1024)
    seen = []
    now = 0.0
    for _ in range(400):
        now += 1.0
        if limit.limit > 40:
            limit.dropped(limit.limit if limit.limit < 1024 else 200, now)
        else:
            for _ in range(limit.limit):
                limit.worked(limit.limit - 1, now)
        seen.append(limit.limit)
    assert 34 <= min(seen[100:]) <= max(seen[100:]) <= 41


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.booleans(), st.integers(0, 100), st.floats(0, 5)), max_size=200),
)
def test_the_limit_stays_in_its_bounds(most: int, events: list[tuple[bool, int, float]]) -> None:
    limit = ConcurrencyLimit(SETTINGS, most)
    now = 0.0
    for refused, in_flight, pause in events:
        now += pause
        (limit.dropped if refused else limit.worked)(in_flight, now)
        assert min(SETTINGS.at_least, most) <= limit.limit <= most

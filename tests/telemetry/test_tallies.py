from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.tallies import BUCKETS, LatencyHistogram, ReasonCounter, SeriesBudget, Tally

seconds = st.one_of(st.floats(0, 100), st.sampled_from(BUCKETS))


@given(durations=st.lists(seconds, max_size=50))
def test_a_histogram_agrees_with_counting_by_hand(durations: list[float]) -> None:
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.observe(duration)
    bounds = (*BUCKETS, float("inf"))
    assert histogram.cumulative() == [sum(duration <= bound for duration in durations) for bound in bounds]
    assert histogram.count == len(durations)
    assert histogram.total == pytest.approx(sum(durations))


@given(durations=st.lists(seconds, max_size=30))
def test_the_hot_path_counts_what_observe_counts(durations: list[float]) -> None:
    histogram = LatencyHistogram()
    tally = Tally(LatencyHistogram(), frozenset(), SeriesBudget(0), None)
    for duration in durations:
        histogram.observe(duration)
        tally.done(duration)
    assert (tally.duration.counts, tally.duration.total) == (histogram.counts, histogram.total)
    assert tally.good == len(durations)


ENDINGS = frozenset("abcdefgh")


@given(
    room=st.integers(0, 6),
    events=st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcdefgh?!")), max_size=80),
)
def test_nothing_is_lost_when_the_series_run_out(room: int, events: list[tuple[int, str]]) -> None:
    budget = SeriesBudget(room)
    last = Tally(LatencyHistogram(), ENDINGS, budget, None)
    tallies = [Tally(LatencyHistogram(), ENDINGS, budget, last) for _ in range(4)]
    for index, ending in events:
        tallies[index].ended(ending, 0.1)
    assert sum(sum(tally.otherwise.values()) for tally in (*tallies, last)) == len(events)
    assert sum(len(tally.otherwise) for tally in tallies) <= room
    assert set(last.otherwise) <= ENDINGS | {"other"}


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=50),
    whole=st.integers(0, 20),
    part=st.integers(0, 20),
)
def test_a_budget_never_grants_more_than_it_or_its_whole_has(
    steps: list[tuple[bool, int]], whole: int, part: int
) -> None:
    outer = SeriesBudget(whole)
    inner = SeriesBudget(part, whole=outer)
    for from_inner, series in steps:
        before = (outer.taken, inner.taken)
        granted = (inner if from_inner else outer).take(series)
        assert outer.taken == before[0] + (series if granted else 0)
        assert inner.taken == before[1] + (series if granted and from_inner else 0)
        assert inner.taken <= part and outer.taken <= whole


@given(reasons=st.lists(st.text(max_size=50), max_size=200))
def test_reasons_stay_a_closed_set_and_all_are_counted(reasons: list[str]) -> None:
    counter = ReasonCounter(("known",), limit=5)
    for reason in reasons:
        counter.count(reason)
    counts = dict(counter)
    assert len(counts) <= 7
    assert sum(counts.values()) == len(reasons)


def test_a_reason_that_is_no_word_is_other() -> None:
    counter = ReasonCounter(limit=10)
    for reason in ("head_too_large", "Bad Word", "a" * 41, 'x"}\n', "é"):
        counter.count(reason)
    assert dict(counter) == {"other": 4, "head_too_large": 1}

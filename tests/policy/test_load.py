"""The cost of an endpoint: positive, growing with what is in flight, quick to notice and slow to forgive."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.policy.load import PeakEwma

LATENCIES = st.floats(1e-6, 60)
SEEN = st.lists(st.tuples(st.floats(0, 30), LATENCIES), max_size=20)


def load_of(seen: list[tuple[float, float]], prior: float = 0.03, decay: float = 10.0) -> tuple[PeakEwma, float]:
    load, now = PeakEwma(prior, decay, 0.0), 0.0
    for passed, latency in seen:
        now += passed
        load.observe(latency, now)
    return load, now


@given(SEEN, st.floats(0, 1e7), st.floats(0.1, 600))
@examples(max_examples=150)
def test_the_cost_is_positive_whatever_was_seen_and_however_long_ago(
    seen: list[tuple[float, float]], idle: float, decay: float
) -> None:
    load, now = load_of(seen, decay=decay)
    assert load.cost(now + idle) > 0.0


@given(SEEN, st.floats(0, 1e7), st.integers(0, 1000))
@examples(max_examples=150)
def test_one_more_in_flight_always_costs_more(seen: list[tuple[float, float]], idle: float, in_flight: int) -> None:
    load, now = load_of(seen)
    load.in_flight = in_flight
    before = load.cost(now + idle)
    load.in_flight += 1
    assert load.cost(now + idle) > before


@given(SEEN, st.floats(0, 30), LATENCIES)
@examples(max_examples=150)
def test_an_estimate_lies_between_what_it_was_and_what_was_seen(
    seen: list[tuple[float, float]], passed: float, latency: float
) -> None:
    load, now = load_of([(0.0, 0.1), *seen])
    before = load.estimate
    load.observe(latency, now + passed)
    assert min(before, latency) * (1 - 1e-9) <= load.estimate <= max(before, latency) * (1 + 1e-9)
    if latency > before:
        assert latency == load.estimate, "a slow answer is noticed at once"


def test_a_slow_answer_is_noticed_at_once_and_forgiven_slowly() -> None:
    load, _ = load_of([(0.0, 0.002), (0.1, 0.5)])
    assert load.estimate == 0.5
    load.observe(0.002, 0.2)
    assert 0.45 < load.estimate < 0.5
    load.observe(0.002, 100.0)
    assert load.estimate < 0.003


def test_an_unknown_endpoint_costs_its_prior_and_the_first_answer_replaces_it() -> None:
    load = PeakEwma(0.03, 10.0, 0.0)
    assert load.cost(0.0) == 0.03
    load.observe(0.001, 0.0)
    assert load.cost(0.0) == 0.001


def test_an_endpoint_that_was_slow_once_is_looked_at_again_instead_of_starving() -> None:
    slow, _ = load_of([(0.0, 2.0)])
    fast = 0.05
    assert slow.cost(1.0) > fast
    assert slow.cost(60.0) < fast

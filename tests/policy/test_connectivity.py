"""Whose fault it is that nobody is reached: contrast with others decides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.connectivity import DEFERRED_AT_MOST, Connectivity

PROVIDERS = ["a", "b", "c"]


def test_while_nobody_is_reached_nothing_counts() -> None:
    net = Connectivity(3)
    assert not any(net.unreached(PROVIDERS[n % 3], n, float(n)) for n in range(300))
    assert net.local_fault_since(299.0) == 0.0


def test_what_was_deferred_counts_as_soon_as_another_is_reached() -> None:
    net = Connectivity(3)
    assert not net.unreached("a", "first", 1.0)
    assert not net.unreached("a", "second", 2.0)
    assert net.reached("b", 2.5) == ["first", "second"]
    assert net.unreached("a", "third", 3.0), "b was reached since a's failures began"
    assert net.local_fault_since(3.0) is None


def test_who_is_reached_again_is_not_blamed_for_the_time_before() -> None:
    net = Connectivity(2)
    for n in range(5):
        net.unreached("a", ("a", n), float(n))
        net.unreached("b", ("b", n), float(n))
    assert [token for token in net.reached("a", 9.0) if token[0] == "a"] == []  # type: ignore[index]
    assert net.reached("b", 9.1) == []
    assert not net.unsettled


def test_when_our_own_network_comes_back_nobody_is_convicted() -> None:
    net = Connectivity(3)
    for n in range(30):
        net.unreached(PROVIDERS[n % 3], n, float(n))
    assert net.reached("b", 30.0) == []
    assert not net.unsettled
    assert not net.unreached("a", 99, 31.0), "a streak that began anew needs a contrast of its own"


def test_an_answer_from_before_the_failures_began_is_no_contrast() -> None:
    net = Connectivity(2)
    net.reached("b", 0.5)
    assert not net.unreached("a", 1, 1.0)


def test_with_a_single_provider_failures_count_at_once_and_our_own_network_is_not_blamed() -> None:
    net = Connectivity(1)
    assert all(net.unreached("a", n, float(n)) for n in range(10))
    assert net.local_fault_since(10.0) is None


def test_a_few_failures_are_no_local_fault() -> None:
    net = Connectivity(3)
    net.unreached("a", 1, 1.0)
    net.unreached("b", 2, 1.1)
    assert net.local_fault_since(1.2) is None
    net.unreached("c", 3, 1.3)
    assert net.local_fault_since(1.3) == 1.0


def test_a_fault_of_long_ago_is_not_told_of_now() -> None:
    net = Connectivity(2)
    for n in range(4):
        net.unreached(PROVIDERS[n % 2], n, float(n))
    assert net.local_fault_since(4.0) is not None
    assert net.local_fault_since(100.0) is None


def test_what_is_kept_is_bounded() -> None:
    net = Connectivity(2)
    for n in range(100_000):
        net.unreached("a", n, float(n))
    assert len(net.reached("b", 1e6)) == DEFERRED_AT_MOST


@given(st.lists(st.tuples(st.sampled_from(PROVIDERS), st.booleans()), max_size=60), st.sampled_from(PROVIDERS))
def test_every_failure_of_the_only_dead_provider_counts_at_the_next_answer(
    events: list[tuple[str, bool]], dead: str
) -> None:
    """One provider is dead and the others answer: nothing of what it does is forgiven."""
    net = Connectivity(3)
    failed = counted = 0
    for now, (provider, _) in enumerate(events):
        if provider == dead:
            failed += 1
            counted += net.unreached(provider, provider, float(now))
        else:
            counted += len(net.reached(provider, float(now)))
    other = next(name for name in PROVIDERS if name != dead)
    counted += len(net.reached(other, 1e6))
    assert counted == failed


@given(st.lists(st.tuples(st.sampled_from(PROVIDERS), st.booleans()), max_size=60))
def test_no_failure_is_counted_without_contrast_and_none_twice(events: list[tuple[str, bool]]) -> None:
    net = Connectivity(3)
    reached_at: dict[str, int] = {}
    began: dict[str, int] = {}
    counted: set[object] = set()
    for now, (provider, well) in enumerate(events):
        if well:
            out = net.reached(provider, float(now))
            reached_at[provider] = now
            began.pop(provider, None)
        else:
            began.setdefault(provider, now)
            out = [(provider, now)] if net.unreached(provider, (provider, now), float(now)) else []
        for token in out:
            assert token not in counted, "counted twice"
            counted.add(token)
            blamed = token[0]  # type: ignore[index]
            assert any(at >= began[blamed] for name, at in reached_at.items() if name != blamed)

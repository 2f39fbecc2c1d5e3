"""Whose fault it is that nobody is reached: contrast with others decides."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.policy.connectivity import CERTAIN_AFTER, DEAD_AFTER, DEFERRED_AT_MOST, RECENT, Connectivity

PROVIDERS = ["a", "b", "c"]


def test_while_nobody_is_reached_nothing_counts() -> None:
    net = Connectivity(3)
    assert not any(net.unreached(PROVIDERS[n % 3], n, float(n)) for n in range(300))
    assert net.local_fault_since(299.0) == 0.0
    assert net.tried(299.0) == 3
    assert net.tried(299.0 + 2 * RECENT) == 0


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


def test_silence_of_those_who_were_asked_is_a_suspicion_until_the_others_have_had_time_to_answer() -> None:
    net = Connectivity(5)
    for n in range(6):
        net.unreached(("a", "b")[n % 2], n, 10.0 + n / 10)
    assert net.suspected
    assert net.local_fault_since(10.0 + CERTAIN_AFTER - 0.01) is None
    assert net.local_fault_since(10.0 + CERTAIN_AFTER) == 10.0
    net.reached("c", 12.0)
    assert not net.suspected
    assert net.local_fault_since(12.0) is None


def test_a_few_failures_are_no_local_fault() -> None:
    net = Connectivity(3)
    net.unreached("a", 1, 1.0)
    net.unreached("b", 2, 1.1)
    assert not net.suspected
    assert net.local_fault_since(1.2 + CERTAIN_AFTER) is None
    net.unreached("c", 3, 1.3)
    assert net.suspected
    assert net.local_fault_since(1.3 + CERTAIN_AFTER) == 1.0


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


def test_with_two_dead_and_a_third_alive_every_failure_of_both_counts() -> None:
    """However many they are between two answers: the third never failed, so the network is not cut."""
    net, counted = Connectivity(3), 0
    for second in range(100):
        for provider in "abab":
            counted += net.unreached(provider, provider, float(second))
        counted += len(net.reached("c", second + 0.5))
    assert counted == 400


def test_a_provider_that_was_dead_before_does_not_hide_a_cut() -> None:
    net = Connectivity(3)
    for second in range(50):
        net.unreached("a", ("a", second), float(second))
        net.reached("b", second + 0.2)
        net.reached("c", second + 0.3)
    kept = [net.unreached(name, (name, 50), 50.0) for name in "bc"]
    net.unreached("a", ("a", 50), 50.1)
    assert kept == [False, False]
    assert net.local_fault_since(50.0 + CERTAIN_AFTER) == 50.0
    assert net.reached("b", 60.0) == []


def test_who_was_dead_before_a_cut_stays_so_in_it_and_its_rare_probes_count_at_once() -> None:
    """A probe that waited for a contrast would keep its breaker's one permission as long."""
    net = Connectivity(3)
    for second in range(3):
        net.unreached("a", second, float(second))
        net.reached("b", second + 0.5)
    for second in range(100, 105):
        assert not net.unreached("b", second, float(second))
        assert not net.unreached("c", second, float(second))
    assert net.local_fault_since(104.0) == 100.0
    assert net.unreached("a", "probe", 104.5)


def test_a_failure_in_a_known_cut_does_not_count_against_one_that_had_only_stumbled() -> None:
    net = Connectivity(3)
    net.unreached("a", 1, 99.0)
    net.reached("b", 99.5)
    for n in range(3):
        net.unreached("b", n, 100.0)
        net.unreached("c", n, 100.0)
    assert not net.unreached("a", 2, 100.5)


def test_a_failure_that_nobody_followed_up_is_no_reason_to_count_the_next_one_in_a_cut() -> None:
    net = Connectivity(3)
    net.unreached("a", "old", 1.0)
    assert net.reached("b", 2.0) == ["old"]
    assert not net.unreached("a", "new", 2.0 + RECENT)


def test_somebody_who_answered_a_moment_ago_and_was_not_asked_since_speaks_against_a_cut() -> None:
    net = Connectivity(3)
    net.unreached("a", 0, 1.0)
    net.reached("c", 1.1)
    for n in range(5):
        net.unreached("a", n, 1.2)
        net.unreached("b", n, 1.2)
    assert not net.suspected
    net.unreached("c", 0, 1.3)
    assert net.suspected
    assert net.local_fault_since(1.2 + CERTAIN_AFTER) == 1.2


def test_an_attempt_that_began_in_a_cut_and_times_out_after_it_is_forgotten() -> None:
    net = Connectivity(3)
    for n in range(6):
        net.unreached(PROVIDERS[n % 3], n, float(n))
    net.reached("b", 10.0)
    assert not net.unreached("c", "late", 11.0, contrast=True, began=8.0)
    assert net.reached("b", 11.5) == []
    assert net.unreached("c", "new", 13.0, contrast=True, began=11.0)


def test_an_answer_of_its_own_is_no_contrast() -> None:
    net = Connectivity(3)
    net.unreached("b", 1, 0.5)
    net.reached("a", 1.0)
    assert not net.unreached("a", 2, 1.0)


def test_a_contrast_within_the_attempt_itself_is_enough() -> None:
    assert Connectivity(2).unreached("a", 1, 1.0, contrast=True)


def test_a_provider_that_a_reload_removed_is_not_waited_for() -> None:
    net = Connectivity(3)
    net.unreached("gone", 1, 1.0)
    net.reached("b", 2.0)
    assert net.unsettled
    net.providers(2)
    assert not net.unsettled


def test_a_reload_keeps_what_waits_for_a_contrast() -> None:
    net = Connectivity(3)
    net.unreached("a", "kept", 1.0)
    net.providers(3)
    assert net.reached("b", 2.0) == ["kept"]


def test_the_happy_path_is_told_apart_by_one_look() -> None:
    net = Connectivity(3)
    assert not net.unsettled
    assert net.reached("a", 1.0) == []
    assert not net.unsettled
    net.unreached("a", 1, 2.0)
    assert net.unsettled
    net.reached("b", 3.0)
    assert net.deferred == 0
    net.reached("a", 4.0)
    assert not net.unsettled


# --- any order of events ----------------------------------------------------------------------------


class AnyNetwork(RuleBasedStateMachine):
    """Four providers: one is dead now and then, one always lives, and the gateway's own cable is pulled."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.net = Connectivity(4)
        self.cut = False
        self.dead: set[str] = set()
        self.kept: Counter[object] = Counter()  # deferred failures, by token
        self.failing: dict[str, int] = {}  # provider -> answers of others since its failures began
        self.held: Counter[str] = Counter()  # provider -> failures counted since it last answered
        self.failed = 0
        self.counted: set[object] = set()

    def _count(self, tokens: list[object]) -> None:
        for token in tokens:
            assert token not in self.counted, "counted twice"
            self.counted.add(token)

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(pulled=st.booleans())
    def somebody_pulls_the_cable_or_plugs_it_in(self, pulled: bool) -> None:
        self.cut = pulled

    @rule(provider=st.sampled_from("abc"), dead=st.booleans())
    def one_dies_or_returns(self, provider: str, dead: bool) -> None:
        (self.dead.add if dead else self.dead.discard)(provider)

    @rule(provider=st.sampled_from("abcd"))
    def one_is_asked(self, provider: str) -> None:
        self.now += 0.001  # no two things happen at the same instant
        if self.cut or provider in self.dead:
            self._fails(provider)
        else:
            self._answers(provider)

    def _fails(self, provider: str) -> None:
        self.failed += 1
        token = (provider, self.failed)
        others_answered = self.failing.setdefault(provider, 0)
        known = self.net.suspected
        if self.net.unreached(provider, token, self.now):
            assert others_answered, "counted without a contrast"
            assert not known or self.held[provider] >= DEAD_AFTER, "counted while our own network was known to be cut"
            self._count([token])
            self.held[provider] += 1
        else:
            assert self.held[provider] < DEAD_AFTER, "it was dead, and its failure had to wait"
            self.kept[token] += 1

    def _answers(self, provider: str) -> None:
        shared = provider in self.failing
        cut = self.net.suspected
        told = self.net.reached(provider, self.now)
        assert all(token in self.kept for token in told)
        assert all(token[0] != provider for token in told), "its own failures were held against it"  # type: ignore[index]
        if shared and cut:
            assert told == [], "whoever came back first convicted somebody"
            self.failing.clear()
            self.held.clear()
        elif not shared:
            waiting = {token for token in self.kept if token[0] != provider}  # type: ignore[index]
            assert set(told) == waiting, "one lives, and what the others did was not counted"
        self._count(told)
        self.held.update(token[0] for token in told)  # type: ignore[index]
        self.failing.pop(provider, None)
        self.held.pop(provider, None)
        for name in self.failing:
            self.failing[name] += 1
        self.kept.clear()

    @invariant()
    def nobody_is_reached_in_a_local_fault(self) -> None:
        if self.net.suspected:
            assert len(self.failing) >= 2
        since = self.net.local_fault_since(self.now)
        assert since is None or since <= self.now - CERTAIN_AFTER

    @invariant()
    def what_waits_is_what_was_deferred(self) -> None:
        assert self.net.deferred == len(self.kept)
        assert self.net.unsettled or not self.kept


TestAnyNetwork = AnyNetwork.TestCase
TestAnyNetwork.settings = examples(max_examples=100, stateful_step_count=40, deadline=None)


# --- the figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [0, 1], ids=["all_alive", "one_dead_before"])
def test_a_cut_is_suspected_within_a_few_attempts_and_convicts_nobody(dead: int) -> None:
    """A cut of 5 s, 50 attempts a second; a provider that was dead before it does not hide it."""
    seed, episodes = 17, 300
    chance = random.Random(seed)
    wrong, attempts = 0, []
    for _ in range(episodes):
        net, now, alive = Connectivity(4), 0.0, "abcd"[dead:]
        needed = 0
        while now < 20.0:
            now += 0.02
            provider = chance.choice("abcd")
            cut = 10.0 <= now < 15.0
            if cut and not net.suspected:
                needed += 1
            if cut or provider not in alive:
                counted = [(provider, now)] if net.unreached(provider, (provider, now), now) else []
            else:
                counted = net.reached(provider, now)  # type: ignore[assignment]
            wrong += sum(10.0 <= at < 15.0 and blamed in alive for blamed, at in counted)
        attempts.append(needed)
    worst = max(attempts)
    print(
        f"{episodes} cuts, seed {seed}, {dead} of 4 dead before: seen after {sum(attempts) / episodes:.1f} attempts "
        f"(most {worst}); {wrong} failures of living providers counted"
    )
    assert wrong == 0
    assert worst <= 50

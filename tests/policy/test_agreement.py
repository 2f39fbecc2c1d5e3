"""The laws of agreement: one operator has one voice, no guess is an answer, and liars are found and forgiven."""

from __future__ import annotations

import random
from itertools import combinations, product
from math import exp, sqrt

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.model import DOMAIN_LABELS, Endpoint
from gateway.policy.agreement import (
    DISTRUST_AT_MOST,
    FORGIVEN_AFTER,
    STRIKES_HOLD_FOR,
    Agreed,
    AuditSettings,
    Ballot,
    ConsensusSettings,
    Disagreed,
    Suspicion,
    Undecided,
    choose,
)

DEFAULTS = ConsensusSettings()
AUDIT = AuditSettings()
MAJORITIES = [(n, agree) for n in range(2, 6) for agree in range(n // 2 + 1, n + 1)]


def endpoint(name: str, provider: str = "", **domains: str) -> Endpoint:
    return Endpoint(name, "ethereum", provider or f"provider of {name}", domains=tuple(domains.items()))


def five() -> list[Endpoint]:
    return [endpoint(name) for name in "abcde"]


# --- who is asked ---------------------------------------------------------------------------------------

LABELS = ("operator", "cloud")
PLACES = st.builds(
    lambda provider, operator, cloud: Endpoint(
        "x",
        "ethereum",
        provider,
        domains=tuple((label, value) for label, value in (("operator", operator), ("cloud", cloud)) if value),
    ),
    st.sampled_from("pqrs"),
    st.sampled_from(["", "u", "v", "w"]),
    st.sampled_from(["", "aws", "gcp", "ovh"]),
)
MAJORITY_SETTINGS = st.builds(
    lambda sizes, distinct: ConsensusSettings(n=sizes[0], agree=sizes[1], distinct=distinct),
    st.sampled_from(MAJORITIES),
    st.sampled_from([(), ("cloud",), ("operator",), LABELS]),
)


def clash(one: Endpoint, other: Endpoint, distinct: tuple[str, ...]) -> bool:
    """They would be one voice."""
    known = dict(one.domains)
    return one.provider == other.provider or any(
        label in distinct and known.get(label) == value for label, value in other.domains
    )


@given(st.lists(PLACES, max_size=7).flatmap(lambda e: st.tuples(st.just(e), st.permutations(range(len(e))))), st.data())
@examples(max_examples=300)
def test_no_two_who_are_asked_share_a_provider_or_a_label_that_must_differ(
    ranked: tuple[list[Endpoint], list[int]], data: st.DataObject
) -> None:
    endpoints, rank = ranked
    settings = data.draw(MAJORITY_SETTINGS)
    chosen = choose(endpoints, rank, settings)
    assert not chosen or settings.agree <= len(chosen) <= settings.n
    assert list(chosen) == [position for position in rank if position in chosen], "in order of rank"
    for one, other in combinations(chosen, 2):
        assert not clash(endpoints[one], endpoints[other], settings.distinct)


@given(st.lists(PLACES, max_size=7), st.data())
@examples(max_examples=300)
def test_two_are_found_wherever_two_are_apart(endpoints: list[Endpoint], data: st.DataObject) -> None:
    settings = ConsensusSettings(n=2, agree=2, distinct=data.draw(st.sampled_from([(), ("cloud",), LABELS])))
    rank = data.draw(st.permutations(range(len(endpoints))))
    apart = [
        (one, other)
        for one, other in combinations(rank, 2)
        if not clash(endpoints[one], endpoints[other], settings.distinct)
    ]
    assert choose(endpoints, rank, settings) == (apart[0] if apart else ()), "the best in rank of them"


def test_the_best_in_rank_are_asked() -> None:
    assert choose(five(), (3, 1, 4, 0, 2), DEFAULTS) == (3, 1, 4)


def test_of_two_choices_of_one_size_the_better_in_rank_is_taken() -> None:
    two_providers = [endpoint("a", "p"), endpoint("b", "q"), endpoint("c", "p"), endpoint("d", "q")]
    assert choose(two_providers, range(4), DEFAULTS) == (0, 1)


def test_only_who_is_ranked_is_asked() -> None:
    assert choose(five(), (4, 0), DEFAULTS) == (4, 0)
    assert choose(five(), (4,), DEFAULTS) == ()
    assert choose(five(), (), DEFAULTS) == ()


def test_too_few_to_agree_is_nobody_rather_than_a_guess() -> None:
    assert choose(five(), (0, 1), ConsensusSettings(n=3, agree=3)) == ()
    assert choose([endpoint(name, "one provider") for name in "abcde"], range(5), DEFAULTS) == ()


def test_an_endpoint_whose_label_is_not_known_counts_as_different_from_everybody() -> None:
    known = [endpoint("a", cloud="aws"), endpoint("b", cloud="aws"), endpoint("c"), endpoint("d")]
    assert choose(known, range(4), ConsensusSettings(distinct=("cloud",))) == (0, 2, 3)


def test_a_label_that_nobody_asked_for_may_be_shared() -> None:
    alike = [endpoint(name, cloud="aws", operator=name) for name in "abc"]
    assert choose(alike, range(3), ConsensusSettings(distinct=("operator",))) == (0, 1, 2)


def test_one_that_stands_in_the_way_of_two_is_left_out() -> None:
    """a shares its operator with b and its cloud with c, and b and c are apart."""
    three = [
        endpoint("a", operator="x", cloud="aws"),
        endpoint("b", operator="x", cloud="gcp"),
        endpoint("c", operator="y", cloud="aws"),
    ]
    assert choose(three, (0, 1, 2), ConsensusSettings(distinct=LABELS)) == (1, 2)


# --- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "agree"), list(product(range(2, 10), repeat=2)))
def test_only_a_majority_of_those_asked_can_agree(n: int, agree: int) -> None:
    if n / 2 < agree <= n:
        assert ConsensusSettings(n=n, agree=agree).agree == agree
        return
    with pytest.raises(ValueError, match="agree must"):
        ConsensusSettings(n=n, agree=agree)


@pytest.mark.parametrize("label", DOMAIN_LABELS)
def test_every_label_of_a_failure_domain_can_be_asked_for(label: str) -> None:
    assert ConsensusSettings(distinct=(label,)).distinct == (label,)


@pytest.mark.parametrize("label", ["provider", "colour", ""])
def test_a_label_that_there_is_not_is_refused_by_name(label: str) -> None:
    with pytest.raises(ValueError, match=f"'{label}', which is no label"):
        ConsensusSettings(distinct=("cloud", label))


# --- ballots --------------------------------------------------------------------------------------------

VOTES = st.sampled_from([b"x", b"y", b"z", None])


def count(settings: ConsensusSettings, votes: dict[int, bytes | None]) -> set[bytes]:
    """The answers that enough said: an own, plain count."""
    said = [vote for vote in votes.values() if vote is not None]
    return {vote for vote in said if said.count(vote) >= settings.agree}


def still_open(settings: ConsensusSettings, votes: dict[int, bytes | None], out: int) -> bool:
    """Whether there is any way at all in which the votes that are out bring an agreement."""
    ways = product([b"x", b"y", b"z", b"new", None], repeat=out)
    return any(count(settings, votes | {100 + i: vote for i, vote in enumerate(way)}) for way in ways)


class Counting(RuleBasedStateMachine):
    """A ballot beside one that tries every way in which it could go on."""

    @initialize(sizes=st.sampled_from(MAJORITIES), missing=st.integers(0, 2))
    def ask(self, sizes: tuple[int, int], missing: int) -> None:
        self.settings = ConsensusSettings(n=sizes[0], agree=sizes[1])
        self.asked = list(range(max(1, sizes[0] - missing)))  # some could not be had
        self.ballot = Ballot(self.settings, five(), self.asked)
        self.votes: dict[int, bytes | None] = {}
        self.before: Agreed | Undecided | Disagreed = Undecided()

    @property
    def out(self) -> list[int]:
        return [position for position in self.asked if position not in self.votes]

    @precondition(lambda self: self.out)
    @rule(vote=VOTES, data=st.data())
    def answer(self, vote: bytes | None, data: st.DataObject) -> None:
        position = data.draw(st.sampled_from(self.out))
        self.votes[position] = vote
        self.ballot.vote(position, vote)

    @precondition(lambda self: self.votes)
    @rule(vote=VOTES, data=st.data())
    def say_something_else_later(self, vote: bytes | None, data: st.DataObject) -> None:
        self.ballot.vote(data.draw(st.sampled_from(sorted(self.votes))), vote)

    @rule(vote=VOTES)
    def vote_without_being_asked(self, vote: bytes | None) -> None:
        for stranger in (99, -1):
            self.ballot.vote(stranger, vote)

    @invariant()
    def it_is_decided_exactly_when_it_can_be(self) -> None:
        verdict = self.ballot.verdict
        agreed = count(self.settings, self.votes)
        if agreed:
            assert isinstance(verdict, Agreed)
            assert {verdict.fingerprint} == agreed, "there is never a second one"
            assert list(verdict.positions) == [p for p, vote in self.votes.items() if vote == verdict.fingerprint]
        elif still_open(self.settings, self.votes, len(self.out)):
            assert isinstance(verdict, Undecided)
        else:
            assert isinstance(verdict, Disagreed)

    @invariant()
    def what_is_decided_stays_decided(self) -> None:
        verdict = self.ballot.verdict
        if isinstance(self.before, Agreed):
            assert isinstance(verdict, Agreed)
            assert verdict.fingerprint == self.before.fingerprint
        if isinstance(self.before, Disagreed):
            assert isinstance(verdict, Disagreed)
        self.before = verdict


TestCounting = Counting.TestCase
TestCounting.settings = examples(max_examples=150, stateful_step_count=12, deadline=None)


def ballot(*votes: bytes | None, settings: ConsensusSettings = DEFAULTS) -> Ballot:
    """The first so many of those asked have voted."""
    asked = Ballot(settings, five(), range(settings.n))
    for position, vote in enumerate(votes):
        asked.vote(position, vote)
    return asked


def test_two_of_three_are_enough_and_the_third_is_not_waited_for() -> None:
    assert ballot(b"x", b"x").verdict == Agreed(b"x", (0, 1))


def test_a_liar_and_a_failure_leave_no_majority() -> None:
    assert ballot(b"x", b"lie").verdict == Undecided()
    assert isinstance(ballot(b"x", b"lie", None).verdict, Disagreed)


def test_two_failures_of_three_end_it_before_the_third_answers() -> None:
    assert isinstance(ballot(None, None).verdict, Disagreed)


def test_refusals_agree_like_answers() -> None:
    assert ballot(b"error 3", b"error 3").verdict == Agreed(b"error 3", (0, 1))


def test_the_evidence_names_who_said_what_and_who_said_nothing() -> None:
    four = ConsensusSettings(n=4, agree=3)
    told = str(ballot(b"x", b"y", b"x", None, settings=four).verdict)
    groups = [part.split(" said ") for part in told.split("; ")[:2]]
    assert [who for who, _ in groups] == ["a and c", "b"]
    assert all(len(bytes.fromhex(digits)) == 4 for _, digits in groups)
    assert told.endswith("; d gave no answer")
    assert str(ballot(None, None, None).verdict) == "a and b and c gave no answer"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"error 3", b"error -32000"),
        (b'{"blockhash":"aa"}', b'{"blockhash":"ab"}'),
        (b"", b"\x00"),
        (b"x" * 99, b"x" * 98),
    ],
)
def test_different_answers_never_look_alike_in_the_evidence(one: bytes, other: bytes) -> None:
    told = str(ballot(one, other, None).verdict)
    first, second = (part.split(" said ")[1] for part in told.split("; ")[:2])
    assert first != second


# --- suspicion ------------------------------------------------------------------------------------------


def distrusted(suspicion: Suspicion, position: int, now: float) -> float:
    """Contradict it until it is distrusted; gives the instant of its return."""
    for _ in range(AUDIT.strikes):
        came = suspicion.strike(position, now)
    assert came
    return suspicion.distrusted_until(position)


def test_one_contradiction_is_forgiven_and_a_second_within_the_hour_is_not() -> None:
    suspicion = Suspicion(AUDIT, 3)
    assert not suspicion.strike(0, 100.0)
    assert suspicion.distrusted_until(0) <= 100.0
    assert suspicion.strike(0, 100.0 + STRIKES_HOLD_FOR)
    assert suspicion.distrusted_until(0) == 100.0 + STRIKES_HOLD_FOR + AUDIT.distrust_for


def test_contradictions_more_than_an_hour_apart_never_add_up() -> None:
    suspicion = Suspicion(AUDIT, 3)
    assert not any(suspicion.strike(0, i * (STRIKES_HOLD_FOR + 1)) for i in range(100))


def test_contradictions_of_one_say_nothing_of_another() -> None:
    suspicion = Suspicion(AUDIT, 4)
    assert not any(suspicion.strike(position, 0.0) for position in range(4))


def test_with_two_left_nobody_is_distrusted_until_a_third_is_back() -> None:
    suspicion = Suspicion(AUDIT, 3)
    until = distrusted(suspicion, 0, 0.0)
    assert not any(suspicion.strike(1, until - 1) for _ in range(10))
    assert suspicion.strike(1, until)
    pair = Suspicion(AUDIT, 2)
    assert not any(pair.strike(0, float(i)) for i in range(100))


def test_what_was_under_way_when_it_was_distrusted_adds_nothing() -> None:
    suspicion = Suspicion(AUDIT, 5)
    until = distrusted(suspicion, 0, 0.0)
    assert not any(suspicion.strike(0, until - 1) for _ in range(10))
    assert suspicion.distrusted_until(0) == until
    assert not suspicion.strike(0, until), "it begins anew"


def test_each_time_is_twice_as_long_up_to_a_day() -> None:
    suspicion, now, spans = Suspicion(AUDIT, 3), 0.0, []
    for _ in range(12):
        until = distrusted(suspicion, 0, now)
        spans.append(until - now)
        now = until + FORGIVEN_AFTER
    assert spans == [min(DISTRUST_AT_MOST, AUDIT.distrust_for * 2**i) for i in range(12)]
    assert max(spans) == DISTRUST_AT_MOST


def test_after_a_day_of_trust_it_starts_from_the_first_length_again() -> None:
    suspicion = Suspicion(AUDIT, 3)
    until = distrusted(suspicion, 0, 0.0)
    until = distrusted(suspicion, 0, until)
    now = until + FORGIVEN_AFTER + 1
    assert distrusted(suspicion, 0, now) == now + AUDIT.distrust_for


@pytest.mark.parametrize("longest", [1.0, 600.0, 86400.0])
def test_no_setting_excludes_for_ever(longest: float) -> None:
    suspicion, now = Suspicion(AuditSettings(distrust_for=longest, strikes=1), 3), 0.0
    for _ in range(100):
        assert suspicion.strike(0, now)
        assert longest <= suspicion.distrusted_until(0) - now <= DISTRUST_AT_MOST
        now = suspicion.distrusted_until(0)


class Suspecting(RuleBasedStateMachine):
    """Contradictions in any order at any instants."""

    @initialize(endpoints=st.integers(1, 5), strikes=st.integers(1, 3))
    def begin(self, endpoints: int, strikes: int) -> None:
        self.count, self.strikes = endpoints, strikes
        self.suspicion = Suspicion(AuditSettings(strikes=strikes), endpoints)
        self.now = 0.0
        self.struck: dict[int, list[float]] = {position: [] for position in range(endpoints)}
        self.fewest = endpoints

    def trusted(self) -> list[int]:
        return [p for p in range(self.count) if self.now >= self.suspicion.distrusted_until(p)]

    @rule(span=st.one_of(st.floats(0, 2000), st.floats(0, 100_000)))
    def wait(self, span: float) -> None:
        self.now += span

    @rule(data=st.data())
    def contradict(self, data: st.DataObject) -> None:
        position = data.draw(st.integers(0, self.count - 1))
        before = self.trusted()
        until = self.suspicion.distrusted_until(position)
        if position in before:
            self.struck[position].append(self.now)
        recent = [at for at in self.struck[position] if self.now - at <= STRIKES_HOLD_FOR]
        expected = position in before and len(recent) >= self.strikes and len(before) > 2
        assert self.suspicion.strike(position, self.now) == expected
        if expected:
            self.struck[position] = []
            span = self.suspicion.distrusted_until(position) - self.now
            assert AUDIT.distrust_for - 1e-6 <= span <= DISTRUST_AT_MOST + 1e-6
            assert self.trusted() == [p for p in before if p != position], "nobody else"
        else:
            assert self.suspicion.distrusted_until(position) == until

    @invariant()
    def two_are_left(self) -> None:
        assert len(self.trusted()) >= min(2, self.count)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert all(len(kept) <= self.strikes for kept in self.suspicion._strikes)


TestSuspecting = Suspecting.TestCase
TestSuspecting.settings = examples(max_examples=100, stateful_step_count=30, deadline=None)


# --- figures --------------------------------------------------------------------------------------------

LIES = 0.10  # share of a liar's answers that are wrong


def reads_to_distrust(per_second: float) -> float:
    """Exact: the first contradiction, then as many as it takes until two lie within the hour."""
    per_read = AUDIT.share * LIES
    soon = 1 - exp(-per_read * per_second * STRIKES_HOLD_FOR)
    return (1 + 1 / soon) / per_read


def hunted(chance: random.Random, per_second: float) -> tuple[int, int]:
    """Reads of a liar among honest ones, until the first contradiction and until it is distrusted."""
    suspicion = Suspicion(AUDIT, 4)
    reads, first, now = 0, 0, 0.0
    while True:
        reads += 1
        now += chance.expovariate(per_second)
        if chance.random() >= AUDIT.share or chance.random() >= LIES:
            continue  # not audited, or not a lie
        first = first or reads
        if suspicion.strike(0, now):
            return first, reads


@pytest.mark.parametrize(("per_second", "told", "n"), [(1.0, 2030, 300), (0.1, 4300, 150), (100.0, 2000, 150)])
def test_a_liar_is_found_after_as_many_reads_as_computed(per_second: float, told: int, n: int) -> None:
    seed = 11
    chance = random.Random(seed)
    found = [hunted(chance, per_second) for _ in range(n)]
    for what, drawn, exact in (
        ("first contradiction", [first for first, _ in found], 1 / (AUDIT.share * LIES)),
        ("distrust", [reads for _, reads in found], reads_to_distrust(per_second)),
    ):
        mean = sum(drawn) / n
        error = sqrt(sum((reads - mean) ** 2 for reads in drawn) / (n - 1) / n)
        print(f"{what}: {exact:,.0f} reads exact, {mean:,.0f} +- {error:,.0f} simulated", end=" ")
        print(f"(at {per_second:g}/s, n={n}, seed={seed})")
        assert abs(mean - exact) < 4 * error
    assert reads_to_distrust(per_second) == pytest.approx(told, rel=0.01)

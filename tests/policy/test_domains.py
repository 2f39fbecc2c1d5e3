"""Failure domains: what fails together is suspected together, and nothing else is."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Outcome
from gateway.policy.breaker import Breaker, BreakerSettings, BreakerState
from gateway.policy.domains import Condition, DomainSettings, DomainWatch, Member

DOWN, WELL, FAILING = Condition.DOWN, Condition.WELL, Condition.FAILING
SIX = [Member((("cloud", cloud),)) for cloud in ("aws", "aws", "gcp", "gcp", "own", "own")]


def watch_of(members: list[Member] = SIX, settings: DomainSettings | None = None) -> DomainWatch:
    watch = DomainWatch(settings or DomainSettings(), members, 0.0)
    for position in range(len(members)):
        watch.note(position, WELL, 0.0)
    return watch


def suspected(watch: DomainWatch) -> set[str]:
    return {trip.domain[1] for trip in watch.trips()}


# --- stories ----------------------------------------------------------------------------------------


def test_two_members_down_and_somebody_outside_well_make_a_domain_suspected() -> None:
    watch = watch_of()
    assert not watch.note(0, DOWN, 1.0)
    assert watch.note(1, DOWN, 2.0)
    assert suspected(watch) == {"aws"}
    assert watch.trips()[0].down == (0, 1)
    assert [watch.demoted(p) is not None for p in range(6)] == [True, True, False, False, False, False]


def test_the_still_green_members_are_demoted_with_the_others() -> None:
    watch = watch_of([Member((("cloud", "aws"),)) for _ in range(4)] + [Member((("cloud", "own"),))])
    watch.note(0, DOWN, 1.0)
    watch.note(1, DOWN, 2.0)
    assert watch.demoted(2) == ("cloud", "aws")
    assert watch.demoted(4) is None


def test_failures_far_apart_are_a_coincidence() -> None:
    watch = watch_of()
    watch.note(0, DOWN, 1.0)
    assert not watch.note(1, DOWN, 1.0 + 61.0)
    assert suspected(watch) == set()


def test_one_that_is_back_does_not_count_any_more() -> None:
    watch = watch_of()
    watch.note(0, DOWN, 1.0)
    watch.note(0, WELL, 3.0)
    assert not watch.note(1, DOWN, 4.0)


def test_with_nobody_well_outside_no_domain_is_suspected() -> None:
    watch = watch_of()
    for position in range(6):
        watch.note(position, DOWN, 1.0 + position / 10)
    assert suspected(watch) <= {"aws", "gcp"}, "the last one to fall had nobody left outside"
    watch = DomainWatch(DomainSettings(), SIX, 0.0)
    watch.note(0, DOWN, 1.0)
    watch.note(1, DOWN, 1.0)
    assert suspected(watch) == set(), "nothing is known of the others"


def test_a_domain_that_holds_everybody_is_never_suspected() -> None:
    watch = watch_of([Member((("cloud", "aws"),)) for _ in range(4)])
    for position in range(3):
        watch.note(position, DOWN, 1.0)
    assert suspected(watch) == set()


def test_half_of_the_weight_must_be_down() -> None:
    members = [Member((("cloud", "aws"),), weight) for weight in (1.0, 1.0, 8.0)] + [Member((("cloud", "own"),))]
    watch = watch_of(members)
    watch.note(0, DOWN, 1.0)
    watch.note(1, DOWN, 1.0)
    assert suspected(watch) == set()
    watch.note(2, DOWN, 2.0)
    assert suspected(watch) == {"aws"}


def test_the_narrowest_domain_that_explains_it_is_named() -> None:
    members = [
        Member((("cloud", "aws"), ("region", "us-east-1"))),
        Member((("cloud", "aws"), ("region", "us-east-1"))),
        Member((("cloud", "aws"), ("region", "eu-west-1"))),
        Member((("cloud", "own"),)),
    ]
    watch = watch_of(members)
    watch.note(0, DOWN, 1.0)
    watch.note(1, DOWN, 1.5)
    assert suspected(watch) == {"us-east-1"}
    watch.note(2, DOWN, 2.0)
    assert suspected(watch) == {"us-east-1", "aws"}, "now it is more than the region"


def test_a_suspicion_ends_when_half_of_those_that_were_down_have_been_well_for_a_while() -> None:
    watch = watch_of()
    watch.note(0, DOWN, 1.0)
    watch.note(1, DOWN, 2.0)
    watch.note(0, WELL, 20.0)
    assert suspected(watch) == {"aws"}
    assert not watch.expire(29.0)
    assert watch.expire(30.1)
    assert suspected(watch) == set()


def test_a_member_that_fails_once_is_watched_while_another_of_its_domain_is_down() -> None:
    watch = watch_of()
    watch.note(0, DOWN, 1.0)
    assert watch.note(1, FAILING, 2.0)
    assert watch.watched(1)
    assert not watch.note(2, FAILING, 2.0), "another domain"
    assert watch.note(1, WELL, 2.5)
    assert not watch.watched(1)


def test_a_label_that_is_learned_later_counts() -> None:
    watch = watch_of([Member(()) for _ in range(3)])
    watch.note(0, DOWN, 1.0)
    watch.note(1, DOWN, 1.0)
    watch.place(0, (("client", "geth/1.9.9"),), 2.0)
    assert watch.place(1, (("client", "geth/1.9.9"),), 2.0)
    assert suspected(watch) == {"geth/1.9.9"}


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(Condition), st.floats(0, 30)), max_size=60))
def test_somebody_always_stays_undemoted_and_every_suspicion_ends(
    events: list[tuple[int, Condition, float]],
) -> None:
    watch = watch_of()
    now = 0.0
    for position, condition, pause in events:
        now += pause
        watch.note(position, condition, now)
        watch.expire(now)
        assert any(watch.demoted(p) is None for p in range(6))
        assert all(watch.demoted(p) is not None for trip in watch.trips() for p in trip.members)
    for position in range(6):
        watch.note(position, WELL, now)
    watch.expire(now + 11.0)
    assert watch.trips() == ()
    assert not any(watch.watched(p) for p in range(6))


# --- figures ----------------------------------------------------------------------------------------


@dataclass
class World:
    """Six endpoints in three domains, 100 calls a second each, breakers and probes as the gateway has them."""

    chance: random.Random
    noise: float = 0.0
    now: float = 0.0
    dies_at: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.breakers = [Breaker(BreakerSettings(), 0.0) for _ in SIX]
        self.watch = watch_of()
        self.lost = [0] * 6
        self.probed_at = [0.0] * 6
        self.calls = 0
        self.decided_at: float | None = None
        self.false_trips = 0
        self._was: set[str] = set()

    def fails(self, position: int) -> bool:
        return self.now >= self.dies_at.get(position, 1e9) or self.chance.random() < self.noise

    def attempt(self, position: int, probe: bool) -> None:
        breaker = self.breakers[position]
        generation = breaker.admit(self.now) if probe else breaker.generation
        if generation is None:
            return
        failed = self.fails(position)
        if failed and not probe:
            self.lost[position] += 1
        breaker.settle(generation, Outcome.FAILURE if failed else Outcome.SUCCESS, self.now, self.chance.random())
        condition = DOWN if breaker.state is not BreakerState.CLOSED else FAILING if breaker.failures_in_a_row else WELL
        self.watch.note(position, condition, self.now)
        now_suspected = suspected(self.watch)
        if now_suspected - self._was:
            self.false_trips += 1
            self.decided_at = self.decided_at or self.now
        self._was = now_suspected

    def tick(self) -> None:
        """A hundredth of a second: one call for each endpoint that gets calls, and the probes that are due."""
        self.now += 0.01
        for position, breaker in enumerate(self.breakers):
            if breaker.state is not BreakerState.CLOSED:
                if breaker.would_admit(self.now):
                    self.attempt(position, probe=True)
            elif self.watch.watched(position) or self.watch.demoted(position) is not None:
                if self.now - self.probed_at[position] >= 0.5:
                    self.probed_at[position] = self.now
                    self.attempt(position, probe=True)
            else:
                self.calls += 1
                self.attempt(position, probe=False)
        self.watch.expire(self.now)


def test_a_domain_that_dies_member_by_member_costs_each_still_green_member_one_call() -> None:
    seed, episodes = 11, 1000
    chance = random.Random(seed)
    worst, total, slowest = 0, 0, 0.0
    for _ in range(episodes):
        first, second = chance.sample([0, 1], 2)
        world = World(chance, dies_at={first: 1.0, second: 1.0 + chance.uniform(0.1, 5.0)})
        while world.now < 8.0 and world.decided_at is None:
            world.tick()
        assert world.decided_at is not None
        worst = max(worst, world.lost[second])
        total += world.lost[second]
        slowest = max(slowest, world.decided_at - world.dies_at[second])
    print(
        f"{episodes} episodes, seed {seed}: {total / episodes:.3f} calls lost on the member that was still green "
        f"(most {worst}), decided at most {slowest:.2f} s after the second went down"
    )
    assert worst <= 1
    assert slowest <= 5.0


def test_noise_alone_makes_at_most_one_false_suspicion_in_a_million_calls() -> None:
    seed, calls = 5, 1_000_000
    world = World(random.Random(seed), noise=0.02)
    while world.calls < calls:
        world.tick()
    print(f"{world.calls} calls at 2 % noise, seed {seed}: {world.false_trips} false suspicions of a domain")
    assert world.false_trips <= 1

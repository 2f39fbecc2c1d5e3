"""Failure domains: what fails together is suspected together, and nothing else is."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.model import Outcome
from gateway.policy.breaker import Breaker, BreakerSettings, BreakerState
from gateway.policy.domains import SPARED_AFTER, Condition, DomainSettings, DomainWatch, Member, Trip
from tests.policy.test_breaker import calls_to_trip

DOWN, WELL, FAILING, UNKNOWN = Condition.DOWN, Condition.WELL, Condition.FAILING, Condition.UNKNOWN
SIX = [Member((("cloud", cloud),)) for cloud in ("aws", "aws", "gcp", "gcp", "own", "own")]


def cloud(*names: str) -> list[Member]:
    return [Member((("cloud", name),)) for name in names]


def watch_of(members: Sequence[Member] = SIX, settings: DomainSettings | None = None) -> DomainWatch:
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


def test_a_region_that_falls_member_by_member_is_named_and_not_its_cloud() -> None:
    region = [Member((("cloud", "aws"), ("region", "us-east-1"))) for _ in range(3)]
    watch = watch_of([*region, Member((("cloud", "aws"), ("region", "eu-west-1"))), *cloud("own")])
    for position in range(3):
        watch.note(position, DOWN, 1.0 + position)
    assert suspected(watch) == {"us-east-1"}
    assert watch.demoted(3) is None
    (trip,) = watch.trips()
    assert (trip.down, trip.since, trip.first_at, trip.last_at) == ((0, 1, 2), 2.0, 1.0, 3.0)


def test_of_two_domains_with_the_same_members_the_one_that_tells_more_is_named() -> None:
    both = Member((("cloud", "aws"), ("region", "us-east-1")))
    watch = watch_of([both, both, *cloud("own")])
    watch.note(0, DOWN, 1.0)
    watch.note(1, DOWN, 1.0)
    assert suspected(watch) == {"us-east-1"}


def test_two_domains_can_be_suspected_at_once() -> None:
    watch = watch_of()
    for position in range(4):
        watch.note(position, DOWN, 1.0)
    assert suspected(watch) == {"aws", "gcp"}
    assert [watch.demoted(p) is None for p in range(6)] == [False] * 4 + [True] * 2


def test_a_second_domain_is_not_suspected_when_nobody_would_be_left() -> None:
    """The first one's members are up again, and still suspected: they are no reason to give up the others."""
    watch = watch_of(cloud("aws", "aws", "gcp", "gcp"))
    for position, condition, now in (
        (0, DOWN, 1),
        (1, DOWN, 1),
        (0, WELL, 5),
        (1, WELL, 5),
        (2, DOWN, 6),
        (3, DOWN, 6),
    ):
        watch.note(position, condition, float(now))
    assert suspected(watch) == {"aws"}


def test_falls_together_count_even_when_another_came_much_later() -> None:
    watch = DomainWatch(DomainSettings(), cloud("aws", "aws", "aws", "own"), 0.0)
    for position, condition, now in ((0, DOWN, 1), (1, DOWN, 2), (2, DOWN, 70), (3, WELL, 71)):
        watch.note(position, condition, float(now))
    assert watch.trips() == (Trip(("cloud", "aws"), 71.0, (0, 1), (0, 1, 2), 1.0, 2.0),)


def test_members_of_whom_nothing_is_known_do_not_speak_for_their_domain() -> None:
    watch = watch_of(cloud("aws", "aws", "aws", "aws", "aws", "own"))
    for position in (2, 3, 4):
        watch.note(position, UNKNOWN, 0.5)
    watch.note(0, DOWN, 1.0)
    watch.note(1, DOWN, 1.0)
    assert suspected(watch) == {"aws"}


# --- its end ----------------------------------------------------------------------------------------


def fallen(size: int = 4, down: int = 4) -> DomainWatch:
    """One cloud of so many, of which some fell at instant 1, and somebody outside."""
    watch = watch_of(cloud(*["aws"] * size, "own"))
    for position in range(down):
        watch.note(position, DOWN, 1.0)
    assert suspected(watch) == {"aws"}
    return watch


def test_a_fall_is_evidence_once() -> None:
    """Half of it is back and it is trusted; the other half is still down, and that is no news."""
    watch = fallen()
    watch.note(0, WELL, 5.0)
    watch.note(1, WELL, 5.0)
    assert watch.expire(15.0)
    watch.note(4, FAILING, 15.1)
    watch.note(4, WELL, 15.2)
    assert not watch.expire(15.3)
    assert watch.trips() == ()


def test_after_the_end_new_falls_are_evidence_again() -> None:
    watch = fallen()
    for position in range(4):
        watch.note(position, WELL, 5.0)
    watch.expire(15.0)
    watch.note(0, DOWN, 20.0)
    assert watch.note(1, DOWN, 21.0)
    assert suspected(watch) == {"aws"}


def test_a_member_that_falls_again_has_its_time_begin_anew() -> None:
    watch = fallen(2, 2)
    for position, condition, now in ((0, WELL, 5), (0, DOWN, 9), (0, WELL, 12)):
        watch.note(position, condition, float(now))
    assert not watch.expire(15.1)
    assert watch.expire(22.1)


def test_single_failures_do_not_put_the_end_off() -> None:
    """It serves at two failures in a hundred, as sound endpoints do: its breaker stays closed."""
    watch = fallen(2, 2)
    for position in (0, 1):
        watch.note(position, WELL, 5.0)
    for tick in range(100):
        for condition in (FAILING, WELL):
            watch.note(tick % 2, condition, 5.0 + tick / 10)
    assert watch.expire(15.1)


def ends_at(watch: DomainWatch, now: float) -> float:
    while watch.trips():
        now += 0.25
        watch.expire(now)
    return now


def test_a_domain_that_flaps_stays_out_for_twice_as_long_each_time_up_to_eightfold() -> None:
    watch, now, waits = watch_of(), 0.0, []
    for _ in range(6):
        for condition in (DOWN, WELL):
            now += 5.0
            for position in (0, 1):
                watch.note(position, condition, now)
        ended = ends_at(watch, now)
        waits.append(ended - now)
        now = ended
    assert waits == [10.0, 20.0, 40.0, 80.0, 80.0, 80.0]


def test_ten_quiet_minutes_make_the_next_suspicion_a_first_one() -> None:
    watch, now = watch_of(), 0.0
    for pause in (5.0, 5.0, 700.0):
        now += pause
        for condition in (DOWN, WELL):
            for position in (0, 1):
                watch.note(position, condition, now)
        ended = ends_at(watch, now)
        wait, now = ended - now, ended
    assert wait == 10.0


def test_a_domain_that_flaps_every_half_minute_is_suspected_most_of_the_time_and_swings_rarely() -> None:
    """Down 10 s, up 20 s, for an hour: without doubling it would come and go 120 times."""
    watch, swings = watch_of(), 0
    for second in range(3600):
        before = suspected(watch)
        for position in (0, 1):
            watch.note(position, DOWN if second % 30 < 10 else WELL, float(second))
        watch.expire(float(second))
        swings += suspected(watch) != before
    print(f"an hour of flapping every 30 s: the suspicion came or went {swings} times, of 240 without doubling")
    assert swings <= 10


def test_drained_members_do_not_keep_a_suspicion_alive() -> None:
    watch = fallen(4, 2)
    assert not watch.note(0, UNKNOWN, 2.0)
    assert watch.note(1, UNKNOWN, 3.0)
    assert watch.trips() == ()


def test_who_is_still_well_ten_minutes_after_the_last_fall_does_not_share_the_fault() -> None:
    """Two accounts ended for good: the others in the same cloud are not left out forever."""
    watch = fallen(4, 2)
    assert not watch.expire(1.0 + SPARED_AFTER - 0.1)
    assert watch.expire(1.0 + SPARED_AFTER)
    assert [watch.demoted(p) is not None for p in range(4)] == [True, True, False, False]
    assert suspected(watch) == {"aws"}, "it is still told of"
    assert watch.note(2, DOWN, 700.0)
    assert [watch.demoted(p) is not None for p in range(4)] == [True] * 4, "another fall says that they do"


# --- the watch --------------------------------------------------------------------------------------


def test_a_watch_ends_by_itself_a_minute_after_the_fall() -> None:
    watch = watch_of(cloud("aws", "aws", "aws", "own"))
    watch.note(0, DOWN, 1.0)
    assert watch.note(1, FAILING, 2.0)
    assert not watch.expire(61.0)
    assert watch.expire(61.1)
    assert not watch.watched(1)


def test_in_a_domain_that_holds_everybody_nobody_is_watched() -> None:
    """There would be nobody to ask instead."""
    watch = watch_of(cloud("aws", "aws", "aws"))
    watch.note(0, DOWN, 1.0)
    assert not watch.note(1, FAILING, 2.0)
    assert not watch.watched(1)


# --- a reload ---------------------------------------------------------------------------------------


def test_a_reload_does_not_make_old_falls_look_like_one() -> None:
    """Two members fell days apart; taken over at one instant, they are still no coincidence."""
    before = watch_of()
    before.note(0, DOWN, 1.0)
    before.note(1, DOWN, 90_000.0)
    after = DomainWatch(DomainSettings(), SIX, 100_000.0)
    for position in range(6):
        after.adopt(position, before, position, 100_000.0)
    assert after.trips() == ()
    assert after.note(0, WELL, 100_001.0) == after.note(0, DOWN, 100_002.0) is False


def test_a_reload_keeps_a_suspicion_whose_members_have_just_fallen() -> None:
    before = watch_of()
    before.note(0, DOWN, 1.0)
    before.note(1, DOWN, 2.0)
    after = DomainWatch(DomainSettings(), SIX[::-1], 3.0)
    told = [after.adopt(position, before, 5 - position, 3.0) for position in range(6)]
    assert any(told)
    assert suspected(after) == {"aws"}
    assert after.trips()[0].down == (4, 5)


# --- any order of events ----------------------------------------------------------------------------

LABELS = st.lists(
    st.sampled_from([("cloud", "x"), ("cloud", "y"), ("region", "x1"), ("region", "y1"), ("client", "z")]),
    max_size=3,
    unique=True,
).map(tuple)


class AnyOrder(RuleBasedStateMachine):
    """Endpoints fall, fail, return and change their domains in any order, with any time between."""

    @initialize(members=st.lists(st.builds(Member, LABELS, st.sampled_from([0.5, 1.0, 3.0])), min_size=2, max_size=7))
    def begin(self, members: list[Member]) -> None:
        self.now = 0.0
        self.members = members
        self.watch = DomainWatch(DomainSettings(), members, 0.0)
        self.conditions = [UNKNOWN] * len(members)
        self.fell_at = [0.0] * len(members)
        self.up_at = [0.0] * len(members)

    def _seen(self) -> tuple[list[object], list[bool]]:
        everybody = range(len(self.members))
        return [self.watch.demoted(p) for p in everybody], [self.watch.watched(p) for p in everybody]

    def _weight(self, positions: list[int]) -> float:
        return sum(self.members[p].weight for p in positions)

    def _known(self, trip: Trip) -> list[int]:
        return [p for p in trip.members if self.conditions[p] is not UNKNOWN]

    @rule(seconds=st.floats(0, 30) | st.floats(0, 700))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        before, trips = self._seen(), self.watch.trips()
        assert self.watch.expire(self.now) == (before != self._seen())
        self._check(trips)

    @rule(data=st.data(), condition=st.sampled_from([DOWN, DOWN, WELL, WELL, FAILING, UNKNOWN]))
    def one_changes(self, data: st.DataObject, condition: Condition) -> None:
        position = data.draw(st.integers(0, len(self.members) - 1))
        before, trips, was = self._seen(), self.watch.trips(), self.conditions[position]
        self.conditions[position] = condition
        if condition is DOWN and was is not DOWN:
            self.fell_at[position] = self.now
        if condition in (WELL, FAILING) and was in (DOWN, UNKNOWN):
            self.up_at[position] = self.now
        assert self.watch.note(position, condition, self.now) == (before != self._seen())
        self._check(trips)

    @rule(seconds=st.floats(0, 2))
    def a_domain_falls(self, seconds: float) -> None:
        domain = next((domain for member in self.members for domain in member.domains), None)
        for position, member in enumerate(self.members):
            if domain in member.domains and self.conditions[position] is not DOWN:
                self.now += seconds
                trips = self.watch.trips()
                self.conditions[position], self.fell_at[position] = DOWN, self.now
                self.watch.note(position, DOWN, self.now)
                self._check(trips)

    @rule(data=st.data(), domains=LABELS)
    def one_is_placed_elsewhere(self, data: st.DataObject, domains: tuple[tuple[str, str], ...]) -> None:
        position = data.draw(st.integers(0, len(self.members) - 1))
        before = self._seen()
        self.members = list(self.members)
        self.members[position] = Member(domains, self.members[position].weight)
        assert self.watch.place(position, domains, self.now) == (before != self._seen())

    def _check(self, before: tuple[Trip, ...]) -> None:
        """Every suspicion that came or went had its reason."""
        standing = {trip.domain: trip for trip in before}
        current = {trip.domain: trip for trip in self.watch.trips()}
        suspects = {p for trip in current.values() for p in trip.members}
        for domain in current.keys() - standing.keys():
            trip = current[domain]
            falls = [self.fell_at[p] for p in trip.down]
            assert all(self.conditions[p] is DOWN for p in trip.down)
            assert len(falls) >= 2
            assert (min(falls), max(falls), self.now) == (trip.first_at, trip.last_at, trip.since)
            assert max(falls) - min(falls) <= 60.0
            down = [p for p in trip.members if self.conditions[p] is DOWN]
            assert self._weight(down) >= 0.5 * self._weight(self._known(trip))
            assert any(c is WELL and p not in suspects for p, c in enumerate(self.conditions))
        for domain in standing.keys() - current.keys():
            trip = standing[domain]
            if any(set(other.down) >= set(trip.down) for other in current.values()):
                continue  # a narrower one says it better
            fell = [p for p in trip.down if p in trip.members and self.conditions[p] is not UNKNOWN]
            back = [p for p in fell if self.conditions[p] is WELL and self.now - self.up_at[p] >= 10.0]
            assert self._weight(back) >= 0.5 * self._weight(fell)
            well = [p for p in self._known(trip) if self.conditions[p] is WELL]
            assert not fell or self._weight(well) >= 0.5 * self._weight(self._known(trip))

    @invariant()
    def somebody_is_always_left(self) -> None:
        assert any(self.watch.demoted(p) is None for p in range(len(self.members)))

    @invariant()
    def who_is_demoted_is_in_a_suspected_domain_and_who_is_in_one_and_not_demoted_is_well(self) -> None:
        for position, member in enumerate(self.members):
            inside = [trip for trip in self.watch.trips() if position in trip.members]
            domain = self.watch.demoted(position)
            if domain is not None:
                assert domain in [trip.domain for trip in inside]
                assert domain in member.domains
            elif inside:
                assert self.conditions[position] is WELL
                assert all(position not in trip.down for trip in inside)
                assert all(self.now - trip.last_at >= SPARED_AFTER for trip in inside)

    @invariant()
    def who_is_watched_has_failed_beside_one_that_is_newly_down(self) -> None:
        for position, member in enumerate(self.members):
            if self.watch.watched(position):
                assert self.conditions[position] is FAILING
                assert any(
                    condition is DOWN and not set(member.domains).isdisjoint(self.members[other].domains)
                    for other, condition in enumerate(self.conditions)
                )

    def teardown(self) -> None:
        if not hasattr(self, "watch"):
            return
        for position in range(len(self.members)):
            self.watch.note(position, WELL, self.now)
        self.watch.expire(self.now + 80.0)
        assert self.watch.trips() == (), "a suspicion outlives everybody's recovery"
        assert not any(any(seen) for seen in self._seen())


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = examples(max_examples=80, stateful_step_count=30, deadline=None)


# --- figures ----------------------------------------------------------------------------------------

NEVER = float("inf")
TICK, PROBED_EVERY = 0.01, 0.5


class World:
    """Endpoints that are called 100 times a second each, with breakers and probes as the gateway has them."""

    def __init__(self, members: Sequence[Member], chance: random.Random, noise: float, dies_at: dict[int, float]):
        self.chance, self.noise, self.now, self.ticks = chance, noise, 0.0, 0
        self.dies_at = [dies_at.get(position, NEVER) for position in range(len(members))]
        self.breakers = [Breaker(BreakerSettings(), 0.0) for _ in members]
        self.watch = watch_of(members)
        self.conditions = [WELL] * len(members)
        self.probed_at = [0.0] * len(members)
        self.lost = [0] * len(members)  # calls, not probes, that met a dead endpoint
        self.calls = self.falls = 0
        self.time_down = 0.0
        self.fell_at = [NEVER] * len(members)  # for the first time
        self.suspicions: list[tuple[float, tuple[str, str]]] = []

    def tick(self) -> None:
        """A hundredth of a second: one call for each endpoint that gets calls, and the probes that are due."""
        self.ticks += 1
        self.now = self.ticks * TICK
        for position, breaker in enumerate(self.breakers):
            if breaker.state is not BreakerState.CLOSED:
                self.time_down += TICK
                probe = breaker.admit(self.now)
                if probe is not None:
                    self._attempt(position, probe)
            elif self.watch.watched(position) or self.watch.demoted(position) is not None:
                if self.now - self.probed_at[position] >= PROBED_EVERY:
                    self.probed_at[position] = self.now
                    self._attempt(position, breaker.generation)
            else:
                self.calls += 1
                self.lost[position] += self.now >= self.dies_at[position]
                self._attempt(position, breaker.generation)
        self.watch.expire(self.now)

    def _attempt(self, position: int, generation: int) -> None:
        breaker = self.breakers[position]
        failed = self.now >= self.dies_at[position] or self.chance.random() < self.noise
        breaker.settle(generation, Outcome.FAILURE if failed else Outcome.SUCCESS, self.now, self.chance.random())
        if breaker.state is not BreakerState.CLOSED:
            condition = DOWN
        else:
            condition = FAILING if breaker.failures_in_a_row else WELL
        before, self.conditions[position] = self.conditions[position], condition
        if condition is DOWN and before is not DOWN:
            self.falls += 1
            self.fell_at[position] = min(self.fell_at[position], self.now)
        known = {trip.domain for trip in self.watch.trips()} if condition is DOWN else set()
        if self.watch.note(position, condition, self.now) and condition is DOWN:
            self.suspicions += [(self.now, t.domain) for t in self.watch.trips() if t.domain not in known]


@pytest.mark.parametrize(("in_it", "noise", "episodes"), [(2, 0.0, 1000), (2, 0.02, 500), (4, 0.0, 300)])
def test_a_domain_that_dies_member_by_member_costs_each_still_green_member_one_call(
    in_it: int, noise: float, episodes: int
) -> None:
    seed = 11
    chance = random.Random(seed)
    members = cloud(*["aws"] * in_it, "gcp", "gcp", "own", "own")
    lost, slowest = [], 0.0
    for _ in range(episodes):
        dies_at = {position: 0.2 + chance.uniform(0.0, 5.0) for position in range(in_it)}
        begin = min(dies_at.values()) - 0.2  # what comes before the first death is of no interest
        dies_at = {position: at - begin for position, at in dies_at.items()}
        world = World(members, chance, noise, dies_at)
        last = max(dies_at.values())
        while not any(domain == ("cloud", "aws") for _, domain in world.suspicions) or world.now < last + 0.1:
            world.tick()
            assert world.now < last + 5.0, "it was not seen within 5 s"
        slowest = max(slowest, next(at for at, domain in world.suspicions if domain[1] == "aws") - last)
        for position, at in dies_at.items():
            if at > min(
                world.fell_at[other] for other in dies_at if other != position
            ):  # of this domain: noise falls too
                lost.append(world.lost[position])
    print(
        f"{episodes} episodes, {in_it} in the domain, {noise:.0%} noise, seed {seed}: "
        f"{sum(lost) / len(lost):.3f} calls lost on each still green after the first trip in its domain "
        f"(n={len(lost)}, most {max(lost)}), decided at most {slowest:.2f} s after the last one died"
    )
    assert max(lost) <= 1


def test_noise_alone_makes_at_most_one_false_suspicion_in_a_million_calls() -> None:
    """Two false trips of breakers must overlap; and while one is out, the watch keeps calls from the other."""
    seed, calls, noise = 5, 1_000_000, 0.02
    world = World(SIX, random.Random(seed), noise, {})
    while world.calls < calls:
        world.tick()
    pairs, seconds = 3, world.calls * TICK / len(SIX)
    rate = 1.0 / (calls_to_trip(noise) * TICK)
    open_for = BreakerSettings().open_for
    expected = pairs * seconds * 2 * rate * rate * open_for
    print(
        f"{world.calls} calls at {noise:.0%} noise, seed {seed}: {len(world.suspicions)} false suspicions of a domain; "
        f"{expected:.2f} expected without the watch (one false trip in {calls_to_trip(noise):,.0f} calls, {open_for} s "
        f"out); {world.falls} breakers opened, {seconds * len(SIX) * rate:.0f} expected, for "
        f"{world.time_down / max(1, world.falls):.2f} s each"
    )
    assert len(world.suspicions) <= 1
    assert expected <= 1.0

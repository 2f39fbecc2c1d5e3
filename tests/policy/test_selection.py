"""Who may have a call and who gets it: partitions, reasons, fair draws, shares, and the way to another domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import nextafter

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.model import Endpoint, Reason
from gateway.policy.selection import CLEARLY, NEVER, RAMP_STEP, Candidate, pick, rank, successor

NOT_EVEN_IN_NEED = {
    Reason.DRAINED,
    Reason.WRONG_CHAIN,
    Reason.FORKED,
    Reason.IMPLAUSIBLE_HEAD,
    Reason.DISTRUSTED,
    Reason.UNVERIFIED,
    Reason.UNSUPPORTED,
    Reason.NOT_PRIVATE,
    Reason.HELD,
    Reason.NO_BUDGET,
}
CHANCES = st.floats(0, 1, exclude_max=True)
COSTS = st.floats(1e-6, 100)


def endpoint(number: int, tier: int = 0, cloud: str = "", provider: str = "") -> Endpoint:
    domains = (("cloud", cloud),) if cloud else ()
    return Endpoint(id=f"e{number}", route="r", provider=provider or f"p{number}", tier=tier, domains=domains)


@st.composite
def candidate_lists(draw: st.DrawFn, refusals: st.SearchStrategy[Reason | None] | None = None) -> list[Candidate]:
    """Endpoints in a few tiers and clouds, each healthy or refused for some reason."""
    refusals = refusals if refusals is not None else st.none() | st.sampled_from(Reason)
    return [
        Candidate(
            endpoint(number, draw(st.integers(0, 2)), draw(st.sampled_from(["", "aws", "gcp"]))),
            draw(refusals),
            draw(st.just(NEVER) | st.floats(0, 100)),
            draw(st.floats(0.01, 10)),
            draw(st.booleans()),
            draw(st.floats(0, 100)),
        )
        for number in range(draw(st.integers(0, 7)))
    ]


# --- ranking ----------------------------------------------------------------------------------------


@given(candidate_lists())
@examples(max_examples=200)
def test_front_behind_and_refused_are_exactly_the_candidates_without_repeats(candidates: list[Candidate]) -> None:
    ranking = rank(candidates, 0.0)
    refused = [i for i, _, _ in ranking.refused]
    assert list(range(len(candidates))) == sorted([*ranking.front, *ranking.behind, *refused])
    assert all(candidates[i].refused is None for i in (*ranking.front, *ranking.behind))
    assert {i: candidates[i].refused for i in refused} == {i: reason for i, reason, _ in ranking.refused}


@given(candidate_lists())
@examples(max_examples=200)
def test_need_is_the_refused_who_may_still_be_tried_without_repeats_and_nobody_else(
    candidates: list[Candidate],
) -> None:
    ranking = rank(candidates, 0.0)
    expected = {i for i, c in enumerate(candidates) if c.refused is not None and c.refused not in NOT_EVEN_IN_NEED}
    assert expected == set(ranking.need)
    assert len(expected) == len(ranking.need)


@pytest.mark.parametrize("reason", sorted(NOT_EVEN_IN_NEED, key=lambda reason: reason.value))
@given(data=st.data())
@examples(max_examples=25)
def test_who_must_not_be_used_is_not_used_in_panic_either(reason: Reason, data: st.DataObject) -> None:
    """An operator's drain, a wrong or unknown chain and a lacking method outlive every need."""
    candidates = data.draw(candidate_lists(st.sampled_from([reason, Reason.BREAKER_OPEN, Reason.EXCLUDED])))
    ranking = rank(candidates, 0.0)
    assert ranking.panic
    endpoints = [c.endpoint for c in candidates]
    used: list[int] = []
    while (following := successor(ranking, endpoints, [1.0] * len(endpoints), used, True)) is not None:
        assert following not in used
        assert candidates[following].refused is not reason
        used.append(following)


@given(candidate_lists())
@examples(max_examples=200)
def test_the_front_is_the_best_tier_with_anyone_in_it_and_those_behind_come_in_order_of_tier(
    candidates: list[Candidate],
) -> None:
    ranking = rank(candidates, 0.0)
    fit = [c.endpoint.tier for c in candidates if c.refused is None]
    assert {min(fit)} == {candidates[i].endpoint.tier for i in ranking.front} if fit else not ranking.front
    behind = [candidates[i].endpoint.tier for i in ranking.behind]
    assert sorted(behind) == behind
    assert all(tier > min(fit) for tier in behind)
    assert (not fit) == ranking.panic


@given(candidate_lists(), st.floats(0, 50))
@examples(max_examples=200)
def test_a_ranking_is_never_kept_beyond_the_end_of_a_refusal_or_a_step_of_a_growing_share(
    candidates: list[Candidate], now: float
) -> None:
    ranking = rank(candidates, now)
    ends = [until for _, _, until in ranking.refused]
    if any(c.ramping for c in candidates if c.refused is None):
        ends.append(now + RAMP_STEP)
    assert min(ends, default=NEVER) == ranking.valid_until


def test_in_need_the_busy_come_first_and_the_excluded_last() -> None:
    worst_first = [Reason.EXCLUDED, Reason.BREAKER_OPEN, Reason.PROBING, Reason.LAGGING, Reason.NO_SLOT]
    candidates = [Candidate(endpoint(i), reason) for i, reason in enumerate(worst_first)]
    assert rank(candidates, 0.0).need == (4, 3, 2, 1, 0)


def test_of_two_that_are_broken_the_one_that_broke_first_is_asked_first() -> None:
    candidates = [Candidate(endpoint(i), Reason.BREAKER_OPEN, since=since) for i, since in enumerate((5.0, 2.0, 9.0))]
    assert rank(candidates, 10.0).need == (1, 0, 2)


def test_of_two_that_wait_for_a_time_the_one_whose_time_ends_first_is_asked_first() -> None:
    """When their breakers last moved says nothing of them."""
    ends = ((30.0, 1.0), (10.0, 3.0), (20.0, 2.0))
    candidates = [Candidate(endpoint(i), Reason.EXCLUDED, until, since=since) for i, (until, since) in enumerate(ends)]
    assert rank(candidates, 5.0).need == (1, 2, 0)


# --- picking ----------------------------------------------------------------------------------------


class Fixed(float):
    """A load that costs the same at all times."""

    def cost(self, now: float) -> float:
        return float(self)


def pick_from(front: Sequence[int], costs: Sequence[float], shares: Sequence[float] | None, chance: float) -> int:
    return front[pick([Fixed(cost) for cost in costs], shares, chance, 0.0)]


def test_only_the_two_that_were_drawn_are_looked_at() -> None:
    """So a call costs the same however many endpoints there are."""
    asked: list[int] = []

    class Asked:
        def __init__(self, number: int) -> None:
            self.number = number

        def cost(self, now: float) -> float:
            asked.append(self.number)
            return 1.0

    for shares in (None, [1.0 + i for i in range(50)]):
        asked.clear()
        pick([Asked(i) for i in range(50)], shares, 0.4, 0.0)
        assert len(set(asked)) == len(asked) == 2


@given(st.integers(1, 40), st.data())
@examples(max_examples=200)
def test_a_pick_is_always_a_member_of_the_front(count: int, data: st.DataObject) -> None:
    front = data.draw(st.permutations(range(100, 100 + count)))
    costs = data.draw(st.lists(COSTS, min_size=count, max_size=count))
    shares = data.draw(st.none() | st.lists(st.floats(0.01, 10), min_size=count, max_size=count))
    for chance in (0.0, data.draw(CHANCES), nextafter(1.0, 0.0)):
        assert pick_from(front, costs, shares, chance) in front


@pytest.mark.parametrize("count", range(2, 9))
def test_the_two_draws_cover_every_ordered_pair_alike(count: int) -> None:
    """Seen through the costs: of each pair, whoever is made dearer than the other loses it."""
    front = tuple(range(count))
    pairs: Counter[tuple[int, int]] = Counter()
    cells = count * (count - 1)
    for cell in range(cells):
        chance = (cell + 0.5) / cells
        first = pick_from(front, [1.0] * count, None, chance)
        losers = [
            dear
            for dear in front
            if pick_from(front, [2.0 if i == dear else 1.0 for i in front], None, chance) != first
        ]
        assert [first] == losers, "a tie goes to the first draw"
        second = pick_from(front, [2.0 if i == first else 1.0 for i in front], None, chance)
        pairs[first, second] += 1
    assert {(a, b): 1 for a in front for b in front if a != b} == pairs


@pytest.mark.parametrize("count", range(1, 9))
def test_equal_costs_are_picked_equally_often(count: int) -> None:
    steps = 840 * 8
    picked = Counter(pick_from(range(count), [1.0] * count, None, (i + 0.5) / steps) for i in range(steps))
    assert set(range(count)) == set(picked)
    assert max(picked.values()) - min(picked.values()) <= 2


@given(st.lists(COSTS, min_size=2, max_size=6, unique=True), CHANCES)
@examples(max_examples=100)
def test_the_dearest_of_all_is_never_picked_unless_alone(costs: list[float], chance: float) -> None:
    assert costs[pick_from(range(len(costs)), costs, None, chance)] < max(costs)


@pytest.mark.parametrize("shares", [(3.0, 1.0), (0.1, 1.0, 1.0), (5.0, 3.0, 2.0, 0.5), (0.01, 10.0)])
@pytest.mark.parametrize("spread", [1.0, 1.9])
def test_among_endpoints_of_like_speed_calls_follow_the_shares(shares: tuple[float, ...], spread: float) -> None:
    """A latency that is not clearly better does not outweigh what somebody wrote down."""
    steps = 20_000
    costs = [1.0 if i % 2 else spread for i in range(len(shares))]
    picked = Counter(pick_from(range(len(shares)), costs, shares, (i + 0.5) / steps) for i in range(steps))
    for position, share in enumerate(shares):
        assert picked[position] / steps == pytest.approx(share / sum(shares), abs=0.002)


@given(st.floats(0.01, 10), st.floats(0.01, 10), CHANCES)
@examples(max_examples=100)
def test_a_clearly_slower_endpoint_loses_its_share_to_a_faster_one(a: float, b: float, chance: float) -> None:
    assert pick_from((7, 9), (1.0, CLEARLY * 1.01), (a, b), chance) == 7


@given(candidate_lists(st.none()))
@examples(max_examples=60)
def test_shares_stand_beside_the_front_and_are_left_out_when_all_are_equal(candidates: list[Candidate]) -> None:
    ranking = rank(candidates, 0.0)
    expected = tuple(candidates[i].share for i in ranking.front)
    assert (expected if len(set(expected)) > 1 else None) == ranking.shares


# --- going elsewhere --------------------------------------------------------------------------------


@given(candidate_lists(), st.data())
@examples(max_examples=250)
def test_a_successor_is_new_prefers_another_failure_domain_and_the_broken_come_last(
    candidates: list[Candidate], data: st.DataObject
) -> None:
    """Followed to the end: every endpoint that may be tried comes up once."""
    ranking = rank(candidates, 0.0)
    endpoints = [c.endpoint for c in candidates]
    costs = data.draw(st.lists(COSTS, min_size=len(endpoints), max_size=len(endpoints)))
    last_resort = data.draw(st.booleans())
    healthy = {*ranking.front, *ranking.behind}
    used: list[int] = []
    while (following := successor(ranking, endpoints, costs, used, last_resort)) is not None:
        assert following not in used
        left = healthy - set(used)
        assert following in left or (last_resort and not left)
        if left:
            apart = {i for i in left if not any(endpoints[i].shares_domain_with(endpoints[u]) for u in used)}
            assert following in apart or not apart, "one in another failure domain was left"
            same = apart or left
            tiers = {endpoints[i].tier for i in same}
            assert min(tiers) == endpoints[following].tier
            assert costs[following] == min(costs[i] for i in same if endpoints[i].tier == min(tiers))
        used.append(following)
    assert (healthy | set(ranking.need) if last_resort else healthy) == set(used)


def test_another_cloud_beats_a_better_tier_in_the_same_one() -> None:
    endpoints = [endpoint(0, 0, "aws"), endpoint(1, 0, "aws"), endpoint(2, 1, "gcp")]
    ranking = rank([Candidate(e) for e in endpoints], 0.0)
    order = [successor(ranking, endpoints, [1.0, 0.1, 5.0], used, False) for used in ([0], [0, 2], [0, 2, 1])]
    assert order == [2, 1, None]


def test_the_same_provider_is_one_domain() -> None:
    endpoints = [endpoint(0, provider="x"), endpoint(1, provider="x"), endpoint(2, provider="y")]
    ranking = rank([Candidate(e) for e in endpoints], 0.0)
    assert successor(ranking, endpoints, [1.0, 0.1, 5.0], [0], False) == 2


def test_the_same_software_is_less_in_common_than_the_same_place() -> None:
    """Most of a chain's nodes run the same; that must not make the same cloud as good as another one."""
    software = ("client", "geth/1.14.12")
    endpoints = [
        Endpoint(id=f"e{number}", route="r", provider=f"p{number}", domains=(("cloud", cloud), software))
        for number, cloud in enumerate(["aws", "aws", "gcp"])
    ]
    ranking = rank([Candidate(each) for each in endpoints], 0.0)
    assert successor(ranking, endpoints, [0.1, 0.1, 0.9], used=[0], last_resort=False) == 2

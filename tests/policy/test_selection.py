"""Who may have a call and who gets it: partitions, reasons, shares, and the way to another domain."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Endpoint, Reason
from gateway.policy.selection import NEVER, Candidate, pick, rank, successor

NEVER_USED = {Reason.DRAINED, Reason.WRONG_CHAIN, Reason.UNVERIFIED, Reason.UNSUPPORTED, Reason.NOT_PRIVATE}


def endpoint(number: int, tier: int = 0, cloud: str = "", provider: str = "") -> Endpoint:
    domains = (("cloud", cloud),) if cloud else ()
    return Endpoint(id=f"e{number}", route="r", provider=provider or f"p{number}", tier=tier, domains=domains)


CANDIDATES = st.lists(
    st.builds(
        lambda number, tier, refused, until, share: Candidate(endpoint(number, tier), refused, until, share),
        st.integers(0, 99),
        st.integers(0, 3),
        st.one_of(st.none(), st.sampled_from(Reason)),
        st.one_of(st.just(NEVER), st.floats(0, 100)),
        st.floats(0.01, 10),
    ),
    max_size=8,
)


@given(CANDIDATES)
@settings(max_examples=400, deadline=None)
def test_a_ranking_is_the_candidates_without_repeats_and_never_uses_whom_it_must_not(
    candidates: list[Candidate],
) -> None:
    ranking = rank(candidates, 0.0)
    refused = [i for i, _, _ in ranking.refused]
    assert sorted([*ranking.front, *ranking.behind, *refused]) == list(range(len(candidates)))
    assert all(candidates[i].refused not in NEVER_USED for i in (*ranking.front, *ranking.behind, *ranking.need))
    assert set(ranking.need) <= set(refused)
    assert len({candidates[i].endpoint.tier for i in ranking.front}) <= 1
    assert ranking.panic == all(c.refused is not None for c in candidates)
    if ranking.front and ranking.behind:
        best = candidates[ranking.front[0]].endpoint.tier
        assert all(candidates[i].endpoint.tier > best for i in ranking.behind)
    assert all(ranking.valid_until <= until for _, _, until in ranking.refused)


def test_two_at_random_means_every_pair_alike_when_costs_are_alike() -> None:
    counts: Counter[int] = Counter()
    steps = 12_000
    for i in range(steps):
        counts[pick((3, 5, 7, 9), (1.0, 1.0, 1.0, 1.0), None, i / steps)] += 1
    assert set(counts) == {3, 5, 7, 9}
    assert all(abs(count - steps / 4) < steps * 0.01 for count in counts.values())


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_the_dearest_of_all_is_never_picked_unless_alone(costs: list[float], chance: float) -> None:
    picked = pick(tuple(range(len(costs))), costs, None, chance)
    dearest = max(costs)
    assert len(costs) == 1 or costs[picked] < dearest or costs.count(dearest) > 1


def test_a_tenth_of_the_share_needs_a_tenth_of_the_cost() -> None:
    picks = {pick((0, 1), (1.0, 0.2), (1.0, 0.1), c / 10) for c in range(10)}
    assert picks == {0}
    assert {pick((0, 1), (1.0, 0.05), (1.0, 0.1), c / 10) for c in range(10)} == {1}


def test_after_a_failure_another_failure_domain_comes_first_even_from_a_worse_tier() -> None:
    endpoints = [endpoint(0, 0, "aws"), endpoint(1, 0, "aws"), endpoint(2, 1, "gcp")]
    ranking = rank([Candidate(e) for e in endpoints], 0.0)
    order = [successor(ranking, endpoints, [1.0, 0.1, 5.0], used, False) for used in ([0], [0, 2], [0, 2, 1])]
    assert order == [2, 1, None]


def test_the_same_provider_is_one_domain() -> None:
    endpoints = [endpoint(0, provider="x"), endpoint(1, provider="x"), endpoint(2, provider="y")]
    ranking = rank([Candidate(e) for e in endpoints], 0.0)
    assert successor(ranking, endpoints, [1.0, 0.1, 5.0], [0], False) == 2


def test_the_last_resort_comes_after_all_healthy_ones_and_starts_with_who_broke_first() -> None:
    endpoints = [endpoint(n) for n in range(4)]
    candidates = [
        Candidate(endpoints[0], Reason.BREAKER_OPEN, NEVER, since=5.0),
        Candidate(endpoints[1], Reason.BREAKER_OPEN, NEVER, since=2.0),
        Candidate(endpoints[2], Reason.DRAINED),
        Candidate(endpoints[3]),
    ]
    ranking = rank(candidates, 6.0)
    used: list[int] = []
    while (following := successor(ranking, endpoints, [1.0] * 4, used, True)) is not None:
        used.append(following)
    assert used == [3, 1, 0]
    assert successor(ranking, endpoints, [1.0] * 4, [3], False) is None

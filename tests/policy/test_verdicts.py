"""What people are told: the strongest explanation first, with figures, and nothing twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Reason
from gateway.policy.verdicts import (
    NAMED,
    DomainFacts,
    EndpointFacts,
    RequestFacts,
    RouteFacts,
    SplitFacts,
    Verdict,
    VerdictKind,
    headline,
    verdicts,
)

OPEN = "breaker_open (read)"
WELL = RouteFacts("ethereum", tuple(EndpointFacts(name, name) for name in ("infura", "alchemy", "ankr", "own")))
AWS = DomainFacts("cloud", "aws", 100.0, ("infura", "alchemy"), ("infura", "alchemy", "ankr"), 8.0)
SPLIT = SplitFacts(500, 90.0, (("infura", "alchemy"), ("ankr", "own")))
REFUSED = RequestFacts("eth_call", "invalid_request", 95.0, ("infura", "own"))


def with_reasons(facts: RouteFacts, **reasons: str) -> RouteFacts:
    """The same, with one reason each for some endpoints."""
    rows = (replace(e, reasons=(reasons[e.id],), since=99.0) if e.id in reasons else e for e in facts.endpoints)
    return replace(facts, endpoints=tuple(rows))


def kinds(facts: RouteFacts, now: float = 110.0) -> list[VerdictKind]:
    return [verdict.kind for verdict in verdicts(facts, now)]


EVERYTHING = replace(
    with_reasons(WELL, infura=OPEN, alchemy=OPEN, own="excluded"),
    domains=(AWS,),
    halted_since=80.0,
    head=500,
    block_time=12.0,
    split=SPLIT,
    requests=(REFUSED,),
)


# --- which is told ----------------------------------------------------------------------------------


def test_nothing_wrong_is_no_verdict() -> None:
    assert verdicts(WELL, 1.0) == ()
    assert headline(()) == "all well"


def test_the_most_telling_comes_first() -> None:
    assert kinds(EVERYTHING) == [
        VerdictKind.CHAIN_HALTED,
        VerdictKind.CHAIN_SPLIT,
        VerdictKind.DOMAIN,
        VerdictKind.PROVIDER,
        VerdictKind.REQUEST,
    ]


def test_while_our_own_network_is_cut_nobody_else_is_blamed() -> None:
    (only,) = verdicts(replace(EVERYTHING, local_fault_since=104.0, tried=6), 110.0)
    assert only.kind is VerdictKind.LOCAL_FAULT
    assert only.since == 104.0
    assert only.evidence == "none of the 6 providers tried has been reached for 6.0 s, so the fault is on this side"


def test_one_broken_endpoint_is_named_with_its_reason_and_how_many_serve() -> None:
    (only,) = verdicts(with_reasons(WELL, ankr=OPEN), 110.0)
    assert only == Verdict(VerdictKind.PROVIDER, "ankr", 99.0, "breaker_open (read); 3 of 4 endpoints are well")
    assert headline([only]) == "ankr is out: breaker_open (read); 3 of 4 endpoints are well"


def test_a_member_of_a_suspected_domain_is_not_told_again() -> None:
    facts = replace(with_reasons(WELL, infura=OPEN, alchemy=OPEN), domains=(AWS,))
    assert kinds(facts) == [VerdictKind.DOMAIN]


def test_a_member_that_falls_after_its_domain_was_suspected_is_not_told_again() -> None:
    facts = replace(with_reasons(WELL, infura=OPEN, alchemy=OPEN, ankr="probing (trace)"), domains=(AWS,))
    assert kinds(facts) == [VerdictKind.DOMAIN]


@pytest.mark.parametrize("reason", ["excluded", "held", "wrong_chain", "distrusted"])
def test_what_a_sick_domain_does_not_do_to_its_members_is_told_beside_it(reason: str) -> None:
    facts = replace(with_reasons(WELL, infura=OPEN, alchemy=reason), domains=(AWS,))
    found = verdicts(facts, 110.0)
    assert [(verdict.kind, verdict.subject) for verdict in found] == [
        (VerdictKind.DOMAIN, "aws"),
        (VerdictKind.PROVIDER, "alchemy"),
    ]


def test_a_split_explains_who_is_on_the_smaller_branch() -> None:
    facts = with_reasons(WELL, own="forked")
    assert kinds(facts) == [VerdictKind.PROVIDER]
    assert kinds(replace(facts, split=SPLIT)) == [VerdictKind.CHAIN_SPLIT]


def test_a_halted_chain_does_not_hide_who_is_broken_besides() -> None:
    facts = replace(with_reasons(WELL, own="excluded"), halted_since=80.0, head=500, block_time=12.0)
    assert kinds(facts) == [VerdictKind.CHAIN_HALTED, VerdictKind.PROVIDER]


def test_a_refusal_by_one_endpoint_alone_is_no_verdict_on_the_request() -> None:
    assert verdicts(replace(WELL, requests=(replace(REFUSED, endpoints=("own",)),)), 110.0) == ()


def test_the_newest_of_the_same_refusals_stands_for_all_of_them() -> None:
    older = replace(REFUSED, at=50.0, endpoints=("ankr", "own"))
    for order in ((older, REFUSED), (REFUSED, older)):
        (only,) = verdicts(replace(WELL, requests=order), 110.0)
        assert (only.since, only.subject) == (95.0, "eth_call")
        assert only.evidence == "eth_call got invalid_request from infura and own alike"


def test_two_methods_refused_are_two_verdicts() -> None:
    assert len(verdicts(replace(WELL, requests=(REFUSED, replace(REFUSED, method="eth_getLogs"))), 110.0)) == 2


# --- in which words ---------------------------------------------------------------------------------


def test_a_domain_is_told_with_who_fell_how_fast_and_who_is_left() -> None:
    facts = replace(with_reasons(WELL, infura=OPEN, alchemy=OPEN), domains=(AWS,))
    assert headline(verdicts(facts, 110.0)) == (
        "aws looks down: infura and alchemy went down within 8 s, 2 of 3 with cloud aws; 1 of 4 endpoints are well"
    )


@pytest.mark.parametrize(("over", "words"), [(None, "together"), (0.2, "within 1 s"), (59.6, "within 60 s")])
def test_the_time_between_the_falls_is_told_when_it_is_known(over: float | None, words: str) -> None:
    (only,) = verdicts(replace(WELL, domains=(replace(AWS, over=over),)), 110.0)
    assert f"went down {words}," in only.evidence


def test_a_domain_that_is_a_provider_is_called_one() -> None:
    (only,) = verdicts(replace(WELL, domains=(replace(AWS, label="provider", value="infura"),)), 110.0)
    assert only.subject == "provider infura"


def test_nobody_is_said_to_serve_when_nobody_does() -> None:
    facts = with_reasons(WELL, infura=OPEN, alchemy=OPEN, ankr=OPEN, own=OPEN)
    found = verdicts(facts, 110.0)
    assert headline(found) == "infura is out: breaker_open (read); nobody is left that is well (and 3 more)"


def test_a_green_member_of_a_suspected_domain_is_not_counted_as_well() -> None:
    facts = replace(with_reasons(WELL, infura=OPEN, alchemy=OPEN, own=OPEN), domains=(AWS,))
    assert verdicts(facts, 110.0)[0].evidence.endswith("nobody is left that is well")


def test_a_halt_is_told_with_its_block_and_the_usual_pace() -> None:
    facts = replace(WELL, halted_since=80.0, head=500, block_time=12.0, tellers=3)
    assert headline(verdicts(facts, 110.0)) == (
        "the chain has halted: block 500 has been the newest at all 3 providers for 30.0 s, "
        "and blocks came every 12.0 s"
    )
    assert "at the only provider that tells, which may be stuck itself, for" in headline(
        verdicts(replace(facts, tellers=1), 110.0)
    )


def test_a_split_is_told_with_its_height_and_its_sides() -> None:
    assert headline(verdicts(replace(WELL, split=SPLIT), 110.0)) == (
        "the endpoints disagree about the chain: at block 500, infura and alchemy against ankr and own"
    )


def test_a_headline_says_how_much_more_there_is() -> None:
    found = verdicts(EVERYTHING, 110.0)
    assert headline(found).startswith("the chain has halted")
    assert headline(found).endswith("(and 4 more)")


# --- whatever the facts -----------------------------------------------------------------------------

NAMES = [f"endpoint-{n}" for n in range(40)]
SOME = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)
REASONS = st.lists(st.sampled_from([reason.value for reason in Reason]), max_size=3).map(tuple)


@st.composite
def any_facts(draw: st.DrawFn) -> RouteFacts:
    instant = st.floats(0, 100)
    rows = [EndpointFacts(name, name[:-1], draw(REASONS), draw(instant)) for name in draw(SOME)]
    domain = st.builds(DomainFacts, st.sampled_from(["cloud", "provider"]), st.just("x"), instant, SOME, SOME)
    split = st.builds(SplitFacts, st.integers(0), instant, st.lists(SOME, min_size=2, max_size=20).map(tuple))
    request = st.builds(RequestFacts, st.sampled_from("ab"), st.sampled_from("xy"), instant, SOME)
    return RouteFacts(
        "route",
        tuple(rows),
        tuple(draw(st.lists(domain, max_size=2))),
        draw(st.none() | instant),
        draw(st.none() | instant),
        draw(st.integers(-1)),
        draw(st.floats(0, 100)),
        draw(st.none() | split),
        tuple(draw(st.lists(request, max_size=8))),
    )


@given(any_facts())
def test_whatever_the_facts_the_order_holds_and_nothing_is_told_twice(facts: RouteFacts) -> None:
    order = list(VerdictKind)
    found = verdicts(facts, 200.0)
    places = [order.index(verdict.kind) for verdict in found]
    assert places == sorted(places)
    told = [(verdict.kind, verdict.subject) for verdict in found if verdict.kind is VerdictKind.PROVIDER]
    assert len(told) == len(set(told))
    if facts.local_fault_since is not None:
        assert len(found) == 1
    broken = {e.id for e in facts.endpoints if e.reasons}
    assert {subject for _, subject in told} <= broken


@given(any_facts())
def test_whatever_the_facts_a_sentence_stays_short_however_many_endpoints_there_are(facts: RouteFacts) -> None:
    found = verdicts(facts, 200.0)
    for verdict in found:
        assert verdict.evidence
        assert verdict.evidence.count("endpoint-") <= 3 * NAMED
        assert len(verdict.evidence) < 400
    assert "\n" not in headline(found)
    assert (headline(found) == "all well") == (not found)

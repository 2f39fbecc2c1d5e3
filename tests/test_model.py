"""The words: closed sets whose members carry the facts that policies go by."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway import model
from gateway.bounds import require_bounds, setting
from gateway.model import (
    DOMAIN_LABELS,
    AttemptRecord,
    Effect,
    Elsewhere,
    Endpoint,
    Family,
    Method,
    Outcome,
    Reading,
    ReplyKind,
    RequestClass,
    Sent,
    Shown,
)

ENUMS = [v for v in vars(model).values() if isinstance(v, type) and issubclass(v, enum.Enum) and v is not enum.Enum]

# one letter for each fact of a class: r repeatable, l last resort, u looked up, w write; then the limit
CLASSES = """
pinned_read        rl..
head_read          rl..
highest_read       rl..
heavy_read         rl..  2
broadcast          r.uw
private_broadcast  r.uw
stateful           ....  1
signing            ...w  1
venue_write        ...w  1
venue_signed_read  rl..
operator           ...w  1
unknown            ...w  1
"""


def test_the_facts_of_every_request_class_are_what_the_design_says() -> None:
    expected = {}
    for label, facts, *limit in map(str.split, CLASSES.strip().splitlines()):
        expected[label] = (tuple(letter != "." for letter in facts), int(limit[0]) if limit else None)
    assert expected == {
        c.value: ((c.repeatable, c.last_resort, c.looked_up, c.write), c.max_endpoints) for c in RequestClass
    }


def test_what_may_have_an_effect_is_never_repeated_unless_it_can_be_told_apart() -> None:
    """A write is repeatable only where its hash tells it apart, and it can be looked up."""
    for request_class in RequestClass:
        if request_class.write and request_class.repeatable:
            assert request_class.looked_up
        if request_class.write:
            assert not request_class.last_resort, "a write is never sent to an endpoint believed broken"
        if not request_class.repeatable:
            assert request_class.max_endpoints == 1


def test_the_unknown_class_is_the_strictest() -> None:
    strictest = RequestClass.UNKNOWN
    assert not strictest.repeatable
    assert not strictest.last_resort
    assert strictest.write


@pytest.mark.parametrize("closed", ENUMS, ids=lambda closed: closed.__name__)
def test_the_labels_of_a_closed_set_are_distinct_lower_case_words(closed: type[enum.Enum]) -> None:
    labels = [member.value for member in closed]
    assert len(closed.__members__) == len(set(labels)), "two names for one member"
    assert all(isinstance(label, str) and label.isidentifier() and label == label.lower() for label in labels)


@pytest.mark.parametrize("closed", [RequestClass, ReplyKind])
def test_a_label_in_a_data_file_finds_its_member_and_no_other(closed: Any) -> None:
    assert list(closed) == [closed.named(member.value) for member in closed]
    with pytest.raises(KeyError):
        closed.named("no such thing")


def test_families_have_dense_slots_and_the_fallback_comes_first() -> None:
    assert list(range(len(Family))) == [family.slot for family in Family]
    assert Family.OTHER.slot == 0


def test_an_unclassified_reply_is_the_careful_middle() -> None:
    kind = ReplyKind.UNCLASSIFIED
    assert (kind.elsewhere, kind.counts) == (Elsewhere.ONCE, Outcome.SOFT_FAILURE)
    assert (kind.effect, kind.shown) == (Effect.NONE, Shown.UPSTREAM_ERROR)


@pytest.mark.parametrize("kind", ReplyKind)
def test_the_three_answers_of_a_reply_do_not_contradict_each_other(kind: ReplyKind) -> None:
    if kind.counts is Outcome.SUCCESS:
        assert kind.elsewhere is (Elsewhere.ONCE if kind is ReplyKind.EMPTY else Elsewhere.NO)
        assert kind.shown in (Shown.ANSWER, Shown.TRANSACTION_HASH)
    if kind.elsewhere is Elsewhere.NO:
        assert kind.counts in (Outcome.SUCCESS, Outcome.IGNORED), "final, and yet the endpoint's fault"
        assert kind.effect is Effect.NONE
    if kind.counts is Outcome.FAILURE:
        assert kind.elsewhere is Elsewhere.YES
        assert kind.shown is Shown.GATEWAY_ERROR
    if kind.effect in (Effect.HOLD, Effect.EXCLUDE):
        assert kind.shown is Shown.GATEWAY_ERROR, "words about our account are none of the caller's business"
        assert kind.counts in (Outcome.THROTTLED, Outcome.IGNORED), "counted twice"
        assert kind.elsewhere is Elsewhere.YES
    assert (kind.shown is Shown.ANSWER) == (
        kind in (ReplyKind.ANSWER, ReplyKind.EMPTY, ReplyKind.ODD, ReplyKind.BEHIND)
    )


DOMAINS = st.lists(st.tuples(st.sampled_from(DOMAIN_LABELS), st.sampled_from("ab")), max_size=4).map(tuple)
ENDPOINTS = st.builds(Endpoint, id=st.just("e"), route=st.just("r"), provider=st.sampled_from("pqr"), domains=DOMAINS)


@given(ENDPOINTS, ENDPOINTS)
@examples(max_examples=100)
def test_two_endpoints_share_a_domain_when_one_value_of_one_label_or_the_provider_is_the_same(
    one: Endpoint, other: Endpoint
) -> None:
    expected = one.provider == other.provider or bool(set(one.domains) & set(other.domains))
    assert expected == one.shares_domain_with(other)
    assert expected == other.shares_domain_with(one)
    assert one.shares_domain_with(one)


def test_the_same_value_of_two_labels_is_no_shared_domain() -> None:
    one = Endpoint(id="a", route="r", provider="p", domains=(("cloud", "x"),))
    other = Endpoint(id="b", route="r", provider="q", domains=(("region", "x"),))
    assert not one.shares_domain_with(other)


def test_an_unknown_method_is_labelled_other_whatever_its_name() -> None:
    method = Method("eth_made_up", RequestClass.UNKNOWN, Family.OTHER, known=False)
    assert method.label == "other"
    assert dataclasses.replace(method, known=True).label == "eth_made_up"


@pytest.mark.parametrize(
    "value",
    [
        Method("m", RequestClass.UNKNOWN, Family.OTHER),
        Reading(ReplyKind.ANSWER),
        Endpoint(id="e", route="r", provider="p"),
        AttemptRecord("e", "primary", "answer", Sent.ANSWERED, 0.0, 1.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_word_once_said_is_not_changed(value: Any) -> None:
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
    assert not hasattr(value, "__dict__")


# --- bounds -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Settings with a bound on each side."""

    share: float = setting(0.5, "a share", unit="share", low=0, high=1)
    count: int | None = setting(None, "a count, or none", low=1)
    on: bool = setting(True, "a switch", low=5)

    def __post_init__(self) -> None:
        require_bounds(self)


@given(st.floats(allow_nan=False), st.none() | st.integers(-5, 5))
@examples(max_examples=100)
def test_a_settings_object_that_exists_is_within_its_bounds(share: float, count: int | None) -> None:
    legal = 0 <= share <= 1 and (count is None or count >= 1)
    if legal:
        assert Made(share=share, count=count).share == share
    else:
        with pytest.raises(ValueError, match=r"(share|count) must be at (least|most) [01], got"):
            Made(share=share, count=count)

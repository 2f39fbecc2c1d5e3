"""The feed of anything else: each event once, never back, and a change of source is made good or told."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.events import FeedKind
from gateway.policy.feeds.plain import REFRESH, PlainFeed

EVENTS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9), st.integers(-1, 9)), max_size=60)
"""Source, what it says, place."""


def feed_of(kind: FeedKind, memory: int = 4096) -> PlainFeed:
    feed = PlainFeed(kind, memory)
    feed.joined(1, 0.0)
    return feed


def failed_over(feed: PlainFeed) -> str | None:
    """Source 1 dies and source 2 takes over."""
    feed.left(1, 1.0)
    feed.joined(2, 2.0)
    return feed.switched(2.0)


@given(EVENTS)
@examples(max_examples=50)
def test_what_is_not_known_is_passed_through_as_it_comes_from_the_source_that_joined_last(
    events: list[tuple[int, int, int]],
) -> None:
    feed = feed_of(FeedKind.PLAIN)
    for source in (2, 3):
        feed.joined(source, 0.0)
    assert [feed.event(source, b"{}", b"", -1) for source, _, _ in events] == [source == 3 for source, _, _ in events]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), max_size=60))
@examples(max_examples=100)
def test_of_sources_that_say_the_same_events_each_event_is_told_once(events: list[tuple[int, int]]) -> None:
    feed = feed_of(FeedKind.PLAIN)
    said: set[tuple[int, int]] = set()
    told: list[int] = []
    for source, what in events:
        if (source, what) in said:
            continue  # each source says an event once
        said.add((source, what))
        if feed.event(source, b"", b"%d" % what, -1):
            told.append(what)
    assert sorted(told) == sorted({what for _, what in said})


def test_an_event_that_its_own_source_says_twice_is_told_twice() -> None:
    feed = feed_of(FeedKind.PLAIN)
    assert [feed.event(1, b"", b"x", -1) for _ in range(2)] == [True, True]


def test_after_a_failover_a_new_source_may_repeat_what_was_told_once_and_then_speaks_for_itself() -> None:
    feed = feed_of(FeedKind.PLAIN)
    feed.event(1, b"", b"x", -1)
    failed_over(feed)
    assert [feed.event(2, b"", b"x", -1) for _ in range(2)] == [False, True]


@given(EVENTS)
@examples(max_examples=100)
def test_the_newest_word_never_goes_back(events: list[tuple[int, int, int]]) -> None:
    feed = feed_of(FeedKind.NEWEST)
    told = [place for source, what, place in events if feed.event(source, b"", b"%d" % what, place) and place >= 0]
    assert told == sorted(told)


def test_a_place_that_is_not_known_is_told() -> None:
    feed = feed_of(FeedKind.NEWEST)
    assert feed.event(1, b"", b"", 7)
    assert feed.event(1, b"", b"", -1)
    assert not feed.event(1, b"", b"", 6)


def test_places_say_nothing_of_events_that_are_not_a_state() -> None:
    feed = feed_of(FeedKind.PLAIN)
    assert feed.event(1, b"", b"a", 7)
    assert feed.event(1, b"", b"b", 6)


def test_one_event_ends_a_subscription_that_has_one() -> None:
    feed = feed_of(FeedKind.ONCE)
    assert [feed.event(1, b"", b"x", 1), feed.event(2, b"", b"y", 2), feed.event(REFRESH, b"", b"", 3)] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("kind", "must"), [(FeedKind.PLAIN, "notice"), (FeedKind.NEWEST, "refresh"), (FeedKind.ONCE, "refresh")]
)
def test_a_failover_is_followed_by_what_makes_it_good_once(kind: FeedKind, must: str) -> None:
    feed = feed_of(kind)
    assert feed.switched(0.0) is None, "the first source follows nobody"
    assert failed_over(feed) == must
    assert feed.switched(3.0) is None


def test_a_subscription_that_is_over_needs_no_refresh() -> None:
    feed = feed_of(FeedKind.ONCE)
    feed.event(1, b"", b"", -1)
    assert failed_over(feed) is None


@pytest.mark.parametrize("kind", [FeedKind.PLAIN, FeedKind.NEWEST])
def test_while_another_source_tells_nothing_is_lost_of_events_that_can_be_told_apart(kind: FeedKind) -> None:
    feed = feed_of(kind)
    feed.event(1, b"", b"x", -1)
    feed.joined(2, 0.0)
    assert feed.switched(0.0) is None
    assert [feed.event(1, b"", b"y", -1), feed.event(2, b"", b"y", -1)] == [True, False]
    feed.left(1, 1.0)
    feed.joined(3, 2.0)
    assert feed.switched(2.0) is None


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("kind", "must"), [(FeedKind.PLAIN, "notice"), (FeedKind.NEWEST, "refresh")])
def test_a_source_that_takes_over_events_without_an_identity_is_a_change(kind: FeedKind, must: str, told: bool) -> None:
    feed = feed_of(kind)
    if told:
        feed.event(1, b"", b"", 7)
    feed.joined(2, 0.0)
    assert feed.switched(0.0) == must
    feed.left(1, 1.0)
    assert feed.switched(1.0) is None


def test_a_source_that_never_joined_tears_nothing() -> None:
    feed = PlainFeed(FeedKind.PLAIN)
    feed.left(9, 0.0)
    feed.joined(1, 1.0)
    assert feed.switched(1.0) is None


def test_a_refresh_that_shows_what_was_told_is_not_told_again_and_news_is() -> None:
    feed = feed_of(FeedKind.NEWEST)
    feed.event(1, b"", b"balance 5", 10)
    assert failed_over(feed) == "refresh"
    assert not feed.event(REFRESH, b"", b"balance 5", 12)
    assert feed.event(REFRESH, b"", b"balance 6", 13)
    assert not feed.event(2, b"", b"balance 5", 11), "older than the refresh"


@pytest.mark.parametrize("memory", [1, 10, 100])
def test_only_so_many_events_are_remembered(memory: int) -> None:
    seed, n, again = 1, 5000, 0
    chance = Random(seed)
    feed = feed_of(FeedKind.PLAIN, memory)
    last: list[int] = []
    for _ in range(n):
        what = chance.randrange(4 * memory)
        new = feed.event(1 + chance.randrange(2), b"", b"%d" % what, -1)
        if not new:
            again += 1
            assert what in last[-memory:], "not told although it was not remembered any more"
        last = [*[other for other in last if other != what], what][-memory:]
    print(f"memory {memory}: {again} of {n} seen before (n={n}, seed={seed})")
    assert len(feed._said) <= memory

"""The laws of branches: hashes convict at depth only, voters count, and agreement forgives."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.policy.branches import HEIGHTS, LONGEST_HASH, Branches

LETTERS = "xyz"


def chain(branch: str, number: int, since: int) -> str:
    """The hash of a block: the branches share everything below `since`."""
    return f"{branch if number >= since else 'root'}{number}"


def seen(branches: Sequence[str], depth: int = 3, length: int = 10, since: int = 0, voters: str = "") -> Branches:
    """Everybody has said each block from 100 on, on its branch, which parts from the others at `since`."""
    ring = Branches(depth, voters or [f"v{i}" for i in range(len(branches))])
    for number in range(100, 100 + length):
        for position, branch in enumerate(branches):
            ring.saw(position, number, chain(branch, number, since), chain(branch, number - 1, since))
    return ring


def everyone(branches: Sequence[str]) -> range:
    return range(len(branches))


@pytest.mark.parametrize(
    ("branches", "minority"),
    [
        ("xxx", ()),
        ("xxy", (2,)),
        ("xyx", (1,)),
        ("xy", ()),
        ("xxyy", ()),
        ("xxxyy", (3, 4)),
        ("xxyyz", ()),  # the largest part is no majority
        ("xxxyz", (3, 4)),
        ("xyz", ()),
        ("xxyz", ()),  # two against two
    ],
)
def test_a_majority_convicts_and_nothing_less(branches: str, minority: tuple[int, ...]) -> None:
    ring = seen(branches)
    assert ring.minority(everyone(branches)) == set(minority)
    split = ring.split(everyone(branches))
    assert (split is None) == (len(set(branches)) == 1)
    if split is not None:
        assert split.minority == set(minority)
        assert len(split.branches) == len(set(branches))
        assert sorted(position for part in split.branches.values() for position in part) == list(everyone(branches))


@pytest.mark.parametrize(
    ("voters", "branches", "minority"),
    [
        ("aaab", "xxxy", ()),  # one against one
        ("aaabc", "xxxyy", (0, 1, 2)),  # three URLs of one provider are one opinion
        ("aab", "xyx", (1,)),  # a provider that is on both sides counts on both
        ("aa", "xy", ()),
    ],
)
def test_voters_are_counted_and_not_endpoints(voters: str, branches: str, minority: tuple[int, ...]) -> None:
    assert seen(branches, voters=voters).minority(everyone(branches)) == set(minority)


@given(st.integers(1, 12), st.integers(1, 12))
@examples(max_examples=60)
def test_exactly_so_many_differing_heights_in_a_row_convict(depth: int, differing: int) -> None:
    ring = seen("xxy", depth=depth, length=20, since=120 - differing)
    assert ring.minority(range(3)) == ({2} if differing >= depth else set())


def test_one_that_has_said_nothing_comparable_is_not_accused_and_does_not_vote() -> None:
    ring = seen("xxy")
    ring.forget(1)
    assert ring.minority(range(3)) == set()
    assert ring.split(range(3)) is not None
    assert ring.minority([0, 2]) == set()


def test_only_those_present_are_heard() -> None:
    ring = seen("xxy")
    assert ring.minority([0, 1, 2]) == {2}
    assert ring.minority([1, 2]) == set()
    assert ring.split([0, 1]) is None


@given(st.integers(4, 60))
@examples(max_examples=30)
def test_one_that_comes_back_is_forgiven_by_its_newest_common_block_however_long_it_was_away(length: int) -> None:
    ring = seen("xxy", length=length)
    assert ring.minority(range(3)) == {2}
    newest = 100 + length - 1
    ring.saw(2, newest, f"x{newest}")
    assert ring.minority(range(3)) == set()


def test_one_that_goes_back_to_the_fork_takes_back_what_it_said_above() -> None:
    """A node is set back by hand, from 109 to 103, and comes forward again on the other branch."""
    ring = seen("xxy")
    ring.saw(2, 103, "x103", "x102")
    assert ring.minority(range(3)) == set()


def test_a_parent_is_a_word_about_the_block_before() -> None:
    ring = Branches(1, "abc")
    for position, branch in enumerate("xxy"):
        ring.saw(position, 7 + position % 2, f"{branch}", f"p{7 + position % 2}")
    ring.saw(0, 9, "x9", "x8")
    ring.saw(1, 9, "", "x8")
    ring.saw(2, 9, "", "y8")
    assert ring.minority(range(3)) == {2}


@given(st.data())
@examples(max_examples=150)
def test_reorganisations_shallower_than_the_depth_accuse_nobody(data: st.DataObject) -> None:
    """Each endpoint sees each height on any branch at first, and within two blocks on the one that won."""
    ring = Branches(3, "abcd")
    for number in range(100, 130):
        for position in range(4):
            losing = data.draw(st.integers(0, 2)) if number % 3 == 0 else 0
            branch = "y" if losing and number % 3 == 0 else "x"
            ring.saw(position, number, f"{branch}{number}")
        assert ring.minority(range(4)) == set()
        assert ring.split(range(4)) is None


def test_finalized_blocks_convict_at_once_and_acquit_only_without_other_evidence() -> None:
    ring = Branches(3, "abc")
    for position, final in enumerate(("f", "f", "g")):
        ring.sealed(position, 50, final)
    split = ring.split(range(3))
    assert split is not None
    assert (split.height, dict(split.branches), split.minority) == (50, {"f": (0, 1), "g": (2,)}, {2})
    ring.sealed(2, 51, "h")
    assert ring.split(range(3)) is None
    ring = seen("xxy")
    for position in range(3):
        ring.sealed(position, 50, "f")
    assert ring.minority(range(3)) == {2}


def test_words_about_heights_that_left_the_ring_are_not_kept() -> None:
    ring = seen("xx", length=200)
    assert ring.size == 2 * HEIGHTS
    assert not ring.saw(0, 300 - HEIGHTS - 1, "other")
    assert not ring.saw(0, 300 - HEIGHTS, f"x{300 - HEIGHTS}", f"x{299 - HEIGHTS}")
    assert ring.size == 2 * HEIGHTS


def test_one_that_fell_silent_before_the_branches_parted_speaks_for_neither() -> None:
    ring = seen("xxx", length=5)
    for number in range(105, 112):
        for position, branch in enumerate("xy"):
            ring.saw(position, number, f"{branch}{number}")
    assert ring.minority(range(3)) == set()
    assert ring.split(range(3)) is not None


def test_a_race_at_the_tip_takes_no_vote_from_a_branch() -> None:
    ring = seen("xxy")
    ring.saw(1, 110, "z110", "x109")
    ring.saw(0, 110, "x110", "x109")
    assert ring.minority(range(3)) == {2}


def test_nothing_said_is_nothing_learned_and_a_repetition_is_none() -> None:
    ring = Branches(3, "ab")
    assert not ring.saw(0, 5, "")
    assert ring.saw(0, 5, "x5", "x4")
    assert not ring.saw(0, 5, "x5", "x4")
    assert ring.saw(0, 5, "y5", "x4")
    assert ring.size == 2


def test_after_a_reset_nothing_is_held_against_anybody() -> None:
    ring = seen("xxy")
    ring.clear()
    assert (ring.size, ring.minority(range(3)), ring.split(range(3))) == (0, set(), None)
    assert ring.saw(0, 1, "x1")


def test_a_hundred_thousand_heights_leave_sixty_four() -> None:
    chance = random.Random(11)
    ring = Branches(3, "abc")
    largest = 0
    for number in range(100_000):
        position = chance.randrange(3)
        ring.saw(position, number + chance.choice((0, 0, -1, -70, 5)), "xyz"[position] * 500)
        if number % 1000 == 0:
            largest = max(largest, ring.size)
            ring.minority(range(3))
    print(f"at most {largest} hashes kept over 100000 heights (seed 11)", file=sys.stderr)
    assert largest <= 3 * HEIGHTS
    assert all(len(said) <= LONGEST_HASH for heights in ring._heights.values() for said in heights.values())
    assert len(ring._suspicious) <= HEIGHTS


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 90), st.sampled_from(LETTERS)), max_size=120))
@examples(max_examples=150)
def test_whatever_is_said_somebody_is_left_and_nobody_is_refused_without_evidence(
    words: list[tuple[int, int, str]],
) -> None:
    ring = Branches(2, "abcde")
    for position, number, letter in words:
        ring.saw(position, number, f"{letter}{number}", f"{letter}{number - 1}")
    minority = ring.minority(range(5))
    split = ring.split(range(5))
    assert len(minority) < 5
    assert not minority or split is not None
    if split is not None:
        assert len(split.branches) > 1
        assert split.minority == minority

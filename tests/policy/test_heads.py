"""The laws of heads: nobody who is up to date is refused, and no single voice says where the chain is."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable, Sequence
from math import floor

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.model import HeadReport, Rhythm
from gateway.policy.heads import HIGHEST, HeadBook, HeadSettings, Standing

DEFAULTS = HeadSettings()
WALL = 1_700_000_000.0  # seconds since 1970 at now = 0


def book_of(voters: str | Sequence[str], block_time: float | None = 2.0, **settings: float) -> HeadBook:
    return HeadBook(HeadSettings(**settings), list(voters), block_time, 0.0)  # type: ignore[arg-type]


def say(book: HeadBook, numbers: Sequence[int | None], now: float, ages: Sequence[float] | None = None) -> None:
    """Each endpoint says its number (None: nothing) at `now`; with `ages`, of a block that old."""
    for position, number in enumerate(numbers):
        if number is not None:
            stamp = None if ages is None else int(WALL + now - ages[position])
            book.report(position, HeadReport(number, timestamp=stamp), now, WALL + now)


def steadily(book: HeadBook, begin: float, blocks: int, numbers: Callable[[int], Sequence[int | None]]) -> float:
    """So many blocks of two seconds, each endpoint saying `numbers(block)`; gives the instant after them."""
    for block in range(blocks):
        say(book, numbers(block), begin + 2.0 * block)
        book.expire(begin + 2.0 * block)
    return begin + 2.0 * blocks


def standings(book: HeadBook, count: int) -> list[str]:
    return [book.standing(position).value for position in range(count)]


# --- who is current ---------------------------------------------------------------------------------


def test_nothing_is_known_before_anybody_spoke() -> None:
    book = book_of("abc")
    assert (book.reference, book.head(0), book.lag(0, 5.0)) == (-1, -1, (0, 0.0))
    assert standings(book, 3) == ["unknown"] * 3
    assert not book.covers(0, 0)
    assert book.plausible(10**9, 1.0)
    assert book.halted_since(1000.0) is None


def test_the_highest_of_those_who_agree_is_the_reference() -> None:
    book = book_of("abc")
    say(book, [100, 101, 102], 0.0)
    assert book.reference == 102
    assert standings(book, 3) == ["current"] * 3


@given(st.integers(0, 2000))
@examples(max_examples=80)
def test_standing_follows_from_the_lag_alone(lag: int) -> None:
    book = book_of("abc")
    say(book, [5000, 5000, 5000 - lag], 0.0)
    expected = Standing.CURRENT if lag <= 2 else Standing.LAGGING if lag <= 20 else Standing.FAR_BEHIND
    assert (book.standing(2), book.lag(2, 0.0)[0]) == (expected, lag)


@pytest.mark.parametrize(
    ("block_time", "blocks"), [(12.0, 2), (2.0, 2), (1.0, 2), (0.5, 4), (0.25, 8), (0.05, 40), (None, 8), (600.0, 2)]
)
def test_the_tolerance_is_the_largest_of_blocks_time_and_one_and_a_half_block_times(
    block_time: float | None, blocks: int
) -> None:
    """An unknown chain is taken for a fast one until its pace is known."""
    assert book_of("ab", block_time).tolerance == blocks
    assert book_of("ab", block_time, lag_blocks=50).tolerance == 50


def test_the_lag_is_told_in_seconds_since_the_reference_passed_the_endpoint() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 20, lambda block: [100 + block, 100 + block, 100 + min(block, 9)])
    assert book.lag(2, now) == (10, now - 20.0)  # block 110 came at 20 s
    assert book.lag(0, now) == (0, 0.0)


def test_a_change_is_told_and_a_repetition_is_none() -> None:
    book = book_of("ab")
    assert book.report(0, HeadReport(7), 0.0)
    assert book.report(1, HeadReport(7), 0.0)
    assert not book.report(1, HeadReport(7), 1.0)
    assert book.report(1, HeadReport(8), 2.0)


@pytest.mark.parametrize("number", [-1, HIGHEST + 1, 10**40])
def test_a_number_that_no_chain_can_have_is_no_word(number: int) -> None:
    book = book_of("ab")
    assert not book.report(0, HeadReport(number), 0.0)
    assert book.reference == -1


def test_one_that_was_taken_out_has_no_standing_and_no_vote_until_it_speaks_again() -> None:
    book = book_of("ab")
    say(book, [100, 100], 0.0)
    assert book.lost(0, 1.0)
    assert (book.standing(0), book.head(0), book.covers(0, 1)) == (Standing.UNKNOWN, -1, False)
    assert book.report(0, HeadReport(101), 2.0)
    assert book.standing(0) is Standing.CURRENT


def test_one_a_little_above_those_who_outvote_it_is_refused_only_beyond_the_tolerance() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
    say(book, [111, 109, 109], now)
    say(book, [112, 109, 109], now + 1.0)
    assert (book.reference, book.standing(0)) == (111, Standing.CURRENT)
    say(book, [114, 109, 109], now + 1.0)
    assert (book.reference, book.standing(0)) == (111, Standing.IMPLAUSIBLE)


def test_nobody_is_refused_for_not_having_been_asked() -> None:
    """A route that nobody uses is polled rarely, each endpoint at another instant."""
    book = book_of("abc")
    for second in range(600):
        if second % 5 == 0:
            position = second // 5 % 3
            book.asked(position, float(second))
            book.report(position, HeadReport(1000 + second // 2), second + 0.2)
        book.expire(second + 0.3)
        assert set(standings(book, 3)) <= {"current", "unknown"}


def test_one_that_was_asked_and_does_not_answer_is_judged_by_the_newest_block_after_a_second() -> None:
    book = book_of("abc")
    say(book, [100, 100, 100], 0.0)
    book.asked(2, 1.9)
    say(book, [103, 103, None], 2.0)
    assert not book.expire(2.8)
    assert book.standing(2) is Standing.CURRENT
    assert book.expire(3.0)
    assert book.standing(2) is Standing.LAGGING
    say(book, [None, None, 103], 3.1)
    assert book.standing(2) is Standing.CURRENT


def test_a_word_that_repeats_an_old_one_shows_that_it_lags() -> None:
    book = book_of("abc")
    say(book, [100, 100, 100], 0.0)
    say(book, [103, 103, None], 2.0)
    assert book.standing(2) is Standing.CURRENT
    assert book.report(2, HeadReport(100), 2.1)
    assert book.standing(2) is Standing.LAGGING


def test_words_do_not_last() -> None:
    book = book_of("ab")
    say(book, [100, 100], 0.0)
    say(book, [101, None], 50.0)
    assert not book.expire(59.0)
    assert book.expire(61.0)
    assert standings(book, 2) == ["current", "unknown"]
    assert book.reference == 101


# --- liars ------------------------------------------------------------------------------------------


@given(st.integers(3, 6), st.integers(1000, 10**12), st.integers(0, 50), st.booleans())
@examples(max_examples=60)
def test_a_liar_that_jumps_far_moves_nothing(count: int, jump: int, speed: int, crawling: bool) -> None:
    """Whether it stays there, follows the chain, or runs away from it."""
    book = book_of([f"v{i}" for i in range(count)])
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * count)

    def numbers(block: int) -> list[int]:
        return [110 + block] * (count - 1) + [110 + jump + (block * speed if crawling else 0)]

    for block in range(30):
        say(book, numbers(block), now + 2.0 * block)
        assert book.reference == 110 + block
        assert book.standing(count - 1) is Standing.IMPLAUSIBLE
        assert all(book.standing(honest) is Standing.CURRENT for honest in range(count - 1))
        assert not book.covers(count - 1, 110 + jump)


def test_with_two_voters_a_far_jump_moves_nothing_either() -> None:
    book = book_of("ab")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 2)
    steadily(book, now, 30, lambda block: [110 + block, 1_000_000 + block])
    assert book.reference == 139
    assert standings(book, 2) == ["current", "implausible"]


@given(st.integers(2, 6), st.integers(1, 40), st.integers(1, 5), st.integers(0, 10**6))
@examples(max_examples=60)
def test_a_liar_that_creeps_ahead_moves_the_reference_by_the_tolerance_at_most(
    honest: int, ahead: int, step: int, seed: int
) -> None:
    """With three voters or more.  It raises its lie by `step` per word and speaks more often than others."""
    chance = random.Random(seed)
    book = book_of([f"v{i}" for i in range(honest + 1)])
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * (honest + 1))
    lie = 0
    for block in range(60):
        top = 110 + block
        for _ in range(chance.randint(1, 5)):
            lie = min(lie + step, ahead)
            now += 0.4
            book.report(honest, HeadReport(top - 1 + lie), now)
            assert book.reference <= top + book.tolerance
        for position in range(honest):
            book.report(position, HeadReport(top), now)
        assert all(book.standing(position) is Standing.CURRENT for position in range(honest))
        now = 20.0 + 2.0 * (block + 1)


@pytest.mark.parametrize("words", [1, 3, 10])
def test_with_two_voters_a_creeping_liar_gains_little_more_however_fast_it_speaks(words: int) -> None:
    """Nobody can tell which of two is right, but the gap stays what could have come between two words."""
    book = book_of("ab")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 2)
    lie = 110
    for block in range(100):
        for word in range(words):
            instant = now + 2.0 * word / words
            while book.plausible(lie + 1, instant):  # the most that is believed
                lie += 1
            book.report(1, HeadReport(lie), instant)
        book.report(0, HeadReport(110 + block), now)
        assert book.reference <= 110 + block + book.tolerance + 3
        now += 2.0


def test_two_endpoints_of_one_provider_do_not_outvote_a_leader_at_a_plausible_pace() -> None:
    for voters, expected in (("abb", 112), ("abc", 109)):
        book = book_of(voters)
        now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
        say(book, [112, 109, 109], now)
        assert book.reference == expected


def test_a_block_from_the_future_is_not_believed_from_one_voter() -> None:
    for age, expected in ((-62.0, 110), (-59.0, 113)):
        book = book_of("ab")
        now = steadily(book, 0.0, 11, lambda block: [100 + block] * 2)
        say(book, [None, 113], now, [0.0, age])
        assert book.reference == expected
    book = book_of("ab")
    now = steadily(book, 0.0, 11, lambda block: [100 + block] * 2)
    say(book, [113, 113], now, [-1000.0, -1000.0])  # our own clock may be the wrong one
    assert book.reference == 113


def test_a_second_voice_makes_the_implausible_true() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
    say(book, [110, 110, 9000], now)
    assert book.standing(2) is Standing.IMPLAUSIBLE
    say(book, [110, 9001, 9000], now + 1)
    assert book.reference == 9001
    assert standings(book, 3) == ["far_behind", "current", "current"]


@pytest.mark.parametrize("step", [2, 100, 10**6])
def test_a_claim_that_moves_faster_than_blocks_come_is_not_believed_though_nothing_else_moves(step: int) -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
    for half in range(200):
        say(book, [109, 109, 10**5 + step * half], now + half / 2)
        assert book.reference == 109


def test_two_endpoints_of_one_provider_are_one_voice() -> None:
    book = book_of(["honest", "other", "liar", "liar"])
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 4)
    steadily(book, now, 20, lambda block: [110 + block, 110 + block, 9000 + block, 9000 + block])
    assert book.reference == 129
    assert standings(book, 4) == ["current", "current", "implausible", "implausible"]


def test_the_only_voice_is_believed_whatever_it_says() -> None:
    """A development chain mines a thousand blocks at once."""
    book = book_of(["me", "me"])
    say(book, [100, 100], 0.0)
    say(book, [1_000_100, 100], 1.0)
    assert book.reference == 1_000_100
    now = steadily(book, 2.0, 10, lambda block: [1_000_100 + block, None])
    say(book, [None, 2_000_000], now)
    assert book.reference == 2_000_000


def test_the_only_one_left_of_several_is_believed_once_it_has_kept_its_pace_for_a_while() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
    book.lost(0, now)
    book.lost(1, now)
    references = []
    for block in range(6):
        book.report(2, HeadReport(50_000 + block), now + 2.0 * block)
        references.append(book.reference)
    assert references == [109, 109, 109, 50_003, 50_004, 50_005]
    assert book.block_time > 1.9, "fifty thousand blocks in six seconds teach nothing"


# --- the one that works among those that are stuck --------------------------------------------------


@pytest.mark.parametrize("stuck", [1, 2, 4])
def test_one_that_moves_among_stuck_ones_is_the_reference_and_they_lag(stuck: int) -> None:
    """2020-11-11: one client's nodes stood still at their provider, and others went on."""
    book = book_of([f"v{i}" for i in range(stuck + 1)])
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * (stuck + 1))
    left_at = None
    for block in range(40):
        say(book, [110 + block] + [110] * stuck, now + 2.0 * block)
        if left_at is None and book.standing(1) is Standing.LAGGING:
            left_at = block
    assert left_at == 3, "they are left after as many blocks as the tolerance, and one"
    assert book.reference == 149
    assert standings(book, stuck + 1) == ["current"] + ["far_behind"] * stuck


def test_stuck_ones_that_recover_are_current_at_once() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
    now = steadily(book, now, 400, lambda block: [110 + block, 110, 110])
    say(book, [510, 510, 110], now)
    assert standings(book, 3) == ["current", "current", "far_behind"]


def test_one_that_comes_back_while_all_others_are_stuck_is_believed_at_once_if_it_can_be() -> None:
    for number, expected in ((130, 130), (1130, 110)):
        book = book_of("abc")
        now = steadily(book, 0.0, 11, lambda block: [100 + block] * 3)
        book.lost(2, now)
        now = steadily(book, now, 20, lambda _: [110, 110])
        book.report(2, HeadReport(number), now)
        assert book.reference == expected


def test_of_two_the_one_that_catches_up_from_far_below_does_not_pull_the_other_down() -> None:
    for before in (None, 5000):
        book = book_of("ab")
        now = steadily(book, 0.0, 10, lambda block, before=before: [5000 + block, before])  # type: ignore[misc]
        book.lost(1, now)
        steadily(book, now, 60, lambda block: [5010 + block, 20 * block])
        assert book.reference == 5069
        assert standings(book, 2) == ["current", "far_behind"]


def test_nodes_that_say_themselves_that_they_are_catching_up_do_not_outvote_the_one_that_is_done() -> None:
    book = book_of("abc")
    for second in range(60):
        say(book, [None, 1000 + 40 * second, 1001 + 40 * second], float(second), [0, 1e6 - second, 1e6 - second])
    assert book.reference == 3361
    for second in range(60, 80):
        numbers = [900_000 + second // 2, 1000 + 40 * second, 1001 + 40 * second]
        say(book, numbers, float(second), [1.0, 1e6, 1e6])
    assert book.reference == 900_039
    assert standings(book, 3) == ["current", "far_behind", "far_behind"]


# --- the first words --------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_first_words_may_come_in_any_order(order: Sequence[int]) -> None:
    book = book_of("abc")
    for position in order:
        book.report(position, HeadReport([100, 101, 5_000_000][position]), 0.0)
    assert book.reference == 101
    assert standings(book, 3) == ["current", "current", "implausible"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ((5.0, 1e6), 1_000_100),  # the higher block is new, the lower one old
        ((1e6, 5.0), 100),
        ((5.0, 5.0), 100),
        ((-1e6, 5.0), 100),
        ((-1e6, 1e6), 100),
        ((1e6, 1e6), 100),
        (None, 100),
    ],
)
def test_of_two_first_words_far_apart_the_one_with_a_new_block_holds_else_the_lower(
    order: Sequence[int], ages: tuple[float, float] | None, expected: int
) -> None:
    book = book_of("ab")
    for position in order:
        stamp = None if ages is None else int(WALL - ages[position])
        book.report(position, HeadReport((1_000_100, 100)[position], timestamp=stamp), 0.0, WALL)
    assert book.reference == expected


def test_one_that_spoke_alone_for_a_while_is_held_to_a_plausible_pace_too() -> None:
    book = book_of("ab")
    for second in range(30):
        book.report(0, HeadReport(100), float(second))
    book.report(0, HeadReport(5000), 30.0)
    assert (book.reference, book.standing(0)) == (100, Standing.IMPLAUSIBLE)


def test_at_the_start_too_the_one_that_moves_wins_over_the_one_that_is_stuck() -> None:
    book = book_of("ab")
    steadily(book, 0.0, 10, lambda block: [1_000_000 + block, 100])
    assert book.reference == 1_000_009
    assert standings(book, 2) == ["current", "far_behind"]


def test_on_an_unknown_chain_a_fast_one_is_believed_against_one_that_is_stuck() -> None:
    """Four blocks a second, where one in two seconds is the guess."""
    book = book_of("ab", None)
    for second in range(20):
        say(book, [5000 + 4 * second, 100], float(second))
    assert book.reference == 5076
    assert book.block_time < 0.5


@given(st.data())
@examples(max_examples=150)
def test_words_of_one_instant_may_come_in_any_order(data: st.DataObject) -> None:
    """Four voters, three of them near each other; the fourth is far off, and never there."""
    far_off = st.one_of(st.integers(0, 900), st.integers(2000, 10**6))
    first = data.draw(st.lists(st.integers(1000, 1002), min_size=3, max_size=3))
    first.append(data.draw(far_off))
    moves = data.draw(st.lists(st.integers(0, 2), min_size=3, max_size=3))
    second = [number + move for number, move in zip(first, moves, strict=False)]
    second.append(data.draw(far_off))
    outcomes = set()
    for order in (range(4), data.draw(st.permutations(range(4)))):
        book = book_of("abcd")
        for numbers, now in ((first, 0.0), (second, 2.0)):
            for position in order:
                book.report(position, HeadReport(numbers[position]), now)
        outcomes.add((book.reference, *standings(book, 4)))
    assert len(outcomes) == 1


# --- back -------------------------------------------------------------------------------------------


def test_a_chain_that_was_reset_is_followed_after_ten_seconds() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 100, lambda block: [100 + block] * 3)
    instants = []
    for half in range(40):
        say(book, [half // 4] * 3, now + half / 2)
        instants.append(book.reference)
    assert instants[:20] == [199] * 20
    assert instants[-1] == 9
    assert standings(book, 3) == ["current"] * 3
    assert book.covers(0, 9)
    assert not book.covers(0, 10)


@pytest.mark.parametrize("rise", [0, 1])
def test_going_back_for_a_moment_now_and_then_is_not_followed(rise: int) -> None:
    book = book_of("a")
    now = steadily(book, 0.0, 10, lambda block: [100 + block])
    top = 109
    for second in range(60):
        top += rise * (second % 9 == 8)
        say(book, [top if second % 9 == 8 else 50], now + second)
        assert book.reference == top


def test_after_a_reset_everything_is_judged_anew() -> None:
    """Progress, branches, finality and what an endpoint has are those of the new chain."""
    book = book_of("abcd")
    on_branches(book, range(100, 200), "xxxx")
    book.report(3, HeadReport(10**6), 199.0)
    for position in range(3):
        book.finalized(position, 150, "x150", 199.0)
    assert book.reference_final == 150
    on_branches(book, range(20), "vvvw", 200.0)
    assert (book.reference, book.reference_final) == (19, -1)
    assert standings(book, 4) == ["current", "current", "current", "forked"]
    assert book.halted_since(239.0) is None
    for position in range(3):
        assert book.covers(position, 19)
        assert not book.covers(position, 20)


def test_after_a_reset_progress_is_counted_from_the_new_chain() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [1000 + block] * 3)
    now = steadily(book, now, 20, lambda block: [block, block, 0])
    now = steadily(book, now, 10, lambda block: [19, 19, 1 + block])
    assert book.halted_since(now) is None, "one of them still catches up"


def test_what_a_silent_or_lying_endpoint_said_before_a_reset_is_worth_nothing() -> None:
    book = book_of("abcd")
    now = steadily(book, 0.0, 10, lambda block: [1000 + block] * 4)
    now = steadily(book, now, 40, lambda block: [1010 + block, 1010 + block, 10**6, None])
    assert book.standing(3) is Standing.UNKNOWN
    assert book.covers(3, 1009)
    steadily(book, now, 20, lambda block: [block, block, 10**6, None])
    assert book.reference == 19
    assert not book.covers(2, 5)
    assert not book.covers(3, 5)


def test_a_chain_that_was_reset_and_stands_still_is_followed_too() -> None:
    book = book_of("a")
    now = steadily(book, 0.0, 10, lambda block: [100 + block])
    for second in range(20):
        book.report(0, HeadReport(0), now + second)
    assert book.reference == 0


def test_a_reset_is_followed_without_a_further_word() -> None:
    book = book_of("a")
    now = steadily(book, 0.0, 10, lambda block: [100 + block])
    book.report(0, HeadReport(0), now)
    followed = [book.expire(now + second) for second in range(12)]
    assert followed == [False] * 11 + [True]
    assert book.reference == 0


def test_a_word_that_has_expired_holds_nothing_up() -> None:
    book = book_of("ab")
    say(book, [102, 100], 0.0)
    for second in range(1, 80):
        say(book, [None, 100], float(second))
        book.expire(float(second))
        assert book.reference == (102 if second <= 71 else 100)


def test_a_single_endpoint_whose_chain_was_reset_is_followed_too() -> None:
    book = book_of("a")
    now = steadily(book, 0.0, 10, lambda block: [100 + block])
    steadily(book, now, 10, lambda block: [block])
    assert (book.reference, book.standing(0)) == (9, Standing.CURRENT)


def test_one_endpoint_that_goes_back_takes_nobody_with_it() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
    steadily(book, now, 30, lambda block: [110 + block, 110 + block, block])
    assert standings(book, 3) == ["current", "current", "far_behind"]


def test_a_short_reorganisation_moves_the_reference_not_at_all() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
    say(book, [108, 108, 108], now)
    assert book.reference == 109
    steadily(book, now + 2.0, 3, lambda block: [109 + block] * 3)
    assert book.reference == 111


# --- what an endpoint surely has --------------------------------------------------------------------


def test_an_endpoint_has_what_it_said_and_no_more() -> None:
    book = book_of("ab")
    say(book, [100, 101], 0.0)
    assert [book.covers(0, number) for number in (0, 100, 101)] == [True, True, False]


@given(st.integers(1, 5), st.lists(st.booleans(), min_size=10, max_size=80), st.sampled_from([0.25, 1.0, 2.0, 12.0]))
@examples(max_examples=100)
def test_a_balanced_provider_is_judged_by_the_slower_of_its_machines(
    behind: int, fast: list[bool], block_time: float
) -> None:
    """Once both have answered, no block is promised that the slower machine has not."""
    book = book_of("ab", block_time)
    both: set[bool] = set()
    since_slow = 0
    for poll, is_fast in enumerate(fast):
        now = poll * max(1.0, block_time)
        top = 1000 + floor(now / block_time + 1e-9)
        book.report(1, HeadReport(top), now)
        book.report(0, HeadReport(top if is_fast else top - behind), now)
        if both == {True, False} and since_slow < 3 and not is_fast:
            assert not book.covers(0, top - behind + 1)
        both.add(is_fast)
        since_slow = 0 if not is_fast else since_slow + 1


@pytest.mark.parametrize("second", range(25))
def test_a_single_word_of_the_slower_machine_is_remembered_for_ten_seconds_whenever_it_comes(second: int) -> None:
    book = book_of("ab")
    for now in range(60):
        say(book, [99 if now == second else 100, 100], float(now))
        if second <= now <= second + 10 and second > 0:
            assert not book.covers(0, 100)
        if now > second + 10:
            assert book.covers(0, 100)


def test_a_step_back_is_remembered_for_ten_seconds_and_then_forgiven() -> None:
    book = book_of("ab")
    say(book, [100, 100], 0.0)
    say(book, [99, 100], 1.0)
    say(book, [100, 100], 2.0)
    assert (book.head(0), book.covers(0, 100), book.covers(0, 99)) == (100, False, True)
    for second in range(3, 40):
        say(book, [100, 100], float(second))
    assert book.covers(0, 100)


# --- the chain stands still -------------------------------------------------------------------------


def test_a_halt_is_seen_after_three_block_times_and_is_over_at_the_first_block() -> None:
    """2023-09-05 and 2026-06-25: no block for minutes to hours, at all providers."""
    book = book_of("abc")
    now = steadily(book, 0.0, 20, lambda block: [100 + block] * 3)
    last = now - 2.0
    for second in range(60):
        now = last + second
        for position in range(3):
            book.report(position, HeadReport(119), now)
        assert book.halted_since(now) == (last if second >= 6 else None)
        assert standings(book, 3) == ["current"] * 3
    book.report(1, HeadReport(120), now)
    assert book.halted_since(now) is None


def test_a_fast_chain_has_not_halted_before_three_seconds() -> None:
    book = book_of("ab", 0.25)
    for block in range(40):
        say(book, [100 + block] * 2, block * 0.25)
    last = 39 * 0.25
    for tenth in range(1, 50):
        say(book, [139, 139], last + tenth / 10)
        assert book.halted_since(last + tenth / 10) == (last if tenth >= 30 else None)


def test_a_route_that_is_polled_rarely_is_not_called_halted_between_two_polls() -> None:
    """Nobody calls, so each endpoint is asked every 15 s only, one a little after the other."""
    book = book_of("abc")
    for poll in range(20):
        for tenth in range(150):
            now = 15.0 * poll + tenth / 10
            if tenth in (0, 2, 6):
                book.report((0, 2, 6).index(tenth), HeadReport(100 + int(now / 2.0)), now)
            book.expire(now)
            assert book.halted_since(now) is None
    for tenth in (0, 2, 6):
        book.report(0, HeadReport(book.reference), 300.0 + tenth / 10)
    assert book.halted_since(301.0) is not None, "asked again, and still the same"


def test_blocks_that_come_by_chance_may_be_late_and_a_dead_chain_is_named_all_the_same() -> None:
    """Bitcoin: the gaps are exponential, so one in twenty is longer than three block times."""
    chance, seed, blocks = random.Random(20_261_128), 20_261_128, 20_000
    calls: dict[Rhythm, int] = {}
    for rhythm in (Rhythm.SLOTS, Rhythm.CHANCE):
        book = HeadBook(HeadSettings(), ["a", "b", "c"], 600.0, 0.0, rhythm)
        now, called = 0.0, 0
        for block in range(blocks):
            for position in range(3):
                book.report(position, HeadReport(100 + block), now)
            gap = chance.expovariate(1 / 600.0)
            for position in range(3):
                book.report(position, HeadReport(100 + block), now + gap - 1.0 if gap > 1.0 else now)
            called += book.halted_since(now + gap) is not None
            now += gap
        calls[rhythm] = called
        for minute in range(220):
            for position in range(3):
                book.report(position, HeadReport(99 + blocks), now + 60.0 * minute)
        assert book.halted_since(now + 60.0 * 219) is not None
    print(
        f"chain_halted, wrongly, in {blocks} blocks: {calls[Rhythm.CHANCE]} as chance, {calls[Rhythm.SLOTS]} by the "
        f"clock, seed {seed}"
    )
    assert calls[Rhythm.CHANCE] == 0
    assert calls[Rhythm.SLOTS] > 0.03 * blocks, "what the rhythm is for"


def test_a_chain_whose_blocks_come_on_demand_halts_only_once_it_has_shown_a_pace() -> None:
    book = HeadBook(HeadSettings(), ["a", "b"], None, 0.0, Rhythm.DEMAND)
    for second in range(60):
        say(book, [5, 5], float(second))
        assert book.halted_since(float(second)) is None, "nobody sent anything"
    for number, second in ((6, 70), (7, 300), (8, 310), (9, 900)):
        say(book, [number, number], float(second))
    say(book, [9, 9], 960.0)
    assert book.halted_since(960.0) is None
    now = steadily(book, 1000.0, 20, lambda block: [10 + block] * 2)
    for second in range(40):
        say(book, [29, 29], now + second)
    assert book.halted_since(now + 39.0) == now - 2.0


def test_silence_is_no_halt() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 20, lambda block: [100 + block] * 3)
    assert book.halted_since(now + 100.0) is None
    say(book, [119, 119, 119], now + 100.0)
    assert book.halted_since(now + 101.0) is not None
    assert book.halted_since(now + 200.0) is None


def test_one_that_catches_up_shows_that_nothing_is_known_of_a_halt_even_after_it_once_lied() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 10, lambda block: [100 + block] * 3)
    book.report(2, HeadReport(10**9), now)
    now = steadily(book, now, 20, lambda block: [109, 109, 60 + block])
    assert book.halted_since(now) is None


def test_a_balancers_to_and_fro_is_no_new_block_and_a_liars_run_is_none() -> None:
    book = book_of("abc")
    now = steadily(book, 0.0, 20, lambda block: [100 + block] * 3)
    now = steadily(book, now, 20, lambda block: [119, 118 + block % 2, 119])
    assert book.halted_since(now) == 38.0
    for position, number in enumerate((119, 119, 10**6)):
        book.report(position, HeadReport(number), now)
    assert book.halted_since(now) == 38.0


def test_a_halt_teaches_no_slow_chain() -> None:
    book = book_of("ab")
    now = steadily(book, 0.0, 100, lambda block: [100 + block] * 2)
    say(book, [200, 200], now + 3600.0)
    assert book.block_time < 2.2


# --- the block time, the finalized block ------------------------------------------------------------


@pytest.mark.parametrize("real", [0.25, 1.0, 2.0, 12.0, 60.0])
@pytest.mark.parametrize("told", [None, 2.0])
def test_the_block_time_is_learned_whatever_was_believed(real: float, told: float | None) -> None:
    book = book_of("abc", told)
    for block in range(150):
        say(book, [1000 + block] * 3, block * real)
    assert real * 0.9 <= book.block_time <= real * 1.1


def test_the_finalized_block_is_one_that_two_voters_have_reached() -> None:
    book = book_of("abc")
    say(book, [1000] * 3, 0.0)
    book.finalized(0, 990, "", 0.0)
    assert book.reference_final == -1
    assert book.finalized(1, 936, "", 0.0)
    assert book.reference_final == 936
    assert book.finalized(2, 968, "", 0.0)
    assert book.reference_final == 968
    assert not book.finalized(2, 900, "", 0.0)
    assert book.reference_final == 968, "it never goes back"


def test_the_forked_and_the_lost_have_no_say_in_what_is_final() -> None:
    for lost in (False, True):
        book = book_of("abc")
        on_branches(book, range(1000, 1010), "xxx" if lost else "xxy")
        book.finalized(2, 960, "", 20.0)
        if lost:
            book.lost(2, 20.0)
        book.finalized(0, 950, "", 20.0)
        assert book.reference_final == -1
        book.finalized(1, 940, "", 20.0)
        assert book.reference_final == 940


def test_a_finalized_block_beyond_the_newest_is_no_word() -> None:
    book = book_of("a")
    say(book, [1000], 0.0)
    assert not book.finalized(0, 5000, "", 0.0)
    assert not book.safe(0, 5000, "", 0.0)
    assert (book.reference_final, book.reference_safe) == (-1, -1)
    assert book.finalized(0, 940, "", 0.0)
    assert book.safe(0, 970, "", 0.0)
    assert (book.reference_final, book.reference_safe) == (940, 970)


def test_two_hashes_for_one_finalized_block_are_a_split_at_once() -> None:
    book = book_of("abc")
    say(book, [1000] * 3, 0.0)
    for position, block_hash in enumerate(("aa", "bb", "aa")):
        book.finalized(position, 936, block_hash, 0.0)
    split = book.split
    assert split is not None
    assert (split.height, split.branches) == (936, {"aa": (0, 2), "bb": (1,)})
    assert standings(book, 3) == ["current", "forked", "current"]


# --- branches ---------------------------------------------------------------------------------------


def on_branches(book: HeadBook, blocks: range, branches: Sequence[str], begin: float = 0.0) -> None:
    """Each endpoint says each block with its branch's hashes (a letter and the number)."""
    for step, number in enumerate(blocks):
        for position, branch in enumerate(branches):
            word = HeadReport(number, f"{branch}{number}", f"{branch}{number - 1}")
            book.report(position, word, begin + 2.0 * step)


def test_the_minority_branch_is_refused_and_named() -> None:
    book = book_of("abc")
    on_branches(book, range(100, 110), "xxx")
    on_branches(book, range(110, 113), "xxy", 20.0)
    assert standings(book, 3) == ["current", "current", "forked"]
    split = book.split
    assert split is not None
    assert split.minority == {2}
    assert sorted(split.branches.values()) == [(0, 1), (2,)]


def test_a_forked_endpoint_has_no_say_in_where_the_chain_is() -> None:
    book = book_of("abc")
    on_branches(book, range(100, 110), "xxy")
    book.report(2, HeadReport(111, "y111", "y110"), 19.0)
    assert (book.reference, book.standing(2)) == (109, Standing.FORKED)


def test_one_that_was_lost_starts_with_a_clean_name() -> None:
    book = book_of("abc")
    on_branches(book, range(100, 110), "xxy")
    book.lost(2, 20.0)
    assert book.split is None
    book.report(2, HeadReport(109), 20.0)
    assert book.standing(2) is Standing.CURRENT


def test_a_tie_refuses_nobody_and_is_told() -> None:
    book = book_of("abcd")
    on_branches(book, range(100, 110), "xxyy")
    assert standings(book, 4) == ["current"] * 4
    split = book.split
    assert split is not None
    assert (split.minority, len(split.branches)) == (frozenset(), 2)


def test_one_that_comes_back_to_the_majority_is_forgiven_with_its_first_block() -> None:
    book = book_of("abc")
    on_branches(book, range(100, 110), "xxy")
    assert book.standing(2) is Standing.FORKED
    on_branches(book, range(110, 111), "xxx", 20.0)
    assert book.standing(2) is Standing.CURRENT
    assert book.split is None


def test_a_block_replaced_by_another_of_the_same_height_is_taken_note_of() -> None:
    book = book_of("abc")
    on_branches(book, range(100, 110), "xxy")
    assert book.report(2, HeadReport(109, "x109"), 19.0)
    assert book.standing(2) is Standing.CURRENT


def test_a_race_at_the_tip_accuses_nobody() -> None:
    book = book_of("abc")
    on_branches(book, range(100, 110), "xxx")
    for step, number in enumerate(range(110, 170)):
        book.report(0, HeadReport(number, f"x{number}", f"x{number - 1}"), 20.0 + 2.0 * step)
        book.report(1, HeadReport(number, f"x{number}", f"x{number - 1}"), 20.0 + 2.0 * step)
        book.report(2, HeadReport(number, f"y{number}", f"x{number - 1}"), 20.0 + 2.0 * step)
        assert book.standing(2) is Standing.CURRENT


# --- polls ------------------------------------------------------------------------------------------


def test_a_poll_without_an_answer_is_not_repeated_at_once() -> None:
    book = book_of("ab")
    assert book.next_poll_after(0, 0.0) == 0.0
    book.asked(0, 0.0)
    assert book.next_poll_after(0, 0.0) >= DEFAULTS.poll_every_at_least


@given(st.floats(0.05, 600), st.integers(0, 40), st.floats(0, 5000))
@examples(max_examples=80)
def test_polls_keep_their_bounds(block_time: float, position: int, now: float) -> None:
    book = book_of([f"v{i}" for i in range(41)], block_time)
    book.report(position, HeadReport(10), now)
    assert 0.999 * DEFAULTS.poll_every_at_least <= book.next_poll_after(position, now) <= DEFAULTS.poll_every_at_most
    book.lost(position, now)
    assert book.next_poll_after(position, now) == pytest.approx(DEFAULTS.poll_every_at_least), "where is it now?"


def test_a_passing_answer_saves_a_poll() -> None:
    book = book_of("ab", 12.0)
    book.asked(0, 0.0)
    book.report(0, HeadReport(10), 0.1)
    before = book.next_poll_after(0, 5.0)
    book.report(0, HeadReport(10), 5.0)
    assert book.next_poll_after(0, 5.0) > before


def test_illegal_settings_cannot_be_built() -> None:
    for wrong in ({"lag_blocks": -1}, {"far_behind": 0.5}, {"branch_depth": 0}, {"poll_every_at_most": 0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            HeadSettings(**wrong)  # type: ignore[arg-type]


# --- long runs --------------------------------------------------------------------------------------


def test_over_a_hundred_thousand_blocks_nobody_honest_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Three endpoints, each polled once a block at its own phase; a block reaches each within a block time."""
    blocks, seed, phases = 100_000, 20, (0.0, 0.35, 0.7)
    chance = random.Random(seed)
    book = book_of("abc")
    refused = judged = 0
    for block in range(blocks):
        for position, phase in enumerate(phases):
            arrived = chance.random() * 0.999 <= phase + chance.uniform(-0.001, 0.001)
            book.report(position, HeadReport(1000 + block - (not arrived)), 2.0 * (block + phase))
            judged += 3
            refused += sum(book._standings[other] not in HONEST for other in range(3))
    with capsys.disabled():
        print(f"\n  {refused} refusals in {judged} judgements, {blocks} blocks (seed {seed})", file=sys.stderr)
    assert refused == 0
    assert 1.9 < book.block_time < 2.1


HONEST = (Standing.CURRENT, Standing.UNKNOWN)


def test_memory_is_bounded_however_long_the_chain_and_whatever_is_said() -> None:
    chance = random.Random(3)
    book = book_of("abcd")
    for block in range(25_000):
        for position in range(4):
            number = block + chance.choice((0, 0, 0, -1, -50, 10**9))
            book.report(position, HeadReport(number, f"{chance.getrandbits(256):x}" * 9, "p" * 999), 2.0 * block)
    assert book._branches.size <= 4 * 64
    assert len(book._rises) <= 64


class AnyOrder(RuleBasedStateMachine):
    """Two honest endpoints and one that says anything, in any order, with any silence and any loss."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.book = book_of("abc")
        self.both_speak()

    @property
    def top(self) -> int:
        return 1000 + int(self.now / 2.0)

    def both_speak(self) -> None:
        for position in range(2):
            self.book.report(position, HeadReport(self.top, f"x{self.top}"), self.now)

    @rule(seconds=st.floats(0, 30))
    def time_passes_and_the_honest_keep_speaking(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.both_speak()
            self.now = min(until, self.now + 1.0)
        self.both_speak()

    @rule(number=st.one_of(st.integers(0, 10**12), st.integers(990, 1200)), late=st.floats(-500, 500))
    def the_liar_speaks(self, number: int, late: float) -> None:
        self.book.report(2, HeadReport(number, f"y{number}", timestamp=int(WALL + late)), self.now, WALL + self.now)

    @rule(number=st.integers(0, 10**6))
    def the_liar_finalizes(self, number: int) -> None:
        self.book.finalized(2, number, "y", self.now)

    @rule(position=st.integers(0, 2))
    def one_is_lost(self, position: int) -> None:
        self.book.lost(position, self.now)
        assert self.book.standing(position) is Standing.UNKNOWN
        self.both_speak()

    @rule()
    def words_expire(self) -> None:
        self.book.expire(self.now)

    @invariant()
    def the_reference_is_near_the_chain(self) -> None:
        assert self.top <= self.book.reference <= self.top + self.book.tolerance
        assert self.book.reference_final <= self.book.reference

    @invariant()
    def the_honest_are_current(self) -> None:
        for position in range(2):
            assert self.book.standing(position) is Standing.CURRENT
            assert self.book.covers(position, self.top)
            assert not self.book.covers(position, self.top + 1)

    @invariant()
    def a_poll_is_always_due_some_time(self) -> None:
        assert all(0.0 <= self.book.next_poll_after(position, self.now) <= 30.1 for position in range(3))


AnyOrder.TestCase.settings = examples(max_examples=200, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase

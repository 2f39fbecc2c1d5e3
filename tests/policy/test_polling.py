"""The laws of polling: about one poll per endpoint and block, spread, and a new block is soon known."""

from __future__ import annotations

import heapq
import random
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.model import HeadReport
from gateway.policy.heads import HeadBook, HeadSettings, Standing
from gateway.policy.polling import DUE, FIRST_WITHIN, RETRY, first_wait, share, wait_between


@dataclass
class Run:
    """What happened while `blocks` came: polls per endpoint and block, and block times until one was known."""

    polls: list[float]
    known_after: list[float]
    refused: int = 0
    instants: list[float] = field(default_factory=list)


def run(endpoints: int, block_time: float, blocks: int, seed: int, told: bool, spread: float = 0.1) -> Run:
    """Honest endpoints polled as the book asks; each has a block up to `spread` block times after it came."""
    chance = random.Random(seed)
    book = HeadBook(HeadSettings(), [f"v{i}" for i in range(endpoints)], block_time if told else None, 0.0)
    has = [[block_time * (k + 1 + spread * chance.random()) for k in range(blocks)] for _ in range(endpoints)]
    newest = [-1] * endpoints
    outcome = Run([0.0] * endpoints, [])
    queue = [(book.next_poll_after(position, 0.0), position) for position in range(endpoints)]
    heapq.heapify(queue)
    while True:
        now, position = heapq.heappop(queue)
        if now > block_time * blocks:
            outcome.polls = [polls / blocks for polls in outcome.polls]
            return outcome
        wait = book.next_poll_after(position, now)
        if wait > 1e-6:
            heapq.heappush(queue, (now + wait, position))  # things changed since: not yet
            continue
        book.asked(position, now)
        outcome.polls[position] += 1
        outcome.instants.append(now)
        while newest[position] + 1 < blocks and has[position][newest[position] + 1] <= now:
            newest[position] += 1
        before = book.reference
        book.report(position, HeadReport(1000 + newest[position]), now)
        if book.reference > before >= 1000:
            outcome.known_after.append(now / block_time - (newest[position] + 1))
        outcome.refused += sum(book.standing(p) not in (Standing.CURRENT, Standing.UNKNOWN) for p in range(endpoints))
        heapq.heappush(queue, (now + max(1e-6, book.next_poll_after(position, now)), position))


@pytest.mark.parametrize(("block_time", "told"), [(12.0, True), (12.0, False), (2.0, True), (2.0, False)])
@pytest.mark.parametrize("endpoints", [2, 3, 5])
def test_a_block_is_soon_known_for_about_one_poll_per_endpoint(endpoints: int, block_time: float, told: bool) -> None:
    blocks, seed = 2000, 7
    outcome = run(endpoints, block_time, blocks, seed, told)
    print(
        f"{endpoints} endpoints, {block_time:g} s: {mean(outcome.polls):.2f} polls per block and endpoint, "
        f"known after {mean(outcome.known_after):.2f} block times ({blocks} blocks, seed {seed})",
        file=sys.stderr,
    )
    assert max(outcome.polls) <= 1.2
    assert mean(outcome.known_after) <= 0.25
    assert outcome.refused == 0


@pytest.mark.parametrize(("block_time", "told"), [(0.25, True), (0.25, False), (0.05, True)])
def test_a_chain_faster_than_the_shortest_pace_is_polled_at_that_pace_by_turns(block_time: float, told: bool) -> None:
    outcome = run(4, block_time, 4000, 7, told)
    assert max(outcome.polls) <= block_time * 1.01
    assert outcome.refused == 0
    gaps = [later - earlier for earlier, later in pairwise(outcome.instants)]
    assert min(gaps[8:]) > 0.1, "they are asked by turns, not all in one instant"


def test_a_single_endpoint_is_polled_a_quarter_more_often_than_blocks_come_at_most() -> None:
    outcome = run(1, 12.0, 2000, 7, True)
    assert outcome.polls[0] <= 1.25
    assert mean(outcome.known_after) <= 0.25


def test_a_chain_that_stands_still_is_not_polled_more_often_for_it() -> None:
    book = HeadBook(HeadSettings(), "ab", 12.0, 0.0)
    now, polls = 0.0, 0
    while now < 3600.0:
        book.report(0, HeadReport(100), now)
        polls += 1
        now += max(0.01, book.next_poll_after(0, now))
    assert polls <= 1.05 * 3600.0 / (12.0 * 0.95) + 4


@given(st.integers(2, 50))
@examples(max_examples=49)
def test_shares_lie_apart_however_many_there_are(count: int) -> None:
    places = sorted(share(position) for position in range(count))
    gaps = [later - earlier for earlier, later in pairwise(places)]
    assert all(0.0 <= place < 1.0 for place in places)
    assert min(gaps) >= 0.38 / count
    assert max(gaps) <= 2.7 / count


@given(st.integers(0, 100), st.floats(0.05, 600), st.floats(-3, 10), st.booleans())
@examples(max_examples=100)
def test_nobody_is_asked_sooner_than_a_quarter_and_later_than_one_pace(
    position: int, pace: float, since: float, confirmed: bool
) -> None:
    wait = wait_between(position, pace, since * pace, confirmed)
    assert RETRY * pace <= wait <= pace
    if not confirmed or since < DUE - 1e-9:
        assert wait > 0.7 * pace


def test_those_who_have_not_confirmed_a_block_follow_one_after_the_other() -> None:
    waits = {round(wait_between(position, 12.0, -7.0, False), 3) for position in range(5)}
    assert len(waits) >= 3


@given(st.integers(0, 100), st.floats(0.05, 600))
@examples(max_examples=50)
def test_the_first_polls_come_within_a_second(position: int, at_least: float) -> None:
    assert 0.0 <= first_wait(position, at_least) <= FIRST_WITHIN

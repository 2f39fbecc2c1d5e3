"""Shared answers on virtual time: one request for many, each caller's own deadline, and bounds that hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.upstream.venues.shelf import LARGEST, MOST_BYTES, Shelf
from tests.virtual import here, run


def fetching(answer: str, takes: float, asked: list[str]) -> Callable[[], Awaitable[str]]:
    async def fetch() -> str:
        asked.append(answer)
        await asyncio.sleep(takes)
        return answer

    return fetch


def good(answer: str) -> int | None:
    return None if answer.startswith("failed") else len(answer)


def test_a_failure_of_who_asked_first_is_not_told_to_those_who_joined() -> None:
    async def story() -> None:
        shelf, asked = Shelf(here().time), list[str]()
        later = here().time() + 60
        gets = [
            shelf.get("k", 1.0, later, fetching("failed" if n == 0 else "good", 0.1, asked), good) for n in range(50)
        ]
        answers = await asyncio.gather(*gets)
        assert answers == [("failed", "miss"), ("good", "miss")] + [("good", "joined")] * 48
        assert asked == ["failed", "good"]

    run(story())


def test_who_joins_waits_no_longer_than_its_own_deadline_and_harms_nobody() -> None:
    async def story() -> None:
        shelf, asked = Shelf(here().time), list[str]()
        now = here().time()
        first = asyncio.ensure_future(shelf.get("k", 1.0, now + 60, fetching("good", 10, asked), good))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await shelf.get("k", 1.0, now + 2, fetching("good", 10, asked), good)
        assert here().time() == pytest.approx(now + 2)
        assert await first == ("good", "miss")
        assert asked == ["good"]

    run(story())


def test_who_asked_first_and_left_leaves_the_turn_to_the_next() -> None:
    async def story() -> None:
        shelf, asked = Shelf(here().time), list[str]()
        later = here().time() + 60
        first = asyncio.ensure_future(shelf.get("k", 1.0, later, fetching("left", 10, asked), good))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(shelf.get("k", 1.0, later, fetching("good", 1, asked), good))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == ("good", "miss")
        await asyncio.gather(first, return_exceptions=True)

    run(story())


def test_an_answer_is_as_old_as_the_question_for_it() -> None:
    async def story() -> None:
        shelf, asked = Shelf(here().time), list[str]()
        await shelf.get("k", 1.0, here().time() + 60, fetching("good", 0.75, asked), good)
        await asyncio.sleep(0.125)
        assert shelf.fresh("k") == "good"
        await asyncio.sleep(0.25)
        assert shelf.fresh("k") is None

    run(story())


def test_no_more_is_kept_than_is_allowed() -> None:
    async def story() -> None:
        shelf, asked = Shelf(here().time), list[str]()
        later = here().time() + 60
        for n in range(20):
            await shelf.get(n, 60.0, later, fetching("x", 0.0, asked), lambda _: MOST_BYTES // 8)
            assert shelf.size <= MOST_BYTES
        assert 5 <= len(shelf) <= 8
        assert shelf.fresh(19) == "x"
        await shelf.get("large", 60.0, later, fetching("x", 0.0, asked), lambda _: LARGEST + 1)
        assert shelf.fresh("large") is None

    run(story())

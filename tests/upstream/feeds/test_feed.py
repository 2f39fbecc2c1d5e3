"""Telling many: every listener is told every event since it joined, once and in order, without a stall."""

from __future__ import annotations

import asyncio

from gateway.events import FeedKind, Subscription
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.feeds.feed import SLICE, Event, Feed, Missed, Over
from tests.upstream.feeds.stage import Ear
from tests.virtual import here, run

HEADS = Subscription(FeedKind.HEADS, b"heads", "eth_subscribe", b'["newHeads"]', "eth_unsubscribe", "eth_subscription")


def feed() -> Feed:
    return Feed(HEADS, b'"0x1"', RouteStats(), here().time)


def events(count: int) -> list[Event]:
    return [Event("eth_subscription", b"%d" % n) for n in range(count)]


def test_a_thousand_listeners_are_told_everything_in_order_and_those_who_come_later_the_rest() -> None:
    async def story() -> None:
        stream, told = feed(), events(20)
        early = [Ear() for _ in range(4 * SLICE)]
        for ear in early:
            stream.join(ear)
        late = Ear()
        for number, event in enumerate(told):
            if number == 12:
                stream.join(late)
            stream.tell(event)
        stream.tell(Missed("gap", 1, 2))
        await asyncio.sleep(1)
        assert all(ear.heard[:-1] == told for ear in early)
        assert late.heard[:-1] == told[12:]
        assert all(isinstance(ear.heard[-1], Missed) for ear in (*early, late))
        assert stream.stats.events == 20
        assert stream.stats.subscriptions == 4 * SLICE + 1

    run(story())


def test_others_have_their_turn_while_many_are_told() -> None:
    async def story() -> None:
        stream = feed()
        for _ in range(20 * SLICE):
            stream.join(Ear())
        turns = 0

        async def somebody_else() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.ensure_future(somebody_else())
        last = Ear()
        stream.join(last)
        stream.tell(events(1)[0])
        while not last.heard:
            await asyncio.sleep(0)
        other.cancel()
        assert turns >= 19

    run(story())


def test_who_leaves_while_others_are_told_is_told_no_more() -> None:
    async def story() -> None:
        stream = feed()
        ears = [Ear() for _ in range(3 * SLICE)]
        for ear in ears:
            stream.join(ear)
        stream.tell(events(1)[0])
        stream.leave(ears[-1])
        await asyncio.sleep(1)
        assert not ears[-1].heard
        assert all(ear.heard for ear in ears[:-1])
        assert stream.stats.subscriptions == 3 * SLICE - 1

    run(story())


def test_the_last_word_comes_after_the_events_however_many_listen() -> None:
    async def story() -> None:
        for count in (1, 3 * SLICE):
            stream = feed()
            ears = [Ear() for _ in range(count)]
            for ear in ears:
                stream.join(ear)
            event = events(1)[0]
            stream.tell(event)
            stream.tell(Over())
            await asyncio.sleep(1)
            assert all(ear.heard == [event, "over"] for ear in ears)
            assert not stream.needed
            assert stream.stats.subscriptions == 0

    run(story())


def test_closing_a_feed_is_told_to_everybody() -> None:
    async def story() -> None:
        stream = feed()
        ears = [Ear() for _ in range(3)]
        for ear in ears:
            stream.join(ear)
        stream.close()
        assert [ear.heard for ear in ears] == [["closed"]] * 3

    run(story())

"""Shared subscriptions on virtual time: whatever happens to lines, no listener keeps a wrong book."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque

import pytest

from gateway.upstream.venues.topics import LINGERS
from tests.upstream.venues.stage import ANNOUNCEMENTS, BOOKS, TRADES, UNNUMBERED, Bot, Ear, StreamVenue, Wire
from tests.virtual import here, run

HOUR = 3600.0
SEED = 17


def seldom(venue: StreamVenue, times_an_hour: float, passed: float) -> bool:
    return venue.chance.random() < times_an_hour * passed / HOUR


class Day:
    """A day of a stream, with all that can happen to it."""

    def __init__(self, kind: str) -> None:
        self.venue = StreamVenue(kind, SEED)
        self.happened: Counter[str] = Counter()
        self.bots = [Bot(self.venue)]
        self.most_wires = 0

    async def pass_by(self, hours: float) -> None:
        venue, chance = self.venue, self.venue.chance
        venue.refuses_connects = 0.2
        ends_at = here().time() + hours * HOUR
        while here().time() < ends_at:
            passed = chance.choice((0.01, 0.1, 4.0, 12.0))
            await asyncio.sleep(passed)
            self.misfortunes(passed)
            self.tell(venue.market.move())
            self.happened["events"] += 1
            self.most_wires = max(self.most_wires, len(venue.wires))
            if seldom(venue, 0.5, passed) and len(self.bots) < 6:
                self.bots.append(Bot(venue))

    def misfortunes(self, passed: float) -> None:
        venue = self.venue
        for wire in tuple(venue.wires):
            if seldom(venue, 3, passed):
                self.happened["cut"] += 1
                wire.cut()
            elif seldom(venue, 1, passed) and not wire.deaf:
                self.happened["fell silent"] += 1
                wire.deaf = True
            elif seldom(venue, 2, passed) and venue.kind in ANNOUNCEMENTS:
                self.happened["announced"] += 1
                wire.bring(ANNOUNCEMENTS[venue.kind])
                here().call_later(30, wire.cut)
            elif here().time() - wire.opened_at > venue.facts.life:
                self.happened["too old"] += 1
                wire.cut()

    def tell(self, message: bytes) -> None:
        """To every connection, but for one that loses it, has it twice, or has it in the wrong order."""
        venue = self.venue
        unlucky = venue.chance.choice(["", "lost", "doubled", "reordered"]) if venue.chance.random() < 0.005 else ""
        if not unlucky or venue.kind in UNNUMBERED:
            venue.send(message)
            return
        self.happened[unlucky] += 1
        wires = [wire for wire in venue.wires if BOOKS[venue.kind] in wire.topics]
        victim = venue.chance.choice(wires) if wires else None
        following = venue.market.move() if unlucky == "reordered" else None
        for wire in wires:
            if wire is not victim or unlucky == "doubled":
                wire.bring(message)
            if following is not None:
                wire.bring(following)
            if wire is victim and unlucky != "lost":
                wire.bring(message)


def paces_kept(venue: StreamVenue, wires: list[Wire]) -> bool:
    """No connection was asked more often than the exchange allows, in any window."""
    rate = venue.facts.requests
    if rate is None:
        return True
    for wire in wires:
        recent: deque[float] = deque()
        for at, _ in wire.came:
            recent.append(at)
            while recent[0] <= at - rate.window:
                recent.popleft()
            if len(recent) > rate.amount:
                return False
    return True


@pytest.mark.parametrize("kind", BOOKS)
def test_books_are_right_after_every_event_of_a_day_whatever_happens_to_lines(kind: str) -> None:
    async def story() -> None:
        day = Day(kind)
        venue = day.venue
        venue.shared.start(0.5)
        await day.pass_by(24)
        venue.refuses_connects = 0.0
        for wire in tuple(venue.wires):
            wire.deaf = False
        for _ in range(1000):  # a quiet end, in which all find together
            await asyncio.sleep(0.1)
            venue.send(venue.market.move())
        await asyncio.sleep(1.0)
        bots, shared = day.bots, venue.shared
        print(
            f"{kind}: 24 simulated hours, {dict(day.happened)}; {len(venue.all_wires)} connections, {len(bots)} bots, "
            f"{sum(bot.told_count for bot in bots)} messages, {sum(bot.fresh_starts for bot in bots)} fresh starts, "
            f"{shared.handovers} handovers; seed {SEED}"
        )
        assert [bot.wrong for bot in bots if bot.wrong] == []
        assert all(bot.number == venue.market.number for bot in bots)  # nobody was left behind
        assert len(bots) == 6
        for what in ("cut", "fell silent", *(() if kind in UNNUMBERED else ("lost", "doubled", "reordered"))):
            assert day.happened[what] > 10, what
        assert day.most_wires <= 4
        assert paces_kept(venue, venue.all_wires)
        await shared.close()

    run(story(), at_most=2 * 24 * HOUR)


@pytest.mark.parametrize("kind", BOOKS)
def test_a_line_is_replaced_before_the_exchange_ends_it_and_nobody_notices(kind: str) -> None:
    """But for books without numbers: there each new line begins with a snapshot, which everybody is told."""

    async def story() -> None:
        day = Day(kind)
        venue, bot = day.venue, day.bots[0]
        venue.shared.start(10.0)
        for _ in range(int(50 * HOUR / 10)):
            await asyncio.sleep(10)
            for wire in tuple(venue.wires):
                if here().time() - wire.opened_at > venue.facts.life:
                    day.happened["too old"] += 1
                    wire.cut()
            venue.send(venue.market.move())
        await asyncio.sleep(1)
        fresh_starts = 2 if kind in UNNUMBERED else 0
        assert (bot.wrong, bot.fresh_starts, bot.number) == ([], fresh_starts, venue.market.number)
        assert day.happened["too old"] == 0
        assert len(venue.all_wires) == 3  # a second after 22.8 hours, a third after as many more
        await venue.shared.close()

    run(story(), at_most=60 * HOUR)


@pytest.mark.parametrize("kind", ANNOUNCEMENTS)
def test_an_announced_end_costs_nobody_a_message_even_if_the_first_new_connections_fail(kind: str) -> None:
    async def story() -> None:
        venue = StreamVenue(kind, SEED + 1)
        bot = Bot(venue)
        venue.shared.start()
        for n in range(2000):
            await asyncio.sleep(0.05)
            venue.send(venue.market.move())
            if n % 400 == 100:
                venue.refuses_connects = 1.0
                (old,) = venue.wires
                old.bring(ANNOUNCEMENTS[kind])
            if n % 400 == 200:
                venue.refuses_connects = 0.0
            if n % 400 == 300:
                old.cut()
        await asyncio.sleep(1)
        assert (bot.wrong, bot.fresh_starts, bot.number) == ([], 0, venue.market.number)
        assert venue.shared.handovers == 5
        await venue.shared.close()

    run(story())


def test_who_comes_too_late_for_a_book_without_numbers_is_not_taken_and_costs_the_others_nothing() -> None:
    async def story() -> None:
        venue = StreamVenue("coinbase_exchange", SEED + 2)
        bots = [Bot(venue)]
        venue.shared.start()
        for n in range(2500):
            await asyncio.sleep(0.05)
            venue.send(venue.market.move())
            if n == 1000:
                assert venue.shared.takes(bots[0].key)
                bots.append(Bot(venue))
        assert not venue.shared.takes(bots[0].key)
        next(iter(venue.wires)).cut()
        await asyncio.sleep(3)
        assert venue.shared.takes(bots[0].key)  # the next line has begun with a snapshot
        assert [(bot.wrong, bot.number, bot.fresh_starts) for bot in bots] == [([], venue.market.number, 1)] * 2
        await venue.shared.close()

    run(story())


@pytest.mark.parametrize("kind", ["okx", "bybit", "coinbase_exchange"])
def test_a_subscription_that_ends_and_begins_again_leaves_all_on_their_line(kind: str) -> None:
    async def story() -> None:
        venue = StreamVenue(kind, SEED)
        key = QUOTES[kind].replace("BTC", "ETH")
        bot, quote = Bot(venue), Ear(venue, key)
        venue.shared.start()
        await asyncio.sleep(2)
        for n in range(900):
            await asyncio.sleep(0.2)
            venue.send(venue.market.move())
            if n in (0, 450):
                venue.shared.leave(key, quote)
            if n in (300, 650):
                assert venue.shared.join(key, quote)
        await asyncio.sleep(1)
        assert (bot.wrong, bot.fresh_starts, bot.number) == ([], 0, venue.market.number)
        assert (len(venue.all_wires), venue.shared.handovers) == (1, 0)
        await venue.shared.close()

    run(story())


def test_two_lines_of_a_book_without_numbers_are_never_taken_for_one() -> None:
    """The old line lags behind the new one: what follows on the new line's snapshot does not follow on the old line."""

    async def story() -> None:
        venue = StreamVenue("coinbase_exchange", SEED + 6)
        bot = Bot(venue)
        venue.shared.start()
        await asyncio.sleep(1)
        (old,) = venue.wires
        for n in range(100):
            await asyncio.sleep(0.05)
            message = venue.market.move()
            for wire in venue.wires:
                if bot.key in wire.topics:
                    wire.bring(message, 0.5 if wire is old else 0.0)
            if n == 20:
                (line,) = venue.shared.lines
                venue.shared.leaving(line, "old")
        await asyncio.sleep(1)
        assert (bot.wrong, bot.number, bot.fresh_starts) == ([], venue.market.number, 1)
        await venue.shared.close()

    run(story())


@pytest.mark.parametrize("kind", ["okx", "bybit", "kucoin", "gate"])
def test_who_joins_late_gets_a_whole_book_however_long_the_stream_has_run(kind: str) -> None:
    async def story() -> None:
        venue = StreamVenue(kind, SEED + 2)
        bots = [Bot(venue)]
        venue.shared.start()
        for n in range(9000):
            await asyncio.sleep(0.05)
            venue.send(venue.market.move())
            if n in (3000, 6000, 8990):  # two of them later than what is kept reaches back
                bots.append(Bot(venue))
        await asyncio.sleep(1)
        assert [bot.wrong for bot in bots] == [[]] * 4
        assert {bot.number for bot in bots} == {venue.market.number}
        assert [bot.fresh_starts for bot in bots] == [0] * 4
        await venue.shared.close()

    run(story())


def test_fresh_snapshots_of_many_topics_take_one_line_more_and_not_one_each() -> None:
    async def story() -> None:
        venue = StreamVenue("bybit", SEED)
        keys = [f"orderbook.50.C{n}USDT" for n in range(40)]
        first = Ear(venue, *keys)
        venue.shared.start()
        await asyncio.sleep(5)
        for key in keys:
            beginning = {"topic": key, "type": "snapshot", "data": {"u": 1, "b": []}}
            venue.send(json.dumps(beginning).encode())
            venue.send(json.dumps({**beginning, "type": "delta", "data": {"u": 9, "b": []}}).encode())  # a gap in each
        await asyncio.sleep(5)
        assert len(venue.all_wires) == 2
        assert sum(len(wire.topics) for wire in venue.wires) == 40
        assert first.lost_topics == []
        await venue.shared.close()

    run(story())


@pytest.mark.parametrize("kind", ["binance", "okx", "bybit", "coinbase_exchange"])
def test_a_quiet_market_costs_no_connections(kind: str) -> None:
    async def story() -> None:
        venue = StreamVenue(kind, SEED)
        Ear(venue, TRADES[kind])
        venue.shared.start(2.0)
        await asyncio.sleep(HOUR)
        assert len(venue.all_wires) == 1
        await venue.shared.close()

    run(story(), at_most=2 * HOUR)


def test_a_line_that_answers_and_brings_no_data_any_more_is_replaced() -> None:
    async def story() -> None:
        venue = StreamVenue("binance", SEED)
        bot = Bot(venue)
        venue.shared.start()
        for _ in range(1000):
            await asyncio.sleep(0.2)
            venue.send(venue.market.move())
        (wire,) = venue.wires
        wire.topics.clear()  # it goes on answering
        for _ in range(1000):
            await asyncio.sleep(0.2)
            venue.send(venue.market.move())
        await asyncio.sleep(1)
        assert len(venue.all_wires) == 2
        assert (bot.wrong, bot.number) == ([], venue.market.number)
        await venue.shared.close()

    run(story())


def test_hundreds_of_topics_are_back_within_seconds_after_an_outage() -> None:
    async def story() -> None:
        venue = StreamVenue("bybit", SEED)
        keys = [f"tickers.C{n}USDT" for n in range(300)]
        Ear(venue, *keys)
        venue.shared.start()
        await asyncio.sleep(30)
        assert len(set().union(*(wire.topics for wire in venue.wires))) == 300
        assert len(venue.wires) == 3  # a hundred on each
        venue.refuses_connects = 1.0
        for wire in tuple(venue.wires):
            wire.cut()
        await asyncio.sleep(60)
        assert not venue.wires
        venue.refuses_connects = 0.0
        await asyncio.sleep(10)
        assert len(set().union(*(wire.topics for wire in venue.wires))) == 300
        await venue.shared.close()

    run(story())


@pytest.mark.parametrize("kind", ["okx", "bybit", "coinbase_exchange", "gate"])
def test_a_topic_that_the_exchange_refuses_concerns_only_who_asked_for_it(kind: str) -> None:
    async def story() -> None:
        venue = StreamVenue(kind, SEED)
        bad = BOOKS[kind].replace("BTC", "NOSUCH")
        venue.unknown.add(bad)
        venue.shared.start()
        good, bystander, mistaken = Bot(venue), Ear(venue, TRADES[kind]), Ear(venue, bad)
        await asyncio.sleep(2)
        for _ in range(20):
            await asyncio.sleep(0.1)
            venue.send(venue.market.move())
            venue.send(venue.market.trade())
        await asyncio.sleep(1)
        assert (good.wrong, good.number) == ([], venue.market.number)
        assert (len(bystander.heard), bystander.refusals) == (20, [])
        assert [topic for topic, _ in mistaken.refusals] == [bad]
        assert b"NOSUCH" in mistaken.refusals[0][1]
        assert bad not in venue.shared.topics
        await venue.shared.close()

    run(story())


def test_a_refusal_that_names_its_topic_leaves_the_others_on_their_line() -> None:
    async def story() -> None:
        venue = StreamVenue("bitget", SEED)
        good, bad = (f'{{"channel":"ticker","instId":"{name}","instType":"SPOT"}}' for name in ("BTCUSDT", "NOSUCH"))
        venue.unknown.add(bad)
        venue.shared.start()
        bystander, mistaken = Ear(venue, good), Ear(venue, bad)
        for _ in range(60):
            await asyncio.sleep(1)
            venue.send(json.dumps({"action": "snapshot", "arg": json.loads(good), "data": [{}]}).encode())
        await asyncio.sleep(1)
        assert (len(bystander.heard), bystander.refusals, bystander.lost_topics) == (60, [], [])
        assert [topic for topic, _ in mistaken.refusals] == [bad]
        assert (len(venue.all_wires), list(venue.shared.topics)) == (1, [good])
        await venue.shared.close()

    run(story())


def test_an_exchange_that_numbers_no_requests_is_left_when_it_answers_none() -> None:
    async def story() -> None:
        venue = StreamVenue("bitget", SEED)
        key = '{"channel":"ticker","instId":"BTCUSDT","instType":"SPOT"}'
        ear = Ear(venue, key)
        venue.answers = False
        venue.shared.start()
        await asyncio.sleep(5)
        venue.answers = True
        await asyncio.sleep(20)
        venue.send(json.dumps({"action": "snapshot", "arg": json.loads(key), "data": [{}]}).encode())
        await asyncio.sleep(1)
        assert (len(ear.heard), len(venue.all_wires), len(venue.wires)) == (1, 2, 1)
        await venue.shared.close()

    run(story())


def test_requests_hold_no_more_topics_than_the_exchange_takes() -> None:
    async def story() -> None:
        venue = StreamVenue("bybit", SEED)
        Ear(venue, *(f"tickers.C{n}USDT" for n in range(95)))
        venue.shared.start()
        await asyncio.sleep(5)
        (wire,) = venue.wires
        requests = [said["args"] for _, said in wire.came if isinstance(said, dict) and said["op"] == "subscribe"]
        assert [len(args) for args in requests] == [10] * 9 + [5]
        await venue.shared.close()

    run(story())


def test_an_exchange_that_answers_no_request_is_left_for_another_connection() -> None:
    async def story() -> None:
        venue = StreamVenue("binance", SEED)
        bot = Bot(venue)
        venue.answers = False
        venue.shared.start()
        await asyncio.sleep(5)
        venue.answers = True
        await asyncio.sleep(20)
        venue.send(venue.market.move())
        await asyncio.sleep(1)
        assert (bot.wrong, bot.number) == ([], venue.market.number)
        assert len(venue.wires) == 1
        await venue.shared.close()

    run(story())


def numbers_of(ear: Ear) -> list[int]:
    return [int(row["data"]["t"] if ear.venue.kind == "binance" else row["data"][0]["tradeId"]) for row in ear.heard]


@pytest.mark.parametrize("kind", ["binance", "okx"])
def test_trades_are_neither_lost_nor_told_twice_when_a_line_is_replaced_as_planned(kind: str) -> None:
    async def story() -> None:
        venue = StreamVenue(kind, SEED + 4)
        ear = Ear(venue, TRADES[kind])
        venue.shared.start()
        await asyncio.sleep(1)
        for n in range(1000):
            await asyncio.sleep(venue.chance.choice((0.001, 0.01, 0.2)))
            venue.send(venue.market.trade())
            if n % 100 == 50:
                next(iter(venue.wires)).bring(ANNOUNCEMENTS[kind])
        await asyncio.sleep(1)
        assert numbers_of(ear) == list(range(1, 1001))
        assert ear.lost_topics == []
        assert venue.shared.handovers == 10
        await venue.shared.close()

    run(story())


QUOTES = {
    "binance": "btcusdt@bookTicker",
    "okx": BOOKS["okx"],
    "bybit": "tickers.BTCUSDT",
    "gate": '{"channel":"spot.tickers","payload":["BTC_USDT"]}',
    "coinbase_exchange": '{"channels":["ticker"],"product_ids":["BTC-USD"]}',
}


@pytest.mark.parametrize("kind", TRADES)
def test_who_listens_to_trades_is_told_to_begin_anew_when_some_may_be_missing(kind: str) -> None:
    async def story() -> None:
        venue = StreamVenue(kind, SEED)
        ear = Ear(venue, TRADES[kind])
        quote = Ear(venue, QUOTES[kind])
        venue.shared.start()
        await asyncio.sleep(1)
        venue.send(venue.market.trade())
        await asyncio.sleep(1)
        next(iter(venue.wires)).cut()
        await asyncio.sleep(1)
        assert ear.lost_topics == [TRADES[kind]]
        assert quote.lost_topics == []  # its next message says all there is
        await venue.shared.close()

    run(story())


def test_who_joins_late_hears_the_present_state_where_a_subscription_begins_with_it() -> None:
    async def story() -> None:
        venue = StreamVenue("okx", SEED)
        key = '{"channel":"funding-rate","instId":"BTC-USDT"}'
        Ear(venue, key)
        venue.shared.start()
        await asyncio.sleep(1)
        for rate in ("1", "2"):
            venue.send(json.dumps({"arg": json.loads(key), "data": [{"fundingRate": rate}]}).encode())
        await asyncio.sleep(1)
        assert [row["data"][0]["fundingRate"] for row in Ear(venue, key).heard] == ["2"]
        await venue.shared.close()

    run(story())


def test_numbers_that_begin_anew_with_the_service_are_followed() -> None:
    async def story() -> None:
        venue = StreamVenue("bybit", SEED)
        bots = [Bot(venue), Bot(venue)]
        venue.shared.start()
        await asyncio.sleep(1)
        for n in range(100):
            if n == 50:
                venue.market.number, venue.market.books = 0, {0: dict(venue.market.book)}
                venue.market.move()
                for wire in tuple(venue.wires):
                    wire.bring(venue.market.snapshot() or b"")
            venue.send(venue.market.move())
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        assert [(bot.wrong, bot.number) for bot in bots] == [([], venue.market.number)] * 2
        await venue.shared.close()

    run(story())


def test_any_number_of_listeners_costs_one_subscription_and_none_is_left_without_them() -> None:
    async def story() -> None:
        venue = StreamVenue("binance", SEED + 3)
        bots = [Bot(venue) for _ in range(300)]
        venue.shared.start()
        for _ in range(20):
            await asyncio.sleep(0.1)
            venue.send(venue.market.move())
        await asyncio.sleep(1)
        assert len(venue.all_wires) == 1
        assert [said["params"] for _, said in venue.all_wires[0].came if isinstance(said, dict)] == [[bots[0].key]]
        for bot in bots[1:]:
            venue.shared.leave(bot.key, bot)
        seen = [bot.told_count for bot in bots]
        venue.send(venue.market.move())
        await asyncio.sleep(1)
        assert [bot.told_count - before for bot, before in zip(bots, seen, strict=True)] == [1] + [0] * 299
        venue.shared.leave(bots[0].key, bots[0])
        await asyncio.sleep(LINGERS + 2)
        assert (venue.shared.topics, venue.wires) == ({}, {})
        await venue.shared.close()

    run(story())


def test_listeners_are_told_when_it_all_ends() -> None:
    async def story() -> None:
        venue = StreamVenue("binance", SEED)
        ear = Ear(venue, "btcusdt@bookTicker", "btcusdt@depth")
        venue.shared.start()
        await asyncio.sleep(1)
        await venue.shared.close()
        assert ear.lost_topics == ["btcusdt@bookTicker", "btcusdt@depth"]

    run(story())


def test_what_the_file_does_not_describe_is_not_shared() -> None:
    async def story() -> None:
        venue = StreamVenue("binance", SEED)
        assert not venue.shared.join("btcusdt@somethingNew", Ear(venue))
        assert venue.shared.topics == {}

    run(story())

"""Shared subscriptions on virtual time: whatever happens to lines, no listener keeps a wrong book."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.dialect.venue import Streams, venue_named
from gateway.dialect.venue_messages import Messages
from gateway.upstream.venue_topics import Message, SharedStreams

DAY = 86_400.0
SEED = 17
KEYS = {
    "binance": "btcusdt@depth",
    "okx": '{"channel":"books","instId":"BTC-USDT"}',
    "bybit": "orderbook.50.BTCUSDT",
}


class Exchange:
    """A book of which every change has a number; and its messages in the shape of a venue."""

    def __init__(self, kind: str, chance: random.Random) -> None:
        self.kind = kind
        self.chance = chance
        self.number = 1000
        self.book = dict.fromkeys(range(50), 1.0)
        self.books = {self.number: dict(self.book)}

    def move(self) -> bytes:
        """A few changes, and the message that tells of them."""
        first = self.number + 1
        steps = 1 if self.kind == "bybit" else self.chance.randint(1, 4)
        changes = {}
        for _ in range(steps):
            price = self.chance.randrange(50)
            self.book[price] = changes[price] = round(self.chance.random(), 3)
        self.number += steps
        self.books[self.number] = dict(self.book)
        self.books.pop(self.number - 4000, None)
        return self._update(first, changes)

    def _update(self, first: int, changes: dict[int, float]) -> bytes:
        rows = list(changes.items())
        if self.kind == "binance":
            data: Any = {"stream": KEYS["binance"], "data": {"U": first, "u": self.number, "b": rows}}
        elif self.kind == "okx":
            row = {"prevSeqId": first - 1, "seqId": self.number, "bids": rows}
            data = {"arg": json.loads(KEYS["okx"]), "action": "update", "data": [row]}
        else:
            data = {"topic": KEYS["bybit"], "type": "delta", "data": {"u": self.number, "b": rows}}
        return json.dumps(data).encode()

    def snapshot(self) -> bytes | None:
        """What a new subscription begins with."""
        rows = list(self.book.items())
        if self.kind == "binance":
            return None
        if self.kind == "okx":
            row = {"prevSeqId": -1, "seqId": self.number, "bids": rows}
            return json.dumps({"arg": json.loads(KEYS["okx"]), "action": "snapshot", "data": [row]}).encode()
        return json.dumps({"topic": KEYS["bybit"], "type": "snapshot", "data": {"u": self.number, "b": rows}}).encode()


@dataclass(eq=False)
class FakeLine:
    """A line whose messages travel for a while, and which may die, fall behind or lose one."""

    owner: SharedStreams
    world: World
    topics: set[str] = field(default_factory=set)
    host: Any = None
    open: bool = False
    leaving: bool = False
    closed: bool = False
    on_way: list[tuple[float, bytes]] = field(default_factory=list)
    opens_at: float = 0.0

    def start(self, apart: Any) -> None:
        self.opens_at = self.world.now + self.world.chance.uniform(0.02, 0.4)
        self.host = object()
        self.world.lines.append(self)

    def ask(self, topic: str, on: bool) -> None:
        if on:
            self.topics.add(topic)
            self.world.subscribed(self)
        else:
            self.topics.discard(topic)

    def close(self) -> None:
        self.closed, self.open = True, False

    def look(self, now: float) -> None:
        """Time does nothing to it by itself."""


class World:
    """An exchange, its lines, a gateway's shared streams and listeners, moved by hand."""

    def __init__(self, kind: str, seed: int) -> None:
        self.now = 0.0
        self.chance = random.Random(seed)
        self.exchange = Exchange(kind, self.chance)
        self.lines: list[FakeLine] = []
        venue = venue_named(kind)
        assert venue is not None
        assert venue.streams is not None
        assert venue.streams.sharing is not None
        facts: Streams = venue.streams
        self.key = KEYS[kind]
        self.shared = SharedStreams(
            None,  # type: ignore[arg-type]
            facts,
            Messages(venue.streams.sharing),
            lambda: self.now,
            lambda owner: FakeLine(owner, self),  # type: ignore[arg-type, return-value]
        )
        self.shared._task = object()  # type: ignore[assignment]  # time is moved by hand
        self._pending: list[FakeLine] = []

    def subscribed(self, line: FakeLine) -> None:
        self._pending.append(line)

    def send(self, message: bytes) -> None:
        for line in self.lines:
            if line.open and not line.closed and self.key in line.topics and line not in self._pending:
                line.on_way.append((self.now + self.chance.uniform(0.0, 0.05), message))

    def step(self, seconds: float) -> None:
        """Let time pass: lines open, subscriptions take effect, messages arrive in their order."""
        self.now += seconds
        for line in list(self.lines):
            if line.closed:
                self.lines.remove(line)
            elif not line.open and self.now >= line.opens_at:
                line.open = True
        for line in list(self._pending):
            if line.open or line.closed:
                self._pending.remove(line)
                first = self.exchange.snapshot()
                if first is not None and self.key in line.topics:
                    line.on_way.append((self.now, first))
        for line in list(self.lines):
            while line.on_way and line.on_way[0][0] <= self.now and not line.closed:
                self.shared.message(line, line.on_way.pop(0)[1])  # type: ignore[arg-type]
        self.shared.look(self.now)

    def kill(self, line: FakeLine) -> None:
        line.closed, line.open = True, False
        self.lines.remove(line)
        self.shared.ended(line, "connection_lost")  # type: ignore[arg-type]


class Bot:
    """A caller that keeps a book as the venue's documentation says."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.book: dict[int, float] = {}
        self.number: int | None = None
        self.told_count = 0
        self.resyncs = 0
        self.wrong: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.number = None
        self.world.shared.join(self.world.key, self)

    def take_snapshot(self) -> None:
        """The venue's own way where streams bring none: ask for the book."""
        self.book, self.number = dict(self.world.exchange.book), self.world.exchange.number

    def told(self, message: Message) -> None:
        self.told_count += 1
        data = json.loads(message.data)
        kind = self.world.exchange.kind
        row = data["data"][0] if kind == "okx" else data["data"]
        last = row["u"] if kind != "okx" else row["seqId"]
        if data.get("action", data.get("type")) == "snapshot":
            self.resyncs += self.number is not None
            self.book = {int(price): amount for price, amount in row["b" if kind == "bybit" else "bids"]}
            self.number = last
        else:
            if kind == "binance" and self.number is None:
                self.take_snapshot()
            assert self.number is not None, "an update before any snapshot"
            if last <= self.number:
                return
            for price, amount in row["bids" if kind == "okx" else "b"]:
                self.book[int(price)] = amount
            self.number = last
        if self.book != self.world.exchange.books[self.number]:
            self.wrong.append(f"at {self.number}")

    def lost(self, topic: str) -> None:
        self.resyncs += 1
        self.world.shared.leave(topic, self)
        self.begin()


@pytest.mark.parametrize("kind", KEYS)
def test_books_are_right_after_every_event_of_a_day_whatever_happens_to_lines(kind: str) -> None:
    world = World(kind, SEED)
    bots = [Bot(world)]
    chance = world.chance
    events = deaths = skipped = planned = 0
    while world.now < DAY:
        world.step(chance.expovariate(1.0))
        if chance.random() < 0.001 and world.lines:
            world.kill(chance.choice(world.lines))
            deaths += 1
        if chance.random() < 0.001:
            for line in [line for line in world.lines if line.open and not line.leaving]:
                line.leaving = True
                world.shared.leaving(line, "old")  # type: ignore[arg-type]
                planned += 1
        if chance.random() < 0.0005 and len(bots) < 6:
            bots.append(Bot(world))
        message = world.exchange.move()
        events += 1
        if chance.random() < 0.0003:
            skipped += 1  # one line loses it
            losing = [line for line in world.lines if line.open][:1]
            for line in world.lines:
                if line not in losing and line.open and world.key in line.topics:
                    line.on_way.append((world.now, message))
        else:
            world.send(message)
        for _ in range(3):
            world.step(0.06)
    for _ in range(100):  # a quiet end
        world.send(world.exchange.move())
        world.step(0.1)
    world.step(1.0)
    resyncs = sum(bot.resyncs for bot in bots)
    print(
        f"{kind}: {events} events in 24 simulated hours, {deaths} lines died, {planned} replaced as planned, {skipped} "
        f"messages lost; {len(bots)} bots, {sum(b.told_count for b in bots)} messages told, {resyncs} fresh starts, "
        f"{world.shared.handovers} handovers; seed {SEED}"
    )
    assert [bot.wrong for bot in bots if bot.wrong] == []
    assert deaths > 30
    assert planned > 30
    assert skipped > 5
    assert all(bot.number == world.exchange.number for bot in bots)  # nobody was left behind
    assert len(world.lines) <= 3


@pytest.mark.parametrize("kind", KEYS)
def test_a_line_that_is_replaced_as_planned_costs_nobody_a_message(kind: str) -> None:
    world = World(kind, SEED + 1)
    bot = Bot(world)
    for n in range(2000):
        world.step(0.05)
        world.send(world.exchange.move())
        if n % 200 == 100:
            for line in [line for line in world.lines if line.open and not line.leaving]:
                line.leaving = True
                world.shared.leaving(line, "announced")  # type: ignore[arg-type]
    for _ in range(20):
        world.step(0.1)
    assert bot.wrong == []
    assert bot.resyncs == 0
    assert bot.number == world.exchange.number
    assert world.shared.handovers >= 9


@pytest.mark.parametrize("kind", ["okx", "bybit"])
def test_who_joins_late_gets_a_whole_book_however_long_the_stream_has_run(kind: str) -> None:
    world = World(kind, SEED + 2)
    first = Bot(world)
    for _ in range(5000):  # more than are kept for late joiners
        world.step(0.05)
        world.send(world.exchange.move())
    late = Bot(world)
    for _ in range(60):
        world.step(0.05)
        world.send(world.exchange.move())
    for _ in range(20):
        world.step(0.1)
    assert late.wrong == first.wrong == []
    assert late.number == first.number == world.exchange.number
    assert first.resyncs == 0


def test_any_number_of_listeners_costs_one_subscription() -> None:
    world = World("binance", SEED + 3)
    bots = [Bot(world) for _ in range(300)]
    for _ in range(20):
        world.step(0.1)
        world.send(world.exchange.move())
    assert len(world.lines) == 1
    assert len(world.shared.topics) == 1
    for bot in bots:
        world.shared.leave(world.key, bot)
    for _ in range(400):
        world.step(0.1)
    assert world.shared.topics == {}
    assert [line for line in world.lines if line.open] == []

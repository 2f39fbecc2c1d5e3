"""An exchange's streams on virtual time: books whose every change has a number, and connections that fail as told.

The gateway's own lines run on it; only what lies beyond a connection is pretended.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import deque
from typing import Any

from websockets.exceptions import ConnectionClosedError

from gateway.dialect.venue import venue_named
from gateway.dialect.venue_facts import Streams
from gateway.dialect.venue_messages import Messages, Wanted
from gateway.upstream.venues.line import Line
from gateway.upstream.venues.streams import NoStream
from gateway.upstream.venues.topic import Message
from gateway.upstream.venues.topics import SharedStreams
from tests.virtual import here

BOOKS = {
    "binance": "btcusdt@depth",
    "binance_usdm": "btcusdt@depth",
    "okx": '{"channel":"books","instId":"BTC-USDT"}',
    "bybit": "orderbook.50.BTCUSDT",
    "kucoin": '{"channel":"obu","depth":"increment@10ms","rpiFilter":0,"symbol":"BTC-USDT","tradeType":"SPOT"}',
    "gate": '{"channel":"spot.obu","payload":["ob.BTC_USDT.50"]}',
    "coinbase_exchange": '{"channels":["level2_batch"],"product_ids":["BTC-USD"]}',
}
UNNUMBERED = ("coinbase_exchange",)
"""Whose books have no numbers: what a connection loses, doubles or reorders nobody can tell, and none of them does."""
TRADES = {
    "binance": "btcusdt@trade",
    "okx": '{"channel":"trades","instId":"BTC-USDT"}',
    "bybit": "publicTrade.BTCUSDT",
    "gate": '{"channel":"spot.trades","payload":["BTC_USDT"]}',
    "coinbase_exchange": '{"channels":["matches"],"product_ids":["BTC-USD"]}',
}
ANNOUNCEMENTS = {
    "binance": b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}',
    "binance_usdm": b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}',
    "okx": b'{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade."}',
}
PRICES = 50
REMEMBERED = 4000  # books that are kept for comparison


class Market:
    """A book and its trades."""

    def __init__(self, kind: str, chance: random.Random) -> None:
        self.kind = kind
        self.chance = chance
        self.number = 1000
        self.trade_number = 0
        self.book = dict.fromkeys(range(PRICES), 1.0)
        self.books = {self.number: dict(self.book)}

    def move(self) -> bytes:
        """A few changes, and the message that tells of them."""
        previous = self.number
        steps = 1 if self.kind == "bybit" else self.chance.randint(1, 4)
        changes = {}
        for _ in range(steps):
            price = self.chance.randrange(PRICES)
            self.book[price] = changes[price] = round(self.chance.random(), 3)
        self.number += steps
        self.books[self.number] = dict(self.book)
        self.books.pop(self.number - REMEMBERED, None)
        return self._told(previous, list(changes.items()), "update")

    def snapshot(self) -> bytes | None:
        """What a new subscription begins with."""
        if self.kind.startswith("binance"):
            return None
        return self._told(-1, list(self.book.items()), "snapshot")

    def trade(self) -> bytes:
        self.trade_number += 1
        key, number = TRADES[self.kind], self.trade_number
        if self.kind == "binance":
            return json.dumps({"stream": key, "data": {"e": "trade", "t": number}}).encode()
        if self.kind == "okx":
            return json.dumps({"arg": json.loads(key), "data": [{"tradeId": str(number)}]}).encode()
        if self.kind == "gate":
            trade = {"id": number, "currency_pair": "BTC_USDT"}
            return json.dumps({"channel": "spot.trades", "event": "update", "result": trade}).encode()
        if self.kind == "coinbase_exchange":
            return json.dumps({"type": "match", "trade_id": number, "product_id": "BTC-USD"}).encode()
        return json.dumps({"topic": key, "type": "snapshot", "data": [{"i": str(number)}]}).encode()

    def _told(self, previous: int, rows: list[tuple[int, float]], what: str) -> bytes:
        key = BOOKS[self.kind]
        message: dict[str, Any]
        if self.kind.startswith("binance"):
            data = {"U": previous + 1, "u": self.number, "b": rows}
            message = {"stream": key, "data": data | ({"pu": previous} if self.kind == "binance_usdm" else {})}
        elif self.kind == "okx":
            row = {"prevSeqId": previous, "seqId": self.number, "bids": rows}
            message = {"arg": json.loads(key), "action": what, "data": [row]}
        elif self.kind == "kucoin":
            first = self.number if what == "snapshot" else previous + 1
            data = {"O": first, "C": self.number, "b": rows, "s": "BTC-USDT"}
            what = "delta" if what == "update" else what
            message = {"T": "obu.SPOT", "dp": "increment@10ms", "t": what, "d": data}
        elif self.kind == "gate":
            place = {"full": True} if what == "snapshot" else {"U": previous + 1}
            result = {**place, "s": "ob.BTC_USDT.50", "u": self.number, "b": rows}
            message = {"channel": "spot.obu", "event": "update", "result": result}
        elif self.kind == "coinbase_exchange":  # its time, which rises with each change, says here which book is meant
            what, where = ("l2update", "changes") if what == "update" else (what, "bids")
            message = {"type": what, "product_id": "BTC-USD", where: rows, "time": self.number}
        else:
            what = "delta" if what == "update" else what
            message = {"topic": key, "type": what, "data": {"u": self.number, "b": rows}}
        return json.dumps(message).encode()


class Wire:
    """One connection, as the library's looks to a line.  `deaf`: nothing comes any more, and it stays open."""

    def __init__(self, venue: StreamVenue) -> None:
        self.venue = venue
        self.topics: set[str] = set()
        self.came: list[tuple[float, dict[str, Any] | str]] = []
        self.opened_at = here().time()
        self.deaf = False
        self.over = False
        self.gathered: dict[str, Any] | None = None
        self._last = 0.0
        self._on_way: deque[bytes] = deque()
        self._messages: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    async def recv(self, decode: bool | None = None) -> bytes:
        del decode
        while not self._messages:
            if self.over:
                raise ConnectionClosedError(None, None)
            self._waiter = here().create_future()
            await self._waiter
        return self._messages.popleft()

    async def send(self, text: str) -> None:
        if self.over:
            raise ConnectionClosedError(None, None)
        said = json.loads(text) if text.startswith("{") else text
        self.came.append((here().time(), said))
        if not self.deaf:
            self.venue.said(self, said)

    async def close(self) -> None:
        self.cut()

    def bring(self, data: bytes, delay: float | None = None) -> None:
        """A message on its way; what is sent later comes later."""
        now = here().time()
        self._last = max(self._last, now + (self.venue.chance.uniform(0.0, 0.05) if delay is None else delay))
        self._on_way.append(data)
        here().call_at(self._last, self._arrive)

    def cut(self) -> None:
        self.over = True
        self.venue.wires.pop(self, None)
        self._stir()

    def _arrive(self) -> None:
        data = self._on_way.popleft()
        if not self.deaf and not self.over:
            self._messages.append(data)
            self._stir()

    def _stir(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class StreamVenue:
    """An exchange, and the gateway's shared streams in front of it (in the place of VenueStreams)."""

    def __init__(self, kind: str, seed: int, which: int = 0) -> None:
        self.kind = kind
        self.chance = random.Random(seed)
        self.market = Market(kind, self.chance)
        self.wires: dict[Wire, None] = {}
        self.all_wires: list[Wire] = []
        self.refuses_connects = 0.0  # share of them
        self.unknown: set[str] = set()  # topics that it refuses
        self.answers = True
        venue = venue_named(kind)
        assert venue is not None
        assert venue.streams is not None
        self.facts: Streams = venue.streams
        self.messages = Messages(venue.streams.sharing[which])
        loop = here()
        self.shared = SharedStreams(
            self,  # type: ignore[arg-type]
            self.facts,
            self.messages,
            loop.time,
            lambda owner: Line(owner, self, self.facts, self.messages, loop.time),  # type: ignore[arg-type]
        )

    # --- in the place of VenueStreams -------------------------------------------------------------

    async def connect(self, *_: object) -> tuple[object, Wire]:
        await asyncio.sleep(self.chance.uniform(0.02, 0.4))
        if self.chance.random() < self.refuses_connects:
            raise NoStream("connect_failed")
        wire = Wire(self)
        self.wires[wire] = None
        self.all_wires.append(wire)
        return object(), wire

    def parted(self, host: object, why: str) -> None:
        """Nothing is held against a host."""

    def shut(self, connection: Wire) -> None:
        connection.cut()

    # --- what it says -----------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """To all who are subscribed."""
        key = self.messages.heard(message).topic
        for wire in tuple(self.wires):
            if key in wire.topics and self.kind == "kucoin" and key == BOOKS["kucoin"]:
                self._gather(wire, json.loads(message))
            elif key in wire.topics:
                wire.bring(message)

    def _gather(self, wire: Wire, message: dict[str, Any]) -> None:
        """Each connection tells what has changed within times of its own: spans of two of them overlap."""
        gathered = wire.gathered
        if gathered is not None and message["d"]["O"] == gathered["d"]["C"] + 1:
            gathered["d"]["b"] += message["d"]["b"]
            gathered["d"]["C"] = message["d"]["C"]
            return
        if gathered is not None:  # one between went astray
            wire.bring(json.dumps(gathered).encode())
        wire.gathered = message
        here().call_later(self.chance.uniform(0.005, 0.05), self._tell_gathered, wire)

    def _tell_gathered(self, wire: Wire) -> None:
        message, wire.gathered = wire.gathered, None
        if message is not None and not wire.over:
            wire.bring(json.dumps(message).encode())

    def said(self, wire: Wire, said: dict[str, Any] | str) -> None:
        """A client's message, answered as the exchange would."""
        sharing = self.messages.sharing
        if not self.answers:
            return
        if isinstance(said, str):
            wire.bring(b"pong")
            return
        wanted = self.messages.wanted(json.dumps(said).encode())
        if wanted is None:
            wire.bring(json.dumps({"id": said.get("id"), "op": said.get("op")}).encode())
            return
        if self.kind == "coinbase_exchange":
            self._told_of_subscriptions(wire, wanted)
            return
        bad = self.unknown.intersection(wanted.topics)
        if bad and self.kind in ("okx", "bitget"):
            for key in wanted.topics:
                if key in bad:
                    what = {"id": said["id"]} if self.kind == "okx" else {"arg": json.loads(key)}
                    words = {**what, "event": "error", "code": "60018", "msg": f"Wrong URL or {key}"}
                    wire.bring(json.dumps(words).encode())
                else:
                    self._subscribed(wire, key, wanted.on, said)
            return
        if bad:
            words = {"success": False, "ret_msg": f"error:handler not found,topic:{min(bad)}"}
            if self.kind == "gate":
                words = {"error": {"code": 2, "message": f"unknown currency pair {min(bad)}"}, "result": None}
            if self.kind == "kucoin":
                words = {"result": False, "msg": f"no such topic: {min(bad)}"}
            words = words if self.kind != "binance" else {"error": {"code": 2, "msg": "Invalid request"}}
            wire.bring(json.dumps({**words, sharing.id: said[sharing.id]}).encode())
            return
        if sharing.ack:
            wire.bring(self.messages.acknowledged(wanted)[0])
        for key in wanted.topics:
            self._subscribed(wire, key, wanted.on, said)

    def _told_of_subscriptions(self, wire: Wire, wanted: Wanted) -> None:
        """Requests have no numbers: each is answered in turn, by all there is or by an error."""
        (key,) = wanted.topics
        if key in self.unknown:
            words = {"type": "error", "message": "Failed to subscribe", "reason": f"{key} is not a valid product"}
            wire.bring(json.dumps(words).encode())
            return
        wire.bring(self.messages.acknowledged(wanted, sorted(wire.topics | {key}))[0])
        self._subscribed(wire, key, wanted.on, {})

    def _subscribed(self, wire: Wire, key: str, on: bool, said: dict[str, Any]) -> None:
        if self.kind == "gate":
            answer = {"event": "subscribe" if on else "unsubscribe", "error": None, "result": {"status": "success"}}
            wire.bring(json.dumps({**json.loads(key), **answer, "id": said["id"]}).encode())
        elif self.messages.sharing.ack_each:
            number = {"id": said["id"]} if "id" in said else {}
            ack = {**number, "event": "subscribe" if on else "unsubscribe", "arg": json.loads(key)}
            wire.bring(json.dumps(ack).encode())
        if not on:
            wire.topics.discard(key)
            return
        wire.topics.add(key)
        snapshot = self.market.snapshot() if key == BOOKS.get(self.kind) else None
        if snapshot is not None:
            wire.bring(snapshot)


class Bot:
    """A caller that keeps a book as the exchange's documentation says."""

    def __init__(self, venue: StreamVenue) -> None:
        self.venue = venue
        self.key = BOOKS[venue.kind]
        self.book: dict[int, float] = {}
        self.number: int | None = None
        self.told_count = 0
        self.fresh_starts = 0
        self.wrong: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.number = None
        assert self.venue.shared.join(self.key, self)

    def told(self, message: Message) -> None:
        self.told_count += 1
        data = json.loads(message.data)
        market, kind = self.venue.market, self.venue.kind
        if kind == "coinbase_exchange":
            what, last, rows = data["type"], data["time"], data.get("bids") or data.get("changes")
        elif kind == "kucoin":
            what, last, rows = data["t"], data["d"]["C"], data["d"]["b"]
            if what == "delta" and self.number is not None and data["d"]["O"] > self.number + 1:
                self.wrong.append(f"a gap after {self.number}")
        elif kind == "gate":
            result = data["result"]
            what, last, rows = "snapshot" if result.get("full") else "update", result["u"], result["b"]
            if what == "update" and self.number is not None and result["U"] > self.number + 1:
                self.wrong.append(f"a gap after {self.number}")
        elif "data" not in data:
            self.wrong.append(f"told {data}")
            return
        else:
            row = data["data"][0] if kind == "okx" else data["data"]
            what = data.get("action", data.get("type"))
            last, rows = row["seqId"] if kind == "okx" else row["u"], row["bids" if kind == "okx" else "b"]
        if what == "snapshot":
            self.fresh_starts += self.number is not None
            self.book, self.number = {int(price): amount for price, amount in rows}, last
        else:
            if self.number is None:
                if not kind.startswith("binance"):
                    self.wrong.append("an update before any snapshot")
                    return
                self.book, self.number = dict(market.book), market.number  # as REST gives it
            if last <= self.number:
                return
            for price, amount in rows:
                self.book[int(price)] = amount
            self.number = last
        if self.book != market.books[self.number]:
            self.wrong.append(f"at {self.number}")

    def lost(self, topic: str) -> None:
        self.fresh_starts += 1
        self.venue.shared.leave(topic, self)
        self.begin()

    def refused(self, topic: str, data: bytes) -> None:
        self.wrong.append(f"{topic} was refused: {data!r}")


class Ear:
    """A caller that notes what it is told."""

    def __init__(self, venue: StreamVenue, *keys: str) -> None:
        self.venue = venue
        self.heard: list[dict[str, Any]] = []
        self.lost_topics: list[str] = []
        self.refusals: list[tuple[str, bytes]] = []
        for key in keys:
            assert venue.shared.join(key, self)

    def told(self, message: Message) -> None:
        self.heard.append(json.loads(message.data))

    def lost(self, topic: str) -> None:
        self.lost_topics.append(topic)

    def refused(self, topic: str, data: bytes) -> None:
        self.refusals.append((topic, data))

"""Callers' sockets on shared streams, on virtual time: what the exchange would have said first, in its own words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, cast

from gateway.edge.socket import CallerSocket
from gateway.edge.venue_shared import SharedSession
from tests.upstream.venues.stage import StreamVenue
from tests.virtual import run


class Wire:
    """A caller's end of a socket: what came out of it."""

    plain = False
    under_way = 0

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None

    def send(self, data: bytes) -> None:
        self.heard.append(json.loads(data))

    def push_text(self, data: bytes) -> None:
        self.heard.append(json.loads(data))

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)


def no_stream_of_its_own(coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    coroutine.close()
    raise AssertionError("it should have been shared")


def test_a_caller_of_kucoin_is_welcomed_and_never_notices_that_others_listen() -> None:
    async def story() -> None:
        venue = StreamVenue("kucoin", 17)
        wires = [Wire(), Wire()]
        wish = {
            "action": "SUBSCRIBE",
            "channel": "obu",
            "tradeType": "SPOT",
            "symbol": "BTC-USDT",
            "depth": "increment@10ms",
        }
        for number, wire in enumerate(wires):
            session = SharedSession(
                venue.shared, cast(Any, venue), "/", "x-push-spot.kucoin.com", [], 100,
                no_stream_of_its_own, lambda _: None, lambda: None,
            )  # fmt: skip
            session.opened(cast(CallerSocket, wire))
            session.message(json.dumps({"id": str(number), **wish}).encode())
            session.message(json.dumps({"id": "ping", "type": "ping"}).encode())
        await asyncio.sleep(2)
        for _ in range(20):
            venue.send(venue.market.move())
            await asyncio.sleep(0.2)
        await asyncio.sleep(1)
        for number, wire in enumerate(wires):
            assert wire.heard[0]["message"] == "welcome"
            assert wire.heard[1:3] == [{"id": str(number), "result": True}, {"id": "ping", "type": "pong"}]
            assert [message["t"] for message in wire.heard[3:]] == ["snapshot"] + ["delta"] * 20
        assert len(venue.all_wires) == 1
        await venue.shared.close()
        assert [wire.closed and wire.closed[0] for wire in wires] == [1012, 1012]

    run(story())

"""A shared line: one WebSocket to an exchange with the public subscriptions that run on it.

Always true: what is asked for on a line is asked at the pace the exchange allows, several topics at once; its owner
hears each message once, and its end once; a line that has grown old, was told to end, or has fallen silent says so
before it ends.
Does not belong here: who listens (venue_topics), which host (venue_streams).
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from gateway.clock import Clock
from gateway.dialect.venue import Streams
from gateway.dialect.venue_messages import Messages
from gateway.upstream.socket_client import Connection, ConnectionClosed
from gateway.upstream.venue_streams import NoStream, StreamHost, VenueStreams

ASK_EVERY = 0.25  # seconds between two requests on a line; Binance cuts off who sends more than five a second
OLD_AT = 0.95  # share of a line's life after which a new one is opened
AGENT = (("User-Agent", "seawall"),)


class Owner(Protocol):
    """Who hears of a line."""

    def message(self, line: Line, data: bytes) -> None:
        """One whole message."""

    def leaving(self, line: Line, why: str) -> None:
        """It still works, and should be replaced: announced, old or silent."""

    def ended(self, line: Line, why: str) -> None:
        """It is gone."""


class Line:
    """One connection.  `topics` are those asked for on it."""

    def __init__(self, owner: Owner, streams: VenueStreams, facts: Streams, messages: Messages, clock: Clock) -> None:
        self.topics: set[str] = set()
        self.host: StreamHost | None = None
        self.open = False
        self.leaving = False
        self._owner = owner
        self._streams = streams
        self._facts = facts
        self._messages = messages
        self._clock = clock
        self._asking: dict[str, bool] = {}
        self._number = 0
        self._connection: Connection | None = None
        self._heard_at = 0.0
        self._opened_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self, apart: StreamHost | None) -> None:
        """Connect, to another domain than `apart` if possible."""
        self._task = asyncio.ensure_future(self._run(apart))

    def ask(self, topic: str, on: bool) -> None:
        """Subscribe, or end a subscription."""
        if on:
            self.topics.add(topic)
        else:
            self.topics.discard(topic)
        self._asking[topic] = on

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def look(self, now: float) -> None:
        """Is it time to replace it?  Called about ten times a second."""
        if not self.open or self.leaving:
            return
        if now - self._opened_at > OLD_AT * self._facts.life:
            self._leave("old")
        elif self.topics and now - self._heard_at > self._facts.silent_for:
            self._leave("silent")

    async def _run(self, apart: StreamHost | None) -> None:
        why = "gateway_bug"
        try:
            host, connection = await self._streams.connect(self._messages.sharing.connect, AGENT, "", apart)
        except NoStream as none:
            self._owner.ended(self, none.why)
            return
        self.host, self._connection = host, connection
        self._opened_at = self._heard_at = self._clock()
        self.open = True
        speaking = asyncio.ensure_future(self._speak(connection))
        try:
            while True:
                data = await connection.recv(decode=False)
                self._heard_at = self._clock()
                if self._facts.announces and any(piece.encode() in data for piece in self._facts.announces):
                    self._leave("announced")
                self._owner.message(self, data)
        except ConnectionClosed as closed:
            why = f"closed_{closed.rcvd.code}" if closed.rcvd is not None else "connection_lost"
        except asyncio.CancelledError:
            why = ""
            raise
        finally:
            self.open = False
            speaking.cancel()
            self._streams.parted(host, "" if self.leaving else why)
            self._streams.shut(connection)
            if why:
                self._owner.ended(self, why)

    async def _speak(self, connection: Connection) -> None:
        """Ask for what is wanted, and say what the exchange wants to hear from its clients."""
        said_at = self._clock()
        try:
            while True:
                if self._asking:
                    asking, self._asking = self._asking, {}
                    for on in (True, False):
                        topics = [topic for topic, wanted in asking.items() if wanted is on]
                        if topics:
                            self._number += 1
                            await connection.send(self._messages.request(on, topics, self._number).decode())
                now = self._clock()
                if self._facts.say and now - said_at > self._facts.every:
                    said_at = now
                    await connection.send(self._facts.say)
                await asyncio.sleep(ASK_EVERY)
        except ConnectionClosed:
            return  # the reading side tells

    def _leave(self, why: str) -> None:
        if not self.leaving:
            self.leaving = True
            self._owner.leaving(self, why)

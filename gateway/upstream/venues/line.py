"""A shared line: one WebSocket to an exchange with the public subscriptions that run on it.

Always true: what is asked for on a line is asked at the pace the exchange allows, several topics at once; a refusal
of several is asked again one by one, so that it hits only what it is meant for; its owner hears each message once,
and its end once; a line that has grown old, was told to end, answers no request, or has fallen silent says so before
it ends.
Does not belong here: who listens (venues/topics), which host (venues/streams).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from typing import Protocol

from gateway.clock import Clock, wall_seconds
from gateway.dialect.venue_facts import Rate, Streams
from gateway.dialect.venue_messages import Heard, Messages
from gateway.upstream.venues.streams import NoStream, StreamHost, VenueStreams, bucket_for
from gateway.upstream.wire.socket_client import Connection, ConnectionClosed

GATHER = 0.05  # seconds in which topics are collected for one request
UNHURRIED = Rate(10, 1)  # requests on a line where the exchange names no limit
ANSWER_WITHIN = 10.0  # seconds an exchange has to answer a request
OLD_AT = 0.95  # share of a line's life after which a new one is opened
LIVELY = 60  # messages within `silent_for` that make it strange when none follow
AGENT = (("User-Agent", "seawall"),)


class Owner(Protocol):
    """Who hears of a line."""

    def message(self, line: Line, heard: Heard, data: bytes) -> None:
        """One whole message that tells something of a topic."""

    def refused(self, line: Line, topic: str, data: bytes) -> None:
        """The exchange will not tell of a topic; `data` are its words."""

    def leaving(self, line: Line, why: str) -> None:
        """It still works, and should be replaced: announced, old, unanswered or silent."""

    def ended(self, line: Line, why: str) -> None:
        """It is gone."""


class _Ask(enum.Enum):
    """What is still to be asked for a topic."""

    ON = "on"
    OFF = "off"
    AGAIN = "again"  # end the subscription, then subscribe: that brings a new beginning


class Line:
    """One connection.  `topics` are those wanted on it."""

    def __init__(
        self, owner: Owner, streams: VenueStreams, facts: Streams, messages: Messages, clock: Clock, name: str = ""
    ) -> None:
        """`name` is the host that is meant, where hosts of one path speak differently."""
        self.topics: set[str] = set()
        self.host: StreamHost | None = None
        self.open = False
        self.leaving = False
        self._owner = owner
        self._streams = streams
        self._facts = facts
        self._messages = messages
        self._clock = clock
        self._name = name
        self._asking: dict[str, _Ask] = {}
        self._alone: list[str] = []  # to be asked for one by one
        self._on: set[str] = set()  # subscribed, as far as the exchange was asked
        self._confirmed: set[str] = set()
        self._unanswered: dict[int, tuple[float, list[str]]] = {}  # by number: when it was sent, for which topics
        self._number = 0
        self._pace = bucket_for(facts.requests or UNHURRIED, clock())
        self._wake = asyncio.Event()
        self._connection: Connection | None = None
        self._heard_at = 0.0  # anything
        self._told_at = 0.0  # something of a topic
        self._period_began = 0.0
        self._in_period = 0
        self._lively = False
        self._opened_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def quick(self) -> bool:
        """A request would be sent at once."""
        return self._pace.available_after(1.0, self._clock()) == 0.0

    def start(self, apart: StreamHost | None) -> None:
        """Connect, to another domain than `apart` if possible."""
        self._task = asyncio.ensure_future(self._run(apart))

    def ask(self, topic: str, on: bool) -> None:
        """Subscribe, or end a subscription.  A subscription that was to be ended first begins anew."""
        asked = self._asking.get(topic)
        if on:
            self.topics.add(topic)
            if asked is _Ask.OFF:
                self._asking[topic] = _Ask.AGAIN
            elif topic not in self._on:
                self._asking[topic] = _Ask.ON
        else:
            self.topics.discard(topic)
            if topic in self._on:
                self._asking[topic] = _Ask.OFF
            else:
                self._asking.pop(topic, None)
                self._alone = [other for other in self._alone if other != topic]
        self._wake.set()

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def look(self, now: float) -> None:
        """Is it time to replace it?  Called about ten times a second."""
        if not self.open or self.leaving:
            return
        silent_for = self._facts.silent_for
        if now - self._period_began >= silent_for:
            self._lively = self._in_period >= LIVELY
            self._period_began, self._in_period = now, 0
        if now - self._opened_at > OLD_AT * self._facts.life:
            self._leave("old")
        elif any(now - sent_at > ANSWER_WITHIN and topics for sent_at, topics in self._unanswered.values()):
            self._leave("unanswered")
        elif self.topics and (
            now - self._heard_at > silent_for or (self._lively and now - self._told_at > silent_for / 2)
        ):
            self._leave("silent")

    async def _run(self, apart: StreamHost | None) -> None:
        why = "gateway_bug"
        try:
            host, connection = await self._streams.connect(self._messages.sharing.connect, AGENT, self._name, apart)
        except NoStream as none:
            self._owner.ended(self, none.why)
            return
        self.host, self._connection = host, connection
        self._opened_at = self._heard_at = self._told_at = self._period_began = self._clock()
        self.open = True
        speaking = asyncio.ensure_future(self._speak(connection))
        try:
            while True:
                self._hear(await connection.recv(decode=False))
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

    def _hear(self, data: bytes) -> None:
        self._heard_at = self._clock()
        heard = self._messages.heard(data)
        if heard.topic and not heard.refuses and heard.topic not in self._confirmed:
            self._confirm(heard.topic)
        if heard.tells and heard.topic in self.topics:
            self._told_at = self._heard_at
            self._in_period += 1
            self._owner.message(self, heard, data)
            return
        if any(piece.encode() in data for piece in self._facts.announces):
            self._leave("announced")
        elif heard.refuses:
            self._refused(heard, data)
        elif (heard.answers is not None or heard.in_turn) and not heard.topic:  # else it is about that topic alone
            self._confirmed.update(self._answered(heard))

    def _confirm(self, topic: str) -> None:
        """The exchange tells of a topic, or says that it will."""
        self._confirmed.add(topic)
        self._settle(topic)

    def _settle(self, topic: str) -> None:
        """No request for a topic waits for an answer any more."""
        for number, (_, topics) in tuple(self._unanswered.items()):
            if topic in topics:
                topics.remove(topic)
                if not topics and not self._messages.sharing.answered:
                    del self._unanswered[number]

    def _answered(self, heard: Heard) -> list[str]:
        """The topics of the request that is answered; without a number, of the oldest."""
        number = heard.answers if heard.answers is not None else next(iter(self._unanswered), None)
        return self._unanswered.pop(number, (0.0, []))[1] if number is not None else []

    def _refused(self, heard: Heard, data: bytes) -> None:
        """A no to one of our requests, or to the topic that it names."""
        topics = [heard.topic] if heard.topic else self._answered(heard)
        for topic in topics:
            self._settle(topic)
        doubtful = [topic for topic in topics if topic in self.topics and topic not in self._confirmed]
        self._on.difference_update(doubtful)
        if len(topics) > 1:
            self._alone += doubtful
            self._wake.set()
            return
        for topic in doubtful:
            self.topics.discard(topic)
            self._owner.refused(self, topic, data)

    async def _speak(self, connection: Connection) -> None:
        """Ask for what is wanted, and say what the exchange wants to hear from its clients."""
        facts = self._facts
        said_at = self._clock()
        try:
            while True:
                now = self._clock()
                if self._asking or self._alone:
                    wait = self._pace.available_after(1.0, now)
                    if not wait:
                        self._pace.take(1.0, now)
                        await connection.send(self._request(now))
                        continue
                else:
                    wait = float("inf")
                if facts.say:
                    due = said_at + facts.every - now
                    if due <= 0:
                        said_at = now
                        if self._messages.sharing.answered:  # as our requests are, in turn
                            self._number += 1
                            self._unanswered[self._number] = (now, [])
                        await connection.send(facts.say)
                        continue
                    wait = min(wait, due)
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait if wait < float("inf") else None):
                        await self._wake.wait()
                        await asyncio.sleep(GATHER)
        except ConnectionClosed:
            return  # the reading side tells

    def _request(self, now: float) -> str:
        """The next thing to ask for."""
        most = self._messages.sharing.per_request
        if self._alone:
            on, topics = True, [self._alone.pop()]
        else:
            asking = self._asking
            topics = [topic for topic, ask in asking.items() if ask is _Ask.ON][:most]
            on = bool(topics)
            if not on:
                topics = list(asking)[:most]
            for topic in topics:
                if asking.pop(topic) is _Ask.AGAIN:
                    asking[topic] = _Ask.ON
        for topic in topics:
            self._settle(topic)  # no earlier request for it matters now
        self._confirmed.difference_update(topics)
        if on:
            self._on.update(topics)
        else:
            self._on.difference_update(topics)
        self._number += 1
        if on or self._messages.sharing.answered:
            self._unanswered[self._number] = (now, list(topics) if on else [])
        return self._messages.request(on, topics, self._number, wall_seconds()).decode()

    def _leave(self, why: str) -> None:
        if not self.leaving:
            self.leaving = True
            self._owner.leaving(self, why)

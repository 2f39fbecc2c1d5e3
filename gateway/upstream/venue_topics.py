"""Public subscriptions of an exchange that callers share: one upstream subscription for each topic.

Always true: every listener of a topic is told the same bytes in the same order; a numbered topic is told without a gap
and without a repeat, whichever line brings it; what cannot be told without a gap begins anew: with the exchange's own
snapshot, or by sending its listeners away, so that they take one; nobody keeps a book that is silently wrong.
A line that must go is replaced before it goes, where that is possible.
Does not belong here: the connection (venue_line), numbers (policy/sequences), callers' sockets (edge/venue_socket).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.clock import Clock
from gateway.dialect.venue import Streams
from gateway.dialect.venue_messages import Messages
from gateway.policy.sequences import Fit, Place, Rule, Sequence
from gateway.upstream.venue_line import Line
from gateway.upstream.venue_streams import StreamHost, VenueStreams

LOOK_EVERY = 0.1
REPLAYED = 2000  # messages since a snapshot that are kept for who joins late
REPLAYED_BYTES = 4_000_000
HELD = 500  # messages of a topic that wait for those before them
PATIENCE = 1.0  # seconds in which another line may still bring what is missing
OLDS = 200  # messages in a row from before what was told: the exchange has begun to count anew
MOST_TOPICS = 10_000  # names come from callers
LINGERS = 30.0  # seconds for which a topic without listeners is kept
RETRY_EVERY = 1.0  # seconds between two tries to have a line


class Message:
    """One message, as it is sent to many: each variant's frame is made once."""

    __slots__ = ("data", "frames")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.frames: dict[bool, bytes] = {}


class Listener(Protocol):
    """A caller's socket."""

    def told(self, message: Message) -> None:
        """A message of a topic it listens to."""

    def lost(self, topic: str) -> None:
        """Messages of a topic were lost and cannot be had again: it must start anew."""


class Topic:
    """One subscription and who listens."""

    __slots__ = (
        "fresh", "fresh_last", "held", "held_since", "idle_since", "key", "line", "listeners", "next_line", "olds",
        "replay", "replay_bytes", "sequence", "waiting",
    )  # fmt: skip

    def __init__(self, key: str, rule: Rule, now: float) -> None:
        self.key = key
        self.sequence = Sequence(rule)
        self.listeners: dict[Listener, None] = {}
        self.line: Line | None = None
        self.next_line: Line | None = None
        self.replay: deque[Message] | None = deque()  # None: grown too large
        self.replay_bytes = 0
        self.waiting: list[Listener] = []  # joined late, and a fresh snapshot is on its way
        self.held: dict[int, tuple[Place, Message]] = {}  # ahead of what was told
        self.held_since = 0.0
        self.fresh: list[Message] | None = None  # snapshot and updates of the line that is to take over
        self.fresh_last = 0
        self.olds = 0  # messages in a row that were older than what was told
        self.idle_since = now


class SharedStreams:
    """The shared subscriptions of one venue.  Implements venue_line.Owner."""

    def __init__(
        self,
        streams: VenueStreams,
        facts: Streams,
        messages: Messages,
        clock: Clock,
        line: Callable[[SharedStreams], Line] | None = None,
    ) -> None:
        """`line` makes a line that has not started; None: as it is meant to be."""
        self._new_line = line or (lambda owner: Line(owner, streams, facts, messages, clock))
        self.messages = messages
        self.facts = facts
        self.topics: dict[str, Topic] = {}
        self.lines: set[Line] = set()
        self.told = 0
        self.sent = 0
        self.gaps = 0
        self.resyncs = 0
        self.handovers = 0
        self._clock = clock
        self._retry_at = 0.0
        self._task: asyncio.Task[None] | None = None

    # --- listeners --------------------------------------------------------------------------------

    def join(self, key: str, listener: Listener) -> bool:
        """Listen to a topic; who joins late gets what it needs to begin.  False: there are too many topics."""
        topic = self.topics.get(key)
        if topic is None:
            if len(self.topics) >= MOST_TOPICS:
                return False
            numbers = self.messages.numbers_of(key)
            rule = Rule(numbers.rule) if numbers is not None else Rule.NONE
            topic = self.topics[key] = Topic(key, rule, self._clock())
            self._give_line(topic)
        if self._task is None:
            self._task = asyncio.ensure_future(self._watch())
        if listener in topic.listeners or listener in topic.waiting:
            return True
        if topic.replay is None:
            topic.waiting.append(listener)
            self._renew(topic)
            return True
        for message in topic.replay:
            listener.told(message)
        topic.listeners[listener] = None
        return True

    def leave(self, key: str, listener: Listener) -> None:
        topic = self.topics.get(key)
        if topic is None:
            return
        topic.listeners.pop(listener, None)
        if listener in topic.waiting:
            topic.waiting.remove(listener)
        if not topic.listeners:
            topic.idle_since = self._clock()

    async def close(self) -> None:
        tasks = [task for task in (self._task,) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for line in tuple(self.lines):
            line.close()

    def snapshot(self) -> dict[str, int]:
        """For the status page."""
        return {
            "topics": len(self.topics),
            "listeners": sum(len(topic.listeners) for topic in self.topics.values()),
            "lines": len(self.lines),
            "messages": self.told,
            "sent": self.sent,
            "gaps": self.gaps,
            "resyncs": self.resyncs,
            "handovers": self.handovers,
        }

    # --- venue_line.Owner -------------------------------------------------------------------------

    def message(self, line: Line, data: bytes) -> None:
        heard = self.messages.heard(data)
        topic = self.topics.get(heard.topic) if heard.topic else None
        if topic is None:
            if not heard.topic and b"error" in data:
                self._refused(line, data)
            return
        place = Place(*heard.numbers) if heard.numbers is not None else None
        if line is topic.line:
            self._take(topic, place, Message(data))
        elif line is topic.next_line:
            self._take_from_next(topic, place, Message(data))

    def leaving(self, line: Line, why: str) -> None:
        """Open the new one first: both are heard until it has taken over."""
        del why
        topics = [topic for topic in self.topics.values() if line in (topic.line, topic.next_line)]
        if not topics:
            line.close()
            self.lines.discard(line)
            return
        following = self._open(line.host)
        for topic in topics:
            topic.next_line, topic.fresh = following, None
            following.ask(topic.key, True)

    def ended(self, line: Line, why: str) -> None:
        del why
        self.lines.discard(line)
        for topic in self.topics.values():
            if topic.next_line is line:
                topic.next_line, topic.fresh = None, None
                if topic.waiting:
                    self._renew(topic)
            if topic.line is line:
                topic.line = None
                if topic.next_line is not None:
                    self._inherit(topic)
                elif line.host is not None:
                    self._give_line(topic, line.host)

    # --- lines ------------------------------------------------------------------------------------

    def _open(self, apart: StreamHost | None = None) -> Line:
        line = self._new_line(self)
        self.lines.add(line)
        line.start(apart)
        return line

    def _give_line(self, topic: Topic, apart: StreamHost | None = None) -> None:
        """A line with room, or a new one."""
        most = self.messages.sharing.per_connection
        for line in self.lines:
            if not line.leaving and len(line.topics) < most and (apart is None or line.host is not apart or line.open):
                break
        else:
            line = self._open(apart)
        topic.line = line
        line.ask(topic.key, True)

    def _renew(self, topic: Topic) -> None:
        """Have a fresh snapshot by a second subscription, while the first goes on."""
        if topic.next_line is None and topic.line is not None:
            topic.next_line = self._open(topic.line.host)
            topic.next_line.ask(topic.key, True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.look(self._clock())

    def look(self, now: float) -> None:
        """What time does: lines grow old, gaps stay open, topics are forgotten."""
        for line in tuple(self.lines):
            line.look(now)
        for topic in tuple(self.topics.values()):
            if topic.held and now - topic.held_since > PATIENCE:
                self._resync(topic)
            if topic.line is None and now >= self._retry_at:
                self._retry_at = now + RETRY_EVERY
                self._give_line(topic)
            if not topic.listeners and not topic.waiting and now - topic.idle_since > LINGERS:
                self._forget(topic)
        for line in tuple(self.lines):
            if line.open and not line.topics:
                line.close()
                self.lines.discard(line)

    def _forget(self, topic: Topic) -> None:
        del self.topics[topic.key]
        for line in (topic.line, topic.next_line):
            if line is not None:
                line.ask(topic.key, False)

    # --- telling ----------------------------------------------------------------------------------

    def _take(self, topic: Topic, place: Place | None, message: Message) -> None:
        """A message of the line that a topic lives on."""
        sequence = topic.sequence
        fit = sequence.judge(place)
        if fit is Fit.UNNUMBERED:
            self._tell(topic, message)
            return
        assert place is not None
        if place.snapshot:  # whatever its number: so the exchange says
            self._begin(topic, place, message, tell=place.last != sequence.last)
        elif fit is Fit.NEXT:
            self._next(topic, place, message)
        elif fit is Fit.OLD:
            topic.olds += 1
            if topic.olds > OLDS:
                self._resync(topic)  # its numbers have begun anew
        else:
            self._hold(topic, place, message)
            if topic.next_line is None or not topic.next_line.open:
                self._resync(topic)

    def _take_from_next(self, topic: Topic, place: Place | None, message: Message) -> None:
        """A message of the line that is to take over."""
        sequence = topic.sequence
        fit = sequence.judge(place)
        if fit is Fit.UNNUMBERED:
            self._take_over(topic)
            self._tell(topic, message)
            return
        assert place is not None
        if place.snapshot:
            topic.fresh, topic.fresh_last = [message], place.last
            if sequence.last is None or place.last == sequence.last:
                sequence.last = place.last
                self._take_over(topic)
            return
        if topic.fresh is not None:
            topic.fresh.append(message)
            topic.fresh_last = place.last
        elif self._has_snapshots(topic):
            return  # nothing is known before its snapshot
        if fit is Fit.NEXT:
            self._take_over(topic)
            self._next(topic, place, message, keep=False)
        elif fit is Fit.GAP:
            self._hold(topic, place, message)
        elif topic.fresh is None or topic.fresh_last == sequence.last:
            self._take_over(topic)  # what it told we have told: nothing is missing between the two

    def _next(self, topic: Topic, place: Place, message: Message, *, keep: bool = True) -> None:
        topic.olds = 0
        topic.sequence.took(place)
        self._tell(topic, message, keep=keep)
        while topic.held:
            following = min(topic.held)
            held_place, held_message = topic.held[following]
            fit = topic.sequence.judge(held_place)
            if fit is Fit.GAP:
                return
            del topic.held[following]
            if fit is Fit.NEXT:
                topic.sequence.took(held_place)
                self._tell(topic, held_message)

    def _hold(self, topic: Topic, place: Place, message: Message) -> None:
        if not topic.held:
            topic.held_since = self._clock()
            self.gaps += 1
        topic.held[place.last] = (place, message)
        if len(topic.held) > HELD:
            self._resync(topic)

    def _begin(self, topic: Topic, place: Place, message: Message, *, tell: bool) -> None:
        """The state as a whole: a new beginning for those who are not up to it."""
        if topic.sequence.last is not None and tell:
            self.resyncs += 1
        topic.olds = 0
        topic.sequence.took(place)
        topic.held.clear()
        topic.replay, topic.replay_bytes = deque(), 0
        if tell:
            self._tell(topic, message)
        else:
            self._keep(topic, message)
        self._let_in(topic)

    def _take_over(self, topic: Topic) -> None:
        """The new line has all that the old one has: from now on it is the one."""
        old, topic.line, topic.next_line = topic.line, topic.next_line, None
        self.handovers += 1
        if old is not None and old is not topic.line:
            old.ask(topic.key, False)
        if topic.fresh is not None:
            topic.replay, topic.replay_bytes = deque(topic.fresh), sum(len(message.data) for message in topic.fresh)
            topic.fresh = None
        self._let_in(topic)

    def _let_in(self, topic: Topic) -> None:
        """Those who waited for a snapshot."""
        waiting, topic.waiting = topic.waiting, []
        for listener in waiting:
            for message in topic.replay or ():
                self._send(listener, message)
            topic.listeners[listener] = None

    def _inherit(self, topic: Topic) -> None:
        """The old line is gone before the new one was level with it."""
        topic.line, topic.next_line = topic.next_line, None
        self.handovers += 1
        fresh, topic.fresh = topic.fresh, None
        last = topic.sequence.last
        if fresh is not None and (last is None or topic.fresh_last > last):
            self.resyncs += 1
            topic.sequence.last = topic.fresh_last
            topic.held.clear()
            topic.replay, topic.replay_bytes = deque(fresh), sum(len(message.data) for message in fresh)
            for listener in tuple(topic.listeners):
                for message in fresh:
                    self._send(listener, message)
            self._let_in(topic)
        elif topic.held:
            self._resync(topic)

    def _resync(self, topic: Topic) -> None:
        """What is missing will not come: begin anew."""
        self.resyncs += 1
        topic.held.clear()
        topic.olds = 0
        topic.fresh = None
        topic.sequence.last = None
        topic.replay, topic.replay_bytes = deque(), 0
        if self._has_snapshots(topic):  # a new subscription brings one
            for line in (topic.line, topic.next_line):
                if line is not None:
                    line.ask(topic.key, False)
            topic.next_line = None
            topic.line = self._open(topic.line.host if topic.line is not None else None)
            topic.line.ask(topic.key, True)
            return
        if topic.next_line is not None:
            self._take_over(topic)
        listeners, topic.listeners = topic.listeners, {}
        topic.idle_since = self._clock()
        for listener in listeners:
            listener.lost(topic.key)

    def _has_snapshots(self, topic: Topic) -> bool:
        numbers = self.messages.numbers_of(topic.key)
        return numbers is not None and bool(numbers.snapshot)

    def _tell(self, topic: Topic, message: Message, *, keep: bool = True) -> None:
        self.told += 1
        if keep:
            self._keep(topic, message)
        for listener in tuple(topic.listeners):
            self._send(listener, message)

    def _keep(self, topic: Topic, message: Message) -> None:
        """Keep what a late joiner needs: all since the snapshot, where there are snapshots."""
        if topic.replay is None or not self._has_snapshots(topic):
            return
        topic.replay.append(message)
        topic.replay_bytes += len(message.data)
        if len(topic.replay) > REPLAYED or topic.replay_bytes > REPLAYED_BYTES:
            topic.replay = None

    def _send(self, listener: Listener, message: Message) -> None:
        self.sent += 1
        listener.told(message)

    def _refused(self, line: Line, data: bytes) -> None:
        """The exchange refuses something: those who wait for a topic's first word hear it."""
        message = Message(data)
        for key in line.topics:
            topic = self.topics.get(key)
            if topic is not None and topic.sequence.last is None and not topic.replay:
                for listener in tuple(topic.listeners):
                    self._send(listener, message)

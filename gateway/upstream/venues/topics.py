"""Public subscriptions of an exchange that callers share: one upstream subscription for each topic.

Always true: every listener of a topic is told the same bytes in the same order; a numbered topic is told without a gap
and without a repeat, whichever line brings it; what cannot be told without a gap begins anew: with the exchange's own
snapshot, or by sending its listeners away, so that they take one; nobody keeps a book that is silently wrong.
A line that must go is replaced before it goes, where that is possible.
Does not belong here: the connection (venues/line), numbers (policy/sequences), callers' sockets (edge/venue_socket).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.clock import Clock
from gateway.dialect.venue_facts import Streams
from gateway.dialect.venue_messages import Heard, Messages
from gateway.policy.sequences import Fit, Place, Rule
from gateway.upstream.venues.line import Line
from gateway.upstream.venues.lines import Lines
from gateway.upstream.venues.streams import StreamHost, VenueStreams
from gateway.upstream.venues.topic import Listener, Message, Topic

LOOK_EVERY = 0.1
HELD = 500  # messages of a topic that wait for those before them
PATIENCE = 1.0  # seconds in which another line may still bring what is missing
OUT_OF_ORDER = 0.2  # seconds in which the same line may
OLDS = 200  # messages in a row from before what was told: the exchange has begun to count anew
MOST_TOPICS = 10_000  # names come from callers
LINGERS = 30.0  # seconds for which a topic without listeners is kept
RETRY_EVERY = 1.0  # seconds between two tries to have a line


class SharedStreams:
    """The shared subscriptions of one kind of stream of a venue.  Implements venue_line.Owner."""

    def __init__(
        self,
        streams: VenueStreams,
        facts: Streams,
        messages: Messages,
        clock: Clock,
        line: Callable[[SharedStreams], Line] | None = None,
        name: str = "",
    ) -> None:
        """`line` makes a line that has not started; None: as it is meant to be, to hosts like the one of `name`."""
        make = line or (lambda owner: Line(owner, streams, facts, messages, clock, name))
        self.lines = Lines(lambda: make(self), messages.sharing.per_connection)
        self.messages = messages
        self.facts = facts
        self.topics: dict[str, Topic] = {}
        self.told = 0
        self.sent = 0
        self.gaps = 0
        self.resyncs = 0
        self.handovers = 0
        self._clock = clock
        self._retry_at = 0.0
        self._task: asyncio.Task[None] | None = None

    # --- listeners --------------------------------------------------------------------------------

    def start(self, look_every: float = LOOK_EVERY) -> None:
        """Look after lines and topics from now on."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._watch(look_every))

    def takes(self, key: str) -> bool:
        """Who joins now costs the others nothing.

        False: what it would begin with is no longer kept, and another subscription's would begin anew for everybody.
        """
        topic = self.topics.get(key)
        return topic is None or topic.replay is not None or not topic.is_counted

    def join(self, key: str, listener: Listener) -> bool:
        """Listen to a topic; who joins late gets what it needs to begin.  False: there are too many topics."""
        topic = self.topics.get(key)
        if topic is None:
            kind = self.messages.kind_of(key)
            if kind is None or len(self.topics) >= MOST_TOPICS:
                return False
            topic = self.topics[key] = Topic(key, kind, self._clock())
            self._give_line(topic)
        if listener in topic.listeners or listener in topic.waiting:
            return True
        if topic.replay is None:
            topic.waiting.append(listener)
            self._renew(topic)
            return True
        for message in topic.replay:
            self._send(listener, message)
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
        """End it all; who listens is told that there is no more to come."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for topic in tuple(self.topics.values()):
            self._send_away(topic)
        self.topics.clear()
        for line in self.lines:
            self.lines.end(line)

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

    def message(self, line: Line, heard: Heard, data: bytes) -> None:
        topic = self.topics.get(heard.topic)
        if topic is None:
            return
        if line not in (topic.line, topic.next_line):
            return
        place = topic.place_of(line, heard.numbers)
        if place is None and topic.sequence.rule is not Rule.NONE:
            return  # what should have a number and has none is no part of the sequence; if it was, a gap shows it
        if line is topic.line:
            self._take(topic, place, Message(data))
        else:
            self._take_from_next(topic, place, Message(data))

    def refused(self, line: Line, topic: str, data: bytes) -> None:
        """Those who asked for it hear the exchange's own words, and it is forgotten; nobody else is concerned."""
        found = self.topics.get(topic)
        if found is None or line not in (found.line, found.next_line):
            return
        listeners = (*found.listeners, *found.waiting)
        self._forget(found)
        for listener in listeners:
            listener.refused(topic, data)

    def leaving(self, line: Line, why: str) -> None:
        """Open the new one first: both are heard until it has taken over."""
        del why
        topics = [topic for topic in self.topics.values() if line in (topic.line, topic.next_line)]
        if not topics:
            self.lines.end(line)
            return
        self._replace(topics, line.host)

    def ended(self, line: Line, why: str) -> None:
        del why
        self.lines.forget(line)
        orphans = []
        for topic in tuple(self.topics.values()):
            if topic.next_line is line:
                topic.next_line, topic.fresh = None, None
            if topic.line is line:
                topic.line = None
                if topic.next_line is not None:
                    self._inherit(topic)
                elif line.host is not None:
                    orphans.append(topic)
        for topic in orphans:
            self._lose_line(topic)
            self._give_line(topic, line.host)

    # --- lines ------------------------------------------------------------------------------------

    def _give_line(self, topic: Topic, apart: StreamHost | None = None) -> None:
        topic.line, topic.steady = self.lines.with_room((topic.line, topic.next_line), apart), False
        topic.line.ask(topic.key, True)

    def _prepare(self, topic: Topic, line: Line | None) -> None:
        """`line` is to take over, from a new subscription on; what was to do so before is no longer needed."""
        if topic.next_line is not None and topic.next_line is not topic.line:
            topic.next_line.ask(topic.key, False)
        topic.next_line, topic.fresh = line, None
        if line is not None:
            line.ask(topic.key, True)

    def _replace(self, topics: list[Topic], apart: StreamHost | None) -> None:
        """One new line for all of them."""
        following = self.lines.open(apart)
        for topic in topics:
            self._prepare(topic, following)

    def _renew(self, topic: Topic) -> None:
        """Have a fresh snapshot by a second subscription, while the first goes on."""
        if topic.next_line is None and topic.line is not None:
            self._prepare(topic, self.lines.with_room((topic.line, topic.next_line), None))

    async def _watch(self, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                self.look(self._clock())
            except Exception as bug:
                context = {"message": "looking after shared subscriptions", "exception": bug}
                asyncio.get_running_loop().call_exception_handler(context)

    def look(self, now: float) -> None:
        """What time does: lines grow old, gaps stay open, topics are forgotten."""
        for line in self.lines:
            line.look(now)
        for topic in tuple(self.topics.values()):
            patience = PATIENCE if topic.next_line is not None else OUT_OF_ORDER
            if topic.held and now - topic.held_since > patience:
                self._resync(topic)
            elif topic.fresh is not None and now - topic.fresh_since > PATIENCE and _ahead(topic):
                self._adopt(topic)  # the old line does not come so far
            if not topic.listeners and not topic.waiting and now - topic.idle_since > LINGERS:
                self._forget(topic)
        if now >= self._retry_at:
            self._retry_at = now + RETRY_EVERY
            self._retry()
        self.lines.end_idle()

    def _retry(self) -> None:
        """Lines for topics that have none, or none to follow one that must go."""
        unreplaced: dict[Line, list[Topic]] = {}
        for topic in self.topics.values():
            if topic.line is None:
                self._give_line(topic)
            elif topic.next_line is None and topic.line.leaving:
                unreplaced.setdefault(topic.line, []).append(topic)
            elif topic.waiting:
                self._renew(topic)
        for line, topics in unreplaced.items():
            self._replace(topics, line.host)

    def _forget(self, topic: Topic) -> None:
        del self.topics[topic.key]
        for line in (topic.line, topic.next_line):
            if line is not None:
                line.ask(topic.key, False)

    # --- telling ----------------------------------------------------------------------------------

    def _take(self, topic: Topic, place: Place | None, message: Message) -> None:
        """A message of the line that a topic lives on."""
        fit = topic.sequence.judge(place)
        if place is None or fit is Fit.UNNUMBERED:
            self._tell(topic, message)
        elif topic.has_snapshots and topic.sequence.last is None and not place.snapshot:
            return  # of the subscription before: nothing is known before the snapshot
        elif place.snapshot:  # whatever its number: so the exchange says
            self._begin(topic, place, message, tell=place.last != topic.sequence.last)
        elif fit is Fit.NEXT:
            self._next(topic, place, message)
        elif fit is Fit.OLD:
            topic.olds += 1
            if topic.olds > OLDS:
                self._resync(topic)  # its numbers have begun anew
        elif topic.steady or (topic.next_line is not None and topic.next_line.open):
            self._hold(topic, place, message)
        else:
            self.gaps += 1
            self._resync(topic)

    def _take_from_next(self, topic: Topic, place: Place | None, message: Message) -> None:
        """A message of the line that is to take over."""
        sequence = topic.sequence
        fit = sequence.judge(place)
        if place is None or fit is Fit.UNNUMBERED:
            self._take_over(topic)
            if topic.kind.each:
                self._send_away(topic)  # whether one fell between the two nobody can tell
            else:
                self._tell(topic, message)
            return
        if place.snapshot:
            topic.freshen(place, message, self._clock())
            if sequence.last is None or place.last == sequence.last:
                sequence.last = place.last
                self._take_over(topic)
            return
        if topic.has_snapshots and not topic.keeps_fresh(place, message):
            if topic.fresh is not None:  # something is missing between its snapshot and this
                self._prepare(topic, topic.next_line)
            return
        if fit is Fit.NEXT and sequence.rule is Rule.RISING and sequence.last is not None:
            self._hold(topic, place, message)  # what lies before it only the old line can tell
        elif fit is Fit.NEXT:
            self._take_over(topic)
            self._next(topic, place, message, keep=False)
        elif fit is Fit.GAP:
            self._hold(topic, place, message)
        elif topic.fresh is None or topic.fresh_last == sequence.last:
            self._take_over(topic)  # what it told we have told: nothing is missing between the two

    def _next(self, topic: Topic, place: Place, message: Message, *, keep: bool = True) -> None:
        topic.olds, topic.steady = 0, True
        topic.sequence.took(place)
        self._tell(topic, message, keep=keep)
        rises = topic.sequence.rule is Rule.RISING
        if rises and place.last in topic.held and topic.next_line is not None:
            self._take_over(topic)  # both lines have told this one
        while topic.held:
            following = min(topic.held)
            held_place, held_message = topic.held[following]
            fit = topic.sequence.judge(held_place)
            if fit is Fit.GAP or (fit is Fit.NEXT and rises and topic.next_line is not None):
                return
            del topic.held[following]
            if fit is Fit.NEXT:
                topic.sequence.took(held_place)
                self._tell(topic, held_message)

    def _hold(self, topic: Topic, place: Place, message: Message) -> None:
        if not topic.held:
            topic.held_since = self._clock()
            self.gaps += topic.sequence.rule is not Rule.RISING
        topic.held[place.last] = (place, message)
        if len(topic.held) > HELD:
            self._resync(topic)

    def _begin(self, topic: Topic, place: Place, message: Message, *, tell: bool) -> None:
        """The state as a whole: a new beginning for those who are not up to it."""
        if topic.sequence.last is not None and tell:
            self.resyncs += 1
        topic.olds, topic.steady = 0, True
        topic.sequence.took(place)
        topic.held.clear()
        topic.keep_from([])
        if tell:
            self._tell(topic, message)
        else:
            topic.keep(message)
        self._let_in(topic)

    def _take_over(self, topic: Topic) -> None:
        """The new line has all that the old one has: from now on it is the one."""
        old, topic.line, topic.next_line = topic.line, topic.next_line, None
        self.handovers += 1
        if old is not None and old is not topic.line:
            old.ask(topic.key, False)
        if topic.fresh is not None:
            topic.keep_from(topic.fresh)
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
        self._lose_line(topic)
        if topic.fresh is not None and topic.fresh_last != topic.sequence.last:
            self._adopt(topic)
            return
        self._take_over(topic)
        if topic.held:
            self._resync(topic)

    def _adopt(self, topic: Topic) -> None:
        """Go on with what the new line has told, and tell it from its snapshot on."""
        fresh = topic.fresh or []
        self.resyncs += 1
        topic.sequence.last = topic.fresh_last
        topic.held.clear()
        for message in fresh:
            for listener in tuple(topic.listeners):
                self._send(listener, message)
        self._take_over(topic)

    def _resync(self, topic: Topic) -> None:
        """What is missing will not come: begin anew."""
        if topic.fresh is not None:  # another line has what is needed
            self._adopt(topic)
            return
        self.resyncs += 1
        topic.held.clear()
        topic.olds = 0
        topic.sequence.last = None
        topic.keep_from([])
        if topic.has_snapshots:  # a new subscription brings one
            self._prepare(topic, None)
            old = topic.line
            self._give_line(topic, old.host if old is not None else None)
            if old is not None:
                old.ask(topic.key, False)
            return
        if topic.next_line is not None:
            self._take_over(topic)
        self._send_away(topic)

    def _lose_line(self, topic: Topic) -> None:
        """Its line is gone without a follower that has the same: some things cannot be had again."""
        if topic.kind.begins:
            topic.keep_from([])
        if topic.kind.each:
            topic.held.clear()
            topic.sequence.last = None
            self._send_away(topic)

    def _send_away(self, topic: Topic) -> None:
        """Its listeners must begin anew."""
        listeners = (*topic.listeners, *topic.waiting)
        topic.listeners, topic.waiting = {}, []
        topic.idle_since = self._clock()
        for listener in listeners:
            listener.lost(topic.key)

    def _tell(self, topic: Topic, message: Message, *, keep: bool = True) -> None:
        self.told += 1
        if keep:
            topic.keep(message)
        for listener in tuple(topic.listeners):
            self._send(listener, message)

    def _send(self, listener: Listener, message: Message) -> None:
        self.sent += 1
        listener.told(message)


def _ahead(topic: Topic) -> bool:
    """What the new line has told is not what the old one has, and will not become so."""
    last = topic.sequence.last
    leaving = topic.line is None or topic.line.leaving
    return last is None or topic.fresh_last > last or (leaving and topic.fresh_last != last)

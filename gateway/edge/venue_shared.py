"""A caller's socket on a path whose subscriptions are shared: it speaks the exchange's own language with us.

Always true: what a caller asks for in the shapes of the exchange's file is answered in them and shared; whatever else
it says goes to the exchange on a stream of its own, so that nothing is lost by sharing; a caller whose book could not
be kept whole is sent away with 1012 to begin anew.
Does not belong here: topics and lines (upstream/venues/topics), frames (socket).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.dialect.venue_messages import Wanted
from gateway.edge.frames import frame_of
from gateway.edge.socket import POLICY, RESTART, TRY_LATER, CallerSocket
from gateway.upstream.venues.streams import PassThrough, VenueStreams
from gateway.upstream.venues.topic import Message
from gateway.upstream.venues.topics import SharedStreams

LOST = "messages of this subscription were lost: connect again and take a new snapshot"


class SharedSession:
    """See the module.  Implements edge.socket.Handler and upstream.venues.topics.Listener."""

    def __init__(
        self,
        shared: SharedStreams,
        streams: VenueStreams,
        target: str,
        name: str,
        headers: Sequence[tuple[str, str]],
        most_topics: int,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        gone: Callable[[SharedSession], None],
        too_slow: Callable[[], None],
    ) -> None:
        self.socket: CallerSocket | None = None
        self._shared = shared
        self._streams = streams
        self._target = target
        self._name = name
        self._headers = headers
        self._most_topics = most_topics
        self._start = start
        self._gone = gone
        self._too_slow = too_slow
        sharing = shared.messages.sharing
        path = target.partition("?")[0]
        self._bare = any(path == prefix or path.startswith(prefix + "/") for prefix in sharing.bare)
        self._base = next((prefix for prefix in sharing.paths if path == prefix or path.startswith(prefix + "/")), path)
        self._topics: dict[str, str] = {}  # and the number of the request by which each was asked for
        self._own_topics: set[str] = set()  # asked for on the stream of its own
        self._own: PassThrough | None = None
        self._task: asyncio.Task[None] | None = None

    # --- edge.socket.Handler ----------------------------------------------------------------------

    def opened(self, socket: CallerSocket) -> None:
        self.socket = socket
        self._shared.start()
        welcome = self._shared.messages.sharing.welcome
        if welcome:
            socket.send(welcome.encode())
        self._join(self._shared.messages.in_path(self._target) or (), "")

    def message(self, text: bytes) -> None:
        socket = self.socket
        if socket is None:
            return
        messages = self._shared.messages
        wanted = messages.wanted(text)
        if wanted is not None and not self._is_own(wanted):
            self._asked(wanted, socket)
            return
        answer = self._answer(text) if self._own is None else None
        if answer is not None:
            socket.send(answer)
            return
        if wanted is not None:
            self._leave(wanted.topics)
            self._note_own(wanted)
        self._pass_on(text.decode("utf-8", "replace") if socket.text else text, socket)

    def dropped(self) -> None:
        self._too_slow()

    def closed(self) -> None:
        self.socket = None
        self._leave(tuple(self._topics))
        if self._task is not None:
            self._task.cancel()
        self._gone(self)

    # --- upstream.venues.topics.Listener -----------------------------------------------------------

    def told(self, message: Message) -> None:
        socket = self.socket
        if socket is None:
            return
        if not socket.plain:
            socket.push_text(self._variant(message))
            return
        frame = message.frames.get(self._bare)
        if frame is None:
            frame = message.frames[self._bare] = frame_of(self._variant(message))
        socket.push(frame)

    def lost(self, topic: str) -> None:
        del topic
        if self.socket is not None:
            self.socket.close(RESTART, LOST)

    def refused(self, topic: str, data: bytes) -> None:
        raw_id = self._topics.pop(topic, "")
        if self.socket is not None:
            self.socket.send(self._shared.messages.refusal_for(data, raw_id))

    def _variant(self, message: Message) -> bytes:
        messages = self._shared.messages
        return messages.bare(message.data) if self._bare else message.data

    # --- what a caller says -----------------------------------------------------------------------

    def _is_own(self, wanted: Wanted) -> bool:
        """It is about what is not shared, or what the caller has on the stream of its own, where it stays.

        So does who comes too late for what cannot be begun in the middle.
        A caller that spoke to the exchange before it had any subscription shared is left to it altogether: it may
        have logged in, or chosen another form of messages.
        """
        if not wanted.shared:
            return True
        if wanted.on and not all(key in self._topics or self._shared.takes(key) for key in wanted.topics):
            return True
        if self._own is None:
            return False
        return not self._topics or not self._own_topics.isdisjoint(wanted.topics)

    def _note_own(self, wanted: Wanted) -> None:
        """What could be shared and is on the caller's own stream must not come twice."""
        for key in wanted.topics:
            if not wanted.on:
                self._own_topics.discard(key)
            elif len(self._own_topics) < self._most_topics and self._shared.messages.could_share(key):
                self._own_topics.add(key)

    def _asked(self, wanted: Wanted, socket: CallerSocket) -> None:
        has = [key for key in self._topics if key not in wanted.topics]
        has += wanted.topics if wanted.on else ()
        for answer in self._shared.messages.acknowledged(wanted, has):
            socket.send(answer)
        if wanted.on:
            self._join(wanted.topics, wanted.id)
        else:
            self._leave(wanted.topics)

    def _answer(self, text: bytes) -> bytes | None:
        """What a caller without a stream of its own is answered in the exchange's place."""
        facts = self._shared.facts
        if facts.answer and text == facts.say.encode():
            return facts.answer.encode()
        return self._shared.messages.answered(text, self._topics)

    def _leave(self, keys: Sequence[str]) -> None:
        for key in keys:
            if self._topics.pop(key, None) is not None:
                self._shared.leave(key, self)

    def _join(self, keys: Sequence[str], raw_id: str) -> None:
        for key in keys:
            if key in self._topics:
                continue
            if len(self._topics) >= self._most_topics:
                if self.socket is not None:
                    self.socket.close(POLICY, "too many subscriptions on one socket")
                return
            if not self._shared.join(key, self):
                if self.socket is not None:
                    self.socket.close(TRY_LATER, "too many subscriptions are shared already")
                return
            self._topics[key] = raw_id

    def _pass_on(self, message: str | bytes, socket: CallerSocket) -> None:
        """What we do not understand is between the caller and the exchange."""
        if self._own is None:
            self._own = PassThrough(self._streams)
            self._task = self._start(self._carry(self._own, socket))
        socket.under_way += self._own.put(message)

    async def _carry(self, own: PassThrough, socket: CallerSocket) -> None:
        code, reason = await own.run(self._base, self._headers, self._name, socket.relay, socket.relayed)
        socket.under_way = 0
        socket.close(code, reason)

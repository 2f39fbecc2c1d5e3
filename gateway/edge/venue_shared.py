"""A caller's socket on a path whose subscriptions are shared: it speaks the exchange's own language with us.

Always true: what a caller asks for in the shapes of the exchange's file is answered in them and shared; whatever else
it says goes to the exchange on a stream of its own, so that nothing is lost by sharing; a caller whose book could not
be kept whole is sent away with 1012 to begin anew.
Does not belong here: topics and lines (upstream/venue_topics), frames (socket).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from gateway.dialect.venue_messages import Wanted
from gateway.edge.frames import frame_of
from gateway.edge.socket import POLICY, RESTART, TRY_LATER, CallerSocket
from gateway.upstream.venue_streams import PassThrough, VenueStreams
from gateway.upstream.venue_topics import Message, SharedStreams

LOST = "messages of this subscription were lost: connect again and take a new snapshot"


class SharedSession:
    """See the module.  Implements edge.socket.Handler and upstream.venue_topics.Listener."""

    def __init__(
        self,
        shared: SharedStreams,
        streams: VenueStreams,
        target: str,
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
        self._headers = headers
        self._most_topics = most_topics
        self._start = start
        self._gone = gone
        self._too_slow = too_slow
        path = target.partition("?")[0]
        self._bare = any(path == prefix or path.startswith(prefix + "/") for prefix in shared.messages.sharing.bare)
        self._topics: set[str] = set()
        self._own: PassThrough | None = None
        self._task: asyncio.Task[None] | None = None

    # --- edge.socket.Handler ----------------------------------------------------------------------

    def opened(self, socket: CallerSocket) -> None:
        self.socket = socket
        self._join(self._shared.messages.in_path(self._target))

    def message(self, text: bytes) -> None:
        socket = self.socket
        if socket is None:
            return
        facts, messages = self._shared.facts, self._shared.messages
        wanted = messages.wanted(text) if self._own is None or self._topics else None
        if wanted is not None:
            self._asked(wanted, socket)
        elif facts.say and facts.answer and text == facts.say.encode():
            socket.send(facts.answer.encode())
        else:
            self._pass_on(text.decode("utf-8", "replace") if socket.text else text, socket)

    def dropped(self) -> None:
        self._too_slow()

    def closed(self) -> None:
        self.socket = None
        for key in self._topics:
            self._shared.leave(key, self)
        self._topics.clear()
        if self._task is not None:
            self._task.cancel()
        self._gone(self)

    # --- upstream.venue_topics.Listener -----------------------------------------------------------

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

    def _variant(self, message: Message) -> bytes:
        messages = self._shared.messages
        return messages.bare(message.data) if self._bare and messages.sharing.unwrap else message.data

    # --- what a caller says -----------------------------------------------------------------------

    def _asked(self, wanted: Wanted, socket: CallerSocket) -> None:
        for answer in self._shared.messages.answers(wanted):
            socket.send(answer)
        if wanted.on:
            self._join(wanted.topics)
            return
        for key in wanted.topics:
            if key in self._topics:
                self._topics.discard(key)
                self._shared.leave(key, self)

    def _join(self, keys: Sequence[str]) -> None:
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
            self._topics.add(key)

    def _pass_on(self, message: str | bytes, socket: CallerSocket) -> None:
        """What we do not understand is between the caller and the exchange."""
        if self._own is None:
            self._own = PassThrough(self._streams)
            self._task = self._start(self._carry(self._own, socket))
        socket.under_way += self._own.put(message)

    async def _carry(self, own: PassThrough, socket: CallerSocket) -> None:
        code, reason = await own.run(self._target.partition("?")[0], self._headers, "", socket.relay, socket.relayed)
        socket.under_way = 0
        socket.close(code, reason)

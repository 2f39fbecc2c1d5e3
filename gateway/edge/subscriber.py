"""One caller's subscription: events of a feed on their way to its socket.

Always true: nothing is told before the caller was told the subscription's id; what comes before that is held,
and counts as what waits for a slow caller; a frame that many callers get is made once.
Does not belong here: which subscriptions a caller may have (stream), where events come from
(upstream/feeds/subscriptions).
"""

from __future__ import annotations

from typing import Protocol

from gateway.dialect.notifications import encode_notice, encode_notification
from gateway.edge.frames import frame_of
from gateway.edge.socket import GOING_AWAY, CallerSocket
from gateway.upstream.feeds.feed import Event, Feed, Missed


class Holder(Protocol):
    """Whose subscription it is.  `socket` is None once it is gone."""

    socket: CallerSocket | None

    def hold(self, size: int) -> None:
        """So many bytes of events more wait for their subscription's id to be told."""

    def ended(self, subscriber: Subscriber) -> None:
        """The subscription is over."""


class Subscriber:
    """One caller's subscription, as its feed sees it."""

    __slots__ = ("_held", "feed", "holder", "id", "is_over")

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.feed: Feed | None = None
        self.id = b""  # the raw JSON that the caller was told
        self.is_over = False
        self._held: list[Event | Missed] | None = []  # until the caller has been told the id

    def told(self, event: Event) -> None:
        """An event of its feed."""
        socket = self.holder.socket
        if self._held is not None:
            self._hold(event)
        elif socket is None:
            return
        elif not socket.plain:
            socket.push_text(encode_notification(event.method, self.id, event.result))
        else:
            frame = event.frames.get(self.id)
            if frame is None:
                frame = frame_of(encode_notification(event.method, self.id, event.result))
                if self.feed is not None and self.id == self.feed.id:  # most callers' id: made once, sent to all
                    event.frames[self.id] = frame
            socket.push(frame)

    def missed(self, missed: Missed) -> None:
        """Events are lost for good: the caller is told."""
        if self._held is not None:
            self._hold(missed)
        elif self.holder.socket is not None:
            self.holder.socket.push_text(encode_notice(self.id, missed.reason, missed.low, missed.high))

    def over(self) -> None:
        """The feed has told all that it ever will."""
        self.is_over = True
        self.holder.ended(self)

    def closed(self) -> None:
        """The feed is gone: the route is another one now, or was taken out of the configuration."""
        if self.holder.socket is not None:
            self.holder.socket.close(GOING_AWAY, "the subscription has ended with its route; connect again")

    def release(self) -> None:
        """The caller has been told the id: what has come since follows."""
        held, self._held = self._held or [], None
        for item in held:
            if isinstance(item, Event):
                self.holder.hold(-len(item.result))
                self.told(item)
            else:
                self.missed(item)

    def _hold(self, item: Event | Missed) -> None:
        assert self._held is not None
        self._held.append(item)
        if isinstance(item, Event):
            self.holder.hold(len(item.result))

"""A line: one endpoint's WebSocket with the subscriptions that run on it.

Always true: each upstream subscription belongs to one stream, which is told exactly once when it is
lost; an event that comes before the answer which tells its subscription's id waits for that; one that
nobody subscribed to is ignored; a question on a line has a limit in time.
Does not belong here: keeping the socket alive (sockets), what an event means (streams).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Protocol

from gateway.clock import Clock
from gateway.dialect.jsonrpc import encode_request
from gateway.dialect.notifications import Notification, Reply, read_messages
from gateway.errors import AttemptError, AttemptTimeout, ConnectionLost
from gateway.events import Subscription
from gateway.model import Sent
from gateway.upstream.wire.sockets import UpstreamSocket

_ID_BEGINS = frozenset(b"%c" % c for c in b'"0123456789')  # an id is a string or a number, never null or an object
ANSWER_WITHIN = 5.0  # seconds an endpoint has to take a subscription
MOST_EARLY = 256  # events that came before the answer to their subscription
MOST_GIVEN_UP = 100  # subscriptions whose answer nobody waits for, and that are ended should one come


class Refused(Exception):
    """An endpoint refused a subscription; `error` is its raw error object."""

    def __init__(self, error: bytes) -> None:
        super().__init__("the subscription was refused")
        self.error = error


class Taker(Protocol):
    """Who gets what comes of one upstream subscription."""

    def accepted(self, upstream_id: bytes) -> None:
        """The endpoint has taken the subscription; its events may be right behind this."""

    def notified(self, method: str, result: bytes) -> None:
        """An event."""

    def ended(self, why: str) -> None:
        """No more will come."""


class _Asked:
    __slots__ = ("answered", "method", "taker")

    def __init__(self, taker: Taker, answered: asyncio.Future[None]) -> None:
        self.taker = taker
        self.answered = answered


class Line:
    """See the module.  `idle_since`: since when nobody needed it, if so.

    `leaving`: what runs on it is to be moved to another; it is not opened again.
    """

    def __init__(
        self,
        endpoint_id: str,
        open_socket: Callable[[Line], UpstreamSocket],
        clock: Clock,
    ) -> None:
        self.endpoint_id = endpoint_id
        self._clock = clock
        self._ids = itertools.count(1)
        self._asked: dict[int, _Asked] = {}
        self._takers: dict[bytes, Taker] = {}
        self._early: list[Notification] = []
        self._given_up: dict[int, Subscription] = {}
        self._opened = asyncio.Event()
        self.idle_since = clock()
        self.leaving = False
        self.why_lost = ""
        self.socket = open_socket(self)

    @property
    def connected(self) -> bool:
        return self.socket.connected

    @property
    def used(self) -> bool:
        """Somebody's events come over it."""
        return bool(self._takers or self._asked)

    async def ready(self, within: float) -> bool:
        """Wait until it is connected; False when it is not, `within` seconds later."""
        if self.socket.connected:
            return True
        try:
            async with asyncio.timeout(within):
                await self._opened.wait()
        except TimeoutError:
            return False
        return True

    async def subscribe(self, subscription: Subscription, taker: Taker) -> None:
        """Subscribe.  Raises Refused, or an AttemptError, when it was not accepted."""
        number = next(self._ids)
        asked = _Asked(taker, asyncio.get_running_loop().create_future())
        self._asked[number] = asked
        sent = False
        try:
            method = b'"%b"' % subscription.method.encode()
            await self.socket.send(encode_request(method, subscription.params, number))
            sent = True
            async with asyncio.timeout(ANSWER_WITHIN):
                await asyncio.shield(asked.answered)
        except TimeoutError:
            raise AttemptTimeout("the subscription was not answered", sent=Sent.SENT) from None
        finally:
            self._asked.pop(number, None)
            if not self._asked:
                self._early.clear()
            if sent and not asked.answered.done():
                self._given_up[number] = subscription
                if len(self._given_up) > MOST_GIVEN_UP:
                    del self._given_up[next(iter(self._given_up))]
            if not asked.answered.cancel() and not asked.answered.cancelled():
                asked.answered.exception()  # seen: the socket may have been lost while the question was sent

    def unsubscribe(self, subscription: Subscription, upstream_id: bytes) -> None:
        """End a subscription; nobody waits for the answer."""
        self.idle_since = self._clock()
        if self._takers.pop(upstream_id, None) is not None:
            self._say_farewell(subscription, upstream_id)

    def _say_farewell(self, subscription: Subscription, upstream_id: bytes) -> None:
        if not self.socket.connected:
            return
        method = b'"%b"' % subscription.unsubscribe.encode()
        text = encode_request(method, b"[%b]" % upstream_id, next(self._ids))
        task = asyncio.ensure_future(self._say(text))
        _farewells.add(task)
        task.add_done_callback(_farewells.discard)

    async def _say(self, text: bytes) -> None:
        try:
            await self.socket.send(text)
        except AttemptError:
            return  # it is gone, and the subscription with it

    def leave(self) -> None:
        """What runs on it is to find another line; it is not opened again, and closed by whoever owns it."""
        self.leaving = True
        self.socket.open_no_more()

    async def close(self) -> None:
        await self.socket.close()
        self._lose("closed")

    # --- upstream.wire.sockets.SocketEvents ------------------------------------------------------------

    def opened(self, socket: UpstreamSocket) -> None:
        self._opened.set()

    def message(self, socket: UpstreamSocket, data: bytes) -> None:
        for told in read_messages(data):
            if isinstance(told, Reply):
                if told.id is not None:
                    self._answered(told.id, told)
            elif (taker := self._takers.get(told.subscription)) is not None:
                taker.notified(told.method, told.result)
            elif self._asked and len(self._early) < MOST_EARLY:
                self._early.append(told)

    def _answered(self, number: int, told: Reply) -> None:
        accepted = told.result is not None and told.result[:1] in _ID_BEGINS
        upstream_id = bytes(told.result or b"")
        given_up = self._given_up.pop(number, None)
        if given_up is not None and accepted and upstream_id not in self._takers:
            self._say_farewell(given_up, upstream_id)  # else it would push for nobody as long as the socket lives
        asked = self._asked.get(number)
        if asked is None or asked.answered.done():
            return
        if accepted:
            before = self._takers.get(upstream_id)
            self._takers[upstream_id] = asked.taker
            if before is not None:
                before.ended("id_given_twice")  # its events could not be told from those of the new one
            asked.taker.accepted(upstream_id)
            asked.answered.set_result(None)
            early, self._early = self._early, []
            for event in early:
                if event.subscription == upstream_id:
                    asked.taker.notified(event.method, event.result)
                else:
                    self._early.append(event)
        else:
            asked.answered.set_exception(Refused(bytes(told.error or b"null")))

    def closed(self, socket: UpstreamSocket, why: str) -> None:
        self._opened.clear()
        self._lose(why)

    def _lose(self, why: str) -> None:
        self.why_lost = why
        if self.used:
            self.idle_since = self._clock()
        takers, self._takers = self._takers, {}
        self._given_up.clear()
        self._early.clear()
        for asked in list(self._asked.values()):
            if not asked.answered.done():
                asked.answered.set_exception(ConnectionLost("the socket was closed", sent=Sent.SENT))
        for taker in takers.values():
            taker.ended(why)


_farewells: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected before it ran

"""The session on a caller's WebSocket: its calls, and the subscriptions that it holds.

Always true: a call on a socket goes the way of one over HTTP; a subscription's id is ours, is told
before its first event, and stays valid until the caller ends it or leaves, whatever happens upstream;
an id or an event of one socket never reaches another's subscription; a caller holds a bounded number
of subscriptions and has a bounded number of calls under way.
Does not belong here: frames (socket), where events come from (upstream/feeds).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from gateway.clock import Clock
from gateway.dialect.jsonrpc import Request, decode, encode_batch, encode_error
from gateway.dialect.notifications import encode_notice, encode_notification
from gateway.edge.access import Caller
from gateway.edge.calls import Asked, Calls, RpcRoute
from gateway.edge.observer import Observer
from gateway.edge.rpc import Ask, Table
from gateway.edge.socket import GOING_AWAY, INTERNAL, POLICY, TRY_LATER, CallerSocket, frame_of
from gateway.errors import (
    AnswerTooLarge,
    AttemptError,
    CallerError,
    GatewayError,
    TooManyConnections,
    TooManySubscriptions,
    UnknownRoute,
)
from gateway.events import Subscription
from gateway.limits import SocketLimits
from gateway.upstream.answers import Answer
from gateway.upstream.feed import Event, Feed, Missed
from gateway.upstream.feeds import Feeds
from gateway.upstream.line import Refused

HELD_AT_MOST = 10_000  # events that wait for the answer which tells their subscription's id
IDS_REMEMBERED = 1024  # shared ids that a socket had; with more, it is given none of these any more
KEEP_ALIVE = "net_version"  # what a common client asks every half minute to keep its socket open
_NO_ID = b"null"


class Streams:
    """Opens a session for each caller that asks for a WebSocket.  One per gateway."""

    def __init__(
        self,
        table: Callable[[], Table],
        calls: Calls,
        feeds: Callable[[str], Feeds],
        observer: Observer,
        clock: Clock,
        chance: Random,
        limits: SocketLimits,
        report: Callable[[BaseException], None],
        scrub: Callable[[bytes], bytes],
    ) -> None:
        """`scrub` takes secrets out of what endpoints say: some repeat the key that they refuse."""
        self.scrub = scrub
        self.table = table
        self.calls = calls
        self.feeds = feeds
        self.observer = observer
        self.clock = clock
        self.chance = chance
        self.limits = limits
        self.report = report
        self.sessions: set[Session] = set()
        self.tasks: set[asyncio.Task[None]] = set()  # calls under way, of sockets that are gone too
        self.network_versions: dict[str, bytes] = {}  # per route: what its nodes answer never changes

    def upgrade(self, scope: dict[str, Any]) -> Session:
        """The session for a request that asks to switch.  Raises CallerError for one that may not."""
        ask = Ask(scope["headers"])
        target, caller, key = ask.admitted(self.table(), scope["path"])
        caller.require(target.route.name, 0, self.clock())
        if len(self.sessions) >= self.limits.sockets:
            raise TooManyConnections("too many WebSockets are open")
        return Session(self, scope["path"], caller, key, ask.traceparent, scope["client"])

    def reloaded(self) -> None:
        """The table was replaced: sockets whose key is gone, or may not use their route any more, are closed."""
        self.network_versions.clear()
        for session in tuple(self.sessions):
            session.identify_again()

    async def close(self) -> None:
        """Give up what is still under way."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Subscriber:
    """One caller's subscription, as its feed sees it."""

    __slots__ = ("_held", "feed", "id", "is_over", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.feed: Feed | None = None
        self.id = b""  # the raw JSON that the caller was told
        self.is_over = False
        self._held: list[Event | Missed] | None = []  # until the caller has been told the id

    def told(self, event: Event) -> None:
        """An event of its feed."""
        socket = self.session.socket
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
        elif self.session.socket is not None:
            self.session.socket.push_text(encode_notice(self.id, missed.reason, missed.low, missed.high))

    def over(self) -> None:
        """The feed has told all that it ever will."""
        self.is_over = True
        self.session.subscribers.pop(self.id, None)

    def closed(self) -> None:
        """The feed is gone: the route is another one now, or was taken out of the configuration."""
        if self.session.socket is not None:
            self.session.socket.close(GOING_AWAY, "the subscription has ended with its route; connect again")

    def release(self) -> None:
        """The caller has been told the id: what has come since follows."""
        held, self._held = self._held or [], None
        for item in held:
            if isinstance(item, Event):
                self.told(item)
            else:
                self.missed(item)

    def _hold(self, item: Event | Missed) -> None:
        assert self._held is not None
        if len(self._held) < HELD_AT_MOST:
            self._held.append(item)
        elif self.session.socket is not None:
            self.session.socket.close(TRY_LATER, "too slow: the answer to the subscription could not be sent")


class Session:
    """One socket's calls and subscriptions (see `edge.socket.Handler`)."""

    __slots__ = ("_asked", "_caller", "_ids", "_joining", "_key", "_path", "_streams", "socket", "subscribers")

    def __init__(
        self,
        streams: Streams,
        path: str,
        caller: Caller,
        key: bytes | None,
        traceparent: bytes | None,
        client: tuple[str, int] | None,
    ) -> None:
        self._streams = streams
        self._path = path
        self._caller = caller
        self._key = key
        self._asked = Asked(None, traceparent, self._gone, client)
        self.socket: CallerSocket | None = None
        self.subscribers: dict[bytes, Subscriber] = {}
        self._ids: set[bytes] = set()  # the feeds' own ids that this socket was ever told
        self._joining = 0

    def _gone(self) -> bool:
        return self.socket is None

    def identify_again(self) -> None:
        """Keys have changed, perhaps this one."""
        table = self._streams.table()
        target, _ = table.find(self._path)
        if target is None or self.socket is None:
            return  # its feeds tell it that the route is gone
        try:
            self._caller = table.callers.identify(self._key)
            self._caller.require(target.route.name, 0, self._streams.clock())
        except CallerError as error:
            self._streams.observer.refused(error.reason)
            self.socket.close(POLICY, error.reason)

    # --- edge.socket.Handler ----------------------------------------------------------------------

    def opened(self, socket: CallerSocket) -> None:
        self.socket = socket
        self._streams.sessions.add(self)

    def dropped(self) -> None:
        self._streams.observer.rejected("slow_consumer")

    def closed(self) -> None:
        self.socket = None
        self._streams.sessions.discard(self)
        for subscriber in self.subscribers.values():
            if subscriber.feed is not None:
                subscriber.feed.leave(subscriber)
        self.subscribers.clear()

    def message(self, text: bytes) -> None:
        socket, streams = self.socket, self._streams
        if socket is None:
            return
        table = streams.table()
        try:
            target, _ = table.find(self._path)
            if target is None:
                raise UnknownRoute("the route is gone")
            decoded = decode(text, table.limits.batch_items, table.limits.depth)
            items = len(decoded) if isinstance(decoded, list) else 1
            self._caller.require(target.route.name, items, streams.clock())
        except CallerError as error:
            streams.observer.refused(error.reason)
            socket.send(encode_error(None, error))
            return
        socket.under_way += 1
        task = asyncio.ensure_future(self._respond(target, decoded))
        streams.tasks.add(task)
        task.add_done_callback(streams.tasks.discard)

    # --- calls ------------------------------------------------------------------------------------

    async def _respond(self, target: RpcRoute, decoded: Request | list[Request | GatewayError]) -> None:
        fresh: list[Subscriber] = []
        try:
            if isinstance(decoded, list):
                texts = await asyncio.gather(*(self._item(target, item, fresh) for item in decoded))
                wanted = [text for text in texts if text is not None]
                text = encode_batch(wanted) if wanted else None
            else:
                text = await self._one(target, decoded, fresh)
            socket = self.socket
            if socket is not None and text is not None:
                await socket.drain()
                socket.send(text)
            for subscriber in fresh:
                subscriber.release()
        except Exception as error:
            self._streams.report(error)
            if self.socket is not None:
                self.socket.close(INTERNAL, "internal error")
        finally:
            if self.socket is not None:
                self.socket.under_way -= 1

    async def _item(self, target: RpcRoute, item: Request | GatewayError, fresh: list[Subscriber]) -> bytes | None:
        if isinstance(item, GatewayError):
            return Answer(attempts=0, error=item).encode(_NO_ID)
        return await self._one(target, item, fresh)

    async def _one(self, target: RpcRoute, request: Request, fresh: list[Subscriber]) -> bytes | None:
        """One request's answer as text; None for a notification, which gets none."""
        route, method = target.route, request.method
        subscription = route.dialect.subscription(method, request.params)
        if subscription is not None:
            answer = await self._subscribe(target, request, subscription, fresh)
        elif route.dialect.ends_subscription(method):
            answer = self._unsubscribe(target, request)
        elif method == KEEP_ALIVE and route.name in self._streams.network_versions:
            answer = Answer(attempts=0, result=self._streams.network_versions[route.name])
        else:
            answer = await self._streams.calls.answer(target, request, self._asked, self._caller)
            if method == KEEP_ALIVE and answer.result is not None:
                self._streams.network_versions[route.name] = answer.result
        if answer.stream is not None:
            return await self._whole(answer, request.id)
        return answer.encode(request.id) if request.id is not None else None

    async def _whole(self, answer: Answer, caller_id: bytes | None) -> bytes | None:
        """A streamed answer as one message: a socket has other things to say in between."""
        stream = answer.stream
        assert stream is not None
        pieces, size = [], 0
        try:
            if caller_id is None:
                return None
            async for piece in stream:
                pieces.append(piece)
                size += len(piece)
                if size > self._streams.limits.answer:
                    words = f"the answer is larger than {self._streams.limits.answer} bytes; ask for it over HTTP"
                    return encode_error(caller_id, AnswerTooLarge(words))
        except AttemptError as error:
            return encode_error(caller_id, error)
        finally:
            stream.close()
        return b"".join(pieces)

    # --- subscriptions ----------------------------------------------------------------------------

    async def _subscribe(
        self, target: RpcRoute, request: Request, subscription: Subscription, fresh: list[Subscriber]
    ) -> Answer:
        streams, route = self._streams, target.route
        call = route.dialect.call(request.method, request.params, request.id)
        started_at = streams.clock()
        answer = Answer(attempts=0)
        self._joining += 1
        try:
            target.methods.require(call.method)
            if len(self.subscribers) + self._joining > streams.limits.subscriptions:
                raise TooManySubscriptions(f"a socket holds at most {streams.limits.subscriptions} subscriptions")
            subscriber = Subscriber(self)
            feed = await streams.feeds(route.name).join(subscription, subscriber)
            subscriber.feed = feed
            if self.socket is None or request.id is None:
                feed.leave(subscriber)  # nobody is there, or nobody could tell its events apart
            else:
                subscriber.id = self._new_id(feed, subscription)
                if not subscriber.is_over:  # it may be, before anybody was told its id
                    self.subscribers[subscriber.id] = subscriber
                fresh.append(subscriber)
            answer.result = subscriber.id or _NO_ID
        except Refused as refused:
            answer.rpc_error = streams.scrub(refused.error)
        except CallerError as error:
            streams.observer.refused(error.reason)
            answer.error = error
            return answer
        except GatewayError as error:
            answer.error = error
        finally:
            self._joining -= 1
        streams.observer.ended(route, call, answer, started_at, None)
        return answer

    def _unsubscribe(self, target: RpcRoute, request: Request) -> Answer:
        named = target.route.dialect.subscription_id(request.params)
        subscriber = self.subscribers.pop(named, None) if named is not None else None
        if subscriber is not None and subscriber.feed is not None:
            subscriber.feed.leave(subscriber)
        return Answer(attempts=0, result=b"true" if subscriber is not None else b"false")

    def _new_id(self, feed: Feed, subscription: Subscription) -> bytes:
        """The feed's own id, which lets one frame serve all callers; another if this socket has had that."""
        chosen = feed.id
        if chosen in self._ids or len(self._ids) >= IDS_REMEMBERED:
            return new_id(self._streams.chance, subscription.numeric)  # so long a random number that it is new
        self._ids.add(chosen)
        return chosen


def new_id(chance: Random, numeric: bool) -> bytes:
    """A subscription id as raw JSON: a number that JavaScript keeps exactly, or 128 bits in hex."""
    return b"%d" % chance.getrandbits(52) if numeric else b'"0x%032x"' % chance.getrandbits(128)

"""The session on a caller's WebSocket: its calls, and the subscriptions that it holds.

Always true: a call on a socket goes the way of one over HTTP; a subscription's id is ours, is told
before its first event, and stays valid until the caller ends it or leaves, whatever happens upstream;
an id or an event of one socket never reaches another's subscription; a caller holds a bounded number
of subscriptions and has a bounded number of calls under way.
Does not belong here: frames (socket), where events come from (upstream/feeds/subscriptions).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from gateway.clock import Clock
from gateway.dialect.jsonrpc import Request, decode, encode_batch, encode_error
from gateway.edge.access import Caller
from gateway.edge.calls import Asked, Calls, RpcRoute, never
from gateway.edge.observer import Observer
from gateway.edge.rpc import Ask, Table
from gateway.edge.socket import INTERNAL, POLICY, TRY_LATER, CallerSocket
from gateway.edge.subscriber import Subscriber
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
from gateway.upstream.calls.answers import Answer
from gateway.upstream.feeds.feed import Feed
from gateway.upstream.feeds.line import Refused
from gateway.upstream.feeds.subscriptions import Feeds

ALWAYS_TOLD = 1000  # bytes of an answer that is told however large the others of its batch are
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
        return Session(self, scope["path"], caller, key, ask.wished(never, scope["client"]))

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


class Session:
    """One socket's calls and subscriptions (see `edge.socket.Handler`)."""

    __slots__ = (
        "_asked", "_assembling", "_caller", "_ids", "_joining", "_key", "_path", "_streams", "held", "socket",
        "subscribers",
    )  # fmt: skip

    def __init__(self, streams: Streams, path: str, caller: Caller, key: bytes | None, asked: Asked) -> None:
        self._streams = streams
        self._path = path
        self._caller = caller
        self._key = key
        self._asked = asked
        asked.gone = self._gone
        self.socket: CallerSocket | None = None
        self.subscribers: dict[bytes, Subscriber] = {}
        self._assembling = asyncio.Lock()
        self.held = 0  # bytes of events whose subscription's id the caller has not been told yet
        self._ids: set[bytes] = set()  # the feeds' own ids that this socket was ever told
        self._joining = 0

    def _gone(self) -> bool:
        return self.socket is None

    def ended(self, subscriber: Subscriber) -> None:
        self.subscribers.pop(subscriber.id, None)

    def hold(self, size: int) -> None:
        """Events wait for the answer that tells their subscription's id: they count like those that were sent."""
        self.held += size
        if self.held > self._streams.limits.queue and self.socket is not None:
            self.dropped()
            self.socket.close(TRY_LATER, "too slow: the answer to a subscription could not be sent")

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
        socket.under_way += items
        task = asyncio.ensure_future(self._respond(target, decoded))
        streams.tasks.add(task)
        task.add_done_callback(streams.tasks.discard)

    # --- calls ------------------------------------------------------------------------------------

    async def _respond(self, target: RpcRoute, decoded: Request | list[Request | GatewayError]) -> None:
        fresh: list[Subscriber] = []
        try:
            if isinstance(decoded, list):
                answers = await asyncio.gather(*(self._item(target, item, fresh) for item in decoded))
                await self._tell([answer for answer in answers if answer is not None], batch=True)
            else:
                answer = await self._one(target, decoded, fresh)
                await self._tell([(answer, decoded.id)] if decoded.id is not None else [], batch=False)
            for subscriber in fresh:
                subscriber.release()
        except Exception as error:
            self._streams.report(error)
            if self.socket is not None:
                self.socket.close(INTERNAL, "internal error")
        finally:
            if self.socket is not None:
                self.socket.under_way -= len(decoded) if isinstance(decoded, list) else 1

    async def _item(
        self, target: RpcRoute, item: Request | GatewayError, fresh: list[Subscriber]
    ) -> tuple[Answer, bytes] | None:
        """An item of a batch; None for a notification."""
        if isinstance(item, GatewayError):
            return Answer(attempts=0, error=item), _NO_ID
        answer = await self._one(target, item, fresh)
        return (answer, item.id) if item.id is not None else None

    async def _one(self, target: RpcRoute, request: Request, fresh: list[Subscriber]) -> Answer:
        """One request's answer.  That of a notification, which gets none, is not to be read."""
        route, method = target.route, request.method
        subscription = route.dialect.subscription(method, request.params)
        if subscription is not None:
            return await self._subscribe(target, request, subscription, fresh)
        if route.dialect.ends_subscription(method):
            return self._unsubscribe(target, request)
        if method == KEEP_ALIVE and route.name in self._streams.network_versions:
            return Answer(attempts=0, result=self._streams.network_versions[route.name])
        answer = await self._streams.calls.answer(target, request, self._asked, self._caller)
        if method == KEEP_ALIVE and answer.result is not None and answer.result != b"null":
            self._streams.network_versions[route.name] = answer.result
        if answer.stream is not None and request.id is None:
            answer.stream.close()
        return answer

    async def _tell(self, answers: list[tuple[Answer, bytes]], *, batch: bool) -> None:
        """Send the answers as one message.  Of those that come in pieces one message at a time is put together."""
        if not answers:
            return
        if any(answer.stream is not None for answer, _ in answers):
            async with self._assembling:
                await self._send(answers, batch)
        else:
            await self._send(answers, batch)

    async def _send(self, answers: list[tuple[Answer, bytes]], batch: bool) -> None:
        left = self._streams.limits.answer
        texts = []
        try:
            for answer, caller_id in answers:
                text = await self._text(answer, caller_id, left)
                left -= len(text)
                texts.append(text)
        finally:
            for answer, _ in answers:
                if answer.stream is not None:
                    answer.stream.close()
        socket = self.socket
        if socket is not None:
            await socket.drain()
            socket.send(encode_batch(texts) if batch else texts[0])

    async def _text(self, answer: Answer, caller_id: bytes, left: int) -> bytes:
        """One answer; a streamed one in one piece, as a socket has other things to say in between.

        One that does not fit into what is `left` is an error, apart from the smallest: a subscription is told.
        """
        pieces, size = [], 0
        if answer.stream is None:
            pieces.append(answer.encode(caller_id))
            size = len(pieces[0])
        else:
            try:
                async for piece in answer.stream:
                    pieces.append(piece)
                    size += len(piece)
                    if size > left or self.socket is None:
                        break
            except AttemptError as error:
                return encode_error(caller_id, error)
        if size <= max(left, ALWAYS_TOLD):
            return b"".join(pieces)
        words = f"answers of more than {self._streams.limits.answer} bytes are not sent in one message; ask over HTTP"
        return encode_error(caller_id, AnswerTooLarge(words))

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
        try:
            target.methods.require(target.route.dialect.call(request.method, request.params, request.id).method)
        except CallerError as error:
            self._streams.observer.refused(error.reason)
            return Answer(attempts=0, error=error)
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

"""The feeds of one route: who is subscribed to what, and the lines that events come over.

Always true: equal subscriptions share one feed, where what comes does not depend on when it was asked for;
a line is opened only to what the configuration names, and closed when nobody has needed it for a while;
feeds and their callers outlive a reload.
Does not belong here: what one feed does (feeds/heads, feeds/logs, feeds/plain).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from gateway.clock import Clock
from gateway.dialect.jsonrpc import BadReply, read_reply
from gateway.errors import AttemptError, TooManySubscriptions, UnknownRoute
from gateway.events import FeedKind, Subscription
from gateway.limits import FeedSettings
from gateway.model import AttemptRecord, Endpoint, Family, HeadReport, Reason
from gateway.policy.feeds.heads import HeadFeedSettings
from gateway.policy.feeds.logs import LogFeedSettings
from gateway.upstream.calls.dispatch import Dispatcher
from gateway.upstream.calls.route import Route
from gateway.upstream.feeds.feed import Feed, Listener
from gateway.upstream.feeds.heads import HeadsFeed
from gateway.upstream.feeds.line import Line
from gateway.upstream.feeds.logs import LogsFeed
from gateway.upstream.feeds.plain import PassedFeed
from gateway.upstream.feeds.sources import LEAVES_WITHIN, OVERLAP
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.sockets import ConnectBudget, SocketTarget, UpstreamSocket

TICK = 0.05  # seconds
KEPT_FOR = 30.0  # seconds that a feed or a line without use is kept: bots come back
MOST_IDLE = 64  # of a route: who subscribes to ever other things and leaves must not fill it with feeds
ASK_WITHIN = 5.0  # seconds for one question of a feed
LONGEST_ANSWER = 64_000_000  # bytes of an answer that a feed reads
SHOWN_FEEDS = 50  # of a route, on the status page
_NOT_BELIEVED = frozenset({Reason.WRONG_CHAIN, Reason.FORKED, Reason.IMPLAUSIBLE_HEAD, Reason.DISTRUSTED})
_NEVER_A_SOURCE = _NOT_BELIEVED | {Reason.DRAINED, Reason.EXCLUDED}

Replaced = Callable[[Route, str, tuple[AttemptRecord, ...]], None]
"""Told of each source that was replaced: the route, the kind of feed, and who was lost, how, and who came."""


class Feeds:
    """See the module.  `route` may be replaced (`adopt`)."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        resolver: Resolver,
        budget: ConnectBudget,
        clock: Clock,
        chance: Random,
        replaced: Replaced,
        report: Callable[[BaseException], None],
    ) -> None:
        self._dispatcher = dispatcher
        self._resolver = resolver
        self._budget = budget
        self._clock = clock
        self._chance = chance
        self._replaced = replaced
        self._report = report
        self._route: Route | None = None
        self._targets: Mapping[str, SocketTarget] = {}
        self._settings = FeedSettings()
        self._feeds: dict[bytes, Feed] = {}
        self._heads: HeadsFeed | None = None
        self._lines: dict[str, Line] = {}
        self._leaving: dict[Line, float] = {}  # replaced or gone, and when they are closed at the latest
        self._closing: set[asyncio.Task[None]] = set()
        self._own = itertools.count()
        self._ranked: tuple[float, list[Endpoint]] = (-1.0, [])
        self._ticking: asyncio.Task[None] | None = None

    @property
    def route(self) -> Route:
        """The route as it is now.  Raises UnknownRoute when it is gone."""
        if self._route is None:
            raise UnknownRoute("the route is gone")
        return self._route

    @property
    def head_sources(self) -> list[str]:
        """The endpoints whose events feed the heads, by id."""
        return [source.endpoint.id for source in self._heads.sources.active] if self._heads is not None else []

    def snapshot(self) -> list[dict[str, Any]]:
        """What the status page shows: each feed with its callers and the endpoints that feed it."""
        return [
            {
                "feed": feed.subscription.label,
                "callers": len(feed.listeners),
                "sources": [source.endpoint.id for source in feed.sources.active],
            }
            for feed in list(self._feeds.values())[:SHOWN_FEEDS]
        ]

    def adopt(self, route: Route, targets: Mapping[str, SocketTarget], settings: FeedSettings) -> None:
        """The route was built anew; `targets` are the sockets of its endpoints, by their ids."""
        same = settings == self._settings
        before = self._route
        if before is not None:
            before.pool.on_head = None
            if (before.chain_id, type(before.dialect)) != (route.chain_id, type(route.dialect)):
                for key, feed in list(self._feeds.items()):
                    self._forget(key, feed)  # another chain: what follows would not follow from what was told
        for endpoint_id, line in list(self._lines.items()):
            if not same or targets.get(endpoint_id) != self._targets.get(endpoint_id):
                del self._lines[endpoint_id]
                self._leave(line)
        self._route, self._targets, self._settings = route, targets, settings
        self._ranked = (-1.0, [])
        if self._heads is not None:
            self._heads.sources.wanted = settings.sources
        route.pool.on_head = self._polled

    async def join(self, subscription: Subscription, listener: Listener) -> Feed:
        """Subscribe; what is told from now on reaches the listener.  Raises Refused or a GatewayError."""
        key = subscription.key if subscription.shared else b"%d %b" % (next(self._own), subscription.key)
        feed = self._feeds.get(key)
        if feed is None and len(self._feeds) >= self._settings.kinds:
            self._make_room()
        if feed is None or feed.finished:
            if feed is not None:
                feed.close()
            feed = self._feeds[key] = self._made(subscription)
        if self._ticking is None:
            self._ticking = asyncio.ensure_future(self._tick())
        feed.join(listener)
        try:
            await feed.ready(self.ask)
        except BaseException:
            feed.leave(listener)
            raise
        return feed

    def _make_room(self) -> None:
        """One that is only kept gives way; filters come from callers.  Raises TooManySubscriptions."""
        unused = next(((key, feed) for key, feed in self._feeds.items() if not feed.needed), None)
        if unused is None:
            raise TooManySubscriptions(f"a route carries at most {self._settings.kinds} different subscriptions")
        self._forget(*unused)

    async def close(self) -> None:
        """The route is gone, or the gateway stops: everybody is told."""
        if self._ticking is not None:
            self._ticking.cancel()
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()
        self._heads = None
        for line in (*self._lines.values(), *self._leaving):
            self._close(line)
        self._lines.clear()
        self._leaving.clear()
        self._route = None
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def ask(self, question: tuple[str, bytes]) -> bytes | None:
        """One plain call, on the way of any caller's; its raw result, or None."""
        method, params = question
        route = self.route
        call = route.dialect.call(method, params, b"0")
        answer = await self._dispatcher.handle(route, call, self._clock() + ASK_WITHIN)
        if answer.stream is None:
            return answer.result
        pieces, size = [], 0
        try:
            async for piece in answer.stream:
                pieces.append(piece)
                size += len(piece)
                if size > LONGEST_ANSWER:
                    return None
            result, _ = read_reply(b"".join(pieces), 0)
        except (AttemptError, BadReply):
            return None
        finally:
            answer.stream.close()
        return bytes(result) if result is not None else None

    # --- upstream.feeds.sources.Lines --------------------------------------------------------------

    @property
    def exist(self) -> bool:
        return bool(self._targets)

    def candidates(self, now: float) -> list[Endpoint]:
        """Endpoints with a WebSocket that may be used, the best first; a standby only while it is needed.

        Those that are excluded from calls, as for a key that was refused, only when there is nobody else.
        """
        if self._route is None or not self._targets:
            return []
        if now != self._ranked[0]:  # feeds look for sources at the same instants, each of them
            self._ranked = (now, self._rank(self._route.pool, now))
        return list(self._ranked[1])

    def _rank(self, pool: Pool, now: float) -> list[Endpoint]:
        ranking = pool.ranking(Family.HEAD, now, True)
        cost = {i: state.cell(Family.HEAD).load.cost(now) for i, state in enumerate(pool.states)}
        front = sorted(ranking.front, key=lambda i: (i in ranking.demoted, cost[i]))
        refused = {i: reason for i, reason, _ in ranking.refused}
        rest = [i for i in range(len(pool.endpoints)) if i not in front and refused.get(i) not in _NEVER_A_SOURCE]
        behind = set(ranking.behind)
        rest.sort(key=lambda i: (i not in behind, i in refused, cost[i]))
        found = [*front, *rest]
        excluded = [i for i in range(len(pool.endpoints)) if refused.get(i) is Reason.EXCLUDED]
        chosen = [i for i in found if self._speaks(pool, i)] or [i for i in excluded if self._speaks(pool, i)]
        return [pool.endpoints[i] for i in chosen]

    def _speaks(self, pool: Pool, position: int) -> bool:
        return pool.states[position].awake and pool.endpoints[position].id in self._targets

    def line(self, endpoint: Endpoint) -> Line:
        line = self._lines.get(endpoint.id)
        if line is None:
            line = self._lines[endpoint.id] = Line(endpoint.id, self._open, self._clock)
        line.idle_since = self._clock()  # who asks for it is about to use it
        return line

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint, while it may be a source."""
        if self._route is None or endpoint_id not in self._targets:
            return None
        pool = self._route.pool
        position = pool.position_of(endpoint_id)
        if position is None:
            return None
        state = pool.states[position]
        now = self._clock()
        reason, _ = state.refusal(Family.HEAD, now)
        endpoint = pool.endpoints[position]
        if reason is Reason.EXCLUDED:  # its calls are refused, which its socket may be spared: better than nobody
            return endpoint if endpoint in self.candidates(now) else None
        return endpoint if state.awake and reason not in _NEVER_A_SOURCE else None

    def believed(self, endpoint_id: str) -> bool:
        """Nothing is held against what it says.  One that the configuration names no more was believed until then."""
        position = self._route.pool.position_of(endpoint_id) if self._route is not None else None
        if self._route is None or position is None:
            return self._route is not None
        return self._route.pool.states[position].refusal(Family.HEAD, self._clock())[0] not in _NOT_BELIEVED

    def _open(self, line: Line) -> UpstreamSocket:
        socket = UpstreamSocket(
            line.endpoint_id,
            self._targets[line.endpoint_id],
            self._settings,
            self._resolver,
            self._budget,
            line,
            self._clock,
            self._chance,
        )
        socket.start()
        return socket

    def _leave(self, line: Line) -> None:
        """Close a line once what runs on it has moved; it is not dialled again."""
        line.leave()
        if line.connected and line.used:
            self._leaving[line] = self._clock() + LEAVES_WITHIN + OVERLAP
        else:
            self._close(line)

    def _close(self, line: Line) -> None:
        task = asyncio.ensure_future(line.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # --- feeds ------------------------------------------------------------------------------------

    def _made(self, subscription: Subscription) -> Feed:
        kind = subscription.kind
        if kind is FeedKind.HEADS:
            return self._heads_feed(subscription)
        feed_id = self._new_id(subscription)
        if kind is FeedKind.LOGS:
            return LogsFeed(
                subscription,
                feed_id,
                lambda: self.route,
                self._heads_feed(self.route.dialect.subscription("eth_subscribe", b'["newHeads"]')),
                self,
                self.ask,
                LogFeedSettings(),
                self._clock,
                lambda records: self._tell_replaced(subscription, records),
            )
        return PassedFeed(
            subscription,
            feed_id,
            lambda: self.route,
            self,
            self.ask,
            self._clock,
            lambda records: self._tell_replaced(subscription, records),
        )

    def _heads_feed(self, subscription: Subscription | None) -> HeadsFeed:
        """The one feed of heads; feeds of logs need it, too."""
        assert subscription is not None
        if self._heads is None:
            self._heads = HeadsFeed(
                subscription,
                self._new_id(subscription),
                lambda: self.route,
                self,
                self.ask,
                HeadFeedSettings(),
                self._settings.sources,
                self._clock,
                lambda records: self._tell_replaced(subscription, records),
            )
            self._feeds[subscription.key] = self._heads
        return self._heads

    def _new_id(self, subscription: Subscription) -> bytes:
        if subscription.numeric:
            return b"%d" % self._chance.getrandbits(52)  # a number that JavaScript keeps exactly
        return b'"0x%032x"' % self._chance.getrandbits(128)

    def _tell_replaced(self, subscription: Subscription, records: tuple[AttemptRecord, ...]) -> None:
        route = self.route
        route.stats.feed_failovers += 1
        self._replaced(route, subscription.label, records)

    def _polled(self, position: int, report: HeadReport) -> None:
        """An endpoint told its newest block, in a poll or in passing."""
        if self._heads is None or self._route is None:
            return
        blocks = self._route.pool.blocks
        if blocks.refusal(position, True) is None and report.number >= blocks.book.reference:
            try:
                self._heads.polled(report)
            except Exception as error:  # whoever polls must not suffer for it
                self._report(error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = self._clock()
            if self._feeds and self._route is not None:
                self._route.last_call_at = now  # somebody listens: polls must not fall asleep
            for key, feed in list(self._feeds.items()):
                try:
                    if feed.needed:
                        feed.tick(now)
                except Exception as error:
                    self._report(error)
                    self._forget(key, feed)
            self._let_go(now)
            for endpoint_id, line in list(self._lines.items()):
                if not line.used and now - line.idle_since > KEPT_FOR:
                    del self._lines[endpoint_id]
                    self._close(line)
            for line, until in list(self._leaving.items()):
                if not line.used or now >= until:
                    del self._leaving[line]
                    self._close(line)

    def _let_go(self, now: float) -> None:
        """End feeds that nobody has needed for a while, and the oldest of too many."""
        idle = [(feed.idle_since, key) for key, feed in self._feeds.items() if not feed.needed]
        idle.sort()
        for place, (since, key) in enumerate(idle):
            feed = self._feeds.get(key)  # the end of one may be that of another
            too_many = place < len(idle) - MOST_IDLE
            if feed is not None and (too_many or now - since > KEPT_FOR or not feed.subscription.shared):
                self._forget(key, feed)

    def _forget(self, key: bytes, feed: Feed) -> None:
        if self._feeds.get(key) is feed:
            del self._feeds[key]
        if feed is self._heads:
            self._heads = None
            for other_key, other in list(self._feeds.items()):
                if isinstance(other, LogsFeed):
                    self._forget(other_key, other)  # it lives on the blocks of the one that is gone
        feed.close()

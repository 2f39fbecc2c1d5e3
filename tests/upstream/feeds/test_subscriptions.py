"""The feeds of a route: shared, kept for a while, given up, and none of them harms another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any, cast

import pytest
from websockets.asyncio.server import ServerConnection, serve

from gateway.dialect.evm import EvmDialect
from gateway.drill.chain import SimulatedChain
from gateway.errors import GatewayError, NoEndpoint, TooManySubscriptions, UnknownRoute
from gateway.events import FeedKind, Subscription
from gateway.limits import FeedSettings, TransportSettings
from gateway.model import Call, Endpoint, HeadReport
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.calls.answers import Answer
from gateway.upstream.calls.dispatch import Dispatcher
from gateway.upstream.calls.route import Route
from gateway.upstream.feeds.feed import BURST, MOST_WAITING, PACE, SLICE, Event, Feed, Missed
from gateway.upstream.feeds.line import Line
from gateway.upstream.feeds.sources import LEAVES_WITHIN, OVERLAP
from gateway.upstream.feeds.subscriptions import KEPT_FOR, MOST_IDLE, TICK, Feeds
from gateway.upstream.fleet.permits import PoolSettings
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.sockets import ConnectBudget, SocketTarget
from tests.upstream.feeds.stage import Ear
from tests.virtual import here, refused_port, run

EVM = EvmDialect()


def subscription(*params: Any) -> Subscription:
    found = EVM.subscription("eth_subscribe", json.dumps(list(params)).encode())
    assert found is not None
    return found


HEADS = subscription("newHeads")
LOGS = subscription("logs", {})


class World:
    """A chain with a block each second, a route that answers from it, and its feeds.

    `missing`: blocks that nobody gives; `broken`: no call is answered.
    """

    def __init__(self, targets: dict[str, SocketTarget] | None = None) -> None:
        self.chain = SimulatedChain(chain_id=1, block_time=1.0, genesis_at=here().time() - 1000.5, seed=3)
        self.targets = targets or {}
        self.missing: set[int] = set()
        self.broken = False
        self.answer_takes = 0.01
        self.problems: list[BaseException] = []
        self.calls: list[str] = []
        self.feeds = Feeds(
            cast(Dispatcher, self),
            Resolver(here().time),
            ConnectBudget(here().time),
            here().time,
            Random(5),
            lambda route, label, records: None,
            self.problems.append,
        )
        self.route = self.built(2)
        self.adopt(self.route)
        self._poller = asyncio.ensure_future(self._poll())

    def built(self, count: int, chain_id: int = 1) -> Route:
        endpoints = [Endpoint(f"e{i}", "r", f"p{i}") for i in range(count)]
        pool = Pool("r", endpoints, PoolSettings(), here().time, Random(1), block_time=1.0)
        return Route("r", pool, (), EVM, TransportSettings(), RouteStats(), chain_id=chain_id)

    def adopt(self, route: Route, settings: FeedSettings | None = None) -> None:
        self.route = route
        self.feeds.adopt(route, self.targets, settings or FeedSettings())

    @property
    def head(self) -> int:
        return self.chain.head(here().time())

    async def handle(self, route: Route, call: Call, deadline_at: float) -> Answer:
        """What a dispatcher does."""
        self.calls.append(call.method.name)
        await asyncio.sleep(self.answer_takes)
        params = json.loads(call.params)
        result: Any = None
        if self.broken:
            return Answer(attempts=1, error=NoEndpoint("nobody answers"))
        if call.method.name == "eth_getBlockByNumber":
            number = self.head if params[0] == "latest" else int(params[0], 16)
            result = self.chain.block(number) if number <= self.head and number not in self.missing else None
        elif call.method.name == "eth_getBlockByHash":
            found = self.chain.number_of(params[0])
            result = self.chain.block(found) if found is not None and found not in self.missing else None
        elif call.method.name == "eth_getLogs":
            asked = params[0]
            known = self.chain.number_of(asked["blockHash"]) if "blockHash" in asked else int(asked["fromBlock"], 16)
            assert known is not None
            result = self.chain.logs(known, known if "blockHash" in asked else int(asked["toBlock"], 16))
        return Answer(attempts=1, result=json.dumps(result).encode())

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(0.3)
            block = self.chain.block(self.head)
            report = HeadReport(self.head, block["hash"], block["parentHash"], int(block["timestamp"], 16))
            if not self.broken:
                self.route.pool.note_head(0, report, here().time())

    async def end(self) -> None:
        self._poller.cancel()
        await self.feeds.close()

    @property
    def open(self) -> list[str]:
        return [row["feed"] for row in self.feeds.snapshot()]


def world(story: Callable[[World], Awaitable[None]], **how: Any) -> None:
    async def play() -> None:
        made = World(**how)
        try:
            await story(made)
        finally:
            await made.end()

    run(play())


def numbers(ear: Ear) -> list[int]:
    return [int(json.loads(event)["number"], 16) for event in ear.events]


# --- shared, kept, given up -------------------------------------------------------------------------


def test_more_different_subscriptions_than_allowed_are_refused_and_one_that_nobody_needs_gives_way() -> None:
    async def story(w: World) -> None:
        w.adopt(w.route, FeedSettings(kinds=4))
        ears = [Ear() for _ in range(3)]
        feeds = [
            await w.feeds.join(subscription("logs", {"address": "0x" + f"{n:040x}"}), ear) for n, ear in enumerate(ears)
        ]
        one_more = subscription("logs", {"address": "0x" + "ff" * 20})
        with pytest.raises(TooManySubscriptions):
            await w.feeds.join(one_more, Ear())
        assert await w.feeds.join(subscription("logs", {"address": "0x" + f"{1:040x}"}), Ear()) is feeds[1]
        feeds[0].leave(ears[0])
        await w.feeds.join(one_more, Ear())
        assert len(w.feeds.snapshot()) == 4  # with the heads, on which logs live

    world(story)


def test_a_feed_without_listeners_is_kept_for_a_while_and_then_closed() -> None:
    async def story(w: World) -> None:
        ear = Ear()
        feed = await w.feeds.join(HEADS, ear)
        await asyncio.sleep(3)
        feed.leave(ear)
        await asyncio.sleep(KEPT_FOR - 2)
        again = Ear()
        assert await w.feeds.join(HEADS, again) is feed  # bots come back
        await asyncio.sleep(KEPT_FOR + 5)
        assert w.open == ["newHeads"]
        feed.leave(again)
        await asyncio.sleep(KEPT_FOR + 1)
        assert not w.open
        asked = len(w.calls)
        await asyncio.sleep(60)
        assert len(w.calls) == asked  # nobody listens: nothing is asked

    world(story)


def test_what_subscribers_were_told_of_the_head_is_what_callers_have_seen() -> None:
    async def story(w: World) -> None:
        ear = Ear()
        await w.feeds.join(HEADS, ear)
        assert w.route.pool.blocks.served == -1
        await asyncio.sleep(5)
        assert w.route.pool.blocks.served == numbers(ear)[-1]
        w.route.pool.blocks.told(10**9)
        assert w.route.pool.blocks.served == numbers(ear)[-1], "no block that nobody else has"

    world(story)


def test_who_subscribes_to_ever_other_things_and_leaves_keeps_few_feeds_alive() -> None:
    """Each would be told every block, and might fetch logs for nobody."""

    async def story(w: World) -> None:
        stays, leaves = Ear(), Ear()
        await w.feeds.join(subscription("logs", {"address": "0x" + "ff" * 20}), stays)
        for number in range(3 * MOST_IDLE):
            feed = await w.feeds.join(subscription("logs", {"address": f"0x{number:040x}"}), leaves)
            feed.leave(leaves)
        await asyncio.sleep(3 * TICK)
        assert len(w.feeds._feeds) == 2 + MOST_IDLE  # the heads, too
        newest = await w.feeds.join(subscription("logs", {"address": f"0x{3 * MOST_IDLE - 1:040x}"}), leaves)
        assert newest is feed
        newest.leave(leaves)
        await asyncio.sleep(KEPT_FOR + 1)
        assert w.open == ["newHeads", "logs"]

    world(story)


def test_what_may_begin_with_a_state_or_with_the_past_is_each_callers_own() -> None:
    """Who joins later would never be told how it stands, or what was before."""

    async def story() -> None:
        w = World(nowhere())
        unknown = subscription("somethingNew")
        known = subscription("newPendingTransactions")
        assert (unknown.shared, known.shared) == (False, True)
        joining = [asyncio.ensure_future(w.feeds.join(what, Ear())) for what in (unknown, unknown, known, known)]
        await asyncio.sleep(0.1)
        assert sorted(w.open) == ["newPendingTransactions", "other", "other"]
        await asyncio.gather(*joining, return_exceptions=True)  # nobody takes them
        await asyncio.sleep(2 * TICK)
        assert w.open == ["newPendingTransactions"]  # what nobody can come back to is not kept
        await w.end()

    run(story())


def test_heads_live_as_long_as_logs_need_them_and_a_while_longer() -> None:
    async def story(w: World) -> None:
        ear = Ear()
        logs = await w.feeds.join(LOGS, ear)
        await asyncio.sleep(2 * KEPT_FOR)
        assert sorted(w.open) == ["logs", "newHeads"]
        assert ear.events
        logs.leave(ear)
        await asyncio.sleep(KEPT_FOR + 1)
        assert w.open == ["newHeads"]
        await asyncio.sleep(KEPT_FOR + 1)
        assert not w.open

    world(story)


def test_who_joins_logs_in_the_moment_in_which_idle_heads_end_is_served() -> None:
    async def story(w: World) -> None:
        w.broken = True  # no tip: joining takes its time
        first = Ear()
        heads = await w.feeds.join(HEADS, first)
        heads.leave(first)
        await asyncio.sleep(KEPT_FOR - 0.5)
        ear = Ear()
        joining = asyncio.ensure_future(w.feeds.join(LOGS, ear))
        await asyncio.sleep(2)
        w.broken = False
        await joining
        await asyncio.sleep(5)
        assert "closed" not in ear.heard
        assert ear.events

    world(story)


def test_listeners_are_told_what_comes_after_they_joined_from_the_first_block_on() -> None:
    async def story(w: World) -> None:
        ears: list[tuple[int, Ear]] = []
        for _ in range(6):
            ear = Ear()
            await w.feeds.join(HEADS, ear)
            ears.append((w.head, ear))
            await asyncio.sleep(1.7)
        await asyncio.sleep(3)
        for since, ear in ears:
            told = numbers(ear)
            assert told == list(range(told[0], told[0] + len(told)))
            assert since <= told[0] <= since + 1

    world(story)


# --- what cannot be made good -----------------------------------------------------------------------


def test_a_block_that_nobody_gives_for_half_a_minute_is_told_as_a_gap() -> None:
    async def story(w: World) -> None:
        ear, logs = Ear(), Ear()
        await w.feeds.join(HEADS, ear)
        await w.feeds.join(LOGS, logs)
        gone = w.head + 3
        w.missing = {gone}
        await asyncio.sleep(25)
        assert not ear.reasons
        await asyncio.sleep(20)
        missed = [item for item in ear.heard if isinstance(item, Missed)]
        assert [(m.low, m.high) for m in missed] == [(gone, gone)]
        told = numbers(ear)
        assert told == [n for n in range(told[0], told[-1] + 1) if n != gone]
        assert told[-1] >= w.head - 2
        assert [(m.low, m.high) for m in logs.heard if isinstance(m, Missed)] == [(gone, gone)]
        of_logs = [int(json.loads(event)["blockNumber"], 16) for event in logs.events]
        assert of_logs == sorted(of_logs)
        assert max(of_logs) >= w.head - 2

    world(story)


def test_a_gap_counts_once_however_often_it_is_asked_for() -> None:
    async def story() -> None:
        w = World(nowhere())
        ear = Ear()
        await w.feeds.join(HEADS, ear)
        assert w.route.stats.gaps_found == 0, "where it begins is no gap"
        gone = w.head + 3
        w.missing = {gone}
        while not ear.events or numbers(ear)[-1] < gone - 1:
            await asyncio.sleep(0.1)
        found, asked = w.route.stats.gaps_found, len(w.calls)
        await asyncio.sleep(20)
        assert len(w.calls) - asked > 5
        assert w.route.stats.gaps_found == found + 1
        w.missing = set()
        await asyncio.sleep(5)
        told = numbers(ear)
        assert told == list(range(told[0], told[-1] + 1))
        assert w.route.stats.gaps_found > found + 1, "what is missed later is another gap"
        await w.end()

    run(story())


def test_a_route_that_answers_nothing_for_long_is_made_up_for_when_it_does() -> None:
    async def story(w: World) -> None:
        ear = Ear()
        await w.feeds.join(HEADS, ear)
        await asyncio.sleep(3)
        w.broken = True
        await asyncio.sleep(100)
        w.broken = False
        await asyncio.sleep(10)
        told = numbers(ear)
        assert told == list(range(told[0], told[-1] + 1))
        assert told[-1] >= w.head - 1
        assert not ear.reasons

    world(story)


# --- reloads ----------------------------------------------------------------------------------------


def test_heads_of_a_pool_that_was_replaced_reach_nobody() -> None:
    async def story(w: World) -> None:
        ear = Ear()
        await w.feeds.join(HEADS, ear)
        await asyncio.sleep(2)
        old = w.route.pool
        w.adopt(w.built(1))
        report = HeadReport(w.head + 1, "0x" + "ab" * 32, "0x" + "cd" * 32, 0)
        old.note_head(1, report, here().time())  # a poll that was under way; the new pool has no such endpoint
        await asyncio.sleep(3)
        told = numbers(ear)
        assert told == list(range(told[0], told[-1] + 1))
        assert told[-1] >= w.head - 1

    world(story)


def test_a_route_that_becomes_another_chain_ends_its_feeds_and_the_same_chain_does_not() -> None:
    async def story(w: World) -> None:
        ear = Ear()
        await w.feeds.join(HEADS, ear)
        w.adopt(w.built(3))
        assert "closed" not in ear.heard
        w.adopt(w.built(3, chain_id=2))
        assert ear.heard[-1] == "closed"
        assert not w.open
        again = Ear()
        await w.feeds.join(HEADS, again)
        await asyncio.sleep(3)
        assert again.events

    world(story)


def test_who_is_joining_while_the_route_goes_is_told_so_and_nothing_is_left() -> None:
    async def story(w: World) -> None:
        w.answer_takes = 2.0
        ear = Ear()
        joining = [asyncio.ensure_future(w.feeds.join(wanted, ear)) for wanted in (HEADS, LOGS)]
        await asyncio.sleep(1)
        await w.feeds.close()
        ends = await asyncio.gather(*joining, return_exceptions=True)
        assert ear.heard or all(isinstance(end, GatewayError) for end in ends)
        assert "closed" in ear.heard
        with pytest.raises(UnknownRoute):
            await w.feeds.join(HEADS, Ear())

    world(story)


# --- one does not harm another ----------------------------------------------------------------------


class Broken(Feed):
    """A feed that fails whenever it is looked at."""

    def tick(self, now: float) -> None:
        raise RuntimeError("a bug")


class Nothing:
    """The sources of a feed that has none."""

    active: tuple[()] = ()


def test_a_feed_that_fails_is_reported_and_closed_and_the_others_go_on() -> None:
    async def story(w: World) -> None:
        ear, victim = Ear(), Ear()
        await w.feeds.join(HEADS, ear)
        other = Subscription(FeedKind.PLAIN, b"other", "x", b"[]", "y", "z")
        broken = Broken(other, b"1", w.route.stats, here().time)
        broken.sources = cast(Any, Nothing())
        broken.join(victim)
        w.feeds._feeds[other.key] = broken
        await asyncio.sleep(5)
        assert [str(problem) for problem in w.problems] == ["a bug"]
        assert victim.heard == ["closed"]
        assert w.open == ["newHeads"]
        assert len(ear.events) >= 4

    world(story)


class Deaf(Ear):
    """A listener that fails."""

    def told(self, event: Event) -> None:
        raise RuntimeError("deaf")


@pytest.mark.parametrize("count", [3, 3 * SLICE])
def test_a_listener_that_fails_costs_nobody_else_an_event(count: int) -> None:
    async def story() -> None:
        problems: list[str] = []
        here().set_exception_handler(lambda _, context: problems.append(str(context["exception"])))
        feed = Feed(HEADS, b"1", RouteStats(), here().time)
        deaf = Deaf()
        ears = [Ear() for _ in range(count)]
        for place, ear in enumerate(ears):
            if place == 1:
                feed.join(deaf)
            feed.join(ear)
        for n in range(5):
            feed.tell(Event("m", b"%d" % n))
        await asyncio.sleep(1)
        assert all(ear.events == [b"0", b"1", b"2", b"3", b"4"] for ear in ears)
        assert problems == ["deaf"]
        assert deaf.heard == ["closed"]
        assert feed.stats.subscriptions == count

    run(story())


# --- bounded ----------------------------------------------------------------------------------------


def test_a_filled_gap_is_told_at_a_pace_and_in_order_and_what_is_new_comes_behind_it() -> None:
    async def story() -> None:
        feed, ear = Feed(HEADS, b"1", RouteStats(), here().time), Ear()
        feed.join(ear)
        began = here().time()
        for n in range(2000):
            feed.tell(Event("m", b"%d" % n + b" " * 2000))
        while len(ear.heard) < 2000:
            await asyncio.sleep(0.01)
            told = sum(map(len, ear.events))
            assert told <= BURST + (here().time() - began) * PACE + 5000
        assert [int(event) for event in ear.events] == list(range(2000))
        assert here().time() - began < 2.0
        feed.tell(Event("m", b"2000"))
        await asyncio.sleep(1)
        assert int(ear.events[-1]) == 2000

    run(story())


def test_what_waits_to_be_told_is_bounded_whatever_comes() -> None:
    async def story() -> None:
        feed, ear = Feed(HEADS, b"1", RouteStats(), here().time), Ear()
        feed.join(ear)
        piece = b" " * 1_000_000
        for n in range(200):  # 200 MB within a second
            feed.tell(Event("m", piece))
            await asyncio.sleep(0.005)
            assert (n + 1 - len(ear.heard)) * len(piece) <= MOST_WAITING + 2 * len(piece)
        await asyncio.sleep(60)
        assert len(ear.heard) == 200

    run(story())


def test_a_long_queue_for_many_listeners_names_them_once() -> None:
    async def story() -> None:
        feed = Feed(HEADS, b"1", RouteStats(), here().time)
        ears = [Ear() for _ in range(4 * SLICE)]
        for ear in ears:
            feed.join(ear)
        for n in range(1000):
            feed.tell(Event("m", b"%d" % n))
        assert len({id(listeners) for listeners, _ in feed._waiting}) == 1
        await asyncio.sleep(1)
        assert all(len(ear.heard) == 1000 for ear in ears)

    run(story())


# --- lines ------------------------------------------------------------------------------------------


def nowhere() -> dict[str, SocketTarget]:
    port = refused_port()
    return {f"e{i}": SocketTarget(f"ws://127.0.0.1:{port}/{i}", "127.0.0.1", port, user_agent="x") for i in range(2)}


def lines(w: World) -> dict[str, Line]:
    return w.feeds._lines


def test_lines_that_never_come_up_are_closed_with_their_feed_and_heads_come_all_the_same() -> None:
    async def story() -> None:
        w = World(nowhere())
        ear = Ear()
        feed = await w.feeds.join(HEADS, ear)
        await asyncio.sleep(10)
        assert lines(w)
        assert len(ear.events) >= 8
        feed.leave(ear)
        await asyncio.sleep(2 * KEPT_FOR + 65)
        assert not lines(w)
        await w.end()

    run(story())


def test_a_line_that_is_idle_is_closed_and_one_just_asked_for_is_not() -> None:
    async def story() -> None:
        w = World(nowhere())
        await w.feeds.join(subscription("newHeads"), Ear())
        line = w.feeds.line(w.route.pool.endpoints[1])
        await asyncio.sleep(KEPT_FOR - 1)
        line.idle_since = here().time() - KEPT_FOR - 1  # as if nobody had used it meanwhile
        assert w.feeds.line(w.route.pool.endpoints[1]) is line
        await asyncio.sleep(3 * TICK)
        assert lines(w).get("e1") is line
        await w.end()

    run(story())


def test_another_target_at_a_reload_means_another_line() -> None:
    async def story() -> None:
        w = World(nowhere())
        endpoint = w.route.pool.endpoints[0]
        line = w.feeds.line(endpoint)
        w.adopt(w.built(2))
        assert w.feeds.line(endpoint) is line
        w.targets = nowhere()
        w.adopt(w.built(2))
        assert w.feeds.line(endpoint) is not line
        await w.end()

    run(story())


# --- what a reload takes away while it works ----------------------------------------------------------


class Node:
    """A WebSocket endpoint that takes subscriptions to pending transactions, after a while, and tells of them."""

    def __init__(self) -> None:
        self.port = 0
        self.takes_after = 0.0
        self.connections: list[ServerConnection] = []
        self.opened = 0

    @property
    def target(self) -> SocketTarget:
        return SocketTarget(f"ws://127.0.0.1:{self.port}/", "127.0.0.1", self.port, user_agent="x")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Node]:
        quiet = logging.getLogger("tests.node")
        quiet.disabled = True
        async with serve(self._serve, "127.0.0.1", 0, ping_interval=None, compression=None, logger=quiet) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, connection: ServerConnection) -> None:
        self.opened += 1
        self.connections.append(connection)
        try:
            async for message in connection:
                asked = json.loads(message)
                if asked["method"] == "eth_subscribe":
                    await asyncio.sleep(self.takes_after)
                    await connection.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": "0x1"}))
        finally:
            self.connections.remove(connection)

    async def tell(self, number: int) -> None:
        event = {"subscription": "0x1", "result": f"0x{number:064x}"}
        text = json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": event})
        for connection in self.connections:
            await connection.send(text)


async def passes(seconds: float) -> None:
    """Virtual time, in steps that leave loopback its turn."""
    until = here().time() + seconds
    while here().time() < until:
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("other_socket", [False, True])
def test_a_reload_that_takes_a_socket_away_opens_the_next_one_first_and_dials_the_old_one_no_more(
    other_socket: bool,
) -> None:
    """Gone from the configuration, or at another address from now on."""

    async def story() -> None:
        async with Node().running() as old, Node().running() as new:
            w = World({"e0": old.target})
            ear = Ear()
            await w.feeds.join(subscription("newPendingTransactions"), ear)
            await old.tell(1)
            await passes(0.1)
            w.targets = {"e0" if other_socket else "e1": new.target}
            w.adopt(w.built(2))
            await old.tell(2)
            while not new.connections:
                await passes(0.05)
            await passes(0.3)
            await old.tell(3)
            await new.tell(3)
            await old.tell(4)
            await new.tell(5)
            await passes(OVERLAP + 0.5)
            assert not old.connections, "it is closed when nobody needs it any more"
            await new.tell(6)
            await passes(30)
            assert [int(json.loads(event), 16) for event in ear.events] == [1, 2, 3, 4, 5, 6]
            assert not ear.reasons
            assert (old.opened, new.opened) == (1, 1)
            await w.end()

    run(story())


def test_a_socket_that_a_reload_took_away_is_closed_although_nobody_can_succeed_it() -> None:
    async def story() -> None:
        async with Node().running() as old:
            w = World({"e0": old.target})
            ear = Ear()
            await w.feeds.join(subscription("newPendingTransactions"), ear)
            w.targets = {}
            w.adopt(w.built(1))
            await passes(1)
            assert old.connections
            await passes(LEAVES_WITHIN + 1)
            assert not old.connections
            await passes(60)
            assert old.opened == 1
            assert ear.reasons == ["no_endpoint"]
            await w.end()

    run(story())


@pytest.mark.parametrize("wrong", [True, False])
def test_what_an_endpoint_of_another_chain_says_is_not_heard_while_the_next_one_is_sought(wrong: bool) -> None:
    """What a drained one says is."""

    async def story() -> None:
        async with Node().running() as old, Node().running() as new:
            w = World({"e0": old.target, "e1": new.target})
            new.takes_after = 1.0
            ear = Ear()
            feed = await w.feeds.join(subscription("newPendingTransactions"), ear)
            assert [source.endpoint.id for source in feed.sources.active] == ["e0"]
            await old.tell(1)
            await passes(0.1)
            state = w.route.pool.states[0]
            if wrong:
                state.chain_ok = False
            else:
                state.drained_at = here().time()
            await passes(2 * TICK)
            await old.tell(2)
            await passes(3)
            await new.tell(3)
            await passes(0.1)
            assert [int(json.loads(event), 16) for event in ear.events] == ([1, 3] if wrong else [1, 2, 3])
            assert ear.reasons == (["endpoint_changed"] if wrong else [])
            await w.end()

    run(story())

"""Hosts of streams: who stands in for whom, and how often one address may connect."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Sequence
from typing import NoReturn

import pytest

from gateway.dialect.venue import venue_named
from gateway.dialect.venue_facts import Rate
from gateway.limits import FeedSettings
from gateway.upstream.venues.streams import NoStream, StreamHost, VenueStreams
from gateway.upstream.venues.topic import Message
from gateway.upstream.wire.outbound import Outbound
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.sockets import ConnectBudget, socket_target
from gateway.venue_routes import build_shared
from tests.virtual import here, refused_port, run


def host(url: str, paths: tuple[str, ...] = (), private: tuple[str, ...] = (), speaks: str = "") -> StreamHost:
    target = socket_target(Outbound(url=url, ws=url, forwards=True))
    assert target is not None
    return StreamHost(url, target, paths, private, (url.partition("//")[2],), speaks)


def streams(hosts: Sequence[StreamHost], rate: Rate | None = None, most_open: int | None = None) -> VenueStreams:
    clock = here().time
    budget = ConnectBudget(clock, 1e6, 1e6)
    return VenueStreams(hosts, Resolver(clock), budget, clock, random.Random(1), FeedSettings(), rate, most_open)


def of_catalogue(name: str) -> VenueStreams:
    venue = venue_named(name)
    assert venue is not None
    assert venue.streams is not None
    return streams([host(f"wss://{h.host}", h.paths, h.private, h.speaks) for h in venue.streams.hosts])


def named(hosts: Sequence[StreamHost]) -> set[str]:
    return {host.names[0] for host in hosts}


@pytest.mark.parametrize(
    ("venue", "path", "name", "expected"),
    [
        ("kraken", "/v2", "", {"ws.kraken.com"}),
        ("kraken", "/v2", "ws-auth.kraken.com", {"ws-auth.kraken.com"}),
        ("coinbase_advanced", "/", "", {"advanced-trade-ws.coinbase.com"}),
        ("coinbase_exchange", "/", "", {"ws-feed.exchange.coinbase.com"}),
        ("kucoin", "/", "", {"ws-api-spot.kucoin.com"}),
        ("kucoin", "/", "x-push-spot.kucoin.com", {"x-push-spot.kucoin.com"}),
        ("mexc", "/ws", "", {"wbs-api.mexc.com"}),
        ("binance", "/ws", "", {"stream.binance.com:9443", "stream.binance.com", "data-stream.binance.vision"}),
        ("binance", "/ws-api/v3", "", {"ws-api.binance.com"}),
        ("gemini", "/v1/marketdata/btcusd", "", {"api.gemini.com"}),
    ],
)
def test_only_hosts_that_speak_the_same_stand_in_for_each_other(
    venue: str, path: str, name: str, expected: set[str]
) -> None:
    async def story() -> None:
        assert named(of_catalogue(venue).candidates(path, name)) == expected

    run(story())


@pytest.mark.parametrize(
    ("venue", "name", "speaks"),
    [
        ("kucoin", "", None),  # behind a token, which may be that of an account
        ("kucoin", "x-push-spot.kucoin.com", "uta"),
        ("coinbase_exchange", "", ""),
        ("coinbase_exchange", "ws-direct.exchange.coinbase.com", None),
        ("kraken", "ws-auth.kraken.com", None),
    ],
)
def test_what_belongs_to_one_caller_is_not_what_all_may_hear(venue: str, name: str, speaks: str | None) -> None:
    async def story() -> None:
        assert of_catalogue(venue).spoken("/", name) == speaks

    run(story())


class Reluctant:
    """Hosts that give nobody a stream, and note which of them was meant."""

    def __init__(self, streams: VenueStreams, asked: list[str]) -> None:
        self.hosts = streams.hosts
        self.asked = asked

    async def connect(self, target: str, headers: object, name: str, apart: object) -> NoReturn:
        self.asked.append(name)
        await asyncio.sleep(0.2)
        raise NoStream("connect_failed")


class Quiet:
    """A caller that nothing is told."""

    def told(self, message: Message) -> None:
        raise AssertionError

    def lost(self, topic: str) -> None:
        raise AssertionError

    def refused(self, topic: str, data: bytes) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("venue", "key", "name"),
    [
        ("kucoin", '{"channel":"ticker","symbol":"BTC-USDT","tradeType":"SPOT"}', "x-push-spot.kucoin.com"),
        ("coinbase_exchange", '{"channels":["ticker"],"product_ids":["BTC-USD"]}', "ws-feed.exchange.coinbase.com"),
    ],
)
def test_shared_lines_go_to_a_host_that_speaks_as_they_do(venue: str, key: str, name: str) -> None:
    async def story() -> None:
        catalogue, own = venue_named(venue), of_catalogue(venue)
        assert catalogue is not None
        asked: list[str] = []
        (shared,) = build_shared(catalogue, Reluctant(own, asked))  # type: ignore[arg-type]
        assert shared.join(key, Quiet())
        await asyncio.sleep(0.5)
        assert asked == [name]
        assert own.spoken("/", name) == shared.messages.sharing.speaks

    run(story())


def test_an_address_connects_no_more_often_than_the_exchange_allows() -> None:
    async def story() -> None:
        port = refused_port()
        venue = streams([host(f"ws://127.0.0.1:{port}")], Rate(10, 60))
        tried_at: list[float] = []
        for _ in range(200):
            failures = venue.failures
            with pytest.raises(NoStream):
                await venue.connect("/x", ())
            if venue.failures > failures:
                tried_at.append(here().time())
            await asyncio.sleep(0.5)
        assert len(tried_at) > 12
        for at in tried_at:
            assert sum(at <= other < at + 60 for other in tried_at) <= 10

    run(story())


def test_who_gets_no_turn_to_connect_is_told_at_once() -> None:
    async def story() -> None:
        venue = streams([host(f"ws://127.0.0.1:{refused_port()}")], Rate(2, 600))
        with pytest.raises(NoStream) as first:
            await venue.connect("/x", ())
        began = here().time()
        with pytest.raises(NoStream) as second:
            await venue.connect("/x", ())
        assert (first.value.why, second.value.why) == ("connect_failed", "connects_too_often")
        assert here().time() - began < 0.1

    run(story())


def test_no_more_streams_are_open_than_the_exchange_allows() -> None:
    async def story() -> None:
        one = host(f"ws://127.0.0.1:{refused_port()}")
        one.open = 3
        with pytest.raises(NoStream) as refused:
            await streams([one], most_open=3).connect("/x", ())
        assert refused.value.why == "too_many_open"

    run(story())


def test_a_host_that_hangs_leaves_time_for_the_others() -> None:
    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:  # takes the connection and says nothing
            hanging = host(f"ws://127.0.0.1:{listening.getsockname()[1]}")
            dead = host(f"ws://127.0.0.1:{refused_port()}")
            dead.open = 1  # comes second
            venue = streams([hanging, dead])
            with pytest.raises(NoStream):
                await venue.connect("/x", ())
            assert (hanging.last_failure, dead.last_failure) == ("connect_timeout", "connect_failed")

    run(story())

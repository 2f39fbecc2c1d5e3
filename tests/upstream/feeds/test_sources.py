"""The sources of a feed: kept up, far apart, replaced at once, and never a storm."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import ConnectionLost
from gateway.events import FeedKind, Subscription
from gateway.model import AttemptRecord, Endpoint, Sent
from gateway.upstream.feeds.line import Refused, Taker
from gateway.upstream.feeds.sources import ALONE_FIRST, LEAVES_WITHIN, OVERLAP, SLOW_AFTER, Source, Sources
from tests.virtual import here, run

HEADS = Subscription(FeedKind.HEADS, b"heads", "eth_subscribe", b'["newHeads"]', "eth_unsubscribe", "eth_subscription")


class FakeLine:
    """An endpoint's line that does as it is told."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.up = True
        self.leaving = False
        self.refuses = b""
        self.tries = 0
        self.takes = 0.01
        self.takers: list[Taker] = []
        self.ended: list[bytes] = []

    async def ready(self, within: float) -> bool:
        if not self.up:
            await asyncio.sleep(within)
        return self.up

    async def subscribe(self, subscription: Subscription, taker: Taker) -> None:
        self.tries += 1
        await asyncio.sleep(self.takes)
        if self.refuses:
            raise Refused(self.refuses)
        if not self.up:
            raise ConnectionLost("gone", sent=Sent.SENT)
        self.takers.append(taker)
        taker.accepted(b"%d" % self.tries)
        taker.notified("eth_subscription", b"right behind")

    def unsubscribe(self, subscription: Subscription, upstream_id: bytes) -> None:
        self.ended.append(upstream_id)

    def die(self, why: str = "reset") -> None:
        self.up = False
        takers, self.takers = self.takers, []
        for taker in takers:
            taker.ended(why)


class Place:
    """A route's endpoints, and what its feed was told."""

    def __init__(self, clouds: list[str], wanted: int = 2) -> None:
        self.endpoints = [
            Endpoint(f"e{i}", "r", f"p{i}", domains=(("cloud", cloud),)) for i, cloud in enumerate(clouds)
        ]
        self.lines = {endpoint.id: FakeLine(endpoint) for endpoint in self.endpoints}
        self.unfit: set[str] = set()
        self.lies: set[str] = set()
        self.joined: list[int] = []
        self.left: list[tuple[int, str]] = []
        self.told: list[tuple[int, bytes]] = []
        self.replaced: list[tuple[AttemptRecord, ...]] = []
        self.sources = Sources(
            self,  # type: ignore[arg-type]
            HEADS,
            wanted,
            here().time,
            joined=self.joined.append,
            left=lambda number, why: self.left.append((number, why)),
            told=lambda source, method, result: self.told.append((source.number, result)),
            replaced=self.replaced.append,
        )

    def candidates(self, now: float) -> list[Endpoint]:
        return [endpoint for endpoint in self.endpoints if endpoint.id not in self.unfit]

    def line(self, endpoint: Endpoint) -> FakeLine:
        return self.lines[endpoint.id]

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        found = next(e for e in self.endpoints if e.id == endpoint_id)
        return found if found.id not in self.unfit else None

    def believed(self, endpoint_id: str) -> bool:
        return endpoint_id not in self.lies

    @property
    def active(self) -> list[str]:
        return sorted(source.endpoint.id for source in self.sources.active)

    async def pass_time(self, seconds: float) -> None:
        until = here().time() + seconds
        while here().time() < until:
            self.sources.tend(here().time())
            await asyncio.sleep(0.05)


def test_two_sources_are_taken_in_different_domains() -> None:
    async def story() -> None:
        place = Place(["aws", "aws", "hetzner"])
        assert await place.sources.settled(5)
        await place.pass_time(0.5)
        assert place.active == ["e0", "e2"]
        place.sources.close()

    run(story())


def test_an_event_right_behind_the_acceptance_comes_after_the_source_has_joined() -> None:
    async def story() -> None:
        place = Place(["aws"], wanted=1)
        seen: list[str] = []
        place.sources._joined = lambda number: seen.append(f"joined {number}")
        place.sources._told = lambda source, method, result: seen.append(f"told {source.number}")
        assert await place.sources.settled(5)
        assert seen == ["joined 1", "told 1"]
        place.sources.close()

    run(story())


def test_a_lost_source_is_replaced_at_once_and_elsewhere_first_and_leaves_one_trace() -> None:
    async def story() -> None:
        place = Place(["aws", "aws", "hetzner", "ovh"], wanted=1)
        assert await place.sources.settled(5)
        assert place.active == ["e0"]
        at = here().time()
        place.lines["e0"].die()
        while not place.active:
            await asyncio.sleep(0.001)
        assert here().time() - at < 0.05
        assert place.active == ["e2"]
        (records,) = place.replaced
        assert [(record.endpoint, record.ended) for record in records] == [("e0", "reset"), ("e2", "answer")]
        place.sources.close()

    run(story())


def test_an_endpoint_that_keeps_failing_is_left_alone_ever_longer() -> None:
    async def story() -> None:
        place = Place(["aws"], wanted=1)
        place.lines["e0"].refuses = b'{"code":-32601}'
        assert not await place.sources.settled(1.0)
        await place.pass_time(300)
        assert 5 <= place.lines["e0"].tries <= 14  # 0.5 s doubling to a minute
        assert place.sources.refusals == {"e0": b'{"code":-32601}'}
        place.lines["e0"].refuses = b""
        await place.pass_time(70)
        assert place.active == ["e0"]
        assert not place.sources.refusals
        place.sources.close()

    run(story())


def test_a_source_that_flaps_is_not_hammered_but_one_that_lived_long_is_forgiven() -> None:
    async def story() -> None:
        place = Place(["aws"], wanted=1)
        line = place.lines["e0"]
        for _ in range(4):
            await place.pass_time(20)
            line.die()
            line.up = True
        tries = line.tries
        await place.pass_time(ALONE_FIRST)
        assert line.tries == tries
        await place.pass_time(60)
        assert place.active == ["e0"]
        line.die()
        line.up = True
        await place.pass_time(ALONE_FIRST + 0.2)
        assert place.active == ["e0"]
        place.sources.close()

    run(story())


@pytest.mark.parametrize("why", ["drained", "gone", "lagging"])
def test_a_source_that_still_works_tells_until_its_successor_has_been_accepted_and_a_while_beside_it(why: str) -> None:
    async def story() -> None:
        place = Place(["aws", "ovh"], wanted=1)
        assert await place.sources.settled(5)
        place.lines["e1"].takes = 1.0
        began = here().time()
        if why == "drained":
            place.unfit.add("e0")
        elif why == "gone":
            place.lines["e0"].leaving = True
            place.unfit.add("e0")
        else:
            place.sources.replace(1, "silent")
        await place.pass_time(0.9)
        assert place.active == ["e0"], "the new one has not been accepted yet"
        await place.pass_time(0.3)
        assert place.active == ["e0", "e1"]
        heard = len(place.told)
        place.lines["e0"].takers[0].notified("eth_subscription", b"still told")
        assert place.told[heard:] == [(1, b"still told")]
        assert not place.left
        await place.pass_time(OVERLAP)
        assert place.active == ["e1"]
        assert place.lines["e0"].ended == [b"1"]
        assert [number for number, _ in place.left] == [1]
        assert here().time() - began < 1.2 + OVERLAP + 0.2
        ((lost, came),) = place.replaced
        assert (lost.endpoint, came.endpoint, came.ended) == ("e0", "e1", "answer")
        place.sources.close()

    run(story())


def test_a_source_whose_word_is_not_believed_any_more_is_silenced_at_once() -> None:
    async def story() -> None:
        place = Place(["aws", "ovh"], wanted=1)
        assert await place.sources.settled(5)
        place.lines["e1"].takes = 1.0
        place.unfit.add("e0")
        await place.pass_time(0.1)
        assert place.active == ["e0"]
        place.lies.add("e0")  # even while it gives way
        await place.pass_time(0.1)
        assert place.active == []
        assert place.lines["e0"].ended == [b"1"]
        place.sources.close()

    run(story())


def test_a_source_that_nobody_can_succeed_leaves_all_the_same() -> None:
    """An operator drains an endpoint in order to stop it."""

    async def story() -> None:
        place = Place(["aws"], wanted=1)
        assert await place.sources.settled(5)
        place.unfit.add("e0")
        await place.pass_time(LEAVES_WITHIN - 0.5)
        assert place.active == ["e0"]
        await place.pass_time(1.0)
        assert place.active == []
        assert place.lines["e0"].ended == [b"1"]
        assert len(place.left) == 1
        place.sources.close()

    run(story())


def test_of_two_sources_one_that_nobody_can_succeed_leaves_after_the_overlap() -> None:
    async def story() -> None:
        place = Place(["aws", "ovh"])
        assert await place.sources.settled(5)
        await place.pass_time(0.2)
        place.unfit.add("e1")
        await place.pass_time(OVERLAP + 0.2)
        assert place.active == ["e0"]
        place.sources.close()

    run(story())


def test_the_only_endpoint_whose_source_fell_silent_succeeds_itself() -> None:
    async def story() -> None:
        place = Place(["aws"], wanted=1)
        assert await place.sources.settled(5)
        place.sources.replace(1, "silent")
        await place.pass_time(ALONE_FIRST + OVERLAP + 0.3)
        assert place.lines["e0"].ended == [b"1"]
        assert [source.number for source in place.sources.active] == [2]
        place.sources.close()

    run(story())


def test_a_source_that_dies_while_it_gives_way_is_left_once_and_counts_as_one_loss() -> None:
    async def story() -> None:
        place = Place(["aws", "ovh"], wanted=1)
        assert await place.sources.settled(5)
        place.lines["e1"].takes = 1.0
        place.sources.replace(1, "silent")
        await place.pass_time(0.2)
        place.lines["e0"].die()
        await place.pass_time(5)
        assert place.active == ["e1"]
        assert place.left == [(1, "reset")]
        ((lost, came),) = place.replaced
        assert (lost.ended, came.endpoint) == ("silent", "e1")
        place.sources.close()

    run(story())


def test_waiting_for_a_source_ends_when_nobody_could_be_one() -> None:
    async def story() -> None:
        place = Place([], wanted=1)
        at = here().time()
        assert not await place.sources.settled(30)
        assert here().time() - at < 0.1
        place.sources.close()

    run(story())


def test_an_endpoint_that_cannot_be_reached_costs_its_time_once_and_another_is_found() -> None:
    async def story() -> None:
        place = Place(["aws", "ovh"], wanted=1)
        place.lines["e0"].up = False
        at = here().time()
        assert await place.sources.settled(8)
        assert place.active == ["e1"]
        assert here().time() - at < 4
        place.sources.close()

    run(story())


def test_an_endpoint_that_takes_long_to_accept_is_not_waited_for_alone_and_comes_too_late() -> None:
    """It took the question and says nothing: callers of what only passes through would hear nothing meanwhile."""

    async def story() -> None:
        place = Place(["aws", "gcp", "ovh"], wanted=1)
        place.lines["e0"].takes = place.lines["e1"].takes = 4.0
        began = here().time()
        while not place.active and here().time() - began < 10:
            await place.pass_time(0.05)
        assert place.active == ["e2"]
        assert here().time() - began < 2 * SLOW_AFTER + 0.3
        await place.pass_time(10)
        assert place.active == ["e2"]
        assert [place.lines[name].ended for name in ("e0", "e1", "e2")] == [[b"1"], [b"1"], []]  # not left pushing
        assert place.joined == [3]
        assert not place.left
        assert not place.replaced
        place.sources.close()

    run(story())


def test_what_comes_after_a_source_was_dropped_is_not_heard() -> None:
    async def story() -> None:
        place = Place(["aws"], wanted=1)
        assert await place.sources.settled(5)
        (source,) = place.sources.active
        assert isinstance(source, Source)
        heard = len(place.told)
        place.sources.drop(source.number, "silent")
        source.notified("eth_subscription", b"late")
        source.ended("closed")
        assert len(place.told) == heard
        assert place.left == [(1, "silent")]
        place.sources.close()

    run(story())

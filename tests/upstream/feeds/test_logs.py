"""The feed of logs, its fetches: blooms that cannot be relied on, and an empty answer that is not believed at once."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.dialect.evm import EvmDialect
from gateway.events import Header
from gateway.model import Endpoint
from gateway.policy.feeds.logs import LogFeedSettings
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.feeds.logs import LogsFeed
from tests.upstream.feeds.stage import Ear
from tests.virtual import here, run

NO_BLOOM = bytes(256)
A_BLOOM = b"\xff" * 256


def block(number: int, bloom: bytes) -> Header:
    return Header(number, f"0x{number:064x}", f"0x{number - 1:064x}", b"{}", bloom)


def log(header: Header) -> dict[str, Any]:
    return {"blockNumber": hex(header.number), "blockHash": header.hash, "logIndex": "0x0", "removed": False}


class Nowhere:
    """A route whose endpoints have no WebSocket."""

    exist = False

    def candidates(self, now: float) -> list[Endpoint]:
        return []

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        return None


class Place:
    """A feed of logs over nodes that answer what they are told to."""

    def __init__(self, blooms: bool, answers: dict[str, list[list[dict[str, Any]]]]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.answers = answers
        self.ear = Ear()
        dialect = EvmDialect()
        route = SimpleNamespace(stats=RouteStats(), dialect=dialect, blooms=blooms, name="r")
        subscription = dialect.subscription("eth_subscribe", b'["logs",{}]')
        assert subscription is not None
        heads = SimpleNamespace(tip=None, follow=lambda follower: None, unfollow=lambda follower: None)
        self.feed = LogsFeed(
            subscription,
            b'"0x1"',
            lambda: route,  # type: ignore[arg-type,return-value]
            heads,  # type: ignore[arg-type]
            Nowhere(),  # type: ignore[arg-type]
            self._ask,
            LogFeedSettings(),
            here().time,
            lambda records: None,
        )
        self.feed.join(self.ear)

    @property
    def blocks(self) -> list[str]:
        """The blocks of the logs that were told."""
        return [json.loads(event)["blockNumber"] for event in self.ear.events]

    async def _ask(self, question: tuple[str, bytes]) -> bytes | None:
        wanted = json.loads(question[1])[0]
        self.asked.append(wanted)
        await asyncio.sleep(0.01)
        key = wanted.get("blockHash") or f"0x{int(wanted['fromBlock'], 16):064x}"
        rows = self.answers.get(key, [[]])
        return json.dumps(rows.pop(0) if len(rows) > 1 else rows[0]).encode()

    async def add(self, header: Header) -> None:
        self.feed.added(header, here().time())
        for _ in range(40):
            await asyncio.sleep(0.05)
            self.feed.tick(here().time())


@pytest.mark.parametrize("blooms", [True, False])
def test_a_chain_whose_blooms_leave_logs_out_has_every_block_fetched(blooms: bool) -> None:
    async def story() -> None:
        start, silent = block(1, A_BLOOM), block(2, NO_BLOOM)
        place = Place(blooms, {silent.hash: [[log(silent)]]})
        await place.add(start)
        await place.add(silent)
        assert place.blocks == ([] if blooms else ["0x2"])
        place.feed.close()

    run(story())


def test_an_empty_answer_about_a_new_block_is_believed_only_the_second_time_and_by_its_number() -> None:
    async def story() -> None:
        late = block(1, A_BLOOM)
        place = Place(True, {late.hash: [[], [log(late)]]})
        await place.add(late)
        assert place.blocks == ["0x1"]
        assert place.asked[0]["blockHash"] == late.hash
        assert place.asked[1]["fromBlock"] == place.asked[1]["toBlock"] == "0x1"
        place.feed.close()

    run(story())


def test_logs_of_another_branch_are_not_taken_for_those_of_the_block() -> None:
    async def story() -> None:
        wanted = block(1, A_BLOOM)
        other = {**log(wanted), "blockHash": "0x" + "99" * 32}
        place = Place(True, {wanted.hash: [[], [other], [log(wanted)]]})
        await place.add(wanted)
        assert place.blocks == ["0x1"]
        place.feed.close()

    run(story())

"""Pages that strangers may ask for cost little however often they ask."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from gateway.edge.pages import SHOWN_FOR, public_pages


class Counting:
    """A house that counts its reports."""

    def __init__(self) -> None:
        self.reports = 0

    def status(self) -> dict[str, Any]:
        self.reports += 1
        return {"number": self.reports}

    def chains(self) -> list[str]:
        return ["ethereum"]

    def readiness(self) -> tuple[bool, list[str]]:
        return True, []

    def explain(self, route: str, method: str) -> dict[str, Any] | None:
        return None

    def drain(self, route: str, endpoint: str, out: bool) -> bool:
        return False

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"", ""


def test_a_report_is_made_once_in_a_while_however_many_ask_and_none_for_a_page_that_is_not_there() -> None:
    house = Counting()
    now = 100.0

    async def story() -> None:
        nonlocal now
        transport = httpx2.ASGITransport(app=public_pages(house, lambda: now))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for _ in range(50):
                lost = await client.get("/nosuch")
                assert "POST JSON-RPC to /ethereum" in lost.text
            assert house.reports == 0
            assert {(await client.get("/status.json")).json()["number"] for _ in range(50)} == {1}
            now += SHOWN_FOR
            assert (await client.get("/status.json")).json() == {"number": 2}

    asyncio.run(story())

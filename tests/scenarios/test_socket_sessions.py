"""Many sockets that subscribe, end subscriptions and ask at random, while the sources of their events die."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

from gateway.drill.socket import SocketFault
from tests.scenarios.house import House, house, run
from tests.scenarios.subscriber import Subscriber
from tests.scenarios.told import walk

ASKED = [["newHeads"], ["newHeads"], ["logs", {}], ["logs", {"address": []}], ["logs", {"topics": [None]}]]


class Session(Subscriber):
    """A socket that holds everything it is told against what it was promised, in the order in which it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, list[Any]] = {}  # id -> its events
        self.over: dict[str, list[Any]] = {}
        self.asked: dict[Any, dict[str, Any]] = {}
        self.wrong: list[AssertionError] = []

    def _frame(self, opcode: int, text: bytes) -> None:
        if opcode == 1:
            told = json.loads(text)
            for message in told if isinstance(told, list) else [told]:
                try:
                    self._told(message)
                except AssertionError as wrong:  # a protocol's failure would be the loop's, and no test's
                    self.wrong.append(wrong)
        super()._frame(opcode, text)

    def _told(self, message: dict[str, Any]) -> None:
        if "method" not in message:
            self._answered(message)
            return
        of = message["params"]["subscription"]
        assert of in self.live, f"an event of {of}, of which nothing was told or which is over: {message}"
        self.live[of].append(message["params"]["result"])

    def _answered(self, message: dict[str, Any]) -> None:
        asked = self.asked.pop(message["id"])
        if asked["method"] == "eth_subscribe":
            given = message["result"]
            assert given not in self.live and given not in self.over, "an id was given twice"
            self.live[given] = []
        elif asked["method"] == "eth_unsubscribe":
            of = asked["params"][0]
            assert message["result"] is (of in self.live)
            if of in self.live:
                self.over[of] = self.live.pop(of)
        else:
            assert "result" in message

    def item(self, chance: Random) -> dict[str, Any]:
        """Something to ask."""
        number = len(self.over) + len(self.live)
        method, params = chance.choice([("eth_blockNumber", []), ("eth_getBlockByNumber", ["0x5", False])])
        kind = chance.random()
        if kind < 0.35 and number < 40:
            method, params = "eth_subscribe", chance.choice(ASKED)
        elif kind < 0.6 and self.live:
            method, params = "eth_unsubscribe", [chance.choice(sorted(self.live))]
        elif kind < 0.65 and self.over:
            method, params = "eth_unsubscribe", [chance.choice(sorted(self.over))]
        chosen = chance.choice([chance.getrandbits(50), f"id-{chance.getrandbits(60)}", -chance.getrandbits(40)])
        asked = {"jsonrpc": "2.0", "id": chosen, "method": method, "params": params}
        self.asked[chosen] = asked
        return asked

    async def lead_a_life(self, chance: Random, h: House) -> None:
        for _ in range(25):
            opcode = chance.choice((1, 2))
            if chance.random() < 0.3:  # an end in a batch names what was live before it
                items = [self.item(chance) for _ in range(chance.randint(1, 4))]
                ended = [str(item["params"]) for item in items if item["method"] == "eth_unsubscribe"]
                if len(set(ended)) < len(ended):
                    for item in items:
                        del self.asked[item["id"]]
                    continue
                self._answers[-1] = asyncio.get_running_loop().create_future()
                self.send_frame(opcode, json.dumps(items).encode())
            else:
                self.send_frame(opcode, json.dumps(self.item(chance)).encode())
            if chance.random() < 0.5:
                await asyncio.sleep(chance.choice((0.0, 0.01, 0.1)))
            await h.until(lambda: not self.asked)


def test_whatever_is_asked_and_ended_in_whatever_order_events_keep_to_their_subscriptions(tmp_path: Path) -> None:
    n = 40

    async def scenario() -> None:
        async with house(tmp_path, endpoint_extra=", ws: true", block_time=0.05) as h:
            sessions = [await Session.open(h.port) for _ in range(n)]
            lives = [
                asyncio.ensure_future(session.lead_a_life(Random(seed), h)) for seed, session in enumerate(sessions)
            ]
            chance = Random(n)
            while not all(life.done() for life in lives):
                chance.choice(h.providers).strike_sockets(chance.choice([SocketFault.RESET, SocketFault.CLOSE]))
                await asyncio.sleep(0.2)
            await asyncio.gather(*lives)
            events = 0
            for session in sessions:
                assert not session.wrong
                assert session.closed_with is None
                for told in (*session.live.values(), *session.over.values()):
                    events += len(told)
                    heads = [event for event in told if "parentHash" in event]
                    assert len(heads) in (0, len(told))
                    numbers = walk(heads)
                    assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                session.close()
            held = h.gateway.routes[0].stats
            await h.until(lambda: held.subscriptions == 0)
            print(
                f"\n{n} sockets (seeds 0-{n - 1}), {events} events, each of the subscription it names and in its time"
            )
            assert events > 1000

    run(scenario())

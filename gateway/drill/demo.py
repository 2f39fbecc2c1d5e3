"""The demo: calls flow through the gateway while its simulated providers break, one after the other.

Always true: everything stays on loopback; every call is counted, and a lost one is shown as lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.clock import Clock
from gateway.config.settings import Settings
from gateway.dialect.jsonrpc import BadReply, encode_request, read_reply
from gateway.drill.faults import Fault
from gateway.drill.provider import SimulatedProvider
from gateway.errors import AttemptError
from gateway.limits import TransportSettings
from gateway.upstream.wire.outbound import Outbound, build_engine
from gateway.upstream.wire.resolver import Resolver

CALLS_PER_SECOND: Final = 50
BREAK_EVERY: Final = 4.0  # seconds
BROKEN_FOR: Final = 3.0
OUTAGES: Final = (
    Fault.REFUSE,
    Fault.STATUS_503,
    Fault.HANG_BEFORE_HEAD,
    Fault.STATUS_429,
    Fault.HTML_200,
    Fault.RPC_INTERNAL,
    Fault.RESET_AFTER_READING,
    Fault.WRONG_ID,
)


@dataclass(slots=True)
class Counts:
    """What became of the demo's calls; `slowest` in seconds."""

    calls: int = 0
    lost: int = 0
    slowest: float = 0.0


def demo_settings() -> Settings:
    """Three simulated providers in three clouds on free ports, and the gateway on one."""
    clouds = {"aws": "us-east-1", "gcp": "europe-west4", "hetzner": "fsn1"}
    ports = dict(zip(clouds, _free_ports(len(clouds)), strict=True))
    return Settings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "operations": {"listen": "127.0.0.1:0"},
            "simulated": {name: {"listen": f"127.0.0.1:{port}"} for name, port in ports.items()},
            "routes": {
                "demo": {
                    "chain_id": 31337,
                    "endpoints": [
                        {"url": f"http://127.0.0.1:{port}", "id": name, "cloud": name, "region": clouds[name]}
                        for name, port in ports.items()
                    ],
                }
            },
        }
    )


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held until all are known, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(s.getsockname()[1]) for s in sockets]


async def run_demo(
    route_url: str,
    providers: Mapping[str, SimulatedProvider],
    status: Callable[[], dict[str, Any]],
    say: Callable[[str], None],
    clock: Clock,
    seconds: float,
) -> Counts:
    """Call, break, report, for `seconds` (0: until cancelled).  Returns the counts."""
    counts = Counts()
    engine = build_engine(Outbound(url=route_url), TransportSettings(attempt_timeout=15.0), Resolver(clock), clock)
    until = clock() + seconds if seconds > 0 else float("inf")
    say(f"{len(providers)} simulated providers behind {route_url}; {CALLS_PER_SECOND} calls a second; Ctrl-C ends it")
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_calls(engine, counts, clock, until))
            tasks.create_task(_outages(providers, status, counts, say, clock, until))
    finally:
        await engine.close()
    return counts


async def _calls(engine: Any, counts: Counts, clock: Clock, until: float) -> None:
    """An even flow of calls: a slow answer does not hold the next one back."""
    ids = itertools.count(1)
    async with asyncio.TaskGroup() as tasks:
        while clock() < until:
            tasks.create_task(_one(engine, next(ids), counts, clock))
            await asyncio.sleep(1 / CALLS_PER_SECOND)


async def _one(engine: Any, number: int, counts: Counts, clock: Clock) -> None:
    began = clock()
    counts.calls += 1
    try:
        reply = await engine.send(encode_request(b'"eth_blockNumber"', b"[]", number), began + 15.0)
        result, _ = read_reply(reply.body, number)
    except (AttemptError, BadReply):
        result = None
    if result is None:
        counts.lost += 1
    counts.slowest = max(counts.slowest, clock() - began)


async def _outages(
    providers: Mapping[str, SimulatedProvider],
    status: Callable[[], dict[str, Any]],
    counts: Counts,
    say: Callable[[str], None],
    clock: Clock,
    until: float,
) -> None:
    victims = itertools.cycle(providers.values())
    for outage in itertools.cycle(OUTAGES):
        await asyncio.sleep(min(1.0, max(0.0, until - clock())))
        if clock() >= until:
            return
        victim = next(victims)
        counts.slowest = 0.0
        victim.script.set(outage, lasting=BROKEN_FOR)
        say(f"{victim.name} breaks: {outage.description}")
        await asyncio.sleep(BREAK_EVERY - 1.0)
        say(f"  {counts.calls} calls, {counts.lost} lost, slowest {counts.slowest * 1e3:.0f} ms; {_states(status())}")


def _states(report: dict[str, Any]) -> str:
    """Every endpoint with the reasons against it."""
    words = []
    for endpoint in report["routes"][0]["endpoints"]:
        reasons = ", ".join(
            f"{r['reason']} ({r['family']})" if "family" in r else r["reason"] for r in endpoint["reasons"]
        )
        words.append(f"{endpoint['id']}: {reasons or 'ok'}")
    return "; ".join(words)

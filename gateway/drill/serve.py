"""Several simulated providers at once, and the switchboard to break them by hand.

Always true: providers with the same chain id share one chain; when the block ends, or when one of
them cannot start, all of them are stopped.  The switchboard (``/_drill`` on each provider's own
port) answers loopback callers only, never a web page, and refuses what could not be undone.

    curl localhost:PORT/_drill                                                  counters
    curl localhost:PORT/_drill/faults                                           what can be switched on
    curl localhost:PORT/_drill/fault -d '{"fault": "status_503", "for": 10}'    break it for 10 s
    curl localhost:PORT/_drill/clear -d ''                                      mend it
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock, monotonic, wall_seconds
from gateway.drill import wire
from gateway.drill.chain import SimulatedChain
from gateway.drill.faults import Fault, Stage
from gateway.drill.provider import SimulatedProvider

HISTORY_BLOCKS = 1_000_000  # how long the chains have been running when the providers start
_OPTIONS = {"fault", "for", "amount", "methods", "first", "last", "after", "chance"}


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """One simulated provider.  `block_time` and `latency` are in seconds; port 0 takes a free one."""

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    chain_id: int = 1
    block_time: float = 12.0
    client_version: str = "Simulated/v1.0.0"
    latency: float = 0.0


@contextlib.asynccontextmanager
async def run_providers(
    specs: Iterable[ProviderSpec], *, clock: Clock = monotonic
) -> AsyncIterator[dict[str, SimulatedProvider]]:
    """Start the providers; inside the block they are found by name, after it they are gone.

    Raises ValueError when two have one name, or disagree about the block time of a chain;
    OSError when an address is taken.
    """
    chains: dict[int, SimulatedChain] = {}
    providers: dict[str, SimulatedProvider] = {}
    async with contextlib.AsyncExitStack() as running:
        for spec in specs:
            if spec.name in providers:
                raise ValueError(f"two simulated providers are named {spec.name}")
            chain = chains.setdefault(spec.chain_id, _chain(spec, clock()))
            if chain.block_time != spec.block_time:
                raise ValueError(f"{spec.name}: chain {spec.chain_id} already has a block time of {chain.block_time} s")
            provider = SimulatedProvider(
                spec.name,
                chain,
                client_version=spec.client_version,
                clock=clock,
                latency=spec.latency,
                control=switchboard,
            )
            try:
                await provider.start(spec.host, spec.port)
            except OSError as problem:
                where = f"simulated provider {spec.name} cannot listen on {spec.host}:{spec.port}"
                raise OSError(problem.errno, f"{where}: {problem.strerror}") from None
            running.push_async_callback(provider.stop)
            providers[spec.name] = provider
        yield providers


def _chain(spec: ProviderSpec, now: float) -> SimulatedChain:
    """A chain whose blocks carry today's time."""
    age = HISTORY_BLOCKS * spec.block_time
    return SimulatedChain(spec.chain_id, spec.block_time, now - age, genesis_timestamp=int(wall_seconds() - age))


def switchboard(provider: SimulatedProvider, head: wire.Head, body: bytes, peer: str) -> bytes:
    """Answer one ``/_drill`` request; `peer` is the caller's address."""
    if not _is_loopback(peer) or b"origin" in head.fields:
        return _says(403, error="only for callers on this machine, and not for web pages")
    asked = (head.verb, head.path.rstrip("/"))
    if asked == ("GET", "/_drill"):
        return _says(200, **counters(provider))
    if asked == ("GET", "/_drill/faults"):
        return _says(200, **{fault.value: fault.description for fault in Fault})
    if asked == ("POST", "/_drill/clear"):
        provider.script.clear()
        return _says(200, cleared=True)
    if asked == ("POST", "/_drill/fault"):
        try:
            fault = _switch_on(provider, json.loads(body))
        except (ValueError, TypeError, RecursionError) as problem:
            return _says(400, error=str(problem))
        return _says(200, fault=fault.value, description=fault.description)
    return _says(404, error="GET /_drill, GET /_drill/faults, POST /_drill/fault, POST /_drill/clear")


def counters(provider: SimulatedProvider) -> dict[str, Any]:
    """What `GET /_drill` shows: who it is, what it was asked, which faults are on and how often each struck."""
    now = provider.now()
    return {
        "name": provider.name,
        "chain_id": provider.chain.chain_id,
        "head": provider.chain.head(now),
        "http_requests": provider.http_requests,
        "calls": dict(provider.calls),
        "connections_total": provider.connections_total,
        "connections_open": provider.connections_open,
        "active": [rule.fault.value for rule in provider.script.active(now)],
        "fired": {fault.value: count for fault, count in provider.script.fired.items() if count},
    }


def _switch_on(provider: SimulatedProvider, wanted: Any) -> Fault:
    if not isinstance(wanted, dict):
        raise ValueError('expected an object such as {"fault": "status_503", "for": 10}')
    unknown = sorted(set(wanted) - _OPTIONS)
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; known are {', '.join(sorted(_OPTIONS))}")
    fault = Fault.named(wanted.get("fault"))
    lasting = _number(wanted, "for")
    if lasting is None and fault.stage in (Stage.DOOR, Stage.ACCEPT):
        raise ValueError(f'{fault.value} would lock out "clear" too: say for how many seconds with "for"')
    chance = _number(wanted, "chance")
    first = _number(wanted, "first")
    last = _number(wanted, "last")
    methods = wanted.get("methods", [])
    if not isinstance(methods, list) or not all(isinstance(method, str) for method in methods):
        raise ValueError("methods must be a list of names or patterns")
    provider.script.set(
        fault,
        amount=_number(wanted, "amount"),
        methods=methods,
        first=1 if first is None else int(first),
        last=None if last is None else int(last),
        after=_number(wanted, "after") or 0.0,
        lasting=lasting,
        chance=1.0 if chance is None else chance,
    )
    return fault


def _number(wanted: dict[str, Any], name: str) -> float | None:
    value = wanted.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise ValueError(f"{name} must be a number, not negative")
    return float(value)


def _says(status: int, **members: Any) -> bytes:
    return wire.response(status, json.dumps(members, indent=2).encode() + b"\n")


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False

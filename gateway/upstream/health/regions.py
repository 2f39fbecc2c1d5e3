"""Regions: failure domains that take several routes at once, seen over all of them.

Always true: a domain is named only when at least half of its endpoints are down, these belong to two routes or
more, and somebody outside of it answers; it is told on every route that it concerns.
One exchange that is down is its own affair; Binance, KuCoin, MEXC and Gate down together are Tokyo
(2025-04-15), and rotating their hosts helps nobody.
Does not belong here: domains within one route (policy/domains), which choose; this only tells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.policy.breaker import BreakerState
from gateway.policy.verdicts import DomainFacts
from gateway.upstream.calls.route import AnyRoute
from gateway.upstream.fleet.endpoints import EndpointState

LABELS = ("cloud", "region", "edge", "asn", "operator")
ANSWERED_WITHIN = 60.0  # seconds; whoever answered since then shows that it is not our own network
NAMED = 4


@dataclass(slots=True)
class _Domain:
    """One value of one label, over all routes."""

    down: dict[str, list[EndpointState]] = field(default_factory=dict)
    members: dict[str, list[EndpointState]] = field(default_factory=dict)


def wide_domains(routes: Iterable[AnyRoute], now: float) -> dict[str, tuple[DomainFacts, ...]]:
    """The domains that are down across routes, by the name of each route that they concern."""
    domains: dict[tuple[str, str], _Domain] = {}
    titles: dict[str, str] = {}
    well: list[EndpointState] = []
    for route in routes:
        titles[route.name] = route.title or route.name
        for state in route.pool.states:
            down = state.down
            if not down and now - state.answered_at <= ANSWERED_WITHIN:
                well.append(state)
            for pair in state.endpoint.domains:
                if pair[0] not in LABELS:
                    continue
                domain = domains.setdefault(pair, _Domain())
                domain.members.setdefault(route.name, []).append(state)
                if down:
                    domain.down.setdefault(route.name, []).append(state)
    found: dict[str, list[DomainFacts]] = {}
    for pair, domain in domains.items():
        fallen = [state for states in domain.down.values() for state in states]
        members = sum(map(len, domain.members.values()))
        outside = any(pair not in state.endpoint.domains for state in well)
        if len(domain.down) < 2 or 2 * len(fallen) < members or not outside:
            continue
        fell = [_down_since(state, now) for state in fallen]
        for name, states in domain.down.items():
            others = [titles[other] for other in domain.down if other != name]
            shown = others[:NAMED] + ([f"{len(others) - NAMED} more"] if len(others) > NAMED else [])
            found.setdefault(name, []).append(
                DomainFacts(
                    *pair,
                    min(fell),
                    tuple(state.endpoint.id for state in states),
                    tuple(state.endpoint.id for state in domain.members[name]),
                    max(fell) - min(fell),
                    elsewhere=", ".join(shown),
                )
            )
    return {name: tuple(facts) for name, facts in found.items()}


def _down_since(state: EndpointState, now: float) -> float:
    opened = (c.breaker.changed_at for c in state.cells if c is not None and c.breaker.state is not BreakerState.CLOSED)
    return min(opened, default=now)

"""What pages show of a venue besides its hosts: limits, shared answers, clocks, maintenance.

Always true: it is read from what decides; no key, no signature and no order is in it.
"""

from __future__ import annotations

from typing import Any

from gateway.upstream.health.status import explanation
from gateway.upstream.venues.route import VenueRoute


def venue_status(route: VenueRoute, now: float) -> dict[str, Any]:
    """One venue, for /status.json."""
    gate, shelf = route.gate, route.shelf
    facts = dict(zip((endpoint.id for endpoint in route.pool.endpoints), route.facts, strict=True))
    return {
        "name": route.venue.name,
        "maintenance": route.maintenance or None,
        "banned_for": round(max(0.0, gate.banned_until - now), 3),
        "waiting": gate.waiting,
        "waited": gate.waited,
        "refused": gate.refused,
        "throttled": gate.throttled,
        **gate.limits.snapshot(now),
        "streams": route.streams.snapshot() if route.streams is not None else None,
        "subscriptions": _added([shared.snapshot() for shared in route.shared]),
        "shared": {"answers": len(shelf), "bytes": shelf.size, "hits": shelf.hits, "joined": shelf.joined},
        "hosts": {
            name: {
                "clock_ahead_ms": round(fact.skew * 1e3) if fact.skew is not None else None,
                "still": fact.still,
            }
            for name, fact in facts.items()
        },
    }


def _added(rows: list[dict[str, int]]) -> dict[str, int] | None:
    """The sums of several shared streams; None: nothing is shared."""
    return {name: sum(row[name] for row in rows) for name in rows[0]} if rows else None


def venue_explanation(route: VenueRoute, asked: str, now: float) -> dict[str, Any]:
    """Why a request such as ``GET /api/v3/depth`` would go where."""
    verb, _, target = (asked or "GET /").partition(" ")
    call = route.requests.call(verb.upper().encode(), (target or "/").encode("latin-1", "replace"), (), b"")
    return explanation(route.name, route.pool, call, now)

"""One report of the live state, shown by /status.json, /readyz, `explain` and the metrics.

Always true: it is computed from the same refusals and rankings that choose endpoints, so a page can
never disagree with what happens; it holds ids, never URLs or keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.clock import wall_at
from gateway.model import Call, Family, Reason
from gateway.policy.breaker import BreakerState
from gateway.policy.verdicts import headline
from gateway.telemetry.metrics import EndpointGauge, RouteGauge
from gateway.upstream.calls.route import AnyRoute
from gateway.upstream.fleet.endpoints import EndpointState
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.health.diagnosis import Wide, diagnose
from gateway.upstream.health.regions import wide_domains


def status_report(
    routes: Iterable[AnyRoute], now: float, *, version: str, started_at: float, config: dict[str, Any]
) -> dict[str, Any]:
    """Everything that may be shown to anyone who may reach the page.  Times are seconds since 1970."""
    routes = list(routes)
    wide = wide_domains(routes, now)
    listed = [_route_status(route, now, wide) for route in routes]
    return {
        "version": version,
        "started_at": round(wall_at(started_at, now), 3),
        "ready": any(route["available"] for route in listed),
        "config": config,
        "routes": listed,
    }


def readiness(routes: Iterable[AnyRoute], now: float, draining: bool) -> tuple[bool, list[str]]:
    """Ready when every route has at least one endpoint to use; else the reasons, one a line."""
    if draining:
        return False, ["the gateway is shutting down"]
    problems = []
    for route in routes:
        if not any(state.refusal(route.pool.vital, now)[0] is None for state in route.pool.states):
            why = ", ".join(f"{s.endpoint.id}: {s.refusal(route.pool.vital, now)[0].value}" for s in route.pool.states)  # type: ignore[union-attr]
            problems.append(f"route {route.name} has no available endpoint ({why})")
    return not problems, problems


def explanation(route: str, pool: Pool, call: Call, now: float) -> dict[str, Any]:
    """Why a call would go where: the ranking for it, with the reason for every endpoint."""
    method = call.method
    ranking = pool.ranking_for(call, now)
    refused = {i: (reason, until) for i, reason, until in ranking.refused}
    rows = []
    for i, state in enumerate(pool.states):
        load = state.cell(method.family).load
        row: dict[str, Any] = {
            "endpoint": state.endpoint.id,
            "tier": state.endpoint.tier,
            "weight": state.endpoint.weight,
            "latency_ms": round(load.estimate * 1e3, 3),
            "measured": load.seen > 0,
            "in_flight": load.in_flight,
            "cost": round(load.cost(now), 6),
        }
        if i in ranking.front:
            row["verdict"] = "chosen from"
        elif i in ranking.behind:
            row["verdict"], row["reason"] = "waiting", Reason.LOWER_TIER.value
        else:
            reason, until = refused[i]
            row["verdict"], row["reason"] = "refused", reason.value
            if until != float("inf"):
                row["for_seconds"] = round(max(0.0, until - now), 3)
            if i in ranking.need:
                row["last_resort"] = ranking.need.index(i) + 1
        rows.append(row)
    return {
        "route": route,
        "method": method.label,
        "class": method.request_class.value,
        "family": method.family.value,
        "panic": ranking.panic,
        "endpoints": rows,
    }


def endpoint_gauges(routes: Iterable[AnyRoute], now: float) -> Iterable[EndpointGauge]:
    """What the metrics read at scrape."""
    levels = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
    for route in routes:
        book = route.pool.blocks.book
        for state in route.pool.states:
            breakers = tuple((c.family.value, levels[c.breaker.state]) for c in state.cells if c is not None)
            yield EndpointGauge(
                route=route.name,
                endpoint=state.endpoint.id,
                available=state.refusal(route.pool.vital, now)[0] is None,
                breakers=breakers,
                lag=book.lag(state.position, now)[0] if book.head(state.position) >= 0 else None,
                budget_left=state.budget.left(now),
            )


def route_gauges(routes: Iterable[AnyRoute], now: float) -> Iterable[RouteGauge]:
    """The same of routes."""
    routes = list(routes)
    wide = wide_domains(routes, now)
    for route in routes:
        kinds = frozenset(verdict.kind.value for verdict in diagnose(route, now, wide))
        yield RouteGauge(route.name, route.pool.blocks.book.reference, route.queued, kinds)


def _route_status(route: AnyRoute, now: float, wide: Wide) -> dict[str, Any]:
    endpoints = [_endpoint_status(state, now) for state in route.pool.states]
    found = diagnose(route, now, wide)
    book = route.pool.blocks.book
    return {
        "name": route.name,
        "title": route.title or route.name,
        "dialect": route.speaks,
        "chain_id": route.chain_id or next((s.chain_id for s in route.pool.states if s.chain_id and s.chain_ok), None),
        "available": any(endpoint["available"] for endpoint in endpoints),
        "verdict": headline(found),
        "verdicts": [
            {
                "kind": verdict.kind.value,
                "subject": verdict.subject,
                "since": round(wall_at(verdict.since, now), 3),
                "evidence": verdict.evidence,
            }
            for verdict in found
        ],
        "head": {
            "number": book.reference,
            "since": round(wall_at(book.reference_since, now), 3),
            "block_time": round(book.block_time, 3),
            "finalized": route.pool.blocks.final,
        }
        if book.reference >= 0
        else None,
        "waiting": route.queued,
        "hedges": route.stats.hedges,
        "endpoints": endpoints,
    }


def _endpoint_status(state: EndpointState, now: float) -> dict[str, Any]:
    pool = state.pool
    book = pool.blocks.book
    position = state.position
    reasons = []
    for reason, family in state.reasons(now):
        item: dict[str, Any] = {"reason": reason.value}
        if family:
            item["family"] = family
        item["since"] = round(wall_at(state.since(reason, family, now), now), 3)
        if detail := _detail(state, reason):
            item["detail"] = detail
        reasons.append(item)
    head = state.cells[pool.vital.slot]
    return {
        "id": state.endpoint.id,
        "provider": state.endpoint.provider,
        "tier": state.endpoint.tier,
        "domains": dict(state.endpoint.domains),
        "available": state.refusal(pool.vital, now)[0] is None,
        "reasons": reasons,
        "standby": state.endpoint.standby,
        "in_flight": state.in_flight,
        "latency_ms": round(head.load.estimate * 1e3, 3) if head is not None and state.answered_at else None,
        "p95_ms": _milliseconds(max((c.quantile.value for c in state.cells if c is not None), default=float("inf"))),
        "chain_id": state.chain_id,
        "software": state.software,
        "head": {
            "number": book.head(position),
            "lag_blocks": book.lag(position, now)[0],
            "lag_seconds": round(book.lag(position, now)[1], 3),
            "standing": book.standing(position).value,
        }
        if book.head(position) >= 0
        else None,
        "families": {
            cell.family.value: {
                "breaker": cell.breaker.state.value,
                "p95_ms": _milliseconds(cell.quantile.value),
                "limit": cell.limit.limit,
                "lowest_block": pool.blocks.lowest(position, cell.family, now),
            }
            for cell in state.cells
            if cell is not None
        },
        "max_range": state.max_range(Family.LOGS, now),
        "budget": state.budget.snapshot(now),
    }


def _detail(state: EndpointState, reason: Reason) -> str:
    """What the reason does not say by itself: how it failed, or what it said."""
    if reason is Reason.EXCLUDED:
        return state.exclusion_reason
    return state.failed_with if reason in (Reason.UNVERIFIED, Reason.BREAKER_OPEN, Reason.PROBING) else ""


def _milliseconds(seconds: float) -> float | None:
    return round(seconds * 1e3, 3) if seconds != float("inf") else None

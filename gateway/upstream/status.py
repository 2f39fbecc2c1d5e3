"""One report of the live state, shown by /status.json, /readyz, `explain` and the metrics.

Always true: it is computed from the same refusals and rankings that choose endpoints, so a page can
never disagree with what happens; it holds ids, never URLs or keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.clock import wall_at
from gateway.model import Family, Method
from gateway.policy.breaker import BreakerState
from gateway.telemetry.metrics import EndpointGauge
from gateway.upstream.fleet import EndpointState
from gateway.upstream.route import Route


def status_report(
    routes: Iterable[Route], now: float, *, version: str, started_at: float, config: dict[str, Any]
) -> dict[str, Any]:
    """Everything that may be shown to anyone who may reach the page.  Times are seconds since 1970."""
    listed = [_route_status(route, now) for route in routes]
    return {
        "version": version,
        "started_at": round(wall_at(started_at, now), 3),
        "ready": any(route["available"] for route in listed),
        "config": config,
        "routes": listed,
    }


def readiness(routes: Iterable[Route], now: float, draining: bool) -> tuple[bool, list[str]]:
    """Ready when every route has at least one endpoint to use; else the reasons, one a line."""
    if draining:
        return False, ["the gateway is shutting down"]
    problems = []
    for route in routes:
        if not any(state.refusal(Family.HEAD, now)[0] is None for state in route.pool.states):
            why = ", ".join(f"{s.endpoint.id}: {s.refusal(Family.HEAD, now)[0].value}" for s in route.pool.states)  # type: ignore[union-attr]
            problems.append(f"route {route.name} has no available endpoint ({why})")
    return not problems, problems


def explanation(route: Route, method: Method, now: float) -> dict[str, Any]:
    """Why a call would go where: the ranking for one method, with the reason for every endpoint."""
    pool = route.pool
    ranking = pool.ranking_for(method, now)
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
            row["verdict"], row["reason"] = "waiting", "lower_tier"
        else:
            reason, until = refused[i]
            row["verdict"], row["reason"] = "refused", reason.value
            if until != float("inf"):
                row["for_seconds"] = round(max(0.0, until - now), 3)
            if i in ranking.need:
                row["last_resort"] = ranking.need.index(i) + 1
        rows.append(row)
    return {
        "route": route.name,
        "method": method.label,
        "class": method.request_class.value,
        "family": method.family.value,
        "panic": ranking.panic,
        "endpoints": rows,
    }


def endpoint_gauges(routes: Iterable[Route], now: float) -> Iterable[EndpointGauge]:
    """What the metrics read at scrape."""
    levels = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
    for route in routes:
        for state in route.pool.states:
            breakers = tuple((c.family.value, levels[c.breaker.state]) for c in state.cells if c is not None)
            yield EndpointGauge(
                route=route.name,
                endpoint=state.endpoint.id,
                available=state.refusal(Family.HEAD, now)[0] is None,
                breakers=breakers,
            )


def _route_status(route: Route, now: float) -> dict[str, Any]:
    endpoints = [_endpoint_status(state, now) for state in route.pool.states]
    return {
        "name": route.name,
        "title": route.title or route.name,
        "dialect": route.dialect.name,
        "chain_id": route.chain_id or next((s.chain_id for s in route.pool.states if s.chain_id and s.chain_ok), None),
        "available": any(endpoint["available"] for endpoint in endpoints),
        "endpoints": endpoints,
    }


def _endpoint_status(state: EndpointState, now: float) -> dict[str, Any]:
    reasons = []
    for reason, family in state.reasons(now):
        item: dict[str, Any] = {"reason": reason.value}
        if family:
            item["family"] = family
        since = _since(state, reason.value, family)
        if since is not None:
            item["since"] = round(wall_at(since, now), 3)
        reasons.append(item)
    head = state.cells[Family.HEAD.slot]
    return {
        "id": state.endpoint.id,
        "provider": state.endpoint.provider,
        "tier": state.endpoint.tier,
        "domains": dict(state.endpoint.domains),
        "available": state.refusal(Family.HEAD, now)[0] is None,
        "reasons": reasons,
        "in_flight": state.in_flight,
        "latency_ms": round(head.load.estimate * 1e3, 3) if head is not None and head.load.seen else None,
        "chain_id": state.chain_id,
    }


def _since(state: EndpointState, reason: str, family: str) -> float | None:
    if reason == "drained":
        return state.drained_at
    if family:
        cell = state.cells[Family(family).slot]
        return cell.breaker.changed_at if cell is not None else None
    return None

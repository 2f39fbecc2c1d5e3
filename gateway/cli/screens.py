"""Screens: a status report as tables for people.

Always true: what is shown is the report of /status.json and nothing else, so a screen never disagrees
with the page; colour repeats what a word says, so nothing is lost without it; ids are shown, never URLs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

Report = dict[str, Any]

UNKNOWN = "-"


def probe_screen(report: Report) -> RenderableType:
    """Every endpoint of every route: health, chain, head, latency, domains; a verdict per route."""
    return Group(*(part for route in report["routes"] for part in _route_parts(route, live=False)))


def top_screen(report: Report, source: str) -> RenderableType:
    """The same, and what is going on now."""
    ready = "ready" if report["ready"] else "not ready"
    opening = Text.assemble(
        (f"seawall {report['version']}", "bold"), f"  {source}  ", (ready, "green" if report["ready"] else "bold red")
    )
    problems = report["config"].get("problems") or []
    notes = [Text(f"configuration not applied: {problem}", "yellow") for problem in problems[:3]]
    return Group(opening, *notes, *(part for route in report["routes"] for part in _route_parts(route, live=True)))


def _route_parts(route: dict[str, Any], live: bool) -> Iterable[RenderableType]:
    well = route["verdict"] == "all well"
    yield Text.assemble(
        "\n", (route["title"], "bold"), f" ({route['name']})  ", (route["verdict"], "green" if well else "bold red")
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = ["endpoint", "health", "chain", "head", "latency"]
    columns += ["in flight", "p95", "budget"] if live else ["software", "domains"]
    for column in columns:
        table.add_column(column, justify="right" if column in ("latency", "in flight", "p95", "budget") else "left")
    for endpoint in route["endpoints"]:
        cells = [Text(endpoint["id"]), _health(endpoint), Text(str(endpoint["chain_id"] or UNKNOWN)), _head(endpoint)]
        silent = any(reason["reason"] == "unverified" for reason in endpoint["reasons"])
        cells.append(Text(_ms(None if silent else endpoint["latency_ms"])))
        if live:
            cells += [Text(str(endpoint["in_flight"])), Text(_ms(endpoint["p95_ms"])), Text(_budget(endpoint))]
        else:
            cells += [Text(endpoint["software"] or UNKNOWN), Text(_domains(endpoint))]
        table.add_row(*cells)
    yield table
    for verdict in route["verdicts"]:
        yield Text.from_markup(f"  [dim]{escape(verdict['kind'])}:[/] {escape(verdict['evidence'])}")


def _health(endpoint: dict[str, Any]) -> Text:
    reasons = [r["reason"] + (f" ({r['family']})" if r.get("family") else "") for r in endpoint["reasons"]]
    if endpoint["available"] and not reasons:
        return Text("standby" if endpoint["standby"] else "healthy", "dim" if endpoint["standby"] else "green")
    shown = ", ".join(reasons[:3]) + (" ..." if len(reasons) > 3 else "")
    return Text(shown or "unavailable", "yellow" if endpoint["available"] else "red")


def _head(endpoint: dict[str, Any]) -> Text:
    head = endpoint["head"]
    if head is None:
        return Text(UNKNOWN, "dim")
    behind = head["lag_blocks"]
    style = "" if head["standing"] in ("current", "unknown") else "red"
    return Text(f"{head['number']}" + (f" (-{behind})" if behind else ""), style)


def _domains(endpoint: dict[str, Any]) -> str:
    return " ".join(f"{label}={value}" for label, value in endpoint["domains"].items()) or UNKNOWN


def _budget(endpoint: dict[str, Any]) -> str:
    left = endpoint["budget"].get("left")
    return UNKNOWN if left is None or left >= 1 else f"{left:.0%}"


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f} ms"

"""Screens: a status report as tables for people.

Always true: what is shown is the report of /status.json and nothing else, so a screen never disagrees
with the page; colour repeats what a word says, so nothing is lost without it; ids are shown, never URLs;
no word is cut short; a terminal that is too low for all routes shows those in trouble, and says how many are left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Report = dict[str, Any]

UNKNOWN = "-"
WELL = "all well"
REASONS_SHOWN = 3
NUMBERS = ("latency", "in flight", "p95", "budget")
FOLDED = ("endpoint", "health", "software", "domains")


def probe_screen(report: Report) -> RenderableType:
    """Every endpoint of every route: health, chain, head, latency, domains; a verdict per route."""
    return Group(*(part for route in report["routes"] for part in _route_parts(route, live=False)))


def top_screen(report: Report, source: str, console: Console, note: str = "") -> RenderableType:
    """The same, and what is going on now.  What does not fit on a terminal is told in a line each, trouble first.

    `note` is what stands in the way of a newer report.
    """
    ready = "ready" if report["ready"] else "not ready"
    opening = Text.assemble(
        (f"seawall {report['version']}", "bold"), f"  {source}  ", (ready, "green" if report["ready"] else "bold red")
    )
    problems = report["config"].get("problems") or []
    parts: list[RenderableType] = [opening]
    parts += [Text(f"configuration not applied: {problem}", "yellow") for problem in problems[:3]]
    if note:
        parts.append(Text(note, "bold red"))
    routes = sorted(report["routes"], key=lambda route: (bool(route["available"]), bool(route["verdict"] == WELL)))
    if not console.is_terminal:
        return Group(*parts, *(part for route in routes for part in _route_parts(route, live=True)))
    return Group(*parts, *_fitting(routes, console, console.height - _lines(parts, console)))


def _fitting(routes: list[dict[str, Any]], console: Console, room: int) -> list[RenderableType]:
    """As many routes in full as there is room for while each of the others has its line; then as many lines."""
    shown: list[RenderableType] = []
    for number, route in enumerate(routes):
        parts = list(_route_parts(route, live=True))
        room -= _lines(parts, console)
        left = len(routes) - number - 1
        if shown and room < left + bool(left):  # one line between, and one for each after this
            room += _lines(parts, console)
            return [*shown, *_lines_of(routes[number:], room)]
        shown += parts
    return shown


def _lines_of(routes: list[dict[str, Any]], room: int) -> list[Text]:
    """A line for each route."""
    lines = [Text("")]
    for route in routes:
        well = sum(endpoint["available"] for endpoint in route["endpoints"])
        lines.append(
            Text.assemble(
                (route["title"], "bold"),
                f"  {well} of {len(route['endpoints'])}  ",
                _verdict(route),
                no_wrap=True,
                overflow="ellipsis",
            )
        )
    if len(lines) > room:
        kept = max(1, room - 1)
        left = len(lines) - kept
        lines = [*lines[:kept], Text(f"and {left} more routes; make the window higher to see them", "dim")]
    return lines


def _lines(parts: Iterable[RenderableType], console: Console) -> int:
    return len(console.render_lines(Group(*parts), pad=False))


def _route_parts(route: dict[str, Any], live: bool) -> Iterable[RenderableType]:
    yield Text.assemble("\n", (route["title"], "bold"), f" ({route['name']})  ", _verdict(route))
    table = Table(box=None, pad_edge=False, header_style="dim")
    columns = ["endpoint", "health", "chain", "head", "latency"]
    columns += ["in flight", "p95", "budget"] if live else ["software", "domains"]
    for column in columns:
        justify: Any = "right" if column in NUMBERS else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in FOLDED)
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
        yield Text.assemble((f"  {verdict['kind']} {verdict['subject']}: ", "dim"), verdict["evidence"])


def _verdict(route: dict[str, Any]) -> Text:
    return Text(route["verdict"], "green" if route["verdict"] == WELL else "bold red")


def _health(endpoint: dict[str, Any]) -> Text:
    reasons = [_reason(reason) for reason in endpoint["reasons"]]
    if endpoint["available"] and not reasons:
        return Text("standby" if endpoint["standby"] else "healthy", "dim" if endpoint["standby"] else "green")
    shown = ", ".join(reasons[:REASONS_SHOWN]) + (" ..." if len(reasons) > REASONS_SHOWN else "")
    return Text(shown or "unavailable", "yellow" if endpoint["available"] else "red")


def _reason(reason: dict[str, Any]) -> str:
    """``breaker_open (state: server_fault)``: what, of which family, and how it failed."""
    more = ": ".join(reason[name] for name in ("family", "detail") if reason.get(name))
    return f"{reason['reason']} ({more})" if more else str(reason["reason"])


def _head(endpoint: dict[str, Any]) -> Text:
    head = endpoint["head"]
    if head is None:
        return Text(UNKNOWN, "dim")
    behind = head["lag_blocks"]
    style = "" if head["standing"] in ("current", "unknown") else "red"
    return Text(f"{head['number']}" + (f" (-{behind})" if behind else ""), style)


def _domains(endpoint: dict[str, Any]) -> str:
    """Its failure domains; the software has a column of its own."""
    return " ".join(f"{label}={value}" for label, value in endpoint["domains"].items() if label != "client") or UNKNOWN


def _budget(endpoint: dict[str, Any]) -> str:
    left = endpoint["budget"].get("left")
    return UNKNOWN if left is None or left >= 1 else f"{left:.0%}"


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f} ms"

"""What `probe` and `top` show of a report, on terminals of all sizes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gateway.cli.screens import probe_screen, top_screen

LONG_ID = "a-provider-with-a-very-long-name-primary"
DOMAINS = {"cloud": "aws", "region": "ap-southeast-1", "operator": "somebody", "client": "geth/1.14.12"}


def row(name: str, **facts: Any) -> dict[str, Any]:
    well = {
        "id": name,
        "available": True,
        "standby": False,
        "reasons": [],
        "chain_id": 1,
        "head": {"number": 21_000_000, "lag_blocks": 0, "standing": "current"},
        "latency_ms": 12.34,
        "p95_ms": 40.0,
        "in_flight": 3,
        "software": "geth/1.14.12",
        "domains": DOMAINS,
        "budget": {"left": 0.25},
    }
    return {**well, **facts}


def route(name: str, *rows: dict[str, Any], verdict: str = "all well", available: bool = True) -> dict[str, Any]:
    found = [] if verdict == "all well" else [{"kind": "provider", "subject": "e0", "evidence": "lagging"}]
    return {
        "name": name,
        "title": name.title(),
        "verdict": verdict,
        "verdicts": found,
        "available": available,
        "endpoints": list(rows) or [row("e0"), row("e1")],
    }


def report(*routes: dict[str, Any]) -> dict[str, Any]:
    return {"version": "1.2.3", "ready": True, "config": {}, "routes": list(routes)}


def shown(screen: Any, width: int = 80, height: int = 24, terminal: bool = True) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=terminal, color_system=None)
    console.print(screen(console) if callable(screen) else screen)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def column(lines: list[str], heading: str, until: str) -> str:
    """Everything in one column of a table, with the lines that it was folded into joined."""
    first = next(i for i, line in enumerate(lines) if line.startswith("endpoint"))
    left = lines[first].index(heading)
    right = lines[first].index(until) if until else None
    return "".join(line[left:right].strip() for line in lines[first + 1 :])


@pytest.mark.parametrize("width", [60, 80, 132, 400])
def test_no_id_and_no_domain_is_cut_short_however_narrow_the_terminal(width: int) -> None:
    lines = shown(probe_screen(report(route("ethereum", row(LONG_ID)))), width)
    assert max(map(len, lines)) <= width
    assert LONG_ID in column(lines, "endpoint", "health")
    for label in ("cloud=aws", "region=ap-southeast-1", "operator=somebody"):
        assert label in column(lines, "domains", "")


def test_where_there_is_room_each_endpoint_has_one_line() -> None:
    lines = shown(probe_screen(report(route("ethereum", row(LONG_ID), row("e1")))), 400, terminal=False)
    assert (
        len([line for line in lines if "healthy" in line]) == len([line for line in lines if "cloud=aws" in line]) == 2
    )


def test_a_verdict_names_whom_it_is_about() -> None:
    lines = shown(probe_screen(report(route("ethereum", verdict="e0 is out: lagging"))))
    assert "  provider e0: lagging" in lines


def test_what_is_wrong_with_an_endpoint_is_told_with_how_it_failed() -> None:
    reasons = [{"reason": "breaker_open", "family": "logs", "detail": "attempt_timeout"}, {"reason": "drained"}]
    lines = shown(probe_screen(report(route("ethereum", row("e0", reasons=reasons)))), 200)
    assert any("breaker_open (logs: attempt_timeout), drained" in line for line in lines)


def test_a_low_terminal_shows_the_routes_in_trouble_first_and_every_other_one_has_its_line() -> None:
    routes = [route(f"r{i}") for i in range(8)]
    routes += [route("ill", verdict="e0 is out"), route("dead", verdict="nobody is left", available=False)]
    lines = shown(lambda console: top_screen(report(*routes), "here", console))
    titles = [line.split()[0] for line in lines if line.split() and line.split()[0].istitle()]
    assert titles == ["Dead", "Ill", *(f"R{i}" for i in range(8))]
    assert len(lines) <= 24


@pytest.mark.parametrize("height", [10, 12, 20, 24])
def test_what_does_not_fit_is_counted(height: int) -> None:
    routes = [route(f"r{i}") for i in range(40)]
    lines = shown(lambda console: top_screen(report(*routes), "here", console), height=height)
    named = {line.split()[0] for line in lines if line.startswith("R")}
    assert len(lines) <= height
    assert f"and {40 - len(named)} more routes" in lines[-1]


def test_into_a_pipe_goes_everything() -> None:
    routes = [route(f"r{i}") for i in range(40)]
    lines = shown(lambda console: top_screen(report(*routes), "here", console), height=10, terminal=False)
    assert len([line for line in lines if line.startswith("e0")]) == 40


def test_a_report_that_is_old_says_so() -> None:
    lines = shown(lambda console: top_screen(report(route("r")), "here", console, "this is old: no status"))
    assert "this is old: no status" in lines

"""Turns measurements into tables for people and one JSON file for machines."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.processes import Cores
from benchmarks.proxies import Proxy
from benchmarks.rounds import CONNECTIONS, Mode, Settings, Target

RESULTS = Path(__file__).with_name("results")
BASELINE = "nginx"
SUBJECT = "seawall"
CPU_BUDGET = 5.0  # times nginx's CPU per request at 32 connections, plaintext
ADDED_P50_BUDGET_MS = 0.25
SATURATED = 0.9
DISTURBED = 0.05


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 0) -> str:
    """Figures aligned to the right, the column at `words` to the left."""
    widths = [max(len(row[at]) for row in (header, *rows)) for at in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = zip(row, widths, strict=True)
        aligned = [cell.ljust(width) if at == words else cell.rjust(width) for at, (cell, width) in enumerate(cells)]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}x" if base and value else "-"


def load_table(mode: Mode, connections: int) -> str:
    baseline = mode.target(BASELINE)
    base = baseline.median(connections) if baseline else None
    rows = []
    for target in mode.targets:
        cell = target.median(connections)
        rows.append(
            (
                target.name,
                f"{cell.cpu_us:.1f}" if target.child else "-",
                ratio(cell.cpu_us, base.cpu_us) if base else "-",
                f"{cell.per_second:,.0f}",
                ratio(cell.per_second, base.per_second) if base else "-",
                f"{cell.p50:.3f}",
                f"{cell.p99:.3f}",
                f"{cell.busy:.0%}" if target.child else "-",
                str(cell.errors + (target.single_errors if connections == 1 else 0)),
            )
        )
    header = ("", "CPU us/request", "x nginx", "requests/s", "x nginx", "p50 ms", "p99 ms", "core busy", "errors")
    return grid(header, rows)


def single_table(mode: Mode) -> str:
    direct = mode.target("direct")
    rows = []
    for target in mode.targets:
        added = target.single(50) - direct.single(50) if direct and target.child else None
        rows.append(
            (
                target.name,
                f"{target.single(50):.3f}",
                f"{target.single(99):.3f}",
                f"{added:+.3f}" if added is not None else "-",
                f"{target.rss_start:.1f}" if target.child else "-",
                f"{target.rss_end:.1f}" if target.child else "-",
                f"{target.forwarded_share():.3f}",
            )
        )
    return grid(("", "p50 ms", "p99 ms", "added p50 ms", "RSS MB start", "RSS MB end", "upstream calls per call"), rows)


def remarks(mode: Mode) -> list[str]:
    """What a reader must know before comparing the figures above."""
    lines = [f"{name}: {reason}" for name, reason in mode.absent.items()]
    strangers = max(target.median(count).strangers for target in mode.targets for count in CONNECTIONS)
    if strangers > DISTURBED:
        lines.append(
            f"DISTURBED: other programs had up to {strangers:.0%} of the proxies' core: requests/s and latency are not"
            " the proxies', and CPU us/request is too high; measure again on a quiet machine"
        )
    for target in mode.targets:
        if target.errors():
            lines.append(f"{target.name}: {target.errors()} errors: its figures cannot be compared")
            continue
        if not 0.98 <= target.forwarded_share() <= 1.02:
            lines.append(f"{target.name}: {target.forwarded_share():.2f} upstream calls per call, not one for one")
        lines.extend(_idle_remark(target))
    return [*lines, *_budget(mode)]


def _idle_remark(target: Target) -> list[str]:
    """With one connection the core is never full, so this is about the others."""
    if target.child is None:
        return []
    idle = [str(count) for count in CONNECTIONS if count > 1 and target.median(count).busy < SATURATED]
    if not idle:
        return []
    return [f"{target.name}: core not full at {', '.join(idle)} connections: the load side set requests/s and latency"]


def _budget(mode: Mode) -> list[str]:
    subject, baseline, direct = mode.target(SUBJECT), mode.target(BASELINE), mode.target("direct")
    if not subject or subject.errors() or mode.name != "plaintext":
        return []
    lines = []
    if baseline and baseline.median(32).cpu_us:
        times = subject.median(32).cpu_us / baseline.median(32).cpu_us
        lines.append(f"budget: {times:.2f} times nginx's CPU per request at 32 connections (at most {CPU_BUDGET:g})")
    if direct:
        added = subject.single(50) - direct.single(50)
        lines.append(f"budget: {added:.3f} ms added p50 at one connection (at most {ADDED_P50_BUDGET_MS} ms)")
    return lines


def render(mode: Mode, settings: Settings) -> str:
    title = "plaintext" if mode.name == "plaintext" else "TLS"
    parts = [f"== {title} to the upstream, medians of {settings.rounds} x {settings.seconds} s, {settings.call} =="]
    parts += [f"-- connections: {count} --\n{load_table(mode, count)}" for count in CONNECTIONS]
    parts.append(
        f"-- one connection, {settings.singles} timed calls each, and memory after the load --\n{single_table(mode)}"
    )
    if notes := remarks(mode):
        parts.append("\n".join(f"* {note}" for note in notes))
    return "\n\n".join(parts)


def machine() -> dict[str, object]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def versions(proxies: Sequence[Proxy]) -> dict[str, str]:
    found = {}
    for proxy in proxies:
        if proxy.missing():
            continue
        ended = subprocess.run(proxy.version_command(), capture_output=True, text=True, timeout=30, check=False)
        text = (ended.stdout + ended.stderr).strip()
        found[proxy.name] = text.splitlines()[0] if text else "unknown"
        if proxy.name == "envoy":  # prints the path of its binary first
            found[proxy.name] = text.rpartition("version:")[2].strip()
    return found


def save(modes: Sequence[Mode], settings: Settings, cores: Cores, proxies: Sequence[Proxy]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
    content = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "cores": asdict(cores),
        "settings": asdict(settings),
        "versions": versions(proxies),
        "modes": {
            mode.name: {"targets": {one.name: one.as_json() for one in mode.targets}, "absent": mode.absent}
            for mode in modes
        },
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path

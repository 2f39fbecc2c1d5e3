"""The command line.  Owner of click and rich.

Always true: a command that fails says what to do and exits with 1 (a wrong use: 2); nothing it prints
holds a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx2
import uvloop
from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable

from gateway import __version__
from gateway.assembly import Gateway
from gateway.cli.screens import probe_screen, top_screen
from gateway.clock import monotonic
from gateway.config.load import load, secrets_of, settings_for_urls, warnings_of, with_listen
from gateway.config.schema import json_schema
from gateway.config.settings import Settings
from gateway.drill.demo import demo_settings, run_demo
from gateway.drill.simulated import not_yet_running
from gateway.errors import ConfigError
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.redaction import Redactor

CONFIG = click.argument("config", type=click.Path(path_type=Path))
PIPE_WIDTH = 10_000  # columns
T = TypeVar("T")
logger = logging.getLogger("seawall")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="seawall")
def main() -> None:
    """Seawall answers from whichever RPC provider can be trusted now."""


@main.command()
@click.argument("config", type=click.Path(path_type=Path), required=False)
@click.option("-u", "--url", "urls", multiple=True, help="an RPC URL; repeat it; needs no file")
@click.option("--listen", help="address to listen on, such as 127.0.0.1:4000")
@click.option("--seed", type=int, help="seed of the random choices, to repeat a run")
def serve(config: Path | None, urls: tuple[str, ...], listen: str | None, seed: int | None) -> None:
    """Serve CONFIG, or the URLs given with -u."""
    if (config is None) == (not urls):
        raise click.UsageError("give a configuration file, or RPC URLs with -u URL -u URL")
    with _problems_shown():
        settings = load(config) if config is not None else settings_for_urls(urls)
        if listen is not None:
            settings = with_listen(settings, listen)
        for warning in warnings_of(settings):
            click.echo(f"warning: {warning}", err=True)
        _run(settings, config, seed, listen)


@main.command()
@CONFIG
def check(config: Path) -> None:
    """Read CONFIG and print every problem with its line, or what it says."""
    with _problems_shown():
        settings = load(config)
    for warning in warnings_of(settings):
        click.echo(f"{config}: warning: {warning}", err=True)
    endpoints = sum(len(route.endpoints) for route in settings.routes.values())
    routes = len(settings.routes)
    counted = f"{routes} route{'s' * (routes != 1)}, {endpoints} endpoint{'s' * (endpoints != 1)}"
    click.echo(f"{config}: ok, {counted}")


@main.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
@CONFIG
@click.argument("route")
@click.argument("method")
def explain(config: Path, route: str, method: str) -> None:
    """Ask the endpoints of ROUTE once and print who would get METHOD, and why the others would not."""
    with _problems_shown():
        settings = load(config)
        configure_logging("critical", "console", Redactor(secrets_of(settings)))
        report = uvloop.run(_look_once(settings, lambda gateway: gateway.explain(route, method)))
    if report is None:
        raise click.ClickException(f"{config} has no route {route!r}; it has {', '.join(settings.routes)}")
    table = RichTable(title=f"{report['route']} {report['method']} ({report['class']}, {report['family']})")
    for column in ("endpoint", "tier", "verdict", "reason", "latency ms"):
        table.add_column(column)
    for row in report["endpoints"]:
        latency = f"{row['latency_ms']:.1f}" if row["measured"] else "-"
        table.add_row(row["endpoint"], str(row["tier"]), row["verdict"], row.get("reason", ""), latency)
    _console().print(table)


@main.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="print the report as JSON")
def probe(config: Path, as_json: bool) -> None:
    """Ask every endpoint of CONFIG once and print health, chain, head, latency and domains."""
    with _problems_shown():
        settings = load(config)
        configure_logging("critical", "console", Redactor(secrets_of(settings)))
        report = uvloop.run(_look_once(settings, lambda gateway: gateway.status()))
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        _console().print(probe_screen(report))
    sys.exit(0 if all(route["available"] for route in report["routes"]) else 1)


@main.command()
@click.argument("url", default="http://127.0.0.1:4000")
@click.option("--every", type=click.FloatRange(0.2, 60), default=1.0, help="seconds between two looks")
@click.option("--once", is_flag=True, help="print one screen and end")
def top(url: str, every: float, once: bool) -> None:
    """Watch a running gateway live; URL is its public or operations listener.

    Into a pipe it prints one screen.
    """
    url = url if "://" in url else f"http://{url}"
    console = _console()
    try:
        report = _fetch_status(url)
        if once or not console.is_terminal:
            console.print(top_screen(report, url, console))
            return
        with contextlib.suppress(KeyboardInterrupt):
            _watch(url, every, report, console)
    except OSError as problem:
        raise click.ClickException(str(problem)) from None


@main.command()
@click.option("--seconds", type=float, default=0.0, help="stop after so many seconds; 0: run until Ctrl-C")
def demo(seconds: float) -> None:
    """The gateway over three simulated providers, one of which breaks every few seconds."""
    with _problems_shown():
        settings = demo_settings()
        configure_logging("error", "console", Redactor())
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(_demo(settings, seconds))


# --- running ----------------------------------------------------------------------------------------


def _run(settings: Settings, config: Path | None, seed: int | None, listen: str | None) -> None:
    redactor = Redactor(secrets_of(settings))
    log = settings.telemetry.log
    configure_logging(log.level, log.format, redactor)
    uvloop.run(_serve(settings, config, redactor, seed, listen))


async def _serve(
    settings: Settings, config: Path | None, redactor: Redactor, seed: int | None, listen: str | None
) -> None:
    gateway = Gateway(settings, config, redactor, seed, listen)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, gateway.reload_soon)
    await gateway.start()
    _say_ready(gateway)
    await stopping.wait()
    logger.info("stopping: calls in flight get %.0f s", settings.drain_for)
    cut_off = await gateway.stop()
    logger.info("stopped, %d calls cut off", cut_off)


def _say_ready(gateway: Gateway) -> None:
    host = gateway.settings.listen.rpartition(":")[0]
    base = f"http://{host}:{gateway.public_port}"
    for route in gateway.status()["routes"]:
        usable = sum(endpoint["available"] for endpoint in route["endpoints"])
        logger.info(
            "%s: %s/%s, %d of %d endpoints", route["title"], base, route["name"], usable, len(route["endpoints"])
        )
    operations = gateway.settings.operations.listen.rpartition(":")[0]
    logger.info("ready on %s, operations on http://%s:%d", base, operations, gateway.operations_port)


async def _look_once(settings: Settings, look: Callable[[Gateway], T]) -> T:
    """Start a gateway that nobody calls, look at it once, and stop it.  It may run beside one that serves the file."""
    free = settings.model_copy(
        update={
            "listen": "127.0.0.1:0",
            "operations": settings.operations.model_copy(update={"listen": "127.0.0.1:0"}),
            "simulated": not_yet_running(settings.simulated),
        }
    )
    gateway = Gateway(free, None, Redactor(secrets_of(settings)))
    await gateway.start()
    try:
        return look(gateway)
    finally:
        await gateway.stop(drain_for=0.0)


def _console() -> Console:
    """As wide as the terminal; into a pipe, so wide that no line is broken."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)


def _watch(url: str, every: float, report: dict[str, Any], console: Console) -> None:
    """A screen that follows the gateway, also through a restart of it."""
    note = ""
    pause = threading.Event()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(top_screen(report, url, console, note), refresh=True)
            pause.wait(every)
            try:
                report, note = _fetch_status(url), ""
            except OSError as problem:
                note = f"this is old: {problem}"


def _fetch_status(url: str) -> dict[str, Any]:
    """The status report of a running gateway.  Raises OSError with the reason."""
    try:
        answer = httpx2.get(f"{url.rstrip('/')}/status.json", timeout=5.0, trust_env=False)
        answer.raise_for_status()
        report: dict[str, Any] = answer.json()
        if not isinstance(report, dict) or not {"version", "ready", "config", "routes"} <= report.keys():
            raise ValueError("not a status report")
    except httpx2.UnsupportedProtocol:
        raise OSError(f"{url} is no address of a gateway: give http://host:port") from None
    except httpx2.HTTPStatusError as problem:
        raise OSError(f"{url} answers {problem.response.status_code}: something else than a gateway listens") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as problem:
        raise OSError(f"no status from {url}: {type(problem).__name__}; is a gateway listening there?") from None
    return report


async def _demo(settings: Settings, seconds: float) -> None:
    gateway = Gateway(settings, None, Redactor())
    await gateway.start()
    route = next(iter(settings.routes))
    url = f"http://127.0.0.1:{gateway.public_port}/{route}"
    try:
        counts = await run_demo(url, gateway.simulated.providers, gateway.status, click.echo, monotonic, seconds)
        click.echo(f"{counts.calls} calls, {counts.lost} lost")
    finally:
        await gateway.stop(drain_for=0.0)


@contextlib.contextmanager
def _problems_shown(failure: str = "cannot start") -> Iterator[None]:
    """Configuration problems and taken addresses as plain lines instead of tracebacks."""
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        count = len(error.problems)
        click.echo(f"{count} problem{'s' if count != 1 else ''}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"{failure}: {error.strerror or error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

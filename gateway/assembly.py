"""The assembly: wires a running gateway from its settings, and wires it anew at a reload.

Always true: what is configured starts, or the start fails with the reason; a reload builds the new
table first, keeps the live state of every endpoint that did not change, and swaps one reference; a
bad file changes nothing but a line on the status page; stopping turns readiness off first, then lets
calls in flight finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.clock import monotonic, wall_seconds
from gateway.config.load import load, secrets_of, with_listen
from gateway.config.scalars import host_and_port
from gateway.config.settings import Settings
from gateway.config.watch import watch
from gateway.drill.simulated import Simulated, run_simulated
from gateway.edge.app import PublicApp
from gateway.edge.calls import Calls
from gateway.edge.listener import Listener, Upgrade
from gateway.edge.observer import Observer
from gateway.edge.pages import operations_pages, public_pages
from gateway.edge.rest import RestEdge
from gateway.edge.rpc import RpcEdge, Table
from gateway.edge.socket import Handler
from gateway.edge.stream import Streams
from gateway.edge.venue_socket import VenueSockets
from gateway.errands import Errands
from gateway.errors import ConfigError
from gateway.policy.connectivity import Connectivity
from gateway.routes import Budgeted, Built, RouteBuilder, build_table
from gateway.telemetry.metrics import EndpointGauge, Metrics, RouteGauge
from gateway.telemetry.redaction import Redactor
from gateway.telemetry.traces import Tracer
from gateway.upstream.calls.audit import Auditor
from gateway.upstream.calls.dispatch import Dispatcher
from gateway.upstream.calls.route import Route
from gateway.upstream.feeds.subscriptions import Feeds
from gateway.upstream.health.diagnosis import Diary
from gateway.upstream.health.polling import Poller
from gateway.upstream.health.probes import Prober
from gateway.upstream.health.status import endpoint_gauges, explanation, readiness, route_gauges, status_report
from gateway.upstream.venues.forward import Forwarder
from gateway.upstream.venues.probes import VenueProber
from gateway.upstream.venues.route import VenueRoute
from gateway.upstream.venues.status import venue_explanation, venue_status
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.sockets import ConnectBudget
from gateway.venue_routes import share_budgets

logger = logging.getLogger("seawall")

VERIFY_AT_START = 3.0  # seconds given to the first look at all endpoints; whoever is late is asked again later
POLL_AT_START = 1.0  # the same for their heads
DIARY_EVERY = 1.0  # seconds between two looks at what is wrong
SECRETS_LIVE = 600.0  # seconds after a reload in which the secrets that it took away are still masked
OLD_ENGINES_LIVE = 60.0  # seconds after a reload in which calls begun before it may still use their way out


class Gateway:
    """A running gateway.  `await start()`, `await stop()`; in between it serves."""

    def __init__(
        self,
        settings: Settings,
        config_path: Path | None,
        redactor: Redactor,
        seed: int | None = None,
        listen: str | None = None,
    ) -> None:
        """`listen`: the address for callers that `settings` have in place of the file's."""
        self.settings = settings
        self.draining = False
        self.simulated = Simulated({}, {})
        self._config_path = config_path
        self._listen = listen
        self._redactor = redactor
        self._started = asyncio.Event()
        self._past_secrets: dict[str, float] = {}  # until when each is masked
        self._started_at = monotonic()
        self._config_state: dict[str, Any] = {"loaded_at": round(wall_seconds(), 3), "problems": []}
        self._chance = random.Random(seed)  # noqa: S311 - spreads load and probes; nothing secret hangs on it
        self._resolver = Resolver(monotonic)
        self._metrics = Metrics(__version__, redactor, self._gauges, self._route_gauges)
        traces = settings.telemetry.traces
        self._tracer = Tracer(traces, redactor, __version__)
        self._observer = Observer(
            self._metrics,
            self._tracer,
            monotonic,
            self._chance,
            trust_callers=traces.trust_callers,
            propagate=traces.propagate,
        )
        self._built: list[Built] = []
        self._listeners: list[Listener] = []
        self._rpc: RpcEdge | None = None
        self._streams: Streams | None = None
        self._venue_sockets: VenueSockets | None = None
        self._stack = contextlib.AsyncExitStack()
        self._errands = Errands(self._report)
        self._prober = Prober(lambda: self.routes, monotonic)
        self._poller = Poller(lambda: self.routes, monotonic)
        self._venue_prober = VenueProber(lambda: self.venues, monotonic)
        self._auditor = Auditor(monotonic, self._chance)
        self._connectivity = Connectivity()
        self._diary = Diary(self._observer.verdict)
        self._budgets: dict[str, Budgeted] = {}
        self._dispatcher = Dispatcher(monotonic, self._redactor.scrub_bytes, self._auditor)
        self._connects = ConnectBudget(monotonic)
        self._feeds: dict[str, Feeds] = {}

    @property
    def routes(self) -> list[Route]:
        """The routes of chains."""
        return [built.route for built in self._built if isinstance(built.route, Route)]

    @property
    def venues(self) -> list[VenueRoute]:
        """The routes of exchanges."""
        return [built.route for built in self._built if isinstance(built.route, VenueRoute)]

    @property
    def all_routes(self) -> list[Route | VenueRoute]:
        return [built.route for built in self._built]

    @property
    def public_port(self) -> int:
        """The bound port of the public listener."""
        return self._listeners[0].port

    @property
    def operations_port(self) -> int:
        return self._listeners[1].port

    @property
    def sockets(self) -> int:
        """Callers' WebSockets that are open."""
        opened = (self._streams, self._venue_sockets)
        return sum(len(sockets.sessions) for sockets in opened if sockets is not None)

    def feed_sources(self, route: str) -> list[str]:
        """The endpoints whose events feed the heads of a route, by id."""
        return self._feeds[route].head_sources

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start everything that is configured.  Raises ConfigError or OSError when something cannot."""
        settings = self.settings
        try:
            self.simulated = await self._stack.enter_async_context(run_simulated(settings.simulated, monotonic))
            table = self._adopt(settings)
            await asyncio.gather(self._prober.verify_all(VERIFY_AT_START), self._venue_prober.ask_all(VERIFY_AT_START))
            await self._poller.ask_all(POLL_AT_START)
            self._warn_of_absent()
            calls = Calls(self._dispatcher, monotonic, self._observer)
            rpc = self._rpc = RpcEdge(table, calls, monotonic, self._observer)
            self._streams = Streams(
                lambda: rpc.table,
                calls,
                self._feeds.__getitem__,
                self._observer,
                monotonic,
                self._chance,
                settings.websockets,
                self._report,
                self._redactor.scrub_bytes,
            )
            rest = RestEdge(Forwarder(monotonic), monotonic, self._observer)
            self._venue_sockets = VenueSockets(
                lambda: rpc.table, self._observer, monotonic, settings.websockets, self._report
            )
            public = self._listener(PublicApp(rpc, rest, public_pages(self)), self._upgrade)
            token = settings.operations.token.reveal() if settings.operations.token else None
            operations = self._listener(operations_pages(self, token, lambda: rpc.table.hosts))
            await public.start(*host_and_port(settings.listen))
            self._listeners.append(public)
            await operations.start(*host_and_port(settings.operations.listen))
            self._listeners.append(operations)
        except BaseException:
            await self.stop(drain_for=0.0)
            raise
        for work in (self._prober.run(), self._poller.run(), self._venue_prober.run(), self._keep_diary()):
            self._errands.start(work)
        for route in self.all_routes:
            for engine in route.engines:
                self._errands.start(engine.warm())
        if self._config_path is not None:
            self._errands.start(self._watch(self._config_path))
        self._started.set()
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again by the collector

    async def stop(self, drain_for: float | None = None) -> int:
        """Readiness off, in-flight calls finish, then close.  Returns how many calls were cut off."""
        self.draining = True
        wait = self.settings.drain_for if drain_for is None else drain_for
        cut_off = sum(await asyncio.gather(*(listener.stop(wait, monotonic) for listener in self._listeners)))
        if self._streams is not None:
            await self._streams.close()
        if self._venue_sockets is not None:
            await self._venue_sockets.close()
        await self._errands.end()
        await asyncio.gather(*(feeds.close() for feeds in self._feeds.values()))
        await self._auditor.close()
        for built in self._built:
            await built.close()
        await self._stack.aclose()
        await asyncio.to_thread(self._tracer.shutdown)
        return cut_off

    async def reload(self) -> bool:
        """Read the configuration again; on any problem keep the old one and say so.  True when applied.

        While the gateway starts, this waits: what is being started must not be replaced under it.
        """
        if self._config_path is None:
            return False
        await self._started.wait()
        try:
            settings = load(self._config_path)
            if self._listen is not None:
                settings = with_listen(settings, self._listen)
            fixed = _cannot_change(self.settings, settings)
            if fixed:
                raise ConfigError(
                    [f"{self._config_path}: {name} cannot change while running; restart" for name in fixed]
                )
            self._mask(settings)
            table = self._adopt(settings)
        except (ConfigError, ValueError, OSError) as error:
            problems = error.problems if isinstance(error, ConfigError) else [str(error)]
            self._config_state = {**self._config_state, "problems": [self._redactor.scrub(p) for p in problems]}
            self._metrics.config_reloads.count("refused")
            logger.error("configuration not applied, the old one stays", extra={"problems": problems})
            return False
        assert self._rpc is not None
        self.settings = settings
        self._rpc.table = table
        if self._streams is not None:
            self._streams.reloaded()
        if self._venue_sockets is not None:
            self._venue_sockets.reloaded()
        self._config_state = {"loaded_at": round(wall_seconds(), 3), "problems": []}
        self._metrics.config_reloads.count("applied")
        self._metrics.keep_only({r.name: [e.id for e in r.pool.endpoints] for r in self.all_routes})
        logger.info("configuration applied")
        self._errands.start(self._prober.verify_all(VERIFY_AT_START))
        return True

    def reload_soon(self) -> None:
        """`reload` for whoever cannot wait, such as the handler of a signal."""
        self._errands.start(self.reload())

    def _mask(self, settings: Settings) -> None:
        """Learn the secrets of `settings`, and keep those of before while what uses them may still speak."""
        now = monotonic()
        self._past_secrets = {secret: until for secret, until in self._past_secrets.items() if until > now}
        self._past_secrets |= dict.fromkeys(secrets_of(self.settings), now + SECRETS_LIVE)
        self._redactor.replace([*self._past_secrets, *secrets_of(settings)])

    # --- what the pages ask (edge.pages.House) ----------------------------------------------------

    def status(self) -> dict[str, Any]:
        report = status_report(
            self.all_routes, monotonic(), version=__version__, started_at=self._started_at, config=self._config_state
        )
        venues = {route.name: route for route in self.venues}
        for row in report["routes"]:
            if row["name"] in venues:
                row["venue"] = venue_status(venues[row["name"]], monotonic())
            else:
                row["feeds"] = self._feeds[row["name"]].snapshot()
        report["sockets"] = self.sockets
        return report

    def chains(self) -> list[str]:
        """The names of the routes that take JSON-RPC."""
        return [route.name for route in self.routes]

    def readiness(self) -> tuple[bool, list[str]]:
        return readiness(self.all_routes, monotonic(), self.draining)

    def explain(self, route: str, method: str) -> dict[str, Any] | None:
        found = self.route(route)
        if isinstance(found, VenueRoute):
            return venue_explanation(found, method, monotonic())
        if found is None:
            return None
        return explanation(
            found.name, found.pool, found.dialect.call(method or "eth_blockNumber", b"", None), monotonic()
        )

    def drain(self, route: str, endpoint: str, out: bool) -> bool:
        found = self.route(route)
        position = found.pool.position_of(endpoint) if found is not None else None
        if found is None or position is None:
            return False
        if out:
            found.pool.drain(position, monotonic())
        else:
            found.pool.undrain(position)
        return True

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return self._metrics.expose(accept)

    def route(self, name: str) -> Route | VenueRoute | None:
        """A route by its name or an alias."""
        return next((r for r in self.all_routes if name == r.name or name in r.aliases), None)

    # --- wiring -----------------------------------------------------------------------------------

    def _adopt(self, settings: Settings) -> Table:
        """Build the routes of `settings`, taking over what did not change, and make them current."""
        builder = RouteBuilder(
            settings,
            self._resolver,
            self._metrics,
            self._chance,
            self._observer.moved,
            self._connectivity,
            self._budgets,
            self._connects,
        )
        built = [builder.build(name) for name in settings.routes]
        retired: list[Any] = []
        old = {b.route.name: b for b in self._built}
        for new in built:
            before = old.get(new.route.name)
            if before is not None:
                new.take_over(before)
        venues = [b.route for b in built if isinstance(b.route, VenueRoute)]
        share_budgets(venues)
        for before in self._built:
            retired += before.engines_not_in(built)
            if isinstance(before.route, VenueRoute):
                before.route.gate_stays = any(route.gate is before.route.gate for route in venues)
                if all(route.shelf is not before.route.shelf for route in venues):
                    retired.append(before.route)
        self._built = built
        names = {endpoint.provider for b in built for endpoint in b.route.pool.endpoints}
        self._connectivity.providers(len(names))
        self._adopt_feeds()
        if retired:
            self._errands.start(_close_later(retired))
        return build_table(settings, [b.exposed for b in built], self.settings.limits)

    def _adopt_feeds(self) -> None:
        """Give each route's feeds the route as it is now; those of removed routes end."""
        for built in self._built:
            name = built.route.name
            if isinstance(built.route, VenueRoute):
                continue
            if name not in self._feeds:
                self._feeds[name] = Feeds(
                    self._dispatcher,
                    self._resolver,
                    self._connects,
                    monotonic,
                    self._chance,
                    self._observer.replaced,
                    self._report,
                )
            self._feeds[name].adopt(built.route, built.sockets, built.feed_settings)
        for name in self._feeds.keys() - {route.name for route in self.routes}:
            self._errands.start(self._feeds.pop(name).close())

    def _warn_of_absent(self) -> None:
        """Starting without an endpoint is fine; not hearing of it is not."""
        for route in self.all_routes:
            for state in route.pool.states:
                if not state.verified:
                    logger.warning(
                        "endpoint %s of route %s has not answered; it is asked again every second",
                        state.endpoint.id,
                        route.name,
                    )

    def _upgrade(self, scope: dict[str, Any]) -> Handler:
        """Who takes a caller's WebSocket.  Raises CallerError."""
        assert self._streams is not None
        assert self._venue_sockets is not None
        located = self._venue_sockets.locate(scope)
        return self._streams.upgrade(scope) if located is None else self._venue_sockets.upgrade(located, scope)

    def _listener(self, app: Any, upgrade: Upgrade | None = None) -> Listener:
        return Listener(
            app,
            self.settings.limits,
            report=self._report,
            count_refusal=self._observer.rejected,
            upgrade=upgrade,
            socket_limits=self.settings.websockets,
        )

    def _report(self, error: BaseException) -> None:
        logger.error("a request failed inside the gateway", exc_info=error)

    def _gauges(self) -> list[EndpointGauge]:
        return list(endpoint_gauges(self.all_routes, monotonic()))

    def _route_gauges(self) -> list[RouteGauge]:
        return list(route_gauges(self.all_routes, monotonic()))

    async def _keep_diary(self) -> None:
        while True:
            await asyncio.sleep(DIARY_EVERY)
            now = monotonic()
            self._diary.look(self.all_routes, now)
            self._observer.settle(now)

    async def _watch(self, path: Path) -> None:
        async for _ in watch(path):
            await self.reload()


def _cannot_change(old: Settings, new: Settings) -> list[str]:
    """The settings that a reload cannot apply."""
    fixed = ("listen", "operations", "limits", "websockets", "telemetry", "simulated")
    return [name for name in fixed if getattr(old, name) != getattr(new, name)]


async def _close_later(engines: list[Any]) -> None:
    try:
        await asyncio.sleep(OLD_ENGINES_LIVE)
    finally:  # a stop does not wait so long, and closes them all the same
        for engine in engines:
            await engine.close()

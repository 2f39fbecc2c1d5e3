"""From a route's settings to a running route, and from all of them to the edge's table.

Always true: two routes share nothing but the resolver; an endpoint whose way out and policies are
unchanged keeps its connections and its health through a reload.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.catalogue.chains import Chain, find
from gateway.catalogue.ranges import load_ranges
from gateway.clock import monotonic, wall_seconds
from gateway.config.settings import EndpointSettings, RouteSettings, Settings
from gateway.dialect.protocol import Dialect
from gateway.dialect.registry import dialect_named
from gateway.dialect.venue import Venue
from gateway.edge.access import Caller, Callers, Hosts, Origins
from gateway.edge.calls import RpcRoute
from gateway.edge.rpc import Table
from gateway.edge.venues import Venues, VenueTarget
from gateway.limits import EdgeLimits, FeedSettings
from gateway.model import DOMAIN_LABELS, Endpoint, Family, Rhythm
from gateway.policy.budget import TokenBucket
from gateway.policy.connectivity import Connectivity
from gateway.policy.quota import ProviderBudget, QuotaSettings
from gateway.telemetry.metrics import Metrics
from gateway.upstream.calls.route import Route
from gateway.upstream.calls.waiting import Waiting
from gateway.upstream.fleet.permits import Moved, PoolSettings
from gateway.upstream.fleet.placement import Placer
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.venues.route import VenueRoute
from gateway.upstream.wire.engine import Engine
from gateway.upstream.wire.outbound import Outbound, build_engine
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.sockets import ConnectBudget, SocketTarget, socket_target
from gateway.upstream.wire.transport import ConnectionPool
from gateway.venue_routes import build_venue, families_of, method_policy, take_over


@dataclass(slots=True, eq=False)
class Built:
    """A route with what a later reload compares: one fingerprint per endpoint."""

    route: Route | VenueRoute
    exposed: RpcRoute | VenueTarget
    fingerprints: list[str]
    sockets: dict[str, SocketTarget]
    feed_settings: FeedSettings

    def take_over(self, before: Built) -> None:
        """Keep the live state and the connections of every endpoint that is the same in `before`.

        An operator's drain is kept by the endpoint's id, whatever else has changed: only an operator
        ends it.
        """
        same_policies = before.route.pool.settings == self.route.pool.settings
        same = same_policies and before.route.chain_id == self.route.chain_id
        engines = list(self.route.engines)
        renewed = []
        for position, endpoint in enumerate(self.route.pool.endpoints):
            old = before.route.pool.position_of(endpoint.id)
            if old is None:
                continue
            state = before.route.pool.states[old]
            if same and before.fingerprints[old] == self.fingerprints[position]:
                self.route.pool.adopt(position, state)
                engines[position] = before.route.engines[old]
                continue
            if before.fingerprints[old] != self.fingerprints[position]:
                renewed.append(position)
            if state.drained_at is not None:
                self.route.pool.drain(position, state.drained_at)
        self.route.engines = engines
        if before.route.chain_id == self.route.chain_id:
            self.route.pool.inherit(before.route.pool)
        for position in renewed:
            self.route.pool.renewed(position, monotonic())
        if isinstance(self.route, VenueRoute):
            if isinstance(before.route, VenueRoute):
                take_over(self.route, before.route)
        elif self.route.place is not None:
            self.route.place(0)  # what was found out before is still true
        self.listen()

    def listen(self) -> None:
        """Have each endpoint's state told when its last connection closes."""
        pool = self.route.pool
        if isinstance(self.route, VenueRoute):
            return  # certificates say who is at the other end, and there is no chain to be asked for
        for state, engine in zip(pool.states, self.route.engines, strict=True):
            if isinstance(engine, ConnectionPool):
                engine.on_last_closed = functools.partial(pool.lost_touch, state)

    def engines_not_in(self, current: list[Built]) -> list[Engine]:
        """The engines that nobody uses any more."""
        used = {id(engine) for built in current for engine in built.route.engines}
        return [engine for engine in self.route.engines if id(engine) not in used]

    async def close(self) -> None:
        if isinstance(self.route, VenueRoute):
            await self.route.close()
        for engine in self.route.engines:
            await engine.close()


Budgeted = tuple[QuotaSettings, ProviderBudget]
"""A live budget with the settings that it was made from."""


class RouteBuilder:
    """Builds the routes of one `Settings`."""

    def __init__(
        self,
        settings: Settings,
        resolver: Resolver,
        metrics: Metrics,
        chance: random.Random,
        tell: Callable[[Moved], None],
        connectivity: Connectivity,
        budgets: dict[str, Budgeted],
        connects: ConnectBudget,
    ) -> None:
        self._settings = settings
        self._resolver = resolver
        self._metrics = metrics
        self._chance = chance
        self._tell = tell
        self._connectivity = connectivity
        self._budgets = budgets
        self._connects = connects
        self._tables = [load_ranges(path) for path in settings.domains.ranges]

    def _budgets_of(self, route: RouteSettings) -> Callable[[Endpoint], ProviderBudget]:
        """The live budget of an endpoint's account: one for all endpoints of a provider, kept through reloads."""
        own = {endpoint.id: endpoint.budget for endpoint in route.endpoints}

        def find(endpoint: Endpoint) -> ProviderBudget:
            provider = self._settings.providers.get(endpoint.provider)
            settings = own.get(endpoint.id) or (provider.budget if provider is not None else QuotaSettings())
            name = endpoint.provider if provider is not None else f"{endpoint.route}/{endpoint.id}"
            known = self._budgets.get(name)
            if known is None or known[0] != settings:
                budget = ProviderBudget(settings, monotonic(), wall_seconds())
                if known is not None:
                    budget.inherit(known[1])
                known = self._budgets[name] = (settings, budget)
            return known[1]

        return find

    def build(self, name: str) -> Built:
        """The running route called `name`."""
        settings = self._settings
        route = settings.routes[name]
        transport = route.transport or settings.defaults.transport
        chain = find(route.chain) if route.chain is not None else None
        known = chain or (find(route.chain_id) if route.chain_id is not None else None)
        venue = route.exchange
        outbounds = [_outbound(endpoint, venue is not None) for endpoint in route.endpoints]
        pool = self._pool(name, route, venue, known)
        stats = self._metrics.route(name)
        engines = [build_engine(outbound, transport, self._resolver, monotonic) for outbound in outbounds]
        fingerprints = [outbound.fingerprint(transport) for outbound in outbounds]
        feeds = route.feeds or settings.defaults.feeds
        if venue is not None:
            target = build_venue(
                name, settings, venue, pool, engines, transport, stats, self._resolver, self._connects, self._chance
            )
            return Built(target.route, target, fingerprints, {}, feeds)
        running = Route(
            name,
            pool,
            engines,
            _dialect(route, chain),
            transport,
            stats,
            chain_id=route.chain_id if route.chain_id is not None else (chain.id if chain is not None else None),
            aliases=tuple(route.aliases),
            title=chain.title if chain is not None else name,
            blooms=known.blooms if known is not None else True,
            consensus=dict(route.consensus),
            last_call_at=monotonic(),
            waiting=Waiting(pool, monotonic, self._chance, stats),
        )
        exposed = RpcRoute(running, method_policy(settings, route))
        if settings.domains.infer:
            hosts = [host_of(endpoint.url.reveal()) for endpoint in route.endpoints]
            running.place = Placer(pool, hosts, self._resolver, self._tables, monotonic).place
        built = Built(
            running,
            exposed,
            fingerprints,
            _sockets(pool.endpoints, outbounds),
            feeds,
        )
        built.listen()
        return built

    def _pool(self, name: str, route: RouteSettings, venue: Venue | None, known: Chain | None) -> Pool:
        """The endpoints of a route with its policies.  `known`: what the catalogue says of its chain."""
        own = {part.name: getattr(route, part.name) for part in dataclasses.fields(PoolSettings)}
        policies = {name: own[name] or getattr(self._settings.defaults, name) for name in own}
        rhythm = known.rhythm if known is not None else Rhythm.DEMAND
        return Pool(
            name,
            [self._endpoint(name, endpoint, venue) for endpoint in route.endpoints],
            PoolSettings(**policies),
            monotonic,
            self._chance,
            self._tell,
            self._metrics.attempts_for,
            block_time=known.block_time if known is not None and rhythm is not Rhythm.DEMAND else None,
            rhythm=rhythm,
            connectivity=self._connectivity,
            budgets=self._budgets_of(route),
            vital=Family.MARKET if venue is not None else Family.HEAD,
        )

    def _endpoint(self, route: str, endpoint: EndpointSettings, venue: Venue | None) -> Endpoint:
        provider = self._settings.providers.get(endpoint.provider) if endpoint.provider else None
        labels = []
        for label in DOMAIN_LABELS:
            value = getattr(endpoint, label, None) or (getattr(provider, label, None) if provider else None)
            if value:
                labels.append((label, value))
        return Endpoint(
            id=endpoint.id,
            route=route,
            provider=endpoint.provider or endpoint.id,
            tier=endpoint.tier,
            weight=endpoint.weight,
            domains=tuple(labels),
            max_concurrency=endpoint.max_concurrency,
            private=endpoint.private,
            standby=endpoint.standby,
            serves=families_of(endpoint, venue) if venue is not None else None,
        )


def build_table(settings: Settings, exposed: Sequence[RpcRoute | VenueTarget], limits: EdgeLimits) -> Table:
    """Everything the edge needs of `settings`, as one value."""
    routes = [target for target in exposed if isinstance(target, RpcRoute)]
    targets = [target for target in exposed if isinstance(target, VenueTarget)]
    venues = Venues(targets, settings.default_route, only=not routes)
    callers = []
    now = monotonic()
    for name, key in settings.keys.items():
        budget = TokenBucket(key.budget.rate, key.budget.burst, now) if key.budget is not None else None
        allowed = frozenset(key.routes) if key.routes is not None else None
        callers.append((key.key.reveal(), Caller(name, allowed, budget)))
    return Table(
        routes,
        default=settings.default_route,
        callers=Callers(callers, settings.allow_anonymous),
        hosts=Hosts([*settings.hosts, *venues.hosts]),
        origins=Origins([*settings.origins, *settings.cors.origins], settings.cors.credentials),
        limits=limits,
        gzip=settings.gzip,
        answer_headers=settings.answer_headers,
        venues=venues,
    )


def _sockets(endpoints: Sequence[Endpoint], outbounds: Sequence[Outbound]) -> dict[str, SocketTarget]:
    """The WebSockets of those endpoints that have one, by endpoint id."""
    targets = ((endpoint.id, socket_target(outbound)) for endpoint, outbound in zip(endpoints, outbounds, strict=True))
    return {endpoint_id: target for endpoint_id, target in targets if target is not None}


def _dialect(route: RouteSettings, chain: Chain | None) -> Dialect:
    """What the route says, else what its chain speaks, else EVM."""
    name = route.dialect or (chain.dialect if chain is not None else "evm")
    if chain is None:
        return dialect_named(name)
    return dialect_named(
        name,
        chain=chain.name,
        head_method=chain.head_method,
        head_params=chain.head_params,
        head_path=chain.head_path,
    )


def host_of(url: str) -> tuple[str, int]:
    """Where a URL's server is."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _outbound(endpoint: EndpointSettings, forwards: bool) -> Outbound:
    return Outbound(
        forwards=forwards,
        url=endpoint.url.reveal(),
        headers={name: value.reveal() for name, value in endpoint.headers.items()},
        query={name: value.reveal() for name, value in endpoint.query.items()},
        basic=(endpoint.basic.user, endpoint.basic.password.reveal()) if endpoint.basic is not None else None,
        bearer=endpoint.bearer.reveal() if endpoint.bearer is not None else None,
        ca=endpoint.tls.ca if endpoint.tls is not None else None,
        certificate=endpoint.tls.cert if endpoint.tls is not None else None,
        private_key=endpoint.tls.key if endpoint.tls is not None else None,
        server_name=endpoint.tls.server_name if endpoint.tls is not None else None,
        http2=endpoint.http2,
        proxy=endpoint.proxy.reveal() if endpoint.proxy is not None else None,
        ws=endpoint.socket.reveal() if endpoint.socket is not None else None,
    )

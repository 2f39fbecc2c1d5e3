"""From a venue's settings to a running route: what the catalogue says, put together with what the file says.

Always true: what the file says wins; the hosts of the catalogue mean the route behind ``/via/`` even where the file
sends their calls elsewhere; a venue keeps its counts and its holds across a reload, and one that the reload left as it
was its answers, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from urllib.parse import urlsplit

from gateway.clock import monotonic
from gateway.config.settings import EndpointSettings, RouteSettings, Settings
from gateway.dialect.venue import Venue
from gateway.dialect.venue_answers import Answers
from gateway.dialect.venue_messages import Messages
from gateway.dialect.venue_requests import Requests
from gateway.edge.methods import MethodPolicy
from gateway.edge.venues import VenueTarget
from gateway.limits import TransportSettings, VenueSettings
from gateway.model import DOMAIN_LABELS, Family
from gateway.policy.turns import Turns
from gateway.policy.weights import WeightLimit, WeightLimits, WeightSettings
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.venues.gate import Gate, Rows
from gateway.upstream.venues.route import HostFacts, VenueRoute
from gateway.upstream.venues.shelf import Shelf
from gateway.upstream.venues.streams import StreamHost, VenueStreams
from gateway.upstream.venues.topics import SharedStreams
from gateway.upstream.wire.engine import Engine
from gateway.upstream.wire.outbound import Outbound
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.sockets import ConnectBudget, socket_target


def build_venue(
    name: str,
    settings: Settings,
    venue: Venue,
    pool: Pool,
    engines: Sequence[Engine],
    transport: TransportSettings,
    stats: RouteStats,
    resolver: Resolver,
    connects: ConnectBudget,
    chance: Random,
) -> VenueTarget:
    """The running route of a venue."""
    route = settings.routes[name]
    weights = route.weights or settings.defaults.weights
    own = route.venues or settings.defaults.venues
    streams = build_streams(venue, route, settings, resolver, connects, chance)
    running = VenueRoute(
        name,
        pool,
        list(engines),
        venue,
        Requests(venue),
        Answers(venue),
        build_gate(venue, weights, own),
        Rows(monotonic),
        Shelf(monotonic),
        transport,
        stats,
        own,
        [HostFacts() for _ in pool.endpoints],
        streams,
        build_shared(venue, streams) if own.share else (),
        aliases=tuple(route.aliases),
        hosts=tuple(route.hosts),
        last_call_at=monotonic(),
        fingerprint=repr((venue, weights, own, [(s, s.url.reveal()) for s in route.streams])),
        budget=repr((venue.name, venue.limits, weights, own.waiting, own.waiting_per_caller, _ways(venue, route))),
    )
    return VenueTarget(running, method_policy(settings, route), frozenset(_authorities(venue, route)))


def method_policy(settings: Settings, route: RouteSettings) -> MethodPolicy:
    """What callers of a route may ask for: what is said for all routes, and what for this one."""
    return MethodPolicy([*settings.methods.allow, *route.methods.allow], [*settings.methods.deny, *route.methods.deny])


def build_gate(venue: Venue, weights: WeightSettings, own: VenueSettings) -> Gate:
    """The venue's limits and who waits for them."""
    limits = [WeightLimit(limit.name, limit.amount, limit.window, limit.each) for limit in venue.limits]
    turns = Turns(own.waiting, own.waiting_per_caller)  # type: ignore[var-annotated]
    return Gate(WeightLimits(limits, weights), turns, monotonic)


def build_streams(
    venue: Venue,
    route: RouteSettings,
    settings: Settings,
    resolver: Resolver,
    connects: ConnectBudget,
    chance: Random,
) -> VenueStreams | None:
    """The hosts of its WebSockets; None: it has none."""
    if not route.streams:
        return None
    listed = venue.streams.hosts if venue.streams is not None else ()
    hosts = []
    for stream in route.streams:
        url = stream.url.reveal()
        name = _without_default_port(url)
        known = next((host for host in listed if host.host == name), None)
        paths = stream.paths or (known.paths if known is not None else ())
        private = stream.private or (known.private if known is not None else _private(venue))
        target = socket_target(Outbound(url=url, ws=url, forwards=True))
        assert target is not None
        same = [host.host for host in listed if known is None and not stream.paths]
        domains = tuple((label, getattr(stream, label)) for label in DOMAIN_LABELS if getattr(stream, label))
        speaks = known.speaks if known is not None else ""
        hosts.append(StreamHost(stream.id, target, paths, private, (name, *same), speaks, domains))
    feeds = route.feeds or settings.defaults.feeds
    rate, most = (venue.streams.connects, venue.streams.most_open) if venue.streams is not None else (None, None)
    return VenueStreams(hosts, resolver, connects, monotonic, chance, feeds, rate, most)


def build_shared(venue: Venue, streams: VenueStreams | None) -> tuple[SharedStreams, ...]:
    """What of its streams callers can share."""
    facts = venue.streams
    if streams is None or facts is None:
        return ()
    made = []
    for sharing in facts.sharing:
        host = next((host for host in streams.hosts if host.speaks == sharing.speaks), None)
        if host is not None:
            made.append(SharedStreams(streams, facts, Messages(sharing), monotonic, name=host.names[0]))
    return tuple(made)


def _private(venue: Venue) -> tuple[str, ...]:
    """What the catalogue calls private, for hosts that it does not know; a whole host is not a path."""
    listed = venue.streams.hosts if venue.streams is not None else ()
    return tuple(path for host in listed for path in host.private if path != "/")


def families_of(endpoint: EndpointSettings, venue: Venue) -> frozenset[Family] | None:
    """What an endpoint serves: as the file says, or the catalogue for its host; None: everything."""
    names: Sequence[str] = endpoint.serves
    if not names:
        authority = urlsplit(endpoint.url.reveal()).netloc.rpartition("@")[2].lower()
        names = next((host.serves for host in venue.hosts if host.host == authority), ())
    return frozenset(Family(name) for name in names) if names else None


def take_over(new: VenueRoute, old: VenueRoute) -> None:
    """Keep what is known and counted; where the rules are the same, all that is under way, too."""
    if new.venue.name != old.venue.name:
        return
    new.rows = old.rows  # a key's numbers rise across a reload as well
    if new.fingerprint != old.fingerprint:
        new.gate.take_over(old.gate)
    else:
        new.gate, new.shelf, new.maintenance = old.gate, old.shelf, old.maintenance
        new.streams, new.shared = old.streams, old.shared
        for position, endpoint in enumerate(new.pool.endpoints):
            before = old.pool.position_of(endpoint.id)
            if before is not None:
                new.facts[position] = old.facts[before]


def share_budgets(routes: Sequence[VenueRoute]) -> None:
    """Have routes of one venue, by whatever name, count together what leaves by one address."""
    first: dict[str, VenueRoute] = {}
    for route in routes:
        same = first.setdefault(route.budget, route)
        route.gate, route.rows = same.gate, same.rows


def _ways(venue: Venue, route: RouteSettings) -> list[tuple[str, str]]:
    """Where its calls leave from and lead to: the venue's own hosts are one place, a test network is another."""
    own = {host.host for host in venue.hosts}
    found = set()
    for endpoint in route.endpoints:
        host = _without_default_port(endpoint.url.reveal())
        found.add((endpoint.proxy.reveal() if endpoint.proxy else "", venue.name if host in own else host))
    return sorted(found)


def _authorities(venue: Venue, route: RouteSettings) -> list[bytes]:
    hosts = [host.host for host in venue.hosts]
    if venue.streams is not None:
        hosts += [host.host for host in venue.streams.hosts]
    urls = [endpoint.url for endpoint in route.endpoints]
    urls += [stream.url for stream in route.streams]
    hosts += [_without_default_port(url.reveal()) for url in urls]
    return [host.lower().encode() for host in hosts]


def _without_default_port(url: str) -> str:
    parts = urlsplit(url)
    default = {"http": 80, "ws": 80, "https": 443, "wss": 443}.get(parts.scheme)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in (None, default) else f"{host}:{parts.port}"

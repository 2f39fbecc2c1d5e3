"""The tree of settings: what a configuration file may hold, with defaults, bounds and descriptions.

Always true: a `Settings` that exists is frozen, has no unknown setting and each value in its bounds;
a default stands here once, or beside the policy whose dataclass the section is; every endpoint of a
route has an id of its own.
Does not belong here: rules between settings (crosscheck), reading files (load), what a setting does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.config.house import (
    CorsSettings,
    DomainInferenceSettings,
    KeySettings,
    OperationsSettings,
    TelemetrySettings,
)
from gateway.config.scalars import (
    CHAIN_ID_LIMIT,
    Address,
    Chain,
    Flag,
    HeaderName,
    HeaderValue,
    Hidden,
    Host,
    Name,
    Origin,
    ProxyUrl,
    ReadableFile,
    SocketUrl,
    StreamUrl,
    Text,
    Token,
    Url,
)
from gateway.config.secret import SecretUrl
from gateway.config.sections import Measured, Section, Tree
from gateway.dialect.venue import Venue, read_venue, venue_named
from gateway.limits import EdgeLimits, FeedSettings, GzipSettings, SocketLimits, TransportSettings, VenueSettings
from gateway.policy.admission import AdmissionSettings
from gateway.policy.agreement import AuditSettings, ConsensusSettings
from gateway.policy.breaker import BreakerSettings
from gateway.policy.concurrency import ConcurrencySettings
from gateway.policy.domains import DomainSettings
from gateway.policy.heads import HeadSettings
from gateway.policy.hedging import HedgeSettings
from gateway.policy.holds import HoldSettings
from gateway.policy.quota import QuotaSettings
from gateway.policy.retry import RetrySettings
from gateway.policy.selection import SelectionSettings
from gateway.policy.weights import WeightSettings

Breaker = Annotated[BreakerSettings, Section()]
Holds = Annotated[HoldSettings, Section()]
Retry = Annotated[RetrySettings, Section()]
Selection = Annotated[SelectionSettings, Section()]
Heads = Annotated[HeadSettings, Section()]
Domains = Annotated[DomainSettings, Section()]
Concurrency = Annotated[ConcurrencySettings, Section()]
Hedging = Annotated[HedgeSettings, Section()]
Admission = Annotated[AdmissionSettings, Section()]
Audit = Annotated[AuditSettings, Section()]
Consensus = Annotated[ConsensusSettings, Section()]
Quota = Annotated[QuotaSettings, Section()]
Transport = Annotated[TransportSettings, Section()]
Feeds = Annotated[FeedSettings, Section()]
Weights = Annotated[WeightSettings, Section()]
Venues = Annotated[VenueSettings, Section()]
SimulatedVenue = Literal["binance", "bybit", "coinbase_exchange", "kraken", "kucoin", "okx"]
VenueFamily = Literal["market", "account", "order", "wallet", "other"]
ChainId = Annotated[int, Measured(low=1, high=CHAIN_ID_LIMIT)]


# --- who offers what --------------------------------------------------------------------------------


class DomainLabels(Tree):
    """What fails together: endpoints with the same value of one label."""

    cloud: Text | None = Field(default=None, description="the cloud it runs in, such as aws")
    region: Text | None = Field(default=None, description="the region, such as eu-central-1")
    edge: Text | None = Field(default=None, description="the network in front of it, such as cloudflare")
    asn: Text | None = Field(default=None, description="the autonomous system of its addresses")
    operator: Text | None = Field(default=None, description="the company that runs the nodes")
    client: Text | None = Field(default=None, description="the node software, such as geth")
    account: Text | None = Field(default=None, description="the account or key that pays, if several share one")


class ProviderSettings(DomainLabels):
    """A company or a cluster of one's own; its labels and its budget hold for all of its endpoints together."""

    budget: Quota = Field(default=QuotaSettings(), description="what the account may be asked, in its own units")


class BasicSettings(Tree):
    """A user name and a password, sent with every request (RFC 7617)."""

    user: Text = Field(description="user name")
    password: Hidden = Field(description="password; write ${NAME}")


class TlsSettings(Tree):
    """Certificates for one endpoint: whom to trust, and who we are."""

    ca: ReadableFile | None = Field(default=None, description="PEM file of the only authority to trust")
    cert: ReadableFile | None = Field(default=None, description="PEM file of the client certificate")
    key: ReadableFile | None = Field(default=None, description="PEM file of its private key")
    server_name: Text | None = Field(
        default=None, description="name in the server's certificate, if not the URL's host"
    )


class EndpointSettings(DomainLabels):
    """One URL of a provider.  A bare URL stands for a mapping with `url` alone."""

    url: Url = Field(description="where calls go; may hold ${NAME}")
    ws: SocketUrl = Field(
        default=False, description="its WebSocket: a ws:// or wss:// URL, or true for the same host and path"
    )
    id: Name = Field(
        default="", description="name in metrics, logs and headers; default: the provider's, or the host's"
    )
    provider: Name | None = Field(default=None, description="an entry of `providers`, whose labels it takes")
    tier: Annotated[int, Measured(low=0, high=100)] = Field(default=0, description="lower tiers are used first")
    weight: Annotated[float, Measured(low=0.01, high=1000)] = Field(default=1.0, description="share inside its tier")
    headers: dict[HeaderName, HeaderValue] = Field(default={}, description="headers added to each request")
    query: dict[str, Hidden] = Field(default={}, description="parameters added to the URL")
    basic: BasicSettings | None = Field(default=None, description="HTTP Basic credentials")
    bearer: Token | None = Field(default=None, description="token for Authorization: Bearer")
    tls: TlsSettings | None = Field(default=None, description="certificates other than the system's")
    http2: Flag = Field(default=False, description="use HTTP/2 when the endpoint offers it")
    proxy: ProxyUrl | None = Field(default=None, description="HTTP or SOCKS proxy to reach it through")
    max_concurrency: Annotated[int, Measured(low=1, high=100_000)] = Field(
        default=1024, description="most calls at it at once"
    )
    private: Flag = Field(default=False, description="transactions of the route go only to private endpoints")
    standby: Flag = Field(default=False, description="asked nothing, not even for its head, while others serve")
    budget: Quota | None = Field(default=None, description="for an endpoint without `provider`: what it may be asked")
    serves: tuple[VenueFamily, ...] = Field(
        default=(), description="of a venue: the only families of calls it serves; default: the catalogue's, or all"
    )

    @property
    def socket(self) -> SecretUrl | None:
        """Where its WebSocket is, if it has one."""
        if isinstance(self.ws, SecretUrl):
            return self.ws
        return SecretUrl("ws" + self.url.reveal()[len("http") :], self.url.parts) if self.ws else None

    @model_validator(mode="before")
    @classmethod
    def _bare_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class MethodsSettings(Tree):
    """Names, or prefixes ending in ``*``."""

    allow: tuple[Text, ...] = Field(
        default=(), description="if any: only these; the dangerous ones must be named in full"
    )
    deny: tuple[Text, ...] = Field(default=(), description="refused in any case")


class StreamSettings(DomainLabels):
    """A host of an exchange's WebSockets.  A bare URL stands for a mapping with `url` alone."""

    url: StreamUrl = Field(description="ws:// or wss:// URL; what callers ask for is added to it")
    id: Name = Field(default="", description="name in metrics, logs and pages; default: the host's")
    paths: tuple[Text, ...] = Field(default=(), description="prefixes it serves; default: the catalogue's, or all")
    private: tuple[Text, ...] = Field(default=(), description="those of them that belong to one caller")

    @model_validator(mode="before")
    @classmethod
    def _bare_url(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class RouteSettings(Tree):
    """What a caller addresses: a chain or a venue, and the endpoints that serve it."""

    venue: Text | None = Field(default=None, description="name in the catalogue of exchanges")
    venue_file: ReadableFile | None = Field(default=None, description="a file of your own instead of the catalogue's")
    hosts: tuple[Host, ...] = Field(default=(), description="of a venue: host names by which callers address it")
    streams: tuple[StreamSettings, ...] = Field(
        default=(), description="of a venue: hosts of its WebSockets; default: the catalogue's"
    )
    chain: Chain | None = Field(default=None, description="name or id in the catalogue of chains")
    dialect: Literal["evm", "solana", "bitcoin", "generic"] | None = Field(
        default=None, description="default: the chain's, or evm"
    )
    chain_id: ChainId | None = Field(default=None, description="default: the chain's, or what the endpoints say")
    aliases: tuple[Name, ...] = Field(default=(), description="further names")
    endpoints: tuple[EndpointSettings, ...] = Field(
        min_length=1, description="URLs, or mappings with a url; of a venue, default: the catalogue's"
    )
    methods: MethodsSettings = Field(
        default=MethodsSettings(), description="method policy of this route, added to the general one"
    )
    breaker: Breaker | None = Field(default=None, description="instead of defaults.breaker")
    holds: Holds | None = Field(default=None, description="instead of defaults.holds")
    retry: Retry | None = Field(default=None, description="instead of defaults.retry")
    selection: Selection | None = Field(default=None, description="instead of defaults.selection")
    heads: Heads | None = Field(default=None, description="instead of defaults.heads")
    domains: Domains | None = Field(default=None, description="instead of defaults.domains")
    concurrency: Concurrency | None = Field(default=None, description="instead of defaults.concurrency")
    hedging: Hedging | None = Field(default=None, description="instead of defaults.hedging")
    admission: Admission | None = Field(default=None, description="instead of defaults.admission")
    audit: Audit | None = Field(default=None, description="instead of defaults.audit")
    consensus: dict[Text, Consensus] = Field(
        default={}, description="methods, in full, that several endpoints must agree on before they are answered"
    )
    transport: Transport | None = Field(default=None, description="instead of defaults.transport")
    feeds: Feeds | None = Field(default=None, description="instead of defaults.feeds")
    weights: Weights | None = Field(default=None, description="instead of defaults.weights")
    venues: Venues | None = Field(default=None, description="instead of defaults.venues")

    @property
    def exchange(self) -> Venue | None:
        """The venue it is; None: it is a chain."""
        if self.venue_file is not None:
            with open(self.venue_file, "rb") as file:
                return read_venue(file.read())
        return venue_named(self.venue) if self.venue is not None else None

    @model_validator(mode="before")
    @classmethod
    def _hosts_of_the_catalogue(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not (value.get("venue") or value.get("venue_file")):
            return value
        venue = _venue_of(value)
        if venue is None:  # told elsewhere (crosscheck)
            return value if value.get("endpoints") else {**value, "endpoints": ["https://venue.invalid"]}
        made = dict(value)
        if value.get("endpoints") is None:
            made["endpoints"] = [
                {
                    "url": f"https://{host.host}",
                    "serves": list(host.serves),
                    "tier": host.tier,
                    "provider": None,
                    **{label: getattr(host, label) for label in _VENUE_LABELS if getattr(host, label)},
                }
                for host in venue.hosts
            ]
        if value.get("streams") is None and venue.streams is not None:
            made["streams"] = [
                {
                    "url": f"wss://{host.host}",
                    "paths": list(host.paths),
                    "private": list(host.private),
                    **{label: getattr(host, label) for label in _VENUE_LABELS if getattr(host, label)},
                }
                for host in venue.streams.hosts
            ]
        return made

    @field_validator("streams", mode="after")
    @classmethod
    def _give_stream_ids(cls, streams: tuple[StreamSettings, ...]) -> tuple[StreamSettings, ...]:
        ids = endpoint_ids([(s.id, None, s.url.reveal()) for s in streams])
        return tuple(s if s.id else s.model_copy(update={"id": name}) for s, name in zip(streams, ids, strict=True))

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"endpoints": value} if isinstance(value, (list, tuple)) else value

    @field_validator("endpoints", mode="after")
    @classmethod
    def _give_ids(cls, endpoints: tuple[EndpointSettings, ...]) -> tuple[EndpointSettings, ...]:
        ids = endpoint_ids([(e.id, e.provider, e.url.reveal()) for e in endpoints])
        return tuple(e if e.id else e.model_copy(update={"id": name}) for e, name in zip(endpoints, ids, strict=True))


_VENUE_LABELS = ("cloud", "region", "edge")


def _venue_of(data: dict[str, Any]) -> Venue | None:
    """The venue that a route's data name; None: there is none, or its file cannot be used."""
    path, name = data.get("venue_file"), data.get("venue")
    try:
        if isinstance(path, str):
            with open(path, "rb") as file:
                return read_venue(file.read())
        return venue_named(name) if isinstance(name, str) else None
    except (OSError, ValueError):
        return None


def endpoint_ids(endpoints: Sequence[tuple[str, str | None, str]]) -> list[str]:
    """The ids of a route's endpoints, given (id, provider, URL) of each: given ones stay, others are made unique."""
    taken = {given for given, _, _ in endpoints if given}
    ids = []
    for given, provider, url in endpoints:
        made = given or provider or host_slug(url)
        number = 1
        chosen = made
        while not given and chosen in taken:
            number += 1
            chosen = f"{made[:58]}-{number}"
        taken.add(chosen)
        ids.append(chosen)
    return ids


def host_slug(url: str) -> str:
    """A URL's host and unusual port as a name: ``rpc.example.org``, ``127.0.0.1-8545``."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "endpoint", parts.port
    except ValueError:
        host, port = "endpoint", None
    slug = re.sub(r"[^A-Za-z0-9.-]+", "-", host).strip("-.")[:50] or "endpoint"
    return f"{slug}-{port}" if port not in (None, 80, 443) else slug


class DefaultsSettings(Tree):
    """Policies of routes that do not have their own."""

    breaker: Breaker = Field(default=BreakerSettings(), description="when an endpoint is taken out, and how it returns")
    holds: Holds = Field(default=HoldSettings(), description="how long a throttled or refused endpoint is left alone")
    retry: Retry = Field(default=RetrySettings(), description="how often and how long a call is tried")
    selection: Selection = Field(default=SelectionSettings(), description="how the choice between endpoints measures")
    heads: Heads = Field(default=HeadSettings(), description="newest blocks: how they are followed, who is behind")
    domains: Domains = Field(default=DomainSettings(), description="when what fails together is suspected as a whole")
    concurrency: Concurrency = Field(
        default=ConcurrencySettings(), description="calls at once, learned from refusals and timeouts"
    )
    hedging: Hedging = Field(default=HedgeSettings(), description="a second leg for reads that take too long")
    admission: Admission = Field(default=AdmissionSettings(), description="who waits while all endpoints are busy")
    audit: Audit = Field(default=AuditSettings(), description="reads asked twice, to find who answers wrongly")
    transport: Transport = Field(default=TransportSettings(), description="connections, timeouts and sizes upstream")
    feeds: Feeds = Field(default=FeedSettings(), description="sockets to endpoints, for subscriptions")
    weights: Weights = Field(default=WeightSettings(), description="how the rate limits of exchanges are shared")
    venues: Venues = Field(default=VenueSettings(), description="what exchanges are asked for our own sake")


# --- the whole --------------------------------------------------------------------------------------


class SimulatedSettings(Tree):
    """A pretended provider, or host of an exchange, inside the process, to try things without keys or network."""

    listen: Address = Field(description="address, such as 127.0.0.1:4101; of an exchange's host: on 127.0.0.1")
    venue: SimulatedVenue | None = Field(
        default=None, description="an exchange in place of a chain; entries with the same one are hosts of it"
    )
    chain_id: ChainId = Field(default=31337, description="providers with the same chain id share one chain")
    block_time: Annotated[float, Measured("s", 0.05, 3600)] = Field(default=2.0, description="time between two blocks")
    latency: Annotated[float, Measured("s", 0, 60)] = Field(default=0.0, description="time it takes to answer")
    client_version: Text = Field(default="Simulated/v1.0.0", description="what it says it is")


class Settings(Tree):
    """The whole file."""

    listen: Address = Field(default="127.0.0.1:4000", description="address for callers")
    operations: OperationsSettings = Field(default=OperationsSettings(), description="the second listener")
    hosts: tuple[Host, ...] = Field(
        default=(), description="host names to answer for, beside localhost, IP addresses and this machine's name"
    )
    origins: tuple[Origin, ...] = Field(default=(), description="browser origins that may use the gateway")
    cors: CorsSettings = Field(default=CorsSettings(), description="cross-origin pages")
    default_route: Name | None = Field(default=None, description="the route of /; not needed when there is only one")
    answer_headers: Flag = Field(default=True, description="say in X-Seawall-* headers who answered")
    drain_for: Annotated[float, Measured("s", 0, 600)] = Field(
        default=10.0, description="time that calls in flight get when it stops"
    )
    limits: Annotated[EdgeLimits, Section()] = Field(default=EdgeLimits(), description="what callers may ask of us")
    websockets: Annotated[SocketLimits, Section()] = Field(
        default=SocketLimits(), description="what callers may ask of us over a WebSocket"
    )
    gzip: Annotated[GzipSettings, Section()] = Field(default=GzipSettings(), description="compressed answers")
    keys: dict[Name, KeySettings] = Field(default={}, description="caller keys; with none, everybody may ask")
    allow_anonymous: Flag = Field(default=False, description="let callers without a key in although there are keys")
    methods: MethodsSettings = Field(default=MethodsSettings(), description="method policy of all routes")
    providers: dict[Name, ProviderSettings] = Field(default={}, description="who offers endpoints, and what they share")
    domains: DomainInferenceSettings = Field(
        default=DomainInferenceSettings(), description="failure domains that are not written down"
    )
    routes: dict[Name, RouteSettings] = Field(min_length=1, description="what callers can address")
    defaults: DefaultsSettings = Field(default=DefaultsSettings(), description="policies of all routes")
    telemetry: TelemetrySettings = Field(default=TelemetrySettings(), description="logs and traces")
    simulated: dict[Name, SimulatedSettings] = Field(
        default={}, description="pretended providers, started with the gateway"
    )

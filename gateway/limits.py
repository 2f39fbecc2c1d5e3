"""Limits of size and time, for callers (edge) and for upstreams, and the paces of what is done for our own sake.

Always true: every buffer, wait and count that someone outside can drive has a bound here, with its
default and unit.  They live on floor 0 because the configuration reads them and floors 3 and 4
obey them, and no policy decides by them.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.bounds import require_bounds, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How an endpoint is called: times in seconds, sizes in bytes.  Raises ValueError out of bounds, as all here do."""

    connect_timeout: float = setting(
        1.0, "time to open a TCP connection, all addresses together", unit="s", low=0.05, high=60
    )
    tls_timeout: float = setting(2.0, "time for the TLS handshake", unit="s", low=0.05, high=60)
    attempt_timeout: float = setting(
        3.0, "time for one attempt, from sending to the last byte", unit="s", low=0.05, high=600
    )
    heavy_attempt_timeout: float = setting(
        20.0, "the same for heavy reads (logs, traces)", unit="s", low=0.05, high=600
    )
    stream_idle_timeout: float = setting(10.0, "longest silence inside a streamed answer", unit="s", low=0.1, high=600)
    keep_idle_for: float = setting(15.0, "idle connections are closed after this", unit="s", low=0.5, high=600)
    idle_connections: int = setting(64, "idle connections kept per endpoint", low=1, high=4096)
    warm_connections: int = setting(1, "connections opened at start, before the first call", low=0, high=64)
    answer_buffer: int = setting(
        1_000_000, "larger answers are streamed through", unit="bytes", low=4096, high=64_000_000
    )
    answer_limit: int = setting(
        1_000_000_000, "an answer larger than this (decoded) is cut off", unit="bytes", low=65536, high=100_000_000_000
    )

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """What a caller may ask of us over HTTP."""

    body: int = setting(2_000_000, "largest request body", unit="bytes", low=1024, high=256_000_000)
    batch_items: int = setting(100, "most items in a batch", low=1, high=10_000)
    depth: int = setting(64, "deepest nesting of a request's JSON", low=4, high=512)
    head_bytes: int = setting(
        32_000, "largest request head, all header fields together", unit="bytes", low=1024, high=1_000_000
    )
    head_fields: int = setting(100, "most header fields", low=8, high=1000)
    target_bytes: int = setting(8_000, "longest request target (path and query)", unit="bytes", low=256, high=64_000)
    head_timeout: float = setting(
        5.0, "time from a request's first byte to the end of its head", unit="s", low=0.1, high=120
    )
    body_timeout: float = setting(
        10.0, "time for the body, beside what 64 KB/s would need", unit="s", low=0.1, high=600
    )
    keep_alive: float = setting(75.0, "idle connections of callers are closed after this", unit="s", low=1, high=3600)
    write_timeout: float = setting(
        30.0, "a caller that does not read its answer for so long is cut off", unit="s", low=1, high=600
    )
    connections: int = setting(
        4096, "most connections at once; lowered to half of the descriptors allowed", low=1, high=1_000_000
    )

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketLimits:
    """What a caller may ask of us over a WebSocket."""

    message: int = setting(4_000_000, "largest message from a caller", unit="bytes", low=1024, high=64_000_000)
    answer: int = setting(
        32_000_000,
        "largest answer sent over a socket, a batch's answers together; larger ones need HTTP",
        unit="bytes",
        low=65536,
        high=1_000_000_000,
    )
    queue: int = setting(
        1_000_000,
        "bytes that may wait for a caller to read them; one that is slower is dropped with 1013",
        unit="bytes",
        low=16_384,
        high=256_000_000,
    )
    subscriptions: int = setting(50, "most subscriptions of one socket", low=1, high=100_000)
    in_flight: int = setting(
        64, "calls of one socket that are answered at once; the next ones wait", low=5, high=10_000
    )
    sockets: int = setting(10_000, "most sockets at once", low=1, high=1_000_000)
    ping_every: float = setting(20.0, "silence after which a caller is pinged", unit="s", low=1, high=3600)
    pong_within: float = setting(20.0, "time a pinged caller has to say anything", unit="s", low=1, high=3600)
    compression: bool = setting(False, "offer permessage-deflate; costs memory and time for each socket")

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueSettings:
    """What is asked of an exchange for our own sake, and who may wait for its limits."""

    probe_every: float = setting(5.0, "time between two pings of each host", unit="s", low=0.5, high=3600)
    pulse_every: float = setting(
        10.0, "time between two looks whether a host's public data move", unit="s", low=1, high=3600
    )
    share: bool = setting(True, "let callers share public answers while they are fresh, and requests under way")
    waiting: int = setting(10_000, "most requests that wait for the venue's limits", low=1, high=1_000_000)
    waiting_per_caller: int = setting(1000, "most of these of one caller", low=1, high=1_000_000)

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings:
    """How subscriptions are fed: upstream WebSockets."""

    sources: int = setting(2, "endpoints that feed new heads at the same time", low=1, high=4)
    open_within: float = setting(5.0, "time to open a socket, handshake included", unit="s", low=0.1, high=60)
    ping_every: float = setting(15.0, "time between two pings", unit="s", low=0.5, high=600)
    pong_within: float = setting(10.0, "time an endpoint has to answer a ping", unit="s", low=0.1, high=600)
    message: int = setting(32_000_000, "largest message from an endpoint", unit="bytes", low=65536, high=1_000_000_000)
    first_pause: float = setting(
        0.25, "pause before a lost socket is opened again; doubles", unit="s", low=0.01, high=60
    )
    longest_pause: float = setting(30.0, "the longest such pause", unit="s", low=0.1, high=3600)
    kinds: int = setting(10_000, "most different subscriptions of a route at once", low=1, high=1_000_000)

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.longest_pause < self.first_pause:
            raise ValueError("longest_pause must not be below first_pause")


BODY_RATE = 64_000  # bytes a second that a body must reach beyond body_timeout


def body_deadline_for(limits: EdgeLimits, size: int) -> float:
    """Seconds a body of `size` bytes may take."""
    return limits.body_timeout + size / BODY_RATE


@dataclass(frozen=True, slots=True, kw_only=True)
class GzipSettings:
    """Which answers are packed for callers that take it so."""

    enabled: bool = setting(True, "compress answers for callers that ask for gzip")
    min_bytes: int = setting(
        2048, "smaller answers stay plain: compressing costs more than it saves", unit="bytes", low=0, high=100_000_000
    )
    level: int = setting(1, "zlib level; 1 is fastest", low=1, high=9)

    def __post_init__(self) -> None:
        require_bounds(self)

"""From an endpoint's settings to its engine: the only place where a URL and its secrets are put together.

Always true: what is dialled is what the configuration names, byte for byte; secrets go into the
request head here and are seen nowhere else; certificates are always verified.
"""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from gateway import __version__
from gateway.clock import Clock
from gateway.limits import TransportSettings
from gateway.upstream.wire.engine import Engine
from gateway.upstream.wire.httpx2_engine import Httpx2Engine
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.transport import ConnectionPool, Target


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Outbound:
    """How one endpoint is reached, secrets included; therefore without a repr.

    `forwards`: requests pass as callers sent them, and get nothing but what the configuration names.
    `ws` is the URL of its WebSocket; `query` is added to what either URL has of its own; `ca`,
    `certificate` and `private_key` are file paths.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    basic: tuple[str, str] | None = None
    bearer: str | None = None
    ca: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    server_name: str | None = None
    http2: bool = False
    proxy: str | None = None
    ws: str | None = None
    forwards: bool = False

    def fingerprint(self, transport: TransportSettings) -> str:
        """Two equal fingerprints mean: calls go the same way, so live connections and health may be kept.

        The WebSocket is left out: it is compared by itself (`sockets.SocketTarget`).
        """
        parts = [getattr(self, name) for name in self.__slots__ if name != "ws"]
        return hashlib.sha256(repr((parts, transport)).encode()).hexdigest()

    def request_headers(self, url: str | None = None) -> dict[str, str]:
        """The headers of every request but Host and Content-Length; `url` instead of the endpoint's own.

        Credentials inside a URL go where that URL leads and nowhere else.
        """
        headers: dict[str, str] = (
            {}
            if self.forwards
            else {
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "User-Agent": f"seawall/{__version__}",
            }
        )
        parts = urlsplit(url or self.url)
        basic = self.basic
        if basic is None and parts.username is not None:
            basic = (parts.username, parts.password or "")
        if basic is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{basic[0]}:{basic[1]}".encode()).decode()
        if self.bearer is not None:
            headers["Authorization"] = f"Bearer {self.bearer}"
        headers.update(self.headers)
        for name, value in headers.items():
            if "\r" in value or "\n" in value or "\r" in name or "\n" in name:
                raise ValueError(f"the header {name!r} holds a line break")
        return headers

    def target(self, url: str | None = None) -> str:
        """Path and query as they are sent; `url` instead of the endpoint's own."""
        parts = urlsplit(url or self.url)
        query = parts.query
        for name, value in self.query.items():
            query += ("&" if query else "") + f"{quote(name, safe='')}={quote(value, safe='')}"
        return (parts.path or "/") + (f"?{query}" if query else "")

    def tls_context(self, url: str | None = None) -> ssl.SSLContext | None:
        """Verification cannot be switched off; a private CA replaces the system's.  `url` as for `target`."""
        if urlsplit(url or self.url).scheme not in ("https", "wss"):
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # SSLKEYLOGFILE in the environment would have the keys of all connections written to a file
        context.keylog_filename = None  # type: ignore[assignment]  # typeshed knows the getter only
        context.set_alpn_protocols(["h2", "http/1.1"] if self.http2 and url is None else ["http/1.1"])
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.private_key)
        return context


def build_engine(outbound: Outbound, transport: TransportSettings, resolver: Resolver, clock: Clock) -> Engine:
    """The engine an endpoint needs.  Raises ValueError or OSError when its settings cannot work."""
    parts = urlsplit(outbound.url)
    tls = outbound.tls_context()
    host = parts.hostname or ""
    port = parts.port or (443 if tls is not None else 80)
    if outbound.http2 or outbound.proxy is not None:
        authority = f"[{host}]" if ":" in host else host
        return Httpx2Engine(
            f"{parts.scheme}://{authority}:{port}{outbound.target()}",
            outbound.request_headers(),
            transport,
            clock,
            http2=outbound.http2,
            proxy=outbound.proxy,
            tls=tls,
        )
    shown_host = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        shown_host += f":{parts.port}"
    lines = [f"POST {outbound.target()} HTTP/1.1", f"Host: {shown_host}"]
    lines += [f"{name}: {value}" for name, value in outbound.request_headers().items()]
    head = "".join(line + "\r\n" for line in lines).encode("latin-1")
    server_name = outbound.server_name or host
    extra = "".join(f"{name}: {value}\r\n" for name, value in outbound.request_headers().items()).encode("latin-1")
    target = Target(host, port, head, tls, server_name, shown_host.encode(), parts.path.rstrip("/").encode(), extra)
    return ConnectionPool(target, transport, resolver, clock)

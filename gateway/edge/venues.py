"""Which venue a request is for: by path, by host name, or by the absolute URL behind ``/via/``.

Always true: what goes on is the rest of the target byte for byte, as the venue would have got it; an encoded URL
is decoded exactly once; only hosts that the configuration names are reached, so this is no open proxy; a
key in the path is ours, and credentials in headers are the venue's.
Does not belong here: what a request means (dialect), and carrying it (rest).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from gateway.edge.methods import MethodPolicy
from gateway.errors import BadHttp, UnknownRoute
from gateway.upstream.venues.route import VenueRoute

VIA = b"/via/"
KEY = b"/key/"
_ENCODED = re.compile(rb"(https?|wss?)%3[aA]")
_ABSOLUTE = re.compile(rb"(https?|wss?):/{1,2}([^/?#]*)(.*)\Z", re.IGNORECASE | re.DOTALL)
_CLEAN = re.compile(rb"[!-~]*\Z")  # nothing that could end a request line
_DEFAULT_PORTS = {b"http": b":80", b"ws": b":80", b"https": b":443", b"wss": b":443"}


@dataclass(frozen=True, slots=True)
class VenueTarget:
    """A venue's route as callers see it.  `authorities` are the hosts that mean it behind ``/via/``."""

    route: VenueRoute
    methods: MethodPolicy
    authorities: frozenset[bytes] = frozenset()


@dataclass(slots=True, eq=False)
class Located:
    """Whom a request is for.  `target` is what the venue gets, `prefix` what stood before it.

    `authority` is the host behind ``/via/``, as it was written; empty otherwise.
    """

    venue: VenueTarget
    target: bytes
    key: bytes | None = None
    prefix: bytes = b""
    authority: bytes = b""


class Venues:
    """The venues of one configuration, by every name they have."""

    def __init__(self, targets: Sequence[VenueTarget] = (), default: str | None = None, only: bool = False) -> None:
        """`default` is the route that serves ``/``; `only`: there are no other routes."""
        self._by_name: dict[bytes, VenueTarget] = {}
        self._by_host: dict[bytes, VenueTarget] = {}
        self._by_authority: dict[bytes, VenueTarget] = {}
        self._root: VenueTarget | None = None
        for target in targets:
            route = target.route
            for name in (route.name, *route.aliases):
                self._by_name[name.encode()] = target
            for host in route.hosts:
                self._by_host.setdefault(host.lower().encode(), target)
            for authority in target.authorities:
                self._by_authority.setdefault(authority, target)
            if route.name == default or (only and len(targets) == 1):
                self._root = target

    @property
    def hosts(self) -> list[str]:
        """The host names that the listener answers for, because a venue is addressed by them."""
        return [host.decode() for host in self._by_host]

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def named(self, name: str) -> VenueTarget | None:
        """The venue of a route's name or alias."""
        return self._by_name.get(name.encode())

    def locate(self, target: bytes, host: bytes) -> Located | None:
        """The venue of a request's target and Host; None: it is for no venue.  Raises CallerError."""
        key, rest, prefix = None, target, b""
        if target.startswith(KEY):
            word, slash, rest = target[len(KEY) :].partition(b"/")
            if not slash:
                return None
            key, rest, prefix = unquote_to_bytes(word), slash + rest, KEY + word
        if self._by_host:
            found = self._by_host.get(host.partition(b":")[0].lower())
            if found is not None:
                return Located(found, rest, key, prefix)
        if rest.startswith(VIA):
            return self._via(rest[len(VIA) :], key, prefix + VIA)
        end = rest.find(b"/", 1)
        query = rest.find(b"?", 1, end if end > 0 else len(rest))
        end = query if query > 0 else end if end > 0 else len(rest)
        found = self._by_name.get(rest[1:end])
        if found is None:
            if self._root is None or _ours(rest):
                return None
            return Located(self._root, rest, key, prefix)
        below = rest[end:]
        return Located(found, below if below[:1] == b"/" else b"/" + below, key, prefix + rest[:end])

    def _via(self, url: bytes, key: bytes | None, prefix: bytes) -> Located:
        """The form in which ccxt's `proxyUrl` puts it: plain, or as one encoded component when there is a query."""
        if _ENCODED.match(url):
            encoded, mark, query = url.partition(b"?")
            url = unquote_to_bytes(encoded) + mark + query
        found = _ABSOLUTE.match(url)
        if found is None or not _CLEAN.match(url):
            raise BadHttp("behind /via/ stands an absolute URL: /via/https://host/path?query")
        scheme, authority, target = found[1].lower(), found[2].lower(), found[3]
        venue = self._by_authority.get(authority.removesuffix(_DEFAULT_PORTS[scheme])) if authority else None
        if venue is None:
            raise UnknownRoute("no configured venue has that host; only hosts of configured routes are reached")
        target = target.partition(b"#")[0]
        return Located(venue, target if target[:1] == b"/" else b"/" + target, key, prefix, scheme + b"://" + found[2])


def _ours(target: bytes) -> bool:
    """The gateway's own pages, when a venue serves everything else."""
    path = target.partition(b"?")[0]
    return path in (b"/livez", b"/readyz", b"/status", b"/status.json") or path.startswith(b"/status/")

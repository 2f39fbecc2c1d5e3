"""Who may ask: host names, browser origins, caller keys and their budgets.

Always true: a key is compared in constant time and held only as a digest; a browser page of another
origin gets nothing unless its origin is listed (a page can reach a sidecar on localhost, and a
hostile name can be made to resolve to it: geth users lost funds that way in 2018); a caller without
Origin is no browser page and is not held to that.
Owns the callers' live budgets through `Budget`; what a budget is lives in a policy.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from gateway.errors import ForbiddenOrigin, OverBudget, RouteRefused, Unauthorized, UnknownHost

LOCAL_NAMES = ("localhost", "*.localhost")
EXTENSION_ORIGINS = ("chrome-extension://*", "moz-extension://*", "safari-web-extension://*")
MAX_REMEMBERED = 512  # good Host values are remembered, so that most requests cost one set look-up


class Budget(Protocol):
    """A caller's allowance of calls."""

    def take(self, amount: float, now: float) -> bool:
        """Take `amount`, or nothing when there is not enough."""

    def available_after(self, amount: float, now: float) -> float:
        """Seconds until `amount` is there."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.  `routes` None: every route.  `budget` None: as much as it likes."""

    name: str
    routes: frozenset[str] | None = None
    budget: Budget | None = None

    @property
    def key_name(self) -> str:
        """The name of its key; empty for the anonymous."""
        return self.name if self is not ANONYMOUS else ""

    def require(self, route: str, items: int, now: float) -> None:
        """Raise RouteRefused or OverBudget unless it may make `items` calls to `route` now."""
        if self.routes is not None and route not in self.routes:
            raise RouteRefused(f"this key may not use the route {route}")
        if self.budget is not None and not self.budget.take(items, now):
            wait = self.budget.available_after(items, now)
            if wait == inf:
                raise OverBudget(f"this key may not make {items} calls at once; send fewer in a batch")
            raise OverBudget("this key's budget of calls is used up", retry_after=min(wait, 3600.0))


ANONYMOUS = Caller("anonymous")


class Callers:
    """The caller keys.  With none configured, everybody is the anonymous caller."""

    def __init__(self, keys: Sequence[tuple[str, Caller]], allow_anonymous: bool) -> None:
        self._keys = [(_digest(key.encode()), caller) for key, caller in keys]
        self._anonymous = ANONYMOUS if allow_anonymous or not keys else None

    def identify(self, presented: bytes | None) -> Caller:
        """The caller of a presented key.  Raises Unauthorized; all keys are compared, whichever fits."""
        if presented is None:
            if self._anonymous is None:
                raise Unauthorized("a key is needed: Authorization: Bearer, X-API-Key, or /key/<key>/<route>")
            return self._anonymous
        digest = _digest(presented)
        found: Caller | None = None
        for known, caller in self._keys:
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            if not self._keys:
                return ANONYMOUS  # no keys are configured: what a caller sends along does not matter
            raise Unauthorized("this key is not known here")
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class Hosts:
    """The host names this listener answers for: loopback, IP literals, this machine's name, configured ones."""

    def __init__(self, configured: Sequence[str]) -> None:
        names = [*LOCAL_NAMES, socket.gethostname(), *configured]
        self._any = "*" in names
        self._exact = {name.lower() for name in names if not name.startswith("*")}
        self._suffixes = tuple(name[1:].lower() for name in names if name.startswith("*."))
        self._good: set[bytes] = set()

    def require(self, value: bytes) -> None:
        """Raise UnknownHost unless the Host header's value names this gateway."""
        if value in self._good:
            return
        if not self._allowed(value):
            raise UnknownHost("this gateway does not answer for that host name; add it to `hosts` in the configuration")
        if len(self._good) < MAX_REMEMBERED:
            self._good.add(value)

    def _allowed(self, value: bytes) -> bool:
        if self._any:
            return True
        text = value.decode("ascii", "replace").lower()
        name = text[: text.find("]") + 1] if text.startswith("[") else text.partition(":")[0]
        if name in self._exact or name.endswith(self._suffixes):
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))  # no name, so no rebinding
        except ValueError:
            return False
        return True


class Origins:
    """The browser origins that may use this gateway, and what CORS tells them."""

    def __init__(self, allowed: Sequence[str], credentials: bool = False) -> None:
        self._any = "*" in allowed
        self._exact = {origin.lower() for origin in allowed if not origin.endswith("*")}
        self._prefixes = tuple(
            origin[:-1].lower() for origin in (*allowed, *EXTENSION_ORIGINS) if origin.endswith("://*")
        )
        self._credentials = credentials

    def require(self, origin: bytes | None, fetch_site: bytes | None) -> None:
        """Raise ForbiddenOrigin for a browser page that is not listed.

        A cross-site request without Origin (a plain GET or an image) is refused by Sec-Fetch-Site.
        """
        if origin is None:
            if fetch_site == b"cross-site" and not self._any:
                raise ForbiddenOrigin("cross-site requests need an Origin that is listed in `origins`")
            return
        if not self.allows(origin):
            raise ForbiddenOrigin("this origin may not use this gateway; add it to `origins` in the configuration")

    def allows(self, origin: bytes) -> bool:
        text = origin.decode("ascii", "replace").lower()
        return self._any or text in self._exact or text.startswith(self._prefixes)

    def headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """CORS answer headers for an allowed origin."""
        if origin is None or not self.allows(origin):
            return []
        headers = [
            (b"access-control-allow-origin", b"*" if self._any and not self._credentials else origin),
            (b"vary", b"origin"),
            (
                b"access-control-expose-headers",
                b"x-seawall-endpoint, x-seawall-attempts, x-seawall-execution, x-seawall-reconcile, x-seawall-cache, "
                b"x-seawall-degraded, retry-after",
            ),
        ]
        if self._credentials:
            headers.append((b"access-control-allow-credentials", b"true"))
        return headers

    def preflight(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """Answer headers to an OPTIONS that asks first."""
        headers = self.headers(origin)
        if headers:
            headers += [
                (b"access-control-allow-methods", b"POST, GET, OPTIONS"),
                (
                    b"access-control-allow-headers",
                    b"authorization, content-type, x-api-key, x-seawall-timeout, traceparent",
                ),
                (b"access-control-max-age", b"600"),
            ]
        return headers

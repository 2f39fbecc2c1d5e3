"""Name resolution that survives the loss of DNS.

Always true: the last good answer is kept and used when a new one cannot be had (on 2025-10-20 an
empty DNS record took a cloud region down while its servers were reachable); link-local addresses,
where clouds keep their credentials, are never handed out.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from gateway.clock import Clock
from gateway.errors import ResolveFailed

REFRESH_AFTER = 30.0  # seconds; common cloud load balancer records live 60
LOOKUP_TIMEOUT = 2.0
STALE_AFTER = 0.25  # seconds that a fresh answer is waited for while an old one is known


class Resolver:
    """Resolves host names with a last-good memory.  One per gateway."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[str, int], tuple[float, list[str]]] = {}
        self._names: dict[tuple[str, int], str] = {}
        self._lookups: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses to try, in order.  Raises ResolveFailed when none was ever known.

        However many ask, one look-up is under way; whoever stops waiting for it does not end it.
        """
        if _is_literal(host):
            if not is_allowed(host):
                raise ResolveFailed("the address is one that no provider has")
            return [host]
        known = self._known.get((host, port))
        if known is not None and self._clock() - known[0] < REFRESH_AFTER:
            return known[1]
        lookup = self._lookups.get((host, port))
        if lookup is None:
            lookup = self._lookups[host, port] = asyncio.get_running_loop().create_task(self._refresh(host, port))
        await asyncio.wait((lookup,), timeout=None if known is None else STALE_AFTER)
        known = self._known.get((host, port))
        if known is None:
            raise ResolveFailed("the host name has no usable address")
        return known[1]

    async def _refresh(self, host: str, port: int) -> None:
        """Look up and remember; without an answer the old one stays: the servers may well be there."""
        try:
            found, name = await self._look_up(host, port)
        finally:
            del self._lookups[host, port]
        known = self._known.get((host, port))
        if not found and known is not None:
            found = known[1]
        if found:
            self._known[host, port] = (self._clock(), found)
        if name:
            self._names[host, port] = name

    def last_known(self, host: str, port: int) -> tuple[list[str], str]:
        """The addresses that were last found, and the name at the end of the host's aliases; asks nobody."""
        if _is_literal(host):
            return [host], ""
        known = self._known.get((host, port))
        return (known[1] if known is not None else []), self._names.get((host, port), "")

    @staticmethod
    async def _look_up(host: str, port: int) -> tuple[list[str], str]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                rows = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
        except (OSError, TimeoutError, UnicodeError):
            return [], ""
        found: list[str] = []
        for *_, address in rows:
            text = str(address[0])
            if text not in found and is_allowed(text):
                found.append(text)
        return found, str(rows[0][3] or "") if rows else ""


def is_allowed(address: str) -> bool:
    """False for addresses no provider has: link-local (cloud metadata), multicast, unspecified."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return not (parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

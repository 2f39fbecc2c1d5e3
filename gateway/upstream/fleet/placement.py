"""Placement: the failure domains of a route's endpoints that nobody wrote down.

Always true: a label from the configuration is never overridden; nothing is asked of any network here (the
names and addresses are those that the resolver has found out for the calls themselves); what cannot be
told is left open.  Two endpoints at one address share the domain ``address``, whatever their names say.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.catalogue.networks import labels_of
from gateway.catalogue.ranges import RangeTable
from gateway.clock import Clock
from gateway.model import DOMAIN_LABELS
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.wire.resolver import Resolver

Host = tuple[str, int]


class Placer:
    """Places the endpoints of one route.  `hosts[i]` is where endpoint i is reached."""

    def __init__(
        self, pool: Pool, hosts: Sequence[Host], resolver: Resolver, tables: Sequence[RangeTable], clock: Clock
    ) -> None:
        self._pool = pool
        self._hosts = hosts
        self._resolver = resolver
        self._tables = tables
        self._clock = clock
        self._declared = [dict(endpoint.domains) for endpoint in pool.endpoints]

    def place(self, _: int) -> None:
        """An endpoint was reached, and more is known than before: look at all of them again."""
        found = [self._labels(position) for position in range(len(self._hosts))]
        for position, labels in enumerate(found):
            order = sorted(labels, key=lambda label: (*DOMAIN_LABELS, label).index(label))
            domains = tuple((label, labels[label]) for label in order)
            if domains != self._pool.endpoints[position].domains:
                self._pool.place(position, domains, self._clock())

    def _labels(self, position: int) -> dict[str, str]:
        host, port = self._hosts[position]
        addresses, alias = self._resolver.last_known(host, port)
        labels: dict[str, str] = {}
        for address in addresses[:1]:
            for table in self._tables:
                labels.update(table.labels(address))
        labels.update(labels_of([host, alias]))
        shared = self._shared_address(position, addresses)
        if shared is not None:
            labels["address"] = shared
        software = self._pool.states[position].software
        if software:
            labels["client"] = software
        return {**labels, **self._declared[position]}

    def _shared_address(self, position: int, addresses: Sequence[str]) -> str | None:
        """An address at which another endpoint is reached, too.  Ports on one machine are one machine."""
        for other, (host, port) in enumerate(self._hosts):
            if other != position:
                theirs, _ = self._resolver.last_known(host, port)
                for address in addresses:
                    if address in theirs and not _is_loopback(address):
                        return address
        return None


def _is_loopback(address: str) -> bool:
    """Simulated and test nodes: on one machine on purpose."""
    return address.startswith("127.") or address == "::1"

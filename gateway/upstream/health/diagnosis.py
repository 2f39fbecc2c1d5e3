"""Diagnosis: what is wrong with a route, in the words of verdicts, from the facts of its fleet.

Always true: it reads the same facts that choose endpoints; a verdict carries its evidence; a verdict that
comes or goes is told once.  Knowing which of provider, domain, own network, chain or request is at fault
is what lets people act; rotating endpoints when the chain itself has halted helps nobody.
Does not belong here: which verdict explains which (policy/verdicts).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gateway.model import Reason
from gateway.policy.verdicts import (
    DomainFacts,
    EndpointFacts,
    RequestFacts,
    RouteFacts,
    SplitFacts,
    Verdict,
    VerdictKind,
    headline,
    verdicts,
)
from gateway.upstream.calls.route import AnyRoute
from gateway.upstream.fleet.endpoints import EndpointState
from gateway.upstream.health.regions import wide_domains

FAULTS_COUNT_FOR = 60.0  # seconds for which a call that all endpoints refused alike is told of
_NOT_ITS_FAULT = frozenset({Reason.DRAINED, Reason.DOMAIN_SUSPECTED, Reason.NO_BUDGET, Reason.NOT_PRIVATE})

__all__ = ["Diary", "Told", "Verdict", "VerdictKind", "diagnose", "in_words"]

Wide = Mapping[str, tuple[DomainFacts, ...]]
"""Domains that fell across routes, by route."""

Told = Callable[[str, Verdict, bool], None]
"""Hears of a route's verdict that has come (True) or gone."""


def diagnose(route: AnyRoute, now: float, wide: Wide | None = None) -> tuple[Verdict, ...]:
    """The verdicts of one route, the most telling first.  `wide` are domains that fell across routes."""
    return verdicts(_facts(route, now, wide.get(route.name, ()) if wide else ()), now)


def in_words(route: AnyRoute, now: float) -> tuple[tuple[str, ...], str]:
    """The kinds of what is wrong with a route, and what shows it: the most telling, and how much more there is."""
    found = diagnose(route, now)
    return tuple(verdict.kind.value for verdict in found), headline(found) if found else ""


class Diary:
    """Remembers the verdicts of all routes, and tells of those that come and go."""

    def __init__(self, tell: Told) -> None:
        self._tell = tell
        self._known: dict[str, dict[tuple[str, str], Verdict]] = {}

    def look(self, routes: Iterable[AnyRoute], now: float) -> None:
        """Compare with the last look.  To be called about once a second."""
        current = {}
        routes = list(routes)
        wide = wide_domains(routes, now)
        for route in routes:
            found = {(verdict.kind.value, verdict.subject): verdict for verdict in diagnose(route, now, wide)}
            before = self._known.get(route.name, {})
            for key, verdict in found.items():
                if key not in before:
                    self._tell(route.name, verdict, True)
            for key, verdict in before.items():
                if key not in found:
                    self._tell(route.name, verdict, False)
            current[route.name] = found
        self._known = current


def _facts(route: AnyRoute, now: float, wide: tuple[DomainFacts, ...]) -> RouteFacts:
    pool = route.pool
    book = pool.blocks.book
    ids = [endpoint.id for endpoint in pool.endpoints]
    split = book.split
    return RouteFacts(
        route=route.name,
        endpoints=tuple(_endpoint(state, now) for state in pool.states),
        domains=tuple(
            DomainFacts(
                *trip.domain,
                trip.since,
                tuple(ids[p] for p in trip.down),
                tuple(ids[p] for p in trip.members),
                trip.last_at - trip.first_at,
            )
            for trip in pool.domains.trips()
            if all(trip.domain != (domain.label, domain.value) for domain in wide)
        )
        + wide,
        local_fault_since=pool.connectivity.local_fault_since(now),
        halted_since=book.halted_since(now),
        tellers=book.tellers,
        tried=pool.connectivity.tried(now),
        head=book.reference,
        block_time=book.block_time,
        split=None
        if split is None
        else SplitFacts(
            split.height,
            book.split_since,
            tuple(tuple(ids[p] for p in positions) for positions in split.branches.values()),
        ),
        requests=tuple(
            RequestFacts(method, said, at, endpoints)
            for at, method, said, endpoints in route.request_faults
            if now - at <= FAULTS_COUNT_FOR
        ),
    )


def _endpoint(state: EndpointState, now: float) -> EndpointFacts:
    found = [(reason, family) for reason, family in state.reasons(now) if reason not in _NOT_ITS_FAULT]
    return EndpointFacts(
        state.endpoint.id,
        state.endpoint.provider,
        tuple(reason.value + (f" ({family})" if family else "") for reason, family in found),
        min((state.since(reason, family, now) for reason, family in found), default=now),
    )

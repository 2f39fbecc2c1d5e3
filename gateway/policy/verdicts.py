"""Verdicts: what is wrong with a route, from facts, in words that let people act.

Always true: a verdict carries its evidence; the more telling one swallows those that it explains (while
our own network is cut, nobody else is blamed; a provider in a suspected domain is not named twice); the
order of the kinds is the order of telling.  A verdict decides nothing: breakers, domains and heads have
acted already, each by its own law.
Does not belong here: finding the facts (upstream/diagnosis).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class VerdictKind(enum.Enum):
    """Whose fault it is; the most telling first."""

    LOCAL_FAULT = "local_fault"  # our own network, clock or certificates
    CHAIN_HALTED = "chain_halted"
    CHAIN_SPLIT = "chain_split"
    DOMAIN = "domain"  # a cloud, a region, an edge, a client version
    PROVIDER = "provider"
    REQUEST = "request"  # a call that everybody refuses alike


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding.  `since` is an instant; `evidence` one sentence with figures and without secrets."""

    kind: VerdictKind
    subject: str
    since: float
    evidence: str


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """One endpoint: what is broken there since when.  `reasons` empty: nothing."""

    id: str
    provider: str
    reasons: tuple[str, ...] = ()
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """One suspected failure domain: ids of the members that are down, and of all."""

    label: str
    value: str
    since: float
    down: tuple[str, ...]
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """Endpoints disagree about the block at a height: one tuple of ids per branch."""

    height: int
    since: float
    branches: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """A call that several endpoints refused alike."""

    method: str
    said: str
    at: float
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Everything about one route that verdicts are made from.  Instants are monotonic seconds."""

    route: str
    endpoints: tuple[EndpointFacts, ...]
    domains: tuple[DomainFacts, ...] = ()
    local_fault_since: float | None = None
    halted_since: float | None = None
    head: int = -1
    block_time: float = 0.0
    split: SplitFacts | None = None
    requests: tuple[RequestFacts, ...] = ()


def verdicts(facts: RouteFacts, now: float) -> tuple[Verdict, ...]:
    """What is wrong, the most telling first; empty: all well."""
    if facts.local_fault_since is not None:
        for_seconds = now - facts.local_fault_since
        tried = len({endpoint.provider for endpoint in facts.endpoints})
        words = f"none of {tried} providers has been reached for {for_seconds:.1f} s, so the fault is on this side"
        return (Verdict(VerdictKind.LOCAL_FAULT, "this gateway", facts.local_fault_since, words),)
    found = [*_chain(facts, now), *_domains(facts)]
    explained = {member for domain in facts.domains for member in domain.down}
    found += _providers(facts, explained)
    found += _requests(facts)
    return tuple(found)


def headline(found: Sequence[Verdict]) -> str:
    """One sentence for a person."""
    if not found:
        return "all well"
    first = found[0]
    words = {
        VerdictKind.LOCAL_FAULT: "nobody can be reached: look at this machine's network",
        VerdictKind.CHAIN_HALTED: "the chain has halted: no endpoint has a new block",
        VerdictKind.CHAIN_SPLIT: "the endpoints disagree about the chain",
        VerdictKind.DOMAIN: f"{first.subject} looks down; others serve",
        VerdictKind.PROVIDER: f"{first.subject} is out; others serve",
        VerdictKind.REQUEST: f"{first.subject} is refused by every endpoint",
    }[first.kind]
    return words if len(found) == 1 else f"{words} (and {len(found) - 1} more)"


def _chain(facts: RouteFacts, now: float) -> list[Verdict]:
    found = []
    if facts.halted_since is not None:
        words = (
            f"block {facts.head} has been the newest everywhere for {now - facts.halted_since:.1f} s; "
            f"blocks came every {facts.block_time:.1f} s"
        )
        found.append(Verdict(VerdictKind.CHAIN_HALTED, facts.route, facts.halted_since, words))
    if facts.split is not None:
        sides = " against ".join(" and ".join(branch) for branch in facts.split.branches)
        words = f"at block {facts.split.height}: {sides}"
        found.append(Verdict(VerdictKind.CHAIN_SPLIT, facts.route, facts.split.since, words))
    return found


def _domains(facts: RouteFacts) -> list[Verdict]:
    found = []
    for domain in facts.domains:
        words = (
            f"{len(domain.down)} of {len(domain.members)} endpoints with {domain.label} {domain.value} went down "
            f"together: {', '.join(domain.down)}"
        )
        subject = domain.value if domain.label != "provider" else f"provider {domain.value}"
        found.append(Verdict(VerdictKind.DOMAIN, subject, domain.since, words))
    return found


def _providers(facts: RouteFacts, explained: set[str]) -> list[Verdict]:
    return [
        Verdict(VerdictKind.PROVIDER, endpoint.id, endpoint.since, f"{endpoint.id}: {', '.join(endpoint.reasons)}")
        for endpoint in facts.endpoints
        if endpoint.reasons and endpoint.id not in explained
    ]


def _requests(facts: RouteFacts) -> list[Verdict]:
    newest: dict[tuple[str, str], RequestFacts] = {}
    for request in facts.requests:
        newest[request.method, request.said] = request
    return [
        Verdict(
            VerdictKind.REQUEST,
            request.method,
            request.at,
            f"{request.method} got {request.said} from {' and '.join(request.endpoints)} alike",
        )
        for request in newest.values()
    ]

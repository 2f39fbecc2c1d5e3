"""Verdicts: what is wrong with a route, from facts, in words that let people act.

Always true: a verdict carries its evidence; the more telling one swallows those that it explains (while
our own network is cut, nobody else is blamed; a provider in a suspected domain is not named twice); the
order of the kinds is the order of telling.  A verdict decides nothing: breakers, domains and heads have
acted already, each by its own law.
Does not belong here: finding the facts (upstream/health/diagnosis).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.model import Reason

NAMED = 5  # endpoints named in one sentence; the others are counted
BRANCHES_NAMED = 3

_OF_A_DOMAIN = frozenset(
    reason.value for reason in (Reason.BREAKER_OPEN, Reason.PROBING, Reason.UNVERIFIED, Reason.LAGGING)
)
"""What ails the members of a sick domain.  A refused key, throttling or a wrong chain has another cause."""
_OF_A_SPLIT = frozenset((Reason.FORKED.value,))


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
    """One endpoint: what is broken there since when.  `reasons` empty: nothing.

    A reason is a `Reason` value, with the family in brackets if it is about one: ``breaker_open (read)``.
    """

    id: str
    provider: str
    reasons: tuple[str, ...] = ()
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """One suspected failure domain: ids of the members that fell, and of all.

    `over` is the time from the first fall to the last, in seconds; None: not known.  `elsewhere` names other
    routes that it took at the same time.
    """

    label: str
    value: str
    since: float
    down: tuple[str, ...]
    members: tuple[str, ...]
    over: float | None = None
    elsewhere: str = ""


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
    """Everything about one route that verdicts are made from.  Instants are monotonic seconds.

    `tellers` are the providers whose word on the newest block counts: one alone may itself be stuck.
    `tried` are the providers, of this route and others, that were tried of late and not reached.
    """

    route: str
    endpoints: tuple[EndpointFacts, ...]
    domains: tuple[DomainFacts, ...] = ()
    local_fault_since: float | None = None
    halted_since: float | None = None
    head: int = -1
    block_time: float = 0.0
    split: SplitFacts | None = None
    requests: tuple[RequestFacts, ...] = ()
    tellers: int = 0
    tried: int = 0


def verdicts(facts: RouteFacts, now: float) -> tuple[Verdict, ...]:
    """What is wrong, the most telling first; empty: all well."""
    if facts.local_fault_since is not None:
        for_seconds = now - facts.local_fault_since
        words = (
            f"none of the {facts.tried} providers tried has been reached for {for_seconds:.1f} s, "
            "so the fault is on this side"
        )
        return (Verdict(VerdictKind.LOCAL_FAULT, "this gateway", facts.local_fault_since, words),)
    return (*_chain(facts, now), *_domains(facts), *_providers(facts), *_requests(facts))


def headline(found: Sequence[Verdict]) -> str:
    """One sentence for a person: the first of the verdicts of a route, and how many more there are."""
    if not found:
        return "all well"
    first = found[0]
    words = {
        VerdictKind.LOCAL_FAULT: "nobody can be reached: look at this machine's network",
        VerdictKind.CHAIN_HALTED: f"the chain has halted: {first.evidence}",
        VerdictKind.CHAIN_SPLIT: f"the endpoints disagree about the chain: {first.evidence}",
        VerdictKind.DOMAIN: f"{first.subject} looks down: {first.evidence}",
        VerdictKind.PROVIDER: f"{first.subject} is out: {first.evidence}",
        VerdictKind.REQUEST: first.evidence,
    }[first.kind]
    return words if len(found) == 1 else f"{words} (and {len(found) - 1} more)"


def _chain(facts: RouteFacts, now: float) -> list[Verdict]:
    found = []
    if facts.halted_since is not None:
        words = (
            f"block {facts.head} has been the newest {_where(facts.tellers)} for {now - facts.halted_since:.1f} s, "
            f"and blocks came every {facts.block_time:.1f} s"
        )
        found.append(Verdict(VerdictKind.CHAIN_HALTED, facts.route, facts.halted_since, words))
    if facts.split is not None:
        sides = " against ".join(_listed(branch) for branch in facts.split.branches[:BRANCHES_NAMED])
        words = f"at block {facts.split.height}, {sides}"
        found.append(Verdict(VerdictKind.CHAIN_SPLIT, facts.route, facts.split.since, words))
    return found


def _where(tellers: int) -> str:
    return (
        f"at all {tellers} providers" if tellers > 1 else "at the only provider that tells, which may be stuck itself,"
    )


def _domains(facts: RouteFacts) -> list[Verdict]:
    found = []
    for domain in facts.domains:
        when = (
            "together" if domain.over is None else f"within {domain.over:.0f} s" if domain.over >= 1 else "within 1 s"
        )
        too = f", and so did others of {domain.elsewhere}" if domain.elsewhere else ""
        words = (
            f"{_listed(domain.down)} went down {when}, {len(domain.down)} of {len(domain.members)} "
            f"with {domain.label} {domain.value}{too}; {_serving(facts)}"
        )
        subject = domain.value if domain.label != "provider" else f"provider {domain.value}"
        found.append(Verdict(VerdictKind.DOMAIN, subject, domain.since, words))
    return found


def _providers(facts: RouteFacts) -> list[Verdict]:
    found = []
    suspected = {member for domain in facts.domains for member in domain.members}
    for endpoint in facts.endpoints:
        left = [reason for reason in endpoint.reasons if not _explained(reason, endpoint.id in suspected, facts)]
        if left:
            words = f"{', '.join(left)}; {_serving(facts)}"
            found.append(Verdict(VerdictKind.PROVIDER, endpoint.id, endpoint.since, words))
    return found


def _explained(reason: str, suspected: bool, facts: RouteFacts) -> bool:
    """A stronger verdict accounts for it: what a sick domain does to its members, and a split to its branches."""
    plain = reason.partition(" ")[0]
    return (suspected and plain in _OF_A_DOMAIN) or (facts.split is not None and plain in _OF_A_SPLIT)


def _requests(facts: RouteFacts) -> list[Verdict]:
    newest: dict[tuple[str, str], RequestFacts] = {}
    for request in sorted(facts.requests, key=lambda request: request.at):
        if len(set(request.endpoints)) > 1:  # alone, it may be the endpoint's fault
            newest[request.method, request.said] = request
    return [
        Verdict(
            VerdictKind.REQUEST,
            request.method,
            request.at,
            f"{request.method} got {request.said} from {_listed(request.endpoints)} alike",
        )
        for request in newest.values()
    ]


def _serving(facts: RouteFacts) -> str:
    """How many are neither broken nor suspected."""
    suspected = {member for domain in facts.domains for member in domain.members}
    well = sum(not endpoint.reasons and endpoint.id not in suspected for endpoint in facts.endpoints)
    return f"{well} of {len(facts.endpoints)} endpoints are well" if well else "nobody is left that is well"


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence, the first few of them."""
    shown = list(names[:NAMED])
    if len(names) > NAMED:
        shown.append(f"{len(names) - NAMED} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "nobody"

"""Agreement: several endpoints are asked the same, and what counts as one answer; and who is found lying.

Always true: a ballot gives an answer only when `agree` of those who were asked said the same; that is
more than half of them, so no other answer could have won, and what is decided stays decided; two endpoints
of one provider, or of one value of a label that must be distinct, have one voice; a disagreement carries
its evidence.  Nobody is distrusted for a single contradiction (blocks are replaced, nodes have bugs),
nobody for ever, and never so that fewer than two are left.

What an audit costs and finds: with 1 % of the reads audited and a liar that is wrong in one answer of ten,
the first contradiction comes after 1,000 of its reads on average (1 / (0.01 x 0.1)).  Distrust takes a
second one within the hour: 2,030 reads at one a second, but 4,300 (half a day) at one in ten seconds, when
many a first is forgotten (exact computation and simulation in tests/policy/test_agreement.py).
Does not belong here: asking (upstream/calls/agreeing, upstream/calls/audit), and what makes two results equal
(dialect).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from gateway.bounds import require_bounds, setting
from gateway.model import DOMAIN_LABELS, Endpoint

STRIKES_HOLD_FOR = 3600.0  # seconds in which contradictions add up
DISTRUST_AT_MOST = 86400.0  # seconds
FORGIVEN_AFTER = 86400.0  # seconds of trust after which distrust starts from its first length again


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsensusSettings:
    """Who must agree before a method is answered.  Multiplies the paid calls by `n`."""

    n: int = setting(3, "endpoints that are asked", low=2, high=9)
    agree: int = setting(2, "of these, how many must say the same", low=2, high=9)
    distinct: tuple[str, ...] = setting((), "labels in which they must differ, such as operator, cloud")

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.agree > self.n:
            raise ValueError("agree must not be above n")
        if 2 * self.agree <= self.n:
            raise ValueError("agree must be more than half of n, or two different answers could both win")
        unknown = [label for label in self.distinct if label not in DOMAIN_LABELS]
        if unknown:
            raise ValueError(f"distinct names {unknown[0]!r}, which is no label; there are {', '.join(DOMAIN_LABELS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """Reads that are asked twice, to find who answers wrongly."""

    share: float = setting(
        0.01, "share of the pinned reads that a second endpoint is asked, too", unit="share", low=0, high=1
    )
    strikes: int = setting(
        2, "contradictions, each settled by a third endpoint, after which one is distrusted", low=1, high=100
    )
    distrust_for: float = setting(
        600.0, "time for which it is not used; doubles each time", unit="s", low=1, high=86400
    )

    def __post_init__(self) -> None:
        require_bounds(self)


def choose(endpoints: Sequence[Endpoint], ranked: Sequence[int], settings: ConsensusSettings) -> tuple[int, ...]:
    """The endpoints to ask, in order of rank: of different providers, and different in each label asked for.

    An endpoint without one of these labels counts as different from everybody: nothing is known of it.
    Where the first in rank stands in the way of too many (it shares its cloud with one, its operator with
    another), the search begins again after it; so two are found wherever two are apart.
    Empty when fewer than `agree` are found.
    """
    best: list[int] = []
    for start in range(len(ranked)):
        if len(ranked) - start <= len(best) or len(best) == settings.n:
            break
        chosen: list[int] = []
        for position in ranked[start:]:
            if all(_apart(endpoints[position], endpoints[other], settings.distinct) for other in chosen):
                chosen.append(position)
                if len(chosen) == settings.n:
                    break
        if len(chosen) > len(best):
            best = chosen
    return tuple(best) if len(best) >= settings.agree else ()


def _apart(one: Endpoint, other: Endpoint, labels: Sequence[str]) -> bool:
    if one.provider == other.provider:
        return False
    mine, theirs = dict(one.domains), dict(other.domains)
    return all(mine.get(label) is None or mine.get(label) != theirs.get(label) for label in labels)


# --- a ballot -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agreed:
    """Enough said the same.  `positions` are those who did."""

    fingerprint: bytes
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Undecided:
    """Votes are still out that can decide it."""


@dataclass(frozen=True, slots=True)
class Disagreed:
    """It cannot be decided any more.  As text: who said what."""

    evidence: str

    def __str__(self) -> str:
        return self.evidence


@dataclass(slots=True)
class Ballot:
    """The votes on one call.  `asked` are the positions of those who were asked."""

    settings: ConsensusSettings
    endpoints: Sequence[Endpoint]
    asked: Sequence[int]
    _votes: dict[int, bytes | None] = field(default_factory=dict)

    def vote(self, position: int, fingerprint: bytes | None) -> None:
        """One endpoint's answer; None: it gave none.

        A second vote of the same endpoint, and one of an endpoint that was not asked, change nothing.
        """
        if position in self.asked:
            self._votes.setdefault(position, fingerprint)

    @property
    def verdict(self) -> Agreed | Undecided | Disagreed:
        """What the votes so far come to; decided as soon as the votes still out cannot change it."""
        counted: dict[bytes, list[int]] = {}
        for position, said in self._votes.items():
            if said is not None:
                counted.setdefault(said, []).append(position)
        said, positions = max(counted.items(), key=lambda item: len(item[1]), default=(b"", []))
        if len(positions) >= self.settings.agree:
            return Agreed(said, tuple(positions))
        out = len(self.asked) - len(self._votes)
        if out and len(positions) + out >= self.settings.agree:
            return Undecided()
        return Disagreed(self._evidence(counted))

    def _evidence(self, counted: dict[bytes, list[int]]) -> str:
        """Who said what, eight hex digits for each answer.  Digested: fingerprints may begin alike."""
        parts = [
            f"{' and '.join(self.endpoints[p].id for p in positions)} said {blake2b(said, digest_size=4).hexdigest()}"
            for said, positions in counted.items()
        ]
        silent = [self.endpoints[p].id for p, said in self._votes.items() if said is None]
        if silent:
            parts.append(f"{' and '.join(silent)} gave no answer")
        return "; ".join(parts) or "nobody answered"


# --- suspicion ----------------------------------------------------------------------------------------


class Suspicion:
    """The contradictions of one route's endpoints.  `now` is monotonic seconds."""

    __slots__ = ("_settings", "_strikes", "_times", "_until")

    def __init__(self, settings: AuditSettings, count: int) -> None:
        self._settings = settings
        self._strikes: list[list[float]] = [[] for _ in range(count)]
        self._until = [0.0] * count
        self._times = [0] * count

    def strike(self, position: int, now: float) -> bool:
        """Two others contradicted it.  True when it is to be distrusted from now on.

        While it is distrusted, audits that were under way add nothing.  With two left it stays, because
        nobody could say any more which of them is right; its contradictions count once others are back.
        """
        if now < self._until[position]:
            return False
        strikes = [at for at in self._strikes[position] if now - at <= STRIKES_HOLD_FOR]
        strikes.append(now)
        self._strikes[position] = strikes[-self._settings.strikes :]
        if len(strikes) < self._settings.strikes or sum(now >= until for until in self._until) <= 2:
            return False
        if now - self._until[position] > FORGIVEN_AFTER:
            self._times[position] = 0
        span = self._settings.distrust_for * 2.0 ** min(self._times[position], 30)
        self._strikes[position] = []
        self._until[position] = now + min(DISTRUST_AT_MOST, span)
        self._times[position] += 1
        return True

    def distrusted_until(self, position: int) -> float:
        """The instant when it is given another chance; in the past: it is trusted."""
        return self._until[position]

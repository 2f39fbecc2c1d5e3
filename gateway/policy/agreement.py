"""Agreement: several endpoints are asked the same, and what counts as one answer; and who is found lying.

Always true: a ballot gives an answer only when `agree` voters said the same; two endpoints of one
provider, or of one value of a label that must be distinct, have one voice; a disagreement carries its
evidence.  Nobody is distrusted for a single contradiction (blocks are replaced, nodes have bugs), nobody
for ever, and never the last but one.
With a share of 1 % audited and a liar that is wrong in one answer of ten, the first contradiction comes
after about 1,000 of its reads (1 / (0.01 x 0.1)), and distrust after twice that.
Does not belong here: asking (upstream/agreeing, upstream/audit), and what makes two results equal (dialect).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.bounds import require_bounds, setting
from gateway.model import DOMAIN_LABELS, Endpoint

STRIKES_HOLD_FOR = 3600.0  # seconds in which contradictions add up


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
    Empty when fewer than `agree` can be found.
    """
    chosen: list[int] = []
    for position in ranked:
        if len(chosen) == settings.n:
            break
        if all(_apart(endpoints[position], endpoints[other], settings.distinct) for other in chosen):
            chosen.append(position)
    return tuple(chosen) if len(chosen) >= settings.agree else ()


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
        """One endpoint's answer; None: it gave none.  A second vote of the same endpoint changes nothing."""
        self._votes.setdefault(position, fingerprint)

    @property
    def verdict(self) -> Agreed | Undecided | Disagreed:
        """What the votes so far come to."""
        counted: dict[bytes, list[int]] = {}
        for position, said in self._votes.items():
            if said is not None:
                counted.setdefault(said, []).append(position)
        if counted:
            said, positions = max(counted.items(), key=lambda item: len(item[1]))
            if len(positions) >= self.settings.agree:
                return Agreed(said, tuple(positions))
        out = len(self.asked) - len(self._votes)
        most = max((len(positions) for positions in counted.values()), default=0)
        return Undecided() if out > 0 and most + out >= self.settings.agree else Disagreed(self._evidence(counted))

    def _evidence(self, counted: dict[bytes, list[int]]) -> str:
        parts = [
            f"{' and '.join(self.endpoints[p].id for p in positions)} said {said.hex()[:8]}"
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
        """Two others contradicted it.  True when it is to be distrusted from now on."""
        strikes = [at for at in self._strikes[position] if now - at <= STRIKES_HOLD_FOR]
        strikes.append(now)
        self._strikes[position] = strikes[-self._settings.strikes :]
        if len(self._strikes[position]) < self._settings.strikes:
            return False
        trusted = sum(1 for until in self._until if now >= until)
        if trusted <= 2:
            return False  # with two left, nobody could say any more which of them is right
        self._strikes[position] = []
        self._until[position] = now + self._settings.distrust_for * 2.0 ** min(self._times[position], 6)
        self._times[position] += 1
        return True

    def distrusted_until(self, position: int) -> float:
        """The instant when it is given another chance; in the past: it is trusted."""
        return self._until[position]

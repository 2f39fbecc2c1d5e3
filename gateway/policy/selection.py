"""Selection: which endpoint may have a call, and which of them gets it.

Two steps, so that the costly one is rare.  `rank` turns the readings of a route's endpoints, for one
family, into a `Ranking`: who is in front (the best tier with anyone available), who waits behind,
who is refused and why, and until when that holds.  `pick` chooses from the front, per call, by the
power of two choices: two at random, the cheaper one wins; that spreads load as well as asking all
of them and cannot herd everyone onto one.

Always true: the front, those behind and the refused together are exactly the candidates, without
repeats; a drained, wrong-chain or unverified endpoint is never in front, behind or the last resort; a ranking
carries its reasons, so the status page, `explain` and the choice itself show the same decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.bounds import require_bounds, setting
from gateway.model import Endpoint, Reason

NEVER = float("inf")

# Reasons that hold even when nothing else is left: the last resort skips them.  An answer from another
# chain, from another branch or from a liar is worse than none; asking whoever has just said "not so
# fast" makes it last longer, and those calls can wait their turn.
NEVER_USED = frozenset(
    {
        Reason.DRAINED,
        Reason.WRONG_CHAIN,
        Reason.FORKED,
        Reason.IMPLAUSIBLE_HEAD,
        Reason.DISTRUSTED,
        Reason.UNVERIFIED,
        Reason.UNSUPPORTED,
        Reason.NOT_PRIVATE,
        Reason.HELD,
        Reason.NO_BUDGET,
    }
)
_OF_BREAKERS = (Reason.PROBING, Reason.BREAKER_OPEN)
_NEED_ORDER = {
    Reason.NO_SLOT: 0,
    Reason.LAGGING: 1,
    Reason.STILL: 1,
    Reason.NO_SUCH_BLOCK: 2,
    Reason.PROBING: 3,
    Reason.BREAKER_OPEN: 4,
    Reason.EXCLUDED: 5,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSettings:
    decay: float = setting(10.0, "time over which a measured latency is forgotten", unit="s", low=0.1, high=600)
    prior_latency: float = setting(
        0.03, "latency assumed of an endpoint not yet measured: neither best nor worst", unit="s", low=0.0001, high=10
    )
    penalty_latency: float = setting(
        1.0,
        "latency charged for a throttled answer, so that fast refusals attract no traffic",
        unit="s",
        low=0.01,
        high=60,
    )

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint's reading for one family, now.

    `refused` is the first reason against it, `until` the instant when that reason may have ended
    (NEVER: only an event ends it), `since` the instant when its breaker last moved.  `share` is its
    weight times its slow-start share.  `demoted` above 0: fit, but asked after all that are not and no
    target for retries while another is left; what is in doubt comes before what is kept in reserve.
    """

    endpoint: Endpoint
    refused: Reason | None = None
    until: float = NEVER
    share: float = 1.0
    ramping: bool = False
    since: float = 0.0
    demoted: int = 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """The decision, with its reasons.  The integers are positions in the route's endpoint list.

    `front` may be chosen now; `behind` are healthy endpoints of worse tiers, best first, and `demoted`
    those of them that are in the last tier of all; `need` are the refused that may be tried when
    nothing else exists, least bad first.  `shares` belong to `front`; None when all are equal.  The
    ranking holds until `valid_until`.
    """

    front: tuple[int, ...]
    behind: tuple[int, ...]
    demoted: frozenset[int]
    need: tuple[int, ...]
    refused: tuple[tuple[int, Reason, float], ...]
    shares: tuple[float, ...] | None
    valid_until: float

    @property
    def panic(self) -> bool:
        """Nothing is healthy: only the last resort is left."""
        return not self.front


RAMP_STEP = 0.5  # seconds between two looks at a share that is growing


def rank(candidates: Sequence[Candidate], now: float) -> Ranking:
    """Order the candidates.  Pure; the caller keeps the result until `valid_until` or a change."""
    fit = [i for i, c in enumerate(candidates) if c.refused is None]
    rung = {i: (candidates[i].demoted, candidates[i].endpoint.tier) for i in fit}
    fit.sort(key=rung.__getitem__)
    best = rung[fit[0]] if fit else (0, 0)
    front = tuple(i for i in fit if rung[i] == best)
    behind = tuple(i for i in fit if rung[i] != best)
    demoted = frozenset(i for i in behind if candidates[i].demoted)
    refused = tuple((i, c.refused, c.until) for i, c in enumerate(candidates) if c.refused is not None)
    need = sorted(
        (i for i, reason, _ in refused if reason not in NEVER_USED),
        key=lambda i: (
            _NEED_ORDER.get(candidates[i].refused or Reason.EXCLUDED, 9),
            # broken for the longest: the likeliest to be back
            candidates[i].since if candidates[i].refused in _OF_BREAKERS else 0.0,
            candidates[i].endpoint.tier,
            candidates[i].until,
        ),
    )
    valid_until = min((until for _, _, until in refused), default=NEVER)
    shares: tuple[float, ...] | None = tuple(candidates[i].share for i in front)
    if shares is not None and len(set(shares)) <= 1:
        shares = None
    if any(candidates[i].ramping for i in fit):
        valid_until = min(valid_until, now + RAMP_STEP)
    return Ranking(front, behind, demoted, tuple(need), refused, shares, valid_until)


class Costly(Protocol):
    """What an endpoint's work costs: policy/load in the gateway, numbers in tests."""

    def cost(self, now: float) -> float:
        """Comparable; the lower the better."""


def pick(loads: Sequence[Costly], shares: Sequence[float] | None, chance: float, now: float) -> int:
    """One of `loads` (its index): the cheaper of two at random.  Only these two are asked what they cost.

    `chance` in [0, 1) decides both draws.  With unequal shares the draws are by share, and the second
    is taken only when it is clearly cheaper (`CLEARLY`): among endpoints of like speed, weights of 3
    and 1 mean three calls to one, and an endpoint that has just returned gets its tenth.
    """
    count = len(loads)
    if count == 1:
        return 0
    if shares is None:
        first, second = divmod(int(chance * count * (count - 1)), count - 1)
        if second >= first:
            second += 1
        margin = 1.0
    else:
        first, rest = _draw(shares, chance)
        others = [i for i in range(count) if i != first]
        second = others[_draw([shares[i] for i in others], rest)[0]]
        margin = CLEARLY
    return second if loads[second].cost(now) * margin < loads[first].cost(now) else first


CLEARLY = 2.0  # how many times cheaper the second draw must be to be taken against its share


def _draw(shares: Sequence[float], chance: float) -> tuple[int, float]:
    """A position drawn by share, and what is left of `chance`: again a number in [0, 1)."""
    left = chance * sum(shares)
    for position, share in enumerate(shares):
        if left < share:
            return position, left / share
        left -= share
    return len(shares) - 1, 0.0  # rounding at the very end of the line


def successor(
    ranking: Ranking,
    endpoints: Sequence[Endpoint],
    costs: Sequence[float],
    used: Sequence[int],
    last_resort: bool,
    late: Sequence[bool] | None = None,
    doubted: bool = False,
) -> int | None:
    """Where a call goes after the endpoints in `used`: another failure domain first, then the cheapest.

    Front before worse tiers before the demoted; with `last_resort`, endpoints that are believed broken come after all
    healthy ones.  None when nothing is left.  `costs` are per position of `endpoints`, and so is `late`: who
    has not got the newest block comes later, and before all else if the answers so far are `doubted`.
    """
    tried = [endpoints[i] for i in used]
    groups = [ranking.front, ranking.behind]
    best: tuple[tuple[bool, bool, int, bool, int, float], int] | None = None
    for group_rank, group in enumerate(groups):
        for i in group:
            if i in used:
                continue
            # a worse tier in another domain beats the same domain in a better tier: what failed there is suspect
            behind = late is not None and late[i]
            tier = group_rank * 1000 + endpoints[i].tier
            key = (i in ranking.demoted, doubted and behind, _shared(endpoints[i], tried), behind, tier, costs[i])
            if best is None or key < best[0]:
                best = (key, i)
    if best is not None:
        return best[1]
    if last_resort:
        for i in ranking.need:
            if i not in used:
                return i
    return None


def _shared(endpoint: Endpoint, tried: Sequence[Endpoint]) -> int:
    """What it has in common with those tried: 2 the place, 1 the software only, 0 nothing."""
    if any(endpoint.shares_place_with(other) for other in tried):
        return 2
    return int(any(endpoint.shares_domain_with(other) for other in tried))

"""Endpoints: everything that is known of one endpoint and changes while the gateway runs.

Always true: these are facts side by side (drain, chain, exclusion, hold, budget, breakers), and whether
an endpoint may be used is derived from them each time, never stored as one state; each fact that
refuses says why and until when.  Only the fleet writes here.
Does not belong here: choosing between endpoints (fleet, policy/selection), and what is known of blocks
(upstream/fleet/blocks), which concerns all endpoints of a route at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gateway.model import Endpoint, Family, Reason
from gateway.policy.breaker import Breaker, BreakerState
from gateway.policy.concurrency import ConcurrencyLimit, ConcurrencySettings
from gateway.policy.hedging import Quantile
from gateway.policy.holds import GrowingHold
from gateway.policy.load import PeakEwma
from gateway.policy.quota import ProviderBudget
from gateway.policy.selection import NEVER
from gateway.telemetry.tallies import AttemptStats, LatencyHistogram, SeriesBudget

if TYPE_CHECKING:
    from gateway.upstream.fleet.permits import PoolSettings
    from gateway.upstream.fleet.pool import Pool

_TOLD_AS = {
    Reason.WRONG_CHAIN: "chain",
    Reason.FORKED: "head",
    Reason.IMPLAUSIBLE_HEAD: "head",
    Reason.LAGGING: "head",
    Reason.DISTRUSTED: "distrusted",
    Reason.EXCLUDED: "excluded",
    Reason.HELD: "held",
    Reason.STILL: "market",
}

Tallies = Callable[[str, str, Family], AttemptStats]
"""Where attempts are counted: route, endpoint id and family to a tally."""


def no_tallies(route: str, endpoint: str, family: Family) -> AttemptStats:
    """A tally that nobody reads, for pools without metrics."""
    return AttemptStats(LatencyHistogram(), frozenset(), SeriesBudget(0), None)


class Cell:
    """One endpoint x family: the unit of health."""

    __slots__ = ("breaker", "family", "limit", "load", "quantile", "suspect", "tally")

    def __init__(self, family: Family, settings: PoolSettings, tally: AttemptStats, most: int, now: float) -> None:
        self.family = family
        self.tally = tally
        self.breaker = Breaker(settings.breaker, now)
        self.load = PeakEwma(settings.selection.prior_latency, settings.selection.decay, now)
        self.limit = ConcurrencyLimit(settings.concurrency, most)
        self.quantile = Quantile()
        self.suspect = False  # a call was hedged away from it: slow, or silent for good?


class EndpointState:
    """Everything that is known of one endpoint and changes."""

    __slots__ = (
        "answered_at", "awake", "budget", "budget_until", "cells", "chain_id", "chain_ok", "distrusted_until",
        "drained_at", "endpoint", "exclusion", "exclusion_reason", "failed_with", "genesis", "hold", "in_flight",
        "lost_at", "moved_at", "needed_at", "pool", "position", "ranges", "software", "still",
        "verified", "verified_at",
    )  # fmt: skip

    def __init__(self, pool: Pool, position: int, endpoint: Endpoint, budget: ProviderBudget, now: float) -> None:
        holds = pool.settings.holds
        self.pool = pool
        self.position = position
        self.endpoint = endpoint
        self.budget = budget
        self.budget_until = 0.0
        self.cells: list[Cell | None] = [None] * len(Family)
        self.hold = GrowingHold(holds.hold_for, holds.hold_at_most)
        self.exclusion = GrowingHold(holds.exclude_for, holds.exclude_at_most)
        self.exclusion_reason = ""
        self.failed_with = ""  # how the last attempt ended that failed: what a person wants to know first
        self.drained_at: float | None = None
        self.chain_id: int | None = None
        self.chain_ok = True
        self.genesis = ""
        self.software = ""
        self.still = False  # its public data stand still while others' move
        self.verified = False
        self.verified_at = now
        self.lost_at = -1.0  # when a connection last failed after the chain had been verified; -1: not since
        self.distrusted_until = 0.0
        self.ranges: dict[Family, tuple[int, float]] = {}  # the most blocks that a query may span, and until when
        self.in_flight = 0
        self.answered_at = 0.0
        self.awake = not endpoint.standby
        self.needed_at = now
        self.moved_at: dict[str, float] = {}  # when each kind of fact last changed, as it was told

    def cell(self, family: Family) -> Cell:
        cell = self.cells[family.slot]
        if cell is None:
            pool = self.pool
            tally = pool.tallies(pool.route, self.endpoint.id, family)
            cell = Cell(family, pool.settings, tally, self.endpoint.max_concurrency, pool.clock())
            self.cells[family.slot] = cell
        return cell

    def limit_to(self, most: int, settings: ConcurrencySettings) -> None:
        """The most calls at once that it is allowed have changed; what was learned below that is learned anew."""
        for cell in self.cells:
            if cell is not None:
                cell.limit = ConcurrencyLimit(settings, most)

    def refusal(self, family: Family, now: float, about_the_head: bool = False) -> tuple[Reason | None, float]:
        """The first reason not to use it for this family, and when that may end."""
        if self.drained_at is not None:
            return Reason.DRAINED, NEVER
        if not self.chain_ok:
            return Reason.WRONG_CHAIN, NEVER
        if not self.verified:
            return Reason.UNVERIFIED, NEVER
        if now < self.distrusted_until:
            return Reason.DISTRUSTED, self.distrusted_until
        if now < self.exclusion.until:
            return Reason.EXCLUDED, self.exclusion.until
        if self.exclusion_reason:
            return Reason.EXCLUDED, NEVER  # its time is over, and a probe has yet to say that it is back
        reason = self.pool.blocks.refusal(self.position, about_the_head)
        if reason is not None:
            return reason, NEVER  # its next word about its head ends it, an event
        if self.still and family is Family.MARKET:
            return Reason.STILL, NEVER  # the prober ends it, an event
        if now < self.hold.until:
            return Reason.HELD, self.hold.until
        if now < self.budget_until:
            return Reason.NO_BUDGET, self.budget_until
        cell = self.cells[family.slot]
        if cell is not None and cell.breaker.state is not BreakerState.CLOSED:
            if cell.breaker.state is BreakerState.OPEN:
                return Reason.BREAKER_OPEN, NEVER  # the prober ends it, an event
            return Reason.PROBING, NEVER
        return None, NEVER

    def reasons(self, now: float) -> Iterator[tuple[Reason, str]]:
        """Every reason in force with its family (empty: all families), for pages and `explain`."""
        seen: set[tuple[Reason, str]] = set()
        for family in Family:
            reason, _ = self.refusal(family, now, about_the_head=True)
            if reason is None:
                continue
            item = (reason, family.value if reason in (Reason.BREAKER_OPEN, Reason.PROBING) else "")
            if item not in seen:
                seen.add(item)
                yield item

    def since(self, reason: Reason, family: str, now: float) -> float:
        """The instant since when this reason, which is in force, holds; `now` when it is not known."""
        if reason is Reason.DRAINED and self.drained_at is not None:
            return self.drained_at
        if family:
            cell = self.cells[Family(family).slot]
            return cell.breaker.changed_at if cell is not None else now
        if reason is Reason.UNVERIFIED:
            return self.verified_at
        return self.moved_at.get(_TOLD_AS.get(reason, ""), now)

    def max_range(self, family: Family, now: float) -> int | None:
        """The most blocks that a query of this family may span here, as it said; None: it has not said."""
        blocks, until = self.ranges.get(family, (0, 0.0))
        return blocks if now < until else None

    @property
    def down(self) -> bool:
        """A breaker says that it is broken: what failure domains are judged by."""
        return any(cell is not None and cell.breaker.state is not BreakerState.CLOSED for cell in self.cells)

    @property
    def failing(self) -> bool:
        """The last calls of a family failed, not yet enough of them to open its breaker."""
        return any(cell is not None and cell.breaker.failures_in_a_row > 0 for cell in self.cells)

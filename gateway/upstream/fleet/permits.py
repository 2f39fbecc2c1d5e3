"""Permits: the right to one attempt at one endpoint, and what its end does.

Always true: a permit is settled at most once; leaving it unsettled (cancelled, hedged away, caller gone)
counts as IGNORED and always gives the slot back, so that no probe and no slot is ever lost.
A success on a healthy endpoint costs a few additions here and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.errors import AttemptError
from gateway.model import Effect, Outcome, Reading, Sent
from gateway.policy.admission import AdmissionSettings
from gateway.policy.agreement import AuditSettings
from gateway.policy.breaker import BreakerSettings, BreakerState
from gateway.policy.concurrency import ConcurrencySettings
from gateway.policy.domains import DomainSettings
from gateway.policy.heads import HeadSettings
from gateway.policy.hedging import HedgeSettings
from gateway.policy.holds import HoldSettings
from gateway.policy.retry import RetrySettings
from gateway.policy.selection import SelectionSettings

if TYPE_CHECKING:
    from gateway.upstream.fleet.endpoints import Cell, EndpointState


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """The policies of one route."""

    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    holds: HoldSettings = field(default_factory=HoldSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    heads: HeadSettings = field(default_factory=HeadSettings)
    domains: DomainSettings = field(default_factory=DomainSettings)
    concurrency: ConcurrencySettings = field(default_factory=ConcurrencySettings)
    hedging: HedgeSettings = field(default_factory=HedgeSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)


@dataclass(frozen=True, slots=True)
class Moved:
    """A change of state worth telling: a breaker, a hold, an exclusion, a drain, a head, a domain."""

    route: str
    endpoint: str
    what: str  # breaker, held, excluded, drained, chain, head, domain, distrusted
    family: str
    was: str
    became: str
    detail: str = ""


_SUCCESS, _CLOSED = Outcome.SUCCESS, BreakerState.CLOSED  # looked up once, for the hot path


class Permit:
    """The right to one attempt.  Settle it once; `release` without a verdict means IGNORED."""

    __slots__ = ("cell", "cost", "generation", "last_resort", "settled", "started_at", "state")

    def __init__(
        self,
        state: EndpointState,
        cell: Cell,
        generation: int,
        started_at: float,
        last_resort: bool = False,
        cost: float = 0.0,
    ) -> None:
        self.state = state
        self.cell = cell
        self.generation = generation
        self.started_at = started_at
        self.last_resort = last_resort
        self.cost = cost  # what its provider's budget was charged
        self.settled = False
        state.in_flight += 1
        cell.load.in_flight += 1

    def settle(self, outcome: Outcome, ended: str, now: float, reading: Reading | None = None) -> None:
        """Count the attempt and give the slot back.  A second call changes nothing."""
        if self.settled:
            return
        self.settled = True
        state, cell = self.state, self.cell
        pool = state.pool
        state.in_flight -= 1
        cell.load.in_flight -= 1
        state.last_used_at = now
        latency = now - self.started_at
        if outcome is _SUCCESS:
            state.answered_at = now
            cell.tally.done(latency)
            cell.load.observe(latency, now)
            cell.quantile.observe(latency)
            limit = cell.limit
            if limit.limit < limit.most:
                limit.worked(cell.load.in_flight, now)
            if pool.connectivity.unsettled:
                pool.reached(state, now)
            if state.hold.times:
                state.hold.worked(now)
            if pool.waiting:
                pool.on_free()
            breaker = cell.breaker
            if breaker.state is _CLOSED and not breaker.failures_in_a_row and not breaker.evidence:
                return  # nothing to forgive: the happy path ends here
        else:
            cell.tally.ended(ended, latency)
            if outcome is Outcome.FAILURE:
                state.failed_with = ended
            self._charge(outcome, latency, now)
        pool.count(self, outcome, ended, now)
        if reading is not None and reading.kind.effect is not Effect.NONE:
            pool.apply(state, reading, now)
        if pool.waiting:
            pool.on_free()

    def _charge(self, outcome: Outcome, latency: float, now: float) -> None:
        """What an attempt without an answer costs its endpoint in the choices to come."""
        cell = self.cell
        if outcome is Outcome.THROTTLED:
            cell.load.observe(max(latency, self.state.pool.settings.selection.penalty_latency), now)
        elif outcome is not Outcome.IGNORED:
            cell.load.observe(max(latency, cell.load.estimate), now)

    def release(self) -> None:
        """Leave without a verdict (cancelled, caller gone)."""
        if not self.settled:
            self.settle(Outcome.IGNORED, "cancelled", self.state.pool.clock())

    def unused(self) -> None:
        """Nothing was sent after all: the slot goes back, and so does what it cost."""
        if not self.settled:
            self._refund()
            self.release()

    def failed(self, error: AttemptError, now: float) -> None:
        """Count an attempt that no answer came to.  If no byte of it left, its provider did not count it either."""
        if error.sent is Sent.NOT_SENT:
            self._refund()
        self.settle(error.counts, error.reason, now)

    def _refund(self) -> None:
        if self.cost:
            self.state.budget.returned(self.cost)
            self.cost = 0.0

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

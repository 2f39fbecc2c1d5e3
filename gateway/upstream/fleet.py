"""The fleet: the live state of every endpoint, and the only place where it changes.

Always true: this file has no async function, so no change spans an await; a permit is settled at
most once, and leaving it unsettled counts as IGNORED and always releases; breaker and slot are
granted together or not at all; availability is derived from independent facts (drain, chain,
exclusion, hold, breaker, method), never stored as one state; an operator's drain ends only by an
operator.
Rankings are cached per route x family and made anew when a fact changes or a time passes, so the
happy path compares two numbers whatever the number of endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from gateway.clock import Clock
from gateway.model import Effect, Endpoint, Family, Method, Outcome, Reading, Reason
from gateway.policy.breaker import Breaker, BreakerSettings, BreakerState
from gateway.policy.budget import TokenBucket
from gateway.policy.holds import GrowingHold, HoldSettings
from gateway.policy.load import PeakEwma
from gateway.policy.retry import RetrySettings
from gateway.policy.selection import NEVER, NEVER_USED, Candidate, Ranking, SelectionSettings, pick, rank, successor
from gateway.telemetry.tallies import AttemptStats, LatencyHistogram, SeriesBudget

Tallies = Callable[[str, str, Family], AttemptStats]
"""Where attempts are counted: route, endpoint id and family to a tally."""


def no_tallies(route: str, endpoint: str, family: Family) -> AttemptStats:
    """A tally that nobody reads, for pools without metrics."""
    return AttemptStats(LatencyHistogram(), frozenset(), SeriesBudget(0), None)


MAX_UNSUPPORTED = 256  # method names remembered per route: names come from callers, so they are bounded


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """The policies of one route."""

    breaker: BreakerSettings = field(default_factory=BreakerSettings)
    holds: HoldSettings = field(default_factory=HoldSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)


@dataclass(frozen=True, slots=True)
class Moved:
    """A change of state worth telling: a breaker, a hold, an exclusion, a drain."""

    route: str
    endpoint: str
    what: str  # breaker, held, excluded, drained, chain
    family: str
    was: str
    became: str
    detail: str = ""


class Cell:
    """One endpoint x family: the unit of health."""

    __slots__ = ("breaker", "family", "load", "tally")

    def __init__(self, family: Family, settings: PoolSettings, tally: AttemptStats, now: float) -> None:
        self.family = family
        self.tally = tally
        self.breaker = Breaker(settings.breaker, now)
        self.load = PeakEwma(settings.selection.prior_latency, settings.selection.decay, now)


class EndpointState:
    """Everything that is known of one endpoint and changes."""

    __slots__ = (
        "cells", "chain_id", "chain_ok", "drained_at", "endpoint", "exclusion", "exclusion_reason", "hold", "in_flight",
        "last_used_at", "pool", "position", "verified", "verified_at",
    )  # fmt: skip

    def __init__(self, pool: Pool, position: int, endpoint: Endpoint, now: float) -> None:
        holds = pool.settings.holds
        self.pool = pool
        self.position = position
        self.endpoint = endpoint
        self.cells: list[Cell | None] = [None] * len(Family)
        self.hold = GrowingHold(holds.hold_for, holds.hold_at_most)
        self.exclusion = GrowingHold(holds.exclude_for, holds.exclude_at_most)
        self.exclusion_reason = ""
        self.drained_at: float | None = None
        self.chain_id: int | None = None
        self.chain_ok = True
        self.verified = False
        self.verified_at = now
        self.in_flight = 0
        self.last_used_at = now

    def cell(self, family: Family) -> Cell:
        cell = self.cells[family.slot]
        if cell is None:
            pool = self.pool
            tally = pool.tallies(pool.route, self.endpoint.id, family)
            cell = self.cells[family.slot] = Cell(family, pool.settings, tally, pool.clock())
        return cell

    def refusal(self, family: Family, now: float) -> tuple[Reason | None, float]:
        """The first reason not to use it for this family, and when that may end."""
        if self.drained_at is not None:
            return Reason.DRAINED, NEVER
        if not self.chain_ok:
            return Reason.WRONG_CHAIN, NEVER
        if not self.verified:
            return Reason.UNVERIFIED, NEVER
        if now < self.exclusion.until:
            return Reason.EXCLUDED, self.exclusion.until
        if self.exclusion_reason:
            return Reason.EXCLUDED, NEVER  # its time is over, and a probe has yet to say that it is back
        if now < self.hold.until:
            return Reason.HELD, self.hold.until
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
            reason, _ = self.refusal(family, now)
            if reason is None:
                continue
            item = (reason, family.value if reason in (Reason.BREAKER_OPEN, Reason.PROBING) else "")
            if item not in seen:
                seen.add(item)
                yield item


class Permit:
    """The right to one attempt.  Settle it once; `release` without a verdict means IGNORED."""

    __slots__ = ("cell", "generation", "settled", "started_at", "state")

    def __init__(self, state: EndpointState, cell: Cell, generation: int, started_at: float) -> None:
        self.state = state
        self.cell = cell
        self.generation = generation
        self.started_at = started_at
        self.settled = False
        state.in_flight += 1
        cell.load.in_flight += 1

    def settle(self, outcome: Outcome, ended: str, now: float, reading: Reading | None = None) -> None:
        """Count the attempt and give the slot back.  A second call changes nothing."""
        if self.settled:
            return
        self.settled = True
        state, cell = self.state, self.cell
        state.in_flight -= 1
        cell.load.in_flight -= 1
        state.last_used_at = now
        latency = now - self.started_at
        if outcome is Outcome.SUCCESS:
            cell.tally.done(latency)
            cell.load.observe(latency, now)
            if state.hold.times:
                state.hold.worked(now)
            breaker = cell.breaker
            if breaker.state is BreakerState.CLOSED and not breaker.failures_in_a_row and not breaker.evidence:
                return  # nothing to forgive: the happy path ends here
        else:
            cell.tally.ended(ended, latency)
            if outcome is Outcome.THROTTLED:
                cell.load.observe(max(latency, state.pool.settings.selection.penalty_latency), now)
            elif outcome is not Outcome.IGNORED:
                cell.load.observe(max(latency, cell.load.estimate), now)
        state.pool.count(state, cell, self.generation, outcome, now)
        if reading is not None and reading.kind.effect is not Effect.NONE:
            state.pool.apply(state, reading, now)

    def release(self) -> None:
        """Leave without a verdict (cancelled, caller gone)."""
        if not self.settled:
            self.settle(Outcome.IGNORED, "cancelled", self.state.pool.clock())

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Pool:
    """The endpoints of one route, with their policies."""

    def __init__(
        self,
        route: str,
        endpoints: Sequence[Endpoint],
        settings: PoolSettings,
        clock: Clock,
        random: Random,
        tell: Callable[[Moved], None] = lambda moved: None,
        tallies: Tallies = no_tallies,
    ) -> None:
        self.route = route
        self.tallies = tallies
        self.settings = settings
        self.clock = clock
        self.endpoints = tuple(endpoints)
        self._keeps_private = any(endpoint.private for endpoint in endpoints)
        now = clock()
        self.states = [EndpointState(self, i, endpoint, now) for i, endpoint in enumerate(endpoints)]
        self.retry_budget = TokenBucket(settings.retry.budget_rate, settings.retry.budget_burst, now)
        self._random = random
        self._tell = tell
        self._rankings: list[Ranking | None] = [None] * len(Family)
        self._unsupported: dict[str, dict[int, float]] = {}

    # --- choosing ---------------------------------------------------------------------------------

    def ranking(self, family: Family, now: float) -> Ranking:
        """Who may have a call of this family now, with the reasons for the others.  Cached."""
        ranking = self._rankings[family.slot]
        if ranking is None or now >= ranking.valid_until:
            ranking = self._rankings[family.slot] = rank([self._candidate(s, family, now) for s in self.states], now)
        return ranking

    def ranking_for(self, method: Method, now: float) -> Ranking:
        """The same for one method: endpoints that said they do not offer it are refused."""
        absent = self._unsupported.get(method.name)
        if absent is not None and all(now >= until for until in absent.values()):
            absent = None
            del self._unsupported[method.name]
        if absent is None:
            return self.ranking(method.family, now)
        candidates = []
        for state in self.states:
            candidate = self._candidate(state, method.family, now)
            until = absent.get(state.position, 0.0)
            if now < until and candidate.refused not in NEVER_USED:  # not even in need: it would say the same
                candidate = Candidate(state.endpoint, Reason.UNSUPPORTED, until)
            candidates.append(candidate)
        return rank(candidates, now)

    def first(self, method: Method, now: float) -> Permit | None:
        """A permit at the best endpoint for a new call; None when nothing healthy is free."""
        family = method.family
        if self._unsupported and method.name in self._unsupported:
            ranking = self.ranking_for(method, now)
        else:
            cached = self._rankings[family.slot]
            ranking = cached if cached is not None and now < cached.valid_until else self.ranking(family, now)
        front = ranking.front
        if not front:
            return None
        states = self.states
        if len(front) == 1:
            position = front[0]
        else:
            slot = family.slot
            costs = [(states[i].cells[slot] or states[i].cell(family)).load.cost(now) for i in front]
            position = pick(front, costs, ranking.shares, self._random.random())
        state = states[position]
        cell = state.cells[family.slot] or state.cell(family)
        if state.in_flight >= state.endpoint.max_concurrency:
            return None
        return Permit(state, cell, cell.breaker.generation, now)

    def next(self, method: Method, used: Sequence[int], last_resort: bool, now: float) -> Permit | None:
        """A permit at the best endpoint outside `used`; the last resort included if asked for."""
        ranking = self.ranking_for(method, now)
        family = method.family
        taken = list(used)
        while True:
            costs = [state.cell(family).load.cost(now) for state in self.states]
            position = successor(ranking, self.endpoints, costs, taken, last_resort)
            if position is None:
                return None
            state = self.states[position]
            if state.in_flight < state.endpoint.max_concurrency:
                cell = state.cell(family)
                return Permit(state, cell, cell.breaker.generation, now)
            taken.append(position)

    def free_after(self, method: Method, now: float) -> float | None:
        """Seconds until a refused endpoint may be free again; None when no time is known."""
        until = min((until for _, _, until in self.ranking_for(method, now).refused), default=NEVER)
        return max(0.0, until - now) if until != NEVER else None

    def all_lack(self, method: Method, now: float) -> bool:
        """Every endpoint has said lately that it does not offer this method."""
        absent = self._unsupported.get(method.name, {})
        return all(now < absent.get(state.position, 0.0) for state in self.states)

    def at(self, position: int, family: Family, now: float) -> Permit | None:
        """A permit at one endpoint whatever its health, for probes and look-ups; None without a slot."""
        state = self.states[position]
        if state.in_flight >= state.endpoint.max_concurrency:
            return None
        cell = state.cell(family)
        return Permit(state, cell, cell.breaker.generation, now)

    def probe(self, position: int, family: Family, now: float) -> Permit | None:
        """A half-open probe's permit, if the breaker is ready for one."""
        state = self.states[position]
        cell = state.cell(family)
        before = cell.breaker.state
        generation = cell.breaker.admit(now)
        if before is not cell.breaker.state:
            self._moved(state, "breaker", family.value, before.value, cell.breaker.state.value)
        if generation is None:
            return None
        return Permit(state, cell, generation, now)

    # --- counting ---------------------------------------------------------------------------------

    def count(self, state: EndpointState, cell: Cell, generation: int, outcome: Outcome, now: float) -> None:
        before = cell.breaker.state
        if cell.breaker.settle(generation, outcome, now, self._random.random()) or before is not cell.breaker.state:
            self._moved(state, "breaker", cell.family.value, before.value, cell.breaker.state.value)

    def apply(self, state: EndpointState, reading: Reading, now: float) -> None:
        """What a reply does besides counting: a hold or an exclusion (see `unsupported` for methods)."""
        effect = reading.kind.effect
        holds = self.settings.holds
        if effect is Effect.HOLD:
            before = state.hold.until
            until = state.hold.extend(now, self._random.random(), reading.retry_after, holds.retry_after_at_most)
            if until != before:
                self._moved(state, "held", "", "free", f"for {until - now:.1f}s", reading.kind.value)
        elif effect is Effect.EXCLUDE:
            before = state.exclusion.until
            state.exclusion_reason = reading.kind.value
            if state.exclusion.extend(now, self._random.random()) != before:
                self._moved(state, "excluded", "", "in", "out", reading.kind.value)

    def unsupported(self, position: int, method: Method, now: float) -> None:
        """Remember that this endpoint does not offer this method, for a while."""
        absent = self._unsupported.get(method.name)
        if absent is None:
            if len(self._unsupported) >= MAX_UNSUPPORTED:
                self._unsupported.pop(next(iter(self._unsupported)))
            absent = self._unsupported[method.name] = {}
        absent[position] = now + self.settings.holds.unsupported_for

    def back(self, position: int, now: float) -> None:
        """A probe got through: an exclusion ends."""
        state = self.states[position]
        if state.exclusion_reason:
            state.exclusion.until = now
            state.exclusion.times = 0
            self._moved(state, "excluded", "", "out", "in", state.exclusion_reason)
            state.exclusion_reason = ""
            self.changed()

    def still_out(self, position: int, now: float) -> None:
        """A probe of an excluded endpoint failed: the next one comes later."""
        state = self.states[position]
        if state.exclusion_reason:
            state.exclusion.extend(now, self._random.random())

    def note_chain(self, position: int, chain_id: int | None, ok: bool) -> None:
        """The endpoint told its chain (or cannot, and is taken at its word)."""
        state = self.states[position]
        if state.verified and state.chain_ok == ok and state.chain_id == chain_id:
            return
        was = "unverified" if not state.verified else ("right" if state.chain_ok else "wrong")
        state.verified, state.chain_ok, state.chain_id = True, ok, chain_id
        self._moved(state, "chain", "", was, "right" if ok else "wrong", f"chain id {chain_id}")

    def drain(self, position: int, now: float) -> None:
        """An operator takes the endpoint out; calls in flight finish."""
        state = self.states[position]
        if state.drained_at is None:
            state.drained_at = now
            self._moved(state, "drained", "", "in", "out")

    def undrain(self, position: int) -> None:
        state = self.states[position]
        if state.drained_at is not None:
            state.drained_at = None
            self._moved(state, "drained", "", "out", "in")

    def changed(self) -> None:
        """A fact changed: every ranking is made anew when next asked for."""
        self._rankings = [None] * len(Family)

    def adopt(self, position: int, old: EndpointState) -> None:
        """Take over the live state of an endpoint that a reload left unchanged."""
        old.pool = self
        old.position = position
        old.endpoint = self.endpoints[position]
        self.states[position] = old
        self.changed()

    def position_of(self, endpoint_id: str) -> int | None:
        for i, endpoint in enumerate(self.endpoints):
            if endpoint.id == endpoint_id:
                return i
        return None

    def _candidate(self, state: EndpointState, family: Family, now: float) -> Candidate:
        reason, until = state.refusal(family, now)
        if self._keeps_private and family is Family.SEND and not state.endpoint.private:
            reason, until = Reason.NOT_PRIVATE, NEVER
        cell = state.cells[family.slot]
        share, ramping, since = state.endpoint.weight, False, 0.0
        if cell is not None:
            ramp = cell.breaker.slow_start_share(now)
            share, ramping, since = share * ramp, ramp < 1.0, cell.breaker.changed_at
        return Candidate(state.endpoint, reason, until, share, ramping, since)

    def _moved(self, state: EndpointState, what: str, family: str, was: str, became: str, detail: str = "") -> None:
        self.changed()
        self._tell(Moved(self.route, state.endpoint.id, what, family, was, became, detail))

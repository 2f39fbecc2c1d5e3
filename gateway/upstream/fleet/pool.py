"""The fleet: the live state of every endpoint, and the only place where it changes.

Always true: this file has no async function, so no change spans an await; a permit is settled at
most once, and leaving it unsettled counts as IGNORED and always releases; breaker, budget and slot are
granted together or not at all; availability is derived from independent facts (drain, chain, head,
exclusion, hold, budget, breaker, method, block), never stored as one state; an operator's drain ends
only by an operator; a failure to reach anybody counts only once somebody else was reached.
Rankings are cached per route x family and made anew when a fact changes or a time passes, so the
happy path compares a few numbers whatever the number of endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from gateway.model import Call, Family, Method, Outcome, Reason, ReplyKind
from gateway.policy.load import PeakEwma
from gateway.policy.selection import NEVER, NEVER_USED, Candidate, Ranking, pick, rank, successor
from gateway.upstream.fleet.endpoints import Cell, EndpointState
from gateway.upstream.fleet.facts import Facts
from gateway.upstream.fleet.permits import Permit

SHORT_RANGE = 100  # blocks; no endpoint is known to refuse a log query that spans less
RECONNECTS = frozenset({"connect_failed", "connect_timeout", "resolve_failed", "tls_failed", "connection_lost"})
BUDGET_LOOKED_AT_EVERY = 60.0  # seconds: another endpoint of its account may have found that it is renewed
_NO_LATER = (Family.HEAD, Family.SEND)  # a head that went back is seen in the answer; a send is about no block
_SOON = (Reason.NO_BUDGET, Reason.HELD)
THROTTLED = ReplyKind.THROTTLED.value
UNREACHED = RECONNECTS | {"attempt_timeout"}
"""How an attempt ends that found nobody: the fault may be our own network's."""


class Pool(Facts):
    """The endpoints of one route: who gets a call, and how its end counts."""

    # --- choosing ---------------------------------------------------------------------------------------

    def ranking(self, family: Family, now: float, about_the_head: bool = False) -> Ranking:
        """Who may have a call of this family now, with the reasons for the others.  Cached."""
        slot = family.slot * 2 + about_the_head
        ranking = self._rankings[slot]
        if ranking is None or now >= ranking.valid_until:
            ranking = rank([self._candidate(s, family, now, about_the_head) for s in self.states], now)
            self._rankings[slot] = ranking
            self._spans[slot] = self.blocks.span(ranking.front, family, now)
            self._loads[slot] = self._loads_of(ranking.front, family)
        return ranking

    def ranking_for(self, call: Call, now: float) -> Ranking:
        """The same for one call: endpoints that lack its method or its blocks are refused."""
        method = call.method
        absent = self._absent(method.name, now)
        if absent is None and call.low < 0 and call.high < 0:
            return self.ranking(method.family, now, call.about_the_head)
        candidates = []
        for state in self.states:
            candidate = self._candidate(state, method.family, now, call.about_the_head)
            until = absent.get(state.position, 0.0) if absent is not None else 0.0
            if candidate.refused in NEVER_USED:
                pass
            elif now < until:  # not even in need: it would say the same
                candidate = Candidate(state.endpoint, Reason.UNSUPPORTED, until)
            elif candidate.refused is None and not self._has(state, call, now):
                candidate = Candidate(state.endpoint, Reason.NO_SUCH_BLOCK, NEVER)
            candidates.append(candidate)
        return rank(candidates, now)

    def first(self, call: Call, now: float) -> Permit | None:
        """A permit at the best endpoint for a new call; None when nothing healthy is free."""
        family, about_the_head = call.method.family, call.about_the_head
        slot = family.slot * 2 + about_the_head
        ranking = self._rankings[slot]
        if ranking is None or now >= ranking.valid_until:
            ranking = self.ranking(family, now, about_the_head)
        loads = self._loads[slot]
        low, high = self._spans[slot]
        if (
            call.high > high
            or -1 < call.low < low
            or (self._unsupported and call.method.name in self._unsupported)
            or call.high - call.low >= SHORT_RANGE
        ):
            ranking = self.ranking_for(call, now)
            loads = self._loads_of(ranking.front, family)
        front = ranking.front
        if not front:
            return None
        if self.blocks.served > high and about_the_head and family not in _NO_LATER:
            permit = self._among_those_ahead(ranking, call, now)
            if permit is not None:
                return permit
        position = front[pick(loads, ranking.shares, self._random.random(), now)]
        return self._grant(self.states[position], call, now)

    def _loads_of(self, positions: Sequence[int], family: Family) -> list[PeakEwma]:
        return [self.states[position].cell(family).load for position in positions]

    def _among_those_ahead(self, ranking: Ranking, call: Call, now: float) -> Permit | None:
        """Who has told block 100 and reads a balance expects that of block 100, not of the one before.

        A permit at one of the front that have the newest block that callers have seen; None: none is free.
        """
        floor = self.blocks.served
        places = [n for n, position in enumerate(ranking.front) if not self.blocks.late(position, floor)]
        if not places:
            return None
        ahead = [ranking.front[n] for n in places]
        shares = [ranking.shares[n] for n in places] if ranking.shares is not None else None
        position = ahead[pick(self._loads_of(ahead, call.method.family), shares, self._random.random(), now)]
        return self._grant(self.states[position], call, now)

    def next(
        self,
        call: Call,
        used: Sequence[int],
        last_resort: bool,
        now: float,
        *,
        apart: bool = False,
        doubted: bool = False,
        rouse: bool = True,
    ) -> Permit | None:
        """A permit at the best endpoint outside `used`; the last resort included if asked for.

        `apart`: only one that runs somewhere else than those used, is in no doubt itself, and whose provider's
        budget can spare it.  `doubted`: those used did answer, and somebody who has the newest block may know
        better.  `rouse`: a standby that sleeps may be asked, too.
        """
        ranking = self.ranking_for(call, now)
        family = call.method.family
        newest = self.blocks.book.reference
        late = [call.high < 0 and self.blocks.late(position, newest) for position in range(len(self.states))]
        taken = list(used)
        while True:
            costs = [state.cell(family).load.cost(now) for state in self.states]
            position = successor(ranking, self.endpoints, costs, taken, last_resort, late, doubted)
            if position is None:
                return None
            taken.append(position)
            if apart and (position in ranking.demoted or not self._can_spare(position, used, now)):
                continue
            if not rouse and not self.states[position].awake:
                continue
            permit = self._grant(self.states[position], call, now, position in ranking.need)
            if permit is not None:
                return permit

    def one(self, position: int, call: Call, now: float) -> Permit | None:
        """A permit at one endpoint, with all that a call needs there: a slot, and its provider's budget."""
        return self._grant(self.states[position], call, now)

    def busy(self, call: Call, now: float) -> bool:
        """Somebody healthy could have it, and only has no slot or no budget left, or asked for a moment's peace."""
        ranking = self.ranking_for(call, now)
        if ranking.front or ranking.behind:
            return True
        soon = now + self.settings.admission.wait_at_most
        return any(reason in _SOON and until <= soon for _, reason, until in ranking.refused)

    def any_slot(self) -> bool:
        """Some endpoint has a slot.  A quick look, before anybody is asked for in earnest."""
        return any(state.in_flight < state.endpoint.max_concurrency for state in self.states)

    def free_after(self, call: Call, now: float) -> float | None:
        """Seconds until a refused endpoint may be free again; None when no time is known."""
        ends = [
            now + self.states[i].budget.available_after(call.method.cost, now) if reason is Reason.NO_BUDGET else until
            for i, reason, until in self.ranking_for(call, now).refused
        ]
        until = min(ends, default=NEVER)
        return max(0.0, until - now) if until != NEVER else None

    def all_lack(self, method: Method, now: float) -> bool:
        """Every endpoint has said lately that it does not offer this method."""
        absent = self._unsupported.get(method.name, {})
        return all(now < absent.get(state.position, 0.0) for state in self.states)

    def range_limit(self, call: Call, now: float) -> int | None:
        """The most blocks that anyone usable serves at once, as they said; None: nobody has said."""
        family = call.method.family
        usable = (state for state in self.states if state.refusal(family, now)[0] is None)
        return max((limit for s in usable if (limit := s.max_range(family, now)) is not None), default=None)

    def at(self, position: int, family: Family, now: float) -> Permit | None:
        """A permit at one endpoint whatever its health, for look-ups; None without a slot."""
        state = self.states[position]
        if state.in_flight >= state.endpoint.max_concurrency:
            return None
        return self.ask(position, family, now)

    def ask(self, position: int, family: Family, now: float, cost: float = 1.0) -> Permit:
        """The same for a question of our own, whether there is a slot and a budget or not; both are charged.

        At most one is out per endpoint; without it a busy endpoint would soon count as one that is lost.
        """
        state = self.states[position]
        cell = state.cell(family)
        state.budget.charge(cost, now)
        return Permit(state, cell, cell.breaker.generation, now, cost=cost)

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
        state.budget.charge(1.0, now)
        return Permit(state, cell, generation, now, cost=1.0)

    def _grant(self, state: EndpointState, call: Call, now: float, last_resort: bool = False) -> Permit | None:
        """Slot and budget together, or nothing."""
        family = call.method.family
        cell = state.cells[family.slot] or state.cell(family)
        if state.in_flight >= state.endpoint.max_concurrency or cell.load.in_flight >= cell.limit.limit:
            return None
        cost = call.method.cost
        if not state.budget.take(cost, now):
            self._short(state, cost, now)
            return None
        return Permit(state, cell, cell.breaker.generation, now, last_resort, cost)

    def _short(self, state: EndpointState, cost: float, now: float) -> None:
        """A budget cannot pay for a call: let it save up for that if it takes no longer than calls may wait.

        If it takes longer, calls that cost less go on: one trace must not keep all others waiting for it.
        """
        wait = state.budget.available_after(cost, now)
        if wait > self.settings.admission.wait_at_most:
            wait = state.budget.available_after(1.0, now)
        until = now + min(wait, BUDGET_LOOKED_AT_EVERY)
        if until > state.budget_until:
            state.budget_until = until
            self.changed()

    def _can_spare(self, position: int, used: Sequence[int], now: float) -> bool:
        """It stands elsewhere than those used, and its provider's budget is not down to what callers need."""
        endpoint, budget = self.endpoints[position], self.states[position].budget
        if any(endpoint.shares_place_with(self.endpoints[i]) for i in used):
            return False
        return budget.left(now) >= budget.reserve

    def _has(self, state: EndpointState, call: Call, now: float) -> bool:
        """It serves the call's blocks: they are there, not pruned, and not more than it allows at once."""
        if not self.blocks.has(state.position, call.method.family, call.low, call.high, now):
            return False
        limit = state.max_range(call.method.family, now) if call.low >= 0 else None
        return limit is None or call.high - call.low < limit

    def _absent(self, method: str, now: float) -> dict[int, float] | None:
        absent = self._unsupported.get(method)
        if absent is not None and all(now >= until for until in absent.values()):
            absent = None
            del self._unsupported[method]
        return absent

    def _candidate(self, state: EndpointState, family: Family, now: float, about_the_head: bool) -> Candidate:
        reason, until = state.refusal(family, now, about_the_head)
        serves = state.endpoint.serves
        if serves is not None and family not in serves:
            reason, until = Reason.UNSUPPORTED, NEVER
        if self._keeps_private and family is Family.SEND and not state.endpoint.private:
            reason, until = Reason.NOT_PRIVATE, NEVER
        cell = state.cells[family.slot]
        share, ramping, since = state.endpoint.weight, False, 0.0
        if cell is not None:
            ramp = cell.breaker.slow_start_share(now)
            share, ramping, since = share * ramp, ramp < 1.0, cell.breaker.changed_at
        demoted = self.in_doubt(state)
        if about_the_head and not demoted and family is not Family.SEND and self.blocks.unheard(state.position):
            demoted = 1
        return Candidate(state.endpoint, reason, until, share, ramping, since, demoted)

    # --- counting ---------------------------------------------------------------------------------------

    def count(self, permit: Permit, outcome: Outcome, ended: str, now: float) -> None:
        """Move the breaker, unless nobody can say yet that the endpoint is to blame."""
        state, cell, generation = permit.state, permit.cell, permit.generation
        if ended in UNREACHED:
            if ended in RECONNECTS:
                self.lost_touch(state)
            if ended == "attempt_timeout":
                cell.limit.dropped(cell.load.in_flight + 1, now)
            token = (state, cell, abs(generation), outcome)  # whatever comes of it, the probe is not out any more
            provider, halfway = state.endpoint.provider, 0.5 * (permit.started_at + now)
            contrast = any(s.answered_at >= halfway and s.endpoint.provider != provider for s in self.states)
            if not self.connectivity.unreached(provider, token, now, contrast, permit.started_at):
                cell.breaker.settle(generation, Outcome.IGNORED, now, 0.5)
                return
        elif outcome is not Outcome.IGNORED and self.connectivity.unsettled:
            self.reached(state, now)
        if ended == THROTTLED:
            cell.limit.dropped(cell.load.in_flight + 1, now)
        self._judge(state, cell, generation, outcome, now)

    def reached(self, state: EndpointState, now: float) -> None:
        """An endpoint answered: whoever failed meanwhile failed by itself."""
        for token in self.connectivity.reached(state.endpoint.provider, now):
            other, cell, generation, outcome = cast("tuple[EndpointState, Cell, int, Outcome]", token)
            other.pool._judge(other, cell, generation, outcome, now)

    def _judge(self, state: EndpointState, cell: Cell, generation: int, outcome: Outcome, now: float) -> None:
        before = cell.breaker.state
        if cell.breaker.settle(generation, outcome, now, self._random.random()) or before is not cell.breaker.state:
            self._moved(state, "breaker", cell.family.value, before.value, cell.breaker.state.value)
        self.watch(state, now)

"""Facts: what is known of the endpoints of one route, and what changes it.

Always true: no function here is asynchronous, so no change spans an await; each fact that keeps an
endpoint from being used ends by itself, by a probe or (a drain) by an operator; whoever keeps
rankings is told of every change.  A network is the right one when its id is, and its first block is the
one that most providers name.
Does not belong here: choosing and counting (fleet), which build on this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, cast

from gateway.clock import Clock, wall_seconds
from gateway.model import Effect, Endpoint, Family, HeadReport, Method, Reading, ReplyKind, Rhythm
from gateway.policy.agreement import Suspicion
from gateway.policy.budget import TokenBucket
from gateway.policy.connectivity import Connectivity
from gateway.policy.domains import Condition, DomainWatch, Member
from gateway.policy.heads import Standing
from gateway.policy.load import PeakEwma
from gateway.policy.quota import ProviderBudget, QuotaSettings
from gateway.policy.selection import Ranking
from gateway.upstream.fleet.blocks import NO_LIMIT, Blocks
from gateway.upstream.fleet.endpoints import EndpointState, Tallies, no_tallies
from gateway.upstream.fleet.permits import Moved, PoolSettings

if TYPE_CHECKING:
    from gateway.upstream.fleet.pool import Pool

MAX_UNSUPPORTED = 256  # method names remembered per route: names come from callers, so they are bounded
LACKED_BY_ALL_FOR = 5.0  # seconds until a method that nobody offers is asked for again
RANGE_HOLDS_FOR = 3600.0  # seconds that a learned limit of log queries is believed
HEDGES_SAVED_UP = 10.0
NO_SPAN = (0, NO_LIMIT)


class Facts:
    """The endpoints of one route, their policies and what is known of them.

    `waiting` and `on_free` belong to whoever lets calls wait for a slot (upstream/calls/waiting): while
    anybody waits, each slot given back calls `on_free`.  `on_head` belongs to the feeds (upstream/feeds/subscriptions):
    it is
    told of every word about a newest block.
    """

    def __init__(
        self,
        route: str,
        endpoints: Sequence[Endpoint],
        settings: PoolSettings,
        clock: Clock,
        random: Random,
        tell: Callable[[Moved], None] = lambda moved: None,
        tallies: Tallies = no_tallies,
        *,
        block_time: float | None = None,
        rhythm: Rhythm = Rhythm.SLOTS,
        connectivity: Connectivity | None = None,
        budgets: Callable[[Endpoint], ProviderBudget] | None = None,
        vital: Family = Family.HEAD,
    ) -> None:
        self.route = route
        self.vital = vital  # without it a route is of no use
        self.tallies = tallies
        self.settings = settings
        self.clock = clock
        self.endpoints = tuple(endpoints)
        self.waiting = 0
        self.on_free: Callable[[], None] = lambda: None
        self.on_head: Callable[[int, HeadReport], None] | None = None
        self._keeps_private = any(endpoint.private for endpoint in endpoints)
        now = clock()
        self.connectivity = connectivity or Connectivity()
        self.blocks = Blocks(settings.heads, [endpoint.provider for endpoint in endpoints], block_time, now, rhythm)
        self.domains = DomainWatch(settings.domains, [_member(endpoint) for endpoint in endpoints], now)
        self.suspicion = Suspicion(settings.audit, len(self.endpoints))
        find_budget = budgets or (lambda _: ProviderBudget(QuotaSettings(), now, wall_seconds()))
        self.states = [EndpointState(cast("Pool", self), i, e, find_budget(e), now) for i, e in enumerate(endpoints)]
        self.retry_budget = TokenBucket(settings.retry.budget_rate, settings.retry.budget_burst, now)
        self.hedge_budget = TokenBucket(0.0, HEDGES_SAVED_UP, now)
        self.hedged = settings.hedging.enabled and len(self.endpoints) > 1
        self._random = random
        self._tell = tell
        self._rankings: list[Ranking | None] = [None] * (2 * len(Family))
        self._spans = [NO_SPAN] * (2 * len(Family))
        self._loads: list[list[PeakEwma]] = [[] for _ in self._spans]  # of each ranking's front
        self._standings = [Standing.UNKNOWN] * len(self.endpoints)
        self._suspected: list[tuple[str, str] | None] = [None] * len(self.endpoints)
        self._unsupported: dict[str, dict[int, float]] = {}

    def position_of(self, endpoint_id: str) -> int | None:
        for i, endpoint in enumerate(self.endpoints):
            if endpoint.id == endpoint_id:
                return i
        return None

    # --- what is learned of one endpoint ----------------------------------------------------------------

    def apply(self, state: EndpointState, reading: Reading, now: float) -> None:
        """What a reply does besides counting: a hold or an exclusion (see `unsupported` for methods)."""
        effect = reading.kind.effect
        holds = self.settings.holds
        if effect is Effect.HOLD:
            before = state.hold.until
            state.budget.throttled(now, reading.retry_after)
            until = state.hold.extend(now, self._random.random(), reading.retry_after, holds.retry_after_at_most)
            if until != before:
                self._moved(state, "held", "", "free", f"for {until - now:.1f}s", reading.kind.value)
        elif effect is Effect.EXCLUDE:
            before = state.exclusion.until
            state.exclusion_reason = reading.kind.value
            if reading.kind is ReplyKind.QUOTA and (reading.retry_after is not None or reading.period is not None):
                state.budget.spent(now, reading.retry_after, reading.period)  # until its reset, or a probe's answer
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
        usable = (s.position for s in self.states if s.drained_at is None and s.verified and s.chain_ok)
        if all(now < absent.get(other, 0.0) for other in usable):  # it may be a sick balancer that speaks
            for other in absent:
                absent[other] = min(absent[other], now + LACKED_BY_ALL_FOR)

    def range_learned(self, position: int, family: Family, blocks: int, now: float) -> None:
        """It said how many blocks a query of this family may span."""
        self.states[position].ranges[family] = max(1, blocks), now + RANGE_HOLDS_FOR

    def note_still(self, position: int, still: bool, why: str) -> None:
        """An exchange's host tells old public data, or lives again."""
        state = self.states[position]
        if state.still != still:
            state.still = still
            self._moved(state, "market", "", *(("current", "still") if still else ("still", "current")), why)

    def distrust(self, position: int, until: float, why: str) -> None:
        """Audits found it telling what two others contradict."""
        state = self.states[position]
        state.distrusted_until = until
        self._moved(state, "distrusted", "", "in", "out", why)

    def back(self, position: int, now: float) -> None:
        """A probe got through: an exclusion ends."""
        state = self.states[position]
        if state.exclusion_reason:
            state.exclusion.until = now
            state.exclusion.times = 0
            state.budget.renewed(now)
            for each in self.states:
                if each.budget is state.budget:
                    each.budget_until = 0.0
            self._moved(state, "excluded", "", "out", "in", state.exclusion_reason)
            state.exclusion_reason = ""
            self.changed()

    def still_out(self, position: int, now: float) -> None:
        """A probe of an excluded endpoint failed: the next one comes later."""
        state = self.states[position]
        if state.exclusion_reason:
            state.exclusion.extend(now, self._random.random())

    def note_reached(self, position: int) -> None:
        """It answers, and there is no chain to be asked for: certificates say who it is."""
        state = self.states[position]
        if not state.verified:
            state.verified = True
            self._moved(state, "host", "", "unverified", "right")
            self.watch(state, self.clock())

    def note_chain(self, position: int, chain_id: int | None, ok: bool) -> None:
        """The endpoint told its chain (or cannot, and is taken at its word)."""
        state = self.states[position]
        if state.lost_at >= 0:
            state.lost_at = -1.0
            self.changed()
        if state.verified and state.chain_ok == ok and state.chain_id == chain_id:
            return
        was = "unverified" if not state.verified else ("right" if state.chain_ok else "wrong")
        state.verified, state.chain_ok, state.chain_id = True, ok, chain_id
        if not ok:
            self.blocks.book.lost(position, self.clock())
        self._moved(state, "chain", "", was, "right" if ok else "wrong", f"chain id {chain_id}")
        self.watch(state, self.clock())

    def lost_touch(self, state: EndpointState) -> None:
        """Its last connection is gone, and a name can be re-wired: it is asked last until its chain is checked."""
        if state.verified and state.lost_at < 0:
            state.lost_at = self.clock()
            self.changed()

    def chain_id_but(self, position: int) -> int | None:
        """The chain that the others are on which are used; None: no other says."""
        ids = (s.chain_id for s in self.states if s.position != position and s.verified and s.chain_ok)
        return next((chain_id for chain_id in ids if chain_id is not None), None)

    def note_genesis(self, position: int, block_hash: str) -> None:
        """An endpoint told its first block: networks that share an id are told apart by it."""
        self.states[position].genesis = block_hash
        for state in self.states:
            if state.verified and state.chain_ok and not self.same_genesis(state.position):
                self.note_chain(state.position, state.chain_id, False)

    def same_genesis(self, position: int) -> bool:
        """False when two providers or more agree on another first block, and fewer on this one's."""
        own = self.states[position].genesis
        if not own:
            return True
        votes: dict[str, set[str]] = {}
        for state in self.states:
            if state.genesis:
                votes.setdefault(state.genesis, set()).add(state.endpoint.provider)
        most = max(len(providers) for providers in votes.values())
        return most < 2 or len(votes[own]) == most

    # --- what concerns all of them ----------------------------------------------------------------------

    def note_head(self, position: int, report: HeadReport, now: float) -> None:
        """An endpoint told its newest block, in a poll or in passing."""
        if self.blocks.report(position, report, now, wall_seconds()):
            self._tell_standings()
        if self.on_head is not None:
            self.on_head(position, report)

    def note_final(self, position: int, report: HeadReport, now: float) -> None:
        """An endpoint told its newest finalized block."""
        if self.blocks.book.finalized(position, report.number, report.hash, now):
            self._tell_standings()

    def note_safe(self, position: int, report: HeadReport, now: float) -> None:
        """The same of its newest safe block."""
        if self.blocks.book.safe(position, report.number, report.hash, now):
            self._tell_standings()

    def expire(self, now: float) -> None:
        """Let what is too old be forgotten.  Called about ten times a second."""
        if self.blocks.expire(now):
            self._tell_standings()
        if self.domains.expire(now):
            self._tell_domains()

    def place(self, position: int, labels: tuple[tuple[str, str], ...], now: float) -> None:
        """Failure domains of an endpoint that were found out: those of the configuration, and these."""
        endpoint = dataclasses.replace(self.endpoints[position], domains=labels)
        self.endpoints = (*self.endpoints[:position], endpoint, *self.endpoints[position + 1 :])
        self.states[position].endpoint = endpoint
        self.domains.place(position, _member(endpoint).domains, now)
        self.changed()

    def watch(self, state: EndpointState, now: float) -> None:
        """Let the failure domains know how this endpoint does."""
        if state.drained_at is not None or not state.chain_ok:
            condition = Condition.UNKNOWN
        elif state.down or self.blocks.astray(state.position):
            condition = Condition.DOWN
        elif state.failing:
            condition = Condition.FAILING
        else:
            condition = Condition.WELL if state.verified else Condition.UNKNOWN
        if self.domains.note(state.position, condition, now):
            self._tell_domains()

    def in_doubt(self, state: EndpointState) -> int:
        """Fit, and yet the last to be asked: a standby, out of touch, far behind, or in a suspected domain."""
        position = state.position
        if state.endpoint.standby:
            return 2
        return int(
            state.lost_at >= 0
            or self._suspected[position] is not None
            or self.domains.watched(position)
            or self.blocks.demoted(position)
        )

    # --- an operator, and a reload ----------------------------------------------------------------------

    def drain(self, position: int, now: float) -> None:
        """An operator takes the endpoint out; calls in flight finish."""
        state = self.states[position]
        if state.drained_at is None:
            state.drained_at = now
            self.blocks.book.lost(position, now)
            self._moved(state, "drained", "", "in", "out")
            self.watch(state, now)

    def undrain(self, position: int) -> None:
        state = self.states[position]
        if state.drained_at is not None:
            state.drained_at = None
            self._moved(state, "drained", "", "out", "in")
            self.watch(state, self.clock())

    def adopt(self, position: int, old: EndpointState) -> None:
        """Take over the live state of an endpoint that a reload left unchanged."""
        self.domains.adopt(position, old.pool.domains, old.position, self.clock())
        fresh = self.states[position]
        if old.budget is not fresh.budget:
            old.budget, old.budget_until = fresh.budget, 0.0
        if old.endpoint.max_concurrency != fresh.endpoint.max_concurrency:
            old.limit_to(fresh.endpoint.max_concurrency, self.settings.concurrency)
        old.pool = cast("Pool", self)
        old.position = position
        old.endpoint = self.endpoints[position]
        self.states[position] = old
        self.watch(old, self.clock())
        self.changed()

    def inherit(self, before: Facts) -> None:
        """Take over what callers have seen: a reload must not let them see the chain go back.

        And what is known of heads, where the same endpoints are judged in the same way as before.
        """
        same = [(e.id, e.provider) for e in before.endpoints] == [(e.id, e.provider) for e in self.endpoints]
        if same and before.settings.heads == self.settings.heads:
            self.blocks = before.blocks
            self._standings = before._standings
        else:
            self.blocks.served = before.blocks.served
            self.blocks.served_final = before.blocks.served_final

    def renewed(self, position: int, now: float) -> None:
        """A reload gave an endpoint another address or key: what was learned of its blocks is about somebody else."""
        self.blocks.forget(position, now)
        self._tell_standings()

    # --- telling ----------------------------------------------------------------------------------------

    def changed(self) -> None:
        """A fact changed: every ranking is made anew when next asked for."""
        self._rankings = [None] * (2 * len(Family))

    def _tell_standings(self) -> None:
        self.changed()
        book = self.blocks.book
        for state in self.states:
            was, became = self._standings[state.position], book.standing(state.position)
            if was is not became:
                self._standings[state.position] = became
                detail = f"head {book.head(state.position)}, newest {book.reference}"
                state.moved_at["head"] = self.clock()
                self.watch(state, self.clock())
                self._tell(Moved(self.route, state.endpoint.id, "head", "", was.value, became.value, detail))

    def _tell_domains(self) -> None:
        self.changed()
        for state in self.states:
            was, became = self._suspected[state.position], self.domains.demoted(state.position)
            if was != became:
                self._suspected[state.position] = became
                name = "=".join(became or was or ())
                before, after = ("trusted", "suspected") if became is not None else ("suspected", "trusted")
                self._tell(Moved(self.route, state.endpoint.id, "domain", "", before, after, name))

    def _moved(self, state: EndpointState, what: str, family: str, was: str, became: str, detail: str = "") -> None:
        self.changed()
        state.moved_at[what] = self.clock()
        self._tell(Moved(self.route, state.endpoint.id, what, family, was, became, detail))


def _member(endpoint: Endpoint) -> Member:
    return Member((*endpoint.domains, ("provider", endpoint.provider)), endpoint.weight)

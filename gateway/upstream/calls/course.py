"""The course of a call that its first endpoint did not answer well: its plan's commands, carried out one by one.

Always true: it ends in exactly one answer; what happened is told to the plan, and nothing is done that the plan did
not command; a retry is paid for before it is made; what the call's own fault may have been is counted at its end.
Built when something went wrong, or when nobody was free: a call that goes well never has one.
Does not belong here: deciding (policy/plan), the first attempt (dispatch).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.model import AttemptKind, Call, ReplyKind
from gateway.policy.plan import CallerGone, Command, Deliver, Ended, Fail, Launch, LookedUp, LookUp, NothingLeft, Plan
from gateway.policy.retry import Verdict
from gateway.upstream.calls import splitting
from gateway.upstream.calls.answers import Answer, Attempt, Scrub, deliver, fail
from gateway.upstream.calls.attempts import Attempts, Heads
from gateway.upstream.calls.hedge import Hedge
from gateway.upstream.calls.lookup import look_up
from gateway.upstream.calls.route import Route
from gateway.upstream.calls.waiting import Shed

Gone = Callable[[], bool]


class Course:
    """One call's long way.  `handle` dispatches a call anew: the parts of one that is split go that way."""

    __slots__ = (
        "_attempts", "_call", "_caller", "_clock", "_deadline_at", "_gone", "_handle", "_heads", "_plan", "_route",
        "_scrub", "_shed", "_tried",
    )  # fmt: skip

    def __init__(
        self,
        attempts: Attempts,
        scrub: Scrub,
        handle: splitting.Handle,
        route: Route,
        call: Call,
        deadline_at: float,
        heads: Heads | None,
        gone: Gone,
        caller: str,
    ) -> None:
        self._attempts = attempts
        self._clock = attempts.clock
        self._scrub = scrub
        self._handle = handle
        self._route = route
        self._call = call
        self._deadline_at = deadline_at
        self._heads = heads
        self._gone = gone
        self._caller = caller
        self._plan = Plan(call.request_class, route.pool.settings.retry, deadline_at)
        self._tried: list[Attempt] = []
        self._shed: Shed | None = None

    async def run(self, first: Attempt | None, hedge: Hedge | None) -> Answer:
        """To its end.  `first` is how the first attempt ended, None: there was none; `hedge` a second leg under way."""
        try:
            return await self._follow(first, hedge)
        finally:
            self._attempts.settle(self._route, self._call, self._tried)
            if hedge is not None:
                hedge.drop()

    async def _follow(self, first: Attempt | None, hedge: Hedge | None) -> Answer:
        route, call = self._route, self._call
        if first is None:
            parts = splitting.parts_for(route, call, self._clock())
            if parts is not None:
                return await self._gather(parts)
            command: Command = Launch((), call.request_class.last_resort)
        else:
            self._tried.append(first)
            command = self._tell(first.ended, hedge is not None and hedge.started)
        while True:
            if isinstance(command, Launch):
                command = await self._further(command, hedge)
                hedge = None
            elif isinstance(command, LookUp):
                command = self._tell(LookedUp(await look_up(route, call, self._clock, self._attempts.wire_ids)))
            elif isinstance(command, Deliver):
                told = self._tried[command.attempt]
                if told.ended.kind is ReplyKind.RANGE_TOO_LARGE:
                    parts = splitting.parts_for(route, call, self._clock(), told.reading)
                    if parts is not None:
                        return await self._gather(parts)
                return deliver(route, call, self._tried, command, self._scrub)
            else:
                return fail(route, call, self._tried, command, self._clock(), self._shed is not None)

    async def _further(self, command: Launch, hedge: Hedge | None) -> Command:
        """One more attempt, or what there is instead; gives what follows from it."""
        if self._tried and self._gone():
            return self._tell(CallerGone())
        attempt = await hedge.result() if hedge is not None else None
        if attempt is None:
            try:
                attempt = await self._launch(command)
            except Shed as gave_way:
                self._shed = gave_way
        if attempt is not None:
            self._tried.append(attempt)
            return self._tell(attempt.ended)
        shed = self._shed
        free_after = shed.retry_after if shed is not None else self._route.pool.free_after(self._call, self._clock())
        return self._tell(NothingLeft(free_after))

    async def _launch(self, command: Launch) -> Attempt | None:
        """None when no endpoint is left.  Raises Shed when it waited for a busy one in vain."""
        call, used = self._call, command.used
        pool, queue = self._route.pool, self._route.waiting if not used else None
        permit = None
        if queue is None or not pool.waiting:  # those who wait are served first
            permit = pool.next(call, used, False, self._clock(), doubted=not command.paid, rouse=command.rouse)
        if permit is None and queue is not None and pool.busy(call, self._clock()):
            permit = await queue.permit(call, self._caller, self._deadline_at)
        if permit is None and command.last_resort:
            permit = pool.next(call, used, True, self._clock(), rouse=command.rouse)
        if permit is None:
            return None
        kind = AttemptKind.RETRY if used else AttemptKind.PRIMARY
        return await self._attempts.send(
            self._route, call, permit, self._deadline_at, self._heads, kind, again=bool(used)
        )

    async def _gather(self, parts: list[Call]) -> Answer:
        return await splitting.gather(
            self._handle, self._route, self._call, parts, self._deadline_at, self._heads, self._caller
        )

    def _tell(self, event: Ended | NothingLeft | LookedUp | CallerGone, under_way: bool = False) -> Command:
        """Feed the plan one event; a granted retry is paid for here.

        `under_way`: a second leg is out already, and the hedge budget has paid for it.
        """
        now = self._clock()
        budget = self._route.pool.retry_budget
        command = self._plan.on(event, now, under_way or budget.available_after(1.0, now) == 0.0)
        if isinstance(command, Launch):
            if command.paid and not under_way:
                budget.take(1.0, now)
        elif isinstance(command, Fail) and command.because is Verdict.BUDGET:
            self._route.stats.retry_budget_refusals += 1
        return command

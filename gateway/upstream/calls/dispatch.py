"""Dispatch: carries out one call's plan against the fleet.

Always true: every call ends in exactly one `Answer`; every permit taken is settled; a gateway
failure is an answer too, never an exception to the edge.
The happy path is short on purpose: choose, send, read, settle, answer.  Everything that matters only
when something goes wrong (the plan, attempt records, readings, a second leg, a place in the queue) is
built when it does.
Does not belong here: what follows when something goes wrong (course), counting (fleet), the meaning of a reply
(dialect).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from gateway.clock import Clock
from gateway.dialect.jsonrpc import BadReply, encode_request, read_reply
from gateway.errors import AttemptError
from gateway.model import AttemptKind, Call, Outcome, Reading, ReplyKind, RequestClass
from gateway.policy.plan import Deliver
from gateway.upstream.calls.agreeing import agree
from gateway.upstream.calls.answers import Answer, Attempt, Execution, Scrub, deliver
from gateway.upstream.calls.attempts import Attempts, Heads
from gateway.upstream.calls.audit import Auditor
from gateway.upstream.calls.course import Course, Gone
from gateway.upstream.calls.examination import look_into
from gateway.upstream.calls.hedge import Hedge
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.permits import ANSWERED, Permit
from gateway.upstream.wire.engine import Reply

# Looked up once: each look at an enum's member by its name costs a tenth of a microsecond (Python 3.11).
_PINNED, _HEDGED = RequestClass.PINNED_READ, (RequestClass.PINNED_READ, RequestClass.HEAD_READ)
_ANSWER, _SUCCESS = ReplyKind.ANSWER, Outcome.SUCCESS
_FIRST, _DONE = AttemptKind.PRIMARY, Execution.DONE


def _stays() -> bool:
    return False


class Dispatcher:
    """Drives calls of any route.  One per gateway."""

    def __init__(self, clock: Clock, scrub: Scrub = lambda text: text, auditor: Auditor | None = None) -> None:
        self._clock = clock
        self._attempts = Attempts(clock)
        self._scrub = scrub
        self._auditor = auditor

    async def handle(
        self,
        route: Route,
        call: Call,
        deadline_at: float,
        heads: Heads | None = None,
        caller_gone: Gone = _stays,
        caller: str = "",
    ) -> Answer:
        """One call, to its end.  `deadline_at` is an instant of the clock; never raises but for cancellation.

        `heads` gives each attempt its trace header line.  `caller` is the name of its key, or ``@`` and its address:
        whoever floods a busy route waits behind the others.  Once `caller_gone` says so, nothing new starts.
        """
        now = self._clock()
        pool = route.pool
        pool.retry_budget.earned += pool.settings.retry.budget_share
        route.last_call_at = now
        if route.consensus and call.method.name in route.consensus:
            return await agree(self._attempts, route, call, route.consensus[call.method.name], deadline_at, heads)
        request_class = call.request_class
        permit = pool.first(call, now) if not pool.waiting else None
        if permit is None:
            return await self._course(route, call, deadline_at, heads, caller_gone, caller).run(None, None)
        legs: list[Hedge] = []  # the second one, if it comes to that
        notice, notice_at = None, 0.0
        if request_class in _HEDGED and pool.hedged:
            pool.hedge_budget.earned += pool.settings.hedging.budget_share
            notice_at = now + max(pool.settings.hedging.at_least, permit.cell.quantile.value)
            if notice_at < deadline_at:
                notice = partial(self._late, legs, route, call, permit, deadline_at, heads)
        wire_id = next(self._attempts.wire_ids)
        try:
            response: Reply | Attempt = await route.engines[permit.state.position].send(
                encode_request(call.method.wire, call.params, wire_id),
                min(deadline_at, now + route.attempt_timeout(request_class)),
                heads() if heads is not None else b"",
                careful=request_class.write,
                notice_at=notice_at,
                notice=notice,
            )
            if isinstance(response, Attempt):
                return self._hedged(route, call, legs[0], response)
            first: Attempt | None = None
            if response.status == 200 and response.stream is None:
                result, _ = read_reply(response.body, wire_id)
                if result is not None:
                    ending = self._ending(route, call, permit, result, legs)
                    if isinstance(ending, Answer):
                        return ending
                    first = ending
            if first is None:
                first = await self._attempts.understand(route, call, permit, response, wire_id, _FIRST, again=False)
        except BadReply as problem:
            first = self._attempts.bad_reply(permit, str(problem), _FIRST)
        except AttemptError as error:
            first = self._attempts.failed(permit, error, _FIRST)
        except BaseException:
            permit.release()
            for hedge in legs:
                hedge.drop()
            raise
        course = self._course(route, call, deadline_at, heads, caller_gone, caller)
        return await course.run(first, legs[0] if legs else None)

    def _course(
        self, route: Route, call: Call, deadline_at: float, heads: Heads | None, gone: Gone, caller: str
    ) -> Course:
        """The long way, for a call that its first endpoint does not answer well."""
        return Course(self._attempts, self._scrub, self.handle, route, call, deadline_at, heads, gone, caller)

    def _ending(self, route: Route, call: Call, permit: Permit, result: bytes, legs: list[Hedge]) -> Answer | Attempt:
        """A result came from the first endpoint: the call's answer, unless looking into it raises a doubt."""
        finding = None
        if call.method.examined:
            finding = look_into(route, call, permit.state.position, result, self._clock())
            if finding is not None and finding.kind is not _ANSWER:
                reading = Reading(finding.kind, result=finding.result or result, detail=finding.detail)
                return self._attempts.found(permit, reading, _FIRST)
        permit.settle(_SUCCESS, ANSWERED, self._clock())
        for hedge in legs:
            hedge.drop()
        if self._auditor is not None and call.request_class is _PINNED:
            self._auditor.consider(route, call, permit.state.position, result)
        if finding is not None:
            result = finding.result or result
        return Answer(permit.state.endpoint.id, result=result, execution=_DONE if call.request_class.write else None)

    def _late(
        self,
        legs: list[Hedge],
        route: Route,
        call: Call,
        permit: Permit,
        deadline_at: float,
        heads: Heads | None,
        supersede: Callable[[Any], None],
    ) -> None:
        """The first endpoint takes longer than usual: a second leg, if there may be one.  Built only now."""
        hedge = Hedge(self._attempts, route, call, permit, deadline_at, heads)
        legs.append(hedge)
        hedge.start(supersede)

    def _hedged(self, route: Route, call: Call, hedge: Hedge, attempt: Attempt) -> Answer:
        """The second leg's answer came first, and is the call's."""
        slow = hedge.lost()
        assert attempt.ended.kind is not None
        answer = deliver(route, call, [attempt], Deliver(0, attempt.ended.kind.shown), self._scrub)
        answer.attempts = 2
        answer.records = (slow, attempt.record)
        return answer

"""Agreeing: a method under consensus is asked of several endpoints, and answered only when enough agree.

Always true: too few answers that agree is an error with the evidence, never a guess; endpoints are
chosen apart (provider, and the labels that the policy names), so that one operator has one voice;
a call about the newest block is pinned to one block first, or honest endpoints would differ.
Does not belong here: who may be chosen and when a ballot is decided (policy/agreement), and whether two
results mean the same (dialect).
"""

from __future__ import annotations

import asyncio

from gateway.dialect.jsonrpc import read_error
from gateway.errors import Disagreement
from gateway.model import AttemptKind, AttemptRecord, BlockRef, Call, Elsewhere
from gateway.policy.agreement import Agreed, Ballot, ConsensusSettings, Undecided, choose
from gateway.upstream.calls.answers import Answer, Attempt
from gateway.upstream.calls.attempts import Attempts, Heads
from gateway.upstream.calls.route import Route


async def agree(
    attempts: Attempts,
    route: Route,
    call: Call,
    settings: ConsensusSettings,
    deadline_at: float,
    heads: Heads | None,
) -> Answer:
    """One call to its end, under consensus."""
    now = attempts.clock()
    pool = route.pool
    permits = [permit for position in _chosen(route, call, settings, now) if (permit := pool.one(position, call, now))]
    if len(permits) < settings.agree:
        for permit in permits:
            permit.unused()
        why = f"{settings.agree} endpoints must agree, and {len(permits)} can be asked"
        return _refused(route, why, (), pool.free_after(call, now))
    params = _pinned(route, call, [permit.state.position for permit in permits])
    tasks = [
        asyncio.ensure_future(
            attempts.send(route, call, permit, deadline_at, heads, AttemptKind.CONSENSUS, again=True, params=params)
        )
        for permit in permits
    ]
    ballot = Ballot(settings, pool.endpoints, [permit.state.position for permit in permits])
    ended: list[Attempt] = []
    try:
        for turn in asyncio.as_completed(tasks):
            attempt = await turn
            ended.append(attempt)
            ballot.vote(attempt.ended.endpoint, _fingerprint(route, call, attempt))
            if not isinstance(ballot.verdict, Undecided):
                break
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        attempts.settle(route, call, ended)
    return _answer(route, call, ballot, ended)


def _chosen(route: Route, call: Call, settings: ConsensusSettings, now: float) -> tuple[int, ...]:
    """Whom to ask; a standby only where too few others are left."""
    pool = route.pool
    ranking = pool.ranking_for(call, now)
    fit = (*ranking.front, *ranking.behind)
    awake = [position for position in fit if not pool.endpoints[position].standby]
    return choose(pool.endpoints, awake, settings) or choose(pool.endpoints, fit, settings)


def _answer(route: Route, call: Call, ballot: Ballot, ended: list[Attempt]) -> Answer:
    verdict = ballot.verdict
    records = tuple(attempt.record for attempt in ended)
    if not isinstance(verdict, Agreed):
        return _refused(route, f"the endpoints do not agree on {call.method.label}: {verdict}", records)
    winner = next(attempt for attempt in ended if attempt.ended.endpoint in verdict.positions)
    for attempt in ended:
        attempt.close()
    answer = Answer(winner.permit.state.endpoint.id, len(ended), records=records)
    assert winner.reading is not None
    if winner.reading.result is not None:
        answer.result = bytes(winner.reading.result)
    else:
        answer.rpc_error = winner.reading.error
    return answer


def _refused(route: Route, why: str, records: tuple[AttemptRecord, ...], retry_after: float | None = None) -> Answer:
    route.stats.consensus_failed += 1
    error = Disagreement(f"{why}; no answer is given", attempts=records, retry_after=retry_after)
    return Answer(attempts=len(records), error=error, records=records)


def _pinned(route: Route, call: Call, positions: list[int]) -> bytes | None:
    """The call's parameters with the newest block that all of them have instead of the newest; None: as they are."""
    if call.block is not BlockRef.LATEST:
        return None
    known = [route.pool.blocks.book.head(position) for position in positions]
    return route.dialect.pin(call, min(known)) if min(known) >= 0 else None


def _fingerprint(route: Route, call: Call, attempt: Attempt) -> bytes | None:
    """What an attempt votes for; None: nothing, it failed.  An application's own "no" is a vote, too."""
    reading = attempt.reading
    if reading is None or attempt.stream is not None:
        return None
    if reading.result is not None:
        return route.dialect.fingerprint(call.method, bytes(reading.result))
    if reading.error is not None and reading.kind.elsewhere is Elsewhere.NO:
        data = bytes(read_error(reading.error).data)  # what a revert carries; clients word the rest differently
        return b"error %d " % (reading.code or 0) + route.dialect.fingerprint(call.method, data)
    return None

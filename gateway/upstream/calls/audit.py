"""Audit: a sample of reads is asked of a second provider, to find the one that lies.

Always true: callers never wait for an audit; an audit is the first thing that is dropped when budgets
are short or calls have to wait; a contradiction counts against the one whom a third outvotes, and
nobody is distrusted for a single one.
Does not belong here: when a suspicion becomes distrust (policy/agreement).
"""

from __future__ import annotations

import asyncio
from random import Random

from gateway.clock import Clock
from gateway.model import AttemptKind, BlockRef, Call, ReplyKind
from gateway.upstream.calls.attempts import Attempts
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.blocks import RECENT

AT_ONCE = 8  # audits under way; what comes on top is not audited
PATIENCE = 5.0  # seconds
COMPARED_BELOW = 100_000  # bytes of a result; larger ones take milliseconds to compare


class Auditor:
    """Asks again.  One per gateway."""

    def __init__(self, clock: Clock, chance: Random) -> None:
        self._clock = clock
        self._chance = chance
        self._attempts = Attempts(clock)
        self._under_way: set[asyncio.Task[None]] = set()

    def consider(self, route: Route, call: Call, position: int, result: bytes) -> None:
        """A pinned read was answered: audit it, once in a while.  Costs one draw."""
        share = route.pool.settings.audit.share
        if (
            not share
            or len(result) > COMPARED_BELOW
            or self._chance.random() >= share
            or len(self._under_way) >= AT_ONCE
        ):
            return
        if route.pool.waiting or not _settled(route, call, result):
            return
        task = asyncio.ensure_future(self._audit(route, call, position, result))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _audit(self, route: Route, call: Call, position: int, result: bytes) -> None:
        pool = route.pool
        said = {position: route.dialect.fingerprint(call.method, result)}
        second = await self._ask(route, call, said)
        if second is None:
            return
        route.stats.audits += 1
        if said[second] == said[position]:
            return
        route.stats.audits_contradicted += 1
        third = await self._ask(route, call, said)
        if third is None or said[third] not in (said[position], said[second]):
            return
        outvoted = second if said[third] == said[position] else position
        now = self._clock()
        if pool.suspicion.strike(outvoted, now):
            until = pool.suspicion.distrusted_until(outvoted)
            pool.distrust(outvoted, until, f"{call.method.label} contradicted by two others")

    async def _ask(self, route: Route, call: Call, said: dict[int, bytes]) -> int | None:
        """One more opinion, from somebody apart; its position, with what it said noted.  None: there is none."""
        now = self._clock()
        permit = route.pool.next(call, tuple(said), False, now, apart=True)
        if permit is None:
            return None
        attempt = await self._attempts.send(route, call, permit, now + PATIENCE, None, AttemptKind.AUDIT, again=True)
        self._attempts.settle(route, call, [attempt])
        attempt.close()
        reading = attempt.reading
        if reading is None or reading.kind is not ReplyKind.ANSWER or reading.result is None:
            return None
        if attempt.stream is not None or not _settled(route, call, bytes(reading.result)):
            return None
        position = attempt.ended.endpoint
        said[position] = route.dialect.fingerprint(call.method, bytes(reading.result))
        return position


def _settled(route: Route, call: Call, result: bytes) -> bool:
    """The answer cannot honestly differ any more: it is of a block that is not recent, or of none at all.

    Nothing (``null``) is no evidence: one node has a transaction a moment before another.
    """
    if result == b"null" or call.block is BlockRef.LATEST:
        return False
    reference = route.pool.blocks.book.reference
    block = call.high if call.high >= 0 else route.dialect.block_of(result, reference)
    return block is None or 0 <= block < reference - RECENT

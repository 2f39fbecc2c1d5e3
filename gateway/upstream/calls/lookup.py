"""Looking a transaction up by its hash: how a doubtful send is settled before the caller hears of it.

Always true: only reads are sent; "found" needs one endpoint that shows the very hash; "not found"
needs an answer from every endpoint that could be asked; anything else is "could not find out".
A node may need a moment to take a transaction into its pool, so a round that finds nothing is
repeated until the time is over; less and less often while nobody answers at all, because then each
doubtful transaction would be two dozen questions to endpoints that are down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from gateway.clock import Clock
from gateway.dialect.jsonrpc import BadReply, encode_request, read_reply
from gateway.errors import AttemptError
from gateway.model import Call, Outcome, ReplyKind, RequestClass
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.permits import ANSWERED, Permit

LOOK_UP_FOR = 2.0  # seconds in all; eRPC gives its verification 3
ROUND_AFTER = 0.25  # seconds between two rounds
ASK_AT_MOST = 4  # endpoints per round


async def look_up(route: Route, call: Call, clock: Clock, wire_ids: Iterator[int]) -> bool | None:
    """True: known somewhere.  False: every endpoint that answered does not know it.  None: no answer.

    Goes on for `LOOK_UP_FOR` seconds even past the call's deadline: an honest answer two seconds
    late is worth more than a wrong one in time.
    """
    wanted = route.dialect.transaction_hash(call.params)
    if wanted is None:
        return None
    method, params = route.dialect.lookup_call(wanted)
    until = clock() + LOOK_UP_FOR
    lookup = route.dialect.call(method, params, b"0")
    verdict: bool | None = None
    pause = ROUND_AFTER
    while True:
        answers = await asyncio.gather(
            *(
                _ask(route, lookup, permit, until, clock, wire_ids, wanted)
                for permit in _permits(route, lookup, clock())
            )
        )
        if any(answers):
            route.stats.lookups_found += 1
            return True
        if any(answer is False for answer in answers):
            verdict, pause = False, ROUND_AFTER
        if clock() + pause >= until:
            route.stats.lookups_missing += 1
            return verdict
        await asyncio.sleep(pause)
        pause *= 2.0


def _permits(route: Route, lookup: Call, now: float) -> list[Permit]:
    """Healthy endpoints first, then those believed broken; a lagging look is better than none."""
    ranking = route.pool.ranking(lookup.method.family, now)
    permits = []
    for position in (*ranking.front, *ranking.behind, *ranking.need)[:ASK_AT_MOST]:
        permit = route.pool.at(position, lookup.method.family, now)
        if permit is not None:
            permits.append(permit)
    return permits


async def _ask(
    route: Route, lookup: Call, permit: Permit, until: float, clock: Clock, wire_ids: Iterator[int], wanted: str
) -> bool | None:
    wire_id = next(wire_ids)
    timeout_at = min(until, clock() + route.attempt_timeout(RequestClass.PINNED_READ))
    with permit:
        try:
            response = await route.engines[permit.state.position].send(
                encode_request(lookup.method.wire, lookup.params, wire_id), timeout_at
            )
            if response.stream is not None:
                response.stream.close()
                return None
            result, _ = read_reply(response.body, wire_id)
        except AttemptError as error:
            permit.failed(error, clock())
            return None
        except BadReply:
            permit.settle(Outcome.FAILURE, ReplyKind.BAD_REPLY.value, clock())
            return None
        if result is None or response.status != 200:
            return None
        permit.settle(Outcome.SUCCESS, ANSWERED, clock())
        return route.dialect.found(wanted, bytes(result))

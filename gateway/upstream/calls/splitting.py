"""Splitting: a log query that spans more blocks than anybody serves at once is asked in parts.

Always true: the parts lie end to end and are merged in order, so that the answer is the one a node
without limits would give; if one part fails, the whole fails with that part's error, never with a list
that lacks something; the number of parts and the size of the whole are bounded, because one cheap call
must not become hundreds that are paid for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from gateway.dialect.jsonrpc import BadReply, read_reply
from gateway.errors import AttemptError, AttemptsFailed
from gateway.model import BlockRef, Call, Reading
from gateway.upstream.calls.answers import Answer
from gateway.upstream.calls.attempts import Heads, range_after, span_of
from gateway.upstream.calls.route import Route

PARTS_AT_MOST = 10  # of a caller's query; OWASP API4 and 6: amplification
PARTS_OF_A_PART = 2  # a part that is still too large is halved
CUTS_AT_MOST = 3
AT_ONCE = 3
PART_ID = 0  # under which a streamed part comes
WHOLE_AT_MOST = 64_000_000  # bytes of all parts together

Handle = Callable[..., Awaitable[Answer]]


def parts_for(route: Route, call: Call, now: float, refused: Reading | None = None) -> list[Call] | None:
    """The calls to make instead of this one; None when it need not or cannot be split.

    `refused`: what was said of its range.  What one query finds says nothing of others, and is not remembered.
    """
    low, high = span_of(route, call)
    if low < 0 or high < low or call.part >= CUTS_AT_MOST:
        return None
    if refused is not None and refused.of_the_query:
        limit: int | None = range_after(route, call, refused)
    else:
        limit = route.pool.range_limit(call, now)
    if limit is None or high - low < limit:
        return None
    at_most = PARTS_OF_A_PART if call.part else PARTS_AT_MOST
    spans = route.dialect.split(call, limit, at_most, high if call.high < 0 else -1)
    if spans is None:
        return None
    made = []
    for params, high in spans:
        made.append(
            Call(call.method, params, b"%d" % PART_ID, call.request_class, BlockRef.NUMBER, low, high, call.part + 1)
        )
        low = high + 1
    return made


async def gather(
    handle: Handle,
    route: Route,
    call: Call,
    parts: Sequence[Call],
    deadline_at: float,
    heads: Heads | None,
    caller: str,
) -> Answer:
    """Ask for all parts, a few at once, and merge their answers."""
    route.stats.splits += 1
    turns = asyncio.Semaphore(AT_ONCE)
    size = 0

    async def ask(part: Call) -> Answer:
        nonlocal size
        async with turns:
            if size > WHOLE_AT_MOST:
                return Answer(attempts=0, error=_too_large(call))
            answer = await handle(route, part, deadline_at, heads, caller=caller)
            if answer.stream is not None:
                await _read_whole(answer)
            size += len(answer.result or b"")
            return answer

    tasks = [asyncio.ensure_future(ask(part)) for part in parts]
    try:
        answers = await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    attempts = sum(answer.attempts for answer in answers)
    records = tuple(record for answer in answers for record in answer.records)
    for answer in answers:
        if answer.result is None:
            answer.attempts, answer.records = attempts, records
            return answer
    if size > WHOLE_AT_MOST:
        return Answer(attempts=attempts, error=_too_large(call), records=records)
    try:
        merged = route.dialect.merge([answer.result or b"" for answer in answers])
    except ValueError as problem:
        error = AttemptsFailed(f"the parts of {call.method.label} do not fit together: {problem}")
        return Answer(attempts=attempts, error=error, records=records)
    return Answer(answers[0].endpoint, attempts, result=merged, records=records)


async def _read_whole(answer: Answer) -> None:
    """Turn a streamed part into a whole one; one that breaks off or is too large becomes an error."""
    stream, answer.stream = answer.stream, None
    assert stream is not None
    pieces, size = [], 0
    try:
        async for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size > WHOLE_AT_MOST:
                answer.error = AttemptsFailed("a part of the answer is too large")
                return
        answer.result, _ = read_reply(b"".join(pieces), PART_ID)
    except BadReply as problem:
        answer.error = AttemptsFailed(f"a part of the answer is damaged: {problem}")
    except AttemptError as error:
        answer.error = AttemptsFailed(f"a part of the answer broke off: {error.reason}")
    finally:
        stream.close()


def _too_large(call: Call) -> AttemptsFailed:
    return AttemptsFailed(
        f"the answer to {call.method.label} is larger than {WHOLE_AT_MOST} bytes; ask for less at once"
    )

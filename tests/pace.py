"""Real time in tests: how long to wait for what must come, and bounds on how long it took.

A machine that others use stands still for a second or two now and then.  So a test waits for what must come
with `PATIENCE`, which is no bound on anything; and what is bounded in real time is compared by `at_most` and
`at_least` and by nothing else.  A test that misses such a bound is run again, `TRIES` times in all, and each
miss is printed: what is slow is slow each time.  A test that fails in any other way (a call lost, an order
sent twice) has failed.
Does not belong here: the running again (conftest), time that only seems to pass (virtual).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

PATIENCE = 60.0  # seconds; several times what anything here takes on a slow machine
TRIES = 3
LOOK_EVERY = 0.02  # seconds


class OutOfTime(AssertionError):
    """A bound on real time was missed; it may be the machine's doing."""


def at_most(measured: float, limit: float, what: str) -> None:
    """Hold what was measured in real time to its upper bound.  Raises OutOfTime."""
    if not measured <= limit:
        raise OutOfTime(f"{what}: {measured:.3f}, allowed are at most {limit:.3f}")


def at_least(measured: float, limit: float, what: str) -> None:
    """Hold what was measured in real time to its lower bound.  Raises OutOfTime."""
    if not measured >= limit:
        raise OutOfTime(f"{what}: {measured:.3f}, allowed are at least {limit:.3f}")


@contextlib.asynccontextmanager
async def standstill() -> AsyncIterator[Callable[[], float]]:
    """Gives the longest time so far, in seconds, for which this loop stood still."""
    loop, longest = asyncio.get_running_loop(), 0.0

    async def look() -> None:
        nonlocal longest
        while True:
            before = loop.time()
            await asyncio.sleep(LOOK_EVERY)
            longest = max(longest, loop.time() - before - LOOK_EVERY)

    looking = asyncio.ensure_future(look())
    try:
        yield lambda: longest
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)

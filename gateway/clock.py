"""The clock: the only file that asks what time it is.

Instants are floats in seconds of the monotonic clock (`*_at`), durations floats in seconds
(`*_for`, `*_after`, `*_timeout`).  Policies never call this: `now` is their argument.
Tests replace the event loop by one whose time jumps (tests/virtual.py); `now` follows the loop
only where a `Clock` was handed in, so everything that measures takes one.
"""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns the present instant: monotonic seconds."""

monotonic: Clock = time.monotonic


def wall_seconds() -> float:
    """Seconds since 1970, for timestamps that people and traces read; never for durations."""
    return time.time()


def wall_at(instant: float, now: float) -> float:
    """The wall-clock time of a monotonic instant, given the present monotonic instant."""
    return time.time() - (now - instant)

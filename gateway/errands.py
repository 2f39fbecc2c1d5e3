"""Work in the background: tasks that nobody waits for.

Always true: a task is held until it ends, so the loop cannot lose it; what it fails with is told; `end` leaves none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel them, and return when all have ended, however they did."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def within(seconds: float, works: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Do all of them at the same time; what is not done after `seconds` is cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
        await end(tasks)


class Errands:
    """The background work of one owner.  `tell` hears of each failure."""

    def __init__(self, tell: Callable[[BaseException], None]) -> None:
        self._tell = tell
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Begin it now; it goes on until it ends by itself or `end` is called."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def end(self) -> None:
        """Cancel what is still going on, and return when all of it has ended."""
        await end(self._tasks)

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(error)

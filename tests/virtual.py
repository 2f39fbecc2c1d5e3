"""An event loop whose time jumps: real loopback sockets, no waiting.

`run(story)` runs a coroutine to its end.  Sockets are real and never hurried: only when no socket has
news and nothing is ready to run does the loop's time jump to the next timer.  Whatever measures time
gets ``asyncio.get_running_loop().time`` as its `Clock`.

A story that can never go on is an error, not a hang: one that waits with no timer set (`Stuck`), and
one that only lets time pass (`TooLong`).  So is a story that leaves something behind: a task, an open
socket, or an error that only the loop was told of.
Names are resolved from `VirtualLoop.names` alone; no test asks a real name server.
"""

from __future__ import annotations

import asyncio
import errno
import os
import selectors
import socket
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar, cast

from tests.pace import PATIENCE

T = TypeVar("T")

STARTS_AT = 1000.0  # no test may take the clock for the system's, nor for one that starts at zero
IN_FLIGHT = 0.001  # real seconds in which the system brings what is on its way from socket to socket
LEAVING = 50  # turns of the loop in which what was closed may go


class Stuck(AssertionError):
    """Everything waits, and nothing is left that could wake it."""


class TooLong(AssertionError):
    """The story has used up its virtual time."""


class Leftovers(AssertionError):
    """Something outlived the story: tasks, sockets, or errors nobody was told of."""


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for sockets by not waiting: what would have been waited for has passed."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:  # no timer: only a thread or a byte under way can wake the loop
            events = super().select(self.loop.patience)
            if not events:
                raise Stuck(f"nothing will ever happen; waiting: {self.loop.waiting()}")
            return events
        if len(self.get_map()) > 1:  # more than the loop's own pipe
            os.sched_yield()
            events = super().select(IN_FLIGHT)
            if events:
                return events
        self.loop.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop under `run`.  `names` holds what name resolution answers: addresses, or the error it raises.

    A name that is not listed does not exist.  Every look-up is noted in `looked_up` and takes
    `lookup_takes` seconds.
    """

    def __init__(self, at_most: float = 1000.0, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._instant = STARTS_AT
        self._ends_at = STARTS_AT + at_most
        self.names: dict[str, list[str] | OSError] = {}
        self.looked_up: list[str] = []
        self.lookup_takes = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)
        self._sockets = selector

    def time(self) -> float:
        return self._instant

    def jump(self, seconds: float) -> None:
        """Let `seconds` pass.  Raises TooLong past the end of the story's time."""
        self._instant += seconds
        if self._instant > self._ends_at:
            self._ends_at = float("inf")  # said once: the clearing up needs time as well
            raise TooLong(f"{self._instant - STARTS_AT:.0f} virtual seconds passed; waiting: {self.waiting()}")

    def waiting(self) -> list[str]:
        """Where each task stands that has not ended."""
        return sorted(_whereabouts(task.get_coro()) for task in asyncio.all_tasks(self))

    def open_sockets(self) -> int:
        """Sockets the loop still listens to or reads from, its own pipe apart."""
        return len(self._sockets.get_map()) - 1

    async def getaddrinfo(self, host: Any, port: Any, **hints: Any) -> list[Any]:  # type: ignore[override]
        name = host.decode() if isinstance(host, bytes) else host
        self.looked_up.append(name)
        if self.lookup_takes:
            await asyncio.sleep(self.lookup_takes)
        found = self.names.get(name, socket.gaierror(socket.EAI_NONAME, "no such name"))
        if isinstance(found, OSError):
            raise found
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]


def run(story: Coroutine[Any, Any, T], *, at_most: float = 1000.0, patience: float = PATIENCE) -> T:
    """Run `story` on a loop of its own, `at_most` virtual seconds long, and see that nothing is left of it.

    `patience` is the real time that a thread has to hand something in while nothing else goes on.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(at_most, patience)) as runner:
        return runner.run(_alone(story))


def here() -> VirtualLoop:
    """The virtual loop that runs the caller."""
    return cast(VirtualLoop, asyncio.get_running_loop())


async def _alone(story: Awaitable[T]) -> T:
    problems: list[str] = []
    loop = here()
    loop.set_exception_handler(lambda _, context: problems.append(_told(context)))
    result = await story
    left: set[asyncio.Task[Any]] = set()
    for _ in range(LEAVING):  # what the story closed needs a few turns to be gone
        left = asyncio.all_tasks() - {cast("asyncio.Task[Any]", asyncio.current_task())}
        if not left and not loop.open_sockets():
            break
        await asyncio.sleep(0)
    found = [f"task {task!r}" for task in left] + problems
    if loop.open_sockets():
        found.append(f"{loop.open_sockets()} open sockets")
    if found:
        raise Leftovers("; ".join(found))
    return result


def _whereabouts(coroutine: Any) -> str:
    """The coroutines of a task from the outermost to the one that waits."""
    names = []
    while hasattr(coroutine, "cr_frame") and coroutine.cr_frame is not None:
        names.append(f"{coroutine.__qualname__}:{coroutine.cr_frame.f_lineno}")
        coroutine = coroutine.cr_await
    return " > ".join(names)


def _told(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


def refused_port() -> int:
    """A port of the loopback interface on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    with socket.socket() as caller:
        assert caller.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
    return port

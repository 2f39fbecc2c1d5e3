"""Watching the configuration file.  Owner of watchfiles.

Always true: what is watched are directories, each in which a step of the path can be swapped (Kubernetes
exchanges a symbolic link beside the file, which a watch on the file itself never sees), and what decides
is the content's hash, so a touch reloads nothing; a slow poll stands in where events do not arrive; a
file that vanishes for a moment, as during a swap, is no change.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import watchfiles

Places = dict[Path, tuple[int, int]]
MOST_STEPS = 100  # an end, where links go round in a circle


async def watch(path: Path, *, poll: float = 30.0) -> AsyncIterator[None]:
    """Yields each time the file's content has changed.  Ends by cancellation.  `poll` in seconds.

    While the caller is busy with a change nothing is open; what happens meanwhile is seen afterwards.
    """
    known = _digest(path)
    while True:
        found = None
        places = _places(path)
        async with contextlib.aclosing(_events(places, poll)) as events:
            async for _ in events:
                found = _digest(path)
                if found not in (None, known) or _places(path) != places:
                    break  # or a link points elsewhere, or a directory is another one of the same name
        if found not in (None, known):
            known = found
            yield


async def _events(places: Places, poll: float) -> AsyncGenerator[None, None]:
    """Yields once the directories are watched, then when something happened in them or `poll` seconds went by."""
    stop = asyncio.Event()
    source = watchfiles.awatch(
        *places,
        watch_filter=None,  # the usual one hides directories and files by their names
        stop_event=stop,
        recursive=False,
        yield_on_timeout=True,
        rust_timeout=max(1, int(poll * 1000)),
        debounce=200,
        step=20,
    )
    waiting = asyncio.ensure_future(anext(source, None))
    try:
        await asyncio.sleep(0)  # the watch begins with the first step of `waiting`
        yield
        while True:
            try:
                await waiting
            except (OSError, RuntimeError):  # no such directory any more, or no watches left
                await asyncio.sleep(poll)
                yield
                return
            waiting = asyncio.ensure_future(anext(source, None))
            yield
    finally:
        stop.set()
        await _finished(waiting)
        await source.aclose()


async def _finished(waiting: asyncio.Future[Any]) -> None:
    """Until it has ended, whatever it ended with.  A cancellation that comes meanwhile is passed on, never lost."""
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.wait({waiting})  # unlike awaiting it, this does not take its end for ours
        except asyncio.CancelledError as error:
            cancelled = error
    if not waiting.cancelled():
        waiting.exception()  # seen
    if cancelled is not None:
        raise cancelled


def _places(path: Path) -> Places:
    """The directories to watch, each with what tells it from another of the same name."""
    found: Places = {}
    for directory in _directories(path.absolute()):
        existing = directory
        while True:
            try:
                status = existing.stat()
            except OSError:  # missing: what is watched is where it would come back
                if existing == existing.parent:
                    break
                existing = existing.parent
            else:
                found[existing] = (status.st_dev, status.st_ino)
                break
    return found


def _directories(path: Path) -> set[Path]:
    """Where the file stands, where its links point to, and where the links themselves stand."""
    directories: set[Path] = set()
    seen: set[Path] = set()
    to_see = [path]
    while to_see and len(seen) < MOST_STEPS:
        here = to_see.pop()
        if here in seen:
            continue
        seen.add(here)
        directories.add(here.parent)
        for step in (here, *here.parents):
            if step.is_symlink():
                with contextlib.suppress(OSError):
                    target = Path(os.path.normpath(step.parent / step.readlink()))
                    directories.add(step.parent)
                    to_see.append(target / here.relative_to(step))
    return directories


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None

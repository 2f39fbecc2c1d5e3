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

import watchfiles

Places = dict[Path, tuple[int, int]]
DEEPEST = 40  # links followed, as Linux does


async def watch(path: Path, *, poll: float = 30.0) -> AsyncIterator[None]:
    """Yields each time the file's content has changed.  Ends by cancellation.  `poll` in seconds."""
    known = _digest(path)
    while True:
        places = _places(path)
        async with contextlib.aclosing(_events(places, poll)) as events:
            async for _ in events:
                digest = _digest(path)
                if digest is not None and digest != known:
                    known = digest
                    yield
                if _places(path) != places:
                    break  # a link points elsewhere, or a directory is another one of the same name


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
        while True:
            yield
            try:
                await waiting
            except (OSError, RuntimeError):  # no such directory any more, no watches left
                await asyncio.sleep(poll)
                yield
                return
            waiting = asyncio.ensure_future(anext(source, None))
            await asyncio.sleep(0)
    finally:
        stop.set()
        with contextlib.suppress(OSError, RuntimeError, asyncio.CancelledError):
            await waiting
        await source.aclose()


def _places(path: Path) -> Places:
    """The directories to watch, each with what tells it from another of the same name."""
    found: Places = {}
    for directory in _directories(path.absolute(), DEEPEST):
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


def _directories(path: Path, deepest: int) -> set[Path]:
    """Where the file stands, where its links point to, and where the links themselves stand."""
    directories = {path.parent}
    for step in (path, *path.parents):
        if deepest and step.is_symlink():
            with contextlib.suppress(OSError):
                rest = path.relative_to(step)
                target = Path(os.path.normpath(step.parent / step.readlink()))
                directories |= {step.parent, *_directories(target / rest, deepest - 1)}
    return directories


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None

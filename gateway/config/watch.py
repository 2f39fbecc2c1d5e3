"""Watching the configuration file.  Owner of watchfiles.

Always true: what is watched is the file's directory (Kubernetes swaps a symbolic link there, which a
watch on the file itself never sees) and what decides is the content's hash, so a touch reloads
nothing; a slow poll stands in where events do not arrive; a file that vanishes for a moment, as
during a swap, is no change.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import watchfiles


async def watch(path: Path, *, poll: float = 30.0) -> AsyncIterator[None]:
    """Yields each time the file's content has changed.  Ends by cancellation.  `poll` in seconds."""
    known = _digest(path)
    stop = asyncio.Event()
    events = watchfiles.awatch(
        _folder(path),
        stop_event=stop,
        recursive=False,
        yield_on_timeout=True,
        rust_timeout=int(poll * 1000),
        debounce=200,
        step=20,
    )
    try:
        async for _ in events:
            digest = _digest(path)
            if digest is not None and digest != known:
                known = digest
                yield
    finally:
        stop.set()
        await events.aclose()


def _directories(path: Path) -> set[Path]:
    """Where the file stands, and where it really stands when it is a link."""
    return {path.absolute().parent, path.resolve().parent}


def _folder(path: Path) -> Path:
    return path.absolute().parent


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return None

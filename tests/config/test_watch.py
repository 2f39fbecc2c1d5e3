"""A changed file is noticed, also when a symbolic link is what changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from gateway.config.watch import watch


async def changes_seen(path: Path, change: Callable[[int], None], wanted: int) -> int:
    """Make changes until `wanted` of them were seen; the watch needs a moment to begin, so it may take more."""
    items = watch(path, settle_ms=20)
    seen = made = 0
    async with asyncio.timeout(20):
        while seen < wanted:
            task = asyncio.ensure_future(anext(items))
            while not task.done():
                made += 1
                change(made)
                await asyncio.wait({task}, timeout=0.2)
            await task
            seen += 1
    await items.aclose()
    return seen


def test_a_file_that_is_written(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("0")
    assert asyncio.run(changes_seen(path, lambda n: void(path.write_text(str(n))), 2)) == 2


def test_a_directory_link_that_is_swapped(tmp_path: Path) -> None:
    """What Kubernetes does: gateway.yaml -> ..data/gateway.yaml, and ..data -> a new directory."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "gateway.yaml").write_text("0")
    os.symlink("0", tmp_path / "..data")
    os.symlink("..data/gateway.yaml", tmp_path / "gateway.yaml")

    def swap(number: int) -> None:
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "gateway.yaml").write_text(str(number))
        os.symlink(str(number), tmp_path / "..new")
        os.replace(tmp_path / "..new", tmp_path / "..data")

    assert asyncio.run(changes_seen(tmp_path / "gateway.yaml", swap, 2)) == 2


def void(_: object) -> None:
    """Nothing."""

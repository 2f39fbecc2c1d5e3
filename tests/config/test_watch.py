"""The watch on a configuration file, with real files and the real clock: it waits, it never sleeps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.config.watch import watch
from tests.pace import PATIENCE

SOON = PATIENCE  # an event takes some 30 ms
NEVER = 3600.0  # a poll that plays no part


class Watching:
    """One watch, asked for its next change in the background."""

    def __init__(self, path: Path, poll: float = NEVER) -> None:
        self._changes: AsyncIterator[None] = watch(path, poll=poll)
        self._next: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Watching:
        self._ask()
        for _ in range(3):  # until its directories are watched
            await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._next is not None
        self._next.cancel()
        await asyncio.gather(self._next, return_exceptions=True)

    async def sees_a_change(self, within: float = SOON) -> bool:
        assert self._next is not None
        done, _ = await asyncio.wait({self._next}, timeout=within)
        if done:
            self._next.result()
            self._ask()
        return bool(done)

    def _ask(self) -> None:
        async def one() -> None:
            await anext(self._changes)

        self._next = asyncio.ensure_future(one())


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a scenario and holds it to leaving no task."""

    async def whole() -> None:
        await scenario()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def replace(path: Path, text: str) -> None:
    """As editors and deployment tools write: a new file beside it, then a rename."""
    os.replace(write(path.with_name(".new"), text), path)


def point(link: Path, target: str) -> None:
    """Let `link` point to `target` in one step, as Kubernetes does."""
    other = link.with_name("..data_tmp")
    other.symlink_to(target)
    os.replace(other, link)


def config_map(root: Path, text: str) -> Path:
    """A mounted ConfigMap: file -> ..data/file, and ..data -> the directory of one version."""
    write(root / "..v1" / "gateway.yaml", text)
    (root / "..data").symlink_to("..v1")
    (root / "gateway.yaml").symlink_to("..data/gateway.yaml")
    return root / "gateway.yaml"


@pytest.mark.parametrize("change", [write, replace], ids=["write", "replace"])
def test_a_change_is_seen_each_time(tmp_path: Path, change: Callable[[Path, str], object]) -> None:
    path = write(tmp_path / "gateway.yaml", "a")

    async def scenario() -> None:
        async with Watching(path) as watching:
            for text in ("b", "c", "a"):
                change(path, text)
                assert await watching.sees_a_change(), text

    run(scenario)


def test_a_swapped_link_is_seen_each_time(tmp_path: Path) -> None:
    path = config_map(tmp_path, "1")

    async def scenario() -> None:
        async with Watching(path) as watching:
            for version in ("2", "3"):
                write(tmp_path / f"..v{version}" / "gateway.yaml", version)
                point(tmp_path / "..data", f"..v{version}")
                assert await watching.sees_a_change(), version

    run(scenario)


def test_a_write_behind_the_link_is_seen_also_after_a_swap(tmp_path: Path) -> None:
    real = write(tmp_path / "elsewhere" / "real.yaml", "1")
    link = tmp_path / "etc" / "gateway.yaml"
    link.parent.mkdir()
    link.symlink_to(real)

    async def scenario() -> None:
        async with Watching(link) as watching:
            write(real, "2")
            assert await watching.sees_a_change()
            second = write(tmp_path / "further" / "real.yaml", "3")
            point(link, str(second))
            assert await watching.sees_a_change()
            write(second, "4")
            assert await watching.sees_a_change()

    run(scenario)


def test_a_swapped_directory_above_the_file_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "releases" / "1" / "gateway.yaml", "1")
    write(tmp_path / "releases" / "2" / "gateway.yaml", "2")
    (tmp_path / "current").symlink_to("releases/1")

    async def scenario() -> None:
        async with Watching(tmp_path / "current" / "gateway.yaml") as watching:
            point(tmp_path / "current", "releases/2")
            assert await watching.sees_a_change()

    run(scenario)


def test_the_same_content_is_no_change(tmp_path: Path) -> None:
    path = write(tmp_path / "gateway.yaml", "a")

    async def scenario() -> None:
        async with Watching(path) as watching:
            os.utime(path)
            write(path, "a")
            replace(path, "a")
            write(tmp_path / "neighbour.yaml", "b")
            assert not await watching.sees_a_change(within=0.5)
            write(path, "b")
            assert await watching.sees_a_change()
            assert not await watching.sees_a_change(within=0.2)

    run(scenario)


def test_a_file_that_vanishes_for_a_moment_is_no_change(tmp_path: Path) -> None:
    path = write(tmp_path / "gateway.yaml", "a")

    async def scenario() -> None:
        async with Watching(path) as watching:
            path.unlink()
            assert not await watching.sees_a_change(within=0.3)
            write(path, "a")
            assert not await watching.sees_a_change(within=0.3)
            path.unlink()
            write(path, "b")
            assert await watching.sees_a_change()

    run(scenario)


def test_a_directory_that_comes_back_is_watched_again(tmp_path: Path) -> None:
    path = write(tmp_path / "mounted" / "gateway.yaml", "a")

    async def scenario() -> None:
        async with Watching(path) as watching:
            path.unlink()
            path.parent.rmdir()
            assert not await watching.sees_a_change(within=0.3)
            write(path, "b")
            assert await watching.sees_a_change()
            write(path, "c")
            assert await watching.sees_a_change()

    run(scenario)


def test_names_that_tools_like_to_hide_are_watched(tmp_path: Path) -> None:
    path = write(tmp_path / ".git" / "gateway.yaml.swp", "a")

    async def scenario() -> None:
        async with Watching(path) as watching:
            write(path, "b")
            assert await watching.sees_a_change()

    run(scenario)


def test_the_poll_stands_in_where_no_watch_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "gateway.yaml", "a")

    def none_left(*_: object, **__: object) -> None:
        raise OSError("no watches left")

    monkeypatch.setattr("watchfiles.main.RustNotify", none_left)

    async def scenario() -> None:
        async with Watching(path, poll=0.02) as watching:
            write(path, "b")
            assert await watching.sees_a_change()
            write(path, "c")
            assert await watching.sees_a_change()

    run(scenario)


def test_the_poll_stands_in_where_no_event_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "gateway.yaml", "a")
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    status = quiet.stat()
    monkeypatch.setattr("gateway.config.watch._places", lambda _: {quiet: (status.st_dev, status.st_ino)})

    async def scenario() -> None:
        async with Watching(path, poll=0.05) as watching:
            write(path, "b")
            assert await watching.sees_a_change()

    run(scenario)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    async def scenario() -> None:
        async with Watching(tmp_path / "a" / "a" / "gateway.yaml") as watching:
            assert not await watching.sees_a_change(within=0.2)

    run(scenario)


def test_leaving_the_loop_ends_the_watch(tmp_path: Path) -> None:
    path = write(tmp_path / "gateway.yaml", "a")

    async def scenario() -> None:
        async def reload_on_change() -> None:
            async for _ in watch(path):
                raise AssertionError("nothing has changed")

        task = asyncio.ensure_future(reload_on_change())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(SOON):
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    run(scenario)


def test_nothing_is_open_while_the_caller_is_busy(tmp_path: Path) -> None:
    path = write(tmp_path / "gateway.yaml", "a")

    async def scenario() -> None:
        changes = watch(path)
        asked = asyncio.ensure_future(anext(changes))
        for _ in range(3):
            await asyncio.sleep(0)
        write(path, "b")
        await asyncio.wait_for(asked, SOON)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        write(path, "c")  # in the meantime
        await asyncio.wait_for(anext(changes), SOON)

    run(scenario)


def test_a_watch_that_is_ended_while_it_takes_in_a_change_ends(tmp_path: Path) -> None:
    """A gateway that is stopped just after its file was written must not wait for its watch for ever."""
    watches = 40  # ended at instants that lie close together, some of them inside the taking in

    async def follow(path: Path) -> None:
        async for _ in watch(path, poll=NEVER):
            pass

    async def ended_after(seconds: float, path: Path, following: asyncio.Task[None]) -> bool:
        replace(path, "two")
        await asyncio.sleep(seconds)
        following.cancel()
        await asyncio.wait({following}, timeout=SOON)
        return following.cancelled()

    async def scenario() -> None:
        paths = [write(tmp_path / str(i) / "seawall.yaml", "one") for i in range(watches)]
        tasks = [asyncio.ensure_future(follow(path)) for path in paths]
        await asyncio.sleep(0.3)  # until all are watched
        told = await asyncio.gather(*(ended_after(i * 0.006, paths[i], tasks[i]) for i in range(watches)))
        late = [task for task in tasks if not task.done()]
        for task in late:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(told), f"{told.count(False)} of {watches} did not end"

    run(scenario)

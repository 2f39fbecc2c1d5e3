"""A bound on real time may be missed twice; anything else may not be."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pace import OutOfTime, at_least, at_most, standstill

TESTS = """
import socket
from tests.pace import at_most

folders, broken = [], []

def test_that_is_in_time_at_last(tmp_path):
    folders.append(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "left").write_text("behind")
    left_open = socket.socket() if len(folders) < 3 else None
    at_most(5.0 - len(folders), 2.0, "seconds")

def test_that_is_never_in_time():
    at_most(9.0, 2.0, "seconds")

def test_that_breaks_a_law_once():
    broken.append(1)
    assert len(broken) > 1

def test_how_often_each_was_run():
    assert (len(folders), len(set(folders)), len(broken)) == (3, 3, 1)
"""


def test_what_misses_a_bound_on_time_is_run_again_and_what_breaks_a_law_is_not(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-q",
        "-rfp",
        "-W",
        "error",
    ]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)], cwd=root, capture_output=True, text=True, check=False
    )
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert re.findall(r"PASSED \S*::(\w+)", done.stdout) == [
        "test_that_is_in_time_at_last",
        "test_how_often_each_was_run",
    ]
    assert len(re.findall(r"::test_that_is_in_time_at_last, try [12] of 3: seconds: [34]\.000, ", done.stdout)) == 2
    assert len(re.findall(r"::test_that_is_never_in_time, try [12] of 3: seconds: 9\.000, ", done.stdout)) == 2


def test_bounds_hold_at_themselves_and_for_no_number_never() -> None:
    at_most(2.0, 2.0, "x")
    at_least(2.0, 2.0, "x")
    for judge in (at_most, at_least):
        with pytest.raises(OutOfTime):
            judge(float("nan"), 2.0, "x")
    with pytest.raises(OutOfTime, match=r"x: 2\.001, allowed are at most 2\.000"):
        at_most(2.001, 2.0, "x")
    with pytest.raises(OutOfTime, match=r"x: 1\.999, allowed are at least 2\.000"):
        at_least(1.999, 2.0, "x")


def test_a_standstill_is_noticed_and_waiting_is_none() -> None:
    async def story() -> None:
        async with standstill() as longest:
            await asyncio.sleep(0.2)
            at_most(longest(), 0.2, "seconds in which nothing kept this loop")
            time.sleep(0.3)  # noqa: ASYNC251 - what is noticed
            await asyncio.sleep(0.05)
            assert longest() >= 0.25

    asyncio.run(story())

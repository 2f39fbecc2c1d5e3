"""The tests are the same whoever collects them: else two workers cannot share them out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def test_the_names_of_tests_depend_on_neither_the_time_nor_the_process() -> None:
    def names(seed: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "-p", "no:xdist"],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        found = [line for line in done.stdout.splitlines() if "::" in line]
        assert len(found) > 1000, done.stdout[-2000:] + done.stderr[-2000:]
        return found

    first = names("1")
    time.sleep(1.1)  # names that hold a time in seconds differ now
    assert first == names("2")

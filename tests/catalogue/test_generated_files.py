"""What scripts write is what they would write now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_reference_of_all_settings_is_current() -> None:
    script = ROOT / "scripts" / "make_configuration_reference.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

"""The gateway's own network is cut, and nobody else is blamed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CUT_FOR = 30.0 if os.environ.get("CI") else 8.0


def can_unshare() -> bool:
    """Whether this machine lets us make network namespaces of our own."""
    try:
        return subprocess.run(["unshare", "-Urn", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not can_unshare(), reason="no network namespaces can be made here")
def test_a_cut_of_our_own_network_opens_nothing_and_is_called_a_local_fault() -> None:
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-m", "tests.scenarios.cut_network", str(CUT_FOR)],
        capture_output=True,
        text=True,
        check=False,
        timeout=CUT_FOR + 60,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    print(f"network cut for {CUT_FOR:.0f} s: {report}")
    assert report["lost_before"] == 0
    assert report["opened"] == {}
    assert set(report["verdicts"]) == {"local_fault"}
    assert report["verdict_after"] <= 3.0
    assert report["service_back_after"] <= 1.0
    assert report["at_the_end"] == "all well"

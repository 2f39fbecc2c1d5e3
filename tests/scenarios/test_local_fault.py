"""The gateway's own network is cut, and nobody else is blamed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.pace import PATIENCE, at_most

CUT_FOR = 30.0 if os.environ.get("CI") else 8.0


def lacks() -> str:
    """What keeps us from making network namespaces of our own; empty when nothing does."""
    if missing := [program for program in ("unshare", "ip") if shutil.which(program) is None]:
        return f"{' and '.join(missing)} not installed: apt-get install util-linux iproute2"
    # some systems let everybody make a namespace, and then do nothing in it
    tried = subprocess.run(
        ["unshare", "-Urn", "ip", "link", "add", "here", "type", "veth"], capture_output=True, text=True, check=False
    )
    return f"no network namespaces can be made here: {tried.stderr.strip()}" if tried.returncode else ""


LACKS = lacks()


@pytest.mark.skipif(bool(LACKS), reason=LACKS or "-")
def test_a_cut_of_our_own_network_opens_nothing_and_is_called_a_local_fault() -> None:
    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-m", "tests.scenarios.cut_network", str(CUT_FOR)],
        capture_output=True,
        text=True,
        check=False,
        timeout=CUT_FOR + 4 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    print(f"network cut for {CUT_FOR:.0f} s: {report}")
    at_most(report["stood_still_for"], 0.4, "seconds in which the gateway itself stood still")  # a time-out is 0.5 s
    assert report["lost_before"] == 0
    assert report["opened"] == {}
    assert set(report["verdicts"]) == {"local_fault"}
    assert report["at_the_end"] == "all well"
    at_most(report["verdict_after"], 3.0, "seconds until the verdict")
    at_most(report["service_back_after"], 1.0, "seconds until full service")

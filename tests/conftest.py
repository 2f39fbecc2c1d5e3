"""Tests are judged by what they find, not by how slow the machine happens to be."""

from __future__ import annotations

import gc
import os
import resource
import traceback
import warnings
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.pace import TRIES, OutOfTime

DESCRIPTORS = 20_000
# The same examples in each run, unless new ones are looked for (SEAWALL_EXAMPLES=new), however long one takes.
settings.register_profile(
    "seawall",
    deadline=None,
    derandomize=os.environ.get("SEAWALL_EXAMPLES") != "new",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("seawall")

# A thousand callers are two thousand descriptors here; many a shell allows 1,024 at first.
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most if 0 < most < DESCRIPTORS else DESCRIPTORS, most))

TRIED = pytest.StashKey[int]()
MISSED = "missed a bound on time"  # a property of a test's report, which reaches whoever gathers the reports


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that missed a bound on real time is run again, in a folder of its own; see tests/pace."""
    try:
        return (yield)
    except OutOfTime as missed:
        tried = pyfuncitem.stash.get(TRIED, 1)
        if tried == TRIES:
            raise
        pyfuncitem.user_properties.append((MISSED, f"{pyfuncitem.nodeid}, try {tried} of {TRIES}: {missed}"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # a try that is broken off leaves sockets open
            traceback.clear_frames(missed.__traceback__)
            gc.collect()
    pyfuncitem.stash[TRIED] = tried + 1
    if "tmp_path" in pyfuncitem.funcargs:
        folder = pyfuncitem.funcargs["tmp_path"] / "again"
        folder.mkdir()
        pyfuncitem.funcargs["tmp_path"] = folder
    return pyfuncitem.ihook.pytest_pyfunc_call(pyfuncitem=pyfuncitem)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Who reads a run that passed sees what had to be tried again."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    missed = [told for report in reports for name, told in report.user_properties if name == MISSED]
    if missed:
        terminalreporter.section("bounds on time that were missed, and tried again")
        for told in missed:
            terminalreporter.line(str(told))

"""Tests are judged by what they find, not by how slow the machine happens to be."""

from __future__ import annotations

import gc
import resource
import traceback
import warnings
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.pace import TRIES, OutOfTime

DESCRIPTORS = 20_000
settings.register_profile("seawall", deadline=None)
settings.load_profile("seawall")

# A thousand callers are two thousand descriptors here; many a shell allows 1,024 at first.
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most if 0 < most < DESCRIPTORS else DESCRIPTORS, most))

TRIED = pytest.StashKey[int]()
MISSED = pytest.StashKey[list[str]]()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that missed a bound on real time is run again, in a folder of its own; see tests/pace."""
    try:
        return (yield)
    except OutOfTime as missed:
        tried = pyfuncitem.stash.get(TRIED, 1)
        if tried == TRIES:
            raise
        told = f"{pyfuncitem.nodeid}, try {tried} of {TRIES}: {missed}"
        pyfuncitem.config.stash.setdefault(MISSED, []).append(told)
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Who reads a run that passed sees what had to be tried again."""
    if missed := config.stash.get(MISSED, []):
        terminalreporter.section("bounds on time that were missed, and tried again")
        for told in missed:
            terminalreporter.line(told)

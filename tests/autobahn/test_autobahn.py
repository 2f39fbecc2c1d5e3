"""The Autobahn suite's cases, played on the sockets of callers and on those to endpoints: none fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from tests.autobahn import suite
from tests.autobahn.sides import caller_side, upstream_side
from tests.pace import TRIES

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(suite.missing()), reason=suite.missing()),
]

WITHOUT_COMPRESSION = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
BINARY = ("1.2.", "9.2.", "9.4.", "9.6.", "9.8.")  # of these, those that send binary messages
SIZES = (1, 3, 11)  # of eighteen: 16 B, 256 B, and 8 KiB in pieces of 256 B, a thousand messages each
COMPRESSED = [
    f"{kind}.{way}.{size}" for kind, ways in ((12, 5), (13, 7)) for way in range(1, ways + 1) for size in SIZES
]

WITHIN = 400.0  # seconds; on an idle machine of two cores each takes less than 50


Play = Callable[[Path, list[str]], Awaitable[list[suite.Verdict]]]


async def played(directory: Path, cases: list[str], play: Play) -> list[suite.Verdict]:
    """The verdict on each case.  One that fails is played again: the suite has time limits of its own."""
    verdicts = await play(directory, cases)
    for again in range(1, TRIES):
        if failed := [verdict.case for verdict in verdicts if verdict.failed]:
            print(f"failed, and played again: {' '.join(failed)}")
            folder = directory / f"again-{again}"
            folder.mkdir()
            better = {verdict.case: verdict for verdict in await play(folder, failed)}
            verdicts = [better.get(verdict.case, verdict) for verdict in verdicts]
    return verdicts


async def played_on_a_callers_socket(directory: Path, cases: list[str], *, compression: bool) -> list[suite.Verdict]:
    async with caller_side(compression=compression) as url:
        await suite.fuzz_server(url, directory, cases, WITHIN)
    return suite.verdicts_in(directory)


async def played_on_upstream_sockets(directory: Path, cases: list[str]) -> list[suite.Verdict]:
    async with suite.fuzzing_server(directory, cases) as url, asyncio.timeout(WITHIN):
        for case in suite.cases_of(directory):
            # The socket does not tell text from binary, as an answer is the same in both; the case does.
            binary = case.startswith(BINARY)
            await upstream_side(f"{url}/runCase?agent={suite.AGENT}&casetuple={case}", binary=binary)
        await upstream_side(f"{url}/updateReports?agent={suite.AGENT}")
    return suite.verdicts_in(directory)


def shown(side: str, verdicts: list[suite.Verdict], capsys: pytest.CaptureFixture[str]) -> None:
    """What was found is for whoever reads the run, passed or not."""
    with capsys.disabled():
        print(f"\nAutobahn's cases, {suite.summary(side, verdicts)}")


def test_no_case_fails_on_a_callers_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    play = partial(played_on_a_callers_socket, compression=False)
    verdicts = asyncio.run(played(tmp_path, WITHOUT_COMPRESSION, play))
    shown("caller side", verdicts, capsys)
    assert not [verdict for verdict in verdicts if verdict.failed]
    assert len(verdicts) == 301


def test_no_case_fails_on_a_callers_compressed_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    play = partial(played_on_a_callers_socket, compression=True)
    verdicts = asyncio.run(played(tmp_path, COMPRESSED, play))
    shown("caller side, compressed", verdicts, capsys)
    assert not [verdict for verdict in verdicts if verdict.failed]
    assert [verdict.case for verdict in verdicts if verdict.behaviour == suite.OK] == COMPRESSED


def test_no_case_fails_on_an_upstream_socket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = asyncio.run(played(tmp_path, WITHOUT_COMPRESSION, played_on_upstream_sockets))
    shown("upstream side", verdicts, capsys)
    assert not [verdict for verdict in verdicts if verdict.failed]
    assert len(verdicts) == 301

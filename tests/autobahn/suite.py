"""The Autobahn suite as a program that is started: where it is, how it is run, what it found.

Always true: a case that the suite was asked for and has no verdict on is none; so whoever judges counts
the cases.  The program is ended by the id it was started with.
The suite is Python 2 and stays so; `make autobahn` puts it, pinned, into a directory of its own, with
whatever Python 2.7 there is.  Where there is none, nothing is installed and the tests say so.
Does not belong here: the two sides that are tested (sides).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.autobahn.install import HOME
from tests.pace import PATIENCE
from tests.real.processes import free_port

PYTHON = HOME / "python2.7"
START = "import site, sys; site.addsitedir({!r}); from autobahntestsuite.wstest import run; run()"
AGENT = "seawall"  # the name of our side in the suite's report

OK = "OK"
PASSED = (OK, "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")
CLOSED_WELL = (OK, "INFORMATIONAL")


def missing() -> str:
    """Why the suite cannot run here; empty when it can."""
    return "" if PYTHON.exists() else "the Autobahn suite is not installed: make autobahn, with a Python 2.7"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the suite says of one case: of what our side sent, and of how the connection was closed."""

    case: str
    behaviour: str
    closing: str
    seconds: float

    @property
    def failed(self) -> bool:
        return self.behaviour not in PASSED or self.closing not in CLOSED_WELL


def verdicts_in(directory: Path) -> list[Verdict]:
    """The report that the suite wrote there, in the order of the cases' numbers."""
    report = json.loads((directory / "index.json").read_text()).get(AGENT, {})
    found = [
        Verdict(case, said["behavior"], said["behaviorClose"], said["duration"] / 1000) for case, said in report.items()
    ]
    return sorted(found, key=lambda verdict: [int(part) for part in verdict.case.split(".")])


def summary(side: str, verdicts: list[Verdict]) -> str:
    """How many cases got which verdict, and the name of every case whose verdict is not OK."""
    lines = [f"{side}: {len(verdicts)} cases in {sum(verdict.seconds for verdict in verdicts):.0f} s"]
    tellers: dict[str, Callable[[Verdict], str]] = {"": lambda v: v.behaviour, "closing ": lambda v: v.closing}
    for what, teller in tellers.items():
        for said, count in sorted(Counter(map(teller, verdicts)).items(), key=lambda item: -item[1]):
            names = "" if said == OK else ": " + " ".join(v.case for v in verdicts if teller(v) == said)
            lines.append(f"  {count:3} {what}{said}{names}")
    return "\n".join(lines)


@contextlib.asynccontextmanager
async def _started(directory: Path, mode: str, spec: dict[str, object]) -> AsyncIterator[asyncio.subprocess.Process]:
    spec_file = directory / f"{mode}.json"
    spec_file.write_text(json.dumps({"outdir": str(directory), "exclude-cases": [], "exclude-agent-cases": {}} | spec))
    with (directory / f"{mode}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(PYTHON), "-u", "-c", START.format(str(HOME / "site")), "--mode", mode, "--spec", str(spec_file),
            "--webport", "0", stdout=log, stderr=asyncio.subprocess.STDOUT, cwd=directory,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def fuzz_server(url: str, directory: Path, cases: list[str], within: float) -> None:
    """Play the cases on the server at `url`.  Raises TimeoutError after `within` seconds."""
    spec = {"servers": [{"url": url, "agent": AGENT}], "cases": cases}
    async with _started(directory, "fuzzingclient", spec) as process, asyncio.timeout(within):
        await process.wait()


@contextlib.asynccontextmanager
async def fuzzing_server(directory: Path, cases: list[str]) -> AsyncIterator[str]:
    """A server that plays a case on whoever connects; its URL, without a path."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    async with _started(directory, "fuzzingserver", {"url": url, "cases": cases}) as process:
        until = time.monotonic() + PATIENCE
        while True:
            assert process.returncode is None and time.monotonic() < until, "the suite did not start"
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.1)
        yield url


def cases_of(directory: Path) -> list[str]:
    """The cases that a fuzzing server has said it plays, in its order."""
    told = re.search(r"^Cases = (\[.*\])$", (directory / "fuzzingserver.log").read_text(), re.MULTILINE)
    assert told is not None, "the suite did not say which cases it plays"
    return re.findall(r"[\d.]+", told[1])

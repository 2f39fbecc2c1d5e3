"""Reads the cases of this folder: YAML, a divider, and the report that is expected of it."""

from __future__ import annotations

from pathlib import Path

from gateway.config.load import load_text
from gateway.errors import ConfigError

CASES = Path(__file__).parent / "cases"
DIVIDER = "---report---\n"
ENVIRONMENT = {"SECRET": "k3y-that-nobody-may-see-91"}


def report_of(text: str) -> str:
    """What the loader says about `text`, without the file's name; empty when it is content."""
    try:
        load_text(text.encode(), "FILE", CASES, ENVIRONMENT)
    except ConfigError as error:
        return "".join(problem.removeprefix("FILE:") + "\n" for problem in error.problems)
    return ""


def case_of(path: Path) -> tuple[str, str]:
    """The YAML and the expected report of one case."""
    yaml, _, report = path.read_text().partition(DIVIDER)
    return yaml, report

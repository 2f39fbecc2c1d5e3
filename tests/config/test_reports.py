"""The words of every problem, with line and column, as cases that can be read without knowing the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.reporting import CASES, ENVIRONMENT, case_of, report_of


@pytest.mark.parametrize("path", sorted(CASES.glob("*.txt")), ids=lambda path: path.stem)
def test_report(path: Path) -> None:
    text, expected = case_of(path)
    assert expected
    assert report_of(text) == expected


@pytest.mark.parametrize("path", sorted(CASES.glob("*.txt")), ids=lambda path: path.stem)
def test_no_report_holds_what_a_reference_gave(path: Path) -> None:
    text, _ = case_of(path)
    report = report_of(text)
    for secret in ENVIRONMENT.values():
        assert secret not in report


def test_ten_mistakes_are_ten_messages() -> None:
    text, _ = case_of(CASES / "ten_mistakes.txt")
    assert len(report_of(text).splitlines()) == 10

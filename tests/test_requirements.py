"""What is installed is pinned with hashes, and no pin is older than the fix of an advisory that concerns us."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parent.parent / "requirements"
FIXED_IN = {
    "starlette": ((1, 3, 0), "PYSEC-2026-248, CVE-2026-48710, CVE-2025-62727"),
    "h11": ((0, 16, 0), "CVE-2025-43859"),
    "uvicorn": ((0, 11, 7), "CVE-2020-7694, CVE-2020-7695"),
    "websockets": ((9, 1), "CVE-2018-1000518, CVE-2021-33880"),
    "h2": ((4, 3, 0), "CVE-2025-57804"),
    "aiohttp": ((3, 13, 3), "CVE-2025-69223 to 69229, CVE-2025-53643"),
    "orjson": ((3, 11, 6), "CVE-2024-27454, CVE-2025-67221"),
    "requests": ((2, 32, 4), "CVE-2024-47081"),
    "urllib3": ((2, 6, 0), "CVE-2025-66418, CVE-2025-66471"),
    "pyyaml": ((5, 4), "CVE-2020-14343"),
}
"""Name: the first version with the fixes, and of what."""


def pins(file: str) -> dict[str, tuple[int, ...]]:
    text = (REQUIREMENTS / file).read_text()
    found = re.findall(r"^([A-Za-z0-9._-]+)==([0-9][0-9.]*)", text, re.MULTILINE)
    return {name.lower(): tuple(int(part) for part in version.strip(".").split(".")) for name, version in found}


@pytest.mark.parametrize("file", ["runtime.txt", "dev.txt", "build.txt"])
def test_every_pin_has_hashes(file: str) -> None:
    text = (REQUIREMENTS / file).read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.split("==")[0] for block in blocks if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("file", ["runtime.txt", "dev.txt", "bench.txt", "clients.txt"])
def test_no_pin_is_older_than_a_fix_that_concerns_us(file: str) -> None:
    pinned = pins(file)
    assert {name: why for name, (fixed, why) in FIXED_IN.items() if name in pinned and pinned[name] < fixed} == {}


def test_the_parsers_of_what_strangers_send_are_pinned() -> None:
    assert {"starlette", "h11", "httptools", "uvicorn", "websockets", "msgspec"} <= pins("runtime.txt").keys()

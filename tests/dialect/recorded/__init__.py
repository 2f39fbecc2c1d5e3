"""Recorded replies of nodes and vendors, and the way to read them as the gateway does.

Always true: a row is read through the same functions as a live answer, from HTTP status and bytes to a kind.
Why: a rule in a table proves nothing until the bytes that a node sends have come to it.
Does not belong here: what a row must mean; that stands in the row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.dialect.protocol import Dialect
from gateway.model import Examined, Reading
from gateway.upstream.wire.reading import read_response

WIRE_ID = 7


@dataclass
class Recorded:
    """One reply as an engine would give it."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    stream: None = None

    def header(self, name: bytes) -> bytes | None:
        return next((value for known, value in self.headers if known == name), None)


def replies(name: str) -> list[dict[str, Any]]:
    """The rows of one file beside this one."""
    rows: list[dict[str, Any]] = json.loads((Path(__file__).parent / f"{name}.json").read_text("utf-8"))["replies"]
    return rows


def params_of(row: dict[str, Any]) -> bytes:
    return json.dumps(row["params"], separators=(",", ":")).encode()


def read(dialect: Dialect, row: dict[str, Any]) -> tuple[Reading, Examined | None]:
    """What the gateway makes of a row: its reading, and what examining a result tells."""
    call = dialect.call(row["method"], params_of(row), b"1")
    body = row["body"].encode()
    reading = read_response(dialect, call.method, Recorded(row["status"], body), body, WIRE_ID)
    told = dialect.examine(call, bytes(reading.result)) if reading.result is not None else None
    return reading, told


def expected(row: dict[str, Any], told: Examined | None) -> dict[str, Any]:
    """What was found, under the names that the rows use."""
    if told is None:
        return {}
    if told == Examined():
        return {"fits": True}
    found: dict[str, Any] = {}
    if told.head is not None:
        found["head"] = told.head.number
    if told.final is not None:
        found["final"] = told.final
    if told.missing:
        found["missing"] = True
    if told.wrong:
        found["wrong"] = True
    return found

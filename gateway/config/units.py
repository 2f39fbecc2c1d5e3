"""Human units: durations, sizes, shares and rates, from text or number to float or int.

Always true: a bare number is in the base unit (seconds, bytes, 0 to 1, per second); every refusal
says what would be right, with an example; nothing is infinite, not a number or negative.
Does not belong here: bounds (gateway.bounds), because they belong to single settings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s?([A-Za-z%/]*)", re.ASCII)
_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_RATES = {"/s": 1.0, "/m": 60.0, "/h": 3600.0, "/d": 86400.0}


def duration(value: object) -> float:
    """Seconds: ``250ms``, ``2s``, ``1m30s``, or a number."""
    expected = "a duration such as 250ms, 2s or 5m"
    if isinstance(value, str) and (parts := re.findall(r"([0-9.]+)([a-z]+)", value)) and len(parts) > 1:
        if "".join(number + unit for number, unit in parts) != value.strip():
            raise _refused(value, expected)
        return sum(_scaled(number + unit, _DURATIONS, expected) for number, unit in parts)
    return _scaled(value, _DURATIONS, expected)


def size(value: object) -> int:
    """Bytes: ``2MB`` (10^6), ``64KiB`` (2^10), or a whole number."""
    expected = "a size such as 2MB or 64KiB"
    amount = _scaled(value, _SIZES, expected, any_case=True)
    if amount != int(amount):
        raise _refused(value, f"{expected}, in whole bytes")
    return int(amount)


def share(value: object) -> float:
    """A part of one: ``80%`` or ``0.8``."""
    expected = "a share such as 80% or 0.8"
    amount = _scaled(value, {"%": 0.01}, expected)
    if amount > 1:
        hint = f" (did you mean {amount:g}%?)" if amount <= 100 and "%" not in str(value) else ""
        raise ValueError(f"expected {expected}, got {shown(value)}{hint}")
    return amount


def rate(value: object) -> float:
    """A number per second: ``100/s``, ``50/m``, or a number."""
    return _scaled(value, _RATES, "a rate such as 100/s or 50/m")


BY_UNIT: dict[str, Callable[[object], float]] = {"s": duration, "bytes": size, "share": share, "per_second": rate}
"""The reader of each unit that `gateway.bounds.setting` knows."""

EXAMPLES = {"s": "250ms, 2s, 5m", "bytes": "2MB, 64KiB", "share": "80%, 0.8", "per_second": "100/s, 50/m"}


def _scaled(value: object, table: Mapping[str, float], expected: str, *, any_case: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _refused(value, expected)
    if not isinstance(value, str):
        if not math.isfinite(value) or value < 0 or value > 1e15:
            raise _refused(value, expected)
        return float(value)
    found = _NUMBER.fullmatch(value.strip())
    if found is None:
        raise _refused(value, expected)
    number, unit = found[1], found[2].lower() if any_case else found[2]
    if not unit:
        return float(number)
    if unit not in table:
        raise ValueError(f"expected {expected}, got {shown(value)}")
    return _rounded(float(number) * table[unit] if not unit.startswith("/") else float(number) / table[unit])


def _rounded(value: float) -> float:
    """250ms is 0.25, and 35% is 0.35, not their neighbours."""
    return float(f"{value:.15g}")


def _refused(value: object, expected: str) -> ValueError:
    return ValueError(f"expected {expected}, got {shown(value)}")


def shown(value: object) -> str:
    """A value as a problem may quote it: never one that came from a variable or a file."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if getattr(value, "parts", ()):
        return "what a variable or file gave"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else text[:36] + "..."

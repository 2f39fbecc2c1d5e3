"""Instants as exchanges write them: numbers in four units, ISO 8601, HTTP dates; all of them unix seconds here.

Always true: what cannot be read is None, never a guess; nothing here knows what time it is.
"""

from __future__ import annotations

import calendar
import re
from email.utils import mktime_tz, parsedate_tz

UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:Z|([+-])(\d\d):?(\d\d))?\Z", re.ASCII)
LATEST = 1e11  # seconds; no exchange will see it


def instant(value: object, unit: str) -> float | None:
    """`value` in `unit` (s, ms, us, ns, iso) as unix seconds."""
    if unit == "iso":
        return _iso(str(value))
    try:
        seconds = float(value) / UNITS[unit]  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < LATEST else None


def of_any_unit(value: float) -> float:
    """A unix time whose unit is told by its size."""
    while value > LATEST:
        value /= 1e3
    return value


def http_date(text: str) -> float | None:
    """RFC 9110 section 5.6.7."""
    parsed = parsedate_tz(text)
    try:
        return float(mktime_tz(parsed)) if parsed is not None else None
    except (ValueError, OverflowError):
        return None


def _iso(text: str) -> float | None:
    found = _ISO.match(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60 and year >= 1970):
        return None
    seconds = float(calendar.timegm((year, month, day, hour, minute, second)))
    if found[8]:
        shift = 3600 * int(found[9]) + 60 * int(found[10])
        seconds -= shift if found[8] == "+" else -shift
    return seconds + (float(found[7]) if found[7] else 0.0)

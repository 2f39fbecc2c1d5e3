"""Bounds: one place that says a setting's default, unit and range, and refuses the rest.

Always true: a settings object that exists is legal.  A default is written once, beside the policy
that uses it; the YAML loader, the JSON Schema and the configuration reference read it from here.
Does not belong here: reading YAML (config), or any rule that spans two settings objects.
"""

from __future__ import annotations

import dataclasses
from typing import Any


def setting(default: Any, doc: str, *, unit: str = "", low: float | None = None, high: float | None = None) -> Any:
    """Declare one field of a frozen settings dataclass.

    `unit` is ``s`` (seconds, YAML also takes ``250ms``), ``bytes`` (``2MB``), ``share``
    (0 to 1, ``80%``), ``per_second`` or empty.  `low` and `high` are inclusive bounds.
    `doc` is the sentence that the configuration reference prints.
    """
    return dataclasses.field(default=default, metadata={"doc": doc, "unit": unit, "low": low, "high": high})


def require_bounds(settings: Any) -> None:
    """Refuse a value outside its declared range; called from every `__post_init__`.

    Raises ValueError naming the field, the bound and the value.
    """
    for field in dataclasses.fields(settings):
        low, high = field.metadata.get("low"), field.metadata.get("high")
        value = getattr(settings, field.name)
        if value is None or isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if low is not None and value < low:
            raise ValueError(f"{field.name} must be at least {low}, got {value}")
        if high is not None and value > high:
            raise ValueError(f"{field.name} must be at most {high}, got {value}")

"""Places: where in a JSON text something stands, as the files of exchanges write it.

A place is member names with dots between them; a number is a position in a list; ``*`` is the first element of a
list that holds something there, or the first member of an object.
Always true: nothing here raises, whatever the text is.
Does not belong here: which place means what (venue_answers, venue_requests).
"""

from __future__ import annotations

from typing import Any

import msgspec

MOST_LOOKED_AT = 64  # elements of a list in which ``*`` looks for something


def decoded(body: bytes, most: int) -> Any:
    """A body as JSON; None: it is none, is empty, or is longer than `most` bytes."""
    if not body or len(body) > most:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def found_at(value: Any, place: str) -> Any:
    """What stands at a place of a decoded text; None: nothing."""
    names = place.split(".")
    for i, name in enumerate(names):
        if name == "*" and isinstance(value, list):
            rest = ".".join(names[i + 1 :])
            found = (item if not rest else found_at(item, rest) for item in value[:MOST_LOOKED_AT])
            return next((item for item in found if item not in (None, "", "0", 0)), None)
        if isinstance(value, dict):
            value = next(iter(value.values()), None) if name == "*" else value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value

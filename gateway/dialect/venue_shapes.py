"""Topics that no single member names: how they are asked for, and how their messages are known, as patterns.

Always true: a request is taken for a topic only if every member of it is in the pattern; a topic's key is what a
request for it has beside its operation and its number, so that it can be asked for again; nothing here raises.
Does not belong here: what is done with a topic (upstream/venues/topics), where numbers stand (venue_messages).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from gateway.dialect.venue_facts import ANY_NAME, Topics

MOST_KEYS = 20_000  # names of which the key is remembered


class Shape:
    """Requests and messages of one kind of topics, which differ by a name."""

    def __init__(self, kind: Topics) -> None:
        self.kind = kind
        self._assumed = {name: kind.asked[name] for name in kind.assumed if name in kind.asked}
        self._marks = [(place, frozenset(text.split("|"))) for place, text in kind.told.items() if text != ANY_NAME]
        self._name_at = next((place for place, text in kind.told.items() if text == ANY_NAME), "")
        self._keys: dict[str, str] = {}

    def asked(self, rest: dict[str, Any], *, loosely: bool = False) -> tuple[str, ...]:
        """The keys of the topics that a request asks for, without its operation and number; none: none of these.

        A list of nothing but a name may have several.  `loosely`: whatever else the request says.
        """
        if loosely:
            rest = {member: value for member, value in rest.items() if member in self.kind.asked}
        names: list[str] = []
        if _binds(self.kind.asked, self._assumed | rest, names):
            return tuple(map(self._key, names))
        return ()

    def told(self, message: dict[str, Any]) -> str:
        """The key of the topic that a message tells of; empty: none of these."""
        for place, texts in self._marks:
            text = at(message, place)
            if not isinstance(text, str) or text not in texts:
                return ""
        name = at(message, self._name_at)
        return self._key(name) if isinstance(name, str) and name else ""

    def _key(self, name: str) -> str:
        key = self._keys.get(name)
        if key is None:
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()
            key = self._keys[name] = key_of(_filled(self.kind.asked, name))
        return key


def one_by_one(rest: dict[str, Any], lists: tuple[str, ...], name: str, most: int) -> list[dict[str, Any]]:
    """Requests with one element in each of the `lists` that together ask for the same; no more than `most`.

    An element that is an object has its own name at `name`, and brings its other members with it.
    """
    whole = [rest]
    for where in lists:
        whole = list(itertools.islice((single for each in whole for single in _spread(each, where, name)), most))
    return whole


def _spread(rest: dict[str, Any], where: str, name: str) -> Iterator[dict[str, Any]]:
    items = rest.get(where)
    if not isinstance(items, list):
        yield rest
        return
    for item in items:
        if isinstance(item, dict) and name in item:
            more = {member: value for member, value in item.items() if member != name}
            yield rest | more | {where: [item[name]]}
        else:
            yield rest | {where: [item]}


def key_of(topic: Any) -> str:
    """One text for equal topics."""
    return topic if isinstance(topic, str) else json.dumps(topic, sort_keys=True, separators=(",", ":"))


def at(value: Any, place: str) -> Any:
    """What stands at a place like ``data.0.seq``; None: nothing."""
    for name in place.split("."):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _binds(pattern: Any, value: Any, names: list[str]) -> bool:
    if pattern == ANY_NAME:
        names.append(value)
        return isinstance(value, str) and bool(value)
    if type(pattern) is not type(value):
        return False
    if isinstance(pattern, dict):
        return pattern.keys() == value.keys() and all(_binds(pattern[name], value[name], names) for name in pattern)
    if pattern == [ANY_NAME]:
        return bool(value) and all(_binds(ANY_NAME, each, names) for each in value)
    if isinstance(pattern, list):
        return len(pattern) == len(value) and all(map(_binds, pattern, value, itertools.repeat(names)))
    return bool(pattern == value)


def _filled(pattern: Any, name: str) -> Any:
    if isinstance(pattern, dict):
        return {member: _filled(inner, name) for member, inner in pattern.items()}
    if isinstance(pattern, list):
        return [_filled(inner, name) for inner in pattern]
    return name if pattern == ANY_NAME else pattern

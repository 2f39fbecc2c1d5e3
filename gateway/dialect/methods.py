"""Method tables: what is known of each method, read once from the data in ``methods/``.

Always true: the table decides by the exact name; a name outside it gets the strictest class and is
built anew each time, so callers cannot make the table grow; a pattern (``admin_*``) can only deny,
so nothing becomes repeatable unless it is listed by name; a denial holds for every spelling that some
node might take for the denied name (case, width, accents, invisible characters).
Why: all JSON-RPC is POST, so the method's name is the only thing that says what may be done twice.
Does not belong here: parameters (evm), and whether a caller may use a method (the edge's policy).
"""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

from gateway.model import Family, Method, RequestClass

LONGEST_NAME = 128  # characters; the longest name of any table has 49, and folding a name costs time
_FACTS = frozenset({"block", "cost", "cacheable"})


class MethodTable:
    """Methods by name, and denied patterns for names that are not listed."""

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        """From the ``groups`` of a data file.  Raises ValueError when they contradict each other."""
        self._methods: dict[str, Method] = {}
        self._prefixes: list[tuple[str, Method]] = []
        for group in groups:
            for name, facts in group["methods"].items():
                if name.endswith("*"):
                    self._add_prefix(name[:-1], group)
                elif name in self._methods:
                    raise ValueError(f"the method {name} is listed twice")
                else:
                    self._methods[name] = _method(name, group, facts)
        self._denied = {_folded(method.name): method for method in self._methods.values() if method.denied}

    def __len__(self) -> int:
        return len(self._methods)

    def __iter__(self) -> Iterator[Method]:
        return iter(self._methods.values())

    def __contains__(self, name: object) -> bool:
        return name in self._methods

    def get(self, name: str) -> Method:
        """The method of a name, in constant time; one outside the table has `known` False.  Never raises."""
        return self._methods.get(name) or self._unknown(name)

    def _unknown(self, name: str) -> Method:
        wire = json.dumps(name).encode()
        if len(name) > LONGEST_NAME:  # no method of any node: refused unread, since folding is not linear
            return Method(name, RequestClass.UNKNOWN, Family.OTHER, known=False, denied=True, wire=wire)
        folded = _folded(name)
        denied = self._denied.get(folded)
        if denied is None:
            denied = next((method for prefix, method in self._prefixes if folded.startswith(prefix)), None)
        if denied is not None:
            return Method(name, denied.request_class, denied.family, known=False, denied=True, wire=wire)
        return Method(name, RequestClass.UNKNOWN, Family.OTHER, known=False, wire=wire)

    def _add_prefix(self, prefix: str, group: dict[str, Any]) -> None:
        if not group.get("denied", False):
            raise ValueError(f"the pattern {prefix}* does not deny: what is not listed by name gets no other class")
        self._prefixes.append((_folded(prefix), _method(prefix, group, {})))


def _method(name: str, group: dict[str, Any], facts: dict[str, Any]) -> Method:
    if facts.keys() - _FACTS:
        raise ValueError(f"the method {name} has facts that mean nothing: {sorted(facts.keys() - _FACTS)}")
    return Method(
        name,
        RequestClass.named(group["class"]),
        Family(group["family"]),
        block_param=facts.get("block", -1),
        cost=facts.get("cost", 1),
        cacheable=facts.get("cacheable", group.get("cacheable", False)),
        denied=group.get("denied", False),
        wire=json.dumps(name).encode(),
    )


def _folded(name: str) -> str:
    """What is left of a name when case, width, accents, blanks and invisible characters are taken away.

    NFKD first and again after the case, because a folded character can decompose further; the
    combining marks that come loose are no letters and fall out with everything else that is none.
    """
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    return "".join(c for c in text if c.isalnum() or c == "_").casefold()


@functools.cache
def method_table(name: str) -> MethodTable:
    """The table of ``methods/<name>.json``, read once per process."""
    text = files("gateway.dialect").joinpath("methods", f"{name}.json").read_text("utf-8")
    return MethodTable(json.loads(text)["groups"])

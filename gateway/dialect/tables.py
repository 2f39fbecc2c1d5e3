"""Method tables: what is known of each method, read once from the data beside this file.

Always true: a method outside the table gets the strictest class, and is never stored, so callers
cannot make the table grow; a denial holds for every spelling of a name that some node might take for
the denied one; a prefix can only deny, so nothing becomes repeatable that is not listed by name.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from importlib.resources import files
from typing import Any

from gateway.model import Family, Method, RequestClass

LONGEST_NAME = 128
"""Characters.  No method of any node has half of them, and folding a longer name is not linear in its length."""


class MethodTable:
    """Methods by name, and denied prefixes for names that are not listed."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        """From the groups of a data file.  Raises ValueError when they contradict each other."""
        self._methods: dict[str, Method] = {}
        self._prefixes: list[tuple[str, Method]] = []
        for group in groups:
            for name, facts in group["methods"].items():
                method = _method(name.rstrip("*"), group, facts)
                if name.endswith("*"):
                    if not method.denied:
                        raise ValueError(f"the prefix {name} does not deny")
                    self._prefixes.append((_folded(name[:-1]), method))
                elif name in self._methods:
                    raise ValueError(f"the method {name} is listed twice")
                else:
                    self._methods[name] = method
        self._prefixes.sort(key=lambda item: -len(item[0]))
        denied = [method for method in self._methods.values() if method.denied]
        self._denied = {_folded(method.name): method for method in denied}

    def __len__(self) -> int:
        return len(self._methods)

    def __iter__(self) -> Any:
        return iter(self._methods.values())

    def get(self, name: str) -> Method:
        """The method of a name; an unknown one is built anew each time and has the strictest class."""
        return self._methods.get(name) or self._unknown(name)

    def _unknown(self, name: str) -> Method:
        wire = json.dumps(name).encode()
        if len(name) > LONGEST_NAME:
            return Method(name, RequestClass.UNKNOWN, Family.OTHER, known=False, denied=True, wire=wire)
        folded = _folded(name)
        denied = self._denied.get(folded)
        if denied is None:
            denied = next((method for prefix, method in self._prefixes if folded.startswith(prefix)), None)
        if denied is not None:
            return Method(name, denied.request_class, denied.family, known=False, denied=True, wire=wire)
        return Method(name, RequestClass.UNKNOWN, Family.OTHER, known=False, wire=wire)


def _method(name: str, group: dict[str, Any], facts: dict[str, Any]) -> Method:
    return Method(
        name,
        RequestClass.named(group["class"]),
        Family(group["family"]),
        block_param=facts.get("block", -1),
        cost=facts.get("cost", 1),
        denied=group.get("denied", False),
        answers_hash=facts.get("hash", False),
        examined=facts.get("examined", False),
        wire=json.dumps(name).encode(),
    )


def _folded(name: str) -> str:
    """Spellings that a lenient node might take for one name fall together.

    Case, width, accents, blanks and invisible characters are taken away.  Decomposed again after the
    case, because a folded character can decompose further (the Turkish capital I).
    """
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    return "".join(c for c in text if c.isalnum() or c in "_.")


@functools.cache
def method_table(name: str) -> MethodTable:
    """The table of a data file in ``gateway/dialect/methods``."""
    text = files("gateway.dialect").joinpath("methods", f"{name}.json").read_text("utf-8")
    return MethodTable(json.loads(text)["groups"])

"""Method tables: what is known of each method, read once from the data beside this file.

Always true: a method outside the table gets the strictest class, and is never stored, so callers
cannot make the table grow; a denial holds for every spelling of a name that some node might take for
the denied one.
"""

from __future__ import annotations

import functools
import json
import unicodedata
from importlib.resources import files
from typing import Any

from gateway.model import Family, Method, RequestClass


class MethodTable:
    """Methods by name, and prefixes for families of names."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self._methods: dict[str, Method] = {}
        self._prefixes: list[tuple[str, Method]] = []
        for group in groups:
            for name, facts in group["methods"].items():
                method = _method(name.rstrip("*"), group, facts)
                if name.endswith("*"):
                    self._prefixes.append((name[:-1], method))
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
        folded = _folded(name)
        denied = self._denied.get(folded)
        if denied is None:
            denied = next((method for prefix, method in self._prefixes if folded.startswith(_folded(prefix))), None)
        if denied is not None:
            return Method(
                name,
                denied.request_class,
                denied.family,
                cost=denied.cost,
                known=False,
                denied=denied.denied,
                wire=wire,
            )
        return Method(name, RequestClass.UNKNOWN, Family.OTHER, known=False, wire=wire)


def _method(name: str, group: dict[str, Any], facts: dict[str, Any]) -> Method:
    return Method(
        name,
        RequestClass.named(group["class"]),
        Family(group["family"]),
        block_param=facts.get("block", -1),
        cost=facts.get("cost", 1),
        cacheable=group.get("cacheable", False),
        denied=group.get("denied", False),
        wire=json.dumps(name).encode(),
    )


def _folded(name: str) -> str:
    """Spellings that a lenient node might take for one name fall together."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in text if c.isalnum() or c in "_.")


@functools.cache
def method_table(name: str) -> MethodTable:
    """The table of a data file in ``gateway/dialect/methods``."""
    text = files("gateway.dialect").joinpath("methods", f"{name}.json").read_text("utf-8")
    return MethodTable(json.loads(text)["groups"])

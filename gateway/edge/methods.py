"""The method policy: which methods callers may use at all.

Always true: the decoded name decides, so escapes and white space in the JSON change nothing; signing
and operator methods are denied unless the configuration allows them by name; a deny in the
configuration outranks an allow.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import MethodRefused
from gateway.model import Method


class MethodPolicy:
    """Patterns are exact names or prefixes ending in ``*``.  An empty `allow` allows all that is not denied."""

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        self._allow = _Patterns(allow)
        self._deny = _Patterns(deny)
        self._open = not allow
        self._good: set[str] = set()

    def require(self, method: Method) -> None:
        """Raise MethodRefused unless callers may use it."""
        name = method.name
        if name in self._good:
            return
        if self._deny.match(name) or not self._allowed(method):
            raise MethodRefused(f"the method {method.label} is not allowed here")
        if method.known:
            self._good.add(name)  # bounded by the method table

    def denies(self, name: str) -> bool:
        """The configuration names it among what is refused."""
        return self._deny.match(name)

    def _allowed(self, method: Method) -> bool:
        if method.denied:
            return self._allow.names(method.name)  # only by its full name: eth_* does not open eth_sign
        return self._open or self._allow.match(method.name)


class _Patterns:
    def __init__(self, patterns: Sequence[str]) -> None:
        self._names = frozenset(p for p in patterns if not p.endswith("*"))
        self._prefixes = tuple(p[:-1] for p in patterns if p.endswith("*"))

    def names(self, name: str) -> bool:
        return name in self._names

    def match(self, name: str) -> bool:
        return name in self._names or (bool(self._prefixes) and name.startswith(self._prefixes))

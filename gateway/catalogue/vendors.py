"""Vendor shorthands: ``alchemy://KEY`` on a route of a known chain becomes that vendor's URL.

Always true: no error text holds a key; a vendor or chain that is not in the table is a clear error,
never a guessed host.  The templates are in `vendors.json`, from the vendors' own endpoint pages; where
a vendor renames a host, its URL can always be written out.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import quote


@functools.cache
def _vendors() -> dict[str, dict[str, Any]]:
    table = json.loads(files("gateway.catalogue").joinpath("vendors.json").read_text("utf-8"))
    return {name: vendor for name, vendor in table.items() if name != "about"}


def is_shorthand(url: str) -> bool:
    """Whether the URL's scheme is a vendor's."""
    return url.partition("://")[0].lower() in _vendors()


def expand(url: str, chain: str, env: Mapping[str, str]) -> str:
    """The vendor's URL for a chain (its catalogue name).

    ``vendor://KEY``, ``vendor://`` (the key is in the vendor's variable), ``quicknode://NAME:KEY``.
    Raises ValueError with what to do; the text never holds the key.
    """
    scheme, _, rest = url.partition("://")
    vendor = _vendors().get(scheme.lower())
    if vendor is None:
        raise ValueError(f"unknown vendor {scheme!r}; there are {', '.join(sorted(_vendors()))}")
    chains: dict[str, str] = vendor["chains"]
    if chain not in chains:
        close = difflib.get_close_matches(chain, chains, 3, 0.5)
        hint = f"nearest: {', '.join(close)}" if close else f"for example {', '.join(list(chains)[:5])}"
        raise ValueError(f"{scheme}:// has no entry for the chain {chain!r} ({hint}); write the URL out instead")
    name, key = _name_and_key(rest.strip("/"))
    key = key or env.get(vendor["key_variable"], "")
    if not key:
        raise ValueError(f"{scheme}:// needs a key: write {scheme}://${{NAME}} or set {vendor['key_variable']}")
    if "name_variable" in vendor:
        fallback = vendor.get("default_name", "").format(chain=chains[chain])
        name = name or env.get(vendor["name_variable"], "") or fallback
        if not name:
            raise ValueError(f"{scheme}:// needs {scheme}://NAME:KEY, or {vendor['name_variable']} beside the key")
    return str(vendor["template"]).format(chain=chains[chain], key=quote(key, safe=""), name=quote(name, safe="-."))


def _name_and_key(rest: str) -> tuple[str, str]:
    """``NAME:KEY`` or ``NAME/KEY`` apart; a lone word is the key."""
    for mark in (":", "/"):
        if mark in rest:
            name, _, key = rest.partition(mark)
            return name, key
    return "", rest

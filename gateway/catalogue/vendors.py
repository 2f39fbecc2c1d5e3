"""Vendor shorthands: ``alchemy://KEY`` on a route of a known chain becomes that vendor's URL.

Always true: no error text holds a key; a vendor or chain that is not in the table is a clear error,
never a guessed host; nothing but a table's template and a checked name decides the host.
The facts in `vendors.json` come from the vendors' own pages and packages where they publish a list
(Infura's endpoints page, Alchemy's and Quicknode's SDKs, Ankr's chain pages, Chainstack's node pages),
else from the lists of open-source clients (the npm package evm-providers and the proxy eRPC; for WebSockets
of dRPC, Ankr and Chainstack, what open-source clients of theirs dial).  Where a
vendor renames a host, its URL can always be written out.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from gateway.catalogue.chains import find

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_KEY = re.compile(r"[A-Za-z0-9._~-]+")


@functools.cache
def _vendors() -> dict[str, dict[str, Any]]:
    table = json.loads(files("gateway.catalogue").joinpath("vendors.json").read_text("utf-8"))
    return {name: vendor for name, vendor in table.items() if name != "about"}


def expand(url: str, chain: str, env: Mapping[str, str]) -> str:
    """The vendor's URL for a chain (its name in the catalogue, an alias or its id).

    ``vendor://KEY``, or ``vendor://`` when the key is in the vendor's variable; where an endpoint has a
    name of its own, ``quicknode://NAME:KEY`` or ``chainstack://NAME/KEY``.
    Raises ValueError with what to do; the text never holds the key.
    """
    return _filled(url, chain, env, _template)


def expand_socket(url: str, chain: str, env: Mapping[str, str]) -> str:
    """The vendor's WebSocket for a chain; as `expand`, and with ValueError where none is known."""
    return _filled(url, chain, env, _socket_template)


def _filled(url: str, chain: str, env: Mapping[str, str], template_of: Callable[..., str]) -> str:
    """A template of the vendor's with everything in its place."""
    parts = _SCHEME.fullmatch(url.strip())
    scheme = parts[1].lower() if parts is not None else ""
    if parts is None or scheme not in _vendors():
        raise ValueError(_unknown_vendor(scheme))
    vendor = _vendors()[scheme]
    known = find(chain)
    chain = known.name if known is not None else chain
    name, key = _name_and_key(scheme, vendor, parts[2].strip("/"), env)
    template = template_of(scheme, vendor, chain, named=bool(name))
    return template.format(network=vendor["networks"].get(chain, ""), name=name, key=key)


def _socket_template(scheme: str, vendor: Mapping[str, Any], chain: str, *, named: bool) -> str:
    """The same for WebSockets; a chain whose HTTP URL breaks the vendor's rule has one only if it is listed."""
    if named and "named_ws" in vendor:
        return str(vendor["named_ws_urls"].get(chain, vendor["named_ws"]))
    exceptions: dict[str, str] = vendor.get("ws_urls", {})
    if chain in exceptions:
        return exceptions[chain]
    if chain in vendor.get("ws_networks", vendor["networks"]) and chain not in vendor.get("urls", {}):
        return str(vendor["ws"])
    raise ValueError(f"no WebSocket of {scheme} is known for the chain {chain}; write ws: wss://...")


def _template(scheme: str, vendor: Mapping[str, Any], chain: str, *, named: bool) -> str:
    """The URL's template for a chain.  ``{name}`` in the vendor's rule: every endpoint has a name."""
    if named and "named_url" in vendor:
        return str(vendor["named_urls"].get(chain, vendor["named_url"]))
    exceptions: dict[str, str] = vendor.get("urls", {})
    if chain in exceptions:
        return exceptions[chain]
    if chain in vendor["networks"]:
        return str(vendor["url"])
    if not chain:
        raise ValueError(f"{scheme}:// needs to know the chain: give the route a chain, or write the URL out")
    chains = sorted([*vendor["networks"], *exceptions], key=lambda name: name != "ethereum")  # else as in the table
    near = difflib.get_close_matches(chain, chains, 3, 0.5)
    hint = f"nearest: {', '.join(near)}" if near else f"for example {', '.join(chains[:5])}"
    raise ValueError(f"{scheme}:// has no entry for the chain {chain!r} ({hint}); write the URL out instead")


def _name_and_key(scheme: str, vendor: Mapping[str, Any], rest: str, env: Mapping[str, str]) -> tuple[str, str]:
    """The endpoint's name, if any, and the key; from the URL, else from the vendor's variables."""
    mark = re.search("[:/]", rest)
    name, key = (rest[: mark.start()], rest[mark.end() :]) if mark else ("", rest)
    form = vendor.get("name_form")
    if name and form is None:
        raise ValueError(f"{scheme}:// takes the key alone: {scheme}://${{NAME}}")
    variable, name_variable = vendor["key_variable"], vendor.get("name_variable", "")
    key = key or env.get(variable, "").strip()
    name = name or env.get(name_variable, "").strip()
    if not key:
        raise ValueError(f"{scheme}:// needs a key: write {scheme}://${{NAME}} or set {variable}")
    if not _KEY.fullmatch(key):
        raise ValueError(f"the key of {scheme}:// holds a character that no key has")
    if not name and "{name}" in vendor["url"]:
        raise ValueError(
            f"{scheme}:// needs the endpoint's name: write {scheme}://NAME:${{KEY}}, or set {name_variable}"
        )
    if name and not re.fullmatch(form or "", name):
        raise ValueError(f"{scheme}://NAME:${{KEY}} expects a name such as {vendor['name_example']} before the key")
    return name, key


def _unknown_vendor(scheme: str) -> str:
    there_are = ", ".join(sorted(_vendors()))
    return f"unknown vendor {scheme!r}; there are {there_are}" if scheme else f"expected VENDOR://KEY of {there_are}"

"""Rules between settings: names that must exist, must not clash, or must not stand together.

Always true: works on the file's data as it is, whatever is in it, so that these problems are told
together with all others; never raises; quotes names, never values that may be secret.
Does not belong here: what one value alone must be (scalars, sections).
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from gateway.catalogue.chains import find, suggest
from gateway.config.mistakes import did_you_mean
from gateway.config.yaml_nodes import Document, PathKey
from gateway.dialect.registry import NAMES
from gateway.dialect.tables import method_table
from gateway.dialect.venue import read_venue, venue_names
from gateway.model import READS

RESERVED = frozenset({"evm", "via", "prices", "status", "status.json", "livez", "readyz", "key", "metrics"})
"""First path segments that the gateway uses itself."""


def crosscheck(document: Document) -> None:
    """Add every problem between settings to the document."""
    data = mapping(document.data)
    routes = mapping(data.get("routes"))
    _names(document, routes)
    for name, route in routes.items():
        _chain(document, name, mapping(route))
        _venue(document, name, mapping(route))
        _consensus(document, name, mapping(route))
        _endpoints(document, name, mapping(route), mapping(data.get("providers")))
    _venue_hosts(document, routes)
    _references(document, data, routes)
    _listeners(document, data)
    _simulated(document, data)
    _browsers(document, data)
    _keys(document, data)


def mapping(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def entries(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


# --- routes -----------------------------------------------------------------------------------------


def _names(document: Document, routes: dict[str, Any]) -> None:
    taken: dict[str, str] = {}
    for name in routes:
        if name.lower() in RESERVED:
            document.tell(("routes", name), f"the name {name} is reserved; the gateway's own pages use it", key=True)
        taken[name] = name
    for name, route in routes.items():
        for index, alias in enumerate(entries(mapping(route).get("aliases"))):
            path = ("routes", name, "aliases", index)
            if not isinstance(alias, str):
                continue
            if alias.lower() in RESERVED:
                document.tell(path, f"the name {alias} is reserved; the gateway's own pages use it")
            elif alias in taken:
                document.tell(path, f"the name {alias} already belongs to the route {taken[alias]}")
            else:
                taken[alias] = name


def _chain(document: Document, name: str, route: dict[str, Any]) -> None:
    chain = route.get("chain")
    if not _names_one(chain):
        return
    path = ("routes", name, "chain")
    known = find(int(chain) if isinstance(chain, str) and chain.isdecimal() else chain)
    if known is None:
        near = suggest(str(chain))
        hint = f" (did you mean {near}?)" if near else "; leave it out and give chain_id"
        document.tell(path, f"unknown chain {str(chain)[:40]}{hint}")
        return
    chain_id = route.get("chain_id")
    if isinstance(chain_id, int) and not isinstance(chain_id, bool) and known.id is not None and chain_id != known.id:
        document.tell(("routes", name, "chain_id"), f"is {chain_id}, but the chain {chain} has the id {known.id}")


def _names_one(chain: Any) -> TypeGuard[str | int]:
    return isinstance(chain, (str, int)) and not isinstance(chain, bool)


def _venue_hosts(document: Document, routes: dict[str, Any]) -> None:
    """A host name means one venue, and a pattern would mean none while it let every name in."""
    taken: dict[str, PathKey] = {}
    for name, route in routes.items():
        for index, host in enumerate(entries(mapping(route).get("hosts"))):
            if not isinstance(host, str):
                continue
            path = ("routes", name, "hosts", index)
            if "*" in host:
                document.tell(path, "must be one name; patterns belong under the `hosts` of the file")
            first = taken.setdefault(host.lower(), path)
            if first != path:
                document.tell(path, f"the same host as {shown_path(first)}")


def _venue(document: Document, name: str, route: dict[str, Any]) -> None:
    venue, path = route.get("venue"), route.get("venue_file")
    if venue is None and path is None:
        for only in ("hosts", "streams"):
            if route.get(only):
                document.tell(("routes", name, only), "is for routes of a venue only")
        return
    if venue is not None and path is not None:
        document.tell(("routes", name, "venue_file"), "says which venue it is; leave `venue` out")
    for other in ("chain", "chain_id", "dialect", "consensus"):
        if route.get(other):
            document.tell(("routes", name, other), "does not stand together with a venue")
    if isinstance(path, str) and _openable(path):
        try:
            with open(path, "rb") as file:
                read_venue(file.read())
        except ValueError as problem:
            document.tell(("routes", name, "venue_file"), f"cannot be used: {problem}")
    elif isinstance(venue, str) and venue not in venue_names():
        hint = did_you_mean(venue, venue_names()) or f"; known are {', '.join(venue_names())}"
        document.tell(("routes", name, "venue"), f"unknown venue {venue[:40]}{hint}")


def _consensus(document: Document, name: str, route: dict[str, Any]) -> None:
    """Only reads are asked of several: anything else would be done several times."""
    chain = route.get("chain")
    known = find(int(chain) if isinstance(chain, str) and chain.isdecimal() else chain) if _names_one(chain) else None
    dialect = route.get("dialect") or (known.dialect if known is not None else "evm")
    if dialect not in NAMES or route.get("venue") or route.get("venue_file"):
        return  # told elsewhere
    table = method_table(dialect)
    for method in mapping(route.get("consensus")):
        path: PathKey = ("routes", name, "consensus", method)
        listed = table.get(str(method))
        if not listed.known:
            hint = did_you_mean(str(method), [each.name for each in table])
            document.tell(path, f"no method of {dialect} nodes that is known to be a read{hint}", key=True)
        elif listed.request_class not in READS:
            document.tell(path, f"{method} is no read: asked of several, it would be done several times", key=True)


def _endpoints(document: Document, name: str, route: dict[str, Any], providers: dict[str, Any]) -> None:
    ids: dict[str, int] = {}
    urls: dict[str, int] = {}
    sockets: dict[str, int] = {}
    for index, entry in enumerate(entries(route.get("endpoints"))):
        path: PathKey = ("routes", name, "endpoints", index)
        endpoint = entry if isinstance(entry, dict) else {"url": entry}
        given, url, provider = endpoint.get("id"), endpoint.get("url"), endpoint.get("provider")
        ws = endpoint.get("ws")
        if isinstance(given, str) and ids.setdefault(given, index) != index:
            document.tell((*path, "id"), f"the id {given} is already used by endpoints[{ids[given]}]")
        if isinstance(url, str) and urls.setdefault(url, index) != index and not endpoint.get("headers"):
            document.tell((*path, "url"), f"the same URL as endpoints[{urls[url]}]; it would not help when that fails")
        if (
            isinstance(ws, str)
            and "://" in ws
            and sockets.setdefault(ws, index) != index
            and not endpoint.get("headers")
        ):
            document.tell((*path, "ws"), f"the same URL as that of endpoints[{sockets[ws]}]")
        if str(ws).lower() not in ("none", "false") and str(endpoint.get("proxy")).lower().startswith("socks"):
            text = "a WebSocket cannot be reached through a SOCKS proxy, only through an HTTP proxy"
            document.tell((*path, "ws"), text)
        if isinstance(provider, str) and provider not in providers:
            hint = did_you_mean(provider, providers) or "; list it under providers"
            document.tell((*path, "provider"), f"unknown provider {provider}{hint}")
        _credentials(document, path, endpoint)
        _certificates(document, path, endpoint)


def _credentials(document: Document, path: PathKey, endpoint: dict[str, Any]) -> None:
    """One way to authorize: a second would silently win."""
    ways = ["basic"] if endpoint.get("basic") is not None else []
    ways += [f"headers.{n}" for n in mapping(endpoint.get("headers")) if n.lower() == "authorization"]
    if any(isinstance(url, str) and "@" in _authority(url) for url in (endpoint.get("url"), endpoint.get("ws"))):
        ways.append("the URL's user name")
    if endpoint.get("bearer") is not None:
        ways.append("bearer")  # last: the word behind it would be taken for a token, and masked
    if len(ways) > 1:
        document.tell(path, f"more than one Authorization: {' and '.join(ways)}; keep one")


def _certificates(document: Document, path: PathKey, endpoint: dict[str, Any]) -> None:
    tls = mapping(endpoint.get("tls"))
    url = endpoint.get("url")
    if not tls:
        return
    encrypted = str(endpoint.get("ws")).lower().startswith("wss://")
    if isinstance(url, str) and url.lower().startswith("http://") and not encrypted:
        document.tell((*path, "tls"), "has no effect on an http:// URL")
    ca, cert, key = (tls.get(name) for name in ("ca", "cert", "key"))
    if key is not None and cert is None:
        document.tell((*path, "tls", "key"), "needs cert, too")
    if isinstance(ca, str) and _openable(ca):
        try:
            ssl.create_default_context(cafile=ca)
        except (ssl.SSLError, OSError, ValueError):
            document.tell((*path, "tls", "ca"), "the file holds no certificate in PEM form")
    if isinstance(cert, str) and _openable(cert) and (key is None or (isinstance(key, str) and _openable(key))):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError):
            text = "certificate and key do not fit together, are not in PEM form, or need a passphrase"
            document.tell((*path, "tls", "cert"), text)


def _openable(path: str) -> bool:
    """Whether the file can be read; that it cannot is told elsewhere (scalars)."""
    try:
        with open(path, "rb"):
            return True
    except (OSError, ValueError):
        return False


# --- names that must exist ----------------------------------------------------------------------------


def _references(document: Document, data: dict[str, Any], routes: dict[str, Any]) -> None:
    default = data.get("default_route")
    if isinstance(default, str) and default not in routes:
        document.tell(("default_route",), f"unknown route {default}{did_you_mean(default, routes)}")
    for name, key in mapping(data.get("keys")).items():
        for index, route in enumerate(entries(mapping(key).get("routes"))):
            if isinstance(route, str) and route not in routes:
                path = ("keys", name, "routes", index)
                document.tell(path, f"unknown route {route}{did_you_mean(route, routes)}")


# --- listeners and callers ------------------------------------------------------------------------------


def _listeners(document: Document, data: dict[str, Any]) -> None:
    operations = mapping(data.get("operations"))
    listen = operations.get("listen")
    token_told = any(problem.path == ("operations", "token") for problem in document.problems)
    tokenless = operations.get("token") is None and not token_told
    if isinstance(listen, str) and ":" in listen and not is_loopback(listen) and tokenless:
        text = "is reachable from outside, so operations.token is required (or listen on 127.0.0.1)"
        document.tell(("operations", "listen"), text)
    taken: dict[str, PathKey] = {}
    for path, address in _addresses(data):
        first = taken.setdefault(address, path)
        if first != path and not address.endswith(":0"):
            document.tell(path, f"the same address as {shown_path(first)}")


def _addresses(data: dict[str, Any]) -> Iterator[tuple[PathKey, str]]:
    found: list[tuple[PathKey, Any]] = [
        (("listen",), data.get("listen", "127.0.0.1:4000")),
        (("operations", "listen"), mapping(data.get("operations")).get("listen", "127.0.0.1:4001")),
    ]
    for name, entry in mapping(data.get("simulated")).items():
        found.append((("simulated", name, "listen"), mapping(entry).get("listen")))
    for path, address in found:
        if isinstance(address, str):
            yield path, address


def is_loopback(listen: str) -> bool:
    """Whether ``host:port`` can be reached from this machine only."""
    host = listen.rpartition(":")[0].strip("[]").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _browsers(document: Document, data: dict[str, Any]) -> None:
    cors = mapping(data.get("cors"))
    if cors.get("credentials") not in (True, "true", "yes", "on"):
        return
    for path, origins in ((("origins",), data.get("origins")), (("cors", "origins"), cors.get("origins"))):
        for index, origin in enumerate(entries(origins)):
            if origin == "*":
                text = "'*' together with cors.credentials would let every web page use a visitor's credentials"
                document.tell((*path, index), text)


def _keys(document: Document, data: dict[str, Any]) -> None:
    seen: dict[str, str] = {}
    for name, entry in mapping(data.get("keys")).items():
        key = mapping(entry).get("key")
        if isinstance(key, str) and key and seen.setdefault(key, name) != name:
            document.tell(("keys", name, "key"), f"the same key as that of {seen[key]}")


# --- what is simulated ----------------------------------------------------------------------------------


def _simulated(document: Document, data: dict[str, Any]) -> None:
    block_times: dict[Any, tuple[str, Any]] = {}
    for name, entry in mapping(data.get("simulated")).items():
        if mapping(entry).get("venue") is not None:
            listen = mapping(entry).get("listen")
            if isinstance(listen, str) and listen.rpartition(":")[0] not in ("127.0.0.1", "localhost"):
                document.tell(("simulated", name, "listen"), "pretended exchanges listen on 127.0.0.1 only")
            for given in ("chain_id", "block_time", "latency", "client_version"):
                if given in mapping(entry):
                    document.tell(("simulated", name, given), "is about a chain, and this is a host of an exchange")
            continue
        chain_id, block_time = mapping(entry).get("chain_id", 31337), mapping(entry).get("block_time", 2.0)
        if isinstance(chain_id, int) and isinstance(block_time, (str, int, float)):
            first_name, first_time = block_times.setdefault(chain_id, (name, block_time))
            if str(first_time) != str(block_time):
                path = ("simulated", name, "block_time")
                document.tell(path, f"differs from that of {first_name}, which simulates the same chain")


def shown_path(path: PathKey) -> str:
    """``routes.ethereum.endpoints[0].url``"""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else str(part)
    return shown


def _authority(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""

"""Survey: what is secret in settings, and what is legal in them but unwise.

Always true: `secrets_of` misses no value that could be used by somebody else, and names no host, so
that logs stay readable; a warning quotes names only.
Does not belong here: what is wrong (crosscheck), masking texts (telemetry.redaction).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from gateway.catalogue.networks import labels_of
from gateway.config.crosscheck import is_loopback
from gateway.config.secret import Secret, SecretUrl
from gateway.config.settings import EndpointSettings, RouteSettings, Settings
from gateway.model import DOMAIN_LABELS

LONG = 16  # characters; a longer segment of a path, or value in a query, is taken for a key
LONG_IF_REFERENCED = 6  # the same in a URL that came from a variable as a whole


def secrets_of(settings: Settings) -> list[str]:
    """Every secret value in `settings`, for the redactor."""
    found: dict[str, None] = {}
    for value in _secrets(settings):
        if value:
            found[value] = None
    return list(found)


def _secrets(settings: Settings) -> Iterator[str]:
    for key in settings.keys.values():
        yield from _values(key.key)
    if settings.operations.token is not None:
        yield from _values(settings.operations.token)
    for route in settings.routes.values():
        for endpoint in route.endpoints:
            yield from _endpoint_secrets(endpoint)
        for stream in route.streams:
            yield from _url_secrets(stream.url)
    traces = settings.telemetry.traces
    for _, value in traces.headers:
        yield value
    if traces.endpoint is not None:
        yield from _url_secrets(SecretUrl(traces.endpoint))


def _endpoint_secrets(endpoint: EndpointSettings) -> Iterator[str]:
    yield from _url_secrets(endpoint.url)
    if isinstance(endpoint.ws, SecretUrl):
        yield from _url_secrets(endpoint.ws)
    for value in (*endpoint.headers.values(), *endpoint.query.values()):
        yield from _values(value)
    if endpoint.bearer is not None:
        yield from _values(endpoint.bearer)
    if endpoint.basic is not None:
        yield from _values(endpoint.basic.password)
        yield f"{endpoint.basic.user}:{endpoint.basic.password.reveal()}"
    if endpoint.proxy is not None:
        yield from _url_secrets(endpoint.proxy)


def _values(secret: Secret) -> Iterator[str]:
    yield secret.reveal()
    yield from secret.parts


def _url_secrets(url: SecretUrl) -> Iterator[str]:
    text = url.reveal()
    parts = urlsplit(text)
    if parts.password:
        yield from (parts.password, unquote(parts.password), f"{parts.username}:{parts.password}")
    elif parts.username and len(parts.username) >= LONG_IF_REFERENCED:
        yield from (parts.username, unquote(parts.username))
    whole = any("://" in part for part in url.parts)
    long = LONG_IF_REFERENCED if whole else LONG
    pieces = parts.path.split("/") + [value for _, value in parse_qsl(parts.query, keep_blank_values=True)]
    for piece in pieces:
        if len(piece) >= long and (not whole or len(piece) >= LONG or any(c.isdigit() for c in piece)):
            yield from (piece, unquote(piece))
    credentials = parts.netloc.rpartition("@")[0]
    for part in url.parts:
        if part and "://" not in part and any(form in credentials + parts.path + parts.query for form in _forms(part)):
            yield part


def _forms(part: str) -> tuple[str, str]:
    return part, quote(part, safe="")


# --- warnings -----------------------------------------------------------------------------------------


def warnings_of(settings: Settings) -> list[str]:
    """What works but will disappoint, each as a sentence."""
    warnings = []
    for name, route in settings.routes.items():
        warnings += [f"routes.{name}: {text}" for text in (*_shared(settings, route), *_votes(route))]
        for endpoint in route.endpoints:
            for url in (endpoint.url, endpoint.ws):
                parts = urlsplit(url.reveal()) if isinstance(url, SecretUrl) else urlsplit("")
                if parts.scheme not in ("http", "ws") or not _is_public(parts.hostname or ""):
                    continue
                text = f"plain {parts.scheme} to a public host: anybody on the way can read and change its answers"
                warnings.append(f"routes.{name}: endpoint {endpoint.id}: {text}")
    if not is_loopback(settings.listen) and (not settings.keys or settings.allow_anonymous):
        warnings.append("listen: reachable from outside and open to everybody; give callers keys")
    literal = [f"keys.{name}.key" for name, key in settings.keys.items() if not key.key.parts]
    if settings.operations.token is not None and not settings.operations.token.parts:
        literal.append("operations.token")
    for name, route in settings.routes.items():
        for endpoint in route.endpoints:
            secrets = (endpoint.bearer, endpoint.basic.password if endpoint.basic else None)
            if any(secret is not None and not secret.parts for secret in secrets):
                literal.append(f"routes.{name}: endpoint {endpoint.id}")
    warnings += [f"{place}: a secret stands in the file; write ${{NAME}} or file:/path" for place in literal]
    return warnings


def _shared(settings: Settings, route: RouteSettings) -> Iterator[str]:
    """What all endpoints of a route have in common, and so fail with."""
    if len(route.endpoints) < 2:
        yield "has one endpoint only; nothing can take over when it fails"
        return
    hosts = {urlsplit(endpoint.url.reveal()).hostname or "" for endpoint in route.endpoints}
    if len(hosts) == 1 and not _is_local(next(iter(hosts))):
        yield f"all endpoints are on the host {hosts.pop()}, and fail together"
    providers = {endpoint.provider for endpoint in route.endpoints}
    if len(providers) == 1 and None not in providers:
        yield f"all endpoints belong to the provider {providers.pop()}, and fail together"
        return
    for label in DOMAIN_LABELS:
        values = {_label(settings, endpoint, label) for endpoint in route.endpoints}
        if len(values) == 1 and None not in values:
            yield f"all endpoints have the same {label}, {values.pop()}, and fail together"


def _votes(route: RouteSettings) -> Iterator[str]:
    """What methods under consensus cost, and those that can never be answered."""
    providers = len({endpoint.provider or endpoint.id for endpoint in route.endpoints})
    for method, wanted in route.consensus.items():
        if providers < wanted.agree:
            yield f"consensus on {method} needs {wanted.agree} providers that agree, and there are {providers}"
        else:
            yield f"consensus on {method} makes {min(wanted.n, providers)} paid calls of each"


def _label(settings: Settings, endpoint: EndpointSettings, label: str) -> str | None:
    provider = settings.providers.get(endpoint.provider) if endpoint.provider else None
    value = getattr(endpoint, label) or (getattr(provider, label) if provider is not None else None)
    if not value and settings.domains.infer:
        value = labels_of([urlsplit(endpoint.url.reveal()).hostname or ""]).get(label)
    return str(value) if value else None


def _is_local(host: str) -> bool:
    return is_loopback(f"{host}:0")


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.lower().endswith(
            (".local", ".internal", ".localhost", ".lan", ".test", ".home.arpa")
        )

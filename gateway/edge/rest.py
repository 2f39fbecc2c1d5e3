"""Requests to venues over HTTP: host, key and method policy first, then byte for byte through.

Always true: method, target, header values and body reach the venue as they were sent, and its status,
headers and body come back as they came; hop-by-hop fields (RFC 9110 section 7.6.1), our own (``x-seawall-*``)
and what proxies say of those behind them stay here; credentials in headers are for the venue and mean nothing
here; a failure of ours is a 502, 503 or 504 with a reason, never a 4xx, because bots take those for the venue's
word on their order.
Does not belong here: which venue it is (venues), and everything behind the edge (upstream/venues/forward).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.clock import Clock
from gateway.dialect.places import decoded, found_at
from gateway.dialect.venue_requests import VenueCall
from gateway.edge.access import Caller
from gateway.edge.calls import MAX_TIMEOUT, never, seconds
from gateway.edge.headers import JSON, execution, provenance, retry_after
from gateway.edge.observer import Observer
from gateway.edge.rpc import Table
from gateway.edge.venues import Located, VenueTarget
from gateway.errors import AttemptError, CallerError, CallerLeft, GatewayError, MethodRefused, error_data
from gateway.model import Method
from gateway.upstream.venues.forward import Forwarder
from gateway.upstream.venues.forwarded import Forwarded

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"expect", b"host",
        # who is behind us is not the venue's business, and a caller must not make it count for another address
        b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto",
        b"x-forwarded-server", b"x-real-ip",
    }
)  # fmt: skip
_NOT_BACK = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer", b"transfer-encoding",
     b"upgrade", b"content-length"}
)  # fmt: skip
OURS = b"x-seawall-"
KEY_HEADER = b"x-seawall-key"
MOST_REWRITTEN = 1_000_000  # bytes of an answer that is searched for the name of a WebSocket; it is a short list
_BODILESS = (204, 304)


class RestEdge:
    """Carries requests to venues.  One per gateway."""

    def __init__(self, forwarder: Forwarder, clock: Clock, observer: Observer) -> None:
        self._forwarder = forwarder
        self._clock = clock
        self._observer = observer

    async def handle(self, table: Table, located: Located, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One request to its answer."""
        headers = scope["headers"]
        wish = Wish(headers)
        venue = located.venue
        route = venue.route
        verb = scope["method"].encode()
        origin = wish.origin
        try:
            if verb == b"OPTIONS" and wish.preflight is not None:
                knock(table, wish)
                await _send_preflight(send, table, wish)
                return
            caller = admit(table, located, wish)
            caller.require(route.name, 1, self._clock())
            body = (await receive()).get("body", b"")
            call = route.requests.call(verb, located.target, headers, body)
            _require(venue, call)
        except CallerError as error:
            self._observer.refused(error.reason)
            await refuse(send, error, table.origins.headers(origin))
            return
        started_at = self._clock()
        timeout = seconds(wish.timeout) if wish.timeout is not None else None
        deadline_for = route.deadline(call.request_class)
        connection = scope["extensions"].get("seawall.connection")
        names = scope["extensions"].get("seawall.names")
        rewritten = call.path in route.venue.rewrite
        head = head_lines(names, headers, len(body), wish, rewritten)
        trail = self._observer.trail(wish.traceparent)
        route.stats.inflight += 1
        try:
            answer = await self._forwarder.handle(
                route,
                call,
                head,
                started_at + (min(timeout, MAX_TIMEOUT) if timeout is not None else deadline_for),
                caller.key_name or call.account or _address(scope),
                (lambda: connection.left) if connection is not None else never,
            )
        finally:
            route.stats.inflight -= 1
        self._observer.forwarded(route, call, answer, started_at, trail)
        if rewritten and answer.error is None:
            _point_here(answer, route.venue.rewrite[call.path], located, wish.host)
        await self._reply(table, answer, origin, verb, send)

    async def _reply(self, table: Table, answer: Forwarded, origin: bytes | None, verb: bytes, send: Send) -> None:
        headers = self._said(table, answer)
        ours = table.origins.headers(origin) if origin is not None else []
        headers += ours
        error = answer.error
        if error is not None:
            headers += retry_after(error)
            # Who left may have closed its own side only, and reads on: a 4xx would be taken for the venue's word.
            status = error.http_status if not isinstance(error, CallerLeft) else 503
            await _send(send, status, [JSON, *headers], encode_problem(error))
            return
        status, stream, body = answer.status, answer.stream, answer.body
        length = None
        gone = named_by_connection(answer.headers)
        for item in answer.headers:
            name = item[0].lower()
            if name == b"content-length":
                length = item[1]
            elif name in _NOT_BACK or name in gone or name.startswith(OURS):
                continue
            elif not ours or not name.startswith(b"access-control-"):  # browsers refuse two answers to who may ask
                headers.append(item)
        if stream is None and verb != b"HEAD" and status not in _BODILESS:
            length = b"%d" % len(body)
        if length is not None:
            headers.append((b"content-length", length))
        await send({"type": "http.response.start", "status": status, "headers": headers, "bare": True})
        if stream is None:
            await send({"type": "http.response.body", "body": body})
            return
        try:
            async for piece in stream:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except AttemptError:
            connection_cut = RuntimeError("the venue broke off inside its answer")
            raise connection_cut from None
        finally:
            stream.close()
        await send({"type": "http.response.body", "body": b""})

    @staticmethod
    def _said(table: Table, answer: Forwarded) -> list[tuple[bytes, bytes]]:
        """Our own words about an answer.  What became of a write is always told."""
        headers = execution(answer)
        if answer.found_by:
            headers.append((b"x-seawall-reconcile", answer.found_by.encode("ascii", "replace")))
        if table.answer_headers:
            provenance(answer, headers)
            if answer.shared:
                headers.append((b"x-seawall-cache", answer.shared.encode()))
        return headers


class Wish:
    """What the headers of a request say to us, read in one pass."""

    __slots__ = (
        "chunked",
        "connection",
        "fetch_site",
        "framed",
        "host",
        "key",
        "origin",
        "preflight",
        "timeout",
        "traceparent",
        "wanted",
    )

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.host = b""
        self.key = self.origin = self.fetch_site = self.timeout = self.traceparent = None
        self.preflight = self.wanted = None
        self.connection: frozenset[bytes] = frozenset()
        self.framed = self.chunked = False
        for name, value in headers:
            if name == b"host":
                self.host = value
            elif name == b"content-length":
                self.framed = True
            elif name == b"transfer-encoding":
                self.chunked = True
            elif name == b"connection":
                self.connection |= _tokens(value)
            elif name == b"origin":
                if from_browser(value):
                    self.origin = value
            elif name == b"sec-fetch-site":
                self.fetch_site = value
            elif name == b"traceparent":
                self.traceparent = value
            elif name == KEY_HEADER:
                self.key = value
            elif name == b"x-seawall-timeout":
                self.timeout = value
            elif name == b"access-control-request-method":
                self.preflight = value
            elif name == b"access-control-request-headers":
                self.wanted = value


def admit(table: Table, located: Located, wish: Wish) -> Caller:
    """Who asks.  Raises CallerError for one that may not come in."""
    knock(table, wish)
    return table.callers.identify(key_of(located, wish))


def knock(table: Table, wish: Wish) -> None:
    """Raise CallerError for a name that is not ours, or a browser page that may not ask."""
    table.hosts.require(wish.host)
    if wish.origin is not None or wish.fetch_site is not None:
        table.origins.require(wish.origin, wish.fetch_site)


def key_of(located: Located, wish: Wish) -> bytes | None:
    """The key for us: in the path, or in a header of ours."""
    return located.key if located.key is not None else wish.key


def from_browser(origin: bytes) -> bool:
    """Browsers send a scheme and a host, or ``null``; ccxt sends any proxy a made-up word."""
    return b"://" in origin or origin == b"null"


def head_lines(
    names: list[bytes] | None, headers: list[tuple[bytes, bytes]], size: int, wish: Wish, plain: bool
) -> bytes:
    """The caller's header lines as they go out.  `names` are the names as written; `plain`: ask for no packing."""
    lines = []
    gone = wish.connection
    for position, (name, value) in enumerate(headers):
        if name in HOP_BY_HOP or name in gone or name.startswith(OURS):
            continue
        if name == b"origin" and not from_browser(value):
            continue  # meant for the proxy that `proxyUrl` names
        if plain and name == b"accept-encoding":
            continue
        lines.append(b"%b: %b\r\n" % (names[position] if names is not None else name, value))
    if (size or wish.chunked) and not wish.framed:
        lines.append(b"Content-Length: %d\r\n" % size)
    return b"".join(lines)


def named_by_connection(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The fields that an answer's Connection names: for this hop only."""
    found: frozenset[bytes] = frozenset()
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection":
            found |= _tokens(value)
    return found


_KEPT = frozenset({b"close", b"keep-alive", b"", b"content-length"})
"""Without its length a body would be taken for the next request: it stays, whatever Connection says."""


def _tokens(value: bytes) -> frozenset[bytes]:
    return frozenset(token.strip().lower() for token in value.split(b",")) - _KEPT


def encode_problem(error: GatewayError) -> bytes:
    """A failure of ours, for a REST caller."""
    return json.dumps({"error": {"message": error.message, **error_data(error)}}).encode()


def _require(venue: VenueTarget, call: VenueCall) -> None:
    """The method policy, by the name of a listed call, or by what was asked for and by what that may be meant for."""
    method, policy = call.method, venue.methods
    if method.known:
        policy.require(method)
        return
    asked = f"{call.verb.decode('ascii', 'replace')} {call.path}"
    try:
        policy.require(Method(asked, method.request_class, method.family, known=False))
    except MethodRefused:
        raise MethodRefused("this call is not allowed here") from None
    if any(policy.denies(like.name) for like in venue.route.requests.likenesses(call)):
        raise MethodRefused("this call is not allowed here")


def _point_here(answer: Forwarded, place: str, located: Located, host: bytes) -> None:
    """Have an answer that names a WebSocket name ours, or callers would go around us."""
    found = found_at(decoded(answer.body, MOST_REWRITTEN), place)
    if not isinstance(found, str) or "://" not in found:
        return
    _, _, rest = found.partition("://")
    path = rest[rest.find("/") :] if "/" in rest else "/"
    base = f"ws://{host.decode('latin-1')}"
    if located.authority:
        base += f"{located.prefix.decode('latin-1')}{found}"
    else:
        base += located.prefix.decode("latin-1") + (path if path != "/" else "/")
    answer.body = answer.body.replace(json.dumps(found).encode(), json.dumps(base).encode(), 1)


def _address(scope: dict[str, Any]) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def refuse(send: Send, error: CallerError, headers: list[tuple[bytes, bytes]]) -> None:
    """The answer to a request that may not come in."""
    await _send(send, error.http_status, [JSON, *headers, *retry_after(error)], encode_problem(error))


async def _send_preflight(send: Send, table: Table, wish: Wish) -> None:
    """A browser asks whether a page may ask.  It may send what it names: which headers a venue reads, only it knows."""
    headers = [(b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"), *table.origins.preflight(wish.origin)]
    told = {
        b"access-control-allow-methods": b"GET, HEAD, POST, PUT, PATCH, DELETE",
        b"access-control-allow-headers": wish.wanted,
    }
    headers = [(name, told.get(name) or value) for name, value in headers]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

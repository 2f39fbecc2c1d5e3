"""JSON-RPC over HTTP: a body in, calls through dispatch, an answer out.

Always true: items of a batch travel separately and at the same time and are answered in order; one
bad item spoils no other; ids go back byte for byte; a notification gets no answer; results pass as
the bytes that came; nothing reaches dispatch before host, origin, key, route, budget and method
policy have agreed.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.clock import Clock
from gateway.dialect.jsonrpc import Request, decode, encode_batch, encode_error
from gateway.edge.access import Caller, Callers, Hosts, Origins
from gateway.edge.calls import Asked, Calls, RpcRoute, never, seconds
from gateway.edge.headers import JSON, execution, provenance, retry_after
from gateway.edge.observer import Observer
from gateway.edge.venues import Venues
from gateway.errors import CallerError, GatewayError, MalformedCall, UnknownRoute
from gateway.limits import EdgeLimits, GzipSettings
from gateway.upstream.calls.answers import Answer

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

GZIP = (b"content-encoding", b"gzip")


class Table:
    """Everything that a reload replaces, as one value: swapped by one assignment."""

    __slots__ = ("answer_headers", "by_path", "callers", "gzip", "hosts", "limits", "origins", "routes", "venues")

    def __init__(
        self,
        routes: list[RpcRoute],
        *,
        default: str | None,
        callers: Callers,
        hosts: Hosts,
        origins: Origins,
        limits: EdgeLimits,
        gzip: GzipSettings,
        answer_headers: bool,
        venues: Venues | None = None,
    ) -> None:
        self.routes = routes
        self.callers = callers
        self.hosts = hosts
        self.origins = origins
        self.limits = limits
        self.gzip = gzip
        self.answer_headers = answer_headers
        self.venues = venues or Venues()
        self.by_path: dict[str, RpcRoute] = {}
        for item in routes:
            for name in (item.route.name, *item.route.aliases):
                self.by_path[f"/{name}"] = item
            if item.route.chain_id is not None:
                self.by_path.setdefault(f"/evm/{item.route.chain_id}", item)
            if item.route.name == default or (len(routes) == 1 and not self.venues):
                self.by_path["/"] = item

    def find(self, path: str) -> tuple[RpcRoute | None, bytes | None]:
        """The route of a path, and the key if the path carries one (``/key/<key>/<route>``)."""
        found = self.by_path.get(path)
        if found is not None:
            return found, None
        if path.startswith("/key/"):
            key, _, rest = path[5:].partition("/")
            return self.by_path.get("/" + rest.rstrip("/")), key.encode()
        return self.by_path.get(path.rstrip("/") or "/"), None


class Ask:
    """What the headers of one request say, read in one pass."""

    __slots__ = (
        "api_key",
        "authorization",
        "encoding",
        "fetch_site",
        "gzip",
        "host",
        "origin",
        "timeout",
        "traceparent",
    )

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.host = b""
        self.origin = self.fetch_site = self.authorization = self.api_key = None
        self.encoding = self.timeout = self.traceparent = None
        self.gzip = False
        for name, value in headers:
            if name == b"host":
                self.host = value
            elif name == b"accept-encoding":
                self.gzip = b"gzip" in value and b"gzip;q=0" not in value.replace(b" ", b"")
            elif name == b"authorization":
                self.authorization = value
            elif name == b"x-api-key":
                self.api_key = value
            elif name == b"origin":
                self.origin = value
            elif name == b"sec-fetch-site":
                self.fetch_site = value
            elif name == b"traceparent":
                self.traceparent = value
            elif name == b"x-seawall-timeout":
                self.timeout = value
            elif name == b"content-encoding":
                self.encoding = value

    def asked(self, scope: dict[str, Any]) -> Asked:
        """What is wished for the calls of this request."""
        connection = scope["extensions"].get("seawall.connection")
        gone = connection.gone if connection is not None else never
        if self.timeout is None:
            return Asked(None, self.traceparent, gone, scope["client"])
        return self.wished(gone, scope["client"])

    def wished(self, gone: Callable[[], bool], client: tuple[str, int] | None) -> Asked:
        """The same of a caller that `gone` knows of, at the address of `client`."""
        return Asked(seconds(self.timeout) if self.timeout is not None else None, self.traceparent, gone, client)

    def admitted(self, table: Table, path: str) -> tuple[RpcRoute, Caller, bytes | None]:
        """Whom this request is for, from whom, and by which key.  Raises CallerError for one that may not come in."""
        table.hosts.require(self.host)
        if self.origin is not None or self.fetch_site is not None:
            table.origins.require(self.origin, self.fetch_site)
        target, path_key = table.find(path)
        key = self.key(path_key)
        caller = table.callers.identify(key)
        if target is None:
            raise UnknownRoute("there is no such route; GET /status.json lists them")
        return target, caller, key

    def key(self, in_path: bytes | None) -> bytes | None:
        """The key presented: path, then X-API-Key, then Authorization: Bearer."""
        if in_path is not None:
            return in_path
        if self.api_key is not None:
            return self.api_key
        if self.authorization is not None and self.authorization[:7].lower() == b"bearer ":
            return self.authorization[7:].strip()
        return None


class RpcEdge:
    """The hot path's ASGI callable, without framework objects."""

    def __init__(self, table: Table, calls: Calls, clock: Clock, observer: Observer) -> None:
        self.table = table
        self._calls = calls
        self._clock = clock
        self._observer = observer

    async def handle(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One POST.  Every refusal is a JSON-RPC error with its HTTP status."""
        table = self.table
        ask = Ask(scope["headers"])
        try:
            target, caller, _ = ask.admitted(table, scope["path"])
            if ask.encoding is not None and ask.encoding.lower() != b"identity":
                raise MalformedCall("compressed request bodies are not accepted")
            body = (await receive()).get("body", b"")
            decoded = decode(body, table.limits.batch_items, table.limits.depth)
            items = len(decoded) if isinstance(decoded, list) else 1
            caller.require(target.route.name, items, self._clock())
        except CallerError as error:
            self._observer.refused(error.reason)
            await self._refuse(send, ask, error)
            return
        if isinstance(decoded, list):
            await self._batch(target, decoded, ask, caller, scope, send)
        else:
            await self._single(target, decoded, ask, caller, scope, send)

    # --- single -----------------------------------------------------------------------------------

    async def _single(
        self, target: RpcRoute, request: Request, ask: Ask, caller: Caller, scope: dict[str, Any], send: Send
    ) -> None:
        answer = await self._calls.answer(target, request, ask.asked(scope), caller)
        if request.id is None:
            if answer.stream is not None:
                answer.stream.close()
            await self._send(send, 204, [], b"")
            return
        headers = self._headers(answer, ask)
        if answer.stream is not None:
            await self._stream(send, headers, ask, [(answer, request.id)], b"", b"")
            return
        await self._finish(send, headers, ask, answer.encode(request.id))

    # --- batch ------------------------------------------------------------------------------------

    async def _batch(
        self,
        target: RpcRoute,
        batch: list[Request | GatewayError],
        ask: Ask,
        caller: Caller,
        scope: dict[str, Any],
        send: Send,
    ) -> None:
        asked = ask.asked(scope)
        answers = await asyncio.gather(*(self._calls.item(target, item, asked, caller) for item in batch))
        wanted = []
        for answer, item in zip(answers, batch, strict=True):
            if not isinstance(item, Request) or item.id is not None:
                wanted.append((answer, item.id if isinstance(item, Request) else b"null"))
            elif answer.stream is not None:
                answer.stream.close()  # a notification: nobody reads it
        headers = [JSON, *self.table.origins.headers(ask.origin)]
        if not wanted:
            await self._send(send, 204, [], b"")
        elif any(answer.stream is not None for answer, _ in wanted):
            await self._stream(send, headers, ask, [(a, i or b"null") for a, i in wanted], b"[", b"]")
        else:
            await self._finish(send, headers, ask, encode_batch([a.encode(i or b"null") for a, i in wanted]))

    # --- sending ----------------------------------------------------------------------------------

    def _headers(self, answer: Answer, ask: Ask) -> list[tuple[bytes, bytes]]:
        headers = [JSON]
        if self.table.answer_headers:
            provenance(answer, headers)
            if answer.execution is not None:
                headers += execution(answer)
        if answer.error is not None:
            headers += retry_after(answer.error)
        if ask.origin is not None:
            headers += self.table.origins.headers(ask.origin)
        return headers

    async def _finish(self, send: Send, headers: list[tuple[bytes, bytes]], ask: Ask, body: bytes) -> None:
        gzip = self.table.gzip
        if ask.gzip and gzip.enabled and len(body) >= gzip.min_bytes:
            packer = zlib.compressobj(gzip.level, zlib.DEFLATED, 31)
            body = packer.compress(body) + packer.flush()
            headers += [GZIP, (b"vary", b"accept-encoding")]
        await self._send(send, 200, headers, body)

    @staticmethod
    async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if status != 204:
            headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(
        self,
        send: Send,
        headers: list[tuple[bytes, bytes]],
        ask: Ask,
        answers: list[tuple[Answer, bytes]],
        opening: bytes,
        closing: bytes,
    ) -> None:
        """Answers of which some are streams, in order.  A stream that breaks cuts the caller off."""
        packer = None
        if ask.gzip and self.table.gzip.enabled:
            packer = zlib.compressobj(self.table.gzip.level, zlib.DEFLATED, 31)
            headers += [GZIP, (b"vary", b"accept-encoding")]

        async def put(piece: bytes) -> None:
            if packer is not None:
                piece = packer.compress(piece)
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await put(opening)
            for number, (answer, caller_id) in enumerate(answers):
                if number:
                    await put(b",")
                if answer.stream is None:
                    await put(answer.encode(caller_id))
                else:
                    async for piece in answer.stream:
                        await put(piece)
            await put(closing)
        finally:
            for answer, _ in answers:
                if answer.stream is not None:
                    answer.stream.close()
        await send({"type": "http.response.body", "body": packer.flush() if packer is not None else b""})

    async def _refuse(self, send: Send, ask: Ask, error: CallerError) -> None:
        last = retry_after(error) or [(b"connection", b"close")]  # who is to come back may keep its connection
        headers = [JSON, *self.table.origins.headers(ask.origin), *last]
        await self._send(send, error.http_status, headers, encode_error(None, error))

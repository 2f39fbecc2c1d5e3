"""The public application: JSON-RPC and requests to venues by the short way, everything else by the pages.

Always true: the hot path creates no framework object (Starlette's Request and Response cost as much
as the whole proxying); Host and Origin are checked on every way in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.dialect.jsonrpc import encode_error
from gateway.edge.headers import JSON
from gateway.edge.rest import RestEdge, refuse
from gateway.edge.rpc import RpcEdge
from gateway.errors import CallerError

Pages = Callable[..., Awaitable[None]]


class PublicApp:
    """The ASGI callable of the public listener."""

    def __init__(self, rpc: RpcEdge, rest: RestEdge, pages: Pages) -> None:
        self._rpc = rpc
        self._rest = rest
        self._pages = pages

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        table = self._rpc.table
        if table.venues:
            try:
                located = table.venues.locate(scope["extensions"]["seawall.target"], _host(scope))
            except CallerError as error:
                await refuse(send, error, [])
                return
            if located is not None:
                await self._rest.handle(table, located, scope, receive, send)
                return
        if scope["method"] == "POST":
            await self._rpc.handle(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        try:
            table.hosts.require(headers.get(b"host", b""))
            table.origins.require(origin, None)
        except CallerError as error:
            await _answer(send, error.http_status, [JSON, (b"connection", b"close")], encode_error(None, error))
            return
        if scope["method"] == "OPTIONS":
            await _answer(send, 204, [(b"allow", b"POST, OPTIONS"), *table.origins.preflight(origin)], b"")
            return
        await self._pages(scope, receive, send)


def _host(scope: dict[str, Any]) -> bytes:
    return next((value for name, value in scope["headers"] if name == b"host"), b"")


async def _answer(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    if status != 204:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

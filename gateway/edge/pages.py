"""What is served beside JSON-RPC: liveness, readiness and status for callers; metrics, explain and
drain for operators.  Owner of starlette.

Always true: nothing here shows a URL or a key; the operations application asks for its token on
every path but /livez, when one is configured; without one it answers no browser page of another
origin, and no name that was only made to point here; a page is made of the same state that chooses
endpoints.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route as Path

from gateway.clock import Clock, monotonic
from gateway.edge.access import Hosts
from gateway.errors import UnknownHost


class House(Protocol):
    """What the pages ask of the assembled gateway."""

    def status(self) -> dict[str, Any]: ...

    def chains(self) -> list[str]: ...

    def readiness(self) -> tuple[bool, list[str]]: ...

    def explain(self, route: str, method: str) -> dict[str, Any] | None: ...

    def drain(self, route: str, endpoint: str, out: bool) -> bool: ...

    def metrics(self, accept: str) -> tuple[bytes, str]: ...


NO_STORE = {"cache-control": "no-store"}
SHOWN_FOR = 0.5  # seconds that strangers see the same report: with hundreds of endpoints it takes tens of ms to make


def public_pages(house: House, clock: Clock = monotonic) -> Starlette:
    """GET pages of the public listener."""

    async def not_found(request: Request, _: Exception) -> Response:
        example = next(iter(house.chains()), "ROUTE")
        text = f"POST JSON-RPC to /{example}; GET /status.json shows the routes\n"
        return PlainTextResponse(text, 405 if request.method == "GET" else 404, {"allow": "POST, OPTIONS"})

    return Starlette(
        routes=[
            Path("/livez", _livez),
            Path("/readyz", _readyz(house)),
            Path("/status.json", _shared_status(house, clock)),
        ],
        exception_handlers={404: not_found, 405: not_found},
    )


def operations_pages(house: House, token: str | None, hosts: Callable[[], Hosts]) -> Starlette:
    """The operations listener: everything above, metrics, explain and drain.  `hosts`: whom it answers for."""
    guard = Middleware(_TokenGuard, token=token) if token else Middleware(_LocalGuard, hosts=hosts)

    async def metrics(request: Request) -> Response:
        body, content_type = house.metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def explain(request: Request) -> Response:
        route, method = request.query_params.get("route", ""), request.query_params.get("method", "")
        report = house.explain(route, method) if route else None
        if report is None:
            told = f"there is no route {route!r}" if route else "which route?"
            return _problem(404 if route else 400, f"{told}; ?route=NAME&method=NAME, names are in /status.json")
        return JSONResponse(report, headers=NO_STORE)

    async def drain(request: Request) -> Response:
        out = request.scope["path"] == "/drain"
        route, endpoint = request.query_params.get("route", ""), request.query_params.get("endpoint", "")
        if not house.drain(route, endpoint, out):
            return _problem(404, "no such endpoint; ?route=NAME&endpoint=ID, ids are in /status.json")
        return JSONResponse({"route": route, "endpoint": endpoint, "drained": out}, headers=NO_STORE)

    return Starlette(
        routes=[
            Path("/livez", _livez),
            Path("/readyz", _readyz(house)),
            Path("/status.json", _status(house)),
            Path("/metrics", metrics),
            Path("/explain", explain),
            Path("/drain", drain, methods=["POST"]),
            Path("/undrain", drain, methods=["POST"]),
        ],
        middleware=[guard],
        exception_handlers={404: _elsewhere, 405: _elsewhere},
    )


async def _elsewhere(request: Request, _: Exception) -> Response:
    """What there is, for who looks for something else."""
    pages = "GET /status.json, /metrics, /explain, /readyz, /livez; POST /drain, /undrain"
    posts = request.scope["path"] in ("/drain", "/undrain")
    return _problem(405 if posts else 404, f"{'it takes a POST' if posts else 'there is no such page'}; {pages}")


class _TokenGuard:
    """Plain ASGI: refuses everything without the operations token, but /livez."""

    def __init__(self, app: Callable[..., Awaitable[None]], token: str) -> None:
        self._app = app
        self._digest = hashlib.sha256(token.encode()).digest()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/livez":
            presented = b""
            for name, value in scope["headers"]:
                if name == b"authorization" and value[:7].lower() == b"bearer ":
                    presented = value[7:].strip()
            if not hmac.compare_digest(hashlib.sha256(presented).digest(), self._digest):
                await _problem(401, "operations need their token: Authorization: Bearer")(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _LocalGuard:
    """Plain ASGI: without a token whoever runs on this machine may ask, but no page in a browser of it.

    Any page may have a browser send a POST to localhost, and a hostile name can be made to resolve to it.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: Callable[[], Hosts]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] != "/livez":
            headers = dict(scope["headers"])
            try:
                self._hosts().require(headers.get(b"host", b""))
            except UnknownHost as error:
                await _problem(error.http_status, error.message)(scope, receive, send)
                return
            if b"origin" in headers or headers.get(b"sec-fetch-site") == b"cross-site":
                text = "operations without a token are for programs on this machine, not for pages in a browser"
                await _problem(403, text)(scope, receive, send)
                return
        await self._app(scope, receive, send)


async def _livez(_: Request) -> Response:
    return PlainTextResponse("ok\n", headers=NO_STORE)


def _readyz(house: House) -> Callable[[Request], Awaitable[Response]]:
    async def readyz(_: Request) -> Response:
        ready, problems = house.readiness()
        text = "ready\n" if ready else "not ready\n" + "".join(f"- {problem}\n" for problem in problems)
        return PlainTextResponse(text, 200 if ready else 503, NO_STORE)

    return readyz


def _status(house: House) -> Callable[[Request], Awaitable[Response]]:
    async def status(_: Request) -> Response:
        return JSONResponse(house.status(), headers=NO_STORE)

    return status


def _shared_status(house: House, clock: Clock) -> Callable[[Request], Awaitable[Response]]:
    """The same for anybody who asks, made at most every `SHOWN_FOR` seconds however many ask."""
    made_at, body = float("-inf"), b""

    async def status(_: Request) -> Response:
        nonlocal made_at, body
        now = clock()
        if now - made_at >= SHOWN_FOR:
            made_at, body = now, bytes(JSONResponse(house.status()).body)
        return Response(body, headers=NO_STORE, media_type="application/json")

    return status


def _problem(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status, NO_STORE)

"""A WebSocket server that says what a test wants: refusals, and subscriptions of protocols that are not simulated."""

from __future__ import annotations

import itertools
import json
from http import HTTPStatus
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response


class ScriptedSockets:
    """Listens on a port of its own.  `status` refuses every upgrade; `takes` are the methods that may be subscribed to.

    `asked` are the requests that came; `upgrades` counts handshakes, refused ones too.
    """

    def __init__(self, first_id: int = 1) -> None:
        self.status = 0
        self.takes: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.upgrades = 0
        self.refusal = {"code": -32601, "message": "notifications not supported"}
        self._ids = itertools.count(first_id)
        self._open: dict[ServerConnection, dict[int, str]] = {}
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(self._serve, "127.0.0.1", 0, process_request=self._upgrade)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"ws://127.0.0.1:{next(iter(self._server.sockets)).getsockname()[1]}"

    @property
    def subscribed(self) -> list[str]:
        """The methods that are subscribed to now."""
        return [method for subscriptions in self._open.values() for method in subscriptions.values()]

    async def tell(self, method: str, notification: str, result: Any) -> None:
        """An event, to each subscription made with `method`."""
        for connection, subscriptions in list(self._open.items()):
            for number, made_with in subscriptions.items():
                if made_with == method:
                    params = {"subscription": number, "result": result}
                    await connection.send(json.dumps({"jsonrpc": "2.0", "method": notification, "params": params}))

    def die(self) -> None:
        """Every connection is cut."""
        for connection in list(self._open):
            connection.transport.abort()

    def _upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        self.upgrades += 1
        self.paths.append(request.path)
        return connection.respond(HTTPStatus(self.status), "no\n") if self.status else None

    async def _serve(self, connection: ServerConnection) -> None:
        subscriptions = self._open[connection] = {}
        try:
            async for message in connection:
                asked = json.loads(message)
                self.asked.append(asked)
                method = asked["method"]
                answer: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
                if method in self.takes:
                    number = next(self._ids)
                    subscriptions[number] = method
                    answer["result"] = number
                elif method.endswith("nsubscribe"):
                    answer["result"] = subscriptions.pop(asked["params"][0], None) is not None
                else:
                    answer["error"] = self.refusal
                await connection.send(json.dumps(answer))
        except ConnectionClosed:
            pass
        finally:
            del self._open[connection]

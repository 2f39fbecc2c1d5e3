"""A listening address and its connections: binding, sweeping deadlines, winding down.

Always true: one task looks at the deadlines of all connections, HTTP and WebSocket alike, so that a
request costs no timer; stopping lets what is under way finish, tells every WebSocket to go, and cuts
off who is left when the time is over.
Does not belong here: reading requests (server), frames (socket), anything about a call.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from gateway.clock import Clock
from gateway.edge.exchange import App
from gateway.edge.server import EdgeProtocol
from gateway.edge.socket import GOING_AWAY, STOPPING, CallerSocket, Handler
from gateway.limits import EdgeLimits, SocketLimits

SWEEP_EVERY = 0.25  # seconds between two looks at all deadlines
LAST_WORDS = 0.1  # seconds for goodbyes to leave when the time to finish is over

Upgrade = Callable[[dict[str, Any]], Handler]
"""Who takes the messages of a caller that asks for a WebSocket, by its scope.  Raises CallerError to refuse."""


class Listener:
    """One listening address and its connections."""

    def __init__(
        self,
        app: App,
        limits: EdgeLimits,
        *,
        report: Callable[[BaseException], None],
        count_refusal: Callable[[str], None] = lambda reason: None,
        upgrade: Upgrade | None = None,
        socket_limits: SocketLimits | None = None,
    ) -> None:
        self.app = app
        self.limits = limits
        self.upgrade = upgrade
        self.socket_limits = socket_limits or SocketLimits()
        self.report = report
        self.count_refusal = count_refusal
        self.config = uvicorn.Config(app=app, log_config=None, access_log=False, ws="none", lifespan="off")
        self.config.load()
        self.state = ServerState()
        self.loop = asyncio.get_running_loop()
        self.draining = False
        self.default_head = b"server: seawall\r\n"
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_connections = min(limits.connections, soft // 2)
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int) -> None:
        """Bind and listen.  Raises OSError, which names the address, when that is taken or not ours."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server = await self.loop.create_server(
                lambda: EdgeProtocol(self), host, port, family=family, backlog=2048
            )
        except OSError as error:
            shown = f"[{host}]" if family == socket.AF_INET6 else host
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise OSError(error.errno, f"cannot listen on {shown}:{port}: {why}") from None
        self._sweeper = self.loop.create_task(self._sweep())

    @property
    def port(self) -> int:
        """The bound port (useful when 0 was asked for)."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> set[EdgeProtocol | CallerSocket]:
        return cast("set[EdgeProtocol | CallerSocket]", self.state.connections)

    async def stop(self, drain_for: float, clock: Clock) -> int:
        """Stop accepting, let calls in flight finish for `drain_for` seconds; returns how many were cut off."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        until = clock() + drain_for
        tasks = self.state.tasks
        while True:
            for connection in list(self.connections):
                connection.wind_down()
            left = until - clock()
            if left <= 0 or not (tasks or any(not connection.refused for connection in self.connections)):
                break
            if tasks:
                await asyncio.wait(list(tasks), timeout=min(0.1, left))
            else:
                await asyncio.sleep(min(0.01, left))  # what is written is still being read, or a body arrives
        cut_off = len(tasks) + sum(
            bool(c.transport.get_write_buffer_size()) for c in self.connections if not c.exchange
        )
        for task in list(self.state.tasks):
            task.cancel()
        await asyncio.gather(*self.state.tasks, return_exceptions=True)
        await self._say_goodbye()
        for connection in list(self.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        return cut_off

    async def _say_goodbye(self) -> None:
        """WebSockets that are still there are told to go, too."""
        sockets = [connection for connection in self.connections if isinstance(connection, CallerSocket)]
        for connection in sockets:
            connection.close(GOING_AWAY, STOPPING)
        if sockets:
            await asyncio.sleep(LAST_WORDS)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            now = self.loop.time()
            for connection in [c for c in self.connections if c.deadline_at <= now]:
                connection.expire(now)

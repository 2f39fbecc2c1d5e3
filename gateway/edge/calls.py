"""One call of a caller, whichever way it came: the only path from the edge to dispatch.

Always true: HTTP and WebSocket callers go through the same method policy, deadline, dispatch and
observation; nothing reaches dispatch that the method policy has not allowed; a subscription is asked
for on a WebSocket only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.dialect.jsonrpc import Request
from gateway.edge.access import Caller
from gateway.edge.methods import MethodPolicy
from gateway.edge.observer import Observer
from gateway.errors import CallerError, GatewayError, SocketNeeded
from gateway.model import Call, RequestClass
from gateway.upstream.calls.answers import Answer
from gateway.upstream.calls.dispatch import Dispatcher
from gateway.upstream.calls.route import Route

_STATEFUL = RequestClass.STATEFUL  # looked up once, for the hot path
MAX_TIMEOUT = 600.0  # seconds a caller may ask for in x-seawall-timeout


@dataclass(frozen=True, slots=True)
class RpcRoute:
    """A route as callers see it."""

    route: Route
    methods: MethodPolicy


def never() -> bool:
    """The caller of whom nothing is known has not gone."""
    return False


@dataclass(slots=True, eq=False)
class Asked:
    """What a caller wishes for its calls.  `timeout` in seconds; `gone` says whether anybody still waits.

    `client` is where it comes from: address and port.
    """

    timeout: float | None = None
    traceparent: bytes | None = None
    gone: Callable[[], bool] = never
    client: tuple[str, int] | None = None


class Calls:
    """Carries calls to dispatch and tells the observer of their ends.  One per gateway."""

    def __init__(self, dispatcher: Dispatcher, clock: Clock, observer: Observer) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._observer = observer

    async def answer(self, target: RpcRoute, request: Request, asked: Asked, caller: Caller) -> Answer:
        """One call, to its end."""
        route = target.route
        started_at = self._clock()
        call = route.dialect.call(request.method, request.params, request.id)
        try:
            target.methods.require(call.method)
            if call.request_class is _STATEFUL:
                _require_no_subscription(route, call)
        except CallerError as error:
            self._observer.refused(error.reason)
            return Answer(attempts=0, error=error)
        deadline_for = route.deadline(call.request_class)
        if asked.timeout is not None:
            deadline_for = min(deadline_for, asked.timeout)
        observer = self._observer
        trail = observer.trail(asked.traceparent)
        route.stats.inflight += 1
        try:
            answer = await self._dispatcher.handle(
                route,
                call,
                started_at + deadline_for,
                observer.head_source(trail) if trail is not None else None,
                asked.gone,
                caller.key_name or (f"@{asked.client[0]}" if asked.client is not None else ""),
            )
        finally:
            route.stats.inflight -= 1
        observer.ended(route, call, answer, started_at, trail)
        return answer

    async def item(self, target: RpcRoute, item: Request | GatewayError, asked: Asked, caller: Caller) -> Answer:
        """One item of a batch, which may be none."""
        if isinstance(item, GatewayError):
            return Answer(attempts=0, error=item)
        return await self.answer(target, item, asked, caller)


def _require_no_subscription(route: Route, call: Call) -> None:
    dialect, name = route.dialect, call.method.name
    if dialect.ends_subscription(name) or dialect.subscription(name, call.params) is not None:
        raise SocketNeeded("subscriptions need a WebSocket: connect to the same URL with ws:// or wss://")


def seconds(value: bytes) -> float | None:
    """`x-seawall-timeout`: seconds, or milliseconds with ``ms``; odd values are ignored."""
    text = value.strip().lower()
    scale = 0.001 if text.endswith(b"ms") else 1.0
    try:
        found = float(text.removesuffix(b"ms").removesuffix(b"s")) * scale
    except ValueError:
        return None
    return found if 0.0 < found <= MAX_TIMEOUT else None

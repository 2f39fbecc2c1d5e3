"""Every way a call can fail, each saying whose fault it is, whether bytes left, and how it counts.

    GatewayError
    +- ConfigError            start-up and reload only; holds every problem found
    +- CallerError            the caller's fault: never retried, never counted against an endpoint
    |   +- BadHttp, HeadTooLarge, TargetTooLong, TooSlow, TooManyConnections,
    |      MalformedJson, MalformedCall, CallTooLarge, Unauthorized, RouteRefused, ForbiddenOrigin,
    |      UnknownHost, UnknownRoute, MethodRefused, SocketNeeded, TooManySubscriptions, AnswerTooLarge,
    |      OverBudget, CallerLeft
    +- AttemptError           one attempt at one endpoint ended without a usable answer
    |   +- NotSent            provably no byte left: ResolveFailed, ConnectFailed, ConnectTimeout, TlsFailed
    |   +- NoReply            some or all bytes left: ConnectionLost, AttemptTimeout, Cancelled
    |   +- BrokenReply        bytes came back that cannot be trusted
    +- Exhausted              no endpoint gave an answer: NoEndpoint, Overloaded, VenueLimited,
                              MethodUnsupported, AttemptsFailed, DeadlinePassed, OutcomeUnknown, Disagreement

Always true: HTTP status, JSON-RPC code and reason are three separate values, and they come from
the class attributes here, the one table.  An application's "no" (a revert, an order refused) is an
answer and never appears in this file.  JSON-RPC callers get gateway failures with HTTP 200 and an
error object, because their libraries discard the body of a 5xx; the HTTP status here is what REST
callers get.  The codes lie outside -1, -32005, -32007 and -32603, which common clients silently
retry three times, and outside the codes that Solana and the large vendors already use.
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar

from gateway.model import AttemptRecord, Outcome, Sent


class Fault(enum.Enum):
    """Whose fault a failure is.  Operators are warned of those that are not the caller's."""

    CALLER = "caller"
    UPSTREAM = "upstream"
    GATEWAY = "gateway"


class GatewayError(Exception):
    """The root; only leaves are raised."""

    fault: ClassVar[Fault] = Fault.GATEWAY
    http_status: ClassVar[int] = 500
    rpc_code: ClassVar[int] = -32099
    reason: ClassVar[str] = "gateway_error"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class ConfigError(GatewayError):
    """The configuration cannot be used.  `problems` are ready-made lines, all of them."""

    reason = "config"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


# --- the caller's fault ---------------------------------------------------------------------------


class CallerError(GatewayError):
    """The call cannot be served as it was asked for; nothing of it was sent, unless a leaf says otherwise."""

    fault = Fault.CALLER
    http_status = 400
    rpc_code = -32600
    reason = "bad_request"


class MalformedJson(CallerError):
    """A body, or an id in it, that is no JSON, or JSON nested deeper than is allowed."""

    rpc_code = -32700
    reason = "malformed_json"


class MalformedCall(CallerError):
    """Valid JSON that is no JSON-RPC request."""

    reason = "malformed_call"


class CallTooLarge(CallerError):
    """A body of more bytes, or a batch of more items, than is allowed."""

    http_status = 413
    reason = "too_large"


class HeadTooLarge(CallerError):
    """Header fields, or trailers, that are more or longer than is allowed (RFC 6585 section 5)."""

    http_status = 431
    reason = "head_too_large"


class TargetTooLong(CallerError):
    """Path and query are longer than is allowed."""

    http_status = 414
    reason = "target_too_long"


class BadHttp(CallerError):
    """What came is no HTTP that this listener speaks, or can be read in two ways; the connection is closed."""

    reason = "bad_http"


class TooSlow(CallerError):
    """A request was begun and did not arrive in time; the connection is closed."""

    http_status = 408
    reason = "too_slow"


class TooManyConnections(CallerError):
    """As many connections or WebSockets are open as are allowed; another time there may be room."""

    http_status = 503
    reason = "too_many_connections"


class Unauthorized(CallerError):
    """A key is needed and none came, or it is not known here."""

    http_status = 401
    rpc_code = -32096
    reason = "unauthorized"


class RouteRefused(CallerError):
    """The caller's key is good, but not for this route."""

    http_status = 403
    rpc_code = -32096
    reason = "route_refused"


class ForbiddenOrigin(CallerError):
    """A page of an origin that is not listed asks by way of a browser."""

    http_status = 403
    reason = "forbidden_origin"


class UnknownHost(CallerError):
    """421, RFC 9110 section 15.5.20: this server does not answer for that name."""

    http_status = 421
    reason = "unknown_host"


class UnknownRoute(CallerError):
    """No route, exchange or stream is at that path, or it went away in a reload."""

    http_status = 404
    rpc_code = -32097
    reason = "unknown_route"


class MethodRefused(CallerError):
    """Denied by the method policy; -32601, so that clients treat the method as absent."""

    http_status = 403
    rpc_code = -32601
    reason = "method_refused"


class SocketNeeded(CallerError):
    """Events can only be sent on a WebSocket; -32601, as nodes answer on HTTP."""

    rpc_code = -32601
    reason = "socket_needed"


class TooManySubscriptions(CallerError):
    """A socket, or a route with all its callers, holds as many subscriptions as are allowed."""

    http_status = 429
    rpc_code = -32095
    reason = "too_many_subscriptions"


class AnswerTooLarge(CallerError):
    """The answer is larger than a WebSocket of ours carries in one message; over HTTP it is streamed."""

    http_status = 413
    rpc_code = -32089
    reason = "answer_too_large"


class OverBudget(CallerError):
    """The caller's own budget is used up; `retry_after` says when it will not be."""

    http_status = 429
    rpc_code = -32095
    reason = "over_budget"


class CallerLeft(CallerError):
    """Seen in logs only: nobody is there to be told (nginx's 499)."""

    http_status = 499
    reason = "caller_left"


# --- one attempt ----------------------------------------------------------------------------------


class AttemptError(GatewayError):
    """One attempt ended without a usable answer.

    `sent` says how far the request got; `counts` how it moves the endpoint's breaker.
    """

    fault = Fault.UPSTREAM
    http_status = 502
    rpc_code = -32091
    reason = "attempt_failed"
    counts: ClassVar[Outcome] = Outcome.FAILURE

    def __init__(self, message: str, *, sent: Sent) -> None:
        super().__init__(message)
        self.sent = sent


class NotSent(AttemptError):
    """Provably no byte of the request left: any call may be tried elsewhere."""

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=Sent.NOT_SENT)


class ResolveFailed(NotSent):
    """The host has no address, or only one that no provider has."""

    reason = "resolve_failed"


class ConnectFailed(NotSent):
    """None of its addresses takes a connection."""

    reason = "connect_failed"


class ConnectTimeout(NotSent):
    """No connection was made in time, looking up the name and the TLS handshake included."""

    reason = "connect_timeout"


class TlsFailed(NotSent):
    """The TLS handshake failed, or the certificate does not hold for the host."""

    reason = "tls_failed"


class NoReply(AttemptError):
    """Bytes left and no complete answer came."""


class ConnectionLost(NoReply):
    """The connection ended before the answer was complete."""

    reason = "connection_lost"


class AttemptTimeout(NoReply):
    """The answer was not complete within the attempt's time."""

    http_status = 504
    reason = "attempt_timeout"


class BrokenReply(AttemptError):
    """An answer came that breaks HTTP framing or a size limit; the connection is never used again."""

    reason = "broken_reply"

    def __init__(self, message: str) -> None:
        super().__init__(message, sent=Sent.ANSWERED)


class Cancelled(NoReply):
    """We gave the attempt up (the caller left, the deadline passed): nobody's fault."""

    reason = "cancelled"
    counts = Outcome.IGNORED


# --- nobody answered ------------------------------------------------------------------------------


class Exhausted(GatewayError):
    """No endpoint gave an answer.  `attempts` are the attempts in order."""

    fault = Fault.UPSTREAM
    http_status = 502
    rpc_code = -32091
    reason = "attempts_failed"

    def __init__(
        self, message: str, *, attempts: tuple[AttemptRecord, ...] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.attempts = attempts


class AttemptsFailed(Exhausted):
    """Every endpoint that could be tried was tried."""


class NoEndpoint(Exhausted):
    """Nothing could be tried: every endpoint is drained, excluded or busy; nothing was sent."""

    http_status = 503
    rpc_code = -32090
    reason = "no_endpoint"


class Overloaded(Exhausted):
    """Endpoints are healthy and busy, and the call was shed or waited too long; nothing was sent."""

    http_status = 503
    rpc_code = -32094
    reason = "overloaded"


class VenueLimited(Exhausted):
    """An exchange allows no more requests from this address for now; nothing was sent."""

    http_status = 503
    rpc_code = -32088
    reason = "venue_limited"


class Disagreement(Exhausted):
    """A method under consensus: too few endpoints agreed.  Whose answer is right cannot be told, so none is given."""

    rpc_code = -32098
    reason = "disagreement"


class MethodUnsupported(Exhausted):
    """Every endpoint has said that it does not offer the method."""

    http_status = 501
    rpc_code = -32601
    reason = "method_unsupported"


class DeadlinePassed(Exhausted):
    """The time for the call as a whole is over."""

    http_status = 504
    rpc_code = -32092
    reason = "deadline_passed"


class OutcomeUnknown(Exhausted):
    """A call that changes something was sent, and whether it took effect could not be found out."""

    http_status = 504
    rpc_code = -32093
    reason = "outcome_unknown"


class GatewayBug(GatewayError):
    """Ours.  Always logged with what led to it."""

    reason = "gateway_bug"


def error_data(error: GatewayError) -> dict[str, Any]:
    """`error.data` of a JSON-RPC error, and the body of a REST one: reason, attempts, retry_after."""
    data: dict[str, Any] = {"reason": error.reason}
    if error.retry_after is not None:
        data["retry_after"] = round(error.retry_after, 3)
    if isinstance(error, Exhausted):
        data["attempts"] = [
            {
                "endpoint": a.endpoint,
                "ended": a.ended,
                "sent": a.sent.value,
                "ms": round((a.ended_at - a.started_at) * 1e3),
            }
            for a in error.attempts
        ]
    return data

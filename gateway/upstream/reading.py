"""Reading a reply: HTTP status, headers and body of one answer become one `Reading`.

Always true: anything can come in and exactly one `ReplyKind` comes out; a JSON-RPC error inside
HTTP 200 is never taken for success; 401 and 403 outrank a readable body; an answer to another
request is a bad reply whatever it says.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from gateway.clock import wall_seconds
from gateway.dialect.jsonrpc import BadReply, read_error, read_reply
from gateway.dialect.protocol import Dialect
from gateway.model import Method, Reading, ReplyKind
from gateway.upstream.engine import Reply

MAX_DETAIL = 160


def read_response(dialect: Dialect, method: Method, response: Reply, body: bytes, wire_id: int) -> Reading:
    """What this answer means.  Never raises."""
    status = response.status
    retry_after = retry_after_seconds(response.header(b"retry-after"))
    try:
        result, error = read_reply(body, wire_id)
    except BadReply as problem:
        if status == 200:
            return Reading(ReplyKind.BAD_REPLY, detail=str(problem))
        kind = dialect.classify_http(status, body)
        return Reading(kind, detail=f"HTTP {status}", retry_after=retry_after)
    if result is not None:
        if status == 200:
            return Reading(ReplyKind.ANSWER, result=result)
        kind = dialect.classify_http(status, body)
        return Reading(kind, detail=f"HTTP {status} with a result", retry_after=retry_after)
    assert error is not None
    if status != 200 and error[:1] != b"{":  # a web server's own JSON, no node's
        return Reading(dialect.classify_http(status, body), detail=f"HTTP {status}", retry_after=retry_after)
    parsed = read_error(error)
    code = int(parsed.code) if isinstance(parsed.code, int | float) else None
    message = parsed.message or ""
    kind, detail = dialect.classify_error(status, code, message, bytes(parsed.data), method)
    return Reading(
        kind,
        error=error,
        code=code,
        detail=(detail or f"code {code}")[:MAX_DETAIL],
        retry_after=retry_after,
        max_range=dialect.learned_range(message) if kind is ReplyKind.RANGE_TOO_LARGE else None,
    )


def retry_after_seconds(value: bytes | None) -> float | None:
    """Retry-After as seconds (RFC 9110, 10.2.3: a number, or a date); None when absent or odd."""
    if value is None:
        return None
    text = value.strip().decode("ascii", "replace")
    if text.isdigit():
        return float(min(int(text), 10**7)) if len(text) < 20 else 1e7
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - wall_seconds())

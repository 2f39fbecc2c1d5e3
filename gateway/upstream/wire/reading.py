"""Reading a reply: HTTP status, headers and body of one answer become one `Reading`.

Always true: anything can come in and exactly one `ReplyKind` comes out; a JSON-RPC error inside
HTTP 200 is never taken for success; 401 and 403 outrank a readable body; an answer to another
request is a bad reply whatever it says.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from gateway.clock import wall_seconds
from gateway.dialect.jsonrpc import BadReply, read_error, read_reply
from gateway.dialect.protocol import Dialect
from gateway.dialect.ratelimits import limits_said, quota_period, wait_said
from gateway.model import Method, Reading, ReplyKind
from gateway.upstream.wire.engine import Reply

MAX_DETAIL = 160
MAX_WORDS = 512  # bytes of a refusal that are looked through for a period or a time to wait
LONGEST = 1e7  # seconds
_plain_number = re.compile(rb"[0-9]+(?:\.[0-9]+)?").fullmatch


def read_response(dialect: Dialect, method: Method, response: Reply, body: bytes, wire_id: int) -> Reading:
    """What this answer means.  Never raises."""
    status = response.status
    retry_after = retry_after_of(response)
    try:
        result, error = read_reply(body, wire_id)
    except BadReply as problem:
        if status == 200:
            return Reading(ReplyKind.BAD_REPLY, detail=str(problem))
        return _refusal(
            Reading(dialect.classify_http(status, body), detail=f"HTTP {status}"), response, retry_after, body
        )
    if result is not None:
        if status == 200:
            return Reading(ReplyKind.ANSWER, result=result)
        reading = Reading(dialect.classify_http(status, body), detail=f"HTTP {status} with a result")
        return _refusal(reading, response, retry_after, b"")
    assert error is not None
    if status != 200 and error[:1] != b"{":  # a web server's own JSON, no node's
        return _refusal(
            Reading(dialect.classify_http(status, body), detail=f"HTTP {status}"), response, retry_after, body
        )
    parsed = read_error(error)
    code = int(parsed.code) if isinstance(parsed.code, int | float) else None
    message = parsed.message or ""
    kind, detail = dialect.classify_error(status, code, message, bytes(parsed.data), method)
    reading = Reading(
        kind,
        error=error,
        code=code,
        detail=(detail or f"code {code}")[:MAX_DETAIL],
        max_range=dialect.learned_range(message) if kind is ReplyKind.RANGE_TOO_LARGE else None,
        of_the_query=kind is ReplyKind.RANGE_TOO_LARGE and dialect.is_of_the_query(message),
    )
    return _refusal(reading, response, retry_after, message.encode("utf-8", "replace"), bytes(parsed.data))


def _refusal(reading: Reading, response: Reply, retry_after: float | None, words: bytes, data: bytes = b"") -> Reading:
    """The reading with what headers and words say of when to come back; headers are read only for a refusal."""
    if reading.kind not in (ReplyKind.THROTTLED, ReplyKind.QUOTA):
        return dataclasses.replace(reading, retry_after=retry_after) if retry_after is not None else reading
    text = words[:MAX_WORDS].decode("utf-8", "replace")
    if retry_after is None:
        retry_after = wait_said(text, data)
    said = limits_said(response.headers, wall_seconds()) if retry_after is None else None
    if said is not None and said.remaining == 0:
        retry_after = said.reset_after
    period = quota_period(text) if reading.kind is ReplyKind.QUOTA else None
    return dataclasses.replace(reading, retry_after=retry_after, period=period)


def retry_after_of(response: Reply) -> float | None:
    """Seconds to wait, as the headers say: Retry-After, or where it is absent or odd, Retry-After-Ms."""
    seconds = retry_after_seconds(response.header(b"retry-after"))
    if seconds is None:
        milliseconds = _number(response.header(b"retry-after-ms"))
        seconds = milliseconds / 1000.0 if milliseconds is not None else None
    return seconds


def retry_after_seconds(value: bytes | None) -> float | None:
    """Retry-After as seconds (RFC 9110, 10.2.3: a number, or a date); None when absent or odd.

    A fraction is no number to the RFC, and some vendors send one.
    """
    if value is None:
        return None
    number = _number(value)
    if number is not None:
        return number
    text = value.strip().decode("ascii", "replace")
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - wall_seconds())


def _number(value: bytes | None) -> float | None:
    """A plain decimal number, at most `LONGEST`."""
    found = _plain_number(value.strip()) if value is not None else None
    return min(float(found[0]), LONGEST) if found is not None else None

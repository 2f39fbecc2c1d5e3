"""Our own header fields on answers: who answered, and when to come back.

Always true: values are ids, counts and words of ours, never a text of an upstream's; a caller who is told to come
back is told a whole second or more.
Does not belong here: fields that pass through (rest), and what origins may read (access).
"""

from __future__ import annotations

from math import ceil

from gateway.errors import GatewayError
from gateway.upstream.calls.answers import Answer
from gateway.upstream.venues.forwarded import Forwarded

Header = tuple[bytes, bytes]

JSON = (b"content-type", b"application/json")


def retry_after(error: GatewayError) -> list[Header]:
    """When to come back, in seconds (RFC 9110 section 10.2.3); empty when nobody knows."""
    if error.retry_after is None:
        return []
    return [(b"retry-after", b"%d" % max(1, ceil(error.retry_after)))]


def execution(answer: Answer | Forwarded) -> list[Header]:
    """What became of a call that changes something; empty for others."""
    return [(b"x-seawall-execution", answer.execution.encode())] if answer.execution is not None else []


def provenance(answer: Answer | Forwarded, headers: list[Header]) -> None:
    """Add who answered, after how many attempts, and why the answer may be less than it should be."""
    if answer.endpoint:
        headers.append((b"x-seawall-endpoint", answer.endpoint.encode()))
    headers.append((b"x-seawall-attempts", b"%d" % answer.attempts))
    if answer.degraded:
        headers.append((b"x-seawall-degraded", answer.degraded.encode()))

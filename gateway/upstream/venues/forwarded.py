"""What comes of a request to an exchange: the venue's own answer, or a failure of ours.

Always true: a large answer is either whole or a stream, never cut short without a word; what is shared is whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.dialect.venue import Word
from gateway.errors import AttemptError, AttemptsFailed, GatewayError
from gateway.model import AttemptRecord
from gateway.upstream.calls.answers import Execution
from gateway.upstream.venues.shelf import LARGEST
from gateway.upstream.wire.engine import Stream


@dataclass(slots=True, eq=False)
class Forwarded:
    """A request's end.  Either `error` is ours, or the rest is the venue's own answer.

    `headers` are as they came; `stream` is the rest of a large body.  `execution` is None for calls that change
    nothing; `found_by` says how to find out what became of a write that may have been done.  `until` is the
    instant at which whoever asked would have had no more time, for those who share it.
    """

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    stream: Stream | None = None
    endpoint: str = ""
    attempts: int = 1
    error: GatewayError | None = None
    records: tuple[AttemptRecord, ...] = ()
    execution: Execution | None = None
    found_by: str = ""
    shared: str = ""
    degraded: str = ""
    word: Word = Word.ANSWER
    until: float = 0.0

    @property
    def rpc_error(self) -> bytes | None:
        """Not None: the venue said no."""
        return None if self.word is Word.ANSWER else b""


async def collected(answer: Forwarded) -> Forwarded:
    """A large public answer as a whole, so that it can be shared; a very large one stays a stream."""
    if answer.stream is None:
        return answer
    pieces, size = [], 0
    stream = answer.stream
    try:
        async for piece in stream:
            pieces.append(piece)
            size += len(piece)
            if size > LARGEST:
                answer.stream = _Rest(pieces, stream)
                return answer
    except AttemptError:
        stream.close()
        error = AttemptsFailed(f"{answer.endpoint} broke off inside its answer", attempts=answer.records)
        return Forwarded(endpoint=answer.endpoint, error=error, word=Word.UNKNOWN)
    answer.stream, answer.body = None, b"".join(pieces)
    return answer


class _Rest:
    """What has been read of a stream, and the rest of it."""

    def __init__(self, pieces: list[bytes], stream: Stream) -> None:
        self._pieces = pieces
        self._stream = stream

    def __aiter__(self) -> _Rest:
        return self

    async def __anext__(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        return await self._stream.__aiter__().__anext__()

    def close(self) -> None:
        self._pieces.clear()
        self._stream.close()


def size_of(answer: Forwarded) -> int | None:
    """For the shelf: bytes to keep; -1: it serves who waits, and is not kept; None: not even that."""
    if answer.stream is not None:
        return None
    if answer.error is not None or answer.status != 200 or answer.word is not Word.ANSWER:
        return -1
    return len(answer.body)

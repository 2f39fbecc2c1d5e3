"""Relaying a large answer: piece by piece, at the caller's pace, under the caller's id.

Always true: the permit is settled when the stream has come to its end, and given back when it is
closed before, read or not; an upstream that breaks off in the middle breaks the caller's answer off
too, so a short body is never passed off as a whole one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.clock import Clock
from gateway.dialect.jsonrpc import BadReply, StreamedId
from gateway.errors import AttemptError, BrokenReply
from gateway.model import Outcome, ReplyKind
from gateway.upstream.fleet.permits import ANSWERED, Permit
from gateway.upstream.wire.engine import Stream

HEAD = 4096  # bytes in which the beginning of a result must show


async def head_of(stream: Stream) -> tuple[bytes, AsyncIterator[bytes]]:
    """The first bytes of a stream, at least `HEAD` if there are so many, and the iterator over the rest."""
    rest = stream.__aiter__()
    head = b""
    async for piece in rest:
        head += piece
        if len(head) >= HEAD:
            break
    return head, rest


async def whole(stream: Stream, head: bytes, rest: AsyncIterator[bytes], limit: int) -> bytes:
    """All of a stream as one body.  Raises BrokenReply beyond `limit` bytes."""
    pieces, size = [head], len(head)
    async for piece in rest:
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            stream.close()
            raise BrokenReply("a large answer is no result")
    return b"".join(pieces)


class Relay:
    """One streamed result.  Iterate for the pieces, then `close` in any case.

    Raises BadReply at construction when the answer is another request's; AttemptError while
    iterating when the upstream breaks off.
    """

    def __init__(
        self, permit: Permit, stream: Stream, head: bytes, rest: AsyncIterator[bytes], names: StreamedId, clock: Clock
    ) -> None:
        self._permit = permit
        self._stream = stream
        self._rest = rest
        self._names = names
        self._clock = clock
        self._opened = names.open(head)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        permit, names = self._permit, self._names
        try:
            if self._opened:
                yield self._opened
            async for piece in self._rest:
                out = names.piece(piece)
                if out:
                    yield out
            tail = names.end()
        except BadReply as problem:
            permit.settle(Outcome.FAILURE, ReplyKind.BAD_REPLY.value, self._clock())
            raise BrokenReply(str(problem)) from None
        except AttemptError as error:
            permit.settle(error.counts, error.reason, self._clock())
            raise
        permit.settle(Outcome.SUCCESS, ANSWERED, self._clock())
        if tail:
            yield tail

    def close(self) -> None:
        """Give up what was not read, and the permit if it is not settled."""
        self._permit.release()
        self._stream.close()

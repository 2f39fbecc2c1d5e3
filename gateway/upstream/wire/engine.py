"""What every upstream engine offers: send one body, say exactly how far it got.

Two engines stand behind this interface: `upstream/wire/transport` (HTTP/1.1, the data path) and
`upstream/wire/httpx2_engine` (HTTP/2 and outbound proxies).  One contract test suite runs on both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol


class Stream(Protocol):
    """A large answer, piece by piece.  Read it to its end or close it."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def close(self) -> None:
        """Give up the rest."""


class Reply(Protocol):
    """An upstream's HTTP answer: either a whole `body`, or a `stream`."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def stream(self) -> Stream | None: ...

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""


Notice = Callable[[Callable[[Any], None]], None]
"""Called when an answer takes longer than usual, with a function that ends the wait with another one's answer."""


class Engine(Protocol):
    """One endpoint's way out."""

    async def send(
        self,
        body: bytes,
        deadline_at: float,
        extra_head: bytes = b"",
        *,
        careful: bool = False,
        notice_at: float = 0.0,
        notice: Notice | None = None,
    ) -> Reply:
        """POST `body` once.  Raises an AttemptError that says whether bytes left.

        An engine may leave `notice` uncalled: then nothing is hedged there.
        """

    async def forward(
        self, verb: bytes, target: bytes, head: bytes, body: bytes, deadline_at: float, *, careful: bool = False
    ) -> Reply:
        """Send a request as it came, once; its answer's body stays as it comes.  Raises like `send`.

        `head` is complete header lines of the caller's, Content-Length included where there is a body.
        """

    def reap(self) -> None:
        """Close idle connections past their time."""

    async def warm(self) -> None:
        """Open connections ahead of the first call."""

    async def close(self) -> None:
        """Close everything."""

"""One upstream connection: an exchange at a time, over httptools.  Owner of httptools upstream.

Always true: each exchange ends in exactly one of *answered* (a `Response`) or an error that says how far
the request got; a connection on which anything was odd (extra bytes, bad framing, an answer nobody asked
for) is closed and never used again.  A busy connection arms one timer per timeout, not one per request.
Does not belong here: which connection carries what (upstream/wire/transport), or what an answer means.
"""

from __future__ import annotations

import asyncio
import select
from typing import Any, Protocol, cast

import httptools

from gateway.clock import Clock
from gateway.errors import AttemptError, AttemptTimeout, BrokenReply, Cancelled, ConnectionLost
from gateway.limits import TransportSettings
from gateway.model import Sent
from gateway.upstream.wire.decoding import BodyDecoder, DecodingError
from gateway.upstream.wire.engine import Notice
from gateway.upstream.wire.streaming import BodyStream, Response

MAX_HEAD_BYTES = 64 * 1024  # an answer's header section; nginx's default is 4-8 KiB, Envoy's 60 KiB
MAX_HEAD_FIELDS = 200
MAX_INTERIM = 8  # 1xx answers before the real one; a flood of them is an attack
READER_PATIENCE = 600.0  # seconds in which the reader of a stream may ask for nothing; the edge is stricter


class Owner(Protocol):
    """What a connection asks of the pool that it belongs to."""

    settings: TransportSettings
    clock: Clock
    open_connections: int

    def give_back(self, connection: Connection) -> None:
        """The exchange is over and the connection is sound."""

    def forget(self, connection: Connection) -> None:
        """An idle connection was closed by its peer."""

    def closed_one(self) -> None:
        """A connection is closed, whoever closed it."""


class Connection(asyncio.Protocol):
    """One connection to one endpoint, carrying one exchange at a time."""

    __slots__ = (
        "_bodyless", "_decoder", "_ends_at", "_future", "_head_bytes", "_headers", "_interim", "_keep_alive",
        "_messages", "_notice", "_overhead", "_parser", "_pieces", "_pool", "_raw", "_size", "_stream", "_timer",
        "_timer_at", "_unread_until", "_until_close",
        "closed", "deadline_at", "idle_since", "keep_idle_for", "loop", "status", "transport",
    )  # fmt: skip

    def __init__(self, pool: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self.loop = loop
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser: Any = httptools.HttpResponseParser(self)
        self._future: asyncio.Future[Response] | None = None
        self._stream: BodyStream | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._notice: Notice | None = None
        self._ends_at = 0.0
        self.deadline_at = 0.0
        self.idle_since = 0.0
        self.keep_idle_for = pool.settings.keep_idle_for
        self.closed = False
        self._begin()

    def _begin(self) -> None:
        """Reset everything that belongs to one exchange."""
        self.status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._overhead = 0  # bytes that came in segments without a byte of the body
        self._unread_until = 0.0
        self._pieces: list[bytes] = []
        self._size = 0
        self._interim = 0
        self._messages = 0  # complete final answers seen in this exchange; more than one is an anomaly
        self._keep_alive = False
        self._until_close = False
        self._decoder: BodyDecoder | None = None
        self._raw = False  # the body is passed as it comes, compressed or not
        self._bodyless = False  # an answer to HEAD: its length is that of a body that does not come

    # --- the exchange -----------------------------------------------------------------------------

    def exchange(
        self,
        request: bytes,
        deadline_at: float,
        notice_at: float = 0.0,
        notice: Notice | None = None,
        *,
        raw: bool = False,
        bodyless: bool = False,
    ) -> asyncio.Future[Response]:
        """Send `request` and return the future answer.  `deadline_at` is an instant of the pool's clock.

        `notice` is called once if there is no answer at `notice_at`, and given `supersede`.  `raw` leaves the
        answer's body as it comes; `bodyless` says that none will come whatever its head says.
        One timer per connection is moved along lazily, so a busy connection arms it once per
        timeout, not once per request.
        """
        self._begin()
        self._raw, self._bodyless = raw, bodyless
        self._notice = notice
        self._ends_at = deadline_at
        if notice is not None and notice_at < deadline_at:
            deadline_at = notice_at
        self.deadline_at = deadline_at
        if self._timer is None or deadline_at < self._timer_at:
            self._arm(deadline_at)
        future = self._future = self.loop.create_future()
        self.transport.write(request)
        return future

    def supersede(self, answer: Any) -> None:
        """Somebody else has answered: whoever waits gets `answer`, and what may still come here is not looked at."""
        future, self._future = self._future, None
        if future is not None:
            self.close()
            if not future.done():
                future.set_result(answer)

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self.loop.call_later(max(0.0, at - self._pool.clock()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._future is None and self._stream is None:
            return  # idle: the next exchange arms it
        now = self._pool.clock()
        if now + 0.001 < self.deadline_at:
            self._arm(self.deadline_at)
            return
        if self._future is not None and now + 0.001 < self._ends_at:
            notice, self._notice = self._notice, None
            self.deadline_at = self._ends_at
            self._arm(self._ends_at)
            if notice is not None:
                notice(self.supersede)
            return
        if self._stream is not None and not self._stream.waiting:  # it is not the upstream that keeps us waiting
            self._unread_until = self._unread_until or now + READER_PATIENCE
            if now < self._unread_until:
                self._arm(self._unread_until)
            else:
                self._fail(Cancelled("nobody reads the answer", sent=Sent.SENT))
            return
        self._fail(AttemptTimeout("no complete answer in time", sent=self.sent_so_far()))

    def sent_so_far(self) -> Sent:
        """How much of the request has left, judged by what is still in our own write buffer."""
        if self.closed:
            return Sent.SENT  # the buffer is gone with the transport: assume the worst
        waiting = self.transport.get_write_buffer_size()
        if waiting == 0:
            return Sent.SENT
        return Sent.PARTLY

    def pause(self) -> None:
        if not self.closed:
            self.transport.pause_reading()

    def resume(self, idle_timeout: float) -> None:
        """The reader of a stream waits for more: allow `idle_timeout` seconds of silence."""
        self._unread_until = 0.0
        self.deadline_at = self._pool.clock() + idle_timeout
        if self._timer is None or self.deadline_at < self._timer_at:
            self._arm(self.deadline_at)
        if not self.closed:
            self.transport.resume_reading()

    def give_up(self) -> None:
        """End the exchange without an answer (caller gone, deadline, hedged away) and close."""
        self._fail(Cancelled("given up", sent=self.sent_so_far()))

    def abandon(self, future: asyncio.Future[Response]) -> None:
        """Whoever waited for `future` has gone.  The connection may already serve somebody else: leave that alone."""
        if self._future is future:
            self.give_up()
        elif future.done() and not future.cancelled() and future.exception() is None:
            stream = future.result().stream
            if stream is not None:
                stream.close()

    def close(self) -> None:
        self._cancel_timer()
        if not self.closed:
            self.closed = True
            self.transport.abort()

    def is_silent(self) -> bool:
        """False when the peer has closed, or sent bytes nobody asked for, and the loop has not said so yet."""
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._pool.open_connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pool.closed_one()
        self._cancel_timer()
        self._parser = None  # it refers back to us
        if self._future is None and self._stream is None:
            self._pool.forget(self)
            return
        if self._until_close and exc is None and self._messages == 0:
            self._messages = 1  # no length was announced: the close is the end of the body
            self._complete()
            return
        where = "inside the answer" if self.status else "before answering"
        self._fail(ConnectionLost(f"connection closed {where}", sent=Sent.SENT))

    def data_received(self, data: bytes) -> None:
        if self._future is None and self._stream is None:
            self._pool.forget(self)  # bytes nobody asked for: never reuse
            self.close()
            return
        size = self._size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:  # one of our own limits
            self._fail(BrokenReply(shorten(error.__context__ or error)))
            return
        except httptools.HttpParserError as error:
            self._fail(BrokenReply(f"answer breaks HTTP framing: {shorten(error)}"))
            return
        except httptools.HttpParserUpgrade:
            self._fail(BrokenReply("unexpected protocol switch"))
            return
        if self._messages:
            if self._messages > 1:
                self._fail(BrokenReply("more than one answer to one request"))
            else:
                self._complete()
        elif self._size == size:  # a head, chunk extensions or a trailer that does not end
            self._overhead += len(data)
            if self._overhead > MAX_HEAD_BYTES:
                self._fail(BrokenReply("answer's header section is too large"))
        elif self._size > self._pool.settings.answer_buffer and self._future is not None:
            self._begin_stream()

    # --- httptools callbacks ----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._messages:
            self._messages += 1

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        self._headers.append((name, value))
        if self._head_bytes > MAX_HEAD_BYTES or len(self._headers) > MAX_HEAD_FIELDS:
            raise DecodingError("answer's header section is too large")

    def on_headers_complete(self) -> None:
        self.status = status = self._parser.get_status_code()
        if status < 200:
            if status < 100:
                raise DecodingError("answer has no valid status")
            return
        framed = False
        for name, value in self._headers:
            size = len(name)
            if size == 16 and name.lower() == b"content-encoding" and value.lower() != b"identity":
                if not self._raw:
                    self._decoder = BodyDecoder(value, self._pool.settings.answer_limit)
            elif (size == 14 and name.lower() == b"content-length") or (
                size == 17 and name.lower() == b"transfer-encoding"
            ):
                if framed:
                    raise DecodingError("answer is framed twice")
                framed = True
            elif size == 10 and name.lower() == b"keep-alive":
                self.keep_idle_for = min(self.keep_idle_for, _keep_alive_seconds(value))
        self._until_close = not framed and status not in (204, 304)
        if self._bodyless:
            self._messages = 1  # and the connection is not used again: the parser waits for a body

    def on_body(self, piece: bytes) -> None:
        if self._decoder is not None:
            piece = self._decoder.feed(piece)
        self._size += len(piece)
        if self._size > self._pool.settings.answer_limit:
            raise DecodingError("answer is larger than answer_limit")
        if self._stream is not None:
            self._stream.feed(piece)
        else:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        if self.status < 200:
            self._interim += 1
            if self._interim > MAX_INTERIM or self.status == 101:
                raise DecodingError("too many interim answers")
            self._headers = []
            self.status = 0
            return
        self._keep_alive = self._parser.should_keep_alive()
        if self._messages == 0:
            self._messages = 1

    # --- endings ----------------------------------------------------------------------------------

    def _begin_stream(self) -> None:
        future, self._future = self._future, None
        if future is None or future.done():
            self.close()  # given up in this very moment: nobody would ever read it
            return
        self.deadline_at = self._ends_at
        stream = self._stream = BodyStream(self, self._pieces, self._pool.settings.stream_idle_timeout)
        self._pieces = []
        self.transport.pause_reading()
        future.set_result(Response(self.status, self._headers, b"", stream))

    def _complete(self) -> None:
        future, stream = self._future, self._stream
        self._future = self._stream = None
        if self._decoder is not None and not self._decoder.finished:
            error = BrokenReply("compressed answer is cut short")
            self._end(future, stream, error)
            self.close()
            return
        if self._keep_alive and not self.closed and not self.transport.get_write_buffer_size():
            if stream is not None:
                self.transport.resume_reading()  # its last pieces may have paused it
            self._pool.give_back(self)
        else:
            self.close()
        if stream is not None:
            stream.finish(None)
        elif future is not None and not future.done():
            pieces = self._pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            future.set_result(Response(self.status, self._headers, body, None))

    def _fail(self, error: AttemptError) -> None:
        future, stream = self._future, self._stream
        self._future = self._stream = None
        self.close()
        self._end(future, stream, error)

    @staticmethod
    def _end(future: asyncio.Future[Response] | None, stream: BodyStream | None, error: AttemptError) -> None:
        if stream is not None:
            stream.finish(error)
        if future is not None and not future.done():
            future.set_exception(error)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _keep_alive_seconds(value: bytes) -> float:
    """`Keep-Alive: timeout=5` minus a second, so that we close before the server does."""
    for part in value.split(b","):
        name, _, seconds = part.strip().partition(b"=")
        if name.lower() == b"timeout" and seconds.isdigit():
            return max(0.5, int(seconds) - 1.0)
    return float("inf")


def shorten(error: Any) -> str:
    """An error of the system or of a library in at most 120 characters, for messages that are logged."""
    return str(error)[:120]

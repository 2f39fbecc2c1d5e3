"""The second engine, for endpoints that need HTTP/2 or an outbound proxy.  Owner of httpx2.

Always true: the same interface and the same honesty as `upstream/wire/transport`: nothing is sent twice,
no redirect is followed, no environment variable is read, and each failure says whether bytes left.
It costs about twenty times the CPU of the first engine, so it serves only endpoints that ask for it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx2

from gateway.clock import Clock
from gateway.errors import (
    AttemptError,
    AttemptTimeout,
    BrokenReply,
    Cancelled,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    TlsFailed,
)
from gateway.limits import TransportSettings
from gateway.model import Sent
from gateway.upstream.wire.connection import MAX_HEAD_BYTES, MAX_HEAD_FIELDS
from gateway.upstream.wire.decoding import BodyDecoder, BodyLimits, DecodingError
from gateway.upstream.wire.engine import Notice
from gateway.upstream.wire.streaming import Response

VERSIONS = (b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2")


class Httpx2Stream:
    """The rest of a large answer."""

    def __init__(
        self, response: httpx2.Response, pieces: AsyncIterator[bytes], first: bytes, idle_timeout: float
    ) -> None:
        self._response = response
        self._pieces = pieces
        self._first = first
        self._idle_timeout = idle_timeout
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        first, self._first = self._first, b""
        if first and not self._closed:
            yield first
        while True:
            if self._closed:
                raise Cancelled("given up", sent=Sent.ANSWERED)
            try:
                async with asyncio.timeout(self._idle_timeout):
                    piece = await anext(self._pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                self.close()
                raise AttemptTimeout("the answer stopped coming", sent=Sent.SENT) from None
            except DecodingError as error:
                self.close()
                raise BrokenReply(str(error)) from None
            except httpx2.HTTPError as error:
                self.close()
                raise _told(error, Sent.SENT) from None
            yield piece

    def close(self) -> None:
        self._closed = True
        if not self._response.is_closed and self._closing is None:
            self._closing = asyncio.ensure_future(self._response.aclose())


class Httpx2Engine:
    """One endpoint over httpx2.  `url` and `headers` hold the provider's secrets and are never shown."""

    def __init__(
        self,
        url: str,
        headers: dict[str, str],
        settings: TransportSettings,
        clock: Clock,
        *,
        http2: bool,
        proxy: str | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._url = url
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._target = target.encode("latin-1")  # httpx2 would resolve dots and escape what it finds odd
        self._own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._settings = settings
        self._clock = clock
        limits = httpx2.Limits(
            max_keepalive_connections=settings.idle_connections, keepalive_expiry=settings.keep_idle_for
        )
        connect = settings.connect_timeout + settings.tls_timeout
        self._client = httpx2.AsyncClient(
            headers=headers,
            http2=http2,
            proxy=proxy,
            verify=tls if tls is not None else True,
            limits=limits,
            timeout=httpx2.Timeout(None, connect=connect, pool=connect),
            follow_redirects=False,
            trust_env=False,
        )

    async def send(
        self,
        body: bytes,
        deadline_at: float,
        extra_head: bytes = b"",
        *,
        careful: bool = False,
        notice_at: float = 0.0,
        notice: Notice | None = None,
    ) -> Response:
        if self._clock() >= deadline_at:
            raise Cancelled("no time was left", sent=Sent.NOT_SENT)
        headers = dict(line.split(": ", 1) for line in extra_head.decode("ascii").split("\r\n") if line)
        request = self._client.build_request("POST", self._url, content=body, headers=headers)
        request.extensions["target"] = self._target
        return await self._exchange(request, deadline_at, raw=False)

    async def forward(
        self, verb: bytes, target: bytes, head: bytes, body: bytes, deadline_at: float, *, careful: bool = False
    ) -> Response:
        """See `engine.Engine.forward`."""
        if self._clock() >= deadline_at:
            raise Cancelled("no time was left", sent=Sent.NOT_SENT)
        lines = [(name, value) for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n") if line)]
        request = httpx2.Request(verb.decode("ascii"), self._url, content=body if body else None)
        host = (b"Host", request.headers["host"].encode())
        request.headers = httpx2.Headers([host, *self._own, *lines])  # what httpx2 would add was not asked for
        request.extensions["target"] = self._target.partition(b"?")[0].rstrip(b"/") + target
        return await self._exchange(request, deadline_at, raw=True)

    async def _exchange(self, request: httpx2.Request, deadline_at: float, raw: bool) -> Response:
        progress = _Progress()
        request.extensions["trace"] = progress.note
        response: httpx2.Response | None = None
        try:
            async with asyncio.timeout(max(0.0, deadline_at - self._clock())):
                response = await self._client.send(request, stream=True)
                return await self._read(response, raw)
        except TimeoutError:
            await _close(response)
            if progress.sent is Sent.NOT_SENT:
                raise ConnectTimeout("no connection in time") from None
            raise AttemptTimeout("no complete answer in time", sent=progress.sent) from None
        except asyncio.CancelledError:
            await _close(response)
            raise
        except (httpx2.ConnectTimeout, httpx2.PoolTimeout):
            raise ConnectTimeout("no connection in time") from None
        except (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol) as error:
            if _is_tls(error):
                raise TlsFailed("TLS handshake failed") from None
            raise ConnectFailed("connection failed") from None
        except DecodingError as error:
            await _close(response)
            raise BrokenReply(str(error)) from None
        except httpx2.RemoteProtocolError as error:
            await _close(response)
            raise _told(error, progress.sent) from None
        except httpx2.HTTPError as error:
            await _close(response)
            raise _told(error, progress.sent) from None

    async def _read(self, response: httpx2.Response, raw: bool) -> Response:
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        _check_head(headers, response.extensions.get("http_version"))
        pieces = self._decoded(response, raw)
        held = b""
        async for piece in pieces:
            held += piece
            if len(held) > self._settings.answer_buffer:
                stream = Httpx2Stream(response, pieces, held, self._settings.stream_idle_timeout)
                return Response(response.status_code, headers, b"", stream)
        await response.aclose()
        return Response(response.status_code, headers, held, None)

    async def _decoded(self, response: httpx2.Response, raw: bool) -> AsyncIterator[bytes]:
        """Raw pieces through our own bounded decoder; httpx2's decodes without limit."""
        encoding = b"identity" if raw else response.headers.get("content-encoding", "identity").encode()
        decoder = BodyDecoder(encoding, self._settings.answer_limit) if encoding.lower() != b"identity" else None
        limits = BodyLimits(self._settings.answer_limit)
        async for came in response.aiter_raw():
            piece = decoder.feed(came) if decoder is not None else came
            limits.count(len(piece))
            yield piece
        if decoder is not None and not decoder.finished:
            raise DecodingError("compressed answer is cut short")

    def reap(self) -> None:
        """httpx2 reaps its idle connections by itself."""

    async def warm(self) -> None:
        """httpx2 opens connections only with a request; there is nothing to do ahead of one."""

    async def close(self) -> None:
        await self._client.aclose()


class _Progress:
    """How far the request got, from httpx2's trace events."""

    def __init__(self) -> None:
        self.sent = Sent.NOT_SENT
        self._tunnel = False

    async def note(self, event: str, info: dict[str, object]) -> None:
        if event.endswith("send_request_headers.started"):
            self._tunnel = getattr(info.get("request"), "method", b"") == b"CONNECT"  # nothing of ours: to the proxy
            if not self._tunnel:
                self.sent = Sent.PARTLY
        elif self._tunnel:
            return
        elif event.endswith("send_request_body.complete"):
            self.sent = Sent.SENT


def _check_head(headers: list[tuple[bytes, bytes]], version: object) -> None:
    """Refuse what the first engine refuses too and h11 lets pass.  Raises DecodingError."""
    if version is not None and version not in VERSIONS:
        raise DecodingError("answer has an unknown HTTP version")
    if len(headers) > MAX_HEAD_FIELDS or sum(len(n) + len(v) + 4 for n, v in headers) > MAX_HEAD_BYTES:
        raise DecodingError("answer's header section is too large")
    if sum(name in (b"content-length", b"transfer-encoding") for name, _ in headers) > 1:
        raise DecodingError("answer is framed twice")


def _told(error: httpx2.HTTPError, sent: Sent) -> AttemptError:
    """What httpx2 says of a broken exchange, in our words."""
    if sent is Sent.NOT_SENT:
        return ConnectFailed(f"connection failed: {type(error).__name__}")
    if not isinstance(error, httpx2.RemoteProtocolError):
        return ConnectionLost(f"connection lost: {type(error).__name__}", sent=sent)
    text = str(error).lower()
    if "disconnected" in text or "peer closed" in text:
        return ConnectionLost("connection closed before or inside the answer", sent=sent)
    return BrokenReply("answer breaks HTTP framing")


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


async def _close(response: httpx2.Response | None) -> None:
    if response is not None:
        await response.aclose()

"""The second engine, for endpoints that need HTTP/2 or an outbound proxy.  Owner of httpx2.

Always true: the same interface and the same honesty as `upstream/transport`: nothing is sent twice,
no redirect is followed, no environment variable is read, and each failure says whether bytes left.
It costs about twenty times the CPU of the first engine, so it serves only endpoints that ask for it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import httpx2

from gateway.clock import Clock
from gateway.errors import (
    AttemptTimeout,
    BrokenReply,
    ConnectFailed,
    ConnectionLost,
    ConnectTimeout,
    TlsFailed,
)
from gateway.limits import TransportSettings
from gateway.model import Sent
from gateway.upstream.decoding import BodyDecoder, BodyLimits, DecodingError


class Httpx2Reply:
    """One answer; see `upstream.engine.Reply`."""

    def __init__(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes, stream: Httpx2Stream | None
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.stream = stream

    def header(self, name: bytes) -> bytes | None:
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None


class Httpx2Stream:
    """The rest of a large answer."""

    def __init__(
        self, response: httpx2.Response, pieces: AsyncIterator[bytes], first: bytes, idle_timeout: float
    ) -> None:
        self._response = response
        self._pieces = pieces
        self._first = first
        self._idle_timeout = idle_timeout
        self._closing: asyncio.Task[None] | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._first
        while True:
            try:
                async with asyncio.timeout(self._idle_timeout):
                    piece = await anext(self._pieces)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise AttemptTimeout("the answer stopped coming", sent=Sent.ANSWERED) from None
            except httpx2.HTTPError as error:
                raise ConnectionLost(
                    f"connection lost inside the answer: {type(error).__name__}", sent=Sent.SENT
                ) from None
            yield piece

    def close(self) -> None:
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
        self, body: bytes, deadline_at: float, extra_head: bytes = b"", *, careful: bool = False
    ) -> Httpx2Reply:
        headers = dict(line.split(": ", 1) for line in extra_head.decode("ascii").split("\r\n") if line)
        request = self._client.build_request("POST", self._url, content=body, headers=headers)
        progress = _Progress()
        request.extensions["trace"] = progress.note
        response: httpx2.Response | None = None
        try:
            async with asyncio.timeout(max(0.0, deadline_at - self._clock())):
                response = await self._client.send(request, stream=True)
                return await self._read(response)
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
            if response is None and "disconnected" in str(error).lower():
                raise ConnectionLost("connection closed before answering", sent=progress.sent) from None
            raise BrokenReply("answer breaks HTTP framing") from None
        except httpx2.HTTPError as error:
            await _close(response)
            if progress.sent is Sent.NOT_SENT:
                raise ConnectFailed(f"connection failed: {type(error).__name__}") from None
            raise ConnectionLost(f"connection lost: {type(error).__name__}", sent=progress.sent) from None

    async def _read(self, response: httpx2.Response) -> Httpx2Reply:
        headers = [(name.lower(), value) for name, value in response.headers.raw]
        pieces = self._decoded(response)
        held = b""
        async for piece in pieces:
            held += piece
            if len(held) > self._settings.answer_buffer:
                stream = Httpx2Stream(response, pieces, held, self._settings.stream_idle_timeout)
                return Httpx2Reply(response.status_code, headers, b"", stream)
        await response.aclose()
        return Httpx2Reply(response.status_code, headers, held, None)

    async def _decoded(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """Raw pieces through our own bounded decoder; httpx2's decodes without limit."""
        encoding = response.headers.get("content-encoding", "identity").encode()
        decoder = BodyDecoder(encoding, self._settings.answer_limit) if encoding.lower() != b"identity" else None
        limits = BodyLimits(self._settings.answer_limit)
        async for raw in response.aiter_raw():
            piece = decoder.feed(raw) if decoder is not None else raw
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

    async def note(self, event: str, info: dict[str, object]) -> None:
        if event.endswith("send_request_headers.started"):
            self.sent = Sent.PARTLY
        elif event.endswith("send_request_body.complete"):
            self.sent = Sent.SENT


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


async def _close(response: httpx2.Response | None) -> None:
    if response is not None:
        await response.aclose()

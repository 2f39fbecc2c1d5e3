"""Upstream sockets against scripted servers on loopback: what is dialled, when again, and what is said of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from random import Random
from typing import Any

import pytest
import trustme
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from gateway import __version__
from gateway.errors import ConnectionLost
from gateway.limits import FeedSettings, TransportSettings
from gateway.model import Sent
from gateway.upstream.wire.outbound import Outbound
from gateway.upstream.wire.resolver import Resolver
from gateway.upstream.wire.socket_client import PARTING
from gateway.upstream.wire.sockets import (
    BUSY_PAUSE,
    CONNECTS_PER_SECOND,
    CONNECTS_SAVED_UP,
    LONGEST_RETRY_AFTER,
    REFUSED_PAUSE,
    SEND_WITHIN,
    STEADY_AFTER,
    ConnectBudget,
    SocketTarget,
    UpstreamSocket,
    socket_target,
)
from tests.virtual import here, refused_port, run

Handler = Callable[[ServerConnection], Awaitable[None]]


class Fixed(Random):
    """Chance that is always the same."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def random(self) -> float:
        return self._value


class Owner:
    """Notes what it is told, and when."""

    def __init__(self) -> None:
        self.opened_at: list[float] = []
        self.messages: list[bytes] = []
        self.lost: list[str] = []
        self._news = asyncio.Event()

    def opened(self, socket: UpstreamSocket) -> None:
        assert socket.connected
        self.opened_at.append(here().time())
        self._news.set()

    def message(self, socket: UpstreamSocket, data: bytes) -> None:
        self.messages.append(data)
        self._news.set()

    def closed(self, socket: UpstreamSocket, why: str) -> None:
        assert not socket.connected
        self.lost.append(why)
        self._news.set()

    async def until(self, true: Callable[[], bool], within: float = 300.0) -> None:
        async with asyncio.timeout(within):
            while not true():
                self._news.clear()
                await self._news.wait()


class Scripted:
    """A server that does with its n-th connection what the n-th entry of its script says; the last one goes on."""

    def __init__(self, *script: Handler | Response | int) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.asked_at: list[float] = []
        self.close_codes: list[int | None] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def _part(self, number: int) -> Handler | Response | int:
        return self.script[min(number, len(self.script)) - 1]

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        self.asked_at.append(here().time())
        part = self._part(len(self.requests))
        connection.number = len(self.requests)  # type: ignore[attr-defined]
        return part if isinstance(part, Response) else None

    async def _serve(self, connection: ServerConnection) -> None:
        part = self._part(connection.number)  # type: ignore[attr-defined]
        try:
            if isinstance(part, int):
                await connection.close(part, "with a secret reason")
            else:
                assert not isinstance(part, Response)
                await part(connection)
        finally:
            self.close_codes.append(connection.close_code)

    @contextlib.asynccontextmanager
    async def running(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
        quiet = logging.getLogger("tests.scripted")
        quiet.disabled = True
        async with serve(
            self._serve, host, 0, process_request=self._answer, ping_interval=None, compression="deflate", ssl=tls,
            logger=quiet, close_timeout=1, max_size=None,
        ) as server:  # fmt: skip
            self.port = server.sockets[0].getsockname()[1]
            yield self


async def stays(connection: ServerConnection) -> None:
    """Listens until the other side goes."""
    async for _ in connection:
        pass


def refusing(status: int, **headers: str) -> Response:
    from websockets.datastructures import Headers

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, "Refused", Headers({"Content-Length": "0", **named}), b"")


def target_of(url: str, **more: Any) -> SocketTarget:
    made = socket_target(Outbound(url="https://calls.example/secret-path", ws=url, **more))
    assert made is not None
    return made


@contextlib.asynccontextmanager
async def opened(
    url: str,
    *,
    chance: float = 0.0,
    owner: Owner | None = None,
    outbound: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[UpstreamSocket, Owner]]:
    """A started socket; closed afterwards."""
    owner = owner or Owner()
    clock = here().time
    made = UpstreamSocket(
        "oak", target_of(url, **(outbound or {})), FeedSettings(**settings), Resolver(clock), ConnectBudget(clock),
        owner, clock, Fixed(chance),
    )  # fmt: skip
    made.start()
    try:
        yield made, owner
    finally:
        await made.close()


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(story(), at_most=5000)


# --- messages -----------------------------------------------------------------------------------------


def test_messages_arrive_whole_and_in_order_text_or_binary_in_pieces_or_not() -> None:
    async def talks(connection: ServerConnection) -> None:
        await connection.send("text ä")
        await connection.send(b"\x00\xff")
        await connection.send(["in ", "pieces ", "ü"])
        await connection.send("")
        for number in range(2000):
            await connection.send(f"{number}")
        await stays(connection)

    async def story() -> None:
        async with Scripted(talks).running() as server, opened(server.url) as (_, owner):
            await owner.until(lambda: len(owner.messages) == 2004)
            assert owner.messages[:4] == ["text ä".encode(), b"\x00\xff", "in pieces ü".encode(), b""]
            assert owner.messages[4:] == [b"%d" % number for number in range(2000)]

    told(story)


def test_what_is_sent_arrives_as_text() -> None:
    heard: list[Any] = []

    async def listens(connection: ServerConnection) -> None:
        async for message in connection:
            heard.append(message)
            await connection.send("heard")

    async def story() -> None:
        async with Scripted(listens).running() as server, opened(server.url) as (made, owner):
            await owner.until(lambda: made.connected)
            await made.send(b'{"id":1}')
            await owner.until(lambda: bool(owner.messages))
            assert heard == ['{"id":1}']

    told(story)


def test_without_a_connection_nothing_is_sent_and_the_sender_knows_it() -> None:
    async def story() -> None:
        async with opened(f"ws://127.0.0.1:{refused_port()}/") as (made, _):
            with pytest.raises(ConnectionLost) as caught:
                await made.send(b"x")
            assert caught.value.sent is Sent.NOT_SENT

    told(story)


def test_a_peer_that_takes_nothing_costs_the_sender_a_bounded_time_and_the_connection() -> None:
    async def deaf(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await asyncio.sleep(100)

    async def story() -> None:
        async with Scripted(deaf, stays).running() as server, opened(server.url) as (made, owner):
            await owner.until(lambda: made.connected)
            began = here().time()
            with pytest.raises(ConnectionLost) as caught:
                await made.send(b"x" * 30_000_000)
            assert caught.value.sent is Sent.PARTLY
            assert here().time() - began == pytest.approx(SEND_WITHIN, abs=0.1)
            await owner.until(lambda: len(owner.opened_at) == 2)
            assert owner.lost == ["send_stuck"]

    told(story)


# --- what is dialled ------------------------------------------------------------------------------------


def test_the_handshake_carries_the_endpoints_credentials_and_nothing_of_a_calls_form() -> None:
    async def story() -> None:
        more = {"headers": {"X-Key": "k1"}, "bearer": "b1", "query": {"q": "1 2"}}
        async with Scripted(stays).running() as server:
            url = f"ws://127.0.0.1:{server.port}/a/b?x=y"
            async with opened(url, outbound=more) as (_, owner):
                await owner.until(lambda: bool(owner.opened_at))
        request = server.requests[0]
        assert request.path == "/a/b?x=y&q=1%202"
        assert request.headers["Host"] == f"127.0.0.1:{server.port}"
        assert request.headers["User-Agent"] == f"seawall/{__version__}"
        assert (request.headers["X-Key"], request.headers["Authorization"]) == ("k1", "Bearer b1")
        for name in ("Content-Type", "Accept", "Accept-Encoding", "Sec-WebSocket-Extensions", "Origin"):
            assert name not in request.headers

    told(story)


def test_the_operator_may_name_another_user_agent_but_not_break_the_handshake() -> None:
    made = target_of("wss://a.example", headers={"user-agent": "mine", "Sec-WebSocket-Key": "x", "upgrade": "h2c"})
    assert made.user_agent == "mine"
    assert made.headers == ()


def test_credentials_inside_a_url_go_where_that_url_leads() -> None:
    def sent(**how: Any) -> dict[str, str]:
        made = socket_target(Outbound(**how))
        assert made is not None
        assert "@" not in made.url
        return dict(made.headers)

    basic = "Basic " + base64.b64encode(b"u:p").decode()
    assert sent(url="https://u:p@a.example", ws="wss://b.example") == {}
    assert sent(url="https://a.example", ws="wss://u:p@b.example") == {"Authorization": basic}
    assert sent(url="https://x:y@a.example", ws="wss://b.example", basic=("u", "p")) == {"Authorization": basic}


@pytest.mark.parametrize(
    ("url", "dialled", "host", "port"),
    [
        ("ws://a.example", "ws://a.example/", "a.example", 80),
        ("wss://a.example/x?y", "wss://a.example/x?y", "a.example", 443),
        ("wSS://a.example:8443/", "wss://a.example:8443/", "a.example", 8443),
        ("ws://[::1]:81/x", "ws://[::1]:81/x", "::1", 81),
        ("wss://[2001:db8::1]", "wss://[2001:db8::1]/", "2001:db8::1", 443),
    ],
)
def test_a_targets_parts(url: str, dialled: str, host: str, port: int) -> None:
    made = target_of(url)
    assert (made.url, made.host, made.port, made.server_name) == (dialled, host, port, host)
    assert (made.tls is None) == url.lower().startswith("ws:")


def test_an_endpoint_without_a_websocket_has_no_target() -> None:
    assert socket_target(Outbound(url="https://a.example")) is None


def test_targets_are_equal_when_the_same_is_dialled_in_the_same_way(tmp_path: Any) -> None:
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    assert target_of("wss://a.example/x") == target_of("wss://a.example/x")
    others = [
        target_of("wss://a.example/y"),
        target_of("ws://a.example/x"),
        target_of("wss://a.example/x", bearer="b"),
        target_of("wss://a.example/x", ca=str(authority)),
        target_of("wss://a.example/x", server_name="b"),
        target_of("wss://a.example/x", proxy="http://p.example"),
    ]
    assert target_of("wss://a.example/x") not in others


def test_another_websocket_does_not_cost_an_endpoint_its_connections_and_health() -> None:
    prints = {
        Outbound(url="https://a.example", ws=ws).fingerprint(TransportSettings()) for ws in (None, "ws://b", "ws://c")
    }
    assert len(prints) == 1


def test_a_redirect_is_not_followed() -> None:
    async def story() -> None:
        async with (
            Scripted(stays).running() as elsewhere,
            Scripted(refusing(302, Location=elsewhere.url)).running() as server,
            opened(server.url, outbound={"bearer": "b1"}) as (made, owner),
        ):
            await asyncio.sleep(20)
            assert len(server.requests) > 3
            assert made.why == "http_302"
            assert elsewhere.requests == []
            assert owner.opened_at == []

    told(story)


def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with Scripted(stays).running() as proxy, Scripted(stays).running() as server:
            for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY", "SOCKS_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
                monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            async with opened(server.url) as (_, owner):
                await owner.until(lambda: bool(owner.opened_at))
            assert proxy.requests == []

    told(story)


@contextlib.asynccontextmanager
async def answering(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A server of raw connections; its port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await talk(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.01)  # who has just connected has a task, too
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def upgraded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server's half of a handshake."""
    head = await reader.readuntil(b"\r\n\r\n")
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324 - RFC 6455
    writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ")
    writer.write(accept + b"\r\n\r\n")


def test_a_named_proxy_is_used_and_found_through_the_resolver() -> None:
    heads: list[bytes] = []

    async def story() -> None:
        async with Scripted(stays).running() as server:

            async def tunnels(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                onward_reader, onward = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

                async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
                    while data := await source.read(65536):
                        to.write(data)
                    to.close()

                try:
                    await asyncio.gather(copy(reader, onward), copy(onward_reader, writer))
                finally:
                    onward.transport.abort()

            async with answering(tunnels) as port:
                here().names["proxy.example"] = ["127.0.0.1"]
                proxy = f"http://pu:pp@proxy.example:{port}"
                async with opened("ws://far.example/x", outbound={"proxy": proxy}) as (_, owner):
                    await owner.until(lambda: bool(owner.opened_at))
                await asyncio.sleep(0.1)
        assert here().looked_up == ["proxy.example"], "the endpoint's own name is the proxy's to find"
        assert heads[0].startswith(b"CONNECT far.example:80 ")
        assert b"Basic " + base64.b64encode(b"pu:pp") in heads[0]
        assert server.requests[0].headers["Host"] == "far.example"

    told(story)


@pytest.mark.parametrize("host", ["169.254.169.254", "metadata.example", "[fe80::1]", "[::]", "nowhere.example"])
def test_addresses_that_no_provider_has_are_not_dialled(host: str) -> None:
    async def story() -> None:
        here().names["metadata.example"] = ["169.254.169.254"]
        async with opened(f"ws://{host}/latest") as (made, owner):
            await asyncio.sleep(5)
            assert made.why == "resolve_failed"
            assert made.failures > 2
            assert owner.opened_at == []

    told(story)


def test_all_addresses_of_a_name_are_tried() -> None:
    async def story() -> None:
        here().names["oak.example"] = ["127.0.0.2", "127.0.0.3", "127.0.0.1"]
        async with Scripted(stays).running() as server, opened(f"ws://oak.example:{server.port}/") as (made, owner):
            await owner.until(lambda: made.connected, within=1)
            assert made.failures == 0
            assert server.requests[0].headers["Host"] == f"oak.example:{server.port}"

    told(story)


def test_an_address_that_swallows_everything_does_not_keep_it_from_the_others() -> None:
    async def swallows(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1000)

    async def story() -> None:
        async with answering(swallows) as port:
            second = Scripted(stays)
            async with serve(second._serve, "127.0.0.2", port, process_request=second._answer, ping_interval=None):
                here().names["oak.example"] = ["127.0.0.1", "127.0.0.2"]
                async with opened(f"ws://oak.example:{port}/") as (made, owner):
                    began = here().time()
                    await owner.until(lambda: made.connected)
                    assert made.why == "connect_timeout"
                    assert here().time() - began == pytest.approx(5.0 + 0.125, abs=0.1)

    told(story)


# --- TLS ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_side(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert(*names).configure_cert(context)
    return context


def test_a_certificate_is_checked_against_the_configured_authority_and_name(
    authority: trustme.CA, tmp_path: Any
) -> None:
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    protocols: list[str | None] = []

    async def notes(connection: ServerConnection) -> None:
        protocols.append(connection.transport.get_extra_info("ssl_object").selected_alpn_protocol())
        await stays(connection)

    async def story() -> None:
        here().names["oak.example"] = ["127.0.0.1"]
        async with Scripted(notes).running(tls=server_side(authority, "oak.example")) as server:
            url = f"wss://oak.example:{server.port}/"
            async with opened(url, outbound={"ca": str(ca)}) as (_, owner):
                await owner.until(lambda: bool(owner.opened_at))
            async with opened(
                f"wss://127.0.0.1:{server.port}/", outbound={"ca": str(ca), "server_name": "oak.example"}
            ) as (
                _,
                owner,
            ):
                await owner.until(lambda: bool(owner.opened_at))
            assert protocols == ["http/1.1", "http/1.1"]
            for refused in ({}, {"ca": str(ca), "server_name": "elm.example"}):
                async with opened(url, outbound=refused) as (made, owner):
                    while not made.why:
                        await asyncio.sleep(0.1)
                    assert made.why == "tls_failed"
                    assert owner.opened_at == []

    told(story)


# --- opening it again ---------------------------------------------------------------------------------


def pauses(server: Scripted) -> list[float]:
    return [round(b - a, 2) for a, b in zip(server.asked_at, server.asked_at[1:], strict=False)]


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.5), (0.5, 0.75), (0.999999, 1.0)])
def test_the_pause_doubles_up_to_the_longest_and_is_jittered(chance: float, share: float) -> None:
    async def story() -> None:
        async with Scripted(4000).running() as server, opened(server.url, chance=chance) as (made, owner):
            await owner.until(lambda: len(owner.lost) == 11)
            expected = [min(30.0, 0.25 * 2**n) * share for n in range(10)]
            assert pauses(server)[:10] == pytest.approx(expected, abs=0.05)
            assert set(owner.lost) == {"closed_4000"}
            assert made.failures == 11
            assert len(owner.opened_at) == len(owner.lost)

    told(story)


def test_a_socket_that_lived_long_enough_starts_over() -> None:
    async def lives(connection: ServerConnection) -> None:
        await asyncio.sleep(STEADY_AFTER + 1)
        await connection.close(4000)

    async def story() -> None:
        async with Scripted(4000, 4000, 4000, 4000, lives, 4000).running() as server, opened(server.url) as (_, owner):
            await owner.until(lambda: len(owner.lost) == 7)
            assert pauses(server)[:4] == pytest.approx([0.125, 0.25, 0.5, 1.0], abs=0.05)
            assert pauses(server)[4:6] == pytest.approx([STEADY_AFTER + 1 + 0.125, 0.25], abs=0.05)

    told(story)


@pytest.mark.parametrize("code", [1001, 1012])
def test_after_an_announced_end_everybody_waits_a_pause_of_his_own(code: int) -> None:
    """All clients of a server that restarts lose it at the same moment, and would come back at the same moment."""

    async def story() -> None:
        for chance in (0.0, 1.0):
            async with Scripted(code).running() as server, opened(server.url, chance=chance) as (_, owner):
                await owner.until(lambda owner=owner: len(owner.lost) == 4)  # type: ignore[misc]
                expected = [pause * (0.5 + 0.5 * chance) for pause in (0.25, 0.5, 1.0)]
                assert pauses(server)[:3] == pytest.approx(expected, abs=0.05)
                assert set(owner.lost) == {f"closed_{code}"}

    told(story)


@pytest.mark.parametrize("code", [1008, 1013])
def test_a_server_that_has_had_enough_of_us_is_left_alone_for_a_while(code: int) -> None:
    async def story() -> None:
        async with Scripted(code, stays).running() as server, opened(server.url, chance=0.5) as (_, owner):
            await owner.until(lambda: len(owner.opened_at) == 2)
            assert pauses(server) == pytest.approx([BUSY_PAUSE * 1.25], abs=0.05)

    told(story)


def test_a_socket_that_is_not_to_be_opened_any_more_lives_until_it_is_lost() -> None:
    """Its endpoint is gone from the configuration: nothing that is not named there is dialled."""

    async def story() -> None:
        async with Scripted(sends_then_closes).running() as server, opened(server.url) as (made, owner):
            await owner.until(lambda: made.connected)
            made.open_no_more()
            await owner.until(lambda: owner.messages == [b"still heard"])
            await owner.until(lambda: owner.lost == ["closed_1012"])
            await asyncio.sleep(300)
            assert len(server.requests) == 1

    async def sends_then_closes(connection: ServerConnection) -> None:
        await asyncio.sleep(1)
        await connection.send("still heard")
        await connection.close(1012)

    told(story)


@pytest.mark.parametrize(
    ("answer", "at_least"),
    [
        *((refusing(status), REFUSED_PAUSE) for status in (401, 403, 404, 410)),
        (refusing(429), BUSY_PAUSE),
        (refusing(503), BUSY_PAUSE),
        (refusing(429, Retry_After="17"), 17.0),
        (refusing(503, Retry_After="0"), 0.0),
        (refusing(503, Retry_After="soon"), BUSY_PAUSE),
        (refusing(503, Retry_After="9" * 400), LONGEST_RETRY_AFTER),
        (refusing(500, Retry_After="17"), 0.0),
        (refusing(200), 0.0),
    ],
    ids=lambda value: (
        f"{value.status_code} {value.headers.get('Retry-After', '')[:9]}" if isinstance(value, Response) else ""
    ),
)
def test_a_refused_handshake_says_how_long_to_stay_away(answer: Response, at_least: float) -> None:
    async def story() -> None:
        async with Scripted(answer, stays).running() as server, opened(server.url, chance=0.0) as (made, owner):
            await owner.until(lambda: made.connected, within=1000)
            assert pauses(server) == pytest.approx([max(0.125, at_least)], abs=0.05)
            assert made.why == f"http_{answer.status_code}"
            assert owner.lost == [], "what never was there is not lost"

    told(story)


def test_a_bug_of_the_owner_costs_the_connection_and_is_told() -> None:
    class Clumsy(Owner):
        def message(self, socket: UpstreamSocket, data: bytes) -> None:
            if data == b"stumble":
                raise ZeroDivisionError
            super().message(socket, data)

    async def stumbles(connection: ServerConnection) -> None:
        await connection.send("stumble")
        await stays(connection)

    async def talks(connection: ServerConnection) -> None:
        await connection.send("fine")
        await stays(connection)

    async def story() -> None:
        told_of: list[Any] = []
        here().set_exception_handler(lambda _, context: told_of.append(context["exception"]))
        async with Scripted(stumbles, talks).running() as server, opened(server.url, owner=Clumsy()) as (_, owner):
            await owner.until(lambda: owner.messages == [b"fine"])
            assert owner.lost == ["gateway_bug"]
            assert [type(bug) for bug in told_of] == [ZeroDivisionError]

    told(story)


# --- how it is lost -------------------------------------------------------------------------------------


def test_whoever_does_not_answer_pings_is_given_up_and_tried_again() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgraded(reader, writer)
        await asyncio.sleep(1000)

    async def story() -> None:
        async with (
            answering(mute) as port,
            opened(f"ws://127.0.0.1:{port}/", ping_every=3, pong_within=2) as (_, owner),
        ):
            await owner.until(lambda: len(owner.lost) == 2)
            assert owner.lost == ["ping_timeout"] * 2
            assert here().time() - owner.opened_at[1] == pytest.approx(3 + 2 + PARTING, abs=0.1)

    told(story)


def test_whoever_answers_pings_is_kept_however_quiet() -> None:
    async def story() -> None:
        async with Scripted(stays).running() as server, opened(server.url) as (made, owner):
            await asyncio.sleep(600)
            assert made.connected
            assert len(owner.opened_at) == 1
            assert owner.lost == []

    told(story)


def frame(opcode: int, content: bytes, *, fin: bool = True) -> bytes:
    assert len(content) < 126
    return bytes([opcode | (0x80 if fin else 0), len(content)]) + content


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (frame(1, b"\xff\xfe"), "protocol_error"),
        (frame(3, b""), "protocol_error"),
        (frame(1, b"half", fin=False) + frame(1, b"another"), "protocol_error"),
        (frame(1, b"half", fin=False), "connection_lost"),
        (b"", "connection_lost"),
        (b"\x81", "connection_lost"),
        (frame(8, b""), "closed_1005"),
        (frame(8, b"\x0f\xa1" + b"key=hidden"), "closed_4001"),
        (frame(1, b"half", fin=False) + frame(8, b"\x03\xe8"), "closed_1000"),
    ],
)
def test_how_a_connection_ended_is_a_closed_word(sent: bytes, why: str) -> None:
    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgraded(reader, writer)
        writer.write(sent)
        await asyncio.sleep(0.2)

    async def story() -> None:
        async with answering(ends) as port, opened(f"ws://127.0.0.1:{port}/") as (made, owner):
            await owner.until(lambda: len(owner.lost) == 2)
            assert owner.lost == [why, why]
            assert made.why == why
            assert owner.messages == []

    told(story)


def test_a_close_between_the_pieces_of_a_message_is_answered_in_kind() -> None:
    answers: list[bytes] = []

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgraded(reader, writer)
        writer.write(frame(1, b"half", fin=False) + frame(8, b"\x03\xe8"))
        opcode, length, *mask = await reader.readexactly(6)
        content = await reader.readexactly(length & 0x7F)
        answers.append(bytes([opcode]) + bytes(byte ^ mask[n % 4] for n, byte in enumerate(content)))

    async def story() -> None:
        async with answering(ends) as port, opened(f"ws://127.0.0.1:{port}/") as (_, owner):
            await owner.until(lambda: len(owner.lost) == 1)
            assert answers == [b"\x88\x03\xe8"]

    told(story)


def test_a_message_in_very_many_pieces_is_one_message() -> None:
    async def talks(connection: ServerConnection) -> None:
        await connection.send(["ab"] * 10_000)
        await stays(connection)

    async def story() -> None:
        async with Scripted(talks).running() as server, opened(server.url) as (_, owner):
            await owner.until(lambda: bool(owner.messages))
            assert owner.messages == [b"ab" * 10_000]

    told(story)


def test_a_message_larger_than_allowed_closes_the_connection_unread() -> None:
    async def talks(connection: ServerConnection) -> None:
        await connection.send("x" * 65_536)
        await connection.send(["x" * 1000] * 66)
        await stays(connection)

    async def story() -> None:
        async with Scripted(talks).running() as server, opened(server.url, message=65_536) as (_, owner):
            await owner.until(lambda: len(owner.lost) == 1)
            assert owner.lost == ["too_large"]
            assert [len(message) for message in owner.messages] == [65_536]
            await asyncio.sleep(0.05)
            assert server.close_codes == [1009]

    told(story)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "handshake_failed"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "handshake_failed"),
        (b"what?\r\n\r\n", "handshake_failed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "handshake_failed"),
        (None, "connect_timeout"),
    ],
)
def test_a_server_that_is_no_websocket_server(answer: bytes | None, why: str) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await asyncio.sleep(1000)
        writer.write(answer or b"")
        await asyncio.sleep(0.1)

    async def story() -> None:
        async with answering(answers) as port, opened(f"ws://127.0.0.1:{port}/") as (made, owner):
            while made.failures < 2:
                await asyncio.sleep(0.1)
            assert made.why == why
            assert owner.opened_at == []

    told(story)


def test_a_refused_connection_has_its_word() -> None:
    async def story() -> None:
        async with opened(f"ws://127.0.0.1:{refused_port()}/") as (made, _):
            while not made.why:
                await asyncio.sleep(0.1)
            assert made.why == "connect_failed"

    told(story)


def test_a_dropped_connection_is_opened_again() -> None:
    async def story() -> None:
        async with Scripted(stays, 4000, stays).running() as server, opened(server.url) as (made, owner):
            made.drop("nothing to drop yet")
            await owner.until(lambda: made.connected)
            made.drop("silent")
            made.drop("again")
            await owner.until(lambda: len(owner.opened_at) == 2)
            assert owner.lost == ["silent"]
            assert made.failures == 1
            await owner.until(lambda: len(owner.opened_at) == 3)
            assert owner.lost == ["silent", "closed_4000"], "the next loss has its own word"

    told(story)


# --- the end --------------------------------------------------------------------------------------------


def test_closing_says_goodbye_and_tells_the_owner_once() -> None:
    async def story() -> None:
        async with Scripted(stays).running() as server:
            async with opened(server.url) as (made, owner):
                await owner.until(lambda: made.connected)
                await made.close("route_gone")
                assert owner.lost == ["route_gone"]
                assert not made.connected
                with pytest.raises(ConnectionLost):
                    await made.send(b"x")
                await made.close("twice")
            await asyncio.sleep(100)
            assert owner.lost == ["route_gone"]
            assert len(server.requests) == 1
            assert server.close_codes == [1001]

    told(story)


def test_closing_waits_for_nobody() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgraded(reader, writer)
        while True:
            writer.write(frame(1, b"on and on"))
            await asyncio.sleep(0.01)

    async def story() -> None:
        async with answering(mute) as port, opened(f"ws://127.0.0.1:{port}/") as (made, owner):
            await owner.until(lambda: bool(owner.messages))
            began, heard = here().time(), len(owner.messages)
            await made.close()
            assert here().time() - began <= PARTING + 0.1
            assert len(owner.messages) == heard, "nothing is told after the end was asked for"
            assert owner.lost == ["closed"]

    told(story)


@pytest.mark.parametrize("after", [0.0, 0.01, 1.0, 5.1])
def test_closing_while_it_dials_or_waits_leaves_nothing_behind(after: float) -> None:
    async def swallows(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1000)

    async def story() -> None:
        async with answering(swallows) as port, opened(f"ws://127.0.0.1:{port}/") as (made, owner):
            await asyncio.sleep(after)
            await made.close()
            assert owner.lost == []

    told(story)


def test_a_socket_that_was_never_started_can_be_closed() -> None:
    async def story() -> None:
        clock = here().time
        made = UpstreamSocket(
            "oak", target_of("ws://a.example"), FeedSettings(), Resolver(clock), ConnectBudget(clock), Owner(), clock,
            Fixed(0),
        )  # fmt: skip
        await made.close()

    told(story)


# --- the budget -----------------------------------------------------------------------------------------


def test_however_many_sockets_are_lost_at_once_they_come_back_at_a_bounded_rate_and_in_turn() -> None:
    async def story() -> None:
        clock = here().time
        budget = ConnectBudget(clock)
        turns: list[tuple[float, int]] = []
        began = clock()

        async def waits(number: int) -> None:
            await budget.take()
            turns.append((clock() - began, number))

        count = 1000
        tasks = [asyncio.ensure_future(waits(number)) for number in range(count)]
        await asyncio.sleep(5)
        for number in range(100, count, 2):  # some give up while they wait
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stayed = [n for n in range(count) if n < 100 or n % 2]
        assert [number for _, number in turns] == stayed
        for granted, (at, _) in enumerate(turns, 1):
            assert granted <= CONNECTS_SAVED_UP + CONNECTS_PER_SECOND * at + 1e-6
        last = (len(stayed) - CONNECTS_SAVED_UP) / CONNECTS_PER_SECOND
        assert turns[-1][0] == pytest.approx(last, abs=0.2), "nobody's turn is lost"
        print(f"\n{len(stayed)} of {count} waited for the budget; the last one {turns[-1][0]:.1f} s")

    told(story)


def test_an_outage_of_many_endpoints_is_not_a_storm() -> None:
    async def story() -> None:
        clock, seed, count, span = here().time, 7, 60, 30.0
        budget, resolver, chance = ConnectBudget(clock), Resolver(clock), Random(seed)
        server = Scripted(refusing(500))
        async with server.running():
            sockets = [
                UpstreamSocket(f"e{n}", target_of(server.url), FeedSettings(), resolver, budget, Owner(), clock, chance)
                for n in range(count)
            ]
            for each in sockets:
                each.start()
            await asyncio.sleep(span)
            for each in sockets:
                await each.close()
        began = server.asked_at[0]
        for number, at in enumerate(server.asked_at, 1):
            assert number <= CONNECTS_SAVED_UP + CONNECTS_PER_SECOND * (at - began) + 1 + 1e-6
        tries = len(server.asked_at)
        print(f"\n{count} sockets to a dead server: {tries} handshakes in {span:.0f} s, seed {seed}")
        assert tries > count, "everybody tried more than once"

    told(story)


# --- secrets ----------------------------------------------------------------------------------------------


SECRETS = {"k3y-in-path", "k3y-in-query", "k3y-in-header", "b3arer", "pr0xy-pass", "k3y-of-the-server"}


@pytest.mark.parametrize("script", ["refuses", "redirects", "closes", "breaks", "hangs", "dead", "proxy"])
def test_secrets_are_in_no_word_no_log_and_no_error(script: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def breaks(connection: ServerConnection) -> None:
        connection.transport.write(b"\xff\xff")
        await asyncio.sleep(1)

    async def closes(connection: ServerConnection) -> None:
        await connection.send("k3y-of-the-server")
        await connection.close(4001, "k3y-of-the-server")

    async def hangs(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await asyncio.sleep(60)

    scripts: dict[str, Handler | Response] = {
        "refuses": refusing(403, X_Key="k3y-of-the-server"),
        "redirects": refusing(307, Location="ws://elsewhere.example/k3y-of-the-server"),
        "closes": closes,
        "breaks": breaks,
        "hangs": hangs,
    }
    more: dict[str, Any] = {"headers": {"X-Key": "k3y-in-header"}, "bearer": "b3arer", "query": {"key": "k3y-in-query"}}
    said: list[str] = []

    async def story() -> None:
        async with Scripted(scripts.get(script, stays)).running() as server:
            port = server.port if script in scripts else refused_port()
            if script == "proxy":
                more["proxy"] = f"http://u:pr0xy-pass@127.0.0.1:{port}"
            url = f"ws://127.0.0.1:{port}/k3y-in-path"
            async with opened(url, outbound=more, ping_every=1, pong_within=1) as (made, owner):
                for _ in range(8):
                    await asyncio.sleep(1)
                    try:
                        await made.send(b"{}")
                    except ConnectionLost as error:
                        said.append(repr(error) + str(error.__cause__) + str(error.__context__))
                said.extend([made.why, *owner.lost, repr(made), str(made), repr(made._target), repr(made._task)])
                assert made.why

    told(story)
    said.extend(f"{record.name} {record.getMessage()} {record.exc_info}" for record in caplog.records)
    for text in said:
        assert not [secret for secret in SECRETS if secret in text], text


def test_the_librarys_logger_tells_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def story() -> None:
        async with Scripted(1012, stays).running() as server, opened(server.url) as (made, owner):
            await owner.until(lambda: len(owner.opened_at) == 2)
            await made.send(b"x")

    told(story)
    assert not [record for record in caplog.records if record.name != "asyncio"]


def test_ipv6_is_spoken_where_there_is_any() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")

    async def story() -> None:
        async with Scripted(stays).running("::1") as server, opened(f"ws://[::1]:{server.port}/") as (_, owner):
            await owner.until(lambda: bool(owner.opened_at))
            assert server.requests[0].headers["Host"] == f"[::1]:{server.port}"

    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("no IPv6 loopback here")
    told(story)

"""Requests to exchanges: byte for byte there and back, by every way in."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.scenarios.house import run
from tests.scenarios.venue_house import Came, RawCaller, answer, venue_house

CALLS = int(os.environ.get("SEAWALL_CALLS", "6000"))
CALLERS = 8
SEED = 5

ODD = [
    "%2F",
    "%2f",
    "%20",
    "+",
    ";",
    ":",
    "@",
    "!",
    "~",
    "'",
    "(",
    ")",
    "*",
    ",",
    "%00",
    "%25",
    "%c3%a9",
    "%C3%A9",
    "%",
]
PARTS = [
    "api",
    "v3",
    "order",
    "..",
    ".",
    "",
    "a",
    "Z",
    "0",
    "%E6%97%A5",
    "{x}",
    "|",
    "^",
    "[",
    "]",
    "\\",
    '"',
    "<",
    ">",
]
VERBS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]
NAMES = [
    "X-KEY",
    "x-Key",
    "Sign",
    "SIGN",
    "KC-API-SIGN",
    "X-odd_name",
    "Accept",
    "content-type",
    "User-AGENT",
    "Cookie",
]
VALUES = ["a", "", "é".encode().decode("latin-1"), "a, b", "==", 'q"u', "  ".join("ab"), "Zm9v+/=="]


def a_target(chance: random.Random) -> str:
    """A path and a query of the kinds that frameworks like to tidy up."""
    path = "/" + "/".join(
        "".join(chance.choice(PARTS + ODD) for _ in range(chance.randint(0, 3))) for _ in range(chance.randint(0, 4))
    )
    if chance.random() < 0.3:
        return path
    pairs = []
    for _ in range(chance.randint(0, 5)):
        name = chance.choice(["symbol", "a", "a", "", "limit", "%61", "x%5B%5D"])
        value = "".join(chance.choice([*ODD, "B", "1", "=", "?", "/"]) for _ in range(chance.randint(0, 4)))
        pairs.append(name if chance.random() < 0.2 else f"{name}={value}")
    return path + "?" + "&".join(pairs)


def a_request(chance: random.Random, number: int) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]:
    """The request as a caller sends it, and what the exchange must get: line, header fields, body."""
    verb, target = chance.choice(VERBS), a_target(chance)
    body = b""
    if verb not in ("GET", "HEAD"):
        body = chance.choice(
            [b"", b"a=1&a=2&b=", chance.randbytes(chance.randint(1, 300)), '{"é": "日本"}'.encode(), b'{"a":1, "a":1}']
        )
    way = number % 4
    host = b"localhost"
    if way == 0:
        asked = "/plain" + target
    elif way == 1:
        asked, host = target, b"plain.localhost:4000"
    elif way == 2:
        asked = "/via/https://api.plain.test" + target
    else:
        asked = "/via/" + quote("https://api.plain.test" + target, safe="")
    fields = [(b"X-Number", b"%d" % number)]
    fields += [
        (chance.choice(NAMES).encode(), chance.choice(VALUES).encode("latin-1")) for _ in range(chance.randint(0, 5))
    ]
    if body or chance.random() < 0.2:
        fields.append((b"Content-Length", b"%d" % len(body)))
    chance.shuffle(fields)
    lines = b"".join(b"%b: %b\r\n" % one for one in fields)
    request = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b\r\n%b" % (verb.encode(), asked.encode(), host, lines, body)
    return request, f"{verb} {target} HTTP/1.1".encode(), fields, body


def test_every_request_arrives_exactly_as_it_was_sent_and_every_answer_comes_back_as_it_was_given(
    tmp_path: Path,
) -> None:
    chance = random.Random(SEED)
    said: dict[bytes, tuple[int, bytes]] = {}
    came: dict[bytes, Came] = {}

    def say(request: Came) -> bytes:
        number = request.header(b"x-number")
        if number is None:
            return answer()
        came[number] = request
        status = 200 + int(number) % 3 if int(number) % 5 else 404
        body = (
            b'{"%b": 1 , "a":2}\r\n' % chance.randbytes(30).hex().encode() if int(number) % 7 else b'{"a" : "\xc3\xa9"}'
        )
        said[number] = (status, body)
        if request.line.startswith(b"HEAD"):
            return b"HTTP/1.1 %d X\r\nX-ODD: %b\r\nContent-Length: 77\r\n\r\n" % (status, number)
        return answer(body, status, (b"X-ODD", number), (b"Set-Cookie", b"a=1"), (b"Connection", b"keep-alive"))

    async def one_caller(port: int, numbers: range) -> None:
        caller = await RawCaller.open(port)
        mine = random.Random(SEED * 1000 + numbers.start)
        for number in numbers:
            request, line, fields, body = a_request(mine, number)
            name = b"%d" % number
            if request.startswith(b"HEAD"):
                request = request.replace(b"HEAD", b"GET", 1)  # its answer's length is another matter
                line = line.replace(b"HEAD", b"GET", 1)
            status, headers, back = await caller.ask(request)
            got = came.pop(name)
            assert (got.line, got.body) == (line, body), request
            assert [one for one in got.headers if one[0] != b"Host"] == fields, request
            assert (status, back, headers[b"x-odd"]) == (*said.pop(name), name), request
            assert headers[b"set-cookie"] == b"a=1"
            assert b"server" not in headers
        caller.close()

    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            house.servers[0].say = say
            share = CALLS // CALLERS
            await asyncio.gather(*(one_caller(house.port, range(i * share, (i + 1) * share)) for i in range(CALLERS)))
        print(f"{share * CALLERS} requests, by path, by host, behind /via/ plain and encoded: all as sent; seed {SEED}")

    run(scenario())


def test_a_compressed_answer_stays_compressed_and_a_large_one_comes_whole(tmp_path: Path) -> None:
    small = gzip.compress(b'{"a":1}' * 10)
    large = random.Random(1).randbytes(3_000_000)

    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            for server in house.servers:
                server.say = lambda came: (
                    answer(small, 200, (b"Content-Encoding", b"gzip"))
                    if came.target == b"/small"
                    else answer(large, 200)
                )
            caller = await RawCaller.open(house.port)
            status, headers, body = await caller.call("GET", "/plain/small")
            assert (status, headers[b"content-encoding"], body) == (200, b"gzip", small)
            status, headers, body = await caller.call("GET", "/plain/large")
            assert (status, body) == (200, large)
            caller.close()

    run(scenario())


def test_head_has_the_length_of_a_body_that_does_not_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            for server in house.servers:
                server.say = lambda came: b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            for _ in range(3):
                writer.write(b"HEAD /plain/ticker HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"content-length: 77" in head
                assert b" 200 " in head
            writer.close()

    run(scenario())


def test_hop_by_hop_fields_and_our_own_stay_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            house.servers[0].say = lambda came: answer(
                b"{}",
                200,
                (b"Connection", b"X-Hop"),
                (b"X-Hop", b"1"),
                (b"X-Seawall-Execution", b"done"),
                (b"Via", b"v"),
            )
            caller = await RawCaller.open(house.port)
            _, headers, _ = await caller.call(
                "POST", "/plain/order", b"id=1",
                ("Connection", "keep-alive, X-Mine"), ("X-Mine", "1"), ("X-Seawall-Timeout", "2s"), ("TE", "trailers"),
                ("Proxy-Authorization", "secret"), ("Expect", "100-continue"), ("Forwarded", "for=192.0.2.1"),
                ("X-Forwarded-For", "192.0.2.1"), ("X-Real-IP", "192.0.2.1"),
            )  # fmt: skip
            names = {name.lower() for name, _ in house.came[0].headers}
            assert names == {b"host", b"content-length"}
            assert b"x-hop" not in headers
            assert headers[b"via"] == b"v"
            assert headers[b"x-seawall-execution"] == b"done"  # ours, and once
            caller.close()

    run(scenario())


@pytest.mark.parametrize(
    "named", ["content-length", "close, Content-Length", "host, transfer-encoding, CONTENT-LENGTH"]
)
def test_no_request_is_smuggled_in_a_body_whose_length_is_named_by_connection(tmp_path: Path, named: str) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            caller = await RawCaller.open(house.port)
            inner = b"DELETE /order?id=1 HTTP/1.1\r\nHost: x\r\n\r\n"
            status, _, _ = await caller.call("POST", "/plain/order", inner, ("Connection", named))
            assert status == 200
            assert [(came.line, came.body) for came in house.came] == [(b"POST /order HTTP/1.1", inner)]
            caller.close()

    run(scenario())


@pytest.mark.parametrize(
    "target",
    [
        "/order?id=1", "/%6Frder", "/%256Frder", "//order", "/order/", "/./order", "/x/../order", "/ORDER",
        "/order;x=1", "/order%2F", "/%2Forder",
    ],
)  # fmt: skip
def test_a_denied_call_is_denied_in_every_spelling(tmp_path: Path, target: str) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, route_extra="    methods: {deny: ['POST /order']}\n") as house:
            for way in (f"/plain{target}", f"/via/https://api.plain.test{target}"):
                caller = await RawCaller.open(house.port)
                status, _, body = await caller.call("POST", way, b"a=1")
                assert (status, b"method_refused" in body) == (403, True), (way, status, body)
                caller.close()
            assert house.came == []
            caller = await RawCaller.open(house.port)
            assert (await caller.call("POST", "/plain/orders", b"a=1"))[0] == 200
            caller.close()

    run(scenario())


def test_a_page_of_a_listed_origin_may_ask_and_is_told_so_once(tmp_path: Path) -> None:
    page = ("Origin", "https://app.example")

    async def scenario() -> None:
        extra = "origins: ['https://app.example']\nkeys: {bot: {key: 'a-key-of-a-bot-0123456789'}}"
        async with venue_house(tmp_path, count=1, extra=extra) as house:
            house.servers[0].say = lambda came: answer(b"{}", 200, (b"Access-Control-Allow-Origin", b"*"))
            caller = await RawCaller.open(house.port)
            asks = (("Access-Control-Request-Method", "DELETE"), ("Access-Control-Request-Headers", "x-key, x-sign"))
            status, headers, _ = await caller.call("OPTIONS", "/plain/order", b"", page, *asks)  # browsers send no key
            assert status == 204
            assert headers[b"access-control-allow-origin"] == b"https://app.example"
            assert b"DELETE" in headers[b"access-control-allow-methods"]
            assert headers[b"access-control-allow-headers"] == b"x-key, x-sign"
            assert house.came == []
            status, _, _ = await caller.call("OPTIONS", "/plain/order", b"", ("Origin", "https://evil.example"), *asks)
            assert status == 403
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(
                b"GET /plain/account HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\n"
                b"X-Seawall-Key: a-key-of-a-bot-0123456789\r\nConnection: close\r\n\r\n"
            )
            head = (await reader.read(-1)).lower()
            writer.close()
            assert head.count(b"access-control-allow-origin:") == 1
            assert b"access-control-allow-origin: https://app.example" in head
            _, headers, _ = await caller.call(
                "GET", "/plain/account", b"", ("X-Seawall-Key", "a-key-of-a-bot-0123456789")
            )
            assert headers[b"access-control-allow-origin"] == b"*"  # of no page: the venue's own word
            caller.close()

    run(scenario())


def test_a_chunked_body_arrives_whole_with_its_length(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            caller = await RawCaller.open(house.port)
            await caller.ask(
                b"POST /plain/order HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3\r\na=1\r\n4\r\n&b=2\r\n0\r\n\r\n"
            )
            (came,) = house.came
            assert came.body == b"a=1&b=2"
            assert came.header(b"content-length") == b"7"
            assert came.header(b"transfer-encoding") is None
            caller.close()

    run(scenario())


def test_an_empty_chunked_body_is_a_body_of_no_bytes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            caller = await RawCaller.open(house.port)
            await caller.ask(
                b"POST /plain/order HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            )
            (came,) = house.came
            assert (came.header(b"content-length"), came.body) == (b"0", b"")
            caller.close()

    run(scenario())


def test_a_caller_that_calls_the_length_hop_by_hop_smuggles_nothing(tmp_path: Path) -> None:
    """A body without its length would be the next request on the exchange's connection."""
    hidden = b"POST /order?id=2 HTTP/1.1\r\nHost: api.plain.test\r\nX-Key: k\r\n\r\n"

    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            caller = await RawCaller.open(house.port)
            for named in (b"Content-Length", b"close, content-length", b"X-Mine, Content-Length, Host"):
                house.servers[0].came.clear()
                await caller.ask(
                    b"POST /plain/order HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, %b\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (named.replace(b"close, ", b""), len(hidden), hidden)
                )
                await caller.call("POST", "/plain/order", b"id=3")
                assert [came.line for came in house.came] == [b"POST /order HTTP/1.1"] * 2
                assert house.came[0].body == hidden
            caller.close()

    run(scenario())


def test_a_read_that_no_file_lists_may_be_anything_and_is_no_write(tmp_path: Path) -> None:
    """Reports are CSV: no failure of the host, and nothing to reconcile."""
    report = b"time,price\r\n1,2\r\n"

    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            for server in house.servers:
                server.say = lambda came: answer(report, 200, (b"Content-Type", b"text/csv"))
            caller = await RawCaller.open(house.port)
            for _ in range(20):
                status, headers, body = await caller.call("GET", "/plain/report")
                assert (status, body) == (200, report)
                assert b"x-seawall-execution" not in headers
            for server in house.servers:
                server.say = lambda came: None
            before = len(house.came)
            status, headers, _ = await caller.call("GET", "/plain/report")
            assert status == 502
            assert b"x-seawall-execution" not in headers
            assert len(house.came) == before + 1  # and it is asked once
            status, headers, _ = await caller.call("POST", "/plain/anything", b"{}")
            assert headers[b"x-seawall-execution"] == b"unknown"
            caller.close()

    run(scenario())


def test_a_get_gets_no_body_and_no_length(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            caller = await RawCaller.open(house.port)
            await caller.call("GET", "/plain/account?a", b"", ("Content-Type", "application/json"))
            (came,) = house.came
            assert came.header(b"content-length") is None
            assert came.body == b""
            caller.close()

    run(scenario())


@pytest.mark.parametrize(
    ("asked", "status", "reason"),
    [
        ("/via/https://evil.test/x", 404, b"unknown_route"),
        ("/via/https://api.plain.test:444/x", 404, b"unknown_route"),
        ("/via/https://user@api.plain.test/x", 404, b"unknown_route"),
        ("/via/ftp://api.plain.test/x", 400, b"bad_http"),
        ("/via/api.plain.test/x", 400, b"bad_http"),
        ("/via/https%3A%2F%2Fapi.plain.test%2Fx%0D%0AX-Evil%3A%201", 400, b"bad_http"),
        ("/via/https%3A%2F%2Fapi.plain.test%2Fa%20b", 400, b"bad_http"),
        ("/via/https%253A%252F%252Fapi.plain.test%252Fx", 400, b"bad_http"),
        ("/via//https://api.plain.test/x", 400, b"bad_http"),
        ("/via/https://api.plain.test:443@evil.test/x", 404, b"unknown_route"),
        ("/via/https://evil.test#@api.plain.test/x", 404, b"unknown_route"),
        ("/via/https://evil.test?@api.plain.test/x", 404, b"unknown_route"),
        ("/via/https://api.plain.test\\@evil.test/x", 404, b"unknown_route"),
        ("/via/https://api.plain.test%2Eevil.test/x", 404, b"unknown_route"),
        ("/via/https://api.plain.test./x", 404, b"unknown_route"),
        ("/via/https://api.plain.test:/x", 404, b"unknown_route"),
        ("/via/https://xn--api-plain.test/x", 404, b"unknown_route"),
        ("/via/https://127.0.0.1/x", 404, b"unknown_route"),
        ("/via/https://[::1]/x", 404, b"unknown_route"),
        ("/via/https%3A%2F%2Fapi.plain.test%40evil.test%2Fx", 404, b"unknown_route"),
        ("/via/https://", 404, b"unknown_route"),
        ("/via/file:///etc/passwd", 400, b"bad_http"),
        ("/via/", 400, b"bad_http"),
        ("http://api.plain.test/x", 400, b"must be a path"),
    ],
)
def test_only_configured_hosts_are_reached_and_nothing_is_decoded_twice(
    tmp_path: Path, asked: str, status: int, reason: bytes
) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path) as house:
            caller = await RawCaller.open(house.port)
            got, _, body = await caller.call("GET", asked)
            assert (got, reason in body) == (status, True), body
            assert house.came == []
            caller.close()

    run(scenario())


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("/plain", b"/"),
        ("/plain?", b"/?"),
        ("/plain/a?", b"/a?"),
        ("/plain//evil.test/x", b"//evil.test/x"),
        ("/plain/../via/https://evil.test", b"/../via/https://evil.test"),
        ("/plain/..;/%2e%2e/%2F", b"/..;/%2e%2e/%2F"),
        ("/plain/a#b", b"/a#b"),
        ("/via/https://API.Plain.Test:443/x?y", b"/x?y"),
        ("/via/HTTPS:/api.plain.test/x", b"/x"),
        ("/via/https://api.plain.test?x=1", b"/?x=1"),
        ("/via/https://api.plain.test//evil.test/x", b"//evil.test/x"),
        ("/via/https%3a%2f%2fapi.plain.test%2fa%3fb%3d%252F%2525", b"/a?b=%2F%25"),
        ("/via/https%3A%2F%2Fapi.plain.test%2Fa?b=%252F", b"/a?b=%252F"),
        ("/via/https://api.plain.test/x#part", b"/x"),
    ],
)
def test_an_odd_target_goes_to_the_configured_host_as_it_is(tmp_path: Path, asked: str, target: bytes) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path, count=1) as house:
            caller = await RawCaller.open(house.port)
            status, _, body = await caller.call("GET", asked)
            assert (status, [came.target for came in house.came]) == (200, [target]), body
            caller.close()

    run(scenario())


def test_credentials_in_headers_are_the_venues_and_ours_come_in_a_header_of_ours_or_the_path(tmp_path: Path) -> None:
    extra = "keys: {bot: {key: 'a-key-of-a-bot-0123456789'}}"

    async def scenario() -> None:
        async with venue_house(tmp_path, count=1, extra=extra) as house:
            caller = await RawCaller.open(house.port)
            key = ("X-Seawall-Key", "a-key-of-a-bot-0123456789")
            theirs = ("Authorization", "Bearer theirs"), ("X-API-Key", "theirs")
            status, _, _ = await caller.call("GET", "/plain/account", b"", key, *theirs)
            assert status == 200
            assert house.came[0].header(b"authorization") == b"Bearer theirs"
            assert house.came[0].header(b"x-api-key") == b"theirs"
            assert house.came[0].header(b"x-seawall-key") is None
            status, _, _ = await caller.call("GET", "/key/a-key-of-a-bot-0123456789/plain/account?a=1")
            assert (status, house.came[1].target) == (200, b"/account?a=1")
            status, _, _ = await caller.call("GET", "/key/a-key-of-a-bot-0123456789/via/https://api.plain.test/account")
            assert (status, house.came[2].target) == (200, b"/account")
            by_host = b"GET /key/a-key-of-a-bot-0123456789/account?b HTTP/1.1\r\nHost: plain.localhost\r\n\r\n"
            status, _, _ = await caller.ask(by_host)
            assert (status, house.servers[0].came.pop().target) == (200, b"/account?b")  # our key never goes on
            for wrong in (("Authorization", "Bearer a-key-of-a-bot-0123456789"), ("X-Seawall-Key", "wrong")):
                other = await RawCaller.open(house.port)
                status, _, body = await other.call("GET", "/plain/account", b"", wrong)
                assert (status, b"unauthorized" in body) == (401, True)
                other.close()
            assert len(house.came) == 4
            caller.close()

    run(scenario())

"""What is forwarded leaves and comes back byte for byte, over both engines, once."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from gateway.errors import AttemptError, AttemptTimeout
from gateway.model import Sent
from gateway.upstream.wire.engine import Engine
from tests.upstream.scripted import ScriptedUpstream, answer
from tests.upstream.wire.test_engine_contract import CALL, ENDS, ENGINES, PATHS, TIMEOUT, Make, over
from tests.virtual import here

FIELDS = (
    b"X-MBX-APIKEY: k\r\nx-odd_Name: two  words\r\nA: 1\r\nA: 2\r\na: \r\nUser-Agent: bot/1\r\n"
    b"Cookie: a=b; c=d\r\nAccept-Encoding: gzip, br\r\n"
)
"""Mixed case, duplicates, an empty value: as bots send them."""


PACKED = {name for name in ENDS if "gzip" in name} | {"an unknown coding", "two codings of the content"}
"""Passed on as they come: the caller may understand them."""


async def forward(
    engine: Engine, verb: bytes = b"POST", target: bytes = b"/order", head: bytes = FIELDS, body: bytes = CALL
) -> Any:
    if body:
        head += b"Content-Length: %d\r\n" % len(body)
    return await engine.forward(verb, target, head, body, here().time() + TIMEOUT, careful=verb != b"GET")


@ENGINES
@pytest.mark.parametrize("target", [*PATHS, "/?", "/a?b=%20+c&b=&&=", "//evil.test/x", "/a?url=http://b/#c"])
@pytest.mark.parametrize(("verb", "body"), [("GET", b""), ("POST", b"a=1&a=2\r\n\x00"), ("DELETE", b""), ("POST", b"")])
def test_line_fields_and_body_leave_as_they_are_and_nothing_is_added(
    make: Make, target: str, verb: str, body: bytes
) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for _ in range(2):
            assert (await forward(engine, verb.encode(), target.encode(), body=body)).status == 200
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        expected = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-mine: Yes\r\n%b%b\r\n%b" % (
            verb.encode(), target.encode(), upstream.port, FIELDS, length, body
        )  # fmt: skip
        heard = bytes(upstream.conversations[0].heard)
        assert heard == expected * 2

    over(make, ScriptedUpstream([answer(b"{}")]), work, headers={"X-mine": "Yes"}, forwards=True)


@ENGINES
def test_an_answer_comes_back_as_it_is_compressed_or_not(make: Make) -> None:
    packed = gzip.compress(b"{}")
    odd = answer(packed, b"Content-Encoding: gzip", b"Set-Cookie: a", b"Set-Cookie: b", status=b"418 Teapot")

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for _ in range(2):
            reply = await forward(engine)
            assert (reply.status, reply.body) == (418, packed)
            assert [value for name, value in reply.headers if name.lower() == b"set-cookie"] == [b"a", b"b"]

    over(make, ScriptedUpstream([odd]), work)


@ENGINES
def test_an_answer_to_head_has_no_body_whatever_its_length_says(make: Make) -> None:
    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        for _ in range(2):
            reply = await forward(engine, b"HEAD", b"/ticker", body=b"")
            assert (reply.status, reply.body, reply.header(b"content-length")) == (200, b"", b"77")

    over(make, ScriptedUpstream([b"HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n"]), work)


@ENGINES
@pytest.mark.parametrize("name", [name for name in ENDS if name not in PACKED])
def test_a_broken_exchange_is_never_repeated_and_never_taken_for_not_sent(make: Make, name: str) -> None:
    end = ENDS[name]

    async def work(engine: Engine, upstream: ScriptedUpstream) -> None:
        with pytest.raises(AttemptError) as raised:
            await forward(engine)
        assert (type(raised.value), raised.value.sent) == (end.error, end.sent)
        assert raised.value.sent is not Sent.NOT_SENT
        assert len(upstream.requests) == 1
        assert isinstance(raised.value, AttemptTimeout) == (end.error is AttemptTimeout)

    over(make, ScriptedUpstream(end.script), work)

"""What bots show an exchange is seen by that exchange alone, whatever goes wrong: no output of ours repeats it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from pathlib import Path
from urllib.parse import quote

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, WebSocketException

from gateway.telemetry.logs import configure_logging
from gateway.telemetry.redaction import encodings
from tests.scenarios.house import run
from tests.scenarios.test_operations import get
from tests.scenarios.venue_house import PLAIN_VENUE, Answer, Came, RawCaller, answer, venue_house
from tests.telemetry.collector import Collector

QUIET = logging.getLogger("tests.quiet")  # the test's own sockets tell everything at debug
QUIET.disabled = True
SECRETS = {
    "key header": "Kq7venuekey9f8e7d6c5b4a",
    "passphrase header": "odd/pass+phrase=1 2",
    "authorization": "jwtsecret0011223344556677",
    "cookie": "cookiesecret998877665544",
    "signature in the query": "5a9f0c5b77d1e2signature",
    "key in the query": "querykey:00aabbccddeeff",
    "secret in the body": 'bodysecret"quoted\\back',
    "listen key of a stream": "listenkeyA1B2C3D4E5F6",
    "token of a stream": "streamtoken/with+odd=chars",
    "login on a stream": "loginframesecret55443322",
    "our key in the path": "ourpathkey-0123456789abcdef",
    "our key in a header": "ourheaderkey-0123456789abcd",
}
VENUE = PLAIN_VENUE | {
    "signing": {
        "key": ["x-key", "?apiKey"],
        "marks": ["x-key", "x-passphrase", "?signature"],
        "timestamp": "?timestamp",
    },
    "errors": {
        "code": ["code"],
        "text": ["msg"],
        "rules": [{"status": ["5xx"], "word": "unknown"}, {"codes": ["-1003"], "word": "throttled", "each": "account"}],
    },
}


def echoed(came: Came) -> str:
    """Everything of a request, as exchanges and those in front of them like to repeat it."""
    lines = [came.line, *(b"%b: %b" % header for header in came.headers), came.body]
    return b"\n".join(lines).decode("latin-1")


def faults() -> list[tuple[str, object]]:
    """What a host answers, each with the whole request in it."""
    return [
        ("an error", lambda c: answer(json.dumps({"code": echoed(c), "msg": echoed(c)}).encode(), 400)),
        ("a fault", lambda c: answer(json.dumps({"code": -1, "msg": echoed(c)}).encode(), 500)),
        ("text", lambda c: answer(echoed(c).encode(), 502)),
        ("a limit", lambda c: answer(json.dumps({"code": -1003, "msg": echoed(c)}).encode(), 429)),
        ("a redirect", lambda c: answer(b"", 302, (b"Location", b"http://127.0.0.1" + c.target))),
        ("nonsense", lambda c: answer(echoed(c).encode(), 200)),
        ("no http", lambda c: echoed(c).encode()),
        ("a cut", lambda c: None),
        ("a short answer", lambda c: b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + echoed(c).encode()),
    ]


async def ask_in_every_way(port: int) -> list[bytes]:
    """Orders, reads and streams with a secret in every place; what we said of ourselves comes back."""
    said: list[bytes] = []
    query = f"timestamp=1&apiKey={quote(SECRETS['key in the query'])}&signature={SECRETS['signature in the query']}"
    headers = (
        ("X-Key", SECRETS["key header"]),
        ("X-Passphrase", SECRETS["passphrase header"]),
        ("Authorization", f"Bearer {SECRETS['authorization']}"),
        ("Cookie", f"session={SECRETS['cookie']}"),
        ("X-Seawall-Timeout", "700ms"),
    )
    body = json.dumps({"secret": SECRETS["secret in the body"], "id": "c1"}).encode()
    key = SECRETS["our key in the path"]
    for verb, target, more in (
        ("POST", f"/key/{key}/plain/order?id=c1&symbol=X&{query}", ()),
        ("GET", f"/key/{key}/plain/account?{query}", ()),
        ("DELETE", f"/plain/unlisted/{SECRETS['key in the query']}?{query}", ()),
        ("GET", f"/key/{key}/via/https%3A%2F%2Fapi.plain.test%2Fticker%3F{quote(query)}", ()),
        ("GET", f"/key/wrong{key}/plain/account?{query}", ()),
        ("GET", f"/key/{key}/via/https://elsewhere.test/{SECRETS['key in the query']}?{query}", ()),
    ):
        ours = () if "/key/" in target else (("X-Seawall-Key", SECRETS["our key in a header"]),)
        caller = await RawCaller.open(port)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            told = await asyncio.wait_for(
                caller.call(verb, target, body if verb == "POST" else b"", *headers, *ours, *more), 5
            )
            said += [b"%b: %b" % item for item in told[1].items() if item[0].startswith(b"x-seawall")]
            said += [told[2]] if b'"reason"' in told[2] else []
        caller.close()
    return said


async def stream_in_every_way(port: int) -> None:
    key = SECRETS["our key in the path"]
    for path in (
        f"/key/{key}/plain/ws/{SECRETS['listen key of a stream']}",
        f"/key/{key}/plain/private?token={quote(SECRETS['token of a stream'], safe='')}",
        f"/key/{key}/plain/refused/{SECRETS['listen key of a stream']}?token={quote(SECRETS['token of a stream'])}",
    ):
        with contextlib.suppress(OSError, WebSocketException, TimeoutError):
            async with connect(
                f"ws://127.0.0.1:{port}{path}",
                proxy=None,
                additional_headers={"X-Key": SECRETS["key header"]},
                logger=QUIET,
            ) as socket:
                await socket.send(json.dumps({"op": "login", "args": [SECRETS["login on a stream"]]}))
                await asyncio.wait_for(socket.recv(), 2)
                await socket.send("die")
                await asyncio.wait_for(socket.recv(), 2)


async def repeating(socket: ServerConnection) -> None:
    """An exchange's stream that repeats what it hears, and then ends with it."""
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            if message == "die":
                await socket.close(1011, SECRETS["login on a stream"])
            else:
                await socket.send(message)


def test_no_secret_that_bots_show_an_exchange_is_seen_in_any_output_whatever_goes_wrong(tmp_path: Path) -> None:
    collector = Collector()
    log = io.StringIO()
    seen: list[str] = []

    async def scenario() -> None:
        extra = (
            f"telemetry: {{traces: {{endpoint: '{collector.url}', sample: 1, export_every: 50ms, per_second: 1000}}}}\n"
            f"keys:\n  a: {{key: '{SECRETS['our key in the path']}'}}\n  b: {{key: '{SECRETS['our key in a header']}'}}"
        )
        server = await serve(
            repeating,
            "127.0.0.1",
            0,
            logger=QUIET,
            process_request=lambda c, r: c.respond(403, r.path) if "refused" in r.path else None,
        )
        stream = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        async with venue_house(tmp_path, venue=VENUE, extra=extra, streams=[stream]) as h:
            put_back = configure_logging("debug", "json", h.gateway._redactor, log)
            reached: set[str] = set()
            for _, say in faults():

                def said(came: Came, say: object = say) -> Answer:
                    reached.update(name for name, value in SECRETS.items() if value in echoed(came))
                    return say(came)  # type: ignore[no-any-return, operator]

                for recorder in h.servers:
                    recorder.say = said
                seen.extend(text.decode("latin-1") for text in await ask_in_every_way(h.port))
                seen.append(json.dumps(h.gateway.status()))
            await stream_in_every_way(h.port)
            assert {"key header", "passphrase header", "authorization", "cookie", "signature in the query"} <= reached
            assert not {"our key in the path", "our key in a header"} & reached
            pages = ("/status.json", "/metrics", "/readyz", "/explain?route=plain&method=GET%20/account")
            seen.extend([(await get(h.gateway.operations_port, path))[1] for path in pages])
            put_back()
        server.close()

    try:
        run(scenario())
    finally:
        collector.close()
    assert len(collector.spans) > 20
    assert len(log.getvalue()) > 1000
    text = "\n".join([*seen, log.getvalue(), *(str(request) for _, _, request in collector.received)])
    for name, value in SECRETS.items():
        for form in {value, quote(value, safe=""), *encodings(value)}:
            assert form not in text, f"the {name} was seen as {form!r}: {text[text.find(form) - 200 : text.find(form)]}"

"""No secret of an endpoint's WebSocket is in anything that callers or operators see, whatever goes wrong."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.parse
from pathlib import Path
from typing import Any

from gateway.drill.faults import Fault
from gateway.drill.socket import SocketFault
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.redaction import encodings
from tests.scenarios.house import house, run
from tests.scenarios.scripted_sockets import ScriptedSockets
from tests.scenarios.subscriber import Subscriber
from tests.scenarios.test_operations import TOKEN, get
from tests.telemetry.collector import Collector

BLOCK_TIME = 0.25
SECRETS = {
    "path": "wspathsecret-9f8e7d6c5b4a",
    "query": "wsquerysecret/with+odd=chars",
    "header": 'wsheadersecret"quoted\\back',
    "bearer": "wsbearersecret-00112233445566",
}


def test_no_secret_of_a_socket_is_seen_in_any_output_whatever_goes_wrong(tmp_path: Path, monkeypatch: Any) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(f"CANARY_{name.upper()}", value)
    collector = Collector()
    log = io.StringIO()
    seen: list[str] = []

    async def scenario() -> None:
        endpoint = (
            ", query: {key: '${CANARY_QUERY}'}, headers: {X-Secret: '${CANARY_HEADER}'}, bearer: '${CANARY_BEARER}'"
            ", ws: true"
        )
        extra = f"telemetry: {{traces: {{endpoint: '{collector.url}', sample: 1, export_every: 50ms}}}}"
        async with (
            house(
                tmp_path, extra=extra, endpoint_extra=endpoint, path="/v3/${CANARY_PATH}", block_time=BLOCK_TIME
            ) as h,
            ScriptedSockets() as telltale,
        ):
            put_back = configure_logging("debug", "json", h.gateway._redactor, log)
            socket = await Subscriber.open(h.port)
            await socket.subscribe("newHeads")
            await socket.subscribe("logs", {})
            await socket.subscribe("newPendingTransactions")
            assert any(SECRETS["path"].encode() in p.last_head for p in h.providers)  # the canary is in use
            for fault in SocketFault:
                for provider in h.providers:
                    provider.strike_sockets(fault, 2.0)
                await asyncio.sleep(BLOCK_TIME)
                for provider in h.providers:
                    provider.heal_sockets()
            for refusal in (Fault.STATUS_403, Fault.RESET_ON_ACCEPT, Fault.GARBAGE_ON_ACCEPT):
                struck = h.providers[:1] if refusal is Fault.STATUS_403 else h.providers  # it excludes an endpoint
                for provider in struck:
                    provider.script.set(refusal)
                    provider.strike_sockets(SocketFault.RESET)
                await asyncio.sleep(BLOCK_TIME)
                for provider in h.providers:
                    provider.script.clear()
            # an endpoint that repeats our key in its refusal
            telltale.refusal = {"code": -32000, "message": f"bad key {SECRETS['path']} at /v3?key={SECRETS['query']}"}
            text = h.config.read_text()
            h.config.write_text(
                "\n".join(
                    row.replace("ws: true", f"ws: '{telltale.url}/v3/${{CANARY_PATH}}/{n}'")
                    for n, row in enumerate(text.split("\n"))
                )
            )
            assert await h.gateway.reload()
            other = await Subscriber.open(h.port)
            refusal = ""
            for _ in range(40):  # after so many faults a connection may have to wait for its turn
                refusal = json.dumps(await other.call("eth_subscribe", "newPendingTransactions", True))
                seen.append(refusal)
                if "bad key" in refusal:
                    break
                await asyncio.sleep(BLOCK_TIME)
            assert "bad key" in refusal  # the endpoint's own words
            assert telltale.paths
            assert all(SECRETS["path"] in path for path in telltale.paths)
            seen.extend(
                [
                    (await get(h.gateway.operations_port, path, token=TOKEN))[1]
                    for path in ("/status.json", "/metrics", "/readyz")
                ]
            )
            for each in (socket, other):
                seen.append(json.dumps([message for _, message in each.events]) + json.dumps(each.notices))
                each.close()
            put_back()

    try:
        run(scenario())
    finally:
        collector.close()
    assert collector.spans
    text = "\n".join([*seen, log.getvalue(), *(str(request) for _, _, request in collector.received)])
    assert len(log.getvalue()) > 200
    for name, value in SECRETS.items():
        for form in {value, urllib.parse.quote(value, safe=""), *encodings(value)}:
            assert form not in text, f"the {name} secret was seen as {form!r}"

"""What operators do and see: reload, drain, readiness, stop, keys; and that no secret is ever seen."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import wall_seconds
from gateway.drill.faults import Fault, Stage
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.redaction import Redactor, encodings
from tests.scenarios.caller import Caller, ask, many
from tests.scenarios.house import House, house, run
from tests.scenarios.venue_house import venue_house
from tests.telemetry.collector import Collector, attributes

TOKEN = "a-token-for-tests-only"


async def get(port: int, path: str, method: str = "GET", token: str | None = TOKEN) -> tuple[int, str]:
    """One request to a page; status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = f"Authorization: Bearer {token}\r\n" if token else ""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{key}Connection: close\r\n\r\n".encode())
    answer = (await reader.read(-1)).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    if "transfer-encoding: chunked" in head:
        body = "".join(body.split("\r\n")[1::2])
    return int(head.split(" ")[1]), body


def test_a_drained_endpoint_gets_no_call_until_an_operator_undrains_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            operations = home.gateway.operations_port
            for name in ("p0", "p1"):
                assert (await get(operations, f"/drain?route=local&endpoint={name}", "POST"))[0] == 200
            seen = [p.calls.total() for p in home.providers]
            assert not (await many(home.port, "/local", 100, 4)).lost
            assert [p.calls.total() for p in home.providers[:2]] == seen[:2]
            assert home.state("p0")["reasons"][0]["reason"] == "drained"
            assert home.state("p0")["reasons"][0]["since"] > 1_600_000_000
            home.providers[2].script.set(Fault.STATUS_503)  # not even in need
            for _ in range(10):
                told = await ask(home.port, "/local", Caller.call, "eth_blockNumber")
                assert "error" in told.body
            assert [p.calls.total() for p in home.providers[:2]] == seen[:2]
            assert (await get(operations, "/undrain?route=local&endpoint=p0", "POST"))[0] == 200
            assert not (await many(home.port, "/local", 20, 2)).lost

    run(scenario())


def test_operations_need_their_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            operations = home.gateway.operations_port
            for path in ("/metrics", "/status.json", "/explain?route=local&method=eth_call"):
                assert (await get(operations, path, token=None))[0] == 401
                assert (await get(operations, path, token="wrong" * 5))[0] == 401
                assert (await get(operations, path))[0] == 200
            assert (await get(operations, "/livez", token=None))[0] == 200

    run(scenario())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: localhost\r\n", 200),
        ("Host: 127.0.0.1:4001\r\n", 200),
        ("Host: localhost\r\nSec-Fetch-Site: none\r\n", 200),
        ("Host: rebound.example\r\n", 421),
        ("Host: localhost\r\nOrigin: https://page.example\r\n", 403),
        ("Host: localhost\r\nOrigin: null\r\n", 403),
        ("Host: localhost\r\nOrigin: chrome-extension://abc\r\n", 403),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403),
    ],
)
def test_without_a_token_no_page_in_a_browser_can_drain_an_endpoint(tmp_path: Path, headers: str, status: int) -> None:
    async def scenario() -> None:
        async with venue_house(tmp_path) as home:
            reader, writer = await asyncio.open_connection("127.0.0.1", home.gateway.operations_port)
            line = "POST /drain?route=plain&endpoint=h0 HTTP/1.1\r\n"
            writer.write(f"{line}{headers}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read(-1)
            writer.close()
            assert int(answer.split(b" ")[1]) == status, answer
            drained = home.gateway.venues[0].pool.states[0].drained_at is not None
            assert drained is (status == 200)

    run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "status", "told"),
    [
        ("GET", "/", 404, "GET /status.json, /metrics"),
        ("GET", "/drain?route=local&endpoint=p0", 405, "it takes a POST"),
        ("GET", "/explain", 400, "which route?"),
        ("GET", "/explain?route=nope", 404, "there is no route 'nope'"),
        ("POST", "/drain?route=local&endpoint=nope", 404, "ids are in /status.json"),
    ],
)
def test_an_operator_who_asks_amiss_is_told_what_there_is(
    tmp_path: Path, method: str, path: str, status: int, told: str
) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            got, text = await get(home.gateway.operations_port, path, method)
            assert (got, told in text) == (status, True), text

    run(scenario())


def test_readiness_says_why_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, count=2) as home:
            assert await get(home.port, "/readyz") == (200, "ready\n")
            for name in ("p0", "p1"):
                home.gateway.drain("local", name, out=True)
            status, text = await get(home.port, "/readyz")
            assert status == 503
            assert "route local has no available endpoint (p0: drained, p1: drained)" in text
            assert (await get(home.port, "/livez"))[0] == 200

    run(scenario())


def test_explain_shows_the_decision_that_calls_meet(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            home.gateway.drain("local", "p1", out=True)
            status, body = await get(home.gateway.operations_port, "/explain?route=local&method=eth_call")
            report = json.loads(body)
            assert status == 200
            verdicts = {row["endpoint"]: (row["verdict"], row.get("reason")) for row in report["endpoints"]}
            assert verdicts == {"p0": ("chosen from", None), "p1": ("refused", "drained"), "p2": ("chosen from", None)}

    run(scenario())


def test_a_reload_applies_a_good_file_and_keeps_live_state_and_refuses_a_bad_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as home:
            await many(home.port, "/local", 50, 4)
            home.gateway.drain("local", "p1", out=True)
            good = home.config.read_text()
            home.config.write_text(good + "methods: {deny: [eth_gasPrice]}\n")
            await home.until(lambda: home.gateway.settings.methods.deny == ("eth_gasPrice",))
            told = await ask(home.port, "/local", Caller.call, "eth_gasPrice")
            assert told.body["error"]["data"]["reason"] == "method_refused"
            assert home.state("p1")["reasons"][0]["reason"] == "drained", "a reload undid an operator's drain"
            assert home.state("p0")["latency_ms"] is not None, "a reload forgot what was measured"
            home.config.write_text(good.replace("attempt_timeout: 500ms", "attempt_timeout: 400ms"))
            await home.until(lambda: home.gateway.routes[0].transport.attempt_timeout == 0.4)
            assert home.state("p1")["reasons"][0]["reason"] == "drained", "other policies undid an operator's drain"
            home.config.write_text(good + "routes: 7\n")
            await home.until(lambda: home.gateway.status()["config"]["problems"])
            assert "seawall.yaml:" in home.gateway.status()["config"]["problems"][0]
            assert not (await many(home.port, "/local", 20, 2)).lost
            home.config.write_text(good)
            await home.until(lambda: not home.gateway.status()["config"]["problems"])

    run(scenario())


def test_a_reload_with_another_budget_or_another_most_at_once_takes_effect_and_forgets_no_spending(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        extra = ", budget: {per_day: 1000}, max_concurrency: 2"
        async with house(tmp_path, count=1, endpoint_extra=extra) as home:
            await many(home.port, "/local", 100, 2)
            assert home.state("p0")["families"]["head"]["limit"] == 2
            home.config.write_text(
                home.config.read_text().replace(
                    "per_day: 1000}, max_concurrency: 2", "per_day: 90}, max_concurrency: 9"
                )
            )
            await home.until(lambda: home.gateway.settings.routes["local"].endpoints[0].max_concurrency == 9)
            assert home.state("p0")["families"]["head"]["limit"] == 9
            told = await ask(home.port, "/local", Caller.call, "eth_blockNumber")
            assert told.body["error"]["data"]["reason"] == "no_endpoint", "100 were spent, and 90 are allowed now"
            assert home.state("p0")["latency_ms"] is not None, "a reload forgot what was measured"

    run(scenario())


def test_a_stop_lets_calls_in_flight_finish_and_turns_readiness_off_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, attempt_timeout="20s", deadline="60s") as home:
            for provider in home.providers:
                provider.script.set(Fault.SLOW, amount=0.3)
            calls = [asyncio.ensure_future(ask(home.port, "/local", Caller.call, "eth_blockNumber")) for _ in range(20)]
            await home.until(lambda: sum(s.in_flight for s in home.gateway.routes[0].pool.states) >= 20)
            stopping = asyncio.ensure_future(home.gateway.stop(30.0))
            await asyncio.sleep(0)
            assert home.gateway.readiness() == (False, ["the gateway is shutting down"])
            answers = await asyncio.gather(*calls)
            assert all("result" in told.body for told in answers)
            assert await stopping == 0

    run(scenario())


KEYS = """
keys:
  wallet: {key: wallet-key-0123456789}
  bot: {key: bot-key-0123456789abcd, routes: [other]}
  small: {key: small-key-0123456789, budget: {rate: 1/m, burst: 3}}
"""


def test_callers_with_keys_are_held_to_their_routes_and_budgets(tmp_path: Path) -> None:
    async def scenario() -> None:
        other = "  other:\n    chain_id: 31337\n    endpoints: ['http://127.0.0.1:1']"
        async with house(tmp_path, extra=KEYS, more_routes=other) as home:

            async def asked(path: str = "/local", **headers: str) -> tuple[int, str]:
                async with Caller(home.port, path, {k.replace("_", "-"): v for k, v in headers.items()}) as caller:
                    told = await caller.call("eth_chainId")
                    return told.status, told.body.get("error", {}).get("data", {}).get("reason", "ok")

            assert await asked() == (401, "unauthorized")
            assert await asked(X_API_Key="wrong-key-0123456789") == (401, "unauthorized")
            assert await asked(X_API_Key="wallet-key-0123456789") == (200, "ok")
            assert await asked(Authorization="Bearer wallet-key-0123456789") == (200, "ok")
            assert await asked("/key/wallet-key-0123456789/local") == (200, "ok")
            assert await asked(X_API_Key="bot-key-0123456789abcd") == (403, "route_refused")
            answers = [await asked(X_API_Key="small-key-0123456789") for _ in range(5)]
            assert answers == [(200, "ok")] * 3 + [(429, "over_budget")] * 2

    run(scenario())


SECRETS = {
    "path": "pathsecret-9f8e7d6c5b4a",
    "query": "querysecret/with+odd=chars",
    "header": 'headersecret"quoted\\back',
    "bearer": "bearersecret-00112233445566",
    "password": "passwordsecret:0123456789",
    "caller": "callersecret-0123456789",
}


def test_no_secret_is_seen_in_any_output_whatever_goes_wrong(tmp_path: Path, monkeypatch: Any) -> None:
    """Canaries in every position; every way to fail; then every output is searched in every encoding."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(f"CANARY_{name.upper()}", value)
    monkeypatch.setenv("OPERATIONS_TOKEN", "operationssecret-0123456789")

    async def scenario() -> None:
        endpoint = (
            ", query: {key: '${CANARY_QUERY}'}, headers: {X-Secret: '${CANARY_HEADER}'}, bearer: '${CANARY_BEARER}'"
        )
        extra = "keys: {someone: {key: '${CANARY_CALLER}'}}\nallow_anonymous: true"
        log = io.StringIO()
        how: dict[str, Any] = {
            "extra": extra, "endpoint_extra": endpoint, "path": "/v3/${CANARY_PATH}",
            "attempt_timeout": "150ms", "deadline": "600ms",
        }  # fmt: skip
        async with house(tmp_path, **how) as home:
            put_back = configure_logging("debug", "json", home.gateway._redactor, log)
            turns = asyncio.Semaphore(20)  # they mostly wait
            broken = await asyncio.gather(*(_broken(tmp_path / fault.value, fault, how, turns) for fault in Fault))
            seen = [text for told in broken for text in told]
            pages = await _pages(home)
            logging.getLogger("httpx2").info("GET %s/v3/%s", home.providers[0].url, SECRETS["path"])
            home.config.write_text(home.config.read_text() + "keys: {again: ${CANARY_CALLER}}\nx: ${CANARY_PATH}\n")
            await home.until(lambda: home.gateway.status()["config"]["problems"])
            pages.append(json.dumps(home.gateway.status()))
            pages.append(
                repr(home.gateway.settings) + str(home.gateway.settings) + home.gateway.settings.model_dump_json()
            )
            put_back()
        text = "\n".join([*seen, *pages, log.getvalue()])
        assert len(log.getvalue()) > 200
        for name, value in {**SECRETS, "operations": "operationssecret-0123456789"}.items():
            for form in {value, urllib.parse.quote(value, safe=""), *encodings(value)}:
                assert form not in text, f"the {name} secret was seen as {form!r}"

    run(scenario())


async def _broken(folder: Path, fault: Fault, how: dict[str, Any], turns: asyncio.Semaphore) -> list[str]:
    """What callers and operators of a gateway are told whose providers all do this."""
    folder.mkdir()
    async with turns, house(folder, **how) as home:
        for provider in home.providers:
            if fault.stage is Stage.ACCEPT:  # strikes new connections only
                await provider.refuse()
                await provider.accept()
            provider.script.set(fault)
        methods = ("eth_blockNumber", "drill_echo", "eth_getLogs", "eth_sendRawTransaction")
        asked = (ask(home.port, "/local", Caller.call, method, "0x02" + "ee" * 40) for method in methods)
        seen = [json.dumps([told.headers, told.body]) for told in await asyncio.gather(*asked)]
        assert home.fired() > 0, f"{fault.value} never struck"
        return [*seen, *await _pages(home)]


async def _pages(home: House) -> list[str]:
    paths = ("/status.json", "/metrics", "/readyz", "/explain?route=local&method=eth_call")
    return [(await get(home.gateway.operations_port, path, token="operationssecret-0123456789"))[1] for path in paths]


def test_a_secret_that_two_reloads_ago_was_in_use_is_still_masked(tmp_path: Path) -> None:
    async def scenario() -> None:
        old = "keys: {a: {key: 'key-of-yesterday-0123456789'}}\n"
        async with house(tmp_path, extra=old) as home:
            text = home.config.read_text()
            for new in ("key-of-this-morning-0123456789", "key-of-this-evening-0123456789"):
                home.config.write_text(text.replace("key-of-yesterday-0123456789", new))
                assert await home.gateway.reload()
            log = io.StringIO()
            put_back = configure_logging("info", "json", home.gateway._redactor, log)
            logging.getLogger("seawall").info("key-of-yesterday-0123456789 key-of-this-evening-0123456789")
            put_back()
            assert json.loads(log.getvalue())["message"] == "*** ***"

    run(scenario())


def test_a_providers_error_text_that_repeats_our_key_is_scrubbed() -> None:
    redactor = Redactor(["topsecretkey-12345"])
    assert b"topsecret" not in redactor.scrub_bytes(b'{"code":-32000,"message":"bad key topsecretkey-12345"}')


def test_what_is_wrong_is_told_since_when_and_with_what_shows_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, count=6, clouds=3, block_time=1.0) as home:
            await many(home.port, "/local", 100, 4)
            home.providers[1].script.set(Fault.STALE_HEAD, amount=10)
            await home.until(lambda: home.state("p1")["reasons"], 8)
            lagging_at = wall_seconds()
            for number, pause in ((0, 1.2), (3, 0.0)):
                home.providers[number].script.set(Fault.STATUS_503)
                await home.until(lambda n=number: home.state(f"p{n}")["reasons"], 8)
                await asyncio.sleep(pause)
            found = {v["subject"]: v for v in home.gateway.status()["routes"][0]["verdicts"]}
            assert abs(found["p1"]["since"] - lagging_at) < 0.5, "since when it lags, not since it was asked"
            assert "p0 and p3 went down within" in found["cloud-0"]["evidence"]
            told = next(reason for reason in home.state("p1")["reasons"])
            assert abs(told["since"] - lagging_at) < 0.5

    run(scenario())


def test_a_call_that_failed_is_traced_with_what_was_wrong_and_what_shows_it(tmp_path: Path) -> None:
    collector = Collector()
    extra = f"telemetry: {{traces: {{endpoint: '{collector.url}', sample: 0, export_every: 50ms}}}}"

    async def scenario() -> None:
        async with house(tmp_path, count=1, extra=extra) as home:
            home.providers[0].script.set(Fault.STATUS_503)
            await home.until(lambda: home.gateway.status()["routes"][0]["verdicts"], 8)
            told = await ask(home.port, "/local", Caller.call, "eth_blockNumber")
            assert "error" in told.body
            await home.until(lambda: any("seawall.verdicts" in attributes(span) for span in collector.spans))

    try:
        run(scenario())
    finally:
        collector.close()
    facts = next(attributes(span) for span in collector.spans if "seawall.verdicts" in attributes(span))
    assert facts["seawall.verdicts"] == "provider"
    assert str(facts["seawall.evidence"]).startswith("p0 is out: breaker_open")


def test_a_failover_is_traced_with_a_span_for_each_attempt_under_the_callers_trace(tmp_path: Path) -> None:
    collector = Collector()
    extra = f"telemetry: {{traces: {{endpoint: '{collector.url}', sample: 0, export_every: 50ms, propagate: true}}}}"
    trace = "0af7651916cd43dd8448eb211c80319c"

    async def scenario() -> None:
        async with house(tmp_path, extra=extra, attempt_timeout="20s", deadline="60s") as home:
            for provider in home.providers:
                provider.script.set(Fault.STATUS_503, last=1, methods=["eth_blockNumber"])
            head = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
            async with Caller(home.port, "/local", head) as caller:
                told = await caller.call("eth_blockNumber")
            assert told.headers["x-seawall-attempts"] == "3"
            await home.until(lambda: len(collector.spans) >= 4)
            assert all(trace.encode() in provider.last_head for provider in home.providers), (
                "the trace goes on upstream"
            )

    try:
        run(scenario())
    finally:
        collector.close()
    server, *attempts = sorted(collector.spans, key=lambda span: span.kind)
    assert server.trace_id.hex() == trace
    assert server.parent_span_id.hex() == "b7ad6b7169203331"
    assert {span.parent_span_id for span in attempts} == {server.span_id}
    ends = sorted(str(attributes(span)["seawall.ended"]) for span in attempts)
    assert ends == ["server_fault"] * 3
    assert len({span.span_id for span in attempts}) == 3

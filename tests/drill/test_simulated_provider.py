"""A provider without faults is a good HTTP server, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable

import pytest

from gateway.drill.chain import SimulatedChain, transaction_hash
from gateway.drill.faults import Fault, Script
from gateway.drill.node import HUGE_LOGS
from gateway.drill.provider import Received, SimulatedProvider
from gateway.drill.serve import ProviderSpec, run_providers

CALL = b'{"jsonrpc":"2.0","id":%d,"method":"eth_chainId","params":[]}'
ANSWER = b'{"jsonrpc":"2.0","id":%d,"result":"0x1"}'
SEND = b'{"id":1,"method":"eth_sendRawTransaction","params":["0x02aa"]}'


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0)


def chunks_of(response: bytes) -> bytes:
    rest, body = response.partition(b"\r\n\r\n")[2], b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if size == b"0":
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


def test_calls_that_come_in_one_packet_or_byte_by_byte_are_answered_in_order(run, calling):
    async def story() -> None:
        async with SimulatedProvider("a", SimulatedChain()) as provider, calling(provider) as caller:
            for number in range(5):
                caller.post(CALL % number)
            assert [await caller.reply() for _ in range(5)] == [ANSWER % number for number in range(5)]
            body = CALL % 9
            for byte in b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body):
                caller.say(bytes([byte]))
                await asyncio.sleep(0)
            assert await caller.reply() == ANSWER % 9
            assert provider.connections_total == 1

    run(story())


def test_a_batch_is_answered_item_by_item_and_notifications_are_not(run, calling):
    async def story() -> None:
        async with SimulatedProvider("a", SimulatedChain()) as provider, calling(provider) as caller:
            body = b"[" + CALL % 1 + b',{"method":"eth_chainId"},7,{"id":"x","method":"nope"}]'
            first, invalid, unknown = json.loads(await caller.ask(body))
            assert first == json.loads(ANSWER % 1)
            assert (invalid["id"], invalid["error"]["code"]) == (None, -32600)
            assert (unknown["id"], unknown["error"]["code"]) == ("x", -32601)
            assert await caller.ask(b'{"method":"eth_chainId"}') == b""
            assert json.loads(await caller.ask(b"[]"))["error"]["code"] == -32600
            assert json.loads(await caller.ask(b"{"))["error"]["code"] == -32700

    run(story())


def test_what_was_asked_is_recorded_byte_for_byte(run, calling):
    async def story() -> None:
        async with SimulatedProvider("a", SimulatedChain()) as provider, calling(provider) as caller:
            provider.script.set(Fault.RESET_AFTER_READING)
            caller.post(b'{"id": 1.50, "method":"eth_getBalance","params": [ "0xAb" , null]}', b"X-Key:  secret ")
            assert await caller.end() == "reset"
            assert list(provider.requests) == [Received("eth_getBalance", b"1.50", b'[ "0xAb" , null]')]
            assert provider.last_head.endswith(b"\r\nX-Key:  secret ")
            assert provider.calls == {"eth_getBalance": 1}

    run(story())


def test_unknown_methods_are_counted_together(run, calling):
    async def story() -> None:
        async with SimulatedProvider("a", SimulatedChain()) as provider, calling(provider) as caller:
            for number in range(3):
                await caller.ask(b'{"id":1,"method":"made_up_%d"}' % number)
            assert provider.calls == {"other": 3}
            assert provider.http_requests == 3

    run(story())


def test_a_huge_answer_waits_for_a_slow_reader(run, calling):
    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain(), huge_bytes=20_000_000)
        async with provider, calling(provider) as caller:
            caller.transport.pause_reading()
            caller.post(b'{"id":1,"method":"eth_getLogs","params":[{"address":"%s"}]}' % HUGE_LOGS.encode())
            caller.post(CALL % 2)
            await asyncio.sleep(0.02)
            caller.transport.resume_reading()
            while not caller.heard.endswith(ANSWER % 2):
                await caller._more()
            huge = caller.heard.partition(b"0\r\n\r\nHTTP/1.1")[0] + b"0\r\n\r\n"
            body = json.loads(chunks_of(huge))
            assert body["id"] == 1
            assert abs(len(huge) - 20_000_000) < 10_000

    run(story())


def test_a_huge_answer_can_break_in_the_middle(run, calling):
    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain(), huge_bytes=500_000)
        provider.script.set(Fault.CLOSE_MID_BODY)
        async with provider, calling(provider) as caller:
            caller.post(b'{"id":1,"method":"eth_getLogs","params":[{"address":"%s"}]}' % HUGE_LOGS.encode())
            assert await caller.end() == "closed"
            assert 200_000 < len(caller.heard) < 300_000

    run(story())


def test_bad_framing_ends_the_connection_with_an_answer(run, calling):
    async def story() -> None:
        async with SimulatedProvider("a", SimulatedChain()) as provider:
            for raw, status in [
                (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
                (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", b"413"),
                (b"nonsense\r\n\r\n", b"400"),
                (b"x" * 70_000, b"431"),
            ]:
                async with calling(provider) as caller:
                    caller.say(raw)
                    await caller.end()
                    assert caller.heard.startswith(b"HTTP/1.1 " + status)
            async with calling(provider) as caller:
                caller.say(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await caller.reply()
                assert await caller.ask(CALL % 1) == ANSWER % 1

    run(story())


def test_a_caller_may_ask_before_sending_the_body_and_may_ask_to_close(run, calling):
    async def story() -> None:
        async with SimulatedProvider("a", SimulatedChain()) as provider, calling(provider) as caller:
            lines = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(CALL % 1)
            caller.say(lines)
            await caller.hears(rb"HTTP/1\.1 100 Continue\r\n\r\n")
            caller.say(CALL % 1)
            assert await caller.reply() == ANSWER % 1
            caller.post(CALL % 2, b"Connection: close")
            assert await caller.end() == "closed"
            assert caller.heard.endswith(ANSWER % 2)

    run(story())


def test_a_stop_resets_callers_whatever_they_wait_for_and_a_restart_is_at_the_same_port(run, calling):
    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain(), latency=60)
        await provider.start()
        port = provider.port
        async with calling(provider) as idle, calling(provider) as waiting, calling(provider) as halfway:
            waiting.post(CALL % 1)
            halfway.say(b"POST / HTTP/1.1\r\nContent-")
            await until(lambda: len(provider.requests) == 1 and provider.connections_open == 3)
            await provider.stop()
            assert provider.connections_open == 0
            assert [await caller.end() for caller in (idle, waiting, halfway)] == ["reset"] * 3
        with pytest.raises(ConnectionRefusedError):
            async with calling(provider):
                pass
        await provider.stop()
        provider.latency = 0
        async with provider:
            assert provider.port == port
            with pytest.raises(RuntimeError, match="already running"):
                await provider.start()
            async with calling(provider) as caller:
                assert await caller.ask(CALL % 1) == ANSWER % 1

    run(story())


def test_a_stop_in_the_middle_of_a_refusal_leaves_nothing(run, calling):
    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain())
        async with provider:
            await provider.refuse(lasting=60)
        provider.script.clear()
        async with provider, calling(provider) as caller:
            assert await caller.ask(CALL % 1) == ANSWER % 1

    run(story())


def test_a_provider_can_be_started_again_on_another_loop(run, calling):
    provider = SimulatedProvider("a", SimulatedChain())

    async def story() -> None:
        async with provider, calling(provider) as caller:
            assert await caller.ask(CALL % 1) == ANSWER % 1

    run(story())
    run(story())


def test_latency_and_slowness_add_up_and_the_call_takes_effect_at_once(run, calling):
    async def story() -> None:
        chain = SimulatedChain()
        provider = SimulatedProvider("a", chain, latency=0.01, script=Script().set(Fault.SLOW, amount=0.02))
        loop = asyncio.get_running_loop()
        async with provider, calling(provider) as caller:
            asked_at = loop.time()
            caller.post(SEND)
            await until(lambda: bool(provider.requests))
            assert chain.times_received(transaction_hash(b"\x02\xaa")) == 1
            assert not caller.heard
            await caller.reply()
            assert loop.time() - asked_at >= 0.029

    run(story())


def test_providers_of_one_chain_see_each_others_transactions(run, calling):
    async def story() -> None:
        chain = SimulatedChain()
        one, two = SimulatedProvider("one", chain), SimulatedProvider("two", chain)
        async with one, two, calling(one) as first, calling(two) as second:
            assert b'"result"' in await first.ask(SEND)
            assert b"already known" in await second.ask(SEND)
            assert chain.received[transaction_hash(b"\x02\xaa")] == {"one": 1, "two": 1}

    run(story())


# --- TLS ------------------------------------------------------------------------------------------


def test_over_tls_calls_are_answered_and_broken_just_the_same(run, calling, certificate):
    async def story() -> None:
        server, trusting = certificate
        async with SimulatedProvider("a", SimulatedChain(), ssl=server) as provider:
            assert provider.url.startswith("https://127.0.0.1:")
            async with calling(provider, trusting) as caller:
                assert await caller.ask(CALL % 1) == ANSWER % 1
                provider.script.set(Fault.RESET_MID_BODY, last=1)
                caller.post(CALL % 1)
                assert await caller.end() == "reset"
                assert b"200 OK" in caller.heard
            provider.script.set(Fault.CLOSE_MID_BODY, last=1)
            async with calling(provider, trusting) as caller:
                caller.post(CALL % 1)
                assert await caller.end() == "closed"
            for fault in (Fault.CLOSE_ON_ACCEPT, Fault.RESET_ON_ACCEPT, Fault.GARBAGE_ON_ACCEPT):
                provider.script.clear()
                provider.script.set(fault)
                with pytest.raises(OSError):
                    async with calling(provider, trusting):
                        pass
                assert provider.script.fired[fault] == 1

    run(story())


def test_a_caller_who_says_goodbye_with_its_last_request_breaks_nothing(run, certificate):
    async def story() -> None:
        server, trusting = certificate
        async with SimulatedProvider("a", SimulatedChain(), ssl=server) as provider:
            reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with pytest.raises(ssl.SSLWantReadError):
                session.do_handshake()
            writer.write(outgoing.read())
            incoming.write(await reader.read(65_536))
            session.do_handshake()
            session.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(CALL % 1), CALL % 1))
            with pytest.raises(ssl.SSLWantReadError):
                session.unwrap()
            writer.write(outgoing.read())
            async with asyncio.timeout(5):
                while await reader.read(65_536):
                    pass
            assert provider.calls == {"eth_chainId": 1}
            writer.close()
            await writer.wait_closed()

    run(story())


def test_a_stop_ends_handshakes_that_never_finish_or_fail(run, calling, certificate):
    async def story() -> None:
        async with SimulatedProvider("a", SimulatedChain(), ssl=certificate[0]) as provider:
            async with calling(provider) as wrong:
                wrong.say(b"GET / HTTP/1.1\r\n\r\n")
                await wrong.end()
            async with calling(provider) as silent:
                await until(lambda: provider.connections_open == 1)
                await provider.stop()
                assert provider.connections_open == 0
                assert await silent.end() == "reset"

    run(story())


# --- several, and the switchboard -----------------------------------------------------------------


def test_specs_become_providers_that_share_chains_and_all_stop(run, calling):
    async def story() -> None:
        specs = [
            ProviderSpec("a"),
            ProviderSpec("b", client_version="Other/v2"),
            ProviderSpec("c", chain_id=10, block_time=2.0),
        ]
        async with run_providers(specs) as providers:
            assert providers["a"].chain is providers["b"].chain
            assert providers["c"].chain.block_time == 2.0
            async with calling(providers["b"]) as caller:
                assert b"Other/v2" in await caller.ask(b'{"id":1,"method":"web3_clientVersion"}')
                block = json.loads(await caller.ask(b'{"id":1,"method":"eth_getBlockByNumber","params":["latest"]}'))
                assert abs(int(block["result"]["timestamp"], 16) - time.time()) < 60
                assert int(block["result"]["number"], 16) > 900_000
        for provider in providers.values():
            assert not provider.running

    run(story())


def test_specs_that_cannot_all_start_leave_none_running(run):
    async def story() -> None:
        async with SimulatedProvider("x", SimulatedChain()) as squatter:
            for specs in (
                [ProviderSpec("a"), ProviderSpec("a")],
                [ProviderSpec("a"), ProviderSpec("b", block_time=2.0)],
                [ProviderSpec("a"), ProviderSpec("b", port=squatter.port)],
            ):
                with pytest.raises((ValueError, OSError)):
                    async with run_providers(specs):
                        pass

    run(story())


def get(path: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([b"GET " + path + b" HTTP/1.1", b"Host: a", *fields]) + b"\r\n\r\n"


def post(path: bytes, body: bytes) -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (path, len(body), body)


def test_a_person_can_break_a_provider_watch_it_and_mend_it(run, calling):
    async def story() -> None:
        async with run_providers([ProviderSpec("a")]) as providers, calling(providers["a"]) as caller:
            caller.say(post(b"/_drill/fault", b'{"fault": "status_503", "for": 60, "methods": ["eth_chainId"]}'))
            assert json.loads(await caller.reply())["fault"] == "status_503"
            assert b"upstream connect error" in await caller.ask(CALL % 1)
            caller.say(get(b"/_drill"))
            shown = json.loads(await caller.reply())
            assert shown["active"] == ["status_503"]
            assert shown["fired"] == {"status_503": 1}
            assert shown["calls"] == {"eth_chainId": 1}
            caller.say(post(b"/_drill/clear", b""))
            await caller.reply()
            assert await caller.ask(CALL % 1) == ANSWER % 1
            caller.say(get(b"/_drill/faults"))
            assert set(json.loads(await caller.reply())) == {fault.value for fault in Fault}

    run(story())


@pytest.mark.parametrize(
    "wanted",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"fault": "nope"}',
        b'{"fault": ["slow"]}',
        b'{"fault": "slow", "for": "10"}',
        b'{"fault": "slow", "for": -1}',
        b'{"fault": "slow", "chance": 2}',
        b'{"fault": "slow", "methods": "eth_call"}',
        b'{"fault": "slow", "duration": 1}',
        b'{"fault": "refuse"}',
        b'{"fault": "close_on_accept"}',
    ],
)
def test_the_switchboard_refuses_what_makes_no_sense_or_could_not_be_undone(run, calling, wanted):
    async def story() -> None:
        async with run_providers([ProviderSpec("a")]) as providers, calling(providers["a"]) as caller:
            caller.say(post(b"/_drill/fault", wanted))
            assert "error" in json.loads(await caller.reply())
            assert not providers["a"].script.armed

    run(story())


def test_the_switchboard_answers_through_faults_but_no_web_page_and_nobody_without_it(run, calling):
    async def story() -> None:
        async with run_providers([ProviderSpec("a")]) as providers, calling(providers["a"]) as caller:
            providers["a"].script.set(Fault.EARLY_RESPONSE_THEN_CLOSE).set(Fault.HANG_BEFORE_HEAD)
            caller.say(get(b"/_drill"))
            assert json.loads(await caller.reply())["name"] == "a"
            caller.say(get(b"/_drill", b"Origin: https://example.org"))
            assert "error" in json.loads(await caller.reply())
        async with SimulatedProvider("b", SimulatedChain()) as plain, calling(plain) as caller:
            caller.say(get(b"/_drill"))
            await caller.hears(rb"HTTP/1\.1 405 .*\r\n\r\n")

    run(story())

"""A caller's WebSocket: the same calls as over HTTP, and whoever misbehaves harms nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.drill.faults import Fault
from gateway.drill.node import HUGE_LOGS
from tests.pace import PATIENCE, at_most
from tests.scenarios.caller import Caller
from tests.scenarios.house import House, house, run
from tests.scenarios.subscriber import Subscriber

KEYS = """
keys:
  bot: {key: "a-key-of-the-bot-0123456789"}
allow_anonymous: false
"""
SMALL = "websockets: {queue: 64KB, subscriptions: 5, message: 64KB, in_flight: 8}\n"
BRISK = "websockets: {ping_every: 1s, pong_within: 5s}\n"


def slow_consumers(h: House) -> int:
    text = h.gateway.metrics("")[0].decode()
    found = re.search(r"seawall_edge_rejections_total.reason=.slow_consumer.. ([0-9.]+)", text)
    return int(float(found[1])) if found else 0


async def rest_answers(h: House, within: float = 1.0) -> None:
    """Somebody else's call, over HTTP and over a socket of its own, is answered in time."""
    began = time.monotonic()
    async with Caller(h.port, "/local") as caller:
        assert "result" in (await caller.call("eth_chainId")).body
    other = await Subscriber.open(h.port)
    assert "result" in await other.call("eth_blockNumber")
    other.close()
    at_most(time.monotonic() - began, within, "seconds until somebody else was answered")


def test_calls_on_a_socket_are_answered_as_over_http(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as h, Caller(h.port, "/local") as http:
            socket = await Subscriber.open(h.port)
            for method, params in (
                ("eth_chainId", []),
                ("eth_getBlockByNumber", ["0x10", False]),
                ("eth_call", [{"to": "0x" + "11" * 20}, "latest"]),
                ("eth_accounts_nobody_knows", []),
                ("eth_sign", ["0x" + "11" * 20, "0x00"]),
                ("debug_traceTransaction", []),
            ):
                over_http = (await http.call(method, *params)).body
                over_socket = await socket.call(method, *params)
                for answer in (over_http, over_socket):
                    answer.pop("id")
                    answer.get("error", {}).get("data", {}).pop("attempts", None)
                assert over_socket == over_http, method
            socket.close()

    run(scenario())


def test_a_caller_names_its_patience_when_it_opens_the_socket_and_a_slow_call_keeps_no_other_waiting(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with house(tmp_path, deadline="20s", attempt_timeout="10s") as h:
            socket = await Subscriber.open(h.port, headers="X-Seawall-Timeout: 800ms\r\n")
            for provider in h.providers:
                provider.script.set(Fault.HANG_BEFORE_HEAD, methods=("eth_call",))
            began = time.monotonic()
            slow = asyncio.ensure_future(socket.call("eth_call", {"to": "0x" + "11" * 20}, "latest"))
            await asyncio.sleep(0.05)
            assert "result" in await socket.call("eth_chainId")
            assert time.monotonic() - began < 0.6
            assert not slow.done()
            assert "error" in await slow
            assert 0.7 < time.monotonic() - began < 3.0
            socket.close()

    run(scenario())


def test_a_batch_in_a_binary_frame_is_answered_in_order_with_its_own_ids(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as h:
            socket = await Subscriber.open(h.port)
            items: list[Any] = [{"jsonrpc": "2.0", "id": f"id {n}", "method": "eth_chainId"} for n in range(20)]
            items.insert(3, {"jsonrpc": "2.0", "method": "eth_chainId"})  # a notification
            items.insert(5, {"nonsense": True})
            items.insert(7, {"jsonrpc": "2.0", "id": "s", "method": "eth_subscribe", "params": ["newHeads"]})
            told = await socket.batch(items)
            assert [answer["id"] for answer in told] == [i.get("id") for i in items if "id" in i or "nonsense" in i]
            assert told[4]["error"]["code"] == -32600
            subscription = told[6]["result"]
            await h.until(lambda: socket.results(subscription))
            socket.close()

    run(scenario())


def test_each_subscription_has_an_id_of_its_own_and_ends_by_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, block_time=0.5) as h:
            one, other = await Subscriber.open(h.port), await Subscriber.open(h.port)
            first, second = await one.subscribe("newHeads"), await one.subscribe("newHeads")
            third = await other.subscribe("newHeads")
            assert first != second
            await h.until(lambda: one.results(first) and one.results(second) and other.results(third))
            assert (await other.call("eth_unsubscribe", second))["result"] is False  # another socket's
            assert (await one.call("eth_unsubscribe", first))["result"] is True
            assert (await one.call("eth_unsubscribe", first))["result"] is False
            ended = len(one.results(first))
            more = len(one.results(second))
            await h.until(lambda: len(one.results(second)) > more + 1)
            assert len(one.results(first)) == ended
            again = await one.subscribe("newHeads")
            assert again not in (first, second)  # an id is never given twice on one socket
            one.close()
            other.close()

    run(scenario())


def test_a_subscription_over_http_is_told_to_use_a_socket(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as h, Caller(h.port, "/local") as http:
            for method, params in (("eth_subscribe", ["newHeads"]), ("eth_unsubscribe", ["0x1"])):
                answer = (await http.call(method, *params)).body
                assert answer["error"]["data"]["reason"] == "socket_needed"

    run(scenario())


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/local", "Origin: https://evil.example\r\n", b" 403 "),
        ("/local", "Sec-Fetch-Site: cross-site\r\n", b" 403 "),
        ("/nowhere", "", b" 404 "),
        ("/local", "Content-Length: 5\r\n", b" 400 "),
        ("/local", "Transfer-Encoding: chunked\r\n", b" 400 "),
        ("/local", "Host: evil.example\r\n", b" 400 "),  # a second one
    ],
)
def test_a_socket_that_may_not_be_opened_is_refused_with_the_reason(
    tmp_path: Path, path: str, headers: str, status: bytes
) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as h:
            with pytest.raises(ConnectionRefusedError) as refusal:
                await Subscriber.open(h.port, path, headers)
            assert status in str(refusal.value).encode()
            await rest_answers(h)

    run(scenario())


def test_a_key_is_needed_where_keys_are_configured_and_taken_from_path_or_header(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra=KEYS) as h:
            with pytest.raises(ConnectionRefusedError, match="401"):
                await Subscriber.open(h.port)
            key = "a-key-of-the-bot-0123456789"
            for path, headers in (("/local", f"X-API-Key: {key}\r\n"), (f"/key/{key}/local", "")):
                socket = await Subscriber.open(h.port, path, headers)
                assert "result" in await socket.call("eth_chainId")
                socket.close()

    run(scenario())


def test_a_caller_that_does_not_read_is_dropped_with_1013_and_nobody_else_notices(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, block_time=0.05, extra=SMALL) as h:
            slow, quick = await Subscriber.open(h.port), await Subscriber.open(h.port)
            for _ in range(5):
                await slow.subscribe("newHeads")
            heads = await quick.subscribe("newHeads")
            slow.transport.pause_reading()
            await h.until(lambda: slow_consumers(h) > 0)
            assert quick.closed_with is None
            await rest_answers(h)
            slow.transport.resume_reading()
            await asyncio.wait_for(slow.lost.wait(), PATIENCE)
            assert slow.closed_with in (1013, None)  # None: it read so late that it was cut off
            numbers = [int(head["number"], 16) for head in quick.results(heads)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            quick.close()

    run(scenario())


@pytest.mark.parametrize("how", ["one_frame", "fragments", "unmasked", "reserved_bits", "bad_text"])
def test_a_frame_bomb_ends_its_own_socket_only(tmp_path: Path, how: str) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra=SMALL) as h:
            other = await Subscriber.open(h.port)
            bomb = await Subscriber.open(h.port)
            if how == "one_frame":
                bomb.transport.write(b"\x81\xff" + (1 << 62).to_bytes(8, "big") + bytes(4))
            elif how == "fragments":
                bomb.send_frame(1, b" " * 1000, fin=False)
                for _ in range(200):
                    bomb.send_frame(0, b" " * 1000, fin=False)
            elif how == "unmasked":
                bomb.transport.write(b"\x81\x02{}")
            elif how == "reserved_bits":
                bomb.transport.write(b"\xf1\x82\0\0\0\0{}")
            else:
                bomb.send_frame(1, b"\xff\xfe")
            await asyncio.wait_for(bomb.lost.wait(), PATIENCE)
            assert bomb.closed_with == {"one_frame": 1009, "fragments": 1009, "bad_text": 1007}.get(how, 1002)
            assert "result" in await other.call("eth_chainId")
            other.close()

    run(scenario())


def test_a_flood_of_pings_and_empty_frames_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra=SMALL) as h:
            flood = await Subscriber.open(h.port)
            flood.transport.pause_reading()  # it does not even take the pongs
            for _ in range(20_000):
                flood.send_frame(9, b"x" * 100)
            flood.send_frame(1, b"", fin=False)
            for _ in range(20_000):
                flood.send_frame(0, b"", fin=False)
            await rest_answers(h, 3.0)
            flood.close()

    run(scenario())


@pytest.mark.parametrize(("opcode", "text"), [(9, b"x" * 100), (1, b"{")], ids=["pings", "nonsense"])
def test_a_caller_that_sends_and_does_not_read_is_given_up_and_keeps_nobody_waiting(
    tmp_path: Path, opcode: int, text: bytes
) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra="websockets: {queue: 64KB, ping_every: 1s, pong_within: 1s}\n") as h:
            flood = await Subscriber.open(h.port)
            flood.transport.pause_reading()
            taken, most, before = 0, 0, resident()
            until = time.monotonic() + PATIENCE
            while h.gateway.sockets and time.monotonic() < until:
                if flood.transport.get_write_buffer_size() < 1 << 18:
                    for _ in range(200):
                        flood.send_frame(opcode, text)
                    taken += 200 * (len(text) + 6)
                most = max(most, resident() - before)
                await asyncio.sleep(0)
            assert not h.gateway.sockets, f"after {taken} bytes it is still being answered"
            assert most < 16_000_000, f"{most} bytes were kept for it, or for what it sent ({taken} bytes)"
            await rest_answers(h, 3.0)
            flood.close()

    run(scenario())


def test_a_flood_of_subscriptions_ends_at_the_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra=SMALL) as h:
            flood = await Subscriber.open(h.port)
            asks = [flood.call("eth_subscribe", "logs", {"address": "0x" + f"{n:040x}"}) for n in range(40)]
            told = await asyncio.gather(*asks)
            assert sum("result" in answer for answer in told) == 5
            assert {a["error"]["data"]["reason"] for a in told if "error" in a} == {"too_many_subscriptions"}
            await rest_answers(h)
            flood.close()
            await h.until(lambda: h.gateway.routes[0].stats.subscriptions == 0)

    run(scenario())


def test_a_silent_caller_is_pinged_and_then_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra=BRISK) as h:
            polite, silent = await Subscriber.open(h.port), await Subscriber.open(h.port)
            silent.transport.pause_reading()  # as good as unplugged
            await h.until(lambda: h.gateway.sockets == 1)
            assert "result" in await polite.call("eth_chainId")
            polite.close()
            silent.close()

    run(scenario())


def test_more_calls_than_allowed_at_once_are_all_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra=SMALL) as h:
            socket = await Subscriber.open(h.port)
            told = await asyncio.gather(*(socket.call("eth_chainId") for _ in range(300)))
            assert all("result" in answer for answer in told)
            socket.close()

    run(scenario())


def test_stopping_tells_every_socket_to_go_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as h:
            socket = await Subscriber.open(h.port)
            await socket.subscribe("newHeads")
        await asyncio.wait_for(socket.lost.wait(), PATIENCE)
        assert socket.closed_with == 1001

    run(scenario())


def test_a_reload_keeps_sockets_and_their_subscriptions(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, block_time=0.5) as h:
            socket = await Subscriber.open(h.port)
            heads = await socket.subscribe("newHeads")
            await h.until(lambda: socket.results(heads))
            text = h.config.read_text()
            h.config.write_text(text.replace("      - {id: p0,", "      - {id: renamed,"))
            assert await h.gateway.reload()
            before = len(socket.results(heads))
            await h.until(lambda: len(socket.results(heads)) > before + 3)
            numbers = [int(head["number"], 16) for head in socket.results(heads)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            socket.close()

    run(scenario())


def test_a_key_that_is_taken_away_ends_its_sockets_at_the_reload(tmp_path: Path) -> None:
    async def scenario() -> None:
        two = KEYS.replace("allow_anonymous", '  other: {key: "a-key-of-somebody-else-01234"}\nallow_anonymous')
        async with house(tmp_path, extra=two) as h:
            bot = await Subscriber.open(h.port, headers="X-API-Key: a-key-of-the-bot-0123456789\r\n")
            other = await Subscriber.open(h.port, headers="X-API-Key: a-key-of-somebody-else-01234\r\n")
            text = h.config.read_text()
            h.config.write_text(text.replace('  bot: {key: "a-key-of-the-bot-0123456789"}\n', ""))
            assert await h.gateway.reload()
            await asyncio.wait_for(bot.lost.wait(), PATIENCE)
            assert bot.closed_with == 1008
            assert "result" in await other.call("eth_chainId")
            other.close()

    run(scenario())


def test_a_removed_route_closes_its_sockets(tmp_path: Path) -> None:
    async def scenario() -> None:
        more = "  second:\n    chain_id: 31337\n    endpoints: [%s]"
        async with house(tmp_path) as h:
            text = h.config.read_text()
            h.config.write_text(text + more % h.providers[0].url)
            assert await h.gateway.reload()
            socket = await Subscriber.open(h.port, "/second")
            await socket.subscribe("newHeads")
            h.config.write_text(text)
            assert await h.gateway.reload()
            await asyncio.wait_for(socket.lost.wait(), PATIENCE)
            assert socket.closed_with == 1001
            await rest_answers(h)

    run(scenario())


def test_a_standby_is_not_subscribed_to_while_others_serve(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, count=2, standby=(1,), endpoint_extra=", ws: true", block_time=0.3) as h:
            socket = await Subscriber.open(h.port)
            heads = await socket.subscribe("newHeads")
            await h.until(lambda: len(socket.results(heads)) > 3)
            assert h.gateway.feed_sources("local") == ["p0"]
            assert not h.providers[1].sockets
            await h.providers[0].stop()
            await h.until(lambda: h.gateway.feed_sources("local") == ["p1"])
            before = len(socket.results(heads))
            await h.until(lambda: len(socket.results(heads)) > before + 2)
            numbers = [int(head["number"], 16) for head in socket.results(heads)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            socket.close()

    run(scenario())


def test_keep_alive_calls_are_answered_without_an_upstream(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as h:
            socket = await Subscriber.open(h.port)
            first = await socket.call("net_version")
            asked = sum(provider.calls["net_version"] for provider in h.providers)
            for _ in range(50):
                assert (await socket.call("net_version"))["result"] == first["result"]
            assert sum(provider.calls["net_version"] for provider in h.providers) == asked == 1
            socket.close()

    run(scenario())


def test_answers_of_one_socket_never_reach_another(tmp_path: Path) -> None:
    """Threat: ids mixed up between callers.  Every answer belongs to the request that asked for it."""

    async def scenario() -> None:
        count = int(os.environ.get("SEAWALL_CALLS", "20000")) // 20
        async with house(tmp_path) as h:

            async def one(lane: int) -> None:
                socket = await Subscriber.open(h.port)
                for number in range(count):
                    block = hex(1 + (lane * count + number) % 900)
                    told = await socket.call("eth_getBlockByNumber", block, False)
                    assert told["result"]["number"] == block
                socket.close()

            await asyncio.gather(*(one(lane) for lane in range(20)))
            print(f"\n{20 * count} calls over 20 sockets, each answered with what it asked for")

    run(scenario())


def test_what_is_told_to_callers_is_json_and_text(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path) as h:
            socket = await Subscriber.open(h.port)
            socket.send_frame(1, b"garbage")
            socket.send_frame(2, json.dumps({"jsonrpc": "2.0", "id": 1, "method": 5}).encode())
            socket.send_frame(1, b"[]")
            assert "result" in await socket.call("eth_chainId")
            socket.close()

    run(scenario())


HUGE = {"jsonrpc": "2.0", "method": "eth_getLogs", "params": [{"address": HUGE_LOGS}]}


def test_the_answers_of_a_batch_are_bounded_together(tmp_path: Path) -> None:
    """Those that do not fit are errors of their own; the small ones are told, a subscription among them."""

    async def scenario() -> None:
        async with house(tmp_path, huge_bytes=3_000_000, extra="websockets: {answer: 7MB}\n") as h:
            socket = await Subscriber.open(h.port)
            items = [HUGE | {"id": number} for number in range(6)]
            items.append({"jsonrpc": "2.0", "id": "s", "method": "eth_subscribe", "params": ["newHeads"]})
            told = await socket.batch(items)
            assert [answer["id"] for answer in told] == [*range(6), "s"]
            assert ["result" in answer for answer in told] == [True, True, False, False, False, False, True]
            assert {a["error"]["data"]["reason"] for a in told if "error" in a} == {"answer_too_large"}
            await h.until(lambda: socket.results(told[6]["result"]), 5)
            socket.close()

    run(scenario())


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_large_answers_wait_for_each_other_and_small_ones_for_none(tmp_path: Path) -> None:
    """A caller that asks for much at once and reads none of it is held by one answer, not by all of them."""

    async def scenario() -> None:
        size = 10_000_000
        async with house(tmp_path, huge_bytes=size) as h:
            socket = await Subscriber.open(h.port)
            quick = await socket.subscribe("newHeads")
            query = {"address": HUGE_LOGS}
            assert "result" in await socket.call("eth_getLogs", query)  # what one answer leaves in the allocator
            before = resident()
            asked = [asyncio.ensure_future(socket.call("eth_getLogs", query)) for _ in range(8)]
            socket.transport.pause_reading()
            await asyncio.sleep(2.0)
            grown = resident() - before
            print(f"{grown} bytes more while 8 answers of {size} bytes wait to be read")
            assert grown < 4 * size  # pieces, the whole, its frame; not eight of them
            socket.transport.resume_reading()
            assert all("result" in told for told in await asyncio.gather(*asked))
            await h.until(lambda: socket.results(quick))
            assert socket.closed_with is None
            socket.close()

    run(scenario())


def test_a_browser_page_of_a_listed_origin_gets_a_socket_and_no_other_page_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra='origins: ["https://wallet.example"]\n') as h:
            page = await Subscriber.open(h.port, headers="Origin: https://wallet.example\r\n")
            assert "result" in await page.call("eth_chainId")
            for origin in (
                "https://evil.example",
                "https://wallet.example.evil.example",
                "http://wallet.example",
                "null",
            ):
                with pytest.raises(ConnectionRefusedError, match="403"):
                    await Subscriber.open(h.port, headers=f"Origin: {origin}\r\n")
            page.close()

    run(scenario())


def test_more_sockets_than_allowed_are_refused_until_one_is_closed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with house(tmp_path, extra="websockets: {sockets: 2}\n") as h:
            held = [await Subscriber.open(h.port) for _ in range(2)]
            with pytest.raises(ConnectionRefusedError, match="503"):
                await Subscriber.open(h.port)
            async with Caller(h.port, "/local") as caller:
                assert "result" in (await caller.call("eth_chainId")).body
            held.pop().close()
            await h.until(lambda: h.gateway.sockets == 1)
            held.append(await Subscriber.open(h.port))
            for socket in held:
                assert "result" in await socket.call("eth_chainId")
                socket.close()

    run(scenario())


@pytest.mark.parametrize(
    "policy", ['deny: ["eth_subscribe", "eth_unsubscribe", "net_version"]', 'allow: ["eth_chainId"]']
)
def test_what_the_method_policy_denies_is_denied_on_a_socket_and_in_its_batches(tmp_path: Path, policy: str) -> None:
    async def scenario() -> None:
        async with house(tmp_path, route_extra=f"    methods: {{{policy}}}") as h:
            socket = await Subscriber.open(h.port)
            denied = [("eth_subscribe", ["newHeads"]), ("eth_unsubscribe", ["0x1"]), ("net_version", [])]
            for method, params in denied:
                told = await socket.call(method, *params)
                assert told["error"]["data"]["reason"] == "method_refused", told
            items = [{"jsonrpc": "2.0", "id": n, "method": m, "params": p} for n, (m, p) in enumerate(denied)]
            told_all = await socket.batch([*items, {"jsonrpc": "2.0", "id": 9, "method": "eth_chainId"}])
            assert ["error" in told for told in told_all] == [True, True, True, False]
            assert h.gateway.routes[0].stats.subscriptions == 0
            socket.close()

    run(scenario())

"""Every fault, seen by a caller of raw bytes: what comes, how it ends, whether the call took effect."""

from __future__ import annotations

import asyncio
import re
import zlib

import pytest

from gateway.drill.chain import SimulatedChain, transaction_hash
from gateway.drill.faults import Fault, Script, Stage
from gateway.drill.plays import ACCEPT_PLAYS, PLAYS, REPLIES
from gateway.drill.provider import SimulatedProvider
from gateway.model import Family

RAW = b"\x02\xf8drill"
HASH = transaction_hash(RAW)
CALL = b'{"jsonrpc":"2.0","id":7,"method":"eth_sendRawTransaction","params":["0x%s"]}' % RAW.hex().encode()
SOUND = b'{"jsonrpc":"2.0","id":7,"result":"%s"}' % HASH.encode()
HEAD_CALL = b'{"jsonrpc":"2.0","id":8,"method":"eth_blockNumber"}'

BODY = re.escape(SOUND)
HALF = re.escape(SOUND[: len(SOUND) // 2])
ANY_HEAD = rb"HTTP/1\.1 200 OK\r\n.*\r\n\r\n"
TWO_CHUNKS = rb"[0-9a-f]+\r\n.+\r\n[0-9a-f]+\r\n.+\r\n"


def ok(body: bytes) -> bytes:
    return rb"HTTP/1\.1 200 OK\r\nContent-Type: [^\r]+\r\nContent-Length: \d+\r\n\r\n" + body


def status(code: int, body: bytes, fields: bytes = b"") -> bytes:
    return rb"HTTP/1\.1 %d [^\r]*\r\nContent-Type: [^\r]+\r\nContent-Length: \d+\r\n%s\r\n%s" % (code, fields, body)


def failing(code: int, raw_id: bytes = b"7") -> bytes:
    return rb'\{"jsonrpc":"2\.0","id":%s,"error":\{"code":%d,"message":"[^"]+"\}\}' % (raw_id, code)


PAGE = rb"<!DOCTYPE html>.*</html>"
MESSAGE = rb'\{"error": "[^"]+"\}'

# What the caller hears, and how it ends: kept (the next call on the connection is answered), closed, reset, silent.
EXPECTED: dict[Fault, tuple[bytes, str]] = {
    Fault.CLOSE_ON_ACCEPT: (b"", "closed"),
    Fault.RESET_ON_ACCEPT: (b"", "reset"),
    Fault.HANG_ON_ACCEPT: (b"", "silent"),
    Fault.GARBAGE_ON_ACCEPT: (b"\x00\xff.+", "silent"),
    Fault.EARLY_RESPONSE_THEN_CLOSE: (status(503, b"busy", rb"Connection: close\r\n"), "closed"),
    Fault.WRONG_CHAIN_ID: (ok(BODY), "kept"),
    Fault.STALE_HEAD: (ok(BODY), "kept"),
    Fault.LAGGING: (ok(BODY), "kept"),
    Fault.HEAD_JUMP: (ok(BODY), "kept"),
    Fault.HEAD_STEPS_BACK: (ok(BODY), "kept"),
    Fault.FORKED: (ok(BODY), "kept"),
    Fault.PRUNED: (ok(BODY), "kept"),
    Fault.EMPTY_LOGS: (ok(BODY), "kept"),
    Fault.LYING: (ok(BODY), "kept"),
    Fault.MISNUMBERED_LOGS: (ok(BODY), "kept"),
    Fault.SLOW: (ok(BODY), "kept"),
    Fault.HANG_BEFORE_HEAD: (b"", "silent"),
    Fault.RESET_AFTER_READING: (b"", "reset"),
    Fault.CLOSE_AFTER_READING: (b"", "closed"),
    Fault.ACCEPT_SEND_THEN_DIE: (b"", "reset"),
    Fault.RESET_MID_HEAD: (rb"HTTP/1\.1 200 OK\r\nContent-Type:", "reset"),
    Fault.RESET_MID_BODY: (ok(HALF + b"?.?"), "reset"),
    Fault.CLOSE_MID_BODY: (ok(HALF), "closed"),
    Fault.TRUNCATED_JSON: (ok(HALF), "kept"),
    Fault.TRUNCATED_CHUNKED: (ANY_HEAD + TWO_CHUNKS, "closed"),
    Fault.SLOW_HEAD: (ok(BODY), "kept"),
    Fault.SLOW_DRIP: (ok(BODY), "kept"),
    Fault.HANG_MID_BODY: (ok(HALF), "silent"),
    Fault.STATUS_301: (status(301, b"", rb"Location: http://[^\r]+\r\n"), "kept"),
    Fault.STATUS_400: (status(400, MESSAGE), "kept"),
    Fault.STATUS_401: (status(401, MESSAGE), "kept"),
    Fault.STATUS_402: (status(402, MESSAGE), "kept"),
    Fault.STATUS_403: (status(403, MESSAGE), "kept"),
    Fault.STATUS_404: (status(404, b"404 page not found"), "kept"),
    Fault.STATUS_408: (status(408, b""), "kept"),
    Fault.STATUS_413: (status(413, PAGE), "kept"),
    Fault.STATUS_429: (status(429, b"Too Many Requests", rb"Retry-After: 1\r\n"), "kept"),
    Fault.STATUS_429_RPC: (status(429, failing(-32005)), "kept"),
    Fault.STATUS_500: (status(500, MESSAGE), "kept"),
    Fault.STATUS_502: (status(502, PAGE), "kept"),
    Fault.STATUS_503: (status(503, b"upstream connect error"), "kept"),
    Fault.STATUS_503_HTML: (status(503, PAGE), "kept"),
    Fault.STATUS_504: (status(504, b"upstream request timeout"), "kept"),
    Fault.STATUS_520: (status(520, PAGE), "kept"),
    Fault.HTML_200: (ok(PAGE), "kept"),
    Fault.EMPTY_200: (ok(b""), "kept"),
    Fault.EMPTY_BODY_NO_LENGTH: (rb"HTTP/1\.1 200 OK\r\nContent-Type: application/json\r\n\r\n", "closed"),
    Fault.NOT_JSON: (ok(b"no healthy upstream"), "kept"),
    Fault.JSON_SCALAR: (ok(b"42"), "kept"),
    Fault.JSON_ARRAY_FOR_OBJECT: (ok(rb"\[" + BODY + rb"\]"), "kept"),
    Fault.NULL_RESULT_AND_ERROR_MISSING: (ok(rb'\{"jsonrpc":"2\.0","id":7\}'), "kept"),
    Fault.BOTH_RESULT_AND_ERROR: (ok(re.escape(SOUND[:-1]) + rb',"error":\{.+\}\}'), "kept"),
    Fault.RPC_INTERNAL: (ok(failing(-32603)), "kept"),
    Fault.RPC_RATE_LIMIT: (ok(failing(-32005)), "kept"),
    Fault.RPC_UNKNOWN_ERROR: (ok(failing(-32000)), "kept"),
    Fault.RPC_METHOD_NOT_FOUND: (ok(failing(-32601)), "kept"),
    Fault.RPC_ERROR_NULL_ID: (ok(failing(-32603, b"null")), "kept"),
    Fault.WRONG_ID: (ok(BODY.replace(b'"id":7', b'"id":8')), "kept"),
    Fault.STRING_ID: (ok(BODY.replace(b'"id":7', b'"id":"7"')), "kept"),
    Fault.MISSING_ID: (ok(BODY.replace(b'"id":7,', b"")), "kept"),
    Fault.EXTRA_BYTES: (ok(BODY + rb"\x00\xff.garbage"), "kept"),
    Fault.EXTRA_RESPONSE: (ok(BODY) + ok(BODY), "kept"),
    Fault.TWO_CONTENT_LENGTHS: (ANY_HEAD.replace(rb".*", rb"(?:.*Content-Length: \d+){2}") + BODY, "kept"),
    Fault.CL_AND_TE: (rb"[^{]+Content-Length: \d+\r\nTransfer-Encoding: chunked\r\n\r\n.+\r\n0\r\n\r\n", "kept"),
    Fault.NEGATIVE_LENGTH: (rb"[^{]+Content-Length: -1\r\n\r\n" + BODY, "kept"),
    Fault.BAD_CHUNK_SIZE: (rb"[^{]+chunked\r\n\r\nzz\r\n.+\r\n0\r\n\r\n", "kept"),
    Fault.HUGE_HEADER: (rb"HTTP[^{]+X-Padding: x{262144}\r\n\r\n" + BODY, "kept"),
    Fault.MANY_HEADERS: (rb"HTTP[^{]+(?:X-Padding-\d+: x\r\n){2000}\r\n" + BODY, "kept"),
    Fault.MANY_1XX: (rb"(?:HTTP/1\.1 100 Continue\r\n\r\n){200}" + ok(BODY), "kept"),
    Fault.HTTP_09_GARBAGE: (BODY, "closed"),
    Fault.WRONG_VERSION: (ok(BODY).replace(rb"HTTP/1\.1", rb"HTTP/3\.7"), "kept"),
    Fault.GZIP_UNASKED: (rb"HTTP[^{]+Content-Encoding: gzip\r\n\r\n\x1f\x8b.+", "kept"),
    Fault.GZIP_BOMB: (rb"HTTP[^{]+Content-Encoding: gzip\r\n\r\n\x1f\x8b.+", "kept"),
    Fault.BAD_GZIP: (rb"HTTP[^{]+Content-Encoding: gzip\r\n\r\n\x1f\x8b.+", "kept"),
    Fault.CHUNKED: (ANY_HEAD + TWO_CHUNKS + rb"0\r\n\r\n", "kept"),
    Fault.CLOSE_DELIMITED: (rb"HTTP/1\.1 200 OK\r\n[^{]+Connection: close\r\n\r\n" + BODY, "closed"),
    Fault.CONNECTION_CLOSE: (ok(BODY).replace(rb"\d+\r\n\r\n", rb"\d+\r\nConnection: close\r\n\r\n"), "closed"),
    Fault.NO_KEEPALIVE_HTTP10: (ok(BODY).replace(rb"HTTP/1\.1", rb"HTTP/1\.0"), "closed"),
    Fault.STALE_KEEPALIVE: (ok(BODY), "closed"),
}
QUICKER = {Fault.SLOW: 0.001, Fault.SLOW_HEAD: 0.001, Fault.SLOW_DRIP: 0.0001, Fault.GZIP_BOMB: 2_000_000.0}


@pytest.mark.parametrize(
    "fault", [fault for fault in Fault if fault is not Fault.REFUSE], ids=lambda fault: fault.value
)
def test_a_fault_looks_as_announced_and_the_next_call_is_answered_once_it_is_cleared(fault, run, calling):
    async def story() -> None:
        chain = SimulatedChain(block_time=1e6)
        provider = SimulatedProvider("a", chain, script=Script().set(fault, amount=QUICKER.get(fault)))
        async with provider:
            pattern, end = EXPECTED[fault]
            async with calling(provider) as caller:
                caller.post(CALL)
                if end in ("closed", "reset"):
                    assert await caller.end() == end
                    assert re.fullmatch(pattern, caller.heard, re.DOTALL), caller.heard
                else:
                    if pattern:
                        await caller.hears(pattern)
                    if end == "silent":
                        assert await caller.hears_nothing()
                        assert provider.connections_open == 1
                assert provider.script.fired[fault] == 1
                assert sum(provider.script.fired.values()) == 1
                if fault.stage is Stage.ANSWER:
                    assert chain.times_received(HASH) == (1 if fault.performs else 0)
                provider.script.clear()
                if end == "kept" and "gzip" not in fault.value:  # where a compressed body ends, the pattern cannot say
                    assert b'"id":8,"result":"0x' in await caller.ask(HEAD_CALL)
            async with calling(provider) as caller:
                assert b'"id":8,"result":"0x' in await caller.ask(HEAD_CALL)

    run(story())


def test_every_fault_is_expected_and_has_exactly_one_form():
    assert set(EXPECTED) | {Fault.REFUSE} == set(Fault)
    on_the_wire = {fault for fault in Fault if fault.stage in (Stage.ACCEPT, Stage.HEAD, Stage.ANSWER)}
    assert sorted([*ACCEPT_PLAYS, *PLAYS, *REPLIES], key=str) == sorted(on_the_wire, key=str)
    assert all(fault.description for fault in Fault)
    assert set(ACCEPT_PLAYS) == {fault for fault in Fault if fault.stage is Stage.ACCEPT}


def test_a_refusing_provider_resets_its_callers_and_comes_back_at_the_same_port(run, calling):
    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain())
        async with provider:
            port = provider.port
            async with calling(provider) as caller:
                await caller.ask(HEAD_CALL)
                await provider.refuse()
                assert await caller.end() == "reset"
            with pytest.raises(ConnectionRefusedError):
                async with calling(provider):
                    pass
            assert provider.script.fired[Fault.REFUSE] == 1
            await provider.accept()
            assert provider.port == port
            async with calling(provider) as caller:
                assert b'"result"' in await caller.ask(HEAD_CALL)

    run(story())


def test_a_refusal_with_an_end_ends_by_itself(run, calling):
    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain())
        async with provider:
            provider.script.set(Fault.REFUSE, after=0.005, lasting=0.02)
            refused = 0
            async with asyncio.timeout(5):
                while not (refused and provider.script.fired[Fault.REFUSE]):
                    try:
                        async with calling(provider):
                            await asyncio.sleep(0.001)
                    except ConnectionError:
                        refused += 1
                while True:
                    try:
                        async with calling(provider) as caller:
                            assert b'"result"' in await caller.ask(HEAD_CALL)
                            break
                    except ConnectionError:
                        await asyncio.sleep(0.001)

    run(story())


def test_a_refusal_that_ends_while_the_door_is_being_closed_ends_all_the_same(run, calling):
    async def story() -> None:
        now = [0.0]

        def clock() -> float:
            now[0] += 0.004  # each look at the clock takes its time: the window ends between two looks
            return now[0]

        provider = SimulatedProvider("a", SimulatedChain(), clock=clock)
        async with provider:
            for lasting in (0.003, 0.005, 0.007, 0.009, 0.011, 0.013):
                provider.script.set(Fault.REFUSE, lasting=lasting)
                async with asyncio.timeout(5):
                    while True:
                        await asyncio.sleep(0.001)
                        try:
                            async with calling(provider) as caller:
                                assert b'"result"' in await caller.ask(HEAD_CALL)
                                break
                        except ConnectionError:
                            pass

    run(story())


def test_a_provider_may_start_refusing(run, calling):
    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain(), script=Script().set(Fault.REFUSE))
        async with provider:
            with pytest.raises(ConnectionRefusedError):
                async with calling(provider):
                    pass
            await provider.accept()
            async with calling(provider) as caller:
                assert b'"result"' in await caller.ask(HEAD_CALL)

    run(story())


def test_compressed_answers_unpack_to_what_was_promised(run, calling):
    async def body_of(provider: SimulatedProvider, fault: Fault) -> bytes:
        provider.script.clear()
        provider.script.set(fault, amount=3_000_000)
        async with calling(provider) as caller:
            return await caller.ask(HEAD_CALL)

    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain())
        async with provider:
            assert b'"id":8,"result":"0x' in zlib.decompress(await body_of(provider, Fault.GZIP_UNASKED), 31)
            bomb = await body_of(provider, Fault.GZIP_BOMB)
            assert len(bomb) < 20_000
            opened = zlib.decompress(bomb, 31)  # the checksum and the length at its end are verified too
            assert len(opened) > 2_000_000
            assert opened.startswith(b'{"jsonrpc"')
            assert opened.endswith(b'0"}')
            with pytest.raises(zlib.error):
                zlib.decompress(await body_of(provider, Fault.BAD_GZIP), 31)

    run(story())


def test_a_provider_behind_lags_by_as_many_blocks_as_told_and_has_no_logs_beyond(run, calling):
    now = 1000.0

    async def story() -> None:
        chain = SimulatedChain(block_time=10, genesis_at=0)
        provider = SimulatedProvider("a", chain, clock=lambda: now)
        async with provider:
            provider.script.set(Fault.LAGGING, amount=3)
            logs = b'{"id":1,"method":"eth_getLogs","params":[{"fromBlock":"0x%x","toBlock":"0x%x"}]}'
            async with calling(provider) as caller:
                assert b'"result":"%s"' % hex(97).encode() in await caller.ask(HEAD_CALL)
                assert b'"result":[]' in await caller.ask(logs % (98, 100))
                assert b"topics" in await caller.ask(logs % (97, 100))
                block = b'{"id":1,"method":"eth_getBlockByNumber","params":["0x62",false]}'
                assert b'"result":null' in await caller.ask(block)

    run(story())


def test_a_chain_that_has_halted_has_no_new_block_at_anybodys_until_it_goes_on() -> None:
    chain = SimulatedChain(block_time=10, genesis_at=0)
    chain.halt(1000.0)
    chain.halt(1005.0)
    assert [chain.head(now) for now in (999.0, 1001.0, 2000.0)] == [99, 100, 100]
    chain.resume(2000.0)
    assert [chain.head(now) for now in (1500.0, 2000.0, 2010.0, 2100.0)] == [100, 100, 101, 110]


def test_a_branch_shares_what_lies_below_its_root_and_links_its_own_blocks() -> None:
    chain = SimulatedChain(block_time=10, genesis_at=0)
    branch = chain.branch(50)
    assert branch.head(1000.0) == chain.head(1000.0)
    assert branch.block_hash(50) == chain.block_hash(50)
    assert branch.block_hash(51) != chain.block_hash(51)
    assert branch.block(52)["parentHash"] == branch.block_hash(51)
    assert branch.number_of(branch.block_hash(60)) == 60
    assert branch.number_of(chain.block_hash(60)) is None
    assert branch.balance("0xab", 60) != chain.balance("0xab", 60)


def test_wrong_data_is_wrong_in_its_own_way(run, calling):
    now = 1000.0
    ask = b'{"id":1,"method":"%s","params":%s}'
    balance = ask % (b"eth_getBalance", b'["0x%s","0x5"]' % (b"ab" * 20))
    logs = ask % (b"eth_getLogs", b'[{"fromBlock":"0x62","toBlock":"0x63"}]')

    async def story() -> None:
        chain = SimulatedChain(block_time=10, genesis_at=0)
        provider = SimulatedProvider("a", chain, clock=lambda: now)
        async with provider, calling(provider) as caller:
            sound = await caller.ask(balance)
            provider.script.set(Fault.HEAD_JUMP, amount=1_000_000)
            assert b'"result":"%s"' % hex(1_000_100).encode() in await caller.ask(HEAD_CALL)
            provider.script.clear()
            provider.script.set(Fault.HEAD_STEPS_BACK, amount=3)
            heads = [await caller.ask(HEAD_CALL) for _ in range(4)]
            assert len(set(heads)) == 2
            assert heads[0] == heads[2]
            provider.script.clear()
            provider.script.set(Fault.PRUNED, amount=10)
            assert b"missing trie node" in await caller.ask(balance)
            provider.script.clear()
            provider.script.set(Fault.EMPTY_LOGS)
            assert b'"result":[]' in await caller.ask(logs)
            provider.script.clear()
            provider.script.set(Fault.LYING)
            lie = await caller.ask(balance)
            assert b"result" in lie
            assert lie != sound
            provider.script.clear()
            assert await caller.ask(balance) == sound

    run(story())


def test_a_provider_takes_no_more_calls_a_second_than_it_allows(run, calling):
    now = [1000.0]

    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain(), clock=lambda: now[0])
        provider.rate_limit = 5
        async with provider, calling(provider) as caller:
            for _ in range(8):
                await caller.ask(HEAD_CALL)
            assert provider.refused_as_too_many == 3
            now[0] += 1.0
            assert b'"result"' in await caller.ask(HEAD_CALL)

    run(story())


def test_a_frozen_head_stays_while_time_goes_on(run, calling):
    now = [1000.0]

    async def story() -> None:
        chain = SimulatedChain(block_time=10, genesis_at=0)
        provider = SimulatedProvider("a", chain, clock=lambda: now[0])
        async with provider:
            provider.script.set(Fault.STALE_HEAD, amount=2)
            async with calling(provider) as caller:
                assert b'"result":"%s"' % hex(98).encode() in await caller.ask(HEAD_CALL)
                now[0] += 500
                assert b'"result":"%s"' % hex(98).encode() in await caller.ask(HEAD_CALL)
                provider.script.clear()
                assert b'"result":"%s"' % hex(150).encode() in await caller.ask(HEAD_CALL)

    run(story())


def test_a_provider_on_the_wrong_chain_shares_nothing_with_the_right_one(run, calling):
    async def story() -> None:
        chain = SimulatedChain()
        provider = SimulatedProvider("a", chain)
        async with provider:
            block = b'{"id":1,"method":"eth_getBlockByNumber","params":["0x5",false]}'
            async with calling(provider) as caller:
                right = await caller.ask(block)
                provider.script.set(Fault.WRONG_CHAIN_ID, amount=1337)
                assert b'"result":"0x539"' in await caller.ask(b'{"id":1,"method":"eth_chainId"}')
                assert b'"result":"1337"' in await caller.ask(b'{"id":1,"method":"net_version"}')
                assert await caller.ask(block) != right
                await caller.ask(CALL)
                assert chain.times_received(HASH) == 0

    run(story())


def test_a_rule_for_some_methods_or_families_leaves_the_others_alone(run, calling):
    async def story() -> None:
        provider = SimulatedProvider("a", SimulatedChain())
        async with provider:
            provider.script.set(Fault.RPC_INTERNAL, methods=["eth_get*"], families=[Family.SEND])
            balance = b'{"id":1,"method":"eth_getBalance","params":["0x%s"]}' % (b"11" * 20)
            async with calling(provider) as caller:
                assert b'"result"' in await caller.ask(HEAD_CALL)
                assert b"-32603" in await caller.ask(balance)
                assert b"-32603" in await caller.ask(CALL)
                assert provider.script.fired[Fault.RPC_INTERNAL] == 2
                batch = await caller.ask(b"[" + HEAD_CALL + b"," + balance + b"]")
                assert batch.count(b"result") == 1  # one item is spoilt, the other is not
                assert batch.count(b"-32603") == 1

    run(story())

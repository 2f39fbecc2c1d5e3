"""The incidents of 2017 to 2026, in small: what happened, and what callers of the gateway would have seen.

Each scenario prints one sentence.  Dates and causes are those of the public post-mortems.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from gateway.clock import monotonic
from gateway.drill.faults import Fault
from gateway.model import Family
from tests.pace import PATIENCE, at_least, at_most
from tests.scenarios.caller import Caller, Tally, many
from tests.scenarios.house import House, NamedLoop, house, run

ACCOUNT = "0x" + "ab" * 20
SHORT = 0.5  # block time, seconds


def told(date: str, sentence: str) -> None:
    print(f"{date}: {sentence}")


def kinds(home: House) -> set[str]:
    return {verdict["kind"] for verdict in home.gateway.status()["routes"][0]["verdicts"]}


def reasons(home: House, name: str) -> set[str]:
    return {reason["reason"] for reason in home.state(name)["reasons"]}


def break_all(home: House, names: Iterable[int], fault: Fault, **options: object) -> None:
    for number in names:
        home.providers[number].script.set(fault, **options)  # type: ignore[arg-type]


async def heads(home: House, count: int = 300) -> tuple[Tally, list[int]]:
    tally = await many(home.port, "/local", count, 4)
    assert not tally.lost
    return tally, [int(t.body["result"], 16) for t in tally.told]


async def moving(home: House) -> None:
    """Until the chain has shown that its blocks come at a pace: nobody has told the gateway so."""

    def newest() -> int:
        return int(home.gateway.status()["routes"][0]["head"]["number"])

    first = newest()
    await home.until(lambda: newest() >= first + 5)


def test_2020_11_11_one_client_version_is_stuck_for_hours(tmp_path: Path) -> None:
    """geth 1.9.9 and 1.9.13 at one large provider rejected a valid block; its head stood still, and then a storm."""

    async def scenario() -> None:
        in_blocks = "    heads: {lag_time: 0s, poll_every_at_least: 100ms}\n"
        async with house(tmp_path, block_time=SHORT, route_extra=in_blocks) as home:
            await moving(home)
            break_all(home, [0], Fault.STALE_HEAD, amount=0)
            await home.until(lambda: "lagging" in reasons(home, "p0"))
            late = home.state("p0")["head"]["lag_blocks"]
            assert late <= 3
            before = home.providers[0].calls["eth_blockNumber"]
            _, seen = await heads(home)
            assert home.providers[0].calls["eth_blockNumber"] == before, "the stuck one still got head reads"
            assert min(seen) >= home.chain.head(monotonic()) - 4
            home.providers[0].script.clear()
            await home.until(lambda: not reasons(home, "p0"))
            back, _ = await heads(home, 600)
            share = sum(t.headers["x-seawall-endpoint"] == "p0" for t in back.told) / len(back.told)
            assert share < 0.75, "it came back to a storm"  # the fastest of three gets two thirds, whoever it is
            for _ in range(50):  # and the slowest gets few, but some
                back.told += (await heads(home, 20))[0].told
                await asyncio.sleep(0.05)
            assert "p0" in {t.headers["x-seawall-endpoint"] for t in back.told}, "it is left alone for ever"
            told(
                "2020-11-11",
                f"callers saw no old head: the stuck provider was left {late} blocks after its last one, and when "
                f"it was back it got {share:.0%} of the calls",
            )

    run(scenario())


def test_2023_09_05_no_block_for_29_minutes(tmp_path: Path) -> None:
    """A disk was full at the chain's own nodes, and nobody anywhere had a new block."""

    async def scenario() -> None:
        async with house(tmp_path, block_time=SHORT) as home:
            await moving(home)
            home.chain.halt(monotonic())
            took = await home.until(lambda: "chain_halted" in kinds(home))
            tally, _ = await heads(home)
            answered = {t.headers["x-seawall-endpoint"] for t in tally.told}
            assert answered == {"p0", "p1", "p2"}, "somebody was left out for a halt that is nobody's fault"
            assert not any(reasons(home, f"p{i}") for i in range(3))
            home.chain.resume(monotonic())
            back = await home.until(lambda: "chain_halted" not in kinds(home))
            told(
                "2023-09-05",
                f"callers went on reading the last block; the halt was named after {took / SHORT:.1f} blocks, "
                f"and its end after {back:.1f} s; no endpoint was blamed",
            )

    run(scenario())


def test_2024_03_13_a_minority_stays_stuck_after_a_halt(tmp_path: Path) -> None:
    """Blast: 65 minutes without a block; two of five public endpoints stayed there afterwards, with old nonces."""

    async def scenario() -> None:
        async with house(tmp_path, count=5, block_time=SHORT) as home:
            await moving(home)
            home.chain.halt(monotonic())
            await home.until(lambda: "chain_halted" in kinds(home))
            assert not any(reasons(home, f"p{i}") for i in range(5))
            last = home.chain.head(monotonic())
            break_all(home, [0, 1], Fault.STALE_HEAD, amount=0)
            home.chain.resume(monotonic())
            await home.until(lambda: all("lagging" in reasons(home, f"p{i}") for i in (0, 1)))
            assert "chain_halted" not in kinds(home)
            tally = await many(home.port, "/local", 200, 4, "eth_getTransactionCount", ACCOUNT, "latest")
            fresh = await many(home.port, "/local", 200, 4, "eth_getBalance", ACCOUNT, "latest")
            assert not tally.lost + fresh.lost
            moved_on = {"p2", "p3", "p4"}
            assert {t.headers["x-seawall-endpoint"] for t in tally.told + fresh.told} <= moved_on
            old = {hex(home.chain.balance(ACCOUNT, number)) for number in range(last + 1)}
            assert not old & {t.body["result"] for t in fresh.told}
            told("2024-03-13", "nonces and balances came from the three that had moved on; callers saw no old one")

    run(scenario())


def test_2024_03_22_two_providers_with_different_symptoms(tmp_path: Path) -> None:
    """Blast: one provider was stale, the other answered 500 to one call only; failover had nowhere to go."""

    async def scenario() -> None:
        async with house(tmp_path, count=2, block_time=SHORT) as home:
            await heads(home)
            pinned = hex(home.chain.head(monotonic()) - 60)
            break_all(home, [0], Fault.STALE_HEAD, amount=10)
            break_all(home, [1], Fault.STATUS_500, methods=["eth_getBalance"])
            await home.until(lambda: "lagging" in reasons(home, "p0"))
            old = await many(home.port, "/local", 200, 4, "eth_getBalance", ACCOUNT, pinned)
            new = await many(home.port, "/local", 200, 4, "eth_getBlockByNumber", "latest", False)
            assert not old.lost
            assert not new.lost
            assert {t.headers["x-seawall-endpoint"] for t in new.told} == {"p1"}
            assert {t.headers["x-seawall-endpoint"] for t in old.told} == {"p0"}
            newest = await many(home.port, "/local", 50, 1, "eth_getBalance", ACCOUNT, "latest")
            assert not newest.lost
            assert {t.headers.get("x-seawall-degraded") for t in newest.told} == {"last_resort"}
            told(
                "2024-03-22",
                "old state came from the stale one, new blocks from the other; the newest state was old, and said so",
            )

    run(scenario())


def test_2024_03_25_a_reorganisation_is_mishandled_by_some(tmp_path: Path) -> None:
    """Polygon zkEVM: some nodes followed another branch; providers were out of sync for hours."""

    async def scenario() -> None:
        async with house(tmp_path, count=4, block_time=SHORT) as home:
            await heads(home)
            break_all(home, [0], Fault.FORKED, amount=0)
            took = await home.until(lambda: "forked" in reasons(home, "p0"))
            number = hex(home.chain.head(monotonic()) - 3)
            tally = await many(home.port, "/local", 200, 4, "eth_getBlockByNumber", number, False)
            assert {t.body["result"]["hash"] for t in tally.told} == {home.chain.block_hash(int(number, 16))}
            told("2024-03-25", f"the one on the other branch was named after {took / SHORT:.0f} blocks and left out")

    run(scenario())


def test_2024_12_04_the_overflow_does_not_kill_the_backup(tmp_path: Path) -> None:
    """Reown: the paid provider's quota ran out, and the full load drove the free backup into its own limit."""

    async def scenario() -> None:
        async with house(tmp_path, count=2, block_time=2.0) as home:
            home.providers[1].rate_limit = 100
            break_all(home, [0], Fault.STATUS_402)
            await many(home.port, "/local", 400, 4)
            refused = home.providers[1].refused_as_too_many
            until = monotonic() + 4.0
            taken = home.providers[1].calls["eth_blockNumber"]
            good = 0
            while monotonic() < until:
                tally = await many(home.port, "/local", 100, 20)
                good += len(tally.told) - len(tally.lost)
            rate = (home.providers[1].calls["eth_blockNumber"] - taken) / 4.0
            late = home.providers[1].refused_as_too_many - refused
            at_least(good / 4.0, 60, "calls a second that the backup served; its own capacity was not used")
            at_most(late, 0.2 * rate * 4.0, "refusals of the backup; it was asked for much more than it takes")
            told(
                "2024-12-04",
                f"the backup was asked {rate:.0f} times a second of the 100 that it takes and served {good / 4:.0f}; "
                "what did not fit was told when to come back",
            )

    run(scenario())


def test_2025_06_12_a_cloud_fails_everywhere_at_once(tmp_path: Path) -> None:
    """Google Cloud's control plane took Cloudflare's KV with it: 503 from everybody behind them."""

    async def scenario() -> None:
        async with house(tmp_path, count=6, clouds=3) as home:
            await many(home.port, "/local", 300, 4)
            lost = 0
            break_all(home, [0], Fault.STATUS_503)
            lost += len((await many(home.port, "/local", 300, 4)).lost)
            break_all(home, [3], Fault.STATUS_503)
            began = monotonic()
            while "domain" not in kinds(home) and monotonic() - began < PATIENCE:
                lost += len((await many(home.port, "/local", 100, 4)).lost)
            took = monotonic() - began
            assert "domain" in kinds(home)
            assert lost == 0
            at_most(took, 5.0, "seconds until the cloud was named")
            told("2025-06-12", f"callers lost nothing; the cloud was named {took:.1f} s after its second failure")

    run(scenario())


def test_2025_09_10_a_software_version_is_a_failure_domain(tmp_path: Path) -> None:
    """Polygon PoS: finality came late; Bor and Erigon of one version got stuck until they were rolled back."""

    async def scenario() -> None:
        versions = ["bor/v2.2.10", "bor/v2.2.10", "bor/v2.2.10", "erigon/3.0.17", "reth/1.6.0"]
        async with house(tmp_path, count=5, block_time=SHORT, versions=versions) as home:
            assert home.state("p0")["software"] == "bor/2.2.10"
            assert home.state("p0")["domains"]["client"] == "bor/2.2.10"
            await moving(home)
            break_all(home, [4], Fault.LAGGING, amount=1)  # finality, too, is a block late there, within the tolerance
            finals = await many(home.port, "/local", 300, 1, "eth_getBlockByNumber", "finalized", False)
            heights = [int(t.body["result"]["number"], 16) for t in finals.told]
            assert heights == sorted(heights), "what was final was not, a moment later"
            break_all(home, [0, 1], Fault.STALE_HEAD, amount=200)
            await home.until(lambda: "domain" in kinds(home))
            subjects = {v["subject"] for v in home.gateway.status()["routes"][0]["verdicts"] if v["kind"] == "domain"}
            assert subjects == {"bor/2.2.10"}
            tally, _ = await heads(home)
            assert {t.headers["x-seawall-endpoint"] for t in tally.told} <= {"p3", "p4"}
            told(
                "2025-09-10",
                "finality never went back; the client version that two stuck ones had in common was named, and the "
                "third that runs it was left before it got stuck",
            )

    run(scenario())


def test_2025_10_20_names_are_gone_new_connections_fail_and_what_lives_is_kept(tmp_path: Path) -> None:
    """AWS us-east-1: an empty DNS record, then health checks that flapped; wallets showed balances of zero."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, NamedLoop)
        async with house(tmp_path, count=3, clouds=2, names=True) as home:
            await many(home.port, "/local", 300, 4)
            loop.dark = True
            for provider in home.providers:
                provider.script.set(Fault.RESET_ON_ACCEPT)  # connections that are open keep working
            tally = await many(home.port, "/local", 400, 4, "eth_getBalance", ACCOUNT, "latest")
            assert not tally.lost, "connections that were open were thrown away"
            for provider in home.providers:  # the machines are back, their names are not
                provider.script.clear()
                await provider.refuse()
                await provider.accept()
            await home.until(lambda: not any(reasons(home, f"p{i}") for i in range(3)))
            tally.told += (await many(home.port, "/local", 200, 4, "eth_getBalance", ACCOUNT, "latest")).told
            assert not tally.lost, "the addresses that were known last were forgotten with their names"
            moves = 0
            for turn in range(16):  # p0 and p2, of one cloud, come and go
                for number in (0, 2):
                    script = home.providers[number].script
                    script.clear() if turn % 2 else script.set(Fault.STATUS_503)
                was = home.state("p0")["available"]
                tally.told += (await many(home.port, "/local", 50, 4, "eth_getBalance", ACCOUNT, "latest")).told
                await asyncio.sleep(0.4)
                moves += was != home.state("p0")["available"]
            assert not tally.lost
            assert moves <= 6, "it swings with every check"
            values = {t.body["result"] for t in tally.told}
            assert not values & {"0x0", "0x", None}
            told(
                "2025-10-20",
                f"{len(tally.told)} balances and none of them zero or missing; what came and went sixteen times "
                f"was taken in or out {moves} times",
            )

    run(scenario(), NamedLoop)


def test_2025_11_18_an_edge_network_fails_and_those_not_behind_it_serve(tmp_path: Path) -> None:
    """Cloudflare: 5xx at every provider behind it, for three hours."""

    async def scenario() -> None:
        async with house(tmp_path, count=4, edges=["cloudflare", "cloudflare", "cloudflare", ""]) as home:
            await many(home.port, "/local", 300, 4)
            break_all(home, [0, 1], Fault.STATUS_520)
            lost, began = 0, monotonic()
            while "domain" not in kinds(home) and monotonic() - began < PATIENCE:
                lost += len((await many(home.port, "/local", 100, 4)).lost)
            assert lost == 0
            tally = await many(home.port, "/local", 100, 4)
            assert {t.headers["x-seawall-endpoint"] for t in tally.told} == {"p3"}
            told("2025-11-18", "the third behind the same edge was left alone before it failed; p3 served")

    run(scenario())


def test_2026_06_25_sends_fail_everywhere_while_a_chain_stands_still(tmp_path: Path) -> None:
    """Base: 116 minutes without a block; sends returned errors at every provider."""

    async def scenario() -> None:
        async with house(tmp_path, block_time=SHORT) as home:
            await moving(home)
            home.chain.halt(monotonic())
            break_all(home, range(3), Fault.RPC_INTERNAL, families=[Family.SEND])
            await home.until(lambda: "chain_halted" in kinds(home))
            caller = Caller(home.port, "/local")
            for n in range(5):
                answer = await caller.call("eth_sendRawTransaction", "0x02" + f"{n:02x}" * 60)
                assert "error" in answer.body
            await caller.close()
            assert not any(reasons(home, f"p{i}") for i in range(3)), "a breaker opened for what is the chain's fault"
            told("2026-06-25", "senders got the nodes' own error; no endpoint was taken out, and the halt was named")

    run(scenario())


def test_2025_07_the_same_log_query_gives_eighteen_or_none(tmp_path: Path) -> None:
    """Base: bad caches behind some public endpoints answered a log query with nothing."""

    async def scenario() -> None:
        async with house(tmp_path, block_time=SHORT) as home:
            await heads(home)
            break_all(home, [0], Fault.EMPTY_LOGS)
            right = 0
            for _ in range(100):
                last = home.chain.head(monotonic()) - 1
                query = {"fromBlock": hex(last - 3), "toBlock": hex(last)}
                tally = await many(home.port, "/local", 1, 1, "eth_getLogs", query)
                right += tally.told[0].body.get("result") == home.chain.logs(last - 3, last)
            assert right == 100
            struck = home.providers[0].script.fired[Fault.EMPTY_LOGS]
            last = home.chain.head(monotonic()) - 200  # it leaves out old ones, too, and is not believed any more
            turn, began = 0, monotonic()
            while home.providers[0].script.fired[Fault.EMPTY_LOGS] == struck and monotonic() - began < PATIENCE:
                turn += 1  # whose turn it is depends on who is the fastest
                query = {"fromBlock": hex(last - 3 - turn), "toBlock": hex(last)}
                old = await many(home.port, "/local", 300, 8, "eth_getLogs", query)
                assert all(t.body.get("result") == home.chain.logs(last - 3 - turn, last) for t in old.told)
            assert home.providers[0].script.fired[Fault.EMPTY_LOGS] > struck, "it was not asked again"
            told(
                "2025-07",
                f"all of {100 + 300 * turn} queries had their logs: an empty list near the head is asked of somebody "
                "else, and who was found leaving logs out is not believed of old blocks either",
            )

    run(scenario())


def test_2026_07_wrong_log_indexes_are_seen_in_the_answer(tmp_path: Path) -> None:
    """Erigon 3.5: wrong indexes of logs were cached while a block was committed."""

    async def scenario() -> None:
        async with house(tmp_path, block_time=SHORT) as home:
            await heads(home)
            break_all(home, [0], Fault.MISNUMBERED_LOGS, families=[Family.LOGS])
            last = home.chain.head(monotonic()) - 60
            query = {"fromBlock": hex(last - 9), "toBlock": hex(last)}
            asked, began = 0, monotonic()
            while home.state("p0")["families"].get("logs", {}).get("breaker", "closed") == "closed":
                tally = await many(home.port, "/local", 100, 8, "eth_getLogs", query)
                asked += len(tally.told)
                assert all(t.body.get("result") == home.chain.logs(last - 9, last) for t in tally.told)
                assert monotonic() - began < PATIENCE, "it is asked as if nothing were wrong"
            struck = home.providers[0].script.fired[Fault.MISNUMBERED_LOGS]
            assert struck > 0
            assert home.state("p0")["families"]["head"]["breaker"] == "closed"
            told(
                "2026-07",
                f"all of {asked} queries had the right indexes; the one with wrong ones was asked {struck} times",
            )

    run(scenario())


def test_2026_07_wrong_data_without_a_sign_is_found_by_the_audit(tmp_path: Path) -> None:
    """The same where nothing in the answer shows it: only a comparison does."""

    async def scenario() -> None:
        extra = "    audit: {share: 50%}\n"
        async with house(tmp_path, block_time=SHORT, route_extra=extra) as home:
            await heads(home)
            break_all(home, [0], Fault.LYING, methods=["eth_getBalance"])
            number = hex(home.chain.head(monotonic()) - 60)
            began = monotonic()
            calls = 0
            while "distrusted" not in reasons(home, "p0") and monotonic() - began < PATIENCE:
                calls += len((await many(home.port, "/local", 20, 2, "eth_getBalance", ACCOUNT, number)).told)
            assert "distrusted" in reasons(home, "p0")
            tally = await many(home.port, "/local", 200, 4, "eth_getBalance", ACCOUNT, number)
            assert {t.body["result"] for t in tally.told} == {hex(home.chain.balance(ACCOUNT, int(number, 16)))}
            told("2026-07", f"the one that told wrong values was found after {calls} reads and not asked again")

    run(scenario())


def test_always_a_balanced_provider_goes_back_by_a_block(tmp_path: Path) -> None:
    """geth issues 24078 and 27353: behind one name are machines of different heads."""

    async def scenario() -> None:
        async with house(tmp_path, block_time=SHORT) as home:
            break_all(home, [0], Fault.HEAD_STEPS_BACK, amount=1)
            caller, newest, back, short = Caller(home.port, "/local"), 0, 0, 0
            for n in range(600):
                number = int((await caller.call("eth_blockNumber")).body["result"], 16)
                back += number < newest
                newest = max(newest, number)
                await asyncio.sleep(0.002)
                if n % 10 == 0:  # logs up to the block that it was told
                    query = {"fromBlock": hex(newest - 1), "toBlock": hex(newest)}
                    short += (await caller.call("eth_getLogs", query)).body.get("result") != home.chain.logs(
                        newest - 1, newest
                    )
            await caller.close()
            assert back == 0
            assert short == 0, "logs beyond the head of one machine came back empty"
            told("always", "in 600 calls over many blocks the head never went back, and no logs up to it were missing")

    run(scenario())

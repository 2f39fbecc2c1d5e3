"""Subscriptions over whatever happens to the endpoints that feed them.

Providers are simulated, on real sockets.  Each story ends with the same questions: were the heads one walk
over the chain, do the logs held in the end be those of the chain, and was what could not be told said so?
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import monotonic
from gateway.drill.chain import SimulatedChain
from gateway.drill.faults import Fault
from gateway.drill.provider import SimulatedProvider
from gateway.drill.socket import SocketFault
from tests.pace import at_most
from tests.scenarios.house import House, house, run
from tests.scenarios.scripted_sockets import ScriptedSockets
from tests.scenarios.subscriber import Subscriber
from tests.scenarios.told import expected_logs, held, tree, walk
from tests.telemetry.collector import Collector, attributes

WS = ", ws: true"
BLOCK_TIME = 0.25
ONE_SOURCE = "    feeds: {sources: 1}"


class Watch:
    """A caller that subscribes to heads and to all logs."""

    def __init__(self, house: House, socket: Subscriber, heads: str, logs: str) -> None:
        self.house = house
        self.socket = socket
        self.heads_id = heads
        self.logs_id = logs
        self.since = house.chain.head(monotonic())

    @classmethod
    async def begin(cls, h: House) -> Watch:
        socket = await Subscriber.open(h.port)
        heads = await socket.subscribe("newHeads")
        logs = await socket.subscribe("logs", {})
        return cls(h, socket, heads, logs)

    @property
    def heads(self) -> list[dict[str, Any]]:
        return self.socket.results(self.heads_id)

    @property
    def logs(self) -> list[dict[str, Any]]:
        return self.socket.results(self.logs_id)

    @property
    def notices(self) -> list[dict[str, Any]]:
        return self.socket.notices

    @property
    def newest(self) -> int:
        heads = self.heads
        return int(heads[-1]["number"], 16) if heads else 0

    async def caught_up(self) -> int:
        """Wait until the head of now was told, and its logs; returns its number."""
        last = self.house.chain.head(monotonic())
        await self.reached(last)
        return last

    async def reached(self, number: int) -> float:
        """Wait until it was told that far; how long it took, in seconds."""

        def both() -> bool:
            logs = self.logs
            return self.newest >= number and bool(logs) and int(logs[-1]["blockNumber"], 16) >= number

        return await self.house.until(both)

    def has_all(self, last: int) -> None:
        """Every block since it began, once and in order, every log of them, and nothing to be sorry for."""
        numbers = walk(self.heads)
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert numbers[0] <= self.since + 1
        assert numbers[-1] >= last
        self.has_logs(self.house.chain, last)
        assert not self.notices

    def has_logs(self, chain: SimulatedChain, last: int) -> None:
        low = self.since + 2  # whether a subscription to logs begins with the newest block is nobody's promise
        holds = [key for key in held(self.logs) if low <= key[0] <= last]
        assert holds == expected_logs(chain, low, last)


@contextlib.asynccontextmanager
async def brisk(folder: Path, **how: Any) -> AsyncIterator[House]:
    """A house whose providers speak WebSocket and whose chain is quick."""
    async with house(folder, **({"endpoint_extra": WS, "block_time": BLOCK_TIME} | how)) as h:
        yield h


def together(folder: Path, story: Callable[[Path, Any], Coroutine[Any, Any, None]], cases: Sequence[Any]) -> None:
    """The same story for each case, each in a house of its own, all at the same time: they mostly wait."""

    async def one(number: int, case: Any) -> None:
        place = folder / str(number)
        place.mkdir()
        try:
            await story(place, case)
        except BaseException as problem:
            problem.add_note(f"case: {case}")
            raise

    async def every() -> None:
        ends = await asyncio.gather(*(one(n, case) for n, case in enumerate(cases)), return_exceptions=True)
        problems = [end for end in ends if isinstance(end, BaseException)]
        if problems:
            raise BaseExceptionGroup(f"{len(problems)} of {len(cases)} cases", problems)

    run(every())


async def blocks(count: float) -> None:
    await asyncio.sleep(BLOCK_TIME * count)


async def a_block_begins(h: House) -> int:
    """Wait for the next block; what is done right after this is done within it."""
    before = h.chain.head(monotonic())
    await h.until(lambda: h.chain.head(monotonic()) > before)
    return before + 1


def named(h: House, name: str) -> SimulatedProvider:
    return next(provider for provider in h.providers if provider.name == name)


def sources(h: House) -> list[SimulatedProvider]:
    """The providers that feed the heads."""
    return [named(h, name) for name in h.gateway.feed_sources("local")]


def log_sources(h: House) -> list[SimulatedProvider]:
    """The providers that feed the logs: one, or none for a moment."""
    feeds = h.gateway.status()["routes"][0]["feeds"]
    return [named(h, name) for feed in feeds if feed["feed"] == "logs" for name in feed["sources"]]


FAULTS = ["DUPLICATE", "HALF_BATCH", "GARBAGE", "HANG", "SILENT", "LAG", "CLOSE", "RESTART", "RESET"]


@pytest.mark.parametrize("count", [1, 2])
def test_whatever_sources_do_no_event_is_lost_doubled_or_out_of_order(tmp_path: Path, count: int) -> None:
    """All sources at the same time, the one of the logs included."""

    async def story(folder: Path, fault: str) -> None:
        async with brisk(folder, route_extra=f"    feeds: {{sources: {count}}}") as h:
            watch = await Watch.begin(h)
            await blocks(2)
            for provider in {*sources(h), *log_sources(h)}:
                provider.strike_sockets(SocketFault[fault], 3.0)
            await blocks(7)
            watch.has_all(await watch.caught_up())

    together(tmp_path, story, FAULTS)


@pytest.mark.parametrize("count", [1, 2])
def test_sources_that_push_blocks_in_the_wrong_order_cost_no_event(tmp_path: Path, count: int) -> None:
    """Heads are put in order; a log is told when it comes, out of its place rather than not at all."""

    async def scenario() -> None:
        async with brisk(tmp_path, route_extra=f"    feeds: {{sources: {count}}}") as h:
            watch = await Watch.begin(h)
            await blocks(2)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.REORDER)
            await blocks(8)
            for provider in h.providers:
                provider.heal_sockets()
            await blocks(2)
            last = await watch.caught_up()
            numbers = walk(watch.heads)
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            told = [(int(log["blockNumber"], 16), int(log["logIndex"], 16), log["blockHash"]) for log in watch.logs]
            low = watch.since + 2
            assert sorted(key for key in told if low <= key[0] <= last) == expected_logs(h.chain, low, last)
            assert told != sorted(told), "the fault never struck"
            assert not watch.notices

    run(scenario())


def test_heads_that_sources_skip_are_made_good(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path) as h:
            socket = await Subscriber.open(h.port)
            heads = await socket.subscribe("newHeads")
            first = h.chain.head(monotonic())
            for provider in h.providers:
                provider.strike_sockets(SocketFault.SKIP, 2.0)
            await blocks(10)
            await h.until(lambda: len(socket.results(heads)) >= 10)
            numbers = walk(socket.results(heads))
            assert numbers == list(range(first + 1, first + 1 + len(numbers)))
            assert not socket.notices

    run(scenario())


# --- who could be a source --------------------------------------------------------------------------


def test_heads_and_logs_come_whoever_speaks_websocket(tmp_path: Path) -> None:
    async def story(folder: Path, how: str) -> None:
        extra = "" if how == "no_socket" else WS
        count = 1 if how == "one_endpoint" else 3
        async with brisk(folder, endpoint_extra=extra, count=count) as h, ScriptedSockets() as refuser:
            refuser.status = 403 if how == "upgrade_refused" else 0
            if how in ("upgrade_refused", "subscription_refused", "one_of_three"):
                await give_other_sockets(h, refuser, 2 if how == "one_of_three" else 3)
            watch = await Watch.begin(h)
            await blocks(3)
            if how == "one_endpoint":
                h.providers[0].strike_sockets(SocketFault.RESET)
            await blocks(5)
            watch.has_all(await watch.caught_up())
            assert refuser.upgrades > 0 or how in ("no_socket", "one_endpoint", "one_of_three")

    together(tmp_path, story, ["no_socket", "one_endpoint", "upgrade_refused", "subscription_refused", "one_of_three"])


async def give_other_sockets(h: House, scripted: ScriptedSockets, count: int) -> None:
    """The first `count` endpoints have their WebSocket elsewhere."""
    rows = h.config.read_text().split("\n")
    for number in range(count):
        at = next(i for i, row in enumerate(rows) if f"id: p{number}," in row)
        rows[at] = rows[at].replace("ws: true", f"ws: '{scripted.url}/{number}'")
    h.config.write_text("\n".join(rows))
    assert await h.gateway.reload()


def test_what_is_made_of_polls_alone_is_neither_late_nor_a_gap(tmp_path: Path) -> None:
    """An operator looks at these figures for sockets that bring too little."""

    async def story(folder: Path, sockets: bool) -> None:
        async with brisk(folder, endpoint_extra=WS if sockets else "") as h:
            watch = await Watch.begin(h)
            await blocks(3)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.SILENT, 1.0)
            await blocks(6)
            watch.has_all(await watch.caught_up())
            stats = h.gateway.routes[0].stats
            assert [n > 0 for n in (stats.gaps_found, stats.blocks_filled, stats.events_late)] == [sockets] * 3

    together(tmp_path, story, [True, False])


# --- blocks that were missed ------------------------------------------------------------------------


def test_all_providers_down_for_some_blocks_and_back_everything_comes_late_and_in_order(tmp_path: Path) -> None:
    async def story(folder: Path, seconds: float) -> None:
        async with brisk(folder) as h:
            watch = await Watch.begin(h)
            await blocks(2)
            await asyncio.gather(*(provider.stop() for provider in h.providers))
            await asyncio.sleep(seconds)
            await asyncio.gather(*(provider.start() for provider in h.providers))
            watch.has_all(await watch.caught_up())

    together(tmp_path, story, [0.5, 2.0, 4.0])


SECOND = [Fault.RPC_INTERNAL, Fault.HANG_BEFORE_HEAD, Fault.RESET_MID_BODY, Fault.TRUNCATED_JSON, Fault.LAGGING]


def test_a_second_failure_while_missing_blocks_are_fetched_costs_nothing(tmp_path: Path) -> None:
    """All sockets die for some blocks; then two of three providers fail the calls that would fill the gap."""

    async def story(folder: Path, fault: Fault) -> None:
        async with brisk(folder) as h:
            watch = await Watch.begin(h)
            await blocks(2)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.SILENT)
            for provider in h.providers[:2]:
                provider.script.set(fault, methods=("eth_getLogs", "eth_getBlockBy*"))
            await blocks(5)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.RESET)
            await blocks(5)
            for provider in h.providers:
                provider.script.clear()
            assert h.fired() > 0
            watch.has_all(await watch.caught_up())

    together(tmp_path, story, SECOND)


def test_a_fill_that_nobody_answers_for_a_while_is_made_when_somebody_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path) as h:
            watch = await Watch.begin(h)
            await blocks(2)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.SILENT)
                provider.script.set(Fault.RPC_INTERNAL, methods=("eth_getLogs", "eth_getBlockBy*"))
            await blocks(8)
            for provider in h.providers:
                provider.script.clear()
                provider.strike_sockets(SocketFault.RESET)
            watch.has_all(await watch.caught_up())

    run(scenario())


def test_callers_who_join_while_missing_blocks_are_fetched_are_told_one_walk(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path) as h:
            first = await Watch.begin(h)
            await blocks(2)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.SILENT)
                provider.script.set(Fault.SLOW, amount=0.2)
            joined = []
            for _ in range(8):
                await blocks(1)
                joined.append(await Watch.begin(h))
            for provider in h.providers:
                provider.strike_sockets(SocketFault.RESET)
                provider.script.clear()
            last = await first.caught_up()
            first.has_all(last)
            for watch in joined:
                await watch.reached(last)
                watch.has_all(last)

    run(scenario())


def test_a_replacement_that_lags_does_not_hold_anybody_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path, route_extra=ONE_SOURCE) as h:
            watch = await Watch.begin(h)
            await blocks(2)
            (lost,) = sources(h)
            others = [provider for provider in h.providers if provider is not lost]
            others[0].script.set(Fault.LAGGING, amount=3)
            others[1].script.set(Fault.LAGGING, amount=2)
            lost.strike_sockets(SocketFault.RESET)
            await blocks(10)
            watch.has_all(await watch.caught_up())

    run(scenario())


# --- reorganisations --------------------------------------------------------------------------------


def test_a_reorganisation_is_told_as_the_new_branch_and_its_logs_instead_of_the_old(tmp_path: Path) -> None:
    async def story(folder: Path, when: str) -> None:
        async with brisk(folder, endpoint_extra="" if when == "without_sockets" else WS) as h:
            watch = await Watch.begin(h)
            await blocks(4)
            if when == "across_the_gap":
                await asyncio.gather(*(provider.stop() for provider in h.providers))
                await blocks(3)
            number = await a_block_begins(h)
            back = 5 if when == "across_the_gap" else 2
            for provider in h.providers:
                provider.script.set(Fault.FORKED, amount=back)
            branch = h.chain.branch(number - back)
            if when == "across_the_gap":
                await asyncio.gather(*(provider.start() for provider in h.providers))
            await h.until(lambda: watch.heads[-1]["hash"] == branch.block_hash(watch.newest))
            last = await watch.caught_up()
            holds = tree(watch.heads)
            assert holds == [branch.block_hash(n) for n in range(watch.newest - len(holds) + 1, watch.newest + 1)]
            assert any(log["removed"] for log in watch.logs)
            await h.until(lambda: not wrong_logs(watch, branch, last))
            assert not watch.notices

    together(tmp_path, story, ["live", "across_the_gap", "without_sockets"])


def wrong_logs(watch: Watch, chain: SimulatedChain, last: int) -> set[tuple[int, int, str]]:
    """Logs a caller holds and should not, or should and does not."""
    low = watch.since + 2
    return {key for key in held(watch.logs) if low <= key[0] <= last} ^ set(expected_logs(chain, low, last))


def test_a_fork_that_heals_ends_where_it_began(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path) as h:
            watch = await Watch.begin(h)
            await blocks(3)
            await a_block_begins(h)
            for provider in h.providers:
                provider.script.set(Fault.FORKED, amount=1)
            await blocks(4)
            for provider in h.providers:
                provider.script.clear()
            await h.until(lambda: watch.heads[-1]["hash"] == h.chain.block_hash(watch.newest))
            last = await watch.caught_up()
            holds = tree(watch.heads)
            assert holds == [h.chain.block_hash(n) for n in range(watch.newest - len(holds) + 1, watch.newest + 1)]
            await h.until(lambda: not wrong_logs(watch, h.chain, last))
            assert not watch.notices

    run(scenario())


def test_a_source_on_a_branch_of_its_own_does_not_lead_callers_astray(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path, route_extra=ONE_SOURCE) as h:
            watch = await Watch.begin(h)
            await blocks(3)
            sources(h)[0].script.set(Fault.FORKED, amount=0)
            await blocks(12)
            await h.until(lambda: watch.heads[-1]["hash"] == h.chain.block_hash(watch.newest))
            last = await watch.caught_up()
            tree(watch.heads)
            await h.until(lambda: not wrong_logs(watch, h.chain, last))

    run(scenario())


# --- what cannot be made good -----------------------------------------------------------------------


def test_a_gap_that_is_too_large_is_told_as_a_notice_and_the_feed_goes_on_behind_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path, block_time=0.5) as h:
            watch = await Watch.begin(h)
            await h.until(lambda: watch.newest > watch.since)
            await asyncio.gather(*(provider.stop() for provider in h.providers))
            before = watch.newest
            h.chain.genesis_at -= 1500 * h.chain.block_time  # as if they had been away for long
            await asyncio.gather(*(provider.start() for provider in h.providers))
            last = await watch.caught_up()
            numbers = [int(head["number"], 16) for head in watch.heads]
            beyond = numbers[numbers.index(before) + 1 :]
            assert beyond == list(range(beyond[0], beyond[0] + len(beyond)))
            notices = [n for n in watch.notices if n["subscription"] == watch.heads_id]
            assert [(n["from"], n["to"]) for n in notices] == [(before + 1, beyond[0] - 1)]
            assert len(beyond) >= 900
            told = [n for n in watch.notices if n["subscription"] == watch.logs_id]
            missed = {n for notice in told for n in range(notice["from"], notice["to"] + 1)}
            holds = {key for key in held(watch.logs) if before < key[0] <= last}
            expected = {key for key in expected_logs(h.chain, before + 1, last) if key[0] not in missed}
            assert holds == expected  # each log is told, or a notice says that it is not
            assert watch.socket.closed_with is None

    run(scenario())


def test_pending_transactions_come_on_from_another_endpoint_and_a_notice_says_that_some_may_be_missing(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path) as h:
            socket = await Subscriber.open(h.port)
            pending = await socket.subscribe("newPendingTransactions")
            await blocks(1)

            async def sent(number: int) -> str:
                told = await socket.call("eth_sendRawTransaction", f"0x02f8{number:08x}")
                return str(told["result"])

            for number in range(3):
                tx_hash = await sent(number)
                await h.until(lambda tx=tx_hash: socket.results(pending)[-1:] == [tx])  # type: ignore[misc]
            (name,) = next(feed["sources"] for feed in h.gateway.status()["routes"][0]["feeds"] if feed["callers"] == 1)
            named(h, name).strike_sockets(SocketFault.RESET)
            await h.until(lambda: socket.notices)
            assert [(n["subscription"], n["reason"]) for n in socket.notices] == [(pending, "endpoint_changed")]
            await blocks(1.5)
            tx_hash = await sent(9)
            await h.until(lambda: tx_hash in socket.results(pending))
            assert len(socket.results(pending)) == len(set(socket.results(pending)))

    run(scenario())


# --- operators, and callers -------------------------------------------------------------------------


def test_a_reload_during_a_gap_loses_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path) as h:
            watch = await Watch.begin(h)
            await blocks(2)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.SILENT)
                provider.script.set(Fault.SLOW, amount=0.15)
            await blocks(4)
            text = h.config.read_text()
            for changed in (
                text.replace("- {id: p0,", "- {id: renamed,"),
                "\n".join(row for row in text.split("\n") if "id: p1," not in row),
                text.replace("deadline: 5s", "deadline: 4s"),
                text,
            ):
                assert changed != text or changed is text
                h.config.write_text(changed)
                assert await h.gateway.reload()
                await blocks(2)
            for provider in h.providers:
                provider.script.clear()
            watch.has_all(await watch.caught_up())
            assert h.gateway.routes[0].stats.subscriptions == 2

    run(scenario())


def test_a_drained_endpoint_stops_being_a_source_and_costs_no_event(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with brisk(tmp_path) as h:
            watch = await Watch.begin(h)
            await blocks(2)
            first = {provider.name for provider in (*sources(h), *log_sources(h))}
            for name in first:
                h.gateway.drain("local", name, out=True)
            rest = {"p0", "p1", "p2"} - first

            def moved() -> bool:
                now = {provider.name for provider in (*sources(h), *log_sources(h))}
                return bool(sources(h) and log_sources(h)) and now <= rest

            await h.until(moved)
            await blocks(4)
            watch.has_all(await watch.caught_up())

    run(scenario())


def test_a_caller_that_does_not_read_during_a_gap_costs_nobody_else_an_event(tmp_path: Path) -> None:
    async def scenario() -> None:
        small = "websockets: {queue: 400KB}\n"  # more than the other is told at once after a few seconds of standstill
        async with brisk(tmp_path, extra=small, block_time=0.05) as h:
            watch, slow = await Watch.begin(h), await Watch.begin(h)
            for _ in range(40):
                await slow.socket.subscribe("logs", {})
            slow.socket.transport.pause_reading()
            await asyncio.sleep(0.2)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.SILENT)
            await asyncio.sleep(1.0)
            for provider in h.providers:
                provider.strike_sockets(SocketFault.RESET)
            await h.until(lambda: h.gateway.sockets == 1)
            watch.has_all(await watch.caught_up())
            slow.socket.close()

    run(scenario())


def test_each_failover_of_a_feed_has_its_trace_and_is_counted(tmp_path: Path) -> None:
    collector = Collector()
    extra = f"telemetry: {{traces: {{endpoint: '{collector.url}', sample: 0, export_every: 50ms}}}}"

    async def scenario() -> None:
        async with brisk(tmp_path, extra=extra, route_extra=ONE_SOURCE) as h:
            socket = await Subscriber.open(h.port)
            heads = await socket.subscribe("newHeads")
            stats = h.gateway.routes[0].stats
            lost = []
            for number in range(3):
                await h.until(lambda: sources(h))
                (source,) = sources(h)
                lost.append(source.name)
                source.strike_sockets(SocketFault.RESET)
                await h.until(lambda number=number: stats.feed_failovers == number + 1)
                await blocks(2)
            walk(socket.results(heads))
            text = h.gateway.metrics("")[0].decode()
            assert 'seawall_feed_failovers_total{route="local"} 3.0' in text
            assert 'seawall_subscriptions{route="local"} 1.0' in text
            told = len(socket.results(heads))
            assert stats.events_sent == told
            socket.close()
        spans = [span for span in collector.spans if not span.parent_span_id]
        traced = [span for span in spans if "newHeads" in str(attributes(span).values())]
        assert len(traced) == 3
        for span, name in zip(traced, lost, strict=True):
            tries = [attributes(s) for s in collector.spans if s.parent_span_id == span.span_id]
            assert [name in str(one.values()) for one in tries] == [True, False]
            assert "connection_lost" in str(tries[0].values())

    try:
        run(scenario())
    finally:
        collector.close()


@pytest.mark.parametrize("fault", [Fault.RPC_INTERNAL, Fault.RESET_MID_BODY])
def test_sockets_go_on_while_no_endpoint_answers_a_call(tmp_path: Path, fault: Fault) -> None:
    """HTTP and WebSocket of a provider are different machines often enough."""

    async def scenario() -> None:
        async with brisk(tmp_path) as h:
            watch = await Watch.begin(h)
            await blocks(2)
            for provider in h.providers:
                provider.script.set(fault)
            last = h.chain.head(monotonic()) + 12
            took = await watch.reached(last)
            at_most(took, 12 * BLOCK_TIME + 2.0, "seconds: live, not made good afterwards")
            assert h.fired() > 0
            for provider in h.providers:
                provider.script.clear()
            watch.has_all(await watch.caught_up())

    run(scenario())


@pytest.mark.parametrize("count", [1, 3])
def test_sockets_are_not_given_up_for_a_key_that_is_refused_while_there_is_nobody_else(
    tmp_path: Path, count: int
) -> None:
    """A refused key excludes an endpoint for a while; its socket may well go on, and there is no other."""

    async def scenario() -> None:
        async with brisk(tmp_path, count=count) as h:
            watch = await Watch.begin(h)
            pending = await watch.socket.subscribe("newPendingTransactions")
            await blocks(2)
            for provider in h.providers:
                provider.script.set(Fault.STATUS_403)
            async with asyncio.timeout(10):
                while not all("excluded" in str(h.state(p.name)["reasons"]) for p in h.providers):
                    await watch.socket.call("eth_getBalance", "0x" + "11" * 20, "latest")
            took = await watch.reached(h.chain.head(monotonic()) + 8)
            at_most(took, 8 * BLOCK_TIME + 2.0, "seconds: live, not made good afterwards")
            assert h.fired() > 0
            other = await watch.socket.subscribe("newPendingTransactions")
            assert not [n for n in watch.notices if n["subscription"] in (pending, other)]

    run(scenario())

"""Feeds that pass events through: states that never go back, one-time events, and honest notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.dialect.protocol import Dialect
from gateway.dialect.registry import dialect_named
from gateway.errors import NoEndpoint
from gateway.policy.feeds.plain import LONGEST_SILENCE
from gateway.upstream.feeds.feed import Event
from gateway.upstream.feeds.line import Refused
from gateway.upstream.feeds.plain import PassedFeed
from gateway.upstream.feeds.sources import OVERLAP
from tests.upstream.feeds.stage import Ear, Stage
from tests.virtual import here, run

SOLANA = dialect_named("solana")
EVM = dialect_named("evm")


class Scene:
    """One feed with a listener, on a stage."""

    def __init__(self, method: str, params: str, dialect: Dialect = SOLANA, count: int = 2) -> None:
        subscription = dialect.subscription(method, params.encode())
        assert subscription is not None
        self.stage = Stage(count)
        self.notification = subscription.notification
        self.feed = PassedFeed(
            subscription,
            b"7",
            self.stage.route(dialect),
            self.stage,
            self.stage.ask,
            here().time,
            self.stage.replaced.append,
        )
        self.ear = Ear()
        self.feed.join(self.ear)

    def push(self, endpoint: str, value: Any) -> None:
        self.stage.lines[endpoint].push(self.notification, json.dumps(value).encode())

    async def pass_time(self, seconds: float) -> None:
        until = here().time() + seconds
        while here().time() < until:
            self.feed.tick(here().time())
            await asyncio.sleep(0.05)

    @property
    def source(self) -> str:
        return ",".join(source.endpoint.id for source in self.feed.sources.active)

    @property
    def told(self) -> list[Any]:
        return [json.loads(event) for event in self.ear.events]


def scene(story: Callable[[Scene], Awaitable[None]], method: str, params: str, **how: Any) -> None:
    async def play() -> None:
        stands = Scene(method, params, **how)
        await stands.feed.ready(stands.stage.ask)
        await story(stands)
        stands.feed.close()

    run(play())


def account(slot: int, lamports: int) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": {"lamports": lamports, "data": ["", "base64"], "owner": "1" * 32}}


ACCOUNT = '["Vote111111111111111111111111111111111111111",{"encoding":"base64"}]'
SIGNATURE = '["%s",{"commitment":"confirmed"}]' % ("5h6x" * 22)


# --- a state ----------------------------------------------------------------------------------------


def test_an_account_is_asked_for_anew_after_a_change_of_endpoint_and_told_once() -> None:
    async def story(s: Scene) -> None:
        s.push("e0", account(10, 1))
        s.stage.answers["getAccountInfo"] = json.dumps(account(15, 2)).encode()
        s.stage.lines["e0"].die()
        await s.pass_time(0.5)
        assert s.source == "e1"
        assert [e["value"]["lamports"] for e in s.told] == [1, 2]
        assert s.stage.asked == [("getAccountInfo", ACCOUNT.encode())]
        assert not s.ear.reasons
        s.push("e1", account(16, 3))
        assert [e["context"]["slot"] for e in s.told] == [10, 15, 16]

    scene(story, "accountSubscribe", ACCOUNT)


def test_an_account_never_goes_back_to_an_older_slot() -> None:
    async def story(s: Scene) -> None:
        s.push("e0", account(20, 1))
        s.stage.answers["getAccountInfo"] = json.dumps(account(12, 0)).encode()  # the new endpoint lags
        s.stage.lines["e0"].die()
        await s.pass_time(0.5)
        for slot in (13, 19):
            s.push("e1", account(slot, 0))
        s.push("e1", account(21, 2))
        assert [e["context"]["slot"] for e in s.told] == [20, 21]
        assert not s.ear.reasons  # what came then says all

    scene(story, "accountSubscribe", ACCOUNT)


def test_what_is_pushed_while_the_state_is_asked_for_wins_over_an_older_answer() -> None:
    async def story(s: Scene) -> None:
        s.stage.answer_takes = 1.0
        s.stage.answers["getAccountInfo"] = json.dumps(account(30, 3)).encode()
        s.push("e0", account(10, 1))
        s.stage.lines["e0"].die()
        await s.pass_time(0.2)
        s.push("e1", account(31, 4))
        await s.pass_time(2)
        assert [e["context"]["slot"] for e in s.told] == [10, 31]

    scene(story, "accountSubscribe", ACCOUNT)


@pytest.mark.parametrize("answer", [None, b"null", b'{"nonsense":1}', json.dumps(account(9, 1)).encode()])
def test_a_state_that_nobody_tells_is_admitted(answer: bytes | None) -> None:
    async def story(s: Scene) -> None:
        s.push("e0", account(10, 1))
        s.stage.answers["getAccountInfo"] = answer
        s.stage.lines["e0"].die()
        await s.pass_time(8)
        assert s.ear.reasons == ["endpoint_changed"]

    scene(story, "accountSubscribe", ACCOUNT)


def test_two_changes_in_a_row_end_with_the_newest_state() -> None:
    async def story(s: Scene) -> None:
        slots = iter((40, 50))
        s.stage.answer_takes = 0.5
        s.stage.answers["getAccountInfo"] = lambda _: json.dumps(account(next(slots), 1)).encode()
        s.stage.lines["e0"].die()
        await s.pass_time(0.1)
        s.stage.lines["e1"].die()
        await s.pass_time(3)
        assert s.source
        assert [e["context"]["slot"] for e in s.told][-1] in (40, 50)
        assert s.told == sorted(s.told, key=lambda e: e["context"]["slot"])
        assert len(s.stage.replaced) == 2
        assert not s.ear.reasons

    scene(story, "accountSubscribe", ACCOUNT)


def test_slots_only_rise_over_a_change_of_endpoint() -> None:
    async def story(s: Scene) -> None:
        for slot in (5, 6, 7):
            s.push("e0", {"parent": slot - 1, "root": slot - 2, "slot": slot})
        s.stage.lines["e0"].die()
        await s.pass_time(0.5)
        for slot in (6, 7, 8, 9):
            s.push("e1", {"parent": slot - 1, "root": slot - 2, "slot": slot})
        assert [e["slot"] for e in s.told] == [5, 6, 7, 8, 9]

    scene(story, "slotSubscribe", "[]")


def test_a_source_of_slots_that_stands_still_while_the_chain_goes_on_is_replaced() -> None:
    async def story(s: Scene) -> None:
        slot = 0
        for _ in range(20):
            s.stage.reference = slot = slot + 1
            s.push("e0", {"parent": slot - 1, "root": slot - 2, "slot": slot})
            await s.pass_time(0.4)
        for _ in range(20):  # it answers pings, and says nothing
            s.stage.reference = slot = slot + 1
            await s.pass_time(0.4)
        assert s.source == "e1"
        assert [records[0].ended for records in s.stage.replaced] == ["silent"]
        s.push("e1", {"parent": slot - 1, "root": slot - 2, "slot": slot})
        assert [e["slot"] for e in s.told] == [*range(1, 21), slot]

    scene(story, "slotSubscribe", "[]")


def test_a_source_of_pending_transactions_that_stops_while_its_socket_lives_is_replaced() -> None:
    async def story(s: Scene) -> None:
        s.stage.block_time = 12.0
        number = 0
        for _ in range(700):
            number += 1
            s.stage.reference = number // 24
            s.push("e0", pending(number))
            await s.pass_time(0.5)
        assert s.source == "e0"
        for _ in range(50):  # the node says no more, and the chain goes on
            s.stage.reference += 1
            await s.pass_time(1.25)
        assert s.source == "e1"
        ((lost, _),) = s.stage.replaced
        assert (lost.endpoint, lost.ended) == ("e0", "silent")
        s.push("e1", pending(number + 1))
        assert len(s.told) == number + 1

    scene(story, "eth_subscribe", '["newPendingTransactions"]', dialect=EVM)


def test_a_source_that_says_little_by_nature_is_left_alone_however_long_it_is_quiet() -> None:
    async def story(s: Scene) -> None:
        for slot in range(40):
            s.push("e0", account(slot, 1))
            await s.pass_time(10)
        for _ in range(50):
            s.stage.reference += 100
            await s.pass_time(10)
        assert s.source == "e0"
        assert not s.stage.replaced

    scene(story, "accountSubscribe", ACCOUNT)


def test_a_source_of_slots_is_left_alone_while_the_chain_stands_still() -> None:
    async def story(s: Scene) -> None:
        s.stage.reference = 7
        s.push("e0", {"parent": 6, "root": 5, "slot": 7})
        await s.pass_time(120)
        assert s.source == "e0"
        assert not s.stage.replaced

    scene(story, "slotSubscribe", "[]")


# --- one event, and over ----------------------------------------------------------------------------


def done(slot: int) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": {"err": None}}


def statuses(level: str | None, slot: int = 99) -> bytes:
    value = [{"slot": slot, "confirmations": None, "err": None, "confirmationStatus": level}] if level else [None]
    return json.dumps({"context": {"slot": slot}, "value": value}).encode()


def test_a_signature_is_told_once_and_the_feed_is_over_and_needs_no_endpoint_any_more() -> None:
    async def story(s: Scene) -> None:
        s.push("e0", done(50))
        s.push("e0", done(51))
        assert [type(item) for item in s.ear.heard] == [Event, str]
        assert s.ear.heard[-1] == "over"
        assert s.feed.finished
        assert not s.feed.needed
        assert not s.source
        s.stage.lines["e0"].die()
        await s.pass_time(5)
        assert sum(line.subscribed for line in s.stage.lines.values()) == 1  # nobody is asked again

    scene(story, "signatureSubscribe", SIGNATURE)


def test_a_signature_that_was_done_while_nobody_listened_is_found_done() -> None:
    async def story(s: Scene) -> None:
        s.stage.answers["getSignatureStatuses"] = statuses("confirmed")
        s.stage.lines["e0"].die()
        await s.pass_time(1)
        assert s.told == [done(99)]
        assert s.ear.heard[-1] == "over"
        assert not s.source

    scene(story, "signatureSubscribe", SIGNATURE)


@pytest.mark.parametrize("level", ["processed", None])
def test_a_signature_that_is_not_done_goes_on_at_the_next_endpoint(level: str | None) -> None:
    async def story(s: Scene) -> None:
        s.stage.answers["getSignatureStatuses"] = statuses(level)
        s.stage.lines["e0"].die()
        await s.pass_time(1)
        assert not s.told
        s.push("e1", done(70))
        assert s.told == [done(70)]
        assert s.ear.heard[-1] == "over"
        assert "endpoint_changed" not in s.ear.reasons

    scene(story, "signatureSubscribe", SIGNATURE)


# --- what can only be passed on ---------------------------------------------------------------------


def logs_of(signature: str, slot: int) -> dict[str, Any]:
    return {"context": {"slot": slot}, "value": {"signature": signature, "err": None, "logs": ["x"]}}


def test_logs_of_solana_come_on_with_a_notice_and_without_repetition() -> None:
    async def story(s: Scene) -> None:
        s.push("e0", logs_of("a", 1))
        s.push("e0", logs_of("b", 1))
        s.stage.lines["e0"].die()
        await s.pass_time(0.5)
        s.push("e1", logs_of("b", 1))  # the same transaction, from another node
        s.push("e1", logs_of("c", 2))
        assert [e["value"]["signature"] for e in s.told] == ["a", "b", "c"]
        assert s.ear.reasons == ["endpoint_changed"]
        assert not s.stage.asked

    scene(story, "logsSubscribe", '["all"]')


def test_a_subscription_nobody_knows_is_passed_through_with_a_notice_after_a_change() -> None:
    async def story(s: Scene) -> None:
        s.push("e0", {"any": "thing"})
        s.push("e0", {"any": "thing"})  # it says so twice
        s.stage.lines["e0"].die("closed_1012")
        await s.pass_time(0.5)
        s.push("e1", {"any": "other"})
        assert s.told == [{"any": "thing"}, {"any": "thing"}, {"any": "other"}]
        assert s.ear.reasons == ["endpoint_changed"]
        ((lost, came),) = s.stage.replaced
        assert (lost.endpoint, lost.ended, came.endpoint, came.ended) == ("e0", "closed_1012", "e1", "answer")

    scene(story, "eth_subscribe", '["drpcPendingTransactions"]', dialect=EVM)


def pending(number: int) -> str:
    return f"0x{number:064x}"


def test_pending_transactions_go_over_to_another_endpoint_without_a_loss_a_repetition_or_a_notice() -> None:
    """An operator drains an endpoint that works."""

    async def story(s: Scene) -> None:
        s.push("e0", pending(1))
        s.stage.unfit.add("e0")
        s.feed.tick(here().time())
        s.push("e0", pending(2))  # the new one has not been accepted
        await s.pass_time(0.5)
        assert s.source == "e0,e1"
        s.push("e1", pending(3))
        s.push("e0", pending(3))
        s.push("e0", pending(4))  # only the old one saw it
        s.push("e1", pending(5))
        await s.pass_time(OVERLAP)
        assert s.source == "e1"
        s.push("e1", pending(4))
        s.push("e1", pending(6))
        assert s.told == [pending(number) for number in (1, 2, 3, 4, 5, 6)]
        assert not s.ear.reasons

    scene(story, "eth_subscribe", '["newPendingTransactions"]', dialect=EVM)


def test_logs_of_solana_go_over_to_another_endpoint_without_a_loss_a_repetition_or_a_notice() -> None:
    async def story(s: Scene) -> None:
        s.push("e0", logs_of("a", 1))
        s.stage.unfit.add("e0")
        await s.pass_time(0.5)
        s.push("e0", logs_of("b", 1))
        s.push("e1", logs_of("b", 1))
        s.push("e1", logs_of("c", 2))
        s.push("e0", logs_of("c", 2))
        await s.pass_time(OVERLAP)
        assert s.source == "e1"
        assert [e["value"]["signature"] for e in s.told] == ["a", "b", "c"]
        assert not s.ear.reasons

    scene(story, "logsSubscribe", '["all"]')


def test_events_that_cannot_be_told_apart_come_from_the_new_endpoint_alone_once_it_is_accepted() -> None:
    async def story(s: Scene) -> None:
        s.push("e0", {"n": 1})
        s.stage.unfit.add("e0")
        s.feed.tick(here().time())
        s.push("e0", {"n": 2})
        assert not s.ear.reasons
        await s.pass_time(0.5)
        assert s.ear.reasons == ["endpoint_changed"]
        s.push("e1", {"n": 3})
        s.push("e0", {"n": 3})
        await s.pass_time(OVERLAP)
        s.push("e1", {"n": 4})
        assert s.told == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}]
        assert s.ear.reasons == ["endpoint_changed"]

    scene(story, "eth_subscribe", '["drpcPendingTransactions"]', dialect=EVM)


def test_an_account_is_asked_for_anew_when_another_endpoint_takes_over_from_one_that_works() -> None:
    async def story(s: Scene) -> None:
        s.push("e0", account(10, 1))
        s.stage.answers["getAccountInfo"] = json.dumps(account(15, 2)).encode()
        s.stage.unfit.add("e0")
        await s.pass_time(0.5)
        s.push("e1", account(16, 3))
        s.push("e0", account(16, 3))
        assert [e["context"]["slot"] for e in s.told] == [10, 15, 16]
        assert not s.ear.reasons

    scene(story, "accountSubscribe", ACCOUNT)


def test_a_signature_that_only_the_endpoint_sees_which_gives_way_is_told() -> None:
    async def story(s: Scene) -> None:
        s.stage.answers["getSignatureStatuses"] = statuses(None)
        s.stage.unfit.add("e0")
        await s.pass_time(0.5)
        s.push("e0", done(50))
        s.push("e1", done(50))
        assert s.told == [done(50)]
        assert not s.ear.reasons

    scene(story, "signatureSubscribe", SIGNATURE)


def test_a_notice_comes_once_for_each_loss_and_not_while_nobody_has_taken_over() -> None:
    async def story(s: Scene) -> None:
        line = s.stage.lines["e0"]
        line.up = False
        line.die()
        await s.pass_time(10)
        assert not s.ear.reasons  # nobody took over; the notice comes when events come again
        line.up = True
        await s.pass_time(10)
        assert s.source == "e0"
        assert s.ear.reasons == ["endpoint_changed"]

    scene(story, "eth_subscribe", '["newPendingTransactions"]', dialect=EVM, count=1)


def test_that_nobody_takes_over_for_long_is_told_once_and_the_change_all_the_same() -> None:
    """A caller that hears nothing must be able to tell it from a quiet chain."""

    async def story(s: Scene) -> None:
        line = s.stage.lines["e0"]
        line.up = False
        line.die()
        await s.pass_time(LONGEST_SILENCE - 1)
        assert not s.ear.reasons
        await s.pass_time(100)
        assert s.ear.reasons == ["no_endpoint"]
        line.up = True
        await s.pass_time(70)
        assert s.source == "e0"
        assert s.ear.reasons == ["no_endpoint", "endpoint_changed"]
        await s.pass_time(100)
        assert len(s.ear.reasons) == 2

    scene(story, "eth_subscribe", '["newPendingTransactions"]', dialect=EVM, count=1)


# --- joining ----------------------------------------------------------------------------------------


def test_a_subscription_that_no_endpoint_takes_is_refused_in_an_endpoints_own_words() -> None:
    async def story() -> None:
        s = Scene("blockSubscribe", '["all"]')
        for line in s.stage.lines.values():
            line.refuses = b'{"code":-32601,"message":"Method not found"}'
        began = here().time()
        with pytest.raises(Refused) as refused:
            await s.feed.ready(s.stage.ask)
        assert refused.value.error == b'{"code":-32601,"message":"Method not found"}'
        assert here().time() - began < 1
        s.feed.close()

    run(story())


def test_a_subscription_without_an_endpoint_for_it_is_an_error_and_not_a_silence() -> None:
    async def story() -> None:
        s = Scene("logsSubscribe", '["all"]', count=0)
        with pytest.raises(NoEndpoint):
            await s.feed.ready(s.stage.ask)
        s.feed.close()

    run(story())


def test_one_endpoint_refuses_and_another_takes_it() -> None:
    async def story() -> None:
        s = Scene("logsSubscribe", '["all"]')
        s.stage.lines["e0"].refuses = b'{"code":-32601}'
        await s.feed.ready(s.stage.ask)
        assert s.source == "e1"
        s.feed.close()
        assert s.stage.lines["e1"].ended == [b"1"]

    run(story())


def test_a_refresh_that_fails_in_an_unforeseen_way_is_reported_and_admitted() -> None:
    async def story() -> None:
        s = Scene("accountSubscribe", ACCOUNT)
        await s.feed.ready(s.stage.ask)
        problems: list[object] = []
        here().set_exception_handler(lambda _, context: problems.append(context["exception"]))

        def breaks(_: bytes) -> bytes:
            raise RuntimeError("a bug")

        s.stage.answers["getAccountInfo"] = breaks
        s.stage.lines["e0"].die()
        await s.pass_time(1)
        assert [str(problem) for problem in problems] == ["a bug"]
        assert s.ear.reasons == ["endpoint_changed"]
        s.feed.close()

    run(story())

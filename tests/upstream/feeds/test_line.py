"""A line: subscriptions on one endpoint's socket, each told its own events and its end exactly once."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest

from gateway.errors import AttemptError, AttemptTimeout, ConnectionLost
from gateway.events import FeedKind, Subscription
from gateway.model import Sent
from gateway.upstream.feeds.line import ANSWER_WITHIN, MOST_EARLY, Line, Refused
from tests.virtual import here, run

HEADS = Subscription(FeedKind.HEADS, b"heads", "eth_subscribe", b'["newHeads"]', "eth_unsubscribe", "eth_subscription")


class FakeSocket:
    """An upstream socket that writes down what is sent."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.connected = True
        self.sent: list[dict[str, Any]] = []

    async def send(self, data: bytes) -> None:
        if not self.connected:
            raise ConnectionLost("not connected", sent=Sent.NOT_SENT)
        self.sent.append(json.loads(data))

    async def close(self, why: str = "") -> None:
        self.connected = False

    def says(self, **message: Any) -> None:
        self.line.message(self, json.dumps({"jsonrpc": "2.0", **message}).encode())  # type: ignore[arg-type]

    def event(self, subscription: str, result: Any) -> None:
        self.says(method="eth_subscription", params={"subscription": subscription, "result": result})


class Notes:
    """A taker that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bytes]] = []

    def accepted(self, upstream_id: bytes) -> None:
        self.told.append(("accepted", upstream_id))

    def notified(self, method: str, result: bytes) -> None:
        self.told.append((method, result))

    def ended(self, why: str) -> None:
        self.told.append(("ended", why.encode()))


def line_and_socket() -> tuple[Line, FakeSocket]:
    sockets: list[FakeSocket] = []

    def opened(line: Line) -> Any:
        sockets.append(FakeSocket(line))
        return sockets[0]

    line = Line("e0", opened, here().time)
    return line, sockets[0]


async def subscribed(line: Line, socket: FakeSocket, upstream_id: str) -> Notes:
    notes = Notes()
    task = asyncio.ensure_future(line.subscribe(HEADS, notes))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    socket.says(id=socket.sent[-1]["id"], result=upstream_id)
    await task
    return notes


def test_each_subscription_is_told_its_own_events_also_those_right_behind_the_answer() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        one, other = Notes(), Notes()
        tasks = [asyncio.ensure_future(line.subscribe(HEADS, notes)) for notes in (one, other)]
        await asyncio.sleep(0.01)
        assert [message["method"] for message in socket.sent] == ["eth_subscribe"] * 2
        socket.says(id=socket.sent[1]["id"], result="0xb")
        socket.event("0xb", 1)
        socket.says(id=socket.sent[0]["id"], result="0xa")
        socket.event("0xa", 2)
        socket.event("0xunknown", 3)
        await asyncio.gather(*tasks)
        assert one.told == [("accepted", b'"0xa"'), ("eth_subscription", b"2")]
        assert other.told == [("accepted", b'"0xb"'), ("eth_subscription", b"1")]

    run(story())


def test_several_events_in_one_message_are_told_each_and_in_their_order() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        notes = Notes()
        task = asyncio.ensure_future(line.subscribe(HEADS, notes))
        await asyncio.sleep(0.01)
        batch: list[dict[str, Any]] = [{"jsonrpc": "2.0", "id": socket.sent[-1]["id"], "result": "0xa"}]
        for number, subscription in enumerate(("0xa", "0xstranger", "0xa")):
            params = {"subscription": subscription, "result": number}
            batch.append({"jsonrpc": "2.0", "method": "eth_subscription", "params": params})
        line.message(socket, json.dumps(batch).encode())  # type: ignore[arg-type]
        await task
        assert notes.told == [("accepted", b'"0xa"'), ("eth_subscription", b"0"), ("eth_subscription", b"2")]

    run(story())


def test_events_that_overtake_the_answer_are_told_behind_it_and_nobody_elses() -> None:
    """Nodes push from another thread than they answer from; of a signature there is one event only."""

    async def story() -> None:
        line, socket = line_and_socket()
        one, other = Notes(), Notes()
        tasks = [asyncio.ensure_future(line.subscribe(HEADS, notes)) for notes in (one, other)]
        await asyncio.sleep(0.01)
        for number in range(3):
            socket.event("0xb", number)
            socket.event("0xstranger", number)
        socket.says(id=socket.sent[0]["id"], result="0xa")
        socket.says(id=socket.sent[1]["id"], result="0xb")
        socket.event("0xb", 3)
        await asyncio.gather(*tasks)
        assert one.told == [("accepted", b'"0xa"')]
        assert other.told == [("accepted", b'"0xb"'), *(("eth_subscription", b"%d" % n) for n in range(4))]
        socket.event("0xlater", 1)  # nobody is waiting for an answer now
        later = await subscribed(line, socket, "0xlater")
        assert later.told == [("accepted", b'"0xlater"')]

    run(story())


def test_few_events_wait_for_an_answer() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        notes = Notes()
        task = asyncio.ensure_future(line.subscribe(HEADS, notes))
        await asyncio.sleep(0.01)
        for number in range(10 * MOST_EARLY):
            socket.event("0xa", number)
        socket.says(id=socket.sent[0]["id"], result="0xa")
        await task
        assert len(notes.told) == 1 + MOST_EARLY

    run(story())


def test_a_refusal_carries_the_endpoints_own_words() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        task = asyncio.ensure_future(line.subscribe(HEADS, Notes()))
        await asyncio.sleep(0.01)
        socket.says(id=socket.sent[0]["id"], error={"code": -32602, "message": "no such subscription"})
        with pytest.raises(Refused) as refused:
            await task
        assert json.loads(refused.value.error)["code"] == -32602
        assert not line.used

    run(story())


def test_an_endpoint_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        notes = Notes()
        began = here().time()
        with pytest.raises(AttemptTimeout):
            await line.subscribe(HEADS, notes)
        assert here().time() - began == pytest.approx(ANSWER_WITHIN, abs=0.1)
        socket.says(id=socket.sent[0]["id"], result="0xa")  # too late
        socket.event("0xa", 1)
        assert not notes.told

    run(story())


def test_losing_the_socket_ends_every_subscription_once_and_whoever_still_waits() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        notes = await subscribed(line, socket, "0xa")
        waiting = asyncio.ensure_future(line.subscribe(HEADS, Notes()))
        await asyncio.sleep(0.01)
        socket.connected = False
        line.closed(socket, "reset")  # type: ignore[arg-type]
        line.closed(socket, "reset")  # type: ignore[arg-type]
        with pytest.raises(AttemptError):
            await waiting
        socket.event("0xa", 1)
        assert notes.told == [("accepted", b'"0xa"'), ("ended", b"reset")]
        assert not line.used

    run(story())


def test_a_subscription_that_is_ended_is_ended_at_the_endpoint_and_told_nothing_more() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        notes = await subscribed(line, socket, "0xa")
        line.unsubscribe(HEADS, b'"0xa"')
        line.unsubscribe(HEADS, b'"0xa"')
        await asyncio.sleep(0.01)
        assert [(m["method"], m["params"]) for m in socket.sent[1:]] == [("eth_unsubscribe", ["0xa"])]
        socket.event("0xa", 1)
        assert notes.told == [("accepted", b'"0xa"')]

    run(story())


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b'{"id":{}}', b"\xff", b'{"method":1,"params":[]}'])
def test_what_makes_no_sense_is_ignored(garbage: bytes) -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        notes = await subscribed(line, socket, "0xa")
        line.message(socket, garbage)  # type: ignore[arg-type]
        socket.event("0xa", 1)
        assert notes.told[-1] == ("eth_subscription", b"1")

    run(story())


def test_a_subscription_that_is_accepted_too_late_is_ended_at_the_endpoint() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        notes = Notes()
        with pytest.raises(AttemptTimeout):
            await line.subscribe(HEADS, notes)
        socket.says(id=socket.sent[-1]["id"], result="0xlate")
        await asyncio.sleep(0)
        assert [message["method"] for message in socket.sent] == ["eth_subscribe", "eth_unsubscribe"]
        assert socket.sent[-1]["params"] == ["0xlate"]
        socket.event("0xlate", 1)
        assert not notes.told

    run(story())


def test_a_subscription_that_is_given_up_before_it_is_answered_is_ended_too() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        task = asyncio.ensure_future(line.subscribe(HEADS, Notes()))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not line.used
        socket.says(id=socket.sent[-1]["id"], result="0xlate")
        await asyncio.sleep(0)
        assert socket.sent[-1]["method"] == "eth_unsubscribe"

    run(story())


def test_an_id_given_twice_ends_the_first_subscription_instead_of_leaving_it_silent() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        first = await subscribed(line, socket, "0x1")
        second = await subscribed(line, socket, "0x1")
        socket.event("0x1", 5)
        assert first.told == [("accepted", b'"0x1"'), ("ended", b"id_given_twice")]
        assert second.told == [("accepted", b'"0x1"'), ("eth_subscription", b"5")]

    run(story())


def test_a_line_is_idle_from_its_last_use_on_however_often_its_socket_comes_and_goes() -> None:
    async def story() -> None:
        line, socket = line_and_socket()
        for _ in range(5):
            await asyncio.sleep(10)
            line.opened(socket)  # type: ignore[arg-type]
            line.closed(socket, "reset")  # type: ignore[arg-type]
        assert here().time() - line.idle_since == 50
        line.opened(socket)  # type: ignore[arg-type]
        await subscribed(line, socket, "0x1")
        await asyncio.sleep(1000 - 60)
        line.closed(socket, "reset")  # type: ignore[arg-type]
        assert here().time() == line.idle_since  # it was used until now

    run(story())


def test_a_socket_that_is_lost_while_a_question_is_sent_leaves_no_complaint() -> None:
    async def story() -> None:
        line, socket = line_and_socket()

        async def dies(data: bytes) -> None:
            line.closed(socket, "reset")  # type: ignore[arg-type]
            raise ConnectionLost("gone", sent=Sent.PARTLY)

        socket.send = dies  # type: ignore[method-assign]
        with pytest.raises(ConnectionLost):
            await line.subscribe(HEADS, Notes())
        gc.collect()

    run(story())

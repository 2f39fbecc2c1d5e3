"""A caller's socket against a caller that reads too little, asks too much, or is told to go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway.clock import monotonic
from gateway.edge.frames import frame_of
from gateway.edge.listener import Listener
from gateway.edge.socket import CallerSocket
from gateway.limits import EdgeLimits, SocketLimits
from tests.scenarios.subscriber import Subscriber
from tests.virtual import here, run

QUEUE = 65_536
LIMITS = SocketLimits(queue=QUEUE, in_flight=8)
EVENT = frame_of(b'{"method":"eth_subscription","params":{"subscription":"1","result":1}}')
LARGE = b'{"id":0,"result":"%b"}' % (b"x" * 5_000_000)


class Owner:
    """The handler of one socket: `answer` is what becomes of a message."""

    def __init__(self, answer: Callable[[Owner, bytes], None]) -> None:
        self._answer = answer
        self.slow = 0
        self.most = 0
        self.gone = asyncio.Event()
        self.socket: CallerSocket

    def opened(self, socket: CallerSocket) -> None:
        self.socket = socket

    def message(self, text: bytes) -> None:
        self._answer(self, text)
        self.most = max(self.most, self.socket.under_way)

    def dropped(self) -> None:
        self.slow += 1

    def closed(self) -> None:
        self.gone.set()

    @property
    def waiting(self) -> int:
        """Bytes that wait to be read."""
        return self.socket.transport.get_write_buffer_size()


class Stage:
    def __init__(self, listener: Listener, owners: list[Owner]) -> None:
        self.listener = listener
        self.owners = owners

    async def caller(self) -> tuple[Subscriber, Owner]:
        caller = await Subscriber.open(self.listener.port)
        return caller, self.owners[-1]


@contextlib.asynccontextmanager
async def stage(answer: Callable[[Owner, bytes], None], limits: SocketLimits = LIMITS) -> AsyncIterator[Stage]:
    owners: list[Owner] = []
    reports: list[BaseException] = []

    def upgrade(scope: dict[str, Any]) -> Owner:
        owners.append(Owner(answer))
        return owners[-1]

    async def no_pages(scope: object, receive: object, send: object) -> None:
        raise AssertionError("only WebSockets are asked for here")

    listener = Listener(no_pages, EdgeLimits(), report=reports.append, upgrade=upgrade, socket_limits=limits)
    await listener.start("127.0.0.1", 0)
    try:
        yield Stage(listener, owners)
    finally:
        await listener.stop(0.0, monotonic)
    assert not reports, reports


def ignore(owner: Owner, text: bytes) -> None:
    return


async def until(holds: Callable[[], bool], seconds: float = 100.0) -> None:
    ends = here().time() + seconds
    while not holds():
        assert here().time() < ends, "did not come true"
        await asyncio.sleep(0.01)


def test_an_event_behind_a_large_answer_makes_nobody_slow() -> None:
    """The answer was asked for; a caller that is still reading it keeps its subscriptions."""

    async def story() -> None:
        async with stage(ignore) as s:
            caller, owner = await s.caller()
            caller.transport.pause_reading()
            owner.socket.send(LARGE)
            await asyncio.sleep(0.1)
            assert owner.waiting > 10 * QUEUE  # it is being read
            assert owner.socket.push(EVENT)
            caller.send_frame(9, b"still here")
            await asyncio.sleep(0.1)
            caller.transport.resume_reading()
            await until(lambda: len(caller.events) == 1)
            assert owner.slow == 0
            caller.close()

    run(story())


def test_events_are_bounded_behind_a_large_answer_too() -> None:
    async def story() -> None:
        async with stage(ignore) as s:
            caller, owner = await s.caller()
            caller.transport.pause_reading()
            owner.socket.send(LARGE)
            pushed = 0
            while owner.socket.push(EVENT):
                pushed += len(EVENT)
            assert QUEUE / 2 < pushed < 8 * QUEUE  # beside what the kernel takes
            assert owner.slow == 1
            caller.close()

    run(story())


@pytest.mark.parametrize("what", ["pings", "errors"])
def test_a_caller_that_only_speaks_and_never_reads_costs_no_more_than_its_queue(what: str) -> None:
    """Pongs and errors are answers to what it says, and it takes none of them."""

    def complain(owner: Owner, text: bytes) -> None:
        owner.socket.send(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"this is no JSON"}}')

    async def story() -> None:
        async with stage(complain) as s:
            caller, owner = await s.caller()
            caller.transport.pause_reading()
            most = 0
            for _ in range(3000):
                if owner.gone.is_set():
                    break
                for _ in range(100):
                    caller.send_frame(9 if what == "pings" else 1, b"x" * 100)
                await asyncio.sleep(0)
                most = max(most, owner.waiting)
            assert owner.slow == 1
            assert most < 30 * QUEUE  # what one read brings is answered before it is looked at
            await asyncio.wait_for(owner.gone.wait(), 30)
            caller.close()

    run(story())


def test_a_caller_that_takes_nothing_is_given_up_however_much_it_says() -> None:
    async def story() -> None:
        async with stage(lambda owner, text: owner.socket.send(LARGE)) as s:
            caller, owner = await s.caller()
            caller.transport.pause_reading()
            caller.send_frame(1, b"{}")
            began = here().time()
            while not owner.gone.is_set() and here().time() - began < 200:
                caller.send_frame(10, b"I am alive")
                await asyncio.sleep(1.0)
            assert owner.gone.is_set()
            assert LIMITS.ping_every < here().time() - began < 2 * (LIMITS.ping_every + LIMITS.pong_within)
            caller.close()

    run(story())


def test_a_caller_that_takes_nothing_is_given_up_although_it_is_not_read_either() -> None:
    """Its calls under way are as many as may be, and their answers wait for it."""

    def answer(owner: Owner, text: bytes) -> None:
        async def later() -> None:
            await owner.socket.drain()
            owner.socket.send(LARGE)
            owner.socket.under_way -= 1

        owner.socket.under_way += 1
        tasks.add(task := asyncio.ensure_future(later()))
        task.add_done_callback(tasks.discard)

    tasks: set[asyncio.Task[None]] = set()

    async def story() -> None:
        async with stage(answer) as s:
            caller, owner = await s.caller()
            caller.transport.pause_reading()
            for _ in range(20):
                caller.send_frame(1, b"{}")
            await asyncio.wait_for(owner.gone.wait(), 2 * (LIMITS.ping_every + LIMITS.pong_within))
            caller.close()

    run(story())


def test_a_caller_that_reads_slowly_is_not_given_up() -> None:
    async def story() -> None:
        async with stage(lambda owner, text: owner.socket.send(LARGE)) as s:
            caller, owner = await s.caller()
            caller.transport.pause_reading()
            caller.send_frame(1, b"{}")
            await asyncio.sleep(0.1)
            before = owner.waiting
            for _ in range(20):  # a little every ten seconds
                await asyncio.sleep(10.0)
                caller.transport.resume_reading()
                await until(lambda before=before: owner.waiting < before)  # type: ignore[misc]
                caller.transport.pause_reading()
                caller.send_frame(10, b"")
                before = owner.waiting
                if not before:
                    break
            assert not owner.gone.is_set()
            caller.close()

    run(story(), at_most=1000.0)


def test_no_more_is_handed_over_than_may_be_under_way_however_it_arrives() -> None:
    def take(owner: Owner, text: bytes) -> None:
        owner.socket.under_way += 1
        told.append(text)

    told: list[bytes] = []

    async def story() -> None:
        async with stage(take) as s:
            caller, owner = await s.caller()
            for number in range(1000):
                caller.send_frame(1 + number % 2, b"%d" % number)
            while len(told) < 1000:
                await until(lambda: owner.socket.under_way > 0)
                assert owner.socket.text is (int(told[-1]) % 2 == 0)
                owner.socket.under_way -= 1
            assert told == [b"%d" % number for number in range(1000)]
            assert owner.most == LIMITS.in_flight
            caller.close()

    run(story())


@pytest.mark.parametrize("answered", [True, False])
def test_stopping_takes_no_more_calls_and_ends_in_1001(answered: bool) -> None:
    """A caller that never stops asking is told to go once what it asked before is answered, or at the end."""

    def take(owner: Owner, text: bytes) -> None:
        async def later() -> None:
            await asyncio.sleep(0.2 if answered else 1000.0)
            owner.socket.send(text)
            owner.socket.under_way -= 1

        owner.socket.under_way += 1
        tasks.add(task := asyncio.ensure_future(later()))
        task.add_done_callback(tasks.discard)

    tasks: set[asyncio.Task[None]] = set()

    async def story() -> None:
        async with stage(take) as s:
            caller, owner = await s.caller()
            caller.send_frame(1, b'{"id":1}')
            await until(lambda: owner.socket.under_way == 1)
            stopping = asyncio.ensure_future(s.listener.stop(5.0, here().time))
            began = here().time()
            while not caller.lost.is_set():
                caller.send_frame(1, b'{"id":2}')
                await asyncio.sleep(0.05)
            assert caller.closed_with == 1001
            assert owner.most == 1
            assert (here().time() - began < 1.0) is answered
            await stopping
            for task in tasks:
                task.cancel()

    run(story())


def test_compression_is_off_unless_it_is_configured() -> None:
    async def story() -> None:
        for configured in (False, True):
            async with (
                stage(lambda owner, text: owner.socket.send(text), SocketLimits(compression=configured)) as s,
                connect(f"ws://127.0.0.1:{s.listener.port}/", compression="deflate") as client,
            ):
                assert bool(client.protocol.extensions) is configured
                assert s.owners[0].socket.plain is not configured
                await client.send('{"id":1}')
                assert await client.recv() == '{"id":1}'
                assert s.owners[0].socket.push_text(b'{"method":"x"}')
                assert await client.recv() == '{"method":"x"}'

    run(story())


def test_a_deflate_bomb_ends_its_own_socket_before_it_is_unpacked() -> None:
    async def story() -> None:
        handed: list[int] = []
        limits = SocketLimits(compression=True, message=1_000_000)
        async with (
            stage(lambda owner, text: handed.append(len(text)), limits) as s,
            connect(f"ws://127.0.0.1:{s.listener.port}/", compression="deflate") as bomb,
            connect(f"ws://127.0.0.1:{s.listener.port}/", compression="deflate") as other,
        ):
            await bomb.send("a" * 50_000_000)  # some 50 kB on the wire
            with pytest.raises(ConnectionClosed) as closed:
                await bomb.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009
            await other.send("{}")
            await until(lambda: handed == [2])

    run(story())

"""Names: the last good answer outlives the name server, and some addresses are never handed out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.errors import ResolveFailed
from gateway.upstream.wire.resolver import LOOKUP_TIMEOUT, REFRESH_AFTER, STALE_AFTER, Resolver, is_allowed
from tests.virtual import STARTS_AT, here, run

NAME = "node.example"
GOOD = ["192.0.2.1", "2001:db8::1", "192.0.2.2"]


def with_resolver(work: Callable[[Resolver], Coroutine[Any, Any, None]]) -> None:
    async def story() -> None:
        here().names[NAME] = list(GOOD)
        await work(Resolver(here().time))

    run(story())


def test_addresses_come_in_the_order_of_the_answer_and_once_each() -> None:
    async def work(resolver: Resolver) -> None:
        here().names[NAME] = [*GOOD, *GOOD]
        assert await resolver.addresses(NAME, 443) == GOOD

    with_resolver(work)


def test_an_answer_is_asked_for_once_while_it_is_fresh_and_again_after() -> None:
    async def work(resolver: Resolver) -> None:
        for _ in range(5):
            await resolver.addresses(NAME, 443)
            await asyncio.sleep(REFRESH_AFTER / 5 - 0.01)
        assert here().looked_up == [NAME]
        here().names[NAME] = ["192.0.2.9"]
        await asyncio.sleep(1)
        assert await resolver.addresses(NAME, 443) == ["192.0.2.9"]

    with_resolver(work)


def test_however_many_ask_one_look_up_is_made() -> None:
    async def work(resolver: Resolver) -> None:
        here().lookup_takes = 0.5
        answers = await asyncio.gather(*(resolver.addresses(NAME, 443) for _ in range(100)))
        assert all(answer == GOOD for answer in answers)
        assert here().looked_up == [NAME]

    with_resolver(work)


def test_an_address_is_its_own_answer() -> None:
    async def work(resolver: Resolver) -> None:
        for address in ("192.0.2.7", "127.0.0.1", "10.1.2.3", "::1", "2001:db8::7"):
            assert await resolver.addresses(address, 80) == [address]
        assert here().looked_up == []

    with_resolver(work)


@pytest.mark.parametrize("lost", [socket.gaierror(socket.EAI_AGAIN, "later"), OSError("no route"), []], ids=repr)
def test_without_a_new_answer_the_last_good_one_stays_however_long(lost: Any) -> None:
    async def work(resolver: Resolver) -> None:
        await resolver.addresses(NAME, 443)
        here().names[NAME] = lost
        for _ in range(5):
            await asyncio.sleep(REFRESH_AFTER + 1)
            assert await resolver.addresses(NAME, 443) == GOOD
        assert len(here().looked_up) == 6, "and it goes on asking"
        here().names[NAME] = ["192.0.2.9"]
        await asyncio.sleep(REFRESH_AFTER + 1)
        assert await resolver.addresses(NAME, 443) == ["192.0.2.9"]

    with_resolver(work)


def test_a_name_server_that_hangs_costs_a_moment_once_something_is_known() -> None:
    async def work(resolver: Resolver) -> None:
        await resolver.addresses(NAME, 443)
        await asyncio.sleep(REFRESH_AFTER + 1)
        here().lookup_takes = 60.0
        began = here().time()
        assert await resolver.addresses(NAME, 443) == GOOD
        assert here().time() - began == pytest.approx(STALE_AFTER, abs=0.01)
        await asyncio.sleep(LOOKUP_TIMEOUT)
        began = here().time()
        assert await resolver.addresses(NAME, 443) == GOOD
        assert here().time() == began, "one that hangs is not asked again at once"

    with_resolver(work)


def test_a_slow_answer_that_nobody_waited_for_is_used_when_it_has_come() -> None:
    async def work(resolver: Resolver) -> None:
        await resolver.addresses(NAME, 443)
        await asyncio.sleep(REFRESH_AFTER + 1)
        here().lookup_takes = 1.0
        here().names[NAME] = ["192.0.2.9"]
        assert await resolver.addresses(NAME, 443) == GOOD
        await asyncio.sleep(1.1)
        assert await resolver.addresses(NAME, 443) == ["192.0.2.9"]

    with_resolver(work)


def test_a_name_server_that_hangs_from_the_beginning_is_given_up() -> None:
    async def work(resolver: Resolver) -> None:
        here().lookup_takes = 60.0
        with pytest.raises(ResolveFailed):
            await resolver.addresses(NAME, 443)
        assert here().time() - STARTS_AT == pytest.approx(LOOKUP_TIMEOUT, abs=0.01)

    with_resolver(work)


def test_a_caller_that_stops_waiting_does_not_end_the_look_up_for_the_others() -> None:
    async def work(resolver: Resolver) -> None:
        here().lookup_takes = 1.0
        impatient = asyncio.ensure_future(resolver.addresses(NAME, 443))
        patient = asyncio.ensure_future(resolver.addresses(NAME, 443))
        await asyncio.sleep(0.1)
        impatient.cancel()
        assert await patient == GOOD
        assert here().looked_up == [NAME]

    with_resolver(work)


@pytest.mark.parametrize("name", ["absent.example", "a" * 64 + ".example", "\ud800.example"], ids=ascii)
def test_a_name_that_does_not_exist_is_told_without_repeating_it(name: str) -> None:
    async def work(resolver: Resolver) -> None:
        here().names["\ud800.example"] = OSError("not a name")
        for _ in range(2):
            with pytest.raises(ResolveFailed) as raised:
                await resolver.addresses(name, 443)
            assert "example" not in str(raised.value)

    with_resolver(work)


FORBIDDEN = [
    "169.254.169.254",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",  # noqa: S104  an address to refuse, not one to bind
    "::",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_that_no_provider_has_are_never_handed_out(address: str) -> None:
    async def work(resolver: Resolver) -> None:
        here().names["rebound.example"] = [address]
        here().names["mixed.example"] = [address, "192.0.2.1"]
        for host in ("rebound.example", address):
            with pytest.raises(ResolveFailed):
                await resolver.addresses(host, 80)
        assert await resolver.addresses("mixed.example", 80) == ["192.0.2.1"]

    assert not is_allowed(address)
    with_resolver(work)


def test_a_good_name_that_is_rebound_keeps_its_good_address() -> None:
    async def work(resolver: Resolver) -> None:
        await resolver.addresses(NAME, 80)
        here().names[NAME] = ["169.254.169.254"]
        await asyncio.sleep(REFRESH_AFTER + 1)
        assert await resolver.addresses(NAME, 80) == GOOD

    with_resolver(work)


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.0.0.1", "127.0.0.1", "::1", "2001:db8::1", "fd00::1", "::ffff:8.8.8.8"]
)
def test_every_other_address_may_be_a_provider(address: str) -> None:
    assert is_allowed(address)


@pytest.mark.parametrize("text", ["", "node.example", "1.2.3", "1.2.3.4.5", "0x7f.1", "2130706433", ":", "%eth0"])
def test_what_is_no_address_is_not_handed_out_as_one(text: str) -> None:
    assert not is_allowed(text)

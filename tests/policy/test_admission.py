"""The queue of calls that wait for a free endpoint: fair, bounded, and kind to what matters."""

from __future__ import annotations

import heapq
import random
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model import Family, RequestClass
from gateway.policy.admission import AdmissionSettings, Joined, Refused, Ticket, WaitingRoom

HEAD, SEND, HEAVY = RequestClass.HEAD_READ, RequestClass.BROADCAST, RequestClass.HEAVY_READ
SETTINGS = AdmissionSettings(queue=10, wait_at_most=2.0)


def ticket(caller: str = "", request_class: RequestClass = HEAD, until: float = 10.0, token: object = None) -> Ticket:
    return Ticket(caller, request_class, Family.STATE, until, token)


def served(room: WaitingRoom, now: float = 0.0) -> list[Ticket]:
    out = []
    while (found := room.next(now, lambda _: True)) is not None:
        out.append(found)
    return out


def test_transactions_go_first_then_the_important_reads_and_heavy_ones_last() -> None:
    room = WaitingRoom(SETTINGS, 0.0)
    for request_class in (HEAVY, HEAD, RequestClass.HIGHEST_READ, SEND, RequestClass.STATEFUL):
        room.join(ticket(request_class=request_class))
    room.join(ticket("known"))
    order = [(t.request_class, t.caller) for t in served(room)]
    assert order == [
        (SEND, ""),
        (RequestClass.STATEFUL, ""),
        (RequestClass.HIGHEST_READ, ""),
        (HEAD, "known"),
        (HEAD, ""),
        (HEAVY, ""),
    ]


def test_of_one_callers_reads_the_newest_is_served_first_and_transactions_keep_their_order() -> None:
    room = WaitingRoom(SETTINGS, 0.0)
    for n in range(3):
        room.join(ticket(token=n))
        room.join(ticket(request_class=SEND, token=n))
    assert [t.token for t in served(room)] == [0, 1, 2, 2, 1, 0]


def test_a_caller_that_floods_waits_behind_the_others() -> None:
    room = WaitingRoom(AdmissionSettings(queue=100), 0.0)
    for _ in range(50):
        room.join(ticket("flood"))
    for _ in range(5):
        room.join(ticket("quiet"))
    assert Counter(t.caller for t in served(room)[:10]) == {"flood": 5, "quiet": 5}


def test_callers_without_a_key_take_turns_by_their_address_and_stand_behind_those_with_one() -> None:
    room = WaitingRoom(AdmissionSettings(), 0.0)
    for _ in range(20):
        room.join(ticket("@10.0.0.1"))
    room.join(ticket("@10.0.0.2"))
    room.join(ticket("a-key"))
    first = [t.caller for t in served(room)[:3]]
    assert first[0] == "a-key"
    assert set(first[1:]) == {"@10.0.0.1", "@10.0.0.2"}


def test_a_full_queue_sends_away_the_least_important_of_the_busiest_caller() -> None:
    room = WaitingRoom(SETTINGS, 0.0)
    for n in range(7):
        room.join(ticket("flood", token=n))
    for _ in range(3):
        room.join(ticket("quiet"))
    joined = room.join(ticket("quiet"))
    assert isinstance(joined, Joined)
    assert joined.victim is not None
    assert (joined.victim.caller, joined.victim.token) == ("flood", 0)


def test_a_transaction_that_waits_is_never_sent_away_and_is_refused_before_it_waits() -> None:
    room = WaitingRoom(SETTINGS, 0.0)
    for _ in range(10):
        assert room.join(ticket(request_class=SEND)) == Joined(None)
    assert isinstance(room.join(ticket(request_class=SEND)), Refused)
    assert isinstance(room.join(ticket("known")), Refused)
    assert len(served(room)) == 10


def test_a_heavy_read_does_not_displace_a_light_one() -> None:
    room = WaitingRoom(SETTINGS, 0.0)
    for _ in range(10):
        room.join(ticket())
    assert isinstance(room.join(ticket(request_class=HEAVY)), Refused)


def test_nobody_is_served_after_its_time() -> None:
    room = WaitingRoom(SETTINGS, 0.0)
    room.join(ticket(until=1.0))
    assert room.next(1.0, lambda _: True) is None
    assert len(room.expired(1.0)) == 1
    assert len(room) == 0


def test_those_sent_away_are_told_to_come_back_at_different_times() -> None:
    room = WaitingRoom(AdmissionSettings(queue=1000), 0.0)
    for n in range(900):
        room.join(ticket())
        room.next(n / 450, lambda _: n % 3 == 0)  # noqa: B023 - asked at once
    times = {round(room.retry_after(2.1, chance / 10), 3) for chance in range(10)}
    assert len(times) == 10
    assert 1.0 <= min(times) <= max(times) <= 90.0


class AnyOrder(RuleBasedStateMachine):
    """Against a list that is searched: each ticket ends once, and nothing is held too long."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.room = WaitingRoom(SETTINGS, 0.0)
        self.waiting: list[Ticket] = []

    def over(self, one: Ticket) -> None:
        assert one in self.waiting, "ended twice"
        assert one.ended
        self.waiting.remove(one)

    @rule(
        caller=st.sampled_from(["", "a", "b"]),
        request_class=st.sampled_from(RequestClass),
        patience=st.floats(0.1, 5.0),
    )
    def somebody_joins(self, caller: str, request_class: RequestClass, patience: float) -> None:
        one = ticket(caller, request_class, self.now + patience)
        joined = self.room.join(one)
        if isinstance(joined, Refused):
            assert len(self.waiting) == SETTINGS.queue
            assert all(other.rank >= one.rank for other in self.waiting)
            return
        if joined.victim is not None:
            assert joined.victim.rank <= one.rank
            assert joined.victim.request_class is not SEND
            self.over(joined.victim)
        self.waiting.append(one)

    @rule(family_fits=st.booleans())
    def a_slot_is_free(self, family_fits: bool) -> None:
        one = self.room.next(self.now, lambda _: family_fits)
        if one is None:
            assert not family_fits or all(other.until <= self.now for other in self.waiting)
            return
        assert one.until > self.now
        assert all(other.rank <= one.rank for other in self.waiting if other.until > self.now)
        self.over(one)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def somebody_leaves(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.waiting))
        self.room.leave(one)
        self.room.leave(one)
        self.over(one)

    @rule(seconds=st.floats(0.0, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for one in self.room.expired(self.now):
            assert one.until <= self.now
            self.over(one)
        assert all(other.until > self.now for other in self.waiting)

    @invariant()
    def nobody_is_lost(self) -> None:
        assert len(self.room) == len(self.waiting) <= SETTINGS.queue


TestAnyOrder = AnyOrder.TestCase


def test_three_times_the_capacity_leaves_the_capacity() -> None:
    """Twelve slots of 50 ms each, three times what they can serve for 30 s, callers that come back."""
    seed, slots, service = 4, 12, 0.05
    chance = random.Random(seed)
    room = WaitingRoom(AdmissionSettings(), 0.0)
    capacity = slots / service
    busy: list[float] = []
    events = [(n / (3 * capacity), n, "new") for n in range(int(30 * 3 * capacity))]
    for n in range(int(20 * 0.5 * capacity)):
        at = 30 + n / (0.5 * capacity)
        events.append((at, 10**7 + n, "late" if at < 40 else "steady"))
    heapq.heapify(events)
    good: Counter[str] = Counter()
    number = 2 * 10**7
    while events:
        now, _, kind = heapq.heappop(events)
        if kind == "free":
            busy.pop()
        else:
            one = ticket(until=now + 1.0, token=kind)
            joined = room.join(one)
            sent_away = [one] if isinstance(joined, Refused) else [joined.victim] if joined.victim else []
            for gone in [*sent_away, *room.expired(now)]:
                if gone.token == "new" and chance.random() < 0.3:
                    number += 1
                    heapq.heappush(events, (now + room.retry_after(now, chance.random()), number, "again"))
        while len(busy) < slots and (got := room.next(now, lambda _: True)) is not None:
            busy.append(now)
            number += 1
            heapq.heappush(events, (now + service, number, "free"))
            good[f"{got.token} {'during' if now < 30 else 'after'}"] += 1
    during = good["new during"] + good["again during"]
    late = good["steady after"]
    share = late / (10 * 0.5 * capacity)
    print(f"seed {seed}: {during / 30 / capacity:.0%} of the capacity during, {share:.1%} from 10 s after on")
    assert during >= 0.9 * 30 * capacity
    assert late >= 0.99 * 10 * 0.5 * capacity

"""Turns: the more important first, then callers in turn, each in its order; bounded, and nobody twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.turns import Turns


class Ticket:
    def __init__(self, caller: str, priority: int, number: int) -> None:
        self.caller = caller
        self.priority = priority
        self.number = number


def drained(turns: Turns[Ticket]) -> list[Ticket]:
    served = []
    while turns:
        first = turns.first()
        assert first is not None
        turns.serve(first)
        served.append(first)
    return served


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=60))
def test_the_more_important_goes_first_and_a_callers_order_is_kept(joins: list[tuple[str, int]]) -> None:
    turns: Turns[Ticket] = Turns(1000, 1000)
    for number, (caller, priority) in enumerate(joins):
        assert turns.join(Ticket(caller, priority, number), caller, priority, 1e9) is None
    served = drained(turns)
    assert len(served) == len(joins)
    assert [t.priority for t in served] == sorted(t.priority for t in served)
    for caller in "abc":
        for priority in range(4):
            own = [t.number for t in served if (t.caller, t.priority) == (caller, priority)]
            assert own == sorted(own)


def test_callers_take_turns_whatever_one_of_them_asks_for() -> None:
    turns: Turns[Ticket] = Turns(1000, 1000)
    for number in range(100):
        turns.join(Ticket("greedy", 1, number), "greedy", 1, 1e9)
    for number in range(3):
        turns.join(Ticket("modest", 1, number), "modest", 1, 1e9)
    served = [ticket.caller for ticket in drained(turns)]
    assert served[:6].count("modest") == 3


def test_a_caller_that_lets_others_go_before_keeps_its_place() -> None:
    turns: Turns[Ticket] = Turns(10, 10)
    tickets = {name: Ticket(name[0], 0, n) for n, name in enumerate(["a1", "a2", "b1", "c1"])}
    for ticket in tickets.values():
        turns.join(ticket, ticket.caller, 0, 1e9)
    assert turns.first([tickets["a1"]]) is tickets["b1"]
    turns.serve(tickets["b1"])
    assert turns.first([tickets["a1"]]) is tickets["c1"]
    assert turns.first([tickets["a1"], tickets["c1"]]) is None
    assert turns.first() is tickets["a1"]


def test_those_whose_time_is_over_leave_once() -> None:
    turns: Turns[Ticket] = Turns(10, 10)
    tickets = [Ticket("a", 0, n) for n in range(4)]
    for n, ticket in enumerate(tickets):
        turns.join(ticket, "a", 0, float(n))
    turns.leave(tickets[0])
    turns.leave(tickets[0])
    assert turns.expired(2.0) == tickets[1:3]
    assert turns.expired(2.0) == []
    assert drained(turns) == [tickets[3]]


def test_who_waits_is_bounded_and_the_least_important_of_the_busiest_goes() -> None:
    turns: Turns[Ticket] = Turns(4, 3)
    orders = [Ticket("a", 0, n) for n in range(2)]
    for ticket in orders:
        assert turns.join(ticket, "a", 0, 1e9) is None
    market = [Ticket("b", 3, n) for n in range(3)]
    assert turns.join(market[0], "b", 3, 1e9) is None
    assert turns.join(market[1], "b", 3, 1e9) is None
    assert turns.join(market[2], "b", 3, 1e9) is market[2]
    late = Ticket("c", 0, 9)
    assert turns.join(late, "c", 0, 1e9) is market[1]
    assert len(turns) == 4
    alone: Turns[Ticket] = Turns(100, 2)
    assert [alone.join(Ticket("d", 1, n), "d", 1, 1e9) is None for n in range(3)] == [True, True, False]

"""When a fault strikes."""

from __future__ import annotations

import pytest

from gateway.drill.faults import Fault, Script, Stage
from gateway.model import Family

CALLS = [("eth_call", Family.STATE)]


def strikes(script: Script, count: int, now: float = 0.0) -> list[bool]:
    return [script.strike(Stage.ANSWER, now, CALLS) is not None for _ in range(count)]


def begun(seed: int = 0) -> Script:
    script = Script(seed)
    script.begin(lambda: 100.0)
    return script


def test_first_and_last_count_the_requests_that_match_since_the_rule_was_set():
    script = begun().set(Fault.STATUS_503, methods=["eth_call"], first=2, last=3)
    assert script.strike(Stage.ANSWER, 100, [("eth_chainId", Family.HEAD)]) is None
    assert strikes(script, 5, 100) == [False, True, True, False, False]
    assert script.fired[Fault.STATUS_503] == 2
    script.set(Fault.STATUS_503, last=1)
    assert strikes(script, 2, 100) == [True, False]


def test_a_window_counts_from_the_moment_the_rule_was_set():
    script = begun().set(Fault.STATUS_503, after=10, lasting=5)
    assert [strikes(script, 1, now)[0] for now in (100, 109.9, 110, 114.9, 115)] == [False, False, True, True, False]
    assert [rule.fault for rule in script.active(112)] == [Fault.STATUS_503]
    assert script.active(115) == []


def test_a_window_set_before_the_start_counts_from_the_start_and_a_restart_does_not_move_it():
    script = Script().set(Fault.STATUS_503, lasting=5)
    assert strikes(script, 1, 3) == [False]
    script.begin(lambda: 100.0)
    script.begin(lambda: 1000.0)
    assert strikes(script, 1, 104) == [True]
    assert strikes(script, 1, 105) == [False]


def test_chance_repeats_with_the_seed_and_keeps_its_share():
    first, second = (begun(4).set(Fault.STATUS_503, chance=0.3) for _ in range(2))
    drawn = strikes(first, 1000, 100)
    assert drawn == strikes(second, 1000, 100)
    assert 250 < sum(drawn) < 350
    assert sum(drawn) == first.fired[Fault.STATUS_503]


def test_clearing_one_fault_leaves_the_others_and_every_count():
    script = begun().set(Fault.STATUS_503).set(Fault.SLOW)
    strikes(script, 1, 100)
    script.clear(Fault.STATUS_503)
    assert strikes(script, 1, 100) == [False]
    assert script.strike(Stage.DELAY, 100, CALLS) is not None
    assert script.armed
    script.clear()
    assert not script.armed
    assert script.fired[Fault.STATUS_503] == 1


def test_at_most_one_fault_strikes_at_a_stage():
    script = begun().set(Fault.STATUS_503).set(Fault.STATUS_429)
    rule = script.strike(Stage.ANSWER, 100, CALLS)
    assert rule is not None
    assert rule.fault is Fault.STATUS_503
    assert script.fired[Fault.STATUS_429] == 0


def test_the_door_knows_when_it_changes_by_itself():
    script = begun().set(Fault.REFUSE, after=10, lasting=5)
    assert script.door_changes_after(100) == 10
    assert not script.refusing(109)
    assert script.refusing(110)
    assert script.door_changes_after(111) == 4
    assert script.door_changes_after(115) is None
    assert script.set(Fault.REFUSE).door_changes_after(200) is None


@pytest.mark.parametrize(
    "figures",
    [{"chance": 1.1}, {"first": 0}, {"first": 3, "last": 2}, {"lasting": -1}, {"after": -1}, {"amount": -1}],
    ids=str,
)
def test_figures_that_make_no_sense_are_refused(figures):
    with pytest.raises(ValueError):
        Script().set(Fault.SLOW, **figures)


def test_methods_given_as_one_string_are_refused():
    with pytest.raises(ValueError, match="collection"):
        Script().set(Fault.SLOW, methods="eth_call")


def test_a_fault_is_found_by_its_name_only():
    assert Fault.named("status_503") is Fault.STATUS_503
    with pytest.raises(ValueError):
        Fault.named("STATUS_503")

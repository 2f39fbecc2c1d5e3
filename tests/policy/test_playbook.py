"""The playbook itself: it passes a true script, and says where a wrong one is wrong."""

from __future__ import annotations

import pytest

from gateway.model import ReplyKind, RequestClass, Shown
from gateway.policy.plan import Deliver, Launch, LookUp
from tests.policy.playbook import answered, lost, play

READ = RequestClass.HEAD_READ
SECOND = answered(1, ReplyKind.ANSWER)


def test_a_true_script_passes() -> None:
    play(READ, lost(0), Launch((0,), True), SECOND, Deliver(1, Shown.ANSWER))


def test_a_script_that_the_plan_leaves_says_where_and_what_came() -> None:
    with pytest.raises(AssertionError) as told:
        play(READ, lost(0), Launch((0,), True), SECOND, LookUp())
    assert str(told.value).splitlines() == [
        "the plan of a head_read left its script:",
        "  1. at 0 s, endpoint 0: connection_lost (sent)",
        "       Launch(used=(0,), last_resort=True)",
        "  2. at 0 s, endpoint 1: answer (answered)",
        "       expected  LookUp()",
        "       came      Deliver(attempt=1, shown=<Shown.ANSWER: 'answer'>)",
    ]


def test_a_script_that_ends_before_the_plan_does_is_refused() -> None:
    with pytest.raises(AssertionError, match="the script ends and the plan does not"):
        play(READ, lost(0), Launch((0,), True))


def test_an_event_whose_command_is_not_asserted_is_refused() -> None:
    with pytest.raises(AssertionError, match="its last event has no command"):
        play(READ, lost(0))

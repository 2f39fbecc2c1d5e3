"""The plan of a call: one end, no forbidden repeat, nothing after the deadline, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.model import Elsewhere, ReplyKind, RequestClass, Sent, Shown
from gateway.policy.plan import CallerGone, Deliver, Ended, Fail, Launch, LookedUp, LookUp, NothingLeft, Plan
from gateway.policy.retry import RetrySettings

DEADLINE = 10.0
READS = [c for c in RequestClass if c.repeatable and not c.write]


def plan(request_class: RequestClass, **settings: int) -> Plan:
    return Plan(request_class, RetrySettings(**settings), DEADLINE)  # type: ignore[arg-type]


def ended(endpoint: int, kind: ReplyKind | None, sent: Sent = Sent.ANSWERED, error: bool = True) -> Ended:
    return Ended(endpoint, sent, kind, "attempt_timeout", kind is not None and error)


@pytest.mark.parametrize("request_class", RequestClass)
def test_an_answer_to_the_first_attempt_is_delivered_at_once(request_class: RequestClass) -> None:
    assert plan(request_class).on(ended(0, ReplyKind.ANSWER, error=False), 1.0, True) == Deliver(0, Shown.ANSWER)


@pytest.mark.parametrize("request_class", RequestClass)
@pytest.mark.parametrize("kind", [ReplyKind.REFUSAL, ReplyKind.INVALID_REQUEST, ReplyKind.SENDER_LIMIT])
def test_an_applications_no_is_an_answer(request_class: RequestClass, kind: ReplyKind) -> None:
    assert plan(request_class).on(ended(0, kind), 1.0, True) == Deliver(0, Shown.UPSTREAM_ERROR)


@pytest.mark.parametrize("request_class", READS)
@pytest.mark.parametrize("kind", [k for k in ReplyKind if k.elsewhere is not Elsewhere.NO])
def test_a_read_goes_elsewhere(request_class: RequestClass, kind: ReplyKind) -> None:
    command = plan(request_class).on(ended(0, kind), 1.0, True)
    assert command == Launch((0,), request_class.last_resort)


NOT_REPEATABLE = [c for c in RequestClass if not c.repeatable]


@pytest.mark.parametrize("request_class", NOT_REPEATABLE)
@pytest.mark.parametrize("sent", [Sent.PARTLY, Sent.SENT, Sent.ANSWERED])
def test_what_is_not_repeatable_is_never_launched_again_once_a_byte_left(
    request_class: RequestClass, sent: Sent
) -> None:
    command = plan(request_class).on(ended(0, None, sent), 1.0, True)
    assert isinstance(command, Fail)


@pytest.mark.parametrize("request_class", RequestClass)
def test_what_was_provably_not_sent_may_go_elsewhere_whatever_its_class(request_class: RequestClass) -> None:
    assert isinstance(plan(request_class).on(ended(0, None, Sent.NOT_SENT), 1.0, True), Launch)


def test_a_doubtful_answer_gets_one_other_opinion_only() -> None:
    machine = plan(RequestClass.HEAD_READ, attempts=5)
    assert isinstance(machine.on(ended(0, ReplyKind.UNCLASSIFIED), 1.0, True), Launch)
    assert machine.on(ended(1, ReplyKind.UNCLASSIFIED), 1.0, True) == Deliver(1, Shown.UPSTREAM_ERROR)


def test_without_budget_the_first_failure_is_the_last_word() -> None:
    command = plan(RequestClass.HEAD_READ).on(ended(0, ReplyKind.SERVER_FAULT, error=False), 1.0, False)
    assert isinstance(command, Fail)
    assert command.because.value == "budget"


def test_a_transaction_already_known_is_its_hash() -> None:
    command = plan(RequestClass.BROADCAST).on(ended(0, ReplyKind.TX_KNOWN), 1.0, True)
    assert command == Deliver(0, Shown.TRANSACTION_HASH)


@pytest.mark.parametrize(("found", "shown"), [(True, Shown.TRANSACTION_HASH), (False, Shown.UPSTREAM_ERROR)])
def test_nonce_too_low_is_looked_up_before_it_is_an_error(found: bool, shown: Shown) -> None:
    machine = plan(RequestClass.BROADCAST)
    assert machine.on(ended(0, ReplyKind.NONCE_TOO_LOW), 1.0, True) == LookUp()
    assert machine.on(LookedUp(found), 1.0, True) == Deliver(0, shown)


def test_a_lost_transaction_is_looked_up_before_its_fate_is_called_unknown() -> None:
    machine = plan(RequestClass.BROADCAST)
    assert isinstance(machine.on(ended(0, None, Sent.SENT), 1.0, True), Launch)
    assert machine.on(NothingLeft(), 1.0, True) == LookUp()
    command = machine.on(LookedUp(None), 1.0, True)
    assert isinstance(command, Fail)
    assert command.reason == "outcome_unknown"


def test_a_lost_signing_call_is_reported_as_unknown_and_not_repeated() -> None:
    command = plan(RequestClass.SIGNING).on(ended(0, None, Sent.SENT), 1.0, True)
    assert isinstance(command, Fail)
    assert command.reason == "outcome_unknown"


def test_a_finished_plan_has_nothing_to_say() -> None:
    machine = plan(RequestClass.HEAD_READ)
    machine.on(CallerGone(), 1.0, True)
    with pytest.raises(RuntimeError):
        machine.on(CallerGone(), 1.0, True)


KINDS = st.one_of(st.none(), st.sampled_from(ReplyKind))
STEPS = st.lists(
    st.tuples(KINDS, st.sampled_from(Sent), st.booleans(), st.booleans(), st.floats(0, 4), st.sampled_from("ecn")),
    min_size=1,
    max_size=12,
)


@given(request_class=st.sampled_from(RequestClass), steps=STEPS, attempts=st.integers(1, 5))
@hypothesis_settings(max_examples=800, deadline=None)
def test_any_sequence_of_events_ends_once_and_keeps_every_law(
    request_class: RequestClass, steps: list[tuple[ReplyKind | None, Sent, bool, bool, float, str]], attempts: int
) -> None:
    machine = plan(request_class, attempts=attempts)
    now, endpoint, look_ups, maybe_received = 0.0, 0, 0, 0
    command: object = Launch((), True)
    for kind, sent, error, budget, passed, turn in [*steps, *([(None, Sent.SENT, False, True, 4.0, "n")] * 20)]:
        now += passed
        if isinstance(command, LookUp):
            look_ups += 1
            command = machine.on(LookedUp({"e": True, "c": None, "n": False}[turn]), now, budget)
        elif isinstance(command, Launch):
            assert now < DEADLINE or endpoint == 0 or passed > 0
            assert len(set(command.used)) == len(command.used)
            if turn == "c":
                command = machine.on(CallerGone(), now, budget)
            elif turn == "n":
                command = machine.on(NothingLeft(), now, budget)
            else:
                went = Sent.ANSWERED if kind is not None else sent
                maybe_received += went is not Sent.NOT_SENT
                launched_at = now
                command = machine.on(ended(endpoint, kind, went, error), now, budget)
                endpoint += 1
                if isinstance(command, Launch):
                    assert launched_at < DEADLINE, "launched after the deadline"
                    assert budget, "launched without budget"
                    assert maybe_received < attempts
                    if maybe_received:
                        assert request_class.repeatable or (sent is Sent.NOT_SENT and maybe_received == 0)
                    if request_class.max_endpoints is not None and went is not Sent.NOT_SENT:
                        assert maybe_received < request_class.max_endpoints
        else:
            break
    assert isinstance(command, Deliver | Fail)
    assert look_ups <= 1
    assert look_ups == 0 or request_class.looked_up
    assert machine.finished

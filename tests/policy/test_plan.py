"""The plan of a call: one end, no forbidden repeat, nothing after the deadline, whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.model import Elsewhere, ReplyKind, RequestClass, Sent, Shown
from gateway.policy.plan import (
    MIN_ATTEMPT_TIME,
    CallerGone,
    Command,
    Deliver,
    Ended,
    Event,
    Fail,
    Launch,
    LookedUp,
    LookUp,
    NothingLeft,
    Plan,
)
from gateway.policy.retry import RetrySettings, Verdict
from tests.policy.playbook import DEADLINE, At, answered, last_word, lost, play

READ = RequestClass.HEAD_READ
SEND = RequestClass.BROADCAST
LOOKED_UP = [c for c in RequestClass if c.looked_up]
REPEATABLE = [c for c in RequestClass if c.repeatable]
NOT_REPEATABLE = [c for c in RequestClass if not c.repeatable]
THEIRS = Shown.UPSTREAM_ERROR
HASH = Shown.TRANSACTION_HASH


# --- every class x every reply ----------------------------------------------------------------------

# How a call ends when every endpoint answers the same and a look-up finds nothing out: how many
# endpoints were handed the call, ? if the transaction was looked up, and the last word (`theirs`:
# the upstream's error; `failed`: attempts_failed; `unknown`: outcome_unknown).
COLUMNS = {
    "read": ["pinned_read", "head_read", "highest_read", "venue_signed_read"],
    "heavy": ["heavy_read"],
    "broadcast": ["broadcast", "private_broadcast"],
    "stateful": ["stateful"],
    "write": ["signing", "venue_write", "operator", "unknown"],
}
WORDS = {
    "answer": "answer",
    "hash": "transaction_hash",
    "theirs": "upstream_error",
    "failed": "attempts_failed",
    "unknown": "outcome_unknown",
}
WITH_ERROR_OBJECT = """
                  read       heavy      broadcast  stateful   write
unclassified      2 theirs   2 theirs   2? theirs  1 theirs   1 theirs
answer            1 answer   1 answer   1 answer   1 answer   1 answer
refusal           1 theirs   1 theirs   1 theirs   1 theirs   1 theirs
invalid_request   1 theirs   1 theirs   1 theirs   1 theirs   1 theirs
bad_request       2 theirs   2 theirs   2 theirs   1 theirs   1 theirs
tx_known          1 hash     1 hash     1 hash     1 hash     1 hash
nonce_too_low     1 theirs   1 theirs   1? theirs  1 theirs   1 theirs
sender_limit      1 theirs   1 theirs   1 theirs   1 theirs   1 theirs
pool_full         3 theirs   2 theirs   3 theirs   1 theirs   1 theirs
throttled         3 failed   2 failed   3 failed   1 failed   1 failed
quota             3 failed   2 failed   3 failed   1 failed   1 failed
key_refused       3 failed   2 failed   3 failed   1 failed   1 failed
gone              3 failed   2 failed   3 failed   1 failed   1 failed
wrong_chain       3 failed   2 failed   3 failed   1 failed   1 failed
unsupported       3 theirs   2 theirs   3 theirs   1 theirs   1 theirs
missing_data      3 theirs   2 theirs   3 theirs   1 theirs   1 theirs
range_too_large   3 theirs   2 theirs   3 theirs   1 theirs   1 theirs
node_timeout      2 theirs   2 theirs   2? theirs  1 theirs   1 theirs
server_fault      3 failed   2 failed   3? failed  1 failed   1 failed
bad_reply         3 failed   2 failed   3? failed  1 failed   1 failed
empty             2 answer   2 answer   2 answer   1 answer   1 answer
odd               2 answer   2 answer   2 answer   1 answer   1 answer
behind            3 answer   2 answer   3 answer   1 answer   1 answer
uncovered         3 failed   2 failed   3 failed   1 failed   1 failed
maintenance       3 theirs   2 theirs   3 theirs   1 theirs   1 theirs
wrong_data        3 failed   2 failed   3? failed  1 failed   1 failed
"""
WITHOUT = """
                  read       heavy      broadcast   stateful   write
unclassified      2 failed   2 failed   2? unknown  1 failed   1 unknown
answer            1 answer   1 answer   1 answer    1 answer   1 answer
refusal           1 theirs   1 theirs   1 theirs    1 theirs   1 theirs
invalid_request   1 theirs   1 theirs   1 theirs    1 theirs   1 theirs
bad_request       2 failed   2 failed   2 failed    1 failed   1 failed
tx_known          1 hash     1 hash     1 hash      1 hash     1 hash
nonce_too_low     1 theirs   1 theirs   1? theirs   1 theirs   1 theirs
sender_limit      1 theirs   1 theirs   1 theirs    1 theirs   1 theirs
pool_full         3 failed   2 failed   3 failed    1 failed   1 failed
throttled         3 failed   2 failed   3 failed    1 failed   1 failed
quota             3 failed   2 failed   3 failed    1 failed   1 failed
key_refused       3 failed   2 failed   3 failed    1 failed   1 failed
gone              3 failed   2 failed   3 failed    1 failed   1 failed
wrong_chain       3 failed   2 failed   3 failed    1 failed   1 failed
unsupported       3 failed   2 failed   3 failed    1 failed   1 failed
missing_data      3 failed   2 failed   3 failed    1 failed   1 failed
range_too_large   3 failed   2 failed   3 failed    1 failed   1 failed
node_timeout      2 failed   2 failed   2? unknown  1 failed   1 unknown
server_fault      3 failed   2 failed   3? unknown  1 failed   1 unknown
bad_reply         3 failed   2 failed   3? unknown  1 failed   1 unknown
empty             2 answer   2 answer   2 answer    1 answer   1 answer
odd               2 answer   2 answer   2 answer    1 answer   1 answer
behind            3 answer   2 answer   3 answer    1 answer   1 answer
uncovered         3 failed   2 failed   3 failed    1 failed   1 failed
maintenance       3 failed   2 failed   3 failed    1 failed   1 failed
wrong_data        3 failed   2 failed   3? unknown  1 failed   1 unknown
"""


def table(text: str) -> dict[tuple[RequestClass, ReplyKind], str]:
    """The cells of a table, one per class and kind."""
    header, *rows = [line.split() for line in text.strip().splitlines()]
    cells = {}
    for kind, *words in rows:
        for column, count, word in zip(header, words[::2], words[1::2], strict=True):
            for name in COLUMNS[column]:
                cells[RequestClass(name), ReplyKind(kind)] = f"{count} {WORDS[word]}"
    return cells


@pytest.mark.parametrize(("text", "error"), [(WITH_ERROR_OBJECT, True), (WITHOUT, False)], ids=["object", "no object"])
def test_every_class_and_every_reply_have_their_last_word(text: str, error: bool) -> None:
    expected = table(text)
    assert len(RequestClass) * len(ReplyKind) == len(expected), "the table is not total"
    assert expected == {case: last_word(*case, error) for case in expected}


# --- stories ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_class", RequestClass)
def test_an_answer_to_the_first_attempt_is_delivered_at_once(request_class: RequestClass) -> None:
    """The short way that dispatch takes without a plan ends as the plan would have said."""
    answer = answered(0, ReplyKind.ANSWER)
    for event in (answer, At(DEADLINE + 1, answer), At(0.0, answer, budget=False)):
        play(request_class, event, Deliver(0, Shown.ANSWER))


@pytest.mark.parametrize("request_class", RequestClass)
@pytest.mark.parametrize("kind", [ReplyKind.REFUSAL, ReplyKind.INVALID_REQUEST, ReplyKind.SENDER_LIMIT])
def test_an_applications_no_is_an_answer(request_class: RequestClass, kind: ReplyKind) -> None:
    play(request_class, answered(0, kind), Deliver(0, THEIRS))


@pytest.mark.parametrize("request_class", REPEATABLE)
@pytest.mark.parametrize("kind", [k for k in ReplyKind if k.elsewhere is not Elsewhere.NO])
def test_what_is_repeatable_goes_elsewhere_and_the_answer_there_is_delivered(
    request_class: RequestClass, kind: ReplyKind
) -> None:
    play(
        request_class,
        *(answered(0, kind), Launch((0,), request_class.last_resort)),
        *(answered(1, ReplyKind.ANSWER), Deliver(1, Shown.ANSWER)),
    )


@pytest.mark.parametrize("request_class", NOT_REPEATABLE)
@pytest.mark.parametrize("sent", [Sent.PARTLY, Sent.SENT, Sent.ANSWERED])
def test_what_is_not_repeatable_is_never_launched_again_once_a_byte_left(
    request_class: RequestClass, sent: Sent
) -> None:
    doubt = request_class.write and sent is not Sent.PARTLY  # a part of a request cannot have taken effect
    play(request_class, lost(0, sent), Fail("outcome_unknown" if doubt else "attempts_failed", Verdict.BYTES_LEFT))


@pytest.mark.parametrize("request_class", RequestClass)
def test_what_was_provably_not_sent_may_go_anywhere_whatever_its_class(request_class: RequestClass) -> None:
    resort = request_class.last_resort
    play(
        request_class,
        *(lost(0, Sent.NOT_SENT), Launch((0,), resort)),
        *(lost(1, Sent.NOT_SENT), Launch((0, 1), resort)),
        *(lost(2, Sent.NOT_SENT), Launch((0, 1, 2), resort)),
        *(answered(3, ReplyKind.ANSWER), Deliver(3, Shown.ANSWER)),
    )


def test_a_doubtful_answer_gets_one_other_opinion_only() -> None:
    play(
        READ,
        *(answered(0, ReplyKind.UNCLASSIFIED), Launch((0,), True)),
        *(answered(1, ReplyKind.NODE_TIMEOUT), Deliver(1, THEIRS)),
        attempts=5,
    )


def test_a_clear_failure_after_a_doubtful_answer_still_goes_on() -> None:
    play(
        READ,
        *(answered(0, ReplyKind.UNCLASSIFIED), Launch((0,), True)),
        *(answered(1, ReplyKind.SERVER_FAULT), Launch((0, 1), True)),
        *(answered(2, ReplyKind.UNCLASSIFIED), Deliver(2, THEIRS)),
    )


def test_an_upstreams_own_words_are_better_than_ours() -> None:
    """The last readable error is shown, not that the others could not be reached."""
    play(
        READ,
        *(answered(0, ReplyKind.MISSING_DATA), Launch((0,), True)),
        *(lost(1), Launch((0, 1), True)),
        *(lost(2), Deliver(0, THEIRS)),
    )


@pytest.mark.parametrize("left", [MIN_ATTEMPT_TIME, 0.0, -1.0])
def test_nothing_starts_when_the_deadline_is_there_or_too_near_for_an_attempt(left: float) -> None:
    play(READ, At(DEADLINE - left, lost(0)), Fail("deadline_passed", Verdict.DEADLINE))


def test_without_budget_the_first_failure_is_the_last_word() -> None:
    play(READ, At(0.0, lost(0), budget=False), Fail("attempts_failed", Verdict.BUDGET))


def test_when_nobody_may_have_the_call_the_caller_hears_when_somebody_may() -> None:
    play(READ, NothingLeft(2.5), Fail("no_endpoint", Verdict.ATTEMPTS_USED, 2.5))
    play(
        READ,
        *(answered(0, ReplyKind.THROTTLED), Launch((0,), True)),
        *(NothingLeft(2.5), Fail("attempts_failed", Verdict.ATTEMPTS_USED, 2.5)),
    )


@pytest.mark.parametrize("request_class", RequestClass)
def test_for_a_caller_that_is_gone_nothing_new_starts(request_class: RequestClass) -> None:
    play(request_class, CallerGone(), Fail("caller_left", Verdict.ANSWERED))


def test_a_finished_plan_has_nothing_to_say() -> None:
    plan = Plan(READ, RetrySettings(), DEADLINE)
    plan.on(CallerGone(), 1.0, True)
    with pytest.raises(RuntimeError, match="ended"):
        plan.on(CallerGone(), 1.0, True)


# --- transactions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("request_class", LOOKED_UP)
@pytest.mark.parametrize("kind", [ReplyKind.TX_KNOWN, ReplyKind.ANSWER])
def test_a_transaction_lost_by_one_and_known_to_the_next_is_a_success(
    request_class: RequestClass, kind: ReplyKind
) -> None:
    play(request_class, lost(0), Launch((0,), False), answered(1, kind), Deliver(1, kind.shown))


@pytest.mark.parametrize("request_class", LOOKED_UP)
@pytest.mark.parametrize(
    ("found", "end"),
    [
        (True, Deliver(0, HASH)),
        (False, Fail("outcome_unknown", Verdict.ATTEMPTS_USED)),
        (None, Fail("outcome_unknown", Verdict.ATTEMPTS_USED)),
    ],
)
def test_a_lost_transaction_is_looked_up_before_its_fate_is_called_unknown(
    request_class: RequestClass, found: bool | None, end: Command
) -> None:
    """Not found is not proof: it may still be on its way."""
    play(request_class, lost(0), Launch((0,), False), NothingLeft(), LookUp(), LookedUp(found), end)


@pytest.mark.parametrize("request_class", LOOKED_UP)
@pytest.mark.parametrize(("found", "shown"), [(True, HASH), (False, THEIRS), (None, THEIRS)])
def test_nonce_too_low_is_looked_up_before_it_is_an_error(
    request_class: RequestClass, found: bool | None, shown: Shown
) -> None:
    play(request_class, answered(0, ReplyKind.NONCE_TOO_LOW), LookUp(), LookedUp(found), Deliver(0, shown))


DOUBTS = [lost(0), answered(0, ReplyKind.BAD_REPLY), answered(0, ReplyKind.SERVER_FAULT, error=False)]
NOES = [ReplyKind.REFUSAL, ReplyKind.INVALID_REQUEST, ReplyKind.SENDER_LIMIT, ReplyKind.NONCE_TOO_LOW]


@pytest.mark.parametrize("doubt", DOUBTS, ids=lambda doubt: doubt.failure)
@pytest.mark.parametrize("kind", NOES, ids=lambda kind: kind.value)
@pytest.mark.parametrize(
    ("found", "end"),
    [
        (True, Deliver(1, HASH)),
        (False, Deliver(1, THEIRS)),
        (None, Fail("outcome_unknown", Verdict.ATTEMPTS_USED)),
    ],
)
def test_a_no_after_a_doubt_is_looked_up_because_our_own_copy_may_be_why(
    doubt: Ended, kind: ReplyKind, found: bool | None, end: Command
) -> None:
    """A node that has the first copy in its pool says `insufficient funds` or `nonce too low` to the second."""
    play(SEND, doubt, Launch((0,), False), answered(1, kind), LookUp(), LookedUp(found), end)


@pytest.mark.parametrize("kind", [ReplyKind.UNCLASSIFIED, ReplyKind.NODE_TIMEOUT, ReplyKind.SERVER_FAULT])
def test_a_no_after_an_error_that_is_none_of_the_transactions_is_looked_up_too(kind: ReplyKind) -> None:
    play(
        SEND,
        *(answered(0, kind), Launch((0,), False)),
        *(answered(1, ReplyKind.REFUSAL), LookUp()),
        *(LookedUp(True), Deliver(1, HASH)),
    )


def test_a_transaction_that_was_provably_not_sent_is_not_looked_up() -> None:
    play(
        SEND,
        *(lost(0, Sent.NOT_SENT), Launch((0,), False)),
        *(NothingLeft(), Fail("attempts_failed", Verdict.ATTEMPTS_USED)),
    )


def test_a_doubtful_transaction_is_looked_up_even_when_the_deadline_has_passed() -> None:
    play(SEND, At(DEADLINE, lost(0)), LookUp(), LookedUp(None), Fail("outcome_unknown", Verdict.DEADLINE))


# --- any sequence of events -------------------------------------------------------------------------

ENDS = st.one_of(
    st.builds(lost, st.just(0), st.sampled_from(Sent)),
    st.builds(lost, st.just(0), st.just(Sent.NOT_SENT)),
    st.builds(answered, st.just(0), st.sampled_from(ReplyKind), st.booleans()),
    st.builds(answered, st.just(0), st.sampled_from([k for k in ReplyKind if k.elsewhere is Elsewhere.YES])),
)
ENDPOINTS = 8  # of the route: afterwards nothing is left


class Course:
    """One plan, driven by whatever comes, with every law looked at after every command."""

    def __init__(self, request_class: RequestClass, attempts: int) -> None:
        self.request_class = request_class
        self.attempts = attempts
        self.plan = Plan(request_class, RetrySettings(attempts=attempts), DEADLINE)
        self.ends: list[Ended] = []
        self.found: list[bool | None] = []
        self.gone = False

    def tell(self, event: Event, now: float, budget: bool) -> Command:
        if isinstance(event, Ended):
            self.ends.append(event)
        elif isinstance(event, LookedUp):
            self.found.append(event.found)
        self.gone = isinstance(event, CallerGone)
        command = self.plan.on(event, now, budget)
        if isinstance(command, Launch):
            self.may_launch(command, now, budget)
        elif isinstance(command, LookUp):
            assert self.request_class.looked_up, "only a transaction can be looked up"
            assert not self.found, "looked up twice"
        elif isinstance(command, Deliver):
            self.may_deliver(command)
        else:
            self.may_fail(command)
        return command

    def may_launch(self, command: Launch, now: float, budget: bool) -> None:
        received = [end for end in self.ends if end.sent is not Sent.NOT_SENT]
        assert now + MIN_ATTEMPT_TIME < DEADLINE, "launched after the deadline"
        assert budget or not command.paid, "launched without budget"
        assert not self.gone, "launched for nobody"
        assert not self.found, "launched after a look-up"
        assert len(received) < self.attempts, "launched beyond the policy's limit"
        assert not received or self.request_class.repeatable, "launched again after bytes may have left"
        assert not received or len(received) < (self.request_class.max_endpoints or ENDPOINTS + 1)
        assert sum(e.kind is not None and e.kind.elsewhere is Elsewhere.ONCE for e in self.ends) <= 1
        assert tuple(end.endpoint for end in self.ends) == command.used
        assert self.request_class.last_resort == command.last_resort

    def may_deliver(self, command: Deliver) -> None:
        kind = self.ends[command.attempt].kind
        if command.shown is HASH:
            assert kind is ReplyKind.TX_KNOWN or self.found == [True]
        else:
            assert kind is not None, "nothing readable can be delivered"
            assert kind.shown is command.shown
        if self.in_doubt() and command.shown is THEIRS:
            assert self.found == [False], "an error shown while the transaction may be in a pool"

    def may_fail(self, command: Fail) -> None:
        assert (command.reason == "caller_left") == self.gone
        assert (command.reason == "no_endpoint") == (not self.ends and not self.gone)
        if command.reason == "outcome_unknown":
            assert self.request_class.write
            assert self.found or not self.request_class.looked_up, "called unknown without looking it up"
        elif self.in_doubt():
            assert self.gone, "a failure that hides that it may have taken effect"

    def in_doubt(self) -> bool:
        """Bytes of a write left whole at some endpoint, and no reply came from there."""
        return self.request_class.write and any(
            end.kind is None and end.sent in (Sent.SENT, Sent.ANSWERED) for end in self.ends
        )


@given(st.sampled_from(RequestClass), st.integers(1, 5), st.data())
@examples(max_examples=1200)
def test_any_sequence_of_events_ends_in_exactly_one_deliver_or_fail_and_keeps_every_law(
    request_class: RequestClass, attempts: int, data: st.DataObject
) -> None:
    course = Course(request_class, attempts)
    command: Any = Launch((), request_class.last_resort)
    now, steps = 0.0, 0
    while not course.plan.finished:
        steps += 1
        assert steps <= ENDPOINTS + 2, "the plan does not end"
        now += data.draw(st.sampled_from([0.0, 0.5, 3.0, 9.99]))
        budget = data.draw(st.sampled_from([True, True, True, False]))
        event: Event
        if isinstance(command, LookUp):
            event = data.draw(st.sampled_from([LookedUp(True), LookedUp(False), LookedUp(None)]))
        elif len(course.ends) == ENDPOINTS:
            event = NothingLeft()
        else:
            end = data.draw(ENDS)
            other = st.sampled_from([end, end, end, end, NothingLeft(), NothingLeft(1.0), CallerGone()])
            event = data.draw(other)
            if isinstance(event, Ended):
                event = Ended(len(course.ends), end.sent, end.kind, end.failure, end.has_error_object)
        command = course.tell(event, now, budget)
    assert isinstance(command, Deliver | Fail)
    for event in (CallerGone(), NothingLeft(), LookedUp(True), lost(0)):
        with pytest.raises(RuntimeError):
            course.plan.on(event, now, True)

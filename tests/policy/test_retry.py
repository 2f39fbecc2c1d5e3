"""The retry question has one answer for every case, and it is written here case by case."""

from __future__ import annotations

import pytest

from gateway.model import Elsewhere, RequestClass, Sent
from gateway.policy.retry import LastAttempt, RetrySettings, Verdict, may_go_elsewhere

# Per class and how far the attempt got, one letter each for elsewhere = no, once, yes:
# . answered   a again   b bytes left   u attempts used
FIRST = """
                    not_sent  partly  sent  answered
pinned_read         .aa       .aa     .aa   .aa
head_read           .aa       .aa     .aa   .aa
highest_read        .aa       .aa     .aa   .aa
heavy_read          .aa       .aa     .aa   .aa
broadcast           .aa       .aa     .aa   .aa
private_broadcast   .aa       .aa     .aa   .aa
venue_signed_read   .aa       .aa     .aa   .aa
stateful            .aa       .bb     .bb   .bb
signing             .aa       .bb     .bb   .bb
venue_write         .aa       .bb     .bb   .bb
operator            .aa       .bb     .bb   .bb
unknown             .aa       .bb     .bb   .bb
"""
SECOND = """
                    not_sent  partly  sent  answered
pinned_read         .aa       .aa     .aa   .aa
head_read           .aa       .aa     .aa   .aa
highest_read        .aa       .aa     .aa   .aa
heavy_read          .aa       .uu     .uu   .uu
broadcast           .aa       .aa     .aa   .aa
private_broadcast   .aa       .aa     .aa   .aa
venue_signed_read   .aa       .aa     .aa   .aa
stateful            .aa       .bb     .bb   .bb
signing             .aa       .bb     .bb   .bb
venue_write         .aa       .bb     .bb   .bb
operator            .aa       .bb     .bb   .bb
unknown             .aa       .bb     .bb   .bb
"""
LETTERS = {
    ".": Verdict.ANSWERED,
    "a": Verdict.AGAIN,
    "b": Verdict.BYTES_LEFT,
    "u": Verdict.ATTEMPTS_USED,
}
ORDER = (Elsewhere.NO, Elsewhere.ONCE, Elsewhere.YES)


def cases(table: str) -> dict[tuple[RequestClass, Sent, Elsewhere], Verdict]:
    header, *rows = [line.split() for line in table.strip().splitlines()]
    return {
        (RequestClass(row[0]), Sent(sent), elsewhere): LETTERS[letter]
        for row in rows
        for sent, cell in zip(header, row[1:], strict=True)
        for elsewhere, letter in zip(ORDER, cell, strict=True)
    }


def asked(request_class: RequestClass, sent: Sent, elsewhere: Elsewhere, used: int, once_used: bool = False) -> Verdict:
    last = LastAttempt(elsewhere, sent)
    return may_go_elsewhere(
        request_class, last, endpoints_used=used, once_used=once_used, settings=RetrySettings(attempts=3)
    )


@pytest.mark.parametrize(("table", "endpoints"), [(FIRST, 1), (SECOND, 2)], ids=["first", "second"])
def test_class_progress_and_worth_alone_decide_after_an_attempt(table: str, endpoints: int) -> None:
    expected = cases(table)
    assert len(RequestClass) * len(Sent) * len(Elsewhere) == len(expected), "the table is not total"
    came = {case: asked(*case, used=endpoints - 1 if case[1] is Sent.NOT_SENT else endpoints) for case in expected}
    assert expected == came


@pytest.mark.parametrize("request_class", RequestClass)
@pytest.mark.parametrize("sent", Sent)
@pytest.mark.parametrize("elsewhere", Elsewhere)
def test_nothing_goes_on_once_the_policys_limit_of_endpoints_has_received_it(
    request_class: RequestClass, sent: Sent, elsewhere: Elsewhere
) -> None:
    assert asked(request_class, sent, elsewhere, used=3) is not Verdict.AGAIN


@pytest.mark.parametrize("request_class", RequestClass)
@pytest.mark.parametrize("sent", Sent)
def test_a_second_opinion_is_taken_once(request_class: RequestClass, sent: Sent) -> None:
    assert Verdict.ANSWERED is asked(request_class, sent, Elsewhere.ONCE, used=1, once_used=True)
    again = asked(request_class, sent, Elsewhere.YES, used=1, once_used=True)
    assert asked(request_class, sent, Elsewhere.YES, used=1) is again


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"budget_share": 1.5}, {"deadline": 0}, {"budget_rate": -1}])
def test_illegal_settings_cannot_be_built(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetrySettings(**wrong)  # type: ignore[arg-type]

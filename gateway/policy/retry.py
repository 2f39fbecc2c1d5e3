"""Retry: may this call be handed to one more endpoint?  One question, one answer with its reason.

Always true: a call whose class is not repeatable is repeated only when provably no byte of it left;
no attempt starts after the deadline; a route's retries stay within its budget (a share of its calls
plus a small steady rate), so that an outage is not multiplied by us; the first attempt of a call
needs no budget.
Does not belong here: which endpoint comes next (selection), and doing it (upstream/calls/course).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from gateway.bounds import require_bounds, setting
from gateway.model import Elsewhere, RequestClass, Sent


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """How often and how long a call is tried.  Raises ValueError out of bounds."""

    attempts: int = setting(3, "endpoints that may receive one call, connections that fail not counted", low=1, high=10)
    budget_share: float = setting(
        0.15, "retries as a share of calls; earned by calls, spent by retries", unit="share", low=0, high=1
    )
    budget_rate: float = setting(
        1.0, "retries a second that are free in any case, for quiet routes", unit="per_second", low=0, high=1000
    )
    budget_burst: float = setting(50.0, "retries that can be saved up", low=1, high=10000)
    deadline: float = setting(
        10.0, "time for a call as a whole, when the caller names none", unit="s", low=0.1, high=600
    )
    heavy_deadline: float = setting(30.0, "the same for heavy reads (logs, traces)", unit="s", low=0.1, high=600)

    def __post_init__(self) -> None:
        require_bounds(self)


class Verdict(enum.Enum):
    """The answer, with the reason for a no (shown in traces)."""

    AGAIN = "again"
    ANSWERED = "answered"  # another endpoint would say the same
    BYTES_LEFT = "bytes_left"  # it may have taken effect; repeating it could do it twice
    ATTEMPTS_USED = "attempts_used"
    DEADLINE = "deadline"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """What the retry question needs to know of the attempt that just ended."""

    elsewhere: Elsewhere
    sent: Sent


def may_go_elsewhere(
    request_class: RequestClass,
    last: LastAttempt,
    *,
    endpoints_used: int,
    once_used: bool,
    settings: RetrySettings,
) -> Verdict:
    """Whether class, outcome and counts allow another endpoint; deadline and budget are asked apart.

    `endpoints_used` counts endpoints that may have received bytes: attempts that were provably not
    sent use up no limit, or a route whose first three endpoints refuse connections would give up with
    healthy ones left.  `once_used` says that a second opinion for a doubtful answer has been taken.
    """
    if last.elsewhere is Elsewhere.NO or (last.elsewhere is Elsewhere.ONCE and once_used):
        return Verdict.ANSWERED
    if last.sent is not Sent.NOT_SENT:
        if not request_class.repeatable:
            return Verdict.BYTES_LEFT
        if request_class.max_endpoints is not None and endpoints_used >= request_class.max_endpoints:
            return Verdict.ATTEMPTS_USED
    if endpoints_used >= settings.attempts:
        return Verdict.ATTEMPTS_USED
    return Verdict.AGAIN

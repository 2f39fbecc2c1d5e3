"""The plan of one call: events in, commands out.  The only place where the concerns are put in order.

Order, for every call: try an endpoint; settle a doubtful transaction by its hash before anything
else; deliver an answer; otherwise ask whether another endpoint may have the call (class, count),
whether there is time (deadline) and whether the route can afford it (retry budget); if not, say the
most useful thing that is known.

Always true, whatever the events: a plan ends in exactly one `Deliver` or `Fail`; no attempt is
launched after the deadline; a call that is not repeatable is never launched again once a byte of it
may have left; no more endpoints than the policy's limit may have received a byte of it.
The happy path does not come here: an answer to the first attempt is delivered at once
(upstream/calls/dispatch), which is what this machine would say; tests/policy/test_plan.py shows that.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.errors import AttemptsFailed, CallerLeft, DeadlinePassed, NoEndpoint, OutcomeUnknown
from gateway.model import Elsewhere, Outcome, ReplyKind, RequestClass, Sent, Shown
from gateway.policy.retry import LastAttempt, RetrySettings, Verdict, may_go_elsewhere

MIN_ATTEMPT_TIME = 0.005  # seconds; with less left, an attempt could only time out

# An answer came, and somebody else may know better: no failure, so no retry budget pays for it.
_DOUBTED = (ReplyKind.EMPTY, ReplyKind.ODD, ReplyKind.BEHIND, ReplyKind.UNCOVERED, ReplyKind.MISSING_DATA)
_UNREADABLE = (Outcome.FAILURE, Outcome.SOFT_FAILURE)  # a reply that counts so says nothing certain of the call


# --- events -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt ended.  `kind` is None when no readable answer came (then `failure` names why)."""

    endpoint: int
    sent: Sent
    kind: ReplyKind | None
    failure: str = ""
    has_error_object: bool = False


@dataclass(frozen=True, slots=True)
class NothingLeft:
    """The last `Launch` could not be carried out: no endpoint is left that may have the call.

    `free_after` is the time in seconds after which one may be free again, if known.
    """

    free_after: float | None = None


@dataclass(frozen=True, slots=True)
class LookedUp:
    """The answer to `LookUp`: True found, False certainly unknown everywhere, None could not find out."""

    found: bool | None


@dataclass(frozen=True, slots=True)
class CallerGone:
    """The caller closed its connection."""


Event = Ended | NothingLeft | LookedUp | CallerGone


# --- commands ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Try another endpoint than `used`, the last resort included if `last_resort`.

    `paid`: it is a retry, and the route's retry budget pays for it.  A second opinion on an answer that
    may be empty by mistake is not: being right is worth one call.
    `rouse`: a standby that sleeps may be asked.  Not for a second opinion on nothing: whoever polls for a
    receipt would keep it awake.
    """

    used: tuple[int, ...]
    last_resort: bool
    paid: bool = field(default=True, compare=False, repr=False)
    rouse: bool = field(default=True, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask by the locally computed hash whether the transaction is known, at several endpoints."""


@dataclass(frozen=True, slots=True)
class Deliver:
    """Give the caller what `shown` says of attempt number `attempt` (counted from 0)."""

    attempt: int
    shown: Shown


@dataclass(frozen=True, slots=True)
class Fail:
    """Give the caller a gateway error: `reason` is one of the closed reasons of gateway.errors."""

    reason: str
    because: Verdict
    retry_after: float | None = None


Command = Launch | LookUp | Deliver | Fail

TRIED_ALL = AttemptsFailed.reason
NO_ENDPOINT = NoEndpoint.reason
TOO_LATE = DeadlinePassed.reason
UNKNOWN_OUTCOME = OutcomeUnknown.reason
NOBODY = CallerLeft.reason


@dataclass(slots=True)
class Plan:
    """One call's state.  `deadline_at` is an instant; `used` the endpoints tried so far, in order."""

    request_class: RequestClass
    settings: RetrySettings
    deadline_at: float
    used: list[int] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)
    once_used: bool = False
    looked_up: bool = False
    finished: bool = False
    _pending_verdict: Verdict = Verdict.ATTEMPTS_USED

    def on(self, event: Event, now: float, budget_left: bool) -> Command:
        """The next command.  `budget_left` says whether the route's retry budget has one token.

        Raises RuntimeError when asked after the end: a finished plan has nothing to say.
        """
        if self.finished:
            raise RuntimeError("the plan has ended")
        if isinstance(event, Ended):
            command = self._after(event, now, budget_left)
        elif isinstance(event, LookedUp):
            command = self._after_look_up(event.found)
        elif isinstance(event, NothingLeft):
            command = self._last_word(Verdict.ATTEMPTS_USED, event.free_after)
        else:
            command = Fail(NOBODY, Verdict.ANSWERED)
        self.finished = isinstance(command, (Deliver, Fail))
        return command

    def _after(self, event: Ended, now: float, budget_left: bool) -> Command:
        self.ends.append(event)
        self.used.append(event.endpoint)
        kind = event.kind
        if kind is not None and kind.elsewhere is Elsewhere.NO:
            doubted = kind is ReplyKind.NONCE_TOO_LOW or self._may_be_pooled()
            if kind.shown is Shown.UPSTREAM_ERROR and self.request_class.looked_up and doubted:
                return LookUp()  # our own copy, from this attempt or an earlier one, may be why it says no
            return Deliver(len(self.ends) - 1, kind.shown)
        return self._go_on(event, now, budget_left)

    def _go_on(self, event: Ended, now: float, budget_left: bool) -> Command:
        elsewhere = event.kind.elsewhere if event.kind is not None else Elsewhere.YES
        verdict = may_go_elsewhere(
            self.request_class,
            LastAttempt(elsewhere, event.sent),
            endpoints_used=sum(1 for end in self.ends if end.sent is not Sent.NOT_SENT),
            once_used=self.once_used,
            settings=self.settings,
        )
        if verdict is Verdict.AGAIN and now + MIN_ATTEMPT_TIME >= self.deadline_at:
            verdict = Verdict.DEADLINE
        paid = event.kind not in _DOUBTED
        if verdict is Verdict.AGAIN and paid and not budget_left:
            verdict = Verdict.BUDGET
        if verdict is not Verdict.AGAIN:
            return self._last_word(verdict, None)
        if elsewhere is Elsewhere.ONCE:
            self.once_used = True
        return Launch(tuple(self.used), self.request_class.last_resort, paid, event.kind is not ReplyKind.EMPTY)

    def _after_look_up(self, found: bool | None) -> Command:
        self.looked_up = True
        if found:
            return Deliver(len(self.ends) - 1, Shown.TRANSACTION_HASH)
        last = self.ends[-1]
        if last.kind is not None and last.kind.elsewhere is Elsewhere.NO and (found is False or not self._in_doubt()):
            return Deliver(len(self.ends) - 1, last.kind.shown)
        return self._last_word(self._pending_verdict, None)

    def _last_word(self, verdict: Verdict, free_after: float | None) -> Command:
        """Nothing more will be tried: look a doubtful transaction up, else say the best that is known."""
        in_doubt = self._in_doubt()
        if self.request_class.looked_up and not self.looked_up and self._may_be_pooled():
            self._pending_verdict = verdict
            return LookUp()
        if in_doubt and self.request_class.write:
            return Fail(UNKNOWN_OUTCOME, verdict, free_after)
        for number in reversed(range(len(self.ends))):
            kind = self.ends[number].kind
            if kind is not None and kind.shown is Shown.ANSWER:
                return Deliver(number, Shown.ANSWER)  # nobody knew better
        for number in reversed(range(len(self.ends))):
            end = self.ends[number]
            if end.kind is not None and end.has_error_object and end.kind.shown is Shown.UPSTREAM_ERROR:
                return Deliver(number, Shown.UPSTREAM_ERROR)
        if not self.ends:
            return Fail(NO_ENDPOINT, verdict, free_after)
        if verdict is Verdict.DEADLINE:
            return Fail(TOO_LATE, verdict, free_after)
        return Fail(TRIED_ALL, verdict, free_after)

    def _in_doubt(self) -> bool:
        """An attempt's bytes left whole, and nothing readable said what became of them."""
        return any(
            end.sent in (Sent.SENT, Sent.ANSWERED)
            and (end.kind is None or (end.kind.counts in _UNREADABLE and not end.has_error_object))
            for end in self.ends
        )

    def _may_be_pooled(self) -> bool:
        """In doubt, or refused by an error that is none of the transaction's: it may be in a pool all the same."""
        return self._in_doubt() or any(end.kind is not None and end.kind.counts in _UNREADABLE for end in self.ends)

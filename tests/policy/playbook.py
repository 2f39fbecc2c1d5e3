"""Playbook: a plan's script, events and the commands they must bring, with a diff where they part.

    play(
        RequestClass.BROADCAST,
        lost(0), Launch((0,), False),
        At(9.999, lost(1)), LookUp(),
        LookedUp(False), Fail("outcome_unknown", Verdict.DEADLINE),
    )

Events and commands take turns.  The script must tell the whole story: one that ends before the plan
does is as wrong as one that the plan departs from.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model import ReplyKind, RequestClass, Sent
from gateway.policy.plan import Command, Ended, Event, Launch, LookedUp, NothingLeft, Plan
from gateway.policy.retry import RetrySettings

DEADLINE = 10.0


@dataclass(frozen=True, slots=True)
class At:
    """An event at another instant than 0, or without a token in the retry budget."""

    now: float
    event: Event
    budget: bool = True


def answered(endpoint: int, kind: ReplyKind, error: bool | None = None) -> Ended:
    """A readable reply.  Unless said otherwise, all but answers come as an error object."""
    has_error = kind not in (ReplyKind.ANSWER, ReplyKind.BAD_REPLY) if error is None else error
    return Ended(endpoint, Sent.ANSWERED, kind, kind.value, has_error)


def lost(endpoint: int, sent: Sent = Sent.SENT) -> Ended:
    """No readable reply; `sent` says how far the request got."""
    return Ended(endpoint, sent, None, "connect_failed" if sent is Sent.NOT_SENT else "connection_lost")


def play(
    request_class: RequestClass, *script: Event | At | Command, attempts: int = 3, deadline_at: float = DEADLINE
) -> None:
    """Play the script from a first attempt on.  Raises AssertionError with the script and where it was left."""
    plan = Plan(request_class, RetrySettings(attempts=attempts), deadline_at)
    events, commands = script[::2], script[1::2]
    if len(events) != len(commands):
        raise AssertionError("a script is pairs of an event and a command; its last event has no command")
    told = []
    for number, (step, expected) in enumerate(zip(events, commands, strict=True), 1):
        turn = step if isinstance(step, At) else At(0.0, step)  # type: ignore[arg-type]
        told.append(f"  {number}. {_said(turn)}")
        came = plan.on(turn.event, turn.now, turn.budget)
        if came != expected:
            told += [f"       expected  {expected}", f"       came      {came}"]
            raise AssertionError("\n".join([f"the plan of a {request_class.value} left its script:", *told]))
        told.append(f"       {came}")
    if not plan.finished:
        raise AssertionError("\n".join(["the script ends and the plan does not:", *told]))


def last_word(request_class: RequestClass, kind: ReplyKind, error: bool) -> str:
    """How a call ends when every endpoint says the same and looking up finds nothing out.

    Told as the number of endpoints, `?` if the transaction was looked up, and the last word.
    """
    plan = Plan(request_class, RetrySettings(attempts=3), DEADLINE)
    command: Command = Launch((), request_class.last_resort)
    looked_up = ""
    while not plan.finished:
        if isinstance(command, Launch):
            assert len(plan.ends) < 10, "the plan does not end"
            command = plan.on(answered(len(plan.ends), kind, error), 0.0, True)
        else:
            assert not looked_up, "looked up twice"
            looked_up = "?"
            command = plan.on(LookedUp(None), 0.0, True)
    word = getattr(command, "reason", None) or command.shown.value  # type: ignore[union-attr]
    return f"{len(plan.ends)}{looked_up} {word}"


def _said(turn: At) -> str:
    event = turn.event
    if isinstance(event, Ended):
        words = f"endpoint {event.endpoint}: {event.failure} ({event.sent.value})"
    elif isinstance(event, LookedUp):
        words = f"looked up: {event.found}"
    elif isinstance(event, NothingLeft):
        words = "no endpoint is left"
    else:
        words = "the caller is gone"
    return f"at {turn.now:g} s, {words}" + ("" if turn.budget else ", without budget")

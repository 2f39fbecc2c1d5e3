"""Halts: the chain itself stands still, and nobody is to blame for it.

Always true: a halt is told only of a chain that somebody believable has spoken of lately and once a block
was due, without a new one; a pause that is usual on a chain is none.
What is usual depends on how blocks come.  By the clock, three block times without one are strange.  By
chance (proof of work), one gap in twenty is longer than that, so it takes 16 block times: one in e**16, nine
million.  On demand, every pause is usual, unless the last blocks came at a pace.
Does not belong here: who is believed (policy/heads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.model import Rhythm
from gateway.policy.rises import Rises
from gateway.policy.voices import Voice

BY_CHANCE = 16 / 3  # times as long where blocks come by chance
SHOWN_BY = 3  # rises at its pace by which a chain whose blocks come on demand shows that it has one


@dataclass(frozen=True, slots=True)
class Pace:
    """How a chain's blocks come; seconds.

    `block_time` is the usual time between two, `still` the time after which one that is due by the clock is
    missed, `polled` the time between two polls of an endpoint.
    """

    rhythm: Rhythm
    block_time: float
    still: float
    polled: float


def halted_since(pace: Pace, believed: Sequence[Voice], risen_at: float, rises: Rises, now: float) -> float | None:
    """The instant of the last new block when the chain stands still; None when it moves or nobody says.

    `risen_at` is when the newest block last rose, `believed` are those who may speak of it.
    """
    span = pace.still * (BY_CHANCE if pace.rhythm is Rhythm.CHANCE else 1.0)
    if now - risen_at < span:
        return None
    last = max([risen_at, *(voice.rose_at for voice in believed)])
    if now - last < span:
        return None
    if pace.rhythm is Rhythm.DEMAND and not rises.at_pace(SHOWN_BY, pace.block_time, pace.polled):
        return None
    due = last + max(0.0, span - pace.polled)  # polls come at a pace, too, and rarely on an idle route
    heard_within = max(span, 2.0 * pace.polled)
    spoken = any(voice.heard_at >= due and now - voice.heard_at <= heard_within for voice in believed)
    return last if spoken else None

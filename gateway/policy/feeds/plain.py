"""The feed of anything else: passed through from one source, each event once, and never back.

Always true: an event that one source told is not told again because another one says it too; the newest
word of a state never gives way to an older one; when the last source is lost, the next one is followed by
a refresh where one call shows the state, and otherwise by a notice that events may be lost; the same when a
source takes over while the old one still tells, unless their events can be told apart, so that both are
heard and nothing is lost; when there is no next one for long, that is said, too; what is remembered is bounded.
Does not belong here: blocks (heads), logs (logs), what an event says (dialect).
"""

from __future__ import annotations

from typing import Literal

from gateway.events import FeedKind

LONGEST_SILENCE = 30.0  # seconds without a source after which callers are told that there is none
STILL_FOR = 5.0  # seconds and as many blocks, at least, without a word from a source that speaks at every block
REFRESH = 0  # the number under which the answer of a refresh is an event


class PlainFeed:
    """See the module.  At most `memory` events are remembered, by their identity."""

    __slots__ = (
        "_head", "_heard_at", "_kind", "_memory", "_named", "_place", "_said", "_sources", "_speaker", "_taken_over",
        "_told", "_torn", "_torn_at",
    )  # fmt: skip

    def __init__(self, kind: FeedKind, memory: int = 4096) -> None:
        self._kind = kind
        self._memory = memory
        self._said: dict[bytes, int] = {}  # identity -> the source that said it last
        self._sources: set[int] = set()
        self._speaker = REFRESH  # the source that joined last
        self._named = False  # events have had an identity
        self._taken_over = False  # it joined while another one tells, and nothing was done about it yet
        self._place = -1
        self._told = False
        self._torn = False  # the last source was lost, and nothing was done about it yet
        self._torn_at: float | None = None  # when, until callers were told that there is none
        self._heard_at = 0.0  # when a source joined or spoke, and where the chain was
        self._head = -1

    def joined(self, source: int, now: float) -> None:
        """A source's subscription was acknowledged."""
        self._taken_over = bool(self._sources)
        self._sources.add(source)
        self._speaker = source

    def left(self, source: int, now: float) -> None:
        """A source is gone."""
        if source in self._sources:
            self._sources.discard(source)
            self._torn = self._torn or not self._sources
            self._torn_at = now if not self._sources else None

    def abandoned(self, now: float) -> bool:
        """Has there been no source for so long that callers must know?  True once for each time."""
        if self._sources or self._torn_at is None or now - self._torn_at < LONGEST_SILENCE:
            return False
        self._torn_at = None
        return not (self._kind is FeedKind.ONCE and self._told)

    def heard(self, head: int, now: float) -> None:
        """A source joined or spoke.  `head` is the newest block that is known of, -1 for none."""
        self._head, self._heard_at = head, now

    def stands_still(self, head: int, block_time: float, now: float) -> bool:
        """Is the source of what comes with every block silent although the chain goes on?"""
        patience = max(STILL_FOR, STILL_FOR * block_time)
        if self._head < 0:
            self._head = head
        return now - self._heard_at > patience and head - self._head >= STILL_FOR

    def switched(self, now: float) -> Literal["refresh", "notice"] | None:
        """A source took over: ask for the state anew, tell callers that events may be lost, or nothing."""
        seamless = self._named and self._kind is not FeedKind.ONCE
        due = self._torn or (self._taken_over and not seamless)
        self._taken_over = False
        if not due or (self._kind is FeedKind.ONCE and self._told):
            return None
        self._torn = False
        return "refresh" if self._kind in (FeedKind.NEWEST, FeedKind.ONCE) else "notice"

    def event(self, source: int, raw: bytes, identity: bytes, place: int) -> bool:
        """Is this event to be told?

        `source` is REFRESH for what a refresh brought.  `identity` is the same for the same event of
        any source, empty when unknown; an event that its own source repeats is told, because it says so
        twice.  `place` is a number that does not fall, like a slot; -1 when unknown.
        """
        if self._kind is FeedKind.ONCE and self._told:
            return False
        if self._kind is FeedKind.NEWEST and 0 <= place < self._place:
            return False
        self._named = bool(identity)
        if identity and self._said_by_another(identity, source):
            return False
        if not identity and self._kind is not FeedKind.ONCE and source not in (self._speaker, REFRESH):
            return False  # whether its successor tells the same cannot be known
        self._place = max(self._place, place)
        self._told = True
        return True

    def _said_by_another(self, identity: bytes, source: int) -> bool:
        """Note who said this; whether somebody else had."""
        before = self._said.pop(identity, source)
        self._said[identity] = source
        if len(self._said) > self._memory:
            del self._said[next(iter(self._said))]
        return before != source

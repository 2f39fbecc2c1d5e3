"""A shared topic: one subscription, who listens to it, and what is kept for who joins late.

Always true: what is kept begins with the exchange's snapshot, or is the newest message where that is the whole state,
and never takes more than `REPLAYED_BYTES`; what has grown too large is said to be too large, never cut.
Does not belong here: lines and what follows from their messages (venues/topics).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Items
from typing import Protocol

from gateway.dialect.venue_facts import Topics
from gateway.policy.sequences import Fit, Place, Rule, Sequence
from gateway.upstream.venues.line import Line

REPLAYED = 2000  # messages since a snapshot that are kept for who joins late
REPLAYED_BYTES = 4_000_000
SERIES = 10**12  # numbers for the messages of one subscription, where the exchange has none


class Message:
    """One message, as it is sent to many: each variant's frame is made once."""

    __slots__ = ("data", "frames")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.frames: dict[bool, bytes] = {}


class Listener(Protocol):
    """A caller's socket."""

    def told(self, message: Message) -> None:
        """A message of a topic it listens to."""

    def lost(self, topic: str) -> None:
        """Messages of a topic were lost and cannot be had again: it must start anew."""

    def refused(self, topic: str, data: bytes) -> None:
        """The exchange will not tell of a topic; `data` are its words."""


class Topic:
    """One subscription.  `line` is where it lives; `next_line` is to take over, and `fresh` what that one has told.

    `held` are messages ahead of what was told, by number; `waiting` are listeners for whom a snapshot is on its way.
    """

    __slots__ = (
        "_counted", "_series", "_size", "fresh", "fresh_last", "fresh_since", "held", "held_since", "idle_since", "key",
        "kind", "line", "listeners", "next_line", "olds", "replay", "sequence", "steady", "waiting",
    )  # fmt: skip

    def __init__(self, key: str, kind: Topics, now: float) -> None:
        self.key = key
        self.kind = kind
        self.sequence = Sequence(Rule(kind.rule))
        self.listeners: dict[Listener, None] = {}
        self.waiting: list[Listener] = []
        self.line: Line | None = None
        self.next_line: Line | None = None
        self.fresh: list[Message] | None = None
        self.fresh_last = 0
        self.fresh_since = 0.0
        self.held: dict[int, tuple[Place, Message]] = {}
        self.held_since = 0.0
        self.steady = False  # its line has told something that fits
        self.olds = 0  # messages in a row that were older than what was told
        self.idle_since = now
        self.replay: deque[Message] | None = deque()  # None: grown too large
        self._size = 0
        self._series = 0
        self._counted: dict[Line, int] = {}

    @property
    def has_snapshots(self) -> bool:
        """A new subscription begins with the state as a whole."""
        return bool(self.kind.snapshot)

    @property
    def is_counted(self) -> bool:
        """Its messages have no numbers: two of its subscriptions cannot be compared."""
        return self.sequence.rule is Rule.LINE

    def place_of(self, line: Line, numbers: tuple[int, int, int | None, bool] | None) -> Place | None:
        """Where a message stands; None: nowhere.

        What has no numbers is counted: each snapshot begins a series that is behind no other, so that nothing of one
        subscription ever follows on what another one told.
        """
        if numbers is None or not self.is_counted:
            return Place(*numbers) if numbers is not None else None
        snapshot = numbers[3]
        if snapshot:
            self._series += SERIES
            self._counted = {
                other: last for other, last in self._counted.items() if other in (self.line, self.next_line)
            }
        elif line not in self._counted:
            return None  # of the subscription before
        last = self._series if snapshot else self._counted[line] + 1
        self._counted[line] = last
        return Place(last, last, None, snapshot)

    def freshen(self, place: Place, message: Message, now: float) -> None:
        """The line that is to take over begins with this snapshot."""
        self.fresh, self.fresh_last, self.fresh_since = [message], place.last, now

    def keeps_fresh(self, place: Place, message: Message) -> bool:
        """Add what that line tells; False: it does not follow on what it told before."""
        if self.fresh is None:
            return False
        own = Sequence(self.sequence.rule)
        own.last = self.fresh_last
        fit = own.judge(place)
        if fit is Fit.NEXT:
            self.fresh.append(message)
            self.fresh_last = place.last
        return fit is not Fit.GAP

    def keep(self, message: Message) -> None:
        """Keep what who joins late needs: all since the snapshot, or the newest."""
        if self.kind.begins:
            self.replay = deque((message,))
        elif self.has_snapshots and self.replay is not None:
            self.replay.append(message)
            self._size += len(message.data)
            if len(self.replay) > REPLAYED or self._size > REPLAYED_BYTES:
                self.replay = None

    def keep_from(self, messages: Items[Message]) -> None:
        """Begin anew with these."""
        self.replay = deque(messages)
        self._size = sum(len(message.data) for message in messages)

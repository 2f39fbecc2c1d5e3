"""What each source of heads said last, and which of them fell silent.

Always true: a source is silent when it has not said, for longer than two block times and two seconds,
a block that others had at least two blocks ahead of it; lagging by a steady moment is not silence.
Does not belong here: what follows from a silence (heads tells it, upstream replaces the source).
"""

from __future__ import annotations

BEHIND = 2  # blocks that others are ahead before the time of a silence begins
SHORTEST_SILENCE = 2.0  # seconds


class Voice:
    """What one source said: its last number and hash, and when.

    `owes` is a number that it should say because others had it at `owes_since`; -1 for none.
    `doubted`: it said what nobody else knew, and counts for nothing but children of the tip.
    """

    __slots__ = ("doubted", "last", "owes", "owes_since", "said", "said_at")

    def __init__(self, number: int, now: float) -> None:
        self.said = number
        self.said_at = now
        self.last = ""
        self.owes = -1
        self.owes_since = now
        self.doubted = False


class Voices:
    """The sources of one feed of heads, by their number.  `known` is the newest block that others have."""

    __slots__ = ("_voices",)

    def __init__(self) -> None:
        self._voices: dict[int, Voice] = {}

    def __bool__(self) -> bool:
        return bool(self._voices)

    def joined(self, source: int, known: int, now: float) -> None:
        """It begins as one that knows what is known."""
        self._voices[source] = Voice(known, now)

    def left(self, source: int) -> None:
        self._voices.pop(source, None)

    def get(self, source: int) -> Voice | None:
        return self._voices.get(source)

    def said(self, source: int, number: int, block: str, now: float) -> str:
        """A source said a block.  Returns the hash that it said before."""
        voice = self._voices.setdefault(source, Voice(number, now))
        before, voice.last, voice.said, voice.said_at = voice.last, block, number, now
        return before

    def highest(self, apart_from: int, since: float) -> int:
        """The highest number that one of the others said last, if it spoke since then; -1 when none did."""
        return max(
            (
                voice.said
                for source, voice in self._voices.items()
                if source != apart_from and voice.said_at >= since and not voice.doubted
            ),
            default=-1,
        )

    def silent(self, known: int, block_time: float, now: float) -> list[int]:
        """Sources that are silent.  Named again after as long once more, should they not be replaced."""
        patience = max(2 * block_time, SHORTEST_SILENCE)
        found = []
        for source, voice in self._voices.items():
            if voice.said >= voice.owes:
                voice.owes = -1
            if voice.owes < 0:
                if known - voice.said >= BEHIND:
                    voice.owes, voice.owes_since = known - BEHIND + 1, now
            elif now - voice.owes_since > patience:
                voice.owes_since = now
                found.append(source)
        return found


class Polls:
    """What polls say is the newest block: `number` since `since`, and above the tip told since `above_since`.

    It does not fall; a number that nobody has repeated for `forget_after` seconds is forgotten.
    """

    __slots__ = ("_forget_after", "_other", "_said_at", "above_since", "number", "since")

    def __init__(self, forget_after: float, now: float) -> None:
        self._forget_after = forget_after
        self._said_at = now
        self._other = (-1, "", now)
        self.number = -1
        self.since = now
        self.above_since = now

    def said(self, number: int, tip: int, now: float) -> None:
        """Polls say this number."""
        if number < self.number:
            return
        if self.number <= tip < number or self.number < 0:
            self.above_since = now
        if number != self.number:
            self.number, self.since = number, now
        self._said_at = now

    def highest(self, since: float) -> int:
        """The number, if it was said since then; else -1."""
        return self.number if self._said_at >= since else -1

    def expire(self, now: float) -> None:
        """Forget what nobody has repeated for long."""
        if now - self._said_at > self._forget_after:
            self.number = -1

    def settled(self) -> None:
        """The tip moved: what is above it now has been so only since it was first said."""
        self.above_since = self.since

    def mistaken(self) -> None:
        """That number is of a block which was abandoned."""
        self.number = -1

    def agree(self) -> None:
        """Polls say a block that was told."""
        self._other = (-1, "", 0.0)

    def persist(self, number: int, block: str, patience: float, now: float) -> bool:
        """Polls say a block that was not told, where another was.  True each time they have for `patience` seconds."""
        same = self._other[:2] == (number, block)
        if same and now - self._other[2] < patience:
            return False
        self._other = (number, block, now)
        return same

"""When the newest block of a chain rose to what: the last few rises.

Always true: at most `KEPT` rises are remembered, in the order in which they came.
It answers two questions about an endpoint that is behind: since when, and was it behind already when it
last spoke, or is it only that nobody has asked it since.
Does not belong here: which rises are believed (policy/heads).
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

KEPT = 64


class Rises:
    """Numbers and the instants (monotonic seconds) at which they became the newest."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: deque[tuple[int, float]] = deque(maxlen=KEPT)

    def __len__(self) -> int:
        return len(self._kept)

    def note(self, number: int, now: float) -> None:
        """It rose to `number`."""
        self._kept.append((number, now))

    def restart(self, number: int, now: float) -> None:
        """The chain was reset to `number`."""
        self._kept.clear()
        self._kept.append((number, now))

    def newest_at(self, instant: float) -> int:
        """The newest block at that instant, or the oldest remembered if it was before; -1: none is."""
        for number, at in reversed(self._kept):
            if at <= instant:
                return number
        return self._kept[0][0] if self._kept else -1

    def at_pace(self, rises: int, block_time: float, slack: float) -> bool:
        """The last so many rises came at about this pace, in seconds: none much later; `slack` is for polls."""
        last = [*self._kept][-rises:]
        return len(last) == rises and all(
            later - at <= 2.0 * block_time * (newer - number) + slack for (number, at), (newer, later) in pairwise(last)
        )

    def passed_at(self, number: int) -> tuple[float, bool] | None:
        """Since when the newest block is beyond `number`, and False when that may be longer ago; None: it is not."""
        found = None
        for newest, at in reversed(self._kept):
            if newest <= number:
                return None if found is None else (found, True)
            found = at
        return None if found is None else (found, False)

"""The lines of shared streams: no more of them than their topics need, beside those that are being replaced.

Always true: a line that is to go gets no new topics; one that nobody needs any more is closed.
Does not belong here: what is on a line (venues/topics), and how it lives (venues/line).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from gateway.upstream.venues.line import Line
from gateway.upstream.venues.streams import StreamHost


class Lines:
    """Opens and closes lines; `most` topics fit on one."""

    def __init__(self, make: Callable[[], Line], most: int) -> None:
        self._make = make
        self._most = most
        self._lines: dict[Line, None] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Line]:
        return iter(tuple(self._lines))

    def open(self, apart: StreamHost | None = None) -> Line:
        """A new one, to another domain than `apart` if possible."""
        line = self._make()
        self._lines[line] = None
        line.start(apart)
        return line

    def end(self, line: Line) -> None:
        line.close()
        self.forget(line)

    def forget(self, line: Line) -> None:
        """It has ended by itself."""
        self._lines.pop(line, None)

    def end_idle(self) -> None:
        """Close those on which nothing is wanted."""
        for line in self:
            if line.open and not line.topics:
                self.end(line)

    def with_room(self, but: tuple[Line | None, ...], apart: StreamHost | None) -> Line:
        """One for a topic that is on none of `but`: with room, and quick to be asked; or a new one."""
        for line in self._lines:
            if line.leaving or line in but or len(line.topics) >= self._most or not line.quick:
                continue
            if apart is None or line.host is not apart or line.open:
                return line
        return self.open(apart)

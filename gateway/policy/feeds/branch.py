"""The branch that callers were told, and the shelf of headers that they were not.

Always true: a `Branch` holds at most `memory` headers, and from its root on they are each other's parents
and children without a hole; a `Shelf` holds at most `limit` headers and forgets the one that lies there longest.
A header that lies on the shelf after it was told and abandoned is marked, because it must not be told
again just because a slow source comes and says it.
Does not belong here: which header is told, and when (heads).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from gateway.events import Header


class Branch:
    """The newest headers told, oldest first, one per number.

    `root` is the oldest header of the unbroken run that ends at `tip`; what lies below a gap before it
    is remembered, too, because it may be abandoned.  `rooted`: the root is the first header that callers
    ever were told, so they know nothing below it.
    """

    __slots__ = ("_at", "_memory", "root", "rooted", "tip")

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._at: dict[int, Header] = {}
        self.root: Header | None = None
        self.tip: Header | None = None
        self.rooted = True

    def run(self) -> tuple[Header, ...]:
        """The headers from the root to the tip."""
        root = self.root
        return tuple(header for header in self._at.values() if root is not None and header.number >= root.number)

    def holds(self, number: int, block: str) -> bool:
        """Was this block told, and not abandoned?"""
        header = self._at.get(number)
        return header is not None and header.hash == block

    def links(self, header: Header) -> bool:
        """Is its parent on the branch?  The parent of the root counts: it is known by its hash."""
        below = self._at.get(header.number - 1)
        if below is not None:
            return below.hash == header.parent
        return self.root is not None and header.number == self.root.number and header.parent == self.root.parent

    def above(self, number: int) -> tuple[Header, ...]:
        """The headers above this number, newest first."""
        return tuple(takewhile(lambda header: header.number > number, reversed(self._at.values())))

    def cut(self, number: int) -> None:
        """Forget the headers above this number.  Those below stay, if there are any."""
        for header in self.above(number):
            del self._at[header.number]
        self.tip = next(reversed(self._at.values()), None)
        if self.root is not None and self.root.number > number:
            self.root = None

    def tear(self) -> None:
        """There is a gap before the next header."""
        self.root = None
        self.rooted = False

    def grow(self, header: Header) -> None:
        """The next header was told."""
        self._at[header.number] = self.tip = header
        if self.root is None:
            self.root = header
        if len(self._at) > self._memory:
            oldest = next(iter(self._at.values()))
            del self._at[oldest.number]
            if oldest is self.root:
                self.root = next(iter(self._at.values()))
            self.rooted = False


class Shelved:
    """One header on the shelf.

    `late`: it was fetched and no source has pushed it.  `source`: who said it first, 0 for nobody.
    `dropped`: it was told and abandoned.  `instead`: the tip that it may replace although it is no
    higher; empty when it may not.  `failures`: fetches for the way to it that brought nothing.
    """

    __slots__ = ("dropped", "failures", "header", "instead", "late", "source")

    def __init__(self, header: Header, late: bool, source: int = 0, dropped: bool = False) -> None:
        self.header = header
        self.late = late
        self.source = source
        self.dropped = dropped
        self.instead = ""
        self.failures = 0


class Shelf:
    """Headers that are not told, by hash."""

    __slots__ = ("_held", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[str, Shelved] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Shelved]:
        return iter(self._held.values())

    def get(self, block: str) -> Shelved | None:
        return self._held.get(block)

    def put(self, header: Header, late: bool, source: int = 0, dropped: bool = False) -> Shelved:
        """Lay it there.  What is known of it stays; a fetched header is believed rather than a pushed one."""
        held = self._held.get(header.hash)
        if held is None:
            held = self._held[header.hash] = Shelved(header, late, source, dropped)
            if len(self._held) > self._limit:
                del self._held[next(iter(self._held))]
        elif late:
            held.header = header
        else:
            held.late = False
            held.source = held.source or source
        held.dropped = held.dropped or dropped
        return held

    def take(self, block: str) -> Shelved | None:
        """Take it off."""
        return self._held.pop(block, None)

    def sweep(self, below: int) -> None:
        """Forget headers below this number."""
        for block in [block for block, held in self._held.items() if held.header.number < below]:
            del self._held[block]

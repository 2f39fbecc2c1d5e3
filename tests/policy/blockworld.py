"""Blockworld: a tree of blocks, nodes that follow it, sources that push and fetches that lie, for the feeds.

Nothing here knows a feed.  A node is at one block and jumps; like a real one it then announces every
block from the common ancestor up.  Time is a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from gateway.events import Header

START = 100


class Tree:
    """All blocks that ever were.  `best` is the tip that every healthy node ends at."""

    def __init__(self, length: int = 5, name: str = "") -> None:
        self.headers: dict[str, Header] = {}
        self._count = 0
        self._name = name
        self.best = self._made(START, f"{name}root")
        for _ in range(length - 1):
            self.grow()

    def _made(self, number: int, parent: str) -> Header:
        self._count += 1
        header = Header(number, f"{self._name}{number}-{self._count}", parent)
        self.headers[header.hash] = header
        return header

    def child(self, of: Header) -> Header:
        return self._made(of.number + 1, of.hash)

    def grow(self, count: int = 1) -> None:
        for _ in range(count):
            self.best = self.child(self.best)

    def reorganise(self, depth: int, longer: int = 1) -> None:
        """Replace the newest `depth` blocks by `longer` more."""
        depth = min(depth, self.best.number - START)
        tip = self.ancestor(self.best, self.best.number - depth)
        for _ in range(depth + longer):
            tip = self.child(tip)
        self.best = tip

    def ancestor(self, of: Header, number: int) -> Header:
        while of.number > number:
            of = self.headers[of.parent]
        return of

    def line(self, tip: Header, low: int = START) -> list[Header]:
        """The blocks from `low` up to this one."""
        found = [tip]
        while found[-1].number > low and found[-1].parent in self.headers:
            found.append(self.headers[found[-1].parent])
        return found[::-1]

    def between(self, old: Header, new: Header) -> list[Header]:
        """What a node announces that goes from one to the other."""
        known = {header.hash for header in self.line(old)}
        fresh = [new]
        while fresh[-1].parent in self.headers and fresh[-1].parent not in known:
            fresh.append(self.headers[fresh[-1].parent])
        return [] if new.hash in known else fresh[::-1]

    def by_number(self, tip: Header, low: int, high: int) -> list[Header]:
        """What a node at this tip answers."""
        return [header for header in self.line(tip) if low <= header.number <= high]


@dataclass
class Node:
    """One node: where it is, and what it has not yet announced."""

    at: Header
    queue: list[Header] = field(default_factory=list)
    announced: list[Header] = field(default_factory=list)

    def go(self, tree: Tree, to: Header) -> None:
        self.queue += tree.between(self.at, to)
        self.at = to


def damaged(answer: Sequence[Header], chance: Random) -> list[Header]:
    """Part of an answer, in any order."""
    kept = [header for header in answer if chance.random() < 0.7]
    chance.shuffle(kept)
    return kept

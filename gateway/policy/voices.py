"""What one endpoint said about its newest block, and how steadily.

Always true: a few numbers per endpoint, whatever it says and however often; progress is counted from
the highest word, so that a balancer's to and fro between two machines is none.
Apart from policy/heads because it judges one endpoint by itself, never against others.
Does not belong here: whether a word is believed, or whose word it is that others are compared with.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from gateway.model import HeadReport


class Voice:
    """What one endpoint said, and how steadily."""

    __slots__ = (
        "_lows", "_stepped_back_at", "age", "asked_at", "block_hash", "final", "floor", "heard_at", "highest", "live",
        "lost", "number", "position", "rose_at", "run_from", "run_since", "safe", "unanswered_since",
        "voter",
    )  # fmt: skip

    def __init__(self, position: int, voter: str) -> None:
        self.position = position
        self.voter = voter
        self.live = False  # its word counts
        self.lost = False  # it was taken out, and has not spoken since
        self.number = -1  # its newest word
        self.block_hash = ""
        self.age: float | None = None  # of that block when it was said, by its timestamp
        self.heard_at = -inf
        self.asked_at = -inf
        self.unanswered_since = inf  # when it was first asked after its last word; infinity: it answered
        self.highest = -1  # a balancer's to and fro is no progress
        self.rose_at = -inf
        self.run_from = -1  # from where, and since when, it has moved without a jump
        self.run_since = -inf
        self.floor = -1  # what every machine behind it is believed to have
        self._lows = (-1, -1, -inf)  # lowest word of the period before, of this one, and this one's begin
        self._stepped_back_at = -inf
        self.final = -1
        self.safe = -1

    def ask(self, now: float) -> None:
        """It was asked."""
        self.asked_at = now
        self.unanswered_since = min(self.unanswered_since, now)

    def repeat(self, age: float | None, now: float) -> None:
        """It said the same again."""
        self.heard_at, self.unanswered_since = now, inf
        self.age = self.age if age is None else age

    def hear(self, report: HeadReport, age: float | None, speed: float, slack: int, now: float) -> None:
        """Take a word.  `speed` is in blocks per second; by more, and `slack` blocks, it jumped."""
        number = report.number
        strayed = not self.run_from <= number <= self.run_from + speed * (now - self.run_since) + slack
        if not self.live or strayed:
            self.run_from, self.run_since = number, now
        if number > self.highest:
            self.highest, self.rose_at = number, now
        if self.live and number < self.number:
            self._stepped_back_at = now
        self.number, self.block_hash, self.age, self.heard_at = number, report.hash, age, now
        self.live, self.lost = True, False
        self.unanswered_since = inf

    def settle_floor(self, memory: float, now: float) -> None:
        """Judge by its lowest word of the last one to two `memory` seconds if it stepped back within them."""
        before, low, since = self._lows
        if now - since > memory:
            before, low, since = (low if now - since <= 2 * memory else self.number), self.number, now
        self._lows = before, min(low, self.number), since
        shaky = now - self._stepped_back_at <= memory
        self.floor = min(self._lows[:2]) if shaky else self.number

    def restart(self, believed: int) -> None:
        """The chain was reset to the height `believed`: what it said before is about another one."""
        self.highest = self.number
        self.floor = self.number if self.live and self.number <= believed else -1
        self._lows = (self.floor, self.floor, -inf)
        self.final = self.safe = -1


def reached(said: Iterable[tuple[str, int]]) -> int:
    """The highest of the heights that two voters have reached, or the only one who speaks at all; -1: none."""
    best: dict[str, int] = {}
    for voter, height in said:
        best[voter] = max(height, best.get(voter, -1))
    ranked = sorted(best.values(), reverse=True)
    return ranked[min(1, len(ranked) - 1)] if ranked else -1

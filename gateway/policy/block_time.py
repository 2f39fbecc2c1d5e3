"""The time between two blocks of one chain, learned from how its newest block rises.

Always true: the time stays within `BOUNDS`; one rise, however strange, moves it by a bounded part, so
a halt does not teach a slow chain and a burst does not teach a fast one; three floats of memory.
It is the clock of everything said about heads: how often to ask, how many blocks behind is late, and
how far a head can plausibly have come.
Does not belong here: which rises are to be believed (policy/heads).
"""

from __future__ import annotations

UNKNOWN = 2.0  # s; most rollups are at or below it
BOUNDS = (0.05, 3600.0)  # s
PRIOR_BLOCKS = 8.0  # weight of the time told at the start; without one, so many blocks are needed to know it
FORGETTING = 0.98  # per block: the last fifty blocks make the time
STRANGE_GAP = 4.0  # block times; a longer gap teaches no more than this
STRANGE_BURST = 16.0  # a burst of blocks teaches no less than this part of the block time


class BlockTime:
    """The block time in `seconds`, and whether it has been learned from this chain or told for it."""

    __slots__ = ("_learned", "_weight", "seconds")

    def __init__(self, told: float | None) -> None:
        """`told`: what is known of the chain, in seconds; None or 0: nothing."""
        low, high = BOUNDS
        self.seconds = min(max(told or UNKNOWN, low), high)
        self._weight = PRIOR_BLOCKS if told else 0.0
        self._learned = PRIOR_BLOCKS if told else 0.0

    @property
    def known(self) -> bool:
        """False while it is only a guess."""
        return self._learned >= PRIOR_BLOCKS

    @property
    def shortest(self) -> float:
        """The shortest that it can be, as far as is known: seconds."""
        return self.seconds if self.known else BOUNDS[0]

    def learn(self, blocks: int, after: float) -> None:
        """The newest block rose by `blocks` in `after` seconds."""
        counted = min(float(blocks), PRIOR_BLOCKS)
        per_block = min(max(after / blocks, self.seconds / STRANGE_BURST), self.seconds * STRANGE_GAP)
        kept = self._weight * FORGETTING**counted
        self._weight = kept + counted
        self._learned = min(self._learned + counted, PRIOR_BLOCKS)
        low, high = BOUNDS
        self.seconds = min(max((kept * self.seconds + counted * per_block) / self._weight, low), high)

"""Which endpoints are on another branch of the chain, told from the hashes that they say.

Always true: one differing block at the tip accuses nobody; an endpoint whose newest comparable block
agrees is not on another branch, whatever it said before; a tie refuses nobody; at most `HEIGHTS`
heights are kept, one hash per height and endpoint, whatever is reported.

Two endpoints are compared at the heights for which both gave a hash, from the newest down: a block's
hash fixes all blocks below it, so the newest common height alone can acquit, and so many differing
heights in a row convict.  A reorganisation of one or two blocks is daily life (the tip is a race), one
of three or more is a client fault or a split network.  Two finalized blocks of one height with
different hashes are a split at once.
Who is right is counted by voters, not by endpoints: ten URLs of one provider are one opinion.
Does not belong here: how high anyone is (policy/heads), or what is done with a forked endpoint.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

HEIGHTS = 64  # two epochs of Ethereum; deeper differences show in the finalized block
LONGEST_HASH = 80  # characters kept of a hash: 64 hex digits with 0x, or base58, and some room


@dataclass(frozen=True, slots=True)
class Split:
    """Evidence that endpoints follow different branches.

    `height` is the block number at which most of them can be compared, `branches` maps each hash said
    there to the positions that said it, `minority` holds the positions that a majority of voters
    contradicts (empty: a tie, nobody is refused).
    """

    height: int
    branches: Mapping[str, tuple[int, ...]]
    minority: frozenset[int] = frozenset()


class Branches:
    """The ring of hashes of one route, and the verdict on it.

    Owns no clock and knows no heads: the caller only hands over heights that it believes.
    """

    __slots__ = ("_depth", "_finals", "_heights", "_newest", "_suspicious", "_voters")

    def __init__(self, depth: int, voters: Sequence[str]) -> None:
        """`depth`: differing heights in a row that convict; `voters[i]`: whose voice position i is."""
        self._depth = depth
        self._voters = tuple(voters)
        self._heights: dict[int, dict[int, str]] = {}
        self._finals: dict[int, tuple[int, str]] = {}
        self._newest = -1
        self._suspicious: set[int] = set()  # heights with more than one hash: empty nearly always

    @property
    def size(self) -> int:
        """Hashes kept."""
        return sum(len(said) for said in self._heights.values())

    def saw(self, position: int, number: int, block_hash: str, parent: str = "") -> bool:
        """Note one endpoint's word about a block and its parent.  True when something new was learned.

        A word that contradicts what the same endpoint said takes back what it said above: it has
        changed to another branch.
        """
        if number <= self._newest - HEIGHTS or not (block_hash or parent):
            return False
        learned = self._note(position, number - 1, parent) if parent and number > 0 else False
        if block_hash:
            learned = self._note(position, number, block_hash) or learned
        return learned

    def sealed(self, position: int, number: int, block_hash: str) -> None:
        """Note the newest finalized block of an endpoint."""
        if block_hash:
            self._finals[position] = (number, block_hash[:LONGEST_HASH])

    def forget(self, position: int) -> None:
        """It no longer takes part."""
        self._finals.pop(position, None)
        for number, said in self._heights.items():
            if said.pop(position, None) is not None:
                self._check(number)

    def clear(self) -> None:
        """The chain was reset: what was said is about another one."""
        self._heights.clear()
        self._finals.clear()
        self._suspicious.clear()
        self._newest = -1

    def minority(self, present: Collection[int]) -> frozenset[int]:
        """Positions that a majority of voters contradicts at depth; empty when nobody is or at a tie.

        A majority has more voters agreeing with it than contradicting it.  Only `present` positions
        are heard.
        """
        if self._undisputed():
            return frozenset()
        return self._verdict(sorted(present))[1]

    def split(self, present: Collection[int]) -> Split | None:
        """Evidence of a split among `present`; None when nobody differs from anybody at depth."""
        if self._undisputed():
            return None
        involved, minority = self._verdict(sorted(present))
        if not involved:
            return None
        best: tuple[int, int, dict[str, tuple[int, ...]]] | None = None
        for number in sorted(self._suspicious, reverse=True):
            branches = _by_hash({p: h for p, h in self._heights[number].items() if p in involved})
            compared = sum(len(positions) for positions in branches.values())
            if len(branches) > 1 and (best is None or compared > best[0]):
                best = (compared, number, branches)
        if best is None:  # the finalized blocks are the only evidence
            number = max(self._finals[p][0] for p in involved if p in self._finals)
            finals = {p: self._finals[p][1] for p in involved if self._finals.get(p, (-1, ""))[0] == number}
            best = (len(finals), number, _by_hash(finals))
        return Split(best[1], best[2], minority)

    def _note(self, position: int, number: int, block_hash: str) -> bool:
        if number > self._newest:
            self._newest = number
            for old in [height for height in self._heights if height <= number - HEIGHTS]:
                del self._heights[old]
                self._suspicious.discard(old)
        elif number <= self._newest - HEIGHTS:
            return False
        said = self._heights.setdefault(number, {})
        block_hash = block_hash[:LONGEST_HASH]
        before = said.get(position)
        if before == block_hash:
            return False
        said[position] = block_hash
        self._check(number)
        if before is not None:
            for height in [height for height in self._heights if height > number]:
                self._heights[height].pop(position, None)
                self._check(height)
        return True

    def _check(self, number: int) -> None:
        if len(set(self._heights[number].values())) > 1:
            self._suspicious.add(number)
        else:
            self._suspicious.discard(number)

    def _undisputed(self) -> bool:
        if len(self._suspicious) >= self._depth:
            return False
        return len(set(self._finals.values())) == len({number for number, _ in self._finals.values()})

    def _verdict(self, present: list[int]) -> tuple[set[int], frozenset[int]]:
        """Who differs from somebody at depth, and who of them is outvoted."""
        against: dict[int, set[int]] = {position: set() for position in present}
        agreeing = {position: {self._voters[position]} for position in present}
        newest_first = [self._heights[number] for number in sorted(self._heights, reverse=True)]
        for place, one in enumerate(present):
            for other in present[place + 1 :]:
                relation = self._relation(one, other, newest_first)
                if relation < 0:
                    against[one].add(other)
                    against[other].add(one)
                elif relation > 0:
                    agreeing[one].add(self._voters[other])
                    agreeing[other].add(self._voters[one])
        leading = {
            position
            for position in present
            if len(agreeing[position]) > len({self._voters[other] for other in against[position]})
        }
        minority = frozenset(p for p in present if p not in leading and against[p] & leading)
        return {position for position in present if against[position]}, minority

    def _relation(self, one: int, other: int, newest_first: list[dict[int, str]]) -> int:
        """1: they are on one branch, but for a race at the tip; -1: they differ at depth; 0: cannot be said."""
        final, other_final = self._finals.get(one), self._finals.get(other)
        sealed = final is not None and other_final is not None and final[0] == other_final[0]
        if sealed and final != other_final:
            return -1
        differing = 0
        for said in newest_first:
            if one not in said or other not in said:
                continue
            if said[one] == said[other]:
                return 1  # fewer above it may differ: the tip is a race
            differing += 1
            if differing >= self._depth:
                return -1
        return 1 if sealed and differing == 0 else 0


def _by_hash(said: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    branches: dict[str, tuple[int, ...]] = {}
    for position, block_hash in sorted(said.items()):
        branches[block_hash] = (*branches.get(block_hash, ()), position)
    return branches

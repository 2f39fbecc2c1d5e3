"""Blocks: what is known of the blocks that a route's endpoints have, and what callers have seen of them.

Always true: a caller never sees the newest block, the newest finalized one or a nonce go back, unless
the chain itself went back (every endpoint that still speaks says so); a call for a block goes to who
has it; an empty answer is believed only of an endpoint whose head covers what was asked, and near the
head only with a second opinion.  What callers name is remembered in bounded tables.
Written by the fleet alone; no call spans an await.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from gateway.model import BlockRef, Call, Examined, Family, HeadReport, Reason, ReplyKind, Rhythm
from gateway.policy.heads import FOLLOWED_DOWN_AFTER, HeadBook, HeadSettings, Standing

REMEMBERED = 4096  # nonces, and doubtful answers that were asked twice
NONCE_HOLDS_FOR = 60.0  # seconds; a pending transaction that was dropped takes its nonce back
LOWEST_HOLDS_FOR = 3600.0  # seconds that a missing old block is remembered: archives do get repaired
LEFT_OUT_HOLDS_FOR = 3600.0  # seconds in which nothing is believed, of old blocks either, of who left logs out
RECENT = 16  # blocks below the head in which an empty list of logs is worth a second opinion
SAME_WORD_FOR = 0.2  # seconds in which a repeated head needs no second look
LONGEST_KEY = 1024  # bytes of a question that is remembered
NO_LIMIT = 1 << 63

_REFUSALS = {Standing.IMPLAUSIBLE: Reason.IMPLAUSIBLE_HEAD, Standing.FORKED: Reason.FORKED}
_BEHIND = (Standing.LAGGING, Standing.FAR_BEHIND)


@dataclass(frozen=True, slots=True)
class Finding:
    """What looking into an answer found.

    `seen`: the number that callers have seen before, where the answer is a number that went back; -1: it is
    not.  `result`: what to give instead of the answer.
    """

    kind: ReplyKind
    detail: str
    result: bytes | None = None
    seen: int = -1


@dataclass(slots=True)
class _Nonce:
    value: int
    at: float
    height: int  # the newest block then: who has not got that far cannot know better
    doubted_by: str = ""  # the provider of an endpoint that said less; a second one that does is believed


class Blocks:
    """One route's knowledge of blocks.  `voters[i]`: in whose name endpoint i speaks (its provider)."""

    def __init__(
        self,
        settings: HeadSettings,
        voters: Sequence[str],
        block_time: float | None,
        now: float,
        rhythm: Rhythm = Rhythm.SLOTS,
    ) -> None:
        self.book = HeadBook(settings, voters, block_time, now, rhythm)
        self.served = -1  # the highest head that a caller was told
        self.served_final = -1
        self._voters = tuple(voters)
        self._left_out: dict[int, float] = {}  # who left logs out, and until when that is remembered
        self._usual: set[str] = set()  # methods whose answers are odd on this chain
        self._above_since = inf  # since when callers have seen more than anybody says is there
        self._lowest: dict[tuple[int, int], tuple[int, float]] = {}
        self._nonces: dict[bytes, _Nonce] = {}
        self._asked_twice: dict[bytes, int] = {}
        self._words: list[tuple[bytes, float, int]] = [(b"", 0.0, -1)] * len(voters)

    # --- who has what -----------------------------------------------------------------------------

    def refusal(self, position: int, about_the_head: bool) -> Reason | None:
        """Why an endpoint may not be asked, judged by its head alone."""
        standing = self.book.standing(position)
        if about_the_head and standing in _BEHIND:
            return Reason.LAGGING
        return _REFUSALS.get(standing)

    def demoted(self, position: int) -> bool:
        """So far behind that it is asked for old blocks, too, only when nobody else is left."""
        return self.book.standing(position) is Standing.FAR_BEHIND

    def astray(self, position: int) -> bool:
        """So far behind, or on another branch, that it does not do what its users need."""
        return self.book.standing(position) in (Standing.FAR_BEHIND, Standing.FORKED)

    def unheard(self, position: int) -> bool:
        """Nobody knows where it is (it was away, or does not answer polls), while others tell."""
        return self.book.reference >= 0 and self.book.head(position) < 0

    def late(self, position: int, floor: int) -> bool:
        """It told its head, and has not got as far as `floor`."""
        return self.book.head(position) >= 0 and not self.book.covers(position, floor)

    def span(self, positions: Iterable[int], family: Family, now: float) -> tuple[int, int]:
        """The lowest and highest block that all of these have, as far as is known."""
        low, high = 0, NO_LIMIT
        for position in positions:
            low = max(low, self._lowest_of(position, family, now))
            head = self.book.head(position)
            if head >= 0:
                high = min(high, head if self.book.covers(position, head) else 0)
        return low, high

    def has(self, position: int, family: Family, low: int, high: int, now: float) -> bool:
        """Whether an endpoint has these blocks.  A block that nobody has yet is no reason against anyone."""
        if low >= 0 and low < self._lowest_of(position, family, now):
            return False
        reference = self.book.reference
        if high < 0 or reference < 0 or self.book.head(position) < 0:
            return True
        return self.book.covers(position, min(high, reference))

    def lacks(self, position: int, family: Family, number: int, now: float) -> bool:
        """It said that it does not have this block (any more).  True when that is news."""
        if number < 0 or number >= self.book.head(position) - RECENT:
            return False  # too new to have been pruned: it is late, and its head says so
        if number < self._lowest_of(position, family, now):
            return False
        self._lowest[position, family.slot] = (number + 1, now + LOWEST_HOLDS_FOR)
        return True

    def gave(self, position: int, family: Family, number: int) -> bool:
        """It answered for this block: what was learned of its lowest one was wrong.  True when that is news."""
        known = self._lowest.get((position, family.slot))
        if known is None or not 0 <= number < known[0]:
            return False
        self._lowest[position, family.slot] = (number, known[1])
        return True

    def lowest(self, position: int, family: Family, now: float) -> int:
        """The lowest block it is known to serve in this family; 0: no limit is known."""
        return self._lowest_of(position, family, now)

    def _lowest_of(self, position: int, family: Family, now: float) -> int:
        known = self._lowest.get((position, family.slot))
        return known[0] if known is not None and now < known[1] else 0

    @property
    def final(self) -> int:
        """The newest block known to be finalized; -1: none is."""
        return self.book.reference_final

    def forget(self, position: int, now: float) -> None:
        """Somebody else answers there from now on."""
        self.book.lost(position, now)
        self._lowest = {place: known for place, known in self._lowest.items() if place[0] != position}
        self._left_out.pop(position, None)

    # --- what is heard ----------------------------------------------------------------------------

    def heard(self, position: int, result: bytes, now: float) -> bool:
        """It said the very same of its head a moment ago, and that could be delivered.

        Of a thousand answers between two blocks one has to be looked into.
        """
        word = self._words[position]
        return word[0] == result and now < word[1] and word[2] == self.served

    def told(self, number: int) -> None:
        """Subscribers are told of this block: what they ask of the newest one next must not lie before it."""
        if number <= self.book.reference + self.book.tolerance:
            self.served = max(self.served, number)

    def delivered(self, position: int, result: bytes, now: float) -> None:
        """This answer about its head was found good."""
        self._words[position] = (result, now + SAME_WORD_FOR, self.served)

    def report(self, position: int, report: HeadReport, now: float, wall: float) -> bool:
        """An endpoint told its head.  True when selection must look again."""
        before, reference = self.book.head(position), self.book.reference
        news = self.book.report(position, report, now, wall)
        self._follow_down(reference, now)
        return news or self.book.head(position) != before

    def expire(self, now: float) -> bool:
        """Words that are too old do not count any more.  True when selection must look again."""
        reference = self.book.reference
        news = self.book.expire(now)
        self._follow_down(reference, now)
        return news

    def _follow_down(self, before: int, now: float) -> None:
        """The chain itself went back, and everybody says so: what callers have seen does not bind any more.

        A newest block that fell from `before` has been below for long enough.  One that never was as high
        is that of a book made anew: its first word may be a late endpoint's, and it is given the same time.
        """
        reference = self.book.reference
        if not 0 <= reference < self.served:
            self._above_since = inf
            return
        self._above_since = min(self._above_since, now)
        patience = max(FOLLOWED_DOWN_AFTER, 3.0 * self.book.block_time)
        if reference < before or now - self._above_since > patience:
            self.served, self.served_final = reference, -1
            self._above_since = inf
            self._nonces.clear()

    # --- what an answer shows ----------------------------------------------------------------------

    def judge(self, call: Call, position: int, told: Examined, now: float, again: bool) -> Finding | None:
        """What follows from an answer's content; None: it may be delivered.  Report its head first.

        `again`: another endpoint has answered this call before, so this is the second opinion.
        """
        if told.wrong:
            return Finding(ReplyKind.WRONG_DATA, told.wrong)
        if told.odd and call.method.name not in self._usual:
            if not again:
                return Finding(ReplyKind.ODD, told.odd)
            self._usual.add(call.method.name)  # two say so: it is this chain's way
            return None
        if told.head is not None:
            return self._head(position, told.head.number)
        if told.final is not None:
            return self._final(told.final, now)
        if told.nonce is not None:
            return self._nonce(call, position, told.nonce, now)
        if told.last is not None:
            wanted = min(call.high, self.book.reference)
            return self._missing(call, position, again, now) if told.last < wanted else None
        if told.missing:
            return self._missing(call, position, again, now)
        return None

    def _head(self, position: int, number: int) -> Finding | None:
        if self.book.standing(position) in _REFUSALS:
            return Finding(ReplyKind.WRONG_DATA, f"a head of {number} that cannot be")
        if number < self.served:
            return Finding(ReplyKind.BEHIND, f"head {number}, and {self.served} was seen before", seen=self.served)
        self.served = number
        return None

    def _final(self, number: int, now: float) -> Finding | None:
        if not self.book.plausible(number, now):
            return Finding(ReplyKind.WRONG_DATA, f"a finalized block {number} that cannot be there yet")
        if number < self.served_final:
            return Finding(ReplyKind.BEHIND, f"finalized {number}, and {self.served_final} was seen before")
        self.served_final = number
        return None

    def _nonce(self, call: Call, position: int, nonce: int, now: float) -> Finding | None:
        """A nonce below one that was told: believed of two providers that have the block of that time.

        A pending transaction can be dropped, so it may be true; mostly they are only a block behind.
        """
        key = bytes(call.params)
        known = self._nonces.get(key)
        if known is not None and nonce < known.value and now - known.at < NONCE_HOLDS_FOR:
            voter = self._voters[position]
            knows = self.book.covers(position, known.height)
            if not knows or known.doubted_by in ("", voter):
                if knows:
                    known.doubted_by = voter
                detail = f"nonce {nonce}, and {known.value} was seen before"
                return Finding(ReplyKind.BEHIND, detail, seen=known.value)
        if known is None and len(self._nonces) >= REMEMBERED:
            del self._nonces[next(iter(self._nonces))]
        self._nonces[key] = _Nonce(nonce, now, self.book.reference)
        return None

    def left_out(self, position: int, now: float) -> None:
        """It gave an empty list of logs, and another endpoint had some."""
        self._left_out[position] = now + LEFT_OUT_HOLDS_FOR

    def _missing(self, call: Call, position: int, again: bool, now: float) -> Finding | None:
        """An empty answer: may it be believed?"""
        reference = self.book.reference
        if reference < 0:
            return self._second_opinion(call, position, again)
        if call.block is BlockRef.HASH and call.method.family is Family.LOGS:
            return None  # nodes refuse a hash that they do not know, so this block simply has none
        if call.high >= 0 or call.block is BlockRef.LATEST:
            wanted = min(call.high, reference) if call.high >= 0 else reference
            if call.high > reference and call.method.family is not Family.LOGS:
                return None  # that block is not there yet
            if self.book.head(position) >= 0 and not self.book.covers(position, wanted):
                return Finding(ReplyKind.UNCOVERED, f"nothing, but its head is below {wanted}")
            if call.method.family is not Family.LOGS:
                return Finding(ReplyKind.UNCOVERED, f"nothing for {wanted}, which is there")
            doubtful = wanted > reference - RECENT or now < self._left_out.get(position, 0.0)
            return self._second_opinion(call, position, again) if doubtful else None
        return self._second_opinion(call, position, again)

    def _second_opinion(self, call: Call, position: int, again: bool) -> Finding | None:
        """Once per question and block: somebody who polls for a receipt does not double every call.

        Of an endpoint that has not got that block each time: another may have told the caller already.
        """
        key = call.method.wire + call.params
        reference = self.book.reference
        if self._asked_twice.get(key, -2) == reference and not self.late(position, reference):
            return None
        if not again:
            return Finding(ReplyKind.EMPTY, "nothing; somebody else is asked")
        if key not in self._asked_twice and len(self._asked_twice) >= REMEMBERED:
            del self._asked_twice[next(iter(self._asked_twice))]
        if len(key) <= LONGEST_KEY:
            self._asked_twice[key] = reference
        return None

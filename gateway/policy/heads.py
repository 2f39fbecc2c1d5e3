"""Heads of one route's endpoints: who is at the newest block, who lags, who lies, has the chain halted.

Always true: the reference head is a number that an endpoint said; one voter of several raises it no
further than the tolerance and `PACE` times the usual pace beyond what another has confirmed, unless
the others stand still; it goes back only when the votes have been below it for a while (a chain that was
reset); an endpoint within the tolerance of it is refused for no lag; memory depends on the number of
endpoints only.

A head is a claim.  Providers have reported frozen heads for hours, heights of another chain, and a
height one back because the next answer came from another machine behind their balancer.  So heads
are votes, one per voter (a provider, not a URL), and a vote counts as soon as a second voter is within
the tolerance of it.  A lone leader is believed while it keeps a plausible pace and the rest stands
still (two stuck nodes must not outvote the one that works); while two of the rest agree and move, it
is not.  With two voters nobody can tell a fast one from a slow one: the leader is believed within that
pace.  A word far off is kept as a claim: it becomes true with a second voice, or when it has moved
without a jump for as long as everybody else has stood still.
Does not belong here: asking endpoints (upstream), comparing hashes (policy/branches), or what a
caller has already seen (policy/selection).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, inf

from gateway.bounds import require_bounds, setting
from gateway.model import HeadReport, Rhythm
from gateway.policy.block_time import BlockTime
from gateway.policy.branches import Branches, Split
from gateway.policy.halts import Pace, halted_since
from gateway.policy.polling import first_wait, wait_between
from gateway.policy.rises import Rises
from gateway.policy.voices import Voice, reached

PACE = 1.5  # how much faster than usual blocks may come and still be believed without a second voice
LEAST_TOLERANCE = ceil(1.5)  # blocks: one that has just come, and half of one between two polls
AT_LEAST_STILL = 3.0  # s; nobody is still, and no chain halted, sooner
FOLLOWED_DOWN_AFTER = 10.0  # s, or three block times: a reset chain is believed
STEP_BACK_MEMORY = 10.0  # s, or three block times: a balancer has shown both of its machines by then
WORD_LASTS = 60.0  # s, or ten block times
UNKNOWN_BLOCK_TIME = 0.25  # s; blocks are counted at this pace until it is known, so that ignorance refuses nobody
FUTURE_AT_MOST = 60.0  # s; clocks of providers differ, but not by this
STALE_AFTER = 60.0  # s; or the far-behind tolerance
HIGHEST = 2**63 - 1  # a block number beyond it is noise
PATIENCE = 1.0  # s for which a poll that was sent may be on its way


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """How far behind is too far, and how often heads are asked for."""

    lag_blocks: int = setting(2, "blocks an endpoint may be behind and still get head reads", low=0, high=10000)
    lag_time: float = setting(
        2.0,
        "the same as a time; the larger of the two, and of one and a half block times, holds",
        unit="s",
        low=0,
        high=3600,
    )
    far_behind: float = setting(
        10.0, "times that tolerance at which an endpoint goes to the last tier for everything", low=1, high=10000
    )
    halted_after: float = setting(
        3.0, "block times without a new block anywhere after which the chain has halted", low=1, high=1000
    )
    poll_every_at_least: float = setting(
        1.0, "shortest time between two head polls of one endpoint", unit="s", low=0.05, high=600
    )
    poll_every_at_most: float = setting(
        30.0, "longest time between two head polls of one endpoint", unit="s", low=0.05, high=3600
    )
    branch_depth: int = setting(
        3, "common heights in a row with another hash before an endpoint counts as forked", low=1, high=32
    )

    def __post_init__(self) -> None:
        require_bounds(self)
        if self.poll_every_at_most < self.poll_every_at_least:
            raise ValueError("poll_every_at_most must not be below poll_every_at_least")


class Standing(enum.Enum):
    """Where an endpoint stands against the reference head."""

    UNKNOWN = "unknown"  # it has not spoken, or not for long, or takes no part
    CURRENT = "current"
    LAGGING = "lagging"  # beyond the tolerance: no head reads
    FAR_BEHIND = "far_behind"  # last tier for everything
    IMPLAUSIBLE = "implausible"  # beyond the reference by more than the tolerance, and not believed
    FORKED = "forked"  # on another branch than most


class HeadBook:
    """The heads of one route.  Positions are those of its endpoints, 0 to n - 1.

    Owns no clock: `now` is monotonic seconds, `wall` seconds since 1970.  `reference` is the newest
    block believed in (-1: unknown), `reference_since` the instant at which it last rose;
    `reference_final` and `reference_safe` are the newest finalized and safe blocks that two voters
    (or the only one) have reached.  `block_time` is in seconds, `tolerance` in blocks.  `split` is the
    evidence that endpoints follow different branches (its `minority` is forked; when it is empty, a tie, nobody
    is refused), None when they agree, and `split_since` the instant at which they began to differ at depth.
    """

    __slots__ = (
        "_alone", "_base", "_base_at", "_below_since", "_branches", "_calm", "_created", "_forked", "_rhythm",
        "_rises", "_second", "_settings", "_settled", "_standings", "_time", "_unsettled_since", "_voices",
        "block_time", "reference", "reference_final", "reference_safe", "reference_since", "split", "split_since",
        "tolerance",
    )  # fmt: skip

    def __init__(
        self,
        settings: HeadSettings,
        voters: Sequence[str],
        block_time: float | None,
        now: float,
        rhythm: Rhythm = Rhythm.SLOTS,
    ) -> None:
        """`voters[i]` is whose voice position i is; `block_time` in seconds, None when the chain is not known."""
        self._settings = settings
        self._rhythm = rhythm
        self._voices = [Voice(position, voter) for position, voter in enumerate(voters)]
        self._alone = len(set(voters)) == 1
        self._branches = Branches(settings.branch_depth, voters)
        self._forked: frozenset[int] = frozenset()
        self._standings = [Standing.UNKNOWN] * len(self._voices)
        self._created = now
        self._time = BlockTime(block_time)
        self._take_time()
        self.reference = -1
        self.reference_since = now
        self.reference_final = -1
        self.reference_safe = -1
        self.split: Split | None = None
        self.split_since = now
        self._rises = Rises()
        self._base = 0.0  # the height, and the instant, from which plausible progress is counted
        self._base_at = now
        self._second = -1  # the height that the last judgement found confirmed
        self._settled = False  # until two voters agreed, or one spoke alone for a while, all may be corrected
        self._unsettled_since = inf
        self._below_since = inf  # since when the votes are below the reference
        self._calm = False  # no timer runs: a word that repeats the last one changes nothing

    def __repr__(self) -> str:
        return f"<HeadBook {self.reference} +-{self.tolerance} every {self.block_time:.2f}s {self._standings}>"

    # --- words ----------------------------------------------------------------------------------------

    def report(self, position: int, report: HeadReport, now: float, wall: float | None = None) -> bool:
        """A poll, or a passing answer that told the endpoint's head.

        True when the reference or a standing changed.  A number below zero or beyond 2**63 is no word.
        """
        number = report.number
        if not 0 <= number <= HIGHEST:
            return False
        voice = self._voices[position]
        age = None if wall is None or report.timestamp is None else wall - report.timestamp
        same = voice.live and number == voice.number and report.hash in ("", voice.block_hash)
        if same and self._calm and voice.heard_at >= self.reference_since:
            voice.repeat(age, now)
            voice.settle_floor(self._memory, now)
            return False
        if voice.highest > self.reference + self.tolerance >= number:
            voice.highest = number - 1  # it takes back a claim that nobody believed
        voice.hear(report, age, self._speed, self.tolerance, now)
        changed = self._judge(now)
        if number <= self.reference + self.tolerance:
            voice.settle_floor(self._memory, now)
            if self._branches.saw(position, number, report.hash, report.parent):
                changed = self._judge(now) or changed
        return changed

    def finalized(self, position: int, number: int, block_hash: str, now: float) -> bool:
        """An endpoint's newest finalized block.  True when a standing or the reference changed.

        A number above the reference is no word.  Two hashes for one height are a split at once.
        """
        if not 0 <= number <= self.reference + self.tolerance:
            return False
        self._voices[position].final = number
        self._branches.sealed(position, number, block_hash)
        before = self.reference_final
        self.reference_final = max(before, reached((voice.voter, voice.final) for voice in self._heard()))
        return self._judge(now) or self.reference_final > before

    def safe(self, position: int, number: int, block_hash: str, now: float) -> bool:
        """The same of its newest safe block, which may still be replaced: a hash convicts only at depth."""
        if not 0 <= number <= self.reference + self.tolerance:
            return False
        self._voices[position].safe = number
        before = self.reference_safe
        self.reference_safe = max(before, reached((voice.voter, voice.safe) for voice in self._heard()))
        learned = self._branches.saw(position, number, block_hash)
        return (learned and self._judge(now)) or self.reference_safe > before

    def lost(self, position: int, now: float) -> bool:
        """It no longer takes part (drained, wrong chain, breaker open on everything), until it speaks again."""
        voice = self._voices[position]
        voice.live, voice.lost = False, True
        voice.floor = voice.final = voice.safe = -1
        self._branches.forget(position)
        return self._judge(now)

    def asked(self, position: int, now: float) -> None:
        """A poll was sent.  Keeps one that gets no answer from being repeated at once."""
        self._voices[position].ask(now)

    def expire(self, now: float) -> bool:
        """Take the vote from words that are too old, and follow votes that have stayed below the reference.

        To be called about once a block time.  True when the reference or a standing changed.
        """
        lasts = max(WORD_LASTS, 10.0 * self.block_time)
        for voice in self._voices:
            if voice.live and now - voice.heard_at > lasts:
                voice.live = self._calm = False
        return self._rank(now) if self._calm else self._judge(now)

    # --- answers --------------------------------------------------------------------------------------

    def head(self, position: int) -> int:
        """The newest block that it said, believed or not; -1: unknown."""
        return self._voices[position].number if self._voices[position].live else -1

    def standing(self, position: int) -> Standing:
        """Where it stands, as of the last word or `expire`."""
        return self._standings[position]

    def lag(self, position: int, now: float) -> tuple[int, float]:
        """Blocks and seconds behind the reference; (0, 0.0) when it is not behind or not known."""
        head = self.head(position)
        blocks = self.reference - head
        if head < 0 or blocks <= 0:
            return 0, 0.0
        passed_at, exact = self._rises.passed_at(head) or (now, False)
        return blocks, now - passed_at if exact else max(now - passed_at, blocks * self.block_time)

    def covers(self, position: int, number: int) -> bool:
        """Whether it surely has this block.

        Judged by its newest word that was believed, or by the lowest of the last ten seconds (or three
        block times) when it stepped back within them: a balanced provider answers from two machines.
        Holds when it has been silent for long, and no longer when it was lost.
        """
        return number <= self._voices[position].floor

    def plausible(self, number: int, now: float) -> bool:
        """Could the newest block be this now?  Anything could while nothing is known."""
        return not self._settled or number <= self._line(now) + self.tolerance

    def halted_since(self, now: float) -> float | None:
        """The instant of the last new block when the chain stands still; None when it moves or nobody says."""
        pace = Pace(self._rhythm, self.block_time, self._still, self._pace)
        return halted_since(pace, self._believed(), self.reference_since, self._rises, now)

    @property
    def tellers(self) -> int:
        """Voters whose word on the newest block counts."""
        return len({voice.voter for voice in self._believed()})

    def next_poll_after(self, position: int, now: float) -> float:
        """Seconds until it should be asked again; 0.0 when that is due.

        Tied to the block time.  After a rise that it has not confirmed it is asked sooner, each endpoint
        at its own share of the block, so that they are not all asked in one instant.
        """
        voice = self._voices[position]
        last = max(voice.asked_at, voice.heard_at)
        if last == -inf:
            return max(0.0, self._created + first_wait(position, self._settings.poll_every_at_least) - now)
        if voice.lost:
            wait = 0.0  # it may be asked again, so it is back: where is it?
        else:
            confirmed = voice.number >= self.reference
            wait = wait_between(position, self._pace, last - self.reference_since, confirmed)
        return max(0.0, last + max(wait, self._settings.poll_every_at_least) - now)

    # --- judgement ------------------------------------------------------------------------------------

    def _judge(self, now: float) -> bool:
        """Find the reference and everybody's standing anew.  True when something changed."""
        self._see_split([voice.position for voice in self._voices if voice.live], now)
        votes = sorted(self._heard(), key=lambda voice: voice.number, reverse=True)
        before = self.reference
        self._calm = False
        for place, voice in enumerate(votes):
            rest = [other for other in votes[place + 1 :] if other.voter != voice.voter]
            confirmed = bool(rest) and voice.number - rest[0].number <= self.tolerance
            if confirmed or self._believable(voice, rest, now):
                self._accept(voice.number, rest[0].number if rest else voice.number, confirmed, now)
                self._calm = place == 0 and self._settled and self._below_since == inf
                break
        return self._rank(now) or self.reference != before

    def _see_split(self, present: list[int], now: float) -> None:
        self._forked = self._branches.minority(present)
        before, self.split = self.split, self._branches.split(present)
        if before is None and self.split is not None:
            self.split_since = now

    def _rank(self, now: float) -> bool:
        """Find everybody's standing anew.  True when one changed."""
        before = self._standings
        self._standings = [self._stands(voice, now) for voice in self._voices]
        return before != self._standings

    def _believable(self, voice: Voice, rest: list[Voice], now: float) -> bool:
        """May a leader be believed though no second voter is near it?  `rest`: others' words, highest first."""
        moving = [other for other in rest if now - other.rose_at < self._still]
        steady = now - voice.run_since >= self._still and voice.number > voice.run_from
        if self._alone or (steady and not moving):
            return True
        if not self._settled:
            if len({other.voter for other in rest}) == 1 and voice.age is None:  # no clock to judge two words by
                return voice.number - rest[0].number <= STALE_AFTER / self.block_time
            return not rest or (self._fresh(voice) and all(self._stale(other) for other in rest))
        if moving and self._fresh(voice) and all(self._stale(other) for other in moving):
            return True  # the others say themselves that they are still catching up
        if any(
            one.voter != other.voter
            and one.number - other.number <= self.tolerance
            and (one in moving or other in moving)
            and voice.number > one.number + self.tolerance + self._unheard(one, voice.heard_at)
            for one, other in combinations(rest, 2)
        ):
            return False  # two who agree, and move, outvote one
        in_future = voice.age is not None and voice.age < -FUTURE_AT_MOST
        return not in_future and self.plausible(voice.number, now)

    def _believed(self) -> list[Voice]:
        refused = (Standing.IMPLAUSIBLE, Standing.FORKED)
        return [v for v in self._voices if v.live and self._standings[v.position] not in refused]

    def _unheard(self, voice: Voice, until: float) -> float:
        """Blocks that have come since its last word, beyond those between two polls: it was not asked."""
        return max(0.0, until - voice.heard_at - self._pace) / self.block_time

    def _accept(self, number: int, second: int, confirmed: bool, now: float) -> None:
        """Take `number` for what the votes say; `second` is the height that a second voter has too."""
        jumped = not self.plausible(number, now)
        self._move_line(number, second, jumped, now)
        if number > self.reference:
            if self._settled and (confirmed or not jumped) and self.reference >= 0:
                self._time.learn(number - self.reference, now - self.reference_since)
                self._take_time()
            self.reference = number
            self.reference_since = now
            self._rises.note(number, now)
            self._below_since = inf
        elif number < self.reference:
            self._below_since = min(self._below_since, now)
            if not self._settled or now - self._below_since > max(FOLLOWED_DOWN_AFTER, 3.0 * self.block_time):
                self._follow_down(number, now)
        else:
            self._below_since = inf
        if not self._settled:
            self._unsettled_since = min(self._unsettled_since, now)
            self._settled = confirmed or now - self._unsettled_since >= self._still

    def _move_line(self, number: int, second: int, jumped: bool, now: float) -> None:
        """Move the line of plausible progress: with the second voter while it moves, else at most at its pace."""
        rose = second > self._second
        self._second = second
        reach = self._settings.far_behind * self.tolerance
        if not self._settled or jumped:
            self._base = float(number)
        elif rose and self._base - second <= reach:
            self._base = float(second)
        elif number > self._base:
            self._base = min(float(number), self._line(now))
        else:
            return
        self._base_at = now

    def _follow_down(self, number: int, now: float) -> None:
        self.reference = number
        self.reference_since = self._base_at = now
        self._base = float(number)
        self._second = number
        self._below_since = self._unsettled_since = inf
        self._rises.restart(number, now)
        self._branches.clear()
        self.reference_final = self.reference_safe = -1
        for voice in self._voices:
            voice.restart(number)

    def _stands(self, voice: Voice, now: float) -> Standing:
        """Behind is who was so when it last spoke, or does not answer: nobody for not having been asked since."""
        if not voice.live:
            return Standing.UNKNOWN
        if voice.position in self._forked:
            return Standing.FORKED
        if voice.number > self.reference + self.tolerance:
            return Standing.IMPLAUSIBLE
        silent = now - voice.unanswered_since > PATIENCE
        behind = (self.reference if silent else self._rises.newest_at(voice.heard_at)) - voice.number
        if behind <= self.tolerance:
            return Standing.CURRENT
        return Standing.LAGGING if behind <= self._settings.far_behind * self.tolerance else Standing.FAR_BEHIND

    def _heard(self) -> list[Voice]:
        return [voice for voice in self._voices if voice.live and voice.position not in self._forked]

    def _fresh(self, voice: Voice) -> bool:
        return voice.age is not None and -FUTURE_AT_MOST <= voice.age <= self._old

    def _stale(self, voice: Voice) -> bool:
        return voice.age is not None and voice.age > self._old

    @property
    def _old(self) -> float:
        """Age of a newest block, in seconds, that shows an endpoint still catching up."""
        return max(STALE_AFTER, self._settings.far_behind * self.tolerance * self.block_time)

    @property
    def _still(self) -> float:
        return max(AT_LEAST_STILL, self._settings.halted_after * self.block_time)

    @property
    def _memory(self) -> float:
        return max(STEP_BACK_MEMORY, 3.0 * self.block_time)

    @property
    def _pace(self) -> float:
        settings = self._settings
        return min(settings.poll_every_at_most, max(settings.poll_every_at_least, self._surely))

    @property
    def _surely(self) -> float:
        """Block time in seconds, taken short while it is a guess."""
        return self.block_time if self._time.known else min(self.block_time, UNKNOWN_BLOCK_TIME)

    @property
    def _speed(self) -> float:
        """Blocks per second that are plausible without a second voice."""
        return PACE / self._time.shortest

    def _line(self, now: float) -> float:
        return self._base + self._speed * (now - self._base_at)

    def _take_time(self) -> None:
        self.block_time = self._time.seconds
        in_time = ceil(self._settings.lag_time / self._surely)
        self.tolerance = max(self._settings.lag_blocks, in_time, LEAST_TOLERANCE)

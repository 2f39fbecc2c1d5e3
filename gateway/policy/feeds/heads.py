"""The feed of new heads: what is told to callers of what sources push, polls show and fetches bring.

Always true: what is told is one walk over the tree of blocks.  Each header is the child of the one told
before it, or `dropped` lists what lies above its parent, newest first (excepted: the first header ever,
and one after a Gap); no header is told twice unless it was dropped in between; one fetch at most is out,
and meanwhile pushed headers wait on a bounded shelf; what cannot be told is a Gap, never a silence.

The rule of choice: a child of the tip is told at once, whoever says it.  Else the highest header above the
tip is the goal, and the way from it down to the branch is found on the shelf or fetched: by number above
the tip, by hash below it.  A header that is no higher than the tip is followed only if its source said
our tip last (its node changed its mind; a source that never was at our tip may just be late), if polls
have said it for two block times, or if nobody has been at our tip for `give_up_after` (a chain that was
set back).  A goal to which no way is found in `give_up_after` is told behind a Gap if others are as high
or nobody else speaks; otherwise it is thrown away, and so is its source.
Does not belong here: sockets and calls (upstream), which endpoints are sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.bounds import require_bounds, setting
from gateway.events import Header
from gateway.policy.feeds.branch import Branch, Shelf, Shelved
from gateway.policy.feeds.sources import Polls, Voices

FIRST_PAUSE = 0.1  # seconds after a fetch that brought nothing; doubles
LONGEST_PAUSE = 2.0
LONGEST_ANSWER = 10.0  # seconds after which nobody will answer a fetch any more
WAYS = 64  # ways to goals of which is known since when they are sought


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFeedSettings:
    """How much a feed of heads remembers, and how much it makes good."""

    memory: int = setting(
        256, "headers of the current branch remembered; a reorganisation below them is told as a gap", low=2, high=10000
    )
    fill_at_most: int = setting(
        1000, "blocks fetched for one gap; of a larger one the newest so many, the rest is told", low=1, high=10000
    )
    fetch_at_once: int = setting(32, "most headers in one fetch", low=1, high=1000)
    give_up_after: float = setting(
        30.0,
        "a gap that cannot be filled for so long is told, and the feed goes on behind it",
        unit="s",
        low=1,
        high=600,
    )
    grace: float = setting(
        0.5, "how long a polled head waits for a live source to bring its block first", unit="s", low=0, high=60
    )

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, slots=True)
class Told:
    """Hand this header to callers and to feeds of logs.

    `late`: fetched, not pushed.  `dropped`: blocks abandoned just before, newest first.
    """

    header: Header
    late: bool = False
    dropped: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class FetchNumbers:
    """Fetch the headers of these numbers, both included."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class FetchHash:
    """Fetch this header."""

    hash: str


@dataclass(frozen=True, slots=True)
class Gap:
    """These blocks cannot be told.  Callers get a notice."""

    low: int
    high: int
    why: str


@dataclass(frozen=True, slots=True)
class Silent:
    """This source is behind others for too long, or (`doubted`) said what nobody else knows: replace it."""

    source: int
    doubted: bool = False


Command = Told | FetchNumbers | FetchHash | Gap | Silent


class HeadFeed:
    """See the module.  `now` is monotonic seconds.  `block_time` (seconds) may be set from outside at any time."""

    __slots__ = (
        "_asked", "_branch", "_by_hash", "_mixed", "_out", "_out_since", "_pause", "_polls", "_retry_at",
        "_seconded_at", "_settings", "_shelf", "_unanswered", "_voices", "_wanted", "_ways", "block_time",
    )  # fmt: skip

    def __init__(self, settings: HeadFeedSettings, block_time: float, now: float) -> None:
        self._settings = settings
        self.block_time = block_time
        self._branch = Branch(settings.memory)
        self._shelf = Shelf(settings.fill_at_most + 2 * settings.memory + settings.fetch_at_once)
        self._voices = Voices()
        self._polls = Polls(settings.give_up_after, now)
        self._wanted = ("", "")  # a block that polls stay with, to be fetched, and the tip that it may replace
        self._ways: dict[str, float] = {}  # a missing block, and since when it is missing
        self._out: FetchNumbers | FetchHash | None = None
        self._out_since = now
        self._asked = ""  # what the fetch that is out is for
        self._unanswered = ""  # the same of the fetch that just came back: asked for again, it brought nothing
        self._by_hash = ""  # a missing block that is now asked for by its hash
        self._mixed = False  # the fetch brought another block of the number that is missing
        self._pause = FIRST_PAUSE
        self._retry_at = now
        self._seconded_at = now  # when somebody last was at our tip or above

    # --- what is known ----------------------------------------------------------------------------

    @property
    def tip(self) -> Header | None:
        """The newest header told."""
        return self._branch.tip

    @property
    def waiting(self) -> bool:
        """A fetch is out or due: blocks are known that could not be told yet."""
        return (
            self._out is not None
            or bool(self._wanted[0])
            or self._polls.number > self._height
            or self._goal() is not None
        )

    def recent(self) -> tuple[Header, ...]:
        """The current branch, oldest first, at most `memory` headers."""
        return self._branch.run()

    # --- what happens -----------------------------------------------------------------------------

    def joined(self, source: int, now: float) -> None:
        """A source's subscription was acknowledged."""
        self._voices.joined(source, max(self._height, self._polls.number), now)

    def left(self, source: int, now: float) -> list[Command]:
        """A source is gone: closed, or replaced."""
        self._voices.left(source)
        return self._go_on(now)

    def header(self, source: int, header: Header, now: float) -> list[Command]:
        """A source pushed a header."""
        before = self._voices.said(source, header.number, header.hash, now)
        tip = self._branch.tip
        if tip is None or (header.parent == tip.hash and header.number == tip.number + 1):
            self._shelf.take(header.hash)
            return [*self._tell([Shelved(header, False, source)], (), now), *self._go_on(now)]
        if header.number > tip.number or header.hash == tip.hash:
            self._seconded_at = now
        voice = self._voices.get(source)
        if self._branch.holds(header.number, header.hash) or (voice is not None and voice.doubted):
            return []
        set_back = self._is_set_back(now)
        if header.number < self._lowest and not set_back:
            return []
        held = self._shelf.put(header, False, source)
        if header.number <= tip.number and not held.dropped and (set_back or before == tip.hash):
            held.instead = tip.hash
        return self._go_on(now)

    def hint(self, number: int, hash: str, now: float) -> list[Command]:
        """Polls say that this is the newest block.  `hash` is empty when it is not known."""
        tip = self._branch.tip
        if tip is None:
            self._polls.said(number, -1, now)
            return self._go_on(now)
        if number > tip.number or (number == tip.number and hash in ("", tip.hash)):
            self._seconded_at = now
        held = self._shelf.get(hash)
        if self._branch.holds(number, hash):
            self._polls.agree()
        elif number > tip.number and not (held is not None and held.dropped):
            self._polls.said(number, tip.number, now)
        elif hash and self._stay_with(number, hash, now):
            if held is None:
                self._wanted = (hash, tip.hash)
            else:
                held.dropped, held.instead = False, tip.hash
        return self._go_on(now)

    def fetched(self, headers: Sequence[Header], now: float) -> list[Command]:
        """A fetch was answered: headers in any order, perhaps not all, perhaps of another branch."""
        out, self._out = self._out, None
        self._unanswered, self._asked, self._mixed = self._asked, "", False
        for header in headers:
            self._take_fetched(header, out)
        if self._unanswered == "wanted":
            self._wanted = ("", "")
        if self._branch.tip is None and headers:
            start = max(headers, key=lambda header: header.number)
            self._shelf.take(start.hash)
            return [*self._tell([Shelved(start, True)], (), now), *self._go_on(now)]
        return self._go_on(now)

    def fetch_failed(self, now: float) -> list[Command]:
        """The fetch brought nothing; it is repeated after a pause."""
        return self.fetched((), now)

    def tick(self, now: float) -> list[Command]:
        """Time passed.  Called about every 50 ms."""
        self._polls.expire(now)
        if self._out is not None and now - self._out_since > LONGEST_ANSWER:
            commands = self.fetched((), now)  # nobody will answer it any more
        else:
            commands = self._go_on(now)
        known = max(self._height, self._polls.highest(now - self._settings.give_up_after))
        return commands + [Silent(source) for source in self._voices.silent(known, self.block_time, now)]

    def _is_set_back(self, now: float) -> bool:
        """Has nobody been at our tip for so long that the chain must have begun again below it?"""
        return now - self._seconded_at > max(self._settings.give_up_after, 10 * self.block_time)

    def _stay_with(self, number: int, block: str, now: float) -> bool:
        """Do polls say another block than ours for so long that it must be followed?"""
        if number >= self._lowest and self._polls.persist(number, block, 2 * self.block_time, now):
            return True
        return self._is_set_back(now)

    # --- choosing ---------------------------------------------------------------------------------

    @property
    def _height(self) -> int:
        return self._branch.tip.number if self._branch.tip is not None else -1

    @property
    def _lowest(self) -> int:
        """The oldest number that is remembered."""
        return self._branch.root.number if self._branch.root is not None else 0

    def _goal(self) -> Shelved | None:
        """The header to go to: of the ends of chains on the shelf the highest; one whose way failed comes later."""
        tip = self._branch.tip
        if tip is None:
            return None
        may = [
            held
            for held in self._shelf
            if not held.dropped and (held.header.number > tip.number or held.instead == tip.hash)
        ]
        if len(may) > 1:
            parents = {held.header.parent for held in may}
            may = [held for held in may if held.header.hash not in parents] or may
        return min(may, key=lambda held: (held.failures, -held.header.number), default=None)

    def _way(self, goal: Shelved) -> list[Shelved]:
        """From the goal down, as far as headers are known: to a child of the branch, if there is one."""
        way = [goal]
        while way[-1].header.number > self._lowest and not self._branch.links(way[-1].header):
            header = way[-1].header
            below = self._shelf.get(header.parent)
            if below is None or below.header.number != header.number - 1:
                break
            way.append(below)
        return way

    def _take_fetched(self, header: Header, out: FetchNumbers | FetchHash | None) -> None:
        wanted = self._wanted[0] == header.hash
        if self._branch.holds(header.number, header.hash) or (header.number < self._lowest and not wanted):
            return
        held = self._shelf.put(header, True)
        if wanted:
            held.dropped, held.instead = False, self._wanted[1]
        if held.dropped and header.number == self._polls.number:
            self._polls.mistaken()  # they must stay with it to be followed
        if isinstance(out, FetchNumbers) and header.number == out.high:
            self._mixed = header.hash != self._unanswered

    # --- telling ----------------------------------------------------------------------------------

    def _go_on(self, now: float) -> list[Command]:
        """Tell what can be told, then ask for what is missing."""
        commands: list[Command] = []
        silent: list[Command] = []  # last: who carries it out may come back with `left` at once
        while (goal := self._goal()) is not None:
            way = self._way(goal)
            low = way[-1].header
            if self._branch.links(low):
                commands += self._tell(way, self._branch.above(low.number - 1), now)
            elif why := self._reason_to_cut(goal.header, low, now):
                if why == "not_found" and not self._vouched(goal, now):
                    silent += self._discard(goal)
                else:
                    commands += self._tell_cut(way, why, now)
            else:
                commands += self._ask_for_parent(goal, way, now)
                break
        else:
            commands += self._ask_for_polled(now)
        self._unanswered = ""
        return commands + silent

    def _reason_to_cut(self, goal: Header, low: Header, now: float) -> str:
        """Why the way ends here although it does not reach the branch; empty when it goes on."""
        if low.number <= self._lowest:
            return "reorganisation_too_deep"
        if low.number - 1 > self._height and goal.number - low.number >= self._settings.fill_at_most:
            return "too_many_blocks"
        if len(self._ways) >= WAYS and low.parent not in self._ways:
            del self._ways[next(iter(self._ways))]
        since = self._ways.setdefault(low.parent, now)
        return "not_found" if now - since > self._settings.give_up_after else ""

    def _vouched(self, goal: Shelved, now: float) -> bool:
        """Is somebody else as high as this goal, or does nobody else speak?"""
        recently = now - self._settings.give_up_after
        others = max(self._voices.highest(goal.source, recently), self._polls.highest(recently))
        return others < 0 or others >= goal.header.number

    def _discard(self, goal: Shelved) -> list[Command]:
        """Nobody knows the way to this header: its source is not to be relied on."""
        self._shelf.take(goal.header.hash)
        voice = self._voices.get(goal.source)
        if voice is None:
            return []
        voice.doubted = True
        return [Silent(goal.source, doubted=True)]

    def _tell(self, way: list[Shelved], dropped: tuple[Header, ...], now: float) -> list[Command]:
        """Tell the headers of a way, which is linked to the branch once `dropped` are gone."""
        commands: list[Command] = []
        for gone in dropped:
            self._shelf.put(gone, False, dropped=True)
        self._branch.cut(way[-1].header.number - 1)
        for held in reversed(way):
            self._shelf.take(held.header.hash)
            self._ways.pop(held.header.parent, None)
            self._branch.grow(held.header)
            commands.append(Told(held.header, held.late, dropped))
            dropped = ()
        self._pause, self._retry_at = FIRST_PAUSE, now
        self._seconded_at = now
        self._wanted = ("", "")
        self._polls.settled()
        self._shelf.sweep(self._height - self._settings.memory)
        return commands

    def _tell_cut(self, way: list[Shelved], why: str, now: float) -> list[Command]:
        """Tell a way that does not reach the branch, and what cannot be told before it."""
        low, root = way[-1].header, self._branch.root
        dropped = self._branch.above(low.number - 2)
        self._branch.cut(low.number - 2)
        if self._branch.rooted and root is not None and low.number == root.number:
            return self._tell(way, dropped, now)  # callers know nothing below it
        high = max(0, low.number - 1)
        gap = Gap(min((dropped[0].number if dropped else self._height) + 1, high), high, why)
        self._branch.tear()
        return [gap, *self._tell(way, dropped, now)]

    # --- asking -----------------------------------------------------------------------------------

    def _ask_for_parent(self, goal: Shelved, way: list[Shelved], now: float) -> list[Command]:
        """Ask for the parent of the lowest header of a way, and for more below it.

        By number above the tip, and when that brought another block by hash.  Below the tip by hash, and
        farther down in steps that grow: most reorganisations are short.
        """
        number, missing = way[-1].header.number - 1, way[-1].header.parent
        again = self._unanswered == missing
        if again:
            self._by_hash = missing if self._by_hash != missing else ""
            goal.failures += not self._mixed
        if number > self._height:
            lowest = max(self._height + 1, goal.header.number - self._settings.fill_at_most)
            width = self._settings.fetch_at_once
        else:
            lowest = self._lowest
            width = sum(1 for held in way if held.header.number <= self._height)
            width = min(width, self._settings.fetch_at_once)
        by_hash = missing == self._by_hash or (number <= self._height and width < 2)
        fetch = FetchHash(missing) if by_hash else FetchNumbers(max(lowest, number - width + 1), number)
        return self._ask(fetch, missing, again and not self._mixed, now)

    def _ask_for_polled(self, now: float) -> list[Command]:
        """Polls are ahead of all that is known: ask for it, unless a live source may bring it in a moment."""
        if self._wanted[0]:
            return self._ask(FetchHash(self._wanted[0]), "wanted", False, now)
        if self._polls.number <= self._height:
            return []
        if self._voices and now - self._polls.above_since < self._settings.grace:
            return []
        high = self._polls.number
        low = max(self._height + 1, high - self._settings.fetch_at_once + 1) if self._branch.tip is not None else high
        return self._ask(FetchNumbers(low, high), "polled", self._unanswered == "polled", now)

    def _ask(self, fetch: FetchNumbers | FetchHash, purpose: str, fruitless: bool, now: float) -> list[Command]:
        """Ask, unless a fetch is out or the last one for the same purpose has just brought nothing."""
        if self._out is not None:
            return []
        if fruitless:
            self._retry_at = now + self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        elif self._unanswered:
            self._pause = FIRST_PAUSE  # it brought us farther
        if now < self._retry_at:
            return []
        self._out, self._out_since, self._asked = fetch, now, purpose
        return [fetch]

"""The feed of the logs of one filter: pushed where that works, fetched where it does not, in the order of the chain.

Always true: a log is told only when every earlier block is settled, so logs come in chain order, and what a
caller holds who does as told is the logs of the chain in its order; each (block, index) is told once, unless it
was told as removed in between; the logs of an abandoned block are told again as removed, newest first;
logs of blocks before the first one added are never told, apart from those of blocks that replace them;
what cannot be told is a LogGap.

How a block is settled.  A bloom filter without a match settles it at once.  Otherwise it is *open* and
holds back what is later.  A block of which a source that *covers* it pushed logs is *unsure*: they are told
at once, and it is settled by a later log of such a source, by a fetch that is made anyway, or by one of its own
when it grows old.  A source covers blocks above the one of its first log (this one, too, if it was added
`sure_blocks` and `sure_after` after the source), and never one added in a reorganisation, whose logs it may
have pushed at another time.  What is open without a source worth waiting for, or for longer than `patience`,
is fetched together with what is unsure before it.  When a source is lost, what rests on its word is
open again.  A fetched answer that lacks pushed logs is believed the third time only.

A source that pushed a log before one that lies in front of it covers nothing for five minutes: what it pushes is
confirmed by a fetch before it is told.  A log that comes all the same when others behind it have been told is put
in its place: those are told as removed, newest first, and again behind it.  A block that was told as a gap stays one.
A bloom filter that denied a log that came, or one of a chain that never showed a bloom with content, counts
for nothing.  Then the silence of a covering source that pushed in the last five minutes is believed after
`patience`; the block is settled by a later log of the source, and otherwise checked by one fetch a minute.
Does not belong here: which block is on the chain (heads), how a log is written or removed (dialect).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, takewhile

from gateway.bounds import require_bounds, setting
from gateway.events import Header, Log
from gateway.policy.feeds.blocks import Block, State
from gateway.policy.feeds.pushers import Pusher, Pushers

FIRST_PAUSE = 0.1  # seconds after a fetch that brought nothing; doubles
LONGEST_PAUSE = 2.0
LONGEST_ANSWER = 10.0  # seconds after which nobody will answer a fetch any more
CHECKED_EVERY = 60.0  # seconds of believed silence that are checked with one fetch
DOUBTS = 2  # answers that lack a pushed log before one is believed
HELD_BELOW = 10  # blocks below the tip of which an early log is still held
MOST_HELD = 20_000  # logs that wait
MOST_TOLD = 20_000  # logs remembered for being removed
LONGEST_BACKLOG = 2_000  # blocks that wait
NEVER = 1 << 62  # a number that no block has
BRIDGE = 3  # settled blocks that one fetch takes along to reach the next that is not


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFeedSettings:
    """How long a feed of logs waits for what is pushed, and how much it remembers and makes good."""

    patience: float = setting(
        0.25, "how long a block that may match waits for pushed logs before they are fetched", unit="s", low=0, high=60
    )
    memory: int = setting(128, "blocks whose logs are remembered, to be told as removed", low=1, high=10000)
    fetch_blocks: int = setting(100, "most blocks in one fetch", low=1, high=10000)
    give_up_after: float = setting(
        30.0, "logs that cannot be fetched for so long are told as a gap", unit="s", low=1, high=600
    )
    sure_after: float = setting(
        2.0, "time after which a new source is trusted with the block of its first log", unit="s", low=0, high=60
    )
    sure_blocks: int = setting(3, "the same in blocks", low=1, high=100)

    def __post_init__(self) -> None:
        require_bounds(self)


@dataclass(frozen=True, slots=True)
class Tell:
    """Hand this log to callers.  `late`: fetched, not pushed."""

    log: Log
    late: bool = False


@dataclass(frozen=True, slots=True)
class FetchLogs:
    """Fetch the logs of exactly these blocks, whose numbers follow each other.  At most one is out."""

    blocks: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class LogGap:
    """Logs of these blocks, or their removal, cannot be told.  Callers get a notice."""

    low: int
    high: int
    why: str


@dataclass(frozen=True, slots=True)
class Missed:
    """This source did not push logs that were there: replace it."""

    source: int


Command = Tell | FetchLogs | LogGap | Missed


class LogFeed:
    """See the module.  `may_match` says of a bloom filter whether it may hold a log of this feed's filter."""

    __slots__ = (
        "_blocks", "_blooms_lie", "_blooms_seen", "_early", "_first", "_held", "_highest", "_may_match", "_open",
        "_out", "_out_since", "_pause", "_pushers", "_retry_at", "_settings", "_settled", "_start", "_told",
    )  # fmt: skip

    def __init__(self, settings: LogFeedSettings, may_match: Callable[[bytes], bool], now: float) -> None:
        self._settings = settings
        self._may_match = may_match
        self._start: int | None = None
        self._highest = -1
        self._settled: deque[Block] = deque()  # settled and told, oldest first
        self._open: deque[Block] = deque()  # from the first block on that is not
        self._blocks: dict[str, Block] = {}  # both, by hash
        self._early: dict[str, dict[int, tuple[int, Log]]] = {}  # logs of other blocks: index -> source, log
        self._held = 0  # logs in _early, and that wait in blocks
        self._told = 0  # logs remembered
        self._pushers = Pushers()
        self._blooms_lie = False
        self._blooms_seen = False
        self._out: tuple[Header, ...] = ()
        self._out_since = now
        self._pause = FIRST_PAUSE
        self._retry_at = now
        self._first = ("", now)  # the first open block, and since when it is the first

    # --- sources ----------------------------------------------------------------------------------

    def joined(self, source: int, now: float) -> None:
        """A source's subscription was acknowledged."""
        self._pushers[source] = Pusher(self._highest + self._settings.sure_blocks, now + self._settings.sure_after)

    def left(self, source: int, now: float) -> list[Command]:
        """A source is gone: what only its word made unsure is open again."""
        self._pushers.pop(source, None)
        for block in self._open:
            if block.state is State.UNSURE and block.source == source:
                block.open(now)
        return self._go_on(now)

    def pushed(self, source: int, log: Log, now: float) -> list[Command]:
        """A source pushed a log.  One with `removed` says nothing: the chain decides."""
        if source not in self._pushers:
            self.joined(source, now)
        if log.removed:
            self._pushers[source].took_back(log)
            return []
        self._pushers[source].said(log, now)
        block = self._blocks.get(log.block)
        if block is None:
            self._hold(source, log, now)
            return []
        return [*self._take(block, source, log, now), *self._go_on(now)]

    # --- the chain --------------------------------------------------------------------------------

    def added(self, header: Header, now: float) -> list[Command]:
        """The feed of heads told this header.  The first one is where the feed starts."""
        if self._start is None:
            self._start = header.number
            for pusher in self._pushers.values():
                pusher.margin = max(pusher.margin, header.number + self._settings.sure_blocks)
        self._blooms_seen = self._blooms_seen or any(header.bloom)
        known = self._knows(header)
        denied = header.number < self._start or self._denies(header)
        block = Block(header, header.number > self._highest, known, denied, now)
        self._highest = max(self._highest, header.number)
        self._open.append(block)
        self._blocks[header.hash] = block
        commands: list[Command] = []
        early = self._early.pop(header.hash, {})
        self._held -= len(early)
        for source, log in early.values():
            commands += self._take(block, source, log, now)
        for gone in [h for h, logs in self._early.items() if self._is_past(next(iter(logs.values()))[1].number)]:
            self._held -= len(self._early.pop(gone))
        if len(self._open) > LONGEST_BACKLOG:
            commands += self._give_up(1, "too_many_blocks")
        return commands + self._go_on(now)

    def dropped(self, header: Header, now: float) -> list[Command]:
        """The feed of heads abandoned its newest block."""
        block = self._blocks.pop(header.hash, None)
        if block is None:
            if self._start is None:
                return []
            if header.number < self._start:
                self._start = header.number  # who has its logs from elsewhere is told those that replace them
                if self._denies(header):
                    return []
            return [LogGap(header.number, header.number, "reorganisation_too_deep")]
        (self._open if self._open else self._settled).pop()
        self._pushers.forgive(block)
        self._held -= len(block.waits)
        self._told -= len(block.told)
        return [Tell(replace(log, removed=True)) for log in reversed(block.told.values())]

    def gap(self, low: int, high: int, now: float) -> list[Command]:
        """The feed of heads could not tell these blocks."""
        return [LogGap(low, high, "blocks_missed")] if self._start is not None else []

    # --- fetches ----------------------------------------------------------------------------------

    def fetched(self, blocks: Sequence[Header], logs: Mapping[str, Sequence[Log]], now: float) -> list[Command]:
        """The answer to a fetch: logs by block hash.  A block that is absent was not answered for."""
        self._out = ()
        commands: list[Command] = []
        news = False
        for header in blocks:
            block = self._blocks.get(header.hash)
            if block is None:
                news = True  # it was dropped meanwhile: the next fetch is another one
            elif header.hash in logs and header.number >= (self._start or 0):
                if logs[header.hash] and block.denied:
                    self._deny(now)
                believed, told = self._answered(block, logs[header.hash], now)
                news = news or believed
                commands += told
        if news:
            self._pause = FIRST_PAUSE
        else:
            self._retry_at = now + self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        return commands + self._go_on(now)

    def fetch_failed(self, now: float) -> list[Command]:
        """The fetch brought nothing; it is repeated after a pause."""
        return self.fetched((), {}, now)

    def tick(self, now: float) -> list[Command]:
        """Time passed.  Called about every 50 ms."""
        if self._out and now - self._out_since > LONGEST_ANSWER:
            return self.fetch_failed(now)  # nobody will answer it any more
        return [*self._go_on(now), *map(Missed, self._pushers.missed(now))]

    # --- what is learned of a block ---------------------------------------------------------------

    def _knows(self, header: Header) -> bool:
        """Does its bloom filter say something?"""
        return bool(header.bloom) and self._blooms_seen and not self._blooms_lie

    def _denies(self, header: Header) -> bool:
        """Does its bloom filter say that there is no log?"""
        return self._knows(header) and not self._may_match(header.bloom)

    def _is_past(self, number: int) -> bool:
        return number < (self._start or 0) or number <= self._highest - HELD_BELOW

    def _hold(self, source: int, log: Log, now: float) -> None:
        """Keep a log whose block is not on the chain, or not yet."""
        if self._start is not None and self._is_past(log.number):
            return
        if self._held >= MOST_HELD:
            self._lose_track(now)
            return
        if self._early.setdefault(log.block, {}).setdefault(log.index, (source, log))[1] is log:
            self._held += 1

    def _lose_track(self, now: float) -> None:
        """Too many logs wait: forget them, and trust no source with the blocks they may be of."""
        self._early.clear()
        self._held = 0
        for pusher in self._pushers.values():
            pusher.begin(NEVER, now)
        for block in self._open:
            if block.waits or block.state is State.UNSURE:
                block.waits.clear()
                block.open(now)

    def _deny(self, now: float) -> None:
        """There is a log in a block whose bloom filter had none: filters of this chain count for nothing."""
        self._blooms_lie = True
        self._open.extendleft(reversed(self._settled))
        self._settled.clear()
        for block in self._open:
            block.done = block.known = False
            if block.denied and block.header.number >= (self._start or 0):
                block.denied = False
                block.open(now)

    def _take(self, block: Block, source: int, log: Log, now: float) -> list[Command]:
        """A pushed log of a block on the chain."""
        if block.header.number < (self._start or 0):
            return []
        self._pushers.pushed(source, block)
        if block.denied:
            self._deny(now)
        if self._held >= MOST_HELD and not block.knows(log.index):
            self._lose_track(now)
            return []
        commands = self._add(block, [log], False)
        pusher = self._pushers.get(source)
        if pusher is not None and pusher.covers(block, now) and not block.done:
            if block.state is State.OPEN:
                block.state = State.UNSURE
            block.source = source
            for earlier in takewhile(lambda earlier: earlier is not block, self._open):
                if earlier.state is State.UNSURE and pusher.covers(earlier, now):
                    earlier.state = State.SETTLED
        return commands

    def _add(self, block: Block, logs: Iterable[Log], late: bool) -> list[Command]:
        """Logs that are to be told: at once where everything before them was."""
        news = [log for log in logs if not block.knows(log.index)]
        if block.lost or not news:
            return []
        if block.done or any(block.is_past(log.index) for log in news):
            return self._tell(block, [(log, late) for log in news])
        for log in news:
            block.waits[log.index] = (log, late)
        self._held += len(news)
        return []

    def _answered(self, block: Block, logs: Sequence[Log], now: float) -> tuple[bool, list[Command]]:
        """A fetch says what logs a block has.  Whether that is believed, and what is told at once."""
        found = {log.index: log for log in logs}
        if block.doubts < DOUBTS and any(index not in found for index in chain(block.told, block.waits)):
            block.doubts += 1
            return False, []
        news = any(not block.knows(index) for index in found)
        commands = self._add(block, found.values(), True)
        block.state = State.SETTLED
        if news:
            self._pushers.owe(block, now, self._settings.sure_after)
        return True, commands

    # --- doing ------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> list[Command]:
        """Tell what can be told, ask for what is due."""
        self._believe_silences(now)
        commands = self._tell_settled(now)
        if len(self._open) > 1 and self._open[0].state is State.OPEN:  # what holds nothing back is never given up
            first, waits = self._open[0], self._open[1]
            if now - max(first.since, waits.since, self._first[1]) > self._settings.give_up_after:
                patient = now - self._settings.give_up_after / 2
                lost = next(
                    (i for i, b in enumerate(self._open) if b.state is not State.OPEN or b.since > patient), None
                )
                commands += self._give_up(lost if lost is not None else len(self._open), "not_found")
                commands += self._tell_settled(now)
        if not self._out and now >= self._retry_at:
            self._out, self._out_since = self._due(now), now
            if self._out:
                commands.append(FetchLogs(self._out))
        return commands

    def _believe_silences(self, now: float) -> None:
        """Where blooms say nothing, a source that pushes now and then is believed when it pushes nothing."""
        spoke_later: set[int] = set()
        for block in reversed(self._open):
            if block.state is State.OPEN and not block.known and now - block.since >= self._settings.patience:
                for source, pusher in self._pushers.items():
                    if pusher.believed_silent(block, now):
                        block.state, block.source = State.UNSURE, source
                        if source in spoke_later:
                            block.state = State.SETTLED
                            break
            if block.told or block.waits:
                spoke_later.add(block.source)

    def _tell_settled(self, now: float) -> list[Command]:
        """Tell, from the first block that is not settled and told on, what may be told."""
        commands: list[Command] = []
        while self._open and self._open[0].state is not State.OPEN:
            block = self._open[0]
            self._held -= len(block.waits)
            if block.waits:
                commands += self._tell(block, list(block.waits.values()))
                block.waits.clear()
            if block.state is State.UNSURE:
                break
            block.done = True
            self._settled.append(self._open.popleft())
        if self._open and self._first[0] != self._open[0].header.hash:
            self._first = (self._open[0].header.hash, now)
        while self._settled and (len(self._settled) > self._settings.memory or self._told > MOST_TOLD):
            gone = self._settled.popleft()
            del self._blocks[gone.header.hash]
            self._told -= len(gone.told)
        return commands

    def _tell(self, block: Block, news: list[tuple[Log, bool]]) -> list[Command]:
        """Tell these logs of a block in their place: those behind them are taken back, and told again."""
        news.sort(key=lambda new: new[0].index)
        behind = block.after(news[0][0].index) if block.is_past(news[0][0].index) else []
        block.tell([log for log, _ in news])
        self._told += len(news)
        again = sorted([*news, *((log, True) for log in behind)], key=lambda new: new[0].index) if behind else news
        told: list[Command] = [Tell(log, late) for log, late in again]
        if block.done or self._blooms_lie:  # else no later block was told
            others = takewhile(lambda other: other is not block, chain(reversed(self._open), reversed(self._settled)))
            later = [log for other in reversed([*others]) for log in other.told.values()]
            behind += later
            told += [Tell(log, True) for log in later]
        return [*(Tell(replace(log, removed=True)) for log in reversed(behind)), *told] if behind else told

    def _give_up(self, count: int, why: str) -> list[Command]:
        """Settle the first so many blocks, whatever is known of them."""
        lost = [block for block in islice(self._open, count) if block.state is State.OPEN]
        for block in lost:
            block.lost = True
        for block in islice(self._open, count):
            block.state = State.SETTLED
        return [LogGap(lost[0].header.number, lost[-1].header.number, why)] if lost else []

    def _is_due(self, block: Block, now: float) -> bool:
        """Must this block be fetched, by itself or because it holds something back?"""
        waited = now - block.since
        if block.state is State.OPEN:
            awaited = any(pusher.may_push(block, now) for pusher in self._pushers.values())
            return waited >= self._settings.patience or not awaited
        if block.waits:  # held back by an earlier one
            return waited >= self._settings.patience
        grown_old = self._highest - block.header.number >= self._settings.memory
        return grown_old or (not block.told and waited >= CHECKED_EVERY)

    def _due(self, now: float) -> tuple[Header, ...]:
        """The blocks of the next fetch: from the first that is not settled to the last that is due."""
        last = -1
        for place, block in enumerate(self._open):
            if (block.waits or block.state is not State.SETTLED) and self._is_due(block, now):
                last = place
        chosen: list[Header] = []
        bridge: list[Header] = []
        for block in islice(self._open, last + 1):
            before = (bridge or chosen)[-1:]
            if before and block.header.number != before[0].number + 1:
                break
            bridge.append(block.header)
            if len(chosen) + len(bridge) > self._settings.fetch_blocks or len(bridge) > BRIDGE + 1:
                break
            if block.state is not State.SETTLED:
                chosen += bridge
                bridge = []
        return tuple(chosen)

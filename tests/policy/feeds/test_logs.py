"""The feed of logs: what a caller holds who does as told is the logs of the chain, in its order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gateway.events import Header, Log
from gateway.policy.feeds import logs, pushers
from gateway.policy.feeds.logs import Command, FetchLogs, LogFeed, LogFeedSettings, LogGap, Missed, Tell
from tests.policy.blockworld import Tree
from tests.policy.feeds import test_heads as heads

DEFAULTS = LogFeedSettings()
SHELL_WAITS = 4.0  # seconds after which the shell says that a fetch failed
MATCH, NO_MATCH = b"\x01", b"\x02"


class LogTree(Tree):
    """A tree whose blocks have logs.  `blooms` is what headers say of them: good, missing or lies."""

    def __init__(self, chance: Random, blooms: str = "good", density: float = 0.5) -> None:
        self._chance = chance
        self._blooms = blooms
        self._density = density
        self.logs: dict[str, list[Log]] = {}
        super().__init__()

    def _made(self, number: int, parent: str) -> Header:
        header = super()._made(number, parent)
        count = self._chance.choice((1, 1, 2, 4)) if self._chance.random() < self._density else 0
        start = self._chance.randrange(3)
        self.logs[header.hash] = [Log(number, header.hash, start + 2 * i) for i in range(count)]
        bloom = MATCH if count or self._chance.random() < 0.2 else NO_MATCH
        if self._blooms == "missing" or (self._blooms == "some" and self._chance.random() < 0.5):
            bloom = b""
        elif self._blooms == "zero":
            bloom = bytes(8)
        header = replace(header, bloom=bloom)
        self.headers[header.hash] = header
        return header


class Listener:
    """What a caller holds who does as told, and the laws of what it may be told."""

    def __init__(self) -> None:
        self.held: list[Log] = []
        self.told = self.removed = self.late = 0
        self.gaps: list[LogGap] = []
        self.missed: list[int] = []

    def take(self, commands: Iterable[Command]) -> list[FetchLogs]:
        fetches = []
        for command in commands:
            match command:
                case Tell(log, late):
                    self._hold(log)
                    self.late += late
                case LogGap():
                    assert command.low <= command.high
                    self.gaps.append(command)
                case Missed(source):
                    self.missed.append(source)
                case FetchLogs(blocks):
                    numbers = [block.number for block in blocks]
                    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "not contiguous"
                    fetches.append(command)
        assert len(fetches) <= 1
        return fetches

    def _hold(self, log: Log) -> None:
        if log.removed:
            self.removed += 1
            assert self.held, "removed what was never told"
            assert self.held.pop() == replace(log, removed=False), "removed is not the newest first"
            return
        self.told += 1
        assert not self.held or (self.held[-1].number, self.held[-1].index) < (log.number, log.index), "out of order"
        assert not self.held or self.held[-1].number < log.number or self.held[-1].block == log.block, "of two branches"
        self.held.append(log)


class Rig:
    """A feed on a chain that is told, with nodes that push logs and fetches that are answered."""

    def __init__(self, tree: LogTree, settings: LogFeedSettings = DEFAULTS, nodes: int = 2) -> None:
        self.tree = tree
        self.now = 0.0
        self.feed = LogFeed(settings, lambda bloom: bloom != NO_MATCH, 0.0)
        self.listener = Listener()
        self.tip: Header | None = None
        self.start = 0
        self.at = [tree.best] * nodes
        self.queues: list[list[Log]] = [[] for _ in range(nodes)]
        self.sources: dict[int, int] = {}
        self.out: FetchLogs | None = None
        self.out_since = 0.0
        self.fetched_blocks = 0
        self._numbers = 0

    def do(self, commands: list[Command]) -> None:
        for fetch in self.listener.take(commands):
            assert self.out is None, "a second fetch while one is out"
            self.out, self.out_since = fetch, self.now
            self.fetched_blocks += len(fetch.blocks)

    def join(self, node: int) -> int:
        self._numbers += 1
        self.sources[self._numbers] = node
        if list(self.sources.values()).count(node) == 1:
            self.queues[node].clear()
        self.feed.joined(self._numbers, self.now)
        return self._numbers

    def leave(self, source: int) -> None:
        del self.sources[source]
        self.do(self.feed.left(source, self.now))

    def follow(self, to: Header) -> None:
        """The feed of heads goes to this block."""
        if self.tip is None:
            self.start = to.number
            self.tip = to
            self.do(self.feed.added(to, self.now))
            return
        news = self.tree.between(self.tip, to)
        if not news:
            return
        while self.tip.hash != news[0].parent:
            self.do(self.feed.dropped(self.tip, self.now))
            self.start = min(self.start, self.tip.number)
            self.tip = self.tree.headers[self.tip.parent]
        for header in news:
            self.tip = header
            self.do(self.feed.added(header, self.now))

    def go(self, node: int, to: Header) -> None:
        """A node goes to this block; what it pushes waits."""
        news = self.tree.between(self.at[node], to)
        if news:
            old = self.at[node]
            while old.hash != news[0].parent:
                self.queues[node] += [replace(log, removed=True) for log in reversed(self.tree.logs[old.hash])]
                old = self.tree.headers[old.parent]
        self.queues[node] += [log for header in news for log in self.tree.logs[header.hash]]
        self.at[node] = to

    def push(self, node: int, count: int = 1000) -> None:
        for log in self.queues[node][:count]:
            for source in [source for source, of in self.sources.items() if of == node]:
                self.do(self.feed.pushed(source, log, self.now))
        del self.queues[node][:count]

    def shuffle(self, node: int, chance: Random) -> None:
        """What a node is about to push comes in another order."""
        chance.shuffle(self.queues[node])

    def answer(self, chance: Random | None = None) -> None:
        """The fetch is answered; with `chance` some blocks are not."""
        fetch, self.out = self.out, None
        assert fetch is not None
        found = {b.hash: self.tree.logs[b.hash] for b in fetch.blocks if chance is None or chance.random() < 0.6}
        self.do(self.feed.fetched(fetch.blocks, found, self.now))

    def fail(self) -> None:
        self.out = None
        self.do(self.feed.fetch_failed(self.now))

    def wait(self, seconds: float, answering: bool = False) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            if self.out is not None and self.now - self.out_since > SHELL_WAITS:
                self.fail()
            self.now += 0.05
            self.do(self.feed.tick(self.now))
            if answering and self.out is not None:
                self.answer()

    def calm(self, pushed: bool) -> None:
        """Everything works from now on."""
        if self.out is not None:
            self.fail()
        for source in list(self.sources):
            self.leave(source)
        for node in range(len(self.at)):
            self.go(node, self.tree.best)
        self.follow(self.tree.best)
        if pushed:
            self.join(0)
        for _ in range(8):
            self.tree.grow()
            self.go(0, self.tree.best)
            self.push(0)
            self.follow(self.tree.best)
            self.wait(2.0, answering=True)

    def owed(self) -> list[Log]:
        """The logs of the chain from where the feed started, without those that it gave up."""
        line = [header for header in self.tree.line(self.tree.best) if header.number >= self.start]
        return [log for header in line for log in self.tree.logs[header.hash]]

    def check_calm(self) -> None:
        owed = self.owed()
        if not self.listener.gaps:
            assert self.listener.held == owed
        else:
            lost = {n for gap in self.listener.gaps for n in range(gap.low, gap.high + 1)}
            assert [log for log in self.listener.held if log.number not in lost] == [
                log for log in owed if log.number not in lost
            ]


class Weather:
    """Random events on a rig, from one generator."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = Random(seed)
        tree = LogTree(
            chance, chance.choice(("good", "good", "some", "missing", "zero")), chance.choice((0.1, 0.5, 0.9))
        )
        self.rig = Rig(tree, nodes=chance.randint(1, 3))
        if chance.random() < 0.7:
            self.rig.join(0)
        self.shuffles = chance.choice((0, 0, 8))

    def step(self) -> None:
        rig, chance = self.rig, self.chance
        node = chance.randrange(len(rig.at))
        event = chance.choices(
            ("grow", "reorganise", "split", "move", "shuffle", "push", "live", "follow", "astray", "join", "leave",
             "answer", "part", "fail", "wait"),
            (10, 3, 1, 14, self.shuffles, 12, 10, 14, 2, 3, 2, 14, 4, 3, 12),
        )[0]  # fmt: skip
        if event == "grow":
            rig.tree.grow(chance.choice((1, 1, 1, 2, 3, 12)))
        elif event == "reorganise":
            rig.tree.reorganise(chance.choice((1, 1, 2, 3, 6, 14)), chance.choice((0, 1, 1, 2)))
        elif event == "split":
            rig.go(node, rig.tree.child(rig.at[node]))
        elif event == "move":
            rig.go(node, rig.tree.best)
        elif event == "shuffle":
            rig.shuffle(node, chance)
        elif event == "push":
            rig.push(node, chance.randint(1, 5))
        elif event == "live":
            rig.go(node, rig.tree.best)
            rig.push(node)
            rig.follow(rig.tree.best)
        elif event == "follow":
            rig.follow(rig.tree.best)
        elif event == "astray":
            rig.follow(rig.at[node])
        elif event == "join" and len(rig.sources) < 3:
            rig.join(node)
        elif event == "leave" and rig.sources:
            rig.leave(chance.choice(list(rig.sources)))
        elif event == "wait":
            rig.wait(chance.choice((0.05, 0.3, 1.0, 3.0)))
        elif rig.out is not None and event == "answer":
            rig.answer()
        elif rig.out is not None and event == "part":
            rig.answer(chance)
        elif rig.out is not None and event == "fail":
            rig.fail()


def storm(seed: int, steps: int) -> Weather:
    weather = Weather(seed)
    for _ in range(steps):
        weather.step()
    return weather


def test_whatever_happens_callers_hold_the_logs_of_the_chain() -> None:
    n, told, removed, late, gaps = 1000, 0, 0, 0, 0
    for seed in range(n):
        rig = storm(seed, 120).rig
        rig.calm(pushed=seed % 3 > 0)
        rig.check_calm()
        told, removed = told + rig.listener.told, removed + rig.listener.removed
        late, gaps = late + rig.listener.late, gaps + len(rig.listener.gaps)
    print(f"{told:,} told ({late:,} late), {removed:,} removed, {gaps} gaps (n={n}, seeds 0-{n - 1})")
    assert removed > n


class AnyOrder(RuleBasedStateMachine):
    """The same events, chosen by Hypothesis, with a calm at the end of each run."""

    def __init__(self) -> None:
        super().__init__()
        self.rig: Rig | None = None

    NODES = st.integers(0, 1)

    @initialize(seed=st.integers(0, 99), blooms=st.sampled_from(("good", "missing", "zero")))
    def begins(self, seed: int, blooms: str) -> None:
        self.rig = Rig(LogTree(Random(seed), blooms))

    def _rig(self) -> Rig:
        assert self.rig is not None
        return self.rig

    @rule(count=st.sampled_from((1, 2, 5, 30)))
    def the_chain_grows(self, count: int) -> None:
        self._rig().tree.grow(count)

    @rule(depth=st.sampled_from((1, 2, 5, 20)), longer=st.integers(0, 2))
    def the_chain_reorganises(self, depth: int, longer: int) -> None:
        self._rig().tree.reorganise(depth, longer)

    @rule()
    def callers_are_told_the_chain(self) -> None:
        self._rig().follow(self._rig().tree.best)

    @rule(node=NODES)
    def callers_are_told_where_a_node_is(self, node: int) -> None:
        self._rig().follow(self._rig().at[node])

    @rule(node=NODES)
    def a_node_follows(self, node: int) -> None:
        self._rig().go(node, self._rig().tree.best)

    @rule(node=NODES, count=st.sampled_from((1, 2, 3, 100)))
    def a_node_pushes(self, node: int, count: int) -> None:
        self._rig().push(node, count)

    @rule(node=NODES, seed=st.integers(0, 9))
    def what_a_node_pushes_comes_in_another_order(self, node: int, seed: int) -> None:
        self._rig().shuffle(node, Random(seed))

    @rule(node=NODES)
    def a_source_joins(self, node: int) -> None:
        if len(self._rig().sources) < 3:
            self._rig().join(node)

    @rule()
    def the_oldest_source_leaves(self) -> None:
        if self._rig().sources:
            self._rig().leave(next(iter(self._rig().sources)))

    @rule(seed=st.one_of(st.none(), st.integers(0, 9)))
    def a_fetch_is_answered(self, seed: int | None) -> None:
        if self._rig().out is not None:
            self._rig().answer(Random(seed) if seed is not None else None)

    @rule()
    def a_fetch_fails(self) -> None:
        if self._rig().out is not None:
            self._rig().fail()

    @rule(seconds=st.sampled_from((0.05, 0.3, 2.5, 6.0)))
    def time_passes(self, seconds: float) -> None:
        self._rig().wait(seconds)

    def teardown(self) -> None:
        if self.rig is not None:
            self.rig.calm(pushed=True)
            self.rig.check_calm()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = examples(max_examples=60, stateful_step_count=50, deadline=None)


class Both(heads.Rig):
    """A feed of heads that drives a feed of logs, as in the gateway."""

    def __init__(self, seed: int) -> None:
        super().__init__(heads.SMALL)
        self.tree = LogTree(Random(seed))
        self.nodes = [heads.Node(self.tree.best) for _ in range(2)]
        self.logs = Rig(self.tree, LogFeedSettings(memory=16, fetch_blocks=5, give_up_after=5.0))

    def do(self, commands: list[heads.Command]) -> None:
        super().do(commands)
        self.logs.now = self.now
        for command in commands:
            if isinstance(command, heads.Gap):
                self.logs.do(self.logs.feed.gap(command.low, command.high, self.now))
            elif isinstance(command, heads.Told):
                for gone in command.dropped:
                    self.logs.do(self.logs.feed.dropped(gone, self.now))
                self.logs.do(self.logs.feed.added(command.header, self.now))

    def wait(self, seconds: float, answering: bool = False) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            super().wait(0.05, answering)
            self.logs.wait(0.0)
            self.logs.now = self.now
            self.logs.do(self.logs.feed.tick(self.now))
            if answering and self.logs.out is not None:
                self.logs.answer()


def test_driven_by_a_feed_of_heads_what_is_held_is_the_logs_of_the_blocks_that_were_told() -> None:
    n, told, removed, gaps = 200, 0, 0, 0
    for seed in range(n):
        weather = heads.Weather(seed)
        rig = weather.rig = Both(seed)
        listener = rig.logs.listener
        for step in range(120):
            weather.step()
            if rig.logs.out is not None and step % 3:
                rig.logs.answer(Random(step) if step % 2 else None)
        rig.calm(pushed=seed % 2 > 0)
        rig.check_calm()
        lost = {number for gap in listener.gaps for number in range(gap.low, gap.high + 1)}
        owed = [log for header in rig.listener.held for log in rig.tree.logs[header.hash] if log.number not in lost]
        assert [log for log in listener.held if log.number not in lost] == owed
        told, removed, gaps = told + listener.told, removed + listener.removed, gaps + len(listener.gaps)
    print(f"{told:,} told, {removed:,} removed, {gaps} gaps (n={n}, seeds 0-{n - 1})")
    assert removed > n / 2


# --- the fast path ----------------------------------------------------------------------------------


class Chain:
    """A straight chain whose blocks have the logs that a test says, and a feed on it.

    `joined`: with source 1; `known`: that has pushed a log, so that the feed knows what it covers.
    """

    def __init__(self, joined: bool = True, known: bool = True, settings: LogFeedSettings = DEFAULTS) -> None:
        self.feed = LogFeed(settings, lambda bloom: bloom == MATCH, 0.0)
        self.now = 0.0
        self.number = 100
        self.blocks: dict[int, Header] = {}
        self.out: FetchLogs | None = None
        if joined:
            self.feed.joined(1, 0.0)
        self.told: list[tuple[int, int, bool]] = []  # number, index, late
        self.listener = Listener()
        self.removed: list[tuple[int, int]] = []
        self.missed: list[int] = []
        self.gaps: list[LogGap] = []
        self.fetches: list[tuple[int, ...]] = []
        self.truth: dict[int, set[int]] = {}  # what was pushed is so
        if known:
            for match in (False, True):
                self.block(match)
            self.push(1, 0)
            self.answer()
            self.wait(10.0)
            assert self.told == [(102, 0, False)]
            self.told.clear()
            self.fetches.clear()

    def do(self, commands: Iterable[Command]) -> None:
        for command in commands:
            match command:
                case Tell(log, late):
                    self.listener.take([command])
                    if log.removed:
                        self.removed.append((log.number, log.index))
                    else:
                        self.told.append((log.number, log.index, late))
                case FetchLogs(blocks):
                    assert self.out is None
                    self.out = command
                    self.fetches.append(tuple(block.number for block in blocks))
                case LogGap():
                    self.gaps.append(command)
                case Missed(source):
                    self.missed.append(source)

    def block(self, match: bool | None = False, branch: str = "") -> int:
        """The next block is told; `match` None: its header has no bloom filter."""
        self.number += 1
        bloom = b"" if match is None else MATCH if match else NO_MATCH
        header = Header(self.number, f"{self.number}{branch}", f"{self.number - 1}", bloom=bloom)
        self.blocks[self.number] = header
        self.do(self.feed.added(header, self.now))
        return self.number

    def drop(self) -> None:
        self.do(self.feed.dropped(self.blocks.pop(self.number), self.now))
        self.number -= 1

    def push(self, source: int, index: int, number: int | None = None, branch: str = "") -> None:
        number = self.number if number is None else number
        self.truth.setdefault(number, set()).add(index)
        self.do(self.feed.pushed(source, Log(number, f"{number}{branch}", index), self.now))

    def answer(self, logs: dict[int, tuple[int, ...]] | None = None, only: tuple[int, ...] | None = None) -> None:
        """The fetch is answered: with these indices by block and all that were pushed; blocks of `only`, if given."""
        for number, indices in (logs or {}).items():
            self.truth.setdefault(number, set()).update(indices)
        if self.out is None:
            return
        fetch, self.out = self.out, None
        found = {
            block.hash: [Log(block.number, block.hash, index) for index in self.truth.get(block.number, ())]
            for block in fetch.blocks
            if only is None or block.number in only
        }
        self.do(self.feed.fetched(fetch.blocks, found, self.now))

    def fail(self) -> None:
        self.out = None
        self.do(self.feed.fetch_failed(self.now))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now += 0.05
            self.do(self.feed.tick(self.now))


def test_pushed_logs_of_a_trusted_source_are_told_at_once_and_nothing_is_fetched() -> None:
    chain = Chain()
    for _ in range(50):
        number = chain.block(match=True)
        chain.push(1, 0)
        chain.push(1, 1)
        assert chain.told[-2:] == [(number, 0, False), (number, 1, False)]
        chain.wait(2.0)
    assert chain.fetches == []


def test_a_block_whose_bloom_filter_has_no_match_costs_nothing() -> None:
    chain = Chain(joined=False, known=False)
    chain.block(match=True)
    chain.answer()
    chain.fetches.clear()
    for _ in range(50):
        chain.block()
        chain.wait(2.0)
    assert chain.fetches == []


def test_without_a_source_a_block_that_may_match_is_fetched_at_once() -> None:
    chain = Chain(joined=False, known=False)
    number = chain.block(match=True)
    assert chain.fetches == [(number,)]
    chain.answer({number: (3, 1)})
    assert chain.told == [(number, 1, True), (number, 3, True)]


def test_a_block_of_which_nothing_is_pushed_is_fetched_after_a_moment() -> None:
    chain = Chain()
    number = chain.block(match=True)
    chain.wait(0.2)
    assert chain.fetches == []
    chain.wait(0.1)
    assert chain.fetches[-1][-1] == number


def test_what_comes_later_waits_for_a_block_that_is_not_known() -> None:
    chain = Chain(joined=False, known=False)
    first = chain.block(match=True)
    chain.feed.joined(1, chain.now)
    second = chain.block(match=True)
    chain.push(1, 0)
    assert chain.told == []
    chain.answer({first: (7,)})
    assert chain.told == [(first, 7, True)]
    chain.answer({second: (0,)})
    assert chain.told == [(first, 7, True), (second, 0, False)]


def test_a_log_that_comes_before_its_block_is_told_with_it() -> None:
    chain = Chain()
    chain.push(1, 4, number=chain.number + 1)
    assert chain.told == []
    number = chain.block(match=True)
    assert chain.told == [(number, 4, False)]


def test_logs_of_blocks_before_the_first_are_never_told() -> None:
    chain = Chain(joined=False, known=False)
    chain.feed.joined(1, 0.0)
    chain.push(1, 0, number=99)
    chain.block(match=True)
    chain.answer()
    chain.push(1, 0, number=99)
    chain.push(1, 0, number=100)
    chain.wait(10.0)
    assert chain.told == []


@pytest.mark.parametrize("match", [True, False])
def test_what_replaces_blocks_before_the_first_is_told_and_what_they_had_is_a_gap(match: bool) -> None:
    """Callers ask for the newest logs when they have subscribed, and then rely on what they are told."""
    chain = Chain()
    first = min(chain.blocks)
    while chain.number >= first:
        chain.drop()
    before = Header(first - 1, f"{first - 1}", f"{first - 2}", bloom=MATCH if match else NO_MATCH)
    chain.removed.clear()
    chain.do(chain.feed.dropped(before, chain.now))
    assert chain.gaps == ([LogGap(first - 1, first - 1, "reorganisation_too_deep")] if match else [])
    chain.number = first - 2
    for _ in range(3):
        chain.block(True, branch="b")
    for _ in range(3):
        chain.wait(1.0)
        chain.answer({first - 1: (3,), first + 1: (4,)})
    assert chain.told == [(first - 1, 3, True), (first + 1, 0, True), (first + 1, 4, True)]


def test_a_second_source_changes_nothing_that_callers_see() -> None:
    chain = Chain()
    chain.feed.joined(2, chain.now)
    for _ in range(20):
        chain.wait(1.0)
        number = chain.block(match=True)
        chain.push(1, 0)
        chain.push(2, 0)
        chain.push(2, 1)
        chain.push(1, 1)
        chain.answer({number: (0, 1)})
        assert chain.told[-2:] == [(number, 0, False), (number, 1, False)]
    assert len(chain.told) == 40


# --- sources that push out of order -----------------------------------------------------------------


def test_logs_of_a_block_wait_for_those_of_an_earlier_one_that_come_later() -> None:
    chain = Chain()
    first, second = chain.block(match=True), chain.block(match=True)
    chain.push(1, 0, number=second)
    assert chain.told == []
    chain.push(1, 0, number=first)
    chain.wait(0.5)
    chain.answer()
    assert [told[:2] for told in chain.told] == [(first, 0), (second, 0)]
    assert chain.removed == []


def test_logs_of_a_block_wait_for_those_of_an_earlier_one_that_never_come_until_they_are_fetched() -> None:
    chain = Chain()
    first, second = chain.block(match=True), chain.block(match=True)
    chain.push(1, 0, number=second)
    chain.wait(0.3)
    assert chain.told == []
    assert chain.fetches[-1] == (first, second)
    chain.answer({first: (7,)})
    assert chain.told == [(first, 7, True), (second, 0, False)]


@pytest.mark.parametrize("early", [True, False])
def test_a_source_that_pushes_blocks_in_another_order_costs_no_order_no_log_and_no_removal(early: bool) -> None:
    """Whether its logs come before or after their blocks are known."""
    chain = Chain()
    expected = []
    for _ in range(20):
        first = chain.number + 1
        if not early:
            chain.block(match=True), chain.block(match=True)
        for number, index in ((first + 1, 0), (first + 1, 1), (first, 0), (first, 1)):
            chain.push(1, index, number=number)
        if early:
            chain.block(match=True), chain.block(match=True)
        expected += [(first, 0), (first, 1), (first + 1, 0), (first + 1, 1)]
        chain.wait(0.5)
        chain.answer()
        chain.wait(0.5)
        chain.answer()
        assert [told[:2] for told in chain.told] == expected
    assert chain.removed == []


def test_a_source_once_caught_out_of_order_is_confirmed_by_fetches_and_trusted_again_after_a_while() -> None:
    chain = Chain()
    first, second = chain.block(match=True), chain.block(match=True)
    chain.push(1, 0, number=second)
    chain.push(1, 0, number=first)
    chain.wait(1.0)
    chain.answer()
    chain.fetches.clear()
    number = chain.block(match=True)
    chain.push(1, 0)
    assert chain.told[-1][0] == second, "it is not told before it is confirmed"
    chain.answer()
    assert chain.told[-1] == (number, 0, False)
    chain.wait(pushers.SHUFFLES_FOR)
    chain.fetches.clear()
    for _ in range(5):
        chain.wait(1.0)
        number = chain.block(match=True)
        chain.push(1, 0)
        assert chain.told[-1] == (number, 0, False)
    assert chain.fetches == []


def test_a_log_that_comes_when_later_ones_have_been_told_is_put_in_its_place() -> None:
    chain = Chain()
    first = chain.block(match=True)
    chain.push(1, 1)
    chain.push(1, 5)
    second = chain.block(match=True)
    chain.push(1, 0)
    assert [told[:2] for told in chain.told] == [(first, 1), (first, 5), (second, 0)]
    chain.told.clear()
    chain.push(1, 3, number=first)
    assert chain.removed == [(second, 0), (first, 5)]
    assert [told[:2] for told in chain.told] == [(first, 3), (first, 5), (second, 0)]
    chain.drop()
    chain.drop()
    assert chain.removed[2:] == [(second, 0), (first, 5), (first, 3), (first, 1)]


def test_logs_that_a_fetch_finds_before_told_ones_are_put_in_their_place_together() -> None:
    chain = Chain()
    number = chain.block(match=True)
    chain.push(1, 5)
    chain.do(chain.feed.left(1, chain.now))
    chain.answer({number: (1, 2, 9)})
    assert chain.removed == [(number, 5)]
    assert [told[:2] for told in chain.told] == [(number, 5), (number, 1), (number, 2), (number, 5), (number, 9)]


def test_logs_of_a_new_branch_are_not_out_of_order() -> None:
    """A node takes the logs of the old branch back first, and then begins again below them."""
    chain = Chain()
    first, second = chain.block(match=True), chain.block(match=True)
    chain.push(1, 0, number=first)
    chain.push(1, 0, number=second)
    for number in (second, first):
        chain.do(chain.feed.pushed(1, Log(number, str(number), 0, removed=True), chain.now))
    chain.drop()
    chain.drop()
    for _ in range(2):
        chain.block(match=True, branch="b")
        chain.push(1, 0, branch="b")
        chain.wait(1.0)
        chain.answer()
    chain.fetches.clear()
    number = chain.block(match=True)
    chain.push(1, 0)
    assert chain.told[-1] == (number, 0, False)
    assert chain.fetches == []


# --- losses -----------------------------------------------------------------------------------------


def test_when_a_source_dies_within_a_block_the_rest_of_it_is_fetched_before_anything_later_is_told() -> None:
    chain = Chain()
    number = chain.block(match=True)
    chain.push(1, 0)
    chain.do(chain.feed.left(1, chain.now))
    assert chain.fetches == [(number,)]
    later = chain.block(match=True)
    chain.answer({number: (0, 1, 2)})
    chain.answer({later: (0,)})
    assert chain.told == [(number, 0, False), (number, 1, True), (number, 2, True), (later, 0, True)]


def test_however_long_ago_its_last_log_was_it_is_looked_up_when_the_source_dies() -> None:
    chain = Chain()
    number = chain.block(match=True)
    chain.push(1, 0)
    for _ in range(40):
        chain.block()
        chain.wait(12.0)
    chain.do(chain.feed.left(1, chain.now))
    chain.answer({number: (0, 1)})
    assert chain.told == [(number, 0, False), (number, 1, True)]


def test_a_new_source_is_not_trusted_with_blocks_that_were_there_before_it() -> None:
    chain = Chain()
    chain.do(chain.feed.left(1, chain.now))
    chain.answer()
    missing = chain.block(match=True)
    chain.feed.joined(2, chain.now)
    after = chain.block(match=True)
    chain.push(2, 0)
    assert chain.told == []
    chain.answer({missing: (5,)})
    chain.wait(1.0)
    chain.answer({missing: (5,), after: (0,)})
    assert chain.told == [(missing, 5, True), (after, 0, False)]


def test_a_source_that_pushes_nothing_twice_although_there_was_something_is_named() -> None:
    chain = Chain()
    for expected in ([], [1]):
        number = chain.block(match=True)
        chain.wait(0.5)
        chain.answer({number: (0,)})
        chain.wait(3.0)
        assert chain.missed == expected


def test_a_source_that_is_only_slow_is_not_named() -> None:
    chain = Chain()
    for _ in range(5):
        number = chain.block(match=True)
        chain.wait(0.5)
        chain.answer({number: (0,)})
        chain.push(1, 0)
        chain.wait(3.0)
    assert chain.missed == []
    assert len(chain.told) == 5


def test_an_answer_that_lacks_pushed_logs_is_asked_for_again() -> None:
    chain = Chain()
    number = chain.block(match=True)
    chain.push(1, 0)
    chain.do(chain.feed.left(1, chain.now))
    pushed = chain.truth.pop(number)
    chain.answer()
    assert chain.told == [(number, 0, False)]
    chain.truth[number] = pushed
    chain.wait(0.2)
    chain.answer({number: (0, 1)})
    assert chain.told == [(number, 0, False), (number, 1, True)]


def test_a_block_that_was_not_answered_for_is_asked_for_again_with_what_is_behind_it() -> None:
    chain = Chain(joined=False, known=False)
    first = chain.block(match=True)
    second = chain.block(match=True)
    chain.answer(only=())
    chain.wait(0.2)
    chain.answer({first: (1,), second: (2,)}, only=(second,))
    assert chain.told == []
    chain.wait(0.3)
    chain.answer({first: (1,)})
    assert chain.told == [(first, 1, True), (second, 2, True)]


def test_what_was_answered_waits_for_an_unsure_block_only_until_that_is_answered_for() -> None:
    chain = Chain()
    first = chain.block(match=True)
    chain.push(1, 0)
    second = chain.block(match=True)
    chain.wait(0.5)
    chain.answer({second: (4,)}, only=(second,))
    assert chain.told == [(first, 0, False)]
    chain.wait(0.3)
    assert chain.fetches[-1] == (first,)
    chain.answer({first: (1,)})
    assert chain.told == [(first, 0, False), (first, 1, True), (second, 4, True)]


def test_a_fetch_that_fails_is_repeated_after_pauses_that_double() -> None:
    chain = Chain(joined=False, known=False)
    chain.block(match=True)
    at = []
    for _ in range(7):
        while chain.out is None:
            chain.wait(0.05)
        at.append(chain.now)
        chain.fail()
    assert [round(later - earlier, 1) for earlier, later in pairwise(at)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]


def test_logs_that_nobody_can_fetch_are_a_gap_and_the_feed_goes_on_behind_it() -> None:
    chain = Chain(joined=False, known=False)
    low = chain.block(match=True)
    while not chain.gaps:
        chain.wait(1.0)
        high = chain.block(match=True)
        if chain.out is not None:
            chain.fail()
        assert chain.now < 60.0
    assert chain.now >= DEFAULTS.give_up_after
    assert chain.gaps[0].low == low
    assert low < chain.gaps[0].high < high, "what has not been asked for as long is not given up"
    chain.wait(3.0)
    chain.answer({high: (0,)})
    assert chain.told == [(high, 0, True)]


def test_an_answer_that_never_comes_does_not_stop_the_feed() -> None:
    chain = Chain(joined=False, known=False)
    number = chain.block(match=True)
    chain.out = None
    chain.wait(11.0)
    chain.answer({number: (0,)})
    assert chain.told == [(number, 0, True)]


def test_a_gap_of_the_feed_of_heads_is_handed_on() -> None:
    chain = Chain()
    chain.do(chain.feed.gap(200, 300, chain.now))
    assert chain.gaps == [LogGap(200, 300, "blocks_missed")]
    chain.number = 300
    number = chain.block(match=True)
    chain.push(1, 0)
    assert chain.told == [(number, 0, False)]


# --- reorganisations --------------------------------------------------------------------------------


def test_the_logs_of_a_dropped_block_are_told_as_removed_newest_first() -> None:
    chain = Chain()
    first = chain.block(match=True)
    chain.push(1, 0)
    chain.push(1, 2)
    second = chain.block(match=True)
    chain.push(1, 1)
    chain.drop()
    chain.drop()
    assert chain.removed == [(second, 1), (first, 2), (first, 0)]


def test_logs_that_an_upstream_calls_removed_say_nothing() -> None:
    chain = Chain()
    number = chain.block(match=True)
    chain.push(1, 0)
    chain.do(chain.feed.pushed(1, Log(number, str(number), 0, removed=True), chain.now))
    assert chain.removed == []


def test_a_block_added_in_a_reorganisation_is_fetched_even_when_a_later_log_was_pushed() -> None:
    """Its logs may have been pushed while it was not on our chain, or before."""
    chain = Chain()
    chain.block(match=True)
    chain.push(1, 0)
    chain.drop()
    chain.block(match=True, branch="b")
    assert chain.fetches[-1][-1] == chain.number


def test_a_block_that_comes_back_is_told_anew() -> None:
    chain = Chain()
    number = chain.block(match=True)
    chain.push(1, 0)
    chain.drop()
    chain.block(match=True)
    chain.answer({number: (0,)})
    assert chain.told == [(number, 0, False), (number, 0, True)]
    assert chain.removed == [(number, 0)]


def test_the_removal_of_logs_that_are_not_remembered_any_more_is_a_gap() -> None:
    chain = Chain(joined=False, known=False, settings=LogFeedSettings(memory=3))
    for _ in range(6):
        chain.block(match=True)
        chain.answer({chain.number: (0,)})
    for _ in range(4):
        chain.drop()
    assert chain.removed == [(106, 0), (105, 0), (104, 0)]
    assert chain.gaps == [LogGap(103, 103, "reorganisation_too_deep")]


# --- blooms that lie, chains without --------------------------------------------------------------


def test_a_bloom_filter_that_denied_a_log_is_not_believed_again() -> None:
    chain = Chain()
    number = chain.block(match=False)
    chain.push(1, 0)
    assert chain.fetches == [(101,)], "what it denied before is looked up"
    chain.answer()
    assert chain.told == [(number, 0, False)]
    chain.do(chain.feed.left(1, chain.now))
    while chain.out is not None:
        chain.answer()
    chain.fetches.clear()
    chain.block(match=False)
    assert chain.fetches == [(chain.number,)]


def test_logs_that_a_bloom_filter_had_denied_are_put_in_their_place() -> None:
    chain = Chain()
    hidden = chain.block(match=False)
    shown = chain.block(match=True)
    chain.push(1, 0)
    denied = chain.block(match=False)
    chain.push(1, 0)
    chain.do(chain.feed.left(1, chain.now))
    for _ in range(3):
        chain.answer({hidden: (4,)})
        chain.wait(1.0)
    held = [(log.number, log.index) for log in chain.listener.held]
    assert held == [(102, 0), (hidden, 4), (shown, 0), (denied, 0)]


def test_blooms_of_a_chain_that_never_showed_one_with_content_are_not_believed() -> None:
    feed = LogFeed(DEFAULTS, lambda bloom: False, 0.0)
    commands = feed.added(Header(1, "1", "0", bloom=bytes(256)), 0.0)
    assert [command for command in commands if isinstance(command, FetchLogs)]


def test_without_blooms_the_silence_of_a_source_that_pushes_now_and_then_is_believed_and_checked_now_and_then() -> None:
    chain = Chain()
    for i in range(300):
        chain.block(match=None)
        if i % 60 == 30:
            chain.push(1, 0)
        chain.wait(1.0)
        chain.answer({number: (0,) for number in range(chain.number) if (number - 135) % 60 == 0})
    print(f"{len(chain.fetches)} fetches for 300 blocks without bloom filters in 300 s")
    assert len(chain.fetches) <= 12
    assert len(chain.told) == 5


def test_what_a_believed_source_did_not_push_is_found_by_the_check() -> None:
    chain = Chain()
    chain.block(match=None)
    chain.push(1, 0)
    lost = chain.block(match=None)
    for _ in range(80):
        chain.wait(1.0)
        chain.answer({lost: (9,)})
    assert chain.told == [(lost - 1, 0, False), (lost, 9, True)]


# --- bounds -----------------------------------------------------------------------------------------


def test_a_flood_of_logs_fills_no_memory_and_loses_none_that_can_be_fetched() -> None:
    chain = Chain()
    flood = chain.number + 1
    for index in range(logs.MOST_HELD + 10):
        chain.push(1, index, number=flood + index // 1000)
        assert chain.feed._held <= logs.MOST_HELD
    assert chain.block(match=True) == flood
    chain.wait(1.0)
    chain.answer()
    assert [index for _, index, _ in chain.told] == list(range(1000))


def test_a_backlog_that_is_too_long_is_given_up_from_its_beginning() -> None:
    chain = Chain(joined=False, known=False)
    for _ in range(logs.LONGEST_BACKLOG + 5):
        chain.block(match=True)
    assert [(gap.low, gap.high) for gap in chain.gaps] == [(number, number) for number in range(101, 106)]


def test_a_fetch_has_at_most_so_many_blocks() -> None:
    chain = Chain(joined=False, known=False, settings=LogFeedSettings(fetch_blocks=4))
    for _ in range(10):
        chain.block(match=True)
    for _ in range(3):
        chain.answer({})
    assert [len(blocks) for blocks in chain.fetches] == [1, 4, 4, 1]


def test_blocks_that_need_no_fetch_are_taken_along_only_between_near_ones() -> None:
    chain = Chain(joined=False, known=False)
    chain.block(match=True)
    for quiet in (2, 5):
        for _ in range(quiet):
            chain.block()
        chain.block(match=True)
    chain.answer(only=())
    chain.wait(0.2)
    assert chain.fetches == [(101,), (101, 102, 103, 104)]


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"fetch_blocks": 0}, {"patience": -1.0}, {"sure_blocks": 0}])
def test_illegal_settings_cannot_be_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LogFeedSettings(**wrong)


def test_logs_that_hold_nothing_back_are_not_given_up_however_long_everybody_is_down() -> None:
    """An outage of all endpoints stops the chain for us, too: what was asked last is told when they are back."""
    feed = LogFeed(LogFeedSettings(), lambda bloom: True, 0.0)
    header = Header(1, "0x01", "0x00", b"", b"\xff" * 256)
    log = Log(1, "0x01", 0, b"{}")
    commands = feed.added(header, 0.0)
    now = 0.0
    while now < 120.0:
        now += 0.05
        if any(isinstance(command, FetchLogs) for command in commands):
            commands = feed.fetch_failed(now)
        else:
            commands = feed.tick(now)
        assert not any(isinstance(command, LogGap) for command in commands)
    while not any(isinstance(command, FetchLogs) for command in commands):
        now += 0.05
        commands = feed.tick(now)
    assert feed.fetched([header], {"0x01": [log]}, now) == [Tell(log, True)]

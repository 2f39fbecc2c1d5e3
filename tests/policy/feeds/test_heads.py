"""The feed of heads: one walk over the tree of blocks, whatever sources, polls and fetches do."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.events import Header
from gateway.policy.feeds.heads import (
    Command,
    FetchHash,
    FetchNumbers,
    Gap,
    HeadFeed,
    HeadFeedSettings,
    Silent,
    Told,
)
from tests.policy.blockworld import START, Node, Tree, damaged

DEFAULTS = HeadFeedSettings()
BLOCK_TIME = 2.0
SHELL_WAITS = 4.0  # seconds after which the shell says that a fetch failed
SMALL = HeadFeedSettings(memory=24, fill_at_most=20, fetch_at_once=4, give_up_after=5.0)


class Listener:
    """What a caller holds who does as told, and the laws of what it may be told."""

    def __init__(self) -> None:
        self.held: list[Header] = []
        self.told = 0
        self.dropped = 0
        self.gaps: list[Gap] = []
        self.silent: list[int] = []
        self._excused = True  # the next header needs no parent here: it is the first, or there was a gap
        self.broken_at = 0  # the place in `held` from which on there is no hole

    def take(self, commands: list[Command]) -> list[FetchNumbers | FetchHash]:
        """Do as told.  Returns what is to be fetched."""
        fetches: list[FetchNumbers | FetchHash] = []
        for command in commands:
            match command:
                case Told(header, _, dropped):
                    self._walk(header, dropped)
                case Gap():
                    assert 0 <= command.low <= command.high
                    self.gaps.append(command)
                    self._excused = True
                case Silent(source):
                    self.silent.append(source)
                case FetchNumbers() | FetchHash():
                    fetches.append(command)
        assert len(fetches) <= 1, "two fetches at once"
        return fetches

    def _walk(self, header: Header, dropped: tuple[Header, ...]) -> None:
        self.told += 1
        self.dropped += len(dropped)
        for gone in dropped:
            assert self.held, "dropped what was never told"
            assert self.held.pop() == gone, "dropped is not the newest first"
            assert self._excused or len(self.held) >= self.broken_at, "dropped what lies before a gap, without a gap"
        assert header not in self.held[-300:], "told twice"
        if self._excused:
            self.broken_at = len(self.held)
        elif self.held and header.parent == self.held[-1].hash:
            assert header.number == self.held[-1].number + 1
            self.broken_at = min(self.broken_at, len(self.held))
        else:
            assert len(self.held) == self.broken_at, "not a child of what was told"
            assert dropped and dropped[-1].number == header.number, "a start that is replaced is replaced at its height"
        self._excused = False
        self.held.append(header)


class Rig:
    """A feed in a world: nodes announce what their sources push, and fetches are answered by nodes."""

    def __init__(self, settings: HeadFeedSettings = DEFAULTS, nodes: int = 2, block_time: float = BLOCK_TIME) -> None:
        self.tree = Tree()
        self.now = 1000.0
        self.settings = settings
        self.feed = HeadFeed(settings, block_time, self.now)
        self.listener = Listener()
        self.nodes = [Node(self.tree.best) for _ in range(nodes)]
        self.sources: dict[int, int] = {}  # source -> node
        self.out: FetchNumbers | FetchHash | None = None
        self.out_since = 0.0
        self.fetches: list[FetchNumbers | FetchHash] = []
        self._numbers = 0

    def do(self, commands: list[Command]) -> None:
        for fetch in self.listener.take(commands):
            assert self.out is None, "a second fetch while one is out"
            self.out, self.out_since = fetch, self.now
            self.fetches.append(fetch)

    def join(self, node: int) -> int:
        self._numbers += 1
        self.sources[self._numbers] = node
        self.nodes[node].queue.clear()
        self.feed.joined(self._numbers, self.now)
        return self._numbers

    def leave(self, source: int) -> None:
        del self.sources[source]
        self.do(self.feed.left(source, self.now))

    def push(self, source: int, header: Header) -> None:
        self.do(self.feed.header(source, header, self.now))

    def announce(self, node: int, count: int = 1000) -> None:
        """A node announces what it has to, to all that listen to it."""
        queue = self.nodes[node].queue
        for header in queue[:count]:
            for source in [source for source, of in self.sources.items() if of == node]:
                self.push(source, header)
            self.nodes[node].announced = [*self.nodes[node].announced[-9:], header]
        del queue[:count]

    def hint(self, header: Header, with_hash: bool = True) -> None:
        self.do(self.feed.hint(header.number, header.hash if with_hash else "", self.now))

    def wait(self, seconds: float, answering: bool = False) -> None:
        """Time passes, in ticks.  `answering`: a fetch gets a whole and good answer within a tick."""
        until = self.now + seconds
        while self.now < until - 1e-9:
            if self.out is not None and self.now - self.out_since > SHELL_WAITS:
                self.fail()
            self.now += 0.05
            self.do(self.feed.tick(self.now))
            if answering and self.out is not None:
                self.answer(self.tree.best)

    def answer(self, tip: Header, chance: Random | None = None) -> None:
        """The fetch that is out is answered by a node at this block; with `chance` only in part."""
        fetch, self.out = self.out, None
        if isinstance(fetch, FetchNumbers):
            found = self.tree.by_number(tip, fetch.low, fetch.high)
        else:
            assert fetch is not None
            found = [self.tree.headers[fetch.hash]] if fetch.hash in self.tree.headers else []
        self.do(self.feed.fetched(damaged(found, chance) if chance is not None else found, self.now))

    def fail(self) -> None:
        self.out = None
        self.do(self.feed.fetch_failed(self.now))

    def calm(self, pushed: bool = True, blocks: int = 6) -> None:
        """Everything works from now on, for some blocks; with `pushed` false there are only polls."""
        if self.out is not None:
            self.fail()
        for source in list(self.sources):
            self.leave(source)
        for node in self.nodes:
            node.go(self.tree, self.tree.best)
        if pushed:
            self.join(0)
        ahead = max(header.number for header in self.tree.headers.values()) - self.tree.best.number  # who went astray
        for _ in range(max(blocks, ahead + 2)):
            self.tree.grow()
            self.nodes[0].go(self.tree, self.tree.best)
            if pushed:
                self.announce(0)
            self.hint(self.tree.best)
            self.wait(BLOCK_TIME, answering=True)

    def check_calm(self) -> None:
        held = self.listener.held
        assert self.feed.tip == self.tree.best
        assert not self.feed.waiting
        assert self.out is None
        whole = held[self.listener.broken_at :]
        assert whole == self.tree.line(self.tree.best, whole[0].number)
        recent = self.feed.recent()
        assert list(recent) == held[-len(recent) :]
        assert len(recent) <= self.settings.memory


# --- any weather ------------------------------------------------------------------------------------


class Weather:
    """Random events on a rig, from one generator."""

    def __init__(self, seed: int, settings: HeadFeedSettings = DEFAULTS) -> None:
        self.chance = Random(seed)
        self.rig = Rig(settings, nodes=self.chance.randint(1, 3))
        if self.chance.random() < 0.8:
            self.rig.join(0)

    def _node(self) -> int:
        return self.chance.randrange(len(self.rig.nodes))

    def _source(self) -> int | None:
        return self.chance.choice(list(self.rig.sources)) if self.rig.sources else None

    def step(self) -> None:
        rig, chance = self.rig, self.chance
        number = self._node()
        node = rig.nodes[number]
        event = chance.choices(
            ("grow", "reorganise", "split", "move", "announce", "repeat", "skip", "join", "leave", "hint", "answer",
             "part", "stale", "fail", "wait"),
            (12, 3, 2, 18, 16, 2, 2, 3, 2, 6, 12, 4, 4, 4, 12),
        )[0]  # fmt: skip
        if event == "grow":
            rig.tree.grow(chance.choice((1, 1, 1, 2, 3, 12)))
        elif event == "reorganise":
            rig.tree.reorganise(chance.choice((1, 1, 2, 3, 6)), chance.choice((0, 1, 1, 2)))
        elif event == "split":
            node.go(rig.tree, rig.tree.child(node.at))
        elif event == "move":
            node.go(rig.tree, rig.tree.best)
            rig.announce(number)
        elif event == "announce":
            rig.announce(number, chance.randint(1, 3))
        elif event == "repeat" and node.announced and (source := self._source()):
            rig.push(source, chance.choice(node.announced))
        elif event == "skip" and node.queue:
            node.queue.pop(0)
        elif event == "join" and len(rig.sources) < 3:
            rig.join(number)
        elif event == "leave" and (source := self._source()):
            rig.leave(source)
        elif event == "hint":
            rig.hint(node.at, chance.random() < 0.8)
        elif event == "wait":
            rig.wait(chance.choice((0.05, 0.3, 1.0, 3.0)))
        elif rig.out is None:
            return
        elif event == "answer":
            rig.answer(rig.tree.best)
        elif event == "part":
            rig.answer(rig.tree.best, chance)
        elif event == "stale":
            rig.answer(node.at)
        elif event == "fail":
            rig.fail()


def storm(seed: int, settings: HeadFeedSettings, steps: int) -> Weather:
    weather = Weather(seed, settings)
    for _ in range(steps):
        weather.step()
    return weather


def test_whatever_happens_callers_walk_the_tree_and_end_on_the_chain() -> None:
    n, told, dropped, gaps, fetches = 2000, 0, 0, 0, 0
    for seed in range(n):
        weather = storm(seed, SMALL if seed % 2 else DEFAULTS, 120)
        weather.rig.calm(pushed=seed % 3 > 0)
        weather.rig.check_calm()
        told += weather.rig.listener.told
        dropped += weather.rig.listener.dropped
        gaps += len(weather.rig.listener.gaps)
        fetches += len(weather.rig.fetches)
    print(f"{told:,} told, {dropped:,} dropped, {gaps} gaps, {fetches:,} fetches (n={n}, seeds 0-{n - 1})")
    assert dropped > n


class AnyOrder(RuleBasedStateMachine):
    """The same events, chosen by Hypothesis, with a calm at the end of each run."""

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(SMALL, nodes=2)

    NODES = st.integers(0, 1)

    @rule(count=st.sampled_from((1, 2, 3, 30)))
    def the_chain_grows(self, count: int) -> None:
        self.rig.tree.grow(count)

    @rule(depth=st.sampled_from((1, 2, 5, 30)), longer=st.integers(0, 2))
    def the_chain_reorganises(self, depth: int, longer: int) -> None:
        self.rig.tree.reorganise(depth, longer)

    @rule(node=NODES)
    def a_node_follows_and_announces(self, node: int) -> None:
        self.rig.nodes[node].go(self.rig.tree, self.rig.tree.best)
        self.rig.announce(node)

    @rule(node=NODES)
    def a_node_follows_and_hesitates(self, node: int) -> None:
        self.rig.nodes[node].go(self.rig.tree, self.rig.tree.best)

    @rule(node=NODES)
    def a_node_goes_its_own_way(self, node: int) -> None:
        at = self.rig.nodes[node]
        at.go(self.rig.tree, self.rig.tree.child(at.at))
        self.rig.announce(node)

    @rule(node=NODES, count=st.integers(1, 3))
    def a_node_announces_some(self, node: int, count: int) -> None:
        self.rig.announce(node, count)

    @rule(node=NODES)
    def a_node_forgets_to_announce(self, node: int) -> None:
        del self.rig.nodes[node].queue[:1]

    @precondition(lambda self: self.rig.sources)
    @rule(node=NODES, back=st.integers(0, 9))
    def a_source_repeats_itself(self, node: int, back: int) -> None:
        announced = self.rig.nodes[node].announced
        if announced:
            self.rig.push(next(iter(self.rig.sources)), announced[back % len(announced)])

    @precondition(lambda self: len(self.rig.sources) < 3)
    @rule(node=NODES)
    def a_source_joins(self, node: int) -> None:
        self.rig.join(node)

    @precondition(lambda self: self.rig.sources)
    @rule()
    def the_oldest_source_leaves(self) -> None:
        self.rig.leave(next(iter(self.rig.sources)))

    @rule(node=NODES, with_hash=st.booleans())
    def a_poll_sees_a_node(self, node: int, with_hash: bool) -> None:
        self.rig.hint(self.rig.nodes[node].at, with_hash)

    @precondition(lambda self: self.rig.out is not None)
    @rule(node=NODES, seed=st.one_of(st.none(), st.integers(0, 9)))
    def a_fetch_is_answered_by_a_node(self, node: int, seed: int | None) -> None:
        self.rig.answer(self.rig.nodes[node].at, Random(seed) if seed is not None else None)

    @precondition(lambda self: self.rig.out is not None)
    @rule()
    def a_fetch_fails(self) -> None:
        self.rig.fail()

    @rule(seconds=st.sampled_from((0.05, 0.6, 2.5, 6.0)))
    def time_passes(self, seconds: float) -> None:
        self.rig.wait(seconds)

    @invariant()
    def nothing_grows_without_bound(self) -> None:
        assert len(self.rig.feed.recent()) <= SMALL.memory

    def teardown(self) -> None:
        self.rig.calm()
        self.rig.check_calm()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = examples(max_examples=60, stateful_step_count=50, deadline=None)


# --- how it starts ----------------------------------------------------------------------------------


def started(settings: HeadFeedSettings = DEFAULTS, length: int = 5, **more: Any) -> Rig:
    """Two nodes at the same block, a source on each, and a feed that was told that block and some before."""
    rig = Rig(settings, **more)
    rig.join(0)
    rig.join(1)
    rig.push(1, rig.tree.best)
    rig.push(2, rig.tree.best)
    for _ in range(length):
        rig.tree.grow()
        for node in (0, 1):
            rig.nodes[node].go(rig.tree, rig.tree.best)
            rig.announce(node)
    assert rig.listener.held[-1] == rig.tree.best
    rig.fetches.clear()
    return rig


def told(commands: list[Command]) -> list[int]:
    return [command.header.number for command in commands if isinstance(command, Told)]


def test_the_first_header_starts_the_feed_where_it_is() -> None:
    rig = Rig()
    rig.join(0)
    rig.push(1, rig.tree.best)
    assert rig.listener.held == [rig.tree.best]
    assert rig.fetches == []


def test_a_polled_head_alone_starts_it_too() -> None:
    rig = Rig()
    rig.hint(rig.tree.best)
    assert rig.fetches == [FetchNumbers(rig.tree.best.number, rig.tree.best.number)]
    rig.answer(rig.tree.best)
    assert rig.listener.held == [rig.tree.best]


def test_without_any_source_every_block_is_told_from_polls_alone() -> None:
    rig = Rig()
    for _ in range(20):
        rig.tree.grow()
        rig.hint(rig.tree.best)
        rig.wait(0.1, answering=True)
    assert rig.listener.held == rig.tree.line(rig.tree.best, rig.listener.held[0].number)
    assert len(rig.listener.held) == 20


def test_polls_that_are_far_ahead_bring_everything_between() -> None:
    rig = Rig()
    rig.hint(rig.tree.best)
    rig.answer(rig.tree.best)
    rig.tree.grow(200)
    rig.hint(rig.tree.best)
    rig.wait(1.0, answering=True)
    assert rig.listener.held == rig.tree.line(rig.tree.best, rig.listener.held[0].number)
    assert len(rig.listener.held) == 201
    assert len(rig.fetches) <= 8


def test_a_polled_head_waits_a_moment_for_a_live_source() -> None:
    rig = started()
    rig.tree.grow()
    rig.hint(rig.tree.best)
    rig.wait(DEFAULTS.grace - 0.1)
    assert rig.fetches == []
    assert rig.feed.waiting
    rig.wait(0.2)
    assert rig.fetches == [FetchNumbers(rig.tree.best.number, rig.tree.best.number)]


def test_a_live_source_that_brings_it_in_time_saves_the_fetch() -> None:
    rig = started()
    rig.tree.grow()
    rig.hint(rig.tree.best)
    rig.wait(0.3)
    rig.push(1, rig.tree.best)
    rig.wait(3.0)
    assert rig.fetches == []
    assert not rig.feed.waiting


def test_polls_that_run_ahead_all_the_time_do_not_put_off_the_fetch() -> None:
    """On a chain whose blocks come faster than the grace passes."""
    rig = started(block_time=0.2)
    for _ in range(5):
        rig.tree.grow()
        rig.hint(rig.tree.best)
        rig.wait(0.2)
    assert rig.fetches != []


def test_each_polled_block_gets_a_moment_of_its_own() -> None:
    rig = started()
    rig.tree.grow()
    first = rig.tree.best
    rig.hint(first)
    rig.wait(0.4)
    rig.tree.grow()
    rig.hint(rig.tree.best)
    rig.push(1, first)
    rig.wait(0.4)
    assert rig.fetches == []
    rig.wait(0.2)
    assert rig.fetches == [FetchNumbers(rig.tree.best.number, rig.tree.best.number)]


def test_when_the_last_source_is_gone_polled_heads_wait_for_nobody() -> None:
    rig = started()
    rig.tree.grow()
    rig.hint(rig.tree.best)
    rig.leave(1)
    assert rig.fetches == []
    rig.leave(2)
    assert rig.fetches == [FetchNumbers(rig.tree.best.number, rig.tree.best.number)]


def test_a_source_that_has_said_nothing_yet_is_waited_for_and_then_named() -> None:
    rig = started()
    rig.leave(1)
    rig.leave(2)
    rig.join(0)
    rig.wait(30.0)
    assert rig.listener.silent == []
    for _ in range(6):
        rig.tree.grow()
        rig.hint(rig.tree.best)
        assert rig.out is None
        rig.wait(BLOCK_TIME, answering=True)
    assert set(rig.listener.silent) == {3}


# --- sources ----------------------------------------------------------------------------------------


def test_a_child_of_the_tip_is_told_at_once_whoever_says_it_and_only_once() -> None:
    rig = started()
    for source in (2, 1, 2):
        rig.tree.grow()
        assert told(rig.feed.header(source, rig.tree.best, rig.now)) == [rig.tree.best.number]
        assert rig.feed.header(3 - source, rig.tree.best, rig.now) == []


def test_a_block_that_a_source_left_out_is_fetched_and_told_in_its_place() -> None:
    rig = started()
    rig.tree.grow(4)
    before = len(rig.listener.held)
    rig.push(1, rig.tree.best)
    assert len(rig.listener.held) == before
    rig.answer(rig.tree.best)
    assert rig.listener.held == rig.tree.line(rig.tree.best, rig.listener.held[0].number)
    assert len(rig.fetches) == 1


def test_what_is_pushed_while_a_fetch_is_out_is_told_behind_it() -> None:
    rig = started()
    rig.tree.grow(3)
    rig.push(1, rig.tree.best)
    for _ in range(5):
        rig.tree.grow()
        rig.push(1, rig.tree.best)
    rig.answer(rig.tree.best)
    assert rig.listener.held[-1] == rig.tree.best
    assert len(rig.fetches) == 1


def test_a_pushed_header_is_not_late_and_a_fetched_one_is() -> None:
    rig = started()
    rig.tree.grow(2)
    rig.push(1, rig.tree.best)
    fetch, rig.out = rig.out, None
    assert isinstance(fetch, FetchNumbers)
    commands = rig.feed.fetched(rig.tree.by_number(rig.tree.best, fetch.low, fetch.high), rig.now)
    assert [command.late for command in commands if isinstance(command, Told)] == [True, False]


def test_a_source_far_behind_others_is_named_silent_and_one_that_lags_by_a_moment_is_not() -> None:
    rig = started(block_time=0.25)
    late: list[tuple[float, Header]] = []
    for _ in range(60):
        rig.tree.grow()
        rig.push(1, rig.tree.best)
        late.append((rig.now + 1.0, rig.tree.best))
        while late and late[0][0] <= rig.now:
            rig.push(2, late.pop(0)[1])
        rig.wait(0.25)
    assert rig.listener.silent == []
    for _ in range(20):
        rig.tree.grow()
        rig.push(1, rig.tree.best)
        rig.wait(0.25)
    assert set(rig.listener.silent) == {2}


def test_a_lone_source_that_hangs_is_named_silent_because_polls_go_on() -> None:
    rig = Rig(nodes=1)
    rig.join(0)
    rig.push(1, rig.tree.best)
    began = rig.now
    while not rig.listener.silent:
        rig.tree.grow()
        rig.hint(rig.tree.best)
        rig.wait(BLOCK_TIME, answering=True)
        assert rig.now - began < 60
    assert rig.listener.held[-1] == rig.tree.best, "polls carry on meanwhile"
    print(f"silence seen after {rig.now - began:.0f} s with blocks every {BLOCK_TIME:.0f} s")
    assert rig.now - began <= 6 * BLOCK_TIME


def test_nobody_is_silent_when_the_chain_stands_still() -> None:
    rig = started()
    for _ in range(100):
        rig.hint(rig.tree.best)
        rig.wait(1.0)
    assert rig.listener.silent == []


# --- reorganisations --------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
def test_a_reorganisation_is_told_as_dropped_blocks_and_their_replacements(depth: int) -> None:
    rig = started(length=20)
    old = rig.tree.line(rig.tree.best)
    rig.tree.reorganise(depth)
    rig.push(1, rig.tree.best)
    while rig.out is not None:
        rig.answer(rig.tree.best)
    assert rig.listener.dropped == depth
    assert rig.listener.held[-depth - 2] == old[-depth - 1]
    assert rig.listener.held[-1] == rig.tree.best


def test_even_the_first_block_told_can_be_replaced() -> None:
    rig = Rig()
    rig.join(0)
    rig.push(1, rig.tree.best)
    rig.tree.reorganise(3)
    rig.push(1, rig.tree.best)
    while rig.out is not None:
        rig.answer(rig.tree.best)
    assert [header.number for header in rig.listener.held] == [START + 4, START + 5]
    assert rig.listener.gaps == []


def test_even_the_first_block_told_can_be_replaced_by_its_sibling() -> None:
    rig = Rig()
    rig.join(0)
    rig.push(1, rig.tree.best)
    rig.tree.reorganise(1, longer=0)
    rig.push(1, rig.tree.best)
    assert rig.listener.held == [rig.tree.best]


def test_a_late_source_does_not_undo_a_reorganisation() -> None:
    rig = started()
    for node in (0, 1):
        rig.nodes[node].go(rig.tree, rig.tree.best)
    rig.tree.grow()
    old = rig.tree.best
    rig.push(1, old)
    rig.tree.reorganise(1)
    rig.push(1, rig.tree.line(rig.tree.best)[-2])
    rig.push(1, rig.tree.best)
    rig.push(2, old)
    assert rig.listener.held[-1] == rig.tree.best
    assert rig.out is None


def test_a_branch_that_was_left_is_told_again_once_it_is_the_higher_one() -> None:
    rig = started()
    rig.tree.grow()
    old = rig.tree.best
    rig.push(1, old)
    rig.tree.reorganise(1, longer=1)
    rig.push(1, rig.tree.line(rig.tree.best)[-2])
    rig.push(1, rig.tree.best)
    again = rig.tree.child(rig.tree.child(old))
    rig.push(2, rig.tree.headers[again.parent])
    assert rig.listener.held[-1] == rig.tree.best, "no higher than the tip: not followed"
    rig.push(2, again)
    assert rig.listener.held[-3:] == [old, rig.tree.headers[again.parent], again]
    assert rig.fetches == [], "all of it was known"


def test_a_block_no_higher_than_the_tip_is_followed_only_of_a_source_that_was_at_the_tip() -> None:
    rig = started()
    rig.tree.grow()
    rig.push(1, rig.tree.best)
    tip = rig.tree.best
    rig.tree.reorganise(1, longer=0)
    rig.push(2, rig.tree.best)
    assert rig.listener.held[-1] == tip, "that source may just be on a stale branch"
    rig.push(1, rig.tree.best)
    assert rig.listener.held[-1] == rig.tree.best, "that node changed its mind"


def test_polls_that_stay_with_another_block_for_two_block_times_are_followed() -> None:
    rig = Rig()
    rig.hint(rig.tree.best)
    rig.answer(rig.tree.best)
    old = rig.tree.best
    rig.tree.reorganise(1, longer=0)
    for _ in range(4):
        rig.hint(rig.tree.best)
        rig.wait(BLOCK_TIME / 2 - 0.1, answering=True)
    assert rig.listener.held == [old]
    rig.hint(rig.tree.best)
    rig.wait(0.5, answering=True)
    rig.hint(rig.tree.best)
    rig.wait(0.5, answering=True)
    assert rig.listener.held == [rig.tree.best]


def test_polls_that_stay_with_a_branch_that_was_left_are_followed_back() -> None:
    rig = started()
    rig.tree.grow()
    old = rig.tree.best
    rig.push(1, old)
    rig.tree.reorganise(1, longer=0)
    rig.push(1, rig.tree.best)
    assert rig.listener.held[-1] == rig.tree.best
    for _ in range(10):
        rig.hint(old)
        rig.wait(0.5)
    assert rig.listener.held[-1] == old
    assert rig.fetches == []


def test_a_polled_block_that_nobody_has_is_asked_for_once_in_two_block_times() -> None:
    rig = started()
    other = Header(rig.tree.best.number, "nobody has it", "nor this")
    for _ in range(40):
        rig.hint(other)
        rig.wait(0.5)
        if rig.out is not None:
            rig.fail()
    assert set(rig.fetches) == {FetchHash(other.hash)}
    assert len(rig.fetches) <= 20.0 / (2 * BLOCK_TIME)
    assert not rig.feed.waiting


def test_polls_that_say_now_this_and_now_that_are_not_followed() -> None:
    rig = started()
    old = rig.tree.best
    rig.tree.reorganise(1, longer=0)
    for _ in range(20):
        rig.hint(rig.tree.best)
        rig.wait(0.5)
        rig.hint(old)
        rig.wait(0.5)
    assert rig.listener.held[-1] == old
    assert rig.fetches == []


def test_a_deep_reorganisation_takes_few_fetches() -> None:
    rig = started(length=250)
    rig.tree.reorganise(200)
    rig.push(1, rig.tree.best)
    while rig.out is not None:
        rig.answer(rig.tree.best)
    print(f"200 blocks deep: {len(rig.fetches)} fetches")
    assert rig.listener.dropped == 200
    assert rig.listener.gaps == []
    assert len(rig.fetches) <= 15


def test_a_reorganisation_below_what_is_remembered_is_a_gap_and_all_that_is_remembered_is_dropped() -> None:
    rig = started(SMALL, length=60)
    root = rig.feed.recent()[0]
    rig.tree.reorganise(40)
    rig.push(1, rig.tree.best)
    while rig.out is not None:
        rig.answer(rig.tree.best)
    assert rig.listener.gaps == [Gap(root.number - 1, root.number - 1, "reorganisation_too_deep")]
    assert rig.listener.dropped == SMALL.memory
    assert rig.feed.recent()[-1] == rig.tree.best


def test_a_chain_that_was_set_back_is_followed_when_nobody_is_at_the_old_tip_any_more() -> None:
    """A development chain that begins again."""
    rig = started(SMALL, length=60)
    fresh = Tree(name="other ")
    rig.now += 1.0
    for _ in range(60):
        fresh.grow()
        rig.tree.headers |= fresh.headers
        rig.push(1, fresh.best)
        rig.wait(1.0)
    assert rig.listener.gaps
    assert rig.listener.held[-1] == fresh.best


def test_a_chain_that_was_set_back_is_followed_by_polls_alone_too() -> None:
    rig = Rig(SMALL)
    for _ in range(60):
        rig.tree.grow()
        rig.hint(rig.tree.best)
        rig.wait(0.1, answering=True)
    fresh = Tree(name="other ")
    for _ in range(30):
        fresh.grow()
        rig.tree.headers |= fresh.headers
        rig.tree.best = fresh.best
        rig.hint(fresh.best)
        rig.wait(BLOCK_TIME, answering=True)
    assert rig.listener.held[-1] == fresh.best


def test_a_tip_that_only_a_stray_source_was_at_is_left_when_nobody_has_been_there_for_long() -> None:
    rig = started(SMALL)
    good = rig.tree.best
    astray = good
    for _ in range(40):
        astray = rig.tree.child(astray)
        rig.push(2, astray)
    rig.leave(2)
    for _ in range(16):
        good = rig.tree.child(good)
        rig.push(1, good)
        rig.wait(BLOCK_TIME)
    assert good.number < astray.number
    assert rig.listener.held[-1] == good


def test_a_stale_source_sets_nothing_back_while_polls_are_at_the_tip() -> None:
    rig = started(SMALL, length=60)
    tip = rig.tree.best
    low = rig.tree.line(tip)[-10]
    rig.push(2, low)
    for _ in range(60):
        rig.hint(tip)
        rig.wait(1.0)
    rig.push(2, rig.tree.child(low))
    assert rig.listener.held[-1] == tip
    assert rig.out is None


def test_a_chain_that_goes_on_below_a_lone_sources_old_tip_is_followed_at_once() -> None:
    rig = started()
    low = rig.tree.line(rig.tree.best)[-4]
    new = rig.tree.child(low)
    rig.push(1, new)
    assert rig.listener.held[-1] == new
    assert rig.listener.dropped == 3


# --- gaps -------------------------------------------------------------------------------------------


def test_of_a_gap_that_is_too_large_the_newest_part_is_told_and_the_rest_named() -> None:
    rig = started()
    tip = rig.tree.best
    rig.tree.grow(1500)
    rig.push(1, rig.tree.best)
    while rig.out is not None:
        rig.answer(rig.tree.best)
    assert rig.listener.gaps == [Gap(tip.number + 1, rig.tree.best.number - 1001, "too_many_blocks")]
    assert rig.listener.held[rig.listener.broken_at :] == rig.tree.line(rig.tree.best, rig.tree.best.number - 1000)
    assert len(rig.fetches) == 32


def test_a_gap_that_nobody_can_fill_is_told_and_the_feed_goes_on_behind_it() -> None:
    rig = started()
    tip = rig.tree.best
    rig.tree.grow(3)
    began = rig.now
    while not rig.listener.gaps:
        for source in (1, 2):
            rig.push(source, rig.tree.best)
        for _ in range(20):
            rig.wait(0.1)
            if rig.out is not None:
                rig.fail()
        rig.tree.grow()
        assert rig.now - began < 60
    assert rig.listener.gaps == [Gap(tip.number + 1, tip.number + 2, "not_found")]
    assert rig.listener.held[-1].number > tip.number + 10, "all that was pushed meanwhile is told"
    assert rig.now - began >= DEFAULTS.give_up_after


def test_a_reorganisation_whose_blocks_nobody_has_is_a_gap_and_nothing_is_dropped_twice() -> None:
    rig = started(SMALL, length=20)
    old = rig.tree.best
    rig.tree.reorganise(3)
    for header in rig.tree.line(rig.tree.best)[-3:]:
        rig.push(1, header)
    while not rig.listener.gaps:
        rig.wait(0.1)
        if rig.out is not None:
            rig.fail()
        assert rig.now < 1100.0
    missing = old.number - 2
    assert rig.listener.gaps == [Gap(missing, missing, "not_found")]
    assert rig.listener.dropped == 3
    rig.tree.reorganise(6)
    rig.push(1, rig.tree.best)
    while rig.out is not None:
        rig.answer(rig.tree.best)
    assert rig.listener.held[-1] == rig.tree.best


def test_a_fetch_that_brings_nothing_is_repeated_after_pauses_that_double() -> None:
    rig = started()
    rig.tree.grow(2)
    rig.push(1, rig.tree.best)
    at = []
    for _ in range(8):
        while rig.out is None:
            rig.wait(0.05)
        at.append(rig.now)
        rig.fail()
    pauses = [round(later - earlier, 1) for earlier, later in pairwise(at)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_headers_of_another_branch_are_asked_for_again_by_hash() -> None:
    rig = started()
    fork = rig.tree.best
    rig.tree.grow(3)
    stale = fork
    for _ in range(3):
        stale = rig.tree.child(stale)
    rig.push(1, rig.tree.best)
    rig.answer(stale)
    assert rig.fetches[1:] == [FetchHash(rig.tree.best.parent)]
    while rig.out is not None:
        rig.answer(stale)
    assert rig.listener.held[-1] == rig.tree.best
    assert rig.listener.dropped == 0


def test_a_header_to_which_nobody_knows_the_way_is_thrown_away_and_so_is_its_source() -> None:
    rig = started()
    rig.push(2, Header(rig.tree.best.number + 500, "made up", "nobody's child"))
    for _ in range(40):
        rig.tree.grow()
        rig.push(1, rig.tree.best)
        assert rig.listener.held[-1] == rig.tree.best, "the good source is told at once all the while"
        for _ in range(10):
            rig.wait(0.1)
            if rig.out is not None:
                rig.answer(rig.tree.best)
    rig.fetches.clear()
    rig.push(2, Header(rig.tree.best.number + 500, "made up again", "nobody's child"))
    rig.wait(3.0)
    assert rig.fetches == []
    assert 2 in rig.listener.silent
    assert 1 not in rig.listener.silent
    assert rig.listener.gaps == []
    assert not rig.feed.waiting


def test_a_made_up_header_does_not_keep_a_real_gap_from_being_filled() -> None:
    rig = started()
    rig.push(2, Header(rig.tree.best.number + 500, "made up", "nobody's child"))
    rig.answer(rig.tree.best)
    rig.tree.grow(3)
    rig.push(1, rig.tree.best)
    rig.wait(1.0, answering=True)
    assert rig.listener.held[-1] == rig.tree.best


def test_made_up_headers_fill_no_memory() -> None:
    rig = started(SMALL)
    for i in range(2000):
        rig.push(2, Header(rig.tree.best.number + 2 + i % 7, f"made up {i}", f"nobody's {i}"))
        if rig.out is not None and i % 3 == 0:
            rig.fail()
        rig.wait(0.05)
    assert len(rig.feed._shelf) <= SMALL.fill_at_most + 2 * SMALL.memory + SMALL.fetch_at_once
    rig.calm()
    assert rig.listener.held[-1] == rig.tree.best


def test_an_answer_that_never_comes_does_not_stop_the_feed() -> None:
    rig = started()
    rig.tree.grow(2)
    rig.push(1, rig.tree.best)
    rig.out = None  # the shell forgot it
    rig.wait(11.0)
    assert len(rig.fetches) == 2
    rig.answer(rig.tree.best)
    assert rig.listener.held[-1] == rig.tree.best


@pytest.mark.parametrize("wrong", [{"memory": 1}, {"fill_at_most": 0}, {"fetch_at_once": 0}, {"grace": -1.0}])
def test_illegal_settings_cannot_be_built(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HeadFeedSettings(**wrong)


# --- the figures ------------------------------------------------------------------------------------


class Day:
    """Two sources that hang up or hang every so often, polls, fetches that take a while: blocks come on."""

    STEP = 0.05

    def __init__(self, seed: int, sources: int) -> None:
        self.chance = Random(seed)
        self.rig = Rig(nodes=2)
        self.born: dict[str, float] = {}
        self.delays: list[float] = []
        self._pushes: list[tuple[float, int, Header]] = []
        self._hung: set[int] = set()
        self._answer_at = 0.0
        self._rejoin: list[tuple[float, int]] = []
        for node in range(sources):
            self.rig.join(node)

    def run(self, blocks: int) -> None:
        """So many blocks, one every BLOCK_TIME."""
        rig, chance = self.rig, self.chance
        steps = round(BLOCK_TIME / self.STEP)
        for step in range(blocks * steps + 20 * steps):
            rig.now += self.STEP
            if step % steps == 0 and step < blocks * steps:
                self._block()
            self._sources()
            if step % 20 == 0:
                rig.hint(rig.tree.headers[self._polled()])
            rig.do(rig.feed.tick(rig.now))
            if rig.out is None:
                self._answer_at = rig.now + 0.05 + chance.expovariate(1 / 0.1)
            elif rig.now >= self._answer_at:
                rig.fail() if chance.random() < 0.05 else rig.answer(rig.tree.best)
            self._note()

    def _polled(self) -> str:
        """A poll sees a block half a second after it is there."""
        seen = [block for block, at in list(self.born.items())[-5:] if at <= self.rig.now - 0.5]
        return seen[-1] if seen else self.rig.tree.best.parent

    def _block(self) -> None:
        tree, chance = self.rig.tree, self.chance
        if chance.random() < 0.02:
            tree.reorganise(1)
        else:
            tree.grow()
        self.born[tree.best.hash] = self.rig.now
        for source in self.rig.sources:
            if source not in self._hung:
                self._pushes.append((self.rig.now + 0.05 + chance.expovariate(1 / 0.1), source, tree.best))

    def _sources(self) -> None:
        """What is due is pushed; about once in 20 blocks a source hangs up or hangs."""
        rig, chance = self.rig, self.chance
        for push in sorted(p for p in self._pushes if p[0] <= rig.now):
            self._pushes.remove(push)
            if push[1] in rig.sources:
                rig.push(push[1], push[2])
        for source, node in list(rig.sources.items()):
            if chance.random() < self.STEP / (20 * BLOCK_TIME):
                self._hung.add(source)
                if chance.random() < 0.5:
                    rig.listener.silent.append(source)
            if source in rig.listener.silent:
                rig.leave(source)
                self._rejoin.append((rig.now + 1.0, node))
        for again in [again for again in self._rejoin if again[0] <= rig.now]:
            self._rejoin.remove(again)
            rig.join(again[1])

    def _note(self) -> None:
        for header in self.rig.listener.held[-3:]:
            if header.hash in self.born:
                self.delays.append(self.rig.now - self.born.pop(header.hash))


@pytest.mark.parametrize(("sources", "median", "worst"), [(0, 1.2, 4.0), (1, 0.3, 4.0), (2, 0.2, 4.0)])
def test_blocks_come_in_time_although_sources_die_all_the_time(sources: int, median: float, worst: float) -> None:
    seed, n = 1, 2000
    day = Day(seed, sources)
    day.run(n)
    delays = sorted(day.delays)
    share = [delays[int(len(delays) * part)] for part in (0.5, 0.99, 0.999)]
    died = day.rig.listener.silent
    print(
        f"{sources} sources, {len(died)} died: {share[0]:.2f} s in the middle, {share[1]:.2f} s at 99 %, "
        f"{delays[-1]:.2f} s at most; {len(day.rig.fetches)} fetches (n={n} blocks, seed={seed})"
    )
    assert day.rig.listener.gaps == []
    assert len(delays) >= 0.99 * n
    whole = day.rig.listener.held
    assert whole == day.rig.tree.line(day.rig.tree.best, whole[0].number)
    assert share[0] <= median
    assert delays[-1] <= worst

"""The fleet's live state: permits that always come back, and rankings that follow every fact."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import settings as examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model import (
    BlockRef,
    Call,
    Endpoint,
    Family,
    HeadReport,
    Method,
    Outcome,
    Reading,
    Reason,
    ReplyKind,
    RequestClass,
)
from gateway.policy.breaker import BreakerSettings, BreakerState
from gateway.policy.heads import HeadSettings
from gateway.upstream.fleet.facts import LACKED_BY_ALL_FOR, MAX_UNSUPPORTED
from gateway.upstream.fleet.permits import Moved, Permit, PoolSettings
from gateway.upstream.fleet.pool import Pool

STATE = Method("eth_call", RequestClass.HEAD_READ, Family.STATE)
HEAD = Method("eth_blockNumber", RequestClass.HEAD_READ, Family.HEAD)
SEND = Method("eth_sendRawTransaction", RequestClass.BROADCAST, Family.SEND)
METHODS = (STATE, HEAD, SEND)
SETTINGS = PoolSettings()


def of(method: Method) -> Call:
    """A call of it."""
    return Call(method, b"[]", b"1", method.request_class)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def endpoint(number: int, **facts: object) -> Endpoint:
    return Endpoint(**{"id": f"e{number}", "route": "r", "provider": f"p{number}", **facts})  # type: ignore[arg-type]


def pool_of(
    *endpoints: Endpoint,
    clock: Clock | None = None,
    tell: Callable[[Moved], None] = lambda moved: None,
    settings: PoolSettings = SETTINGS,
    verified: bool = True,
) -> Pool:
    """A pool whose endpoints have told their chain."""
    pool = Pool("r", endpoints, settings, clock or Clock(), Random(7), tell)
    if verified:
        for position in range(len(endpoints)):
            pool.note_chain(position, 1, True)
    return pool


def pool_and_clock(count: int = 3, **facts: object) -> tuple[Pool, Clock]:
    clock = Clock()
    return pool_of(*(endpoint(i, **facts) for i in range(count)), clock=clock), clock


def granted(pool: Pool, position: int, family: Family = Family.STATE) -> Permit:
    permit = pool.at(position, family, pool.clock())
    assert permit is not None
    return permit


def reply(pool: Pool, position: int, kind: ReplyKind, method: Method = STATE, **facts: float) -> None:
    """One attempt at one endpoint that was answered so."""
    permit = granted(pool, position, method.family)
    permit.settle(kind.counts, kind.value, pool.clock(), Reading(kind, **facts))  # type: ignore[arg-type]


def broken(pool: Pool, position: int, family: Family = Family.STATE) -> None:
    for _ in range(SETTINGS.breaker.consecutive):
        granted(pool, position, family).settle(Outcome.FAILURE, "server_fault", pool.clock())


def reasons(pool: Pool, method: Method = STATE) -> dict[int, Reason]:
    return {i: reason for i, reason, _ in pool.ranking_for(of(method), pool.clock()).refused}


def reached(pool: Pool, method: Method = STATE, draws: int = 40) -> set[int]:
    """The positions that new calls get."""
    found = set()
    for _ in range(draws):
        permit = pool.first(of(method), pool.clock())
        if permit is not None:
            found.add(permit.state.position)
            permit.release()
    return found


def followed(pool: Pool, method: Method = STATE, last_resort: bool = True) -> list[int]:
    """The positions that one call gets, one after the other, until nobody is left."""
    used: list[int] = []
    while (permit := pool.next(of(method), used, last_resort, pool.clock())) is not None:
        assert permit.state.position not in used, "a call came to one endpoint twice"
        used.append(permit.state.position)
        permit.release()
    return used


# --- heads ------------------------------------------------------------------------------------------


def heads(pool: Pool, *numbers: int | None) -> None:
    for position, number in enumerate(numbers):
        if number is not None:
            pool.note_head(position, HeadReport(number), pool.clock())


def test_one_whose_head_nobody_knows_comes_last_for_the_head_and_not_for_old_blocks() -> None:
    pool, _ = pool_and_clock()
    assert reached(pool) == {0, 1, 2}, "at the start nobody is known"
    heads(pool, 100, 100)
    assert reached(pool) == {0, 1}
    assert followed(pool)[-1] == 2
    assert reached(pool, SEND) == {0, 1, 2}
    old = Call(STATE, b"[]", b"1", RequestClass.PINNED_READ, BlockRef.NUMBER, 50, 50)
    assert {reason for _, reason, _ in pool.ranking_for(old, pool.clock()).refused} == set()
    assert pool.ranking_for(old, pool.clock()).front == (0, 1, 2)
    heads(pool, None, None, 100)
    assert reached(pool) == {0, 1, 2}


def test_one_that_does_not_answer_polls_gets_no_head_reads_however_long_it_is_silent() -> None:
    pool, clock = pool_and_clock()
    for block in range(100):
        heads(pool, 100 + block, 100 + block, 100 if block == 0 else None)
        pool.blocks.book.asked(2, clock.now)
        pool.expire(clock.now)
        if block > 10:
            assert 2 not in reached(pool), f"{clock.now} s"
        clock.now += 2.0


def test_one_that_an_operator_gives_back_is_asked_where_it_is_before_it_gets_head_reads() -> None:
    pool, clock = pool_and_clock()
    heads(pool, 100, 100, 100)
    pool.drain(0, clock.now)
    clock.now += 1.5
    pool.undrain(0)
    assert pool.blocks.book.next_poll_after(0, clock.now) == 0.0
    assert 0 not in reached(pool)
    heads(pool, 90)
    assert 0 not in reached(pool)
    heads(pool, 100)
    assert 0 in reached(pool)


def test_what_callers_have_seen_of_the_head_is_where_their_next_head_reads_go() -> None:
    pool, _ = pool_and_clock(max_concurrency=4)
    heads(pool, 101, 100, 100)
    assert reached(pool) == {0, 1, 2}, "nobody has been told of it"
    pool.blocks.served = 101
    assert reached(pool) == {0}
    assert reached(pool, HEAD) == {0, 1, 2}, "a number that went back is seen, and put right"
    assert followed(pool)[0] == 0
    heads(pool, None, 101)
    assert reached(pool) == {0, 1}
    held = [granted(pool, position) for position in (0, 1) for _ in range(4)]
    assert reached(pool) == {2}, "a block less is better than a place in the queue"
    for permit in held:
        permit.release()
    assert reached(pool) == {0, 1}


def test_two_of_one_client_version_that_are_stuck_take_the_third_out_of_the_front() -> None:
    """geth 1.9.9, 2020-11-11: nobody failed to answer; they were only at an old block."""
    clients = ["geth/1.9.9"] * 3 + ["besu/1.5"] * 2
    pool = pool_of(*(endpoint(i, domains=(("client", client),)) for i, client in enumerate(clients)))
    heads(pool, 500, 500, 500, 500, 500)
    assert reached(pool) == {0, 1, 2, 3, 4}
    pool.clock.now += 60.0  # type: ignore[attr-defined]
    heads(pool, 500, 500, 600, 600, 600)
    assert pool.domains.demoted(2) == ("client", "geth/1.9.9")
    assert reached(pool) == {3, 4}
    for _ in range(40):
        pool.clock.now += 1.0  # type: ignore[attr-defined]
        heads(pool, 600, 600, 600, 600, 600)
        pool.expire(pool.clock())
    assert pool.domains.demoted(2) is None
    assert reached(pool) == {0, 1, 2, 3, 4}


def test_a_reload_keeps_what_is_known_of_heads_unless_it_is_to_be_judged_in_another_way() -> None:
    def known(settings: PoolSettings, provider: str = "p0") -> tuple[int, int, list[str]]:
        clock = Clock()
        before = pool_of(endpoint(0), endpoint(1), endpoint(2), clock=clock)
        heads(before, 80, 101, 103)
        before.blocks.served = 103
        after = pool_of(endpoint(0, provider=provider), endpoint(1), endpoint(2), clock=clock, settings=settings)
        after.inherit(before)
        book = after.blocks.book
        return after.blocks.served, book.reference, [book.standing(position).value for position in range(3)]

    assert known(SETTINGS) == (103, 103, ["lagging", "current", "current"])
    anew = (103, -1, ["unknown"] * 3)
    assert known(PoolSettings(heads=HeadSettings(lag_blocks=5))) == anew, "the new tolerance waits for a restart"
    assert known(SETTINGS, provider="p1") == anew, "two endpoints of one provider are one voice"


def test_what_was_learned_of_an_endpoints_blocks_goes_with_its_address() -> None:
    pool, clock = pool_and_clock()
    heads(pool, 1000, 1000, 1000)
    pool.blocks.lacks(0, Family.STATE, 500, clock.now)
    old = Call(STATE, b"[]", b"1", RequestClass.PINNED_READ, BlockRef.NUMBER, 50, 50)
    assert pool.ranking_for(old, clock.now).front == (1, 2)
    pool.renewed(0, clock.now)
    assert pool.ranking_for(old, clock.now).front == (0, 1, 2), "an archive was bought, and is not used"
    assert reached(pool) == {1, 2}, "the head of the node that was there before is not its own"
    heads(pool, 1000)
    assert reached(pool) == {0, 1, 2}


def test_who_may_know_better_is_asked_before_who_runs_somewhere_else() -> None:
    one, same, other = (endpoint(i, domains=(("cloud", cloud),)) for i, cloud in enumerate("aab"))
    pool = pool_of(one, same, other)
    heads(pool, 100, 101, 100)
    call = of(STATE)
    for doubted, expected in ((True, 1), (False, 2)):
        permit = pool.next(call, [0], False, pool.clock(), doubted=doubted)
        assert permit is not None
        assert permit.state.position == expected
        permit.release()


def test_a_probe_lost_while_nobody_can_be_reached_does_not_keep_the_breaker_half_open_for_ever() -> None:
    pool, clock = pool_and_clock()
    broken(pool, 0)
    clock.now += 200.0
    probe = pool.probe(0, Family.STATE, clock.now)
    assert probe is not None
    clock.now += 1.0
    probe.settle(Outcome.FAILURE, "attempt_timeout", clock.now)
    assert pool.probe(0, Family.STATE, clock.now) is not None


# --- permits ----------------------------------------------------------------------------------------


def test_a_permit_is_settled_once_whatever_comes_after() -> None:
    pool, clock = pool_and_clock()
    permit = granted(pool, 0)
    permit.settle(Outcome.SUCCESS, "answer", clock.now)
    cell = pool.states[0].cell(Family.STATE)
    for _ in range(10):
        permit.settle(Outcome.FAILURE, "connection_lost", clock.now, Reading(ReplyKind.KEY_REFUSED))
        permit.release()
    assert pool.states[0].in_flight == 0
    assert cell.load.in_flight == 0
    assert cell.breaker.evidence == 0.0
    assert reasons(pool) == {}


def test_leaving_a_permit_unsettled_counts_for_nobody_and_gives_the_slot_back() -> None:
    pool, _ = pool_and_clock(max_concurrency=1)
    cell = pool.states[0].cell(Family.STATE)
    for _ in range(100):
        with granted(pool, 0):
            assert pool.at(0, Family.STATE, pool.clock()) is None, "one slot was given twice"
    assert pool.states[0].in_flight == 0
    assert cell.breaker.evidence == 0.0
    assert cell.load.seen == 0, "what was cancelled has no latency"


def test_an_exception_gives_the_slot_back_and_goes_on() -> None:
    pool, _ = pool_and_clock()
    with pytest.raises(KeyError), granted(pool, 0):
        raise KeyError
    assert pool.states[0].in_flight == 0


def test_an_unsettled_probe_does_not_jam_the_breaker() -> None:
    pool, clock = pool_and_clock()
    broken(pool, 0)
    clock.now += 200
    for _ in range(20):
        probe = pool.probe(0, Family.STATE, clock.now)
        assert probe is not None
        assert pool.probe(0, Family.STATE, clock.now) is None, "two probes at a time"
        probe.release()
    assert reasons(pool) == {0: Reason.PROBING}


def test_a_forced_calls_end_does_not_let_a_second_probe_out() -> None:
    pool, clock = pool_and_clock()
    broken(pool, 0)
    clock.now += 200
    assert pool.probe(0, Family.STATE, clock.now) is not None
    granted(pool, 0).settle(Outcome.SUCCESS, "answer", clock.now)
    granted(pool, 0).release()
    assert pool.probe(0, Family.STATE, clock.now) is None


def test_what_began_before_a_trip_and_ends_after_it_changes_nothing() -> None:
    pool, _ = pool_and_clock()
    early = [granted(pool, 0) for _ in range(10)]
    broken(pool, 0)
    breaker = pool.states[0].cell(Family.STATE).breaker
    before = repr(breaker), breaker.open_until
    for permit, outcome in zip(early, [*Outcome, *Outcome], strict=False):
        permit.settle(outcome, "late", pool.clock())
    assert before == (repr(breaker), breaker.open_until)


def test_without_a_free_slot_nobody_gets_a_permit_and_with_one_elsewhere_it_is_found() -> None:
    pool, clock = pool_and_clock(2, max_concurrency=1)
    first = granted(pool, 0)
    second = pool.next(of(STATE), (), True, clock.now)
    assert second is not None
    assert second.state.position == 1
    assert pool.first(of(STATE), clock.now) is None
    assert pool.next(of(STATE), (), True, clock.now) is None
    first.release()
    third = pool.next(of(STATE), (), True, clock.now)
    assert third is not None
    assert third.state.position == 0


# --- reasons: how each begins, and what ends it -----------------------------------------------------


def test_failures_of_one_family_say_nothing_of_another() -> None:
    pool, _ = pool_and_clock()
    broken(pool, 0, Family.STATE)
    assert reasons(pool, STATE) == {0: Reason.BREAKER_OPEN}
    assert reasons(pool, HEAD) == {}
    assert reached(pool, STATE) == {1, 2}
    assert reached(pool, HEAD) == {0, 1, 2}


def test_good_probes_bring_a_broken_endpoint_back_with_a_small_share() -> None:
    pool, clock = pool_and_clock()
    broken(pool, 0)
    clock.now += 200
    for _ in range(SETTINGS.breaker.probes_to_close):
        probe = pool.probe(0, Family.STATE, clock.now)
        assert probe is not None
        probe.settle(Outcome.SUCCESS, "answer", clock.now)
    assert reasons(pool) == {}
    assert pool.ranking(Family.STATE, clock.now).shares == (pytest.approx(0.1), 1.0, 1.0)
    clock.now += SETTINGS.breaker.slow_start_for
    assert pool.ranking(Family.STATE, clock.now).shares is None, "the share grew without an event"


def test_a_hold_ends_by_itself_when_its_time_is_over() -> None:
    pool, clock = pool_and_clock()
    reply(pool, 0, ReplyKind.THROTTLED, retry_after=5.0)
    assert reasons(pool, HEAD) == {0: Reason.HELD}, "throttling is of the account, not of a family"
    clock.now += 4.999
    assert 0 not in reached(pool)
    clock.now += 0.001
    assert 0 in pool.ranking(Family.STATE, clock.now).front


def test_throttling_never_moves_a_closed_breaker_and_costs_a_penalty() -> None:
    pool, _ = pool_and_clock()
    for _ in range(50):
        reply(pool, 0, ReplyKind.THROTTLED)
    cell = pool.states[0].cell(Family.STATE)
    assert BreakerState.CLOSED is cell.breaker.state
    assert cell.breaker.evidence == 0.0
    assert SETTINGS.selection.penalty_latency == cell.load.estimate


@pytest.mark.parametrize("kind", [ReplyKind.KEY_REFUSED, ReplyKind.QUOTA, ReplyKind.GONE, ReplyKind.WRONG_CHAIN])
def test_an_exclusion_does_not_end_by_time_but_by_a_probe_that_got_through(kind: ReplyKind) -> None:
    pool, clock = pool_and_clock()
    reply(pool, 0, kind)
    assert reasons(pool) == {0: Reason.EXCLUDED}
    clock.now += 1e6
    assert reasons(pool) == {0: Reason.EXCLUDED}
    pool.still_out(0, clock.now)
    assert reasons(pool) == {0: Reason.EXCLUDED}
    pool.back(0, clock.now)
    assert reasons(pool) == {}
    for position in (1, 2):  # those that served meanwhile
        pool.ask(position, STATE.family, clock.now - 0.02).settle(Outcome.SUCCESS, "answer", clock.now)
    assert 0 in reached(pool)


def test_an_exclusions_next_probe_comes_later_each_time_up_to_its_bound() -> None:
    pool, clock = pool_and_clock()
    reply(pool, 0, ReplyKind.KEY_REFUSED)
    exclusion = pool.states[0].exclusion
    lengths = [exclusion.until - clock.now]
    for _ in range(9):
        clock.now = exclusion.until
        pool.still_out(0, clock.now)
        lengths.append(exclusion.until - clock.now)
    holds = SETTINGS.holds
    for number, length in enumerate(lengths):
        plain = min(holds.exclude_at_most, holds.exclude_for * 2**number)
        assert plain <= length <= plain * 1.2


def test_back_without_an_exclusion_changes_nothing() -> None:
    told: list[Moved] = []
    pool = pool_of(endpoint(0), tell=told.append)
    told.clear()
    pool.back(0, pool.clock())
    assert told == []


def test_nobody_is_used_before_its_chain_is_known_nor_with_a_wrong_one() -> None:
    clock = Clock()
    pool = pool_of(endpoint(0), endpoint(1), clock=clock, verified=False)
    assert reasons(pool) == {0: Reason.UNVERIFIED, 1: Reason.UNVERIFIED}
    assert followed(pool) == []
    pool.note_chain(0, 1, True)
    pool.note_chain(1, 56, False)
    assert reasons(pool) == {1: Reason.WRONG_CHAIN}
    assert followed(pool) == [0]
    pool.note_chain(1, 1, True)
    assert reasons(pool) == {}


def test_a_transaction_stays_with_the_private_endpoints_even_when_they_are_broken() -> None:
    pool = pool_of(endpoint(0), endpoint(1, private=True), endpoint(2, private=True))
    assert reasons(pool, SEND) == {0: Reason.NOT_PRIVATE}
    assert reasons(pool, STATE) == {}
    broken(pool, 1, Family.SEND)
    broken(pool, 2, Family.SEND)
    assert sorted(followed(pool, SEND)) == [1, 2]


def test_a_worse_tier_is_asked_only_after_the_better_one() -> None:
    pool = pool_of(endpoint(0, tier=1), endpoint(1, tier=0), endpoint(2, tier=1))
    assert reached(pool) == {1}
    assert followed(pool)[0] == 1
    broken(pool, 1)
    assert reached(pool) == {0, 2}


# --- drains -----------------------------------------------------------------------------------------


def test_a_drain_is_never_overridden_not_even_in_panic() -> None:
    pool, clock = pool_and_clock()
    pool.drain(0, clock.now)
    broken(pool, 1)
    broken(pool, 2)
    assert pool.ranking(Family.STATE, clock.now).panic
    assert reached(pool) == set()
    assert sorted(followed(pool)) == [1, 2]


def test_nothing_but_an_operator_ends_a_drain() -> None:
    pool, clock = pool_and_clock()
    under_way = granted(pool, 0)
    pool.drain(0, clock.now)
    clock.now += 1e9
    under_way.settle(Outcome.SUCCESS, "answer", clock.now)
    pool.note_chain(0, 1, True)
    reply(pool, 0, ReplyKind.KEY_REFUSED)
    pool.back(0, clock.now)
    pool.changed()
    assert reasons(pool) == {0: Reason.DRAINED}
    pool.undrain(0)
    assert reasons(pool) == {}


def test_a_drain_and_all_other_live_state_outlive_a_reload_that_leaves_the_endpoint_unchanged() -> None:
    clock = Clock()
    old = pool_of(endpoint(0), endpoint(1), endpoint(2), clock=clock)
    old.drain(0, clock.now)
    broken(old, 1)
    under_way = granted(old, 2)
    new = pool_of(endpoint(2), endpoint(1), endpoint(0), endpoint(9), clock=clock, verified=False)
    for position, before in enumerate((2, 1, 0)):
        new.adopt(position, old.states[before])
    assert reasons(new) == {1: Reason.BREAKER_OPEN, 2: Reason.DRAINED, 3: Reason.UNVERIFIED}
    assert new.states[0].in_flight == 1
    under_way.settle(ReplyKind.KEY_REFUSED.counts, "key_refused", clock.now, Reading(ReplyKind.KEY_REFUSED))
    assert new.states[0].in_flight == 0
    assert reasons(new)[0] is Reason.EXCLUDED, "what was under way counts in the new pool"


# --- methods that an endpoint does not offer --------------------------------------------------------


def test_an_unsupported_method_is_not_asked_there_for_a_while_and_others_are() -> None:
    pool, clock = pool_and_clock()
    other = Method("eth_getBalance", RequestClass.HEAD_READ, Family.STATE)
    pool.unsupported(0, STATE, clock.now)
    assert reasons(pool, STATE) == {0: Reason.UNSUPPORTED}
    assert reached(pool, STATE) == {1, 2}
    assert 0 not in followed(pool, STATE)
    assert reached(pool, other) == {0, 1, 2}
    clock.now += SETTINGS.holds.unsupported_for
    assert 0 in reached(pool, STATE), "a provider's upgrade goes unnoticed"


def test_when_all_lack_a_method_nobody_is_asked_and_the_pool_knows_it() -> None:
    pool, clock = pool_and_clock()
    for position in range(3):
        assert not pool.all_lack(STATE, clock.now)
        pool.unsupported(position, STATE, clock.now)
    assert pool.all_lack(STATE, clock.now)
    assert followed(pool, STATE) == []
    clock.now += LACKED_BY_ALL_FOR
    assert not pool.all_lack(STATE, clock.now)
    assert reached(pool, STATE) == {0, 1, 2}, "a sick balancer said it of a method that it has"


def test_the_only_one_left_that_says_it_lacks_a_method_is_asked_again_soon() -> None:
    pool, clock = pool_and_clock(2)
    pool.drain(1, clock.now)
    pool.unsupported(0, STATE, clock.now)
    assert followed(pool, STATE) == []
    clock.now += LACKED_BY_ALL_FOR
    assert reached(pool, STATE) == {0}


@pytest.mark.parametrize("kind", [ReplyKind.THROTTLED, ReplyKind.QUOTA])
def test_an_unsupported_method_is_not_forced_on_an_endpoint_that_is_out_for_another_reason(kind: ReplyKind) -> None:
    pool, clock = pool_and_clock(1)
    pool.unsupported(0, STATE, clock.now)
    reply(pool, 0, kind)
    assert followed(pool, STATE) == []


def test_the_memory_of_unsupported_methods_is_bounded_and_forgets_the_oldest() -> None:
    """Their names come from callers."""
    pool, clock = pool_and_clock(2)
    made_up = [Method(f"made_up_{i}", RequestClass.UNKNOWN, Family.OTHER, known=False) for i in range(1000)]
    for method in made_up:
        pool.unsupported(0, method, clock.now)
    remembered = [method for method in made_up if 0 in reasons(pool, method)]
    assert made_up[-MAX_UNSUPPORTED:] == remembered


# --- what is told -----------------------------------------------------------------------------------


def test_the_time_until_somebody_is_free_is_named_when_it_is_known() -> None:
    pool, clock = pool_and_clock(2)
    assert pool.free_after(of(STATE), clock.now) is None
    reply(pool, 0, ReplyKind.THROTTLED, retry_after=8.0)
    reply(pool, 1, ReplyKind.THROTTLED, retry_after=5.0)
    assert pool.free_after(of(STATE), clock.now) == 5.0
    clock.now += 5.0
    assert pool.free_after(of(STATE), clock.now) == 3.0
    pool.drain(0, clock.now)
    assert pool.free_after(of(STATE), clock.now) is None


def test_every_change_is_told_once_and_never_twice() -> None:
    told: list[Moved] = []
    clock = Clock()
    pool = pool_of(endpoint(0), clock=clock, tell=told.append)
    for _ in range(2):
        pool.note_chain(0, 1, True)
    for _ in range(2):
        pool.drain(0, clock.now)
    for _ in range(2):
        pool.undrain(0)
    broken(pool, 0)
    reply(pool, 0, ReplyKind.KEY_REFUSED)
    reply(pool, 0, ReplyKind.KEY_REFUSED)
    for _ in range(2):
        pool.back(0, clock.now)
    assert [(moved.what, moved.was, moved.became) for moved in told] == [
        ("chain", "unverified", "right"),
        ("drained", "in", "out"),
        ("drained", "out", "in"),
        ("breaker", "closed", "open"),
        ("excluded", "in", "out"),
        ("excluded", "out", "in"),
    ]


def test_the_reasons_of_an_endpoint_name_the_family_only_where_it_is_of_one() -> None:
    pool, clock = pool_and_clock(1)
    broken(pool, 0, Family.LOGS)
    assert list(pool.states[0].reasons(clock.now)) == [(Reason.BREAKER_OPEN, "logs")]
    reply(pool, 0, ReplyKind.THROTTLED, retry_after=5.0)
    assert list(pool.states[0].reasons(clock.now)) == [(Reason.HELD, "")]


# --- any order of events ----------------------------------------------------------------------------

ENDPOINTS = (
    endpoint(0, max_concurrency=2),
    endpoint(1, weight=3.0),
    endpoint(2, tier=1, private=True),
    endpoint(3, tier=1, max_concurrency=1, private=True),
)
POSITIONS = st.integers(0, len(ENDPOINTS) - 1)
QUICK = PoolSettings(breaker=BreakerSettings(consecutive=2, probes_to_close=1))


class AnyOrder(RuleBasedStateMachine):
    """Calls, probes, operators, reloads and time, interleaved in any way."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.pool = pool_of(*ENDPOINTS, clock=self.clock, settings=QUICK)
        self.out: list[Permit] = []
        self.ended: list[Permit] = []
        self.drained: set[str] = set()

    def keep(self, permit: Permit | None, chosen: bool) -> None:
        if permit is None:
            return
        self.out.append(permit)
        if chosen:
            state = permit.state
            assert state.endpoint.id not in self.drained, "a drained endpoint got a call"
            assert state.chain_ok, "an endpoint of another chain got a call"
            assert state.in_flight <= state.endpoint.max_concurrency
            assert state.endpoint.private or permit.cell.family is not Family.SEND

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 61.0, 601.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(method=st.sampled_from(METHODS))
    def a_call_begins(self, method: Method) -> None:
        self.keep(self.pool.first(of(method), self.clock.now), chosen=True)

    @rule(method=st.sampled_from(METHODS), used=st.lists(POSITIONS, max_size=3, unique=True), forced=st.booleans())
    def a_call_goes_elsewhere(self, method: Method, used: list[int], forced: bool) -> None:
        permit = self.pool.next(of(method), used, forced, self.clock.now)
        assert permit is None or permit.state.position not in used
        self.keep(permit, chosen=True)

    @rule(position=POSITIONS, method=st.sampled_from(METHODS), breaker=st.booleans())
    def a_probe_begins(self, position: int, method: Method, breaker: bool) -> None:
        ask = self.pool.probe if breaker else self.pool.at
        self.keep(ask(position, method.family, self.clock.now), chosen=False)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), kind=st.sampled_from(ReplyKind))
    def one_is_answered(self, data: st.DataObject, kind: ReplyKind) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        permit.settle(kind.counts, kind.value, self.clock.now, Reading(kind))
        self.ended.append(permit)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def one_is_lost(self, data: st.DataObject) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        permit.settle(Outcome.FAILURE, "connection_lost", self.clock.now)
        self.ended.append(permit)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def one_is_left(self, data: st.DataObject) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        with permit:
            pass
        self.ended.append(permit)

    @precondition(lambda self: self.ended)
    @rule(data=st.data(), kind=st.sampled_from(ReplyKind))
    def one_is_settled_again(self, data: st.DataObject, kind: ReplyKind) -> None:
        permit = data.draw(st.sampled_from(self.ended))
        permit.settle(kind.counts, kind.value, self.clock.now, Reading(kind))
        permit.release()

    @rule(position=POSITIONS, out=st.booleans())
    def an_operator_decides(self, position: int, out: bool) -> None:
        name = self.pool.endpoints[position].id
        if out:
            self.pool.drain(position, self.clock.now)
            self.drained.add(name)
        else:
            self.pool.undrain(position)
            self.drained.discard(name)

    @rule(position=POSITIONS, ok=st.booleans())
    def a_chain_is_told(self, position: int, ok: bool) -> None:
        self.pool.note_chain(position, 1 if ok else 2, ok)

    @rule(position=POSITIONS, through=st.booleans())
    def an_excluded_one_is_asked(self, position: int, through: bool) -> None:
        if self.pool.states[position].exclusion_reason:
            (self.pool.back if through else self.pool.still_out)(position, self.clock.now)

    @rule(position=POSITIONS, method=st.sampled_from(METHODS))
    def a_method_is_lacking(self, position: int, method: Method) -> None:
        self.pool.unsupported(position, method, self.clock.now)

    @rule(order=st.permutations(range(len(ENDPOINTS))))
    def the_configuration_is_reloaded(self, order: list[int]) -> None:
        """The same endpoints in another order: all live state is taken over."""
        old = self.pool
        self.pool = Pool("r", [old.endpoints[i] for i in order], QUICK, self.clock, Random(7))
        for position, before in enumerate(order):
            self.pool.adopt(position, old.states[before])

    @invariant()
    def what_is_in_flight_is_what_was_granted_and_has_not_ended(self) -> None:
        for state in self.pool.states:
            assert state.in_flight == sum(permit.state is state for permit in self.out)
            for cell in state.cells:
                if cell is not None:
                    assert cell.load.in_flight == sum(permit.cell is cell for permit in self.out)

    @invariant()
    def a_kept_ranking_says_what_a_new_one_would(self) -> None:
        now = self.clock.now
        kept = [self.pool.ranking(method.family, now) for method in METHODS]
        self.pool.changed()
        for method, ranking in zip(METHODS, kept, strict=True):
            fresh = self.pool.ranking(method.family, now)
            assert (fresh.front, fresh.behind, set(fresh.need)) == (ranking.front, ranking.behind, set(ranking.need))
            assert [(i, why) for i, why, _ in fresh.refused] == [(i, why) for i, why, _ in ranking.refused]

    @invariant()
    def the_drained_are_exactly_those_that_operators_drained(self) -> None:
        out = {state.endpoint.id for state in self.pool.states if state.drained_at is not None}
        assert self.drained == out
        for method in METHODS:
            ranking = self.pool.ranking_for(of(method), self.clock.now)
            listed = {*ranking.front, *ranking.behind, *ranking.need}
            assert not {self.pool.endpoints[i].id for i in listed} & self.drained

    def teardown(self) -> None:
        for permit in self.out:
            permit.release()
        assert [state.in_flight for state in self.pool.states] == [0] * len(ENDPOINTS)
        assert all(c is None or c.load.in_flight == 0 for state in self.pool.states for c in state.cells)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = examples(max_examples=60, stateful_step_count=40, deadline=None)

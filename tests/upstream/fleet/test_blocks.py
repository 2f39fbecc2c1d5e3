"""What is known of blocks: callers never see the chain go back, and nothing is believed of who cannot know."""

from __future__ import annotations

import pytest

from gateway.dialect.evm import EvmDialect
from gateway.model import Call, Examined, Family, HeadReport, Reason, ReplyKind
from gateway.policy.heads import HeadSettings
from gateway.upstream.fleet.blocks import RECENT, REMEMBERED, Blocks

EVM = EvmDialect()
HEAD = 1000


def blocks(*heads: int, block_time: float = 2.0) -> Blocks:
    """Three providers that told these heads at instant 100."""
    known = Blocks(HeadSettings(), [f"p{i}" for i in range(len(heads) or 3)], block_time, 0.0)
    for position, head in enumerate(heads or (HEAD, HEAD, HEAD)):
        known.report(position, HeadReport(head), 100.0, 1e9)
    return known


def call(method: str, params: bytes = b"[]") -> Call:
    return EVM.call(method, params, b"1")


def judged(
    known: Blocks, asked: Call, result: bytes, position: int = 0, now: float = 100.5, again: bool = False
) -> str:
    told = EVM.examine(asked, result)
    finding = known.judge(asked, position, told, now, again) if told is not None else None
    return finding.kind.value if finding is not None else "fine"


LOGS = call("eth_getLogs", b'[{"fromBlock":"0x3e0","toBlock":"0x3e7"}]')  # 992 to 999
OLD_LOGS = call("eth_getLogs", b'[{"fromBlock":"0x1","toBlock":"0x9"}]')
RECEIPT = call("eth_getTransactionReceipt", b'["0x%s"]' % (b"ab" * 32))
NONCE = call("eth_getTransactionCount", b'["0x%s","latest"]' % (b"ab" * 20))
NUMBER = call("eth_blockNumber")


def test_a_head_that_goes_back_is_behind_and_one_that_rises_is_the_new_floor() -> None:
    known = blocks()
    assert judged(known, NUMBER, b'"0x3e8"') == "fine"
    assert known.served == HEAD
    assert judged(known, NUMBER, b'"0x3e7"') == "behind"


def test_a_pending_block_is_no_head() -> None:
    known = blocks()
    pending = call("eth_getBlockByNumber", b'["pending",false]')
    for result in (b'{"number":"0x3e9","hash":null}', b'{"number":"0x3e9","hash":"0x%s"}' % (b"ab" * 32)):
        told = EVM.examine(pending, result)
        assert told is not None
        assert told.head is None
        assert judged(known, pending, result) == "fine"
    assert judged(known, NUMBER, b'"0x3e8"') == "fine", "callers were told of a block that was not mined"


def test_when_the_whole_chain_goes_back_callers_follow() -> None:
    known = blocks()
    judged(known, NUMBER, b'"0x3e8"')
    for second in range(101, 140):
        for position in range(3):
            known.report(position, HeadReport(10), float(second), 1e9)
        known.expire(float(second))
    assert known.served == known.book.reference == 10
    assert judged(known, NUMBER, b'"0xa"', now=140.0) == "fine"


def test_a_nonce_that_falls_is_asked_elsewhere_and_believed_of_a_second_provider() -> None:
    known = blocks()
    assert judged(known, NONCE, b'"0x9"') == "fine"
    assert judged(known, NONCE, b'"0x8"', position=1) == "behind"
    assert judged(known, NONCE, b'"0x8"', position=1) == "behind", "the same one again proves nothing"
    assert judged(known, NONCE, b'"0x8"', position=2) == "fine"
    assert judged(known, NONCE, b'"0x8"', position=1) == "fine"


def test_a_nonce_does_not_fall_because_two_endpoints_are_a_block_behind() -> None:
    known = blocks(HEAD + 1, HEAD, HEAD)
    assert judged(known, NONCE, b'"0x9"') == "fine"
    for _ in range(2):
        assert judged(known, NONCE, b'"0x8"', position=1) == "behind"
        assert judged(known, NONCE, b'"0x8"', position=2) == "behind"
    told = EVM.examine(NONCE, b'"0x8"')
    assert told is not None
    finding = known.judge(NONCE, 1, told, 100.5, True)
    assert finding is not None
    assert finding.seen == 9, "what callers have seen is told instead"


def test_two_endpoints_of_one_provider_do_not_make_a_nonce_fall() -> None:
    known = Blocks(HeadSettings(), ["one", "two", "two"], 2.0, 0.0)
    for position in range(3):
        known.report(position, HeadReport(HEAD), 100.0, 1e9)
    assert judged(known, NONCE, b'"0x9"') == "fine"
    assert judged(known, NONCE, b'"0x8"', position=1) == "behind"
    assert judged(known, NONCE, b'"0x8"', position=2) == "behind"


def test_a_book_made_anew_does_not_take_back_what_callers_have_seen() -> None:
    """A reload with another list of endpoints: the first to speak may be the one that is late."""
    known = Blocks(HeadSettings(), ["p0", "p1", "p2"], 2.0, 0.0)
    known.served = HEAD
    known.report(0, HeadReport(HEAD - 2), 100.0, 1e9)
    assert judged(known, NUMBER, b'"0x3e6"') == "behind"
    for position in (1, 2):
        known.report(position, HeadReport(HEAD), 101.0, 1e9)
    assert judged(known, NUMBER, b'"0x3e7"') == "behind"
    assert known.served == HEAD


def test_a_chain_that_was_reset_during_a_reload_is_followed_all_the_same() -> None:
    known = blocks(10, 10, 10)
    known.served, known.served_final = HEAD, HEAD - 64
    for second in range(101, 115):
        for position in range(3):
            known.report(position, HeadReport(10), float(second), 1e9)
        known.expire(float(second))
    assert judged(known, NUMBER, b'"0xa"', now=115.0) == "fine"
    final = call("eth_getBlockByNumber", b'["finalized",false]')
    assert judged(known, final, b'{"number":"0x8"}', now=115.0) == "fine"


def test_a_finalized_block_beyond_the_newest_is_told_to_nobody() -> None:
    known = blocks()
    final = call("eth_getBlockByNumber", b'["finalized",false]')
    assert judged(known, final, b'{"number":"0x3a8"}') == "fine"
    assert judged(known, final, b'{"number":"0xf4240"}') == "wrong_data"
    assert judged(known, final, b'{"number":"0x3a8"}') == "fine", "the lie has become what callers have seen"
    assert judged(known, final, b'{"number":"0x3a7"}') == "behind"


def test_nothing_from_an_endpoint_that_is_a_block_behind_always_gets_a_second_opinion() -> None:
    """The one ahead may have told the receipt to the very caller that asks again."""
    known = blocks(HEAD, HEAD, HEAD - 1)
    assert judged(known, RECEIPT, b"null", position=0) == "empty"
    assert judged(known, RECEIPT, b"null", position=1, again=True) == "fine"
    assert judged(known, RECEIPT, b"null", position=1) == "fine"
    assert judged(known, RECEIPT, b"null", position=2) == "empty"


def test_an_empty_list_is_not_believed_of_who_has_not_the_blocks() -> None:
    known = blocks(990, HEAD, HEAD)
    assert judged(known, LOGS, b"[]", position=0) == "uncovered"


def test_near_the_head_nothing_gets_a_second_opinion_once_per_question_and_block() -> None:
    known = blocks()
    assert judged(known, LOGS, b"[]") == "empty"
    assert judged(known, LOGS, b"[]", position=1, again=True) == "fine"
    assert judged(known, LOGS, b"[]") == "fine", "asked twice at this block already"
    for position in range(3):
        known.report(position, HeadReport(HEAD + 1), 103.0, 1e9)
    assert judged(known, LOGS, b"[]", now=103.5) == "empty"


def test_far_below_the_head_nothing_is_an_answer() -> None:
    assert HEAD - 9 > RECENT
    assert judged(blocks(), OLD_LOGS, b"[]") == "fine"


def test_of_who_left_logs_out_nothing_is_believed_of_old_blocks_for_an_hour() -> None:
    known = blocks()
    known.left_out(0, 100.5)
    assert judged(known, OLD_LOGS, b"[]") == "empty"
    assert judged(blocks(), OLD_LOGS, b"[]", position=1) == "fine"
    assert judged(known, OLD_LOGS, b"[]", now=100.5 + 3600.0) == "fine"


def test_a_list_that_ends_before_the_range_does_is_doubted_near_the_head() -> None:
    known = blocks()
    assert judged(known, LOGS, b'[{"blockNumber":"0x3e2"}]') == "empty"
    assert judged(known, LOGS, b'[{"blockNumber":"0x3e7"}]') == "fine"


def test_a_missing_receipt_gets_a_second_opinion_and_a_missing_block_that_is_there_is_no_answer() -> None:
    known = blocks()
    assert judged(known, RECEIPT, b"null") == "empty"
    there = call("eth_getBlockByNumber", b'["0x3e0",false]')
    assert judged(known, there, b"null") == "uncovered"
    to_come = call("eth_getBlockByNumber", b'["0x3f0",false]')
    assert judged(known, to_come, b"null") == "fine"


def log(number: int, index: int, block_hash: str = "0xaa") -> str:
    return f'{{"blockNumber":"{number:#x}","blockHash":"{block_hash}","logIndex":"{index:#x}"}}'


@pytest.mark.parametrize(
    ("logs", "expected"),
    [
        ([log(991, 0), log(991, 3), log(999, 0)], "fine"),
        ([log(991, 3), log(991, 3), log(999, 0)], "odd"),
        ([log(991, 3), log(991, 2), log(999, 0)], "odd"),
        ([log(995, 0), log(991, 1), log(999, 0)], "odd"),
        ([log(991, 0), log(991, 1, "0xbb"), log(999, 0)], "odd"),
        (['{"data":"0x"}', log(999, 0)], "fine"),
    ],
)
def test_logs_that_cannot_be_numbered_so_are_asked_elsewhere_once(logs: list[str], expected: str) -> None:
    known, result = blocks(), f"[{','.join(logs)}]".encode()
    assert judged(known, LOGS, result) == expected
    assert judged(known, LOGS, result, again=True) == "fine"
    assert judged(known, LOGS, result) == "fine", "two say so: it is this chain's way"


@pytest.mark.parametrize(("indexes", "expected"), [((4, 5, 6), "fine"), ((4, 6), "odd"), ((), "fine"), ((0, 0), "odd")])
def test_the_logs_of_a_receipt_are_numbered_without_a_gap(indexes: tuple[int, ...], expected: str) -> None:
    logs = ",".join(log(991, index) for index in indexes)
    receipt = f'{{"transactionHash":"0x{"ab" * 32}","logs":[{logs}]}}'
    assert judged(blocks(), RECEIPT, receipt.encode()) == expected
    whole = call("eth_getBlockReceipts", b'["0x3e0"]')
    assert judged(blocks(), whole, f"[{receipt}]".encode()) == expected


def test_another_block_than_was_asked_for_is_wrong() -> None:
    asked = call("eth_getBlockByNumber", b'["0x3e0",false]')
    assert judged(blocks(), asked, b'{"number":"0x3e1","hash":"0xab"}') == "wrong_data"
    by_hash = call("eth_getBlockByHash", b'["0x%s",false]' % (b"ab" * 32))
    assert judged(blocks(), by_hash, b'{"number":"0x3e1","hash":"0x%s"}' % (b"cd" * 32)) == "wrong_data"


def test_a_lagging_endpoint_is_refused_for_the_head_and_not_for_old_blocks() -> None:
    known = blocks(980, HEAD, HEAD)
    assert known.refusal(0, about_the_head=True) is Reason.LAGGING
    assert known.refusal(0, about_the_head=False) is None
    assert known.has(0, Family.STATE, 970, 970, 100.0)
    assert not known.has(0, Family.STATE, 990, 990, 100.0)


def test_a_block_that_nobody_has_is_no_reason_against_who_has_the_newest() -> None:
    assert blocks().has(0, Family.STATE, 5000, 5000, 100.0)


def test_pruned_blocks_are_learned_per_family_corrected_and_forgotten() -> None:
    known = blocks()
    assert known.lacks(0, Family.STATE, 500, 100.0)
    assert not known.has(0, Family.STATE, 400, 400, 100.0)
    assert known.has(0, Family.BLOCK, 400, 400, 100.0)
    known.gave(0, Family.STATE, 300)
    assert known.has(0, Family.STATE, 400, 400, 100.0)
    assert not known.lacks(0, Family.STATE, HEAD, 100.0), "too new to have been pruned"
    assert known.has(0, Family.STATE, 1, 1, 100.0 + 3601.0)


def test_what_callers_name_is_remembered_in_bounded_tables() -> None:
    known = blocks()
    for n in range(REMEMBERED + 500):
        asked = call("eth_getTransactionCount", b'["0x%040x","latest"]' % n)
        judged(known, asked, b'"0x1"')
        known.judge(call("eth_getTransactionReceipt", b'["0x%064x"]' % n), 0, Examined(missing=True), 100.5, True)
    assert len(known._nonces) <= REMEMBERED
    assert len(known._asked_twice) <= REMEMBERED


def test_a_head_heard_a_moment_ago_needs_no_second_look_until_it_is_old_or_passed() -> None:
    known = blocks()
    assert judged(known, NUMBER, b'"0x3e8"') == "fine"
    known.delivered(0, b'"0x3e8"', 100.5)
    assert known.heard(0, b'"0x3e8"', 100.6)
    assert not known.heard(1, b'"0x3e8"', 100.6)
    assert not known.heard(0, b'"0x3e8"', 101.0)
    assert ReplyKind.BEHIND.shown is ReplyKind.ANSWER.shown

"""The laws of ranges: a cut query asks for exactly what was asked, and its merged answer is the uncut one."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.dialect.ranges import log_range, merge_logs, plan_split

HASH = "0x" + "ab" * 32
HIGHEST = 2**64 - 1
BLOCKS = st.one_of(st.integers(0, 300), st.integers(HIGHEST - 300, HIGHEST))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def query(low: int, high: int, **more: object) -> bytes:
    return json.dumps([{"fromBlock": hex(low), "toBlock": hex(high), **more}]).encode()


def spans(parts: list[tuple[bytes, int]]) -> list[tuple[int, int]]:
    """The range of each part; that the highest block told beside it is its own is checked here."""
    found = []
    for params, last in parts:
        span = log_range(params)
        assert span is not None
        assert span[1] == last
        found.append(span)
    return found


def answer(chain: list[list[bytes]], params: bytes) -> bytes:
    """What a node without limits says: the logs of these blocks, as the bytes that it keeps."""
    span = log_range(params)
    assert span is not None
    return b"[ %b]\n" % b" ,".join(log for logs in chain[span[0] : span[1] + 1] for log in logs)


# --- what is asked --------------------------------------------------------------------------------------


@given(BLOCKS, st.integers(0, 120), st.integers(1, 130), st.integers(1, 130))
@examples(max_examples=300)
def test_parts_lie_end_to_end_cover_exactly_what_was_asked_and_keep_to_both_readings_of_a_limit(
    low: int, more: int, limit: int, at_most: int
) -> None:
    high = min(low + more, HIGHEST)
    parts = plan_split(query(low, high), limit, at_most)
    needed = len(range(low, high + 1, limit))
    if needed == 1 or needed > at_most:
        assert parts is None
        return
    assert parts is not None
    told = spans(parts)
    assert len(told) == needed, "as few as it takes"
    assert (told[0][0], told[-1][1]) == (low, high)
    assert all(after[0] == before[1] + 1 for before, after in pairwise(told))
    for first, last in told:
        assert last - first + 1 <= limit, "counted as blocks"
        assert 0 <= last - first < limit, "counted as a difference"


@pytest.mark.parametrize(
    ("low", "high", "limit", "expected"),
    [
        (0, 9, 10, None),  # ten blocks are no more than ten
        (0, 10, 10, [(0, 9), (10, 10)]),
        (5, 24, 10, [(5, 14), (15, 24)]),
        (5, 25, 10, [(5, 14), (15, 24), (25, 25)]),
        (7, 9, 1, [(7, 7), (8, 8), (9, 9)]),
        (7, 7, 1, None),
        (9, 7, 1, None),  # the wrong way round: the node says so
        (0, 9, 0, None),
        (0, 9, -5, None),
    ],
)
def test_the_boundaries_are_exact(low: int, high: int, limit: int, expected: list[tuple[int, int]] | None) -> None:
    parts = plan_split(query(low, high), limit, 10)
    assert expected == (spans(parts) if parts is not None else None)


def test_one_part_too_many_is_none_at_all() -> None:
    assert plan_split(query(0, 99), 10, 10) is not None
    assert plan_split(query(0, 100), 10, 10) is None
    assert plan_split(query(0, HIGHEST), 1, 10) is None, "without making them first"


@given(JSON, JSON, st.lists(JSON, max_size=2), st.permutations(["fromBlock", "toBlock", "address", "topics"]))
@examples(max_examples=200)
def test_everything_else_of_the_query_is_kept_byte_for_byte(
    address: Any, topics: Any, rest: list[Any], order: list[str]
) -> None:
    values = {"fromBlock": "0x0", "toBlock": "0x9", "address": address, "topics": topics}
    raw = {name: json.dumps(values[name], indent=1).encode() for name in order}
    after = [json.dumps(item).encode() for item in rest]

    def written() -> bytes:
        members = b",".join(b'"%b":%b' % (name.encode(), value) for name, value in raw.items())
        return b"[%b]" % b",".join([b"{%b}" % members, *after])

    parts = plan_split(written(), 4, 3)
    assert parts is not None
    for (params, _), (first, last) in zip(parts, [(0, 3), (4, 7), (8, 9)], strict=True):
        raw["fromBlock"], raw["toBlock"] = b'"0x%x"' % first, b'"0x%x"' % last
        assert written() == params


def test_a_trace_filter_is_cut_the_same_way() -> None:
    parts = plan_split(query(0, 19, fromAddress=["0xA"], toAddress=None, mode="union"), 10, 2)
    assert parts is not None
    assert spans(parts) == [(0, 9), (10, 19)]
    assert json.loads(parts[1][0])[0]["fromAddress"] == ["0xA"]


@pytest.mark.parametrize(
    "more",
    [
        {"count": 10},  # each part would give ten
        {"after": 5},  # each part would leave five out
        {"limit": "0x5"},
        {"pageKey": "x"},
        {"blockHash": HASH},
        {"FromBlock": "0x1"},  # some nodes read names without regard to case
        {"toblock": "0x1"},
        {"somethingNew": None},
    ],
)
def test_a_filter_with_a_member_that_may_count_across_blocks_is_never_cut(more: dict[str, Any]) -> None:
    assert plan_split(query(0, 99), 10, 10) is not None
    assert plan_split(query(0, 99, **more), 10, 10) is None


# --- which ranges are known -----------------------------------------------------------------------------


@given(BLOCKS, BLOCKS)
def test_a_range_of_numbers_is_read_however_its_hex_is_written(low: int, high: int) -> None:
    assert log_range(query(low, high)) == (low, high)
    assert log_range(query(low, high).upper().replace(b"FROMBLOCK", b"fromBlock").replace(b"TOBLOCK", b"toBlock")) == (
        low,
        high,
    )
    padded = b'[{"toBlock":"0x%016x" , "fromBlock" : "0x%016x"}]' % (high, low)
    assert log_range(padded) == (low, high)


NO_NUMBERS: list[Any] = [
    "latest", "earliest", "finalized", "safe", "pending", "", "0x", "x1", "1", "0x1_0", "0x+1", "0x 1", "0x-1", "0xg",
    "0x" + "0" * 17, HASH, None, 1, True, ["0x1"], {"blockNumber": "0x1"},
]  # fmt: skip


@pytest.mark.parametrize("odd", NO_NUMBERS)
@pytest.mark.parametrize("end", ["fromBlock", "toBlock"])
def test_what_is_no_number_gives_no_range_and_is_never_cut(odd: Any, end: str) -> None:
    wanted = {"fromBlock": "0x0", "toBlock": "0x63", end: odd}
    params = json.dumps([wanted]).encode()
    assert log_range(params) is None
    assert plan_split(params, 10, 10) is None


@pytest.mark.parametrize("end", [{}, {"toBlock": "latest"}, {"toBlock": None}])
def test_a_range_that_goes_on_to_the_newest_block_is_cut_where_that_is_known(end: dict[str, Any]) -> None:
    params = json.dumps([{"fromBlock": "0x0", **end, "topics": []}]).encode()
    parts = plan_split(params, 10, 10, 24)
    assert parts is not None
    assert spans(parts) == [(0, 9), (10, 19), (20, 24)]
    assert plan_split(params, 10, 10) is None
    assert plan_split(json.dumps([{"fromBlock": "0x0", "toBlock": "pending"}]).encode(), 10, 10, 24) is None


@pytest.mark.parametrize("end", ["fromBlock", "toBlock"])
def test_a_range_with_an_open_end_is_never_cut(end: str) -> None:
    params = json.dumps([{end: "0x0"}]).encode()
    assert log_range(params) is None
    assert plan_split(params, 10, 10) is None


@given(st.one_of(st.binary(max_size=60), JSON.map(lambda value: json.dumps(value).encode())))
@examples(max_examples=300)
def test_nothing_that_a_caller_sends_raises(params: bytes) -> None:
    assert log_range(params) is None or params.startswith(b"[")
    assert plan_split(params, 10, 10) is None or params.startswith(b"[")


@pytest.mark.parametrize(
    "params",
    [b"", b"[]", b"{}", b"null", b"[null]", b"[[]]", b"[{}]", b"[{", b'[{"fromBlock":"\xff"}]', b"[" * 100_000],
    ids=repr,
)
def test_nothing_that_is_no_filter_raises(params: bytes) -> None:
    assert log_range(params) is None
    assert plan_split(params, 10, 10) is None


# --- what is answered -----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data(), st.integers(1, 70))
@examples(max_examples=200)
def test_the_merged_answer_has_the_bytes_and_the_order_of_the_uncut_one(
    per_block: list[int], data: st.DataObject, limit: int
) -> None:
    chain = [
        [b'{ "n" :%d.%d0,"\\u0061":[ ]}' % (block, i) for i in range(logs)] for block, logs in enumerate(per_block)
    ]
    high = data.draw(st.integers(0, len(chain) - 1))
    low = data.draw(st.integers(0, high))
    params = query(low, high)
    parts = plan_split(params, limit, 100)
    if parts is None:
        assert high - low + 1 <= limit
        return
    whole = b"[%b]" % b",".join(log for logs in chain[low : high + 1] for log in logs)
    assert merge_logs([answer(chain, part) for part, _ in parts]) == whole


@given(BLOCKS, st.integers(1, 60), st.integers(1, 20))
@examples(max_examples=100)
def test_a_part_that_is_still_too_large_can_be_cut_again(low: int, more: int, limit: int) -> None:
    """Halves of halves ask for the same as the whole."""
    high = min(low + more, HIGHEST)
    told: list[tuple[int, int]] = []
    left = [query(low, high)]
    while left:
        params = left.pop(0)
        span = log_range(params)
        assert span is not None
        blocks = span[1] - span[0] + 1
        if blocks <= limit:
            told.append(span)
            continue
        halves = plan_split(params, -(-blocks // 2), 2)
        assert halves is not None
        left = [part for part, _ in halves] + left
    assert [block for first, last in told for block in range(first, last + 1)] == list(range(low, high + 1))


@pytest.mark.parametrize(
    "damaged",
    [b"null", b"{}", b'""', b'"[]"', b"1", b"", b"[1", b"[1],[2]", b'{"logs":[]}', b"[\xff]", b"[" * 100_000],
    ids=lambda damaged: repr(damaged[:20]),
)
@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_part_that_is_no_list_spoils_the_whole(damaged: bytes, turn: int) -> None:
    """A list that lacks something would be taken for the truth."""
    results = [b"[1]", b"[2]"]
    results.insert(turn, damaged)
    with pytest.raises(ValueError, match="no list"):
        merge_logs(results)


def test_parts_without_logs_leave_no_trace() -> None:
    assert merge_logs([b"[]", b" [ ] ", b"[1]", b"[]", b"[2, 3]", b"[]"]) == b"[1,2,3]"
    assert merge_logs([b"[]", b"[]"]) == b"[]"
    assert merge_logs([]) == b"[]"

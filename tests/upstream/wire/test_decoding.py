"""Compressed answers: what comes out is what went in, and never more than it may be."""

from __future__ import annotations

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.upstream.wire.decoding import MAX_RATIO, RATIO_FLOOR, BodyDecoder, BodyLimits, DecodingError

MB = 1_000_000
PACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"GZIP": gzip.compress,
    b" gzip ": gzip.compress,
    b"deflate": zlib.compress,
}


def cut(body: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(body[:size])
        body = body[size:]
    return [*pieces, body]


@given(st.binary(max_size=2000), st.sampled_from(sorted(PACKERS)), st.lists(st.integers(0, 60), max_size=30))
@examples(max_examples=150)
def test_what_was_packed_comes_out_however_it_is_cut(body: bytes, encoding: bytes, sizes: list[int]) -> None:
    decoder = BodyDecoder(encoding, 10 * MB)
    pieces = cut(PACKERS[encoding](body), sizes)
    assert b"".join(decoder.feed(piece) for piece in pieces) == body
    assert decoder.finished


@given(st.binary(max_size=500), st.sampled_from(sorted(PACKERS)), st.data())
@examples(max_examples=150)
def test_a_packed_answer_cut_short_is_never_finished(body: bytes, encoding: bytes, data: st.DataObject) -> None:
    packed = PACKERS[encoding](body)
    size = data.draw(st.integers(1, len(packed) - 1))
    decoder = BodyDecoder(encoding, MB)
    decoder.feed(packed[:size])
    assert not decoder.finished


def test_nothing_at_all_is_an_empty_answer() -> None:
    assert BodyDecoder(b"gzip", MB).finished


@given(st.binary(max_size=300), st.lists(st.integers(0, 50), max_size=5))
@examples(max_examples=200)
def test_no_bytes_do_more_than_be_refused(body: bytes, sizes: list[int]) -> None:
    decoder = BodyDecoder(b"gzip", MB)
    try:
        for piece in cut(body, sizes):
            decoder.feed(piece)
    except DecodingError:
        return
    assert not decoder.finished or not body


@pytest.mark.parametrize("behind", [b"x", b"\0", gzip.compress(b"{}", mtime=0)])
@pytest.mark.parametrize("apart", [False, True])
def test_nothing_may_stand_behind_the_end(behind: bytes, apart: bool) -> None:
    decoder = BodyDecoder(b"gzip", MB)
    packed = gzip.compress(b"{}")
    with pytest.raises(DecodingError):
        if apart:
            assert decoder.feed(packed) == b"{}"
            decoder.feed(behind)
        else:
            decoder.feed(packed + behind)


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"compress", b"gzip, gzip", b"gzip,br", b"", b"chunked", b"gzi"])
def test_an_encoding_that_was_not_asked_for_and_is_not_known_is_refused(encoding: bytes) -> None:
    with pytest.raises(DecodingError):
        BodyDecoder(encoding, MB)


def unpacked(packed: bytes, limit: int, piece: int = 65536) -> int:
    """Decode; returns how much came out before the end or the refusal."""
    decoder = BodyDecoder(b"gzip", limit)
    size = 0
    for i in range(0, len(packed), piece):
        try:
            size += len(decoder.feed(packed[i : i + piece]))
        except DecodingError:
            return -size
    return size


@pytest.mark.parametrize("piece", [64, 1024, 65536])
def test_a_bomb_is_refused_before_it_has_gone_off(piece: int) -> None:
    bomb = gzip.compress(bytes(64 * MB), 9)
    tracemalloc.start()
    began = time.process_time()
    size = unpacked(bomb, 1000 * MB, piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size <= 0, "refused"
    assert -size <= max(RATIO_FLOOR, MAX_RATIO * len(bomb))
    assert peak < 16 * MB
    assert time.process_time() - began < 2


def test_no_more_than_the_limit_comes_out_whatever_the_ratio() -> None:
    noise = b"".join(b"%x" % (i * 2654435761 % 2**32) for i in range(50_000))
    assert unpacked(gzip.compress(noise), len(noise)) == len(noise)
    assert -len(noise) < unpacked(gzip.compress(noise), len(noise) - 1, 1000) <= 0


def test_small_answers_may_compress_as_well_as_they_like() -> None:
    zeros = bytes(RATIO_FLOOR)
    assert len(gzip.compress(zeros)) * MAX_RATIO < len(zeros)
    assert unpacked(gzip.compress(zeros), 10 * MB) == len(zeros)


def test_a_log_that_compresses_twenty_to_one_passes() -> None:
    row = b'{"address":"0x%040x","data":"0x%064x","topics":["0x%064x"]},'
    log = b"".join(row % (7, i * 2654435761, i // 9) for i in range(40_000))
    packed = gzip.compress(log)
    assert len(log) / len(packed) > 8
    assert unpacked(packed, 100 * MB) == len(log)


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(0, 500))
def test_a_limit_is_passed_exactly_when_more_has_come(sizes: list[int], limit: int) -> None:
    limits, total = BodyLimits(limit), 0
    for size in sizes:
        total += size
        if total > limit:
            with pytest.raises(DecodingError):
                limits.count(size)
            return
        limits.count(size)

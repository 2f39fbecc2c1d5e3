"""The chain is computed: what any block holds follows from its number, the head from the time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.drill import chain as chain_module
from gateway.drill.chain import Refused, SimulatedChain, transaction_hash

numbers = st.integers(0, 2**48)


def test_the_head_follows_from_the_time_alone_and_never_falls_below_genesis():
    chain = SimulatedChain(block_time=10, genesis_at=100)
    assert [chain.head(now) for now in (0, 100, 109.9, 110, 1100)] == [0, 0, 0, 1, 100]


@given(numbers)
def test_two_chains_with_one_seed_agree_and_each_block_links_to_the_one_before(number):
    one, other = SimulatedChain(5, seed=3), SimulatedChain(5, seed=3)
    assert one.block(number, full=True) == other.block(number, full=True)
    assert one.block(number + 1)["parentHash"] == one.block(number)["hash"]


@given(numbers)
def test_a_hash_leads_back_to_its_block_on_its_own_chain_only(number):
    chain = SimulatedChain(1)
    block_hash = chain.block_hash(number)
    assert chain.number_of(block_hash) == number
    assert SimulatedChain(2).number_of(block_hash) is None
    assert SimulatedChain(1, seed=1).number_of(block_hash) is None


@given(st.text(max_size=70) | st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex()))
def test_no_other_string_is_a_hash_of_this_chain(text):
    chain = SimulatedChain()
    assert chain.number_of(text) is None
    assert chain.transaction(text, 0.0) is None
    assert chain.receipt(text, 0.0) is None


@given(st.integers(1, 2**40))
def test_blocks_transactions_receipts_and_logs_tell_one_story(number):
    chain = SimulatedChain(block_time=1, genesis_at=0)
    now = float(number)
    block = chain.block(number, full=True)
    assert [t["hash"] for t in block["transactions"]] == chain.block(number)["transactions"]
    logs = chain.logs(number, number)
    for index, transaction in enumerate(block["transactions"]):
        assert transaction == chain.transaction(transaction["hash"], now)
        receipt = chain.receipt(transaction["hash"], now)
        assert receipt is not None
        assert receipt["blockHash"] == block["hash"]
        assert receipt["logs"] == [logs[index]]
        assert chain.receipt(transaction["hash"], now - 1) is None
    assert chain.number_of(block["transactions"][0]["hash"]) is None


def test_logs_are_those_of_the_asked_contracts():
    chain = SimulatedChain()
    token = chain.token(10, 0)
    everything = chain.logs(10, 40)
    mine = chain.logs(10, 40, frozenset([token]))
    assert mine == [log for log in everything if log["address"] == token]
    assert 0 < len(mine) < len(everything)


def test_a_sent_transaction_is_pending_until_the_next_block_and_in_it_afterwards():
    chain = SimulatedChain(block_time=10, genesis_at=0)
    tx_hash = chain.send_raw(b"\x02raw", 100.0, "a")
    assert tx_hash == transaction_hash(b"\x02raw")
    pending = chain.transaction(tx_hash, 109.9)
    assert pending is not None
    assert pending["blockNumber"] is None
    assert chain.receipt(tx_hash, 109.9) is None
    mined = chain.transaction(tx_hash, 110.0)
    receipt = chain.receipt(tx_hash, 110.0)
    assert mined is not None
    assert receipt is not None
    assert mined["blockNumber"] == receipt["blockNumber"] == hex(11)
    assert chain.block(11)["transactions"][int(receipt["transactionIndex"], 16)] == tx_hash


def test_the_same_bytes_are_accepted_once_and_every_arrival_is_on_record():
    chain = SimulatedChain(block_time=10, genesis_at=0)
    tx_hash = chain.send_raw(b"\x02raw", 100.0, "a")
    with pytest.raises(Refused, match="already known") as known:
        chain.send_raw(b"\x02raw", 101.0, "b")
    assert known.value.code == -32000
    with pytest.raises(Refused, match="nonce too low"):
        chain.send_raw(b"\x02raw", 110.0, "b")
    assert chain.received[tx_hash] == {"a": 1, "b": 2}
    assert chain.times_received(tx_hash) == 3


def test_the_hash_is_the_one_that_wallets_compute():
    empty = "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert transaction_hash(b"") == empty


def test_memory_of_sent_transactions_is_bounded(monkeypatch):
    monkeypatch.setattr(chain_module, "MAX_SENT", 50)
    chain = SimulatedChain(block_time=10, genesis_at=0)
    hashes = [chain.send_raw(b"raw%d" % i, i * 10.0) for i in range(200)]
    assert sum(tx_hash in chain.received for tx_hash in hashes) == 50
    assert chain.transaction(hashes[0], 1e6) is None
    assert chain.receipt(hashes[-1], 1e6) is not None


def test_a_balance_is_never_zero_and_differs_from_block_to_block():
    chain = SimulatedChain()
    assert 0 < chain.balance("0xAB", 1) == chain.balance("0xab", 1) != chain.balance("0xab", 2)


def test_a_block_time_of_zero_is_refused():
    with pytest.raises(ValueError, match="block_time"):
        SimulatedChain(block_time=0)

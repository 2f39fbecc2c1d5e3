"""The laws of subscriptions anywhere else: known by their names, passed through as they are; Bitcoin has none."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.bitcoin import BitcoinDialect
from gateway.dialect.evm import EvmDialect
from gateway.dialect.generic import GenericDialect
from gateway.dialect.protocol import Dialect
from gateway.dialect.registry import NAMES, dialect_named
from gateway.dialect.solana import SolanaDialect
from gateway.dialect.subscriptions import DEEPEST, canonical_params
from gateway.events import FeedKind

GENERIC = GenericDialect()


@pytest.mark.parametrize(
    ("method", "ends", "numeric"),
    [
        ("chain_subscribeNewHeads", "chain_unsubscribeNewHeads", False),
        ("chain_subscribeFinalizedHeads", "chain_unsubscribeFinalizedHeads", False),
        ("state_subscribeStorage", "state_unsubscribeStorage", False),
        ("grandpa_subscribeJustifications", "grandpa_unsubscribeJustifications", False),
        ("subscribe_newHead", "unsubscribe_newHead", False),
        ("suix_subscribeEvent", "suix_unsubscribeEvent", False),
        ("eth_subscribe", "eth_unsubscribe", False),
        ("accountSubscribe", "accountUnsubscribe", True),
        ("starknet_subscribeNewHeads", "starknet_unsubscribe", False),
    ],
)
def test_a_subscription_is_known_by_its_name_and_ended_by_its_opposite(method: str, ends: str, numeric: bool) -> None:
    found = GENERIC.subscription(method, b'[{"b":1, "a":[ 2 ]}]')
    assert found is not None
    assert (found.kind, found.unsubscribe, found.numeric) == (FeedKind.PLAIN, ends, numeric)
    assert found.notification == ""  # whatever the upstream calls it
    assert found.params == b'[{"a":[2],"b":1}]'
    assert GENERIC.ends_subscription(ends) and GENERIC.subscription(ends, b"[]") is None
    assert not GENERIC.ends_subscription(method)


@pytest.mark.parametrize(
    "method",
    [
        "subscribe",  # CometBFT, XRPL: their events are no notifications
        "unsubscribe",
        "blockchain.headers.subscribe",  # Electrum: nor are these
        "author_submitAndWatchExtrinsic",  # it sends, and sending again is not ours to decide
        "getSubscribers",
        "isSubscribed",
        "system_health",
        'a"subscribe',
        "chain_subscribe New",
        "x" * 200 + "_subscribe",
        "",
    ],
)
def test_what_only_sounds_like_one_is_none(method: str) -> None:
    assert GENERIC.subscription(method, b"[]") is None


@pytest.mark.parametrize("method", ["state_subscribeStorage", "starknet_subscribeNewHeads", "slotSubscribe"])
def test_none_is_shared_because_it_may_begin_with_a_state(method: str) -> None:
    """Substrate tells the values of storage at once, Starknet blocks from any that is named."""
    found = GenericDialect().subscription(method, b"[]")
    assert found is not None
    assert not found.shared


def test_labels_are_those_of_the_method_table() -> None:
    known = GENERIC.subscription("chain_subscribeNewHeads", b"")
    unknown = GENERIC.subscription("made_subscribeUp", b"")
    assert known is not None and known.label == "chain_subscribeNewHeads"
    assert unknown is not None and unknown.label == "other"


def test_bitcoin_has_none() -> None:
    bitcoin = BitcoinDialect()
    for method in ("subscribe", "eth_subscribe", "slotSubscribe", "blockchain.headers.subscribe"):
        assert bitcoin.subscription(method, b"[]") is None and not bitcoin.ends_subscription(method)


@pytest.mark.parametrize("name", NAMES)
@given(st.text(max_size=40) | st.sampled_from(["_subscribe", "Subscribe", "subscribe", "_unsubscribe"]), st.binary())
def test_no_method_and_no_parameters_raise(name: str, method: str, params: bytes) -> None:
    dialect: Dialect = dialect_named(name)
    for spelled in (method, "a" + method, "eth_" + method, method + "Subscribe"):
        found = dialect.subscription(spelled, params)
        if found is not None:
            assert not dialect.ends_subscription(spelled)
            assert dialect.ends_subscription(found.unsubscribe)
            assert json.dumps(found.method) == f'"{found.method}"'  # it is put into JSON as it is
            assert json.dumps(found.unsubscribe) == f'"{found.unsubscribe}"'
            dialect.place(found, params)
        dialect.subscription_id(params)


@pytest.mark.parametrize("dialect", [EvmDialect(), SolanaDialect(), BitcoinDialect(), GENERIC])
def test_plain_calls_do_not_subscribe(dialect: Dialect) -> None:
    for method in ("eth_call", "getSlot", "getblock", "status"):
        assert dialect.subscription(method, b"[]") is None and not dialect.ends_subscription(method)


# --- one form -----------------------------------------------------------------------------------------


def test_scalars_are_kept_as_they_were_written() -> None:
    assert canonical_params(b' [ 1.0, 1e5, 123456789012345678901234567890 , "\\u0041" ] ') == (
        b'[1.0,1e5,123456789012345678901234567890,"\\u0041"]'
    )


def test_numbers_that_a_float_takes_for_one_are_two_requests() -> None:
    one = GENERIC.subscription("a_subscribe", b"[123456789012345678901234567890]")
    other = GENERIC.subscription("a_subscribe", b"[123456789012345678901234567891]")
    assert one is not None and other is not None and one.key != other.key


def test_of_two_members_with_one_name_the_last_goes_upstream_alone() -> None:
    assert canonical_params(b'{"a":1,"b":2,"a":3}') == b'{"a":3,"b":2}'


def test_what_is_nested_deeper_is_taken_as_it_is() -> None:
    deep = b"[" * DEEPEST + b"[ 1 ]" + b"]" * DEEPEST
    assert canonical_params(deep) == deep


@pytest.mark.parametrize(
    "params", [b"7", b"null", b"[", b"[1", b"[1]]", b'{"a"}', b'["\xff"]', b"[" * 50_000, b"[tru]"]
)
def test_what_is_no_array_and_no_object_becomes_none(params: bytes) -> None:
    assert canonical_params(params) == b""

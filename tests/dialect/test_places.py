"""Where things stand in the JSON of exchanges."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.places import MOST_LOOKED_AT, decoded, found_at

TOLD: dict[str, Any] = {
    "data": {"orders": [{"id": ""}, {"id": "7"}, {"id": "8"}], "time": 5},
    "result": {"XBTUSD": {"last": "1.5"}},
}


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("data.time", 5),
        ("data.orders.1.id", "7"),
        ("data.orders.*.id", "7"),  # the first that says something
        ("result.*.last", "1.5"),
        ("data.orders.3.id", None),
        ("data.orders.-1.id", None),
        ("data.time.hour", None),
        ("nowhere", None),
        ("", None),
    ],
)
def test_a_place_leads_to_what_stands_there(place: str, found: Any) -> None:
    assert found_at(TOLD, place) == found


def test_a_long_list_is_not_searched_to_its_end() -> None:
    told = [{}] * MOST_LOOKED_AT + [{"id": "late"}]
    assert found_at(told, "*.id") is None
    assert found_at(told[1:], "*.id") == "late"


def test_what_is_too_long_is_not_looked_into() -> None:
    body = json.dumps(TOLD).encode()
    assert decoded(body, len(body)) == TOLD
    assert decoded(body, len(body) - 1) is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "0", "*"]), inner, max_size=3),
)


@given(JSON_VALUES, st.lists(st.sampled_from(["a", "0", "1", "*", ""]), max_size=5).map(".".join))
def test_no_place_of_any_text_raises(value: Any, place: str) -> None:
    found_at(value, place)


@given(st.binary(max_size=40))
def test_no_body_raises(body: bytes) -> None:
    decoded(body, 40)


def test_a_body_that_is_too_deep_is_none() -> None:
    assert decoded(b"[" * 100_000 + b"]" * 100_000, 1_000_000) is None

"""Messages of exchanges' streams: whatever callers or exchanges say, nothing raises and nothing grows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dialect.venue import venue_named, venue_names
from gateway.dialect.venue_messages import MAX_TOPIC, Messages

SHARED: dict[str, Messages] = {}
for _name in venue_names():
    _venue = venue_named(_name)
    if _venue is not None and _venue.streams is not None and _venue.streams.sharing is not None:
        SHARED[_name] = Messages(_venue.streams.sharing)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TOPICS = st.lists(st.text(max_size=30) | st.sampled_from(["{", "{broken", '{"a":1}']) | JSON, max_size=6)


def asked(messages: Messages, topics: Any) -> bytes:
    sharing = messages.sharing
    return json.dumps({sharing.op: sharing.subscribe, sharing.topics: topics, "id": 1}).encode()


@pytest.mark.parametrize("name", SHARED)
@given(topics=TOPICS)
def test_whatever_topics_a_caller_names_the_line_can_ask_for_what_is_shared(name: str, topics: list[Any]) -> None:
    messages = SHARED[name]
    wanted = messages.wanted(asked(messages, topics))
    if wanted is None:
        return
    request = json.loads(messages.request(wanted.on, list(wanted.topics), 1))
    assert request[messages.sharing.topics] == topics
    assert all(json.loads(answer) is not None for answer in messages.answers(wanted))


@pytest.mark.parametrize("name", SHARED)
@example(target="/ws/{a@b")
@example(target="/stream?streams={a@b")
@given(target=st.text(alphabet='/ws?stream=&@!{}abc"', max_size=40))
def test_whatever_topics_a_url_names_the_line_can_ask_for_them(name: str, target: str) -> None:
    messages = SHARED[name]
    topics = messages.in_path(target)
    assert json.loads(messages.request(True, list(topics), 1))[messages.sharing.topics] == list(topics)


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize(
    "topic", ["x" * 100_000, {"channel": "books", "instId": "x" * 100_000}], ids=["name", "object"]
)
def test_a_topic_of_any_length_is_not_kept(name: str, topic: Any) -> None:
    messages = SHARED[name]
    assert messages.wanted(asked(messages, [topic])) is None
    assert not messages.in_path(f"/ws/{'x' * MAX_TOPIC}@trade")


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("odd", ["\u00b2", "--5", "-", "1e3", "9" * 30, None, True, [1], {"a": 1}])
@given(message=JSON)
def test_whatever_an_exchange_says_is_heard_without_an_error(name: str, odd: Any, message: Any) -> None:
    messages = SHARED[name]
    messages.heard(json.dumps(message).encode())
    for numbers in messages.sharing.numbers:
        inner: Any = odd
        for part in reversed(numbers.last.split(".")):
            inner = [inner] if part == "0" else {part: inner}
        inner[messages.sharing.topic] = f"btcusdt{numbers.topics[0]}"
        messages.heard(json.dumps(inner).encode())

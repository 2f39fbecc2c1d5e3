"""Messages of an exchange's streams, as its file describes them: what is asked for, which topic, which number.

Always true: nothing here raises, whatever came; a message that is not understood is said to be none of ours; what
callers are told is the exchange's own bytes, or a part cut out of them unchanged.
Does not belong here: who listens to what (upstream/venue_topics).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dialect.venue import Numbers, Sharing

MAX_TOPICS = 1024  # in one request
MAX_TOPIC = 256  # characters; names of markets are a tenth of it, and each is kept for as long as its topic
_WHOLE = re.compile(r"-?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A caller's request: `on` to subscribe, off to end.  `topics` by key; `id` raw JSON, empty: none."""

    on: bool
    topics: tuple[str, ...]
    id: str


@dataclass(frozen=True, slots=True)
class Heard:
    """One message: its topic's key (empty: none), and the numbers it says (None: none)."""

    topic: str
    numbers: tuple[int, int, int | None, bool] | None = None


class Messages:
    """Reads and writes the messages of one venue's shared streams."""

    def __init__(self, sharing: Sharing) -> None:
        self.sharing = sharing
        self._raw = msgspec.defstruct("Raw", [("value", msgspec.Raw, msgspec.field(name=sharing.unwrap or "_"))])
        self._unwrap = msgspec.json.Decoder(self._raw)

    def wanted(self, text: bytes) -> Wanted | None:
        """What a caller asks for; None: nothing that is shared."""
        sharing = self.sharing
        found = _parsed(text)
        if not isinstance(found, dict):
            return None
        op = found.get(sharing.op)
        topics = found.get(sharing.topics)
        if op not in (sharing.subscribe, sharing.unsubscribe) or topics is None:
            return None
        items = topics if isinstance(topics, list) else [topics]
        if not items or len(items) > MAX_TOPICS or not all(isinstance(item, (str, dict)) for item in items):
            return None
        if any(isinstance(item, str) and not _plain(item) for item in items):
            return None
        keys = tuple(key_of(item) for item in items)
        if any(len(key) > MAX_TOPIC or any(piece in key for piece in sharing.private) for key in keys):
            return None
        raw_id = json.dumps(found[sharing.id]) if sharing.id and sharing.id in found else ""
        return Wanted(op == sharing.subscribe, keys, raw_id)

    def in_path(self, target: str) -> tuple[str, ...]:
        """The topics that a URL names."""
        for marker in self.sharing.in_path.split():
            _, found, rest = target.partition(marker)
            if found:
                names = rest.partition("&")[0].partition("?")[0].split("/")
                return tuple(name for name in names if ("@" in name or name.startswith("!")) and _plain(name))
        return ()

    def request(self, on: bool, topics: list[str], number: int) -> bytes:
        """Our own request for topics."""
        sharing = self.sharing
        items: Any = [json.loads(key) if key.startswith("{") else key for key in topics]
        message = {sharing.op: sharing.subscribe if on else sharing.unsubscribe, sharing.topics: items}
        if sharing.id:
            message[sharing.id] = str(number) if sharing.id == "req_id" else number
        return json.dumps(message, separators=(",", ":")).encode()

    def answers(self, wanted: Wanted) -> list[bytes]:
        """What a caller is answered, in the exchange's own shape."""
        sharing = self.sharing
        op = sharing.subscribe if wanted.on else sharing.unsubscribe
        made = []
        if sharing.ack:
            made.append(sharing.ack.replace("$id", wanted.id or "null").replace("$op", op))
        if sharing.ack_each:
            for key in wanted.topics:
                topic = key if key.startswith("{") else json.dumps(key)
                made.append(sharing.ack_each.replace("$op", op).replace("$topic", topic))
        return [text.encode() for text in made]

    def heard(self, message: bytes) -> Heard:
        """The topic and the numbers of a message."""
        found = _parsed(message)
        if not isinstance(found, dict):
            return Heard("")
        topic = found.get(self.sharing.topic)
        if not isinstance(topic, (str, dict)) or not topic:
            return Heard("")
        key = key_of(topic)
        numbers = self.numbers_of(key)
        if numbers is None or numbers.rule == "none":
            return Heard(key)
        return Heard(key, _numbers(found, numbers))

    def numbers_of(self, key: str) -> Numbers | None:
        """How messages of a topic are numbered; None: the file does not say."""
        return next((n for n in self.sharing.numbers if any(piece in key for piece in n.topics)), None)

    def bare(self, message: bytes) -> bytes:
        """The part that callers on bare paths get, cut out as it is."""
        try:
            return bytes(self._unwrap.decode(message).value)  # type: ignore[attr-defined]
        except msgspec.MsgspecError:
            return message


def _plain(name: str) -> bool:
    """A name that could be a market's; one that looks like an object would be taken for the key of one."""
    return len(name) <= MAX_TOPIC and not name.startswith("{")


def key_of(topic: Any) -> str:
    """One text for equal topics: a name, or an object's JSON, which begins with a brace."""
    return topic if isinstance(topic, str) else json.dumps(topic, sort_keys=True, separators=(",", ":"))


def _numbers(found: dict[str, Any], numbers: Numbers) -> tuple[int, int, int | None, bool] | None:
    last = _whole(_at(found, numbers.last))
    if last is None:
        return None
    first = _whole(_at(found, numbers.first)) if numbers.first else last
    previous = _whole(_at(found, numbers.previous)) if numbers.previous else None
    place, _, value = numbers.snapshot.partition("=")
    snapshot = bool(place) and str(_at(found, place)) == value
    return (first if first is not None else last, last, previous, snapshot)


def _at(value: Any, place: str) -> Any:
    for name in place.split("."):
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _whole(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    return None


def _parsed(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None

"""Messages of an exchange's streams, as its file describes them: what is asked for, which topic, which number.

Always true: nothing here raises, whatever came; a message that is not understood is said to be none of ours; what
the file does not describe is not shared; what callers are told is the exchange's own bytes, or a part cut out of
them unchanged.
Does not belong here: who listens to what (upstream/venues/topics).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dialect.venue_facts import Sharing, Topics

MAX_TOPICS = 1024  # in one request
MAX_KEY = 200  # characters of a topic; names come from callers and are kept
MOST_KNOWN = 20_000  # topics of which it is remembered what they are
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_ID_MEMBER = re.compile(r'"\w+":\$id,?')


@dataclass(frozen=True, slots=True)
class Wanted:
    """A caller's request: `on` to subscribe, off to end.

    `topics` by key; `id` raw JSON, empty: none; `shared`: all of these topics can be shared.
    """

    on: bool
    topics: tuple[str, ...]
    id: str
    shared: bool = True


@dataclass(frozen=True, slots=True)
class Heard:
    """One message.

    `topic`: its topic's key (empty: none); `tells`: it tells something of it; `numbers`: (first, last, previous,
    whether it is a snapshot), None: it has none.  `answers`: the number of our request that it answers (None:
    none), and `refuses`: with a no.
    """

    topic: str = ""
    tells: bool = False
    numbers: tuple[int, int, int | None, bool] | None = None
    answers: int | None = None
    refuses: bool = False


NOTHING = Heard()


class Messages:
    """Reads and writes the messages of one venue's shared streams."""

    def __init__(self, sharing: Sharing) -> None:
        self.sharing = sharing
        self._raw = msgspec.defstruct("Raw", [("value", msgspec.Raw, msgspec.field(name=sharing.data))])
        self._data = msgspec.json.Decoder(self._raw)
        self._kinds = [(re.compile("|".join(map(_pattern, kind.names))), kind) for kind in sharing.kinds]
        self._known: dict[str, Topics | None] = {}

    # --- what callers say -------------------------------------------------------------------------

    def wanted(self, text: bytes) -> Wanted | None:
        """What a caller asks for; None: it is no request for topics."""
        sharing = self.sharing
        found = _parsed(text)
        if not isinstance(found, dict):
            return None
        op = found.get(sharing.op)
        topics = found.get(sharing.topics)
        if op not in (sharing.subscribe, sharing.unsubscribe) or topics is None:
            return None
        items = topics if isinstance(topics, list) else [topics]
        if not items or len(items) > MAX_TOPICS:
            return None
        keys = tuple(key_of(item) for item in items)
        shared = all(self._shareable(item, key) for item, key in zip(items, keys, strict=True))
        return Wanted(op == sharing.subscribe, keys, self._id_of(found), shared)

    def answered(self, text: bytes, topics: Iterable[str]) -> bytes | None:
        """The answer to a caller's ping, or to its question which `topics` it has; None: it is no such thing."""
        sharing = self.sharing
        if not sharing.pong and not sharing.listed:
            return None
        found = _parsed(text)
        op = found.get(sharing.op) if isinstance(found, dict) else None
        if op and op == sharing.ping:
            return self._filled(sharing.pong, self._id_of(found)).encode()
        if op and op == sharing.lists:
            names = ",".join(_told(topic) for topic in topics)
            return self._filled(sharing.listed, self._id_of(found)).replace("$topics", f"[{names}]").encode()
        return None

    def in_path(self, target: str) -> tuple[str, ...] | None:
        """The topics that a URL names, possibly none; None: it means something that is not shared."""
        sharing = self.sharing
        if target in sharing.paths:
            return ()
        for marker in sharing.in_path:
            if target.startswith(marker):
                keys = tuple(target[len(marker) :].split("/"))
                if len(keys) > MAX_TOPICS or not all(_is_name(key) and self._shareable(key, key) for key in keys):
                    return None
                return keys
        return None

    def acknowledged(self, wanted: Wanted) -> list[bytes]:
        """What a caller is answered, in the exchange's own shape."""
        sharing = self.sharing
        op = sharing.subscribe if wanted.on else sharing.unsubscribe
        made = []
        if sharing.ack:
            made.append(self._filled(sharing.ack, wanted.id).replace("$op", op))
        if sharing.ack_each:
            template = self._filled(sharing.ack_each, wanted.id).replace("$op", op)
            made += [template.replace("$topic", _told(key)) for key in wanted.topics]
        return [text.encode() for text in made]

    def refusal_for(self, data: bytes, raw_id: str) -> bytes:
        """The exchange's refusal of a request of ours, with the number of the caller's own."""
        name = self.sharing.id
        found = _parsed(data)
        if not name or not isinstance(found, dict) or name not in found:
            return data
        if raw_id:
            found[name] = json.loads(raw_id)
        else:
            del found[name]
        return json.dumps(found, separators=(",", ":")).encode()

    # --- what we say ------------------------------------------------------------------------------

    def request(self, on: bool, topics: list[str], number: int) -> bytes:
        """Our own request for topics."""
        sharing = self.sharing
        items: Any = [json.loads(key) if key.startswith("{") else key for key in topics]
        message = {sharing.op: sharing.subscribe if on else sharing.unsubscribe, sharing.topics: items}
        if sharing.id:
            message[sharing.id] = str(number) if sharing.id_is_text else number
        return json.dumps(message, separators=(",", ":")).encode()

    # --- what the exchange says -------------------------------------------------------------------

    def heard(self, message: bytes) -> Heard:
        """What a message is."""
        sharing = self.sharing
        found = _parsed(message)
        if not isinstance(found, dict):
            return NOTHING
        topic = found.get(sharing.topic)
        key = key_of(topic) if isinstance(topic, (str, dict)) and topic else ""
        if key and sharing.data in found:
            kind = self.kind_of(key)
            if kind is None or kind.rule == "none":
                return Heard(key, True)
            return Heard(key, True, _numbers(found, kind))
        refuses = any(_holds(found, place) for place in sharing.refused)
        answers = _whole(found.get(sharing.id)) if sharing.id else None
        return Heard(key, answers=answers, refuses=refuses)

    def kind_of(self, key: str) -> Topics | None:
        """What the file says of a topic; None: nothing, so it is not shared."""
        if key in self._known:
            return self._known[key]
        kind = next((kind for pattern, kind in self._kinds if pattern.fullmatch(key)), None)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[key] = kind
        return kind

    def could_share(self, key: str) -> bool:
        """The file describes it."""
        return len(key) <= MAX_KEY and self.kind_of(key) is not None

    def bare(self, message: bytes) -> bytes:
        """The part that callers on bare paths get, cut out as it is."""
        try:
            return bytes(self._data.decode(message).value)  # type: ignore[attr-defined]
        except msgspec.MsgspecError:
            return message

    def _shareable(self, item: Any, key: str) -> bool:
        members = self.sharing.members
        if isinstance(item, dict):
            if set(item) != set(members) or not all(isinstance(value, str) for value in item.values()):
                return False
        elif not isinstance(item, str) or members or item.startswith("{"):  # it would be taken for an object's key
            return False
        return self.could_share(key)

    def _id_of(self, found: dict[str, Any]) -> str:
        name = self.sharing.id
        return json.dumps(found[name]) if name and name in found else ""

    def _filled(self, template: str, raw_id: str) -> str:
        raw_id = raw_id or self.sharing.no_id
        return template.replace("$id", raw_id) if raw_id else _ID_MEMBER.sub("", template)


def _pattern(name: str) -> str:
    """What a name with stars stands for."""
    return re.escape(name).replace(r"\*", ".*")


def key_of(topic: Any) -> str:
    """One text for equal topics."""
    return topic if isinstance(topic, str) else json.dumps(topic, sort_keys=True, separators=(",", ":"))


def _is_name(text: str) -> bool:
    """Nothing in it has another meaning in a URL."""
    return not set(text) & set("?&=%#")


def _told(key: str) -> str:
    """A topic as it stands in a message."""
    return key if key.startswith("{") else json.dumps(key)


def _numbers(found: dict[str, Any], kind: Topics) -> tuple[int, int, int | None, bool] | None:
    last = _whole(_at(found, kind.last))
    if last is None:
        return None
    first = _whole(_at(found, kind.first)) if kind.first else last
    previous = _whole(_at(found, kind.previous)) if kind.previous else None
    snapshot = bool(kind.snapshot) and _holds(found, kind.snapshot)
    return (first if first is not None else last, last, previous, snapshot)


def _holds(found: dict[str, Any], condition: str) -> bool:
    """``place=value``, or a place that has something."""
    place, equals, value = condition.partition("=")
    there = _at(found, place)
    if not equals:
        return there is not None
    return json.dumps(there) == value if isinstance(there, bool) else str(there) == value


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

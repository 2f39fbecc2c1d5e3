"""Messages of an exchange's streams, as its file describes them: what is asked for, which topic, which number.

Always true: nothing here raises, whatever came; a message that is not understood is said to be none of ours; what
the file does not describe is not shared; what callers are told is the exchange's own bytes, or a part cut out of
them unchanged.
Does not belong here: who listens to what (upstream/venues/topics).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dialect.venue_facts import Sharing, Topics
from gateway.dialect.venue_shapes import Shape, at, key_of, one_by_one

MAX_TOPICS = 1024  # in one request
MAX_KEY = 200  # characters of a topic; names come from callers and are kept
MOST_KNOWN = 20_000  # topics of which it is remembered what they are
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_ID_MEMBER = re.compile(r'"\w+":\$id,?')
_PLACE = re.compile(r"\$\{([\w.]+)\}")


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
    none), `in_turn`: it answers the oldest of them, and `refuses`: with a no.
    """

    topic: str = ""
    tells: bool = False
    numbers: tuple[int, int, int | None, bool] | None = None
    answers: int | None = None
    refuses: bool = False
    in_turn: bool = False


NOTHING = Heard()


class Messages:
    """Reads and writes the messages of one venue's shared streams."""

    def __init__(self, sharing: Sharing) -> None:
        self.sharing = sharing
        self._raw = msgspec.defstruct("Raw", [("value", msgspec.Raw, msgspec.field(name=sharing.data))])
        self._data = msgspec.json.Decoder(self._raw)
        self._subscribe = sharing.subscribe.split("|")
        self._unsubscribe = sharing.unsubscribe.split("|")
        self._shapes = [Shape(kind) for kind in sharing.kinds if kind.asked]
        self._kinds = [(re.compile("|".join(map(_pattern, kind.names))), kind) for kind in sharing.kinds if kind.names]
        self._known: dict[str, Topics | None] = {}

    # --- what callers say -------------------------------------------------------------------------

    def wanted(self, text: bytes) -> Wanted | None:
        """What a caller asks for; None: it is no request for topics."""
        sharing = self.sharing
        found = _parsed(text)
        if not isinstance(found, dict):
            return None
        op = found.get(sharing.op)
        if op not in (*self._subscribe, *self._unsubscribe):
            return None
        if self._shapes:
            return self._shaped(found, op in self._subscribe)
        topics = found.get(sharing.topics)
        if topics is None:
            return None
        items = topics if isinstance(topics, list) else [topics]
        if not items or len(items) > MAX_TOPICS:
            return None
        keys = tuple(key_of(item) for item in items)
        shared = all(self._shareable(item, key) for item, key in zip(items, keys, strict=True))
        return Wanted(op in self._subscribe, keys, self._id_of(found), shared)

    def _shaped(self, found: dict[str, Any], on: bool) -> Wanted:
        sharing = self.sharing
        apart = (sharing.op, sharing.id, sharing.dated)
        rest = {name: value for name, value in found.items() if name not in apart}
        singles = one_by_one(rest, sharing.spread, sharing.spread_name, MAX_TOPICS + 1)
        asked = [self._asked_for(single) for single in singles]
        shared = all(asked) and all(map(self.could_share, itertools.chain(*asked)))
        if not shared:  # what could be must be known, so that it does not come twice
            asked = [self._asked_for(single, loosely=True) for single in singles]
        keys = tuple(dict.fromkeys(filter(self.could_share, itertools.chain(*asked))))
        return Wanted(on, keys, self._id_of(found), shared and 0 < len(keys) <= MAX_TOPICS)

    def _asked_for(self, rest: dict[str, Any], *, loosely: bool = False) -> tuple[str, ...]:
        return next((keys for shape in self._shapes if (keys := shape.asked(rest, loosely=loosely))), ())

    def answered(self, text: bytes, topics: Iterable[str]) -> bytes | None:
        """The answer to a caller's ping, or to its question which `topics` it has; None: it is no such thing."""
        sharing = self.sharing
        if not sharing.pong and not sharing.listed:
            return None
        found = _parsed(text)
        if not isinstance(found, dict):
            return None
        if sharing.ping and _holds(found, sharing.ping):
            return self._filled(sharing.pong, self._id_of(found)).encode()
        if sharing.lists and found.get(sharing.op) == sharing.lists:
            return self._filled(sharing.listed, self._id_of(found)).replace("$topics", self._all(topics)).encode()
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

    def acknowledged(self, wanted: Wanted, topics: Iterable[str] = ()) -> list[bytes]:
        """What a caller that has these `topics` from now on is answered, in the exchange's own shape."""
        sharing = self.sharing
        op = (self._subscribe if wanted.on else self._unsubscribe)[0]
        made = []
        if sharing.ack:
            made.append(self._filled(sharing.ack, wanted.id).replace("$op", op).replace("$topics", self._all(topics)))
        if sharing.ack_each:
            template = self._filled(sharing.ack_each, wanted.id).replace("$op", op)
            if self._shapes:
                made += [_with_places(template, key) for key in wanted.topics]
            else:
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

    def request(self, on: bool, topics: list[str], number: int, wall: float = 0.0) -> bytes:
        """Our own request for topics, at so many seconds since 1970."""
        sharing = self.sharing
        items: list[Any] = [json.loads(key) if key.startswith("{") else key for key in topics]
        message: dict[str, Any] = {sharing.op: (self._subscribe if on else self._unsubscribe)[0]}
        message |= items[0] if self._shapes else {sharing.topics: items}
        if sharing.dated:
            message[sharing.dated] = int(wall)
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
        if self._shapes:
            key = next((key for shape in self._shapes if (key := shape.told(found))), "")
        else:
            topic = found.get(sharing.topic)
            key = key_of(topic) if isinstance(topic, (str, dict)) and topic else ""
        if key and (self._shapes or sharing.data in found):
            kind = self.kind_of(key)
            if kind is None or kind.rule == "none":
                return Heard(key, True)
            return Heard(key, True, _numbers(found, kind))
        refuses = any(_holds(found, place) for place in sharing.refused)
        answers = _whole(found.get(sharing.id)) if sharing.id else None
        in_turn = bool(sharing.answered) and (refuses or _holds(found, sharing.answered))
        return Heard(key, answers=answers, refuses=refuses, in_turn=in_turn)

    def kind_of(self, key: str) -> Topics | None:
        """What the file says of a topic; None: nothing, so it is not shared."""
        if key in self._known:
            return self._known[key]
        kind = next((kind for pattern, kind in self._kinds if pattern.fullmatch(key)), None)
        if self._shapes and isinstance(rest := _parsed(key.encode()), dict):
            kind = next((shape.kind for shape in self._shapes if shape.asked(rest) == (key,)), None)
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

    def _all(self, topics: Iterable[str]) -> str:
        """A caller's topics as the exchange lists them."""
        one = self.sharing.one
        return f"[{','.join(_with_places(one, topic) if one else _told(topic) for topic in topics)}]"

    def _id_of(self, found: dict[str, Any]) -> str:
        name = self.sharing.id
        return json.dumps(found[name]) if name and name in found else ""

    def _filled(self, template: str, raw_id: str) -> str:
        raw_id = raw_id or self.sharing.no_id
        return template.replace("$id", raw_id) if raw_id else _ID_MEMBER.sub("", template)


def _pattern(name: str) -> str:
    """What a name with stars stands for."""
    return re.escape(name).replace(r"\*", ".*")


def _is_name(text: str) -> bool:
    """Nothing in it has another meaning in a URL."""
    return not set(text) & set("?&=%#")


def _told(key: str) -> str:
    """A topic as it stands in a message."""
    return key if key.startswith("{") else json.dumps(key)


def _with_places(template: str, topic: str) -> str:
    """With what a topic's request has in the places that the template names."""
    asked = json.loads(topic)
    return _PLACE.sub(lambda match: json.dumps(at(asked, match[1]), separators=(",", ":")), template)


def _numbers(found: dict[str, Any], kind: Topics) -> tuple[int, int, int | None, bool] | None:
    snapshot = bool(kind.snapshot) and _holds(found, kind.snapshot)
    if kind.rule == "line":
        return (0, 0, None, snapshot)  # whoever hears the line counts
    last = _whole(at(found, kind.last))
    if last is None:
        return None
    first = _whole(at(found, kind.first)) if kind.first else last
    previous = _whole(at(found, kind.previous)) if kind.previous else None
    return (first if first is not None else last, last, previous, snapshot)


def _holds(found: dict[str, Any], condition: str) -> bool:
    """``place=value``, or a place that has something."""
    place, equals, value = condition.partition("=")
    there = at(found, place)
    if not equals:
        return there is not None
    return json.dumps(there) == value if isinstance(there, bool) else str(there) == value


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

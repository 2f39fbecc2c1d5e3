"""Answers of exchanges: status, headers and body in, what they mean out.

Always true: `read` never raises, whatever came; a write whose fate the answer does not settle beyond doubt is
unknown, and so is an error that no rule knows; HTTP 200 proves nothing by itself where a venue puts its
errors inside; the answer itself is never changed.
Exchanges say "too many" in seven ways, and "it may have been executed" even with a 400 (OKX 50004); bots lose
money over either being mistaken for the other, so the rules are data, read and corrected in one place.
Does not belong here: what a request is (venue_requests), and what follows from an answer (upstream).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dialect.instants import http_date, instant, of_any_unit
from gateway.dialect.venue import ErrorRule, Venue, Word
from gateway.model import ReplyKind

MAX_BODY = 1_000_000  # bytes of an answer that is looked into as a whole
MAX_TEXT = 2048
LONGEST_WAIT = 3 * 86_400.0  # seconds; the longest ban that a venue announces (Binance: three days)
_DIGITS = re.compile(r"\d{10,16}")
_JSON_STARTS = (b"{", b"[")


@dataclass(frozen=True, slots=True)
class VenueReading:
    """What an answer means.

    `settled`: for a write, that the answer says what became of it: done, or surely not executed.
    `hold_for`: seconds in which nobody asks this venue, or (`hold_each`) nobody of this
    account or for this path; `banned`: it is no ordinary limit.  `used` are
    (limit, amount used) as the headers tell.  `detail` is short and holds no text of the venue's.
    """

    word: Word
    kind: ReplyKind
    settled: bool
    detail: str = ""
    hold_for: float = 0.0
    hold_each: str = ""
    banned: bool = False
    used: tuple[tuple[str, float], ...] = ()


_KINDS = {
    Word.UNKNOWN: ReplyKind.SERVER_FAULT,
    Word.ANSWER: ReplyKind.ANSWER,
    Word.REFUSED: ReplyKind.REFUSAL,
    Word.DUPLICATE: ReplyKind.REFUSAL,
    Word.INVALID: ReplyKind.INVALID_REQUEST,
    Word.CLOCK: ReplyKind.INVALID_REQUEST,
    Word.THROTTLED: ReplyKind.THROTTLED,
    Word.BUSY: ReplyKind.NODE_TIMEOUT,
    Word.BANNED: ReplyKind.THROTTLED,
    Word.FAILED: ReplyKind.SERVER_FAULT,
    Word.MAINTENANCE: ReplyKind.MAINTENANCE,
    Word.REGION: ReplyKind.GONE,
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """One rule, ready for use."""

    rule: ErrorRule
    statuses: frozenset[int]
    classes: frozenset[int]  # 5 for 5xx
    codes: frozenset[str]
    prefixes: tuple[str, ...]

    def fits(self, status: int, codes: Sequence[str], text: str, write: bool) -> bool:
        rule = self.rule
        if rule.on and (rule.on == "writes") is not write:
            return False
        if rule.status and status not in self.statuses and status // 100 not in self.classes:
            return False
        if rule.codes and not any(c in self.codes or (c and c.startswith(self.prefixes)) for c in codes):
            return False
        return not rule.text or any(piece in text for piece in rule.text)


class Answers:
    """Reads the answers of one venue."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        errors = venue.errors
        self._rules = [_ready(rule) for rule in errors.rules]
        self._inside = errors.inside_200
        self._success = frozenset(errors.success)
        self._tellers = {limit.header.encode(): limit for limit in venue.limits if limit.header}
        self._good = None
        if self._inside and errors.code and errors.success and "." not in errors.code[0]:
            member = re.escape(errors.code[0])
            values = "|".join(re.escape(value) for value in errors.success)
            self._good = re.compile(rf'\s*\{{\s*"{member}"\s*:\s*"?(?:{values})"?\s*[,}}]'.encode())

    def read(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, write: bool, wall: float
    ) -> VenueReading:
        """What an answer means.  `headers` with names in any case; `wall` is now in unix seconds."""
        used = self._used(headers) if self._tellers else ()
        if status < 300:
            well = self._well(status, body, write)
            if well:
                if not used:
                    return GOOD
                return VenueReading(Word.ANSWER, ReplyKind.ANSWER, True, used=used)
        parsed = _parsed(body)
        codes = self._codes(parsed)
        if status < 300 and parsed is None:
            return self._unreadable(body, write, used)
        if status < 300 and not any(code and code not in self._success for code in codes):
            return VenueReading(Word.ANSWER, ReplyKind.ANSWER, True, used=used)
        text = self._text(parsed, body)
        for ready in self._rules:
            if ready.fits(status, codes, text, write):
                return self._reading(ready.rule, status, codes, text, headers, used, wall)
        return self._by_status(status, codes, text, headers, used, wall)

    def _well(self, status: int, body: bytes, write: bool) -> bool:
        """A success that can be told without looking closely."""
        if not self._inside:
            return status == 204 or (body[:1] in _JSON_STARTS and (not write or _parsed(body) is not None))
        if self._good is None or write:
            return False
        return self._good.match(body) is not None

    def _unreadable(self, body: bytes, write: bool, used: tuple[tuple[str, float], ...]) -> VenueReading:
        """A 2xx that is no JSON, or too large to be looked into: large answers to reads are answers."""
        if not write and len(body) > MAX_BODY and body[:1] in _JSON_STARTS:
            return VenueReading(Word.ANSWER, ReplyKind.ANSWER, True, used=used)
        what = "an empty answer" if not body else "an answer that is no JSON"
        return VenueReading(Word.UNKNOWN, ReplyKind.BAD_REPLY, False, what, used=used)

    def _by_status(
        self,
        status: int,
        codes: Sequence[str],
        text: str,
        headers: Sequence[tuple[bytes, bytes]],
        used: tuple[tuple[str, float], ...],
        wall: float,
    ) -> VenueReading:
        """What no rule knows."""
        if status in (429, 418):
            rule = ErrorRule(Word.BANNED if status == 418 else Word.THROTTLED, hold=10.0)
            return self._reading(rule, status, codes, text, headers, used, wall)
        if status == 451:
            word = Word.REGION
        elif status < 300 or status >= 500 or status == 408:
            word = Word.UNKNOWN
        elif status < 400:
            word = Word.ANSWER
        else:
            word = Word.INVALID
        code = f" code {codes[0]}" if codes and codes[0].lstrip("-").isalnum() else ""
        kind = ReplyKind.UNCLASSIFIED if status < 300 else _KINDS[word]
        settled = word in _SETTLED and not 300 <= status < 400
        return VenueReading(word, kind, settled, f"HTTP {status}{code[:40]}", used=used)

    def _reading(
        self,
        rule: ErrorRule,
        status: int,
        codes: Sequence[str],
        text: str,
        headers: Sequence[tuple[bytes, bytes]],
        used: tuple[tuple[str, float], ...],
        wall: float,
    ) -> VenueReading:
        word = rule.word
        hold = 0.0
        if word in (Word.THROTTLED, Word.BANNED, Word.BUSY, Word.MAINTENANCE):
            hold = self._wait(headers, text, wall, rule.hold)
        code = next((c for c in codes if c and c not in self._success and c.lstrip("-").isalnum()), "")
        detail = f"{word.value}: HTTP {status}" + (f" code {code[:40]}" if code else "")
        return VenueReading(word, _KINDS[word], word in _SETTLED, detail, hold, rule.each, word is Word.BANNED, used)

    def _wait(self, headers: Sequence[tuple[bytes, bytes]], text: str, wall: float, otherwise: float) -> float:
        """Seconds until one may ask again, as the answer says, or the rule."""
        given = {name.lower(): value for name, value in headers}
        for name in self.venue.errors.wait:
            value = given.get(name.encode())
            seconds = _delay(value.decode("latin-1").strip(), wall, name) if value is not None else None
            if seconds is not None:
                return min(LONGEST_WAIT, max(0.0, seconds))
        until = self.venue.errors.until_text
        if until and until in text:
            found = _DIGITS.search(text, text.find(until), text.find(until) + 80)
            if found is not None:
                return min(LONGEST_WAIT, max(0.0, of_any_unit(float(found[0])) - wall))
        return otherwise

    def _used(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, float], ...]:
        found = []
        for name, value in headers:
            limit = self._tellers.get(name.lower())
            if limit is not None:
                try:
                    amount = float(value)
                except ValueError:
                    continue
                found.append((limit.name, limit.amount - amount if limit.says == "left" else amount))
        return tuple(found)

    def _codes(self, parsed: Any) -> list[str]:
        errors = self.venue.errors
        found = [_at(parsed, place) for place in errors.code]
        deeper = [_at(parsed, place) for place in errors.then]
        codes = [_worded(value) for value in (*deeper, *found)]
        return [code for code in codes if code]

    def _text(self, parsed: Any, body: bytes) -> str:
        texts = [_worded(_at(parsed, place)) for place in self.venue.errors.text] if parsed is not None else []
        if not any(texts):
            texts = [body[:MAX_TEXT].decode("utf-8", "replace")]
        return " ".join(texts)[:MAX_TEXT].lower()


GOOD = VenueReading(Word.ANSWER, ReplyKind.ANSWER, True)
_SETTLED = frozenset(Word) - {Word.UNKNOWN, Word.MAINTENANCE}
"""What says beyond doubt what became of a write.  Maintenance is told by edges, too, that cannot know."""


def server_time(body: bytes, place: str, unit: str) -> float | None:
    """The venue's clock in an answer, in unix seconds; None: it is not there."""
    found = _at(_parsed(body), place)
    if unit != "number":
        return instant(found, unit)
    try:
        return float(found)
    except (TypeError, ValueError, OverflowError):
        return None


def text_at(body: bytes, place: str) -> str:
    """A member of an answer as text; empty: it is not there."""
    return _worded(_at(_parsed(body), place))


def _ready(rule: ErrorRule) -> _Rule:
    exact = frozenset(code for code in rule.codes if not code.endswith("*"))
    prefixes = tuple(code[:-1] for code in rule.codes if code.endswith("*"))
    statuses = frozenset(int(status) for status in rule.status if status.isdigit())
    classes = frozenset(int(status[0]) for status in rule.status if status.endswith("xx"))
    return _Rule(rule, statuses, classes, exact, prefixes)


def _parsed(body: bytes) -> Any:
    """The body as JSON; None: it is none, or too large."""
    if not body or len(body) > MAX_BODY:
        return None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _at(value: Any, place: str) -> Any:
    """A member by dotted names; ``*`` takes the first element of a list that has it, a number a position."""
    names = place.split(".")
    for i, name in enumerate(names):
        if name == "*" and isinstance(value, list):
            rest = ".".join(names[i + 1 :])
            found = (item if not rest else _at(item, rest) for item in value[:64])
            return next((item for item in found if item not in (None, "", "0", 0)), None)
        if isinstance(value, dict):
            value = next(iter(value.values()), None) if name == "*" else value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _worded(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:MAX_TEXT] if isinstance(value, (str, int, float)) else ""


def _delay(text: str, wall: float, name: str) -> float | None:
    """A header's time to wait, in seconds: seconds, milliseconds (by its size or name), an instant, or a date."""
    try:
        value = float(text)
    except ValueError:
        date = http_date(text)
        return date - wall if date is not None else None
    if not 0 <= value < 1e17:
        return None
    if value > 1e8:
        return of_any_unit(value) - wall
    return value / 1e3 if name.endswith(("-ms", "ratelimit-reset")) else value

"""Answers of exchanges: status, headers and body in, what they mean out.

Always true: `read` never raises, whatever came; a write whose fate the answer does not settle beyond doubt is
unknown, and so is an error that no rule knows; HTTP 200 proves nothing by itself where a venue puts its
errors inside; the answer itself is never changed.
Exchanges say "too many" in seven ways, and "it may have been executed" even with a 400 (OKX 50004); bots lose
money over either being mistaken for the other, so the rules are data, read and corrected in one place.
Does not belong here: what a request is (venue_requests), and what follows from an answer (upstream).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.dialect.instants import UNITS, http_date, instant, of_any_unit
from gateway.dialect.places import decoded, found_at
from gateway.dialect.venue import ErrorRule, Limit, Venue, Word
from gateway.model import ReplyKind

MAX_BODY = 1_000_000  # bytes of an answer that is looked into as a whole
MAX_TEXT = 2048
LONGEST_WAIT = 3 * 86_400.0  # seconds; the longest ban that a venue announces (Binance: three days)
LONGEST_REST = 30.0  # seconds; who is at work may be back before the time it named, and only asking tells
MOST_PARTS = 1000  # members of an answer to several orders that are looked at
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
        self._tellers: dict[bytes, list[Limit]] = {}
        for limit in venue.limits:
            if limit.header:
                self._tellers.setdefault(limit.header.encode(), []).append(limit)
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
        parsed = decoded(body, MAX_BODY)
        if status < 300 and parsed is None:
            return self._unreadable(body, write, used)
        parts = [code for place in self.venue.errors.then for code in _all(parsed, place) if code not in self._success]
        outer = [code for place in self.venue.errors.code for code in _all(parsed, place)]
        codes = [*parts, *outer] if status >= 300 or self._inside else parts
        if status < 300 and not any(code not in self._success for code in codes):
            return VenueReading(Word.ANSWER, ReplyKind.ANSWER, True, used=used)
        text = self._text(parsed, body)
        if write and len(parts) > 1:
            for part in parts:  # several orders in one request: one of unknown fate is enough
                if not self._tells(part, status, text):
                    kind = ReplyKind.UNCLASSIFIED
                    return VenueReading(Word.UNKNOWN, kind, False, f"HTTP {status}, a part unknown", used=used)
        rule = self._fitting(status, codes, text, write)
        if rule is not None:
            return self._reading(rule, status, codes, text, headers, used, wall)
        return self._by_status(status, codes, text, headers, used, wall, write)

    def _fitting(self, status: int, codes: Sequence[str], text: str, write: bool) -> ErrorRule | None:
        return next((ready.rule for ready in self._rules if ready.fits(status, codes, text, write)), None)

    def _tells(self, part: str, status: int, text: str) -> bool:
        """Whether a part's own error says what became of it."""
        rule = self._fitting(status, (part,), part.lower(), True) or self._fitting(status, (part,), text, True)
        return rule is not None and rule.word in _SETTLED

    def _well(self, status: int, body: bytes, write: bool) -> bool:
        """A success that can be told without looking closely."""
        if not self._inside:
            if write and self.venue.errors.then:
                return status == 204
            return status == 204 or (body[:1] in _JSON_STARTS and (not write or decoded(body, MAX_BODY) is not None))
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
        write: bool,
    ) -> VenueReading:
        """What no rule knows.  A code that nobody has heard of proves nothing for a write, even in a 4xx."""
        if status in (429, 418):
            rule = ErrorRule(Word.BANNED if status == 418 else Word.THROTTLED, hold=10.0)
            return self._reading(rule, status, codes, text, headers, used, wall)
        if status == 451:
            word = Word.REGION
        elif status < 300 or status >= 500 or status in _UNSURE:
            word = Word.UNKNOWN
        elif status < 400:
            word = Word.ANSWER
        else:
            word = Word.INVALID
        code = f" code {codes[0]}" if codes and codes[0].lstrip("-").isalnum() else ""
        kind = ReplyKind.UNCLASSIFIED if status < 300 else _KINDS[word]
        if word is Word.INVALID and write and codes:
            word = Word.UNKNOWN
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
            hold = max(rule.least, self._wait(headers, text, wall, rule.hold))
            if word is Word.MAINTENANCE:
                hold = min(hold, LONGEST_REST)
        code = next((c for c in codes if c and c not in self._success and c.lstrip("-").isalnum()), "")
        detail = f"{word.value}: HTTP {status}" + (f" code {code[:40]}" if code else "")
        return VenueReading(word, _KINDS[word], word in _SETTLED, detail, hold, rule.each, word is Word.BANNED, used)

    def _wait(self, headers: Sequence[tuple[bytes, bytes]], text: str, wall: float, otherwise: float) -> float:
        """Seconds until one may ask again, as the answer says, or the rule."""
        given = {name.lower(): value for name, value in headers}
        for name, unit in self.venue.errors.wait.items():
            value = given.get(name.encode())
            seconds = _delay(value.decode("latin-1").strip(), wall, unit) if value is not None else None
            if seconds is not None:
                return min(LONGEST_WAIT, seconds)
        until = self.venue.errors.until_text
        if until and until in text:
            found = _DIGITS.search(text, text.find(until), text.find(until) + 80)
            seconds = of_any_unit(float(found[0])) - wall if found is not None else 0.0
            if seconds > 0:
                return min(LONGEST_WAIT, seconds)
        return otherwise

    def _used(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, float], ...]:
        found = []
        for name, value in headers:
            for limit in self._tellers.get(name.lower(), ()):
                amount = _number(value)
                if amount is None:
                    continue
                if limit.says == "left":
                    of = next((v for n, v in headers if n.lower() == limit.of.encode()), b"")
                    whole = _number(of) or limit.amount
                    amount = (whole - amount) * limit.amount / whole
                found.append((limit.name, amount))
        return tuple(found)

    def _text(self, parsed: Any, body: bytes) -> str:
        texts = [text for place in self.venue.errors.text for text in _all(parsed, place)]
        if not texts:
            texts = [body[:MAX_TEXT].decode("utf-8", "replace")]
        return " ".join(texts)[:MAX_TEXT].lower()


GOOD = VenueReading(Word.ANSWER, ReplyKind.ANSWER, True)
_SETTLED = frozenset(Word) - {Word.UNKNOWN, Word.MAINTENANCE}
"""What says beyond doubt what became of a write.  Maintenance is told by edges, too, that cannot know."""
_UNSURE = (408, 409, 499)
"""A 4xx in which what was asked for may have happened: a time over, a conflict with what may be one's own request."""


def server_time(body: bytes, place: str, unit: str) -> float | None:
    """The venue's clock in an answer, in unix seconds; None: it is not there."""
    found = found_at(decoded(body, MAX_BODY), place)
    if unit != "number":
        return instant(found, unit)
    try:
        return float(found)
    except (TypeError, ValueError, OverflowError):
        return None


def text_at(body: bytes, place: str) -> str:
    """A member of an answer as text; empty: it is not there."""
    return _worded(found_at(decoded(body, MAX_BODY), place))


def _ready(rule: ErrorRule) -> _Rule:
    exact = frozenset(code for code in rule.codes if not code.endswith("*"))
    prefixes = tuple(code[:-1] for code in rule.codes if code.endswith("*"))
    statuses = frozenset(int(status) for status in rule.status if status.isdigit())
    classes = frozenset(int(status[0]) for status in rule.status if status.endswith("xx"))
    return _Rule(rule, statuses, classes, exact, prefixes)


def _all(value: Any, place: str) -> list[str]:
    """Every text or number at a place; ``*`` are all members of a list or an object."""
    found = [value]
    for name in place.split("."):
        inside: list[Any] = []
        for item in found:
            if name == "*":
                inside += list(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
            else:
                inside.append(found_at(item, name))
        found = inside[:MOST_PARTS]
    return [text for text in map(_worded, found) if text]


def _worded(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:MAX_TEXT] if isinstance(value, (str, int, float)) else ""


def _delay(text: str, wall: float, unit: str) -> float | None:
    """A header's time to wait, in seconds: an amount in `unit`, an instant of any unit, or a date.

    None: it cannot be read, or by our clock that instant has passed already, and the clocks differ.
    """
    value = _number(text)
    if value is None:
        until = http_date(text)
    elif value > 1e8:
        until = of_any_unit(value) if value < 1e17 else None
    else:
        return value / UNITS[unit] if value >= 0 else None
    return until - wall if until is not None and until > wall else None


def _number(text: bytes | str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

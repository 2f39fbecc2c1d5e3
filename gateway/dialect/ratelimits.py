"""Rate limits as upstreams tell them: in the headers of an answer, or in the words or the data of a refusal.

Always true: any headers and any words can come in, and nothing is raised; a value that is odd (not a
plain number, more left than the limit, a reset that is past or further away than a month) counts as not
said; of several limits the tightest comes out; no more than `MOST_HEADERS` fields and `MOST_CHARACTERS`
of a value or message are read.
There is no standard that vendors keep.  The names read here are those of Kong (one limit per period in
the name), of Envoy and most vendors (`x-ratelimit-*`, reset in seconds or as an instant), and of the
IETF's draft-ietf-httpapi-ratelimit-headers (versions 3 to 6: three fields; 7: one; 8 to 10: one, by
named policies).  A limit of one method, connection or key (`x-ratelimit-method-*` of public Solana
nodes) is not one of the account and is passed over.
Does not belong here: the header Retry-After (upstream/wire/reading), and what a budget makes of all this
(policy/quota).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

MOST_HEADERS = 200
MOST_CHARACTERS = 512
LONGEST_RESET = 32 * 86400.0  # seconds; a month is the longest period that vendors bill by
EPOCH_FROM = 1e9  # a reset this large is an instant (September 2001 or later), not a number of seconds
EPOCH_MILLISECONDS_FROM = 1e12

_PERIODS = {
    "second": "second", "sec": "second", "rps": "second", "minute": "minute", "min": "minute", "hour": "hour",
    "hourly": "hour", "day": "day", "daily": "day", "month": "month", "monthly": "month",
}  # fmt: skip
_SAID = ("limit", "remaining", "reset")
_SAYS_NOTHING = frozenset({"after", "requests", "request", "global"})  # words of names beside these
_LENGTHS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "month": LONGEST_RESET}

_number = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*").fullmatch
_parameter = re.compile(r"\s*([a-z]{1,16})\s*=\s*([0-9]{1,15})\s*").fullmatch


@dataclass(frozen=True, slots=True)
class LimitsSaid:
    """One limit, as an upstream told it.  None: not said.

    `limit` and `remaining` are in the upstream's own units (requests, credits); `reset_after` is in
    seconds, 0 to `LONGEST_RESET`; `period` is the window by name: second, minute, hour, day or month.
    """

    limit: float | None = None
    remaining: float | None = None
    reset_after: float | None = None
    period: str | None = None

    @property
    def share(self) -> float:
        """What is left of the limit, 0 to 1; 1 where nothing says how much."""
        if self.remaining is None:
            return 1.0
        if self.remaining == 0:
            return 0.0
        return self.remaining / self.limit if self.limit else 1.0


def limits_said(headers: list[tuple[bytes, bytes]], wall: float) -> LimitsSaid | None:
    """The tightest limit that an answer's headers tell; None when they tell none.

    Names are in lower case.  `wall` is seconds since 1970, for resets that are given as an instant.
    """
    fields = [field for field in headers[:MOST_HEADERS] if b"limit" in field[0]]
    if not fields:
        return None
    told: dict[str, dict[str, str]] = {}
    structured = policies = ""
    for name, value in fields:
        words = name.decode("latin-1").removeprefix("x-").replace("rate-limit", "ratelimit").split("-")
        if words[0] != "ratelimit" or len(value) > MOST_CHARACTERS:
            continue
        text = value.decode("latin-1").lower()
        if len(words) == 1:
            structured = structured or text
        elif words[1:] == ["policy"]:
            policies = policies or text
        else:
            _sort_in(words[1:], text, told)
    found = [_of_three(period, texts, wall) for period, texts in told.items()]
    found += _of_one(structured, policies)
    found = [said for said in found if said.limit is not None or said.remaining is not None]
    return min(found, key=_tightness, default=None)


def _tightness(said: LimitsSaid) -> tuple[float, float, float]:
    """Least left first; of equals, the one that lasts longest; and one that says what is left before others."""
    return said.share, said.remaining is None, -(said.reset_after or _LENGTHS.get(said.period or "", 0.0))


def _sort_in(words: list[str], text: str, told: dict[str, dict[str, str]]) -> None:
    """Note a field such as x-ratelimit-limit-minute under its period; pass over names that say more than that."""
    said = period = ""
    for word in words:
        if word in _SAID:
            said += word  # two of them make a name that is none
        elif word in _PERIODS:
            period += _PERIODS[word]
        elif word not in _SAYS_NOTHING:
            return
    if said in _SAID and (not period or period in _LENGTHS):
        told.setdefault(period, {}).setdefault(said, text)


def _of_three(period: str, texts: dict[str, str], wall: float) -> LimitsSaid:
    """Limit, remaining and reset in a field each.  A limit may name its window: `10, 10;w=60`."""
    limit_text = texts.get("limit", "")
    first, *rest = re.split("[,;]", limit_text, maxsplit=1)
    reset = _reset_after(texts.get("reset", ""), wall)
    if reset is None and rest:
        window = re.search(r";\s*w\s*=\s*([0-9]{1,9})\s*(?:[,;]|$)", limit_text)
        reset = _bounded(float(window[1])) if window else None
    return _checked(_as_number(first), _as_number(texts.get("remaining", "")), reset, period or None)


def _of_one(structured: str, policies: str) -> list[LimitsSaid]:
    """All in the field `RateLimit`: `limit=100, remaining=50, reset=5`, or `"burst";r=50;t=5, ...`."""
    items = [_parameters(item) for item in structured.split(",")] if structured else []
    if items and all(values and not name for name, values in items):
        flat = {key: value for _, values in items for key, value in values.items()}
        reset = flat.get("reset")
        return [_checked(flat.get("limit"), flat.get("remaining"), None if reset is None else _bounded(reset), None)]
    quotas = {name: values.get("q") for name, values in map(_parameters, policies.split(",")) if name}
    found = []
    for name, values in items:
        reset = values.get("t")
        if name and "r" in values:
            found.append(_checked(quotas.get(name), values["r"], None if reset is None else _bounded(reset), None))
    return found


def _parameters(item: str) -> tuple[str, dict[str, float]]:
    """A name and its parameters; either may be missing."""
    name = ""
    values: dict[str, float] = {}
    for number, piece in enumerate(item.split(";")):
        parameter = _parameter(piece)
        if parameter is not None:
            values.setdefault(parameter[1], float(parameter[2]))
        elif number == 0:
            name = piece.strip().strip('"')
    return name, values


def _checked(limit: float | None, remaining: float | None, reset: float | None, period: str | None) -> LimitsSaid:
    """Nothing at all where the numbers contradict each other."""
    if limit is not None and (limit == 0 or (remaining is not None and remaining > limit)):
        return LimitsSaid()
    return LimitsSaid(limit, remaining, reset, period)


def _reset_after(text: str, wall: float) -> float | None:
    reset = _as_number(text)
    if reset is None:
        return None
    if reset >= EPOCH_MILLISECONDS_FROM:
        reset /= 1000.0
    if reset >= EPOCH_FROM:
        reset -= wall
    return _bounded(reset)


def _bounded(reset: float) -> float | None:
    return reset if 0 <= reset <= LONGEST_RESET else None


def _as_number(text: str) -> float | None:
    match = _number(text)
    return float(match[1]) if match else None


# --- words --------------------------------------------------------------------------------------------

_link = re.compile(r"https?://\S+")
_THING = r"(?:limits?|quotas?|caps?|capacity|credits?|requests?|usage|allowance|compute|units?|calls?|cu|count)\b"
_WORDS = {
    "second": r"(?:per |/ ?|a |each )s(?:ec(?:ond)?)?\b|\brequest rate\b|\b(?:rps|cups|cu/s|tps)\b",
    "minute": r"(?:per |/ ?|a |each )min(?:ute)?\b",
    "hour": r"(?:per |/ ?|an |each )h(?:ou)?r\b|\bhourly (?:\w+ ){0,2}" + _THING,
    "day": r"(?:per |/ ?|a |each )day\b|\bdaily (?:\w+ ){0,2}" + _THING + r"|\b(?:for )?today\b|\b24 ?h(?:ours)?\b",
    "month": r"(?:per |/ ?|a |each |this )month\b|\bmonthly (?:\w+ ){0,2}" + _THING + r"|\bbilling (?:period|cycle)\b",
}
_first_period = re.compile("|".join(f"(?P<{period}>{words})" for period, words in _WORDS.items())).search


def quota_period(message: str) -> str | None:
    """How long a refusal lasts by the vendor's words: second, minute, hour, day, month; None: they do not say.

    The period that is named first counts: what follows is often advice ("daily request count exceeded,
    request rate limited").  Ask only of replies that were read as throttled or as a used-up quota.
    """
    match = _first_period(_link.sub(" ", message[:MOST_CHARACTERS].lower()))
    return match.lastgroup if match else None


_waits = re.compile(
    r"\b(?:retry|try again|wait|back ?off|available again)(?: (?:in|after|for|at least|another))*:? ?"
    r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b"
).search
_SECONDS = {"ms": 0.001, "mil": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hou": 3600.0}
_duration = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|h|m|s))+").fullmatch  # as Go writes it: 1m2.5s
_part = re.compile(r"([0-9.]+)(ms|h|m|s)").findall
_MEMBERS = {
    "backoff_seconds": 1.0, "retry_after": 1.0, "retryafter": 1.0, "retry_after_seconds": 1.0, "try_again_in": 1.0,
    "retry_after_ms": 0.001, "retryafterms": 0.001,
}  # fmt: skip
_decode = msgspec.json.Decoder().decode


def wait_said(message: str, data: bytes) -> float | None:
    """Seconds after which to come back, as a refusal's words or its `data` say; None: they do not.

    ``call rate limit exhausted, retry in 10s``; ``{"rate": {"backoff_seconds": 30}}``; ``{"try_again_in":
    "710.2ms"}``.  Ask only of replies that were read as throttled or as a used-up quota.
    """
    for name, value in _members(data):
        unit = _MEMBERS.get(name.lower())
        seconds = _seconds(value, unit) if unit is not None else None
        if seconds is not None:
            return seconds
    match = _waits(_link.sub(" ", message[:MOST_CHARACTERS].lower()))
    return _positive(float(match[1]) * _SECONDS[match[2] if match[2] in _SECONDS else match[2][:3]]) if match else None


def _members(data: bytes) -> Iterator[tuple[str, Any]]:
    """The members of an object and of those directly in it."""
    try:
        value = _decode(data) if data[:1] == b"{" and len(data) <= MOST_CHARACTERS * 8 else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if isinstance(value, dict):
        for name, member in value.items():
            yield from member.items() if isinstance(member, dict) else [(name, member)]


def _seconds(value: Any, unit: float) -> float | None:
    """A number in the member's unit, or a duration that names its own."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        if _duration(value):
            return _positive(sum(float(number) * _SECONDS[of] for number, of in _part(value)))
        value = _as_number(value)
    return _positive(value * unit) if isinstance(value, int | float) else None


def _positive(seconds: float) -> float | None:
    return seconds if 0 < seconds <= LONGEST_RESET else None

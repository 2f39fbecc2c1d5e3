"""What an upstream's error means: rules from data files, the unknown case first.

Always true: any error gets exactly one kind; what no rule knows is UNCLASSIFIED (one other opinion,
a soft failure, the upstream's own words), so a missing rule costs a retry and never an answer; only
the first `MAX_TEXT` characters are looked at, with plain substring searches, so the cost is bounded.
HTTP 401, 402, 403 and 429 outrank the object in the body: a proxy in front of the node speaks there,
and only what such a proxy would say is believed (`_MAY_SAY`).  Nodes repeat what a caller sent; what
stands in quotes, and a method's name that the caller made up, never cost an endpoint its traffic.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gateway.model import Effect, Family, Method, Outcome, ReplyKind

MAX_TEXT = 2048
SHORTEST_WORDS = 4  # characters; a shorter method name says nothing, and cutting it out would maim other words
_REVERT_DATA = (b"0x08c379a0", b"0x4e487b71", b"reverted ")  # Error(string), Panic(uint256), and one vendor's prefix
_HEX_PAIR = re.compile(r"\[\s*(0x[0-9a-f]{1,16})\s*,\s*(0x[0-9a-f]{1,16})\s*\]")
_NUMBER = re.compile(r"\s*([0-9][0-9,_ ]{0,12}[0-9]|[0-9])")
_QUOTED = re.compile(r"""\"[^"]*(?:"|$)|`[^`]*(?:`|$)|(?<!\w)'[^']*'(?!\w)""")
_CALLERS_FAULT = frozenset({-32602, -32700})  # no vendor refuses keys or rates with these; nodes quote callers in them
_MAY_SAY = {
    401: frozenset({ReplyKind.KEY_REFUSED, ReplyKind.QUOTA, ReplyKind.THROTTLED, ReplyKind.WRONG_CHAIN}),
    402: frozenset({ReplyKind.QUOTA}),
    # A plan that has no traces or no archive is told by 403 too; the key itself is good.
    403: frozenset(
        {
            ReplyKind.KEY_REFUSED,
            ReplyKind.QUOTA,
            ReplyKind.THROTTLED,
            ReplyKind.WRONG_CHAIN,
            ReplyKind.UNSUPPORTED,
            ReplyKind.MISSING_DATA,
        }
    ),
    429: frozenset({ReplyKind.THROTTLED, ReplyKind.QUOTA}),
}
"""The statuses that outrank the body, and the kinds that a body may still choose between."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a data file.  All conditions that are given must hold."""

    kind: ReplyKind
    codes: frozenset[int]
    pieces: tuple[tuple[str, ...], ...]  # any of these, each: all of its pieces
    families: frozenset[Family]
    unless_families: frozenset[Family]
    methods: frozenset[str] = frozenset()
    costs: bool = False  # the endpoint loses traffic over it, so only the upstream's own words count

    def fits(self, code: int | None, text: str, family: Family) -> str | None:
        """Why it fits, in a few words without the upstream's text; None when it does not."""
        if (self.families and family not in self.families) or family in self.unless_families:
            return None
        if self.codes and code not in self.codes:
            return None
        if not self.pieces:
            return f"code {code}"
        for pieces in self.pieces:
            if pieces[0] in text and all(piece in text for piece in pieces):
                return " ".join(pieces)
        return None


class Rules:
    """The rules of one kind of chain, and those for HTTP statuses."""

    def __init__(self, table: dict[str, Any], http: dict[str, Any]) -> None:
        self.rules = [_rule(row) for row in table["rules"]]
        self._ranges: list[list[Any]] = table["ranges"]
        self._results: tuple[str, ...] = tuple(table.get("results", ()))
        self._statuses = {int(status): ReplyKind.named(kind) for status, kind in http["statuses"].items()}
        self._texts = [
            (ReplyKind.named(t["kind"]), frozenset(t["statuses"]), tuple(t["contains"])) for t in http["texts"]
        ]

    def classify_error(
        self, http_status: int, code: int | None, message: str, data: bytes, method: Method
    ) -> tuple[ReplyKind, str]:
        """The kind of an error object, and why."""
        allowed = _MAY_SAY.get(http_status)
        if allowed is None and data[1:11].lower().startswith(_REVERT_DATA):
            return ReplyKind.REFUSAL, "revert data"
        text = _text_of(message, data)
        own = _own_words(text, method)
        spared = allowed is None and code in _CALLERS_FAULT
        for rule in self.rules:
            if (allowed is not None and rule.kind not in allowed) or (rule.costs and spared):
                continue
            if rule.methods and method.name not in rule.methods:
                continue
            why = rule.fits(code, own if rule.costs else text, method.family)
            if why is not None:
                return rule.kind, why
        if http_status != 200:
            return self.classify_http(http_status, own.encode("utf-8", "replace")), f"HTTP {http_status}"
        return ReplyKind.UNCLASSIFIED, f"code {code}"

    def classify_http(self, http_status: int, body: bytes) -> ReplyKind:
        """The kind of an answer whose body is no JSON-RPC object."""
        text = body[:MAX_TEXT].decode("utf-8", "replace").casefold()
        for kind, statuses, pieces in self._texts:
            if (http_status in statuses or (not statuses and http_status >= 400)) and any(p in text for p in pieces):
                return kind
        known = self._statuses.get(http_status)
        if known is not None:
            return known
        return ReplyKind.BAD_REQUEST if 400 <= http_status < 500 else ReplyKind.SERVER_FAULT

    def learned_range(self, message: str) -> int | None:
        """The most blocks a getLogs may span, as an error text names it; None when it names no number."""
        text = message[:MAX_TEXT].casefold()
        for marker, where, correction in self._ranges:
            if marker not in text:
                continue
            limit = _limit_at(text, where)
            if limit is not None and limit + correction > 0:
                return int(limit + correction)
        return None

    def is_of_the_query(self, message: str) -> bool:
        """It is what the query finds that is too much, not how many blocks it spans: another may span more."""
        text = message[:MAX_TEXT].casefold()
        return any(piece in text for piece in self._results)


def _text_of(message: str, data: bytes) -> str:
    """What the rules look at: the message, and `data` where it is words (CometBFT and NEAR put the reason there)."""
    text = message[:MAX_TEXT].casefold()
    if data[:1] == b'"' and data[1:3] != b"0x":
        text += "\n" + data[1:MAX_TEXT].decode("utf-8", "replace").casefold()
    return text


def _own_words(text: str, method: Method) -> str:
    """The text without what a caller may have put into it: quotations, and the name of an unknown method."""
    own = _QUOTED.sub(" ", text) if any(mark in text for mark in "\"'`") else text
    return own if method.known or len(method.name) < SHORTEST_WORDS else own.replace(method.name.casefold(), " ")


def _limit_at(text: str, where: str) -> int | None:
    if where == "hex_pair":
        pair = _HEX_PAIR.search(text)
        return int(pair[2], 16) - int(pair[1], 16) if pair is not None else None
    if where.startswith("= "):
        return int(where[2:])
    found = _NUMBER.match(text, text.find(where) + len(where)) if where in text else None
    return int(re.sub(r"[,_ ]", "", found[1])) if found is not None else None


def _rule(row: dict[str, Any]) -> Rule:
    pieces = tuple(tuple(p) if isinstance(p, list) else (p,) for p in row.get("contains", ()))
    kind = ReplyKind.named(row["kind"])
    return Rule(
        kind,
        frozenset(row.get("codes", ())),
        pieces,
        frozenset(Family(name) for name in row.get("families", ())),
        frozenset(Family(name) for name in row.get("unless_families", ())),
        frozenset(row.get("methods", ())),
        kind.effect is not Effect.NONE or kind.counts in (Outcome.FAILURE, Outcome.THROTTLED),
    )


@functools.cache
def rules_for(name: str) -> Rules:
    """The rules of a data file in ``gateway/dialect/errors``."""
    folder = files("gateway.dialect").joinpath("errors")
    table = json.loads(folder.joinpath(f"{name}.json").read_text("utf-8"))
    return Rules(table, json.loads(folder.joinpath("http.json").read_text("utf-8")))

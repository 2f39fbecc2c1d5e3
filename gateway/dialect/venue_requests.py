"""Requests to exchanges: bytes in, a call with its class, weight and facts out.

Always true: `call` never raises, whatever came; what a venue's file does not list gets the strictest class
its verb allows, and so does a listed path in another spelling; a request that carries credentials is
never shared; the bytes are looked at and never changed.
Exchanges put everything into method, path, query, headers or body, each in its own way; what a policy needs
of that is collected here, and what is needed rarely (a client's order id, the end of a signature's life)
only when it is asked for.
Does not belong here: what an answer means (venue_answers), and anything that is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import msgspec

from gateway.dialect.instants import UNITS, instant
from gateway.dialect.venue import Rest, Use, Venue
from gateway.model import Call, Family, Method, RequestClass

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, as they came."""

MAX_LOOKED_AT = 262_144  # bytes of a body that is searched for members; orders are a thousandth of it
MAX_FACT = 128  # characters of a client's order id or a symbol that are repeated
_CREDENTIALS = frozenset({b"authorization", b"cookie"})
_OVERRIDES = frozenset({b"x-http-method-override", b"x-method-override", b"x-http-method"})
_NEVER_SHARED = frozenset({b"range", b"if-none-match", b"if-modified-since", b"cache-control", b"pragma"})
_READS = (b"GET", b"HEAD")
OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """One entry of a venue's file, ready for use.  `charges`: (limit, each, share of the weight or 0 for one)."""

    rest: Rest
    method: Method
    charges: tuple[tuple[str, str, float], ...]
    weight: float


@dataclass(slots=True, eq=False)
class VenueCall(Call):
    """One request to an exchange.  `headers` have names in lower case; `target` is path and query as sent."""

    verb: bytes = b"GET"
    target: bytes = b"/"
    headers: Headers = ()
    body: bytes = b""
    listed: Listed | None = None
    account: str = ""  # a digest that names the key; empty: none was sent
    signed: bool = False
    weight: float = 1.0

    @property
    def about_the_head(self) -> bool:
        """Exchanges have no blocks; whose data stand still is a fact of its own."""
        return False

    @property
    def use(self) -> Use | None:
        """What it is for; None: not listed."""
        return self.listed.rest.use if self.listed is not None else None

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")


class Requests:
    """Reads the requests of one venue."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self._exact: dict[tuple[bytes, bytes], Listed] = {}
        self._patterns: dict[tuple[bytes, int], list[tuple[list[bytes], Listed]]] = {}
        self._says = {path.encode(): member for path, member in venue.body_says.items()}
        for rest in venue.calls:
            for call in rest.do:
                self._list(call, rest)
        signing = venue.signing
        self._keys = (
            frozenset(name.encode() for name in signing.key if name[:1] not in "?{") if signing else frozenset()
        )
        marks = signing.marks if signing else ()
        self._marks = frozenset(name.encode() for name in marks if name[:1] not in "?{")
        self._marked = tuple(name[1:].encode() + b"=" for name in marks if name[:1] == "?")
        self._secret = self._keys | self._marks | _CREDENTIALS
        self._vary = frozenset(name.encode() for name in (*venue.vary, "accept-encoding", "accept"))
        self._others = {
            (verb, signed): Listed(Rest(do=(), use=Use.INFO), _unlisted(verb), _charges(venue, None, signed), 1.0)
            for verb in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"")
            for signed in (False, True)
        }

    def _list(self, call: str, rest: Rest) -> None:
        verb, _, path = call.partition(" ")
        bare, _, says = path.partition("#")
        listed = Listed(
            rest,
            Method(call, rest.use.request_class, rest.use.family, cost=max(1, round(rest.weight))),
            _charges(self.venue, rest, rest.use not in (Use.MARKET, Use.INFO)),
            rest.weight,
        )
        key = path.encode() if says else bare.encode()
        if "{" in bare:
            segments = [b"" if part.startswith("{") else part.encode() for part in bare.split("/")]
            self._patterns.setdefault((verb.encode(), len(segments)), []).append((segments, listed))
        else:
            self._exact[verb.encode(), key] = listed

    @property
    def listed(self) -> list[Listed]:
        """Every entry, for tests and pages."""
        return [*self._exact.values(), *(item for items in self._patterns.values() for _, item in items)]

    def call(self, verb: bytes, target: bytes, headers: Headers, body: bytes) -> VenueCall:
        """The call of a request.  `verb` in capitals, `target` as it came."""
        path, _, query = target.partition(b"?")
        account, signed, strict = "", False, False
        for name, value in headers:
            if name in self._secret:
                signed = True
                if name in self._keys:
                    account = account_of(value)
            elif name in _OVERRIDES:
                strict = True
        if not signed and self._marked and (query or body):
            signed = any(mark in query or mark in body[:MAX_LOOKED_AT] for mark in self._marked)
        listed = None if strict else self._find(b"GET" if verb == b"HEAD" else verb, path, body)
        if listed is None:
            listed = self._others.get((verb, signed)) or self._others[b"", signed]
            if strict:
                listed = self._others[b"POST", signed]
        method = listed.method
        call = VenueCall(method, b"", None, method.request_class)
        call.verb, call.target, call.headers, call.body = verb, target, headers, body
        call.account, call.signed = account, signed
        call.weight = listed.weight
        if method.known:
            call.listed = listed
            if listed.rest.steps:
                call.weight = self._weight(listed.rest, query)
        return call

    def charges(self, call: VenueCall) -> list[tuple[str, str, float]]:
        """What it costs: (limit, whose share of it, amount)."""
        listed = call.listed or self._others.get((call.verb, call.signed)) or self._others[b"", call.signed]
        made = []
        for name, each, factor in listed.charges:
            key = "" if not each else listed.method.name if each == "path" else call.account
            made.append((name, key, call.weight if factor else 1.0))
        return made

    def share_key(self, call: VenueCall) -> tuple[object, ...] | None:
        """What makes two public reads the same; None: it is not to be shared."""
        listed = call.listed
        if listed is None or not listed.rest.fresh_for or call.signed or call.verb == b"HEAD":
            return None
        vary = []
        for name, value in call.headers:
            if name in _NEVER_SHARED:
                return None
            if name in self._vary:
                vary.append((name, value))
        return (call.target, call.body, *vary)

    def expires_at(self, call: VenueCall) -> float | None:
        """Until when the signature is good, in unix seconds; None: it has no time, or none that can be read."""
        signing = self.venue.signing
        if signing is None or not call.signed or not signing.timestamp or not signing.window:
            return None
        stamp = instant(self.fact(call, signing.timestamp), signing.unit)
        if stamp is None:
            return None
        try:
            window = float(self.fact(call, signing.window_at)) / UNITS[signing.window_unit]
        except ValueError:
            window = 0.0
        return stamp + (window if 0 < window < 3600 else signing.window)

    def ordered_by(self, call: VenueCall) -> str:
        """The account whose calls must arrive in their order; empty: order does not matter."""
        signing = self.venue.signing
        return call.account if signing is not None and signing.nonce and call.signed else ""

    def found_by(self, call: VenueCall) -> str:
        """The request that tells what became of a write; empty: the file knows none."""
        if call.listed is None:
            return ""
        rest = call.listed.rest
        client_id = self.fact(call, rest.client_id) if rest.client_id else ""
        template = rest.found_by if client_id and rest.found_by else rest.listed_by
        symbol = self.fact(call, rest.symbol) if rest.symbol else ""
        text = template.replace("{client_id}", _plain(client_id)).replace("{symbol}", _plain(symbol))
        return "" if not text.isascii() else text

    def fact(self, call: VenueCall, place: str) -> str:
        """What stands at a place of a request (see `venue.Signing`); empty: nothing, or nothing readable."""
        if not place:
            return ""
        if place[0] == "?":
            name = place[1:].encode()
            for text in (call.target.partition(b"?")[2], call.body[:MAX_LOOKED_AT]):
                for pair in text.split(b"&"):
                    key, equals, value = pair.partition(b"=")
                    if equals and key == name:
                        return unquote_plus(value.decode("latin-1"))[:MAX_FACT]
            return self.fact(call, "{" + place[1:] + "}") if call.body[:1] == b"{" else ""
        if place[0] == "{":
            return _member(call.body, place[1:-1])
        name = place.encode()
        return next((value.decode("latin-1")[:MAX_FACT] for key, value in call.headers if key == name), "")

    def _find(self, verb: bytes, path: bytes, body: bytes) -> Listed | None:
        says = self._says.get(path)
        if says is not None:
            found = self._exact.get((verb, path + b"#" + _member(body, says).encode("ascii", "replace")))
            return found or self._exact.get((verb, path + b"#*")) or self._exact.get((verb, path))
        found = self._exact.get((verb, path))
        if found is not None or not self._patterns:
            return found
        parts = path.split(b"/")
        for segments, listed in self._patterns.get((verb, len(parts)), ()):
            if all(part if not segment else segment == part for segment, part in zip(segments, parts, strict=True)):
                return listed
        return None

    def _weight(self, rest: Rest, query: bytes) -> float:
        """The weight by the parameters; what cannot be read counts as the heaviest."""
        given = dict(pair.partition(b"=")[::2] for pair in query.split(b"&"))
        for step in rest.steps:
            if step.without:
                if not given.get(step.without.encode()):
                    return step.weight
                continue
            value = given.get(step.over.encode())
            if value is None:
                continue
            try:
                if float(value) > step.above:
                    return step.weight
            except ValueError:
                return max(step.weight for step in rest.steps)
        return rest.weight


def account_of(key: bytes) -> str:
    """A name for a key that tells nothing of it."""
    return hashlib.blake2b(key, digest_size=9).hexdigest()


def _unlisted(verb: bytes) -> Method:
    """A request that no file lists: a read is asked once, anything else is a write."""
    if verb in _READS or verb == b"OPTIONS":
        return Method(OTHER, RequestClass.UNKNOWN, Family.OTHER, known=False)
    return Method(OTHER, RequestClass.VENUE_WRITE, Family.OTHER, known=False)


def _charges(venue: Venue, rest: Rest | None, signed: bool) -> tuple[tuple[str, str, float], ...]:
    """The limits that a call counts against."""
    made = []
    for limit in venue.limits:
        orders = rest is not None and rest.use in (Use.ORDER, Use.CANCEL, Use.WALLET)
        meant = {"all": True, "public": not signed, "signed": signed, "orders": orders}[limit.on]
        if meant:
            made.append((limit.name, limit.each, 1.0 if limit.counts == "weight" else 0.0))
    return tuple(made)


def _member(body: bytes, place: str) -> str:
    """A member of a JSON body, by dotted names; a number stands for a position in a list."""
    if len(body) > MAX_LOOKED_AT:
        return ""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return ""
    for name in place.split("."):
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            return ""
    if isinstance(found, bool) or not isinstance(found, (str, int, float)):
        return ""
    return str(found)[:MAX_FACT]


def _plain(text: str) -> str:
    """A caller's own word inside a header of ours: only what can stand in a query as it is."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.~:/") else f"%{b:02X}" if (b := ord(c)) < 256 else "_"
                   for c in text)  # fmt: skip

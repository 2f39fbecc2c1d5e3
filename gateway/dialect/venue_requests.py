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

import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_plus, unquote_to_bytes

from gateway.dialect.instants import UNITS, instant
from gateway.dialect.places import decoded, found_at
from gateway.dialect.venue import Rest, Use, Venue
from gateway.model import Call, Family, Method, RequestClass

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, as they came."""

MAX_LOOKED_AT = 262_144  # bytes of a body that is searched for members; orders are a thousandth of it
LONGEST_SHARED = 4096  # bytes of a request that is shared; its answer is kept under them
MAX_FACT = 128  # characters of a client's order id or a symbol that are repeated
_CREDENTIALS = frozenset({b"authorization", b"cookie"})
_OVERRIDES = frozenset({b"x-http-method-override", b"x-method-override", b"x-http-method"})
_NEVER_SHARED = frozenset({b"range", b"if-none-match", b"if-modified-since", b"cache-control", b"pragma"})
_READS = (b"GET", b"HEAD")
_SEGMENT = re.compile(rb"(?!\.{1,2}\Z)[A-Za-z0-9_.~:@$!*,=+-]+\Z")  # nothing that a server could read as another path
_BRACES = re.compile(r"\{(/?\w+)\}")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """One entry of a venue's file, ready for use.  `charges`: (limit, each, share of the weight or 0 for one)."""

    rest: Rest
    method: Method
    charges: tuple[tuple[str, str, float], ...]
    weight: float
    private: bool = False  # it needs a signature, wherever that stands


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
    def write(self) -> bool:
        """May change something at the venue.  A read that no file lists is asked once, and changes nothing."""
        return self.request_class is RequestClass.VENUE_WRITE

    @property
    def scopes(self) -> tuple[str, str, str]:
        """The names under which it may have been told to wait."""
        return self.method.name, self.account, f"{self.method.name} {self.account}"

    def scope(self, each: str) -> str | None:
        """Whom an answer to it tells to wait (`venue.ErrorRule.each`).

        Empty: everybody; None: an account that cannot be told from others.  What a path allows is counted for each
        account where one asks, so that nobody waits for a neighbour.
        """
        path, account, both = self.scopes
        if not each or (each == "account" and not self.signed):
            return ""
        if each == "account":
            return account or None
        return both if self.signed else path

    @property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")


class Requests:
    """Reads the requests of one venue."""

    def __init__(self, venue: Venue) -> None:
        self.venue = venue
        self._exact: dict[tuple[bytes, bytes], Listed] = {}
        self._patterns: dict[tuple[bytes, int], list[tuple[list[bytes | None], Listed]]] = {}
        self._says = {path.encode(): member for path, member in venue.body_says.items()}
        for rest in venue.calls:
            for call in rest.do:
                self._list(call, rest)
        signing = venue.signing
        places = (name.partition("{") for name in signing.key) if signing else ()
        self._keys = {name.encode(): member.rstrip("}") for name, _, member in places if name and name[:1] != "?"}
        marks = signing.marks if signing else ()
        self._marks = frozenset(name.encode() for name in marks if name[:1] not in "?{")
        self._marked = tuple(name[1:].encode() + b"=" for name in marks if name[:1] == "?")
        self._secret = self._keys.keys() | self._marks | _CREDENTIALS
        self._vary = frozenset(name.encode() for name in (*venue.vary, "accept-encoding", "accept"))
        self._others = {
            (verb, signed): Listed(Rest(do=(), use=Use.INFO), _unlisted(verb), _charges(venue, None, signed), 1.0)
            for verb in (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"")
            for signed in (False, True)
        }

    def _list(self, call: str, rest: Rest) -> None:
        verb, _, path = call.partition(" ")
        bare, _, says = path.partition("#")
        private = rest.use not in (Use.MARKET, Use.INFO)
        listed = Listed(
            rest,
            Method(
                call,
                rest.use.request_class,
                Family(rest.family) if rest.family else rest.use.family,
                cost=max(1, round(rest.weight)),
            ),
            _charges(self.venue, rest, private),
            rest.weight,
            private,
        )
        key = path.encode() if says else bare.encode()
        if "{" in bare:
            segments = [None if part.startswith("{") else part.encode() for part in bare.split("/")]
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
                member = self._keys.get(name)
                if member is not None:
                    named = _inside(value, member) if member else ""
                    account = account_of(named.encode() if named else value)
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
            call.signed = signed or listed.private
            if listed.rest.steps:
                call.weight = self._weight(listed.rest, query)
        return call

    def likenesses(self, call: VenueCall) -> list[Method]:
        """What an unlisted call might be to a venue that is not strict about spelling: a policy denies these, too."""
        plain = plain_path(call.target)
        found = (self._find(call.verb, spelling, call.body) for spelling in (plain, plain.lower()))
        return [listed.method for listed in found if listed is not None]

    def charges(self, call: VenueCall) -> list[tuple[str, str, float]]:
        """What it costs: (limit, whose share of it, amount)."""
        listed = call.listed or self._others.get((call.verb, call.signed)) or self._others[b"", call.signed]
        made = []
        for name, each, factor in listed.charges:
            key = ""
            if each == "path":
                key = listed.method.name
            elif each:
                key = call.account if each == "account" else f"{listed.method.name} {call.account}"
                if each == "symbol":
                    key += f" {self.fact(call, listed.rest.symbol)}"
            made.append((name, key, call.weight if factor else 1.0))
        return made

    def share_key(self, call: VenueCall) -> tuple[object, ...] | None:
        """What makes two public reads the same; None: it is not to be shared."""
        listed = call.listed
        if listed is None or not listed.rest.fresh_for or call.signed or call.verb == b"HEAD":
            return None
        vary = []
        size = len(call.target) + len(call.body)
        for name, value in call.headers:
            if name in _NEVER_SHARED:
                return None
            if name in self._vary:
                vary.append((name, value))
                size += len(value)
        return (call.target, call.body, *vary) if size <= LONGEST_SHARED else None

    def expires_at(self, call: VenueCall) -> float | None:
        """Until when the signature is good, in unix seconds; None: it has no time, or none that can be read."""
        signing = self.venue.signing
        if signing is None or not call.signed:
            return None
        ends = []
        until = instant(self.fact(call, signing.until), signing.until_unit)
        if until is not None:
            ends.append(until)
        stamp = instant(self.fact(call, signing.timestamp), signing.unit) if signing.window else None
        if stamp is not None:
            try:
                window = float(self.fact(call, signing.window_at)) / UNITS[signing.window_unit]
            except ValueError:
                window = 0.0
            ends.append(stamp + (window if 0 < window < 3600 else signing.window))
        return min(ends, default=None)

    def ordered_by(self, call: VenueCall) -> str:
        """The account whose calls must arrive in their order; empty: order does not matter."""
        signing = self.venue.signing
        return call.account if signing is not None and signing.nonce and call.signed else ""

    def found_by(self, call: VenueCall) -> str:
        """The request that tells what became of a write; empty: the file knows none."""
        if call.listed is None:
            return ""
        rest = call.listed.rest
        client_id = self.fact(call, rest.client_id)
        template = rest.found_by if client_id and rest.found_by else rest.listed_by
        places = {"client_id": rest.client_id, "symbol": rest.symbol}

        def filled(found: re.Match[str]) -> str:
            name = found[1]
            return _plain(self.fact(call, places.get(name, name if name[0] == "/" else f"?{name}")))

        text = _BRACES.sub(filled, template)
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
        if place[0] == "/":
            return ([*call.path.split("/"), *[""] * 9][int(place[1:])])[:MAX_FACT]
        place, _, member = place.partition("{")
        name = place.encode()
        found = next((value for key, value in call.headers if key == name), b"")
        return _inside(found, member.rstrip("}")) if member else found.decode("latin-1")[:MAX_FACT]

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
            pairs = zip(segments, parts, strict=True)
            if all(_SEGMENT.match(part) if segment is None else segment == part for segment, part in pairs):
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


def plain_path(target: bytes) -> bytes:
    """The path of a target, spelled as plainly as a lenient server might take it."""
    path = target.partition(b"?")[0]
    for _ in range(3):
        path = unquote_to_bytes(path)
    parts: list[bytes] = []
    for part in path.partition(b";")[0].split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/" + b"/".join(parts)


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
        orders = rest is not None and rest.use is Use.ORDER
        meant = {"all": True, "public": not signed, "signed": signed, "orders": orders}[limit.on]
        if meant:
            made.append((limit.name, limit.each, 1.0 if limit.counts == "weight" else 0.0))
    return tuple(made)


def _inside(value: bytes, place: str) -> str:
    """A member of the JSON that a header holds in base64, or of a bearer token's claims; empty: it is not there."""
    text = value.rpartition(b" ")[2]
    if text.count(b".") == 2:
        text = text.split(b".")[1]  # RFC 7519: header, claims, signature
    try:
        return _member(binascii.a2b_base64(text.translate(_URL_SAFE) + b"=" * (-len(text) % 4)), place)
    except binascii.Error:
        return ""


def _member(body: bytes, place: str) -> str:
    """A text or number in a JSON body; empty: it is not there."""
    found = found_at(decoded(body, MAX_LOOKED_AT), place)
    if isinstance(found, bool) or not isinstance(found, (str, int, float)):
        return ""
    return str(found)[:MAX_FACT]


def _plain(text: str) -> str:
    """A caller's own word inside a header of ours: only what can stand in a query as it is."""
    return quote(text, safe="-_.~:/", errors="replace")

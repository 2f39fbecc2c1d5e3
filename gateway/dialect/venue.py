"""Venues: what the data files say of each exchange, as values that cannot contradict themselves.

Always true: a `Venue` that exists is legal (names refer to what exists, numbers are in their bounds,
patterns can be matched); a file is refused with its path in the file and what was expected; an exchange is
a file and no code, and a user's own file is read like the bundled ones.  Facts that nobody has confirmed are
data here for that reason: whoever knows better changes a file.
Does not belong here: what a request or an answer means (dialect/venue_requests, venue_answers).
"""

from __future__ import annotations

import enum
import functools
import re
from importlib.resources import files
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.dialect.venue_facts import Host, NotNegative, Positive, Streams, Target, Text, contradictions_of_streams
from gateway.model import Family, RequestClass

_CALL = re.compile(r"(GET|POST|PUT|PATCH|DELETE) (/[A-Za-z0-9_.~{}/-]*)(#[A-Za-z0-9_*]+)?\Z")


class Use(enum.Enum):
    """What a call is for; decides its class, its family and its turn when the rate is short."""

    MARKET = "market"  # public data that ages: tickers, books, trades
    INFO = "info"  # other public data: symbols, time, status
    ACCOUNT = "account"  # signed reads: balances, open orders
    ORDER = "order"  # places, changes or cancels
    CANCEL = "cancel"  # takes orders away: first of all when the rate is short
    WALLET = "wallet"  # withdrawals and transfers: as strict as orders
    SESSION = "session"  # keys and tokens of streams: a write, without consequences for money

    @property
    def request_class(self) -> RequestClass:
        if self in (Use.MARKET, Use.INFO):
            return RequestClass.HEAD_READ
        return RequestClass.VENUE_SIGNED_READ if self is Use.ACCOUNT else RequestClass.VENUE_WRITE

    @property
    def family(self) -> Family:
        return _FAMILIES[self]


_FAMILIES = {
    Use.MARKET: Family.MARKET,
    Use.INFO: Family.MARKET,
    Use.ACCOUNT: Family.ACCOUNT,
    Use.ORDER: Family.ORDER,
    Use.CANCEL: Family.ORDER,
    Use.WALLET: Family.WALLET,
    Use.SESSION: Family.ACCOUNT,
}


class Word(enum.Enum):
    """What an answer of a venue says.  The unknown case comes first."""

    UNKNOWN = "unknown"  # whether it was executed cannot be told
    ANSWER = "answer"
    REFUSED = "refused"  # the venue's own no: funds, filters, an order that is not there
    DUPLICATE = "duplicate"  # this client order id is there already
    INVALID = "invalid"  # key, signature or parameters: not executed
    CLOCK = "clock"  # outside the timestamp's window: not executed
    THROTTLED = "throttled"  # too many: not executed, everybody waits
    BUSY = "busy"  # overloaded, not counted against us: not executed
    BANNED = "banned"  # nobody asks before it ends
    FAILED = "failed"  # surely not executed; another host or a moment later may do
    MAINTENANCE = "maintenance"
    REGION = "region"  # not served from where we are


class RestHost(Struct, frozen=True, forbid_unknown_fields=True):
    """A host that serves calls.  `serves` empty: all of them; else only these families."""

    host: Host
    serves: tuple[str, ...] = ()
    cloud: str = ""
    region: str = ""
    edge: str = ""
    tier: Annotated[int, Meta(ge=0, le=9)] = 0


class Signing(Struct, frozen=True, forbid_unknown_fields=True):
    """How a signed request is recognised, and how long it lives.

    Places are ``?name`` (a parameter of query or form), ``name`` (a header), ``{name}`` (a member of a
    JSON body), ``name{member}`` (of the JSON inside a header: base64, or a token's claims) or ``/2`` (the second
    segment of the path).  `units` of the timestamp: ms, s, iso.  `window` in seconds is what holds when the
    request names none at `window_at` (there in `window_unit`).  `until` is where a caller may say itself after
    which instant the venue shall refuse it.  `nonce`: the number must rise with each request of a key, so order is
    kept and nothing is ever sent again.
    """

    key: tuple[str, ...]
    marks: tuple[str, ...]
    timestamp: str = ""
    unit: str = "ms"
    window: NotNegative = 0.0
    window_at: str = ""
    window_unit: str = "ms"
    until: str = ""
    until_unit: str = "ms"
    nonce: bool = False


class Limit(Struct, frozen=True, forbid_unknown_fields=True):
    """A rate limit.  `amount` within `window` seconds.

    `counts`: weight or calls.  `on`: all, public, signed or orders (what places or changes one, but never what
    takes one away).  `each`: one for all (empty), for each path, for each account, for both, or for these and each
    symbol.  `header` tells the amount used (or left, by `says`); `of` is the header of the whole that it is left
    of, where accounts differ: what counts is the share of it.
    """

    name: Text
    amount: Positive
    window: Positive
    counts: str = "weight"
    on: str = "all"
    each: str = ""
    header: str = ""
    says: str = "used"
    of: str = ""


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """A weight that depends on a parameter: `over` a number, or `without` it at all."""

    weight: NotNegative
    over: str = ""
    above: float = 0.0
    without: str = ""


class Rest(Struct, frozen=True, forbid_unknown_fields=True):
    """One call, or several that are treated alike.

    `do` are ``GET /path/{any}`` and, where the body names what is asked, ``POST /info#l2Book``.  `fresh_for` is
    how old a shared answer may be, in seconds; 0: never shared.  `client_id` and `symbol` are places like those
    of signing, in a write; `found_by` is the request that tells what became of it, with these two and other
    parameters of the write in braces.  `family` where the hosts that serve it are not those of its use.
    """

    do: tuple[str, ...]
    use: Use
    weight: NotNegative = 1.0
    steps: tuple[Step, ...] = ()
    fresh_for: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    client_id: str = ""
    symbol: str = ""
    found_by: str = ""
    listed_by: str = ""  # the same when the caller gave no client id
    family: str = ""


class ErrorRule(Struct, frozen=True, forbid_unknown_fields=True):
    """What certain answers mean.  All conditions given must hold; the first rule that fits wins.

    `status` is a number or ``5xx``; a code may end in ``*``; `text` is looked for in lower case.  `hold` is how
    many seconds one waits when the answer names no time, `least` whatever it names, and `each` who: everybody
    (empty), those who ask for the same path, or the account.
    """

    word: Word
    status: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    on: str = ""  # reads or writes
    hold: NotNegative = 0.0
    least: NotNegative = 0.0
    each: str = ""


class Errors(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a venue puts its errors.  Places are member names, one after the other: ``error.0``.

    `success` are the codes that mean none; `then` looks deeper, also into the answers to writes of several
    orders at once, whose members may have ended in different ways.  `wait` are headers that name the time to wait,
    with the unit of small numbers (ms or s; large ones are instants); `until_text` is what stands before it in a text.
    """

    rules: tuple[ErrorRule, ...] = ()
    code: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    success: tuple[str, ...] = ()
    inside_200: bool = False
    then: tuple[str, ...] = ()
    wait: dict[str, str] = {}
    until_text: str = ""


class Clock(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the venue tells its time."""

    target: Target
    at: Text
    unit: str = "ms"


class Pulse(Struct, frozen=True, forbid_unknown_fields=True):
    """A public answer that must move: the place of a number that rises while the market lives."""

    target: Target
    at: Text
    unit: str = "number"  # ms, s or iso: it is a time, and can be compared with the clock
    still_after: Positive = 30.0  # seconds without movement that are too long


class Status(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the venue says that it is at work on itself: what stands there is not `well`, and is something."""

    target: Target
    at: Text
    well: tuple[str, ...]
    every: Positive = 30.0


class Health(Struct, frozen=True, forbid_unknown_fields=True):
    """Calls nobody asked for.  `body` is sent as a POST where reads are POSTs."""

    ping: Target | None = None
    body: str = ""
    clock: Clock | None = None
    pulse: Pulse | None = None
    status: Status | None = None


class Venue(Struct, frozen=True, forbid_unknown_fields=True):
    """One exchange."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,40}$")]
    title: Text
    hosts: Annotated[tuple[RestHost, ...], Meta(min_length=1)]
    calls: tuple[Rest, ...]
    signing: Signing | None = None
    limits: tuple[Limit, ...] = ()
    errors: Errors = Errors()
    health: Health = Health()
    streams: Streams | None = None
    body_says: dict[str, str] = {}  # path -> the member of a JSON body that names what is asked
    vary: tuple[str, ...] = ()  # request headers that change a public answer
    rewrite: dict[str, str] = {}  # path -> the place of a WebSocket URL in its answer, which is made ours
    sources: tuple[str, ...] = ()


def read_venue(text: bytes | str) -> Venue:
    """The venue of a file's text.  Raises ValueError that names the place in the file and what was expected."""
    try:
        venue = msgspec.json.decode(text, type=Venue)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    for place, problem in _contradictions(venue):
        raise ValueError(f"{problem} - at `{place}`")
    return venue


@functools.cache
def venue_named(name: str) -> Venue | None:
    """A bundled venue; None: there is none of that name."""
    if name not in venue_names():
        return None
    venue = read_venue(files("gateway.dialect").joinpath("venues", f"{name}.json").read_bytes())
    if venue.name != name:
        raise ValueError(f"the file {name}.json describes {venue.name}")
    return venue


@functools.cache
def venue_names() -> tuple[str, ...]:
    """The bundled venues."""
    folder = files("gateway.dialect").joinpath("venues")
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json")))


def _contradictions(venue: Venue) -> list[tuple[str, str]]:
    """What no single value shows: (place, problem)."""
    found = []
    families = {family.value for family in Family}
    for i, host in enumerate(venue.hosts):
        found += [(f"$.hosts[{i}].serves", f"{f} is no family of calls") for f in host.serves if f not in families]
    taken: dict[str, int] = {}
    for i, rest in enumerate(venue.calls):
        place = f"$.calls[{i}]"
        if not rest.do:
            found.append((place, "names no call"))
        if rest.fresh_for and rest.use not in (Use.MARKET, Use.INFO):
            found.append((place, "only public answers can be shared"))
        for call in rest.do:
            if not _CALL.match(call):
                found.append((f"{place}.do", f"{call} is not of the form GET /path"))
            if taken.setdefault(call, i) != i:
                found.append((f"{place}.do", f"{call} is listed twice"))
            if rest.use is Use.ACCOUNT and call.startswith(("PUT", "PATCH", "DELETE")):
                found.append((f"{place}.do", f"{call} cannot be a read"))
        if rest.family and rest.family not in families:
            found.append((f"{place}.family", f"{rest.family} is no family of calls"))
    each = ("", "path", "account", "both", "symbol")
    limits = ("weight", "calls"), ("all", "public", "signed", "orders"), each, ("used", "left")
    for i, limit in enumerate(venue.limits):
        for name, allowed in zip(("counts", "on", "each", "says"), limits, strict=True):
            if getattr(limit, name) not in allowed:
                found.append((f"$.limits[{i}].{name}", f"expected one of {', '.join(allowed)}"))
    if venue.signing is not None and venue.signing.unit not in ("ms", "s", "iso", "us"):
        found.append(("$.signing.unit", "expected one of ms, s, us, iso"))
    found += [("$.errors.wait", f"{u} is neither ms nor s") for u in venue.errors.wait.values() if u not in ("ms", "s")]
    for i, rule in enumerate(venue.errors.rules):
        if rule.on not in ("", "reads", "writes"):
            found.append((f"$.errors.rules[{i}].on", "expected reads or writes"))
        if rule.each not in ("", "path", "account"):
            found.append((f"$.errors.rules[{i}].each", "expected path or account"))
        if not (rule.status or rule.codes or rule.text):
            found.append((f"$.errors.rules[{i}]", "has no condition, so that it would hide all rules behind it"))
    found += contradictions_of_streams(venue.streams) if venue.streams is not None else []
    return found

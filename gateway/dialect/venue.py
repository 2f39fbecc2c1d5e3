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

from gateway.model import Family, RequestClass

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1, max_length=400)]
Host = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:\d{1,5})?$")]
Target = Annotated[str, Meta(pattern=r"^/[!-~]*$", max_length=400)]
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

    Places are ``?name`` (a parameter of query or form), ``name`` (a header) or ``{name}`` (a member of a
    JSON body).  `units` of the timestamp: ms, s, iso.  `window` in seconds is what holds when the request
    names none at `window_at` (there in `window_unit`).  `nonce`: the number must rise with each request of
    a key, so order is kept and nothing is ever sent again.
    """

    key: tuple[str, ...]
    marks: tuple[str, ...]
    timestamp: str = ""
    unit: str = "ms"
    window: NotNegative = 0.0
    window_at: str = ""
    window_unit: str = "ms"
    nonce: bool = False


class Limit(Struct, frozen=True, forbid_unknown_fields=True):
    """A rate limit.  `amount` within `window` seconds.

    `counts`: weight or calls.  `on`: all, public, signed or orders.  `each`: one for all (empty), for each
    path, or for each account.  `header` tells the amount used (or left, by `says`).
    """

    name: Text
    amount: Positive
    window: Positive
    counts: str = "weight"
    on: str = "all"
    each: str = ""
    header: str = ""
    says: str = "used"


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
    of signing, in a write; `found_by` is the request that tells what became of it.
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


class ErrorRule(Struct, frozen=True, forbid_unknown_fields=True):
    """What certain answers mean.  All conditions given must hold; the first rule that fits wins.

    `status` is a number or ``5xx``; a code may end in ``*``; `text` is looked for in lower case.  `hold` is how
    many seconds one waits when the answer names no time, and `each` who: everybody (empty), those who ask for the
    same path, or the account.
    """

    word: Word
    status: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    on: str = ""  # reads or writes
    hold: NotNegative = 0.0
    each: str = ""


class Errors(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a venue puts its errors.  Places are member names, one after the other: ``error.0``.

    `success` are the codes that mean none; `then` looks deeper where the first code only says that there is
    more to see.  `wait` are headers or texts that name the time to wait.
    """

    rules: tuple[ErrorRule, ...] = ()
    code: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    success: tuple[str, ...] = ()
    inside_200: bool = False
    then: tuple[str, ...] = ()
    wait: tuple[str, ...] = ()
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


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """At most `amount` within `window` seconds."""

    amount: Positive
    window: Positive


class StreamHost(Struct, frozen=True, forbid_unknown_fields=True):
    """A host of WebSockets.  `paths` are the prefixes it serves, `private` those of them that are pinned.

    Hosts with the same `paths`, `private` and `speaks` stand in for each other; `speaks` tells those apart that have
    the same paths for different things.
    """

    host: Host
    paths: tuple[str, ...] = ("/",)
    private: tuple[str, ...] = ()
    speaks: str = ""
    cloud: str = ""
    region: str = ""
    edge: str = ""


class Topics(Struct, frozen=True, forbid_unknown_fields=True):
    """Topics that are alike.  `names` are theirs, ``*`` stands for anything; the first entry that fits counts.

    `rule` says how their messages are numbered (policy/sequences), at `first`, `last` and `previous` (places like
    those of errors); `snapshot` is the place=value that marks a message as the state's new beginning.
    `begins`: a subscription begins with the present state, so whoever joins late is given the newest message.
    `each`: every message counts, as with trades; where a line is lost, one may be missing and nobody can tell.
    """

    names: tuple[Text, ...]
    rule: str = "none"
    first: str = ""
    last: str = ""
    previous: str = ""
    snapshot: str = ""
    begins: bool = False
    each: bool = False


class Sharing(Struct, frozen=True, forbid_unknown_fields=True):
    """How public subscriptions are asked for and told, so that callers can share them.

    `connect` is the path of shared connections, `paths` those on which callers' subscriptions are shared.
    A request has its operation at `op` (`subscribe`, `unsubscribe`, `ping`, `lists`), its topics at `topics` (texts, or
    objects of exactly these `members`), its number at `id` (a text if `id_is_text`), and no more than `per_request`
    topics.  A message names its topic at `topic` and has what it tells at `data`, which callers on `bare` paths get
    alone.  `ack`, `ack_each`, `pong` and `listed` are what a caller is answered, with $id, $op, $topic and $topics; a
    caller that gave no number is given `no_id`, or no such member where that is empty.  `refused` are the place=value
    (or only the place) by which an answer to a request says no.
    What no entry of `kinds` names is not shared.
    """

    connect: Target
    paths: tuple[str, ...]
    op: Text
    subscribe: Text
    unsubscribe: Text
    topics: Text
    topic: Text
    data: Text = "data"
    kinds: tuple[Topics, ...] = ()
    members: tuple[str, ...] = ()
    id: str = ""
    id_is_text: bool = False
    no_id: str = ""
    bare: tuple[str, ...] = ()
    in_path: tuple[str, ...] = ()  # what stands before streams that a URL names: a path or "path?parameter="
    ack: str = ""
    ack_each: str = ""
    ping: str = ""
    pong: str = ""
    lists: str = ""
    listed: str = ""
    refused: tuple[str, ...] = ()
    per_connection: Annotated[int, Meta(ge=1)] = 200
    per_request: Annotated[int, Meta(ge=1)] = 100


class Streams(Struct, frozen=True, forbid_unknown_fields=True):
    """WebSockets.  `life` is how long the venue lets one live, `silent_for` how long it may say nothing (s).

    `connects` is how often one address may connect, `most_open` how many it may have open, `requests` how often may
    be asked on one connection.  `say` is sent every `every` seconds, because the venue wants to hear from its clients
    or so that it says something; `answer` is what comes back.  `announces` are pieces of messages that tell of a
    coming close.
    """

    hosts: tuple[StreamHost, ...]
    life: Positive = 86400.0
    silent_for: Positive = 60.0
    connects: Rate | None = None
    most_open: Annotated[int, Meta(ge=1)] | None = None
    requests: Rate | None = None
    say: str = ""
    every: NotNegative = 0.0
    answer: str = ""
    announces: tuple[str, ...] = ()
    sharing: tuple[Sharing, ...] = ()


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
    limits = ("weight", "calls"), ("all", "public", "signed", "orders"), ("", "path", "account"), ("used", "left")
    for i, limit in enumerate(venue.limits):
        for name, allowed in zip(("counts", "on", "each", "says"), limits, strict=True):
            if getattr(limit, name) not in allowed:
                found.append((f"$.limits[{i}].{name}", f"expected one of {', '.join(allowed)}"))
    if venue.signing is not None and venue.signing.unit not in ("ms", "s", "iso", "us"):
        found.append(("$.signing.unit", "expected one of ms, s, us, iso"))
    for i, rule in enumerate(venue.errors.rules):
        if rule.on not in ("", "reads", "writes"):
            found.append((f"$.errors.rules[{i}].on", "expected reads or writes"))
        if rule.each not in ("", "path", "account"):
            found.append((f"$.errors.rules[{i}].each", "expected path or account"))
        if not (rule.status or rule.codes or rule.text):
            found.append((f"$.errors.rules[{i}]", "has no condition, so that it would hide all rules behind it"))
    found += _contradictions_of_streams(venue.streams) if venue.streams is not None else []
    return found


RULES = ("none", "range", "previous", "next", "span", "rising")


def _contradictions_of_streams(streams: Streams) -> list[tuple[str, str]]:
    found = []
    if streams.say and not streams.every:
        found.append(("$.streams.every", "is needed with `say`"))
    for i, sharing in enumerate(streams.sharing):
        for j, kind in enumerate(sharing.kinds):
            place = f"$.streams.sharing[{i}].kinds[{j}]"
            if kind.rule not in RULES:
                found.append((f"{place}.rule", f"expected one of {', '.join(RULES)}"))
            needed = {"range": ("first",), "span": ("first",), "previous": ("previous",)}.get(kind.rule, ())
            missing = [name for name in (*needed, "last") if kind.rule != "none" and not getattr(kind, name)]
            found += [(f"{place}.{name}", f"is needed by the rule {kind.rule}") for name in missing]
    return found

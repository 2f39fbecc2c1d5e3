"""The words: what Seawall speaks of, and the closed sets it decides between.

Always true: a value of this module is immutable (the per-call `Call` excepted: it is built once
per request, on the hot path, and nobody writes to it afterwards) and knows no clock, no I/O, no
third-party package.  Every closed set of the design is an enum here, with the facts that policies
need as attributes, so that no policy needs a chain of comparisons.
Does not belong here: anything that decides (policy), parses (dialect) or holds live state (upstream).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class RequestClass(enum.Enum):
    """What may be done with a call.  Policies key on this, never on the HTTP method.

    `repeatable`: may go to another endpoint after bytes left.  `same_bytes`: a repeat must be the
    same bytes (broadcasts).  `max_endpoints`: how many endpoints may be handed the call in all
    (None: as many as the route's policy allows).  `last_resort`: may be sent to an endpoint that is
    believed broken when nothing better exists.  `looked_up`: an unknown outcome can be settled by
    asking for the locally computed transaction hash.
    """

    PINNED_READ = ("pinned_read", True, None, True)
    HEAD_READ = ("head_read", True, None, True)
    HIGHEST_READ = ("highest_read", True, None, True)
    HEAVY_READ = ("heavy_read", True, 2, True)
    BROADCAST = ("broadcast", True, None, False)
    PRIVATE_BROADCAST = ("private_broadcast", True, None, False)
    STATEFUL = ("stateful", False, 1, False)
    SIGNING = ("signing", False, 1, False)
    VENUE_WRITE = ("venue_write", False, 1, False)
    VENUE_SIGNED_READ = ("venue_signed_read", True, None, True)
    OPERATOR = ("operator", False, 1, False)
    UNKNOWN = ("unknown", False, 1, False)

    repeatable: bool
    max_endpoints: int | None
    last_resort: bool
    same_bytes: bool
    looked_up: bool
    write: bool

    def __new__(cls, label: str, repeatable: bool, max_endpoints: int | None, last_resort: bool) -> RequestClass:
        self = object.__new__(cls)
        self._value_ = label
        self.repeatable = repeatable
        self.max_endpoints = max_endpoints
        self.last_resort = last_resort
        self.looked_up = label in ("broadcast", "private_broadcast")
        self.same_bytes = self.looked_up or label == "venue_signed_read"
        self.write = self.looked_up or label in ("signing", "venue_write", "operator", "unknown")
        return self

    @classmethod
    def named(cls, label: str) -> RequestClass:
        """The member of a label in a data file.  Raises KeyError for one that is none."""
        return {member.value: member for member in cls}[label]


READS = frozenset(
    {RequestClass.PINNED_READ, RequestClass.HEAD_READ, RequestClass.HIGHEST_READ, RequestClass.HEAVY_READ}
)
"""What may be asked of several endpoints at once without doing anything twice."""


class Family(enum.Enum):
    """Methods that live and die together at a provider; the unit of health is endpoint x family."""

    OTHER = "other"  # first: every open set falls back to it
    HEAD = "head"  # newest block number, chain id, client version
    BLOCK = "block"  # blocks, transactions and receipts
    STATE = "state"  # balances, code, storage, calls, proofs
    LOGS = "logs"
    TRACE = "trace"  # trace_*, debug_trace*
    FEE = "fee"  # gas price, fee history, nonce
    SEND = "send"
    FILTER = "filter"  # server-side filters and subscriptions
    ADMIN = "admin"
    MARKET = "market"  # an exchange's public data
    ACCOUNT = "account"  # balances, open orders
    ORDER = "order"
    WALLET = "wallet"  # withdrawals, transfers

    slot: int

    def __new__(cls, label: str) -> Family:
        member = object.__new__(cls)
        member._value_ = label
        member.slot = len(cls.__members__)  # a small integer: health cells live in a list
        return member


class BlockRef(enum.Enum):
    """Which block a call is about, as far as its parameters say."""

    NONE = "none"
    LATEST = "latest"  # also pending, and a missing tag
    SAFE = "safe"
    FINALIZED = "finalized"
    EARLIEST = "earliest"
    NUMBER = "number"
    HASH = "hash"


class Rhythm(enum.Enum):
    """How a chain's blocks come: what makes a pause a halt."""

    SLOTS = "slots"  # by the clock: the block time is a promise
    CHANCE = "chance"  # by work: one gap in twenty is longer than three block times, one in nine million than sixteen
    DEMAND = "demand"  # when there is something to put in (development nodes), or nobody knows


class Outcome(enum.Enum):
    """How one attempt counts against its endpoint x family.  Exactly one per attempt."""

    SUCCESS = "success"
    FAILURE = "failure"
    SOFT_FAILURE = "soft_failure"  # less evidence than a failure: the request may be at fault
    THROTTLED = "throttled"  # moves the rate budget, never the breaker
    IGNORED = "ignored"  # says nothing about the endpoint


class Sent(enum.Enum):
    """How far one attempt's request got: the fact that decides whether a repeat is safe."""

    NOT_SENT = "not_sent"  # provably no byte of it left
    PARTLY = "partly"  # some bytes left; the upstream cannot have the whole request
    SENT = "sent"  # all bytes left, no answer came
    ANSWERED = "answered"


class Elsewhere(enum.Enum):
    """Is it worth asking another endpoint?"""

    NO = "no"
    ONCE = "once"  # the request may be at fault: one other opinion is enough
    YES = "yes"


class Effect(enum.Enum):
    """What an outcome does to the endpoint besides moving its breaker."""

    NONE = "none"
    HOLD = "hold"  # no traffic until Retry-After (or a growing hold-off) has passed
    EXCLUDE = "exclude"  # out until a probe succeeds: key refused, quota used up, gone
    UNSUPPORTED = "unsupported"  # this method is not asked of this endpoint for a while


class Shown(enum.Enum):
    """What the caller sees when this is the last word."""

    ANSWER = "answer"  # the upstream's answer, as it is
    UPSTREAM_ERROR = "upstream_error"  # the upstream's own error object, secrets removed
    GATEWAY_ERROR = "gateway_error"  # ours: the upstream's words would mislead or leak
    TRANSACTION_HASH = "transaction_hash"


class ReplyKind(enum.Enum):
    """What an upstream's reply means.  Three separate answers each: try elsewhere? count? shown?

    The members mirror what gateways, vendors and node clients answer in the wild; UNCLASSIFIED is
    the unknown case and comes first: one other opinion, a soft failure, the upstream's own words.
    """

    UNCLASSIFIED = ("unclassified", Elsewhere.ONCE, Outcome.SOFT_FAILURE, Effect.NONE, Shown.UPSTREAM_ERROR)
    ANSWER = ("answer", Elsewhere.NO, Outcome.SUCCESS, Effect.NONE, Shown.ANSWER)
    REFUSAL = ("refusal", Elsewhere.NO, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)  # an application's "no"
    INVALID_REQUEST = ("invalid_request", Elsewhere.NO, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)
    BAD_REQUEST = ("bad_request", Elsewhere.ONCE, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)  # HTTP 400
    TX_KNOWN = ("tx_known", Elsewhere.NO, Outcome.SUCCESS, Effect.NONE, Shown.TRANSACTION_HASH)
    NONCE_TOO_LOW = ("nonce_too_low", Elsewhere.NO, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)
    SENDER_LIMIT = ("sender_limit", Elsewhere.NO, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)
    POOL_FULL = ("pool_full", Elsewhere.YES, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)
    THROTTLED = ("throttled", Elsewhere.YES, Outcome.THROTTLED, Effect.HOLD, Shown.GATEWAY_ERROR)
    QUOTA = ("quota", Elsewhere.YES, Outcome.THROTTLED, Effect.EXCLUDE, Shown.GATEWAY_ERROR)
    KEY_REFUSED = ("key_refused", Elsewhere.YES, Outcome.IGNORED, Effect.EXCLUDE, Shown.GATEWAY_ERROR)
    GONE = ("gone", Elsewhere.YES, Outcome.IGNORED, Effect.EXCLUDE, Shown.GATEWAY_ERROR)  # 404, 410
    WRONG_CHAIN = ("wrong_chain", Elsewhere.YES, Outcome.IGNORED, Effect.EXCLUDE, Shown.GATEWAY_ERROR)
    UNSUPPORTED = ("unsupported", Elsewhere.YES, Outcome.IGNORED, Effect.UNSUPPORTED, Shown.UPSTREAM_ERROR)
    MISSING_DATA = ("missing_data", Elsewhere.YES, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)
    RANGE_TOO_LARGE = ("range_too_large", Elsewhere.YES, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)
    NODE_TIMEOUT = ("node_timeout", Elsewhere.ONCE, Outcome.SOFT_FAILURE, Effect.NONE, Shown.UPSTREAM_ERROR)
    SERVER_FAULT = ("server_fault", Elsewhere.YES, Outcome.FAILURE, Effect.NONE, Shown.GATEWAY_ERROR)
    BAD_REPLY = ("bad_reply", Elsewhere.YES, Outcome.FAILURE, Effect.NONE, Shown.GATEWAY_ERROR)  # not what was asked
    EMPTY = ("empty", Elsewhere.ONCE, Outcome.SUCCESS, Effect.NONE, Shown.ANSWER)  # a second opinion is worth it
    ODD = ("odd", Elsewhere.ONCE, Outcome.IGNORED, Effect.NONE, Shown.ANSWER)  # unlikely; somebody else may know better
    BEHIND = ("behind", Elsewhere.YES, Outcome.IGNORED, Effect.NONE, Shown.ANSWER)  # older than what callers have seen
    UNCOVERED = ("uncovered", Elsewhere.YES, Outcome.IGNORED, Effect.NONE, Shown.GATEWAY_ERROR)  # beyond its head
    MAINTENANCE = ("maintenance", Elsewhere.YES, Outcome.IGNORED, Effect.NONE, Shown.UPSTREAM_ERROR)  # an exchange's
    WRONG_DATA = ("wrong_data", Elsewhere.YES, Outcome.FAILURE, Effect.NONE, Shown.GATEWAY_ERROR)  # impossible values

    elsewhere: Elsewhere
    counts: Outcome
    effect: Effect
    shown: Shown

    def __new__(cls, label: str, elsewhere: Elsewhere, counts: Outcome, effect: Effect, shown: Shown) -> ReplyKind:
        self = object.__new__(cls)
        self._value_ = label
        self.elsewhere = elsewhere
        self.counts = counts
        self.effect = effect
        self.shown = shown
        return self

    @classmethod
    def named(cls, label: str) -> ReplyKind:
        """The member of a label in a data file.  Raises KeyError for one that is none."""
        return {member.value: member for member in cls}[label]


class Reason(enum.Enum):
    """Why an endpoint was not chosen.  Every one of them ends by itself, by a probe, or (drained) by an operator."""

    DRAINED = "drained"
    WRONG_CHAIN = "wrong_chain"
    FORKED = "forked"  # on another branch than most, at depth
    IMPLAUSIBLE_HEAD = "implausible_head"  # claims a block that cannot be there yet
    DISTRUSTED = "distrusted"  # audits found it contradicting two others
    UNVERIFIED = "unverified"  # not reached since the start: its chain is not known yet
    EXCLUDED = "excluded"  # key refused, quota used up, or gone
    BREAKER_OPEN = "breaker_open"
    PROBING = "probing"  # half-open, and its one probe is out
    HELD = "held"  # throttled: Retry-After or hold-off
    NO_BUDGET = "no_budget"  # its provider's rate budget is spent for now
    STILL = "still"  # its public data have not moved while those of others have
    LAGGING = "lagging"  # behind the newest block, and the call is about that
    NO_SUCH_BLOCK = "no_such_block"  # the call is about a block that it does not have, or no longer
    DOMAIN_SUSPECTED = "domain_suspected"  # healthy, but others that fail together with it are down
    UNSUPPORTED = "unsupported"  # method not offered there
    NOT_PRIVATE = "not_private"  # the route has private endpoints, and a transaction stays with them
    NO_SLOT = "no_slot"  # concurrency limit
    TRIED = "tried"  # already had this call
    LOWER_TIER = "lower_tier"  # healthy, but a better tier serves
    NOT_PREFERRED = "not_preferred"  # healthy, another one looked faster


@dataclass(frozen=True, slots=True)
class Method:
    """What a dialect knows of one method.

    `block_param` is the index of the parameter that names a block, or -1.  `cost` is in compute
    units relative to a plain head read (1).  `known` is False for a method outside the table: it is
    labelled `other` in metrics and gets the strictest class.
    """

    name: str
    request_class: RequestClass
    family: Family
    block_param: int = -1
    cost: int = 1
    cacheable: bool = False
    known: bool = True
    denied: bool = False
    answers_hash: bool = False  # the result is a transaction's hash, so ours may stand for it
    examined: bool = False  # its answers are looked into: they tell a head, a nonce or a chain, or may be wrongly empty
    wire: bytes = b""  # the method's name as a JSON string, ready to be sent

    @property
    def label(self) -> str:
        """The method as a metric label: closed set, unknown ones are ``other``."""
        return self.name if self.known else "other"


_PINNED_READ, _BY_HASH = RequestClass.PINNED_READ, BlockRef.HASH  # looked up once, for the hot path


@dataclass(slots=True, eq=False)
class Call:
    """One decoded request.  `id` holds the caller's own bytes (None: a notification).

    `low` and `high` are the lowest and the highest block number that it names (a log query names two);
    -1: none.  `part` is how many times it was cut from a larger one.  Not frozen: a frozen dataclass
    costs 1 us more to build and this is built for every request.
    """

    method: Method
    params: bytes  # raw JSON, or empty when the caller sent none
    id: bytes | None
    request_class: RequestClass
    block: BlockRef = BlockRef.NONE
    low: int = -1
    high: int = -1
    part: int = 0

    @property
    def about_the_head(self) -> bool:
        """Only an endpoint at the newest block answers it rightly."""
        return self.high < 0 and self.request_class is not _PINNED_READ and self.block is not _BY_HASH


@dataclass(frozen=True, slots=True)
class Reading:
    """A reply, read: its kind, the upstream's words, and what they teach.

    `result` is the raw JSON of the result; `error` the raw JSON of the upstream's error object.
    `detail` is a short, secret-free sentence for logs and traces.  `retry_after` is in seconds.
    """

    kind: ReplyKind
    result: bytes | memoryview | None = None
    error: bytes | None = None
    code: int | None = None
    detail: str = ""
    retry_after: float | None = None
    max_range: int | None = None  # eth_getLogs: the largest block range that it said it serves
    of_the_query: bool = False  # and that holds for this query, which finds too much, not for every one
    period: str | None = None  # of a used-up quota: second, minute, hour, day or month


@dataclass(frozen=True, slots=True)
class HeadReport:
    """One endpoint's word about its newest block.

    `hash` and `parent` are lower-case hex, empty when not said; `timestamp` is in seconds since 1970.
    """

    number: int
    hash: str = ""
    parent: str = ""
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """What an answer tells besides being one: facts that show whether it can be true.

    `head` is the endpoint's newest block, if the answer says; `final` the same of the newest finalized
    one.  `missing` says that what was asked for is not there (``null``, an empty list of logs); `last` is
    the highest block that a list of logs reaches: a node that is behind ends its list early.
    `wrong` says, in a few words, why it cannot be the answer to this call; empty: it can.  `odd` says why it
    should not be, on most chains.
    """

    head: HeadReport | None = None
    final: int | None = None
    nonce: int | None = None
    chain_id: int | None = None
    missing: bool = False
    last: int | None = None
    wrong: str = ""
    odd: str = ""


DOMAIN_LABELS = ("cloud", "region", "edge", "asn", "operator", "client", "account")
"""The labels whose values are failure domains, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One URL of a provider: the thing that is chosen, broken and drained.

    `id` is unique in the route and safe to show; the URL is not, and lives with the transport.
    `domains` maps a label (cloud, region, ...) to its value.  `tier` 0 is preferred; `weight` is a
    relative share inside a tier.  When a route has `private` endpoints, transactions are sent to
    those only: a public node would show them to the whole mempool.  A `standby` endpoint is asked
    nothing (no probe, no head) while others serve.  `serves` names the only families it serves; None: all.
    """

    id: str
    route: str
    provider: str
    tier: int = 0
    weight: float = 1.0
    domains: tuple[tuple[str, str], ...] = ()
    max_concurrency: int = 1024
    private: bool = False
    standby: bool = False
    serves: frozenset[Family] | None = None

    def shares_domain_with(self, other: Endpoint) -> bool:
        """True when one label has the same value for both: they can fail together."""
        return self.provider == other.provider or any(pair in other.domains for pair in self.domains)

    def shares_place_with(self, other: Endpoint) -> bool:
        """The same, whatever software they run: most of a chain's nodes run the same."""
        return self.provider == other.provider or any(
            pair in other.domains for pair in self.domains if pair[0] != "client"
        )


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One finished attempt, as told to callers, logs and traces (never with a URL)."""

    endpoint: str
    kind: str  # primary, retry, lookup, probe
    ended: str  # a ReplyKind value, or an upstream error's reason
    sent: Sent
    started_at: float
    ended_at: float
    detail: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

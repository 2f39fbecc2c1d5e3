"""The closed set of faults, and the script that decides which request meets which.

Always true: a fault is decided here and nowhere else, once per request and stage; every decision
that strikes is counted in `Script.fired`.  Time comes from the clock that `begin` was given and
chance from a generator seeded at construction, so a run can be repeated.
Does not belong here: what a fault looks like on the wire (plays), and sockets (provider).
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from gateway.clock import Clock
from gateway.model import Family


class Stage(enum.Enum):
    """When in a connection's life a fault is decided.  One request meets at most one fault per stage."""

    DOOR = "door"  # the listener; only windows of time apply
    ACCEPT = "accept"  # one decision per connection (over TLS: before the handshake)
    HEAD = "head"  # the head is read, the body not: rules for some methods never strike
    VIEW = "view"  # which chain, and as of when, the node answers from
    DELAY = "delay"
    ANSWER = "answer"


class Fault(enum.Enum):
    """Everything a provider can be told to do wrong (and a few harmless oddities).

    `performs`: the call takes effect (a broadcast reaches the chain) although the answer is spoilt.
    `amount` is what the fault can be tuned by, its default here, its unit in the description.
    """

    REFUSE = ("refuse", Stage.DOOR, False, "nothing listens, open connections are reset")
    CLOSE_ON_ACCEPT = ("close_on_accept", Stage.ACCEPT, False, "closes each new connection (FIN)")
    RESET_ON_ACCEPT = ("reset_on_accept", Stage.ACCEPT, False, "resets each new connection (RST)")
    HANG_ON_ACCEPT = ("hang_on_accept", Stage.ACCEPT, False, "accepts, then never speaks")
    GARBAGE_ON_ACCEPT = ("garbage_on_accept", Stage.ACCEPT, False, "speaks first, and nonsense")
    EARLY_RESPONSE_THEN_CLOSE = ("early_response_then_close", Stage.HEAD, False, "503 before the body was read")

    WRONG_CHAIN_ID = ("wrong_chain_id", Stage.VIEW, True, "serves another network; amount: its chain id", 666.0)
    STALE_HEAD = ("stale_head", Stage.VIEW, True, "head frozen; amount: blocks behind at that instant", 10.0)
    LAGGING = ("lagging", Stage.VIEW, True, "follows the head; amount: blocks behind", 5.0)
    HEAD_JUMP = ("head_jump", Stage.VIEW, True, "claims blocks that are not there; amount: how many", 1_000_000.0)
    HEAD_STEPS_BACK = (
        "head_steps_back",
        Stage.VIEW,
        True,
        "every second answer comes from a machine that is behind; amount: blocks",
        3.0,
    )
    FORKED = ("forked", Stage.VIEW, True, "on another branch; amount: blocks since they parted, at first", 5.0)
    PRUNED = ("pruned", Stage.VIEW, True, "old blocks are gone; amount: blocks that are kept", 128.0)
    EMPTY_LOGS = ("empty_logs", Stage.VIEW, True, "no logs and no receipts, although it has the blocks")
    MISNUMBERED_LOGS = ("misnumbered_logs", Stage.VIEW, True, "logs bear the indexes of another block")
    LYING = ("lying", Stage.VIEW, True, "sound-looking, wrong values in state")
    SLOW = ("slow", Stage.DELAY, True, "adds latency; amount: seconds", 0.05)

    HANG_BEFORE_HEAD = ("hang_before_head", Stage.ANSWER, False, "reads the request, never answers")
    RESET_AFTER_READING = ("reset_after_reading", Stage.ANSWER, False, "reads the request, then RST")
    CLOSE_AFTER_READING = ("close_after_reading", Stage.ANSWER, False, "reads the request, then FIN")
    ACCEPT_SEND_THEN_DIE = ("accept_send_then_die", Stage.ANSWER, True, "performs the call, then RST without a word")
    RESET_MID_HEAD = ("reset_mid_head", Stage.ANSWER, True, "half a head, then RST")
    RESET_MID_BODY = ("reset_mid_body", Stage.ANSWER, True, "head and half the body, then RST")
    CLOSE_MID_BODY = ("close_mid_body", Stage.ANSWER, True, "head and half the body, then FIN")
    TRUNCATED_JSON = ("truncated_json", Stage.ANSWER, True, "sound framing around half the JSON")
    TRUNCATED_CHUNKED = ("truncated_chunked", Stage.ANSWER, True, "chunked, without its last chunk, then FIN")
    SLOW_HEAD = ("slow_head", Stage.ANSWER, True, "pauses inside the head; amount: seconds", 0.05)
    SLOW_DRIP = ("slow_drip", Stage.ANSWER, True, "one byte at a time; amount: seconds between", 0.005)
    HANG_MID_BODY = ("hang_mid_body", Stage.ANSWER, True, "half the body, then silence")

    STATUS_301 = ("status_301", Stage.ANSWER, False, "a redirect to an address that must never be asked")
    STATUS_400 = ("status_400", Stage.ANSWER, False, "bad request")
    STATUS_401 = ("status_401", Stage.ANSWER, False, "key missing")
    STATUS_402 = ("status_402", Stage.ANSWER, False, "quota used up")
    STATUS_403 = ("status_403", Stage.ANSWER, False, "key refused")
    STATUS_404 = ("status_404", Stage.ANSWER, False, "gone")
    STATUS_408 = ("status_408", Stage.ANSWER, False, "the server gave up waiting for the request")
    STATUS_413 = ("status_413", Stage.ANSWER, False, "request too large")
    STATUS_429 = ("status_429", Stage.ANSWER, False, "throttled, with Retry-After; amount: its seconds", 1.0)
    STATUS_429_RPC = ("status_429_rpc", Stage.ANSWER, False, "throttled: 429 around a JSON-RPC error")
    STATUS_500 = ("status_500", Stage.ANSWER, False, "internal server error")
    STATUS_502 = ("status_502", Stage.ANSWER, False, "bad gateway")
    STATUS_503 = ("status_503", Stage.ANSWER, False, "unavailable")
    STATUS_503_HTML = ("status_503_html", Stage.ANSWER, False, "a load balancer's maintenance page")
    STATUS_504 = ("status_504", Stage.ANSWER, False, "gateway timeout")
    STATUS_520 = ("status_520", Stage.ANSWER, False, "an edge network's page for a dead origin")

    HTML_200 = ("html_200", Stage.ANSWER, False, "200 with a web page")
    EMPTY_200 = ("empty_200", Stage.ANSWER, False, "200 with Content-Length 0")
    EMPTY_BODY_NO_LENGTH = ("empty_body_no_length", Stage.ANSWER, False, "200 without length or body, then FIN")
    NOT_JSON = ("not_json", Stage.ANSWER, False, "200 with a line of text")
    JSON_SCALAR = ("json_scalar", Stage.ANSWER, False, "200 with a bare number")
    JSON_ARRAY_FOR_OBJECT = ("json_array_for_object", Stage.ANSWER, True, "the answer wrapped in an array")
    NULL_RESULT_AND_ERROR_MISSING = ("null_result_and_error_missing", Stage.ANSWER, True, "neither result nor error")
    BOTH_RESULT_AND_ERROR = ("both_result_and_error", Stage.ANSWER, True, "result and error at once")
    RPC_INTERNAL = ("rpc_internal", Stage.ANSWER, False, "-32603 in HTTP 200")
    RPC_RATE_LIMIT = ("rpc_rate_limit", Stage.ANSWER, False, "-32005 in HTTP 200")
    RPC_UNKNOWN_ERROR = ("rpc_unknown_error", Stage.ANSWER, False, "-32000 'weird failure' in HTTP 200")
    RPC_METHOD_NOT_FOUND = ("rpc_method_not_found", Stage.ANSWER, False, "-32601 for a method that exists")
    RPC_ERROR_NULL_ID = ("rpc_error_null_id", Stage.ANSWER, False, "an error that names no request")
    WRONG_ID = ("wrong_id", Stage.ANSWER, True, "the answer under another integer id")
    STRING_ID = ("string_id", Stage.ANSWER, True, "the id came back as a string")
    MISSING_ID = ("missing_id", Stage.ANSWER, True, "the answer without an id")

    EXTRA_BYTES = ("extra_bytes", Stage.ANSWER, True, "a sound answer with garbage behind it")
    EXTRA_RESPONSE = ("extra_response", Stage.ANSWER, True, "a sound answer and a second, unasked one")
    TWO_CONTENT_LENGTHS = ("two_content_lengths", Stage.ANSWER, True, "two lengths that differ")
    CL_AND_TE = ("cl_and_te", Stage.ANSWER, True, "Content-Length and Transfer-Encoding together")
    NEGATIVE_LENGTH = ("negative_length", Stage.ANSWER, True, "Content-Length: -1")
    BAD_CHUNK_SIZE = ("bad_chunk_size", Stage.ANSWER, True, "a chunk size that is no number")
    HUGE_HEADER = ("huge_header", Stage.ANSWER, True, "one giant header; amount: bytes", 262_144.0)
    MANY_HEADERS = ("many_headers", Stage.ANSWER, True, "amount: how many headers", 2_000.0)
    MANY_1XX = ("many_1xx", Stage.ANSWER, True, "amount: how many '100 Continue' before the answer", 200.0)
    HTTP_09_GARBAGE = ("http_09_garbage", Stage.ANSWER, True, "the body without any head, then FIN")
    WRONG_VERSION = ("wrong_version", Stage.ANSWER, True, "HTTP/3.7 in the status line")
    GZIP_UNASKED = ("gzip_unasked", Stage.ANSWER, True, "a compressed answer nobody asked for")
    GZIP_BOMB = ("gzip_bomb", Stage.ANSWER, False, "amount: bytes after decompression", 33_554_432.0)
    BAD_GZIP = ("bad_gzip", Stage.ANSWER, False, "gzip promised, garbage sent")
    CHUNKED = ("chunked", Stage.ANSWER, True, "harmless: a sound chunked answer")
    CLOSE_DELIMITED = ("close_delimited", Stage.ANSWER, True, "harmless: the body ends with the connection")
    CONNECTION_CLOSE = ("connection_close", Stage.ANSWER, True, "harmless: says 'Connection: close' and closes")
    NO_KEEPALIVE_HTTP10 = ("no_keepalive_http10", Stage.ANSWER, True, "harmless: HTTP/1.0, closes after the answer")
    STALE_KEEPALIVE = ("stale_keepalive", Stage.ANSWER, True, "answers, then closes the idle connection at once")

    stage: Stage
    performs: bool
    description: str
    amount: float

    def __new__(cls, label: str, stage: Stage, performs: bool, description: str, amount: float = 0.0) -> Fault:
        self = object.__new__(cls)
        self._value_ = label
        self.stage = stage
        self.performs = performs
        self.description = description
        self.amount = amount
        return self

    @classmethod
    def named(cls, label: object) -> Fault:
        """The fault with this value (``status_503``).  Raises ValueError."""
        for fault in cls:
            if fault.value == label:
                return fault
        raise ValueError(f"no such fault: {label}")


@dataclass(slots=True, eq=False)
class Rule:
    """One fault's standing order.  `matched` counts what its filters let through so far."""

    fault: Fault
    amount: float
    methods: tuple[str, ...]
    families: frozenset[Family]
    first: int
    last: int | None
    after: float
    lasting: float | None
    chance: float
    since: float | None = None
    matched: int = 0

    def covers(self, method: str, family: Family) -> bool:
        """Do the filters mean this method?  Without any filter they mean all."""
        if not self.methods and not self.families:
            return True
        return family in self.families or any(fnmatchcase(method, pattern) for pattern in self.methods)

    def window(self) -> tuple[float, float]:
        """The instants between which the rule is in force: (infinity, infinity) before `begin`."""
        if self.since is None:
            return float("inf"), float("inf")
        opens_at = self.since + self.after
        return opens_at, float("inf") if self.lasting is None else opens_at + self.lasting

    def in_force(self, now: float) -> bool:
        opens_at, ends_at = self.window()
        return opens_at <= now < ends_at


class Script:
    """Which faults are in force.  May be changed at any time while its provider runs.

    `fired[fault]` counts the times a fault really struck (REFUSE: the times the listener closed).
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable chance is the point
        self._rules: dict[Fault, Rule] = {}
        self._clock: Clock | None = None
        self._watchers: list[Callable[[], None]] = []
        self.fired: dict[Fault, int] = dict.fromkeys(Fault, 0)
        self.armed = False

    def set(
        self,
        fault: Fault,
        *,
        amount: float | None = None,
        methods: Collection[str] = (),
        families: Iterable[Family] = (),
        first: int = 1,
        last: int | None = None,
        after: float = 0.0,
        lasting: float | None = None,
        chance: float = 1.0,
    ) -> Script:
        """Put `fault` in force, replacing its earlier rule; returns the script, for chaining.

        `methods`: names or patterns (``eth_get*``); with `families`, either is enough; none: all.
        `first`, `last`: which of the requests that match, counted from 1 since this call (for
        faults on accept: connections).  `after`, `lasting`: seconds, relative to this call, or to
        the provider's start when it has not started.  `chance`: 0 to 1, drawn inside the window.
        `amount`: see the fault's description.  Raises ValueError for figures that make no sense.
        """
        if isinstance(methods, str):
            raise ValueError("methods must be a collection of names, not one string")
        if not 0.0 <= chance <= 1.0:
            raise ValueError(f"chance must be between 0 and 1, got {chance}")
        if first < 1 or (last is not None and last < first):
            raise ValueError(f"first and last must satisfy 1 <= first <= last, got {first}, {last}")
        if after < 0 or (lasting is not None and lasting < 0) or (amount is not None and amount < 0):
            raise ValueError("after, lasting and amount must not be negative")
        self._rules[fault] = Rule(
            fault=fault,
            amount=fault.amount if amount is None else amount,
            methods=tuple(methods),
            families=frozenset(families),
            first=first,
            last=last,
            after=after,
            lasting=lasting,
            chance=chance,
            since=None if self._clock is None else self._clock(),
        )
        self._changed()
        return self

    def clear(self, fault: Fault | None = None) -> None:
        """End one fault, or all of them.  The counters stay."""
        if fault is None:
            self._rules.clear()
        else:
            self._rules.pop(fault, None)
        self._changed()

    def begin(self, clock: Clock) -> None:
        """Start the windows of rules set so far.  A second call changes nothing: restarts keep their time."""
        if self._clock is None:
            self._clock = clock
            for rule in self._rules.values():
                rule.since = clock()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have `watcher` called after every change of the rules (providers mind their listener by it)."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        self._watchers.remove(watcher)

    def active(self, now: float) -> list[Rule]:
        """The rules in force at `now`, oldest first."""
        return [rule for rule in self._rules.values() if rule.in_force(now)]

    def strike(self, stage: Stage, now: float, calls: Collection[tuple[str, Family]] = ()) -> Rule | None:
        """The rule that strikes at this stage, counted as fired; None when all is well.

        `calls` are the (method, family) of the request; a batch is meant when any of its calls is.
        Call it once per request and stage: it counts and draws.
        """
        for rule in self._rules.values():
            if rule.fault.stage is not stage or not rule.in_force(now):
                continue
            selective = bool(rule.methods or rule.families)
            if selective and not any(rule.covers(method, family) for method, family in calls):
                continue
            rule.matched += 1
            if rule.matched < rule.first or (rule.last is not None and rule.matched > rule.last):
                continue
            if rule.chance < 1.0 and self._random.random() >= rule.chance:
                continue
            self.fired[rule.fault] += 1
            return rule
        return None

    def refusing(self, now: float) -> bool:
        """Should the listener be closed at `now`?  Counts nothing: `fired` is moved by `door_closed`."""
        rule = self._rules.get(Fault.REFUSE)
        return rule is not None and rule.in_force(now)

    def door_closed(self) -> None:
        self.fired[Fault.REFUSE] += 1

    def door_changes_after(self, now: float) -> float | None:
        """Seconds until a window of REFUSE opens or ends by itself; None when none will."""
        rule = self._rules.get(Fault.REFUSE)
        if rule is None:
            return None
        return min((at - now for at in rule.window() if now < at < float("inf")), default=None)

    def _changed(self) -> None:
        self.armed = bool(self._rules)
        for watcher in list(self._watchers):
            watcher()

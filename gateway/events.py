"""The words of subscriptions: what a caller subscribes to, and the events that come of it.

Always true: a value of this module is immutable and knows no protocol, no clock and no I/O; an event
carries the raw JSON that an upstream gave, so that callers get an upstream's own bytes; two equal
`Subscription.key`s on one route mean the same stream of events, which one feed serves.
They live on floor 0 because a dialect reads them, a policy orders them and the edge hands them out.
Does not belong here: what to do about a lost event (policy/feeds), or how one is written (dialect).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class FeedKind(enum.Enum):
    """How the events of a feed hang together, which decides how a loss is made good."""

    PLAIN = "plain"  # first, for all that is not known: passed through, and a loss is told
    HEADS = "heads"  # a chain of headers: what is missing is fetched by number and hash
    LOGS = "logs"  # logs of blocks: what is missing is fetched by block
    NEWEST = "newest"  # a state, of which only the newest word counts: asked for anew
    ONCE = "once"  # one event, and the subscription is over: asked for anew


@dataclass(frozen=True, slots=True)
class LogFilter:
    """What a subscription to logs asks for: the raw JSON of its address and topics, empty when not given.

    `addresses` and `topics` are the same as lower-case hex, for comparing with a block's bloom filter:
    any of the addresses (none: all), and for each topic position any of its values (none: all).
    """

    raw_address: bytes = b""
    raw_topics: bytes = b""
    addresses: tuple[str, ...] = ()
    topics: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Subscription:
    """A decoded request for events.

    `method` and `params` ask an upstream for it, `unsubscribe` ends it there, and `notification` is the
    method under which its events come.  `label` names it in metrics: a closed set, ``other`` for what is
    not known.  `numeric`: its ids are numbers (Solana), else hex strings.  `shared`: what comes does not
    depend on when it was asked for; else it may begin with a state or with the past, and each caller has its own.
    `steady`: something comes with every block.
    """

    kind: FeedKind
    key: bytes
    method: str
    params: bytes
    unsubscribe: str
    notification: str
    label: str = "other"
    filter: LogFilter | None = None
    numeric: bool = False
    shared: bool = True
    steady: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """One block's header.  `hash` and `parent` are lower-case hex; `bloom` its logs' filter, empty when unknown.

    `raw` is the header as a caller is told it.
    """

    number: int
    hash: str
    parent: str
    raw: bytes = b""
    bloom: bytes = b""
    timestamp: int | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """One log.  `block` is its block's hash in lower-case hex, `index` its place in that block.

    `raw` is the log as a caller is told it, with ``removed`` as `removed` says.
    """

    number: int
    block: str
    index: int
    raw: bytes = b""
    removed: bool = False

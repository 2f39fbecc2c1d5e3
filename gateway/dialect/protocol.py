"""What a dialect must answer.  Everything above the dialects speaks to this and to nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.events import Header, Log, LogFilter, Subscription
from gateway.model import Call, Examined, Family, HeadReport, Method, ReplyKind


class Dialect(Protocol):
    """One protocol spoken over JSON-RPC.  Pure; safe to share between routes."""

    name: str

    def call(self, method: str, params: bytes, caller_id: bytes | None) -> Call:
        """A request with all that is known of it: class, family, block reference.  Never raises."""

    def classify_error(
        self, http_status: int, code: int | None, message: str, data: bytes, method: Method
    ) -> tuple[ReplyKind, str]:
        """What an error object means, with a short secret-free note on why."""

    def classify_http(self, http_status: int, body: bytes) -> ReplyKind:
        """What an answer that is no JSON-RPC object means, by its status and text."""

    def learned_range(self, message: str) -> int | None:
        """The largest block range that an error text names, if it does."""

    def is_of_the_query(self, message: str) -> bool:
        """Whether a refused range is due to what the query finds in it: no limit of the endpoint's."""

    def transaction_hash(self, params: bytes) -> str | None:
        """The hash of the raw transaction in a broadcast's parameters, computed here; None if there is none."""

    def lookup_call(self, transaction_hash: str) -> tuple[str, bytes]:
        """Method and parameters that ask for a transaction by hash."""

    def found(self, transaction_hash: str, result: bytes) -> bool | None:
        """Whether the answer to `lookup_call` shows the transaction; None when it does not say."""

    def probe_call(self, family: Family) -> tuple[str, bytes]:
        """A cheap call that shows whether a family works."""

    @property
    def chain_id_call(self) -> tuple[str, bytes] | None:
        """How to ask for the chain id; None when the protocol has none."""

    def parse_chain_id(self, result: bytes) -> int | None:
        """The chain id in a raw result; None when it is none."""

    @property
    def head_call(self) -> tuple[str, bytes]:
        """How to ask for the newest block's number."""

    def parse_head(self, result: bytes) -> int | None:
        """The block number in a raw result; None when it is none."""

    @property
    def poll_call(self) -> tuple[str, bytes]:
        """How to ask for the newest block with as much of it as one cheap call gives."""

    def parse_poll(self, result: bytes) -> HeadReport | None:
        """The newest block in the answer to `poll_call`; also in that to any call of the same shape."""

    @property
    def final_call(self) -> tuple[str, bytes] | None:
        """How to ask for the newest finalized block; None when the protocol has none."""

    @property
    def safe_call(self) -> tuple[str, bytes] | None:
        """The same for the newest safe block."""

    @property
    def genesis_call(self) -> tuple[str, bytes] | None:
        """How to ask for the first block, whose hash tells networks with the same id apart."""

    @property
    def version_call(self) -> tuple[str, bytes] | None:
        """How to ask for the node's software."""

    def parse_version(self, result: bytes) -> str:
        """The software's own name and version; empty when it says nothing readable."""

    def examine(self, call: Call, result: bytes) -> Examined | None:
        """What an answer tells besides being one; None: nothing.  Asked for examined methods only."""

    def encode_head(self, number: int) -> bytes | None:
        """The raw result that says this head, in the shape of `head_call`'s; None when there is no such shape."""

    def pin(self, call: Call, number: int) -> bytes | None:
        """The parameters with this block instead of the newest; None when the call does not name one."""

    def split(self, call: Call, limit: int, at_most: int, newest: int = -1) -> list[tuple[bytes, int]] | None:
        """The parameters of at most `at_most` calls that ask for the same in parts of at most `limit` blocks.

        With each, its highest block.  None when the call cannot be split.  `newest` is the block at which one
        that goes on to the newest ends; -1: none does.
        """

    def merge(self, results: Sequence[bytes]) -> bytes:
        """The raw results of the parts as one.  Raises ValueError when they do not fit together."""

    def fingerprint(self, method: Method, result: bytes) -> bytes:
        """The same for results that mean the same, whoever gave them."""

    def block_of(self, result: bytes, reference: int) -> int | None:
        """The block that what an answer tells of is in; -1: in none yet; None: the answer names no such place.

        `reference` is the newest block, for chains that count from there.
        """

    # --- subscriptions ------------------------------------------------------------------------------

    def subscription(self, method: str, params: bytes) -> Subscription | None:
        """What a request for events asks for; None: this method does not subscribe.  Never raises.

        Parameters that are not understood give a subscription that is passed through: the upstream refuses them.
        """

    def ends_subscription(self, method: str) -> bool:
        """Whether the method ends a subscription."""

    def subscription_id(self, params: bytes) -> bytes | None:
        """The raw JSON id that a call names which ends one; None when it names none."""

    def read_header(self, raw: bytes) -> Header | None:
        """An event of a feed of heads, or a block in an answer, as the header that callers are told."""

    def read_log(self, raw: bytes) -> Log | None:
        """An event of a feed of logs; None when it is none."""

    def read_logs(self, raw: bytes) -> list[Log] | None:
        """The logs in the answer to `logs_between` or `logs_of`; None when it is not a list of such."""

    def removed(self, log: Log) -> Log:
        """The log as it is told when its block was abandoned."""

    def header_by_number(self, number: int) -> tuple[str, bytes]:
        """How to ask for a header.  Raises ValueError where there are none."""

    def header_by_hash(self, block_hash: str) -> tuple[str, bytes]:
        """The same by its hash, whichever branch it is on."""

    def logs_between(self, wanted: LogFilter, low: int, high: int) -> tuple[str, bytes]:
        """How to ask for the logs of these blocks, both ends included.  Raises ValueError where there are none."""

    def logs_of(self, wanted: LogFilter, block_hash: str) -> tuple[str, bytes]:
        """The same for one block, whichever branch it is on."""

    def may_match(self, wanted: LogFilter, bloom: bytes) -> bool:
        """Whether a block with this bloom filter may hold such a log; False is certain."""

    def place(self, subscription: Subscription, raw: bytes) -> tuple[bytes, int]:
        """What an event that is passed through is known by (empty: nothing), and its number that never falls.

        -1: it has no such number.
        """

    def refresh(self, subscription: Subscription) -> tuple[str, bytes] | None:
        """The call that tells a state anew after a change of endpoint; None: there is none."""

    def refreshed(self, subscription: Subscription, result: bytes) -> bytes | None:
        """The answer to it as an event; None: nothing to tell."""

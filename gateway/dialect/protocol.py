"""What a dialect must answer.  Everything above the dialects speaks to this and to nothing else."""

from __future__ import annotations

from typing import Protocol

from gateway.model import Call, Family, Method, ReplyKind


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

    def transaction_hash(self, params: bytes) -> str | None:
        """The hash of the raw transaction in a broadcast's parameters, computed here; None if there is none."""

    def lookup_call(self, transaction_hash: str) -> tuple[str, bytes]:
        """Method and parameters that ask for a transaction by hash."""

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

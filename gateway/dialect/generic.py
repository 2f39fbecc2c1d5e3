"""The dialect of any other JSON-RPC server: known methods by table, everything else the strictest class.

The chain catalogue says how its head is asked for and where the number stands in the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.dialect import canonical
from gateway.dialect.classification import rules_for
from gateway.dialect.subscriptions import Eventless, passed_through, plain_name
from gateway.dialect.tables import method_table
from gateway.events import Subscription
from gateway.model import Call, Examined, Family, HeadReport, Method, ReplyKind

_decode = msgspec.json.Decoder().decode
FALLBACK_HEAD = ("getHealth", b"[]")
_SUBSCRIBES = re.compile(r"(\w*)([sS]ubscribe)(?![rd])(\w*)", re.ASCII).fullmatch
_UNANSWERABLE = ("subscribe", "unsubscribe")


class GenericDialect(Eventless):
    """See `dialect.protocol.Dialect`.  `head_path` is dotted, relative to the result; empty: the result itself.

    `family` chooses the error table: codes collide between chains (-32005 is a rate limit on EVM and
    an unhealthy node on Solana).
    """

    name = "generic"
    chain_id_call: tuple[str, bytes] | None = None
    final_call: tuple[str, bytes] | None = None
    safe_call: tuple[str, bytes] | None = None
    version_call: tuple[str, bytes] | None = None
    genesis_call: tuple[str, bytes] | None = None

    def __init__(
        self, head_method: str | None = None, head_params: bytes = b"[]", head_path: str = "", rules: str = "generic"
    ) -> None:
        self.methods = method_table("generic")
        self.head_call = (head_method, head_params) if head_method else FALLBACK_HEAD
        self.poll_call = self.head_call
        self._path = [part for part in head_path.split(".") if part]
        self._rules = rules_for(rules)

    def call(self, method: str, params: bytes, caller_id: bytes | None) -> Call:
        known = self.methods.get(method)
        return Call(known, params, caller_id, known.request_class)

    def classify_error(
        self, http_status: int, code: int | None, message: str, data: bytes, method: Method
    ) -> tuple[ReplyKind, str]:
        kind, why = self._rules.classify_error(http_status, code, message, data, method)
        # No hash can be given back here, and an empty one would pass for a success: the node's own words are shown.
        return (ReplyKind.REFUSAL if kind is ReplyKind.TX_KNOWN else kind), why

    def classify_http(self, http_status: int, body: bytes) -> ReplyKind:
        return self._rules.classify_http(http_status, body)

    def learned_range(self, message: str) -> int | None:
        return None

    def is_of_the_query(self, message: str) -> bool:
        return False

    def transaction_hash(self, params: bytes) -> str | None:
        return None  # each chain computes its own; a doubtful send is reported as such

    def lookup_call(self, transaction_hash: str) -> tuple[str, bytes]:
        return self.head_call

    def found(self, transaction_hash: str, result: bytes) -> bool | None:
        return None

    def probe_call(self, family: Family) -> tuple[str, bytes]:
        return self.head_call

    def parse_chain_id(self, result: bytes) -> int | None:
        return None

    def parse_poll(self, result: bytes) -> HeadReport | None:
        number = self.parse_head(result)
        return HeadReport(number) if number is not None else None

    def parse_version(self, result: bytes) -> str:
        return ""

    def examine(self, call: Call, result: bytes) -> Examined | None:
        return None

    def encode_head(self, number: int) -> bytes | None:
        return None

    def pin(self, call: Call, number: int) -> bytes | None:
        return None

    def split(self, call: Call, limit: int, at_most: int, newest: int = -1) -> list[tuple[bytes, int]] | None:
        return None

    def merge(self, results: Sequence[bytes]) -> bytes:
        raise ValueError("nothing is split here")

    def fingerprint(self, method: Method, result: bytes) -> bytes:
        return canonical.fingerprint(method.name, result)

    def block_of(self, result: bytes, reference: int) -> int | None:
        return None

    def subscription(self, method: str, params: bytes) -> Subscription | None:
        ends = _ends(method)
        if ends is None:
            return None
        label = self.methods.get(method).label
        numeric = method.endswith("Subscribe")
        return passed_through(method, params, ends, "", label=label, numeric=numeric, shared=False)

    def ends_subscription(self, method: str) -> bool:
        return "unsubscribe" in method.lower() and method not in _UNANSWERABLE and plain_name(method)

    def parse_head(self, result: bytes) -> int | None:
        try:
            value: Any = _decode(result)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        for part in self._path:
            if not isinstance(value, dict):
                return None
            value = value.get(part)
        if isinstance(value, bool):
            return None
        if isinstance(value, str):
            return _number(value)
        return value if isinstance(value, int) and value >= 0 else None


def _number(text: str) -> int | None:
    """A block number as text, decimal or hex.  Stricter than int(), which takes signs, blanks and underscores."""
    if len(text) > 66 or not text.isascii() or not text.isalnum():
        return None
    try:
        return int(text, 16 if text[:2] in ("0x", "0X") else 10)
    except ValueError:
        return None


def _ends(method: str) -> str | None:
    """The method that ends what this one begins; None: it begins nothing.

    ``chain_subscribeNewHeads`` and ``chain_unsubscribeNewHeads``, ``slotSubscribe`` and ``slotUnsubscribe``; Starknet
    has one for all.  Bare ``subscribe`` is none: its servers (CometBFT, XRPL) send events that are no notifications.
    """
    if "ubscribe" not in method or "unsubscribe" in method.lower() or method in _UNANSWERABLE:
        return None
    found = _SUBSCRIBES(method) if plain_name(method) else None
    if found is None:
        return None
    before, word, behind = found.groups()
    if before == "starknet_":
        return "starknet_unsubscribe"
    return f"{before}{'Unsubscribe' if word[0] == 'S' else 'unsubscribe'}{behind}"

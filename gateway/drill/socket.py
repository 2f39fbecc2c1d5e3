"""A simulated provider's WebSocket: calls, subscriptions, and the ways in which they go wrong.

Always true: what is pushed is the provider's view of the chain, as its HTTP answers are; blocks are
pushed in their order, each header before its logs; after a change of branch the old logs are told again
with ``removed`` and the new branch from its first block on, as go-ethereum does; a fault strikes when it
is told to, and lasts until it is healed or the socket is gone.
Does not belong here: HTTP (connection), what a method answers (node).
"""

from __future__ import annotations

import enum
import itertools
import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

from websockets.frames import Opcode
from websockets.server import ServerProtocol

from gateway.drill import wire
from gateway.drill.chain import Refused, SimulatedChain

MAX_MESSAGE = 16_777_216
DEEPEST_REORGANISATION = 128  # blocks that are looked back for a common ancestor
BODY = ("transactions", "uncles", "withdrawals", "size")  # what a header does not have

_silent = logging.getLogger("seawall.silent.drill")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False
_silent.setLevel(logging.CRITICAL + 1)


class SocketFault(enum.Enum):
    """What can go wrong with a socket that is open."""

    CLOSE = "close"  # a sound goodbye, 1001
    RESTART = "restart"  # a sound goodbye, 1012
    RESET = "reset"
    HANG = "hang"  # it stays open, and nothing comes any more, no pong either
    SILENT = "silent"  # calls and pings are answered, and nothing is pushed
    LAG = "lag"  # pushes come so many blocks late
    SKIP = "skip"  # of so many pushes one is left out
    DUPLICATE = "duplicate"  # every push comes twice
    REORDER = "reorder"  # every second block comes before the one below it
    GARBAGE = "garbage"  # one message that is no JSON, and one nobody subscribed to
    HALF_BATCH = "half_batch"  # it dies in the middle of the next block's logs


class Carrier(Protocol):
    """What a socket needs of its connection."""

    def write(self, data: bytes) -> None: ...

    def finish(self) -> None: ...

    def reset(self) -> None: ...


class Source(Protocol):
    """What a socket needs of its provider."""

    name: str

    def seen(self, now: float) -> tuple[SimulatedChain, float]: ...

    def answer_calls(self, calls: list[wire.WireCall], batch: bool) -> bytes: ...


class DrillSocket:
    """One open WebSocket.  `pushed` counts notifications."""

    def __init__(self, provider: Source, carrier: Carrier, chance: Callable[[], str]) -> None:
        self._provider = provider
        self._carrier = carrier
        self._new_id = chance
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE, logger=_silent)
        self._message = bytearray()
        self._subscriptions: dict[str, tuple[str, Any]] = {}
        self._told: tuple[int, str] | None = None  # the newest block that was pushed
        self._chain: SimulatedChain | None = None
        self._pending: set[str] = set()
        self._faults: dict[SocketFault, float] = {}
        self._count = itertools.count(1)
        self._kept: list[bytes] = []
        self.pushed = 0
        self.open = True

    def begin(self, head: bytes) -> None:
        """Shake hands over a request's head."""
        self._protocol.receive_data(head)
        for event in self._protocol.events_received():
            self._protocol.send_response(self._protocol.accept(event))  # type: ignore[arg-type]
        self._flush()

    # --- what comes in ----------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes from the caller."""
        if SocketFault.HANG in self._faults or not self.open:
            return
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):  # type: ignore[union-attr]
                self._message += frame.data  # type: ignore[union-attr]
                if frame.fin:  # type: ignore[union-attr]
                    message = bytes(self._message)
                    self._message.clear()
                    self._say(self._answer(message))
        self._flush()
        if self._protocol.close_expected():
            self._end()

    def _answer(self, message: bytes) -> bytes:
        try:
            calls, batch = wire.parse_body(message)
        except Refused as refused:
            return wire.error_body(b"null", refused.code, refused.message)
        if not batch and calls[0].method in ("eth_subscribe", "eth_unsubscribe"):
            call = calls[0]
            raw_id = call.id or b"null"
            try:
                serve = self._subscribe if call.method == "eth_subscribe" else self._unsubscribe
                return wire.result_body(raw_id, serve(call.params))
            except Refused as refused:
                return wire.error_body(raw_id, refused.code, refused.message)
        return self._provider.answer_calls(calls, batch)

    def _subscribe(self, params: Any) -> str:
        kinds = ("newHeads", "logs", "newPendingTransactions", "syncing")
        if not isinstance(params, list) or not params or params[0] not in kinds:
            raise Refused(-32602, "no such subscription")
        options = params[1] if len(params) > 1 and isinstance(params[1], dict) else {}
        upstream_id = self._new_id()
        self._subscriptions[upstream_id] = (params[0], options)
        return upstream_id

    def _unsubscribe(self, params: Any) -> bool:
        return isinstance(params, list) and bool(params) and self._subscriptions.pop(params[0], None) is not None

    # --- what is pushed ---------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Push what is new on the chain."""
        chain, as_of = self._provider.seen(now)
        number = chain.head(as_of)
        if SocketFault.LAG in self._faults:
            number = max(0, number - int(self._faults[SocketFault.LAG]))
        if SocketFault.REORDER in self._faults:
            number -= number % 2  # the lower of two waits for the one above it
        if self._told is None or SocketFault.SILENT in self._faults:
            self._told, self._chain = (number, chain.block_hash(number)), chain
            return
        last, last_hash = self._told
        before = self._chain or chain
        if chain is not before and chain.block_hash(last) != last_hash:
            floor = max(0, last - DEEPEST_REORGANISATION)
            while last > floor and chain.block_hash(last) != before.block_hash(last):
                self._push_logs(before, last, removed=True)
                last -= 1
        self._chain = chain
        if number <= last and chain is before:
            return
        for new in self._in_order(last + 1, number):
            self._push_block(chain, new)
            if not self.open:
                return
        self._told = (max(number, last), chain.block_hash(max(number, last)))
        self._push_pending(chain)

    def _in_order(self, low: int, high: int) -> list[int]:
        numbers = list(range(low, high + 1))
        if SocketFault.REORDER in self._faults:
            numbers.sort(key=lambda number: (-(-number // 2), -number))
        return numbers

    def _push_block(self, chain: SimulatedChain, number: int) -> None:
        header = {name: value for name, value in chain.block(number).items() if name not in BODY}
        for upstream_id, (kind, _) in list(self._subscriptions.items()):
            if kind == "newHeads":
                self._push(upstream_id, header)
        self._push_logs(chain, number)

    def _push_logs(self, chain: SimulatedChain, number: int, removed: bool = False) -> None:
        for upstream_id, (kind, options) in list(self._subscriptions.items()):
            if kind != "logs":
                continue
            logs = [log for log in chain.logs(number, number) if matches(log, options)]
            if SocketFault.HALF_BATCH in self._faults and len(logs) > 1:
                self._push(upstream_id, logs[0])
                self._carrier.reset()
                self.open = False
                return
            for log in reversed(logs) if removed else logs:
                self._push(upstream_id, {**log, "removed": removed})

    def _push_pending(self, chain: SimulatedChain) -> None:
        waiting = [u for u, (kind, _) in self._subscriptions.items() if kind == "newPendingTransactions"]
        if not waiting:
            return
        known = set(chain.received)
        for tx_hash in sorted(known - self._pending):
            for upstream_id in waiting:
                self._push(upstream_id, tx_hash)
        self._pending = known

    def _push(self, upstream_id: str, result: Any) -> None:
        number = next(self._count)
        every = int(self._faults.get(SocketFault.SKIP, 0))
        if every and number % every == 0:
            return
        body = {
            "jsonrpc": "2.0",
            "method": "eth_subscription",
            "params": {"subscription": upstream_id, "result": result},
        }
        for _ in range(2 if SocketFault.DUPLICATE in self._faults else 1):
            self.pushed += 1
            self._say(json.dumps(body, separators=(",", ":")).encode())

    # --- going wrong ------------------------------------------------------------------------------

    def strike(self, fault: SocketFault, amount: float = 1.0) -> None:
        """Let this go wrong now, and until `heal`."""
        if fault is SocketFault.RESET:
            self.open = False
            self._carrier.reset()
        elif fault in (SocketFault.CLOSE, SocketFault.RESTART):
            if self._protocol.state.name == "OPEN":
                self._protocol.send_close(1001 if fault is SocketFault.CLOSE else 1012, "going away")
                self._flush()
            self._end()
        elif fault is SocketFault.GARBAGE:
            self._say(b"\x00 not JSON")
            self._say(b'{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0xdead","result":1}}')
        else:
            self._faults[fault] = amount

    def heal(self) -> None:
        """All is well again; what was not pushed meanwhile is not made good."""
        hung = SocketFault.HANG in self._faults
        self._faults.clear()
        if hung:
            self.strike(SocketFault.RESET)

    # --- bytes ------------------------------------------------------------------------------------

    def _say(self, text: bytes) -> None:
        if self.open and SocketFault.HANG not in self._faults and self._protocol.state.name == "OPEN":
            self._protocol.send_text(text)
            self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data and self.open:
                self._carrier.write(data)

    def _end(self) -> None:
        if self.open:
            self.open = False
            self._carrier.finish()


def matches(log: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether a log is what a filter asks for."""
    addresses = options.get("address") or []
    if isinstance(addresses, str):
        addresses = [addresses]
    if addresses and log["address"].lower() not in {address.lower() for address in addresses}:
        return False
    topics = options.get("topics") or []
    if len(topics) > len(log["topics"]):
        return False
    for wanted, topic in zip(topics, log["topics"], strict=False):
        values = [wanted] if isinstance(wanted, str) else wanted or []
        if values and topic.lower() not in {value.lower() for value in values}:
            return False
    return True

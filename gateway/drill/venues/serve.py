"""Simulated exchanges inside the gateway's process, and the switchboard to break their hosts by hand.

Always true: hosts of one exchange share its orders and its books; when the block ends, or when one of them cannot
start, all are stopped.  The switchboard (``/_drill`` on each host's own port) breaks that host only, and answers
callers on this machine, never a web page.

    curl localhost:PORT/_drill                                             what it was asked, and what it executed
    curl localhost:PORT/_drill/faults                                      what can be switched on
    curl localhost:PORT/_drill/fault -d '{"fault": "cut", "for": 10}'      break it for 10 s
    curl localhost:PORT/_drill/clear -d ''                                 mend it

Does not belong here: what a venue answers (binance, okx, ...), how a strike is carried out (exchange).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gateway.clock import wall_seconds
from gateway.drill.venues.binance import Binance
from gateway.drill.venues.bybit import Bybit
from gateway.drill.venues.coinbase_exchange import CoinbaseExchange
from gateway.drill.venues.exchange import SimulatedExchange, Strike, Venue
from gateway.drill.venues.kraken import Kraken
from gateway.drill.venues.kucoin import Kucoin
from gateway.drill.venues.okx import Okx
from gateway.drill.venues.wire import Recorded, Reply

SIMULATED: dict[str, Callable[[float], Venue]] = {
    "binance": Binance,
    "bybit": Bybit,
    "coinbase_exchange": CoinbaseExchange,
    "kraken": Kraken,
    "kucoin": Kucoin,
    "okx": Okx,
}
LONGEST_REFUSAL = 3600.0  # seconds; while a host refuses connections, nobody can reach its switchboard
SLOW = 2.0  # seconds
_OPTIONS = {"fault", "for"}


class HostFault(Enum):
    """What can be switched on at one host: its word, what it does, and the strike that does it."""

    REFUSE = ("refuse", "refuses connections and cuts those that are open", None)
    STATUS_503 = (
        "status_503",
        "answers 503 and executes nothing",
        Strike("status_503", execute=False, reply=Reply(503)),
    )
    CUT = ("cut", "executes what it is asked and cuts the connection in place of an answer", Strike("cut", send=0))
    HANG = ("hang", "executes what it is asked and never answers", Strike("hang", hang=True))
    SLOW = ("slow", f"answers {SLOW:.0f} seconds late", Strike("slow", wait=SLOW))

    def __init__(self, word: str, description: str, strike: Strike | None) -> None:
        self.word = word
        self.description = description
        self.strike = strike


@dataclass(frozen=True, slots=True)
class HostSpec:
    """One host of a simulated exchange, on loopback; port 0 takes a free one.  `venue` is a key of `SIMULATED`."""

    name: str
    venue: str
    port: int = 0


@contextlib.asynccontextmanager
async def run_exchanges(
    specs: Iterable[HostSpec], clock: Callable[[], float] = wall_seconds
) -> AsyncIterator[dict[str, SimulatedExchange]]:
    """Start the exchanges; inside the block they are found by the names of their venues, after it they are gone.

    Raises KeyError for a venue that is not simulated, OSError when an address is taken.
    """
    hosts: dict[str, list[HostSpec]] = defaultdict(list)
    for spec in specs:
        hosts[spec.venue].append(spec)
    running: dict[str, SimulatedExchange] = {}
    async with contextlib.AsyncExitStack() as stack:
        for venue, of_venue in hosts.items():
            exchange = SimulatedExchange(SIMULATED[venue](clock()), ports=[spec.port for spec in of_venue], clock=clock)
            board = Switchboard(exchange, [spec.name for spec in of_venue])
            exchange.script, exchange.control = board.strike, board.answer
            stack.callback(board.close)
            running[venue] = await stack.enter_async_context(exchange)
        yield running


class Switchboard:
    """The faults that are on at the hosts of one exchange, by hand."""

    def __init__(self, exchange: SimulatedExchange, names: list[str]) -> None:
        self._exchange = exchange
        self._names = names
        self._faults: dict[int, tuple[HostFault, float]] = {}  # by host: what, and until when
        self._returns: dict[int, asyncio.TimerHandle] = {}

    def strike(self, host: int, data: bytes) -> Strike | None:
        """What happens to the request that begins with `data`."""
        fault = self._on(host)
        return fault.strike if fault is not None else None

    def answer(self, request: Recorded) -> Reply:
        """One ``/_drill`` request."""
        if request.header(b"origin") is not None:
            return _says(403, error="only for callers on this machine, and not for web pages")
        asked = (request.verb, request.path.rstrip("/"))
        if asked == ("GET", "/_drill"):
            return _says(200, **self._counters(request.host))
        if asked == ("GET", "/_drill/faults"):
            return _says(200, **{fault.word: fault.description for fault in HostFault})
        if asked == ("POST", "/_drill/clear"):
            self._faults.pop(request.host, None)
            return _says(200, cleared=True)
        if asked == ("POST", "/_drill/fault"):
            try:
                fault = self._switch_on(request.host, json.loads(request.body))
            except (ValueError, RecursionError) as problem:
                return _says(400, error=str(problem))
            return _says(200, fault=fault.word, description=fault.description)
        return _says(404, error="GET /_drill, GET /_drill/faults, POST /_drill/fault, POST /_drill/clear")

    def close(self) -> None:
        for timer in self._returns.values():
            timer.cancel()

    def _on(self, host: int) -> HostFault | None:
        fault, until = self._faults.get(host, (None, 0.0))
        if fault is not None and self._exchange.clock() >= until:
            del self._faults[host]
            return None
        return fault

    def _switch_on(self, host: int, wanted: Any) -> HostFault:
        if not isinstance(wanted, dict):
            raise ValueError('expected an object such as {"fault": "cut", "for": 10}')
        if unknown := sorted(set(wanted) - _OPTIONS):
            raise ValueError(f"unknown {', '.join(unknown)}; known are {', '.join(sorted(_OPTIONS))}")
        fault = next((fault for fault in HostFault if fault.word == wanted.get("fault")), None)
        if fault is None:
            raise ValueError(f"fault must be one of {', '.join(fault.word for fault in HostFault)}")
        lasting = wanted.get("for")
        if lasting is not None and (isinstance(lasting, bool) or not isinstance(lasting, (int, float)) or lasting <= 0):
            raise ValueError("for must be a number of seconds")
        if fault is HostFault.REFUSE:
            self._refuse(host, lasting)
        self._faults[host] = (fault, self._exchange.clock() + lasting if lasting is not None else float("inf"))
        return fault

    def _refuse(self, host: int, lasting: float | None) -> None:
        if lasting is None or lasting > LONGEST_REFUSAL:
            raise ValueError(
                f'refuse would lock out "clear" too: say for how many seconds with "for", at most {LONGEST_REFUSAL:.0f}'
            )
        loop = asyncio.get_running_loop()
        if host in self._returns:
            self._returns[host].cancel()
        loop.call_soon(self._exchange.kill, host)  # once whoever asked for it has been answered
        self._returns[host] = loop.call_later(lasting, self._exchange.open, host)

    def _counters(self, host: int) -> dict[str, Any]:
        exchange = self._exchange
        fault = self._on(host)
        return {
            "name": self._names[host],
            "venue": exchange.venue.name,
            "requests": sum(1 for request in exchange.requests if request.host == host),
            "sockets": sum(1 for session in exchange.sessions if session.host == host),
            "active": fault.word if fault is not None else None,
            "orders": {client_id: times for (_, client_id), times in exchange.venue.accounts.executed.items()},
        }


def _says(status: int, **members: Any) -> Reply:
    return Reply(status, json.dumps(members, indent=2).encode() + b"\n")

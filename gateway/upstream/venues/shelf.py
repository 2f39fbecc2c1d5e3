"""The shelf: public answers that callers share while they are fresh, and requests that are under way.

Always true: one request is under way for any number of callers who ask for the same; only what a venue tells
to everybody is here, only good answers stay, none longer than its freshness, and never more than `MOST_BYTES`
of them; a caller waits no longer than its own deadline, and one that leaves costs the others nothing.
Does not belong here: what may be shared (dialect/venue_requests), and asking (forward).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from gateway.clock import Clock

MOST_BYTES = 64_000_000
LARGEST = 16_000_000  # one answer; Binance's exchangeInfo is about 12 MB, and a tenth of it compressed
OVERHEAD = 4096  # bytes counted for what an entry needs besides its answer; most of it is the request
KEYS = 10_000  # of which it is known how often they were asked for lately
POPULAR = 3  # times
HIT, JOINED, MISS = "hit", "joined", "miss"
"""How an answer came: it was fresh, another caller's request was under way, or it was asked for."""

T = TypeVar("T")


class Shelf:
    """The shared answers of one venue."""

    def __init__(self, clock: Clock) -> None:
        self.hits = 0
        self.joined = 0
        self.size = 0
        self._clock = clock
        self._entries: OrderedDict[Hashable, tuple[float, int, object]] = OrderedDict()
        self._flights: dict[Hashable, asyncio.Future[object]] = {}
        self._asked: OrderedDict[Hashable, int] = OrderedDict()  # how often lately

    def __len__(self) -> int:
        return len(self._entries)

    def popular(self, key: Hashable) -> bool:
        """Several have asked for it lately, so that one request more serves them all."""
        return self._asked.get(key, 0) >= POPULAR

    def _note(self, key: Hashable) -> None:
        self._asked[key] = self._asked.pop(key, 0) + 1
        if len(self._asked) > KEYS:
            self._asked.popitem(last=False)

    def fresh(self, key: Hashable) -> object | None:
        """A fresh answer; None: there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry[0]:
            self._drop(key)
            return None
        self.hits += 1
        return entry[2]

    async def get(
        self,
        key: Hashable,
        fresh_for: float,
        deadline_at: float,
        fetch: Callable[[], Awaitable[T]],
        size_of: Callable[[T], int | None],
    ) -> tuple[T, str]:
        """The answer, and how it came: `HIT`, `JOINED` or `MISS`.

        `size_of` says how many bytes an answer takes; None: it is not to be kept or shared.
        Raises what `fetch` raises, and TimeoutError when another caller's request takes too long.
        """
        self._note(key)
        while True:
            found = self.fresh(key)
            if found is not None:
                return found, HIT  # type: ignore[return-value]
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, fresh_for, fetch, size_of), MISS
            self.joined += 1
            done, _ = await asyncio.wait({flight}, timeout=max(0.0, deadline_at - self._clock()))
            if not done:
                raise TimeoutError
            if flight.cancelled():
                continue  # whoever asked has left, or its answer cannot be shared: ask again
            return flight.result(), JOINED  # type: ignore[return-value]

    async def _lead(
        self, key: Hashable, fresh_for: float, fetch: Callable[[], Awaitable[T]], size_of: Callable[[T], int | None]
    ) -> T:
        flight: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        began = self._clock()
        try:
            answer = await fetch()
        except BaseException:
            flight.cancel()
            raise
        finally:
            del self._flights[key]
        size = size_of(answer)
        if size is None:
            flight.cancel()
            return answer
        flight.set_result(answer)
        if size >= 0:
            self._keep(key, began + fresh_for, size + OVERHEAD, answer)
        return answer

    def _keep(self, key: Hashable, until: float, size: int, answer: object) -> None:
        if size > LARGEST or self._clock() >= until:
            return
        self._drop(key)
        self._entries[key] = (until, size, answer)
        self.size += size
        while self.size > MOST_BYTES:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry[1]

    def expire(self) -> None:
        """Forget what is no longer fresh.  Called about once a second; what was asked for counts half each time."""
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if now >= entry[0]]:
            self._drop(key)
        for key in list(self._asked):
            self._asked[key] //= 2
            if not self._asked[key]:
                del self._asked[key]

"""The sources of one feed: upstream subscriptions, on endpoints that fail as little together as possible.

Always true: as many are kept up as are wanted and can be had; one that is lost is replaced at once,
by an endpoint that shares no failure domain with it if there is one; one that still works and is to give way
(its endpoint is drained or gone from the configuration, or it lags) tells until another has been accepted and
both have told for a while; one that takes its time is not waited for alone; an endpoint that failed is left
alone for a while that doubles; each replacement leaves a trace.
Does not belong here: what the events mean (policy/feeds), sockets (line).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from gateway.clock import Clock
from gateway.errors import AttemptError
from gateway.events import Subscription
from gateway.model import AttemptRecord, Endpoint, Sent
from gateway.upstream.feeds.line import Line, Refused

CONNECT_WITHIN = 3.0  # seconds a line has to be up
SLOW_AFTER = 1.0  # seconds of connecting and subscribing after which another endpoint is tried beside
ALONE_FIRST = 0.5  # seconds that an endpoint which failed is left alone; doubles
ALONE_LONGEST = 60.0
OVERLAP = 2.0  # seconds that one which gives way still tells beside its successor
LEAVES_WITHIN = 10.0  # seconds after which it leaves although nobody has succeeded it
GOOD_AFTER = 30.0  # seconds after which a source's earlier failures are forgotten
TRACED_FOR = 60.0  # seconds: a replacement that comes later is a new beginning


class Lines(Protocol):
    """The endpoints of a route that have a WebSocket.  `exist`: there are such, whatever became of them."""

    @property
    def exist(self) -> bool: ...

    def candidates(self, now: float) -> list[Endpoint]:
        """Who may be a source now, the best first."""

    def line(self, endpoint: Endpoint) -> Line:
        """Its line, opened if it is not."""

    def endpoint(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint of a source, if it may still be one."""

    def believed(self, endpoint_id: str) -> bool:
        """May what comes of it be told until somebody else has taken over?"""


@dataclass(slots=True, eq=False)
class _Alone:
    until: float = 0.0
    times: int = 0


class Source:
    """One upstream subscription (see `line.Taker`).

    `gives_way_since`: since when it is to be replaced; `leaves_at`: when it leaves then, at the latest.
    """

    __slots__ = ("_sources", "endpoint", "gives_way_since", "leaves_at", "line", "number", "since", "upstream_id")

    def __init__(self, sources: Sources, number: int, endpoint: Endpoint, line: Line, now: float) -> None:
        self._sources = sources
        self.number = number
        self.endpoint = endpoint
        self.line = line
        self.since = now
        self.gives_way_since: float | None = None
        self.leaves_at = 0.0
        self.upstream_id: bytes | None = None

    def accepted(self, upstream_id: bytes) -> None:
        self.upstream_id = upstream_id
        self._sources.accepted(self)

    def notified(self, method: str, result: bytes) -> None:
        self._sources.notified(self, method, result)

    def ended(self, why: str) -> None:
        self._sources.lost(self, why)


class Sources:
    """See the module.  `joined`, `left` and `told` are told of sources by their number."""

    def __init__(
        self,
        lines: Lines,
        subscription: Subscription,
        wanted: int,
        clock: Clock,
        *,
        joined: Callable[[int], None],
        left: Callable[[int, str], None],
        told: Callable[[Source, str, bytes], None],
        replaced: Callable[[tuple[AttemptRecord, ...]], None],
    ) -> None:
        self._lines = lines
        self._subscription = subscription
        self.wanted = wanted
        self._clock = clock
        self._joined = joined
        self._left = left
        self._told = told
        self._replaced = replaced
        self._numbers = 0
        self._active: dict[int, Source] = {}
        self._trying: dict[str, tuple[asyncio.Task[None], float]] = {}  # and since when
        self._alone: dict[str, _Alone] = {}
        self._losses: list[AttemptRecord] = []
        self._changed = asyncio.Event()
        self._closed = False
        self.refusals: dict[str, bytes] = {}

    @property
    def active(self) -> Iterable[Source]:
        return self._active.values()

    @property
    def expected(self) -> bool:
        """Events should be pushed; else they are fetched as a matter of course."""
        return self._lines.exist

    @property
    def hopeless(self) -> bool:
        """Nobody is a source, nobody is being tried, and nobody could be."""
        now = self._clock()
        return (
            not self._active and not self._trying and not any(self._free(e, now) for e in self._lines.candidates(now))
        )

    async def settled(self, within: float) -> bool:
        """Wait until there is a source; False when there is none in time, or none is left to try."""
        until = self._clock() + within
        self.tend(self._clock())
        while not self._active:
            left = until - self._clock()
            if left <= 0 or self.hopeless:
                return False
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                return False
        return True

    def tend(self, now: float) -> None:
        """Replace what is missing, and let go of sources that may not be used any more."""
        if self._closed:
            return
        for source in list(self._active.values()):
            endpoint_id = source.endpoint.id
            if not self._lines.believed(endpoint_id):
                self.drop(source.number, "not_to_be_used")
            elif source.line.leaving or self._lines.endpoint(endpoint_id) is None:
                self.replace(source.number, "not_to_be_used")
            elif source.gives_way_since is None and now - source.since > GOOD_AFTER:
                self._alone.pop(endpoint_id, None)
        for source in self._staying[self.wanted :]:
            self.drop(source.number, "not_wanted")
        self._find_missing(now)
        self._part(now)

    @property
    def _staying(self) -> list[Source]:
        return [source for source in self._active.values() if source.gives_way_since is None]

    def _find_missing(self, now: float) -> None:
        hopes = sum(1 for _, began in self._trying.values() if now - began < SLOW_AFTER)
        missing = self.wanted - len(self._staying) - hopes
        if missing > 0:
            for endpoint in self._choose(missing, now):
                task = asyncio.ensure_future(self._try(endpoint))
                self._trying[endpoint.id] = task, now
                task.add_done_callback(functools.partial(self._tried, endpoint.id))

    def _part(self, now: float) -> None:
        """Let those leave that have been succeeded, or that nobody will succeed."""
        alone = bool(self._staying) and not self._trying  # others tell, and there are no more
        for source in list(self._active.values()):
            if (since := source.gives_way_since) is not None:
                if alone:
                    source.leaves_at = min(source.leaves_at, since + OVERLAP)
                if now >= source.leaves_at:
                    self.drop(source.number, "replaced")

    def replace(self, number: int, why: str) -> None:
        """This source is to give way: it tells until another one has been accepted, and a while beside it."""
        source = self._active.get(number)
        if source is None or source.gives_way_since is not None:
            return
        now = self._clock()
        source.gives_way_since, source.leaves_at = now, now + LEAVES_WITHIN
        self._note_loss(source, why, now)
        self.tend(now)

    def drop(self, number: int, why: str) -> None:
        """This source is not to be relied on."""
        source = self._active.get(number)
        if source is not None:
            if source.upstream_id is not None:
                source.line.unsubscribe(self._subscription, source.upstream_id)
            self.lost(source, why)

    def close(self) -> None:
        """Nobody needs them any more."""
        self._closed = True
        for task, _ in self._trying.values():
            task.cancel()
        for source in self._active.values():
            if source.upstream_id is not None:
                source.line.unsubscribe(self._subscription, source.upstream_id)
        self._active.clear()

    # --- what sources say -------------------------------------------------------------------------

    def accepted(self, source: Source) -> None:
        if self._closed or len(self._staying) >= self.wanted:  # another was quicker
            source.line.unsubscribe(self._subscription, source.upstream_id or b"")
            return
        self._active[source.number] = source
        self.refusals.pop(source.endpoint.id, None)
        if len(self._staying) >= self.wanted:
            until = self._clock() + OVERLAP
            for other in self._active.values():
                other.leaves_at = min(other.leaves_at, until)
        self._joined(source.number)

    def notified(self, source: Source, method: str, result: bytes) -> None:
        if source.number in self._active and not self._closed:
            self._told(source, method, result)

    def lost(self, source: Source, why: str) -> None:
        if self._active.pop(source.number, None) is None or self._closed:
            return
        now = self._clock()
        if source.gives_way_since is None:
            self._note_loss(source, why, now)
        self._left(source.number, why)
        self.tend(now)

    def _note_loss(self, source: Source, why: str, now: float) -> None:
        self._leave_alone(source.endpoint.id, now)
        self._losses.append(
            AttemptRecord(source.endpoint.id, "primary", why, Sent.ANSWERED, now, now, f"{now - source.since:.1f}s old")
        )
        del self._losses[:-8]

    # --- finding others ---------------------------------------------------------------------------

    def _choose(self, count: int, now: float) -> list[Endpoint]:
        """Endpoints to try, apart from those in use, from those being tried and from those just lost."""
        candidates = [e for e in self._lines.candidates(now) if self._free(e, now)]
        others = [source.endpoint for source in self._active.values()]
        others += [e for e in map(self._lines.endpoint, self._trying) if e is not None]
        lost = [e for e in (self._lines.endpoint(record.endpoint) for record in self._losses[-2:]) if e is not None]
        chosen: list[Endpoint] = []
        while candidates and len(chosen) < count:
            apart = [e for e in candidates if not any(e.shares_place_with(o) for o in (*others, *chosen))]
            far = [e for e in apart if not any(e.shares_place_with(o) for o in lost)]
            best = (far or apart or candidates)[0]
            chosen.append(best)
            candidates.remove(best)
        return chosen

    def _free(self, endpoint: Endpoint, now: float) -> bool:
        """May it be tried?  One whose source gives way may succeed itself, if nobody else does."""
        if endpoint.id in self._trying or any(s.endpoint.id == endpoint.id for s in self._staying):
            return False
        alone = self._alone.get(endpoint.id)
        return alone is None or now >= alone.until

    def _leave_alone(self, endpoint_id: str, now: float) -> None:
        alone = self._alone.setdefault(endpoint_id, _Alone())
        alone.until = now + min(ALONE_LONGEST, ALONE_FIRST * 2**alone.times)
        alone.times = min(alone.times + 1, 10)

    async def _try(self, endpoint: Endpoint) -> None:
        line = self._lines.line(endpoint)
        began = self._clock()
        try:
            if not await line.ready(CONNECT_WITHIN):
                self._leave_alone(endpoint.id, self._clock())
                return
            self._numbers += 1
            source = Source(self, self._numbers, endpoint, line, self._clock())
            await line.subscribe(self._subscription, source)
        except Refused as refused:
            self.refusals[endpoint.id] = refused.error
            self._leave_alone(endpoint.id, self._clock())
            return
        except AttemptError:
            self._leave_alone(endpoint.id, self._clock())
            return
        if source.number in self._active:
            self._tell_replacement(endpoint, began)

    def _tried(self, endpoint_id: str, task: asyncio.Task[None]) -> None:
        self._trying.pop(endpoint_id, None)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._leave_alone(endpoint_id, self._clock())  # else it would be tried again at once, for ever
            context = {"message": f"a source of {self._subscription.label}", "exception": bug}
            asyncio.get_running_loop().call_exception_handler(context)
        self._changed.set()
        if not self._closed:
            self.tend(self._clock())

    def _tell_replacement(self, endpoint: Endpoint, began: float) -> None:
        now = self._clock()
        losses = tuple(record for record in self._losses if now - record.ended_at < TRACED_FOR)
        self._losses.clear()
        if losses:
            self._replaced((*losses, AttemptRecord(endpoint.id, "retry", "answer", Sent.ANSWERED, began, now)))

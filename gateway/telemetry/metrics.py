"""Metrics: the owner of prometheus_client; turns tallies into what a Prometheus server scrapes.

Always true: a scrape has at most `MAX_SERIES` series, whatever callers send and however many
endpoints are configured; label values come from closed sets or are checked names, and never hold a
secret; names, units and help follow Prometheus' conventions.  Prometheus objects exist during a
scrape only: what runs per call holds on to a tally and adds integers.
A source of gauges that fails costs its gauges, never the scrape.

Does not belong here: counting (tallies), deciding what is healthy (policy), serving HTTP (edge).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway import errors
from gateway.model import Family, ReplyKind, Shown
from gateway.policy.breaker import BreakerState
from gateway.policy.verdicts import VerdictKind
from gateway.telemetry.redaction import Redactor
from gateway.telemetry.tallies import (
    BUCKETS,
    HISTOGRAM_SERIES,
    OTHER,
    AttemptStats,
    CallStats,
    LatencyHistogram,
    ReasonCounter,
    RouteStats,
    SeriesBudget,
)

MAX_SERIES: Final = 5000
SET_ASIDE: Final = 400  # the `other` cells with all their endings, single counters, what the process tells
GAUGES_SHARE: Final = 1000  # endpoints: what alerts are made of is never crowded out
CALLS_SHARE: Final = 1500  # route x method x result: the table that callers move cannot starve the others

_FAILURES: Final = [each for each in vars(errors).values() if isinstance(each, type)]
_REASONS: Final = frozenset(each.reason for each in _FAILURES if issubclass(each, errors.GatewayError))
_CALL_ENDINGS: Final = _REASONS | {shown.value for shown in Shown} | {OTHER}
_ATTEMPT_ENDINGS: Final = _REASONS | {kind.value for kind in ReplyKind} | {OTHER}
_CALLER_REASONS: Final = sorted({each.reason for each in _FAILURES if issubclass(each, errors.CallerError)})
_STATES: Final = frozenset(state.value for state in BreakerState)
_LES: Final = (*map(floatToGoString, BUCKETS), "+Inf")
# What a route, endpoint or method may be called in a label; a URL never fits.
_NAME: Final = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.:@-]{0,99}|(?:GET|POST|PUT|PATCH|DELETE) /[A-Za-z0-9_./{}~#*-]{0,99}"  # a venue's call
)

_VERDICTS: Final = tuple(kind.value for kind in VerdictKind)
_ROUTE_COUNTERS: Final = (
    ("failovers", "failovers", "Calls that needed more than one endpoint."),
    ("retry_budget_refusals", "retry_budget_refusals", "Retries not made because the retry budget was used up."),
    ("hedges", "hedges", "Second legs launched for reads that took long."),
    ("hedges_won", "hedges_won", "Second legs that answered first."),
    ("hedges_refused", "hedges_refused", "Second legs not launched because their budget was used up."),
    ("shed", "shed", "Calls that gave way while all endpoints were busy."),
    ("splits", "splits", "Queries that were asked in parts."),
    ("audits", "audits", "Reads that a second endpoint was asked, too."),
    ("audits_contradicted", "audits_contradicted", "Audited reads that the second endpoint contradicted."),
    ("consensus_failed", "consensus_failed", "Calls under consensus on which too few endpoints agreed."),
    ("request_faults", "request_faults", "Calls that all endpoints refused alike, counted against nobody."),
    ("events", "feed_events", "Events of subscriptions, each counted once however many callers it went to."),
    ("events_sent", "feed_events_sent", "The same, counted for each caller."),
    (
        "events_late",
        "feed_events_late",
        "Events that were fetched because no endpoint pushed them; without sockets none is expected to.",
    ),
    ("events_missed", "feed_events_missed", "Times that callers were told that events are lost."),
    ("gaps_found", "feed_gaps_found", "Runs of missing blocks that no endpoint pushed and that were fetched."),
    ("blocks_filled", "feed_blocks_filled", "Blocks told to subscribers that were fetched."),
    ("feed_failovers", "feed_failovers", "Upstream subscriptions replaced by one at another endpoint."),
)
T = TypeVar("T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EndpointGauge:
    """What a scrape shows of one endpoint.  `breakers`: (family, 0 closed, 1 half-open or 2 open).

    `lag` is in blocks, None while its head is unknown; `budget_left` a share, 1 without a budget.
    """

    route: str
    endpoint: str
    available: bool
    breakers: tuple[tuple[str, int], ...] = ()
    lag: int | None = None
    budget_left: float = 1.0


@dataclass(frozen=True, slots=True)
class RouteGauge:
    """What a scrape shows of one route: its newest block (-1: unknown), who waits, and what is wrong."""

    route: str
    head: int
    waiting: int
    verdicts: frozenset[str]


class Metrics(Collector):
    """Hands out tallies (on the cold path, to be held on to) and writes the scrape."""

    def __init__(
        self,
        version: str,
        redactor: Redactor | None = None,
        endpoints_source: Callable[[], Iterable[EndpointGauge]] = tuple,
        routes_source: Callable[[], Iterable[RouteGauge]] = tuple,
    ) -> None:
        """The sources are asked at each scrape; the attributes may be set later."""
        self.endpoints_source = endpoints_source
        self.routes_source = routes_source
        self.callers_refused = ReasonCounter(_CALLER_REASONS)
        self.edge_rejections = ReasonCounter(limit=40)
        self.config_reloads = ReasonCounter(("applied", "refused"))
        self._version = version
        self._redactor = redactor or Redactor()
        self._process = ProcessCollector(registry=None)
        self._unread = 0
        self._budget = SeriesBudget(MAX_SERIES - SET_ASIDE - GAUGES_SHARE)
        self._call_budget = SeriesBudget(CALLS_SHARE, whole=self._budget)
        self._fallback_routes: set[str] = set()  # routes whose line for `other` methods is claimed
        # Every table starts with the cell of last resort, whose series are set aside.
        calls_took, attempts_took = LatencyHistogram(), LatencyHistogram()
        self._other_calls = CallStats(calls_took, _CALL_ENDINGS, self._call_budget, None)
        self._other_attempts = AttemptStats(attempts_took, _ATTEMPT_ENDINGS, self._budget, None)
        self._calls = {(OTHER, OTHER): self._other_calls}
        self._call_durations = {(OTHER, OTHER): calls_took}
        self._attempts = {(OTHER, OTHER, OTHER): self._other_attempts}
        self._attempt_durations = {(OTHER, OTHER): attempts_took}
        self._routes = {OTHER: RouteStats()}
        self._transitions = {(OTHER, OTHER, OTHER): 0}

    # --- tallies: looked up on the cold path ------------------------------------------------------

    def stats_for(self, route: str, method_label: str, family: Family = Family.OTHER) -> CallStats:
        """The tally of one route x method (`Method.label`, `Method.family`); the same object each time.

        Past the cap, or for a label that is no name: the route's `other`; past that, that of all routes.
        """
        stats = self._calls.get((route, method_label))
        return self._call_stats(self._name(route), self._name(method_label), family) if stats is None else stats

    def _call_stats(self, route: str, method: str, family: Family) -> CallStats:
        stats = self._calls.get((route, method))
        if stats is not None:
            return stats
        if route not in self._fallback_routes:
            if not self._call_budget.take(1):
                return self._other_calls
            self._fallback_routes.add(route)
        duration = self._histogram(self._call_durations, (route, family.value))
        if method != OTHER and (duration is None or not self._call_budget.take(1)):
            return self._call_stats(route, OTHER, Family.OTHER)
        stats = CallStats(duration or self._other_calls.duration, _CALL_ENDINGS, self._call_budget, self._other_calls)
        self._calls[route, method] = stats
        return stats

    def attempts_for(self, route: str, endpoint: str, family: Family) -> AttemptStats:
        """The tally of attempts at one endpoint x family; to be held beside its breaker."""
        key = (self._name(route), self._name(endpoint), family.value)
        stats = self._attempts.get(key)
        if stats is not None:
            return stats
        duration = self._histogram(self._attempt_durations, key[:2])
        if duration is None or not self._budget.take(1):
            return self._other_attempts
        stats = AttemptStats(duration, _ATTEMPT_ENDINGS, self._budget, self._other_attempts)
        self._attempts[key] = stats
        return stats

    def route(self, route: str) -> RouteStats:
        """The single numbers of one route; to be held on to."""
        name = self._name(route)
        if name not in self._routes:
            if not self._budget.take(RouteStats.SERIES):
                return self._routes[OTHER]
            self._routes[name] = RouteStats()
        return self._routes[name]

    def breaker_moved(self, route: str, endpoint: str, to: str) -> None:
        """Count one transition; `to` is closed, half_open or open."""
        key = (self._name(route), self._name(endpoint), to if to in _STATES else OTHER)
        if key not in self._transitions and not self._budget.take(1):
            key = (OTHER, OTHER, OTHER)
        self._transitions[key] = self._transitions.get(key, 0) + 1

    def keep_only(self, endpoints: Mapping[str, Collection[str]]) -> None:
        """Forget routes and endpoints that a reload removed, so that their series make room.

        `endpoints` maps each remaining route to its endpoints.  Tallies that somebody still holds go
        on counting, unseen.
        """
        kept = {self._name(route): {OTHER, *map(self._name, ids)} for route, ids in endpoints.items()}
        kept.setdefault(OTHER, {OTHER})
        for call in [call for call in self._calls if call[0] not in kept]:
            lines = self._calls.pop(call).retire()
            self._call_budget.give_back(lines - (call[1] == OTHER))
        for route in self._fallback_routes - kept.keys():
            self._fallback_routes.discard(route)
            self._call_budget.give_back(1)
        for pair in [pair for pair in self._call_durations if pair[0] not in kept]:
            del self._call_durations[pair]
            self._budget.give_back(HISTOGRAM_SERIES)
        for cell in [cell for cell in self._attempts if cell[1] not in kept.get(cell[0], ())]:
            self._budget.give_back(self._attempts.pop(cell).retire())
        for pair in [pair for pair in self._attempt_durations if pair[1] not in kept.get(pair[0], ())]:
            del self._attempt_durations[pair]
            self._budget.give_back(HISTOGRAM_SERIES)
        for move in [move for move in self._transitions if move[1] not in kept.get(move[0], ())]:
            del self._transitions[move]
            self._budget.give_back(1)
        for route in self._routes.keys() - kept.keys():
            del self._routes[route]
            self._budget.give_back(RouteStats.SERIES)

    def _histogram(
        self, owned: dict[tuple[str, str], LatencyHistogram], key: tuple[str, str]
    ) -> LatencyHistogram | None:
        histogram = owned.get(key)
        if histogram is None and self._budget.take(HISTOGRAM_SERIES):
            histogram = owned[key] = LatencyHistogram()
        return histogram

    def _name(self, text: str) -> str:
        """`text` if it may stand in a label, else `other`."""
        return text if _NAME.fullmatch(text) and self._redactor.scrub(text) == text else OTHER

    # --- the scrape -------------------------------------------------------------------------------

    def expose(self, accept: str = "") -> tuple[bytes, str]:
        """The scrape and its content type: OpenMetrics 1.0 when `accept` asks for it, else text 0.0.4.

        To be called on the event loop's thread, as the tallies are.
        """
        # Not the library's own negotiation: it copies a version chosen by the caller into our header.
        if "application/openmetrics-text" in accept.lower():
            return generate_openmetrics(self), CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call]
        return generate_latest(self), CONTENT_TYPE_PLAIN_0_0_4

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("seawall_build", "The running version.", {"version": self._version})
        yield from self._collect_calls()
        yield from self._collect_attempts()
        yield from self._collect_routes()
        yield from self._collect_endpoints()
        yield from self._collect_reasons()
        yield from self._process.collect()

    def _collect_calls(self) -> Iterator[Metric]:
        calls = _counter("calls", "Calls, by what the caller got.", "route", "method", "result")
        for (route, method), stats in self._calls.items():
            calls.add_metric((route, method, Shown.ANSWER.value), stats.good)
            for result, count in stats.otherwise.items():
                calls.add_metric((route, method, result), count)
        yield calls
        took = _durations("call", "Time from a decoded call to its answer.", "route", "family")
        for labels, histogram in self._call_durations.items():
            took.add_metric(labels, list(zip(_LES, histogram.cumulative(), strict=True)), histogram.total)
        yield took

    def _collect_attempts(self) -> Iterator[Metric]:
        attempts = _counter(
            "attempts", "Attempts at endpoints, by how they ended.", "route", "endpoint", "family", "ended"
        )
        for cell, stats in self._attempts.items():
            attempts.add_metric((*cell, ReplyKind.ANSWER.value), stats.good)
            for ended, count in stats.otherwise.items():
                attempts.add_metric((*cell, ended), count)
        yield attempts
        took = _durations("attempt", "Time from launching an attempt to its end.", "route", "endpoint")
        for labels, histogram in self._attempt_durations.items():
            took.add_metric(labels, list(zip(_LES, histogram.cumulative(), strict=True)), histogram.total)
        yield took
        moves = _counter("breaker_transitions", "Breaker transitions, by new state.", "route", "endpoint", "to")
        for move, count in self._transitions.items():
            moves.add_metric(move, count)
        yield moves

    def _collect_routes(self) -> Iterator[Metric]:
        for attribute, name, doc in _ROUTE_COUNTERS:
            counter = _counter(name, doc, "route")
            for route, stats in self._routes.items():
                counter.add_metric((route,), getattr(stats, attribute))
            yield counter
        lookups = _counter("broadcast_lookups", "Transactions of unknown fate looked up by hash.", "route", "found")
        inflight = _gauge("inflight_calls", "Calls being worked on now.", "route")
        subscriptions = _gauge("subscriptions", "Subscriptions that callers hold now.", "route")
        for route, stats in self._routes.items():
            lookups.add_metric((route, "true"), stats.lookups_found)
            lookups.add_metric((route, "false"), stats.lookups_missing)
            inflight.add_metric((route,), stats.inflight)
            subscriptions.add_metric((route,), stats.subscriptions)
        yield from (lookups, inflight, subscriptions)
        heads = _gauge("head_block", "The newest block that is believed.", "route")
        waiting = _gauge("waiting_calls", "Calls that wait for a free endpoint.", "route")
        verdicts = _gauge("verdict", "1 while this is what is wrong with the route.", "route", "kind")
        for gauge in self._read(self.routes_source):
            name = self._name(gauge.route)
            if name not in self._routes:
                continue  # only what has its series set aside
            if gauge.head >= 0:
                heads.add_metric((name,), gauge.head)
            waiting.add_metric((name,), gauge.waiting)
            for kind in _VERDICTS:
                verdicts.add_metric((name, kind), 1.0 if kind in gauge.verdicts else 0.0)
        yield from (heads, waiting, verdicts)

    def _read(self, source: Callable[[], Iterable[T]]) -> list[T]:
        try:
            return list(source())
        except Exception:
            self._unread += 1
            _logger.exception("gauges could not be read")
            return []

    def _collect_endpoints(self) -> Iterator[Metric]:
        available = _gauge("endpoint_available", "1 when the endpoint may be chosen, else 0.", "route", "endpoint")
        breakers = _gauge("breaker_state", "Breaker: 0 closed, 1 half-open, 2 open.", "route", "endpoint", "family")
        lag = _gauge("endpoint_lag_blocks", "Blocks behind the newest one that is believed.", "route", "endpoint")
        left = _gauge("endpoint_budget_left", "Share of the rate budget that is left.", "route", "endpoint")
        gauges = {(self._name(e.route), self._name(e.endpoint)): e for e in self._read(self.endpoints_source)}
        states = {(*where, self._name(name)): state for where, each in gauges.items() for name, state in each.breakers}
        shown = list(gauges.items())[: GAUGES_SHARE // 3]
        for where, gauge in shown:
            available.add_metric(where, 1.0 if gauge.available else 0.0)
            left.add_metric(where, gauge.budget_left)
            if gauge.lag is not None:
                lag.add_metric(where, gauge.lag)
        # When they do not all fit, open breakers are what somebody looks for.
        by_state = sorted(states.items(), key=lambda item: -item[1])[: GAUGES_SHARE - 3 * len(shown)]
        for cell, state in by_state:
            breakers.add_metric(cell, state)
        yield from (available, breakers, lag, left)

    def _collect_reasons(self) -> Iterator[Metric]:
        for name, doc, label, counter in (
            ("callers_refused", "Calls refused by our own rules.", "reason", self.callers_refused),
            (
                "edge_rejections",
                "Connections and requests refused before a call was decoded.",
                "reason",
                self.edge_rejections,
            ),
            ("config_reloads", "Configuration reloads.", "result", self.config_reloads),
        ):
            family = _counter(name, doc, label)
            for value, count in counter:
                family.add_metric((value,), count)
            yield family
        folded = self._budget.refused + self._call_budget.refused
        yield _counter("metrics_folded", "Times a series found no room and was counted as other.").of(folded)
        yield _counter("metrics_endpoints_unread", "Scrapes in which the gauges of endpoints could not be read.").of(
            self._unread
        )


class _Counter(CounterMetricFamily):
    """A counter family that can be filled in one expression when it has no labels."""

    def of(self, value: float) -> _Counter:
        self.add_metric((), value)
        return self


def _counter(name: str, doc: str, *labels: str) -> _Counter:
    return _Counter(f"seawall_{name}", doc, labels=labels)


def _gauge(name: str, doc: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"seawall_{name}", doc, labels=labels)


def _durations(name: str, doc: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"seawall_{name}_duration_seconds", doc, labels=labels, unit="seconds")

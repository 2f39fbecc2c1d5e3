"""What operators are told of what happened, and how often."""

from __future__ import annotations

import logging
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.dialect.evm import EvmDialect
from gateway.edge.observer import Observer
from gateway.errors import AttemptsFailed, CallerLeft, GatewayError
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.tallies import RouteStats
from gateway.upstream.calls.answers import Answer, Execution
from gateway.upstream.fleet.permits import Moved


def test_the_end_of_a_storm_is_told_although_nothing_follows_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 100.0
    nobody = cast(Any, None)  # neither metrics nor traces hear of a head that moves
    observer = Observer(nobody, nobody, lambda: now, Random(1))
    for _ in range(50):
        observer.moved(Moved("ethereum", "alder", "head", "", "current", "lagging"))
    logged = len(caplog.records)
    assert 0 < logged < 50
    observer.settle(now + 1.0)
    assert len(caplog.records) == logged, "it may go on"
    observer.settle(now + 120.0)
    assert f"{50 - logged} times more" in caplog.records[-1].getMessage()
    observer.settle(now + 240.0)
    assert len(caplog.records) == logged + 1, "told once"


class StillTracer:
    """Nothing is traced."""

    enabled = False


def told_of(error: GatewayError, caplog: pytest.LogCaptureFixture, execution: Execution | None = None) -> list[str]:
    """The warnings about one call that ended so."""
    caplog.clear()
    metrics = Metrics("1")
    route = cast(Any, SimpleNamespace(name="ethereum", stats=RouteStats()))
    observer = Observer(metrics, cast(Any, StillTracer()), lambda: 100.0, Random(1))
    call = EvmDialect().call("eth_sendRawTransaction", b'["0x02"]', b"1")
    observer.ended(route, call, Answer(error=error, execution=execution), 99.0, None)
    assert metrics.stats_for("ethereum", call.method.label, call.method.family).otherwise == {error.reason: 1}
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_caller_who_left_is_counted_and_worries_nobody(caplog: pytest.LogCaptureFixture) -> None:
    assert told_of(CallerLeft("the caller closed its connection"), caplog) == []
    assert told_of(CallerLeft("the caller closed its connection"), caplog, Execution.NOT_SENT) == []
    assert len(told_of(AttemptsFailed("no endpoint gave an answer"), caplog)) == 1


def test_what_became_of_a_transaction_is_a_worry_although_its_caller_left(caplog: pytest.LogCaptureFixture) -> None:
    assert len(told_of(CallerLeft("the caller closed its connection"), caplog, Execution.UNKNOWN)) == 1

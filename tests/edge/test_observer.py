"""What operators are told of what happened, and how often."""

from __future__ import annotations

import logging
from random import Random
from typing import Any, cast

import pytest

from gateway.edge.observer import Observer
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

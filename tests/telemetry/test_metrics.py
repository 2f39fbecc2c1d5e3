from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.model import Family
from gateway.telemetry import metrics as module
from gateway.telemetry.metrics import GAUGES_SHARE, MAX_SERIES, SET_ASIDE, EndpointGauge, Metrics
from gateway.telemetry.redaction import Redactor

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def lines(metrics: Metrics) -> list[str]:
    return [line for line in metrics.expose()[0].decode().splitlines() if not line.startswith("#")]


def series(metrics: Metrics) -> dict[str, float]:
    values: dict[str, float] = {}
    for line in lines(metrics):
        name, value = line.rsplit(" ", 1)
        assert name not in values, f"two samples for {name}"
        values[name] = float(value)
    return values


def busy() -> Metrics:
    """Everything counted at least once."""
    gauges = [
        EndpointGauge("eth", "a", True, (("state", 0), ("logs", 2))),
        EndpointGauge("eth", "b", False, (("state", 1),)),
    ]
    metrics = Metrics("1.2.3", endpoints_source=lambda: gauges)
    calls = metrics.stats_for("eth", "eth_call", Family.STATE)
    calls.done(0.002)
    calls.ended("deadline_passed", 40.0)
    attempts = metrics.attempts_for("eth", "a", Family.STATE)
    attempts.done(0.001)
    attempts.ended("server_fault", 0.2)
    route = metrics.route("eth")
    route.failovers += 1
    route.inflight += 2
    route.lookups_found += 1
    route.lookups_missing += 3
    route.retry_budget_refusals += 4
    metrics.breaker_moved("eth", "a", "open")
    metrics.callers_refused.count("unauthorized")
    metrics.edge_rejections.count("head_too_large")
    metrics.config_reloads.count("applied")
    return metrics


# --- what a scrape says ---------------------------------------------------------------------------


def test_every_count_arrives_under_its_name_and_labels() -> None:
    seen = series(busy())
    expected = {
        'seawall_build_info{version="1.2.3"}': 1,
        'seawall_calls_total{method="eth_call",result="answer",route="eth"}': 1,
        'seawall_calls_total{method="eth_call",result="deadline_passed",route="eth"}': 1,
        'seawall_call_duration_seconds_bucket{family="state",le="0.001",route="eth"}': 0,
        'seawall_call_duration_seconds_bucket{family="state",le="0.0025",route="eth"}': 1,
        'seawall_call_duration_seconds_bucket{family="state",le="30.0",route="eth"}': 1,
        'seawall_call_duration_seconds_bucket{family="state",le="+Inf",route="eth"}': 2,
        'seawall_call_duration_seconds_count{family="state",route="eth"}': 2,
        'seawall_call_duration_seconds_sum{family="state",route="eth"}': 40.002,
        'seawall_attempts_total{ended="answer",endpoint="a",family="state",route="eth"}': 1,
        'seawall_attempts_total{ended="server_fault",endpoint="a",family="state",route="eth"}': 1,
        'seawall_attempt_duration_seconds_count{endpoint="a",route="eth"}': 2,
        'seawall_failovers_total{route="eth"}': 1,
        'seawall_inflight_calls{route="eth"}': 2,
        'seawall_broadcast_lookups_total{found="true",route="eth"}': 1,
        'seawall_broadcast_lookups_total{found="false",route="eth"}': 3,
        'seawall_retry_budget_refusals_total{route="eth"}': 4,
        'seawall_breaker_transitions_total{endpoint="a",route="eth",to="open"}': 1,
        'seawall_breaker_state{endpoint="a",family="state",route="eth"}': 0,
        'seawall_breaker_state{endpoint="b",family="state",route="eth"}': 1,
        'seawall_breaker_state{endpoint="a",family="logs",route="eth"}': 2,
        'seawall_endpoint_available{endpoint="a",route="eth"}': 1,
        'seawall_endpoint_available{endpoint="b",route="eth"}': 0,
        'seawall_callers_refused_total{reason="unauthorized"}': 1,
        'seawall_callers_refused_total{reason="over_budget"}': 0,
        'seawall_edge_rejections_total{reason="head_too_large"}': 1,
        'seawall_config_reloads_total{result="applied"}': 1,
        'seawall_config_reloads_total{result="refused"}': 0,
    }
    assert {name: seen.get(name) for name in expected} == expected


def test_openmetrics_is_served_when_asked_for() -> None:
    body, content_type = busy().expose(OPENMETRICS)
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"# EOF\n")
    assert body.count(b"# UNIT seawall_call_duration_seconds seconds") == 1


@given(accept=st.text())
def test_no_accept_header_breaks_a_scrape_or_reaches_its_content_type(accept: str) -> None:
    body, content_type = Metrics("1").expose(accept)
    assert content_type in (
        "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    )
    assert b"seawall_build_info" in body


def families(metrics: Metrics) -> Iterator[Metric]:
    # Strict about order, suffixes and duplicates, unlike the other parser.
    yield from parse_openmetrics(metrics.expose(OPENMETRICS)[0].decode())  # type: ignore[no-untyped-call]


def test_names_units_and_help_follow_the_conventions() -> None:
    ours = [family for family in families(busy()) if family.name.startswith("seawall")]
    assert len(ours) >= 15
    for family in ours:
        assert re.fullmatch(r"seawall(_[a-z0-9]+)+", family.name)
        assert family.documentation[0].isupper() or family.documentation[0].isdigit()
        assert family.documentation.endswith(".")
        assert not re.search(r"_(ms|sec|secs|milliseconds|kb|count|counter|gauge|histogram)(_|$)", family.name)
        assert family.unit == ("seconds" if family.name.endswith("_seconds") else "")
        assert (family.type == "histogram") == ("duration" in family.name)
        if family.type == "counter":
            assert all(sample.name == family.name + "_total" for sample in family.samples)


def test_both_formats_hold_the_same_samples() -> None:
    metrics = busy()

    def ours(found: Iterator[Metric]) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
        samples = [sample for family in found for sample in family.samples if sample.name.startswith("seawall")]
        return {(sample.name, tuple(sorted(sample.labels.items())), sample.value) for sample in samples}

    assert ours(families(metrics)) == ours(iter(parse_text(metrics.expose()[0].decode())))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=busy().expose()[0], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# --- bounds ---------------------------------------------------------------------------------------


def test_a_hundred_thousand_method_names_make_at_most_five_thousand_series() -> None:
    metrics = Metrics("1")
    chance = random.Random(1)
    for _ in range(100_000):
        stats = metrics.stats_for("eth", f"m{chance.getrandbits(80):x}", chance.choice(list(Family)))
        stats.done(0.01)
        stats.ended(chance.choice(["refusal", "deadline_passed", "no_endpoint", "nonsense"]), 0.01)
    seen = series(metrics)
    assert len(seen) <= MAX_SERIES
    assert sum(value for name, value in seen.items() if name.startswith("seawall_calls_total")) == 200_000
    assert seen['seawall_calls_total{method="other",result="answer",route="eth"}'] > 90_000
    assert seen["seawall_metrics_folded_total"] > 0


def test_a_hundred_thousand_of_everything_make_at_most_five_thousand_series() -> None:
    gauges = [EndpointGauge(f"r{i}", f"e{i}", True, (("state", i % 3),)) for i in range(10_000)]
    metrics = Metrics("1", endpoints_source=lambda: gauges)
    for i in range(100_000):
        name = f"n{i}"
        metrics.stats_for(name, name).ended(name, 0.1)
        metrics.attempts_for(name, name, Family.LOGS).ended("bad_reply", 0.1)
        metrics.route(name).failovers += 1
        metrics.breaker_moved(name, name, name)
        for counter in (metrics.callers_refused, metrics.edge_rejections, metrics.config_reloads):
            counter.count(name)
    seen = series(metrics)
    assert len(seen) <= MAX_SERIES
    for name in ("calls", "attempts", "failovers", "breaker_transitions", "edge_rejections", "callers_refused"):
        assert sum(value for key, value in seen.items() if key.startswith(f"seawall_{name}_total")) == 100_000, name


def test_the_series_set_aside_are_enough_for_every_ending() -> None:
    metrics = Metrics("1")
    calls, attempts = metrics.stats_for("", "", Family.OTHER), metrics.attempts_for("", "", Family.OTHER)
    for ending in module._CALL_ENDINGS | module._ATTEMPT_ENDINGS:
        calls.ended(ending, 0.1)
        attempts.ended(ending, 0.1)
    for number in range(1000):
        metrics.edge_rejections.count(f"reason{number}")
    assert len(lines(metrics)) <= SET_ASIDE


def test_callers_cannot_crowd_out_endpoints_or_other_routes() -> None:
    metrics = Metrics("1", endpoints_source=lambda: [EndpointGauge("eth", "a", True)])
    for number in range(10_000):
        metrics.stats_for("eth", f"m{number}").done(0.1)
    metrics.attempts_for("eth", "a", Family.STATE).done(0.1)
    metrics.route("sol").inflight += 1
    seen = series(metrics)
    assert seen['seawall_endpoint_available{endpoint="a",route="eth"}'] == 1
    assert seen['seawall_attempts_total{ended="answer",endpoint="a",family="state",route="eth"}'] == 1
    assert seen['seawall_inflight_calls{route="sol"}'] == 1


def test_open_breakers_are_shown_first_when_not_all_fit() -> None:
    gauges = [EndpointGauge("r", f"e{i}", i % 2 == 0, (("state", 2 if i == 799 else 0),)) for i in range(800)]
    seen = series(Metrics("1", endpoints_source=lambda: gauges))
    assert seen['seawall_breaker_state{endpoint="e799",family="state",route="r"}'] == 2
    kinds = ("seawall_breaker_state", "seawall_endpoint_available", "seawall_endpoint_lag", "seawall_endpoint_budget")
    assert GAUGES_SHARE * 0.6 < len([name for name in seen if name.startswith(kinds)]) <= GAUGES_SHARE


def test_an_ending_outside_the_closed_set_is_other() -> None:
    metrics = Metrics("1")
    metrics.stats_for("eth", "eth_call").ended("whatever the upstream said", 0.1)
    assert 'seawall_calls_total{method="eth_call",result="other",route="eth"} 1.0' in lines(metrics)


def test_the_same_tally_is_handed_out_each_time() -> None:
    metrics = Metrics("1")
    assert metrics.stats_for("eth", "eth_call") is metrics.stats_for("eth", "eth_call")
    assert metrics.attempts_for("eth", "a", Family.LOGS) is metrics.attempts_for("eth", "a", Family.LOGS)
    assert metrics.route("eth") is metrics.route("eth")
    assert metrics.stats_for("eth", "a", Family.LOGS).duration is metrics.stats_for("eth", "b", Family.LOGS).duration


@settings(max_examples=30)
@given(
    before=st.sets(st.integers(0, 5), max_size=6),
    after=st.sets(st.integers(0, 5), max_size=6),
)
def test_what_a_reload_removed_makes_room_again(before: set[int], after: set[int]) -> None:
    def fill(metrics: Metrics, numbers: set[int]) -> None:
        for number in sorted(numbers):
            name = f"r{number}"
            metrics.stats_for(name, "eth_call", Family.STATE).ended("refusal", 0.1)
            metrics.stats_for(name, "other").done(0.1)
            metrics.attempts_for(name, name, Family.STATE).ended("bad_reply", 0.1)
            metrics.route(name).failovers += 1
            metrics.breaker_moved(name, name, "open")

    reloaded, fresh = Metrics("1"), Metrics("1")
    fill(reloaded, before)
    reloaded.keep_only({f"r{number}": {f"r{number}"} for number in after})
    fill(reloaded, after)
    fill(fresh, after)
    assert reloaded._budget.taken == fresh._budget.taken
    assert reloaded._call_budget.taken == fresh._call_budget.taken

    def names(metrics: Metrics) -> set[str]:
        return set(series(metrics))

    assert names(reloaded) == names(fresh)


def test_a_removed_tally_that_is_still_held_claims_no_series() -> None:
    metrics = Metrics("1")
    calls, attempts = metrics.stats_for("eth", "eth_call"), metrics.attempts_for("eth", "a", Family.STATE)
    metrics.keep_only({})
    before = (metrics._budget.taken, metrics._call_budget.taken)
    calls.ended("refusal", 0.1)
    attempts.ended("bad_reply", 0.1)
    assert (metrics._budget.taken, metrics._call_budget.taken) == before == (0, 0)


def test_a_source_of_gauges_that_fails_costs_its_gauges_not_the_scrape(
    logging_to: Callable[..., object],
) -> None:
    def broken() -> list[EndpointGauge]:
        raise RuntimeError("not ready")

    logging_to("json")
    seen = series(Metrics("1", endpoints_source=broken))
    assert seen["seawall_metrics_endpoints_unread_total"] == 1


# --- secrets --------------------------------------------------------------------------------------

HOSTILE = ("https://host/v3/key", "a b", "", "x" * 101, 'q"} 1\nseawall_forged 1', "a\\", "naïve", "\x00", "a/b", "a?b")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_label_that_is_no_name_becomes_other(name: str) -> None:
    metrics = Metrics("1", endpoints_source=lambda: [EndpointGauge(name, name, True, ((name, 1),))])
    metrics.stats_for(name, name).done(0.1)
    metrics.attempts_for(name, name, Family.STATE).done(0.1)
    metrics.route(name).failovers += 1
    metrics.breaker_moved(name, name, name)
    clean = Metrics("1", endpoints_source=lambda: [EndpointGauge("other", "other", True, (("other", 1),))])
    clean.attempts_for("other", "other", Family.STATE)
    clean.stats_for("other", "other")
    assert set(series(metrics)) == set(series(clean))


def test_no_label_holds_a_canary(
    encode: Callable[[str], str],
    redactor: Redactor,
    canaries: tuple[str, ...],
    assert_silent: Callable[[str], None],
) -> None:
    texts = [form for canary in canaries for form in (encode(canary), "x" + encode(canary))]
    metrics = Metrics("1", redactor, lambda: [EndpointGauge(text, text, True, ((text, 1),)) for text in texts])
    for text in texts:
        metrics.stats_for(text, text).ended(text, 0.1)
        metrics.attempts_for(text, text, Family.STATE).ended(text, 0.1)
        metrics.route(text).failovers += 1
        metrics.breaker_moved(text, text, text)
    assert_silent(metrics.expose()[0].decode())
    assert_silent(metrics.expose(OPENMETRICS)[0].decode())

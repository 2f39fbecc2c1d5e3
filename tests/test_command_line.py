"""What people see who type `seawall`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gateway.config.load import settings_for_urls, warnings_of
from tests.real.processes import free_port


def seawall(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words], capture_output=True, text=True, check=False, timeout=180
    )


def simulated(folder: Path, answering: int, listed: int) -> Path:
    """A file with so many endpoints, of which so many answer."""
    ports = [free_port() for _ in range(listed)]
    lines = ["simulated:"]
    lines += [f"  s{i}: {{listen: '127.0.0.1:{ports[i]}', client_version: 'Geth/v1.13.{i}'}}" for i in range(answering)]
    lines += ["routes:", "  local:", "    chain_id: 31337", "    endpoints:"]
    lines += [f"      - {{id: e{i}, url: 'http://127.0.0.1:{ports[i]}', cloud: c{i}}}" for i in range(listed)]
    config = folder / "seawall.yaml"
    config.write_text("\n".join(lines) + "\n")
    return config


def test_probe_shows_every_endpoint_and_a_verdict_per_route(tmp_path: Path) -> None:
    done = seawall("probe", str(simulated(tmp_path, 2, 2)))
    assert done.returncode == 0, done.stderr
    assert "all well" in done.stdout
    for word in ("e0", "e1", "healthy", "31337", "geth/1.13.0", "cloud=c0"):
        assert word in done.stdout


def test_probe_says_what_is_wrong_and_ends_with_one_when_a_route_has_nobody(tmp_path: Path) -> None:
    done = seawall("probe", str(simulated(tmp_path, 1, 2)), "--json")
    report = json.loads(done.stdout)["routes"][0]
    assert done.returncode == 0, "one of two serves"
    assert [row["reasons"][0]["reason"] for row in report["endpoints"] if row["reasons"]] == ["unverified"]
    done = seawall("probe", str(simulated(tmp_path, 0, 2)))
    assert done.returncode == 1
    assert "unverified" in done.stdout


def test_probe_says_how_an_endpoint_failed_and_names_no_latency_of_it(tmp_path: Path) -> None:
    done = seawall("probe", str(simulated(tmp_path, 1, 2)))
    row = next(line for line in done.stdout.splitlines() if line.startswith("e1 "))
    assert row.split() == ["e1", "unverified", "(connect_failed)", "-", "-", "-", "-", "cloud=c1"]
    assert "\x1b" not in done.stdout, "colours in a pipe"


def test_explain_prints_its_table_and_nothing_of_what_goes_on_meanwhile(tmp_path: Path) -> None:
    done = seawall("explain", str(simulated(tmp_path, 1, 2)), "local", "eth_call")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "chosen from" in done.stdout


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{free}", "is a gateway listening there?"),
        ("127.0.0.1:{free}", "is a gateway listening there?"),
        ("ftp://127.0.0.1:{free}", "give http://host:port"),
        ("http://[", "is a gateway listening there?"),
        ("http://127.0.0.1:{other}", "something else than a gateway listens"),
    ],
)
def test_top_without_a_gateway_says_what_is_there_instead(url: str, said: str) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        threading.Thread(target=other.handle_request, daemon=True).start()
        done = seawall("top", url.format(free=free_port(), other=other.server_port), "--once")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_check_names_the_domain_that_all_endpoints_share_by_their_names() -> None:
    settings = settings_for_urls(("https://a.us-east-1.elb.amazonaws.com", "https://b.us-east-1.elb.amazonaws.com"))
    warnings = " ".join(warnings_of(settings))
    assert "the same region, us-east-1" in warnings
    apart = settings_for_urls(("https://a.us-east-1.elb.amazonaws.com", "https://b.eu-west-1.elb.amazonaws.com"))
    assert "region" not in " ".join(warnings_of(apart))


def test_probe_and_explain_work_beside_a_gateway_that_serves_the_same_file(tmp_path: Path) -> None:
    config = simulated(tmp_path, 2, 2)
    public, operations = free_port(), free_port()
    listening = f"listen: 127.0.0.1:{public}\noperations: {{listen: '127.0.0.1:{operations}'}}\n"
    config.write_text(listening + config.read_text())
    with subprocess.Popen([sys.executable, "-m", "gateway", "serve", str(config)], stderr=subprocess.PIPE) as serving:
        try:
            assert serving.stderr is not None
            assert any(b"ready on" in line for line in serving.stderr), "it did not start"
            done = seawall("probe", str(config))
            assert done.returncode == 0, done.stderr
            assert "all well" in done.stdout
            done = seawall("explain", str(config), "local", "eth_call")
            assert "chosen from" in done.stdout, done.stderr
            done = seawall("serve", str(config))
            assert done.returncode == 1
            assert "cannot listen on 127.0.0.1:" in done.stderr
        finally:
            serving.terminate()
            serving.communicate(timeout=30)

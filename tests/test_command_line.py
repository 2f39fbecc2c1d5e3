"""What people see who type `seawall`."""

from __future__ import annotations

import json
import signal
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


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("4000", "--listen: expected host:port such as 127.0.0.1:4000"),  # else it would be every address there is
        (":4000", "--listen: expected host:port such as 127.0.0.1:4000"),
        ("nonsense", "--listen: expected host:port such as 127.0.0.1:4000"),
        ("127.0.0.1:99999", "--listen: a port is at most 65535"),
        ("127.0.0.1:4001", "--listen: 127.0.0.1:4001 is taken by something else"),
        ("192.0.2.1:4000", "cannot start: cannot listen on 192.0.2.1:4000: "),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_told_in_one_line(listen: str, told: str) -> None:
    done = seawall("serve", "-u", "http://127.0.0.1:9", "--listen", listen)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gateway_whose_address_was_given_in_place_of_the_files_reloads_the_file(tmp_path: Path) -> None:
    config = simulated(tmp_path, 2, 2)
    public, operations = free_port(), free_port()
    config.write_text(config.read_text() + f"operations: {{listen: '127.0.0.1:{operations}'}}\n")
    listen = f"127.0.0.1:{public}"
    command = [sys.executable, "-m", "gateway", "serve", str(config), "--listen", listen]
    gateway = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert gateway.stderr is not None
        for line in gateway.stderr:
            if '"message":"ready on' in line:
                gateway.send_signal(signal.SIGHUP)
            if "configuration" in line:
                assert "configuration applied" in line
                break
    finally:
        gateway.terminate()
        _, rest = gateway.communicate(timeout=20)
    assert gateway.returncode == 0, rest


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

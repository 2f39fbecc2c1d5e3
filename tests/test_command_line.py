"""What people see who type `seawall`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from gateway.config.load import settings_for_urls, warnings_of


def seawall(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words], capture_output=True, text=True, check=False, timeout=60
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def simulated(folder: Path, answering: int, listed: int) -> Path:
    """A file with so many endpoints, of which so many answer."""
    ports = free_ports(listed)
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


def test_top_without_a_gateway_says_so() -> None:
    done = seawall("top", f"http://127.0.0.1:{free_ports(1)[0]}", "--once")
    assert done.returncode == 1
    assert "is a gateway listening there?" in done.stderr


def test_check_names_the_domain_that_all_endpoints_share_by_their_names() -> None:
    settings = settings_for_urls(("https://a.us-east-1.elb.amazonaws.com", "https://b.us-east-1.elb.amazonaws.com"))
    warnings = " ".join(warnings_of(settings))
    assert "the same region, us-east-1" in warnings
    apart = settings_for_urls(("https://a.us-east-1.elb.amazonaws.com", "https://b.eu-west-1.elb.amazonaws.com"))
    assert "region" not in " ".join(warnings_of(apart))


def test_probe_and_explain_work_beside_a_gateway_that_serves_the_same_file(tmp_path: Path) -> None:
    config = simulated(tmp_path, 2, 2)
    public, operations = free_ports(2)
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

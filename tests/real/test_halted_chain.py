"""A real chain stops: anvil without mining.  It is named, and nobody is blamed."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.pace import PATIENCE, at_most
from tests.real.processes import anvil, free_port, missing, rpc, seawall

pytestmark = [pytest.mark.real, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]
BLOCK_TIME = 2


def route(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.rsplit("/", 1)[0] + "/status.json", timeout=PATIENCE) as answer:  # noqa: S310 - loopback
        found: dict[str, Any] = json.load(answer)["routes"][0]
        return found


def until(holds: Any) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < PATIENCE, "did not come true"
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_chain_that_stops_is_called_halted_within_three_block_times(tmp_path: Path) -> None:
    port = free_port()
    node = f"http://127.0.0.1:{port}"
    with anvil(port, "--block-time", str(BLOCK_TIME)), seawall(tmp_path, {"one": node, "two": node + "/"}) as url:
        until(lambda: route(url)["head"] is not None and route(url)["head"]["number"] >= 3)
        last = int(str(rpc(url, "eth_blockNumber")), 16)
        rpc(node, "evm_setIntervalMining", 0)
        stopped = time.monotonic()
        until(lambda: any(v["kind"] == "chain_halted" for v in route(url)["verdicts"]))
        took = time.monotonic() - stopped
        for _ in range(50):
            assert int(str(rpc(url, "eth_blockNumber")), 16) >= last
        reasons = [reason for endpoint in route(url)["endpoints"] for reason in endpoint["reasons"]]
        rpc(node, "evm_setIntervalMining", BLOCK_TIME)
        back = until(lambda: not route(url)["verdicts"])
        print(f"halted after {took:.1f} s at {BLOCK_TIME} s a block, over {back:.1f} s after the first new block")
        assert reasons == []
        at_most(took, 3 * BLOCK_TIME + 1.0, "seconds until the halt was named")

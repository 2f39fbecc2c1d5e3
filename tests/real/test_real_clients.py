"""web3.py, viem and ethers over two anvils and a ganache: killing one node in the middle loses no call."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.dying import DyingProxy
from tests.real.processes import HERE, MNEMONIC, anvil, free_port, ganache, missing, rpc, seawall

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
    pytest.mark.skipif(
        importlib.util.find_spec("web3") is None, reason="web3 is not installed: make check installs it"
    ),
]

COUNT = 600
SCRIPTS = {
    "web3.py sync": [sys.executable, str(HERE / "reads.py"), "sync"],
    "web3.py batch": [sys.executable, str(HERE / "reads.py"), "batch"],
    "web3.py async": [sys.executable, str(HERE / "reads.py"), "async"],
    "viem": ["node", str(HERE / "reads.mjs"), "viem"],
    "ethers": ["node", str(HERE / "reads.mjs"), "ethers"],
}


@pytest.fixture(scope="module")
def lasting() -> Iterator[dict[str, str]]:
    """An anvil and a ganache that live as long as the module."""
    first, other = free_port(), free_port()
    with anvil(first, "--block-time", "1"), ganache(other):
        yield {"anvil-1": f"http://127.0.0.1:{first}", "ganache": f"http://127.0.0.1:{other}"}


@pytest.mark.parametrize("client", SCRIPTS)
def test_killing_one_node_in_the_middle_loses_no_call(client: str, lasting: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    with anvil(port, "--block-time", "1") as victim:
        endpoints = {"anvil-2": f"http://127.0.0.1:{port}", **lasting}
        with seawall(tmp_path, endpoints) as url:
            script = subprocess.Popen([*SCRIPTS[client], url, str(COUNT)], stdout=subprocess.PIPE, text=True)
            assert script.stdout is not None
            with contextlib.closing(script.stdout) as lines:
                assert lines.readline().strip() == "third"
                victim.kill()
                last = lines.readline().strip()
            assert script.wait(120) == 0
            assert last.startswith("done ")
            print(f"{client}: {last.split()[1]} calls, one node killed after a third, 0 lost")


def test_a_transaction_whose_node_dies_after_reading_is_mined_once_and_its_hash_comes_back(tmp_path: Path) -> None:
    from eth_account import Account
    from web3 import HTTPProvider, Web3

    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(MNEMONIC)
    port = free_port()
    node = f"http://127.0.0.1:{port}"
    with anvil(port) as _, DyingProxy(node) as proxy:
        # both ways lead to the same chain; the first dies over every send, after the node has taken it
        with seawall(tmp_path, {"dies": proxy.url, "lives": node}, tiered=True) as url:
            w3 = Web3(HTTPProvider(url, exception_retry_configuration=None))
            for nonce in range(12):
                signed = account.sign_transaction(
                    {
                        "chainId": 31337, "nonce": nonce, "to": account.address, "value": nonce + 1, "gas": 21000,
                        "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9,
                    }
                )  # fmt: skip
                known = w3.eth.send_raw_transaction(signed.raw_transaction)
                assert known == signed.hash
                receipt = w3.eth.wait_for_transaction_receipt(known, timeout=60)
                assert receipt["status"] == 1
        assert proxy.died >= 1, "the fault never fired"
        assert int(str(rpc(node, "eth_getTransactionCount", account.address, "latest")), 16) == 12
        print(f"12 transactions, {proxy.died} sent through a node that died after reading, each mined once")

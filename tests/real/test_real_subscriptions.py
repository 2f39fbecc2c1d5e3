"""web3.py, viem and ethers subscribed over WebSocket to two anvils in step and to a ganache, which die and reorganise.

Every client is told every block and every log of the chain once and in order, whatever happens to a node.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pace import PATIENCE
from tests.real.processes import CHAIN_ID, GANACHE, HERE, MNEMONIC, anvil, free_port, missing, rpc, running

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
    pytest.mark.skipif(
        importlib.util.find_spec("web3") is None, reason="web3 is not installed: make check installs it"
    ),
]

SCRIPTS = {
    "web3.py": [sys.executable, str(HERE / "subscriptions.py")],
    "viem": ["node", str(HERE / "subscriptions.mjs"), "viem"],
    "ethers": ["node", str(HERE / "subscriptions.mjs"), "ethers"],
}
GAS = hex(2_000_000)


def emitter() -> str:
    """Code that deploys a contract: a call with n bytes makes n logs, whose data counts on from call to call."""
    loop = "600054 600101 80600055 600052"  # memory = storage = storage + 1
    loop += "7f" + "5e" * 32 + "60206000a1"  # log memory under one topic
    loop += "6001 90 03 6001 56"  # n = n - 1, and again
    end = 1 + 6 + len(bytes.fromhex(loop))
    runtime = bytes.fromhex("36 5b 8015 60" + f"{end:02x}" + "57" + loop + "5b00")  # n = size; while n != 0
    return "0x" + (bytes((0x60, len(runtime), *bytes.fromhex("80600b6000396000f3"))) + runtime).hex()


class Chain:
    """Nodes that are told the same steps, and so have the same blocks.

    A block's hash follows from the steps and their times alone, so a node that is started later and told all
    steps has the chain of the others, abandoned branches included.
    """

    def __init__(self, *nodes: str) -> None:
        self.nodes = list(nodes)
        genesis = int(time.time()) - 1000
        self.options = ("--no-mining", "--timestamp", str(genesis))
        self.steps: list[Callable[[str], None]] = []
        self.made: dict[str, float] = {}  # when each block was made, by hash
        self._timestamp = genesis

    def step(self, step: Callable[[str], None]) -> None:
        self.steps.append(step)
        for node in self.nodes:
            step(node)

    def join(self, node: str, left_at: int = 0) -> None:
        """A node joins, told all steps since it left, those of abandoned branches included."""
        for step in self.steps[left_at:]:
            step(node)
        self.nodes.append(node)

    def deploy(self) -> None:
        """Make two contracts that log; only the first is subscribed to."""
        account = str(rpc(self.nodes[0], "eth_accounts")[0])  # type: ignore[index]
        self.account = account
        found = []
        for _ in range(2):
            self._mine([{"from": account, "data": emitter(), "gas": GAS}])
            block: Any = rpc(self.nodes[0], "eth_getBlockByNumber", "latest", False)
            receipt: Any = rpc(self.nodes[0], "eth_getTransactionReceipt", block["transactions"][0])
            assert receipt["status"] == "0x1"
            found.append(receipt["contractAddress"])
        self.contract, self.other = found

    def mine(self, logs: int, others: int = 0) -> None:
        """One block with so many logs of the contract, and of another one that nobody asked for."""
        calls = [(self.contract, logs), (self.other, others)]
        self._mine([{"from": self.account, "to": to, "data": "0x" + "00" * n, "gas": GAS} for to, n in calls if n])

    def _mine(self, transactions: list[dict[str, str]]) -> None:
        self._timestamp += 1
        at = self._timestamp

        def step(node: str) -> None:
            for transaction in transactions:
                rpc(node, "eth_sendTransaction", transaction)
            rpc(node, "evm_setNextBlockTimestamp", at)
            rpc(node, "evm_mine")

        began = time.monotonic()
        self.step(step)
        hashes = {str(self.block("latest", node)["hash"]) for node in self.nodes}
        assert len(hashes) == 1, "the nodes are in step"
        self.made[hashes.pop()] = began

    def rollback(self, depth: int) -> None:
        self.step(lambda node: rpc(node, "anvil_rollback", depth) and None)

    def block(self, number: str, node: str = "") -> dict[str, Any]:
        found: Any = rpc(node or self.nodes[0], "eth_getBlockByNumber", number, False)
        return dict(found)

    def height(self) -> int:
        return int(self.block("latest")["number"], 16)

    def hashes(self, above: int) -> list[str]:
        return [str(self.block(hex(n))["hash"]) for n in range(above + 1, self.height() + 1)]

    def logs(self, above: int) -> list[tuple[str, int, int]]:
        asked = {"address": self.contract, "fromBlock": hex(above + 1), "toBlock": "latest"}
        found: Any = rpc(self.nodes[0], "eth_getLogs", asked)
        return [(log["blockHash"], int(log["logIndex"], 16), int(log["data"], 16)) for log in found]


class Ganache(Chain):
    """One ganache, which makes a block of each transaction."""

    def __init__(self, node: str) -> None:
        super().__init__(node)
        self._snapshots: list[object] = []

    def _mine(self, transactions: list[dict[str, str]]) -> None:
        self._snapshots.append(rpc(self.nodes[0], "evm_snapshot"))
        began = time.monotonic()
        for transaction in transactions[:1]:  # another gas limit: no block is made again after a rollback
            rpc(self.nodes[0], "eth_sendTransaction", {**transaction, "gas": hex(10**6 + len(self.made))})
        if not transactions:
            rpc(self.nodes[0], "evm_mine")
        self.made[str(self.block("latest")["hash"])] = began

    def rollback(self, depth: int) -> None:
        rpc(self.nodes[0], "evm_revert", self._snapshots[-depth])
        del self._snapshots[-depth:]


class Wire:
    """A way to a port that can be cut, with the connections on it."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self.port = free_port()
        self._listener: socket.socket | None = None
        self._ends: list[socket.socket] = []

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(self._to)
                self._ends += (near, far)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_RDWR)


class Client:
    """A script that runs, and what it was told so far."""

    def __init__(self, name: str, process: subprocess.Popen[str], base: str) -> None:
        self.name = name
        self.base = base  # the hash of the newest block when it subscribed
        self.process = process
        self.said: list[dict[str, Any]] = []
        self.at: list[float] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.at.append(time.monotonic())
            self.said.append(json.loads(line))

    def all(self, event: str) -> list[dict[str, Any]]:
        return [said for said in list(self.said) if said["event"] == event]

    def chain(self) -> tuple[list[str], set[str]]:
        """The chain that its heads make, and the blocks that they dropped; each head continues a block of it."""
        chain: list[str] = []
        dropped: set[str] = set()
        for head in self.all("head"):
            if head["hash"] == self.base:  # the newest block when it subscribed may be its first word
                assert not chain, f"{self.name}: {head}"
                continue
            assert head["hash"] not in chain, f"{self.name}: told twice: {head}"
            assert head["hash"] not in dropped, f"{self.name}: told again: {head}"
            while chain and chain[-1] != head["parent"]:
                dropped.add(chain.pop())
            assert head["parent"] == (chain[-1] if chain else self.base), f"{self.name}: continues nothing: {head}"
            chain.append(head["hash"])
        return chain, dropped

    def logs(self) -> list[tuple[str, int, int]]:
        """Its logs after removals, each of which takes back the newest."""
        logs: list[tuple[str, int, int]] = []
        ever = set()
        for log in self.all("log"):
            one = (log["block"], log["index"], log["count"])
            if log["removed"]:
                assert logs, f"{self.name}: {log} was never told"
                assert logs.pop() == one, f"{self.name}: not the newest: {log}"
            else:
                assert one not in ever, f"{self.name}: told twice: {log}"
                ever.add(one)
                logs.append(one)
        return logs

    def delays(self, made: dict[str, float]) -> list[float]:
        """How long after it was made each block was told."""
        said = zip(list(self.said), list(self.at), strict=False)
        heads = [(event["hash"], at) for event, at in said if event["event"] == "head"]
        return sorted(at - made[block] for block, at in heads if block != self.base)

    def end(self) -> None:
        """Let it end its subscriptions and go."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        self.process.stdout.close()

    def finish(self) -> None:
        """End it; it must have lost nothing."""
        self.end()
        assert self.process.returncode == 0, f"{self.name} failed"
        assert self.said[-1]["event"] == "done", f"{self.name} did not finish"
        _, dropped = self.chain()
        heads, logs = self.all("head"), [log for log in self.all("log") if not log["removed"]]
        assert {event["hash"] for event in self.all("unknown")} <= dropped, "every block that was told can be read"
        if self.name == "ethers":
            numbers = [event["number"] for event in self.all("number")]  # told of the newest when it subscribed, or not
            assert numbers[-len(heads) + 1 :] == [head["number"] for head in heads[1:]]
        if self.name == "viem":
            read = {event["hash"] for event in self.all("block")}
            unread = [block for block in self.chain()[0] if block not in read]
            refused = self.all("refused")  # its only node may just have died; an empty answer would be a lie
            assert len(unread) <= len(refused), f"blocks that were told can be read by number: {unread}, {self.said}"
        if self.name != "web3.py":
            watched = [(event["block"], event["index"]) for event in self.all("watched") if not event["removed"]]
            assert watched == [(log["block"], log["index"]) for log in logs]


@contextlib.contextmanager
def clients(url: str, chain: Chain) -> Iterator[list[Client]]:
    """All three, subscribed."""
    base = str(chain.block("latest")["hash"])
    started = [
        Client(name, subprocess.Popen([*script, url, chain.contract], stdin=-1, stdout=-1, text=True), base)
        for name, script in SCRIPTS.items()
    ]
    try:
        nothing_lacks(lambda: [client.name for client in started if not client.all("ready")])
        yield started
    finally:
        for client in started:
            client.process.kill()
            client.end()


@contextlib.contextmanager
def seawall(directory: Path, endpoints: dict[str, str]) -> Iterator[str]:
    """The gateway as a user starts it, with URLs and their WebSockets; yields its own.

    A node that has just gone back by five blocks, while the machine stands still, is not to be one that lags.
    """
    port, operations = free_port(), free_port()
    lines = [f"listen: 127.0.0.1:{port}", "operations:", f"  listen: 127.0.0.1:{operations}", "routes:"]
    lines += [
        "  devnet:",
        f"    chain_id: {CHAIN_ID}",
        "    dialect: evm",
        "    heads: {lag_blocks: 100}",
        "    endpoints:",
    ]
    lines += [f"      - {{url: {url!r}, ws: {ws}}}" for url, ws in endpoints.items()]
    config = directory / "seawall.yaml"
    config.write_text("\n".join(lines) + "\n")
    with running([sys.executable, "-m", "gateway", "serve", str(config)], f"http://127.0.0.1:{port}", "/livez"):
        yield f"ws://127.0.0.1:{port}/devnet"


@contextlib.contextmanager
def anvils(directory: Path) -> Iterator[tuple[Chain, str, subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """Two anvils in step behind a gateway."""
    ports = free_port(), free_port()
    one, two = (f"http://127.0.0.1:{port}" for port in ports)
    chain = Chain(one, two)
    with anvil(ports[0], *chain.options) as first, anvil(ports[1], *chain.options) as second:
        chain.deploy()
        with seawall(directory, {one: "true", two: "true"}) as url:
            yield chain, url, first, second


def nothing_lacks(lacking: Callable[[], object]) -> None:
    """Wait until nothing is lacking."""
    until = time.monotonic() + PATIENCE
    while lacks := lacking():
        assert time.monotonic() < until, f"after {PATIENCE} s: {lacks}"
        time.sleep(0.02)


def all_well(url: str) -> None:
    """Wait until the gateway has nothing against any of its nodes, so that each may be left to serve alone."""
    page = url.replace("ws://", "http://").rpartition("/")[0] + "/status.json"

    def against() -> object:
        with urllib.request.urlopen(page, timeout=PATIENCE) as answer:  # noqa: S310 - loopback
            endpoints = json.load(answer)["routes"][0]["endpoints"]
        return [(endpoint["id"], endpoint["reasons"]) for endpoint in endpoints if endpoint["reasons"]]

    nothing_lacks(against)


def told_all(watching: list[Client], chain: Chain, above: int) -> None:
    """Wait until every client was told the chain and its logs above a height."""
    hashes, logs = chain.hashes(above), chain.logs(above)

    def lacking() -> object:
        lacks = []
        for client in watching:
            assert client.process.poll() is None, f"{client.name} ended: {client.said[-3:]}"
            if client.chain()[0] != hashes:
                lacks.append((client.name, "heads", len(client.chain()[0]), len(hashes), client.all("head")[-2:]))
            if client.logs() != logs:
                lacks.append((client.name, "logs", len(client.logs()), len(logs), client.all("log")[-2:]))
        return lacks

    nothing_lacks(lacking)
    time.sleep(0.3)
    assert not lacking(), "nothing more is told"


def report(watching: list[Client], chain: Chain, words: str) -> None:
    for client in watching:
        client.finish()
        delays = client.delays(chain.made)
        logs = client.all("log")
        removed = sum(log["removed"] for log in logs)
        print(
            f"{words}: {client.name}: {len(client.all('head'))} heads (told after {delays[len(delays) // 2]:.3f} s, "
            f"at most {delays[-1]:.3f} s), {len(logs) - removed} logs and {removed} removed, none lost, none doubled, "
            f"{client.said[-1]['calls']} calls on the same socket, {len(client.all('refused'))} reads refused"
        )


def steady(chain: Chain, count: int, pause: float = 0.1) -> None:
    """So many blocks: of every four, two with logs, one with a stranger's, one empty."""
    for n in range(count):
        chain.mine(*((2, 0), (0, 3), (1, 1), (0, 0))[n % 4])
        time.sleep(pause)


def test_two_nodes_die_in_turn_and_the_survivor_reorganises(tmp_path: Path) -> None:
    with anvils(tmp_path) as (chain, url, first, second), contextlib.ExitStack() as stack:
        one, two = chain.nodes
        watching = stack.enter_context(clients(url, chain))
        above = chain.height()
        steady(chain, 8)
        chain.mine(3)
        all_well(url)
        first.kill()
        chain.nodes.remove(one)
        steady(chain, 8)
        told_all(watching, chain, above)
        chain.rollback(5)
        steady(chain, 7)
        told_all(watching, chain, above)
        stack.enter_context(anvil(int(one.rpartition(":")[2]), *chain.options))
        chain.join(one)  # a node that comes back tells old blocks again, and those of the abandoned branch
        steady(chain, 8)
        chain.mine(3)
        all_well(url)
        second.kill()
        chain.nodes.remove(two)
        steady(chain, 8)
        told_all(watching, chain, above)
        chain.rollback(3)
        steady(chain, 1, pause=0)
        chain.rollback(2)
        steady(chain, 6, pause=0)
        told_all(watching, chain, above)
        report(watching, chain, "nodes that die")


def test_a_node_freezes_without_a_word_and_goes_on_later(tmp_path: Path) -> None:
    with anvils(tmp_path) as (chain, url, first, second), clients(url, chain) as watching:
        above = chain.height()
        steady(chain, 8)
        for process, node in ((first, chain.nodes[0]), (second, chain.nodes[1])):
            chain.mine(3)
            all_well(url)
            process.send_signal(signal.SIGSTOP)
            left_at = len(chain.steps)
            chain.nodes.remove(node)
            steady(chain, 8)
            told_all(watching, chain, above)
            chain.rollback(4)
            steady(chain, 6)
            told_all(watching, chain, above)
            process.send_signal(signal.SIGCONT)
            chain.join(node, left_at)
            steady(chain, 4)
        told_all(watching, chain, above)
        report(watching, chain, "nodes that freeze")


def test_a_ganache_whose_sockets_are_cut_goes_on_by_polls_and_returns(tmp_path: Path) -> None:
    port = free_port()
    node = f"http://127.0.0.1:{port}"
    chain, wire = Ganache(node), Wire(port)
    wire.mend()
    with ganache(port), contextlib.ExitStack() as stack:
        chain.deploy()
        url = stack.enter_context(seawall(tmp_path, {node: f"ws://127.0.0.1:{wire.port}"}))
        watching = stack.enter_context(clients(url, chain))
        above = chain.height()
        steady(chain, 8)
        chain.mine(3)
        wire.cut()
        steady(chain, 8)
        told_all(watching, chain, above)
        chain.rollback(4)
        chain.mine(2)
        steady(chain, 8)
        told_all(watching, chain, above)
        wire.mend()
        steady(chain, 12)
        chain.rollback(3)
        chain.mine(2)
        steady(chain, 8)
        told_all(watching, chain, above)
        wire.cut()
        report(watching, chain, "a socket that is cut")


@contextlib.contextmanager
def ganache(port: int) -> Iterator[None]:
    """A ganache that mines when it is told to."""
    command = ["node", str(GANACHE), "--server.host", "127.0.0.1", "--server.port", str(port)]
    command += ["--chain.chainId", str(CHAIN_ID), "--chain.networkId", str(CHAIN_ID)]
    command += ["--wallet.mnemonic", MNEMONIC, "--logging.quiet"]
    with running(command, f"http://127.0.0.1:{port}"):
        yield

"""What callers of subscriptions were told, held against what the chain holds."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from gateway.drill.chain import SimulatedChain


def walk(heads: list[dict[str, Any]]) -> list[int]:
    """The numbers of told heads.  Fails when one is not the child of the one before."""
    for before, after in pairwise(heads):
        assert after["parentHash"] == before["hash"], (before["number"], after["number"])
    return [int(head["number"], 16) for head in heads]


def tree(heads: list[dict[str, Any]]) -> list[str]:
    """The hashes of the branch a caller holds in the end.  Fails when a head's parent is on no branch it was told."""
    holds: list[str] = []
    for head in heads:
        if head["parentHash"] in holds:
            del holds[holds.index(head["parentHash"]) + 1 :]
        elif int(head["number"], 16) <= int(heads[0]["number"], 16):
            holds.clear()  # what is below the first head a caller does not know
        else:
            raise AssertionError(f"{head['number']} hangs in the air")
        holds.append(head["hash"])
    return holds


def held(logs: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """Block, index and block hash of the logs a caller holds in the end.  Fails when one is doubled or out of order."""
    holds: list[tuple[int, int, str]] = []
    for log in logs:
        key = (int(log["blockNumber"], 16), int(log["logIndex"], 16), log["blockHash"])
        if log.get("removed"):
            assert holds and holds[-1] == key, f"removed {key}, held {holds[-1:]}"
            holds.pop()
        else:
            assert not holds or holds[-1] < key, f"{key} after {holds[-1:]}"
            holds.append(key)
    return holds


def expected_logs(chain: SimulatedChain, low: int, high: int) -> list[tuple[int, int, str]]:
    """What a chain itself holds."""
    found = chain.logs(low, high)
    return [(int(log["blockNumber"], 16), int(log["logIndex"], 16), log["blockHash"]) for log in found]

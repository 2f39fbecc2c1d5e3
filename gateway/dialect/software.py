"""Software: the client and its version, as nodes name themselves in a dozen ways.

Always true: at most `LONGEST` characters of what a node says are looked at, and the result is made of
plain lower-case words and digits, so it may be a label; what cannot be read is None; nothing raises.
Why: endpoints that run the same version fail together (geth 1.9.9 and 1.9.13 at Infura, 2020-11-11; Bor
and Erigon on Polygon, 2025-09-10), and nobody else knows that they do.
"""

from __future__ import annotations

import re

LONGEST = 200

# Name/v1.2.3-rest/..., Name v1.2.3, /Name:1.2.3/, name-core 1.2.3
_FORM = re.compile(r"/?([A-Za-z][A-Za-z0-9_.+ -]{0,40}?)[/: @]+v?(\d+(?:\.\d+){0,3})")
_NAMES = {
    "ethereumjs testrpc": "ganache",
    "ethereumjs": "ethereumjs",
    "hardhatnetwork": "hardhat",
    "hyperledger besu": "besu",
    "openethereum": "openethereum",
    "parity-ethereum": "parity",
    "turbogeth": "erigon",
    "solana-core": "agave",
    "satoshi": "bitcoin-core",
    "bitcoin cash node": "bitcoin-cash-node",
}


def software(version: str) -> tuple[str, str] | None:
    """Name and version of a client, such as ``("geth", "1.13.14")``; None when it says nothing readable."""
    found = _FORM.match(version[:LONGEST].strip())
    if found is None:
        return None
    name = found[1].strip().lower()
    name = _NAMES.get(name, name)
    return re.sub(r"[^a-z0-9.+-]+", "-", name).strip("-"), found[2]

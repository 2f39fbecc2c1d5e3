"""The chain catalogue: ids, names, block times, finality, and how a chain's head is asked for.

Always true: a name, an alias and an id each mean one chain; upper and lower case are the same; a chain
that is not here still works when its id and URLs are written out.  `chains.json` is made by
scripts/make_chain_catalogue.py, never by hand.
Does not belong here: addresses of any kind.
"""

from __future__ import annotations

import difflib
import functools
import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from gateway.model import Rhythm


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain.  `id` is the EVM chain id, None elsewhere.  `block_time` in seconds.

    `finality` is a hint for people and later for caches: so many blocks or slots, ``instant``, ``l1``
    (when its batch is final on the chain below), ``pow`` (never for certain), or the protocol's own
    word.  `head_method`, `head_params` (JSON) and `head_path` (dotted, in the result; empty: the result
    itself) serve the generic dialect.  `blooms`: a block's bloom filter names all of its logs; on some
    chains it leaves out those of system transactions, or is empty.  `rhythm`: by the clock, by chance (proof
    of work), or on demand, where `block_time` is only what is usual.
    """

    id: int | None
    name: str
    title: str
    symbol: str
    block_time: float
    finality: str
    dialect: Literal["evm", "solana", "bitcoin", "generic"]
    testnet: bool
    aliases: tuple[str, ...]
    head_method: str | None = None
    head_params: str = "[]"
    head_path: str = ""
    blooms: bool = True
    rhythm: Rhythm = Rhythm.SLOTS


@functools.cache
def all_chains() -> tuple[Chain, ...]:
    """Every chain of the catalogue."""
    rows = json.loads(files("gateway.catalogue").joinpath("chains.json").read_text("utf-8"))
    return tuple(
        Chain(**{**row, "aliases": tuple(row["aliases"]), "rhythm": Rhythm(row.get("rhythm", "slots"))}) for row in rows
    )


@functools.cache
def _by_name() -> dict[str, Chain]:
    found: dict[str, Chain] = {}
    for chain in all_chains():
        for name in (chain.name, *chain.aliases, *([str(chain.id)] if chain.id is not None else [])):
            found[name] = chain
    return found


def find(name_or_id: str | int) -> Chain | None:
    """A chain by name, alias or EVM chain id; case does not matter."""
    return _by_name().get(str(name_or_id).strip().lower())


def suggest(name: str) -> str | None:
    """The name or alias that was probably meant."""
    close = difflib.get_close_matches(name.strip().lower(), [n for n in _by_name() if not n.isdigit()], 1, 0.6)
    return close[0] if close else None

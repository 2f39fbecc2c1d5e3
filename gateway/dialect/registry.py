"""The dialects by name.  A chain whose dialect is none of the others is generic until it has one of its own."""

from __future__ import annotations

from gateway.dialect.bitcoin import BitcoinDialect
from gateway.dialect.evm import EvmDialect
from gateway.dialect.generic import GenericDialect
from gateway.dialect.protocol import Dialect
from gateway.dialect.solana import SolanaDialect

NAMES = ("evm", "solana", "bitcoin", "generic")
_SOLANA_LIKE = ("solana",)
_BITCOIN_LIKE = ("bitcoin", "litecoin", "dogecoin", "zcash")  # Bitcoin Cash begins with the first


def dialect_named(
    name: str, *, chain: str = "", head_method: str | None = None, head_params: str = "[]", head_path: str = ""
) -> Dialect:
    """A dialect.  The head arguments are the chain catalogue's and matter to ``generic`` only.

    A chain of a known family that is declared ``generic`` still has its family's error table, because
    codes mean different things in each.  Raises ValueError for a name that is none.
    """
    if name == "evm":
        return EvmDialect()
    if name == "solana":
        return SolanaDialect()
    if name == "bitcoin":
        return BitcoinDialect()
    if name == "generic":
        rules = (
            "solana" if chain.startswith(_SOLANA_LIKE) else "bitcoin" if chain.startswith(_BITCOIN_LIKE) else "generic"
        )
        return GenericDialect(head_method, head_params.encode(), head_path, rules)
    raise ValueError(f"there is no dialect {name!r}; there are {', '.join(NAMES)}")

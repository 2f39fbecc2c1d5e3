"""The dialects by name.  Everything that is not EVM is generic until it has a dialect of its own."""

from __future__ import annotations

from gateway.dialect.evm import EvmDialect
from gateway.dialect.generic import GenericDialect
from gateway.dialect.protocol import Dialect

NAMES = ("evm", "generic")
_SOLANA_LIKE = ("solana",)
_BITCOIN_LIKE = ("bitcoin", "litecoin", "dogecoin")  # Bitcoin Cash begins with the first


def dialect_named(
    name: str, *, chain: str = "", head_method: str | None = None, head_params: str = "[]", head_path: str = ""
) -> Dialect:
    """A dialect.  The head arguments are the chain catalogue's and matter to ``generic`` only.

    Raises ValueError for a name that is none.
    """
    if name == "evm":
        return EvmDialect()
    if name == "generic":
        rules = (
            "solana" if chain.startswith(_SOLANA_LIKE) else "bitcoin" if chain.startswith(_BITCOIN_LIKE) else "generic"
        )
        return GenericDialect(head_method, head_params.encode(), head_path, rules)
    raise ValueError(f"there is no dialect {name!r}; there are {', '.join(NAMES)}")

"""Secrets: values that can be used but not shown.

Always true: the value leaves only through `reveal`; str, repr, format, %-formatting, pickle, copy and
JSON give ``***`` (a URL: its scheme and host); comparing takes the same time wherever two values
differ.  A secret that was configured as a mistake is no reason to print it either.
Does not belong here: masking secrets inside other texts (telemetry.redaction).
"""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import urlsplit

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

MASK = "***"


class Secret:
    """A string that prints as ``***``.

    `referenced` says that the value, or a part of it, came from a variable or a file; `parts` are
    those parts.
    """

    __slots__ = ("_value", "parts")

    def __init__(self, value: str, parts: tuple[str, ...] = ()) -> None:
        self._value = value
        self.parts = _Hidden(parts)

    def reveal(self) -> str:
        """The value.  Only where it is put to use."""
        return self._value

    @property
    def shown(self) -> str:
        """What may be printed."""
        return MASK

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shown!r})"

    def __format__(self, spec: str) -> str:
        return format(self.shown, spec)

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self._value), _bytes(other._value))

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle holds the mask only, so what is read back is no secret and works nowhere."""
        return type(self), (self.shown,)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._accept,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.shown),
        )

    @classmethod
    def _accept(cls, value: object) -> Secret:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            if not value:
                raise ValueError("must not be empty")
            return cls(value, tuple(getattr(value, "parts", ())))
        raise ValueError("must be text; put a number in quotes")


class SecretUrl(Secret):
    """A URL whose user information, path and query may hold keys; its scheme and host may be shown."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        """``scheme://host/...``, or ``***`` when it is no URL."""
        try:
            parts = urlsplit(self._value)
            host = parts.hostname
        except ValueError:
            return MASK
        if not host or not parts.scheme:
            return MASK
        authority = f"[{host}]" if ":" in host else host
        return f"{parts.scheme}://{authority}/..."


class _Hidden(tuple[str, ...]):
    """Pieces of a secret: a tuple that prints as ``***``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")

"""Sections: the model that all others are, policy dataclasses as pydantic types, numbers with units and bounds.

Always true: a section's fields, defaults, bounds and descriptions are read from its dataclass, so a
policy's new setting is configurable, documented and in the schema without a line here; what comes out
of a section is the policy's own dataclass.
Does not belong here: the tree (settings), or rules between settings (crosscheck).
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from gateway.config.scalars import number, truth, whole
from gateway.config.secret import MASK, SecretUrl
from gateway.config.units import BY_UNIT, EXAMPLES, shown

STRICT = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, hide_input_in_errors=True)


class Tree(BaseModel):
    """What all models share: frozen, no unknown settings, no values in error texts."""

    model_config = STRICT


class Section:
    """Marks a dataclass of `gateway.bounds.setting` fields as a section: ``Annotated[X, Section()]``."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        model = section_model(source)

        def build(value: Any, inner: Callable[[Any], BaseModel]) -> Any:
            if isinstance(value, source):
                return value
            parsed = inner(value)
            return source(**{name: getattr(parsed, name) for name in type(parsed).model_fields})

        return core_schema.no_info_wrap_validator_function(
            build,
            handler.generate_schema(model),
            serialization=core_schema.plain_serializer_function_ser_schema(_plain),
        )


_models: dict[type, type[BaseModel]] = {}


def section_model(source: Any) -> type[BaseModel]:
    """The pydantic model of a settings dataclass; one per dataclass."""
    if source not in _models:
        hints = typing.get_type_hints(source)
        fields: dict[str, Any] = {
            field.name: (
                _field_type(hints[field.name], field.metadata),
                Field(field.default, description=field.metadata["doc"]),
            )
            for field in dataclasses.fields(source)
        }
        _models[source] = create_model(source.__name__, __config__=STRICT, **fields)
    return _models[source]


def _field_type(kind: Any, meta: Any) -> Any:
    if kind is bool:
        return Annotated[bool, BeforeValidator(truth)]
    if kind in (int, float):
        return Annotated[kind, Measured(meta["unit"], meta["low"], meta["high"])]
    if kind == tuple[tuple[str, str], ...]:
        schema = {"type": "object", "additionalProperties": {"type": "string"}}
        return Annotated[kind, BeforeValidator(_pairs), WithJsonSchema(schema)]
    return kind


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """Marks a number: its unit (see `gateway.bounds.setting`) and its inclusive bounds."""

    unit: str = ""
    low: float | None = None
    high: float | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(functools.partial(self.parse, source is int))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        plain: dict[str, Any] = {"type": "integer" if schema["function"]["function"].args[0] else "number"}
        plain |= {} if self.low is None else {"minimum": self.low}
        plain |= {} if self.high is None else {"maximum": self.high}
        examples = {"examples": EXAMPLES[self.unit].split(", ")} if self.unit else {}
        return {"anyOf": [plain, {"type": "string"}], **examples}

    def parse(self, as_int: bool, value: object) -> float:
        """`value` as a number in its bounds.  Raises ValueError that says what was expected."""
        amount = BY_UNIT[self.unit](value) if self.unit else whole(value) if as_int else number(value)
        if self.low is not None and amount < self.low:
            raise ValueError(f"must be at least {in_unit(self.low, self.unit)}, got {shown(value)}")
        if self.high is not None and amount > self.high:
            raise ValueError(f"must be at most {in_unit(self.high, self.unit)}, got {shown(value)}")
        return int(amount) if as_int else float(amount)


def in_unit(value: float, unit: str) -> str:
    """A bound in its unit."""
    suffix = {"s": " s", "bytes": " bytes", "per_second": "/s"}.get(unit, "")
    return f"{value:g}{suffix}" if abs(value) < 1e6 or value != int(value) else f"{int(value)}{suffix}"


def _pairs(value: object) -> Any:
    if isinstance(value, dict):
        for name, content in value.items():
            if not isinstance(content, str):
                raise ValueError(f"expected text as the value of {name}; put it in quotes")
        return tuple((str(name), str(content)) for name, content in value.items())
    if isinstance(value, tuple):
        return value
    raise ValueError(f"expected a mapping of names to values, got {shown(value)}")


def _plain(section: Any) -> dict[str, Any]:
    """A section for JSON.  Headers are masked; a URL is shown without its path."""
    made: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if isinstance(value, tuple):
            value = {name: MASK for name, _ in value}
        elif isinstance(value, str) and "://" in value:
            value = SecretUrl(value).shown
        made[field.name] = value
    return made

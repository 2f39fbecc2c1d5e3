"""Mistakes: pydantic's errors in the words of the configuration.

Always true: each error becomes one problem at the position of its value (an unknown setting: of its
key), says what was expected and what is there, and suggests the nearest known name; nothing is quoted
that may be a secret.
Does not belong here: finding mistakes (settings, crosscheck).
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.sections import Section, section_model
from gateway.config.settings import Settings
from gateway.config.units import shown
from gateway.config.yaml_nodes import Document, PathKey

MOST_NAMES = 14  # known names are listed when there are no more than these


def tell_mistakes(document: Document, error: ValidationError) -> None:
    """Add the errors to the document's problems, but not where a problem has already been told."""
    told = [problem.path for problem in document.problems if problem.path]
    for detail in error.errors(include_url=False):
        path: PathKey = tuple(part for part in detail["loc"] if part != "[key]")
        if any(path[: len(known)] == known for known in told):
            continue
        if detail["type"] == "too_short" and detail["input"]:
            continue  # there are entries, each wrong and told so
        at_key = detail["type"] == "extra_forbidden" or "[key]" in detail["loc"]
        document.tell(path, _words(detail, path), key=at_key)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean ...?)``, or nothing when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def _words(detail: ErrorDetails, path: PathKey) -> str:
    value, context = detail["input"], detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "missing":
            return "is required"
        case "extra_forbidden":
            return _unknown(path)
        case "too_short":
            return "must hold at least one entry"
        case "literal_error":
            choices = str(context["expected"]).replace("'", "")
            names = choices.replace(" or ", ", ").split(", ")
            near = did_you_mean(value, names) if isinstance(value, str) else ""
            return f"expected {choices}, got {shown(value)}{near}"
    expected = _SHORT_FORMS.get(context.get("class_name", "")) or _EXPECTED.get(detail["type"], "something else")
    return f"expected {expected}, got {_kind(value)}"


_SHORT_FORMS = {"EndpointSettings": "a URL or a mapping", "RouteSettings": "a list of endpoints or a mapping"}


_EXPECTED = {
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
}


def _kind(value: Any) -> str:
    """What is there, without its content: text in a wrong place may be a key."""
    return "text" if isinstance(value, str) else shown(value)


def _unknown(path: PathKey) -> str:
    model = _model_at(path[:-1])
    known = list(model.model_fields) if model is not None else []
    near = did_you_mean(str(path[-1]), known)
    if not near and 0 < len(known) <= MOST_NAMES:
        near = f" (known here: {', '.join(known)})"
    return f"unknown setting{near}"


def _model_at(path: PathKey) -> type[BaseModel] | None:
    """The model whose settings stand at `path`."""
    kind: Any = Settings
    for part in path:
        kind = _plain(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            if field is None:
                return None
            section = any(isinstance(mark, Section) for mark in field.metadata)
            kind = section_model(field.annotation) if section else field.annotation
        else:
            arguments = typing.get_args(kind)
            kind = arguments[1 if typing.get_origin(kind) is dict else 0] if arguments else None
    kind = _plain(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _plain(kind: Any) -> Any:
    """A type without ``| None`` and without annotations; a section as its model."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next((a for a in typing.get_args(kind) if a is not type(None)), kind)
    if typing.get_origin(kind) is typing.Annotated:
        inner, *marks = typing.get_args(kind)
        return section_model(inner) if any(isinstance(mark, Section) for mark in marks) else _plain(inner)
    return kind

"""Writes docs/configuration.md: every setting with its type, default, bounds and meaning.

Always true: all of it is read from the models that read the file (the tree in gateway.config.settings,
the policies' dataclasses behind it); a setting without a description, or of a type without a name here,
is an error, not a gap; a default or bound is printed as one would write it, and read back to make sure.

Usage: python scripts/make_configuration_reference.py [--check]
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.config import scalars
from gateway.config.sections import Measured, Section, section_model
from gateway.config.settings import Settings
from gateway.config.units import BY_UNIT, EXAMPLES

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "docs" / "configuration.md"
INTRODUCTION = """\
# All settings

Made from the code by `scripts/make_configuration_reference.py`; a change belongs there. `config/gateway.yaml` is
the same as a file to start from, and `seawall check FILE` names everything that is wrong in a file, with its line.

- A setting that is left out, or has no value, is at its default. A misspelt one is refused, never ignored.
- A list in place of the file, or of a route, is its endpoints; a URL in place of an endpoint is its `url`.
- Text may hold `${NAME}` or `${NAME:-default}` from the environment, or be `file:/path` for the content of a file
  (`file:./path`: beside the configuration); a plain `${` is written `$${`. What comes from there counts as secret.
- `VENDOR://KEY` stands for the URL of a vendor on a route with a known chain: `alchemy`, `ankr`, `chainstack`, `drpc`,
  `infura` and `quicknode` (`quicknode://NAME:KEY`). Without a key it is in `ALCHEMY_API_KEY` and so on. With `ws: true`
  its WebSocket is that vendor's.
- In the paths below, `NAME` is a name of your own (letters, digits, `.`, `_`, `-`), and `[]` each item of a list.

| Type | Is written | In the file, a bare number means |
| --- | --- | --- |
"""
UNITS = {
    "s": ("duration", "seconds"),
    "bytes": ("size", "bytes"),
    "share": ("share", "a part of 1"),
    "per_second": ("rate", "per second"),
}
WORDS: dict[Any, str] = {
    scalars.Address: "host:port",
    scalars.Name: "name",
    scalars.Host: "host name",
    scalars.Origin: "origin",
    scalars.Text: "text",
    scalars.Flag: "true or false",
    scalars.ReadableFile: "file",
    scalars.Chain: "name or id",
    scalars.HeaderName: "header name",
    scalars.HeaderValue: "secret text",
    scalars.CallerKey: "secret text",
    scalars.Token: "secret text",
    scalars.Hidden: "secret text",
    scalars.Url: "URL",
    scalars.SocketUrl: "URL, or true or false",
    scalars.ProxyUrl: "URL",
}
"""What the types of gateway.config.scalars are called."""
PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text"}
MARKS = {id(typing.get_args(alias)[1]): word for alias, word in WORDS.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """What a type says: its word, its measure, and the model of its parts with what leads there."""

    word: str
    measure: Measured | None = None
    parts: type[BaseModel] | None = None
    step: str = ""
    optional: bool = False
    section: bool = False


def kind_of(annotation: Any, marks: tuple[Any, ...]) -> Kind:
    """A field's type.  Raises TypeError for one that has no name here."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return kind_of(arguments[0], (*arguments[1:], *marks))
    if any(isinstance(mark, Section) for mark in marks):
        return Kind("section", parts=section_model(annotation), section=True)
    for mark in marks:
        if isinstance(mark, Measured):
            word = UNITS[mark.unit][0] if mark.unit else PLAIN[annotation]
            return Kind(word, measure=mark)
        if id(mark) in MARKS:
            return Kind(MARKS[id(mark)])
    if origin in (typing.Union, types.UnionType):
        present = [argument for argument in arguments if argument is not type(None)]
        if len(present) == 1:
            return dataclasses.replace(kind_of(present[0], ()), optional=True)
    if origin is typing.Literal:
        return Kind(", ".join(f"`{argument}`" for argument in arguments))
    if annotation == tuple[tuple[str, str], ...]:
        return Kind("mapping of text")
    if origin is tuple and arguments[1:] == (Ellipsis,):
        inner = kind_of(arguments[0], ())
        return dataclasses.replace(inner, word="list" if inner.parts else f"list of {inner.word}", step="[]")
    if origin is dict:
        inner = kind_of(arguments[1], ())
        return dataclasses.replace(inner, word="mapping" if inner.parts else f"mapping of {inner.word}", step=".NAME")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Kind("section", parts=annotation)
    if annotation in PLAIN:
        return Kind(PLAIN[annotation])
    raise TypeError(f"no name for {annotation!r} with {marks!r}")


def shown(value: float, measure: Measured) -> str:
    """A number as one would write it in the file."""
    text = _shown(value, measure.unit)
    if measure.unit and abs(BY_UNIT[measure.unit](text) - value) > 1e-12 * abs(value):
        raise ValueError(f"{text} is not {value} {measure.unit}")
    return text


def _shown(value: float, unit: str) -> str:
    if unit == "s":
        scales = [(86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us")]
        fits = [(size, name) for size, name in scales if value >= size and round(value / size, 3) % 1 == 0]
        size, name = fits[0] if fits else (1.0, "s")
        return f"{value / size:g}{name}"
    if unit == "bytes":
        scales = [(1e9, "GB"), (1e6, "MB"), (2.0**20, "MiB"), (1e3, "kB"), (2.0**10, "KiB")]
        fits = [(size, name) for size, name in scales if value >= size and value % size == 0]
        return f"{value / fits[0][0]:g}{fits[0][1]}" if fits else f"{int(value)}"
    if unit == "share":
        return f"{value * 100:g}%"
    if unit == "per_second":
        return f"{value:g}/s" if value < 1e6 else f"{int(value)}/s"
    return str(int(value)) if value == int(value) else f"{value:g}"


def default_of(field: FieldInfo, kind: Kind) -> str:
    """The default cell."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value == "" or (kind.parts is not None and not kind.optional):
        return "-"
    if kind.measure is not None:
        return f"`{shown(value, kind.measure)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (tuple, dict)) and not value:
        return "none"
    if isinstance(value, (str, int, float)):
        return f"`{value}`"
    raise TypeError(f"no words for the default {value!r}")


def bounds_of(kind: Kind) -> str:
    """The bounds cell."""
    if kind.measure is None or (kind.measure.low is None and kind.measure.high is None):
        return ""
    low, high = (None if end is None else shown(end, kind.measure) for end in (kind.measure.low, kind.measure.high))
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def sections(model: type[BaseModel], path: str, homes: dict[type[BaseModel], str]) -> Iterator[str]:
    """The page's parts: a table of this model, then one of each model under it."""
    rows, below = [], []
    for name, field in model.model_fields.items():
        kind = kind_of(field.annotation, tuple(field.metadata))
        if not field.description:
            raise ValueError(f"{path}.{name} has no description")
        own_path = f"{path}.{name}".removeprefix(".")
        word = kind.word
        if kind.parts is not None:
            place = f"{own_path}{kind.step}"
            home = homes[kind.parts] if kind.section and kind.optional else place
            word = f"[{kind.word}](#{anchor(home)})"
            if home == place:
                below.append((kind.parts, place))
        cells = (f"`{own_path}`", word, default_of(field, kind), bounds_of(kind), _sentence(field.description))
        rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    heading = f"## `{path}`" if path else "## The file"
    told = _own_doc(model) if path else ""
    table = ["| Setting | Type | Default | Bounds | Meaning |", "| --- | --- | --- | --- | --- |", *rows]
    yield "\n".join([heading, "", *([told, ""] if told else []), *table, ""])
    for parts, place in below:
        yield from sections(parts, place, homes)


def _own_doc(model: type[BaseModel]) -> str:
    """A model's own docstring as a line, nothing when it only inherits one."""
    doc = model.__dict__.get("__doc__")
    return " ".join(str(doc).split()) if doc else ""


def _sentence(description: str) -> str:
    return description.replace("|", "\\|").replace("*", "\\*")


def section_homes(model: type[BaseModel], path: str = "") -> dict[type[BaseModel], str]:
    """Where the sections that may also stand elsewhere (a route's own policies) are described."""
    homes: dict[type[BaseModel], str] = {}
    for name, field in model.model_fields.items():
        kind = kind_of(field.annotation, tuple(field.metadata))
        if kind.parts is not None and not (kind.section and kind.optional):
            place = f"{path}.{name}{kind.step}".removeprefix(".")
            if kind.section:
                homes[kind.parts] = place
            homes |= section_homes(kind.parts, place)
    return homes


def anchor(path: str) -> str:
    """A heading's anchor as code hosts make it."""
    return re.sub(r"[^\w -]", "", path.lower()).replace(" ", "-")


def page() -> str:
    """The whole page."""
    units = [
        f"| {word} | {', '.join(f'`{example}`' for example in EXAMPLES[unit].split(', '))} | {base} |"
        for unit, (word, base) in UNITS.items()
    ]
    parts = sections(Settings, "", section_homes(Settings))
    return INTRODUCTION + "\n".join(units) + "\n\n" + "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes docs/configuration.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is not current")
    made = page()
    if parser.parse_args().check:
        current = OUTPUT.exists() and OUTPUT.read_text("utf-8") == made
        sys.exit(0 if current else f"{OUTPUT.relative_to(ROOT)} is not current: run {Path(__file__).name}")
    OUTPUT.write_text(made, encoding="utf-8")
    print(f"{OUTPUT.relative_to(ROOT)}: {made.count('| `')} settings")


if __name__ == "__main__":
    main()

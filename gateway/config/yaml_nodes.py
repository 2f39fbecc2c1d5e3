"""YAML to plain data with positions.  Owner of PyYAML.

Always true: `read` never raises; all that is wrong is in `Document.problems`, each with its position,
and what is right is in `Document.data`.  A mapping's keys are text and come once; only YAML's own
plain types are built, and of YAML 1.1's surprises none (``no`` is text, ``1:30`` is text, ``010`` is
text), so that a country, a time or an account number stays what was written.  The size, the depth and
what aliases may multiply are bounded before anything is built.
Does not belong here: what the data means (settings).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

SIZE_LIMIT = 1 << 20  # bytes of a file
DEPTH_LIMIT = 32
ALIAS_LIMIT = 1000  # nodes that aliases may repeat in all

PathKey = tuple[str | int, ...]
Resolve = Callable[[str], str]

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]{0,40})|0x[0-9a-fA-F]{1,32}", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?", re.ASCII)
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Line and column, both from 1, as editors count."""

    line: int = 1
    column: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, where, and in which setting."""

    position: Position
    path: PathKey
    text: str


@dataclass(slots=True)
class Document:
    """One file: its data, where each value and each key of it stands, and its problems."""

    data: Any = None
    values: dict[PathKey, Position] = field(default_factory=dict)
    keys: dict[PathKey, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    moved: dict[PathKey, PathKey] = field(default_factory=dict)
    """Where data stands in the file that a short form put elsewhere: (full path, path in the file)."""

    def where(self, path: PathKey, *, key: bool = False) -> Position:
        """The position of a value (or of its key), else of what it is part of."""
        for full, short in self.moved.items():
            if path[: len(full)] == full:
                path = short + path[len(full) :]
                break
        if key and path in self.keys:
            return self.keys[path]
        for length in range(len(path), -1, -1):
            found = self.values.get(path[:length])
            if found is not None:
                return found
        return Position()

    def move(self, full: PathKey, short: PathKey) -> None:
        """Say that the data at `full` stands at `short` in the file."""
        self.moved[full] = short
        self.problems = [
            Problem(p.position, full + p.path[len(short) :], p.text)
            if p.path[: len(short)] == short and p.path != short
            else p
            for p in self.problems
        ]

    def tell(self, path: PathKey, text: str, *, key: bool = False) -> None:
        """Add a problem at the position of `path`."""
        self.problems.append(Problem(self.where(path, key=key), path, text))


def read(raw: bytes, resolve: Resolve) -> Document:
    """The document in `raw`.  `resolve` is applied to every text value; its ValueErrors become problems."""
    document = Document()
    if len(raw) > SIZE_LIMIT:
        document.problems.append(Problem(Position(), (), f"the file is larger than {SIZE_LIMIT >> 20} MiB"))
        return document
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        document.problems.append(Problem(Position(line, column), (), "the file is not text in UTF-8"))
        return document
    try:
        deep = _too_deep(text)
        root = None if deep else yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        position = _position_of(error, text)
        said = "a tab; indent with spaces" if _is_tab(text, position) else _said(error)
        document.problems.append(Problem(position, (), f"not YAML: {said}"))
        return document
    if deep:
        document.problems.append(Problem(deep, (), f"nested deeper than {DEPTH_LIMIT} levels"))
    elif root is None:
        document.problems.append(Problem(Position(), (), "the file is empty"))
    else:
        _Walk(document, resolve).run(root)
    return document


def _too_deep(text: str) -> Position | None:
    """The first place that is nested too deeply; found from events, which need no stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_LIMIT:
                return _at(event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


class _Walk:
    """One pass over the nodes of a document."""

    def __init__(self, document: Document, resolve: Resolve) -> None:
        self._document = document
        self._resolve = resolve
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._repeated = 0

    def run(self, root: yaml.Node) -> None:
        data = self._value(root, ())
        self._document.data = data if self._repeated <= ALIAS_LIMIT else None

    def _value(self, node: yaml.Node, path: PathKey) -> Any:
        self._document.values[path] = _at(node.start_mark)
        if id(node) in self._seen:
            self._repeated += 1
        self._seen.add(id(node))
        if self._repeated > ALIAS_LIMIT:
            if self._repeated == ALIAS_LIMIT + 1:
                self._document.tell(path, f"aliases repeat more than {ALIAS_LIMIT} values")
                self._repeated += 1
            return None
        if id(node) in self._open:
            self._document.tell(path, "an alias leads back into itself")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, path)
        finally:
            self._open.discard(id(node))
        self._refuse_tag(node, path)
        return None

    def _mapping(self, node: yaml.MappingNode, path: PathKey) -> dict[str, Any]:
        built: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._document.problems.append(Problem(_at(key.start_mark), path, "a key must be plain text"))
                continue
            if key.tag == _TAG + "merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            name = str(key.value)
            inner = (*path, name)
            if name in built:
                first = self._document.keys[inner].line
                text = f"given twice, first in line {first}"
                self._document.problems.append(Problem(_at(key.start_mark), inner, text))
                continue
            self._document.keys[inner] = _at(key.start_mark)
            built[name] = self._value(value, inner)
        for source in merged:
            self._merge(source, path, built)
        return built

    def _merge(self, source: yaml.Node, path: PathKey, into: dict[str, Any]) -> None:
        """``<<: *other``: what is given here outranks what comes from there."""
        if not isinstance(source, yaml.MappingNode):
            self._document.problems.append(Problem(_at(source.start_mark), path, "<< expects a mapping"))
            return
        own = {key: place for key, place in self._document.keys.items() if key[: len(path)] == path}
        places = {key: place for key, place in self._document.values.items() if key[: len(path)] == path}
        other = self._value(source, path)
        if isinstance(other, dict):
            into.update({name: value for name, value in other.items() if name not in into})
        self._document.keys.update(own)
        self._document.values.update(places)

    def _scalar(self, node: yaml.ScalarNode, path: PathKey) -> Any:
        text = str(node.value)
        kind = node.tag.removeprefix(_TAG)
        if not node.style:  # the C parser says "", the Python one None
            if kind == "null":
                return None
            if kind == "bool" and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if kind == "int" and _INT.fullmatch(text):
                return int(text.replace("_", ""), 0)
            if kind == "float" and _FLOAT.fullmatch(text):
                return float(text)
        if kind not in ("str", "null", "bool", "int", "float", "timestamp", "merge", "value"):
            self._refuse_tag(node, path)
            return None
        try:
            return self._resolve(text)
        except ValueError as error:
            self._document.tell(path, str(error))
            return None

    def _refuse_tag(self, node: yaml.Node, path: PathKey) -> None:
        shown = str(node.tag).replace(_TAG, "!!")[:40]
        self._document.tell(path, f"the tag {shown} is not allowed; write plain YAML")


def _at(mark: Any) -> Position:
    return Position(mark.line + 1, mark.column + 1)


def _position_of(error: yaml.YAMLError, text: str) -> Position:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return _at(mark)
    place = getattr(error, "position", None)
    if isinstance(place, int):
        before = text[:place]
        return Position(before.count("\n") + 1, place - (before.rfind("\n") + 1) + 1)
    return Position()


def _is_tab(text: str, position: Position) -> bool:
    """The parser calls it a character that cannot start any token."""
    lines = text.split("\n")
    return position.line <= len(lines) and lines[position.line - 1][position.column - 1 : position.column] == "\t"


def _said(error: yaml.YAMLError) -> str:
    """The parser's words, without the piece of the file that some versions add."""
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "the file cannot be read"
    context = getattr(error, "context", None)
    return f"{said} ({context})" if context else str(said)

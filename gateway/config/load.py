"""Load: a configuration file, or a list of URLs, to `Settings`; or `ConfigError` with all that is wrong.

Always true: every problem is one line, ``file:line:col: path: what was expected``, in the order of
the file; every text is scrubbed of what references gave; a `Settings` that comes out has passed the
rules between settings, too.
Does not belong here: the rules themselves (settings, crosscheck), what to do with a bad file (assembly).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from gateway.catalogue.chains import find
from gateway.catalogue.vendors import expand, expand_socket
from gateway.config.crosscheck import crosscheck, entries, mapping, shown_path
from gateway.config.mistakes import tell_mistakes
from gateway.config.references import Resolved, resolve
from gateway.config.scalars import Address
from gateway.config.settings import Settings
from gateway.config.survey import secrets_of, warnings_of
from gateway.config.yaml_nodes import SIZE_LIMIT, Document, PathKey, read
from gateway.errors import ConfigError
from gateway.telemetry.redaction import Redactor

__all__ = ["load", "secrets_of", "settings_for_urls", "warnings_of", "with_listen"]


LINE_LIMIT = 500  # characters of a problem's path, and of its text


def load(path: Path, env: Mapping[str, str] | None = None) -> Settings:
    """The settings in the file at `path`.  `env` is the environment for references, by default the process's.

    Raises ConfigError with every problem found.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such file"
        raise ConfigError([f"{path}: cannot be read: {reason}"]) from None
    return load_text(raw, str(path), path.parent, env)


def load_text(raw: bytes, shown_name: str, base: Path, env: Mapping[str, str] | None = None) -> Settings:
    """The same for a text.  Relative ``file:`` references start at `base`."""
    env = os.environ if env is None else env
    given: set[str] = set()

    def look_up(text: str) -> str:
        value = resolve(text, env, base)
        given.update(getattr(value, "parts", ()))
        return value

    document = read(raw, look_up)
    if document.data is None and not document.problems:
        document.tell((), "the file holds no settings")
    if document.data is not None:
        settings = _settle(document, env)
        if settings is not None and not document.problems:
            return settings
    raise ConfigError(_lines(document, shown_name, Redactor(given))) from None


def settings_for_urls(urls: Sequence[str], env: Mapping[str, str] | None = None) -> Settings:
    """One route named ``default`` over `urls`; its chain is what the endpoints say it is.

    Raises ConfigError; a URL is named by its position, never by its text.
    """
    endpoints = [Resolved(url, (url,)) for url in urls]
    document = Document(data={"routes": {"default": {"dialect": "evm", "endpoints": endpoints}}})
    settings = _settle(document, os.environ if env is None else env)
    if settings is not None and not document.problems:
        return settings
    redactor = Redactor(urls)
    lines = []
    for problem in document.problems:
        number = next((part + 1 for part in problem.path if isinstance(part, int)), None)
        where = f"URL {number}: " if number is not None else ""
        lines.append(where + _one_line(redactor.scrub(problem.text)))
    raise ConfigError(lines)


def with_listen(settings: Settings, listen: str) -> Settings:
    """`settings`, but for callers at `listen`.  Raises ConfigError, also for an address that is taken in them."""
    try:
        address = TypeAdapter(Address).validate_python(listen)
    except ValidationError as error:
        raise ConfigError([f"--listen: {error.errors()[0]['ctx']['error']}"]) from None
    others = [settings.operations.listen, *(each.listen for each in settings.simulated.values())]
    if address in others and not address.endswith(":0"):
        raise ConfigError([f"--listen: {address} is taken by something else in the configuration"])
    return settings.model_copy(update={"listen": address})


def _settle(document: Document, env: Mapping[str, str]) -> Settings | None:
    """Short forms to full ones, the rules between settings, the tree; problems go to the document."""
    _unfold(document)
    _expand_vendors(document, env)
    crosscheck(document)
    try:
        return Settings.model_validate(document.data)
    except ValidationError as error:
        tell_mistakes(document, error)
        return None


def _lines(document: Document, shown_name: str, redactor: Redactor) -> list[str]:
    lines = []
    for problem in sorted(document.problems, key=lambda p: p.position):
        where = f"{shown_name}:{problem.position.line}:{problem.position.column}"
        path = f"{shown_path(problem.path)}: " if problem.path else ""
        line = f"{where}: {_one_line(path)}{_one_line(redactor.scrub(problem.text))}"
        if line not in lines:
            lines.append(line)
    return lines


def _one_line(text: str) -> str:
    """`text` for a terminal: of bounded length, and without line breaks or control characters."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:LINE_LIMIT])
    return shown if len(text) <= LINE_LIMIT else shown + "..."


def _unfold(document: Document) -> None:
    """A list for the file or for a route stands for its endpoints; a setting without a value is not set."""
    if isinstance(document.data, list):
        document.data = {"routes": {"default": {"endpoints": document.data}}}
        document.move(("routes", "default", "endpoints"), ())
    data = mapping(document.data)
    routes = mapping(data.get("routes"))
    for name, route in routes.items():
        if isinstance(route, list):
            routes[name] = {"endpoints": route}
            document.move(("routes", name, "endpoints"), ("routes", name))
    for named in ("providers", "routes", "keys", "simulated"):
        group = mapping(data.get(named))
        for name in [name for name, entry in group.items() if entry is None]:
            group[name] = {}  # it is there, with nothing in it
    _drop_unset(document.data)


def _drop_unset(value: Any) -> None:
    if isinstance(value, dict):
        for name in [name for name, inner in value.items() if inner is None]:
            del value[name]
        for inner in value.values():
            _drop_unset(inner)
    elif isinstance(value, list):
        for inner in value:
            _drop_unset(inner)


def _expand_vendors(document: Document, env: Mapping[str, str]) -> None:
    """``vendor://KEY`` to the vendor's URL for the route's chain; the key is remembered as secret."""
    for name, route in mapping(mapping(document.data).get("routes")).items():
        endpoints = entries(mapping(route).get("endpoints"))
        for index, entry in enumerate(endpoints):
            url = entry.get("url") if isinstance(entry, dict) else entry
            found = _SHORTHAND.fullmatch(url) if isinstance(url, str) else None
            if found is None or found[1].lower() in NO_VENDORS:
                continue
            used = _Used(env)
            try:
                expanded = expand(str(url), _chain_name(mapping(route)), used)
            except ValueError as error:
                path: PathKey = ("routes", name, "endpoints", index)
                document.tell((*path, "url") if isinstance(entry, dict) else path, str(error))
                continue
            made = Resolved(expanded, (*getattr(url, "parts", ()), *re.split("[:/]", found[2]), *used.values_used))
            if not isinstance(entry, dict):
                endpoints[index] = made
                continue
            entry["url"] = made
            if str(entry.get("ws")).strip().lower() == "true":
                try:
                    entry["ws"] = Resolved(expand_socket(str(url), _chain_name(mapping(route)), env), made.parts)
                except ValueError as error:
                    document.tell(("routes", name, "endpoints", index, "ws"), str(error))


_SHORTHAND = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
NO_VENDORS = frozenset({"http", "https", "ws", "wss", "ftp", "file", "ipc", "tcp", "unix", "socks5", "socks5h"})
"""Schemes that are not a vendor's, even misspelt."""


class _Used(Mapping[str, str]):
    """An environment that remembers what was taken from it: a key that a URL now holds."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.values_used: list[str] = []

    def __getitem__(self, name: str) -> str:
        value = self._env[name]
        self.values_used.append(value)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._env)

    def __len__(self) -> int:
        return len(self._env)


def _chain_name(route: dict[str, Any]) -> str:
    """The name of a route's chain in the catalogue, or nothing."""
    given = route.get("chain", route.get("chain_id"))
    if isinstance(given, str) and given.isdecimal():
        given = int(given)
    known = find(given) if isinstance(given, (str, int)) and not isinstance(given, bool) else None
    return known.name if known is not None else str(given or "")

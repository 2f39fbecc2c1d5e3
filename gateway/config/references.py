"""References: ``${NAME}``, ``${NAME:-default}`` and ``file:/path`` inside strings.

Always true: what a reference yields is text and stays text, never YAML and never another reference;
where it came from is remembered (`Resolved.parts`), so that it counts as secret wherever it ends up;
a reference that leads nowhere is refused, never replaced by nothing.
``$${`` stands for a plain ``${``.  A default is used when the variable is unset or empty, as in a shell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

FILE_LIMIT = 64 * 1024  # bytes of a secret's file

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class Resolved(str):
    """Text in which references were resolved.  `parts` are the values they gave."""

    parts: tuple[str, ...]

    def __new__(cls, text: str, parts: tuple[str, ...]) -> Resolved:
        self = super().__new__(cls, text)
        self.parts = parts
        return self


def resolve(text: str, env: Mapping[str, str], base: Path) -> str:
    """`text` with its references resolved.  A relative ``file:./name`` starts at `base`.

    Raises ValueError that names the variable or file, and no value.
    """
    if text.startswith(("file:/", "file:./", "file:../")):
        value = _read(base / text[len("file:") :])
        return Resolved(value, (value,))
    if "${" not in text:
        return text
    parts: list[str] = []

    def one(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        inside = _INSIDE.fullmatch(found[1]) if found[1] is not None else None
        if inside is None:
            raise ValueError("expected a reference such as ${NAME} or ${NAME:-default}; a plain ${ is written $${")
        name, default = inside.groups()
        value = env.get(name)
        if default is not None and not value:
            return str(default)
        if value is None:
            raise ValueError(f"the variable {name} is not set, and no default is given (${{{name}:-default}})")
        parts.append(value)
        return value

    resolved = _REFERENCE.sub(one, text)
    return Resolved(resolved, tuple(parts)) if parts else resolved


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror or 'no such file'}") from None
    except ValueError:
        raise ValueError("the name of the file holds a character that no file name can have") from None
    if len(data) > FILE_LIMIT:
        raise ValueError(f"the file {path} is larger than {FILE_LIMIT // 1024} KiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not text in UTF-8") from None
    return text.rstrip("\r\n")

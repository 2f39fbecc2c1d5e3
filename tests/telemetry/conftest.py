"""What the telemetry tests share: canary secrets, and logging taken over and given back."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator

import pytest

from gateway.telemetry.logs import LogFormat, configure_logging
from gateway.telemetry.redaction import Redactor

# A vendor's key, a password with everything that encodings change, one that is not ASCII, and a key of many lines.
CANARIES = (
    "kT9xQ2vB7mZ4pL8wR1sN",
    'p@ss/wörd "quo\'te"\\&<%+=?~',
    "секретный-ключ-42",
    "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----",
)

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "quoted": lambda s: urllib.parse.quote(s, safe=""),
    "quoted, slashes kept": urllib.parse.quote,
    "quote_plus": urllib.parse.quote_plus,
    "quoted, lower-case escapes": lambda s: re.sub(
        "%..", lambda found: found[0].lower(), urllib.parse.quote(s, safe="")
    ),
    "quoted twice": lambda s: urllib.parse.quote(urllib.parse.quote(s, safe=""), safe=""),
    "every byte quoted": lambda s: "".join(f"%{byte:02X}" for byte in s.encode()),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64 without padding": lambda s: base64.b64encode(s.encode()).decode().rstrip("="),
    "base64 for URLs": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: s.encode().hex().upper(),
    "JSON": lambda s: json.dumps(s)[1:-1],
    "JSON in UTF-8": lambda s: json.dumps(s, ensure_ascii=False)[1:-1],
    "JSON with escaped slashes": lambda s: json.dumps(s)[1:-1].replace("/", "\\/"),
    "JSON inside JSON": lambda s: json.dumps(json.dumps(s)[1:-1])[1:-1],
    "repr": lambda s: repr(s)[1:-1],
    "repr of bytes": lambda s: repr(s.encode())[2:-1],
    "HTML": html.escape,
    "lower case, as in a host name": str.lower,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with an `encode` argument runs once per encoding."""
    if "encode" in metafunc.fixturenames:
        metafunc.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS.keys())


@pytest.fixture
def assert_silent() -> Callable[[str], None]:
    """Fails when a text holds any canary in any encoding."""

    def check(text: str) -> None:
        for canary in CANARIES:
            for name, encode in ENCODINGS.items():
                assert encode(canary) not in text, f"a canary leaked: {name}"

    return check


@pytest.fixture
def canaries() -> tuple[str, ...]:
    return CANARIES


@pytest.fixture
def redactor() -> Redactor:
    return Redactor(CANARIES)


@pytest.fixture
def logging_to(redactor: Redactor) -> Iterator[Callable[..., io.StringIO]]:
    """Start logging in a format; gives the stream it writes to."""
    undo: list[Callable[[], None]] = []

    def start(form: LogFormat, level: str = "debug", using: Redactor = redactor) -> io.StringIO:
        stream = io.StringIO()
        undo.append(configure_logging(level, form, using, stream))
        return stream

    yield start
    for each in reversed(undo):
        each()

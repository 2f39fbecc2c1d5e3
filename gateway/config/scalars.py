"""Scalars: the names, addresses, URLs, headers and secrets of the tree as pydantic types.

Always true: each type refuses with words that say what would be right, never with a regular
expression; no refusal quotes a secret, or any part of a URL but its scheme.
Does not belong here: numbers with units (units, sections), rules between settings (crosscheck).
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from gateway.config.secret import Secret, SecretUrl
from gateway.config.units import shown

CHAIN_ID_LIMIT = 2**53 - 1  # the largest whole number that every JSON reader keeps
KEY_LENGTH = 16  # characters; a shorter caller key could be guessed
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def whole(value: object) -> int:
    """A whole number, also as text (that is what a variable gives)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip(), re.ASCII):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    raise ValueError(f"expected a whole number, got {shown(value)}")


def number(value: object) -> float:
    """A finite number, also as text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15:
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", value.strip(), re.ASCII):
        return float(value)
    raise ValueError(f"expected a number, got {shown(value)}")


def truth(value: object) -> bool:
    """``true`` or ``false``, also as text; YAML's yes, no, on and off are understood."""
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    raise ValueError(f"expected true or false, got {shown(value)}")


def _address(value: object) -> str:
    """``host:port`` to listen on: an IP address or a name, IPv6 in brackets."""
    expected = f"expected host:port such as 127.0.0.1:4000 or [::1]:4000, got {shown(value)}"
    if not isinstance(value, str):
        raise ValueError(expected)
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII):
        raise ValueError(expected)
    if int(port) > 65535:
        raise ValueError(f"a port is at most 65535, got {port}")
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError(expected) from None
    elif not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host, re.ASCII):
        raise ValueError(expected)
    return value


def _name(value: object) -> str:
    """A name that is safe in paths, metrics and logs."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", value, re.ASCII):
        return value
    raise ValueError(f"expected a name of letters, digits, '.', '_' and '-' (at most 63), got {shown(value)}")


def _text(value: object) -> str:
    """Text; a number is taken as it is written (an account number is a label, too)."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {shown(value)}")
    if not value or not value.isprintable() or len(value) > 1000:
        raise ValueError("expected text of 1 to 1000 printable characters")
    return str(value)


def _url(value: object, schemes: tuple[str, ...]) -> SecretUrl:
    """A URL that can be dialled.  What is refused is described without its path, query and credentials."""
    if isinstance(value, SecretUrl):
        url = value.reveal()
    elif isinstance(value, str):
        url = value
    else:
        raise ValueError(f"expected a URL such as https://rpc.example.org/, got {shown(value)}")
    expected = f"expected a URL that begins with {' or '.join(s + '://' for s in schemes)}"
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"{expected}; it holds a space or a character that must be percent-encoded")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{expected}; its {'port' if 'ort' in str(error) else 'host'} is wrong") from None
    if parts.scheme not in schemes or "://" not in url:
        found = re.match(r"([A-Za-z][A-Za-z0-9+.-]{0,15})://", url)
        got = f", got {found[1]}://" if found else ""
        raise ValueError(expected + got + _hint(parts.scheme, schemes))
    if not host or not _HOST.fullmatch(host):
        raise ValueError(f"{expected} and a host name; its host is {'wrong' if host else 'missing'}")
    if port == 0:
        raise ValueError(f"{expected}; its port must be 1 to 65535")
    if parts.fragment:
        raise ValueError(f"{expected}; a part after # is never sent")
    return value if isinstance(value, SecretUrl) else SecretUrl(url, tuple(getattr(value, "parts", ())))


def _hint(scheme: str, expected: tuple[str, ...]) -> str:
    """For a WebSocket's URL where a plain one belongs, and the other way round."""
    other = {"ws": "http", "wss": "https", "http": "ws", "https": "wss"}.get(scheme)
    if other not in expected:
        return ""
    return " (write url: https://... and ws: wss://...)" if scheme in ("ws", "wss") else f" (did you mean {other}://?)"


_HOST = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?|[0-9a-fA-F:.]{2,45}(%[0-9A-Za-z]{1,16})?", re.ASCII
)


def _hard_to_guess(value: Secret) -> Secret:
    if len(value) < KEY_LENGTH:
        raise ValueError(f"must have at least {KEY_LENGTH} characters, it has {len(value)}")
    return value


def _caller_key(value: Secret) -> Secret:
    if not value.reveal().isascii() or not value.reveal().isprintable() or set(value.reveal()) & set(" /?#%"):
        raise ValueError("may hold printable ASCII only, without spaces and without / ? # %")
    return value


def _chain(value: object) -> str | int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value, re.ASCII):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= CHAIN_ID_LIMIT:
        return value
    if isinstance(value, str) and value and value.isprintable():
        return str(value)
    raise ValueError(f"expected a chain's name or id such as ethereum or 1, got {shown(value)}")


def _header_name(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", value, re.ASCII):
        if value.lower() in ("host", "content-length", "transfer-encoding", "connection"):
            raise ValueError(f"the header {value} belongs to the connection and cannot be set")
        return value
    raise ValueError(f"expected a header's name, got {shown(value)}")


def _sendable(value: Secret) -> Secret:
    """What may stand in a header's value, RFC 9110 section 5.5; above all no line break."""
    content = value.reveal()
    if "\r" in content or "\n" in content:
        raise ValueError("holds a line break, which no header value can")
    if not content.isascii() or not content.isprintable() or content != content.strip():
        raise ValueError("holds a character that cannot be sent in a header, or a space at an end")
    return value


def _readable(value: object) -> str:
    """The path of a file that can be read now."""
    path = _text(value)
    try:
        with open(path, "rb"):
            return path
    except OSError as error:
        raise ValueError(f"the file cannot be read: {os.strerror(error.errno) if error.errno else error}") from None


def _http_url(value: object) -> SecretUrl:
    return _url(value, ("http", "https"))


def _socket_url(value: object) -> SecretUrl | bool:
    """A WebSocket's URL, or whether there is one at the endpoint's own URL."""
    if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false")):
        return truth(value)
    if not isinstance(value, (str, SecretUrl)):
        raise ValueError(f"expected true, false or a URL such as wss://rpc.example.org/, got {shown(value)}")
    return _url(value, ("ws", "wss"))


def _stream_url(value: object) -> SecretUrl:
    return _url(value, ("ws", "wss"))


def _proxy_url(value: object) -> SecretUrl:
    return _url(value, PROXY_SCHEMES)


def _origin(value: object) -> str:
    """What a browser sends as Origin: scheme and host, no path; or ``*``, or ``scheme://*``."""
    if isinstance(value, str) and (
        value == "*"
        or re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://(\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?", value)
    ):
        return str(value)
    raise ValueError(f"expected an origin such as https://app.example.org (no path), got {shown(value)}")


def _host(value: object) -> str:
    """A name in Host headers: ``rpc.example.org``, ``*.example.org`` or ``*``; without a port."""
    if isinstance(value, str) and re.fullmatch(
        r"\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", value, re.ASCII
    ):
        return str(value)
    raise ValueError(f"expected a host name such as rpc.example.org or *.example.org (no port), got {shown(value)}")


_AS_TEXT = WithJsonSchema({"type": "string"})
_AS_LABEL = WithJsonSchema({"type": ["string", "integer"]})

Address = Annotated[str, BeforeValidator(_address)]
Name = Annotated[str, BeforeValidator(_name)]
Host = Annotated[str, BeforeValidator(_host)]
Origin = Annotated[str, BeforeValidator(_origin)]
Text = Annotated[str, BeforeValidator(_text), _AS_LABEL]
Flag = Annotated[bool, BeforeValidator(truth), WithJsonSchema({"type": ["boolean", "string"]})]
ReadableFile = Annotated[str, BeforeValidator(_readable)]
Chain = Annotated[str | int, BeforeValidator(_chain)]
HeaderName = Annotated[str, BeforeValidator(_header_name)]
HeaderValue = Annotated[Secret, AfterValidator(_sendable), _AS_TEXT]
CallerKey = Annotated[Secret, AfterValidator(_hard_to_guess), AfterValidator(_caller_key), _AS_TEXT]
Token = Annotated[Secret, AfterValidator(_sendable), _AS_TEXT]
OwnToken = Annotated[Secret, AfterValidator(_hard_to_guess), AfterValidator(_sendable), _AS_TEXT]
Hidden = Annotated[Secret, _AS_TEXT]
Url = Annotated[SecretUrl, BeforeValidator(_http_url), _AS_TEXT]
SocketUrl = Annotated[
    SecretUrl | bool, BeforeValidator(_socket_url), WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string"}]})
]
StreamUrl = Annotated[SecretUrl, BeforeValidator(_stream_url), _AS_TEXT]
ProxyUrl = Annotated[SecretUrl, BeforeValidator(_proxy_url), _AS_TEXT]


def host_and_port(listen: str) -> tuple[str, int]:
    """``127.0.0.1:4000`` or ``[::1]:4000`` apart."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)

"""Redaction: takes secrets out of every text that leaves the process for people or machines.

Always true: after `scrub`, no known secret is left in the text, neither plain nor in any encoding
that URLs, headers, JSON, Python or HTML give it; `scrub` is idempotent, linear in its input and
never raises.  Secrets are learned from the configuration; on top of them shapes that usually hold
one (credentials in URLs, `Bearer ...`, `api_key=...`) are masked without being known.
Known secrets go first, because a shape may end in the middle of one.

Does not belong here: where secrets come from (config), or which texts are written (logs, traces).
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "***"

MIN_LENGTH: Final = 4
"""Characters.  A shorter secret is not learned: masking it would turn every text into stars."""

TEXT_LIMIT: Final = 64 * 1024
"""Characters of one log text; the middle of a longer one is left out."""

_TAIL: Final = 16 * 1024  # an exception's message stands at the end of its text: keep some of it
_CUT: Final = " ...[cut]... "
_NEVER: Final = "(?!)"

# A value ends at white space, quotes, a backslash (JSON inside JSON) or a separator, so that masking
# it keeps the surrounding URL or JSON well-formed.
_VALUE: Final = r"[^\s\"'&,;<>\\]{1,4096}"
# name=value, name: value, and name and value as two quoted strings ("name": "value", (b'name', b'value')).
_JOINT: Final = r"(?:\\?[\"']\s{0,3}[:,]\s{0,3}b?\\?[\"']|\s{0,3}[=:]\s{0,3}(?:b?\\?[\"'])?)"
_NAMES: Final = (
    r"(?:api|access|secret|private)[-_]?key|apikey|(?:access|auth|refresh|bearer)[-_]?token|client[-_]?secret"
    r"|passw(?:or)?d|passphrase|signature"
)
_LONG: Final = r"[A-Za-z0-9_~%+=-]{20,4096}"  # no dot: a file or host name is no key

_SHAPES: Final = (
    # scheme://user:password@host
    r"(?P<user>://)[^/\s@\"'<>\\]{1,1024}@"
    # Authorization: Bearer ..., Basic ... (long enough not to be prose)
    r"|(?P<auth>\b(?:bearer\s{1,3}(?:token\s{1,3})?|basic\s{1,3}(?=[a-z0-9+/=]{16})))[A-Za-z0-9._~+/=*-]{3,8192}"
    rf"|(?P<name>(?:{_NAMES}){_JOINT})(?:bearer\s|basic\s)?{_VALUE}"
    rf"|(?P<query>[?&](?:key|token|auth|secret|sig)=){_VALUE}"
    rf"|(?P<long>[?&][a-z0-9_.-]{{1,64}}=){_LONG}"
)
_URL: Final = re.compile(r"(?:https?|wss?)://[^\s\"'<>\\]{1,8192}", re.IGNORECASE | re.ASCII)
_SEGMENT: Final = re.compile(rf"/{_LONG}(?=[/?#]|$)")
# Nothing above can match where none of these stands; looking for them is 15 times cheaper than the patterns.
_HINTS: Final = ("://", "?", "&", "bearer", "basic", "key", "token", "secret", "pass", "signature")
_SHAPE: Final = re.compile(_SHAPES, re.IGNORECASE | re.ASCII)


class Redactor:
    """Holds the known secrets and masks them.  Shared by every sink; safe to use from any thread."""

    __slots__ = ("_known",)

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known = _Known(secrets)

    def replace(self, secrets: Iterable[str]) -> None:
        """Swap all known secrets at once, at a reload.

        Hand in the old ones too while endpoints that use them still drain.  A secret in a URL's
        user information is best registered as `secret` and as `user:secret`.
        """
        self._known = _Known(secrets)

    def scrub(self, text: str) -> str:
        """`text` with every known secret and every secret-like shape masked.  Any length; linear."""
        return _mask_shapes(self._known.text.sub(MASK, text))

    def scrub_bytes(self, data: bytes) -> bytes:
        """`data` likewise; what is no UTF-8 comes out as it went in.  Meant for error texts, not for results."""
        masked = self._known.data.sub(b"***", data)
        text = masked.decode("latin-1")
        shaped = _mask_shapes(text)
        return masked if shaped is text else shaped.encode("latin-1")

    def scrub_log(self, text: str) -> str:
        """`scrub`, for a text of unknown size: at most about `TEXT_LIMIT` characters come out.

        Where the text is cut, more is dropped than the longest secret, so that no cut leaves half of one.
        """
        if len(text) <= TEXT_LIMIT:
            return self.scrub(text)
        margin = max(self._known.longest, 64)
        head = self.scrub(text[: TEXT_LIMIT - _TAIL + margin])[:-margin]
        tail = self.scrub(text[-_TAIL - margin :])[margin:]
        return head + _CUT + tail


def _mask_shapes(text: str) -> str:
    lowered = text.lower()
    for hint in _HINTS:
        if hint in lowered:
            break
    else:
        return text
    text = _SHAPE.sub(_mask_shape, text)
    return _URL.sub(_mask_segments, text) if "://" in text else text


def _mask_shape(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    return found[kind] + MASK + ("@" if kind == "user" else "")


def _mask_segments(found: re.Match[str]) -> str:
    """Long path segments of one URL: where most RPC providers put the key."""
    url = found[0]
    path = url.find("/", url.index("://") + 3)
    return url if path < 0 else url[:path] + _SEGMENT.sub("/" + MASK, url[path:])


class _Known:
    """One immutable set of secrets, compiled.  `longest` is in characters or bytes, whichever is more."""

    __slots__ = ("data", "longest", "text")

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in encodings(secret)}
        raw = {form.encode("utf-8", "surrogatepass") for form in forms}
        # Bytes are matched through latin-1, one character per byte, to build both patterns alike.
        self.text = re.compile(_any_of(sorted(forms)))
        self.data = re.compile(_any_of(sorted(form.decode("latin-1") for form in raw)).encode("latin-1"))
        self.longest = max(map(len, raw), default=0)


def encodings(secret: str) -> set[str]:
    """Every form in which `secret` may turn up in a text; empty when it is too short to be masked."""
    parts = {secret, secret.strip()}
    if len(lines := secret.split()) > 1:  # a PEM key: log lines show it piece by piece
        parts.update(line for line in lines if len(line) >= 16)
    forms: set[str] = set()
    for part in parts:
        if len(part) >= MIN_LENGTH:
            forms |= _forms_of(part)
    return {form for form in forms if len(form) >= MIN_LENGTH}


def _forms_of(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    hexed = raw.hex()
    quoted = {quote(raw, safe=""), quote(raw), quote_plus(raw), quote_plus(raw, safe="/")}
    quoted.add("%" + raw.hex("%").upper())  # every byte quoted
    quoted |= {quote(form, safe="") for form in quoted}  # a URL inside a URL
    quoted |= {_lower_escapes(form) for form in quoted}
    forms = {secret, secret.lower(), hexed, hexed.upper(), html.escape(secret), html.escape(secret, quote=False)}
    forms |= quoted
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    escaped |= {repr(secret)[1:-1], ascii(secret)[1:-1], repr(raw)[2:-1]}
    escaped |= {form.replace("/", "\\/") for form in escaped}
    escaped |= {json.dumps(form)[1:-1] for form in escaped}  # JSON inside JSON
    return forms | escaped | _base64_forms(raw)


def _lower_escapes(text: str) -> str:
    return re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text)


def _base64_forms(raw: bytes) -> set[str]:
    """Base64 of `raw` alone, and the part of it that is the same wherever `raw` stands in a longer text.

    Base64 works on groups of three bytes, so there are three such parts, one per position in a group
    (this is how `Basic base64(user:secret)` is found without knowing the user).  Parts of fewer than
    6 characters would match by chance and are left out.
    """
    forms: set[str] = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode("ascii")
        forms |= {whole, whole.rstrip("=")}
        for offset, mixed in ((0, 0), (1, 2), (2, 3)):  # characters that also hold bits of what stands before
            text = encode(bytes(offset) + raw).decode("ascii")
            end = len(text.rstrip("=")) - (1 if (offset + len(raw)) % 3 else 0)  # the last also holds what follows
            if end - mixed >= 6:
                forms.add(text[mixed:end])
    return forms


def _any_of(words: list[str]) -> str:
    """A pattern that matches the longest of the sorted `words` that stands at a place.

    Common beginnings are shared, so the cost per character does not grow with the number of words.
    """
    return _branches(words, 0) if words else _NEVER


def _branches(words: list[str], start: int) -> str:
    """The pattern for the rests, from `start`, of sorted words that agree before `start`."""
    first, last = words[0], words[-1]
    end, stop = start, min(len(first), len(last))
    while end < stop and first[end] == last[end]:
        end += 1
    shared = re.escape(first[start:end])
    if len(words) == 1:
        return shared
    ends_here = len(first) == end
    rest = words[1:] if ends_here else words
    groups: dict[str, list[str]] = {}
    for word in rest:
        groups.setdefault(word[end], []).append(word)
    inner = "|".join(_branches(group, end) for group in groups.values())
    return f"{shared}(?:{inner})" + ("?" if ends_here else "")

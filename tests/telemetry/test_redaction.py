from __future__ import annotations

import base64
import string
import timeit
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.telemetry.redaction import MASK, TEXT_LIMIT, Redactor, encodings
from tests.pace import at_most

secrets_texts = st.text(st.characters(codec="utf-8"), min_size=8, max_size=60).filter(
    lambda s: len(s.strip()) >= 8 and MASK not in s
)
keys = st.text(string.ascii_letters + string.digits + "-_", min_size=16, max_size=64)


Encode = Callable[[str], str]


def test_a_canary_is_masked_in_every_encoding(encode: Encode, redactor: Redactor, canaries: tuple[str, ...]) -> None:
    for canary in canaries:
        form = encode(canary)
        for text in (form, f"before {form} after", f"({form})"):
            masked = redactor.scrub(text)
            assert form not in masked
            assert MASK in masked


def test_a_canary_is_masked_in_bytes_too(encode: Encode, redactor: Redactor, canaries: tuple[str, ...]) -> None:
    for canary in canaries:
        form = encode(canary).encode()
        masked = redactor.scrub_bytes(b'{"error":"' + form + b'\xff"}')
        assert form not in masked
        assert masked.startswith(b'{"error":"') and masked.endswith(b'\xff"}')


@settings(max_examples=50)
@given(secret=secrets_texts, around=st.text(max_size=10))
def test_no_secret_survives_any_encoding(encode: Encode, secret: str, around: str) -> None:
    form = encode(secret)
    assert form not in Redactor([secret]).scrub(around + form + around)


@given(key=keys, user=st.text(string.ascii_letters, max_size=9), after=st.text(string.ascii_letters, max_size=9))
def test_a_key_is_found_in_base64_of_a_longer_text(key: str, user: str, after: str) -> None:
    encoded = base64.b64encode(f"{user}:{key}:{after}".encode()).decode()
    masked = Redactor([key]).scrub(f"sent {encoded}")
    # All but the characters at either end, which hold bits of the neighbours too.
    kept = masked.removeprefix("sent ").split(MASK)
    assert MASK in masked
    assert sum(map(len, kept)) <= len(encoded) - len(key) * 4 // 3 + 4


@settings(max_examples=200)
@given(text=st.text(max_size=300), secrets=st.lists(secrets_texts, max_size=3))
def test_scrubbing_twice_changes_nothing(text: str, secrets: list[str]) -> None:
    redactor = Redactor(secrets)
    once = redactor.scrub(text + "".join(secrets) + " https://u:p@h/" + "k" * 30)
    assert redactor.scrub(once) == once


def test_the_longest_secret_is_masked_first() -> None:
    redactor = Redactor(["abcd1234", "abcd1234-and-more", "abcd"])
    assert redactor.scrub("x abcd1234-and-more y abcd1234 z abcd") == "x *** y *** z ***"


def test_a_shape_does_not_cut_a_known_secret_in_two() -> None:
    redactor = Redactor(["abc&defghijkl", "first half;second half"])
    assert redactor.scrub("?api_key=abc&defghijkl&x=1") == "?api_key=***&x=1"
    assert redactor.scrub("password: first half;second half") == "password: ***"


def test_short_secrets_are_not_learned_because_they_would_mask_everything() -> None:
    assert Redactor(["", "a", "abc"]).scrub("abc a banana") == "abc a banana"
    assert encodings("abc") == set()


def test_a_secret_file_s_trailing_newline_does_not_hide_the_secret() -> None:
    assert Redactor(["hunter2hunter2\n"]).scrub("the key hunter2hunter2 was refused") == "the key *** was refused"


def test_secrets_are_swapped_at_once() -> None:
    redactor = Redactor(["first-secret"])
    redactor.replace(["second-secret"])
    assert redactor.scrub("first-secret second-secret") == "first-secret ***"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("authorization: bearer eyJhbGciOiJIUzI1NiJ9.e30.sig_na-ture", "authorization: bearer ***"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "Authorization: Basic ***"),
        ("?api_key=abc&x=1", "?api_key=***&x=1"),
        ("api-key: abc, next", "api-key: ***, next"),
        ("apikey=abc;", "apikey=***;"),
        ('{"apiKey":"abc","id":1}', '{"apiKey":"***","id":1}'),
        ("[(b'x-api-key', b'abc')]", "[(b'x-api-key', b'***')]"),
        ("{'X-MBX-APIKEY': 'abc'}", "{'X-MBX-APIKEY': '***'}"),
        ('"{\\"secret_key\\":\\"abc\\"}"', '"{\\"secret_key\\":\\"***\\"}"'),
        ("?timestamp=1&signature=deadbeef", "?timestamp=1&signature=***"),
        ("wss://h/ws?token=abc", "wss://h/ws?token=***"),
        ("https://user:pass@host/path", "https://***@host/path"),
        ("redis://:pass@host:6379/0", "redis://***@host:6379/0"),
        ("https://mainnet.infura.io/v3/0123456789abcdef0123456789abcdef", "https://mainnet.infura.io/v3/***"),
        ("wss://x.quiknode.pro/0123456789abcdef0123456789abcdef/ext/bc", "wss://x.quiknode.pro/***/ext/bc"),
        ('POST https://h/v2/AbCdEfGhIjKlMnOpQrStUv "HTTP/1.1 200 OK"', 'POST https://h/v2/*** "HTTP/1.1 200 OK"'),
        ("https://h/p?k=0123456789abcdef0123456789abcdef", "https://h/p?k=***"),
    ],
)
def test_what_looks_like_a_secret_is_masked_unseen(text: str, masked: str) -> None:
    assert Redactor().scrub(text) == masked
    assert Redactor().scrub_bytes(text.encode()) == masked.encode()


@pytest.mark.parametrize(
    "text",
    [
        "execution reverted: ERC20: transfer amount exceeds balance",
        "header not found for 0x8d9f5fe2b7a3c7d1e4a0b6f2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f6",
        "https://docs.example.org/json-rpc/eth_getLogs?page=2",
        "the bearer of this token is a basic authentication scheme",
        "unknown key in route ethereum: endpont",
        "nonce too low: next nonce 7, tx nonce 5",
        '{"jsonrpc":"2.0","error":{"code":3,"message":"execution reverted","data":"0x08c379a0' + "0" * 128 + '"}}',
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Redactor(["kT9xQ2vB7mZ4pL8wR1sN"]).scrub(text) == text


@pytest.mark.parametrize("offset", range(-40, 41, 4))
def test_a_cut_leaves_no_part_of_a_secret(offset: int) -> None:
    canary = "kT9xQ2vB7mZ4pL8wR1sN"
    redactor = Redactor([canary])
    for edge in (TEXT_LIMIT - 16 * 1024, 2 * TEXT_LIMIT - 16 * 1024, TEXT_LIMIT):
        position = edge + offset
        text = ("." * position + canary).ljust(2 * TEXT_LIMIT, ".")
        masked = redactor.scrub_log(text)
        assert len(masked) <= TEXT_LIMIT + 1024
        assert not any(canary[i : i + 4] in masked for i in range(len(canary) - 3))


@pytest.mark.parametrize(
    "piece", ["://", "x?", "bearer ", "api_key=   ", "&a=", "%41", "https://", "a@", "key\"' : b'"]
)
def test_hostile_text_costs_linear_time(piece: str) -> None:
    redactor = Redactor(["kT9xQ2vB7mZ4pL8wR1sN", "https-ish-secret"])

    def takes(size: int) -> float:
        text = piece * (size // len(piece))
        return min(timeit.repeat(lambda: redactor.scrub(text), number=1, repeat=3))

    at_most(takes(200_000) / takes(25_000), 24.0, "times as long for eight times the text: linear is 8, quadratic 64")

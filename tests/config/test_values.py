"""Units, references, YAML's surprises, names: what one value becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import load_text, settings_for_urls, warnings_of
from gateway.config.references import resolve
from gateway.config.units import duration, rate, share, size
from gateway.config.yaml_nodes import read
from gateway.errors import ConfigError


@pytest.mark.parametrize(
    ("reader", "given_value", "expected"),
    [
        (duration, "250ms", 0.25),
        (duration, "2s", 2.0),
        (duration, "5m", 300.0),
        (duration, "1h", 3600.0),
        (duration, "1m30s", 90.0),
        (duration, 3, 3.0),
        (duration, "0.5", 0.5),
        (size, "2MB", 2_000_000),
        (size, "64KiB", 65_536),
        (size, "32kB", 32_000),
        (size, "1 GB", 10**9),
        (size, 17, 17),
        (share, "80%", 0.8),
        (share, "35%", 0.35),
        (share, 0.8, 0.8),
        (share, 1, 1.0),
        (rate, "100/s", 100.0),
        (rate, "30/m", 0.5),
        (rate, 2.5, 2.5),
    ],
)
def test_units(reader: Any, given_value: object, expected: float) -> None:
    assert reader(given_value) == expected


@given(st.sampled_from([duration, size, share, rate]), st.text(max_size=12) | st.floats() | st.integers() | st.none())
def test_units_give_a_number_or_say_why_not(reader: Any, value: object) -> None:
    try:
        assert 0 <= reader(value) < 1e31
    except ValueError as error:
        assert str(error).startswith("expected a")


@given(st.integers(0, 10**6))
def test_milliseconds_are_exact(number: int) -> None:
    assert duration(f"{number}ms") == number / 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "a"),
        ("x${A}y${A}", "xaya"),
        ("${NONE:-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("$${A}", "${A}"),
        ("$A {A} $", "$A {A} $"),
        ("${NESTED}", "${A}"),
    ],
)
def test_references(text: str, expected: str) -> None:
    env = {"A": "a", "EMPTY": "", "NESTED": "${A}"}
    assert resolve(text, env, Path()) == expected


def test_what_a_reference_gives_is_never_yaml() -> None:
    hostile = 'x", evil: ["http://evil.test'
    document = read(b'a: "${H}"\nb: ${H}\nc: ${N}', lambda text: resolve(text, {"H": hostile, "N": "5"}, Path()))
    assert document.problems == []
    assert document.data == {"a": hostile, "b": hostile, "c": "5"}


def test_yaml_without_surprises() -> None:
    text = b"{a: no, b: 010, c: 1:30, d: 2001-01-01, e: 0x10, f: 1_000, g: true, h: ~, i: '5', j: 1.5, k: -3}"
    document = read(text, lambda value: value)
    assert document.data == {
        "a": "no", "b": "010", "c": "1:30", "d": "2001-01-01", "e": 16, "f": 1000,
        "g": True, "h": None, "i": "5", "j": 1.5, "k": -3,
    }  # fmt: skip


def test_merges_and_aliases() -> None:
    text = b"routes:\n  a: &a {endpoints: [http://a.test, http://b.test]}\n  b: {<<: *a, chain_id: 5}\n"
    settings = load_text(text, "FILE", Path(), {})
    assert settings.routes["b"].chain_id == 5
    assert settings.routes["b"].endpoints == settings.routes["a"].endpoints


def test_ids_come_from_providers_and_hosts_and_are_unique() -> None:
    text = b"""
providers: { infura: }
routes:
  a:
    endpoints:
      - https://rpc.test/1
      - https://rpc.test/2
      - { url: https://rpc.test/3, id: rpc.test-2 }
      - { url: https://x.test, provider: infura }
      - { url: https://y.test, provider: infura }
      - http://[::1]:8545
      - http://127.0.0.1:8545
"""
    ids = [endpoint.id for endpoint in load_text(text, "FILE", Path(), {}).routes["a"].endpoints]
    assert ids == ["rpc.test", "rpc.test-3", "rpc.test-2", "infura", "infura-2", "1-8545", "127.0.0.1-8545"]


def test_a_list_of_urls_is_a_configuration() -> None:
    settings = load_text(b"- http://a.test\n- http://b.test\n", "FILE", Path(), {})
    assert settings == settings.model_validate({"routes": {"default": ["http://a.test", "http://b.test"]}})


def test_urls_make_one_route() -> None:
    route = settings_for_urls(["http://a.test", "http://a.test:81"]).routes["default"]
    assert (route.dialect, route.chain, route.chain_id) == ("evm", None, None)
    assert [endpoint.id for endpoint in route.endpoints] == ["a.test", "a.test-81"]


def test_a_bad_url_is_named_by_its_position() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_for_urls(["http://ok.test", "wss://bad.test/secretpath"])
    assert caught.value.problems == [
        "URL 2: expected a URL that begins with http:// or https://, got wss:// "
        "(write url: https://... and ws: wss://...)"
    ]


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("https://a.test/v1", None),
        ("{ url: https://a.test/v1, ws: false }", None),
        ("{ url: https://a.test/v1, ws: true }", "wss://a.test/v1"),
        ("{ url: http://a.test:81/v1?k=1, ws: 'true' }", "ws://a.test:81/v1?k=1"),
        ("{ url: HTTPS://a.test, ws: true }", "wsS://a.test"),
        ("{ url: https://a.test, ws: 'wss://b.test/${KEY}' }", "wss://b.test/k1"),
        ("{ url: 'alchemy://${KEY}', ws: true }", "wss://eth-mainnet.g.alchemy.com/v2/k1"),
        ("{ url: 'infura://${KEY}', ws: true }", "wss://mainnet.infura.io/ws/v3/k1"),
        ("{ url: 'infura://${KEY}', ws: 'wss://b.test' }", "wss://b.test"),
        ("'infura://${KEY}'", None),
    ],
)
def test_where_an_endpoints_websocket_is(endpoint: str, expected: str | None) -> None:
    text = f"routes: {{ a: {{ chain: ethereum, endpoints: [{endpoint}] }} }}"
    found = load_text(text.encode(), "FILE", Path(), {"KEY": "k1"}).routes["a"].endpoints[0]
    assert (found.socket.reveal() if found.socket is not None else None) == expected


def test_warnings() -> None:
    text = b"""
listen: 0.0.0.0:4000
providers: { one: { cloud: aws }, two: { cloud: aws } }
operations: { token: literal-token-00 }
routes:
  cloud: [ { url: "https://a.test", provider: one }, { url: "https://b.test", provider: two } ]
  provider: [ { url: "https://a.test", provider: one }, { url: "https://b.test", provider: one } ]
  host: ["https://a.test/1", "https://a.test/2"]
  plain: ["http://rpc.example.org", "https://b.test"]
  socket: [{ url: "https://a.test", ws: "ws://rpc.example.org" }, { url: "https://b.test", ws: true }]
  single: ["https://a.test"]
  fine: ["http://127.0.0.1:1", "http://10.0.0.1:1", "http://geth:8545"]
  votes:
    endpoints: ["https://a.test", "https://b.test"]
    consensus: { eth_call: { n: 3, agree: 2 }, eth_getLogs: { n: 4, agree: 3 } }
"""
    assert warnings_of(load_text(text, "FILE", Path(), {})) == [
        "routes.cloud: all endpoints have the same cloud, aws, and fail together",
        "routes.provider: all endpoints belong to the provider one, and fail together",
        "routes.host: all endpoints are on the host a.test, and fail together",
        "routes.plain: endpoint rpc.example.org: plain http to a public host: "
        "anybody on the way can read and change its answers",
        "routes.socket: endpoint a.test: plain ws to a public host: anybody on the way can read and change its answers",
        "routes.single: has one endpoint only; nothing can take over when it fails",
        "routes.votes: consensus on eth_call makes 2 paid calls of each",
        "routes.votes: consensus on eth_getLogs needs 3 providers that agree, and there are 2",
        "listen: reachable from outside and open to everybody; give callers keys",
        "operations.token: a secret stands in the file; write ${NAME} or file:/path",
    ]

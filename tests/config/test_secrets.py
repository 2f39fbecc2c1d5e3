"""Secrets: usable, never shown; and all of them known to the redactor."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from gateway.config.load import load_text, secrets_of, settings_for_urls
from gateway.config.secret import Secret, SecretUrl
from gateway.config.settings import Settings
from gateway.telemetry.redaction import Redactor

ENVIRONMENT = {
    "CALLER": "caller-key-0123456789",
    "TOKEN": "operations-token-01",
    "PASSWORD": "p4ssw0rd",
    "BEARER": "bearer-4321",
    "HEADER": "header-value-77",
    "QUERY": "query-99",
    "SOCKET": "socket-key-8",
    "PATH_KEY": "pk-55",
    "WHOLE": "https://rpc.whole.test/v3/ab12cd34?apikey=zz99yy88",
    "COLLECTOR": "collector-key-3",
}
TEXT = """
keys: { alice: { key: "${CALLER}" } }
operations: { token: "${TOKEN}" }
telemetry: { traces: { endpoint: "http://collector.test:4318", headers: { x-key: "${COLLECTOR}" } } }
routes:
  a:
    chain: ethereum
    endpoints:
      - "https://one.test/${PATH_KEY}"
      - "https://user:inurl-pass@two.test/"
      - "https://three.test/v3/0123456789abcdef0123456789abcdef"
      - "${WHOLE}"
      - { url: "https://four.test", basic: { user: u, password: "${PASSWORD}" }, query: { k: "${QUERY}" } }
      - { url: "https://five.test", bearer: "${BEARER}", headers: { X-Key: "${HEADER}" } }
      - { url: "https://six.test", proxy: "http://pu:proxy-pass@seven.test:3128" }
      - "alchemy://${BEARER}"
      - { url: "https://eight.test", ws: "wss://wu:ws-pass@nine.test/ws/${SOCKET}" }
"""
EXPECTED = [
    *(value for name, value in ENVIRONMENT.items() if name != "WHOLE"),
    "inurl-pass",
    "0123456789abcdef0123456789abcdef",
    "ab12cd34",
    "zz99yy88",
    "proxy-pass",
    "ws-pass",
    "u:p4ssw0rd",
]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_text(TEXT.encode(), "FILE", Path(), ENVIRONMENT)


def test_all_secrets_are_known(settings: Settings) -> None:
    assert set(EXPECTED) <= set(secrets_of(settings))


def test_no_host_is_taken_for_a_secret(settings: Settings) -> None:
    scrub = Redactor(secrets_of(settings)).scrub
    for text in ("rpc.whole.test", "one.test refused", "collector.test:4318", "v3"):
        assert scrub(text) == text


def test_settings_never_show_a_secret(settings: Settings) -> None:
    shown = [str(settings), repr(settings), settings.model_dump_json(), json.dumps(settings.model_dump(mode="json"))]
    shown += [f"{route}" for route in settings.routes.values()] + [str(settings.model_dump())]
    for text in shown:
        for secret in EXPECTED:
            assert secret not in text


def test_a_url_shows_its_host_only(settings: Settings) -> None:
    shown = [str(endpoint.url) for endpoint in settings.routes["a"].endpoints]
    assert shown[:3] == ["https://one.test/...", "https://two.test/...", "https://three.test/..."]


@pytest.mark.parametrize("kind", [Secret, SecretUrl])
def test_no_way_to_print_a_secret(kind: type[Secret]) -> None:
    secret = kind("https://u:hidden@host.test/hidden")
    wrapped = {"in": [secret]}
    texts = [str(secret), repr(secret), f"{secret}", f"{secret:>40}", "%s %r" % (secret, secret), str(wrapped)]  # noqa: UP031
    texts += [json.dumps(wrapped, default=str), repr(pickle.dumps(secret)), str(copy.deepcopy(wrapped))]
    assert not any("hidden" in text for text in texts)
    assert pickle.loads(pickle.dumps(secret)).reveal() == secret.shown  # noqa: S301 - of our own
    assert copy.deepcopy(secret) == secret
    assert secret.reveal().count("hidden") == 2
    with pytest.raises(TypeError):
        json.dumps(secret)


def test_secrets_compare_by_value() -> None:
    assert Secret("a\udc80") == Secret("a\udc80")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


def test_urls_of_the_command_line_are_secret_too() -> None:
    settings = settings_for_urls(["https://a.test/v2/sekret12"], {})
    assert "sekret12" in secrets_of(settings)
    assert "sekret12" not in repr(settings)


def test_the_vendors_own_variable_is_a_secret() -> None:
    text = b"routes: {a: {chain: ethereum, endpoints: ['alchemy://']}}"
    settings = load_text(text, "FILE", Path(), {"ALCHEMY_API_KEY": "shortkey"})
    assert "shortkey" in secrets_of(settings)
    assert settings.routes["a"].endpoints[0].url.reveal().endswith("shortkey")


def test_a_websocket_shows_its_host_only(settings: Settings) -> None:
    assert str(settings.routes["a"].endpoints[-1].ws) == "wss://nine.test/..."


def test_the_vendors_own_variable_is_a_secret_in_its_websocket_too() -> None:
    text = b"routes: {a: {chain: ethereum, endpoints: [{url: 'ankr://', ws: true}]}}"
    endpoint = load_text(text, "FILE", Path(), {"ANKR_API_KEY": "shortkey"}).routes["a"].endpoints[0]
    assert isinstance(endpoint.ws, SecretUrl)
    assert endpoint.ws.reveal() == "wss://rpc.ankr.com/eth/ws/shortkey"
    assert "shortkey" in endpoint.ws.parts


def test_a_file_reference(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("key-from-a-file-0123\n")
    text = f"routes: [http://a.test]\nkeys: {{a: {{key: 'file:{tmp_path}/key'}}, b: {{key: 'file:./key'}}}}"
    text = text.replace("routes: [http://a.test]", "routes: {a: [http://a.test]}").replace(
        ", b: {key: 'file:./key'}", ""
    )
    settings = load_text(text.encode(), "FILE", tmp_path, {})
    assert settings.keys["a"].key.reveal() == "key-from-a-file-0123"
    assert secrets_of(settings) == ["key-from-a-file-0123"]

"""The files in config/ load, and gateway.yaml names every setting with the default that the code has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.config.load import load, warnings_of
from gateway.config.schema import json_schema
from gateway.config.settings import Settings
from gateway.config.yaml_nodes import read

CONFIG = Path(__file__).parents[2] / "config"
ENVIRONMENT = {"RPC_KEY": "rpc-key-0123456789", "WALLET_KEY": "wallet-key-0123456789"}
FILES = sorted(CONFIG.glob("*.yaml"))
LABELS = {"asn", "cloud", "region", "edge", "operator", "client", "account"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_loads(path: Path) -> None:
    settings = load(path, ENVIRONMENT)
    assert settings.routes
    assert warnings_of(settings) == []


def test_local_needs_no_variable() -> None:
    settings = load(CONFIG / "local.yaml", {})
    endpoints = [endpoint for route in settings.routes.values() for endpoint in route.endpoints]
    listening = {f"http://{simulated.listen}" for simulated in settings.simulated.values()}
    assert {endpoint.url.reveal() for endpoint in endpoints} == listening
    assert {endpoint.id for endpoint in endpoints} == set(settings.simulated)


def test_gateway_yaml_has_the_defaults_of_the_code() -> None:
    shipped = load(CONFIG / "gateway.yaml", ENVIRONMENT)
    plain = Settings.model_validate({"routes": {"ethereum": ["https://a.test"]}})
    for name in Settings.model_fields:
        if name not in ("routes", "keys", "providers", "simulated"):
            assert getattr(shipped, name) == getattr(plain, name), name
    route, plain_route = shipped.routes["ethereum"], plain.routes["ethereum"]
    assert differing(route, plain_route) == {"chain", "endpoints"}
    assert differing(route.endpoints[1], plain_route.endpoints[0]) == {"url", "id", "provider", "bearer", "tls"}
    assert differing(route.endpoints[1].tls) == set()
    assert differing(shipped.keys["wallet"]) == {"key", "routes", "budget"}
    assert differing(shipped.keys["wallet"].budget) == {"rate"}
    assert differing(shipped.providers["example"]) == LABELS
    assert differing(shipped.simulated["pretended"]) == {"listen"}


def differing(one: Any, other: Any = None) -> set[str]:
    """The settings in which `one` differs from `other`, or from its defaults."""
    return {
        name
        for name, field in type(one).model_fields.items()
        if getattr(one, name) != (getattr(other, name) if other is not None else field.default)
    }


def test_gateway_yaml_names_every_setting() -> None:
    document = read((CONFIG / "gateway.yaml").read_bytes(), lambda text: text)
    written = {of_its_kind(tuple(str(part) for part in path)) for path in document.keys}
    settings = load(CONFIG / "gateway.yaml", ENVIRONMENT)
    missing = [".".join(path) for path in every_setting(settings, ()) if of_its_kind(path) not in written]
    assert missing == []


def of_its_kind(path: tuple[str, ...]) -> tuple[str, ...]:
    """A chain's route and a venue's have settings of one kind; each is written out where it belongs."""
    return tuple("*" if part.isdigit() or (i == 1 and path[0] == "routes") else part for i, part in enumerate(path))


def every_setting(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The path of every setting that exists, following one example of each kind."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield (*path, name)
            yield from every_setting(getattr(value, name), (*path, name))
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield (*path, name)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from every_setting(inner, (*path, name))
    elif isinstance(value, tuple) and value:
        yield from every_setting(value[-1], (*path, "1"))  # the one that is written out


def test_the_schema_is_plain_json_and_describes_every_setting() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["$schema"].endswith("2020-12/schema")
    for name, definition in schema["$defs"].items():
        for setting, said in definition.get("properties", {}).items():
            assert said.get("description"), f"{name}.{setting}"
    assert {"type": "string"} in schema["$defs"]["EdgeLimits"]["properties"]["body"]["anyOf"][0]["anyOf"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_schema_accepts_what_is_shipped(path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the jsonschema package is not installed")
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    data = read(path.read_bytes(), lambda text: text).data
    assert [error.message for error in validator.iter_errors(data)] == []
    if isinstance(data, dict):
        assert list(validator.iter_errors({**data, "lisen": "127.0.0.1:1"}))


@pytest.mark.parametrize(
    ("route", "accepted"),
    [
        ({"venue": "binance"}, True),
        ({"venue": "binance", "streams": ["wss://a.test", {"url": "wss://b.test", "paths": ["/ws"]}]}, True),
        ({"venue_file": "mine.json", "hosts": ["mine.localhost"]}, True),
        ({"chain": "ethereum"}, False),
        ({"venue": "binance", "streams": [{"paths": ["/ws"]}]}, False),
    ],
)
def test_the_schema_knows_what_a_route_to_an_exchange_may_leave_out(route: dict[str, Any], accepted: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    problems = list(jsonschema.Draft202012Validator(json_schema()).iter_errors({"routes": {"exchange": route}}))
    assert (problems == []) is accepted

"""Whatever stands in the file: settings or problems, never a traceback, and no secret in a problem."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.load import load, load_text, settings_for_urls
from gateway.config.settings import Settings
from gateway.errors import ConfigError

CONFIG = Path(__file__).parents[2] / "config"
SECRET = "Zk3y-that-must-not-show-7f"
ENVIRONMENT = {"RPC_KEY": SECRET, "WALLET_KEY": SECRET, "OTHER": SECRET}
WHOLE = (CONFIG / "gateway.yaml").read_text()
ODD = [
    "${OTHER}",
    "*",
    "&a",
    "!!int",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    "|",
    ">",
    "\t",
    "~",
    "<<: ",
    "%",
    "\x00",
    "é",
]


def outcome(raw: bytes) -> Settings | list[str]:
    """The settings, or the problems after a look at their form."""
    try:
        return load_text(raw, "FILE", CONFIG, ENVIRONMENT)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.startswith("FILE:")
            line, column = problem.split(":")[1:3]
            assert int(line) >= 1
            assert int(column) >= 1
            assert SECRET not in problem
            assert "\n" not in problem
        return error.problems


@given(st.data())
def test_a_damaged_file_yields_problems_or_settings(data: st.DataObject) -> None:
    lines = WHOLE.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        column = data.draw(st.integers(0, len(lines[at])))
        match data.draw(st.sampled_from(["drop", "insert", "cut", "double", "value"])):
            case "drop":
                lines[at] = "\n"
            case "insert":
                lines[at] = lines[at][:column] + data.draw(st.sampled_from(ODD)) + lines[at][column:]
            case "cut":
                lines[at] = lines[at][:column]
            case "double":
                lines[at] *= 2
            case "value":
                odd = data.draw(
                    st.sampled_from(["5", "true", "[]", "{}", "x", "1e400", ".nan", "${OTHER}", "{url: 5}"])
                )
                lines[at] = lines[at].partition(":")[0] + f": {odd}\n"
    outcome("".join(lines).encode())


@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    outcome(raw)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("${OTHER}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = [*Settings.model_fields, "endpoints", "url", "key", "budget", "chain", "tls", "breaker", "headers", "ca"]
TREES = st.recursive(PLAIN, lambda inner: st.dictionaries(st.sampled_from(NAMES), inner, max_size=4), max_leaves=12)


@given(st.dictionaries(st.sampled_from(NAMES), TREES, max_size=6))
def test_any_data_in_any_place(tree: dict[str, object]) -> None:
    outcome(yaml.safe_dump(tree).encode())


@given(
    st.lists(
        st.text(max_size=30) | st.from_regex(r"(https?|alchemy|x)://[a-z.:@/0-9]{0,12}", fullmatch=True), max_size=4
    )
)
def test_any_urls(urls: list[str]) -> None:
    try:
        settings = settings_for_urls(urls, {})
    except ConfigError as error:
        assert error.problems
    else:
        endpoints = settings.routes["default"].endpoints
        assert [endpoint.url.reveal() for endpoint in endpoints] == urls
        assert len({endpoint.id for endpoint in endpoints}) == len(urls)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert str(path) in str(caught.value)


def test_a_huge_file_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"- https://a.test\n" * 100_000)
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load(path, {})

"""The pages say what the code says: names in them exist, and every word of the model has its line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from gateway import errors, events, model

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").glob("*.md")))]


def _names_defined() -> set[str]:
    """Every class, function and method under gateway/, as ``name`` and ``Class.name``."""
    names: set[str] = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                names.add(node.name)
                names |= {
                    f"{node.name}.{item.name}"
                    for item in node.body
                    if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
                }
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
    return names


def test_every_function_named_in_the_way_of_a_call_exists() -> None:
    text = (ROOT / "docs" / "call.md").read_text()
    words = set(re.findall(r"`([A-Za-z_]+(?:\.[a-z_]+)?)`", text))
    named = {word for word in words if "." in word or word[0].isupper() or "_" in word}
    settings = {"answer_buffer"}
    ours = {word for word in named - settings if not word.startswith("X-") and word != "Host"}
    assert ours - _names_defined() == set()


def test_every_file_named_in_a_page_exists() -> None:
    for page in PAGES:
        for path in re.findall(
            r"`((?:gateway|tests|config|docs|benchmarks|deploy|requirements)/[\w./-]+)`", (ROOT / page).read_text()
        ):
            assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists(), f"{page} names {path}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_between_pages_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_every_noun_of_the_model_has_its_line_in_the_vocabulary() -> None:
    text = (ROOT / "docs" / "vocabulary.md").read_text()
    nouns = {
        name
        for words in (model, events)
        for name, value in vars(words).items()
        if isinstance(value, type) and value.__module__ == words.__name__
    }
    assert {noun for noun in nouns if f"`{noun}`" not in text} == set()


def test_every_reason_against_an_endpoint_that_a_page_can_show_is_explained_to_operators() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    choices = {"no_slot", "lower_tier"}  # of one call, never a state of the endpoint
    assert {reason.value for reason in model.Reason if f"`{reason.value}`" not in text} - choices == set()


def test_every_gateway_error_a_caller_can_meet_is_in_the_table_with_its_code() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    for error in (
        errors.NoEndpoint,
        errors.AttemptsFailed,
        errors.DeadlinePassed,
        errors.OutcomeUnknown,
        errors.OverBudget,
    ):
        row = next(line for line in text.splitlines() if f"`{error.reason}`" in line)
        assert str(error.rpc_code) in row

"""The cases that need no suite, on both sides: what the Autobahn suite would find, on a machine without it."""

from __future__ import annotations

import asyncio

import pytest

from tests.autobahn.cases import CASES, Case
from tests.autobahn.peers import play_on_caller_side, play_on_upstream_side


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_callers_socket_answers_as_the_protocol_says(case: Case) -> None:
    asyncio.run(play_on_caller_side([case]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_upstream_socket_answers_as_the_protocol_says(case: Case) -> None:
    asyncio.run(play_on_upstream_side([case]))

"""The one table of failures: three separate values each, none that clients misread, and nothing secret."""

from __future__ import annotations

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

from gateway import errors
from gateway.edge import server
from gateway.errors import (
    AttemptError,
    CallerError,
    Exhausted,
    Fault,
    GatewayError,
    NotSent,
    OutcomeUnknown,
    error_data,
)
from gateway.model import AttemptRecord, Outcome, Sent

HOUSE = Path(errors.__file__).parent
MISREAD = {-1, -32005, -32603, -32007, 429}  # common clients repeat these, or take them for a full quota
SECRET = "https://mainnet.example.org/v3/0123456789abcdef"


def tree(root: type[GatewayError]) -> list[type[GatewayError]]:
    return [root, *(below for child in root.__subclasses__() for below in tree(child))]


TREE = tree(GatewayError)
LEAVES = [error for error in TREE if not error.__subclasses__()]

# Everything a caller may be told, row by row: HTTP status, JSON-RPC code, reason.
TABLE = """
CallTooLarge       413  -32600  too_large
CallerLeft         499  -32600  caller_left
ForbiddenOrigin    403  -32600  forbidden_origin
MalformedCall      400  -32600  malformed_call
MalformedJson      400  -32700  malformed_json
MethodRefused      403  -32601  method_refused
OverBudget         429  -32095  over_budget
AnswerTooLarge     413  -32089  answer_too_large
SocketNeeded       400  -32601  socket_needed
TooManySubscriptions 429 -32095 too_many_subscriptions
RouteRefused       403  -32096  route_refused
Unauthorized       401  -32096  unauthorized
UnknownHost        421  -32600  unknown_host
UnknownRoute       404  -32097  unknown_route
BadHttp            400  -32600  bad_http
HeadTooLarge       431  -32600  head_too_large
TargetTooLong      414  -32600  target_too_long
TooManyConnections 503  -32600  too_many_connections
TooSlow            408  -32600  too_slow
AttemptTimeout     504  -32091  attempt_timeout
BrokenReply        502  -32091  broken_reply
Cancelled          502  -32091  cancelled
ConnectFailed      502  -32091  connect_failed
ConnectTimeout     502  -32091  connect_timeout
ConnectionLost     502  -32091  connection_lost
ResolveFailed      502  -32091  resolve_failed
TlsFailed          502  -32091  tls_failed
AttemptsFailed     502  -32091  attempts_failed
DeadlinePassed     504  -32092  deadline_passed
MethodUnsupported  501  -32601  method_unsupported
NoEndpoint         503  -32090  no_endpoint
OutcomeUnknown     504  -32093  outcome_unknown
Overloaded         503  -32094  overloaded
VenueLimited       503  -32088  venue_limited
Disagreement       502  -32098  disagreement
ConfigError        500  -32099  config
GatewayBug         500  -32099  gateway_bug
"""


def test_the_table_is_total_and_says_what_the_classes_say() -> None:
    expected = {row[0]: (int(row[1]), int(row[2]), row[3]) for row in map(str.split, TABLE.strip().splitlines())}
    assert expected == {error.__name__: (error.http_status, error.rpc_code, error.reason) for error in LEAVES}


def test_every_reason_is_one_errors_own() -> None:
    reasons = Counter(error.reason for error in LEAVES)
    assert [reason for reason, count in reasons.items() if count > 1] == []
    assert all(reason.isidentifier() and reason == reason.lower() for reason in reasons)


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_no_code_is_one_that_clients_repeat_or_misread(error: type[GatewayError]) -> None:
    assert error.rpc_code not in MISREAD
    assert -32768 <= error.rpc_code <= -32000, "reserved codes only: all others are the application's"


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_whose_fault_it_is_shows_in_the_status(error: type[GatewayError]) -> None:
    """A failure that is not the caller's is never a 4xx: libraries take those for final."""
    if issubclass(error, CallerError):
        assert Fault.CALLER is error.fault
        assert 400 <= error.http_status < 500 or error is server.TooManyConnections, "503: come again later"
    else:
        assert Fault.CALLER is not error.fault
        assert 500 <= error.http_status < 600
    if issubclass(error, AttemptError | Exhausted):
        assert Fault.UPSTREAM is error.fault


@pytest.mark.parametrize("error", [e for e in LEAVES if issubclass(e, AttemptError)], ids=lambda error: error.__name__)
def test_every_failed_attempt_says_how_far_it_got_and_how_it_counts(error: type[AttemptError]) -> None:
    if issubclass(error, NotSent):
        assert error("no").sent is Sent.NOT_SENT
    elif error is errors.BrokenReply:
        assert errors.BrokenReply("no").sent is Sent.ANSWERED
    else:
        assert error("no", sent=Sent.PARTLY).sent is Sent.PARTLY
    assert error.counts is (Outcome.IGNORED if error is errors.Cancelled else Outcome.FAILURE)


def test_errors_are_made_in_the_one_file_and_at_the_listeners_door_only() -> None:
    names = {error.__name__ for error in TREE}
    found = {
        (str(path.relative_to(HOUSE)), node.name)
        for path in HOUSE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and names & {node.name, *map(ast.unparse, node.bases)}
    }
    assert {name for _, name in found} == names, "an error that this table does not see"
    assert {path for path, _ in found} == {"errors.py"}, "an error outside the one table"


@pytest.mark.parametrize("error", [e for e in LEAVES if issubclass(e, Exhausted)], ids=lambda error: error.__name__)
def test_what_callers_are_told_never_holds_a_url_or_an_upstreams_words(error: type[Exhausted]) -> None:
    record = AttemptRecord("alpha", "primary", "connection_lost", Sent.SENT, 1.0, 1.25, detail=f"lost {SECRET}")
    data = error_data(error(f"failed at {SECRET}", attempts=(record, record), retry_after=2.00049))
    told = {"endpoint": "alpha", "ended": "connection_lost", "sent": "sent", "ms": 250}
    assert data == {"reason": error.reason, "retry_after": 2.0, "attempts": [told, told]}
    assert "://" not in json.dumps(data)


def test_without_attempts_or_a_time_nothing_is_made_up() -> None:
    assert error_data(errors.UnknownRoute("no such route")) == {"reason": "unknown_route"}
    assert error_data(OutcomeUnknown("sent")) == {"reason": "outcome_unknown", "attempts": []}


def test_a_configuration_error_holds_every_problem() -> None:
    error = errors.ConfigError(["a:1:1: one", "a:2:1: two"])
    assert error.problems == ["a:1:1: one", "a:2:1: two"]
    assert str(error) == "a:1:1: one\na:2:1: two"

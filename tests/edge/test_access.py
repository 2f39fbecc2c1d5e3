"""Who may ask: hosts, origins, keys and budgets; and which methods."""

from __future__ import annotations

import pytest

from gateway.dialect.tables import method_table
from gateway.edge.access import ANONYMOUS, Caller, Callers, Hosts, Origins
from gateway.edge.methods import MethodPolicy
from gateway.errors import ForbiddenOrigin, MethodRefused, OverBudget, RouteRefused, Unauthorized, UnknownHost
from gateway.policy.budget import TokenBucket

KEY = "a-caller-key-0123456789"


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:4000", b"eth.localhost:4000", b"127.0.0.1", b"[::1]:4000", b"10.1.2.3:80"]
)
def test_loopback_names_and_addresses_are_answered_for(host: bytes) -> None:
    Hosts([]).require(host)


@pytest.mark.parametrize(
    "host", [b"evil.example", b"localhost.evil.example", b"xlocalhost", b"", b"127.0.0.1.evil.example"]
)
def test_a_name_that_could_be_rebound_is_refused_until_it_is_configured(host: bytes) -> None:
    with pytest.raises(UnknownHost):
        Hosts([]).require(host)
    if host:
        Hosts([host.decode()]).require(host)
        Hosts(["*"]).require(host)


def test_a_wildcard_name_covers_what_is_below_it_only() -> None:
    hosts = Hosts(["*.example.org"])
    hosts.require(b"rpc.example.org:443")
    for other in (b"example.org", b"rpc.example.org.evil", b"rpcexample.org"):
        with pytest.raises(UnknownHost):
            hosts.require(other)


@pytest.mark.parametrize("origin", [b"chrome-extension://abc", b"moz-extension://x-y", b"safari-web-extension://z"])
def test_wallet_extensions_may_ask(origin: bytes) -> None:
    Origins([]).require(origin, b"cross-site")


@pytest.mark.parametrize(
    "origin", [b"https://evil.example", b"null", b"", b"http://localhost:3000", b"https://dapp.example.evil"]
)
def test_a_page_of_another_origin_may_not_ask_until_it_is_listed(origin: bytes) -> None:
    origins = Origins(["https://dapp.example"])
    origins.require(b"https://dapp.example", b"cross-site")
    with pytest.raises(ForbiddenOrigin):
        origins.require(origin, None)
    assert origins.headers(origin) == []


def test_a_cross_site_request_without_an_origin_is_refused_and_a_program_is_not_asked() -> None:
    with pytest.raises(ForbiddenOrigin):
        Origins([]).require(None, b"cross-site")
    Origins([]).require(None, None)
    Origins([]).require(None, b"same-origin")


def test_cors_names_the_one_origin_and_never_a_star_with_credentials() -> None:
    assert dict(Origins(["*"]).headers(b"https://a.example"))[b"access-control-allow-origin"] == b"*"
    careful = dict(Origins(["https://a.example"], credentials=True).headers(b"https://a.example"))
    assert careful[b"access-control-allow-origin"] == b"https://a.example"
    assert careful[b"access-control-allow-credentials"] == b"true"


def test_a_key_names_its_caller_and_any_other_is_refused() -> None:
    someone = Caller("someone")
    callers = Callers([(KEY, someone), ("another-key-0123456789", Caller("other"))], allow_anonymous=False)
    assert callers.identify(KEY.encode()) is someone
    for wrong in (None, b"", b"wrong", KEY[:-1].encode(), KEY.upper().encode()):
        with pytest.raises(Unauthorized):
            callers.identify(wrong)


def test_without_keys_everybody_is_the_anonymous_caller_whatever_they_send_along() -> None:
    callers = Callers([], allow_anonymous=False)
    assert callers.identify(None) is ANONYMOUS
    assert callers.identify(b"anything") is ANONYMOUS


def test_a_batch_that_no_waiting_would_let_in_is_told_so_and_given_no_time() -> None:
    caller = Caller("a", None, TokenBucket(10.0, 5.0, 0.0))
    with pytest.raises(OverBudget, match="6 calls at once") as refused:
        caller.require("r", 6, 0.0)
    assert refused.value.retry_after is None
    caller.require("r", 5, 0.0)


def test_a_caller_is_held_to_its_routes_and_its_budget() -> None:
    caller = Caller("c", frozenset({"eth"}), TokenBucket(1.0, 3.0, 0.0))
    with pytest.raises(RouteRefused):
        caller.require("base", 1, 0.0)
    caller.require("eth", 3, 0.0)
    with pytest.raises(OverBudget) as refused:
        caller.require("eth", 2, 0.0)
    assert refused.value.retry_after == pytest.approx(2.0)
    caller.require("eth", 2, 2.0)


EVM = method_table("evm")


def refused(policy: MethodPolicy, name: str) -> bool:
    try:
        policy.require(EVM.get(name))
    except MethodRefused:
        return True
    return False


def test_signing_and_operator_methods_are_denied_in_every_spelling() -> None:
    policy = MethodPolicy()
    for name in (
        "eth_sendTransaction",
        "ETH_SendTransaction",
        "eth_sendTransaction ",
        "personal_x",
        "admin_peers",
        "debug_setHead",
    ):
        assert refused(policy, name), name
    for name in ("eth_call", "eth_sendRawTransaction", "debug_traceTransaction", "acme_anything"):
        assert not refused(policy, name), name


def test_a_dangerous_method_opens_by_its_full_name_only() -> None:
    assert refused(MethodPolicy(allow=["eth_*", "*"]), "eth_sendTransaction")
    assert not refused(MethodPolicy(allow=["*", "eth_sendTransaction"]), "eth_sendTransaction")


def test_an_allow_list_closes_the_rest_and_a_deny_outranks_it() -> None:
    policy = MethodPolicy(allow=["eth_*"], deny=["eth_getLogs"])
    assert [refused(policy, m) for m in ("eth_call", "net_version", "eth_getLogs")] == [False, True, True]

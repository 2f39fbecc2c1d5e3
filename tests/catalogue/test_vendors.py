"""Vendor shorthands: right URLs, helpful errors, and no key in any of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.catalogue.chains import all_chains
from gateway.catalogue.vendors import expand, expand_socket

KEY = "s3cret-Key_47.~11"
TABLE: dict[str, dict[str, Any]] = {
    name: vendor
    for name, vendor in json.loads(files("gateway.catalogue").joinpath("vendors.json").read_text("utf-8")).items()
    if name != "about"
}
VENDORS = sorted(TABLE)
SUFFIXES = {
    "alchemy": ".g.alchemy.com",
    "ankr": "rpc.ankr.com",
    "chainstack": ".core.chainstack.com",
    "drpc": "lb.drpc.org",
    "infura": ".infura.io",
    "quicknode": ".quiknode.pro",
}


def shorthand(vendor: str, key: str = KEY) -> str:
    return f"{vendor}://some-cool-name:{key}" if vendor == "quicknode" else f"{vendor}://{key}"


def refusal(url: str, chain: str, env: Mapping[str, str] | None = None) -> str:
    """The text with which it is refused, which never holds the key."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        expand(url, chain, env or {})
    seen: BaseException | None = caught.value
    while seen is not None:
        assert KEY not in str(seen)
        seen = seen.__cause__ or seen.__context__
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "chain", "expected"),
    [
        (f"alchemy://{KEY}", "ethereum", f"https://eth-mainnet.g.alchemy.com/v2/{KEY}"),
        (f"alchemy://{KEY}", "arbitrum", f"https://arb-mainnet.g.alchemy.com/v2/{KEY}"),
        (f"alchemy://{KEY}", "starknet", f"https://starknet-mainnet.g.alchemy.com/starknet/version/rpc/v0_10/{KEY}"),
        (f"infura://{KEY}", "ethereum", f"https://mainnet.infura.io/v3/{KEY}"),
        (f"infura://{KEY}", "polygon-amoy", f"https://polygon-amoy.infura.io/v3/{KEY}"),
        (f"drpc://{KEY}", "ethereum", f"https://lb.drpc.org/ogrpc?network=ethereum&dkey={KEY}"),
        (f"drpc://{KEY}", "kaia", f"https://lb.drpc.org/ogrpc?network=klaytn&dkey={KEY}"),
        (f"ankr://{KEY}", "ethereum", f"https://rpc.ankr.com/eth/{KEY}"),
        (f"ankr://{KEY}", "zksync", f"https://rpc.ankr.com/zksync_era/{KEY}"),
        (f"chainstack://{KEY}", "ethereum", f"https://ethereum-mainnet.core.chainstack.com/{KEY}"),
        (f"chainstack://{KEY}", "avalanche", f"https://avalanche-mainnet.core.chainstack.com/ext/bc/C/rpc/{KEY}"),
        (f"chainstack://nd-123-456-789/{KEY}", "ethereum", f"https://nd-123-456-789.p2pify.com/{KEY}"),
        (f"chainstack://nd-1-2-3:{KEY}", "avalanche", f"https://nd-1-2-3.p2pify.com/{KEY}/ext/bc/C/rpc"),
        (f"quicknode://a-name:{KEY}", "ethereum", f"https://a-name.quiknode.pro/{KEY}/"),
        (f"quicknode://a-name/{KEY}", "ethereum", f"https://a-name.quiknode.pro/{KEY}/"),
        (f"quicknode://a-name/{KEY}/", "polygon", f"https://a-name.matic.quiknode.pro/{KEY}/"),
        (
            f"quicknode://a-name:{KEY}",
            "avalanche",
            f"https://a-name.avalanche-mainnet.quiknode.pro/{KEY}/ext/bc/C/rpc",
        ),
    ],
)
def test_the_url_of_each_vendor(url: str, chain: str, expected: str) -> None:
    assert expand(url, chain, {}) == expected


@pytest.mark.parametrize("vendor", VENDORS)
def test_each_entry_of_the_table_is_a_url_of_the_vendor(vendor: str) -> None:
    known = {chain.name for chain in all_chains()}
    chains = [*TABLE[vendor]["networks"], *TABLE[vendor].get("urls", {})]
    assert len(chains) == len(set(chains))
    assert len(chains) >= 30
    urls = set()
    for chain in chains:
        assert chain in known
        url = expand(shorthand(vendor), chain, {})
        parts = urlsplit(url)
        assert parts.scheme == "https"
        assert f"{parts.hostname}".endswith(SUFFIXES[vendor])
        assert url.count(KEY) == 1
        assert "{" not in url
        urls.add(url)
    assert len(urls) == len(chains)


@pytest.mark.parametrize(
    ("url", "chain", "expected"),
    [
        (f"alchemy://{KEY}", "ethereum", f"wss://eth-mainnet.g.alchemy.com/v2/{KEY}"),
        (f"infura://{KEY}", "1", f"wss://mainnet.infura.io/ws/v3/{KEY}"),
        (f"drpc://{KEY}", "kaia", f"wss://lb.drpc.org/ogws?network=klaytn&dkey={KEY}"),
        (f"ankr://{KEY}", "ethereum", f"wss://rpc.ankr.com/eth/ws/{KEY}"),
        (f"chainstack://{KEY}", "solana", f"wss://solana-mainnet.core.chainstack.com/{KEY}"),
        (f"chainstack://nd-1-2-3:{KEY}", "ethereum", f"wss://ws-nd-1-2-3.p2pify.com/{KEY}"),
        (f"chainstack://nd-1-2-3:{KEY}", "avalanche", f"wss://ws-nd-1-2-3.p2pify.com/{KEY}/ext/bc/C/ws"),
        (f"quicknode://a-name:{KEY}", "ethereum", f"wss://a-name.quiknode.pro/{KEY}/"),
        (f"quicknode://a-name:{KEY}", "polygon", f"wss://a-name.matic.quiknode.pro/{KEY}/"),
    ],
)
def test_the_websocket_of_each_vendor(url: str, chain: str, expected: str) -> None:
    assert expand_socket(url, chain, {}) == expected


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_websocket_is_one_of_its_own_or_is_told_not_to_be_known(vendor: str) -> None:
    known = []
    for chain in TABLE[vendor]["networks"]:
        try:
            url = expand_socket(shorthand(vendor), chain, {})
        except ValueError as error:
            assert str(error) == f"no WebSocket of {vendor} is known for the chain {chain}; write ws: wss://..."
            continue
        parts = urlsplit(url)
        assert parts.scheme == "wss"
        assert f"{parts.hostname}".endswith(SUFFIXES[vendor])
        assert url.count(KEY) == 1
        assert "{" not in url
        known.append(url)
    assert len(set(known)) == len(known) >= 20
    assert set(TABLE[vendor].get("ws_networks", [])) <= set(TABLE[vendor]["networks"])


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_key_may_be_in_the_vendors_variable(vendor: str) -> None:
    env = {f"{vendor.upper()}_API_KEY": f"{KEY}\n", "QUICKNODE_ENDPOINT_NAME": "some-cool-name"}
    assert expand(f"{vendor}://", "ethereum", env) == expand(shorthand(vendor), "ethereum", {})


def test_the_url_comes_before_the_variable() -> None:
    env = {"QUICKNODE_API_KEY": "other", "QUICKNODE_ENDPOINT_NAME": "other-name"}
    assert expand(f"quicknode://mine:{KEY}", "base", env) == f"https://mine.base-mainnet.quiknode.pro/{KEY}/"
    assert expand("quicknode://mine:", "base", env) == "https://mine.base-mainnet.quiknode.pro/other/"
    assert expand(f"quicknode://{KEY}", "base", env) == f"https://other-name.base-mainnet.quiknode.pro/{KEY}/"


@pytest.mark.parametrize("chain", ["eth", "mainnet", "1", "Ethereum"])
def test_a_chain_by_any_of_its_names(chain: str) -> None:
    assert expand(f"alchemy://{KEY}", chain, {}) == expand(f"alchemy://{KEY}", "ethereum", {})


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_missing_key_names_the_variable(vendor: str) -> None:
    for env in ({}, {f"{vendor.upper()}_API_KEY": " "}):
        text = refusal(f"{vendor}://", "ethereum", env)
        assert f"{vendor.upper()}_API_KEY" in text
        assert f"{vendor}://${{NAME}}" in text


@pytest.mark.parametrize("vendor", VENDORS)
def test_an_unknown_chain_is_told_the_nearest(vendor: str) -> None:
    text = refusal(shorthand(vendor), "polygonn")
    assert "'polygonn'" in text
    assert "polygon," in text
    assert "write the URL out" in text
    assert "for example ethereum, " in refusal(shorthand(vendor), "424242")
    assert "give the route a chain" in refusal(shorthand(vendor), "")


def test_an_unknown_vendor_is_told_all_there_are() -> None:
    text = refusal(f"alchmey://{KEY}", "ethereum")
    assert "unknown vendor 'alchmey'" in text
    for vendor in VENDORS:
        assert vendor in text
    for keyless in (KEY, f"{KEY}:", f"://{KEY}", f"{KEY} ://x", ""):
        assert "expected VENDOR://KEY" in refusal(keyless, "ethereum")


@pytest.mark.parametrize("vendor", ["alchemy", "ankr", "drpc", "infura"])
def test_a_name_where_there_are_none(vendor: str) -> None:
    assert "takes the key alone" in refusal(f"{vendor}://eth-mainnet/{KEY}", "ethereum")


def test_a_missing_name_says_how_to_give_it() -> None:
    text = refusal(f"quicknode://{KEY}", "ethereum")
    assert "quicknode://NAME:${KEY}" in text
    assert "QUICKNODE_ENDPOINT_NAME" in text


@pytest.mark.parametrize("name", ["a.b", "evil.test#", "a@b", "ä", "a b", "%2e"])
def test_a_name_cannot_change_the_host(name: str) -> None:
    assert "some-cool-name" in refusal(f"quicknode://{name}:{KEY}", "ethereum")
    assert "nd-123-456-789" in refusal(f"chainstack://{name}:{KEY}", "ethereum")


@pytest.mark.parametrize("suffix", ["?a=b", "#", "@evil.test", "/v2", " x", "&network=base", "%"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_key_cannot_change_the_url(vendor: str, suffix: str) -> None:
    env = {f"{vendor.upper()}_API_KEY": KEY + suffix, "QUICKNODE_ENDPOINT_NAME": "some-cool-name"}
    assert "holds a character that no key has" in refusal(f"{vendor}://", "ethereum", env)
    refusal(shorthand(vendor, KEY + suffix), "ethereum")


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_scheme_may_be_written_in_capitals(vendor: str) -> None:
    assert expand(shorthand(vendor).replace(vendor, vendor.upper(), 1), "base", {}) == expand(
        shorthand(vendor), "base", {}
    )


@pytest.mark.parametrize("url", ["https://alchemy.test", "http://a", "wss://infura", "", "alchemy", "about://x"])
def test_what_is_no_vendors_url_is_refused(url: str) -> None:
    assert "there are alchemy" in refusal(url, "base") or "of alchemy" in refusal(url, "base")

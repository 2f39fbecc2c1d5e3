"""The chain catalogue: one chain per name and id, plausible facts, helpful look-ups."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from gateway.catalogue.chains import Chain, all_chains, find, suggest
from gateway.dialect.registry import dialect_named

EVM = [chain for chain in all_chains() if chain.dialect == "evm"]
OTHERS = [chain for chain in all_chains() if chain.dialect != "evm"]
OVERRIDES = Path(__file__).parents[2] / "scripts" / "chain_overrides.json"
FINALITY = re.compile(r"[1-9][0-9]* (blocks|slots)|instant|l1|pow|relay|milestone|grandpa")


def test_there_are_enough_chains() -> None:
    assert len(EVM) >= 60
    assert sum(chain.testnet for chain in EVM) >= 15
    assert len(OTHERS) >= 12
    assert len(EVM) + len(OTHERS) == len(all_chains())


def test_each_name_alias_and_id_means_one_chain() -> None:
    words = [word for chain in all_chains() for word in (chain.name, *chain.aliases)]
    assert len(words) == len(set(words))
    ids = [chain.id for chain in EVM]
    assert len(ids) == len(set(ids))
    assert ids == sorted(i for i in ids if i is not None)
    assert all(chain.id is None for chain in OTHERS)


@pytest.mark.parametrize("chain", all_chains(), ids=lambda chain: chain.name)
def test_the_facts_are_plausible(chain: Chain) -> None:
    for word in (chain.name, *chain.aliases):
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", word)
        assert not word.isdigit()
    assert chain.id is None or 0 < chain.id < 2**53
    assert 0.05 <= chain.block_time <= 900
    assert FINALITY.fullmatch(chain.finality), chain.finality
    assert chain.title.strip() == chain.title != ""
    assert re.fullmatch(r"[A-Za-z0-9₮-]{1,8}", chain.symbol)
    marked = re.search(r"test|sepolia|devnet", f"{chain.name} {chain.title}".lower())
    assert chain.testnet or not marked


@pytest.mark.parametrize(
    ("name", "chain_id", "block_time"),
    [
        ("ethereum", 1, 12),
        ("sepolia", 11155111, 12),
        ("hoodi", 560048, 12),
        ("polygon", 137, 2),
        ("arbitrum", 42161, 0.25),
        ("optimism", 10, 2),
        ("base", 8453, 2),
        ("gnosis", 100, 5),
        ("hyperevm", 999, 1),
        ("tron", 728126428, 3),
        ("devnet", 31337, 2),
    ],
)
def test_well_known_chains(name: str, chain_id: int, block_time: float) -> None:
    chain = find(name)
    assert chain is not None
    assert (chain.id, chain.block_time, chain.dialect) == (chain_id, block_time, "evm")


def test_a_chain_is_found_by_anything_it_is_called() -> None:
    for chain in all_chains():
        for word in (chain.name, *chain.aliases):
            assert find(word) is find(word.upper()) is find(f" {word} ") is chain
        if chain.id is not None:
            assert find(chain.id) is find(str(chain.id)) is chain


@pytest.mark.parametrize("nothing", ["", "no-such-chain", "-1", 0, -1, 2**64, "0x1", "1.0", True])
def test_what_is_not_there_is_not_found(nothing: str | int) -> None:
    assert find(nothing) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("etherum", "ethereum"),
        ("Arbitum", "arbitrum"),
        ("sepola", "sepolia"),
        ("polygn", "polygon"),
        ("solanna", "solana"),
        ("klatyn", "klaytn"),
    ],
)
def test_a_misspelt_name_is_understood(typed: str, meant: str) -> None:
    assert suggest(typed) == meant


@pytest.mark.parametrize("typed", ["", "xxxxxxxx", "1234567", "127.0.0.1"])
def test_nothing_is_suggested_for_what_is_like_nothing(typed: str) -> None:
    assert suggest(typed) is None


def test_a_suggestion_can_be_found() -> None:
    for chain in all_chains():
        meant = suggest(chain.name[:-1] + "x")
        assert meant is None or find(meant) is not None


@pytest.mark.parametrize("chain", all_chains(), ids=lambda chain: chain.name)
def test_its_head_can_be_asked_for(chain: Chain) -> None:
    dialect = dialect_named(
        chain.dialect,
        chain=chain.name,
        head_method=chain.head_method,
        head_params=chain.head_params,
        head_path=chain.head_path,
    )
    if chain.dialect == "evm":
        assert (chain.head_method, chain.head_params, chain.head_path) == (None, "[]", "")
        assert dialect.parse_head(b'"0x10"') == 16
        return
    assert chain.head_method
    assert isinstance(json.loads(chain.head_params), (list, dict))
    for number in (b"4711", b'"4711"', b'"0x1267"') if chain.dialect == "generic" else (b"4711",):
        answer = number
        for part in reversed([part for part in chain.head_path.split(".") if part]):
            answer = b'{"%b": %b}' % (part.encode(), answer)
        assert dialect.parse_head(answer) == 4711


@pytest.mark.parametrize("name", ["chains.json", "vendors.json"])
def test_no_address_is_bundled_but_those_of_vendors(name: str) -> None:
    text = files("gateway.catalogue").joinpath(name).read_text("utf-8")
    for url in re.findall(r"[a-z]+://[^\"]*", text):
        assert name == "vendors.json" and ("{key}" in url or "NAME:KEY" in url)


def test_the_catalogue_is_made_from_its_overrides() -> None:
    overrides = json.loads(OVERRIDES.read_text("utf-8"))
    rows = json.loads(files("gateway.catalogue").joinpath("chains.json").read_text("utf-8"))
    by_name = {row["name"]: row for row in rows}
    kept = [*overrides["evm"], *overrides["other"]]
    assert {chain["name"] for chain in kept} == set(by_name)
    for chain in kept:
        assert {name: by_name[chain["name"]][name] for name in chain} == chain

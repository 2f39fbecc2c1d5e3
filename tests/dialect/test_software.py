"""What nodes call themselves, read into one form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.software import software

NAMED = [
    ("Geth/v1.13.14-stable-2bd6bd01/linux-amd64/go1.21.7", ("geth", "1.13.14")),
    ("Geth/v1.9.9-omnibus-e320ae4c-20191206/linux-amd64/go1.13.4", ("geth", "1.9.9")),
    ("Geth/v1.101308.2-stable-0402d543/linux-amd64/go1.21.6", ("geth", "1.101308.2")),
    ("erigon/3.5.1/linux-amd64/go1.24.1", ("erigon", "3.5.1")),
    ("Nethermind/v1.29.1+dfea5240/linux-x64/dotnet8.0.8", ("nethermind", "1.29.1")),
    ("besu/v24.10.0/linux-x86_64/openjdk-java-21", ("besu", "24.10.0")),
    ("reth/v1.1.4-15fac08/x86_64-unknown-linux-gnu", ("reth", "1.1.4")),
    ("bor/v1.5.4-stable/linux-amd64/go1.22.1", ("bor", "1.5.4")),
    ("nitro/v3.2.1-d81324d/linux-amd64/go1.23.1", ("nitro", "3.2.1")),
    ("anvil/v1.7.1", ("anvil", "1.7.1")),
    ("HardhatNetwork/2.29.1/@nomicfoundation/ethereumjs-vm/7.0.0", ("hardhat", "2.29.1")),
    ("Ganache/v7.9.2/EthereumJS TestRPC/v7.9.2/ethereum-js", ("ganache", "7.9.2")),
    ("EthereumJS TestRPC/v2.13.2/ethereum-js", ("ganache", "2.13.2")),
    ("solana-core/1.18.26", ("agave", "1.18.26")),
    ("agave/2.1.0", ("agave", "2.1.0")),
    ("/Satoshi:25.0.0/", ("bitcoin-core", "25.0.0")),
    ("Simulated/v1.0.0", ("simulated", "1.0.0")),
]


@pytest.mark.parametrize(("said", "read"), NAMED)
def test_a_client_is_known_by_name_and_version(said: str, read: tuple[str, str]) -> None:
    assert software(said) == read


@pytest.mark.parametrize("said", ["", "hello", "1.2.3", "/", "Geth", "ключ/1.0", "\x00/v1"])
def test_what_cannot_be_read_is_nothing(said: str) -> None:
    assert software(said) is None


@given(st.text(max_size=400))
def test_what_is_read_is_fit_for_a_label(said: str) -> None:
    read = software(said)
    if read is not None:
        assert all((part.isascii() and part.islower()) or part[0].isdigit() for part in read)
        assert len("/".join(read)) < 100

"""What names and addresses say of where an endpoint runs, without asking anybody."""

from __future__ import annotations

import ipaddress
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogue.networks import labels_of, networks
from gateway.catalogue.ranges import RangeTable, load_ranges
from gateway.model import DOMAIN_LABELS
from tests.pace import at_most

NAMES = [
    (["mainnet.infura.io"], {"operator": "infura"}),
    (["eth-mainnet.g.alchemy.com"], {"operator": "alchemy"}),
    (
        ["rpc.example.org", "nodes-1234.us-east-1.elb.amazonaws.com"],
        {"cloud": "aws", "region": "us-east-1"},
    ),
    (["rpc.example.org", "d111111abcdef8.cloudfront.net"], {"edge": "cloudfront"}),
    (["rpc.example.org", "rpc.example.org.cdn.cloudflare.net"], {"edge": "cloudflare"}),
    (["node.westeurope.cloudapp.azure.com"], {"cloud": "azure", "region": "westeurope"}),
    (
        ["mainnet.infura.io", "lb.eu-central-1.elb.amazonaws.com."],
        {"operator": "infura", "cloud": "aws", "region": "eu-central-1"},
    ),
    (["RPC.ANKR.COM"], {"operator": "ankr"}),
    (["notinfura.io"], {}),
    (["localhost"], {}),
    ([""], {}),
]


@pytest.mark.parametrize(("names", "labels"), NAMES)
def test_a_host_and_its_aliases_tell_where_it_is(names: list[str], labels: dict[str, str]) -> None:
    assert labels_of(names) == labels


def test_the_table_holds_known_labels_and_no_suffix_twice() -> None:
    assert len({network.suffix for network in networks()}) == len(networks())
    assert {label for network in networks() for label, _ in network.labels} <= set(DOMAIN_LABELS)


@given(st.lists(st.text(max_size=80), max_size=3))
def test_any_text_may_be_asked_about(names: list[str]) -> None:
    assert all(value for value in labels_of(names).values())


AMAZON = {
    "syncToken": "1",
    "prefixes": [
        {"ip_prefix": "52.0.0.0/15", "region": "us-east-1", "service": "AMAZON"},
        {"ip_prefix": "52.1.0.0/16", "region": "eu-west-1", "service": "EC2"},
        {"ip_prefix": "13.32.0.0/15", "region": "GLOBAL", "service": "AMAZON"},
        {"ip_prefix": "13.32.0.0/15", "region": "GLOBAL", "service": "CLOUDFRONT"},
    ],
    "ipv6_prefixes": [{"ipv6_prefix": "2600:1f00::/24", "region": "us-west-2", "service": "EC2"}],
}
GOOGLE = {"prefixes": [{"ipv4Prefix": "34.1.208.0/20", "service": "Google Cloud", "scope": "africa-south1"}]}
AZURE = {
    "values": [
        {"name": "AzureCloud", "properties": {"region": "", "systemService": "", "addressPrefixes": ["4.144.0.0/16"]}},
        {
            "name": "AzureCloud.eastus",
            "properties": {"region": "eastus", "systemService": "", "addressPrefixes": ["4.144.0.0/16"]},
        },
    ]
}
FILES = [
    ("ip-ranges.json", json.dumps(AMAZON), "52.0.1.1", (("cloud", "aws"), ("region", "us-east-1"))),
    ("ip-ranges.json", json.dumps(AMAZON), "52.1.1.1", (("cloud", "aws"), ("region", "eu-west-1"))),
    ("ip-ranges.json", json.dumps(AMAZON), "13.33.1.1", (("edge", "cloudfront"),)),
    ("ip-ranges.json", json.dumps(AMAZON), "2600:1f00::1", (("cloud", "aws"), ("region", "us-west-2"))),
    ("ip-ranges.json", json.dumps(AMAZON), "9.9.9.9", ()),
    ("cloud.json", json.dumps(GOOGLE), "34.1.208.9", (("cloud", "gcp"), ("region", "africa-south1"))),
    ("ServiceTags.json", json.dumps(AZURE), "4.144.1.1", (("cloud", "azure"), ("region", "eastus"))),
    ("cloudflare-v4.txt", "103.21.244.0/22\n# comment\n103.22.200.0/22\n", "103.22.201.1", (("edge", "cloudflare"),)),
]


@pytest.mark.parametrize(("name", "text", "address", "labels"), FILES)
def test_the_published_files_tell_where_an_address_is(
    name: str, text: str, address: str, labels: tuple[tuple[str, str], ...], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert load_ranges(str(path)).labels(address) == labels


@pytest.mark.parametrize("text", ["{", "{}", '{"prefixes": 3}', "hello", '{"values": [{}]}'])
def test_another_file_is_refused_with_what_was_expected(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="known range files"):
        load_ranges(str(path))


def test_twenty_thousand_ranges_are_searched_in_microseconds() -> None:
    rows = [(f"{10 + n // 65536}.{n // 256 % 256}.{n % 256}.0/24", (("cloud", str(n)),)) for n in range(20_000)]
    table = RangeTable(iter(rows))
    began = time.perf_counter()
    for n in range(1000):
        address = str(ipaddress.ip_address((10 << 24) + n * 20 * 256 + 1))
        assert table.labels(address)
    each = (time.perf_counter() - began) / 1000
    print(f"{len(table)} ranges, {each * 1e6:.1f} us each")
    at_most(each, 1e-3, "seconds of a search")

"""Where endpoints run, found out from what the resolver knows already."""

from __future__ import annotations

from random import Random

from gateway.catalogue.ranges import RangeTable
from gateway.model import Endpoint
from gateway.upstream.fleet.permits import PoolSettings
from gateway.upstream.fleet.placement import Placer
from gateway.upstream.fleet.pool import Pool
from gateway.upstream.wire.resolver import Resolver


class Known(Resolver):
    """A resolver that has found out these."""

    def __init__(self, facts: dict[str, tuple[list[str], str]]) -> None:
        super().__init__(lambda: 0.0)
        self.facts = facts

    def last_known(self, host: str, port: int) -> tuple[list[str], str]:
        return self.facts.get(host, ([], ""))


def placed(facts: dict[str, tuple[list[str], str]], *declared: dict[str, str]) -> tuple[Pool, Placer]:
    hosts = list(facts)
    labels = [tuple(d.items()) for d in declared] + [()] * (len(hosts) - len(declared))
    endpoints = [Endpoint(f"e{i}", "r", f"p{i}", domains=labels[i]) for i in range(len(hosts))]
    pool = Pool("r", endpoints, PoolSettings(), lambda: 0.0, Random(1))
    table = RangeTable(iter([("52.0.0.0/15", (("cloud", "aws"), ("region", "us-east-1")))]))
    placer = Placer(pool, [(host, 443) for host in hosts], Known(facts), [table], lambda: 0.0)
    placer.place(0)
    return pool, placer


def test_names_addresses_and_aliases_are_put_together() -> None:
    pool, _ = placed({"mainnet.infura.io": (["52.1.2.3"], "")})
    assert dict(pool.endpoints[0].domains) == {"cloud": "aws", "region": "us-east-1", "operator": "infura"}


def test_what_the_configuration_says_is_never_overridden() -> None:
    pool, _ = placed({"mainnet.infura.io": (["52.1.2.3"], "")}, {"cloud": "own"})
    assert dict(pool.endpoints[0].domains)["cloud"] == "own"


def test_endpoints_at_one_address_share_a_domain_whatever_they_are_called() -> None:
    pool, _ = placed({"a.example.org": (["9.9.9.9"], ""), "b.example.com": (["9.9.9.9"], "")})
    assert pool.endpoints[0].shares_domain_with(pool.endpoints[1])


def test_ports_of_this_machine_are_on_one_machine_on_purpose() -> None:
    pool, _ = placed({"127.0.0.1": (["127.0.0.1"], ""), "localhost": (["127.0.0.1"], "")})
    assert not pool.endpoints[0].shares_domain_with(pool.endpoints[1])


def test_the_software_becomes_a_domain_when_it_is_known() -> None:
    pool, placer = placed({"a.example.org": ([], ""), "b.example.org": ([], "")})
    for state in pool.states:
        state.software = "geth/1.9.9"
    placer.place(0)
    assert all(("client", "geth/1.9.9") in endpoint.domains for endpoint in pool.endpoints)

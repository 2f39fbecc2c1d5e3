"""Networks: what a host name, and the names behind it, say of cloud, region, edge and operator.

Always true: nothing is asked of any network; a name that is not in the table says nothing; of several
names (a host and what it is an alias of) the last one, which is nearest to the machine, wins for cloud
and region.  A network in front of a host (an edge) does not tell in which cloud the host is.
Does not belong here: addresses (ranges), and looking names up (upstream/wire/resolver).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Network:
    """One row of the table."""

    suffix: str
    labels: tuple[tuple[str, str], ...]
    region: re.Pattern[str] | None

    def covers(self, name: str) -> bool:
        return name == self.suffix or name.endswith("." + self.suffix)


@functools.cache
def networks() -> tuple[Network, ...]:
    """The table, narrowest suffix first."""
    rows = json.loads(files("gateway.catalogue").joinpath("networks.json").read_text("utf-8"))["networks"]
    made = [
        Network(row["suffix"], tuple(row["labels"].items()), re.compile(row["region"]) if "region" in row else None)
        for row in rows
    ]
    return tuple(sorted(made, key=lambda network: -len(network.suffix)))


def labels_of(names: Sequence[str]) -> dict[str, str]:
    """Labels of a host, given its name and the names that it is an alias of, in that order."""
    found: dict[str, str] = {}
    for written in names:
        name = written.rstrip(".").lower()
        network = next((network for network in networks() if network.covers(name)), None)
        if network is None:
            continue
        found.update(network.labels)
        region = network.region.search(name) if network.region is not None else None
        if region is not None:
            found["region"] = region[1]
    return found

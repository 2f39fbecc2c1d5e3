"""Ranges: which cloud, region or edge an address belongs to, by the files that clouds publish.

Always true: a file is given by path and never fetched; the narrowest range that holds an address wins; a
file in none of the known forms is refused with what was expected.  Known: Amazon's ip-ranges.json,
Google's cloud.json, Azure's service tags, and plain lists with one range per line (Cloudflare's, whose
name then says whose it is).
"""

from __future__ import annotations

import ipaddress
import json
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LARGEST = 64_000_000  # bytes; Azure's file has about 5 MB
Labels = tuple[tuple[str, str], ...]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RangeTable:
    """Ranges of addresses with their labels.  A look-up costs a binary search per prefix length in use."""

    def __init__(self, ranges: Iterator[tuple[str, Labels]]) -> None:
        """Raises ValueError for a range that is none."""
        by_length: dict[tuple[int, int], list[tuple[int, Labels]]] = {}
        for text, labels in ranges:
            network = ipaddress.ip_network(text, strict=False)
            key = (network.version, network.prefixlen)
            by_length.setdefault(key, []).append((int(network.network_address), labels))
        self._tables: list[tuple[int, int, list[int], list[Labels]]] = []
        for (version, length), rows in sorted(by_length.items(), key=lambda item: -item[0][1]):
            # of the same range written twice, what says more wins, and an edge over the cloud that runs it
            rows.sort(key=lambda row: (row[0], row[1][:1] != () and row[1][0][0] == "edge", len(row[1])))
            self._tables.append((version, length, [start for start, _ in rows], [labels for _, labels in rows]))

    def __len__(self) -> int:
        return sum(len(starts) for _, _, starts, _ in self._tables)

    def labels(self, address: str) -> Labels:
        """What is known of an address; empty: nothing."""
        try:
            parsed: _Address = ipaddress.ip_address(address)
        except ValueError:
            return ()
        number, bits = int(parsed), parsed.max_prefixlen
        for version, length, starts, labels in self._tables:
            if version != parsed.version:
                continue
            wanted = number >> (bits - length) << (bits - length)
            place = bisect_right(starts, wanted) - 1
            if place >= 0 and starts[place] == wanted:
                return labels[place]
        return ()


def load_ranges(path: str) -> RangeTable:
    """The table of one file.  Raises ValueError when it is in none of the known forms, OSError when unreadable."""
    file = Path(path)
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file.name} is larger than {LARGEST} bytes; it is none of the published range files")
    text = file.read_text("utf-8")
    try:
        if text.lstrip()[:1] != "{":
            return RangeTable(_plain(text, file.stem))
        return RangeTable(_published(json.loads(text)))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ValueError(
            f"{file.name} is none of the known range files (Amazon's ip-ranges.json, Google's cloud.json, Azure's "
            f"service tags, or one range per line): {str(problem)[:80]}"
        ) from None


def _published(data: dict[str, Any]) -> Iterator[tuple[str, Labels]]:
    if "values" in data:
        return _azure(data["values"])
    if any("service" in row and "ip_prefix" in row for row in data["prefixes"][:1]):
        return _amazon(data)
    return _google(data["prefixes"])


def _amazon(data: dict[str, Any]) -> Iterator[tuple[str, Labels]]:
    for name, rows in (("ip_prefix", data["prefixes"]), ("ipv6_prefix", data.get("ipv6_prefixes", []))):
        for row in rows:
            if row["service"] in ("CLOUDFRONT", "GLOBALACCELERATOR"):
                edge = "cloudfront" if row["service"] == "CLOUDFRONT" else "aws-global-accelerator"
                yield row[name], (("edge", edge),)
            else:
                region = () if row["region"] == "GLOBAL" else (("region", row["region"]),)
                yield row[name], (("cloud", "aws"), *region)


def _google(rows: list[dict[str, str]]) -> Iterator[tuple[str, Labels]]:
    for row in rows:
        region = () if row.get("scope", "global") == "global" else (("region", row["scope"]),)
        yield row.get("ipv4Prefix") or row["ipv6Prefix"], (("cloud", "gcp"), *region)


def _azure(rows: list[dict[str, Any]]) -> Iterator[tuple[str, Labels]]:
    for row in rows:
        facts = row["properties"]
        region = (("region", facts["region"]),) if facts.get("region") else ()
        edge = "FrontDoor" in (facts.get("systemService") or "")
        labels: Labels = (("edge", "azure-front-door"),) if edge else (("cloud", "azure"), *region)
        for prefix in facts["addressPrefixes"]:
            yield prefix, labels


def _plain(text: str, stem: str) -> Iterator[tuple[str, Labels]]:
    owner = stem.lower().split("-")[0].split("_")[0].removesuffix("ips") or stem
    for line in text.splitlines():
        range_ = line.partition("#")[0].strip()
        if range_:
            yield range_, (("edge", owner),)

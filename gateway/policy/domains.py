"""Failure domains: endpoints that share a cloud, a region, an edge or a client version fail together.

Always true: a domain is suspected only while at least two of its members and half of its weight are
down at the same time, having gone down within a minute of each other, and somebody outside is well;
never a domain that holds everybody, because nobody would be left; a suspicion ends by itself.  All
members of a suspected domain, the still-green ones too, go to the last tier: that is the point, for
they are about to fail (2025-10-20: one region took four "independent" providers within minutes).
While one member of a domain is down, another that fails once is *watched*: it leaves the front until it
answers, so that a domain that dies member by member costs each of them one call.
Two failures within a minute are 270 to 1 in favour of a common cause when each provider fails by
itself twice a month, and clouds fail once in ten.
Does not belong here: when a member is down (the breakers), and where labels come from (the catalogue).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.bounds import require_bounds, setting

Domain = tuple[str, str]
"""A label and one of its values: ``("cloud", "aws")``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSettings:
    """When endpoints that fail together are suspected as a whole."""

    members: int = setting(2, "members that must be down at once before their domain is suspected", low=2, high=100)
    share: float = setting(
        0.5, "share of the domain's weight that must be down, and well again for it to be trusted", unit="share",
        low=0.01, high=1,
    )  # fmt: skip
    within: float = setting(60.0, "time within which they must have gone down", unit="s", low=1, high=3600)
    trusted_after: float = setting(
        10.0, "time for which that share must have been well before it is trusted again", unit="s", low=0, high=3600
    )

    def __post_init__(self) -> None:
        require_bounds(self)


class Condition(enum.Enum):
    """How one endpoint does, as far as its domains are concerned."""

    UNKNOWN = "unknown"  # not reached yet, drained, or of another chain
    WELL = "well"
    FAILING = "failing"  # its last call failed; its breaker is still closed
    DOWN = "down"  # a breaker of it is open


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint: the domains that it is in, and its weight."""

    domains: tuple[Domain, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Trip:
    """One suspected domain.  `down` are the members that said so, `members` all of it; positions."""

    domain: Domain
    since: float
    down: tuple[int, ...]
    members: tuple[int, ...]


class DomainWatch:
    """The failure domains of one route.  `note` what happens to its endpoints; `now` is monotonic seconds."""

    __slots__ = ("_conditions", "_down_at", "_members", "_settings", "_trips", "_watched", "_well_at")

    def __init__(self, settings: DomainSettings, members: Sequence[Member], now: float) -> None:
        self._settings = settings
        self._members = list(members)
        self._conditions = [Condition.UNKNOWN] * len(self._members)
        self._down_at = [now] * len(self._members)
        self._well_at = [now] * len(self._members)
        self._trips: dict[Domain, Trip] = {}
        self._watched: set[int] = set()

    def place(self, position: int, domains: tuple[Domain, ...], now: float) -> bool:
        """An endpoint's domains became known later.  True when selection must look again."""
        self._members[position] = Member(domains, self._members[position].weight)
        return self._judge(now)

    def note(self, position: int, condition: Condition, now: float) -> bool:
        """An endpoint's condition.  True when selection must look again."""
        before = self._conditions[position]
        if before is condition:
            return False
        self._conditions[position] = condition
        if condition is Condition.DOWN:
            self._down_at[position] = now
        if condition is Condition.WELL:
            self._well_at[position] = now
        return self._judge(now)

    def expire(self, now: float) -> bool:
        """Let suspicions end whose time is over.  True when selection must look again."""
        return self._judge(now) if self._trips else False

    def trips(self) -> tuple[Trip, ...]:
        """The suspected domains, the narrowest first."""
        return tuple(sorted(self._trips.values(), key=lambda trip: (len(trip.members), trip.domain)))

    def demoted(self, position: int) -> Domain | None:
        """The suspected domain that an endpoint is in; None: it is in none."""
        return next((trip.domain for trip in self.trips() if position in trip.members), None)

    def watched(self, position: int) -> bool:
        """Its last call failed while another member of a domain of its is down."""
        return position in self._watched

    # --- judging ----------------------------------------------------------------------------------

    def _judge(self, now: float) -> bool:
        trips = self._suspected(now)
        watched = self._under_watch(now)
        if trips.keys() == self._trips.keys() and watched == self._watched:
            self._trips = trips
            return False
        self._trips, self._watched = trips, watched
        return True

    def _suspected(self, now: float) -> dict[Domain, Trip]:
        groups = self._groups()
        found: dict[Domain, Trip] = {}
        for domain, members in groups.items():
            standing = self._trips.get(domain)
            trip = self._still(standing, members, now) if standing is not None else self._new(domain, members, now)
            if trip is not None:
                found[domain] = trip
        return {domain: trip for domain, trip in found.items() if not self._explained(trip, found)}

    def _groups(self) -> dict[Domain, tuple[int, ...]]:
        groups: dict[Domain, list[int]] = {}
        for position, member in enumerate(self._members):
            for domain in member.domains:
                groups.setdefault(domain, []).append(position)
        everybody = len(self._members)
        return {d: tuple(m) for d, m in groups.items() if self._settings.members <= len(m) < everybody}

    def _new(self, domain: Domain, members: tuple[int, ...], now: float) -> Trip | None:
        """A domain that was trusted: is it to be suspected?"""
        settings = self._settings
        down = [p for p in members if self._conditions[p] is Condition.DOWN]
        if len(down) < settings.members or self._weight(down) < settings.share * self._weight(members):
            return None
        newest = max(self._down_at[p] for p in down)
        together = [p for p in down if newest - self._down_at[p] <= settings.within]
        if len(together) < settings.members:
            return None
        outside = (p for p in range(len(self._members)) if p not in members)
        if not any(self._conditions[p] is Condition.WELL for p in outside):
            return None  # nobody is well: it may be our own network, or everybody's fault
        return Trip(domain, now, tuple(together), members)

    def _still(self, trip: Trip, members: tuple[int, ...], now: float) -> Trip | None:
        """A suspected one: it is trusted again when enough of it has been well for long enough."""
        settings = self._settings
        well = [
            p
            for p in members
            if self._conditions[p] is Condition.WELL
            and (p not in trip.down or now - self._well_at[p] >= settings.trusted_after)
        ]
        back = [p for p in trip.down if p in well]
        if len(back) >= settings.share * len(trip.down) and self._weight(well) >= settings.share * self._weight(
            members
        ):
            return None
        return Trip(trip.domain, trip.since, trip.down, members)

    @staticmethod
    def _explained(trip: Trip, found: dict[Domain, Trip]) -> bool:
        """A narrower domain, with the same members down, says it better."""
        return any(
            set(other.down) >= set(trip.down) and len(other.members) < len(trip.members) for other in found.values()
        )

    def _under_watch(self, now: float) -> set[int]:
        watched = set()
        for position, member in enumerate(self._members):
            if self._conditions[position] is Condition.FAILING and any(
                other != position
                and self._conditions[other] is Condition.DOWN
                and now - self._down_at[other] <= self._settings.within
                and not set(member.domains).isdisjoint(self._members[other].domains)
                for other in range(len(self._members))
            ):
                watched.add(position)
        return watched

    def _weight(self, positions: Sequence[int]) -> float:
        return sum(self._members[position].weight for position in positions)

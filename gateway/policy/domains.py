"""Failure domains: endpoints that share a cloud, a region, an edge or a client version fail together.

Always true: a domain becomes suspected only while at least two of its members and half of its weight
are down at the same time, having gone down within a minute of each other, and somebody outside of every
suspected domain is well, so that somebody is always left; each fall is evidence once; a suspicion ends by
itself.  All members of a suspected domain, the still-green ones too, go to the last tier: that is the point,
for they are about to fail (2025-10-20: one region took four "independent" providers within minutes).
While one member of a domain is down, another that fails once is *watched*: it leaves the front until it
answers, so that a domain that dies member by member costs each of them one call.
Two failures within a minute are 270 to 1 in favour of a common cause when each provider fails by
itself twice a month, and clouds fail once in ten.

A domain is trusted again when half of those that fell have been up for `trusted_after` and half of its
weight is well.  Each return of the suspicion doubles that time, up to eightfold, and ten quiet minutes
forget it, so a domain that flaps stays out instead of swinging.  A member that never fell, and has been
well for ten minutes since the last one did, does not share the fault and is spared.
Does not belong here: when a member is down (the breakers), and where labels come from (the catalogue).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gateway.bounds import require_bounds, setting
from gateway.model import DOMAIN_LABELS

Domain = tuple[str, str]
"""A label and one of its values: ``("cloud", "aws")``."""

DOUBLED_AT_MOST = 3  # times that `trusted_after` doubles: eightfold
FORGOTTEN_AFTER = 600.0  # seconds of trust after which the next suspicion is a first one again
SPARED_AFTER = 600.0  # seconds since the last fall; who is still well by then does not share the fault


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
    DOWN = "down"  # a breaker of it is open, or it is stuck far behind, or on another branch


_UP = (Condition.WELL, Condition.FAILING)


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint: the domains that it is in, and its weight."""

    domains: tuple[Domain, ...]
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Trip:
    """One suspected domain.  `down` are the members that fell, `members` all of it; positions, ascending.

    `since` is when it became suspected, `first_at` and `last_at` when the first and the last of `down`
    fell; monotonic seconds.
    """

    domain: Domain
    since: float
    down: tuple[int, ...]
    members: tuple[int, ...]
    first_at: float = 0.0
    last_at: float = 0.0


class DomainWatch:
    """The failure domains of one route.  `note` what happens to its endpoints; `now` is monotonic seconds.

    While nobody is down, a note costs one comparison more than writing it down.
    """

    __slots__ = (
        "_again", "_conditions", "_demoted", "_down_at", "_downs", "_groups", "_members", "_settings", "_spent",
        "_trips", "_watched", "_well_at",
    )  # fmt: skip

    def __init__(self, settings: DomainSettings, members: Sequence[Member], now: float) -> None:
        self._settings = settings
        self._members = list(members)
        self._conditions = [Condition.UNKNOWN] * len(self._members)
        self._down_at = [now] * len(self._members)
        self._well_at = [now] * len(self._members)  # when it came up for the last time
        self._spent = [False] * len(self._members)  # down, but its fall has been evidence already
        self._downs = 0
        self._groups = self._grouped()
        self._trips: dict[Domain, Trip] = {}
        self._again: dict[Domain, tuple[int, float]] = {}  # times trusted again, and when last
        self._watched: set[int] = set()
        self._demoted: list[Domain | None] = [None] * len(self._members)

    def place(self, position: int, domains: tuple[Domain, ...], now: float) -> bool:
        """An endpoint's domains became known later.  True when selection must look again."""
        self._members[position] = Member(domains, self._members[position].weight)
        self._groups = self._grouped()
        self._again = {domain: again for domain, again in self._again.items() if domain in self._groups}
        return self._judge(now)

    def adopt(self, position: int, before: DomainWatch, was: int, now: float) -> bool:
        """Take over what `before` knew of its endpoint `was`, as a reload does.  True when selection must look again.

        Noting it anew would have everybody who is down fall at the instant of the reload, together.
        """
        self._downs += (before._conditions[was] is Condition.DOWN) - (self._conditions[position] is Condition.DOWN)
        self._conditions[position] = before._conditions[was]
        self._down_at[position] = before._down_at[was]
        self._well_at[position] = before._well_at[was]
        self._spent[position] = before._spent[was]
        self._again.update((domain, again) for domain, again in before._again.items() if domain in self._groups)
        return self._judge(now)

    def note(self, position: int, condition: Condition, now: float) -> bool:
        """An endpoint's condition.  True when selection must look again."""
        before = self._conditions[position]
        if before is condition:
            return False
        self._conditions[position] = condition
        if before is Condition.DOWN:
            self._downs -= 1
            self._spent[position] = False
        if condition is Condition.DOWN:
            self._downs += 1
            self._down_at[position] = now
        elif condition in _UP and before not in _UP:
            self._well_at[position] = now
        return self._judge(now)

    def expire(self, now: float) -> bool:
        """Let end what ends with time.  True when selection must look again."""
        return self._judge(now) if self._trips or self._watched else False

    def trips(self) -> tuple[Trip, ...]:
        """The suspected domains, the narrowest first."""
        return tuple(sorted(self._trips.values(), key=_narrowness))

    def demoted(self, position: int) -> Domain | None:
        """The suspected domain for which an endpoint is in the last tier; None: for none."""
        return self._demoted[position]

    def watched(self, position: int) -> bool:
        """Its last call failed while another member of a domain of its is newly down."""
        return position in self._watched

    # --- judging ----------------------------------------------------------------------------------

    def _judge(self, now: float) -> bool:
        if not (self._downs or self._trips or self._watched):
            return False
        self._trips = self._suspected(now)
        watched = self._under_watch(now)
        demoted: list[Domain | None] = [None] * len(self._members)
        for trip in self.trips():
            for position in trip.members:
                if demoted[position] is None and not self._spared(position, trip, now):
                    demoted[position] = trip.domain
        if watched == self._watched and demoted == self._demoted:
            return False
        self._watched, self._demoted = watched, demoted
        return True

    def _grouped(self) -> dict[Domain, tuple[int, ...]]:
        """The domains that can be suspected, with their members: those of one, or of all, cannot."""
        groups: dict[Domain, list[int]] = {}
        for position, member in enumerate(self._members):
            for domain in dict.fromkeys(member.domains):
                groups.setdefault(domain, []).append(position)
        everybody = len(self._members)
        return {d: tuple(m) for d, m in groups.items() if self._settings.members <= len(m) < everybody}

    def _suspected(self, now: float) -> dict[Domain, Trip]:
        standing: list[Trip] = []
        found: list[Trip] = []
        for domain, members in self._groups.items():
            before = self._trips.get(domain)
            trip = self._new(domain, members, now) if before is None else self._still(before, members, now)
            if trip is not None:
                found.append(trip)
                if before is not None:
                    standing.append(trip)
        kept: dict[Domain, Trip] = {}
        for trip in sorted(found, key=_narrowness):
            if any(_explains(other, trip) for other in kept.values()):
                continue
            others = [*kept.values()]
            if trip not in standing:
                others += [other for other in standing if not _explains(trip, other)]
            suspected = set(trip.members).union(*(other.members for other in others))
            if self._somebody_left(suspected, well=trip not in standing):
                kept[trip.domain] = trip
        return kept

    def _somebody_left(self, suspected: set[int], well: bool) -> bool:
        """Somebody is outside; if asked, one that is well: else it may be our own network, or everybody's fault."""
        outside = (p for p in range(len(self._members)) if p not in suspected)
        return any(not well or self._conditions[p] is Condition.WELL for p in outside)

    def _new(self, domain: Domain, members: tuple[int, ...], now: float) -> Trip | None:
        """A domain that was trusted: is it to be suspected?  The unknown say nothing, for it or against."""
        settings = self._settings
        known = [p for p in members if self._conditions[p] is not Condition.UNKNOWN]
        down = [p for p in known if self._conditions[p] is Condition.DOWN]
        if len(down) < settings.members or self._weight(down) < settings.share * self._weight(known):
            return None
        together: list[int] = []
        for last in down:
            until = self._down_at[last]
            near = [p for p in down if not self._spent[p] and 0.0 <= until - self._down_at[p] <= settings.within]
            together = max(together, near, key=len)
        if len(together) < settings.members:
            return None
        fell = [self._down_at[p] for p in together]
        return Trip(domain, now, tuple(together), members, min(fell), max(fell))

    def _still(self, trip: Trip, members: tuple[int, ...], now: float) -> Trip | None:
        """A suspected one: it is trusted again when enough of it has been well for long enough."""
        settings = self._settings
        conditions = self._conditions
        joined = [p for p in members if conditions[p] is Condition.DOWN and not self._spent[p] and p not in trip.down]
        if joined:
            last_at = max(trip.last_at, *(self._down_at[p] for p in joined))
            trip = replace(trip, down=tuple(sorted((*trip.down, *joined))), last_at=last_at)
        fell = [p for p in trip.down if p in members and conditions[p] is not Condition.UNKNOWN]
        times, trusted_at = self._again.get(trip.domain, (0, now))
        if trip.since - trusted_at > FORGOTTEN_AFTER:
            times = 0
        needed = settings.trusted_after * 2.0 ** min(times, DOUBLED_AT_MOST)
        back = [p for p in fell if conditions[p] is Condition.WELL and now - self._well_at[p] >= needed]
        well = [p for p in members if conditions[p] is Condition.WELL and (p in back or p not in fell)]
        known = [p for p in members if conditions[p] is not Condition.UNKNOWN]
        enough_back = self._weight(back) >= settings.share * self._weight(fell)
        if not fell or (back and enough_back and self._weight(well) >= settings.share * self._weight(known)):
            self._again[trip.domain] = (times + 1, now)
            for position in trip.down:
                self._spent[position] = conditions[position] is Condition.DOWN
            return None
        return replace(trip, members=members)

    def _spared(self, position: int, trip: Trip, now: float) -> bool:
        if position in trip.down or self._conditions[position] is not Condition.WELL:
            return False
        fell_at = max(trip.last_at, *(self._down_at[p] for p in trip.down))
        return now - max(fell_at, self._well_at[position]) >= SPARED_AFTER

    def _under_watch(self, now: float) -> set[int]:
        watched: set[int] = set()
        for members in self._groups.values():
            if any(
                self._conditions[p] is Condition.DOWN and now - self._down_at[p] <= self._settings.within
                for p in members
            ):
                watched.update(p for p in members if self._conditions[p] is Condition.FAILING)
        return watched

    def _weight(self, positions: Sequence[int]) -> float:
        return sum(self._members[position].weight for position in positions)


def _narrowness(trip: Trip) -> tuple[int, int, Domain]:
    """Sorts the narrower first; of two with as many members, the one whose label tells more."""
    label = trip.domain[0]
    rank = len(DOMAIN_LABELS) - DOMAIN_LABELS.index(label) if label in DOMAIN_LABELS else 0
    return len(trip.members), rank, trip.domain


def _explains(other: Trip, trip: Trip) -> bool:
    """A narrower domain with the same members down says it better."""
    return _narrowness(other) < _narrowness(trip) and set(other.down) >= set(trip.down)

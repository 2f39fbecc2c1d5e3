"""Connectivity: whether it is them or our own network when nobody can be reached.

Always true: an attempt that found nobody (no name, no connection, no TLS, silence until the timeout)
counts against a provider only once another provider has been reached since its failures began; while
the gateway's own network is cut, nothing counts against anyone; with one provider down and any other
alive, every failure counts, at the latest with the next answer of another; when our own network comes
back, what was held against anyone meanwhile is dropped.
Why: a breaker cannot tell a dead provider from a dead cable of our own, and if it opens for the cable,
it stays open after the cable is back.  The contrast with others can tell.
A gateway with a single provider has no contrast: its failures count at once, and no local fault is
ever declared.
Does not belong here: how an attempt failed (upstream), and what follows from a verdict.
"""

from __future__ import annotations

from collections import deque

FAILURES_AT_LEAST = 3  # before our own network is suspected: fewer are chance
PROVIDERS_AT_LEAST = 2
RECENT = 10.0  # seconds; providers not tried for longer say nothing of now
DEFERRED_AT_MOST = 256  # failures kept per provider; a breaker needs far fewer to open


class _Streak:
    """One provider's failures since it was last reached."""

    __slots__ = ("count", "deferred", "last_at", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.last_at = now
        self.count = 0
        self.deferred: deque[object] = deque(maxlen=DEFERRED_AT_MOST)


class Connectivity:
    """One per gateway: all routes share its network.  `providers` are all that it has."""

    __slots__ = ("_known", "_reached", "_streaks", "unsettled")

    def __init__(self, providers: int = 2) -> None:
        self._known = providers
        self._streaks: dict[str, _Streak] = {}
        self._reached: dict[str, float] = {}  # while a streak is open: who was reached when
        self.unsettled = False
        """A streak is open, so answers must be told of.  The happy path reads this and nothing else."""

    def providers(self, count: int) -> None:
        """How many providers the configuration names."""
        self._known = count

    def unreached(self, provider: str, token: object, now: float, contrast: bool = False) -> bool:
        """An attempt found nobody.  True: count it now; False: `token` is kept until somebody else is reached.

        `contrast`: another provider was reached while this attempt was waiting in vain.
        """
        if self._known < PROVIDERS_AT_LEAST:
            return True
        streak = self._streaks.get(provider)
        if streak is None:
            streak = self._streaks[provider] = _Streak(now)
            self.unsettled = True
        streak.count += 1
        streak.last_at = now
        if contrast or any(at >= streak.since for other, at in self._reached.items() if other != provider):
            return True
        streak.deferred.append(token)
        return False

    def reached(self, provider: str, now: float) -> list[object]:
        """An answer came, whatever it says.  The failures of others that are to be counted now.

        Its own deferred ones are dropped: whatever cut it off was not itself.
        """
        if self.local_fault_since(now) is not None:
            self._streaks.clear()  # it was our network, and whoever comes back first convicts nobody
        self._streaks.pop(provider, None)
        if not self._streaks:
            self.unsettled = False
            self._reached.clear()
            return []
        self._reached[provider] = now
        counted: list[object] = []
        for streak in self._streaks.values():
            counted.extend(streak.deferred)
            streak.deferred.clear()
        return counted

    def local_fault_since(self, now: float) -> float | None:
        """The instant since when nobody at all has been reached; None: somebody was, or it is too early to tell."""
        tried = [streak for streak in self._streaks.values() if now - streak.last_at <= RECENT]
        if len(tried) < PROVIDERS_AT_LEAST or sum(streak.count for streak in tried) < FAILURES_AT_LEAST:
            return None
        since = min(streak.since for streak in tried)
        if any(at >= since for at in self._reached.values()):
            return None
        return since

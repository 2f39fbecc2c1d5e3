"""Connectivity: whether it is them or our own network when nobody can be reached.

Always true: an attempt that found nobody (no name, no connection, no TLS, silence until the timeout)
counts against a provider only once another provider has been reached since its failures began; while
a cut of the gateway's own network is known, nothing counts against anyone but those who were dead before;
with one provider down and any other alive, every failure counts, at the latest with the next answer of
another; when our own network comes back, what was held against anyone meanwhile is dropped.
Why: a breaker cannot tell a dead provider from a dead cable of our own, and if it opens for the cable,
it stays open after the cable is back.  The contrast with others can tell.

Who answers after a cut tells which it was.  One that could not be reached itself a moment ago shares
the fault with the others, and acquits them; one that never failed is the contrast that convicts them.
A gateway with a single provider has no contrast: its failures count at once, and no local fault is
ever declared.
While only some have been asked, silence is a suspicion: two hosts of one exchange that cut every connection
look like a cut cable to whoever asks nobody else.  So everybody is asked while it lasts, and nothing is said
aloud before they had time to answer.
Does not belong here: how an attempt failed (upstream), and what follows from a verdict.
"""

from __future__ import annotations

from collections import deque

FAILURES_AT_LEAST = 3  # before our own network is suspected: fewer are chance
PROVIDERS_AT_LEAST = 2
DEAD_AFTER = 3  # counted failures without an answer: it is dead, whatever happens to our network later
RECENT = 10.0  # seconds; providers not tried for longer say nothing of now
CERTAIN_AFTER = 1.5  # seconds of silence until it is said aloud: time for those whom nobody has asked to answer
DEFERRED_AT_MOST = 256  # failures kept per provider; a breaker needs far fewer to open


class _Streak:
    """One provider's failures since it was last reached; `silent` ones since anybody was."""

    __slots__ = ("counted", "deferred", "last_at", "silence", "silent", "silent_since", "since")

    def __init__(self, now: float) -> None:
        self.since = now
        self.last_at = now
        self.counted = 0
        self.silence = -1  # the number of the silence that `silent` and `silent_since` are about
        self.silent = 0
        self.silent_since = now
        self.deferred: deque[object] = deque(maxlen=DEFERRED_AT_MOST)


class Connectivity:
    """One per gateway: all routes share its network.  `providers` are all that it has."""

    __slots__ = ("_back_at", "_cut_since", "_known", "_reached", "_silence", "_streaks", "deferred", "unsettled")

    def __init__(self, providers: int = 2) -> None:
        self._known = providers
        self._streaks: dict[str, _Streak] = {}
        self._reached: dict[str, float] = {}  # while a streak is open: who was reached when
        self._silence = 0  # counts the answers, each of which ends a silence
        self._cut_since: float | None = None
        self._back_at = float("-inf")
        self.deferred = 0
        """Failures that wait for a contrast."""
        self.unsettled = False
        """A streak is open, so answers must be told of.  The happy path reads this and nothing else."""

    def providers(self, count: int) -> None:
        """How many providers the configuration names.  Those that are gone would be waited for forever."""
        self._known = count
        self._streaks = {name: streak for name, streak in self._streaks.items() if streak.deferred}
        if not self._streaks:
            self._settle()

    def unreached(
        self, provider: str, token: object, now: float, contrast: bool = False, began: float | None = None
    ) -> bool:
        """An attempt found nobody.  True: count it now; False: `token` is kept until somebody else is reached.

        `contrast`: another provider was reached while this attempt was waiting in vain.  `began` is when
        it began (None: just now): one that began during a cut and ends after it is forgotten, not kept.
        """
        if self._known < PROVIDERS_AT_LEAST:
            return True
        if began is not None and began < self._back_at:
            return False
        streak = self._streaks.get(provider)
        if streak is None:
            streak = self._streaks[provider] = _Streak(now)
            self.unsettled = True
        elif now - streak.last_at > RECENT:
            streak.since = now  # an old failure that nobody followed up says nothing of now
        streak.last_at = now
        if streak.silence != self._silence:
            streak.silence, streak.silent, streak.silent_since = self._silence, 0, now
        streak.silent += 1
        if self._cut_since is None:
            self._cut_since = self._silent_since(now)
        if streak.counted >= DEAD_AFTER:
            return True
        if self._cut_since is None and (
            contrast or any(at >= streak.since for other, at in self._reached.items() if other != provider)
        ):
            streak.counted += 1
            return True
        if len(streak.deferred) < DEFERRED_AT_MOST:
            self.deferred += 1
        streak.deferred.append(token)
        return False

    def reached(self, provider: str, now: float) -> list[object]:
        """An answer came, whatever it says.  The failures of others that are to be counted now.

        Its own deferred ones are dropped: whatever cut it off was not itself.  It costs one comparison
        while no streak is open, and two look-ups in dictionaries while one is and nothing is deferred.
        """
        if not self.unsettled:
            return []
        own = self._streaks.pop(provider, None)
        if own is not None and self._cut_since is not None:
            self._back_at = now
            self._streaks.clear()  # it was our network, and whoever comes back first convicts nobody
        self._cut_since = None
        if not self._streaks:
            self._settle()
            return []
        self._silence += 1
        self._reached[provider] = now
        if not self.deferred:
            return []
        self.deferred = 0
        counted: list[object] = []
        for streak in self._streaks.values():
            counted.extend(streak.deferred)
            streak.counted += len(streak.deferred)
            streak.deferred.clear()
        return counted

    @property
    def suspected(self) -> bool:
        """Nobody of those who were asked answers.  Time to ask the others, whatever their turn."""
        return self._cut_since is not None

    def local_fault_since(self, now: float) -> float | None:
        """The instant since when nobody at all has been reached; None: somebody was, or it is too early to tell."""
        if self._cut_since is None or all(now - streak.last_at > RECENT for streak in self._streaks.values()):
            return None
        return self._cut_since if now - self._cut_since >= CERTAIN_AFTER else None

    def tried(self, now: float) -> int:
        """Providers that were tried of late, and not reached."""
        return sum(now - streak.last_at <= RECENT for streak in self._streaks.values())

    def _settle(self) -> None:
        self._streaks.clear()
        self._reached.clear()
        self._cut_since = None
        self.deferred = 0
        self.unsettled = False

    def _silent_since(self, now: float) -> float | None:
        """Since when everybody who was tried of late has failed in silence; None: it is too early to tell."""
        if any(now - at <= RECENT and name not in self._streaks for name, at in self._reached.items()):
            return None  # answered a moment ago, and nobody has asked it since
        silent = [s for s in self._streaks.values() if s.silence == self._silence and now - s.last_at <= RECENT]
        if len(silent) < PROVIDERS_AT_LEAST or sum(streak.silent for streak in silent) < FAILURES_AT_LEAST:
            return None
        return min(streak.silent_since for streak in silent)

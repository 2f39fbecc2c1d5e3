"""When to ask an endpoint for its newest block again: about once a block, and soon after it has come.

Always true: no endpoint is asked again sooner than `RETRY` of the pace, and that only while a block
is due; over many blocks it is little more than one poll per endpoint and block (polls are paid for).
Blocks come at a pace, but nobody says at which instants.  Polls therefore creep towards the arrival,
a little earlier each block, until one is just too early and is repeated; the others follow within half
a block, each at its own share, so that they are not all asked in one instant.  In simulations
(tests/policy/test_polling.py) a block is known about a sixth of a block time after it came.
Does not belong here: what the answers mean (policy/heads), or who sends the polls (upstream).
"""

from __future__ import annotations

FIRST_WITHIN = 1.0  # s; the very first polls are spread over it, and keep that distance on fast chains
EARLY = 0.95  # of the pace: the creep
DUE = 0.85  # of the pace after the last block: a poll that then finds nothing new was just too early,
OVERDUE = 2.0  # and here the block is late, and asking more often does not bring it
RETRY = 0.25  # of the pace: after a poll that was too early
SPREAD = 0.5  # of the pace: polls that follow a rise lie within it
REPEAT = 0.75  # of the pace: and no endpoint follows sooner after its own last poll
GOLDEN = 0.6180339887498949  # its multiples lie evenly in a circle, however many there are


def share(position: int) -> float:
    """An endpoint's own place in the spread, 0 to 1."""
    return position * GOLDEN % 1.0


def first_wait(position: int, at_least: float) -> float:
    """Seconds from the start to an endpoint's first poll; `at_least` is the shortest between two."""
    return share(position) * min(at_least, FIRST_WITHIN)


def wait_between(position: int, pace: float, since: float, confirmed: bool) -> float:
    """Seconds from an endpoint's last poll to its next.

    `pace` is the block time within the bounds of polling, `since` by how many seconds that poll came
    after the last rise of the newest block (negative: before it), `confirmed` whether the endpoint has
    said that block.
    """
    if since < 0 and not confirmed:
        return min(EARLY * pace, max(SPREAD * share(position) * pace - since, REPEAT * pace))
    if confirmed and DUE * pace <= since <= OVERDUE * pace:
        return RETRY * pace
    return EARLY * pace

"""Examination: an answer that came is looked into before a caller gets it.

Always true: what an answer tells of its endpoint's head or chain is noted before anything is decided; an
answer that cannot be true is not delivered while somebody else can be asked; one that is merely older
than what callers have seen is replaced by what they have seen, where that has the same shape.
Does not belong here: what an answer tells (dialect), and what follows from it (upstream/fleet/blocks).
"""

from __future__ import annotations

from gateway.model import Call, ReplyKind
from gateway.upstream.calls.route import Route
from gateway.upstream.fleet.blocks import Finding


def look_into(route: Route, call: Call, position: int, result: bytes, now: float) -> Finding | None:
    """The same for a call's first answer, in a hurry: a head that was said a moment ago is not looked into again."""
    if call.method is not route.head_method:
        return examine(route, call, position, result, now, False)
    blocks = route.pool.blocks
    if blocks.heard(position, result, now):
        return None
    finding = examine(route, call, position, result, now, False)
    if finding is None:
        blocks.delivered(position, bytes(result), now)
    return finding


def examine(route: Route, call: Call, position: int, result: bytes, now: float, again: bool) -> Finding | None:
    """What is to be done about an answer to an examined method; None: deliver it.

    `again`: this is not the first endpoint that answered this call.
    """
    told = route.dialect.examine(call, result)
    pool = route.pool
    if told is None:
        return None
    if told.chain_id is not None:
        expected = route.chain_id if route.chain_id is not None else pool.chain_id_but(position)
        if expected is None or told.chain_id == expected:
            return None
        pool.note_chain(position, told.chain_id, False)
        return Finding(ReplyKind.WRONG_CHAIN, f"chain id {told.chain_id}")
    blocks = pool.blocks
    if told.head is not None:
        pool.note_head(position, told.head, now)
    finding = blocks.judge(call, position, told, now, again)
    if finding is None or finding.seen < 0:
        return finding
    seen = route.dialect.encode_head(finding.seen)
    if told.nonce is not None:  # others are asked; if nobody knows better, what was seen holds
        return Finding(finding.kind, finding.detail, seen)
    if seen is not None and call.method.name == route.dialect.head_call[0]:
        return Finding(ReplyKind.ANSWER, finding.detail, seen)
    return finding

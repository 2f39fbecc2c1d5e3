"""What a venue's file says of its WebSockets: hosts, rules of the connection, and what callers can share.

Always true: as in `venue`, of which this is a part.
Does not belong here: reading and writing messages (venue_messages).
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1, max_length=400)]
Host = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:\d{1,5})?$")]
Target = Annotated[str, Meta(pattern=r"^/[!-~]*$", max_length=400)]


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """At most `amount` within `window` seconds."""

    amount: Positive
    window: Positive


class StreamHost(Struct, frozen=True, forbid_unknown_fields=True):
    """A host of WebSockets.  `paths` are the prefixes it serves, `private` those of them that are pinned.

    Hosts with the same `paths`, `private` and `speaks` stand in for each other; `speaks` tells those apart that have
    the same paths for different things.
    """

    host: Host
    paths: tuple[str, ...] = ("/",)
    private: tuple[str, ...] = ()
    speaks: str = ""
    cloud: str = ""
    region: str = ""
    edge: str = ""


class Topics(Struct, frozen=True, forbid_unknown_fields=True):
    """Topics that are alike.  `names` are theirs, ``*`` stands for anything; the first entry that fits counts.

    Where no single member names a topic, `asked` is all that a request for one has beside its operation and number,
    but for those members that are `assumed` when they are missing, and `told` are the place=texts (`|` between them)
    by which its messages are known; ``*`` stands in each for the one name in it, and a list of it for several.
    `rule` says how their messages are numbered (policy/sequences), at `first`, `last` and `previous` (places like
    those of errors); `snapshot` is the place=value that marks a message as the state's new beginning.
    `begins`: a subscription begins with the present state, so whoever joins late is given the newest message.
    `each`: every message counts, as with trades; where a line is lost, one may be missing and nobody can tell.
    """

    names: tuple[Text, ...] = ()
    asked: dict[str, Any] = {}
    assumed: tuple[str, ...] = ()
    told: dict[str, str] = {}
    rule: str = "none"
    first: str = ""
    last: str = ""
    previous: str = ""
    snapshot: str = ""
    begins: bool = False
    each: bool = False


class Sharing(Struct, frozen=True, forbid_unknown_fields=True):
    """How public subscriptions are asked for and told, so that callers can share them.

    `connect` is the path of shared connections, `paths` those on which callers' subscriptions are shared.
    `speaks` is what the hosts speak that it is about.  A request has its operation at `op` (`subscribe`, `unsubscribe`,
    `lists`; of several spellings, with `|` between them, the first is ours), its topics at `topics` (texts, or
    objects of exactly these `members`), its number at `id` (a text if `id_is_text`), its time in whole seconds at
    `dated`, and no more than `per_request`
    topics.  A message names its topic at `topic` and has what it tells at `data`, which callers on `bare` paths get
    alone.  Both are left out where `kinds` say how topics are `asked` for and `told`; each element of the members
    `spread` of a request is then a topic of its own.
    A caller is given `welcome` first.  `ack`, `ack_each`, `pong` (to what has the place=value `ping`) and `listed` are
    what it is answered, with $id, $op, $topic, and $topics for all it has, each like `one`, where ${place} is what its
    request has there; a caller that gave no number is given `no_id`, or no such member where that is empty.
    `refused` are the place=value (or only the place) by which an answer to a request says no; `answered` is the
    place=value of one that says yes, where neither has a number and each answers the oldest request.
    What no entry of `kinds` names is not shared.
    """

    connect: Target
    paths: tuple[str, ...]
    op: Text
    subscribe: Text
    unsubscribe: Text
    topics: str = ""
    topic: str = ""
    data: Text = "data"
    speaks: str = ""
    spread: tuple[str, ...] = ()
    spread_name: str = ""
    welcome: str = ""
    one: str = ""
    answered: str = ""
    kinds: tuple[Topics, ...] = ()
    members: tuple[str, ...] = ()
    id: str = ""
    id_is_text: bool = False
    dated: str = ""
    no_id: str = ""
    bare: tuple[str, ...] = ()
    in_path: tuple[str, ...] = ()  # what stands before streams that a URL names: a path or "path?parameter="
    ack: str = ""
    ack_each: str = ""
    ping: str = ""
    pong: str = ""
    lists: str = ""
    listed: str = ""
    refused: tuple[str, ...] = ()
    per_connection: Annotated[int, Meta(ge=1)] = 200
    per_request: Annotated[int, Meta(ge=1)] = 100


class Streams(Struct, frozen=True, forbid_unknown_fields=True):
    """WebSockets.  `life` is how long the venue lets one live, `silent_for` how long it may say nothing (s).

    `connects` is how often one address may connect, `most_open` how many it may have open, `requests` how often may
    be asked on one connection.  `say` is sent every `every` seconds, because the venue wants to hear from its clients
    or so that it says something; `answer` is what comes back.  `announces` are pieces of messages that tell of a
    coming close.
    """

    hosts: tuple[StreamHost, ...]
    life: Positive = 86400.0
    silent_for: Positive = 60.0
    connects: Rate | None = None
    most_open: Annotated[int, Meta(ge=1)] | None = None
    requests: Rate | None = None
    say: str = ""
    every: NotNegative = 0.0
    answer: str = ""
    announces: tuple[str, ...] = ()
    sharing: tuple[Sharing, ...] = ()


ANY_NAME = "*"
RULES = ("none", "range", "previous", "next", "span", "rising", "line")


def contradictions_of_streams(streams: Streams) -> list[tuple[str, str]]:
    """What no single value shows: (place, problem)."""
    found = []
    if streams.say and not streams.every:
        found.append(("$.streams.every", "is needed with `say`"))
    for i, sharing in enumerate(streams.sharing):
        place = f"$.streams.sharing[{i}]"
        for j, kind in enumerate(sharing.kinds):
            found += _contradictions_of_kind(kind, f"{place}.kinds[{j}]")
        shaped = [bool(kind.asked) for kind in sharing.kinds]
        if any(shaped) and not all(shaped):
            found.append((f"{place}.kinds", "either all are known by what is asked and told, or none"))
        if any(shaped) and sharing.per_request != 1:
            found.append((f"{place}.per_request", "is 1 where kinds say what is asked"))
        if not any(shaped) and not (sharing.topics and sharing.topic):
            found.append((f"{place}.topics", "is needed, and `topic`, where kinds do not say what is asked and told"))
        if not any(host.speaks == sharing.speaks for host in streams.hosts):
            found.append((f"{place}.speaks", "no host speaks it"))
    return found


def _contradictions_of_kind(kind: Topics, place: str) -> list[tuple[str, str]]:
    found = []
    if kind.rule not in RULES:
        found.append((f"{place}.rule", f"expected one of {', '.join(RULES)}"))
    if bool(kind.names) == bool(kind.asked):
        found.append((f"{place}.names", "expected either names or what is asked"))
    for name, pattern in (("asked", kind.asked), ("told", kind.told)):
        if kind.asked and _names_in(pattern) != 1:
            found.append((f"{place}.{name}", f"expected one {ANY_NAME} in it"))
    found += [
        (f"{place}.assumed", f"{name} is not in what is asked") for name in kind.assumed if name not in kind.asked
    ]
    needed: dict[str, tuple[str, ...]] = {"none": (), "line": ("snapshot",), "previous": ("previous", "last")}
    needed |= {"range": ("first", "last"), "span": ("first", "last")}
    missing = [name for name in needed.get(kind.rule, ("last",)) if not getattr(kind, name)]
    found += [(f"{place}.{name}", f"is needed by the rule {kind.rule}") for name in missing]
    return found


def _names_in(pattern: Any) -> int:
    """How many names a pattern stands open for."""
    if isinstance(pattern, dict):
        return sum(map(_names_in, pattern.values()))
    if isinstance(pattern, list):
        return sum(map(_names_in, pattern))
    return int(pattern == ANY_NAME)

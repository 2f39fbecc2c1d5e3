"""Canonical forms: whether two results are the same, whoever gave them.

Always true: order of members, blanks, the case of hex digits, and `null` or absent make no difference;
what honest nodes of one chain give differently (fees of a layer below, sizes, computed fields) makes none
*in the object that it belongs to*: a block, a transaction, a receipt, a log.  Elsewhere the same name
counts: an empty access list says nothing in a transaction and is the answer of `eth_createAccessList`.
Leading zeros make no difference in a number, known as one by its name; hex data of another length is
another value.  Lists keep their order.  Never raises: what is no JSON is its own form.

Why by name and by object: a field that is wrongly compared convicts an honest node of lying, one that is
wrongly left out lets a liar through, and both are silent.  The names are in canonical.json: those of the
execution API, and what OP Stack, Arbitrum, zkSync, Besu, Nethermind and OpenEthereum put beside them.
Does not belong here: who is right (policy/agreement).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import msgspec

WHOLE_BELOW = 1_000_000  # bytes: 15 ms for logs, 125 ms for tiny objects; larger ones are compared as they are
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode
_PROBLEMS = (msgspec.MsgspecError, UnicodeError, RecursionError)
_is_hex = re.compile(r"0[xX][0-9a-fA-F]*").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One kind of object: what it is known by, what says nothing in it, and which members are numbers.

    `mark` is one of `members`, looked for first because most objects do not have it.
    """

    mark: str = ""
    members: frozenset[str] = frozenset()
    noise: frozenset[str] = frozenset()
    same_as_absent: tuple[tuple[str, Any], ...] = ()
    numbers: frozenset[str]


_TABLE = json.loads(files("gateway.dialect").joinpath("canonical.json").read_text("utf-8"))
_NUMBERS = frozenset(_TABLE["numbers"])
_NUMBER_METHODS = frozenset(_TABLE["number_methods"])
_TRACES = tuple(_TABLE["traces"])
_SHAPES = {
    name: Shape(
        mark=row["members"][0],
        members=frozenset(row["members"]),
        noise=frozenset(row["noise"]),
        same_as_absent=tuple(row.get("same_as_absent", {}).items()),
        numbers=_NUMBERS.difference(row.get("data", ())),
    )
    for name, row in _TABLE["shapes"].items()
}
_IN_ORDER = tuple(_SHAPES.values())
_TRANSACTION = _SHAPES["transaction"]
_OTHER = Shape(numbers=_NUMBERS)
_FRAME = Shape(noise=frozenset({"revertReason"}), numbers=_NUMBERS)


def fingerprint(method: str, result: bytes) -> bytes:
    """Sixteen bytes: equal for results that mean the same.  `method` keeps answers to different questions apart."""
    form = _form(method, result) if len(result) <= WHOLE_BELOW else result
    return hashlib.blake2b(form, digest_size=16, key=method.encode("utf-8", "replace")[:64]).digest()


def canonical(result: bytes, without: frozenset[str] = frozenset()) -> bytes:
    """The form of a raw result of any chain; `without` names members that say nothing of its meaning."""
    try:
        return _encode(_plain(_decode(result), without))
    except _PROBLEMS:
        return bytes(result)


def _plain(value: Any, without: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {
            name: _plain(member, without)
            for name, member in value.items()
            if name not in without and member is not None
        }
    if isinstance(value, list):
        return [_plain(member, without) for member in value]
    return _text(value, False) if isinstance(value, str) else value


def _form(method: str, result: bytes) -> bytes:
    try:
        return _encode(_shaped(_decode(result), method in _NUMBER_METHODS, method.startswith(_TRACES)))
    except _PROBLEMS:
        return bytes(result)


def _shaped(value: Any, number: bool, trace: bool) -> Any:
    """The form of a value; `number`: the member that it belongs to is one."""
    if isinstance(value, str):
        return _text(value, number)
    if isinstance(value, list):
        return [_shaped(member, number, trace) for member in value]
    if not isinstance(value, dict):
        return value
    shape = _shape_of(value, trace)
    noise, numbers = shape.noise, shape.numbers
    form = {
        name: _shaped(member, name in numbers, trace)
        for name, member in value.items()
        if member is not None and name not in noise
    }
    for name, meaning in shape.same_as_absent:
        if name in form and form[name] == meaning:
            del form[name]
    if shape is _TRANSACTION:
        _settle_signature(form)
    elif trace and isinstance(form.get("error"), str):
        form["error"] = True
    return form


def _shape_of(value: dict[str, Any], trace: bool) -> Shape:
    for shape in _IN_ORDER:
        if shape.mark in value and value.keys() >= shape.members:
            return shape
    return _FRAME if trace else _OTHER


def _settle_signature(form: dict[str, Any]) -> None:
    """A signature's parity once, under `v`; and no chain beside a legacy transaction, whose `v` holds it."""
    parity = form.pop("yParity", None)
    if parity is not None:
        form.setdefault("v", parity)
    if "type" not in form:
        form.pop("chainId", None)


def _text(value: str, number: bool) -> str:
    if value[:2] not in ("0x", "0X") or not _is_hex(value):
        return value
    if number and len(value) > 2:
        return "0x" + (value[2:].lstrip("0").lower() or "0")
    return value.lower()

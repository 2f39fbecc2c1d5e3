"""What the Autobahn suite asks, in short: frames that are sent, and what must come back from an echo.

Always true: a name begins with the number of the suite's case or cases that it stands for; both sides
get the same frames, masked or not as their direction wants.
The suite itself needs Python 2.7.  These need nothing, and so no machine goes without.
Does not belong here: connections (peers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
BAD_FRAME, BAD_TEXT = 1002, 1007

VALID = ("", "Hello", "κόσμε", "\x00\x7f\x80߿ࠀ￿", "\U00010000\U0010ffff", "\ud7ff\ue000�﷐￾")
INVALID = (  # the stress test of Markus Kuhn, shortened: (octets, why)
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", "surrogate"),
    (b"\xf4\x90\x80\x80", "beyond-U+10FFFF"),
    (b"\xf8\x88\x80\x80\x80", "five-octets"),
    (b"\x80", "lone-continuation"),
    (b"\xc0\xaf", "overlong-2"),
    (b"\xe0\x80\xaf", "overlong-3"),
    (b"\xf0\x80\x80\xaf", "overlong-4"),
    (b"\xe2\x82", "cut-short"),
    (b"\xc3 ", "lead-without-tail"),
    (b"\xfe\xff", "never-allowed"),
)
GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
BAD_CODES = (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; `reserved` is the three bits that must be zero."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """`sent` goes out in writes of `chop` octets (0: one write); `back` must come, in order, and then a close.

    The close carries `code`; where that is None, the other side has no reason for one and the case ends
    with a close of ours.  `perhaps` may come before it or be missing: a side that fails may do so at once.
    """

    name: str
    sent: tuple[Frame, ...]
    back: tuple[Frame, ...] = ()
    code: int | None = None
    chop: int = 0
    perhaps: tuple[Frame, ...] = ()

    @property
    def binary(self) -> bool:
        return any(frame.opcode == BINARY for frame in self.sent)


def close(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, code.to_bytes(2, "big") + reason)


def in_pieces(opcode: int, payload: bytes, size: int) -> tuple[Frame, ...]:
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    last = len(pieces) - 1
    return tuple(Frame(CONT if at else opcode, piece, fin=at == last) for at, piece in enumerate(pieces))


def framing() -> Iterator[Case]:
    for opcode, section in ((TEXT, "1.1"), (BINARY, "1.2")):
        for size in (0, 125, 126, 127, 128, 65535, 65536):
            whole = Frame(opcode, b"*" * size)
            yield Case(f"{section}-{size}-octets", (whole,), (whole,))
        yield Case(f"{section}.8-chopped", (Frame(opcode, b"*" * 65536),), (Frame(opcode, b"*" * 65536),), chop=997)
    for reserved in range(1, 8):
        sent = Frame(TEXT, b"Hello"), Frame(TEXT, b"Hello", reserved=reserved), Frame(PING)
        yield Case(f"3.{reserved}-reserved-bits", sent, code=BAD_FRAME, perhaps=sent[:1])
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        sent = Frame(TEXT, b"Hello"), Frame(opcode, b"reserved"), Frame(PING)
        yield Case(f"4-opcode-{opcode}", sent, code=BAD_FRAME, perhaps=sent[:1])
    large = b'{"jsonrpc":"2.0"}' * 61_681  # about a million octets
    for opcode, section in ((TEXT, "9.1.3"), (BINARY, "9.2.3")):
        yield Case(f"{section}-a-megabyte", (Frame(opcode, large),), (Frame(opcode, large),))
    for opcode, section in ((TEXT, "9.3"), (BINARY, "9.4")):
        yield Case(f"{section}-a-megabyte-in-pieces-of-64", in_pieces(opcode, large, 64), (Frame(opcode, large),))
    for chop in (64, 1024):
        yield Case(f"9.5-a-megabyte-chopped-by-{chop}", (Frame(TEXT, large),), (Frame(TEXT, large),), chop=chop)


def pings() -> Iterator[Case]:
    hello = Frame(TEXT, b"Hello")
    for size in (0, 5, 125):
        yield Case(f"2.1-ping-of-{size}", (Frame(PING, b"\xfe" * size),), (Frame(PONG, b"\xfe" * size),))
    yield Case("2.5-ping-of-126", (Frame(PING, b"\xfe" * 126),), code=BAD_FRAME)
    yield Case("2.6-ping-chopped", (Frame(PING, b"\xfe" * 125),), (Frame(PONG, b"\xfe" * 125),), chop=1)
    yield Case("2.8-pong-unasked", (Frame(PONG, b"why"), hello), (hello,))
    yield Case("2.9-pong-then-ping", (Frame(PONG, b"why"), Frame(PING, b"how")), (Frame(PONG, b"how"),))
    ten = tuple(Frame(PING, b"%d" % at) for at in range(10))
    for chop in (0, 1):
        yield Case(f"2.10-ten-pings-by-{chop}", ten, tuple(Frame(PONG, ping.payload) for ping in ten), chop=chop)
    yield Case("5.6-ping-before-a-message", (Frame(PING, b"p"), hello), (Frame(PONG, b"p"), hello))


def fragments() -> Iterator[Case]:
    first, last = Frame(TEXT, b"one", fin=False), Frame(CONT, b"two")
    ping, pong, both = Frame(PING, b"p"), Frame(PONG, b"p"), Frame(TEXT, b"onetwo")
    yield Case("5.1-ping-in-pieces", (Frame(PING, b"a", fin=False), Frame(CONT, b"b")), code=BAD_FRAME)
    yield Case("5.2-pong-in-pieces", (Frame(PONG, b"a", fin=False), Frame(CONT, b"b")), code=BAD_FRAME)
    for chop in (0, 1):
        yield Case(f"5.3-two-pieces-by-{chop}", (first, last), (both,), chop=chop)
        yield Case(f"5.6-ping-between-by-{chop}", (first, ping, last), (pong, both), chop=chop)
    several = first, ping, Frame(CONT, b"and", fin=False), ping, last
    yield Case("5.19-pings-between", several, (pong, pong, Frame(TEXT, b"oneandtwo")))
    yield Case("5.9-continues-nothing", (last,), code=BAD_FRAME)
    yield Case("5.15-continues-nothing-after-a-message", (first, last, last), code=BAD_FRAME, perhaps=(both,))
    yield Case("5.18-a-message-within-a-message", (first, Frame(TEXT, b"two")), code=BAD_FRAME)
    yield Case("6.1-empty-pieces", in_pieces(TEXT, b"", 1), (Frame(TEXT),))
    empty = Frame(TEXT, fin=False), Frame(CONT, b"middle", fin=False), Frame(CONT)
    yield Case("6.1-empty-first-and-last", empty, (Frame(TEXT, b"middle"),))


def texts() -> Iterator[Case]:
    for text in VALID:
        octets = text.encode()
        yield Case(f"6.2-valid-{octets.hex()}", (Frame(TEXT, octets),), (Frame(TEXT, octets),))
        yield Case(f"6.2-by-octet-{octets.hex()}", in_pieces(TEXT, octets, 1), (Frame(TEXT, octets),))
    for octets, why in INVALID:
        yield Case(f"6.3-{why}", (Frame(TEXT, octets),), code=BAD_TEXT)
        yield Case(f"6.3-by-octet-{why}", in_pieces(TEXT, octets, 1), code=BAD_TEXT)
    started = Frame(TEXT, b"\xce\xba\xf4", fin=False), Frame(CONT, b"\x90", fin=False)
    yield Case("6.4-not-finished-and-already-invalid", started, code=BAD_TEXT)
    yield Case("6-invalid-as-text-is-fine-as-binary", (Frame(BINARY, b"\xff\xfe"),), (Frame(BINARY, b"\xff\xfe"),))


def closings() -> Iterator[Case]:
    hello, bye = Frame(TEXT, b"Hello"), close(1000)
    yield Case("7.1.1-message-then-close", (hello, bye), code=1000, perhaps=(hello,))
    yield Case("7.1.2-two-closes", (bye, bye), code=1000)
    yield Case("7.1.3-ping-after-close", (bye, Frame(PING)), code=1000)
    yield Case("7.1.4-message-after-close", (bye, hello), code=1000)
    yield Case("7.1.5-close-between-pieces", (Frame(TEXT, b"one", fin=False), bye, Frame(CONT, b"two")), code=1000)
    yield Case("7.3.1-empty-close", (Frame(CLOSE),), code=0)
    yield Case("7.3.2-close-of-one-octet", (Frame(CLOSE, b"a"),), code=BAD_FRAME)
    yield Case("7.3.5-longest-reason", (close(1000, b"*" * 123),), code=1000)
    yield Case("7.3.6-reason-too-long", (close(1000, b"*" * 124),), code=BAD_FRAME)
    yield Case("7.5.1-reason-not-utf8", (close(1000, INVALID[0][0]),), code=BAD_TEXT)
    for code in GOOD_CODES:
        yield Case(f"7.7-close-{code}", (close(code),), code=code)
    for code in BAD_CODES:
        yield Case(f"7.9-close-{code}", (close(code),), code=BAD_FRAME)


CASES = [*framing(), *pings(), *fragments(), *texts(), *closings()]

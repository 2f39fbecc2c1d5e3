"""Logs: the owner of the standard library's logging configuration.

Always true once `configure_logging` ran: one handler, on the root logger, writes everything, so
every record of every logger (third-party ones, warnings and crashes included) passes through the
redactor; one record is one line in JSON; control bytes never reach the stream, so nobody can forge
a line or drive a terminal; writing a log line never raises and never prints a record unredacted.
Servers must be started without a logging configuration of their own (uvicorn: `log_config=None`).

Does not belong here: what is worth logging (each module), what a secret is (redaction).
"""

from __future__ import annotations

import enum
import json
import logging
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, TextIO

from gateway.telemetry.redaction import Redactor

LogFormat = Literal["json", "console"]

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_FIXED: Final = frozenset({"ts", "level", "logger", "message", "exception", "stack"})
_MAX_DEPTH: Final = 4
_MAX_ITEMS: Final = 64

# At INFO these tell every request once more; asking for DEBUG brings them back.
_CHATTY: Final = ("httpx2", "httpcore2", "httpx", "httpcore", "uvicorn.access", "urllib3", "watchfiles", "hpack")


def configure_logging(
    level: str, form: LogFormat, redactor: Redactor, stream: TextIO | None = None
) -> Callable[[], None]:
    """Take over logging for the whole process; returns a function that puts back what was there.

    `level` is debug, info, warning, error or critical.  `stream` defaults to standard error.
    Uncaught exceptions of any thread are logged too, instead of printed.
    Raises ValueError for an unknown level.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"level must be debug, info, warning, error or critical, got {level!r}")
    target = sys.stderr if stream is None else stream
    handler = RedactingHandler(target)
    colour = target.isatty() and "NO_COLOR" not in os.environ
    handler.setFormatter(JsonFormatter(redactor) if form == "json" else ConsoleFormatter(redactor, colour=colour))
    restore = _take_over(handler, number)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    sys.excepthook, threading.excepthook, sys.unraisablehook = _on_crash, _on_thread_crash, _on_unraisable
    logging.captureWarnings(True)

    def put_back() -> None:
        logging.captureWarnings(False)
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        restore()

    return put_back


def _take_over(handler: logging.Handler, level: int) -> Callable[[], None]:
    """Make `handler` the only one anywhere; returns the undo."""
    root = logging.getLogger()
    before: list[tuple[logging.Logger, list[logging.Handler], bool, int]] = []
    # list(): another thread may create a logger meanwhile.
    known = [each for each in list(root.manager.loggerDict.values()) if isinstance(each, logging.Logger)]
    chatty = [logging.getLogger(name) for name in _CHATTY] if level > logging.DEBUG else []
    for logger in {root, *known, *chatty}:
        before.append((logger, logger.handlers[:], logger.propagate, logger.level))
        logger.handlers[:] = []
        logger.propagate = True
    for logger in chatty:
        logger.setLevel(max(level, logging.WARNING))
    root.handlers[:] = [handler]
    root.setLevel(level)

    def restore() -> None:
        for logger, handlers, propagate, old_level in before:
            logger.handlers[:] = handlers
            logger.propagate = propagate
            logger.setLevel(old_level)

    return restore


def _on_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return  # the operator knows
    logging.getLogger("gateway").critical("uncaught exception", exc_info=(kind, error, trace))


def _on_thread_crash(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("gateway").critical("uncaught exception in a thread", exc_info=info)


def _on_unraisable(args: sys.UnraisableHookArgs) -> None:
    if args.exc_value is not None:
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        logging.getLogger("gateway").error("exception that nobody could catch", exc_info=info)


class RedactingHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream; a record that cannot be written is counted in `lost`, never printed raw.

    The standard handler answers a failure by printing the record's message and arguments, secrets included.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.lost = 0

    def handleError(self, record: logging.LogRecord) -> None:
        self.lost += 1


class _Formatter(logging.Formatter):
    """What both formats share: every piece of text of a record, redacted."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def _message(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception:  # a wrong format string, or a __str__ that fails, must not lose the line
            return f"{self._text(record.msg)} (arguments do not fit)"
        return self._redactor.scrub_log(text)

    def _logger(self, record: logging.LogRecord) -> str:
        return self._redactor.scrub_log(record.name)

    def _trace(self, record: logging.LogRecord) -> str:
        """The exception's text, or an empty string."""
        info = record.exc_info
        if isinstance(info, tuple) and info[1] is not None:
            try:
                text = "".join(traceback.format_exception(info[0], info[1], info[2]))
            except Exception:
                text = f"{type(info[1]).__name__} (cannot be shown)"
        else:
            text = record.exc_text or ""  # set by a queue handler that dropped the exception itself
        return self._redactor.scrub_log(text.rstrip("\n"))

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The extra fields, as plain JSON values, redacted, under names that do not hide the fixed ones."""
        fields: dict[str, Any] = {}
        for key, value in vars(record).items():
            if key not in _STANDARD:
                name = self._redactor.scrub_log(key)
                fields[f"field_{name}" if name in _FIXED else name] = self._field(value)
        return fields

    def _field(self, value: Any) -> Any:
        try:
            return self._plain(value, 0)
        except Exception:  # a mapping that fails while it is read
            return f"{type(value).__name__} (cannot be shown)"

    def _plain(self, value: Any, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return self._plain(value.value, depth)
        if value is None or isinstance(value, int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._redactor.scrub_log(bytes(value).decode("utf-8", "backslashreplace"))
        if depth < _MAX_DEPTH and isinstance(value, Mapping):
            items = list(value.items())[:_MAX_ITEMS]
            return {self._text(key): self._plain(each, depth + 1) for key, each in items}
        if depth < _MAX_DEPTH and isinstance(value, (list, tuple, set, frozenset)):
            return [self._plain(each, depth + 1) for each in list(value)[:_MAX_ITEMS]]
        return self._text(value)

    def _text(self, value: Any) -> str:
        try:
            return self._redactor.scrub_log(str(value))
        except Exception:
            return f"{type(value).__name__} (cannot be shown)"


class JsonFormatter(_Formatter):
    """One JSON object per line: ts (RFC 3339, UTC, milliseconds), level, logger, message, extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": _utc(record.created).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": self._logger(record),
            "message": self._message(record),
        }
        line |= self._fields(record)
        if trace := self._trace(record):
            line["exception"] = trace
        if record.stack_info:
            line["stack"] = self._redactor.scrub_log(record.stack_info)
        # ASCII only, so control bytes, line separators and direction overrides are all escaped.
        return json.dumps(line, separators=(",", ":"), ensure_ascii=True)


class ConsoleFormatter(_Formatter):
    """For people: `12:34:56.789 INFO    gateway.edge  message key=value`, traces indented below it."""

    _COLOURS: Final = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}

    def __init__(self, redactor: Redactor, *, colour: bool = False) -> None:
        super().__init__(redactor)
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname[:8]:<8}"
        if self._colour and (code := self._COLOURS.get(record.levelname)):
            level = f"\x1b[{code}m{level}\x1b[0m"
        pieces = [
            _utc(record.created).strftime("%H:%M:%S.") + f"{int(record.msecs):03d}",
            level,
            f"{_visible(self._logger(record)):<20}",
            _visible(self._message(record)),
        ]
        pieces += [f"{_visible(key)}={_shown(value)}" for key, value in self._fields(record).items()]
        lines = [" ".join(pieces)]
        for text in (self._trace(record), self._redactor.scrub_log(record.stack_info or "")):
            # Indented and barred, so that no line of an exception's text looks like a record.
            lines += [f"    | {_visible(line)}" for line in text.split("\n")] if text else []
        return "\n".join(lines)


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _visible(text: str) -> str:
    """`text` with everything that a terminal would act on (control, direction, separators) written out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _shown(value: Any) -> str:
    """A field's value on the console: bare when that is unambiguous, else as JSON."""
    if isinstance(value, str) and value and not any(char in value for char in " \"'=\\"):
        return _visible(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


class RateLimited:
    """Lets one repeating event through at most `at_most` times per `interval`, and counts the rest.

    Events are told apart by a key from a closed set (names, not texts); past `MAX_EVENTS` keys the
    oldest is forgotten.  `now` is in monotonic seconds.
    """

    MAX_EVENTS: Final = 1024

    __slots__ = ("_at_most", "_events", "_interval")

    def __init__(self, at_most: int = 5, interval: float = 60.0) -> None:
        """`at_most` >= 1 lines per `interval` > 0 seconds."""
        if at_most < 1 or interval <= 0:
            raise ValueError("at_most must be at least 1 and interval above 0")
        self._at_most = at_most
        self._interval = interval
        self._events: dict[str, list[float]] = {}  # key -> [start of the interval, let through, swallowed]

    def allow(self, event: str, now: float) -> int | None:
        """None: swallow this one.  Else log it, and say how many were swallowed since the last one logged."""
        entry = self._events.get(event)
        if entry is None:
            if len(self._events) >= self.MAX_EVENTS:
                del self._events[next(iter(self._events))]
            self._events[event] = [now, 1, 0]
            return 0
        if now - entry[0] >= self._interval:
            swallowed = int(entry[2])
            entry[:] = [now, 1, 0]
            return swallowed
        if entry[1] < self._at_most:
            entry[1] += 1
            return 0
        entry[2] += 1
        return None

    def log(self, logger: logging.Logger, level: int, message: str, now: float, **fields: Any) -> None:
        """Log `message` with `fields`, the message itself being the event; adds `swallowed` when there is one."""
        swallowed = self.allow(message, now)
        if swallowed is not None:
            logger.log(level, message, extra=fields | ({"swallowed": swallowed} if swallowed else {}))

    def settle(self, now: float) -> list[tuple[str, int]]:
        """Events whose interval ended with some swallowed and none since: (key, how many).  Forgets them.

        Called from housekeeping, so that the end of a storm is told although nothing follows it.
        """
        ended = [key for key, entry in self._events.items() if now - entry[0] >= self._interval]
        entries = [(key, int(self._events.pop(key)[2])) for key in ended]
        return [(key, swallowed) for key, swallowed in entries if swallowed]

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry.logs import ConsoleFormatter, JsonFormatter, RateLimited, configure_logging
from gateway.telemetry.redaction import MASK, TEXT_LIMIT, Redactor

Start = Callable[..., io.StringIO]
Silent = Callable[[str], None]
FORMATS = ("json", "console")


# --- nothing escapes ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_no_encoding_of_a_canary_reaches_a_line(
    form: str, encode: Callable[[str], str], logging_to: Start, canaries: tuple[str, ...], assert_silent: Silent
) -> None:
    stream = logging_to(form)
    for canary in canaries:
        encoded = encode(canary)
        extra: dict[str, Any] = {
            "text": encoded,
            "raw": encoded.encode(),
            "nested": {"deep": [encoded, {encoded: (encoded,)}]},
            "object": ValueError(encoded),
            encoded: 1,
        }
        logging.getLogger("gateway.x").warning("seen %s", encoded, extra=extra)
        logging.getLogger("named." + encoded).warning("by a logger's name")
    text = stream.getvalue()
    assert text.count(MASK) >= 6 * len(canaries)
    assert_silent(text)


@pytest.mark.parametrize("form", FORMATS)
def test_no_canary_in_exceptions_their_causes_notes_and_stacks(
    form: str, logging_to: Start, canaries: tuple[str, ...], assert_silent: Silent
) -> None:
    stream = logging_to(form)
    for canary in canaries:
        try:
            try:
                raise KeyError(canary)
            except KeyError as cause:
                error = ValueError(f"https://host/v3/{canary}")
                error.add_note(canary)
                raise error from cause
        except ValueError:
            logging.getLogger("x").exception("failed", stack_info=True)
    text = stream.getvalue()
    assert "ValueError" in text and "KeyError" in text
    assert_silent(text)


@pytest.mark.parametrize("form", FORMATS)
def test_third_party_loggers_cannot_bypass_the_redactor(
    form: str, logging_to: Start, canaries: tuple[str, ...], assert_silent: Silent
) -> None:
    own = io.StringIO()
    chatty = logging.getLogger("thirdparty.http")
    chatty.addHandler(logging.StreamHandler(own))
    chatty.propagate = False
    stream = logging_to(form)
    logging.getLogger("httpx2").info("HTTP Request: POST https://h/v3/%s", canaries[0])
    chatty.warning("POST https://user:%s@host/", canaries[0])
    warnings.showwarning(f"a warning about {canaries[0]}", UserWarning, "x.py", 1)
    text = stream.getvalue()
    assert own.getvalue() == ""
    assert "HTTP Request" in text and "user:" not in text and "a warning about" in text
    assert_silent(text)


@pytest.mark.parametrize("form", FORMATS)
def test_a_crash_is_logged_redacted_instead_of_printed(
    form: str, logging_to: Start, canaries: tuple[str, ...], assert_silent: Silent, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = logging_to(form)

    def crash() -> None:
        raise RuntimeError(canaries[0])

    thread = threading.Thread(target=crash)
    thread.start()
    thread.join()
    try:
        crash()
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    text = stream.getvalue()
    assert text.count("RuntimeError: ***") == 2
    assert_silent(text + "".join(capfd.readouterr()))


@pytest.mark.parametrize("form", FORMATS)
def test_a_record_that_does_not_fit_its_format_is_still_a_redacted_line(
    form: str, logging_to: Start, canaries: tuple[str, ...], assert_silent: Silent, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError(canaries[0])

    stream = logging_to(form)
    log = logging.getLogger("x")
    log.warning("%s %s %d " + canaries[0], canaries[0])
    log.warning(Broken())
    log.warning("fine", extra={"field": Broken()})
    text = stream.getvalue()
    assert "do not fit" in text and "Broken (cannot be shown)" in text and text.count("\n") == 3
    assert_silent(text + "".join(capfd.readouterr()))


def test_a_closed_stream_neither_raises_nor_prints(redactor: Redactor, capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    put_back = configure_logging("info", "json", redactor, stream)
    try:
        stream.close()
        logging.getLogger("x").error("lost")
    finally:
        put_back()
    assert capfd.readouterr() == ("", "")


# --- lines ----------------------------------------------------------------------------------------


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("gateway.edge").makeRecord(
        "gateway.edge", logging.INFO, "f", 1, message, (), None, extra=extra
    )
    made.created, made.msecs = 1767323045.678, 678.0
    return made


def test_a_json_line_holds_time_level_logger_message_and_fields() -> None:
    line = json.loads(
        JsonFormatter(Redactor()).format(record("call answered", route="eth", ms=1.5, ok=True, none=None))
    )
    assert line == {
        "ts": "2026-01-02T03:04:05.678Z",
        "level": "info",
        "logger": "gateway.edge",
        "message": "call answered",
        "route": "eth",
        "ms": 1.5,
        "ok": True,
        "none": None,
    }


def test_a_console_line_is_aligned_and_says_its_fields() -> None:
    text = ConsoleFormatter(Redactor()).format(record("call answered", route="eth", why="a b", n=1))
    assert text == '03:04:05.678 INFO     gateway.edge         call answered route=eth why="a b" n=1'


def test_colour_is_for_levels_only() -> None:
    warning = record("\x1b[31mred")
    warning.levelname = "WARNING"
    text = ConsoleFormatter(Redactor(), colour=True).format(warning)
    assert text.startswith("03:04:05.678 \x1b[33mWARNING \x1b[0m ") and text.endswith("\\x1b[31mred")


def test_fields_cannot_hide_the_fixed_ones() -> None:
    line = json.loads(JsonFormatter(Redactor()).format(record("m", ts=1, level="x", logger="y", exception="z")))
    assert (line["level"], line["field_level"], line["field_ts"], line["field_exception"]) == ("info", "x", 1, "z")


def test_numbers_that_json_does_not_know_become_text() -> None:
    text = JsonFormatter(Redactor()).format(record("m", a=float("nan"), b=float("inf"), c=-float("inf")))
    line = json.loads(text, parse_constant=pytest.fail)
    assert (line["a"], line["b"], line["c"]) == ("nan", "inf", "-inf")


FORGERIES = (
    'x\n{"ts":"2026-01-01T00:00:00.000Z","level":"critical"}',
    "x\r\n12:00:00.000 ERROR    gateway  forged",
    "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\x00",
    "\u2028forged\u2029\x85\x0b\x0c\x1c",
    "\u202egnirts\u2066",
    "\ud800",
)


@pytest.mark.parametrize("text", FORGERIES)
@pytest.mark.parametrize("form", FORMATS)
def test_no_text_can_forge_a_line_or_drive_a_terminal(form: str, text: str, logging_to: Start) -> None:
    stream = logging_to(form)
    logging.getLogger("x" + text).info(text, extra={"field": text, "key" + text: {"a" + text: text}})
    written = stream.getvalue()
    assert written.count("\n") == 1 and len(written.splitlines()) == 1
    assert written[:-1].isprintable()


@given(text=st.text())
def test_any_message_is_one_printable_line(text: str) -> None:
    for formatter in (JsonFormatter(Redactor()), ConsoleFormatter(Redactor())):
        line = formatter.format(record(text, field=text))
        assert line.isprintable()
    assert json.loads(JsonFormatter(Redactor()).format(record("m", field=text)))["field"] == Redactor().scrub(text)


def test_an_exception_on_the_console_cannot_look_like_a_record(logging_to: Start) -> None:
    stream = logging_to("console")
    try:
        raise ValueError("\n12:00:00.000 ERROR    gateway  forged\x1b[0m")
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("failed")
    assert rest and all(line.startswith("    | ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("form", FORMATS)
def test_a_huge_message_is_bounded(form: str, logging_to: Start) -> None:
    stream = logging_to(form)
    logging.getLogger("x").info("a" * 5_000_000, extra={"many": list(range(10_000))})
    assert len(stream.getvalue()) < TEXT_LIMIT + 4096


# --- taking over ----------------------------------------------------------------------------------


def test_logging_is_given_back_as_it_was(redactor: Redactor) -> None:
    root, other = logging.getLogger(), logging.getLogger("some.library")
    own = logging.NullHandler()
    other.addHandler(own)
    other.propagate = False
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    configure_logging("warning", "json", redactor, io.StringIO())()
    assert before == (root.handlers[:], root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    assert other.handlers == [own] and other.propagate is False
    other.removeHandler(own)
    other.propagate = True


def test_requests_are_not_told_twice_unless_debugging(logging_to: Start) -> None:
    stream = logging_to("json", "info")
    logging.getLogger("httpx2").info("HTTP Request")
    logging.getLogger("gateway").debug("hidden")
    logging.getLogger("gateway").info("shown")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["shown"]


def test_an_unknown_level_is_refused(redactor: Redactor) -> None:
    with pytest.raises(ValueError, match="level must be"):
        configure_logging("loud", "json", redactor, io.StringIO())


# --- storms ---------------------------------------------------------------------------------------


def test_a_repeating_event_is_logged_n_times_per_interval_and_the_rest_counted() -> None:
    limited = RateLimited(at_most=3, interval=10.0)
    assert [limited.allow("down", 100.0 + i) for i in range(6)] == [0, 0, 0, None, None, None]
    assert limited.allow("other", 105.0) == 0
    assert limited.allow("down", 110.0) == 3
    assert limited.allow("down", 110.1) == 0


def test_the_end_of_a_storm_is_told_although_nothing_follows() -> None:
    limited = RateLimited(at_most=1, interval=10.0)
    for second in range(5):
        limited.allow("down", float(second))
    assert limited.settle(9.0) == []
    assert limited.settle(10.0) == [("down", 4)]
    assert limited.settle(11.0) == []


def test_many_different_events_do_not_grow_memory() -> None:
    limited = RateLimited()
    for number in range(10 * RateLimited.MAX_EVENTS):
        limited.allow(str(number), 0.0)
    assert len(limited.settle(1e9)) == 0
    assert len(limited._events) <= RateLimited.MAX_EVENTS


def test_a_rate_limited_line_says_how_many_it_swallowed(logging_to: Start) -> None:
    stream = logging_to("json")
    limited = RateLimited(at_most=1, interval=1.0)
    for now in (0.0, 0.5, 0.6, 1.0):
        limited.log(logging.getLogger("x"), logging.WARNING, "down", now, endpoint="a")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["endpoint"], line.get("swallowed")) for line in lines] == [("a", None), ("a", 2)]


@given(
    events=st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 5)), max_size=60),
    at_most=st.integers(1, 4),
)
def test_every_event_is_either_logged_or_counted_once(events: list[tuple[str, float]], at_most: int) -> None:
    limited = RateLimited(at_most=at_most, interval=3.0)
    now, logged, told = 0.0, 0, 0
    for name, step in events:
        now += step
        swallowed = limited.allow(name, now)
        if swallowed is not None:
            logged += 1
            told += swallowed
    told += sum(count for _, count in limited.settle(now + 3.001))  # a little more: now + 3.0 may round down
    assert logged + told == len(events)

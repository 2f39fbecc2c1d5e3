"""What is read of rate limits: from headers in the forms that vendors use, and from a refusal's words."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from gateway.dialect.ratelimits import (
    LONGEST_RESET,
    MOST_CHARACTERS,
    MOST_HEADERS,
    LimitsSaid,
    limits_said,
    quota_period,
    wait_said,
)

WALL = 1_780_000_000.0  # May 2026
Headers = list[tuple[bytes, bytes]]


def headers(**fields: str) -> Headers:
    """Header fields from arguments; an underscore stands for a hyphen."""
    return [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in fields.items()]


# --- headers ----------------------------------------------------------------------------------------

THREE = {
    "seconds": ("100", "7", "30", LimitsSaid(100, 7, 30)),
    "an instant": ("100", "7", "1780000030", LimitsSaid(100, 7, 30)),
    "an instant in milliseconds": ("100", "7", "1780000030500", LimitsSaid(100, 7, 30.5)),
    "a fraction": ("100", "7", "0.25", LimitsSaid(100, 7, 0.25)),
    "nothing left": ("100", "0", "59", LimitsSaid(100, 0, 59)),
    "spaces": (" 100 ", "7 ", "\t30", LimitsSaid(100, 7, 30)),
    "policies beside the limit": ("100, 100;w=60, 1000;w=3600", "7", "30", LimitsSaid(100, 7, 30)),
    "a month": ("100", "7", "2592000", LimitsSaid(100, 7, 2_592_000)),
}


@pytest.mark.parametrize("prefix", ["x-ratelimit", "ratelimit", "x-rate-limit", "rate-limit"])
@pytest.mark.parametrize(("limit", "remaining", "reset", "expected"), THREE.values(), ids=THREE.keys())
def test_limit_remaining_and_reset_are_read_under_each_of_their_names(
    prefix: str, limit: str, remaining: str, reset: str, expected: LimitsSaid
) -> None:
    fields = zip(("limit", "remaining", "reset"), (limit, remaining, reset), strict=True)
    told = [(f"{prefix}-{name}".encode(), value.encode()) for name, value in fields]
    assert limits_said(told, WALL) == limits_said(told[::-1], WALL) == expected


ONE = {
    "draft 7": (headers(ratelimit="limit=100, remaining=50, reset=5"), LimitsSaid(100, 50, 5)),
    "draft 7 with semicolons": (headers(ratelimit="limit=100; remaining=50; reset=5"), LimitsSaid(100, 50, 5)),
    "draft 8, no policy": (headers(ratelimit='"default";r=50;t=30'), LimitsSaid(None, 50, 30)),
    "draft 8": (
        headers(ratelimit='"default";r=50;t=30', ratelimit_policy='"default";q=100;w=60'),
        LimitsSaid(100, 50, 30),
    ),
    "draft 8, two policies": (
        headers(
            ratelimit_policy='"burst";q=100;w=60, "daily";q=1000;w=86400',
            ratelimit='"burst";r=50;t=30, "daily";r=20;t=4000',
        ),
        LimitsSaid(1000, 20, 4000),
    ),
    "draft 8, and a stranger in it": (headers(ratelimit='"default";r=50;t=30, limit=3'), LimitsSaid(None, 50, 30)),
    "draft 8, a bare word and a partition": (headers(ratelimit="burst;r=0;t=3;pk=:xyz:"), LimitsSaid(None, 0, 3)),
}


@pytest.mark.parametrize(("told", "expected"), ONE.values(), ids=ONE.keys())
def test_one_field_that_says_it_all_is_read(told: Headers, expected: LimitsSaid) -> None:
    assert limits_said(told, WALL) == expected


PERIODS = {
    "Kong's second and day": (
        headers(
            x_ratelimit_limit_second="5",
            x_ratelimit_remaining_second="4",
            x_ratelimit_limit_day="1000",
            x_ratelimit_remaining_day="100",
        ),
        LimitsSaid(1000, 100, None, "day"),
    ),
    "the second is tighter": (
        headers(
            x_ratelimit_limit_second="5",
            x_ratelimit_remaining_second="0",
            x_ratelimit_limit_day="1000",
            x_ratelimit_remaining_day="100",
        ),
        LimitsSaid(5, 0, None, "second"),
    ),
    "both are used up: the longer counts": (
        headers(
            x_ratelimit_limit_second="5",
            x_ratelimit_remaining_second="0",
            x_ratelimit_limit_month="1000",
            x_ratelimit_remaining_month="0",
        ),
        LimitsSaid(1000, 0, None, "month"),
    ),
    "the period first": (
        headers(x_ratelimit_daily_limit="1000", x_ratelimit_daily_remaining="1"),
        LimitsSaid(1000, 1, None, "day"),
    ),
    "Solana's requests a second": (
        headers(x_ratelimit_rps_limit="100", x_ratelimit_rps_remaining="25"),
        LimitsSaid(100, 25, None, "second"),
    ),
    "what is left counts before what is only allowed": (
        headers(x_ratelimit_limit_day="1000", x_ratelimit_limit_second="5", x_ratelimit_remaining_second="5"),
        LimitsSaid(5, 5, None, "second"),
    ),
    "only what is allowed": (headers(x_ratelimit_limit_minute="300"), LimitsSaid(300, None, None, "minute")),
    "a window beside the limit, and no reset": (
        headers(x_ratelimit_limit='10, 10;w=60;name="all"', x_ratelimit_remaining="0"),
        LimitsSaid(10, 0, 60),
    ),
}


@pytest.mark.parametrize(("told", "expected"), PERIODS.values(), ids=PERIODS.keys())
def test_of_several_limits_the_tightest_comes_out_with_its_period(told: Headers, expected: LimitsSaid) -> None:
    assert limits_said(told, WALL) == limits_said(told[::-1], WALL) == expected


@pytest.mark.parametrize("scope", ["method", "conn", "endpoint", "pubkey", "tokens", "until"])
def test_a_limit_of_one_method_connection_or_key_is_none_of_the_account(scope: str) -> None:
    told = [(f"x-ratelimit-{scope}-remaining".encode(), b"0"), (f"x-ratelimit-remaining-{scope}".encode(), b"0")]
    assert limits_said(told, WALL) is None
    account = headers(x_ratelimit_limit="100", x_ratelimit_remaining="90")
    assert limits_said(told + account, WALL) == LimitsSaid(100, 90)


ODD_VALUES = ["", "-1", "unlimited", "1e3", "0x10", "NaN", "inf", "1 000", "9" * 16, "\xb9", "1.", "1s"]
ODD_RESETS = ["1779999970", "2800000", "99999999", "1790000000", "1779999970000", *ODD_VALUES]
"""Past, further away than a month, or no number."""


@pytest.mark.parametrize("odd", ODD_VALUES)
def test_an_odd_number_counts_as_not_said(odd: str) -> None:
    told = headers(x_ratelimit_limit=odd, x_ratelimit_remaining="0", x_ratelimit_reset="30")
    assert limits_said(told, WALL) == LimitsSaid(None, 0, 30)
    told = headers(x_ratelimit_limit="100", x_ratelimit_remaining=odd, x_ratelimit_reset="30")
    assert limits_said(told, WALL) == LimitsSaid(100, None, 30)
    assert limits_said(headers(x_ratelimit_limit=odd, x_ratelimit_remaining=odd), WALL) is None


@pytest.mark.parametrize("odd", ODD_RESETS)
def test_a_reset_that_is_past_too_far_away_or_no_number_counts_as_not_said(odd: str) -> None:
    told = headers(x_ratelimit_limit="100", x_ratelimit_remaining="0", x_ratelimit_reset=odd)
    assert limits_said(told, WALL) == LimitsSaid(100, 0)


@pytest.mark.parametrize(
    "told",
    [
        headers(x_ratelimit_limit="10", x_ratelimit_remaining="11", x_ratelimit_reset="5"),
        headers(x_ratelimit_limit="0", x_ratelimit_remaining="0", x_ratelimit_reset="5"),
        headers(ratelimit="limit=10, remaining=11, reset=5"),
        headers(x_ratelimit_reset="5"),
        headers(ratelimit="limit=ten, remaining=, reset"),
        headers(ratelimit=";;;,,,==="),
        headers(ratelimit_policy='"default";q=100;w=60'),
        headers(x_ratelimit_limit_remaining="0"),
        headers(x_ratelimit_remaining_second_day="0"),
        headers(x_speed_limit="0", limit="0", x_unlimited="0"),
    ],
)
def test_numbers_that_contradict_each_other_and_names_that_say_nothing_tell_nothing(told: Headers) -> None:
    assert limits_said(told, WALL) is None


def test_no_more_is_read_than_a_bounded_number_of_fields_and_characters() -> None:
    told = headers(x_ratelimit_remaining="0")
    assert limits_said([(b"x-filler", b"")] * (MOST_HEADERS - 1) + told, WALL) == LimitsSaid(None, 0)
    assert limits_said([(b"x-filler", b"")] * MOST_HEADERS + told, WALL) is None
    assert limits_said(headers(x_ratelimit_remaining="0" + " " * MOST_CHARACTERS), WALL) is None


NAMES = st.sampled_from(
    [
        *(
            f"{prefix}-{word}{suffix}".encode()
            for prefix in ("x-ratelimit", "ratelimit", "x-rate-limit")
            for word in ("limit", "remaining", "reset")
            for suffix in ("", "-second", "-minute", "-day", "-month", "-method")
        ),
        b"ratelimit",
        b"ratelimit-policy",
        b"x-ratelimit",
        b"limit",
    ]
)
TOKENS = st.sampled_from(
    [
        *("0", "1", "100", "60", "1780000030", "1780000030000", "9" * 30, "inf", "nan", "e9"),
        *("limit=", "remaining=", "reset=", '"d"', ";r=", ";t=", ";q=", ";w=", ",", ";", "=", " ", "-", "."),
        *("\xff", "\x00"),
    ]
)
VALUES = st.lists(TOKENS, max_size=12).map(lambda tokens: "".join(tokens).encode("latin-1")) | st.binary(max_size=20)


@given(st.lists(st.tuples(NAMES | st.binary(max_size=20), VALUES), max_size=12), st.floats(0, 4e9))
@examples(max_examples=400)
@example([(b"x-ratelimit-reset", b"1" * 15), (b"x-ratelimit-remaining", b"0")], 0.0)
def test_whatever_comes_in_what_comes_out_is_in_its_bounds(told: Headers, wall: float) -> None:
    said = limits_said(told, wall)
    if said is None:
        return
    assert said.limit is not None or said.remaining is not None
    assert said.limit is None or 0 < said.limit < 1e15
    assert said.remaining is None or 0 <= said.remaining <= (said.limit or 1e15)
    assert said.reset_after is None or 0 <= said.reset_after <= LONGEST_RESET
    assert said.period in (None, "second", "minute", "hour", "day", "month")
    assert 0 <= said.share <= 1


@given(st.integers(1, 10**9), st.integers(0, 10**9), st.integers(0, int(LONGEST_RESET)))
@examples(max_examples=100)
def test_all_forms_of_one_limit_say_the_same(limit: int, remaining: int, reset: int) -> None:
    remaining = min(limit, remaining)
    epoch = int(WALL) + reset
    forms = [
        headers(x_ratelimit_limit=f"{limit}", x_ratelimit_remaining=f"{remaining}", x_ratelimit_reset=f"{reset}"),
        headers(x_rate_limit_limit=f"{limit}", x_rate_limit_remaining=f"{remaining}", x_rate_limit_reset=f"{epoch}"),
        headers(ratelimit_limit=f"{limit}", ratelimit_remaining=f"{remaining}", ratelimit_reset=f"{epoch}000"),
        headers(ratelimit=f"limit={limit}, remaining={remaining}, reset={reset}"),
        headers(ratelimit=f'"a";r={remaining};t={reset}', ratelimit_policy=f'"a";q={limit};w=60'),
    ]
    assert {limits_said(form, WALL) for form in forms} == {LimitsSaid(limit, remaining, reset)}


# --- words ------------------------------------------------------------------------------------------

WORDS = [
    ("daily request count exceeded, request rate limited", "day"),
    ("Daily credit limit reached", "day"),
    ("You have used all of your daily compute units", "day"),
    ("rate limit: 100000 requests per day", "day"),
    ("quota of 1000000 credits/day exceeded", "day"),
    ("limit reached for today, try again tomorrow", "day"),
    ("limit of requests in 24 hours reached", "day"),
    ("Monthly capacity limit exceeded. Visit https://vendor.example/settings/billing to upgrade", "month"),
    ("monthly request quota used up", "month"),
    ("You've reached the limit of 40M compute units per month", "month"),
    ("your credits for this month are used up", "month"),
    ("quota of the billing period is used up", "month"),
    ("project ID request rate exceeded", "second"),
    ("25/second request limit reached - reduce calls per second or upgrade", "second"),
    ("Your app has exceeded its compute units per second capacity", "second"),
    ("credits limited to 500/sec", "second"),
    ("requests limited to 30 rps", "second"),
    ("You reached the maximum CUPS for the plan", "second"),
    ("not enough CUPs", "second"),
    ("Too many requests, limit is 10 per second per IP", "second"),
    ("300/minute request limit reached", "minute"),
    ("exceeded 1000 requests per minute", "minute"),
    ("You may make 5000 calls per hour", "hour"),
    ("hourly request limit exceeded", "hour"),
]
SILENT = [
    "", "Too many requests", "rate limit", "limit exceeded", "throttled", "under too much load",
    "service overloaded", "No server available", "call rate limit exhausted", "enhance_your_calm",
    "cannot fulfill request", "timeout on the free tier", "reached the free tier", "limit for your current plan",
    "Exceeded the quota", "reached the quota", "upgrade your tier", "usage limit for your current plan",
    "maximum API usage limit", "insufficient credits", "see https://vendor.example/limits/100/day",
    "invalid second argument", "the seconds field is missing", "within a secondary index", "holiday", "Monday",
    "payday limit", "a daybreak", "monthlyish", "per secondary", "1/secret",
]  # fmt: skip


@pytest.mark.parametrize(("message", "period"), WORDS)
def test_a_vendors_words_tell_how_long_a_refusal_lasts(message: str, period: str) -> None:
    assert quota_period(message) == quota_period(message.upper()) == period


@pytest.mark.parametrize("message", SILENT)
def test_words_that_name_no_period_tell_none(message: str) -> None:
    assert quota_period(message) is None


def test_what_is_named_first_counts_because_advice_follows() -> None:
    assert quota_period("10 requests per second reached; your monthly quota is 3M") == "second"
    assert quota_period("monthly quota reached; plans from 10 requests per second") == "month"


@given(st.text(max_size=2000))
@examples(max_examples=200)
def test_any_words_are_read_and_only_their_beginning(message: str) -> None:
    assert quota_period(message) in (None, "second", "minute", "hour", "day", "month")
    assert quota_period("x" * MOST_CHARACTERS + " daily limit " + message) is None


WAITS = [
    ("call rate limit exhausted, retry in 10s", b"", 10.0),
    ("Too many requests. Please try again in 250ms", b"", 0.25),
    ("rate limit exceeded, retry after 1.5 seconds", b"", 1.5),
    ("slow down: wait at least 2 minutes", b"", 120.0),
    ("Please retry after: 3 sec.", b"", 3.0),
    ("project ID request rate exceeded", b'{"rate":{"allowed_rps":1,"backoff_seconds":30,"current_rps":2.1}}', 30.0),
    ("limit exceeded", b'{"retry_after": 7}', 7.0),
    ("limit exceeded", b'{"retryAfter": "7"}', 7.0),
    ("limit exceeded", b'{"reason":"x","retry_after_ms":1500}', 1.5),
    ("You've exceeded the RPS limit", b'{"see":"https://vendor.example","try_again_in":"710.5ms"}', 0.7105),
    ("You've exceeded the RPS limit", b'{"try_again_in":"1m2.5s"}', 62.5),
    ("retry in 5s", b'{"backoff_seconds":9}', 9.0),  # a number that is meant for programs comes first
]
NO_WAITS = [
    ("", b""), ("retry later", b""), ("retry in a while", b""), ("retry 3 times", b""), ("retry in 0s", b""),
    ("wait for 5 confirmations", b""), ("see https://vendor.example/retry in 10s", b'{"retry_after":-1}'),
    ("limit", b'{"retry_after":true}'), ("limit", b'{"retry_after":{"x":1}}'), ("limit", b'{"retry_after":1e300}'),
    ("limit", b'{"retry_after":'), ("limit", b"[1]"), ("limit", b'"retry_after"'), ("limit", b'{"retry_after":0}'),
    ("retry in 99999999999999s", b""),
]  # fmt: skip


@pytest.mark.parametrize(("message", "data", "seconds"), WAITS)
def test_a_refusal_tells_when_to_come_back_in_words_or_in_its_data(message: str, data: bytes, seconds: float) -> None:
    assert wait_said(message, data) == pytest.approx(seconds)


@pytest.mark.parametrize(("message", "data"), NO_WAITS)
def test_a_refusal_that_names_no_time_tells_none(message: str, data: bytes) -> None:
    assert wait_said(message, data) is None


@given(st.text(max_size=600), st.binary(max_size=600))
@examples(max_examples=200)
def test_whatever_a_refusal_says_its_wait_is_none_or_at_most_a_month(message: str, data: bytes) -> None:
    for text in (message, f"retry in {message}"):
        for value in (data, b'{"retry_after":' + data + b"}"):
            seconds = wait_said(text, value)
            assert seconds is None or 0 < seconds <= LONGEST_RESET

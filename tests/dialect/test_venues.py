"""Exchanges as files: what requests are, what answers mean, and that nothing unlisted is ever repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialect.venue import Use, Word, read_venue, venue_named, venue_names
from gateway.dialect.venue_answers import Answers
from gateway.dialect.venue_requests import Requests
from gateway.model import RequestClass

VENUES = {name: venue for name in venue_names() if (venue := venue_named(name)) is not None}
REQUESTS = {name: Requests(venue) for name, venue in VENUES.items()}
ANSWERS = {name: Answers(venue) for name, venue in VENUES.items()}
SIXTEEN = (
    "binance binance_usdm binance_us coinbase_exchange coinbase_advanced kraken kucoin mexc bitget okx bybit gate "
    "gemini dydx hyperliquid robinhood"
)

ORDERS = {
    "binance": ("POST /api/v3/order", b"symbol=BTCUSDT&newClientOrderId=c1&timestamp=1700000000000&signature=f",
                "GET /api/v3/order?symbol=BTCUSDT&origClientOrderId=c1"),
    "binance_us": ("POST /api/v3/order", b"symbol=BTCUSD&newClientOrderId=c1&signature=f",
                   "GET /api/v3/order?symbol=BTCUSD&origClientOrderId=c1"),
    "binance_usdm": ("POST /fapi/v1/order", b"symbol=BTCUSDT&newClientOrderId=c1&signature=f",
                     "GET /fapi/v1/order?symbol=BTCUSDT&origClientOrderId=c1"),
    "bitget": ("POST /api/v2/spot/trade/place-order", b'{"symbol":"BTCUSDT","clientOid":"c1"}',
               "GET /api/v2/spot/trade/orderInfo?clientOid=c1"),
    "bybit": ("POST /v5/order/create", b'{"category":"spot","symbol":"BTCUSDT","orderLinkId":"c1"}',
              "GET /v5/order/realtime?category=spot&symbol=BTCUSDT&orderLinkId=c1"),
    "coinbase_advanced": ("POST /api/v3/brokerage/orders", b'{"client_order_id":"c1","product_id":"BTC-USD"}', "c1"),
    "coinbase_exchange": ("POST /orders", b'{"client_oid":"c1","product_id":"BTC-USD"}', "GET /orders/client:c1"),
    "gate": ("POST /api/v4/spot/orders", b'{"text":"t-c1","currency_pair":"BTC_USDT"}',
             "GET /api/v4/spot/orders/t-c1?currency_pair=BTC_USDT"),
    "gemini": ("POST /v1/order/new", b"", "POST /v1/order/status"),
    "hyperliquid": ("POST /exchange", b'{"action":{"type":"order","orders":[{"c":"0xc1"}]},"nonce":1}', "0xc1"),
    "kraken": ("POST /0/private/AddOrder", b"nonce=1&pair=XBTUSD&cl_ord_id=c1", "cl_ord_id=c1"),
    "kucoin": ("POST /api/v1/hf/orders", b'{"clientOid":"c1","symbol":"BTC-USDT"}',
               "GET /api/v1/hf/orders/client-order/c1?symbol=BTC-USDT"),
    "mexc": ("POST /api/v3/order", b"symbol=BTCUSDT&newClientOrderId=c1&signature=f",
             "GET /api/v3/order?symbol=BTCUSDT&origClientOrderId=c1"),
    "okx": ("POST /api/v5/trade/order", b'{"instId":"BTC-USDT","clOrdId":"c1"}',
            "GET /api/v5/trade/order?instId=BTC-USDT&clOrdId=c1"),
    "robinhood": ("POST /api/v1/crypto/trading/orders/", b'{"client_order_id":"c1","symbol":"BTC-USD"}', "c1"),
}  # fmt: skip

WORDS = [
    # venue, status, body, write, word, settled
    ("binance", 500, b'{"code":-1000,"msg":"x"}', True, Word.UNKNOWN, False),
    ("binance", 400, b'{"code":-1006,"msg":"x"}', True, Word.UNKNOWN, False),
    ("binance", 400, b'{"code":-1007,"msg":"x"}', True, Word.UNKNOWN, False),
    ("binance", 504, b"<html>", True, Word.UNKNOWN, False),
    ("binance", 429, b'{"code":-1003,"msg":"Too many"}', True, Word.THROTTLED, True),
    ("binance", 400, b'{"code":-1015,"msg":"Too many new orders"}', True, Word.THROTTLED, True),
    ("binance", 418, b'{"code":-1003,"msg":"IP banned until 1700000100000."}', False, Word.BANNED, True),
    ("binance", 451, b'{"code":0,"msg":"restricted location"}', False, Word.REGION, True),
    ("binance", 400, b'{"code":-2010,"msg":"Duplicate order sent."}', True, Word.DUPLICATE, True),
    ("binance", 400, b'{"code":-2010,"msg":"insufficient balance"}', True, Word.REFUSED, True),
    ("binance", 400, b'{"code":-1021,"msg":"x"}', True, Word.CLOCK, True),
    ("binance", 400, b'{"code":-2013,"msg":"Order does not exist."}', False, Word.REFUSED, True),
    ("binance_usdm", 503, b'{"msg":"Unknown error, please check your request or try again later."}', True,
     Word.UNKNOWN, False),
    ("binance_usdm", 503, b'{"msg":"Service Unavailable."}', True, Word.FAILED, True),
    ("binance_usdm", 503, b'{"msg":"Internal error; unable to process your request. Please try again."}', True,
     Word.FAILED, True),
    ("binance_usdm", 503, b'{"code":-1008,"msg":"Request throttled"}', True, Word.BUSY, True),
    ("binance_usdm", 408, b"", True, Word.UNKNOWN, False),
    ("binance_usdm", 400, b'{"code":-4116,"msg":"x"}', True, Word.DUPLICATE, True),
    ("okx", 400, b'{"code":"50004","msg":"Endpoint request timeout"}', True, Word.UNKNOWN, False),
    ("okx", 500, b'{"code":"51149","msg":"Order timed out"}', True, Word.UNKNOWN, False),
    ("okx", 200, b'{"code":"50011","msg":"Too Many Requests"}', False, Word.THROTTLED, True),
    ("okx", 200, b'{"code":"0","data":[{"sCode":"0"}],"msg":""}', True, Word.ANSWER, True),
    ("okx", 200, b'{"code":"1","data":[{"sCode":"51016","sMsg":"x"}],"msg":"x"}', True, Word.DUPLICATE, True),
    ("okx", 200, b'{"code":"1","data":[{"sCode":"51008","sMsg":"x"}],"msg":"x"}', True, Word.REFUSED, True),
    ("okx", 401, b'{"code":"50102","msg":"x"}', True, Word.CLOCK, True),
    ("okx", 200, b'{"code":"99999","msg":"x"}', True, Word.UNKNOWN, False),
    ("bybit", 403, b"access too frequent", False, Word.BANNED, True),
    ("bybit", 200, b'{"retCode":10006,"retMsg":"x"}', True, Word.THROTTLED, True),
    ("bybit", 200, b'{"retCode":10016,"retMsg":"x"}', True, Word.UNKNOWN, False),
    ("bybit", 200, b'{"retCode":170007,"retMsg":"x"}', True, Word.UNKNOWN, False),
    ("bybit", 200, b'{"retCode":170141,"retMsg":"x"}', True, Word.DUPLICATE, True),
    ("bybit", 200, b'{"retCode":10024,"retMsg":"x"}', False, Word.REGION, True),
    ("kucoin", 200, b'{"code":"400002","msg":"x"}', True, Word.CLOCK, True),
    ("kucoin", 429, b'{"code":"429000","msg":"x"}', False, Word.THROTTLED, True),
    ("kucoin", 200, b'{"code":"500000","msg":"x"}', True, Word.UNKNOWN, False),
    ("kucoin", 408, b'{"code":"408000","msg":"Network timeout"}', True, Word.UNKNOWN, False),
    ("kraken", 200, b'{"error":["EService:Timeout"]}', True, Word.UNKNOWN, False),
    ("kraken", 200, b'{"error":["EGeneral:Internal error"]}', True, Word.UNKNOWN, False),
    ("kraken", 200, b'{"error":["EAPI:Rate limit exceeded"]}', True, Word.THROTTLED, True),
    ("kraken", 200, b'{"error":["EAPI:Invalid nonce"]}', True, Word.CLOCK, True),
    ("kraken", 200, b'{"error":["EOrder:Insufficient funds"]}', True, Word.REFUSED, True),
    ("kraken", 200, b'{"error":[],"result":{"txid":["O1"]}}', True, Word.ANSWER, True),
    ("kraken", 520, b"<html>", True, Word.UNKNOWN, False),
    ("bitget", 200, b'{"code":"43118","msg":"x"}', True, Word.DUPLICATE, True),
    ("bitget", 200, b'{"code":"40010","msg":"x"}', True, Word.UNKNOWN, False),
    ("bitget", 200, b'{"code":"40308","msg":"x"}', False, Word.MAINTENANCE, False),
    ("gate", 500, b'{"label":"SERVER_ERROR","message":"x"}', True, Word.UNKNOWN, False),
    ("gate", 400, b'{"label":"ORDER_EXISTS","message":"x"}', True, Word.DUPLICATE, True),
    ("gate", 429, b'{"label":"TOO_MANY_REQUESTS","message":"x"}', True, Word.THROTTLED, True),
    ("gemini", 503, b'{"result":"error","reason":"Maintenance","message":"x"}', True, Word.MAINTENANCE, False),
    ("gemini", 400, b'{"result":"error","reason":"InvalidNonce","message":"x"}', True, Word.CLOCK, True),
    ("mexc", 500, b"", True, Word.UNKNOWN, False),
    ("mexc", 400, b'{"code":700003,"msg":"x"}', True, Word.CLOCK, True),
    ("coinbase_advanced", 200, b'{"success":false,"error_response":{"error":"INSUFFICIENT_FUND"}}', True,
     Word.REFUSED, True),
    ("coinbase_advanced", 200, b'{"success":false,"error_response":{"error":"UNKNOWN_FAILURE_REASON"}}', True,
     Word.UNKNOWN, False),
    ("coinbase_exchange", 400, b'{"message":"Insufficient funds"}', True, Word.REFUSED, True),
    ("coinbase_exchange", 502, b"", True, Word.UNKNOWN, False),
    ("hyperliquid", 200, b'{"status":"ok","response":{"data":{"statuses":[{"error":"Order has zero size."}]}}}', True,
     Word.REFUSED, True),
    ("hyperliquid", 200, b'{"status":"ok","response":{"data":{"statuses":[{"resting":{"oid":1}}]}}}', True,
     Word.ANSWER, True),
    ("robinhood", 429, b"Too many requests", True, Word.THROTTLED, True),
]  # fmt: skip


def test_sixteen_exchanges_are_known() -> None:
    assert set(VENUES) == set(SIXTEEN.split())
    for venue in VENUES.values():
        assert venue.sources


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_a_write_and_can_be_looked_up(name: str) -> None:
    call, body, found_by = ORDERS[name]
    verb, _, target = call.partition(" ")
    order = REQUESTS[name].call(verb.encode(), target.encode(), (), body)
    assert order.request_class is RequestClass.VENUE_WRITE
    assert order.use is Use.ORDER
    assert found_by in REQUESTS[name].found_by(order)
    assert REQUESTS[name].share_key(order) is None


@pytest.mark.parametrize(("name", "status", "body", "write", "word", "settled"), WORDS)
def test_what_an_answer_means(name: str, status: int, body: bytes, write: bool, word: Word, settled: bool) -> None:
    reading = ANSWERS[name].read(status, (), body, write, 1.7e9)
    assert (reading.word, reading.settled) == (word, settled), reading.detail
    if word in (Word.THROTTLED, Word.BANNED):
        assert reading.hold_for > 0


@pytest.mark.parametrize("name", VENUES)
@given(
    verb=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"]),
    path=st.text(alphabet="/abv35012%.-_OrderDepthinfoexchange", max_size=40),
    query=st.binary(max_size=60),
    body=st.binary(max_size=200),
)
def test_what_a_file_does_not_list_is_never_repeatable_or_shared(
    name: str, verb: str, path: str, query: bytes, body: bytes
) -> None:
    requests = REQUESTS[name]
    target = b"/" + path.encode() + b"?" + query
    call = requests.call(verb.encode(), target, ((b"x", b"y"),), body)
    if call.listed is None:
        assert not call.request_class.repeatable
        assert requests.share_key(call) is None
        assert call.request_class is RequestClass.VENUE_WRITE or verb in ("GET", "HEAD", "OPTIONS")
    requests.charges(call)
    requests.expires_at(call)
    requests.found_by(call)


@pytest.mark.parametrize("name", VENUES)
@given(status=st.integers(100, 599), body=st.binary(max_size=200), write=st.booleans())
def test_an_unreadable_answer_never_settles_a_write(name: str, status: int, body: bytes, write: bool) -> None:
    headers = ((b"Retry-After", body[:8]), (b"X-MBX-USED-WEIGHT-1M", body[:4]))
    reading = ANSWERS[name].read(status, headers, body, write, 1.7e9)
    assert 0 <= reading.hold_for <= 3 * 86_400
    if write and status < 300 and status != 204:
        try:
            json.loads(body)
        except ValueError:
            assert not reading.settled


@pytest.mark.parametrize(
    ("verb", "target"),
    [("POST", "/api/v3/%6Frder"), ("POST", "//api/v3/order"), ("POST", "/api/v3/order/"), ("GET", "/api/v3/ORDER")],
)
def test_another_spelling_of_a_listed_path_gets_the_strictest_class(verb: str, target: str) -> None:
    call = REQUESTS["binance"].call(verb.encode(), target.encode(), (), b"")
    assert not call.request_class.repeatable


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("binance", "/api/v3/depth?symbol=A"), ("binance_us", "/api/v3/depth?symbol=A"),
        ("mexc", "/api/v3/depth?symbol=A"),
        ("binance_usdm", "/fapi/v1/depth?symbol=A"), ("gate", "/api/v4/spot/order_book?currency_pair=A"),
        ("kucoin", "/api/v3/market/orderbook/level2?symbol=A"),
    ],
)  # fmt: skip
def test_a_book_that_a_stream_is_synced_with_is_never_shared(name: str, target: str) -> None:
    """A snapshot older than the subscription leaves a hole behind it that the caller cannot fill."""
    call = REQUESTS[name].call(b"GET", target.encode(), (), b"")
    assert call.use is Use.MARKET
    assert REQUESTS[name].share_key(call) is None


def test_a_header_that_overrides_the_method_makes_a_read_a_write() -> None:
    headers = ((b"x-http-method-override", b"DELETE"),)
    call = REQUESTS["binance"].call(b"GET", b"/api/v3/depth?symbol=BTCUSDT", headers, b"")
    assert call.request_class is RequestClass.VENUE_WRITE


@pytest.mark.parametrize(
    ("name", "headers", "target", "body", "until"),
    [
        ("binance", (), b"/api/v3/account?timestamp=1700000000000&signature=f", b"", 1700000005.0),
        ("binance", (), b"/api/v3/account?timestamp=1700000000000&recvWindow=20000&signature=f", b"", 1700000020.0),
        ("bybit", ((b"x-bapi-sign", b"f"), (b"x-bapi-timestamp", b"1700000000000"), (b"x-bapi-recv-window", b"8000")),
         b"/v5/order/realtime", b"", 1700000008.0),
        ("okx", ((b"ok-access-sign", b"f"), (b"ok-access-timestamp", b"2023-11-14T22:13:20.000Z")),
         b"/api/v5/account/balance", b"", 1700000030.0),
        ("gate", ((b"sign", b"f"), (b"timestamp", b"1700000000")), b"/api/v4/spot/accounts", b"", 1700000060.0),
        ("kraken", ((b"api-sign", b"f"),), b"/0/private/Balance", b"nonce=1", None),
        ("binance", (), b"/api/v3/account?timestamp=now&signature=f", b"", None),
    ],
)  # fmt: skip
def test_how_long_a_signature_lives(
    name: str, headers: tuple[tuple[bytes, bytes], ...], target: bytes, body: bytes, until: float | None
) -> None:
    call = REQUESTS[name].call(b"GET" if not body else b"POST", target, headers, body)
    assert call.signed
    assert REQUESTS[name].expires_at(call) == until


@pytest.mark.parametrize(
    ("query", "weight"),
    [
        ("limit=5", 5),
        ("limit=100", 5),
        ("limit=101", 25),
        ("limit=1000", 50),
        ("limit=5000", 250),
        ("limit=x", 250),
        ("", 5),
    ],
)
def test_a_weight_follows_the_parameters_and_what_cannot_be_read_is_the_heaviest(query: str, weight: float) -> None:
    call = REQUESTS["binance"].call(b"GET", f"/api/v3/depth?symbol=A&{query}".encode(), (), b"")
    assert call.weight == weight


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hostz": []}, "hostz"),
        ({"hosts": []}, "hosts"),
        ({"calls": [{"do": ["GET depth"], "use": "market"}]}, "GET depth is not of the form"),
        ({"calls": [{"do": ["GET /a"], "use": "trade"}]}, "$.calls[0].use"),
        ({"calls": [{"do": ["GET /a", "GET /a"], "use": "info"}, {"do": ["GET /a"], "use": "info"}]}, "listed twice"),
        ({"calls": [{"do": ["DELETE /a"], "use": "account"}]}, "cannot be a read"),
        ({"calls": [{"do": ["POST /a"], "use": "order", "fresh_for": 1}]}, "only public answers"),
        ({"errors": {"rules": [{"word": "unknown"}]}}, "has no condition"),
        ({"limits": [{"name": "a", "amount": 1, "window": 1, "each": "moon"}]}, "$.limits[0].each"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(change: dict[str, object], told: str) -> None:
    plain = {"name": "mine", "title": "Mine", "hosts": [{"host": "api.mine.test"}], "calls": []}
    assert read_venue(json.dumps(plain)).name == "mine"
    with pytest.raises(ValueError) as problem:
        read_venue(json.dumps({**plain, **change}))
    assert told in str(problem.value)


def test_files_are_written_as_their_names_say() -> None:
    folder = Path(__file__).parents[2] / "gateway" / "dialect" / "venues"
    assert {path.stem for path in folder.glob("*.json")} == set(VENUES)


@pytest.mark.parametrize("name", venue_names())
def test_the_time_of_an_exchange_is_never_shared(name: str) -> None:
    """Bots set their clocks by it, and a signature is good for seconds."""
    venue = venue_named(name)
    assert venue is not None
    clock = venue.health.clock
    if clock is not None and not venue.health.body:
        assert REQUESTS[name].share_key(REQUESTS[name].call(b"GET", clock.target.encode(), (), b"")) is None


def test_answers_in_other_units_or_encodings_are_not_taken_for_each_other() -> None:
    binance = REQUESTS["binance"]
    keys = {
        binance.share_key(binance.call(b"GET", b"/api/v3/ticker/price?symbol=BTCUSDT", headers, b""))
        for headers in (
            (),
            ((b"x-mbx-time-unit", b"MICROSECOND"),),
            ((b"accept-encoding", b"gzip"),),
            ((b"accept-encoding", b"br"),),
        )
    }
    assert len(keys) == 4

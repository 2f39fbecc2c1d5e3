"""Exchanges as files: what requests are, what answers mean, and that nothing unlisted is ever repeatable."""

from __future__ import annotations

import base64
import json
import re
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
    "gemini": ("POST /v1/order/new", b"", "POST /v1/orders"),
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
    # a 5xx says nothing of an order, whatever code it carries, but those that are documented
    ("binance", 503, b'{"code":-1013,"msg":"x"}', True, Word.UNKNOWN, False),
    ("binance", 503, b'{"code":-1008,"msg":"x"}', True, Word.BUSY, True),
    ("binance_usdm", 500, b'{"code":-2010,"msg":"x"}', True, Word.UNKNOWN, False),
    ("okx", 500, b'{"code":"51999","msg":"x"}', True, Word.UNKNOWN, False),
    ("okx", 503, b'{"code":"50001","msg":"Service temporarily unavailable"}', True, Word.UNKNOWN, False),
    ("okx", 429, b'{"code":"50013","msg":"Systems are busy"}', True, Word.THROTTLED, True),
    ("bybit", 500, b'{"retCode":110007,"retMsg":"x"}', True, Word.UNKNOWN, False),
    ("kucoin", 502, b'{"code":"200004","msg":"x"}', True, Word.UNKNOWN, False),
    ("mexc", 503, b'{"code":30002,"msg":"x"}', True, Word.UNKNOWN, False),
    ("bitget", 500, b'{"code":"43012","msg":"x"}', True, Word.UNKNOWN, False),
    ("gate", 502, b'{"label":"INVALID_PARAM_VALUE","message":"x"}', True, Word.UNKNOWN, False),
    # a 4xx is the caller's fault where the documents say so; elsewhere a code that nobody knows proves nothing
    ("binance", 400, b'{"code":-3045,"msg":"x"}', True, Word.INVALID, True),
    ("okx", 400, b'{"code":"59999999","msg":"x"}', True, Word.REFUSED, True),
    ("okx", 400, b'{"code":"99999","msg":"x"}', True, Word.UNKNOWN, False),
    ("okx", 400, b'{"code":"99999","msg":"x"}', False, Word.INVALID, True),
    ("okx", 404, b"<html>", True, Word.INVALID, True),
    ("kucoin", 409, b"", True, Word.UNKNOWN, False),
    # several orders in one request: one of unknown fate is enough
    ("okx", 200, b'{"code":"2","data":[{"sCode":"0"},{"sCode":"51008"}]}', True, Word.REFUSED, True),
    ("okx", 200, b'{"code":"2","data":[{"sCode":"51008"},{"sCode":"51149"}]}', True, Word.UNKNOWN, False),
    ("okx", 200, b'{"code":"2","data":[{"sCode":"51008"},{"sCode":"88888"}]}', True, Word.UNKNOWN, False),
    ("bybit", 200, b'{"retCode":0,"retExtInfo":{"list":[{"code":0,"msg":"OK"},{"code":110007}]}}', True,
     Word.REFUSED, True),
    ("bybit", 200, b'{"retCode":0,"retExtInfo":{"list":[{"code":110007},{"code":10016}]}}', True, Word.UNKNOWN, False),
    ("bybit", 200, b'{"retCode":0,"retExtInfo":{"list":[{"code":0,"msg":"OK"}]}}', True, Word.ANSWER, True),
    ("binance_usdm", 200, b'[{"orderId":1},{"code":-2022,"msg":"x"}]', True, Word.REFUSED, True),
    ("binance_usdm", 200, b'[{"code":-2022,"msg":"x"},{"code":-1007,"msg":"x"}]', True, Word.UNKNOWN, False),
    ("binance_usdm", 200, b'{"code":200,"msg":"The operation of cancel all open order is done."}', True,
     Word.ANSWER, True),
    ("binance", 409, b'{"code":-2021,"data":{"cancelResult":"SUCCESS","newOrderResponse":{"code":-1007}}}', True,
     Word.UNKNOWN, False),
    ("binance", 409, b'{"code":-2021,"data":{"cancelResult":"SUCCESS","newOrderResponse":{"code":-2010}}}', True,
     Word.REFUSED, True),
    ("gate", 200, b'[{"succeeded":true,"id":"1"},{"succeeded":false,"label":"TOO_BUSY"}]', True, Word.UNKNOWN, False),
    ("bitget", 200, b'{"code":"00000","data":{"successList":[],"failureList":[{"errorCode":"43012"}]}}', True,
     Word.REFUSED, True),
    ("kraken", 200, b'{"error":[],"result":{"orders":[{"txid":"O1"},{"error":"EOrder:Insufficient funds"}]}}', True,
     Word.REFUSED, True),
    ("kraken", 200, b'{"error":[],"result":{"orders":[{"error":"EOrder:Rate limit exceeded"},'
     b'{"error":"EGeneral:Internal error"}]}}', True, Word.UNKNOWN, False),
    ("kraken", 200, b'{"error":["WGeneral:Danger"],"result":{"txid":["O1"]}}', True, Word.ANSWER, True),
    ("hyperliquid", 200, b'{"status":"ok","response":{"data":{"statuses":[{"resting":{"oid":1}},{"error":"x"}]}}}',
     True, Word.REFUSED, True),
    ("hyperliquid", 200, b'{"status":"err","response":"Too many cumulative requests sent"}', True,
     Word.THROTTLED, True),
    ("coinbase_advanced", 400, b'{"errors":[{"id":"rate_limit_exceeded","message":"Too many requests"}]}', True,
     Word.THROTTLED, True),
    ("coinbase_exchange", 400, b'{"message":"Private rate limit exceeded"}', True, Word.THROTTLED, True),
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


SHAPES = {
    "binance": (b"{}", b'{"serverTime":1}', b'[{"symbol":"A","price":"1"}]', b'{"lastUpdateId":1,"bids":[],"asks":[]}',
                b'{"symbol":"A","orderId":1,"clientOrderId":"c1","status":"NEW","fills":[]}'),
    "binance_usdm": (b"{}", b'{"symbol":"A","bidPrice":"1","time":1}', b'{"listenKey":"k"}', b"[]",
                     b'{"orderId":1,"clientOrderId":"c1","status":"NEW"}'),
    "okx": (b'{"code":"0","data":[{"ts":"1"}],"msg":""}', b'{"code":"0","data":[],"msg":""}',
            b'{"code":"0","data":[{"clOrdId":"c1","ordId":"1","sCode":"0","sMsg":""}],"msg":""}',
            b'{ "msg": "", "data": [{"sCode": "0"}, {"sCode": "0"}], "code": "0" }'),
    "bybit": (b'{"retCode":0,"retMsg":"OK","result":{"list":[]},"retExtInfo":{},"time":1}',
              b'{"retMsg":"OK","retCode":0,"retExtInfo":{"list":[{"code":0},{"code":0}]}}'),
    "kucoin": (b'{"code":"200000","data":1}', b'{"data":{"orderId":"1"},"code":"200000"}'),
    "kraken": (b'{"error":[],"result":{"status":"online"}}', b'{"error":[],"result":{"txid":["O1"],"descr":{}}}',
               b'{"error":[],"result":{"orders":[{"txid":"O1"},{"txid":"O2"}]}}'),
    "coinbase_exchange": (b'{"iso":"x","epoch":1.5}', b'[[1,2,3,4,5,6]]', b'{"id":"1","status":"pending"}', b'"1"'),
    "coinbase_advanced": (b'{"iso":"x","epochMillis":"1"}', b'{"accounts":[],"has_next":false}',
                          b'{"success":true,"failure_reason":"UNKNOWN_FAILURE_REASON","order_id":"1",'
                          b'"success_response":{"order_id":"1","client_order_id":"c1"}}',
                          b'{"results":[{"success":true,"failure_reason":"UNKNOWN_CANCEL_FAILURE_REASON"}]}'),
    "bitget": (b'{"code":"00000","msg":"success","requestTime":1,"data":{"serverTime":"1"}}',
               b'{"code":"00000","data":{"successList":[{"orderId":"1"}],"failureList":[]}}'),
    "mexc": (b"{}", b'{"serverTime":1}', b'{"symbol":"A","orderId":"C02"}', b'[{"symbol":"A","orderId":"1"}]'),
    "gate": (b'{"server_time":1}', b'[{"currency_pair":"A_B","last":"1"}]', b'{"id":"1","text":"t-c1","status":"open"}',
             b'[{"succeeded":true,"label":"","message":"","id":"1"}]'),
    "gemini": (b'["btcusd"]', b'{"bid":"1","ask":"2"}', b'{"order_id":"1","is_live":true}', b'{"result":"ok"}'),
    "dydx": (b'{"height":"1","time":"x"}', b'{"bids":[],"asks":[]}'),
    "hyperliquid": (b'{"BTC":"1"}', b'[{"coin":"BTC"}]', b'{"status":"ok","response":{"type":"default"}}',
                    b'{"status":"ok","response":{"type":"order","data":{"statuses":[{"resting":{"oid":1}},"success"]}}}'),
    "robinhood": (b'{"results":[]}', b'{"id":"1","state":"open"}'),
}  # fmt: skip
"""Answers that say yes, one of each kind, as each exchange's documents show them."""


@pytest.mark.parametrize("name", SHAPES)
def test_what_says_yes_is_an_answer_to_reads_and_settles_writes(name: str) -> None:
    for body in SHAPES[name]:
        read = ANSWERS[name].read(200, (), body, False, 1.7e9)
        assert read.word is Word.ANSWER, body
        write = ANSWERS[name].read(200, (), body, True, 1.7e9)
        assert (write.word, write.settled) == (Word.ANSWER, True), body


HOLDS = [
    # venue, status, headers, body, seconds
    ("binance", 429, ((b"Retry-After", b"7"),), b"{}", 7.0),
    ("binance", 418, ((b"retry-after", b"259200"),), b"{}", 259_200.0),
    ("binance", 418, (), b'{"code":-1003,"msg":"IP banned until 1700000090000."}', 90.0),
    ("binance", 418, (), b'{"code":-1003,"msg":"IP banned until 1600000000000."}', 120.0),
    ("binance", 429, ((b"Retry-After", b"Tue, 14 Nov 2023 22:13:40 GMT"),), b"{}", 20.0),
    ("binance", 429, ((b"Retry-After", b"soon"),), b"{}", 10.0),
    ("binance", 429, ((b"Retry-After", b"-5"),), b"{}", 10.0),
    ("binance", 429, ((b"Retry-After", b"nan"),), b"{}", 10.0),
    ("kucoin", 429, ((b"gw-ratelimit-reset", b"1500"),), b'{"code":"429000"}', 1.5),
    ("kucoin", 429, (), b'{"code":"429000"}', 1.0),
    ("bybit", 200, ((b"X-Bapi-Limit-Reset-Timestamp", b"1700000000750"),), b'{"retCode":10006}', 0.75),
    ("bybit", 200, ((b"X-Bapi-Limit-Reset-Timestamp", b"1699999999000"),), b'{"retCode":10006}', 1.0),
    ("bybit", 403, (), b"access too frequent", 600.0),
    ("bybit", 403, ((b"Retry-After", b"1"),), b'{"retCode":10018,"retMsg":"Access too frequent"}', 600.0),
    ("gate", 429, ((b"X-Gate-RateLimit-Reset-Timestamp", b"1700000003"),), b'{"label":"TOO_MANY_REQUESTS"}', 3.0),
    ("coinbase_advanced", 429, ((b"x-ratelimit-reset", b"2"),), b"{}", 2.0),
    ("dydx", 429, ((b"RateLimit-Reset", b"4"),), b"{}", 4.0),
    ("dydx", 429, ((b"RateLimit-Reset", b"1700000004000"),), b"{}", 4.0),
    ("kraken", 200, (), b'{"error":["EService: Throttled: 1700000030"]}', 30.0),
    ("gemini", 503, ((b"Retry-After", b"7200"),), b'{"reason":"Maintenance"}', 30.0),  # it may be back before
    ("okx", 200, (), b'{"code":"50011"}', 2.0),
    ("okx", 429, (), b"<html><title>Access denied | www.okx.com used Cloudflare", 60.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "headers", "body", "seconds"), HOLDS)
def test_how_long_everybody_waits(
    name: str, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, seconds: float
) -> None:
    assert ANSWERS[name].read(status, headers, body, False, 1.7e9).hold_for == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "headers", "used"),
    [
        ("binance", ((b"X-MBX-USED-WEIGHT-1M", b"77"),), (("weight", 77.0),)),
        ("binance", ((b"x-mbx-order-count-10s", b"3"), (b"x-mbx-order-count-1d", b"9")), (("orders", 3.0),)),
        ("bybit", ((b"X-Bapi-Limit", b"20"), (b"X-Bapi-Limit-Status", b"15")), (("private", 2.5),)),  # a quarter
        ("kucoin", ((b"gw-ratelimit-limit", b"4000"), (b"gw-ratelimit-remaining", b"3900")),
         (("public", 50.0), ("spot", 100.0))),
        ("gate", ((b"X-Gate-RateLimit-Requests-Remain", b"150"), (b"X-Gate-RateLimit-Limit", b"200")),
         (("path", 50.0),)),
        ("gate", ((b"X-Gate-RateLimit-Requests-Remain", b"many"),), ()),
    ],
)  # fmt: skip
def test_what_headers_tell_of_limits(
    name: str, headers: tuple[tuple[bytes, bytes], ...], used: tuple[tuple[str, float], ...]
) -> None:
    assert ANSWERS[name].read(200, headers, b"{}", False, 1.7e9).used == used


@pytest.mark.parametrize("name", VENUES)
def test_every_listed_call_can_be_afforded_and_nothing_keeps_an_order_from_being_taken_back(name: str) -> None:
    venue, requests = VENUES[name], REQUESTS[name]
    amounts = {limit.name: limit.amount for limit in venue.limits}
    orders = {limit.name for limit in venue.limits if limit.on == "orders"}
    for listed in requests.listed:
        heaviest = max([listed.weight, *(step.weight for step in listed.rest.steps)])
        for limit, _, share in listed.charges:
            assert (heaviest if share else 1.0) <= amounts[limit], listed.method.name
            assert listed.rest.use is Use.ORDER or limit not in orders, listed.method.name


@pytest.mark.parametrize("name", VENUES)
def test_how_to_find_out_is_a_listed_read_of_the_same_exchange(name: str) -> None:
    asked = re.compile(r"(GET|POST) (/[^ ?]*)(?: type (\w+))?")
    for listed in REQUESTS[name].listed:
        for template in (listed.rest.found_by, listed.rest.listed_by):
            for verb, path, kind in asked.findall(template):
                segments = [*listed.rest.do[0].partition(" ")[2].split("/"), *[""] * 9]
                filled = re.sub(r"\{/(\d)\}", lambda found, own=segments: own[int(found[1])], path)
                target = re.sub(r"\{[^}]*\}", "a1", filled).rstrip(",").encode()
                body = json.dumps({"type": kind}).encode() if kind else b""
                read = REQUESTS[name].call(verb.encode(), target, (), body)
                assert read.listed is not None, (listed.method.name, path)
                assert not read.write, (listed.method.name, path)


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


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("gemini", "/v1/notionalbalances/..%2Forder%2Fnew"),
        ("gemini", "/v1/notionalbalances/.."),
        ("gemini", "/v1/notionalbalances/usd;order"),
        ("gemini", "/v1/notionalbalances/"),
    ],
)
def test_a_name_in_a_path_that_a_server_may_read_as_another_path_is_not_listed(name: str, target: str) -> None:
    call = REQUESTS[name].call(b"POST", target.encode(), (), b"")
    assert call.write
    assert REQUESTS[name].call(b"POST", b"/v1/notionalbalances/usd", (), b"").use is Use.ACCOUNT


def in_base64(facts: dict[str, object], url_safe: bool = False) -> bytes:
    text = json.dumps(facts).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=") if url_safe else base64.b64encode(text)


def test_a_token_names_its_user_and_its_end() -> None:
    """Coinbase makes a new one for each request: the account is who it is for, not what it says."""
    requests = REQUESTS["coinbase_advanced"]
    tokens = [
        b"Bearer head."
        + in_base64({"sub": "organizations/ü/apiKeys/1", "exp": 1700000120, "nonce": n}, True)
        + b".sign"
        for n in ("?>", "~~~")
    ]
    calls = [
        requests.call(b"GET", b"/api/v3/brokerage/accounts", ((b"authorization", token),), b"") for token in tokens
    ]
    assert calls[0].account == calls[1].account != ""
    assert requests.expires_at(calls[0]) == 1700000120
    for broken in (b"Bearer x", b"Bearer a.b.c", b"", b"Bearer a.%%%.c", b"Bearer a." + in_base64({"sub": 1})):
        call = requests.call(b"GET", b"/api/v3/brokerage/accounts", ((b"authorization", broken),), b"")
        assert call.signed
        assert requests.expires_at(call) is None


def test_an_order_inside_a_payload_can_be_looked_up() -> None:
    payload = in_base64({"request": "/v1/order/new", "nonce": 1, "client_order_id": "c1", "symbol": "btcusd"})
    headers = ((b"x-gemini-apikey", b"k"), (b"x-gemini-payload", payload), (b"x-gemini-signature", b"f"))
    order = REQUESTS["gemini"].call(b"POST", b"/v1/order/new", headers, b"")
    assert REQUESTS["gemini"].found_by(order) == "POST /v1/order/status client_order_id=c1"


@pytest.mark.parametrize(
    ("name", "verb", "target", "body", "found_by"),
    [
        ("bybit", "POST", "/v5/order/create", b'{"category":"linear","symbol":"BTCUSDT","orderLinkId":"c1"}',
         "GET /v5/order/realtime?category=linear&symbol=BTCUSDT&orderLinkId=c1"),
        ("bybit", "POST", "/v5/order/create", b'{"category":"linear","symbol":"BTCUSDT"}',
         "GET /v5/order/realtime?category=linear&symbol=BTCUSDT"),
        ("gate", "DELETE", "/api/v4/spot/orders/t-c1?currency_pair=BTC_USDT", b"",
         "GET /api/v4/spot/orders/t-c1?currency_pair=BTC_USDT"),
        ("gate", "POST", "/api/v4/futures/usdt/orders", b'{"contract":"BTC_USDT","text":"t-c1"}',
         "GET /api/v4/futures/usdt/orders/t-c1"),
        ("kucoin", "DELETE", "/api/v1/hf/orders/client-order/c1?symbol=BTC-USDT", b"",
         "GET /api/v1/hf/orders/client-order/c1?symbol=BTC-USDT"),
        ("coinbase_exchange", "DELETE", "/orders/client:c1", b"", "GET /orders/client:c1"),
        ("binance_usdm", "PUT", "/fapi/v1/order?symbol=BTCUSDT&origClientOrderId=c1", b"",
         "GET /fapi/v1/order?symbol=BTCUSDT&origClientOrderId=c1"),
        ("hyperliquid", "POST", "/exchange", b'{"action":{"type":"cancelByCloid","cancels":[{"cloid":"0x1"}]}}',
         "POST /info type orderStatus, user, oid 0x1"),
        ("okx", "POST", "/api/v5/trade/order", b'{"instId":"BTC-USDT","clOrdId":"a b&c\\u00e9\\r\\n"}',
         "GET /api/v5/trade/order?instId=BTC-USDT&clOrdId=a%20b%26c%C3%A9%0D%0A"),
    ],
)  # fmt: skip
def test_what_became_of_a_write_is_asked_for_with_its_own_words(
    name: str, verb: str, target: str, body: bytes, found_by: str
) -> None:
    call = REQUESTS[name].call(verb.encode(), target.encode(), (), body)
    assert call.write
    assert REQUESTS[name].found_by(call) == found_by


@pytest.mark.parametrize("target", ["/sapi/v1/system/status", "/api/v3/historicalTrades", "/api/v3/ticker/tradingDay"])
def test_the_keyless_host_of_binance_gets_only_what_it_serves(target: str) -> None:
    hosts = {host.host: host.serves for host in VENUES["binance"].hosts}
    call = REQUESTS["binance"].call(b"GET", target.encode(), (), b"")
    assert call.use in (Use.MARKET, Use.INFO)
    assert call.method.family.value not in hosts["data-api.binance.vision"]
    wallet = REQUESTS["binance"].call(b"GET", b"/sapi/v1/capital/config/getall", (), b"")
    assert [host for host, serves in hosts.items() if not serves or wallet.method.family.value in serves] == [
        "api.binance.com"
    ]


def test_whom_an_answer_tells_to_wait() -> None:
    """A limit of one account holds up that account; one of an account that cannot be named holds up nobody."""
    order = REQUESTS["okx"].call(b"POST", b"/api/v5/trade/order", ((b"ok-access-key", b"k"),), b"{}")
    public = REQUESTS["okx"].call(b"GET", b"/api/v5/market/ticker", (), b"")
    nameless = REQUESTS["hyperliquid"].call(b"POST", b"/exchange", (), b'{"action":{"type":"order"}}')
    assert order.scope("account") == order.account != ""
    assert order.scope("path") == f"POST /api/v5/trade/order {order.account}"
    assert (public.scope("path"), public.scope("account")) == ("GET /api/v5/market/ticker", "")
    assert nameless.scope("account") is None
    for call in (order, public, nameless):
        assert call.scope("") == ""


def test_orders_are_counted_for_each_market_where_the_exchange_does() -> None:
    requests = REQUESTS["gate"]
    headers = ((b"key", b"k"), (b"sign", b"f"))
    keys = {
        symbol: {name: key for name, key, _ in requests.charges(
            requests.call(b"POST", b"/api/v4/spot/orders", headers, b'{"currency_pair":"%b"}' % symbol)
        )}
        for symbol in (b"A_B", b"C_D")
    }  # fmt: skip
    assert keys[b"A_B"]["orders"] != keys[b"C_D"]["orders"]
    assert keys[b"A_B"]["private"] == keys[b"C_D"]["private"]


@pytest.mark.parametrize("part", ["target", "body", "header"])
def test_a_request_too_long_to_be_kept_is_not_shared(part: str) -> None:
    long = b"x" * 5000
    requests = REQUESTS["binance"]
    target = b"/api/v3/ticker/price?symbol=BTCUSDT" + (long if part == "target" else b"")
    headers = [(b"accept-encoding", long)] if part == "header" else []
    call = requests.call(b"GET", target, headers, long if part == "body" else b"")
    assert requests.share_key(call) is None
    assert requests.share_key(requests.call(b"GET", b"/api/v3/ticker/price?symbol=BTCUSDT", [], b"")) is not None


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
        ("okx", ((b"ok-access-sign", b"f"), (b"ok-access-timestamp", b"2023-11-14T22:13:20.000Z"),
                 (b"exptime", b"1700000002000")), b"/api/v5/account/balance", b"", 1700000002.0),
        ("gate", ((b"sign", b"f"), (b"timestamp", b"1700000000"), (b"x-gate-exptime", b"1700000001000")),
         b"/api/v4/spot/accounts", b"", 1700000001.0),
        ("kraken", ((b"api-sign", b"f"),), b"/0/private/AddOrder", b"nonce=1&deadline=2023-11-14T22%3A13%3A22Z",
         1700000002.0),
        ("hyperliquid", (), b"/exchange", b'{"action":{"type":"order"},"nonce":1700000000000,'
         b'"signature":{"r":"0x1"},"expiresAfter":1700000003000}', 1700000003.0),
        ("hyperliquid", (), b"/exchange", b'{"action":{"type":"order"},"nonce":1700000000000,"signature":{}}',
         1700172800.0),
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
        ({"errors": {"wait": {"retry-after": "h"}}}, "neither ms nor s"),
        ({"calls": [{"do": ["GET /a"], "use": "info", "family": "moon"}]}, "$.calls[0].family"),
    ],
)
def test_a_mistake_in_a_file_is_told_with_its_place(change: dict[str, object], told: str) -> None:
    plain = {"name": "mine", "title": "Mine", "hosts": [{"host": "api.mine.test"}], "calls": []}
    assert read_venue(json.dumps(plain)).name == "mine"
    with pytest.raises(ValueError) as problem:
        read_venue(json.dumps({**plain, **change}))
    assert told in str(problem.value)


SHARING = {"connect": "/", "paths": ["/"], "op": "op", "subscribe": "on", "unsubscribe": "off", "per_request": 1}
KIND = {"asked": {"channel": "book", "symbol": "*"}, "told": {"channel": "book", "data.s": "*"}}


@pytest.mark.parametrize(
    ("sharing", "kind", "told"),
    [
        ({}, {"rule": "moon"}, "kinds[0].rule"),
        ({}, {"rule": "line"}, "kinds[0].snapshot"),
        ({}, {"rule": "span", "first": "data.a"}, "kinds[0].last"),
        ({}, {"told": {"channel": "book"}}, "kinds[0].told"),
        ({}, {"asked": {"channel": "*", "symbol": "*"}}, "kinds[0].asked"),
        ({}, {"assumed": ["depth"]}, "kinds[0].assumed"),
        ({}, {"names": ["*@book"]}, "kinds[0].names"),
        ({}, {"asked": {}, "told": {}}, "kinds[0].names"),
        ({}, {"asked": {}, "names": ["*@book"]}, "sharing[0].topics"),
        ({"per_request": 5}, {}, "sharing[0].per_request"),
        ({"speaks": "uta"}, {}, "sharing[0].speaks"),
    ],
)
def test_a_mistake_in_what_is_shared_is_told_with_its_place(
    sharing: dict[str, object], kind: dict[str, object], told: str
) -> None:
    plain: dict[str, object] = {"name": "mine", "title": "Mine", "hosts": [{"host": "api.mine.test"}], "calls": []}
    streams = {"hosts": [{"host": "ws.mine.test"}]}
    good = {**plain, "streams": {**streams, "sharing": [{**SHARING, "kinds": [KIND]}]}}
    assert read_venue(json.dumps(good)).streams is not None
    bad = {**plain, "streams": {**streams, "sharing": [{**SHARING, **sharing, "kinds": [{**KIND, **kind}]}]}}
    with pytest.raises(ValueError, match=r"\$\.streams\.") as problem:
        read_venue(json.dumps(bad))
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

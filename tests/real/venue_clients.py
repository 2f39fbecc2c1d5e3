"""ccxt and python-binance against an exchange, through whatever stands between: one venue, one way in, once through.

    python venue_clients.py VENUE MODE BASE WS

VENUE is ccxt's name or `python_binance`; MODE is `path` (BASE ends in the route), `host` (BASE has a host name of the
route) or `proxy` (BASE is what `proxyUrl` is set to).  WS is where WebSockets go; empty: they are left out.
Prints one line of JSON; ends with 0 only if everything held.

What ccxt sends to `proxyUrl`: the venue's URL as it is when it has no query, percent-encoded as one component when it
has one; and a made-up word as Origin.  4.5.90 for Python takes an agent that is not set for one that is, and refuses
`proxyUrl` altogether: that check is left out here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import sys
import time
from typing import Any

import ccxt.pro as ccxt

KEY, SECRET, PASSPHRASE = "test-key-1", "test-secret-1", "test-passphrase"
ENCODED = base64.b64encode(b"a secret of a pretended account").decode()
CREDENTIALS = {
    "binance": {"apiKey": KEY, "secret": SECRET},
    "okx": {"apiKey": KEY, "secret": SECRET, "password": PASSPHRASE},
    "bybit": {"apiKey": KEY, "secret": SECRET},
    "kucoin": {"apiKey": KEY, "secret": SECRET, "password": PASSPHRASE},
    "kraken": {"apiKey": KEY, "secret": ENCODED},
    "coinbaseexchange": {"apiKey": KEY, "secret": ENCODED, "password": PASSPHRASE},
    "coinbase": {"apiKey": KEY, "secret": SECRET},
}
OPTIONS = {
    "binance": {"fetchMarkets": {"types": ["spot"]}, "defaultType": "spot", "fetchCurrencies": False},
    "okx": {"fetchMarkets": {"types": ["spot"]}, "defaultType": "spot"},
    "bybit": {"fetchMarkets": {"types": ["spot"]}, "defaultType": "spot"},
    "kucoin": {"fetchMarkets": {"types": ["spot"]}, "hf": True, "uta": False},
}
SYMBOLS = {"kraken": "BTC/USD", "coinbaseexchange": "BTC/USD", "coinbase": "BTC/USD"}

_resolve = socket.getaddrinfo


def _loopback(host: Any, *rest: Any, **more: Any) -> Any:
    """Names below localhost are this machine (RFC 6761); not every C library knows."""
    name = host.decode() if isinstance(host, bytes) else host
    return _resolve("127.0.0.1" if str(name).endswith(".localhost") else host, *rest, **more)


def credentials(venue: str, mode: str) -> dict[str, str]:
    """Where numbers must rise, clients that run at the same time have keys of their own."""
    own = {"apiKey": f"test-key-{1 + ('path', 'host', 'proxy').index(mode)}"} if venue == "kraken" else {}
    return {**CREDENTIALS[venue], **own}


def redirected(urls: Any, base: str, ws: str) -> Any:
    """Every URL of an exchange with our base instead of its host."""
    if isinstance(urls, dict):
        return {name: redirected(value, base, ws) for name, value in urls.items()}
    if not isinstance(urls, str):
        return urls
    return re.sub(r"^wss?://[^/]+", ws, re.sub(r"^https?://[^/]+", base, urls))


async def through_ccxt(venue: str, mode: str, base: str, ws: str) -> dict[str, Any]:
    symbol = SYMBOLS.get(venue, "BTC/USDT")
    exchange = getattr(ccxt, venue)(
        {**credentials(venue, mode), "enableRateLimit": False, "options": OPTIONS.get(venue, {}), "timeout": 15000}
    )
    exchange.check_conflicting_proxies = lambda *_: None
    if mode == "proxy":
        exchange.proxyUrl = base
        exchange.urls["api"] = redirected_streams(exchange.urls["api"], ws)
    else:
        exchange.urls["api"] = redirected(exchange.urls["api"], base, ws)
    seen: dict[str, Any] = {"venue": venue, "mode": mode}
    try:
        seen["markets"] = len(await exchange.load_markets())
        if exchange.has["fetchTime"]:
            assert abs(await exchange.fetch_time() / 1000 - time.time()) < 5
        ticker = await exchange.fetch_ticker(symbol)
        book = await exchange.fetch_order_book(symbol)
        assert book["bids"][0][0] < book["asks"][0][0]
        assert len(await exchange.fetch_ohlcv(symbol, "1m", limit=5)) > 0
        assert len(await exchange.fetch_trades(symbol)) > 0
        assert (await exchange.fetch_balance())["BTC"]["total"] > 0
        seen["last"] = ticker["last"]
        placed = await exchange.create_order(symbol, "limit", "buy", 0.01, 50000, {"clientOrderId": f"c{mode}1"})
        told = lower(exchange.last_response_headers or {})
        assert told.get("x-seawall-execution", "done") == "done"
        found = await exchange.fetch_order(placed["id"], symbol, {"acknowledged": True} if venue == "bybit" else {})
        assert found["id"] == placed["id"]
        assert placed["id"] in [order["id"] for order in await exchange.fetch_open_orders(symbol)]
        await exchange.cancel_order(placed["id"], symbol)
        assert placed["id"] not in [order["id"] for order in await exchange.fetch_open_orders(symbol)]
        seen["order"] = placed["id"]
        if ws:
            seen["streams"] = await watched(exchange, symbol)
    finally:
        await exchange.close()
    return seen


async def watched(exchange: Any, symbol: str) -> dict[str, int]:
    """A few updates of each public stream; the book stays uncrossed and moves."""
    tops = set()
    while len(tops) < 4:  # books of ten levels do not change with every message
        book = await asyncio.wait_for(exchange.watch_order_book(symbol), 15)
        assert book["bids"][0][0] < book["asks"][0][0]
        tops.add((book["nonce"], book["timestamp"], str(book["bids"][:9]), str(book["asks"][:9])))
    ticker = await asyncio.wait_for(exchange.watch_ticker(symbol), 15)
    assert ticker["last"] > 0
    trades = await asyncio.wait_for(exchange.watch_trades(symbol), 15)
    assert trades
    return {"books": len(tops), "trades": len(trades)}


def redirected_streams(urls: Any, ws: str) -> Any:
    """The same for WebSockets only: `proxyUrl` is about HTTP."""
    if isinstance(urls, dict):
        return {name: redirected_streams(value, ws) for name, value in urls.items()}
    return re.sub(r"^wss?://[^/]+", ws, urls) if isinstance(urls, str) and ws else urls


def lower(headers: Any) -> dict[str, str]:
    return {str(name).lower(): value for name, value in dict(headers).items()}


def through_python_binance(mode: str, base: str) -> dict[str, Any]:
    from binance.client import Client

    Client.API_URL = base + "/api"
    client = Client(KEY, SECRET, ping=False)
    client.API_URL = base + "/api"
    assert client.get_server_time()["serverTime"] > 0
    assert len(client.get_exchange_info()["symbols"]) == 3
    book = client.get_order_book(symbol="BTCUSDT")
    assert float(book["bids"][0][0]) < float(book["asks"][0][0])
    assert client.get_account()["canTrade"]
    order = client.create_order(
        symbol="BTCUSDT", side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price="50000",
        newClientOrderId=f"p{mode}1",
    )  # fmt: skip
    assert client.get_order(symbol="BTCUSDT", origClientOrderId=f"p{mode}1")["orderId"] == order["orderId"]
    assert client.get_open_orders(symbol="BTCUSDT")
    assert client.cancel_order(symbol="BTCUSDT", orderId=order["orderId"])["status"] == "CANCELED"
    return {"venue": "python_binance", "mode": mode, "order": order["orderId"]}


def main() -> None:
    socket.getaddrinfo = _loopback
    venue, mode, base, ws = (*sys.argv[1:], "")[:4]
    if venue == "python_binance":
        print(json.dumps(through_python_binance(mode, base)))
    else:
        print(json.dumps(asyncio.run(through_ccxt(venue, mode, base, ws))))


if __name__ == "__main__":
    main()

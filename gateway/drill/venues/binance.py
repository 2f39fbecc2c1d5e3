"""Simulated Binance spot: REST with its weights, bans and signatures; streams with its update numbers.

Facts are those of the venue's documentation: a signature is HMAC-SHA256 over query and body as they came; weight is
counted by source address over all hosts, in calendar minutes; whoever ignores 429 is banned with 418.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from gateway.drill.venues.accounts import CANCELED, Accounts, Order
from gateway.drill.venues.exchange import Session
from gateway.drill.venues.market import Market, Markets
from gateway.drill.venues.wire import Recorded, Reply

KEYS = {"test-key-1": "test-secret-1", "test-key-2": "test-secret-2"}  # credentials of pretended accounts
SYMBOLS = {"BTCUSDT": ("BTC", "USDT", 60000.0), "ETHUSDT": ("ETH", "USDT", 3000.0), "LTCBTC": ("LTC", "BTC", 100.0)}
WEIGHT_LIMIT = 6000
IGNORED_429 = 20  # requests over the limit that are answered 429 before the address is banned
BAN = 120.0


class Refusal(Exception):
    """An error in the venue's own words."""

    def __init__(self, status: int, code: int, message: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(message)
        self.reply = Reply(status, json.dumps({"code": code, "msg": message}).encode(), headers)


class Binance:
    """The venue.  `weight_peak` is the most weight that was used in one minute."""

    name = "binance"

    def __init__(
        self, now: float, weight_limit: int = WEIGHT_LIMIT, clock_offset: float = 0.0, minute: float = 60.0
    ) -> None:
        self.markets = Markets({symbol: facts[2] for symbol, facts in SYMBOLS.items()}, now)
        self.accounts = Accounts()
        self.weight_limit = weight_limit
        self.clock_offset = clock_offset  # its minutes begin when it likes
        self.minute = minute  # seconds; shorter ones make shorter tests
        self.used = 0
        self.weight_peak = 0
        self.refused_429 = 0
        self.banned_418 = 0
        self.banned_until = 0.0
        self.bad_signatures = 0
        self._minute = -1
        self._over = 0
        self._told: dict[str, int] = {}

    # --- REST -------------------------------------------------------------------------------------

    def answer(self, request: Recorded, now: float) -> Reply:
        now += self.clock_offset
        self.markets.advance(now)
        params = dict(parse_qsl((request.query + b"&" + request.body).decode("latin-1"), keep_blank_values=True))
        try:
            self._weigh(request, params, now)
            body = self._serve(request, params, now)
            status = 200
        except Refusal as refusal:
            return refusal.reply
        return Reply(status, json.dumps(body).encode(), ((b"X-MBX-USED-WEIGHT-1M", b"%d" % self.used),))

    def _weigh(self, request: Recorded, params: dict[str, str], now: float) -> None:
        minute = int(now // self.minute)
        if minute != self._minute:
            self._minute, self.used, self._over = minute, 0, 0
        if now < self.banned_until:
            self.banned_418 += 1
            left = b"%d" % round(self.banned_until - now)
            raise Refusal(
                418, -1003, f"Way too many requests; IP banned until {round(self.banned_until * 1e3)}.",
                (b"Retry-After", left),
            )  # fmt: skip
        self.used += weight_of(request.verb, request.path, params)
        self.weight_peak = max(self.weight_peak, self.used)
        if self.used > self.weight_limit:
            self.refused_429 += 1
            self._over += 1
            if self._over > IGNORED_429:
                self.banned_until = now + BAN
            raise Refusal(429, -1003, "Too many requests.", (b"Retry-After", b"%d" % (self.minute - now % self.minute)))

    def _serve(self, request: Recorded, params: dict[str, str], now: float) -> Any:
        path, verb = request.path, request.verb
        if verb == "GET" and path in _PUBLIC:
            return _PUBLIC[path](self, params, now)
        account = self._account(request, params, now)
        if path == "/api/v3/account":
            balances = [{"asset": a, "free": "100.0", "locked": "1.0"} for a in ("BTC", "ETH", "USDT")]
            return {"canTrade": True, "updateTime": round(now * 1e3), "accountType": "SPOT", "balances": balances}
        if path == "/api/v3/openOrders" and verb == "GET":
            return [order_row(order) for order in self.accounts.open_orders(account, params.get("symbol", ""))]
        if path == "/api/v3/order":
            return self._order(verb, account, params, now)
        if path in ("/api/v3/allOrders", "/api/v3/myTrades") or path.startswith("/sapi/"):
            return []
        raise Refusal(404, -1, "no such path")

    def _account(self, request: Recorded, params: dict[str, str], now: float) -> str:
        """Whose request it is, if its signature is over these very bytes and its time is right."""
        key = (request.header(b"x-mbx-apikey") or b"").decode("latin-1")
        secret = KEYS.get(key)
        if secret is None:
            raise Refusal(401, -2015, "Invalid API-key, IP, or permissions for action.")
        signed = request.query + request.body
        payload, _, signature = signed.rpartition(b"signature=")
        expected = hmac.new(secret.encode(), payload.rstrip(b"&"), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature):
            self.bad_signatures += 1
            raise Refusal(400, -1022, "Signature for this request is not valid.")
        sent = float(params.get("timestamp", "0"))
        window = float(params.get("recvWindow", "5000"))
        if not (sent < now * 1e3 + 1000 and now * 1e3 - sent <= window):
            raise Refusal(400, -1021, "Timestamp for this request is outside of the recvWindow.")
        return key

    def _order(self, verb: str, account: str, params: dict[str, str], now: float) -> Any:
        if verb == "POST":
            symbol = params.get("symbol", "")
            if symbol not in SYMBOLS:
                raise Refusal(400, -1121, "Invalid symbol.")
            order = self.accounts.place(
                account,
                params.get("newClientOrderId", ""),
                symbol,
                params.get("side", "BUY"),
                params.get("type", "LIMIT"),
                params.get("price", "0"),
                params.get("quantity", "0"),
                now,
            )
            if order is None:
                raise Refusal(400, -2010, "Duplicate order sent.")
            return order_row(order)
        client_id = params.get("origClientOrderId", "")
        if verb == "DELETE":
            order = self.accounts.cancel(account, client_id, params.get("orderId", ""))
            if order is None:
                raise Refusal(400, -2011, "Unknown order sent.")
            return order_row(order)
        order = self.accounts.find(account, client_id, params.get("orderId", ""))
        if order is None:
            raise Refusal(400, -2013, "Order does not exist.")
        return order_row(order)

    # --- streams ----------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        path, _, query = session.target.partition("?")
        session.state["combined"] = path.startswith("/stream")
        names = path[4:].split("/") if path.startswith("/ws/") else []
        if query.startswith("streams="):
            names = query[8:].split("/")
        for name in names:
            session.topics[name] = None

    def said(self, session: Session, data: str, now: float) -> None:
        try:
            message = json.loads(data)
            names = message.get("params", [])
            if message["method"] == "SUBSCRIBE":
                session.topics.update(dict.fromkeys(names))
            elif message["method"] == "UNSUBSCRIBE":
                for name in names:
                    session.topics.pop(name, None)
            session.send(json.dumps({"result": None, "id": message.get("id")}))
        except (ValueError, KeyError, TypeError, AttributeError):
            session.send(json.dumps({"error": {"code": 2, "msg": "Invalid request"}, "id": None}))

    def tick(self, sessions: list[Session], now: float) -> None:
        self.markets.advance(now)
        for symbol, market in self.markets.all.items():
            first, last = self._told.get(symbol, market.book.number) + 1, market.book.number
            self._told[symbol] = last
            changes = [change for change in market.changes if change.number >= first] if last >= first else []
            for session in sessions:
                for name in list(session.topics):
                    if name.partition("@")[0] == symbol.lower():
                        self._tell(session, name, market, changes, (first, last), now)

    def _tell(
        self, session: Session, name: str, market: Market, changes: list[Any], numbers: tuple[int, int], now: float
    ) -> None:
        kind = name.partition("@")[2]
        at = round(now * 1e3)
        data: dict[str, Any] | None = None
        if kind.startswith("depth"):
            if changes:
                data = {"e": "depthUpdate", "E": at, "s": market.symbol, "U": numbers[0], "u": numbers[1]}
                for side, letter in (("bids", "b"), ("asks", "a")):
                    data[letter] = [[str(c.price), str(c.quantity)] for c in changes if c.side == side]
        elif kind == "bookTicker":
            if changes:
                (bid,), (ask,) = market.book.top(1)
                data = {"u": numbers[1], "s": market.symbol, "b": str(bid[0]), "B": str(bid[1])}
                data |= {"a": str(ask[0]), "A": str(ask[1])}
        elif kind in ("trade", "aggTrade"):
            number, price, amount, side, when = market.trades[-1]
            if session.topics[name] != number:
                session.topics[name] = number
                data = {"e": kind, "E": at, "s": market.symbol, "t": number, "a": number, "p": str(price)}
                data |= {
                    "q": str(amount),
                    "T": round(when * 1e3),
                    "m": side == "sell",
                    "M": True,
                    "f": number,
                    "l": number,
                }
        elif kind in ("ticker", "miniTicker") and changes:
            row = ticker_24h(market, now)
            data = {
                "e": "24hrTicker" if kind == "ticker" else "24hrMiniTicker",
                "E": at,
                "s": market.symbol,
                "c": row["lastPrice"],
                "o": row["openPrice"],
            }
            data |= {"h": row["highPrice"], "l": row["lowPrice"], "v": row["volume"], "q": row["quoteVolume"], "C": at}
            data |= {"b": row["bidPrice"], "a": row["askPrice"], "P": "0", "p": "0", "w": row["lastPrice"]}
        if data is not None:
            session.send(json.dumps({"stream": name, "data": data} if session.state["combined"] else data))


def weight_of(verb: str, path: str, params: dict[str, str]) -> int:
    """What a request weighs, as the documentation lists it."""
    if path == "/api/v3/depth":
        limit = int(params.get("limit", "100"))
        return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250
    if path in ("/api/v3/ticker/price", "/api/v3/ticker/bookTicker"):
        return 2 if "symbol" in params else 4
    if path == "/api/v3/ticker/24hr":
        return 2 if "symbol" in params else 80
    if path == "/api/v3/openOrders":
        return 6 if "symbol" in params else 80
    if path == "/api/v3/order":
        return 4 if verb == "GET" else 0 if verb == "DELETE" else 1
    weights = {"/api/v3/exchangeInfo": 20, "/api/v3/account": 20, "/api/v3/trades": 25, "/api/v3/klines": 2}
    return weights.get(path, 1)


def order_row(order: Order) -> dict[str, Any]:
    status = "CANCELED" if order.state == CANCELED else "NEW"
    return {
        "symbol": order.symbol, "orderId": order.id, "orderListId": -1, "clientOrderId": order.client_id,
        "origClientOrderId": order.client_id, "transactTime": round(order.at * 1e3), "time": round(order.at * 1e3),
        "updateTime": round(order.at * 1e3), "price": order.price, "origQty": order.amount, "executedQty": "0.0",
        "cummulativeQuoteQty": "0.0", "status": status, "timeInForce": "GTC", "type": order.kind,
        "side": order.side, "isWorking": True, "workingTime": round(order.at * 1e3), "fills": [],
    }  # fmt: skip


def ticker_24h(market: Market, now: float) -> dict[str, Any]:
    (bid,), (ask,) = market.book.top(1)
    last = str(market.last())
    return {
        "symbol": market.symbol, "lastPrice": last, "bidPrice": str(bid[0]), "bidQty": str(bid[1]),
        "askPrice": str(ask[0]), "askQty": str(ask[1]), "openPrice": last, "highPrice": last, "lowPrice": last,
        "volume": "1000.0", "quoteVolume": "1000000.0", "openTime": round((now - 86400) * 1e3),
        "closeTime": round(now * 1e3), "priceChange": "0", "priceChangePercent": "0", "weightedAvgPrice": last,
        "count": 10,
    }  # fmt: skip


def _market(venue: Binance, params: dict[str, str]) -> Market:
    market = venue.markets.get(params.get("symbol", ""))
    if market is None:
        raise Refusal(400, -1121, "Invalid symbol.")
    return market


def _depth(venue: Binance, params: dict[str, str], now: float) -> Any:
    market = _market(venue, params)
    bids, asks = market.book.top(int(params.get("limit", "100")))
    rows = [[[str(price), str(amount)] for price, amount in side] for side in (bids, asks)]
    return {"lastUpdateId": market.book.number, "bids": rows[0], "asks": rows[1]}


def _info(venue: Binance, params: dict[str, str], now: float) -> Any:
    rows = []
    for symbol, (base, quote, _) in SYMBOLS.items():
        filters = [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "minQty": "0.0001", "maxQty": "9000.0", "stepSize": "0.0001"},
            {"filterType": "NOTIONAL", "minNotional": "5.0", "maxNotional": "9000000.0"},
        ]
        rows.append(
            {
                "symbol": symbol, "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8, "quoteAsset": quote,
                "quotePrecision": 8, "quoteAssetPrecision": 8, "isSpotTradingAllowed": True, "permissions": ["SPOT"],
                "isMarginTradingAllowed": False, "orderTypes": ["LIMIT", "MARKET"], "filters": filters,
                "permissionSets": [["SPOT"]],
            }
        )  # fmt: skip
    limits = [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": venue.weight_limit}]
    return {"timezone": "UTC", "serverTime": round(now * 1e3), "rateLimits": limits, "symbols": rows}


def _klines(venue: Binance, params: dict[str, str], now: float) -> Any:
    last = str(_market(venue, params).last())
    begin = int(now // 60) * 60
    rows = range(begin - 60 * (int(params.get("limit", "10")) - 1), begin + 60, 60)
    return [
        [at * 1000, last, last, last, last, "1.0", at * 1000 + 59999, "60000.0", 1, "0.5", "30000.0", "0"]
        for at in rows
    ]


def _trades(venue: Binance, params: dict[str, str], now: float) -> Any:
    rows = list(_market(venue, params).trades)[-int(params.get("limit", "50")) :]
    made = []
    for number, price, amount, side, at in rows:
        names = {"id": number, "a": number, "f": number, "l": number, "price": str(price), "p": str(price)}
        names |= {"qty": str(amount), "q": str(amount), "quoteQty": str(price * amount)}
        names |= {"time": round(at * 1e3), "T": round(at * 1e3), "isBestMatch": True}
        made.append({**names, "isBuyerMaker": side == "sell", "m": side == "sell"})
    return made


def _ticker(venue: Binance, params: dict[str, str], now: float) -> Any:
    if "symbol" in params:
        return ticker_24h(_market(venue, params), now)
    return [ticker_24h(market, now) for market in venue.markets.all.values()]


def _price(venue: Binance, params: dict[str, str], now: float) -> Any:
    row = ticker_24h(_market(venue, params), now)
    return {"symbol": row["symbol"], "price": row["lastPrice"]}


def _best(venue: Binance, params: dict[str, str], now: float) -> Any:
    row = ticker_24h(_market(venue, params), now)
    return {name: row[name] for name in ("symbol", "bidPrice", "bidQty", "askPrice", "askQty")}


_PUBLIC: dict[str, Callable[[Binance, dict[str, str], float], Any]] = {
    "/api/v3/ping": lambda venue, params, now: {},
    "/api/v3/time": lambda venue, params, now: {"serverTime": round(now * 1e3)},
    "/api/v3/exchangeInfo": _info,
    "/api/v3/depth": _depth,
    "/api/v3/klines": _klines,
    "/api/v3/trades": _trades,
    "/api/v3/aggTrades": _trades,
    "/api/v3/ticker/24hr": _ticker,
    "/api/v3/ticker/price": _price,
    "/api/v3/ticker/bookTicker": _best,
    "/sapi/v1/system/status": lambda venue, params, now: {"status": 0, "msg": "normal"},
}

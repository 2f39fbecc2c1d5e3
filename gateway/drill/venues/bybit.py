"""Simulated Bybit v5: signatures over time, key, window and the raw query or body; answers with retCode in 200."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qsl

from gateway.drill.venues.accounts import CANCELED, Accounts, Order
from gateway.drill.venues.exchange import Session
from gateway.drill.venues.market import Market, Markets
from gateway.drill.venues.wire import Recorded, Reply

KEYS = {"test-key-1": "test-secret-1"}  # credentials of a pretended account
SYMBOLS = {"BTCUSDT": ("BTC", "USDT", 60000.0), "ETHUSDT": ("ETH", "USDT", 3000.0)}


class Refusal(Exception):
    """An error in the venue's own words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Bybit:
    """The venue."""

    name = "bybit"

    def __init__(self, now: float) -> None:
        self.markets = Markets({symbol: facts[2] for symbol, facts in SYMBOLS.items()}, now)
        self.accounts = Accounts()
        self.bad_signatures = 0
        self._told: dict[str, int] = {}

    def answer(self, request: Recorded, now: float) -> Reply:
        self.markets.advance(now)
        code, text, result = 0, "OK", {}
        try:
            result = self._serve(request, dict(parse_qsl(request.query.decode("latin-1"))), now)
        except Refusal as refusal:
            code, text = refusal.code, str(refusal)
        body = {"retCode": code, "retMsg": text, "result": result, "retExtInfo": {}, "time": round(now * 1e3)}
        return Reply(200, json.dumps(body).encode())

    def _serve(self, request: Recorded, params: dict[str, str], now: float) -> Any:
        path = request.path.removeprefix("/v5/")
        if path == "market/time":
            return {"timeSecond": str(int(now)), "timeNano": str(round(now * 1e9))}
        if path == "market/instruments-info":
            rows = [_instrument(symbol) for symbol in SYMBOLS] if params.get("category") == "spot" else []
            return {"category": params.get("category"), "list": rows, "nextPageCursor": ""}
        if path.startswith("market/"):
            market = self.markets.get(params.get("symbol", "BTCUSDT"))
            if market is None:
                raise Refusal(10001, "Not supported symbols")
            return _public(path.removeprefix("market/"), market, params, now)
        account = self._account(request, now)
        if path == "user/query-api":
            return {"unified": 1, "uta": 1, "userID": 1}
        if path == "asset/coin/query-info":
            return {"rows": []}
        if path == "account/info":
            return {"unifiedMarginStatus": 4, "marginMode": "REGULAR_MARGIN"}
        if path == "account/wallet-balance":
            coins = [
                {"coin": c, "walletBalance": "100", "locked": "1", "free": "99", "equity": "100"}
                for c in ("BTC", "USDT")
            ]
            return {"list": [{"accountType": "UNIFIED", "coin": coins}]}
        return self._orders(request, path, params, account, now)

    def _orders(self, request: Recorded, path: str, params: dict[str, str], account: str, now: float) -> Any:
        if path in ("order/realtime", "order/history"):
            order = self.accounts.find(account, params.get("orderLinkId", ""), params.get("orderId", ""))
            if "orderLinkId" in params or "orderId" in params:
                rows = [order] if order is not None else []
            else:
                rows = self.accounts.open_orders(account, params.get("symbol", ""))
            return {"list": [order_row(row) for row in rows], "nextPageCursor": "", "category": "spot"}
        body = json.loads(request.body or b"{}")
        if path == "order/create":
            client_id = body.get("orderLinkId", "")
            if client_id and self.accounts.find(account, client_id) is not None:
                raise Refusal(170141, "Duplicate clientOrderId")
            order = self.accounts.place(
                account,
                client_id,
                body["symbol"],
                body["side"],
                body["orderType"],
                body.get("price", "0"),
                body["qty"],
                now,
            )
        elif path == "order/cancel":
            order = self.accounts.cancel(account, body.get("orderLinkId", ""), body.get("orderId", ""))
        else:
            raise Refusal(10001, "no such path")
        if order is None:
            raise Refusal(170213, "Order does not exist.")
        return {"orderId": str(order.id), "orderLinkId": order.client_id}

    def _account(self, request: Recorded, now: float) -> str:
        key = (request.header(b"x-bapi-api-key") or b"").decode()
        if key not in KEYS:
            raise Refusal(10003, "API key is invalid.")
        stamp = request.header(b"x-bapi-timestamp") or b"0"
        window = request.header(b"x-bapi-recv-window") or b"5000"
        text = stamp + key.encode() + window + (request.body or request.query)
        expected = hmac.new(KEYS[key].encode(), text, hashlib.sha256).hexdigest().encode()
        if not hmac.compare_digest(expected, request.header(b"x-bapi-sign") or b""):
            self.bad_signatures += 1
            raise Refusal(10004, "Error sign, please check your signature generation algorithm.")
        if not now * 1e3 - float(window) <= float(stamp) < now * 1e3 + 1000:
            raise Refusal(10002, "invalid request, please check your server timestamp or recv_window param")
        return key

    # --- streams ----------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        """It waits to be asked."""

    def said(self, session: Session, data: str, now: float) -> None:
        message = json.loads(data)
        op = message.get("op")
        if op == "ping":
            session.send(json.dumps({"success": True, "ret_msg": "pong", "conn_id": "1", "op": "ping"}))
            return
        for name in message.get("args", []):
            if op == "subscribe":
                session.topics[name] = -1
            else:
                session.topics.pop(name, None)
        session.send(
            json.dumps({"success": True, "ret_msg": op, "conn_id": "1", "req_id": message.get("req_id", ""), "op": op})
        )

    def tick(self, sessions: list[Session], now: float) -> None:
        self.markets.advance(now)
        for symbol, market in self.markets.all.items():
            self._told[symbol] = market.book.number
            for session in sessions:
                for name in list(session.topics):
                    if name.rpartition(".")[2] == symbol:
                        self._tell(session, name, market, round(now * 1e3))

    def _tell(self, session: Session, name: str, market: Market, at: int) -> None:
        kind, told, number = name.partition(".")[0], session.topics[name], market.book.number
        message: dict[str, Any] = {"topic": name, "ts": at, "cts": at}
        if kind == "orderbook":
            if told < 0:
                bids, asks = market.book.top(200)
                message["type"] = "snapshot"
                rows = {"b": [[str(p), str(q)] for p, q in bids], "a": [[str(p), str(q)] for p, q in asks]}
                session.topics[name] = number
                message["data"] = {"s": market.symbol, **rows, "u": number, "seq": number}
                session.send(json.dumps(message))
                return
            for change in [c for c in market.changes if c.number > told]:  # one message a change: `u` rises by one
                row = [[str(change.price), str(change.quantity)]]
                data = {"b": row if change.side == "bids" else [], "a": row if change.side == "asks" else []}
                session.topics[name] = change.number
                message |= {
                    "type": "delta",
                    "data": {"s": market.symbol, **data, "u": change.number, "seq": change.number},
                }
                session.send(json.dumps(message))
        elif kind == "tickers" and told != number:
            session.topics[name] = number
            session.send(json.dumps({**message, "type": "snapshot", "cs": number, "data": _ticker(market)}))
        elif kind == "publicTrade" and told != market.trades[-1][0]:
            session.topics[name] = market.trades[-1][0]
            session.send(json.dumps({**message, "type": "snapshot", "data": [_trade(market, market.trades[-1])]}))


def order_row(order: Order) -> dict[str, Any]:
    return {
        "orderId": str(order.id), "orderLinkId": order.client_id, "symbol": order.symbol, "side": order.side,
        "orderType": order.kind, "price": order.price, "qty": order.amount, "cumExecQty": "0", "cumExecValue": "0",
        "avgPrice": "", "timeInForce": "GTC", "orderStatus": "Cancelled" if order.state == CANCELED else "New",
        "createdTime": str(round(order.at * 1e3)), "updatedTime": str(round(order.at * 1e3)), "leavesQty": order.amount,
    }  # fmt: skip


def _instrument(symbol: str) -> dict[str, Any]:
    base, quote, _ = SYMBOLS[symbol]
    lots = {"basePrecision": "0.0001", "quotePrecision": "0.01", "minOrderQty": "0.0001", "maxOrderQty": "100"}
    return {
        "symbol": symbol, "baseCoin": base, "quoteCoin": quote, "status": "Trading", "innovation": "0",
        "marginTrading": "none", "lotSizeFilter": {**lots, "minOrderAmt": "1", "maxOrderAmt": "1000000"},
        "priceFilter": {"tickSize": "0.01"},
    }  # fmt: skip


def _ticker(market: Market) -> dict[str, Any]:
    (bid,), (ask,) = market.book.top(1)
    last = str(market.last())
    return {
        "symbol": market.symbol, "bid1Price": str(bid[0]), "bid1Size": str(bid[1]), "ask1Price": str(ask[0]),
        "ask1Size": str(ask[1]), "lastPrice": last, "prevPrice24h": last, "price24hPcnt": "0", "highPrice24h": last,
        "lowPrice24h": last, "turnover24h": "1000000", "volume24h": "1000", "usdIndexPrice": last,
    }  # fmt: skip


def _trade(market: Market, trade: tuple[int, float, float, str, float]) -> dict[str, Any]:
    number, price, amount, side, at = trade
    return {
        "execId": str(number), "i": str(number), "symbol": market.symbol, "s": market.symbol, "price": str(price),
        "p": str(price), "size": str(amount), "v": str(amount), "side": side.capitalize(), "S": side.capitalize(),
        "time": str(round(at * 1e3)), "T": round(at * 1e3), "isBlockTrade": False, "BT": False,
    }  # fmt: skip


def _public(what: str, market: Market, params: dict[str, str], now: float) -> Any:
    at = round(now * 1e3)
    if what == "tickers":
        return {"category": "spot", "list": [_ticker(market)]}
    if what == "orderbook":
        bids, asks = market.book.top(int(params.get("limit", "1")))
        rows = {"b": [[str(p), str(q)] for p, q in bids], "a": [[str(p), str(q)] for p, q in asks]}
        return {"s": market.symbol, **rows, "ts": at, "u": market.book.number, "seq": market.book.number, "cts": at}
    if what == "kline":
        last = str(market.last())
        minutes = range(int(now // 60) * 60, int(now // 60) * 60 - 300, -60)
        rows_of = [[str(m * 1000), last, last, last, last, "1", "1"] for m in minutes]
        return {"category": "spot", "symbol": market.symbol, "list": rows_of}
    if what == "recent-trade":
        return {"category": "spot", "list": [_trade(market, trade) for trade in reversed(market.trades)][:60]}
    raise Refusal(10001, "no such path")

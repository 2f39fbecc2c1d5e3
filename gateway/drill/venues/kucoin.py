"""Simulated KuCoin: signatures over time, method, un-encoded target and body; streams behind a token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qsl, unquote

from gateway.drill.venues.accounts import CANCELED, Accounts, Order
from gateway.drill.venues.exchange import Session
from gateway.drill.venues.market import Market, Markets
from gateway.drill.venues.wire import Recorded, Reply

KEYS = {"test-key-1": ("test-secret-1", "test-passphrase")}  # credentials of a pretended account
SYMBOLS = {"BTC-USDT": 60000.0, "ETH-USDT": 3000.0}
TOKEN = "token-of-a-pretended-stream"  # noqa: S105 - it opens nothing


class Refusal(Exception):
    """An error in the venue's own words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, json.dumps({"code": code, "msg": message}).encode())


class Kucoin:
    """The venue.  `stream_url` is what a token's answer names; empty: where the request came to."""

    name = "kucoin"

    def __init__(self, now: float) -> None:
        self.markets = Markets(SYMBOLS, now)
        self.accounts = Accounts()
        self.bad_signatures = 0
        self.stream_url = ""
        self._told: dict[str, int] = {}

    def answer(self, request: Recorded, now: float) -> Reply:
        self.markets.advance(now)
        try:
            data = self._serve(request, dict(parse_qsl(request.query.decode("latin-1"))), now)
        except Refusal as refusal:
            return refusal.reply
        return Reply(200, json.dumps({"code": "200000", "data": data}).encode())

    def _serve(self, request: Recorded, params: dict[str, str], now: float) -> Any:
        at, path = round(now * 1e3), request.path.removeprefix("/api/")
        if path == "v1/timestamp":
            return at
        if path == "v1/status":
            return {"status": "open", "msg": ""}
        if path == "v2/symbols":
            return [_symbol(name) for name in SYMBOLS]
        if path in ("v3/currencies", "v3/margin/symbols", "v1/isolated/symbols"):
            return []
        if path in ("v1/bullet-public", "v1/bullet-private"):
            host = (request.header(b"host") or b"").decode()
            server = {"endpoint": self.stream_url or f"ws://{host}/", "protocol": "websocket", "encrypt": False}
            return {"token": TOKEN, "instanceServers": [{**server, "pingInterval": 18000, "pingTimeout": 10000}]}
        if path.startswith(("v1/market/", "v3/market/")):
            return self._public(path.partition("market/")[2], params, at, now)
        account = self._account(request, now)
        return self._private(request, path, params, account, now)

    def _public(self, what: str, params: dict[str, str], at: int, now: float) -> Any:
        if what == "allTickers":
            return {"time": at, "ticker": [_stats(market, at) for market in self.markets.all.values()]}
        market = self.markets.get(params.get("symbol", ""))
        if market is None:
            raise Refusal(400, "900001", "symbol not exists")
        if what == "stats":
            return _stats(market, at)
        if what == "orderbook/level1":
            (bid,), (ask,) = market.book.top(1)
            row = {"time": at, "sequence": str(market.book.number), "price": str(market.last()), "size": "1"}
            return {
                **row,
                "bestBid": str(bid[0]),
                "bestBidSize": str(bid[1]),
                "bestAsk": str(ask[0]),
                "bestAskSize": str(ask[1]),
            }
        if what.startswith("orderbook/level2"):
            bids, asks = market.book.top(100)
            rows = {"bids": [[str(p), str(q)] for p, q in bids], "asks": [[str(p), str(q)] for p, q in asks]}
            return {"time": at, "sequence": str(market.book.number), **rows}
        if what == "candles":
            last = str(market.last())
            minutes = range(int(now // 60) * 60, int(now // 60) * 60 - 300, -60)
            return [[str(m), last, last, last, last, "1", "1"] for m in minutes]
        if what == "histories":
            return [_trade(trade) for trade in list(market.trades)[-50:]]
        raise Refusal(404, "404000", "no such path")

    def _private(self, request: Recorded, path: str, params: dict[str, str], account: str, now: float) -> Any:
        symbol = params.get("symbol", "")
        if path == "v1/accounts":
            return [
                {
                    "id": c,
                    "currency": c,
                    "type": params.get("type", "trade"),
                    "balance": "100",
                    "available": "99",
                    "holds": "1",
                }
                for c in ("BTC", "USDT")
            ]
        if path == "v1/hf/accounts/opened":
            return True
        if path in ("v1/hf/orders", "v1/orders") and request.verb == "POST":
            body = json.loads(request.body)
            order = self.accounts.place(
                account, body.get("clientOid", ""), body["symbol"], body["side"], body.get("type", "limit"),
                body.get("price", "0"), body["size"], now,
            )  # fmt: skip
            if order is None:
                raise Refusal(200, "126044", "clientOid duplicate")
            return {"orderId": str(order.id), "clientOid": order.client_id}
        if path in ("v1/hf/orders/active", "v1/orders"):
            rows = [order_row(order) for order in self.accounts.open_orders(account, symbol)]
            return rows if path.endswith("active") else {"items": rows, "currentPage": 1, "totalNum": len(rows)}
        by_client = "client-order/" in path
        name = path.rpartition("/")[2]
        wanted = {"client_id": name} if by_client else {"number": name}
        if request.verb == "DELETE":
            order = self.accounts.cancel(account, **wanted)
        else:
            order = self.accounts.find(account, **wanted)
        if order is None:
            raise Refusal(200, "400100", "order not exist")
        if request.verb == "DELETE":
            return {"orderId": str(order.id), "clientOid": order.client_id, "cancelledOrderIds": [str(order.id)]}
        return order_row(order)

    def _account(self, request: Recorded, now: float) -> str:
        key = (request.header(b"kc-api-key") or b"").decode()
        if key not in KEYS:
            raise Refusal(401, "400003", "KC-API-KEY not exists")
        secret, passphrase = KEYS[key]
        stamp = (request.header(b"kc-api-timestamp") or b"0").decode()
        text = stamp + request.verb + unquote(request.target.decode("latin-1")) + request.body.decode()
        expected = base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())
        spoken = base64.b64encode(hmac.new(secret.encode(), passphrase.encode(), hashlib.sha256).digest())
        if not (
            hmac.compare_digest(expected, request.header(b"kc-api-sign") or b"")
            and hmac.compare_digest(spoken, request.header(b"kc-api-passphrase") or b"")
        ):
            self.bad_signatures += 1
            raise Refusal(401, "400005", "Invalid KC-API-SIGN")
        if abs(float(stamp) / 1e3 - now) > 5:
            raise Refusal(400, "400002", "KC-API-TIMESTAMP Invalid")
        return key

    # --- streams ----------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        query = dict(parse_qsl(session.target.partition("?")[2]))
        if query.get("token") != TOKEN:
            session.close(4001, "token is invalid")
            return
        session.send(json.dumps({"id": query.get("connectId", ""), "type": "welcome"}))

    def said(self, session: Session, data: str, now: float) -> None:
        message = json.loads(data)
        kind, name = message.get("type"), message.get("topic", "")
        if kind == "ping":
            session.send(json.dumps({"id": message.get("id"), "type": "pong", "timestamp": 1}))
            return
        head, _, symbols = name.partition(":")
        for symbol in symbols.split(","):
            if kind == "subscribe":
                session.topics[f"{head}:{symbol}"] = -1
            else:
                session.topics.pop(f"{head}:{symbol}", None)
        if message.get("response"):
            session.send(json.dumps({"id": message.get("id"), "type": "ack"}))

    def tick(self, sessions: list[Session], now: float) -> None:
        self.markets.advance(now)
        for symbol, market in self.markets.all.items():
            last = self._told.get(symbol, market.book.number)
            self._told[symbol] = market.book.number
            for session in sessions:
                for name in list(session.topics):
                    if name.partition(":")[2] == symbol:
                        self._tell(session, name, market, last, round(now * 1e3))

    def _tell(self, session: Session, name: str, market: Market, last: int, at: int) -> None:
        number = market.book.number
        message: dict[str, Any] = {"type": "message", "topic": name}
        if name.startswith("/market/level2:"):
            changes = [change for change in market.changes if change.number > last]
            if not changes:
                return
            rows = {
                side: [[str(c.price), str(c.quantity), str(c.number)] for c in changes if c.side == side]
                for side in ("bids", "asks")
            }
            data = {
                "changes": rows,
                "sequenceStart": last + 1,
                "sequenceEnd": number,
                "symbol": market.symbol,
                "time": at,
            }
            session.send(json.dumps({**message, "subject": "trade.l2update", "data": data}))
        elif name.startswith(("/market/ticker:", "/market/snapshot:")) and session.topics[name] != number:
            session.topics[name] = number
            (bid,), (ask,) = market.book.top(1)
            row = {
                "sequence": str(number),
                "price": str(market.last()),
                "size": "1",
                "time": at,
                "symbol": market.symbol,
            }
            row |= {
                "bestBid": str(bid[0]),
                "bestBidSize": str(bid[1]),
                "bestAsk": str(ask[0]),
                "bestAskSize": str(ask[1]),
            }
            if "snapshot" in name:
                stats = {**_stats(market, at), "lastTradedPrice": market.last(), "datetime": at}
                session.send(
                    json.dumps(
                        {**message, "subject": "trade.snapshot", "data": {"sequence": str(number), "data": stats}}
                    )
                )
            else:
                session.send(json.dumps({**message, "subject": "trade.ticker", "data": row}))
        elif name.startswith("/market/match:") and session.topics[name] != market.trades[-1][0]:
            session.topics[name] = market.trades[-1][0]
            data = {
                **_trade(market.trades[-1]),
                "symbol": market.symbol,
                "type": "match",
                "tradeId": str(market.trades[-1][0]),
            }
            session.send(json.dumps({**message, "subject": "trade.l3match", "data": data}))


def order_row(order: Order) -> dict[str, Any]:
    return {
        "id": str(order.id), "clientOid": order.client_id, "symbol": order.symbol,
        "side": order.side, "type": order.kind,
        "price": order.price, "size": order.amount, "dealSize": "0", "dealFunds": "0", "fee": "0",
        "feeCurrency": "USDT",
        "isActive": order.state != CANCELED, "active": order.state != CANCELED, "cancelExist": order.state == CANCELED,
        "inOrderBook": order.state != CANCELED, "createdAt": round(order.at * 1e3), "timeInForce": "GTC",
    }  # fmt: skip


def _symbol(name: str) -> dict[str, Any]:
    base, quote = name.split("-")
    return {
        "symbol": name, "name": name, "baseCurrency": base, "quoteCurrency": quote, "feeCurrency": quote,
        "market": "USDS", "baseMinSize": "0.0001", "quoteMinSize": "0.1", "baseMaxSize": "1000",
        "quoteMaxSize": "10000000", "baseIncrement": "0.0001", "quoteIncrement": "0.01", "priceIncrement": "0.01",
        "priceLimitRate": "0.1", "minFunds": "0.1", "isMarginEnabled": False, "enableTrading": True,
    }  # fmt: skip


def _stats(market: Market, at: int) -> dict[str, Any]:
    (bid,), (ask,) = market.book.top(1)
    last = str(market.last())
    return {
        "time": at, "symbol": market.symbol, "buy": str(bid[0]), "sell": str(ask[0]), "changeRate": "0",
        "changePrice": "0", "high": last, "low": last, "vol": "1000", "volValue": "1000000", "last": last,
        "averagePrice": last, "symbolName": market.symbol,
    }  # fmt: skip


def _trade(trade: tuple[int, float, float, str, float]) -> dict[str, Any]:
    number, price, amount, side, at = trade
    return {"sequence": str(number), "price": str(price), "size": str(amount), "side": side, "time": round(at * 1e9)}

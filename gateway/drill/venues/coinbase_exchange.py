"""Simulated Coinbase Exchange: signatures over time, method, target and body with a decoded secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from gateway.drill.venues.accounts import CANCELED, Accounts, Order
from gateway.drill.venues.exchange import Session
from gateway.drill.venues.market import Market, Markets
from gateway.drill.venues.wire import Recorded, Reply

KEYS = {"test-key-1": (base64.b64encode(b"a secret of a pretended account").decode(), "test-passphrase")}
SYMBOLS = {"BTC-USD": 60000.0, "ETH-USD": 3000.0}


class Refusal(Exception):
    """An error in the venue's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, json.dumps({"message": message}).encode())


class CoinbaseExchange:
    """The venue."""

    name = "coinbase_exchange"

    def __init__(self, now: float) -> None:
        self.markets = Markets(SYMBOLS, now)
        self.accounts = Accounts()
        self.bad_signatures = 0
        self._told: dict[str, int] = {}

    def answer(self, request: Recorded, now: float) -> Reply:
        self.markets.advance(now)
        try:
            return Reply(200, json.dumps(self._serve(request, dict(parse_qsl(request.query.decode())), now)).encode())
        except Refusal as refusal:
            return refusal.reply

    def _serve(self, request: Recorded, params: dict[str, str], now: float) -> Any:
        path = request.path
        if path == "/time":
            return {"iso": iso(now), "epoch": now}
        if path == "/products":
            return [_product(name) for name in SYMBOLS]
        if path == "/currencies":
            return [
                {"id": c, "name": c, "status": "online", "max_precision": "0.0001", "details": {}}
                for c in ("BTC", "ETH", "USD")
            ]
        if path.startswith("/products/"):
            _, _, symbol, what = path.split("/")
            market = self.markets.get(symbol)
            if market is None:
                raise Refusal(404, "NotFound")
            return public(what, market, params, now)
        account = self._account(request, now)
        if path == "/accounts":
            return [{"id": c, "currency": c, "balance": "100", "available": "99", "hold": "1"} for c in ("BTC", "USD")]
        if path == "/orders" and request.verb == "POST":
            body = json.loads(request.body)
            order = self.accounts.place(
                account, body.get("client_oid", ""), body["product_id"], body["side"], body.get("type", "limit"),
                body.get("price", "0"), body["size"], now,
            )  # fmt: skip
            if order is None:
                raise Refusal(400, "duplicate client_oid")
            return order_row(order)
        if path == "/orders":
            return [order_row(order) for order in self.accounts.open_orders(account, params.get("product_id", ""))]
        name = path.rpartition("/")[2]
        wanted = {"client_id": name[7:]} if name.startswith("client:") else {"number": name}
        order = (
            self.accounts.cancel(account, **wanted)
            if request.verb == "DELETE"
            else self.accounts.find(account, **wanted)
        )
        if order is None:
            raise Refusal(404, "order not found")
        return str(order.id) if request.verb == "DELETE" else order_row(order)

    def _account(self, request: Recorded, now: float) -> str:
        key = (request.header(b"cb-access-key") or b"").decode()
        if key not in KEYS:
            raise Refusal(401, "Invalid API Key")
        secret, passphrase = KEYS[key]
        stamp = request.header(b"cb-access-timestamp") or b"0"
        text = stamp + request.verb.encode() + request.target + request.body
        expected = base64.b64encode(hmac.new(base64.b64decode(secret), text, hashlib.sha256).digest())
        if (
            not hmac.compare_digest(expected, request.header(b"cb-access-sign") or b"")
            or (request.header(b"cb-access-passphrase") or b"").decode() != passphrase
        ):
            self.bad_signatures += 1
            raise Refusal(400, "invalid signature")
        if abs(float(stamp) - now) > 30:
            raise Refusal(400, "request timestamp expired")
        return key

    # --- streams ----------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        """It waits to be asked."""

    def said(self, session: Session, data: str, now: float) -> None:
        message = json.loads(data)
        symbols = message.get("product_ids", [])
        for channel in message.get("channels", []):
            name = channel if isinstance(channel, str) else channel["name"]
            for symbol in symbols or channel.get("product_ids", []):
                if message["type"] == "subscribe":
                    session.topics[f"{name} {symbol}"] = -1
                else:
                    session.topics.pop(f"{name} {symbol}", None)
        rows: dict[str, list[str]] = {}
        for topic in session.topics:
            rows.setdefault(topic.partition(" ")[0], []).append(topic.partition(" ")[2])
        channels = [{"name": name, "product_ids": ids} for name, ids in rows.items()]
        session.send(json.dumps({"type": "subscriptions", "channels": channels}))

    def tick(self, sessions: list[Session], now: float) -> None:
        self.markets.advance(now)
        for symbol, market in self.markets.all.items():
            for session in sessions:
                for name in list(session.topics):
                    if name.partition(" ")[2] == symbol:
                        self._tell(session, name, market, now)

    def _tell(self, session: Session, name: str, market: Market, now: float) -> None:
        channel, told, number = name.partition(" ")[0], session.topics[name], market.book.number
        message: dict[str, Any] = {"product_id": market.symbol, "time": iso(now)}
        if channel in ("level2", "level2_batch", "level2_50"):
            if told < 0:
                bids, asks = market.book.top(50)
                message |= {
                    "type": "snapshot",
                    "bids": [[str(p), str(q)] for p, q in bids],
                    "asks": [[str(p), str(q)] for p, q in asks],
                }
            else:
                changes = [c for c in market.changes if c.number > told]
                if not changes:
                    return
                rows = [["buy" if c.side == "bids" else "sell", str(c.price), str(c.quantity)] for c in changes]
                message |= {"type": "l2update", "changes": rows}
            session.topics[name] = number
        elif channel == "ticker" and told != number:
            session.topics[name] = number
            (bid,), (ask,) = market.book.top(1)
            last = str(market.last())
            message |= {"type": "ticker", "sequence": number, "price": last, "open_24h": last, "volume_24h": "1"}
            message |= {
                "low_24h": last,
                "high_24h": last,
                "volume_30d": "1",
                "best_bid": str(bid[0]),
                "best_ask": str(ask[0]),
            }
            message |= {"side": "buy", "trade_id": market.trades[-1][0], "last_size": "1"}
        elif channel == "matches" and told != market.trades[-1][0]:
            n, price, amount, side, _ = market.trades[-1]
            session.topics[name] = n
            message |= {
                "type": "match",
                "trade_id": n,
                "sequence": number,
                "size": str(amount),
                "price": str(price),
                "side": side,
            }
            message |= {"maker_order_id": "m", "taker_order_id": "t"}
        else:
            return
        session.send(json.dumps(message))


def iso(now: float) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def public(what: str, market: Market, params: dict[str, str], now: float) -> Any:
    """One product's public data."""
    (bid,), (ask,) = market.book.top(1)
    last = str(market.last())
    if what == "ticker":
        row = {"trade_id": market.trades[-1][0], "price": last, "size": "1", "time": iso(now), "volume": "1000"}
        return {**row, "bid": str(bid[0]), "ask": str(ask[0])}
    if what == "stats":
        return {"open": last, "high": last, "low": last, "last": last, "volume": "1000", "volume_30day": "30000"}
    if what == "book":
        bids, asks = market.book.top(50)
        rows = {"bids": [[str(p), str(q), 1] for p, q in bids], "asks": [[str(p), str(q), 1] for p, q in asks]}
        return {**rows, "sequence": market.book.number, "auction_mode": False, "time": iso(now)}
    if what == "candles":
        price = market.last()
        return [
            [m, price, price, price, price, 1.0] for m in range(int(now // 60) * 60, int(now // 60) * 60 - 300, -60)
        ]
    if what == "trades":
        rows_of = [
            {"trade_id": n, "side": s, "size": str(q), "price": str(p), "time": iso(t)}
            for n, p, q, s, t in market.trades
        ]
        return rows_of[::-1][:100]
    raise Refusal(404, "NotFound")


def order_row(order: Order) -> dict[str, Any]:
    return {
        "id": str(order.id), "client_oid": order.client_id, "product_id": order.symbol, "side": order.side,
        "type": order.kind, "price": order.price, "size": order.amount, "filled_size": "0", "executed_value": "0",
        "fill_fees": "0", "status": "done" if order.state == CANCELED else "open", "settled": False, "post_only": False,
        "done_reason": "canceled" if order.state == CANCELED else None,
        "created_at": iso(order.at), "time_in_force": "GTC",
    }  # fmt: skip


def _product(name: str) -> dict[str, Any]:
    base, quote = name.split("-")
    return {
        "id": name, "base_currency": base, "quote_currency": quote, "base_increment": "0.0001",
        "quote_increment": "0.01",
        "min_market_funds": "1", "display_name": name.replace("-", "/"), "status": "online", "trading_disabled": False,
        "cancel_only": False, "post_only": False, "limit_only": False, "auction_mode": False,
    }  # fmt: skip

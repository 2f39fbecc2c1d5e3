"""Simulated OKX v5: signatures over time, method, path and body; errors inside 200; books with seqId and prevSeqId."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qsl

from gateway.dialect.instants import instant
from gateway.drill.venues.accounts import CANCELED, Accounts, Order
from gateway.drill.venues.exchange import Session
from gateway.drill.venues.market import Market, Markets
from gateway.drill.venues.wire import Recorded, Reply

KEYS = {"test-key-1": ("test-secret-1", "test-passphrase")}  # credentials of a pretended account
SYMBOLS = {"BTC-USDT": 60000.0, "ETH-USDT": 3000.0}


class Refusal(Exception):
    """An error in the venue's own words."""

    def __init__(self, status: int, code: str, message: str, data: list[Any] | None = None) -> None:
        super().__init__(message)
        self.reply = Reply(status, json.dumps({"code": code, "data": data or [], "msg": message}).encode())


class Okx:
    """The venue."""

    name = "okx"

    def __init__(self, now: float) -> None:
        self.markets = Markets(SYMBOLS, now)
        self.accounts = Accounts()
        self.bad_signatures = 0
        self._told: dict[str, int] = {}

    def answer(self, request: Recorded, now: float) -> Reply:
        self.markets.advance(now)
        try:
            data = self._serve(request, dict(parse_qsl(request.query.decode("latin-1"))), now)
        except Refusal as refusal:
            return refusal.reply
        return Reply(200, json.dumps({"code": "0", "data": data, "msg": ""}).encode())

    def _serve(self, request: Recorded, params: dict[str, str], now: float) -> Any:
        at, path = str(round(now * 1e3)), request.path.removeprefix("/api/v5/")
        if path == "public/time":
            return [{"ts": at}]
        if path == "system/status":
            return []
        if path == "public/instruments":
            return [_instrument(name) for name in SYMBOLS] if params.get("instType") == "SPOT" else []
        if path == "market/tickers":
            return [_ticker(market, at) for market in self.markets.all.values()]
        if path.startswith("market/"):
            market = self.markets.get(params.get("instId", ""))
            if market is None:
                raise Refusal(200, "51001", "Instrument ID does not exist")
            return _public(path.removeprefix("market/"), market, params, at, now)
        account = self._account(request, now)
        if path == "account/balance":
            rows = [
                {"ccy": c, "cashBal": "100", "availBal": "99", "frozenBal": "1", "eq": "100"} for c in ("BTC", "USDT")
            ]
            return [{"details": rows, "uTime": at, "totalEq": "1"}]
        if path == "account/config":
            return [{"acctLv": "1", "posMode": "net_mode", "uid": "1"}]
        if path == "asset/currencies":
            return []
        return self._orders(request, path, params, account, now)

    def _orders(self, request: Recorded, path: str, params: dict[str, str], account: str, now: float) -> Any:
        if path == "trade/orders-pending":
            return [order_row(order) for order in self.accounts.open_orders(account, params.get("instId", ""))]
        if path == "trade/order" and request.verb == "GET":
            order = self.accounts.find(account, params.get("clOrdId", ""), params.get("ordId", ""))
            if order is None:
                raise Refusal(200, "51603", "Order does not exist")
            return [order_row(order)]
        body = json.loads(request.body)
        items = body if isinstance(body, list) else [body]
        rows = []
        for item in items:
            if "cancel" in path:
                order = self.accounts.cancel(account, item.get("clOrdId", ""), item.get("ordId", ""))
            else:
                order = self.accounts.place(
                    account, item.get("clOrdId", ""), item["instId"], item["side"], item["ordType"],
                    item.get("px", "0"), item["sz"], now,
                )  # fmt: skip
            if order is None:
                rows.append({"sCode": "51400" if "cancel" in path else "51016", "sMsg": "refused", "ordId": ""})
            else:
                rows.append({"sCode": "0", "sMsg": "", "ordId": str(order.id), "clOrdId": order.client_id, "ts": "1"})
        if all(row["sCode"] != "0" for row in rows):
            raise Refusal(200, "1", "All operations failed", rows)
        return rows

    def _account(self, request: Recorded, now: float) -> str:
        key = (request.header(b"ok-access-key") or b"").decode()
        if key not in KEYS:
            raise Refusal(401, "50111", "Invalid OK-ACCESS-KEY")
        secret, passphrase = KEYS[key]
        stamp = request.header(b"ok-access-timestamp") or b""
        text = stamp + request.verb.encode() + request.target + request.body
        expected = base64.b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest())
        if (
            not hmac.compare_digest(expected, request.header(b"ok-access-sign") or b"")
            or (request.header(b"ok-access-passphrase") or b"").decode() != passphrase
        ):
            self.bad_signatures += 1
            raise Refusal(401, "50113", "Invalid signature")
        if abs((instant(stamp.decode(), "iso") or 0.0) - now) > 30:
            raise Refusal(401, "50102", "Timestamp request expired")
        return key

    # --- streams ----------------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        """It waits to be asked."""

    def said(self, session: Session, data: str, now: float) -> None:
        if data == "ping":
            session.send("pong")
            return
        message = json.loads(data)
        op = message.get("op")
        if op == "login":
            session.send(json.dumps({"event": "login", "code": "0", "msg": "", "connId": "1"}))
            return
        for arg in message.get("args", []):
            name = json.dumps(arg, sort_keys=True)
            if self.markets.get(arg.get("instId", "")) is None:
                session.send(json.dumps({"event": "error", "code": "60018", "msg": f"Wrong arg {arg}", "connId": "1"}))
                continue
            session.send(json.dumps({"event": op, "arg": arg, "connId": "1"}))
            if op == "subscribe":
                session.topics[name] = [arg, -1]
            else:
                session.topics.pop(name, None)

    def tick(self, sessions: list[Session], now: float) -> None:
        self.markets.advance(now)
        for symbol, market in self.markets.all.items():
            last = self._told.get(symbol, market.book.number)
            self._told[symbol] = market.book.number
            for session in sessions:
                for topic in session.topics.values():
                    if topic[0]["instId"] == symbol:
                        self._tell(session, topic, market, last, str(round(now * 1e3)))

    def _tell(self, session: Session, topic: list[Any], market: Market, last: int, at: str) -> None:
        arg, told = topic
        channel, number = arg["channel"], market.book.number
        message: dict[str, Any] = {"arg": arg}
        if channel.startswith("books") and channel != "books5":
            if told < 0:
                message["action"] = "snapshot"
                row = _book(market, 400, at)
                row["prevSeqId"] = -1
            elif number == last:
                return
            else:
                message["action"] = "update"
                changes = [change for change in market.changes if told < change.number]
                row = {
                    side: [[str(c.price), str(c.quantity), "0", "1"] for c in changes if c.side == side]
                    for side in ("bids", "asks")
                }
                row |= {"ts": at, "prevSeqId": told}
            row["seqId"] = number
            topic[1] = number
            message["data"] = [row]
        elif channel == "books5" or channel == "bbo-tbt":
            message["data"] = [
                {**_book(market, 5 if channel == "books5" else 1, at), "seqId": number, "instId": market.symbol}
            ]
        elif channel == "tickers":
            message["data"] = [_ticker(market, at)]
        elif channel == "trades":
            trade = market.trades[-1]
            if told == trade[0]:
                return
            topic[1] = trade[0]
            message["data"] = [_trade(market, trade)]
        else:
            return
        session.send(json.dumps(message))


def order_row(order: Order) -> dict[str, Any]:
    return {
        "instId": order.symbol, "instType": "SPOT", "ordId": str(order.id), "clOrdId": order.client_id,
        "side": order.side, "ordType": order.kind, "px": order.price, "sz": order.amount, "accFillSz": "0", "avgPx": "",
        "state": "canceled" if order.state == CANCELED else "live", "cTime": str(round(order.at * 1e3)),
        "uTime": str(round(order.at * 1e3)), "fee": "0", "feeCcy": "BTC", "tgtCcy": "", "tdMode": "cash",
    }  # fmt: skip


def _instrument(name: str) -> dict[str, Any]:
    base, quote = name.split("-")
    return {
        "instType": "SPOT", "instId": name, "baseCcy": base, "quoteCcy": quote, "state": "live", "tickSz": "0.1",
        "lotSz": "0.0001", "minSz": "0.0001", "ctVal": "", "ctMult": "", "expTime": "", "listTime": "1600000000000",
        "lever": "", "uly": "", "settleCcy": "", "maxLmtSz": "1000", "maxMktSz": "1000",
    }  # fmt: skip


def _ticker(market: Market, at: str) -> dict[str, Any]:
    (bid,), (ask,) = market.book.top(1)
    last = str(market.last())
    return {
        "instType": "SPOT", "instId": market.symbol, "last": last, "lastSz": "1", "askPx": str(ask[0]),
        "askSz": str(ask[1]), "bidPx": str(bid[0]), "bidSz": str(bid[1]), "open24h": last, "high24h": last,
        "low24h": last, "volCcy24h": "1000000", "vol24h": "1000", "sodUtc0": last, "sodUtc8": last, "ts": at,
    }  # fmt: skip


def _book(market: Market, depth: int, at: str) -> dict[str, Any]:
    bids, asks = market.book.top(depth)
    rows = {"bids": bids, "asks": asks}
    return {"ts": at, **{side: [[str(p), str(q), "0", "1"] for p, q in levels] for side, levels in rows.items()}}


def _trade(market: Market, trade: tuple[int, float, float, str, float]) -> dict[str, Any]:
    number, price, amount, side, at = trade
    return {
        "instId": market.symbol, "tradeId": str(number), "px": str(price), "sz": str(amount), "side": side,
        "ts": str(round(at * 1e3)),
    }  # fmt: skip


def _public(what: str, market: Market, params: dict[str, str], at: str, now: float) -> Any:
    if what == "ticker":
        return [_ticker(market, at)]
    if what in ("books", "books-full"):
        return [_book(market, int(params.get("sz", "1")), at)]
    if what in ("candles", "history-candles"):
        last = str(market.last())
        minutes = range(int(now // 60) * 60, int(now // 60) * 60 - 300, -60)
        return [[str(m * 1000), last, last, last, last, "1", "1", "1", "1"] for m in minutes]
    if what in ("trades", "history-trades"):
        return [_trade(market, trade) for trade in reversed(market.trades)][:100]
    raise Refusal(404, "404", "no such path")

"""Simulated Kraken spot: nonces that must rise, errors inside 200, books with a checksum over their best levels."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qsl

from gateway.drill.venues.accounts import CANCELED, Accounts, Order
from gateway.drill.venues.exchange import Session
from gateway.drill.venues.market import Market, Markets
from gateway.drill.venues.wire import Recorded, Reply

KEYS = {f"test-key-{n}": base64.b64encode(b"a secret of a pretended account").decode() for n in (1, 2, 3)}
SYMBOLS = {
    "XXBTZUSD": ("XXBT", "ZUSD", "XBTUSD", "XBT/USD", 60000.0),
    "XETHZUSD": ("XETH", "ZUSD", "ETHUSD", "ETH/USD", 3000.0),
}
NAMES = {"XBT/USD": "BTC/USD"}  # streams know it by the other name


class Refusal(Exception):
    """An error in the venue's own words."""


class Kraken:
    """The venue.  `out_of_order` counts nonces that did not rise."""

    name = "kraken"

    def __init__(self, now: float) -> None:
        self.markets = Markets({symbol: facts[4] for symbol, facts in SYMBOLS.items()}, now)
        self.accounts = Accounts()
        self.bad_signatures = 0
        self.out_of_order = 0
        self._nonces: dict[str, int] = {}

    def answer(self, request: Recorded, now: float) -> Reply:
        self.markets.advance(now)
        error: list[str] = []
        result: Any = {}
        try:
            if request.path.startswith("/0/public/"):
                result = self._public(
                    request.path.rpartition("/")[2], dict(parse_qsl(request.query.decode("latin-1"))), now
                )
            else:
                params = dict(parse_qsl(request.body.decode("latin-1")))
                result = self._private(request.path.rpartition("/")[2], params, self._account(request, params), now)
        except Refusal as refusal:
            error = [str(refusal)]
        return Reply(200, json.dumps({"error": error, "result": result}).encode())

    def _public(self, what: str, params: dict[str, str], now: float) -> Any:
        if what == "Time":
            return {"unixtime": int(now), "rfc1123": ""}
        if what == "SystemStatus":
            return {"status": "online", "timestamp": ""}
        if what == "Assets":
            names = {"XXBT": "XBT", "XETH": "ETH", "ZUSD": "USD"}
            row = {"aclass": "currency", "decimals": 10, "display_decimals": 5, "status": "enabled"}
            return {name: {**row, "altname": alt} for name, alt in names.items()}
        if what == "AssetPairs":
            return {symbol: _pair(symbol) for symbol in SYMBOLS}
        wanted = params.get("pair", "XXBTZUSD")
        symbol = next((s for s, facts in SYMBOLS.items() if wanted in (s, facts[2], facts[3])), "")
        market = self.markets.get(symbol)
        if market is None:
            raise Refusal("EQuery:Unknown asset pair")
        last = str(market.last())
        if what == "Ticker":
            (bid,), (ask,) = market.book.top(1)
            row = {"a": [str(ask[0]), "1", str(ask[1])], "b": [str(bid[0]), "1", str(bid[1])], "c": [last, "1"]}
            return {
                symbol: {
                    **row,
                    "v": ["1", "1"],
                    "p": [last, last],
                    "t": [1, 1],
                    "l": [last, last],
                    "h": [last, last],
                    "o": last,
                }
            }
        if what == "Depth":
            bids, asks = market.book.top(int(params.get("count", "100")))
            rows = {"bids": bids, "asks": asks}
            return {symbol: {side: [[str(p), str(q), int(now)] for p, q in levels] for side, levels in rows.items()}}
        if what == "OHLC":
            minutes = range(int(now // 60) * 60 - 240, int(now // 60) * 60 + 60, 60)
            return {symbol: [[m, last, last, last, last, last, "1", 1] for m in minutes], "last": int(now)}
        if what == "Trades":
            rows_of = [[str(p), str(q), t, s[0], "l", "", n] for n, p, q, s, t in list(market.trades)[-50:]]
            return {symbol: rows_of, "last": str(round(now * 1e9))}
        raise Refusal("EGeneral:Unknown method")

    def _private(self, what: str, params: dict[str, str], account: str, now: float) -> Any:
        if what in ("Balance", "BalanceEx"):
            return {
                name: {"balance": "100", "hold_trade": "1"} if what.endswith("Ex") else "100"
                for name in ("XXBT", "ZUSD")
            }
        if what == "AddOrder":
            order = self.accounts.place(
                account, params.get("cl_ord_id", ""), params["pair"], params["type"], params["ordertype"],
                params.get("price", "0"), params["volume"], now,
            )  # fmt: skip
            if order is None:
                raise Refusal("EOrder:Duplicate cl_ord_id")
            return {
                "descr": {"order": f"{order.side} {order.amount} {order.symbol} @ limit {order.price}"},
                "txid": [f"O{order.id}"],
            }
        if what == "CancelOrder":
            order = self.accounts.cancel(account, number=params.get("txid", "").removeprefix("O"))
            if order is None:
                raise Refusal("EOrder:Unknown order")
            return {"count": 1}
        if what == "QueryOrders":
            found = [self.accounts.find(account, number=n.removeprefix("O")) for n in params.get("txid", "").split(",")]
            return {f"O{order.id}": order_row(order) for order in found if order is not None}
        if what == "OpenOrders":
            return {"open": {f"O{order.id}": order_row(order) for order in self.accounts.open_orders(account)}}
        if what == "GetWebSocketsToken":
            return {"token": "pretended", "expires": 900}
        raise Refusal("EGeneral:Unknown method")

    def _account(self, request: Recorded, params: dict[str, str]) -> str:
        key = (request.header(b"api-key") or b"").decode()
        if key not in KEYS:
            raise Refusal("EAPI:Invalid key")
        nonce = params.get("nonce", "0")
        digest = hashlib.sha256(nonce.encode() + request.body).digest()
        text = request.path.encode() + digest
        expected = base64.b64encode(hmac.new(base64.b64decode(KEYS[key]), text, hashlib.sha512).digest())
        if not hmac.compare_digest(expected, request.header(b"api-sign") or b""):
            self.bad_signatures += 1
            raise Refusal("EAPI:Invalid signature")
        if int(nonce) <= self._nonces.get(key, 0):
            self.out_of_order += 1
            raise Refusal("EAPI:Invalid nonce")
        self._nonces[key] = int(nonce)
        return key

    # --- streams (v2) -----------------------------------------------------------------------------

    def opened(self, session: Session) -> None:
        status = {"system": "online", "api_version": "v2", "connection_id": 1, "version": "2.0"}
        session.send(json.dumps({"channel": "status", "type": "update", "data": [status]}))

    def said(self, session: Session, data: str, now: float) -> None:
        message = json.loads(data)
        method, params = message.get("method"), message.get("params", {})
        if method == "ping":
            session.send(json.dumps({"method": "pong", "req_id": message.get("req_id")}))
            return
        channel = params.get("channel", "")
        for symbol in params.get("symbol", []):
            result = {"channel": channel, "symbol": symbol, "snapshot": True}
            if channel == "book":
                result["depth"] = params.get("depth", 10)
            if method == "subscribe":
                session.topics[f"{channel} {symbol}"] = [channel, symbol, result.get("depth", 10), -1]
            else:
                session.topics.pop(f"{channel} {symbol}", None)
            answer = {"method": method, "result": result, "success": True, "time_in": "", "time_out": ""}
            session.send(json.dumps({**answer, "req_id": message.get("req_id")}))

    def tick(self, sessions: list[Session], now: float) -> None:
        self.markets.advance(now)
        for symbol, market in self.markets.all.items():
            name = NAMES.get(SYMBOLS[symbol][3], SYMBOLS[symbol][3])
            for session in sessions:
                if now - session.state.get("beat", 0.0) > 1.0:
                    session.state["beat"] = now
                    session.send(json.dumps({"channel": "heartbeat"}))
                for topic in session.topics.values():
                    if topic[1] == name:
                        self._tell(session, topic, market, name)

    def _tell(self, session: Session, topic: list[Any], market: Market, name: str) -> None:
        channel, _, depth, told = topic[:4]
        number = market.book.number
        stamp = "2026-01-01T00:00:00.000000Z"
        if channel == "book" and told != number:
            bids, asks = market.book.top(depth)
            rows = {"bids": bids, "asks": asks}
            kind, data = (
                "snapshot",
                {side: [{"price": p, "qty": q} for p, q in levels] for side, levels in rows.items()},
            )
            if told >= 0:
                kind = "update"
                before = topic[4]
                now_rows = {side: dict(levels) for side, levels in rows.items()}
                data = {}
                for side, levels in now_rows.items():
                    gone = [{"price": p, "qty": 0} for p in before[side] if p not in levels]
                    came = [{"price": p, "qty": q} for p, q in levels.items() if before[side].get(p) != q]
                    data[side] = gone + came
            topic[3:] = [number, {side: dict(levels) for side, levels in rows.items()}]
            row = {"symbol": name, **data, "checksum": checksum(bids[:10], asks[:10]), "timestamp": stamp}
            session.send(json.dumps({"channel": "book", "type": kind, "data": [row]}))
        elif channel == "ticker" and told != number:
            topic[3] = number
            (bid,), (ask,) = market.book.top(1)
            last = market.last()
            row = {"symbol": name, "bid": bid[0], "bid_qty": bid[1], "ask": ask[0], "ask_qty": ask[1], "last": last}
            row |= {"volume": 1.0, "vwap": last, "low": last, "high": last, "change": 0.0, "change_pct": 0.0}
            session.send(json.dumps({"channel": "ticker", "type": "update", "data": [row]}))
        elif channel == "trade" and told != market.trades[-1][0]:
            n, price, amount, side, _ = market.trades[-1]
            topic[3] = n
            row = {"symbol": name, "side": side, "price": price, "qty": amount, "ord_type": "limit", "trade_id": n}
            session.send(json.dumps({"channel": "trade", "type": "update", "data": [{**row, "timestamp": stamp}]}))


def checksum(bids: list[tuple[float, float]], asks: list[tuple[float, float]]) -> int:
    """CRC32 over the ten best asks and bids, as the venue documents it."""

    def text(value: float, places: int) -> str:
        return f"{value:.{places}f}".replace(".", "").lstrip("0")

    return binascii.crc32("".join(text(p, 1) + text(q, 8) for p, q in (*asks, *bids)).encode())


def order_row(order: Order) -> dict[str, Any]:
    descr = {"pair": order.symbol, "type": order.side, "ordertype": order.kind, "price": order.price, "order": ""}
    return {
        "status": "canceled" if order.state == CANCELED else "open", "opentm": order.at, "descr": descr,
        "vol": order.amount, "vol_exec": "0", "cost": "0", "fee": "0", "price": "0", "cl_ord_id": order.client_id,
        "misc": "", "oflags": "fciq", "userref": None,
    }  # fmt: skip


def _pair(symbol: str) -> dict[str, Any]:
    base, quote, alt, ws, _ = SYMBOLS[symbol]
    return {
        "altname": alt, "wsname": ws, "aclass_base": "currency", "base": base,
        "aclass_quote": "currency", "quote": quote,
        "lot": "unit", "cost_decimals": 5, "pair_decimals": 1, "lot_decimals": 8,
        "lot_multiplier": 1, "leverage_buy": [],
        "leverage_sell": [], "fees": [[0, 0.26]], "fees_maker": [[0, 0.16]], "ordermin": "0.0001", "costmin": "0.5",
        "tick_size": "0.1", "status": "online", "fee_volume_currency": "ZUSD", "margin_call": 80, "margin_stop": 40,
    }  # fmt: skip

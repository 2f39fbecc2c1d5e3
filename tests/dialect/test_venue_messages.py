"""Messages of exchanges' streams: what is shared, what callers are answered, and what is heard."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dialect.venue import venue_named, venue_names
from gateway.dialect.venue_messages import MAX_KEY, Heard, Messages, Wanted

OKX_BOOKS = '{"channel":"books","instId":"BTC-USDT"}'


def messages(name: str, which: int = 0) -> Messages:
    venue = venue_named(name)
    assert venue is not None
    assert venue.streams is not None
    return Messages(venue.streams.sharing[which])


ASKED = {
    "binance": (b'{"method":"SUBSCRIBE","params":["btcusdt@depth"],"id":"x"}', [b'{"result":null,"id":"x"}']),
    "binance_usdm": (b'{"method":"SUBSCRIBE","params":["btcusdt@depth"]}', [b'{"result":null,"id":null}']),
    "okx": (
        b'{"id":"7","op":"subscribe","args":[{"instId":"BTC-USDT","channel":"books"}]}',
        [f'{{"id":"7","event":"subscribe","arg":{OKX_BOOKS},"connId":"seawall"}}'.encode()],
    ),
    "bybit": (
        b'{"op":"subscribe","args":["orderbook.50.BTCUSDT"],"req_id":"q"}',
        [b'{"success":true,"ret_msg":"subscribe","conn_id":"seawall","req_id":"q","op":"subscribe"}'],
    ),
    "kucoin": (
        b'{"id":"7","action":"SUBSCRIBE","channel":"obu","tradeType":"SPOT","symbol":"BTC-USDT","depth":"increment@10ms"}',
        [b'{"id":"7","result":true}'],
    ),
    "bitget": (
        b'{"op":"subscribe","args":[{"instType":"SPOT","channel":"books5","instId":"BTCUSDT"}]}',
        [b'{"event":"subscribe","arg":{"channel":"books5","instId":"BTCUSDT","instType":"SPOT"}}'],
    ),
    "gate": (
        b'{"id":9,"time":1611541000,"channel":"spot.obu","event":"subscribe","payload":["ob.BTC_USDT.50"]}',
        [
            b'{"id":9,"channel":"spot.obu","event":"subscribe","payload":["ob.BTC_USDT.50"],'
            b'"error":null,"result":{"status":"success"}}'
        ],
    ),
    "coinbase_exchange": (
        b'{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}',
        [b'{"type":"subscriptions","channels":[{"name":"level2_batch","product_ids":["BTC-USD"]}]}'],
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_caller_is_answered_in_the_exchanges_shape_with_its_own_number(name: str) -> None:
    text, answers = ASKED[name]
    wanted = messages(name).wanted(text)
    assert wanted is not None
    assert wanted.shared
    assert messages(name).acknowledged(wanted, wanted.topics) == answers


def test_a_number_that_a_caller_did_not_give_is_not_made_up() -> None:
    wanted = messages("okx").wanted(f'{{"op":"subscribe","args":[{OKX_BOOKS}]}}'.encode())
    assert wanted is not None
    assert b'"id"' not in messages("okx").acknowledged(wanted)[0]
    assert json.loads(messages("bybit").answered(b'{"op":"ping"}', ()) or b"")["req_id"] == ""


@pytest.mark.parametrize(
    ("name", "topic"),
    [
        ("binance", '"btcusdt@newStream"'),
        ("binance", '"' + "x" * 300 + '@depth"'),
        ("binance", '{"channel":"books"}'),
        ("binance", '"{\\"x\\":1}@depth"'),
        ("okx", '{"channel":"instruments","instType":"SPOT"}'),  # begins with everything and goes on with changes
        ("okx", '{"channel":"books","instId":"BTC-USDT","more":"x"}'),  # would not come back as it was asked for
        ("okx", '"books"'),
        ("bitget", '{"instType":"SPOT","channel":"books","instId":"BTCUSDT"}'),  # snapshot, and changes
        ("bitget", '{"instType":"SPOT","channel":"candle1m","instId":"BTCUSDT"}'),
        ("bybit", '"tickers.BTCUSDT"'),  # of contracts: snapshot and changes without numbers
    ],
)
def test_what_the_file_does_not_describe_is_not_shared(name: str, topic: str) -> None:
    sharing = messages(name, 1 if name == "bybit" else 0)
    op = "SUBSCRIBE" if name == "binance" else "subscribe"
    place = sharing.sharing.topics
    wanted = sharing.wanted(f'{{"{sharing.sharing.op}":"{op}","{place}":[{topic}]}}'.encode())
    assert wanted is None or not wanted.shared


def test_acknowledgements_are_no_data() -> None:
    ack = f'{{"id":"3","event":"subscribe","arg":{OKX_BOOKS},"connId":"a4d3ae55"}}'.encode()
    assert messages("okx").heard(ack) == Heard(OKX_BOOKS, answers=3)
    assert messages("binance").heard(b'{"result":null,"id":4}') == Heard(answers=4)
    bybit = b'{"success":true,"ret_msg":"subscribe","conn_id":"a","req_id":"5","op":"subscribe"}'
    assert messages("bybit").heard(bybit) == Heard(answers=5)


def test_refusals_are_told_from_answers() -> None:
    okx = b'{"id":"3","event":"error","code":"60018","msg":"Wrong URL or channel","connId":"a4d3ae55"}'
    bybit = b'{"success":false,"ret_msg":"error:handler not found,topic:x","req_id":"5","op":"subscribe"}'
    binance = b'{"error":{"code":2,"msg":"Invalid request"},"id":6}'
    for name, text, number in (("okx", okx, 3), ("bybit", bybit, 5), ("binance", binance, 6)):
        assert messages(name).heard(text) == Heard(answers=number, refuses=True)
        told = json.loads(messages(name).refusal_for(text, '"mine"'))
        assert told[messages(name).sharing.id] == "mine"


def test_numbers_are_found_where_each_exchange_has_them() -> None:
    spot = b'{"stream":"btcusdt@depth","data":{"U":5,"u":9}}'
    futures = b'{"stream":"btcusdt@depth","data":{"U":5,"u":9,"pu":3}}'
    okx = f'{{"arg":{OKX_BOOKS},"action":"snapshot","data":[{{"seqId":9,"prevSeqId":-1}}]}}'.encode()
    bybit = b'{"topic":"orderbook.50.BTCUSDT","type":"delta","data":{"u":9}}'
    assert messages("binance").heard(spot).numbers == (5, 9, None, False)
    assert messages("binance_usdm").heard(futures).numbers == (9, 9, 3, False)
    assert messages("okx").heard(okx).numbers == (9, 9, -1, True)
    assert messages("bybit").heard(bybit).numbers == (9, 9, None, False)


def test_what_only_looks_like_a_number_is_none() -> None:
    text = '{"stream":"btcusdt@depth","data":{"U":"²","u":"²"}}'.encode()
    assert messages("binance").heard(text) == Heard("btcusdt@depth", True)


def test_urls_that_name_streams_are_understood_only_if_all_of_it_is() -> None:
    binance = messages("binance")
    assert binance.in_path("/ws") == ()
    assert binance.in_path("/ws/btcusdt@depth") == ("btcusdt@depth",)
    assert binance.in_path("/stream?streams=a@trade/b@ticker") == ("a@trade", "b@ticker")
    for target in ("/ws/", "/ws/AbCdEf123", "/stream?streams=a@trade&timeUnit=MICROSECOND", "/ws-api/v3", "/ws?x=1"):
        assert binance.in_path(target) is None


@pytest.mark.parametrize("name", venue_names())
def test_no_requests_of_callers_and_no_messages_break_anything(name: str) -> None:
    venue = venue_named(name)
    assert venue is not None
    sharings = venue.streams.sharing if venue.streams is not None else ()
    for sharing in sharings:
        mine = Messages(sharing)
        for text in (b"", b"[]", b"ping", b"\xff", b'{"op":{}}', b'{"method":["SUBSCRIBE"]}', b"[" * 100_000):
            mine.heard(text)
            assert mine.wanted(text) is None
            assert mine.answered(text, ()) is None


COINBASE = (
    b'{"type":"subscribe","product_ids":["BTC-USD","ETH-USD"],"channels":["ticker","matches"]}',
    b'{"type":"subscribe","product_ids":["ETH-USD"],"channels":["ticker"]}',
)


def test_each_pair_of_product_and_channel_is_a_topic_and_all_that_a_caller_has_is_listed() -> None:
    mine = messages("coinbase_exchange")
    both, one = (mine.wanted(text) for text in COINBASE)
    assert both is not None
    assert one is not None
    assert len(both.topics) == 4
    assert one.topics[0] in both.topics
    listed = json.loads(mine.acknowledged(one, (both.topics[0], one.topics[0]))[0])
    assert listed["channels"] == [
        {"name": "ticker", "product_ids": ["BTC-USD"]},
        {"name": "ticker", "product_ids": ["ETH-USD"]},
    ]


def test_several_ways_to_ask_for_the_same_are_the_same_topics() -> None:
    coinbase, gate = messages("coinbase_exchange"), messages("gate")
    mixed = coinbase.wanted(
        b'{"type":"subscribe","product_ids":["BTC-USD"],'
        b'"channels":["ticker",{"name":"level2_batch","product_ids":["BTC-USD","ETH-USD"]}]}'
    )
    assert mixed is not None
    assert mixed.shared
    plain = [coinbase.wanted(text) for text in (ASKED["coinbase_exchange"][0], COINBASE[0])]
    assert all(wanted is not None and not set(wanted.topics).isdisjoint(mixed.topics) for wanted in plain)
    assert len(mixed.topics) == 3
    several = gate.wanted(b'{"time":1,"channel":"spot.trades","event":"subscribe","payload":["BTC_USDT","ETH_USDT"]}')
    one = gate.wanted(b'{"time":9,"channel":"spot.trades","event":"subscribe","payload":["ETH_USDT"]}')
    assert several is not None
    assert one is not None
    assert several.shared
    assert several.topics[1:] == one.topics


@pytest.mark.parametrize("more", [b'"channels":["level2_batch","user"]', b'"channels":["level2_batch"],"key":"k"'])
def test_what_could_be_shared_in_a_request_that_is_not_is_known_so_that_it_does_not_come_twice(more: bytes) -> None:
    coinbase = messages("coinbase_exchange")
    signed = coinbase.wanted(b'{"type":"subscribe","product_ids":["BTC-USD"],' + more + b"}")
    assert signed is not None
    assert not signed.shared
    plain = coinbase.wanted(ASKED["coinbase_exchange"][0])
    assert plain is not None
    assert signed.topics == plain.topics


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("coinbase_exchange", b'{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2"]}'),  # signed
        ("coinbase_exchange", b'{"type":"subscribe","product_ids":["BTC-USD"],"channels":["ticker"],"key":"k"}'),
        ("coinbase_exchange", b'{"type":"subscribe","product_ids":["BTC-USD"],"channels":["ticker","user"]}'),
        ("coinbase_exchange", b'{"type":"subscribe","product_ids":[],"channels":["ticker"]}'),
        ("coinbase_exchange", b'{"type":"subscribe","channels":[{"name":"ticker"}]}'),
        ("coinbase_exchange", b'{"type":"subscribe","channels":[{"name":{},"product_ids":["BTC-USD"]}]}'),
        ("kucoin", b'{"id":"7","action":"subscribe","channel":"obu","tradeType":"SPOT","symbol":"BTC-USDT"}'),
        ("gate", b'{"time":1,"channel":"spot.order_book_update","event":"subscribe","payload":["BTC_USDT","20ms"]}'),
        ("gate", b'{"time":1,"channel":"spot.orders","event":"subscribe","payload":["BTC_USDT"],"auth":{"KEY":"k"}}'),
        ("gate", b'{"time":1,"channel":"spot.trades","event":"subscribe","payload":["BTC_USDT"],"auth":{"KEY":"k"}}'),
        (
            "kucoin",  # another book: orders of retail traders are in it
            b'{"action":"subscribe","channel":"obu","tradeType":"SPOT","symbol":"X","depth":"1","rpiFilter":1}',
        ),
        ("kucoin", b'{"action":"subscribe","channel":"ticker","tradeType":"FUTURES","symbol":"XBTUSDTM"}'),
        ("kucoin", b'{"action":"subscribe","channel":"ticker","tradeType":"SPOT","symbol":["BTC-USDT"]}'),
        ("kucoin", b'{"action":"subscribe","channel":"ticker","tradeType":"SPOT","symbol":""}'),
    ],
)
def test_a_request_with_anything_that_the_file_does_not_describe_is_the_callers_own(name: str, text: bytes) -> None:
    wanted = messages(name).wanted(text)
    assert wanted is not None
    assert not wanted.shared


def test_topics_are_known_by_all_that_tells_them_apart() -> None:
    kucoin, coinbase = messages("kucoin"), messages("coinbase_exchange")
    book = b'{"T":"obu.SPOT","dp":"increment@10ms","t":"delta","P":1,"d":{"O":7,"C":9,"a":[],"b":[],"s":"BTC-USDT"}}'
    wanted = kucoin.wanted(ASKED["kucoin"][0])
    assert wanted is not None
    assert kucoin.heard(book) == Heard(wanted.topics[0], True, (7, 9, None, False))
    assert kucoin.heard(book.replace(b"increment@10ms", b"50")).topic not in ("", wanted.topics[0])
    assert kucoin.heard(book.replace(b"increment@10ms", b"increment")).topic == ""  # retired
    assert kucoin.heard(b'{"T":"obu.SPOT","dp":"increment@10ms","d":{"s":7}}').topic == ""
    assert kucoin.heard(b'{"id":"4","result":true}') == Heard(answers=4)
    assert kucoin.heard(b'{"id":"4","result":false,"msg":"x"}') == Heard(answers=4, refuses=True)
    wanted = coinbase.wanted(ASKED["coinbase_exchange"][0])
    assert wanted is not None
    snapshot = b'{"type":"snapshot","product_id":"BTC-USD","bids":[],"asks":[]}'
    update = b'{"type":"l2update","product_id":"BTC-USD","changes":[]}'
    assert coinbase.heard(snapshot) == Heard(wanted.topics[0], True, (0, 0, None, True))
    assert coinbase.heard(update) == Heard(wanted.topics[0], True, (0, 0, None, False))
    assert coinbase.heard(b'{"type":"subscriptions","channels":[]}') == Heard(in_turn=True)
    assert coinbase.heard(b'{"type":"error","message":"x"}') == Heard(in_turn=True, refuses=True)


def test_a_request_says_when_it_is_made_where_the_exchange_wants_to_know() -> None:
    gate = messages("gate")
    wanted = gate.wanted(ASKED["gate"][0])
    assert wanted is not None
    assert json.loads(gate.request(True, list(wanted.topics), 3, 1700000000.9)) == {
        "event": "subscribe", "channel": "spot.obu", "payload": ["ob.BTC_USDT.50"], "time": 1700000000, "id": 3,
    }  # fmt: skip
    snapshot = b'{"channel":"spot.obu","event":"update","result":{"full":true,"s":"ob.BTC_USDT.50","u":9,"b":[]}}'
    update = b'{"channel":"spot.obu","event":"update","result":{"s":"ob.BTC_USDT.50","U":10,"u":12,"b":[]}}'
    assert gate.heard(snapshot) == Heard(wanted.topics[0], True, (9, 9, None, True))
    assert gate.heard(update) == Heard(wanted.topics[0], True, (10, 12, None, False))
    assert gate.heard(b'{"id":3,"event":"subscribe","error":null,"result":{"status":"success"}}') == Heard(answers=3)
    refusal = b'{"id":3,"event":"subscribe","error":{"code":2,"message":"x"},"result":null}'
    assert gate.heard(refusal) == Heard(answers=3, refuses=True)


def test_a_ping_is_answered_wherever_its_exchange_writes_it() -> None:
    assert json.loads(messages("kucoin").answered(b'{"id":"5","type":"ping"}', ()) or b"") == {
        "id": "5",
        "type": "pong",
    }
    assert messages("coinbase_exchange").answered(b'{"type":"ping"}', ()) is None


def test_our_own_requests_are_understood_by_the_same_rules() -> None:
    for name in ASKED:
        mine = messages(name)
        wanted = mine.wanted(ASKED[name][0])
        assert wanted is not None
        again = mine.wanted(mine.request(True, list(wanted.topics), 3))
        number = '"3"' if mine.sharing.id_is_text else "3"
        assert again == Wanted(True, wanted.topics, number if mine.sharing.id else "")


ALL_SHARED = {
    f"{name} {sharing.connect}": Messages(sharing)
    for name in venue_names()
    if (venue := venue_named(name)) is not None and venue.streams is not None
    for sharing in venue.streams.sharing
}
SHARED = {name: mine for name, mine in ALL_SHARED.items() if mine.sharing.topics}
SHAPED = {name: mine for name, mine in ALL_SHARED.items() if not mine.sharing.topics}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TOPICS = st.lists(st.text(max_size=30) | st.sampled_from(["{", "{broken", '{"a":1}']) | JSON, max_size=6)


def asked(mine: Messages, topics: Any) -> bytes:
    return json.dumps({mine.sharing.op: mine.sharing.subscribe, mine.sharing.topics: topics, "id": 1}).encode()


@pytest.mark.parametrize("name", SHARED)
@given(topics=TOPICS)
def test_whatever_topics_a_caller_names_the_line_can_ask_for_what_is_shared(name: str, topics: list[Any]) -> None:
    mine = SHARED[name]
    wanted = mine.wanted(asked(mine, topics))
    if wanted is None or not wanted.shared:
        return
    request = json.loads(mine.request(wanted.on, list(wanted.topics), 1))
    assert request[mine.sharing.topics] == topics
    assert all(json.loads(answer) is not None for answer in mine.acknowledged(wanted))


@pytest.mark.parametrize("name", SHARED)
@example(target="/ws/{a@depth")
@example(target="/stream?streams={a@depth")
@given(target=st.text(alphabet='/ws?stream=&@!{}depth"', max_size=40))
def test_whatever_topics_a_url_names_the_line_can_ask_for_them(name: str, target: str) -> None:
    mine = SHARED[name]
    topics = list(mine.in_path(target) or ())
    assert json.loads(mine.request(True, topics, 1))[mine.sharing.topics] == topics


def named(value: Any, name: Any) -> Any:
    """A pattern of the catalogue with a name in it."""
    if isinstance(value, dict):
        return {member: named(inner, name) for member, inner in value.items()}
    if isinstance(value, list):
        return [named(inner, name) for inner in value]
    return name if value == "*" else value


@pytest.mark.parametrize("name", SHAPED)
@example(symbol="*")
@example(symbol="x" * 100_000)
@example(symbol="\ud800")
@given(symbol=st.text(max_size=40) | JSON)
def test_whatever_name_a_request_has_what_is_shared_can_be_asked_for_and_is_heard(name: str, symbol: Any) -> None:
    mine = SHAPED[name]
    for kind in mine.sharing.kinds:
        request = {mine.sharing.op: mine.sharing.subscribe.partition("|")[0], **named(kind.asked, symbol)}
        wanted = mine.wanted(json.dumps(request).encode())
        if wanted is None or not wanted.shared:
            assert not isinstance(symbol, str) or not symbol or len(symbol) > 20 or symbol == "\ud800"
            continue
        (key,) = wanted.topics
        assert len(key) <= MAX_KEY
        assert (again := mine.wanted(mine.request(True, [key], 1))) is not None
        assert again.topics == (key,)
        assert all(json.loads(answer) is not None for answer in mine.acknowledged(wanted, wanted.topics))
        message: dict[str, Any] = {}
        for place, texts in kind.told.items():
            *outer, last = place.split(".")
            inner = message
            for part in outer:
                inner = inner.setdefault(part, {})
            inner[last] = named(texts.partition("|")[0], symbol)
        assert mine.heard(json.dumps(message).encode()).topic == key


@pytest.mark.parametrize("name", SHAPED)
@given(message=JSON)
def test_whatever_is_said_where_topics_have_no_name_of_their_own_is_heard_without_an_error(
    name: str, message: Any
) -> None:
    mine = SHAPED[name]
    mine.heard(json.dumps(message).encode())
    if isinstance(message, dict):
        for op in (mine.sharing.subscribe, mine.sharing.unsubscribe):
            spread = dict.fromkeys(mine.sharing.spread, message)
            mine.wanted(json.dumps(message | spread | {mine.sharing.op: op.partition("|")[0]}).encode())


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize(
    "topic", ["x" * 100_000 + "@depth", {"channel": "books", "instId": "x" * 100_000}], ids=["name", "object"]
)
def test_a_topic_of_any_length_is_not_kept(name: str, topic: Any) -> None:
    mine = SHARED[name]
    wanted = mine.wanted(asked(mine, [topic]))
    assert wanted is None or not wanted.shared
    assert not mine.in_path(f"/ws/{'x' * MAX_KEY}@trade")


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("odd", ["\u00b2", "--5", "-", "1e3", "9" * 30, None, True, [1], {"a": 1}])
@given(message=JSON)
def test_whatever_an_exchange_says_is_heard_without_an_error(name: str, odd: Any, message: Any) -> None:
    mine = SHARED[name]
    mine.heard(json.dumps(message).encode())
    for kind in mine.sharing.kinds:
        inner: Any = odd
        for part in reversed((kind.last or "data.x").split(".")):
            inner = [inner] if part == "0" else {part: inner}
        inner[mine.sharing.topic] = kind.names[0].replace("*", "x")
        mine.heard(json.dumps(inner).encode())

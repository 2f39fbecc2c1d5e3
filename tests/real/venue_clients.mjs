// ccxt for Node against an exchange, through whatever stands between.  See venue_clients.py, which says what the words mean.
//   node venue_clients.mjs VENUE MODE BASE WS
import assert from "node:assert";
import dns from "node:dns";
import ccxt from "ccxt";

const lookup = dns.lookup; // names below localhost are this machine (RFC 6761); not every C library knows
dns.lookup = (name, ...rest) => lookup(name.endsWith(".localhost") ? "127.0.0.1" : name, ...rest);

const [venue, mode, base, ws] = process.argv.slice(2);
const KEY = "test-key-1", SECRET = "test-secret-1", PASSPHRASE = "test-passphrase";
const ENCODED = Buffer.from("a secret of a pretended account").toString("base64");
const CREDENTIALS = {
  binance: { apiKey: KEY, secret: SECRET },
  okx: { apiKey: KEY, secret: SECRET, password: PASSPHRASE },
  bybit: { apiKey: KEY, secret: SECRET },
  kucoin: { apiKey: KEY, secret: SECRET, password: PASSPHRASE },
  kraken: { apiKey: KEY, secret: ENCODED },
  coinbaseexchange: { apiKey: KEY, secret: ENCODED, password: PASSPHRASE },
};
const OPTIONS = {
  binance: { fetchMarkets: { types: ["spot"] }, defaultType: "spot", fetchCurrencies: false },
  okx: { fetchMarkets: { types: ["spot"] }, defaultType: "spot" },
  bybit: { fetchMarkets: { types: ["spot"] }, defaultType: "spot" },
  kucoin: { fetchMarkets: { types: ["spot"] }, hf: true, uta: false },
};
if (venue === "kraken") CREDENTIALS.kraken.apiKey = `test-key-${1 + ["path", "host", "proxy"].indexOf(mode)}`; // nonces rise
const symbol = ["kraken", "coinbaseexchange"].includes(venue) ? "BTC/USD" : "BTC/USDT";

function redirected(urls, http) {
  if (typeof urls === "string") {
    const streams = ws ? urls.replace(/^wss?:\/\/[^/]+/, ws) : urls;
    return http ? streams.replace(/^https?:\/\/[^/]+/, base) : streams;
  }
  return urls && typeof urls === "object"
    ? Object.fromEntries(Object.entries(urls).map(([name, value]) => [name, redirected(value, http)]))
    : urls;
}

const exchange = new ccxt.pro[venue]({
  ...CREDENTIALS[venue], enableRateLimit: false, options: OPTIONS[venue] ?? {}, timeout: 15000,
});
exchange.urls.api = redirected(exchange.urls.api, mode !== "proxy");
if (mode === "proxy") exchange.proxyUrl = base;
const seen = { venue, mode, client: "ccxt for Node" };
try {
  seen.markets = Object.keys(await exchange.loadMarkets()).length;
  seen.last = (await exchange.fetchTicker(symbol)).last;
  const book = await exchange.fetchOrderBook(symbol);
  assert(book.bids[0][0] < book.asks[0][0]);
  assert((await exchange.fetchOHLCV(symbol, "1m", undefined, 5)).length > 0);
  assert((await exchange.fetchTrades(symbol)).length > 0);
  assert((await exchange.fetchBalance()).BTC.total > 0);
  const placed = await exchange.createOrder(symbol, "limit", "buy", 0.01, 50000, { clientOrderId: `n${mode}1` });
  const found = await exchange.fetchOrder(placed.id, symbol, venue === "bybit" ? { acknowledged: true } : {});
  assert.equal(found.id, placed.id);
  assert((await exchange.fetchOpenOrders(symbol)).some((order) => order.id === placed.id));
  await exchange.cancelOrder(placed.id, symbol);
  assert(!(await exchange.fetchOpenOrders(symbol)).some((order) => order.id === placed.id));
  seen.order = placed.id;
  if (ws) {
    await exchange.loadHttpProxyAgent(); // ccxt wants it for any ws:// URL
    const tops = new Set();
    while (tops.size < 4) {
      const live = await exchange.watchOrderBook(symbol);
      assert(live.bids[0][0] < live.asks[0][0]);
      tops.add(JSON.stringify([live.nonce, live.timestamp, live.bids.slice(0, 9), live.asks.slice(0, 9)]));
    }
    assert((await exchange.watchTicker(symbol)).last > 0);
    assert((await exchange.watchTrades(symbol)).length > 0);
    seen.streams = tops.size;
  }
} finally {
  await exchange.close();
}
console.log(JSON.stringify(seen));
process.exit(0);

// Heads and logs over one WebSocket with viem or ethers: each event is one line of JSON on stdout.
// Calls and keep-alives go over the same socket meanwhile; a lost one makes it exit with 1.  It runs until
// its stdin is closed, then ends its subscriptions and says "done".
// Usage: node subscriptions.mjs viem|ethers URL ADDRESS
import process from "node:process";

const [, , library, url, address] = process.argv;
const say = (event, words = {}) => console.log(JSON.stringify({ event, ...words }));
const enough = new Promise((resolve) => process.stdin.on("end", resolve).resume());
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const fail = (error) => {
  console.error(error);
  process.exit(1);
};
let calls = 0;
let over = false;

const sayHead = (head) => say("head", { number: Number(head.number), hash: head.hash, parent: head.parentHash });

const sayWatched = (log, index) => say("watched", { block: log.blockHash, index, removed: log.removed });

const sayLog = (log) =>
  say("log", {
    number: Number(log.blockNumber),
    block: log.blockHash,
    index: Number(log.logIndex),
    removed: log.removed,
    count: Number(BigInt(log.data)),
  });

async function withViem() {
  const { createPublicClient, webSocket } = await import("viem");
  const { foundry } = await import("viem/chains");
  // viem keeps its socket alive with a net_version whose id is null
  const transport = webSocket(url, { keepAlive: { interval: 100 }, reconnect: false, retryCount: 0 });
  const client = createPublicClient({ chain: foundry, transport, cacheTime: 0 });
  const socket = (await client.transport.getRpcClient()).socket;
  let kept = 0;
  socket.addEventListener("message", ({ data }) => {
    const answer = JSON.parse(data);
    if (answer.id === null) kept += 1;
    if (answer.error) say("refused", { answer });
  });
  const heads = await client.transport.subscribe({
    params: ["newHeads"],
    onData: ({ result }) => sayHead(result),
    onError: fail,
  });
  // a second subscription to heads on the same socket; it reads each block by its number when it is told
  const unwatchBlocks = client.watchBlocks({
    onBlock: (block) => say("block", { number: block ? Number(block.number) : null, hash: block?.hash ?? null }),
    onError: fail,
  });
  const logs = await client.transport.subscribe({
    params: ["logs", { address, topics: [] }],
    onData: ({ result }) => sayLog(result),
    onError: fail,
  });
  const unwatchLogs = client.watchEvent({
    address,
    onLogs: (found) => found.forEach((log) => sayWatched(log, log.logIndex)),
    onError: fail,
  });
  const ask = async () => {
    if ((await client.getChainId()) !== 31337) throw new Error("another chain");
    await client.getBlockNumber();
    calls += 2;
  };
  const end = async () => {
    unwatchBlocks();
    unwatchLogs();
    for (const subscription of [heads, logs]) {
      const answer = await subscription.unsubscribe();
      if (answer.result !== true) throw new Error(`unsubscribed: ${JSON.stringify(answer)}`);
    }
    if (kept === 0) throw new Error("no keep-alive was answered");
    socket.close();
  };
  return { ask, end };
}

async function withEthers() {
  const { SocketSubscriber, WebSocketProvider } = await import("ethers");
  const provider = new WebSocketProvider(url, 31337, { staticNetwork: true, cacheTimeout: -1 });
  provider.websocket.onclose = (event) => over || fail(new Error(`closed with ${event.code} ${event.reason}`));
  provider.websocket.onerror = fail;
  provider.on("error", fail);
  // ethers' own events tell numbers only, and no log that was removed; here are subscribers of the same kind
  class Raw extends SocketSubscriber {
    constructor(filter, tell) {
      super(provider, filter);
      this.tell = tell;
    }
    async _emit(_provider, message) {
      this.tell(message);
    }
  }
  const raw = [new Raw(["newHeads"], sayHead), new Raw(["logs", { address }], sayLog)];
  for (const subscriber of raw) subscriber.start();
  await provider.on("block", (number) => say("number", { number }));
  await provider.on({ address }, (log) => sayWatched(log, log.index));
  await provider.getBlockNumber();
  const ask = async () => {
    if ((await provider.send("eth_chainId", [])) !== "0x7a69") throw new Error("another chain");
    if ((await provider.send("net_version", [])) !== "31337") throw new Error("another network");
    await provider.getBlockNumber();
    calls += 3;
  };
  const end = async () => {
    for (const subscriber of raw) subscriber.stop();
    await provider.removeAllListeners();
    await provider.send("eth_chainId", []);
    over = true;
    await provider.destroy();
  };
  return { ask, end };
}

try {
  const { ask, end } = await (library === "viem" ? withViem() : withEthers());
  await ask();
  say("ready");
  enough.then(() => (over = true));
  while (!over) {
    await ask();
    await pause(100);
  }
  await end();
  say("done", { calls });
  process.exit(0);
} catch (error) {
  fail(error);
}

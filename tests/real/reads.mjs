// Reads through the gateway with viem or ethers; says "third" after a third of them, "done N" at the end.
// Any lost call makes it exit with 1.  Usage: node reads.mjs viem|ethers URL COUNT
import process from "node:process";

const [, , library, url, countText] = process.argv;
const count = Number(countText);
const account = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"; // the first account of the published test mnemonic

async function viemRound() {
  const { createPublicClient, http } = await import("viem");
  const { foundry } = await import("viem/chains");
  const plain = createPublicClient({ chain: foundry, transport: http(url, { retryCount: 0 }) });
  const batched = createPublicClient({ chain: foundry, transport: http(url, { retryCount: 0, batch: true }) });
  return async () => {
    const id = await plain.getChainId();
    if (id !== 31337) throw new Error(`chain id ${id}`);
    const [number, balance, block] = await Promise.all([
      batched.getBlockNumber({ cacheTime: 0 }),
      batched.getBalance({ address: account }),
      batched.getBlock({ blockTag: "latest" }),
    ]);
    if (number < 0n || balance <= 0n || !block.hash) throw new Error("an empty answer");
    return 4;
  };
}

async function ethersRound() {
  const { JsonRpcProvider } = await import("ethers");
  const provider = new JsonRpcProvider(url, 31337, { staticNetwork: true, cacheTimeout: -1 });
  return async () => {
    const [number, balance, block, fee] = await Promise.all([
      provider.getBlockNumber(),
      provider.getBalance(account),
      provider.getBlock("latest"),
      provider.send("eth_gasPrice", []),
    ]);
    if (number < 0 || balance <= 0n || !block?.hash || !fee) throw new Error("an empty answer");
    return 4;
  };
}

const round = library === "viem" ? await viemRound() : await ethersRound();
let calls = 0;
let said = false;
while (calls < count) {
  calls += await round();
  if (!said && calls >= count / 3) {
    said = true;
    console.log("third");
  }
}
console.log(`done ${calls}`);
process.exit(0);

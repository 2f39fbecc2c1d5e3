"""Heads and logs over one WebSocket with web3.py: each event is one line of JSON on stdout.

Calls, a batch and pings go over the same socket meanwhile; any that is lost ends it with a traceback.
web3.py sends binary frames.  It runs until its stdin is closed, then ends its subscriptions and says "done".
Usage: python subscriptions.py URL ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from web3 import AsyncWeb3, WebSocketProvider
from web3.exceptions import BlockNotFound

CHAIN_ID = 31337


def say(event: str, **words: object) -> None:
    print(json.dumps({"event": event, **words}), flush=True)


class Watcher:
    def __init__(self, w3: AsyncWeb3[Any], address: str) -> None:
        self.w3 = w3
        self.address = w3.to_checksum_address(address)
        self.heads = ""
        self.logs = ""
        self.calls = 0
        self.unread: asyncio.Queue[bytes] = asyncio.Queue()

    async def subscribe(self) -> None:
        self.heads = await self.w3.eth.subscribe("newHeads")
        self.logs = await self.w3.eth.subscribe("logs", {"address": self.address})
        await self.batch()
        say("ready")

    async def tell(self) -> None:
        """Every event, in the order in which it comes."""
        async for message in self.w3.socket.process_subscriptions():
            result = message["result"]
            if message["subscription"] == self.heads:
                say("head", number=result["number"], hash=hexed(result["hash"]), parent=hexed(result["parentHash"]))
                self.unread.put_nowait(result["hash"])
            else:
                assert message["subscription"] == self.logs, message
                say(
                    "log", number=result["blockNumber"], block=hexed(result["blockHash"]), index=result["logIndex"],
                    removed=result["removed"], count=int(result["data"].hex(), 16),
                )  # fmt: skip

    async def read(self) -> None:
        """Read each block that was told."""
        while True:
            block_hash = await self.unread.get()
            try:
                block = await self.w3.eth.get_block(block_hash)
                assert block["hash"] == block_hash
            except BlockNotFound:
                say("unknown", hash=hexed(block_hash))
            self.calls += 1

    async def batch(self) -> None:
        async with self.w3.batch_requests() as batch:
            batch.add(self.w3.eth.get_block("latest"))
            batch.add(self.w3.eth.get_balance(self.address))
            block, balance = await batch.async_execute()
        assert block["hash"]
        assert balance == 0
        self.calls += 2

    async def talk(self) -> None:
        """Calls beside the subscriptions, until the caller has enough."""
        while True:
            assert await self.w3.eth.chain_id == CHAIN_ID
            assert await self.w3.eth.block_number >= 0
            self.calls += 2
            await self.batch()
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        assert await self.w3.eth.unsubscribe(self.heads)
        assert await self.w3.eth.unsubscribe(self.logs)


def hexed(value: bytes) -> str:
    return "0x" + value.hex()


async def main() -> None:
    url, address = sys.argv[1], sys.argv[2]
    provider = WebSocketProvider(url, websocket_kwargs={"ping_interval": 0.25, "ping_timeout": 10})
    assert not provider.use_text_frames
    async with AsyncWeb3(provider) as w3:
        watcher = Watcher(w3, address)
        await watcher.subscribe()
        work = [asyncio.create_task(task()) for task in (watcher.tell, watcher.read, watcher.talk)]
        enough = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        done, _ = await asyncio.wait({*work, enough}, return_when=asyncio.FIRST_COMPLETED)
        if enough not in done:
            done.pop().result()
            raise RuntimeError("the subscriptions ended")
        work[1].cancel()
        work[2].cancel()
        await watcher.end()
        work[0].cancel()
    say("done", calls=watcher.calls)


if __name__ == "__main__":
    asyncio.run(main())

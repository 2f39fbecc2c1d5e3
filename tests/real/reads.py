"""Reads through the gateway with web3.py: sync, async or batch.

Says "third" after a third of the calls and "done N" at the end; a lost call ends it with a traceback.
Usage: python reads.py sync|async|batch URL COUNT
"""

from __future__ import annotations

import asyncio
import sys

from web3 import AsyncHTTPProvider, AsyncWeb3, HTTPProvider, Web3

ACCOUNT = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


class Progress:
    def __init__(self, count: int) -> None:
        self.count = count
        self.calls = 0
        self._said = False

    def add(self, calls: int) -> None:
        self.calls += calls
        if not self._said and self.calls >= self.count / 3:
            self._said = True
            print("third", flush=True)


def sync_reads(url: str, progress: Progress) -> None:
    w3 = Web3(HTTPProvider(url, exception_retry_configuration=None))
    while progress.calls < progress.count:
        assert w3.eth.chain_id == 31337
        assert w3.eth.block_number >= 0
        assert w3.eth.get_balance(ACCOUNT) > 0
        assert w3.eth.get_block("latest")["hash"]
        progress.add(4)


def batch_reads(url: str, progress: Progress) -> None:
    w3 = Web3(HTTPProvider(url, exception_retry_configuration=None))
    while progress.calls < progress.count:
        with w3.batch_requests() as batch:
            batch.add(w3.eth.get_balance(ACCOUNT))
            batch.add(w3.eth.get_block("latest"))
            batch.add(w3.eth.get_transaction_count(ACCOUNT))
            balance, block, nonce = batch.execute()
        assert balance > 0
        assert block["hash"]
        assert nonce >= 0
        progress.add(3)


async def async_reads(url: str, progress: Progress) -> None:
    w3 = AsyncWeb3(AsyncHTTPProvider(url, exception_retry_configuration=None))
    while progress.calls < progress.count:
        answers = await asyncio.gather(
            w3.eth.chain_id, w3.eth.block_number, w3.eth.get_balance(ACCOUNT), w3.eth.get_block("latest")
        )
        assert answers[0] == 31337
        assert answers[3]["hash"]
        progress.add(4)
    await w3.provider.disconnect()


def main() -> None:
    kind, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    progress = Progress(count)
    if kind == "sync":
        sync_reads(url, progress)
    elif kind == "batch":
        batch_reads(url, progress)
    else:
        asyncio.run(async_reads(url, progress))
    print(f"done {progress.calls}", flush=True)


if __name__ == "__main__":
    main()

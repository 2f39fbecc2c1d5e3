"""A Solana RPC node around LiteSVM: the validator's own bank and programs, behind the RPC that clients speak.

Always true: transactions are checked and executed by the real virtual machine; a write is answered only
after every peer that is up has it, as a cluster's nodes all come to have it; slots pass with wall time and
are the same on all nodes of one genesis time; a blockhash is known for 150 slots and not before its slot.
Why: no validator is installable from a package registry, and this one starts in a second.
Does not belong here: votes and forks; a slot counts as confirmed one slot later, as finalized three.

Usage: python -m tests.real.solana_node PORT --genesis SECONDS [--peer PORT]... [--behind SLOTS] [--dies-on-send]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, NoReturn

from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

SLOT_TIME = 0.4  # seconds
BLOCKHASHES = 150  # slots for which a blockhash is good
DEPTH = {"processed": 0, "confirmed": 1, "finalized": 3}  # slots below the newest
CUSTOM_ERROR = {"InstructionError": [0, {"Custom": 1}]}  # insufficient lamports, says the system program
UNHEALTHY_FROM = 20  # slots behind the others from which on a node calls itself unhealthy


class Refused(Exception):
    """An error object for the caller."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.answer = {"code": code, "message": message, **({"data": data} if data is not None else {})}


class Node:
    """One node's state and methods.  `behind`: by so many slots it sees everything later than the others."""

    def __init__(self, genesis: float, peers: list[int], behind: int = 0, dies_on_send: bool = False) -> None:
        self.genesis = genesis
        self.peers = peers
        self.behind = behind
        self.dies_on_send = dies_on_send
        self.svm = LiteSVM().with_blockhash_check(False)
        self.landed: dict[str, int] = {}  # signature -> slot; what fails is refused, so all of these went well
        self.methods: dict[str, Callable[..., Any]] = {
            name.removeprefix("rpc_"): getattr(self, name) for name in dir(self) if name.startswith("rpc_")
        }

    # --- slots ---------------------------------------------------------------------------------------

    def slot(self, commitment: str = "finalized") -> int:
        now = int((time.time() - self.genesis) / SLOT_TIME) - self.behind
        return max(0, now - DEPTH.get(commitment, 0))

    @staticmethod
    def blockhash(slot: int) -> Hash:
        return Hash.hash(b"slot %d" % slot)

    def _known(self, blockhash: Hash) -> bool:
        newest = self.slot("processed")
        return any(blockhash == self.blockhash(slot) for slot in range(newest, max(-1, newest - BLOCKHASHES), -1))

    def _commitment(self, config: dict[str, Any] | None) -> str:
        config = config or {}
        commitment = str(config.get("commitment") or "finalized")
        least = config.get("minContextSlot")
        if least is not None and self.slot(commitment) < least:
            raise Refused(-32016, "Minimum context slot has not been reached", {"contextSlot": self.slot(commitment)})
        return commitment

    def _at(self, config: dict[str, Any] | None, value: Any) -> dict[str, Any]:
        return {"context": {"apiVersion": "2.1.13", "slot": self.slot(self._commitment(config))}, "value": value}

    # --- reads ---------------------------------------------------------------------------------------

    def rpc_getHealth(self) -> str:
        if self.behind >= UNHEALTHY_FROM:
            raise Refused(-32005, f"Node is behind by {self.behind} slots", {"numSlotsBehind": self.behind})
        return "ok"

    def rpc_getVersion(self) -> dict[str, Any]:
        return {"solana-core": "2.1.13", "feature-set": 1725507508}

    def rpc_getGenesisHash(self) -> str:
        return str(Hash.hash(b"genesis"))

    def rpc_getSlot(self, config: dict[str, Any] | None = None) -> int:
        return self.slot(self._commitment(config))

    def rpc_getBlockHeight(self, config: dict[str, Any] | None = None) -> int:
        return self.slot(self._commitment(config))

    def rpc_getFirstAvailableBlock(self) -> int:
        return 0

    def rpc_getLatestBlockhash(self, config: dict[str, Any] | None = None) -> dict[str, Any]:
        slot = self.slot(self._commitment(config))
        value = {"blockhash": str(self.blockhash(slot)), "lastValidBlockHeight": slot + BLOCKHASHES}
        return self._at(config, value)

    def rpc_isBlockhashValid(self, blockhash: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._at(config, self._known(Hash.from_string(blockhash)))

    def rpc_getBalance(self, account: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._at(config, self.svm.get_balance(Pubkey.from_string(account)) or 0)

    def rpc_getAccountInfo(self, account: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        found = self.svm.get_account(Pubkey.from_string(account))
        if found is None:
            return self._at(config, None)
        value = {
            "lamports": found.lamports,
            "data": [base64.b64encode(bytes(found.data)).decode(), "base64"],
            "owner": str(found.owner),
            "executable": found.executable,
            "rentEpoch": found.rent_epoch,
            "space": len(found.data),
        }
        return self._at(config, value)

    def rpc_getMinimumBalanceForRentExemption(self, size: int, config: dict[str, Any] | None = None) -> int:
        return self.svm.minimum_balance_for_rent_exemption(size)

    def rpc_getSignaturesForAddress(self, account: str, config: dict[str, Any] | None = None) -> list[Any]:
        return []

    def rpc_getSignatureStatuses(self, wanted: list[str], config: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._at({"commitment": "processed"}, [self._status(signature) for signature in wanted])

    def _status(self, signature: str) -> dict[str, Any] | None:
        slot = self.landed.get(signature, -1)
        depth = self.slot("processed") - slot
        if slot < 0 or depth < 0:
            return None
        level = "finalized" if depth >= DEPTH["finalized"] else "confirmed" if depth >= 1 else "processed"
        return {
            "slot": slot,
            "confirmations": None if level == "finalized" else depth,
            "err": None,
            "status": {"Ok": None},
            "confirmationStatus": level,
        }

    # --- writes --------------------------------------------------------------------------------------

    async def rpc_requestAirdrop(self, account: str, lamports: int, config: dict[str, Any] | None = None) -> str:
        done = self.svm.airdrop(Pubkey.from_string(account), lamports)
        self.svm.expire_blockhash()  # the next one like it is another transaction
        if isinstance(done, FailedTransactionMetadata):
            raise Refused(-32603, "Internal error")
        signature = str(done.signature())
        slot = self.slot("processed") + self.behind
        self.landed[signature] = slot
        await self._tell_peers("airdrop", [account, lamports, signature, slot])
        return signature

    async def rpc_sendTransaction(self, text: str, config: dict[str, Any] | None = None) -> str:
        if (config or {}).get("encoding") != "base64":
            raise Refused(-32602, "this node takes base64 only")
        transaction = VersionedTransaction.from_bytes(base64.b64decode(text))
        signature = str(transaction.signatures[0])
        if not self._known(transaction.message.recent_blockhash):
            self._refuse("Blockhash not found", "BlockhashNotFound")
        done = self.svm.send_transaction(transaction)
        if isinstance(done, FailedTransactionMetadata):
            if "AlreadyProcessed" in str(done.err()):
                self._refuse("This transaction has already been processed", "AlreadyProcessed")
            self._refuse("Error processing Instruction 0: custom program error: 0x1", CUSTOM_ERROR)
        slot = self.slot("processed") + self.behind
        self.landed[signature] = slot
        await self._tell_peers("transaction", [text, signature, slot])
        if self.dies_on_send:
            raise ConnectionResetError  # executed and passed on, and the caller never hears of it
        return signature

    @staticmethod
    def _refuse(words: str, error: Any) -> NoReturn:
        data = {"err": error, "logs": [], "accounts": None, "unitsConsumed": 0}
        raise Refused(-32002, f"Transaction simulation failed: {words}", data)

    # --- the cluster ---------------------------------------------------------------------------------

    def rpc__airdrop(self, account: str, lamports: int, signature: str, slot: int) -> bool:
        if signature not in self.landed:
            self.svm.airdrop(Pubkey.from_string(account), lamports)
            self.svm.expire_blockhash()
            self.landed[signature] = slot
        return True

    def rpc__transaction(self, text: str, signature: str, slot: int) -> bool:
        if signature not in self.landed:
            self.svm.send_transaction(VersionedTransaction.from_bytes(base64.b64decode(text)))
            self.landed[signature] = slot
        return True

    async def _tell_peers(self, what: str, items: list[Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": 0, "method": f"_{what}", "params": items}).encode()
        await asyncio.gather(*(_post(port, body) for port in self.peers))

    # --- JSON-RPC ------------------------------------------------------------------------------------

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        head = {"jsonrpc": "2.0", "id": request.get("id")}
        method = self.methods.get(request.get("method", ""))
        try:
            if method is None:
                raise Refused(-32601, "Method not found")
            result = method(*(request.get("params") or []))
            return {**head, "result": await result if asyncio.iscoroutine(result) else result}
        except Refused as refused:
            return {**head, "error": refused.answer}
        except (ValueError, TypeError) as problem:
            return {**head, "error": {"code": -32602, "message": f"Invalid param: {problem}"}}


async def _post(port: int, body: bytes) -> None:
    """Tell one peer, which may be down."""
    with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: peer\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await reader.readuntil(b"\r\n\r\n")
            writer.close()


async def serve(node: Node, port: int) -> None:
    """Answer JSON-RPC over HTTP/1.1 for ever."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.split(b"\r\n")[1:]:
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                request = json.loads(await reader.readexactly(length))
                many = isinstance(request, list)
                answers = [await node.answer(one) for one in (request if many else [request])]
                body = json.dumps(answers if many else answers[0], separators=(",", ":")).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="A Solana RPC node around LiteSVM.")
    parser.add_argument("port", type=int)
    parser.add_argument("--genesis", type=float, required=True, help="seconds since 1970, the same for all nodes")
    parser.add_argument("--peer", type=int, action="append", default=[], help="port of another node")
    parser.add_argument("--behind", type=int, default=0, help="slots by which it sees everything later")
    parser.add_argument("--dies-on-send", action="store_true", help="reset the connection over each transaction")
    arguments = parser.parse_args()
    node = Node(arguments.genesis, arguments.peer, arguments.behind, arguments.dies_on_send)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(node, arguments.port))
    os._exit(0)  # the virtual machine's threads need not be waited for


if __name__ == "__main__":
    main()

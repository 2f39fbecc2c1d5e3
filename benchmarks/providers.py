"""Simulated providers in a process of their own, so that the gateway's memory is the gateway's alone.

    python -m benchmarks.providers --control PORT --port P [--port P ...]

One line of JSON on the control port, `{"provider": 0, "fault": "status_503", "for": 0.5}`, starts a fault and is
answered with one line. It is a separate port because some faults close the provider's own listener.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import uvloop

from gateway.drill.chain import SimulatedChain
from gateway.drill.faults import Fault
from gateway.drill.provider import SimulatedProvider


async def serve(control_port: int, ports: list[int]) -> None:
    chain = SimulatedChain(chain_id=1)
    providers = [SimulatedProvider(f"p{number}", chain) for number in range(len(ports))]
    by_name = {fault.value: fault for fault in Fault}

    async def control(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            order = json.loads(await reader.readline())
            providers[order["provider"]].script.set(by_name[order["fault"]], lasting=order["for"])
            writer.write(b"done\n")
        except (ValueError, KeyError, IndexError, TypeError) as mistake:
            writer.write(f"refused: {mistake!r}\n".encode())
        writer.close()

    for provider, port in zip(providers, ports, strict=True):
        await provider.start(port=port)
    async with await asyncio.start_server(control, "127.0.0.1", control_port) as listener:
        await listener.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="simulated providers that can be told to fail")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--port", type=int, action="append", required=True)
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.control, chosen.port))


if __name__ == "__main__":
    main()

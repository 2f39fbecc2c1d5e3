"""The load: wrk for throughput and percentiles under concurrency, a raw socket for the latency of one connection."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from string import Template

PATH = "/bench"
CALLS = {
    "block-number": ("eth_blockNumber", "[]"),
    "balance": ("eth_getBalance", '["0x%040x","latest"]'),
}
DISTINCT = 4096
HEAD_END = b"\r\n\r\n"

# `done` prints one line for this program; wrk's own table rounds. Latencies are in microseconds.
SCRIPT = Template("""\
local ready, at = {}, 0
init = function(args)
  for i = 1, $distinct do
    local body = string.format('{"jsonrpc":"2.0","id":%d,"method":"$method","params":', i)
    body = body .. string.format('$params', i) .. '}'
    ready[i] = wrk.format("POST", nil, {["Content-Type"] = "application/json", ["Host"] = wrk.headers["Host"]}, body)
  end
end
request = function()
  at = at % $distinct + 1
  return ready[at]
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nDONE {"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"status":%d,"socket":%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
""")


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw; latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    errors: int


def missing() -> str | None:
    return None if shutil.which("wrk") else "wrk is not installed: apt-get install wrk"


def write_script(folder: Path, call: str) -> Path:
    method, params = CALLS[call]
    script = folder / f"{call}.lua"
    script.write_text(SCRIPT.substitute(distinct=DISTINCT, method=method, params=params))
    return script


def run_wrk(url: str, script: Path, connections: int, seconds: int) -> Load:
    argv = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "5s", "--latency"]
    argv += ["-s", str(script), url]
    ended = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=seconds + 30)
    line = next(line for line in ended.stdout.splitlines() if line.startswith("DONE "))
    seen = json.loads(line.removeprefix("DONE "))
    return Load(
        requests=seen["requests"],
        seconds=seen["seconds"],
        p50=seen["p50"] / 1e3,
        p99=seen["p99"] / 1e3,
        errors=seen["status"] + seen["socket"],
    )


class OneConnection:
    """A closed loop over one keep-alive connection, timed with the monotonic clock around write and last byte."""

    def __init__(self, port: int, call: str, context: ssl.SSLContext | None = None) -> None:
        raw = socket.create_connection(("127.0.0.1", port), timeout=10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(raw, server_hostname="127.0.0.1") if context else raw
        self._method, self._params = CALLS[call]
        self._port = port
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def call(self) -> tuple[float, bytes]:
        """Seconds for one call, and the body of the answer."""
        self._number += 1
        params = self._params % self._number if "%" in self._params else self._params
        body = f'{{"jsonrpc":"2.0","id":{self._number},"method":"{self._method}","params":{params}}}'
        return self.exchange("POST", PATH, body)

    def exchange(self, verb: str, path: str, body: str = "") -> tuple[float, bytes]:
        request = (
            f"{verb} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        started = time.perf_counter()
        self._socket.sendall(request)
        status, answer = self._read()
        took = time.perf_counter() - started
        if status != 200:
            raise ConnectionError(f"answered {status}: {answer[:200]!r}")
        return took, answer

    def checked_call(self) -> None:
        """One call whose answer must be the upstream's, with this call's id."""
        _, body = self.call()
        answer = json.loads(body)
        if answer.get("id") != self._number or answer.get("result") != "0x1":
            raise ConnectionError(f"unexpected answer: {body[:200]!r}")

    def _read(self) -> tuple[int, bytes]:
        data = b""
        while HEAD_END not in data:
            data += self._more()
        head, _, body = data.partition(HEAD_END)
        lowered = head.lower()
        if b"transfer-encoding: chunked" in lowered:
            while not body.endswith(b"0\r\n\r\n"):
                body += self._more()
            return int(head[9:12]), _unchunk(body)
        at = lowered.find(b"content-length:")
        length = int(lowered[at + 15 :].split(b"\r\n", 1)[0])
        while len(body) < length:
            body += self._more()
        return int(head[9:12]), body

    def _more(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("connection closed before the answer was complete")
        return data


def _unchunk(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        count = int(size, 16)
        out, body = out + body[:count], body[count + 2 :]
    return out

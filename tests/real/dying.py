"""A proxy in front of a real node that dies over each send: the node gets the transaction, the caller no answer."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.request
from types import TracebackType


class DyingProxy:
    """Forwards JSON-RPC to `node`; an eth_sendRawTransaction is forwarded too, and then the connection is reset."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.died = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> DyingProxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while True:
                length = 0
                while line := lines.readline().strip():
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                if not length:
                    return
                body = lines.read(length)
                request = urllib.request.Request(self._node, body, {"content-type": "application/json"})  # noqa: S310
                with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - loopback
                    answer = response.read()
                if b"eth_sendRawTransaction" in body:
                    self.died += 1
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))

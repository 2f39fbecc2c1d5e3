"""The server's side of TLS over a raw transport, without tasks.

Always true: nothing here waits, so a handshake that never ends is ended by resetting the raw
transport, as anything else is; and the raw connection is in our hands before the handshake, so
faults on accept come before it, on every event loop.
Does not belong here: certificates (the context brings them), requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

_PIECE_BYTES = 65_536


class EncryptedTransport:
    """Stands in for the raw transport it wraps; `decrypt` is what turns arriving bytes into the caller's."""

    def __init__(self, raw: asyncio.Transport, context: ssl.SSLContext) -> None:
        self._raw = raw
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._shaken = False

    def decrypt(self, data: bytes) -> bytes:
        """Take what arrived; give what the caller said in it, often nothing.  Raises ssl.SSLError."""
        self._incoming.write(data)
        said = []
        try:
            if not self._shaken:
                self._session.do_handshake()
                self._shaken = True
            while piece := self._session.read(_PIECE_BYTES):
                said.append(piece)
            self.close()  # reading nothing means that the caller said goodbye
        except ssl.SSLWantReadError:
            pass
        finally:
            self._flush()  # an alert too, when the handshake failed
        return b"".join(said)

    def write(self, data: bytes) -> None:
        if self._raw.is_closing():  # the goodbye is said; the session would refuse
            return
        self._session.write(data)
        self._flush()

    def close(self) -> None:
        """Say goodbye properly (close_notify), then FIN; does not wait for the other side's goodbye."""
        with contextlib.suppress(ssl.SSLError):  # it raises for want of the answer that we do not wait for
            self._session.unwrap()
        self._flush()
        self._raw.close()

    def abort(self) -> None:
        self._raw.abort()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str) -> Any:
        return self._raw.get_extra_info(name)

    def _flush(self) -> None:
        if not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

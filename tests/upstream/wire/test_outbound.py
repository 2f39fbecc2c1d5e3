"""From settings to an engine: what the configuration accepts can be built, and fails as any endpoint does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.clock import monotonic
from gateway.errors import AttemptError
from gateway.limits import TransportSettings
from gateway.model import Sent
from gateway.upstream.wire.outbound import Outbound, build_engine
from gateway.upstream.wire.resolver import Resolver


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_every_kind_of_proxy_that_may_be_configured_is_dialled_and_its_absence_is_no_sent_request(scheme: str) -> None:
    async def story() -> None:
        outbound = Outbound(url="http://127.0.0.1:9/", proxy=f"{scheme}://127.0.0.1:9")
        engine = build_engine(outbound, TransportSettings(), Resolver(monotonic), monotonic)
        with pytest.raises(AttemptError) as failure:
            await engine.send(b"{}", monotonic() + 5.0)
        assert failure.value.sent is Sent.NOT_SENT
        await engine.close()

    asyncio.run(story())


def test_no_variable_of_the_environment_has_the_keys_of_connections_written_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = Outbound(url="https://rpc.example.org/").tls_context()
    assert context is not None
    assert context.keylog_filename is None

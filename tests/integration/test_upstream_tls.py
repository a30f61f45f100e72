"""TLS towards an upstream: trust is what the configuration says, and renewed files are taken by a reload."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.harness import RawClient, answer_json, free_port, post, running_proxy, scripted_upstream
from tests.unit.config.pem import write_pair


async def _status(port: int) -> int:
    client = await RawClient.connect(port)
    await client.send(post())
    status, _, _ = await client.answer()
    await client.close()
    return status


def _context(path: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path, key)
    return context


@pytest.mark.parametrize("trusted", [True, False])
async def test_only_a_trusted_certificate_is_talked_to(tmp_path: Path, trusted: bool) -> None:
    """Without its authority in `tls.ca` the server cannot be reached; nothing is sent to it."""
    cert, key = tmp_path / "up.pem", tmp_path / "up.key"
    write_pair(cert, key)
    async with scripted_upstream(answer_json, tls=_context(cert, key)) as upstream:
        server = {"url": upstream.url.replace("http", "https", 1).replace("127.0.0.1", "localhost")}
        if trusted:
            server["tls"] = {"ca": str(cert)}
        with running_proxy({"servers": {"up": server}}) as proxy:
            assert await _status(proxy.port) == (200 if trusted else 502)
            assert len(upstream.seen) == int(trusted)


async def test_a_renewed_authority_is_taken_by_a_reload(tmp_path: Path) -> None:
    """The same path, another certificate on both sides."""
    cert, key = tmp_path / "up.pem", tmp_path / "up.key"
    port = free_port()
    config = {"servers": {"up": {"url": f"https://localhost:{port}/mcp", "tls": {"ca": str(cert)}}}}
    write_pair(cert, key)
    with running_proxy(config) as proxy:
        async with scripted_upstream(answer_json, port, _context(cert, key)):
            assert await _status(proxy.port) == 200
        write_pair(cert, key)
        async with scripted_upstream(answer_json, port, _context(cert, key)):
            line = await asyncio.to_thread(proxy.reload, config)
            assert line["event"] == "configuration in force"
            assert await _status(proxy.port) == 200

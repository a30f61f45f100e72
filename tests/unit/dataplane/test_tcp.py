"""Options of TCP sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from proxy.dataplane import tcp
from tests.harness import RawClient, post, scripted_upstream
from tests.inprocess import running_app


def _options(sock: socket.socket) -> tuple[int, ...]:
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
    )


WANTED = (1, 30, 60_000, 1)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_new_socket_probes_its_peer_and_delays_nothing(family: socket.AddressFamily) -> None:
    """Both families."""
    with contextlib.closing(tcp.new_socket((family, socket.SOCK_STREAM, 0, "", ()))) as sock:
        assert _options(sock) == WANTED


async def test_accepted_and_upstream_connections_have_the_options() -> None:
    """What a listening socket has is inherited; what the pool opens gets them."""
    async with scripted_upstream() as upstream, running_app({"servers": {"up": {"url": upstream.url}}}) as (app, port):
        client = await RawClient.connect(port)
        await client.send(post())
        await client.answer()
        transport = next(iter(app._listener.connections)).transport
        assert _options(_dup(transport)) == WANTED
        pool = app.live.snapshot.upstreams["up"].client._connector
        assert pool is not None
        ((protocol, _),) = next(iter(pool._conns.values()))
        assert _options(_dup(protocol.transport)) == WANTED
        await client.close()


def _dup(transport: asyncio.Transport) -> socket.socket:
    sock = transport.get_extra_info("socket")
    assert sock is not None
    return sock

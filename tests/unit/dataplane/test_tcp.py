"""Options of TCP sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
import sys
import time
from ipaddress import ip_network

import pytest
from prometheus_client import CollectorRegistry

from proxy.config.models import Server
from proxy.config.reachable import Reachable
from proxy.dataplane import tcp
from proxy.dataplane.client import UpstreamClient
from proxy.dataplane.deadlines import Deadlines
from proxy.errors import ConnectFailed
from proxy.metrics import Metrics
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


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_guarded_socket_is_for_permitted_addresses_only(address: str) -> None:
    """Whatever name led there."""
    entry = (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 80))
    with pytest.raises(PermissionError):
        tcp.guarded(Reachable())(entry)
    permitted = Reachable((ip_network("127.0.0.0/8"), ip_network("::1/128")))
    with contextlib.closing(tcp.guarded(permitted)(entry)) as sock:
        assert _options(sock) == WANTED


async def test_a_connection_is_made_to_the_first_address_that_answers() -> None:
    """One that is not permitted or refuses is passed over; when none is left, the last reason is told."""
    async with scripted_upstream() as upstream:
        with contextlib.closing(await tcp.connect("localhost", upstream.port, tcp.new_socket)) as sock:
            assert sock.getpeername()[1] == upstream.port
        with pytest.raises(PermissionError):
            await tcp.connect("localhost", upstream.port, tcp.guarded(Reachable()))
    with pytest.raises(ConnectionRefusedError):
        await tcp.connect("127.0.0.1", upstream.port, tcp.new_socket)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_server_of_a_tenant_is_not_reached_inside(host: str) -> None:
    """By its address or by a name that leads there: 502, and nothing was sent; permitted, it is."""
    async with scripted_upstream() as upstream:
        config = Server.model_validate({"url": f"http://{host}:{upstream.port}/mcp"})
        metrics = Metrics(CollectorRegistry(), 10, str).server("own")
        for reachable, reached in ((Reachable(), False), (Reachable((ip_network("127.0.0.0/8"),)), True)):
            client = UpstreamClient(config, metrics, Deadlines(time.monotonic), reachable)
            with contextlib.nullcontext() if reached else pytest.raises(ConnectFailed):
                (await client.send("POST", "", [("Host", "h")], b"{}")).close()
            await client.close()
            assert bool(upstream.seen) is reached


@pytest.mark.skipif(sys.platform != "linux", reason="socket filters are Linux'")
def test_a_socket_that_ignores_new_connections_keeps_those_it_has() -> None:
    """Who had connected is still there to be accepted; who comes later gets no answer, and is refused after `close`."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening, contextlib.ExitStack() as opened:
        address = listening.getsockname()
        early = opened.enter_context(socket.create_connection(address, timeout=5))
        assert tcp.ignore_new(listening)
        late = opened.enter_context(socket.socket())
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.connect(address)
        accepted = opened.enter_context(listening.accept()[0])
        early.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
        listening.close()
        assert select.select([], [late], [], 5)[1], "its SYN is sent again after a second"
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_where_sockets_have_no_filters_nothing_is_ignored() -> None:
    """Closing is then as good as it can be."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as closed:
        closed.close()
        assert not tcp.ignore_new(closed)

"""WebSocket towards an upstream: the opening handshake on a connection of its own, then raw bytes both ways.

Owns the connection and the pump between the two ends; the answer to the handshake is read by `handshake.py`. Frames
are not looked at (RFC 6455: they are end to end). It must not know routes, sessions or lanes: the client's side is a
`TunnelEnd`, header fields arrive ready from `rewrite.py` and leave as they came.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from proxy.dataplane import tcp
from proxy.dataplane.handshake import HEAD_BYTES, read_body, read_head
from proxy.errors import ConnectFailed, Refusal, UpstreamFailed, UpstreamTimeout

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Headers
    from proxy.dataplane.upstream import Upstream

#: What the pump reads at a time.
_PIECE_BYTES: Final = 64 << 10
#: How long an upstream may go on after the client stopped sending: enough for its Close frame.
_AFTER_CLIENT_S: Final = 2.0

_SECURE: Final = frozenset(("https", "wss"))


class TunnelEnd(Protocol):
    """The client's side of a tunnel; an upgraded `Exchange` is one."""

    @property
    def paused(self) -> bool:
        """The client does not read: `await drain()` before the next `write`."""
        ...

    async def read_chunk(self) -> bytes:
        """The next bytes, b'' when the client sends no more; ConnectionError when it is gone."""
        ...

    def write(self, chunk: bytes) -> None:
        """Send bytes at once."""
        ...

    async def drain(self) -> None:
        """Wait until the client reads again; ConnectionError when it is gone."""
        ...

    def finish(self) -> None:
        """The tunnel ended in order: close after what was written."""
        ...

    def abort(self) -> None:
        """The tunnel broke: reset."""
        ...


class Tunnel(NamedTuple):
    """What the upstream answered. With 101 the streams are open and the caller's to `relay`; else they are closed."""

    status: int
    headers: Headers
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Passed:
    """What has passed through a tunnel so far, bytes; to be had also when its end is a cancellation."""

    __slots__ = ("down", "up")

    def __init__(self) -> None:
        self.up = 0
        self.down = 0


class Relayed(NamedTuple):
    """How a tunnel ended."""

    bytes_in: int
    """From the client."""
    bytes_out: int
    """To the client."""
    outcome: str
    """'' when the upstream ended it, else `client_gone`, `upstream_truncated` or `timeout`."""


async def open_tunnel(upstream: Upstream, headers: Headers, target: str, deadline_s: float) -> Tunnel:
    """Send the opening handshake to `target` (an absolute URL, '' for the configured one) and read the answer.

    `headers` begin with Host and have no hop-by-hop fields; Upgrade and Connection are added here. Connecting has
    `timeouts.connect`, the answer `deadline_s`. Raises ConnectFailed (nothing was sent), UpstreamTimeout and
    UpstreamFailed.
    """
    url = urlsplit(target or upstream.target)
    reader, writer = await _connect(upstream, url.hostname or "", url.port, url.scheme in _SECURE)
    path = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
    lines = [f"GET {path} HTTP/1.1\r\n", *[f"{name}: {value}\r\n" for name, value in headers]]
    lines.append("Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    tunnel: Tunnel | None = None
    try:
        async with asyncio.timeout(deadline_s):
            writer.write("".join(lines).encode())
            status, fields = await read_head(reader)
            body = b"" if status == 101 else await read_body(reader, status, fields)
            tunnel = Tunnel(status, fields, body, reader, writer)
            return tunnel
    except TimeoutError:
        raise UpstreamTimeout("handshake") from None
    except (OSError, EOFError, asyncio.LimitOverrunError, Refusal) as error:
        raise UpstreamFailed(error.detail if isinstance(error, Refusal) else type(error).__name__) from None
    finally:
        if tunnel is None or tunnel.status != 101:
            writer.transport.abort()


async def relay(client: TunnelEnd, tunnel: Tunnel, idle_s: float, passed: Passed | None = None) -> Relayed:
    """Carry bytes both ways until one side ends, then end the other: in order when the upstream ended, else by reset.

    `idle_s` is the longest silence of both sides together; 0 for no limit. On cancellation the upstream is reset.
    `passed` is told of all that passes.
    """
    flow = _Flow(idle_s, passed or Passed())
    outcome = ""
    try:
        async with flow.patience, asyncio.TaskGroup() as group:
            group.create_task(_carry_up(client, tunnel.writer, flow))
            group.create_task(_carry_down(client, tunnel.reader, flow))
    except* _Ended as ended:
        outcome = str(ended.exceptions[0])
    except* TimeoutError:
        outcome = "timeout"
    finally:
        if outcome or not flow.upstream_ended:
            tunnel.writer.transport.abort()
        else:
            tunnel.writer.close()
    if outcome:
        client.abort()
    else:
        client.finish()
    return Relayed(flow.passed.up, flow.passed.down, outcome)


# --- the pump -------------------------------------------------------------------------------------------------------


class _Flow:
    """What has passed through one tunnel, and how long it may stay silent."""

    __slots__ = ("_clock", "_idle_s", "passed", "patience", "upstream_ended")

    def __init__(self, idle_s: float, passed: Passed) -> None:
        self.passed = passed
        self.upstream_ended = False
        self.patience = asyncio.timeout(idle_s or None)
        self._idle_s = idle_s
        self._clock = asyncio.get_running_loop().time

    def moved(self) -> None:
        """Bytes came from either side: the silence begins anew."""
        if self._idle_s and not self.patience.expired():
            self.patience.reschedule(self._clock() + self._idle_s)


class _Ended(Exception):
    """The tunnel is over; says how, as in `Relayed.outcome`. Stops the other direction."""


async def _carry_up(client: TunnelEnd, writer: asyncio.StreamWriter, flow: _Flow) -> None:
    while chunk := await _read_client(client):
        flow.moved()
        flow.passed.up += len(chunk)
        writer.write(chunk)
        try:
            await writer.drain()
        except OSError:
            raise _Ended("upstream_truncated") from None
    if writer.can_write_eof():  # TLS knows no half-close
        writer.write_eof()
        await asyncio.sleep(_AFTER_CLIENT_S)
    raise _Ended("client_gone")


async def _carry_down(client: TunnelEnd, reader: asyncio.StreamReader, flow: _Flow) -> None:
    while chunk := await _read_upstream(reader):
        flow.moved()
        flow.passed.down += len(chunk)
        client.write(chunk)
        if client.paused:
            try:
                await client.drain()
            except OSError:
                raise _Ended("client_gone") from None
    flow.upstream_ended = True
    raise _Ended


async def _read_client(client: TunnelEnd) -> bytes:
    try:
        return await client.read_chunk()
    except OSError:
        raise _Ended("client_gone") from None


async def _read_upstream(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(_PIECE_BYTES)
    except OSError:
        raise _Ended("upstream_truncated") from None


# --- the handshake --------------------------------------------------------------------------------------------------


async def _connect(
    upstream: Upstream, host: str, port: int | None, secure: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    client, number = upstream.client, port or (443 if secure else 80)
    tls = client.tls if secure else None
    try:
        async with asyncio.timeout(upstream.config.timeouts.connect):
            return await asyncio.open_connection(
                sock=await tcp.connect(host, number, client.new_socket, client.resolver),
                limit=HEAD_BYTES,
                ssl=tls,
                server_hostname=host.rstrip(".") if tls is not None else None,  # as in certificates
            )
    except (OSError, TimeoutError) as error:
        raise ConnectFailed(type(error).__name__) from None

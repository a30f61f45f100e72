"""Options of TCP sockets, towards clients and upstreams alike: who vanished is noticed, and nothing is delayed."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from proxy.dataplane.resolver import Resolver

if TYPE_CHECKING:
    from proxy.config.reachable import Reachable

NewSocket = Callable[[tuple[Any, ...]], socket.socket]
"""Makes the socket for an entry of `getaddrinfo`."""

#: Idle for 30 s, then 3 probes 10 s apart; unacknowledged data ends a connection after 60 s (milliseconds). Without
#: them an idle stream to a host that lost power would stay open for ever.
_OPTIONS: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 60_000),
)


#: Linux' option, which Python has no name for (asm-generic/socket.h).
_SO_ATTACH_FILTER: Final = 26
#: Classic BPF over the TCP header, as (code, jump if true, jump if false, operand): a segment with SYN and without ACK
#: is dropped, all others pass.
_NO_SYN: Final = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def set_options(sock: socket.socket) -> None:
    """Set what this platform has; sockets accepted from a listening one inherit them (Linux)."""
    for level, name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(level, option, value)


def ignore_new(listening: socket.socket) -> bool:
    """Let a listening socket finish the handshakes that have begun, and begin none. False where that cannot be done.

    Closing a listening socket resets whoever has connected and was not accepted yet, and between the last `accept` and
    `close` there is always somebody. A client whose SYN is ignored sends it again a second later, and is then refused.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _NO_SYN))
    try:
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        )
    except OSError:  # not Linux, or a sandbox
        return False
    return True


def guarded(reachable: Reachable) -> NewSocket:
    """Like `new_socket`, for permitted addresses only. Raises PermissionError, which is an OSError, for others."""

    def new(address: tuple[Any, ...]) -> socket.socket:
        if not reachable.permits(str(address[4][0])):
            raise PermissionError("an address that servers of tenants may not have")
        return new_socket(address)

    return new


def new_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an entry of `getaddrinfo`, options set; connecting is the caller's."""
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)
    set_options(sock)
    return sock


async def connect(host: str, port: int, new: NewSocket, resolver: Resolver | None = None) -> socket.socket:
    """A connection to one of the addresses of `host`, in the order in which they are found. Raises OSError."""
    loop = asyncio.get_running_loop()
    error = OSError("no address")
    for address in await _addresses(host, port, resolver):
        try:
            sock = new(address)
        except OSError as refusal:
            error = refusal
            continue
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address[4])
        except OSError as failure:
            sock.close()
            error = failure
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise error


async def _addresses(host: str, port: int, resolver: Resolver | None) -> Sequence[tuple[Any, ...]]:
    """As `getaddrinfo` gives them."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=_NUMERIC)  # asks nobody
    except socket.gaierror:
        found = await (resolver or Resolver()).resolve(host, port)
    return [
        (each["family"], socket.SOCK_STREAM, each["proto"], "", *_socket_address(each["host"], port)) for each in found
    ]


def _socket_address(address: str, port: int) -> Sequence[Any]:
    return [info[4] for info in socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=_NUMERIC)][:1]

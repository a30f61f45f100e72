"""Options of TCP sockets, towards clients and upstreams alike: who vanished is noticed, and nothing is delayed."""

from __future__ import annotations

import socket
from typing import Any, Final

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


def set_options(sock: socket.socket) -> None:
    """Set what this platform has; sockets accepted from a listening one inherit them (Linux)."""
    for level, name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(level, option, value)


def new_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an entry of `getaddrinfo`, options set; connecting is the caller's."""
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)
    set_options(sock)
    return sock

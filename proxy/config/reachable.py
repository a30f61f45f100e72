"""Where servers that tenants registered may stand: on public addresses, and in the networks that the operator lists.

Owns the answer for an address and for a URL. Without it a tenant could have the proxy ask the operator's own network,
or the metadata service of a cloud. The check of a URL is for whoever saves one; what counts is the check of the address
that a name has led to, at each connect (a name may lead elsewhere every time).
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

_Address = IPv4Address | IPv6Address

#: Addresses that carry an IPv4 address for a translator (RFC 6052 section 2.1, RFC 8215).
_TRANSLATED: Final = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
#: Addresses that have one in other ways: IPv4-compatible (RFC 4291 section 2.5.5.1), IPv4-translated (RFC 2765).
_EMBEDDED: Final = (IPv6Network("::/96"), IPv6Network("::ffff:0:0:0/96"))
#: Never public, whatever `ipaddress` says of them: the machine's own service in Azure; protocol assignments, where
#: Oracle's cloud has its metadata (RFC 6890 section 2.2.2); site-local addresses (RFC 3879).
_SPECIAL: Final = (IPv4Network("168.63.129.16/32"), IPv4Network("192.0.0.0/24"), IPv6Network("fec0::/10"))
_LAST_32_BITS: Final = 0xFFFFFFFF
_THIS_MACHINE: Final = IPv4Address("127.0.0.1")


@dataclass(frozen=True, slots=True)
class Reachable:
    """What servers of tenants may stand on; equal ones permit the same."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Permitted although they are not public."""

    def permits(self, text: str) -> bool:
        """Whether a connection may be made to the address in `text`; what is no address is not permitted."""
        address = _read(text)
        if address is None:
            return False
        return any(address in network for network in self.networks) or _is_public(address)

    def check_url(self, url: str) -> None:
        """Raise ValueError for a URL whose host is an address that is not permitted, however it is written. Names are
        not looked up."""
        host = urlsplit(url).hostname or ""
        address = _THIS_MACHINE if _is_local(host) else _written(host)
        if address is not None and not self.permits(str(address)):
            raise ValueError("the address is not public; list its network in registry.private_networks to permit it")


def _read(text: str) -> _Address | None:
    """The address; IPv4 inside IPv6 (RFC 4291 section 2.5.5.2) is IPv4, a zone does not count."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _written(host: str) -> _Address | None:
    """The address that a host in a URL stands for, also as `127.1`, `0x7f.1` or `2130706433`, as resolvers read it."""
    try:
        return _read(host) or IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _is_public(address: _Address) -> bool:
    if isinstance(address, IPv6Address) and any(address in network for network in (*_TRANSLATED, *_EMBEDDED)):
        return _is_public(IPv4Address(int(address) & _LAST_32_BITS))
    if any(address in network for network in _SPECIAL):
        return False
    inner = (address.sixtofour or (address.teredo or (None, None))[1]) if isinstance(address, IPv6Address) else None
    return address.is_global and not address.is_multicast and (inner is None or _is_public(inner))


def _is_local(host: str) -> bool:
    """Names that mean this machine wherever they are looked up (RFC 6761 section 6.3)."""
    name = host.rstrip(".").lower()
    return name == "localhost" or name.endswith(".localhost")

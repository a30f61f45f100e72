"""Client addresses and networks as numbers.

Owns their reading and the question whether an address lies in a set of networks. An IPv4-mapped IPv6 address
(RFC 4291 section 2.5.5.2) is the IPv4 address that it carries, in requests and in configured networks alike; a zone
(RFC 4007 section 11) is local to the machine that wrote it and counts for nothing. Nothing here resolves names.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

#: Characters of the longest address with a zone that is read: addresses come from strangers.
_LONGEST: Final = 80
_MAPPED_BITS: Final = 96


@lru_cache(4096)
def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in `text`, or None when it is not one."""
    if len(text) > _LONGEST:
        return None
    try:
        if ":" not in text:
            return IPv4Address(text)
        wide = IPv6Address(text.partition("%")[0])
    except AddressValueError:
        return None
    return wide.ipv4_mapped or wide


def read_network(text: str) -> Network:
    """The network in `text`, a single address included. Raises ValueError, also when host bits are set."""
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


class Networks:
    """A set of networks; one look-up per distinct prefix length, however many there are."""

    __slots__ = ("_narrow", "_wide")

    def __init__(self, networks: Iterable[Network]) -> None:
        tables: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            tables[network.version].setdefault(shift, set()).add(int(network.network_address) >> shift)
        self._narrow = tuple(tables[4].items())
        self._wide = tuple(tables[6].items())

    def __bool__(self) -> bool:
        return bool(self._narrow or self._wide)

    def __contains__(self, text: str) -> bool:
        """Whether the address in `text` lies in one of the networks; what is no address lies in none."""
        address = read_address(text)
        if address is None:
            return False
        number = int(address)
        for shift, numbers in self._narrow if address.version == 4 else self._wide:
            if number >> shift in numbers:
                return True
        return False

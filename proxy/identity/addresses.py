"""Client addresses and networks as numbers.

Owns their reading, and the question whether an address lies in a set of networks. An IPv4-mapped IPv6 address
(RFC 4291 section 2.5.5.2) is the IPv4 address that it carries, in requests and in configured networks alike; a zone
(RFC 4007 section 11) is local to the machine that wrote it and counts for nothing. Nothing here resolves names.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, NamedTuple

Network = IPv4Network | IPv6Network

Address = tuple[int, int]
"""Width in bits, 32 for IPv4 and 128 for IPv6, and the address as a number."""

#: Characters of the longest address with a zone that is read: addresses come from strangers.
_LONGEST: Final = 80
_MAPPED_BITS: Final = 96


class NetworkKey(NamedTuple):
    """A network: what remains of its addresses, of `bits` bits, once they are shifted right by `shift`."""

    bits: int
    shift: int
    number: int


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


@lru_cache(4096)
def read_number(text: str) -> Address | None:
    """The same as a number."""
    address = read_address(text)
    return None if address is None else (address.max_prefixlen, int(address))


def read_network(text: str) -> Network:
    """The network in `text`, a single address included. Raises ValueError, also when host bits are set."""
    return plain(ip_network(text))


def plain(network: Network) -> Network:
    """The network, that of IPv4 addresses where it holds mapped ones only."""
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def key_of(network: Network) -> NetworkKey:
    """The key of a network, mapped ones included."""
    network = plain(network)
    shift = network.max_prefixlen - network.prefixlen
    return NetworkKey(network.max_prefixlen, shift, int(network.network_address) >> shift)


class Networks:
    """A set of networks; one look-up per distinct prefix length, however many there are."""

    __slots__ = ("_narrow", "_wide")

    def __init__(self, networks: Iterable[Network]) -> None:
        tables: dict[int, dict[int, set[int]]] = {32: {}, 128: {}}
        for bits, shift, number in map(key_of, networks):
            tables[bits].setdefault(shift, set()).add(number)
        self._narrow = tuple(tables[32].items())
        self._wide = tuple(tables[128].items())

    def __bool__(self) -> bool:
        return bool(self._narrow or self._wide)

    def __contains__(self, text: str) -> bool:
        """Whether the address in `text` lies in one of the networks; what is no address lies in none."""
        address = read_number(text)
        if address is None:
            return False
        bits, number = address
        for shift, numbers in self._narrow if bits == 32 else self._wide:  # noqa: SIM110 - a generator costs more
            if number >> shift in numbers:
                return True
        return False

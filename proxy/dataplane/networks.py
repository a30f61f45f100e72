"""Client addresses as numbers, and a table that finds every network an address lies in.

An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is the IPv4 address that it carries, in requests and in
configured networks alike. Nothing here resolves names or opens sockets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, Generic, NamedTuple, TypeVar

V = TypeVar("V")

_MAPPED: Final = bytes(10) + b"\xff\xff"
_MAPPED_BITS: Final = 96


Address = tuple[int, int]
"""Width in bits, 32 for IPv4 and 128 for IPv6, and the address as a number."""


class NetworkKey(NamedTuple):
    """A network: what remains of its addresses, of `bits` bits, once they are shifted right by `shift`."""

    bits: int
    shift: int
    number: int


def parse_address(text: str) -> Address | None:
    """The address in `text` (an IPv6 zone after '%' is ignored); None when it is not one."""
    try:
        if ":" not in text:
            return 32, int.from_bytes(inet_pton(AF_INET, text), "big")
        packed = inet_pton(AF_INET6, text.partition("%")[0])
    except (OSError, ValueError):
        return None
    if packed.startswith(_MAPPED):
        return 32, int.from_bytes(packed[12:], "big")
    return 128, int.from_bytes(packed, "big")


def network_keys(networks: Sequence[IPv4Network | IPv6Network]) -> tuple[NetworkKey, ...]:
    """Keys of the networks without those that lie in another one, so that an address fits at most one of them."""
    unmapped = [_unmapped(network) for network in networks]
    if len(unmapped) == 1:
        return (_key(unmapped[0]),)
    narrow = map(_key, collapse_addresses(network for network in unmapped if isinstance(network, IPv4Network)))
    wide = map(_key, collapse_addresses(network for network in unmapped if isinstance(network, IPv6Network)))
    return (*narrow, *wide)


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    packed = network.network_address.packed
    if network.prefixlen < _MAPPED_BITS or not packed.startswith(_MAPPED):
        return network
    return IPv4Network((packed[12:], network.prefixlen - _MAPPED_BITS))


def _key(network: IPv4Network | IPv6Network) -> NetworkKey:
    shift = network.max_prefixlen - network.prefixlen
    return NetworkKey(network.max_prefixlen, shift, int(network.network_address) >> shift)


class NetworkTable(Generic[V]):
    """Values filed under networks; one look-up per distinct prefix length, however many networks there are."""

    __slots__ = ("_by_bits",)

    def __init__(self, values: Mapping[NetworkKey, V]) -> None:
        tables: dict[int, dict[int, dict[int, V]]] = {32: {}, 128: {}}
        for (bits, shift, number), value in values.items():
            tables[bits].setdefault(shift, {})[number] = value
        self._by_bits = {bits: tuple(sorted(shifts.items())) for bits, shifts in tables.items()}

    def lookup(self, address: Address) -> list[V]:
        """The values of every network that `address` lies in, narrowest first."""
        bits, number = address
        found = []
        for shift, values in self._by_bits[bits]:
            value = values.get(number >> shift)
            if value is not None:
                found.append(value)
        return found

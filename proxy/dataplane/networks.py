"""A table that finds every network an address lies in, for many routes at once.

Owns how values are filed under networks. What an address is, and that an IPv4 address in IPv6 form is that IPv4
address, is `identity/addresses.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Generic, TypeVar

from proxy.identity.addresses import Address, Network, NetworkKey, key_of, plain

V = TypeVar("V")


def network_keys(networks: Iterable[Network]) -> tuple[NetworkKey, ...]:
    """Keys of the networks without those that lie in another one, so that an address fits at most one of them."""
    unmapped = [plain(network) for network in networks]
    if len(unmapped) == 1:
        return (key_of(unmapped[0]),)
    narrow = map(key_of, collapse_addresses(network for network in unmapped if isinstance(network, IPv4Network)))
    wide = map(key_of, collapse_addresses(network for network in unmapped if isinstance(network, IPv6Network)))
    return (*narrow, *wide)


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

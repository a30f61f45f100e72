"""Addresses and networks: read as numbers, compared by prefix."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.addresses import Network, Networks, key_of, plain, read_address, read_network, read_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
    ],
)
def test_each_address_has_one_reading(text: str, expected: str) -> None:
    """IPv4 inside IPv6 is IPv4; a zone does not count."""
    assert str(read_address(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "10.0.0", "10.0.0.256", "010.0.0.1", "1.2.3.4%x", "::1%" + "z" * 100, "a", "localhost", "[::1]",
        "1.2.3.4:5", "::g", "a\0b", "é", "1.2.3.٤", "/run/socket",
    ],
)  # fmt: skip
def test_what_is_no_address_is_none(text: str) -> None:
    """Nothing is guessed: leading zeros, ports, brackets, short forms and names are no part of an address."""
    assert read_address(text) is None
    assert read_number(text) is None


@given(st.one_of(st.ip_addresses(), st.integers(0, 2**32 - 1).map(lambda low: IPv6Address((0xFFFF << 32) + low))))
def test_an_address_is_read_as_the_standard_library_reads_it(address: IPv4Address | IPv6Address) -> None:
    """Every address of both families, mapped ones as what they carry."""
    carried = getattr(address, "ipv4_mapped", None) or address
    assert read_address(str(address)) == carried
    assert read_number(str(address)) == (carried.max_prefixlen, int(carried))


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "10.0.0.0/33", ""])
def test_a_network_is_exact(text: str) -> None:
    """Host bits that are set are a slip of the pen."""
    with pytest.raises(ValueError, match=r"."):
        read_network(text)


def test_a_mapped_network_is_the_ipv4_network_in_it() -> None:
    """So is a single mapped address, however the network was made; a wider network holds other addresses, too."""
    mapped = ip_network("::ffff:10.0.0.0/104")
    assert read_network("::ffff:10.0.0.0/104") == plain(mapped) == IPv4Network("10.0.0.0/8")
    assert key_of(mapped) == key_of(ip_network("10.0.0.0/8")) == (32, 24, 10)
    assert "10.2.3.4" in Networks([read_network("::ffff:10.2.3.4")])
    assert "10.2.3.4" in Networks([mapped])
    assert plain(ip_network("::/0")) == ip_network("::/0")
    assert "10.2.3.4" not in Networks([ip_network("::/0")])


NARROW = st.builds(
    lambda number, bits: IPv4Network((number, bits), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
)
WIDE = st.builds(
    lambda number, bits: IPv6Network((number, bits), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)
)


@given(st.lists(NARROW | WIDE, max_size=8), st.ip_addresses(), st.data())
def test_membership_is_that_of_the_standard_library(
    networks: list[Network], stranger: IPv4Address | IPv6Address, data: st.DataObject
) -> None:
    """For strangers, and for addresses out of one of the networks."""
    address = stranger
    if networks and data.draw(st.booleans()):
        network = data.draw(st.sampled_from(networks))
        address = network[data.draw(st.integers(0, network.num_addresses - 1))]
    carried = getattr(address, "ipv4_mapped", None) or address
    expected = any(carried in plain(network) for network in networks)
    assert (str(address) in Networks(networks)) == expected


def test_an_empty_set_holds_nothing() -> None:
    """And says so."""
    assert not Networks([])
    assert Networks([ip_network("10.0.0.0/8")])
    assert str(ip_address("10.0.0.1")) not in Networks([])
    assert "nonsense" not in Networks([ip_network("0.0.0.0/0"), ip_network("::/0")])

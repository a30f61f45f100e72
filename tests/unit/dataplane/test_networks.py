"""The table of networks."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.networks import NetworkTable, network_keys
from proxy.identity.addresses import read_number

#: Few enough bits in play that addresses and networks meet.
V4 = st.integers(0, 255).map(lambda low: IPv4Address(0x0A000000 + low))
V6 = st.integers(0, 255).map(lambda low: IPv6Address((0x20010DB8 << 96) + low))
ADDRESSES = st.one_of(V4, V6)
NETWORKS = st.one_of(
    st.builds(lambda address, bits: ip_network(f"{address}/{bits}", strict=False), V4, st.integers(20, 32)),
    st.builds(lambda address, bits: ip_network(f"{address}/{bits}", strict=False), V6, st.integers(116, 128)),
)


def test_a_mapped_network_has_the_key_of_the_ipv4_network_in_it() -> None:
    """An operator may write networks so; beside the plain one it is the same network."""
    mapped, narrow = ip_network("::ffff:10.0.0.0/104"), ip_network("10.0.0.0/8")
    assert network_keys([mapped]) == network_keys([narrow]) == network_keys([mapped, narrow])


@given(st.lists(NETWORKS, min_size=1, max_size=8), ADDRESSES)
def test_the_keys_of_a_list_cover_it_and_never_twice(
    networks: list[object], address: IPv4Address | IPv6Address
) -> None:
    """An address in any of the networks has exactly one key."""
    table = NetworkTable(dict.fromkeys(network_keys(networks), True))
    number = read_number(str(address))
    assert number is not None
    assert len(table.lookup(number)) == any(address in network for network in networks)


@given(st.lists(NETWORKS, max_size=12, unique=True), ADDRESSES)
def test_the_table_finds_every_network_of_an_address(
    networks: list[object], address: IPv4Address | IPv6Address
) -> None:
    """What a walk over all networks finds, narrowest first."""
    table = NetworkTable({network_keys([network])[0]: network for network in networks})
    number = read_number(str(address))
    assert number is not None
    expected = sorted((network for network in networks if address in network), key=lambda found: -found.prefixlen)
    assert table.lookup(number) == expected


def test_a_mapped_address_lies_in_no_ipv6_network() -> None:
    """It is an IPv4 client: `::/0` means the others."""
    table = NetworkTable({network_keys([ip_network("::/0")])[0]: True})
    mapped, plain = read_number("::ffff:1.2.3.4"), read_number("2001:db8::1")
    assert mapped is not None and plain is not None
    assert table.lookup(mapped) == []
    assert table.lookup(plain) == [True]
    assert ip_address("::ffff:1.2.3.4").ipv4_mapped == IPv4Address("1.2.3.4")

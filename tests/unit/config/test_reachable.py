"""A tenant's server is on the public network, or where the operator says that it may be."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.reachable import Reachable

NOWHERE = Reachable()
#: Addresses that no stranger may have us connect to.
INSIDE = [
    "127.0.0.1", "127.8.8.8", "::1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "0.0.0.0", "255.255.255.255", "224.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1",
    "168.63.129.16", "192.0.0.192", "fec0::1", "::127.0.0.1", "::ffff:0:127.0.0.1", "::10.0.0.1", "2002:a83f:8110::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_not_public_is_out_of_reach(address: str) -> None:
    """This machine, its networks, the metadata services of clouds, and IPv6 that leads to them."""
    assert not NOWHERE.permits(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_is_public_is_in_reach(address: str) -> None:
    """Everyone could connect there."""
    assert NOWHERE.permits(address)


def test_the_operator_can_permit_a_network() -> None:
    """That one and no more; IPv4 inside IPv6 is the IPv4 address that it carries."""
    reachable = Reachable((ip_network("10.0.0.0/8"), ip_network("::1/128")))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "::1"):
        assert reachable.permits(address)
    assert not reachable.permits("192.168.0.1")


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/",
        "http://[::ffff:127.0.0.1]/", "http://[::1]:8080/", "http://localhost/", "http://LOCALHOST.:80/", "ws://a.localhost/",
        "http://0/", "http://[fe80::1%25eth0]/",
    ],
)  # fmt: skip
def test_a_url_of_such_an_address_is_refused_when_it_is_saved(url: str) -> None:
    """However it is written."""
    with pytest.raises(ValueError, match="private_networks"):
        NOWHERE.check_url(url)


@pytest.mark.parametrize("url", ["https://mcp.example.com/mcp", "https://1.1.1.1/", "https://[2606:4700::1111]/"])
def test_other_urls_are_not(url: str) -> None:
    """What a name leads to is looked at when a connection is made."""
    NOWHERE.check_url(url)


def test_this_machine_by_name_goes_by_its_address() -> None:
    """Where its network is listed, `localhost` is permitted, too: that is what the refusal advises."""
    Reachable((ip_network("127.0.0.0/8"),)).check_url("http://localhost:8080/")
    with pytest.raises(ValueError, match="private_networks"):
        Reachable((ip_network("10.0.0.0/8"),)).check_url("http://localhost:8080/")


@given(st.text())
def test_what_is_no_address_is_not_permitted(text: str) -> None:
    """No text makes it stumble."""
    assert isinstance(NOWHERE.permits(text), bool)


@given(st.ip_addresses())
def test_what_is_private_to_the_standard_library_is_so_here(address: object) -> None:
    """We refuse more than it, never less."""
    if getattr(address, "is_private", False) and getattr(address, "ipv4_mapped", None) is None:
        assert not NOWHERE.permits(str(address))

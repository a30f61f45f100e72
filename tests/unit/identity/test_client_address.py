"""The client behind trusted proxies: only what they appended counts, and only when they are trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.identity.addresses import Networks, read_network
from proxy.identity.client_address import MAX_HOPS, ClientAddress, read_forwarded, read_forwarded_for

TRUSTED = [read_network(text) for text in ("10.0.0.0/8", "fd00::/8")]
FINDER = ClientAddress(TRUSTED)


def client(value: str, peer: str = "10.0.0.1", field: str = "x-forwarded-for") -> str:
    """The client when a proxy sends one field."""
    return FINDER.of(peer, {field: value})


def test_without_trusted_proxies_the_connection_counts() -> None:
    """Whatever the fields say, readable or not."""
    fields = {"x-forwarded-for": "1.2.3.4", "forwarded": "nonsense"}
    assert ClientAddress([]).of("10.0.0.1", fields) == "10.0.0.1"
    assert FINDER.of("192.0.2.1", fields) == "192.0.2.1"


def test_only_a_trusted_proxy_can_say_that_the_client_used_tls() -> None:
    """Anyone else could claim it."""
    address, claim = ClientAddress(TRUSTED), {"x-forwarded-proto": "https"}
    assert address.secure("10.0.0.1", claim)
    assert not address.secure("192.0.2.1", claim)
    assert not address.secure("10.0.0.1", {"x-forwarded-proto": "http"})
    assert not address.secure("10.0.0.1", {})
    assert not ClientAddress(()).secure("10.0.0.1", claim)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("6.6.6.6,1.2.3.4,10.9.9.9 , fd00::1", "1.2.3.4"),
        ("10.1.1.1, 10.2.2.2", "10.1.1.1"),
        ("10.0.0.1, 1.2.3.4:5678", "1.2.3.4"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("1.2.3.4, ::ffff:10.0.0.1", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
        ("1.2.3.4, unknown", "10.0.0.1"),
        ("1.2.3.4, unknown, 10.3.3.3", "10.3.3.3"),
    ],
)
def test_the_rightmost_hop_that_is_not_trusted_is_the_client(value: str, expected: str) -> None:
    """What stands left of it is the client's own word; when all are trusted, the leftmost is the client."""
    assert client(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("for=1.2.3.4", "1.2.3.4"),
        ('For="[2001:db8::1]:47011"', "2001:db8::1"),
        ('for="[::1]"', "::1"),
        ('for="1.2.3.4:80";proto=https;by=10.0.0.1', "1.2.3.4"),
        ('for=6.6.6.6, for=1.2.3.4;proto="a;b,c\\"d" , for=10.0.0.9', "1.2.3.4"),
        ("for=1.2.3.4, for=unknown", "10.0.0.1"),
        ("for=1.2.3.4, for=_hidden, for=10.4.4.4", "10.4.4.4"),
        ('for=1.2.3.4, for="_a:_b"', "10.0.0.1"),
        ("proto=http", "10.0.0.1"),
        ('for="[::ffff:1.2.3.4]"', "1.2.3.4"),
        ('for="[fe80::1%25eth0]"', "fe80::1"),
        ('for="\\1.2.3.4"', "1.2.3.4"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(value: str, expected: str) -> None:
    """Quotes, ports, other parameters, and hops that withhold their address."""
    assert client(value, field="forwarded") == expected


@pytest.mark.parametrize(
    "value",
    ["", ",", "1.2.3.4,", "nonsense", "1.2.3.4.5", "1.2.3.4:", "1.2.3.4:123456", "[1.2.3.4]", "[::1", "::1]:5",
     "1.2.3.4 5.6.7.8", "010.0.0.1", "http://1.2.3.4", ",".join(["1.2.3.4"] * (MAX_HOPS + 1)), "1.2.3.4" + " " * 9000],
)  # fmt: skip
def test_an_unreadable_x_forwarded_for_of_a_trusted_proxy_is_a_400(value: str) -> None:
    """A proxy that we trust and cannot understand is broken; guessing would trust its clients."""
    with pytest.raises(BadRequest):
        client(value)


@pytest.mark.parametrize(
    "value",
    ["", ",", "for", "for=", "for=1.2.3.4,", "for=1.2.3.4;", "for =1.2.3.4", "for= 1.2.3.4", "for=1.2.3.4; proto=http",
     "for=1.2.3.4;for=5.6.7.8", "for=::1", "for=[::1]", 'for="::1"', 'for="[::1]', 'for="1.2.3.4, 5.6.7.8"',
     "for=nonsense", 'for="[1.2.3.4]"', "for=1.2.3.4 for=5.6.7.8", "1.2.3.4", "for=1.2.3.4, x", "for=1.2.3.4,,for=::",
     ", ".join(["for=1.2.3.4"] * (MAX_HOPS + 1)), "for=" + "1" * 9000],
)  # fmt: skip
def test_an_unreadable_forwarded_of_a_trusted_proxy_is_a_400(value: str) -> None:
    """The grammar of RFC 7239 section 4, without repairs."""
    with pytest.raises(BadRequest):
        client(value, field="forwarded")


def test_fifty_hops_are_read() -> None:
    """The bound itself."""
    assert len(read_forwarded_for(",".join(["1.2.3.4"] * MAX_HOPS))) == MAX_HOPS
    assert len(read_forwarded(",".join(["for=1.2.3.4"] * MAX_HOPS))) == MAX_HOPS


def test_two_fields_must_agree() -> None:
    """Otherwise one of them is the client's own, passed on by a proxy that writes the other."""
    assert FINDER.of("10.0.0.1", {"x-forwarded-for": "1.2.3.4", "forwarded": "for=1.2.3.4"}) == "1.2.3.4"
    with pytest.raises(BadRequest):
        FINDER.of("10.0.0.1", {"x-forwarded-for": "1.2.3.4", "forwarded": "for=10.0.0.7"})


def test_only_the_named_fields_are_read() -> None:
    """A field that no proxy writes is the client's."""
    finder = ClientAddress(TRUSTED, ["x-forwarded-for"])
    assert finder.of("10.0.0.1", {"x-forwarded-for": "1.2.3.4", "forwarded": "nonsense"}) == "1.2.3.4"
    assert finder.of("10.0.0.1", {"forwarded": "for=6.6.6.6"}) == "10.0.0.1"
    assert finder.of("::ffff:10.0.0.1", {"x-forwarded-for": "1.2.3.4"}) == "1.2.3.4"


ADDRESS = st.ip_addresses().map(str)


@given(st.lists(ADDRESS, max_size=6), ADDRESS, st.lists(st.sampled_from(["10.1.2.3", "fd00::5"]), max_size=6))
def test_a_client_cannot_choose_its_address(forged: list[str], true: str, proxies: list[str]) -> None:
    """Whatever it sends in front, the address that the first trusted proxy saw is the one."""
    hops = [*forged, true, *proxies]
    trusted = Networks(TRUSTED)
    if true not in trusted and len(hops) <= MAX_HOPS:
        seen = client(", ".join(hops))
        elements = ", ".join(f'for="[{hop}]"' if ":" in hop else f"for={hop}" for hop in hops)
        assert seen == client(elements, field="forwarded")
        assert seen == client(true)


@given(st.text(max_size=60), st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_any_text_is_an_address_or_a_400(value: str, field: str) -> None:
    """Nothing else ever happens."""
    try:
        found = client(value, field=field)
    except BadRequest:
        return
    assert found


def test_reading_takes_a_time_that_grows_with_the_length_only() -> None:
    """Values made to make a matcher go back and forth are refused as fast as others."""
    for hostile in ('for="' + "\\" * 8000, "for=" + "a=" * 4000, "for=a" + "\t" * 8000 + "x", ", " * 4000):
        with pytest.raises(BadRequest):
            read_forwarded(hostile)

"""The listener answers only to its own names, and only to pages that it knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.models import Limits, Listen
from proxy.dataplane.head import parse_head
from proxy.dataplane.origin import OriginPolicy, check_host_and_origin
from proxy.errors import HostNotAllowed, OriginNotAllowed


def check(listen: dict[str, Any], host: str | None = "localhost", *origins: str) -> None:
    lines = ["GET /x HTTP/1.1" if host is not None else "GET /x HTTP/1.0"]
    lines += [f"Host: {host}"] if host is not None else []
    lines += [f"Origin: {origin}" for origin in origins]
    head = parse_head("".join(f"{line}\r\n" for line in [*lines, ""]).encode(), Limits())
    check_host_and_origin(head, OriginPolicy.of(Listen.model_validate(listen)))


def policy(**listen: Any) -> OriginPolicy:
    return OriginPolicy.of(Listen.model_validate(listen))


# --- Host -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bind", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:9", "[::1]", "[::1]:8080"])
def test_on_loopback_the_loopback_names_are_served(bind: str, host: str) -> None:
    """Any port, in any case: the port is not part of the name."""
    check({"host": bind}, host)


@pytest.mark.parametrize(
    "host", ["evil.test", "localhost.evil.test", "evil-localhost", "192.0.2.1", "[::2]", "127.0.0.2"]
)
def test_on_loopback_other_names_are_refused(host: str) -> None:
    """A name that a foreign page made to point at us (DNS rebinding) is refused with 403, and the connection closed."""
    with pytest.raises(HostNotAllowed) as refused:
        check({}, host)
    assert (refused.value.status, refused.value.closes) == (403, True)


def test_the_bound_loopback_address_is_a_name_of_ours() -> None:
    """Bound to 127.0.0.2, that is how clients call us."""
    check({"host": "127.0.0.2"}, "127.0.0.2:8080")


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "proxy.internal"])
def test_elsewhere_any_name_is_served(bind: str) -> None:
    """A listener on the network cannot know its names unless it is told."""
    check({"host": bind}, "whatever.test")


def test_the_listed_names_are_the_only_ones() -> None:
    """A list replaces the default, with ports ignored and IPv6 in either form; `public_url` is always served."""
    listen = {
        "host": "0.0.0.0",
        "allowed_hosts": ["MCP.example.com:8443", "2001:db8::1"],
        "public_url": "https://pub.example.com/x",
    }
    for host in ("mcp.example.com", "mcp.example.com:1", "[2001:db8::1]:80", "pub.example.com"):
        check(listen, host)
    for host in ("localhost", "example.com", "x.mcp.example.com"):
        with pytest.raises(HostNotAllowed):
            check(listen, host)


def test_the_public_name_is_served_on_loopback() -> None:
    """A reverse proxy on the same machine passes the public name on."""
    check({"public_url": "https://mcp.example.com:444"}, "mcp.example.com")


def test_a_star_serves_every_name() -> None:
    """`*` turns the check off, with or without Host."""
    check({"allowed_hosts": "*"}, "evil.test")
    check({"allowed_hosts": "*"}, None)


def test_a_request_without_host_names_nobody() -> None:
    """HTTP/1.0 may leave Host out; where names count, that is none of ours."""
    with pytest.raises(HostNotAllowed):
        check({}, None)
    check({"host": "0.0.0.0"}, None)


# --- Origin ---------------------------------------------------------------------------------------------------------


def test_clients_that_are_no_browsers_send_no_origin() -> None:
    """Without Origin there is nothing to check."""
    check({})


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
@pytest.mark.parametrize("port", ["", ":6274", ":65535"])
def test_loopback_pages_are_welcome(scheme: str, host: str, port: str) -> None:
    """Local tools, on any port, by default and wherever we listen."""
    check({}, "localhost", f"{scheme}://{host}{port}")
    check({"host": "0.0.0.0"}, "x.test", f"{scheme}://{host}{port}")


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test", "null", "http://localhost.evil", "http://localhost@evil.test", "http://evil.test:localhost",
        "ftp://localhost", "localhost", "", "http://localhost:0", "http://localhost:", "http://localhost:123456",
        "http://localhost/", "http://127.0.0.1.evil.test", "http://[::1].evil.test", "file://", "https://*", "*",
        "http://localhost http://evil.test", "http://evil.test#http://localhost", "http://localhost\u017f",
    ],
)  # fmt: skip
def test_foreign_pages_are_refused(origin: str) -> None:
    """What only looks like loopback is foreign, and foreign is 403 with the connection closed."""
    with pytest.raises(OriginNotAllowed) as refused:
        check({}, "localhost", origin)
    assert (refused.value.status, refused.value.closes) == (403, True)


@given(st.text(max_size=40))
def test_no_other_text_passes_for_loopback(origin: str) -> None:
    """Whatever follows or precedes a loopback origin makes it a foreign one."""
    if origin and not origin.lstrip(":").isdigit():
        assert not policy().allows_origin(f"http://localhost{origin}")
        assert not policy().allows_origin(f"{origin}http://localhost")


def test_the_public_origin_is_welcome() -> None:
    """As browsers write it: no path, no default port."""
    listen = {"public_url": "https://MCP.example.com:443/prefix"}
    check(listen, "localhost", "https://mcp.example.com")
    for origin in ("http://mcp.example.com", "https://mcp.example.com:444", "https://example.com"):
        with pytest.raises(OriginNotAllowed):
            check(listen, "localhost", origin)


def test_listed_origins_replace_the_loopback_ones() -> None:
    """A list says exactly who may come; `null` only if it is listed."""
    listen = {"allowed_origins": ["https://app.example.com", "http://localhost:6274", "null"]}
    for origin in ("https://app.example.com", "HTTPS://APP.example.com", "http://localhost:6274", "null"):
        check(listen, "localhost", origin)
    for origin in ("http://localhost:6275", "https://app.example.com.evil.test", "https://app.example.com:444"):
        with pytest.raises(OriginNotAllowed):
            check(listen, "localhost", origin)


def test_a_star_welcomes_every_origin() -> None:
    """`*` turns the check off."""
    check({"allowed_origins": ["*"]}, "localhost", "null")


@pytest.mark.parametrize("nonsense", ["https://[", "https://x:port", "https://x:99999"])
def test_a_listed_origin_that_is_none_matches_only_itself(nonsense: str) -> None:
    """A typing error in the list neither stops the proxy nor lets anyone in."""
    rules = policy(allowed_origins=[nonsense])
    assert not rules.allows_origin("https://x")
    assert rules.allows_origin(nonsense)

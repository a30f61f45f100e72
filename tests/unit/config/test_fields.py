"""Single values that are right (those that are wrong are in the corpus of the loader)."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from proxy.config import fields


def read(kind: Any, value: object, context: fields.Context | None = None) -> Any:
    """`value` as a key of this kind would hold it."""
    return TypeAdapter(kind).validate_python(value, context=context)


@pytest.mark.parametrize("name", ["a", "9", "github", "git-hub", "git_hub", "git.hub", "a--b", "a" * 63])
def test_a_name_fits_into_a_path_a_label_and_a_file_name(name: str) -> None:
    """Lower-case letters, digits and three marks between them."""
    assert read(fields.Name, name) == name


@pytest.mark.parametrize("path", ["/", "/mcp", "/a/b-c_d.e~f", "/a/*", "/*", "/a*", "/@me/$x", "/..a/b.."])
def test_a_path_is_what_the_gate_lets_through(path: str) -> None:
    """No encoded bytes, no dot segments, one star at the end."""
    assert read(fields.Path, path) == path


@pytest.mark.parametrize(
    "path", ["", "a", "//", "/a//b", "/.", "/a/.", "/a/..", "/../a", "/a/./b", "/*a", "/a?b", "/\u00e4", "/a b"]
)
def test_other_paths_could_never_match(path: str) -> None:
    """So they are refused."""
    with pytest.raises(ValidationError):
        read(fields.Path, path)


@pytest.mark.parametrize(
    "url",
    [
        "http://x",
        "https://x:8443/mcp?key=1",
        "http://127.0.0.1:1/",
        "http://[::1]:9000/mcp",
        "ws://x/",
        "wss://x/y",
        "http://7a.x",
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_a_server_url_is_kept_as_it_is(url: str) -> None:
    """Not normalised: the upstream gets what was written."""
    assert read(fields.Url, url) == url


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "127.0.0.1.", "127.0.0.256", "1.2.3.4.5", "x.7"])
def test_a_number_that_is_no_address_is_no_host(host: str) -> None:
    """Some resolvers make an address of it and some do not; requests and health checks would not agree."""
    with pytest.raises(ValidationError, match="is an IPv4 address, such as"):
        read(fields.Url, f"http://{host}:8080/mcp")


@pytest.mark.parametrize("url", ["https://mcp.example.com", "http://localhost:8080", "https://example.com/prefix/"])
def test_a_public_url_may_have_a_prefix(url: str) -> None:
    """A proxy behind another one."""
    assert read(fields.PublicUrl, url) == url


@pytest.mark.parametrize("value", ["", "x", "Bearer abc", "a\tb".replace("\t", " "), "x" * 5000])
def test_a_header_value_is_kept_and_hidden(value: str) -> None:
    """Its representation shows nothing."""
    secret = read(fields.FieldValue, value)
    assert secret.get_secret_value() == value
    assert not value or value == "x" or value not in repr(secret)


def test_an_address_is_a_network_of_one() -> None:
    """One value or a list; IPv4 and IPv6."""
    assert read(fields.Networks, "10.1.2.3") == (ip_network("10.1.2.3/32"),)
    assert read(fields.Networks, ["10.0.0.0/8", "2001:db8::/32"]) == (
        ip_network("10.0.0.0/8"),
        ip_network("2001:db8::/32"),
    )
    assert read(fields.Networks, (ip_network("10.0.0.0/8"),)) == (ip_network("10.0.0.0/8"),)


def test_a_single_word_is_a_list_of_one() -> None:
    """But nothing is not."""
    assert read(fields.Words, "x") == ("x",)
    assert read(fields.Words, ["x", "y"]) == ("x", "y")
    with pytest.raises(ValidationError):
        read(fields.Words, None)


def test_without_a_context_nothing_is_read_and_no_path_changes() -> None:
    """Models built in code touch no file."""
    assert read(fields.Secret, "file:/etc/hostname").get_secret_value() == "file:/etc/hostname"
    assert read(fields.File, "a/b") == "a/b"


def test_with_a_context_references_are_followed() -> None:
    """The loader says how to read a secret and where relative paths start."""
    context = fields.Context(base=Path("/etc/mcp"), read_secret=lambda name: f"content of {name}")
    assert read(fields.Secret, "file:token", context).get_secret_value() == "content of token"
    assert read(fields.Secret, "plain", context).get_secret_value() == "plain"
    assert read(fields.File, "a/b", context) == "/etc/mcp/a/b"
    assert read(fields.File, "/a/b", context) == "/a/b"


def test_what_is_read_from_a_file_obeys_the_same_rules() -> None:
    """A line break in a secret file must not become one in a header."""
    context = fields.Context(base=Path("/"), read_secret=lambda name: "a\nb: c")
    with pytest.raises(ValidationError, match="printable ASCII"):
        read(fields.FieldValue, "file:token", context)


def test_names_that_differ_in_case_only_are_the_same() -> None:
    """Header names are compared that way."""
    fields.once(("A", "B"), "twice")
    with pytest.raises(ValueError, match="twice"):
        fields.once(("A", "a"), "twice")

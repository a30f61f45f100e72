"""The request line and Host: which spellings pass, and that each passes unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dataplane.request_line import begins, may_begin, read_host, read_request_line
from proxy.errors import BadRequest, HttpVersionNotSupported, MethodNotAllowed, Refusal


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a/b/", "/a/b/", ""),
        ("/.well-known/oauth-protected-resource/x/mcp", "/.well-known/oauth-protected-resource/x/mcp", ""),
        ("/a.b/..c/...?", "/a.b/..c/...", ""),
        ("/mcp?a=b&c=%2F..%2F;d?/", "/mcp", "a=b&c=%2F..%2F;d?/"),
        ("/x?filter[0]={a|b}^`c`", "/x", "filter[0]={a|b}^`c`"),
        ("/caf%C3%A9/%20~", "/caf%C3%A9/%20~", ""),
        ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,=", ""),
        ("/" + "a" * 7000 + "?" + "b" * 1000, "/" + "a" * 7000, "b" * 1000),
    ],
)
def test_targets_are_split_and_never_decoded(target: str, path: str, query: str) -> None:
    """Path and query are what was sent."""
    line = read_request_line(f"GET {target} HTTP/1.1")
    assert line == ("GET", path, query, 1, "")


@pytest.mark.parametrize("target", ["http://proxy.test:8080/mcp?x", "HTTPS://PROXY.test:8080/mcp?x"])
def test_a_target_with_an_authority_is_taken_apart(target: str) -> None:
    """Absolute-form leaves the path, and the authority for whoever compares it with Host."""
    assert read_request_line(f"POST {target} HTTP/1.0") == ("POST", "/mcp", "x", 0, "proxy.test:8080")


def test_options_may_ask_about_the_whole_server() -> None:
    """`OPTIONS *` (RFC 9112 section 3.2.4)."""
    assert read_request_line("OPTIONS * HTTP/1.1").path == "*"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS", "HEAD"])
def test_the_methods_of_mcp_pass(method: str) -> None:
    """MCP's own three, a browser's preflight, and HEAD."""
    assert read_request_line(f"{method} / HTTP/1.1").method == method


BAD_TARGETS = [
    "!", "a", "?", "*", "/mcp#frag", "/mcp?a#frag", "/a b", "/\x00", "/\t", "/\x7f", "/\u00e9", "/\ufb01",
    "/a/../b", "/..", "/.", "/a/.", "/./a", "/a/./b", "/a/..?x", "/a%2f..%2fb", "/%2e%2e/", "/%2E", "//mcp", "/a//b",
    "/a//", "/mcp;x", "/mcp%3bx", "/%00", "/%0d%0a", "/%1f", "/%7f", "/%5c", "/a\\b", "/%zz", "/%", "/%4", "/%252e",
    "/?%zz", "/?%", '/"', "/<", "/?<", "/{", "/[", "/|", "/^",
    "proxy.test:8080", "ftp://proxy.test/mcp", "http://proxy.test", "http://proxy.test?x", "http:///mcp",
    "http://proxy.test//mcp", "http://proxy.test/a/../b", "http://proxy.test/#x", "",
]  # fmt: skip


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_ambiguous_targets_are_bad_requests(target: str) -> None:
    """What a server behind us could resolve, decode or cut differently is refused."""
    with pytest.raises(BadRequest):
        read_request_line(f"GET {target} HTTP/1.1")


@pytest.mark.parametrize(
    "line",
    [
        "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET / HTTP/1.1 ", " GET / HTTP/1.1", "GET\t/ HTTP/1.1", "GET /",
        "", "GET", "GET / HTTP/1.11", "GET / HTTP/01.1", "GET / HTTP/1.", "GET / http/1.1", "GET / ICY/1.1",
        "GET / HTTP/1.\u0661",
        "PRI * HTTP/2.0", "P@ST / HTTP/1.1", "post / HTTP/1.1", "Get / HTTP/1.1", "A" * 33 + " / HTTP/1.1",
        "-A / HTTP/1.1", "GET / HTTP/1.1\n", "SSH-2.0-OpenSSH_9.2p1", "PROXY TCP4 10.0.0.1 10.0.0.2 1 2",
    ],
)  # fmt: skip
def test_bad_lines_are_bad_requests(line: str) -> None:
    """One blank between three words, an upper-case method, a version of one digit each."""
    with pytest.raises(BadRequest):
        read_request_line(line)


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2", "3.0"])
def test_other_versions_are_not_supported(version: str) -> None:
    """505 for a version that is well-formed and not ours."""
    with pytest.raises(HttpVersionNotSupported):
        read_request_line(f"GET / HTTP/{version}")


@pytest.mark.parametrize(
    "line",
    [
        "CONNECT evil.test:443 HTTP/1.1", "TRACE / HTTP/1.1", "CONNECT / HTTP/9.9",
        "PUT / HTTP/1.1", "PATCH / HTTP/1.0", "M-SEARCH / HTTP/1.1", "GE / HTTP/1.1", "A / HTTP/1.1",
    ],
)  # fmt: skip
def test_other_methods_are_not_allowed(line: str) -> None:
    """Tunnels and echoes are never made, and MCP has no use for the rest: 405 with what is allowed."""
    with pytest.raises(MethodNotAllowed) as caught:
        read_request_line(line)
    assert dict(caught.value.headers)["Allow"] == "GET, POST, DELETE, OPTIONS, HEAD"


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("localhost", "localhost"),
        ("Proxy.Test", "proxy.test"),
        ("my_service:8080", "my_service"),
        ("127.0.0.1:1", "127.0.0.1"),
        ("[::1]:65535", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("[::ffff:10.0.0.1]", "[::ffff:10.0.0.1]"),
        ("a" * 63 + ".xn--bcher-kva", "a" * 63 + ".xn--bcher-kva"),
    ],
)
def test_hosts_lose_their_port(value: str, host: str) -> None:
    """The host is lower-case and without port; IPv6 keeps its brackets."""
    assert read_host(value) == host


BAD_HOSTS = [
    "a b", "a@b", "a,b", "a/b", "a:b", "a:99999", "a:65536", "a:0", "a:080", "a:", "[::1", "::1", "[::1]x",
    "[::1%25eth0]", "[::1%eth0]", "[1::2::3]", "[:::]", "[1.2.3.4]", "[]", "a" * 300, ".".join(["a" * 60] * 5), "",
    "a" * 64, ".a", "a.",
    "a..b", "-a", "a-", "a?b", "a#b", "%61", "b\u00fccher", "\u212a", "a:\u0661", "a:1:2", "http://a", "*", "a\n",
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_HOSTS)
def test_what_is_no_host_is_a_bad_request(value: str) -> None:
    """Names, IPv4 and bracketed IPv6 with a port of 1 to 65535; nothing else, and no trailing dot."""
    with pytest.raises(BadRequest):
        read_host(value)


@given(st.integers(1, 65535), st.ip_addresses())
def test_every_address_with_every_port_is_a_host(port: int, address: object) -> None:
    """Addresses as Python writes them, IPv6 in brackets, are hosts."""
    host = f"[{address}]" if ":" in str(address) else str(address)
    assert read_host(f"{host}:{port}") == host


@given(st.text(max_size=60))
def test_any_text_gives_a_line_or_a_refusal(text: str) -> None:
    """Nothing but a Refusal is ever raised, asked once or twice."""
    for read in (read_request_line, read_host) * 2:
        try:
            read(text)
        except Refusal:
            continue


@pytest.mark.parametrize("line", [b"POST /mcp HTTP/1.1\r\n", b"OPTIONS * HTTP/1.0\r\n", b"PRI * HTTP/2.0\r\n"])
def test_a_line_is_recognised_while_it_arrives(line: bytes) -> None:
    """Each prefix may begin a request, and the whole line does."""
    assert all(may_begin(line[:end]) for end in range(len(line) - 1))
    assert begins(line)


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01", b"get", b"SSH-2.0", b"\r\n", b"GET  /", b"GET /\x00", b"GET / FTP"]
)
def test_garbage_is_recognised_too(garbage: bytes) -> None:
    """What cannot become a request line is known for it at once."""
    assert not may_begin(garbage)
    assert not begins(garbage + b"\r\n")

"""OAuth clients that know only our URL of a server find that server's discovery documents."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.dataplane.wellknown import METHODS, Wellknown
from tests.unit.dataplane.asked import snapshot

PUBLIC = {"public_url": "https://mcp.example.com"}
TWO = {"github": "https://api.github.test:8443/v1/mcp?key=1", "files": "http://files.test/"}


def discovery(servers: dict[str, Any], listen: dict[str, Any] | None = None, *routes: dict[str, Any]) -> Wellknown:
    return snapshot(servers, listen=PUBLIC if listen is None else listen, routes=list(routes)).wellknown


def found(documents: Wellknown, path: str) -> tuple[str, str] | None:
    target = documents.match(path)
    return None if target is None else (target[0].name, target[1])


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/.well-known/oauth-protected-resource/github/mcp", "/.well-known/oauth-protected-resource/v1/mcp"),
        ("/.well-known/oauth-authorization-server/github/mcp", "/.well-known/oauth-authorization-server/v1/mcp"),
        ("/.well-known/openid-configuration/github/mcp", "/.well-known/openid-configuration/v1/mcp"),
        ("/github/mcp/.well-known/openid-configuration", "/v1/mcp/.well-known/openid-configuration"),
    ],
)
def test_each_form_goes_to_the_same_form_on_the_server(path: str, url: str) -> None:
    """The well-known part stays where the client put it; the path is the server's own, without its query."""
    assert found(discovery(TWO), path) == ("github", f"https://api.github.test:8443{url}")


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/.well-known/oauth-protected-resource/files/mcp", "http://files.test/.well-known/oauth-protected-resource"),
        (
            "/.well-known/oauth-authorization-server/files/mcp",
            "http://files.test/.well-known/oauth-authorization-server",
        ),
        ("/files/mcp/.well-known/openid-configuration", "http://files.test/.well-known/openid-configuration"),
    ],
)
def test_a_server_at_the_root_has_its_documents_at_the_root(path: str, url: str) -> None:
    """A path of '/' alone adds nothing (RFC 9728 section 3.1)."""
    assert found(discovery(TWO), path) == ("files", url)


def test_a_slash_at_the_end_belongs_to_the_resource_but_not_to_an_issuer() -> None:
    """RFC 8414 section 3.1 removes the last slash of an issuer; RFC 9728 does not."""
    documents = discovery({"a": "http://a.test/mcp/", "b": "http://b.test/x"})
    assert found(documents, "/.well-known/oauth-protected-resource/a/mcp") == (
        "a", "http://a.test/.well-known/oauth-protected-resource/mcp/",
    )  # fmt: skip
    assert found(documents, "/.well-known/oauth-authorization-server/a/mcp") == (
        "a", "http://a.test/.well-known/oauth-authorization-server/mcp",
    )  # fmt: skip


def test_without_public_url_there_are_no_discovery_paths() -> None:
    """The documents would name a URL that no client uses."""
    assert found(discovery(TWO, {}), "/.well-known/oauth-protected-resource/github/mcp") is None


def test_the_prefix_of_public_url_follows_the_well_known_part() -> None:
    """Clients insert the well-known part before the whole path they know; behind it the prefix is mapped away."""
    documents = discovery(TWO, {"public_url": "https://example.com/tools/"})
    assert found(documents, "/.well-known/oauth-protected-resource/tools/github/mcp") is not None
    assert found(documents, "/github/mcp/.well-known/openid-configuration") is not None
    assert found(documents, "/.well-known/oauth-protected-resource/github/mcp") is None


ROOTS = ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"]


@pytest.mark.parametrize("form", ROOTS)
def test_the_root_stands_for_the_only_server(form: str) -> None:
    """Clients of 2025-03-26 ask the root: with one server it is clear whose documents those are."""
    documents = discovery({"github": TWO["github"]})
    url = f"https://api.github.test:8443/.well-known/{form}"
    assert found(documents, f"/.well-known/{form}") == ("github", url)


@pytest.mark.parametrize("form", ROOTS)
def test_the_root_stands_for_nobody_among_several(form: str) -> None:
    """With two servers the root could only be wrong for one of them."""
    assert found(discovery(TWO), f"/.well-known/{form}") is None


def test_a_route_of_its_own_has_discovery_paths_too() -> None:
    """The exact path of a route with one server maps like a built-in one; a prefix route has no one URL."""
    documents = discovery(
        TWO, None, {"name": "a", "path": "/a", "servers": "github"}, {"name": "b", "path": "/b/*", "servers": "files"}
    )
    assert found(documents, "/.well-known/oauth-protected-resource/a") == (
        "github", "https://api.github.test:8443/.well-known/oauth-protected-resource/v1/mcp",
    )  # fmt: skip
    assert found(documents, "/.well-known/oauth-protected-resource/b/*") is None


def test_a_route_with_several_servers_has_none() -> None:
    """Several servers are several resources, even where one of them has the path built in."""
    documents = discovery(
        TWO, None, {"name": "a", "path": "/a", "servers": ["github", "files"]},
        {"name": "g", "path": "/github/mcp", "servers": ["github", "files"]},
    )  # fmt: skip
    assert found(documents, "/.well-known/oauth-protected-resource/a") is None
    assert found(documents, "/.well-known/oauth-protected-resource/github/mcp") is None


def test_the_unconditional_route_of_a_path_decides() -> None:
    """A canary does not change whose documents a URL has; a route that takes every request does."""
    canary = {"name": "c", "path": "/github/mcp", "when": {"percent": 5}, "servers": "files"}
    taken = {"name": "t", "path": "/github/mcp", "servers": "files", "priority": -1}
    path = "/.well-known/oauth-protected-resource/github/mcp"
    before, after = found(discovery(TWO, None, canary), path), found(discovery(TWO, None, canary, taken), path)
    assert before is not None and before[0] == "github"
    assert after is not None and after[0] == "files"


def test_conditional_routes_that_agree_on_a_server_have_documents() -> None:
    """Where every condition leads to the same server, it is clear whose they are; else nobody's."""

    def routes(other: str) -> list[dict[str, Any]]:
        return [
            {"name": "x", "path": "/x", "when": {"method": "tools/list"}, "servers": "github"},
            {"name": "y", "path": "/x", "when": {"method": "tools/call"}, "servers": other},
        ]

    path = "/.well-known/oauth-protected-resource/x"
    assert found(discovery(TWO, None, *routes("github")), path) is not None
    assert found(discovery(TWO, None, *routes("files")), path) is None


def test_a_legacy_stream_and_a_websocket_server_have_documents() -> None:
    """The built-in /NAME/sse maps as well, and discovery of a wss server is plain HTTPS."""
    documents = discovery(
        {
            "old": {"url": "http://old.test/sse", "transport": "sse"},
            "live": {"url": "wss://live.test/ws", "transport": "websocket"},
        }
    )
    assert found(documents, "/.well-known/oauth-protected-resource/old/sse") == (
        "old", "http://old.test/.well-known/oauth-protected-resource/sse",
    )  # fmt: skip
    assert found(documents, "/.well-known/oauth-protected-resource/live/mcp") == (
        "live", "https://live.test/.well-known/oauth-protected-resource/ws",
    )  # fmt: skip


def test_documents_are_read_and_never_written() -> None:
    """Reading and the browser's preflight are all that discovery needs."""
    assert frozenset(("GET", "HEAD", "OPTIONS")) == METHODS

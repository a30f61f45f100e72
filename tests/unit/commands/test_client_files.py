"""Settings of MCP clients: every form that a server has in them, and every reason why one cannot be imported."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.client_config import CLIENTS, snippet
from proxy.commands.client_files import STDIO, Entry, read, variables

URL = "https://mcp.example.com/mcp"


def one(entry: Any, name: str = "github", prefix: str = "") -> Entry:
    """The only server of a file."""
    [found] = read(json.dumps({"mcpServers": {name: entry}}), prefix)
    return found


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"mcpServers": {"a": {"url": URL}}}, "mcpServers"),
        ({"servers": {"a": {"type": "http", "url": URL}}, "inputs": [{"id": "x"}]}, "servers"),
        ({"mcp": {"servers": {"a": {"url": URL}}}, "editor.fontSize": 12}, "mcp.servers"),
        ({"projects": {"/home/me/x": {"mcpServers": {"a": {"url": URL}}, "history": []}}}, "project /home/me/x"),
    ],
)
def test_servers_are_found_where_each_client_has_them(document: dict[str, Any], place: str) -> None:
    """Claude and Cursor, VS Code in its two files, Claude Code's projects."""
    [entry] = read(json.dumps(document))
    assert (entry.written, entry.name, entry.place, entry.url) == ("a", "a", place, URL)


def test_comments_and_last_commas_are_passed_over() -> None:
    """Editors allow them; what looks like one inside a text is text."""
    text = """\
    // settings
    {"mcp": {"servers": {
        "a": {"url": "https://x.example/a//b/*c*/,]", /* why */
              "headers": {"X": "say \\"hi\\" // ,}",},},
    },},}
    """
    [entry] = read(text)
    assert (entry.url, entry.headers) == ("https://x.example/a//b/*c*/,]", {"X": 'say "hi" // ,}'})


@pytest.mark.parametrize(
    ("entry", "transport"),
    [
        ({"url": URL}, "streamable_http"),
        ({"url": URL, "type": "http"}, "streamable_http"),
        ({"url": URL, "type": "streamable-http"}, "streamable_http"),
        ({"url": URL, "transport": "streamableHttp"}, "streamable_http"),
        ({"url": URL, "type": "sse"}, "sse"),
        ({"url": "https://x.example/sse"}, "sse"),
        ({"url": "https://x.example/sse", "type": "http"}, "streamable_http"),
        ({"url": "https://x.example/sse/?a=b"}, "sse"),
        ({"url": "wss://x.example/", "type": "ws"}, "websocket"),
        ({"url": "wss://x.example/"}, "websocket"),
        ({"command": "npx", "args": ["-y", "mcp-remote", URL]}, "streamable_http"),
        ({"command": "npx", "args": ["mcp-remote@latest", URL, "--transport", "sse-only"]}, "sse"),
        (
            {"command": "cmd", "args": ["/c", "npx", "mcp-remote", "https://x.example/sse", "--debug"]},
            "streamable_http",
        ),
    ],
)
def test_a_transport_is_named_or_seen(entry: dict[str, Any], transport: str) -> None:
    """By the type, else by the URL; a bridge to a URL is the URL."""
    found = one(entry)
    assert (found.problem, found.transport) == ("", transport)
    assert found.url.startswith(("https://", "wss://"))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/planted"]}, STDIO),
        ({"type": "stdio", "command": "planted"}, STDIO),
        ({"type": "stdio", "url": URL}, STDIO),
        ({"command": "mcp-remote"}, STDIO),
        ({"command": ["planted"], "args": "planted"}, STDIO),
        ({}, "neither a URL nor a command"),
        ("planted", "not an object"),
        ({"url": 5}, "URL is not text"),
        ({"url": "https://[planted/mcp"}, "URL cannot be read"),
        ({"url": URL, "type": "planted"}, "none of http, sse and ws"),
        ({"url": URL, "type": 5}, "none of http, sse and ws"),
        ({"url": "https://${HOST}/planted"}, "URL holds a variable"),
        ({"url": URL, "headers": ["planted"]}, "headers are not"),
        ({"url": URL, "headers": {"X": 5}}, "headers are not"),
        ({"url": URL, "headers": {"X": "${workspaceFolder}"}}, "only the client's machine"),
        ({"url": URL, "headers": {"X": "${command:planted}"}}, "only the client's machine"),
        ({"url": URL, "headers": {"X": "${}"}}, "only the client's machine"),
        ({"url": URL, "headers": {"X": "$${planted}"}}, "something else"),
        ({"url": URL, "headers": {"X": "file:/planted"}}, "something else"),
    ],
)
def test_what_cannot_be_imported_has_its_reason(entry: Any, reason: str) -> None:
    """Which repeats nothing of the entry."""
    found = one(entry)
    assert reason in found.problem
    assert found.name == "" and "planted" not in found.problem


@pytest.mark.parametrize(
    ("written", "ours", "needed"),
    [
        ("Bearer ${TOKEN}", "Bearer ${TOKEN}", ["TOKEN"]),
        ("Bearer ${env:TOKEN}", "Bearer ${TOKEN}", ["TOKEN"]),
        ("Bearer ${input:github-token}", "Bearer ${GITHUB_TOKEN}", ["GITHUB_TOKEN"]),
        ("${A}${env:A}${B:-dflt}", "${A}${A}${B:-dflt}", ["A", "B"]),
        ("a${", "a$${", []),
        ("$5", "$5", []),
    ],
)
def test_variables_are_named_as_ours(written: str, ours: str, needed: list[str]) -> None:
    """What must be set for the proxy is told; names of a tenant get its prefix, once."""
    found = one({"url": URL, "headers": {"X": written}})
    assert found.headers == {"X": ours}
    assert list(found.notes) == [f"set {name} for the proxy" for name in needed]
    assert set(variables(ours)) == set(needed)
    for _ in range(2):
        found = one({"url": URL, "headers": {"X": written}}, prefix="TENANT_ACME_")
        assert list(found.notes) == [f"set TENANT_ACME_{name} for the proxy" for name in needed]
        written = found.headers["X"].replace("$${", "${")


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        ({"url": URL, "headers": {"Authorization": "Bearer planted"}}, "the value of Authorization is kept"),
        ({"url": URL, "headers": {"planted api key\n": "planted"}}, "the value of a header is kept"),
        ({"url": URL, "headersHelper": "/bin/planted"}, "headersHelper"),
        ({"url": URL, "disabled": True}, "disabled"),
        ({"url": "https://x.example/sse"}, "by its URL"),
        ({"command": "npx", "args": ["mcp-remote", URL]}, "without mcp-remote"),
    ],
)
def test_what_an_operator_should_know_is_noted(entry: dict[str, Any], note: str) -> None:
    """Without any value."""
    found = one(entry)
    assert found.problem == "" and note in found.notes[-1]
    assert "planted" not in "".join(found.notes)
    assert found.is_enabled is ("disabled" not in entry)


def test_the_headers_of_a_bridge_are_taken_over() -> None:
    """With or without a blank behind the colon."""
    arguments = ["mcp-remote", URL, "--header", "Authorization:${AUTH}", "--header", "X-One: 1", "--header"]
    assert one({"command": "npx", "args": arguments}).headers == {"Authorization": "${AUTH}", "X-One": "1"}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("GitHub Copilot", "github-copilot"),
        ("a.b_c", "a.b_c"),
        ("--x--", "x"),
        ("Ärger/42", "rger-42"),
        ("x" * 99, "x" * 63),
    ],
)
def test_names_are_made_valid(written: str, name: str) -> None:
    """As like as possible."""
    assert one({"url": URL}, written).name == name


def test_a_name_without_letters_is_a_reason() -> None:
    """Nobody could guess it."""
    assert "no letter" in one({"url": URL}, "日本").problem


def test_two_of_one_name_are_one_server_or_two() -> None:
    """The same twice is superfluous, different ones get numbers."""
    projects = {f"/p{number}": {"mcpServers": {"A": {"url": URL}}} for number in range(3)}
    projects["/other"] = {
        "mcpServers": {"a": {"url": "https://other.example/"}, "a-2": {"url": "https://third.example/"}}
    }
    found = read(json.dumps({"mcpServers": {"a": {"url": URL}}, "projects": projects}))
    assert [entry.name for entry in found] == ["a", "", "", "", "a-2", "a-2-2"]
    assert [entry.problem for entry in found[1:4]] == ["it is the same as a, which stands before it"] * 3


@pytest.mark.parametrize("text", ["", "x", "{}", "[]", "null", '{"mcpServers": []}', "[" * 100_000, '{"a": 1,,}', '"'])
def test_what_is_no_such_file_is_refused(text: str) -> None:
    """With a sentence."""
    with pytest.raises(ValueError, match=r"^(the file is not JSON|there is no server)"):
        read(text)


@pytest.mark.parametrize("client", CLIENTS)
def test_our_own_snippets_can_be_imported(client: Any) -> None:
    """What `client-config` prints leads here: a proxy behind a proxy is fine."""
    text = snippet(client, "github", "http://127.0.0.1:8080/github/mcp", "sse")
    [entry] = read(text[text.index("{") :])
    assert (entry.name, entry.url, entry.transport) == ("github", "http://127.0.0.1:8080/github/mcp", "sse")


KEYS = st.sampled_from(
    ["mcpServers", "servers", "mcp", "projects", "url", "type", "command", "args", "headers", "a", "A", "disabled"]
)
LEAVES = st.none() | st.booleans() | st.floats() | st.text(max_size=12) | st.sampled_from(
    [URL, "sse", "${env:A}", "${", "mcp-remote", "--header", "file:/x", "https://[", "npx"]
)  # fmt: skip
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4)
)
DOCUMENTS = (
    st.dictionaries(st.sampled_from(["mcpServers", "servers"]), st.dictionaries(st.text(max_size=5), JSON)) | JSON
)


@given(DOCUMENTS.map(json.dumps) | st.text(max_size=60), st.sampled_from(["", "TENANT_A_"]))
def test_whatever_is_given_is_read_or_refused(text: str, prefix: str) -> None:
    """Each entry has a name that no other has, or a reason; nothing else happens."""
    try:
        found = read(text, prefix)
    except ValueError as error:
        assert str(error)
        return
    names = [entry.name for entry in found if entry.name]
    assert len(set(names)) == len(names)
    for entry in found:
        assert bool(entry.name) is not bool(entry.problem)
        assert len(entry.name) <= 63
        assert all(name.startswith(prefix) for value in entry.headers.values() for name in variables(value))


@given(DOCUMENTS)
def test_comments_change_nothing(document: Any) -> None:
    """The same entries with comments and last commas in every gap."""
    plain = json.dumps(document)
    commented = json.dumps(document, indent=1).replace("\n", ' // x,"\n/* } */ ')
    try:
        expected = read(plain)
    except ValueError:
        with pytest.raises(ValueError):
            read(commented)
        return
    assert read(commented) == expected

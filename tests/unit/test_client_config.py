"""Snippets for clients, in the shapes that their manuals give."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from proxy.client_config import CLIENTS, Client, snippet, snippets, url_of
from proxy.config import Config, parse

URL = "https://mcp.example.com/github/mcp"


def configured(listen: str = "{}", transport: str = "streamable_http") -> Config:
    """A configuration with the server `a`."""
    text = (
        f"auth: {{anonymous: true}}\nlisten: {listen}\nservers: {{a: {{url: 'http://x/', transport: {transport}}}}}\n"
    )
    return parse(text, "config.yaml", {}, Path("/"))


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("{}", "http://127.0.0.1:8080/a/mcp"),
        ("{host: 0.0.0.0, port: 9000}", "http://localhost:9000/a/mcp"),
        ("{host: '::', port: 80}", "http://localhost/a/mcp"),
        ("{host: '::1'}", "http://[::1]:8080/a/mcp"),
        ("{host: mcp.internal}", "http://mcp.internal:8080/a/mcp"),
        ("{public_url: 'https://mcp.example.com'}", "https://mcp.example.com/a/mcp"),
        ("{public_url: 'https://example.com/prefix/', port: 0}", "https://example.com/prefix/a/mcp"),
    ],
)
def test_the_url_is_the_public_one_or_where_the_listener_is_bound(listen: str, url: str) -> None:
    """An address that means every interface is shown as localhost."""
    assert url_of(configured(listen), "a") == url


def test_a_listener_with_tls_has_an_https_url() -> None:
    """Without its usual port."""
    listen = configured().listen.model_copy(update={"tls": object(), "port": 443})
    assert url_of(configured().model_copy(update={"listen": listen}), "a") == "https://127.0.0.1/a/mcp"


def test_a_port_that_the_system_chooses_is_not_known_before_the_start() -> None:
    """A wrong URL would be worse than none."""
    with pytest.raises(ValueError, match=r"set listen\.public_url"):
        url_of(configured("{port: 0}"), "a")


def test_a_websocket_server_has_a_websocket_url() -> None:
    """With and without TLS."""
    assert url_of(configured("{}", "websocket"), "a") == "ws://127.0.0.1:8080/a/mcp"
    assert url_of(configured("{public_url: 'https://x'}", "websocket"), "a") == "wss://x/a/mcp"


def test_claude_code_gets_a_command_and_the_project_file() -> None:
    """`claude mcp add --transport http NAME URL`."""
    command, _, text = snippet("claude-code", "github", URL).partition("\n\n")
    assert command == f"claude mcp add --transport http github {URL}"
    assert json.loads(text) == {"mcpServers": {"github": {"type": "http", "url": URL}}}


def test_claude_code_takes_websocket_as_json_only() -> None:
    """Its `--transport` does not know it."""
    command, _, text = snippet("claude-code", "a", "wss://x/a/mcp", "websocket").partition("\n\n")
    assert shlex.split(command)[:4] == ["claude", "mcp", "add-json", "a"]
    entry = {"type": "ws", "url": "wss://x/a/mcp"}
    assert json.loads(shlex.split(command)[4]) == entry
    assert json.loads(text) == {"mcpServers": {"a": entry}}


@pytest.mark.parametrize(
    ("client", "shape"),
    [
        ("claude-desktop", {"mcpServers": {"github": {"command": "npx", "args": ["-y", "mcp-remote", URL]}}}),
        ("cursor", {"mcpServers": {"github": {"url": URL}}}),
        ("vscode", {"servers": {"github": {"type": "http", "url": URL}}}),
    ],
)
def test_the_others_get_json_for_their_settings(client: Client, shape: dict[str, Any]) -> None:
    """Ready to be pasted or piped."""
    assert json.loads(snippet(client, "github", URL)) == shape


def test_servers_of_the_old_transport_are_marked() -> None:
    """2024-11-05, two endpoints."""
    assert snippet("claude-code", "a", URL, "sse").startswith(f"claude mcp add --transport sse a {URL}\n")
    assert json.loads(snippet("vscode", "a", URL, "sse"))["servers"]["a"]["type"] == "sse"
    assert json.loads(snippet("cursor", "a", URL, "sse"))["mcpServers"]["a"]["type"] == "sse"
    args = json.loads(snippet("claude-desktop", "a", URL, "sse"))["mcpServers"]["a"]["args"]
    assert args[-2:] == ["--transport", "sse-only"]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://localhost:1/a/mcp", False),
        ("http://127.0.0.1:1/a/mcp", False),
        ("https://x/a/mcp", False),
        ("http://x/a/mcp", True),
    ],
)
def test_the_bridge_is_told_when_there_is_no_tls(url: str, allowed: bool) -> None:
    """It refuses plain HTTP to other machines otherwise."""
    args = json.loads(snippet("claude-desktop", "a", url))["mcpServers"]["a"]["args"]
    assert ("--allow-http" in args) is allowed


@pytest.mark.parametrize("client", ["claude-desktop", "cursor", "vscode"])
def test_who_does_not_speak_websocket_gets_no_snippet(client: Client) -> None:
    """Settings that cannot work are not printed."""
    with pytest.raises(ValueError, match="does not speak WebSocket"):
        snippet(client, "a", "ws://x/a/mcp", "websocket")


def test_a_name_with_a_dot_gets_a_hyphen() -> None:
    """Claude Code refuses dots; the URL keeps it."""
    text = snippet("claude-code", "git.hub", "https://x/git.hub/mcp")
    assert text.startswith("claude mcp add --transport http git-hub https://x/git.hub/mcp\n")


def test_a_url_cannot_break_out_of_the_command() -> None:
    """It is quoted for the shell."""
    command = snippet("claude-code", "a", "https://x/$(id)/a/mcp").partition("\n")[0]
    assert shlex.split(command)[-1] == "https://x/$(id)/a/mcp"
    assert "'" in command


def test_all_snippets_come_under_headings() -> None:
    """Also where one client cannot."""
    text = snippets("a", URL)
    assert [line for line in text.splitlines() if line.startswith("# ")] == [
        f"# {heading}" for heading in CLIENTS.values()
    ]
    assert snippets("a", "ws://x/a/mcp", "websocket").count("(this client does not speak WebSocket)") == 3


@pytest.mark.parametrize(
    ("client", "shape"),
    [
        (
            "claude-desktop",
            {
                "mcpServers": {
                    "a": {
                        "command": "npx",
                        "args": ["-y", "mcp-remote", URL, "--header", "Authorization:${AUTHORIZATION}"],
                        "env": {"AUTHORIZATION": "Bearer <MCP_MANAGER_KEY>"},
                    }
                }
            },
        ),
        ("cursor", {"mcpServers": {"a": {"url": URL, "headers": {"Authorization": "Bearer ${env:MCP_MANAGER_KEY}"}}}}),
        (
            "vscode",
            {
                "inputs": [
                    {"type": "promptString", "id": "mcp-manager-key", "description": "API key", "password": True}
                ],
                "servers": {
                    "a": {"type": "http", "url": URL, "headers": {"Authorization": "Bearer ${input:mcp-manager-key}"}}
                },
            },
        ),
    ],
)
def test_where_a_key_is_needed_the_settings_say_where_it_comes_from(client: Client, shape: dict[str, Any]) -> None:
    """And hold none."""
    assert json.loads(snippet(client, "a", URL, keyed=True)) == shape


def test_claude_code_shows_the_key_of_a_variable() -> None:
    """On the command line as in the file of a project."""
    command, _, text = snippet("claude-code", "a", URL, keyed=True).partition("\n\n")
    assert command == f'claude mcp add --transport http a {URL} --header "Authorization: Bearer $MCP_MANAGER_KEY"'
    entry = json.loads(text)["mcpServers"]["a"]
    assert entry["headers"] == {"Authorization": "Bearer ${MCP_MANAGER_KEY}"}

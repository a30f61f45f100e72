"""What a person pastes into an MCP client to reach one server through the proxy.

Owns the shapes of four clients' settings, each with the place it belongs to. Pure text: it reads no file and knows no
secret, for the proxy holds the upstream's credentials.

Sources, read in November 2026: the MCP pages of Claude Code (`claude mcp add`, `.mcp.json`; WebSocket only through
`add-json`), VS Code ("MCP configuration reference") and Cursor; Anthropic's help on custom connectors (Claude Desktop
does not connect to URLs in its file); the README of `mcp-remote`.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from proxy.config.models import Config, Listen

Client = Literal["claude-code", "claude-desktop", "cursor", "vscode"]
Transport = Literal["streamable_http", "sse", "websocket"]

#: Client to its heading: its name, and where the snippet goes.
CLIENTS: Final[dict[Client, str]] = {
    "claude-code": "Claude Code (run the command, or put the JSON into .mcp.json of a project)",
    "claude-desktop": "Claude Desktop (claude_desktop_config.json; or Settings > Connectors for a public https URL)",
    "cursor": "Cursor (~/.cursor/mcp.json, or .cursor/mcp.json of a project)",
    "vscode": "VS Code (.vscode/mcp.json of a workspace, or 'MCP: Open User Configuration')",
}
#: The variable that holds the key, and what VS Code asks for.
_KEY: Final = "MCP_MANAGER_KEY"
_INPUT: Final = {"type": "promptString", "id": "mcp-manager-key", "description": "API key", "password": True}
#: Hosts that mcp-remote lets pass without TLS.
_LOCAL: Final = frozenset(("localhost", "127.0.0.1"))
_WILDCARDS: Final = frozenset(("0.0.0.0", "::"))  # noqa: S104 - names to compare with, not to bind
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_TYPES: Final[dict[Transport, str]] = {"streamable_http": "http", "sse": "sse", "websocket": "ws"}


def url_of(config: Config, name: str) -> str:
    """URL of the server `name` as clients see it. Raises ValueError when the port is not known before the start."""
    base = config.listen.public_url or _bound(config.listen)
    if config.servers[name].transport == "websocket":
        base = f"ws{base.removeprefix('http')}"
    return f"{base.rstrip('/')}/{name}/mcp"


def _bound(listen: Listen) -> str:
    if listen.port == 0:
        raise ValueError("listen.port is 0, so the port is known only once the proxy runs; set listen.public_url")
    scheme = "http" if listen.tls is None else "https"
    host = "localhost" if listen.host in _WILDCARDS else listen.host
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" if listen.port == _DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{listen.port}"


def snippet(
    client: Client, name: str, url: str, transport: Transport = "streamable_http", *, keyed: bool = False
) -> str:
    """Settings with which `client` reaches the server `name` at `url`. Raises ValueError when it cannot.

    `keyed`: it has to show an API key, which stays out of the settings: they name the variable, or ask for it.
    """
    # Claude Code takes letters, digits, '-' and '_' only.
    name = name.replace(".", "-")
    if client == "claude-code":
        return _claude_code(name, url, transport, keyed)
    if transport == "websocket":
        raise ValueError("this client does not speak WebSocket")
    if client == "claude-desktop":
        return _json({"mcpServers": {name: _bridge(url, transport, keyed)}})
    if client == "cursor":
        # Cursor finds the transport out by itself; the type is for people.
        entry: dict[str, Any] = {"url": url} if transport == "streamable_http" else {"type": "sse", "url": url}
        return _json({"mcpServers": {name: entry | _shown(f"${{env:{_KEY}}}", keyed)}})
    asked = {"inputs": [_INPUT]} if keyed else {}
    return _json({**asked, "servers": {name: _typed(url, transport) | _shown(f"${{input:{_INPUT['id']}}}", keyed)}})


def snippets(name: str, url: str, transport: Transport = "streamable_http", *, keyed: bool = False) -> str:
    """The snippets of all clients under headings."""
    parts = []
    for client, heading in CLIENTS.items():
        try:
            text = snippet(client, name, url, transport, keyed=keyed)
        except ValueError as error:
            text = f"({error})"
        parts.append(f"# {heading}\n\n{text}")
    return "\n\n".join(parts)


def _claude_code(name: str, url: str, transport: Transport, keyed: bool) -> str:
    entry = _typed(url, transport) | _shown(f"${{{_KEY}}}", keyed)
    if transport == "websocket":
        command = f"claude mcp add-json {name} {shlex.quote(json.dumps(entry, separators=(',', ':')))}"
    else:
        header = f' --header "Authorization: Bearer ${_KEY}"' if keyed else ""
        command = f"claude mcp add --transport {entry['type']} {name} {shlex.quote(url)}{header}"
    return f"{command}\n\n{_json({'mcpServers': {name: entry}})}"


def _typed(url: str, transport: Transport) -> dict[str, Any]:
    return {"type": _TYPES[transport], "url": url}


def _shown(key: str, keyed: bool) -> dict[str, Any]:
    """The header that shows the key."""
    return {"headers": {"Authorization": f"Bearer {key}"}} if keyed else {}


def _bridge(url: str, transport: Transport, keyed: bool) -> dict[str, Any]:
    """npx with mcp-remote, the bridge from standard input and output to a URL. It reads no blank in an argument, so the
    value of the header comes from the environment."""
    parts = urlsplit(url)
    plain = ["--allow-http"] if parts.scheme == "http" and parts.hostname not in _LOCAL else []
    sse = ["--transport", "sse-only"] if transport == "sse" else []
    header = ["--header", "Authorization:${AUTHORIZATION}"] if keyed else []
    entry: dict[str, Any] = {"command": "npx", "args": ["-y", "mcp-remote", url, *plain, *sse, *header]}
    return entry | ({"env": {"AUTHORIZATION": f"Bearer <{_KEY}>"}} if keyed else {})


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2)

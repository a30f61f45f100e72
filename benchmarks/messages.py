"""The traffic of the measurements: MCP requests as clients of both eras write them, and the answers of the upstream.

Owns bytes only; sockets are in `load.py` and `upstream.py`, which must agree on what is here.
"""

from __future__ import annotations

import json
from typing import Any, Final

SESSION: Final = "5f3c9a52-7d1e-4b8e-9c55-2f6f4a1b7c10"
"""The session id that the upstream mints when it sees `initialize`."""

_RESULT: Final = {"content": [{"type": "text", "text": "It is 21 degrees and sunny in Lisbon. " * 3}], "isError": False}


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


SMALL_JSON: Final = _dumps({"jsonrpc": "2.0", "id": 7, "result": _RESULT})
SMALL_EVENT: Final = b"event: message\r\ndata: " + SMALL_JSON + b"\r\n\r\n"
BIG_JSON: Final = _dumps(
    {"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "x" * (1 << 20)}], "isError": False}}
)

ANSWERS: Final = {"json": SMALL_JSON, "sse": SMALL_EVENT, "big": BIG_JSON}
"""Body of the answer by the kind that the request's `X-Answer` asks for."""


def call(era: str, tool: str = "get_weather") -> tuple[dict[str, str], bytes]:
    """Headers and body of one small `tools/call` of a `legacy` (2025-11-25) or `modern` (2026-07-28) client."""
    params: dict[str, Any] = {"name": tool, "arguments": {"city": "Lisbon", "units": "metric", "days": 3}}
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "User-Agent": "benchmark/1",
    }
    if era == "modern":
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        headers |= {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool}
    else:
        headers["MCP-Protocol-Version"] = "2025-11-25"
    return headers, _dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params})


def initialize() -> tuple[dict[str, str], bytes]:
    """Headers and body of the `initialize` with which a legacy client gets its session."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "benchmark", "version": "1"}}
    headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    return headers, _dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})


def request(port: int, path: str, headers: dict[str, str], body: bytes = b"", method: str = "POST") -> bytes:
    """One HTTP/1.1 request as it goes over the wire."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body

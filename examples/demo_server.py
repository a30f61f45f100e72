"""A small MCP server for `make run`, written with the official SDK: something real to put behind the proxy.

It speaks every protocol revision over streamable HTTP at /mcp and knows nothing of the proxy.

    python examples/demo_server.py --port 8765
"""

from __future__ import annotations

import argparse
import asyncio

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer(
    "demo",
    version="1.0.0",
    instructions="A demonstration server: arithmetic, an echo, and a task that takes its time.",
    log_level="WARNING",
)


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def echo(message: str) -> str:
    """Return the message."""
    return message


@server.tool()
async def slow(seconds: float, ctx: Context) -> str:
    """Work for a while and report progress ten times, to watch a stream pass through the proxy."""
    for step in range(1, 11):
        await asyncio.sleep(seconds / 10)
        await ctx.report_progress(step, 10, f"step {step} of 10")
    return f"done after {seconds} s"


@server.resource("demo://about", mime_type="text/markdown")
def about() -> str:
    """What this server is."""
    return "# Demo\n\nA small MCP server behind the MCP Manager proxy."


@server.prompt()
def summarise(text: str) -> str:
    """Ask for a summary of a text."""
    return f"Summarise the following in three sentences:\n\n{text}"


def main() -> None:
    """Serve until the process is told to stop."""
    parser = argparse.ArgumentParser(description="A small MCP server to try the proxy with.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    server.run("streamable-http", host=options.host, port=options.port)


if __name__ == "__main__":
    main()

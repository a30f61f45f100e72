"""The fixture server of the conformance and acceptance tests: `mcp` 2.3.0, every revision, on one port.

Streamable HTTP (stateful 2025 revisions and 2026-07-28) at /mcp, the two-endpoint transport of 2024-11-05 at /sse, and
at /journal what its handlers saw, for tests that ask the server itself. It knows nothing of the proxy.

    python -m tests.conformance.server --port 3001
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import warnings
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    JSONRPCMessage,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from tests.conformance import fixture_content, fixture_rounds, fixture_tools
from tests.conformance.fixture_registry import REGISTRY, Context, text

#: Registration happens at import; naming the modules here keeps the imports honest.
TABLES = (fixture_tools, fixture_rounds, fixture_content)
#: What clients are told to wait before they resume a stream, milliseconds.
RETRY_MS = 100


class EventLog(EventStore):
    """Every event of every stream in memory, so that a client can resume after `Last-Event-ID`."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep one event; its id is its place in the log."""
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        """Send what came later on the same stream; None when the id is unknown."""
        if not last_event_id.isdecimal() or int(last_event_id) >= len(self._events):
            return None
        last = int(last_event_id)
        stream_id = self._events[last][0]
        for place, (stream, message) in enumerate(self._events[last + 1 :], last + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return stream_id


async def _list_tools(ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=[tool for tool, _ in REGISTRY.tools.values()])


async def _call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
    entry = REGISTRY.tools.get(params.name)
    if entry is None:
        return text(f"Unknown tool: {params.name}", is_error=True)
    try:
        return await entry[1](ctx, params)
    except MCPError:
        raise
    except Exception as error:
        return text(f"{type(error).__name__}: {error}", is_error=True)


async def _list_resources(ctx: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
    return ListResourcesResult(resources=fixture_content.RESOURCES)


async def _list_templates(ctx: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    return ListResourceTemplatesResult(resource_templates=fixture_content.TEMPLATES)


async def _read_resource(ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    return fixture_content.read(str(params.uri))


async def _subscribe(ctx: Context, params: SubscribeRequestParams) -> EmptyResult:
    return EmptyResult()


async def _unsubscribe(ctx: Context, params: UnsubscribeRequestParams) -> EmptyResult:
    return EmptyResult()


async def _set_level(ctx: Context, params: SetLevelRequestParams) -> EmptyResult:
    return EmptyResult()


async def _list_prompts(ctx: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
    return ListPromptsResult(prompts=[prompt for prompt, _ in REGISTRY.prompts.values()])


async def _get_prompt(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult:
    entry = REGISTRY.prompts.get(params.name)
    if entry is None:
        raise MCPError(INVALID_PARAMS, "Unknown prompt")
    return await entry[1](ctx, params)


async def _complete(ctx: Context, params: CompleteRequestParams) -> CompleteResult:
    values = fixture_content.complete(params.argument.value)
    return CompleteResult(completion=Completion(values=values, total=len(values), has_more=False))


def build_server() -> Server[Any]:
    """The server with every handler registered."""
    server: Server[Any] = Server(
        "conformance-fixture",
        version="1.0.0",
        get_tool_input_schema=lambda name: REGISTRY.tools[name][0].input_schema if name in REGISTRY.tools else None,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=_read_resource,
        on_subscribe_resource=_subscribe,
        on_unsubscribe_resource=_unsubscribe,
        on_subscriptions_listen=ListenHandler(REGISTRY.bus),
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
        on_completion=_complete,
        on_set_logging_level=_set_level,
    )
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name))
    return server


async def _journal(request: Request) -> Response:
    return JSONResponse(REGISTRY.journal)


def _sse_routes(server: Server[Any]) -> list[Route | Mount]:
    """GET /sse opens the stream, POST /messages/?session_id=... answers it (MCP 2024-11-05, HTTP with SSE)."""
    transport = SseServerTransport("/messages/")

    async def open_stream(request: Request) -> Response:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (reader, writer):
            await server.run(reader, writer, server.create_initialization_options())
        return Response()

    return [Route("/sse", open_stream, methods=["GET"]), Mount("/messages/", app=transport.handle_post_message)]


def build_app() -> Starlette:
    """Both transports and the journal in one ASGI application."""
    server = build_server()
    app = server.streamable_http_app(event_store=EventLog(), retry_interval=RETRY_MS)
    app.router.routes.extend([*_sse_routes(server), Route("/journal", _journal)])
    return app


def main() -> None:
    """Serve until the process is told to stop."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3001)
    options = parser.parse_args()
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    logging.basicConfig(level=logging.WARNING)
    config = uvicorn.Config(
        build_app(),
        host=options.host,
        port=options.port,
        http="h11",  # trims blanks around header values, unlike httptools: one parser on every machine
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    asyncio.run(uvicorn.Server(config).serve())


if __name__ == "__main__":
    main()

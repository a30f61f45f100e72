"""The tables of the fixture server: what it offers, filled by decorators, read by `server.py`.

Owns registration and the journal of what happened inside a handler. Knows nothing of HTTP and nothing of the proxy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    Prompt,
    PromptArgument,
    TextContent,
    Tool,
)

Context = ServerRequestContext[Any, Any]
Schema = dict[str, Any]
ToolFunction = Callable[[Context, CallToolRequestParams], Awaitable[CallToolResult | InputRequiredResult]]
PromptFunction = Callable[[Context, GetPromptRequestParams], Awaitable[GetPromptResult | InputRequiredResult]]

#: Input schema of a tool that takes nothing.
NO_ARGUMENTS: Schema = {"type": "object", "properties": {}}


def takes(**properties: str | Schema) -> Schema:
    """Input schema of required properties; a value is a JSON type or a whole property schema."""
    schemas = {name: {"type": value} if isinstance(value, str) else value for name, value in properties.items()}
    return {"type": "object", "properties": schemas, "required": list(schemas)}


def text(content: str, *, is_error: bool = False) -> CallToolResult:
    """A tool result of one text block."""
    return CallToolResult(content=[TextContent(type="text", text=content)], is_error=is_error)


@dataclass
class Registry:
    """Tools and prompts in the order of registration, the bus for change events, and the journal."""

    tools: dict[str, tuple[Tool, ToolFunction]] = field(default_factory=dict)
    prompts: dict[str, tuple[Prompt, PromptFunction]] = field(default_factory=dict)
    bus: InMemorySubscriptionBus = field(default_factory=InMemorySubscriptionBus)
    #: What handlers saw, such as `cancelled:slow-1`; served at /journal so that a test can ask the server itself.
    journal: list[str] = field(default_factory=list)

    def tool(self, name: str, schema: Schema = NO_ARGUMENTS) -> Callable[[ToolFunction], ToolFunction]:
        """Register a tool; its description is the function's docstring."""

        def register(function: ToolFunction) -> ToolFunction:
            self.tools[name] = (Tool(name=name, description=function.__doc__, input_schema=schema), function)
            return function

        return register

    def prompt(self, name: str, **arguments: str) -> Callable[[PromptFunction], PromptFunction]:
        """Register a prompt with required arguments, name to description."""

        def register(function: PromptFunction) -> PromptFunction:
            needed = [PromptArgument(name=key, description=value, required=True) for key, value in arguments.items()]
            self.prompts[name] = (Prompt(name=name, description=function.__doc__, arguments=needed), function)
            return function

        return register


REGISTRY = Registry()

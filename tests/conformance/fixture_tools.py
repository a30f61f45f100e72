"""The fixture's plain tools: content types, logging, progress, requests to the client, list changes.

Names and texts are what the conformance scenarios ask for; `slow_steps` and `echo` serve the acceptance tests.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)

from tests.conformance.fixture_registry import REGISTRY, Context, takes, text

#: A PNG of one red pixel and a WAV without samples, base64.
PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
WAV: Final = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
#: Pause between two notifications, seconds, long enough that a buffering hop would merge them visibly.
_STEP_S: Final = 0.05

_DIALECT_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def _arguments(params: CallToolRequestParams) -> dict[str, Any]:
    return params.arguments or {}


def _embedded(uri: str, mime_type: str, content: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=content))


async def _log(ctx: Context, message: str) -> None:
    await ctx.session.send_log_message("info", message, related_request_id=ctx.request_id)


# --- content ---------------------------------------------------------------------------------------------------------


@REGISTRY.tool("test_simple_text")
async def simple_text(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Returns one block of text."""
    return text("This is a simple text response for testing.")


@REGISTRY.tool("test_image_content")
async def image_content(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Returns a PNG."""
    return CallToolResult(content=[ImageContent(type="image", data=PNG, mime_type="image/png")])


@REGISTRY.tool("test_audio_content")
async def audio_content(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Returns a WAV."""
    return CallToolResult(content=[AudioContent(type="audio", data=WAV, mime_type="audio/wav")])


@REGISTRY.tool("test_embedded_resource")
async def embedded_resource(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Returns an embedded resource."""
    resource = _embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    return CallToolResult(content=[resource])


@REGISTRY.tool("test_multiple_content_types")
async def mixed_content(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Returns text, an image and a resource."""
    resource = _embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return CallToolResult(
        content=[
            TextContent(type="text", text="Multiple content types test:"),
            ImageContent(type="image", data=PNG, mime_type="image/png"),
            resource,
        ]
    )


@REGISTRY.tool("test_error_handling")
async def failing(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Always fails."""
    return text("This tool intentionally returns an error for testing", is_error=True)


@REGISTRY.tool("json_schema_2020_12_tool", _DIALECT_SCHEMA)
async def dialect(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Tool with JSON Schema 2020-12 features."""
    return text(f"arguments: {sorted(_arguments(params))}")


@REGISTRY.tool(
    "test_region_header",
    takes(region={"type": "string", "description": "Mirrored into Mcp-Param-Region", "x-mcp-header": "Region"}),
)
async def region_header(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Takes a parameter that clients mirror into a request header."""
    return text(f"region: {_arguments(params).get('region')}")


@REGISTRY.tool("echo", takes(message="string"))
async def echo(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Returns its argument."""
    return text(str(_arguments(params).get("message")))


# --- notifications while running -------------------------------------------------------------------------------------


@REGISTRY.tool("test_tool_with_logging")
async def with_logging(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Logs three times while it runs."""
    await _log(ctx, "Tool execution started")
    await asyncio.sleep(_STEP_S)
    await _log(ctx, "Tool processing data")
    await asyncio.sleep(_STEP_S)
    await _log(ctx, "Tool execution completed")
    return text("Tool with logging executed successfully")


@REGISTRY.tool("test_logging_tool")
async def logging_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Logs once, which must stay unheard unless the request asked for logs."""
    await _log(ctx, "nobody asked for this")
    return text("done")


@REGISTRY.tool("test_tool_with_progress")
async def with_progress(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Reports progress at 0, 50 and 100 of 100."""
    for progress in (0, 50, 100):
        await ctx.session.report_progress(progress, 100, f"Completed step {progress} of 100")
        await asyncio.sleep(_STEP_S)
    return text("Tool with progress executed successfully")


@REGISTRY.tool(
    "slow_steps",
    takes(label="string", steps={"type": "integer", "minimum": 1}, pause={"type": "number", "minimum": 0}),
)
async def slow_steps(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Reports progress every `pause` seconds and enters its start, end or cancellation into the journal."""
    arguments = _arguments(params)
    label, steps, pause_s = arguments["label"], int(arguments["steps"]), float(arguments["pause"])
    REGISTRY.journal.append(f"started:{label}")
    try:
        for step in range(1, steps + 1):
            await ctx.session.report_progress(step, steps, f"step {step}")
            await asyncio.sleep(pause_s)
    except asyncio.CancelledError:
        REGISTRY.journal.append(f"cancelled:{label}")
        raise
    REGISTRY.journal.append(f"finished:{label}")
    return text(f"{label}: {steps} steps")


@REGISTRY.tool("test_reconnection")
async def reconnection(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Closes its own response stream half-way; the rest is for a client that resumes."""
    await _log(ctx, "Before disconnect")
    if ctx.close_sse_stream is not None:
        await ctx.close_sse_stream()
    await asyncio.sleep(4 * _STEP_S)
    await _log(ctx, "After reconnect")
    return text("Reconnection test completed")


# --- requests to the client ------------------------------------------------------------------------------------------


@REGISTRY.tool("test_sampling", takes(prompt="string"))
async def sampling(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Asks the client's model."""
    question = SamplingMessage(role="user", content=TextContent(type="text", text=_arguments(params)["prompt"]))
    answer = await ctx.session.create_message([question], max_tokens=100, related_request_id=ctx.request_id)
    return text(f"LLM response: {getattr(answer.content, 'text', '')}")


async def _elicit(ctx: Context, message: str, properties: dict[str, Any]) -> str:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return f"action={answer.action}, content={answer.content or {}}"


@REGISTRY.tool("test_elicitation", takes(message="string"))
async def elicitation(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Asks the user for a name and an address."""
    properties = {
        "username": {"type": "string", "description": "User's response"},
        "email": {"type": "string", "description": "User's email address"},
    }
    return text(f"User response: {await _elicit(ctx, _arguments(params)['message'], properties)}")


@REGISTRY.tool("test_elicitation_sep1034_defaults")
async def elicitation_defaults(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Asks the user with a default for every primitive type."""
    properties = {
        "name": {"type": "string", "default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    return text(f"Elicitation completed: {await _elicit(ctx, 'Please review the defaults', properties)}")


@REGISTRY.tool("test_elicitation_sep1330_enums")
async def elicitation_enums(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Asks the user with every form of an enumeration."""
    options = ["option1", "option2", "option3"]
    titled = [{"const": f"value{n}", "title": f"{word} Option"} for n, word in enumerate(("First", "Second"), 1)]
    properties = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": titled},
        "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
        "titledMulti": {"type": "array", "items": {"anyOf": titled}},
    }
    return text(f"Elicitation completed: {await _elicit(ctx, 'Please choose', properties)}")


@REGISTRY.tool("test_missing_capability")
async def missing_capability(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Needs a client that offers sampling."""
    declared = ctx.session.client_capabilities
    if declared is None or declared.sampling is None:
        needed = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs the sampling capability", needed)
    return text("sampling is available")


# --- changes of the lists --------------------------------------------------------------------------------------------


@REGISTRY.tool("test_trigger_tool_change")
async def trigger_tool_change(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Announces that the list of tools changed, to listeners of either era."""
    await REGISTRY.bus.publish(ToolsListChanged())
    await ctx.session.send_tool_list_changed()
    return text("announced")


@REGISTRY.tool("test_trigger_prompt_change")
async def trigger_prompt_change(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
    """Announces that the list of prompts changed, to listeners of either era."""
    await REGISTRY.bus.publish(PromptsListChanged())
    await ctx.session.send_prompt_list_changed()
    return text("announced")

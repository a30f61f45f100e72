"""The fixture's resources, prompts and completion."""

from __future__ import annotations

import json
import re
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    BlobResourceContents,
    EmbeddedResource,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    PromptMessage,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
)

from tests.conformance.fixture_registry import REGISTRY, Context
from tests.conformance.fixture_tools import PNG

RESOURCES: Final = [
    Resource(uri="test://static-text", name="static-text", description="A fixed text", mime_type="text/plain"),
    Resource(uri="test://static-binary", name="static-binary", description="A fixed image", mime_type="image/png"),
    Resource(
        uri="test://watched-resource",
        name="watched-resource",
        description="A text to subscribe to",
        mime_type="text/plain",
    ),
]
TEMPLATES: Final = [
    ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="template-data",
        description="Made from the id in its URI",
        mime_type="application/json",
    )
]
_TEMPLATE: Final = re.compile(r"test://template/([^/]+)/data")
_TEXTS: Final = {
    "test://static-text": "This is the content of the static text resource.",
    "test://watched-resource": "Watched resource content",
}
_WORDS: Final = ("paris", "park", "party")


def read(uri: str) -> ReadResourceResult:
    """The contents of one resource. Raises `MCPError` (-32602 with the URI, SEP-2164) when there is none."""
    if uri == "test://static-binary":
        return ReadResourceResult(contents=[BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)])
    if uri in _TEXTS:
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type="text/plain", text=_TEXTS[uri])])
    match = _TEMPLATE.fullmatch(uri)
    if match is None:
        raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})
    body = json.dumps({"id": match[1], "templateTest": True, "data": f"Data for ID: {match[1]}"})
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type="application/json", text=body)])


def complete(prefix: str) -> list[str]:
    """Words that begin with `prefix`."""
    return [word for word in _WORDS if word.startswith(prefix)]


def _messages(*content: TextContent | ImageContent | EmbeddedResource) -> GetPromptResult:
    return GetPromptResult(messages=[PromptMessage(role="user", content=item) for item in content])


@REGISTRY.prompt("test_simple_prompt")
async def simple_prompt(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult:
    """A prompt without arguments."""
    return _messages(TextContent(type="text", text="This is a simple prompt for testing."))


@REGISTRY.prompt("test_prompt_with_arguments", arg1="First test argument", arg2="Second test argument")
async def prompt_with_arguments(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult:
    """A prompt with two required arguments."""
    given = params.arguments or {}
    return _messages(
        TextContent(type="text", text=f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")
    )


@REGISTRY.prompt("test_prompt_with_embedded_resource", resourceUri="URI of the resource to embed")
async def prompt_with_resource(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult:
    """A prompt that embeds a resource."""
    contents = TextResourceContents(
        uri=(params.arguments or {})["resourceUri"],
        mime_type="text/plain",
        text="Embedded resource content for testing.",
    )
    return _messages(
        EmbeddedResource(type="resource", resource=contents),
        TextContent(type="text", text="Please process the embedded resource above."),
    )


@REGISTRY.prompt("test_prompt_with_image")
async def prompt_with_image(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult:
    """A prompt with an image."""
    return _messages(
        ImageContent(type="image", data=PNG, mime_type="image/png"),
        TextContent(type="text", text="Please analyze the image above."),
    )

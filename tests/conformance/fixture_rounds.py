"""The fixture's multi-round tools and prompt (MCP 2026-07-28, SEP-2322): answers that ask for input first.

State between rounds is plain text here; the request-state boundary that `server.py` installs seals it on the wire.
"""

from __future__ import annotations

from typing import Any, Final

from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    PromptMessage,
    SamplingMessage,
    TextContent,
)

from tests.conformance.fixture_registry import REGISTRY, Context, text

Answer = CallToolResult | InputRequiredResult


def _ask(message: str, **properties: str) -> ElicitRequest:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in properties.items()},
        "required": list(properties),
    }
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sample(prompt: str, max_tokens: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


_NAME: Final[dict[str, InputRequest]] = {"user_name": _ask("What is your name?", name="string")}
_CONFIRM: Final[dict[str, InputRequest]] = {"confirm": _ask("Please confirm", ok="boolean")}
_CAPITAL: Final[dict[str, InputRequest]] = {"capital_question": _sample("What is the capital of France?", 100)}
_ROOTS: Final[dict[str, InputRequest]] = {"client_roots": ListRootsRequest()}
_EVERYTHING: Final[dict[str, InputRequest]] = {**_NAME, "greeting": _sample("Generate a greeting", 50), **_ROOTS}
_STEP_1: Final[dict[str, InputRequest]] = {"step1": _ask("Step 1: What is your name?", name="string")}
_STEP_2: Final[dict[str, InputRequest]] = {"step2": _ask("Step 2: What is your favorite color?", color="string")}
_CONTEXT: Final[dict[str, InputRequest]] = {
    "user_context": _ask("What context should the prompt use?", context="string")
}


def _unanswered(
    params: CallToolRequestParams | GetPromptRequestParams, asked: dict[str, InputRequest], state: str | None = None
) -> InputRequiredResult | None:
    """The question again while any part of it has no answer; None once all have one."""
    if set(asked) <= set(params.input_responses or ()):
        return None
    return InputRequiredResult(input_requests=asked, request_state=state)


def _entered(params: CallToolRequestParams | GetPromptRequestParams, key: str, field: str) -> str:
    answer = (params.input_responses or {}).get(key)
    content = answer.content if isinstance(answer, ElicitResult) else None
    return str((content or {}).get(field, ""))


@REGISTRY.tool("test_input_required_result_elicitation")
async def ask_name(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Greets by a name that it asks for."""
    return _unanswered(params, _NAME) or text(f"Hello, {_entered(params, 'user_name', 'name')}!")


@REGISTRY.tool("test_input_required_result_sampling")
async def ask_model(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Repeats what the client's model says."""
    return _unanswered(params, _CAPITAL) or text("The model has answered.")


@REGISTRY.tool("test_input_required_result_list_roots")
async def ask_roots(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Tells the client's roots."""
    pending = _unanswered(params, _ROOTS)
    if pending is not None:
        return pending
    roots = getattr((params.input_responses or {})["client_roots"], "roots", [])
    return text("roots: " + ", ".join(str(root.uri) for root in roots))


@REGISTRY.tool("test_input_required_result_request_state")
async def keep_state(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Carries state from one round to the next."""
    pending = _unanswered(params, _CONFIRM, state="round-1")
    if pending is not None:
        return pending
    return text("state-ok" if params.request_state == "round-1" else "state-lost")


@REGISTRY.tool("test_input_required_result_tampered_state")
async def guard_state(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Carries state that the boundary refuses once it was altered."""
    return _unanswered(params, _CONFIRM, state="untouched") or text("state-ok")


@REGISTRY.tool("test_input_required_result_multiple_inputs")
async def ask_everything(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Asks the user, the model and the client at once."""
    return _unanswered(params, _EVERYTHING, state="all") or text("All three have answered.")


@REGISTRY.tool("test_input_required_result_multi_round")
async def ask_twice(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Asks for a name, then for a colour."""
    if params.request_state is None:
        return InputRequiredResult(input_requests=_STEP_1, request_state="1:")
    number, _, name = params.request_state.partition(":")
    if number == "1":
        name = _entered(params, "step1", "name")
        return InputRequiredResult(input_requests=_STEP_2, request_state=f"2:{name}")
    return text(f"{name} likes {_entered(params, 'step2', 'color')}.")


@REGISTRY.tool("test_input_required_result_capabilities")
async def ask_what_is_offered(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Asks only what the client declared that it can answer."""
    offered = ctx.session.client_capabilities
    asked: dict[str, InputRequest] = {}
    if offered is not None and offered.elicitation is not None:
        asked |= _NAME
    if offered is not None and offered.sampling is not None:
        asked |= _CAPITAL
    return (_unanswered(params, asked) if asked else None) or text("Nothing left to ask.")


@REGISTRY.tool("test_streaming_elicitation")
async def stream_then_ask(ctx: Context, params: CallToolRequestParams) -> Answer:
    """Reports progress and then asks: on the stream there is never a request of the server's own."""
    await ctx.session.report_progress(1, 2, "about to ask")
    return _unanswered(params, _NAME) or text("answered")


@REGISTRY.prompt("test_input_required_result_prompt")
async def ask_context(ctx: Context, params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult:
    """A prompt that asks for its context."""
    pending = _unanswered(params, _CONTEXT)
    if pending is not None:
        return pending
    content = TextContent(type="text", text=f"Use this context: {_entered(params, 'user_context', 'context')}")
    return GetPromptResult(messages=[PromptMessage(role="user", content=content)])

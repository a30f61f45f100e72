"""Every method a client may send, in every revision: what it may do, what it is aimed at, how it behaves.

Owns the table (schema.ts of each revision, SEP-2663 for tasks, SEP-2640 for skills). It knows nothing of JSON or of
who may call what. A method that is not in the table counts as one that executes something: policy fails closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal


class Access(Enum):
    """What a message may do at the server; policy maps it to scopes."""

    SESSION = "session"
    """Keeps the connection itself going: handshake, notifications, log level, answers to the server."""
    READ = "read"
    """Reads without an effect outside the session."""
    EXECUTE = "execute"
    """Runs something, or is unknown."""


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table."""

    access: Access
    """What it may do."""
    kind: str = ""
    """What it is aimed at: tool, prompt, resource, task, or nothing. `ref` methods tell by the reference itself."""
    field: str = ""
    """Member of `params` that names the target; `ref` is an object with a type of its own; '' when there is none."""
    mirror: Literal["", "checked", "required"] = ""
    """Whether `Mcp-Name` repeats the target (MCP 2026-07-28 streamable HTTP, "Standard Headers"). `checked`: it must be
    right where it is sent, but a server without the extension does not ask for it. '': it means nothing, leave it."""
    long_lived: bool = False
    """The answer is a stream that stays open as long as the client wants."""
    throttled: bool = True
    """Counts against limits. A refused `server/discover` would flip clients to an older protocol (design section 7)."""


_SESSION: Final = Method(Access.SESSION)
_READ: Final = Method(Access.READ)
_EXECUTE: Final = Method(Access.EXECUTE)
_RESOURCE: Final = Method(Access.READ, "resource", "uri")
_TASK: Final = Method(Access.EXECUTE, "task", "taskId", "checked")

#: What an unknown method is taken for.
UNKNOWN: Final = _EXECUTE

METHODS: Final = MappingProxyType(
    {
        # every revision
        "tools/list": _READ,
        "tools/call": Method(Access.EXECUTE, "tool", "name", "required"),
        "prompts/list": _READ,
        "prompts/get": Method(Access.READ, "prompt", "name", "required"),
        "resources/list": _READ,
        "resources/templates/list": _READ,
        "resources/read": Method(Access.READ, "resource", "uri", "required"),
        "completion/complete": Method(Access.READ, field="ref"),
        # up to 2025-11-25
        "initialize": _SESSION,
        "ping": _READ,
        "logging/setLevel": _SESSION,
        "resources/subscribe": _RESOURCE,
        "resources/unsubscribe": _RESOURCE,
        "notifications/initialized": _SESSION,
        "notifications/cancelled": _SESSION,
        "notifications/progress": _SESSION,
        "notifications/roots/list_changed": _SESSION,
        "notifications/tasks/status": Method(Access.SESSION, "task", "taskId"),
        # tasks: 2025-11-25 (get, result, cancel, list) and the extension of 2026-07-28 (get, update, cancel)
        "tasks/get": _TASK,
        "tasks/update": _TASK,
        "tasks/cancel": _TASK,
        "tasks/result": Method(Access.EXECUTE, "task", "taskId"),
        "tasks/list": _EXECUTE,
        # from 2026-07-28
        "server/discover": Method(Access.READ, throttled=False),
        "subscriptions/listen": Method(Access.READ, long_lived=True),
        # the skills extension of 2026-07-28
        "skills/list": _READ,
        "skills/get": _RESOURCE,
        "resources/directory/read": _RESOURCE,
    }
)


def metric_label(method: str) -> str:
    """A label from a closed set: the method if it is known, `response` for none, else `other`."""
    if method in METHODS:
        return method
    return "other" if method else "response"

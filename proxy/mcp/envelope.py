"""The JSON-RPC envelope of a POST: which messages it holds, what they are aimed at, and of which era they are.

Owns the rule that what we decide on is what the upstream will read (design section 4.6): each name that counts is read
from an object in which it cannot be misread, and modern headers agree with the body. It never repairs and never answers
for the server: where the specification has the server say something (-32601, -32602, -32022), the message passes.
It knows no route, no policy and no connection.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from proxy.errors import HeaderMismatch, InvalidRequest, RequestId
from proxy.mcp import headers, methods, revisions
from proxy.mcp.methods import METHODS, Access
from proxy.mcp.strict_json import Names, load
from proxy.mcp.trace import stated_in

#: Member of `params._meta` in which a modern request names its revision (MCP 2026-07-28 basic, "Per-request fields").
VERSION_KEY: Final = "io.modelcontextprotocol/protocolVersion"
#: Messages in one batch (2025-03-26; no later revision has batches).
MAX_BATCH: Final = 1000
#: Characters of a method, of a text id, and of the name or URI that a message is aimed at.
MAX_METHOD: Final = 256
MAX_ID: Final = 1024
MAX_TARGET: Final = 64 << 10
#: Bodies above this many bytes are read with the collector of reference cycles paused.
_LARGE_BYTES: Final = 64 << 10
#: Whole numbers up to here survive every JSON parser (RFC 7493 section 2.2), so an id can be repeated in an answer.
_MAX_INTEGER: Final = 1 << 53

_LEGACY: Final = frozenset(revisions.LEGACY)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
_ABSENT: Final = object()

_MESSAGE: Final = Names(("jsonrpc", "id", "method", "params", "result", "error"))
_PARAMS: Final = Names(
    ("name", "uri", "taskId", "ref", "_meta", "arguments", "protocolVersion"),
    known=(
        "argument", "capabilities", "clientInfo", "context", "cursor", "inputResponses", "level", "message",
        "notifications", "progress", "progressToken", "reason", "requestId", "requestState", "task", "total",
    ),
)  # fmt: skip
_META: Final = Names(
    (VERSION_KEY, "io.modelcontextprotocol/clientCapabilities"),
    known=(
        "io.modelcontextprotocol/clientInfo", "io.modelcontextprotocol/logLevel", "progressToken",
        "traceparent", "tracestate", "baggage",
    ),
)  # fmt: skip
_REFERENCE: Final = Names(("type", "name", "uri"))
#: Type of a completion reference -> what it is aimed at, and the member that names it.
_REFERENCES: Final = {"ref/prompt": ("prompt", "name"), "ref/resource": ("resource", "uri")}


class Kind(Enum):
    """The three kinds of message of JSON-RPC 2.0."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"


#: Looking a member up in its enumeration costs 100 ns.
_REQUEST, _NOTIFICATION, _RESPONSE = Kind


@dataclass(slots=True)
class Message:
    """One message, as far as a decision needs it."""

    kind: Kind
    method: str
    """'' for a response."""
    id: RequestId
    """The id if an answer can repeat it: text, or a whole number up to 2**53. None for any other, and for a response,
    whose id is a request of the server's."""
    access: Access
    target_kind: str
    """tool, prompt, resource or task; '' when the method is aimed at nothing."""
    target: str
    """Name, URI or task id; '' when the message names none."""


@dataclass(slots=True)
class Envelope:
    """The messages of one body."""

    messages: tuple[Message, ...]
    """At least one."""
    batch: bool
    """The body is an array."""
    modern: bool
    """Header and body name the same modern revision; False is decided on the body alone."""
    revision: str
    """The revision asked for: the header's ('' when unknown), without it that of an `initialize`, else 2025-03-26."""
    traceparent: str = ""
    """What `_meta` of the only message says, unchecked; '' for nothing."""

    @property
    def first(self) -> Message:
        """The only message, or the first of a batch."""
        return self.messages[0]


def read_envelope(body: bytes, fields: Mapping[str, str]) -> Envelope:
    """Read a POST body; `fields` are the request's header fields, lower-case name to value.

    Raises ParseError (not JSON), BodyTooLarge (all structure), InvalidRequest (not JSON-RPC that is read the same by
    every server) or HeaderMismatch (header and body disagree), with the id of the request where it is known.
    """
    if len(body) <= _LARGE_BYTES or not gc.isenabled():
        return _read(body, fields)
    # Everything a large document allocates is freed on return: looking for cycles in between took 250 of 320 ms.
    gc.disable()
    try:
        return _read(body, fields)
    finally:
        gc.enable()


def _read(body: bytes, fields: Mapping[str, str]) -> Envelope:
    document = load(body)
    declared = fields.get(headers.PROTOCOL_VERSION)
    if declared is not None:
        declared = declared.strip(headers.BLANKS)
    if type(document) is list:
        return _read_batch(document, declared)
    message, params = _read_message(document)
    version = _version_in(params, message.id)
    if declared is not None and declared not in _LEGACY:
        envelope = _read_modern(message, version, declared, fields)
    else:
        if version is not _ABSENT:
            _refuse_modern(version, message.id)
        envelope = Envelope((message,), False, False, declared or _revision_asked(message, params))
    if "_meta" in params:
        envelope.traceparent = stated_in(params["_meta"])
    return envelope


def _read_batch(items: list[Any], declared: str | None) -> Envelope:
    """Every element counts as a message of its own. No later revision has batches, so no other header goes with one."""
    if not 0 < len(items) <= MAX_BATCH:
        raise InvalidRequest("empty or oversized batch")
    if declared is not None and declared not in _LEGACY:
        raise InvalidRequest("batch under a revision without batches")
    messages = []
    for item in items:
        message, params = _read_message(item)
        _refuse_modern(_version_in(params, message.id), message.id)
        messages.append(message)
    return Envelope(tuple(messages), True, False, declared or revisions.DEFAULT)


def _read_message(item: object) -> tuple[Message, dict[str, Any]]:
    """One message and its `params`, {} when it has none."""
    if not _MESSAGE.hold_in(item):
        raise InvalidRequest("not a plain object")
    raw_id = item.get("id", _ABSENT)
    method = item.get("method", _ABSENT)
    request_id = _echo(raw_id) if method is not _ABSENT else None
    if item.get("jsonrpc") != "2.0":
        raise InvalidRequest("jsonrpc is not 2.0", request_id=request_id)
    if method is _ABSENT:
        return _read_response(item, raw_id), {}
    row = METHODS.get(method) if isinstance(method, str) else None
    if row is None:
        row = _unknown_method(method, request_id)
    if "result" in item or "error" in item:
        raise InvalidRequest("both a call and a response", request_id=request_id)
    params = _read_params(item, request_id)
    target_kind, target = _read_target(row, params, request_id) if row.field else (row.kind, "")
    kind = _NOTIFICATION if raw_id is _ABSENT else _REQUEST
    if kind is _REQUEST and (method.startswith("notifications/") or (request_id is None and not _is_id(raw_id))):
        raise InvalidRequest("the id is none, or stands in a notification", request_id=request_id)
    return Message(kind, method, request_id, row.access, target_kind, target), params


def _read_params(item: dict[str, Any], request_id: RequestId) -> dict[str, Any]:
    """MCP has parameters by name only; null counts as none, as several servers take it."""
    params = item.get("params")
    if params is None:
        return {}
    if not _PARAMS.hold_in(params):
        raise InvalidRequest("params is not a plain object", request_id=request_id)
    return params


def _unknown_method(method: object, request_id: RequestId) -> methods.Method:
    if not method or not _is_name(method, MAX_METHOD):
        raise InvalidRequest("method is not a name", request_id=request_id)
    return methods.UNKNOWN


def _read_response(item: dict[str, Any], raw_id: object) -> Message:
    """An answer to a request of the server; only an error may lack an id (JSON-RPC 2.0 section 5)."""
    failed = "error" in item
    if failed == ("result" in item):
        raise InvalidRequest("neither a call nor a response")
    if not (_is_id(raw_id) or (failed and raw_id in (_ABSENT, None))):
        raise InvalidRequest("response without an id")
    return Message(_RESPONSE, "", None, Access.SESSION, "", "")


def _is_id(value: object) -> bool:
    """Text or a number, as the schema of every revision has it (true and false are no numbers)."""
    return len(value) <= MAX_ID if isinstance(value, str) else type(value) in (int, float)


def _echo(raw_id: object) -> RequestId:
    """The id if an answer can repeat it exactly."""
    if type(raw_id) is int:
        return raw_id if -_MAX_INTEGER <= raw_id <= _MAX_INTEGER else None
    return raw_id if isinstance(raw_id, str) and len(raw_id) <= MAX_ID else None


def _is_name(value: object, longest: int) -> bool:
    """Text that cannot break a log line or be cut short by a parser in C. `isprintable` settles most, and fast."""
    if not isinstance(value, str) or len(value) > longest:
        return False
    return value.isprintable() or _CONTROL.search(value) is None


def _read_target(row: methods.Method, params: dict[str, Any], request_id: RequestId) -> tuple[str, str]:
    """What a message is aimed at: kind, and name, URI or id. A missing one is for the server to complain about."""
    kind, field = row.kind, row.field
    if field == "ref":
        params = params.get("ref", {})
        if not _REFERENCE.hold_in(params) or not isinstance(params.get("type", ""), str):
            raise InvalidRequest("ref is not a plain object", request_id=request_id)
        kind, field = _REFERENCES.get(params.get("type", ""), ("", ""))
        if not field:
            return "", ""
    target = params.get(field)
    if target is None:
        return kind, ""
    if not _is_name(target, MAX_TARGET):
        raise InvalidRequest("target is not a name", request_id=request_id)
    return kind, target


def _version_in(params: dict[str, Any], request_id: RequestId) -> object:
    """The revision that a body names in its `_meta`, whatever its type; `_ABSENT` when it names none."""
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        return _ABSENT
    if not _META.hold_in(meta):
        raise InvalidRequest("_meta is not a plain object", request_id=request_id)
    return meta.get(VERSION_KEY, _ABSENT)


def _refuse_modern(version: object, request_id: RequestId) -> None:
    """A legacy or missing header over a modern body: servers that go by one and by the other would part here."""
    if version in revisions.MODERN:
        raise HeaderMismatch("modern body under a legacy header", request_id=request_id)


def _revision_asked(message: Message, params: dict[str, Any]) -> str:
    """The revision of a request without the header: what `initialize` proposes, so that it is routed as its session."""
    proposed = params.get("protocolVersion") if message.method == "initialize" else None
    return proposed if isinstance(proposed, str) and proposed in _LEGACY else revisions.DEFAULT


def _read_modern(message: Message, version: object, declared: str, fields: Mapping[str, str]) -> Envelope:
    """The envelope under a header that names a modern or an unknown revision.

    A body that names no revision, or the same unknown one, passes for the server to answer (-32602, -32022); headers
    that contradict the body never do. A repeated header is joined by a comma, which no revision holds.
    """
    if "," in declared or (version is not _ABSENT and version != declared):
        raise HeaderMismatch("header and body name different revisions", request_id=message.id)
    known = declared in revisions.MODERN
    if known and message.kind is _RESPONSE:
        raise InvalidRequest("a modern client sends no responses")
    modern = known and (version is not _ABSENT or message.kind is _NOTIFICATION)
    _check_mirrors(message, fields, modern and message.kind is _REQUEST)
    return Envelope((message,), False, modern, revisions.revision_of(declared))


def _check_mirrors(message: Message, fields: Mapping[str, str], required: bool) -> None:
    """Compare `Mcp-Method` and `Mcp-Name` with the body; `required`: they must be there where the table says so."""
    method = fields.get(headers.METHOD)
    if required if method is None else method.strip(headers.BLANKS) != message.method:
        raise HeaderMismatch("Mcp-Method", request_id=message.id)
    mirror = METHODS.get(message.method, methods.UNKNOWN).mirror
    if not mirror:
        return
    name = fields.get(headers.NAME)
    if name is None:
        wrong = required and mirror == "required" and message.target != ""
    else:
        wrong = not headers.agrees(name, message.target)
    if wrong:
        raise HeaderMismatch("Mcp-Name", request_id=message.id)

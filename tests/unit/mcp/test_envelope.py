"""The envelope: what is read from a body, what is refused, and when headers must agree with it."""

import gc
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp.shared.inbound import InboundModernRoute, classify_inbound_request

from proxy.errors import HeaderMismatch, InvalidRequest, ParseError, Refusal
from proxy.mcp.envelope import MAX_BATCH, VERSION_KEY, Envelope, Kind, Message, read_envelope
from proxy.mcp.methods import Access

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
CAPABILITIES_KEY = "io.modelcontextprotocol/clientCapabilities"
META = {VERSION_KEY: MODERN, CAPABILITIES_KEY: {}}


def call(method: str, params: object = None, **members: object) -> dict[str, Any]:
    """A request with id 7."""
    request = {"jsonrpc": "2.0", "id": 7, "method": method, **members}
    return request if params is None else {**request, "params": params}


def read(document: object, fields: Mapping[str, str] | None = None) -> Envelope:
    """The envelope of a document as an SDK would write it."""
    return read_envelope(json.dumps(document).encode(), fields or {})


def refusal(body: object, fields: Mapping[str, str] | None = None) -> Refusal:
    """The refusal of a document or of raw bytes."""
    with pytest.raises(Refusal) as caught:
        read_envelope(body if isinstance(body, bytes) else json.dumps(body).encode(), fields or {})
    return caught.value


def modern_fields(method: str, **fields: str) -> dict[str, str]:
    """Headers of a modern request; `mcp_name="x"` adds or replaces one."""
    return {
        "mcp-protocol-version": MODERN,
        "mcp-method": method,
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }


# --- what a message is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "params", "access", "kind", "target"),
    [
        ("tools/call", {"name": "search", "arguments": {"name": "x"}}, Access.EXECUTE, "tool", "search"),
        ("tools/call", {"name": ""}, Access.EXECUTE, "tool", ""),
        ("tools/call", {"arguments": {"name": "x"}}, Access.EXECUTE, "tool", ""),
        ("tools/call", {"name": None}, Access.EXECUTE, "tool", ""),
        ("tools/call", None, Access.EXECUTE, "tool", ""),
        ("prompts/get", {"name": "greet", "uri": "x"}, Access.READ, "prompt", "greet"),
        ("resources/read", {"uri": "file:///é", "name": "x"}, Access.READ, "resource", "file:///é"),
        ("resources/unsubscribe", {"uri": "a:b"}, Access.READ, "resource", "a:b"),
        ("tasks/cancel", {"taskId": "t1"}, Access.EXECUTE, "task", "t1"),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "p", "uri": "u"}}, Access.READ, "prompt", "p"),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "u"}}, Access.READ, "resource", "u"),
        ("completion/complete", {"ref": {"type": "ref/other", "name": "p", "": "q"}}, Access.READ, "", ""),
        ("completion/complete", {}, Access.READ, "", ""),
        ("tools/list", {"name": "x", "cursor": "c"}, Access.READ, "", ""),
        ("initialize", {"protocolVersion": LEGACY}, Access.SESSION, "", ""),
        ("acme/frobnicate", {"name": "x"}, Access.EXECUTE, "", ""),
        ("Tools/Call", {"name": "x"}, Access.EXECUTE, "", ""),
    ],
)
def test_a_request_is_classified_by_its_method(
    method: str, params: object, access: Access, kind: str, target: str
) -> None:
    """Access and target come from the table; a missing target is left to the server."""
    envelope = read(call(method, params))
    assert envelope.messages == (Message(Kind.REQUEST, method, 7, access, kind, target),)
    assert envelope.first is envelope.messages[0]
    assert not envelope.batch


def test_a_notification_has_no_id_but_its_methods_access() -> None:
    """A tools/call without an id is a notification that may run a tool all the same."""
    message = read({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "rm"}}).first
    assert message == Message(Kind.NOTIFICATION, "tools/call", None, Access.EXECUTE, "tool", "rm")
    assert read({"jsonrpc": "2.0", "method": "notifications/initialized"}).first.access is Access.SESSION


@pytest.mark.parametrize(
    "response",
    [
        {"jsonrpc": "2.0", "id": 3, "result": {"id": 4, "method": "x"}},
        {"jsonrpc": "2.0", "id": "s-1", "error": {"code": -1, "message": "no"}},
        {"jsonrpc": "2.0", "id": None, "error": {"code": -1, "message": "no"}},
        {"jsonrpc": "2.0", "error": {"code": -1, "message": "no"}},
    ],
)
def test_a_response_belongs_to_its_session(response: dict[str, Any]) -> None:
    """It has no method and no target, and its id is a request of the server's: nothing to repeat."""
    assert read(response, {"mcp-protocol-version": LEGACY}).first == Message(
        Kind.RESPONSE, "", None, Access.SESSION, "", ""
    )


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("0", 0), ("-7", -7), ('"x"', "x"), ('""', ""), ("9007199254740992", 2**53), ("9007199254740993", None),
        ("18446744073709551617", None), ("-99999999999999999999", None), ("1.0", None), ("-0", 0), ("1e3", None),
    ],
)  # fmt: skip
def test_an_id_passes_but_is_repeated_only_if_that_is_exact(text: str, repeated: object) -> None:
    """J6: ids beyond 2**53 and fractions pass; an answer of ours leaves them out."""
    message = read_envelope(f'{{"jsonrpc":"2.0","id":{text},"method":"ping"}}'.encode(), {}).first
    assert (message.kind, message.id) == (Kind.REQUEST, repeated)


# --- JSON that two parsers could read differently (J) ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "known_id"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/list","method":"tools/call"}', None),
        (b'{"jsonrpc":"2.0","id":7,"id":8,"method":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","\\u006dethod":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","x":1,"x":1}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","Method":"tools/call"}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","method\\u0000":"tools/call"}', None),
        (b'{"jsonrpc":"2.0","id":7,"METHOD":"ping"}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","RESULT":{}}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{},"param\xc5\xbf":{"name":"x"}}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","name":"b"}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","Name":"b"}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","name ":"b"}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{},"arguments":1}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{"uri":"a","URI":"b"}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"tasks/get","params":{"tas\xe2\x84\xaaId":"a"}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"_meta":{"a":1,"a":2}}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"_meta":{},"_Meta":{}}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"a","params":{"_meta":{"IO.modelcontextprotocol/protocolVersion":1}}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","NAME":1}}}', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"completion/complete","params":{"ref":{"type":"a","type":"b"}}}', 7),
        (b'[{"jsonrpc":"2.0","id":7,"method":"ping"},{"jsonrpc":"2.0","id":8,"method":"ping","ID":9}]', None),
    ],
    ids=lambda value: value[32:].decode() if isinstance(value, bytes) else str(value),
)  # fmt: skip
def test_names_that_can_be_misread_are_refused(body: bytes, known_id: object) -> None:
    """J1 to J3: anywhere we or a server decide; the id is repeated once it is certain."""
    refused = refusal(body)
    assert type(refused) is InvalidRequest
    assert refused.request_id == known_id


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"q":1,"q":2,"Name":"b"}}}',
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"\\u0000":"\\u0000"}}}',
        b'{"__proto__":{},"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","constructor":1}}',
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","_meta":{"com.acme/Name":1,"ID":2}}}',
    ],
)
def test_what_nobody_decides_on_passes(body: bytes) -> None:
    """Arguments may hold what they like, and vendors their own members (J11, J12)."""
    assert read_envelope(body, {}).first.target == "a"


def test_a_parse_error_has_no_id() -> None:
    """J4, J9: nothing of a body that is no JSON is believed."""
    refused = refusal(b'{"jsonrpc":"2.0","id":7,"method":"ping"}x')
    assert type(refused) is ParseError
    assert refused.request_id is None


PROTOCOL_KEYS = ["jsonrpc", "id", "method", "params", "name", "uri", "taskId", "ref", "type", "_meta", VERSION_KEY]
ODD_KEYS = [
    "Method", "METHOD", "method\u0000", "name ", "Name", "na\u200dme", "URI", "u\u0131d", "taskid", "Id", "\u0131d",
    "param\u017f", "\uff4eame", "x", "arguments", "Arguments", "result", "Error", VERSION_KEY.upper(), "_META", "Ref",
]  # fmt: skip
WORDS = [
    "2.0",
    "tools/call",
    "tools/list",
    "completion/complete",
    "resources/read",
    "a",
    "b",
    "ref/prompt",
    MODERN,
    "1",
]
MEMBERS = st.deferred(
    lambda: st.lists(
        st.tuples(
            st.one_of(st.sampled_from(PROTOCOL_KEYS), st.sampled_from(ODD_KEYS)),
            st.one_of(st.sampled_from(WORDS), st.none(), st.integers(0, 3), MEMBERS),
        ),
        max_size=4,
    )
)


@st.composite
def documents(draw: st.DrawFn) -> list[tuple[str, Any]]:
    """A tools/call, as pairs, with members of every object added, repeated or replaced at random."""
    reference = [("type", draw(st.sampled_from(["ref/prompt", "ref/resource"]))), *draw(MEMBERS)]
    meta = draw(st.sampled_from([[], [(VERSION_KEY, LEGACY)], [("progressToken", 1)]])) + draw(MEMBERS)
    params = [("name", "safe"), ("arguments", draw(MEMBERS)), ("_meta", meta), ("ref", reference), *draw(MEMBERS)]
    method = draw(st.sampled_from(["tools/call", "completion/complete", "resources/read", "tasks/get"]))
    top = [("jsonrpc", "2.0"), ("id", 7), ("method", method), ("params", params), *draw(MEMBERS)]
    return draw(st.permutations(top))


def text(value: Any) -> str:
    """JSON text of nested pairs."""
    if isinstance(value, list):
        return "{" + ", ".join(f"{json.dumps(key)}: {text(item)}" for key, item in value) + "}"
    return json.dumps(value)


def parser(fold: Any, last: bool) -> Any:
    """A server's JSON parser: how it compares keys, and whether the last or the first of equal keys counts."""

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {fold(key): value for key, value in (pairs if last else reversed(pairs))}

    return fold, lambda body: json.loads(body, object_pairs_hook=collect)


FOLDS = [
    str,
    str.lower,
    str.casefold,
    lambda key: key.upper().lower(),
    lambda key: key.split("\u0000")[0],
    lambda key: re.sub(r"[\s\u200b-\u200d\x00]", "", key).lower(),
]
PARSERS = [parser(fold, last) for fold in FOLDS for last in (True, False)]


#: Where each method of `documents` has its target.
TARGETS = {"tools/call": ("name",), "resources/read": ("uri",), "tasks/get": ("taskId",)}
REFERENCES = {"ref/prompt": ("ref", "name"), "ref/resource": ("ref", "uri")}


def seen_by(fold: Any, load: Any, body: str) -> tuple[Any, ...]:
    """What a server with that parser acts on: method, id, target and revision."""

    def member(value: Any, *path: str) -> Any:
        for key in path:
            value = value.get(fold(key)) if isinstance(value, dict) else None
        return value

    document = load(body)
    method, params = member(document, "method"), member(document, "params")
    path = TARGETS.get(method) or REFERENCES.get(member(params, "ref", "type"), ("ref", "type"))
    target, revision = member(params, *path), member(params, "_meta", VERSION_KEY)
    named = target if path[-1] != "type" else None
    # a revision that is no text is unknown to every server, whatever stands in it
    return (
        member(document, "jsonrpc"),
        member(document, "id"),
        method,
        named,
        revision if isinstance(revision, str) else "",
    )


@given(documents())
@settings(deadline=None, max_examples=300)
def test_every_server_sees_what_we_see(document: list[tuple[str, Any]]) -> None:
    """If a body is accepted, parsers that differ in every way known to us read the same method, id and target."""
    body = text(document)
    try:
        message = read_envelope(body.encode(), {}).first
    except (InvalidRequest, HeaderMismatch):
        return
    views = [seen_by(fold, load, body) for fold, load in PARSERS]
    assert all(view == views[0] for view in views)
    assert (message.method, message.id, message.target) == (views[0][2], views[0][1], views[0][3] or "")


# --- the JSON-RPC frame (R) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "known_id"),
    [
        ("text", None), (None, None), (7, None), (True, None), ({}, None),
        ({"id": 7, "method": "ping"}, 7),
        ({"jsonrpc": "1.0", "id": 7, "method": "ping"}, 7),
        ({"jsonrpc": 2, "id": 7, "method": "ping"}, 7),
        ({"jsonrpc": "2.0 ", "id": 7, "method": "ping"}, 7),
        (call("ping", id=None), None),
        (call("ping", id={}), None),
        (call("ping", id=[1]), None),
        (call("ping", id=True), None),
        (call("ping", id="x" * 1025), None),
        (call("", {}), 7),
        (call("x" * 257), 7),
        (call("ping\r\n"), 7),
        (call("tools/call\u0000"), 7),
        ({"jsonrpc": "2.0", "id": 7, "method": None}, 7),
        ({"jsonrpc": "2.0", "id": 7, "method": ["ping"]}, 7),
        ({"jsonrpc": "2.0", "id": 7, "method": 1}, 7),
        (call("tools/call", []), 7),
        (call("tools/call", "name"), 7),
        (call("tools/call", ["search"]), 7),
        (call("tools/call", 1), 7),
        (call("tools/call", False), 7),
        (call("notifications/initialized"), 7),
        (call("notifications/unknown"), 7),
        (call("ping", result={}), 7),
        (call("ping", error={}), 7),
        ({"jsonrpc": "2.0", "id": 7}, None),
        ({"jsonrpc": "2.0", "id": 7, "result": {}, "error": {}}, None),
        ({"jsonrpc": "2.0", "result": {}}, None),
        ({"jsonrpc": "2.0", "id": None, "result": {}}, None),
        ({"jsonrpc": "2.0", "id": [], "error": {}}, None),
        (call("tools/call", {"name": "a\u0000b"}), 7),
        (call("tools/call", {"name": "a\nb"}), 7),
        (call("tools/call", {"name": 5}), 7),
        (call("tools/call", {"name": ["a"]}), 7),
        (call("tools/call", {"name": False}), 7),
        (call("resources/read", {"uri": "file:///\u0085"}), 7),
        (call("resources/read", {"uri": "x" * 65_537}), 7),
        (call("tasks/get", {"taskId": 1}), 7),
        (call("completion/complete", {"ref": []}), 7),
        (call("completion/complete", {"ref": {"type": 1, "name": "a"}}), 7),
        (call("completion/complete", {"ref": {"type": "ref/prompt", "name": {}}}), 7),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else str(value),
)  # fmt: skip
def test_what_is_no_plain_message_is_refused(body: object, known_id: object) -> None:
    """R1 to R8 and J11: 400, -32600, with the id if it is one."""
    refused = refusal(body if body is not None else b"null")
    assert type(refused) is InvalidRequest
    assert refused.request_id == known_id


@pytest.mark.parametrize(
    "document",
    [
        {"jsonrpc": "2.0", "id": 7, "method": "ping", "params": None},
        call("ping", {"_meta": None}),
        call("ping", {"_meta": []}),
        call("tools/call", {"name": "👩\u200d💻 tool\U0001fae8"}),
        call("acme/Wörk it"),
        call("ping", id="x" * 1024),
        call("ping", extra=1),
    ],
)
def test_what_is_odd_but_certain_passes(document: dict[str, Any]) -> None:
    """The server may complain; we have nothing to."""
    assert read(document).first.kind is Kind.REQUEST


def test_a_batch_is_read_element_by_element() -> None:
    """Each element counts as a message of its own, at any legacy revision (several servers run them at all)."""
    items = [call("tools/call", {"name": "a"}), {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "b"}}]
    for fields in ({}, {"mcp-protocol-version": "2025-03-26"}, {"mcp-protocol-version": LEGACY}):
        envelope = read(items, fields)
        assert [(message.kind, message.target) for message in envelope.messages] == [
            (Kind.REQUEST, "a"),
            (Kind.NOTIFICATION, "b"),
        ]
        assert (envelope.batch, envelope.modern) == (True, False)
        assert envelope.revision == fields.get("mcp-protocol-version", "2025-03-26")


@pytest.mark.parametrize(
    ("items", "version"),
    [
        ([], LEGACY),
        ([call("ping")] * (MAX_BATCH + 1), LEGACY),
        ([[call("ping")]], LEGACY),
        ([call("ping"), 1], LEGACY),
        ([call("ping")], MODERN),
        ([call("ping")], "2027-01-01"),
    ],
)
def test_a_batch_that_cannot_be_inspected_is_refused(items: list[Any], version: str) -> None:
    """Empty, too long, nested, or under a revision without batches."""
    assert type(refusal(items, {"mcp-protocol-version": version})) is InvalidRequest


def test_the_longest_batch_passes() -> None:
    """The bound itself is allowed."""
    assert len(read([call("ping")] * MAX_BATCH).messages) == MAX_BATCH


# --- eras and headers (M) -------------------------------------------------------------------------------------------


def test_a_modern_request_names_its_revision_twice() -> None:
    """Header and body agree: modern, and the headers were checked."""
    params = {"name": "search", "arguments": {}, "_meta": META}
    envelope = read(call("tools/call", params), modern_fields("tools/call", mcp_name="search"))
    assert (envelope.modern, envelope.revision, envelope.first.target) == (True, MODERN, "search")


@pytest.mark.parametrize(
    ("method", "params", "fields"),
    [
        ("tools/call", {"name": "danger"}, {"mcp_name": "danger", "mcp_method": "tools/list"}),
        ("tools/call", {"name": "danger"}, {"mcp_name": "safe"}),
        ("tools/call", {"name": "danger"}, {"mcp_name": "danger, danger"}),
        ("tools/call", {"name": "danger"}, {"mcp_name": "safe, danger"}),
        ("tools/call", {"name": "danger"}, {}),
        ("tools/call", {"name": "danger"}, {"mcp_name": ""}),
        ("tools/call", {}, {"mcp_name": "safe"}),
        ("tools/call", {"name": "foo"}, {"mcp_name": "=?base64?Zm8?="}),
        ("tools/call", {"name": "foo"}, {"mcp_name": "=?base64?Zm9v!?="}),
        ("tools/call", {"name": "foo"}, {"mcp_name": "=?BASE64?Zm9v?="}),
        ("tools/call", {"name": "foo"}, {"mcp_name": "=?base64?gA==?="}),
        ("tools/call", {"name": "foo"}, {"mcp_name": "=?base64?DQpmb28=?="}),
        ("tools/call", {"name": "é"}, {"mcp_name": "é"}),
        ("prompts/get", {"name": "p"}, {}),
        ("resources/read", {"uri": "a:b"}, {"mcp_name": "a:c"}),
        ("tasks/get", {"taskId": "t1"}, {"mcp_name": "t2"}),
        ("tasks/cancel", {"taskId": "t1"}, {"mcp_name": "T1"}),
        ("tools/list", {}, {"mcp_method": "TOOLS/LIST"}),
        ("tools/list", {}, {"mcp_method": "tools/list, tools/list"}),
        ("tools/list", {}, {"mcp_method": "=?base64?dG9vbHMvbGlzdA==?="}),
        ("tools/list", {}, {"mcp_method": ""}),
        ("tools/list", {"_meta": {**META, VERSION_KEY: "2025-11-25"}}, {}),
        ("tools/list", {"_meta": {**META, VERSION_KEY: "v999.0.0"}}, {}),
        ("tools/list", {"_meta": {**META, VERSION_KEY: None}}, {}),
        ("tools/list", {"_meta": {**META, VERSION_KEY: [MODERN]}}, {}),
        ("tools/list", {}, {"mcp_protocol_version": LEGACY}),
        ("tools/list", {}, {"mcp_protocol_version": "2027-01-01"}),
        ("tools/list", {}, {"mcp_protocol_version": ""}),
        ("tools/list", {}, {"mcp_protocol_version": f"{MODERN}, {MODERN}"}),
    ],
)
def test_modern_headers_that_disagree_are_refused(method: str, params: dict[str, Any], fields: dict[str, str]) -> None:
    """M1 to M7: 400, -32020, with the request's id."""
    refused = refusal(call(method, {"_meta": META, **params}), modern_fields(method, **fields))
    assert type(refused) is HeaderMismatch
    assert refused.request_id == 7


def test_a_modern_request_without_its_method_header_is_refused() -> None:
    """M3: `Mcp-Method` is required; so is the version header over a modern body, alone or in a batch."""
    request = call("tools/list", {"_meta": META})
    assert type(refusal(request, {"mcp-protocol-version": MODERN})) is HeaderMismatch
    assert type(refusal(request, {"mcp-method": "tools/list"})) is HeaderMismatch
    assert type(refusal([call("ping"), request])) is HeaderMismatch


@pytest.mark.parametrize(
    ("method", "params", "fields"),
    [
        ("tools/call", {"name": "foo"}, {"mcp_name": " \tfoo "}),
        ("tools/call", {"name": "foo"}, {"mcp_name": "=?base64?Zm9v?="}),
        ("tools/call", {"name": " é"}, {"mcp_name": "=?base64?IMOp?="}),
        ("tools/call", {"name": "=?base64?Zm9v"}, {"mcp_name": "=?base64?Zm9v"}),
        ("tools/call", {"name": "foo"}, {"mcp_name": "foo", "mcp_param_x": "anything, =?base64?!?="}),
        ("tools/call", {}, {}),
        ("tools/list", {}, {"mcp_name": "means nothing here"}),
        ("tools/list", {}, {"mcp_method": " tools/list\t", "mcp_protocol_version": f" {MODERN}\t"}),
        ("acme/other", {"name": "x"}, {"mcp_name": "y"}),
        ("tasks/get", {"taskId": "t1"}, {"mcp_name": "t1"}),
        ("tasks/get", {"taskId": "t1"}, {}),
        ("tasks/result", {"taskId": "t1"}, {"mcp_name": "t2"}),
        ("server/discover", {}, {"mcp_session_id": "ignored"}),
    ],
)
def test_modern_headers_that_agree_pass(method: str, params: dict[str, Any], fields: dict[str, str]) -> None:
    """M2b, M4, M5, M9: encoded or not, with blanks around, and whatever else is in fields that are not compared."""
    assert read(call(method, {"_meta": META, **params}), modern_fields(method, **fields)).modern


@pytest.mark.parametrize(
    ("version", "meta"),
    [
        (MODERN, None),
        (MODERN, {}),
        (MODERN, []),
        (MODERN, {CAPABILITIES_KEY: {}}),
        ("v999.0.0", {VERSION_KEY: "v999.0.0", CAPABILITIES_KEY: {}}),
        ("v999.0.0", {}),
        ("2027-01-01", {VERSION_KEY: "2027-01-01"}),
    ],
)
def test_what_a_modern_server_answers_itself_passes(version: str, meta: object) -> None:
    """No `_meta` (-32602) and an unknown revision (-32022) are not ours to answer, unless headers deny the body."""
    fields = modern_fields("server/discover") | {"mcp-protocol-version": version}
    envelope = read(call("server/discover", {"_meta": meta}), fields)
    assert (envelope.modern, envelope.revision) == (False, MODERN if version == MODERN else "")
    request = call("tools/call", {"_meta": meta, "name": "danger"})
    for wrong in ({"mcp-method": "tools/list"}, {"mcp-method": "tools/call", "mcp-name": "safe"}):
        assert type(refusal(request, {**fields, **wrong})) is HeaderMismatch


@pytest.mark.parametrize("declared", [f"{LEGACY}, {MODERN}", f"{MODERN}, {LEGACY}", f"{LEGACY}, {LEGACY}"])
def test_a_repeated_version_header_is_refused(declared: str) -> None:
    """Servers that read the first and the last would disagree on the era, even over a body that names no revision."""
    assert type(refusal(call("tools/call", {"name": "a"}), {"mcp-protocol-version": declared})) is HeaderMismatch


def test_modern_notifications_need_no_mirrors_but_no_wrong_ones_either() -> None:
    """The revision leaves their headers undefined; one that contradicts the body is still a contradiction."""
    notification = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    assert read(notification, {"mcp-protocol-version": MODERN}).modern
    assert type(refusal(notification, modern_fields("tools/list"))) is HeaderMismatch
    other = {**notification, "params": {"_meta": {VERSION_KEY: "v1"}}}
    assert type(refusal(other, {"mcp-protocol-version": MODERN})) is HeaderMismatch


def test_a_modern_client_sends_no_responses() -> None:
    """R5: servers make no requests in 2026-07-28, so there is nothing to respond to."""
    response = {"jsonrpc": "2.0", "id": 1, "result": {}}
    refused = refusal(response, {"mcp-protocol-version": MODERN})
    assert type(refused) is InvalidRequest
    assert refused.request_id is None
    assert read(response, {"mcp-protocol-version": "2027-01-01"}).first.kind is Kind.RESPONSE


@pytest.mark.parametrize("version", [None, "2024-11-05", "2025-03-26", "2025-06-18", LEGACY])
def test_legacy_traffic_is_classified_by_its_body_alone(version: str | None) -> None:
    """M8: `Mcp-*` fields mean nothing before 2026-07-28; they are neither believed nor held against the client."""
    fields = {"mcp-method": "tools/list", "mcp-name": "=?base64?!?="}
    if version is not None:
        fields["mcp-protocol-version"] = version
    envelope = read(call("tools/call", {"name": "danger", "_meta": {VERSION_KEY: LEGACY}}), fields)
    assert (envelope.first.method, envelope.first.target) == ("tools/call", "danger")
    assert (envelope.modern, envelope.revision) == (False, version or "2025-03-26")


@pytest.mark.parametrize(
    ("params", "revision"),
    [
        ({"protocolVersion": "2024-11-05"}, "2024-11-05"),
        ({"protocolVersion": LEGACY}, LEGACY),
        ({"protocolVersion": MODERN}, "2025-03-26"),
        ({"protocolVersion": "v1"}, "2025-03-26"),
        ({"protocolVersion": [LEGACY]}, "2025-03-26"),
        ({}, "2025-03-26"),
    ],
)
def test_initialize_is_of_the_revision_it_proposes(params: dict[str, Any], revision: str) -> None:
    """It comes before the header does; otherwise its session would be routed by one revision and opened by another."""
    assert read(call("initialize", params)).revision == revision
    assert read(call("ping", params)).revision == "2025-03-26"
    assert read(call("initialize", params), {"mcp-protocol-version": "2025-06-18"}).revision == "2025-06-18"


VERSIONS: list[Any] = ["absent", None, 5, "2025-11-25", MODERN, "v999.0.0"]
METHOD_HEADERS = [None, "right", "wrong"]
NAME_HEADERS = [None, "search", "=?base64?c2VhcmNo?=", "other", "=?base64?!?="]


@pytest.mark.parametrize("declared", [MODERN, "v999.0.0", "2027-01-01"])
@pytest.mark.parametrize("method", ["tools/call", "tools/list"])
def test_we_are_never_stricter_than_the_reference_server(declared: str, method: str) -> None:
    """Over every combination of defects: what mcp 2.3.0 serves is modern here, what is refused here it refuses too,
    and what passes in spite of a defect holds no header that contradicts the body."""
    refused = 0
    for version, capable, method_header, name in itertools.product(
        VERSIONS, (True, False), METHOD_HEADERS, NAME_HEADERS
    ):
        meta = {
            **({} if version == "absent" else {VERSION_KEY: version}),
            **({CAPABILITIES_KEY: {}} if capable else {}),
        }
        document = call(method, {"name": "search", "_meta": meta})
        fields = {"mcp-protocol-version": declared}
        if method_header is not None:
            fields["mcp-method"] = method if method_header == "right" else "ping"
        if name is not None:
            fields["mcp-name"] = name
        verdict = classify_inbound_request(document, headers=fields)
        try:
            envelope = read(document, fields)
        except HeaderMismatch:
            refused += 1
            assert not isinstance(verdict, InboundModernRoute)
            continue
        if isinstance(verdict, InboundModernRoute):
            assert envelope.modern
        assert method_header != "wrong"
        assert method != "tools/call" or name in (None, "search", "=?base64?c2VhcmNo?=")
        assert version in ("absent", declared)
    assert refused > 100


# --- cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool) -> None:
    """It is paused for large bodies only, and comes back whatever happens."""
    large = call("tools/call", {"name": "a", "arguments": {"text": "x" * 100_000}})
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        read(large)
        assert gc.isenabled() is enabled
        refusal({**large, "jsonrpc": "1.0"})
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()

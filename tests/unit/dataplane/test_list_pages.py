"""An answer becomes the pages that were asked for, whatever form it has; anything else teaches nothing."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import orjson
import pytest

from proxy.dataplane import list_pages
from proxy.dataplane.list_pages import Lesson, Page, pages_of
from proxy.identity.access import Server

TOOLS = [{"name": "echo"}, {"name": "add"}]
ASK = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ANSWER = {"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}
PAGE = Page("tool", TOOLS, None, None)


def lesson(answer: Any, request: Any = ASK, content_type: str = "application/json", coding: str = "") -> Lesson:
    """An answer, as bytes or as a document, in two pieces."""
    body = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    half = len(body) // 2
    return Lesson("up", Server("up"), orjson.dumps(request), content_type, coding, [body[:half], body[half:]])


def event(document: Any, line_end: bytes = b"\n") -> bytes:
    return b"event: message" + line_end + b"data: " + orjson.dumps(document) + line_end * 2


@pytest.mark.parametrize(
    ("method", "kind", "member"),
    [
        ("tools/list", "tool", "tools"), ("prompts/list", "prompt", "prompts"),
        ("resources/list", "resource", "resources"), ("resources/templates/list", "template", "resourceTemplates"),
    ],
)  # fmt: skip
def test_each_list_is_read(method: str, kind: str, member: str) -> None:
    """By its method; modern results have more members."""
    answer = {"jsonrpc": "2.0", "id": "a", "result": {member: TOOLS, "ttlMs": 5, "resultType": "complete"}}
    assert pages_of(lesson(answer, ASK | {"id": "a", "method": method})) == [Page(kind, TOOLS, None, None)]


def test_a_page_says_where_it_begins_and_where_the_list_goes_on() -> None:
    """In whatever type the server writes it; an empty cursor is one."""
    request = ASK | {"params": {"cursor": "p2"}}
    for given, read in (("p3", "p3"), (3, "3"), ("", "")):
        answer = ANSWER | {"result": {"tools": TOOLS, "nextCursor": given}}
        assert pages_of(lesson(answer, request)) == [Page("tool", TOOLS, "p2", read)]


@pytest.mark.parametrize("params", [{}, [], None, {"cursor": None}])
def test_parameters_without_a_cursor(params: object) -> None:
    """The list begins at the beginning."""
    assert pages_of(lesson(ANSWER, ASK | {"params": params})) == [PAGE]


def test_a_batch_is_matched_by_ids() -> None:
    """In any order; `1` and `"1"` are two ids; answers to other requests are passed over."""
    request = [
        ASK, ASK | {"id": "1", "method": "prompts/list"}, ASK | {"id": 2, "method": "tools/call"},
        {"jsonrpc": "2.0", "method": "tools/list"}, {"jsonrpc": "2.0", "id": 9, "result": {}},
    ]  # fmt: skip
    answer = [
        {"id": 2, "result": {"tools": TOOLS}}, {"id": "1", "result": {"prompts": []}}, ANSWER,
        {"id": None, "result": {"tools": TOOLS}}, {"method": "notifications/message"}, 7,
    ]  # fmt: skip
    assert pages_of(lesson(answer, request)) == [Page("prompt", [], None, None), PAGE]


@pytest.mark.parametrize(
    "answer",
    [
        {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}},
        ANSWER | {"id": 2}, ANSWER | {"id": [1]}, ANSWER | {"result": []}, ANSWER | {"result": {"tools": {}}},
        ANSWER | {"result": {"prompts": TOOLS}}, [], "text", None,
    ],
)  # fmt: skip
def test_what_is_no_list_teaches_nothing(answer: object) -> None:
    """Errors, other results, other ids."""
    assert pages_of(lesson(answer)) == []


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_events_are_read(line_end: bytes) -> None:
    """Notifications before the answer, comments, other types and other text are passed over."""
    body = line_end.join(
        [
            b"\xef\xbb\xbf: hello", b"", b"event: endpoint", b"data: /x", b"", b"data: ping", b"", b"id: 1", b"data:",
            b"", event({"jsonrpc": "2.0", "method": "notifications/progress"}, line_end) + event(ANSWER, line_end),
        ]
    )  # fmt: skip
    assert pages_of(lesson(body, content_type="text/event-stream; charset=utf-8")) == [PAGE]


def test_a_mark_before_the_first_event_is_none_of_it() -> None:
    """A byte order mark, which the format allows."""
    assert pages_of(lesson(b"\xef\xbb\xbf" + event(ANSWER)[15:], content_type="text/event-stream")) == [PAGE]


def test_a_message_on_several_lines_is_one() -> None:
    """Joined by line ends, which JSON does not mind."""
    text = orjson.dumps(ANSWER).replace(b',"', b',\n"')
    body = b"".join(b"data: " + line + b"\n" for line in text.split(b"\n")) + b"\n"
    assert body.count(b"data:") == 3
    assert pages_of(lesson(body, content_type="text/event-stream")) == [PAGE]


def raw_deflate(body: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(body) + coder.flush()


@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate),
     ("identity", bytes), ("", bytes)],
)  # fmt: skip
def test_compressed_answers_are_read(coding: str, compress: Any) -> None:
    """Both forms of `deflate` that are about."""
    assert coding in list_pages.CODINGS
    assert pages_of(lesson(compress(orjson.dumps(ANSWER)), coding=coding)) == [PAGE]


@pytest.mark.parametrize(
    "bad",
    [
        lesson(b""), lesson(b"{"), lesson(orjson.dumps(ANSWER) + b"x"), lesson(b"plain", coding="gzip"),
        lesson(gzip.compress(orjson.dumps(ANSWER))[:-9], coding="gzip"),
        lesson(gzip.compress(b" " * (list_pages.MAX_PLAIN_BYTES + 1)), coding="gzip"),
    ],
    ids=["empty", "half", "more", "not compressed", "half compressed", "bomb"],
)  # fmt: skip
def test_what_cannot_be_read_is_said_so(bad: Lesson) -> None:
    """A ValueError, whatever is wrong."""
    with pytest.raises(ValueError, match=r"."):
        pages_of(bad)

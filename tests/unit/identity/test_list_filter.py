"""Lists without what a principal may not use: items are cut out, every other byte stays."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailed
from proxy.identity.list_filter import MAX_BYTES, METHODS, EventFilter, filter_event, filter_json


def keep(kind: str, name: str) -> bool:
    """Everything but what is called secret."""
    return "secret" not in name and kind in ("tool", "prompt", "resource", "template")


def answer(result: object, **members: object) -> dict[str, Any]:
    """A response with id 7."""
    return {"jsonrpc": "2.0", "id": 7, "result": result, **members}


def filtered(document: object) -> Any:
    """The document after filtering, through bytes and back."""
    return json.loads(filter_json(json.dumps(document).encode(), keep))


@pytest.mark.parametrize(
    ("member", "field"),
    [("tools", "name"), ("prompts", "name"), ("resources", "uri"), ("resourceTemplates", "uriTemplate")],
)
def test_each_list_loses_what_may_not_be_used(member: str, field: str) -> None:
    """By the member that names the item; the order stays."""
    names = ["a", "secret_1", "b", "my_secret", "c"]
    result = {member: [{field: name, "title": "x"} for name in names], "nextCursor": "secret"}
    assert filtered(answer(result))["result"] == {
        member: [{field: name, "title": "x"} for name in "abc"],
        "nextCursor": "secret",
    }


def test_the_predicate_is_asked_with_kind_and_name() -> None:
    """Once for each item."""
    asked = []
    body = json.dumps(
        answer(
            {
                "tools": [{"name": "t"}],
                "prompts": [{"name": "p"}],
                "resources": [{"uri": "file:///r", "name": "n"}],
                "resourceTemplates": [{"uriTemplate": "file:///{x}", "name": "n"}],
            }
        )
    ).encode()
    assert filter_json(body, lambda kind, name: not asked.append((kind, name))) == body
    assert asked == [("tool", "t"), ("prompt", "p"), ("resource", "file:///r"), ("template", "file:///{x}")]


def test_every_list_of_the_protocol_is_meant() -> None:
    """Those whose items a server names."""
    assert {"tools/list", "prompts/list", "resources/list", "resources/templates/list"} == METHODS


def test_every_other_byte_stays() -> None:
    """Spaces, number forms, escapes, members nobody knows, repeats elsewhere."""
    body = (
        '\n{ "id":1.0e2 ,"x":{"tools":[{"name":"secret"}]},"result": {"a":1E400,"big":123456789012345678901234567890,'
        '"tools" : [ {"name":"a","n":1.10} , {"name":"secret"},{"name":"\\u0062","k":1,"k":2} ] ,"é":"\\/"},'
        '"jsonrpc":"2.0"}\r\n'
    )
    wanted = body.replace('[ {"name":"a","n":1.10} , {"name":"secret"},{', '[{"name":"a","n":1.10},{').replace(
        "2} ]", "2}]"
    )
    assert filter_json(body.encode(), keep).decode() == wanted


@given(st.text(max_size=20), st.integers(), st.lists(st.sampled_from(["a", "b", "secret"]), max_size=6))
def test_a_legacy_list_that_loses_nothing_is_the_same_bytes(text: str, number: int, names: list[str]) -> None:
    """And one that loses something is the list without it."""
    document = answer({"tools": [{"name": name, "d": text} for name in names], "n": number})
    body = json.dumps(document, ensure_ascii=False).encode()
    changed = filter_json(body, keep)
    if "secret" not in names:
        assert changed == body
    document["result"]["tools"] = [item for item in document["result"]["tools"] if item["name"] != "secret"]
    assert json.loads(changed) == document


def test_a_modern_list_becomes_private() -> None:
    """Whatever it said, also when nothing was removed: another principal would see another list."""
    for scope in ({"cacheScope": "public"}, {"cacheScope": "private"}, {"cacheScope": 7}, {}):
        result = {"resultType": "complete", "ttlMs": 5000, "tools": [{"name": "a"}], **scope}
        changed = filter_json(json.dumps(answer(result)).encode(), keep)
        assert json.loads(changed)["result"] == {**result, "cacheScope": "private"}
        assert changed.count(b"cacheScope") == 1


def test_a_legacy_list_gets_no_new_member() -> None:
    """Its schema knows none."""
    assert filtered(answer({"tools": []})) == answer({"tools": []})


def test_other_results_stay_as_they_are() -> None:
    """Calls, errors, requests and notifications, also with members that are called like a list."""
    for document in (
        answer({"content": [{"type": "text", "text": "secret"}], "cacheScope": "public", "ttlMs": 1}),
        answer([{"name": "secret"}]),
        answer(None),
        {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "secret", "data": {"tools": [{"name": "secret"}]}}},
        {"jsonrpc": "2.0", "method": "x", "params": {"tools": [{"name": "secret"}]}},
        [],
        7,
    ):
        body = json.dumps(document).encode()
        assert filter_json(body, keep) == body


def test_every_message_of_a_batch_is_filtered() -> None:
    """Each by its own result."""
    batch = [answer({"tools": [{"name": "secret"}]}), answer({"x": 1}), 7, answer({"prompts": [{"name": "secret"}]})]
    assert filtered(batch) == [answer({"tools": []}), answer({"x": 1}), 7, answer({"prompts": []})]


@pytest.mark.parametrize(
    "item",
    ['{"name":"secret","name":"a"}', '{"name":"a","name":"secret"}', '{"name":"a","n\\u0061me":"secret"}', "{}", "null",
     '"a"', '{"name":7}', '{"name":null}', "[]", '{"Name":"a"}', '{"title":"a"}'],
)  # fmt: skip
def test_an_item_that_could_be_read_in_two_ways_goes(item: str) -> None:
    """So does one without a name."""
    body = f'{{"result":{{"tools":[{item},{{"name":"a"}}]}}}}'.encode()
    assert json.loads(filter_json(body, keep)) == {"result": {"tools": [{"name": "a"}]}}


def test_names_inside_an_item_are_not_its_own() -> None:
    """A property of its schema may be called `name`, too."""
    body = b'{"result":{"tools":[{"inputSchema":{"properties":{"name":{"type":"secret"}}},"name":"a"}]}}'
    assert filter_json(body, keep) == body


def test_a_result_or_a_list_that_stands_twice_is_filtered_twice() -> None:
    """Whichever the client reads."""
    secret = '{"tools":[{"name":"secret"}],"tools":[{"name":"secret"}]}'
    body = f'{{"result":{secret},"result":{secret}}}'.encode()
    assert filter_json(body, keep) == b'{"result":{"tools":[],"tools":[]},"result":{"tools":[],"tools":[]}}'


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{}x", b'{"result":{"tools":[}}', b"\xff", b'{"a":"\xff"}', b"\xef\xbb\xbf{}", b"[" * 100_000]
)
def test_what_is_no_json_never_passes(body: bytes) -> None:
    """An unfiltered list would."""
    with pytest.raises(UpstreamFailed):
        filter_json(body, keep)


def test_a_list_beyond_the_bound_never_passes() -> None:
    """As a body and as an event that does not end."""
    assert filter_json(b"{}" + b" " * (MAX_BYTES - 2), keep)
    with pytest.raises(UpstreamFailed):
        filter_json(b"{}" + b" " * MAX_BYTES, keep)
    stream = EventFilter(keep, limit=100)
    with pytest.raises(UpstreamFailed):
        stream.feed(b"data: " + b"x" * 100)


SECRET_LIST = b'{"result":{"tools":[{"name":"a"},{"name":"secret"}]}}'
OPEN_LIST = b'{"result":{"tools":[{"name":"a"}]}}'
OPEN_EVENT = b"data: " + OPEN_LIST + b"\n\n"


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (b"data: " + SECRET_LIST + b"\n\n", OPEN_EVENT),
        (
            b"event: message\nid: 7\ndata:" + SECRET_LIST + b"\n\n",
            b"event: message\nid: 7\ndata: " + OPEN_LIST + b"\n\n",
        ),
        (b": hi\r\ndata: " + SECRET_LIST + b"\r\nid: 1\r\n\r\n", b": hi\r\ndata: " + OPEN_LIST + b"\r\nid: 1\r\n\r\n"),
        (b"data: " + SECRET_LIST[:20] + b"\rid: 1\rdata: " + SECRET_LIST[20:] + b"\r\r", None),
        (b"data: " + SECRET_LIST, b"data: " + OPEN_LIST + b"\n"),
        (b"\ndata: " + SECRET_LIST + b"\n\n", b"\ndata: " + OPEN_LIST + b"\n\n"),
    ],
    ids=["plain", "id and type", "comment, CRLF", "two lines, CR", "unfinished", "LF left of a CRLF"],
)
def test_the_list_in_an_event_is_filtered(event: bytes, wanted: bytes | None) -> None:
    """Whatever stands around it."""
    changed = filter_event(event, keep)
    assert b"secret" not in changed
    assert wanted is None or changed == wanted


@pytest.mark.parametrize(
    "event",
    [b"data: " + OPEN_LIST + b"\n\n", b": ping\n\n", b"id: 3\ndata: \n\n", b"event: ping\ndata: secret\n\n",
     b"retry: 5\n\n", b"\n", b"", b'data: {"jsonrpc":"2.0",\ndata: "method":"notifications/progress"}\n\n'],
)  # fmt: skip
def test_other_events_pass_byte_for_byte(event: bytes) -> None:
    """Pings, priming events, progress, and lists that lose nothing."""
    assert filter_event(event, keep) == event


def test_a_message_that_is_no_json_ends_the_stream() -> None:
    """It might be a list that only a lenient client can read."""
    with pytest.raises(UpstreamFailed):
        filter_event(b"data: {'tools': 'secret'}\n\n", keep)


def test_a_byte_order_mark_hides_nothing() -> None:
    """Clients take it off the first line of a stream, and of no other."""
    stream = EventFilter(keep)
    passed = stream.feed(b"\xef\xbb\xbfdata: " + SECRET_LIST + b"\n\n")
    assert passed == b"\xef\xbb\xbfdata: " + OPEN_LIST + b"\n\n"
    later = b"\xef\xbb\xbfdata: secret\n\n"
    assert stream.feed(later) == later


EVENTS = [
    b"data: " + SECRET_LIST + b"\n\n",
    b": ping\r\n\r\n",
    b"event: message\rdata: " + SECRET_LIST + b"\r\r",
    b"id: 1\r\ndata: " + SECRET_LIST[:20] + b"\r\ndata: " + SECRET_LIST[20:] + b"\r\n\r\n",
    b"\n",
    b'data: {"method":"x"}\n\n',
]


@given(st.lists(st.sampled_from(EVENTS), max_size=6), st.lists(st.integers(0, 400), max_size=8), st.booleans())
def test_the_pieces_of_a_stream_do_not_matter(events: list[bytes], cuts: list[int], unfinished: bool) -> None:
    """Every event comes out as it does alone, whole ones at once, and nothing stays behind."""
    raw = b"".join(events) + (b"data: " + SECRET_LIST if unfinished else b"")
    bounds = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    stream = EventFilter(keep)
    passed = b"".join(stream.feed(raw[start:end]) for start, end in itertools.pairwise(bounds))
    if not unfinished:
        assert passed.count(b"data") == b"".join(filter_event(event, keep) for event in events).count(b"data")
    passed += stream.finish()
    assert b"secret" not in passed
    rest = filter_event(b"data: " + SECRET_LIST, keep) if unfinished else b""
    assert passed == b"".join(filter_event(event, keep) for event in events) + rest


def test_an_event_leaves_when_its_empty_line_is_there() -> None:
    """Not before, and not later."""
    stream = EventFilter(keep)
    assert stream.feed(b"data: " + SECRET_LIST + b"\n") == b""
    assert stream.feed(b"\ndata:") == b"data: " + OPEN_LIST + b"\n\n"
    assert stream.finish() == b"data:"

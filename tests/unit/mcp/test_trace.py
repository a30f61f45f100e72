"""W3C trace context in headers and messages, by the grammar of the recommendation."""

from __future__ import annotations

import re
import timeit

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.mcp.envelope import read_envelope
from proxy.mcp.trace import Trace, parse, trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
VALUE = f"00-{TRACE}-{SPAN}-01"
OTHER = f"00-{TRACE[::-1]}-{SPAN}-00"


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (VALUE, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", True),
    ],
)
def test_what_the_recommendation_allows_is_read(value: str, sampled: bool) -> None:
    """Later versions as if they were the first, section 3.2.2."""
    assert parse(value) == Trace(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "value",
    [
        "", "00", VALUE.upper(), f"{VALUE}-more", f" {VALUE}", f"{VALUE} ", f"ff-{TRACE}-{SPAN}-01", f"{VALUE}\n",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}-{SPAN}-1",
        f"cc-{TRACE}-{SPAN}-01.what", f"{VALUE}, {VALUE}", f"cc-{TRACE}-{SPAN}-01-{'x' * 300}", f"0x-{TRACE}-{SPAN}-01",
    ],
)  # fmt: skip
def test_what_is_malformed_is_as_if_it_were_absent(value: str) -> None:
    """Two headers, too, which come joined by a comma."""
    assert parse(value) is None
    assert trace_of({"traceparent": value}) is None


@given(value=st.one_of(st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True)))
@example(value=VALUE)
def test_any_text_is_read_or_not(value: str) -> None:
    """What is read is sound, and says again what was there."""
    found = parse(value)
    if found is not None:
        assert re.fullmatch("[0-9a-f]{32}", found.trace_id)
        assert int(found.trace_id, 16)
        assert int(found.span_id, 16)
        assert value[3:52] == f"{found.trace_id}-{found.span_id}"


def test_the_header_comes_before_the_message() -> None:
    """It was set on behalf of the message inside; a malformed one hides nothing."""
    assert trace_of({"traceparent": VALUE}, OTHER) == Trace(TRACE, SPAN, True)
    assert trace_of({}, OTHER) == Trace(TRACE[::-1], SPAN, False)
    assert trace_of({"traceparent": "x"}, OTHER) == Trace(TRACE[::-1], SPAN, False)
    assert trace_of({}, "x") is None
    assert trace_of({}) is None


@pytest.mark.parametrize("fields", [{}, {"mcp-protocol-version": "2025-11-25"}, {"mcp-protocol-version": "2030-01-01"}])
def test_the_message_states_it_in_its_meta(fields: dict[str, str]) -> None:
    """Text, whatever it says; nothing else, and nowhere else. A batch may have many, so it has none."""
    assert stated({"_meta": {"traceparent": VALUE}}, fields) == VALUE
    for params in ({"_meta": {"traceparent": 7}}, {"_meta": None}, {"traceparent": VALUE}, {"_meta": {}}, {}):
        assert stated(params, fields) == ""
    body = orjson.dumps([{"jsonrpc": "2.0", "method": "x", "params": {"_meta": {"traceparent": VALUE}}}])
    assert read_envelope(body, {}).traceparent == ""


def stated(params: dict[str, object], fields: dict[str, str]) -> str:
    """What the envelope of a call has."""
    body = orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", **params}})
    return read_envelope(body, fields).traceparent


def test_it_costs_nearly_nothing_where_there_is_none() -> None:
    """Less than 0.3 µs on an idle machine."""
    fields = {"host": "x", "content-type": "application/json", "accept": "*/*"}
    assert min(timeit.repeat(lambda: trace_of(fields), number=20_000, repeat=5)) / 20_000 < 1e-6

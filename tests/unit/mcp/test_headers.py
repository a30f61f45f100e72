"""Mcp-* field values: encoding, and when they agree with a body."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import decode_header_value, encode_header_value

from proxy.mcp.headers import agrees, decode


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("search", "search"),
        ("with blank", "with blank"),
        ("", ""),
        ("=?base64?Zm9v?=", "foo"),
        ("=?base64??=", ""),
        ("=?base64?IGZvbyA=?=", " foo "),
        ("=?base64?w6k=?=", "é"),
        ("=?base64?Zm9v", "=?base64?Zm9v"),
        ("Zm9v?=", "Zm9v?="),
        ("=?BASE64?Zm9v?=", "=?BASE64?Zm9v?="),
        ("=?base64?=", "=?base64?="),
        ("=?base64?DQo=?=", "\r\n"),
    ],
)
def test_a_value_stands_for_its_text(value: str, meaning: str) -> None:
    """Both markers, in lower case, make base64; anything else is literal."""
    assert decode(value) == meaning


@pytest.mark.parametrize(
    "value",
    [
        "=?base64?Zm8?=",
        "=?base64?Zm9v=?=",
        "=?base64?Zm9v?Zm9v?=",
        "=?base64?Zm 9v?=",
        "=?base64?Zm-_?=",
        "=?base64?SGVs!!!bG8=?=",
        "=?base64?Zh==?=",
        "=?base64?Zg==Zg==?=",
        "=?base64?é?=",
        "=?base64?gA==?=",
        "=?base64?7aCA?=",
        "café",
    ],
)
def test_a_malformed_value_agrees_with_nothing(value: str) -> None:
    """Bad padding or alphabet, unused bits, bytes that are no UTF-8, and literal text beyond ASCII mean nothing."""
    assert decode(value) is None
    assert not agrees(value, value)


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        ("  name\t", "name", True),
        ("name", " name", False),
        ("=?base64?IG5hbWU=?=", " name", True),
        ("Name", "name", False),
        ("=?base64?Zm9v?=", "=?base64?Zm9v?=", False),
        ("name, name", "name", False),
        ("name\u00a0", "name", False),
        ("", "", True),
    ],
)
def test_agreement_is_exact_but_for_outer_blanks(value: str, expected: str, same: bool) -> None:
    """Blanks around a field value are no part of it; case, repeats and the sentinel itself are."""
    assert agrees(value, expected) is same


@given(st.text())
def test_whatever_the_reference_sdk_sends_agrees(name: str) -> None:
    """A client that encodes as mcp 2.3.0 does is never refused."""
    assert agrees(encode_header_value(name), name)


@given(
    st.one_of(
        st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20)),
        st.text("AZaz09+/=? ").map("=?base64?{}?=".format),
        st.binary(max_size=9).map(lambda raw: f"=?base64?{raw.hex()}?="),
    )
)
def test_decoding_is_that_of_the_reference_sdk(value: str) -> None:
    """Where mcp 2.3.0 reads a value, so do we; where it reads none, neither do we."""
    assert decode(value) == decode_header_value(value)

"""Secrets are found under Base64 and under escapes; what holds none keeps its clothes."""

from __future__ import annotations

from base64 import b64encode, encodebytes

import pytest

from proxy.audit.wrapped import redact_wrapped


def clean(text: str) -> str:
    """Knows one secret, and how it is named."""
    return (
        text.replace('password":"tiger', 'password":"X')
        .replace("password=tiger", "password=X")
        .replace(">tiger<", ">X<")
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"data: {b64encode(b'user=bob&password=tiger').decode()} end", "data: [redacted:base64] end"),
        (encodebytes(b"x" * 90 + b"password=tiger").decode(), "[redacted:base64]\n"),
        ("%7B%22password%22%3A%22tiger%22%7D", '{"password":"X"}'),
        ("&lt;p&gt;tiger&lt;/p&gt;", "<p>X</p>"),
        ("{\\u0022password\\u0022:\\u0022tiger\\u0022}", '{"password":"X"}'),
        ("{\\x22password\\x22:\\x22tiger\\x22}", '{"password":"X"}'),
    ],
)
def test_what_is_under_it_is_found(text: str, kept: str) -> None:
    """Base64 goes as a whole, escapes are taken off."""
    assert redact_wrapped(text, clean) == kept


@pytest.mark.parametrize(
    "text",
    [
        b64encode(b"nothing to hide in here").decode(), b64encode(bytes(range(200))).decode(), "a%22b%3D", "&lt;b&gt;",
        "\\u0022a\\u0022", "/usr/share/documentation/readme", "9fceb02d0ae598e95dc970b74767f19372d61af8", "plain",
    ],
)  # fmt: skip
def test_what_hides_nothing_is_left_as_it_is(text: str) -> None:
    """To the character."""
    assert redact_wrapped(text, clean) == text


def test_what_is_wrapped_twice_is_not_unwrapped_twice() -> None:
    """It is not looked for."""
    twice = b64encode(b64encode(b"user=bob&password=tiger")).decode()
    assert redact_wrapped(twice, clean) == twice

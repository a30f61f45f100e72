"""Single arguments: what they stand for, and what is refused without being repeated."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.commands import values
from proxy.identity.keys import PepperRing, mint

KINDS = (
    values.slug, values.name, values.count, values.positive, values.duration, values.moment, values.key_id,
    values.network, values.address, values.banned, values.origin, values.pattern, values.header, values.option,
    values.text,
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (values.slug, "acme-corp", "acme-corp"),
        (values.count, "0", 0),
        (values.positive, "1", 1),
        (values.duration, "24h", timedelta(hours=24)),
        (values.duration, "0", timedelta(0)),
        (values.moment, "2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        (values.moment, "2027-01-31T12:00+01:00", datetime(2027, 1, 31, 11, tzinfo=UTC)),
        (values.moment, "2027-01-31T12:00Z", datetime(2027, 1, 31, 12, tzinfo=UTC)),
        (values.network, "10.1.2.3", "10.1.2.3/32"),
        (values.network, "::ffff:10.0.0.0/104", "10.0.0.0/8"),
        (values.address, "192.0.2.1", "192.0.2.1"),
        (values.address, "::ffff:192.0.2.1", "192.0.2.1"),
        (values.address, "2001:DB8:1:2:3::4", "2001:db8:1:2::/64"),
        (values.address, "2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        (values.banned, "::1", ("::1", "::/64")),
        (values.banned, "2001:db8::/64", ("2001:db8::", "2001:db8::/64")),
        (values.origin, "https://a.example:8443", "https://a.example:8443"),
        (values.origin, "vscode-webview://x", "vscode-webview://x"),
        (values.pattern, "git*", "git*"),
        (values.header, "Authorization: Bearer ${X}:y", ("Authorization", "Bearer ${X}:y")),
        (values.header, "X-Empty:", ("X-Empty", "")),
        (values.option, "timeouts.connect=5s", (("timeouts", "connect"), "5s")),
        (values.option, "pool.max_connections=5", (("pool", "max_connections"), 5)),
        (values.option, "forwarded=false", (("forwarded",), False)),
        (values.option, "a=b=c", (("a",), "b=c")),
    ],
)
def test_a_value_is_what_it_stands_for(kind: Callable[[str], object], text: str, value: object) -> None:
    """Whatever form it is written in."""
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (values.slug, "planted Slug"),
        (values.slug, "-planted"),
        (values.name, " "),
        (values.text, "planted \udcff"),
        (values.pattern, "planted\udcff*"),
        (values.name, "planted\n"),
        (values.name, "x" * 201),
        (values.count, "-1"),
        (values.count, "planted"),
        (values.count, "9999999999"),
        (values.positive, "0"),
        (values.duration, "planted"),
        (values.duration, "20y"),
        (values.moment, "planted"),
        (values.moment, "99999999d"),
        (values.moment, "0001-01-01T00:00+23:00"),
        (values.network, "planted"),
        (values.network, "10.0.0.1/8"),
        (values.address, "planted.example"),
        (values.address, "192.0.2.0/24"),
        (values.address, "192.0.2.1/64"),
        (values.banned, "planted.example"),
        (values.origin, "https://planted.example/"),
        (values.origin, "https://planted.example/path"),
        (values.origin, "planted"),
        (values.pattern, "*planted"),
        (values.key_id, "mcpm_planted"),
        (values.header, "planted"),
        (values.header, ": planted"),
        (values.option, "planted"),
        (values.option, "timeouts..planted=1"),
    ],
)
def test_what_is_none_is_refused(kind: Callable[[str], object], text: str) -> None:
    """The sentence says what it should be like, and not what was given."""
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        kind(text)
    assert "planted" not in str(refused.value) and str(refused.value)


def test_a_duration_is_counted_from_now() -> None:
    """Where a time is asked for."""
    before = datetime.now(UTC)
    assert before + timedelta(days=30) <= values.moment("30d") <= datetime.now(UTC) + timedelta(days=30)


def test_an_id_is_taken_from_a_whole_key() -> None:
    """And left as it is, if it is one."""
    minted = mint(PepperRing({1: b"a pepper of a test"}))
    assert values.key_id(minted.text) == values.key_id(minted.id) == minted.id
    assert values.key_id("00000000-0000-0000-0000-000000000000") == "00000000-0000-0000-0000-000000000000"


@given(st.sampled_from(KINDS), st.text(max_size=40))
def test_no_argument_is_a_traceback(kind: Callable[[str], object], text: str) -> None:
    """A value, or one kind of error."""
    try:
        kind(text)
    except argparse.ArgumentTypeError as error:
        assert str(error)

"""What the options of `audit` take."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

import pytest

from proxy.commands.audit_arguments import add, past, span
from proxy.commands.console import Misuse


def given(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers(dest="action"))
    return parser.parse_args(arguments)


@pytest.mark.parametrize(("text", "ago"), [("2h", 7200), ("7d ago", 604_800), ("1.5m", 90), ("0s", 0)])
def test_a_duration_is_so_long_ago(text: str, ago: float) -> None:
    """With or without the word."""
    assert abs((datetime.now(UTC) - past(text)).total_seconds() - ago) < 5


def test_a_time_is_iso() -> None:
    """In UTC unless it says otherwise."""
    assert past("2026-11-22T12:00+01:00") == datetime(2026, 11, 22, 11, tzinfo=UTC)
    assert past("2026-11-22") == datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "7 days", "99999999d", "2026-13-01", "-2h", "2h later"])
def test_other_times_are_refused(text: str) -> None:
    """In words that do not repeat them."""
    with pytest.raises(argparse.ArgumentTypeError, match="a duration such as 2h"):
        past(text)


def test_the_range_is_the_last_day_by_default() -> None:
    """And a day before its end when only that is given."""
    since, until = span(given("search"))
    assert until - since == timedelta(days=1)
    assert (datetime.now(UTC) - until).total_seconds() < 5
    since, until = span(given("verify", "--until", "2026-11-22"))
    assert since == datetime(2026, 11, 21, tzinfo=UTC)
    with pytest.raises(Misuse, match="has to be earlier"):
        span(given("verify", "--since", "1h", "--until", "2h"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--limit", "10001"], ["search", "--limit", "0"], ["search", "--request", "x"],
        ["search", "--risk", "none"], ["search", "--tenant", "A B"], ["search", "--server", ""],
        ["export", "--format", "xml"], ["search", "--principal", "a\nb"], ["audit"],
    ],
)  # fmt: skip
def test_misuse_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With code 2."""
    with pytest.raises(SystemExit) as stop:
        given(*arguments)
    assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_action_of_a_row_is_not_the_action_of_the_command() -> None:
    """Both are called so."""
    parsed = given("search", "--action", "tools/call")
    assert (parsed.action, parsed.action_name) == ("search", "tools/call")

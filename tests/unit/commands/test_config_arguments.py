"""What `config show | set | unset` take."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from proxy.commands import config_arguments


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    config_arguments.add(parser.add_subparsers(required=True, dest="action"))
    return parser.parse_args(arguments)


def test_the_key_may_be_left_out_where_all_are_shown() -> None:
    """What a command reads of its arguments is there."""
    shown = parse("show")
    assert (shown.action, shown.key, shown.effective, shown.changed, shown.json) == ("show", None, False, False, False)
    assert parse("show", "listen", "--effective", "-c", "x.yaml").config == Path("x.yaml")
    change = parse("set", "log.level", "error", "--tenant", "acme", "--reason", "too much")
    assert (change.key, change.value, change.tenant, change.reason) == ("log.level", "error", "acme", "too much")
    assert (parse("unset", "log.level").tenant, parse("unset", "log.level").reason) == (None, None)


@pytest.mark.parametrize(
    "arguments", [("set", "log.level"), ("unset",), ("set", "a", "b", "--tenant", "No"), ("unset", "a", "--reason", "")]
)
def test_what_is_missing_or_malformed_is_misuse(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A usage line and code 2."""
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage:")

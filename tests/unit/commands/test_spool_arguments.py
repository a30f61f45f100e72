"""What the commands of the spool take."""

from __future__ import annotations

import argparse

import pytest

from proxy.commands import spool_arguments


def parsed(*words: str) -> argparse.Namespace:
    """The arguments of `spool ...`."""
    parser = argparse.ArgumentParser()
    spool_arguments.add(parser.add_subparsers(dest="action"))
    return parser.parse_args(words)


@pytest.mark.parametrize("action", ["status", "replay", "quarantine"])
def test_every_action_is_for_people_unless_asked_otherwise(action: str) -> None:
    """`--json` is for programs; nothing is retried by default."""
    given = parsed(action)
    assert (given.action, given.json) == (action, False)
    assert not getattr(given, "retry", False)
    assert parsed(action, "--json").json


def test_only_the_quarantine_is_retried() -> None:
    """Other actions know no such word."""
    assert parsed("quarantine", "--retry").retry
    with pytest.raises(SystemExit):
        parsed("status", "--retry")

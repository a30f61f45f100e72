"""What `alerts ...` takes."""

from __future__ import annotations

import argparse

import pytest

from proxy.commands import alerts_arguments


def parsed(*arguments: str) -> argparse.Namespace:
    """Arguments as the program parses them."""
    parser = argparse.ArgumentParser()
    alerts_arguments.add(parser.add_subparsers(dest="action", required=True))
    return parser.parse_args(arguments)


def test_without_options_everything_is_meant() -> None:
    """Rules of all; every webhook."""
    given = parsed("list")
    assert (given.tenant, given.firing, given.past, given.limit, given.json) == (None, False, False, 100, False)
    assert (parsed("test").webhook, parsed("test", "--webhook", "ops").webhook) == (None, "ops")


@pytest.mark.parametrize(
    "arguments", [("list", "--firing", "--past"), ("list", "--limit", "0"), ("list", "--tenant", "A B"), ("mute",)]
)
def test_what_makes_no_sense_is_misuse(arguments: tuple[str, ...]) -> None:
    """With the exit code of misuse."""
    with pytest.raises(SystemExit) as stopped:
        parsed(*arguments)
    assert stopped.value.code == 2

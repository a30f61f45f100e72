"""What the commands `alerts ...` take. Loads nothing heavy."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Final

from proxy.commands import values
from proxy.commands.arguments import add_command

if TYPE_CHECKING:
    from proxy.commands.arguments import Commands

_MOST: Final = 100


def add(actions: Commands) -> None:
    """Add `list` and `test`."""
    shown = add_command(actions, "list", _run, "list the rules in force, what fires, or what fired")
    shown.add_argument("--tenant", metavar="SLUG", type=values.slug, help="of this one only")
    what = shown.add_mutually_exclusive_group()
    what.add_argument("--firing", action="store_true", help="what fires now, as each instance sees it")
    what.add_argument("--past", action="store_true", help="what fired of late, too; the newest first")
    shown.add_argument(
        "--limit", metavar="N", type=values.positive, default=_MOST, help="with --firing or --past (default: 100)"
    )
    shown.add_argument("--json", action="store_true", help="for programs")
    test = add_command(actions, "test", _run, "send a test to the webhooks; exit code 1 if one does not take it")
    test.add_argument("--webhook", metavar="NAME", help="to this one only")
    test.add_argument("--json", action="store_true", help="for programs")


def _run(given: argparse.Namespace) -> int:
    from proxy.commands import alerts

    return alerts.run(given)

"""What the commands `spool status | replay | quarantine` take. Loads nothing heavy."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from proxy.commands import arguments

if TYPE_CHECKING:
    from proxy.commands.arguments import Commands


def add(actions: Commands) -> None:
    """Add the actions of the group."""
    _add(actions, "status", "list what waits on this host for PostgreSQL")
    _add(actions, "replay", "ship what processes left behind that are gone")
    quarantine = _add(actions, "quarantine", "list records that PostgreSQL does not take")
    quarantine.add_argument("--retry", action="store_true", help="put all of them back, to be shipped once more")


def _add(actions: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    parser = arguments.add_command(actions, name, _spool, summary)
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _spool(given: argparse.Namespace) -> int:
    from proxy.commands import spool

    return spool.run(given)

"""What the commands `config show | set | unset` take.

Owns options and their words; loads nothing.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from proxy.commands import values
from proxy.commands.arguments import add_command

if TYPE_CHECKING:
    from proxy.commands.arguments import Commands


def add(actions: Commands) -> None:
    """Add the actions to their group."""
    show = add_command(actions, "show", _run, "show every value of the configuration and where it comes from")
    show.add_argument("key", metavar="KEY", nargs="?", help="only this key, or those below it: listen.limits")
    show.add_argument("--effective", action="store_true", help="with what rows of the database set at run time")
    show.add_argument("--changed", action="store_true", help="without defaults")
    show.add_argument("--json", action="store_true", help="for programs")
    change = add_command(actions, "set", _run, "change a setting of every running proxy, at once and for good")
    change.add_argument("key", metavar="KEY", type=values.text, help="as in the file, such as listen.limits.body")
    change.add_argument(
        "value", metavar="VALUE", type=values.text, help="as in the file: 8MiB, 5s, false; lists and such as JSON"
    )
    unset = add_command(actions, "unset", _run, "let the configuration file decide again")
    unset.add_argument("key", metavar="KEY", type=values.text, help="the setting")
    for parser in (change, unset):
        parser.add_argument("--tenant", metavar="SLUG", type=values.slug, help="for this tenant only")
        parser.add_argument("--reason", type=values.name, help="why, for whoever asks later")


def _run(given: argparse.Namespace) -> int:
    from proxy.commands import config

    return config.run(given)

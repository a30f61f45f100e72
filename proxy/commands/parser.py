"""How the command line is read and what it says of mistakes: a parser of argparse with better manners.

Owns the form of help and errors, for every command alike: what is not known is told by the command it was given to,
with the nearest thing that there is; a group without an action shows its actions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

#: Columns before the words of help: enough for the longest command and its indentation, which argparse forgets.
_COMMAND: Final = 19
_MOST: Final = 28


class Parser(argparse.ArgumentParser):
    """A parser for a command, or for a group of commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": _format, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's, but what a command does not know is its own error: the usage of a group would be no help."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown and self._subparsers is None:
            options = [text for text in unknown if text.startswith("--")]
            near = _near(options[0].partition("=")[0], self._option_string_actions) if options else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return found, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += _near(str(value), map(str, action.choices or ()))
            raise

    def needs(self, what: str) -> None:
        """Given no `what`, show the help where errors go, with exit code 2."""

        def show(given: argparse.Namespace) -> int:
            print(f"{self.format_help()}\n{self.prog}: error: {what} is missing", file=sys.stderr)
            return 2

        self.set_defaults(command=show)


def _format(prog: str) -> argparse.HelpFormatter:
    formatter = argparse.HelpFormatter(prog, max_help_position=_MOST)
    formatter._action_max_length = _COMMAND
    return formatter


def _near(given: str, known: Iterable[str]) -> str:
    """The end of a sentence that names what may be meant; '' when nothing is near."""
    from difflib import get_close_matches

    near: Sequence[str] = get_close_matches(given, list(known), 1)
    return f"; did you mean '{near[0]}'?" if near else ""

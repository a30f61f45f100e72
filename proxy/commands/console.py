"""What the commands share: exit codes, misuse, what is read, and where what is printed goes.

Owns the rule of the two outputs: what another program may want goes to standard output, words for people that come
with it go to standard error. So `KEY=$(mcp-manager keys create ...)` holds the key and nothing else.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from proxy.config import Config

DONE: Final = 0
MISUSED: Final = 2
#: Bytes of a file to import: the settings of a client that was used for years are a few MiB.
_LARGEST: Final = 32 << 20
#: Characters of a name from somewhere else that are shown, and of a sentence.
_LONGEST_NAME: Final = 64
_LONGEST_SENTENCE: Final = 400


class Sentence(str):
    """Words of ours in a table, that people have to read to their end."""

    __slots__ = ()


class Misuse(Exception):
    """What was asked for cannot be done; the text is for people."""


def load_config(given: Namespace) -> Config:
    """The configuration in the file of the option `-c`. Raises Misuse."""
    from proxy.config import ConfigError, load

    try:
        return load(given.config, os.environ)
    except ConfigError as error:
        raise Misuse(str(error)) from None


def read_text(name: str) -> str:
    """The text of a file, or of standard input for `-`. Raises Misuse."""
    from proxy.config.files import read_bounded

    if name == "-" and sys.stdin is None:
        raise Misuse("standard input is closed")
    try:
        content = sys.stdin.buffer.read(_LARGEST + 1) if name == "-" else read_bounded(Path(name), _LARGEST)
        if len(content) > _LARGEST:
            raise ValueError(f"cannot be read: larger than {_LARGEST >> 10} KiB")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Misuse("the file is not UTF-8 text") from None
    except ValueError as error:
        raise Misuse(f"the file {error}") from None


def told(error: OSError) -> str:
    """What is wrong with a file, for people: its name first, as everywhere."""
    if error.filename is None or not error.strerror:
        return str(error) or type(error).__name__
    more = "; run the command as the user who runs the proxy" if isinstance(error, PermissionError) else ""
    return f"{error.filename}: {error.strerror}{more}"


def counted(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def remark(text: str) -> None:
    """Tell a person something beside the result, if it can be: what was done does not depend on it."""
    with suppress(OSError):
        print(text, file=sys.stderr)


def local(moment: datetime, precision: str = "minutes") -> str:
    """A time as the clock on this machine's wall would show it; one near the ends of what can be a time, where that
    clock shows none, in UTC."""
    with suppress(OverflowError, ValueError):  # the latter for one without a zone, as infinite ones of a database are
        moment = moment.astimezone()
    return moment.isoformat(" ", precision)


def show_json(value: object) -> None:
    """Print a result for programs: times as RFC 3339, identities as text."""
    import orjson

    print(orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode())


def show_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a result for people: columns under headings; None is a dash, nothing can move the cursor."""
    lines = [headings, *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    from datetime import datetime

    if isinstance(value, datetime):
        return local(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return printable(" ".join(map(str, value))) or "-"
    return (
        "-"
        if value is None
        else printable(str(value), _LONGEST_SENTENCE if isinstance(value, Sentence) else _LONGEST_NAME)
    )


def printable(text: str, most: int = _LONGEST_NAME) -> str:
    """Text from somewhere else, without what a terminal would obey, and not longer than a name should be."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."

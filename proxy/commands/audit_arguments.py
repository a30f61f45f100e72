"""What the commands `audit search | export | verify | key` take. Loads nothing heavy."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from proxy.commands import arguments, values

if TYPE_CHECKING:
    from proxy.commands.arguments import Commands

_AGO: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))(?: ago)?")
_OUTCOME_KINDS: Final = ("intent", "outcome", "denied", "summary")
_RISKS: Final = ("low", "medium", "high", "critical")
_MOST_ROWS: Final = 10_000
_ROWS: Final = 100
_RANGE: Final = timedelta(days=1)
#: Nothing was recorded before, nothing will be after; a day more of either is still a time.
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime(9999, 1, 1, tzinfo=UTC)


def add(actions: Commands) -> None:
    """Add the actions of the group."""
    search = arguments.add_command(actions, "search", _audit, "list recorded calls, the newest first")
    _add_range(search)
    _add_filters(search)
    search.add_argument("--limit", metavar="N", type=_rows, default=_ROWS, help="most rows (default: 100)")
    _add_json(search)
    export = arguments.add_command(actions, "export", _audit, "write recorded calls to a file, the oldest first")
    _add_range(export)
    _add_filters(export)
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="(default: jsonl)")
    export.add_argument(
        "--whole", action="store_true",
        help="whole segments with their signed heads, which 'audit verify --file' needs; no filter but the tenant",
    )  # fmt: skip
    export.add_argument("--output", metavar="FILE", type=Path, help="where to (default: standard output)")
    verify = arguments.add_command(actions, "verify", _audit, "prove that no recorded call was changed or removed")
    _add_range(verify)
    verify.add_argument(
        "--file", metavar="FILE", type=Path, action="append", default=[],
        help="an export made with --whole, instead of the database; give it once for each",
    )  # fmt: skip
    verify.add_argument(
        "--together", action="store_true", help="the files are parts of one trail, such as archives of days in a row"
    )
    verify.add_argument(
        "--key", metavar="FILE", type=Path, action="append", default=[],
        help="public keys of 'audit key' (default: that of this installation)",
    )  # fmt: skip
    _add_json(verify)
    _add_json(arguments.add_command(actions, "key", _audit, "print the public key that 'audit verify' needs elsewhere"))


def _audit(given: argparse.Namespace) -> int:
    from proxy.commands import audit

    return audit.run(given)


def _add_range(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant", metavar="SLUG", type=values.slug, help="short name or id (default: all)")
    parser.add_argument("--since", metavar="TIME", type=past, help="2h, 7d, or an ISO time (default: 1d)")
    parser.add_argument("--until", metavar="TIME", type=past, help="likewise; this moment excluded (default: now)")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    for name, summary in (
        ("--principal", "who: as the list shows it"), ("--action", "JSON-RPC method, such as tools/call"),
        ("--target", "tool, prompt or resource"), ("--server", "name of the server"),
        ("--outcome", "what became of it, such as ok or denied"),
    ):  # fmt: skip
        # 'action' is which command of the group it is.
        dest = "action_name" if name == "--action" else name[2:]
        parser.add_argument(name, metavar="TEXT", type=_text, dest=dest, help=f"{summary}; may end in *")
    parser.add_argument("--kind", choices=_OUTCOME_KINDS, help="only such rows")
    parser.add_argument("--risk", choices=_RISKS, help="this level or higher")
    parser.add_argument("--request", metavar="ID", type=_identity, help="X-Request-Id of a call")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def past(text: str) -> datetime:
    """`2h` or `2h ago`: so long before now; or an ISO time, in UTC unless it says otherwise."""
    ago = _AGO.fullmatch(text)
    try:
        return datetime.now(UTC) - values.duration(ago[1]) if ago is not None else values.moment(text)
    except (OverflowError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError("a duration such as 2h, or a time such as 2026-11-22T12:00Z") from None


def span(given: argparse.Namespace) -> tuple[datetime, datetime]:
    """The range asked for. Raises Misuse when it is empty."""
    from proxy.commands.console import Misuse

    until = min(given.until or datetime.now(UTC), _LAST)
    since = max(given.since, _FIRST) if given.since else max(until, _FIRST) - _RANGE
    if since >= until:
        raise Misuse("'--since' has to be earlier than '--until'")
    return since, until


def _rows(text: str) -> int:
    number = values.positive(text)
    if number > _MOST_ROWS:
        raise argparse.ArgumentTypeError(f"{_MOST_ROWS} at most; 'audit export' has no limit")
    return number


def _text(text: str) -> str:
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError("printable characters")
    return text


def _identity(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("the id of a request: a UUID") from None

"""What the commands `retention ...` take. Loads nothing heavy."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from proxy.commands import values
from proxy.commands.arguments import add_command

if TYPE_CHECKING:
    from proxy.commands.arguments import Commands

_TABLES: Final = (
    "request_logs", "audit_logs", "error_logs", "security_events", "system_events", "server_metrics",
    "server_health_checks", "rate_limit_violations", "tenant_usage", "audit_heads",
    "api_key_usage",
)  # fmt: skip
#: Days that stand for ever.
FOR_EVER: Final = 36_500


def add(actions: Commands) -> None:
    """Add `list`, `set`, `unset`, `run` and `runs`."""
    shown = add_command(actions, "list", _run, "list how long the rows of each table are kept, and who says so")
    _add_json(shown)
    wanted = add_command(actions, "set", _run, "set how long the rows of a table are kept")
    _add_table(wanted)
    wanted.add_argument(
        "--keep", metavar="TIME", type=kept_days, required=True, help="in whole days: 90d; or 'forever'"
    )
    wanted.add_argument(
        "--archive", action=argparse.BooleanOptionalAction, help="write rows to a file of the archive before they go"
    )
    wanted.add_argument("--batch", metavar="N", type=values.positive, help="rows deleted at once (default: 10000)")
    _add_json(wanted)
    _add_table(add_command(actions, "unset", _run, "take back what was set; the wider policy holds again"))
    run = add_command(actions, "run", _run, "delete now what is old enough")
    run.add_argument("--dry-run", action="store_true", help="say exactly what would go, and delete nothing")
    _add_json(run)
    runs = add_command(actions, "runs", _run, "list the last runs")
    runs.add_argument("--last", metavar="N", type=values.positive, default=20, help="how many (default: 20)")
    _add_json(runs)


def kept_days(text: str) -> int:
    """`90d`, or `forever`."""
    if text == "forever":
        return FOR_EVER
    try:
        days, rest = divmod(values.duration(text), timedelta(days=1))
    except argparse.ArgumentTypeError:
        days, rest = 0, timedelta()
    if rest or not days:
        raise argparse.ArgumentTypeError("a number of whole days, such as 90d, ten years at most, or 'forever'")
    return days


def _run(given: argparse.Namespace) -> int:
    from proxy.commands import retention

    return retention.run(given)


def _add_table(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", metavar="TABLE", choices=_TABLES, help=", ".join(_TABLES))
    parser.add_argument("--tenant", metavar="SLUG", type=values.slug, help="for rows of one tenant (default: of all)")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")

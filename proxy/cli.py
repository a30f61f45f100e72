"""The command line: reads arguments, prints results and problems, returns the exit code.

Owns words and exit codes: 0 done, 1 the reader of our output is gone, 2 the input cannot be used, 130 interrupted.
Everything else is imported by the command that needs it, so that `version` and `--help` load nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.config import Config

_DONE: Final = 0
_NO_READER: Final = 1
_MISUSED: Final = 2
_INTERRUPTED: Final = 130

#: Names of servers listed when an unknown one is asked for.
_MOST_LISTED: Final = 20
_CLIENTS: Final = ("claude-code", "claude-desktop", "cursor", "vscode")


class _Misuse(Exception):
    """What was asked for cannot be done; the text is for people."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` are those of the process by default. Returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The interpreter flushes once more at its end, and would complain.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.dup2(nowhere, sys.stderr.fileno())
        return _NO_READER
    except KeyboardInterrupt:
        return _INTERRUPTED


def _run(given: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], int] = given.command
    try:
        return command(given)
    except _Misuse as error:
        print(error, file=sys.stderr)
        return _MISUSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mcp-manager", description="A transparent reverse proxy for MCP.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add(commands, "serve", _serve, "run the proxy")
    _add(commands, "check-config", _check_config, "say whether the configuration can be used, with every problem")
    config_schema = _add(
        commands, "config-schema", _config_schema, "print the JSON Schema of the configuration", file=False
    )
    config_schema.add_argument("--markdown", action="store_true", help="print tables of all keys instead")
    _add(commands, "version", _version, "print the version", file=False)
    client_config = _add(commands, "client-config", _client_config, "print what a client needs to reach a server")
    client_config.add_argument("name", metavar="NAME", help="key under 'servers'")
    client_config.add_argument("--client", choices=_CLIENTS, help="only this client")
    _add_migrate(commands)
    return parser


def _add_migrate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "bring the tables of PostgreSQL up to date, or take changes back"
    migrate = commands.add_parser(
        "migrate", help=summary, description=f"{summary[0].upper()}{summary[1:]}. The database is $DATABASE_URL."
    )
    actions = migrate.add_subparsers(metavar="ACTION", required=True, dest="action")
    _add(actions, "up", _migrate, "apply what was not applied yet", file=False)
    down = _add(actions, "down", _migrate, "take back the newest migration, with what is in its tables", file=False)
    how_far = down.add_mutually_exclusive_group()
    how_far.add_argument("--to", metavar="VERSION", help="take back everything above this version")
    how_far.add_argument("--all", action="store_true", help="take back everything")
    _add(actions, "status", _migrate, "list every migration, applied or not", file=False)


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Callable[[argparse.Namespace], int],
    summary: str,
    *,
    file: bool = True,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(command=command)
    if file:
        default = os.environ.get("MCP_MANAGER_CONFIG") or "config.yaml"
        parser.add_argument(
            "-c", "--config", metavar="FILE", type=Path, default=Path(default),
            help="configuration file (default: $MCP_MANAGER_CONFIG, else ./config.yaml)",
        )  # fmt: skip
    return parser


def _load(given: argparse.Namespace) -> Config:
    from proxy.config import ConfigError, load

    try:
        return load(given.config, os.environ)
    except ConfigError as error:
        raise _Misuse(str(error)) from None


def _serve(given: argparse.Namespace) -> int:
    from proxy.app import serve

    return serve(given.config)


def _check_config(given: argparse.Namespace) -> int:
    config = _load(given)
    print(f"ok: {_count(len(config.servers), 'server')}, {_count(len(config.routes), 'route')}")
    return _DONE


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _config_schema(given: argparse.Namespace) -> int:
    import json

    from proxy.config import schema

    print(schema.markdown() if given.markdown else json.dumps(schema.schema(), indent=2))
    return _DONE


def _version(given: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(version("mcp-manager-proxy"))
    except PackageNotFoundError:
        raise _Misuse("not installed as a package, so it has no version") from None
    return _DONE


def _client_config(given: argparse.Namespace) -> int:
    from proxy import client_config

    config = _load(given)
    server = config.servers.get(given.name)
    if server is None:
        names = list(config.servers)
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        raise _Misuse(f"no server of this name; there are: {', '.join(names[:_MOST_LISTED])}{more}")
    try:
        url = client_config.url_of(config, given.name)
        if given.client is None:
            print(client_config.snippets(given.name, url, server.transport))
        else:
            print(client_config.snippet(given.client, given.name, url, server.transport))
    except ValueError as error:
        raise _Misuse(str(error)) from None
    return _DONE


def _migrate(given: argparse.Namespace) -> int:
    import asyncio

    from proxy.store.migrate import MigrationError

    dsn = os.environ.get("DATABASE_URL")
    if not dsn:
        raise _Misuse("set DATABASE_URL, such as postgresql://owner:password@host/database")
    try:
        lines = asyncio.run(_migrated(given, dsn))
    except MigrationError as error:
        raise _Misuse(str(error)) from None
    print("\n".join(lines))
    return _DONE


async def _migrated(given: argparse.Namespace, dsn: str) -> list[str]:
    """Do it; what to print. Raises MigrationError."""
    from proxy.store.migrate import migrator

    async with migrator(dsn) as migrations:
        if given.action == "up":
            return [f"applied {file}" for file in await migrations.up()] or ["up to date"]
        if given.action == "down":
            files = await migrations.down(given.to, everything=given.all)
            return [f"took back {file}" for file in files] or ["nothing to take back"]
        return [str(state) for state in await migrations.status()] or ["no migrations"]

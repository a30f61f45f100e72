"""The command line: reads arguments, prints results and problems, returns the exit code.

Owns words and exit codes: 0 done, 1 the reader of our output is gone, 2 the input cannot be used, 130 interrupted.
Everything else is imported by the command that needs it, so that `version` and `--help` load nothing.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, TextIO

from proxy.commands.arguments import add_command, add_file, add_groups
from proxy.commands.console import DONE, MISUSED, Misuse, counted, load_config
from proxy.commands.parser import Parser

#: As the shell tells of who was ended by SIGPIPE; 1 means something else to `audit verify`.
_NO_READER: Final = 128 + signal.SIGPIPE
_INTERRUPTED: Final = 130
#: Why what was opened long ago cannot be written.
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF))

#: Names of servers listed when an unknown one is asked for.
_MOST_LISTED: Final = 20
_CLIENTS: Final = ("claude-code", "claude-desktop", "cursor", "vscode")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` are those of the process by default. Returns the exit code."""
    if sys.stdout is None:  # its number would be that of the first socket, and the log would go there
        print("standard output is closed: redirect it to /dev/null", file=sys.stderr)
        return MISUSED
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # also after --help
    except BrokenPipeError:
        _silence(sys.stdout, sys.stderr)
        return _NO_READER
    except OSError as error:
        if error.filename is not None or error.errno not in _FULL:
            raise
        _silence(sys.stdout)
        print(f"the output cannot be written: {os.strerror(error.errno or 0)}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _silence(*streams: TextIO) -> None:
    """Nothing more comes out: the interpreter flushes once more at its end, and would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    try:
        given = _parser().parse_args(arguments)
        command: Callable[[argparse.Namespace], int] = given.command
        return command(given)
    except Misuse as error:
        print(error, file=sys.stderr)
        return MISUSED


class _ShowVersion(argparse.Action):
    """`--version` is what everyone tries first."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> NoReturn:
        parser.exit(_version(namespace))


def _parser() -> Parser:
    parser = Parser(
        prog="mcp-manager", description="A transparent reverse proxy for MCP.",
        epilog="'mcp-manager COMMAND --help' says what a command takes.",
    )  # fmt: skip
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version")
    add_file(parser)
    parser.needs("COMMAND")
    commands = parser.add_subparsers(metavar="COMMAND")
    add_command(commands, "serve", _serve, "run the proxy")
    add_command(
        commands, "check-config", _check_config, "say whether the configuration can be used, with every problem"
    )
    config_schema = add_command(
        commands, "config-schema", _config_schema, "print the JSON Schema of the configuration", file=False
    )
    config_schema.add_argument("--markdown", action="store_true", help="print tables of all keys instead")
    add_command(commands, "version", _version, "print the version", file=False)
    client_config = add_command(
        commands, "client-config", _client_config, "print what a client needs to reach a server"
    )
    client_config.add_argument("name", metavar="NAME", help="key under 'servers'")
    client_config.add_argument("--client", choices=_CLIENTS, help="only this client")
    add_groups(commands)
    return parser


def _serve(given: argparse.Namespace) -> int:
    from proxy.serving import serve

    return serve(given.config)


def _check_config(given: argparse.Namespace) -> int:
    config = load_config(given)
    print(f"ok: {counted(len(config.servers), 'server')}, {counted(len(config.routes), 'route')}")
    return DONE


def _config_schema(given: argparse.Namespace) -> int:
    import json

    from proxy.config import schema

    print(schema.markdown() if given.markdown else json.dumps(schema.schema(), indent=2))
    return DONE


def _version(given: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        print(version("mcp-manager-proxy"))
    except PackageNotFoundError:
        raise Misuse("not installed as a package, so it has no version") from None
    return DONE


def _client_config(given: argparse.Namespace) -> int:
    from proxy import client_config

    config = load_config(given)
    server = config.servers.get(given.name)
    if server is None:
        names = list(config.servers)
        more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        there_are = f"{', '.join(names[:_MOST_LISTED])}{more}"
        raise Misuse(f"no server of this name in the configuration file; there are: {there_are}")
    keyed = not config.anonymous
    try:
        url = client_config.url_of(config, given.name)
        if given.client is None:
            print(client_config.snippets(given.name, url, server.transport, keyed=keyed))
        else:
            print(client_config.snippet(given.client, given.name, url, server.transport, keyed=keyed))
    except ValueError as error:
        raise Misuse(str(error)) from None
    return DONE

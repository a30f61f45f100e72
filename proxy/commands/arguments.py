"""What each command of the operator takes.

Owns options and their words. Each group of commands is one module with a function `run`, which is loaded when one of
its commands is given, so that `--help` loads nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.commands import values

if TYPE_CHECKING:
    from proxy.commands.parser import Parser

    Commands = argparse._SubParsersAction[Parser]
    Command = Callable[[argparse.Namespace], int]

_SCOPES: Final = ("read", "write", "proxy", "admin")
_TIERS: Final = ("admin", "user", "anonymous")
_PLANS: Final = ("free", "team", "enterprise")
_TRANSPORTS: Final = ("streamable_http", "sse", "websocket")
_OVERLAP: Final = timedelta(hours=24)
_BLOCK: Final = timedelta(hours=1)


def add_command(
    commands: Commands, name: str, command: Command, summary: str, *, file: bool = True
) -> argparse.ArgumentParser:
    """Add a command that `command` runs; `file`: with an option for the configuration file."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(command=command)
    if file:
        _add_file(parser)
    return parser


def add_file(parser: argparse.ArgumentParser) -> None:
    """Add the option for the configuration file, and its default, in front of all commands."""
    _add_file(parser)
    parser.set_defaults(config=Path(os.environ.get("MCP_MANAGER_CONFIG") or "config.yaml"))


def _add_file(parser: argparse.ArgumentParser) -> None:
    """The option, wherever it is given: what a command or group says of it goes over what stood before."""
    parser.add_argument(
        "-c", "--config", metavar="FILE", type=Path, default=argparse.SUPPRESS,
        help="configuration file (default: $MCP_MANAGER_CONFIG, else ./config.yaml)",
    )  # fmt: skip


def add_groups(commands: Commands) -> None:
    """Add `migrate`, `tenants`, `keys`, `servers`, `bans`, `breakers`, `maintenance`, and those of the record."""
    _add_migrate(_group(commands, "migrate", "bring the tables of PostgreSQL up to date, or take changes back"))
    _add_tenants(_group(commands, "tenants", "who shares this proxy"))
    keys = _group(commands, "keys", "API keys")
    _add_keys(keys)
    _add_more_keys(keys)
    _add_servers(_group(commands, "servers", "MCP servers that are kept in the database"))
    _add_bans(_group(commands, "bans", "addresses that are blocked on every replica"))
    _add_breakers(_group(commands, "breakers", "circuit breakers of servers: their state, and your orders"))
    _add_maintenance(_group(commands, "maintenance", "times at which servers are not to be used"))
    _add_record(commands)


def _add_record(commands: Commands) -> None:
    """Groups whose options stand in files of their own, which need this one."""
    from proxy.commands import alerts_arguments as alerts
    from proxy.commands import audit_arguments as audit
    from proxy.commands import config_arguments as config
    from proxy.commands import retention_arguments as retention
    from proxy.commands import spool_arguments as spool

    audit.add(_group(commands, "audit", "the audit trail: who did what, and whether the record is whole"))
    spool.add(_group(commands, "spool", "records that wait for PostgreSQL"))
    retention.add(_group(commands, "retention", "how long records are kept"))
    alerts.add(_group(commands, "alerts", "alerts, and who is told of them"))
    config.add(_group(commands, "config", "settings, where they come from, and changes at run time"))


def _group(commands: Commands, name: str, summary: str) -> Commands:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    _add_file(parser)
    parser.needs("ACTION")
    return parser.add_subparsers(metavar="ACTION", dest="action")


def _migrate(given: argparse.Namespace) -> int:
    from proxy.commands import migrate

    return migrate.run(given)


def _tenants(given: argparse.Namespace) -> int:
    from proxy.commands import tenants

    return tenants.run(given)


def _keys(given: argparse.Namespace) -> int:
    from proxy.commands import keys

    return keys.run(given)


def _servers(given: argparse.Namespace) -> int:
    from proxy.commands import servers

    return servers.run(given)


def _bans(given: argparse.Namespace) -> int:
    from proxy.commands import bans

    return bans.run(given)


def _breakers(given: argparse.Namespace) -> int:
    from proxy.commands import breakers

    return breakers.run(given)


def _maintenance(given: argparse.Namespace) -> int:
    from proxy.commands import maintenance

    return maintenance.run(given)


def _add_migrate(actions: Commands) -> None:
    add_command(actions, "up", _migrate, "apply what was not applied yet, to $DATABASE_URL or the configured database")
    down = add_command(actions, "down", _migrate, "take back the newest migration, with what is in its tables")
    how_far = down.add_mutually_exclusive_group()
    how_far.add_argument("--to", metavar="VERSION", help="take back everything above this version")
    how_far.add_argument("--all", action="store_true", help="take back everything")
    add_command(actions, "status", _migrate, "list every migration, applied or not")


def _add_tenants(actions: Commands) -> None:
    create = add_command(actions, "create", _tenants, "make a tenant")
    create.add_argument("slug", metavar="SLUG", type=values.slug, help="short name, such as acme")
    create.add_argument("--name", type=values.name, help="name for people (default: the slug)")
    create.add_argument("--plan", choices=_PLANS, default=_PLANS[0], help="what it pays for (default: free)")
    create.add_argument("--max-servers", metavar="N", type=values.count, help="most servers it may register")
    create.add_argument("--max-keys", metavar="N", type=values.count, help="most keys it may have in force")
    _add_json(create)
    _add_json(add_command(actions, "list", _tenants, "list all tenants"))
    for action, summary in (("suspend", "refuse a tenant everywhere"), ("activate", "serve a tenant again")):
        add_command(actions, action, _tenants, summary).add_argument("slug", metavar="SLUG", type=values.slug)


def _add_keys(actions: Commands) -> None:
    create = add_command(actions, "create", _keys, "make a key; it is printed once, and kept nowhere")
    _add_tenant(create)
    create.add_argument("--name", type=values.name, required=True, help="what it is for")
    create.add_argument("--user", metavar="ID", type=values.name, help="the user in whose name it acts")
    _add_scope(create)
    create.add_argument("--tier", choices=_TIERS, default="user", help="decides the default limits (default: user)")
    _add_several(create, "--allow-ip", "NETWORK", values.network, "address or network it may be used from")
    _add_several(create, "--allow-origin", "ORIGIN", values.origin, "Origin it may be used from")
    _add_several(create, "--allow-server", "PATTERN", values.pattern, "server it may use: a name or beginning*")
    _add_several(create, "--allow-tool", "PATTERN", values.pattern, "tool it may call: a name or beginning*")
    create.add_argument("--requests-per-minute", metavar="N", type=values.positive, help="its own limit")
    create.add_argument("--burst", metavar="N", type=values.positive, help="requests at once")
    create.add_argument("--not-before", metavar="TIME", type=values.moment, help="first moment it is good")
    create.add_argument("--expires", metavar="TIME", type=values.moment, help="its end: 30d, or an ISO time")
    _add_json(create)


def _add_more_keys(actions: Commands) -> None:
    shown = add_command(actions, "list", _keys, "list keys, without their secrets")
    _add_tenant(shown, required=False)
    _add_json(shown)
    revoke = add_command(actions, "revoke", _keys, "refuse a key from now on")
    revoke.add_argument("id", metavar="ID", type=values.key_id, help="the 12 characters behind 'mcpm_', or the key")
    revoke.add_argument("--reason", type=values.name, help="why, for whoever asks later")
    rotate = add_command(actions, "rotate", _keys, "replace a key; the new one is printed once")
    rotate.add_argument("id", metavar="ID", type=values.key_id, help="the 12 characters behind 'mcpm_', or the key")
    rotate.add_argument(
        "--overlap", metavar="TIME", type=values.duration, default=_OVERLAP,
        help="how long the old one stays good (default: 24h)",
    )  # fmt: skip
    _add_json(rotate)
    legacy = add_command(actions, "import-legacy", _keys, "take over keys of another system; their hashes are kept")
    _add_tenant(legacy)
    legacy.add_argument("file", metavar="FILE", help="lines 'name key' or 'key', or JSON; - for standard input")
    _add_scope(legacy)
    _add_json(legacy)


def _add_servers(actions: Commands) -> None:
    add = add_command(actions, "add", _servers, "register a server")
    add.add_argument("name", metavar="NAME", type=values.text, help="clients reach it at /NAME/mcp")
    add.add_argument("url", metavar="URL", help="where it is: https://host/path")
    _add_owner(add)
    add.add_argument("--transport", choices=_TRANSPORTS, default=_TRANSPORTS[0], help="(default: streamable_http)")
    _add_several(add, "--header", "'NAME: VALUE'", values.header, "sent with every request; ${NAME} is a variable")
    _add_several(add, "--option", "KEY=VALUE", values.option, "as in the configuration: timeouts.connect=5s")
    _add_json(add)
    shown = add_command(actions, "list", _servers, "list servers")
    _add_owner(shown, required=False)
    _add_json(shown)
    for action, summary in (("disable", "let a server take no requests"), ("enable", "let a server take requests")):
        parser = add_command(actions, action, _servers, summary)
        parser.add_argument("name", metavar="NAME", type=values.text)
        _add_owner(parser)
    taken = add_command(actions, "import", _servers, "register the servers in the settings of an MCP client")
    taken.add_argument("file", metavar="FILE", help="claude_desktop_config.json, .mcp.json, mcp.json, ...; or -")
    _add_owner(taken)
    taken.add_argument("--dry-run", action="store_true", help="say what would happen, and change nothing")
    _add_json(taken)


def _add_bans(actions: Commands) -> None:
    add = add_command(actions, "add", _bans, "block an address for a while")
    add.add_argument("address", metavar="ADDRESS", type=values.banned, help="an IPv6 address stands for its /64")
    add.add_argument(
        "--for", metavar="TIME", type=values.duration, default=_BLOCK, dest="length",
        help="how long: 15m, 1h, 30d (default: 1h)",
    )  # fmt: skip
    add.add_argument("--reason", type=values.name, help="why, for whoever asks later")
    _add_json(add_command(actions, "list", _bans, "list blocked addresses; those that end first come first"))
    remove = add_command(actions, "remove", _bans, "let an address in again, and forget what it did")
    remove.add_argument("address", metavar="ADDRESS", type=values.address, help="as it is listed")


def _add_breakers(actions: Commands) -> None:
    shown = add_command(actions, "list", _breakers, "list breakers as each instance of the proxy sees them")
    _add_tenant(shown, required=False)
    _add_json(shown)
    for action, summary in (
        ("open", "refuse requests to a server until 'close' or 'release'"),
        ("close", "let requests to a server through now, and forget earlier failures"),
    ):
        order = add_command(actions, action, _breakers, summary)
        _add_server(order)
        order.add_argument("--reason", type=values.name, help="why, for whoever asks later")
    _add_server(add_command(actions, "release", _breakers, "end your order: the breakers decide themselves"))


def _add_maintenance(actions: Commands) -> None:
    start = add_command(actions, "start", _maintenance, "drain a server, and refuse what only it could answer")
    _add_server(start, "name of the server; '*' is all of them")
    start.add_argument(
        "--for", metavar="TIME", type=values.duration, required=True, dest="length", help="how long: 15m, 1h, 2d"
    )
    start.add_argument("--at", metavar="TIME", type=values.moment, help="its begin: 2h, or an ISO time (default: now)")
    start.add_argument("--title", type=values.name, help="told to clients that are refused (default: maintenance)")
    start.add_argument(
        "--drain", metavar="TIME", type=values.duration, help="so long may what runs go on (default: 30s)"
    )
    _add_json(start)
    stop = add_command(actions, "stop", _maintenance, "end a window now, or call it off")
    _add_server(stop, "name of the server, '*', or the id of a window")
    shown = add_command(actions, "list", _maintenance, "list windows that are under way or to come")
    _add_tenant(shown, required=False)
    _add_json(shown)


def _add_server(parser: argparse.ArgumentParser, summary: str = "name of the server") -> None:
    parser.add_argument("server", metavar="SERVER", type=values.text, help=summary)
    parser.add_argument("--tenant", metavar="SLUG", type=values.slug, help="whose it is (default: everybody's)")


def _add_tenant(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--tenant", metavar="SLUG", type=values.slug, required=required, help="whose it is")


def _add_owner(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    owner = parser.add_mutually_exclusive_group(required=required)
    owner.add_argument("--tenant", metavar="SLUG", type=values.slug, help="whose it is")
    owner.add_argument("--shared", action="store_true", help="everybody's")


def _add_scope(parser: argparse.ArgumentParser) -> None:
    summary = "what it may do; give it once for each (default: proxy read write)"
    parser.add_argument("--scope", action="append", choices=_SCOPES, default=[], help=summary)


def _add_several(
    parser: argparse.ArgumentParser, name: str, metavar: str, kind: Callable[[str], object], summary: str
) -> None:
    parser.add_argument(name, metavar=metavar, type=kind, action="append", default=[], help=summary)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")

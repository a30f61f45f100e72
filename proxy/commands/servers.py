"""The commands `servers add | list | disable | enable | import`.

Owns that a server is checked as the configuration's are before it is written, and what is told of each entry of an
import. Values of headers and queries of URLs may be secrets: none is printed.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.commands import client_files
from proxy.commands.client_files import Entry
from proxy.commands.connection import change
from proxy.commands.console import DONE, Misuse, load_config, printable, read_text, remark, show_json, show_table
from proxy.config.models import Config
from proxy.config.reachable import Reachable
from proxy.config.rows import Reach, reach_of_operator, reach_of_tenants, server_of
from proxy.store import servers, tenants
from proxy.store.accounts import Rejected
from proxy.store.database import Session
from proxy.store.servers import ADDED, SAME, NewServer

#: Stands for the value of every variable: those of the proxy's environment are not known here.
_SOME_VALUE: Final = "x"


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    actions = {"add": _add, "list": _list, "disable": _enable, "enable": _enable, "import": _import}
    return actions[given.action](given)


def _slug(given: Namespace) -> str:
    return tenants.SYSTEM if given.shared else str(given.tenant)


def _add(given: Namespace) -> int:
    headers = dict(given.header)
    if len({name.lower() for name in headers}) != len(given.header):
        raise Misuse("a header is given twice")
    server = NewServer(given.name, given.url, given.transport, headers, _options(given.option))
    config, slug = load_config(given), _slug(given)

    async def work(session: Session) -> str:
        try:
            _usable(server, await _reach(session, slug, [server]), config)
        except ValueError as error:
            raise Rejected(str(error)) from None
        return (await servers.add(session, slug, [server]))[0]

    outcome = change(config, work)
    if outcome not in (ADDED, SAME):
        raise Misuse("there is another server of this name; nothing was changed")
    if given.json:
        show_json({"name": given.name, "tenant": slug, "outcome": outcome})
    else:
        named = dict.fromkeys(name for text in headers.values() for name in client_files.variables(text))
        notes = [f"{outcome}: clients reach it at /{given.name}/mcp", *(f"set {name} for the proxy" for name in named)]
        remark("; ".join(notes))
    return DONE


def _options(given: Iterable[tuple[tuple[str, ...], object]]) -> dict[str, Any]:
    """Options as in the configuration file. Raises Misuse for two that contradict each other."""
    whole: dict[str, Any] = {}
    for path, value in given:
        table: Any = whole
        for key in path[:-1]:
            table = table.setdefault(key, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict) or path[-1] in table:
            raise Misuse("an option is given twice, or once with keys below it and once without")
        table[path[-1]] = value
    return whole


async def _reach(session: Session, slug: str, wanted: Sequence[NewServer]) -> Reach:
    """What rows of a tenant may refer to, with a value for whatever variable the servers name. Raises Rejected."""
    slugs = [row["slug"] for row in await tenants.listed(session)]
    if slug not in slugs:
        await tenants.find(session, slug)
    texts = [text for server in wanted for text in server.headers.values() if isinstance(text, str)]
    named = {name: _SOME_VALUE for text in texts for name in client_files.variables(text)}
    return reach_of_operator(named) if slug == tenants.SYSTEM else reach_of_tenants(named, slugs)[slug]


def _usable(server: NewServer, reach: Reach, config: Config) -> None:
    """Raise ValueError for a server that the proxy could not use, or must not: a tenant's on a private address."""
    server_of(server, reach)
    if not reach.files:  # a tenant's, not the operator's
        Reachable(config.registry.private_networks).check_url(server.endpoint_url)


def _list(given: Namespace) -> int:
    slug = tenants.SYSTEM if given.shared else given.tenant
    rows = change(load_config(given), lambda session: servers.listed(session, slug))
    for row in rows:
        row["url"] = row["url"].partition("?")[0] + ("?..." if "?" in row["url"] else "")
    if given.json:
        show_json(rows)
        return DONE
    columns = ("tenant", "name", "url", "transport", "state", "health", "tags")
    headings = ("TENANT", "NAME", "URL", "TRANSPORT", "STATE", "HEALTH", "TAGS")
    for row in rows:
        row["state"], row["health"] = "enabled" if row["enabled"] else "disabled", str(row["health"]).lower()
    show_table(headings, [[row[column] for column in columns] for row in rows])
    return DONE


def _enable(given: Namespace) -> int:
    enabled = given.action == "enable"
    slug = _slug(given)
    changed = change(load_config(given), lambda session: servers.set_enabled(session, slug, given.name, enabled))
    word = "enabled" if enabled else "disabled"
    remark(word if changed else f"{word} already")
    return DONE


@dataclass(slots=True)
class _Told:
    """What became of an entry."""

    entry: Entry
    server: NewServer | None = None
    outcome: str = ""
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        entry = self.entry
        written, place = (text.encode("utf-8", "replace").decode() for text in (entry.written, entry.place))
        notes = [self.problem] if self.problem else list(entry.notes)
        return {"written": written, "place": place, "name": entry.name, "outcome": self.outcome, "notes": notes}

    def __str__(self) -> str:
        entry = self.entry
        renamed = f" -> {entry.name}" if entry.name not in ("", entry.written) else ""
        notes = self.problem or "; ".join(entry.notes)
        where = f" ({printable(entry.place)})" if " " in entry.place else ""
        return f"{printable(entry.written)}{renamed}{where}: {self.outcome}{': ' if notes else ''}{notes}"


class _TakenBack(Exception):
    """A dry run is over."""


def _import(given: Namespace) -> int:
    config, text, slug = load_config(given), read_text(given.file), _slug(given)
    told: list[_Told] = []

    async def work(session: Session) -> None:
        told.extend(await _imported(session, slug, text, config))
        if given.dry_run:
            raise _TakenBack

    try:
        change(config, work)
    except _TakenBack:
        remark("a dry run: nothing was changed")
    except ValueError as error:
        raise Misuse(str(error)) from None
    if given.json:
        show_json([line.as_json() for line in told])
        return DONE
    for line in told:
        print(line)
    return DONE


async def _imported(session: Session, slug: str, text: str, config: Config) -> list[_Told]:
    """Add what the file holds. Raises ValueError for what is no such file, Rejected."""
    prefix = (await _reach(session, slug, [])).prefix
    told = [_Told(entry) for entry in client_files.read(text, prefix)]
    fit = [line for line in told if not line.entry.problem]
    for line in fit:
        entry = line.entry
        line.server = NewServer(entry.name, entry.url, entry.transport, entry.headers, {}, entry.is_enabled)
    reach = await _reach(session, slug, [line.server for line in fit if line.server is not None])
    for line in told:
        _check(line, reach, config)
    good = [line for line in told if line.server is not None]
    outcomes = await servers.add(session, slug, [line.server for line in good if line.server is not None])
    for line, outcome in zip(good, outcomes, strict=True):
        line.outcome = outcome
    return told


def _check(line: _Told, reach: Reach, config: Config) -> None:
    """Leave an entry out that cannot be registered, with the reason."""
    line.problem = line.entry.problem
    if line.server is not None:
        try:
            _usable(line.server, reach, config)
        except ValueError as error:
            line.problem = str(error)
    if line.problem:
        line.server, line.outcome = None, "skipped"
        line.entry = replace(line.entry, name="")

"""The commands `maintenance start | stop | list`: times at which servers are not to be used.

Owns what an operator is told of windows: those of the database, and in the list those of the configuration file. Reads
of its arguments: `action`; for `start`: `server`, `length` (--for), `title` and `drain` (None: as by default), `at` (a
time or None) and `tenant` (a slug or None: everybody's servers); for `stop`: `server` (also the id of a window) and
`tenant`; for `list`: `tenant` (None: all). `start` and `list` have `json`. The server `*` stands for all.
"""

from __future__ import annotations

import re
from argparse import Namespace
from calendar import day_abbr
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from proxy.commands.connection import change, postgres_of
from proxy.commands.console import DONE, Misuse, load_config, local, remark, show_json, show_table
from proxy.config.models import Config
from proxy.config.units import Recurrence, duration_text
from proxy.dataplane.maintenance import configured_window, window_of
from proxy.dataplane.recurrence import Window
from proxy.store import maintenance, tenants
from proxy.store.maintenance import NewWindow, Planned

_LONGEST: Final = timedelta(days=366)
#: Its end is still a time.
_LAST: Final = datetime.max.replace(tzinfo=UTC) - _LONGEST
_DRAIN: Final = timedelta(seconds=30)
_TITLE: Final = "maintenance"
_EVERY_SERVER: Final = "*"
_PART_OF_ID: Final = re.compile(r"[0-9a-f]{8}[0-9a-f-]*", re.IGNORECASE)


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    return {"start": _start, "stop": _stop, "list": _list}[given.action](given)


def _start(given: Namespace) -> int:
    config = load_config(given)
    if not timedelta() < given.length <= _LONGEST:
        raise Misuse("'--for' has to be longer than nothing, and a year at most: 30m, 2h, 1d")
    if given.at is not None and given.at > _LAST:
        raise Misuse("'--at' is too far away")
    if given.at is not None and given.at + given.length <= datetime.now(UTC):
        raise Misuse("this window would be over already")
    drain = given.drain if given.drain is not None else _DRAIN
    wanted = NewWindow(given.title or _TITLE, given.length, drain.total_seconds(), given.at)
    made = change(config, lambda session: maintenance.add(session, _slug(given), _server(given), wanted))
    if given.json:
        show_json(made)
        return DONE
    print(made["id"])
    begins, ends = (local(made[name]) for name in ("starts_at", "ends_at"))
    remark(f"from {begins} until {ends}" if given.at is not None else f"under maintenance until {ends}")
    return DONE


def _slug(given: Namespace) -> str:
    return given.tenant or tenants.SYSTEM


def _server(given: Namespace) -> str | None:
    return None if given.server == _EVERY_SERVER else str(given.server)


def _stop(given: Namespace) -> int:
    config, window = load_config(given), _as_id(given.server)
    if window is not None:
        change(config, lambda session: maintenance.end(session, window))
    else:
        try:
            change(config, lambda session: maintenance.end_of_server(session, _slug(given), _server(given)))
        except Misuse as error:
            more = "; an id is given whole: 'mcp-manager maintenance list' shows it"
            raise Misuse(f"{error}{more if _PART_OF_ID.fullmatch(given.server) else ''}") from None
    remark("ended")
    return DONE


def _as_id(text: str) -> UUID | None:
    """The id of a window; None for the name of a server. Who names a server like an id means the id here."""
    try:
        return UUID(text) if text.count("-") == 4 else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Shown:
    """A window as it is listed; of one that comes back, the occurrence that is under way or the next."""

    id: str | None
    """None for one of the configuration file."""
    tenant: str
    server: str
    state: str
    begins: datetime | None
    ends: datetime | None
    every: str | None
    drain: str
    title: str


def _list(given: Namespace) -> int:
    config, now = load_config(given), datetime.now(UTC)
    postgres_of(config)
    rows = change(config, lambda session: maintenance.listed(session, given.tenant))
    shown = [_of_row(row, now) for row in rows]
    if given.tenant in (None, tenants.SYSTEM):
        shown += _of_file(config, now)
    shown.sort(key=lambda each: (each.begins is None, each.begins or now))
    if given.json:
        show_json(shown)
        return DONE
    columns = ("id", "tenant", "server", "state", "begins", "ends", "every", "drain", "title")
    show_table([name.upper() for name in columns], [[getattr(each, name) for name in columns] for each in shown])
    return DONE


def _of_row(row: Planned, now: datetime) -> _Shown:
    about: dict[str, Any] = {
        "id": row.id, "tenant": row.tenant, "server": row.server or _EVERY_SERVER, "every": row.recurrence,
        "drain": duration_text(row.drain_s), "title": row.title,
    }  # fmt: skip
    try:
        return _Shown(**about, **_when(window_of(row), now))
    except ValueError:
        return _Shown(**about, state="unusable", begins=None, ends=None)


def _of_file(config: Config, now: datetime) -> list[_Shown]:
    found = []
    for each in config.maintenance:
        when = _when(configured_window(each), now)
        if when["begins"] is None:
            continue
        every, drain = _written(each.every) if each.every is not None else None, duration_text(each.drain)
        server = each.server or _EVERY_SERVER
        found.append(
            _Shown(
                id=None, tenant=tenants.SYSTEM, server=server, every=every, drain=drain, title=each.title, **when
            )
        )  # fmt: skip
    return found


def _written(every: Recurrence) -> str:
    """As in the configuration."""
    days = ",".join(day_abbr[day] for day in sorted(every.days)) + " " if len(every.days) < len(day_abbr) else ""
    return f"{days}{every.start:%H:%M}-{every.end:%H:%M} {every.zone.key}"


def _when(window: Window, now: datetime) -> dict[str, Any]:
    span = window.at(now.timestamp())
    if span is None:
        return {"state": "over", "begins": None, "ends": None}
    begins, ends = (datetime.fromtimestamp(moment, UTC) for moment in span)
    return {"state": "under way" if begins <= now else "to come", "begins": begins, "ends": ends}

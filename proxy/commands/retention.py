"""The commands `retention list | set | unset | run | runs`: how long rows are kept, and what goes.

Owns what an operator is told. Reads of its arguments: `action`; for `set`: `table`, `keep` (days), `archive` and
`batch` (None: as it is), `tenant` (a slug; None: everyone's); for `unset`: `table`, `tenant`; for `run`: `dry_run`; for
`runs`: `last`. All but `unset` have `json`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from proxy import log
from proxy.background.retention import Retention
from proxy.background.retention_plan import FOR_EVER_DAYS
from proxy.commands.connection import carried_out, change, postgres_of, turn
from proxy.commands.console import DONE, Misuse, load_config, remark, show_json, show_table
from proxy.config.models import Config
from proxy.config.retention import DEFAULTS
from proxy.config.retention import Retention as Settings
from proxy.config.stores import PostgresTimeouts
from proxy.config.units import size_text
from proxy.identity.uuid7 import RecordIds
from proxy.store import retention as store
from proxy.store import retention_policies, tenants
from proxy.store.lifecycle import Stores
from proxy.store.retention import Busy
from proxy.store.retention_policies import Wanted

if TYPE_CHECKING:
    from proxy.background.retention_work import Done, Doomed

_Result = TypeVar("_Result")

#: An operator waits for whole partitions to be counted.
_PATIENCE: Final = PostgresTimeouts.model_validate({"connect": "10s", "acquire": "15s", "analytics": "10m"})
#: Something that should have gone is still there.
_LEFT: Final = 1


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    return {"list": _list, "set": _set, "unset": _unset, "run": _run, "runs": _runs}[given.action](given)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A policy as it is listed."""

    table: str
    tenant: str
    keep: str
    archive: bool
    source: str
    last_run_at: Any = None
    last_deleted: int | None = None


def _settings(config: Config) -> Settings:
    return config.retention


def _list(given: Namespace) -> int:
    config = load_config(given)
    postgres_of(config)
    rows = change(config, retention_policies.listed)
    shown = [
        _Shown(
            row.table, row.tenant, _kept(row.days), row.archive,
            "row" if row.enabled else "row, not in force", row.last_run_at, row.last_deleted_count,
        )
        for row in rows
    ]  # fmt: skip
    settings, told = _settings(config), {row.table for row in rows if row.tenant == tenants.SYSTEM and row.enabled}
    for table in DEFAULTS:
        if table not in told:
            source, kept = "configuration" if table in settings.tables else "default", settings.of(table)
            shown.append(_Shown(table, tenants.SYSTEM, _kept(kept.days), kept.archive, source))
    shown.sort(key=lambda each: (each.table, each.tenant != tenants.SYSTEM, each.tenant))
    if given.json:
        show_json(shown)
        return DONE
    columns = ("table", "tenant", "keep", "archive", "source", "last_run_at", "last_deleted")
    headings = [name.upper().replace("_", " ") for name in columns]
    show_table(headings, [[getattr(each, name) for name in columns] for each in shown])
    return DONE


def _kept(days: int | None) -> str:
    return "forever" if days is None or days >= FOR_EVER_DAYS else f"{days}d"


def _words(days: int, archive: bool) -> str:
    if days >= FOR_EVER_DAYS:
        return "is kept forever"
    return f"is kept for {days}d, then {'archived and deleted' if archive else 'deleted'}"


def _set(given: Namespace) -> int:
    config = load_config(given)
    wanted = Wanted(given.table, given.keep, given.archive, given.batch)
    slug, archived = given.tenant or tenants.SYSTEM, _settings(config).of(given.table).archive
    row = change(config, lambda session: retention_policies.put(session, slug, wanted, archived=archived))
    if row["archive"] and _settings(config).archive_dir is None:
        remark("nothing of it is deleted before 'retention.archive_dir' is set")
    if given.json:
        show_json(row)
    else:
        whose = given.tenant or "everyone"
        remark(f"set: {given.table} of {whose} {_words(row['retention_days'], row['archive'])}")
    return DONE


def _unset(given: Namespace) -> int:
    slug = given.tenant or tenants.SYSTEM
    change(load_config(given), lambda session: retention_policies.remove(session, slug, given.table))
    remark("unset")
    return DONE


def _run(given: Namespace) -> int:
    config = load_config(given)
    if given.dry_run:
        return _show_doomed(given, *_with_retention(config, Retention.doomed))
    done = _with_retention(config, lambda retention: retention.run())
    if done is None:
        raise Misuse("another run is under way, or died less than five minutes ago")
    return _show_done(given, done)


def _with_retention(config: Config, work: Callable[[Retention], Awaitable[_Result]]) -> _Result:
    try:
        return carried_out(_worked(config, work), config)
    except Busy as error:
        raise Misuse(str(error)) from None


async def _worked(config: Config, work: Callable[[Retention], Awaitable[_Result]]) -> _Result:
    postgres = postgres_of(config).model_copy(update={"timeouts": _PATIENCE})
    stores = Stores(postgres, None, Path(config.state_dir), time.monotonic, lambda: 0.5)
    async with turn(postgres.embedded, Path(config.state_dir)):
        await stores.start(join=True)
        try:
            if stores.upkeep is None:
                raise Misuse("there is no database")
            ids, logger = RecordIds(time.time, os.urandom), log.logger("retention")
            retention = Retention(stores.upkeep, lambda: _settings(config), time.time, asyncio.sleep, logger, ids)
            retention.instance = f"command line on {socket.gethostname()}"
            return await work(retention)
        finally:
            await stores.stop()


def _show_doomed(given: Namespace, doomed: list[Doomed], done: dict[str, Done]) -> int:
    left = _told_left(done)
    if given.json:
        show_json(doomed)
        return left
    columns = ("table", "what", "partition", "tenant", "until", "rows", "bytes", "archive")
    show_table([name.upper() for name in columns], [[getattr(each, name) for name in columns] for each in doomed])
    remark(f"{sum(each.rows for each in doomed)} rows would go; nothing was deleted")
    return left


def _show_done(given: Namespace, done: dict[str, Done]) -> int:
    if given.json:
        show_json({table: asdict(each) for table, each in done.items()})
    else:
        rows = [[table, *each.totals()[:3], size_text(each.archived_bytes)] for table, each in done.items()]
        show_table(["TABLE", "ROWS DELETED", "PARTITIONS DROPPED", "ROWS ARCHIVED", "ARCHIVE"], rows)
    return _told_left(done)


def _told_left(done: dict[str, Done]) -> int:
    """Say what stays that should go; the exit code."""
    left = [f"{table}: {reason}" for table, each in done.items() for reason in each.left]
    for reason in left:
        remark(f"left: {reason}")
    return _LEFT if left else DONE


def _runs(given: Namespace) -> int:
    rows = change(load_config(given), lambda session: store.last_runs(session, given.last))
    if given.json:
        show_json(rows)
        return DONE
    columns = ("started_at", "finished_at", "deleted_rows", "dropped_partitions", "archived_rows", "instance")
    show_table([name.upper().replace("_", " ") for name in columns], [[row[name] for name in columns] for row in rows])
    return DONE

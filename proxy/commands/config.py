"""The commands `config show | set | unset`: every value and its source, and settings that rows change at run time.

Owns who is named in the audit trail, and the words. Reads of its arguments: `action`, `key`; for `show` (where `key`
may be None): `effective`, `changed`, `json`; for `set` and `unset`: `tenant` (a slug or None: everyone) and `reason`;
for `set`: `value`, as text.
"""

from __future__ import annotations

import os
import pwd
import socket
from argparse import Namespace
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.audit.signing import BadKey, Signer
from proxy.commands.connection import change, postgres_of
from proxy.commands.console import DONE, Misuse, load_config, local, printable, read_text, remark, show_json, show_table
from proxy.config.keyfile import AUDIT_KEY, load_or_create
from proxy.config.models import Config
from proxy.config.overrides import Outcome, Override, overridden, setting_of
from proxy.config.sources import Origin, origins
from proxy.store import records, system_configs, tenants
from proxy.store.accounts import Rejected
from proxy.store.database import Session
from proxy.store.system_configs import Audit, Change, Stored

_LEFT_OUT: Final = ": left out: "


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    return {"show": _show, "set": _set, "unset": _unset}[given.action](given)


def _show(given: Namespace) -> int:
    config = load_config(given)
    stored: list[Stored] = []
    if given.effective and config.postgres is not None:
        stored = change(config, lambda session: system_configs.listed(session, None))
    outcome = overridden(config, _overrides(stored))
    rows = {(_tenant_of(row), row.key): row for row in stored}
    found = [
        each
        for each in origins(outcome, read_text(str(given.config)), given.config.name, os.environ)
        if _is_within(each.key, given.key) and not (given.changed and each.source == "default" and not each.override)
    ]
    if given.key is not None and not found:
        raise Misuse("there is nothing of this name; 'mcp-manager config show' shows all there is")
    told = [_told(each, rows) for each in found]
    if given.json:
        show_json(told)
    else:
        show_table(
            ("KEY", "VALUE", "SOURCE"),
            [(each["key"], origin.text, _source(each)) for each, origin in zip(told, found, strict=True)],
        )
    _warn(outcome.problems)
    return DONE


def _is_within(key: str, group: str | None) -> bool:
    return group is None or key == group or key.startswith((f"{group}.", f"{group}["))


def _told(origin: Origin, rows: dict[tuple[str, str], Stored]) -> dict[str, Any]:
    """For programs."""
    override = origin.override
    row = rows[override.tenant, override.key] if override is not None else None
    return {
        "key": origin.key,
        "value": origin.value,
        "source": origin.source if row is None else "row",
        "by": row and row.changed_by,
        "at": row and row.changed_at,
        "reason": row and row.reason,
        "instead_of": row and origin.source,
    }


def _source(told: dict[str, Any]) -> str:
    """For people."""
    if told["at"] is None:
        return str(told["source"])
    return f"row, by {printable(told['by'] or 'somebody')}, {local(told['at'])}"


def _set(given: Namespace) -> int:
    config, value = load_config(given), _value(given.value)
    wanted = _change(given)
    if setting_of(wanted.key) is None:
        [why] = overridden(config, [Override(wanted.key, value)]).problems
        raise Misuse(why.replace(_LEFT_OUT, ": ", 1))
    outcomes: list[Outcome] = []

    def check(rows: Sequence[Stored]) -> None:
        outcome = overridden(config, _overrides(rows, wanted.tenant))
        mine = Override(wanted.key, value, "" if wanted.tenant == tenants.SYSTEM else wanted.tenant)
        if not any((each.key, each.tenant) == (mine.key, mine.tenant) for each in outcome.accepted):
            told = next((each for each in outcome.problems if each.startswith(f"{mine}{_LEFT_OUT}")), str(mine))
            raise Rejected(told.replace(_LEFT_OUT, ": ", 1))
        outcomes.append(outcome)

    audit = _audit(config)
    change(config, lambda session: system_configs.put(session, wanted, value, check, audit))
    remark("set, for every running proxy" + (f" and the tenant {wanted.tenant}" if given.tenant else ""))
    _warn(outcomes[-1].problems)
    return DONE


def _value(text: str) -> Any:
    """What stands in the file: JSON where it is that, else the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _unset(given: Namespace) -> int:
    config, wanted = load_config(given), _change(given)
    audit = _audit(config)

    async def work(session: Session) -> list[Stored]:
        await system_configs.remove(session, wanted, audit)
        return await system_configs.listed(session, None)

    left = change(config, work)
    remark("unset: the configuration file decides again")
    _warn(overridden(config, _overrides(left)).problems)
    return DONE


def _change(given: Namespace) -> Change:
    return Change(given.tenant or tenants.SYSTEM, given.key, _operator(), given.reason)


def _operator() -> str:
    """Who gives the command, as far as the system knows."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def _audit(config: Config) -> Audit:
    """What writes to the trail, signed like what the proxy writes."""
    postgres_of(config)
    try:
        signer = Signer(load_or_create(Path(config.state_dir) / AUDIT_KEY))
    except (OSError, BadKey) as error:
        raise Misuse(f"the key that signs the audit trail cannot be used: {error}") from None

    async def add(session: Session, record: dict[str, Any]) -> None:
        try:
            await records.add_direct(session, record, signer)
        except (records.Unfit, records.Unusable) as error:
            raise Rejected(f"the audit trail does not take a record of this: {error}") from None

    return add


def _overrides(rows: Iterable[Stored], changed: str = "") -> list[Override]:
    """As a running proxy reads them; those of tenant `changed` also while it is suspended."""
    return [Override(row.key, row.value, _tenant_of(row)) for row in rows if row.served or row.tenant == changed]


def _tenant_of(row: Stored) -> str:
    return "" if row.tenant == tenants.SYSTEM else row.tenant


def _warn(problems: Iterable[str]) -> None:
    for problem in problems:
        remark(f"beware: {problem}")

"""The commands `audit search | export | verify | key`: what was recorded, and whether it still is what it was.

Owns what is shown of rows, and the key of this installation; exports and verification are `audit_export.py` and
`audit_verify.py`. Reads of its arguments what `audit_arguments.py` makes.
"""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from proxy.commands.audit_arguments import span
from proxy.commands.connection import change, postgres_of
from proxy.commands.console import DONE, Misuse, load_config, local, remark, show_json, show_table
from proxy.config.models import Config
from proxy.store import audit_search
from proxy.store.audit_search import Wanted

if TYPE_CHECKING:
    from proxy.audit.signing import Verifier

_COLUMNS: Final = {
    "TIME": "ts", "TENANT": "tenant", "KIND": "kind", "WHO": "actor_id", "ACTION": "action", "TARGET": "resource_id",
    "SERVER": "server_name", "OUTCOME": "outcome", "STATUS": "status_code", "MS": "duration_ms", "RISK": "risk_level",
    "REQUEST": "id",
}  # fmt: skip
_JSON: Final = ("arguments", "result")


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code, for `verify` 1 when something is wrong. Raises Misuse."""
    if given.action == "export":
        from proxy.commands import audit_export

        return audit_export.run(given, load_config(given))
    if given.action == "verify":
        from proxy.commands import audit_verify

        return audit_verify.run(given)
    return {"search": _search, "key": _key}[given.action](given)


def wanted_of(given: Namespace) -> Wanted:
    """The rows that the options ask for. Raises Misuse."""
    since, until = span(given)
    request: UUID | None = given.request
    return Wanted(
        since, until, given.tenant, given.principal, given.action_name, given.target, given.server, given.outcome,
        given.risk, given.kind, request,
    )  # fmt: skip


def _search(given: Namespace) -> int:
    config, wanted = load_config(given), wanted_of(given)
    postgres_of(config)
    rows = change(config, lambda session: audit_search.search(session, wanted, given.limit))
    if given.json:
        show_json([_readable(row) for row in rows])
        return DONE
    show_table(tuple(_COLUMNS), [[_cell(row[name]) for name in _COLUMNS.values()] for row in rows])
    if not rows:
        remark(f"nothing from {local(wanted.since)} until {local(wanted.until)}; '--since' looks further back")
    if len(rows) == given.limit:
        remark(f"the newest {len(rows)}; '--limit' shows more, '--until' older ones")
    return DONE


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return local(value, "milliseconds")
    return f"{value:.1f}" if isinstance(value, float) else value


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its JSON as such."""
    return {
        name: orjson.Fragment(value) if name in _JSON and value is not None else value for name, value in row.items()
    }


def _key(given: Namespace) -> int:
    key = own_key(load_config(given))
    if given.json:
        show_json({"key_id": key.key_id, "public_key": key.pem()})
    else:
        print(key.pem(), end="")
    return DONE


def own_key(config: Config) -> Verifier:
    """The public key of this installation. Raises Misuse when it has none."""
    from proxy.audit.signing import BadKey, Signer
    from proxy.config.keyfile import AUDIT_KEY, load_or_create

    path = Path(config.state_dir) / AUDIT_KEY
    try:
        if not path.exists():
            raise Misuse(f"there is no key in {path} yet: a proxy that records makes one when it starts")
        return Signer(load_or_create(path)).public
    except (OSError, BadKey) as error:
        raise Misuse(str(error)) from None

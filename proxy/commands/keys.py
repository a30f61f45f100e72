"""The commands `keys create | list | revoke | rotate | import-legacy`.

Owns that a secret is shown once, on standard output, after its row is committed, and is kept nowhere.
"""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy.commands import legacy_keys
from proxy.commands.connection import change, postgres_of
from proxy.commands.console import DONE, Misuse, load_config, local, read_text, remark, show_json, show_table, told
from proxy.identity.keys import Minted, mint
from proxy.identity.records import KeyRecord
from proxy.store import keys, peppers

if TYPE_CHECKING:
    from proxy.config.models import Config

_DEFAULT_SCOPES: Final = ("proxy", "read", "write")


def run(given: Namespace) -> int:
    """Do `given.action`; returns the exit code. Raises Misuse."""
    actions = {"create": _create, "list": _list, "revoke": _revoke, "rotate": _rotate, "import-legacy": _import}
    return actions[given.action](given)


def _create(given: Namespace) -> int:
    if given.not_before and given.expires and given.not_before >= given.expires:
        raise Misuse("'--not-before' has to be earlier than '--expires'")
    if given.expires and given.expires <= datetime.now(UTC):
        raise Misuse("'--expires' has to be in the future: this key would never be good")
    config = load_config(given)
    minted = _minted(config)
    record = KeyRecord(
        minted.id,
        minted.secret_hmac,
        minted.pepper_version,
        tenant_id="",  # the store finds it
        user_id=given.user or "",
        tier=given.tier,
        scopes=_scopes(given),
        allowed_ips=tuple(given.allow_ip),
        allowed_origins=tuple(given.allow_origin),
        allowed_servers=tuple(given.allow_server),
        allowed_tools=tuple(given.allow_tool),
        requests_per_minute=given.requests_per_minute,
        burst=given.burst,
        not_before=given.not_before,
        expires_at=given.expires,
    )
    row = change(config, lambda session: keys.create(session, given.tenant, given.name, record))
    if "proxy" not in record.scopes:
        remark("without the scope proxy it cannot reach any server")
    return _show_once(given, minted, row, "made")


def _rotate(given: Namespace) -> int:
    config = load_config(given)
    minted = _minted(config)
    row = change(config, lambda session: keys.rotate(session, given.id, minted, given.overlap))
    until = local(row["old_key_until"], "seconds")
    return _show_once(given, minted, row, f"takes the place of {row['rotated_from']}, which is good until {until}")


def _show_once(given: Namespace, minted: Minted, row: dict[str, Any], what: str) -> int:
    if given.json:
        show_json({"key": minted.text, **{name: None if value == "" else value for name, value in row.items()}})
    else:
        remark(f"key {minted.id} {what}; the key itself, shown this once:")
        print(minted.text)
    return DONE


def _minted(config: Config) -> Minted:
    """A new key. Raises Misuse when the pepper cannot be read."""
    postgres_of(config)
    kept = Path(config.state_dir) / peppers.FILE
    try:
        is_new = not config.auth.peppers and not kept.exists()
        minted = mint(peppers.pepper_ring(config))
    except OSError as error:
        raise Misuse(told(error)) from None
    if is_new:
        remark(f"a pepper was made in {kept}; keys are good where the proxy reads this file, or see 'auth.peppers'")
    return minted


def _scopes(given: Namespace) -> tuple[str, ...]:
    return tuple(dict.fromkeys(given.scope)) or _DEFAULT_SCOPES


def _list(given: Namespace) -> int:
    rows = change(load_config(given), lambda session: keys.listed(session, given.tenant))
    if given.json:
        show_json(rows)
        return DONE
    columns = ("id", "tenant", "name", "state", "scopes", "tier", "expires_at", "last_used_at")
    headings = ("KEY", "TENANT", "NAME", "STATE", "SCOPES", "TIER", "EXPIRES", "LAST USED")
    show_table(headings, [[row[column] for column in columns] for row in rows])
    return DONE


def _revoke(given: Namespace) -> int:
    revoked = change(load_config(given), lambda session: keys.revoke(session, given.id, given.reason))
    remark("revoked" if revoked else "revoked already")
    return DONE


def _import(given: Namespace) -> int:
    try:
        lines = legacy_keys.read(read_text(given.file), _scopes(given))
    except ValueError as error:
        raise Misuse(str(error)) from None
    found = [line.key for line in lines if line.key is not None]
    outcomes = iter(change(load_config(given), lambda session: keys.import_legacy(session, given.tenant, found)))
    told = [(line.number, "skipped" if line.key is None else next(outcomes), line.problem) for line in lines]
    if given.json:
        show_json([{"line": number, "outcome": outcome, "note": problem} for number, outcome, problem in told])
        return DONE
    for number, outcome, problem in told:
        print(f"line {number}: {outcome}{': ' if problem else ''}{problem}")
    return DONE

"""Calls of the store in the name of one tenant that aim at another: records, traffic, alerts, retention, settings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import orjson

from proxy.audit.chain import Chains, Head
from proxy.store import (
    alerts,
    audit_search,
    incidents,
    records,
    retention,
    retention_policies,
    retention_trail,
    system_configs,
    traffic,
)
from proxy.store.alerts import EpisodeRow
from proxy.store.audit_search import Wanted
from proxy.store.database import Session
from proxy.store.incidents import ErrorRow
from proxy.store.records import SignedHead
from proxy.store.retention import Extent, Retired
from proxy.store.retention_policies import Wanted as Policy
from proxy.store.system_configs import Change
from proxy.store.traffic import KeyWindow, Quantity, ServerWindow
from tests.proofs.isolation_shapes import Call, Shown, Tenant

INSTANCE: Final = "an instance"
AT: Final = 1_800_000_000.0
KEY_TABLES: Final = ("enhanced_api_keys", "api_keys", "api_tokens")
BEGIN: Final = datetime(2000, 1, 1, tzinfo=UTC)
END: Final = datetime(2100, 1, 1, tzinfo=UTC)
RETAINED: Final = tuple(retention.TABLES)


# --- records --------------------------------------------------------------------------------------------------------


def _record(me: Tenant, aim: Tenant, number: int) -> dict[str, Any]:
    return {
        "kind": "outcome", "id": str(uuid4()), "timestamp": datetime.now(UTC).isoformat(), "tenant_id": aim.id,
        "method": "POST", "rpc_method": "tools/call", "target": f"{me.slug}-{number}", "status": 200, "outcome": "ok",
    }  # fmt: skip


async def _add_rows(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    draft = Chains(f"{me.slug}/{number}").draft()
    await records.add_rows(session, [records.row_of(orjson.dumps(_record(me, aim, number)), draft)])
    return []


async def _add_heads(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    head = Head(aim.id, f"{me.slug}/{number}", 1, True, b"h" * 32, 1, 2, None)
    await records.add_heads(session, [SignedHead(head, None, None)])
    return []


async def _add_direct(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await records.add_direct(session, _record(me, aim, number), None)
    return []


async def _search(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    wanted = Wanted(BEGIN, END, tenant=(None, aim.slug, aim.id)[number % 3])
    rows = await audit_search.search(session, wanted, 1000)
    return [Shown("audit_logs", str(row["id"]), str(row["tenant_id"])) for row in rows]


async def _tenant_id(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    return [Shown("tenants", str(await audit_search.tenant_id(session, aim.slug)), aim.slug)]


async def _add_errors(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    row = ErrorRow(uuid4(), AT, aim.id, "error", "proxy", "kind", me.slug, "f", "", {"n": number}, "", INSTANCE)
    await incidents.add_errors(session, [row])
    return []


# --- traffic --------------------------------------------------------------------------------------------------------


async def _add_servers(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    row = ServerWindow(
        uuid4(), datetime.now(UTC), aim.id, 60, number, 0, 1.0, 1.0, 1.0, 1.0, 1, 1, 0, "{1}", "{1}"
    )  # fmt: skip
    await traffic.add_servers(session, INSTANCE, [row])
    return []


async def _add_keys(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    row = KeyWindow(
        uuid4(), datetime.now(UTC), KEY_TABLES[number % 3], aim.key, 60, number, 0, 0, 1, 1, 1.0, 1.0, 1.0, 1.0,
        "{1}", "{1}", "{}",
    )  # fmt: skip
    await traffic.add_keys(session, INSTANCE, [row])
    return []


async def _add_usage(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    row = Quantity(datetime.now(UTC).replace(minute=0, second=0, microsecond=0), "hour", "requests", number + 1)
    await traffic.add_usage(session, aim.slug, number + 1, [row])
    return []


# --- alerts ---------------------------------------------------------------------------------------------------------


async def _read_rules(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    return [Shown("performance_alerts", row.id, row.tenant_id) for row in await alerts.read_rules(session)]


async def _put_alerts(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    """Aimed at the rule of another and, each other time, at what it already has as an episode."""
    row = EpisodeRow(
        UUID(aim.id) if number % 2 else uuid4(), aim.id if number % 3 else None, "a", INSTANCE, None, "p95_ms", ">",
        1.0, 2.0, "low", BEGIN, None, None,
    )  # fmt: skip
    await alerts.put(session, [row], {aim.id: float(number)})
    return []


async def _tidy(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await alerts.tidy(session)
    return []


async def _list_alerts(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    rows = await alerts.listed(session, aim.slug if number % 2 else None)
    return [Shown("performance_alerts", row["name"], row["tenant"]) for row in rows]


async def _list_alert_events(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    rows = await alerts.events(session, aim.slug if number % 2 else None, past=True, most=1000)
    return [Shown("alert_events", str(row["id"]), row["tenant"]) for row in rows]


# --- retention ------------------------------------------------------------------------------------------------------


def _extent(number: int) -> Extent:
    table = RETAINED[number % len(RETAINED)]
    return Extent(table, f"{table}_default", BEGIN, END, whole=False)


async def _policies(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    rows = await retention_policies.listed(session)
    return [Shown("data_retention_policies", row.table, row.tenant_id) for row in rows]


async def _extents(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.extents(session, _extent(number).table)
    return []


async def _retired(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.retired(session, _extent(number).table)
    return []


async def _tenants_in(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    return [Shown("tenants", each, each) for each in await retention.tenants_in(session, _extent(number))]


async def _rows_in(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    count = await retention.rows_in(session, _extent(number), END, aim.id)
    return [Shown(_extent(number).table, "", aim.id)] * count


async def _retire(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.retire(session, _extent(number))
    return []


def _former(number: int) -> Retired:
    return Retired(_extent(number).table, _extent(number).name, "", 0, 0)


async def _rows_of(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    count = await retention.rows_of(session, _former(number), exactly=True)
    return [Shown(_extent(number).table, "", aim.id)] * count


async def _heads(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    """Of the trail itself, in which a tenant may read, or of what only the admin plane may."""
    name = "audit_logs_default" if number % 2 else "audit_logs"
    told = map(orjson.loads, await retention_trail.heads(session, Retired("audit_logs", name, "", 0, 0)))
    return [Shown("audit_heads", row["segment"], row["tenant_id"]) for row in told]


async def _drop(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.drop(session, _former(number))
    return []


async def _delete(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.delete(session, _extent(number), aim.id, END, 10)
    return []


async def _take(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    taken = await retention.take(session, _extent(number), aim.id, END, 10)
    return [Shown(_extent(number).table, "", aim.id)] * len(taken)


async def _has(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    """A line as `take` would give it, of a row that `aim` has."""
    table = _extent(number).table
    line = {"tenant_id": aim.id, retention.TABLES[table]: BEGIN.isoformat()}
    found = await retention.has(session, table, orjson.dumps(line).decode())
    return [Shown(table, "", aim.id)] * found


async def _clock(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.clock(session)
    return []


async def _claim(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.claim(session, uuid4(), INSTANCE, timedelta())
    return []


async def _record_run(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.record(session, uuid4(), (number, 0, 0, 0), {}, finished=True)
    return []


async def _ran(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention.ran(session, "audit_logs", {aim.id: number})
    return []


async def _last_runs(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    return [Shown("retention_runs", str(row), "nobody") for row in await retention.last_runs(session, 10)]


async def _put_policy(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention_policies.put(session, aim.slug, Policy("audit_logs", number + 1))
    return []


async def _remove_policy(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await retention_policies.remove(session, aim.slug, "audit_logs")
    return []


# --- settings -------------------------------------------------------------------------------------------------------


async def _list_settings(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    rows = await system_configs.listed(session, aim.slug if number % 2 else None)
    return [Shown("system_configs", row.key, row.tenant) for row in rows]


async def _nothing(session: Session, record: dict[str, Any]) -> None:
    """Takes every record, so that the change itself has to be refused."""


async def _put_setting(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    change = Change(aim.slug, "k" if number % 2 else "log.level", me.slug)
    await system_configs.put(session, change, number, lambda rows: None, _nothing)
    return []


async def _remove_setting(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await system_configs.remove(session, Change(aim.slug, "k", me.slug), _nothing)
    return []


COUNTING: Final[dict[str, Call]] = {
    "traffic.add_servers": _add_servers,
    "traffic.add_keys": _add_keys,
    "traffic.add_usage": _add_usage,
}
"""What the data plane does with the session of a tenant."""

OPERATING: Final[dict[str, Call]] = {
    "records.add_rows": _add_rows,
    "records.add_heads": _add_heads,
    "records.add_direct": _add_direct,
    "incidents.add_errors": _add_errors,
    "audit_search.search": _search,
    "audit_search.tenant_id": _tenant_id,
    "alerts.read_rules": _read_rules,
    "alerts.put": _put_alerts,
    "alerts.tidy": _tidy,
    "alerts.listed": _list_alerts,
    "alerts.events": _list_alert_events,
    "retention.clock": _clock,
    "retention.extents": _extents,
    "retention.retired": _retired,
    "retention.tenants_in": _tenants_in,
    "retention.rows_in": _rows_in,
    "retention.retire": _retire,
    "retention.rows_of": _rows_of,
    "retention.drop": _drop,
    "retention_trail.heads": _heads,
    "retention.delete": _delete,
    "retention.take": _take,
    "retention.has": _has,
    "retention.claim": _claim,
    "retention.record": _record_run,
    "retention.ran": _ran,
    "retention.last_runs": _last_runs,
    "retention_policies.listed": _policies,
    "retention_policies.put": _put_policy,
    "retention_policies.remove": _remove_policy,
    "system_configs.listed": _list_settings,
    "system_configs.put": _put_setting,
    "system_configs.remove": _remove_setting,
}
"""What others do."""

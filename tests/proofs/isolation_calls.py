"""Every function of `proxy/store` that takes a session, as a call in the name of one tenant that aims at another.

A call returns whose rows it was shown. Functions of the admin plane and of the reader of the registry are here, too:
given the session of a tenant, they may fail, but they must not show or change what is not that tenant's.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from proxy.identity.keys import PepperRing, mint
from proxy.identity.records import KeyRecord
from proxy.store import (
    accounts,
    breaker_orders,
    keys,
    learned,
    maintenance,
    observations,
    registry,
    servers,
    tenants,
    violations,
)
from proxy.store.database import Session
from proxy.store.keys import LegacyKey
from proxy.store.learned import FileServer, KeyUse, OfferTable, Use
from proxy.store.maintenance import NewWindow
from proxy.store.observations import BreakerSeen, Check, Event, HealthSeen, PoolSeen, QueueSeen
from proxy.store.servers import NewServer
from proxy.store.tenants import NewTenant
from proxy.store.violations import SecurityEvent, Violation
from tests.proofs.isolation_record_calls import COUNTING, OPERATING
from tests.proofs.isolation_shapes import TENANTS, Call, Shown, Tenant

__all__ = ["CALLS", "LEARNING", "TENANTS", "Call", "Shown", "Tenant"]

RING: Final = PepperRing({1: b"a pepper of a proof"})
AT: Final = 1_800_000_000.0
INSTANCE: Final = "an instance"
OFFERS: Final[tuple[OfferTable, ...]] = ("server_tools", "server_resources", "server_prompts")
KEY_TABLES: Final = ("enhanced_api_keys", "api_keys", "api_tokens")


def _offer(table: OfferTable, me: Tenant, number: int) -> dict[str, object]:
    name = f"{me.slug}-{number}"
    match table:
        case "server_tools":
            return {"name": name, "annotations": "{}", "title": str(number)}
        case "server_resources":
            return {"uri_template": f"file:///{name}", "is_template": False, "name": name}
    return {"name": name, "arguments": "[]"}


async def _put_offers(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    table = OFFERS[number % 3]
    await learned.put_offers(session, table, aim.id, [_offer(table, me, number), _offer(table, me, number + 1)])
    return []


async def _keep_offers(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await learned.keep_offers(session, OFFERS[number % 3], aim.id, [f"{me.slug}-{number}"])
    return []


async def _add_uses(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    names = ("tool", "file:///a", "prompt", f"{aim.slug}-{number}")
    uses = [Use(aim.id, name, number + 1, 0, 0.5, AT + number) for name in names]
    await learned.add_uses(session, OFFERS[number % 3], uses)
    return []


async def _add_key_uses(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    table: Any = KEY_TABLES[number % 3]
    key = aim.key if table == "enhanced_api_keys" else aim.id
    await learned.add_key_uses(session, table, [KeyUse(key, number + 1, AT + number, "192.0.2.7")])
    return []


async def _claim(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await learned.claim(session, aim.slug, number + 1)
    return []


async def _ensure_rows(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    found = await learned.ensure_rows(session, [FileServer(f"file-{number % 3}", f"http://{number}/", "sse")])
    return [Shown("mcp_servers", each, "") for each in found.values()]


async def _add_violations(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    row = Violation(uuid4(), AT + number, aim.id, "tenant", aim.slug, "192.0.2.7", 1.0, 0.5)
    await violations.add_violations(session, [row])
    return []


async def _add_events(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    row = SecurityEvent(uuid4(), AT + number, "flood", "low", "192.0.2.7", "aimed", tenant=aim.id)
    await violations.add_events(session, [row])
    return []


# --- what an instance sees of servers, and what operators order -------------------------------------------------------


async def _put_breakers(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    seen = BreakerSeen(aim.id, "open", number, number, datetime.fromtimestamp(AT, UTC), None, me.slug)
    await observations.put_breakers(session, f"{INSTANCE} {number % 2}", [seen])
    return []


async def _put_pools(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await observations.put_pools(session, INSTANCE, [PoolSeen(aim.id, 100, number, 0, 0, number / 100, None)])
    return []


async def _put_queues(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await observations.put_queues(session, INSTANCE, [QueueSeen(aim.id, 10, 10, number, 0, 0.0, number, 0, 0)])
    return []


async def _put_health(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await observations.put_health(session, [HealthSeen(aim.id, "UNHEALTHY", float(number), number, None)])
    return []


async def _add_checks(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    check = Check(uuid4(), datetime.now(UTC), aim.id, "tcp", "UNHEALTHY", None, None, me.slug)
    await observations.add_checks(session, INSTANCE, [check])
    return []


async def _add_system_events(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    event = Event(uuid4(), AT, aim.id, "breaker_opened", "warning", "proxy", me.slug, {"number": number}, INSTANCE)
    await observations.add_events(session, [event])
    return []


async def _remove_rows(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await observations.remove_rows(session, "" if number % 2 else INSTANCE)  # that of the rows made beforehand is ''
    return []


async def _list_breakers(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    rows = await breaker_orders.listed(session, aim.slug if number % 2 else None)
    return [Shown("breaker_orders", row["server"], row["tenant"]) for row in rows]


async def _order_breaker(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await breaker_orders.give(session, aim.slug, "one", "closed" if number % 2 else "open", me.slug)
    return []


async def _release_breaker(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await breaker_orders.end(session, aim.slug, "one")
    return []


async def _add_window(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    wanted = NewWindow(me.slug, timedelta(hours=1))
    row = await maintenance.add(session, aim.slug, "one" if number % 2 else None, wanted)
    return [Shown("maintenance_windows", str(row["id"]), "")]


async def _list_windows(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    rows = await maintenance.listed(session, aim.slug if number % 2 else None)
    return [Shown("maintenance_windows", row.id, row.tenant) for row in rows]


async def _end_window(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await maintenance.end(session, UUID(aim.id))
    return []


async def _end_windows_of_server(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await maintenance.end_of_server(session, aim.slug, "one" if number % 2 else None)
    return []


# --- what the admin plane does ----------------------------------------------------------------------------------------


async def _create_key(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    minted = mint(RING)
    record = KeyRecord(minted.id, minted.secret_hmac, minted.pepper_version, "", scopes=("proxy",))
    row = await keys.create(session, aim.slug, f"key-{minted.id}", record)
    return [Shown("enhanced_api_keys", row["id"], row["tenant"])]


async def _list_keys(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    rows = await keys.listed(session, aim.slug if number % 2 else None)
    return [Shown("api_keys" if len(str(row["id"])) > 12 else "enhanced_api_keys", str(row["id"]), "") for row in rows]


async def _revoke_key(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await keys.revoke(session, aim.key, "a proof")
    return []


async def _rotate_key(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    row = await keys.rotate(session, aim.key, mint(RING), timedelta(hours=1))
    return [Shown("enhanced_api_keys", row["id"], "")]


async def _import_keys(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await keys.import_legacy(session, aim.slug, [LegacyKey(f"legacy-{number}", number.to_bytes(32, "big"), ("proxy",))])
    return []


async def _add_server(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await servers.add(session, aim.slug, [NewServer(f"added-{number % 5}", f"http://{me.slug}/")])
    return []


async def _list_servers(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    rows = await servers.listed(session, aim.slug if number % 2 else None)
    return [Shown("mcp_servers", str(row["id"]), row["tenant"]) for row in rows]


async def _enable_server(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await servers.set_enabled(session, aim.slug, "one", bool(number % 2))
    return []


async def _create_tenant(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    row = await tenants.create(session, NewTenant(f"new-{number}", "New"))
    return [Shown("tenants", str(row["id"]), row["slug"])]


async def _list_tenants(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    return [Shown("tenants", str(row["id"]), row["slug"]) for row in await tenants.listed(session)]


async def _find_tenant(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    found = await tenants.find(session, aim.slug)
    return [Shown("tenants", str(found.id), found.slug)]


async def _suspend_tenant(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await (tenants.suspend if number % 2 else tenants.activate)(session, aim.slug)
    return []


async def _note(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await accounts.note(session, UUID(aim.id), "a_proof", f"{me.slug} at {aim.slug}", {})
    return []


def _table(number: int) -> str:
    return sorted(registry.TABLES)[number % len(registry.TABLES)]


async def _read_changes(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    return list(_shown(await registry.read_changes(session, [(_table(number), "")])))


async def _read_everything(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    return list(_shown(await registry.read_everything(session)))


async def _read_hashes(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    table = _table(number)
    return [Shown(table, each, "") for each in (await registry.read_hashes(session, [(table, "")]))[table]]


async def _read_fingerprints(session: Session, me: Tenant, aim: Tenant, number: int) -> list[Shown]:
    await registry.read_fingerprints(session)
    return []


def _shown(found: registry.Registry) -> Iterator[Shown]:
    for table, rows in found.items():
        for row in rows.values():
            yield Shown(table, row.id, row.id if table == "tenants" else str(getattr(row, "tenant_id", "") or ""))


LEARNING: Final[dict[str, Call]] = {
    "learned.put_offers": _put_offers,
    "learned.keep_offers": _keep_offers,
    "learned.add_uses": _add_uses,
    "learned.add_key_uses": _add_key_uses,
    "learned.claim": _claim,
    "learned.ensure_rows": _ensure_rows,
    "violations.add_violations": _add_violations,
    "observations.put_breakers": _put_breakers,
    "observations.put_pools": _put_pools,
    "observations.put_queues": _put_queues,
    "observations.put_health": _put_health,
    "observations.add_checks": _add_checks,
    **COUNTING,
}
"""What the data plane does with the session of a tenant."""

MISUSED: Final[dict[str, Call]] = {
    "keys.create": _create_key,
    "keys.listed": _list_keys,
    "keys.revoke": _revoke_key,
    "keys.rotate": _rotate_key,
    "keys.import_legacy": _import_keys,
    "servers.add": _add_server,
    "servers.listed": _list_servers,
    "servers.set_enabled": _enable_server,
    "tenants.create": _create_tenant,
    "tenants.listed": _list_tenants,
    "tenants.find": _find_tenant,
    "tenants.suspend": _suspend_tenant,
    "tenants.activate": _suspend_tenant,
    "accounts.note": _note,
    "violations.add_events": _add_events,
    "observations.add_events": _add_system_events,
    "observations.remove_rows": _remove_rows,
    "breaker_orders.listed": _list_breakers,
    "breaker_orders.give": _order_breaker,
    "breaker_orders.end": _release_breaker,
    "maintenance.add": _add_window,
    "maintenance.listed": _list_windows,
    "maintenance.end": _end_window,
    "maintenance.end_of_server": _end_windows_of_server,
    "registry.read_everything": _read_everything,
    "registry.read_changes": _read_changes,
    "registry.read_hashes": _read_hashes,
    "registry.read_fingerprints": _read_fingerprints,
    **OPERATING,
}
"""What others do, with the session of a tenant all the same."""

CALLS: Final = {**LEARNING, **MISUSED}

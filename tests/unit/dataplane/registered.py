"""Rows of a registry for tests, as `proxy/store/registry.py` reads them; what is not given has the default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from proxy.identity.records import SYSTEM_TENANT
from proxy.store.rows import RouteRow, Row, ServerRow, TenantRow

Registry = dict[str, dict[str, Any]]


def tenant(number: int, slug: str, status: str = "active") -> TenantRow:
    """A tenant whose id is the number."""
    return TenantRow(tenant_id(number), slug, status, "free", 1.0, "standard")


def tenant_id(number: int) -> str:
    """0 is the system tenant."""
    return f"{SYSTEM_TENANT[:-4]}{number:04x}"


def server(number: int, name: str, **columns: Any) -> ServerRow:
    """A server of the tenant of this number."""
    known: dict[str, Any] = {
        "id": f"{number}-server-{name}",
        "tenant_id": tenant_id(number),
        "name": name,
        "endpoint_url": f"http://{name}.example/mcp",
        "transport_type": "streamable_http",
        "headers": {},
        "options": {},
        "tags": (),
        "is_enabled": True,
    }
    return ServerRow(**_known(ServerRow, known, columns))


def route(number: int, name: str, *servers: Any, **columns: Any) -> RouteRow:
    """A route of the tenant of this number, to `/NAME/mcp` of its own."""
    known: dict[str, Any] = {
        "id": f"{number}-route-{name}",
        "tenant_id": tenant_id(number),
        "name": name,
        "path": f"/{name}/mcp",
        "priority": 0,
        "conditions": {},
        "target_servers": list(servers),
        "load_balancing_strategy": "round_robin",
        "options": {},
        "is_enabled": True,
    }
    return RouteRow(**_known(RouteRow, known, columns))


def registry(*rows: Row) -> Registry:
    """Table -> id -> row."""
    return {
        name: _by_id(row for row in rows if isinstance(row, kind))
        for name, kind in (("tenants", TenantRow), ("mcp_servers", ServerRow), ("routing_rules", RouteRow))
    }


def _by_id(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.id: row for row in rows}


def _known(kind: type[Row], known: dict[str, Any], columns: dict[str, Any]) -> dict[str, Any]:
    assert columns.keys() <= {field.name for field in fields(kind)}
    return known | columns

"""Configuration and rows are put in force together, and a change builds only what it concerns."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from proxy.background.renewal import Renewal
from proxy.dataplane.admission import Rows
from proxy.errors import Unauthorized
from proxy.identity.credentials import CredentialReader
from proxy.identity.principal import Principal, Source
from proxy.store.rows import FlagRow, ServerRow, TenantRow
from tests.unit.dataplane.admitted import IDENTIFIED, configuration, rows_of
from tests.unit.dataplane.fakes import Proxy
from tests.unit.identity.rows import KEY, MINTED, NOW, TENANT, USER

UP = {"up": {"url": "http://up.test/mcp"}}
ACME = TenantRow("t1", "acme", "active", "free", 1.0, "standard")


def server(name: str = "own", *, url: str = "http://own.test/mcp", identity: str = "s1") -> ServerRow:
    """A server of tenant acme."""
    return ServerRow(identity, "t1", name, url, "streamable_http", {}, {}, (), True)


def registry(*servers: ServerRow, keys: bool = True, tenant: TenantRow = ACME) -> Rows:
    """Rows of one tenant with a key and these servers."""
    rows: dict[str, Any] = dict(rows_of(TENANT, USER, KEY) if keys else rows_of(TENANT, USER))
    return {**rows, "tenants": {"t1": tenant}, "mcp_servers": {row.id: row for row in servers}}


class Desk:
    """A renewal in front of a proxy that serves one server of its file."""

    def __init__(self) -> None:
        self.proxy = Proxy({"servers": UP, **IDENTIFIED})
        self.told: list[Collection[str]] = []
        self.renewal = Renewal(
            self.proxy.live, self.proxy.builder, self.proxy.admissions, self.told.append, {"TENANT_ACME_X": "x"}
        )

    def serves(self, path: str, tenant: str = "t1") -> bool:
        """Whether a principal of the tenant is served there."""
        return self.proxy.live.snapshot.routing_of(tenant).serves(path)

    def knows_the_key(self) -> bool:
        """Whether the key of the rows is let in."""
        credential = CredentialReader().read({"x-api-key": MINTED.text})
        directory = self.proxy.live.admission.directory
        assert credential is not None
        assert directory is not None
        try:
            directory.authenticate(credential, "::1", "", NOW)
        except Unauthorized:
            return False
        return True


async def test_rows_are_put_in_force_and_taken_away() -> None:
    """Keys and servers; other tenants see nothing of either."""
    desk = Desk()
    await desk.renewal.apply(registry(server()), None)
    assert desk.knows_the_key()
    assert (desk.serves("/own/mcp"), desk.serves("/own/mcp", "t2"), desk.serves("/own/mcp", "")) == (True, False, False)
    assert desk.serves("/up/mcp", "t2")
    await desk.renewal.apply(
        registry(keys=False), {("enhanced_api_keys", KEY.id), ("mcp_servers", "s1"), ("rate_limit_configs", "")}
    )
    assert not desk.knows_the_key()
    assert not desk.serves("/own/mcp")


async def test_a_key_that_changes_builds_no_routes_and_a_server_no_directory() -> None:
    """Each has its own price."""
    desk = Desk()
    await desk.renewal.apply(registry(server()), None)
    snapshot, admission = desk.proxy.live.snapshot, desk.proxy.live.admission
    await desk.renewal.apply(registry(server(), keys=False), {("enhanced_api_keys", KEY.id)})
    assert desk.proxy.live.snapshot is snapshot
    assert desk.proxy.live.admission is not admission
    admission = desk.proxy.live.admission
    await desk.renewal.apply(registry(server(url="http://new.test/mcp"), keys=False), {("mcp_servers", "s1")})
    assert desk.proxy.live.snapshot is not snapshot
    assert desk.proxy.live.admission is admission


async def test_what_did_not_change_is_not_compiled_again() -> None:
    """Of two tenants' routes, only those of the one with a new server; nothing when a row says what it said."""
    desk = Desk()
    other = TenantRow("t2", "globex", "active", "free", 1.0, "standard")
    theirs = ServerRow("s2", "t2", "theirs", "http://theirs.test/mcp", "streamable_http", {}, {}, (), True)

    def both(own: ServerRow) -> Rows:
        return {**registry(own, theirs), "tenants": {"t1": ACME, "t2": other}}

    await desk.renewal.apply(both(mine := server()), None)
    before = desk.proxy.live.snapshot
    await desk.renewal.apply(both(mine), {("tenants", "t1")})
    assert desk.proxy.live.snapshot is before
    await desk.renewal.apply(both(server("renamed")), {("mcp_servers", "s1")})
    after = desk.proxy.live.snapshot
    assert after.tenants["t2"] is before.tenants["t2"]
    assert after.tenants["t1"] is not before.tenants["t1"]
    assert after.shared is before.shared


async def test_rows_stay_in_force_over_a_reload() -> None:
    """A new file is laid under the rows that are there."""
    desk = Desk()
    await desk.renewal.apply(registry(server()), None)
    new = configuration(**IDENTIFIED, servers={"other": {"url": "http://other.test/mcp"}})
    desk.renewal.swap(desk.renewal.build(new))
    assert [desk.serves(path) for path in ("/own/mcp", "/other/mcp", "/up/mcp")] == [True, True, False]
    assert desk.knows_the_key()


async def test_two_changes_never_overtake_each_other() -> None:
    """Rows that come while a file is being loaded wait, and are in force afterwards."""
    desk = Desk()
    async with desk.renewal.turn:
        built = await asyncio.to_thread(desk.renewal.build, configuration(**IDENTIFIED))
        later = asyncio.ensure_future(desk.renewal.apply(registry(server()), None))
        await asyncio.sleep(0)
        desk.renewal.swap(built)
        assert not desk.serves("/own/mcp")
    await later
    assert desk.serves("/own/mcp")


async def test_a_row_that_cannot_be_used_is_told_of_once() -> None:
    """And told of again when something about it is different; everything else goes on."""
    desk = Desk()
    broken = server("broken", url="ftp://nowhere/", identity="s9")
    await desk.renewal.apply(registry(server(), broken), None)
    assert desk.serves("/own/mcp")
    assert len(desk.told) == 1
    assert "broken" in next(iter(desk.told[0]))
    await desk.renewal.apply(registry(server(), broken, keys=False), None)
    assert len(desk.told) == 1
    await desk.renewal.apply(registry(server()), {("mcp_servers", "s9")})
    assert list(desk.told[1]) == []


@pytest.mark.parametrize("status", ["suspended", "archived"])
async def test_a_tenant_that_is_not_active_has_nothing(status: str) -> None:
    """No key and no server of it is left."""
    desk = Desk()
    await desk.renewal.apply(registry(server()), None)
    tenant = TenantRow("t1", "acme", status, "free", 1.0, "standard")
    await desk.renewal.apply(registry(server(), tenant=tenant), {("tenants", "t1")})
    assert not desk.knows_the_key()
    assert not desk.serves("/own/mcp")


async def test_rows_of_flags_are_in_force_at_once() -> None:
    """They make another snapshot, of the same routes; whose tenant changes when there are none does not."""
    desk = Desk()
    await desk.renewal.apply(registry(), None)
    before = desk.proxy.live.snapshot
    flag = FlagRow("f1", "t1", "beta", True, 100.0, [], {})
    await desk.renewal.apply({**registry(), "feature_flags": {"f1": flag}}, {("feature_flags", "f1")})
    after = desk.proxy.live.snapshot
    assert after is not before
    assert after.shared is before.shared
    who = Principal("user:u", "t1", "acme", "u", "user", frozenset(), Source.KEY, "k")
    assert (before.flags.variant("beta", who), after.flags.variant("beta", who)) == (None, "")

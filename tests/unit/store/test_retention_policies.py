"""Policies as an operator sets them."""

from __future__ import annotations

import pytest

from proxy.store import retention_policies, tenants
from proxy.store.accounts import Rejected
from proxy.store.retention_policies import Wanted
from proxy.store.tenants import NewTenant
from tests.unit.store.administered import administered


async def test_a_policy_is_set_changed_and_taken_back() -> None:
    """What is not said stays; one that was off is on again; each change is an event."""
    async with administered() as here:
        async with here.session() as session:
            await tenants.create(session, NewTenant("acme", "Acme"))
            await retention_policies.put(session, "acme", Wanted("audit_logs", 30, True, 5))
            await retention_policies.put(session, "system", Wanted("audit_logs", 90))
        await here.rows("UPDATE data_retention_policies SET is_enabled = false")
        async with here.session() as session:
            row = await retention_policies.put(session, "acme", Wanted("audit_logs", 40))
            found = await retention_policies.listed(session)
        assert (row["retention_days"], row["archive"], row["batch_size"]) == (40, True, 5)
        assert [(each.tenant, each.days, each.archive, each.enabled) for each in found] == [
            ("acme", 40, True, True), ("system", 90, False, False)
        ]  # fmt: skip
        async with here.session() as session:
            await retention_policies.remove(session, "acme", "audit_logs")
            with pytest.raises(Rejected, match="no policy"):
                await retention_policies.remove(session, "acme", "audit_logs")
        assert (await here.events())[1:] == ["retention_set"] * 3 + ["retention_unset"]


async def test_an_unknown_tenant_is_refused() -> None:
    """With the names that there are."""
    async with administered() as here, here.session() as session:
        with pytest.raises(Rejected):
            await retention_policies.put(session, "nobody", Wanted("audit_logs", 1))

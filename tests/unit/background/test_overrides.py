"""Rows that change settings are put in force like a reload, whatever else is wrong with them or the file."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from typing import Any

import pytest

from proxy.background.overrides import Overrides, families
from proxy.background.renewal import Built, Renewal
from proxy.config.models import Config
from proxy.dataplane.admission import Rows
from proxy.identity.records import SYSTEM_TENANT
from proxy.store.rows import SettingRow, TenantRow
from tests.unit.dataplane.fakes import Proxy

UP = {"up": {"url": "http://up.test/mcp"}}
BODY = "listen.limits.body"
TENANTS = {
    "t1": TenantRow("t1", "acme", "active", "free", 1.0, "standard"),
    "t2": TenantRow("t2", "gone", "suspended", "free", 1.0, "standard"),
}


def configuration(**keys: Any) -> Config:
    return Config.model_validate({"servers": UP, **keys})


def setting(key: str, value: object, tenant: str = SYSTEM_TENANT) -> SettingRow:
    """A row of everybody's, or of one tenant."""
    return SettingRow(f"{tenant} {key}", tenant, key, value)


def registry(*rows: SettingRow) -> Rows:
    """Two tenants, one of them suspended, and these settings."""
    return {"tenants": TENANTS, "system_configs": {row.id: row for row in rows}}


class Desk:
    """A proxy whose settings rows may change."""

    def __init__(self) -> None:
        self.proxy = Proxy({"servers": UP})
        self.live = self.proxy.live
        self.told: list[Collection[str]] = []
        self.renewal = Renewal(self.live, self.proxy.builder, self.proxy.admissions, lambda _: None, {})
        self.overrides = Overrides(self.renewal, self.live.snapshot.config, self.put, self.told.append)

    def put(self, built: Built) -> None:
        """As the application does."""
        self.overrides.swap(built)

    def reload(self, **keys: Any) -> None:
        """The file says something else."""
        self.overrides.swap(self.overrides.build(configuration(**keys)))

    @property
    def config(self) -> Config:
        return self.live.snapshot.config


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_a_row_is_in_force_until_it_is_gone(desk: Desk) -> None:
    """What it says, and nothing else, is another value; without it the file's is back."""
    before = desk.config
    await desk.overrides.apply(registry(setting(BODY, "1MiB")), {("system_configs", "x")})
    assert desk.config.listen.limits.body == 1 << 20
    assert [each.key for each in desk.overrides.outcome.accepted] == [BODY]
    assert desk.config.model_copy(update={"listen": before.listen}) == before
    await desk.overrides.apply(registry(), {("system_configs", "x")})
    assert desk.config == before
    assert desk.told == []


async def test_a_reload_of_the_file_keeps_what_rows_say(desk: Desk) -> None:
    """Also where the file now says something else about it; without the row, the newer file holds."""
    await desk.overrides.apply(registry(setting(BODY, "1MiB")), None)
    desk.reload(listen={"limits": {"body": "2MiB"}, "timeouts": {"head": "3s"}})
    assert (desk.config.listen.limits.body, desk.config.listen.timeouts.head) == (1 << 20, 3.0)
    await desk.overrides.apply(registry(), {("system_configs", "x")})
    assert (desk.config.listen.limits.body, desk.config.listen.timeouts.head) == (2 << 20, 3.0)


async def test_rows_that_cannot_be_used_are_told_of_once_and_cost_nothing_else(desk: Desk) -> None:
    """Whatever is in them, and whoever's they are; those of a tenant that is not served are passed over."""
    rows = registry(
        setting(BODY, "1MiB"), setting("log.level", {"a": [1]}), setting("front end", None),
        setting("log.access", False, "t1"), setting("log.access", False, "t2"), setting("log.access", False, "t3"),
    )  # fmt: skip
    await desk.overrides.apply(rows, None)
    assert desk.config.listen.limits.body == 1 << 20
    assert desk.config.log == configuration().log
    [told] = desk.told
    assert [line.partition(": left out")[0] for line in told] == [
        'setting "front end"', "tenant acme, setting log.access", "setting log.level",
    ]  # fmt: skip
    await desk.overrides.apply({**rows, "system_configs": dict(rows["system_configs"])}, None)
    desk.reload()
    assert len(desk.told) == 1
    await desk.overrides.apply(registry(), None)
    assert [*desk.told[-1]] == []


async def test_a_tenant_has_a_grade_of_its_own_while_it_is_served(desk: Desk) -> None:
    """By its short name, as in the file; when its row says that it is gone, so is the grade."""
    rows = registry(setting("record.audit", "strict", "t1"), setting("record.audit", "strict", "t2"))
    await desk.overrides.apply(rows, None)
    assert desk.config.record.tenants == {"acme": "strict"}
    gone = {**rows, "tenants": {"t1": TenantRow("t1", "acme", "suspended", "free", 1.0, "standard")}}
    await desk.overrides.apply(gone, {("tenants", "t1")})
    assert desk.config.record.tenants == {}
    assert desk.told == []


async def test_other_rows_build_nothing_anew(desk: Desk) -> None:
    """Nor do settings that are as they were."""
    rows = registry(setting(BODY, "1MiB"))
    await desk.overrides.apply(rows, None)
    generation = desk.live.snapshot.generation
    await desk.overrides.apply({**rows, "api_keys": {}}, {("api_keys", "x")})
    await desk.overrides.apply(registry(setting(BODY, 1 << 20)), {("system_configs", "x")})
    assert desk.live.snapshot.generation == generation


async def test_a_row_that_says_what_the_file_says_is_in_force_too(desk: Desk) -> None:
    """Nothing has to change for that; when the file does, the row holds."""
    await desk.overrides.apply(registry(setting(BODY, "4MiB")), {("system_configs", "x")})
    assert desk.live.snapshot.generation == 1
    assert [each.key for each in desk.overrides.outcome.accepted] == [BODY]
    desk.reload(listen={"limits": {"body": "2MiB"}})
    assert desk.config.listen.limits.body == 4 << 20


async def test_a_file_that_is_gone_does_not_keep_the_rows_from_being_served(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in force stays so, this is told, and the next reload makes it good."""
    with monkeypatch.context() as patched:
        patched.setattr(desk.renewal, "build", lambda _: (_ for _ in ()).throw(OSError("no such file")))
        await desk.overrides.apply(registry(setting(BODY, "1MiB")), None)
    assert desk.config.listen.limits.body == 4 << 20
    assert [*desk.told[-1]] == ["settings of rows wait until the configuration can be used: no such file"]
    assert desk.overrides.outcome.accepted == ()
    desk.reload()
    assert desk.config.listen.limits.body == 1 << 20
    assert [*desk.told[-1]] == []


async def test_a_change_waits_for_a_reload_that_is_under_way(desk: Desk) -> None:
    """They never overtake each other: whoever is later sees what the earlier one did."""
    async with desk.renewal.turn:
        change = asyncio.ensure_future(desk.overrides.apply(registry(setting(BODY, "1MiB")), None))
        await asyncio.sleep(0)
        desk.reload(listen={"timeouts": {"head": "3s"}})
    await change
    assert (desk.config.listen.limits.body, desk.config.listen.timeouts.head) == (1 << 20, 3.0)


async def test_the_numbers_of_rows_are_metrics(desk: Desk) -> None:
    """One each for those in force and those left out."""
    await desk.overrides.apply(registry(setting(BODY, "1MiB"), setting("x", 1)), None)
    [family] = families(desk.overrides.outcome)
    assert re.fullmatch("mcp_proxy_[a-z_]+", family.name)
    assert dict(family.rows) == {'{state="in_force"}': 1.0, '{state="left_out"}': 1.0}

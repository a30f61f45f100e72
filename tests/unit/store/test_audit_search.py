"""The newest rows that fit, with the real tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from proxy.store.accounts import Rejected
from proxy.store.audit_search import Wanted, narrowed, search
from tests.unit.audit.trails import ACME, ZETA, identity, record, trail_of
from tests.unit.store.administered import Administered, administered
from tests.unit.store.engine import owner_dsn
from tests.unit.store.recorded import EVENING, MORNING, add_lines, add_tenants, add_trail

ALL = Wanted(MORNING, EVENING)


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """40 rows of two tenants, and one that stands out."""
    async with administered() as here:
        dsn = owner_dsn(here.name)
        await add_tenants(dsn)
        await add_trail(dsn)
        odd = record(
            50, kind="denied", principal="key:50%_\\x", target="drop_*", rpc_method="tools/list", server="git_lab",
            outcome="denied", risk="high", arguments={"a": [1, None]}, arguments_hash="ab" * 32, client="2001:db8::1",
        )  # fmt: skip
        await add_lines(dsn, trail_of([odd], "two/1")[0])
        yield here


async def found(here: Administered, wanted: Wanted, most: int = 1000) -> list[dict[str, Any]]:
    async with here.session() as session:
        return await search(session, wanted, most)


async def test_rows_come_newest_first_with_the_name_of_their_tenant(here: Administered) -> None:
    """Of all tenants in one order, at most as many as asked for."""
    rows = await found(here, ALL)
    assert [row["ts"] for row in rows] == sorted((row["ts"] for row in rows), reverse=True)
    assert {(row["tenant"], row["tenant_id"]) for row in rows} == {("acme", ACME), ("zeta", ZETA)}
    assert len(rows) == 41
    assert await found(here, ALL, 7) == rows[:7]


async def test_a_row_is_readable(here: Administered) -> None:
    """Addresses, hashes and identities as text, JSON as its text."""
    row = (await found(here, ALL, 1))[0]
    assert row["client_ip"] == "2001:db8::1"
    assert row["arguments_hash"] == "ab" * 32
    assert row["arguments"] == '{"a":[1,null]}'
    assert (row["segment"], row["seq"]) == ("two/1", 1)


@pytest.mark.parametrize("name", ["zeta", ZETA])
async def test_a_tenant_is_named_by_its_short_name_or_its_id(here: Administered, name: str) -> None:
    """Only its own rows come."""
    rows = await found(here, replace(ALL, tenant=name))
    assert len(rows) == 14
    assert {row["tenant"] for row in rows} == {"zeta"}


async def test_rows_of_a_tenant_that_is_gone_are_found_by_its_id(here: Administered) -> None:
    """Records outlive what they are about."""
    await here.rows("DELETE FROM tenants WHERE slug = 'zeta'")
    rows = await found(here, replace(ALL, tenant=ZETA))
    assert (len(rows), rows[0]["tenant"]) == (14, None)
    with pytest.raises(Rejected, match="acme"):
        await found(here, replace(ALL, tenant="zeta"))


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"who": "key:alice"}, 40), ({"who": "key:*"}, 41), ({"who": "key:50%_\\x"}, 1), ({"who": "key:50%_\\y"}, 0),
        ({"who": "key:_lice"}, 0), ({"who": "%"}, 0), ({"action": "tools/list"}, 1), ({"action": "tools/*"}, 41),
        ({"target": "drop_**"}, 1), ({"target": "drop_*"}, 1), ({"server": "git_lab"}, 1), ({"server": "git*"}, 41),
        ({"outcome": "ok"}, 20), ({"outcome": "denied"}, 1), ({"risk": "medium"}, 1), ({"risk": "critical"}, 0),
        ({"risk": "low"}, 41), ({"kind": "intent"}, 20), ({"kind": "intent", "who": "key:5*"}, 0),
        ({"request": identity(6)}, 1), ({"request": UUID(int=5)}, 0),
    ],
)  # fmt: skip
async def test_filters_are_exact_but_for_a_star_at_the_end(
    here: Administered, filters: dict[str, Any], count: int
) -> None:
    """What LIKE has a meaning for has none here."""
    assert len(await found(here, replace(ALL, **filters))) == count
    assert len(await found(here, replace(ALL, **filters), 1)) == min(count, 1)


async def test_the_end_of_the_time_is_excluded(here: Administered) -> None:
    """Two searches side by side show each row once."""
    middle = (await found(here, ALL))[20]["ts"]
    earlier, later = replace(ALL, until=middle), replace(ALL, since=middle)
    assert (len(await found(here, earlier)), len(await found(here, later))) == (20, 21)


def test_the_id_of_a_request_tells_the_time_to_look_at() -> None:
    """Some days after its making at most; an id of another kind tells nothing."""
    made = MORNING + timedelta(hours=1)
    request = UUID(int=round(made.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | 5)
    wide = replace(ALL, since=MORNING - timedelta(days=30), until=MORNING + timedelta(days=30), request=request)
    assert narrowed(wide).since == made - timedelta(seconds=5)
    assert narrowed(wide).until == made + timedelta(days=7)
    assert narrowed(replace(wide, since=MORNING + timedelta(hours=2))).since == MORNING + timedelta(hours=2)
    other = replace(wide, request=UUID(int=4 << 76 | 2 << 62))
    assert narrowed(other) == other


@pytest.mark.parametrize("made_ms", [0, 253_402_300_799_999, 253_402_300_800_000, (1 << 48) - 1])
async def test_an_id_of_any_time_can_be_asked_for(here: Administered, made_ms: int) -> None:
    """Also of one that no clock will show: what is searched is never more than what was wanted."""
    wanted = replace(ALL, request=UUID(int=made_ms << 80 | 7 << 76 | 2 << 62))
    assert ALL.since <= narrowed(wanted).since <= narrowed(wanted).until <= ALL.until
    assert await found(here, wanted) == []


async def test_a_request_is_found_by_its_id(here: Administered) -> None:
    """Its intent and its outcome, which may come hours later."""
    ids = str(UUID(int=round((MORNING.timestamp() + 60) * 1000) << 80 | 7 << 76 | 2 << 62 | 5))
    rows = [
        record(0, id=ids, timestamp="2026-11-22T06:01:00.000001Z"),
        record(1, id=ids, timestamp="2026-11-22T09:01:00.000001Z"),
    ]
    await add_lines(owner_dsn(here.name), trail_of(rows, "three/1")[0])
    shown = await found(here, replace(ALL, request=UUID(ids)))
    assert [row["kind"] for row in shown] == ["outcome", "intent"]

"""Rows of the audit trail in a real PostgreSQL: what goes in is what was hashed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.audit.chain import Chains, Head, begin, link
from proxy.audit.signing import Signer
from proxy.identity.records import SYSTEM_TENANT
from proxy.store import records
from proxy.store.database import Database
from proxy.store.pool import Unavailable
from tests.unit.audit.made import RECORDS, TENANT, record
from tests.unit.store.chained import copied, count
from tests.unit.store.engine import aside, execute, migrated_database, migrated_template, opened, owner_dsn

SECRET = b"07" * 32


@pytest.fixture
async def place() -> AsyncIterator[tuple[Database, str]]:
    """An empty database as the proxy uses it, and how its owner reaches it."""
    async with migrated_database() as name, opened(name, statement_s=10.0) as database:
        yield database, owner_dsn(name)


@pytest.fixture(scope="module")
def shared() -> str:
    """The name of a database for many examples; it ends with the server."""
    name = "canonical_lines"

    async def make() -> None:
        await execute(owner_dsn("postgres"), f"CREATE DATABASE {name} TEMPLATE {await migrated_template()}")

    aside(make)
    return name


def rows_of(found: list[dict[str, Any]], segment: str = "j/1") -> list[records.Row]:
    """Rows of one segment."""
    draft = Chains(segment).draft()
    return [records.row_of(orjson.dumps(each), draft) for each in found]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(RECORDS, min_size=1, max_size=40, unique_by=lambda each: str(each["id"])))
def test_the_line_that_is_hashed_is_the_one_that_postgresql_writes(shared: str, found: list[dict[str, Any]]) -> None:
    """For any record that JSON can hold."""

    async def check() -> None:
        await execute(owner_dsn(shared), "TRUNCATE audit_logs, request_logs")
        rows = rows_of(found)
        async with opened(shared, statement_s=10.0) as database, database.audit() as session:
            await records.add_rows(session, rows)
        assert sorted(await copied(owner_dsn(shared))) == sorted(row.line for row in rows)

    asyncio.run(check())


async def test_an_outcome_and_a_refusal_have_a_row_of_the_request_log(place: tuple[Database, str]) -> None:
    """An intent has none; the columns are those of the audit trail."""
    database, dsn = place
    found = [record(1, "intent"), record(1), record(2, "denied", status=403, outcome="refused", reason="scope")]
    async with database.audit() as session:
        await records.add_rows(session, rows_of(found))
    logged = await execute(
        dsn,
        "SELECT method, tool_name, status_code, outcome, upstream_ms, host(client_ip) FROM request_logs ORDER BY id",
    )
    assert [tuple(row) for row in logged] == [
        ("tools/call", "search", 200, "ok", 10.0, "10.1.2.3"),
        ("tools/call", "search", 403, "refused", 10.0, "10.1.2.3"),
    ]
    kinds = await execute(dsn, "SELECT kind, actor_type, seq FROM audit_logs ORDER BY seq")
    assert [tuple(row) for row in kinds] == [
        ("intent", "api_key", 1),
        ("outcome", "api_key", 2),
        ("denied", "api_key", 3),
    ]


async def test_rows_that_are_added_again_stay_one(place: tuple[Database, str]) -> None:
    """A commit whose answer was lost is repeated; so are heads."""
    database, dsn = place
    rows = rows_of([record(number, kind) for number in range(20) for kind in ("intent", "outcome")])
    head = records.signed(Head(TENANT, "j/1", 40, True, rows[-1].chain, 1, 2, None), Signer(SECRET))
    for _ in range(2):
        async with database.audit() as session:
            await records.add_rows(session, rows)
            await records.add_heads(session, [head])
    assert [
        (await execute(dsn, f"SELECT count(*) FROM {table}"))[0][0]
        for table in ("audit_logs", "request_logs", "audit_heads")
    ] == [40, 20, 1]


async def test_rows_that_should_be_new_and_are_not_void_the_transaction(place: tuple[Database, str]) -> None:
    """It is told, and they can be added as what they are, together with those that are new."""
    database, dsn = place
    rows = rows_of([record(number) for number in range(3)])
    async with database.audit() as session:
        await records.add_rows(session, rows[:2], new=True)
    with pytest.raises(records.Repeated):
        async with database.audit() as session:
            await records.add_rows(session, rows[1:], new=True)
    assert await count(dsn, "audit_logs") == 2
    async with database.audit() as session:
        await records.add_rows(session, rows[1:])
    assert (await count(dsn, "audit_logs"), await count(dsn, "request_logs")) == (3, 3)


async def test_the_chain_in_the_table_is_that_of_its_lines(place: tuple[Database, str]) -> None:
    """Recomputed from what PostgreSQL says."""
    database, dsn = place
    async with database.audit() as session:
        await records.add_rows(session, rows_of([record(number) for number in range(50)]))
    expected = begin("j/1", TENANT)
    stored = [bytes(row[0]) for row in await execute(dsn, "SELECT chain FROM audit_logs ORDER BY seq")]
    for text, digest in zip(await copied(dsn), stored, strict=True):
        expected = link(expected, text)
        assert digest == expected


async def test_an_act_of_administration_is_written_in_its_own_transaction(place: tuple[Database, str]) -> None:
    """With a chain and a signed head of its own; rolled back with the act."""
    database, dsn = place
    signer = Signer(SECRET)
    act = {
        "kind": "outcome", "id": "0198c0de-0000-7000-8000-000000000001", "timestamp": "2026-11-22T12:00:00.000001Z",
        "rpc_method": "config.set", "target_kind": "config", "target": "log.level", "outcome": "ok",
        "principal": "ada", "source": "command line", "arguments": {"value": "debug"},
    }  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        async with database.across_tenants("write") as session:
            await records.add_direct(session, act, signer)
            raise ZeroDivisionError
    async with database.across_tenants("write") as session:
        await records.add_direct(session, act, signer)
    [row] = await execute(
        dsn, "SELECT tenant_id, actor_type, actor_id, action, segment, chain, arguments FROM audit_logs"
    )
    assert (str(row[0]), *row[1:4]) == (SYSTEM_TENANT, "system", "ada", "config.set")
    [head] = await execute(dsn, "SELECT * FROM audit_heads")
    assert (head["head"], head["row_count"], head["is_final"]) == (row["chain"], 1, True)
    ts = int(head["first_ts"].timestamp() * 1_000_000)
    said = Head(SYSTEM_TENANT, row["segment"], 1, True, bytes(row["chain"]), ts, ts, None)
    assert signer.public.is_signed(said.text(), bytes(head["signature"]))
    assert await execute(dsn, "SELECT FROM request_logs") == []


async def test_acts_name_the_one_before_them_whoever_writes_it(place: tuple[Database, str]) -> None:
    """Of their tenant, and also those of the same moment: each but the last is missed when it is gone with its head."""
    database, dsn = place
    tenants = [SYSTEM_TENANT, TENANT]

    async def act(number: int) -> None:
        async with database.across_tenants("write") as session:
            await records.add_direct(session, record(number) | {"tenant_id": tenants[number % 2]}, None)

    for tenth in range(3):
        await asyncio.gather(*(act(4 * tenth + number) for number in range(4)))
    for tenant in tenants:
        heads = await execute(dsn, f"SELECT segment, previous FROM audit_heads WHERE tenant_id = '{tenant}'")
        before = dict(map(tuple, heads))
        [last] = before.keys() - before.values()
        walked = [last]
        while (earlier := before[walked[-1]]) is not None:
            walked.append(earlier)
        assert len(walked) == len(set(walked)) == 6


async def test_without_a_key_a_head_has_no_signature(place: tuple[Database, str]) -> None:
    """It is there all the same."""
    database, dsn = place
    async with database.across_tenants("write") as session:
        await records.add_direct(session, record(1), None)
    [head] = await execute(dsn, "SELECT key_id, signature FROM audit_heads")
    assert tuple(head) == (None, None)


@pytest.mark.parametrize(
    "spoilt",
    [{"status": 70_000}, {"kind": "rumour"}, {"arguments_hash": "0x"}, {"bytes_in": -1}],
    ids=str,
)  # fmt: skip
async def test_a_row_that_no_table_takes_is_told_from_a_database_that_is_away(
    place: tuple[Database, str], spoilt: dict[str, Any]
) -> None:
    """Only the first is the row's fault."""
    database, dsn = place
    with pytest.raises(records.Unusable):
        async with database.audit() as session:
            await records.add_rows(session, rows_of([record(1, **spoilt)]))
    await execute(dsn, "ALTER TABLE audit_logs RENAME TO elsewhere")
    with pytest.raises(Unavailable):
        async with database.audit() as session:
            await records.add_rows(session, rows_of([record(1)]))

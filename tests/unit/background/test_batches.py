"""A batch of records: rows are made in order, committed together, or told why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.audit.chain import Chains
from proxy.background.batches import FULL, make, send
from proxy.spool.kinds import carried
from proxy.spool.quarantine import Entry, Quarantine
from proxy.store.database import Database
from tests.unit.audit.made import TENANT
from tests.unit.background.shipped import REFUSED, UNFIT, Spoken, call, means_of, raw
from tests.unit.store.chained import chains, count
from tests.unit.store.engine import empty_database, execute, migrated_database, opened, owner_dsn


async def test_rows_are_made_in_the_order_of_records(tmp_path: Path) -> None:
    """Carried beginnings and what is in the quarantine are left out, and what no row can be made of is told."""
    async with means_of(Database.__new__(Database), tmp_path) as means:
        means.quarantine.add(Entry(raw(2), "why", 0.0, "j/1"))
        records = [*call(1), carried(raw(9, "intent")), raw(2), raw(3, **UNFIT), raw(4)]
        batch = await make(means, records, 100, Chains("j/1").draft())
    assert [row.line.split(b"\t")[5] for row in batch.rows] == [b"1", b"2", b"3"]
    assert [record for record, _ in batch.unfit] == [raw(3, **UNFIT)]
    assert batch.end == 100 + sum(map(len, records)) + 8 * len(records)
    assert batch.draft.at(TENANT).rows == 3


async def test_a_batch_is_committed_whole_or_not_at_all(tmp_path: Path) -> None:
    """What PostgreSQL refuses is not its being away."""
    async with (
        migrated_database() as name,
        opened(name, statement_s=10.0) as database,
        means_of(database, tmp_path) as means,
    ):
        said: list[int] = []
        means.after_commit = lambda: said.append(1)
        draft = Chains("j/1").draft()
        good, bad = await make(means, call(1), 0, draft), await make(means, [*call(2), raw(3, **REFUSED)], 0, draft)
        assert await send(means, bad) == ("refused", "NumericValueOutOfRangeError")
        assert await count(owner_dsn(name), "audit_logs") == 0
        assert await send(means, good) == ("sent", "")
        assert said == [1]
        assert (means.counts.records, means.counts.rows, means.counts.batches) == (2, 2, 1)
        assert means.counts.lag_s == pytest.approx(51_199, abs=1)
        assert len(await chains(owner_dsn(name))) == 1


async def test_what_is_unfit_is_on_the_disk_before_a_row_is_committed(tmp_path: Path) -> None:
    """When the quarantine takes nothing, nothing is committed."""
    async with (
        migrated_database() as name,
        opened(name, statement_s=10.0) as database,
        means_of(database, tmp_path) as means,
    ):
        batch = await make(means, [raw(1, **UNFIT), *call(2)], 0, Chains("j/1").draft())
        means.quarantine = Quarantine(tmp_path, limit=10)
        assert await send(means, batch) == ("stuck", FULL)
        assert await count(owner_dsn(name), "audit_logs") == 0
        assert means.counts.quarantine_failures == 1
        means.quarantine = Quarantine(tmp_path)
        means.after_commit = lambda: said.append(len(Quarantine(tmp_path)))
        said: list[int] = []
        assert (await send(means, batch))[0] == "sent"
        assert said == [1]
        assert isinstance(means.log, Spoken)
        assert means.log.lines == ["record set aside"]


async def test_a_database_without_tables_is_away(tmp_path: Path) -> None:
    """The migrations are to come; so is one that is full, or read-only."""
    async with (
        empty_database() as name,
        opened(name, statement_s=10.0) as database,
        means_of(database, tmp_path) as means,
    ):
        batch = await make(means, call(1), 0, Chains("j/1").draft())
        assert (await send(means, batch))[0] == "away"
    async with (
        migrated_database() as name,
        opened(name, statement_s=10.0) as database,
        means_of(database, tmp_path) as means,
    ):
        await execute(owner_dsn(name), "REVOKE INSERT ON audit_logs FROM mcp_manager_audit")
        batch = await make(means, call(1), 0, Chains("j/1").draft())
        assert await send(means, batch) == ("away", "InsufficientPrivilegeError")


async def test_a_role_that_is_not_there_yet_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL calls it a wrong value; it is none of the record's."""
    monkeypatch.setattr("proxy.store.database._AUDIT", "mcp_manager_to_come")
    async with (
        migrated_database() as name,
        opened(name, statement_s=10.0) as database,
        means_of(database, tmp_path) as means,
    ):
        batch = await make(means, call(1), 0, Chains("j/1").draft())
        assert await send(means, batch) == ("away", "InvalidParameterValueError")


@pytest.mark.parametrize(
    ("condition", "fate"),
    [
        ("disk_full", ("away", "DiskFullError")), ("admin_shutdown", ("away", "AdminShutdownError")),
        ("check_violation", ("refused", "CheckViolationError")),
        ("unique_violation", ("refused", "UniqueViolationError")),
    ],
)  # fmt: skip
async def test_a_commit_may_fail_as_a_statement_may(tmp_path: Path, condition: str, fate: tuple[str, str]) -> None:
    """Rules that wait for the end of the transaction, and disks that are full just then."""
    async with (
        migrated_database() as name,
        opened(name, statement_s=10.0) as database,
        means_of(database, tmp_path) as means,
    ):
        for statement in (
            "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{condition}'; END $$",
            "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON audit_logs DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION fails()",
        ):
            await execute(owner_dsn(name), statement)
        batch = await make(means, call(1), 0, Chains("j/1").draft())
        assert await send(means, batch) == fate
        await execute(owner_dsn(name), "DROP TRIGGER fails ON audit_logs")
        assert await send(means, batch) == ("sent", "")

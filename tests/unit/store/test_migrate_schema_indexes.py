"""Each of the 38 indexes exists, and the planner takes it for the query it is for."""

from __future__ import annotations

import re

import pytest

from benchmarks.bench_sql import QUERIES, measure, time_ms, uses, worth
from benchmarks.sql_seed import SMALL
from tests.unit.store.conftest import Connection

GIVEN_NAMES = {
    "idx_mcp_servers_tenant_status",
    "idx_mcp_servers_endpoint_transport",
    "idx_server_tools_name_server",
    "idx_users_tenant_role",
    "idx_servers_discovery_composite",
}


async def test_there_are_33_essential_and_5_composite_indexes(owner: Connection) -> None:
    """Those that have a query, no more; the names that the front end knows among them."""
    rows = await owner.fetch("SELECT relname, obj_description(oid, 'pg_class') FROM pg_class"
                             " WHERE relname LIKE 'idx\\_%' AND NOT relispartition")  # fmt: skip
    names = {row[0] for row in rows}
    assert names == set(QUERIES)
    assert len([name for name in names if name.endswith("_composite")]) == 5
    assert len(names) == 38
    assert names >= GIVEN_NAMES
    assert all(row[1] for row in rows)


@pytest.mark.parametrize(("index", "query"), QUERIES.items(), ids=str)
async def test_the_planner_takes_the_index(seeded: Connection, index: str, query: str) -> None:
    """With its own costs: nothing is switched off."""
    assert await uses(seeded, index, query)


@pytest.mark.parametrize("index", ["idx_mcp_servers_endpoint_transport", "idx_request_logs_trace"])
async def test_an_index_that_is_gone_is_noticed(seeded: Connection, index: str) -> None:
    """The rule above can fail."""
    await seeded.execute(f"DROP INDEX {index}")
    assert not await uses(seeded, index, QUERIES[index])


async def test_the_measurement_leaves_the_index_where_it_was(seeded: Connection) -> None:
    """It drops the index in a transaction that is rolled back."""
    index = "idx_request_logs_trace"
    each = await worth(seeded, index, QUERIES[index])
    assert each.gain_percent > 40
    assert await uses(seeded, index, QUERIES[index])
    assert await time_ms(seeded, QUERIES[index]) < each.without_ms


@pytest.mark.alone
async def test_the_indexes_save_most_of_the_time(fresh: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The measurement as an operator runs it, on fewer rows: a line per index, the median last."""
    assert await measure(fresh, SMALL) >= 40
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("idx_")]) == 38
    assert re.fullmatch(r"median_gain_percent: \d+", lines[-1])

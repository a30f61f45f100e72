"""Where the trail is read from."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from proxy.commands.audit_source import Range, portions, reader_of
from proxy.config import load
from proxy.config.models import Config
from proxy.store.accounts import Rejected
from proxy.store.pool import Unavailable
from tests.unit.commands.auditor import Auditor, auditor
from tests.unit.commands.conftest import Operator
from tests.unit.store.engine import cluster, folder
from tests.unit.store.recorded import EVENING, MORNING

__all__ = ["auditor"]


async def count(config: Config) -> int:
    async with reader_of(config) as reader:
        return await reader.places(MORNING, EVENING, None)


def configured(operator: Operator, **postgres: object) -> Config:
    config = json.loads(operator.config.read_text())
    operator.config.write_text(json.dumps(config | {"postgres": config["postgres"] | postgres}))
    return load(operator.config, {})


def test_it_is_the_configured_database(auditor: Auditor) -> None:
    """As the user of `postgres.dsn`."""
    assert asyncio.run(count(configured(auditor))) == 2


def test_long_queries_have_a_replica_of_their_own(auditor: Auditor) -> None:
    """If one is configured."""
    with pytest.raises(Unavailable):
        asyncio.run(count(configured(auditor, analytics_dsn="postgresql://u:p@127.0.0.1:1/d")))


async def portions_of(config: Config, asked: Range) -> list[tuple[datetime, datetime]]:
    async with reader_of(config) as reader:
        return [each async for each in portions(reader, asked, None)]


def test_a_range_is_read_day_by_day(auditor: Auditor) -> None:
    """The first and the last as far as they are asked for."""
    since, until = datetime(2026, 11, 20, 18, tzinfo=UTC), datetime(2026, 11, 22, 6, tzinfo=UTC)
    days = [datetime(2026, 11, day, tzinfo=UTC) for day in (21, 22)]
    assert asyncio.run(portions_of(configured(auditor), Range(since, until, None))) == [
        (since, days[0]), (days[0], days[1]), (days[1], until),
    ]  # fmt: skip


def test_the_millennia_to_come_are_not_read_day_by_day(auditor: Auditor) -> None:
    """Nothing was recorded then, or little by a clock that is wrong."""
    since, until = datetime.now(UTC), datetime(9999, 1, 1, tzinfo=UTC)
    found = asyncio.run(portions_of(configured(auditor), Range(since, until, None)))
    assert len(found) <= 4
    assert (found[0][0], found[-1][1]) == (since, until)
    assert all(one[1] == other[0] for one, other in pairwise(found))


def test_an_embedded_server_runs_for_as_long(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started, asked and stopped; it has no tables here, as reading makes none."""
    state = folder()
    config = json.loads(operator.config.read_text())
    operator.config.write_text(json.dumps(config | {"postgres": {"embedded": True}, "state_dir": str(state)}))
    with pytest.raises(Rejected, match="migrate up"):
        asyncio.run(count(load(operator.config, {})))
    assert not list(Path(state, "postgres").rglob("postmaster.pid"))
    assert cluster().dsn

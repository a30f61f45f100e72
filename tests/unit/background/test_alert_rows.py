"""Rules come from the file and from rows, and what happened goes to the table; PostgreSQL may be away meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.background import alert_rows as module
from proxy.background.alert_rows import AlertRows, rule_of_row, rules_of_file
from proxy.background.alert_states import Rule
from proxy.config.alerts import Alerts as Settings
from proxy.identity.records import SYSTEM_TENANT
from proxy.store.alerts import AlertRow
from proxy.store.alerts import put as put_rows
from proxy.store.database import Bounds, Database, Places
from tests.unit.background.conftest import ACME
from tests.unit.background.test_alerts import Watch
from tests.unit.store.engine import empty_database, execute, opened, owner_dsn

SLOW = "22222222-2222-2222-2222-222222222222"
#: No default rule but one, so that a value says what fires.
ONE = {
    "rules": {
        **{name: {"enabled": False} for name in Settings().in_force},
        "mine": {"metric": "p50_ms", "threshold": 10, "clear": 8},
    }
}


class Kept:
    """Alerts, and what keeps them and the tables together."""

    def __init__(self, database: Database | None, settings: dict[str, Any] | None = None) -> None:
        self.watch = Watch()
        self.alerts = self.watch.alerts
        self.settings = Settings.model_validate(ONE if settings is None else settings)
        self.rows = AlertRows(self.alerts, database, self.settings, self.watch.time, self.watch.log)  # type: ignore[arg-type]

    async def step(self, value: float, after_s: float = 5.0) -> None:
        """A look after so long, then what follows for the tables."""
        await self.watch.see(value, after_s)
        await self.rows.step()


@pytest.fixture
async def name(name: str) -> str:
    """With a rule of the tenant."""
    await execute(
        owner_dsn(name),
        "INSERT INTO performance_alerts (id, tenant_id, name, metric, threshold)"
        f" VALUES ('{SLOW}', '{ACME}', 'slow', 'p95_ms', 10)",
    )
    return name


async def happened(name: str) -> list[tuple[Any, ...]]:
    """Owner, name, last value and end of each episode."""
    query = """SELECT t.slug, e.name, e.value, e.ended FROM alert_events AS e JOIN tenants AS t ON t.id = e.tenant_id
        ORDER BY t.slug, e.id"""
    return [tuple(row) for row in await execute(owner_dsn(name), query)]


async def states(name: str) -> list[tuple[Any, ...]]:
    query = "SELECT state, last_value FROM performance_alerts"
    return [tuple(row) for row in await execute(owner_dsn(name), query)]


def test_a_rule_of_the_file_says_what_was_written() -> None:
    """The slack of a clear threshold that is not written is there."""
    settings = Settings.model_validate(
        {"rules": {"mine": {"metric": "p95_ms", "threshold": 100, "holds_for": "1m", "server": "up"}}}
    )
    rules = {rule.name: rule for rule in rules_of_file(settings)}
    assert rules["mine"] == Rule(
        "file:mine", "mine", SYSTEM_TENANT, "system", "p95_ms", ">", 100.0, 90.0, "up", for_s=60.0
    )
    assert rules["error_rate"].clear == 0.02 and len(rules) == 9


ROW = AlertRow(SLOW, ACME, "acme", None, "slow", "p95_ms", ">", 10.0, None, 300, 0, 0, 900, 0, "medium", ())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"clear": 9.0, "channels": ()}),
        ({"clear_threshold": 5.0}, {"clear": 5.0}),
        ({"clear_threshold": 50.0}, {"clear": 10.0}),
        ({"comparison": "<", "clear_threshold": 5.0}, {"clear": 10.0}),
        ({"comparison": "<="}, {"clear": 11.0}),
        ({"channels": ("ops", "webhook:b")}, {"channels": ("ops", "b")}),
        ({"tenant_id": SYSTEM_TENANT}, {"channels": None}),
        ({"tenant_id": SYSTEM_TENANT, "channels": ("ops",)}, {"channels": ("ops",)}),
        ({"server_id": ACME}, {"server": ACME}),
    ],
)
def test_a_rule_of_a_row_makes_sense_whatever_its_columns_say(given: Any, expected: Any) -> None:
    """A tenant's goes to whom it names; one of the system tenant to all, if it names nobody."""
    rule = rule_of_row(ROW._replace(**given))
    assert {name: getattr(rule, name) for name in expected} == expected


async def test_rules_of_both_kinds_fire_and_are_recorded(name: str, database: Database) -> None:
    """As their owner's; the end, too."""
    kept = Kept(database)
    await kept.step(1)
    await kept.step(11)
    assert await happened(name) == [("acme", "slow", 11, None), ("system", "mine", 11, None)]
    assert await states(name) == [("firing", 11)]
    assert kept.alerts.changed == {}
    await kept.step(1)
    assert await happened(name) == [("acme", "slow", 1, "clear"), ("system", "mine", 1, "clear")]
    assert await states(name) == [("ok", 1)]


async def test_a_rule_that_is_changed_or_gone_is_noticed_with_the_next_look(name: str, database: Database) -> None:
    """Its alert ends with it."""
    kept = Kept(database)
    for _ in range(2):
        await kept.step(11)
    await execute(owner_dsn(name), "UPDATE performance_alerts SET threshold = 20")
    for _ in range(2):
        await kept.step(11)
    assert await happened(name) == [("acme", "slow", 11, "clear"), ("system", "mine", 11, None)]
    await execute(owner_dsn(name), "UPDATE performance_alerts SET threshold = 5")
    for _ in range(2):
        await kept.step(11)
    await execute(owner_dsn(name), "UPDATE performance_alerts SET is_enabled = false")
    for _ in range(3):
        await kept.step(11)
    assert [row for row in await happened(name) if row[0] == "acme"][-1] == ("acme", "slow", 11, "removed")
    assert (await states(name))[0][0] == "ok"


async def test_while_postgresql_is_away_alerts_go_on_and_are_recorded_when_it_is_back(name: str) -> None:
    """Begin and end of what was over meanwhile are there as well."""
    gone = Database(Places("postgresql://nobody@127.0.0.1:1/nothing"), {"write": Bounds(connect_s=0.2)})
    await gone.open()
    kept = Kept(gone)
    for value in (11, 1, 11):
        await kept.step(value)
    assert kept.watch.events == ["alert firing", "alert resolved", "alert firing"]
    assert kept.watch.statuses == ["firing", "resolved"]
    assert len(kept.alerts.changed) == 2
    await gone.close()
    async with opened(name, connections=2, statement_s=5) as database:
        kept.rows._database = database
        await kept.step(12)
        assert await happened(name) == [("system", "mine", 1, "clear"), ("system", "mine", 12, None)]
        assert kept.alerts.changed == {}


async def test_what_changes_while_it_is_written_is_written_again(name: str, database: Database) -> None:
    """An alert that ends just then."""
    kept = Kept(database)
    await kept.step(11)
    [episode] = kept.alerts.firing
    kept.alerts.changed[episode.id] = episode
    ended, episode.resolved_at, episode.ended = episode.started_at + 1, None, None

    async def put(*arguments: Any) -> None:
        await put_rows(*arguments)
        episode.resolved_at, episode.ended = ended, "clear"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "put", put)
        await kept.rows.step()
    assert list(kept.alerts.changed) == [episode.id]
    await kept.rows.step()
    assert kept.alerts.changed == {} and ("system", "mine", 11, "clear") in await happened(name)


async def test_every_minute_it_is_said_what_fires_still_and_the_last_values(name: str, database: Database) -> None:
    """A tenant's rule that is well has a last value, too."""
    kept = Kept(database)
    await kept.step(1)
    await kept.step(1, after_s=60)
    assert await states(name) == [("ok", 1)]
    await kept.step(11)
    await execute(owner_dsn(name), "UPDATE alert_events SET seen_at = now() - interval '4 minutes'")
    await kept.step(12, after_s=60)
    late = await execute(owner_dsn(name), "SELECT 1 FROM alert_events WHERE seen_at < now() - interval '1 minute'")
    assert late == [] and await states(name) == [("firing", 12)]


async def test_rows_of_a_tenant_that_is_gone_hold_up_nobody(name: str, database: Database) -> None:
    """They are counted."""
    kept = Kept(database)
    await kept.step(1)
    await kept.watch.see(11)
    await execute(owner_dsn(name), f"DELETE FROM tenants WHERE id = '{ACME}'")
    await kept.rows.step()
    assert kept.rows.refused == 1 and kept.alerts.changed == {}
    assert await happened(name) == [("system", "mine", 11, None)]


async def test_many_tenants_are_written_in_turn(name: str, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many in a step."""
    monkeypatch.setattr(module, "_MOST_TENANTS", 1)
    kept = Kept(database)
    await kept.step(1)
    await kept.step(11)
    assert len(await happened(name)) == 1
    await kept.step(11, after_s=1)
    assert len(await happened(name)) == 2


async def test_the_end_of_the_process_ends_its_alerts(name: str, database: Database) -> None:
    """Nobody waits for an end that never comes."""
    kept = Kept(database)
    await kept.step(11)
    await kept.rows.finish()
    assert await happened(name) == [("system", "mine", 11, "stopped")]


async def test_without_a_database_the_rules_of_the_file_are_all(name: str) -> None:
    """Nothing waits for a table; a changed configuration is in force with the next look."""
    kept = Kept(None)
    await kept.step(11)
    assert kept.alerts.changed == {} and len(kept.alerts.firing) == 1
    kept.rows.configure(Settings.model_validate({"enabled": False}))
    await kept.step(11)
    assert kept.alerts.firing == []
    await kept.rows.finish()


async def test_before_the_migrations_it_is_quiet() -> None:
    """And the rules of the file hold."""
    async with empty_database() as name, opened(name, connections=1, statement_s=5) as database:
        kept = Kept(database)
        await kept.step(11)
        assert len(kept.alerts.firing) == len(kept.alerts.changed) == 1

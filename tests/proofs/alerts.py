"""Alerts from the condition to the receiver: real time, real loops, a real PostgreSQL and real sockets.

python -m tests.proofs.alerts [--short]

Values begin and cease to be bad at random moments. It is measured how long after that (and after the durations of the
rule) a webhook has the notification, also while PostgreSQL does not answer; of that alert, since the proxy takes
PostgreSQL for gone. And it is counted how often a value that dances around its threshold is told of.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.rig import Figure, conclude
from proxy.background.alerting import Alerting, Around
from proxy.background.observing import Clocks
from proxy.background.signals import Sources
from proxy.background.supervisor import Supervisor
from proxy.config.alerts import Alerts as Settings
from proxy.identity.uuid7 import RecordIds
from proxy.store.database import Bounds, Database, Places
from tests.proofs.postgres_relay import Relay
from tests.unit.background.notices import Endpoint, endpoint, webhook
from tests.unit.background.test_alerts import Log
from tests.unit.store.engine import cluster, execute, login_dsn, migrated_database, owner_dsn

ACME: Final = "11111111-1111-1111-1111-111111111111"
INTERVAL_S: Final = 1.0
HOLDS_S: Final = 1.0
#: What is allowed besides the interval.
GRACE_S: Final = 1.0
_RULES: Final = {
    "at_once": {"metric": "spool_share", "threshold": 0.5, "cooldown": 0},
    "after_a_second": {"metric": "loop_lag_ms", "threshold": 100, "holds_for": "1s", "keep_firing_for": "1s",
                       "cooldown": 0},
    "dancing": {"metric": "memory_share", "threshold": 0.5, "cooldown": 0},
    "gone": {"metric": "postgres_away", "comparison": ">=", "threshold": 1, "clear": 0, "cooldown": 0},
}  # fmt: skip


@dataclass
class Length:
    """How much of it."""

    rounds: int = 15


@dataclass
class Values:
    """What the alerts see."""

    spool: float = 0.0
    lag_s: float = 0.0
    p95_ms: float = 0.0


@dataclass
class Findings:
    """Seconds beyond the durations of the rule, by kind; and what a dancing value led to."""

    begins: dict[str, list[float]] = field(default_factory=dict)
    ends: dict[str, list[float]] = field(default_factory=dict)
    dances: int = 0
    recorded: int = 0
    told: int = 0


class Proof:
    """The alerts of one process, and their receiver."""

    def __init__(self, here: Endpoint, database: Database) -> None:
        self.values, self.here, self.database = Values(), here, database
        self.found = Findings()
        log: Any = Log()
        self.supervisor = Supervisor(log)
        clocks = Clocks(time.time, time.monotonic)
        around = Around(
            self.supervisor.spawn,
            clocks,
            random.random,
            RecordIds(time.time, os.urandom),
            log,
            "proof",
        )
        sources = Sources(
            lambda metric, *rest: self.values.p95_ms if metric == "p95_ms" else None,
            dict,
            spool_share=lambda: self.values.spool,
            postgres_away=lambda: database.numbers()["write"].circuit_open,
            loop_lag_s=lambda: self.values.lag_s,
            memory_share=lambda: random.uniform(0.46, 0.54),  # its clear threshold is 0.45
        )
        settings = Settings.model_validate(
            {
                "interval": f"{INTERVAL_S:g}s",
                "rules": {**{name: {"enabled": False} for name in Settings().in_force}, **_RULES},
                "webhooks": {},
            }
        ).model_copy(update={"webhooks": {"ops": webhook(here.url, tenants=True)}})
        self.alerting = Alerting(settings, sources, database, around)

    def start(self) -> None:
        for name, interval_s, step, jitter in self.alerting.steps():
            self.supervisor.every(name, interval_s, step, jitter)
        self.supervisor.every("database", 0.25, self.database.probe)

    async def told(self, alert: str, status: str) -> float:
        """When the receiver heard of it next."""
        seen = len(self.here.got)
        async with asyncio.timeout(30):
            while True:
                await self.here.until(seen + 1)
                now, body = time.monotonic(), self.here.bodies[seen]
                seen += 1
                if (body["alert"], body["status"]) == (alert, status):
                    return now

    async def swing(self, alert: str, rounds: int, bad: Callable[[bool], Awaitable[None]], holds_s: float) -> None:
        """Let a value be bad and good again, and measure when that is known."""
        for status, kept in [("firing", self.found.begins), ("resolved", self.found.ends)] * rounds:
            await asyncio.sleep(random.uniform(0.2, 0.2 + INTERVAL_S))
            heard = asyncio.get_running_loop().create_task(self.told(alert, status))
            await asyncio.sleep(0)
            await bad(status == "firing")
            began = time.monotonic()
            kept.setdefault(alert, []).append(await heard - began - holds_s)


async def run(length: Length) -> Findings:
    """All of it at the same time; PostgreSQL stops answering once in the middle."""
    async with migrated_database() as name:
        await execute(owner_dsn(name), f"INSERT INTO tenants (id, slug, name) VALUES ('{ACME}', 'acme', 'Acme')")
        await execute(
            owner_dsn(name),
            "INSERT INTO performance_alerts (tenant_id, name, metric, threshold, cooldown_s, channels)"
            f" VALUES ('{ACME}', 'of_a_tenant', 'p95_ms', 500, 0, '[\"ops\"]')",
        )
        async with running(name) as (proof, relay):
            await _swings(proof, relay, length)
            proof.found.dances = sum(body["alert"] == "dancing" for body in proof.here.bodies)
            await proof.alerting.finish()
            await proof.supervisor.stop(5)
        rows = await execute(owner_dsn(name), "SELECT count(*) FROM alert_events WHERE resolved_at IS NOT NULL")
        proof.found.recorded = rows[0][0]
        proof.found.told = sum(body["status"] == "firing" for body in proof.here.bodies)
    return proof.found


@asynccontextmanager
async def running(name: str) -> AsyncIterator[tuple[Proof, Relay]]:
    """Alerts of a process that reaches this database through a relay."""
    relay = Relay(cluster())
    server = await relay.start()
    database = Database(Places(relay.dsn(login_dsn(name))), {"write": Bounds(3, 1.0, 0.5, 0.5)})
    await database.open()
    async with endpoint() as here:
        proof = Proof(here, database)
        proof.start()
        await asyncio.sleep(2 * INTERVAL_S)  # rows are read
        yield proof, relay
    await database.close()
    server.close()
    await relay.stop()


async def _swings(proof: Proof, relay: Relay, length: Length) -> None:
    async def spool(bad: bool) -> None:
        proof.values.spool = 0.9 if bad else 0.1

    async def lag(bad: bool) -> None:
        proof.values.lag_s = 0.3 if bad else 0.0

    async def p95(bad: bool) -> None:
        proof.values.p95_ms = 900.0 if bad else 1.0

    async def away(bad: bool) -> None:
        relay.delay_s = 60.0 if bad else 0.0
        async with asyncio.timeout(20):
            while proof.database.numbers()["write"].circuit_open != bad:
                await asyncio.sleep(0.02)

    await asyncio.gather(
        proof.swing("at_once", length.rounds, spool, 0.0),
        proof.swing("after_a_second", length.rounds // 2 or 1, lag, HOLDS_S),
        proof.swing("of_a_tenant", length.rounds, p95, 0.0),
        proof.swing("gone", 1 + length.rounds // 8, away, 0.0),
    )


def figures(short: bool) -> list[Figure]:
    """What is shown."""
    found = asyncio.run(run(Length(2) if short else Length()))
    shown = []
    for alert, begins in found.begins.items():
        for what, each in (("begins", begins), ("ends", found.ends[alert])):
            name = f"alert '{alert}' {what}, longest of {len(each)} after its condition"
            shown.append(Figure(name, max(each), INTERVAL_S + GRACE_S, "s"))
    shown.append(Figure("notifications of a value that dances around its threshold", found.dances, 1, ""))
    shown.append(Figure("alerts told, but not in the table with their end", found.told - found.recorded, 0, ""))
    return shown


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true")
    return conclude(figures(parser.parse_args(arguments).short))


if __name__ == "__main__":
    sys.exit(main())

"""Tenants on pooled connections, in every order: nobody is shown a row of another tenant, or changes one.

A hypothesis state machine of two tenants and the system tenant calls every function of `proxy/store` that takes a
session (`isolation_calls.py`), in transactions that are interleaved, rolled back, broken by errors, cancelled in the
middle, and whose server process is terminated; the admin plane, the reader of the registry and the writer of records
use the same connections in between. After each step the rows of everyone else must be as they were.

python -m tests.proofs.isolation [STEPS]     the last line printed is `steps: N foreign_rows: N`
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Collection, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import asyncpg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from benchmarks.rig import Figure
from proxy.store import registry
from proxy.store.accounts import Rejected, administration
from proxy.store.database import Bounds, Database, Places, Purpose, Session, Unavailable
from proxy.store.learned import Unusable
from tests.proofs.isolation_calls import CALLS, LEARNING, TENANTS, Shown, Tenant
from tests.proofs.load import tell
from tests.unit.store.engine import login_dsn, migrated_database, owner_dsn
from tests.unit.store.test_migrate_schema_isolation import readable

_Result = TypeVar("_Result")

#: What a caller of the store has to reckon with, and a statement on a connection that was lost before it.
EXPECTED: Final = (Unavailable, Unusable, Rejected, asyncpg.PostgresError)
#: Tables that some call writes, with the column that names the tenant.
WRITTEN: Final = {
    "tenants": "id",
    **dict.fromkeys(
        (
            "mcp_servers", "server_tools", "server_resources", "server_prompts", "enhanced_api_keys", "api_keys",
            "api_tokens", "system_events", "circuit_breakers", "connection_pools", "request_queues",
            "server_health_checks", "breaker_orders", "maintenance_windows", "request_logs", "audit_logs",
            "audit_heads", "error_logs", "security_events", "server_metrics", "api_key_usage", "tenant_usage",
            "usage_writers", "performance_alerts", "alert_events", "data_retention_policies", "system_configs",
        ),
        "tenant_id",
    ),
}  # fmt: skip
#: So long does a statement wait for a row that another transaction has locked, seconds.
STATEMENT_S: Final = 0.25
#: Connections of the pool that writes: fewer than there are transactions at times.
CONNECTIONS: Final = 4
#: Transactions that are kept open over several steps.
SLOTS: Final = (0, 1)


@dataclass
class Length:
    """How much of it."""

    steps: int = 5000
    steps_each: int = 50
    """Of one run of the machine."""
    hole: str = ""
    """A statement that makes a hole into the isolation: it has to be found."""


@dataclass
class Findings:
    """What was seen."""

    steps: int = 0
    foreign_rows: int = 0
    own_rows: int = 0
    """Rows of the asking tenant that were shown: else the proof would be about nothing."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Steps of each kind."""
    done: Counter[str] = field(default_factory=Counter)
    """Calls that went through."""
    failed: Counter[str] = field(default_factory=Counter)
    """Calls that did not, and how."""
    notes: list[str] = field(default_factory=list)


class World:
    """The database, the store as the proxy uses it, and an owner who sees everything."""

    def __init__(self, loop: asyncio.AbstractEventLoop, found: Findings) -> None:
        self.loop = loop
        self.found = found
        self._stack = AsyncExitStack()
        self.database: Database
        self.owner: asyncpg.Connection[asyncpg.Record]
        #: Transactions at the same time ask the owner one after the other.
        self._asking = asyncio.Lock()
        self._look = ""
        self._digests: dict[tuple[str, str], str] = {}

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run one step."""
        return self.loop.run_until_complete(work)

    async def open(self) -> None:
        """A new database with one row of each tenant in every table that has tenants."""
        name = await self._stack.enter_async_context(migrated_database())
        self.owner = await asyncpg.connect(owner_dsn(name))
        self._stack.push_async_callback(self.owner.close)
        for tenant in TENANTS:
            await self.owner.execute(tenant.rows)
            for table in ("api_keys", "api_tokens", "maintenance_windows", "performance_alerts"):
                await self.owner.execute(f"UPDATE {table} SET id = tenant_id WHERE tenant_id = $1", tenant.id)
        await self.owner.execute("UPDATE audit_logs SET segment = 's'")  # that of the heads
        tables = await readable(self.owner, "app")
        self._look = "/* proof.look */ " + " UNION ALL ".join(
            f"SELECT '{table}', count({column}), count({column}) FILTER (WHERE {column} IS DISTINCT FROM $1::uuid)"
            f" FROM {table}"
            for table, column in tables.items()
        )
        bounds = Bounds(CONNECTIONS, connect_s=5, acquire_s=5, statement_s=STATEMENT_S)
        kinds: dict[Purpose, Bounds] = {"write": bounds, "read": Bounds(2, 5, 5, 5), "analytics": Bounds(1, 5, 5, 5)}
        self.database = Database(Places(login_dsn(name)), kinds)
        await self.database.open()
        self._stack.push_async_callback(self.database.close)
        self._digests = await self._digest()

    async def close(self) -> None:
        """Leave nothing."""
        await self._stack.aclose()

    async def look(self, session: Session, me: Tenant) -> None:
        """Count what the session shows of every table, without any condition."""
        for table, rows, foreign in await session.fetch(self._look, me.id):
            self.found.own_rows += rows - foreign
            self.blame(foreign, f"{me} saw {foreign} foreign rows of {table}")

    async def call(self, session: Session, name: str, me: Tenant, aim: Tenant, number: int) -> None:
        """Call a function of the store, and look at what it returned."""
        try:
            shown = await CALLS[name](session, me, aim, number)
        except EXPECTED as error:
            self.found.failed[f"{name}: {type(error).__name__}"] += 1
            raise
        self.found.done[name] += 1
        foreign = [row for row in shown if row.owner not in ("", me.id, me.slug)]
        unsaid = [row for row in shown if row.owner == ""]
        foreign += await self._foreign(unsaid, me) if unsaid else []
        self.found.own_rows += len(shown) - len(foreign)
        self.blame(len(foreign), f"{name} showed {me} {foreign[:3]}")

    async def _foreign(self, rows: Collection[Shown], me: Tenant) -> list[Shown]:
        """Those that the owner knows to be another tenant's."""
        found = []
        for table in {row.table for row in rows}:
            column = {"tenants": "id", "session": '(SELECT tenant_id FROM "user" AS u WHERE u.id = t.user_id)'}
            statement = f'SELECT id::text FROM "{table}" AS t WHERE {column.get(table, "tenant_id")} <> $1'
            async with self._asking:
                others = {each for (each,) in await self.owner.fetch(statement, me.id)}
            found += [row for row in rows if row.table == table and row.id in others]
        return found

    async def settle(self, allowed: Collection[Tenant]) -> None:
        """After a step: only rows of the `allowed` may be others than before."""
        self.found.steps += 1
        digests = await self._digest()
        before, self._digests = self._digests, digests
        mine = {tenant.id for tenant in allowed}
        for table, tenant in before.keys() | digests.keys():
            changed = before.get((table, tenant)) != digests.get((table, tenant))
            self.blame(changed and tenant not in mine, f"{table} of {tenant} changed, allowed were {allowed}")

    async def _digest(self) -> dict[tuple[str, str], str]:
        query = " UNION ALL ".join(
            f"SELECT '{table}', {column}::text, md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} AS t"
            " GROUP BY 2"
            for table, column in WRITTEN.items()
        )
        return {(table, tenant): digest for table, tenant, digest in await self.owner.fetch(query)}

    def blame(self, rows: int, text: str) -> None:
        """Count foreign rows; the example fails, so that the shortest way there is found."""
        if rows:
            self.found.foreign_rows += rows
            raise AssertionError(text)

    async def quiet(self, held: Collection[int]) -> None:
        """Wait for what was cut off to have ended in the server, and for the circuit to close. `held`: ids of the
        server processes that are in a transaction on purpose."""
        busy = """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL ($1::int[])
            AND application_name LIKE 'mcp-manager%' AND state <> 'idle'"""
        async with asyncio.timeout(20):
            while await self.owner.fetchval(busy, list(held)):
                await asyncio.sleep(0.002)
            while any(numbers.circuit_open for numbers in self.database.numbers().values()):
                await self.database.probe()
                await asyncio.sleep(0.02)


class Held:
    """A transaction that is kept open over several steps."""

    def __init__(self, me: Tenant, opened: AbstractAsyncContextManager[Session]) -> None:
        self.me = me
        self.session: Session | None = None
        self.pid = 0
        self._opened = opened

    async def begin(self) -> None:
        """Afterwards there is a session, unless there was no connection to be had."""
        try:
            self.session = await self._opened.__aenter__()
        except Unavailable:
            return
        try:
            self.pid = await self.session.fetch_value("/* proof.pid */ SELECT pg_backend_pid()")
        except EXPECTED as error:
            await self.end(error)

    async def end(self, error: BaseException | None = None) -> None:
        """Commit, or do what the store does when the block ends with `error`."""
        session, self.session = self.session, None
        if session is None:
            return
        try:
            await self._opened.__aexit__(type(error) if error else None, error, None)
        except (*EXPECTED, asyncio.CancelledError, ZeroDivisionError) as raised:
            if raised is not error and not isinstance(raised, EXPECTED):
                raise


WHO = st.sampled_from(TENANTS)
#: What the data plane does comes twice as often as what it does not.
WHAT = st.sampled_from([*LEARNING, *LEARNING, *LEARNING, *CALLS])
NUMBERS = st.integers(0, 12)
PURPOSES: st.SearchStrategy[Purpose] = st.sampled_from(["write", "read", "analytics"])
SLOT = st.sampled_from(SLOTS)
ERRORS = (
    "/* proof.error */ SELECT 1 / 0",
    "/* proof.error */ SELECT * FROM no_such_table",
    "/* proof.error */ INSERT INTO mcp_servers (tenant_id, name, endpoint_url) VALUES ($1, 'x', 'http://x/')",
    "/* proof.error */ SELECT pg_sleep(10)",
)


class Isolation(RuleBasedStateMachine):
    """See the module; `world` is set by `run`."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, Held] = {}

    # --- transactions of one step -----------------------------------------------------------------------------------

    @rule(me=WHO, aim=WHO, name=WHAT, number=NUMBERS)
    def once(self, me: Tenant, aim: Tenant, name: str, number: int) -> None:
        """A transaction with one call."""
        self._step("once", self._transaction(me, aim, name, number), [me])

    @rule(me=WHO, purpose=PURPOSES)
    def look(self, me: Tenant, purpose: Purpose) -> None:
        """A transaction that only looks, perhaps in another pool."""
        self._step("look", self._look(me, purpose), [])

    @rule(me=WHO, aim=WHO, name=WHAT, number=NUMBERS, turns=st.integers(0, 60))
    def cancelled(self, me: Tenant, aim: Tenant, name: str, number: int, turns: int) -> None:
        """A transaction whose task is cancelled after some turns of the loop, wherever that is."""
        self._step("cancelled", self._cancel(self._transaction(me, aim, name, number), turns), [me])

    @rule(asked=st.lists(st.tuples(WHO, WHO, WHAT, NUMBERS), min_size=2, max_size=6))
    def together(self, asked: list[tuple[Tenant, Tenant, str, int]]) -> None:
        """Transactions at the same time, more than there are connections."""
        work = [self._transaction(*each) for each in asked]
        self._step("together", self._gather(work), [me for me, *_ in asked])

    @rule(aim=WHO, number=NUMBERS, kind=st.sampled_from(["admin", "sync", "audit", "terminate"]))
    def others(self, aim: Tenant, number: int, kind: str) -> None:
        """Those who may see all tenants use the connections, too; or a server process ends, in a transaction or not."""
        if kind == "terminate":
            self._step(kind, self._terminate(number), [])
        else:
            self._step(kind, self._other(kind, aim, number), [aim])

    # --- transactions over several steps ----------------------------------------------------------------------------

    @rule(slot=SLOT, me=WHO)
    def begin(self, slot: int, me: Tenant) -> None:
        """Open a transaction that stays open; one that is open there is committed."""
        before = self.held.pop(slot, None)
        self.held[slot] = held = Held(me, self.world.database.tenant(me.id))
        self._step("begin", self._begin(before, held), [before.me] if before else [])

    @precondition(lambda self: self.held)
    @rule(slot=SLOT, aim=WHO, name=WHAT, number=NUMBERS)
    def use(self, slot: int, aim: Tenant, name: str, number: int) -> None:
        """A call in it, and a look."""
        held = self.held.get(slot) or next(iter(self.held.values()))
        self._step("use", self._use(held, aim, name, number + 100 * (slot + 1)), [])

    @precondition(lambda self: self.held)
    @rule(slot=SLOT, statement=st.sampled_from(ERRORS), aim=WHO)
    def break_down(self, slot: int, statement: str, aim: Tenant) -> None:
        """An error in it; whatever comes then fails until it ends."""
        held = self.held.get(slot) or next(iter(self.held.values()))
        self._step("error", self._fail(held, statement, aim), [])

    @precondition(lambda self: self.held)
    @rule(slot=SLOT, how=st.sampled_from(["commit", "rollback", "cancel"]))
    def end(self, slot: int, how: str) -> None:
        """End it."""
        held = self.held.pop(slot, None)
        if held is not None:
            errors = {"commit": None, "rollback": ZeroDivisionError(), "cancel": asyncio.CancelledError()}
            self._step(how, held.end(errors[how]), [held.me] if how == "commit" else [])

    def teardown(self) -> None:
        """Commit what is open."""
        for held in self.held.values():
            self._step("end", held.end(), [held.me])
        self.held = {}

    # --- what the steps do ------------------------------------------------------------------------------------------

    def _step(self, kind: str, work: Coroutine[Any, Any, None], allowed: Collection[Tenant]) -> None:
        self.world.found.kinds[kind] += 1
        self.world.run(self._settled(work, allowed))

    async def _settled(self, work: Awaitable[None], allowed: Collection[Tenant]) -> None:
        with suppress(*EXPECTED):
            await work
        await self.world.quiet([held.pid for held in self.held.values() if held.session is not None])
        await self.world.settle(allowed)

    async def _transaction(self, me: Tenant, aim: Tenant, name: str, number: int) -> None:
        async with self.world.database.tenant(me.id) as session:
            await self.world.call(session, name, me, aim, number)
            await self.world.look(session, me)

    async def _look(self, me: Tenant, purpose: Purpose) -> None:
        async with self.world.database.tenant(me.id, purpose) as session:
            await self.world.look(session, me)

    async def _cancel(self, work: Coroutine[Any, Any, None], turns: int) -> None:
        task = asyncio.ensure_future(work)
        for _ in range(turns):
            await asyncio.sleep(0 if turns % 2 else 0.0002)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _gather(self, work: list[Coroutine[Any, Any, None]]) -> None:
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, EXPECTED):
                raise outcome

    async def _other(self, kind: str, aim: Tenant, number: int) -> None:
        if kind == "admin":
            async with administration(self.world.database) as session:
                await CALLS["servers.add"](session, aim, aim, number)
                await CALLS["keys.create"](session, aim, aim, number)
                assert len({row.owner for row in await CALLS["servers.listed"](session, aim, aim, 0)}) == len(TENANTS)
        elif kind == "sync":
            async with registry.reading(self.world.database) as session:
                assert len((await registry.read_changes(session, [("tenants", "")]))["tenants"]) == len(TENANTS)
        else:
            async with self.world.database.audit() as session:
                await CALLS["accounts.note"](session, aim, aim, number)

    async def _begin(self, before: Held | None, held: Held) -> None:
        if before is not None:
            await before.end()
        await held.begin()

    async def _use(self, held: Held, aim: Tenant, name: str, number: int) -> None:
        if held.session is not None:
            await self.world.call(held.session, name, held.me, aim, number)
            await self.world.look(held.session, held.me)

    async def _fail(self, held: Held, statement: str, aim: Tenant) -> None:
        if held.session is not None:
            await held.session.execute(statement, *([aim.id] if "$1" in statement else []))

    async def _terminate(self, which: int) -> None:
        await self.world.owner.execute(
            """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()
            AND application_name LIKE 'mcp-manager%' ORDER BY pid OFFSET $1 % 6 LIMIT 1""",
            which,
        )


def run(length: Length) -> Findings:
    """Run the machine until it has made so many steps, or has found a foreign row."""
    found = Findings()
    phases = [Phase.generate] if length.hole else [Phase.generate, Phase.shrink]  # a hole of ours is known
    with asyncio.Runner() as runner:
        world = World(runner.get_loop(), found)
        Isolation.world = world
        try:
            world.run(world.open())
            if length.hole:
                world.run(world.owner.execute(length.hole))
            while found.steps < length.steps and not found.foreign_rows:
                runs = max(1, (length.steps - found.steps) // length.steps_each)
                run_state_machine_as_test(
                    Isolation,
                    settings=settings(
                        max_examples=runs,
                        stateful_step_count=length.steps_each,
                        deadline=None,
                        database=None,
                        phases=phases,
                        report_multiple_bugs=False,
                        suppress_health_check=list(HealthCheck),
                    ),
                )
        except (AssertionError, Flaky) as error:  # a hole may show in one run of an example, and not in the next
            found.notes.append("".join([str(error), *getattr(error, "__notes__", [])]))
        finally:
            world.run(world.close())
    return found


def figures(short: bool) -> list[Figure]:
    """Tenants on pooled connections, with every function of the store in every order."""
    found = run(Length(steps=300) if short else Length())
    tell(found.notes)
    print(f"steps: {found.steps} foreign_rows: {found.foreign_rows}")
    return [
        Figure(f"{found.steps} steps of tenants on pooled connections: foreign rows", found.foreign_rows, 0, ""),
        Figure("  examples that failed", len(found.notes), 0, ""),
    ]


def main(arguments: list[str]) -> int:
    """Run it and print what was seen; 1 for foreign rows."""
    found = run(Length(*map(int, arguments[:1])))
    for note in found.notes:
        print(f"  ! {note}")
    print("kinds of steps:", dict(found.kinds))
    print("calls that went through:", dict(found.done))
    print("calls that did not:", dict(found.failed))
    print("own rows shown:", found.own_rows)
    print(f"steps: {found.steps} foreign_rows: {found.foreign_rows}")
    return 1 if found.foreign_rows or found.notes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

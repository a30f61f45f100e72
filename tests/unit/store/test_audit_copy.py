"""The trail as a stream, with the real tables: what is read is what was hashed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import pytest

from proxy.audit.chain import Chains
from proxy.commands.audit_source import Range
from proxy.commands.audit_verify import verify_database
from proxy.store.accounts import Rejected
from proxy.store.audit_copy import reading
from proxy.store.audit_search import Wanted
from proxy.store.pool import Unavailable
from proxy.store.records import add_heads, add_rows, row_of, signed
from tests.unit.audit.trails import ACME, KEYS, SIGNER, ZETA, record, trail_of
from tests.unit.store.engine import empty_database, execute, login_dsn, migrated_database, opened, owner_dsn
from tests.unit.store.recorded import EVENING, MORNING, add_lines, add_signed, add_tenants, add_trail

ALL = Wanted(MORNING, EVENING)
ODD = record(
    60, arguments={"text": "a\tb\\n\n\u2028é"}, result=[1.5, None], user_agent="x\\\t\n", duration_ms=0.001,
    client="::ffff:192.0.2.1", arguments_hash="ab" * 32, streamed=True, risk_reasons=["write", "night"], status=-32000,
)  # fmt: skip


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """A database with every table and the two tenants."""
    async with migrated_database() as name:
        await add_tenants(owner_dsn(name))
        yield name


async def lines_of(ask: Callable[[Callable[[bytes], None]], Awaitable[None]]) -> list[bytes]:
    blocks: list[bytes] = []
    await ask(blocks.append)
    return b"".join(blocks).splitlines()


async def test_rows_come_as_they_were_hashed(name: str) -> None:
    """Every type of column, and texts with everything that COPY escapes; whatever the database was told of text."""
    lines, _ = trail_of([*(record(number) for number in range(5)), ODD])
    await add_lines(owner_dsn(name), lines)
    await execute(owner_dsn(name), f"ALTER DATABASE {name} SET extra_float_digits = -10")
    async with reading(login_dsn(name)) as reader:
        assert await lines_of(lambda take: reader.rows(ALL, take, ordered=True)) == lines
        assert await lines_of(lambda take: reader.rows(ALL, take, ordered=False)) == lines


async def test_rows_are_of_a_tenant_and_a_time(name: str) -> None:
    """The end excluded; in the order of tenant and time when that is asked for."""
    await add_trail(owner_dsn(name))
    async with reading(login_dsn(name)) as reader:
        every = await lines_of(lambda take: reader.rows(ALL, take, ordered=True))
        assert every == sorted(every, key=lambda line: line.split(b"\t")[:4])
        of_zeta = await lines_of(lambda take: reader.rows(replace(ALL, tenant=ZETA), take, ordered=False))
        assert {line.split(b"\t")[0] for line in of_zeta} == {ZETA.encode()}
        noon = replace(ALL, since=MORNING + timedelta(hours=6), until=MORNING + timedelta(hours=6, milliseconds=10))
        assert len(await lines_of(lambda take: reader.rows(noon, take, ordered=True))) == 10
        filtered = replace(ALL, outcome="ok", kind="outcome")
        assert len(await lines_of(lambda take: reader.rows(filtered, take, ordered=True))) == 20


async def test_rows_of_segments_come_in_their_order(name: str) -> None:
    """Whatever order they lie in."""
    lines, _ = trail_of([record(number) for number in range(20)])
    await add_lines(owner_dsn(name), lines[::-1])
    await add_trail(owner_dsn(name), segment="two/1", first=100)
    async with reading(login_dsn(name)) as reader:
        assert await lines_of(lambda take: reader.rows_of(ALL, ["one/1"], take)) == lines


async def test_the_last_head_of_each_segment_is_read(name: str) -> None:
    """The final one, if it is there; of those with rows within the time only."""
    heads = await add_trail(owner_dsn(name))
    await add_signed(owner_dsn(name), [replace(heads[0], rows=3, is_final=False)])
    await add_signed(owner_dsn(name), [replace(heads[0], is_final=False)], None)
    async with reading(login_dsn(name)) as reader:
        kept = await reader.heads(MORNING, EVENING, None)
        assert [each.head for each in kept] == heads
        assert all(SIGNER.public.is_signed(each.head.text(), each.signature or b"") for each in kept)
        assert await reader.places(MORNING, EVENING, None) == 2
        assert [each.head.tenant for each in await reader.heads(MORNING, EVENING, UUID(ZETA))] == [ZETA]
        assert await reader.heads(MORNING, MORNING + timedelta(hours=1), None) == []
        assert kept[0].span[1] - kept[0].span[0] < timedelta(seconds=1)


async def test_final_heads_are_found_whenever_they_are_from(name: str) -> None:
    """By tenant and segment; an open one is none."""
    acme, zeta = await add_trail(owner_dsn(name))
    await add_signed(owner_dsn(name), [replace(acme, segment="two/1", is_final=False)])
    async with reading(login_dsn(name)) as reader:
        found = await reader.finals([(ACME, "one/1"), (ZETA, "one/9"), (ACME, "two/1")])
        assert [kept.head for kept in found] == [acme]
        oldest = await reader.oldest([ACME, ZETA])
    assert oldest == {ACME: _at(acme.last_us), ZETA: _at(zeta.last_us)}


def _at(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


async def test_heads_of_endless_times_are_read(name: str) -> None:
    """Nobody signs such a thing, but anybody who can write to the database may add it."""
    await execute(
        owner_dsn(name),
        "INSERT INTO audit_heads (tenant_id, segment, row_count, is_final, head, first_ts, last_ts)"
        f" VALUES ('{ACME}', 'one/1', 5, true, '\\x00', '-infinity', 'infinity')",
    )
    async with reading(login_dsn(name)) as reader:
        (kept,) = await reader.heads(MORNING, EVENING, None)
    assert (kept.span[0].year, kept.span[1].year) == (2, 9999)


async def test_whole_segments_are_read_beyond_the_time(name: str) -> None:
    """Those with rows within it, and nothing of others from around it."""
    await add_trail(owner_dsn(name), count=5, segment="two/1")
    await add_trail(owner_dsn(name), first=5)
    middle = replace(ALL, since=MORNING + timedelta(hours=6, milliseconds=20))
    async with reading(login_dsn(name)) as reader:
        lines = await lines_of(lambda take: reader.whole(middle, (MORNING, EVENING), take))
    assert len(lines) == 40
    assert {line.split(b"\t")[4] for line in lines} == {b"one/1"}


async def test_a_reader_sees_one_moment(name: str) -> None:
    """Rows that are added meanwhile are not there."""
    async with reading(login_dsn(name)) as reader:
        assert await reader.heads(MORNING, EVENING, None) == []
        await add_trail(owner_dsn(name))
        assert await lines_of(lambda take: reader.rows(ALL, take, ordered=False)) == []


async def test_a_tenant_is_named_by_its_short_name_or_its_id(name: str) -> None:
    """None stands for all; another name for nobody."""
    async with reading(login_dsn(name)) as reader:
        assert await reader.tenant_id(None) is None
        assert str(await reader.tenant_id("acme")) == ACME
        assert str(await reader.tenant_id(ZETA)) == ZETA
        with pytest.raises(Rejected, match="no tenant"):
            await reader.tenant_id("nobody")


async def test_nothing_can_be_written(name: str) -> None:
    """The transaction is read-only."""
    with pytest.raises(Rejected, match="read-only"):
        async with reading(login_dsn(name)) as reader:
            await reader._fetch("DELETE FROM audit_logs")


async def test_what_cannot_be_read_is_told_in_words(name: str) -> None:
    """No tables, no server."""
    async with empty_database() as empty:
        with pytest.raises(Rejected, match="migrate up"):
            async with reading(owner_dsn(empty)) as reader:
                await reader.heads(MORNING, EVENING, None)
    with pytest.raises(Unavailable):
        async with reading(re.sub("@[^/]*/", "@127.0.0.1:1/", "postgresql://u:p@h/d")):
            pass


async def test_a_connection_that_is_cut_is_told_so(name: str) -> None:
    """In the middle of a stream."""
    await add_trail(owner_dsn(name))
    with pytest.raises((Unavailable, Rejected)):
        async with reading(login_dsn(name)) as reader:
            await execute(
                owner_dsn("postgres"),
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND application_name ="
                " 'mcp-manager'",
                name,
            )
            await asyncio.sleep(0)
            await reader.rows(ALL, lambda block: None, ordered=False)


async def test_an_output_that_breaks_is_the_callers(name: str) -> None:
    """Its own error reaches it."""
    await add_trail(owner_dsn(name))

    def full(block: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with reading(login_dsn(name)) as reader:
            await reader.rows(ALL, full, ordered=False)


async def test_what_the_proxy_writes_is_complete_and_unchanged(name: str) -> None:
    """From records of the spool through the tables to verification: the text that was hashed comes back."""
    chains = Chains("one/1")
    draft = chains.draft()
    records = [record(number, ACME if number % 2 else ZETA) for number in range(40)]
    records += [ODD, record(61, client="fe80::1%eth0", arguments="\0", target="\\N"), record(62, user_agent="\\.")]
    raw = [orjson.dumps(each) for each in records]
    async with opened(name, connections=2, statement_s=5) as database, database.audit() as session:
        await add_rows(session, [row_of(each, draft) for each in raw])
        chains.accept(draft)
        await add_heads(session, [signed(head, SIGNER) for head in chains.heads(final=True)])
    async with reading(login_dsn(name)) as reader:
        report = await verify_database(reader, Range(MORNING, EVENING, None), KEYS)
    assert report.findings == []
    assert (report.rows, report.heads) == (43, 2)

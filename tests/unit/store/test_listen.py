"""Notices of a real PostgreSQL: they arrive, and whoever may have missed one is told."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store import listen
from proxy.store.listen import Heard, Notice, Notices, parse
from tests.harness import Wire, scripted_upstream
from tests.unit.store.engine import empty_database, execute, login_dsn, migrated_database, owner_dsn

TELL = "SELECT pg_notify('mcp_manager', $1)"
ROW = '{"table": "mcp_servers", "op": "update", "tenant": "t", "id": "%s"}'


@pytest.fixture
async def name() -> AsyncIterator[str]:
    """An empty database."""
    async with empty_database() as name:
        yield name


@pytest.fixture
async def notices(name: str) -> AsyncIterator[Notices]:
    """Listening."""
    notices = Notices(login_dsn(name), time.monotonic, lambda: 0.5)
    assert await notices.step(0) == Heard(missed=True, connected=True)
    yield notices
    await notices.close()


async def told(name: str, *payloads: str) -> None:
    """Somebody else's notices."""
    for payload in payloads:
        await execute(owner_dsn(name), TELL, payload)


async def test_a_notice_arrives_at_once(name: str, notices: Notices) -> None:
    """Several of one row are one; silence is an empty step."""
    assert await notices.step(0.01) == Heard(connected=True)
    await told(name, ROW % 1, ROW % 2, ROW % 1)
    heard: list[Notice] = []
    while len(heard) < 2:
        heard += (await notices.step(20)).notices
    assert heard == [Notice("mcp_servers", "update", "t", str(number)) for number in (1, 2)]


async def test_a_step_waits_until_something_is_heard(name: str, notices: Notices) -> None:
    """And no longer."""
    waiting = asyncio.create_task(notices.step(60))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await told(name, ROW % 1)
    assert len((await waiting).notices) == 1
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("payload", ["", "{", "[]", '{"op": "update"}', '{"table": 7}'])
async def test_a_notice_that_makes_no_sense_means_that_something_was_missed(
    payload: str, name: str, notices: Notices
) -> None:
    """Better to read once too often."""
    await told(name, payload)
    assert await notices.step(20) == Heard(missed=True, connected=True)


async def test_too_many_notices_are_one_request_to_read_everything(
    name: str, notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded."""
    monkeypatch.setattr(listen, "_MOST", 10)
    await execute(owner_dsn(name), f"SELECT pg_notify('mcp_manager', '{ROW % 'x'}' || n) FROM generate_series(1, 20) n")
    await told(name, *(ROW % number for number in range(11)))
    await asyncio.sleep(0.1)
    assert (await notices.step(20)).missed


async def test_a_connection_that_is_cut_is_made_again_and_the_gap_is_told(name: str, notices: Notices) -> None:
    """While it is away each step says so at once, and a step that was waiting ends."""
    waiting = asyncio.create_task(notices.step(30))
    await asyncio.sleep(0.05)
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mcp-manager listen'"
    await execute(owner_dsn(name), f"{query} AND datname = $1", name)
    heard = await asyncio.wait_for(waiting, 20)
    steps = [heard]
    while not steps[-1].connected:
        steps.append(await notices.step(0.01))
        await asyncio.sleep(0.01)
    assert steps[-1] == Heard(missed=True, connected=True)
    assert any(not step.connected for step in steps)
    assert notices.failures == 1


@asynccontextmanager
async def farewell() -> AsyncIterator[str]:
    """The DSN of a server that lets everyone in and says good-bye in the same breath, as one does that is stopped at
    that moment."""
    ready = message(b"R", bytes(4)) + message(b"S", b"server_version\0" + b"18.0\0") + message(b"Z", b"I")
    fatal = message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0")

    async def serve(wire: Wire) -> None:
        await wire.reader.readexactly(8)
        await wire.send(ready + fatal)
        await wire.reader.read()

    async with scripted_upstream(serve) as server:
        yield f"postgresql://u:p@127.0.0.1:{server.port}/x?sslmode=disable"


def message(kind: bytes, content: bytes) -> bytes:
    """One message of PostgreSQL's protocol."""
    return kind + (len(content) + 4).to_bytes(4, "big") + content


async def test_a_server_that_ends_the_connection_as_it_is_made_is_away() -> None:
    """A step says so, and does not fail."""
    async with farewell() as dsn:
        notices = Notices(dsn, time.monotonic, lambda: 0.5)
        assert await notices.step(0.05) == Heard()
        assert notices.failures == 1
        await notices.close()


async def test_a_server_that_is_away_is_asked_ever_less_often() -> None:
    """Steps in between cost nothing and raise nothing; the delays double up to five seconds."""
    now = [0.0]
    notices = Notices("postgresql://u@127.0.0.1:1/x", lambda: now[0], lambda: 0.5)
    attempts = []
    for tick in range(300):
        now[0] = tick * 0.1
        before = notices.failures
        assert await notices.step(10) == Heard()
        if notices.failures > before:
            attempts.append(now[0])
    gaps = [round(later - sooner, 1) for sooner, later in itertools.pairwise(attempts)]
    assert gaps[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6], abs=0.11)
    assert max(gaps) == pytest.approx(5.0, abs=0.11)


async def test_a_silent_server_is_asked_whether_it_lives(
    name: str, notices: Notices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer in time is given up: its silence would be taken for peace."""
    monkeypatch.setattr(listen, "_SILENCE_S", 0.0)
    assert (await notices.step(0.01)).connected
    monkeypatch.setattr(listen, "_ANSWER_S", 0.2)
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'mcp-manager listen' AND datname = $1"
    backend = psutil.Process((await execute(owner_dsn(name), query, name))[0]["pid"])
    backend.suspend()
    try:
        began = time.monotonic()
        assert not (await notices.step(0.01)).connected
        assert time.monotonic() - began < 20
    finally:
        backend.resume()


async def test_the_triggers_of_the_migrations_speak_this_language() -> None:
    """A row that is made, changed and deleted: table, operation, tenant and id."""
    async with migrated_database() as name:
        notices = Notices(login_dsn(name), time.monotonic, lambda: 0.5)
        await notices.step(0)
        made = "INSERT INTO tenants (slug, name) VALUES ('acme', 'Acme') RETURNING id"
        tenant = str((await execute(owner_dsn(name), made))[0]["id"])
        assert (await notices.step(20)).notices == (Notice("tenants", "insert", tenant, tenant),)
        await execute(owner_dsn(name), "DELETE FROM tenants WHERE slug = 'acme'")
        assert (await notices.step(20)).notices == (Notice("tenants", "delete", tenant, tenant),)
        await notices.close()


@given(st.text() | st.binary() | st.none() | st.integers())
def test_no_payload_breaks_the_ear(payload: object) -> None:
    """It is a notice or it is none."""
    assert parse(payload) is None or isinstance(parse(payload), Notice)

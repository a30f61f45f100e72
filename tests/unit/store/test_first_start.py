"""The first start: one tenant, one key, its text in a file; also after a crash and with others at the same time."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.identity.keys import PepperRing, parse
from proxy.store import keys, tenants
from proxy.store.accounts import Rejected
from proxy.store.database import Session, Unavailable
from proxy.store.first_start import first_start
from proxy.store.tenants import NewTenant
from tests.unit.store.administered import Administered, administered

RING = PepperRing({1: b"a pepper of a test"})


@pytest.fixture
async def here() -> AsyncIterator[Administered]:
    """A database with nothing but the system tenant."""
    async with administered() as made:
        yield made


async def rows(here: Administered) -> list[tuple[object, ...]]:
    """Keys with what they are good for."""
    columns = "slug, k.name, scopes, k.id, secret_hmac"
    query = f"SELECT {columns} FROM enhanced_api_keys AS k JOIN tenants AS t ON t.id = tenant_id"
    return [tuple(row.values()) for row in await here.rows(query)]


async def test_an_empty_database_gets_a_tenant_and_a_key(here: Administered, tmp_path: Path) -> None:
    """The file is ours alone and holds the key and nothing else; the next start makes nothing."""
    path = await first_start(here.database, RING, tmp_path / "state")
    assert path == tmp_path / "state" / "first-key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    parsed = parse(path.read_text().removesuffix("\n"))
    assert parsed is not None
    [(slug, name, scopes, key_id, stored)] = await rows(here)
    assert (slug, name, scopes, key_id) == ("default", "first key", ["proxy", "read", "write"], parsed[0])
    assert isinstance(stored, bytes) and RING.matches(parsed[1], stored, 1)
    assert await first_start(here.database, RING, tmp_path / "state") is None
    assert len(await rows(here)) == 1


async def test_a_database_with_a_tenant_is_let_alone(here: Administered, tmp_path: Path) -> None:
    """Whoever made it has keys of their own."""
    async with here.session() as session:
        await tenants.create(session, NewTenant("acme", "Acme"))
    assert await first_start(here.database, RING, tmp_path) is None
    assert await rows(here) == []
    assert list(tmp_path.iterdir()) == []


async def test_a_start_that_was_cut_off_is_made_good_by_the_next(
    here: Administered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after the file was written: nothing is in the database, and the file's key comes in."""

    async def lost(session: Session, *_: object) -> None:
        raise Unavailable("lost")

    with monkeypatch.context() as patched:
        patched.setattr(keys, "create", lost)
        with pytest.raises(Unavailable):
            await first_start(here.database, RING, tmp_path)
    text = (tmp_path / "first-key").read_text()
    assert await rows(here) == []
    assert [row["slug"] for row in await here.rows("SELECT slug FROM tenants")] == ["system"]
    path = await first_start(here.database, RING, tmp_path)
    assert path is not None and path.read_text() == text
    assert len(await rows(here)) == 1


async def test_of_many_that_start_together_one_makes_the_key(here: Administered, tmp_path: Path) -> None:
    """The others find a tenant."""
    made = await asyncio.gather(*(first_start(here.database, RING, tmp_path) for _ in range(5)))
    assert sum(path is not None for path in made) == 1
    assert len(await rows(here)) == 1


async def test_a_file_that_holds_something_else_is_not_taken_for_a_key(here: Administered, tmp_path: Path) -> None:
    """It is not overwritten either."""
    (tmp_path / "first-key").write_text("what a person planted there")
    (tmp_path / "first-key").chmod(0o600)
    with pytest.raises(Rejected, match="does not hold a key") as refused:
        await first_start(here.database, RING, tmp_path)
    assert "planted" not in str(refused.value)
    assert await rows(here) == []

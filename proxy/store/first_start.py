"""The first start of an embedded database: a tenant and a key, so that there is something to begin with.

Owns their names and the file that holds the key. Nothing can be half done: the key is in the file before its row is
written, one transaction writes the rows, and a start that was cut off in between goes on with the key of the file.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from proxy.config.keyfile import load_or_create
from proxy.identity.keys import PepperRing, mint, parse
from proxy.identity.records import KeyRecord
from proxy.store import keys, tenants
from proxy.store.accounts import Rejected, administration
from proxy.store.database import Database, Session
from proxy.store.tenants import NewTenant

FILE: Final = "first-key"
TENANT: Final = NewTenant("default", "Default")
KEY_NAME: Final = "first key"
_SCOPES: Final = ("proxy", "read", "write")
#: Whoever else starts at the same time waits here, and then finds a tenant. It reads `frst` in ASCII.
_LOCK: Final = "/* first_start.lock */ SELECT pg_advisory_xact_lock(x'66727374'::int)"
_IS_EMPTY: Final = "/* first_start.empty */ SELECT NOT EXISTS (SELECT FROM tenants WHERE slug <> $1)"


async def first_start(database: Database, ring: PepperRing, state_dir: Path) -> Path | None:
    """Make a tenant and a key when there is no tenant but the system's; the file with the key's text, else None.

    Raises OSError when the file cannot be written, Rejected and Unavailable.
    """
    async with administration(database) as session:
        await session.execute(_LOCK)
        if not await session.fetch_value(_IS_EMPTY, tenants.SYSTEM):
            return None
        path = state_dir / FILE
        await _make(session, ring, await asyncio.to_thread(load_or_create, path, lambda: mint(ring).text), path)
        return path


async def _make(session: Session, ring: PepperRing, text: bytes, path: Path) -> None:
    parsed = parse(text.decode("ascii", "replace"))
    if parsed is None:
        raise Rejected(f"{path} does not hold a key; remove it to have a new one made")
    key_id, secret = parsed
    await tenants.create(session, TENANT)
    await keys.create(session, TENANT.slug, KEY_NAME, KeyRecord(key_id, *ring.hash(secret), "", scopes=_SCOPES))

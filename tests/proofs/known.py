"""Everyone who is known to a proxy: rows of a real database, the header field that each shows, and a proxy for them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import asyncpg

from proxy.identity.keys import PepperRing, digest_of, mint
from proxy.store.embedded import EmbeddedPostgres
from proxy.store.migrate import migrator
from tests.harness import CALL, ProxyProcess, RawClient, post, running_proxy
from tests.unit.store.engine import folder

PEPPER: Final = "a pepper of thirty-two characters"
SECRET: Final = "the secret of the front end's sign-in"
RING: Final = PepperRing({1: PEPPER.encode()})
#: What a credential may be; a bearer shows its session's token, a cookie shows it signed.
KINDS: Final = ("key", "legacy", "token", "bearer", "cookie")
TABLES: Final = dict(zip(KINDS, ("enhanced_api_keys", "api_keys", "api_tokens", "session", "session"), strict=True))

_USERS: Final = "INSERT INTO \"user\" (id, name, email, tenant_id) VALUES ($1, $1, $1 || '@example.com', $2)"
_SCOPES: Final = "'{proxy,read,write}'"
_CREDENTIALS: Final = {
    "enhanced_api_keys": "INSERT INTO enhanced_api_keys (id, tenant_id, user_id, name, scopes, secret_hmac) "
    f"VALUES ($1, $2, $3, $1, {_SCOPES}, $4)",
    "api_keys": "INSERT INTO api_keys (id, tenant_id, user_id, name, scopes, key_hash) "
    f"VALUES ($1::text::uuid, $2, $3, $1, {_SCOPES}, $4)",
    "api_tokens": "INSERT INTO api_tokens (id, tenant_id, user_id, name, scopes, token_hash) "
    f"VALUES ($1::text::uuid, $2, $3, $1, {_SCOPES}, $4)",
    "session": "INSERT INTO session (id, user_id, token, expires_at) VALUES ($1, $2, $3, now() + '1 day'::interval)",
}


@dataclass(frozen=True)
class Someone:
    """A credential, and the user and tenant that it belongs to."""

    kind: str
    id: str
    """Of the row."""
    value: str = field(repr=False)
    """Of the header field."""
    stored: Any = field(repr=False)
    """What of it the row holds: HMAC, digest or, of a session, its token."""
    tenant: str = field(default_factory=lambda: str(uuid4()))
    user: str = field(default_factory=lambda: f"u-{uuid4()}")

    @property
    def row(self) -> tuple[Any, ...]:
        """Columns of its row."""
        owner = (self.user,) if TABLES[self.kind] == "session" else (self.tenant, self.user)
        return self.id, *owner, self.stored

    @property
    def header(self) -> tuple[str, str]:
        """Name and value of the field that it shows."""
        name = {"key": "Authorization", "legacy": "X-API-Key", "token": "X-API-Key", "cookie": "Cookie"}
        return name.get(self.kind, "Authorization"), self.value

    def call(self, path: str = "/up/mcp") -> bytes:
        """A call that shows it."""
        return post(path, CALL, ": ".join(self.header))

    def stream(self, path: str = "/up/mcp") -> bytes:
        """The request for a stream that stays open and says nothing after its first event."""
        lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: text/event-stream", "X-Answer: hold"]
        return "\r\n".join([*lines, ": ".join(self.header), "", ""]).encode()


def someone(kind: str) -> Someone:
    """Somebody new, with a tenant and a user of its own; in no database yet."""
    if kind == "key":
        minted = mint(RING)
        return Someone(kind, minted.id, f"Bearer {minted.text}", minted.secret_hmac)
    text = secrets.token_hex(16)
    if kind == "cookie":
        return Someone(kind, str(uuid4()), f"theme=dark; better-auth.session_token={signed(text)}", text)
    if kind == "bearer":
        return Someone(kind, str(uuid4()), f"Bearer {text}", text)
    return Someone(kind, str(uuid4()), text, digest_of(text))


def signed(token: str) -> str:
    """A session token as Better-Auth signs it."""
    signature = hmac.digest(SECRET.encode(), token.encode(), hashlib.sha256)
    return quote(f"{token}.{base64.b64encode(signature).decode()}", safe="")


async def admit(dsn: str, people: Iterable[Someone]) -> None:
    """Put them into a database, whose owner `dsn` names, in one transaction."""
    people = list(people)
    tenants = {one.tenant for one in people}
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.executemany(
                "INSERT INTO tenants (id, slug, name) VALUES ($1::uuid, 't-' || $1::uuid, 'T') ON CONFLICT DO NOTHING",
                [(tenant,) for tenant in tenants],
            )
            await connection.executemany(_USERS, [(one.user, one.tenant) for one in people])
            for table, statement in _CREDENTIALS.items():
                rows = [one.row for one in people if TABLES[one.kind] == table]
                await connection.executemany(statement, rows)
    finally:
        await connection.close()


@asynccontextmanager
async def own_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A migrated server that may be stopped and started, in a folder of its own; others have no part in it."""
    server = EmbeddedPostgres(folder() / "postgres")
    await server.start()
    try:
        async with migrator(server.owner_dsn) as migrations:
            await migrations.up()
        await server.allow()
        yield server
    finally:
        await server.stop()


def config(dsn: str, upstream_port: int, state_dir: str, **keys: Any) -> dict[str, Any]:
    """A proxy that lets in who is known, and nobody else."""
    return {
        "auth": {"peppers": {1: PEPPER}, "session_secret": SECRET, "anonymous": False},
        "postgres": {"dsn": dsn},
        "servers": {"up": {"url": f"http://127.0.0.1:{upstream_port}/mcp", "pool": {"max_connections": 2000}}},
        "state_dir": state_dir,
        "log": {"access": False},
        **keys,
    }


@asynccontextmanager
async def serving(settings: dict[str, Any]) -> AsyncIterator[ProxyProcess]:
    """`running_proxy` that leaves the loop to others while it starts and stops."""
    context = running_proxy(settings)
    proxy = await asyncio.to_thread(context.__enter__)
    try:
        yield proxy
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def status_of(client: RawClient, request: bytes) -> int:
    """Status of the answer to a request on a kept connection; 0 when there was none."""
    try:
        await client.send(request)
        return (await client.answer())[0]
    except (OSError, EOFError, TimeoutError):
        return 0


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task until it is over: `wait_for` loses a cancellation that comes together with its result."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1)

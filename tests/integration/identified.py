"""A proxy with PostgreSQL, two tenants and everything that identifies somebody, in front of upstreams that keep what
they saw.

Owns how rows come to be, as the front end and the commands write them, and how a test waits until the proxy knows of
them. Blocking, so that tests decide byte by byte what is sent.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from proxy.identity.keys import Minted, PepperRing, digest_of, mint
from proxy.identity.records import SYSTEM_TENANT
from tests.harness import CALL, ROOT, ProxyProcess, ScriptedUpstream, Wire, json_answer, post, running_proxy
from tests.integration.blocking import Client, Server, connected
from tests.integration.talk import SSE_HEAD, Answered, chunk, get
from tests.unit.store.engine import execute, folder, login_dsn, migrated_template, owner_dsn

PEPPER: Final = "pepper-of-the-tests-2eb1c7"
SIGN_IN_SECRET: Final = "better-auth-secret-of-the-tests-9f3a"
RING: Final = PepperRing({1: PEPPER.encode()})
EVERY_SCOPE: Final = ["proxy", "read", "write"]
TENANTS: Final = ("acme", "globex")
#: Servers: `shared` stands in the configuration file, `common` in a row of the system tenant; each tenant has a server
#: `tools`, and one that is called after the tenant.
SHARED: Final = ("shared", "common")
LIST: Final = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
INITIALIZE: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
    b'"clientInfo":{"name":"test","version":"1"}}}'
)
TOOLS: Final = ("open", "open-file", "secret")
LISTED: Final = json.dumps(
    {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": name} for name in TOOLS]}}, separators=(",", ":")
).encode()
#: How long a test waits until the proxy knows of a committed change, seconds: it is told at once, on a machine that is
#: not busy. How soon it must know is proved elsewhere.
KNOWN_S: Final = 20.0
_DATABASES: Final = itertools.count(1)


def waited(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of a coroutine that runs in a thread with a loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(make())).result(60)


def signed(token: str, secret: str = SIGN_IN_SECRET) -> str:
    """A session token as Better-Auth writes it into its cookie."""
    signature = base64.b64encode(hmac.digest(secret.encode(), token.encode(), hashlib.sha256)).decode()
    return quote(f"{token}.{signature}", safe="")


def bearer(text: str) -> str:
    return f"Authorization: Bearer {text}"


def api_key(text: str) -> str:
    return f"X-API-Key: {text}"


def cookie(token: str, others: str = "") -> str:
    return f"Cookie: {others}better-auth.session_token={signed(token)}"


def call(tool: str = "open", **members: Any) -> bytes:
    """The body of a call."""
    return (
        CALL.replace(b'"echo"', json.dumps(tool).encode())
        if not members
        else json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, **members}}
        ).encode()
    )


async def speak(wire: Wire) -> None:
    """An MCP server: lists, as JSON or (asked with a cursor) as events, sessions, and streams that stay open."""
    while request := await wire.request():
        head, _, body = request.partition(b"\r\n\r\n")
        if head.startswith(b"GET") and b"text/event-stream" in head.lower():
            legacy = chunk(b"event: endpoint\ndata: /messages?id=1\n\n") if b"GET /sse" in head else b""
            await wire.send(SSE_HEAD + legacy + chunk(b"data: " + LISTED + b"\n\n"))
            await wire.reader.read(1)
            return
        if b'"tools/list"' in body and b'"cursor"' in body:
            await wire.send(SSE_HEAD + chunk(b"data: " + LISTED + b"\n\n") + b"0\r\n\r\n")
        elif b'"tools/list"' in body:
            await wire.send(json_answer(LISTED))
        elif b'"initialize"' in body:
            answer = json_answer()
            await wire.send(answer.replace(b"\r\n\r\n", b"\r\nMcp-Session-Id: session-of-the-upstream\r\n\r\n", 1))
        else:
            await wire.send(json_answer())


class Key(NamedTuple):
    """A row of `enhanced_api_keys`, and its text."""

    id: str
    text: str


class Identified:
    """The proxy and its database."""

    def __init__(self, database: str, upstreams: dict[str, ScriptedUpstream], config: dict[str, Any]) -> None:
        self.database = database
        self.upstreams = upstreams
        self.config = config
        self.proxy: ProxyProcess
        self.tenants: dict[str, str] = {"system": SYSTEM_TENANT}
        self._numbers = itertools.count(1)
        self._probe = Key("", "")

    # --- rows ---------------------------------------------------------------------------------------------------------

    def sql(self, statement: str, *values: object) -> list[Any]:
        """Run a statement as the owner; the rows."""
        rows: list[Any] = waited(lambda: execute(owner_dsn(self.database), statement, *values))
        return rows

    def insert(self, table: str, **columns: object) -> str:
        """Add a row; its id."""
        names = ", ".join(f'"{name}"' for name in columns)
        places = ", ".join(_placed(name, f"${at}") for at, name in enumerate(columns, 1))
        [row] = self.sql(f'INSERT INTO "{table}" ({names}) VALUES ({places}) RETURNING id', *columns.values())
        return str(row["id"])

    def tenant(self, slug: str, **columns: object) -> str:
        self.tenants[slug] = self.insert("tenants", slug=slug, name=slug, **columns)
        return self.tenants[slug]

    def user(self, tenant: str, **columns: object) -> str:
        number = next(self._numbers)
        row = {"id": f"user-{number}", "name": "someone", "email": f"user{number}@example.com"}
        return self.insert("user", **{**row, "tenant_id": self.tenants[tenant], **columns})

    def key(self, tenant: str, minted: Minted | None = None, **columns: object) -> Key:
        """An API key with every scope."""
        minted = minted or mint(RING)
        row = {"id": minted.id, "secret_hmac": minted.secret_hmac, "pepper_version": 1, "scopes": EVERY_SCOPE}
        self.insert("enhanced_api_keys", **{**row, **self._owned(tenant), **columns})
        return Key(minted.id, minted.text)

    def legacy(self, tenant: str, text: str, **columns: object) -> str:
        """A legacy key; the id of its row."""
        row = {"key_hash": digest_of(text), "scopes": EVERY_SCOPE}
        return self.insert("api_keys", **{**row, **self._owned(tenant), **columns})

    def token(self, tenant: str, text: str, **columns: object) -> str:
        """An API token; the id of its row."""
        row = {"token_hash": digest_of(text), "scopes": EVERY_SCOPE}
        return self.insert("api_tokens", **{**row, **self._owned(tenant), **columns})

    def session(self, user: str, token: str, **columns: object) -> str:
        """A sign-in; the id of its row."""
        row = {"id": f"session-{next(self._numbers)}", "token": token, "user_id": user, "expires_at": later(3600)}
        return self.insert("session", **{**row, **columns})

    def server(self, tenant: str, name: str, url: str, **columns: object) -> str:
        row = {"tenant_id": self.tenants[tenant], "name": name, "endpoint_url": url}
        return self.insert("mcp_servers", **row, **columns)

    def route(self, tenant: str, path: str, servers: list[str], **columns: object) -> str:
        """A routing rule; `conditions` and `options` are JSON texts."""
        targets = json.dumps([{"name": name} for name in servers])
        row = {"tenant_id": self.tenants[tenant], "name": f"route-{next(self._numbers)}", "path": path}
        return self.insert("routing_rules", **row, target_servers=targets, **columns)

    def rule(self, tenant: str, effect: str, server: str | None = None, **columns: object) -> str:
        """A row of `server_access_control`. `server`: the id of a row."""
        row = {"tenant_id": self.tenants[tenant], "effect": effect, "server_id": server, "subject_type": "everyone"}
        return self.insert("server_access_control", **{**row, **columns})

    def _owned(self, tenant: str) -> dict[str, object]:
        return {"tenant_id": self.tenants[tenant], "name": f"credential {next(self._numbers)}"}

    # --- talk ---------------------------------------------------------------------------------------------------------

    def ask(self, request: bytes) -> Answered:
        """The answer to a request on a connection of its own."""
        return ask(self.proxy, request)

    def call(self, server: str, *fields: str, body: bytes = CALL) -> Answered:
        """The answer to a message for a server, by its built-in path."""
        return self.ask(post(f"/{server}/mcp", body, *fields))

    def reload(self, **sections: Any) -> None:
        """Put a configuration in force: that of the start, with these sections over it."""
        said = self.proxy.reload(self.config | sections)
        assert said["event"] == "configuration in force", said

    def seen(self) -> list[bytes]:
        """Every request that any upstream saw, but for those of `settle`."""
        return [request for name, each in self.upstreams.items() if name != "probe" for request in each.seen]

    def connections(self) -> int:
        """Connections that any upstream accepted."""
        return sum(each.connections for name, each in self.upstreams.items() if name != "probe")

    def settle(self) -> float:
        """Wait until the proxy knows of everything that is committed; how long that took, seconds. Changes come to
        force in their order, and this makes one more."""
        began = time.monotonic()
        path = f"/settled-{next(self._numbers)}"
        self.sql("UPDATE routing_rules SET path = $1 WHERE name = 'settled'", path)
        while (answered := self.ask(post(path, CALL, api_key(self._probe.text)))).status != 200:
            assert time.monotonic() - began < KNOWN_S, f"the proxy does not hear of changes, but answers {answered}"
            time.sleep(0.02)
        return time.monotonic() - began

    @contextmanager
    def away(self) -> Iterator[None]:
        """PostgreSQL lets nobody in for the length of a `with`, and every connection is cut."""
        maintenance, name = owner_dsn("postgres"), self.database
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
        waited(lambda: execute(maintenance, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        try:
            waited(lambda: execute(maintenance, cut, name))
            yield
        finally:
            waited(lambda: execute(maintenance, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        self._settle_when_back()

    def _settle_when_back(self) -> None:
        """The same after PostgreSQL was away."""
        until = time.monotonic() + KNOWN_S
        while True:
            try:
                self.settle()
                return
            except AssertionError:
                assert time.monotonic() < until + KNOWN_S

    def populate(self) -> None:
        """Both tenants, and their servers."""
        url = {name: upstream.url for name, upstream in self.upstreams.items()}
        for slug in TENANTS:
            self.tenant(slug)
            self.server(slug, "tools", url[f"{slug}-tools"])
            self.server(slug, slug, url[slug])
        self.server("system", "common", url["common"])
        self.server("system", "probe", url["probe"])
        self.route("system", "/settled", ["probe"])
        self.sql("UPDATE routing_rules SET name = 'settled'")
        self._probe = self.key("system")


def _placed(name: str, place: str) -> str:
    """A parameter, converted where the driver cannot."""
    kinds = {"allowed_ips": "text[]::cidr[]", "daily_from": "text::time", "daily_until": "text::time"}
    json_columns = ("headers", "options", "conditions", "target_servers")
    kind = kinds.get(name) or ("jsonb" if name in json_columns else "")
    return f"{place}::{kind}" if kind else place


def later(seconds: float) -> datetime:
    """A moment so far from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def ask(proxy: ProxyProcess, request: bytes) -> Answered:
    """The answer to a request on a connection of its own."""
    with connected(proxy) as client:
        client.send(request)
        return Answered(*client.answer())


@contextmanager
def database() -> Iterator[str]:
    """The name of a new database with every table."""
    name = f"identified_{next(_DATABASES)}"
    template = waited(migrated_template)
    waited(lambda: execute(owner_dsn("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}"))
    try:
        yield name
    finally:
        waited(lambda: execute(owner_dsn("postgres"), f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def prepared(**config: Any) -> Iterator[Identified]:
    """Everything but the proxy; sections of `config` are laid over those of the test."""
    names = (*SHARED, *TENANTS, *(f"{slug}-tools" for slug in TENANTS), "probe")
    with ExitStack() as stack:
        name = stack.enter_context(database())
        upstreams = {each: stack.enter_context(Server()) for each in names}
        for upstream in upstreams.values():
            upstream.script = speak
        sections: dict[str, Any] = {
            "listen": {},
            "auth": {"anonymous": False, "peppers": {1: PEPPER}, "session_secret": SIGN_IN_SECRET},
            "postgres": {"dsn": login_dsn(name)},
            "registry": {"private_networks": ["127.0.0.0/8"]},
            "servers": {"shared": {"url": upstreams["shared"].url}},
            "state_dir": str(folder() / "state"),
        }
        world = Identified(name, upstreams, sections | config)
        world.populate()
        yield world


@contextmanager
def identified(**config: Any) -> Iterator[Identified]:
    """Everything, with a proxy that knows all of it."""
    with prepared(**config) as world, running_proxy(world.config) as world.proxy:
        world.settle()
        yield world


@contextmanager
def streaming(proxy: ProxyProcess, request: bytes) -> Iterator[Client]:
    """A client with the head of a stream; what came of its body stands in `read`."""
    with connected(proxy) as client:
        client.send(request)
        while b"\r\n\r\n" not in client.read:
            assert client.receive()
        head, _, client.read = client.read.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        yield client


def stream_of(path: str, *fields: str) -> bytes:
    """A request for a standing stream."""
    return get(path, "Accept: text/event-stream", *fields)


def command(world: Identified, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of an operator, with the configuration of the proxy."""
    whole = [sys.executable, "-m", "proxy", *arguments, "-c", str(world.proxy.path)]
    return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def state_files(world: Identified) -> dict[str, bytes]:
    """What the proxy keeps in its state directory."""
    state = Path(world.config["state_dir"])
    return {path.name: path.read_bytes() for path in state.iterdir() if path.is_file()}
